//! 3×3 convolutions with a quarter of the multiplications: F(4×4, 3×3) of A. Lavin and S. Gray, *Fast Algorithms for
//! Convolutional Neural Networks*, 2015 (after S. Winograd, 1980).
//!
//! A tile of 6×6 inputs makes a tile of 4×4 outputs, as Y = Aᵀ [ (G g Gᵀ) ⊙ (Bᵀ d B) ] A for the kernel g. Element by
//! element of the 36, the products and the sum over input channels are a multiplication of matrices. The numbers in the
//! transformations are as large as 8 and as small as 1/24, which costs about half a decimal digit: the largest error was
//! 3 to 4·10⁻⁶ of the largest output where three loops in f32 had 1 to 2·10⁻⁶ (normal numbers, 64 to 320 channels).
//!
//! The tiles are cut into strips, so that memory does not grow with the picture, and the output channels into blocks, so
//! that what a task sums up stays in its core's cache. Transformed kernels are four times as many numbers as kernels: for
//! a small picture with many channels each task makes its own, a few input channels at a time.

use super::Geometry;
use crate::kernels::gemm::{HalfTile, Mode, Rectangle, RowOfTiles, TileSize};
use crate::kernels::memory::{Blank, copy};
use crate::kernels::scratch::scratch;
use crate::kernels::simd::{Simd, Work, dispatch};
use crate::kernels::threads::{Parts, for_each, for_each_chunk};
use std::ops::Range;

/// Inputs and outputs of a tile, along one axis.
const IN: usize = 6;
const OUT: usize = 4;
/// Elements of a transformed tile.
const ALL: usize = IN * IN;
/// Up to so many tiles make one strip, for which kernels are transformed on the way.
const FEW: usize = 128;
/// Tiles of a strip of many, or a row of them if that is more.
const STRIP: usize = 64;
/// Panels of output channels that a task takes: what it sums up stays in the second-level cache.
const PANELS: usize = 8;
/// Input channels in one go, at most: of kernels that are transformed on the way, and else.
const DEPTHS: (usize, usize) = (96, 384);
/// Floats of transformed inputs in one go: 32 MB.
const INPUTS: usize = 8 << 20;
/// Tiles that are transformed side by side.
const LANES: usize = 16;

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

/// Writes x ∗ weight + bias to `y`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [Blank]) {
    let kernels = Kernels { weight, outer: g.c_in * 9, inner: 9, flipped: [0, 1, 2, 3, 4, 5, 6, 7, 8] };
    run(g, x, kernels, bias, y);
}

