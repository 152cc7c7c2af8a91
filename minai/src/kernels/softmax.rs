//! Softmax and its relatives over the last axis, and the losses built on them. A matrix of rows is a slice and the length
//! `cols` of a row; gradients are of the sum of all results, weighted by `g`.
//!
//! A row is read once from memory: while it is in the innermost cache, its maximum, its sum and its results are computed.

use super::math::{by_vectors, exp, keep_first, ln_1p_unit, load, sigmoid, store};
use super::memory::{Blank, filled, written};
use super::simd::{Level, Simd, Work, dispatch_at, level};
use super::threads::{Parts, for_each};

/// Which function of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// eˣ / Σ eˣ
    Softmax,
    /// x - ln Σ eˣ
    LogSoftmax,
}

/// What [`forward`] computes, spelled out.
pub fn forward_naive(kind: Kind, x: &[f32], cols: usize) -> Vec<f32> {
    let row = |row: &[f32]| {
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max) as f64;
        let sum: f64 = row.iter().map(|&x| (x as f64 - highest).exp()).sum();
        let value = |x: f64| match kind {
            Kind::Softmax => (x - highest).exp() / sum,
            Kind::LogSoftmax => x - highest - sum.ln(),
        };
        row.iter().map(|&x| value(x as f64) as f32).collect::<Vec<_>>()
    };
    x.chunks(cols.max(1)).flat_map(row).collect()
}

/// Softmax or log-softmax of each row of `x`. As in PyTorch, a row with NaN or +∞, and one of nothing but -∞,
/// becomes NaN.
///
/// # Panics
/// If the length is no multiple of `cols`.
pub fn forward(kind: Kind, x: &[f32], cols: usize) -> Vec<f32> {
    // SAFETY: all numbers are written.
    unsafe { filled(x.len(), |y| forward_at(level(), kind, x, cols, y)) }
}

fn forward_at(level: Level, kind: Kind, x: &[f32], cols: usize, y: &mut [Blank]) {
    assert_eq!(x.len(), y.len(), "softmax: input and output");
    by_rows(x.len(), cols, y, cols, |at, y| {
        dispatch_at(level, Forward { kind, x: &x[at..][..y.len()], cols, y })
    });
}

/// Replaces the results' gradient `g` by that of `x`, given the results `y` of [`forward`]: y (g - Σ g y) for softmax,
/// g - eʸ Σ g for log-softmax.
///
/// # Panics
/// If the lengths differ, or are no multiple of `cols`.
pub fn backward(kind: Kind, y: &[f32], cols: usize, g: &mut [f32]) {
    backward_at(level(), kind, y, cols, g);
}

fn backward_at(level: Level, kind: Kind, y: &[f32], cols: usize, g: &mut [f32]) {
    assert_eq!(y.len(), g.len(), "softmax backward: results and gradient");
    by_rows(y.len(), cols, g, cols, |at, g| {
        dispatch_at(level, Backward { kind, y: &y[at..][..g.len()], cols, g })
    });
}

/// ln Σ eˣ of each row of `x`. As in PyTorch, -∞ for a row of nothing but -∞, and ∞ for one with ∞.
///
/// # Panics
/// If there are not `cols` numbers for each result.
pub fn logsumexp(x: &[f32], cols: usize, out: &mut [f32]) {
    logsumexp_at(level(), x, cols, out);
}

fn logsumexp_at(level: Level, x: &[f32], cols: usize, out: &mut [f32]) {
    assert_eq!(x.len(), cols * out.len(), "logsumexp: {} rows of {cols}", out.len());
    by_rows(x.len(), cols, out, 1, |at, out| {
        dispatch_at(level, LogSumExp { x: &x[at * cols..][..out.len() * cols], cols, out })
    });
}

/// The gradient of `x`: e^(x - lse) g, for the results `lse` of [`logsumexp`] and their gradient `g`.
///
/// # Panics
/// If the lengths do not fit.
pub fn logsumexp_backward(x: &[f32], cols: usize, lse: &[f32], g: &[f32]) -> Vec<f32> {
    assert_eq!(
        (x.len(), g.len()),
        (cols * lse.len(), lse.len()),
        "logsumexp backward: {} rows of {cols}",
        lse.len()
    );
    let task = |at: usize, dx: &mut [Blank]| {
        let rows = at / cols..at / cols + dx.len() / cols;
        let dx = exp_of_difference(&x[at..][..dx.len()], cols, &lse[rows.clone()], dx);
        for (dx, &g) in dx.chunks_mut(cols).zip(&g[rows]) {
            dx.iter_mut().for_each(|dx| *dx *= g);
        }
    };
    // SAFETY: all numbers are written.
    unsafe { filled(x.len(), |dx| by_rows(x.len(), cols, dx, cols, task)) }
}

