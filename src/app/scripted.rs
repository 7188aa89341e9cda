//! A conversation that follows a [`Script`], without a socket or a clock.
//!
//! It stands between a [`Conversation`] and its client: what the conversation sends is taken apart into
//! frames, and the replies among them are held until they are due, cut into fragments, and handed out
//! in pieces. What the server sends by itself goes between two replies. The conversation notices nothing
//! of it, so that all its rules hold for every behaviour.
//!
//! ```text
//!              ┌──────────────┐  replies  ┌──────┐
//!   input ───▶ │              │ ────────▶ │ Held │ ──┐  when due
//!              │ Conversation │           └──────┘   ├──────────▶ output
//!              │              │ ──────────▶ urgent ──┘  between two replies
//!              └──────────────┘  control frames
//! ```

use std::collections::VecDeque;
use std::mem;
use std::ops::Range;
use std::time::Duration;

use crate::app::behavior::{After, Fault, HANG, MAX_FRAGMENTS, MAX_PIECES, Pongs, Pushes, Script};
use crate::app::conversation::{Conversation, Output};
use crate::buffer::{Buffer, OverBudget};
use crate::websocket::close::{CloseFrame, OVER_BUDGET};
use crate::websocket::deflate::Sizes;
use crate::websocket::frame::{self, Opcode};
use crate::websocket::session::Close;

/// While so much waits to be sent, nothing more is received, in bytes.
const MAX_HELD: usize = 16 * 1024;

/// While so many batches of replies wait to be sent, nothing more is received.
const MAX_BATCHES: usize = 256;

/// What a silent client keeps of the memory for output and for replies, in bytes.
const SMALL_OUTPUT: usize = 4 * 1024;

/// What whoever drives a [`Scripted`] does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'c> {
    Send(&'c [u8]),
    /// Send, end the stream, and wait for the client to end its own. It is the last step.
    SendLast(&'c [u8]),
    /// Receive into [`Scripted::input`] for as long as this, or for ever.
    Receive(Option<Duration>),
    /// Wait for as long as this, or until the client has left, and receive nothing.
    Pause(Duration),
    /// Reset the connection. It is the last step.
    Reset,
}

/// A conversation that follows a script.
pub struct Scripted<'s> {
    conversation: Conversation<'s>,
    script: &'s Script,
    /// When the conversation was last told the time.
    told: Duration,
    now: Duration,
    /// How far the conversation's clock is behind.
    behind: Duration,
    /// Whole frames that do not wait as replies do.
    urgent: Vec<u8>,
    held: Held,
    /// The close frame, once there is one.
    close: Option<Vec<u8>>,
    pushed: u32,
    /// How many replies were sent.
    replies: u32,
    /// What has not gone wrong yet.
    fault: Option<&'s (After, Fault)>,
    state: State,
    output: Vec<u8>,
}

#[derive(Clone, Copy)]
enum State {
    Open,
    Hanging { until: Duration, stream: StreamAt },
    EndingStream,
    Resetting,
}

/// Where the output stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum StreamAt {
    FrameBoundary,
    InsideReply,
}

impl<'s> Scripted<'s> {
    /// Lets `conversation` follow `script`. What opens it, the 101 and maybe a first message, is sent with
    /// what follows at once.
    pub fn new(
        conversation: Conversation<'s>,
        script: &'s Script,
        opening: Vec<u8>,
        held: Buffer,
    ) -> Self {
        Scripted {
            conversation,
            script,
            told: Duration::ZERO,
            now: Duration::ZERO,
            behind: Duration::ZERO,
            urgent: opening,
            held: Held::new(held),
            close: None,
            pushed: 0,
            replies: 0,
            fault: script.fault.as_ref(),
            state: State::Open,
            output: Vec::new(),
        }
    }

