//! 3×3 convolutions with a quarter of the multiplications: F(4×4, 3×3) of A. Lavin and S. Gray, *Fast Algorithms for
//! Convolutional Neural Networks*, 2015 (after S. Winograd, 1980).
//!
//! A tile of 6×6 inputs makes a tile of 4×4 outputs, as Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A for the kernel g. Element by
//! element of the 36, the products and the sum over input channels are a multiplication of matrices. The numbers in the
//! transformations are as large as 8 and as small as 1/24, which costs about half a decimal digit: the largest error was
//! 3 to 4·10⁻⁶ of the largest output where three loops in f32 had 1 to 2·10⁻⁶ (normal numbers, 64 to 320 channels).

use super::conv::Geometry;
use super::gemm::gemm_batched_to;
use super::scratch::scratch;
use super::simd::{Simd, Work, dispatch};
use super::threads::{Parts, for_each, for_each_chunk};

/// Inputs and outputs of a tile, along one axis.
const IN: usize = 6;
const OUT: usize = 4;
/// Elements of a transformed tile.
const ALL: usize = IN * IN;
/// Tiles in one go.
const TILES: usize = 1024;

/// Whether there are enough channels and pixels that the transformations cost less than they save.
pub(super) fn is_worth_it(g: &Geometry) -> bool {
    let (h, w) = g.out_size();
    g.kernel == (3, 3)
        && g.stride == (1, 1)
        && g.dilation == (1, 1)
        && g.groups == 1
        && g.c_in.min(g.c_out) >= 32
        && h.min(w) >= 16
        && g.padding.0.max(g.padding.1) <= 2
}

/// y = x ∗ weight + bias, see [`super::conv::conv2d`].
pub(super) fn conv2d(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let kernels = Kernels { weight, outer: g.c_in * 9, inner: 9, flipped: [0, 1, 2, 3, 4, 5, 6, 7, 8] };
    run(g, x, kernels, bias, y);
}

/// dx from dy: the convolution with the kernels turned round and the channels exchanged.
pub(super) fn grad_input(g: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let kernels = Kernels { weight, outer: 9, inner: g.c_in * 9, flipped: [8, 7, 6, 5, 4, 3, 2, 1, 0] };
    let back = Geometry {
        c_in: g.c_out,
        size: g.out_size(),
        c_out: g.c_in,
        padding: (2 - g.padding.0, 2 - g.padding.1),
        ..*g
    };
    run(&back, dy, kernels, None, dx);
}

/// The weights: distances between output channels and between input channels, and the order of the 9 taps.
#[derive(Clone, Copy)]
struct Kernels<'a> {
    weight: &'a [f32],
    outer: usize,
    inner: usize,
    flipped: [usize; 9],
}

fn run(g: &Geometry, x: &[f32], kernels: Kernels, bias: Option<&[f32]>, y: &mut [f32]) {
    let ((h, w), (oh, ow)) = (g.size, g.out_size());
    let (rows, columns) = (oh.div_ceil(OUT), ow.div_ceil(OUT));
    let mut u = scratch(ALL * g.c_out * g.c_in);
    let u_parts = Parts::new(&mut u);
    for_each(g.c_out, |o| {
        dispatch(TransformKernels { kernels, o, c_in: g.c_in, c_out: g.c_out, u: u_parts })
    });

    let images_at_once = (TILES / (rows * columns)).clamp(1, g.n.max(1));
    for first in (0..g.n).step_by(images_at_once) {
        let images = images_at_once.min(g.n - first);
        let tiles = images * rows * columns;
        // (36, c_in, tiles)
        let mut v = scratch(ALL * g.c_in * tiles);
        let v_parts = Parts::new(&mut v);
        for_each(images * g.c_in, |i| {
            let (image, c) = (i / g.c_in, i % g.c_in);
            let plane = &x[((first + image) * g.c_in + c) * h * w..][..h * w];
            for row in 0..rows {
                let to = c * tiles + (image * rows + row) * columns;
                let step = g.c_in * tiles;
                dispatch(TransformInput { g, plane, row, columns, v: v_parts, to, step });
            }
        });
        // (36, c_out, tiles)
        let mut products = scratch(ALL * g.c_out * tiles);
        let offsets: Vec<(usize, usize)> =
            (0..ALL).map(|e| (e * g.c_out * g.c_in, e * g.c_in * tiles)).collect();
        let size = (g.c_out, tiles, g.c_in);
        gemm_batched_to(&offsets, size, &u, (g.c_in, 1), &v, (tiles, 1), &mut products);
        for_each_chunk(
            &mut y[first * g.c_out * oh * ow..][..images * g.c_out * oh * ow],
            oh * ow,
            |i, plane| {
                let (image, c) = (i / g.c_out, i % g.c_out);
                let bias = bias.map_or(0.0, |bias| bias[c]);
                for row in 0..rows {
                    let from = &products[c * tiles + (image * rows + row) * columns..];
                    let plane = &mut plane[row * OUT * ow..];
                    dispatch(TransformOutput { from, step: g.c_out * tiles, columns, bias, plane, ow });
                }
            },
        );
    }
}

