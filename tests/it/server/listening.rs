//! Where the server listens: Unix-domain sockets, sockets from a supervisor, names.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, socket};
use rustix::process::{Signal, geteuid};

use crate::frames::frame;
use crate::support::{
    HEALTH_CHECK, Program, SOON, Server, TempDir, UPGRADE, ask, assert_echoes, assert_end,
    assert_status, assert_took, demand, eventually, has_programs, read_close, read_frame,
    read_head, refusal, skip, tolerance, upgraded, with_timeouts, write_until_stuck, wsecho,
    wsecho_path,
};

// Unix-domain sockets

/// A connection to a Unix-domain socket. The calls of these tests work as for TCP.
fn connect_unix(stream: UnixStream) -> TcpStream {
    with_timeouts(OwnedFd::from(stream).into())
}

fn open_unix(path: &Path) -> TcpStream {
    ask(connect_unix(UnixStream::connect(path).unwrap())).expect("a WebSocket opens")
}

fn addr_of(path: &Path) -> String {
    format!("--addr=unix:{}", path.display())
}

#[test]
fn a_unix_domain_socket_serves_like_any_other_and_is_removed_at_exit() {
    let dir = TempDir::new();
    let path = dir.path("socket");
    let name = format!("wsecho-listening-{}", std::process::id());
    let mut server = Server::start(&[
        &addr_of(&path),
        &format!("--addr=unix:@{name}"),
        "--max-connections-per-ip=1",
        "--max-message-size=16MiB",
    ]);
    let line = server.wait_for_log("listening on ");
    let sockets = format!("/ unix:{} unix:@{name}, page at http://127.0.0.1:", path.display());
    assert!(line.contains(&sockets), "{line}");

    // No address is limited, since there is none.
    let mut one = open_unix(&path);
    let mut two = open_unix(&path);
    let name = SocketAddr::from_abstract_name(name).unwrap();
    let mut abstract_one =
        ask(connect_unix(UnixStream::connect_addr(&name).unwrap())).expect("a WebSocket opens");
    for stream in [&mut one, &mut two, &mut abstract_one] {
        assert_echoes(stream, "hi");
        let large = vec![7; 3 << 20];
        let mut sender = stream.try_clone().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| sender.write_all(&frame(0x82, &large)).unwrap());
            assert!(read_frame(stream) == (0x82, large.clone()));
        });
    }
    let connected = server.wait_for_log("client 1 connected: ");
    assert!(connected.ends_with(r#"client 1 connected: unix, path "/chat""#), "{connected}");

    server.signal(Signal::TERM);
    for mut stream in [one, two, abstract_one] {
        assert_eq!(read_close(&mut stream), 1001);
        drop(stream);
    }
    assert!(server.wait(SOON).success());
    assert!(!path.exists());
}

#[test]
fn a_unix_domain_client_that_does_not_read_or_answer_is_ended_in_time() {
    const WRITE_TIMEOUT: Duration = Duration::from_secs(1);
    let dir = TempDir::new();
    let path = dir.path("socket");
    let flags = ["--write-timeout=1s", "--ping-interval=200ms", "--ping-timeout=200ms"];
    let server = Server::start(&[&[&addr_of(&path)[..]], &flags[..]].concat());
    let mut silent = open_unix(&path);
    assert_eq!(read_frame(&mut silent).0, 0x89);
    assert_eq!(read_close(&mut silent), 1001);

    let mut stuck = open_unix(&path);
    assert!(write_until_stuck(&mut stuck, &frame(0x82, &[7; 100_000])));
    let since = Instant::now();
    server.wait_for_log("client 2 ended: peer did not read");
    // It was stuck before this clock began.
    assert!(since.elapsed() < WRITE_TIMEOUT + tolerance());
}

#[test]
fn the_mode_of_a_socket_file_follows_umask() {
    let dir = TempDir::new();
    for (umask, mode) in [("0077", 0o700), ("0117", 0o660)] {
        let path = dir.path(umask);
        let script = format!("umask {umask}; exec \"$0\" --addr 127.0.0.1:0 \"$1\"");
        let server = Server::start_command(Command::new("sh").args([
            "-c",
            &script,
            &wsecho_path(),
            &addr_of(&path),
        ]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
        drop(server);
    }
}

#[test]
fn a_stale_socket_file_is_replaced_and_a_live_one_is_in_use() {
    let dir = TempDir::new();
    let path = dir.path("socket");
    let mut first = Server::start(&[&addr_of(&path)]);
    first.signal(Signal::KILL);
    first.wait(SOON);
    assert!(path.exists(), "or the file is not stale");

    let mut second = Server::start(&[&addr_of(&path)]);
    assert_echoes(&mut open_unix(&path), "hi");
    assert_refused(&addr_of(&path), "Address already in use");
    assert_echoes(&mut open_unix(&path), "still there?");
    second.stop();
    assert!(!path.exists());

    // A server whose queue is full is alive.
    let full = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let _queued = UnixStream::connect(&path).unwrap();
    assert_refused(&addr_of(&path), "Address already in use");
}

#[test]
fn a_socket_that_is_bound_and_does_not_listen_yet_is_in_use() {
    let dir = TempDir::new();
    let path = dir.path("socket");
    let bound = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&bound, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    assert_refused(&addr_of(&path), "Address already in use");
    rustix::net::listen(&bound, 1).unwrap();
    UnixStream::connect(&path).expect("its file is left");
}

#[test]
fn a_lock_on_the_directory_that_another_user_holds_does_not_keep_the_server_from_starting() {
    let dir = TempDir::new();
    let path = dir.path("socket");
    drop(UnixListener::bind(&path).unwrap());
    let directory = fs::File::open(dir.path("")).unwrap();
    flock(&directory, FlockOperation::LockExclusive).unwrap();
    let mut server = Server::start(&[&addr_of(&path)]);
    server.wait_for_log("WARN");
    assert_echoes(&mut open_unix(&path), "hi");
    server.stop();
    assert!(!path.exists());
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let dir = TempDir::new();
    let (file, link) = (dir.path("file"), dir.path("link"));
    fs::write(&file, "precious").unwrap();
    symlink(dir.path("nowhere"), &link).unwrap();
    for path in [&file, &link] {
        assert_refused(&addr_of(path), "the file exists and is not a socket");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_refused(&addr_of(&dir.path("")), "the file exists and is not a socket");
}

#[test]
fn a_path_that_can_not_be_listened_on_is_named_with_the_reason() {
    let dir = TempDir::new();
    assert_refused(&addr_of(&dir.path("no/such")), "No such file or directory");
    assert_refused(&addr_of(&dir.path(&"x".repeat(108))), "path must be shorter than SUN_LEN");
    assert_refused(&format!("--addr=unix:@{}", "x".repeat(108)), "must be shorter than SUN_LEN");
    let _listener = UnixListener::bind(dir.path("taken")).unwrap();
    assert_refused(&addr_of(&dir.path("taken")), "stop it, or choose another name with --addr");
}

#[test]
fn a_socket_that_may_not_be_connected_to_is_not_said_to_be_in_use() {
    let dir = TempDir::new();
    let path = dir.path("socket");
    let _listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = wsecho(&[&addr_of(&path)]);
    if geteuid().is_root() {
        if !has_programs(&["setpriv"]) {
            return;
        }
        // Root, but without the right to ignore modes.
        command = Command::new("setpriv");
        command.args(["--bounding-set=-dac_override,-dac_read_search", &wsecho_path()]);
        command.arg(addr_of(&path));
    }
    assert_refuses(
        &mut command,
        &addr_of(&path),
        "Permission denied (os error 13); this user must",
    );
    assert!(path.exists());
}

#[test]
fn an_address_given_twice_is_in_use() {
    let addr = crate::support::free_addr();
    let flag = format!("--addr={addr}");
    for twice in [&flag, &format!("--addr=0.0.0.0:{}", addr.port())] {
        let why = "another program or --addr listens there";
        assert_refuses(&mut wsecho(&[&flag, twice]), twice, why);
    }
}

#[track_caller]
fn assert_refused(flag: &str, why: &str) {
    assert_refuses(&mut wsecho(&[flag]), flag, why);
}

#[track_caller]
fn assert_refuses(command: &mut Command, flag: &str, why: &str) {
    let (status, text) = refusal(command);
    let line = format!("wsecho: cannot listen on {}: ", flag.split_once('=').unwrap().1);
    assert!(status == Some(1) && text.starts_with(&line) && text.contains(why), "{text}");
}

#[test]
fn at_exit_only_its_own_file_is_removed() {
    let dir = TempDir::new();
    let relative = Path::new("socket");
    let path = dir.path("socket");
    let mut server = Server::start_command(
        wsecho(&["--addr=127.0.0.1:0", &addr_of(relative)]).current_dir(dir.path("")),
    );
    assert_echoes(&mut open_unix(&path), "hi");
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    let other = fs::metadata(&path).unwrap();
    server.stop();
    let left = fs::metadata(&path).expect("another program's socket is left");
    assert!(left.file_type().is_socket() && left.ino() == other.ino());
}

#[test]
fn of_many_that_start_at_once_on_a_stale_file_one_listens() {
    const STARTS: usize = 12;
    let dir = TempDir::new();
    for round in 0..5 {
        let path = dir.path(&round.to_string());
        drop(UnixListener::bind(&path).unwrap());
        let mut command = wsecho(&[&addr_of(&path)]);
        command.stderr(Stdio::null());
        let mut programs: Vec<_> = (0..STARTS).map(|_| Program::start(&mut command)).collect();
        let running = |programs: &mut Vec<Program>| {
            programs.iter_mut().filter_map(|program| program.is_running().then_some(())).count()
        };
        eventually(SOON, || running(&mut programs) == 1);
        assert_echoes(&mut open_unix(&path), "hi");
        assert_eq!(running(&mut programs), 1);
    }
}

// Sockets from a supervisor

/// Starts wsecho as a supervisor does that holds `listener`: as descriptor 3, with the variables of
/// sd_listen_fds(3).
fn start_with(listener: impl Into<OwnedFd>, flags: &[&str]) -> Program {
    Program::start(command_with(listener, flags).stderr(Stdio::null()))
}

pub(super) fn command_with(listener: impl Into<OwnedFd>, flags: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"exec 3<&1 1>/dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@""#])
        .arg(wsecho_path())
        .args(flags)
        .stdout(listener.into());
    command
}

/// A client that asks for a WebSocket as soon as it is connected, at any moment.
fn begin_visit(server: std::net::SocketAddr) -> io::Result<TcpStream> {
    let mut stream = with_timeouts(TcpStream::connect(server)?);
    stream.write_all(UPGRADE.as_bytes())?;
    Ok(stream)
}

/// The error if it is not served.
fn end_visit(stream: io::Result<TcpStream>) -> Result<(), String> {
    let mut stream = stream.map_err(|error| error.to_string())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).map_err(|error| format!("no response: {error}"))?;
    if &head != b"HTTP/1.1 101" {
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest);
        return Err(head.escape_ascii().to_string() + &rest);
    }
    read_head(&mut stream);
    stream.write_all(&frame(0x82, b"hi")).map_err(|error| error.to_string())?;
    match read_frame(&mut stream) {
        (0x82, reply) if reply == b"hi" => Ok(()),
        (0x88, code) if code.starts_with(&1001_u16.to_be_bytes()) => Ok(()),
        frame => Err(format!("{frame:?}")),
    }
}

#[test]
fn through_ten_restarts_no_client_is_refused_and_none_gets_503() {
    const RESTARTS: usize = 10;
    const VISITS_PER_RESTART: usize = 20;
    const INTERVAL: Duration = Duration::from_millis(5);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let is_over = AtomicBool::new(false);
    let begun = AtomicUsize::new(0);
    let (visits, visited) = mpsc::channel();
    let server = || start_with(listener.try_clone().unwrap(), &[]);
    let mut running = server();
    thread::scope(|scope| {
        scope.spawn(|| {
            let visits = visits;
            while !is_over.load(Ordering::Relaxed) {
                let visit = begin_visit(addr);
                begun.fetch_add(1, Ordering::Relaxed);
                let visits = visits.clone();
                scope.spawn(move || visits.send(end_visit(visit)).unwrap());
                thread::sleep(INTERVAL);
            }
        });
        for restart in 1..=RESTARTS {
            let mut connected = ask(crate::support::connect(addr)).expect("a WebSocket opens");
            assert_echoes(&mut connected, "hi");
            running.signal(Signal::TERM);
            assert_eq!(read_close(&mut connected), 1001);
            drop(connected);
            assert!(running.wait(SOON).success());
            // Some come while nobody accepts.
            eventually(SOON, || begun.load(Ordering::Relaxed) >= restart * VISITS_PER_RESTART);
            running = server();
        }
        end_visit(begin_visit(addr)).unwrap();
        is_over.store(true, Ordering::Relaxed);
    });
    let results: Vec<_> = visited.iter().collect();
    assert!(results.len() >= RESTARTS * VISITS_PER_RESTART);
    let failed: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} of {}: {failed:#?}", failed.len(), results.len());
}

#[test]
fn a_stopping_server_serves_whom_it_has_accepted_and_leaves_the_others_in_the_queue() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = || crate::support::connect(listener.local_addr().unwrap());
    let mut server = start_with(listener.try_clone().unwrap(), &["--close-timeout=5s"]);
    let mut idle = connect();
    let mut open = ask(connect()).unwrap();
    assert_echoes(&mut open, "hi");
    // By now it counts as a connection that a browser opened ahead of time.
    thread::sleep(Duration::from_millis(1100));
    let mut asking = connect();
    asking.write_all(&UPGRADE.as_bytes()[..10]).unwrap();
    let mut visitor = connect();
    visitor.write_all(&HEALTH_CHECK.as_bytes()[..10]).unwrap();
    let mut delayed = connect();
    delayed.write_all(demand("delay=1m").as_bytes()).unwrap();
    // All of them are accepted, since this one is.
    assert_echoes(&mut ask(connect()).unwrap(), "hi");
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut open), 1001);
    let mut late = connect();
    late.write_all(HEALTH_CHECK.as_bytes()).unwrap();

    asking.write_all(&UPGRADE.as_bytes()[10..]).unwrap();
    assert_status(&read_head(&mut asking), 101);
    assert_eq!(read_close(&mut asking), 1001);
    visitor.write_all(&HEALTH_CHECK.as_bytes()[10..]).unwrap();
    assert_status(&read_head(&mut visitor), 200);
    for stream in [&mut idle, &mut delayed] {
        assert_status(&read_head(stream), 503);
    }
    drop((idle, open, asking, visitor, delayed));
    assert!(server.wait(SOON).success());

    let _next = start_with(listener.try_clone().unwrap(), &[]);
    assert_status(&read_head(&mut late), 200);
}

