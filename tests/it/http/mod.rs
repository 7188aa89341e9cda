//! Requests to take apart and to change.

mod request;
mod response;

pub use crate::support::UPGRADE;

pub const HOST: &str = "Host: localhost\r\n";
pub const UPGRADE_FIELD: &str = "Upgrade: websocket\r\n";
pub const CONNECTION: &str = "Connection: Upgrade\r\n";
pub const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
pub const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
pub const FIELDS: [&str; 5] = [HOST, UPGRADE_FIELD, CONNECTION, KEY, VERSION];

/// [`UPGRADE`] with `from` replaced by `to`, both of them whole lines or parts of one.
#[track_caller]
pub fn upgrade(from: &str, to: &str) -> String {
    assert!(UPGRADE.contains(from), "{from}");
    UPGRADE.replace(from, to)
}

/// [`UPGRADE`] with more lines.
pub fn upgrade_with(lines: &str) -> String {
    upgrade(HOST, &format!("{HOST}{lines}"))
}
