//! What messages carry, and the check of their text (RFC 6455 §5.6).

use crate::websocket::error::ProtocolError;

/// What a message carries (§5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

/// What a message's payload is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    /// Compressed, which RSV1 marks (RFC 7692 §6).
    Deflated,
}

/// Refuses a text message at its first wrong byte, however much of it is still to come (§8.1). The first
/// `checked` bytes are known to be right.
pub(super) fn check_utf8(
    kind: Kind,
    text: &[u8],
    checked: &mut usize,
    complete: bool,
) -> Result<(), ProtocolError> {
    if kind == Kind::Binary {
        return Ok(());
    }
    match str::from_utf8(&text[*checked..]) {
        Ok(right) => *checked += right.len(),
        // The last character is cut, and its rest may still come.
        Err(error) if error.error_len().is_none() && !complete => *checked += error.valid_up_to(),
        Err(_) => return Err(ProtocolError::InvalidUtf8),
    }
    Ok(())
}
