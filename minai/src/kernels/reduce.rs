//! Sums and other reductions over some of an array's axes.
//!
//! Floats do not add up the same in every order, so the order is fixed by the shape: rows in 32 lanes, long rows by
//! halves, many rows in blocks that are then added pairwise. It is the same for any number of threads, and the errors of
//! rounding grow with the logarithm of the length rather than with the length.

use super::elementwise::{GRAIN, Strided, copy};
use super::simd::{Simd, Work, dispatch};
use super::threads::for_each_chunk;

/// A row of at most this many elements is folded in one go.
const BLOCK: usize = 4096;
/// At most so many rows are added one after the other.
const ROWS: usize = 128;
const LANES: usize = 32;

/// Sums over the axes that are marked; the result is row-major over the others. An empty sum is 0.
pub fn sum(shape: &[usize], x: Strided, reduced: &[bool]) -> Vec<f32> {
    fold(shape, x, reduced, 0.0, |a, b| a + b)
}

/// The largest element over the axes that are marked, NaN if there is one, -∞ if there are no elements.
pub fn max(shape: &[usize], x: Strided, reduced: &[bool]) -> Vec<f32> {
    fold(shape, x, reduced, f32::NEG_INFINITY, |a, b| if b > a || b.is_nan() { b } else { a })
}

/// The smallest element over the axes that are marked, NaN if there is one, ∞ if there are no elements.
pub fn min(shape: &[usize], x: Strided, reduced: &[bool]) -> Vec<f32> {
    fold(shape, x, reduced, f32::INFINITY, |a, b| if b < a || b.is_nan() { b } else { a })
}

/// A loop over some axes of row-major memory.
#[derive(Default)]
struct Axes(Vec<(usize, usize)>);

impl Axes {
    fn len(&self) -> usize {
        self.0.iter().map(|&(size, _)| size).product()
    }

    fn offset(&self, mut i: usize) -> usize {
        if let [(_, stride)] = self.0[..] {
            return i * stride;
        }
        let mut offset = 0;
        for &(size, stride) in self.0.iter().rev() {
            offset += i % size * stride;
            i /= size;
        }
        offset
    }
}

/// Folds the marked axes with `f`, which must be associative but for rounding, beginning with `start`, its neutral element.
fn fold(
    shape: &[usize],
    (x, strides): Strided,
    reduced: &[bool],
    start: f32,
    f: impl Fn(f32, f32) -> f32 + Copy + Sync,
) -> Vec<f32> {
    let kept: usize =
        shape.iter().zip(reduced).filter(|&(_, &reduced)| !reduced).map(|(&size, _)| size).product();
    if kept == 0 || shape.contains(&0) {
        return vec![start; kept];
    }
    let mut row_major = 1;
    let contiguous = shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == row_major;
        row_major *= size as isize;
        fits
    });
    if contiguous {
        fold_contiguous(shape, &x[..row_major as usize], reduced, start, f)
    } else {
        fold_contiguous(shape, &copy(shape, (x, strides)), reduced, start, f)
    }
}

fn fold_contiguous(
    shape: &[usize],
    x: &[f32],
    reduced: &[bool],
    start: f32,
    f: impl Fn(f32, f32) -> f32 + Copy + Sync,
) -> Vec<f32> {
    // Neighbouring axes of one kind are merged; the last one stays apart.
    let mut axes: Vec<(usize, usize, bool)> = Vec::with_capacity(shape.len());
    let mut stride = 1;
    for (&size, &reduced) in shape.iter().zip(reduced).rev().filter(|&(&size, _)| size != 1) {
        match axes.last_mut() {
            Some((length, _, kind)) if *kind == reduced => *length *= size,
            _ => axes.push((size, stride, reduced)),
        }
        stride *= size;
    }
    if axes.is_empty() {
        return x.to_vec();
    }
    let (inner, _, inner_reduced) = axes.remove(0);
    axes.reverse();
    let of_kind = |kind| Axes(axes.iter().filter(|axis| axis.2 == kind).map(|&(n, s, _)| (n, s)).collect());
    let (kept, folded) = (of_kind(false), of_kind(true));
    if inner_reduced {
        fold_rows(x, inner, &kept, &folded, start, f)
    } else if axes.is_empty() {
        x.to_vec()
    } else {
        fold_columns(x, inner, &kept, &folded, start, f)
    }
}

// ---- along rows

/// A row of any length, by halves down to blocks.
struct Row<'a, F>(&'a [f32], f32, F);

