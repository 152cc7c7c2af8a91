// Owned by notebooks/25_begin_with_a_picture.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash ef425b9c6a6810d1
//! Twemoji: 3,781 small pictures with captions.

// %% notebooks/25_begin_with_a_picture.ipynb em-emoji
use minai::array::Array;
use minai::io::file::FileError;
use minai::io::picture;
use minai::tensor::elements;
use std::fs;
use std::path::Path;

/// Small pictures on white, and what each one shows.
#[derive(Clone, Debug)]
pub struct Emoji {
    /// Red, green and blue of each pixel: (n, 3, 64, 64)
    pub images: Array<u8>,
    /// What each picture shows, as "woman running, dark skin".
    pub captions: Vec<String>,
}

/// The pictures' height and width.
const SIDE: usize = 64;

// %% notebooks/25_begin_with_a_picture.ipynb em-tiles
/// The first n tiles of a sheet (h, w, 3), row by row: (n, 3, 64, 64); `None` if there are fewer.
fn tiles(sheet: &Array<u8>, n: usize) -> Option<Array<u8>> {
    let (rows, columns) = (sheet.shape()[0] / SIDE, sheet.shape()[1] / SIDE);
    if rows * columns < n {
        return None;
    }
    let (bytes, width) = (elements(sheet), sheet.shape()[1]);
    let mut pixels = Vec::with_capacity(n * 3 * SIDE * SIDE);
    for tile in 0..n {
        let corner = tile / columns * SIDE * width + tile % columns * SIDE;
        for channel in 0..3 {
            for y in 0..SIDE {
                let row = &bytes[3 * (corner + y * width)..][..3 * SIDE];
                pixels.extend(row.iter().skip(channel).step_by(3));
            }
        }
    }
    Some(Array::new(pixels, &[n, 3, SIDE, SIDE]))
}

// %% notebooks/25_begin_with_a_picture.ipynb em-load
use minai::datasets::data_folders;
use minai::io::data::places_text;

/// The sheet `emoji-64.png` and the third column of `captions.tsv`, from this folder.
///
/// # Errors
/// When one of them can't be read, or they don't fit together.
pub fn load_emoji(folder: &Path) -> Result<Emoji, FileError> {
    let (table, sheet) = (folder.join("captions.tsv"), folder.join("emoji-64.png"));
    let text = fs::read_to_string(&table).map_err(|error| FileError::new(&table, error.to_string()))?;
    let caption = |line: &str| line.split('\t').nth(2).map(str::to_owned);
    let captions: Option<Vec<String>> = text.lines().skip(1).map(caption).collect();
    let captions = captions.ok_or_else(|| FileError::new(&table, "a line has no caption; get it again"))?;
    let images = tiles(&picture::read(&sheet)?, captions.len()).ok_or_else(|| {
        FileError::new(&sheet, format!("has no place for {} pictures; get it again", captions.len()))
    })?;
    Ok(Emoji { images, captions })
}

// %% notebooks/25_begin_with_a_picture.ipynb em-load-b
/// The emoji that come with the course, in the folder `emoji` of the data folder.
///
/// # Errors
/// When they are not there, or damaged: the error says what to do.
pub fn emoji() -> Result<Emoji, FileError> {
    let folders = data_folders();
    let mut places = folders.iter().map(|folder| folder.join("emoji"));
    let found = places.find(|folder| folder.join("captions.tsv").is_file());
    let missing = || {
        let what = format!("not found {}; it is part of the course's repository", places_text(&folders));
        FileError::new("emoji/captions.tsv", what)
    };
    load_emoji(&found.ok_or_else(missing)?)
}

// %% notebooks/25_begin_with_a_picture.ipynb em-split
use std::collections::HashMap;

/// What a caption is about, without who does it and in which skin tone: "running" for "woman running, dark skin".
pub fn motif(caption: &str) -> String {
    let subject = match caption.rsplit_once(", ") {
        Some((subject, tone)) if tone.contains("skin") => subject,
        _ => caption,
    };
    let who = ["man", "woman", "person", "men", "women", "people"];
    let words: Vec<&str> = subject.split(' ').filter(|word| !who.contains(word)).collect();
    words.join(" ")
}

impl Emoji {
    /// The numbers of the pictures to train with, and of those to hold back: every tenth [`motif`], with all its variants.
    pub fn split(&self) -> (Vec<usize>, Vec<usize>) {
        let mut places = HashMap::new();
        let mut place = |caption: &String| {
            let next = places.len();
            *places.entry(motif(caption)).or_insert(next)
        };
        let places: Vec<usize> = self.captions.iter().map(&mut place).collect();
        (0..places.len()).partition(|&i| places[i] % 10 != 9)
    }
}

// %% notebooks/25_begin_with_a_picture.ipynb em-pixels
use minai::loader::rows;
use minai::tensor::Tensor;

impl Emoji {
    /// Pictures by their numbers: (n, 3, 64, 64), from -1 to 1.
    ///
    /// # Panics
    /// If there is no such picture.
    #[track_caller]
    pub fn pixels(&self, indices: &[usize]) -> Tensor {
        let bytes = rows(&self.images, indices);
        let pixels = bytes.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
        Array::new(pixels, bytes.shape()).into()
    }
}
