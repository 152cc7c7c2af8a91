//! The IDX reader, plain and gzipped: any bytes are read or refused; what is read has as many elements as its shape says.
#![no_main]

use libfuzzer_sys::fuzz_target;
use minai::io::gzip::gunzip_from;
use minai::io::idx::read_idx_from;
use std::path::Path;

fuzz_target!(|bytes: &[u8]| {
    let path = Path::new("fuzz-idx");
    let idx = match bytes {
        [0x1f, 0x8b, ..] => gunzip_from(bytes, path, 1 << 22).and_then(|idx| read_idx_from(idx, path)),
        _ => read_idx_from(bytes, path),
    };
    if let Ok(array) = idx {
        assert_eq!(array.shape().iter().product::<usize>(), array.len());
    }
});
