//! Files: an error that names the file, and writing a file as a whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::{error, fmt};

/// A file that cannot be read, written or used: which one, what is wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// The file; empty if the data did not come from one.
    pub path: PathBuf,
    /// What is wrong, and what to do.
    pub what: String,
}

impl FileError {
    /// An error about a file.
    pub fn new(path: impl AsRef<Path>, what: impl Into<String>) -> Self {
        FileError { path: path.as_ref().to_path_buf(), what: what.into() }
    }

    /// The same error about this file: for errors raised before the file's path was known.
    pub fn of(self, path: impl AsRef<Path>) -> Self {
        FileError::new(path, self.what)
    }
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.path.as_os_str().is_empty() {
            true => write!(f, "{}", self.what),
            false => write!(f, "{}: {}", self.path.display(), self.what),
        }
    }
}

impl error::Error for FileError {}

/// What is wrong with a file that the system does not let us read.
pub(crate) fn unreadable(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "there is no such file; check the path, or fetch or save the file first".into()
        }
        _ => format!("{error}; check the file's permissions and its disk"),
    }
}

/// Opens a regular file, and says how many bytes it has.
pub(crate) fn open(path: &Path) -> Result<(File, u64), String> {
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    match about.is_file() {
        true => Ok((file, about.len())),
        false => Err("is a folder or a device; name a file".into()),
    }
}

/// Writes a file as a whole or not at all: what was there before stays until the new content is on the disk, and is then
/// replaced in one step.
///
/// `write` is given the new file, which is called as the old one with `.part` after it. Only one thread or process at a
/// time may write to a path.
///
/// # Errors
/// When the system refuses any of the steps. Then the old file is as it was, and nothing is left beside it.
pub fn write_at_once(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<()> {
    let part = part_of(path);
    let written = File::create(&part).and_then(|file| {
        let mut file = BufWriter::with_capacity(1 << 16, file);
        write(&mut file)?;
        file.flush()?;
        // On the disk before the renaming: otherwise a power failure may keep the new name and lose the content.
        file.get_ref().sync_all()
    });
    let replaced = written.and_then(|()| replace(&part, path));
    if replaced.is_err() {
        let _ = fs::remove_file(&part); // there may be none
    }
    replaced
}

/// The file beside `path` in which its new content is gathered: `data.gz.part` for `data.gz`.
pub(crate) fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part"); // not with_extension, which would make data.part of data.gz and of data.txt
    name.into()
}

/// Gives a finished part the file's name, and brings the folder, which holds that name, to the disk.
pub(crate) fn replace(part: &Path, path: &Path) -> io::Result<()> {
    fs::rename(part, path)?;
    sync_folder(path)
}

/// The folder that a file is in: `.` where the path has none.
pub(crate) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the folder of a file that is to be written, if there is none.
///
/// # Errors
/// When the system refuses; the error names the folder.
pub fn make_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(|error| FileError::new(folder, format!("cannot be made: {error}")))
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}
