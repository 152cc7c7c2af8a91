// Owned by notebooks/05b_tensor_operations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash c3b3b29f018eeea5
//! Everyday operations on tensors under PyTorch's names, as functions and as methods of [`TensorOps`].

// %% notebooks/05b_tensor_operations.ipynb op-make
use minai::array::{Array, Shape};
use minai::tensor::{Tensor, axis_of, cat, contiguous, elements, from_op, map, zip};

/// `start`, `start + step`, … up to but without `end`.
///
/// # Panics
/// If the step is 0 or leads away from `end`.
#[track_caller]
pub fn arange(start: f32, end: f32, step: f32) -> Tensor {
    let [from, to, by] = [start, end, step].map(f64::from);
    let count = ((to - from) / by).ceil();
    assert!(count >= 0.0 && count.is_finite(), "arange: no way from {start} to {end} in steps of {step}");
    let elements: Vec<f32> = (0..count as usize).map(|i| (from + i as f64 * by) as f32).collect();
    let len = elements.len();
    Array::new(elements, &[len]).into()
}

/// `count` elements at equal distances, from `start` to `end` inclusive.
pub fn linspace(start: f32, end: f32, count: usize) -> Tensor {
    let [from, to] = [start, end].map(f64::from);
    let step = (to - from) / count.saturating_sub(1).max(1) as f64;
    Array::new((0..count).map(|i| (from + i as f64 * step) as f32).collect(), &[count]).into()
}

// %% notebooks/05b_tensor_operations.ipynb op-eye
/// The identity matrix, (n, n).
pub fn eye(n: usize) -> Tensor {
    let mut elements = vec![0.0; n * n];
    elements.iter_mut().step_by(n + 1).for_each(|diagonal| *diagonal = 1.0);
    Array::new(elements, &[n, n]).into()
}

/// Zeros in the shape of `x`.
pub fn zeros_like(x: &Tensor) -> Tensor {
    Tensor::zeros(x.shape())
}

/// Ones in the shape of `x`.
pub fn ones_like(x: &Tensor) -> Tensor {
    Tensor::ones(x.shape())
}

// %% notebooks/05b_tensor_operations.ipynb op-random
/// A source of random numbers.
pub trait Random {
    /// Uniformly distributed in [0, 1).
    fn rand(&mut self, shape: &[usize]) -> Array;
    /// Normally distributed with mean 0 and standard deviation 1.
    fn randn(&mut self, shape: &[usize]) -> Array;
}

// %% notebooks/05b_tensor_operations.ipynb op-randn
/// Elements uniformly distributed in [0, 1).
///
/// # Panics
/// If a size is negative.
#[track_caller]
pub fn rand(rng: &mut impl Random, shape: impl Into<Shape>) -> Tensor {
    rng.rand(&shape.into().exact("rand")).into()
}

/// Elements normally distributed with mean 0 and standard deviation 1.
///
/// # Panics
/// If a size is negative.
#[track_caller]
pub fn randn(rng: &mut impl Random, shape: impl Into<Shape>) -> Tensor {
    rng.randn(&shape.into().exact("randn")).into()
}

// %% notebooks/05b_tensor_operations.ipynb op-axis
/// The axes from `start` to `end`, both included, as one.
///
/// # Panics
/// If there are no such axes, or `end` lies before `start`.
#[track_caller]
pub fn flatten(x: &Tensor, start: isize, end: isize) -> Tensor {
    if x.shape().is_empty() {
        return x.reshape(1);
    }
    let (first, last) = (axis_of("flatten", start, x.shape()), axis_of("flatten", end, x.shape()));
    assert!(first <= last, "flatten: axes {start} to {end} of shape {:?}", x.shape());
    let (before, rest) = x.shape().split_at(first);
    let (flat, after) = rest.split_at(last + 1 - first);
    x.reshape([before, &[flat.iter().product()], after].concat())
}

// %% notebooks/05b_tensor_operations.ipynb op-unflatten
/// An axis as several, of the given sizes.
///
/// # Panics
/// If there is no such axis, or the sizes' product is not its size.
#[track_caller]
pub fn unflatten(x: &Tensor, axis: isize, shape: impl Into<Shape>) -> Tensor {
    let (position, shape) = (axis_of("unflatten", axis, x.shape()), shape.into());
    let sizes = shape
        .fit(x.shape()[position])
        .unwrap_or_else(|| panic!("unflatten: axis {axis} of shape {:?} cannot become {shape:?}", x.shape()));
    x.reshape([&x.shape()[..position], &sizes, &x.shape()[position + 1..]].concat())
}

