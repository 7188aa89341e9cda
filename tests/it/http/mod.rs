//! Requests to take apart and to change.

mod request;
mod response;

/// A request with the key of RFC 6455 §1.3.
pub const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

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
