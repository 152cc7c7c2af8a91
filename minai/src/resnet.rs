// Owned by notebooks/14_resnet.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash df6f28e5cdd394a4
//! Residual networks (He et al. 2015, <https://arxiv.org/abs/1512.03385>).

// %% notebooks/14_resnet.ipynb re-conv
use minai::activation::LeakyRelu;
use minai::conv::{Conv2d, ConvOptions};
use minai::generator::Generator;
use minai::nn::{Layer, Module, Parts, Pass};
use minai::norm::BatchNorm2d;
use minai::tensor::Tensor;

/// The activation of all layers here: below zero, a tenth.
const LEAKY: LeakyRelu = LeakyRelu { slope: 0.1 };

/// A convolution without bias and a batch norm, then perhaps a leaky relu.
#[derive(Debug)]
pub struct ConvNorm {
    /// Moves over the image.
    pub conv: Conv2d,
    /// Brings each channel to one scale.
    pub norm: BatchNorm2d,
    /// What comes last, if anything.
    pub activation: Option<LeakyRelu>,
}

// %% notebooks/14_resnet.ipynb re-conv-new
impl ConvNorm {
    /// With a leaky relu. The kernel has three rows and columns; `stride` 2 halves the image.
    pub fn new(rng: &mut Generator, c_in: usize, c_out: usize, stride: usize) -> Self {
        ConvNorm { activation: Some(LEAKY), ..Self::linear(rng, c_in, c_out, stride) }
    }

    /// Without activation.
    pub fn linear(rng: &mut Generator, c_in: usize, c_out: usize, stride: usize) -> Self {
        let options = ConvOptions { stride, padding: 1, ..ConvOptions::default() };
        let conv = Conv2d::without_bias(rng, c_in, c_out, 3, options);
        ConvNorm { conv, norm: BatchNorm2d::new(c_out), activation: None }
    }
}

// %% notebooks/14_resnet.ipynb re-conv-layer
impl Module for ConvNorm {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv", &self.conv);
        parts.module("norm", &self.norm);
    }
}

impl Layer for ConvNorm {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let x = pass.call("conv", &self.conv, x);
        let x = pass.call("norm", &self.norm, &x);
        self.activation.iter().fold(x, |x, activation| pass.call("activation", activation, &x))
    }
}

// %% notebooks/14_resnet.ipynb re-pool
/// The mean of each channel: (n, c, h, w) becomes (n, c), whatever the size of the image (Lin, Chen and Yan 2013).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GlobalAveragePool;

impl Module for GlobalAveragePool {
    fn parts(&self, _: &mut Parts) {}
}

impl Layer for GlobalAveragePool {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        x.mean([2, 3])
    }
}

// %% notebooks/14_resnet.ipynb re-block
use minai::kernels::pool::Partial;
use minai::pool::{Pool, avg_pool2d};

/// A residual block: the activation of shortcut(x) + f(x), where f is two convolutions.
#[derive(Debug)]
pub struct ResBlock {
    /// Three by three, from the channels of x to those of the result.
    pub first: ConvNorm,
    /// Three by three, with the stride, and without activation.
    pub second: ConvNorm,
    /// One by one, from the channels of x to those of the result; none if they are equally many.
    pub identity: Option<Conv2d>,
    /// What comes after the addition.
    pub activation: LeakyRelu,
    /// 1, or 2 to halve the image.
    pub stride: usize,
}

// %% notebooks/14_resnet.ipynb re-block-new
impl ResBlock {
    /// From (n, `c_in`, h, w) to (n, `c_out`, h / stride, w / stride), rounded up.
    pub fn new(rng: &mut Generator, c_in: usize, c_out: usize, stride: usize) -> Self {
        let first = ConvNorm::new(rng, c_in, c_out, 1);
        let second = ConvNorm::linear(rng, c_out, c_out, stride);
        let identity = (c_in != c_out).then(|| Conv2d::new(rng, c_in, c_out, 1, ConvOptions::default()));
        ResBlock { first, second, identity, activation: LEAKY, stride }
    }
}

// %% notebooks/14_resnet.ipynb re-block-parts
impl Module for ResBlock {
    fn parts(&self, parts: &mut Parts) {
        parts.module("first", &self.first);
        parts.module("second", &self.second);
        if let Some(identity) = &self.identity {
            parts.module("identity", identity);
        }
    }
}

// %% notebooks/14_resnet.ipynb re-block-layer
impl Layer for ResBlock {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let change = pass.call("first", &self.first, x);
        let change = pass.call("second", &self.second, &change);
        let mut shortcut = x.clone();
        if self.stride > 1 {
            // Of an odd number of pixels the last one stands for itself: the convolution rounds up as well.
            shortcut = avg_pool2d(x, self.stride, Pool { partial: Partial::Keep, ..Pool::default() });
        }
        if let Some(identity) = &self.identity {
            shortcut = pass.call("identity", identity, &shortcut);
        }
        pass.call("activation", &self.activation, &(shortcut + change))
    }
}

// %% notebooks/14_resnet.ipynb re-net
use minai::nn::{Flatten, Linear, Sequential};

/// A residual block for each number of channels: all halve the image except the first. The image must then be a
/// single pixel. At the end stand scores of `classes` classes.
pub fn resnet(rng: &mut Generator, c_in: usize, channels: &[usize], classes: usize) -> Sequential {
    let (mut net, mut last) = (Sequential::new(), c_in);
    for (i, &channels) in channels.iter().enumerate() {
        net = net.add(ResBlock::new(rng, last, channels, if i == 0 { 1 } else { 2 }));
        last = channels;
    }
    net.add(Flatten).add(Linear::without_bias(rng, last, classes)).add(BatchNorm2d::new(classes))
}
