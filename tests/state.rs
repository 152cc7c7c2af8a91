//! Safetensors files that are damaged or made by someone who means harm: a typed error that names the file, never a panic.

use minai::array::Array;
use minai::generator::Generator;
use minai::io::file::FileError;
use minai::state::{Metadata, StateDict, Value, load, save};
use std::fs;

fn assert_helpful(error: &FileError) {
    let text = error.to_string();
    assert!(text.starts_with(&*error.path.to_string_lossy()), "{text:?} does not begin with the file");
    assert!(text.contains("; ") && text.len() < 1_000, "{text:?}");
}

/// 1,000 files with a few bytes changed: each is read whole, or refused with an error that names it.
#[test]
fn mutated_files_never_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mutated.safetensors");
    let floats = Value::F32(Array::new(vec![1.0; 6], &[2, 3]));
    let whole = Value::I64(Array::new(vec![7], &[]));
    let bytes = Value::U8(Array::new(vec![1, 2, 3], &[3]));
    let state = [("0.weight", floats), ("1.num_batches_tracked", whole), ("rng", bytes)];
    let state: StateDict = state.map(|(name, value)| (name.to_owned(), value)).into();
    save(&path, &state, &Metadata::from([("format".to_owned(), "pt".to_owned())])).unwrap();
    let good = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;

    let (mut rng, mut accepted) = (Generator::manual_seed(1), 0);
    let mut below = |n: usize| rng.randint(0, n as i64, &[])[[]] as usize;
    let special = b"{}[]\":,\\0129 FIUB\xff\x00";
    for round in 0..1_000 {
        let mut bytes = good.clone();
        for _ in 0..1 + below(3) {
            let at = below(header);
            match below(4) {
                0 => bytes[at] = below(256) as u8,
                1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, special[below(special.len())]),
                _ => bytes[at] = special[below(special.len())],
            }
        }
        if round % 2 == 0 {
            let length = (header as u64 + bytes.len() as u64 - good.len() as u64 - 8).to_le_bytes();
            bytes[..8].copy_from_slice(&length); // or nearly nothing would get past the length
        }
        fs::write(&path, &bytes).unwrap();
        match load(&path) {
            Err(error) => assert_helpful(&error),
            Ok((state, _)) => {
                assert!(state.values().all(|value| value.shape().iter().product::<usize>() <= 24));
                accepted += 1;
            }
        }
    }
    println!("{accepted} of 1,000 accepted");
    assert!((10..500).contains(&accepted), "{accepted} accepted");
}

/// A file as large as it says it is, but with nothing in it: no memory is filled for what is not there.
#[test]
#[cfg(unix)]
fn a_huge_hollow_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hollow.safetensors");
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    assert_helpful(&load(&path).unwrap_err());
}

/// The reader of the crate `safetensors` finds each array, aligned to its type.
#[test]
fn other_readers_find_what_was_saved() {
    use safetensors::{Dtype, SafeTensors};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mixed.safetensors");
    let floats = Value::F32(Array::new(vec![0.5, -1.0, f32::NAN], &[3]));
    let state = [
        ("a", Value::U8(Array::new(vec![1, 2, 3], &[3, 1]))),
        ("b \"\\\n", floats),
        ("c", Value::I64(Array::new(vec![i64::MIN, 7], &[2]))),
        ("d", Value::F32(Array::new(vec![], &[0, 4]))),
    ];
    let state: StateDict = state.map(|(name, value)| (name.to_owned(), value)).into();
    let metadata = Metadata::from([("z".to_owned(), "1".to_owned()), ("a".to_owned(), "\u{1F}".to_owned())]);
    save(&path, &state, &metadata).unwrap();
    let bytes = fs::read(&path).unwrap();
    let (length, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let texts: Metadata = header.metadata().clone().unwrap().into_iter().collect();
    assert!(length.is_multiple_of(8) && texts == metadata);
    let file = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), state.len());
    for (name, dtype, size) in
        [("a", Dtype::U8, 1), ("b \"\\\n", Dtype::F32, 4), ("c", Dtype::I64, 8), ("d", Dtype::F32, 4)]
    {
        let (found, saved) = (file.tensor(name).unwrap(), safetensors::View::data(&state[name]));
        assert_eq!((found.dtype(), found.shape(), found.data()), (dtype, state[name].shape(), &saved[..]));
        assert!(header.info(name).unwrap().data_offsets.0.is_multiple_of(size), "{name} is aligned");
    }
}

/// What a text under a name may be.
#[test]
fn metadata_of_any_text_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("texts.safetensors");
    let mut metadata: Metadata =
        (0..0x300).filter_map(char::from_u32).map(|c| (c.to_string(), format!("<{c}>"))).collect();
    metadata.insert("\u{10FFFF}\u{0}\\\"".into(), "🦀".repeat(1_000));
    save(&path, &StateDict::new(), &metadata).unwrap();
    assert_eq!(load(&path).unwrap(), (StateDict::new(), metadata));
}

