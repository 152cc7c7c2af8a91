//! Matrix multiplication, as fast as the machine allows: what lesson 2's packed multiplication grows into.
//!
//! Three ways, chosen by shape alone:
//! * in general both operands are packed into panels in the order in which a register tile reads them, as in lesson 2
//!   (after K. Goto and R. van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, 2008);
//! * with few rows on the left, packing the right side would cost more than it gains, and it is read where it lies;
//! * with few columns on the right and long rows on the left, each output is a dot product with the vectors along `k`.
//!
//! No sum is cut into parts by thread: the bits of the result do not depend on the number of threads.

use super::memory::{Blank, blank, fill, filled};
use super::scratch::{Scratch, scratch};
use super::simd::{Level, Simd, Work, dispatch_at, level};
use super::threads::{Parts, for_each, for_each_chunk, threads};
use std::marker::PhantomData;
use std::ops::Range;

/// A matrix that lies in a slice: element (i, j) is `data[i * row + j * column]`.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

impl<'a> View<'a> {
    /// Row after row, `row` elements from one to the next.
    pub fn rows(data: &'a [f32], row: usize) -> Self {
        View::strided(data, (row, 1))
    }

    /// Column after column, `column` elements from one to the next: a transposed matrix is multiplied where it lies.
    pub fn columns(data: &'a [f32], column: usize) -> Self {
        View::strided(data, (1, column))
    }

    /// `row` elements from row to row, and `column` from column to column.
    pub fn strided(data: &'a [f32], (row, column): (usize, usize)) -> Self {
        View { data, row, column }
    }

    /// The part that begins at row `i` and column `j`.
    fn from(self, i: usize, j: usize) -> Self {
        View { data: &self.data[i * self.row + j * self.column..], ..self }
    }

    fn transposed(self) -> Self {
        View { row: self.column, column: self.row, ..self }
    }

    /// # Panics
    /// If the slice is too short for so many rows and columns, of which there are some.
    #[track_caller]
    fn check(&self, name: &str, rows: usize, columns: usize) {
        let (len, needs) = (self.data.len(), (rows - 1) * self.row + (columns - 1) * self.column + 1);
        assert!(len >= needs, "gemm: {name} of {len} elements is too short for {rows}×{columns}");
    }
}

/// Where a product goes: a row-major matrix, `row` elements from one row to the next.
pub struct Target<'a> {
    c: Parts<'a, Blank>,
    len: usize,
    row: usize,
    mode: Mode,
}

/// What becomes of the elements that a product meets where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are not read.
    Overwrite,
    /// The product is added to them. They have been written before.
    Add,
}

impl<'a> Target<'a> {
    /// The product takes the place of what stands in `c`.
    pub fn overwrite(c: &'a mut [f32], row: usize) -> Self {
        // SAFETY: products are floats.
        Target::fill(unsafe { blank(c) }, row)
    }

    /// The same where nothing stands yet.
    pub fn fill(c: &'a mut [Blank], row: usize) -> Self {
        Target { len: c.len(), c: Parts::new(c), row, mode: Mode::Overwrite }
    }

    /// The product is added to what stands in `c`.
    pub fn add(c: &'a mut [f32], row: usize) -> Self {
        Target { mode: Mode::Add, ..Target::overwrite(c, row) }
    }

    /// # Panics
    /// If it is too short for so many rows and columns, of which there are some.
    #[track_caller]
    fn check(&self, rows: usize, columns: usize) {
        let fits = self.row >= columns && self.len >= (rows - 1) * self.row + columns;
        let (len, row) = (self.len, self.row);
        assert!(fits, "gemm: C of {len} elements is too short for {rows}×{columns}, {row} a row");
    }

    /// A rectangle of `size` that begins at row `i` and column `j`.
    ///
    /// # Safety
    /// No two rectangles that are in use at the same time overlap, and where `mode` is [`Mode::Add`] all elements have
    /// been written.
    unsafe fn rectangle(&self, (i, j): (usize, usize), size: (usize, usize), mode: Mode) -> Rectangle<'a> {
        let start = self.c.at(i * self.row + j, (size.0 - 1) * self.row + size.1).cast();
        Rectangle { start, row: self.row, size, mode, borrow: PhantomData }
    }
}

