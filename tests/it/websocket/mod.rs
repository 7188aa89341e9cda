//! The WebSocket protocol: RFC 6455.

mod handshake;
mod inflate;
mod rfc6455;
mod rfc7692;
