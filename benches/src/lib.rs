//! What the benchmark of whole servers and the benchmarks of modules share.

pub mod stats;
pub mod wire;
