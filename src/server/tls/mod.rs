//! TLS: the certificate, the handshakes and the sessions.

pub mod certificate;
mod handshake;
mod session;

pub use handshake::{Acceptor, Handshaking};
pub use session::Session;
