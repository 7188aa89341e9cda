//! The application: what the server answers to a message.

use crate::frame::{self, Opcode};
use crate::session::{Kind, Message};

/// A payload from this size on is not copied: writing it from where it lies is cheaper.
const WORTH_NO_COPY: usize = 4 * 1024;

/// Appends the reply to `message`: a text message is answered by `prefix` and its text, a binary
/// message by the same bytes.
///
/// Returns what is still to be written behind `replies`: the payload when it is large, or nothing.
#[inline]
pub fn reply<'m>(message: &Message<'m>, prefix: &str, replies: &mut Vec<u8>) -> &'m [u8] {
    let (opcode, prefix) = match message.kind {
        Kind::Text => (Opcode::Text, prefix.as_bytes()),
        Kind::Binary => (Opcode::Binary, &b""[..]),
    };
    frame::encode_header(opcode, prefix.len() + message.payload.len(), replies);
    replies.extend_from_slice(prefix);
    if message.payload.len() < WORTH_NO_COPY {
        replies.extend_from_slice(message.payload);
        b""
    } else {
        message.payload
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replied(kind: Kind, payload: &[u8], prefix: &str) -> Vec<u8> {
        let mut replies = Vec::new();
        let rest = reply(&Message { kind, payload }, prefix, &mut replies);
        replies.extend_from_slice(rest);
        replies
    }

    #[test]
    fn text_is_answered_behind_the_prefix() {
        let reply = replied(Kind::Text, "hé".as_bytes(), "You have entered: ");
        let expected = [b"\x81\x15", "You have entered: hé".as_bytes()].concat();
        assert_eq!(reply, expected);
    }

    #[test]
    fn binary_comes_back_unchanged_whatever_the_prefix() {
        assert_eq!(replied(Kind::Binary, b"\0\xff", "> "), b"\x82\x02\0\xff");
    }

    #[test]
    fn an_empty_prefix_makes_a_verbatim_echo() {
        assert_eq!(replied(Kind::Text, b"", ""), b"\x81\0");
    }

    #[test]
    fn the_length_counts_the_prefix_whether_the_payload_is_copied_or_not() {
        for len in [WORTH_NO_COPY - 1, WORTH_NO_COPY, 70_000] {
            let reply = replied(Kind::Text, &vec![b'x'; len], "> ");
            let (header, payload) = reply.split_at(if len > 65_533 { 10 } else { 4 });
            assert_eq!(payload.len(), len + 2);
            assert!(payload.starts_with(b"> xx"));
            let declared = match header {
                [0x81, 126, len @ ..] => u64::from(u16::from_be_bytes(len.try_into().unwrap())),
                [0x81, 127, len @ ..] => u64::from_be_bytes(len.try_into().unwrap()),
                _ => panic!("{header:02X?}"),
            };
            assert_eq!(declared, len as u64 + 2);
        }
    }
}
