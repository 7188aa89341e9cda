//! wsecho as a background daemon: under nohup, logrotate, health checks and systemd.

mod common;

use std::fs;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use common::{
    Program, SOON, Scratch, Server, address_in, eventually, frame, free_addr, has_program, program,
    read_close, read_frame, wait_for_line,
};

const UNIT: &str = include_str!("../systemd/wsecho.service");

#[test]
fn under_nohup_it_survives_the_hang_up_and_goes_on_appending() {
    let scratch = Scratch::new("nohup");
    let log = scratch.path("wsecho.log");
    fs::write(&log, "a line from an earlier run\n").unwrap();

    // The shell ends at once, as it does when someone logs out.
    let shell = Command::new("sh")
        .args([
            "-c",
            r#"nohup "$0" --addr 127.0.0.1:0 --log-file wsecho.log & echo $!"#,
            &program(),
        ])
        .current_dir(scratch.path(""))
        .env_remove("RUST_LOG")
        // A pipe that stays open in the daemon would keep this from ending.
        .stderr(Stdio::null())
        .stdout(fs::File::create(scratch.path("pid")).unwrap())
        .status();
    assert!(shell.unwrap().success());
    let pid = fs::read_to_string(scratch.path("pid")).unwrap();
    let daemon = Daemon(Pid::from_raw(pid.trim().parse().unwrap()).unwrap());
    let addr = address_in(&wait_for_line(&log, "listening on "));

    let mut client = open(addr);
    kill_process(daemon.0, Signal::HUP).unwrap();
    client.write_all(&frame(0x81, b"still there?")).unwrap();
    assert_eq!(read_frame(&mut client).1, b"You have entered: still there?");
    let mut later = open(addr);
    kill_process(daemon.0, Signal::TERM).unwrap();
    assert_eq!(read_close(&mut client), 1001);
    assert_eq!(read_close(&mut later), 1001);
    drop((client, later));
    wait_for_line(&log, "stopped: ");

    let log = fs::read_to_string(&log).unwrap();
    let (first, log) = log.split_once('\n').unwrap();
    assert_eq!(first, "a line from an earlier run");
    assert_events(
        log,
        &[
            "listening on ",
            "client 1 connected: ",
            "client 2 connected: ",
            "stopping, ",
            "client 1 ended: ",
            "client 2 ended: ",
            "stopped: 2 clients were connected, 0 of them had to be aborted",
        ],
    );
}

#[test]
fn without_nohup_a_hang_up_ends_it_as_any_program() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut server = Server::start(&[]);
    server.signal(Signal::HUP);
    let status = server.wait(SOON);
    assert_eq!(status.signal(), Some(Signal::HUP.as_raw()));
}

#[test]
fn the_log_goes_on_without_a_hole_after_logrotate_has_copied_and_truncated_it() {
    if !has_program("logrotate") {
        return;
    }
    let scratch = Scratch::new("logrotate");
    let log = scratch.path("wsecho.log");
    let rules = include_str!("daemon/logrotate.conf");
    let rules = rules.replace("/var/log/wsecho.log", log.to_str().unwrap());
    fs::write(scratch.path("conf"), rules).unwrap();

    let server = Server::start_with_log_file(&log, &[]);
    server.answers_a_fresh_client();
    wait_for_line(&log, "client 1 ended: ");
    let before = fs::read_to_string(&log).unwrap();
    let rotated = Command::new("logrotate")
        .arg("--force")
        .arg("--state")
        .arg(scratch.path("state"))
        .arg(scratch.path("conf"))
        .output()
        .unwrap();
    assert!(rotated.status.success(), "{rotated:?}");
    server.answers_a_fresh_client();
    wait_for_line(&log, "client 2 ended: ");

    assert_eq!(fs::read_to_string(scratch.path("wsecho.log.1")).unwrap(), before);
    let after = fs::read_to_string(&log).unwrap();
    assert_events(&after, &["client 2 connected: ", "client 2 ended: "]);
}

/// As on a full disk, and as after the terminal is gone.
#[test]
fn a_log_that_cannot_be_written_costs_nobody_an_answer() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for log in [&["--log-file", "/dev/full"][..], &[]] {
        let addr = free_addr();
        let child = Command::new(program())
            .args(["--addr", &addr.to_string()])
            .args(log)
            .stderr(full.try_clone().unwrap())
            .spawn();
        let mut wsecho = Program(child.unwrap());
        eventually(SOON, || TcpStream::connect(addr).is_ok());
        let mut client = open(addr);
        client.write_all(&frame(0x81, b"hi")).unwrap();
        assert_eq!(read_frame(&mut client).1, b"You have entered: hi");
        kill_process(Pid::from_child(&wsecho.0), Signal::TERM).unwrap();
        assert_eq!(read_close(&mut client), 1001);
        drop(client);
        assert!(succeeds(&mut wsecho));
    }
}

