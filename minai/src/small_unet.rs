// Owned by notebooks/18_unet.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash b36208b454bfa7b6
//! A small U-Net: residual blocks at several sizes that are told the noise level, with skip connections.

use crate::blocks::{Norms, ResnetBlock, conv3, norm_silu, zero};
use crate::time_embedding::{TimeEmbedding, time_features};

// %% notebooks/18_unet.ipynb su-config
/// The shape of a [`SmallUNet`].
#[derive(Clone, Debug, PartialEq)]
pub struct SmallUNetConfig {
    /// Channels of the images that go in.
    pub in_channels: usize,
    /// Channels of what comes out.
    pub out_channels: usize,
    /// Channels of each level, from the finest to the coarsest: multiples of 8.
    pub channels: Vec<usize>,
    /// Whether the way up reads what the way down has left. Without, it reads zeros.
    pub skips: bool,
}

impl Default for SmallUNetConfig {
    /// For images of one channel, with three levels.
    fn default() -> Self {
        SmallUNetConfig { in_channels: 1, out_channels: 1, channels: vec![16, 48, 96], skips: true }
    }
}

// %% notebooks/18_unet.ipynb su-level
use minai::conv::{Conv2d, ConvOptions};
use minai::nn::{Init, Module, Parts, Pass};
use minai::norm::GroupNorm;
use minai::tensor::Tensor;

/// A residual block, and the convolution that changes the size on the way to the next level.
#[derive(Debug)]
struct Level {
    block: ResnetBlock,
    resize: Option<Conv2d>,
}

impl Module for Level {
    fn parts(&self, parts: &mut Parts) {
        parts.module("block", &self.block);
        self.resize.iter().for_each(|conv| parts.module("resize", conv));
    }
}

// %% notebooks/18_unet.ipynb su-zero
/// A residual block that begins as its shortcut, and is told the time by a vector of this width.
fn quiet_block(init: &mut dyn Init, channels: (usize, usize), time_width: usize) -> ResnetBlock {
    let block = ResnetBlock::new(init, channels, Norms { groups: 8, eps: 1e-5 }, Some(time_width));
    zero(&block.conv2);
    block
}

