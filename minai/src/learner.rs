// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 1aebcceddea56818
//! The [`Learner`]: a training loop whose every step a [`Callback`] can see and change.

use crate::checkpoint::{
    Checkpoint, Position, Resumed, Whole, fits, inside, keep_unfinished, prefixed, read_checkpoint,
    save_whole,
};

// %% notebooks/10_learner.ipynb le-callback
/// How training goes on after a callback ran.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// As usual.
    Continue,
    /// Leave out the rest of this batch's training step. Gradients that are there stay; `after_batch` is asked.
    SkipStep,
    /// Leave out the rest of this batch, its step included.
    SkipBatch,
    /// Leave out the rest of this epoch's training.
    SkipEpoch,
    /// End the training.
    Stop,
}

// %% notebooks/10_learner.ipynb le-event
/// The places at which callbacks are asked: the methods of [`Callback`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Event {
    BeforeFit,
    BeforeEpoch,
    BeforeBatch,
    AfterLoss,
    AfterBackward,
    AfterBatch,
    AfterEpoch,
    AfterFit,
}

// %% notebooks/10_learner.ipynb le-task
use minai::array::Array;
use minai::nn::{Module, Pass};
use minai::optimizer::Optimizer;
use minai::state::{StateDict, StateError};
use minai::tensor::Tensor;
use std::ops::ControlFlow;

/// The parts of a training step, for [`Task::step`]. `Break` ends the step: a callback wants it, or the loss is not finite.
pub trait Step<T: Task> {
    /// Computes predictions and loss of the batch at hand; callbacks are asked `after_loss`.
    fn forward(&mut self) -> ControlFlow<()>;
    /// Adds the gradients of that loss to those that are there; callbacks are asked `after_backward`.
    fn backward(&mut self) -> ControlFlow<()>;
    /// Lets the optimiser make its step, and forgets the gradients.
    fn update(&mut self);
    /// What a step of another kind works with, unseen by callbacks: task, optimiser, pass and batch.
    fn parts(&mut self) -> (&mut T, &mut Optimizer, &mut Pass, &T::Batch);
}

/// What is to be learned: a model, and how a batch becomes predictions and a loss.
pub trait Task: Sized {
    /// What a loader makes for one step.
    type Batch: Send + 'static;
    /// The model whose parameters are trained.
    fn model(&self) -> &dyn Module;
    /// The model's predictions for a batch.
    fn predict(&self, batch: &Self::Batch, pass: &mut Pass) -> Tensor;
    /// How wrong they are: a tensor of one value.
    fn loss(&self, predictions: &Tensor, batch: &Self::Batch) -> Tensor;
    /// How many examples a batch has: its weight in means.
    fn len(&self, batch: &Self::Batch) -> usize;
    /// A step of training with the batch at hand.
    fn step(step: &mut dyn Step<Self>) -> ControlFlow<()> {
        step.forward()?;
        step.backward()?;
        step.update();
        ControlFlow::Continue(())
    }
    /// What a checkpoint must keep besides model and optimiser, such as the state of a second optimiser.
    fn state(&self) -> StateDict {
        StateDict::new()
    }
    /// Takes back what [`state`](Self::state) gave.
    ///
    /// # Errors
    /// When it is the state of another task.
    fn load_state(&mut self, _: &StateDict) -> Result<(), StateError> {
        Ok(())
    }
}

// %% notebooks/10_learner.ipynb le-classifier
use minai::loss::cross_entropy;
use minai::nn::Layer;

/// Inputs get scores, one for each class; the loss is the cross-entropy.
#[derive(Clone, Copy, Debug)]
pub struct Classifier<L> {
    /// (n, …) → (n, classes)
    pub model: L,
}

// %% notebooks/10_learner.ipynb le-classifier-task
impl<L: Layer> Task for Classifier<L> {
    type Batch = (Array, Array<i64>);
    fn model(&self) -> &dyn Module {
        &self.model
    }
    fn predict(&self, (x, _): &Self::Batch, pass: &mut Pass) -> Tensor {
        self.model.forward(&Tensor::from(x.clone()), pass)
    }
    fn loss(&self, predictions: &Tensor, (_, y): &Self::Batch) -> Tensor {
        cross_entropy(predictions, y)
    }
    fn len(&self, (_, y): &Self::Batch) -> usize {
        y.len()
    }
}

