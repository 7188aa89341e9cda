//! TLS: real clients, the handshake under attack, and that everything else stays as it is.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};

use crate::frames::{close, frame};
use crate::support::{
    HEALTH_CHECK, PROGRAM, SOON, Server, TempDir, UPGRADE, assert_status, assert_took, data,
    eventually, has_npm_package, has_programs, is_ended_within, need_descriptors, python,
    read_close, read_frame, read_head, refusal, tolerance, wsecho,
};

pub(super) type Client = StreamOwned<ClientConnection, TcpStream>;

/// A key of 256 bits on a curve, and one that needs the deepest stack.
const KEYS: [&str; 2] = ["ec", "rsa"];

fn flags(key: &str) -> [String; 2] {
    ["crt", "key"].map(|kind| {
        let flag = if kind == "crt" { "cert" } else { "key" };
        format!("--tls-{flag}={}", data(&format!("tls/{key}.{kind}")).display())
    })
}

pub(super) fn start(key: &str, more: &[&str]) -> Server {
    let [cert, private] = flags(key);
    Server::start(&[&[cert.as_str(), private.as_str()], more].concat())
}

pub(super) fn config(
    cert: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

fn client_config(key: &str) -> ClientConfig {
    config(&data(&format!("tls/{key}.crt")), &[&version::TLS13, &version::TLS12])
}

fn session(config: ClientConfig) -> ClientConnection {
    ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap()
}

pub(super) fn over(stream: TcpStream, config: ClientConfig) -> Client {
    StreamOwned::new(session(config), stream)
}

fn ask(mut client: Client) -> Client {
    client.write_all(UPGRADE.as_bytes()).unwrap();
    assert_status(&read_head(&mut client), 101);
    client
}

pub(super) fn connect(server: &Server) -> Client {
    over(server.connect(), client_config("ec"))
}

pub(super) fn open(server: &Server) -> Client {
    ask(connect(server))
}

#[track_caller]
pub(super) fn assert_echoes(client: &mut Client, payload: &[u8]) {
    client.write_all(&frame(0x82, payload)).unwrap();
    assert!(read_frame(client) == (0x82, payload.to_vec()));
}

/// Fails unless the server ends the session, and does not just end the stream.
#[track_caller]
pub(super) fn assert_end(client: &mut Client) {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).expect("close_notify comes");
    assert!(rest.is_empty(), "{}", rest.escape_ascii());
}

// Conversations

#[test]
fn each_version_with_each_key_is_spoken_and_logged() {
    for key in KEYS {
        let server = start(key, &["-v"]);
        let line = server.wait_for_log("listening on ");
        let addr = server.addr;
        assert!(line.ends_with(&format!(" wss://{addr}/, page at https://{addr}/")), "{line}");
        for (version, logged) in
            [(&version::TLS12, "TLSv1_2, TLS_"), (&version::TLS13, "TLSv1_3, TLS13_")]
        {
            let mut config = config(&data(&format!("tls/{key}.crt")), &[version]);
            config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
            let mut client = ask(over(server.connect(), config));
            assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
            for len in [0, 1, 100, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 100_000, 3 << 20] {
                let payload: Vec<u8> = (0..len).map(|byte: usize| (byte % 251) as u8).collect();
                assert_echoes(&mut client, &payload);
            }
            let pipelined = frame(0x82, b"20 bytes in a record").repeat(500);
            client.write_all(&pipelined).unwrap();
            for _ in 0..500 {
                assert_eq!(read_frame(&mut client).1, b"20 bytes in a record");
            }
            client.write_all(&close(4000)).unwrap();
            assert_eq!(read_close(&mut client), 4000);
            assert_end(&mut client);
            let line = server.wait_for_log(logged);
            assert!(line.contains(" DEBUG] 127.0.0.1:"), "{line}");
        }
    }
}

