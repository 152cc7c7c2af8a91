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

use super::gemm::{gemm, transpose};
use super::memory::filled;
use super::scratch::{Scratch, scratch};
use super::simd::{Level, Simd, Work, dispatch_at, level};
use super::threads::{Parts, for_each, for_each_chunk};
use super::winograd;

/// What a convolution has to know: x is (n, c_in, h, w), the weight (c_out, c_in / groups, kernel.0, kernel.1), and
/// y (n, c_out, [`out_size`](Geometry::out_size)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Images.
    pub n: usize,
    /// Channels of the input.
    pub c_in: usize,
    /// Rows and columns of the input.
    pub size: (usize, usize),
    /// Channels of the output.
    pub c_out: usize,
    /// Rows and columns of the kernel.
    pub kernel: (usize, usize),
    /// Input rows and columns between neighbouring outputs.
    pub stride: (usize, usize),
    /// Rows and columns of zeros on each side.
    pub padding: (usize, usize),
    /// Input rows and columns between neighbouring taps of the kernel.
    pub dilation: (usize, usize),
    /// Channels are split into so many groups, each with a convolution of its own.
    pub groups: usize,
}

impl Geometry {
    /// Rows and columns of the output: 1 + (size + 2 padding - dilation (kernel - 1) - 1) / stride; 0 if the kernel
    /// does not fit.
    pub fn out_size(&self) -> (usize, usize) {
        let out = |size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize| {
            (size + 2 * padding).checked_sub(dilation * (kernel - 1) + 1).map_or(0, |room| room / stride + 1)
        };
        let at = |f: fn((usize, usize)) -> usize| {
            out(f(self.size), f(self.kernel), f(self.stride), f(self.padding), f(self.dilation))
        };
        (at(|pair| pair.0), at(|pair| pair.1))
    }

    fn x_len(&self) -> usize {
        self.n * self.c_in * self.size.0 * self.size.1
    }

    fn w_len(&self) -> usize {
        self.c_out * (self.c_in / self.groups) * self.taps()
    }

    fn y_len(&self) -> usize {
        self.n * self.c_out * self.out_size().0 * self.out_size().1
    }

    fn taps(&self) -> usize {
        self.kernel.0 * self.kernel.1
    }

    #[track_caller]
    fn check(&self, x: usize, w: usize, y: usize) {
        let Geometry { c_in, c_out, kernel, stride, dilation, groups, .. } = *self;
        assert!(
            kernel.0 * kernel.1 * stride.0 * stride.1 * dilation.0 * dilation.1 > 0,
            "conv2d: a zero in {self:?}"
        );
        let fits = groups > 0 && c_in % groups == 0 && c_out % groups == 0;
        assert!(fits, "conv2d: {c_in} and {c_out} channels cannot be split into {groups} groups");
        let want = (self.x_len(), self.w_len(), self.y_len());
        assert!(
            (x, w, y) == want,
            "conv2d: slices of {x}, {w} and {y} elements, not {want:?} as {self:?} needs"
        );
    }

    /// A plain multiplication of matrices, image by image.
    fn is_pointwise(&self) -> bool {
        let pixels = self.size.0 * self.size.1;
        self.taps() == 1
            && self.stride == (1, 1)
            && self.padding == (0, 0)
            && self.groups == 1
            && pixels >= 100
    }
}

/// y = x ∗ weight + bias (cross-correlation, as in PyTorch).
///
/// # Panics
/// If a slice has another length than the geometry says.
#[track_caller]
pub fn conv2d(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
    g.check(x.len(), weight.len(), g.y_len());
    let biases = bias.map_or(g.c_out, <[f32]>::len);
    assert!(biases == g.c_out, "conv2d: a bias of {biases} numbers for {} channels", g.c_out);
    // SAFETY: each output is written, and none is read before.
    unsafe {
        filled(g.y_len(), |y| match winograd::is_worth_it(g) {
            true => winograd::conv2d(g, x, weight, bias, y),
            false => conv2d_at(level(), g, x, weight, bias, y),
        })
    }
}

/// Pixels of a convolution of 1×1 in one go.
const POINTS: usize = 1 << 14;

fn conv2d_at(level: Level, g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let (oh, ow) = g.out_size();
    if y.is_empty() {
        return;
    }
    if g.is_pointwise() {
        let (pixels, m) = (oh * ow, g.c_out);
        for (x, y) in x.chunks(g.c_in * pixels).zip(y.chunks_mut(m * pixels)) {
            if let Some(bias) = bias {
                y.chunks_mut(pixels).zip(bias).for_each(|(y, &bias)| y.fill(bias));
            }
            let beta = if bias.is_some() { 1.0 } else { 0.0 };
            // In parts: the multiplication packs its right side, which would be as large as a large picture.
            for first in (0..pixels).step_by(POINTS) {
                let (n, x, y) = (POINTS.min(pixels - first), &x[first..], &mut y[first..]);
                gemm(m, n, g.c_in, weight, (g.c_in, 1), x, (pixels, 1), beta, y, pixels);
            }
        }
        return;
    }
    if g.groups == 1 && g.n * oh * ow <= 256 && g.w_len() >= 1 << 20 {
        return conv2d_by_columns(g, x, weight, bias, y);
    }
    let correlation = Correlation {
        level,
        n: g.n,
        groups: g.groups,
        from: Planes { c: g.c_in / g.groups, h: g.size.0, w: g.size.1 },
        to: Planes { c: g.c_out / g.groups, h: oh, w: ow },
        taps: all_taps(g),
        stride: g.stride,
        out: (oh, ow),
        out_first: (0, 0),
        out_step: (1, 1),
        weight_strides: (g.c_in / g.groups * g.taps(), g.taps()),
    };
    correlation.run(x, weight, bias, y);
}

