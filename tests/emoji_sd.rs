//! The course's own Stable Diffusion, `data/emoji-sd`, against Python's diffusers: `golden/emoji_sd.safetensors`, made by
//! `golden/make_emoji_sd.py`.

use minai::levels::{Call, Levels};
use minai::nn::Pass;
use minai::sampling::Sampler;
use minai::stable_diffusion::{Picture, StableDiffusion};
use minai::state::{StateDict, Value, load};
use minai::tensor::{Tensor, cat};
use minai::weights::Precision;
use std::convert::Infallible;
use std::path::Path;

const PROMPTS: [&str; 2] = ["red apple", "woman astronaut, medium skin"];
const STEPS: usize = 12;
const GUIDANCE: f64 = 3.0;

fn here(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn opened() -> (StableDiffusion, StateDict) {
    let model = StableDiffusion::open(here("../data/emoji-sd"), Precision::Single).unwrap();
    (model, load(here("golden/emoji_sd.safetensors")).unwrap().0)
}

fn floats(state: &StateDict, name: &str) -> Tensor {
    match &state[name] {
        Value::F32(array) => array.clone().into(),
        other => panic!("{name} is {}", other.dtype()),
    }
}

/// The pictures by this sampler from the reference's noise.
fn drawn(model: &StableDiffusion, sampler: &str, noise: &Tensor) -> Vec<Picture> {
    let sampler: Sampler = sampler.parse().unwrap();
    let levels: Levels = sampler.levels(&model.schedule, STEPS, model.last).unwrap();
    let context = cat(&[&model.embed(&["", ""]), &model.embed(&PROMPTS)], 0);
    let network =
        |call: &Call| Ok::<_, Infallible>(model.predict(&call.input, call.time, &context, GUIDANCE, 0.0));
    let Ok(latents) =
        sampler.run(noise * levels.initial_scale as f32, &levels, network, |shape| Tensor::zeros(shape));
    Picture::from_tensor(&model.vae.decode(&(latents / model.vae.scaling_factor()), &mut Pass::eval()))
}

#[test]
fn tokens_and_embeddings_are_those_of_transformers() {
    let (model, state) = opened();
    let (tokens, cut) = model.tokens(&PROMPTS);
    assert!(cut.is_empty());
    assert_eq!(Value::I64(tokens), state["tokens"]);
    let (ours, theirs) = (model.embed(&PROMPTS), floats(&state, "embedded"));
    let off = (&ours - &theirs).abs().amax(..).item() / theirs.abs().amax(..).item();
    assert!(off < 1e-5, "off by {off}");
}

#[test]
fn pictures_are_those_of_diffusers_to_one_byte_of_255() {
    let (model, state) = opened();
    for (name, sampler) in [("ddim", "ddim"), ("dpmpp_2m", "DPM++ 2M Karras")] {
        let Value::U8(theirs) = &state[name] else { panic!("{name}") };
        let ours = drawn(&model, sampler, &floats(&state, "noise"));
        for (picture, theirs) in ours.iter().zip(theirs.outer_iter()) {
            for (i, byte) in theirs.iter().enumerate() {
                let (channel, pixel) = (i / (64 * 64), i % (64 * 64));
                let off = picture.rgb[3 * pixel + channel].abs_diff(*byte);
                assert!(off <= 1, "{name}, pixel {pixel}: off by {off}");
            }
        }
    }
}
