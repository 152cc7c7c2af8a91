//! The compiled dependencies that kernels start with: `.minai/warm`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use std::{env, fs, io};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::dependencies::manifest_lines;
use super::evcxr::{Rust, clean_cargo};
use super::progress::{Estimate, Progress, run_cargo};
use super::{Dirs, lock, on_path, settings, write_if_changed};

/// On whose behalf something is compiled.
#[derive(Clone, Copy, Debug)]
pub enum For<'a> {
    /// Somebody at a terminal: the network is asked for what is missing, and progress is shown.
    User(&'a Progress),
    /// A kernel that starts: no network, and only so much time. What is missing then, the kernel compiles itself, in its
    /// first cell.
    Kernel,
}

/// The kernel has answered Jupyter by then, so that nobody gives it up; its first cell waits.
const KERNEL_PATIENCE: Duration = if cfg!(unix) { Duration::from_secs(600) } else { Duration::from_secs(40) };

/// Has everything been compiled once that notebooks have from the kernel's start?
pub fn is_ready(dirs: &Dirs) -> bool {
    let compiled = fs::read_to_string(dirs.warm().join("ready"));
    describe(dirs).is_ok_and(|now| compiled.is_ok_and(|then| then == now))
}

/// What was compiled, with which compiler, and where the sources lie.
pub(super) fn describe(dirs: &Dirs) -> Result<String> {
    let rust = Rust::installed()?;
    let home = env::var_os("CARGO_HOME").unwrap_or_default();
    Ok(format!("# rustc {} for {}, {}\n{}", rust.release, rust.host, home.display(), manifest(dirs)))
}

/// Compiles what notebooks depend on, with the flags that evcxr uses. Quick when nothing has changed.
pub fn build(dirs: &Dirs, whom: For<'_>) -> Result<()> {
    let folder = dirs.warm();
    fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    let _lock = lock(&folder, || {
        if let For::User(progress) = whom {
            progress.say("Another set-up or kernel is compiling; waiting for it …");
        }
    })?;
    write_if_changed(&folder.join("src").join("lib.rs"), b"")?;
    write_if_changed(&folder.join("Cargo.toml"), manifest(dirs).as_bytes())?;
    choose_versions(dirs)?;
    if let For::User(progress) = whom {
        fetch(dirs, progress)?;
    }
    compile(dirs, whom)?;
    write_if_changed(&folder.join("ready"), describe(dirs)?.as_bytes())
}

/// The manifest that evcxr writes for its cells; the profile is part of what cargo compares.
pub(super) fn manifest(dirs: &Dirs) -> String {
    let lines: String = manifest_lines(dirs).iter().map(|line| format!("{line}\n")).collect();
    format!(
        "[package]\nname = \"ctx\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\npath = \"src/lib.rs\"\n\n\
         [profile.dev]\nopt-level = 3\ndebug = false\nstrip = \"debuginfo\"\nrpath = true\nlto = false\n\
         debug-assertions = true\ncodegen-units = 16\npanic = 'unwind'\nincremental = true\noverflow-checks = true\n\n\
         [dependencies]\n{lines}"
    )
}

/// The versions are those of the workspace's own lock file, with which the tests pass; cargo adds what is not in there, and
/// takes out what is not needed.
fn choose_versions(dirs: &Dirs) -> Result<()> {
    let Ok(theirs) = fs::read(dirs.root.join("Cargo.lock")) else {
        return Ok(());
    };
    let (ours, origin) = (dirs.warm().join("Cargo.lock"), dirs.warm().join("origin.lock"));
    if ours.is_file() && fs::read(&origin).is_ok_and(|old| old == theirs) {
        return Ok(());
    }
    write_if_changed(&ours, &theirs)?;
    write_if_changed(&origin, &theirs)
}

