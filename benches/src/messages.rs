//! The messages that the clients of a row send, and the replies that have to come for them.

use std::io;

use crate::compressed::{COMPRESSED_TEXT, compress, inflates_to, json};
use crate::frames::{Random, frame, server_frame, split_frame};
use crate::kernel_copy::MidPage;

/// A request for a WebSocket, with header fields of its own.
pub fn request(more: &str) -> Vec<u8> {
    format!(
        "GET / HTTP/1.1\r\n\
         Host: 127.0.0.1\r\n\
         Upgrade: websocket\r\n\
         Connection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n{more}\r\n"
    )
    .into_bytes()
}

/// The accept value that RFC 6455 §1.3 computes for the key above.
const ACCEPT: &[u8] = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The header field that offers compression.
pub const COMPRESSION: &str = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
/// The same without context takeover.
pub const COMPRESSION_OF_EACH: &str = "Sec-WebSocket-Extensions: permessage-deflate; \
    server_no_context_takeover; client_no_context_takeover\r\n";

/// A client's close frame with code 1000.
pub const CLOSE: &[u8] = &[0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE8 ^ 2];
/// The server's close frame that answers it.
pub const CLOSE_REPLY: &[u8] = &[0x88, 0x02, 0x03, 0xE8];

/// A client's answer to the close frame with code 1001 of a server that stops.
pub const GOING_AWAY_REPLY: &[u8] = &[0x88, 0x82, 1, 2, 3, 4, 0x03 ^ 1, 0xE9 ^ 2];

/// The first byte of an unfragmented text message.
const TEXT: u8 = 0x81;
const PREFIX: &[u8] = b"You have entered: ";

/// Whether a server's close frame has code 1001, with any reason.
pub fn is_going_away(close: &[u8]) -> bool {
    matches!(close, [0x88, _, 0x03, 0xE9, ..])
}

/// Whether the response to `request` is complete. An error unless it is an upgrade, with the compression
/// that the request offers.
pub fn is_upgraded(response: &[u8], request: &[u8]) -> io::Result<bool> {
    if !response.ends_with(b"\r\n\r\n") {
        return Ok(false);
    }
    let has = |text: &[u8], part: &[u8]| text.windows(part.len()).any(|found| found == part);
    let agreed = [&b"permessage-deflate"[..], b"server_no_context_takeover"];
    if response.starts_with(b"HTTP/1.1 101 ")
        && has(response, ACCEPT)
        && agreed.iter().all(|part| has(response, part) == has(request, part))
    {
        return Ok(true);
    }
    let response = String::from_utf8_lossy(response);
    Err(io::Error::other(format!("no upgrade: {response}")))
}

pub struct Message {
    /// `depth` copies one after another, so that up to so many are sent by one write.
    copies: MidPage,
    frame_len: usize,
    /// What is echoed: a whole frame, or the text that a compressed one is inflated to.
    pub reply: Vec<u8>,
    encoding: Encoding,
}

#[derive(Clone, Copy)]
enum Encoding {
    Plain {
        reply_header_len: usize,
    },
    Compressed,
    /// Only the first reply can be inflated by itself: a later one may refer to those before it.
    CompressedInContext,
}

impl Message {
    /// A masked text frame and its echo.
    pub fn websocket(payload: usize, depth: usize) -> Message {
        Message::with_prefix(payload, depth, b"")
    }

    /// A masked text frame, and its echo after wsecho's default prefix.
    pub fn prefixed(payload: usize, depth: usize) -> Message {
        Message::with_prefix(payload, depth, PREFIX)
    }

    /// Plain bytes, in both directions together as many as a WebSocket message and its echo.
    pub fn raw(payload: usize, depth: usize) -> Message {
        let bytes = text(server_frame(TEXT, &text(payload)).len() + 2);
        Message::new(&bytes, depth, bytes.clone(), Encoding::Plain { reply_header_len: 0 })
    }

    /// JSON, compressed on its own. Every reply may be compressed so, too.
    pub fn compressed(seed: u64, payload: usize) -> Message {
        Message::json(seed, payload, Encoding::Compressed)
    }

    /// The same, for a server that keeps its context.
    pub fn compressed_in_context(seed: u64, payload: usize) -> Message {
        Message::json(seed, payload, Encoding::CompressedInContext)
    }

    fn json(seed: u64, payload: usize, encoding: Encoding) -> Message {
        let text = json(seed, payload);
        Message::new(&frame(COMPRESSED_TEXT, &compress(&text, 6)), 1, text, encoding)
    }

    fn with_prefix(payload: usize, depth: usize, prefix: &[u8]) -> Message {
        let text = text(payload);
        let reply = server_frame(TEXT, &[prefix, &text].concat());
        let reply_header_len = reply.len() - prefix.len() - payload;
        Message::new(&frame(TEXT, &text), depth, reply, Encoding::Plain { reply_header_len })
    }

    fn new(frame: &[u8], depth: usize, reply: Vec<u8>, encoding: Encoding) -> Message {
        let mut copies = MidPage::new(frame.len() * depth);
        copies.chunks_exact_mut(frame.len()).for_each(|copy| copy.copy_from_slice(frame));
        Message { copies, frame_len: frame.len(), reply, encoding }
    }

    /// How many bytes `count` messages have.
    pub fn bytes(&self, count: usize) -> usize {
        count * self.frame_len
    }

