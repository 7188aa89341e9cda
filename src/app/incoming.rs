//! The receiving side of an open WebSocket: the input, the session that decodes it, and the deadlines.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::app::settings::{MAX_LATENESS, MIN_PROGRESS, Timeouts, WRITE_TIMEOUT_PARTS};
use crate::app::trace::{Frames, Inbound};
use crate::buffer::{Budget, Buffer, UNMETERED};
use crate::websocket::close::{CloseFrame, NO_PROGRESS, PING_TIMEOUT};
use crate::websocket::deflate::PerMessageDeflate;
use crate::websocket::frame::MAX_HEADER_LEN;
use crate::websocket::session::{Close, Event, Session};

/// The input buffer of a client that sends little at a time, in bytes.
pub const SMALL_INPUT: usize = 256;

/// The input buffer of a client that has filled the small one, in bytes. It fits the longest request
/// head.
pub const LARGE_INPUT: usize = 17 * 1024;

/// The input buffer of a client that sends large messages, in bytes. It holds one of [`UNMETERED`] bytes.
const MAX_INPUT: usize = UNMETERED + MAX_HEADER_LEN;

/// How long the memory of a large message is kept for another one.
const SPARE_TTL: Duration = Duration::from_millis(100);

/// The receiving side of a client's WebSocket.
pub struct Incoming {
    pub session: Session,
    timeouts: Timeouts,
    input: Buffer,
    /// The bytes of `input` that were processed.
    consumed: usize,
    now: Duration,
    silence: Silence,
    /// The time at which a message in pieces was complete. Its memory is checked every [`SPARE_TTL`]
    /// from then on, and released once it is spare.
    spare_since: Option<Duration>,
    progress: Option<Progress>,
    /// Decodes the frames for the log or for the client.
    trace: Option<Box<Inbound>>,
}

/// An event, with its session and its frames.
pub struct Next<'i> {
    pub event: Event<'i>,
    pub session: &'i mut Session,
    /// Its frames, if they are traced.
    // Boxed, since few are traced.
    pub frames: Option<Box<Frames>>,
}

/// The consequence of the client's silence.
#[derive(Clone, Copy)]
enum Silence {
    /// Next is a ping.
    Quiet { since: Duration },
    /// Next is the end, unless a byte arrives.
    Pinged { since: Duration },
    /// Next is the end. Only the answer to the server's close frame prevents it.
    Closing { until: Duration },
}

/// The bytes of an unfinished message at the last check, and the time spent waiting for more since then.
#[derive(Clone, Copy)]
struct Progress {
    bytes: usize,
    time: Duration,
}

/// A frame that a timeout demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Ping,
    /// The session's close frame.
    Close,
}

impl Incoming {
    /// The receiving side of a WebSocket that opens at `now`, whose first bytes are in `input`. A message
    /// may have `max_message_size` bytes, and may be compressed if `deflate` was agreed.
    // In a box and not inlined, so that the stack of a client's thread stays small.
    #[inline(never)]
    pub fn new(
        max_message_size: usize,
        timeouts: Timeouts,
        input: Buffer,
        budget: &Arc<Budget>,
        deflate: Option<Box<PerMessageDeflate>>,
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

    /// The next event in the input. `None` if more bytes are needed.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "to return the event through memory is slower")]
    pub fn next_event(&mut self) -> Option<Next<'_>> {
        let room = self.input.granted();
        let mut unread = &mut self.input.filled_mut()[self.consumed..];
        let len = unread.len();
        let event = self.session.next(&mut unread, room);
        self.consumed += len - unread.len();
        let Some(event) = event else {
            if let Some(trace) = &mut self.trace {
                trace.catch_up(b"", self.now);
                trace.trim();
            }
            return None;
        };
        match event {
            // A message in pieces is complete.
            Event::Assembled(_) | Event::Inflated(..) => {
                (self.spare_since, self.progress) = (Some(self.now), None);
            }
            Event::InInput(_, payload) => {
                self.progress = None;
                if payload.len() > LARGE_INPUT {
                    self.spare_since = Some(self.now);
                }
            }
            Event::Ping(_) | Event::Pong(_) | Event::Close => {}
        }
        let frames = match &mut self.trace {
            None => None,
            trace => take_frames(trace, &event, &self.session, unread.len(), self.now),
        };
        Some(Next { event, session: &mut self.session, frames })
    }

    /// Takes the traced frames that are skipped, since the server has closed.
    pub fn skipped(&mut self) -> Frames {
        let trace = self.trace.as_mut().filter(|_| self.session.closed().is_some());
        trace.map_or_else(Frames::default, |trace| trace.take_waiting())
    }

