//! Gzip files that may be damaged, cut short or hostile: read as a stream, with a limit.

use super::data::{DataError, DataFault, data_error, other_format};
use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

fn gzip_fault(error: io::Error) -> DataFault {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => DataFault::CutShort,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => DataFault::Damaged(error.to_string()),
        _ => DataFault::Io(error),
    }
}

/// A stream of unpacked bytes, made by [`gunzip`]; its errors are [`DataError`]s inside [`io::Error`]s.
#[derive(Debug)]
pub struct Gunzip<R: Read> {
    unpacker: MultiGzDecoder<BufReader<R>>,
    path: PathBuf,
    count: u64,
    limit: u64,
}

impl<R: Read> Read for Gunzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.unpacker.read(buffer) {
            Ok(got) if self.count + got as u64 > self.limit => {
                Err(self.fail(DataFault::PastLimit(self.limit)))
            }
            Ok(got) => {
                self.count += got as u64;
                Ok(got)
            }
            Err(error) => Err(self.fail(gzip_fault(error))),
        }
    }
}

impl<R: Read> Gunzip<R> {
    fn fail(&self, fault: DataFault) -> io::Error {
        io::Error::other(data_error(&self.path, format!("unpacked byte {}", self.count), fault))
    }
}

/// Unpacks anything that can be read, to at most `limit` bytes; `path` is what errors call it.
///
/// # Errors
/// As for [`gunzip`].
pub fn gunzip_from<R: Read>(packed: R, path: &Path, limit: u64) -> Result<Gunzip<R>, DataError> {
    let mut packed = BufReader::with_capacity(1 << 18, packed);
    match packed.fill_buf() {
        Err(error) => Err(data_error(path, "byte 0", DataFault::Io(error))),
        Ok([0x1f, 0x8b, ..]) => {
            Ok(Gunzip { unpacker: MultiGzDecoder::new(packed), path: path.to_path_buf(), count: 0, limit })
        }
        Ok([] | [0x1f]) => Err(data_error(path, "byte 0", DataFault::CutShort)),
        Ok(_) => Err(data_error(path, "byte 0", DataFault::NotGzip)),
    }
}

/// Opens a gzip file to be read unpacked, with at most `limit` bytes coming out.
///
/// # Errors
/// When the file cannot be opened or does not begin as a gzip file; later, while reading, when it is damaged,
/// cut short or larger than the limit: then the [`io::Error`] carries a [`DataError`].
pub fn gunzip(path: &Path, limit: u64) -> Result<Gunzip<File>, DataError> {
    let fail = |error| data_error(path, "opening", DataFault::Io(error));
    gunzip_from(File::open(path).map_err(fail)?, path, limit)
}

/// The content of a file, unpacked if it is gzipped; what comes out is at most `limit` bytes long then.
///
/// `wanted` says what the content should be, for errors.
///
/// # Errors
/// When the file cannot be opened, is empty, or is known to be of another format; later, while reading, as for [`gunzip`].
pub(crate) fn open_unpacked(
    path: &Path,
    limit: u64,
    wanted: &'static str,
) -> Result<Box<dyn Read>, DataError> {
    let fail = |error| data_error(path, "opening", DataFault::Io(error));
    let mut file = BufReader::with_capacity(1 << 18, File::open(path).map_err(fail)?);
    let fault = match file.fill_buf().map_err(fail)? {
        [0x1f, 0x8b, ..] => return Ok(Box::new(gunzip_from(file, path, limit)?)),
        [] | [0x1f] => Some(DataFault::CutShort),
        head => other_format(head, wanted),
    };
    match fault {
        Some(fault) => Err(data_error(path, "byte 0", fault)),
        None => Ok(Box::new(file)),
    }
}
