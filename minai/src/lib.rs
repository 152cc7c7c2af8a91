//! Deep learning from the foundations up to Stable Diffusion: the library that the minai notebooks build.
#![warn(missing_docs)]
// One text, `use minai::…`, compiles both in a notebook's cell and inside this crate.
extern crate self as minai;

pub mod kernels;

// nbs:modules begin
pub mod data;
#[cfg(feature = "download")]
pub mod download;
#[cfg(feature = "plot")]
pub mod plot;
// nbs:modules end
