//! The WebSocket protocol: RFC 6455.

mod handshake;
mod inflate;
mod rfc6455;
pub mod rfc7692;
