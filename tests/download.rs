//! Downloads against a server that misbehaves as told: nothing is lost, nothing half-written is taken for whole.

use minai::io::download::{Checksum, FetchError, FetchFault, FetchOptions, fetch_with, sha256_hex};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What the server does with one request; after the script it answers `Well`.
#[derive(Clone, Debug)]
enum Reply {
    /// As a good server does, ranges included.
    Well,
    /// As well, but the connection ends after so many bytes of the body.
    Cut(usize),
    /// The same, in chunked encoding, which has no length to compare with.
    CutChunked(usize),
    /// As well, and then silence without hanging up.
    Stall(usize),
    /// This status and a short page.
    Status(u16),
    /// The whole file, whatever range was asked for.
    IgnoreRange,
    /// A range, but another one than was asked for.
    OtherRange,
    /// To /moved, where it goes on.
    Redirect,
    /// A page with status 200, as from a hotel's Wi-Fi.
    LoginPage,
    /// More and more bytes, without an end or a length.
    Endless,
    /// No HTTP.
    Nonsense,
    /// Nothing at all.
    HangUp,
    /// A range with more bytes behind it than it says.
    TooMuch,
}

struct Server {
    url: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn new(content: &[u8], script: &[Reply]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/file.bin", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (content, script, seen) = (content.to_vec(), script.to_vec(), heads.clone());
        std::thread::spawn(move || {
            for (k, connection) in listener.incoming().flatten().enumerate() {
                let head = read_head(&connection);
                seen.lock().unwrap().push(head.clone());
                let _ = answer(connection, &head, &content, script.get(k).unwrap_or(&Reply::Well));
            }
        });
        Self { url, heads }
    }

    /// The ranges that were asked for so far, one for each request.
    fn ranges(&self) -> Vec<Option<usize>> {
        self.heads.lock().unwrap().iter().map(|head| asked_range(head)).collect()
    }
}

fn read_head(connection: &TcpStream) -> String {
    let lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    lines.join("\n").to_lowercase()
}

fn asked_range(head: &str) -> Option<usize> {
    head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok())
}

