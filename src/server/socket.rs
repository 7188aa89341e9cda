//! One client's socket, read and written within deadlines.
//!
//! All calls are rustix's, which on Linux bypass the C library: its cancellation points cost 2 % of a
//! small message.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, recv, send, sendmsg, shutdown,
};

use crate::app::peer::Peer;
use crate::app::settings::{MIN_PROGRESS, WRITE_TIMEOUT_PARTS};

/// Sends the last bytes in one packet with the end of the stream. Only Linux has the flag.
#[cfg(target_os = "linux")]
pub const MORE: SendFlags = SendFlags::MORE;
#[cfg(not(target_os = "linux"))]
pub const MORE: SendFlags = SendFlags::empty();

/// Reports the end of the peer's stream, even with unreceived bytes before it. Other systems report only
/// a lost connection.
#[cfg(target_os = "linux")]
const PEER_END: PollFlags = PollFlags::RDHUP;
#[cfg(not(target_os = "linux"))]
const PEER_END: PollFlags = PollFlags::empty();

/// A connected socket. Only the client's own thread reads and writes it.
pub struct Socket {
    fd: OwnedFd,
    pub peer: Peer,
}

impl Socket {
    /// The socket of an accepted connection.
    pub fn new(stream: impl Into<OwnedFd>, peer: Peer) -> Self {
        Socket { fd: stream.into(), peer }
    }

    /// Ends the receiving side, as if the peer had ended its stream.
    pub fn shut_read(&self) {
        // This fails only if the connection is gone.
        let _ = shutdown(&self.fd, Shutdown::Read);
    }

    /// Ends the connection at once, whatever its thread is doing.
    pub fn abort(&self) {
        let _ = shutdown(&self.fd, Shutdown::Both);
    }

    /// Returns the bytes that have arrived, without removing them and without ever waiting.
    pub fn peek_now<'b>(&self, into: &'b mut [u8]) -> &'b [u8] {
        let peeked = recv(&self.fd, &mut *into, RecvFlags::DONTWAIT | RecvFlags::PEEK);
        &into[..peeked.map_or(0, |(bytes, _)| bytes)]
    }

    /// Sends the bytes that fit in the socket's buffer, ends the stream, and reads the input, without
    /// ever waiting. Unread input would reset the connection, and the peer would lose the bytes.
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
    /// The number of bytes: 0 during the TLS handshake, and while a TLS record is incomplete.
    Bytes(usize),
    /// The wait timed out or was interrupted.
    Nothing,
    /// The peer ended its stream.
    End,
    /// The TLS handshake is complete.
    Tls,
    /// The peer sent plain HTTP on a TLS port. The stream is plain from now on.
    NotTls,
}

/// Why nothing can be sent or received any more.
#[derive(Clone, Debug)]
pub enum Error {
    Io(Errno),
    Tls(String),
}

impl Error {
    /// An error of TLS, with the text of `error`.
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
    /// The socket's current timeout.
    read_timeout: Duration,
    start: Instant,
    /// The time since `start`.
    now: Duration,
    stall: StallTimer,
    unsent: usize,
}

impl<'s> TimedSocket<'s> {
    /// Wraps `socket`, whose send timeout is already set.
    pub fn new(socket: &'s Socket, write_timeout: Duration) -> Self {
        TimedSocket {
            socket,
            write_timeout,
            read_timeout: Duration::ZERO,
            start: Instant::now(),
            now: Duration::ZERO,
            stall: StallTimer::default(),
            unsent: 0,
        }
    }

    /// The time from [`new`](Self::new) until the last [`receive`](Self::receive) or
    /// [`pause`](Self::pause) returned, or a later send that had to wait or failed.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Waits for bytes for `wait`, or forever. A signal interrupts the wait, as do the stop and SIGCONT
    /// after SIGSTOP. A zero wait does not change the socket's timeout.
    pub fn receive(&mut self, into: &mut [u8], wait: Option<Duration>) -> Result<Received, Errno> {
        self.receive_with(RecvFlags::empty(), into, wait)
    }

    /// Like [`receive`](Self::receive), but leaves the bytes for the next one.
    pub fn peek(&mut self, into: &mut [u8], wait: Option<Duration>) -> Result<Received, Errno> {
        self.receive_with(RecvFlags::PEEK, into, wait)
    }

