//! The conditional U-Net against diffusers: the tiny model of `data/tiny-sd`, and small ones of other shapes. Another set
//! of references may be in the folder that `MINAI_GOLDEN` names.
//!
//! Differences are relative to a tensor's largest value. `--nocapture` shows them.

use minai::array::Array;
use minai::datasets::DataLoaders;
use minai::generator::Generator;
use minai::io::config::Config;
use minai::io::safetensors::TensorFile;
use minai::learner::{FitError, Learner, Origin, Task};
use minai::loader::{Dataset, LoaderOptions};
use minai::loss::mse_loss;
use minai::nn::{Module, Parts, Pass, named_parameters, parameter_count};
use minai::optim::AdamW;
use minai::optimizer::Optimizer;
use minai::state::{Value, load};
use minai::summary::summary_of;
use minai::tensor::{Tensor, elements, grad_check};
use minai::unet::{BlockKind, UNet, UNetConfig, geglu, time_features};
use minai::vae::{AutoencoderKl, VaeConfig};
use minai::weights::{Pending, Precision, initialize, load_weights};
use minai_tests::difference;
use minai_tests::reference::{folder, tiny_sd};
use std::collections::BTreeSet;
use std::path::PathBuf;

fn tiny(keep: Precision) -> UNet {
    let config = UNetConfig::from_config(&Config::open(tiny_sd().join("unet/config.json")).unwrap()).unwrap();
    let unet = UNet::new(&mut Pending, &config);
    let file = tiny_sd().join("unet/diffusion_pytorch_model.safetensors");
    load_weights(&unet, file, keep, &|name| Some(name.into())).unwrap();
    unet
}

/// (x, t, context) and what diffusers predicts.
fn tiny_example() -> (Tensor, Vec<f32>, Tensor, Array) {
    let (mut parts, _) = load(folder().join("sd_parts.safetensors")).unwrap();
    let mut floats = |name: &str| match parts.remove(name) {
        Some(Value::F32(array)) => array,
        Some(Value::I64(array)) => Array::new(array.iter().map(|&t| t as f32).collect(), array.shape()),
        other => panic!("{name}: {other:?}"),
    };
    let [x, context] = ["x", "text_embeddings"].map(|name| floats(name).into());
    (x, elements(&floats("t")).to_vec(), context, floats("noise_pred"))
}

#[test]
fn the_tiny_model_predicts_what_diffusers_does() {
    let (x, t, context, expected) = tiny_example();
    let unet = tiny(Precision::Single);
    let error = difference(&unet.forward(&x, &t, &context, &mut Pass::eval()).data, &expected);
    println!("tiny-sd: {error:.1e}");
    assert!(error < 1e-5, "{error}");
    // Recording for training changes nothing.
    let trained = unet.forward(&x, &t, &context, &mut Pass::train(Generator::manual_seed(0)));
    assert!(difference(&trained.data, &expected) < 1e-5);
}

#[test]
fn half_weights_cost_little_accuracy() {
    let (x, t, context, expected) = tiny_example();
    let error =
        difference(&tiny(Precision::Half).forward(&x, &t, &context, &mut Pass::eval()).data, &expected);
    println!("tiny-sd with weights of 16 bits: {error:.1e}");
    assert!(1e-7 < error && error < 5e-3, "{error}");
}

#[test]
fn other_shapes_predict_what_diffusers_does() {
    let file = TensorFile::open(folder().join("unet.safetensors")).unwrap();
    let (_, metadata) = load(folder().join("unet.safetensors")).unwrap();
    assert!(metadata.len() >= 3);
    for (case, json) in &metadata {
        let unet =
            UNet::new(&mut Pending, &UNetConfig::from_config(&Config::parse(case, json).unwrap()).unwrap());
        let prefix = format!("{case}/net/");
        let rename = |name: &str| name.strip_prefix(&prefix).map(String::from);
        load_weights(&unet, file.path(), Precision::Single, &rename).unwrap();
        let array = |name: &str| file.f32(&format!("{case}/{name}")).unwrap();
        let (x, context) = (array("in.x").into(), array("in.context").into());
        let y = unet.forward(&x, elements(&array("in.t")), &context, &mut Pass::eval());
        let error = difference(&y.data, &array("out"));
        println!("{case} {:?}: {error:.1e}", x.shape());
        assert!(error < 1e-5, "{case}: {error}");
    }
}

