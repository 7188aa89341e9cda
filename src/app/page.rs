//! The bundled page, and the headers that keep it from loading or running anything else.

use std::borrow::Cow;

use crate::http::response::Response;

/// `static/client.html`.
pub const HTML: &str = include_str!("../../static/client.html");

/// By this policy a browser runs the page's one script and applies its one style, both known by
/// their hash, which `RENEW=1 cargo test --test it app::made` writes. Otherwise the page only opens
/// WebSockets and, over HTTP, asks what answers at their address; that server can be any.
const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; ",
    "script-src 'sha256-kzCFJuy2siMfPd2iJrR0tzFbEEXhfHBVaHxOqb0GdJk='; ",
    "style-src 'sha256-A/DRlhlBUbIkYKLG5XxQQuU6tRUa4ULIU7WJHpq8Qzs='; ",
    "img-src data:; connect-src ws: wss: http: https:; ",
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// The page.
pub fn response() -> Response {
    Response { status: 200, headers: vec![], body: Cow::Borrowed(HTML) }
        .with("Content-Type", "text/html; charset=utf-8")
        .with("Cache-Control", "no-cache")
        .with("Content-Security-Policy", CONTENT_SECURITY_POLICY)
}