/// A part of a product's target that belongs to its holder alone: rows and columns that are there, and, with
/// [`Mode::Add`], have been written.
pub(super) struct Rectangle<'a> {
    start: *mut f32,
    row: usize,
    size: (usize, usize),
    mode: Mode,
    borrow: PhantomData<&'a mut [f32]>,
}

impl<'a> Rectangle<'a> {
    /// The first rows and columns of a matrix.
    ///
    /// # Panics
    /// If it is too short for them.
    pub(super) fn new(c: &'a mut [f32], row: usize, size: (usize, usize), mode: Mode) -> Self {
        // SAFETY: the only one, and all of its elements are floats.
        unsafe { Target::overwrite(c, row).rectangle((0, 0), size, mode) }
    }
}

/// C = A·B, or C += A·B, for A of shape (m, k), B of shape (k, n) and C of shape (m, n).
///
/// # Panics
/// If a matrix is too short for its shape.
#[track_caller]
pub fn gemm((m, n, k): (usize, usize, usize), a: View, b: View, c: Target) {
    if m == 0 || n == 0 {
        return;
    }
    c.check(m, n);
    if k == 0 {
        for i in 0..m {
            // SAFETY: one row after the other, and what is added nothing to is left alone.
            let row = unsafe { c.c.slice(i * c.row, n) };
            if c.mode == Mode::Overwrite {
                fill(row, 0.0);
            }
        }
        return;
    }
    a.check("A", m, k);
    b.check("B", k, n);
    let product = Product { m, n, k, a, b };
    if product.is_for_dots() { product.by_dots(level(), &c) } else { product.by_tiles(level(), &c) }
}

/// A·B for A of shape (m, k) and B of shape (k, n), row-major.
///
/// # Panics
/// As [`gemm`].
#[track_caller]
pub fn product((m, n, k): (usize, usize, usize), a: View, b: View) -> Vec<f32> {
    // SAFETY: all m·n elements are written.
    unsafe { filled(m * n, |c| gemm((m, n, k), a, b, Target::fill(c, n))) }
}

/// One product for each pair of offsets into `a` and `b`; the results, each m·n elements, follow one another.
///
/// # Panics
/// As [`gemm`].
#[track_caller]
pub fn gemm_batched(
    offsets: &[(usize, usize)],
    (m, n, k): (usize, usize, usize),
    a: View,
    b: View,
) -> Vec<f32> {
    let one = |i: usize, c: &mut [Blank]| {
        // Where there is nothing to read, an offset may lead past the end.
        let (at_a, at_b) = if k == 0 { (0, 0) } else { offsets[i] };
        let (a, b) = (View { data: &a.data[at_a..], ..a }, View { data: &b.data[at_b..], ..b });
        gemm((m, n, k), a, b, Target::fill(c, n));
    };
    let all = |c: &mut [Blank]| {
        if m == 0 || n == 0 {
            return;
        }
        let small = work(m, n, k) < 64.0 * WORTH_A_THREAD || offsets.len() >= 4 * threads();
        if small && offsets.len() > 1 && offsets.len() as f64 * work(m, n, k) > WORTH_A_THREAD {
            // Several products a task, so that tasks are worth their while.
            let per_task =
                ((WORTH_A_THREAD / work(m, n, k)) as usize).clamp(1, offsets.len().div_ceil(threads()));
            for_each_chunk(c, per_task * m * n, |task, c| {
                c.chunks_mut(m * n).enumerate().for_each(|(i, c)| one(task * per_task + i, c));
            });
        } else {
            c.chunks_mut(m * n).enumerate().for_each(|(i, c)| one(i, c));
        }
    };
    // SAFETY: the parts of all products are written.
    unsafe { filled(offsets.len() * m * n, all) }
}

