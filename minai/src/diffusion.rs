// Owned by notebooks/17_guess_the_noise.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 564b834bb051eb2d
//! Training a diffusion model: noise of a random level is mixed in, a network says what it is, and the squared error is the loss.

// %% notebooks/17_guess_the_noise.ipynb df-batch
use minai::array::Array;

/// Images with noise mixed in, each at a level of its own.
#[derive(Clone, Debug)]
pub struct NoisyBatch {
    /// √ᾱ x₀ + √(1 - ᾱ) noise: (n, c, h, w)
    pub x: Array,
    /// The noise level σ = √((1 - ᾱ) / ᾱ) of each image: (n)
    pub sigma: Array,
    /// What was mixed in, of variance 1: (n, c, h, w)
    pub noise: Array,
}

// %% notebooks/17_guess_the_noise.ipynb df-mix
use minai::noise::NoiseSchedule;
use minai::tensor::Tensor;

/// Each image of x₀ (n, c, h, w) mixed with its noise at its own step t of the schedule (Ho et al. 2020, equation 4).
///
/// # Panics
/// If the shapes of the images and the noise differ, there is not one step per image, or the schedule has no such step.
#[track_caller]
pub fn add_noise(schedule: &NoiseSchedule, x0: &Array, noise: Array, steps: &[usize]) -> NoisyBatch {
    assert!(x0.shape() == noise.shape(), "add_noise: x0 {:?}, noise {:?}", x0.shape(), noise.shape());
    let n = steps.len();
    assert!(x0.shape()[0] == n, "add_noise: {n} steps for images of shape {:?}", x0.shape());
    let column = |value: &dyn Fn(f64) -> f64| {
        let values = steps.iter().map(|&t| value(schedule.alphas_cumprod[t]) as f32);
        Tensor::from(Array::new(values.collect(), &[n, 1, 1, 1]))
    };
    let (kept, added) = (column(&f64::sqrt), column(&|alpha| (1.0 - alpha).sqrt()));
    let x = Tensor::from(x0.clone()) * kept + Tensor::from(noise.clone()) * added;
    let sigma = steps.iter().map(|&t| schedule.sigma(t as f64) as f32).collect();
    NoisyBatch { x: x.data, sigma: Array::new(sigma, &[n]), noise }
}

// %% notebooks/17_guess_the_noise.ipynb df-data
use minai::generator::Generator;
use minai::loader::{Dataset, rows};

/// Images that come with fresh noise each time: every step of the schedule is as likely as any other.
#[derive(Clone, Debug)]
pub struct NoisyImages {
    /// (n, c, h, w), from -1 to 1
    pub images: Array,
    /// The levels to train on.
    pub schedule: NoiseSchedule,
}

impl Dataset for NoisyImages {
    type Batch = NoisyBatch;

