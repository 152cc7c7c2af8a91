//! The engine room: the one part of the crate that is written by hand and not exported from a notebook.
//!
//! What lives here works on slices, shapes and bytes, never on a type of a lesson.
// Counters name the same row in several arrays, and kernels take shapes, strides and slices one by one.
#![allow(clippy::needless_range_loop, clippy::too_many_arguments)]

pub mod activation;
pub mod attention;
pub mod conv;
pub mod elementwise;
#[cfg(feature = "plot")]
pub mod font;
pub mod gemm;
pub mod half;
pub mod math;
pub mod memory;
pub mod norm;
pub mod optim;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod scratch;
pub mod simd;
pub mod softmax;
pub mod text;
pub mod threads;

#[cfg(test)]
mod checks;