/// Writes the gradient of x to `dx`: the convolution with the kernels turned round and the channels exchanged.
pub(super) fn grad_input(g: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [Blank]) {
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

fn run(g: &Geometry, x: &[f32], kernels: Kernels, bias: Option<&[f32]>, y: &mut [Blank]) {
    let (oh, ow) = g.out_size();
    let (mr, nr) = dispatch(TileSize);
    let (rows, columns) = (oh.div_ceil(OUT), ow.div_ceil(OUT));
    let few = g.n * rows * columns <= FEW;
    let height = if few { g.n * rows } else { (STRIP / columns).clamp(1, g.n * rows) };
    let strip = Strip { g, rows, columns, height, nr };
    let (strips, v_len) = ((g.n * rows).div_ceil(height), ALL * g.c_in * strip.room());
    let at_once = strips.div_ceil(strips.div_ceil((INPUTS / v_len).max(1)));
    let panels = g.c_out.div_ceil(mr);
    let (blocks, panel_len) = (panels.div_ceil(PANELS), ALL * g.c_in * mr);

    // All transformed kernels at once, if many tiles will use them. Else they would be more than the whole rest, and each
    // task makes its own as it goes, which never leave the cache.
    let mut u = scratch(if few { 0 } else { panels * panel_len });
    for_each_chunk(&mut u, panel_len, |panel, to| {
        dispatch(TransformKernels {
            kernels,
            outputs: panel * mr..g.c_out.min((panel + 1) * mr),
            mr,
            inputs: 0..g.c_in,
            to,
        });
    });

    let mut v = scratch(at_once * v_len);
    let y = Parts::new(y);
    for first in (0..strips).step_by(at_once) {
        let now = at_once.min(strips - first);
        let v_parts = Parts::new(&mut v);
        for_each(now * g.c_in, |i| {
            let (at, c) = (i / g.c_in, i % g.c_in);
            dispatch(TransformInput { strip, number: first + at, x, c, v: v_parts, at: at * v_len });
        });
        for_each(now * blocks, |task| {
            let (at, block) = (task / blocks, task % blocks);
            let v = &v[at * v_len..][..v_len];
            let channels = block * PANELS * mr..g.c_out.min((block + 1) * PANELS * mr);
            let height = channels.len().next_multiple_of(mr);
            let mut products = scratch(ALL * height * strip.room());
            let depth = g.c_in.div_ceil(g.c_in.div_ceil(if few { DEPTHS.0 } else { DEPTHS.1 }));
            let mut own = scratch(if few { PANELS * ALL * depth * mr } else { 0 });
            for start in (0..g.c_in).step_by(depth) {
                let inputs = start..g.c_in.min(start + depth);
                let (u, panel_step, element_step) = if !few {
                    let first = block * PANELS * panel_len + start * mr;
                    (&u[first..], panel_len, g.c_in * mr)
                } else {
                    let element_step = inputs.len() * mr;
                    for (panel, to) in own.chunks_mut(ALL * element_step).take(height / mr).enumerate() {
                        let from = channels.start + panel * mr;
                        let outputs = from..channels.end.min(from + mr);
                        dispatch(TransformKernels { kernels, outputs, mr, inputs: inputs.clone(), to });
                    }
                    (&*own, ALL * element_step, element_step)
                };
                let mode = if start == 0 { Mode::Overwrite } else { Mode::Add };
                for element in 0..ALL {
                    for panel in 0..height / mr {
                        let c = &mut products[(element * height + panel * mr) * strip.room()..];
                        let tiles = RowOfTiles {
                            a: &u[panel * panel_step + element * element_step..],
                            b: &v[element * g.c_in * strip.room() + start * nr..],
                            b_row: nr,
                            b_panel: g.c_in * nr,
                            depth: inputs.len(),
                            c: Rectangle::new(c, strip.room(), (mr, strip.tiles(first + at)), mode),
                        };
                        match 2 * strip.tiles(first + at) <= nr {
                            true => dispatch(HalfTile(tiles)),
                            false => dispatch(tiles),
                        }
                    }
                }
            }
            for channel in channels.clone() {
                let from = &products[(channel - channels.start) * strip.room()..];
                let bias = bias.map_or(0.0, |bias| bias[channel]);
                dispatch(TransformOutput {
                    strip,
                    number: first + at,
                    from,
                    step: height * strip.room(),
                    bias,
                    channel,
                    y,
                });
            }
        });
    }
}

/// How the tiles are cut into strips: rows of them, the images one above the other.
#[derive(Clone, Copy)]
struct Strip<'a> {
    g: &'a Geometry,
    /// Rows and columns of tiles of an image.
    rows: usize,
    columns: usize,
    /// Rows of tiles of a strip; the last strip may have fewer.
    height: usize,
    /// Tiles of a panel, as the multiplication reads them.
    nr: usize,
}

impl Strip<'_> {
    /// Tiles for which there is room: a strip's transformed inputs are (36, panels, channels, tiles of a panel).
    fn room(&self) -> usize {
        (self.height * self.columns).next_multiple_of(self.nr)
    }

    /// How many tiles a strip has.
    #[inline(always)]
    fn tiles(&self, number: usize) -> usize {
        self.height.min(self.g.n * self.rows - number * self.height) * self.columns
    }

    /// Image, row and column of a tile.
    #[inline(always)]
    fn place(&self, number: usize, tile: usize) -> (usize, usize, usize) {
        let row = number * self.height + tile / self.columns;
        (row / self.rows, row % self.rows, tile % self.columns)
    }
}

