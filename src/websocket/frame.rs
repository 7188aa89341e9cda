//! One frame: its header decoded and encoded, and masking (RFC 6455 §5.2 and §5.3).

use crate::websocket::error::ProtocolError;

/// The interpretation of a payload (§5.2, §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// A later fragment of a message.
    Continuation = 0x0,
    /// The first fragment of a text message.
    Text = 0x1,
    /// The first fragment of a binary message.
    Binary = 0x2,
    /// Begins or answers the closing handshake.
    Close = 0x8,
    /// Asks for a pong.
    Ping = 0x9,
    /// Answers a ping.
    Pong = 0xA,
}

/// The bit of a frame's first byte that marks the last fragment of a message.
pub const FIN: u8 = 0x80;

/// The bit of a frame's second byte that marks a masked payload.
const MASK: u8 = 0x80;

/// The length in bytes of a client's header whose payload has at most 125 bytes.
pub const SHORT_HEADER_LEN: usize = 6;

/// The length in bytes of a client's longest header.
pub const MAX_HEADER_LEN: usize = 14;

/// The bit of a frame's first byte that marks a compressed message (RFC 7692 §6).
pub const RSV1: u8 = 0x40;

/// The header of a client's frame.
///
/// It always has a masking key: a client must mask every frame (§5.1), and a frame without one never
/// becomes a `Header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether this is the last fragment of a message.
    pub fin: bool,
    /// RSV1, RSV2 and RSV3, at their places in the first byte.
    pub rsv: u8,
    pub opcode: Opcode,
    pub masking_key: [u8; 4],
    /// In bytes, below 2^63.
    pub payload_len: u64,
}

