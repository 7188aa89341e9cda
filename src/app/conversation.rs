//! One client's conversation after the opening handshake, waiting included, without a socket or a
//! clock.
//!
//! What drives it sends each [`next_output`](Conversation::next_output), receives up to
//! [`wait`](Conversation::wait) into [`input`](Conversation::input), and tells what happened by
//! [`received`](Conversation::received), [`waited`](Conversation::waited) or
//! [`stop`](Conversation::stop), until it [is over](Conversation::is_over). Times count from the
//! moment at which the WebSocket opened.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use log::debug;

use crate::app::echo;
use crate::buffer::{Budget, Buffer, OverBudget};
use crate::escape::{Count, Quoted};
use crate::websocket::close::{CloseFrame, NO_PROGRESS, PING_TIMEOUT, STOPPING};
use crate::websocket::deflate::{Inflated, PerMessageDeflate, Sizes};
use crate::websocket::frame::{self, Opcode};
use crate::websocket::message::Kind;
use crate::websocket::session::{Close, Message, Session};

/// The input of a client that sends little at a time, in bytes.
pub const SMALL_INPUT: usize = 768;

/// The input of a client that has filled the small one, in bytes. The longest head of a request fits
/// in it.
pub const LARGE_INPUT: usize = 17 * 1024;

/// Replies of this size are sent before more input is looked at, in bytes.
const FLUSH: usize = 16 * 1024;

/// How long the memory of a large message waits for another one.
const SPARE_TTL: Duration = Duration::from_millis(100);

/// What a peer has to read, or to send of a message that has begun, within the write timeout, in bytes.
pub const MIN_PROGRESS: usize = 64 * 1024;

/// The parts in which a peer is waited for that has to read, or to go on with a message, within the write
/// timeout. Time in which this process was suspended counts for one part at most.
pub const WRITE_TIMEOUT_PARTS: u32 = 8;

/// What the operator sets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The text put before each text that is sent back.
    pub prefix: String,
    /// In bytes.
    pub max_message_size: usize,
    /// How long a client may be silent before it is pinged. `None` for ever.
    pub ping_interval: Option<Duration>,
    /// How long a pinged client may stay silent.
    pub ping_timeout: Duration,
    /// How long a client may take to send 64 KiB of a message.
    pub write_timeout: Duration,
    /// How long the closing handshake may take.
    pub close_timeout: Duration,
}

/// What is to be sent next: the head, then the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output<'c> {
    pub head: &'c [u8],
    pub payload: &'c [u8],
    /// Whether it ends with the close frame, so that nothing follows.
    pub is_last: bool,
}

/// A conversation with one client.
pub struct Conversation<'s> {
    /// Its number in the log.
    client: u64,
    settings: &'s Settings,
    session: Session,
    input: Buffer,
    /// How much of the input was processed, in bytes.
    consumed: usize,
    output: Vec<u8>,
    /// How much of the output was handed out, in bytes.
    sent: usize,
    messages: u64,
    now: Duration,
    waiting: Waiting,
    /// When a message in pieces was complete. From then on it is checked every [`SPARE_TTL`] whether its
    /// memory is still spare.
    spare_since: Option<Duration>,
    progress: Option<Progress>,
}

/// How much had come of an unfinished message, and for how long it was waited for more since then.
#[derive(Clone, Copy)]
struct Progress {
    bytes: usize,
    time: Duration,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// Any bytes, since the last ones.
    Bytes {
        since: Duration,
    },
    /// Any bytes, since a ping was sent.
    Pong {
        since: Duration,
    },
    /// The end of the peer's stream after the close frame.
    Close {
        until: Duration,
    },
    Nothing,
}

/// Where the payload of the last reply is, if it is not copied.
#[derive(Clone, Copy)]
enum Tail {
    Nothing,
    /// It has this length, and ends where the input is processed to.
    InInput(usize),
    Assembled,
}

