//! Group 14: answers to the opening handshake, and the client's request.

use std::borrow::Cow;
use std::time::Duration;

use crate::app::behavior::Handshake;
use crate::app::cases::beyond::kinds::{self, KILL, TEXT, echoed, fails};
use crate::app::cases::case::{
    Action, Bytes, Case, Check, Edit, ExpectedClose, Id, Opening, Writes,
};
use crate::http::request::Request;

const ACCEPT: &str = "RFC 6455 §4.1: \"If the response lacks a |Sec-WebSocket-Accept| header field or the \
                      |Sec-WebSocket-Accept| contains a value other than the base64-encoded SHA-1 of the \
                      concatenation of the |Sec-WebSocket-Key| … the client MUST _Fail the WebSocket \
                      Connection_.\"";
const UPGRADE: &str = "RFC 6455 §4.1: \"If the response lacks an |Upgrade| header field or the |Upgrade| header \
                       field contains a value that is not an ASCII case-insensitive match for the value \
                       \"websocket\", the client MUST _Fail the WebSocket Connection_.\"";
const CONNECTION: &str = "RFC 6455 §4.1: \"If the response lacks a |Connection| header field or the |Connection| \
                          header field doesn't contain a token that is an ASCII case-insensitive match for the \
                          value \"Upgrade\", the client MUST _Fail the WebSocket Connection_.\"";
const PROTOCOL: &str = "RFC 6455 §4.1: \"If the response includes a |Sec-WebSocket-Protocol| header field and this \
                        header field indicates the use of a subprotocol that was not present in the client's \
                        handshake … the client MUST _Fail the WebSocket Connection_.\"";
const EXTENSION: &str = "RFC 6455 §4.1: \"If the response includes a |Sec-WebSocket-Extensions| header field and this \
                         header field indicates the use of an extension that was not present in the client's \
                         handshake … the client MUST _Fail the WebSocket Connection_.\"";
const STATUS: &str = "RFC 6455 §4.1: \"If the status code received from the server is not 101, the client handles the \
                      response per HTTP [RFC2616] procedures.\"";
const REDIRECT: &str = "RFC 6455 §4.1: \"the server might redirect the client using a 3xx status code (but clients are \
                        not required to follow them)\".";
const HEAD: &str = "RFC 9112 §2.2: a recipient parses \"an HTTP message as a sequence of octets\", whatever the segments \
                    that they arrive in.";
const FOLDED: &str = "RFC 9112 §5.2: \"A user agent that receives an obs-fold in a response message that is not within a \
                      \"message/http\" container MUST replace each received obs-fold with one or more SP octets prior to \
                      interpreting the field value.\"";
const FRAMES: &str = "RFC 6455 §4.2.2: after the server's handshake \"the WebSocket connection is in the OPEN state. At this \
                      point, the server may begin sending (and receiving) data.\"";
const TWICE: &str = "RFC 6455 §5.2: what follows the handshake is frames, and as a frame \"HTTP\" has reserved bits: \"the \
                     receiving endpoint MUST _Fail the WebSocket Connection_.\"";
const KEY: &str = "RFC 6455 §4.1: \"The nonce MUST be selected randomly for each connection.\" \"The request MUST contain \
                   a |Host| header field whose value contains /host/ plus optionally \":\" followed by /port/\".";
const MASKS: &str = "RFC 6455 §5.3: \"When preparing a masked frame, the client MUST pick a fresh masking key from the \
                     set of allowed 32-bit values.\"";

/// The value of one of eight header fields that make a head of 8 KiB.
const LONG: &str = match str::from_utf8(&[b'x'; 1000]) {
    Ok(long) => long,
    Err(_) => "",
};
const LONG_HEAD: &[Edit] = &[
    Edit::Set("X-Long-1", LONG),
    Edit::Set("X-Long-2", LONG),
    Edit::Set("X-Long-3", LONG),
    Edit::Set("X-Long-4", LONG),
    Edit::Set("X-Long-5", LONG),
    Edit::Set("X-Long-6", LONG),
    Edit::Set("X-Long-7", LONG),
    Edit::Set("X-Long-8", LONG),
];

pub fn cases() -> Vec<Case> {
    [refused(), statuses(), heads(), requests()].concat()
}