    /// What to do at `now`, since the WebSocket opened.
    pub fn next(&mut self, now: Duration) -> Step<'_> {
        self.advance(now);
        self.output.clear();
        self.output.shrink_to(SMALL_OUTPUT);
        if let State::Open = self.state {
            self.take_output();
            self.push();
            self.fail();
        }
        match self.state {
            State::EndingStream => Step::SendLast(&self.output),
            State::Hanging { .. } | State::Resetting if !self.output.is_empty() => {
                Step::Send(&self.output)
            }
            State::Hanging { until, .. } if now < until => Step::Pause(until.saturating_sub(now)),
            State::Hanging { .. } | State::Resetting => Step::Reset,
            State::Open => self.step(),
        }
    }

    fn step(&mut self) -> Step<'_> {
        let is_between = !self.held.is_inside_reply();
        // Before replies, since it may be what opens the WebSocket, but in one write with a close frame.
        if is_between && !self.urgent.is_empty() && (self.close.is_none() || self.held.len() > 0) {
            mem::swap(&mut self.output, &mut self.urgent);
            return Step::Send(&self.output);
        }
        if let Some(close) = &self.close {
            // Nothing can follow a close frame, so nothing waits any longer.
            let range = self.held.take_all();
            if !range.is_empty() {
                self.count_replies();
                return Step::Send(&self.held.buffer.filled()[range]);
            }
            self.output.append(&mut self.urgent);
            self.output.extend_from_slice(close);
            return Step::SendLast(&self.output);
        }
        let most = match self.fault {
            Some((After::Replies(replies), _)) => replies.saturating_sub(self.replies),
            _ => u32::MAX,
        };
        if let Some(range) = self.held.take_piece(self.now, self.script.drip, most) {
            if !self.held.is_inside_reply() {
                self.count_replies();
            }
            return Step::Send(&self.held.buffer.filled()[range]);
        }
        let wait = self.wait();
        match wait {
            Some(wait) if self.is_full() => Step::Pause(wait),
            wait => Step::Receive(wait),
        }
    }

    fn count_replies(&mut self) {
        self.replies = self.replies.saturating_add(mem::take(&mut self.held.taken));
    }

    /// How long to wait for the next event. `None` for ever.
    fn wait(&self) -> Option<Duration> {
        let is_between = !self.held.is_inside_reply();
        let fault = match self.fault {
            Some((_, Fault::WrongFrame(_))) if !is_between => None,
            Some((After::Time(time), _)) => Some(*time),
            _ => None,
        };
        let push = self.next_push().filter(|_| is_between);
        let silence = self.conversation.wait().filter(|_| !self.is_clock_stopped());
        let silence = silence.map(|wait| self.told + wait + self.behind);
        let events = [self.held.next_piece(self.script.drip), fault, push, silence];
        let next = events.into_iter().flatten().min()?;
        Some(next.saturating_sub(self.now))
    }

    /// Where the next bytes go.
    pub fn input(&mut self) -> &mut [u8] {
        self.conversation.input()
    }

    /// Takes the first `bytes` of the [`input`](Self::input), which came at `now`.
    pub fn received(&mut self, bytes: usize, now: Duration) {
        self.advance(now);
        self.told = now.saturating_sub(self.behind);
        self.conversation.received(bytes, self.told);
    }

    /// Takes note that nothing came until `now`.
    pub fn waited(&mut self, now: Duration) {
        self.advance(now);
        self.told = now.saturating_sub(self.behind);
        self.conversation.waited(self.told);
    }

    /// Tells the client that the server stops.
    pub fn stop(&mut self) {
        if let State::Hanging { stream, .. } = self.state {
            self.state = match stream {
                StreamAt::FrameBoundary => State::Open,
                StreamAt::InsideReply => State::Resetting,
            };
        }
        self.conversation.stop();
    }

    /// Who began the closing handshake, once one did.
    pub fn closed(&self) -> Option<&Close> {
        self.conversation.closed()
    }

    /// The sizes of all compressed messages in both directions, if there were any.
    pub fn compressed_total(&self) -> Option<Sizes> {
        self.conversation.compressed_total()
    }

    /// How many messages were answered.
    pub fn messages(&self) -> u64 {
        self.replies.into()
    }

    fn advance(&mut self, now: Duration) {
        if self.is_clock_stopped() {
            self.behind += now.saturating_sub(self.now);
        }
        self.now = now;
    }

    /// Whether the time that passes is not the client's: a ping could not be sent inside a reply, and its
    /// pong is not seen while nothing is received.
    fn is_clock_stopped(&self) -> bool {
        self.held.is_inside_reply() || self.is_full() || !matches!(self.state, State::Open)
    }

    fn is_full(&self) -> bool {
        self.held.is_full() || self.urgent.len() >= MAX_HELD
    }

    /// Takes what the conversation sends, as long as it may be held.
    fn take_output(&mut self) {
        self.held.release_spare();
        while self.close.is_none()
            && (!self.is_full() || self.conversation.closed().is_some())
            && let Some(output) = self.conversation.next_output()
        {
            let due = self.now + self.script.latency;
            let (close, fits) = sort(output, self.script, &mut self.held, &mut self.urgent);
            self.close = close;
            if fits.is_ok() {
                self.held.end_batch(due);
            } else {
                self.held.forget_unbatched();
                self.conversation.close(OVER_BUDGET);
            }
        }
    }

    /// When the next message is sent that nobody asked for.
    fn next_push(&self) -> Option<Duration> {
        let Pushes { count, interval, .. } = self.script.pushes;
        (self.pushed < count && self.close.is_none()).then(|| interval * (self.pushed + 1))
    }

    fn is_push_due(&self) -> bool {
        !self.held.is_inside_reply() && self.next_push().is_some_and(|time| time <= self.now)
    }

    fn push(&mut self) {
        while self.is_push_due() && self.urgent.len() < MAX_HELD {
            self.pushed += 1;
            let number = self.pushed.to_string();
            let len = number.len().max(self.script.pushes.bytes);
            frame::encode_header(Opcode::Text, len, &mut self.urgent);
            let end = self.urgent.len() + len;
            self.urgent.extend_from_slice(number.as_bytes());
            self.urgent.resize(end, b' ');
        }
    }

    /// Lets go wrong what has to by now.
    fn fail(&mut self) {
        let Some((after, fault)) = self.fault.filter(|_| self.close.is_none()) else { return };
        let is_inside = self.held.is_inside_reply();
        let is_due = match *after {
            After::Replies(replies) => self.replies >= replies && !is_inside,
            After::Time(time) => self.now >= time,
        };
        if !is_due || self.is_push_due() {
            return;
        }
        match fault {
            Fault::WrongFrame(_) if is_inside => return,
            Fault::WrongFrame(wrong) => self.urgent.extend_from_slice(wrong.bytes()),
            Fault::Close(close) => self.close_by(close),
            Fault::EndStream => self.break_off(State::EndingStream),
            Fault::Reset => self.break_off(State::Resetting),
            Fault::Hang => {
                let stream =
                    if is_inside { StreamAt::InsideReply } else { StreamAt::FrameBoundary };
                self.break_off(State::Hanging { until: self.now + HANG, stream });
            }
        }
        self.fault = None;
    }

    fn close_by(&mut self, close: &CloseFrame) {
        self.held.forget_unbegun();
        self.conversation.close(close.clone());
        self.take_output();
    }

    /// Sends what is due, and no more.
    fn break_off(&mut self, state: State) {
        if !self.held.is_inside_reply() {
            self.output.append(&mut self.urgent);
        }
        self.urgent.clear();
        self.held.clear();
        self.state = state;
    }
}

