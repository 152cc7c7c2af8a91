//! What bad files get: a typed error that names file, place and remedy; never a panic, a hang or half a result.

use flate2::{Compression, write::GzEncoder};
use minai::io::data::{DataError, DataFault};
use minai::io::gzip::{gunzip, gunzip_from};
use minai::io::idx::{load_idx_pair, read_idx, read_idx_from};
use minai::io::mnist::{MnistSplits, find_mnist, find_mnist_in, load_mnist, read_mnist_pickle};
use minai::io::pickle::{PICKLE_DEPTH, PickleGuard};
use minai_tests::files::{Digits, Rng, gzip, idx_file, mnist_pickle};
use serde_pickle::{DeOptions, value_from_reader};
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

fn unpickle(pickle: &[u8]) -> Result<MnistSplits, DataError> {
    read_mnist_pickle(pickle, Path::new("digits.pkl"))
}

/// The error for a pickle that is the good one with `old` replaced by `new`, once.
fn with_change(old: &[u8], new: &[u8]) -> DataError {
    let good = mnist_pickle(&Digits::default());
    let at = good.windows(old.len()).position(|window| window == old).expect("nothing to replace");
    unpickle(&[&good[..at], new, &good[at + old.len()..]].concat()).expect_err("was accepted")
}

/// Every message names the file, and after the last semicolon says what to do.
fn assert_helpful(error: &DataError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert!(text.starts_with(&*error.path.to_string_lossy()), "{text:?} does not begin with the file");
    assert!(
        !error.place.is_empty() && text.rsplit_once("; ").is_some_and(|(_, remedy)| remedy.len() > 10),
        "{text:?}"
    );
}

#[test]
fn a_good_file_is_read() {
    let digits = Digits { train: 5, valid: 3, test: 2, ..Digits::default() };
    let ((x_train, y_train), (x_valid, y_valid), (x_test, y_test)) =
        unpickle(&mnist_pickle(&digits)).unwrap();
    assert_eq!((x_train.dim(), x_valid.dim(), x_test.dim()), ((5, 784), (3, 784), (2, 784)));
    assert_eq!(
        (y_train.to_vec(), y_valid.to_vec(), y_test.to_vec()),
        (vec![0, 1, 2, 3, 4], vec![0, 1, 2], vec![0, 1])
    );
    assert_eq!((x_train[(0, 0)], x_train[(0, 1)], x_train[(1, 0)]), (0.0, 1.0 / 256.0, 1.0 / 256.0));
}

#[test]
fn a_missing_file() {
    let error = load_mnist(Path::new("no/such/file.gz")).unwrap_err();
    assert!(matches!(&error.fault, DataFault::Io(io) if io.kind() == std::io::ErrorKind::NotFound));
    assert_helpful(&error, &["no/such/file.gz", "no such file", "fetch"]);
    assert!(matches!(load_mnist(Path::new(".")).unwrap_err().fault, DataFault::Io(_)), "a folder");
}

#[test]
fn gzip_that_is_none_or_cut_short_or_damaged() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("digits.pkl.gz");
    let packed = gzip(&mnist_pickle(&Digits::default()));
    let load = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        load_mnist(&path)
    };
    assert!(load(&packed).is_ok());
    assert_helpful(
        &load(b"<html>Welcome to our Wi-Fi</html>").unwrap_err(),
        &["a web page, not a gzip", "fetch it again"],
    );
    assert!(matches!(load(b"").unwrap_err().fault, DataFault::CutShort));
    for cut in [1, 5, packed.len() / 2, packed.len() - 8, packed.len() - 1] {
        let error = load(&packed[..cut]).unwrap_err();
        assert!(matches!(error.fault, DataFault::CutShort), "cut at {cut}: {error}");
        assert_helpful(&error, &["digits.pkl.gz", "byte", "ends in the middle", "fetch it again"]);
    }
    let mut checksum = packed.clone();
    *checksum.iter_mut().rev().nth(6).unwrap() ^= 1;
    let error = load(&checksum).unwrap_err();
    assert!(matches!(error.fault, DataFault::Damaged(_)), "{error}");
    assert!(load(&[packed.clone(), b"garbage".to_vec()].concat()).is_err());
}

