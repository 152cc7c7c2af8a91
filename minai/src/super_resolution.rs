// Owned by notebooks/25_begin_with_a_picture.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash bb8ccbf249a0e93a
//! Enlarging a picture by drawing the detail that it lacks.

use crate::emoji::Emoji;

// %% notebooks/25_begin_with_a_picture.ipynb sr-detail
use minai::pool::{Pool, avg_pool2d, upsample_nearest};
use minai::tensor::Tensor;

/// By how much pictures are enlarged in each direction.
pub const FACTOR: usize = 4;

/// The mean of each block of [`FACTOR`] by [`FACTOR`] pixels: (n, c, h, w) to (n, c, h / 4, w / 4).
///
/// # Panics
/// If height or width is below [`FACTOR`].
#[track_caller]
pub fn shrink(x: &Tensor) -> Tensor {
    avg_pool2d(x, FACTOR, Pool::default())
}

/// Each pixel as a block: (n, c, h, w) to (n, c, 4 h, 4 w).
#[track_caller]
pub fn enlarge(x: &Tensor) -> Tensor {
    upsample_nearest(x, FACTOR)
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-detail-b
/// What x (n, c, h, w) has beyond the means of its blocks.
///
/// # Panics
/// If height or width is no multiple of [`FACTOR`].
#[track_caller]
pub fn detail(x: &Tensor) -> Tensor {
    x - enlarge(&shrink(x))
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-data
use minai::array::Array;
use minai::generator::Generator;
use minai::karras::{LevelBatch, LogNormal};
use minai::loader::Dataset;

/// The standard deviation of the emoji's detail.
pub const SIGMA_DATA: f64 = 0.2;

/// Small pictures, and the detail that they lack, with noise.
#[derive(Clone, Debug)]
pub struct Details {
    /// The large pictures.
    pub emoji: Emoji,
    /// The numbers of those that are used.
    pub indices: Vec<usize>,
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-data-b
impl Dataset for Details {
    type Batch = (LevelBatch, Array);

    fn len(&self) -> usize {
        self.indices.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> Self::Batch {
        let chosen: Vec<usize> = indices.iter().map(|&i| self.indices[i]).collect();
        let big = self.emoji.pixels(&chosen);
        let levels = LogNormal { mean: SIGMA_DATA.ln() - 0.5, std: 1.2 };
        (levels.noisy(detail(&big).data, rng), shrink(&big).data)
    }
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-net
use minai::diffusion::{pixel_shuffle, pixel_unshuffle};
use minai::nn::{Init, Module, Parts, Pass};
use minai::small_unet::{SmallUNet, SmallUNetConfig};
use minai::tensor::cat;

/// A U-Net that sees noisy detail and the small picture that it belongs to.
#[derive(Debug)]
pub struct Upscaler {
    unet: SmallUNet,
}

impl Module for Upscaler {
    fn parts(&self, parts: &mut Parts) {
        parts.module("unet", &self.unet);
    }
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-net-b
impl Upscaler {
    /// For pictures in colour; `channels` are the U-Net's, from the finest level to the coarsest.
    pub fn new(init: &mut dyn Init, channels: &[usize]) -> Self {
        let config = SmallUNetConfig {
            in_channels: 15,
            out_channels: 12,
            channels: channels.to_vec(),
            ..SmallUNetConfig::default()
        };
        Upscaler { unet: SmallUNet::new(init, &config) }
    }
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-forward
impl Upscaler {
    /// The output (n, 3, 4 h, 4 w) for an input of the same shape and of variance 1, the small pictures (n, 3, h, w) from
    /// -1 to 1, and each one's level σ (n).
    ///
    /// # Panics
    /// If the shapes do not fit, or 2 h and 2 w can't be halved for each level of the U-Net but the first.
    #[track_caller]
    pub fn forward(&self, input: &Tensor, small: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor {
        let x = cat(&[&pixel_unshuffle(input, 2), &upsample_nearest(small, 2)], 1);
        let y = pass.scope("unet", &self.unet, &[&x], |pass| {
            let told = self.unet.embed(sigma, pass);
            self.unet.forward(&x, &told, pass)
        });
        pixel_shuffle(&y, 2)
    }
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-task
use minai::karras::Preconditioner;
use minai::learner::Task;

/// Lesson 22's task for detail: the network is told the small picture.
#[derive(Debug)]
pub struct Upscale {
    /// The network.
    pub model: Upscaler,
    /// How it is wrapped.
    pub preconditioner: Preconditioner,
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-task-b
impl Task for Upscale {
    type Batch = (LevelBatch, Array);

    fn model(&self) -> &dyn Module {
        &self.model
    }

    fn predict(&self, (batch, small): &Self::Batch, pass: &mut Pass) -> Tensor {
        let input = self.preconditioner.input(&batch.x.clone().into(), &batch.sigma);
        self.model.forward(&input, &small.clone().into(), &batch.sigma.clone().into(), pass)
    }

    fn loss(&self, predictions: &Tensor, (batch, _): &Self::Batch) -> Tensor {
        self.preconditioner.loss(predictions, batch)
    }

    fn len(&self, (batch, _): &Self::Batch) -> usize {
        batch.sigma.len()
    }
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-draw
use minai::karras::walk;
use minai::levels::Levels;
use minai::sampling::Sampler;

impl Upscale {
    /// What the network takes x = detail + σ n (n, 3, 4 h, 4 w) for, given the small pictures (n, 3, h, w): detail whose
    /// blocks have the mean 0.
    ///
    /// # Panics
    /// As [`Upscaler::forward`].
    #[track_caller]
    pub fn denoise(&self, x: &Tensor, sigma: f64, small: &Tensor) -> Tensor {
        let network =
            |input: &Tensor, levels: &Tensor| self.model.forward(input, small, levels, &mut Pass::eval());
        detail(&self.preconditioner.denoise(x, sigma, network))
    }
}

// %% notebooks/25_begin_with_a_picture.ipynb sr-draw-b
impl Upscale {
    /// Large pictures (n, 3, 4 h, 4 w) for small ones (n, 3, h, w) from -1 to 1. `sigmas` are the levels, which end with 0.
    ///
    /// # Panics
    /// As [`Upscaler::forward`], or if the levels don't fall.
    #[track_caller]
    pub fn draw(&self, small: &Tensor, walk_down: (Sampler, &[f64]), rng: &mut Generator) -> Tensor {
        let blocks = enlarge(small);
        let scale = Levels::from_sigmas(walk_down.1).initial_scale as f32;
        let start = Tensor::from(rng.randn(blocks.shape())) * scale;
        let drawn = walk(start, walk_down, |x, sigma| self.denoise(x, sigma, small), rng);
        (blocks + drawn).clamp(-1.0, 1.0)
    }
}
