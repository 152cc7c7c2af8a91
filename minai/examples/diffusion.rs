//! Trains the course's small diffusion models, with checkpoints from which a killed training goes on bit for bit, and
//! draws with them. With `MINAI_FULL=1` it trains on all of MNIST, as the models in `data/models` were; without, on the
//! sample that comes with the course.
//!
//! `MINAI_FULL=1 cargo run --release -p minai --example diffusion -- train plain --checkpoint c.safetensors --out plain.safetensors`
//!
//! `cargo run --release -p minai --example diffusion -- sample --model data/models/digits.safetensors --class 7 --out seven.png`

use clap::{Parser, Subcommand};
use minai::diffusion::{GuessTheNoise, NoisePredictor, NoisyImages, PlainCnn, draw, even_levels};
use minai::guidance::{ClassImages, ClassUNet, DenoiseClass, Guidance};
use minai::io::safetensors::write_half;
use minai::karras::{ImagesAtLevels, LogNormal, Preconditioner};
use minai::nn::parameter_count;
use minai::noise::{NoiseSchedule, karras};
use minai::prelude::*;
use minai::sampling::Sampler;
use minai::small_unet::{SmallUNet, SmallUNetConfig};
use minai::state::Value;
use minai::tensor::elements;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
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
    Sample(Wanted),
}

/// What is to be drawn. What is not given has the model's own value.
#[derive(clap::Args)]
struct Wanted {
    /// What `train` saved.
    #[arg(long)]
    model: PathBuf,
    /// Which class to draw, from 0 to 9, or `all` for each in turn. Only for models that know classes, such as `digits`.
    #[arg(long)]
    class: Option<String>,
    /// How many pictures.
    #[arg(long, default_value_t = 64)]
    n: usize,
    /// How far to go beyond what the class changes: 1 is not at all.
    #[arg(long)]
    guidance: Option<f64>,
    /// The lowest and the highest noise level with guidance: `0.2,10`.
    #[arg(long, value_name = "LOW,HIGH", value_parser = pair)]
    guidance_range: Option<(f64, f64)>,
    /// The sampler, by any of its names: heun, dpmpp_2m, "Euler a" ...
    #[arg(long)]
    sampler: Option<String>,
    /// Steps from noise to picture, 1 to 1000.
    #[arg(long)]
    steps: Option<usize>,
    /// For models without classes. 0: always the same picture from the same noise (DDIM); 1: new noise in each step (DDPM),
    /// which is usual.
    #[arg(long)]
    eta: Option<f64>,
    /// The noise comes from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The picture's file: .png or .svg; or .safetensors, for `images` (n, 1, 28, 28) from -1 to 1 and, of models that know
    /// classes, `labels` (n).
    #[arg(long)]
    out: PathBuf,
}

fn pair(text: &str) -> Result<(f64, f64), String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[low, high]) if 0.0 <= low && low < high => Ok((low, high)),
        _ => Err("two noise levels are wanted, the lower first, such as 0.2,10".into()),
    }
}

/// A network's shape.
enum Net {
    /// Lesson 17's: blocks of `patch` by `patch` pixels, `channels` between its `blocks`.
    Plain { patch: usize, channels: usize, blocks: usize },
    /// Lesson 18's, with its default channels.
    Residual,
    /// Lesson 24's, of the same shape.
    Classes,
}

/// The pictures that a network learns from.
enum Source {
    Mnist,
    Fashion,
}

/// What fixes a training, but for its seed.
struct Recipe {
    name: &'static str,
    text: &'static str,
    net: Net,
    source: Source,
    steps: usize,
    batch: usize,
    lr: f64,
}

