//! Cases of the kinds that several groups have, and the rules that they share.

use std::time::Duration;

use crate::app::behavior::Handshake;
use crate::app::cases::case::{
    Action, Alternative, Behavior, Case, Edit, Event, ExpectedClose, Id, Limit, Opening,
};

pub(super) const TEXT: &[u8] = b"Hello, world!";
const FIRST: &[u8] = b"first";

pub(super) const KILL: Limit = Limit::Kill(Duration::from_secs(2));
pub(super) const END: Limit = Limit::End(Duration::from_secs(3));

pub(super) const RESERVED_BITS: &str = "RFC 6455 §5.2: \"If a nonzero value is received and none of the negotiated extensions \
                                 defines the meaning of such a nonzero value, the receiving endpoint MUST _Fail the \
                                 WebSocket Connection_.\"";
pub(super) const INJECTED: &str = "RFC 6455 §5.4: \"Control frames (see Section 5.5) MAY be injected in the middle of a fragmented \
                            message.\"";
const LOST: &str = "RFC 6455 §7.2.1: \"If at any point the underlying transport layer connection is unexpectedly lost, \
                        the client MUST _Fail the WebSocket Connection_.\" It names no code for that.";
pub(super) const LIMITS: &str = "RFC 6455 §10.4: \"Implementations that have implementation- and/or platform-specific limitations \
                          regarding the frame size or total message size after reassembly from multiple frames MUST protect \
                          themselves against exceeding those limits.\"";

/// A case that the client answers with `events` before the server closes.
pub(super) fn answered(
    id: Id,
    rule: &'static str,
    actions: Vec<Action>,
    events: Vec<Event>,
) -> Case {
    Case::beyond(id, rule, actions, events, ExpectedClose::by_server(), KILL)
}

/// A case in which the client echoes this many texts.
pub(super) fn echoed(id: Id, rule: &'static str, texts: usize) -> Case {
    answered(id, rule, vec![Action::text(TEXT); texts], vec![Event::text(TEXT); texts])
}

/// A case in which the client has to fail the connection with one of `codes`, or by ending TCP.
pub(super) fn refused(id: Id, rule: &'static str, actions: Vec<Action>, codes: &[u16]) -> Case {
    let close = ExpectedClose::failing(codes);
    Case::beyond(id, rule, after_echo(actions), vec![first_echo()], close, KILL)
}

/// A case whose answer to the handshake the client has to refuse. A client that does not sees `text`.
pub(super) fn fails(
    id: Id,
    rule: &'static str,
    handshake: Handshake,
    edits: &'static [Edit],
    text: &'static [u8],
) -> Case {
    let opening = Opening { handshake, edits, ..Opening::VALID };
    let (actions, close) = (vec![Action::text(text)], ExpectedClose::by_end_of_tcp());
    Case { opening, ..Case::beyond(id, rule, actions, vec![], close, END) }
}

/// The codes that a client may still send once the server has ended TCP.
pub(super) const CODES_AFTER_LOSS: [u16; 5] = [1000, 1001, 1002, 1007, 1011];

/// A case whose connection is lost by the `end` of TCP, after the actions of the `start`.
pub(super) fn lost(id: Id, start: Vec<Action>, end: impl IntoIterator<Item = Action>) -> Case {
    let actions = after_echo(start.into_iter().chain(end));
    let close = ExpectedClose::failing(&CODES_AFTER_LOSS);
    Case::beyond(id, LOST, actions, vec![first_echo()], close, END)
}

/// Another reaction, which is NON-STRICT.
pub(super) fn non_strict(events: Vec<Event>, close: ExpectedClose) -> Alternative {
    Alternative { behavior: Behavior::NonStrict, events, close }
}

/// A text and the wait for its echo, before the actions. A client that is not there can't pass.
pub(super) fn after_echo(actions: impl IntoIterator<Item = Action>) -> Vec<Action> {
    let text = Action::text(FIRST);
    [text, Action::Await(Duration::from_secs(2))].into_iter().chain(actions).collect()
}

/// The echo of the text of [`after_echo`].
pub(super) fn first_echo() -> Event {
    Event::text(FIRST)
}
