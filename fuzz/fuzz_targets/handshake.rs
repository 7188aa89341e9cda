//! Whatever comes as a request, the response is well-formed HTTP, and is never 101 where tungstenite's
//! server refuses for a reason that RFC 6455 gives.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::arbitrary::{self, Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tungstenite::HandshakeError;
use tungstenite::error::{Error, ProtocolError};
use wsecho::app::cases::results::Cases;
use wsecho::app::behavior::Behaviors;
use wsecho::app::routes::{self, Opening};
use wsecho::http::origin::Origin;
use wsecho::http::request::{self, ParseError, Request};
use wsecho::http::response::Response;
use wsecho::websocket::handshake::Policy;
use wsecho::websocket::negotiation::Mode;
use wsecho_fuzz::client::rarely;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[derive(Arbitrary, Debug)]
struct Input {
    /// In pieces of this many bytes the request comes.
    piece: u16,
    origins: bool,
    subprotocols: bool,
    head: Head,
}

fuzz_target!(|input: Input| {
    let mut policy = Policy { compression: Mode::default().terms(), ..Policy::default() };
    if input.origins {
        policy.origins.push(Origin::parse("https://example.org").unwrap());
    }
    if input.subprotocols {
        policy.subprotocols.push("chat".into());
    }
    let Head(bytes) = &input.head;
    let head = find_head(bytes, bytes.len());
    let decided = decide(head, &policy);
    assert_eq!(decided, decide(find_head(bytes, input.piece.into()), &policy));
    let Some(decided) = decided else { return };

    let request = head.and_then(|head| Request::parse(head.unwrap()));
    let method = request.as_ref().map_or("GET", |request| request.method);
    let Opening { upgrade, behavior } = match decided {
        Err(response) => return check_http(&response, method),
        Ok(opening) => opening,
    };
    check_http(&upgrade.response(), method);
    let (head, request) = (head.unwrap().unwrap(), request.unwrap());
    if let Some(behavior) = behavior {
        check_http(&routes::open(&request, &upgrade, behavior.handshake), method);
    }
    check_accept(head, &request, &upgrade.accept);
    let offers = Vec::from_iter(request.list("Sec-WebSocket-Protocol"));
    let agreed = match input.subprotocols {
        true => offers.into_iter().find(|offer| *offer == b"chat"),
        false => offers.first().copied(),
    };
    assert_eq!(upgrade.subprotocol.as_deref().map(str::as_bytes), agreed);
    for origin in request.values("Origin") {
        let origin = String::from_utf8_lossy(origin).to_ascii_lowercase();
        let port = origin.strip_prefix("https://example.org");
        let port = port.map(|port| port.trim_start_matches([':', '0']));
        let is_listed = matches!(port, Some("" | "443"));
        let is_own = request.values("Host").any(|host| is_own(&origin, host));
        assert!(!input.origins || is_listed || is_own, "{origin:?}");
    }
});

/// Whether the page may be the bundled one: it is of the host that the request goes to, and that is an IP
/// address or localhost. Ports, which may be left out, are not looked at.
fn is_own(origin: &str, host: &[u8]) -> bool {
    let without_port = |authority: &str| match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name.to_owned(),
        _ => authority.to_owned(),
    };
    let Some(("http" | "https", page)) = origin.split_once("://") else { return false };
    let page = without_port(page);
    if page.starts_with('[') {
        return host.starts_with(b"[");
    }
    let is_number = page.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    page == without_port(&host) && (page == "localhost" || is_number)
}

/// What becomes of a request, once its head came.
fn decide(
    head: std::result::Result<Option<&[u8]>, ParseError>,
    policy: &Policy,
) -> Option<std::result::Result<Opening, Response>> {
    let request = head.transpose()?.and_then(Request::parse);
    Some(request.map_or_else(
        |error| Err(routes::refuse(error)),
        |request| routes::route(&request, policy, Behaviors::On, &Cases::default()),
    ))
}

/// Looks for the head in pieces of `piece` bytes, but in at most a thousand, so that a round stays
/// short.
fn find_head(bytes: &[u8], piece: usize) -> std::result::Result<Option<&[u8]>, ParseError> {
    let piece = piece.max(bytes.len() / 1000).max(1);
    let (mut came, mut searched) = (0, 0);
    while came < bytes.len() {
        came = bytes.len().min(came + piece);
        match request::head_len(&bytes[..came], searched)? {
            Some(len) => return Ok(Some(&bytes[..len])),
            None => searched = came,
        }
    }
    Ok(None)
}

