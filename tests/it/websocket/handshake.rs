//! The opening handshake: what a request that asks for a WebSocket has to be, and what is agreed
//! (RFC 6455 §4.2).

use wsecho::http::origin::Origin;
use wsecho::http::request::Request;
use wsecho::http::response::Response;
use wsecho::websocket::handshake::{Policy, accept};

use crate::http::{CONNECTION, HOST, KEY, UPGRADE, UPGRADE_FIELD, VERSION, upgrade, upgrade_with};

/// The response to a whole request for a WebSocket.
fn respond(request: &str, policy: &Policy) -> Response {
    let request = Request::parse(request.as_bytes()).expect("the head is well-formed");
    accept(&request, policy).map_or_else(|response| response, |upgrade| upgrade.response())
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    let values: Vec<_> = response.headers.iter().filter(|(field, _)| *field == name).collect();
    assert!(values.len() <= 1, "{response:?}");
    values.first().map(|(_, value)| &**value)
}

#[test]
fn the_published_examples_are_answered_to_the_byte() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let other_key =
        "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n";
    for (request, agreed) in [
        (UPGRADE.into(), "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"),
        (
            upgrade(KEY, other_key),
            "Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk=\r\n\
             Sec-WebSocket-Protocol: chat\r\n",
        ),
    ] {
        let response = respond(&request, &Policy::default()).encode("GET", "");
        assert_eq!(String::from_utf8(response).unwrap(), format!("{head}{agreed}\r\n"));
    }
}

#[test]
fn each_header_missing_repeated_and_in_odd_forms() {
    let key = |key| format!("Sec-WebSocket-Key: {key}\r\n");
    #[rustfmt::skip]
    let table = [
        (HOST, "Host:\r\n", 101, ""),
        (UPGRADE_FIELD, "Upgrade: h2c\r\nupgrade: x, WEBSocket\r\n", 101, ""),
        (CONNECTION, "", 400, "Connection does not say upgrade"),
        (CONNECTION, "Connection: close\r\n", 400, "Connection does not say upgrade"),
        (CONNECTION, "Connection: Upgrade-Insecure\r\n", 400, "Connection does not say upgrade"),
        (CONNECTION, "Connection: uPGRADE\r\n", 101, ""),
        (CONNECTION, "Connection: keep-alive, Upgrade\r\n", 101, ""),
        (CONNECTION, "Connection: ,, upgrade ,x\r\n", 101, ""),
        (CONNECTION, "Connection: keep-alive\r\nConnection: Upgrade\r\n", 101, ""),
        (KEY, "", 400, "Sec-WebSocket-Key is missing"),
        (KEY, &key(""), 400, "not 16 bytes"),
        (KEY, &key("AAAAAAAAAAAAAAAAAAAA"), 400, "not 16 bytes"),
        (KEY, &key("AAAAAAAAAAAAAAAAAAAAAAA="), 400, "not 16 bytes"),
        (KEY, &key("dGhlIHNhbXBsZSBub25jZQ"), 400, "not 16 bytes"),
        (KEY, &key("dGhlIHNhbXBsZSBub25jZQ="), 400, "not 16 bytes"),
        (KEY, &key("dGhlIHNhbXBsZSBu b25jZQ=="), 400, "not 16 bytes"),
        (KEY, &key("dGhlIHNhbXBsZSBub25jZ-=="), 400, "not 16 bytes"),
        (KEY, &KEY.repeat(2), 400, "Sec-WebSocket-Key is repeated"),
        // The last digit has four unused bits. Some clients set them.
        (KEY, &key("dGhlIHNhbXBsZSBub25jZR=="), 101, ""),
        (VERSION, "", 426, "Sec-WebSocket-Version is missing; it has to be 13"),
        (VERSION, "Sec-WebSocket-Version:\r\n", 426, "is \"\"; it has to be 13"),
        (VERSION, "Sec-WebSocket-Version: 8\r\n", 426, "is \"8\"; it has to be 13"),
        (VERSION, "Sec-WebSocket-Version: 013\r\n", 426, "\"013\""),
        (VERSION, "Sec-WebSocket-Version: 13, 8\r\n", 426, "\"13, 8\""),
        (VERSION, "Sec-WebSocket-Version: 1\u{202e}3\r\n", 426, "\"1\\u{202e}3\""),
        (VERSION, &VERSION.repeat(2), 400, "Sec-WebSocket-Version is repeated"),
        ("GET", "HEAD", 400, "opened by GET"),
        ("HTTP/1.1", "HTTP/1.0", 400, "proxy_http_version 1.1"),
        ("HTTP/1.1", "HTTP/1.2", 101, ""),
        (HOST, "Host: a\r\nContent-Length: 0\r\n", 101, ""),
        (HOST, "Host: a\r\nContent-Length: 5\r\n", 400, "no body"),
        (HOST, "Host: a\r\nContent-Length: 0\r\nContent-Length: 5\r\n", 400, "no body"),
        (HOST, "Host: a\r\nTransfer-Encoding: chunked\r\n", 400, "no body"),
    ];
    for (from, to, status, words) in table {
        let response = respond(&upgrade(from, to), &Policy::default());
        assert_eq!(response.status, status, "{to}: {}", response.body);
        assert!(response.body.contains(words), "{to}: {}", response.body);
        assert_eq!(header(&response, "Sec-WebSocket-Accept").is_some(), status == 101, "{to}");
    }
}

