// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash e6dbb24e3dbc61bd
//! Examples in batches: data sets, their order, and loaders that prepare batches in other threads.

use crate::generator::Generator;

// %% notebooks/06_training.ipynb lo-dataset
use minai::array::Array;

/// Examples that are there by number. Threads share it.
pub trait Dataset: Send + Sync + 'static {
    /// What a step of training works on.
    type Batch: Send + 'static;

    /// How many examples there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The examples of these numbers, as one batch. What is random about it comes from `rng`, the batch's own stream.
    fn batch(&self, indices: &[usize], rng: &mut Generator) -> Self::Batch;
}

/// Inputs and the class of each: the row i of `x` (n, …) belongs to `y[i]`. Clones share the memory.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// (n, …)
    pub x: Array,
    /// (n)
    pub y: Array<i64>,
}

/// The rows of `array` (n, …) with these numbers, one after the other.
///
/// # Panics
/// If there is no such row.
#[track_caller]
pub fn rows<T: Copy>(array: &Array<T>, indices: &[usize]) -> Array<T> {
    let numbers = array.as_slice().expect("data sets lie in row-major order");
    let size: usize = array.shape()[1..].iter().product();
    let mut picked = Vec::with_capacity(indices.len() * size);
    indices.iter().for_each(|&i| picked.extend_from_slice(&numbers[i * size..][..size]));
    let mut shape = array.shape().to_vec();
    shape[0] = indices.len();
    Array::new(picked, &shape)
}

impl Labelled {
    /// Inputs (n, …) and targets (n).
    ///
    /// # Panics
    /// If they are not equally many.
    #[track_caller]
    pub fn new(x: Array, y: Array<i64>) -> Self {
        let (inputs, targets) = (x.shape(), y.shape());
        assert!(
            inputs.first() == targets.first() && targets.len() == 1,
            "Labelled: inputs {inputs:?}, targets {targets:?}"
        );
        Labelled { x, y }
    }
}

impl Dataset for Labelled {
    type Batch = (Array, Array<i64>);

    fn len(&self) -> usize {
        self.y.len()
    }

    fn batch(&self, indices: &[usize], _: &mut Generator) -> Self::Batch {
        (rows(&self.x, indices), rows(&self.y, indices))
    }
}

// %% notebooks/06_training.ipynb lo-plan
use std::sync::Arc;

/// In which order examples come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they stand in the data set.
    Fixed,
    /// In a new random order in each epoch.
    Shuffled,
}

/// What becomes of the last batch when it is not full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It comes as it is.
    Keep,
    /// Its examples are left out in this epoch.
    Drop,
}

/// How a [`DataLoader`] cuts a data set into batches.
#[derive(Clone, Copy, Debug)]
pub struct LoaderOptions {
    /// How many examples a batch has; 64 by default.
    pub batch_size: usize,
    /// The order; [`Order::Shuffled`] by default.
    pub order: Order,
    /// The last batch; kept by default.
    pub last: Last,
    /// How many threads prepare batches ahead; 1 by default. With 0 each is prepared when it is asked for.
    pub workers: usize,
}

impl Default for LoaderOptions {
    fn default() -> Self {
        LoaderOptions { batch_size: 64, order: Order::Shuffled, last: Last::Keep, workers: 1 }
    }
}

/// Makes batches out of a data set. Clones share the data.
pub struct DataLoader<D> {
    /// The examples.
    pub dataset: Arc<D>,
    /// How they are cut.
    pub options: LoaderOptions,
}

/// What is random about an epoch, drawn before its first batch: with the same plan it can be run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Batch number i has the random stream `base + i`.
    pub base: u64,
    /// The shuffled order comes from this seed; none if the order is not random.
    pub order: Option<u64>,
}

impl Plan {
    /// The random numbers that the network itself needs in this epoch, for dropout: a stream apart from the batches'.
    pub fn network(&self) -> Generator {
        Generator::manual_seed(!self.base)
    }
}

impl<D: Dataset> DataLoader<D> {
    /// A loader for a data set.
    ///
    /// # Panics
    /// If the batch size is 0.
    #[track_caller]
    pub fn new(dataset: D, options: LoaderOptions) -> Self {
        assert!(options.batch_size > 0, "DataLoader: a batch size of 0");
        DataLoader { dataset: Arc::new(dataset), options }
    }

