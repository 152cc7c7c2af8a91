//! Trains the course's small diffusion models, with checkpoints from which a killed training goes on bit for bit, and
//! draws with them. With `MINAI_FULL=1` it trains on all of MNIST, as the models in `data/models` were; without, on the
//! sample that comes with the course.
//!
//! `MINAI_FULL=1 cargo run --release -p minai --example diffusion -- train plain --checkpoint c.safetensors --out plain.safetensors`
//!
//! `cargo run --release -p minai --example diffusion -- sample --model data/models/digits.safetensors --class 7 --out seven.png`

mod captions;
mod captions_score;
mod recipes;
mod sample;
mod score;
mod train;

use captions_score::{Exam, exam};
use clap::{Parser, Subcommand};
use recipes::{RECIPES, Recipe, recipe};
use sample::{Wanted, sample};
use score::{Heap, score};
use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use train::{Length, Plan, Training, train};

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
        /// For the three parts of `emoji-sd`: a folder of your own pictures with captions, in place of the emoji.
        #[arg(long)]
        data: Option<PathBuf>,
        /// Where to save a checkpoint every 100 steps; if there is one, the training goes on from it.
        #[arg(long)]
        checkpoint: Option<PathBuf>,
        /// Where to save the weights, in 16 bits: a file, or for the three parts of `emoji-sd` its folder.
        #[arg(long)]
        out: PathBuf,
    },
    /// Draws with a trained model.
    Sample(Wanted),
    /// Scores drawings: read as the class that was asked for, FID, precision and recall, and whether they are copies.
    Score(Heap),
    /// Scores a model of emoji: whether pictures of captions that it has not seen, and of some that it has, are nearest to
    /// the true ones.
    ScoreEmoji(Exam),
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
            for (Plan { name, steps, batch, .. }, text) in captions::PLANS {
                println!("{name:10} {text}; about {steps} steps of {batch} images");
            }
            Ok(())
        }
        Command::Train { recipe: name, steps, minutes, seed, data, checkpoint, out } => {
            if steps == Some(0) || minutes.is_some_and(|minutes| !(minutes > 0.0 && minutes.is_finite())) {
                return Err("--steps and --minutes are above 0".into());
            }
            let length = Length { steps, minutes, seed, checkpoint };
            match captions::Part::named(&name) {
                Some(part) => captions::train(part, length, data.as_deref(), &out),
                None if data.is_some() => {
                    Err(format!("{name} is trained with the course's data: --data is for emoji-vae, emoji-clip and emoji-sd").into())
                }
                None => train(Training { recipe: recipe(&name)?, length, out }),
            }
        }
        Command::Sample(wanted) => sample(&wanted),
        Command::Score(heap) => score(&heap),
        Command::ScoreEmoji(wanted) => exam(&wanted),
    }
}
