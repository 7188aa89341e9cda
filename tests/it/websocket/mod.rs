//! The WebSocket protocol: RFC 6455.

mod handshake;
mod rfc6455;
