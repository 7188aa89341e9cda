//! The command `wsecho`.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::process::ExitCode;

fn main() -> ExitCode {
    match wsecho::run(wsecho::cli::Config::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If nobody can be told, the exit status is what is left.
            let _ = writeln!(io::stderr(), "wsecho: {error}");
            ExitCode::FAILURE
        }
    }
}
