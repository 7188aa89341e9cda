//! An origin, as browsers name the page that opens a connection (RFC 6454).

use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt;

use crate::http::request::{is_scheme, split_port};

/// The ASCII serialization of an origin: `null`, or scheme, host, and a port that is not the
/// scheme's default, in lower case (RFC 6454 §6.2). Apps have schemes of their own, whose host may be
/// empty: `file://`, `app://.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Parses an origin. The scheme's default port is dropped.
    ///
    /// # Errors
    ///
    /// The mistake in a text that no browser sends as an origin, and the correct form.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected SCHEME://HOST, SCHEME://HOST:PORT, file:// or null, for example \
                                https://example.org";
        let text = text.to_ascii_lowercase();
        if text == "null" {
            return Ok(Origin(text));
        }
        let (scheme, authority) = text.split_once("://").ok_or(EXPECTED)?;
        if !is_scheme(scheme) {
            return Err(EXPECTED.into());
        }
        if let Some(end) = authority.find(['/', '?', '#']) {
            let host = &authority[..end];
            return Err(format!("expected an origin without a path: {scheme}://{host}"));
        }
        if let Some((_, host)) = authority.rsplit_once('@') {
            return Err(format!("expected an origin without user information: {scheme}://{host}"));
        }
        let (host, port) = split_port(authority);
        let host = match scheme {
            "http" | "https" | "ws" | "wss" => canonical_host(host)?,
            _ => app_host(host)?,
        };
        let port =
            port.map(parse_port).transpose()?.filter(|&port| Some(port) != default_port(scheme));
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Ok(Origin(format!("{scheme}://{host}{port}")))
    }

    /// The origin that the value of an Origin field names, if it is one.
    pub fn in_field(value: &[u8]) -> Option<Self> {
        Origin::parse(str::from_utf8(value).ok()?).ok()
    }

    /// Whether it is `null`, which identifies no page: a file has it, and a sandboxed frame of any site.
    pub fn is_opaque(&self) -> bool {
        self.0 == "null"
    }

    /// Whether a page of this origin is from `host`, the value of a request's Host field.
    pub fn is_from(&self, host: &[u8]) -> bool {
        let Some((scheme @ ("http" | "https"), _)) = self.0.split_once("://") else {
            return false;
        };
        let Ok(host) = str::from_utf8(host) else { return false };
        Origin::parse(&format!("{scheme}://{host}")).as_ref() == Ok(self)
    }

    /// Whether it is certainly [from](Self::is_from) `host`.
    ///
    /// For a name this is never certain. By DNS rebinding, a page from elsewhere can have the name that
    /// the request goes to: the name had another address when the page was loaded. This is impossible
    /// with an IP address, and with `localhost`, which browsers never look up.
    pub fn is_surely_from(&self, host: &[u8]) -> bool {
        self.is_from(host) && self.has_fixed_address()
    }

    /// Whether its host is an IP address or `localhost`.
    fn has_fixed_address(&self) -> bool {
        let (_, authority) = self.0.split_once("://").unwrap_or_default();
        let (host, _) = split_port(authority);
        host == "localhost" || host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A host as browsers write it: an IP address in its shortest form, a name in ASCII.
fn canonical_host(host: &str) -> Result<String, &'static str> {
    if let Some(literal) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return match literal.parse::<Ipv6Addr>() {
            Ok(address) => Ok(format!("[{address}]")),
            Err(_) => {
                Err("expected an IPv6 address in the brackets, for example http://[::1]:3000")
            }
        };
    }
    // The URL Standard parses a host as an IPv4 address if its last label is a number.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
    if !host.is_ascii() {
        Err(
            "expected the host in ASCII, as browsers send it: xn--… for each label that is not ASCII",
        )
    } else if host.contains('*') {
        Err("expected a whole host, since wildcards match nothing: repeat --origin for each host")
    } else if host.is_empty() || !is_name(host) {
        Err("expected a host name or an IP address, for example https://example.org")
    } else if is_number && host.parse::<Ipv4Addr>().is_err() {
        Err("expected an IPv4 address of four numbers, for example http://127.0.0.1:3000")
    } else {
        Ok(host.into())
    }
}

/// The host in an origin with an app's own scheme.
fn app_host(host: &str) -> Result<String, &'static str> {
    if is_name(host) { Ok(host.into()) } else { canonical_host(host) }
}