// %% notebooks/10_learner.ipynb le-learner
use minai::generator::Generator;
use minai::loader::Plan;
use minai::nn::Mode;
use std::fmt;
use std::path::Path;

// %% notebooks/10_learner.ipynb le-learner-b
/// A task in training: the loop, and where it is.
pub struct Learner<T: Task> {
    /// What reports and checkpoints call it.
    pub name: String,
    /// What is to be learned.
    pub task: T,
    /// What changes the parameters.
    pub optimizer: Optimizer,
    /// Orders, and all other chance, come from here.
    pub rng: Generator,
    /// What passes through the network carry: hooks can be set here.
    pub pass: Pass,
    /// Whether the batch at hand is of the training or of the validation set.
    pub mode: Mode,
    /// The epoch at hand, from 0.
    pub epoch: usize,
    /// How many epochs there will be.
    pub epochs: usize,
    /// The batch at hand, from 0 in each epoch and for each of the two sets.
    pub index: usize,
    /// How many batches the set at hand has.
    pub batches: usize,
    train_batches: usize,
    /// The batch at hand. A callback may take it away to change it, but must put one back.
    pub batch: Option<T::Batch>,
    /// The model's predictions for the batch.
    pub predictions: Option<Tensor>,
    /// How wrong that was.
    pub loss: Option<Tensor>,
    /// Where checkpoints go; at first `None`: no file is written.
    pub checkpoint: Option<Checkpoint>,
    /// What `Metrics` found in the last epoch: names such as `valid loss`, and means.
    pub scores: Vec<(String, f32)>,
    /// Whether the last [`fit`](Learner::fit) ended early because somebody interrupted the program.
    pub interrupted: bool,
    /// Whether the last [`fit`](Learner::fit) ended because the loss was not finite.
    pub diverged: bool,
    /// Boxed without its type: how it is dropped is then the library's code, not compiled in each cell.
    resumed: Option<Box<dyn AsRef<Resumed>>>,
}

// %% notebooks/10_learner.ipynb le-learner-new
impl<T: Task> Learner<T> {
    /// A learner about to begin. `rng` goes on with the order of the batches, where it began with the weights.
    pub fn new(name: &str, task: T, optimizer: Optimizer, rng: Generator) -> Self {
        Learner {
            name: name.to_owned(),
            task,
            optimizer,
            rng,
            pass: Pass::eval(),
            mode: Mode::Eval,
            epoch: 0,
            epochs: 0,
            index: 0,
            batches: 0,
            train_batches: 0,
            batch: None,
            predictions: None,
            loss: None,
            checkpoint: None,
            scores: Vec::new(),
            interrupted: false,
            diverged: false,
            resumed: None,
        }
    }
}

// %% notebooks/10_learner.ipynb le-learner-step
impl<T: Task> fmt::Debug for Learner<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Learner {{ name: {:?}, epoch: {} of {} }}", self.name, self.epoch, self.epochs)
    }
}

impl<T: Task> Learner<T> {
    /// The loss of the batch at hand.
    ///
    /// # Panics
    /// Before there is one.
    #[track_caller]
    pub fn loss_value(&self) -> f32 {
        self.loss.as_ref().expect("loss_value: only after_loss and later").item()
    }
    /// The step at hand, from 0, and how many there will be: batches of the training set in all epochs.
    pub fn step(&self) -> (usize, usize) {
        (self.epoch * self.train_batches + self.index, self.epochs * self.train_batches)
    }
}

