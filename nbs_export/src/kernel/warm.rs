//! The compiled dependencies that kernels start with: `.minai/warm`.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, io, thread};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::evcxr::clean_cargo;
use super::{Dirs, on_path, settings, write_if_changed};
use crate::notebook::{Notebook, hex16};
use crate::workspace::Workspace;

/// On whose behalf something is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Somebody at a terminal: what is compiled is shown, and the network asked for what is missing.
    User,
    /// A kernel that starts, which Jupyter gives up if it does not answer soon: no network, and only so much time. What is
    /// missing then, the kernel compiles itself, in its first cell.
    Kernel,
}

/// Jupyter waits a minute for a kernel.
const KERNEL_PATIENCE: Duration = Duration::from_secs(40);

/// Has everything been compiled once that the notebooks depend on now?
pub fn is_ready(dirs: &Dirs) -> bool {
    let compiled = fs::read_to_string(dirs.warm().join("ready"));
    dependency_sets(dirs).is_ok_and(|sets| compiled.is_ok_and(|text| text == describe(&sets)))
}

fn describe(sets: &BTreeSet<BTreeSet<String>>) -> String {
    sets.iter().map(manifest).collect()
}

/// Compiles what the notebooks depend on, with the flags that evcxr uses. Quick when nothing has changed.
pub fn build(dirs: &Dirs, whom: For) -> Result<()> {
    let folder = dirs.warm();
    fs::create_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    let _lock = lock(&folder)?;
    let sets = dependency_sets(dirs)?;
    for set in &sets {
        // A package for each set, under a name of its own: if they took turns, cargo would compile anew at every start.
        let package = folder.join("sets").join(package_name(set));
        write_if_changed(&package.join("src").join("lib.rs"), b"")?;
        write_if_changed(&package.join("Cargo.toml"), manifest(set).as_bytes())?;
        compile(dirs, &package, whom)?;
    }
    write_if_changed(&folder.join("ready"), describe(&sets).as_bytes())
}

/// The `:dep` lines of each notebook as lines of a manifest: a set for each notebook, equal ones once.
///
/// All in one set would not do: cargo picks the features of shared dependencies from the whole set, so that a kernel
/// with fewer `:dep` lines would compile them again.
fn dependency_sets(dirs: &Dirs) -> Result<BTreeSet<BTreeSet<String>>> {
    let workspace = Workspace { root: dirs.root.clone() };
    let mut sets = BTreeSet::new();
    for path in workspace.notebook_paths()? {
        // A notebook that cannot be read is reported by the command that needs it.
        let Ok(notebook) = Notebook::load(&path) else {
            continue;
        };
        let lines: Vec<String> = notebook.code_cells().flat_map(|c| dependencies(&c.source())).collect();
        let set: BTreeSet<_> = lines.iter().map(|l| absolute_path(l, &workspace.notebooks_dir())).collect();
        if !set.is_empty() {
            sets.insert(set);
        }
    }
    Ok(sets)
}

fn dependencies(source: &str) -> Vec<String> {
    let lines = source.lines().filter_map(|l| l.trim().strip_prefix(":dep "));
    lines
        .map(|l| if l.contains('=') { l.trim().to_owned() } else { format!("{} = \"*\"", l.trim()) })
        .collect()
}

/// evcxr makes the paths of dependencies absolute; what it does to the text is done here too.
fn absolute_path(line: &str, folder: &Path) -> String {
    let Some((before, rest)) = line.split_once("path = \"") else {
        return line.to_owned();
    };
    let Some((path, after)) = rest.split_once('"') else {
        return line.to_owned();
    };
    let full = fs::canonicalize(folder.join(path)).unwrap_or_else(|_| folder.join(path));
    let full = full.to_string_lossy().replace('\\', "\\\\").replace('"', "\\\"");
    format!("{before}path = \"{full}\"{after}")
}

fn package_name(dependencies: &BTreeSet<String>) -> String {
    let mut sha = Sha256::new();
    dependencies.iter().for_each(|line| sha.update(format!("{line}\n")));
    format!("warm-{}", hex16(&sha.finalize()))
}

/// The manifest that evcxr writes for its cells; the profile is part of what cargo compares.
fn manifest(dependencies: &BTreeSet<String>) -> String {
    let name = package_name(dependencies);
    let lines: String = dependencies.iter().map(|d| format!("{d}\n")).collect();
    format!(
        "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\n\n\
         [lib]\ncrate-type = [\"cdylib\"]\n\n\
         [profile.dev]\nopt-level = 3\ndebug = false\nstrip = \"debuginfo\"\nrpath = true\nlto = false\n\
         debug-assertions = true\ncodegen-units = 16\npanic = 'unwind'\nincremental = true\noverflow-checks = true\n\n\
         [dependencies]\n{lines}"
    )
}

