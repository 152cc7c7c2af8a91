//! Installing the course's kernel, "Rust (minai)".

use anyhow::{Result, bail};
use clap::Args;

/// Options of `nbs kernel install`.
#[derive(Args, Clone, Debug)]
pub struct InstallArgs {}

/// Gets evcxr_jupyter and writes the kernelspec.
pub fn install(_args: InstallArgs) -> Result<()> {
    bail!("`nbs kernel install` is not there yet")
}
