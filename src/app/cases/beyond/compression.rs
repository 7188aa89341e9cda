//! Group 17: permessage-deflate (RFC 7692), beyond its round trips.

use std::time::Duration;

use crate::app::behavior::Handshake;
use crate::app::cases::beyond::kinds::{
    self, INJECTED, LIMITS, RESERVED_BITS, after_echo, answered, fails, first_echo,
};
use crate::app::cases::case::{
    Action, Alternative, Behavior, Case, Check, Edit, Event, ExpectedClose, Id, Limit,
};
use crate::app::cases::data::Data;
use crate::app::cases::payload::Payload;
use crate::app::cases::volume::PLAIN;
use crate::websocket::frame::{FIN, Opcode, RSV1};
use crate::websocket::message::Kind;
use crate::websocket::negotiation::Parameters;

const SLOW: Limit = Limit::Kill(Duration::from_secs(20));

const UNDEFINED: &str = "RFC 7692 §7: \"A client MUST _Fail the WebSocket Connection_ if … the negotiation response \
                         contains an extension parameter not defined for use in a response\".";
const INVALID: &str = "RFC 7692 §7: \"A client MUST _Fail the WebSocket Connection_ if … the negotiation response \
                       contains an extension parameter with an invalid value\".";
const REPEATED: &str = "RFC 7692 §7: \"A client MUST _Fail the WebSocket Connection_ if … the negotiation response \
                        contains multiple extension parameters with the same name\".";
const FIRST: &str = "RFC 7692 §6: \"An endpoint MUST NOT set the \"Per-Message Compressed\" bit of control frames and \
                     non-first fragments of a data message. An endpoint receiving such a frame MUST _Fail the WebSocket \
                     Connection_.\"";
const INFLATE: &str = "RFC 7692 §7.2.2: \"Append 4 octets of 0x00 0x00 0xff 0xff to the tail end of the payload of the \
                       message. Decompress the resulting data using DEFLATE.\"";
const UTF8: &str = "RFC 6455 §8.1: \"When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte stream \
                    is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket Connection_.\"";
const EXAMPLES: &str = "RFC 7692 §7.2.3 has this message as an example.";
const TAKEOVER: &str = "RFC 7692 §7.1.1: without server_no_context_takeover the server may refer to earlier messages; with \
                        client_no_context_takeover in its response, the client may not.";
const WINDOW: &str = "RFC 7692 §7.1.2: client_max_window_bits in a response limits the window with which the client \
                      compresses. server_max_window_bits may be there without being offered.";

const NO_SERVER_TAKEOVER: Parameters = Parameters { server_no_context_takeover: true, ..PLAIN };
const NO_CLIENT_TAKEOVER: Parameters = Parameters { client_no_context_takeover: true, ..PLAIN };

const CLIENT_8: Parameters = Parameters { client_max_window_bits: Some(8), ..PLAIN };
const CLIENT_9: Parameters = Parameters { client_max_window_bits: Some(9), ..PLAIN };
const SERVER_8: Parameters = Parameters { server_max_window_bits: Some(8), ..PLAIN };
const SERVER_9: Parameters = Parameters { server_max_window_bits: Some(9), ..PLAIN };

/// For messages that refer to no earlier one.
const ANY: &[Parameters] = &[PLAIN, NO_SERVER_TAKEOVER];

const HELLO: &[u8] = b"Hello";

/// "Hello" in a block with fixed codes (RFC 7692 §7.2.3.1).
const DEFLATED: &[u8] = b"\xF2\x48\xCD\xC9\xC9\x07\x00";

/// The same after [`DEFLATED`], to which it refers (§7.2.3.2).
const DEFLATED_AGAIN: &[u8] = b"\xF2\x00\x11\x00\x00";

pub fn cases() -> Vec<Case> {
    [answers(), invalid(), valid()].concat()
}

