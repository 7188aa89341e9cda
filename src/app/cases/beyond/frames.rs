//! Group 16: frames that the suite never sends.

use std::time::Duration;

use crate::app::behavior::WrongFrame;
use crate::app::cases::beyond::kinds::{
    self, LIMITS, RESERVED_BITS, answered, first_echo, refused,
};
use crate::app::cases::case::{
    Action, Bytes, Case, Event, ExpectedClose, Id, Limit, Writes, fragmented,
};
use crate::app::cases::payload::Payload;
use crate::websocket::frame::{self, FIN, Opcode, RSV1};

const SLOW: Limit = Limit::Kill(Duration::from_secs(10));

const MASKED: &str =
    "RFC 6455 §5.1: \"A client MUST close a connection if it detects a masked frame.\"";
const MINIMAL: &str = "RFC 6455 §5.2: \"in all cases, the minimal number of bytes MUST be used to encode the length\".";
const TOP_BIT: &str = "RFC 6455 §5.2: \"the most significant bit MUST be 0\".";
const FRAGMENTS: &str = "RFC 6455 §5.4: \"A fragmented message consists of a single frame with the FIN bit \
                         clear and an opcode other than 0, followed by zero or more frames with the FIN bit \
                         clear and the opcode set to 0, and terminated by a single frame with the FIN bit \
                         set and an opcode of 0.\"";
const PING: &str =
    "RFC 6455 §5.5.2: \"It SHOULD respond with Pong frame as soon as is practical.\"";
const PONG: &str = "RFC 6455 §5.5.3: \"A response to an unsolicited Pong frame is not expected.\"";
const LAST_PING: &str = "RFC 6455 §5.5.3: \"the endpoint MAY elect to send a Pong frame for only the most \
                         recently processed Ping frame.\"";
const UTF8: &str = "RFC 6455 §5.6: \"a particular text frame might include a partial UTF-8 sequence; \
                    however, the whole message MUST contain valid UTF-8.\"";

pub fn cases() -> Vec<Case> {
    [invalid(), valid()].concat()
}

/// Frames that the client has to refuse.
fn invalid() -> Vec<Case> {
    let long = |number, wrong| {
        let echoes = vec![first_echo(), Event::text(b" long")];
        Case {
            note: "The rule is for the sender, so a client that takes the frame is NON-STRICT.",
            alternative: Some(kinds::non_strict(echoes, ExpectedClose::by_server())),
            ..refused(Id::new(16, 2, number), MINIMAL, vec![Action::wrong(wrong)], &[1002])
        }
    };
    let wrong = |section, number, rule, wrong, codes: &[u16]| {
        let actions = vec![Action::wrong(wrong), Action::ping(b"after")];
        refused(Id::new(16, section, number), rule, actions, codes)
    };
    let reserved = |number, first, before: Option<Action>| {
        let frame = Action::raw(first, b"reserved");
        let actions = before.into_iter().chain([frame, Action::ping(b"after")]);
        refused(Id::new(16, 3, number), RESERVED_BITS, actions.collect(), &[1002])
    };
    let begun = Action::raw(Opcode::Text as u8, b"begun, ");
    let huge = |number, rule, frame| {
        let waits = ExpectedClose::refused(&[]);
        Case {
            note: "A client that waits for the rest is NON-STRICT.",
            alternative: Some(kinds::non_strict(vec![first_echo()], waits)),
            ..wrong(2, number, rule, frame, &[1002, 1009])
        }
    };
    vec![
        wrong(1, 1, MASKED, WrongFrame::MASKED, &[1002]),
        long(1, WrongFrame::LONG_LENGTH_16),
        long(2, WrongFrame::LONG_LENGTH_64),
        huge(3, TOP_BIT, WrongFrame::LENGTH_TOP_BIT),
        huge(4, LIMITS, WrongFrame::HUGE_LENGTH),
        reserved(1, FIN | RSV1 | Opcode::Continuation as u8, Some(begun)),
        reserved(2, FIN | RSV1 | Opcode::Ping as u8, None),
        reserved(3, FIN | RSV1 | Opcode::Pong as u8, None),
        reserved(4, FIN | RSV1 | Opcode::Close as u8, None),
    ]
}

