// Owned by notebooks/23_attention.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 4c10065771fcfa32
//! A digit in two opposite corners of a canvas, and a small network that draws such canvases, with attention or without.

use crate::attention::MultiheadAttention;

// %% notebooks/23_attention.ipynb cn-canvas
use minai::array::Array;

/// Height and width of a canvas, in pixels.
pub const SIDE: usize = 32;

/// Height and width of a digit on it.
pub const DIGIT: usize = 12;

/// A canvas (32 · 32) with a digit (12 · 12) in the top left corner and again in the bottom right; elsewhere -1.
fn canvas(digit: &[f32]) -> Vec<f32> {
    let mut pixels = vec![-1.0; SIDE * SIDE];
    for at in [0, SIDE - DIGIT] {
        for (y, row) in digit.chunks(DIGIT).enumerate() {
            let start = (at + y) * SIDE + at;
            pixels[start..start + DIGIT].copy_from_slice(row);
        }
    }
    pixels
}

// %% notebooks/23_attention.ipynb cn-data
use minai::datasets::Images;
use minai::karras::{LevelBatch, LogNormal};
use minai::pool::{Pool, avg_pool2d, upsample_nearest};
use minai::tensor::{Tensor, contiguous, elements};
use ndarray::s;

/// Canvases with noise.
#[derive(Clone, Debug)]
pub struct Corners {
    /// The digits (n, 1, 12, 12), from -1 to 1.
    digits: Array,
    levels: LogNormal,
}

impl Corners {
    /// From images (n, 1, 28, 28) with pixels from 0 to 1: the 24 by 24 pixels in the middle, shrunk to 12 by 12 by the mean
    /// of each 2 by 2. The noise has these levels.
    pub fn new(images: &Images, levels: LogNormal) -> Self {
        let middle = Tensor::from(images.images.clone()).slice(s![.., .., 2..26, 2..26]);
        let shrunk = avg_pool2d(&middle, 2, Pool::default()) * 2.0 - 1.0;
        Corners { digits: contiguous(&shrunk.data), levels }
    }
}

// %% notebooks/23_attention.ipynb cn-canvases
impl Corners {
    /// Canvases without noise (n, 1, 32, 32), with these of the digits.
    ///
    /// # Panics
    /// If there is no such digit.
    #[track_caller]
    pub fn canvases(&self, indices: &[usize]) -> Array {
        let (digits, pixels) = (elements(&self.digits), DIGIT * DIGIT);
        let of_digit = |&i: &usize| canvas(&digits[i * pixels..(i + 1) * pixels]);
        Array::new(indices.iter().flat_map(of_digit).collect(), &[indices.len(), 1, SIDE, SIDE])
    }
}

// %% notebooks/23_attention.ipynb cn-dataset
use minai::generator::Generator;
use minai::loader::Dataset;

impl Dataset for Corners {
    type Batch = LevelBatch;

    fn len(&self) -> usize {
        self.digits.shape()[0]
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> LevelBatch {
        self.levels.noisy(self.canvases(indices), rng)
    }
}

// %% notebooks/23_attention.ipynb cn-zero
use minai::blocks::zero;
use minai::nn::{Module, Parts};

/// What the blocks are told has this width, and is made of half as many waves of the noise level.
const WIDTH: usize = 64;

// %% notebooks/23_attention.ipynb cn-block
use minai::blocks::{conv1, conv3};
use minai::conv::Conv2d;
use minai::nn::{Init, Linear, Pass};

/// x + last(silu(conv(x) + what it is told)). It has no norm, so that a position is reached by its neighbours only.
#[derive(Debug)]
struct Block {
    conv: Conv2d,
    told: Linear,
    last: Conv2d,
}

impl Module for Block {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv", &self.conv);
        parts.module("told", &self.told);
        parts.module("last", &self.last);
    }
}

// %% notebooks/23_attention.ipynb cn-block-2
use minai::activation::silu;

impl Block {
    fn new(init: &mut dyn Init, channels: usize) -> Self {
        let (conv, told) = (conv3(init, channels, channels), Linear::new(init, WIDTH, channels));
        let last = conv1(init, channels, channels);
        zero(&last);
        Block { conv, told, last }
    }

