//! Pooling and upsampling of images (planes of height · width numbers), and looking up rows of a table.

use super::memory::{self, Blank, filled};
use super::threads::{Parts, for_each_chunk};

/// A window that moves over a plane: the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Height and width.
    pub kernel: usize,
    /// How far it moves from one result to the next.
    pub stride: usize,
    /// Rows and columns added around the plane; at most half of `kernel`.
    pub padding: usize,
    /// Whether windows that begin inside of the plane or its padding on the left, but reach over the end, count.
    pub partial: Partial,
}

/// What becomes of windows that reach over the end of a plane and its padding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partial {
    /// They are left out.
    #[default]
    Skip,
    /// They give results too (PyTorch's `ceil_mode`).
    Keep,
}

impl Window {
    /// How many results there are along a side of `size` numbers.
    ///
    /// # Panics
    /// If kernel or stride is 0, the padding is larger than half of the kernel, or the kernel does not fit in.
    #[track_caller]
    pub fn results(&self, size: usize) -> usize {
        let Window { kernel, stride, padding, partial } = *self;
        assert!(kernel > 0 && stride > 0 && padding <= kernel / 2, "pool2d: {self:?}");
        let padded = size + 2 * padding;
        let Some(room) = padded.checked_sub(kernel) else {
            assert!(
                partial == Partial::Keep && size > 0,
                "pool2d: a kernel of {kernel} on {size} + 2 · {padding}"
            );
            return 1;
        };
        match partial {
            Partial::Skip => room / stride + 1,
            Partial::Keep => {
                let most = room.div_ceil(stride) + 1;
                // The last window must begin before the padding on the right.
                if (most - 1) * stride >= size + padding { most - 1 } else { most }
            }
        }
    }

    /// The rows (or columns) of the plane that result `i` sees, and how many it sees of plane and padding together.
    #[inline]
    fn span(&self, i: usize, size: usize) -> (usize, usize, usize) {
        let start = i * self.stride;
        let end = (start + self.kernel).min(size + 2 * self.padding);
        (start.saturating_sub(self.padding), (end - self.padding.min(end)).min(size), end - start)
    }
}

/// Planes of `len` numbers, each written by `task`.
///
/// # Safety
/// `task` must write all numbers of the plane it is given.
unsafe fn planes(count: usize, len: usize, task: impl Fn(usize, &mut [Blank]) + Sync) -> Vec<f32> {
    let step = (8192 / len.max(1)).max(1);
    let fill = |out: &mut [Blank]| {
        for_each_chunk(out, step * len, |i, planes| {
            planes.chunks_mut(len).enumerate().for_each(|(j, plane)| task(i * step + j, plane));
        });
    };
    // SAFETY: the chunks cover everything, and the caller promises the rest.
    unsafe { filled(count * len, fill) }
}

/// How many planes of the given size the numbers make.
#[track_caller]
fn count(name: &str, numbers: usize, (h, w): (usize, usize)) -> usize {
    let count = numbers.checked_div(h * w).unwrap_or(0);
    assert!(count * h * w == numbers, "{name}: {numbers} numbers in planes of {h}x{w}");
    count
}

/// The mean of each window: of plane and padding (which counts as zeros), as in PyTorch, but not of what is
/// beyond both.
///
/// # Panics
/// If lengths or window do not fit.
pub fn avg_pool2d(window: Window, x: &[f32], size: (usize, usize)) -> Vec<f32> {
    let (h, w) = size;
    let (oh, ow) = (window.results(h), window.results(w));
    let task = |plane: usize, y: &mut [Blank]| {
        let x = &x[plane * h * w..][..h * w];
        for (i, y) in y.chunks_mut(ow).enumerate() {
            let (top, bottom, rows) = window.span(i, h);
            for (j, y) in y.iter_mut().enumerate() {
                let (left, right, cols) = window.span(j, w);
                let sum: f32 = (top..bottom).flat_map(|row| &x[row * w + left..row * w + right]).sum();
                y.write(sum / (rows * cols) as f32);
            }
        }
    };
    // SAFETY: each result is written.
    unsafe { planes(count("avg_pool2d", x.len(), size), oh * ow, task) }
}

