//! The echo: each message is answered, in its order.

use std::time::Duration;

use log::{Level, debug, log_enabled};

use crate::app::echo;
use crate::app::incoming::{Due, Incoming, Next};
use crate::app::step::Step;
use crate::app::trace::{Frames, Reader};
use crate::escape::Quoted;
use crate::quantity::Count;
use crate::websocket::close::STOPPING;
use crate::websocket::deflate::Inflated;
use crate::websocket::frame::{self, Opcode};
use crate::websocket::message::{Encoding, Kind};
use crate::websocket::session::{Close, Event, Session};

/// Once the replies have this size in bytes, they are sent before more input is processed.
const FLUSH: usize = 16 * 1024;

/// An echo for one client.
pub struct Conversation<'s> {
    /// The client's number in the log.
    client: u64,
    prefix: &'s str,
    pub incoming: Box<Incoming>,
    /// The bytes to send. They begin with the 101, so that both leave in one write.
    output: Vec<u8>,
    /// The bytes of `output` that the last step returned.
    sent: usize,
    messages: u64,
}

/// Where the payload of the last reply is, if it is not copied.
#[derive(Clone, Copy)]
enum Tail {
    Nothing,
    /// It has this length, and ends where the processed input ends.
    InInput(usize),
    Assembled,
}

impl<'s> Conversation<'s> {
    /// An echo for `client`, as the log calls it, which is sent `response`, the 101, first.
    pub fn new(client: u64, prefix: &'s str, incoming: Box<Incoming>, response: Vec<u8>) -> Self {
        Conversation { client, prefix, incoming, output: response, sent: 0, messages: 0 }
    }

    /// Returns the next step at `now`. Announces its compressed replies to `traced`, which decodes it.
    pub fn next(&mut self, now: Duration, traced: Option<&mut Reader>) -> Step<'_> {
        // Usually all of it was sent.
        if self.sent == self.output.len() {
            self.output.clear();
        } else {
            self.output.drain(..self.sent);
        }
        self.sent = 0;
        let tail = self.reply(traced);
        if let Tail::Nothing = tail {
            let due = self.incoming.check_progress();
            self.send(due);
            if self.incoming.session.closed().is_some() {
                if self.incoming.is_over(now) {
                    return Step::SendLast(&self.output);
                }
                if !self.incoming.has_sent_close() {
                    self.incoming.sent_close(now);
                    self.sent = self.output.len();
                    return Step::SendClose(&self.output);
                }
            }
        }
        self.sent = self.output.len();
        let payload = match tail {
            Tail::Nothing if self.sent == 0 => return Step::Receive(self.incoming.wait(now)),
            Tail::Nothing => b"",
            Tail::InInput(len) => self.incoming.processed(len),
            Tail::Assembled => self.incoming.session.assembled(),
        };
        Step::Send { head: &self.output, payload }
    }

    /// Appends answers to the input until they reach [`FLUSH`], or until one has a payload that is not
    /// copied.
    fn reply(&mut self, mut traced: Option<&mut Reader>) -> Tail {
        let mut tail = Tail::Nothing;
        while matches!(tail, Tail::Nothing) {
            self.reply_short();
            if self.output.len() >= FLUSH {
                break;
            }
            let Some(Next { event, session, frames }) = self.incoming.next_event() else { break };
            if log_enabled!(Level::Debug) {
                log_event(self.client, &event, session, frames.as_deref());
            }
            let (prefix, output) = (self.prefix, &mut self.output);
            tail =
                answer(event, session, prefix, output, &mut self.messages, traced.as_deref_mut());
        }
        if traced.is_some() {
            self.incoming.skipped().log(self.client);
        }
        tail
    }

    /// Appends answers to the short messages that the input begins with, as [`reply`](Self::reply) would.
    fn reply_short(&mut self) {
        // Frames are traced only for the log.
        if log_enabled!(Level::Debug) {
            return;
        }
        let (session, mut unread, consumed) = self.incoming.unread();
        let len = unread.len();
        while self.output.len() < FLUSH
            && let Some((kind, payload)) = session.next_short(&mut unread)
        {
            echo::reply(kind, payload, self.prefix, &mut self.output);
            self.messages += 1;
        }
        *consumed += len - unread.len();
    }

    fn send(&mut self, due: Option<Due>) {
        match due {
            None => {}
            Some(Due::Ping) => frame::encode_header(Opcode::Ping, 0, &mut self.output),
            Some(Due::Close) => encode_close(&self.incoming.session, &mut self.output),
        }
    }

    /// Records that nothing was received until `now`.
    pub fn waited(&mut self, now: Duration) {
        let due = self.incoming.waited(now);
        if let Some(Due::Ping) = due {
            // A silent client needs no output buffer.
            (self.output, self.sent) = (Vec::new(), 0);
        }
        self.send(due);
    }

    /// Begins the closing handshake because the server stops, unless it has begun.
    pub fn stop(&mut self) {
        if self.incoming.session.closed().is_none() {
            let due = self.incoming.close(STOPPING);
            self.send(Some(due));
        }
    }

    /// The number of answered messages.
    pub fn messages(&self) -> u64 {
        self.messages
    }
}

