//! The cases beyond the suite: each has a client that passes it, and one that fails it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use wsecho::app::cases::case::{Behavior, CloseBehavior, Id};
use wsecho::app::cases::results::{Report, State};
use wsecho::app::cases::suite::{self, Pattern, Suite};
use wsecho::app::service::Service;
use wsecho::websocket::handshake;

use super::client::{self, Client, Flaw, PerMessageDeflate};
use super::{ranges, settle};
use crate::driver::{self, Driver, Waits};
use crate::frames::{self, Random};

const EXAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The request of a client, and its key.
pub fn request(target: &str, flaw: Flaw) -> (String, String) {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    let number = KEYS.fetch_add(1, Ordering::Relaxed);
    let key = BASE64_STANDARD.encode([number.to_be_bytes(); 2].concat());
    let key = if flaw == Flaw::ExampleKey { EXAMPLE_KEY.into() } else { key };
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    (driver::upgrade(target, offer).replace(EXAMPLE_KEY, &key), key)
}

/// Whether a client with this flaw opens a WebSocket for this response, and with compression.
pub fn opens(head: &str, key: &str, flaw: Flaw) -> Option<bool> {
    let unfolded = head.replace("\r\n ", " ");
    let mut lines = unfolded.lines();
    let status = lines.next().unwrap();
    let fields: Vec<(String, &str)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect();
    let value =
        |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
    let is = |name: &str, token: &str| {
        let mut tokens = value(name).into_iter().flat_map(|value| value.split(", "));
        tokens.any(|member| member.eq_ignore_ascii_case(token))
    };
    let extension = value("sec-websocket-extensions");
    let right_extension = extension.is_none_or(|extension| {
        let mut parameters = extension.split("; ");
        let mut seen = Vec::new();
        parameters.next() == Some("permessage-deflate")
            && parameters.all(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                let is_new = !seen.contains(&name);
                seen.push(name);
                is_new
                    && match name {
                        "server_no_context_takeover" | "client_no_context_takeover" => {
                            value.is_empty()
                        }
                        "server_max_window_bits" | "client_max_window_bits" => {
                            value.parse().is_ok_and(|bits: u8| (8..=15).contains(&bits))
                        }
                        _ => false,
                    }
            })
    });
    let is_right = status == "HTTP/1.1 101 Switching Protocols"
        && is("upgrade", "websocket")
        && is("connection", "upgrade")
        && value("sec-websocket-accept") == Some(&handshake::accept_value(key.as_bytes()))
        && value("sec-websocket-protocol").is_none()
        && right_extension
        && !(flaw == Flaw::NoFolding && unfolded != head)
        && !(flaw == Flaw::StrictHead
            && ((head.contains("Upgrade: WebSocket") || head.contains("keep-alive"))
                || head.len() > 1000));
    let is_open = is_right || flaw == Flaw::AnyHandshake;
    is_open
        .then_some(extension.is_some_and(|extension| extension.starts_with("permessage-deflate")))
}

/// Plays a case to a client, and returns the report.
fn play(service: &Service, id: Id, flaw: Flaw) -> Arc<Report> {
    play_in_pieces(service, id, flaw, &[usize::MAX])
}