/// For few outputs of many weights: these are most of the work to read, and should not be copied as a whole first. So the
/// matrix of columns is built, and the multiplication takes the weights where they lie.
fn conv2d_by_columns(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    let ((oh, ow), (h, w)) = (g.out_size(), g.size);
    let (pixels, positions, k) = (oh * ow, g.n * oh * ow, g.c_in * g.taps());
    let mut columns = scratch(k * positions);
    for_each_chunk(&mut columns, positions, |row, to| {
        let (channel, kh, kw) = (row / g.taps(), row % g.taps() / g.kernel.1, row % g.kernel.1);
        let left = (kw * g.dilation.1) as isize - g.padding.1 as isize;
        for (i, to) in to.chunks_mut(ow).enumerate() {
            let plane = &x[(i / oh * g.c_in + channel) * h * w..][..h * w];
            match (i % oh * g.stride.0 + kh * g.dilation.0).checked_sub(g.padding.0) {
                Some(y) if y < h => copy_row(&plane[y * w..][..w], left, g.stride.1, to),
                _ => to.fill(0.0),
            }
        }
    });
    // (c_out, n · pixels), and then image by image.
    let mut products = scratch(g.c_out * positions);
    gemm(g.c_out, positions, k, weight, (k, 1), &columns, (positions, 1), 0.0, &mut products, positions);
    for (i, y) in y.chunks_mut(pixels).enumerate() {
        let (image, channel) = (i / g.c_out, i % g.c_out);
        let (from, bias) =
            (&products[channel * positions + image * pixels..], bias.map_or(0.0, |bias| bias[channel]));
        y.iter_mut().zip(from).for_each(|(y, product)| *y = product + bias);
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
    // SAFETY: each input's gradient is written, and none is read before.
    unsafe {
        filled(g.x_len(), |dx| match winograd::is_worth_it(g) {
            true => winograd::grad_input(g, dy, weight, dx),
            false => grad_input_at(level(), g, dy, weight, dx),
        })
    }
}

fn grad_input_at(level: Level, g: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    let (oh, ow) = g.out_size();
    if dy.is_empty() {
        return dx.fill(0.0);
    }
    if g.is_pointwise() {
        let pixels = oh * ow;
        for (dy, dx) in dy.chunks(g.c_out * pixels).zip(dx.chunks_mut(g.c_in * pixels)) {
            gemm(g.c_in, pixels, g.c_out, weight, (1, g.c_in), dy, (pixels, 1), 0.0, dx, pixels);
        }
        return;
    }
    // dx[i] gets weight[k] dy[o] where o * stride + k * dilation = i + padding. So the taps that reach an i are those
    // with (i + padding - k * dilation) divisible by the stride: another set for each i modulo the stride.
    let axis = |phase: usize, size: usize, kernel: usize, stride: usize, padding: usize, dilation: usize| {
        let t0 = padding.saturating_sub(phase).div_ceil(stride); // the first o + k * dilation / stride with i >= 0
        let first = t0 * stride + phase - padding;
        let taps: Vec<(usize, isize)> = (0..kernel)
            .filter(|k| k * dilation % stride == phase)
            .map(|k| (k, t0 as isize - (k * dilation / stride) as isize))
            .collect();
        (first, size.saturating_sub(first).div_ceil(stride), taps)
    };
    for phase_y in 0..g.stride.0 {
        for phase_x in 0..g.stride.1 {
            let (y0, rows, taps_y) =
                axis(phase_y, g.size.0, g.kernel.0, g.stride.0, g.padding.0, g.dilation.0);
            let (x0, columns, taps_x) =
                axis(phase_x, g.size.1, g.kernel.1, g.stride.1, g.padding.1, g.dilation.1);
            let mut taps = Vec::new();
            for &(kh, dy) in &taps_y {
                taps.extend(taps_x.iter().map(|&(kw, dx)| Tap { weight: kh * g.kernel.1 + kw, dy, dx }));
            }
            let correlation = Correlation {
                level,
                n: g.n,
                groups: g.groups,
                from: Planes { c: g.c_out / g.groups, h: oh, w: ow },
                to: Planes { c: g.c_in / g.groups, h: g.size.0, w: g.size.1 },
                taps,
                stride: (1, 1),
                out: (rows, columns),
                out_first: (y0, x0),
                out_step: g.stride,
                weight_strides: (g.taps(), g.c_in / g.groups * g.taps()),
            };
            correlation.run(dy, weight, None, dx);
        }
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
    dw.fill(0.0);
    let (oh, ow) = g.out_size();
    if dy.is_empty() || dw.is_empty() {
        return;
    }
    let (c_in, c_out) = (g.c_in / g.groups, g.c_out / g.groups);
    let k = c_in * g.taps();
    if oh * ow < 8 && g.groups == 1 {
        return grad_weight_by_columns(g, x, dy, dw);
    }
    let taps = all_taps(g);
    let from = Planes { c: c_in, h: g.size.0, w: g.size.1 };
    let to = Planes { c: c_out, h: oh, w: ow };
    let layout = Layout::new(from, &taps, g.stride, (oh, ow), g.n);
    // Sums of different sets of images, added up in order: which images share a sum depends on shapes only.
    let blocks = layout.blocks(g.n);
    let (runs, run) = layout.runs();
    let sums = blocks.min(if dw.len() > 1 << 18 { 4 } else { 8 });
    let mut partial = scratch(sums * dw.len());
    for_each_chunk(&mut partial, dw.len(), |sum, partial| {
        partial.fill(0.0);
        let mut columns = scratch(layout.len());
        let mut rows = scratch(c_out * layout.room);
        for block in sum * blocks / sums..(sum + 1) * blocks / sums {
            for group in 0..g.groups {
                layout.lay_out(x, (g.c_in, group * c_in), block, &mut columns);
                layout.lay_out_gradient(dy, to, (g.c_out, group * c_out), block, &mut rows);
                let c = &mut partial[group * c_out * k..][..c_out * k];
                let starts = &layout.starts;
                dispatch_at(
                    level,
                    RowsByColumns { rows: &rows, columns: &columns, starts, runs: &runs, run, c },
                );
            }
        }
    });
    for_each_chunk(dw, 1 << 14, |i, dw| {
        for sum in 0..sums {
            let partial = &partial[sum * k * g.c_out + (i << 14)..][..dw.len()];
            dw.iter_mut().zip(partial).for_each(|(x, y)| *x += y);
        }
    });
}

/// dweight for outputs of a few pixels, where sums over positions would be short: the matrix of columns is built after
/// all, and multiplied by the gradient.
fn grad_weight_by_columns(g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    let ((oh, ow), (h, w)) = (g.out_size(), g.size);
    let (pixels, k) = (oh * ow, g.c_in * g.taps());
    let mut columns = scratch(g.n * pixels * k);
    for_each_chunk(&mut columns, k, |position, to| {
        let (image, o_y, o_x) = (position / pixels, position % pixels / ow, position % ow);
        for (channel, to) in to.chunks_mut(g.taps()).enumerate() {
            let plane = &x[(image * g.c_in + channel) * h * w..][..h * w];
            for (kh, to) in to.chunks_mut(g.kernel.1).enumerate() {
                let left = (o_x * g.stride.1) as isize - g.padding.1 as isize;
                match (o_y * g.stride.0 + kh * g.dilation.0).checked_sub(g.padding.0) {
                    Some(y) if y < h => copy_row(&plane[y * w..][..w], left, g.dilation.1, to),
                    _ => to.fill(0.0),
                }
            }
        }
    });
    // (n, c, pixel) to (c, n · pixel)
    let mut rows = scratch(g.c_out * g.n * pixels);
    for (channel, row) in rows.chunks_mut(g.n * pixels).enumerate() {
        for (image, to) in row.chunks_mut(pixels).enumerate() {
            to.copy_from_slice(&dy[(image * g.c_out + channel) * pixels..][..pixels]);
        }
    }
    let positions = g.n * pixels;
    gemm(g.c_out, k, positions, &rows, (positions, 1), &columns, (k, 1), 0.0, dw, k);
}

/// The same by loops over everything: what the fast versions are tested against.
pub fn conv2d_naive(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    for_all(g, |at_x, at_w, at_y, c| {
        if let Some(at_x) = at_x {
            y[at_y] += x[at_x] * weight[at_w];
        } else if let (Some(bias), None) = (bias, at_x) {
            y[at_y] = bias[c]; // said once, before the first product
        }
    });
}

/// [`conv2d_grad_input`] by loops over everything.
pub fn conv2d_grad_input_naive(g: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    dx.fill(0.0);
    for_all(g, |at_x, at_w, at_y, _| at_x.into_iter().for_each(|at_x| dx[at_x] += dy[at_y] * weight[at_w]));
}

/// [`conv2d_grad_weight`] by loops over everything.
pub fn conv2d_grad_weight_naive(g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    dw.fill(0.0);
    for_all(g, |at_x, at_w, at_y, _| at_x.into_iter().for_each(|at_x| dw[at_w] += dy[at_y] * x[at_x]));
}

/// Calls `f(x, weight, y, output channel)` with the indices of each product; before those of an output, with None for x.
fn for_all(g: &Geometry, mut f: impl FnMut(Option<usize>, usize, usize, usize)) {
    let ((oh, ow), (h, w)) = (g.out_size(), g.size);
    let (c_in, c_out) = (g.c_in / g.groups, g.c_out / g.groups);
    for i in 0..g.n * g.c_out * oh * ow {
        let (n, c, o_y, o_x) = (i / (g.c_out * oh * ow), i / (oh * ow) % g.c_out, i / ow % oh, i % ow);
        f(None, 0, i, c);
        for k in 0..c_in * g.taps() {
            let (channel, kh, kw) =
                (c / c_out * c_in + k / g.taps(), k / g.kernel.1 % g.kernel.0, k % g.kernel.1);
            let at = |o: usize, stride: usize, k: usize, dilation: usize, padding: usize, size: usize| {
                (o * stride + k * dilation).checked_sub(padding).filter(|&at| at < size)
            };
            let y = at(o_y, g.stride.0, kh, g.dilation.0, g.padding.0, h);
            let x = at(o_x, g.stride.1, kw, g.dilation.1, g.padding.1, w);
            if let (Some(y), Some(x)) = (y, x) {
                f(Some(((n * g.c_in + channel) * h + y) * w + x), c * c_in * g.taps() + k, i, c);
            }
        }
    }
}

/// The taps of a convolution, row by row.
fn all_taps(g: &Geometry) -> Vec<Tap> {
    let tap = |weight: usize| Tap {
        weight,
        dy: (weight / g.kernel.1 * g.dilation.0) as isize - g.padding.0 as isize,
        dx: (weight % g.kernel.1 * g.dilation.1) as isize - g.padding.1 as isize,
    };
    (0..g.taps()).map(tap).collect()
}

/// A place of the kernel: its index in the weight, and which input it meets, relative to output position times stride.
#[derive(Clone, Copy, Debug)]
struct Tap {
    weight: usize,
    dy: isize,
    dx: isize,
}

#[derive(Clone, Copy, Debug)]
struct Planes {
    c: usize,
    h: usize,
    w: usize,
}

// ---- How the input lies

/// The input of a block of output positions, laid out such that weight k of position p meets element `starts[k] + p`.
struct Layout {
    from: Planes,
    taps: Vec<Tap>,
    stride: (usize, usize),
    out: (usize, usize),
    starts: Vec<usize>,
    /// Positions of a block, useless ones included, and that number rounded up to whole tiles.
    positions: usize,
    room: usize,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    /// `rows` rows of one image at a time, `strips` such strips an image; planes of `height` rows and `width` columns.
    Padded { rows: usize, strips: usize, height: usize, width: usize, least: (isize, isize) },
    /// All positions of `images` images at a time.
    Gathered { images: usize },
    /// All positions of [`LANES`] images at a time, which lie side by side: (channel, row, column, image). Nothing is
    /// wasted, whatever the size and the stride.
    Lanes { height: usize, width: usize, least: (isize, isize) },
}

/// Images that lie side by side: whole vectors of every instruction set.
const LANES: usize = 32;

/// Positions are a multiple of this: the widest tile.
const WIDEST: usize = 96;

impl Layout {
    fn new(from: Planes, taps: &[Tap], stride: (usize, usize), out: (usize, usize), n: usize) -> Layout {
        let pixels = out.0 * out.1;
        let k = from.c * taps.len();
        let least = (
            taps.iter().map(|tap| tap.dy).min().unwrap_or(0),
            taps.iter().map(|tap| tap.dx).min().unwrap_or(0),
        );
        let shift = |tap: &Tap| ((tap.dy - least.0) as usize, (tap.dx - least.1) as usize);
        let most =
            taps.iter().map(shift).fold((0, 0), |most, shift| (most.0.max(shift.0), most.1.max(shift.1)));
        let mut layout = Layout {
            from,
            taps: taps.to_vec(),
            stride,
            out,
            starts: Vec::with_capacity(k),
            positions: 0,
            room: 0,
            kind: Kind::Gathered { images: 1 },
        };
        let many_images = n * 4 >= n.next_multiple_of(LANES) * 3;
        if many_images && (pixels < 150 || stride != (1, 1)) {
            let (height, width) = ((out.0 - 1) * stride.0 + most.0 + 1, (out.1 - 1) * stride.1 + most.1 + 1);
            layout.kind = Kind::Lanes { height, width, least };
            layout.positions = pixels * LANES;
            layout.room = layout.positions;
            for c in 0..from.c {
                let start = |tap: &Tap| ((c * height + shift(tap).0) * width + shift(tap).1) * LANES;
                layout.starts.extend(taps.iter().map(start));
            }
            return layout;
        }
        if pixels < 100 {
            // As many images as make a few tiles, unless their columns outgrow the second-level cache.
            let images =
                (2 * WIDEST).min((1 << 18) / k.max(1)).max(WIDEST / 2).div_ceil(pixels).min(n.max(1));
            layout.kind = Kind::Gathered { images };
            layout.positions = images * pixels;
            layout.room = layout.positions.next_multiple_of(WIDEST / 2);
            layout.starts.extend((0..k).map(|k| k * layout.room));
            return layout;
        }
        let width = out.1 + most.1 / stride.1;
        // Strips of some hundred positions; more strips for a few large images, so that all threads have work.
        let rows = (if n >= 8 { 1024 } else { 512_usize }).div_ceil(width).min(out.0);
        let rows = out.0.div_ceil(out.0.div_ceil(rows));
        let height = rows + most.0 / stride.0;
        layout.kind = Kind::Padded { rows, strips: out.0.div_ceil(rows), height, width, least };
        layout.positions = (rows - 1) * width + out.1;
        layout.room = layout.positions.next_multiple_of(WIDEST / 2);
        for c in 0..from.c {
            for tap in taps {
                let (y, x) = shift(tap);
                let plane = (c * stride.0 + y % stride.0) * stride.1 + x % stride.1;
                layout.starts.push((plane * height + y / stride.0) * width + x / stride.1);
            }
        }
        layout
    }

    /// How many blocks `n` images make.
    fn blocks(&self, n: usize) -> usize {
        match self.kind {
            Kind::Padded { strips, .. } => n * strips,
            Kind::Gathered { images } => n.div_ceil(images),
            Kind::Lanes { .. } => n.div_ceil(LANES),
        }
    }

    /// The buffer's length. Tiles may read up to a tile's width behind the last position.
    fn len(&self) -> usize {
        let last = self.starts.iter().max().map_or(0, |last| last + self.room);
        match self.kind {
            Kind::Padded { height, width, .. } => {
                last.max(self.from.c * self.stride.0 * self.stride.1 * height * width)
            }
            Kind::Gathered { .. } => last,
            Kind::Lanes { height, width, .. } => self.from.c * height * width * LANES,
        }
    }

    /// Where runs of neighbouring positions begin, and how long each is.
    fn runs(&self) -> (Vec<usize>, usize) {
        match self.kind {
            Kind::Padded { .. } | Kind::Gathered { .. } => (vec![0], self.room),
            Kind::Lanes { width, .. } => {
                let pixel =
                    |p| (p / self.out.1 * self.stride.0 * width + p % self.out.1 * self.stride.1) * LANES;
                ((0..self.out.0 * self.out.1).map(pixel).collect(), LANES)
            }
        }
    }

    /// Where tiles of `nr` positions begin.
    fn tiles(&self, nr: usize) -> Vec<usize> {
        match self.kind {
            Kind::Padded { .. } | Kind::Gathered { .. } => (0..self.positions).step_by(nr).collect(),
            Kind::Lanes { .. } => {
                let starts = self.runs().0.into_iter();
                starts.flat_map(|start| (0..LANES).step_by(nr).map(move |lane| start + lane)).collect()
            }
        }
    }

    fn has_lanes(&self) -> bool {
        matches!(self.kind, Kind::Lanes { .. })
    }

    /// Lays out channels `first..first + from.c` of `all` of a block's images.
    fn lay_out(&self, x: &[f32], (all, first): (usize, usize), block: usize, to: &mut [f32]) {
        let Planes { c, h, w } = self.from;
        let (sy, sx) = self.stride;
        match self.kind {
            Kind::Padded { rows, strips, height, width, least } => {
                let image = &x[(block / strips * all + first) * h * w..][..c * h * w];
                let top = (block % strips * rows * sy) as isize + least.0;
                for (plane, to) in to.chunks_mut(height * width).enumerate().take(c * sy * sx) {
                    let image = &image[plane / (sy * sx) * h * w..][..h * w];
                    let (phase_y, phase_x) = (plane / sx % sy, plane % sx);
                    let left = least.1 + phase_x as isize;
                    for (t, to) in to.chunks_mut(width).enumerate() {
                        match usize::try_from(top + (t * sy + phase_y) as isize) {
                            Ok(y) if y < h => copy_row(&image[y * w..][..w], left, sx, to),
                            _ => to.fill(0.0),
                        }
                    }
                }
                to[c * sy * sx * height * width..].fill(0.0);
            }
            Kind::Lanes { height, width, least } => {
                let images = LANES.min(x.len() / (all * h * w) - block * LANES);
                to.fill(0.0);
                for (channel, to) in to.chunks_mut(height * width * LANES).enumerate() {
                    let from = &x[(block * LANES * all + first + channel) * h * w..];
                    for y in 0..h {
                        // The part of this row that any output meets.
                        let row = y as isize - least.0;
                        let (left, right) = (least.1.max(0), (least.1 + width as isize).min(w as isize));
                        if (0..height as isize).contains(&row) && left < right {
                            let from = &from[y * w + left as usize..];
                            let at = (row as usize * width + (left - least.1) as usize) * LANES;
                            let size = (images, (right - left) as usize);
                            transpose(from, all * h * w, size, &mut to[at..], LANES);
                        }
                    }
                }
            }
            Kind::Gathered { images } => {
                let (oh, ow) = self.out;
                let first_image = block * images;
                let there = images.min(x.len() / (all * h * w) - first_image);
                for (k, to) in to.chunks_mut(self.room).enumerate() {
                    let tap = self.taps[k % self.taps.len()];
                    for (i, to) in to.chunks_mut(oh * ow).enumerate() {
                        if i >= there {
                            to.fill(0.0);
                            continue;
                        }
                        let at = ((first_image + i) * all + first + k / self.taps.len()) * h * w;
                        let image = &x[at..][..h * w];
                        for (o, to) in to.chunks_mut(ow).enumerate() {
                            match usize::try_from((o * sy) as isize + tap.dy) {
                                Ok(y) if y < h => copy_row(&image[y * w..][..w], tap.dx, sx, to),
                                _ => to.fill(0.0),
                            }
                        }
                    }
                }
            }
        }
    }

    /// Visits the rows of outputs of a block: `f(image, row, first position)`.
    fn for_each_row(&self, n: usize, block: usize, mut f: impl FnMut(usize, usize, usize)) {
        match self.kind {
            Kind::Padded { rows, strips, width, .. } => {
                let first = block % strips * rows;
                (0..rows.min(self.out.0 - first)).for_each(|row| f(block / strips, first + row, row * width));
            }
            // Lanes as if they had been transposed to one image after another.
            Kind::Gathered { .. } | Kind::Lanes { .. } => {
                let images = if let Kind::Gathered { images } = self.kind { images } else { LANES };
                for i in 0..images.min(n - block * images) {
                    let image = block * images + i;
                    (0..self.out.0).for_each(|row| f(image, row, (i * self.out.0 + row) * self.out.1));
                }
            }
        }
    }

    /// The gradient of a block's outputs by position, channel after channel, with zeros at useless positions.
    fn lay_out_gradient(
        &self,
        dy: &[f32],
        planes: Planes,
        (all, first): (usize, usize),
        block: usize,
        to: &mut [f32],
    ) {
        let Planes { c, h, w } = planes;
        if self.has_lanes() {
            let images = LANES.min(dy.len() / (all * h * w) - block * LANES);
            for (channel, to) in to.chunks_mut(h * w * LANES).enumerate() {
                let from = &dy[(block * LANES * all + first + channel) * h * w..];
                if images < LANES {
                    to.fill(0.0);
                }
                transpose(from, all * h * w, (images, h * w), to, LANES);
            }
            return;
        }
        to.fill(0.0);
        self.for_each_row(dy.len() / (all * h * w), block, |image, row, position| {
            for channel in 0..c {
                let from = &dy[((image * all + first + channel) * h + row) * w..][..w];
                to[channel * self.room + position..][..w].copy_from_slice(from);
            }
        });
    }
}

/// `to[i] = from[left + i * step]`, zero outside of `from`.
#[inline]
fn copy_row(from: &[f32], left: isize, step: usize, to: &mut [f32]) {
    // The i with 0 <= left + i * step < from.len().
    let start = if left < 0 { left.unsigned_abs().div_ceil(step) } else { 0 }.min(to.len());
    let end = usize::try_from(from.len() as isize - left)
        .map_or(0, |room| room.div_ceil(step))
        .clamp(start, to.len());
    to[..start].fill(0.0);
    to[end..].fill(0.0);
    if start < end {
        let from = &from[(left + (start * step) as isize) as usize..];
        let to = &mut to[start..end];
        if step == 1 {
            to.copy_from_slice(&from[..to.len()]);
        } else {
            to.iter_mut().zip(from.iter().step_by(step)).for_each(|(to, &x)| *to = x);
        }
    }
}

// ---- Forwards, and the gradient of the input: sums over taps and channels

/// out[c, o] = sum over channels and taps of weight · input[o * stride + tap].
struct Correlation {
    level: Level,
    n: usize,
    groups: usize,
    /// One group's planes of the input, and of the output.
    from: Planes,
    to: Planes,
    taps: Vec<Tap>,
    stride: (usize, usize),
    /// Output rows and columns that are computed, the first of them, and the distance between them.
    out: (usize, usize),
    out_first: (usize, usize),
    out_step: (usize, usize),
    /// Distances in the weight between output channels and between input channels.
    weight_strides: (usize, usize),
}

/// Steps of k in one go.
const DEPTH: usize = 288;

impl Correlation {
    fn run(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        if self.out.0 == 0 || self.out.1 == 0 || self.n == 0 {
            return;
        }
        let layout = Layout::new(self.from, &self.taps, self.stride, self.out, self.n);
        let (mr, nr) = dispatch_at(self.level, TileSize { channels: self.to.c, lanes: layout.has_lanes() });
        let (packed, k) = (self.pack(weight, mr), layout.starts.len());
        let group_len = self.to.c.next_multiple_of(mr) * k;
        let (blocks, bases) = (layout.blocks(self.n), layout.tiles(nr));
        let parts = Parts::new(y);
        for_each(blocks * self.groups, |task| {
            let (block, group) = (task / self.groups, task % self.groups);
            let mut columns = scratch(layout.len());
            layout.lay_out(x, (self.groups * self.from.c, group * self.from.c), block, &mut columns);
            let room = layout.positions.next_multiple_of(nr);
            let mut sums = scratch(self.to.c * room);
            if k == 0 {
                sums.fill(0.0);
            }
            for start in (0..k).step_by(DEPTH) {
                let tiles = Tiles {
                    channels: self.to.c,
                    a: &packed[group * group_len..][..group_len],
                    a_steps: k,
                    columns: &columns,
                    starts: &layout.starts[start..k.min(start + DEPTH)],
                    first_step: start,
                    bases: &bases,
                    lanes: layout.has_lanes(),
                    room,
                    sums: &mut sums,
                };
                dispatch_at(self.level, tiles);
            }
            self.write(&layout, block, group, (&sums, room), bias, parts);
        });
    }

    /// The weights of each group in panels of `mr` output channels, step after step.
    fn pack(&self, weight: &[f32], mr: usize) -> Scratch {
        let (k, panels) = (self.from.c * self.taps.len(), self.to.c.div_ceil(mr));
        let mut packed = scratch(self.groups * panels * mr * k);
        let group_len = weight.len() / self.groups;
        for_each_chunk(&mut packed, mr * k.max(1), |panel, to| {
            let (group, first) = (panel / panels, panel % panels * mr);
            let weight = &weight[group * group_len..][..group_len];
            for (step, to) in to.chunks_mut(mr).enumerate() {
                let (channel, tap) = (step / self.taps.len(), self.taps[step % self.taps.len()]);
                let at = channel * self.weight_strides.1 + tap.weight;
                for (i, to) in to.iter_mut().enumerate() {
                    *to = if first + i < self.to.c {
                        weight[(first + i) * self.weight_strides.0 + at]
                    } else {
                        0.0
                    };
                }
            }
        });
        packed
    }

    /// Sums by position to where they belong in y, with the bias.
    fn write(
        &self,
        layout: &Layout,
        block: usize,
        group: usize,
        (sums, room): (&[f32], usize),
        bias: Option<&[f32]>,
        y: Parts<f32>,
    ) {
        let Planes { c, h, w } = self.to;
        let pixels = self.out.0 * self.out.1;
        let mut turned = scratch(if layout.has_lanes() { pixels * LANES } else { 0 });
        for channel in 0..c {
            let of_all = group * c + channel;
            let bias = bias.map_or(0.0, |bias| bias[of_all]);
            let mut from = &sums[channel * room..][..room];
            if layout.has_lanes() {
                transpose(from, LANES, (pixels, LANES), &mut turned, pixels);
                from = &turned;
            }
            if layout.has_lanes() && self.out == (h, w) {
                // Whole planes.
                for (i, from) in from.chunks(pixels).enumerate().take(self.n - block * LANES) {
                    let plane = (block * LANES + i) * self.groups * c + of_all;
                    // SAFETY: as below.
                    let to = unsafe { y.slice(plane * pixels, pixels) };
                    to.iter_mut().zip(from).for_each(|(to, x)| *to = x + bias);
                }
                continue;
            }
            layout.for_each_row(self.n, block, |image, row, position| {
                let from = &from[position..][..self.out.1];
                let plane = (image * self.groups * c + of_all) * h;
                let start = (plane + self.out_first.0 + row * self.out_step.0) * w + self.out_first.1;
                let len = (self.out.1 - 1) * self.out_step.1 + 1;
                // SAFETY: each row of outputs belongs to one block, and no other correlation runs at the same time.
                let to = unsafe { y.slice(start, len) };
                if self.out_step.1 == 1 {
                    to.iter_mut().zip(from).for_each(|(to, x)| *to = x + bias);
                } else {
                    to.iter_mut().step_by(self.out_step.1).zip(from).for_each(|(to, x)| *to = x + bias);
                }
            });
        }
    }
}

/// Output channels and positions of a tile: 24 sums in 32 registers, or 12 in 16.
struct TileSize {
    channels: usize,
    lanes: bool,
}

impl Work for TileSize {
    type Out = (usize, usize);

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> (usize, usize) {
        match (S::MANY_REGISTERS, self.lanes, self.channels) {
            (true, false, 5..) => (8, 3 * S::LANES),
            (true, true, 5..) => (8, 2 * S::LANES),
            (true, false, _) => (4, 6 * S::LANES),
            (false, false, _) => (4, 3 * S::LANES),
            (_, true, _) => (4, 2 * S::LANES),
        }
    }
}

/// All output channels of a block of positions, over some steps of k.
struct Tiles<'a> {
    channels: usize,
    /// Panels of weights, of `a_steps` steps.
    a: &'a [f32],
    a_steps: usize,
    columns: &'a [f32],
    starts: &'a [usize],
    first_step: usize,
    /// Where each tile's columns begin, on top of each step's start.
    bases: &'a [usize],
    lanes: bool,
    room: usize,
    sums: &'a mut [f32],
}

impl Work for Tiles<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is there.
        unsafe {
            match (S::MANY_REGISTERS, self.lanes, self.channels) {
                (true, false, 5..) => tiles::<S, 8, 3>(self),
                (true, true, 5..) => tiles::<S, 8, 2>(self),
                (true, false, _) => tiles::<S, 4, 6>(self),
                (false, false, _) => tiles::<S, 4, 3>(self),
                (_, true, _) => tiles::<S, 4, 2>(self),
            }
        }
    }
}

