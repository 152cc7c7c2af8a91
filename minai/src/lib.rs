//! Deep learning from the foundations up to Stable Diffusion: the library that the minai notebooks build.
//!
//! A tensor knows where it comes from, and so its gradient:
//!
//! ```
//! use minai::prelude::*;
//!
//! let x = Tensor::parameter(array([1.0, 2.0, 3.0]));
//! let y = (&x * &x).sum(..);
//! y.backward();
//! assert_eq!(x.grad(), Some(array([2.0, 4.0, 6.0])));
//! ```
//!
//! A model is made of layers, prints as they are nested, and is called with a [`Pass`](nn::Pass), which says what for:
//!
//! ```
//! # use minai::prelude::*;
//! let mut rng = Generator::manual_seed(42);
//! let model = Sequential::new().add(Linear::new(&mut rng, 2, 8)).add(Relu).add(Linear::new(&mut rng, 8, 2));
//! println!("{model}");
//! let scores = model.forward(&Tensor::randn(&mut rng, (5, 2)), &mut Pass::eval());
//! assert_eq!(scores.shape(), [5, 2]);
//! ```
//!
//! A training is data, an optimiser, and callbacks:
//!
//! ```
//! # use minai::prelude::*;
//! # let mut rng = Generator::manual_seed(42);
//! # let model = Sequential::new().add(Linear::new(&mut rng, 2, 8)).add(Relu).add(Linear::new(&mut rng, 8, 2));
//! let data = Labelled::new(array([[0., 0.], [0., 1.], [1., 0.], [1., 1.]]), array([0, 1, 1, 0]));
//! let loaders = DataLoaders::new(data.clone(), data, LoaderOptions::default());
//! let optimizer = Optimizer::new(&model, AdamW::default());
//! let mut learner = Learner::new("exclusive or", Classifier { model }, optimizer, rng);
//! learner.fit(100, &loaders, OneCycle::new(0.1))?;
//! assert_eq!(evaluate(&learner.task.model, &loaders.valid).accuracy, 1.0);
//! # Ok::<(), FitError>(())
//! ```
//!
//! [`prelude`] has the names that every program needs. Where a function could fail on bad data it returns an error that
//! says what to do; a mistake in the program, such as shapes that do not match, panics and says which.
//!
//! # The modules, by lesson
//!
//! Each is built line by line in the notebook that its first line names, and uses only modules of earlier lessons.
//!
//! | lesson | modules |
//! | --- | --- |
//! | [01: foundations](https://github.com/minai-rs/minai/blob/main/notebooks/01_foundations.ipynb) | [`array`](mod@array) [`iter`] [`matrix`] [`nb`] [`rng`] |
//! | [02: matrix multiplication](https://github.com/minai-rs/minai/blob/main/notebooks/02_matmul.ipynb) | [`matmul`] |
//! | [03: mean shift](https://github.com/minai-rs/minai/blob/main/notebooks/03_meanshift.ipynb) | [`meanshift`] |
//! | [04: backpropagation](https://github.com/minai-rs/minai/blob/main/notebooks/04_backprop.ipynb) | [`backprop`] |
//! | [05: tensors](https://github.com/minai-rs/minai/blob/main/notebooks/05_tensor.ipynb) | [`tensor`] |
//! | [05b: operations on tensors](https://github.com/minai-rs/minai/blob/main/notebooks/05b_tensor_operations.ipynb) | [`ops`] |
//! | [05c: random numbers](https://github.com/minai-rs/minai/blob/main/notebooks/05c_generator.ipynb) | [`generator`] |
//! | [06: training](https://github.com/minai-rs/minai/blob/main/notebooks/06_training.ipynb) | [`linear`] [`loader`] [`loss`] [`nn`] [`optimizer`] [`state`] [`training`] |
//! | [07: data sets](https://github.com/minai-rs/minai/blob/main/notebooks/07_datasets.ipynb) | [`datasets`] [`fashion_download`] |
//! | [08: convolutions](https://github.com/minai-rs/minai/blob/main/notebooks/08_convolutions.ipynb) | [`conv`] |
//! | [09: autoencoders](https://github.com/minai-rs/minai/blob/main/notebooks/09_autoencoder.ipynb) | [`pool`] |
//! | [10: the learner](https://github.com/minai-rs/minai/blob/main/notebooks/10_learner.ipynb) | [`callbacks`] [`checkpoint`] [`learner`] [`progress`] [`rate_search`] |
//! | [11: activations](https://github.com/minai-rs/minai/blob/main/notebooks/11_activations.ipynb) | [`hooks`] |
//! | [12: initialisation and normalisation](https://github.com/minai-rs/minai/blob/main/notebooks/12_init.ipynb) | [`activation`] [`init`] [`norm`] |
//! | [13: optimisers](https://github.com/minai-rs/minai/blob/main/notebooks/13_optimizers.ipynb) | [`ema`] [`gradients`] [`optim`] [`schedule`] |
//! | [14: residual networks](https://github.com/minai-rs/minai/blob/main/notebooks/14_resnet.ipynb) | [`resnet`] [`summary`] |
//! | [15: augmentation](https://github.com/minai-rs/minai/blob/main/notebooks/15_augment.ipynb) | [`augment`] [`dropout`] [`ensemble`] |
//! | [16: samplers](https://github.com/minai-rs/minai/blob/main/notebooks/16_samplers.ipynb) | [`denoiser`] [`noise`] [`samplers`] |
//! | [17: guess the noise](https://github.com/minai-rs/minai/blob/main/notebooks/17_guess_the_noise.ipynb) | [`diffusion`] |
//! | [18: a U-Net](https://github.com/minai-rs/minai/blob/main/notebooks/18_unet.ipynb) | [`time_embedding`] [`blocks`] [`small_unet`] |
//! | [19: is it any good?](https://github.com/minai-rs/minai/blob/main/notebooks/19_is_it_any_good.ipynb) | [`judge`] [`quality`] |
//! | [20: fewer steps](https://github.com/minai-rs/minai/blob/main/notebooks/20_fewer_steps.ipynb) | [`levels`] [`more_samplers`] [`sampling`] |
//! | [21: schedules](https://github.com/minai-rs/minai/blob/main/notebooks/21_schedules.ipynb) | [`schedules`] |
//! | [22: variance 1](https://github.com/minai-rs/minai/blob/main/notebooks/22_karras.ipynb) | [`karras`] |
//! | [23: attention](https://github.com/minai-rs/minai/blob/main/notebooks/23_attention.ipynb) | [`attention`] [`corners`] |
//! | [24: classes and guidance](https://github.com/minai-rs/minai/blob/main/notebooks/24_classes_and_guidance.ipynb) | [`embedding`] [`guidance`] |
//! | [25: begin with a picture](https://github.com/minai-rs/minai/blob/main/notebooks/25_begin_with_a_picture.ipynb) | [`inpaint`] [`emoji`] [`super_resolution`] |
//! | [30: published weights](https://github.com/minai-rs/minai/blob/main/notebooks/30_weights.ipynb) | [`weights`] |
//! | [31: tokens](https://github.com/minai-rs/minai/blob/main/notebooks/31_tokenizer.ipynb) | [`tokenizer`] |
//! | [32: CLIP](https://github.com/minai-rs/minai/blob/main/notebooks/32_clip_text.ipynb) | [`clip`] |
//! | [33: the conditional U-Net](https://github.com/minai-rs/minai/blob/main/notebooks/33_unet_conditional.ipynb) | [`unet`] |
//! | [34: Stable Diffusion's autoencoder](https://github.com/minai-rs/minai/blob/main/notebooks/34_autoencoder_kl.ipynb) | [`vae`] |
//! | [35: Stable Diffusion](https://github.com/minai-rs/minai/blob/main/notebooks/35_pipeline.ipynb) | [`sd_download`] [`stable_diffusion`] |
//! | [35b: files that people have](https://github.com/minai-rs/minai/blob/main/notebooks/35b_files.ipynb) | [`single_file`] [`lora`] [`inversion`] |
//! | [36: your own Stable Diffusion](https://github.com/minai-rs/minai/blob/main/notebooks/36_your_own_stable_diffusion.ipynb) | [`text_to_image`] [`layout`] |
//! | [90: plotting](https://github.com/minai-rs/minai/blob/main/notebooks/90_plot.ipynb) | [`plot`] |
//!
//! [`backprop`], [`corners`], [`iter`], [`matmul`], [`matrix`], [`meanshift`] and [`rng`] are there for the course: steps on
//! the way, which the rest of the library hardly needs. Two rooms are written by hand: [`kernels`], the engine, and [`io`],
//! which reads and writes what other programs do.
//!
//! The features `plot` and `nb`, on by default, each stand for the module of that name; on too are `download`, for [`io`]'s
//! `download` and what uses it, `pictures`, for picture files (`io::picture`), and `progress`, for bars in a terminal.
#![warn(missing_docs)]
// One text, `use minai::…`, compiles both in a notebook's cell and inside this crate.
extern crate self as minai;

