//! The harbour, written by hand: whatever meets programs, files and formats that others wrote. It knows `array` and
//! nothing above it.
//!
//! - [`config`]: models' settings in JSON, and errors that name the key.
//! - [`data`]: where data files lie, and an error that names file, place and remedy.
//! - `download`, with the feature of that name: fetching files over HTTP, resumably and checked.
//! - [`file`](mod@file): an error that names the file; writing a file as a whole or not at all.
//! - [`gzip`]: unpacking with a limit.
//! - [`idx`]: IDX files, the format of MNIST's relatives.
//! - [`interrupt`]: a request of the notebook's kernel to stop, which long loops look at.
//! - [`mnist`]: the course's first data set, from a gzipped pickle.
//! - [`notebook`]: what a notebook shows beyond text, at once and in place.
//! - [`pickle`]: a guard that reads a pickle before anything else does.
//! - `picture`, with the feature `pictures`: PNG, JPEG and WebP files, read upright.
//! - [`safetensors`]: named tensors in a file, read with care and written at once.

pub mod config;
pub mod data;
#[cfg(feature = "download")]
pub mod download;
pub mod file;
pub mod gzip;
pub mod idx;
pub mod interrupt;
pub mod mnist;
pub mod notebook;
pub mod pickle;
#[cfg(feature = "pictures")]
pub mod picture;
pub mod safetensors;