/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn tiles<S: Simd, const MR: usize, const NV: usize>(work: Tiles) {
    let Tiles { channels, a, a_steps, columns, starts, first_step, bases, lanes: _, room, sums } = work;
    let nr = NV * S::LANES;
    let last = starts.iter().max().copied().unwrap_or(0);
    assert!(sums.len() >= channels * room && room >= bases.len() * nr);
    assert!(a.len() >= channels.next_multiple_of(MR) * a_steps && first_step + starts.len() <= a_steps);
    for (tile, &base) in bases.iter().enumerate() {
        // The last tile may end behind the last position, where the buffer may have no more room.
        let whole = last + base + nr <= columns.len();
        let mut channel = 0;
        while channel < channels {
            // SAFETY: the asserts above, and `whole` or else no reads beyond the buffer's end.
            unsafe {
                let a = a.as_ptr().add(channel * a_steps + first_step * MR);
                let c = sums.as_mut_ptr().add(channel * room + tile * nr);
                let rows = MR.min(channels - channel);
                let at = columns.as_ptr().wrapping_add(base);
                if whole {
                    self::tile::<S, MR, NV, true>(a, at, starts, 0, c, room, rows, first_step > 0);
                } else {
                    let end = columns.len().saturating_sub(base);
                    self::tile::<S, MR, NV, false>(a, at, starts, end, c, room, rows, first_step > 0);
                }
            }
            channel += MR;
        }
    }
}