// %% notebooks/05b_tensor_operations.ipynb op-repeat
/// The whole tensor as often along each axis as `times` says; axes that it lacks are added in front.
///
/// # Panics
/// If `times` has fewer entries than the tensor has axes, or a negative one.
#[track_caller]
pub fn repeat(x: &Tensor, times: impl Into<Shape>) -> Tensor {
    let times = times.into().exact("repeat");
    let added = times.len().checked_sub(x.shape().len());
    let added = added.unwrap_or_else(|| panic!("repeat: {times:?} times for shape {:?}", x.shape()));
    let sizes = [&vec![1; added], x.shape()].concat();
    let pairs = || times.iter().zip(&sizes);
    let apart: Vec<usize> = sizes.iter().flat_map(|&size| [1, size]).collect();
    let repeated: Vec<usize> = pairs().flat_map(|(&times, &size)| [times, size]).collect();
    let joined: Vec<usize> = pairs().map(|(times, size)| times * size).collect();
    x.reshape(apart).expand(repeated).reshape(joined)
}

// %% notebooks/05b_tensor_operations.ipynb op-flip
use ndarray::{ArcArray, ArrayD, Axis, SliceInfoElem};

/// The order along these axes reversed. Nothing is copied.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn flip(x: &Tensor, axes: &[isize]) -> Tensor {
    let mut part = vec![SliceInfoElem::from(..); x.shape().len()];
    for &axis in axes {
        part[axis_of("flip", axis, x.shape())] = SliceInfoElem::Slice { start: 0, end: None, step: -1 };
    }
    x.slice(&part[..])
}

// %% notebooks/05b_tensor_operations.ipynb op-narrow
/// `length` elements along an axis, from `start` on. Nothing is copied.
///
/// # Panics
/// If there is no such axis, or it ends before.
#[track_caller]
pub fn narrow(x: &Tensor, axis: isize, start: usize, length: usize) -> Tensor {
    let position = axis_of("narrow", axis, x.shape());
    let end = start.saturating_add(length);
    let is_inside = end <= x.shape()[position];
    assert!(is_inside, "narrow: {start}..{end} on axis {axis} of shape {:?}", x.shape());
    let mut part = vec![SliceInfoElem::from(..); x.shape().len()];
    part[position] = (start..end).into();
    x.slice(&part[..])
}

/// Without an axis: the parts that lie along it, one after the other.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn unbind(x: &Tensor, axis: isize) -> Vec<Tensor> {
    let n = x.shape()[axis_of("unbind", axis, x.shape())];
    (0..n).map(|i| narrow(x, axis, i, 1).squeeze(axis)).collect()
}

// %% notebooks/05b_tensor_operations.ipynb op-roll
/// The elements moved by `shift` along an axis; what leaves at the end comes in again at the start.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn roll(x: &Tensor, shift: isize, axis: isize) -> Tensor {
    let n = x.shape()[axis_of("roll", axis, x.shape())];
    let shift = shift.checked_rem_euclid(n as isize).unwrap_or(0) as usize;
    cat(&[&narrow(x, axis, n - shift, shift), &narrow(x, axis, 0, n - shift)], axis)
}

// %% notebooks/05b_tensor_operations.ipynb op-split-sizes
/// How [`split`] cuts an axis: `2`, or `[1, 3, 2]`.
#[derive(Debug)]
pub enum SplitSizes {
    /// Parts of this size; the last may be smaller.
    Each(usize),
    /// Parts of these sizes, which add up to the axis.
    List(Vec<usize>),
}

impl std::fmt::Display for SplitSizes {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            SplitSizes::Each(size) => write!(f, "size {size}"),
            SplitSizes::List(sizes) => write!(f, "sizes {sizes:?}"),
        }
    }
}

// %% notebooks/05b_tensor_operations.ipynb op-split-from
fn listed_sizes(sizes: &[usize]) -> SplitSizes {
    SplitSizes::List(sizes.to_vec())
}

impl From<usize> for SplitSizes {
    fn from(size: usize) -> Self {
        SplitSizes::Each(size)
    }
}

impl From<&[usize]> for SplitSizes {
    fn from(sizes: &[usize]) -> Self {
        listed_sizes(sizes)
    }
}

impl<const N: usize> From<[usize; N]> for SplitSizes {
    fn from(sizes: [usize; N]) -> Self {
        listed_sizes(&sizes)
    }
}

// %% notebooks/05b_tensor_operations.ipynb op-split-list
/// The sizes of the parts of an axis of `n` elements, if they fit.
fn part_sizes(n: usize, sizes: &SplitSizes) -> Option<Vec<usize>> {
    match sizes {
        SplitSizes::Each(0) => None,
        SplitSizes::Each(size) => {
            Some((0..n.max(1)).step_by(*size).map(|start| (n - start).min(*size)).collect())
        }
        SplitSizes::List(sizes) => (sizes.iter().sum::<usize>() == n).then(|| sizes.clone()),
    }
}

// %% notebooks/05b_tensor_operations.ipynb op-split
/// Parts of one size along an axis, of which the last may be smaller, or of a list of sizes: `split(&x, 2, 0)`,
/// `split(&x, [1, 3], 0)`.
///
/// # Panics
/// If there is no such axis, the size is 0, or the list does not add up to the axis.
#[track_caller]
pub fn split(x: &Tensor, sizes: impl Into<SplitSizes>, axis: isize) -> Vec<Tensor> {
    let (n, sizes) = (x.shape()[axis_of("split", axis, x.shape())], sizes.into());
    let Some(sizes) = part_sizes(n, &sizes) else {
        panic!("split: parts of {sizes} on axis {axis} of shape {:?}", x.shape())
    };
    let parts = sizes.iter().scan(0, |end, &size| {
        *end += size;
        Some(narrow(x, axis, *end - size, size))
    });
    parts.collect()
}