/// Latents of noise, each its own target.
struct Noise;

impl Dataset for Noise {
    type Batch = (Array, Array);

    fn len(&self) -> usize {
        2
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> Self::Batch {
        let x = rng.randn(&[indices.len(), 4, 8, 8]);
        (x.clone(), x)
    }
}

/// Noise prediction with a U-Net: what `Learner` trains.
struct Denoising(UNet);

impl Task for Denoising {
    type Batch = (Array, Array);

    fn model(&self) -> &dyn Module {
        &self.0
    }

    fn predict(&self, (x, _): &Self::Batch, pass: &mut Pass) -> Tensor {
        let context = Tensor::zeros(&[x.shape()[0], 1, self.0.config().cross_attention_dim]);
        self.0.forward(&x.clone().into(), &[500.0], &context, pass)
    }

    fn loss(&self, predictions: &Tensor, (_, y): &Self::Batch) -> Tensor {
        mse_loss(predictions, &y.clone().into())
    }

    fn len(&self, (x, _): &Self::Batch) -> usize {
        x.shape()[0]
    }
}

#[test]
fn a_divergence_in_the_middle_names_the_layer() {
    let spoilt = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k";
    let unet = tiny(Precision::Single);
    let weight = named_parameters(&unet).into_iter().find(|(name, _)| *name == format!("{spoilt}.weight"));
    weight.expect("a layer of the U-Net").1.update(|weight| weight[0] = f32::NAN);
    let loaders = DataLoaders::new(Noise, Noise, LoaderOptions::default());
    let optimizer = Optimizer::new(&unet, AdamW::default());
    let mut learner = Learner::new("spoilt", Denoising(unet), optimizer, Generator::manual_seed(1));
    let error = learner.fit(1, &loaders, ()).unwrap_err();
    let FitError::Diverged { epoch: 1, batch: 1, origin: Origin::Layer(layer) } = &error else {
        panic!("{error}")
    };
    assert_eq!(*layer, format!("`{spoilt}` (Linear)"));
    assert!(error.to_string().contains(layer), "{error}");
}

#[test]
fn hooks_see_every_layer_under_the_name_that_state_dicts_use() {
    let (x, t, context, _) = tiny_example();
    let unet = tiny(Precision::Single);
    let table = summary_of(&x, |pass| unet.forward(&x, &t, &context, pass));
    let seen: BTreeSet<&str> = table.rows.iter().map(|row| row.path.as_str()).collect();
    assert_eq!(seen.len(), table.rows.len(), "each layer once");
    for (name, _) in named_parameters(&unet) {
        let (layer, _) = name.rsplit_once('.').expect("a layer's name and the parameter's");
        assert!(seen.contains(layer), "{layer} was not seen");
    }
    assert_eq!(table.total().0, parameter_count(&unet));
    assert_eq!(table.levels(1).total(), table.total());
    let attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn2";
    let inside = table.inside(attention).rows;
    let names: Vec<&str> = inside.iter().map(|row| row.path.as_str()).collect();
    assert_eq!(names, ["to_q", "to_k", "to_v", "to_out.0"]);
    assert_eq!(inside[1].input, context.shape());
}

#[test]
fn a_batch_is_its_parts_and_one_time_serves_all() {
    let (x, t, context, _) = tiny_example();
    let (unet, pass) = (tiny(Precision::Single), &mut Pass::eval());
    let all = unet.forward(&x, &t, &context, pass);
    for (i, &t) in t.iter().enumerate() {
        let one = |x: &Tensor| x.slice(ndarray::s![i..i + 1]);
        let alone = unet.forward(&one(&x), &[t], &one(&context), pass);
        assert!(difference(&alone.data, &one(&all).data) < 1e-5);
    }
    let same = unet.forward(&x, &[t[0]; 3][..t.len().min(3)], &context, pass);
    assert!(difference(&unet.forward(&x, &[t[0]], &context, pass).data, &same.data) < 1e-6);
}

/// A small config, with some entries replaced.
fn config(change: &str) -> Result<UNetConfig, String> {
    let base = r#""block_out_channels": [8, 16], "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "layers_per_block": 1, "cross_attention_dim": 6,
        "attention_head_dim": 2, "norm_num_groups": 4, "act_fn": "silu", "num_class_embeds": null"#;
    // Of two entries of one name the last one counts.
    let json = format!("{{{base}{}{change}}}", if change.is_empty() { "" } else { ", " });
    UNetConfig::from_config(&Config::parse("unet.json", &json).unwrap()).map_err(|error| error.to_string())
}

#[test]
fn configs_are_read_or_refused_by_name() {
    let plain = config("").unwrap();
    assert_eq!((plain.heads.as_slice(), plain.layers_per_block.as_slice()), (&[2, 2][..], &[1, 1][..]));
    assert_eq!(plain.down_blocks, [BlockKind::CrossAttention, BlockKind::Plain]);
    assert_eq!(config(r#""attention_head_dim": [2, 4]"#).unwrap().heads, [2, 4]);
    let refused = [
        (r#""act_fn": "gelu""#, "`act_fn` is gelu"),
        (r#""class_embed_type": "timestep""#, "`class_embed_type`"),
        (r#""num_class_embeds": 10"#, "`num_class_embeds`"),
        (r#""mid_block_type": "UNetMidBlock2D""#, "`mid_block_type` is UNetMidBlock2D"),
        (
            r#""down_block_types": ["AttnDownBlock2D", "DownBlock2D"]"#,
            "`down_block_types` names AttnDownBlock2D",
        ),
        (r#""up_block_types": ["UpBlock2D"]"#, "`up_block_types` has 1 entries"),
        (r#""layers_per_block": [1, 2, 3]"#, "`layers_per_block` has 3 entries"),
        (r#""layers_per_block": 2000000000"#, "`layers_per_block` is 2000000000"),
        (r#""attention_head_dim": 3"#, "`attention_head_dim` is 3"),
        (r#""attention_head_dim": "two""#, "`attention_head_dim` is \"two\""),
        (r#""norm_num_groups": 3"#, "`norm_num_groups` is 3"),
        (r#""norm_num_groups": 0"#, "`norm_num_groups` is 0"),
        (r#""block_out_channels": []"#, "`block_out_channels` 0"),
        (r#""resnet_time_scale_shift": "scale_shift""#, "`resnet_time_scale_shift` is scale_shift"),
        (r#""only_cross_attention": true"#, "`only_cross_attention` is true"),
        (r#""conv_in_kernel": 1"#, "`conv_in_kernel` is 1"),
        (r#""in_channels": 0"#, "`in_channels`"),
        (r#""transformer_layers_per_block": [1, 2]"#, "`transformer_layers_per_block`"),
    ];
    for (change, what) in refused {
        let error = config(change).unwrap_err();
        assert!(error.starts_with("unet.json: ") && error.contains(what), "{change}: {error}");
    }
}

#[test]
fn the_published_shape_is_made_without_its_numbers() {
    // As published; 3.4 GB if they were there.
    assert_eq!(parameter_count(&UNet::new(&mut Pending, &UNetConfig::sd15())), 859_520_964);
    let mut names: Vec<String> = Parts::of(&UNet::new(&mut Pending, &UNetConfig::sd15()))
        .parameters
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 686);
}

#[test]
fn every_parameter_learns() {
    let unet = UNet::new(&mut Pending, &config("").unwrap());
    initialize(&unet, &mut Generator::manual_seed(1), Precision::Single);
    let rng = &mut Generator::manual_seed(2);
    let (x, context) = (rng.randn(&[2, 4, 5, 6]).into(), rng.randn(&[2, 3, 6]).into());
    let loss = |unet: &UNet| {
        let y = unet.forward(&x, &[10.0, 700.0], &context, &mut Pass::train(Generator::manual_seed(0)));
        (&y * &y).mean(..)
    };
    let before = loss(&unet);
    before.backward();
    for (name, parameter) in Parts::of(&unet).parameters {
        let gradient = parameter.grad().unwrap_or_else(|| panic!("no gradient for {name}"));
        assert!(gradient.iter().any(|&g| g != 0.0), "{name} learns nothing");
        parameter.update(|numbers| numbers.iter_mut().zip(gradient.iter()).for_each(|(x, g)| *x -= 0.01 * g));
    }
    assert!(loss(&unet).item() < before.item());
}

#[test]
fn geglu_is_a_gate_and_its_gradient_is_right() {
    let rng = &mut Generator::manual_seed(3);
    let x = rng.randn(&[2, 3, 8]);
    assert_eq!(geglu(&x.clone().into()).shape(), [2, 3, 4]);
    // gelu(0) = 0 closes the gate.
    let closed = Array::new(vec![5.0, 7.0, 0.0, 0.0], &[1, 4]);
    assert_eq!(elements(&geglu(&closed.into()).data), [0.0, 0.0]);
    assert!(grad_check(|x| geglu(&x[0]), &[x]) < 1e-3);
}

#[test]
fn time_features_are_waves() {
    let features = time_features(&[0.0, 1.0], 4, true, 0.0);
    assert_eq!(features.shape(), [2, 4]);
    let expected = [1.0, 1.0, 0.0, 0.0, 1_f64.cos(), 0.01_f64.cos(), 1_f64.sin(), 0.01_f64.sin()];
    elements(&features.data)
        .iter()
        .zip(expected)
        .for_each(|(x, y)| assert!((f64::from(*x) - y).abs() < 1e-7));
    let sines_first = time_features(&[1.0], 4, false, 0.0);
    assert_eq!(elements(&sines_first.data)[..2], elements(&features.data)[6..]);
}

/// On what `golden/make_full.py` makes: the folder is named by `MINAI_FULL_SD`.
#[test]
#[ignore = "needs 4 GB of files that golden/make_full.py makes"]
fn full_size_networks_compute_what_diffusers_does() {
    let folder = PathBuf::from(std::env::var_os("MINAI_FULL_SD").expect("MINAI_FULL_SD names a folder"));
    let file = TensorFile::open(folder.join("full.safetensors")).unwrap();
    let array = |name: &str| file.f32(name).unwrap();
    let settings = |part: &str| Config::open(folder.join(part).join("config.json")).unwrap();
    let weights = |part: &str| folder.join(part).join("diffusion_pytorch_model.safetensors");
    let pass = &mut Pass::eval();
    for (keep, tolerance) in [(Precision::Single, 1e-4), (Precision::Half, 1e-2)] {
        let unet = UNet::new(&mut Pending, &UNetConfig::from_config(&settings("unet")).unwrap());
        let loaded = load_weights(&unet, weights("unet"), keep, &|name| Some(name.into())).unwrap();
        let y = unet.forward(&array("x").into(), elements(&array("t")), &array("context").into(), pass);
        let step = difference(&y.data, &array("noise_pred"));
        drop(unet);
        let vae = AutoencoderKl::new(&mut Pending, &VaeConfig::from_config(&settings("vae")).unwrap());
        load_weights(&vae, weights("vae"), keep, &minai::vae::rename).unwrap();
        let decoded = difference(&vae.decode(&array("z").into(), pass).data, &array("decoded"));
        println!("{keep:?}: step {step:.1e} ({} bytes of weights), decode {decoded:.1e}", loaded.bytes);
        assert!(step < tolerance && decoded < tolerance, "{step} {decoded}");
    }
}

fn run(x: &[usize], t: &[f32], context: &[usize]) {
    let unet = UNet::new(&mut Pending, &config("").unwrap());
    initialize(&unet, &mut Generator::manual_seed(1), Precision::Single);
    unet.forward(&Tensor::zeros(x), t, &Tensor::zeros(context), &mut Pass::eval());
}

#[test]
#[should_panic(expected = "UNet: x of shape [1, 3, 8, 8]")]
fn other_channels_are_refused() {
    run(&[1, 3, 8, 8], &[1.0], &[1, 2, 6]);
}

#[test]
#[should_panic(expected = "UNet: context of shape [1, 2, 7]")]
fn another_context_is_refused() {
    run(&[1, 4, 8, 8], &[1.0], &[1, 2, 7]);
}

#[test]
#[should_panic(expected = "UNet: 3 times for x of shape [2, 4, 8, 8]")]
fn too_many_times_are_refused() {
    run(&[2, 4, 8, 8], &[1.0; 3], &[2, 2, 6]);
}

#[test]
fn the_smallest_picture_passes() {
    run(&[1, 4, 1, 1], &[1.0], &[1, 1, 6]);
}
