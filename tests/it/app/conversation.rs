//! The conversation with time as an input: pings, deadlines, the stop, and when memory is given back.

use std::sync::Arc;
use std::time::Duration;

use wsecho::app::incoming::{LARGE_INPUT, SMALL_INPUT};
use wsecho::app::service::Service;
use wsecho::app::settings::WRITE_TIMEOUT_PARTS;
use wsecho::app::step::Step;
use wsecho::buffer::{Budget, Reservable, STEP, UNMETERED};
use wsecho::websocket::close::STOPPING;

use crate::driver::{
    CLOSE_TIMEOUT, Closed, Driver, Ended, LINGER, PING_INTERVAL, PING_TIMEOUT, Waits, service,
    upgrade, with_budget,
};
use crate::frames::{close, frame, server_frame};

const PING: &[u8] = b"\x89\0";

/// The resolution of time.
const NANOSECOND: Duration = Duration::from_nanos(1);

/// How long the memory of a large message is kept.
const SPARE_TTL: Duration = Duration::from_millis(100);

/// A message for which the budget is charged one step.
const LARGE: usize = UNMETERED + STEP;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

// Silence

#[test]
fn a_silent_client_is_pinged_after_exactly_the_interval_and_once() {
    let service = service(100, 0);
    let mut driver = Driver::open(&service);
    assert_eq!(driver.wait(), Some(PING_INTERVAL));
    driver.wait_before(PING_INTERVAL);
    assert_eq!((driver.sent.as_slice(), driver.wait()), (&b""[..], Some(NANOSECOND)));
    driver.wait_until(PING_INTERVAL);
    assert_eq!((driver.sent.as_slice(), driver.wait()), (PING, Some(PING_TIMEOUT)));
    driver.wait_until(PING_INTERVAL + NANOSECOND);
    assert_eq!(driver.sent, PING);
    assert_eq!(driver.wait(), Some(PING_TIMEOUT - NANOSECOND));
}

#[test]
fn any_byte_ends_the_silence_before_a_ping_and_after_it() {
    let service = service(100, 0);
    for bytes in [frame(0x8A, b""), frame(0x01, b"x"), vec![0x81]] {
        let mut driver = Driver::open(&service);
        driver.now = secs(15);
        driver.receive(&bytes);
        assert_eq!(driver.wait(), Some(PING_INTERVAL));
        driver.wait_before(secs(35));
        assert_eq!(driver.sent, b"");
        driver.wait_until(secs(35));
        assert_eq!(driver.sent, PING);

        driver.now = secs(45) - NANOSECOND;
        driver.receive(&frame(0x8A, b"")[..1]);
        assert_eq!(driver.wait(), Some(PING_INTERVAL));
        driver.wait_until(secs(65) - 2 * NANOSECOND);
        assert_eq!(driver.sent, PING);
        driver.wait_until(secs(65) - NANOSECOND);
        assert_eq!(driver.sent, PING.repeat(2));
    }
}

#[test]
fn a_pinged_client_that_stays_silent_is_closed_after_exactly_the_timeout() {
    let service = service(100, 0);
    let mut driver = Driver::open(&service);
    driver.suspend_until(secs(21));
    driver.wait_before(secs(31));
    assert_eq!((driver.sent.as_slice(), driver.wait()), (PING, Some(NANOSECOND)));
    driver.wait_until(secs(31));
    let close = server_frame(0x88, b"\x03\xE9no answer to a ping");
    assert_eq!(driver.sent, [PING, &close].concat());
    assert!(driver.is_closed());
}

#[test]
fn without_an_interval_a_client_may_be_silent_for_ever() {
    let mut service = service(100, 0);
    service.settings.timeouts.ping_interval = None;
    let mut driver = Driver::open(&service);
    assert_eq!(driver.wait(), None);
    driver.wait_until(secs(365 * 24 * 60 * 60));
    assert_eq!((driver.sent.as_slice(), driver.wait()), (&b""[..], None));
}

