//! The WebSocket protocol: the opening handshake, frames, messages and the closing handshake
//! (RFC 6455), and compressed messages (RFC 7692).

pub mod close;
pub mod deflate;
pub mod error;
pub mod frame;
pub mod handshake;
mod inflate;
pub mod message;
pub mod negotiation;
pub mod session;
