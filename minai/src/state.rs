// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash a6a89406aec35370
//! Named arrays in safetensors files, the form in which models are published: saved, loaded, and put into a module.

use crate::nn::{AnyBuffer, Module, Parts};
use crate::optimizer::Optimizer;

// %% notebooks/06_training.ipynb sd-value
use minai::array::Array;
use std::collections::BTreeMap;

/// An array of one of the types that state dicts hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 32-bit floats: weights. Floats of 16 and 64 bits become 32-bit ones when they are read.
    F32(Array),
    /// 64-bit integers: counts. Shorter ones become 64-bit ones when they are read.
    I64(Array<i64>),
    /// Bytes, and truth values.
    U8(Array<u8>),
}

// %% notebooks/06_training.ipynb sd-shape
impl Value {
    /// The size of each axis.
    pub fn shape(&self) -> &[usize] {
        match self {
            Value::F32(array) => array.shape(),
            Value::I64(array) => array.shape(),
            Value::U8(array) => array.shape(),
        }
    }

    /// The name of the element type.
    pub fn dtype(&self) -> &'static str {
        match self {
            Value::F32(array) => array.dtype(),
            Value::I64(array) => array.dtype(),
            Value::U8(array) => array.dtype(),
        }
    }
}

// %% notebooks/06_training.ipynb sd-dict
/// Arrays under their names, in alphabetical order.
pub type StateDict = BTreeMap<String, Value>;

/// Texts that a file carries beside its arrays.
pub type Metadata = BTreeMap<String, String>;

// %% notebooks/06_training.ipynb sd-types
use minai::io::file::FileError;
use minai::io::safetensors::{Dtype, TensorFile, write};
use std::path::Path;

/// What goes wrong with a state: the file, if it came from one, what is wrong, and what to do.
pub type StateError = FileError;

// %% notebooks/06_training.ipynb sd-load
/// The arrays of a safetensors file and its metadata.
///
/// Floats of 16 and 64 bits become 32-bit ones, integers of fewer than 64 bits become 64-bit ones, and truth values bytes.
///
/// # Errors
/// When the file cannot be read, is no safetensors file, is damaged, has a name twice, or holds other types.
pub fn load(path: impl AsRef<Path>) -> Result<(StateDict, Metadata), FileError> {
    let file = TensorFile::open(path)?;
    let mut state = StateDict::new();
    for name in file.names() {
        let value = match file.dtype(&name) {
            Some(Dtype::I8 | Dtype::I16 | Dtype::I32 | Dtype::I64) => Value::I64(file.i64(&name)?),
            Some(Dtype::BOOL | Dtype::U8) => Value::U8(file.u8(&name)?),
            _ => Value::F32(file.f32(&name)?),
        };
        state.insert(name, value);
    }
    Ok((state, file.metadata()))
}

// %% notebooks/06_training.ipynb sd-bytes
use safetensors::tensor::View as Saved;
use std::borrow::Cow;

fn bytes_of(value: &Value) -> Cow<'_, [u8]> {
    match value {
        Value::F32(array) => array.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Value::I64(array) => array.iter().flat_map(|n| n.to_le_bytes()).collect(),
        Value::U8(array) => array.iter().copied().collect(),
    }
}

fn type_of(value: &Value) -> Dtype {
    match value {
        Value::F32(_) => Dtype::F32,
        Value::I64(_) => Dtype::I64,
        Value::U8(_) => Dtype::U8,
    }
}

// %% notebooks/06_training.ipynb sd-save
fn byte_count(value: &Value) -> usize {
    value.shape().iter().product::<usize>() * type_of(value).bitsize() / 8
}

impl Saved for Value {
    fn dtype(&self) -> Dtype {
        type_of(self)
    }

    fn shape(&self) -> &[usize] {
        Value::shape(self)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        bytes_of(self)
    }

    fn data_len(&self) -> usize {
        byte_count(self)
    }
}

// %% notebooks/06_training.ipynb sd-save-file
/// Saves arrays and metadata as a safetensors file. A file of that name is replaced once the new one is on the disk.
///
/// The same content gives the same bytes. Only one thread or process at a time may save to a path.
///
/// # Errors
/// When the file cannot be written, or the header would be longer than 8 MiB.
pub fn save(path: impl AsRef<Path>, state: &StateDict, metadata: &Metadata) -> Result<(), FileError> {
    write(path, state, metadata)
}

