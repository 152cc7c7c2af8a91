//! Functions of one array and of two, element by element, with broadcasting; and copies out of strided memory.
//!
//! An operand is a slice and one stride per axis of the result's shape: element `(i, j, …)` lies at `i * s₀ + j * s₁ + …`.
//! A stride of 0 repeats the same elements: that is all there is to broadcasting. Results are row-major.

use super::math::{EXP_TERMS, TANH_TERMS};
use super::memory::{blank, filled};
use super::simd::{Simd, Work, dispatch};
use super::threads::{Parts, for_each, for_each_chunk};
use ndarray::{ArcArray, IxDyn};
use std::mem::MaybeUninit;

/// How many elements a thread takes at a time: few enough to stay in its cache, and enough to be worth the hand-over.
pub const GRAIN: usize = 1 << 15;

/// A slice and its strides, one for each axis.
pub type Strided<'a, T = f32> = (&'a [T], &'a [isize]);

/// The memory of an array from its first element to its last, to be used with the array's own strides; `None` if one of
/// them is negative.
pub fn memory_of<T>(array: &ArcArray<T, IxDyn>) -> Option<&[T]> {
    if array.is_empty() {
        return Some(&[]);
    }
    if array.shape().iter().zip(array.strides()).any(|(&size, &stride)| size > 1 && stride < 0) {
        return None;
    }
    let last: usize =
        array.shape().iter().zip(array.strides()).map(|(&n, &s)| (n - 1) * s.max(0) as usize).sum();
    // SAFETY: the array owns one allocation of initialised elements, shared with others only for reading. Its first and
    // its last element lie in it, in this order as no stride is negative, and so do all elements between them.
    Some(unsafe { std::slice::from_raw_parts(array.as_ptr(), last + 1) })
}

// ---- the innermost loops
//
// A function is compiled once for each instruction set, in one loop over plain slices. All that surrounds the loop is
// shared by all functions: a cell of a notebook that has fifty of them must not take seconds to compile.

struct Map<'a, T, U, F>(&'a [T], &'a mut [MaybeUninit<U>], &'a F);

impl<T: Copy, U, F: Fn(T) -> U> Work for Map<'_, T, U, F> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Map(x, out, f) = self;
        for (out, &x) in out.iter_mut().zip(x) {
            out.write(f(x));
        }
    }
}

struct Zip<'a, T, U, V, F>(&'a [T], &'a [U], &'a mut [MaybeUninit<V>], &'a F);

impl<T: Copy, U: Copy, V, F: Fn(T, U) -> V> Work for Zip<'_, T, U, V, F> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Zip(x, y, out, f) = self;
        for ((out, &x), &y) in out.iter_mut().zip(x).zip(y) {
            out.write(f(x, y));
        }
    }
}

/// Writes a function of a slice, or of two, to another of the same length.
type MapBlock<'a, T, U> = &'a (dyn Fn(&[T], &mut [MaybeUninit<U>]) + Sync);
type ZipBlock<'a, T, U, V> = &'a (dyn Fn(&[T], &[U], &mut [MaybeUninit<V>]) + Sync);

/// Elements that are not side by side, or that are about to be overwritten, are gathered so many at a time.
const PIECE: usize = 512;

/// `n` elements side by side: where they lie, if they do so there, else gathered in `buffer`.
fn gathered<'a, T: Copy>(
    x: &'a [T],
    start: usize,
    stride: usize,
    n: usize,
    buffer: &'a mut Vec<T>,
) -> &'a [T] {
    if stride == 1 {
        return &x[start..start + n];
    }
    buffer.clear();
    if stride == 0 {
        buffer.resize(n, x[start]);
    } else {
        buffer.extend((0..n).map(|i| x[start + i * stride]));
    }
    buffer
}

// ---- one operand

/// `f` of every element. A plain `f` without branches is compiled to vector instructions.
pub fn map<T: Copy + Sync, U: Send>(x: &[T], f: impl Fn(T) -> U + Sync) -> Vec<U> {
    map_blocks(x, &|x, out| dispatch(Map(x, out, &f)))
}

fn map_blocks<T: Copy + Sync, U: Send>(x: &[T], block: MapBlock<T, U>) -> Vec<U> {
    let fill = |out: &mut [MaybeUninit<U>]| {
        for_each_chunk(out, GRAIN, |i, out| block(&x[i * GRAIN..][..out.len()], out));
    };
    // SAFETY: each chunk is written in full, from as many elements of x.
    unsafe { filled(x.len(), fill) }
}