/// The gradient of x, from that of the result.
///
/// # Panics
/// If lengths or window do not fit.
pub fn avg_pool2d_backward(window: Window, g: &[f32], size: (usize, usize)) -> Vec<f32> {
    let (h, w) = size;
    let (oh, ow) = (window.results(h), window.results(w));
    let task = |plane: usize, dx: &mut [Blank]| {
        let dx = memory::fill(dx, 0.0);
        for (i, g) in g[plane * oh * ow..][..oh * ow].chunks(ow).enumerate() {
            let (top, bottom, rows) = window.span(i, h);
            for (j, g) in g.iter().enumerate() {
                let (left, right, cols) = window.span(j, w);
                let part = g / (rows * cols) as f32;
                for row in top..bottom {
                    dx[row * w + left..row * w + right].iter_mut().for_each(|dx| *dx += part);
                }
            }
        }
    };
    // SAFETY: all is written, first with zeros.
    unsafe { planes(count("avg_pool2d backward", g.len(), (oh, ow)), h * w, task) }
}

/// The largest number of each window, and where in its plane it is: the first of equals. NaN counts as
/// larger than anything.
///
/// # Panics
/// If lengths or window do not fit.
pub fn max_pool2d(window: Window, x: &[f32], size: (usize, usize)) -> (Vec<f32>, Vec<u32>) {
    let (h, w) = size;
    let (oh, ow) = (window.results(h), window.results(w));
    let count = count("max_pool2d", x.len(), size);
    let mut at = vec![0; count * oh * ow];
    let places = Parts::new(&mut at);
    let task = |plane: usize, y: &mut [Blank]| {
        let x = &x[plane * h * w..][..h * w];
        // SAFETY: each plane is one task's.
        let at = unsafe { places.slice(plane * oh * ow, oh * ow) };
        for (i, (y, at)) in y.iter_mut().zip(at).enumerate() {
            let ((top, bottom, _), (left, right, _)) = (window.span(i / ow, h), window.span(i % ow, w));
            let mut most = f32::NEG_INFINITY;
            *at = (top * w + left) as u32;
            for here in (top..bottom).flat_map(|row| row * w + left..row * w + right) {
                if x[here] > most || x[here].is_nan() {
                    (most, *at) = (x[here], here as u32);
                }
            }
            y.write(most);
        }
    };
    // SAFETY: each result is written.
    let y = unsafe { planes(count, oh * ow, task) };
    (y, at)
}

/// The gradient of x, from that of the result and the places that [`max_pool2d`] found.
///
/// # Panics
/// If lengths do not fit.
pub fn max_pool2d_backward(window: Window, g: &[f32], at: &[u32], size: (usize, usize)) -> Vec<f32> {
    let (h, w) = size;
    let small = (window.results(h), window.results(w));
    let results = small.0 * small.1;
    assert_eq!(g.len(), at.len(), "max_pool2d backward: gradient and places");
    let task = |plane: usize, dx: &mut [Blank]| {
        let dx = memory::fill(dx, 0.0);
        let part = plane * results..(plane + 1) * results;
        g[part.clone()].iter().zip(&at[part]).for_each(|(g, &at)| dx[at as usize] += g);
    };
    // SAFETY: all is written, first with zeros.
    unsafe { planes(count("max_pool2d backward", g.len(), small), h * w, task) }
}

/// Each number becomes a square of `scale` · `scale` equal ones.
///
/// # Panics
/// If lengths do not fit.
pub fn upsample_nearest(scale: usize, x: &[f32], size: (usize, usize)) -> Vec<f32> {
    let (h, w) = size;
    assert!(scale > 0, "upsample_nearest: a scale of 0");
    let task = |plane: usize, y: &mut [Blank]| {
        let x = &x[plane * h * w..][..h * w];
        for (x, rows) in x.chunks(w).zip(y.chunks_mut(w * scale * scale)) {
            let (first, others) = rows.split_at_mut(w * scale);
            for (x, y) in x.iter().zip(first.chunks_mut(scale)) {
                memory::fill(y, *x);
            }
            others.chunks_mut(w * scale).for_each(|row| row.copy_from_slice(first));
        }
    };
    // SAFETY: all rows are written.
    unsafe { planes(count("upsample_nearest", x.len(), size), h * w * scale * scale, task) }
}

