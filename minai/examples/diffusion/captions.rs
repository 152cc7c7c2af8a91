//! The three trainings of lesson 36, from which a small Stable Diffusion comes: an autoencoder, a text encoder by contrast,
//! and a U-Net that is told captions, with the text encoder trained on.

use crate::train::{Learned, Length, Plan, learn};
use minai::clip::{ClipConfig, ClipText};
use minai::emoji::{Emoji, emoji};
use minai::karras::LogNormal;
use minai::layout::{save_index, save_text_encoder, save_tokenizer, save_unet, save_vae};
use minai::noise::NoiseSchedule;
use minai::prelude::*;
use minai::stable_diffusion::{open_text_encoder, open_vae};
use minai::text_to_image::{
    Captioned, Compress, Contrast, NoisyCaptioned, Pictures, TextToImage, balanced, latents_of,
    load_pictures, measure_scale, quiet, small_tables, split_held_back,
};
use minai::tokenizer::{Tokenizer, batch, learn_vocabulary};
use minai::unet::{BlockKind, UNet, UNetConfig};
use minai::vae::{AutoencoderKl, VaeConfig};
use minai::weights::Precision;
use serde_json::{Value as Json, json};
use std::error::Error;
use std::fs;
use std::path::Path;

#[path = "../support/machine.rs"]
mod machine;

/// What can be trained, in this order.
#[derive(Clone, Copy)]
pub enum Part {
    Vae,
    Clip,
    Unet,
}

pub const PLANS: [(Plan, &str); 3] = [
    (
        Plan { name: "emoji-vae", steps: 4_487, batch: 16, lr: 2e-3, ema: 0.995 },
        "lesson 36: an autoencoder of emoji",
    ),
    (
        Plan { name: "emoji-clip", steps: 1_520, batch: 128, lr: 1e-3, ema: 0.99 },
        "lesson 36: a text encoder, by contrast with emoji-vae's latents",
    ),
    (
        Plan { name: "emoji-sd", steps: 8_640, batch: 64, lr: 1.5e-3, ema: 0.998 },
        "lesson 36: text to image, with the two before it",
    ),
];

impl Part {
    pub fn named(name: &str) -> Option<Self> {
        let at = PLANS.iter().position(|(plan, _)| plan.name == name)?;
        Some([Part::Vae, Part::Clip, Part::Unet][at])
    }
}

/// The folder of the text encoder before it is trained on.
const BEGINNING: &str = "text_encoder_by_contrast";

/// Tokens of a prompt, start and end included.
const LENGTH: usize = 32;

/// Merges of the vocabulary: enough that nearly each word of the captions is one token.
const MERGES: usize = 2_200;

fn vae_config() -> VaeConfig {
    VaeConfig { channels: vec![16, 32, 64], layers: 1, groups: 8, ..VaeConfig::sd15() }
}

fn text_config(vocabulary: usize) -> ClipConfig {
    ClipConfig {
        vocabulary,
        positions: LENGTH,
        width: 128,
        inner: 512,
        layers: 2,
        heads: 4,
        ..ClipConfig::sd15()
    }
}

fn unet_config() -> UNetConfig {
    use BlockKind::*;
    UNetConfig {
        block_out_channels: vec![32, 64, 88],
        down_blocks: vec![Plain, CrossAttention, CrossAttention],
        up_blocks: vec![CrossAttention, CrossAttention, Plain],
        layers_per_block: vec![1; 3],
        heads: vec![4; 3],
        cross_attention_dim: 128,
        norm_num_groups: 8,
        ..UNetConfig::sd15()
    }
}

/// Pictures with captions, the numbers of those to train with, and of those that are held back.
type Split = (Emoji, Vec<usize>, Vec<usize>);

/// The emoji, or the pictures of a folder, of which each twentieth is held back.
pub fn split(folder: Option<&Path>) -> Result<Split, Box<dyn Error>> {
    let Some(folder) = folder else {
        let emoji = emoji()?;
        let (train, held) = split_held_back(&emoji)?;
        return Ok((emoji, train, held));
    };
    let pictures = load_pictures(folder)?;
    let (held, train): (Vec<_>, Vec<_>) = (0..pictures.captions.len()).partition(|i| i % 20 == 19);
    println!("{}: {} pictures to train with, {} held back", folder.display(), train.len(), held.len());
    Ok((pictures, train, held))
}

pub fn train(part: Part, length: Length, data: Option<&Path>, folder: &Path) -> Result<(), Box<dyn Error>> {
    let pictures = split(data)?;
    // Rather now than after the training.
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    match part {
        Part::Vae => train_vae(length, pictures, folder),
        Part::Clip => train_clip(length, pictures, folder),
        Part::Unet => train_unet(length, pictures, folder),
    }
}

/// How a training went.
fn facts<T: Task>(plan: &Plan, seed: u64, learned: &Learned<T>) -> Json {
    let (train, valid): (Vec<f32>, Vec<f32>) = learned.losses.iter().copied().unzip();
    json!({
        "name": plan.name,
        "seed": seed,
        "steps": learned.steps,
        "batch": plan.batch,
        "rate": plan.lr,
        "seconds": learned.seconds.round(),
        "machine": machine::machine(),
        "threads": minai::kernels::threads::threads(),
        "train_loss": train,
        "valid_loss": valid,
    })
}

