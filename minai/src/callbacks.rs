// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 24202d34c0a83361
//! Callbacks for every day: metrics, a recorder, a learning-rate finder, a single batch.

use crate::learner::{Callback, Flow, Learner, Task};

// %% notebooks/10_learner.ipynb cb-metrics
use minai::array::Array;
use minai::nn::Mode;
use minai::state::{StateDict, Value};
use minai::tensor::{Tensor, elements};
use std::time::Instant;

/// A number that says how good predictions for a batch are.
type Metric<T> = Box<dyn Fn(&Tensor, &<T as Task>::Batch) -> f32>;

/// The means over one epoch: the loss first, then the metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Over the training batches, while the model changed.
    pub train: Vec<f32>,
    /// Over the validation set, at the end of the epoch.
    pub valid: Vec<f32>,
}

// %% notebooks/10_learner.ipynb cb-means
/// Sums over the examples of the set at hand, whatever the task.
struct Means {
    names: Vec<String>,
    /// Of each value times its batch's examples; the last sum is their number.
    sums: Vec<f64>,
    train: Vec<f32>,
    start: Instant,
}

impl Means {
    fn new() -> Self {
        let names = vec!["loss".to_owned()];
        Means { names, sums: Vec::new(), train: Vec::new(), start: Instant::now() }
    }

    fn begin_epoch(&mut self) {
        (self.start, self.train) = (Instant::now(), Vec::new());
        self.clear();
    }

    fn clear(&mut self) {
        self.sums = vec![0.0; self.names.len() + 1];
    }
}

// %% notebooks/10_learner.ipynb cb-means-add
/// The means that sums over a set give.
fn means(sums: &[f64]) -> Vec<f32> {
    let (n, sums) = sums.split_last().expect("cleared before");
    sums.iter().map(|sum| (sum / n) as f32).collect()
}

/// Adds a batch of `n` examples.
fn add_batch(sets: &mut Means, mode: Mode, values: &[f32], n: usize) {
    if mode == Mode::Eval && sets.train.is_empty() {
        sets.train = means(&sets.sums);
        sets.clear();
    }
    let products = values.iter().map(|&value| f64::from(value) * n as f64).chain([n as f64]);
    sets.sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
}

// %% notebooks/10_learner.ipynb cb-metrics-callback
/// `valid loss 0.3456 accuracy 0.8765`
fn described(set: &str, names: &[String], values: &[f32]) -> String {
    let values = names.iter().zip(values).map(|(name, value)| format!(" {name} {value:.4}"));
    format!("{set}{}", values.collect::<String>())
}

impl Means {
    /// The row of an epoch that is done, also printed and written down in `scores`.
    fn row(&mut self, epoch: usize, epochs: usize, scores: &mut Vec<(String, f32)>) -> Row {
        let row = Row { train: std::mem::take(&mut self.train), valid: means(&self.sums) };
        let sets = [("train", &row.train), ("valid", &row.valid)];
        let [train, valid] = sets.map(|(set, values)| described(set, &self.names, values));
        println!("epoch {epoch}/{epochs}  {train}  {valid}  {:.1} s", self.start.elapsed().as_secs_f64());
        scores.clear();
        for (set, values) in sets {
            let named = |(name, &value): (&String, &f32)| (format!("{set} {name}"), value);
            scores.extend(self.names.iter().zip(values).map(named));
        }
        row
    }
}

// %% notebooks/10_learner.ipynb cb-means-state
/// What a checkpoint keeps.
fn means_state(sums: &[f64], rows: &[Row]) -> StateDict {
    let sums: Vec<i64> = sums.iter().map(|sum| sum.to_bits() as i64).collect();
    let rows: Vec<f32> = rows.iter().flat_map(|row| row.train.iter().chain(&row.valid)).copied().collect();
    StateDict::from([
        ("sums".to_owned(), Value::I64(Array::new(sums.clone(), &[sums.len()]))),
        ("rows".to_owned(), Value::F32(Array::new(rows.clone(), &[rows.len()]))),
    ])
}

/// Takes that back, and gives the rows.
fn load_means(means: &mut Means, state: &StateDict) -> Vec<Row> {
    let (Some(Value::I64(sums)), Some(Value::F32(rows))) = (state.get("sums"), state.get("rows")) else {
        return Vec::new();
    };
    means.sums = elements(sums).iter().map(|&bits| f64::from_bits(bits as u64)).collect();
    let width = means.names.len();
    let row = |row: &[f32]| Row { train: row[..width].to_vec(), valid: row[width..].to_vec() };
    elements(rows).chunks_exact(2 * width).map(row).collect()
}

// %% notebooks/10_learner.ipynb cb-metrics-struct
/// Means of the loss and of metrics over each epoch's training and validation; prints a line for each epoch.
pub struct Metrics<T: Task> {
    metrics: Vec<Metric<T>>,
    means: Means,
    /// A row for each epoch.
    pub rows: Vec<Row>,
}

