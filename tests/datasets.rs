//! Fashion-MNIST from folders that are as they should be, and from others; images as arrays.

use md5::Md5;
use minai::array::Array;
use minai::datasets::{
    Digests, FASHION_FILES, FashionSplit, Images, OFFICIAL_SPLIT, OWN_SPLIT, SAMPLE_SPLIT, find_fashion_in,
    identify_split, load_fashion,
};
use minai::io::data::{DataError, DataFault};
use minai_tests::files::{gzip, idx_file};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

/// Three images to train with and two to test with: image i has the pixels i, i + 1, … and label i.
fn four_files() -> [Vec<u8>; 4] {
    let images = |n: u8| (0..n).flat_map(|i| (0..784_u32).map(move |j| (u32::from(i) + j) as u8));
    let images = |n: u8| idx_file(&[n.into(), 28, 28], &images(n).collect::<Vec<u8>>());
    let labels = |n: u8| idx_file(&[n.into()], &(0..n).collect::<Vec<u8>>());
    [images(3), labels(3), images(2), labels(2)]
}

/// What md5sum says of [`four_files`].
const MD5S: FashionSplit = FashionSplit {
    name: "split with MD5s",
    digests: Digests::Md5([
        "f9a582d6e6019203a48734a2c5129ebe",
        "2dab5672e75db8be26c5d98d167b573d",
        "19f575771e0ec6c9e648c73f1cd4eb75",
        "2210151d4a7b9cf10578f539021869ac",
    ]),
};

fn hex<D: Digest>(bytes: &[u8]) -> &'static str {
    let digits: String = D::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    digits.leak()
}

/// A folder with these four files, and the split that is recognised by their SHA-256s.
fn folder_with(files: &[Vec<u8>; 4]) -> (tempfile::TempDir, FashionSplit) {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path(), files);
    let digests = std::array::from_fn(|at| hex::<Sha256>(&files[at]));
    (folder, FashionSplit { name: "split of a test", digests: Digests::Sha256(digests) })
}

fn write_files(folder: &Path, files: &[Vec<u8>; 4]) {
    fs::create_dir_all(folder).unwrap();
    FASHION_FILES.iter().zip(files).for_each(|(name, file)| fs::write(folder.join(name), file).unwrap());
}

fn sample_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/fashion-mnist-sample")
}

fn assert_says(error: &DataError, parts: &[&str]) {
    let text = error.to_string();
    parts.iter().for_each(|part| assert!(text.contains(part), "{part:?} is not in: {text}"));
}

#[test]
fn a_split_of_ones_own_is_recognised_by_its_sha256s() {
    for files in [four_files(), four_files().map(|file| gzip(&file))] {
        let (folder, mine) = folder_with(&files);
        let fashion = load_fashion(folder.path(), &[OFFICIAL_SPLIT, OWN_SPLIT, mine]).unwrap();
        assert_eq!(fashion.split, mine);
        assert!(fashion.to_string().contains("split of a test: 3 images to train with, 2 to test with"));
        assert_eq!(
            (fashion.train.images.shape(), fashion.test.labels.shape()),
            (&[3, 1, 28, 28][..], &[2][..])
        );
        assert_eq!(fashion.train.images[[2, 0, 0, 3]], 5.0 / 255.0);
        assert_eq!(fashion.train.images[[0, 0, 9, 3]], 1.0, "pixel 255");
        assert_eq!(fashion.train.labels, Array::new(vec![0, 1, 2], &[3]));
    }
}

#[test]
fn a_split_is_recognised_by_its_md5s() {
    let files = four_files();
    let (folder, _) = folder_with(&files);
    assert_eq!(MD5S.digests, Digests::Md5(std::array::from_fn(|at| hex::<Md5>(&files[at]))));
    assert_eq!(identify_split(folder.path(), &[OFFICIAL_SPLIT, MD5S]).unwrap(), MD5S);
}

