//! Too many clients: the cap on seats, and what the kernel refuses below it.

#![cfg(target_os = "linux")]

mod attack;
mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, geteuid, getrlimit, prlimit};
use wsecho::clients::Clients;

use attack::{ask, assert_echoes, assert_is_503, crowd, is_ended_within, reset, write_until_stuck};
use common::{
    SOON, Scratch, Server, UPGRADE, close, eventually, frame, has_program, program, read_close,
    read_head,
};

#[test]
fn exactly_as_many_clients_as_there_are_seats_are_let_in() {
    let server = Server::start(&["--max-connections", "5"]);
    let before = server.at_rest();
    let (mut seated, refused) = crowd(&server, 60);
    assert_eq!((seated.len(), refused.len()), (5, 55));
    for answer in refused {
        assert_is_503(&answer, "no seat left");
    }
    for stream in &mut seated {
        assert_echoes(stream, "still here");
    }
    drop(seated);
    server.has_recovered(before);
}

#[test]
fn a_plain_request_is_answered_though_every_seat_is_taken() {
    let server = Server::start(&["--max-connections", "1"]);
    let _seated = server.open();
    let healthy = server.answer(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(healthy.starts_with("HTTP/1.1 200 "), "{healthy}");
}

#[test]
fn a_seat_is_given_back_on_every_way_out() {
    /// How a client that has the only seat, and has opened a WebSocket on it, goes away.
    type Leave = fn(TcpStream) -> Option<TcpStream>;
    let ways: [(&str, Leave); 8] = [
        ("closes in order", |mut stream| {
            stream.write_all(&close(1000)).unwrap();
            assert_eq!(read_close(&mut stream), 1000);
            None
        }),
        ("says Close and never closes its side", |mut stream| {
            stream.write_all(&close(1000)).unwrap();
            assert_eq!(read_close(&mut stream), 1000);
            Some(stream)
        }),
        ("hangs up", |_| None),
        ("resets", |stream| {
            reset(stream);
            None
        }),
        ("closes its half only", |stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            Some(stream)
        }),
        ("says nothing any more", Some),
        ("breaks the protocol and stays", |mut stream| {
            stream.write_all(&[0xFF; 64]).unwrap();
            assert_eq!(read_close(&mut stream), 1002);
            Some(stream)
        }),
        ("sends and never reads", |mut stream| {
            write_until_stuck(&mut stream, &frame(0x82, &[0; 64 * 1024]));
            Some(stream)
        }),
    ];
    let server = Server::start(&[
        "--max-connections=1",
        "--ping-interval=300ms",
        "--ping-timeout=300ms",
        "--write-timeout=500ms",
        "--close-timeout=300ms",
    ]);
    let before = server.at_rest();
    for (way, leave) in ways {
        eventually(SOON, || server.client_threads() == 0);
        let seated = server.open();
        assert_is_503(&ask(server.connect()).expect_err(way), "no seat left");
        let gone = leave(seated);
        eventually(SOON, || ask(server.connect()).is_ok());
        drop(gone);
    }
    eventually(SOON, || ask(server.connect()).is_ok());
    server.has_recovered(before);
}

#[test]
fn a_seat_is_given_back_after_every_request_that_opens_no_web_socket() {
    let server = Server::start(&[
        "--max-connections=1",
        "--handshake-timeout=300ms",
        "--close-timeout=300ms",
    ]);
    let before = server.at_rest();
    for (request, answer) in [
        ("", ""),
        ("GET / HT", "HTTP/1.1 408 "),
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 200 "),
        ("GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 404 "),
        ("nonsense\r\n\r\n", "HTTP/1.1 400 "),
        ("POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1 405 "),
    ] {
        eventually(SOON, || server.client_threads() == 0);
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut came = String::new();
        stream.read_to_string(&mut came).unwrap();
        assert!(came.starts_with(answer), "{request:?}: {came:?}");
        // The client keeps its side open for as long as it can.
        eventually(SOON, || ask(server.connect()).is_ok());
        assert!(is_ended_within(SOON, &mut stream));
    }
    eventually(SOON, || ask(server.connect()).is_ok());
    server.has_recovered(before);
}

#[test]
fn a_client_in_the_opening_handshake_has_a_seat_until_its_deadline() {
    let server = Server::start(&["--max-connections=2", "--handshake-timeout=2s"]);
    let before = server.at_rest();
    let started = Instant::now();
    let mut silent = server.connect();
    let mut halfway = server.connect();
    halfway.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    eventually(SOON, || server.client_threads() == 2);
    assert_is_503(&ask(server.connect()).unwrap_err(), "no seat left");
    assert!(started.elapsed() < Duration::from_secs(2), "the machine was too slow to tell");
    assert!(is_ended_within(SOON, &mut silent));
    assert!(is_ended_within(SOON, &mut halfway));
    // Both hold on to their side, but no longer to their seats.
    let _first = ask(server.connect()).expect("the first seat is free");
    let _second = ask(server.connect()).expect("the second seat is free");
    drop((_first, _second, silent, halfway));
    server.has_recovered(before);
}