/// Replaces every element by `f` of it.
pub fn map_in_place(x: &mut [f32], f: impl Fn(f32) -> f32 + Sync) {
    map_blocks_in_place(x, &|x, out| dispatch(Map(x, out, &f)));
}

fn map_blocks_in_place(x: &mut [f32], block: MapBlock<f32, f32>) {
    for_each_chunk(x, GRAIN, |_, x| {
        let mut before = [0.0; PIECE];
        for x in x.chunks_mut(PIECE) {
            let before = &mut before[..x.len()];
            before.copy_from_slice(x);
            // SAFETY: blocks write numbers.
            block(before, unsafe { blank(x) });
        }
    });
}

// ---- two operands

/// The axes of a loop over `N` strided operands, with neighbours merged where one loop can do the work of two.
struct Loops<const N: usize> {
    /// All axes but the last: size and strides.
    outer: Vec<(usize, [isize; N])>,
    /// The last axis.
    inner: usize,
    strides: [isize; N],
}

impl<const N: usize> Loops<N> {
    fn new(shape: &[usize], operands: [&[isize]; N]) -> Self {
        let mut axes: Vec<(usize, [isize; N])> = Vec::with_capacity(shape.len());
        for (axis, &size) in shape.iter().enumerate().filter(|&(_, &size)| size != 1) {
            let strides = operands.map(|operand| operand[axis]);
            match axes.last_mut() {
                // One step on the axis before is as far as all steps on this one.
                Some((before, outer)) if (0..N).all(|i| outer[i] == strides[i] * size as isize) => {
                    *before *= size;
                    *outer = strides;
                }
                _ => axes.push((size, strides)),
            }
        }
        let (inner, strides) = axes.pop().unwrap_or((1, [1; N]));
        Loops { outer: axes, inner, strides }
    }

    /// Where row `row` begins in each operand.
    #[inline(always)]
    fn offsets(&self, mut row: usize) -> [usize; N] {
        let mut offsets = [0; N];
        for &(size, strides) in self.outer.iter().rev() {
            for (offset, stride) in offsets.iter_mut().zip(strides) {
                *offset += row % size * stride as usize;
            }
            row /= size;
        }
        offsets
    }

    /// Calls `part` for each row, or part of one, that elements `start..start + len` of the result lie in: with the
    /// operands' offsets and the number of elements.
    #[inline(always)]
    fn rows(&self, start: usize, len: usize, mut part: impl FnMut([usize; N], usize)) {
        let (mut row, mut column, mut left) = (start / self.inner, start % self.inner, len);
        // Divisions are slow: only where the axis before the last begins anew is the place computed, not counted.
        let (run, steps) = self.outer.last().copied().unwrap_or((1, [0; N]));
        while left > 0 {
            let mut offsets = self.offsets(row);
            for _ in row % run..run {
                let n = left.min(self.inner - column);
                part(std::array::from_fn(|i| offsets[i] + column * self.strides[i] as usize), n);
                (row, column, left) = (row + 1, 0, left - n);
                if left == 0 {
                    return;
                }
                offsets = std::array::from_fn(|i| offsets[i] + steps[i] as usize);
            }
        }
    }
}

/// `f(x, y)` for every element of the shape.
///
/// # Panics
/// If the strides lead out of a slice.
pub fn zip<T: Copy + Sync, U: Copy + Sync, V: Send>(
    shape: &[usize],
    x: Strided<T>,
    y: Strided<U>,
    f: impl Fn(T, U) -> V + Sync,
) -> Vec<V> {
    zip_blocks(shape, x, y, &|x, y, out| dispatch(Zip(x, y, out, &f)))
}

fn zip_blocks<T: Copy + Sync, U: Copy + Sync, V: Send>(
    shape: &[usize],
    (x, x_strides): Strided<T>,
    (y, y_strides): Strided<U>,
    block: ZipBlock<T, U, V>,
) -> Vec<V> {
    let loops = Loops::new(shape, [x_strides, y_strides]);
    let [xs, ys] = loops.strides.map(|stride| stride as usize);
    let piece = if (xs, ys) == (1, 1) { usize::MAX } else { PIECE };
    let fill = |out: &mut [MaybeUninit<V>]| {
        for_each_chunk(out, GRAIN, |i, mut out| {
            let (mut x_buffer, mut y_buffer) = (Vec::new(), Vec::new());
            loops.rows(i * GRAIN, out.len(), |[x0, y0], n| {
                let (row, rest) = std::mem::take(&mut out).split_at_mut(n);
                out = rest;
                for (i, out) in row.chunks_mut(piece).enumerate() {
                    let (n, start) = (out.len(), i * PIECE);
                    let x = gathered(x, x0 + start * xs, xs, n, &mut x_buffer);
                    let y = gathered(y, y0 + start * ys, ys, n, &mut y_buffer);
                    block(x, y, out);
                }
            });
        });
    };
    // SAFETY: each chunk is cut into parts of rows, and each part is written in full or the function panics.
    unsafe { filled(shape.iter().product(), fill) }
}

