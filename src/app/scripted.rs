//! A conversation that follows a [`Script`].
//!
//! All output waits in a queue until it is due: replies for their latency, unrequested messages for
//! their interval. Pongs and the close frame are due at once. So the order of the output depends only on
//! times, not on how the input was split. A reply that drips is written piece by piece, and everything
//! after it waits.
//!
//! ```text
//!              ┌──────────┐ events ┌────────────────┐  when due, whole or in pieces
//!   input ───▶ │ Incoming │ ─────▶ │ queue, by time │ ─────────────────────────────▶ output
//!              └──────────┘        └────────────────┘
//! ```

use std::collections::VecDeque;
use std::iter;
use std::mem;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use log::{Level, log_enabled};

use crate::app::behavior::{After, Fault, HANG, MAX_FRAGMENTS, MAX_PIECES, Pongs, Pushes, Script};
use crate::app::conversation::log_event;
use crate::app::echo::{self, ZERO_COPY_MIN};
use crate::app::end::End;
use crate::app::incoming::{Due, Incoming, Next};
use crate::app::service::Service;
use crate::app::step::Step;
use crate::app::trace::{Frames, Reader, Side};
use crate::buffer::{Budget, Buffer, OverBudget};
use crate::websocket::close::{OVER_BUDGET, STOPPING};
use crate::websocket::frame::{self, Opcode};
use crate::websocket::message::Encoding;
use crate::websocket::session::Event;

/// While the queue has this many bytes, nothing more is received.
const MAX_QUEUED: usize = 16 * 1024;

/// While the queue has this many entries, nothing more is received.
const MAX_ENTRIES: usize = 256;

/// While the queue takes longer than this to drip, nothing more is received. It is well below the write
/// timeout, which limits the client's unfinished message during that time.
const MAX_DRIP: Duration = Duration::from_secs(10);

/// The output that is gathered for one write, in bytes.
const FLUSH: usize = 16 * 1024;

/// The output buffer that a silent client keeps, in bytes.
const SMALL_OUTPUT: usize = 4 * 1024;

pub struct Scripted {
    /// The client's number in the log.
    client: u64,
    pub incoming: Box<Incoming>,
    script: Box<Script>,
    prefix: String,
    budget: Arc<Budget>,
    opened: Duration,
    now: Duration,
    /// Ordered by the time at which they are due.
    queue: VecDeque<Entry>,
    /// The entry that is being sent, or that the last step sent.
    current: Option<Current>,
    /// Output for the next write.
    output: Vec<u8>,
    /// The output that the last step returned.
    sending: Vec<u8>,
    pushed: u32,
    /// The number of replies that were sent.
    replies: u32,
    state: State,
    traced: Option<Box<Traced>>,
}

/// Frames that a tracing script has not reported yet.
struct Traced {
    reader: Reader,
    /// The server's frames.
    sent: Frames,
    /// The client's frames that began the closing handshake.
    closing: Frames,
}

#[derive(Clone, Copy)]
enum State {
    Open,
    Hanging { until: Duration, is_inside_reply: bool },
    EndingStream,
    Resetting,
}

impl Scripted {
    /// Runs `script` for the client with the number `client` in the log, from `opened` on. `response`,
    /// the 101, is sent first, together with what is due at once.
    // In a box and not inlined, so that the stack of a client's thread stays small.
    #[inline(never)]
    pub fn new(
        Service { settings, budget, .. }: &Service,
        client: u64,
        mut script: Box<Script>,
        incoming: Box<Incoming>,
        response: Vec<u8>,
        opened: Duration,
    ) -> Box<Self> {
        let prefix = script.prefix.take().unwrap_or_else(|| settings.prefix.clone());
        let traced = script.trace.then(|| {
            let reader = Reader::new(Side::Server);
            Box::new(Traced { reader, sent: Frames::default(), closing: Frames::default() })
        });
        Box::new(Scripted {
            client,
            incoming,
            script,
            prefix,
            budget: Arc::clone(budget),
            opened,
            now: opened,
            queue: VecDeque::new(),
            current: None,
            output: response,
            sending: Vec::new(),
            pushed: 0,
            replies: 0,
            state: State::Open,
            traced,
        })
    }

    /// Sends `dump` as the first message, together with the 101.
    pub fn begin_with(&mut self, dump: &str) {
        self.write(&text(dump));
    }

