//! LoRAs in two spellings against diffusers, on the tiny model of `data/tiny-sd`: `golden/lora_*.safetensors`, made by
//! `golden/make_lora.py`.

use minai::lora::merge_lora;
use minai::nn::Pass;
use minai::stable_diffusion::StableDiffusion;
use minai::state::{StateDict, Value, load};
use minai::tensor::Tensor;
use minai::weights::Precision;
use std::path::{Path, PathBuf};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn floats(state: &StateDict, name: &str) -> Tensor {
    match &state[name] {
        Value::F32(array) => array.clone().into(),
        other => panic!("{name} is {}", other.dtype()),
    }
}

/// How far what the model says is from the reference of this name, as a share of the largest value.
fn off(model: &StableDiffusion, answers: &StateDict, name: &str) -> [f32; 2] {
    let Value::I64(tokens) = &answers["tokens"] else { panic!("tokens") };
    let (mut pass, theirs) = (Pass::eval(), floats(answers, &format!("{name}.context")));
    let context = model.text_encoder.forward(tokens, &mut pass);
    let noise = model.unet.forward(&floats(answers, "x"), &[321.0], &theirs, &mut pass);
    let pairs = [(context, theirs), (noise, floats(answers, &format!("{name}.noise")))];
    pairs.map(|(ours, theirs)| (ours - &theirs).abs().amax(..).item() / theirs.abs().amax(..).item())
}

#[test]
fn loras_change_the_model_as_in_diffusers() {
    let (answers, _) = load(here("golden/lora_answers.safetensors")).unwrap();
    for (name, file, factor) in
        [("kohya", "lora_kohya", 1.0), ("diffusers", "lora_diffusers", 1.0), ("less", "lora_kohya", 0.5)]
    {
        let model = StableDiffusion::open(here("../data/tiny-sd"), Precision::Single).unwrap();
        assert!(off(&model, &answers, "none").iter().all(|&off| off < 1e-5));
        assert!(off(&model, &answers, name).iter().all(|&off| off > 1e-3), "it makes a difference");
        let path = here(&format!("golden/{file}.safetensors"));
        assert_eq!(merge_lora(&model, &path, factor).unwrap(), 8);
        let found = off(&model, &answers, name);
        assert!(found.iter().all(|&off| off < 1e-5), "{name}: off by {found:?}");
        // And away again.
        merge_lora(&model, &path, -factor).unwrap();
        assert!(off(&model, &answers, "none").iter().all(|&off| off < 1e-5));
    }
}
