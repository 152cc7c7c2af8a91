//! Fetching files over HTTP: once, resumably, checked.
//!
//! [`fetch`] writes into a part file, goes on there when it is called again, and renames it when size and checksum are
//! right. It tries again where that can help, and leaves an existing file alone until the new one is complete.

use super::file;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{error, fmt};
use ureq::{Agent, Body, http::Response};

/// What can go wrong with a download.
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchFault {
    /// The server cannot be reached: no network, no such host, connection refused, no answer in time.
    Offline(String),
    /// The server answered with this HTTP status instead of the file.
    Status(u16),
    /// The answer makes no sense, or the server's certificate does not hold.
    BadAnswer(String),
    /// The connection ended or stalled after so many bytes. They are kept, and the next call goes on there.
    CutShort(u64, String),
    /// What came is not the file that was asked for.
    WrongContent(String),
    /// The file cannot be written.
    Disk(io::Error),
}

/// Whether the same request may succeed in a moment.
fn is_passing(fault: &FetchFault) -> bool {
    matches!(fault, FetchFault::CutShort(..) | FetchFault::Status(408 | 425 | 429 | 500..=599))
}

fn describe_fetch_fault(fault: &FetchFault) -> (String, &'static str) {
    match fault {
        FetchFault::Offline(why) => (format!("not reached ({why})"), "check the network and try again"),
        FetchFault::Status(404 | 410) => ("there is no such file on the server".into(), "check the address"),
        FetchFault::Status(status) => {
            (format!("the server answered with status {status}"), "try again later")
        }
        FetchFault::BadAnswer(why) => {
            (format!("no usable answer ({why})"), "check the address and the network")
        }
        FetchFault::CutShort(bytes, why) => {
            (format!("cut short after {bytes} bytes ({why})"), "call again to go on there")
        }
        FetchFault::WrongContent(what) => {
            let kept = "nothing of it was kept, and a file that was there is untouched";
            (format!("{what} ({kept})"), "check the address and the network (is it a login page?)")
        }
        FetchFault::Disk(error) if is_disk_full(error) => {
            (error.to_string(), "make room and call again to go on there")
        }
        FetchFault::Disk(error) => (error.to_string(), "check the folder and its permissions"),
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// A file that was not fetched: from where, to where, and why.
pub struct FetchError {
    /// The address.
    pub url: String,
    /// The file that it should have become. An unfinished one is beside it, with `.part` at the end of its name.
    pub path: PathBuf,
    /// What went wrong.
    pub fault: FetchFault,
}

impl FetchError {
    /// Whether there is no way to the server at the moment, so that one should go on without the file.
    pub fn is_offline(&self) -> bool {
        matches!(self.fault, FetchFault::Offline(_))
    }
}

impl error::Error for FetchError {}

// `fn main() -> Result<(), Box<dyn Error>>` prints an error by `Debug`, and so does `unwrap`. What helps there is the text.
impl fmt::Debug for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (what, remedy) = describe_fetch_fault(&self.fault);
        write!(f, "{} to {}: {what}; {remedy}", self.url, self.path.display())
    }
}

/// A digest that a file must have, in hexadecimal.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Checksum {
    /// SHA-256, 64 digits.
    Sha256(String),
}

/// What [`fetch`] should insist on, and how patient it is.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// The file's size in bytes, if known.
    pub size: Option<u64>,
    /// The file's checksum, if known.
    pub checksum: Option<Checksum>,
    /// How often to ask altogether.
    pub tries: u32,
    /// How long to wait before asking again; twice as long each time.
    pub pause: Duration,
    /// How long finding and reaching the server may take.
    pub connect: Duration,
    /// How long the server may be silent.
    pub stall: Duration,
}

impl Default for FetchOptions {
    fn default() -> Self {
        let (pause, connect, stall) =
            (Duration::from_millis(500), Duration::from_secs(10), Duration::from_secs(30));
        Self { size: None, checksum: None, tries: 4, pause, connect, stall }
    }
}

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_hex(path: &Path) -> io::Result<String> {
    let (mut file, mut sha, mut block) = (File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut block)? {
            0 => {
                return Ok(sha.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
            }
            count => sha.update(&block[..count]),
        }
    }
}