/// Adds the frames of `output` to what is held or urgent, except a close frame, which is returned. Also
/// tells whether there was memory for all replies.
fn sort(
    output: Output,
    script: &Script,
    held: &mut Held,
    urgent: &mut Vec<u8>,
) -> (Option<Vec<u8>>, Result<(), OverBudget>) {
    const PONG: u8 = 0x8A;
    const CLOSE: u8 = 0x88;
    let Output { head, payload, .. } = output;
    // A fragment of a byte has a header of two, and one of many bytes a header of ten at most.
    let headers = script.fragment.map_or(0, |_| 2 * head.len() + 10 * MAX_FRAGMENTS);
    // While much is held no reply comes, only a close frame, and what is charged can't move to make room.
    let mut fits =
        if held.is_full() { Ok(()) } else { held.reserve(head.len() + payload.len() + headers) };
    let mut close = None;
    let mut rest = head;
    while let Some(&first) = rest.first() {
        let (header_len, payload_len) = lengths(rest);
        let frame_len = header_len + payload_len;
        let (frame, next) = rest.split_at(frame_len.min(rest.len()));
        rest = next;
        match first {
            CLOSE => close = Some(frame.to_vec()),
            PONG if script.pongs == Pongs::Off => {}
            _ if first & 0x08 != 0 => urgent.extend_from_slice(frame),
            _ if fits.is_ok() => {
                // The payload of the last frame may go on after the head.
                let tail = if frame.len() < frame_len { payload } else { b"" };
                fits = held.add_reply(first, [&frame[header_len..], tail], script.fragment);
            }
            _ => {}
        }
    }
    (close, fits)
}