/// Frames that the client has to accept.
fn valid() -> Vec<Case> {
    const MANY_FRAGMENTS: usize = 1000;
    const MANY_PINGS: u32 = 10_000;
    let id = |section, number| Id::new(16, section, number);
    let long: Payload = Payload::repeated(b"\x00\xFF", 125);
    let [first, last] = [b"first ", b"second"];
    let fragments = Bytes {
        name: format!("{MANY_FRAGMENTS} times continuation without FIN empty").into(),
        bytes: [Opcode::Continuation as u8, 0].repeat(MANY_FRAGMENTS).into(),
        writes: Writes::Together,
    };
    let mut pings = Vec::new();
    for number in 1..=MANY_PINGS {
        let number = number.to_string();
        frame::encode_header(Opcode::Ping, number.len(), &mut pings);
        pings.extend_from_slice(number.as_bytes());
    }
    let pings = Bytes {
        name: format!("{MANY_PINGS} pings with their numbers").into(),
        bytes: pings.into(),
        writes: Writes::Together,
    };
    let around = |inside: Vec<Action>| {
        [
            vec![Action::raw(Opcode::Text as u8, first)],
            inside,
            vec![Action::frame(Opcode::Continuation, last)],
        ]
        .concat()
    };
    let whole = || Event::text(b"first second");
    let inside = around(vec![
        Action::ping(long.clone()),
        Action::Wait(Duration::from_secs(1)),
        Action::Mark,
    ]);
    let late = vec![Event::Open, Event::Pong(long.clone()), whole()];
    let late = kinds::non_strict(late, ExpectedClose::by_server());
    let at_once = vec![Event::Pong(long), Event::Open, whole()];
    let ping = Case { alternative: Some(late), ..answered(id(5, 1), PING, inside, at_once) };
    let other_pong = vec![
        Action::frame(Opcode::Pong, b"nobody's"),
        Action::ping(b"ping"),
        Action::frame(Opcode::Pong, b"another"),
    ];
    let segments = |bytes: [&'static [u8]; 2]| {
        let pause = Action::Wait(Duration::from_millis(200));
        let [one, two] = bytes.map(Action::part);
        vec![one, pause, two]
    };
    let whole_text = |text: &'static [u8]| vec![Action::text(text)];
    vec![
        Case {
            limit: SLOW,
            ..answered(id(4, 1), FRAGMENTS, around(vec![Action::Bytes(fragments)]), vec![whole()])
        },
        ping,
        answered(id(5, 2), PONG, other_pong, vec![Event::Pong(b"ping".into())]),
        Case {
            limit: SLOW,
            ..answered(
                id(5, 3),
                LAST_PING,
                vec![Action::Bytes(pings)],
                vec![Event::Pongs(MANY_PINGS)],
            )
        },
        answered(
            id(6, 1),
            UTF8,
            fragmented(Opcode::Text, [&b"\xF0\x9F"[..], b"", b"\xA6\x80"]),
            vec![Event::text(b"\xF0\x9F\xA6\x80")],
        ),
        answered(
            id(6, 2),
            UTF8,
            segments([b"\x81\x04\xF0\x9F", b"\xA6\x80"]),
            vec![Event::text(b"\xF0\x9F\xA6\x80")],
        ),
        answered(id(6, 3), UTF8, whole_text(b"\0nul\0"), vec![Event::text(b"\0nul\0")]),
        answered(
            id(6, 4),
            UTF8,
            whole_text(b"\xEF\xBB\xBFbom"),
            vec![Event::text(b"\xEF\xBB\xBFbom")],
        ),
    ]
}
