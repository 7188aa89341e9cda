//! Frames as clients and servers send them, and random payloads.

/// A client's frame with any first byte and any payload.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, payload, [0x37, 0xFA, 0x21, 0x3D])
}

/// A client's close frame.
pub fn close(code: u16) -> Vec<u8> {
    frame(0x88, &code.to_be_bytes())
}

/// A client's frame with this masking key.
pub fn masked_frame(first: u8, payload: &[u8], masking_key: [u8; 4]) -> Vec<u8> {
    let mut frame = header(first, payload.len());
    frame[1] |= 0x80;
    frame.extend(masking_key);
    frame.extend(payload.iter().zip(masking_key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// A server's frame with any first byte and any payload.
pub fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [header(first, payload.len()).as_slice(), payload].concat()
}

fn header(first: u8, len: usize) -> Vec<u8> {
    match len {
        0..=125 => vec![first, len as u8],
        126..=0xFFFF => [&[first, 126], &(len as u16).to_be_bytes()[..]].concat(),
        _ => [&[first, 127], &(len as u64).to_be_bytes()[..]].concat(),
    }
}

/// Splits off the frame of a server that `bytes` begin with, if all of it is there: its first byte, its
/// payload, and what follows it.
pub fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[first, short_len], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match short_len {
        126 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u16::from_be_bytes(*len).into(), rest)
        }
        127 => {
            let (len, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*len), rest)
        }
        len => (len.into(), rest),
    };
    let (payload, rest) = rest.split_at_checked(len as usize)?;
    Some((first, payload, rest))
}

/// SplitMix64: the same numbers for the same seed.
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.number() as u8).collect()
    }

    /// Text of `len` bytes, with as many characters of one byte as of two, of three and of each plane
    /// of Unicode above.
    pub fn text(&mut self, len: usize) -> String {
        let mut text = String::with_capacity(len);
        while text.len() < len {
            let code = match self.below(19) {
                0 => self.below(0x80),
                1 => self.below(0x800),
                plane => ((plane - 2) << 16) | self.below(0x1_0000),
            };
            let fits = |c: &char| text.len() + c.len_utf8() <= len;
            text.push(char::from_u32(code as u32).filter(fits).unwrap_or('x'));
        }
        text
    }
}