    /// From x (n, channels, h, w), and what it is told (n, 64), to the shape of x.
    fn forward_at(&self, x: &Tensor, told: &Tensor, pass: &mut Pass) -> Tensor {
        let shift = pass.call("told", &self.told, told).unsqueeze(-1).unsqueeze(-1);
        let y = silu(&(pass.call("conv", &self.conv, x) + shift));
        x + pass.call("last", &self.last, &y)
    }
}

// %% notebooks/23_attention.ipynb cn-places
use minai::nn::Parameter;
use minai::norm::LayerNorm;

/// Self-attention between the coarse positions of an image, 2 by 2 of its pixels each, added to it.
#[derive(Debug)]
pub struct PlaceAttention {
    norm: LayerNorm,
    /// A row for each coarse position, which says where it is: (positions, channels).
    places: Parameter,
    attention: MultiheadAttention,
}

impl Module for PlaceAttention {
    fn parts(&self, parts: &mut Parts) {
        parts.module("norm", &self.norm);
        parts.parameter("places", &self.places);
        parts.module("attention", &self.attention);
    }
}

// %% notebooks/23_attention.ipynb cn-waves
/// A row for each position of a grid of this side: cosines and sines of its row's number, then of its column's, of falling
/// wavelength: (side², channels), for a number of channels that 4 divides.
fn place_waves(side: usize, channels: usize) -> Array {
    let wave = |at: usize, i: usize| {
        let angle = std::f32::consts::PI * (at * (i + 1)) as f32 / (2 * side) as f32;
        [1.4 * angle.cos(), 1.4 * angle.sin()] // of mean square 1
    };
    let waves = |at: usize| (0..channels / 4).flat_map(move |i| wave(at, i));
    let row = |place: usize| waves(place / side).chain(waves(place % side));
    Array::new((0..side * side).flat_map(row).collect(), &[side * side, channels])
}

// %% notebooks/23_attention.ipynb cn-places-2
impl PlaceAttention {
    /// For images with this `side`, an even number, and `channels`, which 4 divides. It begins by adding nothing.
    ///
    /// # Panics
    /// If `heads` does not divide `channels`.
    #[track_caller]
    pub fn new(init: &mut dyn Init, side: usize, channels: usize, heads: usize) -> Self {
        let (coarse, attention) = (side / 2, MultiheadAttention::new(init, channels, heads));
        zero(&attention.out_proj);
        let places = init.parameter(&[coarse * coarse, channels], &|_| place_waves(coarse, channels));
        PlaceAttention { norm: LayerNorm::new(&[channels]), places, attention }
    }
}

// %% notebooks/23_attention.ipynb cn-places-3
use minai::nn::Layer;

impl Layer for PlaceAttention {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let coarse = avg_pool2d(x, 2, Pool::default()); // (n, channels, side / 2, side / 2)
        let (n, channels) = (x.shape()[0], x.shape()[1]);
        let rows = coarse.reshape((n, channels, -1)).transpose(1, 2); // (n, places, channels)
        let rows = pass.call("norm", &self.norm, &rows) + pass.get(&self.places);
        let seen = pass.call("attention", &self.attention, &rows);
        x + upsample_nearest(&seen.transpose(1, 2).reshape(coarse.shape()), 2)
    }
}

// %% notebooks/23_attention.ipynb cn-net
use minai::time_embedding::{TimeEmbedding, time_features};

/// The shape of a [`CornerNet`].
#[derive(Clone, Debug, PartialEq)]
pub struct CornerNetConfig {
    /// Channels between its blocks.
    pub channels: usize,
    /// Heads of the attention after half of its blocks; without it if `None`.
    pub heads: Option<usize>,
}

impl Default for CornerNetConfig {
    /// With attention in four heads.
    fn default() -> Self {
        CornerNetConfig { channels: 48, heads: Some(4) }
    }
}

/// Pixels of a position, in height and width.
const PATCH: usize = 2;

/// Blocks of convolutions.
const BLOCKS: usize = 4;

// %% notebooks/23_attention.ipynb cn-net-2
/// A network for canvases: blocks of convolutions over 16 by 16 positions of 2 by 2 pixels, and attention in the middle.
#[derive(Debug)]
pub struct CornerNet {
    time_embedding: TimeEmbedding,
    first: Conv2d,
    blocks: Vec<Block>,
    attention: Option<PlaceAttention>,
    last: Conv2d,
}

