// Owned by notebooks/11_activations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 612188d6b09e4b67
//! What comes out of layers at each training step: mean, standard deviation, histogram, dead units.

// %% notebooks/11_activations.ipynb st-bins
use minai::array::Array;
use minai::learner::{Callback, Flow, Learner, Task};
use minai::nn::{Hook, Mode, Module};
use minai::state::{StateDict, Value};
use minai::tensor::{Tensor, contiguous, elements};
use std::cell::RefCell;
use std::rc::Rc;

/// The intervals of a histogram: `count` equal ones between two values. What lies outside counts in the first or
/// the last one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bins {
    /// Where the first interval begins.
    pub from: f32,
    /// Where the last one ends.
    pub to: f32,
    /// How many there are.
    pub count: usize,
}

// %% notebooks/11_activations.ipynb st-bins-b
impl Bins {
    /// How many of the values lie in each interval. NaN counts in the first one.
    pub fn count(&self, numbers: &[f32]) -> Vec<i64> {
        let (mut counts, per_number) = (vec![0; self.count], self.count as f32 / (self.to - self.from));
        for number in numbers {
            // `as` cuts off at 0, and makes 0 of NaN.
            let bin = ((number - self.from) * per_number) as usize;
            counts[bin.min(self.count - 1)] += 1;
        }
        counts
    }
}

// %% notebooks/11_activations.ipynb st-dead
/// The share of units that give the same value for all examples, at all places. `y`: (n, units, …).
///
/// # Panics
/// If `y` has fewer than two axes.
#[track_caller]
pub fn dead_units(y: &Tensor) -> f32 {
    let (&[n, units, ref places @ ..], data) = (y.shape(), contiguous(&y.data)) else {
        panic!("dead_units: an output (n, units, …) expected, shape {:?}", y.shape())
    };
    let (numbers, size) = (elements(&data), places.iter().product::<usize>());
    let same = |unit: &usize| {
        let first = numbers[unit * size];
        (0..n).all(|i| numbers[(i * units + unit) * size..][..size].iter().all(|&number| number == first))
    };
    (0..units).filter(same).count() as f32 / units as f32
}

// %% notebooks/11_activations.ipynb re-record
/// What came out of one layer, with an entry for each step that was looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The layer's path in the model.
    pub path: String,
    /// The layer's kind.
    pub kind: String,
    /// The intervals of the histograms.
    pub bins: Bins,
    /// The means.
    pub means: Vec<f32>,
    /// The standard deviations.
    pub stds: Vec<f32>,
    /// The shares of [`dead_units`].
    pub dead: Vec<f32>,
    /// The histograms.
    pub histograms: Vec<Vec<i64>>,
}

// %% notebooks/11_activations.ipynb re-record-b
impl Record {
    /// Nothing was seen yet.
    pub fn new(path: &str, kind: &str, bins: Bins) -> Self {
        let (path, kind) = (path.to_owned(), kind.to_owned());
        Record { path, kind, bins, means: vec![], stds: vec![], dead: vec![], histograms: vec![] }
    }

    /// Takes note of an output (n, units, …).
    pub fn push(&mut self, y: &Tensor) {
        let y = y.detach();
        self.means.push(y.mean(..).item());
        self.stds.push(y.std(..).item());
        self.dead.push(dead_units(&y));
        self.histograms.push(self.bins.count(elements(&contiguous(&y.data))));
    }
}

// %% notebooks/11_activations.ipynb cb-stats
/// Says of a layer, by its path and itself, whether it is looked at.
type Choice = Rc<dyn Fn(&str, &dyn Module) -> bool>;

/// A callback that keeps a [`Record`] of each chosen layer's outputs, training batch by training batch.
pub struct ActivationStats {
    chosen: Choice,
    bins: Bins,
    records: Rc<RefCell<Vec<Record>>>,
    /// The hook that was there before ours, while ours is in the pass.
    other: Option<Rc<RefCell<Option<Hook>>>>,
}

impl std::fmt::Debug for ActivationStats {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "ActivationStats {{ bins: {:?}, records: {} }}", self.bins, self.records.borrow().len())
    }
}

// %% notebooks/11_activations.ipynb cb-stats-b
impl ActivationStats {
    /// Looks at the layers for which `chosen` is true: `|path, layer| layer.name() == "Relu"`.
    pub fn new(bins: Bins, chosen: impl Fn(&str, &dyn Module) -> bool + 'static) -> Self {
        ActivationStats { chosen: Rc::new(chosen), bins, records: Rc::default(), other: None }
    }

    /// The records so far, in the order in which data goes through the layers.
    pub fn records(&self) -> Vec<Record> {
        self.records.borrow().clone()
    }
}

