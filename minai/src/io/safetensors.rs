//! Safetensors files: the one reader, which maps a file into memory and trusts nothing in it, and the one writer.
//!
//! A file is the header's length (8 bytes, lowest first), the header (JSON: type, shape and offsets of each tensor, and
//! texts under `__metadata__`), and the tensors' values without gaps:
//! [the format](https://github.com/huggingface/safetensors#format). Lesson 6 reads and writes one in a few plain lines;
//! here is what makes that safe for files that others made, and for a disk that fills up.

use crate::array::Array;
use crate::io::file::{self, FileError, unreadable, write_at_once};
use crate::kernels::half::{self, Kind};
use ::half::f16;
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Metadata as Header, View};
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{Map, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub use safetensors::Dtype;

/// The longest header that is read or written, in bytes: hundreds of thousands of names fit.
const HEADER_LIMIT: u64 = 1 << 23;

/// The most axes of a tensor that is read.
const RANK_LIMIT: usize = 16;

/// A safetensors file that is mapped into memory: what is asked for is read from the disk, and nothing else.
///
/// Nobody may change or shorten the file as long as this lives. (Replacing it by another one, as [`write`](fn@write) does, is
/// harmless.)
pub struct TensorFile {
    path: PathBuf,
    map: Mmap,
    /// Where the values begin.
    start: usize,
    header: Header,
}

impl fmt::Debug for TensorFile {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "TensorFile {{ path: {:?}, tensors: {} }}", self.path, self.header.offset_keys().len())
    }
}

impl TensorFile {
    /// Maps the file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be read, is no safetensors file, is cut short, or has a header that is longer than 8 MiB,
    /// has a name twice, or does not fit what follows it.
    pub fn open(path: impl AsRef<Path>) -> Result<TensorFile, FileError> {
        let path = path.as_ref();
        let opened = file::open(path).and_then(|(file, len)| TensorFile::map(path, &file, len));
        opened.map_err(|what| FileError::new(path, what))
    }

    fn map(path: &Path, file: &File, len: u64) -> Result<TensorFile, String> {
        if len < 8 {
            return Err(format!("has only {len} bytes; fetch or save it again"));
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
        Ok(TensorFile { path: path.to_path_buf(), map, start, header })
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The texts beside the tensors.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let texts = self.header.metadata().iter().flatten();
        texts.map(|(key, text)| (key.clone(), text.clone())).collect()
    }

    /// The tensors' names, in the order in which they lie in the file.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The size of each axis of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.header.info(name).map(|info| &info.shape[..])
    }

    /// The type of a tensor's elements.
    pub fn dtype(&self, name: &str) -> Option<Dtype> {
        self.header.info(name).map(|info| info.dtype)
    }

    /// The type of a tensor's elements, if they are floats of 16, 32 or 64 bits.
    pub fn float_kind(&self, name: &str) -> Option<Kind> {
        float_kind(self.header.info(name)?.dtype)
    }

    /// A tensor's values as they are in the file: lowest byte first, the last axis fastest.
    pub fn bytes(&self, name: &str) -> Option<&[u8]> {
        let (from, to) = self.header.info(name)?.data_offsets;
        Some(&self.map[self.start + from..self.start + to])
    }

    /// Gives back the memory that a tensor's bytes take; they are read again from the file if need be.
    pub fn release(&self, name: &str) {
        #[cfg(unix)]
        if let Some(info) = self.header.info(name) {
            let (from, to) = info.data_offsets;
            // SAFETY: the mapping is of a file and read-only: pages given back come again with the same contents.
            // That the advice fails is no harm.
            let _ = unsafe {
                let advice = memmap2::UncheckedAdvice::DontNeed;
                self.map.unchecked_advise_range(advice, self.start + from, to - from)
            };
        }
        #[cfg(not(unix))]
        let _ = name;
    }
}

