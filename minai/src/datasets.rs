// Owned by notebooks/07_datasets.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash f3d5b324511ec28f
//! MNIST and Fashion-MNIST as [`Images`], and which split of it one has; normalisation; loaders.

// %% notebooks/07_datasets.ipynb sp-files
/// The four files of Fashion-MNIST: images and labels to train with, images and labels to test with.
pub const FASHION_FILES: [&str; 4] = [
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
];

/// What the labels 0 to 9 of Fashion-MNIST stand for.
pub const FASHION_CLASSES: [&str; 10] = [
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
];

// %% notebooks/07_datasets.ipynb sp-types
/// The digests of four files, in the order of [`FASHION_FILES`], in hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digests {
    /// MD5s, 32 digits each: what was published for the official files.
    Md5([&'static str; 4]),
    /// SHA-256s, 64 digits each.
    Sha256([&'static str; 4]),
}

/// One way to divide images of Fashion-MNIST into those to train with and those to test with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FashionSplit {
    /// What outputs call it.
    pub name: &'static str,
    /// What its files are recognised by.
    pub digests: Digests,
}

// %% notebooks/07_datasets.ipynb sp-digest
use md5::Md5;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

fn digest_of<D: Digest>(path: &Path) -> io::Result<String> {
    let (mut file, mut digest, mut block) = (File::open(path)?, D::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            count => digest.update(&block[..count]),
        }
    }
}

// %% notebooks/07_datasets.ipynb sp-mismatch
impl FashionSplit {
    /// What is wrong with a file that should be number `at` of [`FASHION_FILES`], or `None` if it is that file.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn mismatch(&self, at: usize, path: &Path) -> io::Result<Option<String>> {
        let (kind, wanted, found) = match self.digests {
            Digests::Md5(digests) => ("MD5", digests[at], digest_of::<Md5>(path)?),
            Digests::Sha256(digests) => ("SHA-256", digests[at], digest_of::<Sha256>(path)?),
        };
        let name = self.name;
        Ok((found != wanted).then(|| format!("its {kind} is {found} where {wanted} belongs in the {name}")))
    }
}

// %% notebooks/07_datasets.ipynb sp-official
/// The split that Zalando publishes and that papers report on; MD5s from the data set's own page.
pub const OFFICIAL_SPLIT: FashionSplit = FashionSplit {
    name: "official split",
    digests: Digests::Md5([
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ]),
};

// %% notebooks/07_datasets.ipynb sp-own
/// The course's own split, of the 70,000 images as released before September 2017, shuffled: numbers found on it
/// are near those of papers, not equal.
pub const OWN_SPLIT: FashionSplit = FashionSplit {
    name: "own split",
    digests: Digests::Sha256([
        "7459d2e9e65c2d8a69479333e459f568ca4d03db8908d7866a4bd404386c616e",
        "bed6dbc9f639895de320b6bed590f55f88cb3fa46e87858fef1ecab22d6cac17",
        "c2a6c3e093bea0e708476f314eead1fcb272c2b85ad511deeea290297a0d9e0c",
        "2e12656e54e9cf179c5379686e0fa04ae433fd6ca1dd54cee4967151e83d67a1",
    ]),
};

/// The first 600 and 100 images of each class of the own split, which come with the course.
pub const SAMPLE_SPLIT: FashionSplit = FashionSplit {
    name: "sample of the own split",
    digests: Digests::Sha256([
        "596feb0743c60e43baa89ddc0491db02aba03e0d8a1048d5d1dd6a6ee842aad9",
        "2a7a1f6570ed28e265cf1fb923198c66ccd80b97a0cbb77ad31204fba5739ec0",
        "bcd3104125a236cb8248537ebe6213edd9781c70cfb61c45c356bf975eed2e09",
        "32bd3855a852cca3900635183a2f6d57d52d405e4ff7985a00905d701d88701c",
    ]),
};

// %% notebooks/07_datasets.ipynb sp-known
/// The splits that [`fashion_mnist`] takes.
pub const KNOWN_SPLITS: [FashionSplit; 3] = [OFFICIAL_SPLIT, OWN_SPLIT, SAMPLE_SPLIT];

