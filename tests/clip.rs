//! The text encoder against transformers' results for the tiny model: `golden/sd_parts.safetensors`, or the file and the
//! model in the folder that `MINAI_GOLDEN` names. Sizes come from the files.

use minai::array::Array;
use minai::clip::{ClipConfig, ClipText, HiddenAct, rename};
use minai::generator::Generator;
use minai::io::config::Config;
use minai::nn::{Parts, Pass};
use minai::state::{Metadata, StateDict, Value, load, save};
use minai::tensor::{Tensor, elements};
use minai::weights::{Pending, Precision, initialize, load_weights};
use minai_tests::difference;
use minai_tests::reference::{folder, tiny_sd};
use std::path::PathBuf;

/// As far as a result may be off, of the largest number.
const TOLERANCE: f32 = 1e-5;

fn tiny(part: &str) -> PathBuf {
    tiny_sd().join("text_encoder").join(part)
}

fn config() -> ClipConfig {
    ClipConfig::from_config(&Config::open(tiny("config.json")).unwrap()).unwrap()
}

fn model(keep: Precision) -> ClipText {
    let model = ClipText::new(&mut Pending, &config());
    load_weights(&model, tiny("model.safetensors"), keep, &rename).unwrap();
    model
}

/// The tokens, and what transformers makes of them.
fn golden() -> (Array<i64>, Array) {
    let (mut parts, _) = load(folder().join("sd_parts.safetensors")).unwrap();
    match [parts.remove("tokens"), parts.remove("text_embeddings")] {
        [Some(Value::I64(tokens)), Some(Value::F32(embeddings))] => (tokens, embeddings),
        other => panic!("{other:?}"),
    }
}

#[test]
fn embeddings_are_those_of_transformers() {
    let (tokens, expected) = golden();
    let off = difference(&model(Precision::Single).forward(&tokens, &mut Pass::eval()).data, &expected);
    println!("text embeddings {:?}: off by {off:.1e}", expected.shape());
    assert!(off < TOLERANCE, "{off}");
}

#[test]
fn half_weights_cost_little() {
    let (tokens, expected) = golden();
    let off = difference(&model(Precision::Half).forward(&tokens, &mut Pass::eval()).data, &expected);
    println!("weights in f16: off by {off:.1e}");
    assert!(0.0 < off && off < 3e-3, "{off}");
}

#[test]
fn a_learning_pass_gives_the_same() {
    let (tokens, expected) = golden();
    let (model, mut pass) = (model(Precision::Stored), Pass::train(Generator::manual_seed(0)));
    let y = model.forward(&tokens, &mut pass);
    assert!(difference(&y.data, &expected) < TOLERANCE);
    y.powi(2).sum(..).backward();
    for (name, parameter) in Parts::of(&model).parameters {
        let gradient = parameter.grad().unwrap_or_else(|| panic!("{name} has no gradient"));
        assert!(gradient.iter().any(|g| *g != 0.0), "{name}");
    }
}

