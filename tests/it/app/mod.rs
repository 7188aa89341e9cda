//! What the server says, to a request and after it.

mod behavior;
pub mod cases;
mod connection;
mod conversation;
mod copies;
mod forwarded;
mod made;
mod properties;
mod routes;
mod scripted;
mod trace;
mod tshark;
