// Owned by notebooks/30_weights.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash eba04c281d5b83f6
//! Published weights: safetensors files that are mapped into memory, half precision, foreign tensor names, and models built before their weights are loaded.

// %% notebooks/30_weights.ipynb re-errors
use minai::state::StateError;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The longest header that is read, in bytes: hundreds of thousands of names would fit.
const HEADER_LIMIT: u64 = 1 << 23;

/// What a file that is no safetensors file may be, by its first bytes.
fn what_else(first: &[u8]) -> Option<&'static str> {
    Some(match first {
        [b'{', ..] => {
            "a JSON text, perhaps the index of a model in several files (shards), which is not read here; name the safetensors file itself, and for a sharded model get it in one file"
        }
        [b'P', b'K', 3, 4, ..] | [0x80, 2, ..] => {
            "one of PyTorch's own format (a pickle), which could run programs; get the model as safetensors"
        }
        _ if first.starts_with(b"version ") => {
            "only a pointer to a file (Git LFS); fetch the file itself, with `git lfs pull` or over HTTPS"
        }
        [b'<', ..] => "a web page, probably with an error on it; read it, and fetch the file again",
        _ => return None,
    })
}

fn unreadable(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; check the path, or fetch the file first".into(),
        _ => format!("{error}; check the file's permissions and its disk"),
    }
}

/// Opens a file, if it is one.
fn open_file(path: &Path) -> Result<(File, u64), String> {
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    match about.is_file() {
        true => Ok((file, about.len())),
        false => Err("is a folder or a device; name a file".into()),
    }
}

// %% notebooks/30_weights.ipynb re-header
use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, SafeTensors};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// Counts a header's entries, names that occur twice included.
struct Count;

impl<'de> Visitor<'de> for Count {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
}

/// Whether an array of this shape can be: also without the zeros in it, which make any product zero.
fn is_possible(shape: &[usize]) -> bool {
    let mut sizes = shape.iter().filter(|&&size| size > 0);
    let product = sizes.try_fold(1_usize, |product, &size| product.checked_mul(size));
    shape.len() <= 16 && product.is_some_and(|product| product <= isize::MAX as usize / 8)
}

/// Where the numbers begin, and what the header says.
fn read_header(bytes: &[u8]) -> Result<(usize, Metadata), String> {
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(|error| {
        let why = error.to_string(); // may hold a name of any length
        format!("is no safetensors file, or a damaged one ({why:.200}); fetch it again")
    })?;
    let (names, start) = (header.offset_keys(), 8 + length);
    let mut json = serde_json::Deserializer::from_slice(&bytes[8..start]);
    let count = json
        .deserialize_map(Count)
        .map_err(|error| format!("has a damaged header ({error}); fetch it again"))?;
    if count != names.len() + usize::from(header.metadata().is_some()) {
        return Err("has two tensors of one name; get it from a source that you trust".into());
    }
    match names.iter().find(|name| header.info(name).is_some_and(|info| !is_possible(&info.shape))) {
        None => Ok((start, header)),
        Some(name) => {
            Err(format!("`{name:.200}` has an impossible shape; get the file from a source that you trust"))
        }
    }
}

// %% notebooks/30_weights.ipynb re-file
use memmap2::Mmap;

/// A safetensors file that is mapped into memory: what is read of it is fetched from the disk, and nothing else.
///
/// As long as this lives, nobody may change or shorten the file. (Replacing it by another one, as
/// [`save`](crate::state::save) does, is harmless.)
pub struct WeightFile {
    path: PathBuf,
    map: Mmap,
    /// Where the numbers begin.
    start: usize,
    header: Metadata,
}

impl WeightFile {
    /// Maps the file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be read, is no safetensors file, is cut short, or has a header that is longer than 8 MiB,
    /// has a name twice, or does not fit what follows it.
    pub fn open(path: impl AsRef<Path>) -> Result<WeightFile, StateError> {
        let path = path.as_ref();
        let opened = open_file(path).and_then(|(file, len)| WeightFile::map(path, &file, len));
        opened.map_err(|what| StateError::new(path, what))
    }

