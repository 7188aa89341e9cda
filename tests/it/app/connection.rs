//! A connection before it is a WebSocket, and the end of any: the request and its deadline, the response
//! and what is drained after it, a stop and a loss at any step.

use std::time::Duration;

use wsecho::app::cases::case::Id;
use wsecho::app::cases::results::State;
use wsecho::app::end::Lost;
use wsecho::app::service::Service;
use wsecho::app::step::Topic;
use wsecho::websocket::close::STOPPING as STOPPING_FRAME;

use crate::driver::{
    BEGAN, CLOSE_TIMEOUT, Closed, Driver, Ended, HANDSHAKE_TIMEOUT, LINGER, Waits, service, upgrade,
};
use crate::frames::{close, frame, server_frame};

/// What happens next.
type Then = fn(&mut Driver);

const STOPPING: &str = "the server is stopping; try again later";

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Fails unless all that was sent is one response with this status and these words, after which the stream
/// is ended. Returns its body.
#[track_caller]
fn assert_responds(driver: &Driver, status: u16, words: &str) -> String {
    let response = String::from_utf8(driver.sent.clone()).unwrap();
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{response}");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(body.contains(words), "{response}");
    assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{response}");
    assert!(head.ends_with("\r\nConnection: close"), "{response}");
    assert_eq!((driver.writes.len(), driver.ended), (1, Some(Ended::Stream)));
    body.into()
}

/// Fails unless one line was logged, which begins and ends so.
#[track_caller]
fn assert_logs(driver: &Driver, topic: Topic, start: &str, end: &str) {
    let [(its, line)] = &driver.log[..] else { panic!("{:?}", driver.log) };
    assert!(*its == topic && line.starts_with(start) && line.ends_with(end), "{its:?}: {line}");
}

// The request

#[test]
fn a_head_that_is_not_whole_gets_408_at_exactly_the_handshake_timeout_whatever_comes() {
    let service = service(100, 0);
    let head = upgrade("/", "");
    for (len, pause) in [(1, 0), (40, 0), (40, 9), (head.len() - 1, 0)] {
        let mut driver = Driver::new(&service);
        for byte in head[..len].bytes() {
            driver.receive(&[byte]);
            driver.wait_until(driver.now + secs(pause) / len as u32);
        }
        driver.wait_before(HANDSHAKE_TIMEOUT);
        assert_eq!((driver.sent.len(), driver.wait()), (0, Some(Duration::from_nanos(1))));
        driver.wait_until(HANDSHAKE_TIMEOUT);
        let body = assert_responds(&driver, 408, "in time");
        // Ten seconds after the driver's connections begin.
        let date = b"\r\nDate: Sun, 06 Nov 1994 08:49:47 GMT\r\n";
        assert!(driver.sent.windows(date.len()).any(|bytes| bytes == date));
        assert_logs(&driver, Topic::Request, "unix: 408 Request Timeout, ", body.trim_end());
        assert_eq!(driver.waits, Waits::Over);
    }
}

#[test]
fn the_time_in_which_the_process_is_suspended_does_not_count_against_a_request() {
    let (service, head) = (service(100, 0), upgrade("/", ""));
    let proxied = format!("PROXY UNKNOWN\r\n{head}");
    for (mut driver, bytes) in
        [(Driver::new(&service), &head), (Driver::forwarded(&service), &proxied)]
    {
        for piece in bytes.as_bytes().chunks(10) {
            driver.receive(piece);
            if driver.sent.is_empty() {
                driver.suspend_until(driver.now + 10 * HANDSHAKE_TIMEOUT);
            }
        }
        driver.forget_response();
    }
    // One that comes whole after it has its time to read the response.
    let mut driver = Driver::new(&service);
    driver.now = 10 * HANDSHAKE_TIMEOUT;
    driver.receive(request("GET", "/").as_bytes());
    assert_eq!(driver.wait(), Some(CLOSE_TIMEOUT));
}

#[test]
fn a_connection_without_a_byte_gets_no_response_at_its_deadline_or_at_the_peers_end() {
    let service = service(100, 0);
    let mut silent = Driver::new(&service);
    silent.wait_before(HANDSHAKE_TIMEOUT);
    assert_eq!(silent.ended, None);
    silent.wait_until(HANDSHAKE_TIMEOUT);
    let mut gone = Driver::new(&service);
    gone.end_stream();
    // With TLS bytes come that are none of a request.
    let mut tls = Driver::new(&service);
    tls.connection.received(0, secs(1));
    tls.wait_until(HANDSHAKE_TIMEOUT);
    for driver in [silent, gone, tls] {
        assert_eq!((driver.sent.len(), driver.ended), (0, Some(Ended::Stream)));
        assert_logs(&driver, Topic::Detail, "unix: sent no request", "");
    }
}