fn answer(mut to: TcpStream, head: &str, content: &[u8], reply: &Reply) -> std::io::Result<()> {
    let all = content.len();
    let from = asked_range(head).filter(|_| !matches!(reply, Reply::IgnoreRange | Reply::LoginPage));
    if from.is_some_and(|from| from >= all) {
        return write!(
            to,
            "HTTP/1.1 416 No\r\nContent-Range: bytes */{all}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }
    let start = if matches!(reply, Reply::OtherRange) { from.map(|from| from / 2) } else { from };
    let body = &content[start.unwrap_or(0)..];
    let range =
        start.map_or(String::new(), |start| format!("Content-Range: bytes {start}-{}/{all}\r\n", all - 1));
    let status = if start.is_some() { "206 Partial Content" } else { "200 OK" };
    let common = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{range}");
    let counted = format!("{common}Content-Length: {}\r\n\r\n", body.len());
    match reply {
        Reply::Well | Reply::IgnoreRange | Reply::OtherRange => {
            to.write_all(counted.as_bytes())?;
            to.write_all(body)
        }
        Reply::Cut(most) => {
            to.write_all(counted.as_bytes())?;
            to.write_all(&body[..*most])
        }
        Reply::CutChunked(most) => {
            write!(to, "{common}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len())?;
            to.write_all(&body[..*most])
        }
        Reply::Stall(most) => {
            to.write_all(counted.as_bytes())?;
            to.write_all(&body[..*most])?;
            std::thread::sleep(Duration::from_secs(3));
            Ok(())
        }
        Reply::Status(status) => {
            write!(to, "HTTP/1.1 {status} No\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnope")
        }
        Reply::Redirect => {
            write!(
                to,
                "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: /moved\r\nContent-Length: 0\r\n\r\n"
            )
        }
        Reply::LoginPage => {
            write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\n<welcome>")
        }
        Reply::Endless => {
            to.write_all(format!("{common}\r\n").as_bytes())?;
            (0..1000).try_for_each(|_| to.write_all(&[7; 100_000])) // 100 MB, or until the other side hangs up
        }
        Reply::HangUp => Ok(()),
        Reply::TooMuch => {
            let end = format!("{}Transfer-Encoding: chunked\r\n\r\n", common);
            to.write_all(end.as_bytes())?;
            let more = [body, b"more"].concat();
            write!(to, "{:x}\r\n", more.len())?;
            to.write_all(&more)?;
            to.write_all(b"\r\n0\r\n\r\n")
        }
        Reply::Nonsense => write!(to, "220 mail.example.org ESMTP\r\n"),
    }
}

/// A folder of its own for each test, and what the tests ask of it.
struct Place {
    _folder: tempfile::TempDir,
    target: PathBuf,
    part: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("data/file.bin");
        let part = folder.path().join("data/file.bin.part");
        Self { _folder: folder, target, part }
    }

    fn with_part(bytes: &[u8]) -> Self {
        let place = Self::new();
        fs::create_dir(place.part.parent().unwrap()).unwrap();
        fs::write(&place.part, bytes).unwrap();
        place
    }

    fn fetch(&self, server: &Server, options: &FetchOptions) -> Result<(), FetchError> {
        fetch_with(&server.url, &self.target, options, &mut |_, _| ())
    }

    fn assert_fetched(&self, content: &[u8]) {
        assert!(fs::read(&self.target).unwrap() == content, "the file has another content");
        assert!(!self.part.exists(), "the part file is still there");
    }
}

fn content() -> Vec<u8> {
    (0..50_000_u32).map(|i| (i * i % 251) as u8).collect()
}

fn digest(bytes: &[u8]) -> Option<Checksum> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    Some(Checksum::Sha256(sha256_hex(file.path()).unwrap()))
}

fn options() -> FetchOptions {
    let pause = Duration::from_millis(1);
    FetchOptions {
        checksum: digest(&content()),
        size: Some(50_000),
        tries: 4,
        pause,
        ..FetchOptions::default()
    }
}

fn once() -> FetchOptions {
    FetchOptions { tries: 1, ..options() }
}

#[test]
fn sha256_is_sha256() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "abc").unwrap();
    let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256_hex(file.path()).unwrap(), known);
}

#[test]
fn a_file_is_fetched_once() {
    let (place, server) = (Place::new(), Server::new(&content(), &[]));
    place.fetch(&server, &options()).unwrap();
    place.fetch(&server, &options()).unwrap();
    place.assert_fetched(&content());
    assert_eq!(server.ranges(), [None]);
    let Some(Checksum::Sha256(hex)) = digest(&content()) else { unreachable!() };
    let capital = Some(Checksum::Sha256(hex.to_uppercase()));
    place.fetch(&server, &FetchOptions { checksum: capital, ..options() }).unwrap();
    assert_eq!(server.ranges(), [None], "capital digits are digits");
}

#[test]
fn a_large_file_and_its_progress() {
    let large = content().repeat(300); // 15 MB, more than ureq's read_to_vec takes
    let (place, server) = (Place::new(), Server::new(&large, &[]));
    let mut told = Vec::new();
    let mut progress = |bytes, total| told.push((bytes, total));
    let options = FetchOptions { checksum: digest(&large), ..FetchOptions::default() };
    fetch_with(&server.url, &place.target, &options, &mut progress).unwrap();
    place.assert_fetched(&large);
    assert!(told.is_sorted() && told.iter().all(|(_, total)| *total == Some(15_000_000)));
    assert_eq!((told.first().unwrap().0, told.last().unwrap().0), (0, 15_000_000));
}