#[test]
fn a_client_that_speaks_only_another_protocol_gets_the_alert_for_it() {
    let server = start("ec", &[]);
    let mut config = client_config("ec");
    config.alpn_protocols = vec![b"h2".into()];
    let error = over(server.connect(), config).write_all(b"x").unwrap_err().to_string();
    assert!(error.contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn plain_http_is_told_that_tls_is_spoken() {
    let server = start("ec", &[]);
    for request in [HEALTH_CHECK, UPGRADE, "get / http/1.1\r\n\r\n"] {
        let response = server.response(request);
        assert_status(&response, 400);
        let body = "\r\n\r\nthis port speaks TLS: use https:// or wss://; a PROXY header \
                    needs --proxy-protocol\n";
        assert!(response.ends_with(body), "{response}");
    }
    let response = server.response("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(response.ends_with("\r\n\r\n"), "{response}");
    server.wait_for_log(r#", path "/healthz": 400 Bad Request, this port speaks TLS"#);
}

#[test]
fn tls_on_a_plain_port_gets_the_answer_to_a_malformed_request() {
    let server = Server::start(&[]);
    let error = connect(&server).write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    server.wait_for_log(": 400 Bad Request, ");
}

#[test]
fn a_request_over_tls_is_answered_and_its_stream_ended() {
    let server = start("ec", &["--handshake-timeout=1s"]);
    for (request, status) in
        [(HEALTH_CHECK, 200), ("GET /no HTTP/1.1\r\nHost: localhost\r\n\r\n", 404), ("GET", 408)]
    {
        let mut client = connect(&server);
        client.write_all(request.as_bytes()).unwrap();
        assert_status(&read_head(&mut client), status);
        let mut body = String::new();
        client.read_to_string(&mut body).expect("close_notify comes");
    }
}

#[test]
fn a_client_may_end_its_session_before_its_stream() {
    let server = start("ec", &[]);
    let mut probe = connect(&server);
    probe.conn.complete_io(&mut probe.sock).unwrap();
    let mut scripted = connect(&server);
    scripted.write_all(UPGRADE.replace("/chat", "/do?close=4000&after=3").as_bytes()).unwrap();
    read_head(&mut scripted);
    for client in [&mut probe, &mut scripted, &mut open(&server)] {
        client.conn.send_close_notify();
        client.flush().unwrap();
        // "Each party MUST send a close_notify alert" (RFC 8446 §6.1).
        assert_end(client);
    }
    server.wait_for_log("client 1 ended: peer ended the stream without a close frame; 0 messages");
    // A stream that ends without the session is the same.
    open(&server).sock.shutdown(Shutdown::Write).unwrap();
    server.wait_for_log("client 3 ended: peer ended the stream without a close frame; 0 messages");
}

// The stop, pings, deadlines and limits

#[test]
fn a_stop_sends_1001_and_nothing_inside_a_handshake() {
    let mut server = start("ec", &["--close-timeout=1m", "--handshake-timeout=1m"]);
    let mut open = open(&server);
    let mut silent = server.connect();
    let mut inside = server.connect();
    inside.write_all(&hello()[..50]).unwrap();
    server.wait_until_asleep();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut open), 1001);
    for stream in [&mut silent, &mut inside] {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert_eq!(rest, b"");
    }
    open.write_all(&close(1001)).unwrap();
    assert_end(&mut open);
    drop(open);
    assert!(server.wait(tolerance()).success());
    server.wait_for_log(", 0 aborted");
}

#[test]
fn a_stop_while_a_reply_is_sent_comes_after_it() {
    let mut server = start("ec", &["--close-timeout=1m", "--write-timeout=1m"]);
    let mut client = open(&server);
    let payload = vec![7; 8 << 20];
    client.write_all(&frame(0x82, &payload)).unwrap();
    client.flush().unwrap();
    server.wait_until_asleep();
    server.signal(Signal::TERM);
    server.wait_for_log("stopping");
    assert!(read_frame(&mut client) == (0x82, payload));
    assert_eq!(read_close(&mut client), 1001);
    drop(client);
    assert!(server.wait(SOON).success());
}

#[test]
fn silence_is_pinged_and_then_closed() {
    let server = start("ec", &["--ping-interval=300ms", "--ping-timeout=300ms"]);
    let since = Instant::now();
    let mut client = open(&server);
    for _ in 0..3 {
        assert_eq!(read_frame(&mut client), (0x89, vec![]));
        client.write_all(&frame(0x8A, b"")).unwrap();
        // What was given up during the silence is there again.
        assert_echoes(&mut client, &[7; 40_000]);
    }
    assert_eq!(read_frame(&mut client), (0x89, vec![]));
    assert_eq!(read_close(&mut client), 1001);
    assert_took(since, Duration::from_millis(4 * 300 + 300));
}

#[test]
fn a_record_that_trickles_is_no_silence_and_ends_whole() {
    let server = start("ec", &["--ping-interval=1s", "--ping-timeout=1s"]);
    let mut client = open(&server);
    client.conn.writer().write_all(&frame(0x82, &[7; 40])).unwrap();
    let mut record = Vec::new();
    client.conn.write_tls(&mut record).unwrap();
    for byte in &record {
        client.sock.write_all(&[*byte]).unwrap();
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(read_frame(&mut client), (0x82, vec![7; 40]));
}

#[test]
fn a_client_that_does_not_read_is_cut_off_in_time() {
    let server = start("ec", &["--write-timeout=1s"]);
    let mut client = open(&server);
    let message = frame(0x82, &vec![7; 1 << 20]);
    while client.write_all(&message).is_ok() {}
    server.wait_for_log("client 1 ended: peer did not read in time, or is gone; ");
}

#[test]
fn a_reader_that_is_slow_but_steady_gets_everything() {
    let server = start("ec", &["--write-timeout=2s"]);
    let mut client = open(&server);
    let payload = vec![7; 8 << 20];
    client.write_all(&frame(0x82, &payload)).unwrap();
    client.flush().unwrap();
    let mut reply = vec![0; 10 + payload.len()];
    for piece in reply.chunks_mut(512 * 1024) {
        thread::sleep(Duration::from_millis(250));
        client.read_exact(piece).unwrap();
    }
    assert!(reply[10..] == payload);
}

#[test]
fn limits_are_answered_over_tls() {
    let server = start("ec", &["--max-connections=1", "--max-message-size=100"]);
    let mut only = open(&server);
    let mut other = connect(&server);
    other.write_all(UPGRADE.as_bytes()).unwrap();
    assert_status(&read_head(&mut other), 503);
    only.write_all(&frame(0x82, &[7; 101])).unwrap();
    assert_eq!(read_close(&mut only), 1009);
    assert_end(&mut only);
}

// Certificates

#[test]
fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    type Breaking = fn(&Path);
    let dir = TempDir::new();
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    let install = |name: &str| {
        for (kind, path) in [("crt", &cert), ("key", &key)] {
            let new = dir.path("new");
            fs::copy(data(&format!("tls/{name}.{kind}")), &new).unwrap();
            fs::rename(new, path).unwrap();
        }
    };
    install("ec");
    let server =
        Server::start(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    let offers =
        |name: &str| over(server.connect(), client_config(name)).write_all(b"GET ").is_ok();
    assert!(offers("ec") && !offers("rsa"));
    let mut from_before = open(&server);
    install("rsa");
    eventually(SOON, || offers("rsa"));
    server.wait_for_log(" INFO ] the certificate ");
    assert!(!offers("ec"));
    assert_echoes(&mut from_before, b"still here");

    // A certificate whose key has not come yet, a file that is no certificate, none at all.
    let breakings: [(Breaking, &str); 3] = [
        (|cert| assert!(fs::copy(data("tls/ec.crt"), cert).is_ok()), "cannot use --tls-cert "),
        (|cert| fs::write(cert, "precious").unwrap(), "it contains no certificate in PEM"),
        (|cert| fs::remove_file(cert).unwrap(), "No such file or directory"),
    ];
    for (break_it, why) in breakings {
        break_it(&cert);
        eventually(SOON, || {
            assert!(offers("rsa"), "the old one stays");
            server.log().iter().any(|line| line.contains(why))
        });
        let line = server.wait_for_log(why);
        assert!(line.contains(" WARN ] the old certificate stays: "), "{line}");
    }
    // It is warned once, not at each handshake.
    thread::sleep(Duration::from_millis(1100));
    assert!(offers("rsa"));
    let warnings = server.log().iter().filter(|line| line.contains(" WARN ]")).count();
    assert_eq!(warnings, 3, "{:#?}", server.log());
    install("ec");
    eventually(SOON, || offers("ec"));
}

#[test]
fn a_renewal_that_would_block_keeps_the_old_certificate() {
    let dir = TempDir::new();
    let (cert, key) = (dir.path("cert.pem"), dir.path("key.pem"));
    fs::copy(data("tls/ec.crt"), &cert).unwrap();
    fs::copy(data("tls/ec.key"), &key).unwrap();
    let server =
        Server::start(&["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()]);
    fs::remove_file(&key).unwrap();
    assert!(Command::new("mkfifo").arg(&key).status().unwrap().success());
    let why = "it is not a regular file";
    eventually(SOON, || {
        assert_echoes(&mut open(&server), b"the old one");
        server.log().iter().any(|line| line.contains(why))
    });
    let line = server.wait_for_log(why);
    assert!(line.contains(" WARN ] the old certificate stays: cannot read --tls-key "), "{line}");
}

#[test]
fn what_is_wrong_with_the_files_is_said_in_one_line() {
    let dir = TempDir::new();
    let [cert, key] = flags("ec");
    let [_, other_key] = flags("rsa");
    let file = |name: &str, text: &str| {
        fs::write(dir.path(name), text).unwrap();
        dir.path(name).display().to_string()
    };
    let empty = file("empty", "");
    let broken = file("broken", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    let cut = fs::read_to_string(data("tls/ec.key")).unwrap();
    let cut = file("cut", &cut[..cut.len() / 2]);
    let encrypted = file(
        "encrypted",
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n\
         AAAA\n-----END EC PRIVATE KEY-----\n",
    );
    let unknown = file("unknown", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
    let unreadable = dir.path("nothing").display().to_string();
    for (flags, status, why) in [
        (
            [&format!("--tls-cert={unreadable}"), &key],
            1,
            format!("cannot read --tls-cert {unreadable}: No such file"),
        ),
        (
            [&format!("--tls-cert={empty}"), &key],
            1,
            format!("cannot read --tls-cert {empty}: it contains no certificate in PEM"),
        ),
        ([&format!("--tls-cert={broken}"), &key], 1, format!("cannot read --tls-cert {broken}: ")),
        (
            [&cert, &format!("--tls-key={empty}")],
            1,
            format!(
                "cannot read --tls-key {empty}: it contains no private key without a password in PEM"
            ),
        ),
        (
            [&cert, &format!("--tls-key={cut}")],
            1,
            format!("cannot read --tls-key {cut}: it is cut off before its END line"),
        ),
        (
            [&cert, &format!("--tls-key={encrypted}")],
            1,
            format!(
                "cannot read --tls-key {encrypted}: its PEM is damaged, or is a key with a pass"
            ),
        ),
        ([&cert, &format!("--tls-key={unknown}")], 1, "the key has to be RSA of 2048, ".into()),
        ([&cert, &other_key], 1, "the key is not the first certificate's".into()),
        ([&cert, &"--addr=127.0.0.1:0".into()], 2, "--tls-key <FILE>".into()),
        ([&"--addr=127.0.0.1:0".into(), &key], 2, "--tls-cert <FILE>".into()),
    ] {
        let (found, text) = refusal(wsecho(&["--addr=127.0.0.1:0"]).args(flags));
        assert!(found == Some(status) && text.contains(&why), "{flags:?}: {found:?}, {text}");
    }
}

// Attacks

fn hello() -> Vec<u8> {
    let mut hello = Vec::new();
    session(client_config("ec")).write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn handshakes_that_trickle_or_stop_are_ended_in_time_and_hold_up_nobody() {
    const CLIENTS: usize = 40;
    const TIMEOUT: Duration = Duration::from_secs(2);
    let server = start("ec", &["-v", "--handshake-timeout=2s"]);
    // The first client sets up what is set up once.
    assert_echoes(&mut open(&server), b"first");
    let since = Instant::now();
    let hello = hello();
    let mut trickling: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
    for byte in &hello[..5] {
        for stream in &mut trickling {
            stream.write_all(&[*byte]).unwrap();
        }
        let asked = Instant::now();
        assert_echoes(&mut open(&server), b"others");
        assert!(asked.elapsed() < tolerance());
        thread::sleep(Duration::from_millis(100));
    }
    for mut stream in trickling {
        assert!(is_ended_within(SOON, &mut stream));
    }
    assert_took(since, TIMEOUT);
    server.wait_for_log("TLS failed, the handshake is not complete");
}

#[test]
fn a_thousand_handshakes_at_once_are_all_served() {
    const CLIENTS: usize = 1000;
    need_descriptors(2 * CLIENTS as u64 + 100);
    // However long a busy machine takes. Only a handshake that is lost ends at the timeout.
    let server = start("rsa", &["--handshake-timeout=10m", "--ping-interval=0"]);
    assert_echoes(&mut ask(over(server.connect(), client_config("rsa"))), b"first");
    let config = client_config("rsa");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = over(server.connect(), config.clone());
            client.sock.set_read_timeout(None).unwrap();
            client.conn.write_tls(&mut client.sock).unwrap();
            client
        })
        .collect();
    for client in &mut clients {
        client.write_all(UPGRADE.as_bytes()).unwrap();
        client.flush().unwrap();
    }
    for client in &mut clients {
        assert_status(&read_head(client), 101);
    }
    for client in &mut clients {
        assert_echoes(client, b"all of them");
    }
}

/// More handshakes at once than are computed within a second.
fn queue_handshakes(server: &Server) -> Vec<TcpStream> {
    const CLIENTS: usize = 1000;
    need_descriptors(2 * CLIENTS as u64 + 100);
    let hello = hello();
    let connect = |_| {
        let mut stream = server.connect();
        stream.write_all(&hello).unwrap();
        stream
    };
    (0..CLIENTS).map(connect).collect()
}

#[test]
fn a_handshake_that_waits_for_others_ends_at_its_deadline_and_not_before() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let server = start("rsa", &["-v", "--handshake-timeout=1s"]);
    assert_echoes(&mut ask(over(server.connect(), client_config("rsa"))), b"first");
    let queued = queue_handshakes(&server);
    let since = Instant::now();
    let mut last = server.connect();
    last.write_all(&hello()).unwrap();
    assert!(is_ended_within(SOON, &mut last));
    assert_took(since, TIMEOUT);
    drop(queued);
    // The steps that nobody waits for are left out, so that the next client is served in time.
    assert_echoes(&mut ask(over(server.connect(), client_config("rsa"))), b"next");
}

#[test]
fn a_stop_ends_handshakes_that_wait_for_others() {
    let mut server = start("rsa", &["--handshake-timeout=5m", "--close-timeout=5m"]);
    let queued = queue_handshakes(&server);
    server.signal(Signal::TERM);
    assert!(server.wait(tolerance()).success());
    server.wait_for_log(", 0 aborted");
    drop(queued);
}

#[test]
fn what_is_no_tls_is_ended_and_costs_nothing() {
    let server = start("ec", &["--handshake-timeout=2s", "--close-timeout=500ms"]);
    assert_echoes(&mut open(&server), b"first");
    let before = server.idle_usage_after(|| assert_echoes(&mut open(&server), b"idle"));
    let hello = hello();
    // Records: of no type, of an old version, too long, empty ones, a hello in an endless one.
    let endless = [&[0x16, 3, 1, 0x40, 0, 1, 0, 0xFF, 0xFF][..], &[0; 16_379]].concat();
    let rubbish: [Vec<u8>; 9] = [
        vec![0; 100],
        vec![0xFF; 20_000],
        vec![0x80, 0x2E, 1, 3, 1],
        [&[0x16, 3, 1, 0xFF, 0xFF][..], &[1; 70_000]].concat(),
        [0x16, 3, 1, 0, 0].repeat(5_000),
        [0x15, 3, 3, 0, 2, 1, 0].repeat(100),
        endless.repeat(5),
        [&hello[..], &[0x17, 3, 3, 0, 20], &[7; 20]].concat(),
        hello.repeat(3),
    ];
    for bytes in &rubbish {
        let mut stream = server.connect();
        let _ = stream.write_all(bytes);
        assert!(is_ended_within(SOON, &mut stream), "{}", bytes[..5].escape_ascii());
    }
    // After the close frame and close_notify.
    let mut client = open(&server);
    client.write_all(&close(1000)).unwrap();
    assert_eq!(read_close(&mut client), 1000);
    client.sock.write_all(&[7; 100]).unwrap();
    assert!(is_ended_within(SOON, &mut client.sock));
    // After the handshake: a record that was not encrypted, and one that is too long.
    for record in [&[0x17, 3, 3, 0, 30][..], &[0x17, 3, 3, 0xFF, 0xFF], b"GET / HTTP/1.1"] {
        let mut client = open(&server);
        client.sock.write_all(&[record, &[7; 30]].concat()).unwrap();
        let error = client.read(&mut [0; 10]).expect_err("an alert comes");
        assert!(error.to_string().contains("lert"), "{error}");
    }
    server.wait_for_log(" ended: TLS failed, ");
    server.has_recovered_after(before, PROGRAM, || assert_echoes(&mut open(&server), b"again"));
    assert!(!server.log().iter().any(|line| line.contains("ERROR")), "{:#?}", server.log());
}

#[test]
fn a_hello_with_any_byte_changed_or_cut_harms_nobody() {
    let server = start("ec", &["--close-timeout=100ms"]);
    let before = server.idle_usage_after(|| assert_echoes(&mut open(&server), b"idle"));
    let hello = hello();
    for cut in 0..hello.len() {
        let mut changed = hello.clone();
        changed[cut] ^= 0xFF;
        for bytes in [&hello[..cut], &changed] {
            let mut stream = server.connect();
            stream.write_all(bytes).unwrap();
            // Nothing more comes.
            stream.shutdown(Shutdown::Write).unwrap();
            assert!(is_ended_within(SOON, &mut stream), "{cut}");
        }
    }
    server.has_recovered_after(before, PROGRAM, || assert_echoes(&mut open(&server), b"again"));
    assert!(!server.log().iter().any(|line| line.contains("ERROR")), "{:#?}", server.log());
}

#[test]
fn a_client_may_change_its_keys_and_not_renegotiate() {
    if !has_programs(&["openssl"]) {
        return;
    }
    let server = start("ec", &["--handshake-timeout=5s"]);
    // K and k update the keys of both sides and of one.
    let keys_change = [("K\n", "KEYUPDATE"), ("k\n", "KEYUPDATE")];
    let text = s_client(&server, "ec", "-tls1_3", &keys_change);
    assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
    let text = s_client(&server, "ec", "-tls1_2", &[("R\n", "RENEGOTIATING")]);
    assert!(text.contains("no renegotiation"), "{text}");
    assert!(!text.contains("HTTP/1.1 200 OK"), "{text}");
}

/// All that OpenSSL's client says that is given these commands, each once it has said what follows the
/// one before, and then a request.
fn s_client(server: &Server, key: &str, version: &str, commands: &[(&str, &str)]) -> String {
    let script = format!(
        "exec openssl s_client -connect {} {version} -verify_return_error -CAfile {} 2>&1",
        server.addr,
        data(&format!("tls/{key}.crt")).display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut text = String::new();
    for (command, expected) in commands {
        stdin.write_all(command.as_bytes()).unwrap();
        let said = text.len();
        while !text[said..].contains(expected) {
            assert!(stdout.read_line(&mut text).unwrap() > 0, "{expected} is not said: {text}");
        }
    }
    // The session may have ended.
    let _ = stdin.write_all(b"GET /healthz HTTP/1.0\r\n\r\n");
    stdout.read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

// Real clients

#[test]
fn openssl_speaks_either_version() {
    if !has_programs(&["openssl"]) {
        return;
    }
    for key in KEYS {
        let server = start(key, &[]);
        for version in ["-tls1_2", "-tls1_3"] {
            let text = s_client(&server, key, version, &[]);
            assert!(text.contains("Verify return code: 0 (ok)"), "{text}");
            assert!(text.contains("HTTP/1.1 200 OK"), "{text}");
        }
    }
}

#[test]
fn curl_gets_the_page() {
    if !has_programs(&["curl"]) {
        return;
    }
    let server = start("ec", &[]);
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "10", "--noproxy", "*", "--cacert"])
        .arg(data("tls/ec.crt"))
        .args(["--write-out", "%{http_version}"])
        .arg(format!("https://{}/", server.addr))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let page = fs::read(data("../static/client.html")).unwrap();
    assert!(output.stdout == [&page[..], b"1.1"].concat());
}

#[test]
fn python_and_npms_ws_are_answered_over_wss() {
    let server = start("ec", &[]);
    let url = format!("wss://{}/", server.addr);
    let ca = data("tls/ec.crt");
    let mut commands = Vec::new();
    if let Some(mut python) = python() {
        python.arg(data("clients/echo.py")).arg(&url).arg("--ca").arg(&ca);
        commands.push(python);
    }
    if has_npm_package("ws") {
        let mut node = Command::new("node");
        node.arg(data("clients/echo.mjs")).args(["ws", &url]).env("NODE_EXTRA_CA_CERTS", &ca);
        commands.push(node);
    }
    for command in &mut commands {
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && output.stdout == b"ok\n", "{errors}");
    }
}

// Memory

#[test]
#[ignore = "needs 10,000 clients, and a release build"]
fn an_idle_client_costs_at_most_24_kib_and_leaves_little_behind() {
    const CLIENTS: usize = 10_000;
    need_descriptors(CLIENTS as u64 + 100);
    let server = start("ec", &["--max-connections=10000"]);
    let config = Arc::new(client_config("ec"));
    let before = server.idle_usage_after(|| assert_echoes(&mut open(&server), b"idle"));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|client| {
            let stream = crate::support::connect_from(1 + (client / 4_000) as u8, server.addr);
            let name = "localhost".try_into().unwrap();
            ask(StreamOwned::new(ClientConnection::new(Arc::clone(&config), name).unwrap(), stream))
        })
        .collect();
    let grown = server.usage().resident - before.resident;
    println!("{grown} KiB, {} each", grown / CLIENTS);
    assert!(std::env::var_os("WSECHO").is_none() || grown <= 24 * CLIENTS, "{grown} KiB");
    drop(clients);
    server.has_recovered_after(before, PROGRAM, || assert_echoes(&mut open(&server), b"again"));
}
