//! The pickle readers: any bytes are read or refused, without a panic, a stack overflow or memory out of proportion.
//! The first byte chooses: digits from a plain pickle, from a gzipped one, or any pickle through the guard.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minai::data::{PickleGuard, gunzip_from, read_mnist_pickle};
use std::io::Read;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let path = Path::new("fuzz.pkl");
    match choice % 3 {
        0 => drop(read_mnist_pickle(bytes, path)),
        1 => drop(gunzip_from(bytes, path, 1 << 22).and_then(|pickle| read_mnist_pickle(pickle, path))),
        _ => {
            let mut passed = Vec::new();
            let whole = PickleGuard::new(bytes, path, 1 << 20).read_to_end(&mut passed);
            let options = serde_pickle::DeOptions::new().replace_unresolved_globals();
            let value = serde_pickle::value_from_reader(PickleGuard::new(bytes, path, 1 << 20), options);
            assert!(whole.is_ok() || value.is_err(), "a value from a pickle that the guard stops");
            assert!(bytes.starts_with(&passed), "the guard changed something");
        }
    }
});
