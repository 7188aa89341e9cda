//! TLS: the certificate, the handshakes and the sessions.

pub mod certificate;
mod handshake;
pub mod permits;
mod session;

pub use handshake::{Acceptor, Advance, Handshake};
pub use session::Session;