// %% notebooks/07_datasets.ipynb sp-in-folder
use minai::io::data::{DataError, DataFault};
use minai::io::idx::find_idx;

fn data_fault(path: &Path, place: &str, fault: DataFault) -> DataError {
    DataError { path: path.to_path_buf(), place: place.into(), fault }
}

/// What is wrong with file number `at` of a folder, if it should be of this split.
fn mismatch_in(folder: &Path, at: usize, split: &FashionSplit) -> Result<Option<String>, DataError> {
    let name = FASHION_FILES[at];
    let path = find_idx(folder, name).unwrap_or_else(|| folder.join(name));
    split.mismatch(at, &path).map_err(|error| data_fault(&path, "reading", DataFault::Io(error)))
}

// %% notebooks/07_datasets.ipynb sp-no-split
/// The error for four files of no known split. What was unpacked has other digests than what was published.
fn no_split(folder: &Path, known: &[FashionSplit]) -> DataError {
    let names: Vec<&str> = known.iter().map(|split| split.name).collect();
    let zipped = |path: PathBuf| path.extension().is_some_and(|end| end == "gz");
    let hint = match find_idx(folder, FASHION_FILES[3]).is_none_or(zipped) {
        true => "",
        false => "; they were unpacked, and splits are known by the gzipped files (io::idx reads both)",
    };
    let what = format!("the four files are none of these: {}{hint}", names.join(", "));
    data_fault(folder, "digests", DataFault::Structure(what))
}

// %% notebooks/07_datasets.ipynb sp-identify
/// Which of the known splits the four files of a folder are: the smallest file says which, and all must agree.
///
/// # Errors
/// When a file is missing, is of no known split, or is not of the same split as the others.
pub fn identify_split(folder: &Path, known: &[FashionSplit]) -> Result<FashionSplit, DataError> {
    let mut found = None;
    for split in known {
        if found.is_none() && mismatch_in(folder, 3, split)?.is_none() {
            found = Some(*split);
        }
    }
    let split = found.ok_or_else(|| no_split(folder, known))?;
    for (at, name) in FASHION_FILES.iter().enumerate() {
        if let Some(what) = mismatch_in(folder, at, &split)? {
            return Err(data_fault(&folder.join(name), "digest", DataFault::Damaged(what)));
        }
    }
    Ok(split)
}

// %% notebooks/07_datasets.ipynb im-remedies
use minai::io::data::places_text;

const FULL_REMEDY: &str = "fetch the four files with minai::fashion_download::fetch_fashion into data/fashion-mnist \
    (lesson 7 does it), or name their folder in MINAI_DATA";
const SAMPLE_REMEDY: &str = "name a folder that has that folder in MINAI_DATA (the course's repository has one, called data), \
    or fetch all of it with minai::fashion_download::fetch_fashion and read it with load_fashion";

// %% notebooks/07_datasets.ipynb im-find-in
/// The first of these folders that has, in a folder of Fashion-MNIST's, all four files:
/// `fashion-mnist` (official), `fashion-mnist-own` or the folder itself if `full`; else `fashion-mnist-sample`.
///
/// # Errors
/// As for [`find_fashion`].
pub fn find_fashion_in(folders: &[PathBuf], full: bool) -> Result<PathBuf, DataError> {
    let (inner, remedy): (&[&str], _) = match full {
        true => (&["fashion-mnist", "fashion-mnist-own", ""], FULL_REMEDY),
        false => (&["fashion-mnist-sample"], SAMPLE_REMEDY),
    };
    let complete = |folder: &PathBuf| FASHION_FILES.iter().all(|name| find_idx(folder, name).is_some());
    let places = folders.iter().flat_map(|folder| inner.iter().map(move |name| folder.join(name)));
    places.clone().find(complete).ok_or_else(|| {
        let place = format!("with three others {}", places_text(&places.collect::<Vec<_>>()));
        data_fault(Path::new(FASHION_FILES[0]), &place, DataFault::Missing(remedy))
    })
}

