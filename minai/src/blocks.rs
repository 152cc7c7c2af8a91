// Owned by notebooks/18_unet.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 696edff8c643d167
//! Blocks of networks for images: the residual block that is told the time, and what U-Nets and autoencoders share besides.

// %% notebooks/18_unet.ipynb bl-parts
use minai::conv::{Conv2d, ConvOptions};
use minai::nn::{Init, Layer, Linear, Module, Parts, Pass};
use minai::norm::{GroupNorm, group_norm_silu};
use minai::tensor::Tensor;

/// A convolution of 3 by 3 that keeps height and width.
pub fn conv3(init: &mut dyn Init, c_in: usize, c_out: usize) -> Conv2d {
    Conv2d::new(init, c_in, c_out, 3, ConvOptions { padding: 1, ..ConvOptions::default() })
}

/// A convolution of 1 by 1: a linear layer at each place.
pub fn conv1(init: &mut dyn Init, c_in: usize, c_out: usize) -> Conv2d {
    Conv2d::new(init, c_in, c_out, 1, ConvOptions::default())
}

/// The norm, called `name`, and silu in one operation. Hooks see the result of both.
pub fn norm_silu(name: &str, norm: &GroupNorm, x: &Tensor, pass: &mut Pass) -> Tensor {
    pass.scope(name, norm, &[x], |pass| {
        group_norm_silu(x, norm.groups, &pass.get(&norm.weight), &pass.get(&norm.bias), norm.eps)
    })
}

// %% notebooks/18_unet.ipynb bl-resnet
/// Two convolutions, each after a group norm and silu, and a shortcut around them. A block that is told the time adds it
/// between the convolutions.
#[derive(Debug)]
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    /// From silu of the time's embedding to a value for each channel.
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    /// The last convolution.
    pub conv2: Conv2d,
    /// Where the number of channels changes.
    conv_shortcut: Option<Conv2d>,
}

impl Module for ResnetBlock {
    fn parts(&self, parts: &mut Parts) {
        parts.module("norm1", &self.norm1);
        parts.module("conv1", &self.conv1);
        self.time_emb_proj.iter().for_each(|layer| parts.module("time_emb_proj", layer));
        parts.module("norm2", &self.norm2);
        parts.module("conv2", &self.conv2);
        self.conv_shortcut.iter().for_each(|layer| parts.module("conv_shortcut", layer));
    }
}

// %% notebooks/18_unet.ipynb bl-norms
/// The group norms of a network, which differ in their channels only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Norms {
    /// The number of groups.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f32,
}

impl Norms {
    /// The norm over images with this number of channels.
    pub fn over(self, channels: usize) -> GroupNorm {
        GroupNorm { eps: self.eps, ..GroupNorm::new(self.groups, channels) }
    }
}

// %% notebooks/18_unet.ipynb bl-norms-b
impl ResnetBlock {
    /// From `c_in` to `c_out` channels. With a `time_width`, the block is told the time by a vector of this width.
    pub fn new(
        init: &mut dyn Init,
        (c_in, c_out): (usize, usize),
        norms: Norms,
        time_width: Option<usize>,
    ) -> Self {
        ResnetBlock {
            norm1: norms.over(c_in),
            conv1: conv3(init, c_in, c_out),
            time_emb_proj: time_width.map(|width| Linear::new(init, width, c_out)),
            norm2: norms.over(c_out),
            conv2: conv3(init, c_out, c_out),
            conv_shortcut: (c_in != c_out).then(|| conv1(init, c_in, c_out)),
        }
    }
}

// %% notebooks/18_unet.ipynb bl-forward
/// Adds to each channel of `y` (n, c, h, w) a value that `layer` computes from the time (1 or n, …).
fn add_time(y: Tensor, layer: &Linear, time: &Tensor, pass: &mut Pass) -> Tensor {
    let shift = pass.call("time_emb_proj", layer, time); // (1 or n, c)
    y + shift.unsqueeze(-1).unsqueeze(-1)
}

impl ResnetBlock {
    /// From x (n, c_in, h, w), and silu of the time's embedding (1 or n, time_width), to (n, c_out, h, w).
    ///
    /// # Panics
    /// If the block needs a time and is given none, or the other way round.
    #[track_caller]
    pub fn forward_at(&self, x: &Tensor, time: Option<&Tensor>, pass: &mut Pass) -> Tensor {
        let needs_time = self.time_emb_proj.is_some();
        assert!(
            needs_time == time.is_some(),
            "ResnetBlock: needs a time: {needs_time}, has one: {}",
            !needs_time
        );
        // One variable, not several of one name: those would all live to the end.
        let mut y = norm_silu("norm1", &self.norm1, x, pass);
        y = pass.call("conv1", &self.conv1, &y);
        if let (Some(layer), Some(time)) = (&self.time_emb_proj, time) {
            y = add_time(y, layer, time, pass);
        }
        y = norm_silu("norm2", &self.norm2, &y, pass);
        y = pass.call("conv2", &self.conv2, &y);
        match &self.conv_shortcut {
            Some(conv) => y + pass.call("conv_shortcut", conv, x),
            None => y + x,
        }
    }
}

// %% notebooks/18_unet.ipynb bl-forward-b
/// A block that is not told the time.
impl Layer for ResnetBlock {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        self.forward_at(x, None, pass)
    }
}

// %% notebooks/18_unet.ipynb bl-zero
/// Sets all parameters of a layer to 0, those that wait for a file as well.
pub fn zero(layer: &dyn Module) {
    for (_, parameter) in Parts::of(layer).parameters {
        parameter.set(Tensor::zeros(parameter.shape()).data);
    }
}
