//! wsecho as a background daemon: under nohup, logrotate, health checks and systemd.

use std::fs;
use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    HEALTH_CHECK, Program, SOON, Server, TempDir, address_in, ask, assert_echoes, assert_status,
    connect, eventually, free_addr, has_programs, read_close, read_head, reset, wait_for_line,
    wsecho, wsecho_path,
};

const UNIT: &str = include_str!("../../../packaging/systemd/wsecho.service");
const SOCKET_UNIT: &str = include_str!("../../../packaging/systemd/wsecho.socket");

// nohup and the log

#[test]
fn under_nohup_it_survives_the_hang_up_and_appends_to_its_log() {
    let dir = TempDir::new();
    let log = dir.path("wsecho.log");
    fs::write(&log, "a line from an earlier run\n").unwrap();
    // The shell ends at once, as it does when someone logs out.
    let nohup = r#"nohup "$0" --addr 127.0.0.1:0 --log-file wsecho.log & echo $!"#;
    let shell = Command::new("sh")
        .args(["-c", nohup, &wsecho_path()])
        .current_dir(dir.path(""))
        .env_remove("RUST_LOG")
        // A pipe that the daemon keeps open would block this read.
        .stderr(Stdio::null())
        .stdout(fs::File::create(dir.path("pid")).unwrap())
        .status();
    assert!(shell.unwrap().success());
    let pid = fs::read_to_string(dir.path("pid")).unwrap();
    let daemon = Daemon(Pid::from_raw(pid.trim().parse().unwrap()).unwrap());
    let addr = address_in(&wait_for_line(&log, "listening on "));

    let mut client = ask(connect(addr)).unwrap();
    kill_process(daemon.0, Signal::HUP).unwrap();
    assert_echoes(&mut client, "still there?");
    let mut later = ask(connect(addr)).unwrap();
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
            "stopped: 2 clients, 0 aborted",
        ],
    );
}

/// A wsecho that is no child of the test, and is killed when this is dropped.
struct Daemon(Pid);

