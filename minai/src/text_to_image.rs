// Owned by notebooks/36_your_own_stable_diffusion.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash cce21e6d808861f1
//! Text to image, trained from nothing: an autoencoder, a text encoder by contrast, and a U-Net that is told captions.

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-split
use minai::emoji::Emoji;
use minai::io::data::places_text;
use minai::io::file::FileError;
use std::collections::HashSet;

/// The numbers of the pictures to learn from, and of those whose captions stand in `emoji/held_back.txt` of the data
/// folder, a caption a line.
///
/// # Errors
/// When the file is not there.
pub fn split_held_back(emoji: &Emoji) -> Result<(Vec<usize>, Vec<usize>), FileError> {
    let folders = minai::datasets::data_folders();
    let read = |folder: &std::path::PathBuf| std::fs::read_to_string(folder.join("emoji/held_back.txt")).ok();
    let text = folders.iter().find_map(read).ok_or_else(|| {
        let what = format!("not found {}; it is part of the course's repository", places_text(&folders));
        FileError::new("emoji/held_back.txt", what)
    })?;
    let held: HashSet<&str> = text.lines().collect();
    Ok((0..emoji.captions.len()).partition(|&i| !held.contains(emoji.captions[i].as_str())))
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-balance
use std::collections::HashMap;

/// The caption without tones of skin.
fn without_tone(caption: &str) -> &str {
    match caption.rsplit_once(", ") {
        Some((subject, tone)) if tone.contains("skin") => subject,
        _ => caption,
    }
}

/// An order to learn from, in which of many pictures that differ in skin only each comes more rarely: of g such pictures
/// each √(16 / g) times, rounded, and at least once.
pub fn balanced(captions: &[String], indices: &[usize]) -> Vec<usize> {
    let mut groups: HashMap<&str, usize> = HashMap::new();
    indices.iter().for_each(|&i| *groups.entry(without_tone(&captions[i])).or_default() += 1);
    let times =
        |i: &usize| (16.0 / groups[without_tone(&captions[*i])] as f64).sqrt().round().max(1.0) as usize;
    indices.iter().flat_map(|i| vec![*i; times(i)]).collect()
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-pictures
use minai::array::Array;
use minai::generator::Generator;
use minai::loader::Dataset;

/// Pictures without their captions: what an autoencoder learns from.
#[derive(Clone, Debug)]
pub struct Pictures {
    /// Where they are from.
    pub emoji: Emoji,
    /// Which of them; a number may come more than once.
    pub indices: Vec<usize>,
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-pictures-b
impl Dataset for Pictures {
    /// (n, 3, 64, 64), from -1 to 1
    type Batch = Array;

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn batch(&self, indices: &[usize], _: &mut Generator) -> Array {
        let indices: Vec<usize> = indices.iter().map(|&i| self.indices[i]).collect();
        self.emoji.pixels(&indices).data
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-compress
use minai::learner::Task;
use minai::nn::{Mode, Module, Pass};
use minai::tensor::{Tensor, cat};
use minai::vae::AutoencoderKl;
use ndarray::s;

/// An autoencoder in training.
#[derive(Debug)]
pub struct Compress {
    /// What is trained.
    pub model: AutoencoderKl,
    /// How much the KL divergence of a latent counts.
    pub kl_weight: f32,
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-difference
/// How far two pictures (n, c, h, w) differ: their pixels, squared and not, and their edges.
fn difference(x: &Tensor, y: &Tensor) -> Tensor {
    let off = x - y;
    let (down, right) = (
        off.slice(s![.., .., 1.., ..]) - off.slice(s![.., .., ..-1, ..]),
        off.slice(s![.., .., .., 1..]) - off.slice(s![.., .., .., ..-1]),
    );
    let edges = (down.abs().mean(..) + right.abs().mean(..)) * 0.5;
    off.abs().mean(..) + off.powi(2).mean(..) + edges
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-compress-b
impl Task for Compress {
    type Batch = Array;

    fn model(&self) -> &dyn Module {
        &self.model
    }

    /// For each picture its pixels, and after them the KL divergence of its latents.
    fn predict(&self, x: &Array, pass: &mut Pass) -> Tensor {
        let posterior = self.model.encode(&x.clone().into(), pass);
        let latents = match pass.mode {
            Mode::Train => posterior.sample(&mut pass.rng),
            Mode::Eval => posterior.mean.clone(),
        };
        let n = x.shape()[0];
        let pixels = self.model.decode(&latents, pass).reshape((n, -1));
        cat(&[&pixels, &posterior.kl().reshape((n, 1))], 1)
    }

    fn loss(&self, predictions: &Tensor, x: &Array) -> Tensor {
        let pixels = x.len() / x.shape()[0];
        let y = predictions.slice(s![.., ..pixels]).reshape(x.shape());
        let config = &self.model.config;
        let latents = pixels / x.shape()[1] / config.factor().pow(2) * config.latent_channels;
        let kl = predictions.slice(s![.., pixels..]).mean(..) / latents as f32;
        difference(&y, &x.clone().into()) + kl * self.kl_weight
    }

    fn len(&self, x: &Array) -> usize {
        x.shape()[0]
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-latents
use minai::loader::rows;
use minai::tensor::elements;

/// The means of the latents of all these pictures, not scaled: (n, c, h, w).
pub fn latents_of(model: &AutoencoderKl, emoji: &Emoji) -> Array {
    let all: Vec<usize> = (0..emoji.captions.len()).collect();
    let of = |some: &[usize]| model.encode(&emoji.pixels(some), &mut Pass::eval()).mean;
    let parts: Vec<Tensor> = all.chunks(64).map(of).collect();
    cat(&parts.iter().collect::<Vec<_>>(), 0).data
}

/// Sets the factor by which latents are multiplied, so that the chosen ones have standard deviation 1.
pub fn measure_scale(model: &mut AutoencoderKl, latents: &Array, chosen: &[usize]) {
    let std = Tensor::from(rows(latents, chosen)).std(..).item();
    model.config.scaling_factor = std.recip();
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-pairs
/// Pictures as latents, with the tokens of their captions.
#[derive(Clone, Debug)]
pub struct Captioned {
    /// Scaled latents of all pictures: (n, c, h, w)
    pub latents: Array,
    /// The tokens of all captions: (n, length)
    pub tokens: Array<i64>,
    /// Which of them; a number may come more than once.
    pub indices: Vec<usize>,
}

impl Dataset for Captioned {
    type Batch = (Array, Array<i64>);

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn batch(&self, indices: &[usize], _: &mut Generator) -> Self::Batch {
        let indices: Vec<usize> = indices.iter().map(|&i| self.indices[i]).collect();
        (rows(&self.latents, &indices), rows(&self.tokens, &indices))
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-contrast
use minai::clip::ClipText;
use minai::conv::{Conv2d, ConvOptions};
use minai::loss::cross_entropy;
use minai::nn::{Flatten, Init, Linear, Parameter, Parts, Relu, Sequential};

/// A text encoder and a small network for pictures, which learn together which caption belongs to which picture.
#[derive(Debug)]
pub struct Contrast {
    /// The text encoder.
    pub text: ClipText,
    /// The token that ends a caption: the vector at its first place speaks for the whole caption.
    pub end: i64,
    projection: Linear,
    image: Sequential,
    scale: Parameter,
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-contrast-new
impl Contrast {
    /// For latents of 4 channels, 16 by 16.
    pub fn new(init: &mut dyn Init, text: ClipText, end: i64) -> Self {
        let (width, halve) =
            (text.config.width, ConvOptions { stride: 2, padding: 1, ..ConvOptions::default() });
        let mut image = Sequential::new();
        for (c_in, c_out) in [(4, 64), (64, 128), (128, 192)] {
            image = image.add(Conv2d::new(init, c_in, c_out, 3, halve)).add(Relu);
        }
        let image = image.add(Flatten).add(Linear::new(init, 192 * 2 * 2, width));
        let scale = Parameter::new(Array::new(vec![(1.0 / 0.07_f32).ln()], &[]));
        Contrast { projection: Linear::new(init, width, width), text, end, image, scale }
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-contrast-b
impl Module for Contrast {
    fn parts(&self, parts: &mut Parts) {
        parts.module("text", &self.text);
        parts.module("projection", &self.projection);
        parts.module("image", &self.image);
        parts.parameter("scale", &self.scale);
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-contrast-captions
/// Each row divided by its length.
fn unit(x: &Tensor) -> Tensor {
    x / &(x.powi(2).sum_keepdim(-1) + 1e-12).sqrt()
}

impl Contrast {
    /// A vector of length 1 for each caption (n, length): (n, width).
    pub fn captions(&self, tokens: &Array<i64>, pass: &mut Pass) -> Tensor {
        let all = pass.scope("text", &self.text, &[], |pass| self.text.forward(tokens, pass));
        let &[n, length, width] = all.shape() else { unreachable!("(n, length, width)") };
        let end = |row: &[i64]| row.iter().position(|&id| id == self.end).unwrap_or(length - 1);
        let ends = elements(tokens).chunks(length).enumerate().map(|(i, row)| (i * length + end(row)) as i64);
        let ends = Array::new(ends.collect(), &[n]);
        unit(&pass.call(
            "projection",
            &self.projection,
            &all.reshape((n * length, width)).index_select(0, &ends),
        ))
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-contrast-c
impl Task for Contrast {
    type Batch = (Array, Array<i64>);

    fn model(&self) -> &dyn Module {
        self
    }

    /// How well each picture fits each caption: (n, n).
    fn predict(&self, (latents, tokens): &Self::Batch, pass: &mut Pass) -> Tensor {
        let pictures = unit(&pass.call("image", &self.image, &latents.clone().into()));
        let captions = self.captions(tokens, pass);
        pass.get(&self.scale).exp() * pictures.matmul(&captions.t())
    }

    fn loss(&self, scores: &Tensor, (latents, _): &Self::Batch) -> Tensor {
        let n = latents.shape()[0];
        let right = Array::new((0..n as i64).collect(), &[n]);
        (cross_entropy(scores, &right) + cross_entropy(&scores.t(), &right)) / 2.0
    }

    fn len(&self, (latents, _): &Self::Batch) -> usize {
        latents.shape()[0]
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-tables
use minai::nn::named_parameters;

/// Draws the tables of tokens and of positions anew, small, as CLIP has them: standard deviations 0.02 and 0.01.
pub fn small_tables(text: &ClipText, rng: &mut Generator) {
    for (name, parameter) in named_parameters(text) {
        let std = if name.contains("token_embedding") { 0.02 } else { 0.01 };
        if name.starts_with("embeddings.") {
            parameter.set(rng.normal(&parameter.shape(), 0.0, std));
        }
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-noisy
use minai::karras::LogNormal;
use minai::noise::NoiseSchedule;

/// Captioned latents that come with fresh noise, each at one of a schedule's levels; now and then without the caption.
#[derive(Clone, Debug)]
pub struct NoisyCaptioned {
    /// The latents and captions.
    pub data: Captioned,
    /// The levels that there are.
    pub schedule: NoiseSchedule,
    /// How often each level comes.
    pub levels: LogNormal,
    /// The share that is shown without its caption.
    pub dropout: f64,
    /// The tokens of the empty prompt.
    pub empty: Vec<i64>,
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-noisy-batch
/// What the U-Net is shown, and what it should say.
#[derive(Clone, Debug)]
pub struct CaptionBatch {
    /// (x₀ + σ n) / √(1 + σ²): (n, c, h, w)
    pub x: Array,
    /// The step of each: (n)
    pub times: Vec<f32>,
    /// (n, length)
    pub tokens: Array<i64>,
    /// v = (n - σ x₀) / √(1 + σ²): (n, c, h, w)
    pub velocity: Array,
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-noisy-b
/// What the network sees of x₀ and noise n (n, c, h, w) at these levels, one for each, and the velocity that it should say.
fn mixed(x0: &Tensor, noise: &Tensor, sigmas: &[f64]) -> (Array, Array) {
    let column = |f: &dyn Fn(f64) -> f64| -> Tensor {
        Array::new(sigmas.iter().map(|&sigma| f(sigma) as f32).collect(), &[sigmas.len(), 1, 1, 1]).into()
    };
    let (sigma, alpha) = (column(&|sigma| sigma), column(&|sigma| sigma.hypot(1.0).recip()));
    let (x, velocity) = ((x0 + noise * &sigma) * &alpha, (noise - x0 * &sigma) * &alpha);
    (x.data, velocity.data)
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-noisy-c
impl Dataset for NoisyCaptioned {
    type Batch = CaptionBatch;

    fn len(&self) -> usize {
        self.data.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> CaptionBatch {
        let (x0, mut tokens) = self.data.batch(indices, rng);
        let length = self.empty.len();
        let dropped = rng.bernoulli(&[indices.len()], self.dropout);
        for (row, &dropped) in tokens.as_slice_mut().expect("rows").chunks_mut(length).zip(dropped.iter()) {
            if dropped == 1.0 {
                row.copy_from_slice(&self.empty);
            }
        }
        let drawn = self.levels.draw(indices.len(), rng);
        let times: Vec<f64> =
            drawn.iter().map(|&sigma| self.schedule.time(f64::from(sigma)).round()).collect();
        let sigmas: Vec<f64> = times.iter().map(|&t| self.schedule.sigma(t)).collect();
        let noise = rng.randn(x0.shape()).into();
        let (x, velocity) = mixed(&x0.into(), &noise, &sigmas);
        CaptionBatch { x, times: times.iter().map(|&t| t as f32).collect(), tokens, velocity }
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-task
use minai::loss::mse_loss;
use minai::unet::UNet;

/// A text encoder and a U-Net, which learn together what a caption looks like.
#[derive(Debug)]
pub struct TextToImage {
    /// From tokens to vectors.
    pub text: ClipText,
    /// From noisy latents and these vectors to velocities.
    pub unet: UNet,
}

impl Module for TextToImage {
    fn parts(&self, parts: &mut Parts) {
        parts.module("text", &self.text);
        parts.module("unet", &self.unet);
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-task-b
impl Task for TextToImage {
    type Batch = CaptionBatch;

    fn model(&self) -> &dyn Module {
        self
    }

    fn predict(&self, batch: &CaptionBatch, pass: &mut Pass) -> Tensor {
        let context = pass.scope("text", &self.text, &[], |pass| self.text.forward(&batch.tokens, pass));
        let x = Tensor::from(batch.x.clone());
        pass.scope("unet", &self.unet, &[&x, &context], |pass| {
            self.unet.forward(&x, &batch.times, &context, pass)
        })
    }

    fn loss(&self, predictions: &Tensor, batch: &CaptionBatch) -> Tensor {
        mse_loss(predictions, &batch.velocity.clone().into())
    }

    fn len(&self, batch: &CaptionBatch) -> usize {
        batch.times.len()
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-quiet
/// Sets to 0 what each block adds, so that the U-Net begins as its shortcuts: the last convolution of residual blocks, the
/// way out of spatial transformers, and the last convolution of all.
pub fn quiet(unet: &UNet) {
    for (name, parameter) in named_parameters(unet) {
        if ["conv2.", "proj_out.", "conv_out."].iter().any(|part| name.contains(part)) {
            parameter.update(|values| values.fill(0.0));
        }
    }
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-folder
use minai::io::picture;
use std::fs;
use std::path::{Path, PathBuf};

/// The pictures of a folder, by name, each with its caption: the second column of `captions.tsv`, where there is such a
/// table (file, caption), or else the text of the file beside the picture: `boat.txt` for `boat.jpg`.
fn captioned_files(folder: &Path) -> Result<Vec<(PathBuf, String)>, FileError> {
    let fail = |path: &Path, error: &dyn std::fmt::Display| FileError::new(path, error.to_string());
    let read = |path: &Path| fs::read_to_string(path).map_err(|error| fail(path, &error));
    let table = folder.join("captions.tsv");
    if table.is_file() {
        let text = read(&table)?;
        let row = |(i, line): (usize, &str)| match line.split_once('\t') {
            Some((file, caption)) if !file.is_empty() => Ok((folder.join(file), caption.trim().to_owned())),
            _ => Err(fail(
                &table,
                &format!("line {}: a file and a caption, with a tab between them, are wanted", i + 1),
            )),
        };
        return text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(row).collect();
    }
    let entries = fs::read_dir(folder).map_err(|error| fail(folder, &error))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| picture::check_name(path).is_ok());
    paths.sort();
    let caption = |path: PathBuf| {
        let beside = path.with_extension("txt");
        let text = fs::read_to_string(&beside)
            .map_err(|error| fail(&beside, &format!("{error}; write the picture's caption into it")))?;
        Ok((path, text.trim().to_owned()))
    };
    paths.into_iter().map(caption).collect()
}

// %% notebooks/36_your_own_stable_diffusion.ipynb tt-folder-b
/// The fewest pictures that a training makes sense with.
const LEAST: usize = 50;

/// Pictures of one's own with their captions, each scaled until it fills 64 by 64 pixels, and cut off evenly where it is
/// too long. A caption stands in a text file beside its picture (`boat.txt` for `boat.jpg`), or all stand in
/// `captions.tsv`, a file's name and its caption in each line, with a tab between them.
///
/// # Errors
/// When a file can't be read, a caption is missing or empty, or there are fewer than 50 pictures.
pub fn load_pictures(folder: &Path) -> Result<Emoji, FileError> {
    let files = captioned_files(folder)?;
    if files.len() < LEAST {
        let what = format!("has {} pictures with captions; at least {LEAST} are needed", files.len());
        return Err(FileError::new(folder, what));
    }
    let (mut pixels, mut captions) = (Vec::with_capacity(files.len() * 3 * 64 * 64), vec![]);
    for (path, caption) in files {
        if caption.is_empty() {
            return Err(FileError::new(path, "has an empty caption; say what it shows"));
        }
        let small = picture::fill(&picture::read(&path)?, (64, 64));
        let bytes = elements(&small);
        (0..3).for_each(|channel| pixels.extend(bytes.iter().skip(channel).step_by(3)));
        captions.push(caption);
    }
    Ok(Emoji { images: Array::new(pixels, &[captions.len(), 3, 64, 64]), captions })
}
