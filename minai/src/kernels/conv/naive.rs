//! Convolution by loops over everything: what the fast versions are tested against.

use super::Geometry;

/// [`conv2d`](super::conv2d) by loops over everything.
pub fn forward(g: &Geometry, x: &[f32], weight: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    for_all(g, |at_x, at_w, at_y, c| {
        if let Some(at_x) = at_x {
            y[at_y] += x[at_x] * weight[at_w];
        } else if let (Some(bias), None) = (bias, at_x) {
            y[at_y] = bias[c]; // said once, before the first product
        }
    });
}

/// [`conv2d_grad_input`](super::conv2d_grad_input) by loops over everything.
pub fn grad_input(g: &Geometry, dy: &[f32], weight: &[f32], dx: &mut [f32]) {
    dx.fill(0.0);
    for_all(g, |at_x, at_w, at_y, _| at_x.into_iter().for_each(|at_x| dx[at_x] += dy[at_y] * weight[at_w]));
}

/// [`conv2d_grad_weight`](super::conv2d_grad_weight) by loops over everything.
pub fn grad_weight(g: &Geometry, x: &[f32], dy: &[f32], dw: &mut [f32]) {
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
