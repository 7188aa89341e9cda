//! wsecho is a blocking WebSocket echo server with one thread per client.

pub mod buffer;
pub mod cli;
pub mod clients;
pub mod connection;
pub mod echo;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod logging;
pub mod notify;
pub mod page;
pub mod quote;
pub mod request;
pub mod server;
pub mod session;
pub mod violation;

use std::error::Error;

/// Runs the server until a signal stops it.
///
/// # Errors
///
/// What keeps it from starting: a log file that can't be written, an address that can't be bound.
pub fn run(config: cli::Config) -> Result<(), Box<dyn Error>> {
    logging::start(&config)?;
    server::serve(config)
}
