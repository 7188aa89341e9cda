//! A response and its encoding (RFC 9112 §4).

use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// The response to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    /// Names and values, each value without line ends.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// The content, empty for 101.
    pub body: Cow<'static, str>,
}

impl Response {
    /// A response with `body` as a line of plain text.
    pub fn text(status: u16, body: impl Into<Cow<'static, str>>) -> Self {
        let body = body.into() + "\n";
        Response { status, headers: vec![], body }.with("Content-Type", "text/plain; charset=utf-8")
    }

    /// The same response with one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Encodes the response to a request with `method`: HEAD gets no content. `date` is the current time
    /// in the format of RFC 9110 §5.6.7.
    ///
    /// Every response but 101 ends the connection.
    pub fn encode(&self, method: &str, date: impl fmt::Display) -> Vec<u8> {
        let mut head = String::with_capacity(192 + self.body.len());
        let _ = write!(head, "HTTP/1.1 {} {}\r\n", self.status, reason_phrase(self.status));
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        if self.status == 101 {
            head += "\r\n";
            return head.into_bytes();
        }
        head += &format!(
            "Date: {date}\r\n\
             X-Content-Type-Options: nosniff\r\n\
             Content-Length: {}\r\n\
             Connection: close\r\n\
             \r\n",
            self.body.len(),
        );
        if method != "HEAD" {
            head += &self.body;
        }
        head.into_bytes()
    }
}

/// A status code with its [`reason_phrase`], if it has one.
pub fn described(status: u16) -> String {
    match reason_phrase(status) {
        "" => status.to_string(),
        phrase => format!("{status} {phrase}"),
    }
}

/// The reason phrase of a status code (RFC 9110 §15 and the registry of status codes), empty for an
/// unregistered one.
pub fn reason_phrase(status: u16) -> &'static str {
    match status {
        101 => "Switching Protocols",
        200 => "OK",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
