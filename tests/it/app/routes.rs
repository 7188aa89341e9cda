//! The table of responses: the first row that fits a request is its response.

use wsecho::app::behavior::{self, Behaviors, Handshake};
use wsecho::app::cases::results::Cases;
use wsecho::app::routes::{self, Opening, Purpose, route};
use wsecho::http::origin::Origin;
use wsecho::http::request::{Request, head_len};
use wsecho::http::response::{Response, reason_phrase};
use wsecho::websocket::handshake::Policy;

use crate::http::{CONNECTION, HOST, KEY, UPGRADE, VERSION, upgrade, upgrade_with};

const PAGE: &str = include_str!("../../../static/client.html");
const CASES: &str = include_str!("../../../static/cases.html");

/// The response to a request whose head has come whole, as far as it is read.
fn respond(request: &str) -> Response {
    respond_with(request, Behaviors::On)
}

fn respond_with(request: &str, behaviors: Behaviors) -> Response {
    let origin = Origin::parse("https://good.example").unwrap();
    let policy = Policy { origins: vec![origin], ..Policy::default() };
    let parsed = head_len(request.as_bytes(), 0)
        .and_then(|len| Request::parse(&request.as_bytes()[..len.expect("the head is whole")]));
    match parsed {
        Ok(request) => match route(&request, &policy, behaviors, &Cases::default()) {
            Ok(Opening { upgrade, purpose }) => {
                let handshake = match purpose {
                    Purpose::Behavior(behavior) => behavior.handshake,
                    Purpose::Echo | Purpose::Runner(_) => Handshake::Valid,
                };
                routes::open(&request, &upgrade, handshake)
            }
            Err(response) => response,
        },
        Err(error) => routes::refuse(error),
    }
}

/// Expects this status, and these words in the body. A body that is not the page is one line.
#[track_caller]
fn check(request: &str, status: u16, words: &str) {
    check_response(&respond(request), status, words, request);
}

#[track_caller]
fn check_response(response: &Response, status: u16, words: &str, request: &str) {
    let shown = request[..request.len().min(600)].escape_debug();
    let body = &response.body;
    assert_eq!(response.status, status, "{shown}\n{body}");
    assert!(body.contains(words), "{shown}\n{body} does not say {words:?}");
    assert!(!reason_phrase(status).is_empty());
    if status != 101 && body != PAGE && body != CASES && *body != behavior::table() + "\n" {
        let line = body.strip_suffix('\n').unwrap();
        assert!(!line.is_empty() && !line.contains(char::is_control), "{body:?} is one line");
        assert_eq!(response.headers[0], ("Content-Type", "text/plain; charset=utf-8".into()));
    }
}

