// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 9d9496e054f42f40
//! Fetching files over HTTP: once, resumably, checked.

// %% notebooks/01_foundations.ipynb app-fetch-error
use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not fetched.
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchError {
    /// The server cannot be reached: no network, no such host, connection refused, no answer in time.
    Offline {
        /// The address asked for.
        url: String,
        /// What the system says.
        why: String,
    },
    /// The server answered with this status instead of the file.
    Status {
        /// The address asked for.
        url: String,
        /// The HTTP status, such as 404.
        status: u16,
    },
    /// The connection ended or stalled early. What came is kept, and the next call goes on there.
    CutShort {
        /// The address asked for.
        url: String,
        /// The unfinished file.
        part: PathBuf,
        /// How many bytes it has.
        bytes: u64,
        /// What the system says.
        why: String,
    },
    /// What came is not the file that was asked for; it was thrown away.
    WrongContent {
        /// The address asked for.
        url: String,
        /// What was wanted and what came.
        what: String,
    },
    /// What the server says makes no sense, or its certificate does not hold.
    BadAnswer {
        /// The address asked for.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be written.
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

impl FetchError {
    /// Whether there is no way to the server at the moment, so that one should go on without the file.
    pub fn is_offline(&self) -> bool {
        matches!(self, Self::Offline { .. })
    }

    /// Whether the same request may succeed in a moment.
    fn is_passing(&self) -> bool {
        match self {
            Self::CutShort { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}

// %% notebooks/01_foundations.ipynb app-fetch-error-text
use std::{error, fmt};

impl error::Error for FetchError {}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Offline { url, why } => write!(
                f,
                "{url}: not reached ({why}); check the network and try again"
            ),
            Self::Status {
                url,
                status: status @ (404 | 410),
            } => {
                write!(
                    f,
                    "{url}: the server has no such file (status {status}); check the address"
                )
            }
            Self::Status { url, status } => {
                write!(
                    f,
                    "{url}: the server answered with status {status}; try again later"
                )
            }
            Self::CutShort {
                url,
                part,
                bytes,
                why,
            } => {
                let part = part.display();
                write!(
                    f,
                    "{url}: cut short after {bytes} bytes ({why}); call again to go on with {part}"
                )
            }
            Self::WrongContent { url, what } => {
                write!(
                    f,
                    "{url}: {what}; thrown away, check the address and the network (a login page?)"
                )
            }
            Self::BadAnswer { url, why } => write!(
                f,
                "{url}: no usable answer ({why}); check address and network"
            ),
            Self::Disk { path, error } if is_disk_full(error) => {
                write!(
                    f,
                    "{}: {error}; make room and call again to go on there",
                    path.display()
                )
            }
            Self::Disk { path, error } => {
                write!(f, "{}: {error}; check the folder", path.display())
            }
        }
    }
}

fn is_disk_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

// %% notebooks/01_foundations.ipynb app-fetch-options
use std::time::Duration;

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
        let (pause, connect, stall) = (
            Duration::from_millis(500),
            Duration::from_secs(10),
            Duration::from_secs(30),
        );
        Self {
            size: None,
            checksum: None,
            tries: 4,
            pause,
            connect,
            stall,
        }
    }
}

// %% notebooks/01_foundations.ipynb app-check
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{Read, Write};

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

/// The SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_hex(path: &Path) -> io::Result<String> {
    let (mut file, mut sha, mut block) = (File::open(path)?, Sha256::new(), vec![0; 1 << 18]);
    loop {
        match file.read(&mut block)? {
            0 => {
                return Ok(sha
                    .finalize()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect());
            }
            count => sha.update(&block[..count]),
        }
    }
}

// %% notebooks/01_foundations.ipynb app-ask
use ureq::{Agent, Body, http::Response};

