//! What goes over the wire: one prepared message, and the reply that must come back for it.

use std::io;

pub const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\
    Host: 127.0.0.1\r\n\
    Upgrade: websocket\r\n\
    Connection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// The accept value that RFC 6455 §1.3 computes for the key above.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A Close frame with code 1000, masked like every client's.
pub const CLOSE: &[u8] = &[0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE8 ^ 2];
/// What answers it.
pub const CLOSED: &[u8] = &[0x88, 0x02, 0x03, 0xE8];

const MASKING_KEY: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
const PREFIX: &[u8] = b"You have entered: ";

/// Whether the server's answer to [`REQUEST`] is whole; an error unless it agrees to the upgrade.
pub fn upgraded(answer: &[u8]) -> io::Result<bool> {
    if !answer.ends_with(b"\r\n\r\n") {
        return Ok(false);
    }
    let agrees = answer.starts_with(b"HTTP/1.1 101 ");
    if agrees && answer.windows(ACCEPT.len()).any(|part| part == ACCEPT) {
        return Ok(true);
    }
    let answer = String::from_utf8_lossy(answer).into_owned();
    Err(io::Error::other(format!("no upgrade: {answer}")))
}

/// The one message that all clients of a measurement send, and its reply.
pub struct Message {
    /// `depth` copies one after the other, so that any number of them goes out in one write.
    copies: Vec<u8>,
    frame: usize,
    pub reply: Vec<u8>,
    /// How many of the reply's first bytes tell its kind and length.
    reply_header: usize,
}

impl Message {
    /// A masked text frame and its echo.
    pub fn websocket(payload: usize, depth: usize) -> Message {
        Message::answered(payload, depth, b"")
    }

    /// A masked text frame, and its echo behind wsecho's default prefix.
    pub fn prefixed(payload: usize, depth: usize) -> Message {
        Message::answered(payload, depth, PREFIX)
    }

    /// Plain bytes: as many there and back together as a WebSocket message and its echo.
    pub fn raw(payload: usize, depth: usize) -> Message {
        let bytes = text(header(payload, 0).len() + 2 + payload);
        Message { copies: bytes.repeat(depth), frame: bytes.len(), reply: bytes, reply_header: 0 }
    }

    fn answered(payload: usize, depth: usize, prefix: &[u8]) -> Message {
        let text = text(payload);
        let mut frame = header(payload, 0x80);
        frame.extend(MASKING_KEY);
        frame.extend(text.iter().zip(MASKING_KEY.iter().cycle()).map(|(b, k)| b ^ k));
        let mut reply = header(prefix.len() + payload, 0);
        let reply_header = reply.len();
        reply.extend(prefix);
        reply.extend(text);
        Message { copies: frame.repeat(depth), frame: frame.len(), reply, reply_header }
    }

    /// The bytes of `count` messages.
    pub fn bytes(&self, count: usize) -> usize {
        count * self.frame
    }

    /// The prepared bytes that go out next for a client that has `unsent` bytes to send, at most what
    /// `depth` messages take: the last of them ends a message, so their number tells how far into one
    /// the first stands.
    pub fn unsent(&self, unsent: usize) -> &[u8] {
        let start = (self.frame - unsent % self.frame) % self.frame;
        &self.copies[start..start + unsent]
    }

    /// All prepared copies, one behind the other.
    pub fn copies(&self) -> &[u8] {
        &self.copies
    }
}

/// Counts the replies in one client's stream, however the network splits them.
///
/// The header of every reply is compared, which checks its length; of a sample, every byte.
#[derive(Default)]
pub struct Replies {
    /// Bytes of the current reply that have come.
    at: usize,
    whole: usize,
    /// A ping has begun in place of the next reply.
    ping: bool,
}

/// The first byte of a ping, which a server sends to clients that wait long for the others.
const PING: u8 = 0x89;

impl Replies {
    /// One reply in so many is compared to its last byte, the first of each client among them.
    const SAMPLE: usize = 64;

    /// Takes what was read; the number of replies it completes.
    pub fn take(&mut self, mut bytes: &[u8], message: &Message) -> io::Result<usize> {
        let before = self.whole;
        while let [first, after @ ..] = bytes {
            if self.at == 0 && (self.ping || *first == PING) {
                if self.ping && *first != 0 {
                    return Err(io::Error::other("a ping that is not empty"));
                }
                self.ping = !self.ping;
                bytes = after;
                continue;
            }
            let rest = &message.reply[self.at..];
            let part = bytes.len().min(rest.len());
            let compared = if self.whole.is_multiple_of(Replies::SAMPLE) {
                part
            } else {
                part.min(message.reply_header.saturating_sub(self.at))
            };
            if bytes[..compared] != rest[..compared] {
                return Err(io::Error::other("a reply is not the echo of its message"));
            }
            self.at += part;
            if self.at == message.reply.len() {
                self.at = 0;
                self.whole += 1;
            }
            bytes = &bytes[part..];
        }
        Ok(self.whole - before)
    }
}

/// The header of a text frame in one piece, RFC 6455 §5.2, without a masking key.
fn header(payload: usize, mask_bit: u8) -> Vec<u8> {
    let mut header = vec![0x81];
    match payload {
        0..126 => header.push(mask_bit | payload as u8),
        126..0x1_0000 => {
            header.push(mask_bit | 126);
            header.extend((payload as u16).to_be_bytes());
        }
        _ => {
            header.push(mask_bit | 127);
            header.extend((payload as u64).to_be_bytes());
        }
    }
    header
}

/// Letters without a short period, so that a reply shifted by a few bytes is not taken for a whole one.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let letter = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (state >> 24) as u8 % 26
    };
    std::iter::repeat_with(letter).take(length).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_however_they_are_cut() {
        for message in
            [Message::websocket(20, 1), Message::prefixed(300, 1), Message::raw(70_000, 1)]
        {
            let mut stream = message.reply.repeat(3);
            if message.reply_header > 0 {
                stream.extend([PING, 0]);
                stream.extend(&message.reply);
            }
            let expected = stream.len() / message.reply.len();
            for cut in [1, 2, 3, 21, 1000, stream.len()] {
                let mut replies = Replies::default();
                let counted: usize =
                    stream.chunks(cut).map(|part| replies.take(part, &message).unwrap()).sum();
                assert_eq!(counted, expected, "cut every {cut} bytes");
            }
        }
    }

    #[test]
    fn a_reply_of_another_length_or_text_is_refused() {
        let message = Message::websocket(20, 1);
        let longer = Message::websocket(21, 1).reply;
        assert!(Replies::default().take(&longer, &message).is_err());
        let mut garbled = message.reply.clone();
        garbled[21] ^= 1;
        assert!(Replies::default().take(&garbled, &message).is_err());
    }

    #[test]
    fn what_is_unsent_ends_with_a_whole_message() {
        let message = Message::websocket(20, 4);
        let all = message.bytes(4);
        for unsent in 0..=all {
            assert!(message.copies()[..all].ends_with(message.unsent(unsent)));
        }
    }
}