// %% notebooks/07_datasets.ipynb im-find
use minai::io::data::data_folder;
use std::env;

/// Whether the environment asks for full data and long training: `MINAI_FULL=1`.
pub fn wants_full() -> bool {
    env::var("MINAI_FULL").is_ok_and(|wish| !["", "0"].contains(&wish.as_str()))
}

/// Where data is looked for: the folder `MINAI_DATA`, if there is one, and [`data_folder`].
pub fn data_folders() -> Vec<PathBuf> {
    let own = env::var_os("MINAI_DATA").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    own.into_iter().chain(data_folder()).collect()
}

/// The folder of Fashion-MNIST to use: the sample, or with `MINAI_FULL=1` the official files or the own split,
/// in the first of the [`data_folders`] that has them; see [`find_fashion_in`].
///
/// # Errors
/// When there is none: the error names the places and says how to get it.
pub fn find_fashion() -> Result<PathBuf, DataError> {
    find_fashion_in(&data_folders(), wants_full())
}

// %% notebooks/07_datasets.ipynb im-struct
use minai::array::Array;
use minai::loader::rows;

/// Images and their labels. Arrays share their buffers, so that a clone costs nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Images {
    /// Shape (n, channels, height, width).
    pub images: Array,
    /// Shape (n,): the class of each image, counted from 0.
    pub labels: Array<i64>,
}

// %% notebooks/07_datasets.ipynb im-new
/// Shapes that belong together: (n, c, h, w) and (n,).
#[track_caller]
fn check_images(x: &[usize], y: &[usize]) {
    let what = format!("images of shape {x:?} and labels of shape {y:?}");
    assert!(x.len() == 4 && y == &x[..1], "Images::new: {what} where (n, c, h, w) and (n,) belong");
}

impl Images {
    /// Images with their labels.
    ///
    /// # Panics
    /// If `images` is not of rank 4, or `labels` not of rank 1 and as long.
    #[track_caller]
    pub fn new(images: Array, labels: Array<i64>) -> Images {
        check_images(images.shape(), labels.shape());
        Images { images, labels }
    }
}

// %% notebooks/07_datasets.ipynb im-select
fn count(images: &Images) -> usize {
    images.labels.len()
}

impl Images {
    /// How many there are.
    pub fn len(&self) -> usize {
        count(self)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// A copy of the images of these numbers, in this order; a number may come more than once.
    ///
    /// # Panics
    /// If there is no image of a number.
    #[track_caller]
    pub fn select(&self, indices: &[usize]) -> Images {
        Images { images: rows(&self.images, indices), labels: rows(&self.labels, indices) }
    }
}

// %% notebooks/07_datasets.ipynb im-iter
fn pixels(images: &Images) -> &[f32] {
    images.images.as_slice().expect("made in row-major order")
}

impl Images {
    /// Label and pixels of each image, in order: what `plot::show_images` takes.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &[f32])> {
        let size = self.images.shape()[1..].iter().product();
        self.labels.iter().copied().zip(pixels(self).chunks(size))
    }
}

// %% notebooks/07_datasets.ipynb im-bytes
use ndarray::{Array1, ArrayD};

/// Bytes of shape (n, h, w), from 0 to 255, as images of one channel with pixels from 0 to 1.
fn images_from_bytes(bytes: &ArrayD<u8>, labels: Array1<i64>) -> Images {
    let (n, pixels) = (labels.len(), bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect());
    let shape = [n, 1, bytes.shape()[1], bytes.shape()[2]];
    Images::new(Array::new(pixels, &shape), Array::new(labels.to_vec(), &[n]))
}

// %% notebooks/07_datasets.ipynb im-fashion
use std::fmt;

/// Fashion-MNIST: grey pictures of ten kinds of clothes, 28 pixels wide and high, from 0 (background) to 1
/// (Xiao, Rasul and Vollgraf, 2017, <https://arxiv.org/abs/1708.07747>).
#[derive(Clone, Debug)]
pub struct Fashion {
    /// To train with.
    pub train: Images,
    /// To test with.
    pub test: Images,
    /// Which split this is.
    pub split: FashionSplit,
}

