//! A published model from a server: checked, gone on with, and nothing under its name that is not what it should be.

use minai::io::download::FetchFault;
use minai::sd_download::{Published, PublishedFile, SD15, fetch_model};
use minai::stable_diffusion::StableDiffusion;
use minai::weights::Precision;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/tiny-sd")
}

/// The tiny model as a published one: the vocabulary becomes the two files that published folders have.
fn contents() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for file in SD15.files {
        if let Ok(bytes) = fs::read(tiny().join(file.path)) {
            files.insert(file.path.to_owned(), bytes);
        }
    }
    let (vocabulary, merges) = vocabulary();
    files.insert("tokenizer/vocab.json".into(), vocabulary.into_bytes());
    files.insert("tokenizer/merges.txt".into(), merges.into_bytes());
    files
}

/// `vocab.json` and `merges.txt` of CLIP's vocabulary.
fn vocabulary() -> (String, String) {
    let mut text = String::new();
    let packed = fs::read(tiny().join("tokenizer/bpe_simple_vocab_16e6.txt.gz")).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut text).unwrap();
    let merges: Vec<&str> = text.lines().skip(1).take(48_894).collect();
    // The letters that stand for the 256 bytes: printable ones for themselves, the others from U+0100 on.
    let plain: Vec<u32> = (33..=126).chain(161..=172).chain(174..=255).collect();
    let others = (0..256).filter(|byte| !plain.contains(byte)).enumerate().map(|(i, _)| 256 + i as u32);
    let letters: Vec<String> =
        plain.iter().copied().chain(others).map(|c| char::from_u32(c).unwrap().into()).collect();
    let ends = letters.iter().map(|letter| format!("{letter}</w>"));
    let words = letters.iter().cloned().chain(ends).chain(merges.iter().map(|merge| merge.replace(' ', "")));
    let special = ["<|startoftext|>", "<|endoftext|>"].map(String::from);
    let ids: serde_json::Map<String, serde_json::Value> =
        words.chain(special).enumerate().map(|(id, word)| (word, id.into())).collect();
    (serde_json::Value::Object(ids).to_string(), format!("#version: 0.2\n{}\n", merges.join("\n")))
}

/// The model that the server has, with the sizes and digests of its own weights.
fn published(files: &BTreeMap<String, Vec<u8>>) -> Published {
    let check = |bytes: &[u8]| {
        let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        (bytes.len() as u64, &*digits.leak())
    };
    let list: Vec<PublishedFile> = SD15
        .files
        .iter()
        .map(|file| PublishedFile { path: file.path, check: file.check.map(|_| check(&files[file.path])) })
        .collect();
    Published { files: list.leak(), ..SD15 }
}

/// Serves files under their names, also from the middle on, and remembers what was asked for.
struct Server {
    address: String,
    files: Files,
    asked: Arc<Mutex<Vec<(String, usize)>>>,
}

impl Server {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/resolve/main", listener.local_addr().unwrap());
        let server = Server { address, files: Arc::new(Mutex::new(contents())), asked: Arc::default() };
        let (files, asked) = (server.files.clone(), server.asked.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let _ = answer(connection, &files, &asked);
            }
        });
        server
    }

    fn asked(&self) -> Vec<(String, usize)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

fn answer(mut to: TcpStream, files: &Files, asked: &Mutex<Vec<(String, usize)>>) -> std::io::Result<()> {
    let lines = BufReader::new(to.try_clone()?).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let name = head[0].split(' ').nth(1).unwrap_or_default().trim_start_matches("/resolve/main/").to_owned();
    let range = head.iter().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        let from = value.trim().strip_prefix("bytes=")?.split('-').next()?;
        key.eq_ignore_ascii_case("range").then(|| from.parse::<usize>().ok())?
    });
    let files = files.lock().unwrap();
    let from = range.unwrap_or(0);
    asked.lock().unwrap().push((name.clone(), from));
    let Some(file) = files.get(&name) else {
        return write!(to, "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    };
    match range {
        Some(from) => write!(
            to,
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{}\r\n",
            file.len() - 1,
            file.len()
        )?,
        None => write!(to, "HTTP/1.1 200 OK\r\n")?,
    }
    write!(to, "Connection: close\r\nContent-Length: {}\r\n\r\n", file.len() - from)?;
    to.write_all(&file[from..])
}

#[test]
fn the_list_of_files_is_that_of_a_whole_model() {
    assert_eq!(SD15.bytes(), 492_265_874 + 334_643_276 + 3_438_167_540);
    let paths: Vec<&str> = SD15.files.iter().map(|file| file.path).collect();
    for part in ["text_encoder", "unet", "vae", "tokenizer", "scheduler", "model_index.json"] {
        assert!(paths.iter().any(|path| path.starts_with(part)), "{part}");
    }
    for (_, digest) in SD15.files.iter().filter_map(|file| file.check) {
        assert!(digest.len() == 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit()));
    }
}

