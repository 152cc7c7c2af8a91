//! Matrix multiplication, as fast as the machine allows: what lesson 2's packed multiplication grows into.
//!
//! Three ways, chosen by shape alone:
//! * in general both operands are packed into panels in the order in which a register tile reads them, as in lesson 2
//!   (after K. Goto and R. van de Geijn, *Anatomy of High-Performance Matrix Multiplication*, 2008);
//! * with few rows on the left, packing the right side would cost more than it gains, and it is read where it lies;
//! * with few columns on the right and long rows on the left, each output is a dot product with the vectors along `k`.
//!
//! No sum is cut into parts by thread: the bits of the result do not depend on the number of threads.

use crate::kernels::memory::filled;
use crate::kernels::scratch::scratch;
use crate::kernels::simd::{Level, Simd, Work, dispatch_at, level};
use crate::kernels::threads::{Parts, for_each, for_each_chunk, threads};
use std::ops::Range;

/// Rows `i` and steps `p` of A, or steps `p` and columns `j` of B: the distance in elements between neighbours.
pub type Strides = (usize, usize);

/// C = A·B + `beta`·C for A of shape (m, k), B of shape (k, n) and C of shape (m, n), in f32.
///
/// Element (i, p) of A is `a[i * row + p * column]` for its strides `(row, column)`, likewise B, so that a transposed
/// matrix is multiplied where it lies. C is row-major with `ldc` elements from row to row. With `beta` 0, C is not read.
///
/// # Panics
/// If a slice is too short for its shape and strides, or `ldc < n`.
#[track_caller]
pub fn gemm(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    a_strides: Strides,
    b: &[f32],
    b_strides: Strides,
    beta: f32,
    c: &mut [f32],
    ldc: usize,
) {
    if m == 0 || n == 0 {
        return;
    }
    let c_len = (m - 1) * ldc + n;
    assert!(
        ldc >= n && c.len() >= c_len,
        "gemm: C of {} elements is too short for {m}×{n}, {ldc} a row",
        c.len()
    );
    if k == 0 {
        return c[..c_len].chunks_mut(ldc).for_each(|row| scale(&mut row[..n], beta));
    }
    let reach = |rows, columns, (r, s): Strides| (rows - 1) * r + (columns - 1) * s + 1;
    assert!(a.len() >= reach(m, k, a_strides), "gemm: A of {} elements is too short for {m}×{k}", a.len());
    assert!(b.len() >= reach(k, n, b_strides), "gemm: B of {} elements is too short for {k}×{n}", b.len());
    let product = Product { m, n, k, a, a_strides, b, b_strides, beta, ldc };
    if product.is_for_dots() {
        product.by_dots(&mut c[..c_len]);
    } else {
        product.by_tiles(&mut c[..c_len]);
    }
}

/// One product for each pair of offsets into `a` and `b`; the results, each m·n elements, follow one another.
///
/// # Panics
/// As [`gemm`].
#[track_caller]
pub fn gemm_batched(
    offsets: &[(usize, usize)],
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    a_strides: Strides,
    b: &[f32],
    b_strides: Strides,
) -> Vec<f32> {
    // SAFETY: all products are written, and with a beta of 0 none is read before.
    unsafe {
        filled(offsets.len() * m * n, |c| gemm_batched_to(offsets, (m, n, k), a, a_strides, b, b_strides, c))
    }
}

/// [`gemm_batched`] to where the results should stand.
#[track_caller]
pub(super) fn gemm_batched_to(
    offsets: &[(usize, usize)],
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    a_strides: Strides,
    b: &[f32],
    b_strides: Strides,
    c: &mut [f32],
) {
    assert_eq!(c.len(), offsets.len() * m * n, "gemm_batched: elements of C for {} × {m}×{n}", offsets.len());
    if m == 0 || n == 0 {
        return;
    }
    let one = |i: usize, c: &mut [f32]| {
        let (at_a, at_b) = offsets[i];
        let (a, b) = if k == 0 { (a, b) } else { (&a[at_a..], &b[at_b..]) };
        gemm(m, n, k, a, a_strides, b, b_strides, 0.0, c, n);
    };
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
}

