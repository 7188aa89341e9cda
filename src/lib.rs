//! wsecho is a blocking WebSocket echo server with one thread per client.
//!
//! # Layers
//!
//! Dependencies point down only. The modules below the line take bytes and give bytes, and know no
//! socket, no thread and no clock. So every rule of the protocol is tested byte by byte and fuzzed.
//!
//! ```text
//! main       arguments → run() → exit status
//! cli        the command line and environment; its groups of flags are the settings
//! logging    where the log goes, and how a line looks
//! server     sockets, threads, clocks
//!   listener    TCP, Unix-domain and inherited listening sockets
//!   registry    who is connected: the limits, the stop
//!   shared      what the threads of all clients share
//!   client      one client's thread: drives a conversation over a stream
//!   stream      a client's stream, plain or TLS, over
//!   tls         certificate, handshake, session, over
//!   socket      one socket with its deadlines
//!   limits      what the kernel will carry
//!   systemd     readiness for systemd
//! ───────────────────────────────────────────────────────────────────────────────────
//! app        what this server says
//!   routes        a request → page, health check, error, WebSocket, behaviour
//!   conversation  after the handshake: bytes in, bytes out, waits
//!   echo          message → reply
//!   behavior      a query → how the server misbehaves on demand
//!   scripted      a conversation that does so
//!   cases         the Autobahn cases, played to a client and judged
//!   dump          a request → JSON for its client
//!   page          the bundled page and its headers
//! websocket  RFC 6455 and RFC 7692
//!   handshake     a request → what was agreed, or what to fix
//!   negotiation   the offers to compress messages, and what is agreed
//!   session       fragments, control frames, the closing handshake
//!   deflate       compressed messages: contexts, inflating, deflating
//!   message       text or binary, and the check of text
//!   close         close frames, and why the server sends one
//!   frame         one frame's header, decoded and encoded, and masking
//!   error         what a peer may do wrong
//! http       RFC 9112: request, response; RFC 6454: origin
//! proxy_protocol   the header by which a proxy in TCP mode names the client
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
//! 2. The thread reads until [`head_len`](http::request::head_len) finds the end of the request's
//!    head, and sends what [`route`](app::routes::route) decides. Bytes after the head are the first
//!    frames.
//! 3. From then on a [`Conversation`](app::conversation::Conversation) says where the next bytes go
//!    and how long to wait for them. After each receive its [`Session`](websocket::session::Session)
//!    takes the messages out, and [`echo::reply`](app::echo::reply) answers each; all replies leave in
//!    one send. A message that lies whole in what was received is unmasked there and copied once, to
//!    its reply. A large payload is received directly to its final place, in pieces that are unmasked
//!    and checked while they are in the processor's cache, and sent from there.
//!    A compressed message is collected as it comes, inflated in one go, and its reply compressed in
//!    turn, with a context that is held only meanwhile.
//!    On [`/do`](app::behavior) a [`Scripted`](app::scripted::Scripted) stands between the conversation
//!    and the thread, and holds replies back, cuts them, or ends the connection as the query says.
//! 4. When one side closes, the thread sends what is left, ends its stream, and reads on for a bounded
//!    time, so that the close frame is not lost to a reset.
//!
//! # Invariants
//!
//! - However the network splits the bytes, the replies and the end are the same.
//! - Memory grows with bytes that came, never with a length that was declared. What all clients hold
//!   beyond their own 64 KiB, and as much for replies held on [`/do`](app::behavior), stays within one
//!   [`Budget`](buffer::Budget).
//! - Every wait has a deadline, and no thread polls before the server stops, but for
//!   the end of a [case](app::cases) that a runner asks for. Only a client that may be
//!   silent for ever (`--ping-interval 0`) is waited for without one.
//! - A client's own thread is the only one that reads or writes its socket. To stop, the
//!   [`Registry`](server::registry::Registry) interrupts each thread's wait.
//! - Nothing that a client does ends more than its own thread, and its
//!   [`Registration`](server::registry::Registration) is removed on every way out of it.
//! - After a close frame nothing more is sent.
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
/// What keeps it from starting: a log file that can't be written, an address that can't be bound.
pub fn run(config: cli::Config) -> Result<(), Box<dyn Error>> {
    server::limits::tune_allocator();
    let _log = logging::start(&config.logging)?;
    cli::unknown_variables().for_each(|wrong| log::warn!("{wrong}"));
    server::serve(config)
}
