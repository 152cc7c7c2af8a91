// Owned by notebooks/36_your_own_stable_diffusion.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 629400cd940d74e7
//! A Stable Diffusion of one's own, written as a folder in diffusers' layout: for `StableDiffusion::open`, and for Python's diffusers as well.

// %% notebooks/36_your_own_stable_diffusion.ipynb la-write
use minai::array::Array;
use minai::io::file::{FileError, make_folder_of, write_at_once};
use minai::io::safetensors::write_half;
use minai::nn::Module;
use minai::state::{Value, state_dict};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

fn write_text(path: &Path, text: &str) -> Result<(), FileError> {
    make_folder_of(path)?;
    let written = write_at_once(path, |file| file.write_all(text.as_bytes()));
    written
        .map_err(|error| FileError::new(path, format!("{error}; check the folder and the room on the disk")))
}

fn write_json(path: &Path, value: &Json) -> Result<(), FileError> {
    write_text(path, &format!("{value:#}\n"))
}

// %% notebooks/36_your_own_stable_diffusion.ipynb la-weights
/// The most bytes of weights in a file, unless one tensor alone has more: hosts of code take no large files.
const LARGEST: usize = 4_000_000;

/// The weights of a module in 16 bits, under its names with `prefix` in front, in parts of at most [`LARGEST`] bytes.
fn parts_of(module: &dyn Module, prefix: &str) -> Vec<Vec<(String, Array)>> {
    let (mut parts, mut size) = (vec![vec![]], 0);
    for (name, value) in state_dict(module) {
        let Value::F32(array) = value else { continue };
        size += 2 * array.len();
        if size > LARGEST && !parts[parts.len() - 1].is_empty() {
            (parts, size) = ([parts, vec![vec![]]].concat(), 2 * array.len());
        }
        parts.last_mut().expect("there is one").push((format!("{prefix}{name}"), array));
    }
    parts
}

// %% notebooks/36_your_own_stable_diffusion.ipynb la-shards
/// Writes them as `STEM.safetensors`, or as shards with an index that says which tensor is in which.
fn write_weights(folder: &Path, stem: &str, module: &dyn Module, prefix: &str) -> Result<(), FileError> {
    let (parts, facts) = (parts_of(module, prefix), BTreeMap::from([("format".to_owned(), "pt".to_owned())]));
    let (whole, count) = (folder.join(format!("{stem}.safetensors")), parts.len());
    make_folder_of(&whole)?;
    if count == 1 {
        return parts.into_iter().try_for_each(|part| write_half(&whole, part, &facts));
    }
    let (mut map, mut size) = (BTreeMap::new(), 0);
    for (i, part) in parts.into_iter().enumerate() {
        let file = format!("{stem}-{:05}-of-{count:05}.safetensors", i + 1);
        for (name, array) in &part {
            size += 2 * array.len();
            map.insert(name.clone(), file.clone());
        }
        write_half(folder.join(file), part, &facts)?;
    }
    let index = json!({ "metadata": { "total_size": size }, "weight_map": map });
    write_json(&folder.join(format!("{stem}.safetensors.index.json")), &index)?;
    // A file of an earlier time would be read in their place.
    let removed = if whole.exists() { std::fs::remove_file(&whole) } else { Ok(()) };
    removed.map_err(|error| {
        FileError::new(&whole, format!("{error}; remove it, for the shards beside it are newer"))
    })
}

// %% notebooks/36_your_own_stable_diffusion.ipynb la-vae
use minai::vae::AutoencoderKl;

/// Writes `config.json` and `diffusion_pytorch_model.safetensors` (16 bits) of an autoencoder into its folder.
///
/// # Errors
/// When a file can't be written.
pub fn save_vae(folder: &Path, model: &AutoencoderKl) -> Result<(), FileError> {
    let config = &model.config;
    let stages = config.channels.len();
    let json = json!({
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": config.channels,
        "down_block_types": vec!["DownEncoderBlock2D"; stages],
        "in_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "layers_per_block": config.layers,
        "norm_num_groups": config.groups,
        "out_channels": config.out_channels,
        "scaling_factor": config.scaling_factor,
        "up_block_types": vec!["UpDecoderBlock2D"; stages],
    });
    write_weights(folder, "diffusion_pytorch_model", model, "")?;
    write_json(&folder.join("config.json"), &json)
}

// %% notebooks/36_your_own_stable_diffusion.ipynb la-text
use minai::clip::{ClipText, HiddenAct};
use minai::tokenizer::Tokenizer;

