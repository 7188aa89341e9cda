//! One client over its `TcpStream`: deadlines, reads, writes and the close.

use std::convert::Infallible;
use std::fmt;
use std::io::IoSlice;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, send, sendmsg};

use crate::buffer::{Budget, Buffer};
use crate::cli::Config;
use crate::clients::{self, Client, Place, Stopped};
use crate::echo;
use crate::frame::{self, Opcode};
use crate::handshake::{self, Answer, Rejection, Rules};
use crate::quote::Quoted;
use crate::request::{self, Request};
use crate::session::{self, Close, Session};
use crate::violation::Cause;

/// The input of a client that sends little at a time, in bytes.
const SMALL_INPUT: usize = 1536;

/// The input of a client that has filled the small one, in bytes; the longest head fits in it. With
/// its pongs, its own part of a message and its stack a client stays below 128 KiB.
const LARGE_INPUT: usize = 17 * 1024;

/// Replies of this size are written before more input is looked at, in bytes.
const FLUSH: usize = 16 * 1024;

/// A write that moves less within the write timeout has stalled, in bytes.
const STALL: usize = 64 * 1024;

/// Lets the last bytes go out in one packet with the end of the stream; Linux alone has the flag.
#[cfg(target_os = "linux")]
const WITH_THE_END: SendFlags = SendFlags::MORE;
#[cfg(not(target_os = "linux"))]
const WITH_THE_END: SendFlags = SendFlags::empty();

/// How long the memory of a large message waits for another one.
const HOARD: Duration = Duration::from_millis(100);

/// Serves `client` from its request to the end of its connection.
pub fn serve(client: &Client, config: &Config, budget: &Arc<Budget>) {
    let mut wire = Wire {
        client,
        config,
        read_timeout: None,
        received: 0,
        sent: 0,
    };
    let mut input = Buffer::new(SMALL_INPUT, Arc::clone(budget));
    let deadline = Instant::now() + config.handshake_timeout;
    let acceptance = match answer_request(&mut wire, &mut input, deadline) {
        Ok(Answered::Accepted(acceptance)) => acceptance,
        // It has its seat until then and no longer.
        Ok(Answered::Plainly) => return wire.linger(&mut input, deadline),
        // A probe, or a browser that has connected ahead of time.
        Err(End::Left) => return debug!("client {}, {}, asked nothing", client.id, client.peer),
        Err(end) => return debug!("client {}, {}: {end}", client.id, client.peer),
    };
    let opened = Instant::now();
    wire.received = input.filled().len() as u64;
    let mut session = Session::new(config.max_message_size, Arc::clone(budget));
    let mut messages = 0;
    // Its end is a part of its story from here on, even if it ends before its first message.
    let Err(end) = wire
        .open(&acceptance)
        .and_then(|()| converse(&mut wire, &mut input, &mut session, &mut messages));
    info!(
        "client {} ended: {end}; {messages} messages, {} bytes in, {} bytes out, {:.3} s",
        client.id,
        wire.received,
        wire.sent,
        opened.elapsed().as_secs_f64(),
    );
    match end {
        End::Closed(_) => {
            session.release();
            wire.linger(&mut input, Instant::now() + config.close_timeout);
        }
        End::Stalled => {
            // Or the kernel would keep for minutes what the peer does not read.
            let _ = sockopt::set_socket_linger(&client.stream, Some(Duration::ZERO));
        }
        End::Left | End::Lost(_) => {}
    }
}

enum Answered {
    /// The WebSocket is open as soon as this is written.
    Accepted(Vec<u8>),
    /// Nothing more is to be said.
    Plainly,
}

/// How a connection ended.
enum End {
    /// One side has sent its close frame; the other one's may be still to come.
    Closed(Close),
    /// The peer's bytes ended without a close frame.
    Left,
    /// The peer did not read.
    Stalled,
    Lost(Errno),
}

/// What a client is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// More, for the moment in which a large message's memory is kept.
    Hoarding,
    /// More.
    Quiet,
    /// A sign of life after a ping.
    Pinged,
}

