//! `nbs kernel start`: what the kernelspec calls.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, process};

use anyhow::{Context, Result};
use clap::Args;

use super::evcxr::{VERSION, clean_cargo, find};
use super::{Dirs, settings, warm};

/// Options of `nbs kernel start`, which Jupyter calls.
#[derive(Args, Clone, Debug)]
pub struct StartArgs {
    /// The workspace.
    #[arg(long)]
    pub root: PathBuf,
    /// What Jupyter tells the kernel: ports and key.
    pub connection_file: PathBuf,
}

/// Becomes the kernel. Returns only if that fails.
pub fn start(args: StartArgs) -> Result<()> {
    let dirs = Dirs::at(&args.root);
    let evcxr = find(&dirs)
        .with_context(|| format!("evcxr_jupyter {VERSION} is missing: run `cargo nbs kernel install`"))?;
    // Code of `minai` that does not compile is no reason to have no kernel: the first cell will show the error.
    if let Err(error) = warm::build(&dirs, warm::For::Kernel) {
        eprintln!("{error:#}");
    }
    remove_dead(&dirs);
    let folder = dirs.kernels().join(process::id().to_string());
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    warm::copy(&dirs, &folder)?;
    let mut command = clean_cargo(evcxr);
    command.arg("--control_file").arg(&args.connection_file);
    command.envs(settings(&dirs)).env("EVCXR_TMPDIR", &folder);
    replace_process(command, &folder)
}

/// On Unix the kernel takes this process's place, so that there is nothing between it and Jupyter.
#[cfg(unix)]
fn replace_process(mut command: Command, _folder: &Path) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    Err(command.exec()).context("cannot start evcxr_jupyter")
}

#[cfg(not(unix))]
fn replace_process(mut command: Command, folder: &Path) -> Result<()> {
    let status = command.status().context("cannot start evcxr_jupyter")?;
    let _ = fs::remove_dir_all(folder);
    process::exit(status.code().unwrap_or(1))
}

/// Removes the folders of kernels that have ended; a folder's name is its kernel's process id.
pub fn remove_dead(dirs: &Dirs) {
    for entry in fs::read_dir(dirs.kernels()).into_iter().flatten().flatten() {
        let id = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok());
        if id.is_some_and(|id| !is_alive(id)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(unix)]
fn is_alive(id: u32) -> bool {
    // SAFETY: signal 0 only asks whether the process is there.
    libc::pid_t::try_from(id).is_ok_and(|id| unsafe { libc::kill(id, 0) } == 0)
}

/// Elsewhere the starting process stays, and removes the folder itself.
#[cfg(not(unix))]
fn is_alive(_id: u32) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_dead_kernels_go() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::at(root.path());
        let mut child = Command::new("true").spawn().unwrap();
        let (dead, alive) = (child.id().to_string(), process::id().to_string());
        child.wait().unwrap();
        for name in [&dead, &alive, &"notes".to_owned()] {
            fs::create_dir_all(dirs.kernels().join(name)).unwrap();
        }
        remove_dead(&dirs);
        assert!(!dirs.kernels().join(dead).exists());
        assert!(dirs.kernels().join(alive).exists() && dirs.kernels().join("notes").exists());
    }
}