#[test]
fn gzip_of_several_members_is_one_file() {
    let pickle = mnist_pickle(&Digits::default());
    let packed = [gzip(&pickle[..1000]), gzip(&pickle[1000..])].concat();
    let mut unpacked = Vec::new();
    gunzip_from(&packed[..], Path::new("two.gz"), 1 << 20).unwrap().read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, pickle);
}

#[test]
fn gzip_that_unpacks_past_the_limit() {
    let bomb = gzip(&vec![0; 10_000_000]);
    let read = |limit| gunzip_from(&bomb[..], Path::new("bomb.gz"), limit).unwrap().read_to_end(&mut vec![]);
    assert_eq!(read(10_000_000).unwrap(), 10_000_000);
    let error = read(9_999_999).unwrap_err().downcast::<DataError>().unwrap();
    assert!(matches!(error.fault, DataFault::PastLimit(9_999_999)));
    assert_helpful(&error, &["bomb.gz", "more than 9999999 bytes", "trust"]);
}

/// A file that promises 300 MB of content, and keeps the promise, is given up at the limit.
#[test]
fn a_pickle_that_unpacks_past_the_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.pkl.gz");
    let mut packer = GzEncoder::new(fs::File::create(&path).unwrap(), Compression::fast());
    packer.write_all(b"\x80\x02((").unwrap();
    for _ in 0..300 {
        let megabyte = [&[b'T', 0, 0, 16, 0][..], &[0; 1 << 20]].concat();
        packer.write_all(&megabyte).unwrap();
    }
    packer.finish().unwrap();
    let error = load_mnist(&path).unwrap_err();
    assert!(matches!(error.fault, DataFault::PastLimit(_)), "{error}");
}

#[test]
fn no_pickle() {
    for bytes in
        [&b"hello, world"[..], b"\x89PNG\r\n\x1a\n", b"{\"a\": 1}", b"\x80\x02", b"", &[0; 1000], &[b'('; 10]]
    {
        let error = unpickle(bytes).unwrap_err();
        assert!(matches!(error.fault, DataFault::BadPickle(_) | DataFault::CutShort), "{error}");
        assert_helpful(&error, &["digits.pkl", "byte", "fetch it again"]);
    }
}

#[test]
fn a_pickle_of_another_structure() {
    let others: [(&str, &[u8]); 5] = [
        ("None", b"\x80\x02N."),
        ("{'a': 1}", b"\x80\x02}q\0U\x01aK\x01s."),
        ("[1, 2, 3]", b"\x80\x02]q\0(K\x01K\x02K\x03e."),
        ("(1, 2, 3)", b"\x80\x02K\x01K\x02K\x03\x87."),
        ("((1, 2), (3, 4), (5, 6))", b"(K\x01K\x02\x86K\x03K\x04\x86K\x05K\x06\x86t."),
    ];
    for (what, pickle) in others {
        let error = unpickle(pickle).unwrap_err();
        assert!(matches!(error.fault, DataFault::Structure(_)), "{what}: {error}");
        assert_helpful(&error, &["digits.pkl", "check that this is the right file"]);
    }
    let goes_on = [mnist_pickle(&Digits::default()), b"N.".to_vec()].concat();
    assert_helpful(&unpickle(&goes_on).unwrap_err(), &["goes on after its end"]);
    let uneven = Digits { labels_short: 1, ..Digits::default() };
    assert_helpful(&unpickle(&mnist_pickle(&uneven)).unwrap_err(), &["train", "images and", "labels"]);
    assert_helpful(&with_change(b"\x02f4K", b"\x02f8K"), &["f8", "where f4 and i8 belong"]);
    assert_helpful(&with_change(b"\x01<NNN", b"\x01>NNN"), &["images of train", "highest byte first"]);
    assert_helpful(&with_change(b"tb\x89T", b"tb\x88T"), &["images of train", "C order"]);
    assert_helpful(&with_change(b"M\x10\x03\x86", b"M\x0f\x03\x86"), &["images of train", "shape"]);
}

