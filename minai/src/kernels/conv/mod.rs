//! Convolution in two dimensions, its two gradients, and thereby transposed convolution.
//!
//! All of them are matrix multiplications with a matrix that is never built. Output position `p` is multiplied by
//! weight `k` (a channel and a tap of the kernel) with input element `start[k] + p`, if the input is laid out well: padded
//! with zeros, output rows as far apart as input rows, and for a stride of s split into s·s planes, each with every s-th
//! row and column. Then the vectors of a register tile are read straight from the input, and all that is wasted are a
//! few positions at the end of each row. For small images that would be too much: there, columns are gathered
//! (*im2col*; K. Chellapilla and others, *High Performance Convolutional Neural Networks for Document Processing*, 2006),
//! which makes the same picture with another `start`.
//!
//! 3×3 kernels with many channels go through the module `winograd`.

mod columns;
mod correlation;
mod geometry;
mod layout;
pub mod naive;
mod pointwise;
mod weight;
mod winograd;

pub use geometry::Geometry;

use super::memory::{Blank, fill, filled};
use super::simd::{Level, level};

/// y = x ∗ weight + bias (cross-correlation, as in PyTorch).
///
/// # Panics
/// If a slice has another length than the geometry says.
#[track_caller]
pub fn conv2d(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    g.check(x.len(), weight.len(), g.y_len());
    let biases = bias.map_or(g.c_out, <[f32]>::len);
    assert!(biases == g.c_out, "conv2d: a bias of {biases} numbers for {} channels", g.c_out);
    // SAFETY: each output is written.
    unsafe {
        filled(g.y_len(), |y| match winograd::is_worth_it(g) {
            true => winograd::forward(g, x, weight, bias, y),
            false => conv2d_at(level(), g, x, weight, bias, y),
        })
    }
}

fn conv2d_at(level: Level, g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [Blank]) {
    match g {
        _ if y.is_empty() => (),
        g if pointwise::is_possible(g) => pointwise::forward(g, x, weight, bias, y),
        g if columns::is_worth_it(g) => columns::forward(g, x, weight, bias, y),
        g => correlation::forward(level, g, x, weight, bias, y),
    }
}

/// dx from dy: each output's gradient flows back to the inputs that it was made of.
///
/// This is also the transposed convolution of `dy` (n, c_out, out_size) to `dx` (n, c_in, size).
///
/// # Panics
/// If a slice has another length than the geometry says.
#[track_caller]
pub fn conv2d_grad_input(g: &Geometry, dy: &[f32], weight: &[f32]) -> Vec<f32> {
    g.check(g.x_len(), weight.len(), dy.len());
    // SAFETY: each input's gradient is written.
    unsafe {
        filled(g.x_len(), |dx| match winograd::is_worth_it(g) {
            true => winograd::grad_input(g, dy, weight, dx),
            false => grad_input_at(level(), g, dy, weight, dx),
        })
    }
}

fn grad_input_at(level: Level, g: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [Blank]) {
    match g {
        _ if dy.is_empty() => _ = fill(dx, 0.0),
        g if pointwise::is_possible(g) => pointwise::grad_input(g, dy, weight, dx),
        g => correlation::grad_input(level, g, dy, weight, dx),
    }
}

/// dweight from x and dy.
///
/// # Panics
/// If a slice has another length than the geometry says.
#[track_caller]
pub fn conv2d_grad_weight(g: &Geometry, x: &[f32], dy: &[f32]) -> Vec<f32> {
    g.check(x.len(), g.w_len(), dy.len());
    let mut dw = vec![0.0; g.w_len()];
    grad_weight_at(level(), g, x, dy, &mut dw);
    dw
}