const RECIPES: [Recipe; 4] = [
    Recipe {
        name: "plain",
        text: "lesson 17: a plain CNN, MNIST",
        net: Net::Plain { patch: 2, channels: 64, blocks: 8 },
        source: Source::Mnist,
        steps: 15_620,
        batch: 32,
        lr: 1e-3,
    },
    Recipe {
        name: "unet",
        text: "lesson 18: a small U-Net, MNIST",
        net: Net::Residual,
        source: Source::Mnist,
        steps: 4_686,
        batch: 32,
        lr: 2e-3,
    },
    Recipe {
        name: "digits",
        text: "lesson 24: a U-Net that knows classes, MNIST",
        net: Net::Classes,
        source: Source::Mnist,
        steps: 4_686,
        batch: 64,
        lr: 2e-3,
    },
    Recipe {
        name: "clothes",
        text: "lesson 24: the same, Fashion-MNIST",
        net: Net::Classes,
        source: Source::Fashion,
        steps: 4_686,
        batch: 64,
        lr: 2e-3,
    },
];

/// A network that predicts the noise.
struct Model(Box<dyn NoisePredictor>);

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

/// What is trained, and drawn with.
enum Trained {
    Noise(GuessTheNoise<Model>),
    Classes(Box<DenoiseClass>),
}

impl Trained {
    fn new(rng: &mut Generator, net: &Net) -> Self {
        match net {
            Net::Classes => Trained::Classes(Box::new(class_task(rng))),
            net => Trained::Noise(noise_task(rng, net)),
        }
    }

    fn model(&self) -> &dyn Module {
        match self {
            Trained::Noise(task) => &task.model,
            Trained::Classes(task) => &task.model,
        }
    }
}

/// A task whose network predicts the noise.
fn noise_task(rng: &mut Generator, net: &Net) -> GuessTheNoise<Model> {
    let model: Box<dyn NoisePredictor> = match *net {
        Net::Plain { patch, channels, blocks } => Box::new(PlainCnn::new(rng, patch, channels, blocks)),
        Net::Residual => Box::new(SmallUNet::new(rng, &SmallUNetConfig::default())),
        Net::Classes => unreachable!("it has a task of its own"),
    };
    GuessTheNoise { model: Model(model) }
}

fn class_task(rng: &mut Generator) -> DenoiseClass {
    let model = ClassUNet::new(rng, &SmallUNetConfig::default(), CLASSES);
    DenoiseClass { model, preconditioner: Preconditioner { sigma_data: 0.5 } }
}

const CLASSES: usize = 10;

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
fn centred(images: &Images) -> Array {
    (Tensor::from(images.images.clone()) * 2.0 - 1.0).data
}

fn noisy(images: &Images) -> NoisyImages {
    NoisyImages { images: centred(images), schedule: schedule() }
}

fn with_classes(images: &Images) -> ClassImages {
    ClassImages {
        images: ImagesAtLevels { images: centred(images), levels: LogNormal::default() },
        labels: images.labels.clone(),
        dropout: 0.1,
        none: CLASSES as i64,
    }
}

