// Owned by notebooks/30_weights.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash d4269a5eef7b6337
//! Published weights: half precision, foreign tensor names, and models built before their weights are loaded.

// %% notebooks/30_weights.ipynb re-halfarray
use half::f16;
use minai::array::Array;
use minai::kernels;
use minai::kernels::half::Kind;

/// Values in 16 bits each, of a shape.
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

// %% notebooks/30_weights.ipynb re-keep-b
/// What a parameter or a buffer is given.
enum Values {
    Single(Array),
    Half(HalfArray),
    Whole(Array<i64>),
}

impl Values {
    /// How many bytes of memory they take.
    fn bytes(&self) -> usize {
        match self {
            Values::Single(array) => 4 * array.len(),
            Values::Half(half) => 2 * half.bits.len(),
            Values::Whole(array) => 8 * array.len(),
        }
    }

    /// The same values in another shape.
    fn in_shape(self, shape: &[usize]) -> Self {
        match self {
            Values::Single(array) if array.shape() != shape => {
                Values::Single(Array::new(array.iter().copied().collect(), shape))
            }
            Values::Half(half) => Values::Half(HalfArray { shape: shape.to_vec(), ..half }),
            other => other,
        }
    }
}

// %% notebooks/30_weights.ipynb re-read
use minai::io::file::FileError;
use minai::io::safetensors::{Dtype, TensorFile};

fn too_large(name: &str) -> String {
    format!(
        "`{name:.200}` holds values beyond {}, the largest of f16; keep these weights in f32 (Precision::Single)",
        f16::MAX
    )
}

// %% notebooks/30_weights.ipynb re-read-b
/// The values of a tensor of floats, in the form in which they are kept, and whether all are finite.
fn read_floats(
    file: &TensorFile,
    name: &str,
    (kind, precision): (Kind, Precision),
) -> Result<(Values, bool), String> {
    let (shape, bytes) =
        (file.shape(name).expect("checked before"), file.bytes(name).expect("checked before"));
    let half = |kind, bits| Values::Half(HalfArray { kind, bits, shape: shape.to_vec() });
    let single = match precision {
        Precision::Single => true,
        Precision::Stored => kind.size() > 2,
        Precision::Half => false,
    };
    if single || shape.len() < 2 {
        let (values, finite) = kernels::half::decode(kind, bytes);
        return Ok((Values::Single(Array::new(values, shape)), finite));
    }
    if kind.size() == 2 {
        let (bits, finite) = kernels::half::keep(kind, bytes);
        return Ok((half(kind, bits), finite));
    }
    let narrowed = kernels::half::narrow(kind, bytes);
    match narrowed.finite && !narrowed.fits {
        true => Err(too_large(name)),
        false => Ok((half(Kind::F16, narrowed.bits), narrowed.finite)),
    }
}