#[test]
fn a_refused_connection_is_offline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    drop(listener);
    let place = Place::new();
    let error = fetch_with(&url, &place.target, &options(), &mut |_, _| ()).unwrap_err();
    assert!(error.is_offline(), "{error:?}");
    assert!(error.to_string().contains(&url) && error.to_string().contains("check the network"), "{error}");
    assert!(!place.target.exists() && !place.part.exists());
}

#[test]
fn an_unusable_answer() {
    for url in ["file:///etc/passwd", "no url", "http://"] {
        let error = fetch_with(url, &Place::new().target, &once(), &mut |_, _| ()).unwrap_err();
        assert!(matches!(error.fault, FetchFault::BadAnswer(_)), "{url}: {error:?}");
    }
    let (place, server) = (Place::new(), Server::new(&content(), &[Reply::Nonsense]));
    let error = place.fetch(&server, &once()).unwrap_err();
    assert!(matches!(error.fault, FetchFault::BadAnswer(_)), "{error:?}");
}

#[test]
fn status_404_is_asked_once_and_500_again() {
    let (place, server) = (Place::new(), Server::new(&content(), &[Reply::Status(404)]));
    let error = place.fetch(&server, &options()).unwrap_err();
    assert!(matches!(error.fault, FetchFault::Status(404)) && !error.is_offline());
    assert!(error.to_string().contains("no such file"), "{error}");
    assert_eq!(server.ranges().len(), 1);

    let (place, server) = (Place::new(), Server::new(&content(), &[Reply::Status(500), Reply::Status(503)]));
    place.fetch(&server, &options()).unwrap();
    assert_eq!(server.ranges().len(), 3);
    place.assert_fetched(&content());

    let always = vec![Reply::Status(500); 9];
    let (place, server) = (Place::new(), Server::new(&content(), &always));
    let error = place.fetch(&server, &options()).unwrap_err();
    assert!(error.to_string().contains("status 500"), "{error}");
    assert_eq!(server.ranges().len(), 4);
    assert!(!place.target.exists() && !place.part.exists());
}

#[test]
fn a_body_cut_short_is_kept_and_resumed() {
    for cut in [Reply::Cut(20_000), Reply::CutChunked(20_000)] {
        let (place, server) = (Place::new(), Server::new(&content(), &[cut]));
        let error = place.fetch(&server, &once()).unwrap_err();
        assert!(matches!(error.fault, FetchFault::CutShort(20_000, _)), "{error:?}");
        assert!(
            error.to_string().contains("20000 bytes") && error.to_string().contains("call again"),
            "{error}"
        );
        assert_eq!(fs::read(&place.part).unwrap(), &content()[..20_000]);
        assert!(!place.target.exists());
        place.fetch(&server, &once()).unwrap();
        assert_eq!(server.ranges(), [None, Some(20_000)]);
        place.assert_fetched(&content());
    }
}

#[test]
fn one_call_survives_several_cuts() {
    let script = [Reply::Cut(10_000), Reply::Status(500), Reply::CutChunked(25_000)];
    let (place, server) = (Place::new(), Server::new(&content(), &script));
    place.fetch(&server, &options()).unwrap();
    assert_eq!(server.ranges(), [None, Some(10_000), Some(10_000), Some(35_000)]);
    place.assert_fetched(&content());
}

/// The size that a range's header states is believed in both directions.
#[test]
fn more_than_was_promised_is_no_file() {
    let (place, server) = (Place::with_part(&content()[..300]), Server::new(&content(), &[Reply::TooMuch]));
    let options = FetchOptions { size: None, checksum: None, ..once() };
    let error = place.fetch(&server, &options).unwrap_err();
    assert!(error.to_string().contains("more than 50000 bytes"), "{error}");
    assert!(!place.part.exists() && !place.target.exists());
}

#[test]
fn a_server_that_hangs_up_is_asked_again() {
    let (place, server) = (Place::new(), Server::new(&content(), &[Reply::HangUp, Reply::HangUp]));
    place.fetch(&server, &options()).unwrap();
    assert_eq!(server.ranges().len(), 3);
    place.assert_fetched(&content());
}

