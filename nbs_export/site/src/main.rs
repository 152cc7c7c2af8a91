//! `cargo nbs site`: the course as a static site, made from the notebooks as they are saved.
//!
//! It is a crate of its own, and not among the workspace's default members, so that nobody's first lesson waits for it.

mod check;
mod code;
mod course;
mod export;
mod frame;
mod lesson;
mod markdown;
mod output;
mod search;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use nbs_export::workspace::Workspace;

use crate::export::Site;

/// Makes a static site of the notebooks, as they are saved.
#[derive(Parser)]
#[command(bin_name = "cargo nbs site")]
struct Arguments {
    /// Where to put it.
    #[arg(long, default_value = "target/site")]
    out: PathBuf,
    /// Puts the crate's documentation beside it, and links names in the lessons to it.
    #[arg(long)]
    with_api: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let start = Instant::now();
    let workspace = Workspace::discover()?;
    let out = workspace.root.join(&arguments.out);
    let site = Site::new(&workspace, arguments.with_api)?;
    let pages = site.write(&out)?;
    if arguments.with_api {
        document(&workspace, &out)?;
    }
    let problems = check::check(&out)?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    let bytes = export::size(&out, &["api"])?;
    println!(
        "{pages} pages, {:.1} MB without the crate's documentation, in {:.1} s: {}",
        bytes as f64 / 1e6,
        start.elapsed().as_secs_f64(),
        out.join("index.html").display()
    );
    match problems.len() {
        0 => Ok(()),
        1 => bail!("one thing is wrong"),
        n => bail!("{n} things are wrong"),
    }
}

/// The crate's documentation, as `api` beside the pages.
fn document(workspace: &Workspace, out: &std::path::Path) -> Result<()> {
    let target = out.with_extension("doc");
    let done = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["doc", "--quiet", "--package", "minai", "--no-deps", "--target-dir"])
        .arg(&target)
        .current_dir(&workspace.root)
        .status()
        .context("cargo doc could not be started")?;
    if !done.success() {
        bail!("cargo doc failed");
    }
    std::fs::rename(target.join("doc"), out.join("api"))
        .context("the documentation could not be put beside the pages")
}
