//! Trains the course's small diffusion models, with checkpoints from which a killed training goes on bit for bit, and
//! draws with them.
//!
//! `cargo run --release -p minai --example diffusion -- train plain --checkpoint c.safetensors --out plain.safetensors`
//!
//! `cargo run --release -p minai --example diffusion -- sample --model data/models/plain.safetensors --out digits.png`

use clap::{Parser, Subcommand};
use half::f16;
use minai::denoiser::noise_in;
use minai::diffusion::{GuessTheNoise, NoisePredictor, NoisyImages, PlainCnn, denoise, even_levels};
use minai::io::safetensors::{Dtype, write};
use minai::nn::parameter_count;
use minai::noise::NoiseSchedule;
use minai::prelude::*;
use minai::samplers::{always, euler_ancestral};
use minai::state::Value;
use minai::tensor::elements;
use safetensors::tensor::View;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Trains small diffusion models, and draws with them.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The recipes that there are.
    List,
    /// Trains a model by a recipe.
    Train {
        /// Its name: see `list`.
        recipe: String,
        /// Steps of training, in place of the recipe's.
        #[arg(long)]
        steps: Option<usize>,
        /// First weights, order and noise come from this number.
        #[arg(long, default_value_t = 17)]
        seed: u64,
        /// Where to save a checkpoint every 100 steps; if there is one, the training goes on from it.
        #[arg(long)]
        checkpoint: Option<PathBuf>,
        /// Where to save the weights, in 16 bits.
        #[arg(long)]
        out: PathBuf,
    },
    /// Draws with a trained model.
    Sample {
        /// What `train` saved.
        #[arg(long)]
        model: PathBuf,
        /// How many pictures.
        #[arg(long, default_value_t = 64)]
        n: usize,
        /// Steps from noise to picture, 1 to 1000.
        #[arg(long, default_value_t = 100)]
        steps: usize,
        /// 0: always the same picture from the same noise (DDIM); 1: new noise in each step (DDPM).
        #[arg(long, default_value_t = 1.0)]
        eta: f64,
        /// The noise comes from this number.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// The picture's file: .png or .svg.
        #[arg(long)]
        out: PathBuf,
    },
}

/// What fixes a training, but for its seed.
struct Recipe {
    name: &'static str,
    text: &'static str,
    patch: usize,
    channels: usize,
    blocks: usize,
    steps: usize,
    batch: usize,
    lr: f64,
}

const RECIPES: [Recipe; 1] = [Recipe {
    name: "plain",
    text: "lesson 17: a plain CNN, MNIST",
    patch: 2,
    channels: 64,
    blocks: 8,
    steps: 15_620,
    batch: 32,
    lr: 1e-3,
}];

fn recipe(name: &str) -> Result<&'static Recipe, String> {
    let known = || RECIPES.map(|recipe| recipe.name).join(", ");
    RECIPES
        .iter()
        .find(|recipe| recipe.name == name)
        .ok_or_else(|| format!("no recipe {name:?}: there is {}", known()))
}

fn schedule() -> NoiseSchedule {
    NoiseSchedule::linear(1000, 1e-4, 0.02)
}

/// Pixels from 0 to 1, as pixels from -1 to 1.
fn noisy(images: &Images) -> NoisyImages {
    let images = (Tensor::from(images.images.clone()) * 2.0 - 1.0).data;
    NoisyImages { images, schedule: schedule() }
}

/// A tensor in 16 bits.
struct Half(Array);

impl View for &Half {
    fn dtype(&self) -> Dtype {
        Dtype::F16
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        2 * self.0.len()
    }
}

fn save_half(
    path: &Path,
    state: &BTreeMap<String, Value>,
    metadata: &Metadata,
) -> Result<(), Box<dyn Error>> {
    let halves = state.iter().filter_map(|(name, value)| match value {
        Value::F32(array) => Some((name.clone(), Half(array.clone()))),
        _ => None,
    });
    let halves: BTreeMap<String, Half> = halves.collect();
    let views: BTreeMap<String, &Half> = halves.iter().map(|(name, half)| (name.clone(), half)).collect();
    Ok(write(path, &views, metadata)?)
}