/// Writes it to `NAME.json` in the folder, once the weights are there.
fn note(plan: &Plan, facts: &Json, folder: &Path) -> Result<(), Box<dyn Error>> {
    let path = folder.join(format!("{}.json", plan.name));
    fs::write(&path, format!("{facts}\n")).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("saved to {}", folder.display());
    Ok(())
}

fn train_vae(length: Length, (emoji, train, held): Split, folder: &Path) -> Result<(), Box<dyn Error>> {
    let sets =
        [balanced(&emoji.captions, &train), held].map(|indices| Pictures { emoji: emoji.clone(), indices });
    let task =
        |rng: &mut Generator| Compress { model: AutoencoderKl::new(rng, &vae_config()), kl_weight: 2e-4 };
    let (plan, seed) = (PLANS[0].0, length.seed);
    let learned = learn(plan, length, task, sets.into())?;
    let facts = facts(&plan, seed, &learned);
    let Learned { task, mut ema, .. } = learned;
    let mut model = task.model;
    ema.swap(&model);
    let latents = latents_of(&model, &emoji);
    measure_scale(&mut model, &latents, &train);
    println!("scaling factor {}", model.config.scaling_factor);
    save_vae(&folder.join("vae"), &model)?;
    note(&plan, &facts, folder)
}

/// Latents and tokens of all emoji.
fn captioned(emoji: &Emoji, tokenizer: &Tokenizer, folder: &Path) -> Result<Captioned, Box<dyn Error>> {
    let (vae, _) = open_vae(folder.join("vae"), Precision::Single)
        .map_err(|error| format!("{error}\ntrain `emoji-vae` into this folder first"))?;
    let latents = Tensor::from(latents_of(&vae, emoji)) * vae.scaling_factor();
    let tokens: Vec<_> = emoji.captions.iter().map(|caption| tokenizer.tokens(caption)).collect();
    if let Some(cut) = tokens.iter().find_map(|tokens| tokens.cut.as_ref()) {
        println!("{cut}");
    }
    Ok(Captioned { latents: latents.data, tokens: batch(&tokens), indices: vec![] })
}

fn train_clip(length: Length, (emoji, train, held): Split, folder: &Path) -> Result<(), Box<dyn Error>> {
    let seen = train.iter().map(|&i| emoji.captions[i].as_str());
    let (vocabulary, merges) = learn_vocabulary(seen, MERGES);
    save_tokenizer(&folder.join("tokenizer"), &vocabulary, &merges, LENGTH)?;
    let tokenizer = Tokenizer::open(folder.join("tokenizer"))?;
    println!("{} tokens", tokenizer.vocabulary_size());
    let all = captioned(&emoji, &tokenizer, folder)?;
    let sets = [balanced(&emoji.captions, &train), held].map(|indices| Captioned { indices, ..all.clone() });
    let task = |rng: &mut Generator| {
        let text = ClipText::new(rng, &text_config(tokenizer.vocabulary_size()));
        small_tables(&text, rng);
        Contrast::new(rng, text, i64::from(tokenizer.end()))
    };
    let (plan, seed) = (PLANS[1].0, length.seed);
    let learned = learn(plan, length, task, sets.into())?;
    let facts = facts(&plan, seed, &learned);
    let Learned { task, mut ema, .. } = learned;
    ema.swap(&task);
    // Not where the whole model has its text encoder: `emoji-sd` trains it on, and begins here again when it is repeated.
    save_text_encoder(&folder.join(BEGINNING), &task.text, &tokenizer)?;
    note(&plan, &facts, folder)
}

fn train_unet(length: Length, (emoji, train, held): Split, folder: &Path) -> Result<(), Box<dyn Error>> {
    let tokenizer = Tokenizer::open(folder.join("tokenizer"))
        .map_err(|error| format!("{error}\ntrain `emoji-clip` into this folder first"))?;
    let all = captioned(&emoji, &tokenizer, folder)?;
    let empty: Vec<i64> = tokenizer.tokens("").ids.into_iter().map(i64::from).collect();
    let sets = [balanced(&emoji.captions, &train), held].map(|indices| NoisyCaptioned {
        data: Captioned { indices, ..all.clone() },
        schedule: NoiseSchedule::stable_diffusion(),
        levels: LogNormal { mean: 0.4, std: 1.3 },
        dropout: 0.1,
        empty: empty.clone(),
    });
    // Looked at before the long work begins.
    let text = || open_text_encoder(folder.join(BEGINNING), Precision::Single);
    text().map_err(|error| format!("{error}\ntrain `emoji-clip` into this folder first"))?;
    let task = |rng: &mut Generator| {
        let (text, _) = text().expect("it was there before");
        let unet = UNet::new(rng, &unet_config());
        quiet(&unet);
        TextToImage { text, unet }
    };
    let (plan, seed) = (PLANS[2].0, length.seed);
    let learned = learn(plan, length, task, sets.into())?;
    let facts = facts(&plan, seed, &learned);
    let Learned { task, mut ema, .. } = learned;
    ema.swap(&task);
    save_text_encoder(&folder.join("text_encoder"), &task.text, &tokenizer)?;
    save_unet(&folder.join("unet"), &task.unet, 16)?;
    save_index(folder)?;
    note(&plan, &facts, folder)
}