/// The same, with what the client sends in pieces of these lengths.
fn play_in_pieces(service: &Service, id: Id, flaw: Flaw, pieces: &[usize]) -> Arc<Report> {
    let mut driver = Driver::new(service);
    if id.group() == 18 {
        driver.connection.spoke_tls();
    }
    let (request, key) = request(&format!("/runCase?casetuple={id}&agent=client"), flaw);
    driver.receive(request.as_bytes());
    let (mut head, mut client) = (Vec::new(), None::<Client>);
    let (mut parts, mut has_ended) = (0, false);
    while driver.waits != Waits::Over {
        let sent = driver.take();
        let mut output = Vec::new();
        if let Some(client) = &mut client {
            client.receive(&sent);
        } else {
            head.extend_from_slice(&sent);
            parts += 1;
            let end = head.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                let text = String::from_utf8(head[..end + 4].to_vec()).unwrap();
                let opened = opens(&text, &key, flaw);
                let opened = opened.filter(|_| flaw != Flaw::StrictHead || parts == 1);
                if let Some(is_compressed) = opened {
                    let opened = client.insert(Client::new(flaw));
                    opened.deflate = is_compressed.then(PerMessageDeflate::default);
                    opened.receive(&head[end + 4..]);
                } else if flaw != Flaw::KeepsTcp {
                    driver.end_stream();
                    continue;
                }
            }
        }
        if let Some(client) = &mut client {
            if driver.ended.is_some() && !has_ended {
                has_ended = true;
                client.ended();
            }
            output = client.take_output();
            driver.receive_in_pieces(&output, pieces);
            let is_closed = client.state == client::State::Closing && flaw != Flaw::KeepsTcp;
            // Neither waits for the server's end for ever.
            if client.state == client::State::Ended
                || (is_closed && driver.now > Duration::from_secs(8))
            {
                driver.end_stream();
                continue;
            }
        }
        if output.is_empty() && driver.sent.is_empty() {
            let Some(wait) = driver.wait() else { break };
            driver.suspend_until(driver.now + wait.min(Duration::from_secs(1)));
        }
    }
    match service.cases.results.state("client", id) {
        Some(State::Judged(report)) => report,
        _ => panic!("no verdict on {id}"),
    }
}

fn beyond() -> Suite {
    let groups =
        ["14.*", "15.*", "16.*", "17.*", "18.*"].map(|group| Pattern::parse(group).unwrap());
    Suite::select(&groups, &[], 1000).unwrap()
}

/// The verdicts that are not OK, each with its cases.
fn failures(flaw: Flaw) -> String {
    let service = driver::service(1 << 24, 1 << 30);
    let mut failures: BTreeMap<_, Vec<Id>> = BTreeMap::new();
    for id in beyond().ids() {
        let report = play(&service, *id, flaw);
        if report.behavior == Behavior::Ok {
            assert!(report.close.is_good(), "{flaw:?} {id}: {}", report.describe());
        } else {
            failures.entry(report.behavior.as_str()).or_default().push(*id);
        }
    }
    let mut text = String::new();
    for (verdict, ids) in failures {
        writeln!(text, "{verdict}: {}", ranges(&ids)).unwrap();
    }
    text
}

#[test]
fn a_right_client_passes_every_case_beyond() {
    let service = driver::service(1 << 24, 1 << 30);
    for (id, pieces) in beyond()
        .ids()
        .iter()
        .flat_map(|id| [&[usize::MAX][..], &[1, 2, 3, 700], &[5000, 1]].map(|pieces| (id, pieces)))
    {
        let report = play_in_pieces(&service, *id, Flaw::None, pieces);
        let verdict = (report.behavior, report.close);
        assert_eq!(verdict, (Behavior::Ok, CloseBehavior::Ok), "{id}: {}", report.describe());
    }
    assert_eq!(service.budget.left(), 1 << 30);
}

#[test]
fn whatever_a_client_does_each_case_beyond_ends_in_time_and_gives_its_memory_back() {
    let service = driver::service(1 << 20, 1 << 22);
    let mut random = Random(14);
    for id in beyond().ids().iter().flat_map(|id| [id; 8]) {
        let mut driver = Driver::new(&service);
        let (request, _) = request(&format!("/runCase?casetuple={id}&agent=client"), Flaw::None);
        driver.receive(request.as_bytes());
        for _ in 0..random.below(20) {
            match random.below(6) {
                0 => {
                    let len = random.below(200);
                    driver.receive(&random.bytes(len));
                }
                1 | 2 => {
                    let first = [0x81, 0x82, 0x01, 0x80, 0x88, 0x89, 0x8A, 0xC1][random.below(8)];
                    let len = random.below(100);
                    driver.receive(&frames::frame(first, &random.bytes(len)));
                }
                3 => {
                    driver.receive(&frames::close(1000 + random.below(20) as u16));
                }
                4 => {
                    let millis = random.below(3000) as u64;
                    driver.wait_until(driver.now + Duration::from_millis(millis));
                }
                _ if random.below(4) == 0 => driver.end_stream(),
                _ => {}
            }
        }
        while let Some(wait) = driver.wait() {
            driver.suspend_until(driver.now + wait);
        }
        assert_eq!(driver.waits, Waits::Over, "{id}");
        assert!(driver.now < Duration::from_secs(90), "{id} takes {:?}", driver.now);
        drop(driver);
        assert_eq!(service.budget.left(), 1 << 22, "{id}");
        let state = service.cases.results.state("client", *id);
        assert!(matches!(state, Some(State::Judged(_))), "{id}");
    }
}