fn train(
    recipe: &Recipe,
    (steps, seed): (usize, u64),
    checkpoint: Option<PathBuf>,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let data = mnist()?;
    println!("{data}");
    let mut rng = Generator::manual_seed(seed);
    let model = PlainCnn::new(&mut rng, recipe.patch, recipe.channels, recipe.blocks);
    println!(
        "{}: {} parameters, {steps} steps of {} images",
        recipe.name,
        parameter_count(&model),
        recipe.batch
    );

    let options = LoaderOptions { batch_size: recipe.batch, last: Last::Drop, ..LoaderOptions::default() };
    let (train, valid) = (noisy(&data.train), noisy(&data.valid));
    let loaders = DataLoaders::new(train, valid, options);
    let per_epoch = loaders.train.len();
    let epochs = steps.div_ceil(per_epoch);
    let optimizer = Optimizer::new(&model, AdamW { lr: recipe.lr as f32, ..AdamW::default() });
    let mut learner = Learner::new(recipe.name, GuessTheNoise { model }, optimizer, rng);
    if let Some(path) = checkpoint {
        learner.checkpoint = Some(Checkpoint { path: path.clone(), every: Some(100) });
        if path.exists() {
            learner.resume(&path)?;
            println!("going on from {}", path.display());
        }
    }
    let (mut ema, mut metrics) = (Ema::new(0.995), Metrics::new());
    let start = Instant::now();
    learner.fit(epochs, &loaders, (OneCycle::new(recipe.lr), ClipNorm::new(1.0), &mut ema, &mut metrics, Progress::new()))?;
    if learner.interrupted {
        return Err("interrupted; the same command goes on from the checkpoint, if there is one".into());
    }
    println!("{} steps in {:.0} s", epochs * per_epoch, start.elapsed().as_secs_f64());

    let loss = metrics.rows.last().map_or(f32::NAN, |row| row.valid[0]);
    let facts = [
        ("recipe", recipe.name.to_owned()),
        ("patch", recipe.patch.to_string()),
        ("channels", recipe.channels.to_string()),
        ("blocks", recipe.blocks.to_string()),
        ("steps", (epochs * per_epoch).to_string()),
        ("batch", recipe.batch.to_string()),
        ("seed", seed.to_string()),
        ("data", data.to_string()),
        ("validation loss", format!("{loss:.5}")),
    ];
    let metadata = facts.map(|(key, value)| (key.to_owned(), value)).into();
    save_half(out, &ema.state_dict(&learner.task.model), &metadata)?;
    println!("weights saved to {}", out.display());
    Ok(())
}

/// The network in a file that `train` saved.
fn open(path: &Path) -> Result<PlainCnn, Box<dyn Error>> {
    let (state, metadata) = load(path)?;
    let size = |key: &str| -> Result<usize, String> {
        let text = metadata.get(key).and_then(|text| text.parse().ok());
        text.filter(|size| (1..=1024).contains(size)).ok_or_else(|| {
            format!("{}: no model of this command, since its metadata have no `{key}`", path.display())
        })
    };
    let (patch, channels, blocks) = (size("patch")?, size("channels")?, size("blocks")?);
    if 28 % patch != 0 {
        return Err(format!("{}: images of 28 by 28 have no blocks of {patch} by {patch}", path.display()).into());
    }
    if !channels.is_multiple_of(8) {
        return Err(format!("{}: {channels} channels are no multiple of 8", path.display()).into());
    }
    let model = PlainCnn::new(&mut Generator::manual_seed(0), patch, channels, blocks);
    load_state_dict(&model, &state).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(model)
}

fn sample(model: &dyn NoisePredictor, n: usize, (steps, eta): (usize, f64), seed: u64) -> Tensor {
    let mut rng = Generator::manual_seed(seed);
    let sigmas = even_levels(&schedule(), steps);
    let start = Tensor::from(rng.randn(&[n, 1, 28, 28])) * (1.0 + sigmas[0] * sigmas[0]).sqrt() as f32;
    let network = always(|x, sigma| noise_in(x, &denoise(model, x, sigma), sigma));
    let Ok(end) = euler_ancestral(start, &sigmas, eta, network, |shape| rng.randn(shape).into());
    end
}

fn main() -> Result<(), Box<dyn Error>> {
    minai::kernels::memory::keep_freed_memory();
    match Arguments::parse().command {
        Command::List => {
            for Recipe { name, text, steps, batch, .. } in &RECIPES {
                println!("{name:10} {text}; about {steps} steps of {batch} images");
            }
        }
        Command::Train { recipe: name, steps, seed, checkpoint, out } => {
            let recipe = recipe(&name)?;
            let steps = steps.unwrap_or(recipe.steps);
            if steps == 0 {
                return Err("--steps 0: there is nothing to train".into());
            }
            train(recipe, (steps, seed), checkpoint, &out)?;
        }
        Command::Sample { model, n, steps, eta, seed, out } => {
            if n == 0 || !(1..=1000).contains(&steps) || !(0.0..=1.0).contains(&eta) {
                return Err("--n is at least 1, --steps 1 to 1000, --eta 0 to 1".into());
            }
            let model = open(&model)?;
            let start = Instant::now();
            let images = sample(&model, n, (steps, eta), seed);
            println!("{n} pictures in {:.1} s", start.elapsed().as_secs_f64());
            let pictures = elements(&images.data).chunks(784).map(|pixels| ("", pixels.to_vec()));
            let look = Look { columns: Some(n.min(16)), range: Some((-1.0, 1.0)), ..Look::default() };
            show_images("Drawn by a diffusion model", pictures, (28, 28), look).save(&out)?;
        }
    }
    Ok(())
}