    /// The session, the unprocessed input, and the count of processed bytes.
    pub fn unread(&mut self) -> (&mut Session, &mut [u8], &mut usize) {
        let unread = &mut self.input.filled_mut()[self.consumed..];
        (&mut self.session, unread, &mut self.consumed)
    }

    /// Traces each frame from now on.
    pub fn trace(&mut self) {
        let mut trace = Box::<Inbound>::default();
        trace.received(&self.input.filled()[self.consumed..]);
        self.trace = Some(trace);
    }

    /// The last `len` bytes that were processed.
    pub fn processed(&self, len: usize) -> &[u8] {
        &self.input.filled()[self.consumed - len..self.consumed]
    }

    /// Closes if an unfinished message grows too slowly, since it holds memory of the budget.
    #[inline]
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

    /// Begins the closing handshake with `close`.
    pub fn close(&mut self, close: CloseFrame) -> Due {
        self.progress = None;
        self.session.close(close);
        // A script may hold back the close frame.
        self.session.release();
        Due::Close
    }

    /// Records that the server's close frame is sent at `now`. The close timeout of the answer starts
    /// then.
    pub fn sent_close(&mut self, now: Duration) {
        self.session.release();
        self.silence = Silence::Closing { until: now + self.timeouts.close };
    }

    /// Whether the server's close frame was sent.
    pub fn has_sent_close(&self) -> bool {
        matches!(self.silence, Silence::Closing { .. })
    }

    /// Whether the connection can end at `now`: the closing handshake is complete, or has timed out.
    pub fn is_over(&self, now: Duration) -> bool {
        let is_late = matches!(self.silence, Silence::Closing { until } if now >= until);
        is_late || self.session.closed().is_some_and(Close::is_complete)
    }

    /// How long to wait for more bytes from `now` on. `None` means forever.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        let until = match (self.end_of_silence(), self.next_release()) {
            (Some(silence), Some(release)) => silence.min(release),
            (silence, release) => silence.or(release)?,
        };
        Some(until.saturating_sub(now))
    }

    /// The time at which the client's silence exceeds its limit.
    pub fn end_of_silence(&self) -> Option<Duration> {
        match self.silence {
            Silence::Quiet { since } => {
                self.timeouts.ping_interval.map(|interval| since + interval)
            }
            Silence::Pinged { since } => Some(since + self.timeouts.ping),
            Silence::Closing { until } => Some(until),
        }
    }

    /// The time of the next check for spare memory.
    pub fn next_release(&self) -> Option<Duration> {
        let progress = self
            .progress
            .map(|Progress { time, .. }| self.part().min(self.timeouts.write.saturating_sub(time)));
        let spare = self.spare_since.map(|_| SPARE_TTL);
        Some(self.now + [progress, spare].into_iter().flatten().min()?)
    }

    /// The buffer for the next received bytes: the input, or a large message itself.
    pub fn input(&mut self) -> &mut [u8] {
        if self.session.is_in_pieces() {
            // A client holds a large message or a large input, not both.
            self.shrink_input(LARGE_INPUT);
        }
        if self.session.is_missing_more_than(self.input.capacity()) {
            return self.session.spare_mut();
        }
        self.compact();
        self.input.spare_mut()
    }

    /// Processes the first `bytes` of [`input`](Self::input), which were received at `now`.
    pub fn received(&mut self, bytes: usize, now: Duration) {
        self.advance(now);
        if let Silence::Quiet { .. } | Silence::Pinged { .. } = self.silence {
            self.silence = Silence::Quiet { since: now };
        }
        if self.session.is_missing_more_than(self.input.capacity()) {
            if let Some(trace) = &mut self.trace {
                trace.catch_up(&self.session.spare_mut()[..bytes], now);
            }
            self.session.received(bytes);
        } else {
            if let Some(trace) = &mut self.trace {
                trace.received(&self.input.spare_mut()[..bytes]);
            }
            self.input.advance(bytes);
            if self.input.spare_mut().is_empty() {
                // A buffer this small has no memory map, so the system can't refuse it.
                let _ = self.input.reserve(LARGE_INPUT);
            }
        }
        if self.session.capacity() > self.input.capacity() || self.input.capacity() > LARGE_INPUT {
            self.use_spare();
        }
    }

    /// Processes the memory that is kept for another large message.
    #[cold]
    fn use_spare(&mut self) {
        if self.session.is_in_pieces() {
            return;
        }
        let len = self.session.assembled().len() + MAX_HEADER_LEN;
        if self.session.capacity() > UNMETERED || self.input.capacity() > LARGE_INPUT {
            // Otherwise a client that sends little would hold it forever.
            self.release_spare();
        } else if len > self.input.capacity() && !self.session.is_compressible() {
            // The next message is probably as large. The input will hold it whole, so that it is
            // received by one call and not copied.
            self.session.release();
            let capacity = if len > LARGE_INPUT { MAX_INPUT } else { LARGE_INPUT };
            // Without this memory, messages are assembled as before.
            let _ = self.input.reserve(capacity).and_then(|()| self.input.charge_ahead());
        }
    }

    /// Records that nothing was received until `now`.
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
            Silence::Pinged { since } if now > since + self.timeouts.ping + MAX_LATENESS => {
                self.silence = Silence::Pinged { since: now };
                None
            }
            Silence::Pinged { since } => {
                (now >= since + self.timeouts.ping).then(|| self.close(PING_TIMEOUT))
            }
            Silence::Closing { .. } => None,
        }
    }

    /// Excludes `time` from the client's silence, since nothing was received during it.
    pub fn excuse(&mut self, time: Duration) {
        if let Silence::Quiet { since } | Silence::Pinged { since } = &mut self.silence {
            *since += time;
        }
    }

    fn advance(&mut self, now: Duration) {
        let part = self.part();
        if let Some(progress) = &mut self.progress {
            // A longer time was not spent waiting for the peer: the process was suspended, or was
            // sending.
            progress.time += now.saturating_sub(self.now).min(part);
        }
        self.now = now;
    }

    fn part(&self) -> Duration {
        self.timeouts.write / WRITE_TIMEOUT_PARTS
    }

    /// Releases the memory kept for another large message if none arrived in time.
    fn release_spare(&mut self) {
        if self.spare_since.is_some_and(|since| self.now >= since + SPARE_TTL) {
            self.session.release();
            self.shrink_input(LARGE_INPUT);
            // An unfinished frame still needs a large input.
            self.spare_since = (self.input.capacity() > LARGE_INPUT).then_some(self.now);
        }
    }

    /// Releases all memory that a silent client does not need.
    fn release_all(&mut self) {
        self.session.release();
        self.shrink_input(SMALL_INPUT);
    }

    /// Lowers the capacity of the input to what its bytes and their frame need, or to `capacity`.
    fn shrink_input(&mut self, capacity: usize) {
        if self.input.capacity() <= capacity {
            return;
        }
        self.compact();
        let capacity = capacity.max(self.session.len_in_input());
        // Charged memory never moves.
        if capacity.max(self.input.filled().len()) < UNMETERED {
            self.input.shrink_spare(capacity);
        }
    }

    /// Moves the unprocessed bytes to the front of the input.
    fn compact(&mut self) {
        if self.consumed > 0 {
            let end = self.input.filled().len();
            self.input.keep(mem::take(&mut self.consumed)..end);
        }
    }
}