/// The mean of -ln softmax(x) at each row's target, and ln Σ eˣ of each row into `lse` for [`cross_entropy_backward`].
///
/// # Panics
/// If the lengths do not fit, or a target is not below `cols`.
pub fn cross_entropy(x: &[f32], cols: usize, targets: &[usize], lse: &mut [f32]) -> f32 {
    assert_eq!(targets.len(), lse.len(), "cross_entropy: targets and rows");
    logsumexp(x, cols, lse);
    let loss = |row: usize| {
        let target = targets[row];
        assert!(target < cols, "cross_entropy: target {target} of {cols} classes");
        lse[row] as f64 - x[row * cols + target] as f64
    };
    ((0..lse.len()).map(loss).sum::<f64>() / lse.len() as f64) as f32
}

/// The gradient of `x`: (softmax(x) - [1 at the target]) g / rows.
///
/// # Panics
/// If the lengths do not fit, or a target is not below `cols`.
pub fn cross_entropy_backward(x: &[f32], cols: usize, targets: &[usize], lse: &[f32], g: f32) -> Vec<f32> {
    assert_eq!(
        (x.len(), targets.len()),
        (cols * lse.len(), lse.len()),
        "cross_entropy backward: {} rows",
        lse.len()
    );
    let factor = g / lse.len() as f32;
    let task = |at: usize, dx: &mut [Blank]| {
        let rows = at / cols..at / cols + dx.len() / cols;
        let dx = exp_of_difference(&x[at..][..dx.len()], cols, &lse[rows.clone()], dx);
        for (dx, &target) in dx.chunks_mut(cols).zip(&targets[rows]) {
            dx[target] -= 1.0;
            dx.iter_mut().for_each(|dx| *dx *= factor);
        }
    };
    // SAFETY: all numbers are written.
    unsafe { filled(x.len(), |dx| by_rows(x.len(), cols, dx, cols, task)) }
}

/// The mean of -t ln σ(x) - (1 - t) ln(1 - σ(x)), as max(x, 0) - x t + ln(1 + e^-|x|): nothing overflows.
///
/// # Panics
/// If the lengths differ.
pub fn bce_with_logits(x: &[f32], targets: &[f32]) -> f32 {
    mean_at(level(), Loss::BceWithLogits, x, targets)
}

/// The gradient of the logits: (σ(x) - t) g / n. (That of the targets would be -x g / n.)
///
/// # Panics
/// If the lengths differ.
pub fn bce_with_logits_backward(x: &[f32], targets: &[f32], g: f32) -> Vec<f32> {
    let factor = g / x.len() as f32;
    // SAFETY: all numbers are written.
    unsafe { filled(x.len(), |dx| difference_at(level(), Loss::BceWithLogits, x, targets, factor, dx)) }
}

/// The mean of (x - y)².
///
/// # Panics
/// If the lengths differ.
pub fn mse(x: &[f32], y: &[f32]) -> f32 {
    mean_at(level(), Loss::Mse, x, y)
}

/// The gradient of `x`: 2 (x - y) g / n. That of `y` is its negative.
///
/// # Panics
/// If the lengths differ.
pub fn mse_backward(x: &[f32], y: &[f32], g: f32) -> Vec<f32> {
    // SAFETY: all numbers are written.
    unsafe { filled(x.len(), |dx| difference_at(level(), Loss::Mse, x, y, 2.0 * g / x.len() as f32, dx)) }
}

