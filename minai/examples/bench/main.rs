//! Times the work that `benches/torch_peer.py` does in PyTorch, under the same names, and prints the same JSON:
//! `cargo run --release -p minai --example bench -- [--only NAME,…] [--threads 2] [--sd] [--compare PYTHON] [--check-unet PYTHON]`

mod compare;
mod learner;
mod operations;
mod training;
mod unet;

use clap::Parser;
use minai::generator::Generator;
use minai::kernels::memory::keep_freed_memory;
use minai::kernels::threads::with_threads;
use minai::matmul::peak_gflops;
use minai::weights::Precision;
use serde_json::{Value, json};
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Times minai's operations and training steps, in milliseconds per call (median).
#[derive(Parser)]
struct Arguments {
    /// Only these, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// How many threads work
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Run PyTorch too, with this interpreter (it needs torch): both in turn, and the ratio of their times
    #[arg(long, value_name = "PYTHON")]
    compare: Option<String>,
    /// Time the networks of Stable Diffusion v1 at full size, with random weights: 4 GB, or 2 with --half
    #[arg(long)]
    sd: bool,
    /// With --sd: keep the weights in 16 bits
    #[arg(long)]
    half: bool,
    /// Compare the U-Net of the rows `…_unet_16_128_b32` with diffusers', with this interpreter: parameters and output
    #[arg(long, value_name = "PYTHON")]
    check_unet: Option<String>,
    /// How often both programs run in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if let Some(python) = &arguments.compare {
        return compare::compare(python, &arguments);
    }
    if let Some(python) = &arguments.check_unet {
        return unet::check(python, &peer());
    }
    keep_freed_memory();
    let threads = arguments.threads;
    let mut bench =
        Bench { only: arguments.only, ms: serde_json::Map::new(), values: serde_json::Map::new() };
    let keep = if arguments.half { Precision::Half } else { Precision::Single };
    with_threads(threads, || {
        all(&mut bench);
        if arguments.sd {
            operations::stable_diffusion(&mut bench, keep);
        }
    });
    if bench.ms.is_empty() && bench.values.is_empty() {
        return Err("no work of that name: run without --only to see all names".into());
    }
    let mut result = json!({ "minai": env!("CARGO_PKG_VERSION"), "threads": threads, "ms": bench.ms });
    result.as_object_mut().expect("an object").extend(bench.values);
    if let Some(megabytes) = peak_memory() {
        result["peak_memory_mb"] = json!(megabytes.round());
    }
    println!("{result}");
    Ok(())
}

struct Bench {
    only: Vec<String>,
    ms: serde_json::Map<String, Value>,
    values: serde_json::Map<String, Value>,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The median time of a call: after two to warm up, for one and a half seconds or 200 calls, but three at least.
    fn time<R>(&mut self, name: &str, mut work: impl FnMut() -> R) {
        if !self.wants(name) {
            return;
        }
        black_box(work());
        black_box(work());
        let (mut times, start) = (Vec::new(), Instant::now());
        while (start.elapsed() < Duration::from_millis(1500) || times.len() < 3) && times.len() < 200 {
            let start = Instant::now();
            black_box(work());
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let median = (times[times.len() / 2] * 1e4).round() / 1e4;
        eprintln!("{name} {median}");
        self.ms.insert(name.into(), json!(median));
    }
}

fn all(bench: &mut Bench) {
    if bench.wants("peak_gflops") {
        let peak = peak_gflops();
        eprintln!("peak_gflops {peak:.1} (one core)");
        bench.values.insert("peak_gflops".into(), json!((peak * 10.0).round() / 10.0));
    }
    let rng = &mut Generator::manual_seed(42);
    operations::operations(bench, rng);
    training::training(bench, rng);
    training::unet(bench, rng);
    learner::training_with_loader(bench);
    operations::lesson_2(bench, rng);
}

/// The program that does the same work in PyTorch.
fn peer() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/torch_peer.py")
}

/// The most memory that this process has used so far, in megabytes, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}
