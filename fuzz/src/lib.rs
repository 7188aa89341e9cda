//! What the fuzz targets share: what a client may send, plain and compressed, and a second decoder to
//! compare with. The driver and the compressor are those of the tests.
//!
//! `fuzz/run` runs the targets, each from its seeds in `fuzz/seeds`. They are the fewest inputs that
//! reach all that a long run has reached, and are made from its corpus, in an empty directory:
//!
//! ```text
//! cargo fuzz run -s none TARGET fuzz/seeds/TARGET fuzz/corpus/TARGET -- -set_cover_merge=1 -use_counters=0
//! ```

pub mod client;
#[path = "../../tests/it/deflate.rs"]
pub mod client_deflate;
pub mod deflate;
#[path = "../../tests/it/driver.rs"]
pub mod driver;
#[path = "../../tests/it/frames.rs"]
pub mod frames;
pub mod reference;
pub mod request;
pub mod stream;
