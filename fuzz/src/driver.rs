//! A conversation, driven as a client's thread drives it, but without a socket or a clock.

use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use wsecho::app::conversation::{Conversation, LARGE_INPUT, Settings};
use wsecho::app::echo::ZERO_COPY_MIN;
use wsecho::buffer::{Budget, Buffer};
use wsecho::websocket::deflate::PerMessageDeflate;

/// How the network splits what a client sends, and what else may happen between two receives.
#[derive(Arbitrary, Debug)]
pub struct Splits {
    /// The lengths of the pieces in bytes, over and over. None means all in one.
    pieces: Vec<u16>,
    /// The capacity of the input, above which a payload is received straight to its message.
    input: u16,
    /// Whether the client pauses after each piece for so long that spare memory is released.
    pauses: bool,
}

impl Splits {
    /// The bytes in pieces: larger ones after the first thousand, so that a round stays short.
    pub fn split<'b>(&self, mut bytes: &'b [u8]) -> impl Iterator<Item = &'b [u8]> {
        let mut pieces = self.pieces.iter().cycle().enumerate();
        std::iter::from_fn(move || {
            let len = pieces.next().map_or(bytes.len(), |(number, &len)| {
                usize::from(len).max(if number < 1000 { 1 } else { 1000 })
            });
            let (piece, rest) = bytes.split_at(len.min(bytes.len()));
            bytes = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// Messages of up to `max_message_size` bytes, and no pings.
pub fn settings(max_message_size: usize, prefix: &str) -> Settings {
    Settings {
        prefix: prefix.into(),
        max_message_size,
        ping_interval: None,
        ping_timeout: Duration::MAX,
        write_timeout: Duration::from_secs(365 * 24 * 3600),
        close_timeout: Duration::from_secs(5),
    }
}

pub struct Driver<'s> {
    pub conversation: Conversation<'s>,
    /// All that was sent.
    pub output: Vec<u8>,
    /// What the server may hold to be sent, in bytes.
    max_held: usize,
    pauses: bool,
    now: Duration,
    is_ended: bool,
}

impl<'s> Driver<'s> {
    pub fn new(
        settings: &'s Settings,
        budget: &Arc<Budget>,
        splits: &Splits,
        deflate: Option<PerMessageDeflate>,
    ) -> Self {
        /// The longest header fits in it.
        const MIN_INPUT: usize = 14;
        /// Replies of this size are sent before more input is processed.
        const FLUSH: usize = 16 * 1024;

        let mut input = Buffer::new(Arc::clone(budget));
        let capacity = MIN_INPUT + usize::from(splits.input) % (LARGE_INPUT - MIN_INPUT + 1);
        input.reserve(capacity).expect("the allocator has memory");
        Driver {
            conversation: Conversation::new(1, settings, input, budget, deflate),
            output: Vec::new(),
            // Pongs are not longer than the pings that they answer.
            max_held: FLUSH + LARGE_INPUT + settings.prefix.len() + ZERO_COPY_MIN,
            pauses: splits.pauses,
            now: Duration::ZERO,
            is_ended: false,
        }
    }

    /// Receives `bytes`, at once as far as they fit in the input, and sends what follows.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let input = self.conversation.input();
            let (piece, rest) = bytes.split_at(input.len().min(bytes.len()));
            assert!(!piece.is_empty(), "to receive no bytes would look like the end of the stream");
            input[..piece.len()].copy_from_slice(piece);
            self.conversation.received(piece.len(), self.now);
            bytes = rest;
            self.send();
        }
        if self.pauses {
            self.now += Duration::from_millis(100);
            self.conversation.waited(self.now);
            self.send();
        }
    }

    fn send(&mut self) {
        while let Some(output) = self.conversation.next_output() {
            assert!(!self.is_ended, "§5.5.1: nothing is sent after a close frame");
            assert!(output.head.len() <= self.max_held, "{} bytes to be sent", output.head.len());
            self.is_ended = output.is_last;
            self.output.extend_from_slice(output.head);
            self.output.extend_from_slice(output.payload);
        }
        assert_eq!(self.is_ended, self.conversation.closed().is_some());
    }
}
