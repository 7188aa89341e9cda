//! Group 6: valid and invalid UTF-8.
//!
//! The sequences from 6.5 on are those of Markus Kuhn's stress test for UTF-8 decoders, with others at
//! the same boundaries.

use std::time::Duration;

use crate::app::cases::case::{Action, Case, Event, ExpectedClose, Id, Judging, Limit, fragmented};
use crate::websocket::frame::{self, FIN, Opcode};

const CLOSE: Limit = Limit::Close(Duration::from_secs(1));
const KILL: Limit = Limit::Kill(Duration::from_secs(1));
const SHORT_KILL: Limit = Limit::Kill(Duration::from_millis(500));
const PAUSE: Action = Action::Wait(Duration::from_secs(1));

/// "kosme" in Greek. Its second letter has three bytes.
const KOSME: &[u8] = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5";

/// Both parts have two-byte characters. The second part begins with one.
const PARTS: [&[u8]; 2] = ["Grüß µ@".as_bytes(), "öäü-UTF-8".as_bytes()];

/// A surrogate, which UTF-8 does not have.
const SURROGATE: &[u8] = b"\xED\xA0\x80";

/// U+110000, above the last code point. The second byte shows it.
const ABOVE_UNICODE: &[u8] = b"\xF4\x90\x80\x80";

const ASCII: &[u8] = b"ASCII";

pub(super) fn cases() -> Vec<Case> {
    [fragments(), fail_fast(), sequences()].concat()
}

