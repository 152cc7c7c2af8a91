//! Safetensors files that are damaged or made by someone who means harm: a typed error that names the file, never a panic.

use minai::array::Array;
use minai::generator::Generator;
use minai::state::{Metadata, StateDict, StateError, Value, load, save};
use std::fs;

fn assert_helpful(error: &StateError) {
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
