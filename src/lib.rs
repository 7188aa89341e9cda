//! wsecho is a blocking WebSocket echo server with one thread per client.
//!
//! # The map
//!
//! Dependencies point down only. The modules below the line are pure: they take bytes and append
//! bytes, and know neither sockets nor threads nor clocks, so that every rule of the protocol can
//! be tested byte by byte and fuzzed.
//!
//! ```text
//! main        arguments → run() → exit status
//! cli         the command line: flags, defaults, environment
//! logging     where the log goes, and how a line of it looks
//! notify      what a service manager is told
//! server      listeners, accept loops, a thread per client, and the stop
//! connection  one client over its TcpStream: deadlines, reads, writes, the close
//! clients     who is connected: seats under a cap, and the end of all conversations
//! limits      what the kernel will carry: descriptors, memory maps
//! ───────────────────────────────────────────────────────────────────────────────
//! echo        message → reply: the only application code
//! session     RFC 6455 §5.4 to §8.1: fragments, control frames, UTF-8, closing
//! frame       one frame's header, decoded and encoded, and masking
//! handshake   a request's head → an acceptance, a plain answer or a rejection
//! page        the bundled page and its headers
//! request     the head of an HTTP request, found and parsed
//! buffer      room that grows by what really came, within a budget
//! violation   why the server closes, and the close code for each
//! quote       a peer's own words, made safe for a line of log
//! ```
//!
//! # The way of a byte
//!
//! 1. [`server`] accepts a connection, [`clients`] gives it a seat, and a thread of its own runs
//!    [`connection::serve`].
//! 2. The thread reads until [`request::head_len`] finds the end of the request's head, and writes
//!    what [`handshake::answer`] answers. Bytes behind the head are the first frames.
//! 3. From then on: one read, then [`session::Session::next`] for every message in it, each answered
//!    by [`echo::reply`], then one write. A message that lies whole in what was read is unmasked
//!    there and copied once, to its reply; a large payload is read straight to where it stays, in
//!    pieces that are unmasked and checked while they are in the processor's cache, and written
//!    from there.
//! 4. When one side closes, the thread sends what is left, half-closes, and reads on for a bounded
//!    time, so that the last frame is not lost to a reset.
//!
//! # What always holds
//!
//! - One read is never taken for one message: however the network cuts the bytes, the replies and
//!   the end are the same.
//! - Memory grows with bytes that came, never with a length that was declared. What all clients hold
//!   beyond their own 64 KiB stays within one [`buffer::Budget`].
//! - Every wait has a deadline, and no thread polls. Only a client that may be silent for ever
//!   (`--ping-interval 0`) is waited for without one.
//! - Nothing that a client does ends more than its own thread, and a [`clients::Seat`] gives its
//!   place back on every way out of it.
//! - After a close frame nothing more is written, whichever thread wrote it.
//! - What a peer says stands in the log only as [`quote::Quoted`].

#![forbid(unsafe_code)]

pub mod buffer;
pub mod cli;
pub mod clients;
pub mod connection;
pub mod echo;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod logging;
pub mod notify;
pub mod page;
pub mod quote;
pub mod request;
pub mod server;
pub mod session;
pub mod violation;

use std::error::Error;

/// Runs the server until a signal stops it.
///
/// # Errors
///
/// What keeps it from starting: a log file that can't be written, an address that can't be bound.
pub fn run(config: cli::Config) -> Result<(), Box<dyn Error>> {
    logging::start(&config)?;
    server::serve(config)
}