impl<T: Task> Metrics<T> {
    /// The loss only.
    pub fn new() -> Self {
        Metrics { metrics: Vec::new(), means: Means::new(), rows: Vec::new() }
    }

    /// One metric more: `Metrics::new().add("accuracy", |scores, (_, y)| accuracy(scores, y))`.
    pub fn add(mut self, name: &str, metric: impl Fn(&Tensor, &T::Batch) -> f32 + 'static) -> Self {
        self.means.names.push(name.to_owned());
        self.metrics.push(Box::new(metric));
        self
    }
}

// %% notebooks/10_learner.ipynb cb-measure
/// Measures the batch at hand.
fn measure<T: Task>(metrics: &mut Metrics<T>, learner: &Learner<T>) {
    if let (Some(batch), Some(predictions)) = (&learner.batch, &learner.predictions) {
        let mut values = vec![learner.loss_value()];
        values.extend(metrics.metrics.iter().map(|metric| metric(predictions, batch)));
        add_batch(&mut metrics.means, learner.mode, &values, learner.task.len(batch));
    }
}

impl<T: Task> Callback<T> for Metrics<T> {
    fn before_epoch(&mut self, _: &mut Learner<T>) -> Flow {
        self.means.begin_epoch();
        Flow::Continue
    }

    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        measure(self, learner);
        Flow::Continue
    }

    fn after_epoch(&mut self, learner: &mut Learner<T>) -> Flow {
        self.rows.push(self.means.row(learner.epoch + 1, learner.epochs, &mut learner.scores));
        Flow::Continue
    }

    fn state(&self) -> StateDict {
        means_state(&self.means.sums, &self.rows)
    }

    fn load_state(&mut self, state: &StateDict) {
        self.rows = load_means(&mut self.means, state);
    }
}

impl<T: Task> Default for Metrics<T> {
    fn default() -> Self {
        Self::new()
    }
}

// %% notebooks/10_learner.ipynb cb-single
/// Ends training behind the first batch: enough to see whether shapes fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleBatch;

impl<T: Task> Callback<T> for SingleBatch {
    fn after_batch(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Stop
    }
}

// %% notebooks/10_learner.ipynb cb-recorder
/// Writes down the loss, the learning rate and the momentum of each training step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recorder {
    /// The loss of each batch.
    pub losses: Vec<f32>,
    /// The learning rate with which each step was made.
    pub rates: Vec<f32>,
    /// The momentum with which each step was made; empty if the rule has none.
    pub momenta: Vec<f32>,
}

/// What a checkpoint keeps of a recorder.
fn recorder_state(recorder: &Recorder) -> StateDict {
    let lists = [("losses", &recorder.losses), ("rates", &recorder.rates), ("momenta", &recorder.momenta)];
    let value = |list: &Vec<f32>| Value::F32(Array::new(list.clone(), &[list.len()]));
    lists.into_iter().map(|(name, list)| (name.to_owned(), value(list))).collect()
}

// %% notebooks/10_learner.ipynb cb-recorder-callback
fn recorder_from(state: &StateDict) -> Recorder {
    let list = |name: &str| match state.get(name) {
        Some(Value::F32(list)) => elements(list).to_vec(),
        _ => Vec::new(),
    };
    Recorder { losses: list("losses"), rates: list("rates"), momenta: list("momenta") }
}

impl<T: Task> Callback<T> for Recorder {
    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        if learner.mode == Mode::Train {
            self.losses.push(learner.loss_value());
            self.rates.push(learner.optimizer.rule.lr());
            self.momenta.extend(learner.optimizer.rule.momentum());
        }
        Flow::Continue
    }

    fn state(&self) -> StateDict {
        recorder_state(self)
    }

    fn load_state(&mut self, state: &StateDict) {
        *self = recorder_from(state);
    }
}

// %% notebooks/10_learner.ipynb cb-finder
/// Tries out learning rates: raises the rate from batch to batch, until the loss is three times its best
/// (Smith 2015, "Cyclical learning rates"). The model is not fit for use afterwards.
#[derive(Clone, Debug)]
pub struct RateFinder {
    /// What the rate is multiplied by after each batch; 1.3 by default.
    pub factor: f32,
    /// The rates so far.
    pub rates: Vec<f32>,
    /// The loss with each of them.
    pub losses: Vec<f32>,
}

impl Default for RateFinder {
    fn default() -> Self {
        RateFinder { factor: 1.3, rates: Vec::new(), losses: Vec::new() }
    }
}

impl<T: Task> Callback<T> for RateFinder {
    fn after_loss(&mut self, learner: &mut Learner<T>) -> Flow {
        let (loss, best) = (learner.loss_value(), self.losses.iter().copied().fold(f32::INFINITY, f32::min));
        if learner.mode == Mode::Eval || loss.is_nan() || loss > 3.0 * best {
            return Flow::Stop;
        }
        self.rates.push(learner.optimizer.rule.lr());
        self.losses.push(loss);
        Flow::Continue
    }

    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        let lr = learner.optimizer.rule.lr();
        learner.optimizer.rule.set_lr(lr * self.factor);
        Flow::Continue
    }
}