/// A 101 that the client has to refuse.
fn refused() -> Vec<Case> {
    let wrong = |section, number, rule, handshake, edits| {
        fails(Id::new(14, section, number), rule, handshake, edits, TEXT)
    };
    let edited =
        |section, number, rule, edits| wrong(section, number, rule, Handshake::Valid, edits);
    vec![
        wrong(1, 1, ACCEPT, Handshake::WrongAccept, &[]),
        edited(1, 2, ACCEPT, &[Edit::Remove("Sec-WebSocket-Accept")]),
        edited(1, 3, ACCEPT, &[Edit::Set("Sec-WebSocket-Accept", "")]),
        edited(1, 4, ACCEPT, &[Edit::Lowercase("Sec-WebSocket-Accept")]),
        edited(2, 1, UPGRADE, &[Edit::Remove("Upgrade")]),
        edited(2, 2, UPGRADE, &[Edit::Set("Upgrade", "h2c")]),
        edited(2, 3, CONNECTION, &[Edit::Remove("Connection")]),
        edited(2, 4, CONNECTION, &[Edit::Set("Connection", "keep-alive")]),
        wrong(2, 5, PROTOCOL, Handshake::WrongProtocol, &[]),
        wrong(2, 6, EXTENSION, Handshake::WrongExtension, &[]),
    ]
}

/// A response other than 101.
fn statuses() -> Vec<Case> {
    let status = |number, rule, status, edits| {
        fails(Id::new(14, 3, number), rule, Handshake::Status(status), edits, TEXT)
    };
    vec![
        status(1, STATUS, 200, &[]),
        status(2, STATUS, 401, &[]),
        status(3, STATUS, 503, &[]),
        Case {
            note: "The client may follow it in another connection, or fail.",
            ..status(4, REDIRECT, 302, &[Edit::Set("Location", "/getCaseCount")])
        },
    ]
}

/// A right 101 that looks unusual.
fn heads() -> Vec<Case> {
    const SECOND: Bytes = Bytes {
        name: Cow::Borrowed("a second 101"),
        bytes: Cow::Borrowed(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        ),
        writes: Writes::Alone,
    };
    let head = |number, rule, edits, writes| {
        let opening = Opening { edits, writes, ..Opening::VALID };
        Case { opening, ..echoed(Id::new(14, 4, number), rule, 1) }
    };
    let edited = |number, rule, edits| head(number, rule, edits, Writes::Together);
    let may_refuse = |note, case| {
        let refused = kinds::non_strict(vec![], ExpectedClose::by_end_of_tcp());
        Case { alternative: Some(refused), note, ..case }
    };
    vec![
        edited(1, UPGRADE, &[Edit::Set("Upgrade", "WebSocket")]),
        edited(2, CONNECTION, &[Edit::Set("Connection", "keep-alive, upgrade")]),
        head(3, HEAD, &[], Writes::Dripped(Duration::from_millis(5))),
        may_refuse("A client may have a limit, which is NON-STRICT.", edited(4, HEAD, LONG_HEAD)),
        may_refuse(
            "A server MUST NOT send it, so a client that refuses it is only NON-STRICT.",
            edited(5, FOLDED, &[Edit::Set("X-Folded", "one\r\n two")]),
        ),
        echoed(Id::new(14, 4, 6), FRAMES, 2),
        Case::beyond(
            Id::new(14, 4, 7),
            TWICE,
            vec![Action::Bytes(SECOND), Action::text(TEXT)],
            vec![],
            ExpectedClose::failing(&[1002]),
            KILL,
        ),
    ]
}

/// The request and the masking keys of the client.
fn requests() -> Vec<Case> {
    vec![
        Case {
            check: Check::Request,
            note: "Without version 13 and a key of 16 bytes, no case opens.",
            ..echoed(Id::new(14, 5, 1), KEY, 1)
        },
        Case { check: Check::MaskingKeys, ..echoed(Id::new(14, 5, 2), MASKS, 4) },
    ]
}

/// A mistake in a request that does not prevent the answer.
pub fn mistake(request: &Request) -> Option<&'static str> {
    let mut values = request.values("Host").chain(request.values("Sec-WebSocket-Key"));
    values.find_map(|value| match value {
        b"" => Some("Host is empty"),
        b"dGhlIHNhbXBsZSBub25jZQ==" => Some("Sec-WebSocket-Key is the example of RFC 6455"),
        _ => None,
    })
}
