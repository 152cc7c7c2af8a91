//! Scaled dot product attention, softmax(q kᵀ · scale) v, that never holds the matrix of all scores: a block of queries
//! passes over the keys block by block and keeps, for each query, the highest score so far, the sum of the weights and
//! the weighted sum of the values ("online softmax": Milakov and Gimelshein 2018; FlashAttention: Dao et al. 2022).
//!
//! Everything inside is transposed, with the queries along the vector's lanes. So the softmax over the keys runs down
//! the columns and needs no sum or maximum across lanes; and no width of head wastes a lane. All products are done by
//! one small matrix kernel, `Multiply`.

use super::math::exp2_fast;
use super::memory::{self, Blank, filled};
use super::scratch::scratch;
use super::simd::{Level, Simd, Work, dispatch_at, level};
use super::threads::{Parts, for_each};
use std::f32::consts::{LN_2, LOG2_E};

/// Sizes: q is (heads, queries, width), k (heads, keys, width), v (heads, keys, `value_width`), and the result
/// (heads, queries, `value_width`). A batch counts as more heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Shape {
    pub heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub width: usize,
    pub value_width: usize,
}

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mask {
    /// All.
    #[default]
    None,
    /// Query i sees keys 0 to i.
    Causal,
}

/// How many keys of a block: their scores with a block of queries, some ten kilobytes, stay in the innermost cache.
const KEYS: usize = 64;
/// How many vectors of queries make up a block. With 8 rows that is a tile of 24 vectors.
const VECTORS: usize = 3;

/// What [`forward`] computes, spelled out. Returns the result and each query's ln Σ eˢ over its scores s.
pub fn forward_naive(
    shape: Shape,
    mask: Mask,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let Shape { heads, queries, keys, width, value_width } = shape;
    let (mut out, mut lse) = (vec![0.0; heads * queries * value_width], vec![0.0; heads * queries]);
    for i in 0..heads * queries {
        let (head, query) = (i / queries, i % queries);
        let seen = if mask == Mask::Causal { keys.min(query + 1) } else { keys };
        let row = |x: &[f32], key: usize, width: usize, at: usize| x[(head * keys + key) * width + at] as f64;
        let score = |key| {
            (0..width).map(|d| q[i * width + d] as f64 * row(k, key, width, d)).sum::<f64>() * scale as f64
        };
        let scores: Vec<f64> = (0..seen).map(score).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - highest).exp()).sum();
        lse[i] = (highest + sum.ln()) as f32;
        for d in 0..value_width {
            let term = |(key, s): (usize, &f64)| (s - highest).exp() / sum * row(v, key, value_width, d);
            out[i * value_width + d] = scores.iter().enumerate().map(term).sum::<f64>() as f32;
        }
    }
    (out, lse)
}

/// Attention, and ln Σ eˢ over the scores s of each query, (heads, queries): all that [`backward`] needs besides.
///
/// # Panics
/// If the lengths do not fit the shape.
pub fn forward(
    shape: Shape,
    mask: Mask,
    scale: f32,
    q: &[f32],
    k: &[f32],
    v: &[f32],
) -> (Vec<f32>, Vec<f32>) {
    let mut lse = vec![0.0; shape.heads * shape.queries];
    let len = lse.len() * shape.value_width;
    // SAFETY: all numbers are written.
    let out = unsafe { filled(len, |out| forward_at(level(), shape, mask, scale, [q, k, v], out, &mut lse)) };
    (out, lse)
}