#[test]
fn the_first_row_that_fits_is_the_response() {
    let many = "X: y\r\n".repeat(101);
    let long = "x".repeat(16 * 1024);
    let no_key_no_version = upgrade(KEY, "").replace(VERSION, "");
    let evil = "Origin: https://evil.example\r\n";
    #[rustfmt::skip]
    let table = [
        // Over the limit, and malformed.
        (format!("nonsense\r\n{many}\r\n"), 431, "16384 bytes or 100 header fields"),
        (format!("GET / HTTP/1.1\n{many}\r\n"), 431, "16384 bytes or 100 header fields"),
        (format!("GET / HTTP/1.1\nX: {long}\n\n"), 431, "16384 bytes or 100 header fields"),
        (format!("GET /{long} HTTP/1.1\r\n{HOST}\r\n"), 431, "16384 bytes or 100 header fields"),
        // Malformed, and a version that is not spoken.
        ("GET / HTTP/2.0\r\nHost : a\r\n\r\n".into(), 400, "name is not a token"),
        ("G(T / HTTP/3.0\r\n\r\n".into(), 400, "method is not a token"),
        ("GET / HTTP/2.0\r\nHost: a\r\nHost: b\r\n\r\n".into(), 400, "Host is repeated"),
        // No host, and a method that is not answered; every path.
        ("POST / HTTP/1.1\r\n\r\n".into(), 400, "Host is missing"),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, "Host is missing"),
        ("GET /healthz HTTP/1.1\r\n\r\n".into(), 400, "Host is missing"),
        ("GET /nothing HTTP/1.2\r\n\r\n".into(), 400, "Host is missing"),
        (no_key_no_version.replace(HOST, ""), 400, "Host is missing"),
        ("GET / HTTP/1.0\r\nHost: a b\r\n\r\n".into(), 400, "Host is not a host"),
        // A version that is not spoken, and a method that is not answered.
        ("POST / HTTP/2.0\r\n\r\n".into(), 505, "HTTP/1.1"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, "HTTP/1.1"),
        ("GET / HTTP/0.9\r\n\r\n".into(), 505, "HTTP/1.1"),
        (upgrade("HTTP/1.1", "HTTP/2.0"), 505, "HTTP/1.1"),
        // A method that is not answered, with and without an upgrade, whatever the target.
        (format!("POST / HTTP/1.1\r\n{HOST}\r\n"), 405, "GET and HEAD"),
        (format!("DELETE /nothing HTTP/1.1\r\n{HOST}\r\n"), 405, "GET and HEAD"),
        ("OPTIONS * HTTP/1.0\r\n\r\n".into(), 405, "GET and HEAD"),
        (upgrade("GET", "get"), 405, "GET and HEAD"),
        (upgrade("GET", "CONNECT"), 405, "GET and HEAD"),
        // A target that names no path, with and without an upgrade.
        (format!("GET * HTTP/1.1\r\n{HOST}\r\n"), 400, "target"),
        (upgrade("/chat", "localhost:80"), 400, "target"),
        // No upgrade to a WebSocket, and nothing else that one needs.
        ("GET / HTTP/1.0\r\n\r\n".into(), 200, PAGE),
        ("GET / HTTP/1.0\r\nConnection: close\r\nHost: a\r\n\r\n".into(), 200, PAGE),
        (format!("HEAD / HTTP/1.1\r\n{HOST}{evil}Content-Length: 5\r\n\r\n"), 200, PAGE),
        (format!("GET / HTTP/1.2\r\n{HOST}Upgrade: h2c\r\n\r\n"), 200, PAGE),
        ("GET /healthz HTTP/1.0\r\n\r\n".into(), 200, "ok\n"),
        (upgrade("websocket", "h2c").replace("/chat", "/healthz"), 200, "ok\n"),
        (upgrade("websocket", "websockets"), 404, "needs Upgrade: websocket"),
        (upgrade("Upgrade: websocket\r\n", ""), 404, "needs Upgrade: websocket"),
        ("GET /nothing HTTP/1.0\r\n\r\n".into(), 404, "not found"),
        // Over HTTP/1.0, and without Connection.
        (upgrade("1.1", "1.0").replace(CONNECTION, ""), 400, "proxy_http_version 1.1"),
        // Without Connection, with HEAD or a body, and without a version.
        (no_key_no_version.replace(CONNECTION, ""), 400, "Connection does not say upgrade"),
        (no_key_no_version.replace("GET", "HEAD"), 400, "opened by GET"),
        (no_key_no_version.replace(HOST, "Host: a\r\nContent-Length: 5\r\n"), 400, "no body"),
        // Another version, and no key.
        (no_key_no_version, 426, "has to be 13"),
        (upgrade(KEY, "").replace("13", "8"), 426, "has to be 13"),
        // No key or no token, and an origin that is not listed.
        (upgrade(KEY, evil), 400, "Sec-WebSocket-Key is missing"),
        (upgrade(HOST, &format!("{HOST}{evil}Sec-WebSocket-Protocol: a b\r\n")), 400, "not a token"),
        // An origin that is not listed.
        (upgrade_with(evil), 403, "https://evil.example"),
        (upgrade_with("Origin: https://good.example\r\n"), 101, ""),
        // All is well, and what follows the head is not looked at.
        (UPGRADE.into(), 101, ""),
        (format!("\r\n{UPGRADE}GET / HTTP/2.0\r\n\r\n"), 101, ""),
    ];
    for (request, status, words) in table {
        check(&request, status, words);
    }
}

#[test]
fn a_target_may_be_absolute_and_have_a_query() {
    for target in [
        "/",
        "/chat?room=1&x=/y",
        "/%00//",
        "http://localhost/chat",
        "HTTP://localhost:1222/chat?x",
        "ws://localhost",
    ] {
        check(&upgrade("/chat", target), 101, "");
    }
    for (target, status, words) in [
        ("/", 200, PAGE),
        ("/?x=/nothing", 200, PAGE),
        ("/client.html", 200, PAGE),
        ("http://localhost/client.html?x", 200, PAGE),
        ("/cases", 200, CASES),
        ("http://localhost/cases?x", 200, CASES),
        ("/cases/", 404, "not found"),
        ("/Cases", 404, "not found"),
        ("http://localhost", 200, PAGE),
        ("http://localhost?x", 200, PAGE),
        ("/healthz?x", 200, "ok\n"),
        ("http://localhost/healthz", 200, "ok\n"),
        ("http://localhost/nothing", 404, "not found"),
        ("//healthz", 404, "not found"),
        ("/Client.html", 404, "not found"),
        ("/healthz/", 200, "ok\n"),
        ("/healthz/x", 404, "not found"),
        ("localhost:80", 400, "target"),
        ("healthz", 400, "target"),
    ] {
        check(&format!("GET {target} HTTP/1.1\r\n{HOST}\r\n"), status, words);
    }
}

