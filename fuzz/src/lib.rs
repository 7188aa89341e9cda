//! What the fuzz targets share: what a client may send, plain and compressed, what drives a conversation
//! with it, and a second decoder to compare with.
//!
//! `fuzz/run` runs the targets, each from its seeds in `fuzz/seeds`. They are the fewest inputs that
//! reach all that a long run has reached, and are made from its corpus, in an empty directory:
//!
//! ```text
//! cargo fuzz run -s none TARGET fuzz/seeds/TARGET fuzz/corpus/TARGET -- -set_cover_merge=1 -use_counters=0
//! ```

pub mod client;
pub mod deflate;
pub mod driver;
pub mod reference;
