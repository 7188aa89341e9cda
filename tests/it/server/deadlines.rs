//! Slow clients: every wait for one ends at its deadline, and none is busy.

use std::io::{ErrorKind, Read as _, Write as _};
use std::iter;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::frames::{close, frame};
use crate::support::{
    HEALTH_CHECK, SOON, Server, UPGRADE, assert_end, assert_status, assert_took, eventually,
    is_ended_within, open_taking, read_all, read_close, read_frame, write_until_stuck,
};

const PING: (u8, Vec<u8>) = (0x89, Vec::new());

// The request

#[test]
fn a_request_that_drips_in_gets_408_at_the_handshake_deadline() {
    let server = Server::start(&["--handshake-timeout=1s"]);
    let before = server.idle_usage();
    let started = Instant::now();
    let mut stream = server.connect();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut response = [0; 13];
    let mut request = "GET / HTTP/1.1\r\nX-Drip: ".bytes().chain(iter::repeat(b'z'));
    while let Err(error) = stream.read_exact(&mut response) {
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        assert!(started.elapsed() < SOON, "the server still waits");
        stream.write_all(&[request.next().unwrap()]).unwrap();
    }
    assert_status(&response.escape_ascii().to_string(), 408);
    assert_took(started, Duration::from_secs(1));
    drop(stream);
    server.has_recovered(before);
}

#[test]
fn a_connection_without_a_byte_is_closed_without_a_response_at_the_handshake_deadline() {
    let server = Server::start(&["--handshake-timeout=500ms"]);
    let before = server.idle_usage();
    let started = Instant::now();
    assert_end(&mut server.connect());
    assert_took(started, Duration::from_millis(500));
    server.has_recovered(before);
}

// Clients that do not read

#[test]
fn a_client_that_sends_and_never_reads_is_aborted_at_the_write_deadline() {
    let server = Server::start(&["--write-timeout=1s"]);
    let before = server.idle_usage();
    let mut stream = open_taking(4 * 1024, &server);
    let started = Instant::now();
    write_until_stuck(&mut stream, &frame(0x82, &vec![7; 64 * 1024]));
    server.wait_for_log("client 2 ended: peer did not read in time");
    assert_took(started, Duration::from_secs(1));
    // With its descriptor and its thread, though the client stays.
    server.has_recovered(before);
    assert!(is_ended_within(SOON, &mut stream));
}

#[test]
fn a_client_that_reads_a_trickle_is_aborted_at_the_write_deadline() {
    let server = Server::start(&["--write-timeout=1s"]);
    let before = server.idle_usage();
    let mut stream = open_taking(16 * 1024, &server);
    stream.write_all(&frame(0x82, &vec![7; 8 << 20])).unwrap();
    let mut trickle = [0; 1024];
    stream.read_exact(&mut trickle).unwrap();
    let started = Instant::now();
    // Always something, but never 64 KiB, however long a busy machine takes.
    let ended = "client 2 ended: peer did not read in time";
    for _ in 0..60 {
        if server.log().iter().any(|line| line.contains(ended))
            || stream.read_exact(&mut trickle).is_err()
        {
            break;
        }
        thread::sleep(Duration::from_millis(25));
    }
    server.wait_for_log(ended);
    assert_took(started, Duration::from_secs(1));
    server.has_recovered(before);
}

#[test]
fn a_client_that_reads_slowly_but_more_than_a_trickle_gets_everything() {
    let server = Server::start(&["--write-timeout=1s"]);
    let mut stream = open_taking(256 * 1024, &server);
    let len = 8 << 20;
    stream.write_all(&frame(0x82, &vec![7; len])).unwrap();
    // The reply takes several write timeouts, and more than 64 KiB are read in each.
    let started = Instant::now();
    let mut received = 0;
    let mut piece = vec![0; 128 * 1024];
    while received < len + 10 {
        let bytes = stream.read(&mut piece).unwrap();
        assert!(bytes > 0, "aborted after {received} bytes");
        received += bytes;
        // As much as this client would have read by now.
        let due = Duration::from_micros(received as u64 / 3);
        thread::sleep(due.saturating_sub(started.elapsed()));
    }
    assert!(started.elapsed() > Duration::from_secs(2));
}

#[test]
fn the_time_in_which_the_process_is_suspended_does_not_count_as_a_stall() {
    let server = Server::start(&["--write-timeout=3s"]);
    let mut stream = open_taking(64 * 1024, &server);
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let len = 8 << 20;
    stream.write_all(&frame(0x82, &vec![7; len])).unwrap();
    let mut reply = vec![0; 10 + len];
    let mut received = 0;
    // Each time ends a send. The first ones may have moved something, the last one has not.
    let no_time = Duration::ZERO;
    for time in [no_time, no_time, no_time, Duration::from_secs(4)] {
        server.wait_until_asleep();
        server.suspend();
        let suspended = Instant::now();
        while suspended.elapsed() < time {
            // The client reads all that the kernel has for it.
            received += stream.read(&mut reply[received..]).unwrap_or(0);
        }
        server.signal(Signal::CONT);
    }
    assert!(received < len, "nothing remains to be sent");
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.read_exact(&mut reply[received..]).unwrap();
    assert!(reply.starts_with(&[0x82, 127]) && reply[10..].iter().all(|&byte| byte == 7));
}

