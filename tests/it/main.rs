//! All integration tests in one binary, in a folder for each layer of `src`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]
#![allow(unreachable_pub, reason = "nothing outside can name what a test binary has")]

mod frames;
mod server;
mod support;