// %% notebooks/11_activations.ipynb cb-stats-b-b
impl ActivationStats {
    /// A hook that writes to our records, and calls the other one.
    fn hook(&self, other: Rc<RefCell<Option<Hook>>>) -> Hook {
        let (chosen, bins, records) = (self.chosen.clone(), self.bins, self.records.clone());
        Box::new(move |path, layer, inputs, y| {
            if let Some(other) = other.borrow_mut().as_mut() {
                other(path, layer, inputs, y);
            }
            if chosen(path, layer) {
                let mut records = records.borrow_mut();
                let known = records.iter().position(|record| record.path == path);
                let at = known.unwrap_or_else(|| {
                    records.push(Record::new(path, layer.name(), bins));
                    records.len() - 1
                });
                records[at].push(y);
            }
        })
    }
}

// %% notebooks/11_activations.ipynb cb-callback
/// Hangs the statistics' hook in, in front of another one that may be there.
fn look(stats: &mut ActivationStats, hook: &mut Option<Hook>) {
    let other = Rc::new(RefCell::new(hook.take()));
    *hook = Some(stats.hook(other.clone()));
    stats.other = Some(other);
}

/// Puts the other hook back.
fn remove(stats: &mut ActivationStats, hook: &mut Option<Hook>) {
    if let Some(other) = stats.other.take() {
        *hook = other.borrow_mut().take();
    }
}

// %% notebooks/11_activations.ipynb cb-record-state
fn record_state(record: &Record, name: &str) -> StateDict {
    let floats = |list: &Vec<f32>| Value::F32(Array::new(list.clone(), &[list.len()]));
    let text = |text: &str| Value::U8(Array::new(text.into(), &[text.len()]));
    let histograms = Array::new(record.histograms.concat(), &[record.histograms.len(), record.bins.count]);
    [
        ("path", text(&record.path)),
        ("kind", text(&record.kind)),
        ("means", floats(&record.means)),
        ("stds", floats(&record.stds)),
        ("dead", floats(&record.dead)),
        ("histograms", Value::I64(histograms)),
    ]
    .into_iter()
    .map(|(what, value)| (format!("{name}/{what}"), value))
    .collect()
}

// %% notebooks/11_activations.ipynb cb-record-from
fn record_from(state: &StateDict, name: &str, bins: Bins) -> Option<Record> {
    let value = |what: &str| state.get(&format!("{name}/{what}"));
    let floats = |what: &str| match value(what)? {
        Value::F32(list) => Some(elements(list).to_vec()),
        _ => None,
    };
    let text = |what: &str| match value(what)? {
        Value::U8(text) => String::from_utf8(elements(text).to_vec()).ok(),
        _ => None,
    };
    let Some(Value::I64(histograms)) = value("histograms") else { return None };
    let histograms = elements(histograms).chunks(bins.count).map(<[i64]>::to_vec).collect();
    let (path, kind) = (text("path")?, text("kind")?);
    let (means, stds, dead) = (floats("means")?, floats("stds")?, floats("dead")?);
    Some(Record { path, kind, bins, means, stds, dead, histograms })
}

// %% notebooks/11_activations.ipynb cb-shell
fn records_state(records: &[Record]) -> StateDict {
    records.iter().enumerate().flat_map(|(i, record)| record_state(record, &format!("{i:03}"))).collect()
}

fn records_from(state: &StateDict, bins: Bins) -> Vec<Record> {
    (0..).map_while(|i| record_from(state, &format!("{i:03}"), bins)).collect()
}

// %% notebooks/11_activations.ipynb cb-shell-b
impl<T: Task> Callback<T> for ActivationStats {
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        remove(self, &mut learner.pass.hook); // ours is still there if somebody skipped the last batch
        if learner.mode == Mode::Train {
            look(self, &mut learner.pass.hook);
        }
        Flow::Continue
    }

    fn after_loss(&mut self, learner: &mut Learner<T>) -> Flow {
        remove(self, &mut learner.pass.hook);
        Flow::Continue
    }

    fn state(&self) -> StateDict {
        records_state(&self.records.borrow())
    }

    fn load_state(&mut self, state: &StateDict) {
        *self.records.borrow_mut() = records_from(state, self.bins);
    }
}

// %% notebooks/11_activations.ipynb hi-pixels
impl Record {
    /// The histograms as an image: a column for each step, or, so that there are at most `most`, for each second or
    /// third one; the highest values at the top; ln(1 + count) as brightness. Its pixels row by row, and (rows, columns).
    pub fn heat(&self, most: usize) -> (Vec<f32>, (usize, usize)) {
        let steps = self.histograms.len();
        let chosen: Vec<_> = self.histograms.iter().step_by(steps.div_ceil(most).max(1)).collect();
        let row = |bin: usize| chosen.iter().map(move |counts| (1.0 + counts[bin] as f32).ln());
        ((0..self.bins.count).rev().flat_map(row).collect(), (self.bins.count, chosen.len()))
    }
}
