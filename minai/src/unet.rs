// Owned by notebooks/33_unet_conditional.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash f56b2dc2bafbbc98
//! The conditional U-Net of Stable Diffusion v1: noisy latents, a time and a text's embedding in, the noise out.

// %% notebooks/33_unet_conditional.ipynb un-time
use minai::array::Array;
use minai::tensor::Tensor;

/// Cosines and sines of a time, fast waves to slow ones: (n, width), for n times. The i-th of `half` waves has the
/// frequency 10000^(-i / (half - shift)) (Vaswani et al. 2017; Ho et al. 2020).
pub fn time_features(t: &[f32], width: usize, flip_sin_to_cos: bool, freq_shift: f64) -> Tensor {
    let half = width / 2;
    // Rounded to f32 where diffusers rounds: at t = 1000 a last bit of the frequency is 6e-5 of the angle.
    let frequency = |i: usize| {
        let exponent = -(10000_f64.ln() as f32) * i as f32 / (half as f32 - freq_shift as f32);
        f64::from(exponent).exp() as f32
    };
    let mut features = vec![0.0; t.len() * width];
    for (t, row) in t.iter().zip(features.chunks_mut(width.max(1))) {
        for i in 0..half {
            let angle = f64::from(t * frequency(i));
            let (sin, cos) = if flip_sin_to_cos { (half + i, i) } else { (i, half + i) };
            (row[sin], row[cos]) = (angle.sin() as f32, angle.cos() as f32);
        }
    }
    Array::new(features, &[t.len(), width]).into()
}

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
use minai::state::StateError;
use minai::weights::{self, Config};

/// The only value of an entry that is known.
enum Only {
    Bool(bool),
    Number(f64),
    Text(&'static str),
    /// `null`, or no entry.
    Nothing,
}

fn check_fixed(config: &Config) -> Result<(), StateError> {
    for (key, only) in FIXED {
        let said = match only {
            Only::Bool(only) => {
                Some(config.bool_or(key, only)?).filter(|&said| said != only).map(|x| x.to_string())
            }
            Only::Number(only) => {
                Some(config.f64_or(key, only)?).filter(|&said| said != only).map(|x| x.to_string())
            }
            Only::Text(only) => Some(config.text_or(key, only)?).filter(|said| said != only),
            Only::Nothing => config.has(key).then(|| "set".into()),
        };
        if let Some(said) = said {
            return Err(config.error(key, &format!("is {said}, which {UNKNOWN}")));
        }
    }
    Ok(())
}

const UNKNOWN: &str = "this U-Net does not do; it reads the configs of Stable Diffusion v1 and their like";

/// What the files may also say, and the only value of each that this U-Net knows.
const FIXED: [(&str, Only); 24] = [
    ("act_fn", Only::Text("silu")),
    ("addition_embed_type", Only::Nothing),
    ("attention_type", Only::Text("default")),
    ("center_input_sample", Only::Bool(false)),
    ("class_embed_type", Only::Nothing),
    ("class_embeddings_concat", Only::Bool(false)),
    ("conv_in_kernel", Only::Number(3.0)),
    ("conv_out_kernel", Only::Number(3.0)),
    ("cross_attention_norm", Only::Nothing),
    ("downsample_padding", Only::Number(1.0)),
    ("dual_cross_attention", Only::Bool(false)),
    ("encoder_hid_dim_type", Only::Nothing),
    ("mid_block_scale_factor", Only::Number(1.0)),
    ("mid_block_type", Only::Text("UNetMidBlock2DCrossAttn")),
    ("num_attention_heads", Only::Nothing),
    ("num_class_embeds", Only::Nothing),
    ("only_cross_attention", Only::Bool(false)),
    ("resnet_out_scale_factor", Only::Number(1.0)),
    ("resnet_skip_time_act", Only::Bool(false)),
    ("resnet_time_scale_shift", Only::Text("default")),
    ("time_cond_proj_dim", Only::Nothing),
    ("time_embedding_act_fn", Only::Nothing),
    ("time_embedding_type", Only::Text("positional")),
    ("timestep_post_act", Only::Nothing),
];

// %% notebooks/33_unet_conditional.ipynb un-lists
/// A number for each level, where the file has a list of them, or one for all.
fn numbers(config: &Config, key: &str, default: usize, levels: usize) -> Result<Vec<usize>, StateError> {
    match (config.usize_or(key, default), config.usizes(key)) {
        (Ok(number), _) => Ok(vec![number; levels]),
        (_, Ok(list)) => check_length(config, key, list, levels),
        (Err(error), _) => Err(error),
    }
}

fn check_length<T>(config: &Config, key: &str, list: Vec<T>, levels: usize) -> Result<Vec<T>, StateError> {
    match list.len() == levels {
        true => Ok(list),
        false => {
            Err(config.error(key, &format!("has {} entries, `block_out_channels` {levels}", list.len())))
        }
    }
}

/// The kinds of the levels, by their names in the file: the plain one's and the other's.
fn kinds(config: &Config, key: &str, names: [&str; 2], levels: usize) -> Result<Vec<BlockKind>, StateError> {
    let kind = |name: &String| match name {
        name if name == names[0] => Ok(BlockKind::Plain),
        name if name == names[1] => Ok(BlockKind::CrossAttention),
        other => Err(config.error(key, &format!("names {other:.80}, which {UNKNOWN}"))),
    };
    let list = check_length(config, key, config.texts(key)?, levels)?;
    list.iter().map(kind).collect()
}

// %% notebooks/33_unet_conditional.ipynb un-from
/// As many levels, layers or heads there may be.
const MOST: usize = 64;

impl UNetConfig {
    /// From diffusers' `unet/config.json`.
    ///
    /// # Errors
    /// If a key is missing or says something that this U-Net does not do: the error names the key and what it says.
    pub fn from_config(config: &Config) -> Result<Self, StateError> {
        check_fixed(config)?;
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
        this.check().map_err(|(key, what)| config.error(key, &what))?;
        Ok(this)
    }

