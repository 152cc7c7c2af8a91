// Owned by notebooks/24_classes_and_guidance.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 470c149b806d6534
//! Embedding lookup.

// %% notebooks/24_classes_and_guidance.ipynb po-embedding
use minai::array::Array;
use minai::kernels;
use minai::tensor::{Tensor, contiguous, elements, from_op};

/// The rows of `weight` (rows, width) that `indices` name: of the shape of `indices`, and then width.
///
/// # Panics
/// If `weight` is no table, or has no such row.
#[track_caller]
pub fn embedding(indices: &Array<i64>, weight: &Tensor) -> Tensor {
    let &[rows, width] = weight.shape() else {
        panic!("embedding: a table expected, shape {:?}", weight.shape())
    };
    let index = |&index: &i64| match usize::try_from(index) {
        Ok(row) if row < rows => row,
        _ => panic!("embedding: row {index} of a table of shape {:?}", [rows, width]),
    };
    let shape = [indices.shape(), &[width]].concat();
    let indices: Vec<usize> = indices.iter().map(index).collect();
    let y = kernels::pool::embedding(elements(&contiguous(&weight.data)), width, &indices);
    from_op("embedding", Array::new(y, &shape), &[weight], move |g, _| {
        let table = kernels::pool::embedding_backward(elements(&g), width, &indices, rows);
        vec![Some(Array::new(table, &[rows, width]))]
    })
}

// %% notebooks/24_classes_and_guidance.ipynb em-layer
use minai::nn::{Init, Module, Parameter, Parts, Pass};
use std::fmt;

/// [`embedding`] with a table of its own.
#[derive(Debug)]
pub struct Embedding {
    /// (rows, width)
    pub weight: Parameter,
}

impl Embedding {
    /// A table of this size. A generator draws it from the standard normal distribution, as PyTorch does.
    pub fn new(init: &mut dyn Init, rows: usize, width: usize) -> Self {
        Embedding { weight: init.parameter(&[rows, width], &|rng| rng.randn(&[rows, width])) }
    }

    /// The rows that `indices` name: of the shape of `indices`, and then width.
    ///
    /// # Panics
    /// If there is no such row.
    #[track_caller]
    pub fn forward(&self, indices: &Array<i64>, pass: &mut Pass) -> Tensor {
        embedding(indices, &pass.get(&self.weight))
    }
}

// %% notebooks/24_classes_and_guidance.ipynb em-layer-b
impl Module for Embedding {
    fn parts(&self, parts: &mut Parts) {
        parts.parameter("weight", &self.weight);
    }

    fn describe(&self) -> String {
        let shape = self.weight.shape();
        format!("{}, {}", shape[0], shape[1])
    }
}

impl fmt::Display for Embedding {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}