/// Appends the close frame of `session`, or its answer to the peer's.
#[cold]
fn encode_close(session: &Session, output: &mut Vec<u8>) {
    if let Some(close) = session.closed() {
        close.frame().encode(output);
    }
}

/// Logs an event, and its `frames` if they were traced.
#[cold]
pub fn log_event(client: u64, event: &Event, session: &Session, frames: Option<&Frames>) {
    if let Some(frames) = frames {
        frames.log(client);
    }
    let (kind, payload, compressed) = match event {
        Event::InInput(kind, payload) => (*kind, *payload, None),
        Event::Assembled(kind) => (*kind, session.assembled(), None),
        Event::Inflated(kind, inflated) => {
            (*kind, inflated.message(), Some(inflated.compressed_size()))
        }
        Event::Close => {
            if let Some(Close::ByServer(close, _)) = session.closed() {
                debug!("client {client}: breaks a rule, {close}");
            }
            return;
        }
        Event::Ping(_) | Event::Pong(_) => return,
    };
    debug!(
        "client {client}: {kind:?} of {}{}, {}",
        Count(payload.len() as u64, "byte"),
        compressed.map_or(String::new(), |size| format!(", {size} compressed")),
        Quoted(payload)
    );
}

/// Appends the answer to `event`. Announces a compressed reply to `traced`.
#[inline]
fn answer(
    event: Event,
    session: &mut Session,
    prefix: &str,
    output: &mut Vec<u8>,
    messages: &mut u64,
    traced: Option<&mut Reader>,
) -> Tail {
    let (is_copied, large) = match event {
        Event::InInput(kind, payload) => {
            (echo::reply(kind, payload, prefix, output), Tail::InInput(payload.len()))
        }
        Event::Assembled(kind) => {
            (echo::reply(kind, session.assembled(), prefix, output), Tail::Assembled)
        }
        Event::Inflated(kind, inflated) => {
            (reply_inflated(session, kind, *inflated, prefix, output, traced), Tail::Assembled)
        }
        Event::Ping(payload) => {
            echo::pong(payload, output);
            return Tail::Nothing;
        }
        Event::Pong(_) => return Tail::Nothing,
        Event::Close => {
            encode_close(session, output);
            return Tail::Nothing;
        }
    };
    *messages += 1;
    if is_copied { Tail::Nothing } else { large }
}

/// Appends the reply to a compressed message, compressed as well if possible. Returns whether the
/// payload was copied. If not, it is [assembled](Session::assembled).
#[cold]
fn reply_inflated(
    session: &mut Session,
    kind: Kind,
    inflated: Inflated,
    prefix: &str,
    output: &mut Vec<u8>,
    traced: Option<&mut Reader>,
) -> bool {
    let (_, start) = echo::parts(kind, prefix);
    let inflated_len = start.len() + inflated.message().len();
    match session.deflate(start, inflated) {
        Encoding::Deflated => {
            if let Some(traced) = traced {
                traced.expect(inflated_len);
            }
            echo::reply_deflated(kind, session.assembled(), output)
        }
        Encoding::Plain => echo::reply(kind, session.assembled(), prefix, output),
    }
}