impl<'s> Conversation<'s> {
    /// A conversation with `client`, as the log calls it, that begins with what `input` holds.
    /// Its messages may be compressed if `deflate` was agreed.
    pub fn new(
        client: u64,
        settings: &'s Settings,
        input: Buffer,
        budget: &Arc<Budget>,
        deflate: Option<PerMessageDeflate>,
    ) -> Self {
        Conversation {
            client,
            settings,
            session: Session::new(settings.max_message_size, Arc::clone(budget), deflate),
            input,
            consumed: 0,
            output: Vec::new(),
            sent: 0,
            messages: 0,
            now: Duration::ZERO,
            waiting: Waiting::Bytes { since: Duration::ZERO },
            spare_since: None,
            progress: None,
        }
    }

    /// What has to be sent before anything more is received, until there is no more.
    pub fn next_output(&mut self) -> Option<Output<'_>> {
        self.output.drain(..mem::take(&mut self.sent));
        let tail = self.reply();
        if let Tail::Nothing = tail {
            self.check_progress();
        }
        let is_last = self.session.closed().is_some();
        if is_last && let Waiting::Bytes { .. } | Waiting::Pong { .. } = self.waiting {
            self.session.release();
            self.waiting = Waiting::Close { until: self.now + self.settings.close_timeout };
        }
        self.sent = self.output.len();
        let payload = match tail {
            Tail::Nothing => b"",
            Tail::InInput(len) => &self.input.filled()[self.consumed - len..self.consumed],
            Tail::Assembled => self.session.assembled(),
        };
        (self.sent > 0).then_some(Output { head: &self.output, payload, is_last })
    }

    /// Appends the replies to messages of the input until they are many, or one has a payload that is
    /// not copied.
    fn reply(&mut self) -> Tail {
        let Self { session, input, consumed, output, .. } = self;
        let mut unread = &mut input.filled_mut()[*consumed..];
        let end = *consumed + unread.len();
        let mut tail = Tail::Nothing;
        while output.len() < FLUSH
            && matches!(tail, Tail::Nothing)
            && let Some(message) = session.next(&mut unread, output)
        {
            self.messages += 1;
            let (kind, payload, compressed) = match &message {
                Message::InInput(kind, payload) => (*kind, *payload, None),
                Message::Assembled(kind) => (*kind, session.assembled(), None),
                Message::Inflated(kind, inflated) => {
                    (*kind, inflated.message(), Some(inflated.compressed_size()))
                }
            };
            debug!(
                "client {}: {kind:?} of {}{}, {}",
                self.client,
                Count(payload.len() as u64, "byte"),
                compressed.map_or(String::new(), |size| format!(", {size} compressed")),
                Quoted(payload)
            );
            let prefix = &self.settings.prefix;
            let (is_copied, large) = match message {
                Message::InInput(_, payload) => {
                    (echo::reply(kind, payload, prefix, output), Tail::InInput(payload.len()))
                }
                Message::Assembled(_) => {
                    (echo::reply(kind, session.assembled(), prefix, output), Tail::Assembled)
                }
                Message::Inflated(_, inflated) => {
                    (reply_inflated(session, kind, *inflated, prefix, output), Tail::Assembled)
                }
            };
            if let Tail::Assembled = large {
                self.spare_since = Some(self.now);
                self.progress = None;
            }
            tail = if is_copied { Tail::Nothing } else { large };
        }
        *consumed = end - unread.len();
        tail
    }

    /// How long to wait for more bytes. `None` for ever.
    pub fn wait(&self) -> Option<Duration> {
        let Settings { ping_interval, ping_timeout, write_timeout, .. } = *self.settings;
        let until = match self.waiting {
            Waiting::Bytes { since } => ping_interval.map(|interval| since + interval),
            Waiting::Pong { since } => Some(since + ping_timeout),
            Waiting::Close { until } => Some(until),
            Waiting::Nothing => Some(self.now),
        };
        let waits = [
            until.map(|until| until.saturating_sub(self.now)),
            self.progress.map(|progress| {
                (write_timeout / WRITE_TIMEOUT_PARTS)
                    .min(write_timeout.saturating_sub(progress.time))
            }),
            self.spare_since.map(|_| SPARE_TTL),
        ];
        waits.into_iter().flatten().min()
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
        self.set_now(now);
        match self.waiting {
            Waiting::Bytes { .. } | Waiting::Pong { .. } => {
                self.waiting = Waiting::Bytes { since: now };
            }
            // Otherwise a peer that never stops sending holds its thread for ever.
            Waiting::Close { until } if now >= until => self.waiting = Waiting::Nothing,
            Waiting::Close { .. } | Waiting::Nothing => {}
        }
        if self.session.is_missing_more_than(self.input.capacity()) {
            self.session.received(bytes);
        } else {
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
    pub fn waited(&mut self, now: Duration) {
        self.set_now(now);
        self.release_spare();
        let Settings { ping_interval, ping_timeout, .. } = *self.settings;
        match self.waiting {
            Waiting::Bytes { since } => {
                if ping_interval.is_some_and(|interval| now >= since + interval) {
                    self.release_all();
                    frame::encode_header(Opcode::Ping, 0, &mut self.output);
                    self.waiting = Waiting::Pong { since: now };
                }
            }
            Waiting::Pong { since } => {
                if now >= since + ping_timeout {
                    self.session.close(PING_TIMEOUT, &mut self.output);
                }
            }
            Waiting::Close { until } => {
                if now >= until {
                    self.waiting = Waiting::Nothing;
                }
            }
            Waiting::Nothing => {}
        }
    }

    /// Tells the peer that the server stops.
    pub fn stop(&mut self) {
        self.close(STOPPING);
    }

    /// Begins the closing handshake by `close`, unless it has begun.
    pub fn close(&mut self, close: CloseFrame) {
        if self.session.closed().is_none() {
            self.session.close(close, &mut self.output);
        }
    }

    /// Who began the closing handshake, once one did.
    pub fn closed(&self) -> Option<&Close> {
        self.session.closed()
    }

    /// Whether nothing more is waited for.
    pub fn is_over(&self) -> bool {
        self.waiting == Waiting::Nothing
    }

    /// How many messages were answered.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The sizes of all compressed messages in both directions, if there were any.
    pub fn compressed_total(&self) -> Option<Sizes> {
        self.session.compressed_total()
    }

    fn set_now(&mut self, now: Duration) {
        if let Some(progress) = &mut self.progress {
            // More than a part was not spent waiting for the peer: the process was suspended, or it sent.
            let part = self.settings.write_timeout / WRITE_TIMEOUT_PARTS;
            progress.time += now.saturating_sub(self.now).min(part);
        }
        self.now = now;
    }

    /// Closes if an unfinished message has not grown as it has to: it holds memory of the budget.
    fn check_progress(&mut self) {
        let Some(bytes) = self.session.unfinished() else { return self.progress = None };
        let progress = self.progress.get_or_insert(Progress { bytes, time: Duration::ZERO });
        if bytes >= progress.bytes + MIN_PROGRESS {
            *progress = Progress { bytes, time: Duration::ZERO };
        }
        if progress.time >= self.settings.write_timeout {
            self.progress = None;
            self.session.close(NO_PROGRESS, &mut self.output);
        }
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
        (self.output, self.sent) = (Vec::new(), 0);
    }

    /// Moves what was not processed, less than a control frame, to the front of the input.
    fn compact(&mut self) {
        let end = self.input.filled().len();
        self.input.keep(mem::take(&mut self.consumed)..end);
    }
}

/// Appends the reply to a compressed message, compressed as well. Without memory for it, it is sent as it
/// is. Returns whether the payload is copied, or else assembled.
#[cold]
fn reply_inflated(
    session: &mut Session,
    kind: Kind,
    inflated: Inflated,
    prefix: &str,
    output: &mut Vec<u8>,
) -> bool {
    match session.deflate(echo::parts(kind, prefix).1, inflated) {
        Ok(()) => echo::reply_deflated(kind, session.assembled(), output),
        Err(OverBudget) => echo::reply(kind, session.assembled(), prefix, output),
    }
}
