//! The Autobahn cases and those beyond, run with a client and judged.

pub mod answer;
pub mod beyond;
pub mod case;
mod closing;
pub mod control;
pub mod course;
pub mod data;
mod describe;
pub mod format;
mod framing;
pub mod get;
pub mod payload;
pub mod results;
pub mod suite;
pub mod summary;
mod text;
pub mod trial;
pub mod verdict;
mod volume;