#[test]
fn a_response_says_in_its_headers_what_to_do_next() {
    let headers = |request: &str| respond(request).headers.split_off(1);
    assert_eq!(headers("PUT / HTTP/1.0\r\n\r\n"), [("Allow", "GET, HEAD".into())]);
    assert_eq!(headers("GET /healthz HTTP/1.0\r\n\r\n"), []);

    for path in ["/", "/cases"] {
        let page = respond(&format!("GET {path} HTTP/1.0\r\n\r\n")).headers;
        let [content_type, cache_control, (policy, value)] = &page[..] else { panic!("{page:?}") };
        assert_eq!(*content_type, ("Content-Type", "text/html; charset=utf-8".into()));
        assert_eq!(*cache_control, ("Cache-Control", "no-cache".into()));
        assert_eq!(*policy, "Content-Security-Policy");
        assert!(value.starts_with("default-src 'none'; "), "{value}");
    }

    let unavailable = routes::unavailable("the connection limit is reached");
    check_response(&unavailable, 503, "the connection limit is reached; try again later", "");
    assert_eq!(unavailable.headers[1..], [("Retry-After", "5".into())]);
    check_response(&routes::timeout(), 408, "in time", "");
}

// Behaviors on demand

const GOOD: &str = "Origin: https://good.example\r\n";

#[test]
fn a_plain_request_tells_what_a_behavior_would_do_to_any_page() {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\n{HOST}\r\n");
    for (target, status, words) in [
        ("/do", 200, "\nlatency: "),
        ("/do?", 200, "\nlatency: "),
        ("http://localhost/do", 200, "\nlatency: "),
        ("/do?close=4000", 200, "Right after the handshake the server closes with 4000."),
        (
            "http://localhost/do?close=4000",
            200,
            "Right after the handshake the server closes with 4000.",
        ),
        ("/do?status=404", 200, "The handshake is refused with 404 Not Found."),
        // It has no reason phrase.
        ("/do?status=418", 200, "The handshake is refused with 418."),
        ("/do?dump", 200, "The first message is the request as JSON."),
        ("/do?close=1006", 400, "use fin or rst"),
    ] {
        let response = respond(&get(target));
        check_response(&response, status, words, target);
        assert_eq!(response.headers[1..], [("Access-Control-Allow-Origin", "*".into())]);
    }
    let off = respond_with(&get("/do?close=4000"), Behaviors::Off);
    check_response(&off, 404, "not found", "");
}

#[test]
fn what_is_nearly_the_path_of_behaviors_or_cases_is_an_error_and_no_plain_echo() {
    let nearly =
        ["/do/", "//do", "/Do", "/DO//", "/do%3Fclose=4000", "/do;close=4000", "/do&close=4000"]
            .map(|path| (path, "mean /do?"));
    let of_cases = [("/runcase", "mean /runCase?"), ("/getCaseCount/", "mean /getCaseCount?")];
    for (path, meant) in nearly.into_iter().chain(of_cases) {
        for query in ["", "?", "?close=4000"] {
            let target = format!("{path}{query}");
            let get = format!("GET {target} HTTP/1.1\r\n{HOST}\r\n");
            for request in [get, upgrade("/chat", &target)] {
                check(&request, 404, meant);
                let off = respond_with(&request, Behaviors::Off);
                assert_eq!(off.status, if request.contains("Upgrade") { 101 } else { 404 });
            }
        }
    }
    for path in ["/done", "/todo", "/do/x", "/d%6F"] {
        check(&upgrade("/chat", path), 101, "");
    }
}

#[test]
fn a_behavior_changes_the_answer_to_a_handshake_and_nothing_that_is_refused_anyway() {
    let ask = |query: &str| upgrade("/chat", &format!("/do{query}"));
    check(&ask(""), 101, "");
    check(&ask("?close=4000"), 101, "");
    check(&ask("?status=503"), 503, "asked for");
    check(&ask("?clos=4000"), 400, "\"clos\" is not a parameter");
    check(&ask("?clos=4000").replace(KEY, ""), 400, "Sec-WebSocket-Key is missing");
    check(&ask("?status=503").replace("13", "8"), 426, "has to be 13");
    let evil = "Origin: https://evil.example\r\n";
    check(&ask("?status=200").replace(HOST, &format!("{HOST}{evil}")), 403, "evil.example");
    let off = respond_with(&ask("?status=503"), Behaviors::Off);
    check_response(&off, 101, "", "");
    // Elsewhere a query means nothing.
    check(&upgrade("/chat", "/chat?status=503"), 101, "");
}

