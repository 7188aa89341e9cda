//! The bundled page, and the headers that keep it from loading or running anything else.

use std::borrow::Cow;

use crate::http::response::Response;

/// `static/client.html`.
pub const HTML: &str = include_str!("../../static/client.html");

/// By this policy a browser runs the page's one script and applies its one style, both known by
/// their hash. Otherwise it only opens WebSockets and, over HTTP, asks a server what one of its
/// behaviours will do; that server can be any.
const CONTENT_SECURITY_POLICY: &str = concat!(
    "default-src 'none'; ",
    "script-src 'sha256-X6w++VHegpR5E0DUeIxHlF8paokPFMjiBkw+npVpBT4='; ",
    "style-src 'sha256-K72xcUaD84VoS4dv7cok37KX6dxRz9NOWuchXfCXUv8='; ",
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

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use sha2::{Digest as _, Sha256};

    use super::*;

    #[test]
    fn the_policy_names_the_hashes_of_the_script_and_the_style() {
        for (kind, open, close) in
            [("script", "<script>", "</script>"), ("style", "<style>", "</style>")]
        {
            let (_, after) = HTML.split_once(open).unwrap();
            let (content, _) = after.split_once(close).unwrap();
            let hash = BASE64_STANDARD.encode(Sha256::digest(content));
            assert!(
                CONTENT_SECURITY_POLICY.contains(&format!("{kind}-src 'sha256-{hash}'; ")),
                "static/client.html has changed: write 'sha256-{hash}' as {kind}-src in {}",
                file!()
            );
        }
    }
}
