//! Stable Diffusion 2 with random weights against diffusers: `golden/sd2` and `golden/sd2_answers.safetensors`, made by
//! `golden/make_sd2.py`, with CLIP's vocabulary from `data/tiny-sd`.

use minai::levels::{Call, Spacing};
use minai::nn::Pass;
use minai::sampling::Sampler;
use minai::stable_diffusion::{Picture, Prediction, StableDiffusion};
use minai::state::{StateDict, Value, load};
use minai::tensor::Tensor;
use minai::weights::Precision;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The reference's folder, with a tokenizer as version 2 has it.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for part in ["unet", "vae", "text_encoder", "scheduler", "tokenizer"] {
        fs::create_dir(folder.path().join(part)).unwrap();
        for file in fs::read_dir(here("golden/sd2").join(part)).into_iter().flatten() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path().join(part).join(file.file_name())).unwrap();
        }
    }
    fs::copy(here("golden/sd2/model_index.json"), folder.path().join("model_index.json")).unwrap();
    let vocabulary = "bpe_simple_vocab_16e6.txt.gz";
    let tokenizer = folder.path().join("tokenizer");
    fs::copy(here("../data/tiny-sd/tokenizer").join(vocabulary), tokenizer.join(vocabulary)).unwrap();
    fs::write(tokenizer.join("tokenizer_config.json"), r#"{"pad_token": "!", "model_max_length": 77}"#)
        .unwrap();
    folder
}

fn floats(state: &StateDict, name: &str) -> Tensor {
    match &state[name] {
        Value::F32(array) => array.clone().into(),
        other => panic!("{name} is {}", other.dtype()),
    }
}

#[track_caller]
fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor, limit: f32) {
    let off = (ours - theirs).abs().amax(..).item() / theirs.abs().amax(..).item();
    assert!(ours.shape() == theirs.shape() && off < limit, "{what}: off by {off}");
}

#[test]
fn a_model_of_version_2_draws_what_diffusers_draws() {
    let (folder, (answers, _)) = (folder(), load(here("golden/sd2_answers.safetensors")).unwrap());
    let model = StableDiffusion::open(folder.path(), Precision::Single).unwrap();
    assert_eq!((model.prediction, model.size), (Prediction::Velocity, (16, 16)));
    let sampler = model.sampler.unwrap();
    assert_eq!(sampler, Sampler::Ddim { spacing: Spacing::Leading { offset: 1 }, eta: 0.0 });

    let texts = ["", "a cat"];
    assert_eq!(Value::I64(model.tokens(&texts).0), answers["tokens"]);
    let context = model.embed(&texts);
    assert_close("text", &context, &floats(&answers, "context"), 1e-5);

    let levels = sampler.levels(&model.schedule, 8, model.last).unwrap();
    let network =
        |call: &Call| Ok::<_, Infallible>(model.predict(&call.input, call.time, &context, 5.0, 0.0));
    let noise = floats(&answers, "noise") * levels.initial_scale as f32;
    let Ok(latents) = sampler.run(noise, &levels, network, |shape| Tensor::zeros(shape));
    assert_close("latents", &latents, &floats(&answers, "latents"), 1e-4);
    let image = model.vae.decode(&(&latents / model.vae.scaling_factor()), &mut Pass::eval());
    assert_close("image", &image, &floats(&answers, "image"), 1e-4);
    let pictures =
        [&image, &floats(&answers, "image")].map(|image| Picture::from_tensor(image).remove(0).rgb);
    assert!(pictures[0].iter().zip(&pictures[1]).all(|(a, b)| a.abs_diff(*b) <= 1), "a byte of 255");
}