/// Replaces every element of the row-major `x` of the given shape by `f(x, y)`.
///
/// # Panics
/// If the strides lead out of a slice, or `x` does not hold as many elements as the shape.
pub fn zip_in_place(shape: &[usize], x: &mut [f32], y: Strided, f: impl Fn(f32, f32) -> f32 + Sync) {
    zip_blocks_in_place(shape, x, y, &|x, y, out| dispatch(Zip(x, y, out, &f)));
}

/// Replaces every element of the row-major `y` of the given shape by `f(x, y)`.
///
/// # Panics
/// If the strides lead out of a slice, or `y` does not hold as many elements as the shape.
pub fn zip_into_right(shape: &[usize], x: Strided, y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    zip_blocks_in_place(shape, y, x, &|y, x, out| dispatch(Zip(x, y, out, &f)));
}

/// The block is given what is replaced first, whichever operand that is.
fn zip_blocks_in_place(
    shape: &[usize],
    x: &mut [f32],
    (y, y_strides): Strided,
    block: ZipBlock<f32, f32, f32>,
) {
    assert_eq!(x.len(), shape.iter().product::<usize>(), "zip_in_place: elements for shape {shape:?}");
    // Merging looks at y alone, which is all that it may: x is row-major, a row of it is as long as we like.
    let loops = Loops::new(shape, [y_strides]);
    let ys = loops.strides[0] as usize;
    for_each_chunk(x, GRAIN, |i, mut x| {
        let (mut before, mut y_buffer) = ([0.0; PIECE], Vec::new());
        loops.rows(i * GRAIN, x.len(), |[y0], n| {
            let (row, rest) = std::mem::take(&mut x).split_at_mut(n);
            x = rest;
            for (i, x) in row.chunks_mut(PIECE).enumerate() {
                let before = &mut before[..x.len()];
                before.copy_from_slice(x);
                let y = gathered(y, y0 + i * PIECE * ys, ys, x.len(), &mut y_buffer);
                // SAFETY: blocks write numbers.
                block(before, y, unsafe { blank(x) });
            }
        });
    });
}

// ---- copies

/// The elements in row-major order. Where neither the last axis of the result nor that of the source is the other's,
/// as in a transposition, it goes by square tiles, so that both sides use whole cache lines.
pub fn copy<T: Copy + Send + Sync>(shape: &[usize], (x, strides): Strided<T>) -> Vec<T> {
    let loops = Loops::new(shape, [strides]);
    let len = shape.iter().product();
    let across = loops.outer.iter().rposition(|&(_, [stride])| stride == 1);
    match across {
        Some(across) if loops.strides[0] > 1 && len > 0 => transpose(&loops, across, len, x),
        _ => copy_rows(&loops, len, x),
    }
}

fn copy_rows<T: Copy + Send + Sync>(loops: &Loops<1>, len: usize, x: &[T]) -> Vec<T> {
    let stride = loops.strides[0] as usize;
    let fill = |out: &mut [MaybeUninit<T>]| {
        for_each_chunk(out, GRAIN, |i, mut out| {
            loops.rows(i * GRAIN, out.len(), |[start], n| {
                let (row, rest) = std::mem::take(&mut out).split_at_mut(n);
                out = rest;
                if stride == 1 {
                    row.iter_mut().zip(&x[start..start + n]).for_each(|(out, &x)| _ = out.write(x));
                } else {
                    row.iter_mut().enumerate().for_each(|(i, out)| _ = out.write(x[start + i * stride]));
                }
            });
        });
    };
    // SAFETY: each chunk is cut into parts of rows, and each part is written in full or the function panics.
    unsafe { filled(len, fill) }
}

const TILE: usize = 16;

