//! The server's opening handshake: a request → an agreement, or a response that names the mistake
//! (RFC 6455 §4.2).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest as _, Sha1};

use crate::escape::Quoted;
use crate::http::origin::Origin;
use crate::http::request::{self, Request};
use crate::http::response::Response;
use crate::websocket::negotiation::{self, Negotiation, Parameters};

/// The operator's restrictions.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The origins whose pages may connect, besides the bundled page. Empty: any.
    pub origins: Vec<Origin>,
    /// The subprotocols that may be agreed on. Empty: any.
    pub subprotocols: Vec<String>,
    /// The terms for compressed messages. `None`: no compression.
    pub compression: Option<Parameters>,
}

/// An accepted handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of Sec-WebSocket-Accept.
    pub accept: String,
    /// One of the client's offers.
    pub subprotocol: Option<String>,
    /// The answer to the client's offers of compression.
    pub compression: Negotiation,
}

impl Upgrade {
    /// The 101 that opens the WebSocket (§4.2.2).
    pub fn response(&self) -> Response {
        let response = Response { status: 101, headers: vec![], body: "".into() }
            .with("Upgrade", "websocket")
            .with("Connection", "Upgrade")
            .with("Sec-WebSocket-Accept", self.accept.clone());
        let response = match &self.subprotocol {
            Some(name) => response.with("Sec-WebSocket-Protocol", name.clone()),
            None => response,
        };
        match &self.compression {
            Negotiation::Agreed(parameters) => {
                response.with("Sec-WebSocket-Extensions", parameters.to_string())
            }
            // §9.1: an extension is declined by silence.
            Negotiation::Declined(_) | Negotiation::NotOffered => response,
        }
    }
}

/// Checks a request that asks for an upgrade to `websocket`, in the order of §4.2.1.
///
/// # Errors
///
/// The response that names what is missing or wrong.
pub fn accept(request: &Request, policy: &Policy) -> Result<Upgrade, Response> {
    let bad_request = |wrong| Err(Response::text(400, wrong));
    if request.version == (1, 0) {
        return bad_request(
            "a WebSocket needs HTTP/1.1, and this is HTTP/1.0; behind nginx set proxy_http_version 1.1",
        );
    }
    if !request.has_token("Connection", "upgrade") {
        return bad_request(
            "Connection does not say upgrade; a proxy has to pass on Upgrade and Connection",
        );
    }
    if request.method != "GET" {
        return bad_request("a WebSocket is opened by GET");
    }
    if has_body(request) {
        return bad_request("a request for a WebSocket has no body");
    }
    match request.values("Sec-WebSocket-Version").collect::<Vec<_>>()[..] {
        [b"13"] => {}
        [] => return Err(wrong_version("Sec-WebSocket-Version is missing; it has to be 13")),
        [version] => {
            let version = Quoted(version);
            let reason = format!("Sec-WebSocket-Version is {version}; it has to be 13");
            return Err(wrong_version(reason));
        }
        _ => return bad_request("Sec-WebSocket-Version is repeated"),
    }
    let accept = match request.values("Sec-WebSocket-Key").collect::<Vec<_>>()[..] {
        [key] if is_key(key) => accept_value(key),
        [_] => return bad_request("Sec-WebSocket-Key is not 16 bytes in base64"),
        [] => return bad_request("Sec-WebSocket-Key is missing"),
        _ => return bad_request("Sec-WebSocket-Key is repeated"),
    };
    let offered = request.list("Sec-WebSocket-Protocol").map(request::token);
    let Some(offered) = offered.collect::<Option<Vec<_>>>() else {
        return bad_request("Sec-WebSocket-Protocol has a name that is not a token");
    };
    // §4.3: `1#token`, at least one. §4.2.1 demands an error for "any violations of the ABNF grammar".
    if offered.is_empty() && request.has("Sec-WebSocket-Protocol") {
        return bad_request("Sec-WebSocket-Protocol is empty; without a subprotocol leave it out");
    }
    let compression = negotiation::negotiate(request, policy.compression)
        .map_err(|wrong| Response::text(400, wrong))?;
    let is_refused = |origin: &&[u8]| !allows(&policy.origins, origin, request);
    if let Some(origin) = request.values("Origin").find(is_refused) {
        return Err(forbidden(origin));
    }
    let is_allowed = |name: &&str| {
        policy.subprotocols.is_empty() || policy.subprotocols.iter().any(|allowed| allowed == name)
    };
    let subprotocol = offered.into_iter().find(is_allowed).map(Into::into);
    Ok(Upgrade { accept, subprotocol, compression })
}

/// The response to an unsupported version. §4.4: an "appropriate HTTP error code (such as 426 Upgrade
/// Required)" and the supported version. RFC 9110 §7.8: the sender of Upgrade has to name it in Connection.
pub fn wrong_version(reason: impl Into<Cow<'static, str>>) -> Response {
    Response::text(426, reason)
        .with("Sec-WebSocket-Version", "13")
        .with("Upgrade", "websocket")
        .with("Connection", "Upgrade")
}

/// The response to an origin that is not listed.
fn forbidden(origin: &[u8]) -> Response {
    let quoted = Quoted(origin);
    Response::text(
        403,
        match Origin::in_field(origin) {
            Some(origin) => format!("Origin {quoted} is not allowed; --origin {origin} allows it"),
            None => format!("Origin {quoted} is not an origin, and not allowed"),
        },
    )
}

fn has_body(request: &Request) -> bool {
    request.values("Transfer-Encoding").next().is_some()
        || request.values("Content-Length").any(|len| len != b"0")
}

/// Whether a page may connect: its origin is listed, or it is the bundled page.
fn allows(origins: &[Origin], value: &[u8], request: &Request) -> bool {
    let is_allowed = |origin: Origin| {
        let mut hosts = request.values("Host");
        origins.contains(&origin) || hosts.any(|host| origin.is_surely_from(host))
    };
    origins.is_empty() || Origin::in_field(value).is_some_and(is_allowed)
}

/// §4.2.1: "a base64-encoded value that, when decoded, is 16 bytes in length".
fn is_key(key: &[u8]) -> bool {
    // 16 bytes leave four bits of the last digit unused. Clients that choose random digits set them.
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    LENIENT.decode(key).is_ok_and(|nonce| nonce.len() == 16)
}

/// The value of Sec-WebSocket-Accept for a key (§4.2.2), which proves that the server has read the key.
pub fn accept_value(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    base64::prelude::BASE64_STANDARD.encode(digest)
}
