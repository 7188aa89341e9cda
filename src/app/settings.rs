//! What the operator sets.

use std::time::Duration;

/// What the operator sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The text put before each text that is sent back.
    pub prefix: String,
    /// In bytes.
    pub max_message_size: usize,
    pub timeouts: Timeouts,
}

/// How long a client is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the head of its request.
    pub handshake: Duration,
    /// For any byte, before it is pinged. `None` for ever.
    pub ping_interval: Option<Duration>,
    /// For any byte, once it was pinged.
    pub ping: Duration,
    /// For 64 KiB of a message, in either direction.
    pub write: Duration,
    /// For its answer to a close frame.
    pub close: Duration,
}

/// What a peer has to read, or to send of a message that has begun, within the write timeout, in bytes.
pub const MIN_PROGRESS: usize = 64 * 1024;

/// The write timeout is waited out in this many parts. Time in which this process was suspended counts for
/// one part at most.
pub const WRITE_TIMEOUT_PARTS: u32 = 8;