/// Copies with the axis `across` of stride 1 and the last axis swapped in tiles.
fn transpose<T: Copy + Send + Sync>(loops: &Loops<1>, across: usize, len: usize, x: &[T]) -> Vec<T> {
    let (rows, columns, x_stride) = (loops.outer[across].0, loops.inner, loops.strides[0] as usize);
    // Where each axis leads in the result, which is row-major.
    let mut out_strides = vec![columns; loops.outer.len()];
    for axis in (0..loops.outer.len() - 1).rev() {
        out_strides[axis] = out_strides[axis + 1] * loops.outer[axis + 1].0;
    }
    let others: Vec<_> = (0..loops.outer.len()).filter(|&axis| axis != across).collect();
    let planes: usize = others.iter().map(|&axis| loops.outer[axis].0).product();
    let bands = rows.div_ceil(TILE);
    let bands_per_task = (GRAIN / (TILE * columns)).clamp(1, bands);
    let tasks_per_plane = bands.div_ceil(bands_per_task);
    let fill = |out: &mut [MaybeUninit<T>]| {
        let parts = Parts::new(out);
        for_each(planes * tasks_per_plane, |task| {
            let (mut plane, band) = (task / tasks_per_plane, task % tasks_per_plane * bands_per_task);
            let (mut from, mut to) = (0, 0);
            for &axis in others.iter().rev() {
                let (size, [stride]) = loops.outer[axis];
                from += plane % size * stride as usize;
                to += plane % size * out_strides[axis];
                plane /= size;
            }
            let (first, last) = (band * TILE, rows.min((band + bands_per_task) * TILE));
            for column in (0..columns).step_by(TILE) {
                for row in (first..last).step_by(TILE) {
                    let (height, width) = (TILE.min(last - row), TILE.min(columns - column));
                    let tile = &x[from + row + column * x_stride..];
                    for i in 0..height {
                        let start = to + (row + i) * out_strides[across] + column;
                        // SAFETY: a piece of one row of the result, and no other task or turn has this one.
                        let out = unsafe { parts.slice(start, width) };
                        for (j, out) in out.iter_mut().enumerate() {
                            out.write(tile[i + j * x_stride]);
                        }
                    }
                }
            }
        });
    };
    // SAFETY: planes, rows and columns cover the result.
    unsafe { filled(len, fill) }
}

// ---- what lies at given places of an axis

/// Picks along an axis: of `x` (outer, n, inner), result (outer, indices, inner).
///
/// # Panics
/// If an index is not below `n`.
pub fn index_select<T: Copy>(x: &[T], n: usize, inner: usize, indices: &[usize]) -> Vec<T> {
    let outer = x.len().checked_div(n * inner).unwrap_or(0);
    let mut out = Vec::with_capacity(outer * indices.len() * inner);
    for x in x.chunks(n * inner.max(1)).take(outer) {
        for &index in indices {
            out.extend_from_slice(&x[index * inner..][..inner]);
        }
    }
    out
}

