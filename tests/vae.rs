//! The autoencoder against diffusers' results for the tiny model: `golden/sd_parts.safetensors`, or the file and the
//! model in the folder that `MINAI_GOLDEN` names. Sizes come from the files.

use minai::array::Array;
use minai::generator::Generator;
use minai::io::config::Config;
use minai::nn::{Parts, Pass};
use minai::state::{Metadata, StateDict, Value, load, save};
use minai::tensor::Tensor;
use minai::vae::{AutoencoderKl, Posterior, VaeConfig, rename};
use minai::weights::{Pending, Precision, initialize, load_weights};
use minai_tests::difference;
use minai_tests::reference::{folder, tiny_sd};
use std::path::{Path, PathBuf};

/// As far as a result may be off, of the largest number.
const TOLERANCE: f32 = 1e-5;

fn tiny(part: &str) -> PathBuf {
    tiny_sd().join("vae").join(part)
}

fn weights() -> PathBuf {
    tiny("diffusion_pytorch_model.safetensors")
}

/// The same weights under the names that older files have.
fn old_weights() -> PathBuf {
    let beside = tiny("diffusion_pytorch_model.oldnames.safetensors");
    if beside.exists() { beside } else { folder().join("vae_oldnames.safetensors") }
}

fn config() -> VaeConfig {
    VaeConfig::from_config(&Config::open(tiny("config.json")).unwrap()).unwrap()
}

fn model_of(file: &Path, keep: Precision) -> AutoencoderKl {
    let model = AutoencoderKl::new(&mut Pending, &config());
    load_weights(&model, file, keep, &rename).unwrap();
    model
}

/// `image`, `enc_mean`, `enc_logvar`, `z`, `decoded`.
fn golden(name: &str) -> Array {
    let (parts, _) = load(folder().join("sd_parts.safetensors")).unwrap();
    match &parts[name] {
        Value::F32(array) => array.clone(),
        other => panic!("{name}: {other:?}"),
    }
}

/// How far a model is off: means, log-variances, decoded images.
fn errors(model: &AutoencoderKl) -> [f32; 3] {
    let Posterior { mean, log_variance } = model.encode(&golden("image").into(), &mut Pass::eval());
    let decoded = model.decode(&golden("z").into(), &mut Pass::eval());
    [(mean, "enc_mean"), (log_variance, "enc_logvar"), (decoded, "decoded")]
        .map(|(found, name)| difference(&found.data, &golden(name)))
}

#[test]
fn encoder_and_decoder_are_those_of_diffusers() {
    let errors = errors(&model_of(&weights(), Precision::Single));
    println!("off by {errors:?} of mean, log-variance, image");
    assert!(errors.iter().all(|&error| error < TOLERANCE), "{errors:?}");
}

#[test]
fn old_names_are_read() {
    let errors = errors(&model_of(&old_weights(), Precision::Single));
    assert!(errors.iter().all(|&error| error < TOLERANCE), "{errors:?}");
}

#[test]
fn half_weights_cost_little() {
    let errors = errors(&model_of(&weights(), Precision::Half));
    println!("weights in f16: off by {errors:?} of mean, log-variance, image");
    assert!(errors.iter().all(|&error| 0.0 < error && error < 1e-2), "{errors:?}");
}

#[test]
fn portrait_and_landscape() {
    let (model, mut rng) = (model_of(&weights(), Precision::Single), Generator::manual_seed(1));
    let config = config();
    let factor = config.factor();
    for (h, w) in [(1, 3), (3, 2), (2, 5)] {
        let image = rng.randn(&[1, config.in_channels, h * factor, w * factor]);
        let posterior = model.encode(&image.into(), &mut Pass::eval());
        assert_eq!(posterior.mean.shape(), [1, config.latent_channels, h, w]);
        let decoded = model.decode(&posterior.mean, &mut Pass::eval());
        assert_eq!(decoded.shape(), [1, config.out_channels, h * factor, w * factor]);
    }
}