fn forward_at(
    level: Level,
    shape: Shape,
    mask: Mask,
    scale: f32,
    [q, k, v]: [&[f32]; 3],
    out: &mut [Blank],
    lse: &mut [f32],
) {
    check(shape, [q.len(), k.len(), v.len(), out.len(), lse.len()]);
    let Shape { heads, queries, keys, width, value_width } = shape;
    let lanes = dispatch_at(level, Lanes);
    let blocks = queries.div_ceil(VECTORS * lanes);
    let (out, lse) = (Parts::new(out), Parts::new(lse));
    for_each(heads * blocks, |task| {
        let (head, first) = (task / blocks, task % blocks * VECTORS * lanes);
        let block = Block { level, mask, first, count: (VECTORS * lanes).min(queries - first), lanes };
        let (at, n) = (head * queries + first, block.count);
        // SAFETY: the blocks of queries do not overlap.
        let (out, lse) = unsafe { (out.slice(at * value_width, n * value_width), lse.slice(at, n)) };
        let [k, v] =
            [(k, width), (v, value_width)].map(|(x, width)| &x[head * keys * width..][..keys * width]);
        block.attend(shape, scale, [&q[at * width..][..n * width], k, v], out, lse);
    });
}

#[track_caller]
fn check(shape: Shape, found: [usize; 5]) {
    let Shape { heads, queries, keys, width, value_width } = shape;
    let lengths = [queries * width, keys * width, keys * value_width, queries * value_width, queries];
    assert_eq!(
        found,
        lengths.map(|n| heads * n),
        "attention: lengths of q, k, v, result and lse for {shape:?}"
    );
}

/// A block of queries of one head.
#[derive(Clone, Copy)]
struct Block {
    level: Level,
    mask: Mask,
    /// The first query's number in its head.
    first: usize,
    count: usize,
    lanes: usize,
}

impl Block {
    /// How many vectors the queries take.
    fn vectors(&self) -> usize {
        self.count.div_ceil(self.lanes)
    }

    /// How many keys any of the queries sees.
    fn seen(&self, keys: usize) -> usize {
        if self.mask == Mask::Causal { keys.min(self.first + self.count) } else { keys }
    }

    fn attend(&self, shape: Shape, scale: f32, [q, k, v]: [&[f32]; 3], out: &mut [Blank], lse: &mut [f32]) {
        let Shape { keys, width, value_width, .. } = shape;
        let b = self.vectors() * self.lanes;
        let (mut qt, mut p, mut ot) = (scratch(width * b), scratch(KEYS * b), scratch(value_width * b));
        // Scores in units of ln 2: e^s is then 2^score.
        self.transpose(q, width, scale * LOG2_E, &mut qt);
        ot.fill(0.0);
        let (mut highest, mut sum) = (vec![f32::NEG_INFINITY; b], vec![0.0; b]);
        let seen = self.seen(keys);
        for start in (0..seen).step_by(KEYS) {
            let n = KEYS.min(seen - start);
            let p = &mut p[..n * b];
            self.scores(&k[start * width..], width, &qt, start, p);
            let vectors = self.vectors();
            dispatch_at(self.level, Weigh { vectors, p, highest: &mut highest, sum: &mut sum, ot: &mut ot });
            // oᵀ += vᵀ pᵀ
            let v = Left { data: &v[start * value_width..], row: 1, column: value_width };
            self.multiply(v, p, n, &mut ot, value_width, true);
        }
        for (i, (out, lse)) in out.chunks_mut(value_width.max(1)).zip(&mut *lse).enumerate() {
            out.iter_mut().enumerate().for_each(|(d, out)| _ = out.write(ot[d * b + i] / sum[i]));
            *lse = (highest[i] + sum[i].log2()) * LN_2;
        }
        if seen == 0 {
            memory::fill(out, 0.0); // as PyTorch: a product over no keys
        }
    }

    /// pᵀ[key][query] for the keys from `start` on, as many as p has rows; -∞ where the mask hides a key.
    fn scores(&self, k: &[f32], width: usize, qt: &[f32], start: usize, p: &mut [f32]) {
        let b = self.vectors() * self.lanes;
        let n = p.len() / b;
        self.multiply(Left { data: k, row: width, column: 1 }, qt, width, p, n, false);
        if self.mask == Mask::Causal {
            // The queries before the key do not see it: a row's first ones.
            for (key, row) in (start..).zip(p.chunks_mut(b)) {
                row[..key.saturating_sub(self.first).min(b)].fill(f32::NEG_INFINITY);
            }
        }
    }

