// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash ca356bf1e028b40e
//! The [`Learner`]: a training loop whose every step a [`Callback`] can see and change.

// %% notebooks/10_learner.ipynb le-task
use minai::array::Array;
use minai::datasets::DataLoaders;
use minai::generator::Generator;
use minai::io::data::data_folder;
use minai::loader::{Batches, DataLoader, Dataset, Plan};
use minai::loss::cross_entropy;
use minai::nn::{Layer, Mode, Module, Pass};
use minai::optimizer::{Optimizer, Rule};
use minai::state::{
    Metadata, StateDict, StateError, Value, load, load_optimizer_state, load_state_dict, optimizer_state,
    save, state_dict,
};
use minai::tensor::{Tensor, elements};
use std::cell::RefCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// What is to be learned: a model, and how a batch becomes predictions and a loss.
pub trait Task {
    /// What a loader makes for one step.
    type Batch: Send + 'static;

    /// The model whose parameters are trained.
    fn model(&self) -> &dyn Module;

    /// What the model says to a batch.
    fn predict(&self, batch: &Self::Batch, pass: &mut Pass) -> Tensor;

    /// How wrong that is: one number.
    fn loss(&self, predictions: &Tensor, batch: &Self::Batch) -> Tensor;

    /// How many examples a batch has: its weight in means.
    fn len(&self, batch: &Self::Batch) -> usize;
}

// %% notebooks/10_learner.ipynb le-classifier
/// Inputs get scores, one for each class; the loss is the cross-entropy.
#[derive(Clone, Copy, Debug)]
pub struct Classifier<L> {
    /// (n, …) → (n, classes)
    pub model: L,
}

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

// %% notebooks/10_learner.ipynb le-place
/// Where and how often a training is saved, so that it can go on after anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The file. It is replaced at one stroke: there is always a whole one.
    pub path: PathBuf,
    /// Save behind each that many batches too, not only behind each epoch.
    pub every: Option<usize>,
}

impl Checkpoint {
    /// A file behind each epoch.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Checkpoint { path: path.into(), every: None }
    }

    /// In a notebook, where a crash costs every variable: `checkpoints/NAME.safetensors` in the course's data folder.
    pub fn in_notebook(name: &str) -> Option<Self> {
        std::env::var_os("EVCXR_IS_RUNTIME")?;
        let folder = data_folder().unwrap_or_default().join("checkpoints");
        Some(Checkpoint::new(folder.join(format!("{name}.safetensors"))))
    }
}

// %% notebooks/10_learner.ipynb le-offer
/// Says that there is an unfinished training, if there is, and keeps its file under another name.
fn offer(checkpoint: &Checkpoint) -> Result<(), FitError> {
    let Ok((_, metadata)) = load(&checkpoint.path) else { return Ok(()) };
    let [epoch, epochs] = ["epoch", "epochs"].map(|key| metadata.get(key).cloned().unwrap_or_default());
    if epoch == epochs {
        return Ok(());
    }
    let kept = checkpoint.path.with_extension("unfinished.safetensors");
    std::fs::rename(&checkpoint.path, &kept).map_err(|error| {
        FitError::Checkpoint(StateError::new(&kept, format!("cannot be written: {error}")))
    })?;
    println!(
        "An unfinished training of that name ({epoch} of {epochs} epochs) was there. This one starts anew; to go on \
         with the other one, call `learner.resume({:?})?` before `fit`.",
        kept.display().to_string()
    );
    Ok(())
}

// %% notebooks/10_learner.ipynb le-resumed
/// What a checkpoint holds besides model, optimiser and random numbers.
struct Resumed {
    path: PathBuf,
    epoch: usize,
    epochs: usize,
    batches: usize,
    /// Inside an epoch: its plan, and the batch that comes next.
    position: Option<(Plan, usize)>,
    callbacks: StateDict,
}

impl AsRef<Resumed> for Resumed {
    fn as_ref(&self) -> &Resumed {
        self
    }
}

