//! Groups 1 to 5 and 10: messages, pings, reserved bits and opcodes, fragments.

use std::time::Duration;

use crate::app::cases::case::{
    Action, Case, Event, ExpectedClose, Id, Limit, Writes, fragmented, written,
};
use crate::app::cases::payload::Payload;
use crate::websocket::frame::{FIN, Opcode};
use crate::websocket::message::Kind;

const TEXT: &[u8] = b"Hello, world!";
const BINARY: &[u8] = b"\x00\xFF\xFE\xFD\xFC\xFB\x00\xFF";
const PING: &[u8] = b"ping payload";
const PONG: &[u8] = b"unsolicited pong";
const FRAGMENTS: [&[u8]; 2] = [b"fragment1", b"fragment2"];
const WHOLE: &[u8] = b"fragment1fragment2";
const STRAY: &[u8] = b"nothing to continue";

const KILL: Limit = Limit::Kill(Duration::from_secs(1));
const CLOSE: Limit = Limit::Close(Duration::from_secs(1));
const SLOW_KILL: Limit = Limit::Kill(Duration::from_secs(10));

pub(super) fn messages() -> Vec<Case> {
    let sizes = [
        (0, Writes::Together, KILL),
        (125, Writes::Together, KILL),
        (126, Writes::Together, KILL),
        (127, Writes::Together, KILL),
        (128, Writes::Together, KILL),
        (65_535, Writes::Together, SLOW_KILL),
        (65_536, Writes::Together, SLOW_KILL),
        (65_536, Writes::Chopped(997), SLOW_KILL),
    ];
    let mut cases = Vec::new();
    for (section, kind, opcode, pattern) in
        [(1, Kind::Text, Opcode::Text, b"*"), (2, Kind::Binary, Opcode::Binary, b"\xFE")]
    {
        for (number, (size, writes, limit)) in (1..).zip(sizes) {
            let payload = Payload::repeated(pattern, size);
            let actions = written(vec![Action::frame(opcode, payload.clone())], writes);
            let expected = vec![Event::Message(kind, payload)];
            let id = Id::new(1, section, number);
            cases.push(Case::script(id, actions, expected, ExpectedClose::by_server(), limit));
        }
    }
    cases
}

pub(super) fn pings() -> Vec<Case> {
    let long = || Payload::repeated(b"\xFE", 125);
    let ping = |payload: Payload| vec![Action::ping(payload)];
    let answer = |payload| vec![Event::Pong(payload)];
    let unsolicited = |payload: &'static [u8]| {
        vec![Action::frame(Opcode::Pong, payload), Action::close(1000, b"")]
    };
    let ten = || (0..10).map(|number| Payload::from(format!("payload-{number}").into_bytes()));
    let ten_pings = || ten().flat_map(ping).collect::<Vec<_>>();
    let ten_answers = || ten().map(Event::Pong).collect();
    let pong_and_ping = vec![Action::frame(Opcode::Pong, PONG), Action::ping(PING)];
    let id = |number| Id::new(2, number, 0);
    let within = |secs, case| Case { limit: Limit::Close(Duration::from_secs(secs)), ..case };
    let bytewise = |pings| written(pings, Writes::Chopped(1));
    vec![
        answered(id(1), ping(b"".into()), answer(b"".into())),
        answered(id(2), ping(TEXT.into()), answer(TEXT.into())),
        answered(id(3), ping(BINARY.into()), answer(BINARY.into())),
        answered(id(4), ping(long()), answer(long())),
        refused(id(5), ping(Payload::repeated(b"\xFE", 126))),
        within(2, answered(id(6), bytewise(ping(long())), answer(long()))),
        answered(id(7), unsolicited(b""), vec![]),
        answered(id(8), unsolicited(PONG), vec![]),
        answered(id(9), pong_and_ping, answer(PING.into())),
        within(3, answered(id(10), ten_pings(), ten_answers())),
        within(3, answered(id(11), bytewise(ten_pings()), ten_answers())),
    ]
}

pub(super) fn reserved_bits() -> Vec<Case> {
    let frame =
        |opcode: Opcode, rsv: u8, payload| Action::raw(FIN | rsv << 4 | opcode as u8, payload);
    let second = |number, rsv, writes| {
        refused_second(Id::new(3, number, 0), frame(Opcode::Text, rsv, TEXT), writes)
    };
    vec![
        refused(Id::new(3, 1, 0), vec![frame(Opcode::Text, 1, TEXT)]),
        second(2, 2, Writes::Together),
        second(3, 3, Writes::Alone),
        second(4, 4, Writes::Chopped(1)),
        refused(Id::new(3, 5, 0), vec![frame(Opcode::Binary, 5, BINARY)]),
        refused(Id::new(3, 6, 0), vec![frame(Opcode::Binary, 6, TEXT)]),
        refused(Id::new(3, 7, 0), vec![frame(Opcode::Close, 7, b"")]),
    ]
}