/// Without size and checksum, the length that the server states is all there is to go by.
#[test]
fn a_cut_is_noticed_without_size_and_checksum() {
    let (place, server) = (Place::new(), Server::new(&content(), &[Reply::Cut(10)]));
    let options = FetchOptions { size: None, checksum: None, ..once() };
    assert!(matches!(place.fetch(&server, &options).unwrap_err().fault, FetchFault::CutShort(10, _)));
    place.fetch(&server, &options).unwrap();
    place.assert_fetched(&content());
}

#[test]
fn a_silent_server_is_given_up() {
    let (place, server) = (Place::new(), Server::new(&content(), &[Reply::Stall(30_000)]));
    let impatient = FetchOptions { stall: Duration::from_millis(200), ..once() };
    let error = place.fetch(&server, &impatient).unwrap_err();
    assert!(matches!(error.fault, FetchFault::CutShort(30_000, _)), "{error:?}");
    place.fetch(&server, &FetchOptions { stall: Duration::from_secs(20), ..once() }).unwrap();
    place.assert_fetched(&content());
}

#[test]
fn servers_that_treat_ranges_badly() {
    for reply in [Reply::IgnoreRange, Reply::OtherRange] {
        let (place, server) =
            (Place::with_part(&content()[..300]), Server::new(&content(), std::slice::from_ref(&reply)));
        place.fetch(&server, &once()).unwrap_or_else(|error| panic!("{reply:?}: {error}"));
        assert_eq!(server.ranges()[0], Some(300));
        place.assert_fetched(&content());
    }
}

#[test]
fn a_part_that_is_complete_or_too_long() {
    let unsized_options = FetchOptions { size: None, ..once() };
    let (place, server) = (Place::with_part(&content()), Server::new(&content(), &[]));
    place.fetch(&server, &unsized_options).unwrap();
    assert_eq!(server.ranges(), [Some(50_000)], "a 416 that says the part is complete");
    place.assert_fetched(&content());

    let long = [content(), vec![1]].concat();
    for options in [unsized_options, once()] {
        let (place, server) = (Place::with_part(&long), Server::new(&content(), &[]));
        place.fetch(&server, &options).unwrap();
        assert_eq!(server.ranges(), [Some(50_001), None]);
        place.assert_fetched(&content());
    }
}

#[test]
fn a_part_of_another_version_is_thrown_away() {
    for length in [1000, 50_000] {
        let (place, server) = (Place::with_part(&vec![1; length]), Server::new(&content(), &[]));
        place.fetch(&server, &once()).unwrap();
        place.assert_fetched(&content());
    }
}

#[test]
fn a_redirect_keeps_the_range() {
    let (place, server) = (Place::with_part(&content()[..300]), Server::new(&content(), &[Reply::Redirect]));
    place.fetch(&server, &once()).unwrap();
    assert_eq!(server.ranges(), [Some(300), Some(300)]);
    assert!(server.heads.lock().unwrap()[1].starts_with("get /moved"));
    place.assert_fetched(&content());
}

#[test]
fn the_wrong_content_is_thrown_away_and_what_was_there_stays() {
    let other: Vec<u8> = content().iter().map(|byte| byte ^ 1).collect();
    for script in [vec![], vec![Reply::Cut(10), Reply::Cut(10)]] {
        let (place, server) = (Place::with_part(b""), Server::new(&other, &script));
        fs::write(&place.target, "mine").unwrap();
        let error = place.fetch(&server, &options()).unwrap_err();
        assert!(matches!(error.fault, FetchFault::WrongContent(_)), "{error:?}");
        assert!(
            error.to_string().contains("SHA-256")
                && error.to_string().contains("a file that was there is untouched"),
            "{error}"
        );
        assert_eq!(fs::read(&place.target).unwrap(), b"mine");
        assert!(!place.part.exists());
    }
}