// %% notebooks/10_learner.ipynb le-learner
/// A task in training: the loop, and where it is.
pub struct Learner<T: Task> {
    /// What reports and checkpoints call it.
    pub name: String,
    /// What is learned.
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
    /// What the model said to the batch.
    pub predictions: Option<Tensor>,
    /// How wrong that was.
    pub loss: Option<Tensor>,
    /// Where checkpoints go; none if `None`. In a notebook, [`new`](Learner::new) chooses a place.
    pub checkpoint: Option<Checkpoint>,
    /// What `Metrics` found in the last epoch: names such as `valid loss`, and means.
    pub scores: Vec<(String, f32)>,
    /// Whether the last [`fit`](Learner::fit) ended early because somebody interrupted the program.
    pub interrupted: bool,
    /// Boxed without its type: how it is dropped is then the library's code, not compiled in each cell.
    resumed: Option<Box<dyn AsRef<Resumed>>>,
}

impl<T: Task> fmt::Debug for Learner<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Learner {{ name: {:?}, epoch: {} of {} }}", self.name, self.epoch, self.epochs)
    }
}

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
            checkpoint: Checkpoint::in_notebook(name),
            scores: Vec::new(),
            interrupted: false,
            resumed: None,
        }
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

// %% notebooks/10_learner.ipynb le-callback
/// How training goes on after a callback ran.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flow {
    /// As usual.
    Continue,
    /// Leave out the rest of this batch, its step included.
    SkipBatch,
    /// Leave out the rest of this epoch's training.
    SkipEpoch,
    /// End the training.
    Stop,
}

/// Sees training from inside, and may change it. Every method does nothing unless you write it.
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
}

// %% notebooks/10_learner.ipynb le-tell
/// The places at which callbacks are asked: the methods of [`Callback`].
#[derive(Clone, Copy)]
enum Event {
    BeforeFit,
    BeforeEpoch,
    BeforeBatch,
    AfterLoss,
    AfterBackward,
    AfterBatch,
    AfterEpoch,
    AfterFit,
}

/// What [`Learner::fit`] is given.
type Callbacks<'a, 'b, T> = &'a mut [&'b mut dyn Callback<T>];

// %% notebooks/10_learner.ipynb le-ask
/// Asks all callbacks, in order; the answer that changes most counts.
fn tell<T: Task>(learner: &mut Learner<T>, callbacks: Callbacks<T>, event: Event) -> Flow {
    let ask = |callback: &mut &mut dyn Callback<T>| match event {
        Event::BeforeFit => callback.before_fit(learner),
        Event::BeforeEpoch => callback.before_epoch(learner),
        Event::BeforeBatch => callback.before_batch(learner),
        Event::AfterLoss => callback.after_loss(learner),
        Event::AfterBackward => callback.after_backward(learner),
        Event::AfterBatch => callback.after_batch(learner),
        Event::AfterEpoch => callback.after_epoch(learner),
        Event::AfterFit => callback.after_fit(learner),
    };
    callbacks.iter_mut().map(ask).max().unwrap_or(Flow::Continue)
}

// %% notebooks/10_learner.ipynb le-save
/// The entries whose names begin so, without that beginning.
fn inside(state: &StateDict, prefix: &str) -> StateDict {
    let cut = |(name, value): (&String, &Value)| Some((name.strip_prefix(prefix)?.to_owned(), value.clone()));
    state.iter().filter_map(cut).collect()
}

/// All entries, with a beginning before each name.
fn prefixed(prefix: &str, state: StateDict) -> StateDict {
    state.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
}

/// Where a training is: the epochs done, how many there will be, the batches in each; inside an epoch, its plan and the
/// next batch.
struct Position<'a> {
    epoch: usize,
    epochs: usize,
    batches: usize,
    inside: Option<(&'a Plan, usize)>,
}

// %% notebooks/10_learner.ipynb le-write
fn metadata(position: &Position) -> Metadata {
    let mut metadata = Metadata::from([
        ("epoch".to_owned(), position.epoch.to_string()),
        ("epochs".to_owned(), position.epochs.to_string()),
        ("batches".to_owned(), position.batches.to_string()),
    ]);
    if let Some((plan, next)) = position.inside {
        metadata.insert("next".into(), next.to_string());
        metadata.insert("base".into(), plan.base.to_string());
        metadata.extend(plan.order.map(|seed| ("order".to_owned(), seed.to_string())));
    }
    metadata
}

// %% notebooks/10_learner.ipynb le-write-file
/// Writes the file, in a folder that is made if need be.
fn write(path: &Path, state: &StateDict, metadata: &Metadata) -> Result<(), FitError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder)
        .map_err(|error| FitError::Checkpoint(StateError::new(folder, format!("cannot be made: {error}"))))?;
    save(path, state, metadata).map_err(FitError::Checkpoint)
}