fn fragments() -> Vec<Case> {
    let empty: &[u8] = b"";
    let middle: &[u8] = b"the middle";
    let text = |fragments: &[&'static [u8]]| fragmented(Opcode::Text, fragments.iter().copied());
    let whole = PARTS.concat();
    let wrong = [KOSME, SURROGATE, ASCII].concat();
    vec![
        echoed(Id::new(6, 1, 1), text(&[empty]), empty),
        echoed(Id::new(6, 1, 2), text(&[empty; 3]), empty),
        echoed(Id::new(6, 1, 3), text(&[empty, middle, empty]), middle),
        echoed(Id::new(6, 2, 1), whole_text(&whole), &whole),
        echoed(Id::new(6, 2, 2), text(&PARTS), &whole),
        echoed(Id::new(6, 2, 3), bytewise(&whole), &whole),
        echoed(Id::new(6, 2, 4), bytewise(KOSME), KOSME),
        refused(Id::new(6, 3, 1), whole_text(&wrong), vec![], KILL),
        refused(Id::new(6, 3, 2), bytewise(&wrong), vec![], KILL),
    ]
}

/// Text in three parts, the second of which is invalid. A client that waits for the end of the message
/// or the frame does not notice it at once.
fn fail_fast() -> Vec<Case> {
    let cut = |at: usize, len: usize| {
        let text = [KOSME, ABOVE_UNICODE, ASCII].concat();
        [text[..at].to_vec(), text[at..at + len].to_vec(), text[at + len..].to_vec()]
    };
    let code_point = || cut(KOSME.len(), ABOVE_UNICODE.len());
    let byte = || cut(KOSME.len() + 1, 1);
    [
        fragmented(Opcode::Text, code_point()),
        fragmented(Opcode::Text, byte()),
        pieces(code_point()),
        pieces(byte()),
    ]
    .into_iter()
    .zip(1..)
    .map(|(parts, number)| {
        let mut actions = Vec::new();
        for part in parts {
            if !actions.is_empty() {
                actions.extend([PAUSE, Action::Mark]);
            }
            actions.push(part);
        }
        refused(Id::new(6, 4, number), actions, vec![Event::Open], KILL)
            .or_non_strict(vec![Event::Open, Event::Open])
    })
    .collect()
}

/// One text per case, some of them valid UTF-8.
fn sequences() -> Vec<Case> {
    let mut cases = Vec::new();
    for (section, texts) in (5..).zip(groups()) {
        for (number, text) in (1..).zip(texts) {
            let id = Id::new(6, section, number);
            cases.push(match str::from_utf8(&text) {
                Ok(_) => Case { limit: SHORT_KILL, ..echoed(id, whole_text(&text), &text) },
                Err(_) => refused(id, whole_text(&text), vec![], SHORT_KILL),
            });
        }
    }
    cases
}

/// The texts of 6.5 to 6.23.
fn groups() -> [Vec<Vec<u8>>; 19] {
    /// All but the last byte of the first, or of the last, overlong or impossible sequence of each length.
    const CUT: [&[u8]; 10] = [
        b"\xC0",
        b"\xE0\x80",
        b"\xF0\x80\x80",
        b"\xF8\x80\x80\x80",
        b"\xFC\x80\x80\x80\x80",
        b"\xDF",
        b"\xEF\xBF",
        b"\xF7\xBF\xBF",
        b"\xFB\xBF\xBF\xBF",
        b"\xFD\xBF\xBF\xBF\xBF",
    ];
    let list = |texts: &[&[u8]]| texts.iter().map(|text| text.to_vec()).collect::<Vec<_>>();
    let chars = |chars: &mut dyn Iterator<Item = u32>| {
        chars.filter_map(char::from_u32).map(|char| char.to_string().into_bytes()).collect()
    };
    let starts = |range: std::ops::Range<u8>| range.flat_map(|byte| [byte, b' ']).collect();
    let continuations = b"\x80\xBF\x80\xBF\x80\xBF";
    [
        // 6.5: valid.
        list(&[
            b"hello$world",
            "hello¢world".as_bytes(),
            "hello€world".as_bytes(),
            "hello\u{24B62}world".as_bytes(),
            KOSME,
        ]),
        // 6.6: each prefix of a text.
        (1..=KOSME.len()).map(|len| KOSME[..len].to_vec()).collect(),
        // 6.7, 6.8: the first sequence of each length, the last two above Unicode.
        list(&[b"\0", b"\xC2\x80", b"\xE0\xA0\x80", b"\xF0\x90\x80\x80"]),
        list(&[b"\xF8\x88\x80\x80\x80", b"\xFC\x84\x80\x80\x80\x80"]),
        // 6.9, 6.10: the last sequence of each length.
        list(&[b"\x7F", b"\xDF\xBF", b"\xEF\xBF\xBF", b"\xF4\x8F\xBF\xBF"]),
        list(&[b"\xF7\xBF\xBF\xBF", b"\xFB\xBF\xBF\xBF\xBF", b"\xFD\xBF\xBF\xBF\xBF\xBF"]),
        // 6.11: around the surrogates, and the end of Unicode.
        list(&[
            b"\xED\x9F\xBF",
            b"\xEE\x80\x80",
            b"\xEF\xBF\xBD",
            b"\xF4\x8F\xBF\xBF",
            ABOVE_UNICODE,
        ]),
        // 6.12: continuation bytes that continue nothing: the first, the last, some, all but the last.
        [
            list(&[b"\x80", b"\xBF"]),
            (2..=6).map(|len| continuations[..len].to_vec()).collect(),
            vec![(0x80..0xBF).collect()],
        ]
        .concat(),
        // 6.13: start bytes that start nothing.
        [0xC0..0xDF, 0xE0..0xEF, 0xF0..0xF7, 0xF8..0xFB, 0xFC..0xFD].map(starts).into(),
        // 6.14, 6.15: a continuation byte is missing.
        list(&CUT),
        vec![CUT.concat()],
        // 6.16: bytes that never occur in UTF-8.
        list(&[b"\xFE", b"\xFF", b"\xFE\xFE\xFF\xFF"]),
        // 6.17 to 6.19: overlong forms of a slash, of the last code points, of NUL.
        list(&[
            b"\xC0\xAF",
            b"\xE0\x80\xAF",
            b"\xF0\x80\x80\xAF",
            b"\xF8\x80\x80\x80\xAF",
            b"\xFC\x80\x80\x80\x80\xAF",
        ]),
        list(&[
            b"\xC1\xBF",
            b"\xE0\x9F\xBF",
            b"\xF0\x8F\xBF\xBF",
            b"\xF8\x87\xBF\xBF\xBF",
            b"\xFC\x83\xBF\xBF\xBF\xBF",
        ]),
        list(&[
            b"\xC0\x80",
            b"\xE0\x80\x80",
            b"\xF0\x80\x80\x80",
            b"\xF8\x80\x80\x80\x80",
            b"\xFC\x80\x80\x80\x80\x80",
        ]),
        // 6.20, 6.21: surrogates, alone and in pairs.
        list(&[
            SURROGATE,
            b"\xED\xAD\xBF",
            b"\xED\xAE\x80",
            b"\xED\xAF\xBF",
            b"\xED\xB0\x80",
            b"\xED\xBE\x80",
            b"\xED\xBF\xBF",
        ]),
        [b"\xED\xA0\x80", b"\xED\xAD\xBF", b"\xED\xAE\x80", b"\xED\xAF\xBF"]
            .iter()
            .flat_map(|high| {
                [b"\xED\xB0\x80", b"\xED\xBF\xBF"].map(|low| [&high[..], low].concat())
            })
            .collect(),
        // 6.22: the last two code points of each plane, which are valid though they are noncharacters.
        chars(&mut (0..=0x10).flat_map(|plane| [0xFFFE, 0xFFFF].map(|last| plane << 16 | last))),
        // 6.23: the specials, such as the replacement character.
        chars(&mut (0xFFF9..=0xFFFF)),
    ]
}

fn whole_text(text: &[u8]) -> Vec<Action> {
    vec![Action::text(text.to_vec())]
}

/// A text in fragments of one byte.
fn bytewise(text: &[u8]) -> Vec<Action> {
    fragmented(Opcode::Text, text.iter().map(|&byte| vec![byte]))
}

/// The parts of a text as pieces of one frame.
fn pieces(parts: [Vec<u8>; 3]) -> Vec<Action> {
    let mut header = Vec::new();
    frame::encode_raw_header(FIN | Opcode::Text as u8, parts.concat().len(), &mut header);
    let [first, second, third] = parts;
    [[header, first].concat(), second, third].map(Action::part).into()
}

fn echoed(id: Id, actions: Vec<Action>, text: &[u8]) -> Case {
    let events = vec![Event::text(text.to_vec())];
    Case::script(id, actions, events, ExpectedClose::by_server(), CLOSE)
}

fn refused(id: Id, actions: Vec<Action>, events: Vec<Event>, limit: Limit) -> Case {
    let case = Case::script(id, actions, events, ExpectedClose::failing(&[1007]), limit);
    Case { judging: Judging::SideMatters, ..case }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_groups_have_so_many_right_and_wrong_texts() {
        let counts = groups().map(|group| {
            assert_eq!(BTreeSet::from_iter(&group).len(), group.len(), "{group:X?}");
            let right = group.iter().filter(|text| str::from_utf8(text).is_ok()).count();
            (right, group.len() - right)
        });
        let expected = [
            (5, 0),
            (5, 6),
            (4, 0),
            (0, 2),
            (4, 0),
            (0, 3),
            (4, 1),
            (0, 8),
            (0, 5),
            (0, 10),
            (0, 1),
            (0, 3),
            (0, 5),
            (0, 5),
            (0, 5),
            (0, 7),
            (0, 8),
            (34, 0),
            (7, 0),
        ];
        assert_eq!(counts, expected);
        let total =
            counts.iter().fold((0, 0), |(right, wrong), count| (right + count.0, wrong + count.1));
        assert_eq!(total, (63, 69));
    }
}
