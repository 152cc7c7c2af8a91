//! The whole of Stable Diffusion against diffusers' guided loop: `golden/sd_pipeline.safetensors` and the tiny model, or
//! what lies in the folder that `MINAI_GOLDEN` names. And folders, requests and servers that are not as they should be.

use minai::clip::ClipConfig;
use minai::guidance::guided;
use minai::io::config::Config;
use minai::levels::{Levels, Spacing};
use minai::nn::Pass;
use minai::samplers::{always, lms};
use minai::sampling::Sampler;
use minai::stable_diffusion::{
    Picture, Request, StableDiffusion, open_sampler, open_text_encoder, open_unet, open_vae,
};
use minai::state::{StateDict, Value, load, save};
use minai::tensor::Tensor;
use minai::weights::{Pending, Precision};
use minai_tests::reference::{folder, json, tiny_sd};
use ndarray::s;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tiny-sd")
}

fn tensor(state: &StateDict, name: &str) -> Tensor {
    match &state[name] {
        Value::F32(array) => array.clone().into(),
        other => panic!("{name} is {}", other.dtype()),
    }
}

#[track_caller]
fn assert_close(what: &str, ours: &Tensor, theirs: &Tensor, limit: f32) -> f32 {
    assert_eq!(ours.shape(), theirs.shape(), "{what}");
    let largest = theirs.data.iter().fold(0_f32, |largest, x| largest.max(x.abs()));
    let mut worst = 0.0;
    for (a, b) in ours.data.iter().zip(theirs.data.iter()) {
        let error = (a - b).abs() / largest;
        assert!(error <= limit, "{what}: {a} instead of {b}");
        worst = f32::max(worst, error);
    }
    worst
}

/// The model of the reference; its folder may have no tokenizer.
fn model() -> StableDiffusion {
    let folder = tiny_sd();
    let (text_encoder, _) = open_text_encoder(folder.join("text_encoder"), Precision::Single).unwrap();
    let (unet, _) = open_unet(folder.join("unet"), Precision::Single).unwrap();
    let (vae, _) = open_vae(folder.join("vae"), Precision::Single).unwrap();
    let shipped = StableDiffusion::open(shipped(), Precision::Single).unwrap();
    StableDiffusion { text_encoder, unet, vae, ..shipped }
}

#[test]
fn the_guided_loop_is_that_of_diffusers() {
    let folder = folder();
    let (state, _) = load(folder.join("sd_pipeline.safetensors")).unwrap();
    let manifest = json(&folder.join("manifest.json"));
    let about = &manifest["files"]["sd_pipeline"];
    let (steps, scale) = (about["steps"].as_u64().unwrap() as usize, about["guidance"].as_f64().unwrap());
    let model = model();
    let (context, trajectory) = (tensor(&state, "context"), tensor(&state, "trajectory"));
    let prompt = about["prompt"].as_str().unwrap();
    // The reference's negative prompt is its second prompt.
    let negative = manifest["files"]["sd_parts"]["prompts"][1].as_str().unwrap();
    let embedded = model.embed(&[negative, prompt]);
    println!("embeddings      {:.1e}", assert_close("embeddings", &embedded, &context, 1e-5));

    let levels = Levels::exploding(&model.schedule, steps, Spacing::Linspace);
    let (mut worst, mut calls) = (0.0, 0);
    let mut see = |x: &Tensor| {
        worst =
            f32::max(worst, assert_close("latents", x, &trajectory.slice(s![calls, .., .., .., ..]), 1e-4));
        calls += 1;
    };
    let eps = |x: &Tensor, sigma: f64| {
        see(x);
        model.predict(&levels.input(x, sigma), levels.time(sigma), &context, scale, 0.0)
    };
    let start = tensor(&state, "latents0") * levels.initial_scale as f32;
    let Ok(last) = lms(start, &levels.sigmas, always(eps));
    see(&last);
    assert_eq!(calls, trajectory.shape()[0]);
    println!("every latent    {worst:.1e}");
    let image = model.vae.decode(&(last.clone() / model.vae.scaling_factor()), &mut Pass::eval());
    let image = (image / 2.0 + 0.5).clamp(0.0, 1.0);
    println!("image           {:.1e}", assert_close("image", &image, &tensor(&state, "image"), 1e-4));
    let bytes = tensor(&state, "image") * 2.0 - 1.0;
    let (ours, theirs) = (model.decode(&last).remove(0), Picture::from_tensor(&bytes).remove(0));
    assert!(ours.rgb.iter().zip(&theirs.rgb).all(|(a, b)| a.abs_diff(*b) <= 1), "the picture's bytes");
}