/// As Python writes them: protocols 0, 2 and 4, by GLOBAL, by STACK_GLOBAL, by INST, hidden behind the memo.
#[test]
fn a_pickle_that_names_os_system() {
    let attacks: [&[u8]; 6] = [
        b"cos\nsystem\n(S'touch minai_was_here'\ntR.",
        b"cposix\nsystem\np0\n(Vtouch minai_was_here\np1\ntp2\nRp3\n.",
        b"\x80\x02cos\nsystem\nq\0X\x14\0\0\0touch minai_was_hereq\x01\x85q\x02Rq\x03.",
        b"\x80\x04\x95\x2d\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x14touch minai_was_here\x94\x85\x94R\x94.",
        b"(S'touch minai_was_here'\nios\nsystem\n.",
        b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\0h\x01\x93\x8c\x14touch minai_was_here\x85R.",
    ];
    for (k, attack) in attacks.iter().enumerate() {
        let error = unpickle(attack).unwrap_err();
        if k == 5 {
            assert!(matches!(error.fault, DataFault::BadPickle(_)), "POP is refused: {error}");
            continue;
        }
        assert!(
            matches!(&error.fault, DataFault::ForbiddenName(name) if name.contains("os") && name.contains("system"))
        );
        assert_helpful(
            &error,
            &["digits.pkl", "byte", "os.system", "not allowed", "nothing was run", "trust"],
        );
    }
    assert_helpful(&with_change(b"cnumpy\ndtype", b"cposix\nsystem"), &["posix.system (os.system)"]);
    assert_helpful(&with_change(b"_reconstruct", b"_reconstruct2"), &["numpy.core.multiarray._reconstruct2"]);
    assert_helpful(&unpickle(b"c\x1b[2J\nsys\xfftem\n.").unwrap_err(), &["\\u{1b}[2J.sys"]);
    assert!(!Path::new("minai_was_here").exists());
}

#[test]
fn a_pickle_nested_100_000_deep() {
    let deep = 100_000;
    let tuples = [vec![b')'], vec![0x85; deep], vec![b'.']].concat();
    let lists = [vec![b']'; deep], vec![b'a'; deep - 1], vec![b'.']].concat();
    let memo_lists: Vec<u8> =
        (0..deep as u32).flat_map(|id| [&b"]r"[..], &id.to_le_bytes()].concat()).collect();
    let memo_lists = [memo_lists, vec![b'a'; deep - 1], vec![b'.']].concat();
    let marks = [vec![b'('; deep], vec![b't'; deep], vec![b'.']].concat();
    let dicts: Vec<u8> = [b"}K\x01".repeat(deep), b"N".to_vec(), vec![b's'; deep], b".".to_vec()].concat();
    for (what, pickle) in
        [("tuples", tuples), ("lists", lists), ("memo", memo_lists), ("marks", marks), ("dicts", dicts)]
    {
        let error = unpickle(&pickle).unwrap_err();
        assert!(matches!(error.fault, DataFault::TooDeep(PICKLE_DEPTH)), "{what}: {error}");
        assert_helpful(&error, &["digits.pkl", "byte", "64 levels"]);
    }
}

/// Depth that is put together through the memo, after the fact.
#[test]
fn a_pickle_that_grows_behind_its_own_back() {
    let mut chain = Vec::new(); // list k holds list k + 1, but is filled only after it was used
    for id in 0..200 {
        chain.extend([b']', b'q', id]);
    }
    for id in 0..199 {
        chain.extend([b'h', id, b'h', id + 1, b'a']);
    }
    chain.push(b'.');
    assert!(unpickle(&chain).is_err());
    assert_helpful(&unpickle(b"]q\0h\0a.").unwrap_err(), &["puts it into itself"]);
}

