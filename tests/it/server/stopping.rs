//! SIGTERM and SIGINT: every client gets Close 1001 and its time to answer, and is then aborted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::frames::{Random, close, frame};
use crate::support::{
    HEALTH_CHECK, SOON, Server, UPGRADE, ask, assert_end, assert_is_503, assert_took, connect_from,
    demand, eventually, need_descriptors, open_taking, read_all, read_close, read_frame, tolerance,
    upgraded, write_until_stuck, wsecho, wsecho_path,
};

const PATIENT: &[&str] =
    &["--close-timeout=1m", "--write-timeout=1m", "--handshake-timeout=1m", "--ping-interval=0"];

/// A server that is stopping, and waits for a client that does not answer.
fn stopping() -> (Server, TcpStream) {
    let server = Server::start(PATIENT);
    let mut silent = server.open();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut silent), 1001);
    (server, silent)
}

#[track_caller]
fn assert_exits_at_once(server: &mut Server) {
    assert_eq!(server.wait(tolerance()).code(), Some(0));
}

// Clients that end in time

#[test]
fn on_either_signal_each_client_gets_1001_whatever_it_has_sent_and_however_it_ends() {
    /// Passed the bytes that the client has to send before it may close.
    type Ending = fn(TcpStream, &[u8]);
    let messages = [
        (vec![], 0),
        (frame(0x81, b"hi"), 1),
        (frame(0x81, &vec![b'x'; 90_000]), 50_000),
        (frame(0x01, b"the first fragment"), 24),
        ([frame(0x01, b"first"), frame(0x00, &vec![b'x'; 30_000])].concat(), 2_000),
    ];
    let endings: [(_, &[&str], Ending); 3] = [
        (Signal::TERM, &["--close-timeout=1m"], |mut answers, rest| {
            answers.write_all(&[rest, &close(1001)].concat()).unwrap();
            assert_end(&mut answers);
        }),
        (Signal::INT, PATIENT, |mut ends_its_stream, _| {
            ends_its_stream.shutdown(Shutdown::Write).unwrap();
            assert_end(&mut ends_its_stream);
        }),
        (Signal::TERM, PATIENT, |leaves, _| drop(leaves)),
    ];
    for (signal, flags, end) in endings {
        let mut server = Server::start(flags);
        let clients = messages.each_ref().map(|(bytes, sent)| {
            let mut stream = server.open();
            let (sent, rest) = bytes.split_at(*sent);
            stream.write_all(sent).unwrap();
            (stream, rest)
        });
        server.wait_until_asleep();
        server.signal(signal);
        for (mut stream, rest) in clients {
            assert_eq!(read_close(&mut stream), 1001);
            end(stream, rest);
        }
        assert_exits_at_once(&mut server);
        server.wait_for_log("stopped: 5 clients, 0 aborted");
    }
}

#[test]
fn a_client_that_is_being_written_to_gets_its_replies_whole_and_then_1001() {
    let mut server = Server::start(PATIENT);
    let mut stream = open_taking(64 * 1024, &server);
    let payload = vec![7; 1 << 20];
    assert!(write_until_stuck(&mut stream, &frame(0x82, &payload)), "it is not connected any more");
    server.signal(Signal::TERM);
    server.wait_for_log("stopping");
    let last = loop {
        match read_frame(&mut stream) {
            (0x82, reply) => assert!(reply == payload),
            last => break last,
        }
    };
    assert_eq!((last.0, &last.1[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
    drop(stream);
    assert_exits_at_once(&mut server);
}

#[test]
fn a_client_may_take_the_close_timeout_to_answer() {
    let (mut server, mut silent) = stopping();
    thread::sleep(Duration::from_millis(500));
    assert!(server.program.is_running());
    silent.write_all(&close(1001)).unwrap();
    silent.shutdown(Shutdown::Write).unwrap();
    assert_exits_at_once(&mut server);
    server.wait_for_log("stopped: 1 client, 0 aborted");
}

#[test]
fn a_client_that_was_answered_before_gets_nothing_more_and_has_its_time_to_end() {
    let mut server = Server::start(PATIENT);
    let mut wrong = server.open();
    wrong.write_all(b"\x81\x01 not masked").unwrap();
    assert_eq!(read_close(&mut wrong), 1002);
    let mut answered = server.send(HEALTH_CHECK);
    read_all(&mut answered);
    server.wait_until_asleep();
    server.signal(Signal::TERM);
    server.wait_for_log("stopping");
    server.wait_until_asleep();
    assert_end(&mut wrong);
    assert_eq!(server.client_threads(), 2);
    drop((wrong, answered));
    assert_exits_at_once(&mut server);
}

// Connections without a WebSocket

#[test]
fn a_client_that_got_its_response_is_not_aborted_though_it_stays_connected() {
    let mut server = Server::start(&["--close-timeout=2s"]);
    let mut early = server.connect();
    let mut answered = server.send(HEALTH_CHECK);
    read_all(&mut answered);
    eventually(SOON, || server.client_threads() == 2);
    server.signal(Signal::TERM);
    assert_is_503(&read_all(&mut early), "the server is stopping");
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.wait_for_log("stopped: 2 clients, 0 aborted");
}

#[test]
fn a_request_that_is_unfinished_or_has_not_begun_gets_503() {
    let mut server = Server::start(PATIENT);
    // It delays the stop, but not the others.
    let mut silent = server.open();
    let mut halfway = server.send(&UPGRADE.as_bytes()[..40]);
    let mut early = server.connect();
    eventually(SOON, || server.client_threads() == 3);
    server.wait_until_asleep();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut silent), 1001);
    for stream in [&mut early, &mut halfway] {
        let response = read_all(stream);
        assert_is_503(&response, "the server is stopping");
    }
    drop((silent, early, halfway));
    assert_exits_at_once(&mut server);
}

#[test]
fn a_client_that_has_just_connected_gets_1001_or_503() {
    let mut server = Server::start(PATIENT);
    // It delays the stop until the others have read what they got.
    let mut first = server.open();
    let asked: Vec<_> = (0..200).map(|_| server.send(UPGRADE)).collect();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut first), 1001);
    let mut open = vec![first];
    for stream in asked {
        match upgraded(stream) {
            Ok(mut stream) => {
                assert_eq!(read_close(&mut stream), 1001);
                open.push(stream);
            }
            Err(response) => assert_is_503(&response, "the server is stopping"),
        }
    }
    // Each of them has its time to answer as well.
    eventually(SOON, || server.client_threads() == open.len());
    for mut stream in open {
        stream.write_all(&close(1001)).unwrap();
    }
    assert_exits_at_once(&mut server);
    server.wait_for_log(" clients, 0 aborted");
}