// %% notebooks/10_learner.ipynb le-tell
/// Sees training from inside, and may change it. Every method does nothing unless you write it. A tuple of callbacks is a
/// callback, and so are `()`, an array, a slice and an `Option` of callbacks, and `&mut` of one.
pub trait Callback<T: Task> {
    /// Before the first epoch.
    fn before_fit(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Continue
    }
    /// Before the first batch of an epoch.
    fn before_epoch(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Continue
    }
    /// The batch is there; nothing is computed yet. Also for batches of the validation set: see [`Learner::mode`].
    fn before_batch(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Continue
    }
    /// The loss is there; in training, the backward pass comes next.
    fn after_loss(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Continue
    }
    /// The gradients are there; the optimiser's step comes next.
    fn after_backward(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Continue
    }
    /// The batch is done: in training, the parameters have changed and the gradients are gone.
    fn after_batch(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Continue
    }
    /// Training and validation of an epoch are done.
    fn after_epoch(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Continue
    }
    /// All is done, or was stopped.
    fn after_fit(&mut self, _: &mut Learner<T>) -> Flow {
        Flow::Continue
    }
    /// What a checkpoint must keep of this callback: everything that changes from batch to batch.
    fn state(&self) -> StateDict {
        StateDict::new()
    }
    /// Takes back what [`state`](Self::state) gave.
    fn load_state(&mut self, _: &StateDict) {}
    /// Calls the method of this event: what the loop does. Callbacks that hold others override it.
    fn on(&mut self, event: Event, learner: &mut Learner<T>) -> Flow {
        match event {
            Event::BeforeFit => self.before_fit(learner),
            Event::BeforeEpoch => self.before_epoch(learner),
            Event::BeforeBatch => self.before_batch(learner),
            Event::AfterLoss => self.after_loss(learner),
            Event::AfterBackward => self.after_backward(learner),
            Event::AfterBatch => self.after_batch(learner),
            Event::AfterEpoch => self.after_epoch(learner),
            Event::AfterFit => self.after_fit(learner),
        }
    }
}

// %% notebooks/10_learner.ipynb le-error
/// Where the first value that is not finite came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// This layer: its path and its kind.
    Layer(String),
    /// None of the layers that were seen, so the loss.
    Loss,
    /// Nobody knows: the model runs no layer through [`Pass::call`] or [`Pass::scope`].
    Unseen,
}

// %% notebooks/10_learner.ipynb le-origin-text
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Origin::Layer(layer) => write!(f, "the first non-finite output came from layer {layer}"),
            Origin::Loss => {
                write!(f, "the outputs of all layers are finite, so look at the loss and the targets")
            }
            Origin::Unseen => {
                write!(f, "no layer was seen, because the model runs none by `pass.call` or `pass.scope`")
            }
        }
    }
}

// %% notebooks/10_learner.ipynb le-fit-error
/// Why training ended before its time.
#[derive(Debug)]
pub enum FitError {
    /// The loss is not finite any more.
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The batch in this epoch, from 1.
        batch: usize,
        /// Where that began.
        origin: Origin,
    },
    /// A checkpoint could not be written, or does not belong to this training.
    Checkpoint(StateError),
}

