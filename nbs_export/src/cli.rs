//! The command line of `nbs`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::workspace::Workspace;
use crate::{cargo, check, clean, doctor, export, fmt, hooks, kernel, lab, merge, new, run, update};

/// Notebooks as the source of a Rust crate: export them, check them, run them.
#[derive(Debug, Parser)]
#[command(name = "nbs", bin_name = "nbs", version, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Day by day:
  cargo nbs lab                 open lesson 1 in JupyterLab (sets up what is missing)
  cargo nbs export              after a change in a notebook: write the crate and the tests
  cargo nbs update              after a change in an exported file: bring it back into its cell
  cargo nbs run 01_foundations  execute a notebook and save its outputs
  cargo nbs check               is everything consistent? (what CI runs)

A notebook is named by its file's name, with or without folder and ending, or by its number alone.
Commands take all notebooks where none is named.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Write what the notebooks export: the crate's modules, its module list, the tests
    Export(ExportArgs),
    /// Say everything that is out of order, with diffs; exit with 1 if anything is
    Check(NotebookArgs),
    /// Bring changes made in exported files back into their cells
    Update(UpdateArgs),
    /// Execute notebooks with the kernel and save their outputs
    Run(run::RunArgs),
    /// Execute notebooks without saving; a table of time, memory and verdict
    Test(run::TestArgs),
    /// Check that crate and tests compile; errors name notebook, cell and line
    Build,
    /// Bring the code of cells into rustfmt's form
    Fmt(FmtArgs),
    /// Take out of notebooks what changes without meaning (counts, timings, editor state); outputs stay
    Clean(CleanArgs),
    /// Begin a lesson: a notebook with the parts that every lesson has
    New(NewArgs),
    /// The course's kernel
    #[command(subcommand)]
    Kernel(KernelCommand),
    /// Say what is missing on this machine, and how to get it
    Doctor(doctor::DoctorArgs),
    /// Set up what is missing, then open lesson 1 in JupyterLab
    Lab(lab::LabArgs),
    /// Make a static site of the notebooks, in target/site (compiles another program the first time)
    Site(SiteArgs),
    /// Measure how quick the kernel is: its start, small cells, whole notebooks
    BenchKernel(run::BenchArgs),
    /// Merge two versions of a notebook cell by cell (git calls this; see `clean --install-hook`)
    Merge(MergeArgs),
}

#[derive(Debug, Subcommand)]
enum KernelCommand {
    /// Get evcxr_jupyter and write the kernelspec "Rust (minai)"
    Install(kernel::InstallArgs),
    /// Become the kernel: what the kernelspec calls
    #[command(hide = true)]
    Start(kernel::StartArgs),
    /// Run one cell that uses minai: set-up does so, without network
    #[command(hide = true)]
    Prove(kernel::ProveArgs),
}

/// What the program that makes the site is told.
#[derive(Args, Debug)]
struct SiteArgs {
    /// `--help` lists its options
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<String>,
}

/// A list of notebooks.
#[derive(Args, Clone, Debug, Default)]
pub struct NotebookArgs {
    /// Notebooks, such as 01_foundations or 1; all if none is named
    pub notebooks: Vec<String>,
}

/// Options of `nbs export`.
#[derive(Args, Clone, Debug, Default)]
pub struct ExportArgs {
    /// Notebooks, such as 01_foundations or 1; all if none is named
    pub notebooks: Vec<String>,
    /// Overwrite exported files that were edited by hand: the edits are lost
    #[arg(long)]
    pub force: bool,
}

/// Options of `nbs update`.
#[derive(Args, Clone, Debug, Default)]
pub struct UpdateArgs {
    /// Show what would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `nbs fmt`.
#[derive(Args, Clone, Debug, Default)]
pub struct FmtArgs {
    /// Notebooks, such as 01_foundations or 1; all if none is named
    pub notebooks: Vec<String>,
    /// Change nothing; show what would change, and exit with 1 if anything would
    #[arg(long)]
    pub check: bool,
}

/// Options of `nbs clean`.
#[derive(Args, Clone, Debug, Default)]
pub struct CleanArgs {
    /// Notebooks, such as 01_foundations or 1; all if none is named
    pub notebooks: Vec<String>,
    /// Set up this clone: git checks notebooks before a commit, and merges them by cell
    #[arg(long)]
    pub install_hook: bool,
    /// Change nothing; show what would change, and exit with 1 if anything would
    #[arg(long)]
    pub check: bool,
    /// With --check: look at what is staged in git (the hook does so)
    #[arg(long, requires = "check", conflicts_with = "notebooks")]
    pub staged: bool,
}

/// Options of `nbs new`.
#[derive(Args, Clone, Debug)]
pub struct NewArgs {
    /// Two digits and a topic, such as 02_matmul
    pub name: String,
}

/// What git gives a merge driver.
#[derive(Args, Clone, Debug)]
pub struct MergeArgs {
    /// The common ancestor (%O)
    pub base: PathBuf,
    /// Our version (%A); the result is written here
    pub ours: PathBuf,
    /// Their version (%B)
    pub theirs: PathBuf,
    /// The path in the repository (%P), for messages
    pub path: Option<PathBuf>,
}

/// Does what the command line says. `Ok(false)` stands for a check that found something.
pub fn main(cli: Cli) -> Result<bool> {
    let done = |result: Result<()>| result.map(|()| true);
    let here = Workspace::discover;
    match cli.command {
        Command::Export(args) => done(export::export(&here()?, &args.notebooks, args.force)),
        Command::Check(args) => check::check(&here()?, &args.notebooks),
        Command::Update(args) => done(update::update(&here()?, args.dry_run)),
        Command::Run(args) => done(run::run(args)),
        Command::Test(args) => done(run::test(args)),
        Command::Build => cargo::build(&here()?),
        Command::Fmt(args) => fmt::fmt(&here()?, &args.notebooks, args.check),
        Command::Clean(args) if args.install_hook => done(hooks::install(&here()?)),
        Command::Clean(CleanArgs { notebooks, check, staged, .. }) => {
            clean::run(&here()?, &notebooks, clean::Options { check, staged })
        }
        Command::New(args) => done(new::new(&here()?, &args.name)),
        Command::Kernel(KernelCommand::Install(args)) => done(kernel::install(args)),
        Command::Kernel(KernelCommand::Start(args)) => done(kernel::start(args)),
        Command::Kernel(KernelCommand::Prove(args)) => done(kernel::prove(args)),
        Command::Doctor(args) => done(doctor::doctor(args)),
        Command::BenchKernel(args) => done(run::bench(args)),
        Command::Lab(args) => done(lab::lab(args)),
        Command::Site(SiteArgs { options }) => cargo::site(&Workspace::discover()?, &options),
        Command::Merge(MergeArgs { base, ours, theirs, path }) => {
            let name = path.as_deref().unwrap_or(&ours).display().to_string();
            merge::run(&base, &ours, &theirs, &name)
        }
    }
}