#[test]
fn a_stopping_server_accepts_nobody() {
    let (mut server, silent) = stopping();
    for _ in 0..20 {
        assert_is_503(&ask(server.connect()).unwrap_err(), "the server is stopping");
        let mut probe = server.connect();
        let _ = probe.write_all(HEALTH_CHECK.as_bytes());
        let mut response = String::new();
        let _ = probe.read_to_string(&mut response);
        assert_is_503(&response, "the server is stopping");
    }
    drop(silent);
    assert_exits_at_once(&mut server);
}

// Clients that do not end

#[test]
fn the_server_exits_at_the_close_deadline_though_clients_neither_read_nor_answer() {
    let mut server =
        Server::start(&["--close-timeout=1s", "--write-timeout=1m", "--ping-interval=0"]);
    let mut silent = server.open();
    let mut stuck = open_taking(4 * 1024, &server);
    assert!(write_until_stuck(&mut stuck, &frame(0x82, &vec![7; 1 << 20])));
    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut silent), 1001);
    assert_eq!(server.wait(SOON).code(), Some(0));
    assert_took(asked, Duration::from_secs(1));
    server.wait_for_log("stopped: 2 clients, ");
    server.wait_for_log(r#"ended: closed by server, 1001 "server is stopping", not answered; "#);
}

#[test]
fn three_thousand_clients_in_every_state_get_their_answer_within_the_close_timeout() {
    // A busy machine takes long for so many threads.
    const CLOSE_TIMEOUT: Duration = Duration::from_secs(12);
    need_descriptors(3_200);
    let mut server = Server::start(&[
        "--write-timeout=10m",
        "--handshake-timeout=10m",
        "--ping-interval=0",
        &format!("--close-timeout={}s", CLOSE_TIMEOUT.as_secs()),
    ]);
    let message = frame(0x82, &vec![7; 4 << 20]);
    let stuck = (0..50).map(|_| {
        let mut stream = open_taking(4 * 1024, &server);
        stream.write_all(&message).unwrap();
        stream
    });
    let _stuck: Vec<_> = stuck.collect();
    let halfway = (0..50).map(|_| {
        let mut stream = connect_from(2, server.addr);
        stream.write_all(&UPGRADE.as_bytes()[..40]).unwrap();
        stream
    });
    let halfway: Vec<_> = halfway.collect();
    let idle = (0..2_900).map(|client| {
        let mut stream = connect_from(1, server.addr);
        let request = match client % 3 {
            0 => demand("close=hang"),
            1 => demand("latency=10s&drip=10s&count=1000&interval=60s&close=rst&after=10m"),
            _ => UPGRADE.into(),
        };
        stream.write_all(request.as_bytes()).unwrap();
        upgraded(stream).unwrap()
    });
    let mut idle: Vec<_> = idle.collect();
    // With so many threads, one always wakes while the others are looked at.
    eventually(SOON, || server.stuck() == 50);
    let asked = Instant::now();
    server.signal(Signal::TERM);
    for stream in &mut idle {
        assert_eq!(read_close(stream), 1001);
    }
    for stream in halfway {
        assert_is_503(&upgraded(stream).unwrap_err(), "the server is stopping");
    }
    // Nobody had to be aborted but those that are stuck.
    assert_eq!(server.wait(SOON).code(), Some(0));
    assert_took(asked, CLOSE_TIMEOUT);
    server.wait_for_log("stopped: 3000 clients, ");
}

