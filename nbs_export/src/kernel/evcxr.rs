//! Finding and installing evcxr_jupyter.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::Dirs;

/// The version that everything here was measured with.
pub const VERSION: &str = "0.22.0";

/// The program, if it is there in the right version: in the project's folder or on the PATH.
pub fn find(dirs: &Dirs) -> Option<PathBuf> {
    let ours = dirs.bin("evcxr_jupyter");
    let path = env::var_os("PATH").unwrap_or_default();
    let others = env::split_paths(&path).map(|p| p.join(ours.file_name().unwrap_or_default()));
    [ours.clone()].into_iter().chain(others).find(|p| p.is_file() && is_right_version(p))
}

/// evcxr_jupyter does not tell its version, but cargo has written it down beside the folder it installed into.
fn is_right_version(program: &Path) -> bool {
    let record = program.ancestors().nth(2).map(|root| root.join(".crates.toml"));
    let text = record.and_then(|r| fs::read_to_string(r).ok()).unwrap_or_default();
    text.contains(&format!("\"evcxr_jupyter {VERSION} "))
}

/// Finds the program, or installs it into the project's folder.
pub fn get(dirs: &Dirs) -> Result<PathBuf> {
    if let Some(program) = find(dirs) {
        return Ok(program);
    }
    println!("Installing evcxr_jupyter {VERSION} into {}: five to ten minutes, once.", dirs.home.display());
    // Cargo's own progress is shown. Its target folder stays until it succeeds, so that a retry goes on from there.
    let build = dirs.home.join("build");
    let status = clean_cargo("cargo")
        // Without `--locked` it does not compile: newer releases of its dependencies have changed.
        .args(["install", "--locked", "evcxr_jupyter", "--version", VERSION, "--root"])
        .arg(&dirs.home)
        .env("CARGO_TARGET_DIR", &build)
        .status()
        .context("cannot start cargo: is Rust installed (https://rustup.rs)?")?;
    if !status.success() {
        bail!(
            "installing evcxr_jupyter failed (see above). It needs network and a C compiler; \
             `cargo nbs kernel install` again goes on where it stopped"
        );
    }
    let _ = fs::remove_dir_all(&build);
    find(dirs).context("cargo reported success, but evcxr_jupyter is not where it should be")
}

/// A command without what `cargo run` has put into this process's environment for `nbs` itself.
///
/// Some build scripts (ring's, for one) ask to run again when these variables change, and would each time.
pub fn clean_cargo(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if is_cargos_own(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

fn is_cargos_own(name: &str) -> bool {
    let prefixes =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_"];
    let names = [
        "CARGO",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "OUT_DIR",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ];
    names.contains(&name) || prefixes.iter().any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_cargos_record() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("bin").join("evcxr_jupyter");
        let record = root.path().join(".crates.toml");
        let line = |v| format!("[v1]\n\"evcxr_jupyter {v} (registry+x)\" = [\"evcxr_jupyter\"]\n");
        assert!(!is_right_version(&program), "no record");
        fs::write(&record, line("0.2.0")).unwrap();
        assert!(!is_right_version(&program), "an old version");
        fs::write(&record, line(VERSION)).unwrap();
        assert!(is_right_version(&program));
    }

    #[test]
    fn cargos_own_variables_are_told_from_the_users() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO", "CARGO_TARGET_DIR", "RUSTFLAGS"] {
            assert!(is_cargos_own(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "PATH",
            "MINAI_FULL",
            "CARGO_REGISTRIES_X",
        ] {
            assert!(!is_cargos_own(name), "{name}");
        }
    }
}