pub mod io;
pub mod kernels;

// nbs:modules begin
// 01_foundations
pub mod array;
pub mod iter;
pub mod matrix;
#[cfg(feature = "nb")]
pub mod nb;
pub mod rng;

// 02_matmul
pub mod matmul;

// 03_meanshift
pub mod meanshift;

// 04_backprop
pub mod backprop;

// 05_tensor
pub mod tensor;

// 05b_tensor_operations
pub mod ops;

// 05c_generator
pub mod generator;

// 06_training
pub mod linear;
pub mod loader;
pub mod loss;
pub mod nn;
pub mod optimizer;
pub mod state;
pub mod training;

// 07_datasets
pub mod datasets;
#[cfg(feature = "download")]
pub mod fashion_download;

// 08_convolutions
pub mod conv;

// 09_autoencoder
pub mod pool;

// 10_learner
pub mod callbacks;
pub mod checkpoint;
pub mod learner;
#[cfg(feature = "progress")]
pub mod progress;
#[cfg(feature = "plot")]
pub mod rate_search;

// 11_activations
pub mod hooks;

// 12_init
pub mod activation;
pub mod init;
pub mod norm;

// 13_optimizers
pub mod ema;
pub mod gradients;
pub mod optim;
pub mod schedule;

// 14_resnet
pub mod resnet;
pub mod summary;