#[test]
fn a_client_from_before_the_start_has_its_timeouts_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut stuck = crate::support::connect(listener.local_addr().unwrap());
    stuck.write_all(UPGRADE.as_bytes()).unwrap();
    let mut command = command_with(listener, &["--addr=127.0.0.1:0", "--write-timeout=1s"]);
    let server = Server::start_command(&mut command);
    assert_status(&read_head(&mut stuck), 101);
    let since = Instant::now();
    assert!(write_until_stuck(&mut stuck, &frame(0x82, &[7; 100_000])));
    server.wait_for_log("client 1 ended: peer did not read");
    assert_took(since, Duration::from_millis(900));
}

#[test]
fn a_unix_domain_socket_may_be_inherited_and_its_file_is_left() {
    let dir = TempDir::new();
    let path = dir.path("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let mut server = start_with(listener.try_clone().unwrap(), &[]);
    let mut client = open_unix(&path);
    assert_echoes(&mut client, "hi");
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut client), 1001);
    assert_end(&mut client);
    drop(client);
    assert!(server.wait(SOON).success());
    let _next = start_with(listener, &[]);
    assert_echoes(&mut open_unix(&path), "hi");
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let dir = TempDir::new();
    let (connected, _peer) = UnixStream::pair().unwrap();
    let file = fs::File::create(dir.path("file")).unwrap();
    for (fd, why) in [
        (OwnedFd::from(connected), "it does not listen; a socket unit needs Accept=no"),
        (file.into(), "it is neither a TCP nor a Unix-domain stream socket"),
    ] {
        let text = format!("wsecho: cannot use inherited socket 0: {why}\n");
        assert_eq!(refusal(&mut command_with(fd, &[])), (Some(1), text));
    }
}