// %% notebooks/05b_tensor_operations.ipynb op-chunk
/// `count` parts of equal size along an axis; where that cannot be, the last is smaller, and there may be fewer.
///
/// # Panics
/// If there is no such axis, or `count` is 0.
#[track_caller]
pub fn chunk(x: &Tensor, count: usize, axis: isize) -> Vec<Tensor> {
    let n = x.shape()[axis_of("chunk", axis, x.shape())];
    assert!(count > 0, "chunk: 0 parts of shape {:?}", x.shape());
    split(x, n.div_ceil(count).max(1), axis)
}

// %% notebooks/05b_tensor_operations.ipynb op-pad
/// `value` added around: `sides` says how much, first before and after the last axis, then those of the axis before
/// it, and so on: `(left, right, top, bottom)` for images.
///
/// # Panics
/// If `sides` does not come in pairs, for at most all axes, or one is negative.
#[track_caller]
pub fn pad(x: &Tensor, sides: impl Into<Shape>, value: f32) -> Tensor {
    let (sides, rank) = (sides.into().exact("pad"), x.shape().len());
    let (pairs, odd) = sides.as_chunks::<2>();
    let fits = odd.is_empty() && pairs.len() <= rank;
    assert!(fits, "pad: sides {sides:?} for shape {:?}", x.shape());
    let (mut shape, mut inner) = (x.shape().to_vec(), vec![SliceInfoElem::from(..); rank]);
    for ([before, after], axis) in pairs.iter().zip((0..rank).rev()) {
        inner[axis] = (*before..before + shape[axis]).into();
        shape[axis] += before + after;
    }
    let mut padded = ArrayD::from_elem(shape, value);
    padded.slice_mut(&inner[..]).assign(&x.data);
    from_op("pad", padded.into_shared().into(), &[x], move |g, _| {
        vec![Some(ArcArray::from(g).slice_move(&inner[..]).into())]
    })
}

// %% notebooks/05b_tensor_operations.ipynb op-interpolation
/// How [`interpolate`] finds what lies between pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest pixel before.
    #[default]
    Nearest,
    /// The four pixels around, by distance; PyTorch's `align_corners=False`.
    Bilinear,
}

// %% notebooks/05b_tensor_operations.ipynb op-resized
fn resized(x: &Tensor, axis: isize, new: usize, how: Interpolation) -> Tensor {
    let old = x.shape()[axis_of("interpolate", axis, x.shape())];
    let scale = old as f32 / new as f32;
    let index = |place: f32| (place as i64).min(old as i64 - 1);
    let pick = |places: Vec<i64>| x.index_select(axis, &Array::new(places, &[new]));
    if how == Interpolation::Nearest {
        return pick((0..new).map(|i| index(i as f32 * scale)).collect());
    }
    let places: Vec<f32> = (0..new).map(|i| ((i as f32 + 0.5) * scale - 0.5).max(0.0)).collect();
    let before = pick(places.iter().map(|&place| index(place)).collect());
    let after = pick(places.iter().map(|&place| index(place + 1.0)).collect());
    let share = Array::new(places.iter().map(|place| place.fract()).collect(), &[new]);
    let share = Tensor::from(share).reshape(if axis == -1 { vec![new] } else { vec![new, 1] });
    &before + (after - &before) * share
}

// %% notebooks/05b_tensor_operations.ipynb op-interpolate
/// Images `x` (…, h, w) in another size (rows, columns).
///
/// # Panics
/// If `x` has fewer than two axes, or its images are empty where the result's are not.
#[track_caller]
pub fn interpolate(x: &Tensor, size: (usize, usize), how: Interpolation) -> Tensor {
    let (shape, (rows, columns)) = (x.shape(), size);
    assert!(shape.len() >= 2, "interpolate: images expected, shape {shape:?}");
    let is_empty = shape[shape.len() - 2..].contains(&0) && rows * columns > 0;
    assert!(!is_empty, "interpolate: shape {shape:?} has no pixels for {size:?}");
    resized(&resized(x, -2, rows, how), -1, columns, how)
}

// %% notebooks/05b_tensor_operations.ipynb op-smallest
/// Positions of the smallest elements along an axis: the first of equals; NaN counts as smallest here.
///
/// # Panics
/// If there is no such axis, or it is empty.
#[track_caller]
pub fn argmin(x: &Tensor, axis: isize) -> Array<i64> {
    let n = x.shape()[axis_of("argmin", axis, x.shape())];
    assert!(n > 0, "argmin: no elements to choose from in shape {:?}", x.shape());
    (-x.detach()).argmax(axis)
}