/// Runs `task(start, part)` for parts of `out` that belong to whole rows: `out` has `width` floats for each of the rows.
/// How it is cut is a matter of shape only. A large matrix is cut into pieces of 2 MB, so that no two threads are the
/// first to touch the same (large) page.
fn by_rows<T: Send>(
    len: usize,
    cols: usize,
    out: &mut [T],
    width: usize,
    task: impl Fn(usize, &mut [T]) + Sync,
) {
    if out.is_empty() || (len == 0 && width == cols) {
        return;
    }
    assert!(len.is_multiple_of(cols.max(1)), "softmax: {len} numbers in rows of {cols}");
    let rows_per_task = ((len / 32).clamp(1 << 13, 1 << 19) / cols.max(1)).max(1);
    let (step, len, parts) = (rows_per_task * width, out.len(), Parts::new(out));
    for_each(len.div_ceil(step), |i| {
        // SAFETY: parts of different i do not overlap.
        task(i * step, unsafe { parts.slice(i * step, step.min(len - i * step)) });
    });
}

struct Forward<'a> {
    kind: Kind,
    x: &'a [f32],
    cols: usize,
    y: &'a mut [Blank],
}

impl Work for Forward<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let rows: Vec<&[f32]> = self.x.chunks(self.cols).collect();
        // SAFETY: nothing is written.
        let mut highest = unsafe { rows.first().map_or(0.0, |row| row_max::<S>(row)) };
        for (i, (x, y)) in rows.iter().zip(self.y.chunks_mut(self.cols)).enumerate() {
            let next = rows.get(i + 1).unwrap_or(x);
            // SAFETY: all are rows of one length, n.
            unsafe {
                let (n, p, y) = (x.len(), x.as_ptr(), y.as_mut_ptr().cast::<f32>());
                match self.kind {
                    Kind::Softmax => {
                        let (sum, highest_of_next) = exp_and_sum::<S, true>(x, highest, y, next);
                        highest = highest_of_next;
                        let factor = S::splat(1.0 / sum);
                        by_vectors!(S, n, |i, k| {
                            store::<S>(y.add(i), k, S::mul(load::<S>(y.add(i), k), factor));
                        });
                    }
                    Kind::LogSoftmax => {
                        let (sum, highest_of_next) = exp_and_sum::<S, false>(x, highest, y, next);
                        // First the maximum, which may be large: the difference is small again.
                        let (shift, log) = (S::splat(highest), S::splat(sum.ln()));
                        by_vectors!(S, n, |i, k| {
                            store::<S>(y.add(i), k, S::sub(S::sub(load::<S>(p.add(i), k), shift), log));
                        });
                        highest = highest_of_next;
                    }
                }
            }
        }
    }
}

/// The largest number of the row, -∞ if it is empty; NaN may be passed over.
#[inline(always)]
unsafe fn row_max<S: Simd>(x: &[f32]) -> f32 {
    // SAFETY: the caller promises the instruction set; all loads are inside x.
    unsafe {
        let (p, step) = (x.as_ptr(), 4 * S::LANES);
        let mut highest = [S::splat(f32::NEG_INFINITY); 4];
        for i in 0..x.len() / step {
            for (j, highest) in highest.iter_mut().enumerate() {
                *highest = S::max(*highest, S::load(p.add(i * step + j * S::LANES)));
            }
        }
        let all = S::max(S::max(highest[0], highest[1]), S::max(highest[2], highest[3]));
        x[x.len() / step * step..].iter().copied().fold(S::reduce_max(all), f32::max)
    }
}

/// The sum of e^(x - highest), whose terms are written to `y` if `KEEP`; and the largest number of `next`, a row of the
/// same length. It takes all of the time in which this row is computed to come from memory.
#[inline(always)]
unsafe fn exp_and_sum<S: Simd, const KEEP: bool>(
    x: &[f32],
    highest: f32,
    y: *mut f32,
    next: &[f32],
) -> (f32, f32) {
    // SAFETY: the caller promises the instruction set, and as many floats at y and next as in x.
    unsafe {
        let (p, shift) = (x.as_ptr(), S::splat(highest));
        let (mut sums, mut of_next) = ([S::splat(0.0); 2], S::splat(f32::NEG_INFINITY));
        by_vectors!(S, x.len(), |i, k| {
            if k == S::LANES {
                of_next = S::max(of_next, S::load(next.as_ptr().add(i)));
            }
            let e = exp::<S>(S::sub(load::<S>(p.add(i), k), shift));
            if KEEP {
                store::<S>(y.add(i), k, e);
            }
            sums = [sums[1], S::add(sums[0], keep_first::<S>(e, k))];
        });
        let rest = &next[x.len() - x.len() % S::LANES..];
        let of_next = rest.iter().copied().fold(S::reduce_max(of_next), f32::max);
        (S::reduce_add(S::add(sums[0], sums[1])), of_next)
    }
}