#[test]
fn the_sample_is_the_sample() {
    let fashion = load_fashion(&sample_folder(), &[OFFICIAL_SPLIT, OWN_SPLIT, SAMPLE_SPLIT]).unwrap();
    assert_eq!(fashion.split, SAMPLE_SPLIT);
    for (set, count) in [(fashion.train, 600), (fashion.test, 100)] {
        let counts = (0..10).map(|class| set.labels.iter().filter(|&&label| label == class).count());
        assert_eq!(counts.collect::<Vec<_>>(), [count; 10]);
    }
}

#[test]
fn files_of_no_known_split_are_refused() {
    let error = identify_split(&sample_folder(), &[OFFICIAL_SPLIT, OWN_SPLIT]).unwrap_err();
    assert!(matches!(error.fault, DataFault::Structure(_)));
    assert_says(&error, &["fashion-mnist-sample", "official split, own split"]);
}

#[test]
fn a_damaged_file_and_a_missing_one_are_named() {
    let files = four_files();
    for (damaged, name) in FASHION_FILES.iter().enumerate().take(3) {
        let (folder, mine) = folder_with(&files);
        let mut wrong = files[damaged].clone();
        *wrong.last_mut().unwrap() ^= 1;
        fs::write(folder.path().join(name), &wrong).unwrap();
        let error = load_fashion(folder.path(), &[mine]).unwrap_err();
        assert!(matches!(error.fault, DataFault::Damaged(_)));
        let digests = [hex::<Sha256>(&wrong), hex::<Sha256>(&files[damaged])];
        assert_says(&error, &[name, digests[0], digests[1], "delete the file and fetch it again"]);
    }
    for name in FASHION_FILES {
        let (folder, mine) = folder_with(&files);
        fs::remove_file(folder.path().join(name)).unwrap();
        assert_says(&load_fashion(folder.path(), &[mine]).unwrap_err(), &[name, "there is no such file"]);
    }
}

#[test]
fn right_digests_do_not_make_idx_files() {
    let [x, y, a, b] = four_files();
    let small = idx_file(&[3, 4, 4], &[7; 48]);
    let eleven = idx_file(&[3], &[0, 10, 1]);
    let cut = x[..500].to_vec();
    let cases = [
        ([b"hello".to_vec(), y.clone(), a.clone(), b.clone()], "train-images-idx3-ubyte.gz, byte 0"),
        ([cut, y.clone(), a.clone(), b.clone()], "element 484 of 2352"),
        ([small, y.clone(), a.clone(), b.clone()], "shape [3, 4, 4] where (n, 28, 28) belongs"),
        ([x.clone(), eleven, a.clone(), b.clone()], "label 10 is no digit"),
        ([x, y.clone(), a, y], "labels of shape [3] for images of shape [2, 28, 28]"),
    ];
    for (files, says) in cases {
        let (folder, mine) = folder_with(&files);
        assert_says(&load_fashion(folder.path(), &[mine]).unwrap_err(), &[says]);
    }
}

#[test]
fn files_with_a_dot_in_their_names_are_read_and_unpacked_ones_named() {
    let files = four_files().map(|file| gzip(&file));
    let (folder, mine) = folder_with(&files);
    let dotted = |name: &str| name.replace("-idx", ".idx");
    for name in FASHION_FILES {
        fs::rename(folder.path().join(name), folder.path().join(dotted(name))).unwrap();
    }
    let place = [folder.path().to_path_buf()];
    assert_eq!(find_fashion_in(&place, true).unwrap(), folder.path().join(""));
    assert_eq!(load_fashion(folder.path(), &[mine]).unwrap().train.len(), 3);
    for (name, file) in FASHION_FILES.iter().zip(four_files()) {
        fs::remove_file(folder.path().join(dotted(name))).unwrap();
        fs::write(folder.path().join(name.trim_end_matches(".gz")), file).unwrap();
    }
    assert_eq!(find_fashion_in(&place, true).unwrap(), folder.path().join(""));
    assert_says(&load_fashion(folder.path(), &[mine]).unwrap_err(), &["were unpacked", "split of a test"]);
}

