//! What this server says: to a request, and to each message after it.

pub mod behavior;
pub mod cases;
pub mod conversation;
pub mod dump;
pub mod echo;
pub mod page;
pub mod routes;
pub mod scripted;
