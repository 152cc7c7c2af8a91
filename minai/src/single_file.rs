// Owned by notebooks/35b_files.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 37258974a2186808
//! A model of version 1 in a single file, under the names of the first published code.

// %% notebooks/35b_files.ipynb sf-inside
/// A name whose beginning is in the table, with what the table has for it.
fn renamed(name: &str, table: &[(&str, &str)]) -> Option<String> {
    table.iter().find_map(|(old, new)| {
        let rest = name.strip_prefix(old)?;
        rest.starts_with('.').then(|| format!("{new}{rest}"))
    })
}

/// Inside a residual block of the U-Net.
const RESNET: [(&str, &str); 6] = [
    ("in_layers.0", "norm1"),
    ("in_layers.2", "conv1"),
    ("emb_layers.1", "time_emb_proj"),
    ("out_layers.0", "norm2"),
    ("out_layers.3", "conv2"),
    ("skip_connection", "conv_shortcut"),
];

/// What the U-Net has but once.
const ONCE: [(&str, &str); 6] = [
    ("time_embed.0", "time_embedding.linear_1"),
    ("time_embed.2", "time_embedding.linear_2"),
    ("input_blocks.0.0", "conv_in"),
    ("middle_block.1", "mid_block.attentions.0"),
    ("out.0", "conv_norm_out"),
    ("out.2", "conv_out"),
];

// %% notebooks/35b_files.ipynb sf-unet
/// What a folder calls a tensor of the U-Net; `None` if it is none. `layers` is the number of residual blocks to a level on
/// the way down.
pub fn unet_name(name: &str, layers: usize) -> Option<String> {
    let rest = name.strip_prefix("model.diffusion_model.")?;
    if let Some(name) = renamed(rest, &ONCE) {
        return Some(name);
    }
    for (old, new) in [("middle_block.0.", "mid_block.resnets.0"), ("middle_block.2.", "mid_block.resnets.1")]
    {
        if let Some(inside) = rest.strip_prefix(old) {
            return Some(format!("{new}.{}", renamed(inside, &RESNET)?));
        }
    }
    let (way, rest) = rest.split_once("_blocks.")?;
    let mut parts = rest.splitn(3, '.');
    let (number, part): (usize, usize) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let (inside, down) = (parts.next()?, way == "input");
    let number = if down { number.checked_sub(1)? } else { number };
    let (level, layer) = (number / (layers + 1), number % (layers + 1));
    let block = if down { "down_blocks" } else { "up_blocks" };
    Some(match part {
        0 if inside.starts_with("op.") => format!("{block}.{level}.downsamplers.0.conv{}", &inside[2..]),
        0 => format!("{block}.{level}.resnets.{layer}.{}", renamed(inside, &RESNET)?),
        _ if inside.starts_with("conv.") => format!("{block}.{level}.upsamplers.0.{inside}"),
        _ => format!("{block}.{level}.attentions.{layer}.{inside}"),
    })
}

// %% notebooks/35b_files.ipynb sf-vae
/// What a folder calls a tensor of the autoencoder, which has this number of levels; `None` if it is none.
pub fn vae_name(name: &str, levels: usize) -> Option<String> {
    let rest = name.strip_prefix("first_stage_model.")?;
    if rest.starts_with("quant_conv.") || rest.starts_with("post_quant_conv.") {
        return Some(rest.to_owned());
    }
    let (half, rest) = rest.split_once('.')?;
    let inside = if let Some(name) = renamed(rest, &VAE_ONCE) {
        name
    } else if let Some(rest) = rest.strip_prefix("mid.attn_1.") {
        format!("mid_block.attentions.0.{}", renamed(rest, &VAE_ATTENTION)?)
    } else {
        let mut parts = rest.splitn(3, '.');
        let (way, level, rest) = (parts.next()?, parts.next()?.parse::<usize>().ok()?, parts.next()?);
        let level = if way == "up" { (levels - 1).checked_sub(level)? } else { level };
        match rest.split_once('.')? {
            ("block", rest) => format!("{way}_blocks.{level}.resnets.{rest}"),
            (sampler, rest) => format!("{way}_blocks.{level}.{sampler}rs.0.{rest}"),
        }
    };
    Some(format!("{half}.{}", inside.replace("nin_shortcut", "conv_shortcut")))
}

