//! SIGTERM, SIGINT and SIGHUP: every client is told, given its time, and then let go.

#![cfg(target_os = "linux")]

mod attack;
mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use attack::{ask, at_once, connect_from, need_descriptors, open_taking, write_until_stuck};
use common::{
    SOON, Server, UPGRADE, close, eventually, frame, has_program, program, read_close, read_frame,
    read_head,
};

/// Reads Close 1001, answers it and closes.
fn say_goodbye(mut stream: TcpStream) {
    assert_eq!(read_close(&mut stream), 1001);
    stream.write_all(&close(1001)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "nothing follows a close frame");
}

/// A server that is stopping, and waits for a client that does not answer.
fn stopping(flags: &[&str]) -> (Server, TcpStream) {
    let server = Server::start(flags);
    let mut silent = server.open();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut silent), 1001);
    (server, silent)
}

#[test]
fn on_either_signal_each_client_sees_1001_and_the_server_exits_with_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&["--close-timeout=1m"]);
        let clients = [(); 3].map(|()| server.open());
        server.signal(signal);
        clients.into_iter().for_each(say_goodbye);
        let status = server.wait(SOON);
        assert_eq!(status.code(), Some(0));
        server.wait_for_log("stopped: 3 clients were connected, 0 of them had to be aborted");
    }
}

#[test]
fn a_server_without_clients_stops_at_once() {
    let mut server = Server::start(&["--close-timeout=1m"]);
    server.signal(Signal::TERM);
    assert_eq!(server.wait(SOON).code(), Some(0));
}

#[test]
fn a_client_in_the_middle_of_a_message_sees_1001() {
    for part in [&frame(0x01, b"the first fragment"), &frame(0x81, &[b'x'; 90_000])[..50_000]] {
        let mut server = Server::start(&["--close-timeout=1m"]);
        let mut stream = server.open();
        stream.write_all(part).unwrap();
        server.wait_until_asleep();
        server.signal(Signal::TERM);
        say_goodbye(stream);
        assert_eq!(server.wait(SOON).code(), Some(0));
    }
}

#[test]
fn a_client_that_is_being_written_to_gets_its_reply_whole_and_then_1001() {
    let mut server = Server::start(&["--close-timeout=1m", "--write-timeout=1m"]);
    let mut stream = open_taking(64 * 1024, &server);
    let payload = vec![7; 1 << 20];
    let stuck = write_until_stuck(&mut stream, &frame(0x82, &payload));
    assert!(stuck, "the server has hung up");
    server.signal(Signal::TERM);
    server.wait_for_log("stopping");
    loop {
        match read_frame(&mut stream) {
            (0x82, reply) => assert_eq!(reply, payload),
            (first, reason) => {
                assert_eq!((first, &reason[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
                break;
            }
        }
    }
    drop(stream);
    assert_eq!(server.wait(SOON).code(), Some(0));
}

#[test]
fn a_client_that_is_written_to_and_never_reads_is_cut_at_the_closes_deadline() {
    let mut server = Server::start(&["--close-timeout=1s", "--write-timeout=1m"]);
    let mut stream = open_taking(4 * 1024, &server);
    assert!(write_until_stuck(&mut stream, &frame(0x82, &vec![7; 1 << 20])));
    let asked = Instant::now();
    server.signal(Signal::TERM);
    assert_exits_at_the_closes_deadline(&mut server, asked, Duration::from_secs(1));
    server.wait_for_log("stopped: 1 clients were connected, 1 of them had to be aborted");
}

fn assert_exits_at_the_closes_deadline(server: &mut Server, asked: Instant, close: Duration) {
    let status = server.wait(close + SOON);
    let took = asked.elapsed();
    assert_eq!(status.code(), Some(0));
    assert!(took >= close && took < close + at_once(), "{took:?}");
}

#[test]
fn a_client_in_the_opening_handshake_gets_503() {
    let mut server = Server::start(&["--close-timeout=1m", "--handshake-timeout=1m"]);
    let mut stream = server.connect();
    stream.write_all(b"GET / HTTP/1.1\r\nHost:").unwrap();
    server.wait_until_asleep();
    server.signal(Signal::TERM);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("stopping"), "{answer}");
    drop(stream);
    assert_eq!(server.wait(SOON).code(), Some(0));
}

#[test]
fn a_client_that_has_not_asked_yet_is_let_go_at_once_though_others_take_their_time() {
    let server = Server::start(&["--close-timeout=1m", "--handshake-timeout=1m"]);
    let mut silent = server.open();
    let mut early = server.connect();
    eventually(SOON, || server.client_threads() == 2);
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut silent), 1001);
    let mut answer = String::new();
    early.read_to_string(&mut answer).expect("the connection is closed");
}

