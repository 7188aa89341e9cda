//! A client's stream, plain or TLS.

use std::time::Duration;

use rustix::net::SendFlags;

use crate::server::socket::{Error, MORE, Received, Socket, TimedSocket};
use crate::server::tls::{Advance, Handshake, Session};

/// A client's stream, plain or TLS.
pub struct Stream<'s> {
    socket: TimedSocket<'s>,
    transport: Transport<'s>,
    /// The number of bytes that the last send did not send.
    unsent: usize,
    is_sending: bool,
}

/// The layer that carries the bytes.
enum Transport<'s> {
    Plain,
    Handshake(Handshake<'s>),
    Tls(Box<Session>),
    /// TLS that has failed, and why. Bytes that still arrive are read and ignored.
    Failed(String),
}

impl<'s> Stream<'s> {
    /// A stream over `socket`, whose send timeout is already set. A `Some` handshake enables TLS.
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

    /// The time from [`new`](Self::new) until the last [`receive`](Self::receive) or
    /// [`pause`](Self::pause) returned, or a later send that had to wait.
    pub fn now(&self) -> Duration {
        self.socket.now()
    }

    /// Whether the last send did not complete, so that the stream may be inside a frame.
    pub fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// The number of bytes that the last send did not send.
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

    /// Waits for bytes for `wait`, or forever. A signal interrupts the wait, as do the stop and SIGCONT
    /// after SIGSTOP. Advances a TLS handshake until it is complete.
    ///
    /// # Errors
    ///
    /// A lost connection, or failed TLS. After a failure of TLS, the alert with its reason was sent, and
    /// later calls receive the bytes that still arrive.
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

    /// Waits for `wait` without receiving anything, or until the peer has ended its stream. A signal
    /// interrupts the wait.
    ///
    /// # Errors
    ///
    /// A lost connection.
    pub fn pause(&mut self, wait: Duration) -> Result<Received, Error> {
        Ok(self.socket.pause(wait)?)
    }

    /// Sends all of `head` and then all of `payload`.
    ///
    /// # Errors
    ///
    /// [`TIMEDOUT`](rustix::io::Errno::TIMEDOUT) if, within the write timeout, the peer read less than
    /// 64 KiB or the rest, whichever is less. The stream may be inside a frame then. An [`Error::Tls`]
    /// before the handshake is complete. Any other error means that the connection is lost.
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

    /// Sends `bytes`, and ends the stream. Nothing can be sent afterwards.
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

    /// Ends TCP, without the end of TLS. Nothing can be sent afterwards.
    pub fn end_tcp(&self) {
        self.socket.end();
    }

    /// Asks TLS for new keys, if there is TLS.
    ///
    /// # Errors
    ///
    /// See [`send`](Self::send).
    pub fn update_keys(&mut self) -> Result<(), Error> {
        let Transport::Tls(session) = &mut self.transport else { return Ok(()) };
        let result = session.update_keys(&mut self.socket);
        self.note_failure(result)
    }

    /// The error for a send without a TLS session.
    fn no_session(&self) -> Error {
        Error::tls(self.tls_failure().unwrap_or("the handshake is not complete"))
    }

    fn note_send(&mut self, result: Result<(), Error>, len: usize) -> Result<(), Error> {
        self.is_sending = result.is_err();
        // With TLS this is an estimate, since the sent bytes include its overhead.
        self.unsent = if result.is_ok() { 0 } else { len.saturating_sub(self.socket.sent()) };
        self.note_failure(result)
    }

    /// Records a failure of TLS: from then on nothing is sent, and input is not decrypted.
    fn note_failure<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if let Err(Error::Tls(why)) = &result {
            self.transport = Transport::Failed(why.clone());
            self.socket.end();
        }
        result
    }

    /// Discards the kernel's unsent data, which it would otherwise keep for minutes if the peer does not
    /// read.
    pub fn discard_unsent(&self) {
        self.socket.discard_unsent();
    }
}
