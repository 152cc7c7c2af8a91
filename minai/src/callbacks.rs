// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 427e10820e26e7f0
//! Callbacks for every day: metrics, a recorder, a learning-rate finder, a single batch.

use crate::learner::{Callback, Flow, Learner, Task};

// %% notebooks/10_learner.ipynb cb-metrics
use minai::array::Array;
use minai::nn::Mode;
use minai::state::{StateDict, Value};
use minai::tensor::{Tensor, elements};
use std::time::Instant;

/// A value that says how good predictions for a batch are.
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

impl<T: Task> Default for Metrics<T> {
    fn default() -> Self {
        Self::new()
    }
}

// %% notebooks/10_learner.ipynb cb-metrics-impl
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

// %% notebooks/10_learner.ipynb cb-predictions
use minai::loader::Batches;

/// Shows predictions for all batches, without a graph.
fn each_prediction<T: Task>(
    learner: &mut Learner<T>,
    batches: Batches<T::Batch>,
    see: &mut dyn FnMut(&T, &T::Batch, Tensor),
) {
    learner.pass.mode = Mode::Eval;
    for batch in batches {
        let predictions = learner.task.predict(&batch, &mut learner.pass);
        see(&learner.task, &batch, predictions);
    }
}

// %% notebooks/10_learner.ipynb cb-validate
/// Means of the loss and of metrics over a loader: names and values.
fn validated<T: Task>(
    learner: &mut Learner<T>,
    batches: Batches<T::Batch>,
    metrics: &Metrics<T>,
) -> Vec<(String, f32)> {
    let mut sets = Means { names: metrics.means.names.clone(), ..Means::new() };
    sets.clear();
    each_prediction(learner, batches, &mut |task, batch, predictions| {
        let loss = task.loss(&predictions, batch).item();
        let values = metrics.metrics.iter().map(|metric| metric(&predictions, batch));
        let values: Vec<f32> = std::iter::once(loss).chain(values).collect();
        add_batch(&mut sets, Mode::Train, &values, task.len(batch));
    });
    let values = means(&sets.sums);
    sets.names.into_iter().zip(values).collect()
}

// %% notebooks/10_learner.ipynb cb-predict
use minai::tensor::cat;

/// Predictions that belong together, one below the other; of shape (0) if there are none.
fn stacked(batches: &[Tensor]) -> Tensor {
    match batches {
        [] => Array::new(Vec::new(), &[0]).into(),
        _ => cat(&batches.iter().collect::<Vec<_>>(), 0),
    }
}

/// Predictions (n, …) for all batches and the targets (n) that go with them.
fn predicted<X, Y: Copy, T: Task<Batch = (X, Array<Y>)>>(
    learner: &mut Learner<T>,
    batches: Batches<T::Batch>,
) -> (Tensor, Array<Y>) {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    each_prediction(learner, batches, &mut |_, (_, y), predictions| {
        rows.push(predictions);
        targets.extend(y.iter().copied());
    });
    let n = targets.len();
    (stacked(&rows), Array::new(targets, &[n]))
}

// %% notebooks/10_learner.ipynb cb-predict-learner
use minai::loader::{DataLoader, Dataset, Plan};

/// All batches of a loader, in the order of the data set.
fn in_order<D: Dataset>(loader: &DataLoader<D>) -> Batches<D::Batch> {
    loader.batches(&Plan { base: 0, order: None }, 0)
}

// %% notebooks/10_learner.ipynb cb-learner-predict
impl<T: Task> Learner<T> {
    /// The means of the loss (`loss`) and of metrics over the examples of a loader, such as that of a test set. NaN if
    /// it has none.
    pub fn validate<D>(&mut self, loader: &DataLoader<D>, metrics: &Metrics<T>) -> Vec<(String, f32)>
    where
        D: Dataset<Batch = T::Batch>,
    {
        validated(self, in_order(loader), metrics)
    }

    /// The predictions (n, …) for the examples of a loader, in the order of the data set, and their targets (n). Both are
    /// of shape (0) if it has none.
    pub fn predict<D, X, Y: Copy>(&mut self, loader: &DataLoader<D>) -> (Tensor, Array<Y>)
    where
        D: Dataset<Batch = (X, Array<Y>)>,
        T: Task<Batch = (X, Array<Y>)>,
    {
        predicted(self, in_order(loader))
    }
}

