//! The command `wsecho`.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    match wsecho::run(wsecho::cli::Config::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr fails, too, only the exit status remains.
            let _ = writeln!(io::stderr(), "wsecho: {error}");
            ExitCode::FAILURE
        }
    }
}
