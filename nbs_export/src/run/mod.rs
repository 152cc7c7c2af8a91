//! Executing notebooks through the kernel, over the Jupyter protocol: `nbs run` and `nbs test`.

mod bench;
mod busy;
mod cells;
mod memory;
mod outputs;
pub(crate) mod process;
mod progress;
mod reported;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::task::{JoinSet, LocalSet};

use crate::kernel;
use crate::notebook::Notebook;
use crate::workspace::Workspace;
pub use bench::{BenchArgs, bench};
use busy::Watch;
use cells::Failure;
pub(crate) use cells::question_marks;
pub use outputs::strip_ansi;
use process::KernelSpec;
use progress::Progress;

/// Options of `nbs run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Notebooks, such as 01_foundations or 1; all if none is named.
    pub notebooks: Vec<String>,
    /// Save the executed notebooks in this folder instead of in place.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Seconds that a cell may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// Another kernel than the course's: the path of a kernel.json.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
}

/// Options of `nbs test`.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// Notebooks, such as 01_foundations or 1; all if none is named.
    pub notebooks: Vec<String>,
    /// How many notebooks run at the same time.
    #[arg(short, long, value_name = "N", default_value_t = 1)]
    pub jobs: usize,
    /// Seconds that a cell may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub timeout: u64,
    /// Another kernel than the course's: the path of a kernel.json.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
}

/// Executes notebooks and saves their outputs. A notebook with a failed cell is not saved.
pub fn run(args: RunArgs) -> Result<()> {
    let workspace = Workspace::discover()?;
    let paths = workspace.select(&args.notebooks)?;
    let spec = kernel_spec(&workspace, args.kernel.as_deref())?;
    let plan =
        Plan { workspace, spec, timeout: Duration::from_secs(args.timeout), out: args.out, save: true };
    finish(execute_all(plan, paths, 1)?)
}

/// Executes notebooks without saving, and prints a table.
pub fn test(args: TestArgs) -> Result<()> {
    let workspace = Workspace::discover()?;
    let paths = workspace.select(&args.notebooks)?;
    let mut spec = kernel_spec(&workspace, args.kernel.as_deref())?;
    // In quick mode most of a notebook's time is the compiler's, and no output is kept.
    if std::env::var_os("MINAI_FULL").is_none_or(|full| full != "1") {
        spec = spec.with_env(kernel::HASTY, "1");
    }
    let plan = Plan { workspace, spec, timeout: Duration::from_secs(args.timeout), out: None, save: false };
    let mut reports = execute_all(plan, paths, args.jobs.max(1))?;
    reports.sort_by(|a, b| a.name.cmp(&b.name));
    print!("{}", table(&reports));
    finish(reports)
}

fn kernel_spec(workspace: &Workspace, other: Option<&Path>) -> Result<KernelSpec> {
    match other {
        Some(file) => KernelSpec::read(file),
        None => KernelSpec::ours(&kernel::ensure(workspace)?),
    }
}

/// What is the same for all notebooks of a run.
struct Plan {
    workspace: Workspace,
    spec: KernelSpec,
    timeout: Duration,
    out: Option<PathBuf>,
    save: bool,
}

/// What became of one notebook.
struct Report {
    name: String,
    cells: usize,
    seconds: f64,
    /// Bytes; `None` where the system does not tell.
    peak_memory: Option<u64>,
    failure: Option<Failure>,
}

/// Executes the notebooks, `jobs` at a time. Ctrl-C ends all kernels, and this process.
fn execute_all(plan: Plan, paths: Vec<PathBuf>, jobs: usize) -> Result<Vec<Report>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let all = async {
        let plan = std::rc::Rc::new(plan);
        let progress = Progress::new();
        let mut queue: VecDeque<PathBuf> = paths.into();
        let mut running = JoinSet::new();
        let mut reports = Vec::new();
        loop {
            while running.len() < jobs
                && let Some(path) = queue.pop_front()
            {
                let (plan, progress) = (plan.clone(), progress.clone());
                running.spawn_local(async move { execute(&plan, &path, &progress).await });
            }
            match running.join_next().await {
                Some(report) => reports.push(report.context("a notebook's task failed")??),
                None => return Ok(reports),
            }
        }
    };
    // Whatever ends the block below drops the kernels' owners, which end their processes.
    let local = LocalSet::new();
    let outcome = runtime.block_on(local.run_until(async {
        tokio::select! {
            reports = all => Some(reports),
            () = interrupted() => None,
        }
    }));
    drop(local);
    outcome.unwrap_or_else(|| {
        eprintln!("interrupted: nothing was saved");
        std::process::exit(130)
    })
}

