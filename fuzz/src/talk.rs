//! A conversation with a session as a connection holds it, but without a socket.

use std::sync::Arc;

use arbitrary::Arbitrary;
use wsecho::buffer::Budget;
use wsecho::echo;
use wsecho::session::Session;

/// How the network cuts what a client sends, and what else may happen between two reads.
#[derive(Arbitrary, Debug)]
pub struct Cuts {
    /// The lengths of the reads in bytes, over and over; none means all in one.
    reads: Vec<u16>,
    /// From how many missing bytes on a payload is read straight into the session.
    at_least: u16,
    /// Whether the client pauses so long after each read that the session is told to release.
    pauses: bool,
}

impl Cuts {
    /// The bytes in pieces: larger ones after the first thousand, so that a round stays short.
    pub fn cut<'w>(&self, mut wire: &'w [u8]) -> impl Iterator<Item = &'w [u8]> {
        let mut reads = self.reads.iter().cycle().enumerate();
        std::iter::from_fn(move || {
            let read = reads.next().map_or(wire.len(), |(at, &read)| {
                usize::from(read).max(if at < 1000 { 1 } else { 1000 })
            });
            let (piece, rest) = wire.split_at(read.min(wire.len()));
            wire = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// One side of it, the server's.
pub struct Talk<'p> {
    pub session: Session,
    /// All that was answered.
    pub replies: Vec<u8>,
    /// The longest message that did not lie whole in one read, in bytes.
    pub put_together: usize,
    unread: Vec<u8>,
    prefix: &'p str,
}

impl<'p> Talk<'p> {
    pub fn new(max_message_size: usize, budget: Arc<Budget>, prefix: &'p str) -> Self {
        Talk {
            session: Session::new(max_message_size, budget),
            replies: Vec::new(),
            put_together: 0,
            unread: Vec::new(),
            prefix,
        }
    }

    /// Takes what one read brought. After the end of the conversation nothing is read.
    pub fn hear(&mut self, mut read: &[u8], cuts: &Cuts) {
        while !read.is_empty() && self.session.closed().is_none() {
            if let Some(room) = self.session.room(cuts.at_least.into()) {
                assert!(self.unread.is_empty(), "what is unread would be overtaken");
                assert!(
                    !room.is_empty(),
                    "a read of no bytes would look like the end"
                );
                let bytes = room.len().min(read.len());
                room[..bytes].copy_from_slice(&read[..bytes]);
                self.session.filled(bytes);
                read = &read[bytes..];
            } else {
                self.unread.extend_from_slice(read);
                read = &[];
            }
            self.answer();
        }
        if cuts.pauses {
            self.session.release();
        }
    }

    fn answer(&mut self) {
        /// A control frame that is whole but for its last byte.
        const MOST_LEFT: usize = 2 + 4 + 125 - 1;
        /// What a close frame has beside the payload of a close frame of the client's.
        const CLOSE: usize = 2 + 125;

        let mut input = std::mem::take(&mut self.unread);
        let lies = input.as_ptr_range();
        let len = input.len();
        let mut unread = &mut input[..];
        loop {
            let (asked, replied) = (unread.len(), self.replies.len());
            let message = self.session.next(&mut unread, &mut self.replies);
            let answered = self.replies.len() - replied;
            assert!(answered <= asked + CLOSE, "{answered} bytes answer {asked}");
            let Some(message) = message else { break };
            if !lies.contains(&message.payload.as_ptr()) {
                self.put_together = self.put_together.max(message.payload.len());
            }
            let rest = echo::reply(&message, self.prefix, &mut self.replies);
            self.replies.extend_from_slice(rest);
        }
        let left = unread.len();
        assert!(left <= MOST_LEFT, "{left} bytes wait for more");
        input.drain(..len - left);
        self.unread = input;
    }
}
