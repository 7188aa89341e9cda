//! A request → a WebSocket, the page, a health check, the description of a behavior, or an error.

use std::borrow::Cow;
use std::iter;

use crate::app::behavior::{self, Behavior, Behaviors, Handshake};
use crate::app::cases::control::{self, Control};
use crate::app::cases::get;
use crate::app::cases::results::Cases;
use crate::app::dump;
use crate::app::page;
use crate::http::request::{self, ParseError, Request};
use crate::http::response::Response;
use crate::websocket::handshake::{self, Policy, Upgrade};
use crate::websocket::negotiation::{Negotiation, Parameters};

/// A WebSocket that a request opens.
#[derive(Clone, Debug, PartialEq)]
pub struct Opening {
    pub upgrade: Upgrade,
    pub purpose: Purpose,
}

/// The use of a WebSocket.
#[derive(Clone, Debug, PartialEq)]
pub enum Purpose {
    Echo,
    Behavior(Box<Behavior>),
    /// To run a case, or to answer a command.
    Runner(Control),
}

/// The WebSocket that `request` opens. Other requests get the page, a health check, or the description
/// of a behavior.
///
/// # Errors
///
/// The response that ends the connection, which may be 200.
pub fn route(
    request: &Request,
    policy: &Policy,
    behaviors: Behaviors,
    cases: &Cases,
) -> Result<Opening, Response> {
    let path = path(request)?;
    let is_on_demand = behaviors == Behaviors::On && path == behavior::PATH;
    if behaviors == Behaviors::On
        && let Some(response) = misspelled(path, iter::once(behavior::PATH).chain(control::paths()))
    {
        return Err(response);
    }
    let cases = Some(cases).filter(|_| behaviors == Behaviors::On);
    if !request.has_token("Upgrade", "websocket") {
        let of_cases = cases.and_then(|cases| {
            let response = get::response(path, request.query(), cases);
            response.or_else(|| misspelled(path, get::PATHS))
        });
        return Err(match of_cases {
            Some(response) => response,
            None if is_on_demand => explain(request.query()),
            None => document(path),
        });
    }
    if let Some(cases) = cases
        && let Some(control) = control::parse(path, request.query(), &cases.suite)
    {
        return open_for_runner(request, policy, control);
    }
    let upgrade = handshake::accept(request, policy)?;
    let purpose =
        if is_on_demand { Purpose::Behavior(demanded(request, policy)?) } else { Purpose::Echo };
    Ok(Opening { upgrade, purpose })
}

/// The WebSocket of a client that runs the cases. Its case decides on compression.
#[inline(never)]
fn open_for_runner(
    request: &Request,
    policy: &Policy,
    control: Result<Control, String>,
) -> Result<Opening, Response> {
    let accept =
        |compression| handshake::accept(request, &Policy { compression, ..policy.clone() });
    let mut upgrade = accept(None)?;
    let control = control.map_err(|wrong| Response::text(400, wrong))?;
    if let Control::Run(case, _) = &control {
        for terms in case.terms {
            let agreed = accept(Some(*terms))?;
            if let Negotiation::Agreed(parameters) = agreed.compression
                && (case.id.is_of_suite() || is_as_needed(parameters, *terms))
            {
                upgrade = agreed;
                break;
            }
        }
    }
    Ok(Opening { upgrade, purpose: Purpose::Runner(control) })
}

/// Whether a case that needs `terms` can be run. Beyond the suite its messages are fixed: one may refer to
/// an earlier one, or is about a window. What else the client offered does not disturb it.
fn is_as_needed(agreed: Parameters, terms: Parameters) -> bool {
    let is_kept = |needed: Option<u8>, agreed| needed.is_none_or(|bits| agreed == Some(bits));
    agreed.server_no_context_takeover == terms.server_no_context_takeover
        && is_kept(terms.server_max_window_bits, agreed.server_max_window_bits)
        && is_kept(terms.client_max_window_bits, agreed.client_max_window_bits)
}

/// The path of a request whose version and method are allowed.
// Not inlined, like the others here, so that responses don't enlarge the stack frames of clients.
#[inline(never)]
fn path<'r>(request: &'r Request) -> Result<&'r str, Response> {
    if request.version.0 != 1 {
        return Err(Response::text(505, "this server speaks HTTP/1.1 and HTTP/1.0"));
    }
    if !matches!(request.method, "GET" | "HEAD") {
        let response = Response::text(405, "only GET and HEAD are allowed");
        return Err(response.with("Allow", "GET, HEAD"));
    }
    request.path().ok_or_else(|| Response::text(400, "the target is neither a path nor a URL"))
}

/// The response that names the one of `paths` that `path` misspells. A plain echo there would make a test
/// pass by mistake.
fn misspelled(path: &str, paths: impl IntoIterator<Item = &'static str>) -> Option<Response> {
    // Another character may stand for the `?`, or encode it.
    let name = path.split(['%', ';', '&']).next()?.trim_matches('/');
    let is_meant = |known: &&str| *known != path && known[1..].eq_ignore_ascii_case(name);
    let meant = paths.into_iter().find(is_meant)?;
    Some(Response::text(404, format!("not found; did you mean {meant}?")))
}

