//! Readers of files that others wrote: what they say of bad ones. `bad_input` has more of these.

use flate2::{Compression, write::GzEncoder};
use minai::io::data::{DataError, DataFault};
use minai::io::gzip::gunzip_from;
use minai::io::idx::{find_idx, load_idx_pair, read_idx, read_idx_from, read_idx_integers};
use minai::io::mnist::{find_mnist_in, load_mnist};
use minai::io::pickle::PickleGuard;
use minai_tests::files::{Digits, gzip, idx_file, mnist_pickle};
use serde_pickle::{DeOptions, value_from_reader};
use std::error::Error;
use std::fs;
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

/// What `main() -> Result<(), Box<dyn Error>>` and `unwrap` print is the text, not the fields.
#[test]
fn errors_print_as_text_for_debugging_too() {
    let error = load_mnist(Path::new("no/such/file.gz")).unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
    let boxed: Box<dyn Error> = error.into();
    assert!(
        format!("Error: {boxed:?}").starts_with("Error: no/such/file.gz, opening: there is no such file; ")
    );
}

#[cfg(feature = "download")]
#[test]
fn errors_of_downloads_print_as_text_for_debugging_too() {
    use minai::io::download::{FetchError, FetchFault};
    let fault = FetchFault::Status(404);
    let error = FetchError { url: "http://x/y".into(), path: "y".into(), fault };
    let text = "http://x/y to y: there is no such file on the server; check the address";
    assert_eq!((format!("{error:?}"), error.to_string()), (text.into(), text.into()));
}

#[test]
fn who_has_no_digits_is_told_how_to_get_them() {
    for full in [true, false] {
        let text = find_mnist_in(&[], full).unwrap_err().to_string();
        for part in ["MINAI_DATA, which is not set", "no such file; ", "minai::io::mnist::fetch_mnist"] {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }
    let text = find_mnist_in(&["a".into(), "b".into()], false).unwrap_err().to_string();
    assert!(text.starts_with("mnist_sample.pkl.gz, in a or b: "), "{text}");
}

#[test]
fn an_unpacked_pickle_is_found_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mnist.pkl");
    fs::write(&path, mnist_pickle(&Digits::default())).unwrap();
    assert_eq!(find_mnist_in(&[folder.path().to_path_buf()], true).unwrap(), path);
    let unpacked = load_mnist(&path).unwrap();
    let zipped = folder.path().join("mnist.pkl.gz");
    fs::write(&zipped, gzip(&mnist_pickle(&Digits::default()))).unwrap();
    assert_eq!(unpacked, load_mnist(&zipped).unwrap());
    assert_eq!(find_mnist_in(&[folder.path().to_path_buf()], true).unwrap(), zipped);
}

/// Arrays of protocol 5 are calls, whose arguments are looked at as closely as a state.
#[test]
fn pickles_of_protocol_5_are_checked_too() {
    let packed = concat!(env!("CARGO_MANIFEST_DIR"), "/pickles/numpy2_protocol5.pkl.gz");
    let mut good = Vec::new();
    gunzip_from(fs::File::open(packed).unwrap(), Path::new(packed), 1 << 20)
        .unwrap()
        .read_to_end(&mut good)
        .unwrap();
    let read = |bytes: &[u8]| minai::io::mnist::read_mnist_pickle(bytes, Path::new("five.pkl"));
    assert_eq!(read(&good).unwrap().0.1.to_vec(), [1, 2]);
    let with = |old: &[u8], new: &[u8]| {
        let at = good.windows(old.len()).position(|window| window == old).expect("nothing to replace");
        read(&[&good[..at], new, &good[at + old.len()..]].concat()).unwrap_err().to_string()
    };
    for (old, new, says) in [
        (&b"_frombuffer"[..], &b"_frombuffeR"[..], "numpy._core.numeric._frombuffeR, which is not allowed"),
        (b"K\x02M\x10\x03\x86", b"K\x03M\x10\x03\x86", "shape [3, 784] does not match 6272 bytes"),
        (b"\x8c\x01C", b"\x8c\x01F", "not a numpy array in C order"),
        (b"\x8c\x01<", b"\x8c\x01>", "highest byte first"),
    ] {
        let text = with(old, new);
        assert!(text.contains(says), "{says:?} is not in: {text}");
    }
}

/// Fetching again is advised only where it can help.
#[test]
fn files_of_other_formats_are_told_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-images-idx3-ubyte.gz");
    let cases: [(&[u8], &str, &str); 9] = [
        (b"\n<!DOCTYPE html><title>Log in</title>", "a web page", "fetch it again"),
        (b"<html>Log in", "a web page", "fetch it again"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a placeholder of Git LFS", "git lfs pull"),
        (b"PK\x03\x04\x14\0\0\0", "a zip archive", "unpack it first"),
        (b"\xfd7zXZ\0\0\x04", "an xz file", "unpack it first"),
        (b"PAR1\x15\x04\x15\0", "a Parquet file", "another format"),
        (b"\x93NUMPY\x01\0", "an .npy file", "another format"),
        (b"\x89PNG\r\n\x1a\n", "a PNG picture", "the right file"),
        (b"\xff\xd8\xff\xe0", "a JPEG picture", "the right file"),
    ];
    for (bytes, is, remedy) in cases {
        fs::write(&path, bytes).unwrap();
        let errors = [
            (load_mnist(&path).unwrap_err(), "not a gzipped or plain pickle"),
            (read_idx(&path).unwrap_err(), "not an IDX file"),
        ];
        for (error, wanted) in errors {
            assert!(matches!(error.fault, DataFault::OtherFormat { .. }), "{error}");
            let text = error.to_string();
            assert!(text.contains(is) && text.contains(wanted) && text.contains(remedy), "{text}");
            assert_eq!(text.contains("again"), remedy.contains("again"), "{text}");
        }
    }
    let labels = folder.path().join("labels");
    fs::write(&labels, idx_file(&[1], &[10])).unwrap();
    fs::write(&path, idx_file(&[1, 1], &[0])).unwrap();
    let text = load_idx_pair(&path, &labels, 10).unwrap_err().to_string();
    assert!(text.contains("ten classes") && !text.contains("again"), "{text}");
}