#[test]
fn published_types_become_ours() {
    use safetensors::Dtype;
    use safetensors::tensor::{TensorView, serialize_to_file};
    let path = std::env::temp_dir().join(format!("minai-types-{}.safetensors", std::process::id()));
    let read = |dtype: Dtype, bytes: &[u8]| {
        let view = TensorView::new(dtype, vec![bytes.len() * 8 / dtype.bitsize()], bytes).unwrap();
        serialize_to_file([("x", view)], None, &path).unwrap();
        load(&path).map(|(mut state, _)| state.remove("x").unwrap())
    };
    let halves = [0x3C00, 0xC100, 0x0001, 0x8000, 0x7BFF, 0x03FF, 0x7C00_u16].map(u16::to_le_bytes).concat();
    let floats = vec![1.0, -2.5, 2_f32.powi(-24), -0.0, 65504.0, 1023.0 * 2_f32.powi(-24), f32::INFINITY];
    assert_eq!(read(Dtype::F16, &halves).unwrap(), Value::F32(Array::new(floats, &[7])));
    let nan = read(Dtype::F16, &0xFE00_u16.to_le_bytes()).unwrap();
    assert!(matches!(nan, Value::F32(x) if x.sum().is_nan()));
    let upper = [1.5_f32, -3e38].map(|x| u16::to_le_bytes((x.to_bits() >> 16) as u16)).concat();
    let floats = [1.5_f32, -3e38].map(|x| f32::from_bits(x.to_bits() & 0xFFFF_0000));
    assert_eq!(read(Dtype::BF16, &upper).unwrap(), Value::F32(Array::new(floats.to_vec(), &[2])));
    let doubles = [0.1_f64, -1e300].map(f64::to_le_bytes).concat();
    assert_eq!(
        read(Dtype::F64, &doubles).unwrap(),
        Value::F32(Array::new(vec![0.1, f32::NEG_INFINITY], &[2]))
    );
    let whole = |list: Vec<i64>| {
        let len = list.len();
        Value::I64(Array::new(list, &[len]))
    };
    assert_eq!(read(Dtype::I32, &(-7_i32).to_le_bytes()).unwrap(), whole(vec![-7]));
    assert_eq!(read(Dtype::I16, &(-7_i16).to_le_bytes()).unwrap(), whole(vec![-7]));
    assert_eq!(read(Dtype::I8, &[255, 7]).unwrap(), whole(vec![-1, 7]));
    assert_eq!(read(Dtype::BOOL, &[1, 0]).unwrap(), Value::U8(Array::new(vec![1, 0], &[2])));
    let error = read(Dtype::F8_E4M3, &[1]).unwrap_err().to_string();
    assert!(error.contains("`x`") && error.contains("F8_E4M3"), "{error}");
    fs::remove_file(&path).unwrap();
}

#[test]
fn bad_files_are_refused_by_name() {
    let path = std::env::temp_dir().join(format!("minai-bad-{}.safetensors", std::process::id()));
    let refused = |bytes: &[u8], why: &str| {
        fs::write(&path, bytes).unwrap();
        let error = load(&path).unwrap_err().to_string();
        assert!(error.contains("minai-bad") && error.contains(why), "{error}");
        assert!(error.contains("again") || error.contains("trust"), "{error}");
    };
    let file =
        |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    let good = file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, &[0; 8]);
    fs::write(&path, &good).unwrap();
    assert_eq!(load(&path).unwrap().0["a"].shape(), [2]);
    (0..good.len()).for_each(|len| refused(&good[..len], ""));
    refused(&[&good[..], &[0]].concat(), "damaged");
    refused(&[u64::MAX.to_le_bytes(), [0; 8]].concat(), "header would have 18446744073709551615");
    refused(&vec![b'{'; 1000], "no safetensors");
    refused(&file(&"[".repeat(100_000), &[]), "damaged");
    refused(&file("{\"a\": \u{7f}", &[]), "damaged");
    // The same numbers under one name as floats and as integers: which is meant?
    let [float, whole] =
        ["F32", "I32"].map(|t| format!(r#"{{"dtype":"{t}","shape":[1],"data_offsets":[0,4]}}"#));
    refused(&file(&format!(r#"{{"a":{float},"\u0061":{whole}}}"#), &[0; 4]), "two tensors of one name");
    refused(
        &file(r#"{"a":{"dtype":"F32","shape":[9223372036854775807,4,0],"data_offsets":[0,0]}}"#, &[]),
        "damaged",
    );
    refused(
        &file(r#"{"a":{"dtype":"F32","shape":[0,9223372036854775807,4],"data_offsets":[0,0]}}"#, &[]),
        "shape",
    );
    refused(&file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#, &[0; 8]), "`a`");
    refused(&file(r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}}"#, &[0; 8]), "`a`");
    fs::remove_file(&path).unwrap();
    assert!(load(&path).unwrap_err().to_string().contains("no such file"));
    assert!(load(std::env::temp_dir()).unwrap_err().to_string().contains("name a file"));
}

#[test]
fn values_written_in_16_bits_come_back_rounded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("half.safetensors");
    let values = vec![0.0, -1.5, 1.0 / 3.0, 1e-7, 65504.0, 1.0 + f32::EPSILON];
    let metadata = [("made".to_owned(), "here".to_owned())].into();
    let named = [("x".to_owned(), Array::new(values.clone(), &[2, 3]))];
    minai::io::safetensors::write_half(&path, named, &metadata).unwrap();
    let (state, read) = load(&path).unwrap();
    let rounded = values.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect();
    assert!(matches!(&state["x"], Value::F32(x) if *x == Array::new(rounded, &[2, 3])), "{state:?}");
    assert_eq!(read["made"], "here");
    // 8 bytes for the header's length, the header, and two bytes for each value.
    let bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(bytes.len(), 8 + header + 2 * values.len());
}
