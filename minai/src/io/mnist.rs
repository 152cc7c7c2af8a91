//! MNIST as the course has it: a gzipped pickle of numpy arrays, three pairs of images and labels.

use super::data::{DataError, DataFault, data_error, data_folder, places_text};
#[cfg(feature = "download")]
use super::download::{Checksum, FetchError, FetchOptions, fetch};
use super::gzip::open_unpacked;
use super::pickle::PickleGuard;
use ndarray::{Array1, Array2};
use serde_pickle::{DeOptions, Value};
use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Images, one row of 784 pixels from 0 (paper) to 1 (ink) each, and their labels: (n, 784) and (n,).
pub type Split = (Array2<f32>, Array1<i64>);

fn split_from(value: Value, path: &Path, name: &str) -> Result<Split, DataError> {
    let [images, labels] = parts_of(value, path, name)?;
    let (x_place, y_place) = (format!("images of {name}"), format!("labels of {name}"));
    let (x_shape, pixels) = array_parts(images, 4, path, &x_place)?;
    let (y_shape, labels) = array_parts(labels, 8, path, &y_place)?;
    let (&[n, 784], &[m]) = (x_shape.as_slice(), y_shape.as_slice()) else {
        let what = format!("shapes {x_shape:?} and {y_shape:?} where (n, 784) and (n,) belong");
        return Err(data_error(path, name, DataFault::Structure(what)));
    };
    if n != m || n == 0 {
        let what = format!("{n} images and {m} labels");
        return Err(data_error(path, name, DataFault::Structure(what)));
    }
    let labels = labels.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect();
    let pixels = floats_from_bytes(pixels);
    check_pixels(&pixels, path, &x_place)?;
    check_labels(&labels, 10, path, &y_place)?;
    let images = Array2::from_shape_vec((n, 784), pixels).expect("the number of bytes was checked");
    Ok((images, labels))
}

/// What `mnist.pkl.gz` holds: (train, valid, test), each images and labels.
pub type MnistSplits = (Split, Split, Split);

const MNIST_LIMIT: u64 = 256 << 20;

/// For the guard, which counts a value again where `serde-pickle` may copy it: in pickles of protocol 5, all arrays.
const MNIST_COST_LIMIT: u64 = 2 * MNIST_LIMIT;

/// Reads the course's MNIST data from an unpacked pickle, wherever it comes from; `path` is what errors call it.
///
/// # Errors
/// As for [`load_mnist`].
pub fn read_mnist_pickle(pickle: impl Read, path: &Path) -> Result<MnistSplits, DataError> {
    let mut guard = PickleGuard::new(pickle, path, MNIST_COST_LIMIT);
    let options = DeOptions::new().replace_unresolved_globals().keep_restore_state();
    let value = serde_pickle::value_from_reader(&mut guard, options);
    let value = value.map_err(|error| unpickle_error(error, path))?;
    if guard.dtypes() != ["f4", "i8"] {
        let found = guard.dtypes();
        let what = format!("elements of types {found:?} where f4 and i8 belong");
        return Err(data_error(path, "the arrays", DataFault::Structure(what)));
    }
    let [train, valid, test] = parts_of(value, path, "the whole")?;
    let split = |value, name| split_from(value, path, name);
    Ok((split(train, "train")?, split(valid, "valid")?, split(test, "test")?))
}

/// Reads the course's MNIST file, `((x_train, y_train), (x_valid, y_valid), (x_test, y_test))` as a pickle,
/// gzipped or not.
///
/// # Errors
/// When the file is missing, damaged, hostile, or of another content; never half of it.
pub fn load_mnist(path: &Path) -> Result<MnistSplits, DataError> {
    read_mnist_pickle(open_unpacked(path, MNIST_LIMIT, "a gzipped or plain pickle")?, path)
}