    /// Returns the next step at `now`. Announces compressed replies to `logged`, which decodes the steps.
    pub fn next(&mut self, now: Duration, logged: Option<&mut Reader>) -> Step<'_> {
        self.advance(now);
        if let Some(Current { entry, .. }) = self.current.take_if(|current| current.is_sent()) {
            self.end_entry(entry);
        }
        if let State::Open = self.state {
            self.push();
            self.process_events(logged);
            self.gather();
        }
        match self.state {
            State::Open => self.step(),
            State::EndingStream => Step::SendLast(self.take_output()),
            State::Hanging { .. } | State::Resetting if !self.output.is_empty() => {
                Step::Send { head: self.take_output(), payload: b"" }
            }
            State::Hanging { until, .. } if now < until => Step::Pause(until.saturating_sub(now)),
            State::Hanging { .. } | State::Resetting => {
                self.state = State::Resetting;
                Step::Reset
            }
        }
    }

    fn step(&mut self) -> Step<'_> {
        if let Some(current) = &mut self.current {
            let piece = current.take(self.now, self.script.drip);
            if !piece.is_empty() {
                trace(&mut self.traced, &current.frames()[piece.clone()], self.now);
                self.take_output();
                let payload = self.current.as_ref().map_or(&b""[..], |it| &it.frames()[piece]);
                return Step::Send { head: &self.sending, payload };
            }
        } else if let Some(close) = self.incoming.session.closed()
            && self.queue.is_empty()
        {
            let has_sent = self.incoming.has_sent_close();
            if !has_sent {
                let mut frame = Vec::new();
                close.frame().encode(&mut frame);
                // A trace of all frames precedes the close frame, after which there is nothing.
                trace(&mut self.traced, &frame, self.now);
                let closing = self.traced.as_mut().map(|traced| mem::take(&mut traced.closing));
                self.send_trace(closing);
                self.output.append(&mut frame);
            }
            if self.incoming.is_over(self.now) {
                return Step::SendLast(self.take_output());
            }
            if !has_sent {
                self.incoming.sent_close(self.now);
                // Nothing may follow the close frame.
                self.script.fault = None;
                return Step::SendClose(self.take_output());
            }
        }
        if !self.output.is_empty() {
            return Step::Send { head: self.take_output(), payload: b"" };
        }
        match self.wait() {
            Some(wait) if self.is_full() => Step::Pause(wait),
            wait => Step::Receive(wait),
        }
    }

    /// Appends frames to the output.
    fn write(&mut self, frames: &[u8]) {
        self.output.extend_from_slice(frames);
        trace(&mut self.traced, frames, self.now);
    }

    fn take_output(&mut self) -> &[u8] {
        self.sending.clear();
        self.sending.shrink_to(SMALL_OUTPUT);
        mem::swap(&mut self.sending, &mut self.output);
        &self.sending
    }

    /// How long to wait for the next event. `None` means forever.
    fn wait(&self) -> Option<Duration> {
        let is_inside = self.is_inside_reply();
        let fault = match &self.script.fault {
            Some((_, Fault::WrongFrame(_))) if is_inside => None,
            Some((After::Time(time), _)) => Some(self.opened + *time),
            _ => None,
        };
        let next = match &self.current {
            Some(current) => Some(current.next_due(self.script.drip)),
            None => self.queue.front().map(|entry| entry.due),
        };
        let push = self.next_push().filter(|_| !self.is_full());
        let silence = self.incoming.end_of_silence().filter(|_| !self.excuses_silence());
        let events = [next, fault, push, silence, self.incoming.next_release()];
        Some(events.into_iter().flatten().min()?.saturating_sub(self.now))
    }

    /// Processes the first `bytes` of the input, which were received at `now`.
    pub fn received(&mut self, bytes: usize, now: Duration) {
        self.advance(now);
        self.incoming.received(bytes, now);
    }

    /// Records that nothing was received until `now`.
    pub fn waited(&mut self, now: Duration) {
        self.advance(now);
        if let Some(Due::Ping) = self.incoming.waited(now) {
            let ping = fragments(&self.budget, None, Opcode::Ping as u8, [b"", b""]);
            self.add(EntryKind::Control, now, ping, None);
        }
    }

    /// Begins the closing handshake because the server stops. Queued output is sent first.
    pub fn stop(&mut self) {
        if let State::Hanging { is_inside_reply, .. } = self.state {
            self.state = if is_inside_reply { State::Resetting } else { State::Open };
        }
        if !self.is_closed() {
            self.incoming.close(STOPPING);
        }
        self.script.fault = None;
        self.queue.iter_mut().for_each(|entry| entry.due = Duration::ZERO);
        self.script.drip = Duration::ZERO;
    }

    /// The number of answered messages.
    pub fn messages(&self) -> u64 {
        self.replies.into()
    }

    /// How it ended, once the last step was taken.
    pub fn end(&self) -> End {
        match self.state {
            // A client may leave while the server hangs.
            State::Open | State::Hanging { .. } => End::of(&self.incoming.session),
            State::EndingStream => End::EndedStream,
            State::Resetting => End::Reset,
        }
    }

    fn advance(&mut self, now: Duration) {
        if self.excuses_silence() {
            self.incoming.excuse(now.saturating_sub(self.now));
        }
        self.now = now;
    }

    /// Whether the client's silence is excused: a ping can't be sent inside a reply, and a pong can't be
    /// received while nothing is received.
    fn excuses_silence(&self) -> bool {
        self.is_inside_reply() || self.is_full() || !matches!(self.state, State::Open)
    }

    fn is_inside_reply(&self) -> bool {
        self.current.as_ref().is_some_and(|current| !current.is_sent())
    }

    fn is_full(&self) -> bool {
        let current = self.current.as_ref().map_or(0, Current::len);
        current + self.queue.iter().map(Entry::len).sum::<usize>() >= MAX_QUEUED
            || self.queue.len() >= MAX_ENTRIES
            || self.script.drip * replies(&self.queue) > MAX_DRIP
    }

    /// Whether the fault follows a reply that is due. What the client sent after it is not processed
    /// before, as if it had arrived later.
    fn is_fault_next(&self) -> bool {
        let Some((After::Replies(after), _)) = self.script.fault else { return false };
        let due = self.queue.iter().take_while(|entry| entry.due <= self.now);
        let at_once = if self.script.drip.is_zero() { replies(due) } else { 0 };
        self.replies.saturating_add(at_once) >= after
    }

    fn is_closed(&self) -> bool {
        self.incoming.session.closed().is_some()
    }

    /// The time at which the next unrequested message is due.
    fn next_push(&self) -> Option<Duration> {
        let Pushes { count, interval, .. } = self.script.pushes;
        let is_left = self.pushed < count && !self.is_closed();
        is_left.then(|| self.opened + interval * (self.pushed + 1))
    }

    fn push(&mut self) {
        while let Some(due) = self.next_push().filter(|due| *due <= self.now)
            && !self.is_full()
        {
            self.pushed += 1;
            let mut message = self.pushed.to_string();
            let padding = self.script.pushes.bytes.saturating_sub(message.len());
            message.extend(iter::repeat_n(' ', padding));
            let message =
                fragments(&self.budget, None, Opcode::Text as u8, [message.as_bytes(), b""]);
            self.add(EntryKind::Push, due, message, None);
        }
    }

    /// Queues the answers to the input.
    fn process_events(&mut self, mut logged: Option<&mut Reader>) {
        while !self.is_full()
            && !self.is_fault_next()
            && self.process_event(logged.as_deref_mut()).is_some()
        {}
        if logged.is_some() {
            self.incoming.skipped().log(self.client);
        }
        self.incoming.check_progress();
    }

    /// Queues the answer to the next event, if there is one.
    fn process_event(&mut self, logged: Option<&mut Reader>) -> Option<()> {
        let Next { event, session, frames: seen } = self.incoming.next_event()?;
        if log_enabled!(Level::Debug) {
            log_event(self.client, &event, session, seen.as_deref());
        }
        let seen = self.traced.as_ref().and(seen).map(|seen| *seen);
        let shaped = |opcode, rsv, parts| {
            fragments(&self.budget, self.script.fragment, opcode as u8 | rsv, parts)
        };
        let reply = |kind, payload| {
            let (opcode, prefix) = echo::parts(kind, &self.prefix);
            shaped(opcode, 0, [prefix, payload])
        };
        let frames = match event {
            Event::InInput(kind, payload) => reply(kind, payload),
            Event::Assembled(kind) => reply(kind, session.assembled()),
            Event::Inflated(kind, inflated) => {
                let (opcode, prefix) = echo::parts(kind, &self.prefix);
                let len = prefix.len() + inflated.message().len();
                match session.deflate(prefix, *inflated) {
                    Encoding::Deflated => {
                        // Replies are sent in this order.
                        let traced = self.traced.as_mut().map(|traced| &mut traced.reader);
                        traced.into_iter().chain(logged).for_each(|reader| reader.expect(len));
                        shaped(opcode, frame::RSV1, [b"", session.assembled()])
                    }
                    // A reply may always be sent uncompressed.
                    Encoding::Plain => reply(kind, session.assembled()),
                }
            }
            Event::Ping(payload) if self.script.pongs == Pongs::On => {
                let pong = fragments(&self.budget, None, Opcode::Pong as u8, [payload, b""]);
                self.add(EntryKind::Control, self.now, pong, seen);
                return Some(());
            }
            Event::Ping(_) | Event::Pong(_) => {
                let nothing = Buffer::new(Arc::clone(&self.budget));
                self.add(EntryKind::Control, self.now, Ok(nothing), seen);
                return Some(());
            }
            Event::Close => {
                if let (Some(traced), Some(seen)) = (&mut self.traced, seen) {
                    traced.closing = seen;
                }
                // The next call skips the rest, since a full input could receive nothing.
                return Some(());
            }
        };
        let due = self.now + self.script.latency;
        self.add(EntryKind::Reply, due, frames, seen);
        Some(())
    }

    /// Queues frames that answer the frames in `seen`. Begins to close if there is no memory for them.
    fn add(
        &mut self,
        kind: EntryKind,
        due: Duration,
        frames: Result<Buffer, OverBudget>,
        seen: Option<Frames>,
    ) {
        match frames {
            // An entry without output could fill the queue, and leave it without another step.
            Ok(frames) if frames.filled().is_empty() && seen.is_none() => {}
            Ok(frames) => {
                let at = self.queue.partition_point(|other| other.due <= due);
                self.queue.insert(at, Entry { due, kind, frames, seen });
            }
            Err(OverBudget) => {
                self.incoming.close(OVER_BUDGET);
            }
        }
    }

    /// Records that an entry was sent.
    fn end_entry(&mut self, Entry { kind, seen, .. }: Entry) {
        if kind == EntryKind::Reply {
            self.replies = self.replies.saturating_add(1);
        }
        self.send_trace(seen);
    }

    /// Sends the client a message about its frames in `seen`, and the frames sent since the last such
    /// message.
    fn send_trace(&mut self, seen: Option<Frames>) {
        if let (Some(traced), Some(mut seen)) = (&mut self.traced, seen) {
            seen.append(&mut traced.sent);
            self.output.append(&mut text(&seen.json(self.opened)));
        }
    }

    /// Gathers the entries that are due, and triggers the fault at its place among them.
    fn gather(&mut self) {
        loop {
            self.fail();
            if !matches!(self.state, State::Open)
                || self.queue.front().is_none_or(|entry| entry.due > self.now)
                || self.current.is_some()
                || self.output.len() >= FLUSH
            {
                return;
            }
            let Some(entry) = self.queue.pop_front() else { return };
            let drips = entry.kind == EntryKind::Reply && !self.script.drip.is_zero();
            if drips || entry.frames.filled().len() >= ZERO_COPY_MIN {
                self.current = Some(Current { entry, begun: self.now, sent: 0 });
            } else {
                self.write(entry.frames.filled());
                self.end_entry(entry);
            }
        }
    }

    /// Triggers the fault if it is due.
    fn fail(&mut self) {
        let Some((after, fault)) = &self.script.fault else { return };
        let is_inside = self.is_inside_reply();
        let is_due = match *after {
            After::Replies(replies) => self.replies >= replies && !is_inside,
            After::Time(time) => self.now >= self.opened + time,
        };
        let has_to_wait = is_inside && matches!(fault, Fault::WrongFrame(_));
        // Unrequested messages that are due come before the fault, unless they wait for a reply.
        let first = self.queue.front().filter(|entry| entry.due <= self.now);
        let is_after_push = !is_inside && first.is_some_and(|entry| entry.kind == EntryKind::Push);
        if !is_due || has_to_wait || is_after_push {
            return;
        }
        let Some((_, fault)) = self.script.fault.take() else { return };
        match fault {
            Fault::WrongFrame(wrong) => {
                self.write(wrong.bytes);
                if let Some(traced) = &mut self.traced {
                    traced.sent.extend(traced.reader.end());
                }
            }
            Fault::Close(close) => {
                self.queue.clear();
                self.script.drip = Duration::ZERO;
                self.incoming.close(close);
            }
            Fault::EndStream => self.break_off(State::EndingStream),
            Fault::Reset => self.break_off(State::Resetting),
            Fault::Hang => {
                let until = self.now + HANG;
                self.break_off(State::Hanging { until, is_inside_reply: is_inside });
            }
        }
    }

    /// Sends the gathered output, and nothing after it.
    fn break_off(&mut self, state: State) {
        self.queue.clear();
        self.current = None;
        self.incoming.session.discard();
        self.state = state;
    }
}