    /// How many batches an epoch has.
    pub fn len(&self) -> usize {
        let LoaderOptions { batch_size, last, .. } = self.options;
        match last {
            Last::Keep => self.dataset.len().div_ceil(batch_size),
            Last::Drop => self.dataset.len() / batch_size,
        }
    }

    /// Whether an epoch has no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Draws what is random about the next epoch: the same two numbers that PyTorch's loader draws.
    pub fn plan(&self, rng: &mut Generator) -> Plan {
        let base = rng.random64();
        Plan { base, order: (self.options.order == Order::Shuffled).then(|| rng.random64()) }
    }

    /// The numbers of the examples in each batch.
    pub fn indices(&self, plan: &Plan) -> Vec<Vec<usize>> {
        let order = match plan.order {
            Some(seed) => Generator::manual_seed(seed).randperm(self.dataset.len()),
            None => (0..self.dataset.len()).collect(),
        };
        order.chunks(self.options.batch_size).take(self.len()).map(<[usize]>::to_vec).collect()
    }
}

// %% notebooks/06_training.ipynb lo-batches
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// How many batches each worker has ready at most, apart from the one it works on.
const AHEAD: usize = 2;

/// Prepares batch number `i` of a plan.
fn prepare<D: Dataset>(dataset: &D, plan: &Plan, i: usize, indices: &[usize]) -> D::Batch {
    dataset.batch(indices, &mut Generator::manual_seed(plan.base.wrapping_add(i as u64)))
}

/// The batches of an epoch, in order, made by [`DataLoader::epoch`].
pub struct Batches<D: Dataset> {
    dataset: Arc<D>,
    plan: Plan,
    indices: Arc<Vec<Vec<usize>>>,
    next: usize,
    /// Worker number i makes each batch whose number leaves the rest i.
    workers: Vec<(Receiver<D::Batch>, JoinHandle<()>)>,
}

impl<D: Dataset> DataLoader<D> {
    /// One epoch: every example once.
    pub fn epoch(&self, rng: &mut Generator) -> Batches<D> {
        let plan = self.plan(rng);
        self.batches(&plan, 0)
    }

    /// The batches of an epoch, from number `first` on.
    pub fn batches(&self, plan: &Plan, first: usize) -> Batches<D> {
        let indices = Arc::new(self.indices(plan));
        let (dataset, plan, count) = (self.dataset.clone(), plan.clone(), self.options.workers);
        let mut batches = Batches { dataset, plan, indices, next: first, workers: Vec::new() };
        batches.workers = (0..count).map(|worker| batches.worker(worker, count)).collect();
        batches
    }
}

impl<D: Dataset> Batches<D> {
    fn worker(&self, worker: usize, count: usize) -> (Receiver<D::Batch>, JoinHandle<()>) {
        let (sender, receiver) = sync_channel(AHEAD);
        let (dataset, plan, indices, first) =
            (self.dataset.clone(), self.plan.clone(), self.indices.clone(), self.next);
        let work = move || {
            for i in (first..indices.len()).filter(|i| i % count == worker) {
                if sender.send(prepare(&*dataset, &plan, i, &indices[i])).is_err() {
                    return; // nobody wants the rest
                }
            }
        };
        (receiver, std::thread::spawn(work))
    }
}

impl<D: Dataset> Iterator for Batches<D> {
    type Item = D::Batch;

    fn next(&mut self) -> Option<D::Batch> {
        let indices = self.indices.get(self.next)?;
        let i = self.next;
        self.next += 1;
        if self.workers.is_empty() {
            return Some(prepare(&*self.dataset, &self.plan, i, indices));
        }
        let worker = i % self.workers.len();
        match self.workers[worker].0.recv() {
            Ok(batch) => Some(batch),
            Err(_) => {
                self.next = self.indices.len();
                let panic =
                    self.workers.swap_remove(worker).1.join().expect_err("a worker sends all its batches");
                std::panic::resume_unwind(panic) // the worker's panic goes on here
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.indices.len() - self.next;
        (left, Some(left))
    }
}

impl<D: Dataset> ExactSizeIterator for Batches<D> {}

/// Ends the workers.
impl<D: Dataset> Drop for Batches<D> {
    fn drop(&mut self) {
        for (receiver, worker) in self.workers.drain(..) {
            drop(receiver); // a worker that waits to send finds out, and ends
            let _ = worker.join(); // a panic was the batch's, and nobody asked for it
        }
    }
}