/// The MNIST file in the first of these folders that has it, gzipped or not: the full one, or the sample.
///
/// # Errors
/// As for [`find_mnist`].
pub fn find_mnist_in(folders: &[PathBuf], full: bool) -> Result<PathBuf, DataError> {
    let (name, remedy) = match full {
        true => ("mnist.pkl.gz", FULL_REMEDY),
        false => ("mnist_sample.pkl.gz", SAMPLE_REMEDY),
    };
    let names = [name, name.trim_end_matches(".gz")];
    let places = folders.iter().flat_map(|folder| names.map(|name| folder.join(name)));
    let missing = || data_error(Path::new(name), places_text(folders), DataFault::Missing(remedy));
    places.into_iter().find(|path| path.is_file()).ok_or_else(missing)
}

const FULL_REMEDY: &str =
    "call minai::io::mnist::fetch_mnist or run lesson 1, which fetches it, or name its folder in MINAI_DATA";
const SAMPLE_REMEDY: &str = "name a folder that has it in MINAI_DATA (the course's repository has one, called data), or get all of \
    MNIST with minai::io::mnist::fetch_mnist and load the path that it returns";

/// The MNIST file to use: the sample, or the full file if the environment says `MINAI_FULL=1`.
/// The full file is looked for in the folder `MINAI_DATA` and in [`data_folder`].
///
/// # Errors
/// When there is none: the error names the place and says how to get it.
pub fn find_mnist() -> Result<PathBuf, DataError> {
    let full = env::var("MINAI_FULL").is_ok_and(|wish| !["", "0"].contains(&wish.as_str()));
    let own = env::var_os("MINAI_DATA").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let folders: Vec<PathBuf> = own.into_iter().chain(data_folder()).collect();
    find_mnist_in(&folders, full)
}

fn unpickle_error(error: serde_pickle::Error, path: &Path) -> DataError {
    let broken = |what: String, place: String| {
        data_error(path, place, DataFault::BadPickle(what.chars().take(200).collect()))
    };
    match error {
        serde_pickle::Error::Io(error) => match error.downcast::<DataError>() {
            Ok(ours) => ours,
            Err(error) => data_error(path, "reading", DataFault::Io(error)),
        },
        serde_pickle::Error::Eval(what, at) => broken(what.to_string(), format!("byte {at} of the pickle")),
        serde_pickle::Error::Syntax(what) => broken(what.to_string(), "the pickle".into()),
    }
}

