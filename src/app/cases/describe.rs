//! A case in sentences.

use crate::app::cases::case::{
    Action, Behavior, Case, Event, Frame, Judging, Limit, Play, RoundTrips, Side, Writes,
};
use crate::escape::Count;
use crate::websocket::frame::FIN;
use crate::websocket::message::Kind;
use crate::websocket::negotiation::Parameters;

/// At least this many similar frames are described by their count.
const MIN_COUNTED: usize = 3;

impl Case {
    /// A sentence about the frames that are sent.
    pub fn description(&self) -> String {
        match &self.play {
            Play::Script { actions, .. } => format!("Sends {}.", script(actions)),
            Play::RoundTrips(trips) => format!("Sends {}.", round_trips(trips, self.terms)),
        }
    }

    /// The expected answers, and the note.
    pub fn expectation(&self) -> String {
        let events: String = match &self.play {
            Play::Script { expected, .. } => expected
                .iter()
                .map(|(behavior, events)| match (behavior, &events[..]) {
                    (Behavior::Ok, [Event::Open]) => {
                        "Expects the end after the second part.".into()
                    }
                    (Behavior::NonStrict, [Event::Open, Event::Open]) => {
                        " After the third it is NON-STRICT.".into()
                    }
                    (Behavior::Ok, events) => format!("Expects {}.", list(events)),
                    (behavior, events) => {
                        format!(" For {} it is {}.", list(events), behavior.as_str())
                    }
                })
                .collect(),
            Play::RoundTrips(trips) if trips.count == 1 => "Expects the same message.".into(),
            Play::RoundTrips(_) => "Expects each message back before it sends the next.".into(),
        };
        let codes: Vec<_> = self.close.codes.iter().map(u16::to_string).collect();
        let codes = codes.join(" or ");
        let close = match (self.close.by, self.close.clean) {
            (Side::Client, _) => format!("The client closes with {codes}, or ends TCP"),
            (Side::Server, true) => format!("The client answers the close frame with {codes}"),
            (Side::Server, false) => {
                format!("The client answers the close frame with {codes}, or ends TCP")
            }
        };
        let (Limit::Kill(limit) | Limit::Close(limit)) = self.limit;
        let judging = match self.judging {
            Judging::Informational => " The RFC leaves it open, so there is no verdict.",
            Judging::Usual | Judging::CodeMatters | Judging::SideMatters => "",
        };
        let space = if self.note.is_empty() { "" } else { " " };
        format!("{events} {close}, within {limit:?}.{judging}{space}{}", self.note)
    }
}

fn script(actions: &[Action]) -> String {
    let parts: Vec<_> = actions
        .chunk_by(is_alike)
        .flat_map(|alike| match alike {
            [Action::Frame(frame), ..] if alike.len() >= MIN_COUNTED => {
                vec![format!(
                    "{} times {} of {}",
                    alike.len(),
                    kind(frame),
                    Count(frame.payload.len() as u64, "byte")
                )]
            }
            _ => alike.iter().filter_map(action).collect(),
        })
        .collect();
    let writes = actions.iter().find_map(|action| match action {
        Action::Frame(frame) => Some(frame.writes),
        _ => None,
    });
    parts.join(", ") + &written(writes.unwrap_or(Writes::Together))
}

/// Whether the two differ at most in their payload.
fn is_alike(one: &Action, two: &Action) -> bool {
    match (one, two) {
        (Action::Frame(one), Action::Frame(two)) => {
            one.first == two.first && one.payload.len() == two.payload.len()
        }
        _ => false,
    }
}

fn action(action: &Action) -> Option<String> {
    match action {
        Action::Frame(frame) => Some(format!("{} {:?}", kind(frame), frame.payload)),
        Action::Bytes(bytes) => {
            Some(format!("{} of a text frame", Count(bytes.len() as u64, "byte")))
        }
        Action::Close(payload) => Some(format!("close {payload:?}")),
        Action::Wait(time) => Some(format!("nothing for {time:?}")),
        Action::Mark => None,
    }
}

fn kind(frame: &Frame) -> String {
    let name = match frame.first & 0x0F {
        0x0 => "continuation",
        0x1 => "text",
        0x2 => "binary",
        0x8 => "close",
        0x9 => "ping",
        0xA => "pong",
        opcode => return format!("opcode {opcode}"),
    };
    let fin = if frame.first & FIN == 0 { " without FIN" } else { "" };
    match frame.first >> 4 & 0x7 {
        0 => format!("{name}{fin}"),
        rsv => format!("{name}{fin} with RSV {rsv:03b}"),
    }
}

fn round_trips(trips: &RoundTrips, terms: &[Parameters]) -> String {
    let kind = match trips.kind {
        Kind::Text => "text",
        Kind::Binary => "binary",
    };
    let times = if trips.count == 1 { String::new() } else { format!("{} times ", trips.count) };
    let compressed = match terms {
        [] => String::new(),
        [terms] => format!(", compressed under {terms}"),
        [..] => ", compressed under the first terms that the client allows".into(),
    };
    let fragment =
        trips.fragment.map_or(String::new(), |size| format!(", in fragments of {size} bytes"));
    format!("{times}{kind} of {} bytes{compressed}{fragment}{}", trips.size, written(trips.writes))
}

fn written(writes: Writes) -> String {
    match writes {
        Writes::Together => String::new(),
        Writes::Alone => ", each frame in a write of its own".into(),
        Writes::Chopped(size) => format!(", written {} at a time", Count(size as u64, "byte")),
    }
}

fn list(events: &[Event]) -> String {
    if events.is_empty() {
        return "nothing".into();
    }
    let events: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Message(Kind::Text, payload) => Some(format!("text {payload:?}")),
            Event::Message(Kind::Binary, payload) => Some(format!("binary {payload:?}")),
            Event::Pong(payload) => Some(format!("pong {payload:?}")),
            Event::Open => None,
        })
        .collect();
    events.join(", ")
}
