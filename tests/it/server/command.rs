//! The command line of the real binary, and what it logs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::process::{Signal, geteuid};

use crate::frames::{close, frame};
use crate::support::{
    HEALTH_CHECK, Program, SOON, Server, TempDir, UPGRADE, address_in, assert_status, connect,
    copy_wsecho, eventually, free_addr, has_programs, offering, read_all, read_close, read_frame,
    read_head, refusal, skip, upgraded, wait_for_line, wsecho, wsecho_path,
};

// Flags

/// A flag, its default as the help shows it, an environment that sets it, and how that shows.
struct Flag {
    name: &'static str,
    default: &'static str,
    env: &'static [(&'static str, &'static str)],
    shows: fn(&Server),
}

/// Each needs the other.
const TLS: &[(&str, &str)] =
    &[("WSECHO_TLS_CERT", "tests/tls/ec.crt"), ("WSECHO_TLS_KEY", "tests/tls/ec.key")];

fn speaks_tls(server: &Server) {
    server.wait_for_log("listening on wss://127.0.0.1:");
    assert_status(&server.response(HEALTH_CHECK), 400);
}

const FLAGS: [Flag; 22] = [
    Flag {
        name: "--addr",
        default: "[default: 127.0.0.1:1222, or the sockets passed",
        env: &[("WSECHO_ADDR", "127.0.0.1:0, 127.0.0.2:0")],
        shows: |server| {
            let line = server.wait_for_log("listening on ");
            assert!(line.contains("ws://127.0.0.1:") && line.contains("ws://127.0.0.2:"));
        },
    },
    Flag { name: "--tls-cert", default: "", env: TLS, shows: speaks_tls },
    Flag { name: "--tls-key", default: "", env: TLS, shows: speaks_tls },
    Flag {
        name: "--max-connections",
        default: "[default: 10000]",
        env: &[("WSECHO_MAX_CONNECTIONS", "1")],
        shows: |server| {
            let _only = server.open();
            assert_status(&server.response(UPGRADE), 503);
        },
    },
    Flag {
        name: "--max-connections-per-ip",
        default: "[default: 0]",
        env: &[("WSECHO_MAX_CONNECTIONS_PER_IP", "1")],
        shows: |server| {
            let _first = server.open();
            assert_status(&server.response(UPGRADE), 503);
            server.wait_for_log("the limit of connections from one address is reached");
        },
    },
    Flag {
        name: "--origin",
        default: "[default: any]",
        env: &[("WSECHO_ORIGIN", "https://a.example:443, null")],
        shows: |server| {
            for (origin, status) in
                [("https://a.example", 101), ("null", 101), ("https://b.example", 403)]
            {
                let request = upgrade_with(&format!("Origin: {origin}"));
                assert_status(&server.last_response(request), status);
            }
        },
    },
    Flag {
        name: "--proxy-protocol",
        default: "[default: off]",
        env: &[("WSECHO_PROXY_PROTOCOL", "on")],
        shows: |server| {
            assert_status(&server.response(UPGRADE), 400);
            server.wait_for_log(" refused, no PROXY header: ");
        },
    },
    Flag {
        name: "--proxy-protocol-from",
        default: "[default: all]",
        env: &[
            ("WSECHO_PROXY_PROTOCOL", "on"),
            ("WSECHO_PROXY_PROTOCOL_FROM", "unix, 127.0.0.0/8"),
        ],
        shows: |server| assert_status(&server.response(UPGRADE), 400),
    },
    Flag {
        name: "--subprotocol",
        default: "[default: the first offered]",
        env: &[("WSECHO_SUBPROTOCOL", "soup, chat")],
        shows: |server| {
            let chat = "Sec-WebSocket-Protocol: other, chat";
            let response = server.last_response(upgrade_with(chat));
            assert!(response.contains("Sec-WebSocket-Protocol: chat\r\n"), "{response}");
        },
    },
    Flag {
        name: "--prefix",
        default: "[default: \"You have entered: \"]",
        env: &[("WSECHO_PREFIX", "> ")],
        shows: |server| assert_eq!(echo(server, b"hi"), b"> hi"),
    },
    Flag {
        name: "--behaviors",
        default: "[default: on]",
        env: &[("WSECHO_BEHAVIORS", "off")],
        shows: |server| {
            let get = "GET /do?close=4000 HTTP/1.1\r\nHost: a\r\n\r\n";
            assert_status(&server.response(get), 404);
        },
    },
    Flag {
        name: "--cases",
        default: "without it the 517",
        env: &[("WSECHO_CASES", "1.1.*, 2.1")],
        shows: |server| assert_eq!(read_frame(&mut open_at(server, "/getCaseCount")).1, b"9"),
    },
    Flag {
        name: "--exclude-cases",
        default: "",
        env: &[("WSECHO_EXCLUDE_CASES", "2.*, 10.*"), ("WSECHO_CASES", "1.1.*, 2.1")],
        shows: |server| assert_eq!(read_frame(&mut open_at(server, "/getCaseCount")).1, b"8"),
    },
    Flag {
        name: "--case-messages",
        default: "[default: 1000]",
        env: &[("WSECHO_CASE_MESSAGES", "2"), ("WSECHO_CASES", "9.7.1")],
        shows: |server| {
            let mut client = open_at(server, "/runCase?case=1&agent=a");
            for _ in 0..2 {
                let (first, message) = read_frame(&mut client);
                client.write_all(&frame(first, &message)).unwrap();
            }
            assert_eq!(read_frame(&mut client).0, 0x88);
        },
    },
    Flag {
        name: "--compression",
        default: "[default: no-context-takeover]",
        env: &[("WSECHO_COMPRESSION", "off")],
        shows: |server| {
            let response = server.last_response(offering(UPGRADE, "permessage-deflate"));
            assert_status(&response, 101);
            assert!(!response.contains("Sec-WebSocket-Extensions"), "{response}");
        },
    },
    Flag {
        name: "--max-message-size",
        default: "[default: 16MiB]",
        env: &[("WSECHO_MAX_MESSAGE_SIZE", "4")],
        shows: |server| {
            let mut client = server.open();
            client.write_all(&frame(0x81, b"five!")).unwrap();
            assert_eq!(read_close(&mut client), 1009);
        },
    },
    Flag {
        name: "--max-buffered",
        default: "[default: 1GiB]",
        env: &[("WSECHO_MAX_BUFFERED", "0")],
        shows: |server| {
            let mut client = server.open();
            client.write_all(&frame(0x02, &[0; 70_000])).unwrap();
            assert_eq!(read_close(&mut client), 1013);
        },
    },
    Flag {
        name: "--handshake-timeout",
        default: "[default: 10s]",
        env: &[("WSECHO_HANDSHAKE_TIMEOUT", "500ms")],
        shows: |server| assert_status(&server.response("GET / HTTP/1.1\r\n"), 408),
    },
    Flag {
        name: "--ping-interval",
        default: "[default: 20s]",
        env: &[("WSECHO_PING_INTERVAL", "50ms")],
        shows: |server| assert_eq!(read_frame(&mut server.open()).0, 0x89),
    },
    Flag {
        name: "--ping-timeout",
        default: "[default: 20s]",
        env: &[("WSECHO_PING_TIMEOUT", "50ms"), ("WSECHO_PING_INTERVAL", "50ms")],
        shows: |server| {
            let mut client = server.open();
            assert_eq!(read_frame(&mut client).0, 0x89);
            assert_eq!(read_close(&mut client), 1001);
        },
    },
    Flag {
        name: "--write-timeout",
        default: "[default: 30s]",
        env: &[("WSECHO_WRITE_TIMEOUT", "50ms")],
        shows: |server| {
            let mut client = server.open();
            let message = frame(0x82, &[0; 1 << 20]);
            // The buffers of both sockets hold a few of these.
            while client.write_all(&message).is_ok() {}
            server.wait_for_log("did not read");
        },
    },
    Flag {
        name: "--close-timeout",
        default: "[default: 5s]",
        env: &[("WSECHO_CLOSE_TIMEOUT", "1234ms")],
        shows: |server| {
            server.signal(Signal::TERM);
            server.wait_for_log("stopping, with 1.234s");
        },
    },
];