#[test]
fn a_thread_that_panics_gives_its_seat_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = || {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        (client, stream, peer)
    };
    let clients = Arc::new(Clients::new(1));
    let (mut client, stream, peer) = connection();
    let seat = clients.admit(stream, peer).expect("the house is empty");
    let thread = thread::spawn(move || {
        let _seat = seat;
        panic!("as a defect would");
    });
    assert!(thread.join().is_err());
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "its connection is closed");

    let (_client, stream, peer) = connection();
    let seat = clients.admit(stream, peer).expect("the place is free again");
    assert_eq!(seat.client().place, wsecho::clients::Place::Seat);
}

#[test]
fn with_few_descriptors_the_cap_is_lowered_and_the_server_goes_on() {
    let mut command = Command::new("sh");
    let few = "ulimit -n 64 && exec \"$0\" --addr 127.0.0.1:0";
    command.args(["-c", few, &program()]);
    let mut server = Server::start_command(command);
    server.wait_for_log("--max-connections is 24 instead of 10000");
    let before = server.at_rest();
    let (mut seated, refused) = crowd(&server, 200);
    assert_eq!((seated.len(), refused.len()), (24, 176));
    for stream in &mut seated {
        assert_echoes(stream, "still here");
    }
    assert!(server.is_running());
    drop(seated);
    server.has_recovered(before);
}

/// Sets one of the server's soft limits while it runs. The hard one is that of its parent, this test.
fn limit(server: &Server, resource: Resource, current: Option<u64>) {
    let maximum = getrlimit(resource).maximum;
    let pid = Pid::from_raw(server.pid() as i32);
    prlimit(pid, resource, Rlimit { current, maximum }).unwrap();
}

#[test]
fn without_a_descriptor_the_server_waits_for_one_and_never_spins() {
    let server = Server::start(&["--ping-interval=0"]);
    let before = server.at_rest();
    let mut inside = server.open();
    server.wait_until_asleep();
    let open = server.figures().descriptors as u64;
    limit(&server, Resource::Nofile, Some(open));
    // The accept that is under way has its descriptor already.
    let last = server.open();

    let mut outside = server.connect();
    outside.write_all(UPGRADE.as_bytes()).unwrap();
    server.wait_for_log("cannot accept clients for now: ");
    assert_echoes(&mut inside, "I am in");

    let ticks = server.ticks();
    thread::sleep(Duration::from_secs(1));
    let busy = server.ticks() - ticks;
    assert!(busy <= 10, "{busy} hundredths of a second were spent on waiting");
    let warnings = server.log().iter().filter(|line| line.contains("cannot accept")).count();
    assert_eq!(warnings, 1, "one warning for the whole time");

    limit(&server, Resource::Nofile, getrlimit(Resource::Nofile).maximum);
    let head = read_head(&mut outside);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_echoes(&mut outside, "I am in, too");
    drop((inside, last, outside));
    server.has_recovered(before);
}

#[test]
fn without_a_thread_for_it_a_client_gets_503_and_the_server_goes_on() {
    if !has_program("setpriv") || !has_program("prlimit") {
        return;
    }
    let scratch = Scratch::new("nproc");
    let wsecho = scratch.path("wsecho");
    fs::copy(program(), &wsecho).unwrap();
    let mut command = as_a_limited_user(&wsecho);
    command.args(["--addr", "127.0.0.1:0"]);
    let server = Server::start_command(command);
    let before = server.at_rest();
    let let_threads = |limit: &str| {
        let mut command = as_a_limited_user(Path::new("prlimit"));
        command.args([format!("--pid={}", server.pid()), format!("--nproc={limit}:")]);
        assert!(command.status().unwrap().success());
    };
    let mut inside = server.open();
    let_threads("1");
    for _ in 0..100 {
        assert_is_503(&ask(server.connect()).unwrap_err(), "no thread left");
    }
    assert_echoes(&mut inside, "I am in");
    let_threads("1000");
    drop(inside);
    server.has_recovered(before);
}

/// Root may have as many threads as it likes, so it becomes a user that nobody else is.
fn as_a_limited_user(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let user = (100_000 + process::id()).to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]).arg(program);
    command
}
