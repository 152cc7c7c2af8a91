// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 64c8d409745f5d95
//! The training loop in its plainest form, and how good a classifier is.

use crate::loader::{Batches, DataLoader, Dataset, Plan};
use crate::loss::cross_entropy;
use crate::nn::{Layer, Pass};
use crate::optimizer::Optimizer;

// %% notebooks/06_training.ipynb fi-accuracy
use minai::array::Array;
use minai::tensor::Tensor;

/// The fraction of rows whose highest score stands at the target; NaN if there are none. `scores`: (n, classes),
/// `targets`: (n).
///
/// # Panics
/// If the shapes are not these.
#[track_caller]
pub fn accuracy(scores: &Tensor, targets: &Array<i64>) -> f32 {
    let (n, shape) = (targets.len(), scores.shape());
    let fits = shape.first() == Some(&n) && (shape.len() == 2 || n == 0);
    assert!(fits, "accuracy: scores {shape:?} for {n} targets");
    if n == 0 {
        return f32::NAN;
    }
    let right = scores.argmax(1).iter().zip(targets.iter()).filter(|(guess, target)| guess == target).count();
    right as f32 / n as f32
}

// %% notebooks/06_training.ipynb fi-evaluate
/// Batches of inputs and the class of each.
pub type Classes = (Array, Array<i64>);

/// How a classifier did on a whole data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// The mean cross-entropy.
    pub loss: f32,
    /// The share of right answers.
    pub accuracy: f32,
}

/// The mean loss and accuracy over the loader's examples, without a graph.
pub fn evaluate<D: Dataset<Batch = Classes>>(model: &dyn Layer, loader: &DataLoader<D>) -> Score {
    let (mut loss, mut right, mut n) = (0.0, 0.0, 0.0);
    let in_order = Plan { base: 0, order: None };
    for (x, y) in loader.batches(&in_order, 0) {
        let (scores, rows) = (model.forward(&x.into(), &mut Pass::eval()), y.len() as f64);
        loss += f64::from(cross_entropy(&scores, &y).item()) * rows;
        right += f64::from(accuracy(&scores, &y)) * rows;
        n += rows;
    }
    Score { loss: (loss / n) as f32, accuracy: (right / n) as f32 }
}

// %% notebooks/06_training.ipynb fi-train-on
/// A step of the optimiser for each batch.
fn train_on(model: &dyn Layer, optimizer: &mut Optimizer, batches: Batches<Classes>, pass: &mut Pass) {
    for (x, y) in batches {
        cross_entropy(&model.forward(&x.into(), pass), &y).backward();
        optimizer.step();
        optimizer.zero_grad();
    }
}

// %% notebooks/06_training.ipynb fi-fit
use minai::generator::Generator;
use minai::io::interrupt;

/// Trains a classifier for some epochs, prints a line for each, and returns what the validation set said after each.
/// Interrupted, it ends after the step at hand.
pub fn fit<D: Dataset<Batch = Classes>>(
    epochs: usize,
    model: &dyn Layer,
    optimizer: &mut Optimizer,
    (train, valid): (&DataLoader<D>, &DataLoader<D>),
    rng: &mut Generator,
) -> Vec<Score> {
    let run = |epoch: usize| {
        let (start, plan) = (std::time::Instant::now(), train.plan(rng));
        train_on(model, optimizer, train.batches(&plan, 0), &mut Pass::train(plan.network()));
        (!interrupt::requested()).then(|| {
            valid.plan(rng); // PyTorch's loader draws a number for the validation set as well
            let (score, seconds) = (evaluate(model, valid), start.elapsed().as_secs_f64());
            println!("epoch {epoch}: loss {:.4}, accuracy {:.4}, {seconds:.1} s", score.loss, score.accuracy);
            score
        })
    };
    (1..=epochs).map_while(run).collect()
}