impl Module for CornerNet {
    fn parts(&self, parts: &mut Parts) {
        parts.module("time_embedding", &self.time_embedding);
        parts.module("first", &self.first);
        self.blocks.iter().enumerate().for_each(|(i, block)| parts.module(&format!("blocks.{i}"), block));
        self.attention.iter().for_each(|layer| parts.module("attention", layer));
        parts.module("last", &self.last);
    }
}

// %% notebooks/23_attention.ipynb cn-net-3
impl CornerNet {
    /// A network of this shape. The attention's weights are drawn last, so that all others are the same without it.
    ///
    /// # Panics
    /// If the number of heads does not divide that of channels.
    #[track_caller]
    pub fn new(init: &mut dyn Init, config: &CornerNetConfig) -> Self {
        let (c, side) = (config.channels, SIDE / PATCH);
        let time_embedding = TimeEmbedding::new(init, WIDTH / 2, WIDTH);
        let first = conv1(init, PATCH * PATCH, c);
        let blocks = (0..BLOCKS).map(|_| Block::new(init, c)).collect();
        let last = conv1(init, c, PATCH * PATCH);
        zero(&last);
        let attention = config.heads.map(|heads| PlaceAttention::new(init, side, c, heads));
        CornerNet { time_embedding, first, blocks, attention, last }
    }
}

// %% notebooks/23_attention.ipynb cn-forward
use minai::diffusion::{NoisePredictor, pixel_shuffle, pixel_unshuffle};

/// What it predicts is what lesson 22's preconditioner asks for.
impl NoisePredictor for CornerNet {
    fn predict_noise(&self, x: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor {
        let times: Vec<f32> = elements(&sigma.data).iter().map(|sigma| 250.0 * sigma.ln()).collect();
        let waves = time_features(&times, WIDTH / 2, true, 0.0);
        let told = silu(&pass.call("time_embedding", &self.time_embedding, &waves));
        let mut y = pass.call("first", &self.first, &pixel_unshuffle(x, PATCH)); // (n, channels, 16, 16)
        for (i, block) in self.blocks.iter().enumerate() {
            if let (true, Some(layer)) = (i == BLOCKS / 2, &self.attention) {
                y = pass.call("attention", layer, &y);
            }
            let name = format!("blocks.{i}");
            y = pass.scope(&name, block, &[&y], |pass| block.forward_at(&y, &told, pass));
        }
        pixel_shuffle(&pass.call("last", &self.last, &y), PATCH)
    }
}

// %% notebooks/23_attention.ipynb cn-draw
use minai::karras::{Denoise, walk};
use minai::sampling::Sampler;

/// Draws `n` canvases (n, 1, 32, 32) from noise down the levels `sigmas`, which end with 0, with DPM-Solver++(2M).
///
/// # Panics
/// If there are no levels.
#[track_caller]
pub fn draw(task: &Denoise<CornerNet>, n: usize, sigmas: &[f64], rng: &mut Generator) -> Tensor {
    let start = Tensor::from(rng.randn(&[n, 1, SIDE, SIDE])) * sigmas[0] as f32;
    let ask = |input: &Tensor, levels: &Tensor| task.model.predict_noise(input, levels, &mut Pass::eval());
    let image = |x: &Tensor, sigma: f64| task.preconditioner.denoise(x, sigma, ask).clamp(-1.0, 1.0);
    let sampler: Sampler = "dpmpp_2m".parse().expect("a sampler's name");
    walk(start, (sampler, sigmas), image, rng)
}

// %% notebooks/23_attention.ipynb cn-read
use minai::judge::Judge;
use minai::ops::pad;

/// What the judge of lesson 19 reads in the top left and the bottom right corner of canvases (n, 1, 32, 32): n classes each.
///
/// # Panics
/// If the canvases have another shape.
#[track_caller]
pub fn read_corners(judge: &Judge, canvases: &Tensor) -> [Vec<i64>; 2] {
    assert!(
        matches!(canvases.shape(), &[_, 1, SIDE, SIDE]),
        "read_corners: canvases of shape {:?}, (n, 1, 32, 32) expected",
        canvases.shape()
    );
    [0, SIDE - DIGIT].map(|at| {
        let corner = canvases.slice(s![.., .., at..at + DIGIT, at..at + DIGIT]);
        let digits = pad(&upsample_nearest(&corner, 2), [2, 2, 2, 2], -1.0); // (n, 1, 28, 28)
        judge.scores(&digits, &mut Pass::eval()).argmax(1).iter().copied().collect()
    })
}