#[test]
fn a_case_of_tls_has_no_verdict_without_it() {
    let service = driver::service(1 << 20, 1 << 22);
    for id in beyond().ids().iter().filter(|id| id.group() == 18) {
        let target = format!("/runCase?casetuple={id}&agent=client");
        let mut driver = Driver::asking(&service, &target, "");
        settle(&mut driver);
        driver.forget_response();
        assert_eq!(driver.take(), b"\x88\x02\x03\xE8");
        driver.receive(&frames::close(1000));
        let Some(State::Judged(report)) = service.cases.results.state("client", *id) else {
            panic!("no verdict on {id}")
        };
        assert_eq!((report.behavior, report.close), (Behavior::Informational, CloseBehavior::Ok));
    }
}

#[test]
fn a_client_that_offers_more_than_a_case_needs_gets_it_too() {
    let service = driver::service(1 << 20, 1 << 22);
    let agreed = |id: &str, offer: &str| {
        let offer = format!("Sec-WebSocket-Extensions: permessage-deflate{offer}\r\n");
        let target = format!("/runCase?casetuple={id}&agent=client");
        let mut driver = Driver::asking(&service, &target, &offer);
        settle(&mut driver);
        let sent = String::from_utf8_lossy(&driver.take()).into_owned();
        sent.lines()
            .find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: permessage-deflate"))
            .map(str::to_owned)
    };
    let both = "; server_no_context_takeover; client_no_context_takeover";
    for id in ["17.2.2", "17.3.1", "17.3.5", "17.4.2", "17.6.1"] {
        assert_eq!(agreed(id, both).as_deref(), Some(both), "{id}");
    }
    for id in ["17.2.2", "17.3.1", "17.4.1", "17.4.3", "17.6.1"] {
        for offer in ["; client_no_context_takeover", "; server_max_window_bits=10"] {
            let agreed = agreed(id, offer);
            assert!(agreed.is_some_and(|agreed| agreed.contains(offer)), "{id} {offer}");
        }
    }
    // A message would refer to an earlier one, or the window would be another.
    for (id, offer) in [
        ("17.4.1", both),
        ("17.5.2", "; server_max_window_bits=8"),
        ("17.5.4", "; client_max_window_bits=8"),
        ("17.5.4", ""),
    ] {
        assert_eq!(agreed(id, offer), None, "{id} {offer}");
    }
}

#[test]
fn pings_during_a_head_that_drips_take_no_memory() {
    let service = driver::service(1 << 20, 1 << 22);
    let mut driver = Driver::asking(&service, "/runCase?casetuple=14.4.3&agent=client", "");
    let pings = frames::frame(0x89, &[b'x'; 125]).repeat(10);
    let mut received = 0;
    while matches!(driver.waits, Waits::ToReceive(_)) && received < 1 << 20 {
        driver.receive(&pings);
        received += pings.len();
    }
    assert!(matches!(driver.waits, Waits::Paused(_)), "{received} bytes");
    assert!(received < 32 * 1024, "{received} bytes");
    // The head goes on, and then the pongs.
    while matches!(driver.waits, Waits::Paused(_)) {
        driver.suspend_until(driver.now + Duration::from_millis(5));
    }
    settle(&mut driver);
    let sent = driver.take();
    let pong = frames::server_frame(0x8A, &[b'x'; 125]);
    let text = frames::server_frame(0x81, b"Hello, world!");
    assert!(sent.ends_with(&[pong, text].concat()), "{} bytes", sent.len());
}

