//! The display of a peer's bytes in the log and in errors.

use std::fmt::{self, Write as _};

/// Displays a peer's bytes in quotes, cut after 200 characters. Escapes everything that could forge a line
/// or change its order: controls, line ends, bidirectional overrides, quotes. Invalid UTF-8 becomes U+FFFD.
pub struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_CHARS: usize = 200;
        // Cut before decoding, so that the cost does not grow with the input.
        let start = &self.0[..self.0.len().min(4 * MAX_CHARS)];
        let mut left = MAX_CHARS;
        f.write_char('"')?;
        for char in String::from_utf8_lossy(start).chars() {
            let escaped = char.escape_debug();
            if escaped.len() > left {
                return f.write_str("\"…");
            }
            left -= escaped.len();
            if char == '\'' { f.write_char(char)? } else { write!(f, "{escaped}")? }
        }
        f.write_str(if start.len() == self.0.len() { "\"" } else { "\"…" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_peer_sends_can_forge_a_line() {
        for (bytes, shown) in [
            (&b"plain /path"[..], r#""plain /path""#),
            (b"a\r\nb\tc\0", r#""a\r\nb\tc\0""#),
            (b"\x1b[31m\x7f", r#""\u{1b}[31m\u{7f}""#),
            ("\u{85}\u{9b}".as_bytes(), r#""\u{85}\u{9b}""#),
            ("\u{202e}\u{2066}\u{200f}".as_bytes(), r#""\u{202e}\u{2066}\u{200f}""#),
            ("\u{2028}\u{feff}".as_bytes(), r#""\u{2028}\u{feff}""#),
            (b"\" \\", r#""\" \\""#),
            (b"\xff\xfe", "\"\u{fffd}\u{fffd}\""),
            ("grün 日本".as_bytes(), "\"grün 日本\""),
        ] {
            assert_eq!(Quoted(bytes).to_string(), shown);
        }
    }

    #[test]
    fn long_words_are_cut() {
        assert_eq!(Quoted(&[b'x'; 200]).to_string().chars().count(), 202);
        assert_eq!(Quoted(&[b'x'; 201]).to_string().chars().count(), 203);
        // Escaped, each has eight characters, so 25 fit.
        let overrides = "\u{202e}".repeat(26);
        assert_eq!(Quoted(overrides.as_bytes()).to_string().chars().count(), 203);
        let emoji = "😀".repeat(100_000);
        assert_eq!(Quoted(emoji.as_bytes()).to_string().chars().count(), 203);
    }
}