fn answer_request(wire: &mut Wire, input: &mut Buffer, deadline: Instant) -> Result<Answered, End> {
    let Wire { client, config, .. } = *wire;
    // Replies are written whole: holding one back for more would only delay it.
    sockopt::set_tcp_nodelay(&client.stream, true)?;
    sockopt::set_socket_timeout(&client.stream, Timeout::Send, Some(config.write_timeout))?;

    let head_len = read_head(wire, input, deadline)?;
    let (mut answer, request) = match &head_len {
        Ok(head_len) => {
            let rules = Rules {
                origins: &config.origin,
                subprotocols: &config.subprotocol,
            };
            handshake::answer(&input.filled()[..*head_len], rules)
        }
        Err(rejection) => (Answer::Reject(rejection.clone()), None),
    };
    if matches!(answer, Answer::Accept { .. }) && client.place == Place::Standing {
        answer = Answer::Reject(Rejection::Unavailable(clients::FULL));
    }
    if let Err(Stopped) = client.start_writing() {
        answer = Answer::Reject(Rejection::Unavailable(clients::STOPPING));
    }
    log_answer(client, request.as_ref(), &answer);
    let answered = answer.encode(request.map_or("GET", |request| request.method));
    if !matches!(answer, Answer::Accept { .. }) {
        wire.write_last(&answered)?;
        return Ok(Answered::Plainly);
    }
    // The first frames may have come right behind the head.
    let filled = input.filled().len();
    input.keep(head_len.unwrap_or(filled)..filled);
    Ok(Answered::Accepted(answered))
}

/// Reads until the request's head is there, and tells its length.
fn read_head(
    wire: &mut Wire,
    input: &mut Buffer,
    deadline: Instant,
) -> Result<Result<usize, Rejection<'static>>, End> {
    let mut searched = 0;
    loop {
        let read = wire.read_until(input.room(), deadline);
        input.fill(read.unwrap_or(0));
        match read {
            Ok(1..) => {}
            _ if input.filled().is_empty() => return Err(End::Left),
            Ok(0) => return Ok(Err(Rejection::BadRequest("the head breaks off"))),
            Err(Errno::AGAIN) => return Ok(Err(Rejection::HeadTimeout)),
            Err(error) => return Err(End::Lost(error)),
        }
        match request::head_len(input.filled(), searched) {
            Ok(Some(head_len)) => return Ok(Ok(head_len)),
            Ok(None) => searched = input.filled().len(),
            Err(error) => return Ok(Err(error.into())),
        }
        if input.room().is_empty() && input.resize(LARGE_INPUT).is_err() {
            return Ok(Err(Rejection::Unavailable("the server's memory is short")));
        }
    }
}

fn log_answer(client: &Client, request: Option<&Request>, answer: &Answer) {
    let Client { id, peer, .. } = client;
    let path = request.and_then(Request::path).unwrap_or_default();
    let path = Quoted(path.as_bytes());
    // Behind a proxy the peer is the proxy, which adds the client to what it was told itself.
    let chain: Vec<_> = request
        .into_iter()
        .flat_map(|request| request.values("X-Forwarded-For"))
        .collect();
    let forwarded = match &chain[..] {
        [] => String::new(),
        chain => format!(" forwarded for {}", Quoted(&chain.join(&b", "[..]))),
    };
    match answer {
        Answer::Accept { subprotocol, .. } => {
            let subprotocol = subprotocol.map_or(String::new(), |name| {
                format!(", subprotocol {}", Quoted(name.as_bytes()))
            });
            info!("client {id} connected: {peer}{forwarded}, path {path}{subprotocol}");
        }
        Answer::Page => info!("client {id}, {peer}{forwarded}, got the page at {path}"),
        Answer::Health => debug!("client {id}, {peer}{forwarded}, checked health"),
        Answer::Reject(rejection) => {
            let status = rejection.status();
            info!("client {id}, {peer}{forwarded}, path {path}, got {status}: {rejection}");
        }
    }
}

