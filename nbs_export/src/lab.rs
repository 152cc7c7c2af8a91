//! `nbs lab`: all set-up that is missing, then JupyterLab with lesson 1.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use crate::files::write_atomic;
use crate::kernel::{self, Dirs, Progress, Task};
use crate::workspace::{Workspace, lesson_number};

/// The versions of JupyterLab and all it needs. Constraints, not requirements: what only another system or release of
/// Python needs is not in the list.
const CONSTRAINTS: &str = include_str!("lab/constraints.txt");

/// What to do without Python.
pub const NO_PYTHON: &str = "JupyterLab needs Python 3.11 or newer with its module venv, and none was found.\n\
    \x20        Debian, Ubuntu: sudo apt install python3-venv; Fedora: sudo dnf install python3; macOS: brew install python;\n\
    \x20        Windows: winget install Python.Python.3.13. Or use any Jupyter that you have: the kernel is called \"Rust (minai)\".\n\
    \x20        Without Python, `cargo nbs run 01_foundations` executes a lesson and saves its outputs.";

/// Options of `nbs lab`.
#[derive(Args, Clone, Debug)]
pub struct LabArgs {
    /// The notebook to open, such as 02_matmul or 2; lesson 1 if none is named.
    pub notebook: Option<String>,
    /// Start the server without opening a browser.
    #[arg(long)]
    pub no_browser: bool,
    /// The port to serve on, if it is free; JupyterLab's own choice if none is named.
    #[arg(long)]
    pub port: Option<u16>,
    /// The address to serve on, such as 0.0.0.0 inside a container; otherwise only this machine reaches the server.
    #[arg(long)]
    pub ip: Option<String>,
    /// Only set up what is missing: for a container's image.
    #[arg(long)]
    pub set_up_only: bool,
}

/// Sets up what is missing and opens a lesson in JupyterLab. Returns when the server ends.
pub fn lab(args: LabArgs) -> Result<()> {
    let workspace = Workspace::discover()?;
    let path = notebook(&workspace, args.notebook)?.map(|p| workspace.relative(&p));
    if installed(&workspace).is_none() && find_python().is_none() {
        bail!(NO_PYTHON);
    }
    let dirs = Dirs::new(&workspace);
    let progress = Progress::new();
    // JupyterLab comes from the network while the kernel keeps the compilers busy.
    let (jupyter, kernel) = std::thread::scope(|threads| {
        let jupyter =
            threads.spawn(|| installed(&workspace).map_or_else(|| install(&workspace, &progress), Ok));
        let kernel = kernel::set_up_in(&dirs, &progress);
        (jupyter.join(), kernel)
    });
    let jupyter = jupyter.map_err(|_| anyhow!("the installation of JupyterLab failed"));
    // Either goes on without the other, and is tried again next time.
    kernel?;
    let jupyter = jupyter??;
    if args.set_up_only {
        return Ok(());
    }
    let mut command = Command::new(jupyter);
    command.arg("lab").current_dir(&workspace.root).env("JUPYTER_PATH", jupyter_path(&dirs.jupyter()));
    command.arg(format!("--ServerApp.root_dir={}", workspace.root.display()));
    // It comes first in the launcher then.
    command.arg(format!("--MultiKernelManager.default_kernel_name={}", kernel::NAME));
    if let Some(path) = path {
        command.arg(format!("--LabApp.default_url=/lab/tree/{path}"));
    }
    if args.no_browser {
        command.arg("--no-browser");
    }
    if let Some(port) = args.port {
        command.arg(format!("--port={port}"));
    }
    if let Some(ip) = args.ip {
        command.arg(format!("--ip={ip}"));
    }
    if runs_as_root() {
        command.arg("--allow-root");
    }
    let status = command.status().context("cannot start JupyterLab")?;
    if !status.success() {
        bail!("JupyterLab ended with {status}");
    }
    Ok(())
}

