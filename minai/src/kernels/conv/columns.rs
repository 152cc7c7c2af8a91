//! Convolution with the matrix of columns built (*im2col*): where there are few outputs.

use super::Geometry;
use super::layout::copy_row;
use crate::kernels::gemm::{Target, View, gemm};
use crate::kernels::memory::Blank;
use crate::kernels::scratch::scratch;
use crate::kernels::threads::for_each_chunk;

/// Few outputs of many weights: these are most of the work to read, and should not be copied as a whole first. With a
/// matrix of columns, the multiplication takes the weights where they lie.
pub(super) fn is_worth_it(g: &Geometry) -> bool {
    let (oh, ow) = g.out_size();
    g.groups == 1 && g.n * oh * ow <= 256 && g.w_len() >= 1 << 20
}

/// Writes weight · columns + bias to `y`.
pub(super) fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [Blank]) {
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
    let (size, to) = ((g.c_out, positions, k), Target::overwrite(&mut products, positions));
    gemm(size, View::rows(weight, k), View::rows(&columns, positions), to);
    for (i, y) in y.chunks_mut(pixels).enumerate() {
        let (image, channel) = (i / g.c_out, i % g.c_out);
        let (from, bias) =
            (&products[channel * positions + image * pixels..], bias.map_or(0.0, |bias| bias[channel]));
        y.iter_mut().zip(from).for_each(|(y, product)| _ = y.write(product + bias));
    }
}

/// Outputs of a few pixels, where sums over positions would be short.
pub(super) fn is_worth_it_for_the_weight(g: &Geometry) -> bool {
    let (oh, ow) = g.out_size();
    oh * ow < 8 && g.groups == 1
}

/// dweight = gradient · columns.
pub(super) fn grad_weight(g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
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
    let size = (g.c_out, k, positions);
    gemm(size, View::rows(&rows, positions), View::rows(&columns, k), Target::overwrite(dw, k));
}
