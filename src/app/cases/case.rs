//! A case as data: the frames sent and their times, the allowed answers, and the expected end.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::app::behavior::{Handshake, WrongFrame};
use crate::app::cases::data::Data;
use crate::app::cases::payload::Payload;
use crate::app::trace::Side;
use crate::http::response::Response;
use crate::quantity::Count;
use crate::websocket::frame::{FIN, Opcode};
use crate::websocket::message::Kind;
use crate::websocket::negotiation::Parameters;

/// The number of a case, such as 7.9.3. Some numbers have only two parts, such as 2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id([u8; 3]);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    pub id: Id,
    pub transport: Transport,
    pub opening: Opening,
    pub play: Play,
    pub close: ExpectedClose,
    /// Another reaction that passes.
    pub alternative: Option<Alternative>,
    pub limit: Limit,
    pub judging: Judging,
    pub check: Check,
    /// The server's terms for compression, the first compatible ones. If empty, it declines.
    pub terms: &'static [Parameters],
    /// A note on a disputed point of the case, or empty.
    pub note: &'static str,
    /// The sentence of an RFC that the verdict rests on, and its section, or empty.
    pub rule: &'static str,
}

/// The layer below the WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP or TLS.
    Any,
    Tls,
}

/// The answer to the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub handshake: Handshake,
    pub edits: &'static [Edit],
    /// How the head is written. `Together` is with the first frames.
    pub writes: Writes,
}

/// A change of one header field of the answer to the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The field is missing.
    Remove(&'static str),
    /// The field has this value. It is added if it is missing.
    Set(&'static str, &'static str),
    /// The value is in lower case.
    Lowercase(&'static str),
}

/// A reaction that passes instead of the expected one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    pub behavior: Behavior,
    pub events: Vec<Event>,
    pub close: ExpectedClose,
}

/// Something to check besides the events and the close frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    Nothing,
    /// The fields of the client's request, and that its key is not the one of its last connection.
    Request,
    /// That the masking key changes with each frame.
    MaskingKeys,
    /// That no compressed echo is shorter than the agreed window allows.
    Window,
    /// That the client answers a close frame that is wrong, or ends TCP.
    Reaction,
    /// That nothing comes after the client's close frame.
    Silence,
    /// That the client ends TCP after both close frames, although the server does not.
    EndOfTcp,
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
    /// The first close frame begins the closing handshake.
    Frame(Frame),
    /// Bytes that are many frames, or a part of one.
    Bytes(Bytes),
    /// A pause. If the connection is closing at its end, the script ends.
    Wait(Duration),
    /// A pause that ends early with the client's first event.
    Await(Duration),
    /// Adds [`Event::Open`].
    Mark,
    /// The end of the server's side of TCP. What the client sends is still received.
    EndStream,
    /// The end of the server's side of TCP, without that of TLS.
    EndTcp,
    /// New keys of TLS.
    UpdateKeys,
    /// A reset of TCP, which ends the case.
    Reset,
}

/// A frame, which may be invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// FIN, the reserved bits and the opcode.
    pub first: u8,
    pub payload: Payload,
    pub writes: Writes,
}

/// Bytes, and their name in a description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes {
    pub name: Cow<'static, str>,
    pub bytes: Cow<'static, [u8]>,
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
    /// One byte at a time, with this pause after each.
    Dripped(Duration),
}

/// Something that the client did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Message(Kind, Payload),
    Pong(Payload),
    /// The connection was still open at [`Action::Mark`].
    Open,
    /// The pongs for pings whose payloads are the numbers from 1 to this one. Only the last is required.
    Pongs(u32),
    /// A message over the server's limit, which is not received.
    OverLimit,
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

/// The smallest message that is [over the limit](Event::OverLimit) in each such case, in bytes.
const MIN_OVER_LIMIT: usize = 1 << 20;

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
    /// The end of TCP. The client has to end it first.
    End(Duration),
}

