//! A case as data: the frames sent and their times, the allowed answers, and the expected end.

use std::fmt;
use std::time::Duration;

use crate::app::cases::data::Data;
use crate::app::cases::payload::Payload;
use crate::websocket::frame::{FIN, Opcode};
use crate::websocket::message::Kind;
use crate::websocket::negotiation::Parameters;

/// The number of a case, such as 7.9.3. Some numbers have only two parts, such as 2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 3]);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub id: Id,
    pub play: Play,
    pub close: ExpectedClose,
    pub limit: Limit,
    pub judging: Judging,
    /// The server's terms for compression, the first compatible ones. If empty, it declines.
    pub terms: &'static [Parameters],
    /// A note on a disputed point of the case, or empty.
    pub note: &'static str,
}

/// The frames to send, and the expected answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Play {
    /// The actions in order, whatever arrives in the meantime. The received events have to equal one of
    /// the lists.
    Script {
        actions: Vec<Action>,
        expected: Vec<(Behavior, Vec<Event>)>,
    },
    RoundTrips(RoundTrips),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Frame(Frame),
    /// Bytes that are a part of a frame.
    Bytes(Vec<u8>),
    /// A close frame with this payload, which begins the closing handshake.
    Close(Payload),
    /// A pause. If the connection is closing at its end, the script ends.
    Wait(Duration),
    /// Adds [`Event::Open`].
    Mark,
}

/// A frame, which may be invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    pub payload: Payload,
    pub writes: Writes,
}

/// How a frame is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// Together with its neighbors, up to a size limit.
    Together,
    /// On its own.
    Alone,
    /// This many bytes at a time.
    Chopped(usize),
}

/// Something that the client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message(Kind, Payload),
    Pong(Payload),
    /// The connection was still open at [`Action::Mark`].
    Open,
}

/// Messages that are sent one at a time, each after the echo of the previous one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoundTrips {
    pub kind: Kind,
    pub data: Data,
    /// Of each message, in bytes.
    pub size: usize,
    pub count: u32,
    /// The size of the fragments in bytes. `None` for whole messages.
    pub fragment: Option<usize>,
    pub writes: Writes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// How the connection has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpectedClose {
    /// Who sends the first close frame.
    pub by: Side,
    /// The codes that the client may send. It may always send none.
    pub codes: Vec<u16>,
    /// Whether both sides have to send a close frame.
    pub clean: bool,
}

/// The action this long after everything was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Close with 1001, or end TCP if already closing.
    Kill(Duration),
    /// A close frame without a code.
    Close(Duration),
}

/// An additional rule for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judging {
    Usual,
    /// A wrong close code also fails the behavior.
    CodeMatters,
    /// A first close frame by the wrong side also fails the behavior.
    SideMatters,
    Informational,
}

/// The verdict on the received events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    Ok,
    /// Allowed, but not advisable.
    NonStrict,
    Informational,
    /// The client did not agree to the compression that the case needs.
    Unimplemented,
    Failed,
}

/// The verdict on the end of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseBehavior {
    Ok,
    Informational,
    /// The wrong side closed first.
    Failed,
    Unclean,
    WrongCode,
}

impl Id {
    /// An id with two parts has 0 as its third.
    pub const fn new(group: u8, section: u8, number: u8) -> Self {
        Id([group, section, number])
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = [0; 3];
        let mut given = text.split('.');
        for (place, part) in given.by_ref().take(3).enumerate() {
            parts[place] = part.parse().ok()?;
        }
        // Another spelling of the number would be a second name for the case.
        Some(Id(parts)).filter(|id| given.next().is_none() && id.to_string() == text)
    }

    pub const fn group(self) -> u8 {
        self.0[0]
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [group, number, 0] => write!(f, "{group}.{number}"),
            [group, section, number] => write!(f, "{group}.{section}.{number}"),
        }
    }
}

