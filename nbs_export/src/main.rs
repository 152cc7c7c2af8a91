//! The command `nbs`.

use std::process::ExitCode;

use clap::Parser as _;
use nbs_export::{cli, kernel};

fn main() -> ExitCode {
    // evcxr finds this program under other names too.
    if let Some(name) = kernel::called_as() {
        return kernel::shim_main(&name);
    }
    match cli::main(cli::Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
    }
}