fn grad_weight_at(level: Level, g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    match g {
        _ if dy.is_empty() || dw.is_empty() => dw.fill(0.0),
        g if columns::is_worth_it_for_the_weight(g) => columns::grad_weight(g, x, dy, dw),
        g => weight::grad_weight(level, g, x, dy, dw),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::checks::written_by;
    use crate::kernels::simd::levels;
    use crate::kernels::threads::with_threads;

    fn numbers(len: usize, seed: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
    }

    fn geometries() -> Vec<Geometry> {
        let base = Geometry {
            n: 2,
            c_in: 3,
            size: (9, 7),
            c_out: 5,
            kernel: (3, 3),
            stride: (1, 1),
            padding: (1, 1),
            dilation: (1, 1),
            groups: 1,
        };
        let mut all = vec![
            base,
            Geometry { stride: (2, 2), ..base },
            Geometry { stride: (2, 3), padding: (0, 2), kernel: (4, 2), ..base },
            Geometry { dilation: (2, 1), padding: (2, 0), ..base },
            Geometry { kernel: (1, 1), padding: (0, 0), ..base },
            Geometry { kernel: (1, 1), padding: (0, 0), stride: (3, 3), ..base },
            Geometry { c_in: 4, c_out: 6, groups: 2, ..base },
            Geometry { kernel: (9, 7), padding: (0, 0), ..base },
            Geometry { kernel: (10, 7), padding: (0, 0), ..base },
            Geometry { n: 0, ..base },
        ];
        if !cfg!(miri) {
            let large = Geometry { n: 3, size: (17, 14), c_in: 5, c_out: 9, ..base };
            all.extend([
                large,
                Geometry { stride: (2, 2), size: (25, 31), ..large },
                Geometry { stride: (2, 1), dilation: (3, 2), padding: (3, 1), size: (37, 20), ..large },
                Geometry { kernel: (5, 4), stride: (3, 3), padding: (4, 4), size: (40, 41), ..large },
                Geometry { kernel: (1, 1), padding: (0, 0), ..large },
                Geometry { kernel: (1, 1), padding: (0, 0), n: 1, size: (129, 131), ..large },
                Geometry { c_in: 6, c_out: 6, groups: 6, ..large },
                Geometry { n: 1, size: (60, 50), c_in: 40, c_out: 3, ..large },
                Geometry { n: 40, size: (4, 4), c_in: 33, c_out: 20, ..base },
                Geometry { n: 40, size: (11, 10), kernel: (4, 3), stride: (2, 2), dilation: (1, 2), ..base },
                Geometry { n: 30, size: (5, 6), c_in: 4, c_out: 6, groups: 2, padding: (3, 0), ..base },
                Geometry { n: 64, size: (3, 3), c_out: 3, stride: (3, 2), ..base },
                Geometry { n: 9, size: (2, 2), c_in: 8, c_out: 70, stride: (2, 2), ..base },
            ]);
        }
        all
    }

    #[track_caller]
    fn close(got: &[f32], want: &[f32], what: &str) {
        let largest = want.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
        for (i, (x, y)) in got.iter().zip(want).enumerate() {
            assert!((x - y).abs() <= 1e-5 * largest, "{what}: {x} for {y} at {i}");
        }
    }

    #[test]
    fn equal_loops_over_everything() {
        for g in geometries() {
            let (x, w, b) = (numbers(g.x_len(), 1), numbers(g.w_len(), 2), numbers(g.c_out, 3));
            let dy = numbers(g.y_len(), 4);
            let (mut y, mut dx, mut dw) = (vec![0.0; g.y_len()], vec![0.0; g.x_len()], vec![0.0; g.w_len()]);
            naive::forward(&g, &x, &w, Some(&b), &mut y);
            naive::grad_input(&g, &dy, &w, &mut dx);
            naive::grad_weight(&g, &x, &dy, &mut dw);
            for level in levels() {
                let fast_y = written_by(y.len(), |to| conv2d_at(level, &g, &x, &w, Some(&b), to));
                close(&fast_y, &y, &format!("{level:?} {g:?} y"));
                let fast_dx = written_by(dx.len(), |to| grad_input_at(level, &g, &dy, &w, to));
                close(&fast_dx, &dx, &format!("{level:?} {g:?} dx"));
                let mut fast_dw = vec![7.0; dw.len()];
                grad_weight_at(level, &g, &x, &dy, &mut fast_dw);
                close(&fast_dw, &dw, &format!("{level:?} {g:?} dw"));
            }
        }
    }

    #[test]
    fn columns_equal_loops_over_everything() {
        for g in geometries().into_iter().filter(|g| g.groups == 1) {
            let (x, w, b) = (numbers(g.x_len(), 1), numbers(g.w_len(), 2), numbers(g.c_out, 3));
            let mut want = vec![0.0; g.y_len()];
            naive::forward(&g, &x, &w, Some(&b), &mut want);
            if !want.is_empty() {
                let y = written_by(want.len(), |y| columns::forward(&g, &x, &w, Some(&b), y));
                close(&y, &want, &format!("{g:?}"));
            }
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        for g in geometries() {
            let (x, w, dy) = (numbers(g.x_len(), 1), numbers(g.w_len(), 2), numbers(g.y_len(), 4));
            let run = |threads| {
                with_threads(threads, || {
                    let y = conv2d(&g, &x, &w, None);
                    (y, conv2d_grad_input(&g, &dy, &w), conv2d_grad_weight(&g, &x, &dy))
                })
            };
            let one = run(1);
            assert!([2, 5].into_iter().all(|threads| run(threads) == one), "{g:?}");
        }
    }

    #[test]
    #[should_panic(expected = "3 and 5 channels cannot be split into 2 groups")]
    fn groups_must_divide_the_channels() {
        let g = Geometry { groups: 2, ..geometries()[0] };
        conv2d(&g, &numbers(g.x_len(), 1), &[], None);
    }
}