    /// The bytes to send next for a client that has `unsent` bytes left to send, which end with a
    /// whole message and are at most `depth` messages.
    pub fn unsent(&self, unsent: usize) -> &[u8] {
        let start = (self.frame_len - unsent % self.frame_len) % self.frame_len;
        &self.copies[start..start + unsent]
    }

    /// All `depth` copies.
    pub fn copies(&self) -> &[u8] {
        &self.copies
    }
}

/// Counts the replies that one client receives, however the network splits them.
///
/// The header of every reply is compared, which checks its length, and every byte of some.
#[derive(Default)]
pub struct Replies {
    /// How many bytes of the current reply have come.
    at: usize,
    complete: usize,
    /// The first byte of a ping has come before the current reply.
    ping: bool,
    /// What has come of a compressed reply.
    compressed: Vec<u8>,
}

/// The first byte of a ping, which a server sends to a client that is silent for long.
const PING: u8 = 0x89;

impl Replies {
    /// One reply in so many is compared whole, the first of each client among them.
    const SAMPLE: usize = 64;

    /// Takes what was received, and returns how many replies it completes.
    pub fn receive(&mut self, bytes: &[u8], message: &Message) -> io::Result<usize> {
        let is_sample = self.complete.is_multiple_of(Replies::SAMPLE);
        match message.encoding {
            Encoding::Plain { reply_header_len } => {
                self.receive_plain(bytes, &message.reply, reply_header_len)
            }
            Encoding::Compressed => self.receive_compressed(bytes, is_sample.then_some(message)),
            Encoding::CompressedInContext => {
                self.receive_compressed(bytes, (self.complete == 0).then_some(message))
            }
        }
    }

    fn receive_plain(
        &mut self,
        mut bytes: &[u8],
        reply: &[u8],
        header_len: usize,
    ) -> io::Result<usize> {
        let before = self.complete;
        while let [first, after @ ..] = bytes {
            if self.at == 0 && (self.ping || *first == PING) {
                if self.ping && *first != 0 {
                    return Err(io::Error::other("the server sent a ping that is not empty"));
                }
                self.ping = !self.ping;
                bytes = after;
                continue;
            }
            let rest = &reply[self.at..];
            let part = bytes.len().min(rest.len());
            let compared = if self.complete.is_multiple_of(Replies::SAMPLE) {
                part
            } else {
                part.min(header_len.saturating_sub(self.at))
            };
            if bytes[..compared] != rest[..compared] {
                return Err(wrong_reply());
            }
            self.at += part;
            if self.at == reply.len() {
                self.at = 0;
                self.complete += 1;
            }
            bytes = &bytes[part..];
        }
        Ok(self.complete - before)
    }

    /// Inflates the reply if it is a `sample`. A client has one message under way, so nothing may follow
    /// its reply.
    fn receive_compressed(&mut self, bytes: &[u8], sample: Option<&Message>) -> io::Result<usize> {
        self.compressed.extend(bytes);
        let Some((first, payload, rest)) = split_frame(&self.compressed) else { return Ok(0) };
        let is_wrong = |message: &Message| !inflates_to(payload, &message.reply);
        if first != COMPRESSED_TEXT || !rest.is_empty() || sample.is_some_and(is_wrong) {
            return Err(wrong_reply());
        }
        self.compressed.clear();
        self.complete += 1;
        Ok(1)
    }
}

fn wrong_reply() -> io::Error {
    io::Error::other("a reply is not the echo of its message")
}

/// Letters without a period, so that a reply that is shifted by some bytes does not compare equal.
fn text(len: usize) -> Vec<u8> {
    let mut random = Random(1);
    (0..len).map(|_| b'a' + random.below(26) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_counted_however_they_are_split() {
        for message in
            [Message::websocket(20, 1), Message::prefixed(300, 1), Message::raw(70_000, 1)]
        {
            let mut stream = message.reply.repeat(3);
            if message.reply[0] == TEXT {
                stream.extend([PING, 0]);
                stream.extend(&message.reply);
            }
            let expected = stream.len() / message.reply.len();
            for len in [1, 2, 3, 21, 1000, stream.len()] {
                let mut replies = Replies::default();
                let counted: usize =
                    stream.chunks(len).map(|part| replies.receive(part, &message).unwrap()).sum();
                assert_eq!(counted, expected, "parts of {len} bytes");
            }
        }
    }

    #[test]
    fn a_reply_of_another_length_or_text_is_refused() {
        let message = Message::websocket(20, 1);
        let longer = Message::websocket(21, 1).reply;
        assert!(Replies::default().receive(&longer, &message).is_err());
        let mut garbled = message.reply.clone();
        garbled[21] ^= 1;
        assert!(Replies::default().receive(&garbled, &message).is_err());
    }

    #[test]
    fn a_compressed_reply_is_inflated() {
        let message = Message::compressed(1, 1000);
        let reply = server_frame(COMPRESSED_TEXT, &compress(&message.reply, 1));
        for len in [1, 2, 3, 21, reply.len()] {
            let mut replies = Replies::default();
            let counted: usize =
                reply.chunks(len).map(|part| replies.receive(part, &message).unwrap()).sum();
            assert_eq!(counted, 1, "parts of {len} bytes");
        }
        for other in [Message::compressed(2, 1000), Message::compressed(1, 999)] {
            assert!(Replies::default().receive(&reply, &other).is_err());
        }
        let twice = reply.repeat(2);
        assert!(Replies::default().receive(&twice, &message).is_err());
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