/// Queued output: one or more whole frames.
struct Entry {
    due: Duration,
    kind: EntryKind,
    frames: Buffer,
    /// The client's frames that this entry answers, if they are traced.
    seen: Option<Frames>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum EntryKind {
    Reply,
    Control,
    /// An unrequested message.
    Push,
}

impl Entry {
    /// In bytes, with the memory of the frames that it answers.
    fn len(&self) -> usize {
        self.frames.filled().len() + self.seen.as_ref().map_or(0, Frames::memory)
    }
}

/// The number of replies among `entries`.
fn replies<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> u32 {
    entries.into_iter().filter(|entry| entry.kind == EntryKind::Reply).count() as u32
}

/// An entry that is sent without a copy, in pieces if it drips.
struct Current {
    entry: Entry,
    begun: Duration,
    /// The bytes that were sent.
    sent: usize,
}

impl Current {
    fn frames(&self) -> &[u8] {
        self.entry.frames.filled()
    }

    fn len(&self) -> usize {
        self.frames().len()
    }

    fn is_sent(&self) -> bool {
        self.sent == self.len()
    }

    /// Advances to `now`, and returns the range to send. A reply is sent over the time `drip`.
    fn take(&mut self, now: Duration, drip: Duration) -> Range<usize> {
        let due = self.due(now, drip);
        mem::replace(&mut self.sent, due)..due
    }