    /// The entry that does not fit the others, if there is one, and why.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let (levels, groups) = (self.block_out_channels.len(), self.norm_num_groups);
        if !(1..=MOST).contains(&levels) {
            return Err((
                "block_out_channels",
                format!("has {levels} entries, and 1 to {MOST} are possible"),
            ));
        }
        let counts = [("layers_per_block", &self.layers_per_block), ("attention_head_dim", &self.heads)];
        let layers = vec![self.transformer_layers];
        for (key, list) in counts.into_iter().chain([("transformer_layers_per_block", &layers)]) {
            if let Some(count) = list.iter().find(|count| !(1..=MOST).contains(count)) {
                return Err((key, format!("is {count}, and 1 to {MOST} are possible")));
            }
        }
        for (&channels, &heads) in self.block_out_channels.iter().zip(&self.heads) {
            if channels == 0 || groups == 0 || !channels.is_multiple_of(groups) {
                return Err((
                    "norm_num_groups",
                    format!("is {groups}, which does not divide {channels} channels"),
                ));
            }
            if !channels.is_multiple_of(heads) {
                return Err((
                    "attention_head_dim",
                    format!("is {heads}, which does not divide {channels} channels"),
                ));
            }
        }
        match [self.in_channels, self.out_channels, self.cross_attention_dim].contains(&0) {
            true => Err(("in_channels", "or `out_channels` or `cross_attention_dim` is 0".into())),
            false => Ok(()),
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-res
use minai::activation::silu;
use minai::conv::{Conv2d, ConvOptions};
use minai::nn::{Layer, Linear, Module, Parts, Pass};
use minai::norm::{GroupNorm, group_norm_silu};

/// From the waves to what the residual blocks read.
struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl Module for TimeEmbedding {
    fn parts(&self, parts: &mut Parts) {
        parts.module("linear_1", &self.linear_1);
        parts.module("linear_2", &self.linear_2);
    }
}

impl Layer for TimeEmbedding {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let x = silu(&self.linear_1.forward(x, pass));
        self.linear_2.forward(&x, pass)
    }
}

impl UNetConfig {
    /// The width of the time's embedding.
    fn time_width(&self) -> usize {
        4 * self.block_out_channels[0]
    }
}

fn norm_silu(norm: &GroupNorm, x: &Tensor, pass: &Pass) -> Tensor {
    group_norm_silu(x, norm.groups, &pass.get(&norm.weight), &pass.get(&norm.bias), norm.eps)
}

const SAME: ConvOptions = ConvOptions { stride: 1, padding: 1, dilation: 1, groups: 1 };
const HALF: ConvOptions = ConvOptions { stride: 2, padding: 1, dilation: 1, groups: 1 };

/// Two convolutions, each behind a group norm and silu, and a way around them; the time is added between them.
struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    fn new(config: &UNetConfig, c_in: usize, c_out: usize) -> Self {
        let norm = |channels| GroupNorm {
            eps: config.norm_eps,
            ..weights::group_norm(config.norm_num_groups, channels)
        };
        ResnetBlock {
            norm1: norm(c_in),
            conv1: weights::conv2d(c_in, c_out, 3, SAME),
            time_emb_proj: weights::linear(config.time_width(), c_out),
            norm2: norm(c_out),
            conv2: weights::conv2d(c_out, c_out, 3, SAME),
            conv_shortcut: (c_in != c_out).then(|| weights::conv2d(c_in, c_out, 1, ConvOptions::default())),
        }
    }