#[test]
fn a_model_is_fetched_once_and_draws() {
    let (place, server) = (tempfile::tempdir().unwrap(), Server::new());
    let folder = place.path().join("sd15");
    let model = published(&server.files.lock().unwrap());
    let mut seen = Vec::new();
    fetch_model(&server.address, &folder, &model, |number, done, all| seen.push((number, done, all)))
        .unwrap();
    let numbers: Vec<usize> = seen.iter().map(|&(number, ..)| number).collect();
    assert!(numbers.is_sorted() && numbers.last() == Some(&(SD15.files.len() - 1)), "{numbers:?}");
    assert_eq!(server.asked().len(), SD15.files.len());
    let fetched = StableDiffusion::open(&folder, Precision::Single).unwrap();
    let shipped = StableDiffusion::open(tiny(), Precision::Single).unwrap();
    let prompts = ["a photograph of an astronaut riding a horse", "Zwölf Boxkämpfer 🥊"];
    assert_eq!(fetched.embed(&prompts).data, shipped.embed(&prompts).data);

    fetch_model(&server.address, &folder, &model, |_, _, _| {}).unwrap();
    assert!(server.asked().is_empty(), "all is there");
}

#[test]
fn an_unfinished_file_is_gone_on_with_and_a_damaged_one_fetched_again() {
    let (place, server) = (tempfile::tempdir().unwrap(), Server::new());
    let model = published(&server.files.lock().unwrap());
    fetch_model(&server.address, place.path(), &model, |_, _, _| {}).unwrap();
    server.asked();
    let unet = "unet/diffusion_pytorch_model.safetensors";
    let whole = fs::read(place.path().join(unet)).unwrap();
    fs::remove_file(place.path().join(unet)).unwrap();
    fs::write(place.path().join(format!("{unet}.part")), &whole[..300_000]).unwrap();
    fs::write(place.path().join("vae/config.json"), "not JSON").unwrap();
    fetch_model(&server.address, place.path(), &model, |_, _, _| {}).unwrap();
    assert_eq!(server.asked(), [("vae/config.json".to_owned(), 0), (unet.to_owned(), 300_000)]);
    assert_eq!(fs::read(place.path().join(unet)).unwrap(), whole);
}

#[test]
fn what_is_wrong_never_gets_its_name() {
    let (place, server) = (tempfile::tempdir().unwrap(), Server::new());
    let model = published(&server.files.lock().unwrap());
    for name in ["unet/config.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt"] {
        let place = tempfile::tempdir().unwrap(); // nothing is there yet, so that the file is asked for
        let right =
            server.files.lock().unwrap().insert(name.into(), b"<html>Please log in".to_vec()).unwrap();
        let error = fetch_model(&server.address, place.path(), &model, |_, _, _| {}).unwrap_err();
        assert!(matches!(error.fault, FetchFault::WrongContent(_)), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
        assert!(!place.path().join(name).exists());
        server.files.lock().unwrap().insert(name.into(), right);
    }
    let name = "vae/diffusion_pytorch_model.safetensors";
    let length = server.files.lock().unwrap()[name].len();
    let right = server.files.lock().unwrap().insert(name.into(), vec![7; length]).unwrap();
    let error = fetch_model(&server.address, place.path(), &model, |_, _, _| {}).unwrap_err();
    assert!(matches!(error.fault, FetchFault::WrongContent(_)), "{error:?}");
    assert!(!place.path().join(name).exists());
    server.files.lock().unwrap().insert(name.into(), right);
    server.files.lock().unwrap().remove("vae/config.json");
    fs::remove_file(place.path().join("vae/config.json")).unwrap();
    let error = fetch_model(&server.address, place.path(), &model, |_, _, _| {}).unwrap_err().to_string();
    assert!(error.contains("no such file on the server") && error.contains("vae/config.json"), "{error}");
}
