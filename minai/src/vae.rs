// Owned by notebooks/34_autoencoder_kl.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash db3eab098951a3a0
//! AutoencoderKL: from images to latents, an eighth as high and wide, and back.

// %% notebooks/34_autoencoder_kl.ipynb va-config
use minai::io::config::{Config, Supported};
use minai::io::file::FileError;

/// The sizes of an autoencoder, as `vae/config.json` gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct VaeConfig {
    /// Channels of the images that go in (`in_channels`).
    pub in_channels: usize,
    /// Channels of the images that come out (`out_channels`).
    pub out_channels: usize,
    /// Channels of the latents (`latent_channels`).
    pub latent_channels: usize,
    /// Channels of each stage (`block_out_channels`): between two of them, height and width are halved.
    pub channels: Vec<usize>,
    /// Residual blocks of a stage of the encoder (`layers_per_block`); the decoder's have one more.
    pub layers: usize,
    /// Into how many groups the norms divide the channels (`norm_num_groups`).
    pub groups: usize,
    /// Factor applied to latents for the network that denoises them (`scaling_factor`).
    pub scaling_factor: f32,
}

// %% notebooks/34_autoencoder_kl.ipynb va-config-b
impl VaeConfig {
    /// The autoencoder of Stable Diffusion v1.
    pub fn sd15() -> Self {
        VaeConfig {
            in_channels: 3,
            out_channels: 3,
            latent_channels: 4,
            channels: vec![128, 256, 512, 512],
            layers: 2,
            groups: 32,
            scaling_factor: 0.18215,
        }
    }

    /// How many pixels of an image, down or across, become one of the latents.
    pub fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-kinds
const UNKNOWN: &str =
    "this autoencoder does not do; it reads the configs of Stable Diffusion v1 and their like";

/// What the files may also say, and the only value of each that this autoencoder knows.
const SUPPORTED: [(&str, Supported); 7] = [
    ("act_fn", Supported::Text("silu")),
    ("mid_block_add_attention", Supported::Bool(true)),
    ("use_quant_conv", Supported::Bool(true)),
    ("use_post_quant_conv", Supported::Bool(true)),
    ("latents_mean", Supported::Unset),
    ("latents_std", Supported::Unset),
    ("shift_factor", Supported::Unset),
];

// %% notebooks/34_autoencoder_kl.ipynb va-kinds-b
/// An error, if a stage is of a kind that is not built here.
fn check_kinds(config: &Config, stages: usize) -> Result<(), FileError> {
    for (key, kind) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
        let kinds = config.texts(key)?;
        if let Some(other) = kinds.iter().find(|&found| found != kind) {
            return Err(config.error(key, &format!("has `{other:.80}`; only `{kind}` can be built here")));
        }
        if kinds.len() != stages {
            let what =
                format!("has {} entries, `block_out_channels` has {stages}; correct the file", kinds.len());
            return Err(config.error(key, &what));
        }
    }
    Ok(())
}