/// C = A·B (or C += A·B) by three loops: what the fast versions are tested against.
pub fn gemm_naive((m, n, k): (usize, usize, usize), a: View, b: View, c: Target) {
    let at = |x: View, i, j| f64::from(x.data[i * x.row + j * x.column]);
    for i in 0..m {
        // SAFETY: one row after the other.
        let row = unsafe { c.c.slice(i * c.row, n) };
        for (j, to) in row.iter_mut().enumerate() {
            let sum = (0..k).map(|p| at(a, i, p) * at(b, p, j)).sum::<f64>() as f32;
            // SAFETY: what is added to has been written.
            let old = if c.mode == Mode::Add { unsafe { to.assume_init() } } else { 0.0 };
            to.write(sum + old);
        }
    }
}

/// Multiplications below which waking a second thread costs more than it saves.
const WORTH_A_THREAD: f64 = 250_000.0;
/// Steps of k in one go, at most: a panel of A stays in the first-level cache.
const DEPTH: usize = 384;

fn work(m: usize, n: usize, k: usize) -> f64 {
    m as f64 * n as f64 * k as f64
}

#[derive(Clone, Copy)]
struct Product<'a> {
    m: usize,
    n: usize,
    k: usize,
    a: View<'a>,
    b: View<'a>,
}

// ---- Tiles: C is cut into tiles of MR rows and NV vectors, which stay in registers over a whole block of k.

impl Product<'_> {
    /// The loops around the tiles. Threads outside, instruction sets inside: a closure does not inherit a function's
    /// target features. C must be large enough.
    fn by_tiles(self, level: Level, c: &Target) {
        let Product { m, n, k, a, b } = self;
        let (mr, nr) = dispatch_at(level, TileSize);
        let (row_panels, column_panels) = (m.div_ceil(mr), n.div_ceil(nr));
        // B is read where it lies if its rows are contiguous and few panels of A would make use of a packed one.
        let pack_b = b.column != 1 || row_panels > 8;
        // The last panel of columns is packed in any case: it may not be full, and has no more elements to read.
        let first_packed = if pack_b { 0 } else { n / nr };
        let depth = k.div_ceil(k.div_ceil(DEPTH));
        let mut packed_a = scratch(row_panels * mr * depth);
        let mut packed_b = scratch((column_panels - first_packed) * nr * depth);
        let alone = work(m, n, k) < 2.0 * WORTH_A_THREAD;
        let run = |tasks: usize, task: &(dyn Fn(usize) + Sync)| {
            if alone { (0..tasks).for_each(task) } else { for_each(tasks, task) }
        };
        // Tasks: blocks of tiles, about four to a thread, each with operands that fit into the second-level cache.
        let (block_rows, block_columns) = blocks(row_panels, column_panels, (mr, nr));
        let tasks_per_column = row_panels.div_ceil(block_rows);

        for start in (0..k).step_by(depth) {
            let depth = depth.min(k - start);
            let (a_parts, b_parts) = (Parts::new(&mut packed_a), Parts::new(&mut packed_b));
            let a_tasks = row_panels.div_ceil(PANELS_A_TASK);
            let b_tasks = (column_panels - first_packed).div_ceil(PANELS_A_TASK);
            run(a_tasks + b_tasks, &|task| {
                let (is_a, task) = if task < a_tasks { (true, task) } else { (false, task - a_tasks) };
                let panels = if is_a { row_panels } else { column_panels - first_packed };
                for panel in task * PANELS_A_TASK..panels.min((task + 1) * PANELS_A_TASK) {
                    // SAFETY: each panel is written by one task.
                    if is_a {
                        let to = unsafe { a_parts.slice(panel * mr * depth, mr * depth) };
                        pack(a.from(panel * mr, start), (mr.min(m - panel * mr), mr), to);
                    } else {
                        let first = (panel + first_packed) * nr;
                        let to = unsafe { b_parts.slice(panel * nr * depth, nr * depth) };
                        pack(b.from(start, first).transposed(), (nr.min(n - first), nr), to);
                    }
                }
            });
            let mode = if start == 0 { c.mode } else { Mode::Add };
            run(tasks_per_column * column_panels.div_ceil(block_columns), &|task| {
                let (first_row, first_column) =
                    (task % tasks_per_column * block_rows, task / tasks_per_column * block_columns);
                let columns = first_column..column_panels.min(first_column + block_columns);
                // Panels that are packed, and those that are read where they lie.
                let lying = columns.start..columns.end.min(first_packed).max(columns.start);
                let packed = lying.end..columns.end;
                for i in first_row..row_panels.min(first_row + block_rows) {
                    let panel_a = &packed_a[i * mr * depth..][..mr * depth];
                    let row = |columns: Range<usize>, b, b_row, b_panel| {
                        if !columns.is_empty() {
                            let (i, j) = (i * mr, columns.start * nr);
                            let size = (mr.min(m - i), n.min(columns.end * nr) - j);
                            // SAFETY: a tile is written by one task only, and all of them by the first block of k.
                            let c = unsafe { c.rectangle((i, j), size, mode) };
                            dispatch_at(level, RowOfTiles { a: panel_a, b, b_row, b_panel, depth, c });
                        }
                    };
                    if !lying.is_empty() {
                        row(lying.clone(), b.from(start, lying.start * nr).data, b.row, nr);
                    }
                    if !packed.is_empty() {
                        let first = (packed.start - first_packed) * nr * depth;
                        row(packed.clone(), &packed_b[first..], nr, nr * depth);
                    }
                }
            });
        }
    }
}

