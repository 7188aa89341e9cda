//! Text and binary messages (RFC 6455 §5.6).

use crate::websocket::error::ProtocolError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
}

/// The form of a message on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    /// Compressed, and marked by RSV1 (RFC 7692 §6).
    Deflated,
}

/// Refuses a text message at its first invalid byte, before the rest has arrived (§8.1). Its first
/// `checked` bytes are known to be valid.
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
        // The last character is incomplete, but its rest may still arrive.
        Err(error) if error.error_len().is_none() && !complete => *checked += error.valid_up_to(),
        Err(error) => {
            *checked += error.valid_up_to();
            return Err(ProtocolError::InvalidUtf8);
        }
    }
    Ok(())
}
