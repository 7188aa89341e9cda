//! What the server says, to a request and after it.

pub mod driver;

mod behavior;
mod conversation;
mod copies;
mod made;
mod properties;
mod routes;
mod scripted;
