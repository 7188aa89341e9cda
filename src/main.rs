//! The command `wsecho`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match wsecho::run(wsecho::cli::Config::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsecho: {error}");
            ExitCode::FAILURE
        }
    }
}