struct Backward<'a> {
    kind: Kind,
    y: &'a [f32],
    cols: usize,
    g: &'a mut [f32],
}

impl Work for Backward<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (y, g) in self.y.chunks(self.cols).zip(self.g.chunks_mut(self.cols)) {
            let (n, y, g) = (y.len(), y.as_ptr(), g.as_mut_ptr());
            // SAFETY: both are rows of one length, n. Lanes past it are loaded as zeros.
            unsafe {
                let mut sum = S::splat(0.0);
                by_vectors!(S, n, |i, k| {
                    let gi = load::<S>(g.add(i), k);
                    sum = match self.kind {
                        Kind::Softmax => S::fma(gi, load::<S>(y.add(i), k), sum),
                        Kind::LogSoftmax => S::add(gi, sum),
                    };
                });
                let sum = S::splat(S::reduce_add(sum));
                by_vectors!(S, n, |i, k| {
                    let (gi, yi) = (load::<S>(g.add(i), k), load::<S>(y.add(i), k));
                    let dx = match self.kind {
                        Kind::Softmax => S::mul(yi, S::sub(gi, sum)),
                        Kind::LogSoftmax => S::fnma(exp::<S>(yi), sum, gi),
                    };
                    store::<S>(g.add(i), k, dx);
                });
            }
        }
    }
}

struct LogSumExp<'a> {
    x: &'a [f32],
    cols: usize,
    out: &'a mut [f32],
}

impl Work for LogSumExp<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (row, out) in self.out.iter_mut().enumerate() {
            let x = &self.x[row * self.cols..][..self.cols];
            // SAFETY: nothing is written.
            unsafe {
                let highest = row_max::<S>(x);
                // Where all are -∞, or one is ∞, the differences would be NaN.
                let shift = if highest.is_finite() { highest } else { 0.0 };
                *out = shift + exp_and_sum::<S, false>(x, shift, std::ptr::null_mut(), x).0.ln();
            }
        }
    }
}

/// e^(x - lse) of each row, which is written to `dx`.
///
/// # Panics
/// If the lengths do not fit.
fn exp_of_difference<'a>(x: &[f32], cols: usize, lse: &[f32], dx: &'a mut [Blank]) -> &'a mut [f32] {
    assert_eq!((x.len(), dx.len()), (cols * lse.len(), cols * lse.len()), "{} rows of {cols}", lse.len());
    dispatch_at(level(), ExpOfDifference { x, lse, cols, dx });
    // SAFETY: all rows were written.
    unsafe { written(dx) }
}

struct ExpOfDifference<'a> {
    x: &'a [f32],
    lse: &'a [f32],
    cols: usize,
    dx: &'a mut [Blank],
}

impl Work for ExpOfDifference<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for ((x, dx), &lse) in self.x.chunks(self.cols).zip(self.dx.chunks_mut(self.cols)).zip(self.lse) {
            let (n, x, dx) = (x.len(), x.as_ptr(), dx.as_mut_ptr().cast::<f32>());
            // SAFETY: both are rows of one length, n.
            unsafe {
                let lse = S::splat(lse);
                by_vectors!(S, n, |i, k| {
                    store::<S>(dx.add(i), k, exp::<S>(S::sub(load::<S>(x.add(i), k), lse)));
                });
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Loss {
    Mse,
    BceWithLogits,
}

/// Parts of this length are summed in floats, and the sums in double precision.
const BLOCK: usize = 1 << 12;

fn mean_at(level: Level, loss: Loss, x: &[f32], y: &[f32]) -> f32 {
    assert_eq!(x.len(), y.len(), "{loss:?}: input and target");
    let mut sums = vec![0.0; x.len().div_ceil(BLOCK)];
    by_rows(sums.len() * BLOCK, BLOCK, &mut sums, 1, |at, sums| {
        for (i, sum) in sums.iter_mut().enumerate() {
            let block = (at + i) * BLOCK..x.len().min((at + i + 1) * BLOCK);
            *sum = dispatch_at(level, SumOf { loss, x: &x[block.clone()], y: &y[block] });
        }
    });
    (sums.iter().map(|&sum| sum as f64).sum::<f64>() / x.len() as f64) as f32
}

struct SumOf<'a> {
    loss: Loss,
    x: &'a [f32],
    y: &'a [f32],
}

impl Work for SumOf<'_> {
    type Out = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f32 {
        let (x, y) = (self.x.as_ptr(), self.y.as_ptr());
        // SAFETY: both have the same length.
        unsafe {
            let (mut sum, zero) = (S::splat(0.0), S::splat(0.0));
            by_vectors!(S, self.x.len(), |i, k| {
                let (x, y) = (load::<S>(x.add(i), k), load::<S>(y.add(i), k));
                let term = match self.loss {
                    Loss::Mse => S::mul(S::sub(x, y), S::sub(x, y)),
                    Loss::BceWithLogits => {
                        let (opposite, positive) = (S::sub(zero, x), S::max(zero, x));
                        let log = ln_1p_unit::<S>(exp::<S>(S::min(x, opposite)));
                        keep_first::<S>(S::add(S::fnma(x, y, positive), log), k)
                    }
                };
                sum = S::add(sum, term);
            });
            S::reduce_add(sum)
        }
    }
}