/// U = G g Gᵀ for all kernels of an output channel, to u: (36, c_out, c_in).
struct TransformKernels<'a> {
    kernels: Kernels<'a>,
    o: usize,
    c_in: usize,
    c_out: usize,
    u: Parts<f32>,
}

/// G, one column of kernels after the other.
#[inline(always)]
fn times_g(g: [f32; 3]) -> [f32; IN] {
    let [a, b, c] = g;
    let (even, odd) = (a + c, a + 4.0 * c);
    [
        a / 4.0,
        (even + b) * (-1.0 / 6.0),
        (even - b) * (-1.0 / 6.0),
        (odd + 2.0 * b) * (1.0 / 24.0),
        (odd - 2.0 * b) * (1.0 / 24.0),
        c,
    ]
}

impl Work for TransformKernels<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let TransformKernels { kernels: Kernels { weight, outer, inner, flipped }, o, c_in, c_out, u } = self;
        // Sixteen input channels at a time: the innermost loops become vectors.
        for first in (0..c_in).step_by(16) {
            let count = 16.min(c_in - first);
            let mut g = [[0.0_f32; 16]; 9];
            for i in 0..count {
                let from = &weight[o * outer + (first + i) * inner..][..9];
                for k in 0..9 {
                    g[k][i] = from[flipped[k]];
                }
            }
            let mut halves = [[[0.0_f32; 16]; 3]; IN];
            for column in 0..3 {
                for i in 0..16 {
                    let half = times_g([g[column][i], g[3 + column][i], g[6 + column][i]]);
                    for r in 0..IN {
                        halves[r][column][i] = half[r];
                    }
                }
            }
            for r in 0..IN {
                let mut whole = [[0.0_f32; 16]; IN];
                for i in 0..16 {
                    let line = times_g([halves[r][0][i], halves[r][1][i], halves[r][2][i]]);
                    for s in 0..IN {
                        whole[s][i] = line[s];
                    }
                }
                for s in 0..IN {
                    // SAFETY: each output channel has its own part of each of the 36 matrices.
                    let to = unsafe { u.slice(((r * IN + s) * c_out + o) * c_in + first, count) };
                    to.copy_from_slice(&whole[s][..count]);
                }
            }
        }
    }
}

/// V = Bᵀ d B for a row of tiles of a plane, to v: (36, c_in, tiles).
struct TransformInput<'a> {
    g: &'a Geometry,
    plane: &'a [f32],
    row: usize,
    columns: usize,
    v: Parts<f32>,
    to: usize,
    step: usize,
}

/// Bᵀ d.
#[inline(always)]
fn times_b(d: [f32; IN]) -> [f32; IN] {
    let [a, b, c, d, e, f] = d;
    let (p, q) = (e - 4.0 * c, d - 4.0 * b);
    let (r, s) = (e - c, 2.0 * (d - b));
    [4.0 * a - 5.0 * c + e, p + q, p - q, r + s, r - s, 4.0 * b - 5.0 * d + f]
}

impl Work for TransformInput<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let TransformInput { g, plane, row, columns, v, to, step } = self;
        let (h, w) = g.size;
        for first in (0..columns).step_by(16) {
            let count = 16.min(columns - first);
            // d[r][j][t]: row r, column 4 t + j of 16 tiles and the two columns behind them.
            let mut d = [[[0.0_f32; 16]; IN]; IN];
            for r in 0..IN {
                let Some(y) = (row * OUT + r).checked_sub(g.padding.0).filter(|&y| y < h) else { continue };
                let line = &plane[y * w..][..w];
                for t in 0..count {
                    let left = (first + t) * OUT;
                    match left.checked_sub(g.padding.1) {
                        Some(at) if at + IN <= w => {
                            let six: &[f32; IN] = line[at..at + IN].try_into().expect("six of them");
                            for j in 0..IN {
                                d[r][j][t] = six[j];
                            }
                        }
                        _ => {
                            for j in 0..IN {
                                let inside = (left + j).checked_sub(g.padding.1).filter(|&x| x < w);
                                d[r][j][t] = inside.map_or(0.0, |x| line[x]);
                            }
                        }
                    }
                }
            }
            let mut halves = [[[0.0_f32; 16]; IN]; IN];
            for j in 0..IN {
                for t in 0..16 {
                    let half =
                        times_b([d[0][j][t], d[1][j][t], d[2][j][t], d[3][j][t], d[4][j][t], d[5][j][t]]);
                    for r in 0..IN {
                        halves[r][j][t] = half[r];
                    }
                }
            }
            for r in 0..IN {
                let from = &halves[r];
                let mut whole = [[0.0_f32; 16]; IN];
                for t in 0..16 {
                    let line =
                        times_b([from[0][t], from[1][t], from[2][t], from[3][t], from[4][t], from[5][t]]);
                    for s in 0..IN {
                        whole[s][t] = line[s];
                    }
                }
                for s in 0..IN {
                    // SAFETY: each channel and row of tiles has its own part of each of the 36 matrices.
                    let to = unsafe { v.slice((r * IN + s) * step + to + first, count) };
                    to.copy_from_slice(&whole[s][..count]);
                }
            }
        }
    }
}