/// A batch gives what its images give one by one.
#[test]
fn images_of_a_batch_do_not_mix() {
    let model = model_of(&weights(), Precision::Single);
    let z = Tensor::from(golden("z"));
    let together = model.decode(&z, &mut Pass::eval());
    for i in 0..z.shape()[0] as isize {
        let one = model.decode(&z.slice(ndarray::s![i..i + 1]), &mut Pass::eval());
        assert!(difference(&one.data, &together.slice(ndarray::s![i..i + 1]).data) < 1e-6);
    }
}

#[test]
#[should_panic(expected = "in multiples of 8 expected, shape [1, 3, 64, 60]")]
fn other_sizes() {
    let model = model_of(&weights(), Precision::Single);
    model.encode(&Tensor::zeros(&[1, 3, 64, 60]), &mut Pass::eval());
}

/// Log-variances are kept within -30 and 20, whatever the weights say.
#[test]
fn the_log_variance_is_clamped() {
    let model = model_of(&weights(), Precision::Single);
    for (name, parameter) in Parts::of(&model).parameters {
        if name == "quant_conv.weight" {
            parameter.update(|weights| weights.iter_mut().for_each(|w| *w *= 1e4));
        }
    }
    let log_variance = model.encode(&golden("image").into(), &mut Pass::eval()).log_variance;
    assert_eq!([log_variance.amin(..).item(), log_variance.amax(..).item()], [-30.0, 20.0]);
}

#[test]
fn samples_have_mean_and_variance() {
    let mean = Tensor::full(&[1, 4, 50, 50], 3.0);
    let log_variance = Tensor::full(&[1, 4, 50, 50], 0.25_f32.ln());
    let sample = Posterior { mean, log_variance }.sample(&mut Generator::manual_seed(5));
    assert!((sample.mean(..).item() - 3.0).abs() < 0.02);
    assert!((sample.std(..).item() - 0.5).abs() < 0.02);
}

/// ∫ p ln (p / q) for one number, by the sum of a fine grid.
#[test]
fn the_divergence_is_its_integral() {
    let (mean, std) = (0.7_f64, 0.4_f64);
    let normal = |x: f64, mean: f64, std: f64| {
        (-0.5 * ((x - mean) / std).powi(2)).exp() / (std * std::f64::consts::TAU.sqrt())
    };
    let step = 1e-4;
    let integral: f64 = (-80_000..80_000)
        .map(|i| f64::from(i) * step)
        .map(|x| {
            let p = normal(x, mean, std);
            if p > 0.0 { p * (p / normal(x, 0.0, 1.0)).ln() * step } else { 0.0 }
        })
        .sum();
    let of = |value: f64| Tensor::full(&[3, 2, 1, 1], value as f32);
    let kl = Posterior { mean: of(mean), log_variance: of(2.0 * std.ln()) }.kl();
    assert_eq!(kl.shape(), [3]);
    assert!(kl.data.iter().all(|kl| (f64::from(*kl) - 2.0 * integral).abs() < 1e-5), "{kl:?} {integral}");
}