/// The gradient of x: the sum over each square.
///
/// # Panics
/// If lengths do not fit.
pub fn upsample_nearest_backward(scale: usize, g: &[f32], size: (usize, usize)) -> Vec<f32> {
    let (h, w) = size;
    let task = |plane: usize, dx: &mut [Blank]| {
        let g = &g[plane * dx.len() * scale * scale..][..dx.len() * scale * scale];
        for (dx, rows) in dx.chunks_mut(w).zip(g.chunks(w * scale * scale)) {
            let dx = memory::fill(dx, 0.0);
            for row in rows.chunks(w * scale) {
                dx.iter_mut().zip(row.chunks(scale)).for_each(|(dx, g)| *dx += g.iter().sum::<f32>());
            }
        }
    };
    // SAFETY: all is written, first with zeros.
    unsafe { planes(count("upsample_nearest backward", g.len(), (h * scale, w * scale)), h * w, task) }
}

/// The rows of `table`, of `width` numbers each, that `indices` name, one after another.
///
/// # Panics
/// If lengths do not fit, or there is no such row.
pub fn embedding(table: &[f32], width: usize, indices: &[usize]) -> Vec<f32> {
    let rows = table.len().checked_div(width).unwrap_or(0);
    let task = |i: usize, y: &mut [Blank]| {
        let row = indices[i];
        assert!(row < rows, "embedding: row {row} of a table of {rows}");
        memory::copy(y, &table[row * width..][..width]);
    };
    // SAFETY: all rows are written.
    unsafe { planes(indices.len(), width, task) }
}

