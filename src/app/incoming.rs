//! What comes from a client once its WebSocket is open: the input, the session that decodes it, and the
//! deadlines.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::app::settings::{MIN_PROGRESS, Timeouts, WRITE_TIMEOUT_PARTS};
use crate::app::trace::{Frames, Inbound};
use crate::buffer::{Budget, Buffer};
use crate::websocket::close::{CloseFrame, NO_PROGRESS, PING_TIMEOUT};
use crate::websocket::deflate::PerMessageDeflate;
use crate::websocket::session::{Close, Event, Session};

/// The input of a client that sends little at a time, in bytes.
pub const SMALL_INPUT: usize = 768;

/// The input of a client that has filled the small one, in bytes. The longest head of a request fits
/// in it.
pub const LARGE_INPUT: usize = 17 * 1024;

/// How long the memory of a large message waits for another one.
const SPARE_TTL: Duration = Duration::from_millis(100);

/// What comes from a client.
pub struct Incoming {
    pub session: Session,
    timeouts: Timeouts,
    input: Buffer,
    /// How much of the input was processed, in bytes.
    consumed: usize,
    now: Duration,
    silence: Silence,
    /// When a message in pieces was complete. From then on it is checked every [`SPARE_TTL`] whether its
    /// memory is still spare.
    spare_since: Option<Duration>,
    progress: Option<Progress>,
    /// Decodes each frame as well, if somebody wants to see them.
    trace: Option<Box<Inbound>>,
}

/// An event, and what it is of.
pub struct Next<'i> {
    pub event: Event<'i>,
    pub session: &'i mut Session,
    /// Its frames, if they are traced.
    pub frames: Frames,
}

/// What the client's silence leads to.
#[derive(Clone, Copy)]
enum Silence {
    /// A ping.
    Quiet { since: Duration },
    /// The end, unless any byte comes.
    Pinged { since: Duration },
    /// The end, whatever comes but the answer to the server's close frame.
    Closing { until: Duration },
}

/// How much had come of an unfinished message, and for how long more was waited for since then.
#[derive(Clone, Copy)]
struct Progress {
    bytes: usize,
    time: Duration,
}

/// What is to be sent because of the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Ping,
    /// The close frame of the session.
    Close,
}

impl Incoming {
    /// What comes from a client whose WebSocket opens at `now`, beginning with what `input` holds. A message
    /// may have `max_message_size` bytes, and may be compressed if `deflate` was agreed.
    // In a box and not inlined, so that the stack of a client's thread stays small.
    #[inline(never)]
    pub fn new(
        max_message_size: usize,
        timeouts: Timeouts,
        input: Buffer,
        budget: &Arc<Budget>,
        deflate: Option<PerMessageDeflate>,
        now: Duration,
    ) -> Box<Self> {
        Box::new(Incoming {
            session: Session::new(max_message_size, Arc::clone(budget), deflate),
            timeouts,
            input,
            consumed: 0,
            now,
            silence: Silence::Quiet { since: now },
            spare_since: None,
            progress: None,
            trace: None,
        })
    }