/// Answers to the handshake whose parameters the client has to refuse, whether it offered the extension or
/// not.
fn answers() -> Vec<Case> {
    const NAME: &str = "Sec-WebSocket-Extensions";
    let answers: [(&'static str, &'static [Edit]); 6] = [
        (UNDEFINED, &[Edit::Set(NAME, "permessage-deflate; not_asked_for")]),
        (INVALID, &[Edit::Set(NAME, "permessage-deflate; server_max_window_bits=7")]),
        (INVALID, &[Edit::Set(NAME, "permessage-deflate; server_max_window_bits=16")]),
        (INVALID, &[Edit::Set(NAME, "permessage-deflate; client_max_window_bits")]),
        (INVALID, &[Edit::Set(NAME, "permessage-deflate; server_no_context_takeover=1")]),
        (
            REPEATED,
            &[Edit::Set(
                NAME,
                "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            )],
        ),
    ];
    let cases = (1..).zip(answers).map(|(number, (rule, edits))| {
        fails(Id::new(17, 1, number), rule, Handshake::Valid, edits, HELLO)
    });
    cases.collect()
}

/// Messages that the client has to refuse.
fn invalid() -> Vec<Case> {
    const DATA: &[u16] = &[1002, 1007];
    let after = || Action::ping(b"after");
    let [first, last] = [&DEFLATED[..3], &DEFLATED[3..]];
    let continued = vec![
        Action::raw(RSV1 | Opcode::Text as u8, first),
        Action::raw(FIN | RSV1 | Opcode::Continuation as u8, last),
        after(),
    ];
    let ping = vec![Action::raw(FIN | RSV1 | Opcode::Ping as u8, HELLO), after()];
    let data = |number, payload: &'static [u8]| {
        let note = "The RFC names no code for it.";
        Case { note, ..refused(number, INFLATE, vec![deflated(payload)], DATA) }
    };
    // Most inflaters give what they have of data that is not whole.
    let cut = |number, payload, inflated: &'static [u8]| Case {
        note: "The RFC asks for no check, so a client that takes what it can inflate is NON-STRICT.",
        alternative: Some(kinds::non_strict(
            vec![first_echo(), Event::text(inflated)],
            ExpectedClose::by_server(),
        )),
        ..data(number, payload)
    };
    vec![
        Case {
            terms: &[],
            ..refused(1, RESERVED_BITS, vec![deflated(DEFLATED), after()], &[1002])
        },
        refused(2, FIRST, continued, &[1002]),
        refused(3, FIRST, ping, &[1002]),
        // A block of the reserved type.
        data(4, b"\x06garbage"),
        // Cut inside a block, and before the header of the empty block that a flush appends.
        cut(5, &DEFLATED[..4], b"Helh"),
        cut(6, &DEFLATED[..6], HELLO),
        // Refers to a message that was never sent.
        data(7, DEFLATED_AGAIN),
        // FF in a block without compression.
        refused(8, UTF8, vec![deflated(b"\x00\x01\x00\xFE\xFF\xFF\x00")], &[1007]),
    ]
}