/// The steps of training that fit into this time, from the time that 20 of them take.
fn steps_in<T: Task>(minutes: f64, batch: usize, task: &T, data: &impl Dataset<Batch = T::Batch>) -> usize {
    const TIMED: usize = 20;
    let mut rng = Generator::manual_seed(0);
    let mut optimizer = Optimizer::new(task.model(), AdamW::default());
    let indices: Vec<usize> = (0..batch).map(|i| i % data.len()).collect();
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

/// How to train, and where the result goes.
struct Training {
    recipe: &'static Recipe,
    steps: Option<usize>,
    minutes: Option<f64>,
    seed: u64,
    checkpoint: Option<PathBuf>,
    out: PathBuf,
}

fn train(training: Training) -> Result<(), Box<dyn Error>> {
    let Recipe { net, source, .. } = training.recipe;
    let (train, valid, text) = match source {
        Source::Mnist => {
            let data = mnist()?;
            let text = data.to_string();
            (data.train, data.valid, text)
        }
        Source::Fashion => {
            let data = fashion_mnist()?;
            let (train, valid) = data.train.split_at(data.train.len() * 5 / 6);
            (train, valid, data.to_string())
        }
    };
    println!("{text}");
    match net {
        Net::Classes => fit(training, class_task, (with_classes(&train), with_classes(&valid)), &text),
        net => fit(training, |rng| noise_task(rng, net), (noisy(&train), noisy(&valid)), &text),
    }
}

fn fit<T: Task, D: Dataset<Batch = T::Batch>>(
    training: Training,
    task: impl Fn(&mut Generator) -> T,
    (train, valid): (D, D),
    data: &str,
) -> Result<(), Box<dyn Error>> {
    let Training { recipe, seed, checkpoint, out, .. } = training;
    let steps = match (training.steps, training.minutes) {
        (Some(steps), _) => steps,
        // Measured with a network of its own: that which is trained depends on the seed alone.
        (None, Some(minutes)) => {
            steps_in(minutes, recipe.batch, &task(&mut Generator::manual_seed(0)), &train)
        }
        (None, None) => recipe.steps,
    };
    let mut rng = Generator::manual_seed(seed);
    let task = task(&mut rng);
    let options = LoaderOptions { batch_size: recipe.batch, last: Last::Drop, ..LoaderOptions::default() };
    let loaders = DataLoaders::new(train, valid, options);
    let per_epoch = loaders.train.len();
    let epochs = steps.div_ceil(per_epoch);
    let steps = epochs * per_epoch;
    let parameters = parameter_count(task.model());
    println!("{}: {parameters} parameters, {steps} steps of {} images", recipe.name, recipe.batch);
    let optimizer = Optimizer::new(task.model(), AdamW { lr: recipe.lr as f32, ..AdamW::default() });
    let mut learner = Learner::new(recipe.name, task, optimizer, rng);
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
        ("data", data.to_owned()),
        ("validation loss", format!("{loss:.5}")),
    ];
    let metadata = facts.map(|(key, value)| (key.to_owned(), value)).into();
    let floats = |(name, value)| match value {
        Value::F32(array) => Some((name, array)),
        _ => None,
    };
    let averages = ema.state_dict(learner.task.model());
    write_half(&out, averages.into_iter().filter_map(floats), &metadata)?;
    println!("weights saved to {}", out.display());
    Ok(())
}

/// The network in a file that `train` saved.
fn open(path: &Path) -> Result<(&'static Recipe, Trained), Box<dyn Error>> {
    let (state, metadata) = load(path)?;
    let name = metadata.get("recipe").ok_or_else(|| {
        format!("{}: no model of this command, since its metadata name no recipe", path.display())
    })?;
    let recipe = recipe(name).map_err(|error| format!("{}: {error}", path.display()))?;
    let trained = Trained::new(&mut Generator::manual_seed(0), &recipe.net);
    load_state_dict(trained.model(), &state).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((recipe, trained))
}

/// The class of each picture.
fn classes(wanted: &Wanted) -> Result<Vec<i64>, String> {
    match wanted.class.as_deref().unwrap_or("all") {
        "all" => Ok((0..wanted.n).map(|i| (i % CLASSES) as i64).collect()),
        text => match text.parse() {
            Ok(class) if (0..CLASSES as i64).contains(&class) => Ok(vec![class; wanted.n]),
            _ => Err(format!("--class {text}: classes are 0 to {}, or `all`", CLASSES - 1)),
        },
    }
}

/// How many pictures are drawn at a time: more need more memory, and take as long.
const AT_A_TIME: usize = 100;

/// Draws with a model that knows classes.
fn draw_classes(task: &DenoiseClass, wanted: &Wanted, classes: &[i64]) -> Result<Tensor, Box<dyn Error>> {
    let steps = wanted.steps.unwrap_or(18);
    let sampler: Sampler = wanted.sampler.as_deref().unwrap_or("dpmpp_2m").parse()?;
    let range = wanted.guidance_range.unwrap_or(Guidance::default().range);
    let guidance = Guidance { scale: wanted.guidance.unwrap_or(2.0), range, ..Guidance::default() };
    let sigmas = karras(steps, 0.02, 40.0, 7.0);
    let mut rng = Generator::manual_seed(wanted.seed);
    let mut draw = |classes| task.draw((classes, [1, 28, 28]), &guidance, (sampler, &sigmas), &mut rng);
    let parts: Vec<Tensor> = classes.chunks(AT_A_TIME).map(&mut draw).collect();
    Ok(cat(&parts.iter().collect::<Vec<_>>(), 0))
}