/// The conversation, until one side ends it.
fn converse(
    wire: &mut Wire,
    input: &mut Buffer,
    session: &mut Session,
    messages: &mut u64,
) -> Result<Infallible, End> {
    let Wire { client, config, .. } = *wire;
    let mut replies = Vec::new();
    let mut waiting = Waiting::Quiet;
    loop {
        let filled = input.filled().len();
        let mut unread = input.filled_mut();
        while let Some(message) = session.next(&mut unread, &mut replies) {
            *messages += 1;
            debug!(
                "client {}: {:?} of {} bytes, {}",
                client.id,
                message.kind,
                message.payload.len(),
                Quoted(message.payload),
            );
            let rest = echo::reply(&message, &config.prefix, &mut replies);
            if !rest.is_empty() || replies.len() >= FLUSH {
                wire.send(&mut replies, rest)?;
            }
        }
        let left = unread.len();
        input.keep(filled - left..filled);
        if let Some(close) = session.closed() {
            if let Close::ByPeer { reason, .. } = close {
                let reason = Quoted(reason.as_bytes());
                debug!("client {}: close reason {reason}", client.id);
            }
            client.start_writing()?;
            wire.write_last(&replies)?;
            return Err(End::Closed(close.clone()));
        }
        wire.send(&mut replies, b"")?;

        if waiting == Waiting::Quiet && session.hoards() {
            waiting = Waiting::Hoarding;
        }
        match (read_more(wire, input, session, waiting), waiting) {
            (Ok(0), _) => return Err(End::Left),
            (Ok(_), Waiting::Pinged) => waiting = Waiting::Quiet,
            (Ok(_), _) => {}
            (Err(Errno::AGAIN), Waiting::Hoarding) => {
                session.release();
                waiting = Waiting::Quiet;
            }
            (Err(Errno::AGAIN), Waiting::Quiet) => {
                session.release();
                // It gets smaller, so no memory can be short.
                let _ = input.resize(SMALL_INPUT);
                replies = Vec::new();
                frame::encode_header(Opcode::Ping, 0, &mut replies);
                waiting = Waiting::Pinged;
            }
            (Err(Errno::AGAIN), Waiting::Pinged) => session.close(Cause::Silent, &mut replies),
            (Err(error), _) => return Err(End::Lost(error)),
        }
    }
}

/// Reads what comes next to where it belongs: behind the input, or a large payload straight to its
/// message.
fn read_more(
    wire: &mut Wire,
    input: &mut Buffer,
    session: &mut Session,
    waiting: Waiting,
) -> Result<usize, Errno> {
    let timeout = match waiting {
        Waiting::Hoarding => Some(HOARD),
        Waiting::Quiet => Some(wire.config.ping_interval).filter(|interval| !interval.is_zero()),
        Waiting::Pinged => Some(wire.config.ping_timeout),
    };
    if let Some(room) = session.room(input.capacity()) {
        let read = wire.read(room, timeout)?;
        session.filled(read);
        return Ok(read);
    }
    let read = wire.read(input.room(), timeout)?;
    input.fill(read);
    if input.room().is_empty() && input.capacity() < LARGE_INPUT {
        // Without it, the small input serves as well.
        let _ = input.resize(LARGE_INPUT);
    }
    Ok(read)
}

/// A client's stream, read and written within its deadlines: by rustix, whose calls on Linux go past
/// the C library and its cancellation points, which cost 2 % of a small message.
struct Wire<'a> {
    client: &'a Client,
    config: &'a Config,
    /// What the socket is set to.
    read_timeout: Option<Duration>,
    /// In bytes.
    received: u64,
    sent: u64,
}

