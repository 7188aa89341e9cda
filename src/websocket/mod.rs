//! The WebSocket protocol: the opening handshake, frames, messages and the closing handshake
//! (RFC 6455).

pub mod close;
pub mod frame;
pub mod handshake;
pub mod session;
