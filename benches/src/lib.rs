//! What the benchmark of whole servers and the benchmarks of modules share.

use std::sync::Arc;
use std::time::Duration;

use wsecho::app::conversation::{Conversation, SMALL_INPUT, Settings};
use wsecho::buffer::{Budget, Buffer};

pub mod kernel_copy;
pub mod messages;
pub mod program;
pub mod stats;

/// The settings of a verbatim echo.
pub fn settings() -> Settings {
    Settings {
        prefix: String::new(),
        max_message_size: 1 << 24,
        ping_interval: None,
        ping_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        close_timeout: Duration::from_secs(60),
    }
}

/// A conversation that begins as in the server, with a small input.
pub fn conversation(settings: &Settings) -> Conversation<'_> {
    let budget = Arc::new(Budget::new(1 << 30));
    let mut input = Buffer::new(Arc::clone(&budget));
    // So small a buffer is always granted.
    let _ = input.reserve(SMALL_INPUT);
    Conversation::new(1, settings, input, &budget, None)
}

/// Drives `conversation` with `received`, of which one read brings at most `read` bytes. Returns how
/// many bytes it sends.
// Not inlined, so that callgrind finds it by its name.
#[inline(never)]
pub fn converse(conversation: &mut Conversation, mut received: &[u8], read: usize) -> usize {
    let mut sent = 0;
    while !received.is_empty() {
        let input = conversation.input();
        let bytes = input.len().min(received.len()).min(read);
        let (part, rest) = received.split_at(bytes);
        input[..bytes].copy_from_slice(part);
        received = rest;
        conversation.received(bytes, Duration::ZERO);
        while let Some(output) = conversation.next_output() {
            sent += output.head.len() + output.payload.len();
        }
    }
    sent
}
