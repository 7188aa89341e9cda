//! The Autobahn cases: which there are, how they are played and how they are judged.

pub mod beyond;
pub mod client;
mod formats;
mod reactions;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Flaw};
use serde_json::{Value, json};
use wsecho::app::behavior::Behaviors;
use wsecho::app::cases::case::{Behavior, CloseBehavior, Id};
use wsecho::app::cases::results::{Report, State};
use wsecho::app::cases::suite::{Pattern, Suite};
use wsecho::app::cases::verdict::Ending;
use wsecho::app::service::Service;
use wsecho::app::step::Topic;

use crate::deflate::Inflater;
use crate::driver::{self, Driver, Ended};
use crate::frames;
use crate::support::read_frame;

/// Plays a case to a client, and returns the verdict.
pub fn play(service: &Service, id: Id, flaw: Flaw) -> (Behavior, CloseBehavior) {
    play_as(service, id, "client", flaw)
}

fn play_as(service: &Service, id: Id, agent: &str, flaw: Flaw) -> (Behavior, CloseBehavior) {
    let agent_in_query = agent.replace(' ', "+").replace('/', "%2F");
    let target = format!("/runCase?casetuple={id}&agent={agent_in_query}");
    let mut driver = Driver::asking(service, &target, "");
    driver.forget_response();
    let mut client = Client::new(flaw);
    while driver.ended.is_none() {
        client.receive(&driver.take());
        let output = client.take_output();
        if flaw == Flaw::Late && !output.is_empty() {
            driver.wait_until(driver.now + Duration::from_secs(2));
        }
        driver.receive(&output);
        if client.state == client::State::Ended {
            driver.end_stream();
            break;
        }
        if output.is_empty() && driver.sent.is_empty() {
            let wait = driver.wait().expect("a case ends");
            driver.suspend_until(driver.now + wait);
        }
    }
    match service.cases.results.state(agent, id) {
        Some(State::Judged(report)) => (report.behavior, report.close),
        _ => panic!("no verdict on {id}"),
    }
}

/// The verdicts that are not good, each with its cases: all but those of 9, 12 and 13, whose messages are
/// many or large.
fn failures(flaw: Flaw) -> String {
    let service = driver::service(1 << 24, 1 << 30);
    let ids = service.cases.suite.ids().iter().filter(|id| !matches!(id.group(), 9 | 12 | 13));
    let mut failures: BTreeMap<_, Vec<Id>> = BTreeMap::new();
    for id in ids {
        let (behavior, close) = play(&service, *id, flaw);
        let verdict = match (behavior, close.is_good()) {
            (Behavior::Ok | Behavior::Informational, true) => continue,
            (_, true) => behavior.as_str().into(),
            (_, false) => format!("{}, close {}", behavior.as_str(), close.as_str()),
        };
        failures.entry(verdict).or_default().push(*id);
    }
    let mut text = String::new();
    for (verdict, ids) in failures {
        writeln!(text, "{verdict}: {}", ranges(&ids)).unwrap();
    }
    text
}