/// The same by three loops: what the fast versions are tested against.
pub fn gemm_naive(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    a_strides: Strides,
    b: &[f32],
    b_strides: Strides,
    beta: f32,
    c: &mut [f32],
    ldc: usize,
) {
    for i in 0..m {
        for j in 0..n {
            let product = |p| {
                f64::from(a[i * a_strides.0 + p * a_strides.1])
                    * f64::from(b[p * b_strides.0 + j * b_strides.1])
            };
            let sum: f64 = (0..k).map(product).sum();
            let old = if beta == 0.0 { 0.0 } else { beta * c[i * ldc + j] };
            c[i * ldc + j] = sum as f32 + old;
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

fn scale(row: &mut [f32], beta: f32) {
    if beta == 0.0 { row.fill(0.0) } else { row.iter_mut().for_each(|x| *x *= beta) }
}

struct Product<'a> {
    m: usize,
    n: usize,
    k: usize,
    a: &'a [f32],
    a_strides: Strides,
    b: &'a [f32],
    b_strides: Strides,
    beta: f32,
    ldc: usize,
}

// ---- Tiles: C is cut into tiles of MR rows and NV vectors, which stay in registers over a whole block of k.

impl Product<'_> {
    fn by_tiles(&self, c: &mut [f32]) {
        self.by_tiles_at(level(), c)
    }

    /// The loops around the tiles. Threads outside, instruction sets inside: a closure does not inherit a function's
    /// target features.
    fn by_tiles_at(&self, level: Level, c: &mut [f32]) {
        let &Product { m, n, k, a, a_strides, b, b_strides, beta, ldc } = self;
        let (mr, nr) = dispatch_at(level, TileSize);
        let (row_panels, column_panels) = (m.div_ceil(mr), n.div_ceil(nr));
        // B is read where it lies if its rows are contiguous and few panels of A would make use of a packed one.
        let pack_b = b_strides.1 != 1 || row_panels > 8;
        // The last panel of columns is packed in any case: it may not be full, and has no more elements to read.
        let first_packed = if pack_b { 0 } else { n / nr };
        let depth = k.div_ceil(k.div_ceil(DEPTH));
        let mut packed_a = scratch(row_panels * mr * depth);
        let mut packed_b = scratch((column_panels - first_packed) * nr * depth);
        let parts = Parts::new(c);
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
                        let from = &a[panel * mr * a_strides.0 + start * a_strides.1..];
                        pack(from, (a_strides.0, a_strides.1), (mr.min(m - panel * mr), mr), to);
                    } else {
                        let first = (panel + first_packed) * nr;
                        let to = unsafe { b_parts.slice(panel * nr * depth, nr * depth) };
                        let from = &b[first * b_strides.1 + start * b_strides.0..];
                        pack(from, (b_strides.1, b_strides.0), (nr.min(n - first), nr), to);
                    }
                }
            });
            let beta = if start == 0 { beta } else { 1.0 };
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
                            // A tile is written by one task only.
                            let c = parts.at(i * ldc + j, (size.0 - 1) * ldc + size.1);
                            dispatch_at(
                                level,
                                RowOfTiles { a: panel_a, b, b_row, b_panel, depth, c, ldc, size, beta },
                            );
                        }
                    };
                    if !lying.is_empty() {
                        row(lying.clone(), &b[start * b_strides.0 + lying.start * nr..], b_strides.0, nr);
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
    pub(super) c: *mut f32,
    pub(super) ldc: usize,
    /// Rows and columns of C.
    pub(super) size: (usize, usize),
    pub(super) beta: f32,
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
/// The machine has `S`, and C is there to be written.
#[inline(always)]
unsafe fn row_of_tiles<S: Simd, const MR: usize, const NV: usize>(work: RowOfTiles) {
    let RowOfTiles { a, b, b_row, b_panel, depth, c, ldc, size: (rows, columns), beta } = work;
    let nr = NV * S::LANES;
    let last = (columns.div_ceil(nr) - 1) * b_panel;
    assert!(b.len() >= last + (depth - 1) * b_row + nr && a.len() >= MR * depth);
    for (panel, j) in (0..columns).step_by(nr).enumerate() {
        // SAFETY: just checked, and the caller's promise.
        unsafe {
            let (b, c) = (b.as_ptr().add(panel * b_panel), c.add(j));
            run_tile::<S, MR, NV>(a.as_ptr(), b, b_row, depth, c, ldc, (rows, nr.min(columns - j)), beta);
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
/// `across` and `along` are the distances in memory between neighbours and between steps.
fn pack(from: &[f32], (across, along): Strides, (count, width): (usize, usize), to: &mut [f32]) {
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
/// The machine has `S`; `depth` steps of both panels can be read, and the tile's rows and columns written.
#[inline(always)]
unsafe fn run_tile<S: Simd, const MR: usize, const NV: usize>(
    a: *const f32,
    b: *const f32,
    b_row: usize,
    depth: usize,
    c: *mut f32,
    ldc: usize,
    (rows, columns): (usize, usize),
    beta: f32,
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
                    write::<S>(c.add(i * ldc + v * S::LANES), S::LANES, sums[i][v], beta);
                }
            }
        } else {
            for i in 0..rows {
                for v in 0..NV {
                    let left = columns.saturating_sub(v * S::LANES);
                    write::<S>(c.wrapping_add(i * ldc + v * S::LANES), left, sums[i][v], beta);
                }
            }
        }
    }
}

/// c = sums + beta c, for the first `left` lanes if that is less than a vector.
///
/// # Safety
/// The machine has `S`, and those lanes of c are there.
#[inline(always)]
unsafe fn write<S: Simd>(c: *mut f32, left: usize, sums: S::V, beta: f32) {
    // SAFETY: as promised by the caller.
    unsafe {
        if left >= S::LANES {
            S::store(c, if beta == 0.0 { sums } else { S::fma(S::splat(beta), S::load(c), sums) });
        } else if left > 0 {
            S::store_part(
                c,
                left,
                if beta == 0.0 { sums } else { S::fma(S::splat(beta), S::load_part(c, left), sums) },
            );
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
        let few_rows = self.m <= 64 && self.b_strides.0 == 1;
        self.a_strides.1 == 1 && self.k >= 64 && (few_columns || few_rows)
    }

    fn by_dots(&self, c: &mut [f32]) {
        self.by_dots_at(level(), c)
    }

    fn by_dots_at(&self, level: Level, c: &mut [f32]) {
        let &Product { m, n, k, a, a_strides, b, b_strides, beta, ldc } = self;
        let columns = if b_strides.0 == 1 { None } else { Some(transposed(b, b_strides, (k, n))) };
        let (b, b_column) = columns.as_ref().map_or((b, b_strides.1), |columns| (&columns[..], k));
        let parts = Parts::new(c);
        // Tasks: blocks of rows, cut into blocks of columns too where there are few rows. 15 is divisible by 3 and 5.
        let rows_a_task = m.div_ceil(8 * threads()).next_multiple_of(15).min(240);
        let row_tasks = m.div_ceil(rows_a_task);
        let columns_a_task = if row_tasks >= 4 * threads() { n } else { n.div_ceil(4).next_multiple_of(15) };
        let task = |task: usize| {
            let (i, j) = (task % row_tasks * rows_a_task, task / row_tasks * columns_a_task);
            let size = (rows_a_task.min(m - i), columns_a_task.min(n - j));
            for start in (0..k).step_by(DOT_DEPTH) {
                let depth = DOT_DEPTH.min(k - start);
                let beta = if start == 0 { beta } else { 1.0 };
                let (a, b) = (&a[i * a_strides.0 + start..], &b[j * b_column + start..]);
                // Outputs of different tasks do not overlap.
                let c = parts.at(i * ldc + j, (size.0 - 1) * ldc + size.1);
                dispatch_at(level, Dots { a, a_row: a_strides.0, b, b_column, depth, c, ldc, size, beta });
            }
        };
        let tasks = row_tasks * n.div_ceil(columns_a_task);
        if work(m, n, k) < 2.0 * WORTH_A_THREAD { (0..tasks).for_each(task) } else { for_each(tasks, task) }
    }
}

/// The dot products of all rows of A with all columns of B, both in pieces of `depth` elements.
struct Dots<'a> {
    a: &'a [f32],
    a_row: usize,
    b: &'a [f32],
    b_column: usize,
    depth: usize,
    c: *mut f32,
    ldc: usize,
    size: (usize, usize),
    beta: f32,
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
/// The machine has `S`, and C is there to be written.
#[inline(always)]
unsafe fn all_dots<S: Simd, const R: usize>(work: Dots) {
    let Dots { a, a_row, b, b_column, depth, c, ldc, size: (m, n), beta } = work;
    assert!(a.len() >= (m - 1) * a_row + depth && b.len() >= (n - 1) * b_column + depth);
    for i in (0..m).step_by(R) {
        for j in (0..n).step_by(R) {
            let (rows, columns) = (R.min(m - i), R.min(n - j));
            let (mut x, mut y) = ([a.as_ptr(); R], [b.as_ptr(); R]);
            // SAFETY: just checked that rows and columns are there, and the caller's promise for C.
            unsafe {
                for r in 0..R {
                    // Behind the last row or column the last one is read again: no branch in the inner loop.
                    x[r] = x[r].add((i + r.min(rows - 1)) * a_row);
                    y[r] = y[r].add((j + r.min(columns - 1)) * b_column);
                }
                let sums = dots::<S, R>(x, y, depth, R * a_row);
                for r in 0..rows {
                    for s in 0..columns {
                        let to = c.add((i + r) * ldc + j + s);
                        *to = if beta == 0.0 { sums[r][s] } else { beta * *to + sums[r][s] };
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
fn transposed(b: &[f32], (row, column): Strides, (k, n): (usize, usize)) -> crate::kernels::scratch::Scratch {
    let mut columns = scratch(k * n);
    // In blocks, so that neither side jumps through memory line by line.
    for first in (0..k).step_by(16) {
        for j in 0..n {
            for p in first..k.min(first + 16) {
                columns[j * k + p] = b[p * row + j * column];
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
        let (ldc, beta) = [(n, 0.0), (n, 1.0), (n + 2, -0.5)][case / 9];
        let (a, b, c) = (numbers(m * (k + 3), 1), numbers((k + 3) * (n + 5), 2), numbers(m * ldc, 3));
        let mut want = c.clone();
        gemm_naive(m, n, k, &a, a_strides, &b, b_strides, beta, &mut want, ldc);
        let compare = |way: String, fast: &dyn Fn(&mut [f32])| {
            let mut got = c.clone();
            fast(&mut got);
            for (at, (x, y)) in got.iter().zip(&want).enumerate() {
                let ok = (x - y).abs() <= 2e-6 * (k as f32).sqrt().max(4.0);
                assert!(ok, "{way}, {m}×{n}×{k}, case {case}: {x} for {y} at {at}");
            }
        };
        compare("gemm".into(), &|c| gemm(m, n, k, &a, a_strides, &b, b_strides, beta, c, ldc));
        let product = Product { m, n, k, a: &a, a_strides, b: &b, b_strides, beta, ldc };
        for level in levels() {
            compare(format!("{level:?} tiles"), &|c| product.by_tiles_at(level, c));
            if a_strides.1 == 1 {
                compare(format!("{level:?} dots"), &|c| product.by_dots_at(level, c));
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
            let run = |threads| {
                let mut c = vec![0.0; m * n];
                with_threads(threads, || gemm(m, n, k, &a, (k, 1), &b, (n, 1), 0.0, &mut c, n));
                c
            };
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
            let c = gemm_batched(&offsets, (m, n, k), &a, (k, 1), &b, (n, 1));
            assert_eq!(c.len(), batch * m * n);
            let mut want = vec![1.0; m * n];
            for (i, got) in c.chunks(m * n).enumerate() {
                gemm_naive(m, n, k, &a[i * m * k..], (k, 1), &b, (n, 1), 0.0, &mut want, n);
                assert!(got.iter().zip(&want).all(|(x, y)| (x - y).abs() < 1e-5));
            }
        }
    }

    #[test]
    fn nothing_times_nothing() {
        let mut c = [3.0, 4.0];
        gemm(1, 2, 0, &[], (0, 1), &[], (2, 1), 0.5, &mut c, 2);
        assert_eq!(c, [1.5, 2.0]);
        gemm(0, 2, 3, &[], (3, 1), &[0.0; 6], (2, 1), 0.0, &mut [], 2);
    }

    #[test]
    #[should_panic(expected = "A of 5 elements is too short for 2×3")]
    fn a_short_slice_is_refused() {
        gemm(2, 2, 3, &[0.0; 5], (3, 1), &[0.0; 6], (2, 1), 0.0, &mut [0.0; 4], 2);
    }
}