/// Tensors as arrays. The memory of the file's bytes is given back after each.
impl TensorFile {
    /// A tensor of floats, widened or rounded to 32 bits. They may be infinite, or not a number.
    ///
    /// # Errors
    /// When the file has no tensor of this name, or it does not hold floats of 16, 32 or 64 bits.
    pub fn f32(&self, name: &str) -> Result<Array, FileError> {
        self.array(name, "floats of 16 to 64 bits", |dtype, bytes| {
            Some(half::decode(float_kind(dtype)?, bytes).0)
        })
    }

    /// A tensor of signed integers, widened to 64 bits.
    ///
    /// # Errors
    /// When the file has no tensor of this name, or it does not hold signed integers.
    pub fn i64(&self, name: &str) -> Result<Array<i64>, FileError> {
        self.array(name, "signed integers", |dtype, bytes| match dtype {
            Dtype::I64 => Some(elements(bytes, i64::from_le_bytes)),
            Dtype::I32 => Some(elements(bytes, |four| i32::from_le_bytes(four).into())),
            Dtype::I16 => Some(elements(bytes, |two| i16::from_le_bytes(two).into())),
            Dtype::I8 => Some(elements(bytes, |one| i8::from_le_bytes(one).into())),
            _ => None,
        })
    }

    /// A tensor of bytes or truth values.
    ///
    /// # Errors
    /// When the file has no tensor of this name, or it holds something else.
    pub fn u8(&self, name: &str) -> Result<Array<u8>, FileError> {
        self.array(name, "bytes", |dtype, bytes| {
            matches!(dtype, Dtype::U8 | Dtype::BOOL).then(|| bytes.to_vec())
        })
    }

    fn array<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(Dtype, &[u8]) -> Option<Vec<T>>,
    ) -> Result<Array<T>, FileError> {
        let fail = |what: String| FileError::new(&self.path, what);
        let (Some(info), Some(bytes)) = (self.header.info(name), self.bytes(name)) else {
            return Err(fail(format!("has no tensor `{name:.200}`; see names()")));
        };
        let len = info.shape.iter().product();
        if Vec::<T>::new().try_reserve_exact(len).is_err() {
            return Err(fail(format!(
                "`{name:.200}` has {len} elements, for which there is no memory; use a smaller model"
            )));
        }
        let elements = read(info.dtype, bytes).ok_or_else(|| fail(wrong_type(name, info.dtype, expected)))?;
        self.release(name);
        Ok(Array::new(elements, &info.shape))
    }
}

/// What is wrong with a tensor of another type than the one that belongs there.
fn wrong_type(name: &str, dtype: Dtype, expected: &str) -> String {
    format!("`{name:.200}` is of type {dtype}, where {expected} belong; convert it, or get the right file")
}

/// The floating-point type, if it is one that is read: which excludes those of 8 bits and fewer.
fn float_kind(dtype: Dtype) -> Option<Kind> {
    match dtype {
        Dtype::F16 => Some(Kind::F16),
        Dtype::BF16 => Some(Kind::Bf16),
        Dtype::F32 => Some(Kind::F32),
        Dtype::F64 => Some(Kind::F64),
        _ => None,
    }
}

/// Elements of N bytes each, lowest byte first.
fn elements<T, const N: usize>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&bytes| element(bytes)).collect()
}