    fn receive_with(
        &mut self,
        flags: RecvFlags,
        into: &mut [u8],
        wait: Option<Duration>,
    ) -> Result<Received, Errno> {
        let mut received = Err(Errno::AGAIN);
        if wait != Some(Duration::ZERO) {
            self.set_read_timeout(wait.unwrap_or(FOREVER))?;
            received = recv(&self.socket.fd, &mut *into, flags);
        }
        if let Err(Errno::AGAIN | Errno::INTR) = received {
            // Bytes may have arrived while the process was suspended.
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

    /// Stamps the time of a receive that did not need the socket, or of a failed send.
    pub fn set_now(&mut self) {
        self.now = self.start.elapsed();
    }

    /// Waits for `wait` without receiving anything, or until the peer has ended its stream. A signal
    /// interrupts the wait.
    pub fn pause(&mut self, wait: Duration) -> Result<Received, Errno> {
        // Rounded up: with a shorter wait, the next step would not be due yet.
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
        let timeout = timeout.max(MIN_TIMEOUT);
        if self.read_timeout != timeout {
            sockopt::set_socket_timeout(&self.socket.fd, Timeout::Recv, Some(timeout))?;
            self.read_timeout = timeout;
        }
        Ok(())
    }

    /// Whether the peer has ended its stream, or is gone.
    pub fn is_ended(&self) -> bool {
        let mut peer = [PollFd::new(&self.socket.fd, PEER_END)];
        poll(&mut peer, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Starts a send of `len` bytes, which may be several calls of [`send_all`](Self::send_all).
    pub fn start_send(&mut self, len: usize) {
        self.stall = StallTimer::default();
        self.unsent = len;
    }

    /// The number of bytes that the last send did not send. With TLS this is an estimate, since the sent
    /// bytes include its overhead.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// Sends all of `head` and then all of `payload`.
    ///
    /// # Errors
    ///
    /// [`Errno::TIMEDOUT`] if, within the write timeout, the peer read less than [`MIN_PROGRESS`] or the
    /// rest, whichever is less. Any other error means that the connection is lost.
    pub fn send_all(&mut self, head: &[u8], payload: &[u8], flags: SendFlags) -> Result<(), Errno> {
        let mut parts = [IoSlice::new(head), IoSlice::new(payload)];
        let mut unsent = if payload.is_empty() { &mut parts[..1] } else { &mut parts[..] };
        let mut left = head.len() + payload.len();
        while left > 0 {
            let sent = self.send_some(unsent, flags)?;
            IoSlice::advance_slices(&mut unsent, sent);
            left -= sent;
            self.unsent = self.unsent.saturating_sub(sent);
            // A send that completes at once needs no clock.
            if left > 0 || self.stall.is_running() {
                self.set_now();
                self.stall.record(sent, self.now, self.write_timeout);
            }
            if left > 0 && self.stall.time >= self.write_timeout {
                return Err(Errno::TIMEDOUT);
            }
        }
        Ok(())
    }

    /// Sends as much as the peer has room for within a part of the write timeout. It may send nothing.
    fn send_some(&self, parts: &[IoSlice], flags: SendFlags) -> Result<usize, Errno> {
        let sent = match parts {
            [one] => send(&self.socket.fd, one, flags),
            // Not writev, whose path through the file layer costs another 0.3 µs.
            both => sendmsg(&self.socket.fd, both, &mut SendAncillaryBuffer::default(), flags),
        };
        match sent {
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            sent => sent,
        }
    }

    /// Ends the stream towards the peer.
    pub fn end(&self) {
        // This fails only if the connection is gone.
        let _ = shutdown(&self.socket.fd, Shutdown::Write);
    }

    /// Discards the kernel's unsent data, which it would otherwise keep for minutes if the peer does not
    /// read.
    pub fn discard_unsent(&self) {
        let _ = sockopt::set_socket_linger(&self.socket.fd, Some(Duration::ZERO));
    }
}

/// A shorter timeout would be rounded to 0, which means none.
const MIN_TIMEOUT: Duration = Duration::from_micros(1);

/// A signal interrupts a read only if the socket has a timeout. Otherwise the kernel restarts the read.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Measures the time in which the peer of a send has not read [`MIN_PROGRESS`].
#[derive(Default)]
struct StallTimer {
    /// The time of the last update. The measurement starts with the first partial send.
    updated: Option<Duration>,
    time: Duration,
    /// The bytes that the peer has read during `time`.
    read: usize,
}

impl StallTimer {
    fn is_running(&self) -> bool {
        self.updated.is_some()
    }

    /// Records a send of `bytes` that returned at `now`.
    fn record(&mut self, bytes: usize, now: Duration, write_timeout: Duration) {
        let elapsed = self.updated.map_or(Duration::ZERO, |updated| now.saturating_sub(updated));
        // A longer time was not spent waiting for the peer: the process was suspended.
        self.time += elapsed.min(write_timeout / WRITE_TIMEOUT_PARTS);
        self.updated = Some(now);
        self.read += bytes;
        if self.read >= MIN_PROGRESS {
            (self.time, self.read) = (Duration::ZERO, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_stalls_unless_it_reads_enough_in_time() {
        const TIMEOUT: Duration = Duration::from_secs(8);
        let mut timer = StallTimer::default();
        for (second, bytes, stalled) in [
            // The measurement starts with the first partial send. Bytes read before are not late.
            (5, 0, 0),
            (6, 100, 1),
            (7, MIN_PROGRESS - 101, 2),
            (8, 1, 0),
            (9, MIN_PROGRESS - 1, 1),
            // The process was suspended.
            (100, 0, 2),
            (101, MIN_PROGRESS, 0),
        ] {
            timer.record(bytes, Duration::from_secs(second), TIMEOUT);
            assert_eq!(timer.time, Duration::from_secs(stalled), "after {second} s");
        }
    }
}
