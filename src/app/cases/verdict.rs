//! A case, the received events and the end → the verdict.

use crate::app::cases::case::{
    Alternative, Behavior, Case, Check, CloseBehavior, Event, ExpectedClose, Judging, Play,
};
use crate::app::json;
use crate::app::trace::{Hex, Side};
use crate::websocket::close::CloseFrame;
use crate::websocket::message::Kind;

/// The most that is kept of what came, in bytes.
const MAX_KEPT: usize = 512;

/// The maximum number of bytes shown of one payload.
const MAX_SHOWN: usize = 64;

/// A received event, or a mark of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came<'e> {
    Message(Kind, &'e [u8]),
    Pong(&'e [u8]),
    Open,
    OverLimit,
    /// Bytes of a client that should send none. No list of events has them.
    Bytes(&'e [u8]),
    /// Another mistake that no list of events has.
    Mistake(&'static str),
}

/// The received events, compared with the lists of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// The number of events.
    count: usize,
    /// For each list, its place after the events, or `None` if it does not begin with them.
    places: Vec<Option<Place>>,
    /// The first events as JSON, separated by commas, and their number.
    kept: (String, usize),
}

/// A place in a list of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    /// The index of the next event.
    event: usize,
    /// The number of the last of its pongs.
    pong: u32,
}

/// The payload of a close frame. Its code and reason may be invalid.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosePayload {
    pub code: Option<u16>,
    pub reason: Vec<u8>,
}

/// How a connection ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// Who sent the first close frame.
    pub closed_by: Option<Side>,
    /// The reason for which the server failed the connection, if it did.
    pub failed: Option<String>,
    /// Who ended TCP first.
    pub dropped_by: Option<Side>,
    /// The missing part of the closing handshake.
    pub unclean: Option<&'static str>,
    pub sent: Option<ClosePayload>,
    pub received: Option<ClosePayload>,
}

impl ClosePayload {
    /// Decodes a payload that may be invalid.
    pub fn decode(payload: &[u8]) -> Self {
        match payload.split_first_chunk() {
            Some((code, reason)) => {
                ClosePayload { code: Some(u16::from_be_bytes(*code)), reason: reason.into() }
            }
            None => ClosePayload { code: None, reason: payload.into() },
        }
    }
}

impl From<&CloseFrame> for ClosePayload {
    fn from(close: &CloseFrame) -> Self {
        ClosePayload { code: close.code, reason: close.reason.as_str().into() }
    }
}

impl Received {
    /// Nothing has arrived yet.
    pub fn new(case: &Case) -> Self {
        let places = case.expected().map(|_| Some(Place::default())).collect();
        Received { count: 0, places, kept: (String::new(), 0) }
    }

    pub fn add(&mut self, case: &Case, event: Came) {
        for (place, events) in self.places.iter_mut().zip(case.expected()) {
            *place = place.and_then(|place| place.after(events, event));
        }
        let (kept, len) = &mut self.kept;
        let shown = event.to_json();
        if *len == self.count && kept.len() + shown.len() <= MAX_KEPT {
            let separator = if kept.is_empty() { "" } else { ", " };
            *kept += &(separator.to_owned() + &shown);
            *len += 1;
        }
        self.count += 1;
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether the server closes now: all events of each list have arrived, or those of an alternative.
    pub fn is_complete(&self, case: &Case) -> bool {
        let Play::Script { expected, .. } = &case.play else { return false };
        let is_by_server = |close: &ExpectedClose| close.by == Side::Server;
        let mut lists = expected.iter().enumerate();
        let is_expected = is_by_server(&case.close)
            && lists.all(|(list, (_, events))| self.is_list(list, events));
        let alternative = case.alternative.as_ref().map(|alternative| &alternative.close);
        let can_close = alternative.is_some_and(|close| is_by_server(close) && close.clean);
        is_expected || (can_close && self.is_alternative(case))
    }

    /// The verdict of the list that equals the events.
    pub fn behavior(&self, case: &Case) -> Behavior {
        let Play::Script { expected, .. } = &case.play else { return Behavior::Failed };
        let mut lists = expected.iter().enumerate();
        let found = lists.find(|(list, (_, events))| self.is_list(*list, events));
        found.map_or(Behavior::Failed, |(_, (behavior, _))| *behavior)
    }

    /// Whether all events of the alternative have arrived, and no others.
    fn is_alternative(&self, case: &Case) -> bool {
        let last = case.expected().enumerate().last();
        last.is_some_and(|(list, events)| self.is_list(list, events))
    }

    fn is_list(&self, list: usize, events: &[Event]) -> bool {
        self.places[list].is_some_and(|place| place.event == events.len())
    }

    /// The events as a JSON array, which may be cut at its end.
    pub fn to_json(&self) -> String {
        let (kept, len) = &self.kept;
        let end = if *len == self.count { "" } else { ", \"…\"" };
        format!("[{kept}{end}]")
    }
}

impl Place {
    /// The place in `events` after another event, if it is the next one.
    fn after(self, events: &[Event], came: Came) -> Option<Self> {
        let next = Place { event: self.event + 1, pong: 0 };
        match (events.get(self.event)?, came) {
            (Event::Pongs(last), Came::Pong(number)) => {
                let pong = str::from_utf8(number).ok()?.parse().ok()?;
                let is_next = (self.pong + 1..=*last).contains(&pong);
                is_next.then_some(if pong == *last { next } else { Place { pong, ..self } })
            }
            (expected, came) => (came == *expected).then_some(next),
        }
    }
}

impl PartialEq<Event> for Came<'_> {
    fn eq(&self, event: &Event) -> bool {
        match (self, event) {
            (Came::Message(kind, bytes), Event::Message(expected, payload)) => {
                kind == expected && *payload == **bytes
            }
            (Came::Pong(bytes), Event::Pong(payload)) => *payload == **bytes,
            (Came::Open, Event::Open) | (Came::OverLimit, Event::OverLimit) => true,
            _ => false,
        }
    }
}

