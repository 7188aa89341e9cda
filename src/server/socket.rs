//! One client's socket, read and written within deadlines.
//!
//! All calls are rustix's, which on Linux bypass the C library: its cancellation points cost 2 % of a
//! small message.

use std::fmt;
use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown,
};

use crate::app::conversation::{MIN_PROGRESS, WRITE_TIMEOUT_PARTS};

/// Lets the last bytes leave in one packet with the end of the stream. Linux alone has the flag.
#[cfg(target_os = "linux")]
pub const MORE: SendFlags = SendFlags::MORE;
#[cfg(not(target_os = "linux"))]
pub const MORE: SendFlags = SendFlags::empty();

/// Tells that the peer has ended its stream, behind whatever was not received. Elsewhere only a connection
/// that is gone is noticed.
#[cfg(target_os = "linux")]
const PEER_END: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const PEER_END: PollFlags = PollFlags::empty();

/// A connected socket. Only the client's own thread reads and writes it.
pub struct Socket {
    fd: OwnedFd,
    pub peer: Peer,
}

/// The other end of a connection, which may be a proxy.
#[derive(Clone, Copy, Debug)]
pub enum Peer {
    Tcp(SocketAddr),
    /// A process of this machine. Its socket rarely has a name.
    Unix,
}

impl Peer {
    /// Its address, with IPv4 in IPv6 as IPv4.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Peer::Tcp(addr) => Some(addr.ip().to_canonical()),
            Peer::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(addr) => SocketAddr::new(addr.ip().to_canonical(), addr.port()).fmt(f),
            Peer::Unix => f.write_str("unix"),
        }
    }
}

impl Socket {
    /// The socket of an accepted connection.
    pub fn new(stream: impl Into<OwnedFd>, peer: Peer) -> Self {
        Socket { fd: stream.into(), peer }
    }

    /// Ends the peer's stream as if the peer had ended it.
    pub fn shut_read(&self) {
        // A connection that is gone has ended anyway.
        let _ = shutdown(&self.fd, Shutdown::Read);
    }

    /// Ends the connection at once, whatever its thread is doing.
    pub fn abort(&self) {
        let _ = shutdown(&self.fd, Shutdown::Both);
    }

    /// Sends what fits in the socket's buffer, ends the stream and reads what has come, without ever
    /// waiting. What is not read would reset the connection, and the peer would lose the bytes.
    pub fn send_last_now(&self, bytes: &[u8], scratch: &mut [u8]) {
        let sent = send(&self.fd, bytes, SendFlags::DONTWAIT | MORE);
        if sent.is_ok() && shutdown(&self.fd, Shutdown::Write).is_ok() {
            let _ = recv(&self.fd, scratch, RecvFlags::DONTWAIT);
        }
    }
}

/// The result of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes, which are none while a TLS record is not whole.
    Bytes(usize),
    /// The time passed, or the wait was interrupted.
    Nothing,
    /// The peer ended its stream.
    End,
}

/// How far the TLS handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    Complete,
    /// More has to come. The time may have passed.
    Unfinished,
    /// The peer does not speak TLS but HTTP, which can be answered.
    Http,
    /// The peer ended its stream.
    End,
}

/// Why nothing can be sent or received any more.
#[derive(Clone, Debug)]
pub enum Error {
    Io(Errno),
    Tls(String),
}

impl Error {
    /// An error of TLS, as `error` says it.
    pub fn tls(error: impl fmt::Display) -> Self {
        Error::Tls(error.to_string())
    }
}

impl From<Errno> for Error {
    fn from(error: Errno) -> Self {
        Error::Io(error)
    }
}

/// A socket with its deadlines.
pub struct TimedSocket<'s> {
    socket: &'s Socket,
    write_timeout: Duration,
    /// What the socket is set to.
    read_timeout: Duration,
    now: Instant,
}

impl<'s> TimedSocket<'s> {
    /// `socket`, which is set to the write timeout.
    pub fn new(socket: &'s Socket, write_timeout: Duration) -> Self {
        TimedSocket { socket, write_timeout, read_timeout: Duration::ZERO, now: Instant::now() }
    }

    /// When the last [`receive`](Self::receive) or [`pause`](Self::pause) returned.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Waits for bytes for as long as `wait`, or for ever. A signal ends the wait early, as the stop
    /// and SIGCONT after SIGSTOP do.
    pub fn receive(&mut self, into: &mut [u8], wait: Option<Duration>) -> Result<Received, Errno> {
        self.receive_with(RecvFlags::empty(), into, wait)
    }

    /// As [`receive`](Self::receive), but what comes stays there for the next one.
    pub fn peek(&mut self, into: &mut [u8], wait: Option<Duration>) -> Result<Received, Errno> {
        self.receive_with(RecvFlags::PEEK, into, wait)
    }

