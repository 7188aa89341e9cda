//! Group 18: TLS below the WebSocket. Without TLS there is no verdict.

use crate::app::cases::beyond::kinds::{self, TEXT, lost};
use crate::app::cases::case::{Action, Case, Event, Id, Transport, Writes, written};

const RECORDS: &str = "RFC 8446 §5.1: \"The record layer fragments information blocks into TLSPlaintext records carrying \
                       data in chunks of 2^14 bytes or less.\"";
const KEYS: &str = "RFC 8446 §4.6.3: \"If the request_update field is set to \"update_requested\", then the receiver MUST \
                    send a KeyUpdate of its own\".";

pub fn cases() -> Vec<Case> {
    let text = || Action::text(TEXT);
    let echo = || Event::text(TEXT);
    let ended = |number, start| lost(Id::new(18, 1, number), start, [Action::EndTcp]);
    let echoed = |section, rule, actions, events| {
        kinds::answered(Id::new(18, section, 1), rule, actions, events)
    };
    let cases = vec![
        ended(1, vec![]),
        ended(2, vec![Action::part(b"\x81\x0DHello")]),
        echoed(2, RECORDS, written(vec![text()], Writes::Chopped(1)), vec![echo()]),
        Case {
            note: "TLS 1.2 has no such message, and gets two texts.",
            ..echoed(3, KEYS, vec![text(), Action::UpdateKeys, text()], vec![echo(), echo()])
        },
    ];
    cases.into_iter().map(|case| Case { transport: Transport::Tls, ..case }).collect()
}
