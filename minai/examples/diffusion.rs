//! Trains the course's small diffusion models, with checkpoints from which a killed training goes on bit for bit, and
//! draws with them. With `MINAI_FULL=1` it trains on all of MNIST, as the models in `data/models` were; without, on the
//! sample that comes with the course.
//!
//! `MINAI_FULL=1 cargo run --release -p minai --example diffusion -- train plain --checkpoint c.safetensors --out plain.safetensors`
//!
//! `cargo run --release -p minai --example diffusion -- sample --model data/models/plain.safetensors --out digits.png`

use clap::{Parser, Subcommand};
use half::f16;
use minai::diffusion::{GuessTheNoise, NoisePredictor, NoisyImages, PlainCnn, draw, even_levels};
use minai::io::safetensors::{Dtype, write};
use minai::nn::parameter_count;
use minai::noise::NoiseSchedule;
use minai::prelude::*;
use minai::small_unet::{SmallUNet, SmallUNetConfig};
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
        /// Steps of training, in place of the recipe's; rounded up to whole epochs.
        #[arg(long)]
        steps: Option<usize>,
        /// As many steps as fit into this time; the number is printed, and `--steps` repeats it.
        #[arg(long, conflicts_with = "steps")]
        minutes: Option<f64>,
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
        /// The picture's file: .png or .svg; or .safetensors, for `images` (n, 1, 28, 28) from -1 to 1.
        #[arg(long)]
        out: PathBuf,
    },
}

/// A network's shape.
enum Net {
    /// Lesson 17's: blocks of `patch` by `patch` pixels, `channels` between its `blocks`.
    Plain { patch: usize, channels: usize, blocks: usize },
    /// Lesson 18's, with its default channels.
    UNet,
}

/// What fixes a training, but for its seed.
struct Recipe {
    name: &'static str,
    text: &'static str,
    net: Net,
    steps: usize,
    batch: usize,
    lr: f64,
}

const RECIPES: [Recipe; 2] = [
    Recipe {
        name: "plain",
        text: "lesson 17: a plain CNN, MNIST",
        net: Net::Plain { patch: 2, channels: 64, blocks: 8 },
        steps: 15_620,
        batch: 32,
        lr: 1e-3,
    },
    Recipe {
        name: "unet",
        text: "lesson 18: a small U-Net, MNIST",
        net: Net::UNet,
        steps: 4_686,
        batch: 32,
        lr: 2e-3,
    },
];

/// A network of one of the recipes.
struct Model(Box<dyn NoisePredictor>);

impl Model {
    fn new(rng: &mut Generator, net: &Net) -> Self {
        match *net {
            Net::Plain { patch, channels, blocks } => {
                Model(Box::new(PlainCnn::new(rng, patch, channels, blocks)))
            }
            Net::UNet => Model(Box::new(SmallUNet::new(rng, &SmallUNetConfig::default()))),
        }
    }
}

impl Module for Model {
    fn parts(&self, parts: &mut Parts) {
        self.0.parts(parts);
    }
}

