// Owned by notebooks/07_datasets.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash eb490c82537c7a45
//! Fetching the official files of Fashion-MNIST.

use crate::datasets::{FASHION_FILES, FashionSplit};

// %% notebooks/07_datasets.ipynb fd-fetch
use minai::io::download::{FetchError, FetchFault, FetchOptions, fetch};
use std::fs;
use std::path::Path;

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
        let (url, path) = (format!("{address}/{name}"), folder.join(name));
        let unchecked = folder.join(format!("{name}.unchecked"));
        let fail = |fault| FetchError { url: url.clone(), path: path.clone(), fault };
        let disk = |error| fail(FetchFault::Disk(error));
        if path.is_file() && split.mismatch(at, &path).map_err(disk)?.is_none() {
            continue;
        }
        fetch(&url, &unchecked, &FetchOptions::default())?;
        match split.mismatch(at, &unchecked).map_err(disk)? {
            None => fs::rename(&unchecked, &path).map_err(disk)?,
            Some(what) => {
                fs::remove_file(&unchecked).map_err(disk)?;
                return Err(fail(FetchFault::WrongContent(what)));
            }
        }
    }
    Ok(())
}
