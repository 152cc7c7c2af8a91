//! Published weights: what comes of good files, and of files that are damaged, lie, or are of another model.

use half::{bf16, f16};
use minai::array::Array;
use minai::conv::{Conv2d, ConvOptions};
use minai::generator::Generator;
use minai::io::config::Config;
use minai::io::file::FileError;
use minai::io::safetensors::TensorFile;
use minai::nn::{Buffer, Init, Layer, Linear, Module, Parameter, Parts, Pass, parameter_count};
use minai::norm::{BatchNorm2d, GroupNorm, LayerNorm};
use minai::optimizer::{GradientDescent, Optimizer};
use minai::state::{Metadata, StateDict, Value, save, state_dict};
use minai::tensor::Tensor;
use minai::weights::{LoadReport, Pending, Precision, initialize, load_weights};
use minai_tests::files::Rng;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Two linear layers and a norm.
struct Model {
    one: Linear,
    two: Linear,
    norm: GroupNorm,
}

impl Module for Model {
    fn parts(&self, parts: &mut Parts) {
        parts.module("one", &self.one);
        parts.module("two", &self.two);
        parts.module("norm", &self.norm);
    }
}

fn model() -> Model {
    Model {
        one: Linear::new(&mut Pending, 3, 4),
        two: Linear::without_bias(&mut Pending, 4, 2),
        norm: GroupNorm::new(2, 4),
    }
}

fn filled(seed: u64) -> Model {
    let model = model();
    initialize(&model, &mut Generator::manual_seed(seed), Precision::Single);
    model
}

fn same(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// A folder, and a file in it with a model's numbers.
fn saved(model: &dyn Module) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    save(&path, &state_dict(model), &Metadata::new()).unwrap();
    (folder, path)
}

/// A file with these tensors: name, type, shape, bytes.
fn write(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
    let views = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.to_vec(), bytes).unwrap()));
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

fn values(state: &StateDict, name: &str) -> Vec<f32> {
    match &state[name] {
        Value::F32(array) => array.iter().copied().collect(),
        _ => panic!("{name} is no floats"),
    }
}

fn assert_helpful(error: &FileError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(text.starts_with(&*error.path.to_string_lossy()) && text.len() < 2_500, "{text:?}");
    assert!(text.contains("; ") || text.contains(". "), "{text:?} does not say what to do");
}

