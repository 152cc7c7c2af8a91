//! `nbs kernel start`: what the kernelspec calls.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, process};

use anyhow::{Context, Result};
use clap::Args;

use super::evcxr::{Rust, VERSION, clean_cargo, find};
use super::{Dirs, library, settings, shim, warm};

/// Options of `nbs kernel start`, which Jupyter calls.
#[derive(Args, Clone, Debug)]
pub struct StartArgs {
    /// The workspace.
    #[arg(long)]
    pub root: PathBuf,
    /// What Jupyter tells the kernel: ports and key.
    pub connection_file: PathBuf,
}

/// Is the kernel until Jupyter ends it.
pub fn start(args: StartArgs) -> Result<()> {
    let dirs = Dirs::at(&args.root);
    let evcxr = find(&dirs)
        .with_context(|| format!("evcxr_jupyter {VERSION} is missing: run `cargo nbs kernel install`"))?;
    remove_dead(&dirs);
    let folder = dirs.kernels().join(process::id().to_string());
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let folder = fs::canonicalize(&folder).unwrap_or(folder);
    let result = run(&dirs, evcxr, &args.connection_file, &folder);
    let _ = fs::remove_dir_all(&folder);
    result
}

#[cfg(unix)]
fn run(dirs: &Dirs, evcxr: PathBuf, connection_file: &Path, folder: &Path) -> Result<()> {
    let (dirs, place) = (dirs.clone(), folder.to_owned());
    super::proxy::serve(super::proxy::Setup {
        connection_file: connection_file.to_owned(),
        folder: folder.to_owned(),
        evcxr: Box::new(move || prepare(&dirs, &evcxr, &place)),
    })
}

/// Without the proxy: evcxr itself, which Jupyter talks to.
#[cfg(not(unix))]
fn run(dirs: &Dirs, evcxr: PathBuf, connection_file: &Path, folder: &Path) -> Result<()> {
    let mut command = prepare(dirs, &evcxr, folder)?;
    let status =
        command.arg("--control_file").arg(connection_file).status().context("cannot start evcxr_jupyter")?;
    process::exit(status.code().unwrap_or(1))
}

/// Brings the compiled dependencies up to date, copies them into the kernel's folder, and says how evcxr is started there.
fn prepare(dirs: &Dirs, evcxr: &Path, folder: &Path) -> Result<Command> {
    // Code of `minai` that does not compile is no reason to have no kernel: the first cell will show the error.
    let built = warm::build(dirs, warm::For::Kernel);
    if let Err(error) = &built {
        eprintln!("{error:#}");
    }
    warm::copy(dirs, folder)?;
    let mut command = clean_cargo(evcxr);
    command.envs(settings(dirs)).env("EVCXR_TMPDIR", folder);
    // Cells get the reader's environment back through the link, which there is on Unix only.
    if cfg!(unix) {
        put_shims(dirs, folder, built.is_ok(), &mut command)?;
    }
    Ok(command)
}

/// Lets evcxr find our `cargo` and `rustup` before the real ones.
fn put_shims(dirs: &Dirs, folder: &Path, is_built: bool, command: &mut Command) -> Result<()> {
    let rust = Rust::installed()?;
    let kept = dirs.home.join("kept").join(&rust.release);
    fs::write(folder.join(shim::COURSE), warm::manifest(dirs))?;
    // What does not compile must be said by cargo, which sees to it that nothing old is used.
    if is_built {
        shim::recall(&kept, folder);
    }
    // rust-analyzer looks for cargo in cargo's own folder first.
    let home = folder.join("cargo-home");
    let shims = home.join("bin");
    fs::create_dir_all(&shims)?;
    for name in shim::NAMES {
        let file = shims.join(format!("{name}{}", env::consts::EXE_SUFFIX));
        if fs::hard_link(dirs.bin("nbs"), &file).is_err() {
            fs::copy(dirs.bin("nbs"), &file).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    let (cargo, rustc) = (warm::rust_tool("cargo")?, warm::rust_tool("rustc")?);
    let path = env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = [shims.clone()].into_iter().chain(env::split_paths(&path)).collect();
    command.env("PATH", env::join_paths(all)?).env("NBS_PATH", path);
    if let Some(theirs) = env::var_os("CARGO_HOME") {
        command.env(shim::CARGO_HOME, theirs);
    }
    command.env("CARGO_HOME", home).env("CARGO", shims.join(format!("cargo{}", env::consts::EXE_SUFFIX)));
    // rust-analyzer's; evcxr names the real one for each build.
    command.env("RUSTC", shims.join(format!("rustc{}", env::consts::EXE_SUFFIX)));
    command.env(shim::FOLDER, folder).env(shim::KEPT, kept).env(shim::HOST, &rust.host);
    command.env(shim::CARGO, cargo).env(shim::RUSTC, rustc);
    // Without it rust-analyzer reads the whole one, which takes longer.
    match library::copy(dirs) {
        Ok(sysroot) => drop(command.env(shim::LIBRARY, sysroot)),
        Err(error) => eprintln!("{error:#}"),
    }
    if let Some(rustup) = super::on_path("rustup") {
        command.env(shim::RUSTUP, rustup);
    }
    Ok(())
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
