//! The harbour, written by hand: whatever meets programs, files and formats that others wrote. It knows `array` and
//! nothing above it.
//!
//! - [`interrupt`]: a request of the notebook's kernel to stop, which long loops look at.
//! - [`notebook`]: what a notebook shows beyond text, at once and in place.

pub mod interrupt;
pub mod notebook;
