//! Clients that use the server against itself: its log, its memory in the kernel, its budget, its
//! threads.

use std::fs;
use std::io::{BufRead as _, Write as _};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wsecho::server::registry::IP_LIMIT_REACHED;

use super::limits::{limit_threads, start_as_a_limited_user};
use super::stopping::signal_until_it_ends;
use crate::frames::{close, frame};
use crate::support::{
    HEALTH_CHECK, Program, SOON, Server, TempDir, UPGRADE, ask, assert_echoes, assert_end,
    assert_is_503, assert_status, assert_took, connect_from, crowd, eventually, for_all_at_once,
    has_programs, need_descriptors, open_taking, read_close, tolerance, wait_for_line, wsecho,
    wsecho_path,
};

const PAGE_REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

// A log that nobody reads

/// Few clients, so that the log has no warning about the kernel's limits.
const LOG_FLAGS: [&str; 4] =
    ["-v", "--max-connections=50", "--max-buffered=1MiB", "--close-timeout=1m"];

/// The lines with which a log begins and ends.
const LINES_OF_THE_SERVER: usize = 3;

/// Makes 3,000 connections, which log more lines than a pipe and the queue hold. Returns the number of
/// lines.
fn flood_log(server: &Server) -> usize {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 500;
    const VISITS: usize = 250;
    const LINES_PER_VISIT: usize = 3;
    let client = || {
        for _ in 0..REQUESTS {
            assert_status(&server.response(PAGE_REQUEST), 200);
        }
        for _ in 0..VISITS {
            let mut stream = server.open();
            assert_echoes(&mut stream, "logged");
            stream.write_all(&close(1000)).unwrap();
            assert_eq!(read_close(&mut stream), 1000);
        }
    };
    thread::scope(|scope| {
        (0..CLIENTS).for_each(|_| drop(scope.spawn(client)));
    });
    CLIENTS * (REQUESTS + VISITS * LINES_PER_VISIT)
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_clients_nor_the_stop() {
    for second_signal in [None, Some(Signal::TERM)] {
        let (mut server, _log) = Server::start_without_log_reader(&LOG_FLAGS);
        flood_log(&server);
        server.answers_at_once();
        assert_status(&server.response(HEALTH_CHECK), 200);
        let mut last = server.open();
        let asked = Instant::now();
        server.signal(Signal::TERM);
        assert_eq!(read_close(&mut last), 1001);
        assert!(asked.elapsed() < tolerance(), "Close came after {:?}", asked.elapsed());
        match second_signal {
            None => {
                drop(last);
                // The reader has a second.
                let status = server.wait(Duration::from_secs(1) + tolerance());
                assert_eq!(status.code(), Some(0));
            }
            Some(signal) => {
                let status = signal_until_it_ends(&mut server, signal);
                assert_eq!(status, Some(128 + signal.as_raw()));
                assert!(asked.elapsed() < tolerance(), "{:?}", asked.elapsed());
            }
        }
    }
}

#[test]
fn lines_that_nobody_read_in_time_are_counted_in_the_log() {
    let (mut server, log) = Server::start_without_log_reader(&LOG_FLAGS);
    let mut caused = flood_log(&server);
    let is_drained = AtomicBool::new(false);
    let (mut written, mut lost) = (1, 0);
    thread::scope(|scope| {
        let is_drained = &is_drained;
        let (written, lost) = (&mut written, &mut lost);
        scope.spawn(move || {
            for line in log.lines().map(Result::unwrap) {
                match line.strip_suffix(" lost") {
                    Some(start) => {
                        let count = start.rsplit(' ').nth(1).unwrap();
                        *lost += count.parse::<usize>().unwrap();
                    }
                    None => *written += 1,
                }
                is_drained.fetch_or(line.contains("/the-last-one"), Ordering::Relaxed);
            }
        });
        eventually(SOON, || {
            server.response("GET /the-last-one HTTP/1.0\r\n\r\n");
            caused += 1;
            is_drained.load(Ordering::Relaxed)
        });
        server.signal(Signal::TERM);
        assert_eq!(server.wait(SOON).code(), Some(0));
    });
    assert!(lost > 0, "the log held all of it");
    assert_eq!(written + lost, caused + LINES_OF_THE_SERVER);
}

// The log as a weapon

#[test]
fn requests_beyond_a_hundred_a_second_are_counted_in_the_log_and_not_listed() {
    const CLIENTS: usize = 4;
    const REQUESTS: usize = 1_000;
    const LINES_PER_SECOND: usize = 100;
    // The first of its seconds begins with the server.
    let started = Instant::now();
    let server = Server::start(&[]);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| (0..REQUESTS).for_each(|_| drop(server.response(PAGE_REQUEST))));
        }
    });
    let seconds = started.elapsed().as_secs() as usize + 1;
    // The next second counts what was suppressed in this one.
    thread::sleep(Duration::from_secs(1));
    server.response("GET /the-last-one HTTP/1.0\r\n\r\n");
    server.wait_for_log("/the-last-one");
    let log = server.log();
    let requests: Vec<_> = log.iter().filter(|line| line.contains(", path ")).collect();
    let suppressed = requests.iter().filter_map(|line| {
        let (start, _) = line.split_once(" request line")?;
        Some(start.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
    });
    let suppressed: usize = suppressed.sum();
    assert!(
        suppressed > 0 && requests.len() <= seconds * LINES_PER_SECOND + 1,
        "{}",
        requests.len()
    );
    assert_eq!(requests.len() + suppressed, CLIENTS * REQUESTS + 1);
}

