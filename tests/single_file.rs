//! A model in a single file, under the names of the first published code, against what diffusers reads from it:
//! `golden/single_file.safetensors`, made by `golden/make_single_file.py`.

use minai::nn::Pass;
use minai::single_file::open_single_file;
use minai::state::{StateDict, Value, load, save};
use minai::tensor::Tensor;
use minai::tokenizer::{Tokenizer, learn_vocabulary};
use minai::weights::Precision;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// A vocabulary that is smaller than the model's table.
fn tokenizer() -> Tokenizer {
    let (vocabulary, merges) = learn_vocabulary(["a small one"], 10);
    Tokenizer::from_texts("vocab.json", &vocabulary, "merges.txt", &merges).unwrap()
}

fn floats(state: &StateDict, name: &str) -> Tensor {
    match &state[name] {
        Value::F32(array) => array.clone().into(),
        other => panic!("{name} is {}", other.dtype()),
    }
}

#[track_caller]
fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor) {
    let off = (ours - theirs).abs().amax(..).item() / theirs.abs().amax(..).item();
    assert!(ours.shape() == theirs.shape() && off < 1e-5, "{what}: off by {off}");
}

#[test]
fn a_single_file_is_read_as_diffusers_reads_it() {
    let model = open_single_file(golden("single_file.safetensors"), tokenizer(), Precision::Single).unwrap();
    let (state, _) = load(golden("single_file_answers.safetensors")).unwrap();
    let Value::I64(tokens) = &state["tokens"] else { panic!("tokens") };
    let (context, mut pass) = (floats(&state, "context"), Pass::eval());
    assert_close("text", &model.text_encoder.forward(tokens, &mut pass), &context);
    let noise = model.unet.forward(&floats(&state, "x"), &[321.0, 7.0], &context, &mut pass);
    assert_close("U-Net", &noise, &floats(&state, "unet"));
    let mean = model.vae.encode(&floats(&state, "image"), &mut pass).mean;
    assert_close("encoder", &mean, &floats(&state, "mean"));
    assert_close(
        "decoder",
        &model.vae.decode(&floats(&state, "mean"), &mut pass),
        &floats(&state, "decoded"),
    );
}

#[test]
fn what_a_file_is_instead_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let refused = |names: &[&str]| {
        let one = Value::F32(minai::array::Array::new(vec![1.0], &[1]));
        let state: StateDict = names.iter().map(|name| (name.to_string(), one.clone())).collect();
        save(&path, &state, &BTreeMap::new()).unwrap();
        open_single_file(&path, tokenizer(), Precision::Single).unwrap_err().to_string()
    };
    for (name, what) in [
        ("conditioner.embedders.0.transformer.x", "Stable Diffusion XL"),
        ("cond_stage_model.model.ln_final.weight", "Stable Diffusion 2"),
        ("lora_unet_down_blocks_0.lora_up.weight", "LoRA"),
        ("double_blocks.0.img_attn.qkv.weight", "Flux"),
        ("something.else", "lacks parts"),
    ] {
        let error = refused(&[name]);
        assert!(error.contains(what), "{name}: {error}");
    }
    // A whole model but for one tensor: named.
    let (mut state, _) = load(golden("single_file.safetensors")).unwrap();
    state.remove("model.diffusion_model.out.2.bias");
    save(&path, &state, &BTreeMap::new()).unwrap();
    let error = open_single_file(&path, tokenizer(), Precision::Single).unwrap_err().to_string();
    assert!(error.contains("`conv_out.bias`") && error.contains("is missing"), "{error}");
}