#[test]
fn probes_are_logged_at_debug_only() {
    let server = Server::start(&["-v"]);
    let probe = |request: &[u8], end: fn(&TcpStream)| {
        let mut stream = server.connect();
        let peer = stream.local_addr().unwrap().to_string();
        stream.write_all(request).unwrap();
        end(&stream);
        peer
    };
    let health_check = |request: &[u8]| {
        probe(request, |mut stream| {
            let head = common::read_head(&mut stream);
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        })
    };
    let shut = |stream: &TcpStream| stream.shutdown(Shutdown::Write).unwrap();
    let reset = |stream: &TcpStream| {
        rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
    };
    for peer in [
        probe(b"", shut),
        probe(b"", reset),
        health_check(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        health_check(b"HEAD /healthz HTTP/1.0\r\n\r\n"),
    ] {
        server.wait_for_log(&peer);
        let mut lines = server.log();
        lines.retain(|line| line.contains(&peer));
        assert!(lines.iter().all(|line| line.contains(" DEBUG] ")), "{lines:?}");
    }
}

#[test]
fn the_service_manager_is_told_when_it_is_ready_and_when_it_stops() {
    let scratch = Scratch::new("notify");
    let path = scratch.path("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    is_told_ready_and_stopping(&socket, path.to_str().unwrap());
}

#[cfg(target_os = "linux")]
#[test]
fn the_service_manager_may_listen_on_an_abstract_socket() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;
    let name = format!("wsecho-{}", std::process::id());
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let socket = UnixDatagram::bind_addr(&addr).unwrap();
    is_told_ready_and_stopping(&socket, &format!("@{name}"));
}

fn is_told_ready_and_stopping(socket: &UnixDatagram, name: &str) {
    socket.set_read_timeout(Some(SOON)).unwrap();
    let told = || {
        let mut message = [0; 100];
        let len = socket.recv(&mut message).expect("wsecho tells its state");
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let addr = free_addr();
    let child = Command::new(program())
        .args(["--addr", &addr.to_string()])
        .env("NOTIFY_SOCKET", name)
        .stderr(Stdio::null())
        .spawn();
    let mut wsecho = Program(child.unwrap());
    assert_eq!(told(), "READY=1");
    // Ready means that clients need not try again.
    let client = open(addr);
    let pid = Pid::from_child(&wsecho.0);
    kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(told(), "STOPPING=1");
    drop(client);
    assert!(succeeds(&mut wsecho));
}

#[test]
fn a_service_manager_that_is_not_there_is_worth_a_warning_and_no_more() {
    let scratch = Scratch::new("not-there");
    let mut command = Command::new(program());
    command.args(["--addr", "127.0.0.1:0"]);
    command.env("NOTIFY_SOCKET", scratch.path("socket"));
    let mut server = Server::start_command(command);
    let line = server.wait_for_log("cannot tell READY=1 to the service manager");
    assert!(line.contains(" WARN "), "{line}");
    server.answers_a_fresh_client();
    server.signal(Signal::TERM);
    assert!(server.wait(SOON).success());
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !has_program("systemd-analyze") {
        return;
    }
    let scratch = Scratch::new("unit");
    let unit = scratch.path("wsecho.service");
    fs::write(&unit, UNIT.replace("/usr/local/bin/wsecho", &program())).unwrap();
    analyze(&["verify"], &unit);
    // 1.5 of 10, where 10 is wholly exposed.
    analyze(&["security", "--offline=true", "--threshold=15"], &unit);
}

#[test]
fn the_unit_leaves_room_for_the_defaults() {
    let setting = |name: &str| {
        let line = UNIT.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.strip_prefix('=')).expect(name);
        value.trim_end_matches('s').parse::<usize>().expect(name)
    };
    let help = Command::new(program()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let default = |flag: &str| {
        let (_, about) = help.split_once(&format!("{flag} <")).expect(flag);
        let (_, value) = about.split_once("[default: ").expect(flag);
        let (value, _) = value.split_once(']').expect(flag);
        value.trim_end_matches('s').parse::<usize>().expect(flag)
    };
    // Each client has one, and the program itself needs some.
    assert!(setting("LimitNOFILE") >= default("--max-connections") + 1000);
    assert!(setting("TasksMax") >= default("--max-connections") + 1000);
    assert!(setting("TimeoutStopSec") > default("--close-timeout") + 1);
    // It would hide vm.max_map_count.
    assert!(!UNIT.lines().any(|line| line.starts_with("ProcSubset=")));
}

fn analyze(flags: &[&str], unit: &Path) {
    let found = Command::new("systemd-analyze").args(flags).arg(unit).output();
    let found = found.unwrap();
    let said = String::from_utf8_lossy(&found.stderr);
    let table = String::from_utf8_lossy(&found.stdout);
    assert!(found.status.success(), "{said}\n{table}");
    assert!(!said.contains("wsecho.service:"), "{said}");
}

/// Whether a program that was told to stop says that all went well.
fn succeeds(program: &mut Program) -> bool {
    let mut status = None;
    eventually(SOON, || {
        status = program.0.try_wait().unwrap();
        status.is_some()
    });
    status.unwrap().success()
}

/// A wsecho that is no child of the test, and is killed when this is dropped.
struct Daemon(Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has been told to stop, and need not be there any more.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

fn open(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).expect("it listens");
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(common::UPGRADE.as_bytes()).unwrap();
    let head = common::read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// Fails unless each line of `log` is a whole one, and the lines are these, in whatever order.
fn assert_events(log: &str, events: &[&str]) {
    assert!(log.ends_with('\n') && !log.contains('\0'), "{log:?}");
    for event in events {
        let times = log.lines().filter(|line| {
            let (stamp, message) = line.split_once("] ").unwrap();
            assert!(stamp.starts_with('['), "{line}");
            message.starts_with(event)
        });
        assert_eq!(times.count(), 1, "{event:?} in {log}");
    }
    let lines = log.lines().filter(|line| !line.contains(" WARN "));
    assert_eq!(lines.count(), events.len(), "{log}");
}
