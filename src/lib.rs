//! wsecho is a blocking WebSocket echo server with one thread per client.
//!
//! # Layers
//!
//! Dependencies point down only. The modules below the line turn bytes into bytes. They use no sockets,
//! threads or clocks: time is an input. So the tests and the fuzz targets exercise every rule of the
//! protocol byte by byte, with the loop that runs in production.
//!
//! ```text
//! main       arguments → run() → exit status
//! server     sockets, threads, clocks
//!   listener    TCP, Unix-domain and inherited listening sockets
//!   registry    the open connections: their limits, the stop
//!   shared      the state that all clients' threads share
//!   client      one client's thread: drives a connection over a stream, and logs
//!   stream      a client's stream, plain or TLS, over
//!   tls         certificate, handshake, session, over
//!   socket      one socket with its deadlines
//!   rate_limit  the limit for log lines that anyone can cause
//!   reports     the reports on clients, as files
//!   allocator   the tuning of glibc's allocator
//!   limits      the limits of the kernel and the control group
//!   systemd     readiness
//! logging    the destination of the log, and the format of a line
//! cli        the command line and environment; its groups of flags are the settings
//! ───────────────────────────────────────────────────────────────────────────────────
//! app        the application: the answers to requests and messages
//!   connection    one connection from its first byte to its last, as steps
//!   accepted      an accepted handshake: its answer, and the WebSocket that it opens
//!   websocket     an open WebSocket, which is one of these:
//!   conversation    the echo
//!   scripted        a behavior on demand
//!   cases           an Autobahn case, run with the client and judged
//!   incoming      the receiving side of a WebSocket: the input, the session, the deadlines
//!   trace         frames as they pass, for the log and for the client
//!   routes        a request → page, health check, error, WebSocket, behavior, case
//!   behavior      a query → how the server misbehaves on demand
//!   echo  dump  page   contents: a reply, a request as JSON, the bundled page
//!   step  opened  end  peer  settings  service
//! websocket  RFC 6455 and RFC 7692
//!   handshake     a request → an agreement, or a response that names the mistake
//!   negotiation   permessage-deflate: offers and terms → an agreement
//!   session       fragments, control frames, the closing handshake
//!   deflate       messages deflated, and the pool of contexts
//!   inflate       messages inflated, within bounds of size and work
//!   message       text or binary, and the check of text
//!   close         close frames, and the server's reasons for one
//!   frame         one frame's header, decoded and encoded, and masking
//!   error         violations of the protocol or the limits
//! http       RFC 9112: request, response; RFC 6454: origin
//! proxy_protocol  the header by which a proxy in TCP mode names its client
//! buffer     memory that is charged to one budget as bytes arrive
//! placement  the offset of a payload in its page at which the kernel copies at full speed
//! escape     a peer's bytes, made safe for the log
//! quantity   counts and times in text
//! lock       locking a mutex even after a panic under it
//! ```
//!
//! # The life of a message
//!
//! 1. [`server`] accepts a connection, [`registry`](server::registry) counts it, and its own thread runs
//!    [`client::serve`](server::client::serve).
//! 2. The thread asks the [`Connection`](app::connection::Connection) for each [`Step`](app::step::Step)
//!    and performs it: send, receive, wait, log. The connection reads until
//!    [`head_len`](http::request::head_len) finds the end of the request's head, and answers as
//!    [`route`](app::routes::route) decides. Bytes after the head are the first frames.
//! 3. Once the WebSocket is open, [`Incoming`](app::incoming::Incoming) has its input, and its
//!    [`Session`](websocket::session::Session) decodes events: messages, pings, pongs, the close. A
//!    [`Conversation`](app::conversation::Conversation) answers each message with
//!    [`echo::reply`](app::echo::reply); all replies are sent in one write. A message that is whole in
//!    the input is unmasked there and copied once, to its reply. A large payload is received directly to
//!    its final buffer, in pieces that are unmasked and checked while they are in the CPU cache, and is
//!    sent from that buffer. A compressed message is inflated once it is whole, and its reply is
//!    compressed, with a context that is held only for that time. On [`/do`](app::behavior) a
//!    [`Scripted`](app::scripted::Scripted) processes the same events, and queues its output by the time
//!    at which it is due.
//! 4. After both close frames were exchanged, the server ends its stream and continues to read for a
//!    moment, so that a reset does not discard the close frame.
//!
//! # Invariants
//!
//! - The replies and the end do not depend on how the network splits the bytes.
//! - Memory grows with received bytes, never with a declared length. One [`Budget`](buffer::Budget)
//!   limits the memory of all clients, except the first 64 KiB of each client, and of its queued replies
//!   on [`/do`](app::behavior).
//! - Every wait has a deadline, except the wait for a client that may be silent forever
//!   (`--ping-interval 0`). No thread polls before the server stops.
//! - No client waits for another client's work.
//! - A client's own thread is the only one that reads or writes its socket. To stop, the
//!   [`Registry`](server::registry::Registry) interrupts each thread's wait.
//! - A client can end only its own thread, and every exit of the thread removes the client's
//!   [`Registration`](server::registry::Registration).
//! - After a close frame nothing more is sent, and the stream does not end before the peer's close
//!   frame, unless the peer broke the protocol or does not answer in time.
//! - A peer's bytes are logged only as [`Quoted`](escape::Quoted).

#![forbid(unsafe_code)]

pub mod app;
pub mod buffer;
pub mod cli;
pub mod escape;
pub mod http;
pub mod lock;
pub mod logging;
pub mod placement;
pub mod proxy_protocol;
pub mod quantity;
pub mod server;
pub mod websocket;

use std::error::Error;

/// Runs the server until a signal stops it.
///
/// # Errors
///
/// The log file can't be written, or an address can't be bound.
pub fn run(config: cli::Config) -> Result<(), Box<dyn Error>> {
    let tuned = server::allocator::tune();
    let _log = logging::start(&config.logging)?;
    if let Err(why) = tuned {
        log::debug!("the allocator is not tuned: {why}");
    }
    cli::unknown_variables().for_each(|wrong| log::warn!("{wrong}"));
    server::serve(config)
}