// %% notebooks/10_learner.ipynb le-checkpoint
/// Everything that a training goes on from, but for the callbacks.
struct Whole<'a> {
    model: &'a dyn Module,
    optimizer: &'a Optimizer,
    rng: &'a Generator,
    pass: &'a Generator,
}

// %% notebooks/10_learner.ipynb le-save-whole
fn save_whole(
    path: &Path,
    whole: Whole,
    position: &Position,
    (count, callback): (usize, &dyn Fn(usize) -> StateDict),
) -> Result<(), FitError> {
    let bytes = |bytes: Vec<u8>| Value::U8(Array::new(bytes.clone(), &[bytes.len()]));
    let mut state = prefixed("model/", state_dict(whole.model));
    state.append(&mut prefixed("optimizer/", optimizer_state(whole.optimizer)));
    state.insert("rng".into(), bytes(whole.rng.state()));
    state.insert("pass".into(), bytes(whole.pass.state()));
    for i in 0..count {
        state.append(&mut prefixed(&format!("callbacks/{i}/"), callback(i)));
    }
    write(path, &state, &metadata(position))
}

// %% notebooks/10_learner.ipynb le-save-checkpoint
/// Where the training is.
fn position<'a, T: Task>(learner: &Learner<T>, inside: Option<(&'a Plan, usize)>) -> Position<'a> {
    Position { epoch: learner.epoch, epochs: learner.epochs, batches: learner.train_batches, inside }
}

/// Writes the checkpoint, if there is to be one: at a batch of an epoch (its plan, the next batch), or after one.
fn save_checkpoint<T: Task>(
    learner: &Learner<T>,
    inside: Option<(&Plan, usize)>,
    callbacks: Callbacks<T>,
) -> Result<(), FitError> {
    let Some(checkpoint) = &learner.checkpoint else { return Ok(()) };
    let (model, optimizer) = (learner.task.model(), &learner.optimizer);
    let whole = Whole { model, optimizer, rng: &learner.rng, pass: &learner.pass.rng };
    let states = |i: usize| callbacks[i].state();
    save_whole(&checkpoint.path, whole, &position(learner, inside), (callbacks.len(), &states))
}

// %% notebooks/10_learner.ipynb le-generator
/// The generator that a checkpoint holds under a name.
fn generator(state: &StateDict, name: &str) -> Result<Generator, String> {
    match state.get(name) {
        Some(Value::U8(bytes)) => {
            Generator::from_state(elements(bytes)).map_err(|error| format!("{name}: {error}"))
        }
        _ => Err(format!("there is no `{name}`")),
    }
}

/// Whether this is the training that made the checkpoint.
fn fits(resumed: &Resumed, epochs: usize, batches: usize) -> Result<(), FitError> {
    if (resumed.epochs, resumed.batches) == (epochs, batches) {
        return Ok(());
    }
    let what = format!(
        "was made by a training of {} epochs with {} batches each, this one has {epochs} and {batches}: give the \
         same number of epochs, data and batch size, or start anew",
        resumed.epochs, resumed.batches
    );
    Err(FitError::Checkpoint(StateError::new(&resumed.path, what)))
}

// %% notebooks/10_learner.ipynb le-read
/// What is left of a checkpoint when model and optimiser have theirs.
type Rest = (Box<dyn AsRef<Resumed>>, [Generator; 2]);

/// Reads a checkpoint into model and optimiser.
fn read_checkpoint(path: &Path, model: &dyn Module, optimizer: &mut Optimizer) -> Result<Rest, StateError> {
    let (state, metadata) = load(path)?;
    let wrong = |what: String| StateError::new(path, format!("is no checkpoint of this training: {what}"));
    let (rng, pass) = (generator(&state, "rng").map_err(wrong)?, generator(&state, "pass").map_err(wrong)?);
    let number = |key: &str| -> Option<u64> { metadata.get(key)?.parse().ok() };
    let needed = |key: &str| number(key).ok_or_else(|| wrong(format!("it does not say `{key}`")));
    let [epoch, epochs, batches] =
        [needed("epoch")?, needed("epochs")?, needed("batches")?].map(|number| number as usize);
    let position = match number("next") {
        Some(next) => Some((Plan { base: needed("base")?, order: number("order") }, next as usize)),
        None => None,
    };
    load_state_dict(model, &inside(&state, "model/")).map_err(|error| error.of(path))?;
    load_optimizer_state(optimizer, &inside(&state, "optimizer/")).map_err(|error| error.of(path))?;
    let (path, callbacks) = (path.to_owned(), inside(&state, "callbacks/"));
    let resumed = Resumed { path, epoch, epochs, batches, position, callbacks };
    Ok((Box::new(resumed), [rng, pass]))
}