#[test]
fn a_descriptor_of_its_own_is_no_inherited_socket() {
    let script = r#"exec 3<&-; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0""#;
    let mut command = Command::new("sh");
    let (status, text) = refusal(command.args(["-c", script, &wsecho_path()]));
    let why = "it is neither a TCP nor a Unix-domain stream socket\n";
    assert!(status == Some(1) && text.ends_with(why), "{text}");
}

#[test]
fn systemd_hands_its_socket_over() {
    if !has_programs(&["systemd-socket-activate"]) {
        return;
    }
    let addr = crate::support::free_addr();
    let mut command = Command::new("systemd-socket-activate");
    command.args(["--listen", &addr.to_string(), &wsecho_path()]).stderr(Stdio::null());
    let mut server = Program::start(&mut command);
    eventually(SOON, || TcpStream::connect(addr).is_ok());
    let mut client = ask(crate::support::connect(addr)).expect("a WebSocket opens");
    assert_echoes(&mut client, "hi");
    // It has become wsecho.
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut client), 1001);
    drop(client);
    assert!(server.wait(SOON).success());
}

// Names

#[test]
fn a_name_is_listened_on_at_each_of_its_addresses_and_one_port() {
    let server = Server::start_command(&mut wsecho(&["--addr=localhost:0"]));
    let line = server.wait_for_log("listening on ");
    let addrs: Vec<std::net::SocketAddr> = line
        .split("ws://")
        .skip(1)
        .map(|rest| rest.split('/').next().unwrap().parse().unwrap())
        .collect();
    let resolved = std::net::ToSocketAddrs::to_socket_addrs("localhost:0").unwrap();
    let mut expected: Vec<_> =
        resolved.map(|addr| addr.ip()).filter(|ip| ip.is_ipv4() || has_ipv6()).collect();
    expected.dedup();
    assert_eq!(addrs.iter().map(std::net::SocketAddr::ip).collect::<Vec<_>>(), expected);
    for addr in &addrs {
        assert_eq!(addr.port(), addrs[0].port());
        assert_echoes(&mut ask(crate::support::connect(*addr)).unwrap(), "hi");
    }
}

