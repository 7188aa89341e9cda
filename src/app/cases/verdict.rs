//! A case, the received events and the end → the verdict.

use crate::app::cases::case::{Behavior, Case, CloseBehavior, Event, Judging, Play, Side};
use crate::app::json;
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
}

/// The received events, compared with the lists of a script.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The number of events.
    count: usize,
    /// For each list, whether it begins with the events.
    are_equal: Vec<bool>,
    /// The first events as JSON, separated by commas, and their number.
    kept: (String, usize),
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
    pub fn add(&mut self, case: &Case, event: Came) {
        if let Play::Script { expected, .. } = &case.play {
            self.are_equal.resize(expected.len(), true);
            for (is_equal, (_, events)) in self.are_equal.iter_mut().zip(expected) {
                *is_equal &= events.get(self.count).is_some_and(|expected| event == *expected);
            }
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

    /// Whether all events of each list have arrived, so that the wait can end.
    pub fn is_complete(&self, case: &Case) -> bool {
        let Play::Script { expected, .. } = &case.play else { return false };
        expected.iter().enumerate().all(|(list, (_, events))| self.is_list(list, events))
    }

    /// The verdict of the list that equals the events.
    pub fn behavior(&self, case: &Case) -> Behavior {
        let Play::Script { expected, .. } = &case.play else { return Behavior::Failed };
        let mut lists = expected.iter().enumerate();
        let found = lists.find(|(list, (_, events))| self.is_list(*list, events));
        found.map_or(Behavior::Failed, |(_, (behavior, _))| *behavior)
    }

    fn is_list(&self, list: usize, events: &[Event]) -> bool {
        self.count == events.len() && self.are_equal.get(list).copied().unwrap_or(true)
    }

    /// The events as a JSON array, which may be cut at its end.
    pub fn to_json(&self) -> String {
        let (kept, len) = &self.kept;
        let end = if *len == self.count { "" } else { ", \"…\"" };
        format!("[{kept}{end}]")
    }
}

impl PartialEq<Event> for Came<'_> {
    fn eq(&self, event: &Event) -> bool {
        match (self, event) {
            (Came::Message(kind, bytes), Event::Message(expected, payload)) => {
                kind == expected && *payload == **bytes
            }
            (Came::Pong(bytes), Event::Pong(payload)) => *payload == **bytes,
            (Came::Open, Event::Open) => true,
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
        }
    }
}

/// The beginning of a payload, as text or in hexadecimal digits.
fn shown(payload: &[u8]) -> String {
    let start = &payload[..payload.len().min(MAX_SHOWN)];
    let end = if start.len() < payload.len() { " …" } else { "" };
    match str::from_utf8(start) {
        Ok(text) => json::string(format!("{text}{end}").as_bytes()),
        Err(error) if error.error_len().is_none() && !end.is_empty() => {
            json::string(&[&start[..error.valid_up_to()], end.as_bytes()].concat())
        }
        Err(_) => {
            let digits =
                start.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"));
            format!("\"0x{digits}{end}\"")
        }
    }
}

/// Judges a client. `behavior` is the verdict on the events alone.
pub fn judge(
    case: &Case,
    behavior: Behavior,
    ending: &Ending,
) -> (Behavior, CloseBehavior, String) {
    // A client also fails the connection by ending TCP without a close frame.
    let is_right_side = (ending.closed_by == Some(Side::Server)) == (case.close.by == Side::Server);
    let code = ending.received.as_ref().and_then(|close| close.code);
    let wrong_code = code.filter(|code| !case.close.codes.contains(code));
    let (close, result) = if !is_right_side {
        let result = match case.close.by {
            Side::Client => "the server closed, and the client had to",
            Side::Server => "the client closed, and the server had to",
        };
        (CloseBehavior::Failed, result.into())
    } else if case.close.clean
        && let Some(unclean) = ending.unclean
    {
        (CloseBehavior::Unclean, unclean.into())
    } else if let Some(code) = wrong_code {
        let codes: Vec<_> = case.close.codes.iter().map(u16::to_string).collect();
        let result = format!("closed with {code}, expected {}", codes.join(" or "));
        (CloseBehavior::WrongCode, result)
    } else {
        (CloseBehavior::Ok, "closed as expected".into())
    };
    match case.judging {
        Judging::Informational => (Behavior::Informational, CloseBehavior::Informational, result),
        Judging::CodeMatters if close == CloseBehavior::WrongCode => {
            (Behavior::Failed, close, result)
        }
        Judging::SideMatters if !is_right_side => (Behavior::Failed, close, result),
        _ => (behavior, close, result),
    }
}