// %% notebooks/10_learner.ipynb le-fit-error-text
const REMEDY: &str = "Try a smaller learning rate, and look for NaN in the inputs";

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            FitError::Diverged { epoch, batch, origin } => write!(
                f,
                "training diverged: in epoch {epoch}, batch {batch}, the loss is not finite; {origin}. {REMEDY}"
            ),
            FitError::Checkpoint(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FitError {}

// %% notebooks/10_learner.ipynb le-batch
use std::cell::RefCell;
use std::rc::Rc;

/// Runs a batch that went wrong again, and finds the first layer whose output is not finite.
fn first_not_finite(pass: &mut Pass, predict: &mut dyn FnMut(&mut Pass)) -> Origin {
    let first = Rc::new(RefCell::new(Origin::Unseen));
    let found = first.clone();
    let look = move |path: &str, module: &dyn Module, _: &[&Tensor], y: &Tensor| {
        let (mut origin, is_finite) = (found.borrow_mut(), y.data.iter().all(|y| y.is_finite()));
        match *origin {
            Origin::Layer(_) => {}
            _ if is_finite => *origin = Origin::Loss,
            _ => *origin = Origin::Layer(format!("`{path}` ({})", module.name())),
        }
    };
    let hook = pass.hook.replace(Box::new(look));
    predict(pass);
    pass.hook = hook;
    first.replace(Origin::Unseen)
}

// %% notebooks/10_learner.ipynb le-ask
/// The answer that changes most.
fn strongest(flows: impl Iterator<Item = Flow>) -> Flow {
    flows.max().unwrap_or(Flow::Continue)
}

impl<T: Task, C: Callback<T>> Callback<T> for [C] {
    fn state(&self) -> StateDict {
        let state = |(i, callback): (usize, &C)| prefixed(&format!("{i}/"), callback.state());
        self.iter().enumerate().flat_map(state).collect()
    }
    fn load_state(&mut self, state: &StateDict) {
        let load = |(i, callback): (usize, &mut C)| callback.load_state(&inside(state, &format!("{i}/")));
        self.iter_mut().enumerate().for_each(load);
    }
    fn on(&mut self, event: Event, learner: &mut Learner<T>) -> Flow {
        strongest(self.iter_mut().map(|callback| callback.on(event, learner)))
    }
}

// %% notebooks/10_learner.ipynb le-ask-few
mod passed_on {
    use super::*;
    macro_rules! passed_on {
        ([$($generic:tt)*] $C:ty, $list:ident => $shared:expr, $mutable:expr) => {
            impl<T: Task, $($generic)*> Callback<T> for $C {
                fn state(&self) -> StateDict {
                    let $list = self;
                    $shared.state()
                }
                fn load_state(&mut self, state: &StateDict) {
                    let $list = self;
                    $mutable.load_state(state);
                }
                fn on(&mut self, event: Event, learner: &mut Learner<T>) -> Flow {
                    let $list = self;
                    $mutable.on(event, learner)
                }
            }
        };
    }
    passed_on!([C: Callback<T> + ?Sized] &mut C, c => (**c), (**c));
    passed_on!([C: Callback<T>, const N: usize] [C; N], c => c.as_slice(), c.as_mut_slice());
    passed_on!([C: Callback<T>] Option<C>, c => c.as_slice(), c.as_mut_slice());
}

// %% notebooks/10_learner.ipynb le-ask-tuple
mod tuples {
    use super::*;
    macro_rules! callbacks {
        ($([$($C:ident $i:tt),*])*) => {$(
            impl<T: Task, $($C: Callback<T>),*> Callback<T> for ($($C,)*) {
                fn state(&self) -> StateDict {
                    let states: [StateDict; _] = [$(prefixed(concat!($i, "/"), self.$i.state())),*];
                    states.into_iter().flatten().collect()
                }
                fn load_state(&mut self, _state: &StateDict) {
                    $(self.$i.load_state(&inside(_state, concat!($i, "/")));)*
                }
                fn on(&mut self, _event: Event, _learner: &mut Learner<T>) -> Flow {
                    let flows: [Flow; _] = [$(self.$i.on(_event, _learner)),*];
                    strongest(flows.into_iter())
                }
            }
        )*};
    }
    callbacks! {
        [] [A 0] [A 0, B 1] [A 0, B 1, C 2] [A 0, B 1, C 2, D 3]
        [A 0, B 1, C 2, D 3, E 4] [A 0, B 1, C 2, D 3, E 4, F 5]
    }
}

// %% notebooks/10_learner.ipynb le-save-checkpoint
/// Where the training is.
fn position<T: Task>(learner: &Learner<T>, inside: Option<(&Plan, usize)>) -> Position {
    let inside = inside.map(|(plan, next)| (plan.clone(), next));
    Position { epoch: learner.epoch, epochs: learner.epochs, batches: learner.train_batches, inside }
}

/// Writes the checkpoint, if there is to be one: at a batch of an epoch (its plan, the next batch), or after one.
fn save_checkpoint<T: Task>(
    learner: &Learner<T>,
    inside: Option<(&Plan, usize)>,
    callbacks: &mut dyn Callback<T>,
) -> Result<(), FitError> {
    let Some(checkpoint) = &learner.checkpoint else { return Ok(()) };
    let whole = Whole {
        model: learner.task.model(),
        optimizer: &learner.optimizer,
        rng: &learner.rng,
        pass: &learner.pass.rng,
        task: learner.task.state(),
        callbacks: callbacks.state(),
    };
    save_whole(&checkpoint.path, whole, &position(learner, inside)).map_err(FitError::Checkpoint)
}

// %% notebooks/10_learner.ipynb le-go-on
/// Puts learner and callbacks where the checkpoint was made, if there is one to go on from.
fn go_on<T: Task>(
    learner: &mut Learner<T>,
    callbacks: &mut dyn Callback<T>,
) -> Result<Option<(Plan, usize)>, FitError> {
    let Some(resumed) = learner.resumed.take() else { return Ok(None) };
    let resumed = (*resumed).as_ref();
    fits(resumed, learner.epochs, learner.train_batches).map_err(FitError::Checkpoint)?;
    learner.epoch = resumed.position.epoch;
    callbacks.load_state(&resumed.callbacks);
    Ok(resumed.position.inside.clone())
}

// %% notebooks/10_learner.ipynb le-backward
/// A step at work.
struct Training<'a, T: Task> {
    learner: &'a mut Learner<T>,
    callbacks: &'a mut dyn Callback<T>,
    end: Result<Flow, FitError>,
}

