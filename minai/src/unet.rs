// Owned by notebooks/33_unet_conditional.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash ec54fa83e1acee98
//! The conditional U-Net of Stable Diffusion v1: noisy latents, a time and a text's embedding in, the noise out.

// %% notebooks/33_unet_conditional.ipynb un-config
/// What a level of the U-Net consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// Residual blocks: diffusers' `DownBlock2D` and `UpBlock2D`.
    Plain,
    /// Each residual block is followed by a spatial transformer that looks at the text: `CrossAttnDownBlock2D` and
    /// `CrossAttnUpBlock2D`.
    CrossAttention,
}

// %% notebooks/33_unet_conditional.ipynb un-config-b
/// The shape of a U-Net, as the files of Stable Diffusion v1 tell it.
#[derive(Clone, Debug, PartialEq)]
pub struct UNetConfig {
    /// Channels of the latents.
    pub in_channels: usize,
    /// Channels of the predicted noise.
    pub out_channels: usize,
    /// Channels of each level, from the finest to the coarsest.
    pub block_out_channels: Vec<usize>,
    /// The levels on the way down.
    pub down_blocks: Vec<BlockKind>,
    /// The levels on the way up: the first one is the coarsest.
    pub up_blocks: Vec<BlockKind>,
    /// Residual blocks of each level on the way down; on the way up there is one more.
    pub layers_per_block: Vec<usize>,
    /// Attention heads of each level. The files call them `attention_head_dim`, by an old mistake.
    pub heads: Vec<usize>,
    /// Transformer blocks in each spatial transformer.
    pub transformer_layers: usize,
    /// Width of the text's embedding.
    pub cross_attention_dim: usize,
    /// Groups of all group norms.
    pub norm_num_groups: usize,
    /// Added to the variance in the residual blocks' norms.
    pub norm_eps: f32,
    /// Whether the time's cosines stand before its sines.
    pub flip_sin_to_cos: bool,
    /// Of the time's slowest wave: 0 or 1.
    pub freq_shift: f64,
    /// Whether the spatial transformers begin and end with linear layers, rather than with convolutions of 1×1.
    pub use_linear_projection: bool,
}

