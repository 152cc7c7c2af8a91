//! The pickle readers: any bytes are read or refused, without a panic, a stack overflow or memory out of proportion.
//! The first byte chooses: digits from a plain pickle, from a gzipped one, or any pickle through the guard.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minai::io::gzip::gunzip_from;
use minai::io::mnist::read_mnist_pickle;
use minai::io::pickle::{PICKLE_DEPTH, PickleGuard};
use serde_pickle::{DeOptions, HashableValue, Value, value_from_reader};
use std::io::Read;
use std::path::Path;

const LIMIT: u64 = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let path = Path::new("fuzz.pkl");
    match choice % 3 {
        0 => drop(read_mnist_pickle(bytes, path)),
        1 => drop(gunzip_from(bytes, path, 1 << 22).and_then(|pickle| read_mnist_pickle(pickle, path))),
        _ => through_the_guard(bytes, path),
    }
});

/// What the guard lets through is unchanged, and as deep and as large as the guard thinks at most.
fn through_the_guard(bytes: &[u8], path: &Path) {
    let mut passed = Vec::new();
    let whole = PickleGuard::new(bytes, path, LIMIT).read_to_end(&mut passed);
    assert!(bytes.starts_with(&passed), "the guard changed something");
    let options = DeOptions::new().replace_unresolved_globals().keep_restore_state();
    let Ok(value) = value_from_reader(PickleGuard::new(bytes, path, LIMIT), options) else { return };
    assert!(whole.is_ok(), "a value from a pickle that the guard stops");
    let (depth, weight) = measure(&value);
    assert!(depth <= PICKLE_DEPTH, "{depth} levels");
    assert!(weight <= LIMIT, "{weight} bytes");
}

/// Depth, and the number of values and of bytes in strings.
fn measure(value: &Value) -> (usize, u64) {
    match value {
        Value::Bytes(bytes) => (1, 1 + bytes.len() as u64),
        Value::String(text) => (1, 1 + text.len() as u64 / 2), // Latin-1 in a text pickle grows to UTF-8
        Value::List(items) | Value::Tuple(items) => sum(items.iter().map(measure)),
        Value::Dict(items) => sum(items.iter().flat_map(|(key, value)| [hashable(key), measure(value)])),
        Value::Set(items) | Value::FrozenSet(items) => sum(items.iter().map(hashable)),
        _ => (1, 1),
    }
}

fn hashable(value: &HashableValue) -> (usize, u64) {
    match value {
        HashableValue::Tuple(items) => sum(items.iter().map(hashable)),
        HashableValue::FrozenSet(items) => sum(items.iter().map(hashable)),
        _ => (1, 1),
    }
}

fn sum(items: impl Iterator<Item = (usize, u64)>) -> (usize, u64) {
    items.fold((1, 1), |(depth, weight), item| (depth.max(1 + item.0), weight + item.1))
}