// %% notebooks/05b_tensor_operations.ipynb op-extremes
/// The elements at these positions along an axis, which is taken out of the shape.
#[track_caller]
fn at_positions(x: &Tensor, axis: usize, positions: Array<i64>) -> (Tensor, Array<i64>) {
    let places: Array<i64> = ArcArray::from(positions.clone()).insert_axis(Axis(axis)).into();
    (x.gather(axis as isize, &places).squeeze(axis as isize), positions)
}

/// The largest elements along an axis, and their positions (the first of equals).
///
/// # Panics
/// If there is no such axis, or it is empty.
#[track_caller]
pub fn max(x: &Tensor, axis: isize) -> (Tensor, Array<i64>) {
    at_positions(x, axis_of("max", axis, x.shape()), x.argmax(axis))
}

/// The smallest elements along an axis, and their positions (the first of equals).
///
/// # Panics
/// If there is no such axis, or it is empty.
#[track_caller]
pub fn min(x: &Tensor, axis: isize) -> (Tensor, Array<i64>) {
    at_positions(x, axis_of("min", axis, x.shape()), argmin(x, axis))
}

// %% notebooks/05b_tensor_operations.ipynb op-order
use std::cmp::Ordering;

/// NaN is above everything.
fn ascending(x: &f32, y: &f32) -> Ordering {
    x.partial_cmp(y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()))
}

/// The positions along an axis in an order of the elements; equal ones stay in theirs.
fn order_by(x: &Tensor, axis: usize, compare: fn(&f32, &f32) -> Ordering) -> Array<i64> {
    let last = x.shape().len() - 1;
    let turned = x.detach().transpose(axis as isize, -1);
    let rows = contiguous(&turned.data);
    let mut order = Vec::with_capacity(rows.len());
    for row in elements(&rows).chunks(rows.shape()[last].max(1)) {
        let mut positions: Vec<i64> = (0..row.len() as i64).collect();
        positions.sort_by(|&i, &j| compare(&row[i as usize], &row[j as usize]));
        order.extend(positions);
    }
    let mut order = Array::new(order, rows.shape());
    order.swap_axes(axis, last);
    order
}

// %% notebooks/05b_tensor_operations.ipynb op-sort
/// The positions that sort along an axis, smallest first.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn argsort(x: &Tensor, axis: isize) -> Array<i64> {
    order_by(x, axis_of("argsort", axis, x.shape()), ascending)
}

/// Sorted along an axis, smallest first, and where each element was. ([`flip`] turns the order round.)
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn sort(x: &Tensor, axis: isize) -> (Tensor, Array<i64>) {
    let order = order_by(x, axis_of("sort", axis, x.shape()), ascending);
    (x.gather(axis, &order), order)
}

// %% notebooks/05b_tensor_operations.ipynb op-topk
/// The `k` largest elements along an axis, largest first, and where each was.
///
/// # Panics
/// If there is no such axis, or it has fewer elements.
#[track_caller]
pub fn topk(x: &Tensor, k: usize, axis: isize) -> (Tensor, Array<i64>) {
    let position = axis_of("topk", axis, x.shape());
    assert!(k <= x.shape()[position], "topk: {k} elements on axis {axis} of shape {:?}", x.shape());
    let mut order = order_by(x, position, |x, y| ascending(y, x));
    order.slice_axis_inplace(Axis(position), (..k).into());
    (x.gather(axis, &order), order)
}

// %% notebooks/05b_tensor_operations.ipynb op-triangle
#[track_caller]
fn triangle(op: &str, x: &Tensor, keep: impl Fn(isize) -> bool) -> Tensor {
    let &[.., rows, columns] = x.shape() else { panic!("{op}: matrices expected, shape {:?}", x.shape()) };
    let above = |i: usize| (i % columns) as isize - (i / columns) as isize;
    let hidden: Vec<bool> = (0..rows * columns).map(|i| !keep(above(i))).collect();
    x.masked_fill(&Array::new(hidden, &[rows, columns]), 0.0)
}

// %% notebooks/05b_tensor_operations.ipynb op-tril
/// Matrices `x` (…, rows, columns) with 0 above a diagonal: 0 is the main one, 1 the one above it.
///
/// # Panics
/// If `x` has fewer than two axes.
#[track_caller]
pub fn tril(x: &Tensor, diagonal: isize) -> Tensor {
    triangle("tril", x, |above| above <= diagonal)
}

/// Matrices `x` (…, rows, columns) with 0 below a diagonal: 0 is the main one, 1 the one above it.
///
/// # Panics
/// If `x` has fewer than two axes.
#[track_caller]
pub fn triu(x: &Tensor, diagonal: isize) -> Tensor {
    triangle("triu", x, |above| above >= diagonal)
}

// %% notebooks/05b_tensor_operations.ipynb op-norm
/// The Euclidean norm: the root of the sum of the squares, over all axes (`..`), one, or several. At 0 the slope is 0.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn norm(x: &Tensor, axes: impl Into<minai::tensor::Axes>) -> Tensor {
    let squares = (x * x).sum(axes);
    let root = map(squares.data.clone(), f32::sqrt);
    from_op("norm", root.clone(), &[&squares], move |g, _| {
        vec![Some(zip("norm", g, root, |g, root| if root == 0.0 { 0.0 } else { g / (2.0 * root) }))]
    })
}

