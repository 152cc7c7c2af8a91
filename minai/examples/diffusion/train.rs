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

/// How to train, and where the result goes.
pub struct Training {
    pub recipe: &'static Recipe,
    pub steps: Option<usize>,
    pub minutes: Option<f64>,
    pub seed: u64,
    pub checkpoint: Option<PathBuf>,
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
    let usual = matches!(recipe.net, Net::Classes).then(|| Usual::by(recipe).facts());
    let facts = facts.into_iter().chain(usual.into_iter().flatten());
    let metadata = facts.map(|(key, value)| (key.to_owned(), value)).collect();
    let floats = |(name, value)| match value {
        Value::F32(array) => Some((name, array)),
        _ => None,
    };
    let averages = ema.state_dict(learner.task.model());
    write_half(&out, averages.into_iter().filter_map(floats), &metadata)?;
    println!("weights saved to {}", out.display());
    Ok(())
}