#[test]
fn keys_are_updated_between_two_texts() {
    let service = driver::service(1 << 20, 1 << 22);
    let mut driver = Driver::new(&service);
    driver.connection.spoke_tls();
    driver.receive(driver::upgrade("/runCase?casetuple=18.3.1&agent=client", "").as_bytes());
    settle(&mut driver);
    let response = driver.forget_response();
    let text = frames::server_frame(0x81, b"Hello, world!");
    assert_eq!(driver.take(), text.repeat(2));
    assert_eq!(driver.key_updates, [response.len() + text.len()]);
}

#[test]
fn echoes_before_their_texts_end_in_a_close_frame_without_new_keys() {
    let service = driver::service(1 << 20, 1 << 22);
    let mut driver = Driver::new(&service);
    driver.connection.spoke_tls();
    let request = driver::upgrade("/runCase?casetuple=18.3.1&agent=client", "");
    let echo = frames::frame(0x81, b"Hello, world!");
    driver.receive(&[request.into_bytes(), echo.repeat(2)].concat());
    settle(&mut driver);
    assert!(driver.sent.ends_with(b"\x88\x02\x03\xE8") && driver.key_updates.is_empty());
}

#[test]
fn a_key_is_compared_with_that_of_the_agents_last_run() {
    let service = driver::service(1 << 20, 1 << 22);
    let id = Id::new(14, 5, 1);
    let run = |key: &str, agent: &str| {
        let target = format!("/runCase?casetuple={id}&agent={agent}");
        let mut driver = Driver::new(&service);
        driver.receive(driver::upgrade(&target, "").replace(EXAMPLE_KEY, key).as_bytes());
        driver.receive(&frames::frame(0x81, b"Hello, world!"));
        driver.receive(&frames::close(1000));
        match service.cases.results.state(agent, id) {
            Some(State::Judged(report)) => (report.behavior, report.received.contains("last")),
            _ => panic!("no verdict"),
        }
    };
    let [one, two] = [[1; 16], [2; 16]].map(|bytes| BASE64_STANDARD.encode(bytes));
    assert_eq!(run(&one, "a"), (Behavior::Ok, false));
    assert_eq!(run(&one, "b"), (Behavior::Ok, false));
    assert_eq!(run(&one, "a"), (Behavior::Failed, true));
    assert_eq!(run(&two, "a"), (Behavior::Ok, false));
    assert_eq!(run(EXAMPLE_KEY, "a"), (Behavior::Failed, false));
}

#[test]
fn the_stop_ends_a_case_whose_stream_the_server_has_ended() {
    let service = driver::service(1 << 20, 1 << 22);
    for id in ["14.1.1", "15.2.4", "15.3.1"] {
        let mut driver = Driver::new(&service);
        let (request, _) = request(&format!("/runCase?casetuple={id}&agent=client"), Flaw::None);
        driver.receive(request.as_bytes());
        if id == "15.3.1" {
            driver.receive(&frames::frame(0x81, b"first"));
            assert!(driver.ended.is_some());
        }
        driver.stop();
        while let Some(wait) = driver.wait() {
            driver.suspend_until(driver.now + wait);
        }
        assert!(driver.now <= Duration::from_secs(7), "{id}: {:?}", driver.now);
        let state = service.cases.results.state("client", Id::parse(id).unwrap());
        assert!(matches!(state, Some(State::Running)), "{id}");
        let has_reset = driver.log.iter().any(|(_, line)| line.contains("reset by server"));
        assert_eq!(has_reset, id == "15.3.1", "{:?}", driver.log);
    }
}

