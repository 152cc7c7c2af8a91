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
//! The features `download`, `plot` and `nb`, on by default, each stand for the module of that name; `progress`, on too,
//! for bars in a terminal.
#![warn(missing_docs)]
// One text, `use minai::…`, compiles both in a notebook's cell and inside this crate.
extern crate self as minai;

pub mod io;
pub mod kernels;

// nbs:modules begin
pub mod activation;
pub mod array;
pub mod attention;
pub mod augment;
pub mod backprop;
pub mod blocks;
pub mod callbacks;
pub mod clip;
pub mod conv;
pub mod data;
pub mod datasets;
pub mod denoiser;
#[cfg(feature = "download")]
pub mod download;
pub mod dropout;
pub mod embedding;
pub mod ensemble;
#[cfg(feature = "download")]
pub mod fashion_download;
pub mod generator;
pub mod hooks;
pub mod init;
pub mod iter;
pub mod learner;
pub mod levels;
pub mod linear;
pub mod loader;
pub mod loss;
pub mod matmul;
pub mod matrix;
pub mod meanshift;
pub mod more_samplers;
#[cfg(feature = "nb")]
pub mod nb;
pub mod nn;
pub mod noise;
pub mod norm;
pub mod ops;
pub mod optim;
pub mod optimizer;
#[cfg(feature = "plot")]
pub mod plot;
pub mod pool;
#[cfg(feature = "progress")]
pub mod progress;
pub mod resnet;
pub mod rng;
pub mod samplers;
pub mod sampling;
pub mod schedule;
#[cfg(feature = "download")]
pub mod sd_download;
pub mod stable_diffusion;
pub mod state;
pub mod summary;
pub mod tensor;
pub mod tokenizer;
pub mod training;
pub mod unet;
pub mod vae;
pub mod weights;
// nbs:modules end

// Last, so that the compiler names things in its messages by the modules that they live in.
pub mod prelude;
