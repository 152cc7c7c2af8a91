//! The four files of Fashion-MNIST from a server: none gets its name before its digest was found right.

use md5::{Digest, Md5};
use minai::datasets::{Digests, FASHION_FILES, FashionSplit, identify_split};
use minai::fashion_download::fetch_fashion;
use minai::io::download::{FetchError, FetchFault};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

fn files() -> [Vec<u8>; 4] {
    [1, 2, 3, 4].map(|k| (0..5000_u32).map(|i| (i * k % 251) as u8).collect())
}

fn split_of(files: &[Vec<u8>; 4]) -> FashionSplit {
    let digests = std::array::from_fn(|at| {
        let digits: String = Md5::digest(&files[at]).iter().map(|byte| format!("{byte:02x}")).collect();
        &*digits.leak()
    });
    FashionSplit { name: "split of a test", digests: Digests::Md5(digests) }
}

/// Serves four files under their names, and remembers what was asked for.
struct Server {
    address: String,
    files: Arc<Mutex<[Vec<u8>; 4]>>,
    asked: Arc<Mutex<Vec<usize>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server =
            Server { address, files: Arc::new(Mutex::new(files())), asked: Arc::new(Mutex::new(Vec::new())) };
        let (files, asked) = (server.files.clone(), server.asked.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let name = asked_name(&connection);
                let at = FASHION_FILES.iter().position(|file| name == format!("/{file}")).unwrap();
                asked.lock().unwrap().push(at);
                let _ = answer(connection, &files.lock().unwrap()[at]);
            }
        });
        server
    }

    /// The numbers of the files that were asked for since the last question.
    fn asked(&self) -> Vec<usize> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    fn fetch(&self, folder: &Path) -> Result<(), FetchError> {
        fetch_fashion(&self.address, folder, &split_of(&files()))
    }
}

fn asked_name(connection: &TcpStream) -> String {
    let lines = BufReader::new(connection.try_clone().unwrap()).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    head[0].split(' ').nth(1).unwrap().to_owned()
}

fn answer(mut to: TcpStream, file: &[u8]) -> std::io::Result<()> {
    write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", file.len())?;
    to.write_all(file)
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_by_key(|name| FASHION_FILES.iter().position(|file| file == name));
    names
}

#[test]
fn the_four_files_are_fetched_once() {
    let (place, server) = (tempfile::tempdir().unwrap(), Server::new());
    let folder = place.path().join("fashion-mnist");
    server.fetch(&folder).unwrap();
    assert_eq!(
        (names_in(&folder), server.asked()),
        (FASHION_FILES.map(String::from).to_vec(), vec![0, 1, 2, 3])
    );
    let split = split_of(&files());
    assert_eq!(identify_split(&folder, &[split]).unwrap(), split);
    server.fetch(&folder).unwrap();
    assert!(server.asked().is_empty());

    fs::write(folder.join(FASHION_FILES[1]), "damaged").unwrap();
    fs::remove_file(folder.join(FASHION_FILES[3])).unwrap();
    server.fetch(&folder).unwrap();
    assert_eq!(server.asked(), [1, 3], "only what is damaged or missing");
    assert_eq!(fs::read(folder.join(FASHION_FILES[1])).unwrap(), files()[1]);
}

#[test]
fn a_file_with_the_wrong_md5_never_gets_its_name() {
    let (place, server) = (tempfile::tempdir().unwrap(), Server::new());
    let wrong = b"<html>Please log in".to_vec();
    server.files.lock().unwrap()[2] = wrong.clone();
    let error = server.fetch(place.path()).unwrap_err();
    assert!(matches!(error.fault, FetchFault::WrongContent(_)) && !error.is_offline(), "{error:?}");
    let digests = [split_of(&[0, 1, 2, 3].map(|_| wrong.clone())), split_of(&files())].map(|split| {
        let Digests::Md5(digests) = split.digests else { unreachable!() };
        digests[2]
    });
    let text = error.to_string();
    for part in [FASHION_FILES[2], "MD5", digests[0], digests[1], "check the address and the network"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    assert_eq!(
        names_in(place.path()),
        FASHION_FILES[..2],
        "what came before is kept, nothing of this file is"
    );

    server.asked();
    *server.files.lock().unwrap() = files();
    server.fetch(place.path()).unwrap();
    assert_eq!(server.asked(), [2, 3]);
}

#[test]
fn a_file_that_was_there_stays_when_what_comes_is_wrong() {
    let (place, server) = (tempfile::tempdir().unwrap(), Server::new());
    fs::write(place.path().join(FASHION_FILES[0]), "mine").unwrap();
    server.files.lock().unwrap()[0] = vec![1; 100];
    assert!(matches!(server.fetch(place.path()).unwrap_err().fault, FetchFault::WrongContent(_)));
    assert_eq!(fs::read(place.path().join(FASHION_FILES[0])).unwrap(), b"mine");
    assert_eq!(names_in(place.path()), FASHION_FILES[..1]);
}

#[test]
fn without_a_server_one_is_offline() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let place = tempfile::tempdir().unwrap();
    let error = fetch_fashion(&address, place.path(), &split_of(&files())).unwrap_err();
    assert!(error.is_offline() && error.to_string().contains(FASHION_FILES[0]), "{error}");
}