fn check(wanted: &Wanted, trained: &Trained) -> Result<(), String> {
    if wanted.n == 0 || !(1..=1000).contains(&wanted.steps.unwrap_or(1)) {
        return Err("--n is at least 1, --steps 1 to 1000".into());
    }
    if !wanted.guidance.unwrap_or(1.0).is_finite() || !(0.0..=1.0).contains(&wanted.eta.unwrap_or(0.0)) {
        return Err("--guidance is a finite number, --eta from 0 to 1".into());
    }
    let of_classes = [
        ("class", wanted.class.is_some()),
        ("guidance", wanted.guidance.is_some()),
        ("guidance-range", wanted.guidance_range.is_some()),
        ("sampler", wanted.sampler.is_some()),
    ];
    let strange = match trained {
        Trained::Noise(_) => of_classes.into_iter().find(|(_, given)| *given),
        Trained::Classes(_) => [("eta", wanted.eta.is_some())].into_iter().find(|(_, given)| *given),
    };
    match strange {
        Some(("eta", _)) => {
            Err("--eta is for models that don't know classes; choose a --sampler here".into())
        }
        Some((name, _)) => Err(format!("--{name} is for models that know classes, such as `digits`")),
        None => Ok(()),
    }
}

fn sample(wanted: &Wanted) -> Result<(), Box<dyn Error>> {
    let (recipe, trained) = open(&wanted.model)?;
    check(wanted, &trained)?;
    let labels = classes(wanted)?;
    let folder = wanted.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(format!("--out {}: there is no such folder", wanted.out.display()).into());
    }
    let start = Instant::now();
    let images = match &trained {
        Trained::Noise(task) => {
            let (levels, eta) =
                (even_levels(&schedule(), wanted.steps.unwrap_or(100)), wanted.eta.unwrap_or(1.0));
            draw(&task.model, &[wanted.n, 1, 28, 28], &levels, eta, &mut Generator::manual_seed(wanted.seed))
        }
        Trained::Classes(task) => draw_classes(task, wanted, &labels)?,
    };
    println!("{} pictures in {:.1} s", wanted.n, start.elapsed().as_secs_f64());
    if wanted.out.extension().is_some_and(|extension| extension == "safetensors") {
        let mut state: BTreeMap<String, Value> = [("images".to_owned(), Value::F32(images.data))].into();
        if let Trained::Classes(_) = trained {
            state.insert("labels".to_owned(), Value::I64(Array::new(labels, &[wanted.n])));
        }
        return Ok(save(&wanted.out, &state, &Metadata::default())?);
    }
    let pictures = elements(&images.data).chunks(784).map(|pixels| ("", pixels.to_vec()));
    let columns = Some(wanted.n.min(if wanted.n.is_multiple_of(10) { 10 } else { 16 }));
    let look = Look { columns, range: Some((-1.0, 1.0)), ..Look::default() };
    let title = format!("Drawn by the model {}", recipe.name);
    Ok(show_images(&title, pictures, (28, 28), look).save(&wanted.out)?)
}

fn main() -> ExitCode {
    minai::kernels::memory::keep_freed_memory();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    match Arguments::parse().command {
        Command::List => {
            for Recipe { name, text, steps, batch, .. } in &RECIPES {
                println!("{name:10} {text}; about {steps} steps of {batch} images");
            }
            Ok(())
        }
        Command::Train { recipe: name, steps, minutes, seed, checkpoint, out } => {
            let recipe = recipe(&name)?;
            if steps == Some(0) || minutes.is_some_and(|minutes| !(minutes > 0.0 && minutes.is_finite())) {
                return Err("--steps and --minutes are above 0".into());
            }
            train(Training { recipe, steps, minutes, seed, checkpoint, out })
        }
        Command::Sample(wanted) => sample(&wanted),
    }
}