#[test]
fn idx_files_go_by_several_names() {
    let folder = tempfile::tempdir().unwrap();
    let name = "train-images-idx3-ubyte.gz";
    let asked = folder.path().join(name);
    assert_eq!(find_idx(folder.path(), name), None);
    assert!(read_idx(&asked).unwrap_err().to_string().contains("no such file"));
    // From the last choice to the first: each is found before those that are there already.
    let names = ["train-images.idx3-ubyte", "train-images-idx3-ubyte", "train-images.idx3-ubyte.gz", name];
    for (k, other) in names.iter().enumerate() {
        let idx = idx_file(&[2], &[k as u8, 7]);
        let bytes = if other.ends_with(".gz") { gzip(&idx) } else { idx };
        fs::write(folder.path().join(other), bytes).unwrap();
        assert_eq!(find_idx(folder.path(), name), Some(folder.path().join(other)));
        assert_eq!(read_idx(&asked).unwrap().iter().copied().collect::<Vec<u8>>(), [k as u8, 7]);
    }
    for other in names {
        assert_eq!(find_idx(folder.path(), other), Some(folder.path().join(other)), "a file of that name");
    }
}

/// A file with this type and rank 1 or 2.
fn idx_of(code: u8, sizes: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut idx = idx_file(sizes, elements);
    idx[2] = code;
    idx
}

#[test]
fn labels_of_emnist_and_qmnist() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    fs::write(&images, idx_file(&[2, 1, 1], &[0, 0])).unwrap();
    let load = |idx: Vec<u8>, classes| {
        fs::write(&labels, idx).unwrap();
        load_idx_pair(&images, &labels, classes).map(|(_, y)| y.to_vec())
    };
    assert_eq!(load(idx_file(&[2], &[1, 26]), 27).unwrap(), [1, 26], "letters");
    let error = load(idx_file(&[2], &[61, 62]), 62).unwrap_err();
    assert!(matches!(error.fault, DataFault::BadLabel { label: 62, classes: 62 }));
    assert!(error.to_string().contains("labels, number 1: label 62 is no class below 62"), "{error}");

    let row = |label: i32| [label, 0, 2608, 42, 50 + label, 100, 0, 0].map(i32::to_be_bytes).concat();
    assert_eq!(load(idx_of(0x0c, &[2, 8], &[row(5), row(0)].concat()), 10).unwrap(), [5, 0]);
    let error = load(idx_of(0x0c, &[2, 8], &[row(5), row(-1)].concat()), 10).unwrap_err();
    assert!(matches!(error.fault, DataFault::BadLabel { label: -1, classes: 10 }));
    let text = load(idx_of(0x0c, &[2, 7], &[0; 56]), 10).unwrap_err().to_string();
    assert!(text.contains("labels of shape [2, 7] for images of shape [2, 1, 1]"), "{text}");
}

#[test]
fn idx_of_other_types() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x-idx1");
    let write = |code: u8, elements: &[u8], n: u32| fs::write(&path, idx_of(code, &[n], elements)).unwrap();
    for (code, elements, integers) in [
        (0x08, &[255, 1][..], [255, 1]),
        (0x09, &[255, 1], [-1, 1]),
        (0x0b, &[255, 254, 1, 0], [-2, 256]),
        (0x0c, &[255, 255, 255, 253, 0, 1, 0, 0], [-3, 65536]),
    ] {
        write(code, elements, 2);
        assert_eq!(read_idx_integers(&path).unwrap().into_raw_vec_and_offset().0, integers);
        assert_eq!(read_idx(&path).is_ok(), code == 0x08);
        write(code, elements, 3);
        assert!(matches!(read_idx_integers(&path).unwrap_err().fault, DataFault::CutShort));
        write(code, elements, 1);
        assert!(read_idx_integers(&path).unwrap_err().to_string().contains("goes on after its 1 elements"));
    }
    write(0x0d, &[0; 8], 2);
    for error in [read_idx(&path).unwrap_err(), read_idx_integers(&path).unwrap_err()] {
        assert!(error.to_string().contains("holds floats of 32 bits where bytes"), "{error}");
    }
    write(0x0c, &[0; 8], 2);
    let text = read_idx(&path).unwrap_err().to_string();
    assert!(text.contains("holds integers of 32 bits where bytes belong"), "{text}");
    write(0x77, &[0; 8], 2);
    assert!(read_idx(&path).unwrap_err().to_string().contains("unknown type, 0x77"));
}