#[test]
fn a_busy_client_is_waited_for_as_long_each_time() {
    let service = service(UNMETERED, 0);
    let whole = [frame(0x81, b"text"), frame(0x8A, b"")].concat();
    let fragments = [frame(0x01, b"te"), frame(0x80, b"xt")].concat();
    // A message in pieces has memory to give up when the client is quiet. Another timeout would cost a
    // system call for each message.
    for (message, split, wait) in [(&whole, 16, PING_INTERVAL), (&fragments, 8, SPARE_TTL)] {
        let mut driver = Driver::open(&service);
        driver.receive(message);
        for number in 1..1_000 {
            driver.now = number * SPARE_TTL;
            for piece in [&message[..split], &message[split..]] {
                driver.receive(piece);
                assert_eq!(driver.wait(), Some(wait));
            }
        }
        assert_eq!(driver.sent, server_frame(0x81, b"text").repeat(1_000));
        driver.receive(&close(1000));
        assert!(driver.end().unwrap().contains("; 1000 messages, "), "{:?}", driver.end());
    }
}

// The end

#[test]
fn nothing_follows_the_answer_to_a_close_frame() {
    let service = service(100, 0);
    let mut driver = Driver::open(&service);
    driver.receive(&[frame(0x81, b"a"), close(1000), frame(0x81, b"b")].concat());
    assert_eq!(driver.ended, Some(Ended::Stream));
    // The driver fails if a frame follows.
    driver.receive(&[frame(0x89, b"c"), close(1000)].concat());
    driver.stop();
    driver.wait_until(PING_INTERVAL + PING_TIMEOUT);
    assert_eq!(driver.sent, b"\x81\x01a\x88\x02\x03\xE8");
    assert_eq!(driver.waits, Waits::Over);
}

#[test]
fn after_both_close_frames_the_peer_has_a_moment_to_end_its_stream() {
    let service = service(100, 0);
    for is_begun_by_server in [false, true] {
        let closed = || {
            let mut driver = Driver::open(&service);
            driver.wait_until(secs(7));
            if is_begun_by_server {
                driver.stop();
                assert_eq!((driver.ended, driver.wait()), (None, Some(CLOSE_TIMEOUT)));
            }
            driver.receive(&close(1000));
            assert_eq!((driver.ended, driver.wait()), (Some(Ended::Stream), Some(LINGER)));
            driver
        };
        let mut ends = closed();
        ends.end_stream();
        assert_eq!(ends.waits, Waits::Over);

        let mut busy = closed();
        busy.now += LINGER / 2;
        busy.receive(b"anything");
        assert_eq!(busy.wait(), Some(LINGER / 2));
        busy.now += LINGER / 2;
        busy.receive(b"anything");
        assert_eq!(busy.waits, Waits::Over);
    }
}

#[test]
fn the_stream_is_ended_once_the_peer_has_answered_and_not_by_the_servers_close_frame_alone() {
    let service = service(1 << 20, 1 << 20);
    let large = frame(0x82, &[7; 100_000]);
    // What is skipped until then: nothing, whole messages, wrong text, the rest of a message.
    for (before, between) in [
        (&b""[..], &b""[..]),
        (b"", &[frame(0x81, b"late"), frame(0x89, b"late"), frame(0x81, b"\xFF")].concat()),
        (&large[..50_000], &[&large[50_000..], &frame(0x81, b"late")].concat()),
        (&frame(0x01, b"unfinished"), &frame(0x80, b"late")),
    ] {
        for piece in [1, 7, usize::MAX] {
            let mut driver = Driver::open(&service);
            driver.receive(before);
            driver.stop();
            assert_eq!(driver.take(), server_frame(0x88, b"\x03\xE9server is stopping"));
            driver.receive_in_pieces(between, &[piece]);
            assert_eq!(driver.ended, None);
            driver.receive_in_pieces(&close(1001), &[piece]);
            assert_eq!((driver.take(), driver.ended), (vec![], Some(Ended::Stream)));
            let end = "closed by server, 1001 \"server is stopping\", answered by 1001;";
            assert!(driver.end().unwrap().starts_with(end), "{:?}", driver.end());
        }
    }
}