#[test]
fn what_was_saved_is_loaded() {
    let (_folder, path) = saved(&filled(1));
    let wanted = state_dict(&filled(1));
    for (keep, bytes) in
        [(Precision::Single, 4 * 32), (Precision::Stored, 4 * 32), (Precision::Half, 2 * 20 + 4 * 12)]
    {
        let model = model();
        let loaded = load_weights(&model, &path, keep, &same).unwrap();
        assert_eq!(loaded, LoadReport { tensors: 5, values: 32, bytes, left_out: vec![] });
        let found = state_dict(&model);
        for name in wanted.keys() {
            for (found, wanted) in values(&found, name).iter().zip(values(&wanted, name)) {
                let off = (found - wanted).abs();
                assert!(
                    if keep == Precision::Half { off <= wanted.abs() / 2048.0 } else { off == 0.0 },
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn halves_stay_halves_and_are_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("halves.safetensors");
    let numbers: Vec<f32> = (0..12).map(|i| (i as f32 - 5.0) * 0.3).collect();
    let f16s: Vec<u8> = numbers.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    let bf16s: Vec<u8> = numbers[..8].iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect();
    let f64s: Vec<u8> = numbers[..4].iter().flat_map(|&x| f64::from(x).to_le_bytes()).collect();
    let bias: Vec<u8> = numbers[..4].iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect();
    write(
        &path,
        &[
            ("one.weight", Dtype::F16, &[4, 3], f16s),
            ("one.bias", Dtype::F16, &[4], bias),
            ("two.weight", Dtype::BF16, &[2, 4], bf16s),
            ("norm.weight", Dtype::F64, &[4], f64s.clone()),
            ("norm.bias", Dtype::F64, &[4], f64s),
        ],
    );
    for (keep, bytes) in
        [(Precision::Single, 128), (Precision::Stored, 2 * 20 + 4 * 12), (Precision::Half, 2 * 20 + 4 * 12)]
    {
        let model = model();
        assert_eq!(load_weights(&model, &path, keep, &same).unwrap().bytes, bytes);
        let state = state_dict(&model);
        let f16s: Vec<f32> = numbers.iter().map(|&x| f16::from_f32(x).to_f32()).collect();
        let bf16s: Vec<f32> = numbers[..8].iter().map(|&x| bf16::from_f32(x).to_f32()).collect();
        assert_eq!(values(&state, "one.weight"), f16s);
        assert_eq!(values(&state, "one.bias"), f16s[..4]);
        assert_eq!(values(&state, "two.weight"), bf16s);
        assert_eq!(values(&state, "norm.bias"), numbers[..4]);
    }
    let file = TensorFile::open(&path).unwrap();
    assert_eq!(file.dtype("two.weight"), Some(Dtype::BF16));
    assert_eq!(file.shape("one.weight"), Some(&[4, 3][..]));
    assert_eq!(file.names().len(), 5);
    assert_eq!(file.f32("one.weight").unwrap().shape(), [4, 3]);
    assert_helpful(&file.f32("three").unwrap_err(), &["three"]);
}

/// A header's length is a matter of its names, so tensors begin anywhere.
#[test]
fn tensors_may_begin_at_any_address() {
    let folder = tempfile::tempdir().unwrap();
    for pad in 0..9 {
        let path = folder.path().join(format!("{pad}.safetensors"));
        let header = format!(
            "{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{pad}],\"data_offsets\":[0,{pad}]}},\"b\":{{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[{pad},{}]}}}}",
            pad + 16
        );
        // Also lengths whose bytes look like the beginning of something else: `{`, `<`, a pickle.
        let length = [header.len(), 0x17B, 0x13C, 0x280][pad % 4];
        let header = format!("{header:length$}");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.resize(bytes.len() + pad, 7);
        bytes.extend([1.0_f32, -2.0, 3.5, 1e-30].iter().flat_map(|x| x.to_le_bytes()));
        fs::write(&path, bytes).unwrap();
        let array = TensorFile::open(&path).unwrap().f32("b").unwrap();
        assert_eq!(array, Array::new(vec![1.0, -2.0, 3.5, 1e-30], &[2, 2]));
    }
}

#[test]
fn names_are_mapped_and_harmless_ones_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("renamed.safetensors");
    let mut state: StateDict =
        state_dict(&filled(2)).into_iter().map(|(name, value)| (format!("model.{name}"), value)).collect();
    state.insert("position_ids".into(), Value::I64(Array::new(vec![0, 1, 2], &[1, 3])));
    save(&path, &state, &Metadata::new()).unwrap();
    let rename = |name: &str| (name != "position_ids").then(|| name.trim_start_matches("model.").to_owned());
    let model = model();
    let loaded = load_weights(&model, &path, Precision::Stored, &rename).unwrap();
    assert_eq!(loaded.left_out, ["position_ids"]);
    assert_eq!(state_dict(&model), state_dict(&filled(2)));
    let error = load_weights(&model, &path, Precision::Stored, &same).unwrap_err();
    assert_helpful(&error, &["`model.one.bias` is not in the model", "5 more", "renamed.safetensors"]);
    let all_one = |_: &str| Some("one.weight".to_owned());
    let error = load_weights(&model, &path, Precision::Stored, &all_one).unwrap_err();
    assert_helpful(&error, &["`one.weight` (`model.norm.bias` in the file) is there twice", "4 more"]);
}

#[test]
fn weights_of_another_model_change_nothing() {
    let (folder, path) = saved(&filled(3));
    let wider = Model { one: Linear::new(&mut Pending, 3, 5), ..model() };
    initialize(&wider, &mut Generator::manual_seed(4), Precision::Single);
    let before = state_dict(&wider);
    let error = load_weights(&wider, &path, Precision::Half, &same).unwrap_err();
    assert_helpful(
        &error,
        &[
            "`one.weight` has shape [4, 3], the model expects [5, 3]",
            "`one.bias` has shape [4]",
            "of one model",
        ],
    );
    assert_eq!(state_dict(&wider), before);

    let mut state = state_dict(&filled(3));
    state.remove("two.weight");
    state.insert("three.weight".into(), Value::F32(Array::new(vec![0.0], &[1])));
    let path = folder.path().join("other.safetensors");
    save(&path, &state, &Metadata::new()).unwrap();
    let error = load_weights(&model(), &path, Precision::Half, &same).unwrap_err();
    assert_helpful(
        &error,
        &["`two.weight` of shape [2, 4] is missing", "`three.weight` is not in the model"],
    );

    let mut state = state_dict(&filled(3));
    state.insert("two.weight".into(), Value::I64(Array::new(vec![0; 8], &[2, 4])));
    save(&path, &state, &Metadata::new()).unwrap();
    let error = load_weights(&model(), &path, Precision::Half, &same).unwrap_err();
    assert_helpful(&error, &["`two.weight` is of type I64, the model has floats"]);
}

#[test]
fn numbers_that_are_none_or_too_large() {
    let (_folder, path) = saved(&filled(5));
    for bad in [f32::NAN, f32::INFINITY, -f32::INFINITY, 1e5] {
        let mut state = state_dict(&filled(5));
        state.insert(
            "two.weight".into(),
            Value::F32(Array::new(vec![0.0, 1.0, 0.0, bad, 0.0, 0.0, 0.0, 0.0], &[2, 4])),
        );
        save(&path, &state, &Metadata::new()).unwrap();
        let model = filled(6);
        for keep in [Precision::Single, Precision::Stored, Precision::Half] {
            let before = state_dict(&model);
            match load_weights(&model, &path, keep, &same) {
                Ok(_) => assert!(bad == 1e5 && keep != Precision::Half),
                Err(error) if bad == 1e5 => {
                    assert_eq!(keep, Precision::Half);
                    assert_helpful(&error, &["`two.weight`", "65504", "Precision::Single"]);
                }
                Err(error) => {
                    assert_helpful(&error, &["`two.weight`", "NaN", "fetch"]);
                    assert_eq!(state_dict(&model), before, "nothing may be changed");
                }
            }
        }
    }
}

#[test]
fn buffers_are_loaded_too() {
    struct WithBuffer(BatchNorm2d, Buffer);
    impl Module for WithBuffer {
        fn parts(&self, parts: &mut Parts) {
            parts.module("norm", &self.0);
            parts.buffer("table", &self.1);
        }
    }
    let new = |x: f32| WithBuffer(BatchNorm2d::new(2), Buffer::new(Array::new(vec![x; 6], &[2, 3])));
    let trained = new(0.25);
    trained.0.num_batches_tracked.set(Array::new(vec![7], &[]));
    let (_folder, path) = saved(&trained);
    let fresh = new(0.0);
    load_weights(&fresh, &path, Precision::Half, &same).unwrap();
    assert_eq!(state_dict(&fresh), state_dict(&trained));
}

#[test]
fn models_without_numbers() {
    let model = model();
    assert_eq!(parameter_count(&model), 32);
    let reading = catch_unwind(AssertUnwindSafe(|| model.one.weight.data())).unwrap_err();
    let text = reading.downcast_ref::<String>().unwrap();
    assert!(text.contains("[4, 3]") && text.contains("load_weights"), "{text}");
    let layer = Conv2d::new(&mut Pending, 8, 6, 3, ConvOptions { groups: 2, ..ConvOptions::default() });
    assert_eq!(layer.weight.shape(), [6, 4, 3, 3]);
    // A thousand billion numbers, none of which is there.
    assert_eq!(Linear::new(&mut Pending, 1 << 20, 1 << 20).weight.shape(), [1 << 20, 1 << 20]);
}

#[test]
fn random_numbers_at_the_usual_scale() {
    struct Wide(Linear, LayerNorm, Parameter);
    impl Module for Wide {
        fn parts(&self, parts: &mut Parts) {
            parts.module("linear", &self.0);
            parts.module("norm", &self.1);
            parts.parameter("table", &self.2);
        }
    }
    let make = |keep| {
        let table = Pending.parameter(&[50, 100], &|rng| rng.randn(&[50, 100]));
        let model = Wide(Linear::new(&mut Pending, 400, 300), LayerNorm::new(&[300]), table);
        model.1.weight.update(|weight| weight.fill(3.0));
        model.1.bias.update(|bias| bias.fill(3.0));
        initialize(&model, &mut Generator::manual_seed(7), keep);
        model
    };
    let (model, half) = (make(Precision::Single), make(Precision::Half));
    let most = |parameter: &Parameter| parameter.data().iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert!((0.0499..=0.05).contains(&most(&model.0.weight)), "{}", most(&model.0.weight));
    assert!((0.045..=0.05).contains(&most(model.0.bias.as_ref().unwrap())));
    assert!((0.09..=0.1).contains(&most(&model.2)));
    assert!(model.1.weight.data().iter().all(|&x| x == 1.0) && model.1.bias.data().iter().all(|&x| x == 0.0));
    // The same seed gives the same model, kept in whatever way.
    for (one, two) in Parts::of(&model).parameters.iter().zip(Parts::of(&half).parameters) {
        let close = one.1.data().iter().zip(two.1.data().iter()).all(|(x, y)| (x - y).abs() <= 4e-5);
        assert!(close, "{}", one.0);
    }
    let torch_like = Linear::new(&mut Generator::manual_seed(7), 400, 300);
    assert_eq!(torch_like.weight.data(), model.0.weight.data());
}

/// Lent numbers become a parameter's own when training wants to change them.
#[test]
fn half_weights_can_be_trained_further() {
    let layer = Linear::new(&mut Pending, 6, 1);
    initialize(&layer, &mut Generator::manual_seed(8), Precision::Half);
    let x: Tensor = Generator::manual_seed(9).randn(&[16, 6]).into();
    let before = layer.forward(&x, &mut Pass::eval());
    let mut optimizer = Optimizer::new(&layer, GradientDescent { lr: 0.1 });
    for _ in 0..3 {
        let mut pass = Pass::train(Generator::manual_seed(0));
        let y = layer.forward(&x, &mut pass);
        (&y * &y).mean(..).backward();
        optimizer.step();
        optimizer.zero_grad();
    }
    let loss = |y: &Tensor| y.data.iter().map(|y| y * y).sum::<f32>();
    let after = layer.forward(&x, &mut Pass::eval());
    assert!(loss(&after) < 0.9 * loss(&before), "{} {}", loss(&after), loss(&before));
}

#[test]
fn files_that_are_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let open = |path: &Path| TensorFile::open(path).map(drop).unwrap_err();
    let with = |bytes: &[u8]| {
        fs::write(at("x.safetensors"), bytes).unwrap();
        open(&at("x.safetensors"))
    };
    assert_helpful(&open(&at("no")), &["no such file"]);
    assert_helpful(&open(folder.path()), &["folder"]);
    assert_helpful(&with(b""), &["only 0 bytes"]);
    assert_helpful(&with(b"{\"metadata\": {\"total_size\": 1}}"), &["index", "shards"]);
    assert_helpful(&with(b"PK\x03\x04 and so on"), &["PyTorch", "safetensors"]);
    assert_helpful(&with(b"\x80\x02}q\x00X\x01\x00\x00\x00"), &["PyTorch"]);
    assert_helpful(&with(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), &["Git LFS"]);
    assert_helpful(&with(b"<!DOCTYPE html><html>"), &["web page"]);
    assert_helpful(&with(&[0xFF; 100]), &["its header would have"]);
    assert_helpful(&with(&[0; 8]), &["no safetensors file"]);
}

/// A file of a thousand gigabytes with nothing in it, and headers of any length: no memory is taken for what is not there.
#[test]
#[cfg(unix)]
fn huge_hollow_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hollow.safetensors");
    for header in [u64::MAX, 1 << 40, (8 << 20) + 1, 8 << 20] {
        fs::write(&path, header.to_le_bytes()).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        assert_helpful(&TensorFile::open(&path).map(drop).unwrap_err(), &["no safetensors file"]);
    }
}

#[test]
fn headers_that_lie() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lie.safetensors");
    let open = |header: &str, data: usize| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.bytes());
        bytes.resize(bytes.len() + data, 0);
        fs::write(&path, bytes).unwrap();
        TensorFile::open(&path).map(drop)
    };
    let one = |name: &str, shape: &str, from: usize, to: usize| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{from},{to}]}}")
    };
    let (a, b) = (one("a", "[2]", 0, 8), one("b", "[2]", 8, 16));
    open(&format!("{{{a},{b}}}"), 16).unwrap();
    let lies = [
        (format!("{{{a},{}}}", one("b", "[2]", 4, 12)), 16), // overlap
        (format!("{{{a},{}}}", one("b", "[2]", 12, 20)), 20), // a gap
        (format!("{{{a},{b}}}"), 12),                        // cut short
        (format!("{{{a},{b}}}"), 20),                        // goes on
        (format!("{{{}}}", one("a", "[3]", 0, 8)), 8),       // another size
        (format!("{{{}}}", one("a", "[2]", 8, 0)), 8),       // backwards
        (format!("{{{}}}", one("a", "[4611686018427387905]", 0, 4)), 4), // overflows
        (format!("{{{}}}", one("a", "[0,18446744073709551615,3]", 0, 0)), 0), // overflows behind a zero
        (format!("{{{}}}", one("a", "[-1]", 0, 4)), 4),
        (format!("{{{a},{a}}}"), 8), // twice
        ("{".to_owned(), 0),
        ("[]".to_owned(), 0),
        ("{\"a\":1}".to_owned(), 0),
        ("[".repeat(100_000), 0),
        (format!("{{\"{}\":1}}", "x".repeat(1_000_000)), 0),
        (format!("{{{}}}", one("a", &format!("[{}]", ["1"; 5000].join(",")), 0, 4)), 4), // 5,000 axes
    ];
    for (header, data) in lies {
        let start: String = header.chars().take(100).collect();
        let error = open(&header, data).expect_err(&start);
        assert_helpful(&error, &["lie.safetensors"]);
    }
}

