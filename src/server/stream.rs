//! A client's stream, plain or TLS.

use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use crate::server::socket::{Error, MORE, Received, Socket, TimedSocket};
use crate::server::tls::{Advance, Handshake, Session};

/// A client's stream, plain or TLS.
pub struct Stream<'s> {
    socket: TimedSocket<'s>,
    transport: Transport<'s>,
    /// The bytes of the last send that were not sent.
    unsent: usize,
    is_sending: bool,
}

/// What carries the bytes.
enum Transport<'s> {
    Plain,
    Handshake(Handshake<'s>),
    Tls(Box<Session>),
    /// TLS that has failed, and why. What still comes is read and means nothing.
    Failed(String),
}

impl<'s> Stream<'s> {
    /// A stream over `socket`, which is set to the write timeout. `Some` enables TLS.
    pub fn new(
        socket: &'s Socket,
        write_timeout: Duration,
        handshake: Option<Handshake<'s>>,
    ) -> Self {
        Stream {
            socket: TimedSocket::new(socket, write_timeout),
            transport: handshake.map_or(Transport::Plain, Transport::Handshake),
            unsent: 0,
            is_sending: false,
        }
    }

    /// Enables TLS from here on.
    pub fn start_tls(&mut self, handshake: Handshake<'s>) {
        self.transport = Transport::Handshake(handshake);
    }

    /// When the last [`receive`](Self::receive) or [`pause`](Self::pause) returned, or a later send that
    /// had to wait.
    pub fn now(&self) -> Instant {
        self.socket.now()
    }

    /// Whether the last send did not complete, so that the stream may be inside a frame.
    pub fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// The bytes of the last send that were not sent.
    pub fn unsent(&self) -> usize {
        self.unsent
    }

    /// The version and the cipher suite of TLS, once its handshake is complete.
    pub fn tls(&self) -> Option<String> {
        match &self.transport {
            Transport::Tls(session) => Some(session.agreed()),
            _ => None,
        }
    }

    /// Why TLS has failed, if it has.
    pub fn tls_failure(&self) -> Option<&str> {
        match &self.transport {
            Transport::Failed(why) => Some(why),
            _ => None,
        }
    }

    /// Waits for bytes for as long as `wait`, or forever. A signal ends the wait early, as the stop
    /// and SIGCONT after SIGSTOP do. A TLS handshake is advanced until it is complete.
    ///
    /// # Errors
    ///
    /// A connection that is lost, or TLS that failed. The peer was sent the alert that says why, and
    /// whatever it still sends is received from then on.
    pub fn receive(&mut self, into: &mut [u8], wait: Option<Duration>) -> Result<Received, Error> {
        let received = match &mut self.transport {
            Transport::Plain | Transport::Failed(_) => Ok(self.socket.receive(into, wait)?),
            Transport::Tls(session) => session.receive(&mut self.socket, into, wait),
            Transport::Handshake(handshake) => {
                handshake.advance(&mut self.socket, wait).map(|advance| match advance {
                    Advance::Complete(session) => {
                        self.transport = Transport::Tls(session);
                        Received::Bytes(0)
                    }
                    Advance::Incomplete(received) => {
                        if received == Received::NotTls {
                            self.transport = Transport::Plain;
                        }
                        received
                    }
                })
            }
        };
        self.note_failure(received)
    }

    /// Waits for as long as `wait` without receiving anything, or until the peer has ended its stream. A
    /// signal ends the wait early.
    ///
    /// # Errors
    ///
    /// A connection that is lost.
    pub fn pause(&mut self, wait: Duration) -> Result<Received, Error> {
        Ok(self.socket.pause(wait)?)
    }

    /// Sends all of `head` and then all of `payload`.
    ///
    /// # Errors
    ///
    /// [`TIMEDOUT`](rustix::io::Errno::TIMEDOUT) if the peer read less than 64 KiB, and than the rest,
    /// within the write timeout, after which the stream may be inside a frame. An [`Error::Tls`] before
    /// the handshake is complete. Otherwise the connection is lost.
    pub fn send(&mut self, head: &[u8], payload: &[u8]) -> Result<(), Error> {
        self.is_sending = true;
        self.socket.start_send();
        let result = match &mut self.transport {
            Transport::Plain => {
                self.socket.send_all(head, payload, SendFlags::empty()).map_err(Error::Io)
            }
            Transport::Tls(session) => session.send(&mut self.socket, head, payload),
            Transport::Handshake(_) | Transport::Failed(_) => Err(self.no_session()),
        };
        self.note_send(result, head.len() + payload.len())
    }

    /// Sends `bytes`, and ends the stream: nothing can be sent after them.
    ///
    /// # Errors
    ///
    /// See [`send`](Self::send).
    pub fn send_last(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.is_sending = true;
        self.socket.start_send();
        let result = match &mut self.transport {
            Transport::Plain => self.socket.send_all(bytes, b"", MORE).map_err(Error::Io),
            Transport::Tls(session) => session.send_last(&mut self.socket, bytes),
            Transport::Handshake(_) | Transport::Failed(_) => Err(self.no_session()),
        };
        self.note_send(result, bytes.len())?;
        self.socket.end();
        Ok(())
    }

    /// Why nothing can be sent over TLS.
    fn no_session(&self) -> Error {
        Error::tls(self.tls_failure().unwrap_or("the handshake is not complete"))
    }

    fn note_send(&mut self, result: Result<(), Error>, len: usize) -> Result<(), Error> {
        self.is_sending = result.is_err();
        // TLS adds to what is sent, so with it this is only about so.
        self.unsent = if result.is_ok() { 0 } else { len.saturating_sub(self.socket.sent()) };
        self.note_failure(result)
    }

    /// After TLS has failed nothing is sent, and what comes is not TLS.
    fn note_failure<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Tls(why)) = &result {
            self.transport = Transport::Failed(why.clone());
            self.socket.end();
        }
        result
    }

    /// Lets the kernel forget what the peer does not read, which it would keep for minutes.
    pub fn discard_unsent(&self) {
        self.socket.discard_unsent();
    }
}