    fn map(path: &Path, file: &File, len: u64) -> Result<WeightFile, String> {
        if len < 8 {
            return Err(format!("has only {len} bytes; fetch it again"));
        }
        // SAFETY: the mapping is only read, and its documentation forbids that others write to the file meanwhile.
        let map = unsafe { Mmap::map(file) }.map_err(unreadable)?;
        let header = u64::from_le_bytes(*map.first_chunk().expect("8 bytes"));
        if header > HEADER_LIMIT.min(map.len() as u64 - 8) {
            return Err(match what_else(&map[..8]) {
                Some(kind) => format!("is no safetensors file, but {kind}"),
                None => format!(
                    "is no safetensors file, or cut short: it has {len} bytes, its header would have {header}; check that it is the right file, and fetch it again"
                ),
            });
        }
        let (start, header) = read_header(&map)?;
        Ok(WeightFile { path: path.to_path_buf(), map, start, header })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tensors' names, in the order in which they lie in the file.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The size of each axis of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| &info.shape[..])
    }

    /// The type of a tensor's numbers, as the file calls it: `F32`, `F16`, `BF16`, `I64`.
    pub fn dtype(&self, name: &str) -> Option<String> {
        self.header.info(name).map(|info| info.dtype.to_string())
    }

    /// A tensor's bytes.
    fn bytes(&self, info: &TensorInfo) -> &[u8] {
        let (from, to) = info.data_offsets;
        &self.map[self.start + from..self.start + to]
    }

    /// Gives back the memory that a tensor's bytes take; they are read again from the file if need be.
    fn release(&self, info: &TensorInfo) {
        #[cfg(unix)]
        {
            let (from, to) = info.data_offsets;
            // SAFETY: the mapping is of a file and read-only: pages given back come again with the same contents.
            // That the advice fails is no harm.
            let _ = unsafe {
                self.map.unchecked_advise_range(
                    memmap2::UncheckedAdvice::DontNeed,
                    self.start + from,
                    to - from,
                )
            };
        }
        #[cfg(not(unix))]
        let _ = info;
    }
}

// %% notebooks/30_weights.ipynb re-halfarray
use half::f16;
use minai::array::Array;
use minai::kernels;
use minai::kernels::half::Kind;

/// The floating-point type, if it is one that is read.
fn kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F16 => Some(Kind::F16),
        Dtype::BF16 => Some(Kind::Bf16),
        Dtype::F32 => Some(Kind::F32),
        Dtype::F64 => Some(Kind::F64),
        _ => None,
    }
}

/// Numbers in 16 bits each, of a shape.
struct HalfArray {
    kind: Kind,
    bits: Vec<u16>,
    shape: Vec<usize>,
}

impl HalfArray {
    fn to_array(&self) -> Array {
        Array::new(kernels::half::widen(self.kind, &self.bits), &self.shape)
    }
}

// %% notebooks/30_weights.ipynb re-keep
/// How a model's weights are kept in memory. Arithmetic is in f32 in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As f32: 4 bytes a weight.
    Single,
    /// As the file has them: what is f16 or bf16 there stays so.
    Stored,
    /// In 2 bytes a weight: f32 becomes f16, and bf16 stays as it is.
    ///
    /// For [`Stored`](Precision::Stored) and for this one: tensors with fewer than two axes (biases, norms) become f32. They
    /// are few, and small errors in them matter most.
    Half,
}

/// What a parameter or a buffer is given.
enum Numbers {
    Single(Array),
    Half(HalfArray),
    Whole(Array<i64>),
}

impl Numbers {
    /// How many bytes of memory they take.
    fn bytes(&self) -> usize {
        match self {
            Numbers::Single(array) => 4 * array.len(),
            Numbers::Half(half) => 2 * half.bits.len(),
            Numbers::Whole(array) => 8 * array.len(),
        }
    }
}

// %% notebooks/30_weights.ipynb re-read
fn too_large(name: &str) -> String {
    format!(
        "`{name:.200}` holds numbers beyond {}, the largest of f16; keep these weights in f32 (Precision::Single)",
        f16::MAX
    )
}

