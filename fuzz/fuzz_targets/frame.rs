//! Headers and masking: the server's codec agrees with the reference on any bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsecho::websocket::error::ProtocolError;
use wsecho::websocket::frame::{self, Opcode, SHORT_HEADER_LEN};
use wsecho_fuzz::reference;

fuzz_target!(|input: (&[u8], u64, u16)| {
    let (bytes, len, split) = input;
    check_decode(bytes);
    check_encode(len);
    check_unmask(bytes, usize::from(split));
});

fn check_decode(bytes: &[u8]) {
    let decoded = frame::decode(bytes);
    if let Some(short) = frame::decode_short(bytes) {
        assert_eq!(decoded, Ok(Some((short, SHORT_HEADER_LEN))));
    }
    if let Err(error) = decoded {
        assert!(is_there(error, bytes), "{error:?} in {bytes:02X?}");
        return;
    }
    let header = reference::Header::read(bytes);
    let Some((ours, len)) = decoded.unwrap() else {
        // A header without a mask is refused before it is whole.
        assert!(header.is_none(), "{header:?} is whole");
        return;
    };
    let header = header.expect("a whole header");
    assert_eq!(
        (
            ours.fin,
            ours.rsv >> 4,
            opcode(ours.opcode),
            ours.payload_len,
            Some(ours.masking_key),
            len
        ),
        (header.fin, header.rsv, header.opcode, header.payload_len, header.masking_key, header.len),
    );
    assert!(header.is_minimal() && header.payload_len < 1 << 63, "{header:?}");
}

/// Whether `bytes` have the error.
fn is_there(error: ProtocolError, bytes: &[u8]) -> bool {
    // The error may show before the masking key came.
    let header = reference::Header::read(&[bytes, &[0; 4]].concat());
    match error {
        ProtocolError::ReservedOpcode => matches!(bytes[0] & 0xF, 0x3..=0x7 | 0xB..=0xF),
        ProtocolError::NotMasked => bytes[1] < 0x80,
        ProtocolError::LengthNotMinimal => header.is_some_and(|header| !header.is_minimal()),
        ProtocolError::LengthTopBit => header.is_some_and(|header| header.payload_len >> 63 == 1),
        _ => false,
    }
}

fn check_encode(len: u64) {
    let Ok(len) = usize::try_from(len) else {
        return;
    };
    for (opcode, byte) in [
        (Opcode::Text, 0x81),
        (Opcode::Binary, 0x82),
        (Opcode::Close, 0x88),
        (Opcode::Ping, 0x89),
        (Opcode::Pong, 0x8A),
    ] {
        let mut encoded = Vec::new();
        frame::encode_header(opcode, len, &mut encoded);
        assert_eq!(encoded[0], byte);
        let header = reference::Header::read(&encoded).expect("a whole header");
        assert!(header.is_minimal() && header.masking_key.is_none(), "{header:?}");
        assert_eq!((header.payload_len, header.len), (len as u64, encoded.len()));
    }
}

fn check_unmask(bytes: &[u8], split: usize) {
    let Some((&key, masked)) = bytes.split_first_chunk() else {
        return;
    };
    let mut expected = masked.to_vec();
    reference::unmask(&mut expected, key);
    let mut ours = masked.to_vec();
    let (one, two) = ours.split_at_mut(split.min(masked.len()));
    let (rotated, one_is_ascii) = frame::unmask(one, key);
    let (_, two_is_ascii) = frame::unmask(two, rotated);
    assert_eq!(one_is_ascii && two_is_ascii, expected.is_ascii());
    assert_eq!(ours, expected);
}

fn opcode(opcode: Opcode) -> u8 {
    match opcode {
        Opcode::Continuation => 0x0,
        Opcode::Text => 0x1,
        Opcode::Binary => 0x2,
        Opcode::Close => 0x8,
        Opcode::Ping => 0x9,
        Opcode::Pong => 0xA,
    }
}
