//! The command `nbs`.

use std::process::ExitCode;

use clap::Parser as _;
use nbs_export::cli;

fn main() -> ExitCode {
    match cli::main(cli::Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