impl WeightFile {
    /// A tensor's numbers as they are to be kept.
    fn numbers(&self, name: &str, info: &TensorInfo, precision: Precision) -> Result<Numbers, String> {
        let (shape, bytes) = (&info.shape[..], self.bytes(info));
        if info.dtype == Dtype::I64 {
            let numbers = bytes.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes));
            return Ok(Numbers::Whole(Array::new(numbers.collect(), shape)));
        }
        let kind = kind(info.dtype).ok_or_else(|| {
            format!(
                "`{name:.200}` holds numbers of type {}, where floats belong; get the right file",
                info.dtype
            )
        })?;
        let (numbers, finite) = match precision {
            Precision::Stored | Precision::Half if kind.size() == 2 && shape.len() > 1 => {
                let (bits, finite) = kernels::half::keep(kind, bytes);
                (Numbers::Half(HalfArray { kind, bits, shape: shape.to_vec() }), finite)
            }
            Precision::Half if shape.len() > 1 => {
                let narrowed = kernels::half::narrow(kind, bytes);
                if narrowed.finite && !narrowed.fits {
                    return Err(too_large(name));
                }
                let bits = narrowed.bits;
                (Numbers::Half(HalfArray { kind: Kind::F16, bits, shape: shape.to_vec() }), narrowed.finite)
            }
            _ => {
                let (numbers, finite) = kernels::half::decode(kind, bytes);
                (Numbers::Single(Array::new(numbers, shape)), finite)
            }
        };
        match finite {
            true => Ok(numbers),
            false => Err(format!(
                "`{name:.200}` holds numbers that are infinite or not a number (NaN); fetch the file again, or get it from a source that you trust"
            )),
        }
    }

    /// A tensor's numbers as f32.
    ///
    /// # Errors
    /// When the file has no tensor of this name, or its numbers are no floats, or not finite.
    pub fn array(&self, name: &str) -> Result<Array, StateError> {
        let info = self.header.info(name).ok_or_else(|| format!("has no tensor `{name:.200}`; see names()"));
        let numbers = info.and_then(|info| self.numbers(name, info, Precision::Single));
        match numbers.map_err(|what| StateError::new(&self.path, what))? {
            Numbers::Single(array) => Ok(array),
            _ => Err(StateError::new(&self.path, format!("`{name}` holds whole numbers, not floats"))),
        }
    }
}

// %% notebooks/30_weights.ipynb re-pending
use minai::generator::Generator;
use minai::nn::{Init, Parameter};
use std::rc::Rc;

/// An [`Init`] that makes shapes without values. A model made with it takes no memory until [`load_weights`] or
/// [`initialize`] fills it; reading a parameter before that panics. Norms begin with 1 and 0, as always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending;

impl Init for Pending {
    fn parameter(&mut self, shape: &[usize], _: &dyn Fn(&mut Generator) -> Array) -> Parameter {
        let text = format!("{shape:?}");
        let complain = move || {
            panic!(
                "a parameter of shape {text} has no values yet: load_weights or initialize the model first"
            )
        };
        Parameter::lazy(shape, Rc::new(complain))
    }
}

// %% notebooks/30_weights.ipynb re-place
use minai::nn::AnyBuffer;

/// What a name of a module stands for.
enum Place {
    Weight(Parameter),
    Extra(AnyBuffer),
}

impl Place {
    fn shape(&self) -> Vec<usize> {
        match self {
            Place::Weight(parameter) => parameter.shape(),
            Place::Extra(AnyBuffer::F32(buffer)) => buffer.get().shape().to_vec(),
            Place::Extra(AnyBuffer::I64(buffer)) => buffer.get().shape().to_vec(),
        }
    }

    fn is_whole(&self) -> bool {
        matches!(self, Place::Extra(AnyBuffer::I64(_)))
    }

    /// How it is kept: buffers have no half types.
    fn precision(&self, wanted: Precision) -> Precision {
        if matches!(self, Place::Extra(_)) { Precision::Single } else { wanted }
    }

    fn give(&self, numbers: Numbers) {
        match (self, numbers) {
            (Place::Weight(parameter), Numbers::Single(array)) => parameter.set(array),
            (Place::Weight(parameter), Numbers::Half(half)) => {
                parameter.make_lazy(Rc::new(move || half.to_array()))
            }
            (Place::Extra(AnyBuffer::F32(buffer)), Numbers::Single(array)) => buffer.set(array),
            (Place::Extra(AnyBuffer::I64(buffer)), Numbers::Whole(array)) => buffer.set(array),
            _ => unreachable!("types were compared before"),
        }
    }
}