/// The slope along each parameter's gradient is the gradient's length.
#[test]
fn gradients_are_slopes() {
    let config = VaeConfig {
        in_channels: 1,
        out_channels: 1,
        latent_channels: 2,
        channels: vec![4, 6],
        layers: 1,
        groups: 2,
        scaling_factor: 1.0,
    };
    let model = AutoencoderKl::new(&mut Pending, &config);
    let mut rng = Generator::manual_seed(3);
    initialize(&model, &mut rng, Precision::Single);
    let (image, weights) = (Tensor::from(rng.randn(&[2, 1, 8, 6])), Tensor::from(rng.randn(&[2, 1, 8, 6])));
    let loss = |pass: &mut Pass| {
        let posterior = model.encode(&image, pass);
        let z = posterior.sample(&mut Generator::manual_seed(7));
        (model.decode(&z, pass) * &weights).sum(..) + posterior.kl().sum(..)
    };
    loss(&mut Pass::train(Generator::manual_seed(0))).backward();
    for (name, parameter) in Parts::of(&model).parameters {
        let (gradient, before, step) = (parameter.grad().expect(&name), parameter.data(), 1e-2);
        let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        let at = |sign: f32| {
            let data =
                before.iter().zip(gradient.iter()).map(|(x, g)| x + sign * step * g / length.max(1e-9));
            parameter.set(Array::new(data.collect(), before.shape()));
            loss(&mut Pass::eval()).item()
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
        parameter.set(before.clone());
        assert!((slope - length).abs() < 0.03 * length + 5e-3, "{name}: {slope} for {length}");
    }
}

#[test]
fn published_sizes() {
    let model = AutoencoderKl::new(&mut Pending, &VaeConfig::sd15());
    let numbers: usize =
        Parts::of(&model).parameters.iter().map(|(_, p)| p.shape().iter().product::<usize>()).sum();
    assert_eq!(numbers, 83_653_863); // as diffusers counts the autoencoder of Stable Diffusion v1
}

/// A config that asks for what is not built is an error that names the key and the value.
#[test]
fn other_configs_are_refused() {
    let good = std::fs::read_to_string(tiny("config.json")).unwrap();
    let good: serde_json::Value = serde_json::from_str(&good).unwrap();
    let stages = good["block_out_channels"].as_array().unwrap().len();
    for (key, value, named) in [
        ("act_fn", "\"relu\"".to_owned(), "relu"),
        (
            "down_block_types",
            format!("[{}\"AttnDownEncoderBlock2D\"]", "\"DownEncoderBlock2D\",".repeat(stages - 1)),
            "AttnDownEncoderBlock2D",
        ),
        ("up_block_types", "[\"UpDecoderBlock2D\"]".into(), "1"),
        ("block_out_channels", "[16, 17, 32, 32]".into(), "17"),
        ("block_out_channels", "[]".into(), "[]"),
        ("block_out_channels", "[0]".into(), "[0]"),
        ("norm_num_groups", "0".into(), "0"),
        ("layers_per_block", "100000000".into(), "100000000"),
        ("latent_channels", "\"four\"".into(), "four"),
        ("scaling_factor", "0".into(), "0"),
        ("use_quant_conv", "false".into(), "false"),
        ("mid_block_add_attention", "false".into(), "false"),
        ("shift_factor", "0.1".into(), ""),
        ("latents_mean", "[0.1]".into(), ""),
    ] {
        let mut json = good.clone();
        json[key] = serde_json::from_str(&value).unwrap();
        let config = Config::parse("vae/config.json", &json.to_string()).unwrap();
        let text = VaeConfig::from_config(&config).unwrap_err().to_string();
        assert!(text.contains("vae/config.json") && text.contains(key) && text.contains(named), "{text}");
    }
}

/// A config that contradicts the weights: the tensors are named, nothing is changed.
#[test]
fn contradicting_configs_are_refused() {
    for change in [
        |c: &mut VaeConfig| c.channels[0] *= 2,
        |c: &mut VaeConfig| c.layers += 1,
        |c: &mut VaeConfig| c.latent_channels = 16,
        |c: &mut VaeConfig| c.channels.push(1 << 16),
        |c: &mut VaeConfig| c.channels.truncate(c.channels.len() - 1),
    ] {
        let mut config = config();
        change(&mut config);
        let model = AutoencoderKl::new(&mut Pending, &config);
        let text = load_weights(&model, weights(), Precision::Single, &rename).unwrap_err().to_string();
        assert!(text.contains("diffusion_pytorch_model.safetensors") && text.contains('`'), "{text}");
    }
}

/// A file under old names that misses one, and one that has one too many.
#[test]
fn missing_and_superfluous_tensors_are_named() {
    let (state, _) = load(&old_weights()).unwrap();
    let name = "decoder.mid_block.attentions.0.proj_attn.bias";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vae.safetensors");
    let refusal = |state: &StateDict| {
        save(&path, state, &Metadata::new()).unwrap();
        load_weights(&AutoencoderKl::new(&mut Pending, &config()), &path, Precision::Single, &rename)
            .unwrap_err()
            .to_string()
    };
    let mut fewer = state.clone();
    fewer.remove(name).unwrap();
    let text = refusal(&fewer);
    assert!(
        text.contains("decoder.mid_block.attentions.0.to_out.0.bias") && text.contains("missing"),
        "{text}"
    );
    let mut more = state.clone();
    more.insert("encoder.extra.weight".into(), state[name].clone());
    let text = refusal(&more);
    assert!(text.contains("encoder.extra.weight"), "{text}");
}
