// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 9b2473124ebbd088
//! Arrays of any rank: [`Array`] wraps `ndarray`'s reference-counted array.

// %% notebooks/01_foundations.ipynb ar-struct
use ndarray::{ArcArray, IxDyn};
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

// %% notebooks/01_foundations.ipynb ar-debug
use std::any::type_name;
use std::fmt;

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

// %% notebooks/01_foundations.ipynb ar-nested-array
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

// %% notebooks/01_foundations.ipynb ar-shape-fit
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

// %% notebooks/01_foundations.ipynb ar-into
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

// %% notebooks/01_foundations.ipynb ar-display
use minai::kernels;

fn text_of<T: kernels::text::Element>(array: &Array<T>, digits: usize) -> String {
    kernels::text::write("array(", array.shape(), |place| array.0[place], digits, &[])
}

/// As PyTorch prints a tensor; `{:.2}` asks for two digits after the point. Of more than 1000 elements the middle is
/// left out, and the shape given.
impl<T: kernels::text::Element> fmt::Display for Array<T> {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&text_of(self, f.precision().unwrap_or(4)))
    }
}

// %% notebooks/01_foundations.ipynb ar-size
/// An integer of any of the usual types.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an integer",
    note = "sizes and indices are of type `usize`, `isize`, `i32` or `i64`"
)]
pub trait Integer: Copy {
    /// The same integer, or the nearest that there is.
    fn signed(self) -> isize;
}

// %% notebooks/01_foundations.ipynb ar-size-types
mod integers {
    use super::Integer;

    macro_rules! integers {
        ($($integer:ty),*) => {
            $(impl Integer for $integer {
                fn signed(self) -> isize {
                    self.try_into().unwrap_or(isize::MAX)
                }
            })*
        };
    }

    integers!(usize, isize, i32, i64);
}

// %% notebooks/01_foundations.ipynb ar-fit
/// The sizes of an array's axes. One may be -1, which stands for whatever fits.
///
/// It is made from an array, a slice, a vector or a tuple of integers; in a tuple, `()` is another way to write -1.
///
/// ```
/// use minai::array::array;
///
/// let a = array([1, 2, 3, 4, 5, 6]);
/// let rows = 2_usize;
/// assert_eq!(a.reshape([2, -1]), a.reshape((rows, ())));
/// assert_eq!(a.reshape(-1).shape(), [6]);
/// ```
#[derive(Clone, PartialEq)]
pub struct Shape(Vec<isize>);

/// Shows the list of sizes.
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.0.fmt(f)
    }
}

// %% notebooks/01_foundations.ipynb ar-size-any
/// A size in a [`Shape`]: an integer, or `()` for whatever fits.
pub trait Size: Copy {
    /// The size, -1 for whatever fits.
    fn size(self) -> isize;
}

impl<T: Integer> Size for T {
    fn size(self) -> isize {
        self.signed()
    }
}

impl Size for () {
    fn size(self) -> isize {
        -1
    }
}

// %% notebooks/01_foundations.ipynb ar-shape
fn shape_of<T: Size>(sizes: &[T]) -> Shape {
    Shape(sizes.iter().map(|&size| size.size()).collect())
}

impl<T: Size, const N: usize> From<[T; N]> for Shape {
    fn from(sizes: [T; N]) -> Self {
        shape_of(&sizes)
    }
}

impl<T: Size, const N: usize> From<&[T; N]> for Shape {
    fn from(sizes: &[T; N]) -> Self {
        shape_of(sizes)
    }
}

impl<T: Size> From<&[T]> for Shape {
    fn from(sizes: &[T]) -> Self {
        shape_of(sizes)
    }
}

// %% notebooks/01_foundations.ipynb ar-shape-more
/// A shape from a single size.
impl<T: Integer> From<T> for Shape {
    fn from(size: T) -> Self {
        shape_of(&[size])
    }
}

impl<T: Size> From<Vec<T>> for Shape {
    fn from(sizes: Vec<T>) -> Self {
        shape_of(&sizes)
    }
}

impl<T: Size> From<&Vec<T>> for Shape {
    fn from(sizes: &Vec<T>) -> Self {
        shape_of(sizes)
    }
}

// %% notebooks/01_foundations.ipynb ar-shape-tuples
/// A shape from a tuple, whose sizes may be of different types. The empty tuple is the shape of a single number.
mod shapes_from_tuples {
    use super::{Shape, Size};

    macro_rules! tuples {
        ($($name:ident)*) => {
            impl<$($name: Size),*> From<($($name,)*)> for Shape {
                #[allow(non_snake_case)] // a variable has the name of its type
                fn from(($($name,)*): ($($name,)*)) -> Self {
                    Shape(vec![$($name.size()),*])
                }
            }
        };
    }

    tuples!();
    tuples!(A);
    tuples!(A B);
    tuples!(A B C);
    tuples!(A B C D);
    tuples!(A B C D E);
    tuples!(A B C D E F);
}

