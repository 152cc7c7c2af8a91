// Owned by notebooks/35b_files.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 8a1a69194cdec780
//! Low-rank changes of a model's weights (LoRA), in the forms in which people share them.

// %% notebooks/35b_files.ipynb lo-role
/// What a tensor of a LoRA's file is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    Down,
    Up,
    Alpha,
}

/// The ends of names, and what they mean.
const ENDS: [(&str, Role); 11] = [
    (".lora_down.weight", Role::Down),
    (".lora_up.weight", Role::Up),
    (".alpha", Role::Alpha),
    (".lora_A.weight", Role::Down),
    (".lora_B.weight", Role::Up),
    (".lora_linear_layer.down.weight", Role::Down),
    (".lora_linear_layer.up.weight", Role::Up),
    (".lora.down.weight", Role::Down),
    (".lora.up.weight", Role::Up),
    ("_lora.down.weight", Role::Down),
    ("_lora.up.weight", Role::Up),
];

/// The layer that a tensor changes, as a folder calls it, or in kohya's spelling; and what the tensor is.
fn layer_of(name: &str) -> Option<(String, Role)> {
    let (layer, role) = ENDS.iter().find_map(|(end, role)| Some((name.strip_suffix(end)?, *role)))?;
    let layer = layer.strip_prefix("base_model.model.").unwrap_or(layer);
    let layer = if let Some(flat) = layer.strip_prefix("lora_te1_") {
        format!("lora_te_{flat}")
    } else {
        layer.replace(".processor.to_out", ".to_out.0").replace(".processor.", ".")
    };
    Some((layer, role))
}

// %% notebooks/35b_files.ipynb lo-layers
use minai::nn::{Module, Parameter, named_parameters};
use minai::stable_diffusion::StableDiffusion;
use std::collections::HashMap;

/// The weights of a model's layers, by all the names that files have for them.
fn layers(model: &StableDiffusion) -> HashMap<String, Parameter> {
    let mut all = HashMap::new();
    let parts: [(&dyn Module, &[&str], &str); 2] = [
        (&model.unet, &["unet."], "lora_unet_"),
        (&model.text_encoder, &["text_encoder.text_model.", "text_encoder."], "lora_te_text_model_"),
    ];
    for (module, prefixes, flat) in parts {
        for (name, parameter) in named_parameters(module) {
            let Some(layer) = name.strip_suffix(".weight") else { continue };
            all.insert(format!("{flat}{}", layer.replace('.', "_")), parameter.clone());
            prefixes.iter().for_each(|prefix| {
                all.insert(format!("{prefix}{layer}"), parameter.clone());
            });
        }
    }
    all
}

// %% notebooks/35b_files.ipynb lo-pairs
use minai::io::file::FileError;
use minai::io::safetensors::TensorFile;
use minai::tensor::Tensor;
use std::collections::BTreeMap;

/// The tensors of a layer: down, up, and alpha.
#[derive(Default)]
struct Pair {
    down: Option<Tensor>,
    up: Option<Tensor>,
    alpha: Option<f32>,
}

/// Why a tensor is none of a LoRA's.
fn foreign(name: &str) -> String {
    let others = [
        ("hada_", "a LoHa"),
        ("lokr_", "a LoKr"),
        ("dora_scale", "a DoRA"),
        ("lora_mid", "a LoRA with a third matrix"),
    ];
    let known = others.iter().find(|(part, _)| name.contains(part)).map(|(_, what)| *what);
    let what = known.unwrap_or("no LoRA, or one of a kind that is not known here");
    format!(
        "is {what}, by its tensor `{name:.200}`; LoRAs with lora_down and lora_up (or lora_A and lora_B) are read"
    )
}

fn pairs(file: &TensorFile) -> Result<BTreeMap<String, Pair>, FileError> {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    for name in file.names() {
        let (layer, role) = layer_of(&name).ok_or_else(|| FileError::new(file.path(), foreign(&name)))?;
        let (pair, values) = (pairs.entry(layer).or_default(), Tensor::from(file.f32(&name)?));
        match role {
            Role::Down => pair.down = Some(values),
            Role::Up => pair.up = Some(values),
            Role::Alpha => pair.alpha = values.data.iter().next().copied(),
        }
    }
    Ok(pairs)
}

// %% notebooks/35b_files.ipynb lo-change
/// α / r B A in the shape of the layer's weight, times `factor`.
fn change(pair: &Pair, shape: &[usize], alpha: Option<f32>, factor: f64) -> Result<Tensor, String> {
    let (Some(down), Some(up)) = (&pair.down, &pair.up) else {
        return Err("lacks one of its two matrices".into());
    };
    let (rank, outputs) = (down.shape()[0], up.shape()[0]);
    let rest = down.data.len() / rank.max(1);
    let fits = rank > 0 && up.data.len() == outputs * rank && outputs == shape[0];
    if !fits || rest != shape[1..].iter().product::<usize>() {
        return Err(format!(
            "has matrices {:?} and {:?} for a weight of shape {shape:?}",
            up.shape(),
            down.shape()
        ));
    }
    let scale = factor * f64::from(pair.alpha.or(alpha).unwrap_or(rank as f32)) / rank as f64;
    Ok(up.reshape((outputs, rank)).matmul(&down.reshape((rank, rest))).reshape(shape) * scale as f32)
}

/// The alphas that diffusers writes beside the tensors: one for all layers of the U-Net, one for those of the text encoder.
fn noted_alphas(file: &TensorFile) -> [Option<f32>; 2] {
    let noted = file.metadata().get("lora_adapter_metadata").and_then(|text| serde_json::from_str(text).ok());
    let noted: serde_json::Value = noted.unwrap_or_default();
    ["unet", "text_encoder"].map(|part| Some(noted[format!("{part}.lora_alpha")].as_f64()? as f32))
}

// %% notebooks/35b_files.ipynb lo-merge
use std::path::Path;

/// Adds a LoRA to a model's weights, `factor` times: 1 is as it was trained. Gives the number of layers that it changes.
///
/// # Errors
/// When the file can't be read, is none, or is one for another model: then the model is as it was.
pub fn merge_lora(model: &StableDiffusion, path: impl AsRef<Path>, factor: f64) -> Result<usize, FileError> {
    let file = TensorFile::open(path)?;
    let fail = |what: String| FileError::new(file.path(), what);
    let (pairs, layers) = (pairs(&file)?, layers(model));
    let unknown: Vec<&String> = pairs.keys().filter(|name| !layers.contains_key(*name)).collect();
    if let Some(first) = unknown.first() {
        let what =
            format!("changes {} layers that this model does not have, such as `{first:.200}`", unknown.len());
        return Err(fail(what + "; it was made for another model"));
    }
    // First all is computed, then all is changed.
    let (alphas, mut changes) = (noted_alphas(&file), Vec::new());
    for (name, pair) in &pairs {
        let weight = layers[name].data();
        let of_text = name.starts_with("lora_te_") || name.starts_with("text_encoder");
        let change = change(pair, weight.shape(), alphas[usize::from(of_text)], factor).map_err(|what| {
            fail(format!("layer `{name:.200}` {what}; it was made for another model, or is damaged"))
        })?;
        changes.push((&layers[name], Tensor::from(weight) + change));
    }
    let count = changes.len();
    changes.into_iter().for_each(|(parameter, weight)| parameter.set(weight.data));
    Ok(count)
}