/// The gradient of the table, of so many rows: each row of `g` is added to the row that it was copied from, in order.
///
/// # Panics
/// If lengths do not fit, or there is no such row.
pub fn embedding_backward(g: &[f32], width: usize, indices: &[usize], rows: usize) -> Vec<f32> {
    assert_eq!(g.len(), indices.len() * width, "embedding backward: length of the gradient");
    let mut table = vec![0.0; rows * width];
    for (g, &row) in g.chunks(width.max(1)).zip(indices) {
        assert!(row < rows, "embedding backward: row {row} of a table of {rows}");
        table[row * width..][..width].iter_mut().zip(g).for_each(|(sum, g)| *sum += g);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::checks::{assert_close, numbers, same_bits};

    /// Each result of a pool over the padded plane: where its numbers are (if not padding), and how many are counted.
    fn windows(window: Window, (h, w): (usize, usize)) -> Vec<(Vec<usize>, usize)> {
        let p = window.padding as isize;
        let mut list = Vec::new();
        for i in 0..window.results(h) {
            for j in 0..window.results(w) {
                let (mut at, mut count) = (Vec::new(), 0);
                for di in 0..window.kernel {
                    for dj in 0..window.kernel {
                        let y = (i * window.stride + di) as isize - p;
                        let x = (j * window.stride + dj) as isize - p;
                        let inside = |a: isize, size: usize, p: isize| a < size as isize + p;
                        if inside(y, h, p) && inside(x, w, p) {
                            count += 1;
                            if y >= 0 && x >= 0 && inside(y, h, 0) && inside(x, w, 0) {
                                at.push(y as usize * w + x as usize);
                            }
                        }
                    }
                }
                list.push((at, count));
            }
        }
        list
    }

    #[test]
    fn pools_are_the_naive_ones() {
        for (kernel, stride, padding) in
            [(2, 2, 0), (3, 2, 1), (1, 1, 0), (3, 1, 0), (2, 3, 1), (5, 3, 2), (4, 4, 2)]
        {
            for (h, w) in [(5, 5), (6, 9), (7, 4), (9, 11), (4, 4)] {
                for partial in [Partial::Skip, Partial::Keep] {
                    let (window, planes) = (Window { kernel, stride, padding, partial }, 3);
                    if kernel > h + 2 * padding || kernel > w + 2 * padding {
                        continue;
                    }
                    // Few different numbers, so that there are ties.
                    let x: Vec<f32> = numbers(planes * h * w, 3.0).iter().map(|x| x.round()).collect();
                    let windows = windows(window, (h, w));
                    let g = numbers(planes * windows.len(), 1.0);
                    let [mut means, mut highest, mut dx_mean, mut dx_max] =
                        [&g, &g, &x, &x].map(|x| vec![0.0; x.len()]);
                    for plane in 0..planes {
                        for (i, (at, count)) in windows.iter().enumerate() {
                            let here = plane * windows.len() + i;
                            let number = |&at: &usize| x[plane * h * w + at];
                            means[here] = at.iter().map(number).sum::<f32>() / *count as f32;
                            at.iter().for_each(|at| dx_mean[plane * h * w + at] += g[here] / *count as f32);
                            highest[here] = at.iter().map(number).fold(f32::MIN, f32::max);
                            let first = at.iter().find(|at| number(at) == highest[here]).unwrap();
                            dx_max[plane * h * w + first] += g[here];
                        }
                    }
                    let name = format!("{window:?} {h}x{w}");
                    let y = avg_pool2d(window, &x, (h, w));
                    assert_close(&name, &y, &means, 1e-6);
                    let dx = avg_pool2d_backward(window, &g, (h, w));
                    assert_close(&name, &dx, &dx_mean, 1e-6);
                    let (y, at) = max_pool2d(window, &x, (h, w));
                    assert_eq!(y, highest, "{name}");
                    let dx = max_pool2d_backward(window, &g, &at, (h, w));
                    assert_close(&name, &dx, &dx_max, 1e-6);
                }
            }
        }
    }

    #[test]
    fn nan_is_the_largest() {
        let window = Window { kernel: 2, stride: 2, padding: 0, partial: Partial::Skip };
        let x = [1.0, f32::NAN, 0.0, -1.0, 3.0, 2.0, f32::NEG_INFINITY, 0.0];
        let (y, at) = max_pool2d(window, &x, (2, 4));
        assert!(y[0].is_nan() && y[1] == 0.0);
        assert_eq!(at, [1, 2]);
    }

    #[test]
    fn upsampling_repeats_and_its_gradient_sums() {
        for (scale, (h, w)) in [(1, (3, 2)), (2, (5, 4)), (3, (1, 7)), (2, (0, 3))] {
            let x = numbers(2 * h * w, 1.0);
            let y = upsample_nearest(scale, &x, (h, w));
            assert_eq!(y.len(), x.len() * scale * scale);
            let source = |i: usize| {
                let (plane, row, col) =
                    (i / (h * w * scale * scale), i / (w * scale) % (h * scale), i % (w * scale));
                (plane * h + row / scale) * w + col / scale
            };
            assert!(y.iter().enumerate().all(|(i, &y)| y == x[source(i)]));
            let (g, mut expected) = (numbers(y.len(), 1.0), vec![0.0; x.len()]);
            (0..g.len()).for_each(|i| expected[source(i)] += g[i]);
            let dx = upsample_nearest_backward(scale, &g, (h, w));
            assert_close("upsample", &dx, &expected, 1e-6);
        }
    }

    #[test]
    fn rows_are_looked_up_and_their_gradients_added() {
        let (table, indices) = (numbers(5 * 3, 1.0), [4, 0, 4, 2]);
        let y = embedding(&table, 3, &indices);
        for (y, row) in y.chunks(3).zip(indices) {
            assert_eq!(y, &table[row * 3..row * 3 + 3]);
        }
        let dtable = embedding_backward(&y, 3, &indices, 5);
        assert_eq!(dtable[12..], [0, 1, 2].map(|i| y[i] + y[6 + i]));
        assert_eq!(dtable[3..6], [0.0; 3]);
    }

    #[test]
    #[should_panic(expected = "embedding: row 5 of a table of 5")]
    fn a_row_that_is_not_there_panics() {
        embedding(&[0.0; 15], 3, &[5]);
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let window = Window { kernel: 3, stride: 2, padding: 1, partial: Partial::Keep };
        let x = numbers(60 * 21 * 21, 1.0);
        same_bits(|| {
            let y = avg_pool2d(window, &x, (21, 21));
            let averages = [&y[..], &avg_pool2d_backward(window, &y, (21, 21))].concat();
            let (y, at) = max_pool2d(window, &x, (21, 21));
            let dx = max_pool2d_backward(window, &y, &at, (21, 21));
            [averages, y, dx].concat()
        });
    }
}
