//! JSON, as far as this server writes it (RFC 8259).

/// A string (§7). What is not UTF-8 becomes U+FFFD.
pub fn string(bytes: &[u8]) -> String {
    let mut json = String::from('"');
    for char in String::from_utf8_lossy(bytes).chars() {
        match char {
            '"' | '\\' => json.extend(['\\', char]),
            control if control.is_control() => {
                json += &format!("\\u{:04x}", u32::from(control));
            }
            char => json.push(char),
        }
    }
    json + "\""
}