#[test]
fn a_peer_that_does_not_answer_a_close_frame_has_until_the_close_timeout() {
    let service = service(100, 0);
    let opened = || {
        let mut driver = Driver::open(&service);
        driver.wait_until(secs(7));
        driver.stop();
        // What comes does not prolong it.
        driver.now = secs(10);
        driver.receive(&frame(0x81, b"anything"));
        assert_eq!((driver.wait(), driver.ended), (Some(secs(2)), None));
        driver
    };
    let mut silent = opened();
    silent.wait_before(secs(12));
    assert_eq!((silent.wait(), silent.ended), (Some(NANOSECOND), None));
    silent.wait_until(secs(12));
    assert_eq!((silent.wait(), silent.ended), (Some(LINGER), Some(Ended::Stream)));
    assert!(silent.end().unwrap().contains(", not answered;"), "{:?}", silent.end());

    let mut busy = opened();
    busy.now = secs(12);
    busy.receive(&frame(0x81, b"anything"));
    assert_eq!(busy.ended, Some(Ended::Stream));

    let mut gone = opened();
    gone.end_stream();
    assert_eq!((gone.waits, gone.ended), (Waits::Over, Some(Ended::Stream)));
    assert!(gone.end().unwrap().contains(", not answered;"), "{:?}", gone.end());
}

#[test]
fn a_peer_that_broke_the_protocol_is_not_read_and_has_the_close_timeout_to_leave() {
    let service = service(100, 0);
    for wrong in [&b"\xFF\xFF"[..], &frame(0x81, b"\xFF"), b"\x81\x02hi"] {
        let mut driver = Driver::open(&service);
        driver.receive(&[wrong, &close(1000)].concat());
        assert_eq!((driver.wait(), driver.ended), (Some(CLOSE_TIMEOUT), Some(Ended::Stream)));
        driver.wait_before(CLOSE_TIMEOUT);
        driver.receive(&close(1000));
        assert_ne!(driver.waits, Waits::Over);
        driver.wait_until(CLOSE_TIMEOUT);
        assert_eq!(driver.waits, Waits::Over);
    }
}

#[test]
fn a_stop_comes_after_the_replies_to_what_came_before() {
    let service = service(100, 0);
    let mut driver = Driver::open(&service);
    driver.receive(&[frame(0x81, b"a"), frame(0x89, b"b"), frame(0x01, b"unfinished")].concat());
    driver.stop();
    driver.stop();
    driver.receive(&[frame(0x80, b""), frame(0x81, b"late"), frame(0x89, b"late")].concat());
    assert_eq!(driver.sent, b"\x81\x01a\x8A\x01b\x88\x14\x03\xE9server is stopping");
}

// Messages that make no progress

const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Long enough to grow by 64 KiB twice, in bytes.
const LONG: usize = 3 * UNMETERED;

fn without_pings() -> Service {
    let mut service = service(LONG, LONG);
    service.settings.timeouts.ping_interval = None;
    service.settings.timeouts.write = WRITE_TIMEOUT;
    service
}

/// A conversation in which a message of [`LONG`] bytes has begun after five seconds.
fn begun<'s>(service: &'s Service, start: &[u8]) -> Driver<'s> {
    let mut driver = Driver::open(service);
    driver.wait_until(secs(5));
    driver.receive(start);
    driver
}

#[track_caller]
fn assert_makes_no_progress(driver: &Driver) {
    assert_eq!(driver.sent, server_frame(0x88, b"\x03\xF0message makes no progress"));
    assert!(driver.is_closed());
}

#[test]
fn a_message_that_grows_too_little_is_closed_after_exactly_the_write_timeout() {
    let service = without_pings();
    let starts =
        [frame(0x82, &vec![7; LONG])[..20_000].to_vec(), frame(0x01, b"7"), frame(0x02, b"")];
    // A byte of the payload, or a fragment of one byte.
    for (start, byte) in starts.iter().zip([&b"7"[..], &frame(0x00, b"7"), &frame(0x00, b"7")]) {
        for bytes_until_then in [0, 1, 100] {
            let mut driver = begun(&service, start);
            assert_eq!(driver.wait(), Some(WRITE_TIMEOUT / WRITE_TIMEOUT_PARTS));
            for number in 1..=bytes_until_then {
                driver.now = secs(5) + WRITE_TIMEOUT * number / 101;
                driver.receive(byte);
            }
            driver.wait_before(secs(35));
            assert_eq!((driver.sent.as_slice(), driver.wait()), (&b""[..], Some(NANOSECOND)));
            if bytes_until_then == 100 {
                driver.now = secs(35);
                driver.receive(byte);
            } else {
                driver.wait_until(secs(35));
            }
            assert_makes_no_progress(&driver);
        }
    }
}