// %% notebooks/30_weights.ipynb re-plan
use std::collections::{BTreeMap, BTreeSet};

/// Which tensor of a file goes where in a module.
struct Plan {
    /// The file's name, and the module's, in the file's order.
    pairs: Vec<(String, String)>,
    left_out: Vec<String>,
}

/// Matches a file's names, renamed, with a module's.
fn match_names(
    places: &BTreeMap<String, Place>,
    file: &WeightFile,
    rename: &dyn Fn(&str) -> Option<String>,
) -> Result<Plan, String> {
    let (mut plan, mut trouble) = (Plan { pairs: vec![], left_out: vec![] }, vec![]);
    let mut missing: BTreeSet<&String> = places.keys().collect();
    for name in file.names() {
        let Some(wanted) = rename(&name) else {
            plan.left_out.push(name);
            continue;
        };
        let called = if name == wanted { String::new() } else { format!(" (`{name:.200}` in the file)") };
        let info = file.header.info(&name).expect("a name of this file");
        match places.get(&wanted) {
            None => trouble.push(format!("`{wanted:.200}`{called} is not in the model")),
            Some(_) if !missing.remove(&wanted) => {
                trouble.push(format!("`{wanted:.200}`{called} is there twice"))
            }
            Some(place) if place.is_whole() != (info.dtype == Dtype::I64) => trouble.push(format!(
                "`{wanted}`{called} is of type {}, the model has {}",
                info.dtype,
                if place.is_whole() { "whole numbers (I64)" } else { "floats" }
            )),
            Some(place) if place.shape() != info.shape => trouble.push(format!(
                "`{wanted}`{called} has shape {:?}, the model expects {:?}",
                info.shape,
                place.shape()
            )),
            Some(_) => plan.pairs.push((name, wanted)),
        }
    }
    trouble.extend(
        missing.iter().map(|name| format!("`{name}` of shape {:?} is missing", places[*name].shape())),
    );
    if trouble.is_empty() {
        return Ok(plan);
    }
    let (count, shown) = (trouble.len(), trouble.len().min(6));
    let more = if count > shown { format!("; and {} more", count - shown) } else { String::new() };
    let list = trouble[..shown].join("; ");
    Err(format!("does not fit the model: {list}{more}. Check that weights and config are of one model"))
}

// %% notebooks/30_weights.ipynb re-load
use minai::nn::{Module, Parts};

/// What [`load_weights`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadReport {
    /// How many tensors of the file the model now has.
    pub tensors: usize,
    /// How many values these have.
    pub values: usize,
    /// How many bytes of memory the values take.
    pub bytes: usize,
    /// The tensors of the file that `rename` left out.
    pub left_out: Vec<String>,
}

fn load_file(
    module: &dyn Module,
    file: &WeightFile,
    precision: Precision,
    rename: &dyn Fn(&str) -> Option<String>,
) -> Result<LoadReport, String> {
    let parts = Parts::of(module);
    let parameters = parts.parameters.into_iter().map(|(name, p)| (name, Place::Weight(p)));
    let buffers = parts.buffers.into_iter().map(|(name, buffer)| (name, Place::Extra(buffer)));
    let places: BTreeMap<String, Place> = parameters.chain(buffers).collect();
    let plan = match_names(&places, file, rename)?;
    let mut loaded = LoadReport { tensors: plan.pairs.len(), values: 0, bytes: 0, left_out: plan.left_out };
    // First all is read, then all is changed: or a damaged tensor would leave half a model.
    let mut changes = Vec::new();
    for (name, wanted) in plan.pairs {
        let info = file.header.info(&name).expect("a name of this file");
        let place = &places[&wanted];
        let numbers = file.numbers(&name, info, place.precision(precision))?;
        file.release(info);
        loaded.values += info.shape.iter().product::<usize>();
        loaded.bytes += numbers.bytes();
        changes.push((place, numbers));
    }
    changes.into_iter().for_each(|(place, numbers)| place.give(numbers));
    Ok(loaded)
}

