// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 5d8adbec0df5a9b3
//! Named arrays in safetensors files, the form in which models are published: read with care, written at once or not at all.

use crate::nn::{AnyBuffer, Module, Parts};
use crate::optimizer::Optimizer;

// %% notebooks/06_training.ipynb sd-value
use minai::array::Array;
use std::collections::BTreeMap;

/// An array of one of the types that state dicts hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// 32-bit floats: weights. Those of 16 and 64 bits become such when they are read.
    F32(Array),
    /// 64-bit integers: counts. Shorter ones become such when they are read.
    I64(Array<i64>),
    /// Bytes, and truth values.
    U8(Array<u8>),
}

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

/// Arrays under their names, in alphabetical order.
pub type StateDict = BTreeMap<String, Value>;

/// Texts of any meaning that a file carries besides.
pub type Metadata = BTreeMap<String, String>;

// %% notebooks/06_training.ipynb sd-numbers
use safetensors::Dtype;

/// A 16-bit float as one of 32 bits.
fn half(bits: u16) -> f32 {
    let (sign, size) = (u32::from(bits & 0x8000) << 16, bits & 0x7FFF);
    let widened = u32::from(size) << 13;
    match size < 0x7C00 {
        true => f32::from_bits((f32::from_bits(widened) * 2_f32.powi(112)).to_bits() | sign),
        false => f32::from_bits(widened | 0x7F80_0000 | sign),
    }
}

/// Numbers of N bytes each, lowest byte first.
fn numbers<T, const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&bytes| number(bytes)).collect()
}

/// The array with these bytes; `None` if its type is none of ours.
fn value(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Option<Value> {
    let floats = |list| Some(Value::F32(Array::new(list, shape)));
    let whole = |list| Some(Value::I64(Array::new(list, shape)));
    match dtype {
        Dtype::F32 => floats(numbers(bytes, f32::from_le_bytes)),
        Dtype::F16 => floats(numbers(bytes, |two| half(u16::from_le_bytes(two)))),
        Dtype::BF16 => floats(numbers(bytes, |[low, high]| f32::from_le_bytes([0, 0, low, high]))),
        Dtype::F64 => floats(numbers(bytes, |eight| f64::from_le_bytes(eight) as f32)),
        Dtype::I64 => whole(numbers(bytes, i64::from_le_bytes)),
        Dtype::I32 => whole(numbers(bytes, |four| i32::from_le_bytes(four).into())),
        Dtype::I16 => whole(numbers(bytes, |two| i16::from_le_bytes(two).into())),
        Dtype::I8 => whole(numbers(bytes, |one| i8::from_le_bytes(one).into())),
        Dtype::U8 | Dtype::BOOL => Some(Value::U8(Array::new(bytes.to_vec(), shape))),
        _ => None,
    }
}

// %% notebooks/06_training.ipynb sd-error
use std::path::{Path, PathBuf};
use std::{error, fmt};

/// A state that cannot be saved, loaded or used: which file, what is wrong, and what to do.
#[derive(Debug)]
pub struct StateError {
    /// The file; empty if the state is not from one.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
}

impl StateError {
    /// An error about a file.
    pub fn new(path: &Path, what: impl Into<String>) -> Self {
        StateError { path: path.to_path_buf(), what: what.into() }
    }

    /// The same error about another file: for those that were found in a state, before it was known whence it came.
    pub fn of(self, path: &Path) -> Self {
        StateError::new(path, self.what)
    }
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.path.as_os_str().is_empty() {
            true => write!(f, "{}", self.what),
            false => write!(f, "{}: {}", self.path.display(), self.what),
        }
    }
}

impl error::Error for StateError {}

// %% notebooks/06_training.ipynb sd-read
use std::fs::File;
use std::io::{self, Read, Write};

/// The longest header that is read or written, in bytes: hundreds of thousands of names would fit.
const HEADER_LIMIT: u64 = 1 << 23;

/// The whole file, if it can be a safetensors file and there is memory for it; else what is wrong.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; check the path, or fetch or save the file first".into()
        }
        _ => format!("{error}; check the file's permissions and its disk"),
    };
    let mut file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if !about.is_file() {
        return Err("is a folder or a device; name a file".into());
    }
    let (mut first, len) = ([0; 8], about.len());
    if len < 8 {
        return Err(format!("has only {len} bytes; fetch or save it again"));
    }
    file.read_exact(&mut first).map_err(unreadable)?;
    let header = u64::from_le_bytes(first);
    if header > HEADER_LIMIT.min(len - 8) {
        return Err(format!(
            "is no safetensors file, or cut short: it has {len} bytes, its header would have {header}; check that it is the right file, and fetch it again"
        ));
    }
    let mut bytes = Vec::new();
    let room = usize::try_from(len).is_ok_and(|len| bytes.try_reserve_exact(len).is_ok());
    if !room {
        return Err(format!("has {len} bytes, for which there is no memory; use a smaller model"));
    }
    bytes.extend(first);
    file.take(len - 8).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(bytes)
}

