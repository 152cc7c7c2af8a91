//! Trains a classifier of Fashion-MNIST, with checkpoints from which a killed training goes on bit for bit.
//!
//! `cargo run --release -p minai --example train_fashion -- --model resnet --epochs 10 --augment --checkpoint c.safetensors --resume`

use clap::{Parser, ValueEnum};
use minai::augment::{Augmented, RandomCrop, RandomFlip};
use minai::datasets::{Fashion, KNOWN_SPLITS, load_fashion};
use minai::ensemble::{View, probabilities};
use minai::nn::parameter_count;
use minai::prelude::*;
use minai::resnet::resnet;
use std::error::Error;
use std::path::PathBuf;

/// Trains a classifier of Fashion-MNIST.
#[derive(Parser)]
struct Arguments {
    /// What is trained.
    #[arg(long, value_enum, default_value = "resnet")]
    model: Model,
    /// How often each training image is seen.
    #[arg(long, default_value_t = 5)]
    epochs: usize,
    /// The highest learning rate of the one-cycle schedule.
    #[arg(long, default_value_t = 0.01)]
    lr: f64,
    /// First weights, order and augmentations come from this number.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Images in a batch.
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// Moves each image by up to a pixel and mirrors half of them.
    #[arg(long)]
    augment: bool,
    /// Where to save a checkpoint after each epoch.
    #[arg(long)]
    checkpoint: Option<PathBuf>,
    /// Save the checkpoint also after each that many batches.
    #[arg(long, requires = "checkpoint")]
    every: Option<usize>,
    /// Go on from the checkpoint, if there is one.
    #[arg(long, requires = "checkpoint")]
    resume: bool,
    /// Where to save the weights at the end, as safetensors.
    #[arg(long)]
    save: Option<PathBuf>,
    /// The folder with the four files; by default the sample, or with MINAI_FULL=1 the full data that is found.
    #[arg(long)]
    data: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// 784-50-10, as in lesson 6.
    Mlp,
    /// Five convolutions with stride 2 and 4 to 16 channels, as in lesson 8.
    Cnn,
    /// Six residual blocks with 8 to 256 channels, as in lesson 14.
    Resnet,
}

fn build(model: Model, rng: &mut Generator) -> Sequential {
    match model {
        Model::Mlp => Sequential::new()
            .add(Flatten)
            .add(Linear::new(rng, 784, 50))
            .add(Relu)
            .add(Linear::new(rng, 50, 10)),
        Model::Cnn => {
            let options = ConvOptions { stride: 2, padding: 1, ..ConvOptions::default() };
            let widths = [1, 4, 8, 16, 16];
            let hidden = widths.windows(2).fold(Sequential::new(), |net, pair| {
                net.add(Conv2d::new(rng, pair[0], pair[1], 3, options)).add(Relu)
            });
            hidden.add(Conv2d::new(rng, 16, 10, 3, options)).add(Flatten)
        }
        Model::Resnet => resnet(rng, 1, &[8, 16, 32, 64, 128, 256], 10),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    minai::kernels::memory::keep_freed_memory();
    let fashion = match &arguments.data {
        Some(folder) => load_fashion(folder, &KNOWN_SPLITS)?,
        None => fashion_mnist()?,
    };
    println!("{fashion}");
    let Fashion { train, test, split } = fashion.normalized();

    let mut rng = Generator::manual_seed(arguments.seed);
    let model = build(arguments.model, &mut rng);
    println!("{} parameters", parameter_count(&model));
    let optimizer = Optimizer::new(&model, AdamW::default());
    let mut learner = Learner::new("fashion", Classifier { model }, optimizer, rng);
    if let Some(path) = &arguments.checkpoint {
        learner.checkpoint = Some(Checkpoint { path: path.clone(), every: arguments.every });
        if arguments.resume && path.exists() {
            learner.resume(path)?;
            println!("going on from {}", path.display());
        }
    }

    let options = LoaderOptions { batch_size: arguments.batch, ..LoaderOptions::default() };
    let background = train.images.iter().copied().fold(f32::INFINITY, f32::min);
    let mut images = Augmented::new(train);
    if arguments.augment {
        images = images.then(RandomCrop { padding: 1, fill: background }).then(RandomFlip);
    }
    let loaders = DataLoaders::new(images, test, options);

    let metrics = Metrics::new().add("accuracy", |scores, (_, y)| accuracy(scores, y));
    learner.fit(arguments.epochs, &loaders, (OneCycle::new(arguments.lr), metrics, Progress::new()))?;

    let report = |views: &[View]| {
        let (answers, classes) = probabilities(&learner.task.model, &loaders.valid, views);
        accuracy(&answers.into(), &classes)
    };
    println!("{}: accuracy {:.4}", split.name, report(&[View::default()]));
    if arguments.augment {
        println!("with the mirror image: {:.4}", report(&View::mirror()));
        println!("with ten views: {:.4}", report(&View::moved(background)));
    }
    if let Some(path) = &arguments.save {
        save(path, &state_dict(&learner.task.model), &Metadata::default())?;
        println!("weights saved to {}", path.display());
    }
    Ok(())
}