#[test]
fn another_version_is_answered_426_and_told_the_right_one() {
    for version in ["", "Sec-WebSocket-Version: 8\r\n"] {
        let response = respond(&upgrade(VERSION, version), &Policy::default());
        assert_eq!(response.status, 426);
        assert_eq!(header(&response, "Sec-WebSocket-Version"), Some("13"));
        assert_eq!(header(&response, "Upgrade"), Some("websocket"));
        assert_eq!(header(&response, "Connection"), Some("Upgrade"));
    }
}

#[test]
fn a_subprotocol_is_agreed_only_from_the_clients_offer() {
    let listed = Policy { subprotocols: vec!["chat".into(), "soap".into()], ..Policy::default() };
    for (offer, agreed_by_any, agreed_by_listed) in [
        ("", None, None),
        ("Sec-WebSocket-Protocol: chat\r\n", Some("chat"), Some("chat")),
        ("Sec-WebSocket-Protocol: soap, chat\r\n", Some("soap"), Some("soap")),
        ("Sec-WebSocket-Protocol: mqtt,\t chat\r\n", Some("mqtt"), Some("chat")),
        ("Sec-WebSocket-Protocol: mqtt, Chat\r\n", Some("mqtt"), None),
        ("Sec-WebSocket-Protocol: , ,chat\r\n", Some("chat"), Some("chat")),
        (
            "sec-websocket-protocol: a\r\nSec-WebSocket-Protocol: b,soap\r\n",
            Some("a"),
            Some("soap"),
        ),
    ] {
        let request = upgrade_with(offer);
        for (policy, agreed) in [(&Policy::default(), agreed_by_any), (&listed, agreed_by_listed)] {
            let response = respond(&request, policy);
            assert_eq!(response.status, 101, "{offer}");
            assert_eq!(header(&response, "Sec-WebSocket-Protocol"), agreed, "{offer}");
        }
    }
    for offer in ["a b", "chat, \"soap\"", "grün"] {
        let request = upgrade_with(&format!("Sec-WebSocket-Protocol: {offer}\r\n"));
        let response = respond(&request, &listed);
        assert_eq!(response.status, 400, "{offer}");
        assert!(response.body.contains("not a token"), "{}", response.body);
    }
}

