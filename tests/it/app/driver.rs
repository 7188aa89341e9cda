//! A conversation, driven as a client's thread drives it, but without a socket and with a clock that
//! the test sets.

use std::sync::Arc;
use std::time::Duration;

use wsecho::app::conversation::{Conversation, Settings};
use wsecho::buffer::{Budget, Buffer};
use wsecho::websocket::deflate::PerMessageDeflate;

/// The longest header fits in this input, so that all but the shortest payloads that come in pieces
/// are received straight to their message.
pub const TINY_INPUT: usize = 14;

pub const PING_INTERVAL: Duration = Duration::from_secs(20);
pub const PING_TIMEOUT: Duration = Duration::from_secs(10);
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(3600);
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A verbatim echo of messages of up to `max_message_size` bytes.
pub fn settings(max_message_size: usize) -> Settings {
    Settings {
        prefix: String::new(),
        max_message_size,
        ping_interval: Some(PING_INTERVAL),
        ping_timeout: PING_TIMEOUT,
        write_timeout: WRITE_TIMEOUT,
        close_timeout: CLOSE_TIMEOUT,
    }
}

pub struct Driver<'s> {
    pub conversation: Conversation<'s>,
    /// All that was sent.
    pub output: Vec<u8>,
    /// The length of each output, in bytes.
    pub output_lens: Vec<usize>,
    /// Since the WebSocket opened.
    pub now: Duration,
    is_ended: bool,
}

impl<'s> Driver<'s> {
    /// A conversation whose input begins with a capacity of `input` bytes.
    pub fn new(settings: &'s Settings, budget: &Arc<Budget>, input: usize) -> Self {
        Driver::compressing(settings, budget, input, None)
    }

    /// The same, with what was agreed on compression.
    pub fn compressing(
        settings: &'s Settings,
        budget: &Arc<Budget>,
        input: usize,
        deflate: Option<PerMessageDeflate>,
    ) -> Self {
        let mut buffer = Buffer::new(Arc::clone(budget));
        buffer.reserve(input).unwrap();
        Driver {
            conversation: Conversation::new(1, settings, buffer, budget, deflate),
            output: Vec::new(),
            output_lens: Vec::new(),
            now: Duration::ZERO,
            is_ended: false,
        }
    }

    /// Receives `bytes`, at once as far as they fit in the input.
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
    }

    /// Receives `bytes` in pieces of these lengths, which are begun with again as long as there are more.
    pub fn receive_in_pieces(&mut self, mut bytes: &[u8], pieces: &[usize]) {
        for len in pieces.iter().cycle() {
            let (piece, rest) = bytes.split_at(bytes.len().min(*len));
            self.receive(piece);
            bytes = rest;
            if bytes.is_empty() {
                break;
            }
        }
    }

    /// Nothing comes until `now`, each wait as long as it may be.
    pub fn wait_until(&mut self, now: Duration) {
        while let Some(wait) = self.wait()
            && !wait.is_zero()
            && self.now + wait < now
        {
            self.suspend_until(self.now + wait);
        }
        self.suspend_until(now);
    }

    /// Nothing comes until `now`, in one wait however long it is.
    pub fn suspend_until(&mut self, now: Duration) {
        self.now = now;
        self.conversation.waited(now);
        self.send();
    }

    pub fn stop(&mut self) {
        self.conversation.stop();
        self.send();
    }

    pub fn wait(&self) -> Option<Duration> {
        self.conversation.wait()
    }

    fn send(&mut self) {
        while let Some(output) = self.conversation.next_output() {
            assert!(!self.is_ended, "nothing is sent after the close frame");
            self.is_ended = output.is_last;
            self.output.extend([output.head, output.payload].concat());
            self.output_lens.push(output.head.len() + output.payload.len());
        }
        assert_eq!(self.is_ended, self.conversation.closed().is_some());
    }
}
