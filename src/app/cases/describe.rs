//! A case in sentences.

use crate::app::behavior::Handshake;
use crate::app::cases::case::{
    Action, Alternative, Behavior, Case, Check, Edit, Event, ExpectedClose, Frame, Judging,
    Opening, Play, RoundTrips, Writes,
};
use crate::app::cases::payload::Payload;
use crate::app::trace::{Side, opcode_name};
use crate::escape::Quoted;
use crate::quantity::Count;
use crate::websocket::frame::{FIN, Opcode};
use crate::websocket::message::Kind;
use crate::websocket::negotiation::Parameters;

/// At least this many similar frames are described by their count.
const MIN_COUNTED: usize = 3;

/// Longer values of header fields are described by their length.
const MAX_SHOWN: usize = 80;

impl Case {
    /// A sentence about the frames that are sent, and about the answer to the handshake if it is unusual.
    pub fn description(&self) -> String {
        let frames = match &self.play {
            Play::Script { actions, .. } => script(actions),
            Play::RoundTrips(trips) => round_trips(trips, self.terms),
        };
        let opening = opening(&self.opening);
        // Round trips name their compression themselves.
        let terms = match (&self.play, self.terms) {
            (Play::Script { .. }, [terms]) => format!(", under {terms}"),
            (Play::Script { .. }, [_, ..]) => ", with permessage-deflate".into(),
            _ => String::new(),
        };
        if opening.is_empty() {
            format!("Sends {frames}{terms}.")
        } else {
            format!("Answers the handshake with {opening}, then sends {frames}{terms}.")
        }
    }

    /// The description, and the expectation in a line of its own.
    pub fn explanation(&self) -> String {
        format!("{}\n{}", self.description(), self.expectation())
    }

    /// The expected answers, the note and the rule.
    pub fn expectation(&self) -> String {
        let fails = self.fails_handshake();
        let events = if fails { String::new() } else { expected(&self.play) };
        let close = if fails {
            "Expects nothing but the end of TCP".into()
        } else {
            let end = match self.check {
                Check::EndOfTcp => ", and then ends TCP",
                _ => "",
            };
            format!(" The client {}{end}", close(&self.close))
        };
        let limit = self.limit.time();
        let alternative = self.alternative.as_ref().map_or(String::new(), alternative);
        let check = match self.check {
            Check::Nothing | Check::Reaction | Check::EndOfTcp => "",
            Check::Request => " The request has a Host, and a key that is new at each connection.",
            Check::MaskingKeys => " Each frame has another masking key.",
            Check::Silence => " Nothing comes after its close frame.",
            Check::Window => " What is compressed keeps to the window that was agreed.",
        };
        let judging = match self.judging {
            Judging::Informational => " The RFC leaves it open, so there is no verdict.",
            _ => "",
        };
        let more = [self.note, self.rule].map(|text| match text {
            "" => String::new(),
            text => format!(" {text}"),
        });
        format!("{events}{close}, within {limit:?}.{alternative}{check}{judging}{}", more.concat())
    }
}

fn expected(play: &Play) -> String {
    let lists = match play {
        Play::Script { expected, .. } => expected,
        Play::RoundTrips(trips) if trips.count == 1 => return "Expects the same message.".into(),
        Play::RoundTrips(_) => return "Expects each message back before it sends the next.".into(),
    };
    let sentences = lists.iter().map(|(behavior, events)| match (behavior, &events[..]) {
        (Behavior::Ok, [Event::Open]) => "Expects the end after the second part.".into(),
        (Behavior::NonStrict, [Event::Open, Event::Open]) => " NON-STRICT after the third.".into(),
        (Behavior::Ok, events) => format!("Expects {}.", list(events)),
        (behavior, events) => format!(" {} for {}.", behavior.as_str(), list(events)),
    });
    sentences.collect()
}

