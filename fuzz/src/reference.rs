//! A second decoder to compare with, written straight from the diagram in RFC 6455 §5.2. It shares no
//! code with the server.

/// A frame's header as the diagram has it. No rule is checked.
#[derive(Debug)]
pub struct Header {
    pub fin: bool,
    pub rsv: u8,
    pub opcode: u8,
    /// The seven bits of the second byte.
    pub short_len: u8,
    pub payload_len: u64,
    pub masking_key: Option<[u8; 4]>,
    /// In bytes.
    pub len: usize,
}

impl Header {
    /// The header that `bytes` begin with, if all of it is there.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut number = |len: usize| {
            let (taken, tail) = rest.split_at_checked(len)?;
            rest = tail;
            Some(taken.iter().fold(0, |number, &byte| (number << 8) | u64::from(byte)))
        };
        let first = number(1)?;
        let second = number(1)?;
        let short_len = (second & 0x7F) as u8;
        let payload_len = match short_len {
            126 => number(2)?,
            127 => number(8)?,
            _ => u64::from(short_len),
        };
        let masking_key = match second & 0x80 {
            0 => None,
            _ => Some((number(4)? as u32).to_be_bytes()),
        };
        Some(Header {
            fin: first & 0x80 != 0,
            rsv: (first >> 4 & 0x7) as u8,
            opcode: (first & 0xF) as u8,
            short_len,
            payload_len,
            masking_key,
            len: bytes.len() - rest.len(),
        })
    }

    /// Whether the payload's length is in its shortest form.
    pub fn is_minimal(&self) -> bool {
        match self.payload_len {
            0..126 => self.short_len < 126,
            126..65_536 => self.short_len == 126,
            65_536.. => self.short_len == 127,
        }
    }

    /// The frame's length, if it is no longer than `limit`.
    fn frame_len(&self, limit: usize) -> Option<usize> {
        let len = usize::try_from(self.payload_len).ok()?.checked_add(self.len)?;
        (len <= limit).then_some(len)
    }
}

/// Splits what a client sends into frames. The last one may be incomplete.
pub fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let len = whole_frame(bytes).unwrap_or(bytes.len());
        let (frame, rest) = bytes.split_at(len);
        bytes = rest;
        (!frame.is_empty()).then_some(frame)
    })
}

/// The length of the frame that `bytes` begin with, if all of it is there.
pub fn whole_frame(bytes: &[u8]) -> Option<usize> {
    Header::read(bytes)?.frame_len(bytes.len())
}

/// Unmasks as §5.3 words it: octet i is XORed with octet i modulo 4 of the key.
pub fn unmask(payload: &mut [u8], masking_key: [u8; 4]) {
    for (i, byte) in payload.iter_mut().enumerate() {
        *byte ^= masking_key[i % 4];
    }
}

/// The messages and the control frames that a server sent, each after its opcode, with RSV1 (0x40) if it is
/// compressed, and whether the last one is whole. Once, `wrong` may stand between them.
///
/// # Panics
///
/// If RFC 6455 and RFC 7692 let no server send this.
pub fn server_messages(mut bytes: &[u8], mut wrong: Option<&[u8]>) -> (Vec<(u8, Vec<u8>)>, bool) {
    let mut messages: Vec<(u8, Vec<u8>)> = Vec::new();
    let mut unfinished = None;
    while !bytes.is_empty() {
        let closed = messages.last().is_some_and(|&(first, _)| first == 0x8);
        assert!(!closed, "§5.5.1: nothing is sent after a close frame");
        if let Some(rest) = wrong.and_then(|wrong| bytes.strip_prefix(wrong)) {
            assert!(unfinished.is_none(), "it is sent inside a message");
            (wrong, bytes) = (None, rest);
            continue;
        }
        let Some(len) = whole_frame(bytes) else { break };
        let (frame, rest) = bytes.split_at(len);
        bytes = rest;
        let header = Header::read(frame).unwrap();
        let payload = &frame[header.len..];
        assert_eq!(header.masking_key, None, "§5.1: a server must not mask");
        assert!(header.is_minimal(), "§5.2: {header:?}");
        let first = header.rsv << 4 | header.opcode;
        let (first, payload) = match (first, unfinished.take()) {
            (0x8..=0xA, message) => {
                assert!(header.fin && payload.len() <= 125, "§5.5: {header:?}");
                unfinished = message;
                (first, payload.to_vec())
            }
            (0x0, Some((first, start))) => (first, [start, payload.to_vec()].concat()),
            (0x1 | 0x2 | 0x41 | 0x42, None) => (first, payload.to_vec()),
            _ => panic!("§5.2, §5.4: {header:?}"),
        };
        match first {
            _ if !header.fin => {
                unfinished = Some((first, payload));
                continue;
            }
            0x1 => assert!(str::from_utf8(&payload).is_ok(), "§5.6: text is UTF-8"),
            0x8 => check_close(&payload),
            0x9 => assert!(payload.is_empty(), "a ping with a payload"),
            _ => {}
        }
        messages.push((first, payload));
    }
    (messages, bytes.is_empty() && unfinished.is_none())
}

/// §5.5.1 and §7.4, with the codes that were registered since.
fn check_close(payload: &[u8]) {
    if payload.is_empty() {
        return;
    }
    let (code, reason) = payload.split_at(2);
    let code = u16::from(code[0]) << 8 | u16::from(code[1]);
    let is_open = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    assert!(is_open, "§7.4: code {code} may not be sent");
    assert!(str::from_utf8(reason).is_ok(), "§5.5.1: the reason is UTF-8");
}
