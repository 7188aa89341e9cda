//! A request as it arrived, as JSON for the client that sent it.

use crate::app::json::string;
use crate::app::peer::Peer;
use crate::http::origin::Origin;
use crate::http::request::Request;
use crate::http::response::Response;
use crate::proxy_protocol;
use crate::quantity::Count;
use crate::websocket::handshake::Policy;

/// The headers whose values are shown. Any other value may be a secret, or identify the client's user,
/// and only its length is shown.
#[rustfmt::skip]
const SHOWN: &[&str] = &[
    // Of the handshake (RFC 6455 §4.1), except the subprotocols, which may carry a token.
    "host", "upgrade", "connection", "origin", "sec-websocket-key", "sec-websocket-version",
    "sec-websocket-extensions",
    // Of browsers.
    "accept", "accept-encoding", "accept-language", "cache-control", "dnt", "pragma", "priority",
    "sec-ch-ua", "sec-ch-ua-mobile", "sec-ch-ua-platform", "sec-fetch-dest", "sec-fetch-mode",
    "sec-fetch-site", "sec-fetch-storage-access", "sec-gpc", "user-agent",
    // Of proxies.
    "content-length", "forwarded", "keep-alive", "te", "transfer-encoding", "via",
    "x-envoy-expected-rq-timeout-ms", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port",
    "x-forwarded-prefix", "x-forwarded-proto", "x-forwarded-server", "x-real-ip", "x-request-id",
    "x-scheme", "x-varnish",
];

/// Whether the client may see the request. A program, which sends no Origin, may; so may a page that the
/// operator lists, and a page that is surely from this host. Any other page would learn the headers that
/// its visitor's browser and the proxies add.
pub fn is_allowed(request: &Request, policy: &Policy) -> bool {
    let host = request.values("Host").next().unwrap_or_default();
    request.values("Origin").all(|value| {
        Origin::in_field(value).is_some_and(|origin| {
            let is_listed = policy.origins.contains(&origin) && !origin.is_opaque();
            is_listed || origin.is_surely_from(host)
        })
    })
}

/// One JSON object in one line: the request of `peer`, the PROXY `header` before it, and the parameters
/// that the `response` agreed to.
pub fn dump(
    peer: Peer,
    header: Option<&proxy_protocol::Header>,
    request: &Request,
    policy: &Policy,
    response: &Response,
) -> String {
    let is_forwarding = |name: &str| {
        let name = name.to_ascii_lowercase();
        name.starts_with("x-forwarded-") || matches!(&*name, "forwarded" | "via" | "x-real-ip")
    };
    let null = || "null".into();
    let (major, minor) = request.version;
    let request_line =
        format!("{} {} HTTP/{major}.{minor}", request.method, without_user(request.target));
    let agreed = |name: &str| {
        let header = response.headers.iter().find(|(header, _)| *header == name);
        header.map(|(_, value)| value.as_bytes())
    };
    let subprotocol = agreed("Sec-WebSocket-Protocol").map(|name| {
        let is_known = policy.subprotocols.iter().any(|known| known.as_bytes() == name);
        if is_known { string(name) } else { length(name) }
    });
    format!(
        r#"{{"peer":{},"proxy_protocol":{},"forwarded":{},"request":{},"headers":{},"agreed":{{"subprotocol":{},"extensions":{}}}}}"#,
        string(peer.to_string().as_bytes()),
        header.map_or_else(null, proxied),
        fields(request, is_forwarding),
        string(request_line.as_bytes()),
        fields(request, |_| true),
        subprotocol.unwrap_or_else(null),
        agreed("Sec-WebSocket-Extensions").map_or_else(null, string),
    )
}

/// The values of a PROXY header as an object.
fn proxied(header: &proxy_protocol::Header) -> String {
    let pairs: Vec<_> = (header.values.iter())
        .map(|(name, value)| {
            let value = match *name {
                // The subject of the client's certificate.
                "ssl_cn" => length(value),
                _ => string(value),
            };
            format!(r#""{name}":{value}"#)
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}

/// The header fields with `chosen` names, in their order, as an array of pairs.
fn fields(request: &Request, chosen: impl Fn(&str) -> bool) -> String {
    let fields = request.fields.iter().filter(|(name, _)| chosen(name));
    let pairs: Vec<_> = fields
        .map(|&(name, value)| {
            let is_shown = SHOWN.iter().any(|shown| name.eq_ignore_ascii_case(shown));
            let value = if is_shown { string(value) } else { length(value) };
            format!("[{},{value}]", string(name.as_bytes()))
        })
        .collect();
    format!("[{}]", pairs.join(","))
}

/// The length of a value that is not shown.
fn length(value: &[u8]) -> String {
    string(format!("{}, not shown", Count(value.len() as u64, "byte")).as_bytes())
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