    /// x (n, c_in, h, w) and silu of the time's embedding (1 or n, …): (n, c_out, h, w).
    fn forward(&self, x: &Tensor, time: &Tensor, pass: &mut Pass) -> Tensor {
        let y = self.conv1.forward(&norm_silu(&self.norm1, x, pass), pass);
        let y = y + self.time_emb_proj.forward(time, pass).unsqueeze(-1).unsqueeze(-1);
        let y = norm_silu(&self.norm2, &y, pass);
        let y = self.conv2.forward(&y, pass);
        match &self.conv_shortcut {
            Some(shortcut) => y + shortcut.forward(x, pass),
            None => y + x,
        }
    }
}

impl Module for ResnetBlock {
    fn parts(&self, parts: &mut Parts) {
        parts.module("norm1", &self.norm1);
        parts.module("conv1", &self.conv1);
        parts.module("time_emb_proj", &self.time_emb_proj);
        parts.module("norm2", &self.norm2);
        parts.module("conv2", &self.conv2);
        if let Some(shortcut) = &self.conv_shortcut {
            parts.module("conv_shortcut", shortcut);
        }
    }
}

// %% notebooks/33_unet_conditional.ipynb un-attention
use minai::attention::scaled_dot_product_attention;
use minai::kernels::attention::Mask;

/// Attention of several heads: queries from `x`, keys and values from `context`.
struct Attention {
    heads: usize,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(width: usize, context: usize, heads: usize) -> Self {
        let without_bias = weights::linear_without_bias;
        Attention {
            heads,
            to_q: without_bias(width, width),
            to_k: without_bias(context, width),
            to_v: without_bias(context, width),
            to_out: weights::linear(width, width),
        }
    }

    /// x (n, places, width) and the context (n, tokens, its width): (n, places, width).
    fn forward(&self, x: &Tensor, context: &Tensor, pass: &mut Pass) -> Tensor {
        // (n, length, width) to (n, heads, length, width / heads)
        let split = |x: Tensor| {
            let [n, length, width] = [0, 1, 2].map(|axis| x.shape()[axis] as isize);
            let heads = self.heads as isize;
            x.reshape(&[n, length, heads, width / heads]).transpose(1, 2)
        };
        let q = split(self.to_q.forward(x, pass));
        let k = split(self.to_k.forward(context, pass));
        let v = split(self.to_v.forward(context, pass));
        let y = scaled_dot_product_attention(&q, &k, &v, Mask::None);
        let shape = [0, 1, 2].map(|axis| x.shape()[axis] as isize);
        self.to_out.forward(&y.transpose(1, 2).reshape(&shape), pass)
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

/// Four times as wide inside, with GEGLU.
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(width: usize) -> Self {
        FeedForward { proj: weights::linear(width, 8 * width), out: weights::linear(4 * width, width) }
    }
}

impl Module for FeedForward {
    fn parts(&self, parts: &mut Parts) {
        parts.module("net.0.proj", &self.proj);
        parts.module("net.2", &self.out);
    }
}

impl Layer for FeedForward {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let x = geglu(&self.proj.forward(x, pass));
        self.out.forward(&x, pass)
    }
}

// %% notebooks/33_unet_conditional.ipynb un-block
use minai::norm::LayerNorm;

/// Self-attention, attention to the text, and a feed-forward layer, each added to what it is given, behind a layer norm.
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(width: usize, context: usize, heads: usize) -> Self {
        TransformerBlock {
            norm1: weights::layer_norm(width),
            attn1: Attention::new(width, width, heads),
            norm2: weights::layer_norm(width),
            attn2: Attention::new(width, context, heads),
            norm3: weights::layer_norm(width),
            ff: FeedForward::new(width),
        }
    }

