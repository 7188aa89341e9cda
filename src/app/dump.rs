//! What a request looked like when it arrived, as JSON for the client that sent it.

use crate::app::json::string;
use crate::escape::Count;
use crate::http::origin::Origin;
use crate::http::request::Request;
use crate::http::response::Response;

/// A header whose name contains one of these is a secret, and only its value's length is told.
const SECRET: [&str; 11] = [
    "auth",
    "cookie",
    "cred",
    "jwt",
    "key",
    "oidc",
    "pass",
    "secret",
    "session",
    "signature",
    "token",
];

/// Whether the client may see the request: a program may, which sends no Origin, and a page from this
/// host. A page from elsewhere would learn what its visitor's browser and the proxies before the server
/// add.
pub fn is_allowed(request: &Request) -> bool {
    let host = request.values("Host").next().unwrap_or_default();
    request
        .values("Origin")
        .all(|value| Origin::in_field(value).is_some_and(|origin| origin.is_from(host)))
}

/// The request of `peer` and what the `response` to it agreed, as one JSON object in one line.
pub fn dump(peer: &str, request: &Request, response: &Response) -> String {
    let is_forwarding = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-forwarded-") || matches!(&*name, "forwarded" | "via" | "x-real-ip")
    };
    let (major, minor) = request.version;
    let request_line =
        format!("{} {} HTTP/{major}.{minor}", request.method, without_user(request.target));
    let agreed = |name: &str| {
        let header = response.headers.iter().find(|(header, _)| *header == name);
        header.map_or("null".into(), |(_, value)| string(value.as_bytes()))
    };
    format!(
        r#"{{"peer":{},"forwarded":{},"request":{},"headers":{},"agreed":{{"subprotocol":{},"extensions":{}}}}}"#,
        string(peer.as_bytes()),
        fields(request, is_forwarding),
        string(request_line.as_bytes()),
        fields(request, |_| true),
        agreed("Sec-WebSocket-Protocol"),
        agreed("Sec-WebSocket-Extensions"),
    )
}

/// The header fields whose names are `chosen`, in their order, as an array of pairs.
fn fields(request: &Request, chosen: impl Fn(&str) -> bool) -> String {
    let fields = request.fields.iter().filter(|(name, _)| chosen(name));
    let pairs: Vec<_> = fields
        .map(|&(name, value)| {
            let value = if is_secret(name) {
                string(format!("{}, not shown", Count(value.len() as u64, "byte")).as_bytes())
            } else {
                string(value)
            };
            format!("[{},{value}]", string(name.as_bytes()))
        })
        .collect();
    format!("[{}]", pairs.join(","))
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // The handshake's own key is none.
    name != "sec-websocket-key" && SECRET.iter().any(|secret| name.contains(secret))
}

/// A target without the user information that an absolute one may have (RFC 3986 §3.2.1).
fn without_user(target: &str) -> String {
    let Some((scheme, rest)) = target.split_once("://").filter(|_| !target.starts_with('/')) else {
        return target.into();
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}
