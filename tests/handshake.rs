//! The opening handshake over a real socket: every row of the answer table, their order, and the
//! grammar of a request's head.

mod common;

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use wsecho::request::{MAX_FIELDS, MAX_HEAD_LEN, NoRequest, Request, head_len};

use common::{
    SOON, Server, UPGRADE, close, eventually, frame, has_program, read_close, read_frame, read_head,
};

// Asking

/// The server's answer, known to be complete HTTP/1.1.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// The value of the one field of that name, if there is one.
    fn header(&self, name: &str) -> Option<&str> {
        let values = self.values(name);
        assert!(values.len() <= 1, "{}", self.head);
        values.first().copied()
    }

    fn values(&self, name: &str) -> Vec<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

/// Says `request` on a connection of its own. An answer other than 101 has to be complete, and the
/// last thing said.
#[track_caller]
fn ask(server: &Server, request: impl AsRef<[u8]>) -> Answer {
    let request = request.as_ref();
    let mut stream = server.connect();
    stream.write_all(request).unwrap();
    read_answer(&mut stream, request.starts_with(b"HEAD "))
}

#[track_caller]
fn read_answer(stream: &mut TcpStream, to_head: bool) -> Answer {
    let head = read_head(stream);
    let status = head.strip_prefix("HTTP/1.1 ").expect("it is HTTP/1.1");
    let mut answer =
        Answer { status: status[..3].parse().expect("a status code"), head, body: String::new() };
    if answer.status == 101 {
        return answer;
    }
    (stream.read_to_string(&mut answer.body)).expect("the server closes");
    let head = &answer.head;
    assert!(answer.values("Connection").contains(&"close"), "{head}");
    let len: usize = answer.header("Content-Length").unwrap().parse().unwrap();
    assert!(len > 0, "{head}");
    assert_eq!(answer.body.len(), if to_head { 0 } else { len }, "{head}");
    answer
}

/// Expects this status, and these words in the answer: in the body, or in the head of a 101.
#[track_caller]
fn check(server: &Server, request: impl AsRef<[u8]>, status: u16, words: &str) {
    let request = request.as_ref();
    let answer = ask(server, request);
    let Answer { head, body, .. } = &answer;
    let shown = request[..request.len().min(600)].escape_ascii();
    assert_eq!(answer.status, status, "{shown}\n{body}");
    let said = if status == 101 { head } else { body };
    assert!(said.contains(words), "{shown}\n{said} does not say {words:?}");
    if status != 101 && status != 200 && !body.is_empty() {
        assert_eq!(body.matches('\n').count(), 1, "the reason is one line: {body:?}");
        assert!(body.ends_with('\n'), "{body:?}");
    }
}

/// [`UPGRADE`] with `from` made `to`, both of them whole lines or parts of one.
#[track_caller]
fn upgrade(from: &str, to: &str) -> String {
    assert!(UPGRADE.contains(from), "{from}");
    UPGRADE.replace(from, to)
}

