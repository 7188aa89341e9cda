//! One client's socket, read and written within deadlines.
//!
//! All calls are rustix's, which on Linux bypass the C library: its cancellation points cost 2 % of a
//! small message.

use std::io::IoSlice;
use std::net::{SocketAddr, TcpStream};
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
const MORE: SendFlags = SendFlags::MORE;
#[cfg(not(target_os = "linux"))]
const MORE: SendFlags = SendFlags::empty();

/// Tells that the peer has ended its stream, behind whatever was not received. Elsewhere only a connection
/// that is gone is noticed.
#[cfg(target_os = "linux")]
const PEER_END: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const PEER_END: PollFlags = PollFlags::empty();

/// A connected socket. Only the client's own thread reads and writes it.
pub struct Socket {
    fd: OwnedFd,
    /// The other end of the connection, which may be a proxy.
    pub peer: SocketAddr,
}

impl Socket {
    /// The socket of an accepted connection.
    pub fn new(stream: TcpStream, peer: SocketAddr) -> Self {
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

/// A socket with its deadlines.
pub struct Stream<'s> {
    socket: &'s Socket,
    write_timeout: Duration,
    /// What the socket is set to.
    read_timeout: Duration,
    now: Instant,
    is_sending: bool,
    /// In bytes.
    pub received: u64,
    /// In bytes.
    pub sent: u64,
}

/// The result of a receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    Bytes(usize),
    /// The time passed, or the wait was interrupted.
    Nothing,
    /// The peer ended its stream.
    End,
}

impl<'s> Stream<'s> {
    /// A stream over `socket`, whose listener has set its write timeout.
    pub fn new(socket: &'s Socket, write_timeout: Duration) -> Self {
        Stream {
            socket,
            write_timeout,
            read_timeout: Duration::ZERO,
            now: Instant::now(),
            is_sending: false,
            received: 0,
            sent: 0,
        }
    }

    /// When the last [`receive`](Self::receive) returned.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Whether the last send did not complete, so that the stream may be inside a frame.
    pub fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Waits for bytes for as long as `wait`, or for ever. A signal ends the wait early, as the stop
    /// and SIGCONT after SIGSTOP do.
    ///
    /// # Errors
    ///
    /// A connection that is lost.
    pub fn receive(&mut self, into: &mut [u8], wait: Option<Duration>) -> Result<Received, Errno> {
        self.set_read_timeout(wait.unwrap_or(FOREVER))?;
        let mut received = recv(&self.socket.fd, &mut *into, RecvFlags::empty());
        if let Err(Errno::AGAIN | Errno::INTR) = received {
            // Bytes may have come while the process was suspended.
            received = recv(&self.socket.fd, into, RecvFlags::DONTWAIT);
        }
        self.now = Instant::now();
        match received {
            Ok((0, _)) => Ok(Received::End),
            Ok((bytes, _)) => {
                self.received += bytes as u64;
                Ok(Received::Bytes(bytes))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Received::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Waits for as long as `wait` without receiving anything, or until the peer has ended its stream. A
    /// signal ends the wait early.
    ///
    /// # Errors
    ///
    /// A connection that is lost.
    pub fn pause(&mut self, wait: Duration) -> Result<Received, Errno> {
        // Rounded up, since what is waited for would not be due yet.
        let wait = Timespec::try_from(wait + Duration::from_micros(1)).ok();
        let mut peer = [PollFd::new(&self.socket.fd, PEER_END)];
        let woken = poll(&mut peer, wait.as_ref());
        self.now = Instant::now();
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

    /// Sends `head` and then `payload`, all of both.
    ///
    /// # Errors
    ///
    /// [`Errno::TIMEDOUT`] if the peer took less than 64 KiB, or than the rest, within the write timeout,
    /// after which the stream may be inside a frame. Otherwise the connection is lost.
    pub fn send(&mut self, head: &[u8], payload: &[u8]) -> Result<(), Errno> {
        self.send_all(head, payload, SendFlags::empty())
    }

    /// Sends `bytes`, and ends the stream: nothing can be sent after them.
    ///
    /// # Errors
    ///
    /// See [`send`](Self::send).
    pub fn send_last(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        self.send_all(bytes, b"", MORE)?;
        // A connection that is gone needs no end.
        let _ = shutdown(&self.socket.fd, Shutdown::Write);
        Ok(())
    }

    fn send_all(&mut self, head: &[u8], payload: &[u8], flags: SendFlags) -> Result<(), Errno> {
        let mut parts = [IoSlice::new(head), IoSlice::new(payload)];
        let mut parts = if payload.is_empty() { &mut parts[..1] } else { &mut parts[..] };
        let mut left = head.len() + payload.len();
        self.is_sending = true;
        let mut stall = Stall::default();
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
            self.sent += sent as u64;
            if left > 0 && stall.time(sent, self.write_timeout) >= self.write_timeout {
                return Err(Errno::TIMEDOUT);
            }
        }
        self.is_sending = false;
        Ok(())
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

/// For how long a peer has not read as much as it has to.
#[derive(Default)]
struct Stall {
    since: Option<Instant>,
    time: Duration,
    progress: usize,
}

impl Stall {
    /// The time for which the peer has not read [`MIN_PROGRESS`], now that it has read `sent` more.
    // The first short send begins it, so that a send of everything needs no clock.
    fn time(&mut self, sent: usize, write_timeout: Duration) -> Duration {
        let now = Instant::now();
        if let Some(since) = self.since {
            // A longer time was not spent waiting for the peer: this process was suspended.
            self.time += (now - since).min(write_timeout / WRITE_TIMEOUT_PARTS);
        }
        self.since = Some(now);
        self.progress += sent;
        if self.progress >= MIN_PROGRESS {
            (self.time, self.progress) = (Duration::ZERO, 0);
        }
        self.time
    }
}
