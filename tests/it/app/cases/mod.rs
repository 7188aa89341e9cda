//! The Autobahn cases: which there are, how they are played and how they are judged.

mod client;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use client::{Client, Flaw, State};
use wsecho::app::cases::case::{Behavior, CloseBehavior, Id};
use wsecho::app::cases::results;
use wsecho::app::connection::Service;

use crate::driver::{self, Driver};

/// Plays a case to a client, and returns the verdict.
fn play(service: &Service, id: Id, flaw: Flaw) -> (Behavior, CloseBehavior) {
    let mut driver = Driver::new(service);
    let target = format!("/runCase?casetuple={id}&agent=client");
    driver.receive(driver::upgrade(&target, "").as_bytes());
    driver.forget_response();
    let mut client = Client::new(flaw);
    while driver.ended.is_none() {
        client.receive(&driver.take());
        let output = client.take_output();
        if flaw == Flaw::Late && !output.is_empty() {
            driver.wait_until(driver.now + Duration::from_secs(2));
        }
        driver.receive(&output);
        if client.state == State::Ended {
            driver.end_stream();
            break;
        }
        if output.is_empty() && driver.sent.is_empty() {
            let wait = driver.wait().expect("a case ends");
            driver.suspend_until(driver.now + wait);
        }
    }
    match service.cases.results.state("client", id) {
        Some(results::State::Judged(report)) => (report.behavior, report.close),
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