/// [`UPGRADE`] with one more line.
fn upgrade_with(line: &str) -> String {
    upgrade("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
}

const HOST: &str = "Host: localhost\r\n";
const UPGRADE_FIELD: &str = "Upgrade: websocket\r\n";
const CONNECTION: &str = "Connection: Upgrade\r\n";
const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
const FIELDS: [&str; 5] = [HOST, UPGRADE_FIELD, CONNECTION, KEY, VERSION];

const ACCEPTED: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

// 101

#[test]
fn the_published_examples_are_answered_to_the_byte() {
    let server = Server::start(&[]);
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";

    let answer = ask(&server, UPGRADE);
    assert_eq!(answer.head, format!("{head}{ACCEPTED}\r\n"));

    let other_key =
        "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";
    let answer = ask(&server, upgrade(KEY, other_key));
    let accept = "Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\
                  Sec-WebSocket-Protocol: chat\r\n";
    assert_eq!(answer.head, format!("{head}{accept}\r\n"));
}

#[test]
fn a_request_may_come_one_byte_at_a_time() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    stream.set_nodelay(true).unwrap();
    for byte in [UPGRADE.as_bytes(), &frame(0x81, b"split")].concat() {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(read_head(&mut stream).contains(ACCEPTED));
    assert_eq!(read_frame(&mut stream), (0x81, b"You have entered: split".into()));
}

#[test]
fn the_first_frames_may_come_in_the_same_packet_as_the_request() {
    let server = Server::start(&[]);
    let frames = [frame(0x81, b"one"), frame(0x89, b"two"), close(1000)].concat();
    for frames_with_it in 0..=frames.len() {
        let (with_it, behind) = frames.split_at(frames_with_it);
        let mut stream = server.connect();
        stream.write_all(&[UPGRADE.as_bytes(), with_it].concat()).unwrap();
        assert!(read_head(&mut stream).contains(ACCEPTED));
        stream.write_all(behind).unwrap();
        assert_eq!(read_frame(&mut stream), (0x81, b"You have entered: one".into()));
        assert_eq!(read_frame(&mut stream), (0x8A, b"two".into()));
        assert_eq!(read_close(&mut stream), 1000);
    }
}

#[test]
fn a_subprotocol_is_agreed_only_from_the_clients_offer() {
    let any = Server::start(&[]);
    let listed = Server::start(&["--subprotocol", "chat", "--subprotocol", "soap"]);
    #[rustfmt::skip]
    let table = [
        ("", None, None),
        ("Sec-WebSocket-Protocol: chat\r\n", Some("chat"), Some("chat")),
        ("Sec-WebSocket-Protocol: soap, chat\r\n", Some("soap"), Some("soap")),
        ("Sec-WebSocket-Protocol: mqtt,\t chat\r\n", Some("mqtt"), Some("chat")),
        (
            "sec-websocket-protocol: a\r\nSec-WebSocket-Protocol: b,soap\r\n",
            Some("a"),
            Some("soap"),
        ),
        ("Sec-WebSocket-Protocol: mqtt, Chat\r\n", Some("mqtt"), None),
        ("Sec-WebSocket-Protocol: , ,chat\r\n", Some("chat"), Some("chat")),
        ("Sec-WebSocket-Protocol:\r\n", None, None),
    ];
    for (offer, any_agrees, listed_agrees) in table {
        let request = upgrade(HOST, &format!("{HOST}{offer}"));
        for (server, agreed) in [(&any, any_agrees), (&listed, listed_agrees)] {
            let answer = ask(server, &request);
            assert_eq!(answer.status, 101, "{offer}");
            assert_eq!(answer.header("Sec-WebSocket-Protocol"), agreed, "{offer}");
        }
    }
}

#[test]
fn extensions_are_declined_by_silence() {
    let server = Server::start(&[]);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-unknown";
    let answer = ask(&server, upgrade_with(offer));
    assert_eq!((answer.status, answer.header("Sec-WebSocket-Extensions")), (101, None));
}

// The parts of the request

#[test]
fn each_header_missing_repeated_and_in_odd_forms() {
    let server = Server::start(&[]);
    #[rustfmt::skip]
    let table = [
        (HOST, "", 400, "Host is missing"),
        (HOST, "Host: a\r\nHost: a\r\n", 400, "Host is repeated"),
        (HOST, "Host:\r\n", 101, ACCEPTED),
        (UPGRADE_FIELD, "", 404, "need Upgrade: websocket"),
        (UPGRADE_FIELD, "Upgrade: h2c\r\n", 404, "need Upgrade: websocket"),
        (UPGRADE_FIELD, "Upgrade: websockets\r\n", 404, "need Upgrade: websocket"),
        (UPGRADE_FIELD, "Upgrade: WEBSocket\r\n", 101, ACCEPTED),
        (UPGRADE_FIELD, "Upgrade: h2c, websocket\r\n", 101, ACCEPTED),
        (UPGRADE_FIELD, "Upgrade: websocket\r\nUpgrade: websocket\r\n", 101, ACCEPTED),
        (CONNECTION, "", 400, "Connection does not say upgrade"),
        (CONNECTION, "Connection: close\r\n", 400, "Connection does not say upgrade"),
        (CONNECTION, "Connection: Upgrade-Insecure\r\n", 400, "Connection does not say upgrade"),
        (CONNECTION, "Connection: uPGRADE\r\n", 101, ACCEPTED),
        (CONNECTION, "Connection: keep-alive, Upgrade\r\n", 101, ACCEPTED),
        (CONNECTION, "Connection: ,, upgrade ,x\r\n", 101, ACCEPTED),
        (CONNECTION, "Connection: keep-alive\r\nConnection: Upgrade\r\n", 101, ACCEPTED),
        (KEY, "", 400, "Sec-WebSocket-Key is missing"),
        (KEY, "Sec-WebSocket-Key:\r\n", 400, "not 16 bytes"),
        (KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA\r\n", 400, "not 16 bytes"),
        (KEY, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAA=\r\n", 400, "not 16 bytes"),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", 400, "not 16 bytes"),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=\r\n", 400, "not 16 bytes"),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBu b25jZQ==\r\n", 400, "not 16 bytes"),
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ-==\r\n", 400, "not 16 bytes"),
        (KEY, &KEY.repeat(2), 400, "Sec-WebSocket-Key is repeated"),
        // The last digit has four bits of which nothing is made; some clients draw them too.
        (KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==\r\n", 101, "Sec-WebSocket-Accept: "),
        (VERSION, "", 426, "Sec-WebSocket-Version is missing"),
        (VERSION, &VERSION.repeat(2), 400, "Sec-WebSocket-Version is repeated"),
        (VERSION, "Sec-WebSocket-Version: 13, 8\r\n", 426, "\"13, 8\""),
        (VERSION, "Sec-WebSocket-Version: 013\r\n", 426, "\"013\""),
    ];
    for (from, to, status, words) in table {
        check(&server, upgrade(from, to), status, words);
    }
}

#[test]
fn each_header_is_read_whatever_its_case_and_the_space_around_its_value() {
    let server = Server::start(&[]);
    for field in FIELDS {
        let (name, value) = field.trim_end().split_once(": ").unwrap();
        for odd in [
            format!("{}: {value}\r\n", name.to_uppercase()),
            format!("{}: {value}\r\n", name.to_lowercase()),
            format!("{name}:{value}\r\n"),
            format!("{name}:   {value}\r\n"),
            format!("{name}:\t{value} \t \r\n"),
        ] {
            check(&server, upgrade(field, &odd), 101, ACCEPTED);
        }
    }
}

#[test]
fn each_header_that_is_malformed_is_refused_and_not_guessed_at() {
    let server = Server::start(&[]);
    for field in FIELDS {
        let (name, value) = field.trim_end().split_once(": ").unwrap();
        for (odd, words) in [
            (format!("{name} : {value}\r\n"), "name is not a token"),
            (format!(" {name}: {value}\r\n"), "folded"),
            (format!("{name}:\r\n {value}\r\n"), "folded"),
            (format!("{name}: {value}\r\n\tmore\r\n"), "folded"),
            (format!("{name} {value}\r\n"), "no colon"),
            (format!("{name}: {value}\n"), "CR LF"),
            (format!("{name}: x\r{value}\r\n"), "CR LF"),
            (format!("{name}: {value}\r\r\n"), "CR LF"),
            (format!("{name}: {value}\0\r\n"), "control character"),
            (format!("{name}: {value}\x7F\r\n"), "control character"),
            (format!("{name}\0: {value}\r\n"), "name is not a token"),
            (format!("{name}(): {value}\r\n"), "name is not a token"),
            (format!(": {value}\r\n"), "name is not a token"),
        ] {
            check(&server, upgrade(field, &odd), 400, words);
        }
    }
}

#[test]
fn other_headers_are_ignored_whatever_they_hold() {
    let server = Server::start(&[]);
    for line in ["X-Empty:", "x!#$%&'*+-.^_`|~9: odd", "Cookie: a=b; c=\"d\"", "X: grün\ttab"] {
        check(&server, upgrade_with(line), 101, ACCEPTED);
    }
    let latin = [upgrade("\r\n\r\n", "\r\nX: ").as_bytes(), b"\x80\xE9\xFF\r\n\r\n"].concat();
    check(&server, latin, 101, ACCEPTED);
}

#[test]
fn a_target_may_be_absolute() {
    let server = Server::start(&[]);
    for target in [
        "/",
        "/chat?room=1&x=/y",
        "/%00//",
        "http://localhost/chat",
        "HTTP://localhost:1222/chat?x",
        "ws://localhost",
    ] {
        check(&server, upgrade("/chat", target), 101, ACCEPTED);
    }
    for (target, status, words) in [
        ("/", 200, "<!doctype html>"),
        ("/?x=/nothing", 200, "<!doctype html>"),
        ("/client.html", 200, "<!doctype html>"),
        ("http://localhost/client.html?x", 200, "<!doctype html>"),
        ("http://localhost", 200, "<!doctype html>"),
        ("http://localhost?x", 200, "<!doctype html>"),
        ("http://localhost/healthz", 200, "ok\n"),
        ("http://localhost/nothing", 404, "nothing is here"),
        ("//healthz", 404, "nothing is here"),
        ("/Client.html", 404, "nothing is here"),
        ("/healthz/", 404, "nothing is here"),
        ("*", 400, "target"),
        ("localhost:80", 400, "target"),
        ("healthz", 400, "target"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\n{HOST}\r\n");
        check(&server, request, status, words);
    }
}

#[test]
fn a_malformed_head_is_answered_400() {
    let server = Server::start(&[]);
    #[rustfmt::skip]
    let table = [
        ("GET / HTTP/1.1 \r\n\r\n", "METHOD TARGET VERSION"),
        ("GET  / HTTP/1.1\r\n\r\n", "METHOD TARGET VERSION"),
        (" GET / HTTP/1.1\r\n\r\n", "METHOD TARGET VERSION"),
        ("GET /a b HTTP/1.1\r\n\r\n", "METHOD TARGET VERSION"),
        ("GET /\r\n\r\n", "METHOD TARGET VERSION"),
        ("GET\t/\tHTTP/1.1\r\n\r\n", "METHOD TARGET VERSION"),
        ("G(T / HTTP/1.1\r\n\r\n", "method is not a token"),
        ("G\0T / HTTP/1.1\r\n\r\n", "method is not a token"),
        ("GET /\0 HTTP/1.1\r\n\r\n", "target is not visible ASCII"),
        ("GET /ä HTTP/1.1\r\n\r\n", "target is not visible ASCII"),
        ("GET / HTTP/1.10\r\n\r\n", "version"),
        ("GET / http/1.1\r\n\r\n", "version"),
        ("GET / HTTP/1\r\n\r\n", "version"),
        ("GET / ICY/1.1\r\n\r\n", "version"),
        ("GET / HTTP/1.1\n\n", "CR LF"),
        ("GET / HTTP/1.1\nHost: a\n\n", "CR LF"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", "CR LF"),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", "CR LF"),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", "folded"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "Host is repeated"),
        ("\r\n\r\n", "METHOD TARGET VERSION"),
    ];
    for (head, words) in table {
        check(&server, head, 400, words);
    }
}

#[test]
fn an_empty_line_before_the_request_is_ignored() {
    let server = Server::start(&[]);
    check(&server, format!("\r\n{UPGRADE}"), 101, ACCEPTED);
}

#[test]
fn a_head_that_breaks_off_is_answered_400() {
    let server = Server::start(&[]);
    for len in [1, 14, UPGRADE.len() - 1] {
        let mut stream = server.connect();
        stream.write_all(&UPGRADE.as_bytes()[..len]).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_answer(&mut stream, false);
        assert_eq!((answer.status, answer.body.as_str()), (400, "the head breaks off\n"));
    }
}

// Limits

/// [`UPGRADE`] with `fields` header fields in all.
fn upgrade_with_fields(fields: usize) -> String {
    let more = "X: y\r\n".repeat(fields - FIELDS.len());
    upgrade(HOST, &format!("{HOST}{more}"))
}

/// [`UPGRADE`] made `len` bytes long.
fn upgrade_of(len: usize) -> String {
    let padding = "x".repeat(len - UPGRADE.len() - "X: \r\n".len());
    upgrade(HOST, &format!("{HOST}X: {padding}\r\n"))
}

#[test]
fn a_head_of_16_kib_or_100_headers_is_read_and_no_more() {
    let server = Server::start(&[]);
    assert_eq!(upgrade_of(16_384).len(), 16_384);
    check(&server, upgrade_of(16_384), 101, ACCEPTED);
    check(&server, upgrade_of(16_385), 431, "16384 bytes or 100 header fields");
    check(&server, upgrade_with_fields(100), 101, ACCEPTED);
    check(&server, upgrade_with_fields(101), 431, "16384 bytes or 100 header fields");
    let long_target = upgrade("/chat", &format!("/{}", "x".repeat(16_384)));
    check(&server, long_target, 431, "16384 bytes");
    // Without an end it is refused as soon as none can come within the limit.
    check(&server, "x".repeat(16_384), 431, "16384 bytes");
    check(&server, "\0".repeat(200_000), 431, "16384 bytes");
}

#[test]
fn a_head_of_16_kib_may_be_followed_by_frames_in_the_same_packet() {
    let server = Server::start(&[]);
    let mut stream = server.connect();
    let payload = vec![b'x'; 40_000];
    let both = [upgrade_of(16_384).as_bytes(), &frame(0x82, &payload)].concat();
    stream.write_all(&both).unwrap();
    assert!(read_head(&mut stream).contains(ACCEPTED));
    assert_eq!(read_frame(&mut stream), (0x82, payload));
}

// The rows of the table, and their order

#[test]
fn the_first_row_that_fits_is_the_answer() {
    let server = Server::start(&["--origin", "https://good.example"]);
    let many = "X: y\r\n".repeat(101);
    let no_key_no_version = upgrade(KEY, "").replace(VERSION, "");
    #[rustfmt::skip]
    let table = [
        // Over the limit, and malformed.
        (format!("nonsense\r\n{many}\r\n"), 431, "100 header fields"),
        (format!("GET / HTTP/1.1\n{many}\r\n"), 431, "100 header fields"),
        // Malformed, and a version that is not spoken.
        ("GET / HTTP/2.0\r\nHost : a\r\n\r\n".into(), 400, "name is not a token"),
        ("G(T / HTTP/3.0\r\n\r\n".into(), 400, "method is not a token"),
        // A version that is not spoken, and a method that is not answered.
        ("POST / HTTP/2.0\r\n\r\n".into(), 505, "HTTP/1.1"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, "HTTP/1.1"),
        ("GET / HTTP/1.2\r\n\r\n".into(), 505, "HTTP/1.1"),
        ("GET / HTTP/0.9\r\n\r\n".into(), 505, "HTTP/1.1"),
        // A method that is not answered, with and without an upgrade, whatever the path.
        (format!("POST / HTTP/1.1\r\n{HOST}\r\n"), 405, "GET and HEAD"),
        (format!("DELETE /nothing HTTP/1.1\r\n{HOST}\r\n"), 405, "GET and HEAD"),
        ("OPTIONS * HTTP/1.0\r\n\r\n".into(), 405, "GET and HEAD"),
        (upgrade("GET", "get"), 405, "GET and HEAD"),
        (upgrade("GET", "CONNECT"), 405, "GET and HEAD"),
        // No upgrade to a WebSocket, and nothing else that one needs.
        ("GET / HTTP/1.0\r\n\r\n".into(), 200, "<!doctype html>"),
        ("GET /healthz HTTP/1.0\r\n\r\n".into(), 200, "ok\n"),
        (upgrade("websocket", "h2c").replace("/chat", "/healthz"), 200, "ok\n"),
        (no_key_no_version.replace("Upgrade: websocket\r\n", ""), 404, "nothing is here"),
        ("GET /nothing HTTP/1.0\r\n\r\n".into(), 404, "nothing is here"),
        // Over HTTP/1.0, and without Connection.
        (upgrade("1.1", "1.0"), 400, "proxy_http_version 1.1"),
        (upgrade("1.1", "1.0").replace(CONNECTION, ""), 400, "proxy_http_version 1.1"),
        // Without Connection, Host, with HEAD or a body, and with another version.
        (no_key_no_version.replace(CONNECTION, ""), 400, "Connection does not say upgrade"),
        (no_key_no_version.replace(HOST, ""), 400, "Host is missing"),
        (no_key_no_version.replace(HOST, "Host: a\r\nContent-Length: 5\r\n"), 400, "no body"),
        (
            no_key_no_version.replace(HOST, "Host: a\r\nTransfer-Encoding: chunked\r\n"),
            400,
            "no body",
        ),
        // Another version, and no key.
        (no_key_no_version, 426, "has to be 13"),
        (upgrade(KEY, "").replace("13", "8"), 426, "has to be 13"),
        // No key or no token, and an origin that is not listed.
        (upgrade(KEY, "Origin: https://evil.example\r\n"), 400, "Sec-WebSocket-Key is missing"),
        (
            upgrade(
                HOST,
                "Host: a\r\nSec-WebSocket-Protocol: a b\r\nOrigin: null\r\n",
            ),
            400,
            "Sec-WebSocket-Protocol has a name that is not a token",
        ),
        // An origin that is not listed; with 503 below it is in another test.
        (upgrade_with("Origin: https://evil.example"), 403, "https://evil.example"),
        (upgrade_with("Origin: https://good.example"), 101, ACCEPTED),
    ];
    for (request, status, words) in table {
        check(&server, request, status, words);
    }
}

#[test]
fn a_request_that_is_not_complete_in_time_is_answered_408() {
    let server = Server::start(&["--handshake-timeout", "300ms"]);
    // Even when it is already known to be malformed.
    for start in ["G", "GET / HTTP/1.1\r\nHost: a\r\n", "\0\0\0", "\r\n"] {
        check(&server, start, 408, "in time");
    }
    // But not when it is over the limit.
    check(&server, "x".repeat(16_384), 431, "16384 bytes");
}

#[test]
fn a_client_that_says_nothing_gets_no_answer_and_no_line_in_the_log() {
    let server = Server::start(&["--handshake-timeout", "300ms"]);
    assert_eq!(server.answer(b""), "");
    check(&server, "GET / HTTP/1.1\r\n\r\n", 200, "");
    server.wait_for_log("client 2");
    let log = server.log();
    assert!(!log.iter().any(|line| line.contains("client 1")), "{log:#?}");

    let verbose = Server::start(&["--handshake-timeout", "300ms", "-v"]);
    assert_eq!(verbose.answer(b""), "");
    assert!(verbose.wait_for_log("client 1").contains("DEBUG"));
}

#[test]
fn a_method_that_is_not_answered_is_told_those_that_are() {
    let server = Server::start(&[]);
    let answer = ask(&server, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!((answer.status, answer.header("Allow")), (405, Some("GET, HEAD")));
}

#[test]
fn the_page_is_the_bundled_one_and_may_load_nothing_else() {
    let server = Server::start(&[]);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("static/client.html");
    let page = fs::read_to_string(file).unwrap();
    for path in ["/", "/client.html", "/?from=bookmark"] {
        let answer = ask(&server, format!("GET {path} HTTP/1.1\r\n{HOST}\r\n"));
        assert!(answer.body == page, "{path}");
        assert_eq!(answer.header("Content-Type"), Some("text/html; charset=utf-8"));
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"));
        let policy = answer.header("Content-Security-Policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    let server = Server::start(&[]);
    for (path, status) in [("/", 200), ("/client.html", 200), ("/healthz", 200), ("/nothing", 404)]
    {
        let get = ask(&server, format!("GET {path} HTTP/1.1\r\n{HOST}\r\n"));
        let head = ask(&server, format!("HEAD {path} HTTP/1.1\r\n{HOST}\r\n"));
        assert_eq!((head.status, head.body.as_str()), (status, ""), "{path}");
        assert_eq!(head.head, get.head, "{path}");
    }
    check(&server, upgrade("GET", "HEAD"), 400, "");
}

#[test]
fn http_1_0_is_answered_with_and_without_host() {
    let server = Server::start(&[]);
    for host in ["", HOST] {
        for (path, status, words) in [
            ("/", 200, "<!doctype html>"),
            ("/healthz", 200, "ok\n"),
            ("/nothing", 404, "nothing is here"),
        ] {
            let request = format!("GET {path} HTTP/1.0\r\n{host}\r\n");
            check(&server, request, status, words);
        }
        // As HAProxy's checks and nginx's proxying say it.
        check(
            &server,
            format!("GET /healthz HTTP/1.0\r\n{host}Connection: close\r\n\r\n"),
            200,
            "ok\n",
        );
    }
}

#[test]
fn another_version_is_answered_426_and_told_the_right_one() {
    let server = Server::start(&[]);
    for (version, named) in [
        ("", "missing"),
        ("Sec-WebSocket-Version:\r\n", "\"\""),
        ("Sec-WebSocket-Version: 8\r\n", "\"8\""),
        ("Sec-WebSocket-Version: 14\r\n", "\"14\""),
        ("Sec-WebSocket-Version: 1\u{202e}3\r\n", "\"1\\u{202e}3\""),
    ] {
        let answer = ask(&server, upgrade(VERSION, version));
        assert_eq!(answer.status, 426, "{version}");
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
        assert_eq!(answer.header("Upgrade"), Some("websocket"));
        assert!(answer.body.contains(named), "{}", answer.body);
        assert!(answer.body.contains("has to be 13"), "{}", answer.body);
    }
}

#[test]
fn an_origin_that_is_not_listed_is_forbidden() {
    let any = Server::start(&[]);
    let listed = Server::start(&["--origin", "https://good.example:8443"]);
    let with_null = Server::start(&["--origin", "http://a.example", "--origin", "null"]);
    #[rustfmt::skip]
    let table = [
        ("", 101, 101),
        ("Origin: https://good.example:8443\r\n", 101, 403),
        ("Origin: HTTPS://Good.Example:8443\r\n", 101, 403),
        ("Origin: https://good.example\r\n", 403, 403),
        ("Origin: https://good.example:8443.evil.example\r\n", 403, 403),
        ("Origin: http://a.example\r\n", 403, 101),
        ("Origin: null\r\n", 403, 101),
        ("Origin:\r\n", 403, 403),
        ("Origin: http://a.example\r\nOrigin: http://b.example\r\n", 403, 403),
    ];
    for (origin, to_listed, to_with_null) in table {
        let request = upgrade(HOST, &format!("{HOST}{origin}"));
        for (server, status) in [(&any, 101), (&listed, to_listed), (&with_null, to_with_null)] {
            let answer = ask(server, &request);
            assert_eq!(answer.status, status, "{origin}{}", answer.body);
            assert!(status == 101 || answer.body.starts_with("Origin \""), "{}", answer.body);
        }
    }
    // The page says who it is by Host, and a plain request needs no leave.
    check(&listed, "GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n\r\n", 200, "");
}

#[test]
fn a_full_house_answers_503_but_still_the_page_and_health_checks() {
    let server = Server::start(&["--max-connections", "1", "--origin", "https://good.example"]);
    let seated = server.open();

    let answer = ask(&server, UPGRADE);
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("no seat left"), "{}", answer.body);
    let retry_after: u32 = answer.header("Retry-After").unwrap().parse().unwrap();
    assert!(retry_after > 0);

    // All that stands above 503 in the table stays as it is.
    check(&server, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 200, "ok\n");
    check(&server, "GET / HTTP/1.0\r\n\r\n", 200, "<!doctype html>");
    check(&server, "GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404, "nothing is here");
    check(&server, upgrade("GET", "POST"), 405, "GET and HEAD");
    check(&server, upgrade("13", "8"), 426, "has to be 13");
    check(&server, upgrade(KEY, ""), 400, "Sec-WebSocket-Key is missing");
    check(&server, upgrade_with("Origin: https://evil.example"), 403, "evil");
    check(&server, upgrade_with("Origin: https://good.example"), 503, "no seat left");

    drop(seated);
    eventually(SOON, || ask(&server, UPGRADE).status == 101);
}

#[test]
fn a_stopping_server_answers_503() {
    let server = Server::start(&["--close-timeout", "10s"]);
    let mut keeps_it_waiting = server.open();
    server.signal(Signal::TERM);
    assert_eq!(read_close(&mut keeps_it_waiting), 1001);

    let mut late = server.connect();
    // It may be answered before it has asked.
    let _ = late.write_all(UPGRADE.as_bytes());
    let head = read_head(&mut late);
    assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("Retry-After: "), "{head}");
}

// What follows the head

#[test]
fn a_body_is_not_mistaken_for_a_request() {
    let server = Server::start(&[]);
    let body = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let len = body.len();
    #[rustfmt::skip]
    let table = [
        (format!("GET /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}"), 404),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n{body}"), 405),
        (upgrade_with(&format!("Content-Length: {len}")) + body, 400),
        (upgrade_with("Transfer-Encoding: chunked") + "0\r\n\r\n", 400),
    ];
    for (request, status) in table {
        check(&server, request, status, "");
    }
    // No body is no reason to refuse.
    check(&server, upgrade_with("Content-Length: 0"), 101, ACCEPTED);
}

#[test]
fn a_second_request_behind_a_rejected_one_is_not_answered() {
    let server = Server::start(&[]);
    #[rustfmt::skip]
    let table = [
        (upgrade("13", "8"), 426),
        (upgrade(KEY, ""), 400),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n".into(), 404),
        ("GET / HTTP/1.1\n\n".into(), 400),
        ("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n".into(), 200),
    ];
    for (first, status) in table {
        // `ask` refuses an answer that is followed by another one.
        let answer = ask(&server, first + UPGRADE);
        assert_eq!(answer.status, status);
    }
}

#[test]
fn much_behind_a_rejected_request_does_not_cost_its_answer() {
    let server = Server::start(&[]);
    let body = "x".repeat(1 << 20);
    let request =
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    check(&server, request, 405, "GET and HEAD");
}

// curl

#[test]
fn curl_gets_the_same_answers() {
    if !has_program("curl") {
        return;
    }
    // Silent clients are closed soon, so that curl ends when it was given a WebSocket.
    let flags =
        ["--ping-interval", "200ms", "--ping-timeout", "200ms", "--origin", "https://good.example"];
    let server = Server::start(&flags);
    let long = format!("X: {}", "x".repeat(17_000));
    let upgrade = [
        "-H",
        "Upgrade: websocket",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let with = |more: &[&'static str]| [&upgrade[..], more].concat();
    #[rustfmt::skip]
    let table = [
        ("/", vec![], 200, "<!doctype html>"),
        ("/", vec!["--http1.0"], 200, "<!doctype html>"),
        ("/", vec!["--http2"], 200, "<!doctype html>"),
        ("/", vec!["--head"], 200, "Content-Length: "),
        ("/healthz", vec![], 200, "\r\n\r\nok\n"),
        ("/nothing", vec![], 404, "nothing is here"),
        ("/", vec!["-X", "DELETE"], 405, "Allow: GET, HEAD\r\n"),
        ("/", vec!["-d", "body"], 405, "Allow: GET, HEAD\r\n"),
        ("/", vec!["-H", &long], 431, "16384 bytes"),
        ("/", vec!["--request-target", "*"], 400, "target"),
        ("/", upgrade[..4].to_vec(), 426, "Sec-WebSocket-Version: 13\r\n"),
        ("/", upgrade[..6].to_vec(), 400, "Sec-WebSocket-Key is missing"),
        ("/", with(&["-H", "Host:"]), 400, "Host is missing"),
        ("/", with(&["--http1.0"]), 400, "proxy_http_version 1.1"),
        ("/", with(&["-d", "body", "-X", "GET"]), 400, "no body"),
        ("/", with(&["-H", "Origin: https://evil.example"]), 403, "evil"),
        ("/any", with(&["-H", "Origin: https://good.example"]), 101, ACCEPTED),
        ("/any", upgrade.to_vec(), 101, ACCEPTED),
    ];
    for (path, args, status, words) in table {
        let output = Command::new("curl")
            .args([
                "-q",
                "--silent",
                "--show-error",
                "--include",
                "--max-time",
                "30",
                "--noproxy",
                "*",
            ])
            .args(&args)
            .arg(format!("http://{}{path}", server.addr))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{args:?}: {said}");
        assert!(said.contains(words), "{args:?}: {said}");
    }
}

// The head itself, without a socket

#[test]
fn the_end_of_a_head_is_found_however_it_is_split() {
    use NoRequest::TooLarge;
    let longest = upgrade_of(MAX_HEAD_LEN);
    let too_long = upgrade_of(MAX_HEAD_LEN + 1);
    for (input, expected) in [
        ("", Ok(None)),
        ("\r\n", Ok(None)),
        ("GET / HTTP/1.1\r\nHost: a\r\n", Ok(None)),
        ("GET / HTTP/1.1\r\n\r", Ok(None)),
        ("GET / HTTP/1.1\r\n\r\n", Ok(Some(18))),
        ("GET / HTTP/1.1\r\n\r\n\r\n\r\n", Ok(Some(18))),
        ("GET / HTTP/1.1\n\n", Ok(Some(16))),
        ("GET / HTTP/1.1\n\r\n", Ok(Some(17))),
        ("GET / HTTP/1.1\r\n\n", Ok(Some(17))),
        (UPGRADE, Ok(Some(UPGRADE.len()))),
        (&longest, Ok(Some(MAX_HEAD_LEN))),
        (&too_long, Err(TooLarge)),
    ] {
        let input = input.as_bytes();
        assert_eq!(head_len(input, 0), expected, "{:?}", input.escape_ascii().to_string());
        // What was searched does not have to be searched again.
        let before = expected.unwrap_or(None).unwrap_or(input.len()).saturating_sub(1);
        for searched in before.saturating_sub(40)..=before {
            assert_eq!(head_len(&input[..searched.min(MAX_HEAD_LEN - 1)], 0), Ok(None));
            let searched = searched.min(MAX_HEAD_LEN - 1);
            assert_eq!(head_len(input, searched), expected, "{searched} searched");
        }
    }
}

#[test]
fn a_head_has_at_most_100_fields() {
    for (fields, too_large) in [(0, false), (MAX_FIELDS, false), (MAX_FIELDS + 1, true)] {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(fields));
        for head in [head.clone(), format!("\r\n{head}")] {
            let parsed = Request::parse(head.as_bytes()).map(|request| request.values("x").count());
            let expected = if too_large { Err(NoRequest::TooLarge) } else { Ok(fields) };
            assert_eq!(parsed, expected);
        }
    }
}

#[test]
fn values_are_trimmed_and_lists_joined() {
    let head = "GET / HTTP/1.1\r\nA:one\r\nb: x\r\na: \t two, \"three\" ,,\tfour\t \r\nA:\r\nAB: five\r\n\r\n";
    let request = Request::parse(head.as_bytes()).unwrap();
    let values: Vec<_> = request.values("A").collect();
    assert_eq!(values, [&b"one"[..], b"two, \"three\" ,,\tfour", b""]);
    let list: Vec<_> = request.list("a").collect();
    assert_eq!(list, [&b"one"[..], b"two", b"\"three\"", b"four"]);
    assert_eq!(request.list("c").count(), 0);
}

#[test]
fn a_target_names_a_path_or_none() {
    for (target, path) in [
        ("/", Some("/")),
        ("/a/b", Some("/a/b")),
        ("/a?b/c?d", Some("/a")),
        ("/?", Some("/")),
        ("//a", Some("//a")),
        ("/a://b", Some("/a://b")),
        ("/redirect?to=http://b/c", Some("/redirect")),
        ("http://a", Some("/")),
        ("http://a/", Some("/")),
        ("http://a/b?c", Some("/b")),
        ("http://a?b/c", Some("/")),
        ("ws://[::1]:1222/b", Some("/b")),
        ("*", None),
        ("a:80", None),
        ("a/b", None),
        ("?a", None),
    ] {
        let head = format!("GET {target} HTTP/1.1\r\n\r\n");
        let request = Request::parse(head.as_bytes()).unwrap();
        assert_eq!(request.path(), path, "{target}");
    }
}

#[test]
fn what_shows_before_the_head_has_ended_is_answered_at_once() {
    let server = Server::start(&["--handshake-timeout", "1h"]);
    let many = format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(150));
    let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(16 * 1024));
    for (request, answer) in [
        (many.as_bytes(), "HTTP/1.1 431 "),
        (long.as_bytes(), "HTTP/1.1 431 "),
        (b"\x16\x03\x01\x02\x00\x01", "this is TLS"),
    ] {
        let mut client = server.connect();
        client.write_all(request).unwrap();
        let mut answered = String::new();
        client.read_to_string(&mut answered).unwrap();
        assert!(answered.contains(answer), "{answered}");
    }
}