/// Decodes the header at the start of `input`. Returns it with its length in bytes (6 to 14).
///
/// `Ok(None)` means that more bytes are needed.
///
/// # Errors
///
/// A reserved opcode, a frame without a mask, and a length that is not in its shortest form or has
/// its top bit set (§5.2), each as soon as its bytes are there.
#[inline]
pub fn decode(input: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
    let &[first, second, ref rest @ ..] = input else {
        return Ok(None);
    };
    let opcode = match first & 0x0F {
        0x0 => Opcode::Continuation,
        0x1 => Opcode::Text,
        0x2 => Opcode::Binary,
        0x8 => Opcode::Close,
        0x9 => Opcode::Ping,
        0xA => Opcode::Pong,
        _ => return Err(ProtocolError::ReservedOpcode),
    };
    if second & MASK == 0 {
        return Err(ProtocolError::NotMasked);
    }
    let (payload_len, rest) = match second & 0x7F {
        126 => {
            let Some((bytes, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            let len @ 126.. = u64::from(u16::from_be_bytes(*bytes)) else {
                return Err(ProtocolError::LengthNotMinimal);
            };
            (len, rest)
        }
        127 => {
            let Some((bytes, rest)) = rest.split_first_chunk() else {
                return Ok(None);
            };
            match u64::from_be_bytes(*bytes) {
                ..=0xFFFF => return Err(ProtocolError::LengthNotMinimal),
                len if len >> 63 == 1 => return Err(ProtocolError::LengthTopBit),
                len => (len, rest),
            }
        }
        len => (u64::from(len), rest),
    };
    let Some((&masking_key, rest)) = rest.split_first_chunk() else {
        return Ok(None);
    };
    let header =
        Header { fin: first & FIN != 0, rsv: first & 0x70, opcode, masking_key, payload_len };
    Ok(Some((header, input.len() - rest.len())))
}

/// Decodes the most common header, of [`SHORT_HEADER_LEN`] bytes: a whole message of at most 125 bytes
/// that is not compressed. `None` means that it is another one, or that more bytes are needed.
#[inline]
pub fn decode_short(input: &[u8]) -> Option<Header> {
    const TEXT: u8 = FIN | Opcode::Text as u8;
    const BINARY: u8 = FIN | Opcode::Binary as u8;
    let (&[first, second, a, b, c, d], _) = input.split_first_chunk::<SHORT_HEADER_LEN>()?;
    let opcode = match first {
        TEXT => Opcode::Text,
        BINARY => Opcode::Binary,
        _ => return None,
    };
    // Without a mask, the result is too large.
    let payload_len = u64::from(second ^ MASK);
    let header = Header { fin: true, rsv: 0, opcode, masking_key: [a, b, c, d], payload_len };
    (payload_len <= 125).then_some(header)
}

/// Appends the header of a server's frame that is a whole message.
#[inline]
pub fn encode_header(opcode: Opcode, payload_len: usize, out: &mut Vec<u8>) {
    encode_raw_header(FIN | opcode as u8, payload_len, out);
}

/// Appends the header of a server's frame whose `first` byte has any FIN, reserved bits and opcode.
/// It has no masking key: "A server MUST NOT mask any frames that it sends to the client" (§5.1).
#[inline]
pub fn encode_raw_header(first: u8, payload_len: usize, out: &mut Vec<u8>) {
    match payload_len {
        0..=125 => out.extend_from_slice(&[first, payload_len as u8]),
        _ => encode_long_header(first, payload_len, out),
    }
}

fn encode_long_header(first: u8, payload_len: usize, out: &mut Vec<u8>) {
    if let Ok(len) = u16::try_from(payload_len) {
        out.extend_from_slice(&[first, 126]);
        out.extend_from_slice(&len.to_be_bytes());
    } else {
        out.extend_from_slice(&[first, 127]);
        out.extend_from_slice(&(payload_len as u64).to_be_bytes());
    }
}

/// Unmasks `payload` in place (§5.3). Returns the key, rotated for the next piece, and whether this
/// piece is ASCII, which saves most texts a second pass.
#[inline]
pub fn unmask(payload: &mut [u8], mut masking_key: [u8; 4]) -> ([u8; 4], bool) {
    let key = u32::from_ne_bytes(masking_key);
    let (words, tail) = payload.as_chunks_mut();
    let mut seen = 0;
    for word in words {
        let unmasked = u32::from_ne_bytes(*word) ^ key;
        *word = unmasked.to_ne_bytes();
        seen |= unmasked;
    }
    let mut ascii = seen & 0x8080_8080 == 0;
    for (byte, key) in tail.iter_mut().zip(masking_key) {
        *byte ^= key;
        ascii &= byte.is_ascii();
    }
    masking_key.rotate_left(tail.len());
    (masking_key, ascii)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(payload_len: u64) -> Header {
        Header { fin: true, rsv: 0, opcode: Opcode::Binary, masking_key: [1, 2, 3, 4], payload_len }
    }

    #[test]
    fn lengths_take_their_shortest_form_in_network_byte_order() {
        let table: [(u64, &[u8]); 7] = [
            (0, &[0x82, 0x80, 1, 2, 3, 4]),
            (1, &[0x82, 0x81, 1, 2, 3, 4]),
            (125, &[0x82, 0xFD, 1, 2, 3, 4]),
            (126, &[0x82, 0xFE, 0, 126, 1, 2, 3, 4]),
            (65_535, &[0x82, 0xFE, 0xFF, 0xFF, 1, 2, 3, 4]),
            (65_536, &[0x82, 0xFF, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4]),
            (
                i64::MAX as u64,
                &[0x82, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 2, 3, 4],
            ),
        ];
        for (len, wire) in table {
            assert_eq!(decode(wire), Ok(Some((header(len), wire.len()))), "{len}");
            for cut in 0..wire.len() {
                assert_eq!(decode(&wire[..cut]), Ok(None), "{len} cut at {cut}");
            }
            let mut encoded = Vec::new();
            encode_header(Opcode::Binary, len as usize, &mut encoded);
            let mut unmasked = wire[..wire.len() - 4].to_vec();
            unmasked[1] &= 0x7F;
            assert_eq!(encoded, unmasked, "{len}");
            for first in 0..=u8::MAX {
                encoded.clear();
                encode_raw_header(first, len as usize, &mut encoded);
                unmasked[0] = first;
                assert_eq!(encoded, unmasked, "{first:02X} {len}");
            }
        }
    }

    #[test]
    fn a_short_header_is_decoded_as_any_other() {
        for (first, second) in
            (0..=u8::MAX).flat_map(|first| (0..=u8::MAX).map(move |b| (first, b)))
        {
            let wire = [first, second, 1, 2, 3, 4];
            let is_short = matches!((first, second), (0x81 | 0x82, 0x80..=0xFD));
            let header = decode_short(&wire);
            assert_eq!(header.is_some(), is_short, "{wire:02X?}");
            if let Some(header) = header {
                assert_eq!(decode(&wire), Ok(Some((header, wire.len()))));
                assert_eq!(decode_short(&wire[..5]), None);
            }
        }
    }

    #[test]
    fn a_header_refuses_what_section_5_2_forbids_as_soon_as_it_shows() {
        let table: [(&[u8], ProtocolError); 8] = [
            (&[0x83, 0x80], ProtocolError::ReservedOpcode),
            (&[0x87, 0x80], ProtocolError::ReservedOpcode),
            (&[0x8B, 0x80], ProtocolError::ReservedOpcode),
            (&[0x8F, 0x80], ProtocolError::ReservedOpcode),
            (&[0x82, 0x00], ProtocolError::NotMasked),
            (&[0x82, 0xFE, 0, 125], ProtocolError::LengthNotMinimal),
            (&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF], ProtocolError::LengthNotMinimal),
            (&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], ProtocolError::LengthTopBit),
        ];
        for (wire, error) in table {
            assert_eq!(decode(wire), Err(error), "{wire:02X?}");
        }
    }

    #[test]
    fn fin_and_each_reserved_bit_are_decoded_apart() {
        for (first, fin, rsv) in [
            (0x01, false, 0),
            (0x81, true, 0),
            (0x41, false, RSV1),
            (0x21, false, 0x20),
            (0x11, false, 0x10),
        ] {
            let (header, _) = decode(&[first, 0x80, 0, 0, 0, 0]).unwrap().unwrap();
            assert_eq!((header.fin, header.rsv), (fin, rsv), "{first:02X}");
        }
    }

    #[test]
    fn unmasking_in_two_pieces_equals_the_naive_loop_at_every_length_and_offset() {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        // One byte that is not ASCII at every place, and at none.
        for (len, odd) in (0..70).flat_map(|len| (0..=len).map(move |odd| (len, odd))) {
            let plain: Vec<u8> = (0..len).map(|i| if i == odd { 0xC3 } else { i as u8 }).collect();
            let masked: Vec<u8> =
                (plain.iter().enumerate()).map(|(i, byte)| byte ^ key[i % 4]).collect();
            for cut in 0..=len {
                let mut pieces = masked.clone();
                let (head, tail) = pieces.split_at_mut(cut);
                let (rotated, head_is_ascii) = unmask(head, key);
                let (_, tail_is_ascii) = unmask(tail, rotated);
                assert_eq!(pieces, plain, "{len} cut at {cut}");
                let ascii = (cut <= odd, odd < cut || odd == len);
                assert_eq!((head_is_ascii, tail_is_ascii), ascii, "{len}, {odd}, {cut}");
            }
        }
    }

    #[test]
    fn the_example_of_section_5_7_unmasks_to_hello() {
        let wire = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let (header, header_len) = decode(&wire).unwrap().unwrap();
        let mut payload = wire[header_len..].to_vec();
        unmask(&mut payload, header.masking_key);
        assert_eq!((header.opcode, payload.as_slice()), (Opcode::Text, &b"Hello"[..]));
    }
}