    /// `out` (rows, b) = or += `left` (rows, steps) · `right` (steps, b), all of whole vectors.
    fn multiply(&self, left: Left, right: &[f32], steps: usize, out: &mut [f32], rows: usize, add: bool) {
        let vectors = self.vectors();
        dispatch_at(self.level, Multiply { left, right, steps, out, rows, vectors, add });
    }

    /// x (count, width), times a factor, into xᵀ (width, b), with zeros for the queries that the last vector has too many.
    fn transpose(&self, x: &[f32], width: usize, factor: f32, xt: &mut [f32]) {
        let b = self.vectors() * self.lanes;
        xt.fill(0.0);
        for (i, x) in x.chunks(width.max(1)).enumerate() {
            x.iter().enumerate().for_each(|(d, x)| xt[d * b + i] = x * factor);
        }
    }
}

struct Lanes;

impl Work for Lanes {
    type Out = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        S::LANES
    }
}

/// A matrix of which element (i, j) is `data[i * row + j * column]`.
#[derive(Clone, Copy)]
struct Left<'a> {
    data: &'a [f32],
    row: usize,
    column: usize,
}

/// `out` (rows, vectors) = `left` (rows, steps) · `right` (steps, vectors), added to what is there if `add`.
struct Multiply<'a> {
    left: Left<'a>,
    right: &'a [f32],
    steps: usize,
    out: &'a mut [f32],
    rows: usize,
    /// The width of `right` and `out`, in vectors.
    vectors: usize,
    add: bool,
}

impl Work for Multiply<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self) {
        let width = self.vectors * S::LANES;
        assert!(self.right.len() >= self.steps * width && self.out.len() >= self.rows * width);
        let last = |n: usize, stride: usize| n.saturating_sub(1) * stride;
        let Left { data, row, column } = self.left;
        assert!(self.rows * self.steps == 0 || last(self.rows, row) + last(self.steps, column) < data.len());
        let mut row = 0;
        // SAFETY: the asserts say that all of the tiles' elements are there.
        unsafe {
            while S::MANY_REGISTERS && row + 8 <= self.rows {
                self.row_of_tiles::<S, 8>(row);
                row += 8;
            }
            while row + 4 <= self.rows {
                self.row_of_tiles::<S, 4>(row);
                row += 4;
            }
            while row < self.rows {
                self.row_of_tiles::<S, 1>(row);
                row += 1;
            }
        }
    }
}

impl Multiply<'_> {
    #[inline(always)]
    unsafe fn row_of_tiles<S: Simd, const ROWS: usize>(&mut self, row: usize) {
        let mut vector = 0;
        // SAFETY: the caller promises that the rows are there.
        unsafe {
            while vector + 3 <= self.vectors {
                self.tile::<S, ROWS, 3>(row, vector);
                vector += 3;
            }
            while vector < self.vectors {
                self.tile::<S, ROWS, 1>(row, vector);
                vector += 1;
            }
        }
    }

    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize, const VECTORS: usize>(&mut self, row: usize, vector: usize) {
        let (width, stride) = (self.vectors * S::LANES, self.left.row);
        // SAFETY: the caller promises that the tile is inside of `out`, and so are the row and the columns that make it.
        unsafe {
            let out = self.out.as_mut_ptr().add(row * width + vector * S::LANES);
            let mut sums = [[S::splat(0.0); VECTORS]; ROWS];
            if self.add {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (j, sum) in sums.iter_mut().enumerate() {
                        *sum = S::load(out.add(i * width + j * S::LANES));
                    }
                }
            }
            let mut left = self.left.data.as_ptr().wrapping_add(row * stride);
            let mut right = self.right.as_ptr().wrapping_add(vector * S::LANES);
            for _ in 0..self.steps {
                let mut b = [S::splat(0.0); VECTORS];
                for (j, b) in b.iter_mut().enumerate() {
                    *b = S::load(right.add(j * S::LANES));
                }
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = S::splat(*left.add(i * stride));
                    for (sum, b) in sums.iter_mut().zip(b) {
                        *sum = S::fma(a, b, *sum);
                    }
                }
                left = left.wrapping_add(self.left.column);
                right = right.wrapping_add(width);
            }
            for (i, sums) in sums.iter().enumerate() {
                for (j, &sum) in sums.iter().enumerate() {
                    S::store(out.add(i * width + j * S::LANES), sum);
                }
            }
        }
    }
}