/// Fills a module from a safetensors file. `rename` says what the module calls a tensor that the file calls so; `None`
/// means that the tensor is harmless and left out. Apart from that the two must have the same names and shapes, or
/// nothing is changed. The file is read once, in order, and given back to the system as it goes.
///
/// # Errors
/// When the file is not as [`WeightFile::open`] wants it; when tensors are missing, superfluous or misshapen, of which
/// the error lists some; when a weight is not finite, or too large for f16 if that is how it is to be kept.
pub fn load_weights(
    module: &dyn Module,
    path: impl AsRef<Path>,
    precision: Precision,
    rename: &dyn Fn(&str) -> Option<String>,
) -> Result<LoadReport, StateError> {
    let file = WeightFile::open(path)?;
    load_file(module, &file, precision, rename).map_err(|what| StateError::new(&file.path, what))
}

// %% notebooks/30_weights.ipynb re-init
use minai::nn::{initial_bias, initial_weight, named_parameters};
use minai::tensor::elements;

/// The initial values of a parameter, as PyTorch's layers begin. `fan_in` is that of the weight to which it belongs, 0
/// for a norm.
fn initial(rng: &mut Generator, shape: &[usize], fan_in: usize, is_bias: bool) -> Array {
    match (fan_in, is_bias) {
        (0, true) => Array::new(vec![0.0; shape.iter().product()], shape),
        (0, false) => Array::new(vec![1.0; shape.iter().product()], shape),
        (_, true) => initial_bias(rng, shape[0], fan_in).data(),
        (_, false) => initial_weight(rng, shape).data(),
    }
}

/// The values as they are kept in this precision.
fn kept(array: Array, precision: Precision) -> Numbers {
    let shape = array.shape().to_vec();
    if precision != Precision::Half || shape.len() < 2 {
        return Numbers::Single(array);
    }
    let bits = kernels::half::narrow_f32(elements(&array)).bits;
    Numbers::Half(HalfArray { kind: Kind::F16, bits, shape })
}

// %% notebooks/30_weights.ipynb re-initialize
/// Gives every parameter of a model the random values that PyTorch's layers begin with: weights uniform within
/// ± 1 / √fan_in, their biases too; norms (a weight with one axis, and the bias beside it) 1 and 0. An embedding's table
/// is treated as a weight, which is about the scale of CLIP's. The same seed gives the same model.
///
/// # Panics
/// If a module has a weight whose fan-in is 0.
pub fn initialize(model: &dyn Module, rng: &mut Generator, precision: Precision) {
    let mut fan_in = 0; // of the last weight
    for (name, parameter) in named_parameters(model) {
        let (shape, is_bias) = (parameter.shape(), name.ends_with("bias"));
        if !is_bias {
            fan_in = if shape.len() > 1 { shape[1..].iter().product() } else { 0 };
        }
        let values = kept(initial(rng, &shape, fan_in, is_bias), precision);
        Place::Weight(parameter).give(values);
    }
}

// %% notebooks/30_weights.ipynb re-config
use serde_json::{Map, Value};
use std::io::Read;

/// The longest config that is read, in bytes.
const CONFIG_LIMIT: u64 = 1 << 20;

