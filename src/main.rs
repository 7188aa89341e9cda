//! The command `wsecho`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match wsecho::run(wsecho::cli::Config::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsecho: {error}");
            ExitCode::FAILURE
        }
    }
}