/// The rows and columns of the instruction set's tile.
pub(super) struct TileSize;

impl Work for TileSize {
    type Out = (usize, usize);

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> (usize, usize) {
        if S::MANY_REGISTERS { (6, 4 * S::LANES) } else { (6, 2 * S::LANES) }
    }
}

/// Tiles side by side: one panel of A, which stays in the first-level cache, with panels of B, which stay in the second.
pub(super) struct RowOfTiles<'a> {
    /// A packed panel.
    pub(super) a: &'a [f32],
    /// Panels, packed or not: `b_row` elements from step to step, `b_panel` from panel to panel.
    pub(super) b: &'a [f32],
    pub(super) b_row: usize,
    pub(super) b_panel: usize,
    pub(super) depth: usize,
    pub(super) c: Rectangle<'a>,
}

impl Work for RowOfTiles<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is there.
        unsafe {
            if S::MANY_REGISTERS { row_of_tiles::<S, 6, 4>(self) } else { row_of_tiles::<S, 6, 2>(self) }
        }
    }
}

/// The same for at most half as many columns as a panel has, where whole tiles would be half in vain. (A work of its own:
/// two kinds of tiles in one function were compiled to half the speed.)
pub(super) struct HalfTile<'a>(pub(super) RowOfTiles<'a>);

impl Work for HalfTile<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is there.
        unsafe {
            if S::MANY_REGISTERS { row_of_tiles::<S, 6, 2>(self.0) } else { row_of_tiles::<S, 6, 1>(self.0) }
        }
    }
}

/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn row_of_tiles<S: Simd, const MR: usize, const NV: usize>(work: RowOfTiles) {
    let RowOfTiles { a, b, b_row, b_panel, depth, c } = work;
    let (rows, columns) = c.size;
    let nr = NV * S::LANES;
    let last = (columns.div_ceil(nr) - 1) * b_panel;
    assert!(b.len() >= last + (depth - 1) * b_row + nr && a.len() >= MR * depth && rows <= MR);
    for (panel, j) in (0..columns).step_by(nr).enumerate() {
        // SAFETY: just checked, and a rectangle's elements are ours.
        unsafe {
            let (b, to, size) =
                (b.as_ptr().add(panel * b_panel), c.start.add(j), (rows, nr.min(columns - j)));
            run_tile::<S, MR, NV>(a.as_ptr(), b, b_row, depth, to, c.row, size, c.mode);
        }
    }
}

/// Panels that one task packs.
const PANELS_A_TASK: usize = 4;

