// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash de9b2cf28e0f3eaa
//! Checkpoints: files from which a training goes on as if it had never been interrupted.

// %% notebooks/10_learner.ipynb le-position
use minai::loader::Plan;

/// Where a training is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epochs that are done.
    pub epoch: usize,
    /// How many there will be.
    pub epochs: usize,
    /// The batches of an epoch.
    pub batches: usize,
    /// Inside an epoch: its plan, and the batch that comes next.
    pub inside: Option<(Plan, usize)>,
}

// %% notebooks/10_learner.ipynb le-place
use std::path::{Path, PathBuf};

/// Where and how often a training is saved, so that it can be resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The file. It is replaced atomically: there is always a whole one.
    pub path: PathBuf,
    /// Save after this many batches too, not only after each epoch.
    pub every: Option<usize>,
}

impl Checkpoint {
    /// A file that is written after each epoch.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Checkpoint { path: path.into(), every: None }
    }
}

// %% notebooks/10_learner.ipynb le-resumed
/// What was read from a checkpoint, and is not in model and optimiser already.
pub(crate) struct Resumed {
    pub(crate) path: PathBuf,
    pub(crate) position: Position,
    pub(crate) task: StateDict,
    pub(crate) callbacks: StateDict,
}

impl AsRef<Resumed> for Resumed {
    fn as_ref(&self) -> &Resumed {
        self
    }
}

// %% notebooks/10_learner.ipynb le-offer
use minai::state::{Metadata, StateDict, StateError, Value, load, save};

/// Says that there is an unfinished training, if there is, and keeps its file under another name.
pub(crate) fn keep_unfinished(path: &Path) -> Result<(), StateError> {
    let Ok((_, metadata)) = load(path) else { return Ok(()) };
    let [epoch, epochs] = ["epoch", "epochs"].map(|key| metadata.get(key).cloned().unwrap_or_default());
    if epoch == epochs {
        return Ok(());
    }
    let kept = path.with_extension("unfinished.safetensors");
    std::fs::rename(path, &kept)
        .map_err(|error| StateError::new(&kept, format!("cannot be written: {error}")))?;
    println!(
        "An unfinished training ({epoch} of {epochs} epochs) was there. This one starts anew; to resume the other one, \
         call `learner.resume({:?})?` before `fit`.",
        kept.display().to_string()
    );
    Ok(())
}

// %% notebooks/10_learner.ipynb le-save
/// The entries whose names begin so, without that beginning.
pub(crate) fn inside(state: &StateDict, prefix: &str) -> StateDict {
    let cut = |(name, value): (&String, &Value)| Some((name.strip_prefix(prefix)?.to_owned(), value.clone()));
    state.iter().filter_map(cut).collect()
}

/// All entries, with a beginning before each name.
pub(crate) fn prefixed(prefix: &str, state: StateDict) -> StateDict {
    state.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)).collect()
}

// %% notebooks/10_learner.ipynb le-write
fn metadata(position: &Position) -> Metadata {
    let mut metadata = Metadata::from([
        ("epoch".to_owned(), position.epoch.to_string()),
        ("epochs".to_owned(), position.epochs.to_string()),
        ("batches".to_owned(), position.batches.to_string()),
    ]);
    if let Some((plan, next)) = &position.inside {
        metadata.insert("next".into(), next.to_string());
        metadata.insert("base".into(), plan.base.to_string());
        metadata.extend(plan.order.map(|seed| ("order".to_owned(), seed.to_string())));
    }
    metadata
}

// %% notebooks/10_learner.ipynb le-write-file
/// Writes the file, in a folder that is made if need be.
fn write(path: &Path, state: &StateDict, metadata: &Metadata) -> Result<(), StateError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    std::fs::create_dir_all(folder)
        .map_err(|error| StateError::new(folder, format!("cannot be made: {error}")))?;
    save(path, state, metadata)
}

// %% notebooks/10_learner.ipynb le-checkpoint
use minai::generator::Generator;
use minai::nn::Module;
use minai::optimizer::Optimizer;

/// Everything that a training is resumed from.
pub(crate) struct Whole<'a> {
    pub(crate) model: &'a dyn Module,
    pub(crate) optimizer: &'a Optimizer,
    pub(crate) rng: &'a Generator,
    pub(crate) pass: &'a Generator,
    pub(crate) task: StateDict,
    pub(crate) callbacks: StateDict,
}

// %% notebooks/10_learner.ipynb le-save-whole
use minai::array::Array;
use minai::state::{load_optimizer_state, load_state_dict, optimizer_state, state_dict};
use minai::tensor::elements;

pub(crate) fn save_whole(path: &Path, whole: Whole, position: &Position) -> Result<(), StateError> {
    let bytes = |bytes: Vec<u8>| Value::U8(Array::new(bytes.clone(), &[bytes.len()]));
    let mut state = prefixed("model/", state_dict(whole.model));
    state.append(&mut prefixed("optimizer/", optimizer_state(whole.optimizer)));
    state.append(&mut prefixed("task/", whole.task));
    state.append(&mut prefixed("callbacks/", whole.callbacks));
    state.insert("rng".into(), bytes(whole.rng.state()));
    state.insert("pass".into(), bytes(whole.pass.state()));
    write(path, &state, &metadata(position))
}

// %% notebooks/10_learner.ipynb le-fits
/// Whether this is the training that made the checkpoint.
pub(crate) fn fits(resumed: &Resumed, epochs: usize, batches: usize) -> Result<(), StateError> {
    let position = &resumed.position;
    if (position.epochs, position.batches) == (epochs, batches) {
        return Ok(());
    }
    let what = format!(
        "was made by a training of {} epochs with {} batches each, this one has {epochs} and {batches}: give the \
         same number of epochs, data and batch size, or start anew",
        position.epochs, position.batches
    );
    Err(StateError::new(&resumed.path, what))
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

// %% notebooks/10_learner.ipynb le-position-in
/// The way back. `Err` is what is missing.
fn position_in(metadata: &Metadata) -> Result<Position, String> {
    let number = |key: &str| -> Option<u64> { metadata.get(key)?.parse().ok() };
    let needed = |key: &str| number(key).ok_or_else(|| format!("it does not say `{key}`"));
    let [epoch, epochs, batches] =
        [needed("epoch")?, needed("epochs")?, needed("batches")?].map(|number| number as usize);
    let inside = match number("next") {
        Some(next) => Some((Plan { base: needed("base")?, order: number("order") }, next as usize)),
        None => None,
    };
    Ok(Position { epoch, epochs, batches, inside })
}

// %% notebooks/10_learner.ipynb le-read
/// Reads a checkpoint into model and optimiser. What is left, and the two generators: for the loaders, for the network.
pub(crate) fn read_checkpoint(
    path: &Path,
    model: &dyn Module,
    optimizer: &mut Optimizer,
) -> Result<(Resumed, [Generator; 2]), StateError> {
    let (state, metadata) = load(path)?;
    let wrong = |what: String| StateError::new(path, format!("is no checkpoint of this training: {what}"));
    let (rng, pass) = (generator(&state, "rng").map_err(wrong)?, generator(&state, "pass").map_err(wrong)?);
    let position = position_in(&metadata).map_err(wrong)?;
    load_state_dict(model, &inside(&state, "model/")).map_err(|error| error.of(path))?;
    load_optimizer_state(optimizer, &inside(&state, "optimizer/")).map_err(|error| error.of(path))?;
    let (task, callbacks) = (inside(&state, "task/"), inside(&state, "callbacks/"));
    Ok((Resumed { path: path.to_owned(), position, task, callbacks }, [rng, pass]))
}