/// The notebook that is asked for, or lesson 1; the first of all where there is none.
fn notebook(workspace: &Workspace, name: Option<String>) -> Result<Option<PathBuf>> {
    if let Some(name) = name {
        return Ok(workspace.select(&[name])?.into_iter().next());
    }
    let all = workspace.notebook_paths()?;
    let is_first = |p: &&PathBuf| {
        let number = lesson_number(&p.file_stem().unwrap_or_default().to_string_lossy());
        number.is_some_and(|n| n.lesson == 1 && n.appendix.is_none())
    };
    Ok(all.iter().find(is_first).or(all.first()).cloned())
}

/// Our data folder before those that Jupyter looks into anyway.
fn jupyter_path(ours: &Path) -> OsString {
    let others = env::var_os("JUPYTER_PATH").unwrap_or_default();
    let others = env::split_paths(&others).filter(|p| !p.as_os_str().is_empty());
    let all: Vec<PathBuf> = [ours.to_owned()].into_iter().chain(others).collect();
    env::join_paths(all).unwrap_or_else(|_| ours.as_os_str().to_owned())
}

#[cfg(unix)]
fn runs_as_root() -> bool {
    // SAFETY: a plain question to the system.
    unsafe { libc::geteuid() == 0 }
}

#[cfg(not(unix))]
fn runs_as_root() -> bool {
    false
}

fn venv(workspace: &Workspace) -> PathBuf {
    workspace.root.join(".venv")
}

fn program(workspace: &Workspace, name: &str) -> PathBuf {
    let folder = if cfg!(windows) { "Scripts" } else { "bin" };
    venv(workspace).join(folder).join(format!("{name}{}", env::consts::EXE_SUFFIX))
}

/// The project's `jupyter`, if it was installed, and completely.
pub fn installed(workspace: &Workspace) -> Option<PathBuf> {
    let complete = std::fs::read_to_string(record(workspace)).is_ok_and(|t| t == CONSTRAINTS);
    Some(program(workspace, "jupyter")).filter(|p| complete && p.is_file())
}

/// What was installed, written when it all was.
fn record(workspace: &Workspace) -> PathBuf {
    venv(workspace).join("nbs-constraints.txt")
}

fn install(workspace: &Workspace, progress: &Progress) -> Result<PathBuf> {
    let python = find_python().context(NO_PYTHON)?;
    let mut task = progress.task("JupyterLab, into .venv");
    task.set("making a place for it");
    let mut make = Command::new(&python.program);
    make.args(&python.args).args(["-m", "venv"]).arg(venv(workspace));
    if !make.status().is_ok_and(|s| s.success()) {
        bail!("`{} -m venv .venv` failed (see above).\n         {NO_PYTHON}", python.program);
    }
    let list = venv(workspace).join("constraints.txt");
    write_atomic(&list, CONSTRAINTS.as_bytes())?;
    let mut pip = Command::new(program(workspace, "python"));
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--progress-bar=off", "--constraint"]);
    pip.arg(&list).arg("jupyterlab");
    if let Err(messages) = watch(pip, &mut task)? {
        bail!(
            "pip could not install JupyterLab. It needs network once; `cargo nbs lab` again goes on:\n{messages}"
        );
    }
    quiet(workspace)?;
    write_atomic(&record(workspace), CONSTRAINTS.as_bytes())?;
    installed(workspace).context("pip reported success, but .venv has no program `jupyter`")
}

/// Runs pip to its end and shows how far it is. Gives what it said, if it fails.
fn watch(mut pip: Command, task: &mut Task) -> Result<Result<(), String>> {
    let mut pip = pip.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (stdout, stderr) = (pip.stdout.take().context("no stdout")?, pip.stderr.take().context("no stderr")?);
    let errors = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    let all = CONSTRAINTS.lines().filter(|l| l.contains("==")).count();
    let mut found = 0;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        found += usize::from(line.starts_with("Collecting "));
        let writes = line.starts_with("Installing collected packages");
        let state = format!("{found} of about {all} packages downloaded");
        task.set(if writes { "writing the files, less than a minute left" } else { &state });
    }
    let errors = errors.join().unwrap_or_default();
    Ok(if pip.wait()?.success() { Ok(()) } else { Err(errors) })
}

