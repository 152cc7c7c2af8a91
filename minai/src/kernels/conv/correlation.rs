//! Forwards, and the gradient of the input: sums over taps and channels, by tiles that read the input where it lies.

use super::Geometry;
use super::layout::{LANES, Layout, Piece, Planes, Tap, all_taps};
use crate::kernels::gemm::transpose;
use crate::kernels::math::{by_overlapping, load, store};
use crate::kernels::memory::Blank;
use crate::kernels::scratch::{Scratch, scratch};
use crate::kernels::simd::{Level, Simd, Work, dispatch_at};
use crate::kernels::threads::{Parts, for_each, for_each_chunk};

/// Writes x ∗ weight + bias to `y`.
pub(super) fn forward(
    level: Level,
    g: &Geometry,
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    y: &mut [Blank],
) {
    let (oh, ow) = g.out_size();
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

/// Writes the gradient of x to `dx`: all of it, whatever the stride.
pub(super) fn grad_input(level: Level, g: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [Blank]) {
    let (oh, ow) = g.out_size();
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
    fn run(&self, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [Blank]) {
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
        y: Parts<Blank>,
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
            for Piece { image, row, rows, position, step } in layout.pieces(self.n, block) {
                let first = (image * self.groups * c + of_all) * h + self.out_first.0 + row * self.out_step.0;
                let at = Rows {
                    rows,
                    len: self.out.1,
                    from_row: step,
                    first: first * w + self.out_first.1,
                    to_row: self.out_step.0 * w,
                    to_step: self.out_step.1,
                };
                // SAFETY: each row of outputs belongs to one block, and no other correlation runs at the same time.
                let rows = unsafe { WriteRows::new(at, &from[position..], bias, y) };
                dispatch_at(self.level, rows);
            }
        }
    }
}

/// Rows of sums, and where they go.
#[derive(Clone, Copy)]
struct Rows {
    rows: usize,
    len: usize,
    from_row: usize,
    /// The first output, and the distances between rows and between outputs.
    first: usize,
    to_row: usize,
    to_step: usize,
}

/// Sums, with the bias, to rows of outputs.
struct WriteRows<'a> {
    at: Rows,
    from: &'a [f32],
    bias: f32,
    y: Parts<'a, Blank>,
}

impl<'a> WriteRows<'a> {
    /// # Safety
    /// From the first to the last output of each row, nobody else has a part of `y` as long as this is there.
    unsafe fn new(at: Rows, from: &'a [f32], bias: f32, y: Parts<'a, Blank>) -> Self {
        WriteRows { at, from, bias, y }
    }
}

impl Work for WriteRows<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let WriteRows { at: Rows { rows, len, from_row, first, to_row, to_step }, from, bias, y } = self;
        for row in 0..rows {
            let from = &from[row * from_row..][..len];
            // SAFETY: as promised to `new`.
            let to = unsafe { y.slice(first + row * to_row, (len - 1) * to_step + 1) };
            if to_step > 1 {
                to.iter_mut().step_by(to_step).zip(from).for_each(|(to, x)| _ = to.write(x + bias));
                continue;
            }
            // SAFETY: both have `len` floats.
            unsafe {
                let (from, to, bias) = (from.as_ptr(), to.as_mut_ptr().cast::<f32>(), S::splat(bias));
                by_overlapping!(S, len, |i, k| {
                    store::<S>(to.add(i), k, S::add(load::<S>(from.add(i), k), bias));
                });
            }
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