/// Takes the traced frames of `event`, after which `unread` bytes are left in the input, at `now`.
#[cold]
fn take_frames(
    trace: &mut Option<Box<Inbound>>,
    event: &Event,
    session: &Session,
    unread: usize,
    now: Duration,
) -> Option<Box<Frames>> {
    let frames = trace.as_mut()?.take(event, session, unread, now);
    if session.closed().is_some_and(Close::is_complete) {
        // Whatever follows is no frame, or is ignored.
        *trace = None;
    }
    Some(Box::new(frames))
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);
    const TIMEOUTS: Timeouts = Timeouts {
        handshake: INTERVAL,
        ping_interval: Some(INTERVAL),
        ping: INTERVAL,
        write: INTERVAL,
        close: INTERVAL,
    };

    #[test]
    fn a_client_has_its_time_for_a_pong_after_the_process_was_suspended() {
        let budget = Arc::new(Budget::new(0));
        let input = Buffer::new(Arc::clone(&budget));
        let mut incoming = Incoming::new(0, TIMEOUTS, input, &budget, None, Duration::ZERO);
        for (seconds, due) in [(1, Some(Due::Ping)), (60, None), (60, None), (61, Some(Due::Close))]
        {
            assert_eq!(incoming.waited(seconds * INTERVAL), due, "after {seconds} s");
        }
    }

    #[test]
    fn a_ping_that_is_due_leaves_the_unprocessed_input_whole() {
        let budget = Arc::new(Budget::new(0));
        let mut input = Buffer::new(Arc::clone(&budget));
        input.reserve(LARGE_INPUT).unwrap();
        let mut incoming = Incoming::new(0, TIMEOUTS, input, &budget, None, Duration::ZERO);
        let pongs = [0x8A, 0x80, 0, 0, 0, 0].repeat(1000);
        incoming.input()[..pongs.len()].copy_from_slice(&pongs);
        incoming.received(pongs.len(), Duration::ZERO);
        assert!(incoming.next_event().is_some());
        assert_eq!(incoming.waited(INTERVAL), Some(Due::Ping));
        assert!(!incoming.input().is_empty());
        assert_eq!(iter::from_fn(|| incoming.next_event().map(drop)).count(), 999);
    }
}