// Silent clients

#[test]
fn a_silent_client_is_pinged_and_gets_1001_at_the_ping_deadline() {
    let server = Server::start(&["--ping-interval=400ms", "--ping-timeout=600ms"]);
    let before = server.idle_usage();
    // The server's clock begins when it answers, and this one no later.
    let asked = Instant::now();
    let mut stream = server.open();
    assert_eq!(read_frame(&mut stream), PING);
    assert_took(asked, Duration::from_millis(350));
    assert_eq!(read_close(&mut stream), 1001);
    assert_took(asked, Duration::from_millis(950));
    drop(stream);
    server.wait_for_log(r#"client 2 ended: closed by server, 1001 "no answer to a ping", "#);
    server.has_recovered(before);
}

#[test]
fn a_process_that_is_suspended_again_and_again_keeps_its_deadlines() {
    let server = Server::start(&[
        "--handshake-timeout=1s",
        "--ping-interval=400ms",
        "--ping-timeout=600ms",
        "--close-timeout=500ms",
    ]);
    let started = Instant::now();
    let mut halfway = server.send(&UPGRADE.as_bytes()[..40]);
    let mut silent = server.open();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) && started.elapsed() < SOON {
                for signal in [Signal::STOP, Signal::CONT] {
                    server.signal(signal);
                    thread::sleep(Duration::from_millis(25));
                }
            }
        });
        assert_eq!(read_frame(&mut silent), PING);
        assert_took(started, Duration::from_millis(350));
        assert_eq!(read_close(&mut silent), 1001);
        assert_took(started, Duration::from_millis(950));
        let response = read_all(&mut halfway);
        assert_status(&response, 408);
        assert_took(started, Duration::from_millis(950));
        // Neither has closed its side.
        eventually(SOON, || server.client_threads() == 0);
        assert_took(started, Duration::from_millis(1_450));
        is_done.store(true, Ordering::Relaxed);
    });
}

// Closing

#[test]
fn a_client_that_never_ends_its_stream_is_dropped_when_its_time_has_passed() {
    type Connect = fn(&Server) -> TcpStream;
    // Once both close frames were exchanged there is nothing to wait for but what is on its way.
    let connections: [(Connect, &[u8], u64); 3] = [
        (Server::open, &close(1000), 200),
        (Server::open, b"\x81\x01 not masked", 1000),
        (Server::connect, HEALTH_CHECK.as_bytes(), 1000),
    ];
    let server = Server::start(&["--close-timeout=1s"]);
    let before = server.idle_usage();
    for (connect, last, millis) in connections {
        let mut stream = connect(&server);
        let asked = Instant::now();
        stream.write_all(last).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
        eventually(SOON, || server.client_threads() == 0);
        assert_took(asked, Duration::from_millis(millis - 50));
        server.has_recovered(before);
    }
}

#[test]
fn a_client_that_goes_on_sending_after_an_error_is_dropped_at_the_close_deadline() {
    let server = Server::start(&["--close-timeout=1s"]);
    let before = server.idle_usage();
    let mut stream = server.open();
    let asked = Instant::now();
    stream.write_all(b"\x81\x01 not masked").unwrap();
    assert_eq!(read_close(&mut stream), 1002);
    while stream.write_all(&frame(0x81, b"and another thing")).is_ok() {
        assert!(asked.elapsed() < SOON, "it is still read from");
        thread::sleep(Duration::from_millis(10));
    }
    assert_took(asked, Duration::from_millis(950));
    server.has_recovered(before);
}

// No busy wait

#[test]
fn a_server_without_pings_to_send_never_wakes() {
    let server = Server::start(&["--ping-interval=0"]);
    let _idle = [(); 20].map(|()| server.open());
    server.wait_until_asleep();
    let sleeps = server.sleeps();
    thread::sleep(Duration::from_secs(2));
    assert_eq!(server.sleeps() - sleeps, 0);
}

#[test]
fn an_idle_server_wakes_for_its_pings_only() {
    /// For the ping interval that has passed, and for the pong.
    const WAKES_PER_PING: usize = 2;
    let server = Server::start(&["--ping-interval=500ms"]);
    let mut clients = [(); 20].map(|()| server.open());
    server.wait_until_asleep();
    let sleeps = server.sleeps();
    let end = Instant::now() + Duration::from_secs(3);
    let pings: usize = thread::scope(|scope| {
        let threads =
            clients.each_mut().map(|client| scope.spawn(move || answer_pings(client, end)));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    server.wait_until_asleep();
    let wakes = server.sleeps() - sleeps;
    assert!(pings >= 2 * clients.len(), "{pings} pings");
    // Each may have got one more that it has not answered.
    let most = WAKES_PER_PING * (pings + clients.len());
    assert!(wakes <= most, "woke {wakes} times for {pings} pings");
}

/// Answers every ping until `end`, and counts them.
fn answer_pings(client: &mut TcpStream, end: Instant) -> usize {
    let mut answered = 0;
    loop {
        let remaining = end.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return answered;
        }
        client.set_read_timeout(Some(remaining)).unwrap();
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