impl<F: Fn(f32, f32) -> f32 + Copy> Work for Row<'_, F> {
    type Out = f32;
    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let Row(x, start, f) = self;
        // What a binary counter would do: two results of the same number of blocks become one.
        let mut halves = [start; usize::BITS as usize];
        let blocks = x.len().div_ceil(BLOCK);
        let mut total = start;
        for (i, block) in x.chunks(BLOCK).enumerate() {
            let mut sum = fold_block(block, start, f);
            if blocks == 1 {
                return sum;
            }
            let mut level = 0;
            while (i >> level) & 1 == 1 {
                sum = f(halves[level], sum);
                level += 1;
            }
            halves[level] = sum;
        }
        for level in (0..usize::BITS as usize).filter(|level| (blocks >> level) & 1 == 1) {
            total = f(halves[level], total);
        }
        total
    }
}

#[inline(always)]
fn fold_block(x: &[f32], start: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    if x.len() < LANES {
        return x.iter().fold(start, |sum, &x| f(sum, x));
    }
    let mut lanes = [start; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for (lane, &x) in lanes.iter_mut().zip(row) {
            *lane = f(*lane, x);
        }
    }
    for (lane, &x) in lanes.iter_mut().zip(rest) {
        *lane = f(*lane, x);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
        width /= 2;
    }
    lanes[0]
}

fn fold_rows(
    x: &[f32],
    inner: usize,
    kept: &Axes,
    folded: &Axes,
    start: f32,
    f: impl Fn(f32, f32) -> f32 + Copy + Sync,
) -> Vec<f32> {
    let rows = folded.len();
    if kept.len() * rows == 1 && inner > GRAIN {
        // One long row: its pieces in parallel, then what they gave.
        let mut pieces = vec![start; inner.div_ceil(GRAIN)];
        for_each_chunk(&mut pieces, 1, |i, piece| {
            piece[0] = dispatch(Row(&x[i * GRAIN..inner.min((i + 1) * GRAIN)], start, f));
        });
        return vec![dispatch(Row(&pieces, start, f))];
    }
    let mut out = vec![start; kept.len()];
    let per_task = (GRAIN / (rows * inner)).max(1);
    for_each_chunk(&mut out, per_task, |task, out| {
        for (i, out) in out.iter_mut().enumerate() {
            let base = kept.offset(task * per_task + i);
            let row = |r: usize| dispatch(Row(&x[base + folded.offset(r)..][..inner], start, f));
            *out = if rows == 1 {
                row(0)
            } else {
                let sums: Vec<f32> = (0..rows).map(row).collect();
                dispatch(Row(&sums, start, f))
            };
        }
    });
    out
}

// ---- down columns

/// Folds rows `from..to` into `out`, element by element.
struct Columns<'a, F> {
    x: &'a [f32],
    base: usize,
    folded: &'a Axes,
    from: usize,
    to: usize,
    out: &'a mut [f32],
    f: F,
}

impl<F: Fn(f32, f32) -> f32 + Copy> Work for Columns<'_, F> {
    type Out = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Columns { x, base, folded, from, to, out, f } = self;
        let n = out.len();
        for r in from..to {
            let row = &x[base + folded.offset(r)..][..n];
            for (out, &x) in out.iter_mut().zip(row) {
                *out = f(*out, x);
            }
        }
    }
}

fn fold_columns(
    x: &[f32],
    inner: usize,
    kept: &Axes,
    folded: &Axes,
    start: f32,
    f: impl Fn(f32, f32) -> f32 + Copy + Sync,
) -> Vec<f32> {
    // Every block of rows gives a row, of which there are `blocks` for each place of the outer axes that are kept.
    let (rows, places) = (folded.len(), kept.len());
    let per_block = (GRAIN / inner).clamp(1, ROWS).min(rows);
    let blocks = rows.div_ceil(per_block);
    let mut sums = vec![start; places * blocks * inner];
    let per_task = (GRAIN / (per_block * inner)).max(1);
    for_each_chunk(&mut sums, per_task * inner, |task, sums| {
        for (i, out) in sums.chunks_mut(inner).enumerate() {
            let (place, block) = ((task * per_task + i) / blocks, (task * per_task + i) % blocks);
            let (from, to) = (block * per_block, rows.min((block + 1) * per_block));
            dispatch(Columns { x, base: kept.offset(place), folded, from, to, out, f });
        }
    });
    if blocks == 1 {
        return sums;
    }
    let mut out = Vec::with_capacity(places * inner);
    for sums in sums.chunks_mut(blocks * inner) {
        let mut count = blocks;
        while count > 1 {
            let half = count.div_ceil(2);
            let (near, far) = sums[..count * inner].split_at_mut(half * inner);
            for (near, &far) in near.iter_mut().zip(&*far) {
                *near = f(*near, far);
            }
            count = half;
        }
        out.extend_from_slice(&sums[..inner]);
    }
    out
}

