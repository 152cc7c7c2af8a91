//! Notebooks as the source of a Rust crate.
//!
//! This library is what the command `nbs` is made of: reading notebooks without losing anything
//! ([`notebook`]), finding out what their cells export ([`directives`]), and executing them ([`run`]).
#![warn(missing_docs)]

pub mod cli;
pub mod code;
pub mod directives;
pub mod doctor;
pub mod files;
pub mod kernel;
pub mod lab;
pub mod notebook;
pub mod run;
pub mod workspace;
