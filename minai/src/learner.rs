// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 3592b2bf9fa711bb
//! The [`Learner`]: a training loop whose every step a [`Callback`] can see and change.

// %% notebooks/10_learner.ipynb le-task
use minai::array::Array;
use minai::data::data_folder;
use minai::datasets::DataLoaders;
use minai::generator::Generator;
use minai::loader::{DataLoader, Dataset, Plan};
use minai::loss::cross_entropy;
use minai::nn::{Layer, Mode, Module, Pass};
use minai::optimizer::Optimizer;
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

/// Inputs get scores, one for each class; the loss is the cross-entropy.
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
/// Why training ended before its time.
#[derive(Debug)]
pub enum FitError {
    /// The loss is no finite number any more.
    Diverged {
        /// The epoch, from 1.
        epoch: usize,
        /// The batch in this epoch, from 1.
        batch: usize,
        /// The first layer whose output is not finite: its path and its kind.
        layer: Option<String>,
    },
    /// A checkpoint could not be written, or does not belong to this training.
    Checkpoint(StateError),
}

impl std::error::Error for FitError {}

impl fmt::Display for FitError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            FitError::Diverged { epoch, batch, layer } => {
                write!(f, "training diverged: in epoch {epoch}, batch {batch}, the loss is not finite; ")?;
                match layer {
                    Some(layer) => write!(f, "first went the output of layer {layer}")?,
                    None => write!(f, "all layers' outputs are finite, so look at the loss and the targets")?,
                }
                write!(f, ". Try a smaller learning rate, and look for NaN in the inputs")
            }
            FitError::Checkpoint(error) => error.fmt(f),
        }
    }
}

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

    /// In a notebook, whose variables an interrupt costs: `checkpoints/NAME.safetensors` in the course's data folder.
    pub fn in_notebook(name: &str) -> Option<Self> {
        std::env::var_os("EVCXR_IS_RUNTIME")?;
        let folder = data_folder().unwrap_or_default().join("checkpoints");
        Some(Checkpoint::new(folder.join(format!("{name}.safetensors"))))
    }

    /// Says that there is an unfinished training, if there is, and keeps its file under another name.
    fn offer(&self) -> Result<(), FitError> {
        let Ok((_, metadata)) = load(&self.path) else { return Ok(()) };
        let [epoch, epochs] = ["epoch", "epochs"].map(|key| metadata.get(key).cloned().unwrap_or_default());
        if epoch == epochs {
            return Ok(());
        }
        let kept = self.path.with_extension("unfinished.safetensors");
        std::fs::rename(&self.path, &kept).map_err(|error| {
            FitError::Checkpoint(StateError::new(&kept, format!("cannot be written: {error}")))
        })?;
        println!(
            "An unfinished training of that name ({epoch} of {epochs} epochs) was there. This one starts anew; to go on \
             with the other one, call `learner.resume({:?})?` before `fit`.",
            kept.display().to_string()
        );
        Ok(())
    }
}

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
    resumed: Option<Resumed>,
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
            resumed: None,
        }
    }

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
/// How training goes on after a callback was asked.
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

impl Resumed {
    /// Puts learner and callbacks where the checkpoint was made.
    fn go_on<T: Task>(
        &self,
        learner: &mut Learner<T>,
        callbacks: &mut [&mut dyn Callback<T>],
    ) -> Result<(), FitError> {
        let (epochs, batches) = (learner.epochs, learner.batches);
        if (self.epochs, self.batches) != (epochs, batches) {
            let what = format!(
                "was made by a training of {} epochs with {} batches each, this one has {epochs} and {batches}: give the \
                 same number of epochs, data and batch size, or start anew",
                self.epochs, self.batches
            );
            return Err(FitError::Checkpoint(StateError::new(&self.path, what)));
        }
        learner.epoch = self.epoch;
        for (i, callback) in callbacks.iter_mut().enumerate() {
            callback.load_state(&inside(&self.callbacks, &format!("{i}/")));
        }
        Ok(())
    }
}

