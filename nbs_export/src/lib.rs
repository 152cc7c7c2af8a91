//! Notebooks as the source of a Rust crate.
//!
//! This library is what the command `nbs` is made of. A [`notebook`] is kept as JSON, so that nothing in it gets lost.
//! The [`directives`] in its cells say what they export; [`lesson`] gathers that for a notebook and [`plan`] for all of
//! them, [`emit`] makes the texts of the files, and [`exported`] knows their form in both directions. The commands stand
//! on these: [`export`], [`update`], [`check`], [`fmt`], [`clean`], [`merge`], [`new`]. [`run`] executes notebooks with
//! the kernel, which [`kernel`], [`doctor`] and [`lab`] set up.
#![warn(missing_docs)]

/// `println!` that ends the program quietly when nobody reads on, as in `nbs check | head`.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        if writeln!(std::io::stdout(), $($text)*).is_err() {
            std::process::exit(1);
        }
    }};
}

/// `1 error`, `2 errors`.
pub(crate) fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

pub mod cargo;
pub mod check;
pub mod clean;
pub mod cli;
pub mod code;
pub mod diff;
pub mod directives;
pub mod doctor;
pub mod emit;
pub mod export;
pub mod exported;
pub mod files;
pub mod fmt;
pub mod hooks;
pub mod kernel;
pub mod lab;
pub mod lesson;
mod meaning;
pub mod merge;
pub mod names;
pub mod new;
pub mod notebook;
pub mod plan;
pub mod run;
pub mod shadow;
pub mod update;
pub mod workspace;