/// `(x, x)` forty times over is 200 bytes, and would be 10^12 values; a string fetched a million times, a gigabyte.
#[test]
fn a_pickle_that_multiplies() {
    let pairs = (0..40).flat_map(|id| [b'q', id, b'h', id, 0x86]);
    let laughs: Vec<u8> = [b'N'].into_iter().chain(pairs).chain([b'.']).collect();
    let error = unpickle(&laughs).unwrap_err();
    assert!(matches!(error.fault, DataFault::PastLimit(_)), "{error}");
    let letters = [&b"(X\xe8\x03\0\0"[..], &[b'a'; 1000], b"q\0"].concat();
    let again = [letters, b"h\0".repeat(1_000_000), b"t.".to_vec()].concat();
    let error = unpickle(&again).unwrap_err();
    assert!(matches!(error.fault, DataFault::PastLimit(_)), "{error}");
    let doubled = [b"K\x01".to_vec(), b"2\x86".repeat(40), b".".to_vec()].concat();
    assert_helpful(&unpickle(&doubled).unwrap_err(), &["0x32 is no instruction"]);
    let long = unpickle(b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f").unwrap_err();
    assert!(matches!(long.fault, DataFault::PastLimit(_)), "{long}");
    let marks = [b"]".to_vec(), b"(e".repeat(3_000_000), b".".to_vec()].concat();
    assert!(
        matches!(unpickle(&marks).unwrap_err().fault, DataFault::PastLimit(_)),
        "nothing, added for ever"
    );
    let line = unpickle(&[b'I'; 10_000]).unwrap_err();
    assert_helpful(&line, &["endless line"]);
}

fn pickle_of(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pickles").join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The guard is for other pickles too: what it lets through arrives unchanged, however the stream is cut.
#[test]
fn the_guard_lets_harmless_pickles_through() {
    for protocol in 0..6 {
        let pickle = pickle_of(&format!("python_protocol{protocol}.pkl"));
        let plain = value_from_reader(&pickle[..], DeOptions::new()).unwrap();
        for step in [1, 2, 3, 7, 1000] {
            let slowly = Slowly { bytes: &pickle, step };
            let guard = PickleGuard::new(slowly, Path::new("x.pkl"), 1 << 20);
            let guarded = value_from_reader(guard, DeOptions::new());
            assert_eq!(guarded.unwrap_or_else(|error| panic!("protocol {protocol}: {error}")), plain);
        }
    }
}

struct Slowly<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Read for Slowly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.step.min(buffer.len()).min(self.bytes.len());
        let (now, later) = self.bytes.split_at(count);
        buffer[..count].copy_from_slice(now);
        self.bytes = later;
        Ok(count)
    }
}

/// Today's numpy writes other instructions for every protocol: state, or calls of `_codecs.encode` and `_frombuffer`.
#[test]
fn pickles_of_numpy_2() {
    for protocol in 2..6 {
        let packed = pickle_of(&format!("numpy2_protocol{protocol}.pkl.gz"));
        let path = Path::new("numpy2.pkl.gz");
        let digits =
            gunzip_from(&packed[..], path, 1 << 20).and_then(|pickle| read_mnist_pickle(pickle, path));
        let ((x_train, y_train), (_, y_valid), (x_test, y_test)) =
            digits.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((x_train.dim(), x_test.dim()), ((2, 784), (1, 784)), "protocol {protocol}");
        assert!(x_train.iter().all(|&pixel| pixel == 0.0));
        assert_eq!((y_train.to_vec(), y_valid.to_vec(), y_test.to_vec()), (vec![1, 2], vec![3], vec![4]));
    }
}

/// What Python itself makes of an object that wants `os.system` called, in every protocol there is.
#[test]
fn pickles_by_python_that_call_os_system() {
    for protocol in 0..6 {
        let error = unpickle(&pickle_of(&format!("attack_protocol{protocol}.pkl"))).unwrap_err();
        assert_helpful(&error, &["posix.system (os.system)", "not allowed", "nothing was run"]);
    }
    assert!(!Path::new("minai_was_here").exists());
}