fn compile(dirs: &Dirs, folder: &Path, whom: For) -> Result<()> {
    // Versions are chosen as evcxr's cargo will choose them: the newest that were downloaded.
    let _ = fs::remove_file(folder.join("Cargo.lock"));
    let mut command = evcxr_cargo(dirs, folder)?;
    command.arg("--offline").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let messages = match watch(command, whom)? {
        Ok(()) => return Ok(()),
        Err(messages) => messages,
    };
    if whom == For::User && messages.contains("--offline") {
        let mut command = evcxr_cargo(dirs, folder)?;
        if command.stdin(Stdio::null()).status().context("cannot start cargo")?.success() {
            return Ok(());
        }
    }
    bail!("the notebooks' dependencies do not compile:\n{messages}")
}

/// Runs cargo to its end and shows the user what it compiles. Gives what cargo said, if it fails.
fn watch(mut command: Command, whom: For) -> Result<Result<(), String>> {
    let mut cargo = command.spawn().context("cannot start cargo")?;
    let stderr = BufReader::new(cargo.stderr.take().context("cargo has no stderr")?);
    let reader = thread::spawn(move || {
        let mut messages = String::new();
        for line in stderr.lines().map_while(Result::ok) {
            if whom == For::User && line.trim_start().starts_with("Compiling") {
                println!("{line}");
            }
            messages += &(line + "\n");
        }
        messages
    });
    let start = Instant::now();
    while cargo.try_wait()?.is_none() {
        if whom == For::Kernel && start.elapsed() > KERNEL_PATIENCE {
            // Its compilers end with what they are at: nobody waits for them.
            cargo.kill()?;
            cargo.wait()?;
            return Ok(Err("it took too long; `cargo nbs kernel install` takes its time".into()));
        }
        thread::sleep(Duration::from_millis(10));
    }
    let messages = reader.join().unwrap_or_default();
    Ok(if cargo.wait()?.success() { Ok(()) } else { Err(messages) })
}

/// `cargo build` as evcxr calls it: any difference in flags or linker arguments would compile everything again.
fn evcxr_cargo(dirs: &Dirs, folder: &Path) -> Result<Command> {
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
    command.args(["build", "--target"]).arg(host(&rustc)?).current_dir(folder).envs(settings(dirs));
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
pub(super) fn rust_tool(name: &str) -> Result<PathBuf> {
    let rustup = clean_cargo("rustup").args(["which", name]).output();
    if let Some(output) = rustup.ok().filter(|o| o.status.success()) {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    on_path(name).with_context(|| format!("`{name}` is not on the PATH: install Rust from https://rustup.rs"))
}

pub(super) fn host(rustc: &Path) -> Result<String> {
    let output = clean_cargo(rustc)
        .arg("-vV")
        .output()
        .with_context(|| format!("cannot start {}", rustc.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find_map(|l| l.strip_prefix("host: "));
    line.map(str::to_owned).with_context(|| format!("{} -vV names no host", rustc.display()))
}

/// Copies the compiled dependencies to a kernel's own folder.
pub fn copy(dirs: &Dirs, to: &Path) -> Result<()> {
    let from = dirs.warm().join("target");
    if !from.is_dir() {
        return Ok(());
    }
    let _lock = lock(&dirs.warm())?;
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

/// Waits until no other process holds the lock. It ends with the returned file.
fn lock(folder: &Path) -> Result<fs::File> {
    let path = folder.join("lock");
    let lock = || {
        let file = fs::File::create(&path)?;
        file.lock()?;
        io::Result::Ok(file)
    };
    lock().with_context(|| format!("cannot lock {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dep_lines_become_manifest_lines() {
        let source = "// crates\n:dep ndarray = \"0.17\"\n:dep libc\n\nlet x = 1;\n";
        assert_eq!(dependencies(source), ["ndarray = \"0.17\"", "libc = \"*\""]);
    }

    #[test]
    fn paths_are_relative_to_the_notebooks() {
        let root = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(root.path()).unwrap();
        fs::create_dir_all(root.join("notebooks")).unwrap();
        fs::create_dir_all(root.join("crate")).unwrap();
        let line = absolute_path("x = { path = \"../crate\", version = \"1\" }", &root.join("notebooks"));
        assert_eq!(line, format!("x = {{ path = \"{}\", version = \"1\" }}", root.join("crate").display()));
        assert_eq!(absolute_path("rand = \"0.10\"", &root), "rand = \"0.10\"");
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
