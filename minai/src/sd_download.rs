// Owned by notebooks/35_pipeline.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash c7a7445fab3386ff
//! Fetching the published weights of Stable Diffusion.

use crate::stable_diffusion::open_schedule;

// %% notebooks/35_pipeline.ipynb do-types
use minai::io::config::Config;
use minai::io::download::{Checksum, FetchError, FetchFault, FetchOptions, fetch_with};
use std::fs;
use std::path::Path;

/// A file of a published model.
pub struct PublishedFile {
    /// Its path in the model's folder.
    pub path: &'static str,
    /// Size in bytes and SHA-256, for weights. Small files are checked by their content.
    pub check: Option<(u64, &'static str)>,
}

// %% notebooks/35_pipeline.ipynb do-types-c
/// A published model.
pub struct Published {
    /// The name by which it is asked for.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub about: &'static str,
    /// The files' paths are appended to it.
    pub address: &'static str,
    /// The licence's name.
    pub licence: &'static str,
    /// Where the licence can be read.
    pub licence_address: &'static str,
    /// All that is needed here.
    pub files: &'static [PublishedFile],
}

// %% notebooks/35_pipeline.ipynb do-types-b
impl Published {
    /// The bytes of its large files together.
    pub fn bytes(&self) -> u64 {
        self.files.iter().filter_map(|file| file.check).map(|(bytes, _)| bytes).sum()
    }
}

/// A small file.
const fn small(path: &'static str) -> PublishedFile {
    PublishedFile { path, check: None }
}

/// Weights.
const fn weights(path: &'static str, bytes: u64, sha256: &'static str) -> PublishedFile {
    PublishedFile { path, check: Some((bytes, sha256)) }
}

// %% notebooks/35_pipeline.ipynb do-sd15
/// Stable Diffusion v1.5. The large files lie in Git LFS, which knows each by its size and SHA-256: these are given here.
pub const SD15: Published = Published {
    name: "sd15",
    about: "Stable Diffusion v1.5: text encoder, U-Net and autoencoder in single precision",
    address: "https://huggingface.co/stable-diffusion-v1-5/stable-diffusion-v1-5/resolve/main",
    licence: "CreativeML Open RAIL-M",
    licence_address: "https://huggingface.co/spaces/CompVis/stable-diffusion-license",
    files: &[
        small("model_index.json"),
        small("scheduler/scheduler_config.json"),
        small("tokenizer/vocab.json"),
        small("tokenizer/merges.txt"),
        small("text_encoder/config.json"),
        small("unet/config.json"),
        small("vae/config.json"),
        weights(
            "text_encoder/model.safetensors",
            492_265_874,
            "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
        ),
        weights(
            "vae/diffusion_pytorch_model.safetensors",
            334_643_276,
            "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
        ),
        weights(
            "unet/diffusion_pytorch_model.safetensors",
            3_438_167_540,
            "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
        ),
    ],
};

// %% notebooks/35_pipeline.ipynb do-fetch
/// What is wrong with a small file: pages that say "not found" are text as well.
fn wrong(name: &str, path: &Path) -> Option<String> {
    let error = |error: minai::io::file::FileError| error.what;
    match name.rsplit('/').next() {
        Some("scheduler_config.json") => open_schedule(path).err().map(error),
        Some("vocab.json") => Config::open(path).err().map(error),
        Some("merges.txt") => {
            let lines =
                fs::read_to_string(path).map(|text| text.lines().filter(|line| line.contains(' ')).count());
            match lines {
                Ok(lines) if lines > 1000 => None,
                Ok(lines) => Some(format!("has {lines} merges; that is no vocabulary")),
                Err(error) => Some(error.to_string()),
            }
        }
        _ => Config::open(path).and_then(|config| config.text_or("_class_name", "")).err().map(error),
    }
}

// %% notebooks/35_pipeline.ipynb do-fetch-b
/// Fetches what is missing of a published model from `address` (its own, or that of a copy) into a folder.
///
/// A file that is there and right is not fetched again, an unfinished one is gone on with, and each gets its name only after
/// it was checked. `progress` is told the file's number, its bytes so far, and how many it will have.
///
/// # Errors
/// See [`FetchFault`].
pub fn fetch_model(
    address: &str,
    folder: &Path,
    model: &Published,
    mut progress: impl FnMut(usize, u64, Option<u64>),
) -> Result<(), FetchError> {
    for (number, file) in model.files.iter().enumerate() {
        let (url, path) = (format!("{address}/{}", file.path), folder.join(file.path));
        let mut tell = |done, all| progress(number, done, all);
        if let Some((size, sha256)) = file.check {
            let checksum = Some(Checksum::Sha256(sha256.into()));
            fetch_with(
                &url,
                &path,
                &FetchOptions { size: Some(size), checksum, ..Default::default() },
                &mut tell,
            )?;
            continue;
        }
        if path.is_file() && wrong(file.path, &path).is_none() {
            continue;
        }
        let fail = |fault| FetchError { url: url.clone(), path: path.clone(), fault };
        let disk = |error| fail(FetchFault::Disk(error));
        let unchecked = folder.join(format!("{}.unchecked", file.path));
        fetch_with(&url, &unchecked, &FetchOptions::default(), &mut tell)?;
        match wrong(file.path, &unchecked) {
            None => fs::rename(&unchecked, &path).map_err(disk)?,
            Some(what) => {
                fs::remove_file(&unchecked).map_err(disk)?;
                return Err(fail(FetchFault::WrongContent(what)));
            }
        }
    }
    Ok(())
}