    fn forward(&self, x: Tensor, context: &Tensor, pass: &mut Pass) -> Tensor {
        let y = self.norm1.forward(&x, pass);
        let x = self.attn1.forward(&y, &y, pass) + x;
        let y = self.norm2.forward(&x, pass);
        let x = self.attn2.forward(&y, context, pass) + x;
        let y = self.norm3.forward(&x, pass);
        self.ff.forward(&y, pass) + x
    }
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

// %% notebooks/33_unet_conditional.ipynb un-spatial
/// The layer before or behind the transformer blocks: the same weights in two shapes.
enum Projection {
    Convolution(Conv2d),
    Linear(Linear),
}

impl Projection {
    fn new(config: &UNetConfig, width: usize) -> Self {
        match config.use_linear_projection {
            true => Projection::Linear(weights::linear(width, width)),
            false => Projection::Convolution(weights::conv2d(width, width, 1, ConvOptions::default())),
        }
    }

    fn module(&self) -> &dyn Module {
        match self {
            Projection::Convolution(layer) => layer,
            Projection::Linear(layer) => layer,
        }
    }
}

/// A picture as a list of its places for the transformer blocks, and back.
struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Projection,
    blocks: Vec<TransformerBlock>,
    proj_out: Projection,
}

impl SpatialTransformer {
    fn new(config: &UNetConfig, width: usize, heads: usize) -> Self {
        let block = |_| TransformerBlock::new(width, config.cross_attention_dim, heads);
        SpatialTransformer {
            norm: GroupNorm { eps: 1e-6, ..weights::group_norm(config.norm_num_groups, width) },
            proj_in: Projection::new(config, width),
            blocks: (0..config.transformer_layers).map(block).collect(),
            proj_out: Projection::new(config, width),
        }
    }

    /// x (n, c, h, w) and the context (n, tokens, width): (n, c, h, w).
    fn forward(&self, x: &Tensor, context: &Tensor, pass: &mut Pass) -> Tensor {
        let shape: Vec<isize> = x.shape().iter().map(|&size| size as isize).collect();
        let places = |x: Tensor| x.reshape(&[shape[0], shape[1], -1]).transpose(1, 2);
        let picture = |x: Tensor| x.transpose(1, 2).reshape(&shape);
        let mut y = self.norm.forward(x, pass);
        y = match &self.proj_in {
            Projection::Convolution(layer) => places(layer.forward(&y, pass)),
            Projection::Linear(layer) => layer.forward(&places(y), pass),
        };
        for block in &self.blocks {
            y = block.forward(y, context, pass);
        }
        y = match &self.proj_out {
            Projection::Convolution(layer) => layer.forward(&picture(y), pass),
            Projection::Linear(layer) => picture(layer.forward(&y, pass)),
        };
        y + x
    }
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

// %% notebooks/33_unet_conditional.ipynb un-level
use minai::pool::upsample_nearest;
use minai::tensor::cat;

/// A level: residual blocks, each followed by a transformer or none of them, then a change of size, or none at the end.
struct Block {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<SpatialTransformer>,
    resample: Option<(&'static str, Conv2d)>,
}

impl Block {
    /// `resnets[i]` residual blocks from and to these channels.
    fn new(config: &UNetConfig, kind: BlockKind, heads: usize, resnets: &[(usize, usize)]) -> Self {
        let attentions = match kind {
            BlockKind::Plain => &[],
            BlockKind::CrossAttention => resnets,
        };
        Block {
            resnets: resnets.iter().map(|&(c_in, c_out)| ResnetBlock::new(config, c_in, c_out)).collect(),
            attentions: attentions
                .iter()
                .map(|&(_, width)| SpatialTransformer::new(config, width, heads))
                .collect(),
            resample: None,
        }
    }