impl<T: Task> Learner<T> {
    /// Writes the checkpoint, if it is time: at a batch of an epoch (its plan, the next batch), or behind an epoch.
    fn save_checkpoint(
        &self,
        position: Option<(&Plan, usize)>,
        callbacks: &mut [&mut dyn Callback<T>],
    ) -> Result<(), FitError> {
        let Some(Checkpoint { path, every }) = &self.checkpoint else { return Ok(()) };
        if position.is_some_and(|(_, next)| every.is_none_or(|every| next % every != 0)) {
            return Ok(());
        }
        let bytes = |bytes: Vec<u8>| Value::U8(Array::new(bytes.clone(), &[bytes.len()]));
        let mut state = prefixed("model/", state_dict(self.task.model()));
        state.append(&mut prefixed("optimizer/", optimizer_state(&self.optimizer)));
        state.insert("rng".into(), bytes(self.rng.state()));
        state.insert("pass".into(), bytes(self.pass.rng.state()));
        for (i, callback) in callbacks.iter().enumerate() {
            state.append(&mut prefixed(&format!("callbacks/{i}/"), callback.state()));
        }
        let mut metadata = Metadata::from([
            ("epoch".to_owned(), self.epoch.to_string()),
            ("epochs".to_owned(), self.epochs.to_string()),
            ("batches".to_owned(), self.train_batches.to_string()),
        ]);
        if let Some((plan, next)) = position {
            metadata.insert("next".into(), next.to_string());
            metadata.insert("base".into(), plan.base.to_string());
            metadata.extend(plan.order.map(|seed| ("order".to_owned(), seed.to_string())));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(|error| {
            FitError::Checkpoint(StateError::new(folder, format!("cannot be made: {error}")))
        })?;
        save(path, &state, &metadata).map_err(FitError::Checkpoint)
    }

    /// Takes model, optimiser and random numbers out of a checkpoint; the next [`fit`](Self::fit) goes on where it was
    /// made. Model, data, epochs and callbacks must be those of the training that made it.
    ///
    /// # Errors
    /// When the file cannot be read, or is of another model.
    pub fn resume(&mut self, path: impl AsRef<Path>) -> Result<(), StateError> {
        let path = path.as_ref();
        let (state, metadata) = load(path)?;
        let wrong =
            |what: String| StateError::new(path, format!("is no checkpoint of this training: {what}"));
        let number = |key: &str| -> Option<u64> { metadata.get(key)?.parse().ok() };
        let needed = |key: &str| number(key).ok_or_else(|| wrong(format!("it does not say `{key}`")));
        let generator = |name: &str| match state.get(name) {
            Some(Value::U8(bytes)) => {
                Generator::from_state(elements(bytes)).map_err(|error| wrong(format!("{name}: {error}")))
            }
            _ => Err(wrong(format!("there is no `{name}`"))),
        };
        let (rng, pass) = (generator("rng")?, generator("pass")?);
        let (epoch, epochs, batches) = (needed("epoch")?, needed("epochs")?, needed("batches")?);
        let position = match number("next") {
            Some(next) => Some((Plan { base: needed("base")?, order: number("order") }, next as usize)),
            None => None,
        };
        load_state_dict(self.task.model(), &inside(&state, "model/")).map_err(|error| error.of(path))?;
        load_optimizer_state(&mut self.optimizer, &inside(&state, "optimizer/"))
            .map_err(|error| error.of(path))?;
        (self.rng, self.pass.rng) = (rng, pass);
        let callbacks = inside(&state, "callbacks/");
        let (epoch, epochs, batches) = (epoch as usize, epochs as usize, batches as usize);
        self.resumed = Some(Resumed { path: path.to_owned(), epoch, epochs, batches, position, callbacks });
        Ok(())
    }
}

// %% notebooks/10_learner.ipynb le-batch
/// Asks all callbacks, in order; the answer that changes most counts.
fn tell<T: Task>(
    learner: &mut Learner<T>,
    callbacks: &mut [&mut dyn Callback<T>],
    event: impl Fn(&mut dyn Callback<T>, &mut Learner<T>) -> Flow,
) -> Flow {
    callbacks.iter_mut().map(|callback| event(&mut **callback, learner)).max().unwrap_or(Flow::Continue)
}

impl<T: Task> Learner<T> {
    /// Runs the batch at hand again and looks at what comes out of each layer.
    fn diverged(&mut self) -> FitError {
        let first = Rc::new(RefCell::new(None));
        let found = first.clone();
        let look = move |path: &str, layer: &dyn Layer, _: &Tensor, y: &Tensor| {
            if y.data.iter().any(|y| !y.is_finite()) {
                found.borrow_mut().get_or_insert_with(|| format!("`{path}` ({})", layer.name()));
            }
        };
        let hook = self.pass.hook.replace(Box::new(look));
        let _ = self.task.predict(self.batch.as_ref().expect("the batch that went wrong"), &mut self.pass);
        self.pass.hook = hook;
        FitError::Diverged { epoch: self.epoch + 1, batch: self.index + 1, layer: first.take() }
    }
}

impl<T: Task> Learner<T> {
    /// The batches of one set, from number `first` on.
    fn all_batches<D: Dataset<Batch = T::Batch>>(
        &mut self,
        loader: &DataLoader<D>,
        plan: &Plan,
        first: usize,
        callbacks: &mut [&mut dyn Callback<T>],
    ) -> Result<Flow, FitError> {
        (self.pass.mode, self.batches) = (self.mode, loader.len());
        for (index, batch) in (first..).zip(loader.batches(plan, first)) {
            (self.index, self.batch) = (index, Some(batch));
            let flow = self.one_batch(callbacks)?;
            (self.batch, self.predictions, self.loss) = (None, None, None);
            if flow >= Flow::SkipEpoch {
                return Ok(flow);
            }
            if self.mode == Mode::Train {
                self.save_checkpoint(Some((plan, index + 1)), callbacks)?;
            }
        }
        Ok(Flow::Continue)
    }