    /// The next event in the input, until there is no more.
    pub fn next(&mut self) -> Option<Next<'_>> {
        let mut unread = &mut self.input.filled_mut()[self.consumed..];
        let len = unread.len();
        let event = self.session.next(&mut unread);
        self.consumed += len - unread.len();
        let Some(event) = event else {
            if let Some(trace) = &mut self.trace {
                trace.trim();
            }
            return None;
        };
        if let Event::Assembled(_) | Event::Inflated(..) = event {
            (self.spare_since, self.progress) = (Some(self.now), None);
        }
        let frames = self.trace.as_mut().map_or(Frames::default(), |trace| trace.take(&event));
        Some(Next { event, session: &mut self.session, frames })
    }

    /// The session, the input that was not processed, and how much was.
    pub fn unread(&mut self) -> (&mut Session, &mut [u8], &mut usize) {
        let unread = &mut self.input.filled_mut()[self.consumed..];
        (&mut self.session, unread, &mut self.consumed)
    }

    /// Traces each frame from now on.
    pub fn trace(&mut self) {
        let mut trace = Box::<Inbound>::default();
        trace.received(&self.input.filled()[self.consumed..], self.now);
        self.trace = Some(trace);
    }

    pub fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// The last `len` bytes that were processed.
    pub fn processed(&self, len: usize) -> &[u8] {
        &self.input.filled()[self.consumed - len..self.consumed]
    }

    /// Records that a message in pieces is complete.
    pub fn assembled(&mut self) {
        self.spare_since = Some(self.now);
        self.progress = None;
    }

    /// Closes if an unfinished message has not grown as it has to: it holds memory of the budget.
    pub fn check_progress(&mut self) -> Option<Due> {
        let Some(bytes) = self.session.unfinished() else {
            self.progress = None;
            return None;
        };
        let progress = self.progress.get_or_insert(Progress { bytes, time: Duration::ZERO });
        if bytes >= progress.bytes + MIN_PROGRESS {
            *progress = Progress { bytes, time: Duration::ZERO };
        }
        (progress.time >= self.timeouts.write).then(|| self.close(NO_PROGRESS))
    }

    /// Begins the closing handshake by `close`.
    pub fn close(&mut self, close: CloseFrame) -> Due {
        self.progress = None;
        self.session.close(close);
        Due::Close
    }

    /// Records that the server's close frame leaves at `now`. The answer has until the close timeout.
    pub fn sent_close(&mut self, now: Duration) {
        self.session.release();
        self.silence = Silence::Closing { until: now + self.timeouts.close };
    }

    /// Whether the server's close frame has left.
    pub fn has_sent_close(&self) -> bool {
        matches!(self.silence, Silence::Closing { .. })
    }

    /// Whether nothing more is waited for at `now`: the closing handshake is complete, or had its time.
    pub fn is_over(&self, now: Duration) -> bool {
        let is_late = matches!(self.silence, Silence::Closing { until } if now >= until);
        is_late || self.session.closed().is_some_and(Close::is_complete)
    }

    /// How long to wait from `now` for more bytes. `None` for ever.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        let until = [self.end_of_silence(), self.next_release()];
        until.into_iter().flatten().min().map(|until| until.saturating_sub(now))
    }

    /// When the client will have been silent for too long.
    pub fn end_of_silence(&self) -> Option<Duration> {
        match self.silence {
            Silence::Quiet { since } => {
                self.timeouts.ping_interval.map(|interval| since + interval)
            }
            Silence::Pinged { since } => Some(since + self.timeouts.ping),
            Silence::Closing { until } => Some(until),
        }
    }

    /// When it is to be checked whether memory is held for too long.
    pub fn next_release(&self) -> Option<Duration> {
        let progress = self
            .progress
            .map(|Progress { time, .. }| self.part().min(self.timeouts.write.saturating_sub(time)));
        let spare = self.spare_since.map(|_| SPARE_TTL);
        Some(self.now + [progress, spare].into_iter().flatten().min()?)
    }

    /// Where the next bytes go: after the input, or directly to a large message.
    pub fn input(&mut self) -> &mut [u8] {
        if self.session.is_missing_more_than(self.input.capacity()) {
            return self.session.spare_mut();
        }
        self.compact();
        self.input.spare_mut()
    }

    /// Takes the first `bytes` of the [`input`](Self::input), which came at `now`.
    pub fn received(&mut self, bytes: usize, now: Duration) {
        self.advance(now);
        if let Silence::Quiet { .. } | Silence::Pinged { .. } = self.silence {
            self.silence = Silence::Quiet { since: now };
        }
        if self.session.is_missing_more_than(self.input.capacity()) {
            if let Some(trace) = &mut self.trace {
                trace.received(&self.session.spare_mut()[..bytes], now);
            }
            self.session.received(bytes);
        } else {
            if let Some(trace) = &mut self.trace {
                trace.received(&self.input.spare_mut()[..bytes], now);
            }
            self.input.advance(bytes);
            if self.input.spare_mut().is_empty() {
                // So small a buffer has no map that the system could refuse.
                let _ = self.input.reserve(LARGE_INPUT);
            }
        }
        // Otherwise a client that sends little holds it for ever.
        if self.session.holds_spare() {
            self.release_spare();
        }
    }

    /// Takes note that nothing came until `now`.
    pub fn waited(&mut self, now: Duration) -> Option<Due> {
        self.advance(now);
        self.release_spare();
        match self.silence {
            Silence::Quiet { since } => {
                let interval = self.timeouts.ping_interval?;
                (now >= since + interval).then(|| {
                    self.release_all();
                    self.silence = Silence::Pinged { since: now };
                    Due::Ping
                })
            }
            Silence::Pinged { since } => {
                (now >= since + self.timeouts.ping).then(|| self.close(PING_TIMEOUT))
            }
            Silence::Closing { .. } => None,
        }
    }

    /// Lets `time` pass in which the client could not be heard, so that it was not silent.
    pub fn excuse(&mut self, time: Duration) {
        if let Silence::Quiet { since } | Silence::Pinged { since } = &mut self.silence {
            *since += time;
        }
    }

    fn advance(&mut self, now: Duration) {
        let part = self.part();
        if let Some(progress) = &mut self.progress {
            // More than a part was not spent waiting for the peer: the process was suspended, or it sent.
            progress.time += now.saturating_sub(self.now).min(part);
        }
        self.now = now;
    }

    fn part(&self) -> Duration {
        self.timeouts.write / WRITE_TIMEOUT_PARTS
    }

    /// Gives up what was kept for another large message, once none came in time.
    fn release_spare(&mut self) {
        if self.spare_since.is_some_and(|since| self.now >= since + SPARE_TTL) {
            self.session.release();
            self.spare_since = None;
        }
    }

    /// Gives up whatever a silent client does not need.
    fn release_all(&mut self) {
        self.session.release();
        self.session.release_deflater();
        self.compact();
        self.input.shrink(SMALL_INPUT);
    }

    /// Moves what was not processed, less than a control frame, to the front of the input.
    fn compact(&mut self) {
        let end = self.input.filled().len();
        self.input.keep(mem::take(&mut self.consumed)..end);
    }
}