// %% notebooks/10_learner.ipynb le-resume
/// Gives `load` what the callback number `i` knew.
fn remind(resumed: &Resumed, i: usize, load: &mut dyn FnMut(&StateDict)) {
    load(&inside(&resumed.callbacks, &format!("{i}/")));
}

impl<T: Task> Learner<T> {
    /// Takes model, optimiser and random numbers out of a checkpoint; the next [`fit`](Self::fit) goes on where it was
    /// made. Model, data, epochs and callbacks must be those of the training that made it.
    ///
    /// # Errors
    /// When the file cannot be read, or is of another model.
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<(), StateError> {
        let (resumed, [rng, pass]) = read_checkpoint(path.as_ref(), self.task.model(), &mut self.optimizer)?;
        (self.rng, self.pass.rng, self.resumed) = (rng, pass, Some(resumed));
        Ok(())
    }
}

// %% notebooks/10_learner.ipynb le-batch
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

// %% notebooks/10_learner.ipynb le-backward
fn backward<T: Task>(learner: &mut Learner<T>) -> Result<(), FitError> {
    let loss = learner.loss.as_ref().expect("a loss");
    if loss.item().is_finite() {
        loss.backward();
        return Ok(());
    }
    let (task, batch) = (&learner.task, learner.batch.as_ref().expect("the batch that went wrong"));
    let origin = first_not_finite(&mut learner.pass, &mut |pass| drop(task.predict(batch, pass)));
    Err(FitError::Diverged { epoch: learner.epoch + 1, batch: learner.index + 1, origin })
}

// %% notebooks/10_learner.ipynb le-one-batch
/// What happens with a batch. A callback that skips the rest after the backward pass leaves the gradients:
/// those of the next batch are added to them.
fn one_batch<T: Task>(learner: &mut Learner<T>, callbacks: Callbacks<T>) -> Result<Flow, FitError> {
    let mut flow = tell(learner, callbacks, Event::BeforeBatch);
    if flow == Flow::Continue {
        let batch = learner.batch.as_ref().expect("a callback took the batch: put one back");
        let predictions = learner.task.predict(batch, &mut learner.pass);
        learner.loss = Some(learner.task.loss(&predictions, batch));
        learner.predictions = Some(predictions);
        flow = tell(learner, callbacks, Event::AfterLoss);
    }
    if flow == Flow::Continue && learner.mode == Mode::Train {
        backward(learner)?;
        flow = tell(learner, callbacks, Event::AfterBackward);
        if flow == Flow::Continue {
            learner.optimizer.step();
            learner.optimizer.zero_grad();
        }
    }
    Ok(if flow == Flow::Continue { tell(learner, callbacks, Event::AfterBatch) } else { flow })
}

// %% notebooks/10_learner.ipynb le-interrupt
use minai::io::interrupt;

/// `interrupted in epoch 2 of 5, before batch 18 of 235`
fn say_interrupted(position: &Position, checkpoint: Option<&Checkpoint>) {
    let Position { epoch, epochs, batches, inside } = position;
    let place = inside.map(|(_, next)| format!("before batch {} of {batches}", next + 1));
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
    callbacks: Callbacks<T>,
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
    callbacks: Callbacks<T>,
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
    callbacks: Callbacks<T>,
) -> Result<(Plan, usize), Flow> {
    if let Some(position) = position {
        return Ok(position);
    }
    let flow = tell(learner, callbacks, Event::BeforeEpoch);
    if flow >= Flow::SkipEpoch {
        return Err(flow);
    }
    let plan = train.plan(&mut learner.rng);
    learner.pass.rng = plan.network();
    Ok((plan, 0))
}