/// Downloads the sources of all crates, those of other systems too: to compile, cargo needs only this system's, but
/// `cargo metadata`, which evcxr and its rust-analyzer call, wants them all (12 MB and a second more).
fn fetch(dirs: &Dirs, progress: &Progress) -> Result<()> {
    let fetch = |offline: bool, task| {
        let mut command = clean_cargo(rust_tool("cargo")?);
        command.arg("fetch").current_dir(dirs.warm());
        command.args(offline.then_some("--offline"));
        run_cargo(command, task, &Estimate::NONE, None)
    };
    if fetch(true, None)?.is_ok() {
        return Ok(());
    }
    let mut task = progress.task("downloading the crates of the course");
    if let Err(messages) = fetch(false, Some(&mut task))? {
        bail!("the crates of the course cannot be downloaded, which needs a network once:\n{messages}");
    }
    Ok(())
}

fn compile(dirs: &Dirs, whom: For<'_>) -> Result<()> {
    let mut command = evcxr_cargo(dirs)?;
    command.args(["build", "--offline", "--target", &Rust::installed()?.host]);
    let result = match whom {
        For::Kernel => run_cargo(command, None, &Estimate::NONE, Some(KERNEL_PATIENCE))?,
        For::User(progress) => {
            let crates = if is_ready(dirs) { 0 } else { count(dirs).unwrap_or_default() };
            let estimate = Estimate { crates, ..ESTIMATE };
            run_cargo(command, Some(&mut progress.task("the crates of the course")), &estimate, None)?
        }
    };
    result.map_err(|messages| anyhow::anyhow!("what the notebooks depend on does not compile:\n{messages}"))
}

/// Measured on two idle cores.
const ESTIMATE: Estimate = Estimate {
    crates: 0,
    milestones: &[("regex-automata", 25), ("plotters", 55), ("minai", 70)],
    seconds: 110,
};

/// How many crates are compiled for this system.
fn count(dirs: &Dirs) -> Option<usize> {
    let mut command = evcxr_cargo(dirs).ok()?;
    command.args(["metadata", "--format-version=1", "--offline", "--filter-platform"]);
    let output = command.arg(Rust::installed().ok()?.host).output().ok()?;
    let metadata: Value = serde_json::from_slice(&output.stdout).ok()?;
    Some(metadata["resolve"]["nodes"].as_array()?.len())
}

/// Cargo as evcxr calls it: any difference in flags or linker arguments would compile everything again.
fn evcxr_cargo(dirs: &Dirs) -> Result<Command> {
    let cargo = rust_tool("cargo")?;
    let rustc = rust_tool("rustc")?;
    let mut rustflags = "-Cprefer-dynamic".to_owned();
    let mut command = match linker() {
        Some("mold") => {
            let mut command = clean_cargo("mold");
            command.arg("-run").arg(&cargo);
            command
        }
        Some(linker) => {
            rustflags += &format!(" -Clink-arg=-fuse-ld={linker}");
            clean_cargo(&cargo)
        }
        None => clean_cargo(&cargo),
    };
    command.current_dir(dirs.warm()).envs(settings(dirs));
    let target = dirs.warm().join("target");
    command.env("CARGO_TARGET_DIR", &target).env("CARGO_BUILD_BUILD_DIR", &target);
    command.env("RUSTC", &rustc).env("RUSTFLAGS", rustflags);
    Ok(command)
}

/// The linker that evcxr chooses.
pub fn linker() -> Option<&'static str> {
    if cfg!(target_os = "macos") {
        return None;
    }
    ["mold", "lld"].into_iter().find(|l| on_path(l).is_some())
}

/// The tool itself instead of rustup's stand-in for it, which takes longer to start; evcxr does the same.
pub(super) fn rust_tool(name: &'static str) -> Result<PathBuf> {
    static KNOWN: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tool) = known.get(name) {
        return Ok(tool.clone());
    }
    let tool = find_rust_tool(name)?;
    known.insert(name, tool.clone());
    Ok(tool)
}

