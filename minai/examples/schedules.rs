//! Lesson 21's comparison: the same small U-Net trained with three noise schedules, and with pixels from 0 to 1 instead of
//! -1 to 1, with three seeds each. All else is equal. What comes out goes to a file, which is written again after each
//! training, and a second run goes on from there.
//!
//! `cargo run --release -p minai --example schedules -- --out data/runs/schedules.json`

#[path = "support/machine.rs"]
mod machine;

use clap::Parser;
use machine::machine;
use minai::datasets::Mnist;
use minai::diffusion::{GuessTheNoise, NoisyImages, denoise};
use minai::io::file::write_at_once;
use minai::judge::Judge;
use minai::karras::walk;
use minai::loader::rows;
use minai::noise::{NoiseSchedule, karras};
use minai::prelude::*;
use minai::quality::frechet_distance;
use minai::schedules::shifted;
use minai::small_unet::{SmallUNet, SmallUNetConfig};
use serde_json::{Value, json};
use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Trains with different noise schedules.
#[derive(Parser)]
struct Arguments {
    /// Steps of each training, with 32 digits each; rounded up to whole epochs.
    #[arg(long, default_value_t = 748)]
    steps: usize,
    /// The seeds: each gives a training with each schedule.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// How many digits to draw with each network.
    #[arg(long, default_value_t = 500)]
    n: usize,
    /// Where the results go.
    #[arg(long)]
    out: PathBuf,
}

/// A training's name, its schedule, and whether pixels go from 0 to 1.
fn arms() -> [(&'static str, NoiseSchedule, bool); 4] {
    let (linear, cosine) = (NoiseSchedule::linear(1000, 1e-4, 0.02), NoiseSchedule::cosine(1000));
    let halved = shifted(&cosine, 0.5);
    [
        ("linear", linear.clone(), false),
        ("cosine", cosine, false),
        ("cosine, levels halved", halved, false),
        ("linear, pixels from 0 to 1", linear, true),
    ]
}

/// What all trainings share.
struct Setting {
    data: Mnist,
    judge: Judge,
    /// What the judge sees in 1,000 validation digits.
    reference: Tensor,
    steps: usize,
    n: usize,
}

/// Images in a batch.
const BATCH: usize = 32;

/// Trains once, draws, and measures.
fn run(
    setting: &Setting,
    (name, schedule, from_zero): &(&'static str, NoiseSchedule, bool),
    seed: u64,
) -> Result<Value, Box<dyn Error>> {
    let of = |images: &Images| NoisyImages {
        images: if *from_zero { images.images.clone() } else { centred(&images.images).data },
        schedule: schedule.clone(),
    };
    let options = LoaderOptions { batch_size: BATCH, last: Last::Drop, ..LoaderOptions::default() };
    let loaders = DataLoaders::new(of(&setting.data.train), of(&setting.data.valid), options);
    let epochs = setting.steps.div_ceil(loaders.train.len());
    let mut rng = Generator::manual_seed(seed);
    let config = SmallUNetConfig { channels: vec![16, 32, 64], ..SmallUNetConfig::default() };
    let model = SmallUNet::new(&mut rng, &config);
    let optimizer = Optimizer::new(&model, AdamW::default());
    let mut learner = Learner::new(name, GuessTheNoise { model }, optimizer, rng);
    let (mut ema, start) = (Ema::new(0.99), Instant::now());
    learner.fit(epochs, &loaders, (OneCycle::new(2e-3), ClipNorm::new(1.0), &mut ema, Progress::new()))?;
    let seconds = start.elapsed().as_secs_f64().round();
    ema.swap(&learner.task.model);

    let sigmas = karras(18, 0.02, 80.0, 7.0);
    let mut rng = Generator::manual_seed(100);
    let start = Tensor::from(rng.randn(&[setting.n, 1, 28, 28])) * sigmas[0] as f32;
    let sampler = "dpmpp_2m".parse()?;
    let image = |x: &Tensor, sigma: f64| match from_zero {
        // `denoise` cuts off at -1 and 1; here nothing is below 0.
        true => denoise(&learner.task.model, x, sigma).clamp(0.0, 1.0),
        false => denoise(&learner.task.model, x, sigma),
    };
    let drawn = walk(start, (sampler, &sigmas), image, &mut rng);
    let drawn = if *from_zero { drawn * 2.0 - 1.0 } else { drawn };
    let fid = frechet_distance(&setting.judge.features(&drawn, &mut Pass::eval()), &setting.reference);
    println!("{name}, seed {seed}: FID {fid:.1} after {seconds} s");
    let steps = epochs * loaders.train.len();
    Ok(json!({ "schedule": name, "seed": seed, "steps": steps, "seconds": seconds, "fid": fid }))
}

/// Pixels from 0 to 1, as pixels from -1 to 1.
fn centred(images: &Array) -> Tensor {
    Tensor::from(images.clone()) * 2.0 - 1.0
}

/// The runs of an earlier call, if there was one. They can only stand beside runs with as many steps and drawings.
fn earlier(out: &Path, steps: usize, n: usize) -> Result<Vec<Value>, Box<dyn Error>> {
    if !out.exists() {
        return Ok(vec![]);
    }
    let file: Value = serde_json::from_str(&std::fs::read_to_string(out)?)
        .map_err(|error| format!("{}: no results of this command: {error}", out.display()))?;
    let runs = file["runs"].as_array().cloned().unwrap_or_default();
    let other = runs.iter().find(|run| run["steps"] != steps).map(|run| format!("{} steps", run["steps"]));
    let other = other.or_else(|| (file["n"] != n).then(|| format!("{} drawings", file["n"])));
    match other {
        None => Ok(runs),
        Some(other) => {
            let wanted = format!("{steps} steps and {n} drawings are asked for");
            Err(format!("{}: has runs with {other}, and {wanted}; name another --out", out.display()).into())
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    minai::kernels::memory::keep_freed_memory();
    let Arguments { steps, seeds, n, out } = Arguments::parse();
    let (data, judge) = (mnist()?, Judge::new(&mut Generator::manual_seed(0)));
    println!("{data}");
    let folder = minai::io::data::data_folder().ok_or("the course's folder data is not here or above")?;
    load_state_dict(&judge, &load(folder.join("models/judge.safetensors"))?.0)?;
    let some = rows(&data.valid.images, &(0..1000).collect::<Vec<_>>());
    let reference = judge.features(&centred(&some), &mut Pass::eval());
    let text = data.to_string();
    let setting = Setting { data, judge, reference, steps, n };
    let per_epoch = setting.data.train.len() / BATCH;
    let mut runs = earlier(&out, setting.steps.div_ceil(per_epoch) * per_epoch, n)?;
    for &seed in &seeds {
        for arm in &arms() {
            if runs.iter().any(|run| run["schedule"] == arm.0 && run["seed"] == seed) {
                continue;
            }
            runs.push(run(&setting, arm, seed)?);
            let all = json!({ "data": text, "machine": machine(), "n": n, "runs": runs });
            let text = serde_json::to_string_pretty(&all)? + "\n";
            write_at_once(&out, |file| file.write_all(text.as_bytes()))?;
        }
    }
    Ok(())
}
