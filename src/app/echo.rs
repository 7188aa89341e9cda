//! The application: what the server replies to a message.

use crate::websocket::frame::{self, Opcode};
use crate::websocket::message::Kind;

/// A payload of at least this size is not copied: sending it in place is cheaper.
pub const ZERO_COPY_MIN: usize = 4 * 1024;

/// Appends the reply to `output`: to a text message `prefix` and its text, to a binary message the
/// same bytes.
///
/// Returns whether the payload was copied. If not, because it is large, send it after `output`.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the call costs a third of a small reply")]
pub fn reply(kind: Kind, payload: &[u8], prefix: &str, output: &mut Vec<u8>) -> bool {
    let (opcode, prefix) = parts(kind, prefix);
    frame::encode_header(opcode, prefix.len() + payload.len(), output);
    // A copy of nothing costs a tenth of a small reply.
    if !prefix.is_empty() {
        output.extend_from_slice(prefix);
    }
    let is_copied = payload.len() < ZERO_COPY_MIN;
    if is_copied {
        output.extend_from_slice(payload);
    }
    is_copied
}

/// Appends the answer to a ping. §5.5.3: a pong has "identical" data.
#[inline]
pub fn pong(payload: &[u8], output: &mut Vec<u8>) {
    frame::encode_header(Opcode::Pong, payload.len(), output);
    output.extend_from_slice(payload);
}

/// Appends the reply to a compressed message to `output`. `deflated` is the reply's payload, as
/// [`parts`] has it, compressed. Returns whether the payload was copied, as [`reply`] does.
pub fn reply_deflated(kind: Kind, deflated: &[u8], output: &mut Vec<u8>) -> bool {
    let first = output.len();
    let is_copied = reply(kind, deflated, "", output);
    output[first] |= frame::RSV1;
    is_copied
}

/// The opcode of the reply, and the prefix of its payload.
#[inline]
pub fn parts(kind: Kind, prefix: &str) -> (Opcode, &[u8]) {
    match kind {
        Kind::Text => (Opcode::Text, prefix.as_bytes()),
        Kind::Binary => (Opcode::Binary, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replied(kind: Kind, payload: &[u8], prefix: &str) -> Vec<u8> {
        let mut output = Vec::new();
        if !reply(kind, payload, prefix, &mut output) {
            output.extend_from_slice(payload);
        }
        output
    }

    #[test]
    fn text_is_replied_after_the_prefix() {
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
        for len in [ZERO_COPY_MIN - 1, ZERO_COPY_MIN, 70_000] {
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