/// U = G g Gᵀ for a panel of `mr` output channels, zeros for those that are not there, to (36, inputs, mr).
struct TransformKernels<'a> {
    kernels: Kernels<'a>,
    outputs: Range<usize>,
    mr: usize,
    inputs: Range<usize>,
    to: &'a mut [f32],
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

/// Output channels side by side: a panel's and some more, to make a whole vector.
const SIDE: usize = 8;

impl Work for TransformKernels<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let TransformKernels { kernels: Kernels { weight, outer, inner, flipped }, outputs, mr, inputs, to } =
            self;
        let (depth, count) = (inputs.len(), outputs.len());
        assert!(count <= mr && mr <= SIDE && to.len() == ALL * depth * mr);
        for c in 0..depth {
            let mut g = [[0.0_f32; SIDE]; 9];
            for i in 0..count {
                let from = &weight[(outputs.start + i) * outer + (inputs.start + c) * inner..][..9];
                for k in 0..9 {
                    g[k][i] = from[flipped[k]];
                }
            }
            let mut halves = [[[0.0_f32; SIDE]; 3]; IN];
            for column in 0..3 {
                for i in 0..SIDE {
                    let half = times_g([g[column][i], g[3 + column][i], g[6 + column][i]]);
                    for r in 0..IN {
                        halves[r][column][i] = half[r];
                    }
                }
            }
            for r in 0..IN {
                let mut whole = [[0.0_f32; SIDE]; IN];
                for i in 0..SIDE {
                    let line = times_g([halves[r][0][i], halves[r][1][i], halves[r][2][i]]);
                    for s in 0..IN {
                        whole[s][i] = line[s];
                    }
                }
                for s in 0..IN {
                    let to = &mut to[((r * IN + s) * depth + c) * mr..];
                    if c + 1 < depth {
                        // A whole vector: what is too much is overwritten by the next channel's.
                        to[..SIDE].copy_from_slice(&whole[s]);
                    } else {
                        to[..mr].copy_from_slice(&whole[s][..mr]);
                    }
                }
            }
        }
    }
}

/// V = Bᵀ d B for a channel of a strip, to its place in v: see [`Strip::room`].
struct TransformInput<'a> {
    strip: Strip<'a>,
    number: usize,
    x: &'a [f32],
    c: usize,
    v: Parts<'a, f32>,
    /// Where the strip begins in v.
    at: usize,
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
        let TransformInput { strip, number, x, c, v, at } = self;
        let (g, nr, (h, w)) = (strip.g, strip.nr, strip.g.size);
        let tiles = strip.tiles(number);
        // The tiles for which there is only room are zeros.
        for first in (0..strip.room()).step_by(LANES) {
            // d[r][j][t]: row r, column j of 16 tiles.
            let mut d = [[[0.0_f32; LANES]; IN]; IN];
            for t in 0..LANES.min(tiles.saturating_sub(first)) {
                let (image, row, column) = strip.place(number, first + t);
                let plane = &x[(image * g.c_in + c) * h * w..][..h * w];
                for r in 0..IN {
                    let Some(y) = (row * OUT + r).checked_sub(g.padding.0).filter(|&y| y < h) else {
                        continue;
                    };
                    let (line, left) = (&plane[y * w..][..w], column * OUT);
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
            let mut halves = [[[0.0_f32; LANES]; IN]; IN];
            for j in 0..IN {
                for t in 0..LANES {
                    let half =
                        times_b([d[0][j][t], d[1][j][t], d[2][j][t], d[3][j][t], d[4][j][t], d[5][j][t]]);
                    for r in 0..IN {
                        halves[r][j][t] = half[r];
                    }
                }
            }
            for r in 0..IN {
                let from = &halves[r];
                let mut whole = [[0.0_f32; LANES]; IN];
                for t in 0..LANES {
                    let line =
                        times_b([from[0][t], from[1][t], from[2][t], from[3][t], from[4][t], from[5][t]]);
                    for s in 0..IN {
                        whole[s][t] = line[s];
                    }
                }
                for s in 0..IN {
                    let panel = (r * IN + s) * strip.room() / nr + first / nr;
                    // SAFETY: each strip and channel has its own part of each panel; a panel has whole numbers of 16.
                    let to = unsafe { v.slice(at + (panel * g.c_in + c) * nr + first % nr, LANES) };
                    to.copy_from_slice(&whole[s]);
                }
            }
        }
    }
}