/// What is wrong with the file, or `None` if it is as the options say.
fn file_mismatch(path: &Path, options: &FetchOptions) -> io::Result<Option<String>> {
    let size = fs::metadata(path)?.len();
    if let Some(wanted) = options.size.filter(|&wanted| wanted != size) {
        return Ok(Some(format!("{size} bytes came where {wanted} belong")));
    }
    let Some(Checksum::Sha256(wanted)) = &options.checksum else {
        return Ok(None);
    };
    let found = sha256_hex(path)?;
    let same = found.eq_ignore_ascii_case(wanted);
    Ok((!same).then(|| format!("its SHA-256 is {found} where {wanted} belongs")))
}

/// Asks for all from byte `from` on. The encoding is `identity`, because checksums and ranges are about the file's bytes. There
/// are limits for connecting and for silence, none for the whole: a large file on a slow line takes as long as it takes.
/// A status is no error, because 416 (nothing comes after that byte) is an answer that [`start_of`] understands.
fn ask_for(url: &str, from: u64, options: &FetchOptions) -> Result<Response<Body>, FetchFault> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .accept_encoding("identity")
        .timeout_resolve(Some(options.connect))
        .timeout_connect(Some(options.connect))
        .timeout_recv_response(Some(options.stall))
        .timeout_per_read(Some(options.stall))
        .build();
    let mut request = Agent::from(config).get(url);
    if from > 0 {
        request = request.header("Range", format!("bytes={from}-"));
    }
    request.call().map_err(|error| no_answer(error, from))
}

fn no_answer(error: ureq::Error, have: u64) -> FetchFault {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
    let why = error.to_string();
    let hung_up = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
    match error {
        Io(error) if hung_up.contains(&error.kind()) => FetchFault::CutShort(have, why),
        Io(_) | HostNotFound | ConnectionFailed | Timeout(_) => FetchFault::Offline(why),
        _ => FetchFault::BadAnswer(why),
    }
}

/// Takes `bytes 100-199/200`, `bytes 100-199/*` or `bytes */200` apart into start and total.
fn content_range(range: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (span, total) = range.trim().strip_prefix("bytes ")?.split_once('/')?;
    let start = match span {
        "*" => None,
        _ => Some(span.split_once('-')?.0.parse().ok()?),
    };
    Some((start, total.parse().ok()))
}

/// Where an answer's body belongs in the file.
#[derive(Debug, PartialEq)]
enum FetchStart {
    /// At byte `from` of `total`.
    At { from: u64, total: Option<u64> },
    /// Nowhere: the part file is complete.
    Complete,
    /// Nowhere: the part file is of no use.
    Afresh,
}

/// A server that answers 200 sends the whole file. A 206 must begin where it was asked to. A 416 to our question for the rest
/// means that there is none: the part is complete, or it is no part of this file.
fn start_of(response: &Response<Body>, asked: u64) -> Result<FetchStart, FetchFault> {
    let range = response.headers().get("content-range");
    let range = range.and_then(|range| content_range(range.to_str().ok()?));
    let total = response.body().content_length();
    match (response.status().as_u16(), range) {
        (200, _) => Ok(FetchStart::At { from: 0, total }),
        (206, Some((Some(from), total))) if from == asked => Ok(FetchStart::At { from, total }),
        (416, Some((None, Some(total)))) if asked > 0 && total == asked => Ok(FetchStart::Complete),
        (206 | 416, _) if asked > 0 => Ok(FetchStart::Afresh),
        (status, _) => Err(FetchFault::Status(status)),
    }
}

/// Called with the bytes so far and, if known, the bytes there will be.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

/// Reading and writing fail for different reasons, so `io::copy` won't do. If more comes than there should be, we stop: a
/// server must not fill the disk.
fn write_body(
    mut body: impl Read,
    part: &mut File,
    from: u64,
    total: Option<u64>,
    progress: Progress,
) -> Result<(), FetchFault> {
    let (mut bytes, mut block) = (from, vec![0; 1 << 16]);
    loop {
        progress(bytes, total);
        let got = body.read(&mut block).map_err(|error| FetchFault::CutShort(bytes, error.to_string()))?;
        part.write_all(&block[..got]).map_err(FetchFault::Disk)?;
        bytes += got as u64;
        match total {
            Some(total) if bytes > total => {
                return Err(FetchFault::WrongContent(format!("more than {total} bytes came")));
            }
            Some(total) if got == 0 && bytes < total => {
                return Err(FetchFault::CutShort(bytes, format!("{total} were promised")));
            }
            _ if got == 0 => return part.sync_all().map_err(FetchFault::Disk),
            _ => {}
        }
    }
}