#[test]
fn a_request_may_come_in_any_pieces_and_with_the_first_frames() {
    let service = service(100, 0);
    let bytes = [frame(0x81, b"one"), frame(0x89, b"two"), close(1000)].concat();
    let replies =
        [server_frame(0x81, b"one"), server_frame(0x8A, b"two"), b"\x88\x02\x03\xE8".into()];
    // The longest head fills the input.
    let longest = 16 * 1024 - upgrade("/", "X: \r\n").len();
    for field in [String::new(), format!("X: {}\r\n", "x".repeat(longest))] {
        let head = upgrade("/", &field);
        let whole = [head.as_bytes(), &bytes].concat();
        for first in [1, 700, head.len() - 1, head.len(), head.len() + 5, whole.len()] {
            for rest in [1, 7, usize::MAX] {
                let mut driver = Driver::new(&service);
                driver.receive_in_pieces(&whole, &[first.min(whole.len()), rest]);
                let response = driver.forget_response();
                let accept = "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
                assert!(response.contains(accept), "{response}");
                assert_eq!(driver.sent, replies.concat(), "{first}, {rest}");
            }
        }
    }
}

#[test]
fn a_head_that_breaks_off_gets_400() {
    let service = service(100, 0);
    let head = upgrade("/", "");
    for len in 1..head.len() {
        let mut driver = Driver::new(&service);
        driver.receive(&head.as_bytes()[..len]);
        driver.end_stream();
        let body = assert_responds(&driver, 400, "is incomplete");
        assert_logs(&driver, Topic::Request, "unix: 400 Bad Request, ", body.trim_end());
    }
}

#[test]
fn a_response_comes_as_soon_as_it_is_known_and_is_logged() {
    let service = service(100, 0);
    for (bytes, status, topic, who) in [
        (request("GET", "/"), 200, Topic::Request, "unix, path \"/\""),
        (request("GET", "/healthz"), 200, Topic::Detail, "unix, path \"/healthz\""),
        (request("GET", "/healthz").repeat(2), 200, Topic::Detail, "unix, path \"/healthz\""),
        (request("POST", "/healthz"), 405, Topic::Request, "unix, path \"/healthz\""),
        (request("GET", "/no%0A?x"), 404, Topic::Request, "unix, path \"/no%0A\""),
        (request("G(T", "/"), 400, Topic::Request, "unix"),
        (upgrade("/", "").replace("13", "8"), 426, Topic::Request, "unix, path \"/\""),
        (
            upgrade("/x", "X-Forwarded-For: a\r\nX-Forwarded-For: \x1B\r\n").replace("13", "8"),
            400,
            Topic::Request,
            "unix",
        ),
        (
            request("GET", "/").replace("Host", "X-Forwarded-For: a\"\r\nHost"),
            200,
            Topic::Request,
            "unix forwarded for \"a\\\"\", path \"/\"",
        ),
        // Without the end of the head.
        ("\x16\x03\x01\x02\0\x01".into(), 400, Topic::Request, "unix"),
        ("x".repeat(17 * 1024), 431, Topic::Request, "unix"),
    ] {
        let mut driver = Driver::new(&service);
        driver.receive(bytes.as_bytes());
        let body = assert_responds(&driver, status, "");
        let end = if status == 200 { " OK" } else { body.trim_end() };
        assert_logs(&driver, topic, &format!("{who}: {status} "), end);
    }
}

#[test]
fn a_response_to_head_has_no_body_whatever_the_response() {
    let service = service(100, 0);
    let respond = |bytes: &str, end: Then| {
        let mut driver = Driver::new(&service);
        driver.receive(bytes.as_bytes());
        end(&mut driver);
        String::from_utf8(driver.take()).unwrap()
    };
    let ends: [(_, Then); 4] = [
        (request("GET", "/"), |_| {}),
        (request("GET", "/nothing"), |_| {}),
        ("GET /".into(), |driver| driver.end_stream()),
        ("GET /".into(), |driver| driver.stop()),
    ];
    for (get, end) in ends {
        let with_body = respond(&get, end);
        let (head, body) = with_body.split_once("\r\n\r\n").unwrap();
        assert!(!body.is_empty());
        // RFC 9112 §2.2 allows an empty line before it.
        for method in ["HEAD", "\r\nHEAD"] {
            assert_eq!(respond(&get.replace("GET", method), end), format!("{head}\r\n\r\n"));
        }
    }
}