/// 10,000 damaged files: each is read, loaded, or refused with an error that names it.
#[test]
fn mutated_files_never_panic() {
    let (_folder, path) = saved(&filled(1));
    let good = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let special = b"{}[]\":,\\0129 FIUB\xff\x00";
    let mut counts = [0; 3];
    for seed in 0..10_000 {
        let (mut rng, mut bytes) = (Rng::new(seed), good.clone());
        for _ in 0..=rng.below(3) {
            let reach = if rng.below(4) > 0 { header.min(bytes.len()) } else { bytes.len() };
            if reach == 0 {
                break;
            }
            let at = rng.below(reach);
            match rng.below(5) {
                0 => bytes[at] = rng.below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, special[rng.below(special.len())]),
                3 if rng.below(4) == 0 => bytes.truncate(at),
                _ => bytes[at] = special[rng.below(special.len())],
            }
        }
        if seed % 2 == 0 && bytes.len() >= 8 {
            let length = (header + bytes.len()).saturating_sub(good.len() + 8) as u64;
            bytes[..8].copy_from_slice(&length.to_le_bytes()); // or nearly nothing would get past the length
        }
        fs::write(&path, &bytes).unwrap();
        match TensorFile::open(&path) {
            Err(error) => assert_helpful(&error, &[]),
            Ok(file) => {
                counts[0] += 1;
                for name in file.names() {
                    if let Err(error) = file.f32(&name) {
                        assert_helpful(&error, &[]);
                    }
                }
            }
        }
        let keep = [Precision::Single, Precision::Stored, Precision::Half][seed as usize % 3];
        match load_weights(&model(), &path, keep, &same) {
            Err(error) => assert_helpful(&error, &[]),
            Ok(_) => counts[1] += 1,
        }
        counts[2] += 1;
    }
    println!("{} of {} opened, {} loaded", counts[0], counts[2], counts[1]);
    assert!((500..9_000).contains(&counts[0]) && counts[1] > 100, "{counts:?}");
}