/// What a file that is no safetensors file may be, by its first bytes.
fn what_else(first: &[u8]) -> Option<&'static str> {
    Some(match first {
        [b'{', ..] => {
            "a JSON text, perhaps the index of a model in several files (shards), which is not read here; name the safetensors file itself, and fetch a sharded model again as one file"
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

/// Where the values begin, and what the header says.
fn read_header(bytes: &[u8]) -> Result<(usize, Header), String> {
    // The crate checks that the values lie without gap or overlap, as long as their shapes say, up to the file's end.
    let (length, header) = SafeTensors::read_metadata(bytes).map_err(|error| {
        let why = error.to_string(); // may hold a name of any length
        format!("is no safetensors file, or a damaged one ({why:.200}); fetch or save it again")
    })?;
    let (names, start) = (header.offset_keys(), 8 + length);
    // JSON allows a name twice, and the crate keeps the last: another program may take the first.
    let mut json = serde_json::Deserializer::from_slice(&bytes[8..start]);
    let count = json
        .deserialize_map(Count)
        .map_err(|error| format!("has a damaged header ({error}); fetch or save it again"))?;
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

/// Whether an array of this shape can be: also without the zeros in it, which make any product zero.
fn is_possible(shape: &[usize]) -> bool {
    let mut sizes = shape.iter().filter(|&&size| size > 0);
    let product = sizes.try_fold(1_usize, |product, &size| product.checked_mul(size));
    shape.len() <= RANK_LIMIT && product.is_some_and(|product| product <= isize::MAX as usize / 8)
}

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

/// Writes tensors and metadata as a safetensors file. A file of that name is replaced once the new one is on the disk:
/// there is always a whole one.
///
/// The same content gives the same bytes. Each tensor's bytes are made when they are written, so that saving takes the
/// memory of one tensor. Only one thread or process at a time may write to a path.
///
/// # Errors
/// When the file cannot be written, a tensor is called `__metadata__`, or the header would be longer than 8 MiB. Then
/// the old file is as it was.
pub fn write<V: View>(
    path: impl AsRef<Path>,
    tensors: &BTreeMap<String, V>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), FileError> {
    let path = path.as_ref();
    let fail = |what: String| FileError::new(path, what);
    if tensors.contains_key("__metadata__") {
        return Err(fail("no tensor can be called `__metadata__`; give it another name".into()));
    }
    // Wide types first, so that each tensor is aligned to its own type.
    let mut sorted: Vec<_> = tensors.iter().collect();
    sorted.sort_by_key(|(_, tensor)| std::cmp::Reverse(tensor.dtype()));
    let header = header_of(&sorted, metadata);
    let length = header.len() as u64;
    if length > HEADER_LIMIT {
        return Err(fail("names and metadata have more than 8 MiB; nothing was saved, shorten them".into()));
    }
    let written = write_at_once(path, |file| {
        file.write_all(&length.to_le_bytes())?;
        file.write_all(&header)?;
        sorted.iter().try_for_each(|(_, tensor)| file.write_all(&tensor.data()))
    });
    written.map_err(|error| {
        fail(format!("{error}; check the folder, its permissions, and the room on the disk"))
    })
}

/// As [`write()`], with each value rounded to the nearest of 16 bits (`F16`): half the size.
///
/// # Errors
/// As [`write()`].
pub fn write_half(
    path: impl AsRef<Path>,
    arrays: impl IntoIterator<Item = (String, Array)>,
    metadata: &BTreeMap<String, String>,
) -> Result<(), FileError> {
    let halves = arrays.into_iter().map(|(name, array)| (name, Half(array)));
    write(path, &halves.collect(), metadata)
}

/// An array, written in 16 bits.
struct Half(Array);

impl View for Half {
    fn dtype(&self) -> Dtype {
        Dtype::F16
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.0.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()
    }

    fn data_len(&self) -> usize {
        2 * self.0.len()
    }
}

/// The header of tensors in this order: JSON, filled up with spaces to a multiple of 8 bytes.
fn header_of<V: View>(tensors: &[(&String, &V)], metadata: &BTreeMap<String, String>) -> Vec<u8> {
    let (mut header, mut end) = (Map::new(), 0);
    header.insert("__metadata__".into(), json!(metadata));
    for (name, tensor) in tensors {
        let start = end;
        end += tensor.data_len();
        let info = json!({"dtype": tensor.dtype(), "shape": tensor.shape(), "data_offsets": [start, end]});
        header.insert(name.to_string(), info);
    }
    let mut json = serde_json::to_vec(&header).expect("texts and numbers");
    json.resize(json.len().next_multiple_of(8), b' ');
    json
}
