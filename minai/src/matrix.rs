// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 5979da63b08c5ae1
//! A matrix of numbers in one piece of memory, row after row.

// %% notebooks/01_foundations.ipynb ma-struct
/// A matrix of `f32` in row-major order: element `(i, j)` is number `i * columns + j`.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    data: Vec<f32>,
    rows: usize,
    columns: usize,
}

impl Matrix {
    /// A matrix of the given shape `(rows, columns)` from its elements, row after row.
    ///
    /// # Panics
    /// If the shape does not hold exactly `data.len()` elements.
    #[track_caller]
    pub fn new(data: Vec<f32>, (rows, columns): (usize, usize)) -> Self {
        assert_eq!(data.len(), rows * columns, "Matrix::new: elements for a {rows}×{columns} matrix");
        Matrix { data, rows, columns }
    }
}

// %% notebooks/01_foundations.ipynb ma-zeros
impl Matrix {
    /// A matrix of zeros of the given shape `(rows, columns)`.
    pub fn zeros((rows, columns): (usize, usize)) -> Self {
        Matrix { data: vec![0.0; rows * columns], rows, columns }
    }
}

// %% notebooks/01_foundations.ipynb ma-rows
impl Matrix {
    /// The shape `(rows, columns)`.
    pub fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// All elements, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.data
    }

    /// Row `i`, as a slice of `columns` elements.
    ///
    /// # Panics
    /// If there is no row `i`.
    #[track_caller]
    pub fn row(&self, i: usize) -> &[f32] {
        assert!(i < self.rows, "row {i} is outside of a {}×{} matrix", self.rows, self.columns);
        &self.data[i * self.columns..][..self.columns]
    }
}

// %% notebooks/01_foundations.ipynb ma-index
use std::ops::{Index, IndexMut};

#[track_caller]
fn position((rows, columns): (usize, usize), (i, j): (usize, usize)) -> usize {
    assert!(i < rows && j < columns, "index ({i}, {j}) is outside of a {rows}×{columns} matrix");
    i * columns + j
}

impl Index<(usize, usize)> for Matrix {
    type Output = f32;

    #[track_caller]
    fn index(&self, at: (usize, usize)) -> &f32 {
        &self.data[position(self.shape(), at)]
    }
}

impl IndexMut<(usize, usize)> for Matrix {
    #[track_caller]
    fn index_mut(&mut self, at: (usize, usize)) -> &mut f32 {
        let position = position(self.shape(), at);
        &mut self.data[position]
    }
}
