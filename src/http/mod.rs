//! HTTP/1.1 as far as a WebSocket server needs it: a request's head in, a response out (RFC 9112).

pub mod origin;
pub mod request;
pub mod response;
