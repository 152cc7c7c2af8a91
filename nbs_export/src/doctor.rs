//! `nbs doctor`: what is missing on this machine, and how to get it.

use std::process::Command;
use std::{env, fmt};

use anyhow::Result;
use clap::Args;

use crate::workspace::Workspace;
use crate::{kernel, lab};

/// Options of `nbs doctor`.
#[derive(Args, Clone, Debug)]
pub struct DoctorArgs {}

/// Looks at the machine and says what is missing. An error if anything is without which the course does not work.
pub fn doctor(_args: DoctorArgs) -> Result<()> {
    let workspace = Workspace::discover()?;
    let findings = examine(&workspace);
    for finding in &findings {
        println!("{finding}");
    }
    let needed = findings.iter().filter(|f| f.state == State::Missing).count();
    if needed > 0 {
        anyhow::bail!("something is missing; `cargo nbs lab` sets up what it can");
    }
    println!("\nNothing is missing that the course needs.");
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Good,
    /// Works without, but less well.
    Better,
    Missing,
}

struct Finding {
    state: State,
    what: &'static str,
    found: String,
    /// What to do.
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.state {
            State::Good => "ok     ",
            State::Better => "advice ",
            State::Missing => "MISSING",
        };
        write!(f, "{mark}  {:<13} {}", self.what, self.found)?;
        if self.state == State::Good { Ok(()) } else { write!(f, "\n         {}", self.advice) }
    }
}

fn examine(workspace: &Workspace) -> Vec<Finding> {
    let dirs = kernel::Dirs::new(workspace);
    let set_up = "run `cargo nbs kernel install` (needs network once)";
    let rust = kernel::Rust::installed().ok();
    let old = rust.as_ref().and_then(|r| r.check().err()).map(|e| e.to_string());
    let found = rust.as_ref().map(|r| kernel::search_evcxr(&dirs, r)).unwrap_or_default();
    vec![
        finding(
            State::Missing,
            "Rust",
            rust.as_ref().filter(|_| old.is_none()).map(|r| format!("{} for {}", r.release, r.host)),
            old.as_deref().unwrap_or("install it from https://rustup.rs"),
        ),
        finding(State::Missing, "C compiler", c_compiler(), C_COMPILER),
        finding(
            State::Missing,
            "kernel",
            found.program.map(|p| format!("evcxr_jupyter {} ({})", kernel::VERSION, p.display())),
            &other_kernels(&found.others).unwrap_or_else(|| set_up.to_owned()),
        ),
        finding(
            State::Missing,
            "kernelspec",
            Some(dirs.kernelspec()).filter(|p| p.is_file()).map(|p| p.display().to_string()),
            set_up,
        ),
        finding(
            State::Missing,
            "offline",
            kernel::is_ready(&dirs).then(|| "what notebooks depend on is compiled".to_owned()),
            set_up,
        ),
        finding(
            State::Better,
            "JupyterLab",
            lab::installed(workspace).map(|p| p.display().to_string()),
            &python_advice(),
        ),
        finding(
            State::Better,
            "linker",
            kernel::linker()
                .map(str::to_owned)
                .or(cfg!(target_os = "macos").then(|| "the system's".to_owned())),
            LINKER,
        ),
        finding(
            State::Better,
            "build folder",
            env::var_os("CARGO_TARGET_DIR")
                .is_none()
                .then(|| "target, in this copy of the course".to_owned()),
            SHARED_TARGET,
        ),
        finding(
            State::Better,
            "rustfmt",
            version("rustfmt", "--version"),
            "for `cargo nbs fmt`: rustup component add rustfmt",
        ),
        finding(
            State::Better,
            "git",
            version("git", "--version"),
            "for `cargo nbs clean --install-hook` and merges, not for the lessons: https://git-scm.com",
        ),
        finding(
            State::Missing,
            "std's source",
            kernel::std_source().map(|p| p.display().to_string()),
            "the kernel needs it to tell the types of variables: rustup component add rust-src",
        ),
    ]
}

/// What to say of programs that another Rust has built.
fn other_kernels(others: &[(std::path::PathBuf, String)]) -> Option<String> {
    let (program, built) = others.first()?;
    Some(format!(
        "{} was built with Rust {built}, not with the present one: run `cargo nbs kernel install`, which builds it again",
        program.display()
    ))
}

/// A finding whose state is good if anything was found, and `otherwise` if not.
fn finding(otherwise: State, what: &'static str, found: Option<String>, advice: &str) -> Finding {
    Finding {
        state: if found.is_some() { State::Good } else { otherwise },
        what,
        found: found.unwrap_or_else(|| "not found".into()),
        advice: advice.to_owned(),
    }
}

fn version(program: &str, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().map(str::to_owned)
}

fn c_compiler() -> Option<String> {
    if cfg!(windows) {
        return Some("assumed (Rust for Windows needs one itself)".into());
    }
    ["cc", "gcc", "clang"].iter().find_map(|c| version(c, "--version"))
}

const C_COMPILER: &str = if cfg!(target_os = "macos") {
    "xcode-select --install"
} else {
    "Debian, Ubuntu: sudo apt install build-essential; Fedora: sudo dnf install gcc; Arch: sudo pacman -S base-devel"
};

const LINKER: &str = if cfg!(windows) {
    "a faster linker makes cells quicker: rustup component add llvm-tools, or install LLVM for lld"
} else {
    "a faster linker makes cells quicker. Debian, Ubuntu: sudo apt install mold; Fedora: sudo dnf install mold; Arch: sudo pacman -S mold"
};

const SHARED_TARGET: &str = "CARGO_TARGET_DIR is set. If another copy of the course uses the same folder, cargo takes the one's minai for the \
     other's (\"could not find … in `minai`\"): give each copy a folder of its own, or unset it";

fn python_advice() -> String {
    match lab::find_python() {
        Some(python) => {
            format!("{} is there: `cargo nbs lab` installs JupyterLab into .venv with it", python.program)
        }
        None => lab::NO_PYTHON.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do_only_if_something_is_to_do() {
        let good = finding(State::Missing, "Rust", Some("1.88".into()), "install it").to_string();
        assert_eq!(good, "ok       Rust          1.88");
        let bad = finding(State::Missing, "Rust", None, "install it").to_string();
        assert_eq!(bad, "MISSING  Rust          not found\n         install it");
        assert!(finding(State::Better, "linker", None, "x").to_string().starts_with("advice"));
    }

    #[test]
    fn a_kernel_of_another_rust_is_named() {
        let text = other_kernels(&[("/some/evcxr_jupyter".into(), "1.95.0 for x".into())]).unwrap();
        assert!(
            text.contains("/some/evcxr_jupyter")
                && text.contains("1.95.0")
                && text.contains("kernel install")
        );
        assert_eq!(other_kernels(&[]), None);
    }

    #[test]
    fn an_empty_workspace_has_no_kernel() {
        let root = tempfile::tempdir().unwrap();
        let findings = examine(&Workspace { root: root.path().to_owned() });
        let state = |what| findings.iter().find(|f| f.what == what).unwrap().state;
        assert_eq!(state("Rust"), State::Good);
        assert_eq!(state("kernelspec"), State::Missing);
        assert_eq!(state("offline"), State::Missing);
        assert_eq!(state("JupyterLab"), State::Better);
    }
}
