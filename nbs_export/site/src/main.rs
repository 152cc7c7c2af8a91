//! `cargo nbs site`: the course as a static site, made from the notebooks as they are saved.
//!
//! It is a crate of its own, and not among the workspace's default members, so that nobody's first lesson waits for it.

mod api;
mod check;
mod code;
mod course;
mod export;
mod frame;
mod lesson;
mod markdown;
mod output;
mod picture;
mod search;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, bail};
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
    let documentation = match arguments.with_api {
        true => Some(api::document(&workspace, &out.with_extension("doc"))?),
        false => None,
    };
    let pages = Site::new(&workspace, documentation)?.write(&out)?;
    let mut problems = check::check(&out)?;
    let bytes = export::size(&out, &["api"])?;
    if bytes > 20_000_000 {
        problems.push("all pages together are above 20 MB".into());
    }
    for problem in &problems {
        eprintln!("{problem}");
    }
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
