//! Single reactions of a client, and what the server and its verdict make of each.

use std::time::Duration;

use wsecho::app::cases::case::{Behavior, CloseBehavior};
use wsecho::app::cases::verdict::Came;
use wsecho::app::service::Service;
use wsecho::websocket::message::Kind;

use super::{open, open_with, report, settle};
use crate::driver::{self, Driver, Ended};
use crate::frames;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

fn service() -> Service {
    driver::service(1 << 24, 1 << 30)
}

/// Both verdicts on a client that sends this at once.
fn judged(id: &str, sent: &[Vec<u8>]) -> (Behavior, CloseBehavior) {
    let service = service();
    let mut driver = open(&service, id);
    driver.receive(&sent.concat());
    settle(&mut driver);
    driver.end_stream();
    let report = report(&service, id);
    (report.behavior, report.close)
}

#[test]
fn an_echo_and_a_close_frame_in_one_segment_pass() {
    let service = service();
    let mut driver = open(&service, "1.1.2");
    driver.take();
    driver.receive(&[frames::frame(0x81, &[b'*'; 125]), frames::close(1000)].concat());
    assert_eq!((driver.take(), driver.ended), (b"\x88\x02\x03\xE8".into(), Some(Ended::Stream)));
    let report = report(&service, "1.1.2");
    assert_eq!((report.behavior, report.close), (Behavior::Ok, CloseBehavior::Ok));
}

#[test]
fn a_client_that_closes_first_is_answered() {
    let service = service();
    let mut driver = open(&service, "1.1.2");
    driver.take();
    driver.receive(&frames::close(1000));
    assert_eq!((driver.take(), driver.ended), (b"\x88\x02\x03\xE8".into(), Some(Ended::Stream)));
    let report = report(&service, "1.1.2");
    assert_eq!((report.behavior, report.close), (Behavior::Failed, CloseBehavior::Failed));
}

#[test]
fn the_reason_names_what_the_client_did_instead_of_waiting_for_the_close() {
    for (sent, reason) in [
        (frames::close(1009), "the client closed first, with 1009, but the server had to"),
        (frames::frame(0x88, b""), "the client closed first, but the server had to"),
        (vec![], "the client ended TCP, but the server had to close"),
        (vec![0x81], "the client ended TCP, but the server had to close"),
    ] {
        let service = service();
        let mut driver = open(&service, "1.1.2");
        driver.receive(&sent);
        driver.end_stream();
        assert_eq!(report(&service, "1.1.2").close_result, reason);
    }
}

#[test]
fn the_first_of_two_close_frames_is_the_servers() {
    let service = service();
    let mut driver = open(&service, "7.1.2");
    assert_eq!(driver.take(), b"\x88\x02\x03\xE8\x88\x00");
    driver.receive(&frames::close(1000));
    let report = report(&service, "7.1.2");
    assert_eq!(report.ending.sent.as_ref().unwrap().code, Some(1000));
}

#[test]
fn codes_that_were_registered_later_are_wrong_in_the_suite_only() {
    for code in 1012..=1014 {
        let answer = [frames::close(code)];
        assert_eq!(judged("7.7.1", &answer), (Behavior::Ok, CloseBehavior::Unclean), "{code}");
        assert_eq!(judged("15.1.5", &answer), (Behavior::Failed, CloseBehavior::WrongCode));
    }
}

#[test]
fn a_message_over_the_limit_is_an_echo_only_where_it_has_to_be_one() {
    let service = driver::service(1000, 1 << 30);
    let mut driver = open(&service, "1.1.1");
    driver.take();
    driver.receive(&frames::frame(0x81, &[b'*'; 1001]));
    assert_eq!(driver.take()[2..4], 1009_u16.to_be_bytes());
    driver.end_stream();
    assert!(report(&service, "1.1.1").result().starts_with("the server failed the connection: "));
    // Another mistake is none.
    let mut driver = open_with(&service, "17.6.1", OFFER);
    driver.receive(&[frames::frame(0x81, b"first"), frames::frame(0x83, b"")].concat());
    driver.end_stream();
    assert_eq!(report(&service, "17.6.1").received, "[[\"message\", \"first\", false]]");
}

#[test]
fn a_case_that_is_over_while_it_closes_is_no_failure_of_the_server() {
    let service = service();
    let mut driver = open(&service, "6.5.1");
    driver.wait_until(Duration::from_millis(200));
    driver.take();
    driver.receive(&frames::frame(0x81, b"hello$world"));
    assert_eq!(driver.take(), b"\x88\x02\x03\xE8");
    driver.wait_before(Duration::from_millis(500));
    assert_eq!(driver.ended, None);
    driver.wait_until(Duration::from_millis(500));
    assert_eq!(driver.ended, Some(Ended::Stream));
    let report = report(&service, "6.5.1");
    assert_eq!((report.behavior, report.close), (Behavior::Ok, CloseBehavior::Unclean));
    assert_eq!(report.ending.failed, None);
}