// %% notebooks/18_unet.ipynb su-unet
/// A U-Net with one residual block for each level on the way down and up (Ronneberger et al. 2015; Ho et al. 2020).
#[derive(Debug)]
pub struct SmallUNet {
    config: SmallUNetConfig,
    time_embedding: TimeEmbedding,
    conv_in: Conv2d,
    down: Vec<Level>,
    middle: ResnetBlock,
    up: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// Waves of the noise level.
const WAVES: usize = 64;

/// What the blocks are told has this width.
const WIDTH: usize = 128;

// %% notebooks/18_unet.ipynb su-new
impl SmallUNet {
    /// A network of this shape: its weights are drawn if `init` is a generator.
    pub fn new(init: &mut dyn Init, config: &SmallUNetConfig) -> Self {
        let (c, last) = (&config.channels, config.channels.len() - 1);
        let halve = ConvOptions { stride: 2, padding: 1, ..ConvOptions::default() };
        let mut down = |i: usize| Level {
            block: quiet_block(init, (c[i.saturating_sub(1)], c[i]), WIDTH),
            resize: (i < last).then(|| Conv2d::new(init, c[i], c[i], 3, halve)),
        };
        let down = (0..=last).map(&mut down).collect();
        let mut up = |i: usize| Level {
            block: quiet_block(init, (2 * c[i], c[i]), WIDTH),
            resize: (i > 0).then(|| conv3(init, c[i], c[i - 1])),
        };
        let up = (0..=last).rev().map(&mut up).collect();
        let conv_out = conv3(init, c[0], config.out_channels);
        zero(&conv_out);
        SmallUNet {
            time_embedding: TimeEmbedding::new(init, WAVES, WIDTH),
            conv_in: conv3(init, config.in_channels, c[0]),
            middle: quiet_block(init, (c[last], c[last]), WIDTH),
            norm_out: GroupNorm::new(8, c[0]),
            config: config.clone(),
            down,
            up,
            conv_out,
        }
    }
}

// %% notebooks/18_unet.ipynb su-parts
impl Module for SmallUNet {
    fn parts(&self, parts: &mut Parts) {
        parts.module("time_embedding", &self.time_embedding);
        parts.module("conv_in", &self.conv_in);
        for (name, levels) in [("down", &self.down), ("up", &self.up)] {
            levels.iter().enumerate().for_each(|(i, level)| parts.module(&format!("{name}.{i}"), level));
        }
        parts.module("middle", &self.middle);
        parts.module("norm_out", &self.norm_out);
        parts.module("conv_out", &self.conv_out);
    }
}

// %% notebooks/18_unet.ipynb su-run
/// The block called `name`, with what it is told.
fn run(name: &str, block: &ResnetBlock, x: &Tensor, told: &Tensor, pass: &mut Pass) -> Tensor {
    pass.scope(name, block, &[x], |pass| block.forward_at(x, Some(told), pass))
}

// %% notebooks/18_unet.ipynb su-check
#[track_caller]
fn check_size(x: &Tensor, levels: usize) {
    let unit = 1 << (levels - 1);
    let fits = matches!(x.shape(), &[_, _, h, w] if h % unit == 0 && w % unit == 0);
    assert!(fits, "SmallUNet: x of shape {:?}; height and width must be multiples of {unit}", x.shape());
}

// %% notebooks/18_unet.ipynb su-up
use minai::activation::silu;
use minai::pool::upsample_nearest;
use minai::tensor::cat;

impl SmallUNet {
    /// One level on the way up, with what the same level has left on the way down.
    fn way_up(
        &self,
        i: usize,
        level: &Level,
        (x, skip): (&Tensor, &Tensor),
        told: &Tensor,
        pass: &mut Pass,
    ) -> Tensor {
        let skip = if self.config.skips { skip.clone() } else { Tensor::zeros(skip.shape()) };
        let x = run(&format!("up.{i}.block"), &level.block, &cat(&[x, &skip], 1), told, pass);
        match &level.resize {
            Some(conv) => pass.call(&format!("up.{i}.resize"), conv, &upsample_nearest(&x, 2)),
            None => x,
        }
    }
}

// %% notebooks/18_unet.ipynb su-forward
impl SmallUNet {
    /// x (n, in_channels, h, w), and what the blocks are told (n, 128), to (n, out_channels, h, w). See
    /// [`embed`](Self::embed).
    ///
    /// # Panics
    /// If the images can't be halved for each level but the first.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, told: &Tensor, pass: &mut Pass) -> Tensor {
        check_size(x, self.down.len());
        let (told, mut saved) = (silu(told), vec![]);
        let mut x = pass.call("conv_in", &self.conv_in, x);
        for (i, level) in self.down.iter().enumerate() {
            x = run(&format!("down.{i}.block"), &level.block, &x, &told, pass);
            saved.push(x.clone());
            x = level.resize.iter().fold(x, |x, conv| pass.call(&format!("down.{i}.resize"), conv, &x));
        }
        x = run("middle", &self.middle, &x, &told, pass);
        for (i, level) in self.up.iter().enumerate() {
            x = self.way_up(i, level, (&x, &saved.pop().expect("one for each level")), &told, pass);
        }
        let x = norm_silu("norm_out", &self.norm_out, &x, pass);
        pass.call("conv_out", &self.conv_out, &x)
    }
}

// %% notebooks/18_unet.ipynb su-predict
use minai::diffusion::NoisePredictor;
use minai::tensor::elements;

impl SmallUNet {
    /// What the blocks are told of the noise levels σ (n): (n, 128).
    pub fn embed(&self, sigma: &Tensor, pass: &mut Pass) -> Tensor {
        let times: Vec<f32> = elements(&sigma.data).iter().map(|sigma| 250.0 * sigma.ln()).collect();
        pass.call("time_embedding", &self.time_embedding, &time_features(&times, WAVES, true, 0.0))
    }
}

impl NoisePredictor for SmallUNet {
    fn predict_noise(&self, x: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor {
        let told = self.embed(sigma, pass);
        self.forward(x, &told, pass)
    }
}
