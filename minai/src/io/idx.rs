//! IDX, the format of the original MNIST and its relatives: a header with the type and the shape, then the elements.

use super::data::{DataError, DataFault, data_error, other_format};
use super::gzip::open_unpacked;
use super::mnist::check_labels;
use ndarray::{Array1, ArrayD, Axis, Ix1, Ix2};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most elements that [`read_idx`] takes.
pub const IDX_LIMIT: u64 = 1 << 30;

/// Reads an IDX file of bytes, of any rank, gzipped or not. Where there is no file of this name, one is read that
/// [`find_idx`] finds in its place.
///
/// # Errors
/// When the file cannot be read, is no IDX file of bytes, or does not hold exactly what its header promises.
pub fn read_idx(path: &Path) -> Result<ArrayD<u8>, DataError> {
    let path = spelt_otherwise(path);
    read_idx_from(open_unpacked(&path, BYTE_LIMIT, "an IDX file")?, &path)
}

/// Reads IDX from unpacked bytes, wherever they come from; `path` is what errors call it.
///
/// # Errors
/// As for [`read_idx`].
pub fn read_idx_from(idx: impl Read, path: &Path) -> Result<ArrayD<u8>, DataError> {
    let (_, shape, elements) = idx_parts(idx, path, &[Element::U8], IDX_LIMIT)?;
    array_of(shape, elements, path)
}

/// Reads an IDX file of integers of any kind: bytes with or without a sign, or integers of 16 or 32 bits, as in QMNIST's
/// labels. Otherwise as [`read_idx`].
///
/// # Errors
/// As for [`read_idx`], with an eighth of its limit.
pub fn read_idx_integers(path: &Path) -> Result<ArrayD<i64>, DataError> {
    let path = spelt_otherwise(path);
    let unpacked = open_unpacked(&path, BYTE_LIMIT, "an IDX file")?;
    let integers = [Element::U8, Element::I8, Element::I16, Element::I32];
    let (element, shape, bytes) = idx_parts(unpacked, &path, &integers, IDX_LIMIT / 8)?;
    let integers = match element {
        Element::I8 => bytes.iter().map(|&byte| i64::from(byte as i8)).collect(),
        Element::I16 => bytes.as_chunks().0.iter().map(|two| i64::from(i16::from_be_bytes(*two))).collect(),
        Element::I32 => bytes.as_chunks().0.iter().map(|four| i64::from(i32::from_be_bytes(*four))).collect(),
        _ => bytes.iter().map(|&byte| i64::from(byte)).collect(),
    };
    array_of(shape, integers, &path)
}

/// Reads a pair of IDX files: images of any shape (n, …) and their labels (n,), each from 0 to `classes - 1`.
///
/// MNIST and Fashion-MNIST have 10 classes, EMNIST's sets 10 to 62 (27 for its letters, which begin at 1). QMNIST's labels
/// have the shape (n, 8): the class is in the first column, and what else is known of a digit in the others.
///
/// # Errors
/// As for [`read_idx`], and when the two do not belong together.
pub fn load_idx_pair(
    images: &Path,
    labels: &Path,
    classes: usize,
) -> Result<(ArrayD<u8>, Array1<i64>), DataError> {
    let (x, y) = (read_idx(images)?, read_idx_integers(labels)?);
    let (x_shape, y_shape) = (x.shape().to_vec(), y.shape().to_vec());
    let y = match y_shape[..] {
        [_] => y.into_dimensionality::<Ix1>().ok(),
        [_, 8] => y.into_dimensionality::<Ix2>().ok().map(|table| table.index_axis_move(Axis(1), 0)),
        _ => None,
    };
    let Some(y) = y.filter(|y| x_shape.first() == Some(&y.len())) else {
        let what = format!("labels of shape {y_shape:?} for images of shape {x_shape:?}");
        return Err(data_error(labels, "header", DataFault::Structure(what)));
    };
    check_labels(&y, classes, labels, "labels")?;
    Ok((x, y))
}

