//! Executing notebooks through the kernel: `nbs run` and `nbs test`.

use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;

/// Options of `nbs run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Notebooks, such as 01_foundations or 1; all if none is named.
    pub notebooks: Vec<String>,
    /// Save the executed notebooks in this folder instead of in place.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seconds that a cell may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
}

/// Options of `nbs test`.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// Notebooks, such as 01_foundations or 1; all if none is named.
    pub notebooks: Vec<String>,
    /// How many notebooks run at the same time.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub jobs: usize,
    /// Seconds that a cell may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
}

/// Executes notebooks and saves their outputs.
pub fn run(_args: RunArgs) -> Result<()> {
    bail!("`nbs run` is not there yet")
}

/// Executes notebooks without saving, and prints a table.
pub fn test(_args: TestArgs) -> Result<()> {
    bail!("`nbs test` is not there yet")
}