fn is_name(host: &str) -> bool {
    host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

fn parse_port(port: &str) -> Result<u16, &'static str> {
    // Rust's parser accepts a sign, which no port has.
    let port = port.parse().ok().filter(|_| !port.starts_with('+'));
    port.ok_or("expected a port from 0 to 65535 after the last colon")
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_serialized_as_browsers_send_it() {
        for (text, serialized) in [
            ("null", "null"),
            ("https://a.example", "https://a.example"),
            ("https://a.example:443", "https://a.example"),
            ("http://a.example:80", "http://a.example"),
            ("http://a.example:443", "http://a.example:443"),
            ("HTTPS://A.Example:8443", "https://a.example:8443"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("http://127.0.0.1:5173", "http://127.0.0.1:5173"),
            ("http://a_b.example.", "http://a_b.example."),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop"),
            ("file://", "file://"),
            ("app://.", "app://."),
            ("capacitor://localhost", "capacitor://localhost"),
            ("app://127.1:80", "app://127.1:80"),
        ] {
            assert_eq!(Origin::parse(text).unwrap().to_string(), serialized);
        }
    }

    #[test]
    fn a_page_is_surely_from_an_ip_address_or_localhost_that_serves_it() {
        for (origin, host) in [
            ("http://127.0.0.1:1222", "127.0.0.1:1222"),
            ("http://localhost:1222", "LocalHost:1222"),
            ("http://[::1]:1222", "[0:0::1]:1222"),
            ("http://192.0.2.7", "192.0.2.7"),
            ("http://192.0.2.7", "192.0.2.7:80"),
            ("https://192.0.2.7", "192.0.2.7:443"),
        ] {
            assert!(Origin::parse(origin).unwrap().is_surely_from(host.as_bytes()), "{origin}");
        }
        // Names, which may have been rebound.
        for (origin, host) in [
            ("http://evil.example:1222", "evil.example:1222"),
            ("https://localhost.evil.example", "localhost.evil.example:443"),
            ("http://127.0.0.1.evil.example", "127.0.0.1.EVIL.example"),
        ] {
            let origin = Origin::parse(origin).unwrap();
            assert!(origin.is_from(host.as_bytes()), "{origin}");
            assert!(!origin.is_surely_from(host.as_bytes()), "{origin}");
        }
        for (origin, host) in [
            ("http://127.0.0.1:1222", "127.0.0.1:1223"),
            ("http://127.0.0.1:1222", "127.0.0.1"),
            ("http://127.0.0.1:1222", "localhost:1222"),
            ("http://127.0.0.1:1222", "127.0.0.1:1222/"),
            ("http://127.0.0.1:1222", "user@127.0.0.1:1222"),
            ("http://127.0.0.1:1222", ""),
            ("http://127.0.0.1:1222", "\u{ff}"),
            ("http://a.example", "b.example"),
            ("null", "null"),
            ("chrome-extension://127.0.0.1", "127.0.0.1"),
            ("file://", ""),
            ("file://", "127.0.0.1"),
        ] {
            assert!(!Origin::parse(origin).unwrap().is_from(host.as_bytes()), "{origin}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused_with_the_form_that_it_sends() {
        for (text, expected) in [
            ("", "SCHEME://HOST"),
            ("a.example", "SCHEME://HOST"),
            ("://a.example", "SCHEME://HOST"),
            ("*://a.example", "SCHEME://HOST"),
            ("https://", "host name"),
            ("https://:443", "host name"),
            ("https://a b", "host name"),
            ("https://a.example/", "without a path: https://a.example"),
            ("https://a.example?x", "without a path: https://a.example"),
            ("file:///", "without a path: file://"),
            ("app://*", "repeat --origin"),
            ("app://a b", "host name"),
            ("file:", "file://"),
            ("https://user@a.example", "user information: https://a.example"),
            ("https://*.example", "repeat --origin"),
            ("https://grün.example", "xn--"),
            ("https://a.example:port", "0 to 65535"),
            ("https://a.example:65536", "0 to 65535"),
            ("https://a.example:+443", "0 to 65535"),
            ("https://a.example:", "0 to 65535"),
            ("http://[::1", "host name"),
            ("http://[1]", "brackets"),
            ("http://127.1", "four numbers"),
            ("http://0x7f000001", "four numbers"),
        ] {
            let error = Origin::parse(text).expect_err(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
