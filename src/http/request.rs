//! The head of an HTTP/1.x request, found and parsed (RFC 9112).

use std::str;

use crate::proxy_protocol;

/// The maximum length of a head in bytes, including its empty line.
pub const MAX_HEAD_LEN: usize = 16 * 1024;

/// The maximum number of header fields in a head.
pub const MAX_FIELDS: usize = 100;

/// A request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'h> {
    /// A token, such as `GET`.
    pub method: &'h str,
    /// Visible ASCII, such as `/chat?room=1`.
    pub target: &'h str,
    /// Major and minor.
    pub version: (u8, u8),
    /// The header fields in their order, each as a token and a value without the space around it.
    pub fields: Vec<(&'h str, &'h [u8])>,
}

/// Why some bytes are not the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Over [`MAX_HEAD_LEN`] or [`MAX_FIELDS`].
    TooLarge,
    /// Not in the grammar of RFC 9112. The text names the mistake.
    Malformed(&'static str),
}

impl From<&'static str> for ParseError {
    fn from(mistake: &'static str) -> Self {
        ParseError::Malformed(mistake)
    }
}

/// Finds the end of the head that `input` begins with, after its empty line. The first `searched`
/// bytes are known not to contain it.
///
/// `Ok(None)` means that more bytes are needed.
///
/// # Errors
///
/// A head over its limits, and TLS or a PROXY header where none is expected. They are detected before
/// the end of the head.
pub fn head_len(input: &[u8], searched: usize) -> Result<Option<usize>, ParseError> {
    const TLS_HANDSHAKE: u8 = 0x16;
    const PROXY_HEADER: &str = "this is a PROXY header, which needs --proxy-protocol, and is read once, from \
                                --proxy-protocol-from";
    const TLS: &str = "this is TLS, and this port speaks ws:// and http://; for wss:// set --tls-cert, or \
                       put a proxy in front";
    if input.first() == Some(&TLS_HANDSHAKE) {
        return Err(TLS.into());
    }
    if input.starts_with(proxy_protocol::V1_PREFIX) {
        return Err(PROXY_HEADER.into());
    }
    let within_limit = &input[..input.len().min(MAX_HEAD_LEN)];
    let searched = searched.min(within_limit.len());
    let end = find_end(within_limit, searched.saturating_sub(2));
    match end {
        None if within_limit.len() == MAX_HEAD_LEN => Err(ParseError::TooLarge),
        // Counted only when a line has ended. Otherwise a head that arrives byte by byte costs quadratic
        // time.
        None if within_limit[searched..].contains(&b'\n') && has_too_many_fields(within_limit) => {
            Err(ParseError::TooLarge)
        }
        end => Ok(end),
    }
}

/// The end of the first empty line that begins at `from` or later. A bare LF ends a line here, so that a
/// client that sends one gets an error at once instead of a timeout.
fn find_end(head: &[u8], from: usize) -> Option<usize> {
    (from..head.len()).filter(|&at| head[at] == b'\n').find_map(|at| match &head[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// The head without an empty line at its start. RFC 9112 §2.2: a server "SHOULD ignore at least one
/// empty line" before the request line.
pub fn skip_empty_line(head: &[u8]) -> &[u8] {
    head.strip_prefix(b"\r\n").unwrap_or(head)
}

/// Whether there are more lines than a request line, the fields, and an empty line at the end.
fn has_too_many_fields(head: &[u8]) -> bool {
    head.iter().filter(|&&byte| byte == b'\n').count() > MAX_FIELDS + 2
}

impl<'h> Request<'h> {
    /// Parses a whole head, empty line included.
    ///
    /// # Errors
    ///
    /// Anything that RFC 9112 does not allow, even if a lenient server would guess its meaning: line
    /// ends other than CRLF, folded lines, space before a colon, control characters.
    pub fn parse(head: &'h [u8]) -> Result<Self, ParseError> {
        const NOT_CRLF: &str = "a line does not end with CR LF";
        const MAYBE_PROXY: &str =
            "this is no request, but may be a PROXY header, which needs --proxy-protocol";
        let head = skip_empty_line(head);
        if has_too_many_fields(head) {
            return Err(ParseError::TooLarge);
        }
        let lines = head.strip_suffix(b"\n").ok_or(NOT_CRLF)?;
        let mut lines = lines.split(|&byte| byte == b'\n').map(|line| {
            let line = line.strip_suffix(b"\r").filter(|line| !line.contains(&b'\r'));
            line.ok_or(NOT_CRLF)
        });
        let request_line = lines.next().unwrap_or(Ok(b""))?;
        if request_line.is_empty() {
            // A PROXY header of version 2 begins like this, and its next bytes may not have arrived yet.
            return Err(MAYBE_PROXY.into());
        }
        let (method, target, version) = parse_request_line(request_line)?;
        let fields = lines.take_while(|line| *line != Ok(b"")).map(|line| parse_field(line?));
        let fields = fields.collect::<Result<_, _>>()?;
        let request = Request { method, target, version, fields };
        request.check_host()?;
        Ok(request)
    }

    /// RFC 9112 §3.2: 400 is the answer "to any HTTP/1.1 request message that lacks a Host header
    /// field and to any request message that contains more than one Host header field line or a Host
    /// header field with an invalid field value". A version that is not spoken gets 505 instead.
    fn check_host(&self) -> Result<(), &'static str> {
        let hosts: Vec<_> = self.values("Host").collect();
        match hosts[..] {
            [] if self.version.0 == 1 && self.version.1 > 0 => Err("Host is missing"),
            [] => Ok(()),
            [host] if is_host(host) => Ok(()),
            [_] => Err("Host is not a host and an optional port"),
            _ => Err("Host is repeated"),
        }
    }

    /// The values of every field called `name`, case-insensitively.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        (self.fields.iter())
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|&(_, value)| value)
    }

    /// The members of the list that all fields called `name` form (RFC 9110 §5.6.1).
    pub fn list(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim)
            .filter(|member| !member.is_empty())
    }

    /// Whether that list has `token`, case-insensitively.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.list(name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// Whether there is a field called `name`, case-insensitively.
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// The target's path, without its query. `None` if it has no path, like `*`.
    pub fn path(&self) -> Option<&'h str> {
        let path = self.path_and_query()?.split('?').next()?;
        Some(if path.is_empty() { "/" } else { path })
    }

    /// The target's query, empty if it has none.
    pub fn query(&self) -> &'h str {
        self.path_and_query()
            .and_then(|target| target.split_once('?'))
            .map_or("", |(_, query)| query)
    }

    fn path_and_query(&self) -> Option<&'h str> {
        match self.target.split_once("://") {
            // RFC 9112 §3.2.2: "A server MUST accept the absolute-form in requests".
            Some((scheme, rest)) if is_scheme(scheme) => {
                Some(rest.find(['/', '?']).map_or("", |at| &rest[at..]))
            }
            _ => self.target.starts_with('/').then_some(self.target),
        }
    }
}

