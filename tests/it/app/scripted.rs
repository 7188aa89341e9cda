//! What goes on after the handshake on demand, with a clock that the test sets.

use std::time::Duration;

use wsecho::app::behavior::HANG;
use wsecho::app::incoming::LARGE_INPUT;
use wsecho::app::service::Service;
use wsecho::buffer::UNMETERED;

use crate::driver::{Driver, Ended, PING_INTERVAL, PING_TIMEOUT, Waits, service, upgrade};
use crate::frames::{close, frame, server_frame};

const LARGE: usize = 1 << 20;

/// A WebSocket whose script is `query`.
fn opened<'s>(service: &'s Service, query: &str) -> Driver<'s> {
    let mut driver = Driver::asking(service, &format!("/do?{query}"), "");
    assert!(driver.writes.iter().all(|(at, _)| at.is_zero()));
    driver.forget_response();
    driver
}

/// Runs `test` with a driver whose script is `query`, on a verbatim echo.
fn with(query: &str, test: impl FnOnce(&mut Driver)) {
    let service = service(2 * LARGE, 16 * LARGE);
    let mut driver = opened(&service, query);
    test(&mut driver);
    drop(driver);
    assert_eq!(service.budget.left(), 16 * LARGE, "memory is not given back");
}

/// The client sends a text, all of which is received.
fn say(driver: &mut Driver, text: &str) {
    let bytes = frame(0x81, text.as_bytes());
    assert_eq!(driver.receive(&bytes), bytes.len());
}

/// What was sent, and when.
fn timed(driver: &Driver) -> Vec<(Duration, Vec<u8>)> {
    let mut rest = &driver.sent[..];
    let mut next = |len| {
        let (bytes, tail) = rest.split_at(len);
        rest = tail;
        bytes.to_vec()
    };
    driver.writes.iter().map(|&(at, len)| (at, next(len))).collect()
}

fn is_paused(driver: &Driver) -> bool {
    matches!(driver.waits, Waits::Paused(_))
}

fn text(payload: &str) -> Vec<u8> {
    server_frame(0x81, payload.as_bytes())
}

fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    server_frame(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
}