/// Turns a block of scores into weights 2^(score - highest), after the highest score so far has been brought up to date
/// and what was summed with the old one is scaled down.
struct Weigh<'a> {
    vectors: usize,
    p: &'a mut [f32],
    highest: &'a mut [f32],
    sum: &'a mut [f32],
    ot: &'a mut [f32],
}

impl Work for Weigh<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: the lists have whole numbers of rows of `vectors` vectors.
        unsafe {
            match self.vectors {
                1 => self.columns::<S, 1>(),
                2 => self.columns::<S, 2>(),
                _ => self.columns::<S, 3>(),
            }
        }
    }
}

impl Weigh<'_> {
    #[inline(always)]
    unsafe fn columns<S: Simd, const N: usize>(self) {
        let b = N * S::LANES;
        let (p, rows) = (self.p.as_mut_ptr(), self.p.len() / b);
        assert!(self.highest.len() == b && self.sum.len() == b && self.vectors == N);
        // SAFETY: row < rows, j < N: inside of p, highest and sum.
        unsafe {
            let before = vectors::<S, N>(self.highest.as_ptr());
            let mut highest = before;
            let mut odd = before;
            for row in 0..rows / 2 {
                let [even_row, odd_row] = [0, 1].map(|i| vectors::<S, N>(p.add((2 * row + i) * b)));
                for j in 0..N {
                    highest[j] = S::max(highest[j], even_row[j]);
                    odd[j] = S::max(odd[j], odd_row[j]);
                }
            }
            if rows % 2 == 1 {
                let row = vectors::<S, N>(p.add((rows - 1) * b));
                (0..N).for_each(|j| odd[j] = S::max(odd[j], row[j]));
            }
            let mut rises = f32::NEG_INFINITY;
            for j in 0..N {
                highest[j] = S::max(highest[j], odd[j]);
                rises = rises.max(S::reduce_max(S::sub(highest[j], before[j])));
            }
            let mut sum = vectors::<S, N>(self.sum.as_ptr());
            if rises > 0.0 {
                let mut factor = before;
                for j in 0..N {
                    factor[j] = exp2_fast::<S>(S::sub(before[j], highest[j]));
                    sum[j] = S::mul(sum[j], factor[j]);
                    S::store(self.highest.as_mut_ptr().add(j * S::LANES), highest[j]);
                }
                for row in self.ot.chunks_exact_mut(b) {
                    for (j, &factor) in factor.iter().enumerate() {
                        let at = row.as_mut_ptr().add(j * S::LANES);
                        S::store(at, S::mul(S::load(at), factor));
                    }
                }
            }
            for row in 0..rows {
                for j in 0..N {
                    let at = p.add(row * b + j * S::LANES);
                    let weight = exp2_fast::<S>(S::sub(S::load(at), highest[j]));
                    S::store(at, weight);
                    sum[j] = S::add(sum[j], weight);
                }
            }
            for (j, &sum) in sum.iter().enumerate() {
                S::store(self.sum.as_mut_ptr().add(j * S::LANES), sum);
            }
        }
    }
}