// %% notebooks/05b_tensor_operations.ipynb op-running-sums
/// Sums of all elements up to each one, along an axis.
fn running_sums(x: &Array, axis: usize) -> Array {
    let (n, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let mut sums = elements(&contiguous(x)).to_vec();
    for part in sums.chunks_mut((n * inner).max(1)) {
        let mut totals = vec![0.0_f64; inner];
        for row in part.chunks_mut(inner.max(1)) {
            for (total, x) in totals.iter_mut().zip(row) {
                *total += f64::from(*x);
                *x = *total as f32;
            }
        }
    }
    Array::new(sums, x.shape())
}

// %% notebooks/05b_tensor_operations.ipynb op-cumsum
/// Sums of all elements up to each one, along an axis. The way back sums from the other end.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn cumsum(x: &Tensor, axis: isize) -> Tensor {
    let axis = axis_of("cumsum", axis, x.shape());
    from_op("cumsum", running_sums(&x.data, axis), &[x], move |mut g, _| {
        g.invert_axis(Axis(axis));
        let mut dx = running_sums(&g, axis);
        dx.invert_axis(Axis(axis));
        vec![Some(dx)]
    })
}

// %% notebooks/05b_tensor_operations.ipynb op-prod-others
/// For each factor the product of the others.
fn products_of_others(factors: &[f32]) -> Vec<f32> {
    let mut products = vec![1.0; factors.len()];
    let (mut before, mut after) = (1.0, 1.0);
    for i in 0..factors.len() {
        products[i] *= before;
        before *= factors[i];
    }
    for i in (0..factors.len()).rev() {
        products[i] *= after;
        after *= factors[i];
    }
    products
}

// %% notebooks/05b_tensor_operations.ipynb op-prod-rows
/// The product along the last axis.
fn product_of_rows(x: &Tensor) -> Tensor {
    let (&n, outer) = x.shape().split_last().expect("an axis");
    let (rows, shape) = (contiguous(&x.data), x.data.raw_dim());
    let row = move |x: &[f32], i: usize| x[i * n..][..n].to_vec();
    let products: Vec<f32> =
        (0..outer.iter().product()).map(|i| row(elements(&rows), i).iter().product()).collect();
    from_op("prod", Array::new(products, outer), &[x], move |g, _| {
        let slopes = |(i, g): (usize, &f32)| {
            let others = products_of_others(&row(elements(&rows), i));
            others.into_iter().map(|product| product * g).collect::<Vec<f32>>()
        };
        let dx = elements(&g).iter().enumerate().flat_map(slopes).collect();
        vec![Some(Array::new(dx, ndarray::Dimension::slice(&shape)))]
    })
}

// %% notebooks/05b_tensor_operations.ipynb op-prod
/// The product along an axis, which is taken out of the shape. Of no elements it is 1.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn prod(x: &Tensor, axis: isize) -> Tensor {
    let (axis, rank) = (axis_of("prod", axis, x.shape()), x.shape().len() as isize);
    let order: Vec<isize> = (0..rank).filter(|&i| i != axis as isize).chain([axis as isize]).collect();
    product_of_rows(&x.permute(&order))
}

// %% notebooks/05b_tensor_operations.ipynb op-waves
/// The sine of each element, in radians.
pub fn sin(x: &Tensor) -> Tensor {
    let saved = x.data.clone();
    from_op("sin", map(saved.clone(), f32::sin), &[x], move |g, _| {
        vec![Some(zip("sin", g, saved, |g, x| g * x.cos()))]
    })
}

/// The cosine of each element, in radians.
pub fn cos(x: &Tensor) -> Tensor {
    let saved = x.data.clone();
    from_op("cos", map(saved.clone(), f32::cos), &[x], move |g, _| {
        vec![Some(zip("cos", g, saved, |g, x| -g * x.sin()))]
    })
}

// %% notebooks/05b_tensor_operations.ipynb op-exponent
/// What [`pow`] raises to.
pub enum Exponent {
    /// A whole number, such as 2; exact for negative bases.
    Whole(i32),
    /// Any number, such as 0.5.
    Real(f32),
    /// One for each element, broadcast.
    Tensor(Tensor),
}

impl From<i32> for Exponent {
    fn from(n: i32) -> Self {
        Exponent::Whole(n)
    }
}

impl From<f32> for Exponent {
    fn from(p: f32) -> Self {
        Exponent::Real(p)
    }
}

// %% notebooks/05b_tensor_operations.ipynb op-pow-tensors
use minai::tensor::sum_to;

