//! `nbs doctor`: what is missing on this machine, and how to get it.

use anyhow::{Result, bail};
use clap::Args;

/// Options of `nbs doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {}

/// Looks at the machine and says what is missing.
pub fn doctor(_args: DoctorArgs) -> Result<()> {
    bail!("`nbs doctor` is not there yet")
}