/// Messages that the client has to echo.
fn valid() -> Vec<Case> {
    let echo = |terms, section, number, rule, actions, events| Case {
        terms,
        ..answered(Id::new(17, section, number), rule, actions, events)
    };
    let example = |number, payloads: &[&'static [u8]]| {
        let actions = payloads.iter().map(|payload| deflated(payload)).collect();
        echo(ANY, 3, number, EXAMPLES, actions, vec![Event::text(HELLO); payloads.len()])
    };
    let [first, last] = [&DEFLATED[..3], &DEFLATED[3..]];
    let between = vec![
        Action::raw(RSV1 | Opcode::Text as u8, first),
        Action::ping(b"ping"),
        Action::frame(Opcode::Continuation, last),
    ];
    let prose: Payload = Data::Prose.message(1, 2048);
    let thrice = vec![Action::text(prose.clone()); 3];
    let echoes = vec![Event::text(prose); 3];
    let hellos = |second| vec![deflated(DEFLATED), deflated(second)];
    let empty = Event::text(b"");
    vec![
        example(1, &[b"\x00\x05\x00\xFA\xFFHello\x00"]),
        // With BFINAL, and a message after it.
        example(2, &[b"\xF3\x48\xCD\xC9\xC9\x07\x00\x00", DEFLATED]),
        example(3, &[b"\xF2\x48\x05\x00\x00\x00\xFF\xFF\xCA\xC9\xC9\x07\x00"]),
        echo(ANY, 3, 4, EXAMPLES, vec![deflated(b"\x00")], vec![empty]),
        echo(ANY, 3, 5, INJECTED, between, vec![Event::Pong(b"ping".into()), Event::text(HELLO)]),
        echo(&[PLAIN], 4, 1, TAKEOVER, hellos(DEFLATED_AGAIN), vec![Event::text(HELLO); 2]),
        echo(&[NO_SERVER_TAKEOVER], 4, 2, TAKEOVER, hellos(DEFLATED), vec![Event::text(HELLO); 2]),
        echo(&[NO_CLIENT_TAKEOVER], 4, 3, TAKEOVER, thrice, echoes),
        window(1, &[SERVER_8], Check::Nothing, 300),
        window(2, &[SERVER_9], Check::Nothing, 600),
        window(3, &[CLIENT_8], Check::Window, 300),
        window(4, &[CLIENT_9], Check::Window, 600),
        bomb(),
    ]
}

/// A message that repeats something only beyond the window.
fn window(number: u8, terms: &'static [Parameters], check: Check, distance: usize) -> Case {
    let noise = Data::Noise.message(1, distance).to_vec();
    let message: Payload = noise.repeat(2).into();
    let actions = vec![deflated(DEFLATED), Action::frame(Opcode::Binary, message.clone())];
    let events = vec![Event::text(HELLO), Event::Message(Kind::Binary, message)];
    let case = answered(Id::new(17, 5, number), WINDOW, actions, events);
    Case { check, terms, ..case }
}

/// A message of 413 KiB that inflates to 64 MiB.
fn bomb() -> Case {
    /// A block with fixed codes begins, and has the literal `a` and eight copies of 258 bytes.
    const START: &[u8] = b"\x4A\x1C\x05\xA3\x60\x14\x8C\x82\x51\x30\x0A\x46\xC1\x28";
    /// Eight more copies.
    const COPIES: &[u8] = b"\x18\x05\xA3\x60\x14\x8C\x82\x51\x30\x0A\x46\xC1\x28";
    /// The end of the last one and of the block, and the header of an empty one.
    const END: &[u8] = b"\x00\x00";
    const TIMES: usize = (64 << 20) / (8 * 258);
    let actions = vec![
        Action::raw(RSV1 | Opcode::Binary as u8, START),
        Action::raw(Opcode::Continuation as u8, Payload::repeated(COPIES, TIMES * COPIES.len())),
        Action::frame(Opcode::Continuation, END),
    ];
    let (id, events) = (Id::new(17, 6, 1), vec![first_echo(), Event::OverLimit]);
    let close = ExpectedClose { clean: false, ..ExpectedClose::answered(&[1000, 1001]) };
    let refusal = Alternative {
        behavior: Behavior::Ok,
        events: vec![first_echo()],
        close: ExpectedClose::failing(&[1009]),
    };
    Case {
        terms: ANY,
        alternative: Some(refusal),
        note: "The client may also refuse it with 1009. The server does not see how much memory it took.",
        ..Case::beyond(id, LIMITS, after_echo(actions), events, close, SLOW)
    }
}

/// A whole text message with this compressed payload.
fn deflated(payload: &'static [u8]) -> Action {
    Action::raw(FIN | RSV1 | Opcode::Text as u8, payload)
}

/// A case that the client has to fail with one of `codes`, or by ending TCP.
fn refused(number: u8, rule: &'static str, actions: Vec<Action>, codes: &[u16]) -> Case {
    Case { terms: ANY, ..kinds::refused(Id::new(17, 2, number), rule, actions, codes) }
}
