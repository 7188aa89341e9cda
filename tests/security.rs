//! What an attacker can't do: forge the log, learn what others sent, or run anything in the page.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

use common::{Scratch, Server, frame, wait_for_line};

const PAGE: &str = include_str!("../static/client.html");

/// The one origin that is let in.
const HOME: &str = "https://home.example";

/// What could begin a line of its own, leave the quotes, or change how the rest of a line looks.
const FORGERIES: [&[u8]; 16] = [
    b"\n[2000-01-01T00:00:00.000Z ERROR] forged",
    b"\r[2000-01-01T00:00:00.000Z ERROR] forged",
    b"\r\n[2000-01-01T00:00:00.000Z ERROR] forged",
    b"\x1b[2K\x1b[31mforged",
    b"\x00\x07\x08\x0b\x0cforged",
    b"\x7fforged",
    b"\x85\x9bforged",
    "\u{85}\u{90}\u{9b}31mforged".as_bytes(),
    "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}forged".as_bytes(),
    "\u{2066}\u{2067}\u{2068}\u{2069}forged".as_bytes(),
    "\u{61c}\u{200e}\u{200f}forged".as_bytes(),
    "\u{2028}\u{2029}forged".as_bytes(),
    "\u{feff}\u{200b}\u{2060}\u{ad}forged".as_bytes(),
    "\u{e0001}\u{e0041}forged".as_bytes(),
    b"\xed\xa0\x80\xff\xfe\xc0\xafforged",
    b"\"forged\\\"forged",
];

#[test]
fn nothing_that_a_client_sends_forges_the_log_or_an_answer() {
    let scratch = Scratch::new("forged");
    let log = scratch.path("wsecho.log");
    let server = Server::start_with_log_file(&log, &["-vv", "--origin", HOME]);
    let mut clients = 0;
    for forgery in FORGERIES {
        for request in forged_requests(forgery) {
            clients += 1;
            let answer = answer_to(&server, &request);
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            head.split("\r\n").for_each(assert_plain);
            if body != PAGE {
                assert_plain(body.strip_suffix('\n').unwrap_or(body));
            }
        }
        for close_reason in [forgery, &forgery[..forgery.len().min(3)]] {
            clients += 1;
            let mut client = server.connect();
            let conversation = [
                upgrade("/", "Origin", HOME.as_bytes()),
                frame(0x82, forgery),
                frame(0x01, b"in two "),
                frame(0x80, b"pieces"),
                frame(0x88, &[b"\x0F\xA0", close_reason].concat()),
            ];
            client.write_all(&conversation.concat()).unwrap();
            client.read_to_end(&mut Vec::new()).unwrap();
            if let Ok(text) = str::from_utf8(forgery) {
                clients += 1;
                let mut client = server.connect();
                client.write_all(&upgrade("/", "Origin", HOME.as_bytes())).unwrap();
                client.write_all(&frame(0x81, text.as_bytes())).unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                client.read_to_end(&mut Vec::new()).unwrap();
            }
        }
    }
    clients += 1;
    server.answer(b"GET /the-last-one HTTP/1.1\r\n\r\n");
    wait_for_line(&log, "/the-last-one");

    let log = String::from_utf8(fs::read(&log).unwrap()).expect("the log is UTF-8");
    let mut seen = BTreeSet::new();
    for line in log.strip_suffix('\n').unwrap().split('\n') {
        assert_plain(line);
        let (_, message) = line
            .split_once("INFO ] ")
            .or_else(|| line.split_once("DEBUG] "))
            .unwrap_or_else(|| panic!("{line:?}"));
        if let Some(client) = message.strip_prefix("client ") {
            let digits = client.find(|c: char| !c.is_ascii_digit()).unwrap();
            seen.insert(client[..digits].parse::<usize>().unwrap());
        }
    }
    assert_eq!(seen, (1..=clients).collect(), "a story for each client");
}