/// How many names the outermost level of a JSON text has, names that occur twice included.
fn count_names(json: &[u8]) -> usize {
    let (mut names, mut depth, mut quoted, mut escaped) = (0, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b':' if depth == 1 => names += 1,
            _ => {}
        }
    }
    names
}

/// Whether an array of this shape can be: also without the zeros in it, which make any product zero.
fn is_possible(shape: &[usize]) -> bool {
    let product =
        shape.iter().filter(|&&size| size > 0).try_fold(1_usize, |product, &size| product.checked_mul(size));
    product.is_some_and(|product| product <= isize::MAX as usize)
}

// %% notebooks/06_training.ipynb sd-load
use safetensors::SafeTensors;

/// The arrays of a safetensors file and its metadata.
///
/// Floats of 16 and 64 bits become 32-bit ones, integers of fewer than 64 bits become 64-bit ones, and truth values bytes.
///
/// # Errors
/// When the file cannot be read, is no safetensors file, is damaged, has a name twice, or holds other types of numbers.
pub fn load(path: impl AsRef<Path>) -> Result<(StateDict, Metadata), StateError> {
    let path = path.as_ref();
    read_file(path).and_then(read_state).map_err(|what| StateError::new(path, what))
}

fn read_state(mut bytes: Vec<u8>) -> Result<(StateDict, Metadata), String> {
    let (length, header) = SafeTensors::read_metadata(&bytes).map_err(|error| {
        let why = error.to_string(); // may hold a name of any length
        format!("is no safetensors file, or a damaged one ({why:.200}); fetch or save it again")
    })?;
    let (names, start) = (header.offset_keys(), 8 + length);
    if count_names(&bytes[8..start]) != names.len() + usize::from(header.metadata().is_some()) {
        return Err("has two arrays of one name; get it from a source that you trust".into());
    }
    let mut state = StateDict::new();
    for name in names.into_iter().rev() {
        let info = header.info(&name).expect("a name of this header");
        let (from, to) = info.data_offsets;
        let array = match is_possible(&info.shape) {
            true => value(info.dtype, &info.shape, &bytes[start + from..start + to]),
            false => {
                return Err(format!(
                    "`{name:.200}` has an impossible shape; get the file from a source that you trust"
                ));
            }
        };
        let Some(array) = array else {
            return Err(format!(
                "`{name:.200}` holds numbers of type {}, which are not read here; convert them to F32",
                info.dtype
            ));
        };
        state.insert(name, array);
        bytes.truncate(start + from);
        bytes.shrink_to_fit();
    }
    Ok((state, header.metadata().iter().flatten().map(|(key, text)| (key.clone(), text.clone())).collect()))
}

// %% notebooks/06_training.ipynb sd-save
use safetensors::tensor::{View as Saved, serialize};
use std::borrow::Cow;
use std::fs;

impl Saved for &Value {
    fn dtype(&self) -> Dtype {
        match self {
            Value::F32(_) => Dtype::F32,
            Value::I64(_) => Dtype::I64,
            Value::U8(_) => Dtype::U8,
        }
    }

    fn shape(&self) -> &[usize] {
        Value::shape(self)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Value::F32(array) => array.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Value::I64(array) => array.iter().flat_map(|number| number.to_le_bytes()).collect(),
            Value::U8(array) => array.iter().copied().collect(),
        }
    }

    fn data_len(&self) -> usize {
        self.shape().iter().product::<usize>() * Saved::dtype(self).bitsize() / 8
    }
}

