//! wsecho is a blocking WebSocket echo server with one thread per client.
//!
//! # Layers
//!
//! Dependencies point down only. The modules below the line take bytes and give bytes, and know no
//! socket, no thread and no clock: time is an input. So every rule of the protocol is tested byte by
//! byte and fuzzed, by the loop that runs in production.
//!
//! ```text
//! main       arguments → run() → exit status
//! server     sockets, threads, clocks
//!   listener    TCP, Unix-domain and inherited listening sockets
//!   registry    who is connected: the limits, the stop
//!   shared      what the threads of all clients share
//!   client      one client's thread: drives a connection over a stream, and logs
//!   stream      a client's stream, plain or TLS, over
//!   tls         certificate, handshake, session, over
//!   socket      one socket with its deadlines
//!   reports     the reports on clients, as files
//!   limits      what the kernel will carry
//!   systemd     readiness
//! logging    where the log goes, and how a line looks
//! cli        the command line and environment; its groups of flags are the settings
//! ───────────────────────────────────────────────────────────────────────────────────
//! app        what this server says
//!   connection    one connection from its first byte to its last, as steps
//!   websocket     an open WebSocket, which is one of these:
//!   conversation    the echo
//!   scripted        a behavior on demand
//!   cases           an Autobahn case, played to the client and judged
//!   incoming      what comes from a client: the input, the session, the deadlines
//!   trace         frames as they pass, for the log and for the client
//!   routes        a request → page, health check, error, WebSocket, behavior, case
//!   behavior      a query → how the server misbehaves on demand
//!   echo  dump  page   what is sent: a reply, a request as JSON, the bundled page
//!   step  end  peer  settings
//! websocket  RFC 6455 and RFC 7692
//!   handshake     a request → what was agreed, or what to fix
//!   negotiation   the offers to compress messages, and what is agreed
//!   session       fragments, control frames, the closing handshake
//!   deflate       messages deflated, and the contexts for it
//!   inflate       messages inflated, within bounds of size and work
//!   message       text or binary, and the check of text
//!   close         close frames, and why the server sends one
//!   frame         one frame's header, decoded and encoded, and masking
//!   error         what a peer may do wrong
//! http       RFC 9112: request, response; RFC 6454: origin
//! proxy_protocol  the header by which a proxy in TCP mode names its client
//! buffer     memory that is charged to one budget as bytes come
//! placement  where in a page it begins, so that the kernel copies at full speed
//! escape     a peer's words, made safe for the log
//! lock       a lock that a panic does not take from the other threads
//! ```
//!
//! # The life of a message
//!
//! 1. [`server`] accepts a connection, [`registry`](server::registry) counts it, and a thread of its
//!    own runs [`client::serve`](server::client::serve).
//! 2. The thread asks the [`Connection`](app::connection::Connection) for each
//!    [`Step`](app::step::Step) and does it: send, receive, wait, log. The connection reads until
//!    [`head_len`](http::request::head_len) finds the end of the request's head, and answers what
//!    [`route`](app::routes::route) decides. Bytes after the head are the first frames.
//! 3. Once the WebSocket is open, [`Incoming`](app::incoming::Incoming) has its input, and its
//!    [`Session`](websocket::session::Session) takes events out: messages, pings, pongs, the close.
//!    A [`Conversation`](app::conversation::Conversation) answers each message by
//!    [`echo::reply`](app::echo::reply); all replies leave in one send. A message that lies whole in
//!    the input is unmasked there and copied once, to its reply. A large payload is received directly
//!    to where it stays, in pieces that are unmasked and checked while they are in the processor's
//!    cache, and sent from there. A compressed message is collected as it comes, inflated in one go,
//!    and its reply compressed in turn, with a context that is held only meanwhile.
//!    On [`/do`](app::behavior) a [`Scripted`](app::scripted::Scripted) takes the same events, and
//!    queues what it sends by the time at which it is due.
//! 4. When both close frames were exchanged the server ends its stream, and reads on for a moment, so
//!    that the close frame is not lost to a reset.
//!
//! # Invariants
//!
//! - However the network splits the bytes, the replies and the end are the same.
//! - Memory grows with bytes that came, never with a length that was declared. What all clients hold
//!   beyond their own 64 KiB, and as much for replies that wait on [`/do`](app::behavior), stays within
//!   one [`Budget`](buffer::Budget).
//! - Every wait has a deadline, and no thread polls before the server stops, but for the end of a
//!   [case](app::cases) that a runner asks for. Only a client that may be silent forever
//!   (`--ping-interval 0`) is waited for without one.
//! - No client waits for another client's work.
//! - A client's own thread is the only one that reads or writes its socket. To stop, the
//!   [`Registry`](server::registry::Registry) interrupts each thread's wait.
//! - Nothing that a client does ends more than its own thread, and its
//!   [`Registration`](server::registry::Registration) is removed on every way out of it.
//! - After a close frame nothing more is sent, and the stream does not end before the peer's close
//!   frame, unless the peer broke the protocol or does not answer in time.
//! - What a peer says is logged only as [`Quoted`](escape::Quoted).

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
pub mod server;
pub mod websocket;

use std::error::Error;

/// Runs the server until a signal stops it.
///
/// # Errors
///
/// The log file can't be written, or an address can't be bound.
pub fn run(config: cli::Config) -> Result<(), Box<dyn Error>> {
    server::limits::tune_allocator();
    let _log = logging::start(&config.logging)?;
    cli::unknown_variables().for_each(|wrong| log::warn!("{wrong}"));
    server::serve(config)
}