/// Waits for Ctrl-C or another wish of the system's that this process should end.
async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [Ok(mut int), Ok(mut term), Ok(mut hup)] = kinds.map(signal) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = int.recv() => {}
            _ = term.recv() => {}
            _ = hup.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = tokio::signal::ctrl_c().await;
}

async fn execute(plan: &Plan, path: &Path, progress: &Progress) -> Result<Report> {
    let start = Instant::now();
    let before = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut notebook = match readable(path) {
        Ok(notebook) => notebook,
        Err(failure) => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            progress.notebook_done(&name, Some(&failure), 0.0);
            return Ok(Report { name, cells: 0, seconds: 0.0, peak_memory: None, failure: Some(failure) });
        }
    };
    let watch = Watch::new(plan.save);
    let result =
        cells::execute(&mut notebook, &plan.spec, plan.timeout, &plan.workspace, progress, watch).await?;
    let report = Report {
        name: notebook.name(),
        cells: result.cells,
        seconds: start.elapsed().as_secs_f64(),
        peak_memory: result.peak_memory,
        failure: result.failure,
    };
    if report.failure.is_none() && plan.save {
        save(&notebook, plan.out.as_deref(), &before)?;
    }
    progress.notebook_done(&report.name, report.failure.as_ref(), report.seconds);
    Ok(report)
}

/// A notebook that can be executed. One that cannot does not stop the others.
fn readable(path: &Path) -> Result<Notebook, Failure> {
    let read = || -> Result<Notebook> {
        let notebook = Notebook::load(path)?;
        notebook.code_cells().try_for_each(|cell| cell.directives().map(drop))?;
        Ok(notebook)
    };
    read().map_err(|error| Failure {
        cell: "before the first cell".into(),
        line: None,
        reason: "it cannot be executed".into(),
        details: format!("{error:#}"),
    })
}

fn save(notebook: &Notebook, out: Option<&Path>, before: &[u8]) -> Result<()> {
    // Not as text: what Python alone can read (NaN in an old output, say) is fine.
    nbformat::parse_notebook(&numbered(notebook).json.to_string()).with_context(|| {
        format!("{}: the outputs do not make a valid notebook; nothing was saved", notebook.name())
    })?;
    if let Some(folder) = out {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
        return notebook.save_atomic(&folder.join(notebook.path.file_name().unwrap_or_default()));
    }
    if fs::read(&notebook.path).ok().as_deref() != Some(before) {
        bail!(
            "{} was changed while it ran, so its outputs were not saved: run it again",
            notebook.path.display()
        );
    }
    notebook.save()
}

/// A copy whose results have numbers: the format lets them be `null`, as we save them, but the parser does not.
fn numbered(notebook: &Notebook) -> Notebook {
    let mut copy = notebook.clone();
    for cell in copy.json["cells"].as_array_mut().into_iter().flatten() {
        for output in cell.get_mut("outputs").and_then(|o| o.as_array_mut()).into_iter().flatten() {
            if output["output_type"] == "execute_result" {
                output["execution_count"] = 1.into();
            }
        }
    }
    copy
}

fn table(reports: &[Report]) -> String {
    let width = reports.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).max(8);
    let mut text = format!("{:width$}  cells  seconds  peak memory  verdict\n", "notebook");
    for report in reports {
        let memory = report.peak_memory.map_or("-".into(), |b| format!("{} MB", b / 1_000_000));
        let verdict = if report.failure.is_none() { "passed" } else { "FAILED" };
        text += &format!(
            "{:width$}  {:>5}  {:>7.1}  {memory:>11}  {verdict}\n",
            report.name, report.cells, report.seconds
        );
    }
    text
}

fn finish(reports: Vec<Report>) -> Result<()> {
    match reports.iter().filter(|r| r.failure.is_some()).count() {
        0 => Ok(()),
        n => bail!("{n} of {} notebooks failed", reports.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up() {
        let report = |name: &str, memory, failure| Report {
            name: name.into(),
            cells: 12,
            seconds: 3.25,
            peak_memory: memory,
            failure,
        };
        let failure = Failure {
            cell: "cell `x`".into(),
            line: None,
            reason: "it panicked".into(),
            details: String::new(),
        };
        let text = table(&[
            report("01_foundations", Some(123_000_000), None),
            report("02_matmul", None, Some(failure)),
        ]);
        assert_eq!(
            text,
            "notebook        cells  seconds  peak memory  verdict\n\
             01_foundations     12      3.2       123 MB  passed\n\
             02_matmul          12      3.2            -  FAILED\n"
        );
    }
}