type RequestLine<'h> = (&'h str, &'h str, (u8, u8));

/// Method, target and version (RFC 9112 §3).
fn parse_request_line(line: &[u8]) -> Result<RequestLine<'_>, &'static str> {
    let parts: Vec<_> = line.splitn(4, |&byte| byte == b' ').collect();
    let [method, target, version] = parts[..] else {
        return Err("the first line is not METHOD TARGET VERSION");
    };
    let method = token(method).ok_or("the method is not a token")?;
    let target = parse_target(target)?;
    match version.strip_prefix(b"HTTP/") {
        Some(&[major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9']) => {
            Ok((method, target, (major - b'0', minor - b'0')))
        }
        _ => Err("the version is not HTTP/ and two digits"),
    }
}

/// A target. Only the characters of its grammar (RFC 9112 §3.2) are checked here.
fn parse_target(target: &[u8]) -> Result<&str, &'static str> {
    let target = str::from_utf8(target).ok().filter(|target| target.is_ascii());
    let target =
        target.ok_or("the target is not ASCII; percent-encode it, for example ü as %C3%BC")?;
    if target.is_empty() {
        Err("the target is empty; that of the root is /")
    } else if target.contains('#') {
        Err("the target has a fragment, which a client must not send; a # itself is %23")
    } else if target.contains(|c: char| c.is_ascii_control()) {
        Err("the target has a control character")
    } else {
        Ok(target)
    }
}

/// A name and a value (RFC 9112 §5).
fn parse_field(line: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err("a header field is folded");
    }
    let colon = line.iter().position(|&byte| byte == b':').ok_or("a header has no colon")?;
    let name = token(&line[..colon]).ok_or("a header's name is not a token")?;
    let value = trim(&line[colon + 1..]);
    if value.iter().any(|&byte| byte != b'\t' && byte.is_ascii_control()) {
        return Err("a header's value has a control character");
    }
    Ok((name, value))
}

/// `uri-host [ ":" port ]` (RFC 9110 §7.2, RFC 3986 §3.2.2), which may be empty.
fn is_host(value: &[u8]) -> bool {
    let Ok(value) = str::from_utf8(value) else { return false };
    let (host, port) = split_port(value);
    let is_valid = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(literal) => literal.parse::<core::net::Ipv6Addr>().is_ok(),
        None => (host.bytes())
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte)),
    };
    is_valid && port.unwrap_or_default().bytes().all(|byte| byte.is_ascii_digit())
}

/// The host, and the port after the last colon. An IPv6 address has its own colons in brackets.
pub fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

/// `ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )` (RFC 3986 §3.1).
pub fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// `bytes` as text if they are a token (RFC 9110 §5.6.2).
pub fn token(bytes: &[u8]) -> Option<&str> {
    let is_token = |&byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!bytes.is_empty() && bytes.iter().all(is_token)).then(|| str::from_utf8(bytes).ok()).flatten()
}

/// `bytes` without the optional white space around them: spaces and tabs (RFC 9110 §5.6.3).
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
