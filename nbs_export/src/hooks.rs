//! `nbs clean --install-hook`: git refuses unclean notebooks, and merges notebooks by cell.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};

use crate::clean::git;
use crate::files::{read, write_atomic};
use crate::workspace::Workspace;

const SIGN: &str = "# Installed by `cargo nbs clean --install-hook`.";
const COMMAND: &str = "cargo nbs clean --check --staged";
const ATTRIBUTE: &str = "*.ipynb merge=nbs";

/// Sets up this clone. Doing it again changes nothing.
pub fn install(workspace: &Workspace) -> Result<()> {
    let hook =
        workspace.root.join(git(workspace, &["rev-parse", "--git-path", "hooks/pre-commit"])?.trim_end());
    install_hook(&hook)?;
    git(workspace, &["config", "merge.nbs.name", "merge notebooks cell by cell"])?;
    git(workspace, &["config", "merge.nbs.driver", "cargo nbs merge %O %A %B %P"])?;
    let attributes = workspace.root.join(".gitattributes");
    let text = read(&attributes)?.unwrap_or_default();
    if !text.lines().any(|l| l.trim() == ATTRIBUTE) {
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        write_atomic(&attributes, format!("{text}{gap}{ATTRIBUTE}\n").as_bytes())?;
    }
    say!("git now checks notebooks before a commit ({}) and merges them by cell.", hook.display());
    Ok(())
}

fn install_hook(path: &Path) -> Result<()> {
    let script = format!("#!/bin/sh\n{SIGN}\nexec {COMMAND}\n");
    match read(path)? {
        Some(text) if text == script || text.contains(COMMAND) => return Ok(()),
        Some(text) if !text.contains(SIGN) => bail!(
            "{} is a hook of your own, and stays as it is: add the line\n\n    {COMMAND} || exit 1\n\nto it, then run this again",
            path.display()
        ),
        _ => {}
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    write_atomic(path, script.as_bytes())?;
    make_executable(path)
}

#[cfg(unix)]
fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// Git for Windows runs hooks whatever their rights.
#[cfg(not(unix))]
fn make_executable(_: &Path) -> Result<()> {
    Ok(())
}