#[track_caller]
fn pow_tensors(x: &Tensor, p: &Tensor) -> Tensor {
    let (base, power) = (x.data.clone(), p.data.clone());
    let y = zip("pow", base.clone(), power.clone(), f32::powf);
    from_op("pow", y.clone(), &[x, p], move |g, needs| {
        let slope = |x: f32, p: f32| if p == 0.0 { 0.0 } else { p * x.powf(p - 1.0) };
        let to_x = || zip("pow", g.clone(), zip("pow", base.clone(), power.clone(), slope), |g, d| g * d);
        // y ln x; where y is 0 it does not change with the power, and ln 0 would spoil that.
        let slope = |x: f32, y: f32| if y == 0.0 { 0.0 } else { y * x.ln() };
        let to_p = || zip("pow", g.clone(), zip("pow", base.clone(), y.clone(), slope), |g, d| g * d);
        let to_x = needs[0].then(|| sum_to(to_x(), base.shape()));
        vec![to_x, needs[1].then(|| sum_to(to_p(), power.shape()))]
    })
}

// %% notebooks/05b_tensor_operations.ipynb op-pow
/// Each element to a power: `pow(&x, 2)`, `pow(&x, 0.5)`, `pow(&x, &y)`.
///
/// # Panics
/// If the shapes of two tensors cannot be broadcast.
#[track_caller]
pub fn pow(x: &Tensor, exponent: impl Into<Exponent>) -> Tensor {
    match exponent.into() {
        Exponent::Whole(n) => x.powi(n),
        Exponent::Real(p) => x.powf(p),
        Exponent::Tensor(p) => pow_tensors(x, &p),
    }
}

impl From<&Tensor> for Exponent {
    fn from(exponents: &Tensor) -> Self {
        Exponent::Tensor(exponents.clone())
    }
}

// %% notebooks/05b_tensor_operations.ipynb op-einsum-letters
/// A tensor and the letters of its axes.
struct Lettered(Vec<char>, Tensor);

impl Lettered {
    fn axis(&self, letter: char) -> isize {
        self.0.iter().position(|&known| known == letter).expect("a letter of this operand") as isize
    }

    /// Sums over the letters that are not wanted any more.
    fn sum_others(self, wanted: impl Fn(char) -> bool) -> Self {
        let axes: Vec<isize> = self.0.iter().filter(|&&c| !wanted(c)).map(|&c| self.axis(c)).collect();
        let summed = if axes.is_empty() { self.1 } else { self.1.sum(&axes[..]) };
        Lettered(self.0.into_iter().filter(|&c| wanted(c)).collect(), summed)
    }

    /// The axes in the order of these letters.
    fn ordered(&self, letters: &[char]) -> Tensor {
        self.1.permute(&letters.iter().map(|&letter| self.axis(letter)).collect::<Vec<_>>())
    }

    fn sizes(&self, letters: &[char]) -> Vec<usize> {
        letters.iter().map(|&letter| self.1.shape()[self.axis(letter) as usize]).collect()
    }
}

// %% notebooks/05b_tensor_operations.ipynb op-einsum-product
/// Two operands as one, which keeps the letters that are wanted later.
fn product(x: Lettered, y: Lettered, wanted: impl Fn(char) -> bool) -> Lettered {
    let (in_x, in_y) = (x.0.clone(), y.0.clone());
    let x = x.sum_others(|c| wanted(c) || in_y.contains(&c));
    let y = y.sum_others(|c| wanted(c) || in_x.contains(&c));
    let pick = |from: &[char], choose: &dyn Fn(char) -> bool| -> Vec<char> {
        from.iter().copied().filter(|&c| choose(c)).collect()
    };
    let batch = pick(&x.0, &|c| y.0.contains(&c) && wanted(c));
    let inner = pick(&x.0, &|c| y.0.contains(&c) && !wanted(c));
    let rows = pick(&x.0, &|c| !y.0.contains(&c));
    let columns = pick(&y.0, &|c| !x.0.contains(&c));
    let size = |of: &Lettered, letters: &[char]| of.sizes(letters).iter().product::<usize>();
    let (b, m, k, n) = (size(&x, &batch), size(&x, &rows), size(&x, &inner), size(&y, &columns));
    let left = x.ordered(&[&batch[..], &rows, &inner].concat()).reshape((b, m, k));
    let right = y.ordered(&[&batch[..], &inner, &columns].concat()).reshape((b, k, n));
    let shape = [x.sizes(&batch), x.sizes(&rows), y.sizes(&columns)].concat();
    Lettered([batch, rows, columns].concat(), left.matmul(&right).reshape(shape))
}

