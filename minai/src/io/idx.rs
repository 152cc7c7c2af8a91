//! IDX, the format of the original MNIST and its relatives: a header with a shape, and bytes.

use super::data::{DataError, DataFault, data_error};
use super::gzip::gunzip_from;
use super::mnist::check_labels;
use ndarray::{Array1, ArrayD};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Reads an IDX file of bytes, of any rank, gzipped or not.
///
/// # Errors
/// When the file cannot be read, is no IDX file of bytes, or does not hold exactly what its header promises.
pub fn read_idx(path: &Path) -> Result<ArrayD<u8>, DataError> {
    let open = |error| data_error(path, "opening", DataFault::Io(error));
    let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(open)?);
    if file.fill_buf().map_err(open)?.starts_with(&[0x1f, 0x8b]) {
        read_idx_from(gunzip_from(file, path, IDX_LIMIT + 2048)?, path)
    } else {
        read_idx_from(file, path)
    }
}

/// The most elements that [`read_idx`] takes.
pub const IDX_LIMIT: u64 = 1 << 30;

/// Reads IDX from unpacked bytes, wherever they come from; `path` is what errors call it.
///
/// # Errors
/// As for [`read_idx`].
pub fn read_idx_from(mut idx: impl Read, path: &Path) -> Result<ArrayD<u8>, DataError> {
    let shape = idx_shape(&mut idx, path)?;
    let count = shape.iter().try_fold(1_u64, |count, &size| count.checked_mul(size as u64));
    let bad = |what: String| data_error(path, "header", DataFault::BadIdx(what));
    let Some(count) = count.filter(|&count| count <= IDX_LIMIT) else {
        return Err(bad(format!("sizes {shape:?} are more than {IDX_LIMIT} elements")));
    };
    let mut elements = Vec::new();
    idx.by_ref().take(count).read_to_end(&mut elements).map_err(|error| read_error(error, path))?;
    check_idx_end(&mut idx, elements.len() as u64, count, path)?;
    ArrayD::from_shape_vec(shape, elements).map_err(|error| bad(error.to_string()))
}

/// Reads a pair of IDX files: images of any shape (n, …) and their labels (n,), each a digit from 0 to 9.
///
/// # Errors
/// As for [`read_idx`], and when the two do not belong together.
pub fn load_idx_pair(images: &Path, labels: &Path) -> Result<(ArrayD<u8>, Array1<i64>), DataError> {
    let (x, y) = (read_idx(images)?, read_idx(labels)?);
    let wrong = |what: String| data_error(labels, "header", DataFault::Structure(what));
    if y.ndim() != 1 || x.ndim() == 0 || x.shape()[0] != y.len() {
        return Err(wrong(format!("labels of shape {:?} for images of shape {:?}", y.shape(), x.shape())));
    }
    let y = y.iter().map(|&label| i64::from(label)).collect();
    check_labels(&y, labels, "labels")?;
    Ok((x, y))
}

fn idx_shape(idx: &mut impl Read, path: &Path) -> Result<Vec<usize>, DataError> {
    let mut magic = [0; 4];
    idx.read_exact(&mut magic).map_err(|error| read_error(error, path))?;
    let [0, 0, 8, rank] = magic else {
        let what = format!("begins with {magic:02x?} where [00, 00, 08, rank] belongs");
        return Err(data_error(path, "byte 0", DataFault::BadIdx(what)));
    };
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