fn attempt_fetch(
    url: &str,
    part: &Path,
    options: &FetchOptions,
    progress: Progress,
) -> Result<(), FetchFault> {
    let have = fs::metadata(part).map_or(0, |file| file.len());
    if have > 0 && options.size == Some(have) {
        return Ok(());
    }
    let response = ask_for(url, have, options)?;
    let (from, total) = match start_of(&response, have)? {
        FetchStart::At { from, total } => (from, total),
        FetchStart::Complete => return Ok(()),
        FetchStart::Afresh => {
            fs::remove_file(part).map_err(FetchFault::Disk)?;
            return attempt_fetch(url, part, options, progress); // once only: it will ask for no range
        }
    };
    if let (Some(wanted), Some(total)) = (options.size, total.filter(|_| options.size != total)) {
        return Err(FetchFault::WrongContent(format!("the server has {total} bytes where {wanted} belong")));
    }
    let mut file = open_part(part, from).map_err(FetchFault::Disk)?;
    let written =
        write_body(response.into_body().into_reader(), &mut file, from, options.size.or(total), progress);
    if let Err(FetchFault::WrongContent(_)) = written {
        fs::remove_file(part).map_err(FetchFault::Disk)?;
    }
    written
}

fn open_part(part: &Path, from: u64) -> io::Result<File> {
    match from {
        0 => File::create(part),
        _ => File::options().append(true).open(part),
    }
}

/// Attempts until the part file is complete, the trouble is of the lasting kind, or the tries are used up.
fn fill_part(url: &str, part: &Path, options: &FetchOptions, progress: Progress) -> Result<(), FetchFault> {
    let mut pause = options.pause;
    for _ in 1..options.tries.max(1) {
        match attempt_fetch(url, part, options, progress) {
            Err(fault) if is_passing(&fault) => std::thread::sleep(pause),
            result => return result,
        }
        pause *= 2;
    }
    attempt_fetch(url, part, options, progress)
}

/// A progress that prints a line at the start, every two seconds, and at the end.
pub fn print_progress() -> impl FnMut(u64, Option<u64>) {
    let mut last: Option<Instant> = None;
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    move |bytes, total| {
        let due = last.is_none_or(|last| last.elapsed() >= Duration::from_secs(2));
        if due || Some(bytes) == total {
            last = Some(Instant::now());
            match total {
                Some(total) => println!("{:8.1} of {:.1} MB", megabytes(bytes), megabytes(total)),
                None => println!("{:8.1} MB", megabytes(bytes)),
            }
        }
    }
}

/// If a resumed file turns out wrong the old part may be to blame, for the file may have changed on the server since: it gets
/// one fresh start. A file that came in one piece and is wrong stays wrong.
fn fetch_steps(url: &str, path: &Path, options: &FetchOptions, progress: Progress) -> Result<(), FetchFault> {
    if path.is_file() && file_mismatch(path, options).map_err(FetchFault::Disk)?.is_none() {
        return Ok(());
    }
    fs::create_dir_all(file::folder_of(path)).map_err(FetchFault::Disk)?;
    let part = file::part_of(path);
    let mut resumed = part.exists();
    loop {
        fill_part(url, &part, options, progress)?;
        let Some(what) = file_mismatch(&part, options).map_err(FetchFault::Disk)? else {
            return file::replace(&part, path).map_err(FetchFault::Disk);
        };
        fs::remove_file(&part).map_err(FetchFault::Disk)?;
        if !std::mem::take(&mut resumed) {
            return Err(FetchFault::WrongContent(what));
        }
    }
}

/// Fetches `url` into the file `path`, once: a file that is there and as the options say is not fetched again.
/// Progress is printed a line at a time. [`fetch_with`] is the same with a progress of your own.
/// Let only one process at a time fetch the same file: they would share the unfinished one.
///
/// # Errors
/// See [`FetchFault`]; an existing file at `path` is left alone then, and an unfinished one is kept as `path.part`.
pub fn fetch(url: &str, path: &Path, options: &FetchOptions) -> Result<(), FetchError> {
    fetch_with(url, path, options, &mut print_progress())
}

/// Fetches `url` into the file `path`, once, and tells `progress` how far it is.
///
/// # Errors
/// As for [`fetch`].
pub fn fetch_with(
    url: &str,
    path: &Path,
    options: &FetchOptions,
    progress: Progress,
) -> Result<(), FetchError> {
    fetch_steps(url, path, options, progress).map_err(|fault| FetchError {
        url: url.to_owned(),
        path: path.to_path_buf(),
        fault,
    })
}
