//! Payloads that are not held in memory as a whole.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

/// A pattern that is repeated up to a length.
#[derive(Clone, PartialEq, Eq)]
pub struct Payload {
    pattern: Cow<'static, [u8]>,
    /// The offset in the pattern at which it begins.
    start: usize,
    len: usize,
}

impl Payload {
    pub fn repeated(pattern: &'static [u8], len: usize) -> Self {
        Payload { pattern: Cow::Borrowed(pattern), start: 0, len }
    }

    /// In bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A range of its bytes.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        if let Cow::Borrowed(pattern) = self.pattern {
            let (start, len) = (self.start + range.start, range.len());
            return Payload { pattern: Cow::Borrowed(pattern), start, len };
        }
        let mut bytes = Vec::with_capacity(range.len());
        self.append(range, &mut bytes);
        bytes.into()
    }

    /// Appends a range of its bytes.
    pub fn append(&self, range: Range<usize>, out: &mut Vec<u8>) {
        let mut at = range.start;
        while at < range.end {
            let rest = &self.pattern[(self.start + at) % self.pattern.len()..];
            let taken = rest.len().min(range.end - at);
            out.extend_from_slice(&rest[..taken]);
            at += taken;
        }
    }

    /// All of its bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        self.append(0..self.len, &mut bytes);
        bytes
    }
}

/// Whether these are its bytes.
impl PartialEq<[u8]> for Payload {
    fn eq(&self, bytes: &[u8]) -> bool {
        let period = self.pattern.len().min(self.len);
        let mut begin = Vec::with_capacity(period);
        self.append(0..period, &mut begin);
        // A sequence repeats a pattern if it equals itself, shifted by the pattern's length.
        bytes.len() == self.len
            && bytes[..period] == begin
            && bytes[period..] == bytes[..self.len - period]
    }
}

impl From<&'static [u8]> for Payload {
    fn from(bytes: &'static [u8]) -> Self {
        Payload::repeated(bytes, bytes.len())
    }
}

impl<const N: usize> From<&'static [u8; N]> for Payload {
    fn from(bytes: &'static [u8; N]) -> Self {
        Payload::repeated(bytes, N)
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload { len: bytes.len(), pattern: Cow::Owned(bytes), start: 0 }
    }
}

/// A short payload as text or in hexadecimal digits, and the length of a longer one.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_SHOWN: usize = 24;
        match self.len {
            0 => f.write_str("empty"),
            1..=MAX_SHOWN => {
                let bytes = self.to_vec();
                match str::from_utf8(&bytes) {
                    Ok(text) if bytes.iter().all(|&byte| matches!(byte, b' '..=b'~')) => {
                        write!(f, "\"{text}\"")
                    }
                    _ => bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}")),
                }
            }
            len => write!(f, "{len} bytes"),
        }
    }
}