pub(super) fn reserved_opcodes() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, first) in [(1, 0x3_u8), (2, 0xB)] {
        let id = |number| Id::new(4, section, number);
        let frame = |number: u8, payload: Payload| Action::raw(FIN | (first + number - 1), payload);
        cases.extend([
            refused(id(1), vec![frame(1, b"".into())]),
            refused(id(2), vec![frame(2, Payload::from(b"reserved opcode"))]),
            refused_second(id(3), frame(3, b"".into()), Writes::Together),
            refused_second(id(4), frame(4, TEXT.into()), Writes::Together),
            refused_second(id(5), frame(5, TEXT.into()), Writes::Chopped(1)),
        ]);
    }
    cases
}

pub(super) fn fragments() -> Vec<Case> {
    let id = |number| Id::new(5, number, 0);
    let message = || fragmented(Opcode::Text, FRAGMENTS);
    let around_ping = || {
        let mut actions = message();
        actions.insert(1, Action::ping(PING));
        actions
    };
    let stray = |fin: u8| Action::raw(fin | Opcode::Continuation as u8, STRAY);
    let before_text = |fin| vec![stray(fin), Action::text(TEXT)];
    let before_message_twice =
        |fin| [vec![stray(fin)], message(), vec![stray(fin)], message()].concat();
    let fragmented_control = |opcode: Opcode| {
        let [first, last] = FRAGMENTS;
        vec![Action::raw(opcode as u8, first), Action::frame(Opcode::Continuation, last)]
    };
    let ways = [Writes::Together, Writes::Alone, Writes::Chopped(1)];

    let mut cases = vec![
        refused(id(1), fragmented_control(Opcode::Ping)),
        refused(id(2), fragmented_control(Opcode::Pong)),
    ];
    for (number, writes) in (3..).zip(ways) {
        cases.push(answered(id(number), written(message(), writes), vec![Event::text(WHOLE)]));
    }
    for (number, writes) in (6..).zip(ways) {
        let events = vec![Event::Pong(PING.into()), Event::text(WHOLE)];
        cases.push(answered(id(number), written(around_ping(), writes), events));
    }
    for (first, fin) in [(9, FIN), (12, 0)] {
        for (number, writes) in (first..).zip(ways) {
            cases.push(refused(id(number), written(before_text(fin), writes)));
        }
    }
    let after_message = [message(), before_text(0)].concat();
    cases.push(refused_after(id(15), after_message, Event::text(WHOLE)));
    cases.push(refused(id(16), before_message_twice(0)));
    cases.push(refused(id(17), before_message_twice(FIN)));
    let [first, last] = FRAGMENTS;
    let text_inside = vec![Action::raw(Opcode::Text as u8, first), Action::text(last)];
    cases.push(refused(id(18), text_inside));
    for (number, writes) in [(19, Writes::Together), (20, Writes::Alone)] {
        cases.push(long_message(id(number), writes));
    }
    cases
}

pub(super) fn many_fragments() -> Vec<Case> {
    const SIZE: usize = 65_536;
    const FRAGMENT: usize = 1300;
    let sizes = (0..SIZE).step_by(FRAGMENT).map(|at| FRAGMENT.min(SIZE - at));
    let actions = fragmented(Opcode::Text, sizes.map(|size| Payload::repeated(b"*", size)));
    let expected = vec![Event::text(Payload::repeated(b"*", SIZE))];
    let close = ExpectedClose::by_server();
    vec![Case::script(Id::new(10, 1, 1), actions, expected, close, SLOW_KILL)]
}

/// A message in five fragments, with two pings inside and a pause in the middle.
fn long_message(id: Id, writes: Writes) -> Case {
    const FRAGMENTS: [&[u8]; 5] =
        [b"fragment1", b"fragment2", b"fragment3", b"fragment4", b"fragment5"];
    let [one, two]: [&[u8]; 2] = [b"first ping", b"second ping"];
    let mut actions = written(fragmented(Opcode::Text, FRAGMENTS), writes);
    let ping = |payload| written(vec![Action::ping(payload)], writes);
    actions.splice(4..4, ping(two));
    actions.splice(2..2, [ping(one), vec![Action::Wait(Duration::from_secs(1))]].concat());
    let whole = FRAGMENTS.concat();
    let events = vec![Event::Pong(one.into()), Event::Pong(two.into()), Event::text(whole)];
    answered(id, actions, events)
}

/// A case with valid actions, answered by `events`.
fn answered(id: Id, actions: Vec<Action>, events: Vec<Event>) -> Case {
    Case::script(id, actions, events, ExpectedClose::by_server(), CLOSE)
}

/// A case whose first action is already invalid.
fn refused(id: Id, actions: Vec<Action>) -> Case {
    Case::script(id, actions, vec![], ExpectedClose::failing(&[1002]), KILL)
}

/// A case with an invalid action after a valid message. The echo of the message is optional.
fn refused_after(id: Id, actions: Vec<Action>, echo: Event) -> Case {
    let close = ExpectedClose::failing(&[1002]);
    Case::script(id, actions, vec![echo], close, KILL).or_non_strict(vec![])
}

/// A valid text, an invalid frame and a ping.
fn refused_second(id: Id, wrong: Action, writes: Writes) -> Case {
    let actions = vec![Action::text(TEXT), wrong, Action::ping(b"")];
    refused_after(id, written(actions, writes), Event::text(TEXT))
}
