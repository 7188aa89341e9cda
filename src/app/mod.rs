//! What this server says: to a request, and to each message after it.

pub mod conversation;
pub mod echo;
pub mod page;
pub mod routes;