impl Came<'_> {
    /// The array in the format of the suite's reports.
    pub fn to_json(self) -> String {
        match self {
            Came::Message(kind, bytes) => {
                format!("[\"message\", {}, {}]", shown(bytes), kind == Kind::Binary)
            }
            Came::Pong(bytes) => format!("[\"pong\", {}]", shown(bytes)),
            Came::Open => "[\"timeout\"]".into(),
            Came::OverLimit => "[\"over limit\"]".into(),
            Came::Bytes(bytes) => format!("[\"bytes\", {}]", shown(bytes)),
            Came::Mistake(what) => format!("[\"mistake\", \"{what}\"]"),
        }
    }
}

/// The beginning of a payload, as text or in hexadecimal digits.
fn shown(payload: &[u8]) -> String {
    let start = &payload[..payload.len().min(MAX_SHOWN)];
    let end = if start.len() < payload.len() { " …" } else { "" };
    match str::from_utf8(start) {
        Ok(text) => json::string(format!("{text}{end}")),
        Err(error) if error.error_len().is_none() && !end.is_empty() => {
            json::string([&start[..error.valid_up_to()], end.as_bytes()].concat())
        }
        Err(_) => format!("\"0x{}{end}\"", Hex(start)),
    }
}

/// Judges a client. `behavior` is the verdict on the events alone.
pub fn judge(
    case: &Case,
    received: &Received,
    behavior: Behavior,
    ending: &Ending,
) -> (Behavior, CloseBehavior, String) {
    let (close, result) = judge_close(&case.close, ending);
    let is_right = behavior != Behavior::Failed && close == CloseBehavior::Ok;
    if let Some(verdict) = judge_alternative(case, received, ending).filter(|_| !is_right) {
        return verdict;
    }
    let is_ok = behavior == Behavior::Ok;
    let is_wrong_code = close == CloseBehavior::WrongCode;
    let is_wrong_end = match case.judging {
        Judging::Usual => false,
        Judging::CodeMatters => is_wrong_code,
        Judging::SideMatters => !is_right_side(&case.close, ending),
        // RFC 6455 §7.1.7: a failing endpoint "SHOULD send a Close frame with an appropriate status code".
        Judging::EndMatters if is_ok && is_wrong_code && case.close.by == Side::Client => {
            return (Behavior::NonStrict, close, result);
        }
        Judging::EndMatters => close != CloseBehavior::Ok,
        Judging::Informational => {
            return (Behavior::Informational, CloseBehavior::Informational, result);
        }
    };
    if is_wrong_end {
        return (Behavior::Failed, close, result);
    }
    let is_dropped_by_server = ending.dropped_by == Some(Side::Server);
    match case.check {
        Check::Reaction if is_dropped_by_server && ending.received.is_none() => {
            (Behavior::Failed, CloseBehavior::Unclean, "the client did not react".into())
        }
        Check::EndOfTcp if is_dropped_by_server && is_ok => (Behavior::NonStrict, close, result),
        _ => (behavior, close, result),
    }
}

/// The verdict on a client that reacted in the case's other way.
fn judge_alternative(
    case: &Case,
    received: &Received,
    ending: &Ending,
) -> Option<(Behavior, CloseBehavior, String)> {
    let Alternative { behavior, close: expected, .. } = case.alternative.as_ref()?;
    let is_failure = expected.by == Side::Client && !expected.codes.is_empty();
    let (close, result) = judge_close(expected, ending);
    let behavior = match close {
        CloseBehavior::Ok => *behavior,
        CloseBehavior::WrongCode if is_failure => Behavior::NonStrict,
        _ => return None,
    };
    received.is_alternative(case).then_some((behavior, close, result))
}

/// Whether the first close frame came from the expected side.
fn is_right_side(expected: &ExpectedClose, ending: &Ending) -> bool {
    // A client also fails the connection by ending TCP without a close frame.
    (ending.closed_by == Some(Side::Server)) == (expected.by == Side::Server)
}

/// The verdict on the end of the connection, and its reason.
fn judge_close(expected: &ExpectedClose, ending: &Ending) -> (CloseBehavior, String) {
    let code = ending.received.as_ref().and_then(|close| close.code);
    let wrong_code = code.filter(|code| !expected.codes.contains(code));
    if !is_right_side(expected, ending) {
        let result = match (expected.by, &ending.received, code) {
            (Side::Client, ..) => "the server closed first, but the client had to".into(),
            (Side::Server, None, _) => "the client ended TCP, but the server had to close".into(),
            (Side::Server, Some(_), None) => {
                "the client closed first, but the server had to".into()
            }
            (Side::Server, Some(_), Some(code)) => {
                format!("the client closed first, with {code}, but the server had to")
            }
        };
        (CloseBehavior::Failed, result)
    } else if expected.clean
        && let Some(unclean) = ending.unclean
    {
        (CloseBehavior::Unclean, unclean.into())
    } else if let Some(code) = wrong_code {
        let codes: Vec<_> = expected.codes.iter().map(u16::to_string).collect();
        let codes = if codes.is_empty() { "no close frame".into() } else { codes.join(" or ") };
        (CloseBehavior::WrongCode, format!("closed with {code}, expected {codes}"))
    } else {
        (CloseBehavior::Ok, "closed as expected".into())
    }
}
