//! The crate `minai` as notebooks see it: one shared object for all cells. See this package's `Cargo.toml`.
pub use real::*;

#[doc(hidden)]
pub mod nbs_cell;
#[cfg(unix)]
#[doc(hidden)]
pub mod nbs_link;