impl fmt::Display for Fashion {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (train, test) = (self.train.len(), self.test.len());
        write!(f, "Fashion-MNIST, {}: {train} images to train with, {test} to test with", self.split.name)
    }
}

// %% notebooks/07_datasets.ipynb im-load
use minai::io::idx::load_idx_pair;

/// Reads the four files in a folder, if they are one of the known splits.
///
/// # Errors
/// As for [`identify_split`], and when a file is not what its name says.
pub fn load_fashion(folder: &Path, known: &[FashionSplit]) -> Result<Fashion, DataError> {
    let split = identify_split(folder, known)?;
    let [train, test] = [0, 2].map(|at| {
        let images = folder.join(FASHION_FILES[at]);
        let (x, y) = load_idx_pair(&images, &folder.join(FASHION_FILES[at + 1]), 10)?;
        match x.shape() {
            [_, 28, 28] => Ok(images_from_bytes(&x, y)),
            shape => {
                let what = format!("images of shape {shape:?} where (n, 28, 28) belongs");
                Err(data_fault(&images, "header", DataFault::Structure(what)))
            }
        }
    });
    Ok(Fashion { train: train?, test: test?, split })
}

// %% notebooks/07_datasets.ipynb im-fashion-mnist
/// Fashion-MNIST from [`find_fashion`]'s folder: the sample, unless `MINAI_FULL=1`. Its `split` says what it is.
///
/// # Errors
/// As for [`find_fashion`] and [`load_fashion`].
pub fn fashion_mnist() -> Result<Fashion, DataError> {
    load_fashion(&find_fashion()?, &KNOWN_SPLITS)
}

// %% notebooks/07_datasets.ipynb im-mnist-struct
/// MNIST as lesson 1's file has it: digits from 0 (paper) to 1 (ink).
#[derive(Clone, Debug)]
pub struct Mnist {
    /// To train with.
    pub train: Images,
    /// To choose by.
    pub valid: Images,
    /// To test with, once.
    pub test: Images,
}

impl fmt::Display for Mnist {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let name = if self.train.len() == 50_000 { "MNIST" } else { "sample of MNIST" };
        let (train, valid, test) = (self.train.len(), self.valid.len(), self.test.len());
        write!(f, "{name}: {train} images to train with, {valid} to validate with, {test} to test with")
    }
}

// %% notebooks/07_datasets.ipynb im-mnist
use minai::io::mnist::{find_mnist, load_mnist};

/// MNIST: the sample, or with `MINAI_FULL=1` the full file, from where [`find_mnist`] finds it.
///
/// # Errors
/// As for [`find_mnist`] and [`load_mnist`].
pub fn mnist() -> Result<Mnist, DataError> {
    let (train, valid, test) = load_mnist(&find_mnist()?)?;
    let [train, valid, test] = [train, valid, test].map(|(x, y)| {
        let (n, pixels) = (y.len(), x.into_raw_vec_and_offset().0);
        Images::new(Array::new(pixels, &[n, 1, 28, 28]), Array::new(y.to_vec(), &[n]))
    });
    Ok(Mnist { train, valid, test })
}

// %% notebooks/07_datasets.ipynb lo-counts
/// How many labels there are of each class, from class 0 to the highest.
///
/// # Panics
/// If a label is negative.
#[track_caller]
pub fn class_counts(labels: &Array<i64>) -> Vec<usize> {
    let mut counts = Vec::new();
    for &label in labels.iter() {
        let class = usize::try_from(label).unwrap_or_else(|_| panic!("class_counts: a label of {label}"));
        if class >= counts.len() {
            counts.resize(class + 1, 0);
        }
        counts[class] += 1;
    }
    counts
}

// %% notebooks/07_datasets.ipynb no-deviation
/// Mean and standard deviation, summed in `f64`: tens of millions of `f32` summands would round the sum away.
fn mean_and_deviation(numbers: &[f32]) -> (f64, f64) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let squares = numbers.iter().map(|&x| (f64::from(x) - mean).powi(2));
    (mean, (squares.sum::<f64>() / count).sqrt())
}

