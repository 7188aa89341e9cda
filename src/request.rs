//! The head of an HTTP/1.x request, found and parsed (RFC 9112).

use std::str;

/// The longest head that is read, in bytes, its empty line included.
pub const MAX_HEAD_LEN: usize = 16 * 1024;

/// The most header fields that a head may have.
pub const MAX_FIELDS: usize = 100;

/// A request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'h> {
    /// A token, such as `GET`.
    pub method: &'h str,
    /// Visible ASCII, such as `/chat?room=1`.
    pub target: &'h str,
    /// Major and minor.
    pub version: (u8, u8),
    /// The lines of the header fields, each known to be a name, a colon and a value.
    fields: &'h [u8],
}

/// Why some bytes are no request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRequest {
    /// Over [`MAX_HEAD_LEN`] or [`MAX_FIELDS`].
    TooLarge,
    /// Not the grammar of RFC 9112; the text says what is wrong.
    Malformed(&'static str),
}

/// Finds where the head that `input` begins with ends, behind its empty line. The first `searched`
/// bytes are known not to hold the end.
///
/// `Ok(None)` means that more bytes are needed.
///
/// # Errors
///
/// What shows before the end: a head over its limits, and TLS where there is none.
pub fn head_len(input: &[u8], searched: usize) -> Result<Option<usize>, NoRequest> {
    const TLS_HANDSHAKE: u8 = 0x16;
    if input.first() == Some(&TLS_HANDSHAKE) {
        return Err(NoRequest::Malformed(
            "this is TLS, and here it is ws:// or http://; for wss:// put a proxy in front",
        ));
    }
    let within_limit = &input[..input.len().min(MAX_HEAD_LEN)];
    let searched = searched.min(within_limit.len());
    // A bare LF ends a line here, so that a client that sends it is told so, not kept waiting.
    let end =
        (searched.saturating_sub(2)..within_limit.len()).find_map(|at| match &within_limit[at..] {
            [b'\n', b'\n', ..] => Some(at + 2),
            [b'\n', b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        });
    match end {
        None if within_limit.len() == MAX_HEAD_LEN => Err(NoRequest::TooLarge),
        // Counted only when a line has ended, or a head that drips in would cost its square.
        None if within_limit[searched..].contains(&b'\n') && has_too_many_fields(within_limit) => {
            Err(NoRequest::TooLarge)
        }
        end => Ok(end),
    }
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
    /// What RFC 9112 does not allow is refused, even where a lenient server would guess: line ends
    /// other than CRLF, folded lines, space before a colon, control characters.
    pub fn parse(head: &'h [u8]) -> Result<Self, NoRequest> {
        use NoRequest::Malformed;
        // RFC 9112 §2.2: an empty line before the request line is to be ignored.
        let head = head.strip_prefix(b"\r\n").unwrap_or(head);
        if has_too_many_fields(head) {
            return Err(NoRequest::TooLarge);
        }
        if head.iter().enumerate().any(|(at, &byte)| match byte {
            b'\n' => at == 0 || head[at - 1] != b'\r',
            b'\r' => head.get(at + 1) != Some(&b'\n'),
            _ => false,
        }) {
            return Err(Malformed("a line does not end with CR LF"));
        }
        let (request_line, fields) = split_line(head).ok_or(Malformed("it has no lines"))?;

        let mut parts = request_line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Malformed("the first line is not METHOD TARGET VERSION"));
        };
        let method = token(method).ok_or(Malformed("the method is not a token"))?;
        let target = (!target.is_empty() && target.iter().all(u8::is_ascii_graphic))
            .then(|| str::from_utf8(target).ok())
            .flatten()
            .ok_or(Malformed("the target is not visible ASCII"))?;
        let &[
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            major @ b'0'..=b'9',
            b'.',
            minor @ b'0'..=b'9',
        ] = version
        else {
            return Err(Malformed("the version is not HTTP/ and two digits"));
        };

        let request = Request {
            method,
            target,
            version: (major - b'0', minor - b'0'),
            fields,
        };
        let mut rest = fields;
        while let Some((line, next)) = split_line(rest) {
            rest = next;
            match line {
                [] => break,
                [b' ' | b'\t', ..] => return Err(Malformed("a header field is folded")),
                _ => {}
            }
            let (name, value) = split_field(line).ok_or(Malformed("a header has no colon"))?;
            if token(name).is_none() {
                return Err(Malformed("a header's name is not a token"));
            }
            if value
                .iter()
                .any(|&byte| byte != b'\t' && byte.is_ascii_control())
            {
                return Err(Malformed("a header's value has a control character"));
            }
        }
        // RFC 9112 §3.2: a 400 is due to a request with more than one Host.
        if request.values("Host").nth(1).is_some() {
            return Err(Malformed("Host is repeated"));
        }
        Ok(request)
    }

    /// The values of every field called `name`, in whatever case, without the space around them.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        let mut rest = self.fields;
        std::iter::from_fn(move || {
            let (line, next) = split_line(rest)?;
            rest = next;
            Some(line)
        })
        .filter_map(split_field)
        .filter(move |(field, _)| field.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value)
    }

    /// The members of the list that every field called `name` is a part of (RFC 9110 §5.6.1).
    pub fn list(&self, name: &str) -> impl Iterator<Item = &'h [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(trim)
            .filter(|member| !member.is_empty())
    }

    /// The path that the target names, without its query; none when the target names none, as `*`.
    pub fn path(&self) -> Option<&'h str> {
        let path_and_query = match self.target.split_once("://") {
            // RFC 9112 §3.2.2: a server has to accept the absolute form.
            Some((scheme, rest)) if !scheme.contains('/') => {
                rest.find(['/', '?']).map_or("", |at| &rest[at..])
            }
            _ if self.target.starts_with('/') => self.target,
            _ => return None,
        };
        let path = path_and_query.split('?').next()?;
        Some(if path.is_empty() { "/" } else { path })
    }
}

/// `bytes` as text, if they are a token (RFC 9110 §5.6.2).
pub fn token(bytes: &[u8]) -> Option<&str> {
    let is_token = |&byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    (!bytes.is_empty() && bytes.iter().all(is_token))
        .then(|| str::from_utf8(bytes).ok())
        .flatten()
}

/// A line, and what follows it.
fn split_line(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = head.iter().position(|&byte| byte == b'\n')?;
    let line = &head[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &head[end + 1..]))
}

fn split_field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    Some((&line[..colon], trim(&line[colon + 1..])))
}

/// Without the optional white space around it, which is spaces and tabs (RFC 9110 §5.6.3).
fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