/// # Safety
/// The machine has `S`; weights for all steps can be read, columns from each start on for the whole tile (if not
/// `WHOLE`, `end` elements from `columns` on at most), and the tile of `c` written.
#[inline(always)]
unsafe fn tile<S: Simd, const MR: usize, const NV: usize, const WHOLE: bool>(
    a: *const f32,
    columns: *const f32,
    starts: &[usize],
    end: usize,
    c: *mut f32,
    room: usize,
    rows: usize,
    add: bool,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; MR];
        let mut y = [S::splat(0.0); NV];
        let mut a = a;
        for &start in starts {
            for v in 0..NV {
                let at = start + v * S::LANES;
                y[v] = if WHOLE || at + S::LANES <= end {
                    S::load(columns.add(at))
                } else {
                    S::load_part(columns.add(at.min(end)), end.saturating_sub(at))
                };
            }
            for i in 0..MR {
                let x = S::splat(*a.add(i));
                for v in 0..NV {
                    sums[i][v] = S::fma(x, y[v], sums[i][v]);
                }
            }
            a = a.add(MR);
        }
        for i in 0..MR {
            if i < rows {
                for v in 0..NV {
                    let to = c.add(i * room + v * S::LANES);
                    S::store(to, if add { S::add(S::load(to), sums[i][v]) } else { sums[i][v] });
                }
            }
        }
    }
}

