// Owned by notebooks/07_datasets.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash e68bfb4e705ff44a
//! Fetching the official files of Fashion-MNIST.

use crate::datasets::{FASHION_FILES, FashionSplit};

// %% notebooks/07_datasets.ipynb fd-one
use minai::io::download::{FetchError, FetchFault, FetchOptions, fetch};
use std::fs;
use std::path::Path;

/// Fetches a file as `NAME.unchecked`, and gives it its name after its digest was found right.
fn fetch_checked(url: &str, path: &Path, at: usize, split: &FashionSplit) -> Result<(), FetchError> {
    let fail = |fault| FetchError { url: url.to_owned(), path: path.to_owned(), fault };
    let disk = |error| fail(FetchFault::Disk(error));
    if path.is_file() && split.mismatch(at, path).map_err(disk)?.is_none() {
        return Ok(());
    }
    let unchecked = path.with_file_name(format!("{}.unchecked", FASHION_FILES[at]));
    fetch(url, &unchecked, &FetchOptions::default())?;
    match split.mismatch(at, &unchecked).map_err(disk)? {
        None => fs::rename(&unchecked, path).map_err(disk),
        Some(what) => {
            fs::remove_file(&unchecked).map_err(disk)?;
            Err(fail(FetchFault::WrongContent(what)))
        }
    }
}

// %% notebooks/07_datasets.ipynb fd-fetch
/// Where the official files are to be had.
pub const FASHION_ADDRESS: &str = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com";

/// Fetches what is missing of the four files of a split from `address` into a folder.
///
/// Each file gets its name only after its digest was found right; until then it is called `NAME.unchecked`.
///
/// # Errors
/// See [`FetchFault`]; with [`FetchError::is_offline`] one can go on with the sample.
pub fn fetch_fashion(address: &str, folder: &Path, split: &FashionSplit) -> Result<(), FetchError> {
    for (at, name) in FASHION_FILES.iter().enumerate() {
        fetch_checked(&format!("{address}/{name}"), &folder.join(name), at, split)?;
    }
    Ok(())
}