// %% notebooks/10_learner.ipynb le-validate
/// The batches of the validation set.
fn validate<T: Task>(
    learner: &mut Learner<T>,
    valid: &dyn Source<T::Batch>,
    callbacks: Callbacks<T>,
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
    callbacks: Callbacks<T>,
) -> Result<Flow, FitError> {
    (learner.mode, learner.index, learner.batches) = (Mode::Train, 0, train.len());
    let mut flow = match begin_epoch(learner, position, train, callbacks) {
        Ok((plan, first)) => all_batches(learner, train, (&plan, first), callbacks)?,
        Err(flow) => {
            learner.epoch += usize::from(flow == Flow::SkipEpoch);
            return Ok(flow);
        }
    };
    if flow != Flow::Stop {
        flow = validate(learner, valid, callbacks)?;
    }
    if flow != Flow::Stop {
        flow = tell(learner, callbacks, Event::AfterEpoch);
        learner.epoch += 1;
        save_checkpoint(learner, None, callbacks)?;
    }
    Ok(flow)
}

// %% notebooks/10_learner.ipynb le-go-on
/// Puts learner and callbacks where the checkpoint was made, if there is one to go on from.
fn go_on<T: Task>(
    learner: &mut Learner<T>,
    callbacks: Callbacks<T>,
) -> Result<Option<(Plan, usize)>, FitError> {
    let Some(resumed) = learner.resumed.take() else { return Ok(None) };
    let resumed = (*resumed).as_ref();
    fits(resumed, learner.epochs, learner.train_batches)?;
    learner.epoch = resumed.epoch;
    for (i, callback) in callbacks.iter_mut().enumerate() {
        remind(resumed, i, &mut |state| callback.load_state(state));
    }
    Ok(resumed.position.clone())
}

// %% notebooks/10_learner.ipynb le-all-epochs
fn all_epochs<T: Task>(
    learner: &mut Learner<T>,
    epochs: usize,
    sources: [&dyn Source<T::Batch>; 2],
    callbacks: Callbacks<T>,
) -> Result<(), FitError> {
    (learner.epoch, learner.epochs, learner.index, learner.interrupted) = (0, epochs, 0, false);
    (learner.batches, learner.train_batches) = (sources[0].len(), sources[0].len());
    if let (None, Some(checkpoint)) = (&learner.resumed, &learner.checkpoint) {
        offer(checkpoint)?;
    }
    let mut flow = tell(learner, callbacks, Event::BeforeFit);
    let mut position = go_on(learner, callbacks)?;
    while learner.epoch < epochs && flow != Flow::Stop {
        flow = one_epoch(learner, position.take(), sources, callbacks)?;
    }
    let _ = tell(learner, callbacks, Event::AfterFit);
    Ok(())
}

// %% notebooks/10_learner.ipynb le-fit
fn sources<B, D: Dataset<Batch = B>, E: Dataset<Batch = B>>(
    loaders: &DataLoaders<D, E>,
) -> [&dyn Source<B>; 2] {
    [&loaders.train, &loaders.valid]
}

/// Sets the rule's learning rate, and its momentum if there is one to set.
pub fn set_rates(rule: &mut dyn Rule, (lr, momentum): (f32, Option<f32>)) {
    rule.set_lr(lr);
    if let Some(momentum) = momentum {
        rule.set_momentum(momentum);
    }
}

impl<T: Task> Learner<T> {
    /// Trains for some epochs; after [`resume`](Self::resume), for what is left of them. When somebody interrupts the
    /// program, it ends after the step at hand, and [`interrupted`](Self::interrupted) is true. Afterwards the optimiser
    /// has the learning rate and the momentum that it had before, whatever callbacks did to them.
    ///
    /// # Errors
    /// When the loss is not finite any more, or a checkpoint cannot be used.
    pub fn fit<D, E>(
        &mut self,
        epochs: usize,
        loaders: &DataLoaders<D, E>,
        callbacks: &mut [&mut dyn Callback<T>],
    ) -> Result<(), FitError>
    where
        D: Dataset<Batch = T::Batch>,
        E: Dataset<Batch = T::Batch>,
    {
        let before = (self.optimizer.rule.lr(), self.optimizer.rule.momentum());
        let result = all_epochs(self, epochs, sources(loaders), callbacks);
        set_rates(&mut *self.optimizer.rule, before); // what a schedule did to them was for this training only
        result
    }
}
