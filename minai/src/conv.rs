// Owned by notebooks/08_convolutions.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash c6463bd6bae9b6ec
//! Convolution and transposed convolution of images (n, channels, height, width).

// %% notebooks/08_convolutions.ipynb co-options
use minai::array::Array;
use minai::kernels;
use minai::kernels::conv::Geometry;
use minai::tensor::{Tensor, contiguous, elements, from_op};

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

impl ConvOptions {
    /// Of images `x` and `y` before and after a convolution with a weight (channels of y, channels of x / groups, …).
    fn geometry(
        self,
        (n, c_in, h, w): (usize, usize, usize, usize),
        c_out: usize,
        weight: &[usize],
    ) -> Geometry {
        let ConvOptions { stride, padding, dilation, groups } = self;
        Geometry {
            n,
            c_in,
            size: (h, w),
            c_out,
            kernel: (weight[2], weight[3]),
            stride: (stride, stride),
            padding: (padding, padding),
            dilation: (dilation, dilation),
            groups,
        }
    }
}

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

// %% notebooks/08_convolutions.ipynb co-conv
/// Convolution of `x` (n, c, h, w) with `weight` (channels, c / groups, kernel height, kernel width), and `bias`
/// (channels) added.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: ConvOptions) -> Tensor {
    let (&[n, c, h, w], &[out, per_group, kh, kw]) = (x.shape(), weight.shape()) else {
        panic!("conv2d: shapes {:?} and {:?}, four axes each expected", x.shape(), weight.shape())
    };
    let ConvOptions { stride, padding, dilation, groups } = options;
    let divides = groups > 0 && per_group * groups == c && out.is_multiple_of(groups);
    let inside = |size: usize, kernel: usize| kernel > 0 && dilation * (kernel - 1) < size + 2 * padding;
    let fits = divides && stride * dilation > 0 && inside(h, kh) && inside(w, kw);
    assert!(
        fits,
        "conv2d: weight of shape {:?} for x of shape {:?} with {options:?}",
        weight.shape(),
        x.shape()
    );
    check_bias("conv2d", bias, out);
    let geometry = options.geometry((n, c, h, w), out, weight.shape());
    let (a, b, bias_data) =
        (contiguous(&x.data), contiguous(&weight.data), bias.map(|bias| contiguous(&bias.data)));
    let (oh, ow) = geometry.out_size();
    let y = kernels::conv::conv2d(&geometry, elements(&a), elements(&b), bias_data.as_ref().map(elements));
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    from_op("conv2d", Array::new(y, &[n, out, oh, ow]), &inputs, move |g, needs| {
        let (g_data, a_data, b_data) = (elements(&g), elements(&a), elements(&b));
        let to_x = needs[0]
            .then(|| Array::new(kernels::conv::conv2d_grad_input(&geometry, g_data, b_data), a.shape()));
        let to_w = needs[1]
            .then(|| Array::new(kernels::conv::conv2d_grad_weight(&geometry, a_data, g_data), b.shape()));
        let to_bias = needs.get(2).map(|need| need.then(|| bias_gradient(&g)));
        [to_x, to_w].into_iter().chain(to_bias).collect()
    })
}

// %% notebooks/08_convolutions.ipynb co-transpose
/// Transposed convolution of `x` (n, c, h, w) with `weight` (c, channels / groups, kernel height, kernel width), and
/// `bias` (channels) added: what a convolution with these options does to gradients. The result has
/// (size - 1) · stride - 2 · padding + dilation · (kernel - 1) + 1 rows and columns.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn conv_transpose2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, options: ConvOptions) -> Tensor {
    let (&[n, c, h, w], &[weight_c, per_group, kh, kw]) = (x.shape(), weight.shape()) else {
        panic!("conv_transpose2d: shapes {:?} and {:?}, four axes each expected", x.shape(), weight.shape())
    };
    let ConvOptions { stride, padding, dilation, groups } = options;
    let size = |size: usize, kernel: usize| {
        let all = size.checked_sub(1)? * stride + dilation * kernel.checked_sub(1)? + 1;
        all.checked_sub(2 * padding).filter(|&size| size > 0)
    };
    let divides = weight_c == c && groups > 0 && c.is_multiple_of(groups) && stride * dilation > 0;
    let (true, Some(oh), Some(ow)) = (divides, size(h, kh), size(w, kw)) else {
        panic!(
            "conv_transpose2d: weight of shape {:?} for x of shape {:?} with {options:?}",
            weight.shape(),
            x.shape()
        )
    };
    let out = per_group * groups;
    check_bias("conv_transpose2d", bias, out);
    // Of the convolution that leads from the result back to x.
    let geometry = options.geometry((n, out, oh, ow), c, weight.shape());
    let (a, b) = (contiguous(&x.data), contiguous(&weight.data));
    let mut y = kernels::conv::conv2d_grad_input(&geometry, elements(&a), elements(&b));
    if let Some(bias) = bias {
        let planes = y.chunks_mut(oh * ow).zip(bias.data.iter().cycle());
        planes.for_each(|(plane, bias)| plane.iter_mut().for_each(|y| *y += bias));
    }
    let inputs: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    from_op("conv_transpose2d", Array::new(y, &[n, out, oh, ow]), &inputs, move |g, needs| {
        let (g_data, a_data, b_data) = (elements(&g), elements(&a), elements(&b));
        let to_x =
            needs[0].then(|| Array::new(kernels::conv::conv2d(&geometry, g_data, b_data, None), a.shape()));
        let to_w = needs[1]
            .then(|| Array::new(kernels::conv::conv2d_grad_weight(&geometry, g_data, a_data), b.shape()));
        let to_bias = needs.get(2).map(|need| need.then(|| bias_gradient(&g)));
        [to_x, to_w].into_iter().chain(to_bias).collect()
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

impl Conv2d {
    /// With PyTorch's initial weights and biases, if `init` is a generator; the kernel has `kernel` rows and columns.
    ///
    /// # Panics
    /// If the groups do not divide the channels.
    #[track_caller]
    pub fn new(init: &mut dyn Init, c_in: usize, c_out: usize, kernel: usize, options: ConvOptions) -> Self {
        let layer = Self::without_bias(init, c_in, c_out, kernel, options);
        let fan_in = c_in / options.groups * kernel * kernel;
        Conv2d { bias: Some(initial_bias(init, c_out, fan_in)), ..layer }
    }

    /// The same without a bias, for layers that are followed by a norm.
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
        let groups = options.groups;
        let divides = groups > 0 && c_in.is_multiple_of(groups) && c_out.is_multiple_of(groups);
        assert!(divides, "Conv2d: {groups} groups of {c_in} input and {c_out} output channels");
        let weight = initial_weight(init, &[c_out, c_in / groups, kernel, kernel]);
        Conv2d { weight, bias: None, options }
    }
}

// %% notebooks/08_convolutions.ipynb la-conv-module
use std::fmt;

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
