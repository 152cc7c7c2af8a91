//! Training by a recipe.

use crate::recipes::{CLASSES, Net, Recipe, Source, Usual, class_task, noise_task, schedule, upscale_task};
use minai::diffusion::NoisyImages;
use minai::emoji::emoji;
use minai::guidance::ClassImages;
use minai::io::safetensors::write_half;
use minai::karras::{ImagesAtLevels, LogNormal};
use minai::nn::parameter_count;
use minai::prelude::*;
use minai::state::Value;
use minai::super_resolution::Details;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

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

/// What fixes a training, but for its seed.
#[derive(Clone, Copy)]
pub struct Plan {
    pub name: &'static str,
    pub steps: usize,
    pub batch: usize,
    pub lr: f64,
    /// The decay of the moving averages of the weights.
    pub ema: f64,
}

impl Plan {
    fn of(recipe: &Recipe) -> Self {
        Plan { name: recipe.name, steps: recipe.steps, batch: recipe.batch, lr: recipe.lr, ema: 0.995 }
    }
}

/// How long to train, and from which beginning.
#[derive(Clone)]
pub struct Length {
    pub steps: Option<usize>,
    pub minutes: Option<f64>,
    pub seed: u64,
    pub checkpoint: Option<PathBuf>,
}

/// How to train, and where the result goes.
pub struct Training {
    pub recipe: &'static Recipe,
    pub length: Length,
    pub out: PathBuf,
}

pub fn train(training: Training) -> Result<(), Box<dyn Error>> {
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
        Source::Emoji => return train_with_emoji(training),
    };
    println!("{text}");
    match net {
        Net::Classes => fit(training, class_task, (with_classes(&train), with_classes(&valid)), &text),
        net => fit(training, |rng| noise_task(rng, net), (noisy(&train), noisy(&valid)), &text),
    }
}

fn train_with_emoji(training: Training) -> Result<(), Box<dyn Error>> {
    let emoji = emoji()?;
    let (train, held_back) = emoji.split();
    let text = format!("{} emoji to train with, {} held back", train.len(), held_back.len());
    println!("{text}");
    let sets = (Details { emoji: emoji.clone(), indices: train }, Details { emoji, indices: held_back });
    fit(training, upscale_task, sets, &text)
}

/// What came of a training.
pub struct Learned<T: Task> {
    pub task: T,
    /// The moving averages of its weights, which are not in it.
    pub ema: Ema,
    pub steps: usize,
    /// Training and validation loss of each epoch.
    pub losses: Vec<(f32, f32)>,
    /// Of this run: less than all where it went on from a checkpoint.
    pub seconds: f64,
}

pub fn learn<T: Task, D: Dataset<Batch = T::Batch>>(
    plan: Plan,
    length: Length,
    task: impl Fn(&mut Generator) -> T,
    (train, valid): (D, D),
) -> Result<Learned<T>, Box<dyn Error>> {
    let Length { steps, minutes, seed, checkpoint } = length;
    let steps = match (steps, minutes) {
        (Some(steps), _) => steps,
        // Measured with a network of its own: that which is trained depends on the seed alone.
        (None, Some(minutes)) => steps_in(minutes, plan.batch, &task(&mut Generator::manual_seed(0)), &train),
        (None, None) => plan.steps,
    };
    let mut rng = Generator::manual_seed(seed);
    let task = task(&mut rng);
    let options = LoaderOptions { batch_size: plan.batch, last: Last::Drop, ..LoaderOptions::default() };
    let loaders = DataLoaders::new(train, valid, options);
    let per_epoch = loaders.train.len();
    if per_epoch == 0 {
        return Err(format!("there are fewer pictures than {}, a batch", plan.batch).into());
    }
    let epochs = steps.div_ceil(per_epoch);
    let steps = epochs * per_epoch;
    let parameters = parameter_count(task.model());
    println!("{}: {parameters} parameters, {steps} steps of {} images", plan.name, plan.batch);
    let optimizer = Optimizer::new(task.model(), AdamW { lr: plan.lr as f32, ..AdamW::default() });
    let mut learner = Learner::new(plan.name, task, optimizer, rng);
    if let Some(path) = checkpoint {
        learner.checkpoint = Some(Checkpoint { path: path.clone(), every: Some(100) });
        if path.exists() {
            learner.resume(&path)?;
            println!("going on from {}", path.display());
        }
    }
    let (mut ema, mut metrics) = (Ema::new(plan.ema), Metrics::new());
    let start = Instant::now();
    learner.fit(
        epochs,
        &loaders,
        (OneCycle::new(plan.lr), ClipNorm::new(1.0), &mut ema, &mut metrics, Progress::new()),
    )?;
    if learner.interrupted {
        return Err("interrupted; the same command goes on from the checkpoint, if there is one".into());
    }
    let seconds = start.elapsed().as_secs_f64();
    println!("{steps} steps in {seconds:.0} s");
    let losses = metrics.rows.iter().map(|row| (row.train[0], row.valid[0])).collect();
    Ok(Learned { task: learner.task, ema, steps, losses, seconds })
}

fn fit<T: Task, D: Dataset<Batch = T::Batch>>(
    training: Training,
    task: impl Fn(&mut Generator) -> T,
    sets: (D, D),
    data: &str,
) -> Result<(), Box<dyn Error>> {
    let Training { recipe, length, out } = training;
    let seed = length.seed;
    let Learned { task, mut ema, steps, losses, .. } = learn(Plan::of(recipe), length, task, sets)?;
    let loss = losses.last().map_or(f32::NAN, |(_, valid)| *valid);
    let facts = [
        ("recipe", recipe.name.to_owned()),
        ("steps", steps.to_string()),
        ("batch", recipe.batch.to_string()),
        ("seed", seed.to_string()),
        ("data", data.to_owned()),
        ("validation loss", format!("{loss:.5}")),
    ];
    let usual = matches!(recipe.net, Net::Classes).then(|| Usual::by(recipe).facts());
    let facts = facts.into_iter().chain(usual.into_iter().flatten());
    let metadata = facts.map(|(key, value)| (key.to_owned(), value)).collect();
    let floats = |(name, value)| match value {
        Value::F32(array) => Some((name, array)),
        _ => None,
    };
    let averages = ema.state_dict(task.model());
    write_half(&out, averages.into_iter().filter_map(floats), &metadata)?;
    println!("weights saved to {}", out.display());
    Ok(())
}