// %% notebooks/10_learner.ipynb cb-single
/// Ends training after the first batch: enough to see whether shapes fit.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleBatch;

impl<T: Task> Callback<T> for SingleBatch {
    fn after_batch(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Stop
    }
}

// %% notebooks/10_learner.ipynb cb-recorder
use std::collections::BTreeMap;
use std::fmt;

/// A value that is written down after each training step.
type Measure<T> = Box<dyn Fn(&Learner<T>) -> f32>;

/// Writes down the loss, the learning rate and the momentum of each training step, and whatever you
/// [`add`](Recorder::add).
pub struct Recorder<T: Task> {
    measures: Vec<(String, Measure<T>)>,
    /// The loss of each batch.
    pub losses: Vec<f32>,
    /// The learning rate with which each step was made.
    pub rates: Vec<f32>,
    /// The momentum with which each step was made; empty if the rule has none.
    pub momenta: Vec<f32>,
    /// What the closures gave, by the names that they were added with.
    pub values: BTreeMap<String, Vec<f32>>,
}

// %% notebooks/10_learner.ipynb cb-recorder-new
/// Nothing is written down yet.
fn blank<T: Task>(measures: Vec<(String, Measure<T>)>) -> Recorder<T> {
    let (losses, rates, momenta, values) = Default::default();
    Recorder { measures, losses, rates, momenta, values }
}

impl<T: Task> Recorder<T> {
    /// Loss, rate and momentum.
    pub fn new() -> Self {
        blank(Vec::new())
    }

    /// One value more, measured after the backward pass, when the gradients are there:
    /// `Recorder::new().add("bias", |learner| learner.task.model.bias.data().sum())`.
    pub fn add(mut self, name: &str, measure: impl Fn(&Learner<T>) -> f32 + 'static) -> Self {
        self.measures.push((name.to_owned(), Box::new(measure)));
        self
    }
}

// %% notebooks/10_learner.ipynb cb-recorder-lists
type Lists = BTreeMap<String, Vec<f32>>;

/// What a checkpoint keeps of lists.
fn lists_state(lists: &Lists) -> StateDict {
    let value = |list: &Vec<f32>| Value::F32(Array::new(list.clone(), &[list.len()]));
    lists.iter().map(|(name, list)| (name.clone(), value(list))).collect()
}

/// The way back.
fn lists_from(state: &StateDict) -> Lists {
    let list = |(name, value): (&String, &Value)| match value {
        Value::F32(list) => Some((name.clone(), elements(list).to_vec())),
        _ => None,
    };
    state.iter().filter_map(list).collect()
}

// %% notebooks/10_learner.ipynb cb-recorder-equal
/// All lists of a recorder; those of closures with `values/` before their names.
fn lists<T: Task>(recorder: &Recorder<T>) -> Lists {
    let Recorder { losses, rates, momenta, values, .. } = recorder;
    let own = [("losses", losses), ("rates", rates), ("momenta", momenta)];
    let own = own.into_iter().map(|(name, list)| (name.to_owned(), list.clone()));
    own.chain(values.iter().map(|(name, list)| (format!("values/{name}"), list.clone()))).collect()
}

/// Whether both have written down the same.
impl<T: Task> PartialEq for Recorder<T> {
    fn eq(&self, other: &Self) -> bool {
        lists(self) == lists(other)
    }
}

impl<T: Task> fmt::Debug for Recorder<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_tuple("Recorder").field(&lists(self)).finish()
    }
}

// %% notebooks/10_learner.ipynb cb-recorder-restore
/// The recorder with lists from a checkpoint.
fn restore<T: Task>(recorder: &mut Recorder<T>, mut lists: Lists) {
    let [losses, rates, momenta] =
        ["losses", "rates", "momenta"].map(|name| lists.remove(name).unwrap_or_default());
    let value = |(name, list): (String, Vec<f32>)| Some((name.strip_prefix("values/")?.to_owned(), list));
    recorder.values = lists.into_iter().filter_map(value).collect();
    (recorder.losses, recorder.rates, recorder.momenta) = (losses, rates, momenta);
}