#[test]
fn a_message_has_as_much_time_again_once_it_has_grown_by_64_kib() {
    let service = without_pings();
    for (bytes, until) in [(UNMETERED - 1, 35), (UNMETERED, 64)] {
        let mut driver = begun(&service, &frame(0x82, &vec![7; LONG])[..15]);
        driver.wait_until(secs(34));
        driver.receive(&vec![7; bytes]);
        driver.wait_before(secs(until));
        assert_eq!((driver.sent.as_slice(), driver.wait()), (&b""[..], Some(NANOSECOND)));
        driver.wait_until(secs(until));
        assert_makes_no_progress(&driver);
    }
}

#[test]
fn what_is_no_part_of_the_message_is_no_progress() {
    let service = without_pings();
    let mut driver = begun(&service, &frame(0x02, b"7"));
    for second in 6..35 {
        driver.now = secs(second);
        driver.receive(&frame(0x8A, &[7; 125]).repeat(1_000));
    }
    driver.wait_until(secs(35));
    assert_makes_no_progress(&driver);
}

#[test]
fn a_message_that_ends_in_time_leaves_the_next_one_its_own_time() {
    let service = without_pings();
    let mut driver = begun(&service, &frame(0x02, b"7"));
    driver.now = secs(35) - NANOSECOND;
    driver.receive(&frame(0x80, b"8"));
    assert_eq!((driver.sent.as_slice(), driver.wait()), (&b"\x82\x0278"[..], Some(SPARE_TTL)));
    driver.wait_until(secs(1_000));
    assert!(!driver.is_closed());
    // The end of one message and the start of another come together.
    driver.receive(&frame(0x02, b"7"));
    driver.now = secs(1_020);
    driver.receive(&[frame(0x80, b"8"), frame(0x02, b"7")].concat());
    driver.sent.clear();
    driver.wait_until(driver.now + SPARE_TTL);
    driver.wait_before(secs(1_050));
    assert_eq!(driver.sent, b"");
    driver.wait_until(secs(1_050));
    assert_makes_no_progress(&driver);
}

#[test]
fn a_wait_in_which_the_process_was_suspended_does_not_count() {
    let service = without_pings();
    let start = &frame(0x82, &vec![7; LONG])[..20_000];
    for has_come in [false, true] {
        let mut driver = begun(&service, start);
        driver.wait_until(secs(15));
        if has_come {
            driver.now = secs(10_000);
            driver.receive(b"7");
        } else {
            driver.suspend_until(secs(10_000));
        }
        // Of the time until then one part counts.
        let end = secs(10_020) - WRITE_TIMEOUT / WRITE_TIMEOUT_PARTS;
        driver.wait_before(end);
        assert_eq!(driver.sent, b"");
        driver.wait_until(end);
        assert_makes_no_progress(&driver);
    }
}

// Memory

fn large() -> Vec<u8> {
    frame(0x82, &vec![b'x'; LARGE])
}

#[test]
fn the_budget_is_charged_for_bytes_that_came_and_not_for_a_declared_length() {
    // Less than a huge page, which is charged whole.
    let service = service(100 * STEP, 7 * STEP);
    let budget = &service.budget;
    for first in [0x82, 0x02] {
        let mut driver = Driver::open(&service);
        let message = frame(first, &vec![b'x'; 7 * STEP]);
        for (number, piece) in message.chunks(1_000).enumerate().take(1_000) {
            driver.receive(piece);
            let came = 1_000 * (number + 1);
            let charged = 7 * STEP - budget.left();
            assert!(charged <= (came + STEP).saturating_sub(UNMETERED), "{charged} for {came}");
        }
        assert_eq!(budget.left(), 3 * STEP);
        drop(driver);
        assert_eq!(budget.left(), 7 * STEP);
    }
}