// %% notebooks/05b_tensor_operations.ipynb op-einsum-diagonal
/// A letter that stands twice walks along the diagonal: of a row-major (n, n) that is every (n + 1)-th element.
fn diagonals(Lettered(letters, x): Lettered) -> Lettered {
    let twice = |i: &usize| letters[..*i].contains(&letters[*i]);
    let Some(second) = (0..letters.len()).find(twice) else { return Lettered(letters, x) };
    let first = letters.iter().position(|&letter| letter == letters[second]).expect("the first of two");
    let others: Vec<usize> = (0..letters.len()).filter(|&i| i != first && i != second).collect();
    let order: Vec<isize> = others.iter().chain(&[first, second]).map(|&i| i as isize).collect();
    let (n, mut shape) = (x.shape()[first], others.iter().map(|&i| x.shape()[i]).collect::<Vec<_>>());
    shape.push(n * n);
    let mut part = vec![SliceInfoElem::from(..); shape.len()];
    part[others.len()] = SliceInfoElem::Slice { start: 0, end: None, step: n as isize + 1 };
    let diagonal = x.permute(&order).reshape(shape).slice(&part[..]);
    let rest = others.iter().map(|&i| letters[i]).chain([letters[first]]).collect();
    diagonals(Lettered(rest, diagonal))
}

// %% notebooks/05b_tensor_operations.ipynb op-einsum-parse
/// The letters of each operand and of the result.
#[track_caller]
fn equation_letters(equation: &str, shapes: &[&[usize]]) -> (Vec<Vec<char>>, Vec<char>) {
    let wrong = |why: &str| -> ! { panic!("einsum: {equation:?} for shapes {shapes:?}: {why}") };
    let Some((inputs, result)) = equation.split_once("->") else { wrong("no \"->\"") };
    let letters = |part: &str| part.chars().filter(|&c| c != ' ').collect::<Vec<char>>();
    let (inputs, result): (Vec<_>, _) = (inputs.split(',').map(letters).collect(), letters(result));
    let all = inputs.concat();
    if !all.iter().all(char::is_ascii_alphabetic) {
        wrong("axes are named by letters")
    }
    if inputs.len() != shapes.len() || inputs.iter().zip(shapes).any(|(l, s)| l.len() != s.len()) {
        wrong("as many operands, and letters in each, are needed as there are tensors and axes")
    }
    if !result.iter().enumerate().all(|(i, c)| all.contains(c) && !result[..i].contains(c)) {
        wrong("each letter of the result must be in an operand, and in the result only once")
    }
    let sizes: Vec<(char, usize)> = all.into_iter().zip(shapes.concat()).collect();
    if sizes.iter().any(|(c, size)| sizes.iter().any(|(other, of)| c == other && size != of)) {
        wrong("a letter has two sizes")
    }
    (inputs, result)
}

// %% notebooks/05b_tensor_operations.ipynb op-einsum
/// Products of tensors, summed over the letters that the result does not have: `einsum("bik,bkj->bij", &[&x, &y])`.
///
/// A letter that an operand has twice walks along its diagonal. Blanks do not matter.
///
/// # Panics
/// If the equation is not of this form, or does not fit the shapes.
#[track_caller]
pub fn einsum(equation: &str, tensors: &[&Tensor]) -> Tensor {
    let shapes: Vec<&[usize]> = tensors.iter().map(|tensor| tensor.shape()).collect();
    let (inputs, result) = equation_letters(equation, &shapes);
    let operand = |i: usize| diagonals(Lettered(inputs[i].clone(), tensors[i].clone()));
    let mut joined = operand(0);
    for i in 1..tensors.len() {
        let later = |c: char| result.contains(&c) || inputs[i + 1..].concat().contains(&c);
        joined = product(joined, operand(i), later);
    }
    joined.sum_others(|c| result.contains(&c)).ordered(&result)
}

// %% notebooks/05b_tensor_operations.ipynb op-compare-zip
#[track_caller]
fn compare(op: &str, x: &Tensor, y: Tensor, f: fn(&f32, &f32) -> bool) -> Array<bool> {
    let answers = zip(op, x.data.clone(), y.data, |x, y| f32::from(u8::from(f(&x, &y))));
    Array::new(answers.iter().map(|&answer| answer == 1.0).collect(), answers.shape())
}

// %% notebooks/05b_tensor_operations.ipynb op-compare
/// Functions that compare each element with that of another tensor, broadcast, or with a number.
mod comparisons {
    use super::{Array, Tensor, compare};
    macro_rules! comparisons {
        ($($name:ident $function:ident $text:literal)*) => {
            $(
                #[doc = $text]
                /// Panics if the shapes cannot be broadcast.
                #[track_caller]
                pub fn $name(x: &Tensor, y: impl Into<Tensor>) -> Array<bool> {
                    compare(stringify!($name), x, y.into(), f32::$function)
                }
            )*
        };
    }
    comparisons! {
        lt lt "Where x < y." le le "Where x ≤ y." gt gt "Where x > y."
        ge ge "Where x ≥ y." eq eq "Where x = y." ne ne "Where x ≠ y."
    }
}

pub use comparisons::{eq, ge, gt, le, lt, ne};

// %% notebooks/05b_tensor_operations.ipynb op-methods
/// [`numel`](TensorOps::numel) and its like need no function of their own.
fn all_elements(x: &Tensor) -> Vec<f32> {
    elements(&contiguous(&x.data)).to_vec()
}

mod methods {
    use super::*;