/// A model's settings: a JSON object, as published models have them in `config.json`.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    entries: Map<String, Value>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, has more than a megabyte, or is no JSON object.
    pub fn open(path: impl AsRef<Path>) -> Result<Config, StateError> {
        let path = path.as_ref();
        let read = || {
            let (file, len) = open_file(path)?;
            if len > CONFIG_LIMIT {
                return Err(format!(
                    "has {len} bytes, which is no config's size; check that it is the right file"
                ));
            }
            let mut json = String::new();
            file.take(CONFIG_LIMIT).read_to_string(&mut json).map_err(unreadable)?;
            Ok(json)
        };
        read().map_err(|what| StateError::new(path, what)).and_then(|json| Config::parse(path, &json))
    }

    /// A config from its text; errors call it `name`.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(name: impl AsRef<Path>, json: &str) -> Result<Config, StateError> {
        let path = name.as_ref();
        let fail = |what: String| StateError::new(path, what);
        match serde_json::from_str(json) {
            Ok(Value::Object(entries)) => Ok(Config { path: path.to_path_buf(), entries }),
            Ok(_) => Err(fail("is JSON, but no object (`{…}`); check that it is the right file".into())),
            Err(error) => Err(fail(format!("is no JSON ({error}); fetch it again"))),
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the entries, in the file's order.
    pub fn keys(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    /// Whether there is an entry of this name that is not `null`.
    pub fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| !value.is_null())
    }

    /// An error about an entry: for values that are of the right type and yet not possible.
    pub fn error(&self, key: &str, what: &str) -> StateError {
        StateError::new(&self.path, format!("`{key}` {what}"))
    }

    /// The entry, as `read` understands it.
    fn entry<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, StateError> {
        let Some(value) = self.entries.get(key) else {
            return Err(self.error(key, &format!("is missing; {expected} belongs there")));
        };
        let text = value.to_string();
        let text: String = text.chars().take(80).collect();
        read(value)
            .ok_or_else(|| self.error(key, &format!("is {text}, where {expected} belongs; correct the file")))
    }
}

// %% notebooks/30_weights.ipynb re-values
fn whole(value: &Value) -> Option<usize> {
    value.as_u64().filter(|&number| number < 1 << 31).map(|number| number as usize)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

impl Config {
    /// A whole number from 0 to 2³¹ - 1.
    ///
    /// # Errors
    /// When it is missing, or something else: as for all of these methods, the error names file and entry.
    pub fn usize(&self, key: &str) -> Result<usize, StateError> {
        self.entry(key, "a whole number", whole)
    }

    /// A number.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn f64(&self, key: &str) -> Result<f64, StateError> {
        self.entry(key, "a number", Value::as_f64)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn bool(&self, key: &str) -> Result<bool, StateError> {
        self.entry(key, "`true` or `false`", Value::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn text(&self, key: &str) -> Result<String, StateError> {
        self.entry(key, "a text in quotes", text)
    }

    /// A list of whole numbers.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn usizes(&self, key: &str) -> Result<Vec<usize>, StateError> {
        self.entry(key, "a list of whole numbers", |value| value.as_array()?.iter().map(whole).collect())
    }

    /// A list of texts.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, StateError> {
        self.entry(key, "a list of texts", |value| value.as_array()?.iter().map(text).collect())
    }
}

/// The same for entries that may be missing, or `null`.
impl Config {
    /// [`usize`](Config::usize), or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize, StateError> {
        if self.has(key) { self.usize(key) } else { Ok(default) }
    }

    /// [`f64`](Config::f64), or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn f64_or(&self, key: &str, default: f64) -> Result<f64, StateError> {
        if self.has(key) { self.f64(key) } else { Ok(default) }
    }

    /// [`bool`](Config::bool), or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, StateError> {
        if self.has(key) { self.bool(key) } else { Ok(default) }
    }

    /// [`text`](Config::text), or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text_or(&self, key: &str, default: &str) -> Result<String, StateError> {
        if self.has(key) { self.text(key) } else { Ok(default.to_owned()) }
    }

    /// [`usizes`](Config::usizes), or `default` if there are none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn usizes_or(&self, key: &str, default: &[usize]) -> Result<Vec<usize>, StateError> {
        if self.has(key) { self.usizes(key) } else { Ok(default.to_vec()) }
    }

    /// [`texts`](Config::texts), or `default` if there are none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts_or(&self, key: &str, default: &[&str]) -> Result<Vec<String>, StateError> {
        if self.has(key) {
            self.texts(key)
        } else {
            Ok(default.iter().map(|text| text.to_string()).collect())
        }
    }
}

// %% notebooks/30_weights.ipynb re-size
/// A size of a network: a whole number from 1 to `most`, or `default` if there is none.
///
/// # Errors
/// When it is something else.
pub fn size_or(config: &Config, key: &str, default: usize, most: usize) -> Result<usize, StateError> {
    match config.usize_or(key, default)? {
        size if (1..=most).contains(&size) => Ok(size),
        size => {
            Err(config.error(key, &format!("is {size}, where 1 to {most} is possible; correct the file")))
        }
    }
}
