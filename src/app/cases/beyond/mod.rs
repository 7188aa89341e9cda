//! The groups beyond the Autobahn suite: faults that it never plays, each with the sentence of an RFC
//! that its verdict rests on.

pub mod closing;
pub mod compression;
pub mod frames;
mod kinds;
pub mod opening;
pub mod tls;