fn find_rust_tool(name: &str) -> Result<PathBuf> {
    let rustup = clean_cargo("rustup").args(["which", name]).output();
    if let Some(output) = rustup.ok().filter(|o| o.status.success()) {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    on_path(name).with_context(|| format!("`{name}` is not on the PATH: install Rust from https://rustup.rs"))
}

/// Copies the compiled dependencies, and the choice of their versions, to a kernel's own folder.
pub fn copy(dirs: &Dirs, to: &Path) -> Result<()> {
    let from = dirs.warm().join("target");
    if !from.is_dir() {
        return Ok(());
    }
    let _lock = lock(&dirs.warm(), || ())?;
    let versions = dirs.warm().join("Cargo.lock");
    if versions.is_file() {
        fs::copy(versions, to.join("Cargo.lock"))?;
    }
    copy_tree(&from, &to.join("target"))
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            // What the next compilation of `minai` can build on is of use in one place only.
            if entry.file_name() != "incremental" {
                copy_tree(&entry.path(), &target)?;
            }
        } else {
            copy_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Copies a file or, where the compiler replaces rather than rewrites it, only links it.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let is_replaced = from.extension().is_some_and(|e| e == "rlib" || e == "rmeta");
    if is_replaced && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to)?;
    // Cargo tells by the times whether something is up to date.
    let modified: SystemTime = fs::metadata(from)?.modified()?;
    fs::File::options().write(true).open(to)?.set_modified(modified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_from_the_workspaces_lock_file_until_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::at(root.path());
        let (theirs, ours) = (dirs.root.join("Cargo.lock"), dirs.warm().join("Cargo.lock"));
        choose_versions(&dirs).unwrap();
        assert!(!ours.exists(), "there is none to take");
        fs::write(&theirs, "old").unwrap();
        choose_versions(&dirs).unwrap();
        assert_eq!(fs::read_to_string(&ours).unwrap(), "old");
        fs::write(&ours, "old, and what cargo made of it").unwrap();
        choose_versions(&dirs).unwrap();
        assert_eq!(fs::read_to_string(&ours).unwrap(), "old, and what cargo made of it");
        fs::write(&theirs, "new").unwrap();
        choose_versions(&dirs).unwrap();
        assert_eq!(fs::read_to_string(&ours).unwrap(), "new");
    }

    #[test]
    fn another_compiler_or_set_is_not_ready() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::at(root.path());
        assert!(!is_ready(&dirs));
        let now = describe(&dirs).unwrap();
        write_if_changed(&dirs.warm().join("ready"), now.as_bytes()).unwrap();
        assert!(is_ready(&dirs));
        for change in [now.replace("rustc 1.", "rustc 0."), now.replace("ndarray", "nalgebra")] {
            write_if_changed(&dirs.warm().join("ready"), change.as_bytes()).unwrap();
            assert!(change != now && !is_ready(&dirs));
        }
    }

    #[test]
    fn a_copy_keeps_the_times_and_can_be_changed_alone() {
        let root = tempfile::tempdir().unwrap();
        let (from, to) = (root.path().join("from"), root.path().join("to"));
        fs::create_dir_all(from.join("deps")).unwrap();
        fs::create_dir_all(from.join("incremental")).unwrap();
        let old = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        for name in ["deps/a.d", "deps/liba.rlib", "incremental/x"] {
            fs::write(from.join(name), name).unwrap();
            fs::File::options().write(true).open(from.join(name)).unwrap().set_modified(old).unwrap();
        }
        copy_tree(&from, &to).unwrap();
        for name in ["deps/a.d", "deps/liba.rlib"] {
            assert_eq!(fs::metadata(to.join(name)).unwrap().modified().unwrap(), old, "{name}");
        }
        assert!(!to.join("incremental").exists());
        fs::write(to.join("deps/a.d"), "changed").unwrap();
        assert_eq!(fs::read_to_string(from.join("deps/a.d")).unwrap(), "deps/a.d");
    }
}