/// Positions of the largest elements along the last axis of `x` (rows, n): the first of equals; NaN counts as largest.
///
/// # Panics
/// If `n` is 0.
pub fn argmax_rows(x: &[f32], n: usize) -> Vec<i64> {
    assert!(n > 0, "argmax: over no elements");
    let largest = |row: &[f32]| {
        let mut best = 0;
        for (i, &x) in row.iter().enumerate() {
            if x > row[best] || x.is_nan() && !row[best].is_nan() {
                best = i;
            }
        }
        best as i64
    };
    x.chunks(n).map(largest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::threads::with_threads;

    /// The naive version: in f64, one element after the other.
    fn naive_sum(shape: &[usize], (x, strides): Strided, reduced: &[bool]) -> Vec<f64> {
        let kept: Vec<usize> = shape.iter().zip(reduced).map(|(&n, &r)| if r { 1 } else { n }).collect();
        let mut out = vec![0.0; kept.iter().product()];
        for i in 0..shape.iter().product() {
            let (mut rest, mut from, mut to, mut step) = (i, 0, 0, 1);
            for axis in (0..shape.len()).rev() {
                let index = rest % shape[axis];
                rest /= shape[axis];
                from += index * strides[axis] as usize;
                if !reduced[axis] {
                    to += index * step;
                    step *= shape[axis];
                }
            }
            out[to] += f64::from(x[from]);
        }
        out
    }

    fn row_major(shape: &[usize]) -> Vec<isize> {
        let mut strides = vec![1; shape.len()];
        for axis in (1..shape.len()).rev() {
            strides[axis - 1] = strides[axis] * shape[axis] as isize;
        }
        strides
    }

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + 13) % 1009) as f32 / 100.0 - 3.0).collect()
    }

    #[test]
    fn sums_over_every_choice_of_axes_agree_with_the_naive_one() {
        let small: &[&[usize]] =
            &[&[], &[1], &[5], &[3, 4], &[2, 1, 3], &[4, 3, 2, 5], &[0, 3], &[3, 0], &[2, 3, 33, 2]];
        let large: &[&[usize]] =
            &[&[100_000], &[3000, 70], &[70, 3000], &[2, 40, 7, 90], &[20_000, 10], &[2, 50_000]];
        for shape in small.iter().chain(if cfg!(miri) { &[] } else { large }) {
            let x = numbers(shape.iter().product());
            let transposed: Vec<isize> =
                row_major(&shape.iter().rev().copied().collect::<Vec<_>>()).into_iter().rev().collect();
            for strides in [row_major(shape), transposed] {
                for bits in 0..1 << shape.len() {
                    let reduced: Vec<bool> = (0..shape.len()).map(|axis| bits >> axis & 1 == 1).collect();
                    let expected = naive_sum(shape, (&x, &strides), &reduced);
                    let sums = with_threads(1, || sum(shape, (&x, &strides), &reduced));
                    let scale = expected.iter().fold(1.0_f64, |a, b| a.max(b.abs()));
                    assert_eq!(sums.len(), expected.len(), "{shape:?} {reduced:?}");
                    for (sum, expected) in sums.iter().zip(&expected) {
                        assert!((f64::from(*sum) - expected).abs() < 1e-6 * scale, "{shape:?} {reduced:?}");
                    }
                    for threads in [2, 5] {
                        assert_eq!(with_threads(threads, || sum(shape, (&x, &strides), &reduced)), sums);
                    }
                }
            }
        }
    }

    #[test]
    fn extremes_see_nan_and_nothing() {
        let x = [1.0, f32::NAN, 3.0, 4.0, 2.0, -f32::INFINITY];
        let largest = max(&[2, 3], (&x, &[3, 1]), &[false, true]);
        assert!(largest[0].is_nan() && largest[1] == 4.0);
        let smallest = min(&[2, 3], (&x, &[3, 1]), &[true, false]);
        assert!(smallest[0] == 1.0 && smallest[1].is_nan() && smallest[2] == -f32::INFINITY);
        assert_eq!(max(&[0, 2], (&[], &[0, 0]), &[true, false]), [-f32::INFINITY; 2]);
        assert_eq!(argmax_rows(&[1.0, 3.0, 3.0, 2.0, f32::NAN, 9.0], 3), [1, 1]);
    }
}