#[test]
fn one_batch_or_two_calls() {
    let model = model();
    let x = Tensor::from(minai::generator::Generator::manual_seed(3).randn(&[2, 4, 8, 8]));
    let context = model.embed(&["", "bad", "a cat", "a horse"]);
    let both = model.predict(&x, 321.0, &context, 4.0, 0.0);
    let half = |from: isize| {
        let context = context.slice(s![from..from + 2, .., ..]);
        model.unet.forward(&x, &[321.0], &context, &mut Pass::eval())
    };
    assert_close("guided", &both, &guided(&half(0), &half(2), 4.0), 1e-5);
}

#[test]
fn the_negative_prompts_come_first() {
    let model = StableDiffusion::open(shipped(), Precision::Single).unwrap();
    let request = Request {
        prompts: vec!["a cat".into(), "a horse".into()],
        negative: "bad".into(),
        sampler: Sampler::Euler(Spacing::Linspace),
        steps: 1,
        size: (64, 64),
        ..Default::default()
    };
    let mut guess = None;
    let mut keep = |step: &minai::stable_diffusion::Step| {
        guess = Some(step.guess.clone());
        ControlFlow::Continue(())
    };
    model.generate(&request, &mut keep).unwrap();
    let sigma = model.schedule.sigma(999.0);
    let noise = Tensor::from(minai::generator::Generator::manual_seed(42).randn(&[2, 4, 8, 8]));
    let context = model.embed(&["bad", "bad", "a cat", "a horse"]);
    let x = &noise * sigma as f32;
    let eps = model.predict(&(&x / sigma.hypot(1.0) as f32), 999.0, &context, 7.5, 0.0);
    assert_close("guess", &guess.unwrap(), &(&x - eps * sigma as f32), 1e-5);
}

#[test]
fn guidance_of_at_most_one_is_the_prompts_prediction() {
    let model = StableDiffusion::open(shipped(), Precision::Single).unwrap();
    let x = Tensor::from(minai::generator::Generator::manual_seed(3).randn(&[1, 4, 8, 8]));
    let (both, alone) = (model.embed(&["bad", "a cat"]), model.embed(&["a cat"]));
    let expected = model.unet.forward(&x, &[321.0], &alone, &mut Pass::eval());
    for scale in [1.0, 0.5, 0.0, -3.0] {
        assert_close("both texts", &model.predict(&x, 321.0, &both, scale, 0.0), &expected, 1e-6);
        assert_close("the prompt", &model.predict(&x, 321.0, &alone, scale, 0.7), &expected, 1e-6);
    }
    let draw = |guidance, negative: &str| {
        let (prompts, negative) = (vec!["a cat".into()], negative.into());
        let request = Request { prompts, negative, guidance, steps: 3, size: (64, 64), ..Default::default() };
        model.generate(&request, |_| ControlFlow::Continue(())).unwrap().data
    };
    assert_eq!(draw(1.0, ""), draw(0.0, "bad"));
    assert_ne!(draw(1.0, ""), draw(1.1, ""));
}

/// A copy of the tiny model that can be spoiled.
fn copy() -> tempfile::TempDir {
    fn copy_folder(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            match entry.path().is_dir() {
                true => copy_folder(&entry.path(), &to),
                false => fs::write(to, fs::read(entry.path()).unwrap()).unwrap(),
            }
        }
    }
    let place = tempfile::tempdir().unwrap();
    copy_folder(&shipped(), place.path());
    place
}