#[test]
fn plain_http_on_a_tls_port_is_told_so_however_it_ends() {
    let service = service(100, 0);
    let ends: [(&str, Then); 5] = [
        (&upgrade("/", ""), |_| {}),
        ("G(T / HTTP/1.1\r\n\r\n", |_| {}),
        ("GET /", |driver| driver.end_stream()),
        ("GET /", |driver| driver.stop()),
        ("GET /", |driver| driver.wait_until(HANDSHAKE_TIMEOUT)),
    ];
    for (bytes, end) in ends {
        let mut driver = Driver::new(&service);
        driver.connection.spoke_plain_http();
        driver.receive(bytes.as_bytes());
        end(&mut driver);
        assert_responds(&driver, 400, "use https:// or wss://");
    }
}

// Refusals, and a delay

#[test]
fn a_stop_gets_503_before_the_handshake_is_answered() {
    let service = service(100, 0);
    for (bytes, who) in [
        ("", "unix"),
        ("GET /", "unix"),
        (&upgrade("/do?delay=5s", ""), "unix, path \"/do\", behavior \"delay=5s\""),
    ] {
        let mut driver = Driver::new(&service);
        driver.receive(bytes.as_bytes());
        driver.stop();
        assert_responds(&driver, 503, STOPPING);
        let start = format!("{who}: 503 Service Unavailable, ");
        assert_logs(&driver, Topic::Request, &start, STOPPING);
        assert_eq!(driver.wait(), Some(CLOSE_TIMEOUT));
    }
    // One that is due opens, and is then closed.
    let mut driver = Driver::asking(&service, "/do?delay=5s", "");
    driver.stops_at = driver.steps;
    driver.wait_until(secs(5));
    driver.forget_response();
    assert_eq!(driver.closed(), Some(Closed::by_server(STOPPING_FRAME)));
}

#[test]
fn a_health_check_that_has_arrived_is_answered_though_its_connection_has_to_end() {
    let service = service(100, 0);
    for (target, status) in [("/healthz", 200), ("/healthz/", 200), ("/", 503), ("/nothing", 503)] {
        for pieces in [&[usize::MAX][..], &[1], &[10, usize::MAX]] {
            let mut driver = Driver::new(&service);
            driver.connection.make_room("the connection limit is reached");
            driver.run();
            assert_eq!(driver.wait(), Some(Duration::ZERO), "it looks for what has arrived");
            driver.receive_in_pieces(request("GET", target).as_bytes(), pieces);
            assert_responds(&driver, status, "");
        }
    }
    // Of one that has yet to arrive nothing is known.
    let ends: [Then; 2] =
        [|driver| driver.suspend_until(Duration::ZERO), |driver| driver.end_stream()];
    for end in ends {
        let mut driver = Driver::new(&service);
        driver.receive(b"GET /hea");
        driver.connection.make_room("the connection limit is reached");
        driver.run();
        end(&mut driver);
        assert_responds(&driver, 503, "the connection limit is reached");
    }
}

#[test]
fn a_websocket_that_is_not_admitted_gets_503_and_what_needs_no_admission_does_not() {
    let service = service(100, 0);
    let respond = |bytes: &str| {
        let mut driver = Driver::new(&service);
        driver.admission = Err("the connection limit is reached");
        driver.receive(bytes.as_bytes());
        driver
    };
    for target in ["/", "/do?delay=5s", "/do?status=404"] {
        let driver = respond(&upgrade(target, ""));
        let body =
            assert_responds(&driver, 503, "the connection limit is reached; try again later");
        assert_logs(&driver, Topic::Request, "unix, path ", body.trim_end());
    }
    assert_responds(&respond(&request("GET", "/healthz")), 200, "ok");
    assert_responds(&respond(&upgrade("/", "").replace("13", "8")), 426, "");
}

