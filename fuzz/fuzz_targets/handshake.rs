//! Whatever is sent as a request, the answer is well-formed HTTP, and is never 101 where
//! tungstenite's server refuses for a reason that RFC 6455 gives.

#![no_main]

use std::io::{self, Read, Write};

use libfuzzer_sys::arbitrary::{self, Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use tungstenite::HandshakeError;
use tungstenite::error::{Error, ProtocolError};
use wsecho::handshake::{self, Answer, Rejection, Rules};
use wsecho::request::{self, NoRequest, Request};

#[derive(Arbitrary, Debug)]
struct Input {
    /// How the request is cut, in bytes.
    read: u16,
    origins: bool,
    subprotocols: bool,
    head: Head,
}

fuzz_target!(|input: Input| {
    let list = |is_set: bool, name: &str| Vec::from_iter(is_set.then(|| String::from(name)));
    let origins = list(input.origins, "https://example.org");
    let subprotocols = list(input.subprotocols, "chat");
    let rules = Rules {
        origins: &origins,
        subprotocols: &subprotocols,
    };
    let answer = |found| match found {
        Ok(None) => None,
        Ok(Some(head)) => Some(handshake::answer(head, rules)),
        Err(error) => Some((Answer::Reject(Rejection::from(error)), None)),
    };
    let Head(bytes) = &input.head;
    let found = find_head(bytes, bytes.len());
    let answered = answer(found);
    assert_eq!(answered, answer(find_head(bytes, input.read.into())));
    let Some((answer, request)) = answered else {
        return;
    };

    let method = request.map_or("GET", |request| request.method);
    check_http(&answer.encode(method), method);
    if let Answer::Accept {
        accept,
        subprotocol,
    } = answer
    {
        let (head, request) = (found.unwrap().unwrap(), request.unwrap());
        check_accept(head, &request, &accept);
        let offers = Vec::from_iter(request.list("Sec-WebSocket-Protocol"));
        let offers_chat = offers.contains(&&b"chat"[..]);
        let agreed = match input.subprotocols {
            true => offers_chat.then_some("chat"),
            false => offers.first().map(|offer| str::from_utf8(offer).unwrap()),
        };
        assert_eq!(subprotocol, agreed);
        for origin in request.values("Origin") {
            assert!(!input.origins || origin.eq_ignore_ascii_case(b"https://example.org"));
        }
    }
});

/// Looks for the head in reads of `read` bytes, but a thousand at most, so that a round stays short.
fn find_head(bytes: &[u8], read: usize) -> std::result::Result<Option<&[u8]>, NoRequest> {
    let read = read.max(bytes.len() / 1000).max(1);
    let (mut come, mut searched) = (0, 0);
    while come < bytes.len() {
        come = bytes.len().min(come + read);
        match request::head_len(&bytes[..come], searched)? {
            Some(len) => return Ok(Some(&bytes[..len])),
            None => searched = come,
        }
    }
    Ok(None)
}

/// Reads an answer by a parser that we did not write, and then more strictly.
fn check_http(answer: &[u8], method: &str) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let head_len = response.parse(answer).expect("HTTP").unwrap();
    let (head, body) = answer.split_at(head_len);
    let head = str::from_utf8(head).expect("nothing but ASCII was put in");
    for line in head.split("\r\n") {
        assert!(
            !line.contains(|c: char| c.is_control()),
            "{line:?} in {head}"
        );
    }
    let values = |name: &str| -> Vec<&[u8]> {
        let named = response
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value).collect()
    };
    if response.code == Some(101) {
        assert_eq!(values("Upgrade"), [b"websocket"]);
        assert_eq!(values("Connection"), [b"Upgrade"]);
        assert_eq!((values("Content-Length").len(), body), (0, &b""[..]));
        return;
    }
    assert!(values("Connection").contains(&&b"close"[..]), "{head}");
    let [len] = values("Content-Length")[..] else {
        panic!("one Content-Length is due: {head}");
    };
    let len: usize = str::from_utf8(len).unwrap().parse().unwrap();
    let body = str::from_utf8(body).expect("UTF-8");
    assert_eq!(body.len(), if method == "HEAD" { 0 } else { len });
    if response.code != Some(200) && method != "HEAD" {
        let reason = body.strip_suffix('\n').expect("a whole line");
        assert!(
            !reason.contains(char::is_control),
            "{reason:?} is one line for a developer"
        );
    }
}

/// tungstenite accepts as well, and by the same words, or refuses for a reason of its own.
fn check_accept(head: &[u8], request: &Request, accept: &str) {
    let stream = Stream {
        input: head,
        output: Vec::new(),
    };
    let error = match tungstenite::accept(stream) {
        Ok(socket) => {
            let answer = String::from_utf8_lossy(&socket.get_ref().output);
            let line = format!("sec-websocket-accept: {accept}\r\n");
            return assert!(answer.contains(&line), "{line} is not in {answer}");
        }
        Err(HandshakeError::Failure(error)) => error,
        Err(HandshakeError::Interrupted(_)) => panic!("the head is whole"),
    };
    assert!(
        is_known(&error, request),
        "{error} in {}",
        String::from_utf8_lossy(head)
    );
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

/// A request's head, and maybe more or less than that.
#[derive(Debug)]
struct Head(Vec<u8>);

impl<'a> Arbitrary<'a> for Head {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        const FIELDS: [(&str, &[&str]); 10] = [
            ("Host", &["localhost", "", "a:1, b"]),
            (
                "Upgrade",
                &[
                    "websocket",
                    "WebSocket",
                    "h2c",
                    "h2c, websocket",
                    "websocket/13",
                ],
            ),
            (
                "Connection",
                &[
                    "Upgrade",
                    "keep-alive, Upgrade",
                    "keep-alive,\tupgrade",
                    "close",
                ],
            ),
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
            (
                "Sec-WebSocket-Protocol",
                &["chat", "soap, chat", ",", "a b", "\"chat\""],
            ),
            (
                "Origin",
                &[
                    "https://example.org",
                    "HTTPS://EXAMPLE.ORG",
                    "null",
                    "https://a.b",
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
                    "http://host/x",
                    "*",
                    "/healthz",
                    "/a b",
                    "",
                ],
            )?;
            let version = usual(
                u,
                &["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1"],
            )?;
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
                    [
                        b"X-Long: ",
                        &[b'x'; 20_000][..u.int_in_range(16_000..=17_000)?],
                    ]
                    .concat(),
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

/// Once in 32 times, and not once the fuzzer's bytes are used up.
fn rarely(u: &mut Unstructured) -> Result<bool> {
    Ok(u.int_in_range(0..=31)? == 31)
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
