//! The opening handshake: a request's head → an acceptance, a plain answer or a rejection
//! (RFC 6455 §4.2).

use std::fmt;

use base64::Engine as _;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest as _, Sha1};

use crate::page;
use crate::quote::Quoted;
use crate::request::{self, NoRequest, Request};

/// What the operator allows, beyond what the protocol does.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'r> {
    /// The origins that pages may connect from; none means any.
    pub origins: &'r [String],
    /// The subprotocols that may be agreed; none means any.
    pub subprotocols: &'r [String],
}

/// What the server answers to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'h> {
    /// 101, and the WebSocket is open.
    Accept {
        /// The value of Sec-WebSocket-Accept.
        accept: String,
        /// The subprotocol that was agreed, if any.
        subprotocol: Option<&'h str>,
    },
    /// The bundled page.
    Page,
    /// `ok`, for health checks.
    Health,
    /// An error, told in one line.
    Reject(Rejection<'h>),
}

/// Why there is neither a WebSocket nor a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection<'h> {
    /// 431
    HeadTooLarge,
    /// 408
    HeadTimeout,
    /// 400; the text says what is wrong.
    BadRequest(&'static str),
    /// 505
    HttpVersion,
    /// 405
    Method,
    /// 404
    NotFound,
    /// 426, with the version that the client asked for, if any.
    WebSocketVersion(Option<&'h [u8]>),
    /// 403, with the origin that is not on the list.
    Origin(&'h [u8]),
    /// 503; the text says why.
    Unavailable(&'static str),
}

/// Answers a request's head, in the order that RFC 6455 §4.2.1 lists its parts.
///
/// A head that asks for no WebSocket is a plain request, for the page or for a health check.
pub fn answer<'h>(head: &'h [u8], rules: Rules) -> (Answer<'h>, Option<Request<'h>>) {
    match Request::parse(head) {
        Ok(request) => {
            let answer = decide(&request, rules).unwrap_or_else(Answer::Reject);
            (answer, Some(request))
        }
        Err(error) => (Answer::Reject(error.into()), None),
    }
}

fn decide<'h>(request: &Request<'h>, rules: Rules) -> Result<Answer<'h>, Rejection<'h>> {
    use Rejection::BadRequest;

    if !matches!(request.version, (1, 0 | 1)) {
        return Err(Rejection::HttpVersion);
    }
    if !matches!(request.method, "GET" | "HEAD") {
        return Err(Rejection::Method);
    }
    let path = request
        .path()
        .ok_or(BadRequest("the target is neither a path nor a URL"))?;

    if !has_token(request, "Upgrade", "websocket") {
        return match path {
            "/" | "/client.html" => Ok(Answer::Page),
            "/healthz" => Ok(Answer::Health),
            _ => Err(Rejection::NotFound),
        };
    }
    if request.version == (1, 0) {
        return Err(BadRequest(
            "a WebSocket needs HTTP/1.1, and this is HTTP/1.0; behind nginx set proxy_http_version 1.1",
        ));
    }
    if !has_token(request, "Connection", "upgrade") {
        return Err(BadRequest(
            "Connection does not say upgrade; a proxy has to pass on Upgrade and Connection",
        ));
    }
    if request.values("Host").next().is_none() {
        return Err(BadRequest("Host is missing"));
    }
    if request.method == "HEAD" {
        return Err(BadRequest("a WebSocket is opened by GET, not by HEAD"));
    }
    if has_body(request) {
        return Err(BadRequest("a request for a WebSocket has no body"));
    }
    match request.values("Sec-WebSocket-Version").collect::<Vec<_>>()[..] {
        [b"13"] => {}
        [] => return Err(Rejection::WebSocketVersion(None)),
        [version] => return Err(Rejection::WebSocketVersion(Some(version))),
        _ => return Err(BadRequest("Sec-WebSocket-Version is repeated")),
    }
    let mut keys = request.values("Sec-WebSocket-Key");
    let accept = match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key) => accept(key),
        (Some(_), None) => return Err(BadRequest("Sec-WebSocket-Key is not 16 bytes in base64")),
        (None, _) => return Err(BadRequest("Sec-WebSocket-Key is missing")),
        (_, Some(_)) => return Err(BadRequest("Sec-WebSocket-Key is repeated")),
    };
    let offered = request
        .list("Sec-WebSocket-Protocol")
        .map(request::token)
        .collect::<Option<Vec<_>>>()
        .ok_or(BadRequest(
            "Sec-WebSocket-Protocol has a name that is not a token",
        ))?;
    // A client that is no browser sends no Origin, and has nothing to fear from one.
    if let Some(origin) = request.values("Origin").find(|origin| {
        !allows(rules.origins, |allowed| {
            origin.eq_ignore_ascii_case(allowed)
        })
    }) {
        return Err(Rejection::Origin(origin));
    }
    let subprotocol = offered
        .into_iter()
        .find(|name| allows(rules.subprotocols, |allowed| name.as_bytes() == allowed));
    // Sec-WebSocket-Extensions is declined by silence (§9.1).
    Ok(Answer::Accept {
        accept,
        subprotocol,
    })
}

