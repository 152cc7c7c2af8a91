//! Reference tensors, made by the scripts in `tests/golden`.

use minai::array::Array;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The project's own reference tensors.
pub fn own() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn given() -> Option<PathBuf> {
    std::env::var_os("MINAI_GOLDEN").map(PathBuf::from)
}

/// Where the reference tensors are: the folder that `MINAI_GOLDEN` names, or [`own`].
pub fn folder() -> PathBuf {
    given().unwrap_or_else(own)
}

/// The small Stable Diffusion that the references were made with: in the folder that `MINAI_GOLDEN` names, or the course's.
pub fn tiny_sd() -> PathBuf {
    given().unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../data")).join("tiny-sd")
}

/// A tensor of a reference file.
#[derive(Debug)]
pub enum Golden {
    /// f32.
    Floats(Array),
    /// i64.
    Integers(Array<i64>),
    /// f64.
    Doubles(Array<f64>),
}

impl Golden {
    /// Its axes' sizes.
    pub fn shape(&self) -> &[usize] {
        match self {
            Golden::Floats(array) => array.shape(),
            Golden::Integers(array) => array.shape(),
            Golden::Doubles(array) => array.shape(),
        }
    }

    /// The values of a tensor of floats, single or double.
    pub fn doubles(&self) -> Vec<f64> {
        match self {
            Golden::Floats(array) => array.iter().map(|&x| x.into()).collect(),
            Golden::Doubles(array) => array.iter().copied().collect(),
            Golden::Integers(_) => panic!("floats expected, found integers"),
        }
    }
}

/// The tensors of a `.safetensors` file, read with another library than ours.
pub fn tensors(path: &Path) -> BTreeMap<String, Golden> {
    let bytes = read(path);
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let tensors = file.tensors().into_iter().map(|(name, view)| {
        let (shape, data) = (view.shape(), view.data());
        let golden = match view.dtype() {
            Dtype::F32 => Golden::Floats(Array::new(each(data, f32::from_le_bytes), shape)),
            Dtype::I64 => Golden::Integers(Array::new(each(data, i64::from_le_bytes), shape)),
            Dtype::F64 => Golden::Doubles(Array::new(each(data, f64::from_le_bytes), shape)),
            other => panic!("{name}: {other:?}"),
        };
        (name, golden)
    });
    tensors.collect()
}

fn each<const N: usize, T>(data: &[u8], value: fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|&bytes| value(bytes)).collect()
}

/// A `.json` file.
pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
