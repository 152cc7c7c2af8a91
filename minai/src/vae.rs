// Owned by notebooks/34_autoencoder_kl.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 729ecf7a8dab8c8f
//! AutoencoderKL: from images to latents, an eighth as high and wide, and back.

// %% notebooks/34_autoencoder_kl.ipynb va-config
use minai::state::StateError;
use minai::weights::{self, Config};

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
    /// With what latents are multiplied for the network that denoises them (`scaling_factor`).
    pub scaling_factor: f32,
}

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

    /// Reads the sizes; what the file leaves out is as in Stable Diffusion v1.
    ///
    /// # Errors
    /// When a value is of a wrong type, is out of range, or asks for what is not supported: with its key.
    pub fn from_config(config: &Config) -> Result<Self, StateError> {
        let size = |key: &str, default, most: usize| match config.usize_or(key, default)? {
            size if (1..=most).contains(&size) => Ok(size),
            size => {
                Err(config.error(key, &format!("is {size}, where 1 to {most} is possible; correct the file")))
            }
        };
        let this = VaeConfig {
            in_channels: size("in_channels", 3, 1 << 10)?,
            out_channels: size("out_channels", 3, 1 << 10)?,
            latent_channels: size("latent_channels", 4, 1 << 10)?,
            channels: config.usizes("block_out_channels")?,
            layers: size("layers_per_block", 2, 1 << 10)?,
            groups: size("norm_num_groups", 32, 1 << 16)?,
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
        Ok(this)
    }

    /// How many pixels of an image, down or across, become one of the latents.
    pub fn factor(&self) -> usize {
        1 << (self.channels.len() - 1)
    }
}