#[inline(always)]
unsafe fn vectors<S: Simd, const N: usize>(p: *const f32) -> [S::V; N] {
    // SAFETY: the caller promises N vectors at p, and the instruction set.
    unsafe {
        let mut list = [S::splat(0.0); N];
        for (j, v) in list.iter_mut().enumerate() {
            *v = S::load(p.add(j * S::LANES));
        }
        list
    }
}

/// The gradients of q, k and v, given the results `out` and `lse` of [`forward`] and the gradient `g` of `out`. The
/// weights are computed again, block by block.
///
/// With weights P: dv = Pᵀ g, dP = g vᵀ, dS = P ∘ (dP - Σ g out), dq = dS k · scale and dk = dSᵀ q · scale.
///
/// # Panics
/// If the lengths do not fit the shape.
pub fn backward(
    shape: Shape,
    mask: Mask,
    scale: f32,
    inputs: [&[f32]; 3],
    out: &[f32],
    lse: &[f32],
    g: &[f32],
) -> [Vec<f32>; 3] {
    let [mut dq, mut dk, mut dv] = inputs.map(|x| vec![0.0; x.len()]);
    backward_at(level(), shape, mask, scale, inputs, [out, lse, g], [&mut dq, &mut dk, &mut dv]);
    [dq, dk, dv]
}

fn backward_at(
    level: Level,
    shape: Shape,
    mask: Mask,
    scale: f32,
    [q, k, v]: [&[f32]; 3],
    [out, lse, g]: [&[f32]; 3],
    [dq, dk, dv]: [&mut [f32]; 3],
) {
    check(shape, [q.len(), k.len(), v.len(), out.len(), lse.len()]);
    check(shape, [dq.len(), dk.len(), dv.len(), g.len(), lse.len()]);
    let Shape { heads, queries, keys, width, value_width } = shape;
    // A task is a head, or where there are few a part of a head's keys, with a sum of its own for dq.
    let parts = 8_usize.div_ceil(heads.max(1)).min(keys.div_ceil(KEYS)).max(1);
    let keys_of_part = keys.div_ceil(parts).next_multiple_of(KEYS);
    let mut dqs = if parts > 1 { vec![0.0; parts * dq.len()] } else { Vec::new() };
    let n = dq.len();
    {
        let dq = Parts::new(if parts > 1 { &mut dqs } else { &mut *dq });
        let (dk, dv) = (Parts::new(dk), Parts::new(dv));
        for_each(heads * parts, |task| {
            let (head, part) = (task / parts, task % parts);
            let start = (part * keys_of_part).min(keys);
            let count = keys_of_part.min(keys - start);
            // SAFETY: heads, and parts of keys, do not overlap; each part of keys has its own dq.
            let gradients = unsafe {
                [
                    dq.slice(part * n + head * queries * width, queries * width),
                    dk.slice((head * keys + start) * width, count * width),
                    dv.slice((head * keys + start) * value_width, count * value_width),
                ]
            };
            let of_keys = |x, width| part_of(x, head * keys + start, count, width);
            let of_queries = |x, width| part_of(x, head * queries, queries, width);
            HeadBackward {
                level,
                mask,
                scale,
                start,
                shape: Shape { keys: count, ..shape },
                q: of_queries(q, width),
                k: of_keys(k, width),
                v: of_keys(v, value_width),
                out: of_queries(out, value_width),
                lse: of_queries(lse, 1),
                g: of_queries(g, value_width),
            }
            .run(gradients);
        });
    }
    if parts > 1 {
        for (i, dq) in dq.iter_mut().enumerate() {
            *dq = (0..parts).map(|part| dqs[part * n + i]).sum();
        }
    }
}

fn part_of(x: &[f32], first: usize, count: usize, width: usize) -> &[f32] {
    &x[first * width..][..count * width]
}

/// The gradients through a run of keys of one head.
struct HeadBackward<'a> {
    level: Level,
    mask: Mask,
    scale: f32,
    /// The first key's number in its head.
    start: usize,
    /// Of one head, with the keys of this run.
    shape: Shape,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
    g: &'a [f32],
}