#[test]
fn a_status_on_demand_is_complete_with_what_it_needs() {
    for (status, header) in [
        (301, Some(("Location", "/"))),
        (308, Some(("Location", "/"))),
        (401, Some(("WWW-Authenticate", "Bearer"))),
        (405, Some(("Allow", "GET, HEAD"))),
        (426, Some(("Sec-WebSocket-Version", "13"))),
        (429, Some(("Retry-After", "5"))),
        (503, Some(("Retry-After", "5"))),
        (200, None),
        (404, None),
        (599, None),
    ] {
        let response = respond(&upgrade("/chat", &format!("/do?status={status}")));
        assert_eq!(response.status, status);
        let headers = response.headers[1..].iter().map(|(name, value)| (*name, &**value));
        assert_eq!(headers.take(1).next(), header, "{status}");
    }
    // RFC 9110 §7.8: who sends Upgrade "MUST also send an "Upgrade" connection option".
    let response = respond(&upgrade("/chat", "/do?status=426"));
    for header in [("Upgrade", "websocket".into()), ("Connection", "Upgrade".into())] {
        assert!(response.headers.contains(&header), "{header:?}");
    }
}

#[test]
fn a_wrong_handshake_is_wrong_in_what_was_asked_for_only() {
    let lines = "Sec-WebSocket-Protocol: chat, not-offered\r\n\
                 Sec-WebSocket-Extensions: not-offered! ; x=1\r\n\
                 Sec-WebSocket-Extensions: not-offered\r\n";
    let ask = |query: &str| {
        let request = upgrade_with(lines).replace("/chat", &format!("/do{query}"));
        let response = respond(&request);
        assert_eq!(response.status, 101);
        let value = |name: &str| -> Vec<String> {
            let named = response.headers.iter().filter(|(header, _)| *header == name);
            named.map(|(_, value)| value.to_string()).collect()
        };
        ["Accept", "Protocol", "Extensions"].map(|name| value(&format!("Sec-WebSocket-{name}")))
    };
    let right = ask("");
    let [accept, protocol, extensions] = ask("?bad=accept");
    assert_ne!(accept, right[0]);
    assert_eq!((accept[0].len(), &protocol, &extensions), (28, &right[1], &right[2]));
    let [accept, protocol, extensions] = ask("?bad=protocol");
    assert_eq!((&accept, &extensions), (&right[0], &right[2]));
    assert_eq!(protocol, ["not-offered!"]);
    let [accept, protocol, extensions] = ask("?bad=extension");
    assert_eq!((&accept, &protocol), (&right[0], &right[1]));
    assert!(extensions.contains(&"not-offered!!".into()), "{extensions:?}");
}

#[test]
fn dump_is_for_programs_and_for_pages_that_are_listed_or_surely_from_this_host() {
    let ask_with = |origins: &[&str], host: &str, lines: &str| {
        let lines = format!("{host}{lines}");
        let request = upgrade(HOST, &lines).replace("/chat", "/do?dump");
        let head = Request::parse(request.as_bytes()).unwrap();
        let origins = origins.iter().map(|origin| Origin::parse(origin).unwrap()).collect();
        let policy = Policy { origins, ..Policy::default() };
        match route(&head, &policy, Behaviors::On, &Cases::default()) {
            Ok(_) => 101,
            Err(response) => response.status,
        }
    };
    let ask = |lines: &str| ask_with(&[], HOST, lines);
    for (lines, status) in [
        ("", 101),
        ("Origin: http://localhost\r\n", 101),
        ("Origin: HTTPS://LOCALHOST\r\n", 101),
        ("Origin: null\r\n", 403),
        ("Origin: \r\n", 403),
        ("Origin: localhost\r\n", 403),
        ("Origin: http://localhost:3000\r\n", 403),
        ("Origin: http://localhost.evil.example\r\n", 403),
        ("Origin: http://evil.example/://localhost\r\n", 403),
        ("Origin: http://localhost\r\nOrigin: http://evil.example\r\n", 403),
        (GOOD, 403),
    ] {
        assert_eq!(ask(lines), status, "{lines}");
    }
    // By DNS rebinding any page may have the name that the request goes to.
    let rebound = "Host: good.example\r\n";
    assert_eq!(ask_with(&[], rebound, GOOD), 403);
    assert_eq!(ask_with(&["https://good.example"], rebound, GOOD), 101);
    assert_eq!(ask_with(&["https://good.example"], HOST, GOOD), 101);
    assert_eq!(ask_with(&[], "Host: 192.0.2.1:81\r\n", "Origin: http://192.0.2.1:81\r\n"), 101);
    // Any page can have a frame whose origin is null.
    assert_eq!(ask_with(&["null"], HOST, "Origin: null\r\n"), 403);
    assert_eq!(ask_with(&["file://"], HOST, "Origin: file://\r\n"), 101);
}