// %% notebooks/33_unet_conditional.ipynb un-config-c
impl UNetConfig {
    /// Stable Diffusion 1.1 to 1.5: 860 million parameters.
    pub fn sd15() -> Self {
        use BlockKind::*;
        UNetConfig {
            in_channels: 4,
            out_channels: 4,
            block_out_channels: vec![320, 640, 1280, 1280],
            down_blocks: vec![CrossAttention, CrossAttention, CrossAttention, Plain],
            up_blocks: vec![Plain, CrossAttention, CrossAttention, CrossAttention],
            layers_per_block: vec![2; 4],
            heads: vec![8; 4],
            transformer_layers: 1,
            cross_attention_dim: 768,
            norm_num_groups: 32,
            norm_eps: 1e-5,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            use_linear_projection: false,
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-fixed
use minai::io::config::{Config, Supported};
use minai::io::file::FileError;

const UNKNOWN: &str = "this U-Net does not do; it reads the configs of Stable Diffusion v1 and their like";

/// What the files may also say, and the only value of each that this U-Net knows.
const SUPPORTED: [(&str, Supported); 24] = [
    ("act_fn", Supported::Text("silu")),
    ("addition_embed_type", Supported::Unset),
    ("attention_type", Supported::Text("default")),
    ("center_input_sample", Supported::Bool(false)),
    ("class_embed_type", Supported::Unset),
    ("class_embeddings_concat", Supported::Bool(false)),
    ("conv_in_kernel", Supported::Number(3.0)),
    ("conv_out_kernel", Supported::Number(3.0)),
    ("cross_attention_norm", Supported::Unset),
    ("downsample_padding", Supported::Number(1.0)),
    ("dual_cross_attention", Supported::Bool(false)),
    ("encoder_hid_dim_type", Supported::Unset),
    ("mid_block_scale_factor", Supported::Number(1.0)),
    ("mid_block_type", Supported::Text("UNetMidBlock2DCrossAttn")),
    ("num_attention_heads", Supported::Unset),
    ("num_class_embeds", Supported::Unset),
    ("only_cross_attention", Supported::Bool(false)),
    ("resnet_out_scale_factor", Supported::Number(1.0)),
    ("resnet_skip_time_act", Supported::Bool(false)),
    ("resnet_time_scale_shift", Supported::Text("default")),
    ("time_cond_proj_dim", Supported::Unset),
    ("time_embedding_act_fn", Supported::Unset),
    ("time_embedding_type", Supported::Text("positional")),
    ("timestep_post_act", Supported::Unset),
];

// %% notebooks/33_unet_conditional.ipynb un-lists
/// A size for each level, where the file has a list of them, or one for all.
fn numbers(config: &Config, key: &str, default: usize, levels: usize) -> Result<Vec<usize>, FileError> {
    match config.usizes(key) {
        Ok(list) => check_length(config, key, list, levels),
        Err(_) => Ok(vec![config.usize_or(key, default)?; levels]),
    }
}

fn check_length<T>(config: &Config, key: &str, list: Vec<T>, levels: usize) -> Result<Vec<T>, FileError> {
    match list.len() == levels {
        true => Ok(list),
        false => {
            Err(config.error(key, &format!("has {} entries, `block_out_channels` {levels}", list.len())))
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-lists-b
/// The kinds of the levels, by their names in the file: the plain one's and the other's.
fn kinds(config: &Config, key: &str, names: [&str; 2], levels: usize) -> Result<Vec<BlockKind>, FileError> {
    let kind = |name: &String| match name {
        name if name == names[0] => Ok(BlockKind::Plain),
        name if name == names[1] => Ok(BlockKind::CrossAttention),
        other => Err(config.error(key, &format!("names {other:.80}, which {UNKNOWN}"))),
    };
    let list = check_length(config, key, config.texts(key)?, levels)?;
    list.iter().map(kind).collect()
}

// %% notebooks/33_unet_conditional.ipynb un-check
/// The most levels, layers or heads that are accepted.
const LIMIT: usize = 64;

/// Why this many levels, layers or heads are too few or too many, if they are.
fn check_counts(config: &UNetConfig) -> Result<(), (&'static str, String)> {
    let levels = config.block_out_channels.len();
    if !(1..=LIMIT).contains(&levels) {
        return Err(("block_out_channels", format!("has {levels} entries, and 1 to {LIMIT} are possible")));
    }
    let layers = vec![config.transformer_layers];
    let counts = [
        ("layers_per_block", &config.layers_per_block),
        ("attention_head_dim", &config.heads),
        ("transformer_layers_per_block", &layers),
    ];
    for (key, list) in counts {
        if let Some(count) = list.iter().find(|count| !(1..=LIMIT).contains(count)) {
            return Err((key, format!("is {count}, and 1 to {LIMIT} are possible")));
        }
    }
    Ok(())
}

// %% notebooks/33_unet_conditional.ipynb un-check-divisors
/// The key whose value does not fit the others, if there is one, and why.
fn check_fit(config: &UNetConfig) -> Result<(), (&'static str, String)> {
    check_counts(config)?;
    if !(0.0..1.0).contains(&config.norm_eps) {
        return Err(("norm_eps", format!("is {}, and 0 to 1 is possible", config.norm_eps)));
    }
    if !config.freq_shift.is_finite() {
        return Err(("freq_shift", format!("is {}, where a finite number belongs", config.freq_shift)));
    }
    let groups = config.norm_num_groups;
    let divides =
        |divisor: usize, channels: usize| channels > 0 && divisor > 0 && channels.is_multiple_of(divisor);
    for (&channels, &heads) in config.block_out_channels.iter().zip(&config.heads) {
        for (key, divisor) in [("norm_num_groups", groups), ("attention_head_dim", heads)] {
            if !divides(divisor, channels) {
                return Err((key, format!("is {divisor}, which does not divide {channels} channels")));
            }
        }
    }
    match [config.in_channels, config.out_channels, config.cross_attention_dim].contains(&0) {
        true => Err(("in_channels", "or `out_channels` or `cross_attention_dim` is 0".into())),
        false => Ok(()),
    }
}

// %% notebooks/33_unet_conditional.ipynb un-from
impl UNetConfig {
    /// From diffusers' `unet/config.json`.
    ///
    /// # Errors
    /// If a key is missing or says something that this U-Net does not do: the error names the key and what it says.
    pub fn from_config(config: &Config) -> Result<Self, FileError> {
        config.check(&SUPPORTED, UNKNOWN)?;
        if config.is_null("mid_block_type") {
            return Err(
                config.error("mid_block_type", &format!("is null, no block in the middle, which {UNKNOWN}"))
            );
        }
        let block_out_channels = config.usizes("block_out_channels")?;
        let levels = block_out_channels.len();
        let each = |key: &str, default: usize| numbers(config, key, default, levels);
        let this = UNetConfig {
            in_channels: config.usize_or("in_channels", 4)?,
            out_channels: config.usize_or("out_channels", 4)?,
            down_blocks: kinds(config, "down_block_types", ["DownBlock2D", "CrossAttnDownBlock2D"], levels)?,
            up_blocks: kinds(config, "up_block_types", ["UpBlock2D", "CrossAttnUpBlock2D"], levels)?,
            layers_per_block: each("layers_per_block", 2)?,
            heads: each("attention_head_dim", 8)?,
            transformer_layers: config.usize_or("transformer_layers_per_block", 1)?,
            cross_attention_dim: config.usize_or("cross_attention_dim", 1280)?,
            norm_num_groups: config.usize_or("norm_num_groups", 32)?,
            norm_eps: config.f64_or("norm_eps", 1e-5)? as f32,
            flip_sin_to_cos: config.bool_or("flip_sin_to_cos", true)?,
            freq_shift: config.f64_or("freq_shift", 0.0)?,
            use_linear_projection: config.bool_or("use_linear_projection", false)?,
            block_out_channels,
        };
        check_fit(&this).map_err(|(key, what)| config.error(key, &what))?;
        Ok(this)
    }
}

// %% notebooks/33_unet_conditional.ipynb un-time-width
use minai::activation::silu;
use minai::array::Array;
use minai::blocks::{Norms, ResnetBlock, conv1, conv3, norm_silu};
use minai::conv::{Conv2d, ConvOptions};
use minai::nn::{Init, Layer, Linear, Module, Parts, Pass};
use minai::norm::GroupNorm;
use minai::tensor::Tensor;
use minai::time_embedding::{TimeEmbedding, time_features};

/// The width of the time's embedding.
fn time_width(config: &UNetConfig) -> usize {
    4 * config.block_out_channels[0]
}

/// The norms of the residual blocks.
fn norms(config: &UNetConfig) -> Norms {
    Norms { groups: config.norm_num_groups, eps: config.norm_eps }
}

fn resnet_block(init: &mut dyn Init, config: &UNetConfig, channels: (usize, usize)) -> ResnetBlock {
    ResnetBlock::new(init, channels, norms(config), Some(time_width(config)))
}

// %% notebooks/33_unet_conditional.ipynb un-attention
use minai::attention::multi_head;
use minai::kernels::attention::Mask;

/// Attention of several heads: queries from `x`, keys and values from `context`.
#[derive(Debug)]
struct Attention {
    heads: usize,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(init: &mut dyn Init, width: usize, context: usize, heads: usize) -> Self {
        Attention {
            heads,
            to_q: Linear::without_bias(init, width, width),
            to_k: Linear::without_bias(init, context, width),
            to_v: Linear::without_bias(init, context, width),
            to_out: Linear::new(init, width, width),
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-attention-b
impl Attention {
    /// x (n, places, width) and the context (n, tokens, its width): (n, places, width).
    fn forward(&self, x: &Tensor, context: &Tensor, pass: &mut Pass) -> Tensor {
        let q = pass.call("to_q", &self.to_q, x);
        let k = pass.call("to_k", &self.to_k, context);
        let v = pass.call("to_v", &self.to_v, context);
        let y = multi_head(&q, &k, &v, self.heads, Mask::None);
        pass.call("to_out.0", &self.to_out, &y)
    }
}

impl Module for Attention {
    fn parts(&self, parts: &mut Parts) {
        parts.module("to_q", &self.to_q);
        parts.module("to_k", &self.to_k);
        parts.module("to_v", &self.to_v);
        parts.module("to_out.0", &self.to_out);
    }
}

// %% notebooks/33_unet_conditional.ipynb un-geglu
use minai::activation::gelu;

/// The first half of the last axis times gelu of the second half (N. Shazeer, *GLU Variants Improve Transformer*, 2020).
pub fn geglu(x: &Tensor) -> Tensor {
    let half = x.shape()[x.shape().len() - 1] / 2;
    let part = |range: std::ops::Range<usize>| {
        let mut part = vec![ndarray::SliceInfoElem::from(..); x.shape().len() - 1];
        part.push(range.into());
        x.slice(part)
    };
    part(0..half) * gelu(&part(half..2 * half))
}

// %% notebooks/33_unet_conditional.ipynb un-geglu-b
/// Four times as wide inside, with GEGLU.
#[derive(Debug)]
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(init: &mut dyn Init, width: usize) -> Self {
        FeedForward { proj: Linear::new(init, width, 8 * width), out: Linear::new(init, 4 * width, width) }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-geglu-b-b
impl Module for FeedForward {
    fn parts(&self, parts: &mut Parts) {
        parts.module("net.0.proj", &self.proj);
        parts.module("net.2", &self.out);
    }
}

impl Layer for FeedForward {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let x = geglu(&pass.call("net.0.proj", &self.proj, x));
        pass.call("net.2", &self.out, &x)
    }
}

// %% notebooks/33_unet_conditional.ipynb un-block
use minai::norm::LayerNorm;

/// Self-attention, attention to the text, and a feed-forward layer, each after a layer norm and added to its input.
#[derive(Debug)]
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl Module for TransformerBlock {
    fn parts(&self, parts: &mut Parts) {
        parts.module("norm1", &self.norm1);
        parts.module("attn1", &self.attn1);
        parts.module("norm2", &self.norm2);
        parts.module("attn2", &self.attn2);
        parts.module("norm3", &self.norm3);
        parts.module("ff", &self.ff);
    }
}

// %% notebooks/33_unet_conditional.ipynb un-block-forward
/// Attention from the places `x` to the sequence `context`, under its name in the block.
fn attend(name: &str, attention: &Attention, x: &Tensor, context: &Tensor, pass: &mut Pass) -> Tensor {
    pass.scope(name, attention, &[x, context], |pass| attention.forward(x, context, pass))
}

impl TransformerBlock {
    fn new(init: &mut dyn Init, width: usize, context: usize, heads: usize) -> Self {
        TransformerBlock {
            norm1: LayerNorm::new(&[width]),
            attn1: Attention::new(init, width, width, heads),
            norm2: LayerNorm::new(&[width]),
            attn2: Attention::new(init, width, context, heads),
            norm3: LayerNorm::new(&[width]),
            ff: FeedForward::new(init, width),
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-block-forward-b
impl TransformerBlock {
    /// x (n, places, width) and the context (n, tokens, its width): (n, places, width).
    fn forward(&self, x: &Tensor, context: &Tensor, pass: &mut Pass) -> Tensor {
        let y = pass.call("norm1", &self.norm1, x);
        let x = attend("attn1", &self.attn1, &y, &y, pass) + x;
        let y = pass.call("norm2", &self.norm2, &x);
        let x = attend("attn2", &self.attn2, &y, context, pass) + x;
        let y = pass.call("norm3", &self.norm3, &x);
        pass.call("ff", &self.ff, &y) + x
    }
}

// %% notebooks/33_unet_conditional.ipynb bl-sequence
/// An image (n, c, h, w) as a sequence of its places, row by row: (n, h · w, c).
///
/// # Panics
/// If `x` has other than four axes.
#[track_caller]
pub fn image_to_sequence(x: &Tensor) -> Tensor {
    let &[n, c, h, w] = x.shape() else {
        panic!("image_to_sequence: (n, c, h, w) expected, shape {:?}", x.shape())
    };
    x.reshape((n, c, h * w)).transpose(1, 2)
}

/// A sequence of places (n, h · w, c) as an image (n, c, h, w): the way back.
///
/// # Panics
/// If `x` has other than three axes, or not h · w places.
#[track_caller]
pub fn sequence_to_image(x: &Tensor, (h, w): (usize, usize)) -> Tensor {
    let &[n, places, c] = x.shape() else {
        panic!("sequence_to_image: (n, places, c) expected, shape {:?}", x.shape())
    };
    assert!(places == h * w, "sequence_to_image: shape {:?} for an image of {h} by {w}", x.shape());
    x.transpose(1, 2).reshape((n, c, h, w))
}

// %% notebooks/33_unet_conditional.ipynb un-spatial
/// The layer before or after the transformer blocks: the same weights in two shapes.
#[derive(Debug)]
enum Projection {
    Convolution(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(init: &mut dyn Init, config: &UNetConfig, width: usize) -> Self {
        match config.use_linear_projection {
            true => Projection::Linear(Linear::new(init, width, width)),
            false => Projection::Convolution(conv1(init, width, width)),
        }
    }

    fn module(&self) -> &dyn Module {
        match self {
            Projection::Convolution(layer) => layer,
            Projection::Linear(layer) => layer,
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-transformer
/// An image as a sequence of its places for the transformer blocks, and back.
#[derive(Debug)]
struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

impl Module for SpatialTransformer {
    fn parts(&self, parts: &mut Parts) {
        parts.module("norm", &self.norm);
        parts.module("proj_in", self.proj_in.module());
        for (i, block) in self.blocks.iter().enumerate() {
            parts.module(&format!("transformer_blocks.{i}"), block);
        }
        parts.module("proj_out", self.proj_out.module());
    }
}

// %% notebooks/33_unet_conditional.ipynb un-transformer-forward
/// Added to the variance in the norms of spatial transformers, whatever the config says of other norms.
const TRANSFORMER_EPS: f32 = 1e-6;

impl SpatialTransformer {
    fn new(init: &mut dyn Init, config: &UNetConfig, width: usize, heads: usize) -> Self {
        let (layers, context) = (config.transformer_layers, config.cross_attention_dim);
        SpatialTransformer {
            norm: Norms { eps: TRANSFORMER_EPS, ..norms(config) }.over(width),
            proj_in: Projection::new(init, config, width),
            blocks: (0..layers).map(|_| TransformerBlock::new(init, width, context, heads)).collect(),
            proj_out: Projection::new(init, config, width),
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-transformer-forward-b
impl SpatialTransformer {
    /// x (n, c, h, w) and the context (n, tokens, width): (n, c, h, w).
    fn forward(&self, x: &Tensor, context: &Tensor, pass: &mut Pass) -> Tensor {
        let size = (x.shape()[2], x.shape()[3]);
        let mut y = pass.call("norm", &self.norm, x);
        y = match &self.proj_in {
            Projection::Convolution(layer) => image_to_sequence(&pass.call("proj_in", layer, &y)),
            Projection::Linear(layer) => pass.call("proj_in", layer, &image_to_sequence(&y)),
        };
        for (i, block) in self.blocks.iter().enumerate() {
            let name = format!("transformer_blocks.{i}");
            y = pass.scope(&name, block, &[&y, context], |pass| block.forward(&y, context, pass));
        }
        y = match &self.proj_out {
            Projection::Convolution(layer) => pass.call("proj_out", layer, &sequence_to_image(&y, size)),
            Projection::Linear(layer) => sequence_to_image(&pass.call("proj_out", layer, &y), size),
        };
        y + x
    }
}

// %% notebooks/33_unet_conditional.ipynb un-level
/// A level: residual blocks, each perhaps followed by a transformer, then a change of size, except at the end.
#[derive(Debug)]
struct Block {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<SpatialTransformer>,
    resample: Option<(&'static str, Conv2d)>,
}

impl Module for Block {
    fn parts(&self, parts: &mut Parts) {
        for (i, resnet) in self.resnets.iter().enumerate() {
            parts.module(&format!("resnets.{i}"), resnet);
        }
        for (i, attention) in self.attentions.iter().enumerate() {
            parts.module(&format!("attentions.{i}"), attention);
        }
        if let Some((name, conv)) = &self.resample {
            parts.module(name, conv);
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-level-layer
/// What every level reads besides its input: the time's embedding after silu, and the text's.
type Conditions<'a> = (&'a Tensor, &'a Tensor);

impl Block {
    /// A residual block from and to each of these channels.
    fn new(
        init: &mut dyn Init,
        config: &UNetConfig,
        (kind, heads): (BlockKind, usize),
        channels: &[(usize, usize)],
    ) -> Self {
        let resnets = channels.iter().map(|&channels| resnet_block(init, config, channels)).collect();
        let widths = if kind == BlockKind::Plain { &[] } else { channels };
        let attentions = widths.iter().map(|&(_, width)| SpatialTransformer::new(init, config, width, heads));
        Block { resnets, attentions: attentions.collect(), resample: None }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-level-layer-b
impl Block {
    /// The i-th residual block and what follows it.
    fn layer(&self, i: usize, x: &Tensor, (time, text): Conditions, pass: &mut Pass) -> Tensor {
        let (resnet, name) = (&self.resnets[i], format!("resnets.{i}"));
        let x = pass.scope(&name, resnet, &[x, time], |pass| resnet.forward_at(x, Some(time), pass));
        let Some(attention) = self.attentions.get(i) else { return x };
        let name = format!("attentions.{i}");
        pass.scope(&name, attention, &[&x, text], |pass| attention.forward(&x, text, pass))
    }
}

// %% notebooks/33_unet_conditional.ipynb un-resize
use minai::pool::upsample_nearest;
use minai::tensor::cat;

/// Enlarges to this size, each value to a block of equal ones: x (n, c, h, w).
fn resize_nearest(x: &Tensor, (h, w): (usize, usize)) -> Tensor {
    let (old_h, old_w) = (x.shape()[2], x.shape()[3]);
    if (h, w) == (2 * old_h, 2 * old_w) {
        return upsample_nearest(x, 2);
    }
    let rows =
        |old: usize, new: usize| Array::new((0..new).map(|i| (i * old / new) as i64).collect(), &[new]);
    x.index_select(2, &rows(old_h, h)).index_select(3, &rows(old_w, w))
}

// %% notebooks/33_unet_conditional.ipynb un-level-forward
/// What the way down leaves for the way up.
type Stack = Vec<Tensor>;

impl Block {
    /// Down a level: the result of each layer goes onto the stack as well.
    fn down(&self, x: &Tensor, conditions: Conditions, skips: &mut Stack, pass: &mut Pass) -> Tensor {
        let mut x = x.clone();
        for i in 0..self.resnets.len() {
            x = self.layer(i, &x, conditions, pass);
            skips.push(x.clone());
        }
        if let Some((name, conv)) = &self.resample {
            x = pass.call(name, conv, &x);
            skips.push(x.clone());
        }
        x
    }
}

// %% notebooks/33_unet_conditional.ipynb un-level-forward-b
impl Block {
    /// Up a level: each layer also reads what lies on top of the stack.
    fn up(&self, x: &Tensor, conditions: Conditions, skips: &mut Stack, pass: &mut Pass) -> Tensor {
        let mut x = x.clone();
        for i in 0..self.resnets.len() {
            x = cat(&[&x, &skips.pop().expect("as many as on the way down")], 1);
            x = self.layer(i, &x, conditions, pass);
        }
        if let Some((name, conv)) = &self.resample {
            // Sizes that are no multiples of 2 were rounded up on the way down: back to what they were.
            let skip = skips.last().expect("the next level's").shape();
            x = pass.call(name, conv, &resize_nearest(&x, (skip[2], skip[3])));
        }
        x
    }
}

// %% notebooks/33_unet_conditional.ipynb un-down
/// The level of this number on the way down, from the finest.
fn down_block(init: &mut dyn Init, config: &UNetConfig, level: usize) -> Block {
    let channels = &config.block_out_channels;
    let (c_in, c_out) = (channels[level.saturating_sub(1)], channels[level]);
    let resnets: Vec<_> =
        (0..config.layers_per_block[level]).map(|i| (if i == 0 { c_in } else { c_out }, c_out)).collect();
    let block = Block::new(init, config, (config.down_blocks[level], config.heads[level]), &resnets);
    let options = ConvOptions { stride: 2, padding: 1, ..ConvOptions::default() };
    let halve = || ("downsamplers.0.conv", Conv2d::new(init, c_out, c_out, 3, options));
    Block { resample: (level + 1 < channels.len()).then(halve), ..block }
}

fn mid_block(init: &mut dyn Init, config: &UNetConfig) -> Block {
    let (last, heads) = (config.block_out_channels.len() - 1, &config.heads);
    let width = config.block_out_channels[last];
    let mut block = Block::new(init, config, (BlockKind::CrossAttention, heads[last]), &[(width, width); 2]);
    block.attentions.truncate(1);
    block
}

// %% notebooks/33_unet_conditional.ipynb un-up
/// What the way down leaves on the stack: channels, the last one on top.
fn stacked_channels(config: &UNetConfig) -> Vec<usize> {
    let channels = &config.block_out_channels;
    let mut skips = vec![channels[0]];
    for (level, (&width, layers)) in channels.iter().zip(&config.layers_per_block).enumerate() {
        skips.extend(vec![width; layers + usize::from(level + 1 < channels.len())]);
    }
    skips
}

/// The level that is number `step` on the way up, from the coarsest. `skips` is what is left on the stack.
fn up_block(init: &mut dyn Init, config: &UNetConfig, step: usize, skips: &mut Vec<usize>) -> Block {
    let channels = &config.block_out_channels;
    let level = channels.len() - 1 - step;
    let (c_out, mut before) = (channels[level], channels[(level + 1).min(channels.len() - 1)]);
    let mut resnets = Vec::new();
    for _ in 0..config.layers_per_block[level] + 1 {
        resnets.push((before + skips.pop().expect("one for each"), c_out));
        before = c_out;
    }
    let block = Block::new(init, config, (config.up_blocks[step], config.heads[level]), &resnets);
    let double = || ("upsamplers.0.conv", conv3(init, c_out, c_out));
    Block { resample: (level > 0).then(double), ..block }
}

// %% notebooks/33_unet_conditional.ipynb un-unet
/// The U-Net of Stable Diffusion v1 (Rombach et al. 2022): diffusers' `UNet2DConditionModel`, with its names.
#[derive(Debug)]
pub struct UNet {
    config: UNetConfig,
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    down_blocks: Vec<Block>,
    mid_block: Block,
    up_blocks: Vec<Block>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

// %% notebooks/33_unet_conditional.ipynb un-unet-b
impl UNet {
    /// A network of this shape: its weights are drawn if `init` is a generator, or [`Pending`](minai::weights::Pending).
    pub fn new(init: &mut dyn Init, config: &UNetConfig) -> Self {
        let (levels, first) = (config.block_out_channels.len(), config.block_out_channels[0]);
        let mut skips = stacked_channels(config);
        UNet {
            conv_in: conv3(init, config.in_channels, first),
            time_embedding: TimeEmbedding::new(init, first, time_width(config)),
            down_blocks: (0..levels).map(|level| down_block(init, config, level)).collect(),
            mid_block: mid_block(init, config),
            up_blocks: (0..levels).map(|step| up_block(init, config, step, &mut skips)).collect(),
            conv_norm_out: norms(config).over(first),
            conv_out: conv3(init, first, config.out_channels),
            config: config.clone(),
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-names
use std::fmt;

/// The modules under their names and numbers: `down_blocks.0`.
fn numbered(parts: &mut Parts, name: &str, blocks: &[Block]) {
    for (i, block) in blocks.iter().enumerate() {
        parts.module(&format!("{name}.{i}"), block);
    }
}

impl Module for UNet {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv_in", &self.conv_in);
        parts.module("time_embedding", &self.time_embedding);
        numbered(parts, "down_blocks", &self.down_blocks);
        numbered(parts, "up_blocks", &self.up_blocks);
        parts.module("mid_block", &self.mid_block);
        parts.module("conv_norm_out", &self.conv_norm_out);
        parts.module("conv_out", &self.conv_out);
    }
}

// %% notebooks/33_unet_conditional.ipynb un-names-b
impl fmt::Display for UNet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/33_unet_conditional.ipynb un-way
/// Down all levels, through the middle, and up again.
fn down_and_up(net: &UNet, mut x: Tensor, conditions: Conditions, pass: &mut Pass) -> Tensor {
    let (time, text) = conditions;
    let mut skips = vec![x.clone()];
    for (i, block) in net.down_blocks.iter().enumerate() {
        let down = |pass: &mut Pass| block.down(&x, conditions, &mut skips, pass);
        x = pass.scope(&format!("down_blocks.{i}"), block, &[&x, time, text], down);
    }
    let middle = &net.mid_block;
    x = pass.scope("mid_block", middle, &[&x, time, text], |pass| {
        let x = middle.layer(0, &x, conditions, pass);
        middle.layer(1, &x, conditions, pass)
    });
    for (i, block) in net.up_blocks.iter().enumerate() {
        let up = |pass: &mut Pass| block.up(&x, conditions, &mut skips, pass);
        x = pass.scope(&format!("up_blocks.{i}"), block, &[&x, time, text], up);
    }
    x
}

// %% notebooks/33_unet_conditional.ipynb un-inputs
#[track_caller]
fn check_inputs(config: &UNetConfig, x: &Tensor, t: &[f32], context: &Tensor) {
    let UNetConfig { in_channels, cross_attention_dim, .. } = *config;
    let (x, context) = (x.shape(), context.shape());
    assert!(
        x.len() == 4 && x[1] == in_channels && x.iter().all(|&size| size > 0),
        "UNet: x of shape {x:?}, (n, {in_channels}, h, w) expected"
    );
    assert!(
        context.len() == 3 && context[0] == x[0] && context[1] > 0 && context[2] == cross_attention_dim,
        "UNet: context of shape {context:?} for x of shape {x:?}, (n, tokens, {cross_attention_dim}) expected"
    );
    assert!(t.len() == 1 || t.len() == x[0], "UNet: {} times for x of shape {x:?}, 1 or n expected", t.len());
}

// %% notebooks/33_unet_conditional.ipynb un-forward
/// The times as waves (times, width): see [`time_features`].
fn time_waves(config: &UNetConfig, t: &[f32]) -> Tensor {
    time_features(t, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift)
}

impl UNet {
    /// The shape of the network.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }
}

// %% notebooks/33_unet_conditional.ipynb un-forward-b
impl UNet {
    /// The noise in `x` (n, channels, h, w) at the times `t`, one for all or one for each, given the embedded texts
    /// `context` (n, tokens, width): of the shape of `x`, with the config's `out_channels`.
    ///
    /// # Panics
    /// If the shapes do not fit the config or each other.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, t: &[f32], context: &Tensor, pass: &mut Pass) -> Tensor {
        let config = &self.config;
        check_inputs(config, x, t, context);
        // Each residual block begins with silu of it.
        let time = silu(&pass.call("time_embedding", &self.time_embedding, &time_waves(config, t)));
        let x = pass.call("conv_in", &self.conv_in, x);
        let x = down_and_up(self, x, (&time, context), pass);
        let x = norm_silu("conv_norm_out", &self.conv_norm_out, &x, pass);
        pass.call("conv_out", &self.conv_out, &x)
    }
}
