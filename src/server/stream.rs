//! A client's stream: its socket, or TLS over it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::SendFlags;

use crate::buffer::Budget;
use crate::server::socket::{Error, Handshake, MORE, Progress, Received, Socket, TimedSocket};
use crate::server::tls::{Acceptor, Handshaking, Session};

/// A client's stream, plain or encrypted.
pub struct Stream<'s> {
    socket: TimedSocket<'s>,
    transport: Transport<'s>,
    is_sending: bool,
    /// In bytes, without what TLS adds.
    pub received: u64,
    /// In bytes, without what TLS adds.
    pub sent: u64,
}

/// What carries the bytes.
pub enum Transport<'s> {
    Plain,
    /// TLS, if the peer does not turn out to speak HTTP without it.
    Offered(&'s Acceptor),
    Handshaking(Handshaking<'s>),
    Tls(Box<Session>),
    /// TLS that has failed, and why. What still comes is read and means nothing.
    Failed(String),
}

impl<'s> Stream<'s> {
    /// A stream over `socket`, which is set to the write timeout.
    pub fn new(socket: &'s Socket, write_timeout: Duration, transport: Transport<'s>) -> Self {
        Stream {
            socket: TimedSocket::new(socket, write_timeout),
            transport,
            is_sending: false,
            received: 0,
            sent: 0,
        }
    }

    /// When the last [`receive`](Self::receive) returned.
    pub fn now(&self) -> Instant {
        self.socket.now()
    }

    /// Whether the last send did not complete, so that the stream may be inside a frame.
    pub fn is_sending(&self) -> bool {
        self.is_sending
    }

    /// Takes the TLS handshake further, waiting as [`receive`](Self::receive) does. A plain stream needs
    /// none.
    ///
    /// # Errors
    ///
    /// A connection that is lost, or a handshake that failed. The peer was sent the alert that says why.
    pub fn handshake(&mut self, budget: &Arc<Budget>, wait: Duration) -> Result<Handshake, Error> {
        let handshake = self.take_handshake_further(budget, wait);
        self.note_failure(handshake)
    }

    fn take_handshake_further(
        &mut self,
        budget: &Arc<Budget>,
        wait: Duration,
    ) -> Result<Handshake, Error> {
        if let Transport::Offered(acceptor) = self.transport {
            let mut first = [0];
            match self.socket.peek(&mut first, Some(wait))? {
                Received::Nothing => return Ok(Handshake::Unfinished),
                Received::End => return Ok(Handshake::End),
                // Every request begins with a letter or an empty line, as a PROXY header does, and no
                // record does.
                Received::Bytes(_) if first[0].is_ascii_alphabetic() || first[0] == b'\r' => {
                    self.transport = Transport::Plain;
                    return Ok(Handshake::Http);
                }
                Received::Bytes(_) => {
                    let handshaking = Handshaking::new(acceptor, budget)?;
                    self.transport = Transport::Handshaking(handshaking);
                }
            }
        }
        let Transport::Handshaking(handshaking) = &mut self.transport else {
            return Ok(Handshake::Complete);
        };
        let (handshake, session) = handshaking.go_on(&mut self.socket, wait)?;
        if let Some(session) = session {
            self.transport = Transport::Tls(session);
        }
        Ok(handshake)
    }

    /// Whether a part of a TLS handshake has come, and it is not complete.
    pub fn is_handshaking(&self) -> bool {
        matches!(self.transport, Transport::Handshaking(_))
    }

    /// The version and the cipher suite of TLS.
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

    /// Waits for bytes for as long as `wait`, or for ever. A signal ends the wait early, as the stop
    /// and SIGCONT after SIGSTOP do.
    ///
    /// # Errors
    ///
    /// A connection that is lost, or what is no TLS. The peer was sent the alert that says why.
    pub fn receive(&mut self, into: &mut [u8], wait: Option<Duration>) -> Result<Received, Error> {
        let received = match &mut self.transport {
            Transport::Tls(session) => session.receive(&mut self.socket, into, wait),
            _ => self.socket.receive(into, wait).map_err(Error::Io),
        };
        if let Ok(Received::Bytes(bytes)) = received {
            self.received += bytes as u64;
        }
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

    /// Sends `head` and then `payload`, all of both.
    ///
    /// # Errors
    ///
    /// [`Errno::TIMEDOUT`] if the peer took less than 64 KiB, or than the rest, within the write timeout,
    /// after which the stream may be inside a frame. Otherwise the connection is lost.
    pub fn send(&mut self, head: &[u8], payload: &[u8]) -> Result<(), Error> {
        self.sending(head.len() + payload.len(), |transport, socket, progress| match transport {
            Transport::Plain | Transport::Offered(_) => {
                Ok(socket.send_all(head, payload, SendFlags::empty(), progress)?)
            }
            Transport::Tls(session) => session.send(socket, head, payload, progress),
            Transport::Handshaking(_) => Err(Error::tls("the handshake is not complete")),
            Transport::Failed(why) => Err(Error::Tls(why.clone())),
        })
    }

    /// Sends `bytes`, and ends the stream: nothing can be sent after them.
    ///
    /// # Errors
    ///
    /// See [`send`](Self::send).
    pub fn send_last(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.sending(bytes.len(), |transport, socket, progress| match transport {
            Transport::Plain | Transport::Offered(_) => {
                Ok(socket.send_all(bytes, b"", MORE, progress)?)
            }
            Transport::Tls(session) => session.send_last(socket, bytes, progress),
            Transport::Handshaking(_) => Err(Error::tls("the handshake is not complete")),
            Transport::Failed(why) => Err(Error::Tls(why.clone())),
        })?;
        self.socket.end();
        Ok(())
    }

    fn sending(
        &mut self,
        len: usize,
        send: impl FnOnce(&mut Transport, &mut TimedSocket, &mut Progress) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.is_sending = true;
        let mut progress = Progress::default();
        let result = send(&mut self.transport, &mut self.socket, &mut progress);
        self.is_sending = result.is_err();
        // Without what TLS adds, if all of it was sent.
        self.sent += if result.is_ok() { len } else { progress.sent } as u64;
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
