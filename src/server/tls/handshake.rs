//! TLS handshakes. Each is computed by its client's thread, a few at a time.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::buffer::Budget;
use crate::cli;
use crate::server::socket::{Error, Received, TimedSocket};
use crate::server::tls::certificate::Certificate;
use crate::server::tls::permits::{Permits, Step};
use crate::server::tls::session::{Next, Session};

/// The stack for a step, in bytes. The deepest step, with an RSA key of 4096 bits in an unoptimized
/// build, needs 60 KiB.
const STACK_SIZE: usize = 128 * 1024;

/// Accepts TLS sessions: the certificate, and the permits to compute with it.
pub struct Acceptor {
    certificate: Arc<Certificate>,
    permits: Permits,
}

impl Acceptor {
    /// Reads the certificate if the flags name one.
    ///
    /// # Errors
    ///
    /// The reason why it can't be used.
    pub fn new(flags: &cli::Tls) -> Result<Option<Self>, String> {
        let Some(certificate) = Certificate::read(flags)? else { return Ok(None) };
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Ok(Some(Acceptor { certificate, permits: Permits::new(processors) }))
    }
}

/// An incomplete handshake.
pub struct Handshake<'a> {
    acceptor: &'a Acceptor,
    budget: &'a Arc<Budget>,
    /// `None` until the first byte arrives.
    session: Option<Box<Session>>,
}

/// The progress of a handshake.
pub enum Advance {
    Incomplete(Received),
    Complete(Box<Session>),
}

impl<'a> Handshake<'a> {
    /// A handshake that has not begun.
    pub fn new(acceptor: &'a Acceptor, budget: &'a Arc<Budget>) -> Self {
        Handshake { acceptor, budget, session: None }
    }

    /// Waits for bytes, or computes the next step and sends its answer.
    pub fn advance(
        &mut self,
        socket: &mut TimedSocket,
        wait: Option<Duration>,
    ) -> Result<Advance, Error> {
        let Some(session) = &mut self.session else {
            return Ok(Advance::Incomplete(self.begin(socket, wait)?));
        };
        if !session.has_record() {
            return Ok(Advance::Incomplete(session.receive_record(socket, wait)?));
        }
        let step = if session.is_begun() { Step::Rest } else { Step::Answer };
        // Without a permit, since the files of the certificate may be slow to read.
        let config = (step == Step::Answer).then(|| self.acceptor.certificate.config());
        let Some(permit) = self.acceptor.permits.acquire(step, wait) else {
            socket.set_now();
            return Ok(Advance::Incomplete(Received::Nothing));
        };
        if step == Step::Answer && socket.is_ended() {
            return Ok(Advance::Incomplete(Received::End));
        }
        // On a separate stack: pages that the client's own stack has touched stay resident while it is
        // connected.
        let next = stacker::grow(STACK_SIZE, || session.process_handshake(config));
        drop(permit);
        socket.set_now();
        session.flush(socket)?;
        Ok(match next? {
            Next::Data => {
                session.shrink();
                self.session.take().map_or(Advance::Incomplete(Received::End), Advance::Complete)
            }
            Next::Handshake if session.is_ended() => Advance::Incomplete(Received::End),
            Next::Handshake => Advance::Incomplete(Received::Bytes(0)),
        })
    }

    /// Begins the session, unless the peer turns out to speak HTTP.
    fn begin(
        &mut self,
        socket: &mut TimedSocket,
        wait: Option<Duration>,
    ) -> Result<Received, Error> {
        let mut first = [0];
        let received = socket.peek(&mut first, wait)?;
        if let Received::Bytes(_) = received {
            // A request begins with a letter or an empty line, and so does a PROXY header. No TLS record
            // does.
            if first[0].is_ascii_alphabetic() || first[0] == b'\r' {
                return Ok(Received::NotTls);
            }
            self.session = Some(Box::new(Session::new(self.budget)?));
            return Ok(Received::Bytes(0));
        }
        Ok(received)
    }
}