impl Images {
    /// Mean and standard deviation over all pixels of all images.
    pub fn mean_std(&self) -> (f32, f32) {
        let (mean, std) = mean_and_deviation(self.images.as_slice().expect("made in row-major order"));
        (mean as f32, std as f32)
    }
}

// %% notebooks/07_datasets.ipynb no-mean-std
#[track_caller]
fn check_deviation(std: f32) {
    assert!(std > 0.0, "Images::normalized: a standard deviation of {std}");
}

impl Images {
    /// The images with (pixel - mean) / std in place of each pixel; nothing is copied if nobody shares them.
    ///
    /// # Panics
    /// If `std` is not above 0.
    #[track_caller]
    pub fn normalized(mut self, mean: f32, std: f32) -> Images {
        check_deviation(std);
        self.images.mapv_inplace(|pixel| (pixel - mean) / std);
        self
    }
}

// %% notebooks/07_datasets.ipynb no-sets
/// Mean and standard deviation of the first set, applied to all of them.
fn normalize_by_first<const N: usize>(sets: [Images; N]) -> [Images; N] {
    let (mean, std) = sets[0].mean_std();
    sets.map(|set| set.normalized(mean, std))
}

impl Fashion {
    /// Both sets normalised by mean and standard deviation of the training set.
    pub fn normalized(self) -> Fashion {
        let [train, test] = normalize_by_first([self.train, self.test]);
        Fashion { train, test, split: self.split }
    }
}

impl Mnist {
    /// All sets normalised by mean and standard deviation of the training set.
    pub fn normalized(self) -> Mnist {
        let [train, valid, test] = normalize_by_first([self.train, self.valid, self.test]);
        Mnist { train, valid, test }
    }
}

// %% notebooks/07_datasets.ipynb va-split
use ndarray::{Axis, Slice};

fn section<T: Clone>(array: &Array<T>, from: usize, to: usize) -> Array<T> {
    let mut part = array.clone(); // shares the buffer, of which it then shows less
    part.slice_axis_inplace(Axis(0), Slice::from(from..to));
    part
}

impl Images {
    /// The first `at` images, and the others. Nothing is copied.
    ///
    /// # Panics
    /// If there are fewer than `at`.
    #[track_caller]
    pub fn split_at(&self, at: usize) -> (Images, Images) {
        let n = self.len();
        assert!(at <= n, "Images::split_at: {at} of {n} images");
        let part = |from, to| Images {
            images: section(&self.images, from, to),
            labels: section(&self.labels, from, to),
        };
        (part(0, at), part(at, n))
    }
}

// %% notebooks/07_datasets.ipynb ba-batch
use minai::generator::Generator;
use minai::loader::Dataset;

/// Images (n, c, h, w) and their labels (n,).
pub type ImageBatch = (Array, Array<i64>);

impl Dataset for Images {
    type Batch = ImageBatch;

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn batch(&self, indices: &[usize], _: &mut Generator) -> ImageBatch {
        (rows(&self.images, indices), rows(&self.labels, indices))
    }
}

// %% notebooks/07_datasets.ipynb dl-struct
use minai::loader::{DataLoader, Last, LoaderOptions, Order};

/// A loader to train with and one to validate with.
pub struct DataLoaders<T, V = T> {
    /// To train with.
    pub train: DataLoader<T>,
    /// To validate with.
    pub valid: DataLoader<V>,
}

impl<T: Dataset, V: Dataset> DataLoaders<T, V> {
    /// A loader with these options for the first data set; for the second one that deals out everything, in order,
    /// in batches twice as large.
    pub fn new(train: T, valid: V, options: LoaderOptions) -> Self {
        let batch_size = 2 * options.batch_size;
        let in_order = LoaderOptions { batch_size, order: Order::Fixed, last: Last::Keep, ..options };
        DataLoaders { train: DataLoader::new(train, options), valid: DataLoader::new(valid, in_order) }
    }
}