#[test]
fn configs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let text = r#"{"width": 320, "eps": 1e-5, "one": 1, "flip": true, "act": "silu", "sizes": [1, 2], "kinds": ["A", "B"], "none": null, "big": 4294967296, "minus": -1, "half": 0.5}"#;
    fs::write(&path, text).unwrap();
    let config = Config::open(&path).unwrap();
    assert_eq!(
        (config.usize("width").unwrap(), config.f64("eps").unwrap(), config.f64("one").unwrap()),
        (320, 1e-5, 1.0)
    );
    assert_eq!((config.bool("flip").unwrap(), config.text("act").unwrap()), (true, "silu".to_owned()));
    assert_eq!(
        (config.usizes("sizes").unwrap(), config.texts("kinds").unwrap()),
        (vec![1, 2], vec!["A".to_owned(), "B".to_owned()])
    );
    assert_eq!((config.usize_or("none", 3).unwrap(), config.usize_or("other", 4).unwrap()), (3, 4));
    assert_eq!(config.f64_or("other", 0.5).unwrap(), 0.5);
    assert_eq!(config.text_or("none", "x").unwrap(), "x");
    assert!(config.has("width") && !config.has("none") && !config.has("other"));
    assert!(!config.bool_or("other", false).unwrap());
    assert_eq!(config.usizes_or("other", &[5]).unwrap(), [5]);
    assert_eq!(config.texts_or("kinds", &["C"]).unwrap(), ["A", "B"]);
    assert_eq!(config.keys()[..2], ["width", "eps"]);
    for (error, parts) in [
        (config.usize("other").unwrap_err(), ["`other` is missing", "a whole number"]),
        (config.usize("act").unwrap_err(), ["`act` is \"silu\"", "a whole number"]),
        (config.usize("big").unwrap_err(), ["4294967296", "a whole number"]),
        (config.usize("minus").unwrap_err(), ["-1", "a whole number"]),
        (config.usize("half").unwrap_err(), ["0.5", "a whole number"]),
        (config.f64("act").unwrap_err(), ["silu", "a number"]),
        (config.bool("width").unwrap_err(), ["320", "`true` or `false`"]),
        (config.text("width").unwrap_err(), ["320", "a text"]),
        (config.usizes("kinds").unwrap_err(), ["[\"A\",\"B\"]", "a list of whole numbers"]),
        (config.texts("sizes").unwrap_err(), ["[1,2]", "a list of texts"]),
        (config.usize_or("act", 1).unwrap_err(), ["`act`", "silu"]),
        (config.usize("none").unwrap_err(), ["`none` is null", "a whole number"]),
    ] {
        assert_helpful(&error, &parts);
        assert_eq!(error.path, path);
    }
    for (text, part) in
        [("", "no JSON"), ("[1]", "no object"), ("{\"a\":", "no JSON"), (&"[".repeat(100_000), "no JSON")]
    {
        fs::write(&path, text).unwrap();
        assert_helpful(&Config::open(&path).unwrap_err(), &[part]);
        assert_helpful(&Config::parse("given", text).unwrap_err(), &["given", part]);
    }
    fs::write(&path, vec![b' '; 2 << 20]).unwrap();
    assert_helpful(&Config::open(&path).unwrap_err(), &["no config's size"]);
    assert_helpful(&Config::open(folder.path()).unwrap_err(), &["folder"]);
}

