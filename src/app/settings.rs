//! The operator's settings.

use std::time::Duration;

/// The operator's settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The prefix of each text reply.
    pub prefix: String,
    /// In bytes.
    pub max_message_size: usize,
    pub timeouts: Timeouts,
}

/// How long the server waits for a client.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For the head of its request.
    pub handshake: Duration,
    /// For any byte, before a ping is sent. `None` means no pings.
    pub ping_interval: Option<Duration>,
    /// For any byte, after a ping was sent.
    pub ping: Duration,
    /// For 64 KiB of a message, in either direction.
    pub write: Duration,
    /// For its answer to a close frame.
    pub close: Duration,
}

/// The bytes that a peer has to read, or to send of an unfinished message, within the write timeout.
pub const MIN_PROGRESS: usize = 64 * 1024;

/// A wait that ends later than this after its deadline was not spent waiting for the peer: the process was
/// suspended.
pub const MAX_LATENESS: Duration = Duration::from_secs(1);

/// The write timeout is divided into this many waits. If the process was suspended, at most one of them
/// counts as elapsed.
pub const WRITE_TIMEOUT_PARTS: u32 = 8;
