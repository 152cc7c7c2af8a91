//! Trains lesson 23's two networks, with attention and without, and says how often the corners of what they draw agree.
//! With checkpoints, from which a killed training goes on bit for bit. `data/models/corners-*.safetensors` were made on all
//! of MNIST:
//!
//! `MINAI_FULL=1 cargo run --release -p minai --example corners -- --heads 4 --out data/models/corners-attention.safetensors`
//!
//! `MINAI_FULL=1 cargo run --release -p minai --example corners -- --heads 0 --out data/models/corners-plain.safetensors`

use clap::Parser;
use minai::corners::{CornerNet, CornerNetConfig, Corners, draw, read_corners};
use minai::io::safetensors::write_half;
use minai::judge::Judge;
use minai::karras::{Denoise, LogNormal, Preconditioner};
use minai::nn::parameter_count;
use minai::noise::karras;
use minai::prelude::*;
use minai::state::Value;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

/// Trains a network that draws the same digit in two corners, and counts how often the two agree.
#[derive(Parser)]
struct Arguments {
    /// Heads of the attention; 0 for a network without.
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Channels between the blocks.
    #[arg(long, default_value_t = CornerNetConfig::default().channels)]
    channels: usize,
    /// How often each training image is seen.
    #[arg(long, default_value_t = 3)]
    epochs: usize,
    /// Images in a batch.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// The highest learning rate of the one-cycle schedule.
    #[arg(long, default_value_t = 0.003)]
    lr: f64,
    /// First weights, order and noise come from this number.
    #[arg(long, default_value_t = 23)]
    seed: u64,
    /// Where to save a checkpoint every 100 steps; if there is one, the training goes on from it.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Where to save the weights, in 16 bits.
    #[arg(long)]
    out: PathBuf,
}

/// How many of 200 drawn canvases have corners that the judge reads as the same class.
fn agreeing(task: &Denoise<CornerNet>) -> Result<usize, Box<dyn Error>> {
    let judge = Judge::new(&mut Generator::manual_seed(0));
    let folder = minai::io::data::data_folder().ok_or("no folder `data` of the course here or above")?;
    load_state_dict(&judge, &load(folder.join("models/judge.safetensors"))?.0)?;
    let canvases = draw(task, 200, &karras(18, 0.02, 40.0, 7.0), &mut Generator::manual_seed(1));
    let [first, second] = read_corners(&judge, &canvases);
    Ok(first.iter().zip(&second).filter(|(a, b)| a == b).count())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { heads, channels, epochs, batch, lr, seed, checkpoint, out } = Arguments::parse();
    if epochs == 0 || batch == 0 || channels == 0 || !(lr > 0.0 && lr.is_finite()) {
        return Err("--epochs, --batch and --channels are at least 1, --lr is above 0".into());
    }
    if heads > 0 && !channels.is_multiple_of(heads) {
        return Err(format!("--heads {heads} does not divide the {channels} channels").into());
    }
    minai::kernels::memory::keep_freed_memory();
    let data = mnist()?;
    println!("{data}");
    let set = |images: &Images| Corners::new(images, LogNormal { mean: -0.4, std: 1.2 });
    let options = LoaderOptions { batch_size: batch, last: Last::Drop, ..LoaderOptions::default() };
    let loaders = DataLoaders::new(set(&data.train), set(&data.valid), options);
    let per_epoch = loaders.train.len();
    let mut rng = Generator::manual_seed(seed);
    let model = CornerNet::new(&mut rng, &CornerNetConfig { channels, heads: (heads > 0).then_some(heads) });
    println!("{} parameters", parameter_count(&model));
    let optimizer = Optimizer::new(&model, AdamW { lr: lr as f32, ..AdamW::default() });
    let task = Denoise { model, preconditioner: Preconditioner { sigma_data: 0.5 } };
    let mut learner = Learner::new("corners", task, optimizer, Generator::manual_seed(seed));
    if let Some(path) = checkpoint {
        learner.checkpoint = Some(Checkpoint { path: path.clone(), every: Some(100) });
        if path.exists() {
            learner.resume(&path)?;
            println!("going on from {}", path.display());
        }
    }
    let (mut ema, mut metrics, start) = (Ema::new(0.995), Metrics::new(), Instant::now());
    let callbacks = (OneCycle::new(lr), ClipNorm::new(1.0), &mut ema, &mut metrics, Progress::new());
    learner.fit(epochs, &loaders, callbacks)?;
    if learner.interrupted {
        return Err("interrupted; the same command goes on from the checkpoint, if there is one".into());
    }
    println!("trained in {:.0} s", start.elapsed().as_secs_f64());
    ema.swap(&learner.task.model);
    let facts = [
        ("heads", heads.to_string()),
        ("channels", channels.to_string()),
        ("steps", (epochs * per_epoch).to_string()),
        ("batch", batch.to_string()),
        ("seed", seed.to_string()),
        ("data", data.to_string()),
        ("validation loss", format!("{:.5}", metrics.rows.last().map_or(f32::NAN, |row| row.valid[0]))),
    ];
    let metadata = facts.map(|(key, value)| (key.to_owned(), value)).into();
    let floats = |(name, value)| match value {
        Value::F32(array) => Some((name, array)),
        _ => None,
    };
    write_half(&out, state_dict(&learner.task.model).into_iter().filter_map(floats), &metadata)?;
    println!("weights saved to {}", out.display());
    println!("{} of 200 canvases have the same class in both corners", agreeing(&learner.task)?);
    Ok(())
}
