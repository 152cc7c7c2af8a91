//! How the input of a convolution lies, so that a register tile reads its vectors straight from it.

use super::Geometry;
use crate::kernels::gemm::transpose;
use crate::kernels::math::{by_overlapping, load, store};
use crate::kernels::simd::{Simd, Work, dispatch};

/// The taps of a convolution, row by row.
pub(super) fn all_taps(g: &Geometry) -> Vec<Tap> {
    let tap = |weight: usize| Tap {
        weight,
        dy: (weight / g.kernel.1 * g.dilation.0) as isize - g.padding.0 as isize,
        dx: (weight % g.kernel.1 * g.dilation.1) as isize - g.padding.1 as isize,
    };
    (0..g.taps()).map(tap).collect()
}

/// A place of the kernel: its index in the weight, and which input it meets, relative to output position times stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub(super) weight: usize,
    pub(super) dy: isize,
    pub(super) dx: isize,
}

/// Channels, rows and columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planes {
    pub(super) c: usize,
    pub(super) h: usize,
    pub(super) w: usize,
}

/// The input of a block of output positions, laid out such that weight k of position p meets element `starts[k] + p`.
pub(super) struct Layout {
    from: Planes,
    taps: Vec<Tap>,
    stride: (usize, usize),
    out: (usize, usize),
    pub(super) starts: Vec<usize>,
    /// Positions of a block, useless ones included, and that number rounded up to whole tiles.
    pub(super) positions: usize,
    pub(super) room: usize,
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

/// Rows of outputs of one image: the first of them is the image's row `row` and begins at position `position`, each
/// further one `step` positions later.
pub(super) struct Piece {
    pub(super) image: usize,
    pub(super) row: usize,
    pub(super) rows: usize,
    pub(super) position: usize,
    pub(super) step: usize,
}

/// Images that lie side by side: whole vectors of every instruction set.
pub(super) const LANES: usize = 32;

/// Positions are a multiple of this: the widest tile.
const WIDEST: usize = 96;

impl Layout {
    pub(super) fn new(
        from: Planes,
        taps: &[Tap],
        stride: (usize, usize),
        out: (usize, usize),
        n: usize,
    ) -> Layout {
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
        // Zeros to the left of a row serve as those to the right of the row before, as many as both sides have.
        let over = (out.1 as isize - 1 + least.1 + most.1 as isize - (from.w as isize - 1)).max(0);
        let shared = if stride.1 == 1 { over.min((-least.1).max(0)) as usize } else { 0 };
        let width = out.1 + most.1 / stride.1 - shared;
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
    pub(super) fn blocks(&self, n: usize) -> usize {
        match self.kind {
            Kind::Padded { strips, .. } => n * strips,
            Kind::Gathered { images } => n.div_ceil(images),
            Kind::Lanes { .. } => n.div_ceil(LANES),
        }
    }

    /// The buffer's length. Tiles may read up to a tile's width behind the last position.
    pub(super) fn len(&self) -> usize {
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
    pub(super) fn runs(&self) -> (Vec<usize>, usize) {
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
    pub(super) fn tiles(&self, nr: usize) -> Vec<usize> {
        match self.kind {
            Kind::Padded { .. } | Kind::Gathered { .. } => (0..self.positions).step_by(nr).collect(),
            Kind::Lanes { .. } => {
                let starts = self.runs().0.into_iter();
                starts.flat_map(|start| (0..LANES).step_by(nr).map(move |lane| start + lane)).collect()
            }
        }
    }

    pub(super) fn has_lanes(&self) -> bool {
        matches!(self.kind, Kind::Lanes { .. })
    }

    /// Lays out channels `first..first + from.c` of `all` of a block's images.
    pub(super) fn lay_out(&self, x: &[f32], (all, first): (usize, usize), block: usize, to: &mut [f32]) {
        let Planes { c, h, w } = self.from;
        let (sy, sx) = self.stride;
        match self.kind {
            Kind::Padded { rows, strips, height, width, least } => {
                let image = &x[(block / strips * all + first) * h * w..][..c * h * w];
                let top = (block % strips * rows * sy) as isize + least.0;
                if (sy, sx) == (1, 1) {
                    let (image, rest) = ((image, h, w), c * height * width);
                    dispatch(Pad { image, top, left: least.1, width, height, to: &mut to[..rest] });
                    return to[rest..].fill(0.0);
                }
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

    /// The rows of outputs of a block, image by image.
    pub(super) fn pieces(&self, n: usize, block: usize) -> Vec<Piece> {
        match self.kind {
            Kind::Padded { rows, strips, width, .. } => {
                let row = block % strips * rows;
                let rows = rows.min(self.out.0 - row);
                vec![Piece { image: block / strips, row, rows, position: 0, step: width }]
            }
            // Lanes as if they had been transposed to one image after another.
            Kind::Gathered { .. } | Kind::Lanes { .. } => {
                let images = if let Kind::Gathered { images } = self.kind { images } else { LANES };
                let (rows, step) = self.out;
                let piece =
                    |i| Piece { image: block * images + i, row: 0, rows, position: i * rows * step, step };
                (0..images.min(n - block * images)).map(piece).collect()
            }
        }
    }

    /// The gradient of a block's outputs by position, channel after channel, with zeros at useless positions.
    pub(super) fn lay_out_gradient(
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
        for Piece { image, row, rows, position, step } in self.pieces(dy.len() / (all * h * w), block) {
            for channel in 0..c {
                let from = &dy[((image * all + first + channel) * h + row) * w..][..rows * w];
                let to = &mut to[channel * self.room + position..];
                for (from, to) in from.chunks(w).zip(to.chunks_mut(step)) {
                    to[..w].copy_from_slice(from);
                }
            }
        }
    }
}

/// Planes of `height` rows and `width` columns, of which row i and column j is row `top + i` and column `left + j` of
/// the image's plane, zero outside of it.
struct Pad<'a> {
    /// All planes, and the rows and columns of each.
    image: (&'a [f32], usize, usize),
    top: isize,
    left: isize,
    height: usize,
    width: usize,
    to: &'a mut [f32],
}

impl Work for Pad<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Pad { image: (image, h, w), top, left, height, width, to } = self;
        let (zeros, skip) = (left.min(0).unsigned_abs().min(width), left.max(0) as usize);
        let len = (width - zeros).min(w.saturating_sub(skip));
        for (plane, to) in to.chunks_exact_mut(height * width).enumerate() {
            let plane = &image[plane * h * w..][..h * w];
            for (i, to) in to.chunks_exact_mut(width).enumerate() {
                // SAFETY: a row of `width` floats; `len` of an image's row, which fit in behind the zeros.
                unsafe {
                    by_overlapping!(S, width, |j, k| store::<S>(to.as_mut_ptr().add(j), k, S::splat(0.0)));
                    if let Some(row) = usize::try_from(top + i as isize).ok().filter(|&row| row < h) {
                        let (from, to) = (&plane[row * w + skip.min(w)..][..len], &mut to[zeros..][..len]);
                        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
                        by_overlapping!(S, len, |j, k| store::<S>(to.add(j), k, load::<S>(from.add(j), k)));
                    }
                }
            }
        }
    }
}

/// `to[i] = from[left + i * step]`, zero outside of `from`.
#[inline]
pub(super) fn copy_row(from: &[f32], left: isize, step: usize, to: &mut [f32]) {
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