#[test]
fn an_address_that_is_none_of_this_machine_is_refused_with_what_would_be_right() {
    for (addr, why) in [
        ("[fe80::1%no-such]:1222", "no interface of this machine has that name"),
        ("[::1%lo]:1222", "or the address is not link-local"),
        ("192.0.2.1:1222", "this machine does not have that address"),
        ("[fe80::1%lo]:1222", "this machine does not have that address"),
        ("[fe80::1]:1222", "a link-local address needs its interface"),
    ] {
        if !addr.starts_with('[') || has_ipv6() {
            assert_refused(&format!("--addr={addr}"), why);
        }
    }
}

#[test]
fn a_link_local_address_is_listened_on_with_its_interface() {
    let interfaces = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let Some(link_local) = interfaces.lines().find(|line| line.starts_with("fe80")) else {
        return skip("this machine has no link-local address");
    };
    let fields: Vec<_> = link_local.split_whitespace().collect();
    let ip = Ipv6Addr::from_bits(u128::from_str_radix(fields[0], 16).unwrap());
    let addr = format!("--addr=[{ip}%{}]:0", fields[5]);
    let server = Server::start_command(&mut wsecho(&[&addr]));
    assert_echoes(&mut server.open(), "hi");
}

fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn an_ipv6_wildcard_names_a_page_that_opens_and_its_ipv4_clients_by_their_ipv4_address() {
    if TcpListener::bind("[::]:0").is_err() {
        return skip("this machine has no IPv6");
    }
    let server = Server::start_command(&mut wsecho(&["--addr=[::]:0"]));
    let line = server.wait_for_log("listening on ");
    let port = server.addr.port();
    let with_ipv4 = TcpStream::connect(("127.0.0.1", port));
    let Ok(mut client) = with_ipv4.map(with_timeouts) else {
        let page = format!("page at http://[::1]:{port}/; [::]:{port} serves IPv6 only");
        return assert!(line.ends_with(&page), "{line}");
    };
    let page = format!("page at http://127.0.0.1:{port}/; [::]:{port} serves IPv4, too");
    assert!(line.ends_with(&page), "{line}");

    let own = client.local_addr().unwrap();
    client.write_all(demand("dump").as_bytes()).unwrap();
    let (_, dump) = read_frame(&mut upgraded(client).unwrap());
    let dump = String::from_utf8(dump).unwrap();
    assert!(dump.contains(&format!(r#""peer":"{own}""#)), "{dump}");
    server.wait_for_log(&format!("client 1 connected: {own}, "));
}