/// Y = Aᵀ M A + bias for a row of tiles of a plane, from (36, c_out, tiles).
struct TransformOutput<'a> {
    from: &'a [f32],
    step: usize,
    columns: usize,
    bias: f32,
    plane: &'a mut [f32],
    ow: usize,
}

/// Aᵀ m.
#[inline(always)]
fn times_a(m: [f32; IN]) -> [f32; OUT] {
    let [a, b, c, d, e, f] = m;
    let (p, q, r, s) = (b + c, b - c, d + e, d - e);
    [a + p + r, q + 2.0 * s, p + 4.0 * r, q + 8.0 * s + f]
}

impl Work for TransformOutput<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let TransformOutput { from, step, columns, bias, plane, ow } = self;
        let rows = OUT.min(plane.len() / ow);
        for first in (0..columns).step_by(16) {
            let count = 16.min(columns - first);
            let mut halves = [[[0.0_f32; 16]; IN]; OUT];
            for s in 0..IN {
                let mut m = [[0.0_f32; 16]; IN];
                for r in 0..IN {
                    m[r][..count].copy_from_slice(&from[(r * IN + s) * step + first..][..count]);
                }
                for t in 0..16 {
                    let half = times_a([m[0][t], m[1][t], m[2][t], m[3][t], m[4][t], m[5][t]]);
                    for i in 0..OUT {
                        halves[i][s][t] = half[i];
                    }
                }
            }
            for (i, from) in halves.iter().enumerate().take(rows) {
                let mut line = [[0.0_f32; OUT]; 16];
                for t in 0..16 {
                    let four =
                        times_a([from[0][t], from[1][t], from[2][t], from[3][t], from[4][t], from[5][t]]);
                    for j in 0..OUT {
                        line[t][j] = four[j] + bias;
                    }
                }
                let to = &mut plane[i * ow + first * OUT..(i + 1) * ow];
                let len = to.len().min(count * OUT);
                to[..len].copy_from_slice(&line.as_flattened()[..len]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::conv::{conv2d_grad_input_naive, conv2d_naive};
    use super::*;

    #[test]
    fn equals_loops_over_everything() {
        for (n, c_in, c_out, size, padding) in [
            (1, 3, 2, (16, 16), (1, 1)),
            (2, 2, 3, (9, 78), (0, 2)),
            (1, 1, 1, (5, 4), (2, 1)),
            (3, 17, 5, (6, 7), (1, 0)),
        ] {
            let g = Geometry {
                n,
                c_in,
                size,
                c_out,
                kernel: (3, 3),
                stride: (1, 1),
                padding,
                dilation: (1, 1),
                groups: 1,
            };
            let (oh, ow) = g.out_size();
            let numbers = |len: usize, seed: usize| -> Vec<f32> {
                (0..len).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0).collect()
            };
            let x = numbers(n * c_in * size.0 * size.1, 1);
            let (weight, bias) = (numbers(c_out * c_in * 9, 2), numbers(c_out, 3));
            let (mut y, mut want) = (vec![0.0; n * c_out * oh * ow], vec![0.0; n * c_out * oh * ow]);
            conv2d(&g, &x, &weight, Some(&bias), &mut y);
            conv2d_naive(&g, &x, &weight, Some(&bias), &mut want);
            let close = |got: &[f32], want: &[f32]| {
                let largest = want.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
                got.iter().zip(want).all(|(x, y)| (x - y).abs() <= 5e-6 * largest)
            };
            assert!(close(&y, &want), "{g:?}");
            let (mut dx, mut want) = (x.clone(), x.clone());
            grad_input(&g, &y, &weight, &mut dx);
            conv2d_grad_input_naive(&g, &y, &weight, &mut want);
            assert!(close(&dx, &want), "{g:?} backwards");
        }
    }
}
