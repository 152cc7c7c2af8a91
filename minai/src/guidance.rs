// Owned by notebooks/24_classes_and_guidance.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash ecc6815bb128305e
//! A network that is told a class, and classifier-free guidance, which goes beyond what the class changes.

use crate::embedding::Embedding;

// %% notebooks/24_classes_and_guidance.ipynb gd-net
use minai::nn::{Init, Module, Parts};
use minai::small_unet::{SmallUNet, SmallUNetConfig};

/// A U-Net that is told a class, or that there is none, besides the noise level.
#[derive(Debug)]
pub struct ClassUNet {
    unet: SmallUNet,
    /// A row for each class, and one for "no class": (classes + 1, 128).
    classes: Embedding,
}

impl Module for ClassUNet {
    fn parts(&self, parts: &mut Parts) {
        parts.module("unet", &self.unet);
        parts.module("classes", &self.classes);
    }
}

// %% notebooks/24_classes_and_guidance.ipynb gd-new
/// The width of what a [`SmallUNet`] is told.
const WIDTH: usize = 128;

impl ClassUNet {
    /// For images of this many classes.
    pub fn new(init: &mut dyn Init, config: &SmallUNetConfig, classes: usize) -> Self {
        ClassUNet { unet: SmallUNet::new(init, config), classes: Embedding::new(init, classes + 1, WIDTH) }
    }

    /// The number of classes, which is also what stands for "no class".
    pub fn none(&self) -> i64 {
        self.classes.weight.shape()[0] as i64 - 1
    }
}

// %% notebooks/24_classes_and_guidance.ipynb gd-forward
use minai::array::Array;
use minai::nn::Pass;
use minai::tensor::Tensor;

impl ClassUNet {
    /// The output for an input (n, c, h, w) of variance 1, given each image's level σ (n) and its class (n), or
    /// [`none`](Self::none).
    ///
    /// # Panics
    /// If there is no such class, or the shapes do not fit.
    #[track_caller]
    pub fn forward(&self, input: &Tensor, sigma: &Tensor, classes: &Array<i64>, pass: &mut Pass) -> Tensor {
        let class = pass.scope("classes", &self.classes, &[], |pass| self.classes.forward(classes, pass));
        let told = self.unet.embed(sigma, pass) + class;
        pass.scope("unet", &self.unet, &[input], |pass| self.unet.forward(input, &told, pass))
    }
}

// %% notebooks/24_classes_and_guidance.ipynb gd-data
use minai::generator::Generator;
use minai::karras::{ImagesAtLevels, LevelBatch};
use minai::loader::{Dataset, rows};

/// Images with noise and their classes, some of which are left out.
#[derive(Clone, Debug)]
pub struct ClassImages {
    /// The images, and which levels they come at.
    pub images: ImagesAtLevels,
    /// The class of each image: (n)
    pub labels: Array<i64>,
    /// How often the class is left out, from 0 to 1.
    pub dropout: f64,
    /// What stands for "no class".
    pub none: i64,
}

// %% notebooks/24_classes_and_guidance.ipynb gd-data-2
impl Dataset for ClassImages {
    type Batch = (LevelBatch, Array<i64>);

    fn len(&self) -> usize {
        self.images.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> Self::Batch {
        let images = self.images.batch(indices, rng);
        let left_out = rng.rand(&[indices.len()]);
        let labels = rows(&self.labels, indices);
        let told = labels.iter().zip(left_out.iter());
        let told = told.map(|(&label, &x)| if f64::from(x) < self.dropout { self.none } else { label });
        (images, Array::new(told.collect(), &[indices.len()]))
    }
}

// %% notebooks/24_classes_and_guidance.ipynb gd-task
use minai::karras::Preconditioner;
use minai::learner::Task;

/// Lesson 22's task with classes.
#[derive(Debug)]
pub struct DenoiseClass {
    /// The network.
    pub model: ClassUNet,
    /// How it is wrapped.
    pub preconditioner: Preconditioner,
}

// %% notebooks/24_classes_and_guidance.ipynb gd-task-2
impl Task for DenoiseClass {
    type Batch = (LevelBatch, Array<i64>);