/// The response to a health check.
pub fn healthy() -> Response {
    Response::text(200, "ok")
}

/// Whether the head of a request begins as a health check does.
pub fn begins_health_check(head: &[u8]) -> bool {
    [b"GET /healthz ".as_slice(), b"GET /healthz/ "].iter().any(|line| head.starts_with(line))
}

/// Whether `path` is the path of health checks.
pub fn is_health_check(path: &str) -> bool {
    matches!(path, "/healthz" | "/healthz/")
}

/// Whether programs request `path` again and again, so that a log line each time would be too many.
pub fn is_polled(path: &str) -> bool {
    is_health_check(path) || path.starts_with(get::REPORTS)
}

/// The response to a request without an upgrade to WebSocket.
#[inline(never)]
fn document(path: &str) -> Response {
    match path {
        "/" | "/client.html" => page::CONSOLE.response(),
        path if is_health_check(path) => healthy(),
        _ => Response::text(
            404,
            "not found; the page is at /, and a WebSocket needs Upgrade: websocket",
        ),
    }
}

/// The behavior that a WebSocket request demands.
#[inline(never)]
fn demanded(request: &Request, policy: &Policy) -> Result<Box<Behavior>, Response> {
    let behavior = behavior::parse(request.query()).map_err(|wrong| Response::text(400, wrong))?;
    if behavior.script.dump && !dump::is_allowed(request, policy) {
        return Err(Response::text(
            403,
            "dump is for a client without an Origin, for a page from this server at an IP address or \
             localhost, and for one that --origin lists",
        ));
    }
    Ok(Box::new(behavior))
}

/// The description of a behavior, or the table of all. Any page may read it, even a page from a file,
/// since it depends only on the query.
#[inline(never)]
fn explain(query: &str) -> Response {
    let response = match behavior::parse(query) {
        _ if query.is_empty() => Response::text(200, behavior::table()),
        Ok(behavior) => Response::text(200, behavior.to_string()),
        Err(wrong) => Response::text(400, wrong),
    };
    response.with("Access-Control-Allow-Origin", "*")
}

/// The response that a behavior demands instead of 101, with the headers that its status requires.
fn demanded_status(status: u16) -> Response {
    const REASON: &str = "this status was asked for";
    let response = Response::text(status, REASON);
    match status {
        301..=308 => response.with("Location", "/"),
        401 => response.with("WWW-Authenticate", "Bearer"),
        405 => response.with("Allow", "GET, HEAD"),
        426 => handshake::wrong_version(REASON),
        429 | 503 => response.with("Retry-After", "5"),
        _ => response,
    }
}

/// The 101, possibly modified by a behavior.
pub fn open(request: &Request, upgrade: &Upgrade, handshake: Handshake) -> Response {
    match handshake {
        Handshake::Valid => upgrade.response(),
        Handshake::Status(status) => demanded_status(status),
        Handshake::WrongAccept => {
            Upgrade { accept: handshake::accept_value(b""), ..upgrade.clone() }.response()
        }
        Handshake::WrongProtocol => {
            let subprotocol = Some(not_offered(request, "Sec-WebSocket-Protocol"));
            Upgrade { subprotocol, ..upgrade.clone() }.response()
        }
        Handshake::WrongExtension => {
            let name = "Sec-WebSocket-Extensions";
            upgrade.response().with(name, not_offered(request, name))
        }
    }
}

/// A name that is missing from the list that all header fields called `name` form.
fn not_offered(request: &Request, name: &str) -> String {
    let mut wrong = String::from("not-offered");
    // An extension may have parameters after its name.
    let is_offered = |wrong: &str| {
        let mut names = request.list(name).filter_map(|offer| offer.split(|&b| b == b';').next());
        names.any(|offered| offered.trim_ascii_end() == wrong.as_bytes())
    };
    while is_offered(&wrong) {
        wrong.push('!');
    }
    wrong
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

/// The response to a request that was not complete in time.
pub fn timeout() -> Response {
    Response::text(408, "the request's head was not complete in time")
}

/// The response to plain HTTP on a port that expects TLS.
pub fn tls_required() -> Response {
    Response::text(
        400,
        "this port speaks TLS: use https:// or wss://; a PROXY header needs --proxy-protocol",
    )
}

/// The response to a peer that sends something else instead of the required PROXY header.
pub fn proxy_header_required(wrong: &str) -> Response {
    Response::text(
        400,
        format!("{wrong}: with --proxy-protocol each connection has to begin with a PROXY header"),
    )
}

/// The response when the server can't serve a client at the moment.
pub fn unavailable(why: impl Into<Cow<'static, str>>) -> Response {
    Response::text(503, why.into() + "; try again later").with("Retry-After", "5")
}