/// How many panels of rows and of columns make a task.
fn blocks(row_panels: usize, column_panels: usize, (mr, nr): (usize, usize)) -> (usize, usize) {
    let (mut rows, mut columns) =
        (row_panels.min(256_usize.div_ceil(mr)), column_panels.min(512_usize.div_ceil(nr)));
    while row_panels.div_ceil(rows) * column_panels.div_ceil(columns) < 4 * threads() && rows * columns > 1 {
        if columns == 1 || rows > 1 && rows * mr >= columns * nr {
            rows = rows.div_ceil(2)
        } else {
            columns = columns.div_ceil(2)
        }
    }
    (rows, columns)
}

/// Copies steps of `count` neighbours into a panel of `width` of them a step, the rest zeros, until the panel is full.
/// Neighbours are the rows of `from`, and steps its columns.
fn pack(from: View, (count, width): (usize, usize), to: &mut [f32]) {
    let View { data: from, row: across, column: along } = from;
    if across == 1 {
        for (p, to) in to.chunks_exact_mut(width).enumerate() {
            let from = &from[p * along..][..count];
            if count == width && width.is_multiple_of(4) {
                // Not `copy_from_slice`: a call for each step, which takes as long as the copying.
                to.as_chunks_mut::<4>()
                    .0
                    .iter_mut()
                    .zip(from.as_chunks::<4>().0)
                    .for_each(|(to, x)| *to = *x);
            } else {
                to[..count].copy_from_slice(from);
                to[count..].fill(0.0);
            }
        }
        return;
    }
    if along == 1 {
        let depth = to.len() / width;
        transpose(from, across, (count, depth), to, width);
        return to.chunks_exact_mut(width).for_each(|step| step[count..].fill(0.0));
    }
    for i in 0..width {
        let places = to[i..].iter_mut().step_by(width);
        if i < count {
            places.zip(from[i * across..].iter().step_by(along.max(1))).for_each(|(to, &x)| *to = x);
        } else {
            places.for_each(|to| *to = 0.0);
        }
    }
}

/// `to[j * to_row + i] = from[i * from_row + j]` for i and j below `size`, by squares of 4×4 that the compiler turns in
/// registers.
pub(super) fn transpose(from: &[f32], from_row: usize, size: (usize, usize), to: &mut [f32], to_row: usize) {
    let (rows, columns) = size;
    for i in (0..rows).step_by(4) {
        for j in (0..columns).step_by(4) {
            if i + 4 <= rows && j + 4 <= columns {
                let row = |r: usize| -> [f32; 4] {
                    from[(i + r) * from_row + j..][..4].try_into().expect("four of them")
                };
                let square = [row(0), row(1), row(2), row(3)];
                for q in 0..4 {
                    let column = [square[0][q], square[1][q], square[2][q], square[3][q]];
                    to[(j + q) * to_row + i..][..4].copy_from_slice(&column);
                }
            } else {
                for (i, j) in (i..rows.min(i + 4)).flat_map(|i| (j..columns.min(j + 4)).map(move |j| (i, j)))
                {
                    to[j * to_row + i] = from[i * from_row + j];
                }
            }
        }
    }
}

/// How many steps ahead B is fetched, out of the second-level cache.
const AHEAD: usize = 8;

/// One tile of C, from a packed panel of A and a panel of B.
///
/// # Safety
/// The machine has `S`; `depth` steps of both panels can be read, and the tile's rows and columns written (with
/// [`Mode::Add`], they have been).
#[inline(always)]
unsafe fn run_tile<S: Simd, const MR: usize, const NV: usize>(
    a: *const f32,
    b: *const f32,
    b_row: usize,
    depth: usize,
    c: *mut f32,
    ldc: usize,
    (rows, columns): (usize, usize),
    mode: Mode,
) {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut sums = [[S::splat(0.0); NV]; MR];
        let (mut a, mut b) = (a, b);
        for _ in 0..depth {
            let mut y = [S::splat(0.0); NV];
            for v in 0..NV {
                y[v] = S::load(b.add(v * S::LANES));
                S::prefetch(b.wrapping_add(AHEAD * b_row + v * S::LANES));
            }
            for i in 0..MR {
                let x = S::splat(*a.add(i));
                for v in 0..NV {
                    sums[i][v] = S::fma(x, y[v], sums[i][v]);
                }
            }
            a = a.add(MR);
            b = b.add(b_row);
        }
        if rows == MR && columns == NV * S::LANES {
            // Written straight from the registers.
            for i in 0..MR {
                for v in 0..NV {
                    write::<S>(c.add(i * ldc + v * S::LANES), S::LANES, sums[i][v], mode);
                }
            }
        } else {
            for i in 0..rows {
                for v in 0..NV {
                    let left = columns.saturating_sub(v * S::LANES);
                    write::<S>(c.wrapping_add(i * ldc + v * S::LANES), left, sums[i][v], mode);
                }
            }
        }
    }
}