/// An additional rule for the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judging {
    Usual,
    /// A wrong close code also fails the behavior.
    CodeMatters,
    /// A first close frame by the wrong side also fails the behavior.
    SideMatters,
    /// Any wrong end also fails the behavior, except that a failing client may use another code: that is
    /// NON-STRICT.
    EndMatters,
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

    /// Whether it is a case of the Autobahn suite.
    pub const fn is_of_suite(self) -> bool {
        self.group() <= 13
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
    /// A case without compression and dispute. A client that sends `events` passes.
    pub fn script(
        id: Id,
        actions: Vec<Action>,
        events: Vec<Event>,
        close: ExpectedClose,
        limit: Limit,
    ) -> Self {
        let expected = vec![(Behavior::Ok, events)];
        Case::new(id, Play::Script { actions, expected }, close, limit)
    }

    /// The same case, for which other events are NON-STRICT.
    #[must_use]
    pub fn or_non_strict(mut self, events: Vec<Event>) -> Self {
        if let Play::Script { expected, .. } = &mut self.play {
            expected.push((Behavior::NonStrict, events));
        }
        self
    }

    /// A case beyond the suite, which rests on a sentence of an RFC. Any wrong end fails it.
    pub fn beyond(
        id: Id,
        rule: &'static str,
        actions: Vec<Action>,
        events: Vec<Event>,
        close: ExpectedClose,
        limit: Limit,
    ) -> Self {
        let case = Case::script(id, actions, events, close, limit);
        Case { judging: Judging::EndMatters, rule, ..case }
    }

    /// A case without compression and dispute.
    pub fn new(id: Id, play: Play, close: ExpectedClose, limit: Limit) -> Self {
        Case {
            id,
            transport: Transport::Any,
            opening: Opening::VALID,
            play,
            close,
            alternative: None,
            limit,
            judging: Judging::Usual,
            check: Check::Nothing,
            terms: &[],
            note: "",
            rule: "",
        }
    }

    /// The maximum duration of the case, excluding the time to send.
    pub fn max_duration(&self) -> Duration {
        /// For the answer to the close.
        const CLOSE: Duration = Duration::from_secs(1);
        /// The longest head that drips, in bytes.
        const HEAD: u32 = 256;
        let drip = match self.opening.writes {
            Writes::Dripped(pause) => HEAD * pause,
            Writes::Together | Writes::Alone | Writes::Chopped(_) => Duration::ZERO,
        };
        let waits = match &self.play {
            Play::Script { actions, .. } => actions.iter().filter_map(Action::wait).sum(),
            Play::RoundTrips(_) => Duration::ZERO,
        };
        drip + waits + self.limit.time() + CLOSE
    }

    /// Whether the client has to fail the handshake: it ends TCP without sending a byte.
    pub fn fails_handshake(&self) -> bool {
        self.close == ExpectedClose::by_end_of_tcp()
    }

    /// The lists of events that pass.
    pub fn expected(&self) -> impl Iterator<Item = &[Event]> {
        let lists = match &self.play {
            Play::Script { expected, .. } => expected.as_slice(),
            Play::RoundTrips(_) => &[],
        };
        let alternative = self.alternative.iter().map(|alternative| &alternative.events[..]);
        lists.iter().map(|(_, events)| &events[..]).chain(alternative)
    }

    /// Whether a message over the server's limit is an expected answer.
    pub fn expects_over_limit(&self) -> bool {
        self.expected().any(|events| events.contains(&Event::OverLimit))
    }

    /// The maximum size of the client's messages in bytes, if the server allows `max`.
    pub fn max_message_size(&self, max: usize) -> usize {
        if self.expects_over_limit() { max.min(MIN_OVER_LIMIT) } else { max }
    }
}

impl Opening {
    /// The 101 of RFC 6455, with the first frames.
    pub const VALID: Opening =
        Opening { handshake: Handshake::Valid, edits: &[], writes: Writes::Together };

    /// The response with its edits.
    #[must_use]
    pub fn edited(&self, mut response: Response) -> Response {
        for edit in self.edits {
            let (Edit::Remove(name) | Edit::Set(name, _) | Edit::Lowercase(name)) = *edit;
            let field = response.headers.iter_mut().find(|(known, _)| *known == name);
            match (edit, field) {
                (Edit::Remove(_), _) => response.headers.retain(|(known, _)| *known != name),
                (Edit::Set(_, set), Some((_, value))) => *value = (*set).into(),
                (Edit::Set(_, set), None) => response.headers.push((name, (*set).into())),
                (Edit::Lowercase(_), Some((_, value))) => {
                    *value = value.to_ascii_lowercase().into();
                }
                (Edit::Lowercase(_), None) => {}
            }
        }
        response
    }
}

impl Event {
    pub fn text(payload: impl Into<Payload>) -> Self {
        Event::Message(Kind::Text, payload.into())
    }
}

impl Frame {
    /// Whether it is a close frame without reserved bits.
    pub fn is_close(&self) -> bool {
        self.first == FIN | Opcode::Close as u8
    }
}

impl Limit {
    pub fn time(self) -> Duration {
        let (Limit::Kill(time) | Limit::Close(time) | Limit::End(time)) = self;
        time
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

    /// A text message.
    pub fn text(payload: impl Into<Payload>) -> Self {
        Action::frame(Opcode::Text, payload)
    }

    pub fn ping(payload: impl Into<Payload>) -> Self {
        Action::frame(Opcode::Ping, payload)
    }

    pub fn close(code: u16, reason: &[u8]) -> Self {
        Action::frame(Opcode::Close, [&code.to_be_bytes(), reason].concat())
    }

    /// A part of a text frame, written on its own.
    pub fn part(bytes: impl Into<Cow<'static, [u8]>>) -> Self {
        let bytes = bytes.into();
        let name = format!("{} of a text frame", Count(bytes.len() as u64, "byte")).into();
        Action::Bytes(Bytes { name, bytes, writes: Writes::Alone })
    }

    /// A frame that the client has to refuse.
    pub fn wrong(WrongFrame { name, bytes }: WrongFrame) -> Self {
        let (name, bytes) = (name.into(), bytes.into());
        Action::Bytes(Bytes { name, bytes, writes: Writes::Together })
    }

    fn wait(&self) -> Option<Duration> {
        match self {
            Action::Wait(time) | Action::Await(time) => Some(*time),
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

    /// The client fails the connection, with one of these codes or by ending TCP.
    pub fn failing(codes: &[u16]) -> Self {
        ExpectedClose { by: Side::Client, codes: codes.to_vec(), clean: false }
    }

    /// The client fails the handshake: it ends TCP, and sends no frame.
    pub fn by_end_of_tcp() -> Self {
        Self::failing(&[])
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