#[test]
fn a_wrong_frame_waits_for_the_first_echo_for_up_to_two_seconds() {
    let service = service();
    let first = frames::server_frame(0x81, b"first");
    let mut driver = open(&service, "16.1.1");
    assert_eq!(driver.take(), first);
    driver.wait_before(Duration::from_secs(2));
    assert_eq!(driver.take(), b"");
    driver.suspend_until(Duration::from_secs(2));
    let wrong = driver.take();
    assert!(!wrong.is_empty());

    let mut driver = open(&service, "16.1.1");
    driver.take();
    driver.receive(&frames::frame(0x81, b"first"));
    assert_eq!(driver.take(), wrong);
}

#[test]
fn pongs_may_be_left_out_but_neither_repeated_nor_swapped() {
    for (numbers, expected) in [
        (&["10000"][..], Behavior::Ok),
        (&["3", "5", "10000"], Behavior::Ok),
        (&["5", "3", "10000"], Behavior::Failed),
        (&["3", "3", "10000"], Behavior::Failed),
        (&["0", "10000"], Behavior::Failed),
        (&["10000", "10000"], Behavior::Failed),
        (&["9999"], Behavior::Failed),
    ] {
        let pongs = numbers.iter().map(|number| frames::frame(0x8A, number.as_bytes()));
        let sent: Vec<_> = pongs.chain([frames::close(1000)]).collect();
        assert_eq!(judged("16.5.3", &sent).0, expected, "{numbers:?}");
    }
}

#[test]
fn another_reaction_passes_only_with_its_own_close_code() {
    for (id, code, expected) in [
        ("15.1.1", 1012, Behavior::Ok),
        ("15.1.1", 1002, Behavior::NonStrict),
        ("15.1.1", 1003, Behavior::Failed),
        // It may refuse the head, but not once it has opened the WebSocket.
        ("14.4.4", 1002, Behavior::Failed),
    ] {
        assert_eq!(judged(id, &[frames::close(code)]).0, expected, "{id} {code}");
    }
}

#[test]
fn a_client_may_compress_within_the_window_that_was_agreed() {
    for (id, len) in [("17.5.3", 600), ("17.5.4", 1200)] {
        let service = service();
        let mut driver = open_with(&service, id, OFFER);
        let sent = driver.take();
        let message = &sent[sent.len() - len..];
        // A block without compression (RFC 7692 §7.2.3.3).
        let len = u16::try_from(len).unwrap();
        let stored = [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), message, &[0]].concat();
        driver.receive(&frames::frame(0xC1, b"\xF2\x48\xCD\xC9\xC9\x07\x00"));
        driver.receive(&frames::frame(0xC2, &stored));
        driver.receive(&frames::close(1000));
        assert_eq!(report(&service, id).describe(), "OK", "{id}");
    }
}

#[test]
fn a_round_trip_charges_its_message_three_times() {
    let left = |id: &str| {
        let service = service();
        let _driver = open_with(&service, id, OFFER);
        service.budget.left()
    };
    assert_eq!(left("12.1.1") - left("12.1.10"), 3 * (128 * 1024 - 16));
}

#[test]
fn the_fragments_of_a_large_message_are_its_bytes_in_their_order() {
    let service = service();
    let sent = open(&service, "9.4.4").take();
    let (mut rest, mut message, mut firsts) = (&sent[..], Vec::new(), Vec::new());
    while let Some((first, payload, others)) = frames::split_frame(rest) {
        assert_eq!(payload.len(), 4096);
        message.extend_from_slice(payload);
        firsts.push(first);
        rest = others;
    }
    assert_eq!(firsts, [&[0x02][..], &[0; 1022], &[0x80]].concat());
    assert!(message.iter().eq(b"\x00\xFE\x23\xFA\xF0".iter().cycle().take(4 << 20)));
}

#[test]
fn the_report_has_the_first_events_up_to_its_limit() {
    let service = service();
    let mut driver = open(&service, "5.9");
    let pong = "x".repeat(20);
    for _ in 0..12 {
        driver.receive(&frames::frame(0x8A, pong.as_bytes()));
    }
    driver.end_stream();
    let received = &report(&service, "5.9").received;
    assert_eq!(received.matches(&pong).count(), 12, "{received}");
}

#[test]
fn a_payload_is_shown_as_text_or_in_digits_and_cut_between_characters() {
    for (payload, shown) in [
        (b"\"whole\"".to_vec(), "\\\"whole\\\"".to_owned()),
        (vec![b'x'; 64], "x".repeat(64)),
        (vec![b'x'; 65], "x".repeat(64) + " …"),
        ([&[b'x'; 63][..], "é".as_bytes()].concat(), "x".repeat(63) + " …"),
        (vec![b'x', 0xC3], "0x78c3".to_owned()),
        (vec![0xFF; 65], "0x".to_owned() + &"ff".repeat(64) + " …"),
    ] {
        let json = Came::Message(Kind::Binary, &payload).to_json();
        assert_eq!(json, format!("[\"message\", \"{shown}\", true]"));
    }
}

#[test]
fn a_request_with_an_empty_host_fails_its_case() {
    let service = service();
    let request = driver::upgrade("/runCase?casetuple=14.5.1&agent=x", "");
    let mut driver = Driver::new(&service);
    driver.receive(request.replace("Host: localhost", "Host: ").as_bytes());
    driver.end_stream();
    let received = &report(&service, "14.5.1").received;
    assert!(received.contains("Host is empty"), "{received}");
}