/// The reverse of [`index_select`]: adds `g` (outer, indices, inner) to zeros (outer, n, inner), in order.
pub fn index_add(g: &[f32], n: usize, inner: usize, indices: &[usize]) -> Vec<f32> {
    let outer = g.len().checked_div(indices.len() * inner).unwrap_or(0);
    let mut out = vec![0.0; outer * n * inner];
    for o in 0..outer {
        for (i, &index) in indices.iter().enumerate() {
            let from = &g[(o * indices.len() + i) * inner..][..inner];
            let to = &mut out[(o * n + index) * inner..][..inner];
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }
    out
}

// ---- functions of a number that the compiler can turn into vector instructions

/// eˣ, within 2 units in the last place of the true value, subnormal results included; unlike `f32::exp` it is
/// plain arithmetic, so a loop over it becomes vector instructions.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it leaves no bit for a fraction
    // Beyond these the result is infinity or 0 in any case. NaN fails both comparisons and stays.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with few enough bits that n times it is exact.
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let q = EXP_TERMS.iter().rev().fold(0.0, |q, c| q * r + c);
    let p = 1.0 + (r * r * q + r);
    // 2^n in two factors: either alone would overflow at the ends.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    p * power(half) * power(n.wrapping_sub(half))
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The hyperbolic tangent, with small results as exact as large ones.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let square = x * x;
    // Near 0, 1 - 2 / (e²ˣ + 1) would lose digits.
    let near = x + x * square * TANH_TERMS.iter().rev().fold(0.0, |p, c| p * square + c);
    let far = 1.0 - 2.0 / (exp(2.0 * x.abs()) + 1.0);
    if x.abs() < 0.55 { near } else { far.copysign(x) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::threads::with_threads;

    /// The naive versions: the index of each element taken apart, one at a time.
    fn position(mut i: usize, shape: &[usize], strides: &[isize]) -> usize {
        let mut at = 0;
        for (&size, &stride) in shape.iter().zip(strides).rev() {
            at += i % size * stride as usize;
            i /= size;
        }
        at
    }

    fn naive_zip(
        shape: &[usize],
        (x, xs): Strided,
        (y, ys): Strided,
        f: impl Fn(f32, f32) -> f32,
    ) -> Vec<f32> {
        let len = shape.iter().product();
        (0..len).map(|i| f(x[position(i, shape, xs)], y[position(i, shape, ys)])).collect()
    }

    struct Lcg(u64);

    impl Lcg {
        fn below(&mut self, n: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) as usize % n
        }
    }

    /// A random operand for a shape: its axes in random order in memory, some of them broadcast, some with gaps.
    fn operand(shape: &[usize], random: &mut Lcg) -> (Vec<f32>, Vec<isize>) {
        let mut order: Vec<usize> = (0..shape.len()).collect();
        (1..order.len()).rev().for_each(|i| order.swap(i, random.below(i + 1)));
        let (mut strides, mut step) = (vec![0; shape.len()], 1 + random.below(4) / 3);
        for axis in order {
            if random.below(4) > 0 {
                strides[axis] = step as isize;
                step *= shape[axis].max(1) + random.below(5) / 4;
            }
        }
        ((0..step + 1).map(|_| random.below(1000) as f32 - 500.0).collect(), strides)
    }

    #[test]
    fn strided_loops_agree_with_the_naive_ones() {
        let mut random = Lcg(1);
        for round in 0..if cfg!(miri) { 20 } else { 600 } {
            let most = if round % 25 == 0 && !cfg!(miri) { 60 } else { 7 };
            let shape: Vec<usize> = (0..random.below(5)).map(|_| random.below(most)).collect();
            let ((x, xs), (y, ys)) = (operand(&shape, &mut random), operand(&shape, &mut random));
            let f = |x: f32, y: f32| 2.0 * x - y;
            let expected = naive_zip(&shape, (&x, &xs), (&y, &ys), f);
            with_threads(1 + round % 3, || {
                assert_eq!(zip(&shape, (&x, &xs), (&y, &ys), f), expected, "{shape:?} {xs:?} {ys:?}");
                let mut in_place = copy(&shape, (&x, &xs));
                assert_eq!(in_place, naive_zip(&shape, (&x, &xs), (&y, &ys), |x, _| x), "{shape:?} {xs:?}");
                zip_in_place(&shape, &mut in_place, (&y, &ys), f);
                assert_eq!(in_place, expected, "{shape:?} {ys:?}");
                let mut in_place = copy(&shape, (&y, &ys));
                zip_into_right(&shape, (&x, &xs), &mut in_place, f);
                assert_eq!(in_place, expected, "{shape:?} {xs:?}");
            });
        }
    }

    #[test]
    fn what_is_added_comes_from_where_it_was_selected() {
        let x: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let selected = index_select(&x, 3, 4, &[2, 0, 2]);
        assert_eq!(selected[..8], [8.0, 9.0, 10.0, 11.0, 0.0, 1.0, 2.0, 3.0]);
        let added = index_add(&selected, 3, 4, &[2, 0, 2]);
        assert_eq!(added[..12], [0.0, 1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 0.0, 16.0, 18.0, 20.0, 22.0]);
    }

    #[test]
    fn functions_are_near_the_true_values_and_right_at_the_edges() {
        let units = |got: f32, truth: f64| {
            let unit = f64::from((truth as f32).abs().next_up()) - f64::from((truth as f32).abs());
            (f64::from(got) - truth).abs() / unit
        };
        let numbers = |from: f32, to: f32| (0..20_000).map(move |i| from + (to - from) * i as f32 / 20_000.0);
        let worst = numbers(-103.0, 88.7).map(|x| units(exp(x), f64::from(x).exp())).fold(0.0, f64::max);
        assert!(worst < 2.0, "exp: {worst} units in the last place");
        let worst = numbers(-10.0, 10.0).map(|x| units(tanh(x), f64::from(x).tanh())).fold(0.0, f64::max);
        assert!(worst < 4.0, "tanh: {worst} units in the last place");
        let (infinity, nan) = (f32::INFINITY, f32::NAN);
        assert_eq!([-infinity, -200.0, 0.0, 200.0, infinity].map(exp), [0.0, 0.0, 1.0, infinity, infinity]);
        assert_eq!([-infinity, -0.0, 1e-20, infinity].map(tanh), [-1.0, 0.0, 1e-20, 1.0]);
        assert_eq!([-infinity, 0.0, infinity].map(sigmoid), [0.0, 0.5, 1.0]);
        assert!(exp(nan).is_nan() && tanh(nan).is_nan() && sigmoid(nan).is_nan());
    }
}
