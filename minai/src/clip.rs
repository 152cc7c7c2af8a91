// Owned by notebooks/32_clip_text.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 2683c2556acec118
//! CLIP's text encoder: from 77 tokens to 77 vectors that say what each means where it stands.

// %% notebooks/32_clip_text.ipynb cl-config
use minai::io::config::Config;
use minai::io::file::FileError;

/// Which function stands between the two linear layers of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenAct {
    /// [`quick_gelu`]: OpenAI's models.
    QuickGelu,
    /// [`gelu`]: open_clip's.
    Gelu,
}

// %% notebooks/32_clip_text.ipynb cl-config-b
/// The sizes of a text encoder, as `text_encoder/config.json` gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    /// Rows of the table of tokens (`vocab_size`).
    pub vocabulary: usize,
    /// The most tokens of a text (`max_position_embeddings`).
    pub positions: usize,
    /// Size of the vector of each token (`hidden_size`).
    pub width: usize,
    /// Its size between the two linear layers of a block (`intermediate_size`).
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

// %% notebooks/32_clip_text.ipynb cl-config-c
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
}

// %% notebooks/32_clip_text.ipynb cl-config-read
impl ClipConfig {
    /// Reads the sizes; what the file leaves out is as transformers' `CLIPTextConfig` has it.
    ///
    /// # Errors
    /// When a value is of a wrong type, is out of range, or asks for what is not supported: with its key.
    pub fn from_config(config: &Config) -> Result<Self, FileError> {
        let activation = match config.text_or("hidden_act", "quick_gelu")?.as_str() {
            "quick_gelu" => HiddenAct::QuickGelu,
            "gelu" => HiddenAct::Gelu,
            other => {
                let what = format!("is `{other:.80}`; only `quick_gelu` and `gelu` are supported");
                return Err(config.error("hidden_act", &what));
            }
        };
        let eps = config.f64_or("layer_norm_eps", 1e-5)?;
        if !(0.0..1.0).contains(&eps) {
            return Err(config
                .error("layer_norm_eps", &format!("is {eps}, where 0 to 1 is possible; correct the file")));
        }
        let this = ClipConfig {
            vocabulary: config.size_or("vocab_size", 49408, 1 << 24)?,
            positions: config.size_or("max_position_embeddings", 77, 1 << 16)?,
            width: config.size_or("hidden_size", 512, 1 << 16)?,
            inner: config.size_or("intermediate_size", 2048, 1 << 18)?,
            layers: config.size_or("num_hidden_layers", 12, 1 << 10)?,
            heads: config.size_or("num_attention_heads", 8, 1 << 10)?,
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
use minai::attention::multi_head;
use minai::kernels::attention::Mask;
use minai::nn::{Init, Layer, Linear, Module, Parameter, Parts, Pass};
use minai::tensor::Tensor;

/// Self-attention of several heads in which no token sees a later one.
#[derive(Debug)]
pub struct ClipAttention {
    heads: usize,
    /// The name in state dicts, and the layer: queries, keys, values.
    projections: [(&'static str, Linear); 3],
    out_proj: Linear,
}

impl ClipAttention {
    /// For vectors of the config's width.
    pub fn new(init: &mut dyn Init, config: &ClipConfig) -> Self {
        let mut linear = || Linear::new(init, config.width, config.width);
        let projections = ["q_proj", "k_proj", "v_proj"].map(|name| (name, linear()));
        ClipAttention { heads: config.heads, projections, out_proj: linear() }
    }
}

// %% notebooks/32_clip_text.ipynb cl-attention-b
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
        let [q, k, v] = self.projections.each_ref().map(|(name, projection)| pass.call(name, projection, x));
        let seen = multi_head(&q, &k, &v, self.heads, Mask::Causal);
        pass.call("out_proj", &self.out_proj, &seen)
    }
}

// %% notebooks/32_clip_text.ipynb cl-layer
use minai::activation::{gelu, quick_gelu};
use minai::norm::LayerNorm;

/// A block: attention between tokens, then two linear layers for each token, each added to what came in.
#[derive(Debug)]
pub struct ClipLayer {
    layer_norm1: LayerNorm,
    self_attn: ClipAttention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    activation: HiddenAct,
}

fn norm(config: &ClipConfig) -> LayerNorm {
    LayerNorm { eps: config.eps, ..LayerNorm::new(&[config.width]) }
}

// %% notebooks/32_clip_text.ipynb cl-layer-b
impl ClipLayer {
    /// For vectors of the config's width.
    pub fn new(init: &mut dyn Init, config: &ClipConfig) -> Self {
        ClipLayer {
            layer_norm1: norm(config),
            self_attn: ClipAttention::new(init, config),
            layer_norm2: norm(config),
            fc1: Linear::new(init, config.width, config.inner),
            fc2: Linear::new(init, config.inner, config.width),
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

// %% notebooks/32_clip_text.ipynb cl-layer-c
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
use minai::embedding::Embedding;
use std::fmt;

/// The text encoder of CLIP (Radford et al. 2021): a causal transformer with the norms in front.
#[derive(Debug)]
pub struct ClipText {
    /// Its sizes.
    pub config: ClipConfig,
    /// How many of the last blocks are left out (`clip_skip`): 0, or 1 for models that were trained so.
    pub skip: usize,
    token_embedding: Embedding,
    position_embedding: Embedding,
    layers: Vec<ClipLayer>,
    final_layer_norm: LayerNorm,
}

// %% notebooks/32_clip_text.ipynb cl-text-b
impl Module for ClipText {
    fn parts(&self, parts: &mut Parts) {
        parts.module("embeddings.token_embedding", &self.token_embedding);
        parts.module("embeddings.position_embedding", &self.position_embedding);
        for (i, layer) in self.layers.iter().enumerate() {
            parts.module(&format!("encoder.layers.{i}"), layer);
        }
        parts.module("final_layer_norm", &self.final_layer_norm);
    }
}

impl fmt::Display for ClipText {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/32_clip_text.ipynb cl-text-forward
/// The rows of a table inside the encoder, under the table's name.
#[track_caller]
fn look_up(name: &str, table: &Embedding, indices: &Array<i64>, pass: &mut Pass) -> Tensor {
    pass.scope(name, table, &[], |pass| table.forward(indices, pass))
}

impl ClipText {
    /// A network of these sizes: its weights are drawn if `init` is a generator, or [`Pending`](minai::weights::Pending)
    /// until a file brings them, whose names [`rename`] knows.
    pub fn new(init: &mut dyn Init, config: &ClipConfig) -> Self {
        ClipText {
            config: config.clone(),
            skip: 0,
            token_embedding: Embedding::new(init, config.vocabulary, config.width),
            position_embedding: Embedding::new(init, config.positions, config.width),
            layers: (0..config.layers).map(|_| ClipLayer::new(init, config)).collect(),
            final_layer_norm: norm(config),
        }
    }
}

// %% notebooks/32_clip_text.ipynb cl-text-forward-b
impl ClipText {
    /// Appends rows (n, width) to the table of tokens.
    ///
    /// # Panics
    /// If they have another width.
    #[track_caller]
    pub fn add_tokens(&mut self, rows: &Array) {
        let width = self.config.width;
        assert!(rows.shape()[1..] == [width], "add_tokens: rows {:?}, (n, {width}) expected", rows.shape());
        let table = Tensor::from(self.token_embedding.weight.data());
        let table = minai::tensor::cat(&[&table, &rows.clone().into()], 0);
        self.config.vocabulary = table.shape()[0];
        self.token_embedding.weight = Parameter::new(table.data);
    }

    /// What each of the `tokens` (n, length) means, after the final norm: (n, length, width).
    ///
    /// # Panics
    /// If there are more tokens than positions, or one is not in the vocabulary.
    #[track_caller]
    pub fn forward(&self, tokens: &Array<i64>, pass: &mut Pass) -> Tensor {
        let (shape, most) = (tokens.shape(), self.config.positions);
        let fits = shape.len() == 2 && shape[1] <= most;
        assert!(fits, "ClipText: (n, up to {most}) tokens expected, shape {shape:?}");
        let positions = Array::new((0..shape[1] as i64).collect(), &[shape[1]]);
        let mut x = look_up("embeddings.token_embedding", &self.token_embedding, tokens, pass);
        x += look_up("embeddings.position_embedding", &self.position_embedding, &positions, pass);
        for (i, layer) in self.layers[..self.layers.len().saturating_sub(self.skip)].iter().enumerate() {
            x = pass.call(&format!("encoder.layers.{i}"), layer, &x);
        }
        pass.call("final_layer_norm", &self.final_layer_norm, &x)
    }
}

// %% notebooks/32_clip_text.ipynb cl-rename
/// A file's name for a tensor as [`ClipText`] has it: with or without `text_model.` in front. `None` for what the text encoder does without: `position_ids`, the numbers
/// from 0 to 76, which older files carry; the projection that CLIP compares texts by; and CLIP's other half, which reads
/// pictures.
pub fn rename(name: &str) -> Option<String> {
    let name = name.strip_prefix("text_model.").unwrap_or(name);
    let others = ["vision_model.", "visual_projection.", "text_projection", "logit_scale"];
    let needed = !name.ends_with("position_ids") && !others.iter().any(|other| name.starts_with(other));
    needed.then(|| name.into())
}
