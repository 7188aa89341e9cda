//! JSON, as far as this server writes it (RFC 8259).

use std::fmt;
use std::time::{Duration, UNIX_EPOCH};

/// An object (§4) in one line. No name needs an escape.
pub fn object<'n>(members: impl IntoIterator<Item = (&'n str, String)>) -> String {
    let members = members.into_iter().map(|(name, value)| format!("\"{name}\": {value}"));
    format!("{{{}}}", members.collect::<Vec<_>>().join(", "))
}

/// The elements of an array or the members of an object, each in a line of its own.
pub fn lines(members: impl IntoIterator<Item = String>) -> String {
    let lines = members.into_iter().map(|member| format!("\n  {member}"));
    lines.collect::<Vec<_>>().join(",") + "\n"
}

/// A value, or null.
pub fn or_null(value: Option<impl fmt::Display>) -> String {
    value.map_or("null".into(), |value| value.to_string())
}

/// A time since the Unix epoch as a string (RFC 3339).
pub fn time(time: Duration) -> String {
    format!("\"{}\"", humantime::format_rfc3339_millis(UNIX_EPOCH + time))
}

/// A string (§7). Invalid UTF-8 becomes U+FFFD. Characters that could change how a log line looks are
/// escaped: controls, line ends, bidirectional overrides.
pub fn string(text: impl AsRef<[u8]>) -> String {
    let mut json = String::from('"');
    for char in String::from_utf8_lossy(text.as_ref()).chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            '\'' => json.push(char),
            char if char.escape_debug().len() > 1 => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    json += &format!("\\u{unit:04x}");
                }
            }
            char => json.push(char),
        }
    }
    json + "\""
}
