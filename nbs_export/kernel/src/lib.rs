//! The crate `minai` as notebooks see it: one shared object for all cells. See this package's `Cargo.toml`.
pub use real::*;
