//! An open WebSocket: the echo, a script, or a client that runs the cases. Also the log line at its end.

use std::time::Duration;

use log::{Level, log_enabled};

use crate::app::cases::answer::Answer;
use crate::app::cases::trial::Trial;
use crate::app::conversation::Conversation;
use crate::app::end::{End, Ended};
use crate::app::incoming::Incoming;
use crate::app::scripted::Scripted;
use crate::app::step::{Line, Step, Topic};
use crate::app::trace::{Reader, Side};

/// An open WebSocket.
pub struct WebSocket<'s> {
    /// The client's number in the log.
    number: u64,
    opened: Duration,
    content: Content<'s>,
    /// The length in bytes of the 101, which is sent with the first frames.
    response_len: u64,
    received: u64,
    sent: u64,
    /// Decodes the frames that are sent, if the log shows them.
    sent_frames: Option<Box<Reader>>,
}

/// The job of a WebSocket.
pub enum Content<'s> {
    Echo(Conversation<'s>),
    Script(Box<Scripted>),
    Runner(Runner<'s>),
}

/// A case that is run with the client, or the answer to its command.
// Apart from `Content`, so that the hot path of the echo is a choice among three.
pub enum Runner<'s> {
    Trial(Box<Trial<'s>>),
    Answer(Box<Answer<'s>>),
}

impl<'s> WebSocket<'s> {
    /// The WebSocket of client `number`. It opened at `opened` with a response of `response_len` bytes,
    /// and `received` bytes came with the request.
    pub fn new(
        number: u64,
        opened: Duration,
        content: Content<'s>,
        response_len: usize,
        received: usize,
    ) -> Self {
        let sent_frames = log_enabled!(Level::Trace).then(|| Box::new(Reader::new(Side::Server)));
        WebSocket {
            number,
            opened,
            content,
            response_len: response_len as u64,
            received: received as u64,
            sent: 0,
            sent_frames,
        }
    }

    /// Returns the next step at `now`.
    #[inline]
    pub fn next(&mut self, now: Duration) -> Step<'_> {
        let traced = self.sent_frames.as_deref_mut();
        let step = match &mut self.content {
            Content::Echo(conversation) => conversation.next(now, traced),
            Content::Script(scripted) => scripted.next(now, traced),
            Content::Runner(Runner::Trial(trial)) => trial.next(now),
            Content::Runner(Runner::Answer(answer)) => answer.next(now),
        };
        let [head, payload] = match step {
            Step::Send { head, payload } => [head, payload],
            Step::SendClose(bytes) | Step::SendEnd(bytes) | Step::SendLast(bytes) => [bytes, b""],
            _ => return step,
        };
        if let Some(reader) = &mut self.sent_frames {
            // The 101 comes first.
            let response = self.response_len.saturating_sub(self.sent) as usize;
            log_sent(self.number, reader, [&head[response.min(head.len())..], payload], now);
        }
        self.sent += (head.len() + payload.len()) as u64;
        step
    }

    /// The buffer for the next received bytes.
    pub fn input(&mut self) -> &mut [u8] {
        self.incoming_mut().input()
    }

    /// Processes the first `bytes` of [`input`](Self::input), which were received at `now`.
    pub fn received(&mut self, bytes: usize, now: Duration) {
        self.received += bytes as u64;
        match &mut self.content {
            Content::Echo(conversation) => conversation.incoming.received(bytes, now),
            Content::Script(scripted) => scripted.received(bytes, now),
            Content::Runner(_) => self.incoming_mut().received(bytes, now),
        }
    }

    /// Records that nothing was received until `now`.
    pub fn waited(&mut self, now: Duration) {
        match &mut self.content {
            Content::Echo(conversation) => conversation.waited(now),
            Content::Script(scripted) => scripted.waited(now),
            // There are no pings.
            Content::Runner(_) => drop(self.incoming_mut().waited(now)),
        }
    }

    /// Records that the stream ended or was lost at `now`, and that the last `unsent` bytes were not
    /// sent.
    pub fn ended(&mut self, now: Duration, unsent: usize) {
        self.sent = self.sent.saturating_sub(unsent as u64);
        if let Content::Runner(Runner::Trial(trial)) = &mut self.content {
            trial.ended(now);
        }
    }

    /// Processes the answer to [`Step::Report`].
    pub fn reported(&mut self, result: Result<(), String>) {
        if let Content::Runner(Runner::Answer(answer)) = &mut self.content {
            answer.reported(result);
        }
    }

    /// Begins the closing handshake because the server stops, unless it has begun.
    pub fn stop(&mut self) {
        match &mut self.content {
            Content::Echo(conversation) => conversation.stop(),
            Content::Script(scripted) => scripted.stop(),
            Content::Runner(Runner::Trial(trial)) => trial.stop(),
            Content::Runner(Runner::Answer(answer)) => answer.stop(),
        }
    }

    /// How it ended, once the last step was taken or the stream has ended.
    pub fn end(&self) -> End {
        match &self.content {
            Content::Script(scripted) => scripted.end(),
            Content::Runner(Runner::Trial(trial)) => trial.end(),
            Content::Echo(_) | Content::Runner(Runner::Answer(_)) => {
                End::of(&self.incoming().session)
            }
        }
    }

    /// The log line about its `end` at `now`.
    #[cold]
    pub fn line(&self, end: End, now: Duration) -> (Topic, Line) {
        if let Content::Runner(Runner::Trial(trial)) = &self.content
            && let Some(verdict) = trial.line()
        {
            return (Topic::Verdict, Line::Text(verdict.into()));
        }
        let (topic, messages) = match &self.content {
            Content::Echo(conversation) => (Topic::Ended, conversation.messages()),
            Content::Script(scripted) => (Topic::Ended, scripted.messages()),
            // A client that runs the cases opens many connections.
            Content::Runner(_) => (Topic::Detail, 0),
        };
        let ended = Ended {
            client: self.number,
            end,
            then: String::new(),
            messages,
            received: self.received,
            sent: self.sent.saturating_sub(self.response_len),
            open: now.saturating_sub(self.opened),
            compressed: self.incoming().session.compressed_total(),
        };
        (topic, Line::Ended(Box::new(ended)))
    }

    fn incoming(&self) -> &Incoming {
        match &self.content {
            Content::Echo(conversation) => &conversation.incoming,
            Content::Script(scripted) => &scripted.incoming,
            Content::Runner(Runner::Trial(trial)) => &trial.incoming,
            Content::Runner(Runner::Answer(answer)) => &answer.incoming,
        }
    }

    fn incoming_mut(&mut self) -> &mut Incoming {
        match &mut self.content {
            Content::Echo(conversation) => &mut conversation.incoming,
            Content::Script(scripted) => &mut scripted.incoming,
            Content::Runner(Runner::Trial(trial)) => &mut trial.incoming,
            Content::Runner(Runner::Answer(answer)) => &mut answer.incoming,
        }
    }
}

/// Logs the frames that are sent.
#[cold]
fn log_sent(client: u64, reader: &mut Reader, bytes: [&[u8]; 2], now: Duration) {
    for bytes in bytes {
        reader.read(bytes, now).for_each(|frame| frame.log(client));
    }
}