// %% notebooks/10_learner.ipynb cb-recorder-write
/// Writes down what a step was made with.
fn write_step<T: Task>(recorder: &mut Recorder<T>, learner: &mut Learner<T>) {
    recorder.losses.push(learner.loss_value());
    recorder.rates.push(*learner.optimizer.rule.lr());
    recorder.momenta.extend(learner.optimizer.rule.momentum().copied());
}

/// Writes down what the closures measure.
fn write_measures<T: Task>(recorder: &mut Recorder<T>, learner: &Learner<T>) {
    for (name, measure) in &recorder.measures {
        recorder.values.entry(name.clone()).or_default().push(measure(learner));
    }
}

impl<T: Task> Default for Recorder<T> {
    fn default() -> Self {
        Self::new()
    }
}

// %% notebooks/10_learner.ipynb cb-recorder-callback
impl<T: Task> Callback<T> for Recorder<T> {
    fn after_backward(&mut self, learner: &mut Learner<T>) -> Flow {
        write_measures(self, learner);
        Flow::Continue
    }
    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        if learner.mode == Mode::Train {
            write_step(self, learner);
        }
        Flow::Continue
    }
    fn state(&self) -> StateDict {
        lists_state(&lists(self))
    }
    fn load_state(&mut self, state: &StateDict) {
        restore(self, lists_from(state));
    }
}

// %% notebooks/10_learner.ipynb cb-finder
/// Finds learning rates: raises the rate from batch to batch, until the loss is three times its best (Smith 2015, "Cyclical
/// learning rates"). The model is of no use afterwards.
#[derive(Clone, Debug)]
pub struct RateFinder {
    /// The first rate; 1e-5 by default.
    pub first: f32,
    /// The highest rate; 10 by default.
    pub last: f32,
    /// What the rate is multiplied by after each batch; 1.3 by default.
    pub factor: f32,
    /// The rates so far.
    pub rates: Vec<f32>,
    /// The loss with each of them.
    pub losses: Vec<f32>,
}

impl Default for RateFinder {
    fn default() -> Self {
        RateFinder { first: 1e-5, last: 10.0, factor: 1.3, rates: Vec::new(), losses: Vec::new() }
    }
}

// %% notebooks/10_learner.ipynb cb-finder-rate
/// The rate with the lowest loss.
fn lowest(finder: &RateFinder) -> Option<f32> {
    let pairs = finder.rates.iter().zip(&finder.losses);
    pairs.min_by(|a, b| a.1.total_cmp(b.1)).map(|(rate, _)| *rate)
}

impl RateFinder {
    /// A tenth of the rate at which the loss was lowest; `None` if no loss was finite.
    pub fn suggestion(&self) -> Option<f32> {
        lowest(self).map(|rate| rate / 10.0)
    }
}

/// Whether a loss at this rate is the end: the loss is three times its best, or the rate is high enough.
fn is_over(finder: &RateFinder, loss: f32, rate: f32) -> bool {
    let best = finder.losses.iter().copied().fold(f32::INFINITY, f32::min);
    rate > finder.last || !loss.is_finite() || loss > 3.0 * best
}

// %% notebooks/10_learner.ipynb cb-finder-callback
impl<T: Task> Callback<T> for RateFinder {
    fn before_fit(&mut self, learner: &mut Learner<T>) -> Flow {
        *learner.optimizer.rule.lr() = self.first;
        Flow::Continue
    }
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        if learner.mode == Mode::Eval { Flow::SkipEpoch } else { Flow::Continue }
    }
    fn after_loss(&mut self, learner: &mut Learner<T>) -> Flow {
        let (loss, rate) = (learner.loss_value(), *learner.optimizer.rule.lr());
        if is_over(self, loss, rate) {
            return Flow::Stop;
        }
        self.rates.push(rate);
        self.losses.push(loss);
        Flow::Continue
    }
    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        *learner.optimizer.rule.lr() *= self.factor;
        Flow::Continue
    }
}
