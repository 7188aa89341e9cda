//! The server's opening handshake: a request → what was agreed, or the response that says what to
//! fix (RFC 6455 §4.2).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use sha1::{Digest as _, Sha1};

use crate::escape::Quoted;
use crate::http::origin::Origin;
use crate::http::request::{self, Request};
use crate::http::response::Response;
use crate::websocket::negotiation::{self, Negotiation, Parameters};

/// What the operator allows, beyond what the protocol does.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The origins whose pages may connect, beside the bundled page. Empty for any.
    pub origins: Vec<Origin>,
    /// The subprotocols that may be agreed. Empty for any.
    pub subprotocols: Vec<String>,
    /// What both sides have to keep to if messages are compressed. `None`: they are not.
    pub compression: Option<Parameters>,
}

/// What was agreed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgrade {
    /// The value of Sec-WebSocket-Accept.
    pub accept: String,
    /// A token of the client's offer, if any.
    pub subprotocol: Option<String>,
    /// What became of the offers to compress messages.
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
            // An extension is declined by leaving its header out (§9.1).
            Negotiation::Declined(_) | Negotiation::NotOffered => response,
        }
    }
}

/// Checks a request that asks for an upgrade to `websocket`, in the order of §4.2.1. Messages may be
/// compressed under `terms`.
///
/// # Errors
///
/// The response that says what is missing or wrong.
pub fn accept(
    request: &Request,
    policy: &Policy,
    terms: &[Parameters],
) -> Result<Upgrade, Response> {
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
        [] => {
            return Err(wrong_version("Sec-WebSocket-Version is missing; it has to be 13"));
        }
        [version] => {
            let version = Quoted(version);
            return Err(wrong_version(format!(
                "Sec-WebSocket-Version is {version}; it has to be 13"
            )));
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
    // §4.3: 1#token, so that a list has at least one. As with every violation of the grammar, §4.2.1
    // wants an error.
    if offered.is_empty() && request.has("Sec-WebSocket-Protocol") {
        return bad_request("Sec-WebSocket-Protocol is empty; without a subprotocol leave it out");
    }
    let compression =
        negotiation::negotiate(request, terms).map_err(|wrong| Response::text(400, wrong))?;
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

/// The response to a version that is not spoken. §4.4: an "appropriate HTTP error code (such as 426
/// Upgrade Required)" and the version that is spoken. RFC 9110 §7.8: Upgrade goes with a Connection
/// that names it.
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

/// Whether a page may connect: it is of a listed origin, or it is the bundled page.
fn allows(origins: &[Origin], value: &[u8], request: &Request) -> bool {
    let is_allowed = |origin: Origin| {
        let mut hosts = request.values("Host");
        origins.contains(&origin) || hosts.any(|host| origin.is_surely_from(host))
    };
    origins.is_empty() || Origin::in_field(value).is_some_and(is_allowed)
}

/// §4.2.1: "a base64-encoded value that, when decoded, is 16 bytes in length".
fn is_key(key: &[u8]) -> bool {
    // 16 bytes leave four bits of the last digit unused. Clients that draw the digits at random set
    // them.
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    LENIENT.decode(key).is_ok_and(|nonce| nonce.len() == 16)
}

/// The value of Sec-WebSocket-Accept for a key (§4.2.2): it proves that the server read the key.
pub fn accept_value(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    base64::prelude::BASE64_STANDARD.encode(digest)
}