// 15_augment
pub mod augment;
pub mod dropout;
pub mod ensemble;

// 16_samplers
pub mod denoiser;
pub mod noise;
pub mod samplers;

// 17_guess_the_noise
pub mod diffusion;

// 18_unet
pub mod blocks;
pub mod small_unet;
pub mod time_embedding;

// 19_is_it_any_good
pub mod judge;
pub mod quality;

// 20_fewer_steps
pub mod levels;
pub mod more_samplers;
pub mod sampling;

// 21_schedules
pub mod schedules;

// 22_karras
pub mod karras;

// 23_attention
pub mod attention;
pub mod corners;

// 24_classes_and_guidance
pub mod embedding;
pub mod guidance;

// 25_begin_with_a_picture
#[cfg(feature = "pictures")]
pub mod emoji;
pub mod inpaint;
#[cfg(feature = "pictures")]
pub mod super_resolution;

// 30_weights
pub mod weights;

// 31_tokenizer
pub mod tokenizer;

// 32_clip_text
pub mod clip;

// 33_unet_conditional
pub mod unet;

// 34_autoencoder_kl
pub mod vae;

// 35_pipeline
#[cfg(feature = "download")]
pub mod sd_download;
pub mod stable_diffusion;

// 35b_files
pub mod inversion;
pub mod lora;
pub mod single_file;

// 36_your_own_stable_diffusion
pub mod layout;
#[cfg(feature = "pictures")]
pub mod text_to_image;

// 90_plot
#[cfg(feature = "plot")]
pub mod plot;
// nbs:modules end

// Last, so that the compiler names things in its messages by the modules that they live in.
pub mod prelude;