#[test]
fn each_client_gets_1001_though_others_keep_the_processors_busy() {
    const BUSY: usize = 300;
    const HONEST: usize = 20;
    let mut server = Server::start(PATIENT);
    // It repeats at a distance beyond the window of the reply, so that the reply gets no shorter.
    let repeated = Random(1).bytes(4096).repeat(4096);
    let bomb = frame(0xC2, &miniz_oxide::deflate::compress_to_vec(&repeated, 1));
    let offer = "permessage-deflate; server_max_window_bits=9";
    let hello = frame(0xC1, &miniz_oxide::deflate::compress_to_vec(b"hello", 1));
    let mut honest: Vec<_> =
        (0..HONEST).map(|_| server.open_offering("permessage-deflate")).collect();
    let mut busy: Vec<_> = (0..BUSY).map(|_| server.open_offering(offer)).collect();
    for stream in &mut busy {
        stream.write_all(&bomb).unwrap();
    }
    for stream in &mut honest {
        stream.write_all(&hello).unwrap();
    }
    server.signal(Signal::TERM);
    for stream in &mut honest {
        let mut last = read_frame(stream);
        if last.0 == 0xC1 {
            last = read_frame(stream);
        }
        assert_eq!((last.0, &last.1[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
    }
    // The others are still at work.
    let ticks = server.ticks();
    eventually(SOON, || server.ticks() > ticks);
    signal_until_it_ends(&mut server, Signal::TERM);
}

#[test]
fn signals_that_were_blocked_when_it_was_started_stop_it_and_wake_its_threads() {
    for blocked in ["TERM", "URG"] {
        let mut command = Command::new("env");
        command.args([&format!("--block-signal={blocked}"), &wsecho_path()]);
        let mut server = Server::start_command(command.arg("--addr=127.0.0.1:0").args(PATIENT));
        let mut client = server.open();
        server.wait_until_asleep();
        server.signal(Signal::TERM);
        assert_eq!(read_close(&mut client), 1001);
        drop(client);
        assert_exits_at_once(&mut server);
    }
}

#[test]
fn signals_that_come_together_are_one_stop() {
    for signals in [[Signal::TERM, Signal::INT], [Signal::INT, Signal::TERM], [Signal::TERM; 2]] {
        let mut server = Server::start(PATIENT);
        let mut client = server.open();
        for signal in signals {
            server.signal(signal);
        }
        assert_eq!(read_close(&mut client), 1001);
        client.write_all(&close(1001)).unwrap();
        drop(client);
        assert_exits_at_once(&mut server);
    }
}

#[test]
fn a_second_signal_half_a_second_later_ends_the_process_at_once() {
    for (second, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut server = Server::start(PATIENT);
        let _silent = server.open();
        let first = Instant::now();
        server.signal(Signal::TERM);
        server.wait_for_log("for the clients to answer; a second signal ends it at once");
        assert_eq!(signal_until_it_ends(&mut server, second), Some(status));
        assert_took(first, Duration::from_millis(500));
    }
}

/// Sends `signal` again and again. Returns the exit status.
pub(super) fn signal_until_it_ends(server: &mut Server, signal: Signal) -> Option<i32> {
    eventually(SOON, || {
        server.signal(signal);
        !server.program.is_running()
    });
    server.wait(SOON).code()
}

#[test]
fn a_restart_binds_the_same_port_at_once() {
    /// The state in `/proc/net/tcp`.
    const TIME_WAIT: &str = "06";
    let mut first = Server::start(PATIENT);
    let addr = first.addr;
    let mut client = first.open();
    first.signal(Signal::TERM);
    // The server has closed first, so that its end is the one in TIME_WAIT.
    assert_eq!(read_close(&mut client), 1001);
    client.write_all(&close(1001)).unwrap();
    assert_end(&mut client);
    drop(client);
    assert_exits_at_once(&mut first);
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_waiting = sockets.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&format!(":{:04X}", addr.port())) && fields[3] == TIME_WAIT
    });
    assert!(is_waiting, "nothing is in the way");
    let second = Server::start_command(&mut wsecho(&["--addr", &addr.to_string()]));
    assert_eq!(second.addr, addr);
    second.answers_at_once();
}
