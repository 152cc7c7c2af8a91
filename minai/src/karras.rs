// Owned by notebooks/22_karras.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 2604ba6727213216
//! Preconditioning: a network that sees and says values of variance 1 at every noise level, and which levels it learns from.

// %% notebooks/22_karras.ipynb ka-scales
/// How a network is wrapped so that its input and its target have variance 1 at every noise level σ (Karras et al. 2022,
/// table 1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preconditioner {
    /// The standard deviation of the images' values.
    pub sigma_data: f64,
}

impl Preconditioner {
    /// By what x = x₀ + σ n is multiplied before the network sees it.
    pub fn c_in(self, sigma: f64) -> f64 {
        sigma.hypot(self.sigma_data).recip()
    }

    /// The share of x that goes past the network.
    pub fn c_skip(self, sigma: f64) -> f64 {
        (self.sigma_data * self.c_in(sigma)).powi(2)
    }

    /// By what the network's output is multiplied.
    pub fn c_out(self, sigma: f64) -> f64 {
        sigma * self.sigma_data * self.c_in(sigma)
    }
}

// %% notebooks/22_karras.ipynb ka-wrap
use minai::array::Array;
use minai::tensor::Tensor;

/// `f` of each level σ (n), as a column that multiplies images (n, c, h, w).
fn column(sigma: &Array, f: impl Fn(f64) -> f64) -> Tensor {
    let values: Vec<f32> = sigma.iter().map(|&sigma| f(f64::from(sigma)) as f32).collect();
    Array::new(values, &[sigma.len(), 1, 1, 1]).into()
}

impl Preconditioner {
    /// What the network sees of x = x₀ + σ n (n, c, h, w), given each image's level σ (n).
    pub fn input(self, x: &Tensor, sigma: &Array) -> Tensor {
        x * column(sigma, |sigma| self.c_in(sigma))
    }

    /// What the network should say, so that [`image`](Self::image) is x₀.
    pub fn target(self, x: &Tensor, x0: &Tensor, sigma: &Array) -> Tensor {
        (x0 - x * column(sigma, |sigma| self.c_skip(sigma))) / column(sigma, |sigma| self.c_out(sigma))
    }

    /// The image that the network's output stands for: c_skip x + c_out output (Karras et al. 2022, equation 7).
    pub fn image(self, x: &Tensor, output: &Tensor, sigma: &Array) -> Tensor {
        x * column(sigma, |sigma| self.c_skip(sigma)) + output * column(sigma, |sigma| self.c_out(sigma))
    }
}

// %% notebooks/22_karras.ipynb ka-levels
use minai::generator::Generator;

/// Noise levels whose logarithms are normally distributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogNormal {
    /// The mean of ln σ.
    pub mean: f64,
    /// The standard deviation of ln σ.
    pub std: f64,
}

impl Default for LogNormal {
    /// Mean -1.2 and standard deviation 1.2 (Karras et al. 2022, table 1).
    fn default() -> Self {
        LogNormal { mean: -1.2, std: 1.2 }
    }
}

// %% notebooks/22_karras.ipynb ka-levels-b
impl LogNormal {
    /// `n` levels.
    pub fn draw(self, n: usize, rng: &mut Generator) -> Array {
        let levels = rng.randn(&[n]);
        let level = |&z: &f32| (self.mean + self.std * f64::from(z)).exp() as f32;
        Array::new(levels.iter().map(level).collect(), &[n])
    }
}

// %% notebooks/22_karras.ipynb ka-data
use minai::loader::{Dataset, rows};

/// Images with noise, each at a level of its own.
#[derive(Clone, Debug)]
pub struct LevelBatch {
    /// x₀ + σ n: (n, c, h, w)
    pub x: Array,
    /// The images without noise: (n, c, h, w)
    pub x0: Array,
    /// The level σ of each: (n)
    pub sigma: Array,
}

/// Images that come with fresh noise each time, at levels drawn from a distribution.
#[derive(Clone, Debug)]
pub struct ImagesAtLevels {
    /// (n, c, h, w), from -1 to 1
    pub images: Array,
    /// The distribution of the levels.
    pub levels: LogNormal,
}

