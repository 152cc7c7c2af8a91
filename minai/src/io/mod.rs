//! The harbour, written by hand: whatever meets programs, files and formats that others wrote. It knows `array` and
//! nothing above it.
//!
//! - [`config`]: models' settings in JSON, and errors that name the key.
//! - [`file`]: an error that names the file; writing a file as a whole or not at all.
//! - [`interrupt`]: a request of the notebook's kernel to stop, which long loops look at.
//! - [`notebook`]: what a notebook shows beyond text, at once and in place.
//! - `picture`, with the feature `pictures`: PNG, JPEG and WebP files, read upright.
//! - [`safetensors`]: named tensors in a file, read with care and written at once.

pub mod config;
pub mod file;
pub mod interrupt;
pub mod notebook;
#[cfg(feature = "pictures")]
pub mod picture;
pub mod safetensors;
