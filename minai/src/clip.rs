// Owned by notebooks/32_clip_text.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash db5f24d4c4d35a65
//! CLIP's text encoder: from 77 tokens to 77 rows of numbers that say what each means where it stands.

use crate::attention::scaled_dot_product_attention;
use crate::embedding::embedding;

// %% notebooks/32_clip_text.ipynb cl-config
use minai::state::StateError;
use minai::weights::{self, Config};

/// Which function stands between the two linear layers of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenAct {
    /// [`quick_gelu`]: OpenAI's models.
    QuickGelu,
    /// [`gelu`]: open_clip's.
    Gelu,
}

/// The sizes of a text encoder, as `text_encoder/config.json` gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// Rows of the table of tokens (`vocab_size`).
    pub vocabulary: usize,
    /// The most tokens of a text (`max_position_embeddings`).
    pub positions: usize,
    /// Numbers for each token (`hidden_size`).
    pub width: usize,
    /// Numbers between the two linear layers of a block (`intermediate_size`).
    pub inner: usize,
    /// Blocks (`num_hidden_layers`).
    pub layers: usize,
    /// Heads of each attention (`num_attention_heads`).
    pub heads: usize,
    /// The activation (`hidden_act`).
    pub activation: HiddenAct,
    /// Added to the variances (`layer_norm_eps`).
    pub eps: f32,
}

impl ClipConfig {
    /// The text encoder of Stable Diffusion v1: that of CLIP ViT-L/14.
    pub fn sd15() -> Self {
        ClipConfig {
            vocabulary: 49408,
            positions: 77,
            width: 768,
            inner: 3072,
            layers: 12,
            heads: 12,
            activation: HiddenAct::QuickGelu,
            eps: 1e-5,
        }
    }

    /// Reads the sizes; what the file leaves out is as transformers' `CLIPTextConfig` has it.
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
        let activation = match config.text_or("hidden_act", "quick_gelu")?.as_str() {
            "quick_gelu" => HiddenAct::QuickGelu,
            "gelu" => HiddenAct::Gelu,
            other => {
                let what =
                    format!("is `{other:.80}`, of which nothing is known here but `quick_gelu` and `gelu`");
                return Err(config.error("hidden_act", &what));
            }
        };
        let eps = config.f64_or("layer_norm_eps", 1e-5)?;
        if !(0.0..1.0).contains(&eps) {
            return Err(config
                .error("layer_norm_eps", &format!("is {eps}, where 0 to 1 is possible; correct the file")));
        }
        let this = ClipConfig {
            vocabulary: size("vocab_size", 49408, 1 << 24)?,
            positions: size("max_position_embeddings", 77, 1 << 16)?,
            width: size("hidden_size", 512, 1 << 16)?,
            inner: size("intermediate_size", 2048, 1 << 18)?,
            layers: size("num_hidden_layers", 12, 1 << 10)?,
            heads: size("num_attention_heads", 8, 1 << 10)?,
            activation,
            eps: eps as f32,
        };
        if !this.width.is_multiple_of(this.heads) {
            let what = format!("is {}, which does not divide `hidden_size`, {}", this.heads, this.width);
            return Err(config.error("num_attention_heads", &what));
        }
        Ok(this)
    }
}

// %% notebooks/32_clip_text.ipynb cl-attention
use minai::kernels::attention::Mask;
use minai::nn::{Layer, Linear, Module, Parts, Pass};
use minai::tensor::Tensor;

