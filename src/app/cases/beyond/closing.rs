//! Group 15: ends of a connection that the suite never plays.

use std::time::Duration;

use crate::app::cases::beyond::kinds::{
    self, CODES_AFTER_LOSS, END, INJECTED, KILL, TEXT, first_echo, lost,
};
use crate::app::cases::case::{
    Action, Alternative, Behavior, Case, Check, Event, ExpectedClose, Id, Limit,
};
use crate::app::cases::payload::Payload;
use crate::websocket::frame::Opcode;

/// How long a client may wait for the end of TCP.
const MAX_WAIT: Limit = Limit::End(Duration::from_secs(12));

const REGISTERED: &str = "RFC 6455 §7.4.2: \"Status codes in the range 1000-2999 are reserved for definition by this \
                          protocol, its future revisions, and extensions specified in a permanent and readily \
                          available public specification.\" IANA has registered 1012 to 1014 since.";
const RESERVED: &str = "RFC 6455 §7.4.1: 1015 \"is a reserved value and MUST NOT be set as a status code in a Close \
                        control frame by an endpoint\".";
const REASON: &str = "RFC 6455 §5.5.1: \"When sending a Close frame in response, the endpoint typically echos the \
                      status code it received.\"";
const ANSWER: &str = "RFC 6455 §5.5.1: \"If an endpoint receives a Close frame and did not previously send a Close \
                      frame, the endpoint MUST send a Close frame in response.\"";
const IGNORED: &str = "RFC 6455 §1.4: \"after receiving a control frame indicating the connection should be closed, a peer \
                       discards any further data received.\"";
const TCP: &str = "RFC 6455 §7.1.1: \"In abnormal cases (such as not having received a TCP Close from the server after \
                   a reasonable amount of time) a client MAY initiate the TCP Close.\"";

pub fn cases() -> Vec<Case> {
    [codes(), orders(), ends_of_tcp()].concat()
}

fn codes() -> Vec<Case> {
    let mut cases: Vec<_> = (1..)
        .zip([1012, 1013, 1014])
        .map(|(number, code)| {
            let close = ExpectedClose::answered(&[1000, code]);
            let unknown = ExpectedClose::answered(&[1002]);
            Case {
                note: "A client that knows only the codes of RFC 6455 refuses it with 1002, which is NON-STRICT.",
                alternative: Some(kinds::non_strict(vec![], unknown)),
                ..case(Id::new(15, 1, number), REGISTERED, vec![Action::close(code, b"")], close)
            }
        })
        .collect();
    let refused = ExpectedClose::refused(&[1002]);
    cases.push(Case {
        check: Check::Reaction,
        ..case(Id::new(15, 1, 4), RESERVED, vec![Action::close(1015, b"")], refused)
    });
    let reason = "whole: ".to_owned() + &"\u{1f980}".repeat(29);
    cases.push(Case {
        note: "A reason in the answer has to be UTF-8, so it can't be cut inside a character.",
        ..case(
            Id::new(15, 1, 5),
            REASON,
            vec![Action::close(4999, reason.as_bytes())],
            ExpectedClose::answered(&[1000, 4999]),
        )
    });
    cases
}

/// Close frames and what is beside them.
fn orders() -> Vec<Case> {
    let id = |number| Id::new(15, 2, number);
    let normal = || Action::close(1000, b"");
    let answered = || ExpectedClose::answered(&[1000]);
    let large = Payload::repeated(b"0123456789abcdef", 1 << 20);
    let echo = Event::text(large.clone());
    let begun = Action::raw(Opcode::Text as u8, TEXT);
    vec![
        Case {
            note: "The message can't be completed any more. Some clients answer 1002, which is NON-STRICT.",
            alternative: Some(kinds::non_strict(vec![], ExpectedClose::answered(&[1002]))),
            ..case(id(1), INJECTED, vec![begun, normal()], answered())
        },
        Case {
            alternative: Some(Alternative {
                behavior: Behavior::Ok,
                events: vec![echo],
                close: answered(),
            }),
            note: "The echo may come whole before the answer, or not at all.",
            ..case(id(2), ANSWER, vec![Action::text(large), normal()], answered())
        },
        Case {
            check: Check::Silence,
            limit: END,
            ..case(
                id(3),
                IGNORED,
                vec![
                    normal(),
                    Action::text(TEXT),
                    Action::ping(b"ping"),
                    Action::frame(Opcode::Binary, Payload::repeated(b"\xFE", 64 << 10)),
                ],
                answered(),
            )
        },
        Case {
            check: Check::EndOfTcp,
            limit: MAX_WAIT,
            note: "The server answers nothing more and does not end TCP. A client that waits for longer is NON-STRICT.",
            ..case(id(4), TCP, vec![normal()], answered())
        },
    ]
}

/// The end of TCP without a close frame.
fn ends_of_tcp() -> Vec<Case> {
    let id = |section, number| Id::new(15, section, number);
    let starts = || {
        [
            vec![],
            vec![Action::part(b"\x81\x7E\x01")],
            vec![Action::part(b"\x81\x0DHello")],
            vec![Action::raw(Opcode::Text as u8, TEXT)],
        ]
    };
    let mut cases = Vec::new();
    for (number, start) in (1..).zip(starts()) {
        cases.push(lost(id(3, number), start, [Action::EndStream]));
    }
    let echo = Event::text(TEXT);
    cases.push(Case {
        alternative: Some(Alternative {
            behavior: Behavior::Ok,
            events: vec![first_echo(), echo],
            close: ExpectedClose::failing(&CODES_AFTER_LOSS),
        }),
        note: "The server still receives, so the echo may come or not.",
        ..lost(id(3, 5), vec![Action::text(TEXT)], [Action::EndStream])
    });
    for (number, start) in (1..).zip(starts()) {
        // A reset discards what was not received yet.
        let reset = [Action::Wait(Duration::from_millis(200)), Action::Reset];
        cases.push(Case {
            note: "The server can't see what the client does after the reset.",
            ..lost(id(4, number), start, reset)
        });
    }
    cases
}

/// A case that the client answers only with its close frame.
fn case(id: Id, rule: &'static str, actions: Vec<Action>, close: ExpectedClose) -> Case {
    Case::beyond(id, rule, actions, vec![], close, KILL)
}