// %% notebooks/01_foundations.ipynb ar-shape-exact
/// Where a size must be known, and is not.
const OPEN: &str = "has a negative size";

impl Shape {
    /// The sizes, -1 for whatever fits.
    pub fn sizes(&self) -> &[isize] {
        &self.0
    }

    /// The sizes for `len` elements, with -1 filled in; `None` if there are none such.
    pub fn fit(&self, len: usize) -> Option<Vec<usize>> {
        fitting_shape(len, &self.0)
    }

    /// The sizes of an array that is yet to be made, so that none can be left open.
    ///
    /// # Panics
    /// If a size is negative, with the operation's name.
    #[track_caller]
    pub fn exact(&self, op: &str) -> Vec<usize> {
        let exact: Result<_, _> = self.0.iter().map(|&size| size.try_into()).collect();
        exact.unwrap_or_else(|_| panic!("{op}: shape {self:?} {OPEN}"))
    }
}

// %% notebooks/01_foundations.ipynb ar-reshape-method
impl<T: Clone> Array<T> {
    /// The same elements, in row-major order, in another shape. At most one size may be -1: what fits is put there.
    ///
    /// An array in row-major order is not copied.
    ///
    /// # Panics
    /// If the new shape does not hold as many elements, or has more than one -1.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        match shape.fit(self.len()) {
            Some(sizes) => reshaped(&self.0, &sizes),
            None => panic!("reshape: {:?} holds {} elements, {shape:?} cannot", self.shape(), self.len()),
        }
    }
}

// %% notebooks/01_foundations.ipynb ar-place
/// Where an element is: indices along all axes, as `[1, 2]` or as a tuple; in a tuple, -1 is the last.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no place of an element",
    note = "write `a[(1, 2)]` or `a[[1, 2]]`; parts of arrays come from `slice`"
)]
pub trait Place {
    /// The indices counted from the front, `None` if the place is outside.
    fn place(self, shape: &[usize]) -> Option<IxDyn>;
}

impl<const N: usize> Place for [usize; N] {
    fn place(self, shape: &[usize]) -> Option<IxDyn> {
        self.as_slice().place(shape)
    }
}

impl Place for &[usize] {
    fn place(self, shape: &[usize]) -> Option<IxDyn> {
        let inside = self.len() == shape.len() && self.iter().zip(shape).all(|(i, size)| i < size);
        inside.then(|| IxDyn(self))
    }
}

// %% notebooks/01_foundations.ipynb ar-place-one
/// Indices along axes, some perhaps from the end.
fn counted_place(indices: &[isize], shape: &[usize]) -> Option<IxDyn> {
    let from_front =
        |(&i, &size): (&isize, &usize)| if i < 0 { size.checked_add_signed(i) } else { Some(i as usize) };
    let place: Option<Vec<usize>> = indices.iter().zip(shape).map(from_front).collect();
    place.filter(|_| indices.len() == shape.len()).and_then(|place| place[..].place(shape))
}

// %% notebooks/01_foundations.ipynb ar-place-single
/// A single integer is a place in a list.
mod single_places {
    use super::{Integer, Place, counted_place};
    use ndarray::IxDyn;

    macro_rules! single_places {
        ($($integer:ty),*) => {
            $(impl Place for $integer {
                fn place(self, shape: &[usize]) -> Option<IxDyn> {
                    counted_place(&[self.signed()], shape)
                }
            })*
        };
    }

    single_places!(usize, isize, i32);
}

// %% notebooks/01_foundations.ipynb ar-place-tuples
mod places_from_tuples {
    use super::{Integer, Place, counted_place};
    use ndarray::IxDyn;

    macro_rules! places {
        ($($name:ident)*) => {
            impl<$($name: Integer),*> Place for ($($name,)*) {
                #[allow(non_snake_case)] // a variable has the name of its type
                fn place(self, shape: &[usize]) -> Option<IxDyn> {
                    let ($($name,)*) = self;
                    counted_place(&[$($name.signed()),*], shape)
                }
            }
        };
    }
    places!(A);
    places!(A B);
    places!(A B C);
    places!(A B C D);
    places!(A B C D E);
}

// %% notebooks/01_foundations.ipynb ar-index
use std::ops::{Index, IndexMut};

/// The place in an array of this shape.
#[track_caller]
fn checked_place(place: impl Place + Copy + fmt::Debug, shape: &[usize]) -> IxDyn {
    place.place(shape).unwrap_or_else(|| panic!("index: {place:?} is outside of shape {shape:?}"))
}

impl<T, P: Place + Copy + fmt::Debug> Index<P> for Array<T> {
    type Output = T;

    #[track_caller]
    fn index(&self, place: P) -> &T {
        &self.0[checked_place(place, self.shape())]
    }
}

impl<T: Clone, P: Place + Copy + fmt::Debug> IndexMut<P> for Array<T> {
    #[track_caller]
    fn index_mut(&mut self, place: P) -> &mut T {
        let place = checked_place(place, self.shape());
        &mut self.0[place]
    }
}
