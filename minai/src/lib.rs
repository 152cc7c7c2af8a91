//! Deep learning from the foundations up to Stable Diffusion: the library that the minai notebooks build.
#![warn(missing_docs)]
// One text, `use minai::…`, compiles both in a notebook's cell and inside this crate.
extern crate self as minai;

pub mod kernels;

// nbs:modules begin
pub mod array;
pub mod data;
#[cfg(feature = "download")]
pub mod download;
pub mod iter;
pub mod matrix;
#[cfg(feature = "nb")]
pub mod nb;
#[cfg(feature = "plot")]
pub mod plot;
pub mod rng;
// nbs:modules end