#[test]
fn section_4_2_1_a_list_that_is_there_has_a_member() {
    for name in ["Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions"] {
        for (fields, status) in [
            (format!("{name}:\r\n"), 400),
            (format!("{name}: ,\r\n"), 400),
            (format!("{name}:\r\n{name}: ,,\r\n"), 400),
            (format!("{name}:\r\n{name}: ,x\r\n"), 101),
        ] {
            let response = respond(&upgrade_with(&fields), &Policy::default());
            assert_eq!(response.status, status, "{fields}");
            assert!(status == 101 || response.body.starts_with(name), "{}", response.body);
        }
    }
}

#[test]
fn extensions_are_declined_by_silence() {
    let offer = "Sec-WebSocket-Extensions: permessage-bzip2; client_max_window_bits, x\r\n";
    let response = respond(&upgrade_with(offer), &Policy::default());
    assert_eq!(response, respond(UPGRADE, &Policy::default()));
    assert_eq!((response.status, header(&response, "Sec-WebSocket-Extensions")), (101, None));
}

#[test]
fn an_origin_that_is_not_listed_is_forbidden() {
    let policy = |origins: &[&str]| {
        let origins = origins.iter().map(|origin| Origin::parse(origin).unwrap()).collect();
        Policy { origins, ..Policy::default() }
    };
    let policies = [
        policy(&[]),
        policy(&["https://good.example:8443", "https://other.example:443"]),
        policy(&["http://a.example", "null"]),
    ];
    for (origins, statuses) in [
        (&[][..], [101, 101, 101]),
        (&["https://good.example:8443"], [101, 101, 403]),
        (&["HTTPS://Good.Example:8443"], [101, 101, 403]),
        (&["https://good.example"], [101, 403, 403]),
        (&["https://good.example:8443.evil.example"], [101, 403, 403]),
        (&["https://evil-good.example:8443"], [101, 403, 403]),
        (&["https://good.example:8443, null"], [101, 403, 403]),
        (&["http://other.example"], [101, 403, 403]),
        // RFC 6454 §6: an origin has no port that is its scheme's default.
        (&["https://other.example"], [101, 101, 403]),
        (&["https://other.example:443"], [101, 101, 403]),
        (&["http://a.example:80"], [101, 403, 101]),
        (&["null"], [101, 403, 101]),
        (&[""], [101, 403, 403]),
        (&["http://a.example", "http://b.example"], [101, 403, 403]),
    ] {
        let lines = origins.iter().flat_map(|origin| ["Origin: ", origin, "\r\n"]);
        let fields: String = lines.collect();
        for (policy, status) in policies.iter().zip(statuses) {
            let response = respond(&upgrade_with(&fields), policy);
            assert_eq!(response.status, status, "{fields}{}", response.body);
            assert!(status == 101 || response.body.starts_with("Origin \""), "{}", response.body);
        }
    }
    // The bundled page is of the origin that the request goes to. A page that has only the name may come
    // from elsewhere, by DNS rebinding.
    for (host, origin, status) in [
        ("127.0.0.1:1222", "http://127.0.0.1:1222", 101),
        ("localhost:1222", "http://localhost:1222", 101),
        ("127.0.0.1:1222", "http://127.0.0.1:8080", 403),
        ("127.0.0.1:1222", "http://localhost:1222", 403),
        ("echo.example", "http://echo.example", 403),
    ] {
        let request = upgrade(HOST, &format!("Host: {host}\r\nOrigin: {origin}\r\n"));
        for (policy, status) in policies.iter().zip([101, status, status]) {
            assert_eq!(respond(&request, policy).status, status, "{host}, {origin}");
        }
    }
    let response = respond(&upgrade_with("Origin: a\u{202e}b\r\n"), &policies[1]);
    assert_eq!(response.body, "Origin \"a\\u{202e}b\" is not an origin, and not allowed\n");
    let response = respond(&upgrade_with("Origin: HTTPS://Evil.example:443\r\n"), &policies[1]);
    assert_eq!(
        response.body,
        "Origin \"HTTPS://Evil.example:443\" is not allowed; --origin https://evil.example allows it\n"
    );
}