/// JupyterLab would ask at its first start whether it may fetch news, and look for updates of itself.
fn quiet(workspace: &Workspace) -> Result<()> {
    let folder = venv(workspace).join("share/jupyter/lab/settings");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))?;
    let settings = "{\"@jupyterlab/apputils-extension:notification\": {\"fetchNews\": \"false\", \"checkForUpdates\": false}}\n";
    write_atomic(&folder.join("overrides.json"), settings.as_bytes())
}

/// How to call Python.
#[derive(Clone, Debug)]
pub struct Python {
    /// The program.
    pub program: String,
    args: Vec<&'static str>,
}

/// A Python that is new enough for JupyterLab, and can make a virtual environment.
pub fn find_python() -> Option<Python> {
    let candidates: [(&str, Vec<&'static str>); 3] =
        [("python3", vec![]), ("python", vec![]), ("py", vec!["-3"])];
    let check = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))";
    candidates.into_iter().map(|(program, args)| Python { program: program.to_owned(), args }).find(|p| {
        let output = Command::new(&p.program).args(&p.args).args(["-c", check]).output();
        output.is_ok_and(|o| o.status.success())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_pinned() {
        let lines: Vec<_> = CONSTRAINTS.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).collect();
        assert!(lines.iter().any(|l| l.starts_with("jupyterlab==")));
        for line in lines {
            assert!(line.split(';').next().unwrap().contains("=="), "{line}");
        }
    }

    #[test]
    fn half_an_installation_is_none() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace { root: root.path().to_owned() };
        let jupyter = program(&workspace, "jupyter");
        std::fs::create_dir_all(jupyter.parent().unwrap()).unwrap();
        std::fs::write(&jupyter, "").unwrap();
        assert_eq!(installed(&workspace), None);
        std::fs::write(record(&workspace), "jupyterlab==1.0\n").unwrap();
        assert_eq!(installed(&workspace), None, "another version");
        std::fs::write(record(&workspace), CONSTRAINTS).unwrap();
        assert_eq!(installed(&workspace), Some(jupyter));
    }

    #[test]
    fn lesson_1_is_opened_although_lesson_0_sorts_first() {
        let root = tempfile::tempdir().unwrap();
        let workspace = Workspace { root: root.path().to_owned() };
        let folder = workspace.notebooks_dir();
        std::fs::create_dir_all(&folder).unwrap();
        let opened = |name: Option<&str>| notebook(&workspace, name.map(str::to_owned)).unwrap();
        assert_eq!(opened(None), None);
        for name in ["00_goal.ipynb", "02_more.ipynb"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        assert_eq!(opened(None), Some(folder.join("00_goal.ipynb")));
        std::fs::write(folder.join("01_first.ipynb"), "").unwrap();
        assert_eq!(opened(None), Some(folder.join("01_first.ipynb")));
        assert_eq!(opened(Some("2")), Some(folder.join("02_more.ipynb")));
    }

    #[cfg(unix)]
    #[test]
    fn what_pip_says_is_shown_if_it_fails() {
        let mut task = Progress::new().task("test");
        let mut pip = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            watch(command, &mut task).unwrap()
        };
        assert_eq!(pip("echo Collecting a"), Ok(()));
        assert_eq!(pip("echo no network >&2; exit 1"), Err("no network\n".to_owned()));
    }

    #[test]
    fn our_kernelspec_comes_first() {
        let path = jupyter_path(Path::new("ours"));
        assert_eq!(env::split_paths(&path).next(), Some(PathBuf::from("ours")));
    }
}
