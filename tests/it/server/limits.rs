//! Too many clients: the limit of WebSockets, the slots for everything else, and what the kernel
//! refuses.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_send_buffer_size;
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, prlimit};
use wsecho::app::peer::Peer;
use wsecho::server::limits::Limits;
use wsecho::server::registry::{
    Connection, IP_LIMIT_REACHED, LIMIT_REACHED, Registration, Registry,
};
use wsecho::server::socket::Socket;

use super::listening::command_with;
use crate::frames::{close, frame};
use crate::support::{
    HEALTH_CHECK, PREFIX, SOON, Server, TempDir, UPGRADE, ask, assert_echoes, assert_is_503,
    assert_status, connect_taking, copy_wsecho, crowd, eventually, has_programs, need_descriptors,
    read_all, read_close, read_frame, refusal, reset, tolerance, upgraded, write_until_stuck,
    wsecho_path,
};

// The limit of WebSockets

#[test]
fn exactly_as_many_websockets_as_the_limit_says_are_opened() {
    let server = Server::start(&["--max-connections=5"]);
    let before = server.idle_usage();
    let (mut open, refused) = crowd(&server, 60);
    assert_eq!((open.len(), refused.len()), (5, 55));
    for response in refused {
        assert_is_503(&response, LIMIT_REACHED);
    }
    for stream in &mut open {
        assert_echoes(stream, "still here");
    }
    drop(open);
    server.has_recovered(before);
}

#[test]
fn two_thousand_clients_at_once_are_each_answered_on_the_default_settings() {
    need_descriptors(2_200);
    let server = Server::start(&[]);
    let before = server.idle_usage();
    let (mut open, refused) = crowd(&server, 2_000);
    assert_eq!((open.len(), refused.len()), (2_000, 0));
    for (number, stream) in open.iter_mut().enumerate() {
        stream.write_all(&frame(0x81, format!("client {number}").as_bytes())).unwrap();
    }
    for (number, stream) in open.iter_mut().enumerate() {
        let reply = format!("{PREFIX}client {number}").into_bytes();
        assert_eq!(read_frame(stream), (0x81, reply));
    }
    drop(open);
    eventually(SOON, || server.client_threads() == 0);
    server.has_recovered(before);
}

