//! The opening handshake on a socket: how the bytes of the request arrive, and how the response ends.

use std::io::Write as _;
use std::process::Command;
use std::time::SystemTime;

use crate::frames::{close, frame};
use crate::support::{
    HEALTH_CHECK, PREFIX, SOON, Server, UPGRADE, assert_status, has_programs, read_all, read_close,
    read_frame, read_head,
};

const PAGE: &str = include_str!("../../../static/client.html");

const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

#[test]
fn the_first_frames_may_come_in_the_same_packet_as_the_request() {
    let server = Server::start(&[]);
    let frames = [frame(0x81, b"one"), frame(0x89, b"two"), close(1000)].concat();
    for split in 0..=frames.len() {
        let (with_it, after) = frames.split_at(split);
        let mut stream = server.send([UPGRADE.as_bytes(), with_it].concat());
        assert!(read_head(&mut stream).contains(ACCEPT));
        stream.write_all(after).unwrap();
        assert_eq!(read_frame(&mut stream), (0x81, format!("{PREFIX}one").into()));
        assert_eq!(read_frame(&mut stream), (0x8A, b"two".into()));
        assert_eq!(read_close(&mut stream), 1000);
    }

    // Also after the longest head, which fills the input.
    let longest = format!("\r\nX: {}\r\n\r\n", "x".repeat(16 * 1024 - UPGRADE.len() - 5));
    let longest = UPGRADE.replace("\r\n\r\n", &longest);
    let payload = vec![b'x'; 40_000];
    let mut stream = server.send([longest.as_bytes(), &frame(0x82, &payload)].concat());
    assert!(read_head(&mut stream).contains(ACCEPT));
    assert_eq!(read_frame(&mut stream), (0x82, payload));
}

/// A response that is known early waits neither for the end of the head nor for that of the stream.
#[test]
fn every_response_is_complete_and_nothing_follows_it() {
    let server = Server::start(&["--handshake-timeout=1m"]);
    for (request, status, body) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 200, PAGE),
        (&HEALTH_CHECK.repeat(2), 200, "ok\n"),
        ("GET /nothing HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", 404, "not found"),
        (&UPGRADE.replace("13", "8"), 426, "has to be 13"),
        (&(UPGRADE.replace("/chat", "*") + UPGRADE), 400, "target"),
        (&UPGRADE.replace("Host: localhost\r\n", ""), 400, "Host is missing"),
        ("POST / HTTP/1.1\r\nHost: a\r\n\r\n", 405, "GET and HEAD"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "HTTP/1.1"),
        ("\x16\x03\x01\x02\x00\x01", 400, "this is TLS"),
        (&format!("GET / HTTP/1.1\r\n{}", "X: y\r\n".repeat(150)), 431, "100 header fields"),
        (&"x".repeat(100_000), 431, "16384 bytes"),
    ] {
        let response = server.response(request);
        assert_status(&response, status);
        let (head, content) = response.split_once("\r\n\r\n").unwrap();
        assert!(content.contains(body), "{response}");
        let field = |name: &str| {
            let mut values = head.lines().filter_map(|line| line.split_once(": "));
            values.find(|(field, _)| *field == name).unwrap_or_else(|| panic!("{name}: {head}")).1
        };
        assert_eq!(field("Content-Length"), content.len().to_string());
        assert!(head.lines().any(|line| line == "Connection: close"), "{head}");
        // Whatever a request says, its response is not taken for another page.
        assert_eq!(field("X-Content-Type-Options"), "nosniff");
        let expected = if body == PAGE { "text/html" } else { "text/plain" };
        assert_eq!(field("Content-Type"), format!("{expected}; charset=utf-8"));
        let date = httpdate::parse_http_date(field("Date")).unwrap();
        let age = SystemTime::now().duration_since(date).unwrap();
        assert!(age < SOON, "{head}");
    }
}

#[test]
fn a_response_is_not_lost_to_a_reset_though_the_client_goes_on_sending() {
    let server = Server::start(&[]);
    let mut stream = server.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    let response = read_all(&mut stream);
    assert_status(&response, 405);
    server.answers_at_once();
    // After a reset, the second piece could not be sent.
    for piece in [400_000, 600_000] {
        stream.write_all(&vec![b'x'; piece]).unwrap();
    }
}

#[test]
fn curl_understands_the_responses() {
    const WEBSOCKET: [&str; 8] = [
        "-HUpgrade: websocket",
        "-HConnection: Upgrade",
        "-HSec-WebSocket-Version: 13",
        "-HSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "-HOrigin: https://a.example",
        "--http1.1",
        "--max-time",
        "30",
    ];
    if !has_programs(&["curl"]) {
        return;
    }
    // Silent clients are closed soon, so that a curl with an open WebSocket ends.
    let server = Server::start(&["--ping-interval=200ms", "--ping-timeout=200ms"]);
    let long = format!("-HX: {}", "x".repeat(17_000));
    for (path, flags, status, words) in [
        ("/", &[][..], 200, PAGE),
        ("/", &["--http1.0"], 200, PAGE),
        ("/", &["--http2"], 200, PAGE),
        ("/", &["--head"], 200, "Content-Length: "),
        ("/", &["-d", "body"], 405, "Allow: GET, HEAD\r\n"),
        ("/", &[&long], 431, "16384 bytes"),
        ("/", &WEBSOCKET[..2], 426, "Sec-WebSocket-Version: 13\r\n"),
        ("/any", &WEBSOCKET, 101, ACCEPT),
    ] {
        let output = Command::new("curl")
            .args(["-q", "--silent", "--show-error", "--include", "--noproxy", "*"])
            .args(flags)
            .arg(format!("http://{}{path}", server.addr))
            .output()
            .unwrap();
        assert!(output.status.success(), "{flags:?}: {output:?}");
        let response = String::from_utf8_lossy(&output.stdout);
        assert_status(&response, status);
        assert!(response.contains(words), "{flags:?}: {response}");
    }
}