/// c = sums or c += sums, for the first `left` lanes if that is less than a vector.
///
/// # Safety
/// The machine has `S`, and those lanes of c are there, written before if they are added to.
#[inline(always)]
unsafe fn write<S: Simd>(c: *mut f32, left: usize, sums: S::V, mode: Mode) {
    // SAFETY: as promised by the caller.
    unsafe {
        let add = mode == Mode::Add;
        if left >= S::LANES {
            S::store(c, if add { S::add(S::load(c), sums) } else { sums });
        } else if left > 0 {
            S::store_part(c, left, if add { S::add(S::load_part(c, left), sums) } else { sums });
        }
    }
}

// ---- Dot products: both operands are read along k, and each register sums one output's lanes.

/// Steps of k that a block of dot products makes in one go.
const DOT_DEPTH: usize = 2048;

impl Product<'_> {
    /// Dot products have no need to pack, but their sums end in a sum over lanes, and B's columns must lie in one piece.
    fn is_for_dots(&self) -> bool {
        let few_columns = self.n <= 64 && self.m >= self.n;
        let few_rows = self.m <= 64 && self.b.row == 1;
        self.a.column == 1 && self.k >= 64 && (few_columns || few_rows)
    }

    /// A's rows must lie in one piece, and C be large enough.
    fn by_dots(self, level: Level, c: &Target) {
        let Product { m, n, k, a, b } = self;
        let columns = if b.row == 1 { None } else { Some(columns_of(b, (k, n))) };
        let b = columns.as_ref().map_or(b, |columns| View::columns(columns, k));
        // Tasks: blocks of rows, cut into blocks of columns too where there are few rows. 15 is divisible by 3 and 5.
        let rows_a_task = m.div_ceil(8 * threads()).next_multiple_of(15).min(240);
        let row_tasks = m.div_ceil(rows_a_task);
        let columns_a_task = if row_tasks >= 4 * threads() { n } else { n.div_ceil(4).next_multiple_of(15) };
        let task = |task: usize| {
            let (i, j) = (task % row_tasks * rows_a_task, task / row_tasks * columns_a_task);
            let size = (rows_a_task.min(m - i), columns_a_task.min(n - j));
            for start in (0..k).step_by(DOT_DEPTH) {
                let depth = DOT_DEPTH.min(k - start);
                let mode = if start == 0 { c.mode } else { Mode::Add };
                // SAFETY: outputs of different tasks do not overlap, and the first piece writes all.
                let c = unsafe { c.rectangle((i, j), size, mode) };
                dispatch_at(level, Dots { a: a.from(i, start), b: b.from(start, j), depth, c });
            }
        };
        let tasks = row_tasks * n.div_ceil(columns_a_task);
        if work(m, n, k) < 2.0 * WORTH_A_THREAD { (0..tasks).for_each(task) } else { for_each(tasks, task) }
    }
}

/// The dot products of all rows of A with all columns of B, both in pieces of `depth` elements.
struct Dots<'a> {
    a: View<'a>,
    b: View<'a>,
    depth: usize,
    c: Rectangle<'a>,
}

impl Work for Dots<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the instruction set is there. Blocks have 25 sums in 32 registers, or 9 in 16.
        unsafe { if S::MANY_REGISTERS { all_dots::<S, 5>(self) } else { all_dots::<S, 3>(self) } }
    }
}

