//! A client's stream, plain or TLS.

use std::time::Duration;

use rustix::net::SendFlags;

use crate::server::socket::{Error, MORE, Received, Socket, TimedSocket};
use crate::server::tls::{Advance, Handshake, Session};

/// A client's stream, plain or TLS.
pub struct Stream<'s> {
    socket: TimedSocket<'s>,
    transport: Transport<'s>,
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
    /// A plain stream over `socket`, whose send timeout is already set.
    pub fn new(socket: &'s Socket, write_timeout: Duration) -> Self {
        Stream { socket: TimedSocket::new(socket, write_timeout), transport: Transport::Plain }
    }

    /// Enables TLS from here on.
    pub fn start_tls(&mut self, handshake: Handshake<'s>) {
        self.transport = Transport::Handshake(handshake);
    }

    /// The time from [`new`](Self::new) until the last [`receive`](Self::receive) or
    /// [`pause`](Self::pause) returned, or a later send that had to wait or failed.
    pub fn now(&self) -> Duration {
        self.socket.now()
    }

    /// The number of bytes that the last send did not send. Unless it is 0, the stream may be inside a
    /// frame.
    pub fn unsent(&self) -> usize {
        self.socket.unsent()
    }

    /// The version and the cipher suite of TLS, once its handshake is complete.
    pub fn tls(&self) -> Option<String> {
        match &self.transport {
            Transport::Tls(session) => Some(session.agreed()),
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
                        Received::Tls
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
        received.inspect_err(|error| self.fail(error))
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
        self.socket.start_send(head.len() + payload.len());
        let result = match &mut self.transport {
            Transport::Plain => {
                self.socket.send_all(head, payload, SendFlags::empty()).map_err(Error::Io)
            }
            Transport::Tls(session) => session.send(&mut self.socket, head, payload),
            Transport::Handshake(_) => Err(Error::tls("the handshake is not complete")),
            Transport::Failed(why) => Err(Error::tls(why)),
        };
        result.inspect_err(|error| self.fail(error))
    }

    /// Sends `bytes`, and ends the stream. Nothing can be sent afterwards.
    ///
    /// # Errors
    ///
    /// See [`send`](Self::send).
    pub fn send_last(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.socket.start_send(bytes.len());
        let result = match &mut self.transport {
            Transport::Plain => self.socket.send_all(bytes, b"", MORE).map_err(Error::Io),
            Transport::Tls(session) => session.send_last(&mut self.socket, bytes),
            Transport::Handshake(_) => Err(Error::tls("the handshake is not complete")),
            Transport::Failed(why) => Err(Error::tls(why)),
        };
        result.inspect_err(|error| self.fail(error))?;
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
        result.inspect_err(|error| self.fail(error))
    }

    /// Stamps the time of a failure. After one of TLS, nothing is sent, and input is not decrypted.
    #[cold]
    fn fail(&mut self, error: &Error) {
        self.socket.set_now();
        if let Error::Tls(why) = error {
            self.transport = Transport::Failed(why.clone());
            self.socket.end();
        }
    }

    /// Discards the kernel's unsent data, which it would otherwise keep for minutes if the peer does not
    /// read.
    pub fn discard_unsent(&self) {
        self.socket.discard_unsent();
    }
}