/// The lengths of the header and of the payload of the server's frame that `bytes` begin with.
fn lengths(bytes: &[u8]) -> (usize, usize) {
    match bytes {
        [_, 126, high, low, ..] => (4, u16::from_be_bytes([*high, *low]).into()),
        [_, 127, long @ ..] => {
            let len = long.first_chunk().map_or(0, |long| u64::from_be_bytes(*long));
            (10, len as usize)
        }
        [_, len, ..] => (2, (*len).into()),
        _ => (bytes.len(), 0),
    }
}

/// Replies that wait until they are due, in their order.
struct Held {
    /// Whole frames, of which the first `taken_bytes` were taken.
    buffer: Buffer,
    taken_bytes: usize,
    batches: VecDeque<Batch>,
    /// How much of the buffer is in a batch, in bytes.
    batched: usize,
    piece: Option<Piece>,
    /// How many replies were taken, or begun, and not counted by the owner.
    taken: u32,
}

/// Replies that are due at once.
struct Batch {
    due: Duration,
    /// In bytes, of what was not begun.
    len: usize,
}

/// A reply of which a part was taken.
#[derive(Clone, Copy)]
struct Piece {
    begun: Duration,
    /// In bytes, of the whole reply.
    len: usize,
    /// In bytes.
    taken: usize,
}

impl Held {
    fn new(buffer: Buffer) -> Self {
        Held { buffer, taken_bytes: 0, batches: VecDeque::new(), batched: 0, piece: None, taken: 0 }
    }

    fn len(&self) -> usize {
        self.buffer.filled().len() - self.taken_bytes
    }

    fn is_full(&self) -> bool {
        self.len() >= MAX_HELD || self.batches.len() >= MAX_BATCHES
    }

    fn is_inside_reply(&self) -> bool {
        self.piece.is_some()
    }

    /// Makes room for so many bytes more.
    fn reserve(&mut self, bytes: usize) -> Result<(), OverBudget> {
        self.forget_taken();
        self.buffer.reserve(self.len() + bytes)
    }

    fn forget_taken(&mut self) {
        let len = self.buffer.filled().len();
        self.buffer.keep(self.taken_bytes..len);
        self.batched -= mem::take(&mut self.taken_bytes);
    }

    /// Gives up the memory of large replies once nothing is held.
    fn release_spare(&mut self) {
        if self.len() == 0 && self.buffer.capacity() > SMALL_OUTPUT {
            self.forget_taken();
            self.buffer.release();
        }
    }

    fn append(&mut self, mut bytes: &[u8]) -> Result<(), OverBudget> {
        while !bytes.is_empty() {
            if self.buffer.spare_mut().is_empty() {
                self.buffer.charge_ahead()?;
            }
            let spare = self.buffer.spare_mut();
            let len = spare.len().min(bytes.len());
            spare[..len].copy_from_slice(&bytes[..len]);
            self.buffer.advance(len);
            bytes = &bytes[len..];
        }
        Ok(())
    }

    /// Adds a message whose only frame has this first byte and a payload in two parts.
    fn add_reply(
        &mut self,
        first: u8,
        [mut one, mut two]: [&[u8]; 2],
        fragment: Option<usize>,
    ) -> Result<(), OverBudget> {
        const FIN: u8 = 0x80;
        let mut left = one.len() + two.len();
        // Only the first fragment has the opcode and the bits of extensions (§5.4, RFC 7692 §6.1).
        let mut first = first & !FIN;
        for number in 1.. {
            let len = match fragment {
                Some(len) if number < MAX_FRAGMENTS => len.min(left),
                _ => left,
            };
            left -= len;
            let mut header = Vec::with_capacity(10);
            frame::encode_header(Opcode::Continuation, len, &mut header);
            header[0] = if left == 0 { first | FIN } else { first };
            self.append(&header)?;
            let in_one = len.min(one.len());
            self.append(&one[..in_one])?;
            self.append(&two[..len - in_one])?;
            (one, two) = (&one[in_one..], &two[len - in_one..]);
            first = 0;
            if left == 0 {
                break;
            }
        }
        Ok(())
    }