const VAE_ONCE: [(&str, &str); 5] = [
    ("conv_in", "conv_in"),
    ("norm_out", "conv_norm_out"),
    ("conv_out", "conv_out"),
    ("mid.block_1", "mid_block.resnets.0"),
    ("mid.block_2", "mid_block.resnets.1"),
];

const VAE_ATTENTION: [(&str, &str); 5] =
    [("norm", "group_norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "to_out.0")];

// %% notebooks/35b_files.ipynb sf-unet-sizes
use minai::io::file::FileError;
use minai::io::safetensors::TensorFile;
use minai::unet::{BlockKind, UNetConfig};

/// The sizes of the U-Net in a file, if there is one.
fn unet_sizes(file: &TensorFile) -> Option<UNetConfig> {
    let shape = |name: String| file.shape(&format!("model.diffusion_model.{name}"));
    let conv_in = shape("input_blocks.0.0.weight".into())?;
    // The first halving ends the first level; with one level there is none.
    let blocks = (1..1000).take_while(|i| {
        shape(format!("input_blocks.{i}.0.in_layers.2.weight")).is_some()
            || shape(format!("input_blocks.{i}.0.op.weight")).is_some()
    });
    let blocks = blocks.count() + 1;
    let halving = (1..blocks).find(|i| shape(format!("input_blocks.{i}.0.op.weight")).is_some());
    let layers = halving.unwrap_or(blocks) - 1;
    let levels = blocks / (layers + 1);
    let kind = |looks: bool| if looks { BlockKind::CrossAttention } else { BlockKind::Plain };
    let first = |level: usize| level * (layers + 1);
    let width =
        |level: usize| Some(shape(format!("input_blocks.{}.0.out_layers.3.weight", first(level) + 1))?[0]);
    let looks =
        |way: &str, number: usize| kind(shape(format!("{way}_blocks.{number}.1.norm.weight")).is_some());
    Some(UNetConfig {
        in_channels: *conv_in.get(1)?,
        out_channels: shape("out.2.weight".into())?[0],
        block_out_channels: (0..levels).map(width).collect::<Option<_>>()?,
        down_blocks: (0..levels).map(|level| looks("input", first(level) + 1)).collect(),
        up_blocks: (0..levels).map(|level| looks("output", first(level))).collect(),
        layers_per_block: vec![layers; levels],
        heads: vec![8; levels],
        cross_attention_dim: *shape("middle_block.1.transformer_blocks.0.attn2.to_k.weight".into())?
            .get(1)?,
        use_linear_projection: shape("middle_block.1.proj_in.weight".into())?.len() == 2,
        ..UNetConfig::sd15()
    })
}

// %% notebooks/35b_files.ipynb sf-other-sizes
use minai::clip::ClipConfig;
use minai::vae::VaeConfig;

/// How many there are, numbered from 0.
fn count(there: impl Fn(usize) -> bool) -> usize {
    (0..1000).take_while(|&i| there(i)).count()
}

fn vae_sizes(file: &TensorFile) -> Option<VaeConfig> {
    let shape = |name: String| file.shape(&format!("first_stage_model.{name}"));
    let conv = |level: usize, block: usize| format!("encoder.down.{level}.block.{block}.conv1.weight");
    let levels = count(|level| shape(conv(level, 0)).is_some());
    Some(VaeConfig {
        in_channels: *shape("encoder.conv_in.weight".into())?.get(1)?,
        out_channels: shape("decoder.conv_out.weight".into())?[0],
        latent_channels: shape("post_quant_conv.weight".into())?[0],
        channels: (0..levels).map(|level| Some(shape(conv(level, 0))?[0])).collect::<Option<_>>()?,
        layers: count(|block| shape(conv(0, block)).is_some()),
        ..VaeConfig::sd15()
    })
}

fn text_sizes(file: &TensorFile) -> Option<ClipConfig> {
    let shape = |name: String| file.shape(&format!("cond_stage_model.transformer.text_model.{name}"));
    let tokens = shape("embeddings.token_embedding.weight".into())?;
    let width = *tokens.get(1)?;
    Some(ClipConfig {
        vocabulary: tokens[0],
        positions: shape("embeddings.position_embedding.weight".into())?[0],
        width,
        inner: shape("encoder.layers.0.mlp.fc1.weight".into())?[0],
        layers: count(|i| shape(format!("encoder.layers.{i}.mlp.fc1.weight")).is_some()),
        heads: (width / 64).max(1),
        ..ClipConfig::sd15()
    })
}

// %% notebooks/35b_files.ipynb sf-kind
/// Names by which other kinds of files are known, and what these are.
const OTHERS: [(&str, &str); 8] = [
    ("conditioner.embedders.", "a Stable Diffusion XL"),
    ("cond_stage_model.model.", "a Stable Diffusion 2"),
    ("double_blocks.", "a Flux"),
    ("model.diffusion_model.double_blocks.", "a Flux"),
    ("model.diffusion_model.joint_blocks.", "a Stable Diffusion 3"),
    ("lora_", "a LoRA, which changes a model and is none"),
    ("control_model.", "a ControlNet"),
    ("down_blocks.", "the U-Net of a folder: name the folder that holds model_index.json"),
];

/// Why a file can't be opened as a whole model of version 1.
fn refusal(file: &TensorFile) -> String {
    let names = file.names();
    let known = OTHERS.iter().find(|(start, _)| names.iter().any(|name| name.starts_with(start)));
    match known {
        Some((_, what)) => format!("is {what}; only whole models of Stable Diffusion 1 are read from a single file"),
        None => "lacks parts of a Stable Diffusion 1 (model.diffusion_model, first_stage_model and cond_stage_model); name a whole model's file, or a folder that holds model_index.json".into(),
    }
}

// %% notebooks/35b_files.ipynb sf-open
use minai::clip;
use minai::stable_diffusion::{StableDiffusion, check_channels};
use minai::tokenizer::Tokenizer;
use minai::weights::{Precision, load_weights};
use std::path::Path;

/// Opens a whole Stable Diffusion 1 in a single `.safetensors` file. `tokenizer` is CLIP's.
///
/// # Errors
/// When the file can't be read, is of another kind, or lacks something: the error says which.
pub fn open_single_file(
    path: impl AsRef<Path>,
    tokenizer: Tokenizer,
    precision: Precision,
) -> Result<StableDiffusion, FileError> {
    let path = path.as_ref();
    let file = TensorFile::open(path)?;
    let sizes = (|| Some((text_sizes(&file)?, unet_sizes(&file)?, vae_sizes(&file)?)))();
    let (text, unet, vae) = sizes.ok_or_else(|| FileError::new(path, refusal(&file)))?;
    check_channels(&unet).map_err(|what| FileError::new(path, what))?;
    if text.vocabulary < tokenizer.vocabulary_size() || text.positions < tokenizer.context() {
        let what = format!("has {} tokens, the vocabulary {}", text.vocabulary, tokenizer.vocabulary_size());
        return Err(FileError::new(path, what + "; they are of different models"));
    }
    let (layers, levels) = (unet.layers_per_block[0], vae.channels.len());
    let mut model = StableDiffusion::from_configs(tokenizer, &text, &unet, &vae);
    let text_name = |name: &str| clip::rename(name.strip_prefix("cond_stage_model.transformer.")?);
    model.loaded = vec![
        load_weights(&model.text_encoder, path, precision, &text_name)?,
        load_weights(&model.unet, path, precision, &|name| unet_name(name, layers))?,
        load_weights(&model.vae, path, precision, &|name| vae_name(name, levels))?,
    ];
    Ok(model)
}