fn ask_for(url: &str, from: u64, options: &FetchOptions) -> Result<Response<Body>, FetchError> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .accept_encoding("identity")
        .timeout_resolve(Some(options.connect))
        .timeout_connect(Some(options.connect))
        .timeout_recv_response(Some(options.stall))
        .timeout_per_read(Some(options.stall))
        .build();
    let request = Agent::from(config).get(url);
    let request = if from > 0 {
        request.header("Range", format!("bytes={from}-"))
    } else {
        request
    };
    request.call().map_err(|error| no_answer(url, error))
}

fn no_answer(url: &str, error: ureq::Error) -> FetchError {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout};
    let (url, why) = (url.to_owned(), error.to_string());
    match error {
        Io(_) | HostNotFound | ConnectionFailed | Timeout(_) => FetchError::Offline { url, why },
        _ => FetchError::BadAnswer { url, why },
    }
}

// %% notebooks/01_foundations.ipynb app-start
/// Where an answer's body belongs: it starts at byte `from` of a file of `total` bytes.
#[derive(Debug, PartialEq)]
enum FetchStart {
    At { from: u64, total: Option<u64> },
    Complete,
    Afresh,
}

fn start_of(url: &str, response: &Response<Body>, asked: u64) -> Result<FetchStart, FetchError> {
    let length = response.body().content_length();
    let range = response
        .headers()
        .get("content-range")
        .and_then(|range| content_range(range.to_str().ok()?));
    match (response.status().as_u16(), range) {
        (200, _) => Ok(FetchStart::At {
            from: 0,
            total: length,
        }),
        (206, Some((Some(from), total))) if from == asked => Ok(FetchStart::At { from, total }),
        (416, Some((None, Some(total)))) if asked > 0 && total == asked => Ok(FetchStart::Complete),
        (206 | 416, _) if asked > 0 => Ok(FetchStart::Afresh),
        (status, _) => Err(FetchError::Status {
            url: url.to_owned(),
            status,
        }),
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

// %% notebooks/01_foundations.ipynb app-body
/// Called with the bytes so far and, if known, the bytes there will be.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

struct PartFile<'a> {
    url: &'a str,
    path: &'a Path,
    file: File,
    bytes: u64,
}

fn write_body(
    part: &mut PartFile,
    body: Body,
    total: Option<u64>,
    progress: Progress,
) -> Result<(), FetchError> {
    let (mut body, mut block) = (body.into_reader(), vec![0; 1 << 16]);
    let cut = |bytes, why: String| FetchError::CutShort {
        url: part.url.to_owned(),
        part: part.path.to_path_buf(),
        bytes,
        why,
    };
    loop {
        progress(part.bytes, total);
        let got = body
            .read(&mut block)
            .map_err(|error| cut(part.bytes, error.to_string()))?;
        part.file
            .write_all(&block[..got])
            .map_err(|error| disk_error(part.path, error))?;
        part.bytes += got as u64;
        match total {
            Some(total) if part.bytes > total => return Ok(()), // the check of the size will see it
            Some(total) if got == 0 && part.bytes < total => {
                return Err(cut(
                    part.bytes,
                    format!("the server closed before byte {total}"),
                ));
            }
            _ if got == 0 => {
                return part
                    .file
                    .sync_all()
                    .map_err(|error| disk_error(part.path, error));
            }
            _ => {}
        }
    }
}

fn disk_error(path: &Path, error: io::Error) -> FetchError {
    FetchError::Disk {
        path: path.to_path_buf(),
        error,
    }
}

// %% notebooks/01_foundations.ipynb app-attempt
fn attempt_fetch(
    url: &str,
    part: &Path,
    options: &FetchOptions,
    progress: Progress,
) -> Result<(), FetchError> {
    let have = fs::metadata(part).map_or(0, |file| file.len());
    if have > 0 && options.size == Some(have) {
        return Ok(());
    }
    let response = ask_for(url, have, options)?;
    let (from, total) = match start_of(url, &response, have)? {
        FetchStart::At { from, total } => (from, total),
        FetchStart::Complete => return Ok(()),
        FetchStart::Afresh => {
            fs::remove_file(part).map_err(|error| disk_error(part, error))?;
            return attempt_fetch(url, part, options, progress); // once only: the next request asks for no range
        }
    };
    if let (Some(wanted), Some(total)) = (options.size, total.filter(|_| options.size != total)) {
        let what = format!("the server has {total} bytes where {wanted} belong");
        return Err(FetchError::WrongContent {
            url: url.to_owned(),
            what,
        });
    }
    let mut opening = File::options();
    let opening = if from > 0 {
        opening.append(true)
    } else {
        opening.write(true).create(true).truncate(true)
    };
    let file = opening
        .open(part)
        .map_err(|error| disk_error(part, error))?;
    let mut part = PartFile {
        url,
        path: part,
        file,
        bytes: from,
    };
    write_body(
        &mut part,
        response.into_body(),
        options.size.or(total),
        progress,
    )
}

// %% notebooks/01_foundations.ipynb app-attempts
/// Attempts until the part file is complete, the trouble is of the lasting kind, or the tries are used up.
fn fill_part(
    url: &str,
    part: &Path,
    options: &FetchOptions,
    progress: Progress,
) -> Result<(), FetchError> {
    let mut pause = options.pause;
    for _ in 1..options.tries.max(1) {
        match attempt_fetch(url, part, options, progress) {
            Err(error) if error.is_passing() => std::thread::sleep(pause),
            result => return result,
        }
        pause *= 2;
    }
    attempt_fetch(url, part, options, progress)
}

// %% notebooks/01_foundations.ipynb app-publish
fn publish_file(part: &Path, path: &Path) -> io::Result<()> {
    fs::rename(part, path)?;
    #[cfg(unix)]
    File::open(folder_of(path))?.sync_all()?;
    Ok(())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part"); // not with_extension, which would make data.part of data.gz and of data.txt
    name.into()
}

// %% notebooks/01_foundations.ipynb app-fetch
/// Fetches `url` into the file `path`, once: a file that is there and as the options say is not fetched again.
/// Progress is printed a line at a time. [`fetch_with`] is the same with a progress of your own.
///
/// # Errors
/// See [`FetchError`]; an existing file at `path` is left alone then, and an unfinished one is kept as `path.part`.
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
    if path.is_file()
        && file_mismatch(path, options)
            .map_err(|error| disk_error(path, error))?
            .is_none()
    {
        return Ok(());
    }
    fs::create_dir_all(folder_of(path)).map_err(|error| disk_error(path, error))?;
    let part = part_of(path);
    let mut resumed = part.exists();
    loop {
        fill_part(url, &part, options, progress)?;
        let Some(what) = file_mismatch(&part, options).map_err(|error| disk_error(&part, error))?
        else {
            return publish_file(&part, path).map_err(|error| disk_error(path, error));
        };
        fs::remove_file(&part).map_err(|error| disk_error(&part, error))?;
        if !std::mem::take(&mut resumed) {
            return Err(FetchError::WrongContent {
                url: url.to_owned(),
                what,
            });
        }
    }
}

// %% notebooks/01_foundations.ipynb app-progress
use std::time::Instant;

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

// %% notebooks/01_foundations.ipynb app-fetch-mnist
/// Where `mnist.pkl.gz` is to be had.
pub const MNIST_ADDRESS: &str =
    "https://github.com/mnielsen/neural-networks-and-deep-learning/raw/master/data/mnist.pkl.gz";

/// Fetches the full MNIST file into a folder, once, and returns its path.
///
/// # Errors
/// See [`FetchError`]; with [`FetchError::is_offline`] one can go on with the sample.
pub fn fetch_mnist(folder: &Path) -> Result<PathBuf, FetchError> {
    let path = folder.join("mnist.pkl.gz");
    let sha256 = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416";
    let checksum = Some(Checksum::Sha256(sha256.into()));
    fetch(
        MNIST_ADDRESS,
        &path,
        &FetchOptions {
            size: Some(17_051_982),
            checksum,
            ..Default::default()
        },
    )?;
    Ok(path)
}