/// Writes `config.json` and `model.safetensors` (16 bits) of a text encoder into its folder. Its tokenizer says by which
/// tokens prompts begin and end.
///
/// # Errors
/// When a file can't be written.
pub fn save_text_encoder(folder: &Path, model: &ClipText, tokenizer: &Tokenizer) -> Result<(), FileError> {
    let config = &model.config;
    let json = json!({
        "architectures": ["CLIPTextModel"],
        "bos_token_id": tokenizer.start(),
        "eos_token_id": tokenizer.end(),
        "hidden_act": if config.activation == HiddenAct::Gelu { "gelu" } else { "quick_gelu" },
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "layer_norm_eps": config.eps,
        "max_position_embeddings": config.positions,
        "model_type": "clip_text_model",
        "num_attention_heads": config.heads,
        "num_hidden_layers": config.layers,
        "pad_token_id": tokenizer.pad(),
        "projection_dim": config.width,
        "vocab_size": config.vocabulary,
    });
    write_weights(folder, "model", model, "text_model.")?;
    write_json(&folder.join("config.json"), &json)
}

// %% notebooks/36_your_own_stable_diffusion.ipynb la-unet
use minai::unet::{BlockKind, UNet};

fn kinds(kinds: &[BlockKind], way: &str) -> Vec<String> {
    let name = |kind: &BlockKind| match kind {
        BlockKind::Plain => format!("{way}Block2D"),
        BlockKind::CrossAttention => format!("CrossAttn{way}Block2D"),
    };
    kinds.iter().map(name).collect()
}

/// Writes `config.json` and `diffusion_pytorch_model.safetensors` (16 bits, in shards if they are large) of a U-Net into its
/// folder. `size` is that of its latents.
///
/// # Errors
/// When a file can't be written.
pub fn save_unet(folder: &Path, model: &UNet, size: usize) -> Result<(), FileError> {
    let config = model.config();
    let json = json!({
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": config.heads,
        "block_out_channels": config.block_out_channels,
        "cross_attention_dim": config.cross_attention_dim,
        "down_block_types": kinds(&config.down_blocks, "Down"),
        "flip_sin_to_cos": config.flip_sin_to_cos,
        "freq_shift": config.freq_shift as i64,
        "in_channels": config.in_channels,
        "layers_per_block": config.layers_per_block,
        "norm_eps": config.norm_eps,
        "norm_num_groups": config.norm_num_groups,
        "out_channels": config.out_channels,
        "sample_size": size,
        "transformer_layers_per_block": config.transformer_layers,
        "up_block_types": kinds(&config.up_blocks, "Up"),
        "use_linear_projection": config.use_linear_projection,
    });
    write_weights(folder, "diffusion_pytorch_model", model, "")?;
    write_json(&folder.join("config.json"), &json)
}

// %% notebooks/36_your_own_stable_diffusion.ipynb la-tokenizer
/// Writes a vocabulary, as [`learn_vocabulary`](minai::tokenizer::learn_vocabulary) makes it, for prompts of `length`
/// tokens with start and end.
///
/// # Errors
/// When a file can't be written.
pub fn save_tokenizer(folder: &Path, vocabulary: &str, merges: &str, length: usize) -> Result<(), FileError> {
    let (start, end) = ("<|startoftext|>", "<|endoftext|>");
    let settings = json!({
        "bos_token": start,
        "do_lower_case": true,
        "eos_token": end,
        "model_max_length": length,
        "pad_token": end,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": end,
    });
    write_text(&folder.join("vocab.json"), vocabulary)?;
    write_text(&folder.join("merges.txt"), merges)?;
    write_json(&folder.join("tokenizer_config.json"), &settings)
}

// %% notebooks/36_your_own_stable_diffusion.ipynb la-index
/// Writes `model_index.json`, and the scheduler's configuration: v1's noise levels, for a U-Net that predicts velocities.
///
/// # Errors
/// When a file can't be written.
pub fn save_index(folder: &Path) -> Result<(), FileError> {
    let scheduler = json!({
        "_class_name": "DPMSolverMultistepScheduler",
        "algorithm_type": "dpmsolver++",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "solver_order": 2,
        "timestep_spacing": "linspace",
    });
    write_json(&folder.join("scheduler").join("scheduler_config.json"), &scheduler)?;
    let index = json!({
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [null, null],
        "image_encoder": [null, null],
        "requires_safety_checker": false,
        "safety_checker": [null, null],
        "scheduler": ["diffusers", "DPMSolverMultistepScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    });
    write_json(&folder.join("model_index.json"), &index)
}
