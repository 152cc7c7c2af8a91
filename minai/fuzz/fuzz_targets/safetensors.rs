//! Weight files: any bytes are read or refused, without a panic or memory out of proportion, and what is read has as many
//! elements as its shape says. The first byte chooses: a file as it is, or a header whose length is put in front.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minai::io::config::Config;
use minai::io::safetensors::TensorFile;
use minai::nn::{Linear, Module, Parts};
use minai::norm::GroupNorm;
use minai::weights::{Pending, Precision, load_weights};
use std::path::PathBuf;
use std::sync::LazyLock;

/// A file in memory where there is such a folder: it is written anew for each input.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("minai-fuzz-{}.safetensors", std::process::id()))
});

struct Model(Linear, GroupNorm);

impl Module for Model {
    fn parts(&self, parts: &mut Parts) {
        parts.module("a", &self.0);
        parts.module("n", &self.1);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else { return };
    let file = match choice % 2 {
        0 => bytes.to_vec(),
        _ => {
            // The header ends at its last brace, as far as there is one.
            let end = bytes.iter().rposition(|&byte| byte == b'}').map_or(bytes.len(), |at| at + 1);
            [&(end as u64).to_le_bytes()[..], bytes].concat()
        }
    };
    std::fs::write(&*FILE, &file).expect("room for a small file");
    if let Ok(file) = TensorFile::open(&*FILE) {
        for name in file.names() {
            let shape = file.shape(&name).expect("a name of this file");
            let sizes = [
                file.f32(&name).map(|array| (array.shape().to_vec(), array.len())),
                file.i64(&name).map(|array| (array.shape().to_vec(), array.len())),
                file.u8(&name).map(|array| (array.shape().to_vec(), array.len())),
            ];
            for size in sizes {
                match size {
                    Ok((found, len)) => assert!(found == shape && len <= bytes.len()),
                    Err(error) => assert!(error.path == *FILE && error.what.len() < 2_000),
                }
            }
        }
        for precision in [Precision::Single, Precision::Stored, Precision::Half] {
            let model = Model(Linear::new(&mut Pending, 2, 2), GroupNorm::new(1, 2));
            let rename = |name: &str| (!name.starts_with('x')).then(|| name.to_owned());
            if load_weights(&model, &*FILE, precision, &rename).is_ok() {
                assert_eq!(model.0.weight.data().len(), 4);
                assert!(model.0.weight.data().iter().all(|x| x.is_finite()));
            }
        }
    }
    if let Ok(config) =
        str::from_utf8(bytes).map_err(drop).and_then(|text| Config::parse("c", text).map_err(drop))
    {
        for key in config.keys() {
            let _ = (
                config.usize(key),
                config.f64(key),
                config.bool(key),
                config.text(key),
                config.usizes(key),
                config.texts(key),
            );
        }
    }
});