impl Wire<'_> {
    /// Reads once. When nothing has come for `timeout`, it is [`Errno::AGAIN`].
    fn read(&mut self, into: &mut [u8], timeout: Option<Duration>) -> Result<usize, Errno> {
        let stream = &self.client.stream;
        if self.read_timeout != timeout {
            sockopt::set_socket_timeout(stream, Timeout::Recv, timeout)?;
            self.read_timeout = timeout;
        }
        let (read, _) = retry_on_intr(|| recv(stream, &mut *into, RecvFlags::empty()))?;
        self.received += read as u64;
        Ok(read)
    }

    fn read_until(&mut self, into: &mut [u8], deadline: Instant) -> Result<usize, Errno> {
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Errno::AGAIN),
            left => self.read(into, Some(left)),
        }
    }

    /// Opens the WebSocket. Only what is sent after that counts.
    fn open(&mut self, acceptance: &[u8]) -> Result<(), End> {
        self.write(acceptance, b"", SendFlags::empty())?;
        self.sent = 0;
        self.finish_writing()
    }

    /// Sends the replies and the `rest` of the last one, in the client's turn.
    fn send(&mut self, replies: &mut Vec<u8>, rest: &[u8]) -> Result<(), End> {
        if replies.is_empty() {
            return Ok(());
        }
        self.client.start_writing()?;
        self.write(replies, rest, SendFlags::empty())?;
        replies.clear();
        self.finish_writing()
    }

    /// Ends the client's turn, and says that the server stops if that was found out meanwhile.
    fn finish_writing(&mut self) -> Result<(), End> {
        self.client.finish_writing().or_else(|stopped| {
            let mut close = Vec::new();
            session::encode_close(Cause::Stopping, &mut close);
            self.write_last(&close)?;
            Err(stopped.into())
        })
    }

    /// Writes what nothing may follow, whoever else has something to say, and half-closes.
    fn write_last(&mut self, bytes: &[u8]) -> Result<(), End> {
        self.write(bytes, b"", WITH_THE_END)?;
        self.client.end_writing();
        Ok(())
    }

    fn write(&mut self, first: &[u8], second: &[u8], flags: SendFlags) -> Result<(), End> {
        let count = if second.is_empty() { 1 } else { 2 };
        let mut slices = &mut [IoSlice::new(first), IoSlice::new(second)][..count];
        let mut left = first.len() + second.len();
        while left > 0 {
            let started = Instant::now();
            let stream = &self.client.stream;
            let written = match &*slices {
                [one] => send(stream, one, flags),
                // Not writev, whose way through the file layer costs another 0.3 µs.
                both => sendmsg(stream, both, &mut SendAncillaryBuffer::default(), flags),
            };
            match written {
                // The write timeout ends this one write, so it may have moved a part.
                Ok(written)
                    if written < left.min(STALL)
                        && started.elapsed() >= self.config.write_timeout =>
                {
                    return Err(End::Stalled);
                }
                Ok(written) => {
                    IoSlice::advance_slices(&mut slices, written);
                    left -= written;
                    self.sent += written as u64;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Err(End::Stalled),
                Err(error) => return Err(End::Lost(error)),
            }
        }
        Ok(())
    }

    /// Gives the peer the close time to read what was written last and to close its side: a socket
    /// that is dropped with unread input resets the connection, and what was written is lost.
    fn linger(&mut self, scratch: &mut Buffer, deadline: Instant) {
        let deadline = deadline.min(Instant::now() + self.config.close_timeout);
        scratch.clear();
        while let Ok(1..) = self.read_until(scratch.room(), deadline) {}
    }
}

impl From<Errno> for End {
    fn from(error: Errno) -> Self {
        End::Lost(error)
    }
}

impl From<Stopped> for End {
    fn from(_: Stopped) -> Self {
        End::Closed(Close::ByServer(Cause::Stopping))
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Closed(Close::ByPeer { code: None, .. }) => write!(f, "closed by peer, no code"),
            End::Closed(Close::ByPeer {
                code: Some(code), ..
            }) => write!(f, "closed by peer, {code}"),
            End::Closed(Close::ByServer(cause)) => {
                write!(f, "closed by server, {} {cause}", cause.code())
            }
            End::Left => write!(f, "peer left without a close frame"),
            End::Stalled => write!(f, "peer did not read what it was sent"),
            End::Lost(error) => write!(f, "connection lost, {error}"),
        }
    }
}