/// How the client ends the connection, after "The client".
fn close(close: &ExpectedClose) -> String {
    let codes: Vec<_> = close.codes.iter().map(u16::to_string).collect();
    let codes = codes.join(" or ");
    match (close.by, close.clean) {
        (Side::Client, _) if codes.is_empty() => "ends TCP".into(),
        (Side::Client, _) => format!("closes with {codes}, or ends TCP"),
        (Side::Server, true) => format!("answers the close frame with {codes}"),
        (Side::Server, false) if codes.is_empty() => "waits".into(),
        (Side::Server, false) => format!("answers the close frame with {codes}, or ends TCP"),
    }
}

fn alternative(alternative: &Alternative) -> String {
    let Alternative { behavior, events, close: end } = alternative;
    let also = if *behavior == Behavior::Ok { "Also " } else { "" };
    let behavior = behavior.as_str();
    format!(" {also}{behavior} for {}, if the client {}.", list(events), close(end))
}

/// The unusual parts of an answer to a handshake.
fn opening(opening: &Opening) -> String {
    let handshake = match opening.handshake {
        Handshake::Valid => None,
        Handshake::Status(status) => Some(format!("status {status}")),
        Handshake::WrongAccept => Some("the Sec-WebSocket-Accept of another key".into()),
        Handshake::WrongProtocol => Some("a subprotocol that was not offered".into()),
        Handshake::WrongExtension => Some("an extension that was not offered".into()),
    };
    let edits = opening.edits.iter().map(|edit| match *edit {
        Edit::Remove(name) => format!("a 101 without {name}"),
        Edit::Set(name, value) if value.len() > MAX_SHOWN => {
            format!("{name} of {}", Count(value.len() as u64, "byte"))
        }
        Edit::Set(name, value) => format!("{name} {}", Quoted(value.as_bytes())),
        Edit::Lowercase(name) => format!("{name} in lower case"),
    });
    let writes = match opening.writes {
        Writes::Dripped(pause) => Some(format!("one byte of its head every {pause:?}")),
        Writes::Together | Writes::Alone | Writes::Chopped(_) => None,
    };
    let parts: Vec<_> = handshake.into_iter().chain(edits).chain(writes).collect();
    match &parts[..] {
        [first, .., last] if parts.len() >= MIN_COUNTED => format!("{first} … {last}"),
        parts => parts.join(" and "),
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
        Action::Frame(frame) if frame.first & 0x0F == Opcode::Close as u8 => {
            Some(format!("{} {}", kind(frame), code_and_reason(&frame.payload)))
        }
        Action::Frame(frame) => Some(format!("{} {:?}", kind(frame), frame.payload)),
        Action::Bytes(bytes) => Some(bytes.name.to_string()),
        Action::Wait(time) => Some(format!("nothing for {time:?}")),
        Action::Await(_) => Some("nothing until the first answer".into()),
        Action::Mark => None,
        Action::EndStream => Some("the end of TCP".into()),
        Action::EndTcp => Some("the end of TCP without close_notify".into()),
        Action::UpdateKeys => Some("a key update".into()),
        Action::Reset => Some("a reset of TCP".into()),
    }
}

fn code_and_reason(payload: &Payload) -> String {
    let bytes = payload.to_vec();
    match bytes.split_first_chunk() {
        None => format!("{payload:?}"),
        Some((code, [])) => u16::from_be_bytes(*code).to_string(),
        Some((code, reason)) => {
            format!("{} {:?}", u16::from_be_bytes(*code), Payload::from(reason.to_vec()))
        }
    }
}

fn kind(frame: &Frame) -> String {
    let Some(name) = opcode_name(frame.first) else {
        return format!("opcode {}", frame.first & 0x0F);
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
        Writes::Dripped(pause) => format!(", one byte every {pause:?}"),
    }
}

fn list(events: &[Event]) -> String {
    if events.is_empty() {
        return "nothing".into();
    }
    let events: Vec<_> = events
        .iter()
        .map(|event| match event {
            Event::Message(Kind::Text, payload) => format!("text {payload:?}"),
            Event::Message(Kind::Binary, payload) => format!("binary {payload:?}"),
            Event::Pong(payload) => format!("pong {payload:?}"),
            Event::Open => "the end of the pause".into(),
            Event::Pongs(last) => format!("some of the pongs, and the last of {last}"),
            Event::OverLimit => "the echo, which the server does not receive whole".into(),
        })
        .collect();
    events.join(", ")
}