fn parts_of<const N: usize>(value: Value, path: &Path, place: &str) -> Result<[Value; N], DataError> {
    let wrong = || data_error(path, place, DataFault::Structure(format!("not a tuple of {N}")));
    match value {
        Value::Tuple(parts) => parts.try_into().map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}

fn pickled_size(value: &Value) -> Option<usize> {
    match value {
        Value::I64(n) => usize::try_from(*n).ok(),
        _ => None,
    }
}

/// Whether a dtype's state, (3, byte order, …), says so. One that was pickled before arrives without its state.
fn is_big_endian(dtype: &Value) -> bool {
    match dtype {
        Value::Tuple(state) => match state.get(1) {
            Some(Value::Bytes(order)) => order == b">",
            Some(Value::String(order)) => order == ">",
            _ => false,
        },
        _ => false,
    }
}

/// The shape, the element type and the bytes of a numpy array in C order, of which a pickle holds either the state
/// (version, shape, type, whether in Fortran order, bytes) or, from protocol 5 on, the arguments of a call of
/// `_frombuffer` (bytes, type, shape, order).
fn array_state(value: Value) -> Option<(Vec<Value>, Value, Vec<u8>)> {
    let Value::Tuple(parts) = value else { return None };
    let (shape, dtype, bytes) = match <[Value; 5]>::try_from(parts) {
        Ok([_version, shape, dtype, Value::Bool(false), bytes]) => (shape, dtype, bytes),
        Ok(_) => return None,
        Err(parts) => match <[Value; 4]>::try_from(parts).ok()? {
            [bytes, dtype, shape, Value::String(order)] if order == "C" => (shape, dtype, bytes),
            _ => return None,
        },
    };
    match (shape, bytes) {
        (Value::Tuple(shape), Value::Bytes(bytes)) => Some((shape, dtype, bytes)),
        _ => None,
    }
}

/// The shape and the bytes of a pickled numpy array whose elements have `size` bytes.
fn array_parts(
    value: Value,
    size: usize,
    path: &Path,
    place: &str,
) -> Result<(Vec<usize>, Vec<u8>), DataError> {
    let wrong = |what: String| data_error(path, place, DataFault::Structure(what));
    let state = array_state(value).ok_or_else(|| wrong("not a numpy array in C order".into()))?;
    let (shape, dtype, bytes) = state;
    if is_big_endian(&dtype) {
        return Err(wrong("elements with the highest byte first".into()));
    }
    let shape: Option<Vec<usize>> = shape.iter().map(pickled_size).collect();
    let shape = shape.ok_or_else(|| wrong("a shape that is no list of sizes".into()))?;
    let needs = shape.iter().try_fold(size, |bytes, &n| bytes.checked_mul(n));
    if needs != Some(bytes.len()) {
        return Err(wrong(format!("shape {shape:?} does not match {} bytes of {size} each", bytes.len())));
    }
    Ok((shape, bytes))
}

/// Little-endian bytes as `f32`, in hardly more memory than the bytes already take: from the end on, so that the pages of the
/// new vector are taken (they are zero until they are written) as those of the old one are given back.
fn floats_from_bytes(mut bytes: Vec<u8>) -> Vec<f32> {
    let mut floats = vec![0.0; bytes.len() / 4];
    for block in floats.chunks_mut(1 << 22).rev() {
        let start = bytes.len() - 4 * block.len();
        for (float, four) in block.iter_mut().zip(bytes[start..].as_chunks().0) {
            *float = f32::from_le_bytes(*four);
        }
        bytes.truncate(start);
        bytes.shrink_to_fit();
    }
    floats
}

pub(crate) fn check_labels(
    labels: &Array1<i64>,
    classes: usize,
    path: &Path,
    place: &str,
) -> Result<(), DataError> {
    match labels.iter().enumerate().find(|(_, label)| !(0..classes as i64).contains(*label)) {
        Some((at, &label)) => {
            Err(data_error(path, format!("{place}, number {at}"), DataFault::BadLabel { label, classes }))
        }
        None => Ok(()),
    }
}

fn check_pixels(pixels: &[f32], path: &Path, place: &str) -> Result<(), DataError> {
    // Asking all of a block at once lets the compiler use SIMD; `position` alone is several times slower.
    let good = |pixel: &f32| (0.0..=1.0).contains(pixel);
    let block = pixels.chunks(784).position(|row| row.iter().fold(false, |bad, pixel| bad | !good(pixel)));
    let Some(row) = block else { return Ok(()) };
    let column = pixels[784 * row..].iter().position(|pixel| !good(pixel)).unwrap_or(0);
    let fault = DataFault::BadPixel(pixels[784 * row + column]);
    Err(data_error(path, format!("{place}, number {row}, pixel {column}"), fault))
}

/// Where `mnist.pkl.gz` is to be had.
#[cfg(feature = "download")]
pub const MNIST_ADDRESS: &str =
    "https://github.com/mnielsen/neural-networks-and-deep-learning/raw/master/data/mnist.pkl.gz";

/// Fetches the full MNIST file into a folder, once, and returns its path.
///
/// # Errors
/// See [`FetchFault`](super::download::FetchFault); with [`FetchError::is_offline`] one can go on with the sample.
#[cfg(feature = "download")]
pub fn fetch_mnist(folder: &Path) -> Result<PathBuf, FetchError> {
    let path = folder.join("mnist.pkl.gz");
    let sha256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416";
    let checksum = Some(Checksum::Sha256(sha256.into()));
    fetch(MNIST_ADDRESS, &path, &FetchOptions { size: Some(17_051_982), checksum, ..Default::default() })?;
    Ok(path)
}
