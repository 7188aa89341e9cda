//! The application: the answers to a request, and to each message after it.

pub mod accepted;
pub mod behavior;
pub mod cases;
pub mod connection;
pub mod conversation;
pub mod dump;
pub mod echo;
pub mod end;
pub mod incoming;
pub mod json;
pub mod opened;
pub mod page;
pub mod peer;
pub mod query;
pub mod routes;
pub mod scripted;
pub mod service;
pub mod settings;
pub mod step;
pub mod trace;
pub mod websocket;