#[test]
fn shapes_that_do_not_match_the_bytes() {
    let error = with_change(b"K\x05M\x10\x03\x86", b"K\x06M\x10\x03\x86");
    assert_helpful(&error, &["images of train", "shape [6, 784] does not match 15680 bytes"]);
    let error = with_change(b"K\x05M\x10\x03\x86", b"J\xff\xff\xff\xffM\x10\x03\x86");
    assert_helpful(&error, &["images of train", "no list of sizes"]);
    let huge = [b"\x8a\x08".as_slice(), &i64::MAX.to_le_bytes(), b"M\x10\x03\x86"].concat();
    assert_helpful(&with_change(b"K\x05M\x10\x03\x86", &huge), &["does not match"]);
    let empty = Digits { train: 0, ..Digits::default() };
    assert_helpful(&unpickle(&mnist_pickle(&empty)).unwrap_err(), &["train", "0 images"]);
}

#[test]
fn labels_above_9_and_pixels_that_are_none() {
    let label = |label| {
        unpickle(&mnist_pickle(&Digits { first_label: Some(label), ..Digits::default() })).unwrap_err()
    };
    assert!(matches!(label(10).fault, DataFault::BadLabel { label: 10, classes: 10 }));
    assert_helpful(&label(-1), &["labels of train, number 0", "label -1 is no digit"]);
    for pixel in [f32::NAN, f32::INFINITY, -0.5, 1.5, 255.0] {
        let error =
            unpickle(&mnist_pickle(&Digits { last_pixel: Some(pixel), ..Digits::default() })).unwrap_err();
        assert!(matches!(error.fault, DataFault::BadPixel(_)));
        assert_helpful(&error, &["images of test, number 1, pixel 783", "not between 0 and 1"]);
    }
}

#[test]
fn idx_with_a_wrong_header() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images-idx3-ubyte.gz");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let plain = read_idx(&path);
        fs::write(&path, gzip(bytes)).unwrap();
        let packed = read_idx(&path);
        assert_eq!(plain.is_ok(), packed.is_ok());
        plain.and(packed)
    };
    let good = idx_file(&[2, 2, 3], &[7; 12]);
    assert_eq!(read(&good).unwrap().shape(), [2, 2, 3]);
    assert_eq!(read(&idx_file(&[], &[7])).unwrap().ndim(), 0);
    assert_eq!(read(&idx_file(&[0, 3], &[])).unwrap().shape(), [0, 3]);
    for magic in [[1, 0, 8, 3], [0, 0, 9, 3], [0, 0, 0x0d, 3], [0x1f, 0x8b, 8, 3]] {
        let error = read(&[&magic, &good[4..]].concat()).unwrap_err();
        assert!(
            matches!(error.fault, DataFault::BadIdx(_) | DataFault::CutShort | DataFault::Damaged(_)),
            "{error}"
        );
    }
    let error = read(&[b"\0\0\x0d\x03", &good[4..]].concat()).unwrap_err();
    assert_helpful(&error, &["images-idx3-ubyte.gz", "byte 0", "IDX file"]);
    for sizes in [
        vec![u32::MAX; 3],
        vec![u32::MAX, u32::MAX, 2],
        vec![0, u32::MAX, u32::MAX, u32::MAX],
        vec![u32::MAX; 255],
    ] {
        let error = read(&idx_file(&sizes, &[7; 12])).unwrap_err();
        assert!(matches!(error.fault, DataFault::BadIdx(_)), "{sizes:?}: {error}");
    }
    assert_helpful(&read(&good[..good.len() - 1]).unwrap_err(), &["element 11 of 12", "ends in the middle"]);
    assert!(matches!(read(&good[..9]).unwrap_err().fault, DataFault::CutShort));
    assert_helpful(&read(&[&good[..], &[0]].concat()).unwrap_err(), &["goes on after its 12 elements"]);
}