impl Case {
    /// A case without compression, in which nothing is disputed.
    pub fn script(
        id: Id,
        actions: Vec<Action>,
        expected: Vec<(Behavior, Vec<Event>)>,
        close: ExpectedClose,
        limit: Limit,
    ) -> Self {
        let play = Play::Script { actions, expected };
        Case { id, play, close, limit, judging: Judging::Usual, terms: &[], note: "" }
    }

    /// The maximum duration of the case, excluding the time to send.
    pub fn max_duration(&self) -> Duration {
        /// For the answer to the close.
        const CLOSE: Duration = Duration::from_secs(1);
        let (Limit::Kill(limit) | Limit::Close(limit)) = self.limit;
        let waits = match &self.play {
            Play::Script { actions, .. } => actions.iter().filter_map(Action::wait).sum(),
            Play::RoundTrips(_) => Duration::ZERO,
        };
        waits + limit + CLOSE
    }
}

impl Action {
    /// A frame that is a whole message, or a control frame.
    pub fn frame(opcode: Opcode, payload: impl Into<Payload>) -> Self {
        Action::raw(FIN | opcode as u8, payload)
    }

    /// A frame with any `first` byte: FIN, reserved bits and opcode.
    pub fn raw(first: u8, payload: impl Into<Payload>) -> Self {
        Action::Frame(Frame { first, payload: payload.into(), writes: Writes::Together })
    }

    fn wait(&self) -> Option<Duration> {
        match self {
            Action::Wait(time) => Some(*time),
            _ => None,
        }
    }
}

/// The same actions, with each frame written in this way.
pub fn written(mut actions: Vec<Action>, writes: Writes) -> Vec<Action> {
    for action in &mut actions {
        if let Action::Frame(frame) = action {
            frame.writes = writes;
        }
    }
    actions
}

/// The frames of a fragmented message (RFC 6455 §5.4), one for each of the fragments.
pub fn fragmented<P: Into<Payload>>(
    opcode: Opcode,
    fragments: impl IntoIterator<Item = P>,
) -> Vec<Action> {
    let mut first = opcode as u8;
    let mut frames: Vec<_> = fragments
        .into_iter()
        .map(|fragment| Action::raw(std::mem::take(&mut first), fragment))
        .collect();
    if let Some(Action::Frame(last)) = frames.last_mut() {
        last.first |= FIN;
    }
    frames
}

impl ExpectedClose {
    /// The server closes with 1000 once everything has arrived, and the client answers.
    pub fn by_server() -> Self {
        Self::answered(&[1000])
    }

    /// The client fails the connection, with this code or by ending TCP.
    pub fn by_client(code: u16) -> Self {
        ExpectedClose { by: Side::Client, codes: vec![code], clean: false }
    }

    /// The client answers the script's close frame with one of these codes.
    pub fn answered(codes: &[u16]) -> Self {
        ExpectedClose { by: Side::Server, codes: codes.to_vec(), clean: true }
    }

    /// The client fails the connection at the script's close frame, with one of these codes or by
    /// ending TCP.
    pub fn refused(codes: &[u16]) -> Self {
        ExpectedClose { by: Side::Server, codes: codes.to_vec(), clean: false }
    }
}

impl Behavior {
    /// The word in the reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Behavior::Ok => "OK",
            Behavior::NonStrict => "NON-STRICT",
            Behavior::Informational => "INFORMATIONAL",
            Behavior::Unimplemented => "UNIMPLEMENTED",
            Behavior::Failed => "FAILED",
        }
    }
}

impl CloseBehavior {
    pub fn is_good(self) -> bool {
        matches!(self, CloseBehavior::Ok | CloseBehavior::Informational)
    }

    /// The word in the reports.
    pub fn as_str(self) -> &'static str {
        match self {
            CloseBehavior::Ok => "OK",
            CloseBehavior::Informational => "INFORMATIONAL",
            CloseBehavior::Failed => "FAILED",
            CloseBehavior::Unclean => "UNCLEAN",
            CloseBehavior::WrongCode => "WRONG CODE",
        }
    }
}