#[test]
fn a_websocket_makes_room_for_another_however_it_ends() {
    /// How a client behaves that has the only WebSocket.
    type Ending = fn(TcpStream) -> Option<TcpStream>;
    let endings: [(&str, Ending); 8] = [
        ("closes in order", |mut stream| {
            stream.write_all(&close(1000)).unwrap();
            assert_eq!(read_close(&mut stream), 1000);
            None
        }),
        ("closes and never ends its stream", |mut stream| {
            stream.write_all(&close(1000)).unwrap();
            assert_eq!(read_close(&mut stream), 1000);
            Some(stream)
        }),
        ("ends without a close", |_| None),
        ("resets", |stream| {
            reset(stream);
            None
        }),
        ("ends its stream only", |stream| {
            stream.shutdown(Shutdown::Write).unwrap();
            Some(stream)
        }),
        ("falls silent", Some),
        ("breaks the protocol and stays", |mut stream| {
            stream.write_all(&[0xFF; 64]).unwrap();
            assert_eq!(read_close(&mut stream), 1002);
            Some(stream)
        }),
        ("sends and never reads", |mut stream| {
            write_until_stuck(&mut stream, &frame(0x82, &vec![0; 64 * 1024]));
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
    let before = server.idle_usage();
    for (name, end) in endings {
        eventually(SOON, || server.client_threads() == 0);
        let only = server.open();
        assert_is_503(&ask(server.connect()).expect_err(name), LIMIT_REACHED);
        let kept = end(only);
        eventually(SOON, || ask(server.connect()).is_ok());
        drop(kept);
    }
    server.has_recovered(before);
}

fn bind() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

/// A client, and the registration of its connection, which seems to come from `peer`.
fn register(
    listener: &TcpListener,
    registry: &Arc<Registry>,
    peer: SocketAddr,
) -> (TcpStream, Registration) {
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    let connection = Connection::new(Socket::new(stream, Peer::Tcp(peer)));
    (client, registry.register(&connection).unwrap())
}

#[test]
fn a_websocket_whose_thread_panics_makes_room_for_another() {
    let (listener, registry) = (bind(), Arc::new(Registry::new(1, 32, 0)));
    let peer = listener.local_addr().unwrap();
    let (mut client, registration) = register(&listener, &registry, peer);
    assert_eq!(registration.upgrade(), Ok(1));
    let (_other_client, other) = register(&listener, &registry, peer);
    assert_eq!(other.upgrade(), Err(LIMIT_REACHED));
    let thread = thread::spawn(move || {
        let _registration = registration;
        panic!("as a defect would");
    });
    assert!(thread.join().is_err());
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "its connection is closed");
    assert_eq!(other.upgrade(), Ok(2));
}

#[test]
fn the_limit_of_one_address_counts_an_ipv6_network_of_64_bits_as_one() {
    let (listener, registry) = (bind(), Arc::new(Registry::new(10, 32, 1)));
    let mut kept = Vec::new();
    for (peer, upgraded) in [
        ("[2001:db8:0:1::1]:1", Ok(1)),
        ("[2001:db8:0:1:ffff::2]:1", Err(IP_LIMIT_REACHED)),
        ("[2001:db8:0:2::1]:1", Ok(2)),
        ("192.0.2.1:1", Ok(3)),
        ("[::ffff:192.0.2.1]:1", Err(IP_LIMIT_REACHED)),
        ("192.0.2.2:1", Ok(4)),
    ] {
        let (_, registration) = register(&listener, &registry, peer.parse().unwrap());
        assert_eq!(registration.upgrade(), upgraded, "{peer}");
        kept.push(registration);
    }
}

// Connections that are no WebSockets

#[test]
fn evicted_connections_that_have_yet_to_end_cost_no_other_its_slot() {
    let (listener, registry) = (bind(), Arc::new(Registry::new(0, 8, 0)));
    let peer = listener.local_addr().unwrap();
    let ask = || {
        let (client, registration) = register(&listener, &registry, peer);
        registration.begin_request();
        (client, registration)
    };
    // Nobody ends the first four, as if their clients did not read.
    let mut connections: Vec<_> = (0..8).map(|_| ask()).collect();
    let refusals: Vec<_> = connections.iter().map(|(_, asking)| asking.refusal()).collect();
    assert_eq!(refusals, [[Some(LIMIT_REACHED); 4], [None; 4]].concat());
    // The other four are answered, and leave.
    connections.truncate(4);
    let new: Vec<_> = (0..4).map(|_| ask()).collect();
    assert!(new.iter().all(|(_, asking)| asking.refusal().is_none()));
}

#[test]
fn a_client_that_has_yet_to_answer_a_close_frame_makes_room_last() {
    let (listener, registry) = (bind(), Arc::new(Registry::new(1, 8, 0)));
    let peer = listener.local_addr().unwrap();
    let (_closing_client, closing) = register(&listener, &registry, peer);
    assert_eq!(closing.upgrade(), Ok(1));
    closing.close();
    let (_websocket_client, websocket) = register(&listener, &registry, peer);
    assert_eq!(websocket.upgrade(), Ok(2), "it no longer counts");
    let register = || register(&listener, &registry, peer);
    // One more than fits of each kind: silent, with a part of a request, and answered.
    let kinds: [fn(&Registration); 3] =
        [|_| {}, Registration::begin_request, Registration::end_request];
    for enter in kinds {
        let held: Vec<_> = (0..3).map(|_| register()).collect();
        for (_, registration) in &held {
            enter(registration);
        }
        let _more = register();
        assert_eq!(held[0].1.refusal(), Some(LIMIT_REACHED));
    }
    assert_eq!(closing.refusal(), None);
    // It goes first once the handshake is over.
    websocket.close();
    closing.end_request();
    let _others: Vec<_> = (0..4).map(|_| register()).collect();
    assert_eq!((closing.refusal(), websocket.refusal()), (Some(LIMIT_REACHED), None));
}

/// The connections beyond the limit of WebSockets, at the usual limits of the kernel. One more has another
/// one evicted.
const SLOTS: usize = 64;

fn silent(server: &Server) -> TcpStream {
    server.connect()
}

fn dripping(server: &Server) -> TcpStream {
    server.send(&UPGRADE.as_bytes()[..40])
}

fn answered(server: &Server) -> TcpStream {
    let mut stream = server.send(HEALTH_CHECK);
    read_all(&mut stream);
    stream
}

#[test]
fn the_page_and_health_checks_are_answered_though_every_slot_is_taken() {
    /// How a connection holds a slot.
    type Hold = fn(&Server) -> TcpStream;
    let server = Server::start(&["--max-connections=1", "--close-timeout=1m"]);
    let before = server.idle_usage();
    let mut only = server.open();
    let holds: [(Hold, &str); 3] =
        [(silent, "HTTP/1.1 503 "), (dripping, "HTTP/1.1 503 "), (answered, "")];
    for (hold, expected) in holds {
        for held in [SLOTS, 2 * SLOTS, 300] {
            let mut held: Vec<_> = (0..held).map(|_| hold(&server)).collect();
            // The only WebSocket, and half of the slots.
            eventually(SOON, || server.client_threads() <= 1 + SLOTS);
            server.wait_until_asleep();
            for _ in 0..20 {
                for stream in
                    held.iter_mut().filter(|_| std::ptr::fn_addr_eq(hold, dripping as Hold))
                {
                    // The server may have closed it.
                    let _ = stream.write_all(b"x");
                }
                assert_status(&server.response(HEALTH_CHECK), 200);
                assert_status(&server.response("GET / HTTP/1.0\r\n\r\n"), 200);
            }
            assert_is_503(&ask(server.connect()).unwrap_err(), LIMIT_REACHED);
            // The oldest one has made room.
            let mut response = String::new();
            let _ = held[0].read_to_string(&mut response);
            assert!(response.starts_with(expected), "{response}");
            assert_eq!(response.is_empty(), expected.is_empty(), "{response}");
            drop(held);
            eventually(SOON, || server.client_threads() == 1);
        }
    }
    assert_echoes(&mut only, "still here");
    drop(only);
    server.has_recovered(before);
}

#[test]
fn a_slow_request_is_answered_though_others_keep_their_slots_after_the_response() {
    let server = Server::start(&["--max-connections=1"]);
    let _only = server.open();
    let mut slow = dripping(&server);
    server.wait_until_asleep();
    let _held: Vec<_> = (0..2 * SLOTS + 10).map(|_| answered(&server)).collect();
    slow.write_all(&UPGRADE.as_bytes()[40..]).unwrap();
    assert_is_503(&upgraded(slow).unwrap_err(), LIMIT_REACHED);
    server.wait_for_log(r#", path "/chat": 503 "#);
}

#[test]
fn health_checks_are_answered_at_once_though_clients_do_not_read_the_page() {
    let listener = bind();
    // So that the page does not fit into the sockets.
    set_socket_send_buffer_size(&listener, 4096).unwrap();
    let server = Server::start_command(&mut command_with(listener, &["--max-connections=1"]));
    let before = server.idle_usage();
    let only = server.open();
    let take_slot = || {
        let mut stream = connect_taking(1024, &server);
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        stream
    };
    let mut held: Vec<_> = (0..2 * SLOTS + 12).map(|_| take_slot()).collect();
    for _ in 0..80 {
        let asked = Instant::now();
        assert_status(&server.response(HEALTH_CHECK), 200);
        assert!(asked.elapsed() < tolerance(), "{:?}", asked.elapsed());
        // In place of the one that has made room.
        held.push(take_slot());
    }
    drop((held, only));
    server.has_recovered(before);
}

#[test]
fn silent_connections_make_room_first_and_then_the_oldest() {
    let is_open = |stream: &mut TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let read = stream.read(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    let server = Server::start(&["--max-connections=1", "--handshake-timeout=1m"]);
    let _only = server.open();
    let mut oldest = dripping(&server);
    let mut silent: Vec<_> = (0..8).map(|_| silent(&server)).collect();
    let mut youngest: Vec<_> = (0..SLOTS - 9).map(|_| dripping(&server)).collect();
    server.wait_until_asleep();
    // One that is new may still send its request.
    thread::sleep(Duration::from_secs(1));
    for stream in &mut silent {
        // It is answered in place of a silent one, and makes room itself.
        assert_status(&server.response(HEALTH_CHECK), 200);
        let response = read_all(stream);
        assert_is_503(&response, LIMIT_REACHED);
        eventually(SOON, || server.client_threads() < 1 + SLOTS);
        youngest.push(dripping(&server));
        server.wait_until_asleep();
    }
    assert!(is_open(&mut oldest) && youngest.iter_mut().all(is_open));
    assert_status(&server.response(HEALTH_CHECK), 200);
    assert_is_503(&upgraded(oldest).unwrap_err(), LIMIT_REACHED);
    assert!(youngest.iter_mut().all(is_open));
}

// What the kernel refuses

#[test]
#[ignore = "17,000 clients need as many descriptors, and a minute"]
fn more_clients_than_the_kernel_carries_do_not_abort_the_process() {
    const CLIENTS: usize = 17_000;
    need_descriptors(CLIENTS as u64 + 500);
    let limit = Limits::raise().clients(100_000);
    assert!(limit < CLIENTS, "this kernel carries them all");
    let mut server = Server::start(&["--max-connections=100000", "--ping-interval=0"]);
    server.wait_for_log(&format!("--max-connections is {limit} instead of 100000"));
    let before = server.idle_usage();
    let (mut open, refused) = crowd(&server, CLIENTS);
    assert_eq!((open.len(), refused.len()), (limit, CLIENTS - limit));
    for response in refused {
        assert_is_503(&response, LIMIT_REACHED);
    }
    // An unfinished message takes the most memory maps that a client can have.
    for stream in &mut open {
        stream.write_all(&frame(0x01, b"still ")).unwrap();
    }
    server.wait_until_asleep();
    for stream in &mut open {
        stream.write_all(&frame(0x80, b"here")).unwrap();
        assert_eq!(read_frame(stream), (0x81, format!("{PREFIX}still here").into()));
    }
    assert!(server.program.is_running());
    let warnings = server.log().iter().filter(|line| line.contains(" WARN ")).count();
    assert_eq!(warnings, 1, "only that of the limit");
    drop(open);
    eventually(SOON, || server.client_threads() == 0);
    server.has_recovered(before);
}

#[test]
fn with_few_descriptors_the_limit_is_lowered_and_the_server_goes_on() {
    let mut command = Command::new("sh");
    let few = "ulimit -n 64 && exec \"$0\" --addr 127.0.0.1:0";
    let mut server = Server::start_command(command.args(["-c", few, &wsecho_path()]));
    server.wait_for_log("--max-connections is 35 instead of 10000");
    let before = server.idle_usage();
    let (mut open, refused) = crowd(&server, 200);
    assert_eq!((open.len(), refused.len()), (35, 165));
    for stream in &mut open {
        assert_echoes(stream, "still here");
    }
    assert!(server.program.is_running());
    drop(open);
    server.has_recovered(before);
}

#[test]
fn without_a_descriptor_the_server_waits_for_one_and_does_not_spin() {
    let server = Server::start(&["--ping-interval=0"]);
    // The hard limit stays that of its parent, this test.
    let limit_descriptors = |current| {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let limit = Rlimit { current, maximum };
        prlimit(Some(server.program.pid()), Resource::Nofile, limit).unwrap();
    };
    let before = server.idle_usage();
    let mut first = server.open();
    // Standard input, output and error are all that it may have now, and what is open stays.
    limit_descriptors(Some(3));
    let outside = server.send(UPGRADE);
    server.wait_for_log("cannot accept clients for now: ");
    assert_echoes(&mut first, "I am in");

    let ticks = server.ticks();
    thread::sleep(Duration::from_secs(1));
    let busy = server.ticks() - ticks;
    assert!(busy <= 10, "{busy} hundredths of a second were spent on waiting");
    let warnings = server.log().iter().filter(|line| line.contains("cannot accept")).count();
    assert_eq!(warnings, 1, "one warning for the whole time");

    limit_descriptors(getrlimit(Resource::Nofile).maximum);
    let mut outside = upgraded(outside).unwrap();
    assert_echoes(&mut outside, "I am in, too");
    drop((first, outside));
    server.has_recovered(before);
}

#[test]
fn without_a_thread_for_it_a_client_gets_503_and_the_server_goes_on() {
    if !has_programs(&["setpriv", "prlimit"]) {
        return;
    }
    let dir = TempDir::new();
    let server = start_as_a_limited_user(&dir, &[]);
    let before = server.idle_usage();
    let mut inside = server.open();
    limit_threads(&server, "1");
    for _ in 0..100 {
        assert_is_503(&ask(server.connect()).unwrap_err(), "can't start another thread");
    }
    assert_echoes(&mut inside, "I am in");
    limit_threads(&server, "1000");
    drop(inside);
    server.has_recovered(before);
}

#[test]
fn what_it_lacks_the_descriptors_or_threads_for_at_the_start_is_named() {
    let path = wsecho_path();
    for limit in 4..=7 {
        // Descriptors that cargo has left open are closed.
        let few = "exec 3<&- 4<&- 5<&- 6<&- 7<&-; ulimit -n \"$1\"; exec \"$0\" --addr 127.0.0.1:0";
        let mut command = Command::new("sh");
        let (status, text) = refusal(command.args(["-c", few, &path, &limit.to_string()]));
        let last = text.lines().last().unwrap_or_default();
        assert!(status == Some(1) && last.starts_with("wsecho: cannot "), "{limit}: {text}");
    }
    if !has_programs(&["setpriv", "prlimit"]) {
        return;
    }
    let dir = TempDir::new();
    let copy = dir.path("wsecho");
    copy_wsecho(&copy);
    for limit in 1..=2 {
        let mut command = as_a_limited_user(Path::new("prlimit"));
        command.arg(format!("--nproc={limit}:")).arg(&copy).arg("--addr=127.0.0.1:0");
        let (status, text) = refusal(&mut command);
        let last = text.lines().last().unwrap_or_default();
        assert!(
            status == Some(1) && last.starts_with("wsecho: cannot start the "),
            "{limit}: {text}"
        );
    }
}

/// A server whose threads [`limit_threads`] can limit. Its program is copied to `dir`, where that user
/// may read it.
pub(super) fn start_as_a_limited_user(dir: &TempDir, flags: &[&str]) -> Server {
    let wsecho = dir.path("wsecho");
    copy_wsecho(&wsecho);
    let mut command = as_a_limited_user(&wsecho);
    Server::start_command(command.args(["--addr", "127.0.0.1:0"]).args(flags))
}

/// Lets the server's user have no more than `limit` threads.
pub(super) fn limit_threads(server: &Server, limit: &str) {
    let mut command = as_a_limited_user(Path::new("prlimit"));
    let pid = server.program.pid();
    command.args([format!("--pid={pid}"), format!("--nproc={limit}:")]);
    assert!(command.status().unwrap().success());
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
