// Owned by notebooks/35b_files.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 2858049d210dc27c
//! Words of one's own: vectors found by textual inversion, from a file.

// %% notebooks/35b_files.ipynb ti-open
use minai::array::Array;
use minai::io::file::FileError;
use minai::io::safetensors::TensorFile;
use minai::stable_diffusion::StableDiffusion;
use std::path::Path;

/// The vectors of a file (n, width), and the name of their tensor.
fn vectors(file: &TensorFile, width: usize) -> Result<(Array, String), FileError> {
    let fail = |what: String| FileError::new(file.path(), what);
    let names = file.names();
    let [name] = &names[..] else {
        let what = format!(
            "has {} tensors, where a new word's file has one; a LoRA or a model is read by another option",
            names.len()
        );
        return Err(fail(what));
    };
    let values = file.f32(name)?;
    let rows = values.len() / width.max(1);
    if values.len() != rows * width || values.shape().last() != Some(&width) || rows == 0 {
        let what = format!(
            "`{name:.80}` has shape {:?}, and this model's words have {width} values; it was made for another model",
            values.shape()
        );
        return Err(fail(what));
    }
    Ok((Array::new(values.iter().copied().collect(), &[rows, width]), name.clone()))
}

// %% notebooks/35b_files.ipynb ti-add
/// Adds a word to a model's vocabulary, by its vectors in a file, and gives the word: `word`, or what the file calls it, or
/// else the file's name.
///
/// # Errors
/// When the file can't be read, is none of this kind or for another model, or the model has that word already.
pub fn add_word(
    model: &mut StableDiffusion,
    path: impl AsRef<Path>,
    word: Option<&str>,
) -> Result<String, FileError> {
    let path = path.as_ref();
    let (rows, name) = vectors(&TensorFile::open(path)?, model.text_encoder.config.width)?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let word = word.unwrap_or(if name == "emb_params" { &stem } else { &name }).to_owned();
    // New rows come after the table's, and new tokens after the vocabulary's: both have to be of one length.
    if model.text_encoder.config.vocabulary != model.tokenizer.vocabulary_size() {
        return Err(FileError::new(
            path,
            "can't be added to a text encoder whose table is longer than its vocabulary",
        ));
    }
    model.tokenizer.add(&word, rows.shape()[0]).ok_or_else(|| {
        FileError::new(path, format!("`{word:.80}` is a word of this model already; choose another name"))
    })?;
    model.text_encoder.add_tokens(&rows);
    Ok(word)
}
