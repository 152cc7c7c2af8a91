// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 6cc43317e80a54fa
//! Arrays of any rank: [`Array`] wraps `ndarray`'s reference-counted array.

// %% notebooks/01_foundations.ipynb ar-struct
use ndarray::{ArcArray, IxDyn};
use std::any::type_name;
use std::fmt;
use std::ops::{Deref, DerefMut};

/// An array of any rank and shape. A clone shares the buffer; writing to one that is shared copies it first.
///
/// All of `ndarray`'s methods are at hand through `Deref`, indexing with a list of indices included: `a[[1, 2]]`.
#[derive(Clone, PartialEq)]
pub struct Array<T = f32>(ArcArray<T, IxDyn>);

impl<T> Deref for Array<T> {
    type Target = ArcArray<T, IxDyn>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<T> DerefMut for Array<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

/// Shows the elements, then shape and element type.
impl<T: fmt::Debug> fmt::Debug for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        // ndarray leaves out the middle of a long array, and ends with what we say shorter.
        let text = match f.precision() {
            Some(digits) => format!("{:.digits$?}", self.0),
            None => format!("{:?}", self.0),
        };
        let elements = text.rsplit_once(", shape=").map_or(text.as_str(), |(elements, _)| elements);
        write!(f, "{elements}  shape {:?}, {}", self.shape(), type_name::<T>())
    }
}

// %% notebooks/01_foundations.ipynb ar-new
/// An array of the given shape, or `None` if that shape does not hold exactly `elements.len()` elements.
fn shaped<T>(elements: Vec<T>, shape: &[usize]) -> Option<Array<T>> {
    Some(Array(ndarray::Array::from_shape_vec(shape, elements).ok()?.into()))
}

impl<T> Array<T> {
    /// An array of the given shape from its elements in row-major order.
    ///
    /// # Panics
    /// If the shape does not hold exactly `elements.len()` elements.
    #[track_caller]
    pub fn new(elements: Vec<T>, shape: &[usize]) -> Self {
        let count = elements.len();
        shaped(elements, shape).unwrap_or_else(|| panic!("Array::new: {count} elements for shape {shape:?}"))
    }

    /// The name of the element type.
    pub fn dtype(&self) -> &'static str {
        type_name::<T>()
    }
}

impl<T> From<ArcArray<T, IxDyn>> for Array<T> {
    fn from(inner: ArcArray<T, IxDyn>) -> Self {
        Array(inner)
    }
}

impl<T> From<Array<T>> for ArcArray<T, IxDyn> {
    fn from(array: Array<T>) -> Self {
        array.0
    }
}

// %% notebooks/01_foundations.ipynb ar-from-ndarray
fn shared<T, D: ndarray::Dimension>(array: ndarray::Array<T, D>) -> Array<T> {
    Array(array.into_dyn().into())
}

/// An array of ndarray's own type, of any number of axes: nothing is copied.
impl<T, D: ndarray::Dimension> From<ndarray::Array<T, D>> for Array<T> {
    fn from(array: ndarray::Array<T, D>) -> Self {
        shared(array)
    }
}

// %% notebooks/01_foundations.ipynb ar-fit
/// `shape` with its -1, if it has one, replaced such that it holds `len` elements; `None` if that cannot be.
fn fitting_shape(len: usize, shape: &[isize]) -> Option<Vec<usize>> {
    let mut product = 1_usize;
    for &size in shape.iter().filter(|&&size| size != -1) {
        product = product.checked_mul(usize::try_from(size).ok()?)?; // negative, or too large a product: None
    }
    let missing = match shape.iter().filter(|&&size| size == -1).count() {
        0 if product == len => 1,
        1 if product > 0 && len.is_multiple_of(product) => len / product,
        _ => return None,
    };
    Some(shape.iter().map(|&size| if size == -1 { missing } else { size as usize }).collect())
}

// %% notebooks/01_foundations.ipynb ar-reshape
fn reshaped<T: Clone>(array: &ArcArray<T, IxDyn>, sizes: &[usize]) -> Array<T> {
    Array(match array.clone().into_shape_with_order(sizes) {
        Ok(same_buffer) => same_buffer,
        Err(_) => array.to_shape(sizes).expect("as many elements as before").into_shared(),
    })
}

impl<T: Clone> Array<T> {
    /// The same elements, in row-major order, in another shape. At most one size may be -1: what fits is put there.
    ///
    /// An array in row-major order is not copied.
    ///
    /// # Panics
    /// If the new shape does not hold as many elements, or has more than one -1.
    #[track_caller]
    pub fn reshape(&self, shape: &[isize]) -> Self {
        match fitting_shape(self.len(), shape) {
            Some(sizes) => reshaped(&self.0, &sizes),
            None => panic!("reshape: {:?} holds {} elements, {shape:?} cannot", self.shape(), self.len()),
        }
    }
}

// %% notebooks/01_foundations.ipynb ar-nested
/// A number, or a list of equal-shaped nested lists: what [`array()`] takes.
pub trait Nested {
    /// The numbers inside.
    type Number;
    /// The sizes, from the outermost list inwards; empty for a number.
    fn sizes(&self) -> Vec<usize>;
    /// Appends all numbers in order.
    fn flatten_into(self, numbers: &mut Vec<Self::Number>);
}

/// An array from nested lists: `array([[1, 2], [3, 4]])` has rank 2, `array(5.0)` has rank 0.
///
/// # Panics
/// If lists at the same depth differ in length.
#[track_caller]
pub fn array<N: Nested>(nested: N) -> Array<N::Number> {
    let (sizes, mut numbers) = (nested.sizes(), Vec::new());
    nested.flatten_into(&mut numbers);
    Array::new(numbers, &sizes)
}

// %% notebooks/01_foundations.ipynb ar-nested-impl
fn sizes_of_list<N: Nested>(list: &[N]) -> Vec<usize> {
    let inner = list.first().map(N::sizes).unwrap_or_default();
    if let Some(odd) = list.iter().map(N::sizes).find(|sizes| *sizes != inner) {
        panic!("array: a list holds something of shape {inner:?} and something of shape {odd:?}");
    }
    [vec![list.len()], inner].concat()
}

impl<N: Nested> Nested for Vec<N> {
    type Number = N::Number;

    fn sizes(&self) -> Vec<usize> {
        sizes_of_list(self)
    }

    fn flatten_into(self, numbers: &mut Vec<Self::Number>) {
        self.into_iter().for_each(|inner| inner.flatten_into(numbers));
    }
}

impl<N: Nested, const LEN: usize> Nested for [N; LEN] {
    type Number = N::Number;

    fn sizes(&self) -> Vec<usize> {
        sizes_of_list(self)
    }

    fn flatten_into(self, numbers: &mut Vec<Self::Number>) {
        self.into_iter().for_each(|inner| inner.flatten_into(numbers));
    }
}

// %% notebooks/01_foundations.ipynb ar-numbers
/// What an [`Array`] made from lists may hold.
pub trait Number: Copy {}

impl Number for f32 {}
impl Number for f64 {}
impl Number for i32 {}
impl Number for i64 {}
impl Number for u8 {}
impl Number for usize {}
impl Number for bool {}

impl<T: Number> Nested for T {
    type Number = T;

    fn sizes(&self) -> Vec<usize> {
        Vec::new()
    }

    fn flatten_into(self, numbers: &mut Vec<T>) {
        numbers.push(self);
    }
}
