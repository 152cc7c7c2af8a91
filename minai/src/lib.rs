//! Deep learning from the foundations up to Stable Diffusion: the library that the minai notebooks build.
//!
//! Each module is built line by line in the notebook that its first line names, and depends only on modules of
//! earlier lessons. Where a function could fail on bad data it returns an error that says what to do; a mistake in
//! the program, such as shapes that do not match, panics and says which.
//!
//! ```
//! use minai::array::Array;
//! use minai::iter::chunks;
//! use minai::rng::WichmannHill;
//!
//! let mut rng = WichmannHill::seed(42);
//! let weights = Array::new((0..7840).map(|_| rng.uniform()).collect(), &[784, 10]);
//! assert_eq!(weights.reshape(&[28, 28, -1]).shape(), [28, 28, 10]);
//! assert_eq!(chunks(weights.iter(), 10).count(), 784);
//! ```
//!
//! [`prelude`] has the names that every training program needs.
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

// 06_training
pub mod generator;
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

// 20_fewer_steps
pub mod levels;
pub mod more_samplers;
pub mod sampling;

// 30_weights
pub mod weights;

// 31_tokenizer
pub mod tokenizer;

// 32_clip_text
pub mod attention;
pub mod clip;
pub mod embedding;

// 33_unet_conditional
pub mod blocks;
pub mod unet;

// 34_autoencoder_kl
pub mod vae;

// 35_pipeline
#[cfg(feature = "download")]
pub mod sd_download;
pub mod stable_diffusion;

// 90_plot
#[cfg(feature = "plot")]
pub mod plot;
// nbs:modules end

// Last, so that the compiler names things in its messages by the modules that they live in.
pub mod prelude;