#[test]
fn only_the_user_and_the_group_may_read_a_log_file() {
    let dir = TempDir::new();
    let file = dir.path("wsecho.log");
    let mut command = Command::new("sh");
    let unmasked = "umask 0 && exec \"$0\" --addr 127.0.0.1:0 --log-file \"$1\"";
    command.args(["-c", unmasked, &wsecho_path()]).arg(&file);
    let _server = Program::start(&mut command);
    wait_for_line(&file, "listening on ");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
}

// No thread

#[test]
fn the_stop_needs_no_new_thread() {
    if !has_programs(&["setpriv", "prlimit"]) {
        return;
    }
    let dir = TempDir::new();
    let mut server = start_as_a_limited_user(&dir, &["--close-timeout=1m"]);
    let mut clients = [(); 3].map(|()| server.open());
    limit_threads(&server, "1");
    server.wait_until_asleep();
    server.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(read_close(client), 1001);
        client.write_all(&close(1001)).unwrap();
        assert_end(client);
    }
    drop(clients);
    assert_eq!(server.wait(tolerance()).code(), Some(0));
}

// Memory in the kernel

/// Of servers whose clients ask for much and never read.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

#[test]
fn a_client_that_does_not_read_its_replies_is_ended_though_nothing_more_is_sent_to_it() {
    for answers in [false, true] {
        let server = Server::start(&["--write-timeout=2s", "--ping-interval=0"]);
        let before = server.idle_usage();
        let mut stream = open_taking(4 * 1024, &server);
        let started = Instant::now();
        // The kernel has room for the reply, so that the thread goes on to wait for more.
        stream.write_all(&frame(0x82, &vec![7; 200_000])).unwrap();
        let is_ended = |line: &String| line.contains("client 2 ended: peer did not read in time");
        eventually(SOON, || {
            if answers {
                let _ = stream.write_all(&frame(0x8A, b"here"));
            }
            server.log().iter().any(is_ended)
        });
        assert_took(started, WRITE_TIMEOUT);
        server.has_recovered(before);
    }
}