fn spoil(folder: &Path, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    assert!(text.contains(from), "{from} is not in {file}");
    fs::write(folder.join(file), text.replacen(from, to, 1)).unwrap();
}

#[track_caller]
fn assert_refused(folder: &Path, wanted: &[&str]) {
    let error = StableDiffusion::open(folder, Precision::Single).expect_err("an error").to_string();
    for part in wanted {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
}

/// diffusers writes `-Infinity` into the configuration of its DPM++, and editors a byte-order mark.
#[test]
fn configurations_that_python_wrote_are_read() {
    let place = copy();
    let scheduler = place.path().join("scheduler/scheduler_config.json");
    fs::copy("configs/scheduler_config.json", &scheduler).unwrap();
    assert!(fs::read_to_string(&scheduler).unwrap().contains("-Infinity"));
    spoil(place.path(), "model_index.json", "{", "\u{FEFF}{");
    let model = StableDiffusion::open(place.path(), Precision::Single).unwrap();
    assert_eq!(model.schedule, minai::noise::NoiseSchedule::stable_diffusion());
}

#[test]
fn folders_that_are_not_a_model_are_refused_by_name() {
    assert_refused(Path::new("no/such/folder"), &["model_index.json"]);
    let spoilt: [(&str, &str, &str, &[&str]); 14] = [
        (
            "model_index.json",
            "StableDiffusionPipeline",
            "StableDiffusionXLPipeline",
            &["XLPipeline", "version 1"],
        ),
        ("model_index.json", "{", "", &["model_index.json"]),
        (
            "scheduler/scheduler_config.json",
            "epsilon",
            "sample",
            &["prediction_type", "\"sample\"", "v_prediction"],
        ),
        (
            "scheduler/scheduler_config.json",
            "scaled_linear",
            "sigmoid",
            &["scheduler_config.json", "sigmoid"],
        ),
        ("scheduler/scheduler_config.json", "0.012", "1.5", &["scheduler_config.json", "1.5"]),
        (
            "scheduler/scheduler_config.json",
            "\"trained_betas\": null",
            "\"trained_betas\": [0.1, 0.2]",
            &["scheduler_config.json", "`trained_betas`"],
        ),
        (
            "scheduler/scheduler_config.json",
            "\"trained_betas\": null",
            "\"rescale_betas_zero_snr\": true",
            &["scheduler_config.json", "`rescale_betas_zero_snr` is true"],
        ),
        (
            "unet/config.json",
            "\"UNetMidBlock2DCrossAttn\"",
            "null",
            &["unet/config.json", "`mid_block_type` is null"],
        ),
        (
            "unet/config.json",
            "\"cross_attention_dim\": 16",
            "\"cross_attention_dim\": 24",
            &["diffusion_pytorch_model", "24", "16"],
        ),
        ("unet/config.json", "1e-05", "NaN", &["unet/config.json", "`norm_eps` is NaN"]),
        ("unet/config.json", "\"freq_shift\": 0", "\"freq_shift\": -Infinity", &["`freq_shift` is -inf"]),
        ("unet/config.json", "\"norm_num_groups\": 8", "\"norm_num_groups\": 7", &["norm_num_groups", "7"]),
        (
            "vae/config.json",
            "\"latent_channels\": 4",
            "\"latent_channels\": 8",
            &["diffusion_pytorch_model", "8"],
        ),
        ("text_encoder/config.json", "\"hidden_size\": 16", "\"hidden_size\": 1000000000", &["text_encoder"]),
    ];
    for (file, from, to, wanted) in spoilt {
        let place = copy();
        spoil(place.path(), file, from, to);
        assert_refused(place.path(), wanted);
    }
    let place = copy();
    fs::remove_file(place.path().join("vae/diffusion_pytorch_model.safetensors")).unwrap();
    assert_refused(place.path(), &["vae", "diffusion_pytorch_model.safetensors", "fetch"]);
    let place = copy();
    fs::remove_dir_all(place.path().join("tokenizer")).unwrap();
    assert_refused(place.path(), &["tokenizer"]);
}

#[test]
fn parts_of_two_models_are_refused() {
    let place = copy();
    let path = place.path().join("text_encoder");
    // A text encoder of another width, whole in itself.
    spoil(place.path(), "text_encoder/config.json", "\"hidden_size\": 16", "\"hidden_size\": 24");
    let config = ClipConfig::from_config(&Config::open(path.join("config.json")).unwrap()).unwrap();
    let wide = minai::clip::ClipText::new(&mut Pending, &config);
    minai::weights::initialize(&wide, &mut minai::generator::Generator::manual_seed(1), Precision::Single);
    save(path.join("model.safetensors"), &minai::state::state_dict(&wide), &Default::default()).unwrap();
    assert_refused(place.path(), &["24", "16", "different models"]);
}

#[test]
fn weights_that_are_no_numbers_are_refused() {
    let place = copy();
    let path = place.path().join("vae/diffusion_pytorch_model.safetensors");
    let (mut state, about) = load(&path).unwrap();
    if let Value::F32(array) = state.get_mut("decoder.conv_in.weight").unwrap() {
        array[[0, 0, 0, 0]] = f32::NAN;
    }
    save(&path, &state, &about).unwrap();
    assert_refused(place.path(), &["decoder.conv_in.weight", "diffusion_pytorch_model.safetensors"]);
}

#[test]
fn weights_in_half_precision_under_their_published_name() {
    let place = copy();
    let [whole, half] = ["", ".fp16"]
        .map(|kind| place.path().join(format!("unet/diffusion_pytorch_model{kind}.safetensors")));
    fs::rename(whole, half).unwrap();
    let model = StableDiffusion::open(place.path(), Precision::Half).unwrap();
    let full = StableDiffusion::open(shipped(), Precision::Single).unwrap();
    let bytes = |model: &StableDiffusion| model.loaded.iter().map(|loaded| loaded.bytes).sum::<usize>();
    assert!(bytes(&model) * 10 < bytes(&full) * 6, "{} and {}", bytes(&model), bytes(&full));
}

#[test]
fn prompts_of_any_length_and_script() {
    let model = StableDiffusion::open(shipped(), Precision::Single).unwrap();
    let long = "word ".repeat(10_000);
    for prompt in ["", &long, "日本語 العربية 👩‍👩‍👧", "\0\u{FFFD}"] {
        let (tokens, cut) = model.tokens(&[prompt]);
        assert_eq!(tokens.shape(), &[1, 77]);
        assert_eq!(cut.len(), usize::from(prompt.len() > 1000));
        assert!(model.embed(&[prompt]).data.iter().all(|x| x.is_finite()));
    }
}

#[test]
fn a_scheduler_s_configuration_names_its_sampler_and_times() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    let of = |json: &str| {
        fs::write(&path, json).unwrap();
        open_sampler(&path)
    };
    let cases = [
        // As published with Stable Diffusion 1.5, and as other tools save them.
        (r#"{"_class_name": "PNDMScheduler", "steps_offset": 1}"#, "pndm", Spacing::Leading { offset: 1 }),
        (r#"{"_class_name": "DDIMScheduler"}"#, "ddim", Spacing::Leading { offset: 0 }),
        (r#"{"_class_name": "EulerDiscreteScheduler"}"#, "euler", Spacing::Linspace),
        (
            r#"{"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}"#,
            "euler_a",
            Spacing::Trailing,
        ),
        (
            r#"{"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "steps_offset": 1}"#,
            "euler",
            Spacing::Leading { offset: 1 },
        ),
        (
            r#"{"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": true}"#,
            "dpmpp_2m",
            Spacing::Karras,
        ),
        (
            r#"{"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++"}"#,
            "dpmpp_2m_sde",
            Spacing::Linspace,
        ),
    ];
    for (json, name, spacing) in cases {
        let sampler = of(json).unwrap().unwrap();
        assert_eq!((sampler.name(), sampler.spacing()), (name, Some(spacing)), "{json}");
    }
    assert_eq!(of(r#"{"_class_name": "EDMEulerScheduler"}"#).unwrap(), None);
    let error =
        of(r#"{"_class_name": "DDIMScheduler", "timestep_spacing": "even"}"#).unwrap_err().to_string();
    assert!(error.contains("timestep_spacing") && error.contains("\"even\""), "{error}");
}

#[test]
fn a_text_encoder_may_lie_in_a_whole_clip_and_have_more_blocks_than_it_uses() {
    let (plain, place) = (StableDiffusion::open(shipped(), Precision::Single).unwrap(), copy());
    let folder = place.path().join("text_encoder");
    let (weights, config) = (folder.join("model.safetensors"), folder.join("config.json"));
    let tokens = plain.tokens(&["a cat on a mat"]).0;
    let said = |model: &StableDiffusion| model.text_encoder.forward(&tokens, &mut Pass::eval());
    let whole = said(&plain);

    // All of CLIP, as a program has saved it that trained on several processors.
    let (state, metadata) = load(&weights).unwrap();
    let mut state: StateDict =
        state.into_iter().map(|(name, value)| (format!("module.{name}"), value)).collect();
    let some = Value::F32(minai::array::Array::new(vec![1.0], &[1]));
    for other in ["vision_model.embeddings.class_embedding", "logit_scale", "text_projection.weight"] {
        state.insert(format!("module.{other}"), some.clone());
    }
    save(&weights, &state, &metadata).unwrap();
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        format!("{{\"model_type\": \"clip\", \"text_config\": {text}, \"vision_config\": {{}}}}"),
    )
    .unwrap();
    let model = StableDiffusion::open(place.path(), Precision::Single).unwrap();
    assert_eq!(said(&model).data, whole.data);
    assert_eq!(model.loaded[0].left_out.len(), 3);

    // One block fewer, by the configuration or by `skip`: the same, and not what both blocks say.
    fs::write(&config, text.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1")).unwrap();
    let shorter = StableDiffusion::open(place.path(), Precision::Single).unwrap();
    assert!(shorter.loaded[0].left_out.iter().any(|name| name.contains("encoder.layers.1.")));
    let mut skipping = plain;
    skipping.text_encoder.skip = 1;
    assert_eq!(said(&shorter).data, said(&skipping).data);
    assert_ne!(said(&shorter).data, whole.data);
}

#[test]
fn models_that_are_shown_more_than_noise_are_named() {
    let place = copy();
    let unet = place.path().join("unet/config.json");
    let text = fs::read_to_string(&unet).unwrap();
    for (channels, what) in [("9", "an inpainting model"), ("8", "by instruction"), ("7", "a small picture")]
    {
        fs::write(&unet, text.replace("\"in_channels\": 4", &format!("\"in_channels\": {channels}")))
            .unwrap();
        let config = minai::unet::UNetConfig::from_config(&Config::open(&unet).unwrap()).unwrap();
        let error = minai::stable_diffusion::check_channels(&config).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    fs::write(&unet, text).unwrap();
    // Weights of another kind only: the error says which, and what to do.
    let weights = place.path().join("unet/diffusion_pytorch_model.safetensors");
    fs::rename(&weights, weights.with_file_name("diffusion_pytorch_model.non_ema.safetensors")).unwrap();
    assert_refused(place.path(), &["non_ema.safetensors", "rename"]);
    fs::rename(
        weights.with_file_name("diffusion_pytorch_model.non_ema.safetensors"),
        weights.with_file_name("diffusion_pytorch_model.bin"),
    )
    .unwrap();
    assert_refused(place.path(), &["diffusion_pytorch_model.bin", "weights_only=True"]);
}