impl Drop for Daemon {
    fn drop(&mut self) {
        // It was stopped, and has usually exited.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

#[test]
fn without_nohup_a_hang_up_ends_it_as_any_program() {
    // These tests may run under nohup themselves.
    let mut command = Command::new("env");
    command.args(["--default-signal=HUP", &wsecho_path(), "--addr", "127.0.0.1:0"]);
    let mut server = Server::start_command(&mut command);
    server.signal(Signal::HUP);
    assert_eq!(server.wait(SOON).signal(), Some(Signal::HUP.as_raw()));
}

#[test]
fn the_log_goes_on_without_a_hole_after_logrotate_has_copied_and_truncated_it() {
    if !has_programs(&["logrotate"]) {
        return;
    }
    let dir = TempDir::new();
    let log = dir.path("wsecho.log");
    let rules = include_str!("../../../packaging/logrotate.conf");
    let rules = rules.replace("/var/log/wsecho.log", log.to_str().unwrap());
    fs::write(dir.path("conf"), rules).unwrap();

    let server = Server::start_logging_to(&log, &[]);
    server.answers_at_once();
    wait_for_line(&log, "client 1 ended: ");
    let before = fs::read_to_string(&log).unwrap();
    let rotated = Command::new("logrotate")
        .arg("--force")
        .arg("--state")
        .args([dir.path("state"), dir.path("conf")])
        .output()
        .unwrap();
    assert!(rotated.status.success(), "{rotated:?}");
    server.answers_at_once();
    wait_for_line(&log, "client 2 ended: ");

    assert_eq!(fs::read_to_string(dir.path("wsecho.log.1")).unwrap(), before);
    let after = fs::read_to_string(&log).unwrap();
    assert_events(&after, &["client 2 connected: ", "client 2 ended: "]);
}

/// Fails unless `log` has exactly these lines, all whole, in any order.
fn assert_events(log: &str, events: &[&str]) {
    assert!(log.ends_with('\n') && !log.contains('\0'), "{log:?}");
    let lines: Vec<_> = log.lines().filter(|line| !line.contains(" WARN ")).collect();
    for event in events {
        let count = lines.iter().filter(|line| {
            let (stamp, message) = line.split_once("] ").unwrap();
            assert!(stamp.starts_with('['), "{line}");
            message.starts_with(event)
        });
        assert_eq!(count.count(), 1, "{event:?} in {log}");
    }
    assert_eq!(lines.len(), events.len(), "{log}");
}

/// As on a full disk, and as after the terminal is gone.
#[test]
fn a_log_that_cannot_be_written_costs_nobody_an_answer() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for log in [&["--log-file", "/dev/full"][..], &[]] {
        let addr = free_addr();
        let mut command = wsecho(&["--addr", &addr.to_string()]);
        let command = command.args(log).stderr(full.try_clone().unwrap());
        let mut program = Program::start(command);
        eventually(SOON, || TcpStream::connect(addr).is_ok());
        let mut client = ask(connect(addr)).unwrap();
        assert_echoes(&mut client, "hi");
        program.signal(Signal::TERM);
        assert_eq!(read_close(&mut client), 1001);
        drop(client);
        assert!(program.wait(SOON).success());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_log_file_that_fills_up_is_reported_on_stderr_and_goes_on_when_there_is_room() {
    let dir = TempDir::new();
    let log = dir.path("wsecho.log");
    // A file may have 512 bytes. To write more is an error like any other, not the end of the process.
    let script = r#"ulimit -f 1; exec "$0" --addr "$1" --log-file "$2""#;
    let addr = free_addr().to_string();
    let mut command = Command::new("sh");
    command.args(["-c", script, &wsecho_path(), &addr, log.to_str().unwrap()]);
    let mut server = Server::start_command_logging_to(&log, command.stderr(Stdio::piped()));
    let visit = || {
        assert_status(&server.response("GET /nothing HTTP/1.0\r\n\r\n"), 404);
        // Its line is written, or lost.
        server.wait_until_asleep();
    };
    eventually(SOON, || {
        visit();
        fs::metadata(&log).unwrap().len() == 512
    });
    let before = fs::read_to_string(&log).unwrap();
    assert!(!before.ends_with('\n'), "{before}");
    visit();
    // Whatever frees the space.
    fs::write(&log, "").unwrap();
    visit();
    let after = fs::read_to_string(&log).unwrap();
    let is_reported = |line: &str| line.contains(" WARN ] ") && line.ends_with(" lost");
    assert!(after.starts_with("\n[") && after.lines().any(is_reported), "{after}");
    server.stop();
    let complaint = format!(
        "wsecho: cannot write --log-file {}: File too large (os error 27); its lines are lost\n",
        log.display()
    );
    let stderr = server.program.stderr();
    assert!(stderr.starts_with(&complaint), "{stderr}");
    // It may have filled up again.
    assert!(stderr.matches(&complaint).count() <= 2, "{stderr}");
}

#[test]
fn what_is_requested_again_and_again_is_logged_at_debug_only() {
    type Ending = fn(TcpStream);
    let end: Ending = |stream| stream.shutdown(Shutdown::Write).unwrap();
    let read: Ending = |mut stream| assert_status(&read_head(&mut stream), 200);
    let server = Server::start(&["-v"]);
    for (request, ending, logged) in [
        ("", end, "sent no request"),
        ("", reset, "sent no request"),
        (HEALTH_CHECK, read, r#", path "/healthz": 200 OK"#),
        ("HEAD /healthz HTTP/1.0\r\n\r\n", read, r#", path "/healthz": 200 OK"#),
        (
            "GET /reports/agents.json HTTP/1.0\r\n\r\n",
            read,
            r#", path "/reports/agents.json": 200 OK"#,
        ),
    ] {
        let mut stream = server.connect();
        let peer = stream.local_addr().unwrap().to_string();
        stream.write_all(request.as_bytes()).unwrap();
        ending(stream);
        let line = server.wait_for_log(&peer);
        assert!(line.contains(" DEBUG] ") && line.ends_with(logged), "{line}");
    }
    server.answers_at_once();
    server.wait_for_log("client 1 ended: ");
    let log = server.log();
    assert_eq!(log.iter().filter(|line| line.contains(" INFO ")).count(), 3, "{log:#?}");
}

// systemd

#[test]
fn the_service_manager_is_notified_when_it_is_ready_and_when_it_stops() {
    let dir = TempDir::new();
    let path = dir.path("socket");
    assert_notifies(&UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap());
}

#[cfg(target_os = "linux")]
#[test]
fn the_service_manager_may_listen_on_an_abstract_socket() {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::SocketAddr;
    let name = format!("wsecho-{}", std::process::id());
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    assert_notifies(&UnixDatagram::bind_addr(&addr).unwrap(), &format!("@{name}"));
}

fn assert_notifies(socket: &UnixDatagram, name: &str) {
    socket.set_read_timeout(Some(SOON)).unwrap();
    let notification = || {
        let mut message = [0; 100];
        let len = socket.recv(&mut message).expect("wsecho notifies");
        String::from_utf8_lossy(&message[..len]).into_owned()
    };
    let addr = free_addr();
    let mut command = wsecho(&["--addr", &addr.to_string()]);
    let mut program = Program::start(command.env("NOTIFY_SOCKET", name).stderr(Stdio::null()));
    assert_eq!(notification(), "READY=1");
    // Ready means that a client need not try twice.
    let client = ask(connect(addr)).unwrap();
    program.signal(Signal::TERM);
    assert_eq!(notification(), "STOPPING=1");
    drop(client);
    assert!(program.wait(SOON).success());
}

#[test]
fn a_service_manager_that_is_gone_costs_a_warning_and_no_more() {
    let dir = TempDir::new();
    let mut command = wsecho(&["--addr=127.0.0.1:0"]);
    let mut server = Server::start_command(command.env("NOTIFY_SOCKET", dir.path("socket")));
    let line = server.wait_for_log("cannot send READY=1 to the service manager");
    assert!(line.contains(" WARN "), "{line}");
    server.answers_at_once();
    server.stop();
}

#[test]
fn an_empty_variable_names_no_service_manager() {
    let mut command = wsecho(&["--addr=127.0.0.1:0"]);
    let mut server = Server::start_command(command.env("NOTIFY_SOCKET", ""));
    server.stop();
    server.wait_for_log("stopped: ");
    assert!(
        !server.log().iter().any(|line| line.contains("service manager")),
        "{:?}",
        server.log()
    );
}

#[test]
fn a_service_manager_that_reads_nothing_holds_up_neither_the_start_nor_the_stop() {
    let dir = TempDir::new();
    let _manager = UnixDatagram::bind(dir.path("socket")).unwrap();
    let other = UnixDatagram::unbound().unwrap();
    other.set_nonblocking(true).unwrap();
    while other.send_to(b"RELOADING=1", dir.path("socket")).is_ok() {}
    let mut command = wsecho(&["--addr=127.0.0.1:0"]);
    let mut server = Server::start_command(command.env("NOTIFY_SOCKET", dir.path("socket")));
    server.answers_at_once();
    server.wait_for_log("cannot send READY=1 to the service manager");
    server.stop();
    server.wait_for_log("cannot send STOPPING=1 to the service manager");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !has_programs(&["systemd-analyze"]) {
        return;
    }
    let dir = TempDir::new();
    let unit = dir.path("wsecho.service");
    fs::write(&unit, UNIT.replace("ExecStart=wsecho", &format!("ExecStart={}", wsecho_path())))
        .unwrap();
    fs::write(dir.path("wsecho.socket"), SOCKET_UNIT).unwrap();
    analyze(&["verify"], &unit);
    analyze(&["verify"], &dir.path("wsecho.socket"));
    // 1.5 of 10. 10 is fully exposed.
    analyze(&["security", "--offline=true", "--threshold=15"], &unit);
}

fn analyze(flags: &[&str], unit: &Path) {
    let output = Command::new("systemd-analyze").args(flags).arg(unit).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{errors}\n{table}");
    assert!(!errors.contains("wsecho.service:"), "{errors}");
    assert!(!errors.contains("wsecho.socket:"), "{errors}");
}

#[test]
fn the_unit_passes_no_flag_so_that_each_can_be_set_in_the_environment() {
    assert!(UNIT.lines().any(|line| line == "ExecStart=wsecho"));
    assert!(!UNIT.lines().any(|line| line.starts_with("Environment")));
}

#[test]
fn the_unit_leaves_room_for_the_defaults() {
    let setting = |name: &str| {
        let line = UNIT.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.strip_prefix('=')).expect(name);
        value.trim_end_matches('s').parse::<usize>().expect(name)
    };
    let config = <wsecho::cli::Config as clap::Parser>::parse_from(["wsecho"]);
    let max_connections = config.listening.max_connections.get();
    // Each client has one, and the program itself needs some.
    assert!(setting("LimitNOFILE") >= max_connections + 1000);
    assert!(setting("TasksMax") >= max_connections + 1000);
    assert!(setting("TimeoutStopSec") as u64 > config.timeouts.close_timeout.as_secs() + 1);
    // It would hide vm.max_map_count.
    assert!(!UNIT.lines().any(|line| line.starts_with("ProcSubset=")));
}
