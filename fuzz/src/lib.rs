//! What the fuzz targets share: what a client may send, how a connection hands it to the session,
//! and a second, naive opinion on frames.
//!
//! `fuzz/run` runs the targets, each from its seeds in `fuzz/seeds`: the fewest inputs that reach
//! whatever a long run has reached. They are made from its corpus, in an empty directory:
//!
//! ```text
//! cargo fuzz run -s none TARGET fuzz/seeds/TARGET fuzz/corpus/TARGET -- -set_cover_merge=1 -use_counters=0
//! ```

pub mod client;
pub mod naive;
pub mod talk;
