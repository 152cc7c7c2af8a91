// Owned by notebooks/17_guess_the_noise.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash e36b7351bdb2b7e1
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

// %% notebooks/17_guess_the_noise.ipynb df-data-2
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
/// Each block of r by r pixels becomes r² channels of one: (n, c, h r, w r) to (n, c r², h, w). As PyTorch's
/// `pixel_unshuffle`.
///
/// # Panics
/// If height or width is no multiple of r.
#[track_caller]
pub fn pixel_unshuffle(x: &Tensor, r: usize) -> Tensor {
    let fits = matches!(x.shape(), &[_, _, h, w] if r > 0 && h % r == 0 && w % r == 0);
    assert!(fits, "pixel_unshuffle: x has shape {:?}, and is cut into blocks of {r} by {r}", x.shape());
    let (n, c, h, w) = (x.shape()[0], x.shape()[1], x.shape()[2] / r, x.shape()[3] / r);
    x.reshape([n, c, h, r, w, r]).permute(&[0, 1, 3, 5, 2, 4]).reshape([n, c * r * r, h, w])
}

// %% notebooks/17_guess_the_noise.ipynb df-unfold
/// r² channels of one pixel become a block of r by r: (n, c r², h, w) to (n, c, h r, w r). As PyTorch's
/// `pixel_shuffle`.
///
/// # Panics
/// If the number of channels is no multiple of r².
#[track_caller]
pub fn pixel_shuffle(x: &Tensor, r: usize) -> Tensor {
    let fits = matches!(x.shape(), &[_, c, _, _] if r > 0 && c % (r * r) == 0);
    assert!(fits, "pixel_shuffle: x has shape {:?}, and becomes blocks of {r} by {r}", x.shape());
    let (n, c, h, w) = (x.shape()[0], x.shape()[1] / (r * r), x.shape()[2], x.shape()[3]);
    x.reshape([n, c, r, r, h, w]).permute(&[0, 1, 4, 2, 5, 3]).reshape([n, c, h * r, w * r])
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

// %% notebooks/17_guess_the_noise.ipynb df-block-2
impl Layer for Block {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let GroupNorm { groups, weight, bias, eps } = &self.norm;
        let y = group_norm_silu(x, *groups, &pass.get(weight), &pass.get(bias), *eps);
        x + pass.call("conv", &self.conv, &y)
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-net
/// A plain convolutional network that predicts the noise in an image: all its layers work at one size.
#[derive(Debug)]
pub struct PlainCnn {
    patch: usize,
    first: Conv2d,
    blocks: Vec<Block>,
    last: Conv2d,
}

impl PlainCnn {
    /// For images of one channel, cut into blocks of `patch` by `patch` pixels, with `channels` (a multiple of 8)
    /// between its `blocks`.
    pub fn new(init: &mut dyn Init, patch: usize, channels: usize, blocks: usize) -> Self {
        let same = ConvOptions { padding: 1, ..ConvOptions::default() };
        let mut conv = |c_in, c_out| Conv2d::new(init, c_in, c_out, 3, same);
        let pixels = patch * patch;
        let first = conv(pixels + 1, channels); // the pixels and the level
        let block = |_| Block { norm: GroupNorm::new(8, channels), conv: conv(channels, channels) };
        let blocks = (0..blocks).map(block).collect();
        PlainCnn { patch, first, blocks, last: conv(channels, pixels) }
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-parts
impl Module for PlainCnn {
    fn parts(&self, parts: &mut Parts) {
        parts.module("first", &self.first);
        self.blocks.iter().enumerate().for_each(|(i, block)| parts.module(&format!("blocks.{i}"), block));
        parts.module("last", &self.last);
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-predictor
/// A network that predicts which noise is in an image, and is told its level.
pub trait NoisePredictor: Module {
    /// The noise in x = √ᾱ x₀ + √(1 - ᾱ) noise (n, c, h, w), given each image's level σ (n).
    fn predict_noise(&self, x: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor;
}

impl NoisePredictor for PlainCnn {
    fn predict_noise(&self, x: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor {
        let folded = pixel_unshuffle(x, self.patch); // (n, patch², h / patch, w / patch)
        let (n, h, w) = (folded.shape()[0], folded.shape()[2], folded.shape()[3]);
        let level = (sigma.log() * 0.25).reshape((n, 1, 1, 1)).expand((n, 1, h, w));
        let mut y = pass.call("first", &self.first, &minai::tensor::cat(&[&folded, &level], 1));
        for (i, block) in self.blocks.iter().enumerate() {
            y = pass.call(&format!("blocks.{i}"), block, &y);
        }
        pixel_shuffle(&pass.call("last", &self.last, &y), self.patch)
    }
}

// %% notebooks/17_guess_the_noise.ipynb df-task
use minai::learner::Task;
use minai::loss::mse_loss;

/// Learns to predict which noise was mixed in; the loss is the mean squared error (Ho et al. 2020, equation 14).
#[derive(Clone, Copy, Debug)]
pub struct GuessTheNoise<M> {
    /// The network.
    pub model: M,
}

// %% notebooks/17_guess_the_noise.ipynb df-task-2
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
/// The network as samplers ask it: the noise in x = x₀ + σ noise (n, c, h, w). It sees x / √(1 + σ²).
pub fn eps(model: &dyn NoisePredictor, x: &Tensor, sigma: f64) -> Tensor {
    let shrunk = x * (1.0 + sigma * sigma).sqrt().recip() as f32;
    model.predict_noise(&shrunk, &Tensor::full(x.shape()[0], sigma as f32), &mut Pass::eval())
}

/// `steps` levels, evenly spread over the time steps of the schedule, the noisiest first, and then 0.
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

// %% notebooks/17_guess_the_noise.ipynb df-denoise
/// What the network takes x = x₀ + σ noise (n, c, h, w) for: x - σ eps, with pixels from -1 to 1.
pub fn denoise(model: &dyn NoisePredictor, x: &Tensor, sigma: f64) -> Tensor {
    (x - eps(model, x, sigma) * sigma as f32).clamp(-1.0, 1.0)
}

// %% notebooks/17_guess_the_noise.ipynb df-draw
use minai::denoiser::noise_in;
use minai::samplers::{always, euler_ancestral};

/// Images of `shape` (n, c, h, w), drawn from noise down the levels `sigmas`. An `eta` of 1 is DDPM (Ho et al. 2020,
/// algorithm 2), which adds new noise in each step; 0 is DDIM, which adds none.
///
/// # Panics
/// If there are no levels.
#[track_caller]
pub fn draw(
    model: &dyn NoisePredictor,
    shape: &[usize],
    sigmas: &[f64],
    eta: f64,
    rng: &mut Generator,
) -> Tensor {
    assert!(!sigmas.is_empty(), "draw: no noise levels");
    let start = Tensor::from(rng.randn(shape)) * sigmas[0].hypot(1.0) as f32;
    let network = always(|x, sigma| noise_in(x, &denoise(model, x, sigma), sigma));
    let Ok(end) = euler_ancestral(start, sigmas, eta, network, |shape| rng.randn(shape).into());
    end
}