    /// The bytes that have to be sent by `now`. The last piece is due when `drip` has passed.
    fn due(&self, now: Duration, drip: Duration) -> usize {
        let (size, interval) = self.pieces(drip);
        if size == self.len() {
            return size;
        }
        let passed = now.saturating_sub(self.begun).as_nanos() / interval.as_nanos();
        self.len().min(size * (1 + passed.min(MAX_PIECES.into()) as usize))
    }

    fn next_due(&self, drip: Duration) -> Duration {
        let (size, interval) = self.pieces(drip);
        self.begun + interval * (self.sent / size) as u32
    }

    /// The size of each piece, in bytes, and the time between two.
    fn pieces(&self, drip: Duration) -> (usize, Duration) {
        let most = match self.entry.kind {
            EntryKind::Reply => drip.as_millis().clamp(1, MAX_PIECES.into()) as usize,
            EntryKind::Control | EntryKind::Push => 1,
        };
        let size = self.len().div_ceil(most);
        let after_first = self.len().div_ceil(size) - 1;
        (size, drip / after_first.max(1) as u32)
    }
}

/// Records frames that are sent at `now`.
fn trace(traced: &mut Option<Box<Traced>>, frames: &[u8], now: Duration) {
    if let Some(Traced { reader, sent, .. }) = traced.as_deref_mut() {
        sent.extend(reader.read(frames, now));
    }
}

/// The frame of a text message.
fn text(message: &str) -> Vec<u8> {
    let mut frame = Vec::with_capacity(10 + message.len());
    frame::encode_header(Opcode::Text, message.len(), &mut frame);
    frame.extend_from_slice(message.as_bytes());
    frame
}

/// A reply whose payload has two parts, in fragments of `size` bytes. The `first` byte has its opcode and
/// reserved bits.
fn fragments(
    budget: &Arc<Budget>,
    size: Option<usize>,
    mut first: u8,
    [mut one, mut two]: [&[u8]; 2],
) -> Result<Buffer, OverBudget> {
    let mut left = one.len() + two.len();
    let mut frames = Buffer::new(Arc::clone(budget));
    let count = size.map_or(1, |size| left.div_ceil(size).clamp(1, MAX_FRAGMENTS));
    frames.reserve(left + 10 * count)?;
    for number in 1..=count {
        let (len, fin) =
            if number < count { (size.unwrap_or(left), 0) } else { (left, frame::FIN) };
        left -= len;
        let mut header = Vec::with_capacity(10);
        frame::encode_raw_header(first | fin, len, &mut header);
        append(&mut frames, &header)?;
        let in_one = len.min(one.len());
        append(&mut frames, &one[..in_one])?;
        append(&mut frames, &two[..len - in_one])?;
        (one, two) = (&one[in_one..], &two[len - in_one..]);
        // Only the first fragment has the opcode and the bits of extensions (§5.4, RFC 7692 §6.1).
        first = 0;
    }
    Ok(frames)
}

fn append(buffer: &mut Buffer, mut bytes: &[u8]) -> Result<(), OverBudget> {
    while !bytes.is_empty() {
        if buffer.spare_mut().is_empty() {
            buffer.charge_ahead()?;
        }
        let spare = buffer.spare_mut();
        let len = spare.len().min(bytes.len());
        spare[..len].copy_from_slice(&bytes[..len]);
        buffer.advance(len);
        bytes = &bytes[len..];
    }
    Ok(())
}