impl HeadBackward<'_> {
    fn run(&self, [dq, dk, dv]: [&mut [f32]; 3]) {
        let lanes = dispatch_at(self.level, Lanes);
        let Shape { queries, keys, width, value_width, .. } = self.shape;
        // What has the head's width along the lanes is filled up to whole vectors.
        let [wide, wide_v] = [width, value_width].map(|width| width.next_multiple_of(lanes));
        let (mut dk_sum, mut dv_sum) = (scratch(keys * wide), scratch(keys * wide_v));
        dk_sum.fill(0.0);
        dv_sum.fill(0.0);
        let most = VECTORS * lanes;
        let (mut qt, mut gt, mut dqt) =
            (scratch(width * most), scratch(value_width * most), scratch(width * most));
        let (mut rows_q, mut rows_g) = (scratch(most * wide), scratch(most * wide_v));
        let (mut p, mut ds) = (scratch(KEYS * most), scratch(KEYS * most));
        for first in (0..queries).step_by(most) {
            let count = most.min(queries - first);
            let block = Block { level: self.level, mask: self.mask, first, count, lanes };
            let b = block.vectors() * lanes;
            let (q, g) = (part_of(self.q, first, count, width), part_of(self.g, first, count, value_width));
            let (qt, gt, dqt) = (&mut qt[..width * b], &mut gt[..value_width * b], &mut dqt[..width * b]);
            block.transpose(q, width, self.scale * LOG2_E, qt);
            block.transpose(g, value_width, 1.0, gt);
            fill_up(q, width, wide, &mut rows_q);
            fill_up(g, value_width, wide_v, &mut rows_g);
            dqt.fill(0.0);
            let out = part_of(self.out, first, count, value_width);
            // The lanes without a query get weights of 2^-∞.
            let (mut lse, mut dots) = (vec![f32::INFINITY; b], vec![0.0; b]);
            for i in 0..count {
                lse[i] = self.lse[first + i] * LOG2_E;
                let row = i * value_width..(i + 1) * value_width;
                dots[i] = g[row.clone()].iter().zip(&out[row]).map(|(g, out)| g * out).sum();
            }
            let seen = block.seen(self.start + keys).saturating_sub(self.start);
            for key in (0..seen).step_by(KEYS) {
                let n = KEYS.min(seen - key);
                let (p, ds) = (&mut p[..n * b], &mut ds[..n * b]);
                let (k, v) = (&self.k[key * width..], &self.v[key * value_width..]);
                block.scores(k, width, qt, self.start + key, p);
                block.multiply(Left { data: v, row: value_width, column: 1 }, gt, value_width, ds, n, false);
                dispatch_at(self.level, WeighBackward { p, ds, lse: &lse, dots: &dots });
                // dqᵀ += kᵀ dSᵀ, dv += Pᵀ g, dk += dSᵀ q
                block.multiply(Left { data: k, row: 1, column: width }, ds, n, dqt, width, true);
                let along_width = |weights, rows: &[f32], wide, sum: &mut [f32]| {
                    let left = Left { data: weights, row: b, column: 1 };
                    let out = &mut sum[key * wide..][..n * wide];
                    let work = Multiply {
                        left,
                        right: rows,
                        steps: count,
                        out,
                        rows: n,
                        vectors: wide / lanes,
                        add: true,
                    };
                    dispatch_at(self.level, work);
                };
                along_width(p, &rows_g, wide_v, &mut dv_sum);
                along_width(ds, &rows_q, wide, &mut dk_sum);
            }
            for (i, dq) in dq[first * width..][..count * width].chunks_mut(width.max(1)).enumerate() {
                dq.iter_mut().enumerate().for_each(|(d, dq)| *dq = dqt[d * b + i] * self.scale);
            }
        }
        for (sum, wide, out, width, factor) in
            [(&dk_sum, wide, dk, width, self.scale), (&dv_sum, wide_v, dv, value_width, 1.0)]
        {
            for (out, sum) in out.chunks_mut(width.max(1)).zip(sum.chunks(wide.max(1))) {
                out.iter_mut().zip(sum).for_each(|(out, sum)| *out = sum * factor);
            }
        }
    }
}