/// # Safety
/// The machine has `S`.
#[inline(always)]
unsafe fn all_dots<S: Simd, const R: usize>(work: Dots) {
    let Dots { a: View { data: a, row: a_row, .. }, b: View { data: b, column: b_column, .. }, depth, c } =
        work;
    let (m, n) = c.size;
    assert!(a.len() >= (m - 1) * a_row + depth && b.len() >= (n - 1) * b_column + depth);
    for i in (0..m).step_by(R) {
        for j in (0..n).step_by(R) {
            let (rows, columns) = (R.min(m - i), R.min(n - j));
            let (mut x, mut y) = ([a.as_ptr(); R], [b.as_ptr(); R]);
            // SAFETY: just checked that rows and columns are there, and a rectangle's elements are ours.
            unsafe {
                for r in 0..R {
                    // Behind the last row or column the last one is read again: no branch in the inner loop.
                    x[r] = x[r].add((i + r.min(rows - 1)) * a_row);
                    y[r] = y[r].add((j + r.min(columns - 1)) * b_column);
                }
                let sums = dots::<S, R>(x, y, depth, R * a_row);
                for r in 0..rows {
                    for s in 0..columns {
                        let to = c.start.add((i + r) * c.row + j + s);
                        *to = if c.mode == Mode::Add { *to + sums[r][s] } else { sums[r][s] };
                    }
                }
            }
        }
    }
}

/// The dot products of R rows with R columns. The rows `ahead` elements further on are fetched meanwhile.
///
/// # Safety
/// The machine has `S`; `depth` elements can be read behind each pointer.
#[inline(always)]
unsafe fn dots<S: Simd, const R: usize>(
    rows: [*const f32; R],
    columns: [*const f32; R],
    depth: usize,
    ahead: usize,
) -> [[f32; R]; R] {
    // SAFETY: as promised by the caller.
    unsafe {
        let mut sums = [[S::splat(0.0); R]; R];
        let mut x = [S::splat(0.0); R];
        let mut p = 0;
        while p + S::LANES <= depth {
            for r in 0..R {
                x[r] = S::load(rows[r].add(p));
                S::prefetch(rows[r].wrapping_add(p + ahead));
            }
            for s in 0..R {
                let y = S::load(columns[s].add(p));
                for r in 0..R {
                    sums[r][s] = S::fma(x[r], y, sums[r][s]);
                }
            }
            p += S::LANES;
        }
        if p < depth {
            for r in 0..R {
                x[r] = S::load_part(rows[r].add(p), depth - p);
            }
            for s in 0..R {
                let y = S::load_part(columns[s].add(p), depth - p);
                for r in 0..R {
                    sums[r][s] = S::fma(x[r], y, sums[r][s]);
                }
            }
        }
        let mut totals = [[0.0; R]; R];
        for r in 0..R {
            for s in 0..R {
                totals[r][s] = S::reduce_add(sums[r][s]);
            }
        }
        totals
    }
}

