//! Group 7: the closing handshake, its payloads and its codes.

use std::time::Duration;

use crate::app::cases::case::{Action, Case, Event, ExpectedClose, Id, Judging, Limit};
use crate::app::cases::payload::Payload;
use crate::websocket::frame::Opcode;

const TEXT: &[u8] = b"Hello, world!";
const LIMIT: Limit = Limit::Kill(Duration::from_secs(1));

/// Codes that the client answers with the same code or 1000.
const RIGHT_CODES: [u16; 13] =
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];

/// Codes that the client has to refuse.
const WRONG_CODES: [u16; 9] = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];

const UNDEFINED_CODES: [u16; 2] = [5000, 65_535];

pub(super) fn cases() -> Vec<Case> {
    [order(), payloads(), codes()].concat()
}

/// Frames after a close frame.
fn order() -> Vec<Case> {
    let id = |number| Id::new(7, 1, number);
    let text = || Action::text(TEXT);
    let ping = || Action::ping(b"");
    let fragment = || Action::raw(Opcode::Text as u8, TEXT);
    let last = || Action::frame(Opcode::Continuation, TEXT);
    let large = Action::text(Payload::repeated(b"0123456789", 256 << 10));
    let normal = || Action::close(1000, b"");
    let echo = || vec![Event::text(TEXT)];
    let answered = || ExpectedClose::answered(&[1000]);
    vec![
        Case {
            judging: Judging::CodeMatters,
            ..Case::script(id(1), vec![text()], echo(), ExpectedClose::by_server(), LIMIT)
        },
        case(id(2), vec![normal(), Action::frame(Opcode::Close, b"")], answered()),
        case(id(3), vec![normal(), ping()], answered()),
        case(id(4), vec![normal(), text()], answered()),
        Case {
            note: "Some clients answer 1002, since the message that had begun is not complete.",
            ..case(id(5), vec![fragment(), normal(), last()], answered())
        },
        Case {
            judging: Judging::Informational,
            ..Case::script(id(6), vec![large, text(), normal(), ping()], echo(), answered(), LIMIT)
                .or_non_strict(vec![])
        },
    ]
}

fn payloads() -> Vec<Case> {
    let id = |number| Id::new(7, 3, number);
    let answered = || ExpectedClose::answered(&[1000]);
    let refused = || ExpectedClose::refused(&[1002]);
    vec![
        case(id(1), vec![Action::frame(Opcode::Close, b"")], answered()),
        case(id(2), vec![Action::frame(Opcode::Close, b"a")], refused()),
        case(id(3), vec![Action::close(1000, b"")], answered()),
        case(id(4), vec![Action::close(1000, TEXT)], answered()),
        case(id(5), vec![Action::close(1000, &[b'*'; 123])], answered()),
        case(id(6), vec![Action::close(1000, &[b'*'; 124])], refused()),
        case(
            Id::new(7, 5, 1),
            vec![Action::close(1000, b"a surrogate: \xED\xA0\x80")],
            ExpectedClose::refused(&[1002, 1007]),
        ),
    ]
}

fn codes() -> Vec<Case> {
    let coded = |section, number, code, close| {
        let note = match code {
            1004 => "1004 is reserved, and \"might be defined in the future\" (RFC 6455 §7.4.1).",
            1010 => "Only clients have a use for 1010 (RFC 6455 §7.4.1), and some refuse it.",
            _ => "",
        };
        let actions = vec![Action::close(code, b"")];
        Case { note, ..case(Id::new(7, section, number), actions, close) }
    };
    let mut cases = Vec::new();
    for (number, code) in (1..).zip(RIGHT_CODES) {
        cases.push(coded(7, number, code, ExpectedClose::answered(&[1000, code])));
    }
    for (number, code) in (1..).zip(WRONG_CODES) {
        cases.push(coded(9, number, code, ExpectedClose::refused(&[1002])));
    }
    for (number, code) in (1..).zip(UNDEFINED_CODES) {
        let case = coded(13, number, code, ExpectedClose::refused(&[1000, code, 1002]));
        cases.push(Case { judging: Judging::Informational, ..case });
    }
    cases
}

/// A case that the client answers only with its close frame.
fn case(id: Id, actions: Vec<Action>, close: ExpectedClose) -> Case {
    let case = Case::script(id, actions, vec![], close, LIMIT);
    Case { judging: Judging::CodeMatters, ..case }
}
