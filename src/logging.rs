//! Where the log goes, and how a line of it looks.

use std::fs::OpenOptions;
use std::panic;
use std::thread;

use env_logger::{Builder, Target};
use log::LevelFilter;

use crate::cli::Logging;

/// Sends the log to the file or to stderr, a line an event. A panic is an event like any other.
///
/// # Errors
///
/// A file that can't be written.
pub fn start(config: &Logging) -> Result<(), String> {
    let mut log = Builder::new();
    match config.level() {
        Some(level) => log.filter_level(level),
        None => log.filter_level(LevelFilter::Info).parse_default_env(),
    };
    log.format_timestamp_millis().format_target(false);
    if let Some(path) = &config.log_file {
        // Appending, so that logrotate's copytruncate leaves no hole.
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| format!("cannot write --log-file {}: {error}", path.display()))?;
        log.target(Target::Pipe(Box::new(file)));
    }
    log.init();
    panic::set_hook(Box::new(|info| {
        let thread = thread::current();
        let message = info.to_string().replace('\n', " ");
        log::error!("{} {message}", thread.name().unwrap_or("a thread"));
    }));
    Ok(())
}