    /// What happens with a batch. A callback that skips the rest behind the backward pass leaves the gradients:
    /// those of the next batch are added to them.
    fn one_batch(&mut self, callbacks: &mut [&mut dyn Callback<T>]) -> Result<Flow, FitError> {
        let flow = tell(self, callbacks, |callback, learner| callback.before_batch(learner));
        if flow != Flow::Continue {
            return Ok(flow);
        }
        let batch = self.batch.as_ref().expect("a callback took the batch: put one back");
        let predictions = self.task.predict(batch, &mut self.pass);
        self.loss = Some(self.task.loss(&predictions, batch));
        self.predictions = Some(predictions);
        let flow = tell(self, callbacks, |callback, learner| callback.after_loss(learner));
        if flow != Flow::Continue {
            return Ok(flow);
        }
        if self.mode == Mode::Train {
            if !self.loss_value().is_finite() {
                return Err(self.diverged());
            }
            self.loss.as_ref().expect("a loss").backward();
            let flow = tell(self, callbacks, |callback, learner| callback.after_backward(learner));
            if flow != Flow::Continue {
                return Ok(flow);
            }
            self.optimizer.step();
            self.optimizer.zero_grad();
        }
        Ok(tell(self, callbacks, |callback, learner| callback.after_batch(learner)))
    }
}

// %% notebooks/10_learner.ipynb le-fit
/// The callbacks' say before an epoch's first batch.
fn before_epoch<T: Task>(learner: &mut Learner<T>, callbacks: &mut [&mut dyn Callback<T>]) -> Flow {
    tell(learner, callbacks, |callback, learner| callback.before_epoch(learner))
}

impl<T: Task> Learner<T> {
    /// Trains for some epochs; after [`resume`](Self::resume), for what is left of them.
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
        (self.epoch, self.epochs, self.index) = (0, epochs, 0);
        (self.batches, self.train_batches) = (loaders.train.len(), loaders.train.len());
        let mut resumed = self.resumed.take();
        if resumed.is_none()
            && let Some(checkpoint) = &self.checkpoint
        {
            checkpoint.offer()?;
        }
        let mut flow = tell(self, callbacks, |callback, learner| callback.before_fit(learner));
        if let Some(resumed) = &resumed {
            resumed.go_on(self, callbacks)?;
        }
        while self.epoch < epochs && flow != Flow::Stop {
            let position = resumed.take().and_then(|resumed| resumed.position);
            flow = self.one_epoch(position, loaders, callbacks)?;
        }
        let _ = tell(self, callbacks, |callback, learner| callback.after_fit(learner));
        Ok(())
    }

    /// An epoch of training and validation, from its beginning or from the batch where a checkpoint was made.
    fn one_epoch<D, E>(
        &mut self,
        position: Option<(Plan, usize)>,
        loaders: &DataLoaders<D, E>,
        callbacks: &mut [&mut dyn Callback<T>],
    ) -> Result<Flow, FitError>
    where
        D: Dataset<Batch = T::Batch>,
        E: Dataset<Batch = T::Batch>,
    {
        let DataLoaders { train, valid } = loaders;
        (self.mode, self.index, self.batches) = (Mode::Train, 0, train.len());
        let (plan, first) = match position {
            Some(position) => position,
            None => {
                match before_epoch(self, callbacks) {
                    Flow::SkipEpoch => {
                        self.epoch += 1;
                        return Ok(Flow::Continue);
                    }
                    Flow::Stop => return Ok(Flow::Stop),
                    Flow::Continue | Flow::SkipBatch => {}
                }
                let plan = train.plan(&mut self.rng);
                self.pass.rng = plan.network();
                (plan, 0)
            }
        };
        if self.all_batches(train, &plan, first, callbacks)? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        self.mode = Mode::Eval;
        let plan = valid.plan(&mut self.rng);
        if self.all_batches(valid, &plan, 0, callbacks)? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        let flow = tell(self, callbacks, |callback, learner| callback.after_epoch(learner));
        self.epoch += 1;
        self.save_checkpoint(None, callbacks)?;
        Ok(flow)
    }
}