#[test]
fn each_case_beyond_describes_itself_and_names_its_rule() {
    let suite = beyond();
    assert!(suite.ids().is_sorted_by(|one, two| one < two));
    for id in suite.ids() {
        assert!(suite::subject(id.group()).starts_with("Beyond: "), "{id}");
        let case = suite.case(*id).unwrap();
        let text = format!("{} {}", case.description(), case.expectation());
        let is_whole = text.starts_with("Sends ") || text.starts_with("Answers the handshake ");
        assert!(is_whole && text.ends_with(['.', '"']), "{id}: {text}");
        assert!(text.contains(" RFC ") && text.contains('§'), "{id}: {text}");
        assert!(text.len() < 800 && !text.contains("  "), "{id}: {text}");
    }
    for (id, expected) in [
        (
            Id::new(14, 3, 4),
            "Answers the handshake with status 302 and Location \"/getCaseCount\", then sends text \"Hello, world!\". \
             Expects nothing but the end of TCP, within 3s. The client may follow it in another connection, or fail. \
             RFC 6455 §4.1: \"the server might redirect the client using a 3xx status code (but clients are not \
             required to follow them)\".",
        ),
        (
            Id::new(16, 5, 1),
            "Sends text without FIN \"first \", ping 125 bytes, nothing for 1s, continuation \"second\". Expects pong \
             125 bytes, the end of the pause, text \"first second\". The client answers the close frame with 1000, \
             within 2s. NON-STRICT for the end of the pause, pong 125 bytes, text \"first second\", if the client \
             answers the close frame with 1000. RFC 6455 §5.5.2: \"It SHOULD respond with Pong frame as soon as is \
             practical.\"",
        ),
    ] {
        let case = suite.case(id).unwrap();
        assert_eq!(format!("{} {}", case.description(), case.expectation()), expected);
    }
}