/// Parses a response by a parser that we did not write, and then more strictly.
fn check_http(response: &Response, method: &str) {
    let encoded = response.encode(method, DATE);
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let head_len = response.parse(&encoded).expect("HTTP").unwrap();
    let (head, body) = encoded.split_at(head_len);
    let head = str::from_utf8(head).expect("ASCII");
    for line in head.split("\r\n") {
        assert!(!line.contains(|c: char| c.is_control()), "{line:?} in {head}");
    }
    let values = |name: &str| -> Vec<&[u8]> {
        let named = response.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value).collect()
    };
    if response.code == Some(101) {
        assert_eq!(values("Upgrade"), [b"websocket"]);
        assert_eq!(values("Connection"), [b"Upgrade"]);
        assert_eq!((values("Content-Length").len(), body), (0, &b""[..]));
        return;
    }
    assert!(values("Connection").contains(&&b"close"[..]), "{head}");
    assert_eq!(values("Date"), [DATE.as_bytes()]);
    let [len] = values("Content-Length")[..] else {
        panic!("not one Content-Length: {head}");
    };
    let len: usize = str::from_utf8(len).unwrap().parse().unwrap();
    let body = str::from_utf8(body).expect("UTF-8");
    assert_eq!(body.len(), if method == "HEAD" { 0 } else { len });
    if response.code != Some(200) && method != "HEAD" {
        let reason = body.strip_suffix('\n').expect("a whole line");
        assert!(!reason.contains(char::is_control), "{reason:?} is one line for a developer");
    }
}

/// tungstenite accepts with the same value, or refuses for a reason of its own.
fn check_accept(head: &[u8], request: &Request, accept: &str) {
    let stream = Stream { input: head, output: Vec::new() };
    let error = match tungstenite::accept(stream) {
        Ok(socket) => {
            let response = String::from_utf8_lossy(&socket.get_ref().output);
            let line = format!("sec-websocket-accept: {accept}\r\n");
            return assert!(response.contains(&line), "{line} is not in {response}");
        }
        Err(HandshakeError::Failure(error)) => error,
        Err(HandshakeError::Interrupted(_)) => panic!("the head is whole"),
    };
    assert!(is_known(&error, request), "{error} in {}", String::from_utf8_lossy(head));
}

/// What tungstenite refuses, though RFC 6455 does not ask it to.
fn is_known(error: &Error, request: &Request) -> bool {
    let error = match error {
        Error::Protocol(error) => error,
        // RFC 6455 leaves the target's grammar to others, and browsers send some characters that are
        // in no URI. The path in a whole URL is all that is looked at.
        Error::HttpFormat(_) => {
            let is_odd = |byte: u8| br#""<>[\]^`{|}"#.contains(&byte);
            return !request.target.starts_with('/') || request.target.bytes().any(is_odd);
        }
        _ => return false,
    };
    let is_list = |name| {
        request.values(name).nth(1).is_some()
            || request.values(name).any(|value| value.contains(&b','))
    };
    match error {
        // It knows HTTP/1.0 and 1.1. RFC 9110 §2.5: a higher minor version is processed as the highest
        // one that is known.
        ProtocolError::HttparseError(httparse::Error::Version) => request.version.1 > 1,
        // It reads the first field of a name only, and takes Upgrade for one value. §4.2.1 asks for
        // fields that contain a token; by RFC 9110 §5.3 and §7.8 both are lists.
        ProtocolError::MissingUpgradeWebSocketHeader => is_list("Upgrade"),
        ProtocolError::MissingConnectionUpgradeHeader => is_list("Connection"),
        // 16 bytes leave four bits of the last digit unused. RFC 4648 §3.5 lets a decoder refuse a
        // key that has them set, and does not ask it to.
        ProtocolError::InvalidSecWebSocketKey => request.values("Sec-WebSocket-Key").any(|key| {
            matches!(key, [digits @ .., last, b'=', b'='] if digits.len() == 21 && !b"AQgw".contains(last))
        }),
        _ => false,
    }
}

/// A request's head, maybe with bytes after it or without its end.
#[derive(Debug)]
struct Head(Vec<u8>);