#[test]
fn a_damaged_file_is_replaced_by_the_right_one() {
    let (place, server) = (Place::with_part(b""), Server::new(&content(), &[]));
    fs::write(&place.target, &content()[1..]).unwrap();
    place.fetch(&server, &options()).unwrap();
    place.assert_fetched(&content());
}

#[test]
fn a_login_page_is_no_data() {
    let (place, server) = (Place::with_part(&content()[..300]), Server::new(&content(), &[Reply::LoginPage]));
    let error = place.fetch(&server, &options()).unwrap_err();
    assert!(error.to_string().contains("9 bytes where 50000 belong"), "{error}");
    assert_eq!(fs::read(&place.part).unwrap(), &content()[..300], "the part is not spoilt");
    place.fetch(&server, &options()).unwrap();
    place.assert_fetched(&content());
}

#[test]
fn a_server_must_not_fill_the_disk() {
    let (place, server) = (Place::new(), Server::new(&content(), &[Reply::Endless]));
    let error = place.fetch(&server, &options()).unwrap_err();
    assert!(matches!(error.fault, FetchFault::WrongContent(_)), "{error:?}");
    assert!(!place.part.exists() && !place.target.exists());
}

#[test]
fn a_folder_that_is_none() {
    let (folder, server) = (tempfile::tempdir().unwrap(), Server::new(&content(), &[]));
    fs::write(folder.path().join("file"), "").unwrap();
    let target = folder.path().join("file/below/x.bin");
    let error = fetch_with(&server.url, &target, &once(), &mut |_, _| ()).unwrap_err();
    assert!(matches!(&error.fault, FetchFault::Disk(_)) && error.to_string().contains("below"), "{error:?}");
    assert_eq!(server.ranges().len(), 0);
}

/// `/dev/full` takes no byte: the part file is made a link to it.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let (place, server) = (Place::new(), Server::new(&content(), &[]));
    fs::create_dir(place.part.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &place.part).unwrap();
    fs::write(&place.target, "mine").unwrap();
    let error = place.fetch(&server, &options()).unwrap_err();
    let FetchFault::Disk(cause) = &error.fault else { panic!("{error:?}") };
    assert_eq!(cause.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(error.path, place.target);
    assert!(error.to_string().contains("make room"), "{error}");
    assert_eq!(fs::read(&place.target).unwrap(), b"mine");
    assert_eq!(server.ranges().len(), 1, "a full disk is not asked again");
}

/// A disk that becomes full in the middle, played by the shell's limit for files: 16 blocks of 512 or 1,024 bytes.
/// The test runs itself again under that limit; what was written until then must stay, and be resumed.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_becomes_full() {
    let options = FetchOptions { size: Some(50_000), tries: 1, ..FetchOptions::default() };
    if let (Ok(url), Ok(target)) = (std::env::var("MINAI_TEST_URL"), std::env::var("MINAI_TEST_TARGET")) {
        println!("{}", fetch_with(&url, Path::new(&target), &options, &mut |_, _| ()).unwrap_err());
        return;
    }
    let (place, server) = (Place::new(), Server::new(&content(), &[]));
    let limited = "trap '' XFSZ; ulimit -f 16; exec \"$0\" --exact a_disk_that_becomes_full --nocapture";
    let mut child = std::process::Command::new("sh");
    child.args(["-c", limited]).arg(std::env::current_exe().unwrap());
    let output =
        child.env("MINAI_TEST_URL", &server.url).env("MINAI_TEST_TARGET", &place.target).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("make room and call again"), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::metadata(&place.part).unwrap().len();
    assert!((1..50_000).contains(&bytes) && !place.target.exists(), "{bytes}");
    place.fetch(&server, &options).unwrap();
    assert_eq!(server.ranges(), [None, Some(bytes as usize)]);
    place.assert_fetched(&content());
}
