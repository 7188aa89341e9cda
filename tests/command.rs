//! The command line of the real binary: what it says, what it takes, and how it refuses.

mod common;

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Command, Stdio};

use rustix::process::Signal;

use common::{
    Program, SOON, Scratch, Server, UPGRADE, address_in, close, eventually, frame, free_addr,
    program, read_close, read_frame, read_head, wait_for_line,
};

/// A flag, its default as the help shows it, an environment that sets it, and how that shows.
struct Flag {
    name: &'static str,
    default: &'static str,
    env: &'static [(&'static str, &'static str)],
    shows: fn(&Server),
}

const FLAGS: [Flag; 13] = [
    Flag {
        name: "--addr",
        default: "[default: 127.0.0.1:1222]",
        env: &[("WSECHO_ADDR", "127.0.0.1:0,127.0.0.2:0")],
        shows: |server| {
            let line = server.wait_for_log("listening on ");
            assert!(line.contains("ws://127.0.0.1:") && line.contains("ws://127.0.0.2:"));
        },
    },
    Flag {
        name: "--max-connections",
        default: "[default: 10000]",
        env: &[("WSECHO_MAX_CONNECTIONS", "1")],
        shows: |server| {
            let _seated = server.open();
            assert_status(&server.answer(UPGRADE.as_bytes()), 503);
        },
    },
    Flag {
        name: "--origin",
        default: "[default: any]",
        env: &[("WSECHO_ORIGIN", "https://a.example,null")],
        shows: |server| {
            for (origin, status) in
                [("https://a.example", 101), ("null", 101), ("https://b.example", 403)]
            {
                let head = head_of_answer(server, &format!("Origin: {origin}"));
                assert_status(&head, status);
            }
        },
    },
    Flag {
        name: "--subprotocol",
        default: "[default: the first that is offered]",
        env: &[("WSECHO_SUBPROTOCOL", "soup,chat")],
        shows: |server| {
            let head = head_of_answer(server, "Sec-WebSocket-Protocol: other, chat");
            assert!(head.contains("Sec-WebSocket-Protocol: chat\r\n"), "{head}");
        },
    },
    Flag {
        name: "--prefix",
        default: "[default: \"You have entered: \"]",
        env: &[("WSECHO_PREFIX", "> ")],
        shows: |server| assert_eq!(echo(server, b"hi"), b"> hi"),
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
            client.write_all(&frame(0x00, &[0])).unwrap();
            assert_eq!(read_close(&mut client), 1013);
        },
    },
    Flag {
        name: "--handshake-timeout",
        default: "[default: 10s]",
        env: &[("WSECHO_HANDSHAKE_TIMEOUT", "50ms")],
        shows: |server| assert_status(&server.answer(b"GET / HTTP/1.1\r\n"), 408),
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
            // The socket buffers of both sides hold a few of these.
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
    Flag {
        name: "--verbose",
        default: "",
        env: &[("WSECHO_VERBOSE", "1")],
        shows: |server| {
            echo(server, b"loud");
            server.wait_for_log(r#"Text of 4 bytes, "loud""#);
        },
    },
];

#[test]
fn the_help_names_every_flag_with_its_environment_and_default() {
    let help = output("--help");
    assert!(help.lines().all(|line| line.chars().count() <= 100));
    // Where a line breaks is the terminal's matter.
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let others =
        [("--log-file", "[default: stderr]"), ("--quiet", ""), ("--help", ""), ("--version", "")];
    let flags = FLAGS.iter().map(|flag| (flag.name, flag.default));
    let flags: Vec<_> = flags.chain(others).collect();
    for &(flag, default) in &flags {
        let (_, about) = words.split_once(flag).expect(flag);
        let about = about.split(" --").next().unwrap();
        assert!(about.contains(default), "{flag}: {about}");
        if !["--help", "--version"].contains(&flag) {
            let variable = flag.replacen("--", "WSECHO_", 1).replace('-', "_");
            let env = format!("[env: {}=", variable.to_uppercase());
            assert!(about.contains(&env), "{flag}: {about}");
        }
    }
    let named: BTreeSet<_> =
        words.split([' ', '.']).filter(|word| word.starts_with("--")).collect();
    let known: BTreeSet<_> = flags.iter().map(|(flag, _)| *flag).collect();
    assert_eq!(named, known);
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
        let mut command = Command::new(program());
        command.env("WSECHO_ADDR", "127.0.0.1:0");
        command.envs(flag.env.iter().copied());
        (flag.shows)(&Server::start_command(command));
    }
}

#[test]
fn a_flag_wins_over_the_environment() {
    let mut command = Command::new(program());
    command.env("WSECHO_PREFIX", "environment ");
    command.args(["--addr", "127.0.0.1:0", "--prefix", ""]);
    let server = Server::start_command(command);
    assert_eq!(echo(&server, b"as it is"), b"as it is");
}

