//! A U-Net that is told level and class, Karras's preconditioning and one training step against PyTorch:
//! `golden/diffusion.safetensors`, made by `make_diffusion.py`. Another set may be in the folder that `MINAI_GOLDEN` names.
//!
//! Differences are relative to a tensor's largest value. `--nocapture` shows them.

use minai::array::Array;
use minai::generator::Generator;
use minai::guidance::{ClassUNet, DenoiseClass, Guidance};
use minai::karras::{LevelBatch, Preconditioner};
use minai::learner::Task;
use minai::nn::{Pass, named_parameters};
use minai::optim::AdamW;
use minai::optimizer::Optimizer;
use minai::small_unet::SmallUNetConfig;
use minai::state::{Metadata, StateDict, Value, load, load_state_dict, save, state_dict};
use minai::tensor::Tensor;
use minai::weights::{Pending, Precision, load_weights};
use minai_tests::difference;
use minai_tests::reference::{folder, own};

fn reference() -> StateDict {
    let file = "diffusion.safetensors";
    let folder = if folder().join(file).exists() { folder() } else { own() };
    load(folder.join(file)).unwrap().0
}

fn floats(state: &StateDict, name: &str) -> Array {
    match &state[name] {
        Value::F32(array) => array.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

fn integers(state: &StateDict, name: &str) -> Array<i64> {
    match &state[name] {
        Value::I64(array) => array.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

/// PyTorch's network, and its batch.
fn task(state: &StateDict) -> (DenoiseClass, (LevelBatch, Array<i64>)) {
    let channels = integers(state, "channels").iter().map(|&c| c as usize).collect();
    let config = SmallUNetConfig { channels, ..SmallUNetConfig::default() };
    let classes = floats(state, "weight/classes.weight").shape()[0] - 1;
    let model = ClassUNet::new(&mut Generator::manual_seed(0), &config, classes);
    let weights = state
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("weight/")?.to_owned(), value.clone())));
    load_state_dict(&model, &weights.collect()).unwrap();
    let [x, x0, sigma] = ["x", "x0", "sigma"].map(|name| floats(state, name));
    let task = DenoiseClass { model, preconditioner: Preconditioner { sigma_data: 0.5 } };
    (task, (LevelBatch { x, x0, sigma }, integers(state, "label")))
}

#[track_caller]
fn assert_close(name: &str, found: &Array, wanted: &Array) {
    let difference = difference(found, wanted);
    println!("{name:60} {difference:.1e}");
    // The waves of a level of 0.05 have angles up to 750, which an f32 holds to 3e-5.
    let limit = if name.contains("time_embedding") { 1e-4 } else { 1e-5 };
    assert!(difference < limit, "{name}: off by {difference:.1e}");
}

#[test]
fn output_target_and_image_are_pytorchs() {
    let state = reference();
    let (task, batch) = task(&state);
    let output = task.predict(&batch, &mut Pass::eval());
    let (x, x0) = (Tensor::from(batch.0.x.clone()), Tensor::from(batch.0.x0.clone()));
    assert_close("output", &output.data, &floats(&state, "output"));
    let target = task.preconditioner.target(&x, &x0, &batch.0.sigma);
    assert_close("target", &target.data, &floats(&state, "target"));
    let image = task.preconditioner.image(&x, &output, &batch.0.sigma);
    assert_close("image", &image.data, &floats(&state, "image"));
}

#[test]
fn a_training_step_is_pytorchs() {
    let state = reference();
    let (task, batch) = task(&state);
    let mut optimizer = Optimizer::new(&task.model, AdamW { lr: 1e-3, ..AdamW::default() });
    let mut rng = Generator::manual_seed(0);
    let loss = task.loss(&task.predict(&batch, &mut Pass::train(rng.split())), &batch);
    assert_close("loss", &Array::new(vec![loss.item()], &[1]), &floats(&state, "loss"));
    loss.backward();
    for (name, parameter) in named_parameters(&task.model) {
        let gradient = parameter.grad().unwrap_or_else(|| panic!("{name}: no gradient"));
        assert_close(&format!("grad/{name}"), &gradient, &floats(&state, &format!("grad/{name}")));
    }
    optimizer.step();
    for (name, parameter) in named_parameters(&task.model) {
        assert_close(&format!("after/{name}"), &parameter.data(), &floats(&state, &format!("after/{name}")));
    }
}

#[test]
fn weights_may_come_from_a_file_only() {
    let state = reference();
    let (drawn, (batch, classes)) = task(&state);
    let channels = integers(&state, "channels").iter().map(|&c| c as usize).collect();
    let config = SmallUNetConfig { channels, ..SmallUNetConfig::default() };
    let pending = ClassUNet::new(&mut Pending, &config, drawn.model.none() as usize);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    save(&file, &state_dict(&drawn.model), &Metadata::new()).unwrap();
    load_weights(&pending, &file, Precision::Single, &|name| Some(name.to_owned())).unwrap();
    let output = |model: &ClassUNet| {
        model.forward(&batch.x.clone().into(), &batch.sigma.clone().into(), &classes, &mut Pass::eval()).data
    };
    assert_eq!(output(&pending), output(&drawn.model));
}

#[test]
#[should_panic = "noise levels fall from step to step"]
fn drawing_without_levels_is_refused_in_words() {
    let (task, _) = task(&reference());
    let sampler = "euler".parse().unwrap();
    task.draw((&[1], [1, 28, 28]), &Guidance::default(), (sampler, &[]), &mut Generator::manual_seed(0));
}