#[test]
fn idx_images_and_labels_that_do_not_belong_together() {
    let folder = tempfile::tempdir().unwrap();
    let (images, labels) = (folder.path().join("images"), folder.path().join("labels"));
    let load = |y: Vec<u8>| {
        fs::write(&images, idx_file(&[3, 2, 2], &[7; 12])).unwrap();
        fs::write(&labels, y).unwrap();
        load_idx_pair(&images, &labels, 10)
    };
    let (x, y) = load(idx_file(&[3], &[0, 9, 5])).unwrap();
    assert_eq!((x.shape(), y.to_vec()), (&[3, 2, 2][..], vec![0, 9, 5]));
    let error = load(idx_file(&[3], &[0, 10, 5])).unwrap_err();
    assert!(matches!(error.fault, DataFault::BadLabel { label: 10, classes: 10 }));
    assert_helpful(&error, &["labels, number 1", "label 10"]);
    assert_helpful(
        &load(idx_file(&[2], &[0, 1])).unwrap_err(),
        &["labels of shape [2] for images of shape [3, 2, 2]"],
    );
    assert!(load(idx_file(&[3, 1], &[0, 1, 2])).is_err());
}

/// An instruction that the guard and serde-pickle would understand differently.
#[test]
fn an_instance_of_an_allowed_class_is_refused() {
    assert_helpful(&unpickle(b"(K\x01inumpy\nndarray\n.").unwrap_err(), &["makes an instance"]);
}

/// A guard that has said no does not say yes to what comes behind.
#[test]
fn the_guard_stays_shut() {
    let mut guard = PickleGuard::new(Slowly { bytes: b"cos\nsystem\nN.", step: 1 }, Path::new("x.pkl"), 1000);
    let mut passed = Vec::new();
    for _ in 0..20 {
        let _ = guard.read_to_end(&mut passed);
    }
    assert_eq!(passed, b"cos\nsystem");
}

#[test]
fn where_the_digits_are_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let folders = [PathBuf::from("nowhere"), folder.path().to_path_buf()];
    assert_helpful(&find_mnist_in(&folders, false).unwrap_err(), &["mnist_sample.pkl.gz", "MINAI_DATA"]);
    fs::write(folder.path().join("mnist_sample.pkl.gz"), "").unwrap();
    assert_eq!(find_mnist_in(&folders, false).unwrap(), folder.path().join("mnist_sample.pkl.gz"));
    assert_helpful(
        &find_mnist_in(&folders, true).unwrap_err(),
        &["mnist.pkl.gz", "MINAI_DATA", "fetches it"],
    );
    fs::write(folder.path().join("mnist.pkl.gz"), "").unwrap();
    assert_eq!(find_mnist_in(&folders, true).unwrap(), folder.path().join("mnist.pkl.gz"));
}

/// The sample, and the full file where there is one: it must be there if `MINAI_DATA` is set.
fn real_files() -> (PathBuf, Option<PathBuf>) {
    let sample = find_mnist_in(&[Path::new(env!("CARGO_MANIFEST_DIR")).join("../data")], false).unwrap();
    let own = std::env::var_os("MINAI_DATA").map(PathBuf::from);
    let folders: Vec<PathBuf> = own.into_iter().chain(sample.parent().map(Path::to_path_buf)).collect();
    let full = find_mnist_in(&folders, true).ok();
    assert!(
        full.is_some() || std::env::var_os("MINAI_DATA").is_none(),
        "no mnist.pkl.gz where MINAI_DATA points"
    );
    (sample, full)
}