    /// Forgets what was added since the last batch.
    fn forget_unbatched(&mut self) {
        self.buffer.keep(self.taken_bytes..self.batched);
        self.batched -= mem::take(&mut self.taken_bytes);
    }

    /// Makes what was added since the last batch one that is due at `due`.
    fn end_batch(&mut self, due: Duration) {
        let len = self.buffer.filled().len() - self.batched;
        self.batched += len;
        match self.batches.back_mut() {
            Some(last) if last.due == due => last.len += len,
            _ if len > 0 => self.batches.push_back(Batch { due, len }),
            _ => {}
        }
    }

    /// Takes what is to be sent at `now`: all of at most `most` replies, or a piece of one.
    fn take_piece(&mut self, now: Duration, drip: Duration, most: u32) -> Option<Range<usize>> {
        if self.piece.is_none() {
            let batch = self.batches.front_mut().filter(|batch| batch.due <= now && most > 0)?;
            let begun = &self.buffer.filled()[self.taken_bytes..][..batch.len];
            let most = if drip.is_zero() { most } else { 1 };
            let len;
            (len, self.taken) = replies_len(begun, most);
            batch.len -= len;
            if batch.len == 0 {
                self.batches.pop_front();
            }
            self.piece = Some(Piece { begun: now, len, taken: 0 });
        }
        let piece = self.piece.as_mut()?;
        let taken = piece.due(now, drip).saturating_sub(piece.taken);
        piece.taken += taken;
        if piece.taken == piece.len {
            self.piece = None;
        }
        (taken > 0).then(|| self.take(taken))
    }

    /// When the next piece or batch can be taken.
    fn next_piece(&self, drip: Duration) -> Option<Duration> {
        match self.piece {
            Some(piece) => Some(piece.next_due(drip)),
            None => self.batches.front().map(|batch| batch.due),
        }
    }

    fn take_all(&mut self) -> Range<usize> {
        self.batches.clear();
        // What is taken of the reply that was begun is counted already.
        let begun = self.piece.take().map_or(0, |piece| piece.len - piece.taken);
        let unbegun = &self.buffer.filled()[self.taken_bytes + begun..];
        self.taken = self.taken.saturating_add(replies_len(unbegun, u32::MAX).1);
        self.take(self.len())
    }

    fn take(&mut self, bytes: usize) -> Range<usize> {
        let from = self.taken_bytes;
        self.taken_bytes += bytes;
        from..self.taken_bytes
    }

    /// Forgets the replies of which nothing was taken.
    fn forget_unbegun(&mut self) {
        let begun = self.piece.map_or(0, |piece| piece.len - piece.taken);
        self.buffer.keep(self.taken_bytes..self.taken_bytes + begun);
        (self.taken_bytes, self.batched) = (0, begun);
        self.batches.clear();
    }

    fn clear(&mut self) {
        self.piece = None;
        self.forget_unbegun();
        self.buffer.release();
    }
}

impl Piece {
    /// The size of each piece, in bytes, and the time between two.
    fn pieces(&self, drip: Duration) -> (usize, Duration) {
        let most = drip.as_millis().clamp(1, MAX_PIECES.into()) as usize;
        let size = self.len.div_ceil(most);
        let after_first = self.len.div_ceil(size) - 1;
        (size, drip / after_first.max(1) as u32)
    }

    /// How much has to be taken until `now`, in bytes: the last piece when the time is over.
    fn due(&self, now: Duration, drip: Duration) -> usize {
        let (size, interval) = self.pieces(drip);
        if size == self.len {
            return self.len;
        }
        let passed = (now.saturating_sub(self.begun)).as_nanos() / interval.as_nanos();
        self.len.min(size * (1 + passed.min(MAX_PIECES.into()) as usize))
    }

    fn next_due(&self, drip: Duration) -> Duration {
        let (size, interval) = self.pieces(drip);
        self.begun + interval * (self.taken / size) as u32
    }
}

/// The length of the first whole messages in `frames`, `most` of them or fewer, and how many they are.
fn replies_len(frames: &[u8], most: u32) -> (usize, u32) {
    let (mut len, mut replies) = (0, 0);
    while len < frames.len() && replies < most {
        let (header_len, payload_len) = lengths(&frames[len..]);
        replies += u32::from(frames[len] >> 7);
        len += header_len + payload_len;
    }
    (len, replies)
}
