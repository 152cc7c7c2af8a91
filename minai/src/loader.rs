// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash aa4478c29a4bc91e
//! Examples in batches: data sets, their order, and loaders that prepare batches in other threads.

// %% notebooks/06_training.ipynb lo-dataset
use minai::generator::Generator;

use minai::array::Array;
use minai::tensor::contiguous;

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

// %% notebooks/06_training.ipynb lo-rows
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

// %% notebooks/06_training.ipynb lo-labelled
/// Inputs and the class of each: the row i of `x` (n, …) belongs to `y[i]`. Clones share the memory.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// (n, …)
    pub x: Array,
    /// (n)
    pub y: Array<i64>,
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

// %% notebooks/06_training.ipynb lo-labelled-new
/// Classes as integers of any type, as 64-bit ones.
#[track_caller]
fn classes<I: Copy + TryInto<i64>>(y: &Array<I>) -> Array<i64> {
    let class = |&class: &I| class.try_into().ok().expect("Labelled: a class beyond the range of i64");
    Array::new(y.iter().map(class).collect(), y.shape())
}

impl Labelled {
    /// Inputs (n, …) and targets (n), from arrays, tensors or ndarray's arrays; targets are integers of any type.
    ///
    /// # Panics
    /// If they are not equally many.
    #[track_caller]
    pub fn new<I: Copy + TryInto<i64>>(x: impl Into<Array>, y: impl Into<Array<I>>) -> Self {
        let (x, y) = (contiguous(&x.into()), classes(&y.into()));
        let (inputs, targets) = (x.shape(), y.shape());
        let fits = inputs.first() == targets.first() && targets.len() == 1;
        assert!(fits, "Labelled: inputs {inputs:?}, targets {targets:?}");
        Labelled { x, y }
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

// %% notebooks/06_training.ipynb lo-options
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

// %% notebooks/06_training.ipynb lo-loader
/// Makes batches out of a data set. Clones share the data.
pub struct DataLoader<D> {
    /// The examples.
    pub dataset: Arc<D>,
    /// How they are cut.
    pub options: LoaderOptions,
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
}

// %% notebooks/06_training.ipynb lo-len
/// How many batches `n` examples make.
fn batch_count(n: usize, options: &LoaderOptions) -> usize {
    match options.last {
        Last::Keep => n.div_ceil(options.batch_size),
        Last::Drop => n / options.batch_size,
    }
}

impl<D: Dataset> DataLoader<D> {
    /// How many batches an epoch has.
    pub fn len(&self) -> usize {
        batch_count(self.dataset.len(), &self.options)
    }

    /// Whether an epoch has no batch.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

// %% notebooks/06_training.ipynb lo-epoch-plan
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

// %% notebooks/06_training.ipynb lo-indices
/// The numbers below `n`, shuffled by a seed if there is one, in batches.
fn dealt(n: usize, seed: Option<u64>, batch_size: usize, batches: usize) -> Vec<Vec<usize>> {
    let order = match seed {
        Some(seed) => Generator::manual_seed(seed).randperm(n),
        None => (0..n).collect(),
    };
    order.chunks(batch_size).take(batches).map(<[usize]>::to_vec).collect()
}

impl<D: Dataset> DataLoader<D> {
    /// Draws what is random about the next epoch: the same two numbers that PyTorch's loader draws.
    pub fn plan(&self, rng: &mut Generator) -> Plan {
        let base = rng.random64();
        Plan { base, order: (self.options.order == Order::Shuffled).then(|| rng.random64()) }
    }

    /// The numbers of the examples in each batch.
    pub fn indices(&self, plan: &Plan) -> Vec<Vec<usize>> {
        dealt(self.dataset.len(), plan.order, self.options.batch_size, self.len())
    }
}

// %% notebooks/06_training.ipynb lo-batches
use std::any::Any;
use std::marker::PhantomData;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// How many batches each worker has ready at most, apart from the one it works on.
const AHEAD: usize = 2;

/// A batch of any type.
type Parcel = Box<dyn Any + Send>;

/// Prepares the batch of this number out of these examples.
type Prepare = Arc<dyn Fn(usize, &[usize]) -> Parcel + Send + Sync>;

/// Parcels in order, prepared here or ahead, in threads.
struct Parcels {
    prepare: Prepare,
    indices: Arc<Vec<Vec<usize>>>,
    next: usize,
    /// Worker number i makes each batch whose number leaves the rest i.
    workers: Vec<(Receiver<Parcel>, JoinHandle<()>)>,
}

// %% notebooks/06_training.ipynb lo-worker
/// Starts worker number `worker` of `count`.
fn worker(parcels: &Parcels, worker: usize, count: usize) -> (Receiver<Parcel>, JoinHandle<()>) {
    let (sender, receiver) = sync_channel(AHEAD);
    let (prepare, indices, first) = (parcels.prepare.clone(), parcels.indices.clone(), parcels.next);
    let work = move || {
        for i in (first..indices.len()).filter(|i| i % count == worker) {
            if sender.send(prepare(i, &indices[i])).is_err() {
                return; // nobody wants the rest
            }
        }
    };
    (receiver, std::thread::spawn(work))
}

/// Ends the workers.
impl Drop for Parcels {
    fn drop(&mut self) {
        for (receiver, worker) in self.workers.drain(..) {
            drop(receiver); // a worker that waits to send finds out, and ends
            let _ = worker.join(); // a panic was the batch's, and nobody asked for it
        }
    }
}

// %% notebooks/06_training.ipynb lo-batches-next
use minai::io::interrupt;

/// What a worker sends. If it panicked over a batch, the panic goes on here.
fn received(parcels: &mut Parcels, worker: usize) -> Parcel {
    parcels.workers[worker].0.recv().unwrap_or_else(|_| {
        parcels.next = parcels.indices.len();
        let panic = parcels.workers.swap_remove(worker).1.join().expect_err("a worker sends all its batches");
        std::panic::resume_unwind(panic)
    })
}

impl Iterator for Parcels {
    type Item = Parcel;

    fn next(&mut self) -> Option<Parcel> {
        if interrupt::requested() {
            return None;
        }
        let (i, indices) = (self.next, self.indices.get(self.next)?);
        self.next += 1;
        let count = self.workers.len();
        Some(if count == 0 { (self.prepare)(i, indices) } else { received(self, i % count) })
    }
}

// %% notebooks/06_training.ipynb lo-batches-type
/// Parcels in order, from wherever they come.
type Queue = Box<dyn Iterator<Item = Parcel> + Send>;

/// The batches of an epoch, in order, made by [`DataLoader::epoch`]. They end early when somebody interrupts the program.
pub struct Batches<B> {
    parcels: Queue,
    left: usize,
    batch: PhantomData<fn() -> B>,
}

// %% notebooks/06_training.ipynb lo-batches-iterator
fn opened<B: 'static>(parcel: Parcel) -> B {
    *parcel.downcast().expect("a parcel holds a batch")
}

impl<B: 'static> Iterator for Batches<B> {
    type Item = B;

    fn next(&mut self) -> Option<B> {
        let parcel = self.parcels.next()?;
        self.left -= 1;
        Some(opened(parcel))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<B: 'static> ExactSizeIterator for Batches<B> {}

// %% notebooks/06_training.ipynb lo-batches-loader
fn queue(prepare: Prepare, indices: Vec<Vec<usize>>, next: usize, workers: usize) -> Queue {
    let mut parcels = Parcels { prepare, indices: Arc::new(indices), next, workers: Vec::new() };
    parcels.workers = (0..workers).map(|i| worker(&parcels, i, workers)).collect();
    Box::new(parcels)
}

impl<D: Dataset> DataLoader<D> {
    /// One epoch: every example once.
    pub fn epoch(&self, rng: &mut Generator) -> Batches<D::Batch> {
        let plan = self.plan(rng);
        self.batches(&plan, 0)
    }

    /// The batches of an epoch, from number `first` on.
    pub fn batches(&self, plan: &Plan, first: usize) -> Batches<D::Batch> {
        let (dataset, base, indices) = (self.dataset.clone(), plan.base, self.indices(plan));
        let prepare = move |i: usize, indices: &[usize]| -> Parcel {
            Box::new(dataset.batch(indices, &mut Generator::manual_seed(base.wrapping_add(i as u64))))
        };
        let left = indices.len().saturating_sub(first);
        let parcels = queue(Arc::new(prepare), indices, first, self.options.workers);
        Batches { parcels, left, batch: PhantomData }
    }
}
