//! How a response is written, byte by byte (RFC 9112 §4).

use tungstenite::http::StatusCode;
use wsecho::http::response::{Response, reason_phrase};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

#[test]
fn a_response_is_complete_and_the_last_one_on_its_connection() {
    let response = Response::text(405, "wrong").with("Allow", "GET");
    let head = "HTTP/1.1 405 Method Not Allowed\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        Allow: GET\r\n\
        Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
        X-Content-Type-Options: nosniff\r\n\
        Content-Length: 6\r\n\
        Connection: close\r\n\
        \r\n";
    let encode = |method| String::from_utf8(response.encode(method, DATE)).unwrap();
    assert_eq!(encode("GET"), format!("{head}wrong\n"));
    assert_eq!(encode("POST"), format!("{head}wrong\n"));
    // RFC 9110 §9.3.2: the same fields as for GET, and no content.
    assert_eq!(encode("HEAD"), head);
}

#[test]
fn a_101_has_no_content_and_ends_nothing() {
    let response = Response { status: 101, headers: vec![], body: "".into() }.with("A", "b");
    let head = b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n";
    assert_eq!(response.encode("GET", DATE), head);
}

#[test]
fn every_status_has_the_reason_phrase_of_rfc_9110() {
    let statuses = [101, 200, 301, 302, 303, 307, 308].into_iter().chain(400..600);
    for status in statuses {
        let phrase = match status {
            // The crate has the older names of these two.
            413 => "Content Too Large",
            422 => "Unprocessable Content",
            // Never sent, unused, and obsolete.
            407 | 418 | 510 => "",
            _ => StatusCode::from_u16(status).unwrap().canonical_reason().unwrap_or_default(),
        };
        assert_eq!(reason_phrase(status), phrase, "{status}");
    }
}
