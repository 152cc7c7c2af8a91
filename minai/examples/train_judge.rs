//! Trains the judge of lesson 19, the classifier whose features compare heaps of pictures, and saves its weights.
//! `data/models/judge.safetensors` was made on all of MNIST, and `judge-clothes.safetensors` on all of Fashion-MNIST:
//!
//! `MINAI_FULL=1 cargo run --release -p minai --example train_judge -- --out data/models/judge.safetensors`
//!
//! `MINAI_FULL=1 cargo run --release -p minai --example train_judge -- --data clothes --out data/models/judge-clothes.safetensors`

use clap::Parser;
use half::f16;
use minai::augment::{Augmented, RandomCrop};
use minai::io::safetensors::write_half;
use minai::judge::Judge;
use minai::nn::parameter_count;
use minai::prelude::*;
use minai::state::Value;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

/// Trains the classifier whose features compare heaps of pictures.
#[derive(Parser)]
struct Arguments {
    /// What it learns to read.
    #[arg(long, value_enum, default_value = "digits")]
    data: Data,
    /// How often each training image is seen.
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Images in a batch.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// The highest learning rate of the one-cycle schedule.
    #[arg(long, default_value_t = 0.003)]
    lr: f64,
    /// First weights and order come from this number.
    #[arg(long, default_value_t = 19)]
    seed: u64,
    /// Where to save the weights, in 16 bits.
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Data {
    /// MNIST.
    Digits,
    /// Fashion-MNIST.
    Clothes,
}

/// A tensor of a state with its name. The judge has nothing but such parameters.
fn floats((name, value): (String, Value)) -> Option<(String, Array)> {
    match value {
        Value::F32(array) => Some((name, array)),
        _ => None,
    }
}

/// Pixels from 0 to 1, as pixels from -1 to 1.
fn scaled(set: &Images) -> Images {
    Images::new((Tensor::from(set.images.clone()) * 2.0 - 1.0).data, set.labels.clone())
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { data, epochs, batch, lr, seed, out } = Arguments::parse();
    if epochs == 0 || batch == 0 || !(lr > 0.0 && lr.is_finite()) {
        return Err("--epochs and --batch are at least 1, --lr is above 0".into());
    }
    minai::kernels::memory::keep_freed_memory();
    let (train, valid, text, recipe) = match data {
        Data::Digits => {
            let data = mnist()?;
            let text = data.to_string();
            (data.train, data.valid, text, "judge: lesson 19, a classifier, MNIST")
        }
        Data::Clothes => {
            let data = fashion_mnist()?;
            let (train, valid) = data.train.split_at(data.train.len() * 5 / 6);
            (train, valid, data.to_string(), "judge: lesson 19, a classifier, Fashion-MNIST")
        }
    };
    println!("{text}");
    let options = LoaderOptions { batch_size: batch, last: Last::Drop, ..LoaderOptions::default() };
    // Moved by up to two pixels, so that the features hold for digits that the judge has not seen as well.
    let moved = Augmented::new(scaled(&train)).then(RandomCrop { padding: 2, fill: -1.0 });
    let loaders = DataLoaders::new(moved, scaled(&valid), options);
    let steps = epochs * loaders.train.len();
    if steps == 0 {
        return Err(format!("--batch {batch}: there are only {} training images", train.len()).into());
    }

    let mut rng = Generator::manual_seed(seed);
    let model = Judge::new(&mut rng);
    println!("{} parameters, {steps} steps of {batch} images", parameter_count(&model));
    let optimizer = Optimizer::new(&model, AdamW { lr: lr as f32, ..AdamW::default() });
    let mut learner = Learner::new("judge", Classifier { model }, optimizer, rng);
    let metrics = Metrics::new().add("accuracy", |scores, (_, y)| accuracy(scores, y));
    let start = Instant::now();
    learner.fit(epochs, &loaders, (OneCycle::new(lr), metrics))?;
    if learner.interrupted {
        return Err("interrupted; nothing was saved".into());
    }
    println!("{steps} steps in {:.0} s", start.elapsed().as_secs_f64());

    let judge = learner.task.model;
    // As they are read back: what is saved is what is scored.
    for (_, parameter) in Parts::of(&judge).parameters {
        parameter.update(|values| values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()));
    }
    let score = evaluate(&judge, &loaders.valid);
    println!("validation accuracy {:.4}", score.accuracy);
    let facts = [
        ("recipe", recipe.to_owned()),
        ("steps", steps.to_string()),
        ("batch", batch.to_string()),
        ("rate", lr.to_string()),
        ("seed", seed.to_string()),
        ("data", text),
        ("validation accuracy", format!("{:.4}", score.accuracy)),
    ];
    let metadata = facts.map(|(key, value)| (key.to_owned(), value)).into();
    write_half(&out, state_dict(&judge).into_iter().filter_map(floats), &metadata)?;
    println!("weights saved to {}", out.display());
    Ok(())
}