#[test]
fn a_delayed_handshake_is_answered_exactly_then_with_what_came_meanwhile() {
    let service = service(100, 0);
    let early = frame(0x81, b"early");
    for (query, status) in [("delay=5s", 101), ("delay=5s&status=404", 404)] {
        let mut driver = Driver::new(&service);
        driver.wait_until(secs(2));
        let head = upgrade(&format!("/do?{query}"), "");
        driver.receive(&[head.as_bytes(), &early].concat());
        assert_eq!(driver.waits, Waits::Paused(secs(5)));
        driver.wait_before(secs(7));
        assert_eq!((driver.sent.len(), driver.log.len()), (0, 0));
        driver.wait_until(secs(7));
        if status == 101 {
            assert_eq!(driver.writes.len(), 1);
            driver.forget_response();
            assert_eq!(driver.sent, server_frame(0x81, b"early"));
        } else {
            assert_responds(&driver, status, "asked for");
        }
    }
}

#[test]
fn a_case_starts_when_its_handshake_is_answered() {
    let service = service(100, 1 << 20);
    let mut driver = Driver::new(&service);
    driver.wait_until(secs(5));
    driver.receive(upgrade("/runCase?casetuple=1.1.1&agent=x", "").as_bytes());
    driver.end_stream();
    let case = Id::parse("1.1.1").unwrap();
    let Some(State::Judged(report)) = service.cases.results.state("x", case) else { panic!() };
    assert_eq!(report.started, BEGAN + secs(5));
}

#[test]
fn a_peer_that_leaves_during_the_delay_is_not_answered() {
    let service = service(100, 0);
    let mut driver = Driver::asking(&service, "/do?delay=5s", "");
    driver.wait_until(secs(1));
    driver.end_stream();
    assert_eq!((driver.sent.len(), driver.waits), (0, Waits::Over));
    assert_logs(
        &driver,
        Topic::Request,
        "unix, path ",
        "peer left before the handshake was answered",
    );
}

// The drain

#[test]
fn after_its_response_a_peer_has_the_close_timeout_to_leave_but_no_more_than_the_handshake_timeout()
{
    let service = service(100, 0);
    let head = upgrade("/do?delay=20s&status=404", "");
    for (asked, bytes, end) in [
        (0, request("GET", "/"), CLOSE_TIMEOUT),
        (5, request("GET", "/"), secs(10)),
        (8, request("GET", "/"), secs(10)),
        // The delay is the server's.
        (8, head, secs(33)),
    ] {
        let responded = || {
            let mut driver = Driver::new(&service);
            driver.wait_until(secs(asked));
            driver.receive(bytes.as_bytes());
            driver.wait_until(end - secs(1));
            assert_eq!((driver.ended, driver.wait()), (Some(Ended::Stream), Some(secs(1))));
            // What comes means nothing, and prolongs nothing.
            assert_eq!(driver.receive(&[7; 100_000]), 100_000);
            driver.stop();
            assert_eq!(driver.wait(), Some(secs(1)));
            driver
        };
        let mut stays = responded();
        stays.wait_before(end);
        assert_ne!(stays.waits, Waits::Over);
        stays.wait_until(end);
        let mut leaves = responded();
        leaves.end_stream();
        for driver in [stays, leaves] {
            assert_eq!((driver.waits, driver.log.len()), (Waits::Over, 1));
        }
    }
}

#[test]
fn a_peer_whose_stream_was_ended_without_a_close_frame_has_the_close_timeout_and_is_logged_at_its_end()
 {
    let service = service(100, 0);
    let thens: [(Then, &str); 3] = [
        (|driver| driver.end_stream(), "; peer ended the stream 2.000 s later; "),
        (|driver| driver.wait_until(CLOSE_TIMEOUT), "; peer did not end the stream within 5s; "),
        (|driver| driver.lose(Lost::Broken("reset".into())), "; connection lost, reset; "),
    ];
    for (then, words) in thens {
        let mut driver = Driver::asking(&service, "/do?close=fin", "");
        driver.wait_until(secs(2));
        assert_eq!((driver.end(), driver.ended), (None, Some(Ended::Stream)));
        then(&mut driver);
        let end = driver.end().unwrap();
        assert!(end.starts_with("stream ended by server without a close frame; "), "{end}");
        assert!(end.contains(words), "{end}");
        assert_eq!(driver.waits, Waits::Over);
    }
}