// ---- The gradient of the weight: dot products over positions

/// c[i, k] += rows[i] · columns[starts[k]..], over runs of `run` positions; a run's columns begin at `runs` more.
struct RowsByColumns<'a> {
    rows: &'a [f32],
    columns: &'a [f32],
    starts: &'a [usize],
    runs: &'a [usize],
    run: usize,
    c: &'a mut [f32],
}

impl Work for RowsByColumns<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is there. 24 sums in 32 registers, or 8 in 16.
        unsafe {
            if S::MANY_REGISTERS {
                rows_by_columns::<S, 8, 3>(self)
            } else {
                rows_by_columns::<S, 4, 2>(self)
            }
        }
    }
}

/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn rows_by_columns<S: Simd, const R: usize, const Q: usize>(work: RowsByColumns) {
    let RowsByColumns { rows, columns, starts, runs, run, c } = work;
    let room = runs.len() * run;
    let (m, n) = (rows.len() / room, starts.len());
    let last = starts.iter().max().copied().unwrap_or(0) + runs.iter().max().copied().unwrap_or(0);
    assert!(columns.len() >= last + run && c.len() == m * n && run.is_multiple_of(S::LANES));
    for i in (0..m).step_by(R) {
        for j in (0..n).step_by(Q) {
            let (mut x, mut y) = ([rows.as_ptr(); R], [columns.as_ptr(); Q]);
            // SAFETY: the assert above; behind the last row or column the last one is read again.
            unsafe {
                for r in 0..R {
                    x[r] = x[r].add((i + r).min(m - 1) * room);
                }
                for q in 0..Q {
                    y[q] = y[q].add(starts[(j + q).min(n - 1)]);
                }
                let mut sums = [[S::splat(0.0); Q]; R];
                let mut there = [S::splat(0.0); Q];
                let mut p = 0;
                for &start in runs {
                    let mut along = start;
                    while along < start + run {
                        for q in 0..Q {
                            there[q] = S::load(y[q].add(along));
                        }
                        for r in 0..R {
                            let x = S::load(x[r].add(p));
                            for q in 0..Q {
                                sums[r][q] = S::fma(x, there[q], sums[r][q]);
                            }
                        }
                        along += S::LANES;
                        p += S::LANES;
                    }
                }
                for r in 0..R {
                    for q in 0..Q {
                        if i + r < m && j + q < n {
                            c[(i + r) * n + j + q] += S::reduce_add(sums[r][q]);
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::levels;
    use super::super::threads::with_threads;
    use super::*;

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
            conv2d_naive(&g, &x, &w, Some(&b), &mut y);
            conv2d_grad_input_naive(&g, &dy, &w, &mut dx);
            conv2d_grad_weight_naive(&g, &x, &dy, &mut dw);
            for level in levels() {
                let (mut fast_y, mut fast_dx, mut fast_dw) =
                    (vec![7.0; y.len()], vec![7.0; dx.len()], vec![7.0; dw.len()]);
                conv2d_at(level, &g, &x, &w, Some(&b), &mut fast_y);
                close(&fast_y, &y, &format!("{level:?} {g:?} y"));
                grad_input_at(level, &g, &dy, &w, &mut fast_dx);
                close(&fast_dx, &dx, &format!("{level:?} {g:?} dx"));
                grad_weight_at(level, &g, &x, &dy, &mut fast_dw);
                close(&fast_dw, &dw, &format!("{level:?} {g:?} dw"));
            }
        }
    }

    #[test]
    fn columns_equal_loops_over_everything() {
        for g in geometries().into_iter().filter(|g| g.groups == 1) {
            let (x, w, b) = (numbers(g.x_len(), 1), numbers(g.w_len(), 2), numbers(g.c_out, 3));
            let (mut y, mut want) = (vec![0.0; g.y_len()], vec![0.0; g.y_len()]);
            conv2d_naive(&g, &x, &w, Some(&b), &mut want);
            if !want.is_empty() {
                conv2d_by_columns(&g, &x, &w, Some(&b), &mut y);
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