    fn model(&self) -> &dyn Module {
        &self.model
    }

    fn predict(&self, (batch, classes): &Self::Batch, pass: &mut Pass) -> Tensor {
        let input = self.preconditioner.input(&batch.x.clone().into(), &batch.sigma);
        self.model.forward(&input, &batch.sigma.clone().into(), classes, pass)
    }

    fn loss(&self, predictions: &Tensor, (batch, _): &Self::Batch) -> Tensor {
        self.preconditioner.loss(predictions, batch)
    }

    fn len(&self, (batch, _): &Self::Batch) -> usize {
        batch.sigma.len()
    }
}

// %% notebooks/24_classes_and_guidance.ipynb gd-guided
/// Classifier-free guidance: `u + scale (t - u)`, where `u` is predicted without the class or prompt, or with a negative
/// one, and `t` with it (Ho and Salimans 2022, equation 6). Predictions of the noise or of the image, either will do.
///
/// With a scale of 1 that is `t`; beyond 1 it goes on past `t` in the direction in which the class makes a difference.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn guided(u: &Tensor, t: &Tensor, scale: f64) -> Tensor {
    u + (t - u) * scale as f32
}

// %% notebooks/24_classes_and_guidance.ipynb gd-guidance
/// How far to go beyond the class, from what, and at which noise levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guidance {
    /// 0: without the class; 1: with it; more: beyond.
    pub scale: f64,
    /// A class to go away from, in place of no class.
    pub negative: Option<i64>,
    /// Below the first level and above the second there is no guidance (Kynkäänniemi et al. 2024).
    pub range: (f64, f64),
}

impl Default for Guidance {
    /// A scale of 2, away from no class, at all levels.
    fn default() -> Self {
        Guidance { scale: 2.0, negative: None, range: (0.0, f64::INFINITY) }
    }
}

// %% notebooks/24_classes_and_guidance.ipynb gd-denoise
impl DenoiseClass {
    /// What the network takes x = x₀ + σ n (n, c, h, w) for, if these are the classes (n), with guidance; with pixels from
    /// -1 to 1. Where guidance is to change nothing, the network is asked once, else twice.
    ///
    /// # Panics
    /// If there is no such class, or the shapes do not fit.
    #[track_caller]
    pub fn denoise(&self, x: &Tensor, sigma: f64, classes: &Array<i64>, guidance: &Guidance) -> Tensor {
        let ask = |classes: &Array<i64>| {
            let network = |input: &Tensor, levels: &Tensor| {
                self.model.forward(input, levels, classes, &mut Pass::eval())
            };
            self.preconditioner.denoise(x, sigma, network)
        };
        let (from, to) = guidance.range;
        let t = ask(classes);
        if guidance.scale == 1.0 || sigma < from || sigma > to {
            return t.clamp(-1.0, 1.0);
        }
        let away = guidance.negative.unwrap_or(self.model.none());
        guided(&ask(&Array::new(vec![away; classes.len()], classes.shape())), &t, guidance.scale)
            .clamp(-1.0, 1.0)
    }
}

// %% notebooks/24_classes_and_guidance.ipynb gd-draw
use minai::karras::walk;
use minai::levels::Levels;
use minai::sampling::Sampler;

impl DenoiseClass {
    /// An image of `shape` (c, h, w) for each of the classes, drawn from noise down the levels `sigmas`, which end with 0.
    ///
    /// # Panics
    /// If there is no such class, or the levels don't fall.
    #[track_caller]
    pub fn draw(
        &self,
        (classes, shape): (&[i64], [usize; 3]),
        guidance: &Guidance,
        (sampler, sigmas): (Sampler, &[f64]),
        rng: &mut Generator,
    ) -> Tensor {
        let (n, scale) = (classes.len(), Levels::from_sigmas(sigmas).initial_scale as f32);
        let classes = Array::new(classes.to_vec(), &[n]);
        let noise = Tensor::from(rng.randn(&[&[n], &shape[..]].concat()));
        walk(noise * scale, (sampler, sigmas), |x, sigma| self.denoise(x, sigma, &classes, guidance), rng)
    }
}
