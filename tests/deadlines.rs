//! Clients that take their time: no wait for one outlasts its deadline, and none is a busy one.

#![cfg(target_os = "linux")]

mod attack;
mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::iter;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use attack::{is_ended_within, open_taking, write_until_stuck};
use common::{SOON, Server, close, eventually, frame, read_close, read_frame};

const PING: (u8, Vec<u8>) = (0x89, Vec::new());

/// Fails unless `since` lies at least `least` back, and hardly more: machines can be busy.
fn assert_took(since: Instant, least: Duration) {
    let took = since.elapsed();
    assert!(took >= least && took < least + SOON, "{took:?} instead of {least:?}");
}

#[test]
fn a_request_that_drips_in_is_answered_408_at_the_handshakes_deadline() {
    let server = Server::start(&["--handshake-timeout=1s"]);
    let before = server.at_rest();
    let started = Instant::now();
    let mut stream = server.connect();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut answer = [0; 13];
    let mut request = "GET / HTTP/1.1\r\nX-Drip: ".bytes().chain(iter::repeat(b'z'));
    while let Err(error) = stream.read_exact(&mut answer) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        assert!(started.elapsed() < SOON, "the server still waits");
        stream.write_all(&[request.next().unwrap()]).unwrap();
    }
    assert_eq!(answer.escape_ascii().to_string(), "HTTP/1.1 408 ");
    assert_took(started, Duration::from_secs(1));
    drop(stream);
    server.has_recovered(before);
}

#[test]
fn a_connection_without_a_byte_is_closed_in_silence_at_the_handshakes_deadline() {
    let server = Server::start(&["--handshake-timeout=500ms"]);
    let before = server.at_rest();
    let logged = server.log().len();
    let started = Instant::now();
    let mut answer = Vec::new();
    server.connect().read_to_end(&mut answer).unwrap();
    assert_took(started, Duration::from_millis(500));
    assert_eq!((answer, server.log().len()), (Vec::new(), logged));
    server.has_recovered(before);
}

#[test]
fn a_client_that_sends_and_never_reads_is_cut_at_the_writes_deadline() {
    let server = Server::start(&["--write-timeout=1s"]);
    let before = server.at_rest();
    let mut stream = open_taking(4 * 1024, &server);
    let started = Instant::now();
    write_until_stuck(&mut stream, &frame(0x82, &[7; 64 * 1024]));
    let line = server.wait_for_log("client 2 ended: peer did not read in time");
    assert_took(started, Duration::from_secs(1));
    assert!(!line.contains("closed by"), "{line}");
    // With its descriptor and its thread, though the client stays.
    server.has_recovered(before);
    assert!(is_ended_within(SOON, &mut stream));
}

#[test]
fn a_client_that_reads_at_a_trickle_is_cut_at_the_writes_deadline() {
    let server = Server::start(&["--write-timeout=1s"]);
    let before = server.at_rest();
    let mut stream = open_taking(16 * 1024, &server);
    stream.write_all(&frame(0x82, &vec![7; 8 << 20])).unwrap();
    let started = Instant::now();
    // At most 40 KiB a second: something moves all the time, but less than 64 KiB in any write.
    let mut trickle = [0; 1024];
    let is_cut = |line: &String| line.contains("client 2 ended: peer did not read in time");
    while !server.log().iter().any(is_cut) {
        assert!(started.elapsed() < SOON, "it is still served");
        stream.read_exact(&mut trickle).unwrap();
        thread::sleep(Duration::from_millis(25));
    }
    assert_took(started, Duration::from_secs(1));
    server.has_recovered(before);
}

#[test]
fn a_client_that_reads_slowly_but_not_at_a_trickle_gets_everything() {
    let server = Server::start(&["--write-timeout=1s"]);
    let before = server.at_rest();
    let mut stream = open_taking(256 * 1024, &server);
    let len = 8 << 20;
    stream.write_all(&frame(0x82, &vec![7; len])).unwrap();
    // The reply takes several write timeouts, and moves more than 64 KiB in each.
    let started = Instant::now();
    let mut came = 0;
    let mut piece = vec![0; 128 * 1024];
    while came < len + 10 {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "cut after {came} bytes");
        came += read;
        // As much as this client would have read by now.
        let due = Duration::from_secs_f64(came as f64 / (3 << 20) as f64);
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    assert_took(started, Duration::from_secs(2));
    drop(stream);
    server.has_recovered(before);
}

#[test]
fn a_silent_client_is_pinged_and_closed_with_1001_at_the_pings_deadline() {
    let server = Server::start(&["--ping-interval=400ms", "--ping-timeout=600ms"]);
    let before = server.at_rest();
    let mut stream = server.open();
    let opened = Instant::now();
    assert_eq!(read_frame(&mut stream), PING);
    assert_took(opened, Duration::from_millis(350));
    assert_eq!(read_close(&mut stream), 1001);
    assert_took(opened, Duration::from_millis(950));
    server.wait_for_log("client 2 ended: closed by server, 1001 no answer to a ping");
    drop(stream);
    server.has_recovered(before);
}