#[test]
fn each_case_beyond_is_failed_by_a_client_that_is_wrong_in_it() {
    let mut wrong: BTreeMap<String, String> = BTreeMap::new();
    let mut failed = String::new();
    for (flaw, expected) in FLAWS {
        let expected = expected.iter().fold(String::new(), |text, line| text + line + "\n");
        let found = failures(*flaw);
        failed += &found;
        if found != expected {
            wrong.insert(format!("{flaw:?}"), found);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Each case is in one of the ranges.
    let suite = beyond();
    let ranges: Vec<_> = failed.split_whitespace().filter(|word| word.contains('.')).collect();
    for id in suite.ids() {
        let id = id.to_string();
        let (section, number) = id.rsplit_once('.').unwrap();
        let number: u8 = number.parse().unwrap();
        let has = |range: &&str| {
            let (start, numbers) = range.rsplit_once('.').unwrap();
            let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
            start == section && (first.parse().unwrap()..=last.parse().unwrap()).contains(&number)
        };
        assert!(ranges.iter().any(has), "{id} is failed by no client");
    }
}

#[rustfmt::skip]
const FLAWS: &[(Flaw, &[&str])] = &[
    (Flaw::AnyHandshake, &["FAILED: 14.1.1-4 14.2.1-6 14.3.1-4 17.1.1-6"]),
    (Flaw::NoFolding, &["NON-STRICT: 14.4.5"]),
    (Flaw::StrictHead, &["FAILED: 14.4.1-3", "NON-STRICT: 14.4.4"]),
    (Flaw::ExampleKey, &["FAILED: 14.5.1"]),
    (Flaw::SameMaskingKey, &["FAILED: 14.5.2"]),
    (Flaw::MaskedAccepted, &["FAILED: 16.1.1"]),
    (Flaw::AnyLength, &["NON-STRICT: 16.2.1-4"]),
    (Flaw::NoReservedBitsCheck, &["FAILED: 16.3.1-3 17.2.1-3"]),
    (Flaw::LatePong, &["NON-STRICT: 16.5.1"]),
    (Flaw::NoPong, &["FAILED: 16.5.1-3 17.3.5"]),
    (Flaw::Silent, &["FAILED: 14.4.1-6 14.5.1-2 15.3.1-5 15.4.1-4 16.1.1 16.2.1-4 16.3.1-4 16.4.1 16.5.1-3 16.6.1-4 17.2.1-8 17.3.1-5 17.4.1-3 17.5.1-4 17.6.1 18.1.1-2 18.2.1 18.3.1"]),
    (Flaw::EchoTruncated, &["FAILED: 14.4.1-6 14.5.1-2 15.2.2 15.3.1-5 15.4.1-4 16.1.1 16.2.1-4 16.3.1-4 16.4.1 16.5.1 16.6.1-4 17.2.1-8 17.3.1-3 17.3.5 17.4.1-3 17.5.1-4 17.6.1 18.1.1-2 18.2.1 18.3.1"]),
    (Flaw::OldCodes, &["NON-STRICT: 15.1.1-3"]),
    (Flaw::AnyCloseCode, &["FAILED: 15.1.4"]),
    (Flaw::NoCloseAnswer, &["FAILED: 14.4.1-7 14.5.1-2 15.1.1-5 15.2.1-4 16.1.1 16.2.1-2 16.3.1-4 16.4.1 16.5.1-3 16.6.1-4 17.2.1-8 17.3.1-5 17.4.1-3 17.5.1-4 18.2.1 18.3.1", "NON-STRICT: 16.2.3-4"]),
    (Flaw::KeepsTcp, &["FAILED: 14.1.1-4 14.2.1-6 14.3.1-4 15.3.1-5 17.1.1-6 18.1.1-2", "NON-STRICT: 15.2.4"]),
    (Flaw::SaysGoodbye, &[]),
    (Flaw::Sends1006, &["FAILED: 15.3.1-5 18.1.1-2"]),
    (Flaw::NoUtf8Check, &["FAILED: 17.2.8"]),
    (Flaw::NoDeflateCheck, &["FAILED: 17.2.4 17.2.7", "NON-STRICT: 17.2.5-6"]),
    (Flaw::EndsAtFinalBlock, &["FAILED: 17.3.2"]),
    (Flaw::ForgetsContext, &["FAILED: 17.4.1"]),
    (Flaw::KeepsContext, &["FAILED: 17.4.3 17.5.3-4"]),
    (Flaw::LargeWindow, &["FAILED: 17.5.3-4"]),
    (Flaw::EchoesBomb, &[]),
    (Flaw::WrongCode, &["FAILED: 15.1.4", "NON-STRICT: 14.4.7 16.1.1 16.2.1-4 16.3.1-4 17.2.1-8 17.6.1"]),
    (Flaw::LastPong, &["FAILED: 17.3.5"]),
    (Flaw::CutsReason, &["FAILED: 15.1.5"]),
    (Flaw::EchoesAfterClose, &["FAILED: 15.2.3", "NON-STRICT: 15.2.4"]),
    (Flaw::SwallowsClose, &["FAILED: 15.1.4"]),
    (Flaw::TrimsText, &["FAILED: 16.6.3-4 17.5.1-4"]),
    (Flaw::UnaskedPong, &["FAILED: 14.4.1-7 14.5.1-2 15.1.1-5 15.2.1-4 15.3.1-5 15.4.1-4 16.1.1 16.2.1-4 16.3.1-4 16.4.1 16.5.1-3 16.6.1-4 17.2.1-8 17.3.1-5 17.4.1-3 17.5.1-4 17.6.1 18.1.1-2 18.2.1 18.3.1"]),
    (Flaw::SwallowErrors, &["FAILED: 14.4.7 16.3.1-4 17.2.1-3"]),
    (Flaw::DropAtOnce, &["FAILED: 14.4.1-3 14.4.6 14.5.1-2 15.1.1-3 15.1.5 15.2.1-4 15.3.1-5 15.4.1-4 16.1.1 16.2.1-4 16.3.1-4 16.4.1 16.5.1-3 16.6.1-4 17.2.1-8 17.3.1-5 17.4.1-3 17.5.1-4 17.6.1 18.1.1-2 18.2.1 18.3.1", "NON-STRICT: 14.4.4-5"]),
];