#[test]
fn the_help_names_every_flag_with_its_default() {
    let help = output("--help");
    assert!(help.lines().all(|line| line.chars().count() <= 100));
    // Where a line breaks is the terminal's matter.
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut flags: Vec<_> = FLAGS.iter().map(|flag| (flag.name, flag.default)).collect();
    flags.extend([("--log-file", "[default: stderr]"), ("--reports", "reports")]);
    for (flag, default) in &flags {
        let (_, about) = words.split_once(flag).expect(flag);
        let about = about.split(" --").next().unwrap();
        assert!(about.contains(default), "{flag}: {about}");
    }
    // The rule is stated once, not with each flag.
    assert!(words.contains("WSECHO_PING_INTERVAL=5s is --ping-interval 5s."), "{words}");
    assert!(words.contains("An empty variable sets nothing, except WSECHO_PREFIX."), "{words}");
    assert_eq!(words.matches("WSECHO_").count(), 2);
    let named: BTreeSet<_> =
        words.split([' ', '.']).filter(|word| word.starts_with("--")).collect();
    let known = flags.iter().map(|(flag, _)| *flag);
    assert_eq!(named, known.chain(["--verbose", "--quiet", "--help", "--version"]).collect());
}

#[test]
fn the_short_help_fits_one_screen_with_a_line_for_each_flag() {
    let output = wsecho(&["-h"]).env("COLUMNS", "80").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.lines().count() <= 50, "{help}");
    let flag = |line: &str| line.trim_start().starts_with('-');
    for line in help.lines().filter(|line| line.starts_with("  ")) {
        let is_whole = flag(line) && line.trim_start().contains("  ") && line.len() <= 80;
        assert!(is_whole, "write the first paragraph of its comment in fewer words: {line}");
    }
    let mut command = <wsecho::cli::Config as clap::CommandFactory>::command();
    command.build();
    let flags = command.get_arguments().count();
    assert_eq!(help.lines().filter(|line| flag(line)).count(), flags, "{help}");
}