#[test]
fn a_client_that_answers_pings_stays() {
    let server = Server::start(&["--ping-interval=200ms", "--ping-timeout=2s"]);
    let mut stream = server.open();
    for _ in 0..5 {
        assert_eq!(read_frame(&mut stream), PING);
        stream.write_all(&frame(0x8A, b"")).unwrap();
    }
    stream.write_all(&frame(0x82, b"here")).unwrap();
    assert_eq!(read_frame(&mut stream), (0x82, b"here".to_vec()));
}

#[test]
fn a_client_that_drips_a_byte_now_and_then_is_not_silent() {
    let server = Server::start(&["--ping-interval=200ms", "--ping-timeout=2s"]);
    let mut stream = server.open();
    let message = frame(0x82, b"bytes");
    // Each byte comes when the server has begun to doubt, and none of them is a pong.
    for byte in message {
        assert_eq!(read_frame(&mut stream), PING);
        stream.write_all(&[byte]).unwrap();
    }
    assert_eq!(read_frame(&mut stream), (0x82, b"bytes".to_vec()));
}

#[test]
fn without_a_ping_interval_nobody_is_pinged() {
    let server = Server::start(&["--ping-interval=0", "--ping-timeout=100ms"]);
    let mut stream = server.open();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let error = stream.read(&mut [0]).expect_err("nothing comes");
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    server.answers_at_once();
}

#[test]
fn a_client_that_never_closes_its_side_is_dropped_at_the_closes_deadline() {
    /// What makes the server close, and the code that it closes with.
    const CLOSINGS: [(&[u8], u16); 2] =
        [(&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8], 1000), (b"\x81\x01 not masked", 1002)];
    let server = Server::start(&["--close-timeout=1s"]);
    let before = server.at_rest();
    for (closing, code) in CLOSINGS {
        let mut stream = server.open();
        stream.write_all(closing).unwrap();
        assert_eq!(read_close(&mut stream), code);
        let closed = Instant::now();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "nothing follows a close frame");
        eventually(SOON, || server.client_threads() == 0);
        assert_took(closed, Duration::from_millis(950));
        server.has_recovered(before);
    }
}

#[test]
fn a_client_that_goes_on_sending_after_a_close_is_dropped_at_the_closes_deadline() {
    let server = Server::start(&["--close-timeout=1s"]);
    let before = server.at_rest();
    let mut stream = server.open();
    stream.write_all(&close(1000)).unwrap();
    assert_eq!(read_close(&mut stream), 1000);
    let closed = Instant::now();
    let more = frame(0x81, b"and another thing");
    while stream.write_all(&more).is_ok() {
        assert!(closed.elapsed() < SOON, "it is still listened to");
        thread::sleep(Duration::from_millis(10));
    }
    assert_took(closed, Duration::from_millis(950));
    server.has_recovered(before);
}

#[test]
fn a_server_without_pings_to_send_sleeps_through() {
    let server = Server::start(&["--ping-interval=0"]);
    let _idle: Vec<_> = (0..20).map(|_| server.open()).collect();
    server.wait_until_asleep();
    let sleeps = server.sleeps();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(server.sleeps() - sleeps, 0, "somebody woke");
}

#[test]
fn an_idle_server_wakes_for_its_pings_only() {
    wakes_for_pings_only(&["--ping-interval=500ms"], Duration::from_secs(3));
}

#[test]
#[ignore = "takes a minute"]
fn an_idle_server_wakes_for_its_pings_only_within_a_minute() {
    wakes_for_pings_only(&[], Duration::from_secs(60));
}

/// Counts for `time`, at least two ping intervals and a bit, how often a server with idle clients
/// wakes, and how often it has to.
fn wakes_for_pings_only(flags: &[&str], time: Duration) {
    /// For the ping interval that has passed, and for the pong.
    const WAKES_PER_PING: usize = 2;
    let server = Server::start(flags);
    let mut clients: Vec<_> = (0..20).map(|_| server.open()).collect();
    server.wait_until_asleep();
    let sleeps = server.sleeps();
    let end = Instant::now() + time;
    let pings: usize = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || answer_pings(client, end)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    server.wait_until_asleep();
    let wakes = server.sleeps() - sleeps;
    assert!(pings >= 2 * clients.len(), "{pings} pings");
    // One more ping may be under way to each.
    assert!(
        wakes <= WAKES_PER_PING * (pings + clients.len()),
        "woke {wakes} times for {pings} pings"
    );
}

/// Answers every ping until `end`, and counts them.
fn answer_pings(client: &mut TcpStream, end: Instant) -> usize {
    let mut answered = 0;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return answered;
        }
        client.set_read_timeout(Some(left)).unwrap();
        let mut ping = [0; 2];
        match client.read_exact(&mut ping) {
            Ok(()) => assert_eq!(ping, [0x89, 0]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        }
        client.write_all(&frame(0x8A, b"")).unwrap();
        answered += 1;
    }
}
