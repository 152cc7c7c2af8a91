//! The source of Rust's standard library: rust-analyzer reads it, and evcxr asks rust-analyzer for the types of variables.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::evcxr::clean_cargo;
use super::progress::Progress;

/// Where it lies, if it is there.
pub fn std_source() -> Option<PathBuf> {
    let output = clean_cargo("rustc").arg("--print=sysroot").output().ok().filter(|o| o.status.success())?;
    let sysroot = String::from_utf8_lossy(&output.stdout);
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library");
    library.join("std").is_dir().then_some(library)
}

/// Sees to it that it is there. rustup's default profile leaves it out; it is a download of a few megabytes.
pub(super) fn ensure(progress: &Progress) -> Result<()> {
    if std_source().is_some() {
        return Ok(());
    }
    let mut task = progress.task("the source of Rust's standard library");
    task.set("`rustup component add rust-src`");
    let output = clean_cargo("rustup").args(["component", "add", "rust-src"]).output();
    if std_source().is_some() {
        return Ok(());
    }
    let why = match output {
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(_) => "This Rust did not come with rustup, which could fetch it.".to_owned(),
    };
    bail!(
        "the source of Rust's standard library is missing, without which the kernel cannot tell the type of a variable \
         such as `let here = std::env::current_dir()?;`.\n{why}\n\
         `rustup component add rust-src` brings it, with a network; a Linux distribution's Rust has a package `rust-src`"
    )
}