/// The columns of B one after another.
fn columns_of(b: View, (k, n): (usize, usize)) -> Scratch {
    let mut columns = scratch(k * n);
    // In blocks, so that neither side jumps through memory line by line.
    for first in (0..k).step_by(16) {
        for j in 0..n {
            for p in first..k.min(first + 16) {
                columns[j * k + p] = b.data[p * b.row + j * b.column];
            }
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::levels;
    use crate::kernels::threads::with_threads;

    /// Numbers between -1 and 1 that look random.
    fn numbers(len: usize, seed: u64) -> Vec<f32> {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 40) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next()).collect()
    }

    /// How A, B and C lie: row-major, transposed, or with gaps between rows.
    fn check((m, n, k): (usize, usize, usize), case: usize) {
        let a_strides = [(k, 1), (1, m), (k + 3, 1)][case % 3];
        let b_strides = [(n, 1), (1, k), (n + 5, 1)][case / 3 % 3];
        let (row, add) = [(n, false), (n, true), (n + 2, true)][case / 9];
        let (a, b, c) = (numbers(m * (k + 3), 1), numbers((k + 3) * (n + 5), 2), numbers(m * row, 3));
        let (a, b) = (View::strided(&a, a_strides), View::strided(&b, b_strides));
        fn target(c: &mut [f32], row: usize, add: bool) -> Target<'_> {
            if add { Target::add(c, row) } else { Target::overwrite(c, row) }
        }
        let mut want = c.clone();
        gemm_naive((m, n, k), a, b, target(&mut want, row, add));
        let compare = |way: String, fast: &dyn Fn(Target)| {
            let mut got = c.clone();
            fast(target(&mut got, row, add));
            for (at, (x, y)) in got.iter().zip(&want).enumerate() {
                let ok = (x - y).abs() <= 2e-6 * (k as f32).sqrt().max(4.0);
                assert!(ok, "{way}, {m}×{n}×{k}, case {case}: {x} for {y} at {at}");
            }
        };
        compare("gemm".into(), &|c| gemm((m, n, k), a, b, c));
        let product = Product { m, n, k, a, b };
        for level in levels() {
            compare(format!("{level:?} tiles"), &|c| product.by_tiles(level, &c));
            if a_strides.1 == 1 {
                compare(format!("{level:?} dots"), &|c| product.by_dots(level, &c));
            }
        }
    }

    #[test]
    fn equals_three_loops_for_all_shapes_layouts_and_instruction_sets() {
        for size in
            [(1, 1, 1), (5, 10, 84), (14, 32, 3), (13, 33, 17), (15, 31, 25), (3, 40, 70), (29, 5, 65)]
        {
            (0..27).for_each(|case| check(size, case));
        }
        if !cfg!(miri) {
            let large =
                [(50, 50, 784), (50, 300, 50), (129, 65, 300), (17, 9, 2100), (64, 70, 128), (700, 10, 100)];
            large
                .into_iter()
                .enumerate()
                .for_each(|(i, size)| (i..27).step_by(5).for_each(|case| check(size, case)));
        }
    }

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_threads() {
        for (m, n, k) in [(150, 170, 600), (50, 50, 784), (3000, 10, 784), (50, 784, 50)] {
            let (a, b) = (numbers(m * k, 4), numbers(k * n, 5));
            let run =
                |threads| with_threads(threads, || product((m, n, k), View::rows(&a, k), View::rows(&b, n)));
            let one = run(1);
            assert!([2, 5].into_iter().all(|threads| run(threads) == one), "{m}×{n}×{k}");
        }
    }

    #[test]
    fn a_batch_is_many_products() {
        for (batch, (m, n, k)) in
            [(3, (5, 4, 7)), (40, (3, 2, 9)), (2, (60, 70, 80)), (0, (2, 2, 2)), (3, (2, 2, 0))]
        {
            let (a, b) = (numbers(batch * m * k, 6), numbers(k * n, 7));
            let offsets: Vec<_> = (0..batch).map(|i| (i * m * k, 0)).collect();
            let c = gemm_batched(&offsets, (m, n, k), View::rows(&a, k), View::rows(&b, n));
            assert_eq!(c.len(), batch * m * n);
            let mut want = vec![1.0; m * n];
            for (i, got) in c.chunks(m * n).enumerate() {
                let (a, b) = (View::rows(&a[i * m * k..], k), View::rows(&b, n));
                gemm_naive((m, n, k), a, b, Target::overwrite(&mut want, n));
                assert!(got.iter().zip(&want).all(|(x, y)| (x - y).abs() < 1e-5));
            }
        }
    }

    #[test]
    fn nothing_times_nothing() {
        let mut c = [3.0, 4.0];
        gemm((1, 2, 0), View::rows(&[], 0), View::rows(&[], 2), Target::add(&mut c, 2));
        assert_eq!(c, [3.0, 4.0]);
        gemm((1, 2, 0), View::rows(&[], 0), View::rows(&[], 2), Target::overwrite(&mut c, 2));
        assert_eq!(c, [0.0, 0.0]);
        gemm((0, 2, 3), View::rows(&[], 3), View::rows(&[0.0; 6], 2), Target::overwrite(&mut [], 2));
    }

    #[test]
    #[should_panic(expected = "A of 5 elements is too short for 2×3")]
    fn a_short_slice_is_refused() {
        product((2, 2, 3), View::rows(&[0.0; 5], 3), View::rows(&[0.0; 6], 2));
    }
}