/// Requests with `forgery` in every place that may be told in the log or in an answer.
fn forged_requests(forgery: &[u8]) -> Vec<Vec<u8>> {
    let percent: String = forgery.iter().map(|byte| format!("%{byte:02X}")).collect();
    let raw = [b"/", forgery].concat();
    let mut requests = vec![
        upgrade(&format!("/{percent}"), "Origin", HOME.as_bytes()),
        [b"GET ", &raw[..], b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat(),
        [b"GET / ", forgery, b"\r\nHost: localhost\r\n\r\n"].concat(),
        [forgery, b" / HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat(),
        [b"GET / HTTP/1.1\r\n", forgery, b": localhost\r\n\r\n"].concat(),
    ];
    for name in [
        "Host",
        "Origin",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Extensions",
        "X-Forwarded-For",
        "User-Agent",
    ] {
        requests.push(upgrade("/", name, forgery));
    }
    requests
}

#[test]
fn what_a_client_keeps_secret_stands_neither_in_the_log_nor_in_an_answer() {
    const SECRETS: &str = "Cookie: session=s3cret\r\nAuthorization: Bearer s3cret\r\n\
        Proxy-Authorization: Basic s3cret\r\n";
    let server = Server::start(&["-vv", "--origin", HOME]);
    let upgrade = String::from_utf8(upgrade("/chat", "Origin", HOME.as_bytes())).unwrap();
    let with_secrets = |request: &str| request.replacen("Host:", &format!("{SECRETS}Host:"), 1);
    let page = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (request, status) in [
        (with_secrets(&upgrade), 101),
        // In the query, where tokens travel since a browser sets no header of a WebSocket.
        (upgrade.replace("/chat", "/chat?token=s3cret"), 101),
        (with_secrets(&upgrade.replace(HOME, "null")), 403),
        (with_secrets(&upgrade.replace("13", "8")), 426),
        (with_secrets(&upgrade.replace("Connection", "X")), 400),
        (with_secrets(page), 200),
        (with_secrets(&page.replace("/ ", "/none ")), 404),
        (with_secrets(&page.replace("GET", "POST")), 405),
        (with_secrets(&page.replace("1.1", "3.0")), 505),
        (with_secrets(page).replace("s3cret", "s3cret\x01"), 400),
        (with_secrets(page).replace("Cookie:", "Cookie"), 400),
        (with_secrets(page).replace("Bearer ", "\r\n "), 400),
        (with_secrets(page).replace("\r\n\r\n", ""), 400),
        (with_secrets(page).replace("Host", &"x".repeat(20_000)), 431),
    ] {
        let answer = answer_to(&server, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
        assert!(!answer.contains("s3cret"), "{answer}");
    }
    server.answer(b"GET /the-last-one HTTP/1.1\r\n\r\n");
    server.wait_for_log("/the-last-one");
    let log = server.log();
    assert!(log.len() > 14 && !log.concat().contains("s3cret"), "{log:#?}");
}

#[test]
fn only_pages_of_a_listed_origin_connect() {
    let flags = ["--origin", HOME, "--origin", "null"];
    let server = Server::start(&flags);
    for origin in [HOME, "HTTPS://Home.Example", "null"] {
        let answer = answer_to(&server, &upgrade("/", "Origin", origin.as_bytes()));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{origin}: {answer}");
    }
    for origin in [
        "https://evil.example",
        "http://home.example",
        "https://home.example:8443",
        "https://home.example.evil.example",
        "https://evil-home.example",
        "https://home.example, null",
        "",
    ] {
        let answer = answer_to(&server, &upgrade("/", "Origin", origin.as_bytes()));
        let reason = format!("\r\n\r\nOrigin {origin:?} is not allowed to connect\n");
        assert!(answer.starts_with("HTTP/1.1 403 "), "{origin}: {answer}");
        assert!(answer.ends_with(&reason), "{origin}: {answer}");
        server.wait_for_log(&format!("got 403 Forbidden: Origin {origin:?} is not"));
    }
    // One listed origin does not open the door for another.
    let both = format!("{HOME}\r\nOrigin: https://evil.example");
    let answer = answer_to(&server, &upgrade("/", "Origin", both.as_bytes()));
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    // Only browsers send one, and only their users need the protection.
    let answer = answer_to(&server, common::UPGRADE.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
}

#[test]
fn the_page_runs_its_own_script_and_style_and_nothing_else() {
    let server = Server::start(&[]);
    let answer = server.answer(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, page) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(page, PAGE);
    let header = |name: &str| {
        let mut values = head.lines().filter_map(|line| line.strip_prefix(name));
        let value = values.next().and_then(|value| value.strip_prefix(": "));
        assert_eq!(values.next(), None, "{name} is repeated");
        value.unwrap_or_else(|| panic!("{name} is missing: {head}"))
    };
    assert_eq!(header("X-Content-Type-Options"), "nosniff");
    assert_eq!(header("Content-Type"), "text/html; charset=utf-8");

    let hash_of_the_only = |element: &str| {
        let open = format!("<{element}");
        assert_eq!(page.matches(&open).count(), 1, "{element}");
        let (_, part) = page.split_once(&open).unwrap();
        let (content, _) = part.split_once(&format!("</{element}>")).unwrap();
        // With an attribute, such as src, the hash might be of something else.
        let content = content.strip_prefix('>').expect("no attributes");
        format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(content)))
    };
    let policy: BTreeSet<_> = header("Content-Security-Policy").split("; ").collect();
    let script = format!("script-src {}", hash_of_the_only("script"));
    let style = format!("style-src {}", hash_of_the_only("style"));
    assert_eq!(
        policy,
        BTreeSet::from([
            "default-src 'none'",
            &script,
            &style,
            "img-src data:",
            "connect-src ws: wss:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ])
    );
}

#[test]
fn no_answer_may_be_taken_for_a_page() {
    let server = Server::start(&[]);
    for request in [
        "GET /healthz HTTP/1.1\r\n\r\n",
        "GET /<script>alert(1)</script> HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: <script>alert(1)</script>\r\n\r\n",
        "rubbish\r\n\r\n",
    ] {
        let answer = server.answer(request.as_bytes());
        for header in
            ["Content-Type: text/plain; charset=utf-8\r\n", "X-Content-Type-Options: nosniff\r\n"]
        {
            assert!(answer.contains(header), "{answer}");
        }
    }
}

/// An upgrade request in which one header has, or is, something else.
fn upgrade(target: &str, name: &str, value: &[u8]) -> Vec<u8> {
    let mut request = format!("GET {target} HTTP/1.1\r\n").into_bytes();
    for (usual, usual_value) in [
        ("Host", "localhost"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Origin", HOME),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ] {
        if usual != name {
            request.extend(format!("{usual}: {usual_value}\r\n").bytes());
        }
    }
    [&request, name.as_bytes(), b": ", value, b"\r\n\r\n"].concat()
}

/// The answer to a request behind which nothing comes.
fn answer_to(server: &Server, request: &[u8]) -> String {
    let mut client = server.connect();
    client.write_all(request).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    String::from_utf8(answer).expect("an answer is UTF-8")
}

/// Fails if `line` is more than a line, changes how a terminal or an editor shows it, or has a
/// client's words outside of quotes.
fn assert_plain(line: &str) {
    let deceives = |c: char| {
        c.is_control()
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
    };
    assert!(!line.contains(deceives), "{line:?}");
    let mut quoted = false;
    let mut escaped = false;
    let outside: String = line
        .chars()
        .filter(|&c| {
            let quote = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            quoted ^= quote;
            !quoted
        })
        .collect();
    assert!(!quoted && !outside.contains("forged"), "{line:?}");
}
