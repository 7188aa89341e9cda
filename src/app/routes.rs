//! A request → a WebSocket, the page, a health check or an error.

use std::borrow::Cow;

use crate::app::page;
use crate::http::request::{self, ParseError, Request};
use crate::http::response::Response;
use crate::websocket::handshake::{self, Policy, Upgrade};

/// The path of health checks.
pub const HEALTH: &str = "/healthz";

/// What `request` opens: a WebSocket, unless it asks for the page or a health check.
///
/// # Errors
///
/// The response that ends the connection, which may be 200.
pub fn route(request: &Request, policy: &Policy) -> Result<Upgrade, Response> {
    if request.version.0 != 1 {
        return Err(Response::text(505, "HTTP/1.1 and HTTP/1.0 are spoken here"));
    }
    if !matches!(request.method, "GET" | "HEAD") {
        let response = Response::text(405, "only GET and HEAD are answered here");
        return Err(response.with("Allow", "GET, HEAD"));
    }
    let path = request
        .path()
        .ok_or_else(|| Response::text(400, "the target is neither a path nor a URL"))?;
    if request.has_token("Upgrade", "websocket") {
        return handshake::accept(request, policy);
    }
    Err(match path {
        "/" | "/client.html" => page::response(),
        HEALTH => Response::text(200, "ok"),
        _ => Response::text(
            404,
            "nothing is here but the page at / and WebSockets, which need Upgrade: websocket",
        ),
    })
}

/// The response to bytes that are not the head of a request.
pub fn refuse(error: ParseError) -> Response {
    match error {
        ParseError::TooLarge => Response::text(
            431,
            format!(
                "the request's head is over {} bytes or {} header fields",
                request::MAX_HEAD_LEN,
                request::MAX_FIELDS
            ),
        ),
        ParseError::Malformed(wrong) => Response::text(400, wrong),
    }
}

/// The response to a request that did not come whole in time.
pub fn timeout() -> Response {
    Response::text(408, "the request's head did not come whole in time")
}

/// The response to plain HTTP where TLS is spoken.
pub fn tls_required() -> Response {
    Response::text(400, "TLS is spoken on this port: use https:// or wss://")
}

/// The response when the server can't serve a client for now.
pub fn unavailable(why: impl Into<Cow<'static, str>>) -> Response {
    Response::text(503, why.into() + "; try again later").with("Retry-After", "5")
}
