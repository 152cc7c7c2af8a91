//! Data files: where they lie, and an error that names file, place and remedy.

use std::path::{Path, PathBuf};
use std::{env, error, fmt, io};

/// What can be wrong with a data file.
#[derive(Debug)]
#[non_exhaustive]
pub enum DataFault {
    /// The operating system could not open or read the file.
    Io(io::Error),
    /// There is no such file in the folders looked through; this is how to get it.
    Missing(&'static str),
    /// The bytes do not begin as a gzip file does.
    NotGzip,
    /// A file of another format, which is known by its first bytes.
    OtherFormat {
        /// What it is, such as "a zip archive".
        found: &'static str,
        /// What was to be read.
        wanted: &'static str,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The file ends in the middle of something.
    CutShort,
    /// Compressed data or a checksum inside the file is wrong.
    Damaged(String),
    /// The content is larger than this limit, in bytes.
    PastLimit(u64),
    /// The bytes are not a pickle, or a pickle that breaks the rules.
    BadPickle(String),
    /// The pickle names something that is not on the list of allowed names.
    ForbiddenName(String),
    /// The pickle is nested deeper than this many levels.
    TooDeep(usize),
    /// A proper file, but of other content than expected.
    Structure(String),
    /// A label that is not from 0 up to (excluding) the number of classes.
    BadLabel {
        /// The label.
        label: i64,
        /// The number of classes.
        classes: usize,
    },
    /// A pixel that is not a number from 0 to 1.
    BadPixel(f32),
    /// Not an IDX file, or one whose header cannot be true.
    BadIdx(String),
}

fn describe_fault(fault: &DataFault) -> (String, &'static str) {
    let again = "delete the file and fetch it again";
    let right_file = "check that this is the right file";
    let trusted = "get the file from a source that you trust";
    match fault {
        DataFault::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            ("there is no such file".into(), "check the path, or fetch the file first")
        }
        DataFault::Io(error) => (error.to_string(), "check the file's permissions and its disk"),
        DataFault::Missing(remedy) => ("there is no such file".into(), remedy),
        DataFault::NotGzip => ("not a gzip file".into(), right_file),
        DataFault::OtherFormat { found, wanted, remedy } => (format!("{found}, not {wanted}"), remedy),
        DataFault::CutShort => ("ends in the middle".into(), again),
        DataFault::Damaged(what) => (what.clone(), again),
        DataFault::PastLimit(limit) => (format!("unpacks to more than {limit} bytes"), trusted),
        DataFault::BadPickle(what) => (format!("no pickle, or a damaged one ({what})"), again),
        DataFault::ForbiddenName(name) => {
            (format!("names {name}, which is not allowed (nothing was run)"), trusted)
        }
        DataFault::TooDeep(limit) => (format!("nested more than {limit} levels deep"), trusted),
        DataFault::Structure(what) => (what.clone(), right_file),
        DataFault::BadLabel { label, classes: 10 } => {
            (format!("label {label} is no digit from 0 to 9"), "check that the data has ten classes")
        }
        DataFault::BadLabel { label, classes } => {
            (format!("label {label} is no class below {classes}"), "check how many classes the data has")
        }
        DataFault::BadPixel(pixel) => (format!("pixel {pixel} is not between 0 and 1"), right_file),
        DataFault::BadIdx(what) => (what.clone(), "check that this is an IDX file of bytes"),
    }
}

/// A data file that cannot be used: which, where in it, and why.
pub struct DataError {
    /// The file.
    pub path: PathBuf,
    /// The place in the file: a byte offset, or a part such as "labels of train".
    pub place: String,
    /// What is wrong there.
    pub fault: DataFault,
}

pub(crate) fn data_error(path: &Path, place: impl Into<String>, fault: DataFault) -> DataError {
    DataError { path: path.to_path_buf(), place: place.into(), fault }
}

impl error::Error for DataError {}

// `fn main() -> Result<(), Box<dyn Error>>` prints an error by `Debug`, and so does `unwrap`. What helps there is the text.
impl fmt::Debug for DataError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (what, remedy) = describe_fault(&self.fault);
        write!(f, "{}, {}: {what}; {remedy}", self.path.display(), self.place)
    }
}

/// The course's folder `data`: the first one that holds the sample, looking upwards from the current folder.
pub fn data_folder() -> Option<PathBuf> {
    let start = env::current_dir().ok()?;
    let folders = start.ancestors().map(|folder| folder.join("data"));
    folders.into_iter().find(|folder| folder.join("mnist_sample.pkl.gz").is_file())
}

/// The folders that were looked through, as an error says it.
pub fn places_text(folders: &[PathBuf]) -> String {
    if folders.is_empty() {
        return "in MINAI_DATA, which is not set, and in a folder data of the course here or above".into();
    }
    let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    format!("in {}", folders.join(" or "))
}

/// How a web page begins, a placeholder of Git LFS, and other files that are given where data belongs: first bytes, what
/// the file is, what to do.
const OTHER_FORMATS: [(&[u8], &str, &str); 16] = [
    (b"<!DOCTYPE", "a web page", FETCH),
    (b"<!doctype", "a web page", FETCH),
    (b"<html", "a web page", FETCH),
    (b"<HTML", "a web page", FETCH),
    (b"version https://git-lfs", "a placeholder of Git LFS", "run `git lfs pull`"),
    (b"\x1f\x8b", "a gzip file", UNPACK),
    (b"PK\x03\x04", "a zip archive (or an .npz file)", UNPACK),
    (b"BZh", "a bzip2 file", UNPACK),
    (b"\xfd7zXZ", "an xz file", UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", UNPACK),
    (b"PAR1", "a Parquet file", CONVERT),
    (b"\x93NUMPY", "an .npy file of numpy", CONVERT),
    (b"\x89HDF", "an HDF5 file", CONVERT),
    (b"MATLAB 5.0", "a MATLAB file", CONVERT),
    (b"\x89PNG", "a PNG picture", "check that this is the right file"),
    (b"\xff\xd8\xff", "a JPEG picture", "check that this is the right file"),
];

const FETCH: &str =
    "check the address and the network (is it a login page?), delete the file and fetch it again";
const UNPACK: &str = "unpack it first";
const CONVERT: &str = "get the data in another format, or convert it";

/// The fault of a file that begins like this, if it is of a well-known format and not of the one that is wanted.
pub(crate) fn other_format(head: &[u8], wanted: &'static str) -> Option<DataFault> {
    let head = head.trim_ascii_start();
    let &(_, found, remedy) = OTHER_FORMATS.iter().find(|(first, ..)| head.starts_with(first))?;
    Some(DataFault::OtherFormat { found, wanted, remedy })
}