// %% notebooks/06_training.ipynb st-compare
/// Whether the two have the same names, types and shapes.
fn compare(wanted: &StateDict, given: &StateDict) -> Result<(), FileError> {
    let kind = |value: &Value| format!("{} {:?}", value.dtype(), value.shape());
    let mut trouble = Vec::new();
    for (name, wanted) in wanted {
        match given.get(name).map(kind) {
            None => trouble.push(format!("`{name}` is missing")),
            Some(given) if given == kind(wanted) => {}
            Some(given) => trouble.push(format!("`{name}` is {given}, the model has {}", kind(wanted))),
        }
    }
    let superfluous = given.keys().filter(|name| !wanted.contains_key(*name));
    trouble.extend(superfluous.map(|name| format!("`{name}` is not in the model")));
    if trouble.is_empty() {
        return Ok(());
    }
    let (shown, more) = (trouble.len().min(8), trouble.len().saturating_sub(8));
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    let list = trouble[..shown].join("; ");
    let what = format!("does not fit the model: {list}{rest}. Build the model that was saved");
    Err(FileError::new(Path::new(""), what))
}

// %% notebooks/06_training.ipynb st-state-dict
/// All parameters and buffers of a module under their names, as PyTorch's `state_dict()`.
pub fn state_dict(module: &dyn Module) -> StateDict {
    let parts = Parts::of(module);
    let parameters = parts.parameters.into_iter().map(|(name, p)| (name, Value::F32(p.data())));
    let buffers = parts.buffers.into_iter().map(|(name, buffer)| match buffer {
        AnyBuffer::F32(buffer) => (name, Value::F32(buffer.get())),
        AnyBuffer::I64(buffer) => (name, Value::I64(buffer.get())),
    });
    parameters.chain(buffers).collect()
}

// %% notebooks/06_training.ipynb st-module
/// Puts saved arrays into a module: all names and shapes must be the module's, or nothing is changed.
///
/// # Errors
/// When names are missing or superfluous, or a shape or type differs; the error lists them.
pub fn load_state_dict(module: &dyn Module, state: &StateDict) -> Result<(), FileError> {
    let (parts, now) = (Parts::of(module), state_dict(module));
    compare(&now, state)?;
    for (name, parameter) in parts.parameters {
        if let Some(Value::F32(data)) = state.get(&name) {
            parameter.set(data.clone());
        }
    }
    for (name, buffer) in parts.buffers {
        match (buffer, state.get(&name)) {
            (AnyBuffer::F32(buffer), Some(Value::F32(data))) => buffer.set(data.clone()),
            (AnyBuffer::I64(buffer), Some(Value::I64(data))) => buffer.set(data.clone()),
            _ => {}
        }
    }
    Ok(())
}

// %% notebooks/06_training.ipynb st-optimizer
/// How many steps an optimiser made, and what its rule remembers of each parameter.
pub fn optimizer_state(optimizer: &Optimizer) -> StateDict {
    let list = |(name, list): (String, &[f32])| (name, Value::F32(Array::new(list.to_vec(), &[list.len()])));
    let mut state: StateDict = optimizer.memory().into_iter().map(list).collect();
    state.insert("step".into(), Value::I64(Array::new(vec![i64::from(optimizer.steps())], &[])));
    state
}

// %% notebooks/06_training.ipynb st-optimizer-load
use minai::tensor::elements;

/// Puts back what [`optimizer_state`] gave.
///
/// # Errors
/// When it is the state of another rule or model; then nothing is changed.
pub fn load_optimizer_state(optimizer: &mut Optimizer, state: &StateDict) -> Result<(), FileError> {
    compare(&optimizer_state(optimizer), state)?;
    let steps = match state.get("step") {
        Some(Value::I64(step)) => elements(step)[0] as u32,
        _ => 0,
    };
    optimizer.restore(steps, |name| match &state[name] {
        Value::F32(list) => elements(list).to_vec(),
        _ => unreachable!("compared above"),
    });
    Ok(())
}
