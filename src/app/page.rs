//! The bundled page, and the headers that keep it from loading or running anything else.

use std::borrow::Cow;

use crate::http::response::Response;

/// `static/client.html`.
pub const HTML: &str = include_str!("../../static/client.html");

/// With this policy, a browser runs only the page's one script and applies only its one style, both
/// identified by their hash, which `RENEW=1 cargo test --test it app::made` writes. Beyond that, the
/// page may only open WebSockets and send HTTP requests to their address, which can be any server's.
const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; ",
    "script-src 'sha256-XbkI6XsRs3wfRhuGTxo3MOIHleS+iMnXGZIXp/EpJCo='; ",
    "style-src 'sha256-2w2+UhxzGyumHgEOh+nNWzjPLWQYatC2n7+xPikvcAs='; ",
    "img-src data:; connect-src ws: wss: http: https:; ",
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The response with the page.
pub fn response() -> Response {
    Response { status: 200, headers: vec![], body: Cow::Borrowed(HTML) }
        .with("Content-Type", "text/html; charset=utf-8")
        .with("Cache-Control", "no-cache")
        .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
}