#[test]
fn a_client_that_was_let_in_just_now_has_its_time_as_well() {
    let mut server = Server::start(&["--close-timeout=1m"]);
    // It holds the stop up until all the others have been asked what they saw.
    let mut first = server.open();
    let waiting: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = server.connect();
            stream.write_all(UPGRADE.as_bytes()).unwrap();
            stream
        })
        .collect();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut first), 1001);
    let mut told = vec![first];
    for mut stream in waiting {
        let head = read_head(&mut stream);
        if head.starts_with("HTTP/1.1 101 ") {
            assert_eq!(read_close(&mut stream), 1001);
            told.push(stream);
        } else {
            assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
        }
    }
    eventually(SOON, || server.client_threads() == told.len());
    for stream in &mut told {
        stream.write_all(&close(1001)).unwrap();
    }
    drop(told);
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.wait_for_log(" clients were connected, 0 of them had to be aborted");
}

#[test]
fn nobody_is_let_in_while_the_server_stops() {
    let (mut server, silent) = stopping(&["--close-timeout=1m"]);
    for _ in 0..20 {
        let answer = ask(server.connect()).expect_err("the server stops");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: ") && answer.contains("stopping"), "{answer}");
    }
    drop(silent);
    assert_eq!(server.wait(SOON).code(), Some(0));
}

#[test]
fn a_client_may_take_the_close_time_to_answer() {
    let (mut server, mut silent) = stopping(&["--close-timeout=1m"]);
    thread::sleep(Duration::from_millis(500));
    assert!(server.is_running());
    silent.write_all(&close(1001)).unwrap();
    silent.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.wait(SOON).code(), Some(0));
    server.wait_for_log("stopped: 1 clients were connected, 0 of them had to be aborted");
}

#[test]
fn a_client_that_does_not_answer_is_cut_at_the_closes_deadline() {
    let asked = Instant::now();
    let (mut server, silent) = stopping(&["--close-timeout=1s"]);
    assert_exits_at_the_closes_deadline(&mut server, asked, Duration::from_secs(1));
    server.wait_for_log("stopped: 1 clients were connected, ");
    drop(silent);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (second, status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let (mut server, _silent) = stopping(&["--close-timeout=1m"]);
        server.wait_for_log("stopping");
        server.signal(second);
        assert_eq!(server.wait(SOON).code(), Some(status));
    }
}

#[test]
fn a_restart_binds_the_same_port_at_once() {
    let start = |addr: &str| {
        let mut command = Command::new(program());
        command.args(["--addr", addr]);
        Server::start_command(command)
    };
    let mut first = start("127.0.0.1:0");
    let addr = first.addr.to_string();
    let clients = [(); 3].map(|()| first.open());
    first.signal(Signal::TERM);
    // The server has closed first, so that its side is what lies in TIME_WAIT.
    clients.into_iter().for_each(say_goodbye);
    assert_eq!(first.wait(SOON).code(), Some(0));
    assert!(rests(first.addr), "there is nothing in the way");
    let again = start(&addr);
    assert_eq!(again.addr.to_string(), addr);
    again.answers_at_once();
}

/// Whether the kernel keeps an end of a connection at `addr` in TIME_WAIT.
fn rests(addr: SocketAddr) -> bool {
    const TIME_WAIT: &str = "06";
    let port = format!(":{:04X}", addr.port());
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    sockets.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&port) && fields[3] == TIME_WAIT
    })
}

#[test]
#[ignore = "5,000 clients need as many descriptors"]
fn five_thousand_clients_are_told_and_cut_within_the_close_time_and_a_second() {
    need_descriptors(5_200);
    let mut server = Server::start(&[]);
    let mut clients: Vec<_> =
        (0..5_000).map(|_| ask(connect_from(1, server.addr).unwrap()).unwrap()).collect();
    let asked = Instant::now();
    server.signal(Signal::TERM);
    for stream in &mut clients {
        assert_eq!(read_close(stream), 1001);
    }
    assert_exits_at_the_closes_deadline(&mut server, asked, Duration::from_secs(5));
}

#[test]
fn under_nohup_a_hang_up_leaves_it_serving() {
    if !has_program("nohup") {
        return;
    }
    let mut command = Command::new("nohup");
    command.args([&program(), "--addr", "127.0.0.1:0"]).stdout(Stdio::null());
    let mut server = Server::start_command(command);
    let mut stream = server.open();
    server.signal(Signal::HUP);
    server.signal(Signal::HUP);
    stream.write_all(&frame(0x82, b"still there?")).unwrap();
    assert_eq!(read_frame(&mut stream), (0x82, b"still there?".to_vec()));
    server.answers_at_once();
    assert!(server.is_running());
    // And it stops in order as ever.
    server.signal(Signal::TERM);
    say_goodbye(stream);
    assert_eq!(server.wait(SOON).code(), Some(0));
}