#[test]
fn nothing_is_waited_for_after_a_response_that_could_not_be_sent() {
    let service = service(100, 0);
    for lost in [Lost::Broken("reset".into()), Lost::Tls("a record is wrong".into())] {
        let mut driver = Driver::new(&service);
        driver.lost_at = Some((driver.steps, lost));
        driver.receive(request("GET", "/").as_bytes());
        assert_eq!((driver.waits, driver.sent.len()), (Waits::Over, 0));
    }
}

#[test]
fn a_peer_that_has_ended_the_stream_of_its_websocket_is_not_waited_for() {
    let service = service(100, 0);
    let mut driver = Driver::open(&service);
    driver.end_stream();
    assert_eq!((driver.waits, driver.ended), (Waits::Over, Some(Ended::Stream)));
}

// A stop, and a loss, at any step

const TARGETS: [&str; 5] =
    ["/", "/do?delay=1s", "/do?drip=1s", "/do?close=hang", "/do?close=4000&after=1&latency=1s"];

/// A connection that becomes a WebSocket at `target`, on which two messages, a part of another one and the
/// peer's close frame come, a second after one another and before the step `until`.
fn driven(driver: &mut Driver, target: &str, until: usize) {
    let head = upgrade(target, "");
    let (one, two) = head.split_at(20);
    for bytes in [
        one.as_bytes(),
        &[two.as_bytes(), &frame(0x81, b"0")].concat(),
        &frame(0x81, b"1"),
        &frame(0x01, b"unfinished"),
        &close(1000),
    ] {
        driver.receive(bytes);
        if driver.steps > until {
            return;
        }
        driver.wait_until(driver.now + secs(1));
    }
}

/// How many steps that takes.
fn steps(service: &Service, target: &str) -> usize {
    let mut driver = Driver::new(service);
    driven(&mut driver, target, usize::MAX);
    driver.steps
}

#[test]
fn a_stop_at_any_step_ends_a_connection_by_503_or_1001_within_the_close_timeout() {
    let service = service(100, 0);
    for target in TARGETS {
        for at in 1..steps(&service, target) {
            let mut driver = Driver::new(&service);
            driver.stops_at = at;
            driven(&mut driver, target, at);
            driver.wait_until(driver.now + CLOSE_TIMEOUT + LINGER);
            assert_eq!(driver.waits, Waits::Over, "{target}, {at}");
            if driver.log.iter().any(|(topic, _)| *topic == Topic::Opened) {
                let end = driver.end().unwrap();
                assert!(end.starts_with("closed by "), "{target}, {at}: {end}");
            } else {
                assert_responds(&driver, 503, STOPPING);
            }
        }
    }
}

#[test]
fn a_loss_at_any_step_is_logged_once_and_only_with_tls_or_a_panic_is_anything_received_after_it() {
    let service = service(100, 0);
    for target in TARGETS {
        for at in 0..steps(&service, target) {
            for (lost, drain) in [
                (Lost::TimedOut, Duration::ZERO),
                (Lost::Broken("reset".into()), Duration::ZERO),
                (Lost::Tls("a record is wrong".into()), CLOSE_TIMEOUT),
                (Lost::Panicked, CLOSE_TIMEOUT),
            ] {
                let mut driver = Driver::new(&service);
                let end = lost.to_string();
                driver.lost_at = Some((at, lost));
                if at == 0 {
                    driver.run();
                }
                driven(&mut driver, target, at);
                let case = format!("{target}, {at}: {:?}", driver.log);
                if !drain.is_zero() {
                    assert_eq!(driver.waits == Waits::Over, driver.ended.is_some(), "{case}");
                    driver.wait_until(driver.now + drain);
                }
                assert_eq!(driver.waits, Waits::Over, "{case}");
                let count = |topic| driver.log.iter().filter(|(its, _)| *its == topic).count();
                assert_eq!(count(Topic::Opened), count(Topic::Ended), "{case}");
                assert_eq!(count(Topic::Detail), 1 - count(Topic::Opened), "{case}");
                if let Some((_, line)) = driver.log.iter().find(|(its, _)| *its == Topic::Detail) {
                    let left = at == 0 && drain.is_zero();
                    assert_eq!(
                        line,
                        &format!("unix: {}", if left { "sent no request" } else { &end })
                    );
                }
                if let Some(its) = driver.end() {
                    assert_eq!(its.starts_with(&end), driver.ended.is_none(), "{case}");
                }
            }
        }
    }
}
