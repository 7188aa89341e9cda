//! All integration tests in one binary, in a folder for each layer of `src`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]
#![allow(clippy::unchecked_time_subtraction, reason = "so is an overflow")]
#![allow(clippy::large_stack_arrays, reason = "a test has a large stack")]
#![allow(clippy::match_bool, reason = "a table of two rows reads as one")]
#![allow(unreachable_pub, reason = "nothing outside can name what a test binary has")]

mod app;
mod architecture;
mod deflate;
mod driver;
mod frames;
mod http;
mod kubernetes;
mod packaging;
mod proxy_protocol;
mod server;
mod support;
mod websocket;
