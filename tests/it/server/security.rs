//! Attackers can't forge the log, learn what others sent, or run anything in the page.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use crate::frames::frame;
use crate::support::{Server, TempDir, assert_status, wait_for_line};

const PAGE: &str = include_str!("../../../static/client.html");

/// The origin whose pages may connect.
const HOME: &str = "https://home.example";

/// Characters that could begin a line, end a quote, or change how the rest of a line looks.
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

// The log

#[test]
fn nothing_that_a_client_sends_forges_the_log_or_a_response() {
    let dir = TempDir::new();
    let log = dir.path("wsecho.log");
    let server = Server::start_logging_to(&log, &["-vv", "--origin", HOME]);
    let mut peers = BTreeSet::new();
    let mut exchange = |sent: &[u8]| {
        let mut stream = server.connect();
        peers.insert(stream.local_addr().unwrap().to_string());
        stream.write_all(sent).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    };
    for forgery in FORGERIES {
        for request in forged_requests(forgery) {
            let response = String::from_utf8(exchange(&request)).unwrap();
            let (head, body) = response.split_once("\r\n\r\n").expect("a head");
            head.split("\r\n").for_each(assert_plain);
            if body != PAGE {
                assert_plain(body.strip_suffix('\n').unwrap_or(body));
            }
        }
        let opened = upgrade("/", "Origin", HOME.as_bytes());
        for reason in [forgery, &forgery[..3]] {
            exchange(
                &[
                    opened.clone(),
                    frame(0x82, forgery),
                    frame(0x81, forgery),
                    frame(0x88, &[b"\x0F\xA0", reason].concat()),
                ]
                .concat(),
            );
            exchange(&[opened.clone(), frame(0x88, &[b"\x0F\xA0", reason].concat())].concat());
        }
    }
    server.response("GET /the-last-one HTTP/1.0\r\n\r\n");
    wait_for_line(&log, "/the-last-one");

    let log = String::from_utf8(fs::read(&log).unwrap()).expect("the log is UTF-8");
    for line in log.strip_suffix('\n').unwrap().split('\n') {
        assert_plain(line);
        let levels = [" INFO ] ", " DEBUG] ", " TRACE] "];
        let message = levels.iter().find_map(|level| Some(line.split_once(level)?.1));
        let message = message.unwrap_or_else(|| panic!("{line}"));
        let peer = match message.split_once(" connected: ") {
            Some((client, peer)) if client.starts_with("client ") => peer,
            _ => message,
        };
        peers.remove(peer.split([' ', ',']).next().unwrap().trim_end_matches(':'));
    }
    assert_eq!(peers, BTreeSet::new(), "these are not in the log");
}

/// Requests with `forgery` in every place that may be shown in the log or in a response.
fn forged_requests(forgery: &[u8]) -> Vec<Vec<u8>> {
    let percent = forgery.iter().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"));
    let mut requests = vec![
        upgrade(&format!("/{percent}"), "Origin", HOME.as_bytes()),
        [b"GET /", forgery, b" HTTP/1.1\r\nHost: localhost\r\n\r\n"].concat(),
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

#[test]
fn secrets_of_a_client_are_neither_in_the_log_nor_in_a_response() {
    const SECRETS: &str = "Cookie: session=s3cret\r\nAuthorization: Bearer s3cret\r\n\
        Proxy-Authorization: Basic s3cret\r\n";
    let server = Server::start(&["-vv", "--origin", HOME]);
    let upgrade = String::from_utf8(upgrade("/chat", "Origin", HOME.as_bytes())).unwrap();
    let with_secrets = |request: &str| request.replacen("Host:", &format!("{SECRETS}Host:"), 1);
    let page = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (request, status) in [
        (with_secrets(&upgrade), 101),
        // Browsers can't set a header of a WebSocket, so tokens travel in the query.
        (upgrade.replace("/chat", "/chat?token=s3cret"), 101),
        (with_secrets(&upgrade.replace(HOME, "null")), 403),
        (with_secrets(&upgrade.replace("13", "8")), 426),
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
        let response = server.last_response(&request);
        assert_status(&response, status);
        assert!(!response.contains("s3cret"), "{response}");
    }
    server.response("GET /the-last-one HTTP/1.0\r\n\r\n");
    server.wait_for_log("/the-last-one");
    let log = server.log();
    assert!(log.len() > 13 && !log.concat().contains("s3cret"), "{log:#?}");
}

// The page

#[test]
fn the_page_runs_its_own_script_and_style_and_nothing_else() {
    let server = Server::start(&[]);
    let response = server.response("GET / HTTP/1.0\r\n\r\n");
    let (head, page) = response.split_once("\r\n\r\n").unwrap();
    assert_eq!(page, PAGE);
    // An element with an attribute, such as src, could run something that the hash does not cover.
    for element in ["script", "style"] {
        assert_eq!(page.matches(&format!("<{element}")).count(), 1);
        assert_eq!(page.matches(&format!("<{element}>")).count(), 1);
    }
    let policies = head.lines().filter_map(|line| line.strip_prefix("Content-Security-Policy: "));
    let policy = policies.collect::<Vec<_>>().join("; ");
    let (hashes, rest): (Vec<_>, Vec<_>) =
        policy.split("; ").partition(|directive| directive.contains("'sha256-"));
    assert_eq!(hashes.len(), 2);
    for (directive, name) in hashes.iter().zip(["script-src", "style-src"]) {
        let (first, hash) = directive.split_once(' ').unwrap();
        assert!(first == name && !hash.contains(' '), "{directive}");
    }
    assert_eq!(
        rest.join("; "),
        "default-src 'none'; img-src data:; connect-src ws: wss: http: https:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'"
    );
}

/// An upgrade request with one header replaced or added.
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
