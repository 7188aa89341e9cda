//! Requests that a client may send: mostly near valid ones, so that a fuzzer soon gets past the first line.

use arbitrary::{Arbitrary, Result, Unstructured};

use crate::client::rarely;
use crate::deflate::parameters;
use crate::driver::upgrade;

/// A request, often for a WebSocket, maybe with bytes after it or without its end.
#[derive(Debug)]
pub struct Head(pub Vec<u8>);

impl<'a> Arbitrary<'a> for Head {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        #[rustfmt::skip]
        const FIELDS: [(&str, &[&str]); 12] = [
            ("Host", &["localhost", "", "a:1, b", "127.0.0.1:1222"]),
            ("Upgrade", &["websocket", "WebSocket", "h2c", "h2c, websocket", "websocket/13"]),
            ("Connection", &["Upgrade", "keep-alive, Upgrade", "keep-alive,\tupgrade", "close"]),
            ("Sec-WebSocket-Version", &["13", "8", "013", "13, 8"]),
            ("Sec-WebSocket-Key", &["dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZR==", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQ= =", "AAAA"]),
            ("Sec-WebSocket-Protocol", &["chat", "soap, chat", ",", "a b", "\"chat\""]),
            ("Sec-WebSocket-Extensions", &["permessage-deflate", "permessage-deflate; server_max_window_bits=9", "permessage-deflate; client_no_context_takeover", "permessage-deflate; a=b, permessage-deflate", "x; y=\"z\"", ""]),
            ("Origin", &["https://example.org", "HTTPS://EXAMPLE.ORG", "null", "https://a.b", "http://localhost", "http://127.0.0.1:1222", "http://[::1]"]),
            ("Content-Length", &["0", "00", "5", "-1"]),
            ("Transfer-Encoding", &["chunked", "identity"]),
            ("X-Forwarded-For", &["192.0.2.1", "a\"b"]),
            ("X-Any", &["", "a b", "\u{e4}", "\0", "a\rb"]),
        ];
        const NEEDED: usize = 5;

        let target = match u.arbitrary()? {
            true => "/".into(),
            false => format!("/do?{}", Query::arbitrary(u)?.0),
        };
        if u.arbitrary()? {
            let offer = match u.arbitrary()? {
                true => String::new(),
                false => format!("Sec-WebSocket-Extensions: {}\r\n", parameters(u)?),
            };
            return Ok(Head(upgrade(&target, &offer).into()));
        }
        let mut head = Vec::new();
        if !rarely(u)? {
            let method = usual(u, &["GET", "HEAD", "POST", "get", "G@T"])?;
            let targets = [&target, "/chat?a=b", "http://host/x", "*", "/healthz", "/a b", ""];
            let target = usual(u, &targets)?;
            let version = usual(u, &["HTTP/1.1", "HTTP/1.0", "HTTP/1.2", "HTTP/2.0", "http/1.1"])?;
            head.extend([&method[..], b" ", &target, b" ", &version].concat());
            line_end(u, &mut head)?;
            for (name, values) in &FIELDS[..NEEDED] {
                if !rarely(u)? {
                    field(u, name, values, &mut head)?;
                }
            }
            for _ in 0..u.int_in_range(0..=3)? {
                let (name, values) = u.choose(&FIELDS)?;
                field(u, name, values, &mut head)?;
            }
            if rarely(u)? {
                head.extend(b"X-Many: x\r\n".repeat(u.int_in_range(80..=110)?));
            }
            if rarely(u)? {
                head.extend(b"X-Long: ");
                head.extend(&[b'x'; 20_000][..u.int_in_range(16_000..=17_000)?]);
                line_end(u, &mut head)?;
            }
            line_end(u, &mut head)?;
        }
        head.extend_from_slice(u.arbitrary()?);
        Ok(Head(head))
    }
}

fn field(u: &mut Unstructured, name: &str, values: &[&str], head: &mut Vec<u8>) -> Result<()> {
    let name = match u.int_in_range(0..=7)? {
        5 => name.to_lowercase(),
        6 => name.to_uppercase(),
        7 if rarely(u)? => [name, u.arbitrary()?].concat(),
        _ => name.into(),
    };
    head.extend(name.as_bytes());
    head.extend(usual(u, &[": ", ":", ":\t ", " : ", ";"])?);
    head.extend(usual(u, values)?);
    line_end(u, head)
}

fn line_end(u: &mut Unstructured, head: &mut Vec<u8>) -> Result<()> {
    head.extend(usual(u, &["\r\n", "\r\n", "\n", "\r\n ", " \t\r\n", "\r"])?);
    Ok(())
}

/// The first most often, seldom another one, and very seldom anything.
fn usual(u: &mut Unstructured, values: &[&str]) -> Result<Vec<u8>> {
    match u.int_in_range(0..=31)? {
        0..=24 => Ok(values[0].into()),
        25..=29 => Ok((*u.choose(values)?).into()),
        30 => Ok(u.arbitrary::<&str>()?.into()),
        _ => Ok(u.arbitrary::<&[u8]>()?.into()),
    }
}

/// A query of known parameters, most often with values at their limits.
#[derive(Debug)]
pub struct Query(pub String);

impl<'a> Arbitrary<'a> for Query {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        #[rustfmt::skip]
        const PARAMETERS: [(&str, &[&str]); 19] = [
            ("latency", &["1ms", "10s", "200ms", "0", "11s"]),
            ("fragment", &["1", "125", "126", "3", "65536", "18446744073709551615", "0"]),
            ("drip", &["1ms", "1s", "10s", "10us", "7ms"]),
            ("count", &["1", "3", "1000", "16", "0"]),
            ("interval", &["0", "10ms", "1s", "60s", "9ms"]),
            ("bytes", &["1", "3", "65536", "1048"]),
            ("close", &["4000", "none", "fin", "rst", "hang", "1006", "1000"]),
            ("bad", &["mask", "rsv", "opcode", "utf8", "continuation", "length", "accept", "protocol", "extension"]),
            ("after", &["0", "1", "3", "1000", "100ms", "0s", "10m"]),
            ("prefix", &["", "%3E%20", "%C3%A9", "%ff", "+"]),
            ("ping", &["100ms", "1s", "15m"]),
            ("pong", &["off", "on"]),
            ("reason", &["bye", "", "%0A"]),
            ("trace", &["", "1"]),
            ("dump", &["", "1"]),
            ("rate", &["0.5", "0", "1", "1.1"]),
            ("seed", &["0", "999", "1000"]),
            ("delay", &["1s", "60s", "61s"]),
            ("status", &["503", "301", "101", "407"]),
        ];
        let mut query = String::new();
        for _ in 0..u.int_in_range(0..=5)? {
            // The first ones most often.
            let last = if rarely(u)? { PARAMETERS.len() } else { 15 };
            let (name, values) = u.choose(&PARAMETERS[..last])?;
            let value = if rarely(u)? { u.arbitrary()? } else { *u.choose(values)? };
            query += &format!("{name}={value}&");
        }
        if rarely(u)? {
            query += u.arbitrary::<&str>()?;
        }
        Ok(Query(query))
    }
}
