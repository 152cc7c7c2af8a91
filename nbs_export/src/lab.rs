//! `nbs lab`: all set-up that is missing, then JupyterLab with lesson 1.

use anyhow::{Result, bail};
use clap::Args;

/// Options of `nbs lab`.
#[derive(Args, Clone, Debug)]
pub struct LabArgs {
    /// Start the server without opening a browser.
    #[arg(long)]
    pub no_browser: bool,
}

/// Sets up what is missing and opens lesson 1 in JupyterLab.
pub fn lab(_args: LabArgs) -> Result<()> {
    bail!("`nbs lab` is not there yet")
}