impl NoisePredictor for Model {
    fn predict_noise(&self, x: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor {
        self.0.predict_noise(x, sigma, pass)
    }
}

fn recipe(name: &str) -> Result<&'static Recipe, String> {
    let known = || RECIPES.each_ref().map(|recipe| recipe.name).join(", ");
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

impl View for Half {
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
    Ok(write(path, &halves.collect(), metadata)?)
}

/// The steps of training that fit into this time, from the time that 20 of them take.
fn steps_in(minutes: f64, recipe: &Recipe, data: &NoisyImages) -> usize {
    const TIMED: usize = 20;
    let mut rng = Generator::manual_seed(0);
    let task = GuessTheNoise { model: Model::new(&mut rng, &recipe.net) };
    let mut optimizer = Optimizer::new(&task.model, AdamW::default());
    let indices: Vec<usize> = (0..recipe.batch).map(|i| i % data.len()).collect();
    let start = Instant::now();
    for _ in 0..TIMED {
        let batch = data.batch(&indices, &mut rng);
        task.loss(&task.predict(&batch, &mut Pass::train(Generator::manual_seed(1))), &batch).backward();
        optimizer.step();
        optimizer.zero_grad();
    }
    let step = start.elapsed().as_secs_f64() / TIMED as f64;
    let steps = (60.0 * minutes / step).max(1.0) as usize;
    println!("{step:.3} s for a step: --steps {steps} takes about {minutes} minutes here");
    steps
}

/// How long to train, and from which number the randomness comes.
struct Length {
    steps: Option<usize>,
    minutes: Option<f64>,
    seed: u64,
}

fn train(
    recipe: &Recipe,
    length: &Length,
    checkpoint: Option<PathBuf>,
    out: &Path,
) -> Result<(), Box<dyn Error>> {
    let data = mnist()?;
    println!("{data}");
    let (train, valid) = (noisy(&data.train), noisy(&data.valid));
    let steps = match (length.steps, length.minutes) {
        (Some(steps), _) => steps,
        (None, Some(minutes)) => steps_in(minutes, recipe, &train),
        (None, None) => recipe.steps,
    };
    let seed = length.seed;
    let mut rng = Generator::manual_seed(seed);
    let model = Model::new(&mut rng, &recipe.net);

    let options = LoaderOptions { batch_size: recipe.batch, last: Last::Drop, ..LoaderOptions::default() };
    let loaders = DataLoaders::new(train, valid, options);
    let per_epoch = loaders.train.len();
    let epochs = steps.div_ceil(per_epoch);
    let steps = epochs * per_epoch;
    println!(
        "{}: {} parameters, {steps} steps of {} images",
        recipe.name,
        parameter_count(&model),
        recipe.batch
    );
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
    learner.fit(
        epochs,
        &loaders,
        (OneCycle::new(recipe.lr), ClipNorm::new(1.0), &mut ema, &mut metrics, Progress::new()),
    )?;
    if learner.interrupted {
        return Err("interrupted; the same command goes on from the checkpoint, if there is one".into());
    }
    println!("{steps} steps in {:.0} s", start.elapsed().as_secs_f64());

    let loss = metrics.rows.last().map_or(f32::NAN, |row| row.valid[0]);
    let facts = [
        ("recipe", recipe.name.to_owned()),
        ("steps", steps.to_string()),
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
fn open(path: &Path) -> Result<Model, Box<dyn Error>> {
    let (state, metadata) = load(path)?;
    let name = metadata.get("recipe").ok_or_else(|| {
        format!("{}: no model of this command, since its metadata name no recipe", path.display())
    })?;
    let recipe = recipe(name).map_err(|error| format!("{}: {error}", path.display()))?;
    let model = Model::new(&mut Generator::manual_seed(0), &recipe.net);
    load_state_dict(&model, &state).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(model)
}

fn main() -> Result<(), Box<dyn Error>> {
    minai::kernels::memory::keep_freed_memory();
    match Arguments::parse().command {
        Command::List => {
            for Recipe { name, text, steps, batch, .. } in &RECIPES {
                println!("{name:10} {text}; about {steps} steps of {batch} images");
            }
        }
        Command::Train { recipe: name, steps, minutes, seed, checkpoint, out } => {
            let recipe = recipe(&name)?;
            if steps == Some(0) || minutes.is_some_and(|minutes| !(minutes > 0.0 && minutes.is_finite())) {
                return Err("--steps and --minutes are above 0".into());
            }
            train(recipe, &Length { steps, minutes, seed }, checkpoint, &out)?;
        }
        Command::Sample { model, n, steps, eta, seed, out } => {
            if n == 0 || !(1..=1000).contains(&steps) || !(0.0..=1.0).contains(&eta) {
                return Err("--n is at least 1, --steps 1 to 1000, --eta 0 to 1".into());
            }
            let model = open(&model)?;
            let start = Instant::now();
            let levels = even_levels(&schedule(), steps);
            let images = draw(&model, &[n, 1, 28, 28], &levels, eta, &mut Generator::manual_seed(seed));
            println!("{n} pictures in {:.1} s", start.elapsed().as_secs_f64());
            if out.extension().is_some_and(|extension| extension == "safetensors") {
                let state = [("images".to_owned(), Value::F32(images.data))].into();
                return Ok(save(&out, &state, &Metadata::default())?);
            }
            let pictures = elements(&images.data).chunks(784).map(|pixels| ("", pixels.to_vec()));
            let look = Look { columns: Some(n.min(16)), range: Some((-1.0, 1.0)), ..Look::default() };
            show_images("Drawn by a diffusion model", pictures, (28, 28), look).save(&out)?;
        }
    }
    Ok(())
}