#[test]
fn the_first_line_says_where_it_listens_and_where_the_page_is() {
    let mut flags = vec!["--addr", "127.0.0.2:0", "--addr", "localhost:0"];
    if TcpListener::bind("[::1]:0").is_ok() {
        flags.extend(["--addr", "[::1]:0"]);
    } else {
        eprintln!("SKIPPED: this machine has no IPv6");
    }
    let server = Server::start(&flags);

    let line = server.log().remove(0);
    let (sockets, pages) = line.split_once(", page at ").expect("the page is told");
    let (_, sockets) = sockets.split_once("listening on ").unwrap();
    let sockets: Vec<_> = sockets.split(' ').collect();
    let pages: Vec<_> = pages.split(' ').collect();
    assert_eq!(sockets.len(), 1 + flags.len() / 2);
    for (socket, page) in sockets.into_iter().zip(pages) {
        assert_eq!(socket.replace("ws:", "http:"), page);
        let addr = address_in(socket);
        assert!(addr.ip().is_loopback() && addr.port() != 0, "{socket}");

        let (mut client, _) = tungstenite::connect(socket).expect("a WebSocket opens");
        client.send("hi".into()).unwrap();
        assert_eq!(client.read().unwrap(), "You have entered: hi".into());

        let mut browser = TcpStream::connect(addr).unwrap();
        let request = format!("GET / HTTP/1.1\r\nHost: {addr}\r\n\r\n");
        browser.write_all(request.as_bytes()).unwrap();
        let mut page = String::new();
        browser.read_to_string(&mut page).unwrap();
        assert!(page.ends_with(include_str!("../static/client.html")));
    }
}

