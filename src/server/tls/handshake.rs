//! TLS handshakes, which are computed on threads of their own.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use rustix::net::SendFlags;

use crate::buffer::Budget;
use crate::cli;
use crate::lock::lock;
use crate::server::socket::{Error, Handshake, Progress, Received, TimedSocket};
use crate::server::tls::certificate::Certificate;
use crate::server::tls::session::{Next, Session};

/// A stack for the steps of handshakes, in bytes. The deepest one, for an RSA key of 4096 bits in a build
/// without optimization, needs 60 KiB.
const STACK_SIZE: usize = 128 * 1024;

/// How many threads compute handshakes, on however many processors.
const MOST_THREADS: usize = 16;

/// What accepts TLS sessions: the certificate, and the threads that compute handshakes.
pub struct Acceptor {
    steps: Arc<Steps>,
}

impl Acceptor {
    /// Reads the certificate that the flags name, if they name one.
    ///
    /// # Errors
    ///
    /// Why it can't be used.
    pub fn new(flags: &cli::Tls) -> Result<Option<Self>, String> {
        let Some(certificate) = Certificate::read(flags)? else { return Ok(None) };
        let steps = start_threads(&Arc::new(certificate))
            .map_err(|error| format!("cannot start the threads for handshakes: {error}"))?;
        Ok(Some(Acceptor { steps }))
    }
}

/// A step of a handshake that is computed on another thread. It needs a deep stack, which would stay
/// resident for as long as the client is connected.
struct Step {
    session: Box<Session>,
    /// Dropped by a client that does not wait any longer.
    result: Weak<StepResult>,
    client: Thread,
}

/// The session, and what came of the step. `None` before that.
type StepResult = Mutex<Option<Result<(Box<Session>, Result<Next, Error>), Error>>>;

/// The steps that wait for a thread, the oldest first.
#[derive(Default)]
struct Steps {
    queue: Mutex<VecDeque<Step>>,
    added: Condvar,
}

impl Steps {
    fn add(&self, step: Step) {
        lock(&self.queue).push_back(step);
        self.added.notify_one();
    }

    /// Waits for the next one.
    fn next(&self) -> Step {
        let mut queue = lock(&self.queue);
        loop {
            if let Some(step) = queue.pop_front() {
                if queue.is_empty() {
                    // Its memory may lie behind much that a crowd will have given back.
                    *queue = VecDeque::new();
                }
                return step;
            }
            queue = self.added.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts a thread for each processor, which takes steps of handshakes for as long as the process lives.
fn start_threads(certificate: &Arc<Certificate>) -> io::Result<Arc<Steps>> {
    let steps = Arc::<Steps>::default();
    let processors = thread::available_parallelism().map_or(1, usize::from);
    for _ in 0..processors.min(MOST_THREADS) {
        let (certificate, steps) = (Arc::clone(certificate), Arc::clone(&steps));
        let thread = thread::Builder::new().name("handshake".into()).stack_size(STACK_SIZE);
        thread.spawn(move || {
            loop {
                take(steps.next(), &certificate);
            }
        })?;
    }
    Ok(steps)
}

/// Computes a step, unless nobody waits for it.
fn take(step: Step, certificate: &Certificate) {
    let Step { mut session, result, client } = step;
    let Some(result) = result.upgrade() else { return };
    let computed = panic::catch_unwind(AssertUnwindSafe(|| {
        let next = session.process_handshake(|| certificate.config());
        (session, next)
    }));
    // The log says why it has panicked.
    *lock(&result) = Some(computed.map_err(|_| Error::tls("internal error")));
    client.unpark();
}

/// A session whose handshake is not complete.
pub struct Handshaking<'c> {
    acceptor: &'c Acceptor,
    /// None while another thread has it for a step.
    session: Option<Box<Session>>,
    result: Arc<StepResult>,
}

impl<'c> Handshaking<'c> {
    /// A handshake that is about to begin.
    pub fn new(acceptor: &'c Acceptor, budget: &Arc<Budget>) -> Result<Self, Error> {
        let session = Session::new(budget)?;
        Ok(Handshaking { acceptor, session: Some(Box::new(session)), result: Arc::default() })
    }

    /// Waits for the next bytes of the handshake or for the step that they need, and sends what answers
    /// them. Returns the session when it is complete.
    pub fn go_on(
        &mut self,
        socket: &mut TimedSocket,
        wait: Duration,
    ) -> Result<(Handshake, Option<Box<Session>>), Error> {
        let Some(mut session) = self.session.take() else { return self.take_result(socket, wait) };
        let handshake = match session.receive_handshake(socket, wait)? {
            Received::Bytes(_) => {
                let (result, client) = (Arc::downgrade(&self.result), thread::current());
                let step = Step { session, result, client };
                self.acceptor.steps.add(step);
                Handshake::Unfinished
            }
            Received::Nothing => {
                self.session = Some(session);
                Handshake::Unfinished
            }
            Received::End => Handshake::End,
        };
        Ok((handshake, None))
    }

    fn take_result(
        &mut self,
        socket: &mut TimedSocket,
        wait: Duration,
    ) -> Result<(Handshake, Option<Box<Session>>), Error> {
        let take = || lock(&self.result).take();
        let computed = take().or_else(|| {
            // The stop ends it early, and so may a step before.
            thread::park_timeout(wait);
            take()
        });
        let Some(result) = computed else { return Ok((Handshake::Unfinished, None)) };
        let (mut session, next) = result?;
        session.flush(socket, SendFlags::empty(), &mut Progress::default())?;
        match next? {
            Next::Data => {
                session.shrink();
                Ok((Handshake::Complete, Some(session)))
            }
            Next::Handshake if session.is_ended() => Ok((Handshake::End, None)),
            Next::Handshake => {
                self.session = Some(session);
                Ok((Handshake::Unfinished, None))
            }
        }
    }
}