/// The weights of the small Stable Diffusion in `data`, in whatever types they are.
#[test]
fn the_shipped_weights_can_be_read() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tiny-sd");
    for name in ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"] {
        let file = TensorFile::open(data.join(format!("{name}.safetensors"))).unwrap();
        let floats = file
            .names()
            .iter()
            .filter(|name| file.f32(name).is_ok_and(|x| x.iter().all(|x| x.is_finite())))
            .count();
        assert!(floats + 1 >= file.names().len() && floats > 10, "{name}");
    }
    Config::open(data.join("unet/config.json")).unwrap().usizes("block_out_channels").unwrap();
}

#[test]
fn shards_are_read_as_one() {
    let (from, to, folder) = (filled(1), model(), tempfile::tempdir().unwrap());
    let (mut first, mut second) = (StateDict::new(), StateDict::new());
    for (i, (name, value)) in state_dict(&from).into_iter().enumerate() {
        if i % 2 == 0 { &mut first } else { &mut second }.insert(name, value);
    }
    let name = |i: usize| format!("model-0000{i}-of-00002.safetensors");
    save(folder.path().join(name(1)), &first, &Metadata::new()).unwrap();
    save(folder.path().join(name(2)), &second, &Metadata::new()).unwrap();
    let entries = first.keys().map(|key| (key, name(1))).chain(second.keys().map(|key| (key, name(2))));
    let map: Vec<String> = entries.map(|(key, file)| format!("{key:?}: {file:?}")).collect();
    let index = folder.path().join("model.safetensors.index.json");
    let write =
        |map: &str| fs::write(&index, format!("{{\"metadata\": {{}}, \"weight_map\": {{{map}}}}}")).unwrap();
    write(&map.join(", "));
    let report = load_weights(&to, &index, Precision::Single, &same).unwrap();
    assert_eq!((report.tensors, state_dict(&to)), (first.len() + second.len(), state_dict(&from)));
    // A shard that is not there, and one that lies elsewhere.
    write("\"one.weight\": \"model-00003-of-00002.safetensors\"");
    let error = load_weights(&to, &index, Precision::Single, &same).unwrap_err();
    assert_helpful(&error, &["model-00003-of-00002.safetensors"]);
    write("\"one.weight\": \"../elsewhere.safetensors\"");
    let error = load_weights(&to, &index, Precision::Single, &same).unwrap_err();
    assert_helpful(&error, &["weight_map", "elsewhere"]);
    // Half of it: what is missing is named.
    write(&map[0]);
    let error = load_weights(&to, &index, Precision::Single, &same).unwrap_err();
    assert_helpful(&error, &["is missing"]);
    assert_eq!(state_dict(&to), state_dict(&from));
}

#[test]
fn a_convolution_of_one_pixel_is_a_matrix() {
    let (from, to, folder) = (filled(2), model(), tempfile::tempdir().unwrap());
    let mut state = state_dict(&from);
    let Some(Value::F32(two)) = state.get_mut("two.weight") else { panic!("a weight") };
    *two = Array::new(two.iter().copied().collect(), &[2, 4, 1, 1]);
    let path = folder.path().join("old.safetensors");
    save(&path, &state, &Metadata::new()).unwrap();
    for precision in [Precision::Single, Precision::Half] {
        load_weights(&to, &path, precision, &same).unwrap();
        let x = Tensor::from(Array::new(vec![1.0, -2.0, 0.5, 3.0], &[1, 4]));
        let [ours, theirs] = [&to, &from].map(|model| model.two.forward(&x, &mut Pass::eval()));
        assert!((ours - theirs).abs().amax(..).item() < 1e-2);
    }
}