#[test]
fn addresses_are_reserved_for_a_declared_length_and_for_fragments_of_more_than_64_kib() {
    const ABOVE_UNMETERED: usize = LARGE - UNMETERED;
    let declared = frame(0x82, &[b'x'; UNMETERED + 10]);
    let fragments = |len| [frame(0x02, &vec![b'x'; len]), frame(0x80, b"")].concat();
    for (message, addresses, is_refused) in [
        (&declared, 9, true),
        (&declared, 10, false),
        (&fragments(UNMETERED), 0, false),
        (&fragments(UNMETERED + 1), ABOVE_UNMETERED - 1, true),
        (&fragments(UNMETERED + 1), ABOVE_UNMETERED, false),
    ] {
        let reservable = Reservable { addresses, ..Reservable::UNLIMITED };
        let budget = Arc::new(Budget::limited(STEP, reservable, 0));
        let service = with_budget(LARGE, budget);
        let mut driver = Driver::open(&service);
        driver.receive(message);
        assert_eq!(driver.is_closed(), is_refused, "{addresses}");
    }
}

#[test]
fn spare_memory_is_released_on_time_whatever_else_arrives() {
    let service = service(LARGE, 3 * STEP);
    let budget = &service.budget;
    let mut driver = Driver::open(&service);
    let ms = Duration::from_millis;
    let pong: &[u8] = &frame(0x8A, b"");
    for small in [pong, &frame(0x81, b"text"), &frame(0x01, b"text")[..9]] {
        let start = driver.now;
        // Kept as long as large messages follow one another in time.
        for since in [0, 99, 198] {
            driver.now = start + ms(since);
            driver.receive(&large());
            assert_eq!(budget.left(), 2 * STEP);
            assert_eq!(driver.wait(), Some(SPARE_TTL));
        }
        for since in [250, 297] {
            driver.now = start + ms(since);
            driver.receive(pong);
            assert_eq!((budget.left(), driver.wait()), (2 * STEP, Some(SPARE_TTL)));
        }
        driver.now = start + ms(298) - NANOSECOND;
        driver.receive(pong);
        assert_eq!(budget.left(), 2 * STEP);
        driver.now = start + ms(298);
        driver.receive(small);
        assert_eq!((budget.left(), driver.wait()), (3 * STEP, Some(PING_INTERVAL)));
    }
    assert!(!driver.is_closed());
}

#[test]
fn spare_memory_is_released_on_time_when_nothing_arrives() {
    let service = service(LARGE, STEP);
    let budget = &service.budget;
    let mut driver = Driver::open(&service);
    driver.now = secs(1);
    driver.receive(&large());
    driver.wait_before(secs(1) + SPARE_TTL);
    assert_eq!((budget.left(), driver.wait()), (0, Some(SPARE_TTL)));
    driver.wait_until(secs(1) + SPARE_TTL);
    assert_eq!(budget.left(), STEP);
    assert_eq!(driver.wait(), Some(PING_INTERVAL - SPARE_TTL));
}

#[test]
fn an_unfinished_message_keeps_its_memory_through_any_silence() {
    let message = large();
    let fragments = [frame(0x02, &vec![b'x'; LARGE - 1]), frame(0x80, b"x")].concat();
    for (bytes, stop) in [(&message, LARGE), (&fragments, LARGE + 13), (&fragments, 15)] {
        let service = service(LARGE, STEP);
        let budget = &service.budget;
        let mut driver = Driver::open(&service);
        driver.receive(&message);
        driver.now = SPARE_TTL / 2;
        let (start, rest) = bytes.split_at(stop);
        driver.receive(start);
        for now in [SPARE_TTL, secs(1), secs(21)] {
            driver.wait_until(now);
            assert_eq!(budget.left(), 0, "{now:?}");
        }
        driver.now = secs(25);
        driver.receive(rest);
        let reply = server_frame(0x82, &vec![b'x'; LARGE]);
        assert!(driver.sent == [&reply, PING, &reply].concat());
        driver.wait_until(secs(25) + SPARE_TTL);
        assert_eq!(budget.left(), STEP);
    }
}

#[test]
fn memory_that_one_client_gives_back_is_there_for_another() {
    let service = service(LARGE, STEP);
    let client = |bytes: &[u8]| {
        let mut driver = Driver::open(&service);
        driver.receive(bytes);
        driver
    };
    let is_refused = || client(&large()).is_closed();
    let mut first = client(&large());
    assert!(is_refused());
    first.wait_until(SPARE_TTL);
    assert!(!is_refused());

    let unfinished = client(&large()[..LARGE]);
    assert!(is_refused());
    drop(unfinished);
    assert!(!is_refused());

    // Nothing is held while the peer's close is waited for.
    first.receive(&large()[..LARGE]);
    assert!(is_refused());
    first.stop();
    assert!(!is_refused());
}