fn stopping() -> Vec<u8> {
    close_frame(1001, "server is stopping")
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

// Faults

/// Each fault, what it sends, and how it ends.
fn faults() -> Vec<(&'static str, Vec<u8>, Option<Ended>)> {
    vec![
        ("close=4000&reason=bye", close_frame(4000, "bye"), None),
        ("close=1000", close_frame(1000, ""), None),
        ("close=none", vec![0x88, 0], None),
        ("close=fin", vec![], Some(Ended::Stream)),
        ("close=rst", vec![], Some(Ended::Reset)),
        ("close=hang", vec![], None),
        ("bad=mask", b"\x81\x86\x01\x02\x03\x04lcpodf".to_vec(), None),
        ("bad=rsv", b"\x91\x08reserved".to_vec(), None),
        ("bad=opcode", b"\x83\x08reserved".to_vec(), None),
        ("bad=utf8", b"\x81\x08not \xC3\x28 8".to_vec(), None),
        ("bad=continuation", b"\x80\x0Ccontinuation".to_vec(), None),
        ("bad=length", b"\x82\x7F\x40\0\0\0\0\0\0\0huge".to_vec(), None),
    ]
}

#[test]
fn a_fault_at_once_is_in_the_same_write_as_the_opening() {
    for (query, bytes, end) in faults().into_iter().filter(|fault| fault.0 != "close=rst") {
        for after in ["", "&after=0", "&after=0s"] {
            let service = service(LARGE, LARGE);
            let mut driver = Driver::asking(&service, &format!("/do?{query}{after}"), "");
            let writes = driver.writes.len();
            driver.forget_response();
            assert_eq!((&driver.sent, writes, driver.ended), (&bytes, 1, end), "{query}");
        }
    }
}

#[test]
fn a_fault_at_once_comes_before_a_mistake_that_came_with_the_request() {
    for query in ["", "&after=0s", "&drip=1s", "&after=0s&drip=1s"] {
        let service = service(LARGE, LARGE);
        let mut driver = Driver::new(&service);
        let head = upgrade(&format!("/do?close=4000{query}"), "");
        driver.receive(&[head.as_bytes(), &frame(0x81, b"\xFF")].concat());
        assert_eq!(driver.ended, None, "{query}: the answer is awaited");
        driver.receive(&close(4000));
        assert_eq!(driver.ended, Some(Ended::Stream), "{query}");
    }
}

#[test]
fn a_close_frame_that_was_asked_for_is_the_last_one_and_its_answer_ends_the_stream() {
    for (query, bytes, _) in faults().into_iter().take(3) {
        with(query, |driver| {
            driver.receive(&[frame(0x81, b"late"), frame(0x89, b"late")].concat());
            assert_eq!(driver.ended, None, "{query}");
            driver.receive(&close(1000));
            assert_eq!((&driver.sent, driver.ended), (&bytes, Some(Ended::Stream)), "{query}");
        });
    }
}

#[test]
fn after_so_many_messages_it_comes_after_their_replies_and_before_any_other() {
    let batch = [frame(0x81, b"2"), frame(0x81, b"3"), frame(0x81, b"4")].concat();
    for shaped in ["", "&latency=1s", "&drip=1s", "&fragment=1", "&fragment=7&drip=1s&latency=1s"] {
        for (query, bytes, end) in faults() {
            with(&format!("{query}&after=3{shaped}"), |driver| {
                say(driver, "1");
                driver.wait_until(s(15));
                driver.receive(&batch);
                driver.wait_until(s(19));
                let replies = [text("1"), text("2"), text("3"), bytes.clone()].concat();
                let expected =
                    if query.starts_with("bad") { [replies, text("4")].concat() } else { replies };
                assert_eq!((&driver.sent, driver.ended), (&expected, end), "{query}{shaped}");
            });
        }
    }
}

#[test]
fn after_the_servers_close_frame_it_is_not_waited_for() {
    with("bad=utf8&after=1s", |driver| {
        // The message is too long, and the client may still answer the close frame.
        driver.receive(&[0x81, 0xFF, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        driver.wait_until(s(1));
        assert!(driver.wait().is_some_and(|wait| !wait.is_zero()), "{:?}", driver.wait());
    });
}

#[test]
fn after_a_time_it_comes_then_and_not_before() {
    for (query, bytes, end) in faults() {
        with(&format!("{query}&after=2s"), |driver| {
            driver.wait_until(s(1));
            say(driver, "1");
            driver.wait_before(s(2));
            assert_eq!((&driver.sent, driver.ended), (&text("1"), None), "{query}");
            driver.wait_until(s(2));
            let expected = [text("1"), bytes].concat();
            assert_eq!((&driver.sent, driver.ended), (&expected, end), "{query}");
        });
    }
}

#[test]
fn it_may_come_inside_a_reply_unless_it_is_a_frame() {
    let reply = text("0123456789");
    for (query, bytes, end) in faults() {
        with(&format!("{query}&after=1s&drip=2s"), |driver| {
            say(driver, "0123456789");
            say(driver, "another");
            driver.wait_until(s(1));
            match query.split(['=', '&']).take(2).collect::<Vec<_>>()[..] {
                // The rest of the reply leaves at once before the close frame.
                ["close", "1000" | "4000" | "none"] => {
                    assert_eq!(driver.sent, [&reply[..], &bytes].concat(), "{query}");
                }
                _ => assert_eq!(driver.sent, reply[..6], "{query}"),
            }
            assert_eq!(driver.ended, end, "{query}");
            driver.wait_until(s(10));
            if query.starts_with("bad") {
                assert_eq!(driver.sent, [&reply[..], &bytes, &text("another")].concat());
            }
        });
    }
}

#[test]
fn inside_a_reply_it_does_not_wait_for_messages_that_wait_for_the_reply() {
    with("close=4000&reason=bye&after=300ms&drip=1s&count=3&interval=100ms", |driver| {
        say(driver, "hi");
        driver.wait_until(Duration::from_millis(300));
        assert_eq!(driver.sent, [text("hi"), close_frame(4000, "bye")].concat());
    });
}

#[test]
fn after_the_last_reply_a_wrong_frame_is_skipped_however_it_comes() {
    let sent = [frame(0x81, b"hi"), frame(0x80, b"continues nothing")].concat();
    for piece in [1, sent.len()] {
        with("close=4000&after=1", |driver| {
            driver.receive_in_pieces(&sent, &[piece]);
            assert_eq!(driver.sent, [text("hi"), close_frame(4000, "")].concat());
            assert_eq!(driver.ended, None, "{piece}: the answer is awaited");
            driver.receive(&close(4000));
            assert_eq!(driver.ended, Some(Ended::Stream));
        });
    }
}

#[test]
fn a_server_that_hangs_receives_nothing_and_resets_after_a_minute() {
    with("close=hang&after=1s&count=1000&interval=10ms&latency=1s", |driver| {
        say(driver, "never answered");
        driver.wait_until(s(1));
        let sent = driver.sent.clone();
        assert!(is_paused(driver));
        driver.wait_before(s(1) + HANG);
        assert_eq!((&driver.sent, driver.ended), (&sent, None));
        driver.wait_until(s(1) + HANG);
        assert_eq!((&driver.sent, driver.ended), (&sent, Some(Ended::Reset)));
        assert_eq!(driver.waits, Waits::Over, "nothing is drained");
    });
}

#[test]
fn the_echo_goes_on_after_a_wrong_frame_until_the_client_closes() {
    with("bad=rsv", |driver| {
        say(driver, "still here");
        driver.receive(&close(1002));
        let expected = [&b"\x91\x08reserved"[..], &text("still here"), &close_frame(1002, "")];
        assert_eq!(driver.sent, expected.concat());
        assert_eq!(driver.ended, Some(Ended::Stream));
    });
}

// Replies

#[test]
fn each_reply_comes_so_long_after_its_own_message() {
    with("latency=1s&prefix=%3E+", |driver| {
        let arrivals = [0, 300, 999, 1000, 1700];
        for (number, millis) in arrivals.into_iter().enumerate() {
            driver.wait_until(ms(millis));
            say(driver, &number.to_string());
        }
        driver.wait_until(s(9));
        let expected: Vec<_> = (arrivals.into_iter().enumerate())
            .map(|(number, millis)| (ms(1000 + millis), text(&format!("> {number}"))))
            .collect();
        assert_eq!(timed(driver), expected);
    });
}

#[test]
fn a_reply_is_written_in_pieces_over_the_time_and_the_next_one_after_it() {
    for (query, len, pieces, time) in [
        ("drip=2s", 8, 10, s(2)),
        ("drip=2s", 0, 2, s(2)),
        ("drip=10s", 9_996, 1000, s(10)),
        ("drip=5ms", 8, 5, ms(5)),
        ("drip=1ms", 8, 1, ms(0)),
        ("drip=10us", 8, 1, ms(0)),
        ("drip=0", 8, 1, ms(0)),
        ("drip=2s&fragment=1", 3, 9, s(2)),
    ] {
        with(query, |driver| {
            let payload = "x".repeat(len);
            say(driver, &payload);
            say(driver, "next");
            driver.wait_until(s(30));
            let sent = timed(driver);
            let first: Vec<_> = sent.iter().take_while(|(at, _)| *at <= time).collect();
            // The next one begins when this one ends.
            assert!(first.len() >= pieces && first.len() <= pieces + 1, "{query}: {}", first.len());
            assert!(first[pieces - 1].0 <= time && first[pieces - 1].0 + ms(10) > time, "{query}");
            let gaps = first[..pieces].windows(2).map(|pair| pair[1].0 - pair[0].0);
            let even = time / (pieces - 1).max(1) as u32;
            assert!(gaps.clone().all(|gap| gap <= even + ms(1)), "{query}: {:?}", gaps.max());
            assert_eq!(messages(&driver.sent), [payload.into_bytes(), b"next".to_vec()], "{query}");
        });
    }
}

#[test]
fn a_reply_comes_in_fragments_of_the_size_and_never_in_more_than_1024() {
    for (size, len, fragments, last) in [
        (1, 0, 1, 0),
        (1, 1, 1, 1),
        (1, 3, 3, 1),
        (2, 3, 2, 1),
        (3, 3, 1, 3),
        (4, 3, 1, 3),
        (125, 1000, 8, 125),
        (126, 1000, 8, 118),
        (1, 1024, 1024, 1),
        (1, 1025, 1024, 2),
        (1, 100_000, 1024, 98_977),
        (70_000, LARGE, 15, 68_576),
        (usize::MAX, LARGE, 1, LARGE),
    ] {
        with(&format!("fragment={size}"), |driver| {
            let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
            driver.receive(&frame(0x82, &payload));
            driver.wait_until(s(1));
            let frames = frames(&driver.sent);
            assert_eq!(frames.len(), fragments, "{len} by {size}");
            for (number, (first, payload)) in frames.iter().enumerate() {
                let opcode = if number == 0 { 0x02 } else { 0x00 };
                let is_last = number + 1 == fragments;
                assert_eq!(*first, opcode | if is_last { 0x80 } else { 0 });
                assert_eq!(payload.len(), if is_last { last } else { size });
            }
            assert!(messages(&driver.sent) == [payload], "{len} by {size}");
        });
    }
}

#[test]
fn many_small_and_large_replies_come_whole_and_in_order_whatever_shapes_them() {
    for query in [
        "prefix=%3E+",
        "fragment=1",
        "latency=10ms",
        "drip=20ms",
        "fragment=100&drip=3ms&latency=1s",
    ] {
        with(query, |driver| {
            let prefix = if query.starts_with("prefix") { "> " } else { "" };
            let texts: Vec<_> = (0..300)
                .map(|number| format!("{number}").repeat([1, 50, 5_000][number % 3]))
                .collect();
            let bytes: Vec<u8> =
                texts.iter().flat_map(|text| frame(0x81, text.as_bytes())).collect();
            let mut rest = &bytes[..];
            while !rest.is_empty() || driver.wait().is_some_and(|wait| wait < s(5)) {
                rest = &rest[driver.receive(rest)..];
                driver.wait_until(driver.now + ms(1));
                assert!(driver.now < s(3600), "{query}: it does not end");
            }
            let expected: Vec<_> =
                texts.iter().map(|text| format!("{prefix}{text}").into_bytes()).collect();
            assert!(messages(&driver.sent) == expected, "{query}");
        });
    }
}

#[test]
fn while_much_is_held_nothing_is_received_and_the_client_is_not_taken_for_silent() {
    with("latency=10s&ping=100ms", |driver| {
        let message = frame(0x82, &[7; 1000]);
        let mut received = 0;
        while driver.receive(&message) > 0 {
            received += 1;
            assert!(received < 100, "nothing holds it up");
        }
        assert_eq!((is_paused(driver), received), (true, 17));
        assert_eq!(driver.sent, b"");
        driver.wait_before(s(10));
        assert_eq!(driver.sent, b"", "it pings though it would not see the pong");
        driver.wait_until(s(10));
        assert!(!is_paused(driver));
        assert_eq!(messages(&driver.sent).len(), 17);
        driver.wait_until(s(10) + ms(100));
        assert!(driver.sent.ends_with(&[0x89, 0]));
    });
}

#[test]
fn what_is_held_is_limited_in_bytes_and_in_the_time_to_write_it() {
    let receive_all = |driver: &mut Driver, message: &[u8]| {
        (0..100).take_while(|_| driver.receive(message) > 0).count()
    };
    with("latency=10s", |driver| {
        let message = frame(0x82, &[7; 1000]);
        driver.receive(&message.repeat(8));
        driver.wait_until(s(5));
        assert_eq!(receive_all(driver, &message), 9);
        driver.wait_until(s(10));
        assert_eq!(receive_all(driver, &message), 8);
    });
    with("drip=4s", |driver| {
        assert_eq!(receive_all(driver, &frame(0x82, b"1234")), 4);
        assert!(is_paused(driver));
    });
}

#[test]
fn a_reply_for_which_there_is_no_memory_closes_by_1013_after_those_before_it() {
    // Enough for the message, and not for the reply as well.
    let service = service(2 * LARGE, 3 * LARGE / 2);
    let mut driver = opened(&service, "latency=1s");
    let large = frame(0x82, &vec![7; LARGE]);
    driver.receive(&[frame(0x81, b"small"), large, close(1000)].concat());
    driver.wait_before(s(1));
    assert_eq!(driver.sent, b"");
    driver.wait_until(s(1));
    let expected = [text("small"), close_frame(1013, "memory is short, try again later")];
    assert_eq!((&driver.sent, driver.ended), (&expected.concat(), Some(Ended::Stream)));
    drop(driver);
    assert_eq!(service.budget.left(), 3 * LARGE / 2);
}

#[test]
fn the_memory_of_a_large_reply_is_given_back_once_it_is_sent() {
    let service = service(2 * LARGE, 16 * LARGE);
    let budget = &service.budget;
    let mut driver = opened(&service, "latency=1s");
    driver.receive(&frame(0x82, &vec![7; LARGE]));
    assert!(budget.left() < 15 * LARGE);
    driver.wait_before(s(1));
    assert!(budget.left() < 15 * LARGE + UNMETERED, "the reply is not charged");
    driver.wait_until(s(2));
    assert_eq!(budget.left(), 16 * LARGE);
}

#[test]
fn a_server_that_hangs_holds_no_memory_of_an_unfinished_message() {
    let service = service(2 * LARGE, 16 * LARGE);
    let mut driver = opened(&service, "close=hang&after=1s");
    driver.receive(&frame(0x82, &vec![7; LARGE])[..LARGE / 2]);
    assert!(service.budget.left() < 16 * LARGE);
    driver.wait_until(s(1));
    assert_eq!(service.budget.left(), 16 * LARGE);
}

#[test]
fn an_unfinished_message_ages_by_the_clock_whatever_holds_back_the_replies_before_it() {
    const WRITE_TIMEOUT: Duration = s(4);
    let half = frame(0x82, &vec![7; LARGE])[..LARGE / 2].to_vec();
    let first = [frame(0x02, &vec![7; LARGE / 2]), frame(0x89, b"").repeat(3)].concat();
    for query in ["pong=off", "drip=1s", "latency=10s", "drip=2s&latency=5s&fragment=1"] {
        for unfinished in [&half, &first] {
            let mut service = service(2 * LARGE, 16 * LARGE);
            service.settings.timeouts.write = WRITE_TIMEOUT;
            let mut driver = opened(&service, query);
            let bytes = [&frame(0x82, b"").repeat(5)[..], unfinished].concat();
            assert_eq!(driver.receive(&bytes), bytes.len(), "{query}");
            driver.wait_before(WRITE_TIMEOUT);
            let is_held = service.budget.left() < 16 * LARGE;
            assert!(is_held && !driver.is_closed(), "{query}");
            driver.wait_until(WRITE_TIMEOUT);
            assert_eq!(service.budget.left(), 16 * LARGE, "{query}");
            driver.wait_until(WRITE_TIMEOUT + s(15));
            let expected = close_frame(1008, "message makes no progress");
            let replies = driver.sent.strip_suffix(&expected[..]).expect(query);
            assert_eq!(messages(replies).len(), 5, "{query}");
        }
    }
}

// What the server sends by itself

#[test]
fn messages_are_pushed_at_their_times() {
    with("count=3&interval=1s&bytes=4", |driver| {
        driver.wait_until(s(30));
        let pushes = [(s(1), text("1   ")), (s(2), text("2   ")), (s(3), text("3   "))];
        assert_eq!(timed(driver)[..3], pushes);
        assert_eq!(timed(driver)[3], (PING_INTERVAL, vec![0x89, 0]));
    });
    // Only replies drip.
    with("count=1&interval=1s&bytes=65536&drip=9s", |driver| {
        driver.wait_until(s(1));
        assert_eq!(messages(&driver.sent)[0].len(), 65_536);
    });
    with("count=3&close=1000", |driver| {
        let expected = [text("1"), text("2"), text("3"), close_frame(1000, "")];
        assert_eq!(driver.sent, expected.concat());
    });
    with("count=16&bytes=65536&close=fin", |driver| {
        let messages = messages(&driver.sent);
        assert_eq!(messages.len(), 16);
        let digits = [1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2];
        for (message, digits) in messages.into_iter().zip(digits) {
            assert_eq!((message.len(), message.trim_ascii_end().len()), (65_536, digits));
        }
        assert_eq!(driver.ended, Some(Ended::Stream));
    });
}

#[test]
fn a_push_waits_for_the_end_of_a_reply_and_a_reply_does_not_wait_for_pushes() {
    with("count=2&interval=1s&drip=1500ms", |driver| {
        driver.wait_until(ms(500));
        say(driver, "0123456789");
        driver.wait_until(s(2) - ms(1));
        assert_eq!(driver.sent, text("0123456789")[..11]);
        driver.wait_until(s(2));
        assert_eq!(driver.sent, [text("0123456789"), text("1"), text("2")].concat());
    });
}

#[test]
fn pings_are_answered_at_once_whatever_the_latency_or_not_at_all() {
    with("latency=1s", |driver| {
        say(driver, "hi");
        driver.receive(&frame(0x89, b"now"));
        assert_eq!(driver.sent, server_frame(0x8A, b"now"));
        driver.wait_until(s(1));
        assert_eq!(driver.sent, [server_frame(0x8A, b"now"), text("hi")].concat());
    });
    with("pong=off", |driver| {
        driver.receive(&[frame(0x89, b""), frame(0x81, b"hi"), frame(0x89, b"")].concat());
        driver.wait_until(s(1));
        assert_eq!(driver.sent, text("hi"));
    });
    // Not inside a frame.
    with("drip=1s", |driver| {
        say(driver, "0123456789");
        driver.receive(&frame(0x89, b"now"));
        driver.wait_until(s(1));
        assert_eq!(driver.sent, [text("0123456789"), server_frame(0x8A, b"now")].concat());
    });
}

#[test]
fn a_client_that_only_pings_does_not_fill_the_memory_while_a_reply_drips() {
    with("drip=10s", |driver| {
        say(driver, "0123456789");
        let pings: Vec<u8> = frame(0x89, &[7; 125]).repeat(1000);
        let received = driver.receive(&pings);
        assert!(received < 60_000, "{received} bytes were received");
        assert!(is_paused(driver));
        driver.wait_until(s(10));
        assert_eq!(driver.receive(&pings[received..]), pings.len() - received);
        assert_eq!(frames(&driver.sent).len(), 1001);
    });
}

#[test]
fn a_client_may_send_while_the_last_reply_before_the_fault_drips() {
    with("drip=5s&close=4000&after=1", |driver| {
        say(driver, "0123456789");
        say(driver, "never answered");
        let pongs = frame(0x8A, b"").repeat(10_000);
        assert_eq!(driver.receive(&pongs), pongs.len());
        driver.wait_until(s(5));
        assert_eq!(driver.sent, [text("0123456789"), close_frame(4000, "")].concat());
    });
}

#[test]
fn a_silent_client_is_pinged_and_closed_in_every_behavior() {
    for query in ["latency=10s", "drip=10s", "pong=off", "close=1000&after=1000", "fragment=1"] {
        with(query, |driver| {
            driver.wait_before(PING_INTERVAL);
            assert_eq!(driver.sent, b"", "{query}");
            driver.wait_until(PING_INTERVAL);
            assert_eq!(driver.sent, [0x89, 0], "{query}");
            driver.wait_before(PING_INTERVAL + PING_TIMEOUT);
            assert!(!driver.is_closed(), "{query}");
            driver.wait_until(PING_INTERVAL + PING_TIMEOUT);
            assert!(driver.sent.ends_with(&close_frame(1001, "no answer to a ping")));
        });
    }
    with("ping=100ms", |driver| {
        driver.wait_before(ms(100));
        assert_eq!(driver.sent, b"");
        driver.wait_until(ms(100));
        assert_eq!(driver.sent, [0x89, 0]);
    });
    // Pushes are no sign of life.
    with("ping=1s&count=1000&interval=10ms", |driver| {
        driver.wait_before(s(1));
        assert!(!driver.sent.contains(&0x89));
        driver.wait_until(s(1));
        assert!(driver.sent.contains(&0x89));
        driver.wait_before(s(1) + PING_TIMEOUT);
        assert!(!driver.is_closed());
        driver.wait_until(s(1) + PING_TIMEOUT);
        assert!(driver.is_closed());
    });
}

#[test]
fn no_ping_and_no_deadline_falls_inside_a_reply() {
    with("drip=10s&ping=100ms", |driver| {
        say(driver, "0123456789");
        driver.wait_until(s(10) - ms(1));
        assert_eq!(driver.sent, text("0123456789")[..11]);
        driver.wait_until(s(10));
        assert_eq!(driver.sent, text("0123456789"));
        driver.wait_until(s(10) + ms(100));
        assert_eq!(driver.sent, [text("0123456789"), vec![0x89, 0]].concat());
    });
}

// The end

#[test]
fn a_stop_ends_every_behavior_at_once_by_1001() {
    for query in [
        "latency=10s",
        "drip=10s",
        "fragment=1&drip=10s",
        "pong=off",
        "close=hang",
        "close=hang&after=10m",
        "count=1000&interval=1s",
        "bad=utf8",
        "close=rst&after=1000",
        "close=4000&after=10m",
        "close=4000&after=1&latency=10s",
    ] {
        with(query, |driver| {
            if !is_paused(driver) {
                say(driver, "0123456789");
            }
            driver.wait_until(ms(500));
            driver.stop();
            assert!(driver.sent.ends_with(&stopping()), "{query}: {:02X?}", driver.sent);
            driver.receive(&close(1001));
            assert_eq!(driver.ended, Some(Ended::Stream), "{query}");
        });
    }
    // A stream that stands inside a reply can't take a close frame.
    with("close=hang&after=1s&drip=10s", |driver| {
        say(driver, "0123456789");
        driver.wait_until(s(2));
        driver.stop();
        assert_eq!(driver.ended, Some(Ended::Reset));
    });
}

#[test]
fn a_stop_sends_a_large_reply_that_is_held_before_its_close_frame() {
    for query in ["latency=10s", "latency=10s&fragment=70000"] {
        with(query, |driver| {
            let payload = vec![7; LARGE];
            driver.receive(&frame(0x82, &payload));
            driver.stop();
            let reply = driver.sent.strip_suffix(&stopping()[..]).unwrap();
            assert!(messages(reply) == [payload], "{query}");
        });
    }
}

#[test]
fn a_close_frame_of_the_client_is_answered_once_the_replies_have_had_their_time() {
    for (query, time) in [
        ("latency=10s", s(10)),
        ("drip=2s", s(4)),
        ("count=1000&interval=1s", ms(100)),
        ("count=1000&interval=1s&latency=10s", s(10)),
        ("close=fin&after=9", ms(100)),
    ] {
        with(query, |driver| {
            say(driver, "0123456789");
            say(driver, "second");
            driver.wait_until(ms(100));
            driver.receive(&close(4321));
            // Of the pieces of a reply the last one may come some nanoseconds early.
            driver.wait_until((time - ms(1)).max(ms(100)));
            assert_eq!(driver.ended.is_some(), time == ms(100), "{query}");
            driver.wait_until(time);
            let replies = [text("0123456789"), text("second"), close_frame(4321, "")];
            assert_eq!((&driver.sent, driver.ended), (&replies.concat(), Some(Ended::Stream)));
            assert!(driver.end().unwrap().contains("; 2 messages, "), "{query}");
        });
    }
}

/// Scripts, and a client that sends more than they need and its Close at once.
#[test]
fn a_script_does_exactly_the_same_however_the_bytes_come() {
    let texts = ["1", "2", "3"].map(|text| frame(0x81, text.as_bytes()));
    let bytes =
        [&texts.concat()[..], &frame(0x89, b"ping"), &frame(0x81, b"4"), &close(1000)].concat();
    let shapes = ["", "&latency=1s", "&drip=1s", "&fragment=1&drip=10ms", "&count=2&interval=1s"];
    for (fault, ..) in faults() {
        for after in ["", "&after=0", "&after=2", "&after=3", "&after=1500ms", "&after=9"] {
            if fault == "close=rst" && matches!(after, "" | "&after=0") {
                continue;
            }
            for shape in shapes {
                let query = format!("{fault}{after}{shape}");
                let converse = |with_request: usize, pieces: &[usize]| {
                    let service = service(LARGE, LARGE);
                    let mut driver = Driver::new(&service);
                    let head = upgrade(&format!("/do?{query}"), "");
                    let (early, late) = bytes.split_at(with_request);
                    driver.receive(&[head.as_bytes(), early].concat());
                    driver.forget_response();
                    if !late.is_empty() {
                        driver.receive_in_pieces(late, pieces);
                    }
                    driver.wait_until(s(100));
                    (driver.take(), driver.ended)
                };
                let whole = converse(0, &[usize::MAX]);
                for at in 0..=bytes.len() {
                    assert_eq!(converse(at, &[usize::MAX]), whole, "{query}, {at}");
                    assert_eq!(converse(0, &[at.max(1), usize::MAX]), whole, "{query}, {at}");
                }
                assert_eq!(converse(0, &[1]), whole, "{query}");
            }
        }
    }
}

#[test]
fn the_opening_comes_before_replies_to_what_came_with_the_request() {
    let early = [frame(0x81, b"early"), close(1000)].concat();
    for query in ["pong=off", "fragment=3", "latency=1s", "drip=1s", "count=1&interval=1s"] {
        let service = service(LARGE, LARGE);
        let mut driver = Driver::new(&service);
        driver.receive(&[upgrade(&format!("/do?{query}"), "").as_bytes(), &early].concat());
        driver.wait_until(s(1));
        driver.forget_response();
        assert_eq!(driver.ended, Some(Ended::Stream), "{query}");
        assert!(driver.sent.ends_with(&close_frame(1000, "")), "{query}");
        assert_eq!(messages(&driver.sent), [b"early"], "{query}");
    }
}

#[test]
fn what_the_client_does_wrong_closes_as_ever() {
    for query in ["latency=10s", "drip=10s", "pong=off", "bad=mask", "close=4000&after=9"] {
        with(query, |driver| {
            driver.receive(b"\x81\x02hi");
            assert!(driver.sent.ends_with(&close_frame(1002, "frame is not masked")), "{query}");
            assert_eq!(driver.ended, Some(Ended::Stream));
        });
    }
}

/// An input without room would receive no bytes, which looks like the end of the stream.
#[test]
fn what_follows_a_mistake_in_a_full_input_is_skipped_while_a_reply_is_held() {
    with("latency=1s", |driver| {
        // It fills the small input, so that the client gets the large one.
        say(driver, &"x".repeat(1000));
        let unmasked = [1; 2 * LARGE_INPUT];
        assert_eq!(driver.receive(&unmasked), unmasked.len());
        assert_eq!(driver.sent, b"");
        driver.wait_until(s(1));
        assert_eq!(frames(&driver.sent).len(), 2);
        assert_eq!(driver.ended, Some(Ended::Stream));
    });
}

#[test]
fn frames_that_ask_for_nothing_hold_up_no_message() {
    for (query, first) in [("latency=1ms", 0x8A), ("pong=off", 0x89)] {
        with(query, |driver| {
            driver.receive(&[frame(first, b"").repeat(1000), frame(0x81, b"hi")].concat());
            driver.wait_until(s(1));
            assert_eq!(driver.sent, text("hi"), "{query}");
        });
    }
}

/// The frames of `bytes`: first byte and payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        frames.push(crate::support::read_frame(&mut bytes));
    }
    frames
}

/// The payloads of the messages in `bytes`, put together of their fragments.
fn messages(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    let mut is_open = false;
    for (first, payload) in frames(bytes).into_iter().filter(|(first, _)| first & 0x08 == 0) {
        let is_continuation = matches!(first, 0x00 | 0x80);
        assert_eq!(is_open, is_continuation, "a fragment out of place");
        if !is_open {
            messages.push(Vec::new());
        }
        messages.last_mut().unwrap().extend(payload);
        is_open = first & 0x80 == 0;
    }
    assert!(!is_open, "the last message is not whole");
    messages
}