/// A text as JSON has it.
fn quoted(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c < ' ' => format!("\\u{:04x}", c as u32),
        c => c.into(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// A header with the metadata in front, filled up with spaces to a multiple of 8 bytes.
fn header_with(metadata: &Metadata, header: &str) -> String {
    let entries: Vec<_> =
        metadata.iter().map(|(key, text)| format!("{}:{}", quoted(key), quoted(text))).collect();
    let rest = header.trim_end().trim_start_matches('{');
    let comma = if rest == "}" { "" } else { "," };
    let header = format!("{{\"__metadata__\":{{{}}}{comma}{rest}", entries.join(","));
    format!(
        "{header:width$}",
        width = header.len().next_multiple_of(8) - header.len() + header.chars().count()
    )
}

/// Writes a file that is there as a whole or not at all; one that was there before is replaced at once.
fn write_at_once(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&part)?;
        parts.iter().try_for_each(|bytes| file.write_all(bytes))?;
        file.sync_all()
    };
    if let Err(error) = write().and_then(|()| fs::rename(&part, path)) {
        let _ = fs::remove_file(&part); // there may be none
        return Err(error);
    }
    #[cfg(unix)]
    match path.parent() {
        Some(folder) if folder != Path::new("") => File::open(folder)?.sync_all()?,
        _ => File::open(".")?.sync_all()?,
    }
    Ok(())
}

/// Saves arrays and metadata as a safetensors file. A file of that name is replaced once the new one is on the disk.
///
/// The same content gives the same bytes. Only one thread or process at a time may save to a path.
///
/// # Errors
/// When the file cannot be written, or the header would be longer than 8 MiB.
pub fn save(path: impl AsRef<Path>, state: &StateDict, metadata: &Metadata) -> Result<(), StateError> {
    let path = path.as_ref();
    let fail = |what: String| StateError::new(path, what);
    if state.contains_key("__metadata__") {
        return Err(fail("no array can be called `__metadata__`; give it another name".into()));
    }
    let bytes = serialize(state, None).map_err(|error| fail(format!("{error}; nothing was saved")))?;
    let (length, rest) = bytes.split_first_chunk().expect("a length of 8 bytes");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let header = header_with(metadata, str::from_utf8(header).expect("JSON"));
    let length = header.len() as u64;
    if length > HEADER_LIMIT {
        return Err(fail("names and metadata have more than 8 MiB; nothing was saved, shorten them".into()));
    }
    write_at_once(path, &[&length.to_le_bytes(), header.as_bytes(), data]).map_err(|error| {
        fail(format!("{error}; check the folder, its permissions, and the room on the disk"))
    })
}

// %% notebooks/06_training.ipynb st-module
use minai::tensor::elements;

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

/// Puts saved numbers into a module: all names and shapes must be the module's, or nothing is changed.
///
/// # Errors
/// When names are missing or superfluous, or a shape or type differs; the error lists them.
pub fn load_state_dict(module: &dyn Module, state: &StateDict) -> Result<(), StateError> {
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

/// Whether the two have the same names, types and shapes.
fn compare(wanted: &StateDict, given: &StateDict) -> Result<(), StateError> {
    let mut trouble = Vec::new();
    for (name, wanted) in wanted {
        match given.get(name) {
            None => trouble.push(format!("`{name}` is missing")),
            Some(given) if (given.dtype(), given.shape()) != (wanted.dtype(), wanted.shape()) => trouble
                .push(format!(
                    "`{name}` is {} {:?}, the model has {} {:?}",
                    given.dtype(),
                    given.shape(),
                    wanted.dtype(),
                    wanted.shape()
                )),
            Some(_) => {}
        }
    }
    trouble.extend(
        given
            .keys()
            .filter(|name| !wanted.contains_key(*name))
            .map(|name| format!("`{name}` is not in the model")),
    );
    if trouble.is_empty() {
        return Ok(());
    }
    let (shown, more) = (trouble.len().min(8), trouble.len().saturating_sub(8));
    let rest = if more > 0 { format!("; and {more} more") } else { String::new() };
    let what = format!(
        "does not fit the model: {}{rest}. Build the model that was saved",
        trouble[..shown].join("; ")
    );
    Err(StateError::new(Path::new(""), what))
}

// %% notebooks/06_training.ipynb st-optimizer
/// How many steps an optimiser made, and what its rule remembers of each parameter.
pub fn optimizer_state(optimizer: &Optimizer) -> StateDict {
    let list = |(name, list): (String, &[f32])| (name, Value::F32(Array::new(list.to_vec(), &[list.len()])));
    let mut state: StateDict = optimizer.memory().into_iter().map(list).collect();
    state.insert("step".into(), Value::I64(Array::new(vec![i64::from(optimizer.steps())], &[])));
    state
}

/// Puts back what [`optimizer_state`] gave.
///
/// # Errors
/// When it is the state of another rule or model; then nothing is changed.
pub fn load_optimizer_state(optimizer: &mut Optimizer, state: &StateDict) -> Result<(), StateError> {
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