#[test]
fn the_input_grows_once_it_was_filled_and_shrinks_when_the_client_is_pinged() {
    let service = service(100, 0);
    let mut driver = Driver::open(&service);
    let ping = frame(0x89, &[b'p'; 41]);
    let (start, rest) = ping.split_at(46);
    driver.receive(&[&ping.repeat(4)[..], start].concat());
    assert_eq!(driver.connection.input().len(), SMALL_INPUT - start.len());
    driver.receive(rest);
    driver.receive(&ping.repeat(12)[..SMALL_INPUT]);
    let unread = SMALL_INPUT % ping.len();
    assert_eq!(driver.connection.input().len(), LARGE_INPUT - unread);
    driver.wait_until(PING_INTERVAL);
    assert_eq!(driver.connection.input().len(), SMALL_INPUT - unread);
    driver.receive(&ping[unread..]);
    let reply = server_frame(0x8A, &[b'p'; 41]);
    assert!(driver.sent == [&reply.repeat(5 + SMALL_INPUT / ping.len()), PING, &reply].concat());
}

#[test]
fn a_large_payload_is_received_straight_to_its_message_in_pieces() {
    let service = service(LARGE, STEP);
    let mut driver = Driver::open(&service);
    fill_input(&mut driver);
    let message = large();
    let (header, payload) = message.split_at(14);
    // First as much as needs no budget, then a step. With memory from before, 256 KiB at a time.
    for expected in [[UNMETERED, STEP], [256 * 1024, LARGE - 256 * 1024]] {
        driver.receive(header);
        let mut rest = payload;
        for len in expected {
            assert_eq!(driver.connection.input().len(), len);
            let (piece, tail) = rest.split_at(len);
            driver.receive(piece);
            rest = tail;
        }
        assert_eq!(driver.connection.input().len(), LARGE_INPUT);
    }
}

#[test]
fn a_large_message_is_received_whole_by_a_client_that_sent_another() {
    let service = service(UNMETERED, STEP);
    let budget = &service.budget;
    let message = frame(0x82, &[b'x'; UNMETERED]);
    let reply = server_frame(0x82, &[b'x'; UNMETERED]);
    let mut driver = Driver::open(&service);
    for _ in 0..2 {
        driver.receive(&message);
        assert!(driver.take() == reply);
    }
    for cut in [message.len(), 10, 14, 40_000] {
        let (start, rest) = message.split_at(cut);
        for part in [start, rest].into_iter().filter(|part| !part.is_empty()) {
            assert!(driver.connection.input().len() >= part.len());
            driver.receive(part);
        }
        assert!(driver.take() == reply, "cut at {cut}");
    }
    assert_eq!(driver.connection.input().len(), message.len());
    driver.wait_until(SPARE_TTL);
    assert_eq!(driver.connection.input().len(), LARGE_INPUT);
    assert_eq!((budget.left(), driver.wait()), (STEP, Some(PING_INTERVAL - SPARE_TTL)));
}