fn difference_at(level: Level, loss: Loss, x: &[f32], y: &[f32], factor: f32, dx: &mut [Blank]) {
    assert_eq!((x.len(), x.len()), (y.len(), dx.len()), "{loss:?} backward: input, target and gradient");
    by_rows(x.len(), 1, dx, 1, |at, dx| {
        let part = at..at + dx.len();
        dispatch_at(level, Difference { loss, x: &x[part.clone()], y: &y[part], factor, dx });
    });
}

struct Difference<'a> {
    loss: Loss,
    x: &'a [f32],
    y: &'a [f32],
    factor: f32,
    dx: &'a mut [Blank],
}

impl Work for Difference<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (x, y, dx) = (self.x.as_ptr(), self.y.as_ptr(), self.dx.as_mut_ptr().cast::<f32>());
        // SAFETY: all three have the same length.
        unsafe {
            let factor = S::splat(self.factor);
            by_vectors!(S, self.dx.len(), |i, k| {
                let (x, y) = (load::<S>(x.add(i), k), load::<S>(y.add(i), k));
                let x = match self.loss {
                    Loss::Mse => x,
                    Loss::BceWithLogits => sigmoid::<S>(x),
                };
                store::<S>(dx.add(i), k, S::mul(S::sub(x, y), factor));
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::checks::{assert_close, numbers, same_bits, written_by};
    use crate::kernels::simd::levels;

    const SHAPES: [(usize, usize); 9] =
        [(1, 1), (3, 5), (7, 16), (2, 31), (50, 10), (5, 65), (3, 1000), (0, 4), (700, 33)];

    #[test]
    fn rows_and_gradients_are_the_naive_ones() {
        for (rows, cols) in SHAPES {
            let (x, g) = (numbers(rows * cols, 20.0), numbers(rows * cols, 1.0));
            for level in levels() {
                for kind in [Kind::Softmax, Kind::LogSoftmax] {
                    let y = written_by(x.len(), |y| forward_at(level, kind, &x, cols, y));
                    let name = format!("{level:?} {kind:?} {rows}x{cols}");
                    assert_close(&name, &y, &forward_naive(kind, &x, cols), 1e-6);
                    let mut dx = g.clone();
                    backward_at(level, kind, &y, cols, &mut dx);
                    let expected: Vec<f32> = (0..x.len())
                        .map(|i| {
                            let row = i / cols * cols..(i / cols + 1) * cols;
                            let sum: f32 = match kind {
                                Kind::Softmax => row.map(|j| g[j] * y[j]).sum(),
                                Kind::LogSoftmax => row.map(|j| g[j]).sum(),
                            };
                            match kind {
                                Kind::Softmax => y[i] * (g[i] - sum),
                                Kind::LogSoftmax => g[i] - y[i].exp() * sum,
                            }
                        })
                        .collect();
                    assert_close(&name, &dx, &expected, 1e-5);
                }
                let mut lse = vec![0.0; rows];
                logsumexp_at(level, &x, cols, &mut lse);
                let log_softmax = forward_naive(Kind::LogSoftmax, &x, cols);
                let expected: Vec<f32> =
                    (0..rows).map(|row| x[row * cols] - log_softmax[row * cols]).collect();
                assert_close("logsumexp", &lse, &expected, 1e-6);
            }
        }
    }

    #[test]
    fn losses_are_what_their_definitions_say() {
        for (rows, cols) in SHAPES.into_iter().filter(|shape| shape.0 > 0) {
            let x = numbers(rows * cols, 5.0);
            let targets: Vec<usize> = (0..rows).map(|row| row * 7 % cols).collect();
            let mut lse = vec![0.0; rows];
            let loss = cross_entropy(&x, cols, &targets, &mut lse);
            let log_softmax = forward_naive(Kind::LogSoftmax, &x, cols);
            let each = (0..rows).map(|row| -log_softmax[row * cols + targets[row]] as f64);
            let expected = each.sum::<f64>() / rows as f64;
            assert!((loss as f64 - expected).abs() < 1e-5 * expected.abs().max(0.1), "{loss} for {expected}");
            let dx = cross_entropy_backward(&x, cols, &targets, &lse, 2.0);
            let mut expected = forward_naive(Kind::Softmax, &x, cols);
            (0..rows).for_each(|row| expected[row * cols + targets[row]] -= 1.0);
            expected.iter_mut().for_each(|dx| *dx *= 2.0 / rows as f32);
            assert_close("cross_entropy", &dx, &expected, 1e-5);
            let g = numbers(rows, 1.0);
            let lse_dx = logsumexp_backward(&x, cols, &lse, &g);
            let softmax = forward_naive(Kind::Softmax, &x, cols);
            let expected: Vec<f32> = softmax.iter().enumerate().map(|(i, y)| y * g[i / cols]).collect();
            assert_close("logsumexp", &lse_dx, &expected, 1e-5);
        }
    }

    #[test]
    fn elementwise_losses_are_the_naive_ones() {
        for n in [1, 5, 16, 33, 5_000, 20_001] {
            let (x, t) = (numbers(n, 30.0), numbers(n, 1.0));
            for level in levels() {
                for loss in [Loss::Mse, Loss::BceWithLogits] {
                    let (mut total, mut expected) = (0.0, vec![0.0; n]);
                    for i in 0..n {
                        let (x, t) = (x[i] as f64, t[i] as f64);
                        let (value, slope) = match loss {
                            Loss::Mse => ((x - t) * (x - t), x - t),
                            Loss::BceWithLogits => {
                                (x.max(0.0) - x * t + (-x.abs()).exp().ln_1p(), 1.0 / (1.0 + (-x).exp()) - t)
                            }
                        };
                        total += value;
                        expected[i] = (slope * 0.5) as f32;
                    }
                    let mean = mean_at(level, loss, &x, &t) as f64;
                    assert!((mean / (total / n as f64) - 1.0).abs() < 1e-6, "{level:?} {loss:?} {n}: {mean}");
                    let dx = written_by(n, |dx| difference_at(level, loss, &x, &t, 0.5, dx));
                    assert_close("elementwise", &dx, &expected, 1e-6);
                }
            }
        }
    }

    #[test]
    fn nan_and_infinities_are_pytorchs() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = [[-inf; 3], [1.0, -inf, 1.0], [inf, 0.0, 0.0], [nan, 0.0, 1.0], [0.0, 1.0, nan]].concat();
        for level in levels() {
            let mut lse = vec![0.0; 5];
            let y = written_by(15, |y| forward_at(level, Kind::Softmax, &x, 3, y));
            assert!(y[..3].iter().chain(&y[6..]).all(|y| y.is_nan()), "{level:?}: {y:?}");
            assert_eq!(y[3..6], [0.5, 0.0, 0.5]);
            logsumexp_at(level, &x, 3, &mut lse);
            assert_eq!((lse[0], lse[2]), (-inf, inf), "{level:?}");
            assert!((lse[1] - 1.0 - 2f32.ln()).abs() < 1e-6 && lse[3].is_nan() && lse[4].is_nan(), "{lse:?}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, targets) = (numbers(40_000, 3.0), (0..1000).map(|i| i % 40).collect::<Vec<_>>());
        same_bits(|| {
            let (y, mut lse) = (forward(Kind::Softmax, &x, 40), vec![0.0; 1000]);
            let loss = cross_entropy(&x, 40, &targets, &mut lse);
            let dx = cross_entropy_backward(&x, 40, &targets, &lse, 1.0);
            [y, lse, dx, vec![loss, mse(&x[..30_000], &x[10_000..])]].concat()
        });
    }
}