/// The sample always, and the full file where there is one.
#[test]
fn the_real_files() {
    let (sample, full) = real_files();
    let wanted = find_mnist().unwrap_or_else(|error| panic!("{error}"));
    for path in [Some(sample), full, Some(wanted)].into_iter().flatten() {
        let (train, others) = if path.ends_with("mnist.pkl.gz") { (50_000, 10_000) } else { (6_000, 1_000) };
        let ((x_train, y_train), (x_valid, y_valid), (x_test, y_test)) = load_mnist(&path).unwrap();
        assert_eq!(
            (x_train.dim(), x_valid.dim(), x_test.dim()),
            ((train, 784), (others, 784), (others, 784))
        );
        assert_eq!((y_train.len(), y_valid.len(), y_test.len()), (train, others, others));
        assert_eq!(y_train.as_slice().unwrap()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        let pixels =
            [0., 0., 0., 0.19140625, 0.9296875, 0.98828125, 0.98828125, 0.98828125, 0.98828125, 0.98828125];
        assert_eq!(x_train.as_slice().unwrap()[200..210], pixels);
    }
}

/// A pickle of digits without its numbers: the bytes of arrays left out, the number of images written as 0.
fn skeleton(pickle: &[u8], images: [u16; 3]) -> Vec<u8> {
    let (mut bones, mut rest) = (Vec::new(), pickle);
    while let Some(at) = rest.windows(2).position(|window| window == b"\x89T") {
        bones.extend(&rest[..at + 2]);
        let (length, behind) = rest[at + 2..].split_first_chunk().unwrap();
        rest = &behind[u32::from_le_bytes(*length) as usize..];
    }
    bones.extend(rest);
    for n in images {
        let size = [&b"M"[..], &n.to_le_bytes()].concat();
        while let Some(at) = bones.windows(3).position(|window| window == size) {
            bones[at + 1..at + 3].fill(0);
        }
    }
    bones
}

/// The sample is the original in small: the very same instructions, which today's numpy would not write.
#[test]
fn the_sample_has_the_instructions_of_the_original() {
    let unpacked = |path: &Path| {
        let mut pickle = Vec::new();
        gunzip(path, 1 << 28).unwrap().read_to_end(&mut pickle).unwrap();
        pickle
    };
    let (sample, full) = real_files();
    assert!(fs::metadata(&sample).unwrap().len() < 2_000_000);
    let known = mnist_pickle(&Digits { train: 600, valid: 300, test: 300, ..Digits::default() });
    let known = skeleton(&known, [600, 300, 300]);
    assert_eq!(
        skeleton(&unpacked(&sample), [6_000, 1_000, 1_000]).escape_ascii().to_string(),
        known.escape_ascii().to_string()
    );
    if let Some(full) = full {
        assert_eq!(skeleton(&unpacked(&full), [50_000, 10_000, 10_000]), known);
    }
}

/// Damages a file: bytes changed, cut out, doubled, or swapped for what means something in its format.
fn mutated(good: &[u8], rng: &mut Rng, head: usize, special: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=rng.below(4) {
        let reach = if rng.below(3) > 0 { head.min(bytes.len()) } else { bytes.len() };
        let at = rng.below(reach.max(1));
        let end = (at + 1 + rng.below(12)).min(bytes.len());
        match rng.below(6) {
            _ if at >= bytes.len() => bytes.push(rng.below(256) as u8),
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = special[rng.below(special.len())],
            2 => bytes[at] = rng.below(256) as u8,
            3 => drop(bytes.drain(at..end)),
            4 => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// 10,000 damaged files: each is read or refused with an error that names it.
#[test]
fn mutated_files_never_panic() {
    let pickle = mnist_pickle(&Digits { train: 1, valid: 1, test: 1, ..Digits::default() });
    let (packed, idx) = (gzip(&pickle), idx_file(&[3, 4, 5], &[1; 60]));
    let opcodes = b"().0123NKMJGILFUTSCBXVct]leadsu}pqrghjRb\x80\x81\x82\x84\x85\x86\x87\x88\x89\x8a\x8b\x8e\x8f\x90\x93\x94\x95\x96";
    let mut accepted = [0; 3];
    for seed in 0..10_000 {
        let mut rng = Rng::new(seed);
        let path = Path::new("mutated");
        let (kind, error) = match seed % 10 {
            0 => {
                let gz = mutated(&packed, &mut rng, packed.len(), &[0, 255]);
                let unpack = gunzip_from(&gz[..], path, 1 << 20);
                (0, unpack.and_then(|unpacked| read_mnist_pickle(unpacked, path)).err())
            }
            1..=2 => (1, read_idx_from(&mutated(&idx, &mut rng, 16, &[0, 1, 8, 255])[..], path).err()),
            _ => (2, read_mnist_pickle(&mutated(&pickle, &mut rng, 200, opcodes)[..], path).err()),
        };
        match error {
            Some(error) => assert_helpful(&error, &["mutated, "]),
            None => accepted[kind] += 1,
        }
    }
    assert!(
        accepted.iter().sum::<i32>() < 2_000,
        "the mutations hardly damage anything: {accepted:?} accepted"
    );
}