/// Copies rows of `width` to rows of `wide` floats, with zeros at the end.
fn fill_up(x: &[f32], width: usize, wide: usize, rows: &mut [f32]) {
    for (x, row) in x.chunks(width.max(1)).zip(rows.chunks_mut(wide.max(1))) {
        row[..width].copy_from_slice(x);
        row[width..].fill(0.0);
    }
}

/// Scores `p` into weights 2^(p - lse), and the weights' gradients `ds` into those of the scores, weight · (ds - dot).
struct WeighBackward<'a> {
    p: &'a mut [f32],
    ds: &'a mut [f32],
    lse: &'a [f32],
    dots: &'a [f32],
}

impl Work for WeighBackward<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let b = self.lse.len();
        assert!(self.dots.len() == b && b.is_multiple_of(S::LANES));
        for (p, ds) in self.p.chunks_exact_mut(b).zip(self.ds.chunks_exact_mut(b)) {
            for i in (0..b).step_by(S::LANES) {
                // SAFETY: all four have b floats, a whole number of vectors.
                unsafe {
                    let (lse, dot) = (S::load(self.lse.as_ptr().add(i)), S::load(self.dots.as_ptr().add(i)));
                    let (p, ds) = (p.as_mut_ptr().add(i), ds.as_mut_ptr().add(i));
                    let weight = exp2_fast::<S>(S::sub(S::load(p), lse));
                    S::store(p, weight);
                    S::store(ds, S::mul(weight, S::sub(S::load(ds), dot)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::checks::{assert_close, numbers, same_bits, written_by};
    use crate::kernels::simd::levels;

    /// The gradients spelled out, in double precision.
    fn backward_naive(
        shape: Shape,
        mask: Mask,
        scale: f32,
        [q, k, v]: [&[f32]; 3],
        g: &[f32],
    ) -> [Vec<f32>; 3] {
        let Shape { heads, queries, keys, width, value_width } = shape;
        let (out, lse) = forward_naive(shape, mask, scale, q, k, v);
        let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| vec![0.0; x.len()]);
        for i in 0..heads * queries {
            let (head, query) = (i / queries, i % queries);
            let seen = if mask == Mask::Causal { keys.min(query + 1) } else { keys };
            let (g, out) = (part_of(g, i, 1, value_width), part_of(&out, i, 1, value_width));
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64).sum::<f64>();
            for key in head * keys..head * keys + seen {
                let (qi, kj, vj) =
                    (part_of(q, i, 1, width), part_of(k, key, 1, width), part_of(v, key, 1, value_width));
                let p = (dot(qi, kj) * scale as f64 - lse[i] as f64).exp();
                let ds = p * (dot(g, vj) - dot(g, out)) * scale as f64;
                (0..width).for_each(|d| dq[i * width + d] += (ds * kj[d] as f64) as f32);
                (0..width).for_each(|d| dk[key * width + d] += (ds * qi[d] as f64) as f32);
                (0..value_width).for_each(|d| dv[key * value_width + d] += (p * g[d] as f64) as f32);
            }
        }
        [dq, dk, dv]
    }

    const SHAPES: [[usize; 5]; 11] = [
        [1, 1, 1, 1, 1],
        [2, 3, 5, 4, 4],
        [3, 10, 6, 8, 8],
        [1, 49, 77, 16, 16],
        [2, 33, 130, 40, 40],
        [1, 100, 65, 5, 7],
        [1, 97, 200, 33, 20],
        [9, 16, 16, 8, 8],
        [2, 0, 3, 4, 4],
        [2, 3, 0, 4, 4],
        [0, 3, 3, 4, 4],
    ];

    #[test]
    fn results_and_gradients_are_the_naive_ones() {
        for [heads, queries, keys, width, value_width] in SHAPES {
            let shape = Shape { heads, queries, keys, width, value_width };
            let q = numbers(heads * queries * width, 3.0);
            let k = numbers(heads * keys * width, 2.0);
            let v = numbers(heads * keys * value_width, 1.0);
            let g = numbers(heads * queries * value_width, 1.0);
            let scale = 1.0 / (width as f32).sqrt();
            for mask in [Mask::None, Mask::Causal] {
                let (expected, expected_lse) = forward_naive(shape, mask, scale, &q, &k, &v);
                let expected = if keys == 0 { vec![0.0; expected.len()] } else { expected };
                for level in levels() {
                    let name = format!("{level:?} {mask:?} {shape:?}");
                    let mut lse = vec![9.0; expected_lse.len()];
                    let out = written_by(expected.len(), |out| {
                        forward_at(level, shape, mask, scale, [&q, &k, &v], out, &mut lse)
                    });
                    assert_close(&name, &out, &expected, 2e-6);
                    if keys == 0 {
                        continue;
                    }
                    assert_close(&name, &lse, &expected_lse, 2e-6);
                    let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|x| vec![9.0; x.len()]);
                    let saved = [&out[..], &lse, &g];
                    backward_at(level, shape, mask, scale, [&q, &k, &v], saved, [&mut dq, &mut dk, &mut dv]);
                    let expected = backward_naive(shape, mask, scale, [&q, &k, &v], &g);
                    for (name, (found, expected)) in
                        ["dq", "dk", "dv"].iter().zip([dq, dk, dv].iter().zip(&expected))
                    {
                        assert_close(&format!("{level:?} {mask:?} {shape:?} {name}"), found, expected, 5e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn large_scores_rise_late_without_overflow() {
        // The highest score comes in the last block, 400 above the first.
        let (keys, shape) = (200, Shape { heads: 1, queries: 2, keys: 200, width: 1, value_width: 1 });
        let k: Vec<f32> = (0..keys).map(|i| i as f32 * 2.0).collect();
        let (q, v) = ([1.0, -1.0], numbers(keys, 1.0));
        let (expected, _) = forward_naive(shape, Mask::None, 1.0, &q, &k, &v);
        for level in levels() {
            let mut lse = [0.0; 2];
            let out =
                written_by(2, |out| forward_at(level, shape, Mask::None, 1.0, [&q, &k, &v], out, &mut lse));
            assert_close("late", &out, &expected, 1e-5); // a score of 400 is rounded by 3e-5
        }
    }

    #[test]
    fn nan_reaches_its_query_and_no_other() {
        let shape = Shape { heads: 1, queries: 3, keys: 70, width: 2, value_width: 2 };
        let (mut q, k, v) = (numbers(6, 1.0), numbers(140, 1.0), numbers(140, 1.0));
        q[2] = f32::NAN;
        for level in levels() {
            let mut lse = [0.0; 3];
            let out =
                written_by(6, |out| forward_at(level, shape, Mask::None, 1.0, [&q, &k, &v], out, &mut lse));
            let lost: Vec<bool> = out.iter().map(|x| x.is_nan()).collect();
            assert_eq!(lost, [false, false, true, true, false, false], "{level:?}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        for heads in [1, 9] {
            let shape = Shape { heads, queries: 150, keys: 140, width: 8, value_width: 8 };
            let (q, k) = (numbers(heads * 150 * 8, 2.0), numbers(heads * 140 * 8, 1.0));
            same_bits(|| {
                let (out, lse) = forward(shape, Mask::None, 0.4, &q, &k, &k);
                let [dq, dk, dv] = backward(shape, Mask::None, 0.4, [&q, &k, &k], &out, &lse, &q);
                [out, lse, dq, dk, dv].concat()
            });
        }
    }
}