fn has_token(request: &Request, name: &str, token: &str) -> bool {
    request
        .list(name)
        .any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

fn has_body(request: &Request) -> bool {
    request.values("Transfer-Encoding").next().is_some()
        || request.values("Content-Length").any(|len| len != b"0")
}

fn allows(list: &[String], is: impl Fn(&[u8]) -> bool) -> bool {
    list.is_empty() || list.iter().any(|allowed| is(allowed.as_bytes()))
}

/// §4.2.1: "a base64-encoded value that, when decoded, is 16 bytes in length".
fn is_key(key: &[u8]) -> bool {
    // 16 bytes leave four bits of the last digit unused; clients that draw the digits at random
    // leave them set.
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    LENIENT.decode(key).is_ok_and(|nonce| nonce.len() == 16)
}

/// The value of Sec-WebSocket-Accept for a key (§4.2.2): it proves that the server read the key.
pub fn accept(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    base64::prelude::BASE64_STANDARD.encode(digest)
}

impl Answer<'_> {
    /// The answer as HTTP/1.1, for a request with `method`: HEAD gets no body.
    pub fn encode(&self, method: &str) -> Vec<u8> {
        const TEXT: &str = "Content-Type: text/plain; charset=utf-8\r\n";
        match self {
            Answer::Accept {
                accept,
                subprotocol,
            } => {
                let mut head = format!(
                    "HTTP/1.1 101 Switching Protocols\r\n\
                     Upgrade: websocket\r\n\
                     Connection: Upgrade\r\n\
                     Sec-WebSocket-Accept: {accept}\r\n"
                );
                if let Some(subprotocol) = subprotocol {
                    head = head + "Sec-WebSocket-Protocol: " + subprotocol + "\r\n";
                }
                (head + "\r\n").into_bytes()
            }
            Answer::Page => encode("200 OK", page::headers(), page::HTML, method),
            Answer::Health => encode("200 OK", TEXT, "ok\n", method),
            Answer::Reject(rejection) => {
                let headers = String::from(TEXT) + rejection.headers();
                encode(
                    rejection.status(),
                    &headers,
                    &format!("{rejection}\n"),
                    method,
                )
            }
        }
    }
}

fn encode(status: &str, headers: &str, body: &str, method: &str) -> Vec<u8> {
    let len = body.len();
    let body = if method == "HEAD" { "" } else { body };
    format!(
        "HTTP/1.1 {status}\r\n\
         {headers}\
         X-Content-Type-Options: nosniff\r\n\
         Content-Length: {len}\r\n\
         Connection: close\r\n\
         \r\n\
         {body}"
    )
    .into_bytes()
}

impl Rejection<'_> {
    /// The status code and its name.
    pub fn status(&self) -> &'static str {
        match self {
            Rejection::HeadTooLarge => "431 Request Header Fields Too Large",
            Rejection::HeadTimeout => "408 Request Timeout",
            Rejection::BadRequest(_) => "400 Bad Request",
            Rejection::HttpVersion => "505 HTTP Version Not Supported",
            Rejection::Method => "405 Method Not Allowed",
            Rejection::NotFound => "404 Not Found",
            Rejection::WebSocketVersion(_) => "426 Upgrade Required",
            Rejection::Origin(_) => "403 Forbidden",
            Rejection::Unavailable(_) => "503 Service Unavailable",
        }
    }

    fn headers(&self) -> &'static str {
        match self {
            Rejection::Method => "Allow: GET, HEAD\r\n",
            // RFC 9110 §7.8: Upgrade goes with a Connection that names it.
            Rejection::WebSocketVersion(_) => {
                "Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            }
            Rejection::Unavailable(_) => "Retry-After: 5\r\n",
            _ => "",
        }
    }
}

/// What a developer has to mend, in one line.
impl fmt::Display for Rejection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rejection::HeadTooLarge => write!(
                f,
                "the request's head is over {} bytes or {} header fields",
                request::MAX_HEAD_LEN,
                request::MAX_FIELDS
            ),
            Rejection::HeadTimeout => write!(f, "the request's head did not come whole in time"),
            Rejection::BadRequest(wrong) => write!(f, "{wrong}"),
            Rejection::HttpVersion => write!(f, "only HTTP/1.1 and HTTP/1.0 are spoken here"),
            Rejection::Method => write!(f, "only GET and HEAD are answered here"),
            Rejection::NotFound => write!(
                f,
                "nothing is here but the page at / and WebSockets, which need Upgrade: websocket"
            ),
            Rejection::WebSocketVersion(None) => {
                write!(f, "Sec-WebSocket-Version is missing; it has to be 13")
            }
            Rejection::WebSocketVersion(Some(version)) => write!(
                f,
                "Sec-WebSocket-Version is {}; it has to be 13",
                Quoted(version)
            ),
            Rejection::Origin(origin) => {
                write!(f, "Origin {} is not allowed to connect", Quoted(origin))
            }
            Rejection::Unavailable(why) => write!(f, "{why}; try again later"),
        }
    }
}

impl From<NoRequest> for Rejection<'_> {
    fn from(error: NoRequest) -> Self {
        match error {
            NoRequest::TooLarge => Rejection::HeadTooLarge,
            NoRequest::Malformed(wrong) => Rejection::BadRequest(wrong),
        }
    }
}