/// Y = Aᵀ M A + bias for an output channel of a strip, from (36, channels of a block, room).
struct TransformOutput<'a> {
    strip: Strip<'a>,
    number: usize,
    from: &'a [f32],
    step: usize,
    bias: f32,
    channel: usize,
    y: Parts<'a, Blank>,
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
        let TransformOutput { strip, number, from, step, bias, channel, y } = self;
        let (g, (oh, ow), tiles) = (strip.g, strip.g.out_size(), strip.tiles(number));
        for first in (0..tiles).step_by(LANES) {
            let mut halves = [[[0.0_f32; LANES]; IN]; OUT];
            for s in 0..IN {
                let mut m = [[0.0_f32; LANES]; IN];
                for r in 0..IN {
                    m[r].copy_from_slice(&from[(r * IN + s) * step + first..][..LANES]);
                }
                for t in 0..LANES {
                    let half = times_a([m[0][t], m[1][t], m[2][t], m[3][t], m[4][t], m[5][t]]);
                    for i in 0..OUT {
                        halves[i][s][t] = half[i];
                    }
                }
            }
            let mut squares = [[[0.0_f32; OUT]; LANES]; OUT];
            for (from, square) in halves.iter().zip(&mut squares) {
                for t in 0..LANES {
                    let four =
                        times_a([from[0][t], from[1][t], from[2][t], from[3][t], from[4][t], from[5][t]]);
                    for j in 0..OUT {
                        square[t][j] = four[j] + bias;
                    }
                }
            }
            for t in 0..LANES.min(tiles - first) {
                let (image, row, column) = strip.place(number, first + t);
                let (row, column) = (row * OUT, column * OUT);
                let width = OUT.min(ow - column);
                for i in 0..OUT.min(oh - row) {
                    let at = ((image * g.c_out + channel) * oh + row + i) * ow + column;
                    // SAFETY: each strip and channel has its own outputs.
                    let to = unsafe { y.slice(at, width) };
                    copy(to, &squares[i][t][..width]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::naive;
    use super::*;
    use crate::kernels::checks::{numbers, written_by};

    #[test]
    fn equals_loops_over_everything() {
        for (n, c_in, c_out, size, padding) in [
            (1, 3, 2, (16, 16), (1, 1)),
            (2, 2, 3, (9, 78), (0, 2)),
            (1, 1, 1, (5, 4), (2, 1)),
            (3, 17, 5, (6, 7), (1, 0)),
            (1, 101, 55, (6, 9), (1, 1)), // inputs in several goes, outputs in two blocks
            (2, 7, 9, (40, 37), (1, 1)),  // so many tiles that kernels are transformed first
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
            let x = numbers(n * c_in * size.0 * size.1, 1.0);
            let (weight, bias) = (numbers(c_out * c_in * 9, 1.0), numbers(c_out, 1.0));
            let mut want = vec![0.0; n * c_out * oh * ow];
            let y = written_by(want.len(), |y| forward(&g, &x, &weight, Some(&bias), y));
            naive::forward(&g, &x, &weight, Some(&bias), &mut want);
            let close = |got: &[f32], want: &[f32]| {
                let largest = want.iter().fold(1.0_f32, |most, x| most.max(x.abs()));
                got.iter().zip(want).all(|(x, y)| (x - y).abs() <= 5e-6 * largest)
            };
            assert!(close(&y, &want), "{g:?}");
            let mut want = x.clone();
            let dx = written_by(want.len(), |dx| grad_input(&g, &y, &weight, dx));
            naive::grad_input(&g, &y, &weight, &mut want);
            assert!(close(&dx, &want), "{g:?} backwards");
        }
    }
}