    fn len(&self) -> usize {
        self.images.shape()[0]
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> NoisyBatch {
        let x0 = rows(&self.images, indices);
        let steps = rng.randint(0, self.schedule.steps() as i64, &[indices.len()]);
        let steps: Vec<usize> = steps.iter().map(|&t| t as usize).collect();
        add_noise(&self.schedule, &x0, rng.randn(x0.shape()), &steps)
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-fold
/// Each block of 2 by 2 pixels becomes four channels of one: (n, 1, h, w) to (n, 4, h / 2, w / 2). PyTorch's
/// `pixel_unshuffle`.
///
/// # Panics
/// If there is more than one channel, or height or width is odd.
#[track_caller]
pub fn fold(x: &Tensor) -> Tensor {
    let fits = matches!(x.shape(), &[_, 1, h, w] if h % 2 == 0 && w % 2 == 0);
    assert!(fits, "fold: x has shape {:?}, where (n, 1, h, w) with even h and w belongs", x.shape());
    let (n, h, w) = (x.shape()[0], x.shape()[2] / 2, x.shape()[3] / 2);
    x.reshape((n, h, 2, w, 2)).permute(&[0, 2, 4, 1, 3]).reshape((n, 4, h, w))
}

/// The way back: (n, 4, h, w) to (n, 1, 2 h, 2 w).
///
/// # Panics
/// If there are not four channels.
#[track_caller]
pub fn unfold(x: &Tensor) -> Tensor {
    assert!(matches!(x.shape(), &[_, 4, _, _]), "unfold: x has shape {:?}, not (n, 4, h, w)", x.shape());
    let (n, h, w) = (x.shape()[0], x.shape()[2], x.shape()[3]);
    x.reshape((n, 2, 2, h, w)).permute(&[0, 3, 1, 4, 2]).reshape((n, 1, 2 * h, 2 * w))
}

// %% notebooks/17_guess_the_noise.ipynb df-block
use minai::conv::{Conv2d, ConvOptions};
use minai::nn::{Init, Layer, Module, Parts, Pass};
use minai::norm::{GroupNorm, group_norm_silu};

/// x + conv(silu(norm(x))): height, width and channels stay.
#[derive(Debug)]
struct Block {
    norm: GroupNorm,
    conv: Conv2d,
}

impl Module for Block {
    fn parts(&self, parts: &mut Parts) {
        parts.module("norm", &self.norm);
        parts.module("conv", &self.conv);
    }
}

impl Layer for Block {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let GroupNorm { groups, weight, bias, eps } = &self.norm;
        let y = group_norm_silu(x, *groups, &pass.get(weight), &pass.get(bias), *eps);
        x + pass.call("conv", &self.conv, &y)
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-net
/// A plain convolutional network that says which noise is in an image: all its layers work at one size.
#[derive(Debug)]
pub struct PlainCnn {
    first: Conv2d,
    blocks: Vec<Block>,
    last: Conv2d,
}

impl PlainCnn {
    /// For images of one channel; so many `channels` (a multiple of 8) in each of the `blocks`.
    pub fn new(init: &mut dyn Init, channels: usize, blocks: usize) -> Self {
        let same = ConvOptions { padding: 1, ..ConvOptions::default() };
        let mut conv = |c_in, c_out| Conv2d::new(init, c_in, c_out, 3, same);
        let first = conv(5, channels); // four pixels and the level
        let block = |_| Block { norm: GroupNorm::new(8, channels), conv: conv(channels, channels) };
        let blocks = (0..blocks).map(block).collect();
        PlainCnn { first, blocks, last: conv(channels, 4) }
    }
}

impl Module for PlainCnn {
    fn parts(&self, parts: &mut Parts) {
        parts.module("first", &self.first);
        self.blocks.iter().enumerate().for_each(|(i, block)| parts.module(&format!("blocks.{i}"), block));
        parts.module("last", &self.last);
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-predictor
/// A network that says which noise is in an image, and is told how much.
pub trait NoisePredictor: Module {
    /// The noise in x = √ᾱ x₀ + √(1 - ᾱ) noise (n, c, h, w), given each image's level σ (n).
    fn predict_noise(&self, x: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor;
}

impl NoisePredictor for PlainCnn {
    fn predict_noise(&self, x: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor {
        let folded = fold(x); // (n, 4, h/2, w/2)
        let (n, h, w) = (folded.shape()[0], folded.shape()[2], folded.shape()[3]);
        let level = (sigma.log() * 0.25).reshape((n, 1, 1, 1)).expand((n, 1, h, w));
        let mut y = pass.call("first", &self.first, &minai::tensor::cat(&[&folded, &level], 1));
        for (i, block) in self.blocks.iter().enumerate() {
            y = pass.call(&format!("blocks.{i}"), block, &y);
        }
        unfold(&pass.call("last", &self.last, &y))
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-task
use minai::learner::Task;
use minai::loss::mse_loss;

/// Learns to say which noise was mixed in; the loss is the mean squared error (Ho et al. 2020, equation 14).
#[derive(Clone, Copy, Debug)]
pub struct GuessTheNoise<M> {
    /// The network.
    pub model: M,
}

impl<M: NoisePredictor> Task for GuessTheNoise<M> {
    type Batch = NoisyBatch;

    fn model(&self) -> &dyn Module {
        &self.model
    }

    fn predict(&self, batch: &NoisyBatch, pass: &mut Pass) -> Tensor {
        self.model.predict_noise(&batch.x.clone().into(), &batch.sigma.clone().into(), pass)
    }

    fn loss(&self, predictions: &Tensor, batch: &NoisyBatch) -> Tensor {
        mse_loss(predictions, &batch.noise.clone().into())
    }

    fn len(&self, batch: &NoisyBatch) -> usize {
        batch.sigma.len()
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-eps
/// The network as samplers ask it: which noise is in x = x₀ + σ noise (n, c, h, w)? It sees x / √(1 + σ²).
pub fn eps(model: &dyn NoisePredictor, x: &Tensor, sigma: f64) -> Tensor {
    let shrunk = x * (1.0 + sigma * sigma).sqrt().recip() as f32;
    model.predict_noise(&shrunk, &Tensor::full(x.shape()[0], sigma as f32), &mut Pass::eval())
}

/// The levels of so many steps, evenly spread over the schedule's, the noisiest first, and 0 at the end.
///
/// # Panics
/// If there are no steps.
#[track_caller]
pub fn even_levels(schedule: &NoiseSchedule, steps: usize) -> Vec<f64> {
    assert!(steps > 0, "even_levels: no steps");
    let stride = schedule.steps() as f64 / steps as f64;
    let time = |i: usize| (schedule.steps() as f64 - 1.0 - i as f64 * stride).round();
    (0..steps).map(|i| schedule.sigma(time(i))).chain([0.0]).collect()
}