// %% notebooks/22_karras.ipynb ka-data-2
impl LogNormal {
    /// Images x0 (n, c, h, w) with noise, each at a level of its own.
    pub fn noisy(self, x0: Array, rng: &mut Generator) -> LevelBatch {
        let sigma = self.draw(x0.shape()[0], rng);
        let noise = Tensor::from(rng.randn(x0.shape())) * column(&sigma, |sigma| sigma);
        let x = Tensor::from(x0.clone()) + noise;
        LevelBatch { x: x.data, x0, sigma }
    }
}

impl Dataset for ImagesAtLevels {
    type Batch = LevelBatch;

    fn len(&self) -> usize {
        self.images.shape()[0]
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> LevelBatch {
        self.levels.noisy(rows(&self.images, indices), rng)
    }
}

// %% notebooks/22_karras.ipynb ka-task
use minai::diffusion::NoisePredictor;
use minai::learner::Task;
use minai::loss::mse_loss;
use minai::nn::{Module, Pass};

impl Preconditioner {
    /// The mean squared error between a network's output (n, c, h, w) and its [`target`](Self::target) (Karras et al.
    /// 2022, equation 8, with λ = 1/c_out²).
    pub fn loss(self, output: &Tensor, batch: &LevelBatch) -> Tensor {
        let (x, x0) = (batch.x.clone().into(), batch.x0.clone().into());
        mse_loss(output, &self.target(&x, &x0, &batch.sigma))
    }
}

/// Learns the preconditioned target: the loss is [`Preconditioner::loss`].
#[derive(Clone, Copy, Debug)]
pub struct Denoise<M> {
    /// The network. What it predicts is the target, and no longer the noise.
    pub model: M,
    /// How it is wrapped.
    pub preconditioner: Preconditioner,
}

// %% notebooks/22_karras.ipynb ka-task-2
impl<M: NoisePredictor> Task for Denoise<M> {
    type Batch = LevelBatch;

    fn model(&self) -> &dyn Module {
        &self.model
    }

    fn predict(&self, batch: &LevelBatch, pass: &mut Pass) -> Tensor {
        let input = self.preconditioner.input(&batch.x.clone().into(), &batch.sigma);
        self.model.predict_noise(&input, &batch.sigma.clone().into(), pass)
    }

    fn loss(&self, predictions: &Tensor, batch: &LevelBatch) -> Tensor {
        self.preconditioner.loss(predictions, batch)
    }

    fn len(&self, batch: &LevelBatch) -> usize {
        batch.sigma.len()
    }
}

// %% notebooks/22_karras.ipynb ka-denoise
impl Preconditioner {
    /// What `network` takes x = x₀ + σ n (n, c, h, w) for, where all images have the same level σ. It is given the input,
    /// and the levels (n).
    pub fn denoise(self, x: &Tensor, sigma: f64, network: impl FnOnce(&Tensor, &Tensor) -> Tensor) -> Tensor {
        let levels = Array::new(vec![sigma as f32; x.shape()[0]], &[x.shape()[0]]);
        let output = network(&self.input(x, &levels), &levels.clone().into());
        self.image(x, &output, &levels)
    }
}

// %% notebooks/22_karras.ipynb ka-walk
use minai::denoiser::noise_in;
use minai::levels::{Call, Levels};
use minai::sampling::Sampler;
use std::convert::Infallible;

/// The image to which a sampler leads x, which is at the first of the levels `sigmas`; the last one is 0. `denoise` says
/// what x (n, c, h, w) at a level σ is taken for.
///
/// # Panics
/// If the levels don't fall.
#[track_caller]
pub fn walk(
    x: Tensor,
    (sampler, sigmas): (Sampler, &[f64]),
    mut denoise: impl FnMut(&Tensor, f64) -> Tensor,
    rng: &mut Generator,
) -> Tensor {
    let network =
        |call: &Call| Ok::<_, Infallible>(noise_in(&call.x, &denoise(&call.x, call.sigma), call.sigma));
    let Ok(end) = sampler.run(x, &Levels::from_sigmas(sigmas), network, |shape| rng.randn(shape).into());
    end
}