impl<'a> Arbitrary<'a> for Head {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        const FIELDS: [(&str, &[&str]); 10] = [
            ("Host", &["localhost", "", "a:1, b", "127.0.0.1:1222"]),
            ("Upgrade", &["websocket", "WebSocket", "h2c", "h2c, websocket", "websocket/13"]),
            ("Connection", &["Upgrade", "keep-alive, Upgrade", "keep-alive,\tupgrade", "close"]),
            ("Sec-WebSocket-Version", &["13", "8", "013", "13, 8"]),
            (
                "Sec-WebSocket-Key",
                &[
                    "dGhlIHNhbXBsZSBub25jZQ==",
                    "dGhlIHNhbXBsZSBub25jZR==",
                    "dGhlIHNhbXBsZSBub25jZQ",
                    "dGhlIHNhbXBsZSBub25jZQ= =",
                    "AAAA",
                ],
            ),
            ("Sec-WebSocket-Protocol", &["chat", "soap, chat", ",", "a b", "\"chat\""]),
            (
                "Origin",
                &[
                    "https://example.org",
                    "HTTPS://EXAMPLE.ORG",
                    "null",
                    "https://a.b",
                    "http://localhost",
                    "http://127.0.0.1:1222",
                    "http://[::1]",
                ],
            ),
            ("Content-Length", &["0", "00", "5", "-1"]),
            ("Transfer-Encoding", &["chunked", "identity"]),
            ("X-Any", &["", "a b", "\u{e4}", "\0", "a\rb"]),
        ];
        const NEEDED: usize = 5;

        let mut head = Vec::new();
        if !rarely(u)? {
            let method = usual(u, &["GET", "HEAD", "POST", "get", "G@T"])?;
            let target = usual(
                u,
                &[
                    "/",
                    "/chat?a=b",
                    "/do?bad=protocol",
                    "/do?dump&status=301",
                    "http://host/x",
                    "*",
                    "/healthz",
                    "/a b",
                    "",
                ],
            )?;
            let version = usual(u, &["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1"])?;
            head.extend([&method[..], b" ", &target, b" ", &version].concat());
            line_end(u, &mut head)?;
            for (name, values) in &FIELDS[..NEEDED] {
                if !rarely(u)? {
                    field(u, name, values, &mut head)?;
                }
            }
            for _ in 0..u.int_in_range(0..=3)? {
                let (name, values) = u.choose(&FIELDS)?;
                field(u, name, values, &mut head)?;
            }
            if rarely(u)? {
                head.extend(b"X-Many: x\r\n".repeat(u.int_in_range(80..=110)?));
            }
            if rarely(u)? {
                head.extend(
                    [b"X-Long: ", &[b'x'; 20_000][..u.int_in_range(16_000..=17_000)?]].concat(),
                );
                line_end(u, &mut head)?;
            }
            line_end(u, &mut head)?;
        }
        head.extend(u.bytes(u.len())?);
        Ok(Head(head))
    }
}

fn field(u: &mut Unstructured, name: &str, values: &[&str], head: &mut Vec<u8>) -> Result<()> {
    let name = match u.int_in_range(0..=7)? {
        5 => name.to_lowercase(),
        6 => name.to_uppercase(),
        7 if rarely(u)? => [name, u.arbitrary()?].concat(),
        _ => name.into(),
    };
    head.extend(name.as_bytes());
    head.extend(usual(u, &[": ", ":", ":\t ", " : ", ";"])?);
    head.extend(usual(u, values)?);
    line_end(u, head)
}

fn line_end(u: &mut Unstructured, head: &mut Vec<u8>) -> Result<()> {
    head.extend(usual(u, &["\r\n", "\r\n", "\n", "\r\n ", " \t\r\n", "\r"])?);
    Ok(())
}

/// The first most often, seldom another one, and very seldom anything.
fn usual(u: &mut Unstructured, values: &[&str]) -> Result<Vec<u8>> {
    match u.int_in_range(0..=31)? {
        0..=24 => Ok(values[0].into()),
        25..=29 => Ok((*u.choose(values)?).into()),
        30 => Ok(u.arbitrary::<&str>()?.into()),
        _ => Ok(u.arbitrary::<&[u8]>()?.into()),
    }
}

struct Stream<'h> {
    input: &'h [u8],
    output: Vec<u8>,
}

impl Read for Stream<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.input.read(into)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
