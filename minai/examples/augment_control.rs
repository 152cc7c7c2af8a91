//! Lesson 15's control: the same small network with and without augmentation on the sample of Fashion-MNIST, three seeds
//! each. All else is equal. The curves go to a file, which is written again after each training.
//!
//! `MINAI_THREADS=1 cargo run --release -p minai --example augment_control -- --out data/runs/augment_control.json`

#[path = "support/machine.rs"]
mod machine;

use clap::Parser;
use machine::machine;
use minai::augment::{Augmented, RandomCrop, RandomFlip};
use minai::datasets::{Fashion, KNOWN_SPLITS, load_fashion};
use minai::prelude::*;
use minai::resnet::ConvNorm;
use serde_json::{Value, json};
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

/// Trains with and without augmentation.
#[derive(Parser)]
struct Arguments {
    /// How often each picture is seen.
    #[arg(long, default_value_t = 30)]
    epochs: usize,
    /// The seeds: each gives a training with and one without augmentation.
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    seeds: Vec<u64>,
    /// The folder of the sample.
    #[arg(long, default_value = "data/fashion-mnist-sample")]
    data: PathBuf,
    /// Where the curves go.
    #[arg(long)]
    out: PathBuf,
}

/// Three convolutions that halve the image, (16, 14, 14), (32, 7, 7), (64, 4, 4), and a linear layer.
fn network(rng: &mut Generator) -> Sequential {
    let convolutions = [1, 16, 32, 64];
    let pairs = convolutions.windows(2);
    let net = pairs.fold(Sequential::new(), |net, pair| net.add(ConvNorm::new(rng, pair[0], pair[1], 2)));
    net.add(Flatten).add(Linear::new(rng, 64 * 4 * 4, 10))
}

/// Trains once; loss and accuracy after each epoch, on the pictures as they were shown in training and on the others.
fn run(fashion: &Fashion, augment: bool, seed: u64, epochs: usize) -> Result<Value, Box<dyn Error>> {
    let background = fashion.train.images.iter().copied().fold(f32::INFINITY, f32::min);
    let mut images = Augmented::new(fashion.train.clone());
    if augment {
        images = images.then(RandomCrop { padding: 1, fill: background }).then(RandomFlip);
    }
    let loaders = DataLoaders::new(images, fashion.test.clone(), LoaderOptions::default());
    let mut rng = Generator::manual_seed(seed);
    let model = network(&mut rng);
    let optimizer = Optimizer::new(&model, AdamW::default());
    let mut learner = Learner::new("control", Classifier { model }, optimizer, rng);
    let mut metrics = Metrics::new().add("accuracy", |scores, (_, y)| accuracy(scores, y));
    let start = Instant::now();
    learner.fit(epochs, &loaders, (OneCycle::new(1e-2), &mut metrics))?;
    let curve = |value: fn(&minai::callbacks::Row) -> f32| metrics.rows.iter().map(value).collect::<Vec<_>>();
    Ok(json!({
        "augment": augment,
        "seed": seed,
        "steps": epochs * loaders.train.len(),
        "seconds": start.elapsed().as_secs_f64().round(),
        "train_loss": curve(|row| row.train[0]),
        "train_accuracy": curve(|row| row.train[1]),
        "valid_loss": curve(|row| row.valid[0]),
        "valid_accuracy": curve(|row| row.valid[1]),
    }))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let fashion = load_fashion(&arguments.data, &KNOWN_SPLITS)?.normalized();
    println!("{fashion}");
    let threads = std::env::var("MINAI_THREADS").unwrap_or("all cores".to_owned());
    let mut runs = Vec::new();
    for &seed in &arguments.seeds {
        for augment in [false, true] {
            runs.push(run(&fashion, augment, seed, arguments.epochs)?);
            let all = json!({
                "data": fashion.to_string(), "machine": machine(), "threads": threads,
                "epochs": arguments.epochs, "runs": runs,
            });
            std::fs::write(&arguments.out, serde_json::to_string(&all)? + "\n")?;
        }
    }
    Ok(())
}