#[test]
fn a_large_input_is_given_up_for_a_message_in_pieces_and_kept_for_an_unfinished_one() {
    let service = service(LARGE, STEP);
    let message = frame(0x82, &[b'x'; 60_000]);
    let reply = server_frame(0x82, &[b'x'; 60_000]);
    let open = || {
        let mut driver = Driver::open(&service);
        driver.receive(&message.repeat(2));
        assert!(driver.take() == reply.repeat(2));
        assert!(driver.connection.input().len() > UNMETERED);
        driver
    };
    for pieces in [frame(0x02, b"7"), large()[..100].into()] {
        let mut driver = open();
        driver.receive(&pieces);
        let is_direct = pieces.len() == 100;
        let expected = if is_direct { UNMETERED - 86 } else { LARGE_INPUT };
        assert_eq!(driver.connection.input().len(), expected);
    }
    for cut in [20, 50_000] {
        let mut driver = open();
        driver.receive(&message[..cut]);
        driver.wait_until(PING_INTERVAL);
        assert!(driver.take() == PING);
        driver.receive(&message[cut..]);
        assert!(driver.take() == reply, "cut at {cut}");
    }
    // An unfinished message keeps it beyond its time, and small ones don't.
    let mut driver = open();
    driver.receive(&message[..20]);
    driver.now += SPARE_TTL;
    driver.receive(&message[20..]);
    assert!(driver.take() == reply);
    for _ in 0..3 {
        driver.now += SPARE_TTL / 2;
        driver.receive(&frame(0x82, b"7"));
        driver.take();
    }
    assert_eq!(driver.connection.input().len(), LARGE_INPUT);
    // Nor do as many as fill it.
    let mut driver = open();
    driver.now += SPARE_TTL;
    let pongs = driver.connection.input().len() / 6 - 1;
    driver.receive(&frame(0x8A, b"").repeat(pongs));
    driver.wait_until(driver.now + SPARE_TTL);
    assert_eq!(driver.connection.input().len(), LARGE_INPUT);
}

#[test]
fn messages_that_always_arrive_in_two_pieces_make_progress() {
    let service = without_pings();
    let mut driver = Driver::open(&service);
    let message = frame(0x81, b"hello");
    driver.receive(&message[..8]);
    for _ in 0..10 {
        driver.now += WRITE_TIMEOUT / 2;
        driver.receive(&[&message[8..], &message[..8]].concat());
        assert!(driver.take() == server_frame(0x81, b"hello"));
    }
}

// The output

#[test]
fn replies_are_sent_before_many_of_them_are_held() {
    let mut service = service(100, 0);
    service.settings.prefix = "p".repeat(4096 - 4);
    let mut driver = Driver::open(&service);
    fill_input(&mut driver);
    driver.receive(&frame(0x81, b"").repeat(1_000));
    assert!(driver.sent == server_frame(0x81, service.settings.prefix.as_bytes()).repeat(1_000));
    let lens: Vec<_> = driver.writes.iter().map(|(_, len)| *len).collect();
    assert!(lens == [16 * 1024; 250], "{lens:?}");
}

#[test]
fn a_stop_right_after_a_reply_was_sent_still_closes() {
    let service = service(100, 0);
    let mut driver = Driver::open(&service);
    // The reply is sent by the next step, and the stop comes before the one after it.
    driver.stops_at = driver.steps + 1;
    driver.receive(&frame(0x81, b"hi"));
    assert!(driver.sent.starts_with(&server_frame(0x81, b"hi")));
    assert_eq!(driver.closed(), Some(Closed::by_server(STOPPING)));
}

#[test]
fn a_payload_from_4_kib_on_is_not_copied() {
    let mut service = service(4096, 0);
    service.settings.prefix = "> ".into();
    for (len, copied) in [(4095, 4095), (4096, 0)] {
        let mut driver = Driver::open(&service);
        fill_input(&mut driver);
        let message = frame(0x81, &vec![b'x'; len]);
        driver.connection.input()[..message.len()].copy_from_slice(&message);
        driver.connection.received(message.len(), secs(0));
        let Step::Send { head, payload } = driver.connection.next(secs(0)) else { panic!() };
        assert_eq!((head.len(), payload.len()), (4 + 2 + copied, len - copied));
    }
}

/// Has the client fill its small input, so that it gets a large one.
fn fill_input(driver: &mut Driver) {
    driver.receive(&frame(0x8A, &[7; SMALL_INPUT / 4 - 6]).repeat(4));
    assert_eq!(driver.connection.input().len(), LARGE_INPUT);
}

#[test]
fn a_conversation_begins_with_the_bytes_that_came_after_the_request() {
    let service = service(100, 0);
    let mut driver = Driver::new(&service);
    let frames = [frame(0x81, b"first"), frame(0x81, b"second")[..5].to_vec()].concat();
    driver.receive(&[upgrade("/", "").as_bytes(), &frames].concat());
    assert_eq!(driver.writes.len(), 1, "the first reply leaves with the 101");
    driver.forget_response();
    assert_eq!(driver.sent, b"\x81\x05first");
    assert_eq!(driver.connection.input().len(), SMALL_INPUT - 5);
}