#[test]
fn the_version_is_one_line() {
    let version = concat!("wsecho ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(output("--version"), version);
    assert_eq!(output("-V"), version);
}

#[test]
fn every_flag_works_through_the_environment() {
    for flag in &FLAGS {
        println!("{}", flag.name);
        let mut command = wsecho(&[]);
        command.env("WSECHO_ADDR", "127.0.0.1:0").envs(flag.env.iter().copied());
        (flag.shows)(&Server::start_command(&mut command));
    }
}

#[test]
fn a_flag_wins_over_the_environment() {
    let mut command = wsecho(&["--addr=127.0.0.1:0", "--prefix="]);
    let server = Server::start_command(command.env("WSECHO_PREFIX", "environment "));
    assert_eq!(echo(&server, b"as it is"), b"as it is");
}

// What keeps it from starting

#[test]
fn what_keeps_it_from_starting_is_said_in_one_line() {
    let server = Server::start(&[]);
    let taken = server.addr.to_string();
    let dir = TempDir::new();
    let here = dir.path("").display().to_string();
    let fifo = dir.path("fifo").display().to_string();
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let nowhere = dir.path("no/such/dir/log").display().to_string();
    for (flag, value, line) in [
        (
            "--addr",
            &taken,
            format!(
                "cannot listen on {taken}: Address already in use (os error 98); another program \
                 or --addr listens there: stop it, or choose another port with --addr"
            ),
        ),
        // No name server is asked about an empty label.
        ("--addr", &"a..b:0".into(), "cannot listen on a..b:0: failed to lookup address".into()),
        // TEST-NET-1: no machine has this address.
        (
            "--addr",
            &"192.0.2.1:0".into(),
            "cannot listen on 192.0.2.1:0: Cannot assign requested address (os error 99); this \
             machine does not have that address"
                .into(),
        ),
        (
            "--log-file",
            &nowhere,
            format!("cannot write --log-file {nowhere}: No such file or directory"),
        ),
        ("--log-file", &here, format!("cannot write --log-file {here}: Is a directory")),
        (
            "--log-file",
            &fifo,
            format!("cannot write --log-file {fifo}: no process reads this FIFO; start its reader"),
        ),
    ] {
        let (status, text) = refusal(&mut wsecho(&[&format!("{flag}={value}")]));
        assert_eq!(status, Some(1), "{text}");
        assert!(text.starts_with(&format!("wsecho: {line}")), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_keeps_it_from_starting_shows_in_the_exit_status_if_it_can_be_said_nowhere() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut program = Program::start(wsecho(&["--addr=192.0.2.1:0"]).stderr(full));
    assert_eq!(program.wait(SOON).code(), Some(1));
}

#[test]
fn a_wrong_command_line_is_refused_in_one_line_and_the_usage() {
    for (flag, line) in [
        ("--addr=1222", "invalid value '1222' for '--addr <HOST:PORT>': expected HOST:PORT, for"),
        (
            "--addr=*:1222",
            "invalid value '*:1222' for '--addr <HOST:PORT>': expected a host; all addresses are \
             0.0.0.0:1222 or [::]:1222",
        ),
        (
            "--origin=https://*.a.example",
            "invalid value 'https://*.a.example' for '--origin <ORIGIN>': expected a whole host, \
             since wildcards match nothing: repeat --origin for each host",
        ),
        (
            "--origin=https://me@a.example",
            "invalid value 'https://me@a.example' for '--origin <ORIGIN>': expected an origin \
             without user information: https://a.example",
        ),
        (
            "--max-message-size=0",
            "invalid value '0' for '--max-message-size <SIZE>': expected a size",
        ),
        ("--colour", "unexpected argument '--colour' found"),
        ("1222", "unexpected argument '1222' found"),
    ] {
        let (status, text) = refusal(&mut wsecho(&[flag]));
        assert_eq!(status, Some(2), "{text}");
        assert!(text.starts_with(&format!("error: {line}")), "{text}");
        let mut more = text.lines().skip(1).filter(|line| !line.is_empty());
        let is_usual = |line: &str| line.starts_with("Usage: ") || line.starts_with("For more");
        assert!(more.all(is_usual), "{text}");
    }
}

#[test]
fn what_other_servers_call_the_address_leads_to_its_flag() {
    for flags in [&["--port", "1300"][..], &["--port=1300"], &["-p", "1300"], &["--bind=::"]] {
        let (status, text) = refusal(&mut wsecho(flags));
        assert_eq!(status, Some(2));
        assert!(text.contains("similar argument exists: '--addr'\n"), "{text}");
        assert!(text.contains("\nUsage: wsecho [OPTIONS]\n"), "{text}");
    }
    let (_, text) = refusal(&mut wsecho(&["--max-conections=1"]));
    assert!(text.contains("similar argument exists: '--max-connections'\n"), "{text}");
}

#[test]
fn an_error_from_the_environment_names_the_variable() {
    let no_utf8 = OsStr::from_bytes(b"\xFF");
    for (variable, value, line) in [
        (
            "WSECHO_WRITE_TIMEOUT",
            "30".as_ref(),
            "invalid value '30' for 'WSECHO_WRITE_TIMEOUT': expected a time with its unit",
        ),
        (
            "WSECHO_ORIGIN",
            "null, *".as_ref(),
            "invalid value ' *' for 'WSECHO_ORIGIN': expected SCHEME://HOST",
        ),
        // Without the carriage return, which would hide the rest on a terminal.
        (
            "WSECHO_PING_TIMEOUT",
            "5\r".as_ref(),
            "invalid value '5' for 'WSECHO_PING_TIMEOUT': expected a time with its unit",
        ),
        ("WSECHO_TLS_CERT", "cert.pem".as_ref(), "the following required arguments were not"),
        ("WSECHO_PREFIX", no_utf8, "WSECHO_PREFIX is not UTF-8"),
    ] {
        let (status, text) = refusal(wsecho(&[]).env(variable, value));
        assert_eq!(status, Some(2));
        assert!(text.starts_with(&format!("error: {line}")), "{text}");
    }
    // A flag's own error does not, whatever is in the environment.
    let (_, text) = refusal(
        wsecho(&["--prefix=", "--ping-timeout=1"])
            .envs([("WSECHO_PING_TIMEOUT", "2"), ("WSECHO_PING_INTERVAL", "3")]),
    );
    assert!(text.starts_with("error: invalid value '1' for '--ping-timeout <TIME>'"), "{text}");
    // A variable is not parsed if its flag is given.
    let mut command = wsecho(&["--addr=127.0.0.1:0", "--ping-timeout=1s"]);
    Server::start_command(command.env("WSECHO_PING_TIMEOUT", "2")).answers_at_once();
}

#[test]
fn each_half_of_a_pair_may_be_a_flag_or_a_variable() {
    let mut command = wsecho(&["--addr=127.0.0.1:0", "--tls-key=tests/tls/ec.key"]);
    speaks_tls(&Server::start_command(command.env("WSECHO_TLS_CERT", "tests/tls/ec.crt")));
}

#[test]
fn an_empty_variable_sets_nothing_but_an_empty_prefix() {
    let mut command = wsecho(&[]);
    let variables = FLAGS.iter().flat_map(|flag| flag.env).map(|(variable, _)| (variable, ""));
    command.envs(variables).envs([("WSECHO_LOG_FILE", ""), ("WSECHO_ADDR", "127.0.0.1:0")]);
    let server = Server::start_command(&mut command);
    assert_eq!(echo(&server, b"as it is"), b"as it is");
    assert!(!server.log().concat().contains(" WARN "), "{:?}", server.log());
}

#[test]
fn a_variable_from_a_file_with_windows_line_endings_has_the_value_of_its_line() {
    for flag in &FLAGS {
        println!("{}", flag.name);
        let mut command = wsecho(&[]);
        command.env("WSECHO_ADDR", "127.0.0.1:0\r");
        command.envs(flag.env.iter().map(|(variable, value)| (variable, format!("{value}\r"))));
        (flag.shows)(&Server::start_command(&mut command));
    }
    let mut command = wsecho(&[]);
    command.env("RUST_LOG", "warn\r");
    assert_eq!(levels_logged(command), BTreeSet::from(["WARN".into()]));
}

#[test]
fn a_variable_that_no_flag_reads_is_warned_about() {
    let mut command = wsecho(&[]);
    let server = Server::start_command(command.envs([
        ("WSECHO_ADDR", "127.0.0.1:0"),
        ("WSECHO_MAX_CONECTIONS", "1"),
        ("WSECHO_PORT", "1300"),
        ("WSECHO_VERBOSE", "1"),
        ("WSECHO_TLS_PORT", "443"),
        ("OTHER_PORT", "1"),
    ]));
    let log = server.log();
    let warnings = log.iter().filter_map(|line| line.split_once(" WARN ] "));
    let mut warnings: Vec<_> = warnings.map(|(_, warning)| warning).collect();
    warnings.sort_unstable();
    assert_eq!(
        warnings,
        [
            "unknown environment variable WSECHO_MAX_CONECTIONS; did you mean WSECHO_MAX_CONNECTIONS?",
            "unknown environment variable WSECHO_PORT; did you mean WSECHO_ADDR?",
            "unknown environment variable WSECHO_TLS_PORT; did you mean WSECHO_TLS_CERT?",
            "unknown environment variable WSECHO_VERBOSE",
        ]
    );
}

#[test]
fn what_kubernetes_sets_for_a_service_is_no_setting() {
    for service in ["WSECHO", "WSECHO_TLS", "WSECHO_ADDR", "WSECHO_MAX_CONNECTIONS"] {
        let mut command = wsecho(&["--addr=127.0.0.1:0"]);
        for (variable, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "443"),
            ("SERVICE_PORT_HTTPS", "443"),
            ("PORT", "tcp://10.0.0.1:443"),
            ("PORT_443_TCP", "tcp://10.0.0.1:443"),
            ("PORT_443_TCP_PROTO", "tcp"),
            ("PORT_443_TCP_PORT", "443"),
            ("PORT_443_TCP_ADDR", "10.0.0.1"),
        ] {
            command.env(format!("{service}_{variable}"), value);
        }
        let server = Server::start_command(&mut command);
        assert!(!server.log().concat().contains(" WARN "), "{:?}", server.log());
    }
}

// The log

#[test]
fn the_first_line_says_where_it_listens_and_where_the_page_is() {
    let mut flags = vec!["--addr=127.0.0.2:0", "--addr=localhost:0"];
    if TcpListener::bind("[::1]:0").is_ok() {
        flags.push("--addr=[::1]:0");
    } else {
        skip("this machine has no IPv6");
    }
    let server = Server::start(&flags);
    let line = server.log().remove(0);
    let (sockets, pages) = line.split_once(", page at ").expect("the page is named");
    let (_, sockets) = sockets.split_once("listening on ").unwrap();
    let sockets: Vec<_> = sockets.split(' ').collect();
    assert_eq!(sockets.len(), 1 + flags.len());
    for (socket, page) in sockets.into_iter().zip(pages.split(' ')) {
        assert_eq!(socket.replace("ws:", "http:"), page);
        let addr = address_in(socket);
        assert!(addr.ip().is_loopback() && addr.port() != 0, "{socket}");
        let (mut client, _) = tungstenite::connect(socket).expect("a WebSocket opens");
        client.send("hi".into()).unwrap();
        assert_eq!(client.read().unwrap(), "You have entered: hi".into());
    }
}

#[test]
fn for_all_addresses_the_page_is_where_a_browser_finds_it() {
    let server = Server::start_command(&mut wsecho(&["--addr=0.0.0.0:0"]));
    let port = server.addr.port();
    server.wait_for_log(&format!(
        "listening on ws://0.0.0.0:{port}/, page at http://127.0.0.1:{port}/"
    ));
}

#[test]
fn an_ipv6_address_may_have_a_scope() {
    let Some(mut command) = in_a_network_of_its_own("ip -6 addr add fe80::1/64 dev lo nodad")
    else {
        return;
    };
    let server = Server::start_command(command.arg("--addr=[fe80::1%lo]:0"));
    server.wait_for_log("listening on ws://[fe80::1%1]:");
}

#[test]
fn where_ipv6_is_off_the_page_is_at_an_ipv4_address() {
    let off = "echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6";
    let Some(mut command) = in_a_network_of_its_own(off) else { return };
    let server = Server::start_command(command.arg("--addr=[::]:0"));
    server.wait_for_log("page at http://127.0.0.1:");
}

/// wsecho with a loopback of its own, after `script` has run there as root.
fn in_a_network_of_its_own(script: &str) -> Option<Command> {
    if !has_programs(&["unshare", "ip"]) {
        return None;
    }
    let is_allowed =
        Command::new("unshare").args(["-rn", "ip", "link", "set", "lo", "up"]).status();
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    if !is_allowed.is_ok_and(|status| status.success()) || !has_ipv6 {
        skip("this machine allows no network namespace, or has no IPv6");
        return None;
    }
    let script = format!(r#"ip link set lo up && {script} && exec "$0" "$@""#);
    let mut command = Command::new("unshare");
    command.args(["-rn", "sh", "-c", &script, &wsecho_path()]);
    Some(command)
}

/// NO_COLOR (no-color.org), and TERM=dumb.
#[test]
fn a_terminal_gets_colors_unless_it_or_the_user_wants_none() {
    if !has_programs(&["script"]) {
        return;
    }
    for (term, no_color, is_colored) in [
        ("xterm", None, true),
        ("xterm", Some(""), true),
        ("xterm", Some("1"), false),
        ("dumb", None, false),
        ("", None, false),
    ] {
        let mut command = Command::new("script");
        command.args(["-qfec", &format!("{} --addr 127.0.0.1:0", wsecho_path()), "/dev/null"]);
        command.env("TERM", term).env_remove("NO_COLOR").env_remove("RUST_LOG");
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        let mut program = Program::start(command.stdout(Stdio::piped()));
        let mut lines = BufReader::new(program.0.stdout.take().unwrap()).lines();
        let line = lines.find(|line| line.as_ref().unwrap().contains("listening on")).unwrap();
        let line = line.unwrap();
        assert_eq!(line.contains('\x1b'), is_colored, "{term:?}, {no_color:?}: {line:?}");
    }
}

#[test]
fn the_log_has_the_level_that_is_asked_for() {
    const WARN: &[&str] = &["WARN"];
    const INFO: &[&str] = &["INFO", "WARN"];
    const DEBUG: &[&str] = &["DEBUG", "INFO", "WARN"];
    for (flags, rust_log, levels) in [
        (&[][..], None, INFO),
        (&["-v"], None, DEBUG),
        (&["-v", "-v"], None, DEBUG),
        (&["-q"], None, WARN),
        (&["-qq"], None, &[]),
        (&[], Some("debug"), DEBUG),
        (&[], Some("wsecho=warn"), WARN),
        (&[], Some("off"), &[]),
        (&["-q"], Some("debug"), WARN),
        (&["-v"], Some("off"), DEBUG),
        (&["-v", "-q"], None, INFO),
    ] {
        let mut command = wsecho(flags);
        command.envs(rust_log.map(|value| ("RUST_LOG", value)));
        let levels = levels.iter().map(|&level| level.into()).collect();
        assert_eq!(levels_logged(command), levels, "{flags:?}, RUST_LOG={rust_log:?}");
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn an_allocator_that_can_not_be_tuned_is_logged_at_debug_with_the_reason() {
    let start = |program: &[&OsStr], tunables: &[u8]| {
        let mut command = wsecho(&[]);
        if let [loader, arguments @ ..] = program {
            command = Command::new(loader);
            command.args(arguments);
        }
        command.env("GLIBC_TUNABLES", OsStr::from_bytes(tunables));
        let server = Server::start_command(command.args(["-v", "--addr", "127.0.0.1:0"]));
        let line = server.log().into_iter().find(|line| line.contains("the allocator "));
        line.map(|line| line.split_once("] ").unwrap().1.to_owned())
    };
    assert_eq!(start(&[], b""), None);
    let untuned = |why: &str| Some(format!("the allocator is not tuned: {why}"));
    assert_eq!(start(&[], b"\xFF"), untuned("GLIBC_TUNABLES is not UTF-8"));
    let dir = TempDir::new();
    let link = dir.path("echo");
    symlink(fs::canonicalize(wsecho_path()).unwrap(), &link).unwrap();
    assert_eq!(start(&[link.as_os_str()], b""), None);

    // Started by its loader, it would start the loader instead of itself.
    let program = wsecho_path();
    let loader = loader(&program);
    let why = format!("{} was started as {program}", fs::canonicalize(&loader).unwrap().display());
    assert_eq!(start(&[OsStr::new(&loader), OsStr::new(&program)], b""), untuned(&why));

    // glibc takes no tunables from the one who starts a program with another user's rights.
    if geteuid().is_root() {
        let copy = dir.path("wsecho");
        copy_wsecho(&copy);
        chown(&copy, Some(65_534), None).unwrap();
        fs::set_permissions(&copy, Permissions::from_mode(0o4755)).unwrap();
        fs::set_permissions(dir.path(""), Permissions::from_mode(0o755)).unwrap();
        let why = "GLIBC_TUNABLES was lost, as in a program with capabilities";
        assert_eq!(start(&[copy.as_os_str()], b""), untuned(why));
    }
}

/// The loader that the head of `program` names (PT_INTERP).
fn loader(program: &str) -> String {
    let bytes = fs::read(program).unwrap();
    let text = String::from_utf8_lossy(&bytes[..4096]);
    text.split('\0').find(|text| text.starts_with("/lib")).unwrap().to_owned()
}

/// The levels of all lines of a run that logs at most levels.
fn levels_logged(mut command: Command) -> BTreeSet<String> {
    let addr = free_addr();
    // More than any kernel carries, for a warning.
    command.args(["--max-connections", &usize::MAX.to_string(), "--addr", &addr.to_string()]);
    let mut program = Program::start(command.stderr(Stdio::piped()));
    eventually(SOON, || TcpStream::connect(addr).is_ok());
    let mut probe = connect(addr);
    probe.write_all(HEALTH_CHECK.as_bytes()).unwrap();
    assert_status(&read_all(probe), 200);
    program.signal(Signal::TERM);
    assert!(program.wait(SOON).success());
    let level = |line: &str| line.split(']').next()?.split_whitespace().nth(1).map(str::to_owned);
    program.stderr().lines().map(|line| level(line).unwrap()).collect()
}

#[test]
fn the_log_file_is_created_and_holds_the_whole_log() {
    let dir = TempDir::new();
    let file = dir.path("wsecho.log");
    let mut command = wsecho(&["--addr=127.0.0.1:0"]);
    command.env("WSECHO_LOG_FILE", &file).stderr(Stdio::piped());
    let mut program = Program::start(&mut command);
    wait_for_line(&file, " INFO ] listening on ws://127.0.0.1:");
    program.signal(Signal::TERM);
    assert!(program.wait(SOON).success());
    wait_for_line(&file, "stopped: ");
    assert_eq!(program.stderr(), "");
}

#[test]
fn a_log_file_may_be_the_standard_error_or_output_by_name() {
    for name in ["-", "/dev/stderr", "/proc/self/fd/2"] {
        Server::start(&["--log-file", name]).wait_for_log("listening on ");
    }
    for name in ["/dev/stdout", "/dev/fd/1"] {
        // A socket can't be opened by its name, and service managers and Node.js give one.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = wsecho(&["--addr=127.0.0.1:0", "--log-file", name]);
        let _program = Program::start(command.stdout(OwnedFd::from(theirs)).stderr(Stdio::piped()));
        drop(command);
        let line = BufReader::new(ours).lines().next().expect("a line is logged").unwrap();
        assert!(line.contains("listening on "), "{line}");
    }
}

#[test]
fn a_client_has_two_lines_in_the_log() {
    let server = Server::start(&[]);
    let mut client = server.open();
    let peer = client.local_addr().unwrap();
    let connected = server.wait_for_log(" connected: ");
    let expected = format!(r#" INFO ] client 1 connected: {peer}, path "/chat""#);
    assert!(connected.ends_with(&expected), "{connected}");

    let sent = [
        frame(0x81, b"hello"),
        frame(0x01, b"in two "),
        frame(0x80, b"pieces"),
        frame(0x82, &[0; 300]),
        frame(0x89, b"ping"),
        frame(0x88, b"\x0F\xA0done"),
    ]
    .concat();
    client.write_all(&sent).unwrap();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    let ended = server.wait_for_log(" ended: ");
    let expected = format!(
        " INFO ] client 1 ended: closed by peer, 4000 \"done\"; 3 messages, {} bytes in, {} bytes out, ",
        sent.len(),
        received.len()
    );
    let (_, seconds) = ended.split_once(&expected).unwrap_or_else(|| panic!("{ended}"));
    let seconds: f64 = seconds.strip_suffix(" s").unwrap().parse().unwrap();
    assert!(seconds < SOON.as_secs_f64());

    // The next client is logged after all lines about the first.
    echo(&server, b"hi");
    server.wait_for_log("client 2 ended: ");
    let mut log = server.log();
    log.retain(|line| line.contains("client 1"));
    assert_eq!(log, [connected, ended]);
}

#[test]
fn the_log_says_what_is_compressed_and_how_well() {
    const AGREED: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    let server = Server::start(&["-v", "--prefix="]);
    let mut stream = server.send(offering(UPGRADE, "permessage-deflate"));
    let head = read_head(&mut stream);
    assert!(head.contains(&format!("\r\nSec-WebSocket-Extensions: {AGREED}\r\n")), "{head}");
    server.wait_for_log(&format!(", path \"/chat\", {AGREED}"));
    // The size that zlib gives sixteen letters.
    stream.write_all(&frame(0xC1, &[0x4A, 0x4C, 0x44, 0x05, 0x00, 0x00])).unwrap();
    let (first, reply) = read_frame(&mut stream);
    assert_eq!(first, 0xC1);
    server.wait_for_log(" Text of 16 bytes, 6 compressed, \"aaaaaaaaaaaaaaaa\"");
    stream.write_all(&close(1000)).unwrap();
    assert_eq!(read_close(&mut stream), 1000);
    let ended = server.wait_for_log(" ended: ");
    let percent = 100 * (6 + reply.len()) / 32;
    assert!(ended.ends_with(&format!(" s, compressed to {percent} %")), "{ended}");

    server.send(offering(UPGRADE, "permessage-deflate; x=1"));
    server.wait_for_log(", permessage-deflate declined: parameter \"x\" is unknown");
}

#[test]
fn the_log_says_who_ended_a_conversation_and_why() {
    let server = Server::start(&["--max-message-size", "100"]);
    for (index, (sent, end)) in [
        (close(1000), "closed by peer, 1000"),
        (frame(0x88, b""), "closed by peer, no code"),
        (frame(0x83, b""), r#"closed by server, 1002 "reserved opcode""#),
        (frame(0x81, b"\xFF"), r#"closed by server, 1007 "text is not UTF-8""#),
        (
            frame(0x81, &[b'x'; 101]),
            r#"closed by server, 1009 "message of at least 101 bytes is over the limit of 100", not answered"#,
        ),
        (frame(0x81, b"bye"), "peer ended the stream without a close frame"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = server.open();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        let line = server.wait_for_log(&format!("client {} ended: ", index + 1));
        assert!(line.contains(&format!(" ended: {end}; ")), "{line}");
    }
}

#[test]
fn what_a_client_sends_is_logged_at_debug_only_escaped_and_shortened() {
    let words = format!("one\nline \x1b[31m {}", "x".repeat(1000));
    let quiet = Server::start(&[]);
    echo(&quiet, words.as_bytes());
    quiet.wait_for_log(" ended: ");
    assert!(!quiet.log().concat().contains("xxx"), "{:#?}", quiet.log());

    let verbose = Server::start(&["-v"]);
    echo(&verbose, words.as_bytes());
    let line = verbose.wait_for_log(r"one\nline \u{1b}[31m xxx");
    assert!(line.contains("DEBUG] client 1: Text of 1015 bytes, \"one"), "{line}");
    assert!(line.ends_with("xxx\"…") && line.len() < 300, "{line}");
}

/// What wsecho prints about itself.
fn output(flag: &str) -> String {
    let output = wsecho(&[flag]).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

/// The reply to a text message, over a connection of its own.
fn echo(server: &Server, text: &[u8]) -> Vec<u8> {
    let mut client = server.open();
    client.write_all(&frame(0x81, text)).unwrap();
    let (first, reply) = read_frame(&mut client);
    assert_eq!(first, 0x81);
    reply
}

/// A WebSocket at this path.
fn open_at(server: &Server, path: &str) -> TcpStream {
    upgraded(server.send(UPGRADE.replace("/chat", path))).expect("a WebSocket opens")
}

/// An upgrade request with one more header.
fn upgrade_with(header: &str) -> String {
    UPGRADE.replace("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"))
}