#[test]
fn what_clients_did_not_read_is_not_kept_in_the_kernel_after_they_left() {
    const VISITS: usize = 120;
    let server = Server::start(&["--write-timeout=2s", "--close-timeout=1s"]);
    // Each leaves its reply unread and ends its stream, so that the server is done with it.
    let sent = [frame(0x82, &vec![7; 200_000]), close(1000)].concat();
    let visit = |_| {
        let mut stream = open_taking(4 * 1024, &server);
        stream.write_all(&sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream
    };
    let kept: Vec<_> = (0..VISITS).map(visit).collect();
    assert!(server.stuck() > 0, "everything was read");
    eventually(SOON, || server.client_threads() == 0);
    // By itself the kernel would try for many minutes.
    eventually(WRITE_TIMEOUT + SOON, || server.stuck() == 0);
    drop(kept);
}

// One address

#[test]
fn one_address_may_have_so_many_websockets_and_another_as_many() {
    let server = Server::start(&["--max-connections-per-ip=1"]);
    let first = server.open();
    let from = |source| ask(connect_from(source, server.addr));
    assert_is_503(&from(1).unwrap_err(), IP_LIMIT_REACHED);
    let _other = from(2).unwrap();
    assert_is_503(&from(2).unwrap_err(), IP_LIMIT_REACHED);
    // The page is no WebSocket.
    assert_status(&server.response(PAGE_REQUEST), 200);
    drop(first);
    eventually(SOON, || from(1).is_ok());
}

// Crowds

#[test]
#[ignore = "5,000 clients need as many descriptors, and 700 MiB"]
fn a_crowd_that_filled_its_buffers_leaves_little_behind_however_many_arenas_there_are() {
    const CLIENTS: usize = 5_000;
    need_descriptors(CLIENTS as u64 + 200);
    // An output, an input and a message.
    let filling = [
        frame(0x81, &[b't'; 4_000]).repeat(8),
        frame(0x89, &[b'p'; 125]).repeat(200),
        frame(0x02, &vec![7; 64 * 1024]),
    ]
    .concat();
    for tunables in ["", "glibc.malloc.arena_max=512"] {
        let mut command = wsecho(&["--addr", "127.0.0.1:0", "--ping-interval=0"]);
        let server = Server::start_command(command.env("GLIBC_TUNABLES", tunables));
        let before = server.idle_usage();
        let (mut open, refused) = crowd(&server, CLIENTS);
        assert_eq!((open.len(), refused.len()), (CLIENTS, 0));
        for_all_at_once(&mut open, |stream| stream.write_all(&filling).unwrap());
        server.wait_until_asleep();
        let held = server.usage().resident - before.resident;
        assert!(held > CLIENTS * 80, "{} KiB a client", held / CLIENTS);
        drop(open);
        eventually(SOON, || server.client_threads() == 0);
        println!("{tunables:?}: held {held} KiB");
        server.has_recovered_after(before, 48 * 1024, || server.answers_at_once());
        println!("left {} KiB", server.usage().resident - before.resident);
    }
}

#[test]
fn a_crowd_does_not_abort_a_process_that_may_have_few_addresses() {
    const CLIENTS: usize = 1_500;
    const ROUNDS: usize = 4;
    need_descriptors(CLIENTS as u64 + 200);
    let fragments = [frame(0x02, &vec![7; 200_000]), frame(0x00, &vec![7; 200_000])].concat();
    for limit_mib in [150, 300, 500] {
        let mut command = Command::new("sh");
        let limited = "ulimit -v $1 && exec \"$0\" --addr 127.0.0.1:0";
        command.args(["-c", limited, &wsecho_path(), &(limit_mib * 1024).to_string()]);
        let mut server = Server::start_command(&mut command);
        for _ in 0..ROUNDS {
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let some = (0..CLIENTS / 8).map(|_| {
                            let mut stream = server.connect();
                            let _ = stream.write_all(UPGRADE.as_bytes());
                            stream.set_nonblocking(true).unwrap();
                            // As much of it as the sockets hold.
                            let _ = stream.write(&fragments);
                            stream
                        });
                        drop(some.collect::<Vec<_>>());
                    });
                }
            });
            assert!(server.program.is_running(), "{limit_mib} MiB: {:#?}", server.log());
        }
        // Those that have left may be still counted.
        eventually(SOON, || ask(server.connect()).is_ok());
        server.signal(Signal::TERM);
        assert_eq!(server.wait(SOON).code(), Some(0), "{limit_mib} MiB: {:#?}", server.log());
    }
}