    fn receive_with(
        &mut self,
        flags: RecvFlags,
        into: &mut [u8],
        wait: Option<Duration>,
    ) -> Result<Received, Errno> {
        self.set_read_timeout(wait.unwrap_or(FOREVER))?;
        let mut received = recv(&self.socket.fd, &mut *into, flags);
        if let Err(Errno::AGAIN | Errno::INTR) = received {
            // Bytes may have come while the process was suspended.
            received = recv(&self.socket.fd, into, flags | RecvFlags::DONTWAIT);
        }
        self.set_now();
        match received {
            Ok((0, _)) => Ok(Received::End),
            Ok((bytes, _)) => Ok(Received::Bytes(bytes)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Says that a receive returns now.
    pub fn set_now(&mut self) {
        self.now = Instant::now();
    }

    /// Waits for as long as `wait` without receiving anything, or until the peer has ended its stream. A
    /// signal ends the wait early.
    pub fn pause(&mut self, wait: Duration) -> Result<Received, Errno> {
        // Rounded up, since what is waited for would not be due yet.
        let wait = Timespec::try_from(wait + Duration::from_micros(1)).ok();
        let mut peer = [PollFd::new(&self.socket.fd, PEER_END)];
        let woken = poll(&mut peer, wait.as_ref());
        self.set_now();
        match woken {
            Ok(0) | Err(Errno::INTR) => Ok(Received::Nothing),
            Ok(_) => Ok(Received::End),
            Err(error) => Err(error),
        }
    }

    fn set_read_timeout(&mut self, timeout: Duration) -> Result<(), Errno> {
        let timeout = timeout.max(SHORTEST);
        if self.read_timeout != timeout {
            sockopt::set_socket_timeout(&self.socket.fd, Timeout::Recv, Some(timeout))?;
            self.read_timeout = timeout;
        }
        Ok(())
    }

    /// Sends `head` and then `payload`, all of both. `progress` is of the send that they are a part of.
    pub fn send_all(
        &mut self,
        head: &[u8],
        payload: &[u8],
        flags: SendFlags,
        progress: &mut Progress,
    ) -> Result<(), Errno> {
        let mut parts = [IoSlice::new(head), IoSlice::new(payload)];
        let mut parts = if payload.is_empty() { &mut parts[..1] } else { &mut parts[..] };
        let mut left = head.len() + payload.len();
        while left > 0 {
            let sent = match &*parts {
                [one] => send(&self.socket.fd, one, flags),
                // Not writev, whose way through the file layer costs another 0.3 µs.
                both => sendmsg(&self.socket.fd, both, &mut SendAncillaryBuffer::default(), flags),
            };
            let sent = match sent {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(error) => return Err(error),
            };
            IoSlice::advance_slices(&mut parts, sent);
            left -= sent;
            progress.sent += sent;
            // The first short send begins it, so that a send of everything needs no clock.
            if left > 0 || progress.since.is_some() {
                let stall = progress.stall(sent, self.write_timeout);
                if left > 0 && stall >= self.write_timeout {
                    return Err(Errno::TIMEDOUT);
                }
            }
        }
        Ok(())
    }

    /// Ends the stream towards the peer.
    pub fn end(&self) {
        // A connection that is gone needs no end.
        let _ = shutdown(&self.socket.fd, Shutdown::Write);
    }

    /// Lets the kernel forget what the peer does not read, which it would keep for minutes.
    pub fn discard_unsent(&self) {
        let _ = sockopt::set_socket_linger(&self.socket.fd, Some(Duration::ZERO));
    }
}

/// A shorter timeout is rounded to none.
const SHORTEST: Duration = Duration::from_micros(1);

/// A signal ends a read only if it has a timeout. Without one, the read is started again.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How a send gets on: how much was sent, and for how long the peer has not read as much as it has to.
#[derive(Default)]
pub struct Progress {
    /// In bytes.
    pub sent: usize,
    since: Option<Instant>,
    time: Duration,
    /// In bytes, since it last was as much.
    read: usize,
}

impl Progress {
    /// The time for which the peer has not read [`MIN_PROGRESS`], now that it has read `sent` more.
    fn stall(&mut self, sent: usize, write_timeout: Duration) -> Duration {
        let now = Instant::now();
        if let Some(since) = self.since {
            // A longer time was not spent waiting for the peer: this process was suspended.
            self.time += (now - since).min(write_timeout / WRITE_TIMEOUT_PARTS);
        }
        self.since = Some(now);
        self.read += sent;
        if self.read >= MIN_PROGRESS {
            (self.time, self.read) = (Duration::ZERO, 0);
        }
        self.time
    }
}
