// Owned by notebooks/32_clip_text.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 808e9c3ab70dd91c
//! Rows of a table.

// %% notebooks/32_clip_text.ipynb po-embedding
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