    macro_rules! tensor_ops {
        (make { $($(#[$about:meta])* $make:ident($($input:ident: $of:ty),*);)* }
         methods { $($(#[$doc:meta])* $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)* }) => {
            /// This module's functions as methods of tensors; what each does, and when it panics, is said at the function
            /// of its name.
            pub trait TensorOps {
                /// How many elements there are.
                fn numel(&self) -> usize;
                /// The elements in row-major order.
                fn to_vec(&self) -> Vec<f32>;
                $($(#[$about])* #[track_caller] fn $make($($input: $of),*) -> Tensor;)*
                $($(#[$doc])* #[track_caller] fn $name(&self $(, $argument: $type)*) -> $result;)*
            }

            impl TensorOps for Tensor {
                fn numel(&self) -> usize {
                    self.data.len()
                }

                fn to_vec(&self) -> Vec<f32> {
                    all_elements(self)
                }

                $(#[track_caller] fn $make($($input: $of),*) -> Tensor { $make($($input),*) })*
                $(#[track_caller] fn $name(&self $(, $argument: $type)*) -> $result { $name(self $(, $argument)*) })*
            }
        };
    }

    tensor_ops! { make {
        /// `start`, `start + step`, … up to but without `end`.
        arange(start: f32, end: f32, step: f32);
        /// `count` elements at equal distances, both ends included.
        linspace(start: f32, end: f32, count: usize);
        /// The identity matrix, (n, n).
        eye(n: usize);
        /// Elements uniformly distributed in [0, 1).
        rand(rng: &mut impl Random, shape: impl Into<Shape>);
        /// Elements of mean 0 and standard deviation 1.
        randn(rng: &mut impl Random, shape: impl Into<Shape>);
    } methods {
        /// Zeros in this shape.
        zeros_like() -> Tensor;
        /// Ones in this shape.
        ones_like() -> Tensor;
        /// The axes from `start` to `end`, both included, as one.
        flatten(start: isize, end: isize) -> Tensor;
        /// An axis as several, of the given sizes.
        unflatten(axis: isize, shape: impl Into<Shape>) -> Tensor;
        /// The whole tensor as often along each axis as `times` says.
        repeat(times: impl Into<Shape>) -> Tensor;
        /// The order along these axes reversed.
        flip(axes: &[isize]) -> Tensor;
        /// The elements moved by `shift` along an axis, round the end.
        roll(shift: isize, axis: isize) -> Tensor;
        /// `length` elements along an axis, from `start` on.
        narrow(axis: isize, start: usize, length: usize) -> Tensor;
        /// The parts that lie along an axis, which is taken out.
        unbind(axis: isize) -> Vec<Tensor>;
        /// Parts of one size along an axis, or of a list of sizes.
        split(sizes: impl Into<SplitSizes>, axis: isize) -> Vec<Tensor>;
        /// `count` equal parts along an axis.
        chunk(count: usize, axis: isize) -> Vec<Tensor>;
        /// `value` added around: `(left, right, top, bottom)`.
        pad(sides: impl Into<Shape>, value: f32) -> Tensor;
        /// Images in another size (rows, columns).
        interpolate(size: (usize, usize), how: Interpolation) -> Tensor;
        /// The largest elements along an axis, and their positions.
        max(axis: isize) -> (Tensor, Array<i64>);
        /// The smallest elements along an axis, and their positions.
        min(axis: isize) -> (Tensor, Array<i64>);
        /// Positions of the smallest elements along an axis.
        argmin(axis: isize) -> Array<i64>;
        /// The positions that sort along an axis.
        argsort(axis: isize) -> Array<i64>;
        /// Sorted along an axis, smallest first, and the positions.
        sort(axis: isize) -> (Tensor, Array<i64>);
        /// The `k` largest along an axis, and their positions.
        topk(k: usize, axis: isize) -> (Tensor, Array<i64>);
        /// 0 above a diagonal.
        tril(diagonal: isize) -> Tensor;
        /// 0 below a diagonal.
        triu(diagonal: isize) -> Tensor;
        /// The Euclidean norm.
        norm(axes: impl Into<minai::tensor::Axes>) -> Tensor;
        /// Sums of all elements up to each one.
        cumsum(axis: isize) -> Tensor;
        /// The product along an axis.
        prod(axis: isize) -> Tensor;
        /// The sine of each element.
        sin() -> Tensor;
        /// The cosine of each element.
        cos() -> Tensor;
        /// Each element to a power.
        pow(exponent: impl Into<Exponent>) -> Tensor;
        /// Where x < y.
        lt(y: impl Into<Tensor>) -> Array<bool>;
        /// Where x ≤ y.
        le(y: impl Into<Tensor>) -> Array<bool>;
        /// Where x > y.
        gt(y: impl Into<Tensor>) -> Array<bool>;
        /// Where x ≥ y.
        ge(y: impl Into<Tensor>) -> Array<bool>;
        /// Where x = y.
        eq(y: impl Into<Tensor>) -> Array<bool>;
        /// Where x ≠ y.
        ne(y: impl Into<Tensor>) -> Array<bool>;
    } }
}

pub use methods::TensorOps;