#[test]
fn what_keeps_it_from_starting_is_told_in_one_line() {
    let server = Server::start(&[]);
    let taken = server.addr.to_string();
    let scratch = Scratch::new("refused");
    let here = scratch.path("").display().to_string();
    let nowhere = scratch.path("no/such/dir/log").display().to_string();
    for (flag, value, line) in [
        ("--addr", taken.as_str(), format!("cannot listen on {taken}: Address already in use")),
        // No name server is asked about an empty label.
        ("--addr", "a..b:0", "cannot listen on a..b:0: failed to lookup address".into()),
        // From TEST-NET-1, which no machine has.
        (
            "--addr",
            "192.0.2.1:0",
            "cannot listen on 192.0.2.1:0: Cannot assign requested address".into(),
        ),
        (
            "--log-file",
            &nowhere,
            format!("cannot write --log-file {nowhere}: No such file or directory"),
        ),
        ("--log-file", &here, format!("cannot write --log-file {here}: Is a directory")),
    ] {
        let (status, said) = refusal(&[&format!("{flag}={value}")]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.starts_with(&format!("wsecho: {line}")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_wrong_command_line_is_told_in_one_line_before_the_usage() {
    for (flag, line) in [
        (
            "--addr=127.0.0.1:http",
            "invalid value '127.0.0.1:http' for '--addr <HOST:PORT>': say a port from 0 to 65535",
        ),
        ("--addr=1222", "invalid value '1222' for '--addr <HOST:PORT>': say HOST:PORT, such as"),
        (
            "--ping-interval=10",
            "invalid value '10' for '--ping-interval <TIME>': say a time with its unit",
        ),
        (
            "--max-message-size=big",
            "invalid value 'big' for '--max-message-size <SIZE>': say a size such as",
        ),
        (
            "--max-connections=0",
            "invalid value '0' for '--max-connections <N>': say a whole number from 1 on",
        ),
        ("--colour", "unexpected argument '--colour' found"),
        ("1222", "unexpected argument '1222' found"),
    ] {
        let (status, said) = refusal(&[flag]);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.starts_with(&format!("error: {line}")), "{said}");
        let more: Vec<_> = said.lines().skip(1).filter(|line| !line.is_empty()).collect();
        let usual = |line: &&str| line.starts_with("Usage: ") || line.starts_with("For more");
        assert!(more.iter().all(usual), "{said}");
    }
}

#[test]
fn a_wrong_value_in_the_environment_is_refused_as_in_a_flag() {
    let mut command = Command::new(program());
    command.env("WSECHO_WRITE_TIMEOUT", "30");
    let (status, said) = refusal_of(command);
    assert_eq!(status, Some(2));
    let line = "error: invalid value '30' for '--write-timeout <TIME>': say a time with its unit";
    assert!(said.starts_with(line), "{said}");
}

#[test]
fn the_log_is_as_loud_as_it_is_asked_to_be() {
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
        let mut command = Command::new(program());
        command.env_remove("RUST_LOG").args(flags);
        command.envs(rust_log.map(|value| ("RUST_LOG", value)));
        assert_eq!(
            levels_logged(command),
            levels.iter().map(|&level| level.into()).collect(),
            "{flags:?}, RUST_LOG={rust_log:?}"
        );
    }
}

#[test]
fn the_log_file_is_made_and_holds_the_whole_log() {
    let scratch = Scratch::new("log-file");
    let file = scratch.path("wsecho.log");
    let mut command = Command::new(program());
    command.env("WSECHO_ADDR", "127.0.0.1:0").env("WSECHO_LOG_FILE", &file);
    command.stderr(Stdio::piped());
    let mut program = Program(command.spawn().unwrap());
    wait_for_line(&file, " INFO ] listening on ws://127.0.0.1:");
    program.0.kill().unwrap();
    let mut said = String::new();
    let mut stderr = program.0.stderr.take().unwrap();
    stderr.read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn a_clients_whole_story_is_in_the_log() {
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
        r#" INFO ] client 1 ended: closed by peer, 4000; 3 messages, {} bytes in, {} bytes out, "#,
        sent.len(),
        received.len()
    );
    let (_, seconds) = ended.split_once(&expected).unwrap_or_else(|| panic!("{ended}"));
    let seconds: f64 = seconds.strip_suffix(" s").unwrap().parse().unwrap();
    assert!(seconds < SOON.as_secs_f64());
    let mut log = server.log();
    log.retain(|line| line.contains("client 1"));
    assert_eq!(log, [connected, ended]);
}

#[test]
fn the_log_says_who_ended_a_conversation_and_why() {
    let server = Server::start(&["--max-message-size", "100"]);
    for (id, (sent, end)) in [
        (close(1000), "closed by peer, 1000"),
        (frame(0x88, b""), "closed by peer, no code"),
        (frame(0x83, b""), "closed by server, 1002 reserved opcode"),
        (frame(0x81, b"\xFF"), "closed by server, 1007 text is not UTF-8"),
        (frame(0x81, &[b'x'; 101]), "closed by server, 1009 message is too big"),
        (frame(0x81, b"bye"), "peer left without a close frame"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = server.open();
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        let line = server.wait_for_log(&format!("client {} ended: ", id + 1));
        assert!(line.contains(&format!(" ended: {end}; ")), "{line}");
    }
}

#[test]
fn what_a_client_says_is_logged_at_debug_only_escaped_and_cut() {
    let words = format!("one\nline \x1b[31m {}", "x".repeat(1000));
    let quiet = Server::start(&[]);
    echo(&quiet, words.as_bytes());
    quiet.wait_for_log(" ended: ");
    assert!(!quiet.log().concat().contains("xxx"), "{:#?}", quiet.log());

    let loud = Server::start(&["-v"]);
    echo(&loud, words.as_bytes());
    let line = loud.wait_for_log(r#"one\nline \u{1b}[31m xxx"#);
    assert!(line.contains("DEBUG]") && line.ends_with("xxx\"…"), "{line}");
    assert!(line.len() < 300, "{line}");
}

/// What wsecho prints about itself.
fn output(flag: &str) -> String {
    let output = Command::new(program()).arg(flag).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

/// The status with which wsecho gives up, and what it says on stderr.
fn refusal(flags: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program());
    command.env("WSECHO_ADDR", "127.0.0.1:0").args(flags);
    refusal_of(command)
}

fn refusal_of(mut command: Command) -> (Option<i32>, String) {
    command.env("RUST_BACKTRACE", "1").stderr(Stdio::piped());
    let mut program = Program(command.spawn().unwrap());
    let mut status = None;
    eventually(SOON, || {
        status = program.0.try_wait().unwrap();
        status.is_some()
    });
    let mut said = String::new();
    program.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.unwrap().code(), said)
}

/// The levels of all lines from a run in which there is something to say at most of them.
fn levels_logged(mut command: Command) -> BTreeSet<String> {
    let addr = free_addr();
    // More than any kernel carries, for a warning.
    command.args(["--max-connections", &usize::MAX.to_string()]);
    command.args(["--addr", &addr.to_string()]).stderr(Stdio::piped());
    let mut program = Program(command.spawn().unwrap());
    let mut probe = None;
    eventually(SOON, || {
        probe = TcpStream::connect(addr).ok();
        probe.is_some()
    });
    let mut probe = probe.unwrap();
    probe.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
    program.0.kill().unwrap();
    let mut log = String::new();
    program.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    log.lines()
        .map(|line| {
            let (stamp, _) = line.split_once(']').unwrap();
            stamp.split_whitespace().nth(1).unwrap().to_owned()
        })
        .collect()
}

/// The reply to a text message, over a connection of its own.
fn echo(server: &Server, text: &[u8]) -> Vec<u8> {
    let mut client = server.open();
    client.write_all(&frame(0x81, text)).unwrap();
    let (opcode, reply) = read_frame(&mut client);
    assert_eq!(opcode, 0x81);
    reply
}

/// The head of the answer to an upgrade request with one more header.
fn head_of_answer(server: &Server, header: &str) -> String {
    let mut client = server.connect();
    let request = UPGRADE.replacen("\r\n\r\n", &format!("\r\n{header}\r\n\r\n"), 1);
    client.write_all(request.as_bytes()).unwrap();
    read_head(&mut client)
}

fn assert_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
}