/// Asks the callbacks; the step goes on if they all want to continue.
fn ask<T: Task>(training: &mut Training<T>, event: Event) -> ControlFlow<()> {
    let flow = training.callbacks.on(event, training.learner);
    training.end = Ok(flow);
    if flow == Flow::Continue { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

/// Ends a step whose loss is not finite with the error that names the place.
fn diverged<T: Task>(training: &mut Training<T>) -> ControlFlow<()> {
    let learner = &mut *training.learner;
    let (task, batch) = (&learner.task, learner.batch.as_ref().expect("the batch that went wrong"));
    let origin = first_not_finite(&mut learner.pass, &mut |pass| drop(task.predict(batch, pass)));
    learner.diverged = true;
    training.end = Err(FitError::Diverged { epoch: learner.epoch + 1, batch: learner.index + 1, origin });
    ControlFlow::Break(())
}

// %% notebooks/10_learner.ipynb le-step
impl<T: Task> Step<T> for Training<'_, T> {
    fn forward(&mut self) -> ControlFlow<()> {
        let (task, _, pass, batch) = self.parts();
        let predictions = task.predict(batch, pass);
        let loss = task.loss(&predictions, batch);
        (self.learner.predictions, self.learner.loss) = (Some(predictions), Some(loss));
        ask(self, Event::AfterLoss)
    }
    fn backward(&mut self) -> ControlFlow<()> {
        let loss = self.learner.loss.as_ref().expect("`forward` comes before `backward`");
        if !loss.item().is_finite() {
            return diverged(self);
        }
        loss.backward();
        ask(self, Event::AfterBackward)
    }
    fn update(&mut self) {
        self.learner.optimizer.step();
        self.learner.optimizer.zero_grad();
    }
    fn parts(&mut self) -> (&mut T, &mut Optimizer, &mut Pass, &T::Batch) {
        let Learner { task, optimizer, pass, batch, .. } = self.learner;
        (task, optimizer, pass, batch.as_ref().expect("a callback took the batch: put one back"))
    }
}

// %% notebooks/10_learner.ipynb le-one-batch
/// What happens with a batch. A callback that skips the rest after the backward pass leaves the gradients:
/// those of the next batch are added to them.
fn one_batch<T: Task>(learner: &mut Learner<T>, callbacks: &mut dyn Callback<T>) -> Result<Flow, FitError> {
    let mut training = Training { learner, callbacks, end: Ok(Flow::Continue) };
    if ask(&mut training, Event::BeforeBatch).is_continue() {
        let _ = match training.learner.mode {
            Mode::Train => T::step(&mut training),
            Mode::Eval => training.forward(),
        };
    }
    let flow = training.end?;
    let is_done = flow <= Flow::SkipStep && learner.loss.is_some();
    Ok(if is_done { flow.max(callbacks.on(Event::AfterBatch, learner)) } else { flow })
}

// %% notebooks/10_learner.ipynb le-interrupt
use minai::io::interrupt;

/// `interrupted in epoch 2 of 5, before batch 18 of 235`
fn say_interrupted(position: &Position, checkpoint: Option<&Checkpoint>) {
    let Position { epoch, epochs, batches, inside } = position;
    let place = inside.as_ref().map(|(_, next)| format!("before batch {} of {batches}", next + 1));
    println!(
        "interrupted in epoch {} of {epochs}, {}",
        epoch + 1,
        place.as_deref().unwrap_or("while validating")
    );
    if let (Some(checkpoint), Some(_)) = (checkpoint, inside) {
        println!("to go on, now or later: `learner.resume({:?})?`, then the same `fit`", checkpoint.path);
    }
}

// %% notebooks/10_learner.ipynb le-is-interrupted
/// Whether somebody asked to stop, before a batch of this plan. Says so, and in training saves where it is.
fn is_interrupted<T: Task>(
    learner: &mut Learner<T>,
    plan: &Plan,
    next: usize,
    callbacks: &mut dyn Callback<T>,
) -> Result<bool, FitError> {
    learner.interrupted = interrupt::requested();
    if learner.interrupted {
        let inside = (learner.mode == Mode::Train).then_some((plan, next));
        say_interrupted(&position(learner, inside), learner.checkpoint.as_ref());
        if inside.is_some() {
            save_checkpoint(learner, inside, callbacks)?;
        }
    }
    Ok(learner.interrupted)
}

// %% notebooks/10_learner.ipynb le-source
use minai::loader::{Batches, DataLoader, Dataset};

/// What the loop needs of a loader.
trait Source<B> {
    fn len(&self) -> usize;
    fn plan(&self, rng: &mut Generator) -> Plan;
    fn batches(&self, plan: &Plan, first: usize) -> Batches<B>;
}

impl<D: Dataset> Source<D::Batch> for DataLoader<D> {
    fn len(&self) -> usize {
        self.len()
    }

    fn plan(&self, rng: &mut Generator) -> Plan {
        self.plan(rng)
    }

    fn batches(&self, plan: &Plan, first: usize) -> Batches<D::Batch> {
        self.batches(plan, first)
    }
}

// %% notebooks/10_learner.ipynb le-all-batches
/// The batches of one set, from number `first` on.
fn all_batches<T: Task>(
    learner: &mut Learner<T>,
    source: &dyn Source<T::Batch>,
    (plan, mut next): (&Plan, usize),
    callbacks: &mut dyn Callback<T>,
) -> Result<Flow, FitError> {
    (learner.pass.mode, learner.batches) = (learner.mode, source.len());
    for batch in source.batches(plan, next) {
        (learner.index, learner.batch) = (next, Some(batch));
        let flow = one_batch(learner, callbacks)?;
        (learner.batch, learner.predictions, learner.loss) = (None, None, None);
        if flow >= Flow::SkipEpoch {
            return Ok(flow);
        }
        next += 1;
        let every = learner.checkpoint.as_ref().and_then(|checkpoint| checkpoint.every);
        if learner.mode == Mode::Train && every.is_some_and(|every| next % every == 0) {
            save_checkpoint(learner, Some((plan, next)), callbacks)?;
        }
    }
    Ok(if is_interrupted(learner, plan, next, callbacks)? { Flow::Stop } else { Flow::Continue })
}

// %% notebooks/10_learner.ipynb le-parts
/// The plan of an epoch and its first batch: from its beginning, or from where a checkpoint was made. Or what callbacks
/// want instead.
fn begin_epoch<T: Task>(
    learner: &mut Learner<T>,
    position: Option<(Plan, usize)>,
    train: &dyn Source<T::Batch>,
    callbacks: &mut dyn Callback<T>,
) -> Result<(Plan, usize), Flow> {
    if let Some(position) = position {
        return Ok(position);
    }
    let flow = callbacks.on(Event::BeforeEpoch, learner);
    if flow >= Flow::SkipEpoch {
        learner.epoch += usize::from(flow == Flow::SkipEpoch);
        return Err(flow);
    }
    let plan = train.plan(&mut learner.rng);
    learner.pass.rng = plan.network();
    Ok((plan, 0))
}

// %% notebooks/10_learner.ipynb le-validate
/// The batches of the validation set.
fn validation<T: Task>(
    learner: &mut Learner<T>,
    valid: &dyn Source<T::Batch>,
    callbacks: &mut dyn Callback<T>,
) -> Result<Flow, FitError> {
    learner.mode = Mode::Eval;
    let plan = valid.plan(&mut learner.rng);
    all_batches(learner, valid, (&plan, 0), callbacks)
}

// %% notebooks/10_learner.ipynb le-epoch
/// An epoch of training and validation.
fn one_epoch<T: Task>(
    learner: &mut Learner<T>,
    position: Option<(Plan, usize)>,
    [train, valid]: [&dyn Source<T::Batch>; 2],
    callbacks: &mut dyn Callback<T>,
) -> Result<Flow, FitError> {
    (learner.mode, learner.index, learner.batches) = (Mode::Train, 0, train.len());
    let mut flow = match begin_epoch(learner, position, train, callbacks) {
        Ok((plan, first)) => all_batches(learner, train, (&plan, first), callbacks)?,
        Err(flow) => return Ok(flow),
    };
    if flow != Flow::Stop {
        flow = validation(learner, valid, callbacks)?;
    }
    if flow != Flow::Stop {
        flow = callbacks.on(Event::AfterEpoch, learner);
        learner.epoch += 1;
        save_checkpoint(learner, None, callbacks)?;
    }
    Ok(flow)
}

// %% notebooks/10_learner.ipynb le-all-epochs
use minai::datasets::DataLoaders;

/// The epochs that are left.
fn all_epochs<T: Task>(
    learner: &mut Learner<T>,
    sources: [&dyn Source<T::Batch>; 2],
    callbacks: &mut dyn Callback<T>,
) -> Result<(), FitError> {
    if let (None, Some(checkpoint)) = (&learner.resumed, &learner.checkpoint) {
        keep_unfinished(&checkpoint.path).map_err(FitError::Checkpoint)?;
    }
    let mut flow = callbacks.on(Event::BeforeFit, learner);
    let mut position = go_on(learner, callbacks)?;
    while learner.epoch < learner.epochs && flow != Flow::Stop {
        flow = one_epoch(learner, position.take(), sources, callbacks)?;
    }
    Ok(())
}

// %% notebooks/10_learner.ipynb le-rates
use minai::optimizer::Rule;

/// Sets the rule's learning rate, and its momentum if there is one to set.
pub fn set_rates(rule: &mut dyn Rule, (lr, momentum): (f32, Option<f32>)) {
    *rule.lr() = lr;
    if let (Some(now), Some(momentum)) = (rule.momentum(), momentum) {
        *now = momentum;
    }
}

// %% notebooks/10_learner.ipynb le-whole-training
/// A whole training: whatever ends it, callbacks hear of it.
fn whole_training<T: Task>(
    learner: &mut Learner<T>,
    epochs: usize,
    sources: [&dyn Source<T::Batch>; 2],
    callbacks: &mut dyn Callback<T>,
) -> Result<(), FitError> {
    let rates = (*learner.optimizer.rule.lr(), learner.optimizer.rule.momentum().copied());
    (learner.epoch, learner.epochs, learner.index) = (0, epochs, 0);
    (learner.interrupted, learner.diverged) = (false, false);
    (learner.batches, learner.train_batches) = (sources[0].len(), sources[0].len());
    let result = all_epochs(learner, sources, callbacks);
    (learner.batch, learner.predictions, learner.loss) = (None, None, None);
    let _ = callbacks.on(Event::AfterFit, learner);
    set_rates(&mut *learner.optimizer.rule, rates); // what a schedule did to them was for this training only
    result
}

// %% notebooks/10_learner.ipynb le-fit
impl<T: Task> Learner<T> {
    /// Trains for some epochs; after [`resume`](Self::resume), for what is left of them. When somebody interrupts the
    /// program, it ends after the step at hand, and [`interrupted`](Self::interrupted) is true. Afterwards the optimiser
    /// has the learning rate and the momentum that it had before, whatever callbacks did to them.
    ///
    /// Callbacks come as a tuple, by value or by `&mut` where they are wanted afterwards; `()` for none:
    /// `learner.fit(5, &loaders, (OneCycle::new(0.01), &mut metrics))`.
    ///
    /// # Errors
    /// When the loss is not finite any more, or a checkpoint cannot be used.
    pub fn fit<D, E>(
        &mut self,
        epochs: usize,
        loaders: &DataLoaders<D, E>,
        mut callbacks: impl Callback<T>,
    ) -> Result<(), FitError>
    where
        D: Dataset<Batch = T::Batch>,
        E: Dataset<Batch = T::Batch>,
    {
        whole_training(self, epochs, [&loaders.train, &loaders.valid], &mut callbacks)
    }
}

// %% notebooks/10_learner.ipynb le-resume
impl<T: Task> Learner<T> {
    /// Takes model, optimiser and random numbers out of a checkpoint; the next [`fit`](Self::fit) goes on where it was
    /// made. Model, data, epochs and callbacks must be those of the training that made it.
    ///
    /// # Errors
    /// When the file cannot be read, or is of another model.
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<(), StateError> {
        let (resumed, [rng, pass]) = read_checkpoint(path.as_ref(), self.task.model(), &mut self.optimizer)?;
        self.task.load_state(&resumed.task)?;
        (self.rng, self.pass.rng) = (rng, pass);
        self.resumed = Some(Box::new(resumed));
        Ok(())
    }
}