/// Self-attention of several heads in which no token sees a later one.
pub struct ClipAttention {
    heads: usize,
    /// The name in state dicts, and the layer: queries, keys, values.
    projections: [(&'static str, Linear); 3],
    out_proj: Linear,
}

impl ClipAttention {
    /// Without numbers yet.
    pub fn new(config: &ClipConfig) -> Self {
        let linear = || weights::linear(config.width, config.width);
        let projections = ["q_proj", "k_proj", "v_proj"].map(|name| (name, linear()));
        ClipAttention { heads: config.heads, projections, out_proj: linear() }
    }
}

impl Module for ClipAttention {
    fn parts(&self, parts: &mut Parts) {
        for (name, projection) in &self.projections {
            parts.module(name, projection);
        }
        parts.module("out_proj", &self.out_proj);
    }
}

impl Layer for ClipAttention {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let &[n, length, width] = x.shape() else {
            panic!("ClipAttention: (n, tokens, width) expected, shape {:?}", x.shape())
        };
        let [n, length, heads] = [n, length, self.heads].map(|size| size as isize);
        // (n, tokens, width) -> (n, heads, tokens, width / heads)
        let [q, k, v] = self.projections.each_ref().map(|(name, projection)| {
            pass.call(name, projection, x).reshape(&[n, length, heads, -1]).transpose(1, 2)
        });
        let heads = scaled_dot_product_attention(&q, &k, &v, Mask::Causal);
        pass.call("out_proj", &self.out_proj, &heads.transpose(1, 2).reshape(&[n, length, width as isize]))
    }
}

// %% notebooks/32_clip_text.ipynb cl-layer
use minai::activation::{gelu, quick_gelu};
use minai::norm::LayerNorm;

/// A block: attention between tokens, then two linear layers for each token, each added to what came in.
pub struct ClipLayer {
    layer_norm1: LayerNorm,
    self_attn: ClipAttention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: HiddenAct,
}

fn norm(config: &ClipConfig) -> LayerNorm {
    LayerNorm { eps: config.eps, ..weights::layer_norm(config.width) }
}

impl ClipLayer {
    /// Without numbers yet.
    pub fn new(config: &ClipConfig) -> Self {
        ClipLayer {
            layer_norm1: norm(config),
            self_attn: ClipAttention::new(config),
            layer_norm2: norm(config),
            fc1: weights::linear(config.width, config.inner),
            fc2: weights::linear(config.inner, config.width),
            activation: config.activation,
        }
    }
}

impl Module for ClipLayer {
    fn parts(&self, parts: &mut Parts) {
        parts.module("layer_norm1", &self.layer_norm1);
        parts.module("self_attn", &self.self_attn);
        parts.module("layer_norm2", &self.layer_norm2);
        parts.module("mlp.fc1", &self.fc1);
        parts.module("mlp.fc2", &self.fc2);
    }
}

impl Layer for ClipLayer {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let normed = pass.call("layer_norm1", &self.layer_norm1, x);
        let x = x + pass.call("self_attn", &self.self_attn, &normed);
        let normed = pass.call("layer_norm2", &self.layer_norm2, &x);
        let inner = pass.call("mlp.fc1", &self.fc1, &normed);
        let inner = match self.activation {
            HiddenAct::QuickGelu => quick_gelu(&inner),
            HiddenAct::Gelu => gelu(&inner),
        };
        x + pass.call("mlp.fc2", &self.fc2, &inner)
    }
}

// %% notebooks/32_clip_text.ipynb cl-text
use minai::array::Array;
use minai::nn::Parameter;
use ndarray::s;

/// The text encoder of CLIP (Radford et al. 2021): a causal transformer with the norms in front.
pub struct ClipText {
    /// Its sizes.
    pub config: ClipConfig,
    /// (vocabulary, width)
    token_embedding: Parameter,
    /// (positions, width)
    position_embedding: Parameter,
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
}

impl ClipText {
    /// Without numbers yet: load them with [`weights::load_weights`] and [`rename`], or make them with [`weights::initialize`].
    pub fn new(config: &ClipConfig) -> Self {
        ClipText {
            config: config.clone(),
            token_embedding: weights::pending(&[config.vocabulary, config.width]),
            position_embedding: weights::pending(&[config.positions, config.width]),
            layers: (0..config.layers).map(|_| ClipLayer::new(config)).collect(),
            final_layer_norm: norm(config),
        }
    }

    /// What each of the `tokens` (n, length) means, behind the final norm: (n, length, width).
    ///
    /// # Panics
    /// If there are more tokens than positions, or one is not in the vocabulary.
    #[track_caller]
    pub fn forward(&self, tokens: &Array<i64>, pass: &mut Pass) -> Tensor {
        let (shape, most) = (tokens.shape(), self.config.positions);
        let fits = shape.len() == 2 && shape[1] <= most;
        assert!(fits, "ClipText: (n, up to {most}) tokens expected, shape {shape:?}");
        let positions = pass.get(&self.position_embedding).slice(s![..shape[1]]);
        let mut x = embedding(tokens, &pass.get(&self.token_embedding)) + positions;
        for (i, layer) in self.layers.iter().enumerate() {
            x = pass.call(&format!("encoder.layers.{i}"), layer, &x);
        }
        pass.call("final_layer_norm", &self.final_layer_norm, &x)
    }
}

impl Module for ClipText {
    fn parts(&self, parts: &mut Parts) {
        parts.parameter("embeddings.token_embedding.weight", &self.token_embedding);
        parts.parameter("embeddings.position_embedding.weight", &self.position_embedding);
        for (i, layer) in self.layers.iter().enumerate() {
            parts.module(&format!("encoder.layers.{i}"), layer);
        }
        parts.module("final_layer_norm", &self.final_layer_norm);
    }
}

// %% notebooks/32_clip_text.ipynb cl-rename
/// A file's name for a tensor as [`ClipText`] has it: with or without `text_model.` in front. `None` for `position_ids`,
/// the numbers from 0 to 76, which older files carry.
pub fn rename(name: &str) -> Option<String> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    (name != "embeddings.position_ids").then(|| name.into())
}
