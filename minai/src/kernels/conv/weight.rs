//! The gradient of the weight: dot products over positions.

use super::Geometry;
use super::layout::{Layout, Planes, all_taps};
use crate::kernels::scratch::scratch;
use crate::kernels::simd::{Level, Simd, Work, dispatch_at};
use crate::kernels::threads::for_each_chunk;

/// Writes the gradient of the weight to `dw`.
pub(super) fn grad_weight(level: Level, g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
    dw.fill(0.0);
    let (oh, ow) = g.out_size();
    let (c_in, c_out) = (g.c_in / g.groups, g.c_out / g.groups);
    let k = c_in * g.taps();
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