/// An error, if the config asks for what is not built here.
fn check_kinds(config: &Config, stages: usize) -> Result<(), StateError> {
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
    let act = config.text_or("act_fn", "silu")?;
    if act != "silu" {
        return Err(config.error("act_fn", &format!("is `{act:.80}`; only `silu` can be built here")));
    }
    for key in ["mid_block_add_attention", "use_quant_conv", "use_post_quant_conv"] {
        if !config.bool_or(key, true)? {
            return Err(config.error(key, "is false; only `true` can be built here"));
        }
    }
    match ["latents_mean", "latents_std", "shift_factor"].into_iter().find(|key| config.has(key)) {
        Some(key) => Err(config.error(key, "is there; latents are only scaled here, by `scaling_factor`")),
        None => Ok(()),
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-res
use minai::conv::{Conv2d, ConvOptions};
use minai::nn::{Layer, Module, Parts, Pass};
use minai::norm::{GroupNorm, group_norm_silu};
use minai::tensor::Tensor;

/// As diffusers has it in this network.
const EPS: f32 = 1e-6;

fn norm(config: &VaeConfig, channels: usize) -> GroupNorm {
    GroupNorm { eps: EPS, ..weights::group_norm(config.groups, channels) }
}

fn norm_silu(norm: &GroupNorm, x: &Tensor, pass: &mut Pass) -> Tensor {
    group_norm_silu(x, norm.groups, &pass.get(&norm.weight), &pass.get(&norm.bias), norm.eps)
}

/// A convolution of 3 rows and columns that keeps height and width.
fn conv3(c_in: usize, c_out: usize) -> Conv2d {
    weights::conv2d(c_in, c_out, 3, ConvOptions { padding: 1, ..ConvOptions::default() })
}

fn conv1(c_in: usize, c_out: usize) -> Conv2d {
    weights::conv2d(c_in, c_out, 1, ConvOptions::default())
}

/// Twice norm, silu and convolution, added to what came in.
pub struct VaeResnet {
    norm1: GroupNorm,
    conv1: Conv2d,
    norm2: GroupNorm,
    conv2: Conv2d,
    /// Where the number of channels changes.
    conv_shortcut: Option<Conv2d>,
}

impl VaeResnet {
    /// From so many channels to so many, without numbers yet.
    pub fn new(config: &VaeConfig, c_in: usize, c_out: usize) -> Self {
        VaeResnet {
            norm1: norm(config, c_in),
            conv1: conv3(c_in, c_out),
            norm2: norm(config, c_out),
            conv2: conv3(c_out, c_out),
            conv_shortcut: (c_in != c_out).then(|| conv1(c_in, c_out)),
        }
    }
}

impl Module for VaeResnet {
    fn parts(&self, parts: &mut Parts) {
        parts.module("norm1", &self.norm1);
        parts.module("conv1", &self.conv1);
        parts.module("norm2", &self.norm2);
        parts.module("conv2", &self.conv2);
        if let Some(conv) = &self.conv_shortcut {
            parts.module("conv_shortcut", conv);
        }
    }
}

impl Layer for VaeResnet {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        // One variable, not four of one name: those would all live to the end.
        let mut h = norm_silu(&self.norm1, x, pass);
        h = pass.call("conv1", &self.conv1, &h);
        h = norm_silu(&self.norm2, &h, pass);
        h = pass.call("conv2", &self.conv2, &h);
        match &self.conv_shortcut {
            Some(conv) => pass.call("conv_shortcut", conv, x) + h,
            None => x + h,
        }
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-attention
use minai::attention::scaled_dot_product_attention;
use minai::kernels::attention::Mask;
use minai::nn::Linear;

/// Attention of one head between all places of an image, added to what came in.
pub struct VaeAttention {
    group_norm: GroupNorm,
    /// The name in state dicts, and the layer: queries, keys, values, and the way out.
    projections: [(&'static str, Linear); 4],
}

impl VaeAttention {
    /// For so many channels, without numbers yet.
    pub fn new(config: &VaeConfig, channels: usize) -> Self {
        let projections = ["to_q", "to_k", "to_v", "to_out.0"];
        VaeAttention {
            group_norm: norm(config, channels),
            projections: projections.map(|name| (name, weights::linear(channels, channels))),
        }
    }
}

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
        let (shape, [q, k, v, out]) = (x.shape(), &self.projections);
        let [n, c, h, w] = [0, 1, 2, 3].map(|axis| shape[axis] as isize);
        // (n, c, h, w) -> (n, places, c)
        let places = pass.call("group_norm", &self.group_norm, x).reshape(&[n, c, h * w]).transpose(1, 2);
        let [q, k, v] = [q, k, v].map(|(name, projection)| pass.call(name, projection, &places));
        let seen = scaled_dot_product_attention(&q, &k, &v, Mask::None);
        x + pass.call(out.0, &out.1, &seen).transpose(1, 2).reshape(&[n, c, h, w])
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-down
use minai::array::Array;
use minai::tensor::{contiguous, elements, from_op};
use ndarray::s;

/// Half as high and wide, by a convolution with stride 2 that sees a row and a column of zeros below and to the right.
pub struct VaeDownsample {
    conv: Conv2d,
}

impl VaeDownsample {
    /// For so many channels, without numbers yet.
    pub fn new(channels: usize) -> Self {
        let options = ConvOptions { stride: 2, ..ConvOptions::default() };
        VaeDownsample { conv: weights::conv2d(channels, channels, 3, options) }
    }
}

impl Module for VaeDownsample {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv", &self.conv);
    }
}

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

/// Twice as high and wide: each number becomes a square, then a convolution smooths.
pub struct VaeUpsample {
    conv: Conv2d,
}

impl VaeUpsample {
    /// For so many channels, without numbers yet.
    pub fn new(channels: usize) -> Self {
        VaeUpsample { conv: conv3(channels, channels) }
    }
}

impl Module for VaeUpsample {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv", &self.conv);
    }
}

impl Layer for VaeUpsample {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        pass.call("conv", &self.conv, &upsample_nearest(x, 2))
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-coder
/// Encoder or decoder: a convolution, layers in a row, and a norm, silu and convolution at the end.
pub struct Coder {
    conv_in: Conv2d,
    /// Under their names in state dicts: `down_blocks.0.resnets.1`.
    blocks: Vec<(String, Box<dyn Layer>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// The middle, where height and width are smallest: the only place with attention.
fn middle(config: &VaeConfig, blocks: &mut Vec<(String, Box<dyn Layer>)>, channels: usize) {
    blocks.push(("mid_block.resnets.0".into(), Box::new(VaeResnet::new(config, channels, channels))));
    blocks.push(("mid_block.attentions.0".into(), Box::new(VaeAttention::new(config, channels))));
    blocks.push(("mid_block.resnets.1".into(), Box::new(VaeResnet::new(config, channels, channels))));
}

impl Coder {
    /// From images (n, in_channels, h, w) to mean and log-variance side by side: (n, 2 latent_channels, h / 8, w / 8).
    pub fn encoder(config: &VaeConfig) -> Self {
        let (mut blocks, mut c) = (Vec::<(String, Box<dyn Layer>)>::new(), config.channels[0]);
        for (i, &channels) in config.channels.iter().enumerate() {
            for j in 0..config.layers {
                let resnet = VaeResnet::new(config, c, channels);
                blocks.push((format!("down_blocks.{i}.resnets.{j}"), Box::new(resnet)));
                c = channels;
            }
            if i + 1 < config.channels.len() {
                blocks.push((format!("down_blocks.{i}.downsamplers.0"), Box::new(VaeDownsample::new(c))));
            }
        }
        middle(config, &mut blocks, c);
        let conv_in = conv3(config.in_channels, config.channels[0]);
        let conv_out = conv3(c, 2 * config.latent_channels);
        Coder { conv_in, blocks, conv_norm_out: norm(config, c), conv_out }
    }

    /// From latents (n, latent_channels, h, w) to images (n, out_channels, 8 h, 8 w): the way back, with one residual
    /// block more in each stage.
    pub fn decoder(config: &VaeConfig) -> Self {
        let last = config.channels[config.channels.len() - 1];
        let (mut blocks, mut c) = (Vec::<(String, Box<dyn Layer>)>::new(), last);
        middle(config, &mut blocks, c);
        for (i, &channels) in config.channels.iter().rev().enumerate() {
            for j in 0..=config.layers {
                let resnet = VaeResnet::new(config, c, channels);
                blocks.push((format!("up_blocks.{i}.resnets.{j}"), Box::new(resnet)));
                c = channels;
            }
            if i + 1 < config.channels.len() {
                blocks.push((format!("up_blocks.{i}.upsamplers.0"), Box::new(VaeUpsample::new(c))));
            }
        }
        let (conv_in, conv_out) = (conv3(config.latent_channels, last), conv3(c, config.out_channels));
        Coder { conv_in, blocks, conv_norm_out: norm(config, c), conv_out }
    }
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

impl Layer for Coder {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        // Each block's input is dropped as soon as its output is there.
        let mut x = pass.call("conv_in", &self.conv_in, x);
        for (name, block) in &self.blocks {
            x = pass.call(name, block.as_ref(), &x);
        }
        x = norm_silu(&self.conv_norm_out, &x, pass);
        pass.call("conv_out", &self.conv_out, &x)
    }
}

// %% notebooks/34_autoencoder_kl.ipynb va-posterior
use minai::generator::Generator;

/// What the encoder says of an image: for each number of its latents a normal distribution.
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
pub struct AutoencoderKl {
    /// Its sizes.
    pub config: VaeConfig,
    encoder: Coder,
    decoder: Coder,
    quant_conv: Conv2d,
    post_quant_conv: Conv2d,
}

impl AutoencoderKl {
    /// Without numbers yet: load them with [`weights::load_weights`] and [`rename`], or make them with [`weights::initialize`].
    pub fn new(config: &VaeConfig) -> Self {
        let c = config.latent_channels;
        AutoencoderKl {
            config: config.clone(),
            encoder: Coder::encoder(config),
            decoder: Coder::decoder(config),
            quant_conv: conv1(2 * c, 2 * c),
            post_quant_conv: conv1(c, c),
        }
    }

    /// With what latents are multiplied for the network that denoises them, so that their variance is about 1.
    pub fn scaling_factor(&self) -> f32 {
        self.config.scaling_factor
    }

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

/// The first and the second half of the channels.
fn halves(x: &Tensor) -> [Tensor; 2] {
    let half = x.shape()[1] / 2;
    [x.slice(s![.., ..half]), x.slice(s![.., half..])]
}

impl Module for AutoencoderKl {
    fn parts(&self, parts: &mut Parts) {
        parts.module("encoder", &self.encoder);
        parts.module("decoder", &self.decoder);
        parts.module("quant_conv", &self.quant_conv);
        parts.module("post_quant_conv", &self.post_quant_conv);
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
