//! JSON, as far as this server writes it (RFC 8259).

/// A string (§7). Invalid UTF-8 becomes U+FFFD. Characters that could change how a log line looks are
/// escaped: controls, line ends, bidirectional overrides.
pub fn string(bytes: &[u8]) -> String {
    let mut json = String::from('"');
    for char in String::from_utf8_lossy(bytes).chars() {
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