// %% notebooks/34_autoencoder_kl.ipynb va-from
impl VaeConfig {
    /// Reads the sizes; what the file leaves out is as in Stable Diffusion v1.
    ///
    /// # Errors
    /// When a value is of a wrong type, is out of range, or asks for what is not supported: with its key.
    pub fn from_config(config: &Config) -> Result<Self, FileError> {
        let this = VaeConfig {
            in_channels: config.size_or("in_channels", 3, 1 << 10)?,
            out_channels: config.size_or("out_channels", 3, 1 << 10)?,
            latent_channels: config.size_or("latent_channels", 4, 1 << 10)?,
            channels: config.usizes("block_out_channels")?,
            layers: config.size_or("layers_per_block", 2, 1 << 10)?,
            groups: config.size_or("norm_num_groups", 32, 1 << 16)?,
            scaling_factor: config.f64_or("scaling_factor", 0.18215)? as f32,
        };
        let (channels, groups) = (&this.channels, this.groups);
        let possible = |&c: &usize| (1..=1 << 16).contains(&c) && c.is_multiple_of(groups);
        if !(1..=8).contains(&channels.len()) || !channels.iter().all(possible) {
            let what =
                format!("is {channels:.80?}, where 1 to 8 multiples of `norm_num_groups`, {groups}, belong");
            return Err(config.error("block_out_channels", &what));
        }
        if !(1e-6..1e6).contains(&this.scaling_factor) {
            let what = format!("is {}, where a positive number belongs", this.scaling_factor);
            return Err(config.error("scaling_factor", &what));
        }
        check_kinds(config, this.channels.len())?;
        config.check(&SUPPORTED, UNKNOWN)?;
        Ok(this)
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-res
use minai::blocks::{Norms, ResnetBlock, conv1, conv3, norm_silu};
use minai::conv::{Conv2d, ConvOptions};
use minai::nn::{Init, Layer, Module, Parts, Pass};
use minai::norm::GroupNorm;
use minai::tensor::Tensor;
use minai::unet::{image_to_sequence, sequence_to_image};

/// As diffusers has them in this network.
fn norms(config: &VaeConfig) -> Norms {
    Norms { groups: config.groups, eps: 1e-6 }
}

fn resnet_block(init: &mut dyn Init, config: &VaeConfig, c_in: usize, c_out: usize) -> ResnetBlock {
    ResnetBlock::new(init, (c_in, c_out), norms(config), None)
}

// %% notebooks/34_autoencoder_kl.ipynb va-attention
use minai::attention::multi_head;
use minai::kernels::attention::Mask;
use minai::nn::Linear;

/// Attention of one head between all places of an image, added to what came in.
#[derive(Debug)]
pub struct VaeAttention {
    group_norm: GroupNorm,
    /// The name in state dicts, and the layer: queries, keys, values, and the way out.
    projections: [(&'static str, Linear); 4],
}

impl VaeAttention {
    /// For images with this number of channels.
    pub fn new(init: &mut dyn Init, config: &VaeConfig, channels: usize) -> Self {
        let projections = ["to_q", "to_k", "to_v", "to_out.0"];
        VaeAttention {
            group_norm: norms(config).over(channels),
            projections: projections.map(|name| (name, Linear::new(init, channels, channels))),
        }
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-attention-b
impl Module for VaeAttention {
    fn parts(&self, parts: &mut Parts) {
        parts.module("group_norm", &self.group_norm);
        for (name, projection) in &self.projections {
            parts.module(name, projection);
        }
    }
}

impl Layer for VaeAttention {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let ([q, k, v, out], size) = (&self.projections, (x.shape()[2], x.shape()[3]));
        let places = image_to_sequence(&pass.call("group_norm", &self.group_norm, x));
        let [q, k, v] = [q, k, v].map(|(name, projection)| pass.call(name, projection, &places));
        let seen = multi_head(&q, &k, &v, 1, Mask::None);
        x + sequence_to_image(&pass.call(out.0, &out.1, &seen), size)
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-down
use minai::array::Array;
use minai::tensor::{contiguous, elements, from_op};
use ndarray::s;

/// Half as high and wide, by a convolution with stride 2 that sees a row and a column of zeros below and to the right.
#[derive(Debug)]
pub struct VaeDownsample {
    conv: Conv2d,
}

impl VaeDownsample {
    /// For images with this number of channels.
    pub fn new(init: &mut dyn Init, channels: usize) -> Self {
        let options = ConvOptions { stride: 2, ..ConvOptions::default() };
        VaeDownsample { conv: Conv2d::new(init, channels, channels, 3, options) }
    }
}

impl Module for VaeDownsample {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv", &self.conv);
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-down-b
impl Layer for VaeDownsample {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        pass.call("conv", &self.conv, &pad_end(x))
    }
}

/// One row of zeros below and one column of zeros to the right. `x`: (n, c, h, w).
fn pad_end(x: &Tensor) -> Tensor {
    let &[n, c, h, w] = x.shape() else { panic!("pad_end: images expected, shape {:?}", x.shape()) };
    let mut padded = vec![0.0; n * c * (h + 1) * (w + 1)];
    let data = contiguous(&x.data);
    for (plane, from) in padded.chunks_mut((h + 1) * (w + 1)).zip(elements(&data).chunks(h * w)) {
        plane.chunks_mut(w + 1).zip(from.chunks(w)).for_each(|(row, from)| row[..w].copy_from_slice(from));
    }
    from_op("pad_end", Array::new(padded, &[n, c, h + 1, w + 1]), &[x], move |g, _| {
        vec![Some(Tensor::from(g).slice(s![.., .., ..h, ..w]).data)]
    })
}

// %% notebooks/34_autoencoder_kl.ipynb va-up
use minai::pool::upsample_nearest;

/// Twice as high and wide: each value becomes a square, then a convolution smooths.
#[derive(Debug)]
pub struct VaeUpsample {
    conv: Conv2d,
}

impl VaeUpsample {
    /// For images with this number of channels.
    pub fn new(init: &mut dyn Init, channels: usize) -> Self {
        VaeUpsample { conv: conv3(init, channels, channels) }
    }
}

impl Module for VaeUpsample {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv", &self.conv);
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-up-b
impl Layer for VaeUpsample {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        pass.call("conv", &self.conv, &upsample_nearest(x, 2))
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-stages
/// Layers under their names in state dicts: `down_blocks.0.resnets.1`.
type Blocks = Vec<(String, Box<dyn Layer>)>;

/// The stages of the encoder, and the channels at their end: the size is halved between two stages.
fn down_blocks(init: &mut dyn Init, config: &VaeConfig, blocks: &mut Blocks) -> usize {
    let mut c = config.channels[0];
    for (i, &channels) in config.channels.iter().enumerate() {
        for j in 0..config.layers {
            let resnet = resnet_block(init, config, c, channels);
            blocks.push((format!("down_blocks.{i}.resnets.{j}"), Box::new(resnet)));
            c = channels;
        }
        if i + 1 < config.channels.len() {
            let halve = VaeDownsample::new(init, c);
            blocks.push((format!("down_blocks.{i}.downsamplers.0"), Box::new(halve)));
        }
    }
    c
}

// %% notebooks/34_autoencoder_kl.ipynb va-stages-up
/// The stages of the decoder, from `c` channels on, and the channels at their end.
fn up_blocks(init: &mut dyn Init, config: &VaeConfig, blocks: &mut Blocks, mut c: usize) -> usize {
    for (i, &channels) in config.channels.iter().rev().enumerate() {
        for j in 0..=config.layers {
            let resnet = resnet_block(init, config, c, channels);
            blocks.push((format!("up_blocks.{i}.resnets.{j}"), Box::new(resnet)));
            c = channels;
        }
        if i + 1 < config.channels.len() {
            let double = VaeUpsample::new(init, c);
            blocks.push((format!("up_blocks.{i}.upsamplers.0"), Box::new(double)));
        }
    }
    c
}

// %% notebooks/34_autoencoder_kl.ipynb va-coder
/// Encoder or decoder: a convolution, layers in a row, and a norm, silu and convolution at the end.
#[derive(Debug)]
pub struct Coder {
    conv_in: Conv2d,
    blocks: Blocks,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Module for Coder {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv_in", &self.conv_in);
        for (name, block) in &self.blocks {
            parts.module(name, block.as_ref());
        }
        parts.module("conv_norm_out", &self.conv_norm_out);
        parts.module("conv_out", &self.conv_out);
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-coder-b
impl Layer for Coder {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        // Each block's input is dropped as soon as its output is there.
        let mut x = pass.call("conv_in", &self.conv_in, x);
        for (name, block) in &self.blocks {
            x = pass.call(name, block.as_ref(), &x);
        }
        x = norm_silu("conv_norm_out", &self.conv_norm_out, &x, pass);
        pass.call("conv_out", &self.conv_out, &x)
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-coder-new
/// The middle, where height and width are smallest: the only place with attention.
fn mid_block(init: &mut dyn Init, config: &VaeConfig, blocks: &mut Blocks, c: usize) {
    blocks.push(("mid_block.resnets.0".into(), Box::new(resnet_block(init, config, c, c))));
    blocks.push(("mid_block.attentions.0".into(), Box::new(VaeAttention::new(init, config, c))));
    blocks.push(("mid_block.resnets.1".into(), Box::new(resnet_block(init, config, c, c))));
}

impl Coder {
    /// From images (n, in_channels, h, w) to mean and log-variance side by side: (n, 2 latent_channels, h / 8, w / 8).
    pub fn encoder(init: &mut dyn Init, config: &VaeConfig) -> Self {
        let conv_in = conv3(init, config.in_channels, config.channels[0]);
        let mut blocks = Blocks::new();
        let c = down_blocks(init, config, &mut blocks);
        mid_block(init, config, &mut blocks, c);
        let conv_out = conv3(init, c, 2 * config.latent_channels);
        Coder { conv_in, blocks, conv_norm_out: norms(config).over(c), conv_out }
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-coder-new-b
impl Coder {
    /// From latents (n, latent_channels, h, w) to images (n, out_channels, 8 h, 8 w): the way back, with one residual
    /// block more in each stage.
    pub fn decoder(init: &mut dyn Init, config: &VaeConfig) -> Self {
        let last = config.channels[config.channels.len() - 1];
        let conv_in = conv3(init, config.latent_channels, last);
        let mut blocks = Blocks::new();
        mid_block(init, config, &mut blocks, last);
        let c = up_blocks(init, config, &mut blocks, last);
        let conv_out = conv3(init, c, config.out_channels);
        Coder { conv_in, blocks, conv_norm_out: norms(config).over(c), conv_out }
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-posterior
use minai::generator::Generator;

/// What the encoder says of an image: a normal distribution for each value of its latents.
#[derive(Clone, Debug)]
pub struct Posterior {
    /// (n, latent_channels, h / 8, w / 8)
    pub mean: Tensor,
    /// The variances' natural logarithms, from -30 to 20: the same shape.
    pub log_variance: Tensor,
}

impl Posterior {
    /// Latents drawn from the distribution; gradients flow to mean and log-variance (Kingma and Welling 2014).
    pub fn sample(&self, rng: &mut Generator) -> Tensor {
        let noise = Tensor::from(rng.randn(self.mean.shape()));
        &self.mean + (&self.log_variance * 0.5).exp() * noise
    }

    /// For each image, the Kullback-Leibler divergence from the standard normal distribution, in nats: (n).
    pub fn kl(&self) -> Tensor {
        let each = self.mean.powi(2) + self.log_variance.exp() - 1.0 - &self.log_variance;
        each.sum([1, 2, 3]) * 0.5
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-all
/// Stable Diffusion's autoencoder (Rombach et al. 2022): images to distributions of latents, and latents to images.
#[derive(Debug)]
pub struct AutoencoderKl {
    /// Its sizes.
    pub config: VaeConfig,
    encoder: Coder,
    decoder: Coder,
    quant_conv: Conv2d,
    post_quant_conv: Conv2d,
}

// %% notebooks/34_autoencoder_kl.ipynb va-all-b
impl AutoencoderKl {
    /// A network of these sizes: its weights are drawn if `init` is a generator, or [`Pending`](minai::weights::Pending)
    /// until a file brings them, whose names [`rename`] knows.
    pub fn new(init: &mut dyn Init, config: &VaeConfig) -> Self {
        let c = config.latent_channels;
        AutoencoderKl {
            config: config.clone(),
            encoder: Coder::encoder(init, config),
            decoder: Coder::decoder(init, config),
            quant_conv: conv1(init, 2 * c, 2 * c),
            post_quant_conv: conv1(init, c, c),
        }
    }
}

impl Module for AutoencoderKl {
    fn parts(&self, parts: &mut Parts) {
        parts.module("encoder", &self.encoder);
        parts.module("decoder", &self.decoder);
        parts.module("quant_conv", &self.quant_conv);
        parts.module("post_quant_conv", &self.post_quant_conv);
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-code
use std::fmt;

/// The first and the second half of the channels.
fn halves(x: &Tensor) -> [Tensor; 2] {
    let half = x.shape()[1] / 2;
    [x.slice(s![.., ..half]), x.slice(s![.., half..])]
}

impl AutoencoderKl {
    /// Factor applied to latents for the network that denoises them, so that their variance is about 1.
    pub fn scaling_factor(&self) -> f32 {
        self.config.scaling_factor
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-code-b
impl AutoencoderKl {
    /// What latents the images (n, in_channels, h, w), with pixels from -1 to 1, can have; not scaled.
    ///
    /// # Panics
    /// If the shape is another, or height or width are not multiples of [`VaeConfig::factor`].
    #[track_caller]
    pub fn encode(&self, images: &Tensor, pass: &mut Pass) -> Posterior {
        let (shape, c, factor) = (images.shape(), self.config.in_channels, self.config.factor());
        let whole = |&size: &usize| size > 0 && size.is_multiple_of(factor);
        let fits = shape.len() == 4 && shape[1] == c && shape[2..].iter().all(whole);
        assert!(fits, "encode: (n, {c}, height, width) in multiples of {factor} expected, shape {shape:?}");
        let moments = pass.call("encoder", &self.encoder, images);
        let moments = pass.call("quant_conv", &self.quant_conv, &moments);
        let [mean, log_variance] = halves(&moments);
        Posterior { mean, log_variance: log_variance.clamp(-30.0, 20.0) }
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-code-c
impl AutoencoderKl {
    /// The images (n, out_channels, 8 h, 8 w) of latents (n, latent_channels, h, w) that are not scaled, or scaled
    /// back: pixels from about -1 to about 1.
    ///
    /// # Panics
    /// If the shape is another.
    #[track_caller]
    pub fn decode(&self, latents: &Tensor, pass: &mut Pass) -> Tensor {
        let (shape, c) = (latents.shape(), self.config.latent_channels);
        let fits = shape.len() == 4 && shape[1] == c;
        assert!(fits, "decode: latents (n, {c}, height, width) expected, shape {shape:?}");
        let latents = pass.call("post_quant_conv", &self.post_quant_conv, latents);
        pass.call("decoder", &self.decoder, &latents)
    }
}

impl fmt::Display for AutoencoderKl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-rename
/// A file's name for a tensor as [`AutoencoderKl`] has it: older files call the attention's layers `query`, `key`, `value`
/// and `proj_attn`. Their weights have to have two axes, as in all files of diffusers; those of the original code, which
/// are convolutions of shape (c, c, 1, 1), are refused when they are loaded.
pub fn rename(name: &str) -> Option<String> {
    let mut name = name.to_owned();
    if name.contains(".attentions.") {
        for (old, new) in [("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")] {
            name = name.replace(&format!(".{old}."), &format!(".{new}."));
        }
    }
    Some(name)
}