/// Names as transformers saves them today, and the numbers 0 to 76 that older files carry.
#[test]
fn names_with_and_without_prefix_are_read() {
    let (tokens, expected) = golden();
    let (state, _) = load(tiny("model.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (prefix, ids) in [("", false), ("text_model.", false), ("", true), ("text_model.", true)] {
        let mut other: StateDict = state
            .iter()
            .map(|(name, value)| {
                (format!("{prefix}{}", name.trim_start_matches("text_model.")), value.clone())
            })
            .collect();
        if ids {
            let ids = Value::I64(Array::new((0..77).collect(), &[1, 77]));
            other.insert(format!("{prefix}embeddings.position_ids"), ids);
        }
        let path = folder.path().join("model.safetensors");
        save(&path, &other, &Metadata::new()).unwrap();
        let model = ClipText::new(&mut Pending, &config());
        load_weights(&model, &path, Precision::Single, &rename).unwrap();
        assert!(difference(&model.forward(&tokens, &mut Pass::eval()).data, &expected) < TOLERANCE);
    }
}

/// Changing a token changes what is said of it and of later ones, never of earlier ones.
#[test]
fn no_token_sees_a_later_one() {
    let (tokens, _) = golden();
    let model = model(Precision::Single);
    let first = model.forward(&tokens, &mut Pass::eval()).data;
    let (length, at) = (tokens.shape()[1], 5);
    let mut changed = tokens.clone();
    changed[[0, at]] = 1234;
    let second = model.forward(&changed, &mut Pass::eval()).data;
    let width = first.shape()[2];
    let row = |x: &Array, i: usize| elements(x)[i * width..][..width].to_vec();
    for i in 0..length {
        assert_eq!(row(&first, i) == row(&second, i), i < at, "row {i}");
    }
    // The other texts of the batch are not touched at all.
    assert_eq!(elements(&first)[length * width..], elements(&second)[length * width..]);
}

/// Shorter texts need no padding: the rows are the same.
#[test]
fn fewer_tokens_give_the_first_rows() {
    let (tokens, expected) = golden();
    let (n, width) = (tokens.shape()[0], expected.shape()[2]);
    let short =
        Array::new((0..n).flat_map(|i| (0..9).map(move |j| [i, j])).map(|at| tokens[at]).collect(), &[n, 9]);
    let found = model(Precision::Single).forward(&short, &mut Pass::eval());
    assert_eq!(found.shape(), [n, 9, width]);
    let first = Tensor::from(expected).slice(ndarray::s![.., ..9]);
    assert!(difference(&found.data, &first.data) < TOLERANCE);
}

#[test]
fn gradients_are_slopes() {
    let config = ClipConfig {
        vocabulary: 5,
        positions: 4,
        width: 6,
        inner: 7,
        layers: 1,
        heads: 2,
        activation: HiddenAct::Gelu,
        eps: 1e-5,
    };
    let model = ClipText::new(&mut Pending, &config);
    initialize(&model, &mut Generator::manual_seed(3), Precision::Single);
    let tokens = Array::new(vec![0, 4, 4, 1, 2, 3], &[2, 3]);
    let weights = Generator::manual_seed(4).randn(&[2, 3, 6]);
    for (name, parameter) in Parts::of(&model).parameters {
        let loss = |pass: &mut Pass| (model.forward(&tokens, pass) * Tensor::from(weights.clone())).sum(..);
        parameter.zero_grad();
        loss(&mut Pass::train(Generator::manual_seed(0))).backward();
        let gradient = parameter.grad().unwrap();
        let before = parameter.data();
        let step = 1e-2;
        // Along the gradient, the slope is the gradient's length.
        let length = gradient.iter().map(|g| g * g).sum::<f32>().sqrt();
        let at = |sign: f32| {
            let data =
                before.iter().zip(gradient.iter()).map(|(x, g)| x + sign * step * g / length.max(1e-12));
            parameter.set(Array::new(data.collect(), before.shape()));
            loss(&mut Pass::eval()).item()
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step);
        parameter.set(before.clone());
        // Attention does not care what is added to all keys: their bias has no slope.
        assert!((slope - length).abs() < 0.02 * length + 2e-3, "{name}: {slope} for {length}");
    }
}

#[test]
fn published_sizes() {
    let model = ClipText::new(&mut Pending, &ClipConfig::sd15());
    let numbers: usize =
        Parts::of(&model).parameters.iter().map(|(_, p)| p.shape().iter().product::<usize>()).sum();
    assert_eq!(numbers, 123_060_480); // as transformers counts CLIPTextModel of ViT-L/14
}

/// A config that asks for something else is an error that names the key and the value.
#[test]
fn other_configs_are_refused() {
    for (json, key, value) in [
        (r#"{"hidden_act": "relu"}"#, "hidden_act", "relu"),
        (r#"{"hidden_act": 3}"#, "hidden_act", "3"),
        (r#"{"hidden_size": 30, "num_attention_heads": 4}"#, "num_attention_heads", "4"),
        (r#"{"num_hidden_layers": 1000000000}"#, "num_hidden_layers", "1000000000"),
        (r#"{"hidden_size": 0}"#, "hidden_size", "0"),
        (r#"{"hidden_size": -8}"#, "hidden_size", "-8"),
        (r#"{"num_attention_heads": 0}"#, "num_attention_heads", "0"),
        (r#"{"layer_norm_eps": -1.0}"#, "layer_norm_eps", "-1"),
    ] {
        let config = Config::parse("text_encoder/config.json", json).unwrap();
        let text = ClipConfig::from_config(&config).unwrap_err().to_string();
        assert!(
            text.contains("text_encoder/config.json") && text.contains(key) && text.contains(value),
            "{text}"
        );
    }
}

/// A config that contradicts the weights: the tensors are named.
#[test]
fn contradicting_configs_are_refused() {
    for change in [
        |c: &mut ClipConfig| c.width *= 2,
        |c: &mut ClipConfig| c.inner += 1,
        |c: &mut ClipConfig| c.layers += 1,
        |c: &mut ClipConfig| c.layers -= 1,
        |c: &mut ClipConfig| c.positions = 1 << 16,
    ] {
        let mut config = config();
        change(&mut config);
        let model = ClipText::new(&mut Pending, &config);
        let text = load_weights(&model, tiny("model.safetensors"), Precision::Single, &rename)
            .unwrap_err()
            .to_string();
        assert!(text.contains("model.safetensors") && text.contains('`'), "{text}");
    }
}

#[test]
#[should_panic(expected = "ClipText: (n, up to 77) tokens expected, shape [1, 78]")]
fn more_tokens_than_positions() {
    model(Precision::Single).forward(&Array::new(vec![0; 78], &[1, 78]), &mut Pass::eval());
}

#[test]
#[should_panic(expected = "embedding: row 49408")]
fn a_token_out_of_the_vocabulary() {
    model(Precision::Single).forward(&Array::new(vec![49408], &[1, 1]), &mut Pass::eval());
}
