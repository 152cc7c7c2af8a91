//! How quick the kernel is, as a front end sees it: `nbs bench-kernel`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::cells::planned;
use super::process::{End, Kernel, KernelSpec};
use crate::notebook::Notebook;
use crate::workspace::Workspace;

/// Options of `nbs bench-kernel`.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Notebooks whose cells are timed too, such as 16_samplers or 16.
    pub notebooks: Vec<String>,
    /// How many kernels are started, one after the other.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub starts: usize,
    /// Another kernel than the course's: the path of a kernel.json.
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<std::path::PathBuf>,
}

const LIMIT: Duration = Duration::from_secs(600);
/// What a reader's first cell may be.
const FIRST: &str = "use minai::tensor::Tensor;\nlet nbs_first = Tensor::ones(&[2, 3]);";

/// Starts kernels, executes small cells and whole notebooks, and prints how long that took.
pub fn bench(args: BenchArgs) -> Result<()> {
    let workspace = Workspace::discover()?;
    let spec = super::kernel_spec(&workspace, args.kernel.as_deref())?;
    let notebooks = if args.notebooks.is_empty() { vec![] } else { workspace.select(&args.notebooks)? };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, run(&workspace, &spec, &notebooks, args.starts.max(1)))
}

async fn run(
    workspace: &Workspace,
    spec: &KernelSpec,
    notebooks: &[std::path::PathBuf],
    starts: usize,
) -> Result<()> {
    let folder = workspace.notebooks_dir();
    let (mut ready, mut first, mut waited) = (vec![], vec![], vec![]);
    let mut small: Vec<(&str, Vec<f64>)> =
        ["1 + 2", "println!(\"hi\")", "let nbs_a = 5;", "nbs_a"].into_iter().map(|c| (c, vec![])).collect();
    for _ in 0..starts {
        let start = Instant::now();
        let mut kernel = Kernel::start(spec, &folder).await?;
        ready.push(start.elapsed().as_secs_f64());
        time(&mut kernel, FIRST).await?;
        first.push(start.elapsed().as_secs_f64());
        for (code, times) in &mut small {
            for _ in 0..5 {
                times.push(time(&mut kernel, code).await?);
            }
        }
    }
    for _ in 0..starts {
        let mut kernel = Kernel::start(spec, &folder).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        waited.push(time(&mut kernel, FIRST).await?);
    }
    println!("{:50} {:>8} {:>8} {:>8}  seconds", "", "median", "least", "most");
    line("a kernel that answers, from its start", &mut ready);
    line("the first result that uses minai, from the start", &mut first);
    line("the same, for a reader who begins after 10 s", &mut waited);
    for (code, times) in &mut small {
        line(code, times);
    }
    let mut two = two_at_once(spec, &folder, starts).await?;
    line("the first result, of two kernels at once", &mut two);
    for path in notebooks {
        cells(spec, path).await?;
    }
    Ok(())
}

async fn two_at_once(spec: &KernelSpec, folder: &Path, times: usize) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for _ in 0..times {
        let one = async || -> Result<f64> {
            let start = Instant::now();
            let mut kernel = Kernel::start(spec, folder).await?;
            time(&mut kernel, FIRST).await?;
            Ok(start.elapsed().as_secs_f64())
        };
        let (a, b) = tokio::join!(one(), one());
        all.extend([a?, b?]);
    }
    Ok(all)
}

/// The cells of a notebook: what is left of them when the time in which they run is small is the kernel's.
async fn cells(spec: &KernelSpec, path: &Path) -> Result<()> {
    let notebook = Notebook::load(path)?;
    let folder = path.parent().context("a notebook lies in a folder")?;
    let mut kernel = Kernel::start(spec, folder).await?;
    let mut times = Vec::new();
    for cell in planned(&notebook)? {
        let start = Instant::now();
        let executed = kernel.execute(&cell.source, LIMIT).await;
        if matches!(executed.end, End::Died(_) | End::TimedOut) {
            bail!("{}: {} did not end well", notebook.name(), cell.label);
        }
        times.push(start.elapsed().as_secs_f64());
    }
    let last = time(&mut kernel, "1 + 2").await?;
    line(&format!("cells of {} ({})", notebook.name(), times.len()), &mut times);
    line("1 + 2 at its end", &mut [last]);
    Ok(())
}

async fn time(kernel: &mut Kernel, code: &str) -> Result<f64> {
    let start = Instant::now();
    let executed = kernel.execute(code, LIMIT).await;
    match executed.end {
        End::Ok => Ok(start.elapsed().as_secs_f64()),
        end => bail!("`{code}` failed: {end:?}\n{:?}", executed.outputs.error()),
    }
}

fn line(what: &str, times: &mut [f64]) {
    times.sort_by(f64::total_cmp);
    let (least, most) =
        (times.first().copied().unwrap_or(f64::NAN), times.last().copied().unwrap_or(f64::NAN));
    println!(
        "{what:50} {:8.2} {least:8.2} {most:8.2}",
        times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
    );
}