#[test]
fn who_has_no_clothes_is_told_how_to_get_them() {
    for full in [true, false] {
        let error = find_fashion_in(&[], full).unwrap_err();
        assert_says(&error, &["MINAI_DATA, which is not set", "fashion_download::fetch_fashion"]);
    }
}

#[test]
fn where_fashion_mnist_is_looked_for() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let folders = [first.path().to_path_buf(), second.path().to_path_buf()];
    let error = find_fashion_in(&folders, true).unwrap_err();
    let place = folders[1].join("fashion-mnist-own").display().to_string();
    assert_says(&error, &["train-images-idx3-ubyte.gz", &place, "lesson 7 does it", "MINAI_DATA"]);
    assert!(matches!(find_fashion_in(&folders, false).unwrap_err().fault, DataFault::Missing(_)));

    // Each place is found before those that were filled earlier.
    let inner = ["", "fashion-mnist-own", "fashion-mnist"];
    for folder in [folders[1].clone(), folders[0].clone()] {
        for name in inner {
            write_files(&folder.join(name), &four_files());
            assert_eq!(find_fashion_in(&folders, true).unwrap(), folder.join(name));
        }
    }
    fs::remove_file(folders[0].join("fashion-mnist").join(FASHION_FILES[2])).unwrap();
    assert_eq!(find_fashion_in(&folders, true).unwrap(), folders[0].join("fashion-mnist-own"));
    write_files(&folders[1].join("fashion-mnist-sample"), &four_files());
    assert_eq!(find_fashion_in(&folders, false).unwrap(), folders[1].join("fashion-mnist-sample"));
}

fn ten_images() -> Images {
    let pixels = (0..10 * 2 * 3).map(|i| i as f32).collect();
    Images::new(Array::new(pixels, &[10, 1, 2, 3]), Array::new((0..10).map(|i| i % 4).collect(), &[10]))
}

#[test]
fn images_are_divided_without_a_copy_and_selected_with_one() {
    let all = ten_images();
    let (front, back) = all.split_at(7);
    assert_eq!((front.len(), back.len(), all.split_at(10).1.is_empty()), (7, 3, true));
    assert_eq!(back.images.as_ptr(), all.images.as_slice().unwrap()[42..].as_ptr());
    assert_eq!(back.iter().next().unwrap(), (3, &[42.0, 43.0, 44.0, 45.0, 46.0, 47.0][..]));

    let some = back.select(&[2, 0, 2]);
    assert_eq!(some.labels, Array::new(vec![1, 3, 1], &[3]));
    assert_eq!(some.images.shape(), [3, 1, 2, 3]);
    assert_eq!((some.images[[0, 0, 0, 0]], some.images[[1, 0, 1, 2]]), (54.0, 47.0));

    fn shared_by_threads<T: Send + Sync>(_: &T) {}
    shared_by_threads(&all);
}

#[test]
fn normalised_images_have_mean_0_and_deviation_1() {
    let all = ten_images();
    let (mean, std) = all.mean_std();
    assert_eq!((mean, std), (29.5, (3599.0_f32 / 12.0).sqrt()));
    let normal = all.clone().normalized(mean, std);
    let (zero, one) = normal.mean_std();
    assert!(zero.abs() < 1e-6 && (one - 1.0).abs() < 1e-6);
    assert_eq!(all, ten_images(), "images that are shared stay as they are");
}

#[test]
#[should_panic = "images of shape [10, 1, 2, 3] and labels of shape [9]"]
fn images_want_as_many_labels() {
    Images::new(ten_images().images, Array::new(vec![0; 9], &[9]));
}

#[test]
#[should_panic = "split_at: 11 of 10 images"]
fn more_images_than_there_are() {
    ten_images().split_at(11);
}

#[test]
#[should_panic = "a standard deviation of 0"]
fn constant_images_cannot_be_normalised() {
    let black = Images::new(Array::new(vec![0.0; 4], &[1, 1, 2, 2]), Array::new(vec![0], &[1]));
    let (mean, std) = black.mean_std();
    black.normalized(mean, std);
}
