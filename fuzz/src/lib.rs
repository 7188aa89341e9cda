//! What the fuzz targets share: what a client may send, how a connection hands it to the session,
//! and a second, naive opinion on frames.

pub mod client;
pub mod naive;
pub mod talk;
