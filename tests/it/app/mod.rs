//! What the server says, to a request and after it.

mod behavior;
pub mod cases;
mod conversation;
mod copies;
mod forwarded;
mod properties;
mod routes;
mod scripted;
mod trace;
