//! Readers of files that others wrote: what they say of bad ones. `bad_input` has more of these.

use flate2::{Compression, write::GzEncoder};
use minai::io::data::{DataError, DataFault};
use minai::io::gzip::gunzip_from;
use minai::io::idx::read_idx_from;
use minai::io::pickle::PickleGuard;
use serde_pickle::{DeOptions, value_from_reader};
use std::error::Error;
use std::io::{Read, Write};
use std::path::Path;

#[test]
fn an_error_has_file_place_fault_and_remedy() {
    let error = DataError {
        path: "data/x.gz".into(),
        place: "byte 17 of the pickle".into(),
        fault: DataFault::TooDeep(64),
    };
    assert_eq!(
        error.to_string(),
        "data/x.gz, byte 17 of the pickle: nested more than 64 levels deep; get the file from a source that you trust"
    );
}

fn unpack_all(packed: &[u8], limit: u64) -> Result<usize, Box<dyn Error>> {
    let mut unpacked = gunzip_from(packed, Path::new("bomb.gz"), limit)?;
    Ok(unpacked.read_to_end(&mut vec![])?)
}

#[test]
fn gunzip_has_a_limit_and_wants_the_end() {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(&vec![0; 10_000_000]).unwrap();
    let bomb = packer.finish().unwrap();
    let too_much = unpack_all(&bomb, 1_000_000).unwrap_err().to_string();
    let cut_short = unpack_all(&bomb[..bomb.len() - 4], 20_000_000).unwrap_err().to_string();
    assert!(too_much.contains("more than 1000000 bytes"));
    assert!(cut_short.contains("ends in the middle"));
    assert_eq!(unpack_all(&bomb, 20_000_000).unwrap(), 10_000_000);
}

fn inspect(pickle: &[u8]) -> String {
    let guard = PickleGuard::new(pickle, Path::new("stranger.pkl"), 1 << 20);
    match value_from_reader(guard, DeOptions::new()) {
        Ok(value) => format!("{value:?}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_guard_stops_what_means_harm() {
    let system = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02ls\x94\x85\x94R\x94.";
    let deep = [vec![b')'], vec![0x85; 100_000], vec![b'.']].concat();
    let letters = [&b"(X\xe8\x03\0\0"[..], &[b'a'; 1000], b"q\0"].concat();
    let again = [letters, b"h\0".repeat(1_000_000), b"t.".to_vec()].concat();
    assert!(inspect(system).contains("posix.system (os.system), which is not allowed"));
    assert!(inspect(&deep).contains("more than 64 levels"));
    assert!(inspect(&again).contains("more than 1048576 bytes"));
    assert_eq!(inspect(b"\x80\x02K\x07X\x03\0\0\0sam\x86."), "Tuple([I64(7), String(\"sam\")])");
}

fn idx_or_error(idx: &[u8]) -> String {
    match read_idx_from(idx, Path::new("x-idx2-ubyte")) {
        Ok(array) => format!("{array}"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn idx_believes_no_header() {
    let header = [0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3];
    let whole = idx_or_error(&[&header[..], &[1, 2, 3, 4, 5, 6]].concat());
    let cut_short = idx_or_error(&[&header[..], &[1, 2, 3, 4, 5]].concat());
    let huge = idx_or_error(&[&[0, 0, 8, 2][..], &[255; 8]].concat());
    assert_eq!(whole, "[[1, 2, 3],\n [4, 5, 6]]");
    assert!(cut_short.contains("element 5 of 6"));
    assert!(huge.contains("more than 1073741824 elements"));
    assert!(idx_or_error(b"\x89PNG").contains("IDX file"));
}
