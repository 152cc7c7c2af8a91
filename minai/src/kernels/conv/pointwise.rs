//! Convolutions of 1×1: plain multiplications of matrices, image by image.

use super::Geometry;
use crate::kernels::gemm::{Target, View, gemm};
use crate::kernels::memory::{Blank, fill, written};

pub(super) fn is_possible(g: &Geometry) -> bool {
    let pixels = g.size.0 * g.size.1;
    g.taps() == 1 && g.stride == (1, 1) && g.padding == (0, 0) && g.groups == 1 && pixels >= 100
}

/// Pixels in one go: the multiplication packs its right side, which would be as large as a large picture.
const POINTS: usize = 1 << 14;

/// Writes weight · x + bias to `y`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [Blank]) {
    let (pixels, m) = (g.size.0 * g.size.1, g.c_out);
    let multiply = |first: usize, x: &[f32], y: Target| {
        let size = (m, POINTS.min(pixels - first), g.c_in);
        gemm(size, View::rows(weight, g.c_in), View::rows(&x[first..], pixels), y);
    };
    for (x, y) in x.chunks(g.c_in * pixels).zip(y.chunks_mut(m * pixels)) {
        let Some(bias) = bias else {
            (0..pixels).step_by(POINTS).for_each(|i| multiply(i, x, Target::fill(&mut y[i..], pixels)));
            continue;
        };
        y.chunks_mut(pixels).zip(bias).for_each(|(y, &bias)| _ = fill(y, bias));
        // SAFETY: there is a bias for each plane.
        let y = unsafe { written(y) };
        (0..pixels).step_by(POINTS).for_each(|i| multiply(i, x, Target::add(&mut y[i..], pixels)));
    }
}

/// Writes weightᵀ · dy to `dx`.
pub(super) fn grad_input(g: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [Blank]) {
    let pixels = g.size.0 * g.size.1;
    for (dy, dx) in dy.chunks(g.c_out * pixels).zip(dx.chunks_mut(g.c_in * pixels)) {
        let (weight, dy) = (View::columns(weight, g.c_in), View::rows(dy, pixels));
        gemm((g.c_in, pixels, g.c_out), weight, dy, Target::fill(dx, pixels));
    }
}
