//! The bundled page, and the headers that keep it from loading or running anything else.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest as _, Sha256};

/// `static/client.html`.
pub const HTML: &str = include_str!("../static/client.html");

/// The header lines that go with the page: its type, and a policy by which the browser runs its one
/// script and applies its one style, both known by hash, and otherwise only opens WebSockets.
pub fn headers() -> &'static str {
    static HEADERS: LazyLock<String> = LazyLock::new(|| {
        let (script, style) = (hash("<script>", "</script>"), hash("<style>", "</style>"));
        format!(
            "Content-Type: text/html; charset=utf-8\r\n\
             Cache-Control: no-cache\r\n\
             Content-Security-Policy: default-src 'none'; script-src 'sha256-{script}'; \
             style-src 'sha256-{style}'; img-src data:; connect-src ws: wss:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n"
        )
    });
    &HEADERS
}

/// The hash of what stands between the first `open` and the `close` that follows it.
fn hash(open: &str, close: &str) -> String {
    let (_, behind) = HTML.split_once(open).unwrap_or_default();
    let (inside, _) = behind.split_once(close).unwrap_or_default();
    BASE64_STANDARD.encode(Sha256::digest(inside))
}
