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
    /// The file does not begin as a gzip file does.
    NotGzip,
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
    /// A label that is no digit.
    BadLabel(i64),
    /// A pixel that is not a number from 0 to 1.
    BadPixel(f32),
    /// Not an IDX file, or one whose header cannot be true.
    BadIdx(String),
}

fn describe_fault(fault: &DataFault) -> (String, &'static str) {
    let again = "delete the file and fetch it again";
    let trusted = "get the file from a source that you trust";
    match fault {
        DataFault::Io(error) if error.kind() == io::ErrorKind::NotFound => {
            ("there is no such file".into(), "check the path, or fetch the file first")
        }
        DataFault::Io(error) => (error.to_string(), "check the file's permissions and its disk"),
        DataFault::Missing(remedy) => ("there is no such file".into(), remedy),
        DataFault::NotGzip => ("not a gzip file".into(), again),
        DataFault::CutShort => ("ends in the middle".into(), again),
        DataFault::Damaged(what) => (what.clone(), again),
        DataFault::PastLimit(limit) => (format!("unpacks to more than {limit} bytes"), trusted),
        DataFault::BadPickle(what) => (format!("no pickle, or a damaged one ({what})"), again),
        DataFault::ForbiddenName(name) => {
            (format!("names {name}, which is not allowed (nothing was run)"), trusted)
        }
        DataFault::TooDeep(limit) => (format!("nested more than {limit} levels deep"), trusted),
        DataFault::Structure(what) => (what.clone(), "check that this is the right file"),
        DataFault::BadLabel(label) => (format!("label {label} is no digit from 0 to 9"), again),
        DataFault::BadPixel(pixel) => (format!("pixel {pixel} is not between 0 and 1"), again),
        DataFault::BadIdx(what) => (what.clone(), "check that this is an IDX file of bytes"),
    }
}

/// A data file that cannot be used: which, where in it, and why.
#[derive(Debug)]
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