/// The IDX file of this name in a folder: gzipped or not, and with a hyphen or, as some archives have it, a dot before
/// `idx` (`train-images-idx3-ubyte.gz`, `train-images.idx3-ubyte`).
pub fn find_idx(folder: &Path, name: &str) -> Option<PathBuf> {
    let hyphen = name.trim_end_matches(".gz").replace(".idx", "-idx");
    let dot = hyphen.replace("-idx", ".idx");
    let names = [name.to_owned(), format!("{hyphen}.gz"), format!("{dot}.gz"), hyphen, dot];
    names.into_iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// The path, or what [`find_idx`] finds in its place.
fn spelt_otherwise(path: &Path) -> PathBuf {
    let folder = path.parent().unwrap_or(Path::new(""));
    let found = path.file_name().and_then(|name| find_idx(folder, name.to_str()?));
    found.unwrap_or_else(|| path.to_path_buf())
}

/// The most bytes that elements can take, and a header.
const BYTE_LIMIT: u64 = IDX_LIMIT + 2048;

/// What an IDX file's elements are.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl Element {
    /// By the third byte of the file.
    fn of(code: u8) -> Option<Element> {
        Some(match code {
            0x08 => Element::U8,
            0x09 => Element::I8,
            0x0b => Element::I16,
            0x0c => Element::I32,
            0x0d => Element::F32,
            0x0e => Element::F64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Element::U8 | Element::I8 => 1,
            Element::I16 => 2,
            Element::I32 | Element::F32 => 4,
            Element::F64 => 8,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Element::U8 => "bytes",
            Element::I8 => "bytes with a sign",
            Element::I16 => "integers of 16 bits",
            Element::I32 => "integers of 32 bits",
            Element::F32 => "floats of 32 bits",
            Element::F64 => "floats of 64 bits",
        }
    }
}

fn array_of<T>(shape: Vec<usize>, elements: Vec<T>, path: &Path) -> Result<ArrayD<T>, DataError> {
    ArrayD::from_shape_vec(shape, elements)
        .map_err(|error| data_error(path, "header", DataFault::BadIdx(error.to_string())))
}

/// Type, shape and bytes of at most `limit` elements, which must be of an allowed type.
fn idx_parts(
    mut idx: impl Read,
    path: &Path,
    allowed: &[Element],
    limit: u64,
) -> Result<(Element, Vec<usize>, Vec<u8>), DataError> {
    let (element, shape) = idx_header(&mut idx, path, allowed)?;
    // The product may overflow, and a header may promise more than there is: nothing is reserved on its word.
    let count = shape.iter().try_fold(1_u64, |count, &size| count.checked_mul(size as u64));
    let Some(count) = count.filter(|&count| count <= limit) else {
        let what = format!("sizes {shape:?} are more than {limit} elements");
        return Err(data_error(path, "header", DataFault::BadIdx(what)));
    };
    let (mut bytes, size) = (Vec::new(), element.bytes() as u64);
    idx.by_ref().take(count * size).read_to_end(&mut bytes).map_err(|error| read_error(error, path))?;
    check_idx_end(&mut idx, bytes.len() as u64 / size, count, path)?;
    Ok((element, shape, bytes))
}

fn idx_header(
    idx: &mut impl Read,
    path: &Path,
    allowed: &[Element],
) -> Result<(Element, Vec<usize>), DataError> {
    let mut magic = [0; 4];
    idx.read_exact(&mut magic).map_err(|error| read_error(error, path))?;
    let fault = match magic {
        [0, 0, code, rank] => match Element::of(code) {
            Some(element) if allowed.contains(&element) => return Ok((element, idx_shape(idx, rank, path)?)),
            Some(element) => {
                let allowed: Vec<&str> = allowed.iter().map(|element| element.name()).collect();
                DataFault::BadIdx(format!("holds {} where {} belong", element.name(), allowed.join(" or ")))
            }
            None => DataFault::BadIdx(format!("elements of an unknown type, {code:#04x}")),
        },
        _ => other_format(&magic, "an IDX file").unwrap_or_else(|| {
            DataFault::BadIdx(format!("begins with {magic:02x?} where [00, 00, 08, rank] belongs"))
        }),
    };
    Err(data_error(path, "byte 0", fault))
}

fn idx_shape(idx: &mut impl Read, rank: u8, path: &Path) -> Result<Vec<usize>, DataError> {
    let mut sizes = vec![0; 4 * usize::from(rank)];
    idx.read_exact(&mut sizes).map_err(|error| read_error(error, path))?;
    Ok(sizes.as_chunks().0.iter().map(|four| u32::from_be_bytes(*four) as usize).collect())
}

fn check_idx_end(idx: &mut impl Read, got: u64, count: u64, path: &Path) -> Result<(), DataError> {
    if got < count {
        return Err(data_error(path, format!("element {got} of {count}"), DataFault::CutShort));
    }
    match idx.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => {
            Err(data_error(path, "end", DataFault::BadIdx(format!("goes on after its {count} elements"))))
        }
        Err(error) => Err(read_error(error, path)),
    }
}

fn read_error(error: io::Error, path: &Path) -> DataError {
    match error.downcast::<DataError>() {
        Ok(ours) => ours,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            data_error(path, "header", DataFault::CutShort)
        }
        Err(error) => data_error(path, "reading", DataFault::Io(error)),
    }
}
