// Owned by notebooks/08_convolutions.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 64d37e917ab4a512
//! Convolution and transposed convolution of images (n, channels, height, width).

// %% notebooks/08_convolutions.ipynb co-options
/// How a kernel moves over an image: the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvOptions {
    /// Steps between places: 1.
    pub stride: usize,
    /// Rows and columns of zeros on each side: 0.
    pub padding: usize,
    /// Steps between the weights: 1.
    pub dilation: usize,
    /// The number of groups of channels, each with weights of its own: 1.
    pub groups: usize,
}

impl Default for ConvOptions {
    fn default() -> Self {
        ConvOptions { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

// %% notebooks/08_convolutions.ipynb co-geometry
use minai::array::Array;
use minai::kernels;
use minai::kernels::conv::Geometry;
use minai::tensor::{Tensor, contiguous, elements, from_op};

/// Of images `x` and `y` before and after a convolution with a weight (channels of y, channels of x / groups, …).
fn geometry(
    ConvOptions { stride, padding, dilation, groups }: ConvOptions,
    (n, c_in, h, w): (usize, usize, usize, usize),
    c_out: usize,
    weight: &[usize],
) -> Geometry {
    let (size, kernel) = ((h, w), (weight[2], weight[3]));
    let [stride, padding, dilation] = [stride, padding, dilation].map(|both| (both, both));
    Geometry { n, c_in, size, c_out, kernel, stride, padding, dilation, groups }
}

// %% notebooks/08_convolutions.ipynb co-bias
/// The sum over all but the channels.
fn bias_gradient(g: &Array) -> Array {
    let (channels, plane) = (g.shape()[1], g.shape()[2..].iter().product::<usize>());
    let mut sums = vec![0.0_f64; channels];
    for (i, plane) in elements(g).chunks(plane.max(1)).enumerate() {
        // Rows of 8 sums: the compiler makes vectors of them.
        let mut eight = [0.0_f32; 8];
        let (whole, rest) = plane.as_chunks::<8>();
        whole.iter().for_each(|part| (0..8).for_each(|j| eight[j] += part[j]));
        sums[i % channels] += eight.iter().chain(rest).map(|&x| f64::from(x)).sum::<f64>();
    }
    Array::new(sums.iter().map(|&sum| sum as f32).collect(), &[channels])
}

#[track_caller]
fn check_bias(op: &str, bias: Option<&Tensor>, channels: usize) {
    if let Some(bias) = bias {
        assert!(bias.shape() == [channels], "{op}: bias of shape {:?} for {channels} channels", bias.shape());
    }
}

// %% notebooks/08_convolutions.ipynb co-check
/// Refuses shapes that do not fit.
#[track_caller]
fn check_conv(x: &Tensor, weight: &Tensor, options: ConvOptions) {
    let (x, weight) = (x.shape(), weight.shape());
    let (&[_, c, h, w], &[out, per_group, kh, kw]) = (x, weight) else {
        panic!("conv2d: shapes {x:?} and {weight:?}, four axes each expected")
    };
    let ConvOptions { stride, padding, dilation, groups } = options;
    let divides = groups > 0 && per_group * groups == c && out.is_multiple_of(groups);
    let inside = |size: usize, kernel: usize| kernel > 0 && dilation * (kernel - 1) < size + 2 * padding;
    let fits = divides && stride * dilation > 0 && inside(h, kh) && inside(w, kw);
    assert!(fits, "conv2d: weight of shape {weight:?} for x of shape {x:?} with {options:?}");
}

/// The planes (h, w) of y with each channel's bias added.
fn add_bias(y: &mut [f32], plane: usize, bias: &Tensor) {
    let planes = y.chunks_mut(plane).zip(bias.data.iter().cycle());
    planes.for_each(|(plane, bias)| plane.iter_mut().for_each(|y| *y += bias));
}

// %% notebooks/08_convolutions.ipynb co-conv
/// Convolution of `x` (n, c, h, w) with `weight` (channels, c / groups, kernel height, kernel width), and `bias`
/// (channels) added.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: ConvOptions) -> Tensor {
    check_conv(x, weight, options);
    let (s, out) = (x.shape(), weight.shape()[0]);
    check_bias("conv2d", bias, out);
    let geometry = geometry(options, (s[0], s[1], s[2], s[3]), out, weight.shape());
    let (a, b, c) = (contiguous(&x.data), contiguous(&weight.data), bias.map(|bias| contiguous(&bias.data)));
    let (oh, ow) = geometry.out_size();
    let y = kernels::conv::conv2d(&geometry, elements(&a), elements(&b), c.as_ref().map(elements));
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    from_op("conv2d", Array::new(y, &[s[0], out, oh, ow]), &inputs, move |g, needs| {
        let (dy, x, w) = (elements(&g), elements(&a), elements(&b));
        let to_x =
            needs[0].then(|| Array::new(kernels::conv::conv2d_grad_input(&geometry, dy, w), a.shape()));
        let to_w =
            needs[1].then(|| Array::new(kernels::conv::conv2d_grad_weight(&geometry, x, dy), b.shape()));
        [to_x, to_w].into_iter().chain(needs.get(2).map(|need| need.then(|| bias_gradient(&g)))).collect()
    })
}

// %% notebooks/08_convolutions.ipynb co-transpose-size
/// The height and width of a transposed convolution's result.
#[track_caller]
fn transposed_size(x: &Tensor, weight: &Tensor, options: ConvOptions) -> (usize, usize) {
    let (x, weight) = (x.shape(), weight.shape());
    let (&[_, c, h, w], &[weight_c, _, kh, kw]) = (x, weight) else {
        panic!("conv_transpose2d: shapes {x:?} and {weight:?}, four axes each expected")
    };
    let ConvOptions { stride, padding, dilation, groups } = options;
    let size = |size: usize, kernel: usize| {
        let all = size.checked_sub(1)? * stride + dilation * kernel.checked_sub(1)? + 1;
        all.checked_sub(2 * padding).filter(|&size| size > 0)
    };
    let divides = weight_c == c && groups > 0 && c.is_multiple_of(groups) && stride * dilation > 0;
    match (divides, size(h, kh), size(w, kw)) {
        (true, Some(h), Some(w)) => (h, w),
        _ => panic!("conv_transpose2d: weight of shape {weight:?} for x of shape {x:?} with {options:?}"),
    }
}

// %% notebooks/08_convolutions.ipynb co-transpose
/// Transposed convolution of `x` (n, c, h, w) with `weight` (c, channels / groups, kernel height, kernel width), and
/// `bias` (channels) added: what a convolution with these options does to gradients. The result has
/// (size - 1) · stride - 2 · padding + dilation · (kernel - 1) + 1 rows and columns. Panics if the shapes do not fit.
#[track_caller]
pub fn conv_transpose2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: ConvOptions) -> Tensor {
    let (oh, ow) = transposed_size(x, weight, options);
    let (n, out) = (x.shape()[0], weight.shape()[1] * options.groups);
    check_bias("conv_transpose2d", bias, out);
    // Of the convolution that leads from the result back to x.
    let geometry = geometry(options, (n, out, oh, ow), x.shape()[1], weight.shape());
    let (a, b) = (contiguous(&x.data), contiguous(&weight.data));
    let mut y = kernels::conv::conv2d_grad_input(&geometry, elements(&a), elements(&b));
    bias.iter().for_each(|bias| add_bias(&mut y, oh * ow, bias));
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    from_op("conv_transpose2d", Array::new(y, &[n, out, oh, ow]), &inputs, move |g, needs| {
        let (dy, x, w) = (elements(&g), elements(&a), elements(&b));
        let to_x = needs[0].then(|| Array::new(kernels::conv::conv2d(&geometry, dy, w, None), a.shape()));
        let to_w =
            needs[1].then(|| Array::new(kernels::conv::conv2d_grad_weight(&geometry, dy, x), b.shape()));
        [to_x, to_w].into_iter().chain(needs.get(2).map(|need| need.then(|| bias_gradient(&g)))).collect()
    })
}

// %% notebooks/08_convolutions.ipynb la-conv
use minai::nn::{Init, Layer, Module, Parameter, Parts, Pass, initial_bias, initial_weight};

/// A convolution of images (n, channels, height, width) with weights of its own.
#[derive(Debug)]
pub struct Conv2d {
    /// (output channels, input channels / groups, kernel, kernel)
    pub weight: Parameter,
    /// (output channels), or none.
    pub bias: Option<Parameter>,
    /// How the kernel moves.
    pub options: ConvOptions,
}

// %% notebooks/08_convolutions.ipynb la-conv-plain
#[track_caller]
fn check_groups(groups: usize, c_in: usize, c_out: usize) {
    let divides = groups > 0 && c_in.is_multiple_of(groups) && c_out.is_multiple_of(groups);
    assert!(divides, "Conv2d: {groups} groups of {c_in} input and {c_out} output channels");
}

impl Conv2d {
    /// With PyTorch's initial weights and no bias, for layers that are followed by a norm.
    ///
    /// # Panics
    /// If the groups do not divide the channels.
    #[track_caller]
    pub fn without_bias(
        init: &mut dyn Init,
        c_in: usize,
        c_out: usize,
        kernel: usize,
        options: ConvOptions,
    ) -> Self {
        check_groups(options.groups, c_in, c_out);
        let weight = initial_weight(init, &[c_out, c_in / options.groups, kernel, kernel]);
        Conv2d { weight, bias: None, options }
    }
}

// %% notebooks/08_convolutions.ipynb la-conv-new
/// The number of weights of one output channel.
fn fan_in(c_in: usize, kernel: usize, groups: usize) -> usize {
    c_in / groups * kernel * kernel
}

impl Conv2d {
    /// With PyTorch's initial weights and biases, if `init` is a generator; the kernel has `kernel` rows and columns.
    ///
    /// # Panics
    /// If the groups do not divide the channels.
    #[track_caller]
    pub fn new(init: &mut dyn Init, c_in: usize, c_out: usize, kernel: usize, options: ConvOptions) -> Self {
        let layer = Self::without_bias(init, c_in, c_out, kernel, options);
        let fan_in = fan_in(c_in, kernel, options.groups);
        Conv2d { bias: Some(initial_bias(init, c_out, fan_in)), ..layer }
    }
}

// %% notebooks/08_convolutions.ipynb la-conv-module
/// `, padding=(1, 1)`, or nothing for the usual value.
fn describe_pair(name: &str, value: usize, usual: usize) -> String {
    if value == usual { String::new() } else { format!(", {name}=({value}, {value})") }
}

impl Module for Conv2d {
    fn parts(&self, parts: &mut Parts) {
        parts.parameter("weight", &self.weight);
        if let Some(bias) = &self.bias {
            parts.parameter("bias", bias);
        }
    }

    fn describe(&self) -> String {
        let (shape, ConvOptions { stride, padding, dilation, groups }) = (self.weight.shape(), self.options);
        let [c_out, c_in, h, w] = [shape[0], shape[1] * groups, shape[2], shape[3]];
        let mut text = format!("{c_in}, {c_out}, kernel_size=({h}, {w}), stride=({stride}, {stride})");
        text += &describe_pair("padding", padding, 0);
        text += &describe_pair("dilation", dilation, 1);
        text += &if groups == 1 { String::new() } else { format!(", groups={groups}") };
        text + if self.bias.is_some() { "" } else { ", bias=False" }
    }
}

// %% notebooks/08_convolutions.ipynb la-conv-layer
use std::fmt;

impl Layer for Conv2d {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| pass.get(bias));
        conv2d(x, &pass.get(&self.weight), bias.as_ref(), self.options)
    }
}

impl fmt::Display for Conv2d {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}