    /// The i-th residual block and what follows it.
    fn layer(&self, i: usize, x: &Tensor, (time, context): (&Tensor, &Tensor), pass: &mut Pass) -> Tensor {
        let x = self.resnets[i].forward(x, time, pass);
        match self.attentions.get(i) {
            Some(attention) => attention.forward(&x, context, pass),
            None => x,
        }
    }
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

/// Enlarges to this size, each number to a block of equal ones: x (n, c, h, w).
fn resize_nearest(x: &Tensor, (h, w): (usize, usize)) -> Tensor {
    let (old_h, old_w) = (x.shape()[2], x.shape()[3]);
    if (h, w) == (2 * old_h, 2 * old_w) {
        return upsample_nearest(x, 2);
    }
    let rows =
        |old: usize, new: usize| Array::new((0..new).map(|i| (i * old / new) as i64).collect(), &[new]);
    x.index_select(2, &rows(old_h, h)).index_select(3, &rows(old_w, w))
}

// %% notebooks/33_unet_conditional.ipynb un-unet
/// The U-Net of Stable Diffusion v1 (Rombach et al. 2022): diffusers' `UNet2DConditionModel`, with its names.
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

impl UNet {
    /// With parameters that have no numbers yet: load them, or initialise them.
    pub fn new(config: &UNetConfig) -> Self {
        let (channels, levels) = (&config.block_out_channels, config.block_out_channels.len());
        let (first, last) = (channels[0], channels[levels - 1]);
        let down = |level: usize| {
            let (c_in, c_out) = (channels[level.saturating_sub(1)], channels[level]);
            let resnets: Vec<_> = (0..config.layers_per_block[level])
                .map(|i| (if i == 0 { c_in } else { c_out }, c_out))
                .collect();
            let resample =
                (level + 1 < levels).then(|| ("downsamplers.0.conv", weights::conv2d(c_out, c_out, 3, HALF)));
            Block { resample, ..Block::new(config, config.down_blocks[level], config.heads[level], &resnets) }
        };
        // What the way down leaves on the stack: channels, the last one on top.
        let mut skips = vec![first];
        for (level, (&width, layers)) in channels.iter().zip(&config.layers_per_block).enumerate() {
            skips.extend(vec![width; layers + usize::from(level + 1 < levels)]);
        }
        let mut before = last;
        let mut up = |step: usize| {
            let level = levels - 1 - step;
            let c_out = channels[level];
            let mut resnets = Vec::new();
            for _ in 0..config.layers_per_block[level] + 1 {
                resnets.push((before + skips.pop().expect("one for each"), c_out));
                before = c_out;
            }
            let resample = (level > 0).then(|| ("upsamplers.0.conv", weights::conv2d(c_out, c_out, 3, SAME)));
            Block { resample, ..Block::new(config, config.up_blocks[step], config.heads[level], &resnets) }
        };
        let mut mid_block =
            Block::new(config, BlockKind::CrossAttention, config.heads[levels - 1], &[(last, last); 2]);
        mid_block.attentions.truncate(1);
        UNet {
            conv_in: weights::conv2d(config.in_channels, first, 3, SAME),
            time_embedding: TimeEmbedding {
                linear_1: weights::linear(first, config.time_width()),
                linear_2: weights::linear(config.time_width(), config.time_width()),
            },
            down_blocks: (0..levels).map(down).collect(),
            mid_block,
            up_blocks: (0..levels).map(&mut up).collect(),
            conv_norm_out: GroupNorm {
                eps: config.norm_eps,
                ..weights::group_norm(config.norm_num_groups, first)
            },
            conv_out: weights::conv2d(first, config.out_channels, 3, SAME),
            config: config.clone(),
        }
    }

    /// The shape of the network.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }
}

impl Module for UNet {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv_in", &self.conv_in);
        parts.module("time_embedding", &self.time_embedding);
        for (i, block) in self.down_blocks.iter().enumerate() {
            parts.module(&format!("down_blocks.{i}"), block);
        }
        for (i, block) in self.up_blocks.iter().enumerate() {
            parts.module(&format!("up_blocks.{i}"), block);
        }
        parts.module("mid_block", &self.mid_block);
        parts.module("conv_norm_out", &self.conv_norm_out);
        parts.module("conv_out", &self.conv_out);
    }
}

// %% notebooks/33_unet_conditional.ipynb un-forward
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
        let waves = time_features(t, config.block_out_channels[0], config.flip_sin_to_cos, config.freq_shift);
        // Each residual block begins with silu of it.
        let time = silu(&self.time_embedding.forward(&waves, pass));
        let also = (&time, context);
        let mut x = self.conv_in.forward(x, pass);
        let mut skips = vec![x.clone()];
        for block in &self.down_blocks {
            for i in 0..block.resnets.len() {
                x = block.layer(i, &x, also, pass);
                skips.push(x.clone());
            }
            if let Some((_, conv)) = &block.resample {
                x = conv.forward(&x, pass);
                skips.push(x.clone());
            }
        }
        x = self.mid_block.layer(0, &x, also, pass);
        x = self.mid_block.resnets[1].forward(&x, &time, pass);
        for block in &self.up_blocks {
            for i in 0..block.resnets.len() {
                x = cat(&[&x, &skips.pop().expect("as many as on the way down")], 1);
                x = block.layer(i, &x, also, pass);
            }
            if let Some((_, conv)) = &block.resample {
                // Sizes that are no multiples of 2 were rounded up on the way down: back to what they were.
                let skip = skips.last().expect("the next level's").shape();
                x = conv.forward(&resize_nearest(&x, (skip[2], skip[3])), pass);
            }
        }
        self.conv_out.forward(&norm_silu(&self.conv_norm_out, &x, pass), pass)
    }
}