/// Ids with those that follow each other as a range, such as `1.1.1-8 2.5`.
fn ranges(ids: &[Id]) -> String {
    let parts = |id: &Id| {
        let id = id.to_string();
        let (section, number) = id.rsplit_once('.').unwrap();
        (section.to_owned(), number.parse::<u32>().unwrap())
    };
    let follows = |one: &Id, two: &Id| {
        let ((section, number), other) = (parts(one), parts(two));
        (section, number + 1) == other
    };
    let ranges = ids.chunk_by(follows).map(|range| match range {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{}", parts(last).1),
        [] => String::new(),
    });
    ranges.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_right_client_passes_every_case() {
    assert_eq!(failures(Flaw::None), "");
}

#[test]
fn each_flaw_fails_exactly_the_cases_that_show_it() {
    for (flaw, expected) in FLAWS {
        let expected = expected.iter().fold(String::new(), |text, line| text + line + "\n");
        let expected =
            expected.replace("WRONG_TEXTS", WRONG_TEXTS).replace("RIGHT_TEXTS", RIGHT_TEXTS);
        assert_eq!(failures(flaw), expected, "{flaw:?}");
    }
}

/// The cases with a text in one frame that is not UTF-8.
const WRONG_TEXTS: &str = "6.6.1 6.6.3-4 6.6.6 6.6.8 6.6.10 6.8.1-2 6.10.1-3 6.11.5 6.12.1-8 \
    6.13.1-5 6.14.1-10 6.15.1 6.16.1-3 6.17.1-5 6.18.1-5 6.19.1-5 6.20.1-7 6.21.1-8";

/// Those with one that is.
const RIGHT_TEXTS: &str =
    "6.5.1-5 6.6.2 6.6.5 6.6.7 6.6.9 6.6.11 6.7.1-4 6.9.1-4 6.11.1-4 6.22.1-34 6.23.1-7";

/// The verdicts of the suite's own server on such clients, but for what docs/judging-clients.md lists.
#[rustfmt::skip]
const FLAWS: [(Flaw, &[&str]); 23] = [
    (
        Flaw::NoPong,
        &[
            "FAILED: 2.1-4 2.6 2.9-11 5.6-8 5.19-20",
        ],
    ),
    (
        Flaw::EmptyPong,
        &[
            "FAILED: 2.2-4 2.6 2.9-11 5.6-8 5.19-20",
        ],
    ),
    (
        Flaw::UnaskedPong,
        &[
            "FAILED: 2.1-11 3.1-7 4.1.1-5 4.2.1-5 5.1-20 6.1.1-3 6.2.1-4 6.3.1-2 6.4.1-4 WRONG_TEXTS 7.1.2-5 7.3.1-6 7.5.1 7.7.1-13 7.9.1-9",
            "FAILED, close WRONG CODE: 1.1.1-8 1.2.1-8 RIGHT_TEXTS 7.1.1 10.1.1",
        ],
    ),
    (
        Flaw::NoUtf8Check,
        &[
            "FAILED, close FAILED: 6.3.1-2 6.4.1-4 WRONG_TEXTS",
        ],
    ),
    (
        Flaw::LateUtf8Check,
        &[
            "NON-STRICT: 6.4.1-4",
        ],
    ),
    (
        Flaw::WrongCode,
        &[
            "FAILED, close WRONG CODE: 7.3.2 7.3.6 7.5.1 7.9.1-9",
            "OK, close WRONG CODE: 2.5 3.1-7 4.1.1-5 4.2.1-5 5.1-2 5.9-18 6.3.1-2 6.4.1-4 WRONG_TEXTS",
        ],
    ),
    (Flaw::DropOnError, &[]),
    (
        Flaw::SwallowErrors,
        &[
            "FAILED, close FAILED: 3.2-4 4.1.3-5 4.2.3-5 5.9-17 6.3.1-2 6.4.1-4 WRONG_TEXTS",
            "OK, close FAILED: 2.5 3.1 3.5-7 4.1.1-2 4.2.1-2 5.1-2 5.18",
        ],
    ),
    (
        Flaw::StrayContinuation,
        &[
            "FAILED, close FAILED: 5.9-11 5.17",
        ],
    ),
    (
        Flaw::Interleaved,
        &[
            "FAILED, close FAILED: 5.18",
        ],
    ),
    (
        Flaw::TextAsBinary,
        &[
            "FAILED: 3.2-4 4.1.3-5 4.2.3-5 5.3-8 5.15 5.19-20 6.1.1-3 6.2.1-4",
            "FAILED, close WRONG CODE: 1.1.1-8 RIGHT_TEXTS 7.1.1 10.1.1",
        ],
    ),
    (
        Flaw::EchoTwice,
        &[
            "FAILED: 1.1.1-8 1.2.1-8 3.2-4 4.1.3-5 4.2.3-5 5.3-8 5.15 5.19-20 6.1.1-3 6.2.1-4 RIGHT_TEXTS 7.1.1 10.1.1",
        ],
    ),
    (
        Flaw::EchoTruncated,
        &[
            "FAILED: 3.2-4 4.1.3-5 4.2.3-5 5.3-8 5.15 5.19-20 6.1.3 6.2.1-3",
            "FAILED, close UNCLEAN: 6.2.4 6.5.5 6.6.2 6.6.5 6.6.7 6.6.9 6.6.11 6.7.2-4 6.9.2-4 6.11.1-4 6.22.1-34 6.23.1-7",
            "FAILED, close WRONG CODE: 1.1.2-8 1.2.2-8 6.5.1-4 6.7.1 6.9.1 7.1.1 10.1.1",
        ],
    ),
    (
        Flaw::EchoFragments,
        &[
            "FAILED: 5.3-8 5.15 5.18-20 6.1.2-3 6.2.2 6.4.1 7.1.5",
            "FAILED, close FAILED: 6.3.2 6.4.2",
            "FAILED, close UNCLEAN: 6.2.3-4",
            "FAILED, close WRONG CODE: 10.1.1",
        ],
    ),
    (
        Flaw::Late,
        &[
            "FAILED, close FAILED: 6.3.1-2 6.4.1-4 WRONG_TEXTS",
            "FAILED, close UNCLEAN: 1.1.1-5 1.2.1-5 2.1-4 2.9 2.11 5.3-8 5.19-20 6.1.1-3 6.2.1-4 RIGHT_TEXTS 7.1.1",
            "NON-STRICT, close FAILED: 3.2-4 4.1.3-5 4.2.3-5 5.15",
            "OK, close FAILED: 2.5 3.1 3.5-7 4.1.1-2 4.2.1-2 5.1-2 5.9-14 5.16-18",
            "OK, close UNCLEAN: 1.1.6-8 1.2.6-8 2.6-8 2.10 7.1.2-5 7.3.1 7.3.3-5 7.7.1-13 10.1.1",
        ],
    ),
    (
        Flaw::Silent,
        &[
            "FAILED: 2.1-4 2.6 2.9-11 5.3-8 5.19-20 6.1.1-3 6.2.1-4",
            "FAILED, close WRONG CODE: 1.1.1-8 1.2.1-8 RIGHT_TEXTS 7.1.1 10.1.1",
            "NON-STRICT: 3.2-4 4.1.3-5 4.2.3-5 5.15",
        ],
    ),
    (
        Flaw::CloseAtOnce,
        &[
            "FAILED, close FAILED: 1.1.1-8 1.2.1-8 2.1-4 2.6 2.9-11 5.3-8 5.19-20 6.1.1-3 6.2.1-4 RIGHT_TEXTS 7.1.1 10.1.1",
            "FAILED, close WRONG CODE: 6.4.1-4 7.3.2 7.3.6 7.5.1 7.9.1-9",
            "NON-STRICT, close WRONG CODE: 3.2-4 4.1.3-5 4.2.3-5 5.15",
            "OK, close WRONG CODE: 2.5 3.1 3.5-7 4.1.1-2 4.2.1-2 5.1-2 5.9-14 5.16-18 6.3.1-2 WRONG_TEXTS",
        ],
    ),
    (
        Flaw::Unmasked,
        &[
            "FAILED, close FAILED: 6.3.1-2 6.4.1-4 WRONG_TEXTS",
            "FAILED, close UNCLEAN: 1.1.1-8 1.2.1-8 2.1-4 2.6 2.9-11 5.3-8 5.19-20 6.1.1-3 6.2.1-4 RIGHT_TEXTS 7.1.1 10.1.1",
            "NON-STRICT, close FAILED: 3.2-4 4.1.3-5 4.2.3-5 5.15",
            "OK, close FAILED: 2.5 3.1 3.5-7 4.1.1-2 4.2.1-2 5.1-2 5.9-14 5.16-18",
            "OK, close UNCLEAN: 2.7-8 7.1.2-5 7.3.1 7.3.3-5 7.7.1-13",
        ],
    ),
    (
        Flaw::AnyCloseCode,
        &[
            "FAILED, close WRONG CODE: 7.5.1 7.9.1-9",
        ],
    ),
    (
        Flaw::NoCloseAnswer,
        &[
            "FAILED, close FAILED: 6.3.1-2 6.4.1-4 WRONG_TEXTS",
            "OK, close FAILED: 2.5 3.1-7 4.1.1-5 4.2.1-5 5.1-2 5.9-18",
            "OK, close UNCLEAN: 1.1.1-8 1.2.1-8 2.1-4 2.6-11 5.3-8 5.19-20 6.1.1-3 6.2.1-4 RIGHT_TEXTS 7.1.1-5 7.3.1 7.3.3-5 7.7.1-13 10.1.1",
        ],
    ),
    (
        Flaw::NoReservedBitsCheck,
        &[
            "FAILED, close FAILED: 3.1-6",
        ],
    ),
    (
        Flaw::LongPing,
        &[
            "FAILED, close WRONG CODE: 7.3.6",
            "OK, close FAILED: 2.5",
        ],
    ),
    (
        Flaw::DropAtOnce,
        &[
            "FAILED: 6.4.1-4",
            "FAILED, close FAILED: 1.1.1-8 1.2.1-8 2.1-4 2.6 2.9-11 5.3-8 5.19-20 6.1.1-3 6.2.1-4 RIGHT_TEXTS 7.1.1 10.1.1",
            "NON-STRICT: 3.2-4 4.1.3-5 4.2.3-5 5.15",
            "OK, close UNCLEAN: 2.7-8 7.1.2-5 7.3.1 7.3.3-5 7.7.1-13",
        ],
    ),
];

#[test]
fn there_are_the_517_cases_of_the_suite_in_their_order() {
    let ids = Suite::default().ids().to_vec();
    assert_eq!(ids.len(), 517);
    assert!(ids.is_sorted_by(|one, two| one < two));
    let count = |pattern: &str| {
        let pattern = Pattern::parse(pattern).unwrap();
        ids.iter().filter(|id| pattern.matches(**id)).count()
    };
    for (pattern, expected) in [
        ("*", 517),
        ("1.*", 16),
        ("2.*", 11),
        ("3.*", 7),
        ("4.*", 10),
        ("5.*", 20),
        ("6.*", 145),
        ("7.*", 37),
        ("9.*", 54),
        ("10.*", 1),
        ("12.*", 90),
        ("13.*", 126),
        ("6.*.1", 23),
        ("*.1.1", 8),
        ("1*.2.*1", 5),
        ("1*.1.*.1", 0),
        ("7.9.3", 1),
        ("7.9", 0),
    ] {
        assert_eq!(count(pattern), expected, "{pattern}");
    }
}

#[test]
fn cases_are_selected_by_patterns() {
    let select = |patterns: &str, excluded: &str| {
        let parse = |list: &str| {
            list.split_whitespace().map(|text| Pattern::parse(text).unwrap()).collect::<Vec<_>>()
        };
        let suite = Suite::select(&parse(patterns), &parse(excluded), 1000)?;
        Ok::<_, String>(suite.ids().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    assert_eq!(
        select("7.9.3 7.1.* 10.*", "7.1.2").unwrap(),
        "7.1.1 7.1.3 7.1.4 7.1.5 7.1.6 7.9.3 10.1.1"
    );
    assert_eq!(select("8.*", "").unwrap_err(), "no case is called 8.*");
    assert_eq!(select("", "9.9.9").unwrap_err(), "no case is called 9.9.9");
    assert_eq!(select("1.1.1", "*").unwrap_err(), "no case is left");
    // A group beyond the suite has to be named.
    let count = |patterns: &str| select(patterns, "").unwrap().split(' ').count();
    let beyond = count("14.* 15.* 16.* 17.* 18.*");
    assert_eq!((count("*"), count("1*"), count("1.* 10.* 12.* 13.*")), (517, 233, 233));
    assert_eq!((count("+beyond"), count("* +beyond")), (517 + beyond, 517 + beyond));
    assert_eq!(count("2.* +beyond"), 11 + beyond);
    assert_eq!(select("16.1.*", "").unwrap(), "16.1.1");
    for wrong in ["", "1.x", "seven", "beyond", "+beyond.1", "1.*+beyond"] {
        Pattern::parse(wrong).unwrap_err();
    }
}

/// Written out in bytes, as the suite has them.
#[test]
fn large_messages_have_the_sizes_of_the_suite() {
    let suite = Suite::default();
    let described = |section: u8| {
        let ids = suite
            .ids()
            .iter()
            .filter(move |id| id.to_string().starts_with(&format!("9.{section}.")));
        ids.map(|id| suite.case(*id).unwrap().description()).collect::<Vec<_>>()
    };
    let sent = |section: u8, kind: &str| {
        let whole = |size: usize| format!("Sends {kind} of {size} bytes.");
        match section {
            1 => [65_536, 262_144, 1_048_576, 4_194_304, 8_388_608, 16_777_216].map(whole).to_vec(),
            3 => [64, 256, 1024, 4096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304]
                .map(|size| format!("Sends {kind} of 4194304 bytes, in fragments of {size} bytes."))
                .to_vec(),
            5 => [64, 128, 256, 512, 1024, 2048]
                .map(|size| {
                    format!("Sends {kind} of 1048576 bytes, written {size} bytes at a time.")
                })
                .to_vec(),
            _ => [0, 16, 64, 256, 1024, 4096]
                .map(|size| format!("Sends 1000 times {kind} of {size} bytes."))
                .to_vec(),
        }
    };
    for section in [1, 3, 5, 7] {
        assert_eq!(described(section), sent(section, "text"));
        assert_eq!(described(section + 1), sent(section, "binary"));
    }
}

#[test]
fn each_case_describes_itself() {
    let suite = Suite::default();
    for id in suite.ids() {
        let case = suite.case(*id).unwrap();
        let text = format!("{} {}", case.description(), case.expectation());
        assert!(text.starts_with("Sends ") && text.ends_with('.'), "{id}: {text}");
        assert!(text.len() < 700 && !text.contains("  "), "{id}: {text}");
    }
    for (id, expected) in [
        (
            Id::new(3, 3, 0),
            "Sends text \"Hello, world!\", text with RSV 011 \"Hello, world!\", ping empty, each frame in a write \
             of its own. Expects text \"Hello, world!\". NON-STRICT for nothing. The client closes with 1002, or \
             ends TCP, within 1s.",
        ),
        (
            Id::new(6, 2, 4),
            "Sends text without FIN CE, 9 times continuation without FIN of 1 byte, continuation B5. Expects text \
             CEBAE1BDB9CF83CEBCCEB5. The client answers the close frame with 1000, within 1s.",
        ),
        (
            Id::new(6, 4, 2),
            "Sends text without FIN CEBAE1BDB9CF83CEBCCEB5F4, nothing for 1s, continuation without FIN 90, nothing for \
             1s, continuation 80804153434949. Expects the end after the second part. NON-STRICT after the third. The \
             client closes with 1007, or ends TCP, within 1s.",
        ),
        (
            Id::new(7, 1, 6),
            "Sends text 262144 bytes, text \"Hello, world!\", close 1000, ping empty. Expects text \"Hello, world!\". \
             NON-STRICT for nothing. The client answers the close frame with 1000, within 1s. The RFC leaves it open, so \
             there is no verdict.",
        ),
        (
            Id::new(7, 7, 8),
            "Sends close 1010. Expects nothing. The client answers the close frame with 1000 or 1010, within 1s. \
             Only clients have a use for 1010 (RFC 6455 §7.4.1), and some refuse it.",
        ),
        (
            Id::new(9, 7, 2),
            "Sends 1000 times text of 16 bytes. Expects each message back before it sends the next. The client answers \
             the close frame with 1000, within 60s.",
        ),
        (
            Id::new(9, 6, 3),
            "Sends binary of 1048576 bytes, written 256 bytes at a time. Expects the same message. The client answers \
             the close frame with 1000, within 1000s.",
        ),
    ] {
        let case = suite.case(id).unwrap();
        assert_eq!(format!("{} {}", case.description(), case.expectation()), expected);
    }
}

/// What a WebSocket at `target` is sent after its 101, and what a plain GET of it is answered.
fn ask(service: &Service, target: &str) -> (Vec<u8>, String) {
    let mut driver = Driver::asking(service, target, "");
    if driver.sent.starts_with(b"HTTP/1.1 101") {
        driver.forget_response();
    }
    (driver.take(), get(service, target))
}

/// The status and the content that a GET of `target` is answered.
fn get(service: &Service, target: &str) -> String {
    let mut driver = Driver::new(service);
    driver.receive(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    let response = String::from_utf8(driver.take()).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    format!("{} {body}", &head[9..12])
}

#[test]
fn a_runner_is_told_the_number_of_cases_and_what_each_is() {
    let service = driver::service(1 << 24, 1 << 30);
    let (message, response) = ask(&service, "/getCaseCount");
    assert_eq!(message, b"\x81\x03517\x88\x00");
    assert_eq!(response, "200 517\n");
    let (message, response) = ask(&service, "/getCaseInfo?case=1");
    let text = String::from_utf8_lossy(&message);
    assert!(text.contains("{\"id\": \"1.1.1\", \"description\": \"Sends text empty."), "{text}");
    assert!(message.ends_with(b"\x88\x00"));
    assert!(
        response.starts_with("200 1.1.1: Sends text empty.\nExpects text empty."),
        "{response}"
    );
    for (target, id) in [
        ("/getCaseInfo?case=517", "13.7.18"),
        ("/getCaseInfo?casetuple=7.9.3", "7.9.3"),
        ("/getCaseInfo?case=2&casetuple=7.9.3", "1.1.2"),
    ] {
        assert!(ask(&service, target).1.starts_with(&format!("200 {id}: ")), "{target}");
    }
}

#[test]
fn a_get_without_a_case_lists_the_selected_cases() {
    let mut service = driver::service(1 << 24, 1 << 30);
    let list = |service: &Service| -> Vec<Value> {
        let response = get(service, "/getCaseInfo");
        serde_json::from_str(response.strip_prefix("200 ").unwrap()).unwrap()
    };
    assert_eq!(list(&service).len(), 517);
    let beyond = Pattern::parse("+beyond").unwrap();
    service.cases.suite = Suite::select(&[beyond], &[], 1000).unwrap();
    let all = list(&service);
    assert!(all.len() > 517);
    for (place, (listed, id)) in (1..).zip(all.iter().zip(service.cases.suite.ids())) {
        assert_eq!((&listed["case"], &listed["id"]), (&place.into(), &id.to_string().into()));
        for text in ["group", "description", "expectation"] {
            assert!(!listed[text].as_str().unwrap().is_empty(), "{text} of {id}");
        }
        let shown = ["description", "expectation"].map(|text| listed[text].as_str().unwrap());
        let info = get(&service, &format!("/getCaseInfo?case={place}"));
        assert_eq!(info, format!("200 {id}: {}\n", shown.join("\n")));
    }
    assert_eq!(all[0]["maxDuration"], 2000);
    for listed in &all {
        let (rule, expectation) = (listed["rule"].as_str(), listed["expectation"].as_str());
        assert!(expectation.unwrap().ends_with(rule.unwrap()), "the page shows it apart");
        assert_eq!(rule == Some(""), listed["case"].as_u64().unwrap() <= 517);
    }
    service.cases.suite = Suite::select(&[Pattern::parse("7.9.*").unwrap()], &[], 1000).unwrap();
    let ids: Vec<_> = list(&service).iter().map(|case| case["id"].clone()).collect();
    assert_eq!(ids.len(), 9);
    assert_eq!((&ids[0], &ids[8]), (&"7.9.1".into(), &"7.9.9".into()));
    // A runner that forgets the case still learns it.
    let (refused, _) = ask(&service, "/getCaseInfo");
    assert!(String::from_utf8(refused).unwrap().contains("case or casetuple is missing"));
}

#[test]
fn who_is_wrong_by_a_slash_is_shown_the_way() {
    let service = driver::service(1 << 24, 1 << 30);
    for (path, answer) in [
        ("/cases/", "404 not found; did you mean /cases?\n"),
        ("/Verdict?agent=x", "404 not found; did you mean /verdict?\n"),
        ("/reports/", "404 there is no such report; /reports/index.json lists all\n"),
    ] {
        assert_eq!(get(&service, path), answer);
    }
    let run = get(&service, "/runCase?casetuple=2.1&agent=a+b%E2%80%AE");
    assert!(run.starts_with("200 A WebSocket here plays case 2.1 to \"a b\\u{202e}\".\n"), "{run}");
}

#[test]
fn wrong_parameters_get_400_and_what_would_be_right() {
    let service = driver::service(1 << 24, 1 << 30);
    let long = "x".repeat(101);
    for (query, right) in [
        ("", "case or casetuple is missing"),
        ("case=1", "agent is missing"),
        ("case=0&agent=x", "from 1 to 517"),
        ("case=518&agent=x", "from 1 to 517"),
        ("case=-1&agent=x", "from 1 to 517"),
        ("casetuple=1.1&agent=x", "no case 1.1"),
        ("casetuple=8.1.1&agent=x", "no case 8.1.1"),
        ("casetuple=01.1.1&agent=x", "such as 7.9.3"),
        ("case=1&case=2&agent=x", r#""case" is given twice"#),
        ("case=1&agent=x&agent=x", r#""agent" is given twice"#),
        ("case=1&agent=", "up to 100 characters"),
        ("case=1&agent=%0A", "up to 100 characters"),
        (&format!("case=1&agent={long}"), "up to 100 characters"),
        ("case=1&agent=%FF", "not UTF-8"),
    ] {
        let target = format!("/runCase?{query}");
        let (refused, response) = ask(&service, &target);
        let refused = String::from_utf8(refused).unwrap();
        for text in [refused.trim_start_matches("HTTP/1.1 "), &response] {
            assert!(text.starts_with("400 ") && text.contains(right), "{target}: {text}");
        }
    }
    assert!(service.cases.results.reports().is_empty());
}

#[test]
fn without_behaviors_there_are_no_cases() {
    let mut service = driver::service(1 << 24, 1 << 30);
    service.behaviors = Behaviors::Off;
    for target in [
        "/cases",
        "/getCaseCount",
        "/getCaseInfo",
        "/verdict?agent=x",
        "/reports/index.json",
        "/reports/agents.json",
    ] {
        let (_, response) = ask(&service, target);
        assert!(response.starts_with("404 "), "{target}: {response}");
    }
    let mut driver = Driver::asking(&service, "/runCase?case=1&agent=x", "");
    driver.forget_response();
    driver.receive(&frames::frame(0x81, b"hi"));
    assert_eq!(driver.take(), frames::server_frame(0x81, b"hi"));
}

#[test]
fn a_verdict_is_a_status_and_a_line_for_each_case_that_fails() {
    let mut service = driver::service(1 << 24, 1 << 30);
    let patterns = ["2.*", "6.4.1", "7.9.*", "7.13.*"].map(|text| Pattern::parse(text).unwrap());
    service.cases.suite = Suite::select(&patterns, &[], 1000).unwrap();
    let play_all = |agent: &str, flaw: Flaw| {
        for id in service.cases.suite.ids() {
            play_as(&service, *id, agent, flaw);
        }
    };
    assert_eq!(get(&service, "/verdict?agent=x"), "404 no case was played to this agent\n");
    play_all("right", Flaw::None);
    assert_eq!(get(&service, "/verdict?agent=right"), "200 23 cases: 21 OK, 2 INFORMATIONAL\n");
    play_all("no pong", Flaw::NoPong);
    let verdict = get(&service, "/verdict?agent=no+pong");
    let (summary, failures) = verdict.split_once('\n').unwrap();
    assert_eq!(summary, "422 23 cases: 8 FAILED, 13 OK, 2 INFORMATIONAL");
    assert_eq!(failures.lines().count(), 8);
    assert!(failures.starts_with("2.1: FAILED: received []\n2.2: "), "{failures}");
    assert!(get(&service, "/verdict?agent=no+pong&except=2.*").starts_with("200 12 cases: "));
    // In a query, a plus that is not encoded stands for a space.
    for (except, cases) in [("+beyond", 23), ("%2Bbeyond", 23), ("2.*,+beyond", 12)] {
        let verdict = get(&service, &format!("/verdict?agent=right&except={except}"));
        assert!(verdict.starts_with(&format!("200 {cases} cases: ")), "{verdict}");
    }

    play_all("late", Flaw::LateUtf8Check);
    assert!(get(&service, "/verdict?agent=late").starts_with("200 23 cases: "));
    let strict = get(&service, "/verdict?agent=late&strict");
    assert!(strict.starts_with("422 ") && strict.ends_with("\n6.4.1: NON-STRICT\n"), "{strict}");

    play_all("code", Flaw::WrongCode);
    let verdict = get(&service, "/verdict?agent=code&except=7.*");
    assert!(
        verdict.ends_with("\n6.4.1: OK, close WRONG CODE: closed with 1000, expected 1007\n"),
        "{verdict}"
    );
    let allowed = get(&service, "/verdict?agent=code&except=7.*&allow=wrong+code,unclean");
    assert!(allowed.starts_with("200 "), "{allowed}");

    play_as(&service, Id::new(2, 1, 0), "crashed", Flaw::None);
    let verdict = get(&service, "/verdict?agent=crashed");
    assert!(verdict.starts_with("422 23 cases: 1 OK, 22 not run\n2.2: not run\n"), "{verdict}");

    for (query, right) in [
        ("", "agent is missing"),
        ("agent=x&allow=FAILED", "UNIMPLEMENTED, UNCLEAN, WRONG CODE"),
        ("agent=x&except=nine", "except: expected cases"),
        ("agent=x&strict=1", "without a value"),
        ("agent=right&except=*", "except leaves no case"),
        ("agent=right&excpet=2.*", "\"excpet\" is not a parameter; expected agent, strict, allow"),
    ] {
        let response = get(&service, &format!("/verdict?{query}"));
        assert!(response.starts_with("400 ") && response.contains(right), "{query}: {response}");
    }
}

#[test]
fn the_reports_have_the_shape_of_the_suite() {
    let service = driver::service(1 << 24, 1 << 30);
    assert_eq!(get(&service, "/reports/index.json"), "200 {\n}\n");
    play_as(&service, Id::new(7, 9, 3), "My Lib/2", Flaw::WrongCode);
    let index = get(&service, "/reports/index.json");
    assert_eq!(
        index,
        "200 {\n  \"My Lib/2\": {\n    \"7.9.3\": {\"behavior\": \"FAILED\", \"behaviorClose\": \"WRONG CODE\", \
         \"duration\": 0, \"remoteCloseCode\": 1000, \"reportfile\": \"my_lib_2_case_7_9_3.json\"}\n  }\n}\n"
    );
    let report = get(&service, "/reports/my_lib_2_case_7_9_3.json");
    for line in [
        "\"case\": 238,",
        "\"id\": \"7.9.3\",",
        "\"agent\": \"My Lib/2\",",
        "\"started\": \"1994-11-06T08:49:37.000Z\",",
        "\"expected\": {\"OK\": []},",
        "\"expectedClose\": {\"closedByMe\": true, \"closeCode\": [1002], \"requireClean\": false},",
        "\"received\": [],",
        "\"resultClose\": \"closed with 1000, expected 1002\",",
        "\n  \"closedByMe\": true,",
        "\"failedByMe\": false,",
        "\"droppedByMe\": true,",
        "\"wasClean\": true,",
        "\"wasNotCleanReason\": null,",
        "\"localCloseCode\": 1004,",
        "\"remoteCloseCode\": 1000,",
        "\"remoteCloseReason\": \"\",",
    ] {
        assert!(report.contains(line), "{line} in {report}");
    }
    assert!(
        report
            .contains("\"httpRequest\": \"GET /runCase?casetuple=7.9.3&agent=My+Lib%2F2 HTTP/1.1")
    );
    for missing in ["my_lib_2_case_7_9_4.json", "x_case_7_9_3.json", "../Cargo.toml", "index.html"]
    {
        assert!(get(&service, &format!("/reports/{missing}")).starts_with("404 "), "{missing}");
    }
}

#[test]
fn the_agents_are_listed_with_their_progress_the_last_one_first() {
    let service = driver::service(1 << 24, 1 << 30);
    let agents = || {
        let response = get(&service, "/reports/agents.json");
        serde_json::from_str::<Value>(response.strip_prefix("200 ").unwrap()).unwrap()
    };
    assert_eq!(agents(), json!([]));
    play_as(&service, Id::new(1, 1, 1), "a/b", Flaw::None);
    play_as(&service, Id::new(7, 9, 3), "a/b", Flaw::WrongCode);
    play_as(&service, Id::new(6, 3, 1), "a/b", Flaw::WrongCode);
    let began = "1994-11-06T08:49:37.000Z";
    let first = json!({
        "agent": "a/b", "running": 0, "updated": began, "verdicts": { "FAILED": 1, "OK": 1, "WRONG CODE": 1 },
    });
    assert_eq!(agents(), json!([first]));
    // The last of its cases has ended after 1.5 s, and is not quite right.
    let late = Report {
        started: Duration::from_secs(1),
        duration: Duration::from_millis(1500),
        behavior: Behavior::NonStrict,
        ..empty_report(Id::new(1, 1, 1))
    };
    service.cases.results.finish("late", late);
    let third = agents()[0].clone();
    assert_eq!(third["updated"], "1970-01-01T00:00:02.500Z");
    assert_eq!(third["verdicts"], json!({ "NON-STRICT": 1 }));
    // It is seen again when a case begins, whose earlier verdict does not count any more.
    service.cases.results.begin("new", Id::new(1, 1, 2), "");
    let second = json!({ "agent": "new", "running": 1, "updated": null, "verdicts": {} });
    assert_eq!(agents(), json!([second, third, first]));
    service.cases.results.begin("a/b", Id::new(1, 1, 1), "");
    let first = json!({
        "agent": "a/b", "running": 1, "updated": began, "verdicts": { "FAILED": 1, "WRONG CODE": 1 },
    });
    assert_eq!(agents(), json!([first, second, third]));
}

#[test]
fn reports_can_be_those_of_one_agent() {
    let service = driver::service(1 << 24, 1 << 30);
    // Their files have the same name.
    for (agent, flaw) in [("My Lib", Flaw::None), ("my lib", Flaw::WrongCode)] {
        play_as(&service, Id::new(7, 9, 3), agent, flaw);
    }
    let read = |target: &str| {
        let response = get(&service, &format!("/reports/{target}"));
        serde_json::from_str::<Value>(response.strip_prefix("200 ").unwrap()).unwrap()
    };
    assert_eq!(read("index.json").as_object().unwrap().len(), 2);
    for (agent, behavior) in [("My Lib", "OK"), ("my lib", "FAILED")] {
        let query = agent.replace(' ', "+");
        let index = read(&format!("index.json?agent={query}"));
        assert_eq!(index.as_object().unwrap().len(), 1);
        assert_eq!(index[agent]["7.9.3"]["behavior"], behavior);
        let report = read(&format!("my_lib_case_7_9_3.json?agent={query}"));
        assert_eq!((&report["agent"], &report["behavior"]), (&agent.into(), &behavior.into()));
    }
    assert_eq!(read("index.json?agent=x"), json!({}));
    for (target, status) in
        [("my_lib_case_7_9_3.json?agent=x", "404 "), ("index.json?agent=%", "400 ")]
    {
        let response = get(&service, &format!("/reports/{target}"));
        assert!(response.starts_with(status), "{target}: {response}");
    }
}

#[test]
fn the_status_of_a_case_is_told_once_there_is_a_verdict() {
    let service = driver::service(1 << 24, 1 << 30);
    let id = Id::new(1, 1, 1);
    let (message, response) = ask(&service, "/getCaseStatus?casetuple=1.1.1&agent=x");
    assert_eq!(message, b"\x88\x22\x03\xF0there is no verdict on this case");
    assert_eq!(response, "404 the case was not played to this agent\n");

    let mut trial = Driver::asking(&service, "/runCase?casetuple=1.1.1&agent=x", "");
    let mut status = Driver::asking(&service, "/getCaseStatus?casetuple=1.1.1&agent=x", "");
    status.forget_response();
    status.wait_until(Duration::from_secs(1));
    assert_eq!(status.take(), b"");
    assert_eq!(
        get(&service, "/getCaseStatus?casetuple=1.1.1&agent=x"),
        "404 the case is being played\n"
    );
    trial.end_stream();
    status.wait_until(Duration::from_millis(1100));
    assert_eq!(status.take(), b"\x81\x16{\"behavior\": \"FAILED\"}\x88\x00");

    // A later run counts.
    play_as(&service, id, "x", Flaw::None);
    let (message, response) = ask(&service, "/getCaseStatus?casetuple=1.1.1&agent=x");
    assert_eq!(message, b"\x81\x12{\"behavior\": \"OK\"}\x88\x00");
    assert_eq!(response, "200 {\"behavior\": \"OK\", \"behaviorClose\": \"OK\"}\n");
}

#[test]
fn the_stop_ends_the_wait_for_a_status() {
    let service = driver::service(1 << 24, 1 << 30);
    let [mut trial, mut status] = [(); 2].map(|()| Driver::new(&service));
    trial.receive(driver::upgrade("/runCase?casetuple=1.1.1&agent=x", "").as_bytes());
    status.receive(driver::upgrade("/getCaseStatus?casetuple=1.1.1&agent=x", "").as_bytes());
    status.forget_response();
    status.stop();
    status.suspend_until(Duration::from_millis(100));
    assert!(status.take().ends_with(b"\x88\x14\x03\xE9server is stopping"));
}

#[test]
fn a_status_is_waited_for_as_long_as_the_case_may_take() {
    let service = driver::service(1 << 24, 1 << 30);
    // A case, one with pauses, and one that lasts longer than a client is allowed to be silent elsewhere.
    for (id, secs) in [("1.1.6", 11), ("6.4.1", 4), ("9.7.2", 61)] {
        let ask = |path| Driver::asking(&service, &format!("{path}?casetuple={id}&agent=x"), "");
        let (_trial, mut status) = (ask("/runCase"), ask("/getCaseStatus"));
        status.forget_response();
        status.wait_before(Duration::from_secs(secs));
        assert_eq!(status.take(), b"", "{id}");
        status.wait_until(Duration::from_millis(secs * 1000 + 100));
        assert!(status.take().starts_with(b"\x88"), "{id}");
    }
}

#[test]
fn a_client_cannot_stop_the_server() {
    let service = driver::service(1 << 24, 1 << 30);
    for target in ["/stopServer", "/updateReports?agent=x&shutdownOnComplete=true"] {
        let (message, response) = ask(&service, target);
        assert_eq!(message, b"\x88\x1C\x03\xF0a client can't stop wsecho", "{target}");
        assert_eq!(response, "403 a client can't stop wsecho\n");
    }
}

#[test]
fn reports_wait_for_the_cases_of_the_agent() {
    let service = driver::service(1 << 24, 1 << 30);
    let mut trial = Driver::asking(&service, "/runCase?casetuple=1.1.1&agent=x", "");
    let mut update = Driver::asking(&service, "/updateReports?agent=x", "");
    update.forget_response();
    update.wait_until(Duration::from_secs(1));
    assert_eq!(update.take(), b"");
    trial.end_stream();
    update.wait_until(Duration::from_millis(1200));
    assert_eq!(update.take(), b"\x88\x00");
    // Another agent's are not waited for, and none for ever.
    let _trial = Driver::asking(&service, "/runCase?casetuple=1.1.1&agent=x", "");
    let (message, _) = ask(&service, "/updateReports?agent=y");
    assert_eq!(message, b"\x88\x00");
    let mut update = Driver::asking(&service, "/updateReports?agent=x", "");
    update.forget_response();
    update.wait_until(Duration::from_millis(2200));
    assert_eq!(update.take(), b"\x88\x00");
}

#[test]
fn the_results_of_32_agents_are_kept() {
    let service = driver::service(1 << 24, 1 << 30);
    let id = Id::new(2, 7, 0);
    for agent in 0..1000 {
        play_as(&service, id, &format!("agent {agent:03}"), Flaw::None);
        play_as(&service, id, "another", Flaw::None);
    }
    let agents: Vec<_> = service.cases.results.reports().into_keys().collect();
    assert_eq!(agents.len(), 32);
    assert_eq!((&*agents[0], &*agents[1], &*agents[31]), ("agent 969", "agent 970", "another"));
}

#[test]
fn what_is_kept_of_a_case_is_bounded() {
    let service = driver::service(1 << 24, 1 << 30);
    let id = Id::new(5, 9, 0);
    let mut driver = Driver::asking(&service, &format!("/runCase?casetuple={id}&agent=x"), "");
    for _ in 0..1000 {
        driver.receive(&frames::frame(0x82, &[0xFF; 1000]));
        driver.receive(&frames::frame(0x8A, b"\"\\"));
    }
    driver.receive(&frames::frame(0x81, &vec![b'x'; 16 << 20]));
    driver.end_stream();
    let Some(State::Judged(report)) = service.cases.results.state("x", id) else { panic!() };
    assert!(report.received.len() <= 550, "{}", report.received.len());
    assert!(report.received.ends_with(", \"…\"]"), "{}", report.received);
    assert_eq!(service.budget.left(), 1 << 30);
}

#[test]
fn a_case_ends_at_its_time_whatever_the_client_does() {
    // Close 1001 after 1 s, and the end of TCP a second later.
    let service = driver::service(1 << 24, 1 << 30);
    let second = Duration::from_secs(1);
    let mut killed = open(&service, "1.1.2");
    killed.take();
    killed.wait_before(second);
    assert_eq!(killed.take(), b"");
    killed.suspend_until(second);
    assert_eq!(killed.take()[..4], [0x88, 0x19, 0x03, 0xE9]);
    killed.wait_before(2 * second);
    assert_eq!(killed.ended, None);
    // Not even a flood keeps it open.
    killed.receive(&frames::frame(0x89, b"").repeat(1000));
    killed.suspend_until(2 * second);
    assert_eq!((killed.take(), killed.ended), (vec![], Some(Ended::Stream)));

    let mut closed = open(&service, "2.1");
    closed.take();
    closed.wait_before(second);
    assert_eq!(closed.take(), b"");
    closed.suspend_until(second);
    assert_eq!(closed.take(), b"\x88\x00");
    closed.receive(&frames::close(1000));
    assert_eq!(closed.ended, Some(Ended::Stream));
}

#[test]
fn frames_are_written_as_the_case_says() {
    let service = driver::service(1 << 24, 1 << 30);
    let writes = |id: &str| {
        let target = format!("/runCase?casetuple={id}&agent=x");
        let mut driver = Driver::asking(&service, &target, "");
        settle(&mut driver);
        driver.wait_before(Duration::from_millis(900));
        driver.writes.iter().map(|(_, len)| *len).skip(1).collect::<Vec<_>>()
    };
    assert_eq!(writes("3.3"), [15, 15, 2]);
    assert_eq!(writes("2.6"), [1; 127]);
    let chopped = writes("1.1.8");
    assert_eq!((chopped.len(), chopped[0], chopped.iter().sum::<usize>()), (66, 997, 65_546));
    // Frames that are written together leave with the 101.
    assert_eq!(writes("3.2"), [0; 0]);
    assert_eq!(writes("9.5.6"), [[2048; 512].as_slice(), &[10]].concat());
}

#[test]
fn the_stop_ends_a_case_between_two_frames_and_without_a_verdict() {
    let service = driver::service(1 << 24, 1 << 30);
    let mut driver = Driver::asking(&service, "/runCase?casetuple=9.1.6&agent=x", "");
    driver.forget_response();
    driver.stop();
    while !driver.is_closed() {
        let wait = driver.wait().unwrap();
        driver.suspend_until(driver.now + wait);
    }
    let sent = driver.take();
    assert_eq!(sent.len(), 10 + (16 << 20) + 4 + "server is stopping".len());
    assert!(sent.ends_with(b"\x88\x14\x03\xE9server is stopping"));
    driver.receive(&frames::close(1001));
    assert_eq!(driver.ended, Some(Ended::Stream));
    assert!(matches!(service.cases.results.state("x", Id::new(9, 1, 6)), Some(State::Running)));
}

#[test]
fn memory_that_is_short_fails_a_case_and_says_so() {
    let service = driver::service(1 << 24, 0);
    let id = Id::new(9, 1, 3);
    assert_eq!(play(&service, id, Flaw::None), (Behavior::Failed, CloseBehavior::WrongCode));
    let Some(State::Judged(report)) = service.cases.results.state("client", id) else { panic!() };
    assert_eq!(
        report.result(),
        "the server failed the connection: memory is short, try again later"
    );
}

/// A trial of the agent `x`, of which everything is sent that is sent at once.
fn open<'s>(service: &'s Service, id: &str) -> Driver<'s> {
    open_with(service, id, "")
}

/// The same, for a request with these fields, each with its line end.
fn open_with<'s>(service: &'s Service, id: &str, fields: &str) -> Driver<'s> {
    let target = format!("/runCase?casetuple={id}&agent=x");
    let mut driver = Driver::asking(service, &target, fields);
    settle(&mut driver);
    driver.forget_response();
    driver
}

/// Lets pass what takes no time.
fn settle(driver: &mut Driver) {
    while driver.wait() == Some(Duration::ZERO) {
        driver.suspend_until(driver.now);
    }
}

/// The report on the agent `x`.
fn report(service: &Service, id: &str) -> Arc<Report> {
    match service.cases.results.state("x", Id::parse(id).unwrap()) {
        Some(State::Judged(report)) => report,
        _ => panic!("no verdict on {id}"),
    }
}

#[test]
fn large_echoes_are_compared_byte_by_byte() {
    for (id, first, len) in [("9.1.2", 0x81, 256 << 10), ("9.4.5", 0x82, 4 << 20)] {
        for wrong_at in [None, Some(0), Some(len / 2), Some(len - 1)] {
            let service = driver::service(1 << 24, 1 << 30);
            let mut driver = open(&service, id);
            let pattern: &[u8] =
                if first == 0x81 { b"0123456789" } else { b"\x00\xFE\x23\xFA\xF0" };
            let mut echo: Vec<_> = pattern.iter().copied().cycle().take(len).collect();
            if let Some(at) = wrong_at {
                echo[at] ^= 1;
            }
            driver.receive(&frames::frame(first, &echo));
            driver.receive(&frames::close(1000));
            let expected = if wrong_at.is_none() { Behavior::Ok } else { Behavior::Failed };
            let report = report(&service, id);
            assert_eq!((report.behavior, report.close), (expected, CloseBehavior::Ok), "{id}");
        }
    }
}

#[test]
fn compressed_cases_are_unimplemented_without_an_agreement() {
    let service = driver::service(1 << 24, 1 << 30);
    for id in [Id::new(12, 1, 1), Id::new(13, 7, 18)] {
        let verdict = play(&service, id, Flaw::None);
        assert_eq!(verdict, (Behavior::Unimplemented, CloseBehavior::Ok));
    }
}

#[test]
fn the_server_agrees_as_the_case_has_it() {
    const TAKEOVER: &str = "; client_no_context_takeover";
    let service = driver::service(1 << 24, 1 << 30);
    let agreed = |id: &str, offer: &str| {
        let target = format!("/runCase?casetuple={id}&agent=x");
        let offer = format!("Sec-WebSocket-Extensions: permessage-deflate{offer}\r\n");
        let mut driver = Driver::asking(&service, &target, &offer);
        let response = driver.forget_response();
        let (_, agreed) = response.split_once("Extensions: permessage-deflate")?;
        let (first, payload) = read_frame(&mut &driver.sent[..]);
        assert_eq!(first & 0xF0, 0xC0, "{id}");
        assert_eq!(Inflater::default().message(&payload).unwrap().len(), 16, "{id}");
        Some(agreed.lines().next().unwrap().to_owned())
    };
    let bits = |bits: u8| format!("; client_max_window_bits={bits}");
    for (id, plain, with_window) in [
        ("1.1.1", None, None),
        ("12.3.1", Some(String::new()), Some(String::new())),
        ("13.1.1", Some(String::new()), Some(String::new())),
        ("13.2.1", Some(TAKEOVER.into()), Some(TAKEOVER.into())),
        ("13.3.1", None, Some(bits(9))),
        ("13.4.1", None, Some(bits(15))),
        ("13.5.1", None, Some(TAKEOVER.to_owned() + &bits(9))),
        ("13.6.1", None, Some(TAKEOVER.to_owned() + &bits(15))),
        ("13.7.1", Some(TAKEOVER.into()), Some(TAKEOVER.to_owned() + &bits(9))),
    ] {
        assert_eq!(agreed(id, ""), plain, "{id}");
        assert_eq!(agreed(id, "; client_max_window_bits"), with_window, "{id}");
    }
}

#[test]
fn a_client_may_be_silent_for_as_long_as_the_case_lasts() {
    let service = driver::service(1 << 24, 1 << 30);
    let mut driver = open(&service, "9.7.2");
    driver.wait_until(Duration::from_secs(59));
    for _ in 0..1000 {
        driver.take();
        driver.receive(&frames::frame(0x81, b"0123456789012345"));
        settle(&mut driver);
    }
    driver.receive(&frames::close(1000));
    assert_eq!(report(&service, "9.7.2").behavior, Behavior::Ok);
}

#[test]
fn a_trial_that_only_waits_takes_few_steps() {
    let service = driver::service(1 << 24, 1 << 30);
    // The client breaks the protocol in the first pause, and says nothing more.
    let mut driver = open(&service, "6.4.1");
    driver.receive(&frames::frame(0x83, b""));
    let mut waits = 0;
    while let Some(wait) = driver.wait() {
        waits += 1;
        driver.suspend_until(driver.now + wait);
    }
    assert!(waits < 10, "{waits}");
}

#[test]
fn pings_beside_a_long_message_are_answered_and_hold_little_memory() {
    let service = driver::service(1 << 24, 1 << 30);
    let mut driver = open(&service, "5.19");
    driver.receive(&frames::frame(0x89, b"client's"));
    assert!(driver.take().ends_with(b"\x8A\x08client's"));

    let mut driver = Driver::asking(&service, "/runCase?casetuple=9.5.1&agent=x", "");
    let pings = frames::frame(0x89, &[7; 125]).repeat(100);
    for _ in 0..100 {
        driver.receive(&pings);
        driver.suspend_until(driver.now);
    }
    // What waits for the end of the frame is sent in one write.
    let longest = driver.writes.iter().map(|(_, len)| *len).max();
    assert!(longest < Some(32 * 1024), "{longest:?}");
}

#[test]
fn what_a_client_says_does_not_change_how_the_log_looks() {
    let service = driver::service(1 << 24, 1 << 30);
    let mut driver = open(&service, "1.1.1");
    driver.receive(&frames::frame(0x81, "\n\"\u{202e}\u{2028}\u{1f600}".as_bytes()));
    driver.end_stream();
    let (topic, line) = driver.log.last().unwrap();
    assert_eq!(*topic, Topic::Verdict);
    let received = r#"[["message", "\u000a\"\u202e\u2028😀", false]]"#;
    let expected = format!("client 1: case 1.1.1 of \"x\": FAILED: received {received}");
    assert!(line.starts_with(&expected), "{line}");
}

#[test]
fn a_long_index_is_charged_while_it_is_sent() {
    let service = driver::service(1 << 24, 1 << 20);
    for agent in 0..32 {
        for id in service.cases.suite.ids().iter().take(30) {
            service.cases.results.finish(&format!("agent {agent}"), empty_report(*id));
        }
    }
    let mut driver = Driver::new(&service);
    driver.receive(b"GET /reports/index.json HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let len = driver.take().len();
    assert!(len > 128 * 1024, "{len}");
    assert_eq!(service.budget.left(), (1 << 20) - (len - 64 * 1024));
    drop(driver);
    assert_eq!(service.budget.left(), 1 << 20);
    let others = service.budget.charge(1 << 20);
    assert!(get(&service, "/reports/index.json").starts_with("503 memory is short"));
    drop(others);
}

fn empty_report(id: Id) -> Report {
    Report {
        id,
        started: Duration::ZERO,
        duration: Duration::ZERO,
        behavior: Behavior::Ok,
        close: CloseBehavior::Ok,
        close_result: String::new(),
        received: "[]".into(),
        ending: Ending::default(),
        request: String::new(),
        response: String::new(),
    }
}