// %% notebooks/30_weights.ipynb re-read-values
/// A tensor's values in the form in which they are kept.
fn read_values(file: &TensorFile, name: &str, precision: Precision) -> Result<Values, FileError> {
    if file.dtype(name) == Some(Dtype::I64) {
        return file.i64(name).map(Values::Whole);
    }
    let Some(kind) = file.float_kind(name) else {
        return file.f32(name).map(Values::Single); // which refuses it: the model wants floats
    };
    let fail = |what: String| FileError::new(file.path(), what);
    let (values, finite) = read_floats(file, name, (kind, precision)).map_err(fail)?;
    file.release(name);
    match finite {
        true => Ok(values),
        false => Err(fail(format!(
            "`{name:.200}` holds values that are infinite or not a number (NaN); fetch the file again, or get it from a source that you trust"
        ))),
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
}

// %% notebooks/30_weights.ipynb re-place-b
impl Place {
    fn give(&self, values: Values) {
        match (self, values) {
            (Place::Weight(parameter), Values::Single(array)) => parameter.set(array),
            (Place::Weight(parameter), Values::Half(half)) => {
                parameter.make_lazy(Rc::new(move || half.to_array()))
            }
            (Place::Extra(AnyBuffer::F32(buffer)), Values::Single(array)) => buffer.set(array),
            (Place::Extra(AnyBuffer::I64(buffer)), Values::Whole(array)) => buffer.set(array),
            _ => unreachable!("types were compared before"),
        }
    }
}

// %% notebooks/30_weights.ipynb re-plan
use std::collections::{BTreeMap, BTreeSet};

/// Which tensor of a file goes where in a module.
struct Matched {
    /// The number of the file, its name for a tensor, and the module's, in the files' order.
    pairs: Vec<(usize, String, String)>,
    left_out: Vec<String>,
}

/// Why a tensor cannot go to a place, if it cannot.
fn misfit(place: &Place, dtype: Dtype, shape: &[usize]) -> Option<String> {
    if place.is_whole() != (dtype == Dtype::I64) {
        let kind = if place.is_whole() { "whole numbers (I64)" } else { "floats" };
        return Some(format!("is of type {dtype}, the model has {kind}"));
    }
    let wanted = place.shape();
    // Some programs keep a matrix as a convolution of 1 by 1.
    let fits = wanted == shape || (wanted.len() == 2 && shape == [wanted[0], wanted[1], 1, 1]);
    (!fits).then(|| format!("has shape {shape:?}, the model expects {wanted:?}"))
}

/// All that does not fit, as one text.
fn listed(misfits: &[String]) -> String {
    let (count, shown) = (misfits.len(), misfits.len().min(6));
    let more = if count > shown { format!("; and {} more", count - shown) } else { String::new() };
    let list = misfits[..shown].join("; ");
    format!("does not fit the model: {list}{more}. Check that weights and config are of one model")
}

// %% notebooks/30_weights.ipynb re-match
/// Matches the names of one file or of several, renamed, with a module's.
fn match_names(
    places: &BTreeMap<String, Place>,
    files: &[TensorFile],
    rename: &dyn Fn(&str) -> Option<String>,
) -> Result<Matched, String> {
    let (mut matched, mut misfits) = (Matched { pairs: vec![], left_out: vec![] }, vec![]);
    let mut missing: BTreeSet<&String> = places.keys().collect();
    let all = files
        .iter()
        .enumerate()
        .flat_map(|(i, file)| file.names().into_iter().map(move |name| (i, file, name)));
    for (i, file, name) in all {
        let Some(wanted) = rename(&name) else {
            matched.left_out.push(name);
            continue;
        };
        let (dtype, shape) = (file.dtype(&name).expect("listed"), file.shape(&name).expect("listed"));
        let wrong = match places.get(&wanted) {
            None => Some("is not in the model".to_owned()),
            Some(_) if !missing.remove(&wanted) => Some("is there twice".to_owned()),
            Some(place) => misfit(place, dtype, shape),
        };
        let called = if name == wanted { String::new() } else { format!(" (`{name:.200}` in the file)") };
        match wrong {
            Some(what) => misfits.push(format!("`{wanted:.200}`{called} {what}")),
            None => matched.pairs.push((i, name, wanted)),
        }
    }
    misfits.extend(
        missing.iter().map(|name| format!("`{name}` of shape {:?} is missing", places[*name].shape())),
    );
    if misfits.is_empty() { Ok(matched) } else { Err(listed(&misfits)) }
}

// %% notebooks/30_weights.ipynb re-load
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

// %% notebooks/30_weights.ipynb re-load-file
use minai::nn::{Module, Parts};
use std::path::Path;

/// Everything in a module that a file can fill, by name.
fn places_of(module: &dyn Module) -> BTreeMap<String, Place> {
    let parts = Parts::of(module);
    let parameters = parts.parameters.into_iter().map(|(name, p)| (name, Place::Weight(p)));
    let buffers = parts.buffers.into_iter().map(|(name, buffer)| (name, Place::Extra(buffer)));
    parameters.chain(buffers).collect()
}

// %% notebooks/30_weights.ipynb re-shards
use minai::io::config::Config;
use std::path::PathBuf;

/// The files of weights: the path itself, or those that an index names, in the order of their names.
fn shards(path: &Path) -> Result<Vec<PathBuf>, FileError> {
    if !path.to_string_lossy().contains(".safetensors.index.") {
        return Ok(vec![path.to_owned()]);
    }
    let index = Config::open(path)?;
    let names: BTreeSet<String> = index.text_map("weight_map")?.into_values().collect();
    let folder = path.parent().unwrap_or(Path::new(""));
    let file = |name: &String| match Path::new(name).file_name() {
        Some(plain) if plain == name.as_str() => Ok(folder.join(name)),
        _ => Err(index.error(
            "weight_map",
            &format!("names `{name:.80}`, which is no file beside it; correct the file"),
        )),
    };
    names.iter().map(file).collect()
}

// %% notebooks/30_weights.ipynb re-load-file-b
/// Fills a module from a safetensors file, or from those that an index (`….safetensors.index.json`) names. `rename` gives
/// the module's name for a name of a file, or `None` for a tensor that can safely be left out. Apart from these, both
/// must have the same names and shapes. Each file is read once, in order, and the memory of what was read is given back
/// to the system.
///
/// # Errors
/// When [`TensorFile::open`] refuses the file; when tensors are missing, superfluous or misshapen, of which the error
/// lists some; when a weight is not finite, or too large for f16 if it is to be kept so. Then the module is as it was.
pub fn load_weights(
    module: &dyn Module,
    path: impl AsRef<Path>,
    precision: Precision,
    rename: &dyn Fn(&str) -> Option<String>,
) -> Result<LoadReport, FileError> {
    let (places, path) = (places_of(module), path.as_ref());
    let files = shards(path)?.iter().map(TensorFile::open).collect::<Result<Vec<_>, _>>()?;
    let matched = match_names(&places, &files, rename).map_err(|what| FileError::new(path, what))?;
    let mut report = LoadReport { tensors: 0, values: 0, bytes: 0, left_out: matched.left_out };
    // First all is read, then all is changed: otherwise a damaged tensor would leave half a model.
    let mut changes = Vec::new();
    for (i, name, wanted) in matched.pairs {
        let (place, file) = (&places[&wanted], &files[i]);
        let values = read_values(file, &name, place.precision(precision))?.in_shape(&place.shape());
        report.tensors += 1;
        report.values += file.shape(&name).into_iter().flatten().product::<usize>();
        report.bytes += values.bytes();
        changes.push((place, values));
    }
    changes.into_iter().for_each(|(place, values)| place.give(values));
    Ok(report)
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
fn kept(array: Array, precision: Precision) -> Values {
    let shape = array.shape().to_vec();
    if precision != Precision::Half || shape.len() < 2 {
        return Values::Single(array);
    }
    let bits = kernels::half::narrow_f32(elements(&array)).bits;
    Values::Half(HalfArray { kind: Kind::F16, bits, shape })
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
