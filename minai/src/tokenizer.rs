// Owned by notebooks/31_tokenizer.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 2a030c0b6a2dbe57
//! CLIP's tokenizer: a prompt is cleaned, cut into words, and each word into pieces by byte-pair encoding.

// %% notebooks/31_tokenizer.ipynb re-signs
/// The sign by which vocabularies write each byte: itself if it is printable Latin-1, else one from U+0100 on; and the
/// bytes in the order in which their tokens are numbered.
fn byte_signs() -> ([char; 256], Vec<u8>) {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let (mut order, others): (Vec<u8>, Vec<u8>) = (0..=255).partition(printable);
    let mut signs: [char; 256] = std::array::from_fn(|byte| byte as u8 as char);
    for (&byte, sign) in others.iter().zip('\u{100}'..) {
        signs[byte as usize] = sign;
    }
    order.extend(others);
    (signs, order)
}

// %% notebooks/31_tokenizer.ipynb re-html
use htmlize::ENTITIES;

/// What Windows means by the bytes 0x80 to 0x9F, which in Latin-1 and Unicode are control characters without a use.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8D}', 'Ž', '\u{8F}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9D}', 'ž', 'Ÿ',
];

/// The character that HTML means by a number: U+FFFD for one that cannot be, nothing for one that has no business in a text.
fn character(number: Option<u32>) -> Option<char> {
    match number {
        Some(c1 @ 0x80..=0x9F) => Some(WINDOWS_1252[c1 as usize - 0x80]),
        Some(0x01..=0x08 | 0x0B | 0x0E..=0x1F | 0x7F | 0xFDD0..=0xFDEF) => None,
        Some(number) if number & 0xFFFE == 0xFFFE && number <= 0x10_FFFF => None,
        Some(number) if number != 0 => Some(char::from_u32(number).unwrap_or(char::REPLACEMENT_CHARACTER)),
        _ => Some(char::REPLACEMENT_CHARACTER),
    }
}

/// What an entity stands for: `&amp;`, or `&amp` for those that older pages write so.
fn entity(text: &str) -> Option<&'static str> {
    ENTITIES.get(text.as_bytes()).map(|bytes| str::from_utf8(bytes).expect("entities are text"))
}

// %% notebooks/31_tokenizer.ipynb re-patterns
use regex::{Captures, Regex};
use std::borrow::Cow;

/// The patterns that cleaning and cutting look for.
struct Patterns {
    /// An entity as HTML's readers see it, with or without semicolon.
    reference: Regex,
    /// An entity beyond doubt.
    entity: Regex,
    /// What colours a terminal's text.
    escape: Regex,
    /// A word, for the purpose of counting tokens. Python's `regex`, by which CLIP's words were found, finds U+0345 (an
    /// iota below a letter) neither in `\p{L}` nor outside of it, if capitals do not matter: so it is in no word.
    word: Regex,
}

// %% notebooks/31_tokenizer.ipynb re-patterns-b
impl Patterns {
    fn new() -> Self {
        let regex = |pattern: &str| Regex::new(pattern).expect("a pattern of our own");
        Patterns {
            reference: regex(r"&(#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\x0C <&#;]{1,32};?)"),
            entity: regex("&#?[0-9A-Za-z]{1,24};"),
            escape: regex(r"\x1B\[[\d;]*[a-zA-Z]"),
            word: regex(
                r"(?i:<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}\x{345}]+",
            ),
        }
    }
}

// %% notebooks/31_tokenizer.ipynb re-patterns-c
impl Patterns {
    /// Replaces HTML's entities as browsers do: also those that lack their semicolon.
    fn unescape<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.reference.replace_all(text, |found: &Captures| {
            let (all, name) = (&found[0], found[1].trim_end_matches(';'));
            let number = match name.as_bytes() {
                [b'#', b'x' | b'X', ..] => u32::from_str_radix(&name[2..], 16).ok(),
                [b'#', ..] => name[1..].parse().ok(),
                _ => {
                    // The longest beginning that is an entity.
                    let ends = all.char_indices().map(|(at, c)| at + c.len_utf8()).filter(|&end| end > 2);
                    let known = ends.rev().find_map(|end| Some((entity(&all[..end])?, &all[end..])));
                    return known.map_or_else(|| all.to_owned(), |(text, rest)| format!("{text}{rest}"));
                }
            };
            character(number).map(String::from).unwrap_or_default()
        })
    }
}

// %% notebooks/31_tokenizer.ipynb re-patterns-d
impl Patterns {
    /// Replaces the entities that are meant beyond doubt: those with a semicolon, and those in capitals.
    fn unescape_sure<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.entity.replace_all(text, |found: &Captures| {
            let all = &found[0];
            if let Some(text) = entity(all) {
                return text.to_owned();
            }
            let unescaped = self.unescape(all);
            if all.starts_with("&#") {
                return if unescaped.contains(';') { all.to_owned() } else { unescaped.into_owned() };
            }
            let capitals = !all.contains(|c: char| c.is_ascii_lowercase()) && unescaped == all;
            let lower = capitals.then(|| entity(&all.to_ascii_lowercase())).flatten();
            lower.map_or_else(|| all.to_owned(), str::to_uppercase)
        })
    }
}

// %% notebooks/31_tokenizer.ipynb re-plain
use unicode_normalization::UnicodeNormalization;

/// Appends what is to stand for a character: plain quotes, letters for ligatures, usual widths and line breaks.
fn push_plain(c: char, text: &mut String) {
    match c {
        '\u{80}'..='\u{9F}' => match WINDOWS_1252[c as usize - 0x80] {
            c @ '\u{80}'..='\u{9F}' => text.push(c),
            c => push_plain(c, text),
        },
        'Ĳ' => text.push_str("IJ"),
        'ĳ' => text.push_str("ij"),
        'ŉ' => text.push_str("'n"),
        'Ǳ' => text.push_str("DZ"),
        'ǲ' => text.push_str("Dz"),
        'ǳ' => text.push_str("dz"),
        'Ǆ' => text.push_str("DŽ"),
        'ǅ' => text.push_str("Dž"),
        'ǆ' => text.push_str("dž"),
        'Ǉ' => text.push_str("LJ"),
        'ǈ' => text.push_str("Lj"),
        'ǉ' => text.push_str("lj"),
        'Ǌ' => text.push_str("NJ"),
        'ǋ' => text.push_str("Nj"),
        'ǌ' => text.push_str("nj"),
        'ﬀ' => text.push_str("ff"),
        'ﬁ' => text.push_str("fi"),
        'ﬂ' => text.push_str("fl"),
        'ﬃ' => text.push_str("ffi"),
        'ﬄ' => text.push_str("ffl"),
        'ﬅ' => text.push_str("ſt"),
        'ﬆ' => text.push_str("st"),
        '\u{3000}' => text.push(' '),
        '\u{FF01}'..='\u{FFEF}' => text.extend(c.nfkc()),
        '\u{2BC}' | '\u{2018}'..='\u{201B}' => text.push('\''),
        '\u{201C}'..='\u{201F}' => text.push('"'),
        '\r' | '\u{2028}' | '\u{2029}' => text.push('\n'),
        c => text.push(c),
    }
}

// %% notebooks/31_tokenizer.ipynb re-clean
/// Characters that show nothing and that nobody means to have in a text.
fn is_control(c: char) -> bool {
    matches!(c, '\0'..='\u{8}' | '\u{B}' | '\u{E}'..='\u{1F}' | '\u{7F}')
        || matches!(c, '\u{206A}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFC}')
}

/// How often a line is gone over at most, if each time something changes: entities inside of entities inside of …
const ROUNDS: usize = 100;

// %% notebooks/31_tokenizer.ipynb re-clean-b
impl Patterns {
    /// One line without what goes wrong with texts on their way through programs.
    fn fix_line(&self, line: &str, unescape: bool) -> String {
        let mut text = line.to_owned();
        for _ in 0..ROUNDS {
            let before = text.clone();
            if unescape {
                text = self.unescape_sure(&text).into_owned();
            }
            let mut plain = String::with_capacity(text.len());
            text.replace("\r\n", "\n").chars().for_each(|c| push_plain(c, &mut plain));
            text = self.escape.replace_all(&plain, "").chars().filter(|&c| !is_control(c)).nfc().collect();
            if text == before {
                break;
            }
        }
        text
    }
}

// %% notebooks/31_tokenizer.ipynb re-clean-c
impl Patterns {
    /// A prompt in the form that CLIP was trained with: repaired, without HTML, with single spaces, in small letters.
    fn clean(&self, prompt: &str) -> String {
        let mut fixed = String::with_capacity(prompt.len());
        let mut unescape = true;
        for line in prompt.split_inclusive('\n') {
            unescape &= !line.contains('<'); // from here on this is HTML, whose entities have their meaning
            fixed += &self.fix_line(line, unescape);
        }
        let text = self.unescape(&fixed).into_owned();
        let text = self.unescape(&text);
        text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
    }
}

// %% notebooks/31_tokenizer.ipynb re-struct
use std::collections::{BinaryHeap, HashMap, HashSet};

/// Two neighbours that become one token, and when: merges of a lower rank come first.
#[derive(Clone, Copy)]
struct Merge {
    rank: u32,
    token: u32,
}

// %% notebooks/31_tokenizer.ipynb re-struct-b
/// How many tokens a prompt has for CLIP, start and end included.
pub const CONTEXT: usize = 77;

/// CLIP's tokenizer: texts to token numbers and back.
///
/// Texts are cleaned as those that CLIP was trained with: plain quotes, ligatures taken apart, full-width letters
/// narrowed, HTML's entities and terminals' escapes resolved, composed characters (NFC), small letters, single spaces.
/// What open_clip does besides, and this does not: to repair text that was decoded by the wrong table (`schÃ¶n`).
pub struct Tokenizer {
    /// What each token stands for.
    bytes: Vec<Vec<u8>>,
    /// Whether a word ends with it.
    ends: Vec<bool>,
    /// The tokens of the bytes: inside of a word, and at its end.
    inside: Vec<u32>,
    last: Vec<u32>,
    merges: HashMap<(u32, u32), Merge>,
    start: u32,
    end: u32,
    /// What fills a prompt up after its end.
    pad: u32,
    /// Tokens of a prompt, start and end included.
    context: usize,
    /// Words that a model has besides its vocabulary, the longest first, and the tokens of each.
    added: Vec<(String, Vec<u32>)>,
    patterns: Patterns,
}

// %% notebooks/31_tokenizer.ipynb re-files
use flate2::read::MultiGzDecoder;
use minai::io::file::FileError;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How many merges CLIP's vocabulary has; the file in which they came has more.
const MERGES: usize = 49_152 - 256 - 2;

/// What a vocabulary's file may have at most, in bytes.
const FILE_LIMIT: u64 = 16 << 20;

// %% notebooks/31_tokenizer.ipynb re-files-b
/// A whole file, if it is one and not longer than vocabularies are.
fn read_text(path: &Path) -> Result<String, FileError> {
    let fail = |what: String| FileError::new(path, what);
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
        if bytes.starts_with(&[0x1F, 0x8B]) {
            let packed = std::mem::take(&mut bytes);
            MultiGzDecoder::new(&packed[..]).take(FILE_LIMIT + 1).read_to_end(&mut bytes)?;
        }
        Ok::<_, std::io::Error>(bytes)
    };
    let bytes = read().map_err(|error| {
        fail(format!("{error}; check that it is there and whole, or fetch CLIP's vocabulary again"))
    })?;
    if bytes.len() as u64 > FILE_LIMIT {
        return Err(fail(
            "has more than 16 MiB, which is no vocabulary's size; check that it is the right file".into(),
        ));
    }
    String::from_utf8(bytes).map_err(|_| fail("is no text (UTF-8); fetch CLIP's vocabulary again".into()))
}

// %% notebooks/31_tokenizer.ipynb re-files-c
/// The two tokens in each line of a list of merges, whose first line may be a heading.
fn read_merges<'a>(path: &Path, text: &'a str) -> Result<Vec<(&'a str, &'a str)>, FileError> {
    let mut merges = Vec::new();
    for (number, line) in text.trim_end_matches(['\r', '\n']).lines().enumerate() {
        match line.split_once(' ') {
            _ if number == 0 && line.contains("#version") => {}
            Some((one, two)) if !one.is_empty() && !two.is_empty() && !two.contains(' ') => {
                merges.push((one, two))
            }
            _ => {
                let what = format!("line {}: \"{line:.40}\" is no pair of tokens", number + 1);
                return Err(FileError::new(path, what + "; fetch CLIP's vocabulary again"));
            }
        }
    }
    Ok(merges)
}

// %% notebooks/31_tokenizer.ipynb re-open
/// Tokens' names with their numbers.
type Ids = HashMap<String, u32>;

/// How vocabularies write the tokens before and after each prompt, and the end of a word.
const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
const WORD_END: &str = "</w>";

/// The names in the order of their numbers, which must run from 0 on without a gap.
fn by_number(ids: &Ids) -> Result<Vec<&str>, String> {
    let mut names = vec![""; ids.len()];
    for (name, &id) in ids {
        let what = match names.get_mut(id as usize) {
            Some(free) if free.is_empty() => {
                *free = name;
                continue;
            }
            Some(taken) => format!("gives the tokens `{taken:.80}` and `{name:.80}` one number, {id}"),
            None => format!("gives token `{name:.80}` the number {id}, and has only {} tokens", ids.len()),
        };
        return Err(format!("{what}; fetch CLIP's vocabulary again"));
    }
    Ok(names)
}

// %% notebooks/31_tokenizer.ipynb re-open-f
impl Tokenizer {
    /// From the tokens' names with their numbers, and the merges in order; and where these are from.
    fn build(
        (path, ids): (&Path, &Ids),
        (merges_path, merges): (&Path, &[(&str, &str)]),
    ) -> Result<Tokenizer, FileError> {
        let names = by_number(ids).map_err(|what| FileError::new(path, what))?;
        let id = |name: &str| {
            let what = || format!("has no token `{name:.80}`; fetch CLIP's vocabulary again");
            ids.get(name).copied().ok_or_else(|| FileError::new(path, what()))
        };
        let (signs, _) = byte_signs();
        let inside: Vec<u32> = signs.iter().map(|sign| id(&sign.to_string())).collect::<Result<_, _>>()?;
        let last: Vec<u32> = signs.iter().map(|sign| id(&format!("{sign}</w>"))).collect::<Result<_, _>>()?;
        // A token is made in one way only, of tokens that were made before: so the order of merges is all that matters.
        let mut made: HashSet<u32> = inside.iter().chain(&last).copied().collect();
        let mut table = HashMap::with_capacity(merges.len());
        for (&(one, two), rank) in merges.iter().zip(0..) {
            let (left, right, token) = (id(one)?, id(two)?, id(&format!("{one}{two}"))?);
            if !made.contains(&left) || !made.contains(&right) || !made.insert(token) {
                let what = format!(
                    "merge {}, `{one:.40} {two:.40}`, is out of order or there twice; fetch CLIP's vocabulary again",
                    rank + 1
                );
                return Err(FileError::new(merges_path, what));
            }
            table.insert((left, right), Merge { rank, token });
        }
        let (start, end) = (id(START)?, id(END)?);
        let byte_of: HashMap<char, u8> = signs.iter().copied().zip(0..=255).collect();
        let meaning = |name: &&str| match *name {
            START | END => name.bytes().collect(),
            name => {
                let stem = name.strip_suffix(WORD_END).unwrap_or(name);
                stem.chars().filter_map(|sign| byte_of.get(&sign).copied()).collect()
            }
        };
        Ok(Tokenizer {
            bytes: names.iter().map(meaning).collect(),
            ends: names.iter().map(|name| name.ends_with(WORD_END)).collect(),
            inside,
            last,
            merges: table,
            start,
            end,
            pad: end,
            context: CONTEXT,
            added: Vec::new(),
            patterns: Patterns::new(),
        })
    }
}

// %% notebooks/31_tokenizer.ipynb re-open-d
/// The names of all tokens in the order of their numbers: the bytes inside of a word, the bytes at its end, what is merged,
/// and start and end.
fn numbered_names(merges: &[(&str, &str)]) -> Vec<String> {
    let (signs, order) = byte_signs();
    let single = order.iter().map(|&byte| signs[byte as usize].to_string());
    let last = order.iter().map(|&byte| format!("{}{WORD_END}", signs[byte as usize]));
    let merged = merges.iter().map(|(one, two)| format!("{one}{two}"));
    single.chain(last).chain(merged).chain([START, END].map(str::to_owned)).collect()
}

impl Tokenizer {
    /// From the text of OpenAI's list of merges, of which the first 48,894 count, and which numbers the tokens by their
    /// order; errors call it `name`.
    ///
    /// # Errors
    /// When it is not such a list.
    pub fn from_merges(name: impl AsRef<Path>, merges: &str) -> Result<Tokenizer, FileError> {
        let path = name.as_ref();
        let mut pairs = read_merges(path, merges)?;
        if pairs.len() < MERGES {
            let what = format!("has {} merges, CLIP's vocabulary has {MERGES}; fetch it again", pairs.len());
            return Err(FileError::new(path, what));
        }
        pairs.truncate(MERGES);
        let names = numbered_names(&pairs);
        Self::build((path, &names.into_iter().zip(0..).collect()), (path, &pairs))
    }
}

// %% notebooks/31_tokenizer.ipynb re-open-e
impl Tokenizer {
    /// From the texts of `vocab.json` and `merges.txt`; errors call them `name` and `merges_name`.
    ///
    /// # Errors
    /// When they are no vocabulary, or not of one vocabulary.
    pub fn from_texts(
        name: impl AsRef<Path>,
        vocabulary: &str,
        merges_name: impl AsRef<Path>,
        merges: &str,
    ) -> Result<Tokenizer, FileError> {
        let (path, merges_path) = (name.as_ref(), merges_name.as_ref());
        let ids: Ids = serde_json::from_str(vocabulary).map_err(|error| {
            let what =
                format!("is no list of tokens with their numbers ({error}); fetch CLIP's vocabulary again");
            FileError::new(path, what)
        })?;
        Self::build((path, &ids), (merges_path, &read_merges(merges_path, merges)?))
    }
}

// %% notebooks/31_tokenizer.ipynb re-json
use serde_json::Value;

/// The two tokens of a merge, which is a text with a space or a list of two texts.
fn pair(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(text) => text.split_once(' '),
        Value::Array(two) if two.len() == 2 => Some((two[0].as_str()?, two[1].as_str()?)),
        _ => None,
    }
}

/// Vocabulary and merges of a `tokenizer.json`, with start and end, which may stand among the added tokens only.
fn parts_of(json: &Value) -> Option<(Ids, Vec<(&str, &str)>)> {
    let model = &json["model"];
    let number = |id: &Value| u32::try_from(id.as_u64()?).ok();
    let vocabulary = model["vocab"].as_object()?.iter();
    let mut ids: Ids =
        vocabulary.map(|(name, id)| Some((name.clone(), number(id)?))).collect::<Option<_>>()?;
    for token in json["added_tokens"].as_array().into_iter().flatten() {
        if let Some(name @ (START | END)) = token["content"].as_str() {
            ids.insert(name.to_owned(), number(&token["id"])?);
        }
    }
    Some((ids, model["merges"].as_array()?.iter().map(pair).collect::<Option<_>>()?))
}

// %% notebooks/31_tokenizer.ipynb re-json-b
impl Tokenizer {
    /// From the text of a `tokenizer.json`; errors call it `name`.
    ///
    /// # Errors
    /// When it is none, or none of CLIP's kind.
    pub fn from_json(name: impl AsRef<Path>, text: &str) -> Result<Tokenizer, FileError> {
        let path = name.as_ref();
        let fail = |what: String| FileError::new(path, what + "; fetch the model's tokenizer again");
        let json: Value =
            serde_json::from_str(text).map_err(|error| fail(format!("is no JSON ({error})")))?;
        let parts =
            parts_of(&json).ok_or_else(|| fail("has no vocabulary with merges, as CLIP's has".into()))?;
        Self::build((path, &parts.0), (path, &parts.1))
    }
}

// %% notebooks/31_tokenizer.ipynb re-settings
/// A file of settings beside a vocabulary, if it is there.
fn settings(folder: &Path, name: &str) -> Result<Value, FileError> {
    let path = folder.join(name);
    if !path.is_file() {
        return Ok(Value::Null);
    }
    let fail =
        |error| FileError::new(&path, format!("is no JSON ({error}); fetch the model's tokenizer again"));
    serde_json::from_str(&read_text(&path)?).map_err(fail)
}

/// The name of a token in settings: a text, or an object with its `content`.
fn token_name(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

impl Tokenizer {
    /// The token that stands for exactly this text, inside of a word.
    fn token(&self, text: &str) -> Option<u32> {
        let known = (0..self.bytes.len()).find(|&i| self.bytes[i] == text.as_bytes() && !self.ends[i]);
        known
            .map(|i| i as u32)
            .or_else(|| self.added.iter().find(|(name, _)| name == text)?.1.first().copied())
    }
}

// %% notebooks/31_tokenizer.ipynb re-settings-b
impl Tokenizer {
    /// With what a folder says besides of padding and of added tokens.
    fn with_settings(mut self, folder: &Path) -> Result<Self, FileError> {
        for (name, id) in settings(folder, "added_tokens.json")?.as_object().into_iter().flatten() {
            let id = id.as_u64().unwrap_or(u64::MAX);
            match self.bytes.get(id as usize) {
                Some(_) => {} // a token of the vocabulary, named once more
                None if !name.is_empty() && id <= 1 << 24 => self.added.push((name.clone(), vec![id as u32])),
                None => {
                    let what = format!("gives the token `{name:.80}` no name or no number");
                    return Err(FileError::new(
                        folder.join("added_tokens.json"),
                        what + "; correct the file",
                    ));
                }
            }
        }
        self.added.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        for file in ["tokenizer_config.json", "special_tokens_map.json"] {
            let settings = settings(folder, file)?;
            let Some(name) = token_name(&settings["pad_token"]) else { continue };
            self.pad = self.token(name).ok_or_else(|| {
                let what =
                    format!("pads with `{name:.80}`, which is no token of the vocabulary; correct the file");
                FileError::new(folder.join(file), what)
            })?;
        }
        // Some tools write a number beyond all measure for "no limit": then it is CLIP's.
        let length = settings(folder, "tokenizer_config.json")?["model_max_length"].as_u64();
        self.context = length.filter(|length| (3..1 << 16).contains(length)).map_or(CONTEXT, |n| n as usize);
        Ok(self)
    }
}

// %% notebooks/31_tokenizer.ipynb re-open-c
impl Tokenizer {
    fn open_pair(json: &Path, txt: &Path) -> Result<Tokenizer, FileError> {
        Self::from_texts(json, &read_text(json)?, txt, &read_text(txt)?)
    }
}

// %% notebooks/31_tokenizer.ipynb re-open-b
impl Tokenizer {
    /// Reads a vocabulary: from a folder with `vocab.json` and `merges.txt`, with `tokenizer.json`, or with
    /// `bpe_simple_vocab_16e6.txt.gz`; or from one of these files (`merges.txt` is looked for beside `vocab.json`, and the
    /// other way round). What fills prompts up, and tokens that were added, are read from the files beside it.
    ///
    /// # Errors
    /// When a file is missing or unreadable, or is no vocabulary of CLIP's kind; the error says which line or token.
    pub fn open(path: impl AsRef<Path>) -> Result<Tokenizer, FileError> {
        let path = path.as_ref();
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let [json, txt, packed] =
            ["vocab.json", "merges.txt", "bpe_simple_vocab_16e6.txt.gz"].map(|name| folder.join(name));
        let whole = folder.join("tokenizer.json");
        let plain = match path {
            path if path == json || path == txt => Self::open_pair(&json, &txt),
            path if path == whole => Self::from_json(path, &read_text(path)?),
            path if !path.is_dir() => return Self::from_merges(path, &read_text(path)?),
            _ if json.exists() || txt.exists() => Self::open_pair(&json, &txt),
            _ if whole.exists() => Self::from_json(&whole, &read_text(&whole)?),
            _ if packed.exists() => Self::from_merges(&packed, &read_text(&packed)?),
            _ => Err(FileError::new(
                path,
                "has none of `vocab.json` with `merges.txt`, `tokenizer.json` and `bpe_simple_vocab_16e6.txt.gz`; name a model's folder `tokenizer`",
            )),
        };
        plain?.with_settings(folder)
    }
}

// %% notebooks/31_tokenizer.ipynb re-encode
use std::cmp::Reverse;

/// No place: before the first, or after the last part of a word.
const NOWHERE: usize = usize::MAX;

impl Tokenizer {
    /// Appends the tokens of a word. The time goes with the word's length, and little more.
    fn encode_word(&self, word: &[u8], ids: &mut Vec<u32>) {
        let Some((&last, inside)) = word.split_last() else { return };
        let mut parts: Vec<u32> = inside.iter().map(|&byte| self.inside[byte as usize]).collect();
        parts.push(self.last[last as usize]);
        // Parts in a chain: a merge puts the new token in the left one's place and leaves the right one out.
        let mut next: Vec<usize> = (1..parts.len()).chain([NOWHERE]).collect();
        let mut before: Vec<usize> = [NOWHERE].into_iter().chain(0..parts.len() - 1).collect();
        let merge = |parts: &[u32], next: &[usize], at: usize| {
            let right = *next.get(at).filter(|&&right| right != NOWHERE)?;
            let merge = self.merges.get(&(parts[at], parts[right]))?;
            Some(Reverse((merge.rank, at, merge.token)))
        };
        let first = (0..parts.len()).filter_map(|at| merge(&parts, &next, at));
        let mut queue: BinaryHeap<_> = first.collect();
        while let Some(Reverse((rank, at, token))) = queue.pop() {
            // One of the two may have been merged with another neighbour meanwhile.
            if merge(&parts, &next, at) != Some(Reverse((rank, at, token))) {
                continue;
            }
            let right = next[at];
            parts[at] = token;
            next[at] = next[right];
            next[right] = NOWHERE;
            parts[right] = u32::MAX; // no merge begins here any more
            if next[at] != NOWHERE {
                before[next[at]] = at;
            }
            queue.extend(merge(&parts, &next, at));
            if before[at] != NOWHERE {
                queue.extend(merge(&parts, &next, before[at]));
            }
        }
        let mut at = 0;
        while at != NOWHERE {
            ids.push(parts[at]);
            at = next[at];
        }
    }
}

// %% notebooks/31_tokenizer.ipynb re-encode-b
impl Tokenizer {
    /// The tokens of a text, without start and end: as open_clip's, which takes `<start_of_text>` and `<end_of_text>` in
    /// a text for start and end, and `<|startoftext|>` for text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let (mut ids, mut rest) = (Vec::new(), text);
        let next = |text: &str| {
            let found =
                self.added.iter().filter_map(|(name, tokens)| Some((text.find(name)?, name.len(), tokens)));
            found.min_by_key(|&(at, len, _)| (at, std::cmp::Reverse(len)))
        };
        while let Some((at, len, tokens)) = next(rest) {
            self.encode_plain(&rest[..at], &mut ids);
            ids.extend(tokens);
            rest = &rest[at + len..];
        }
        self.encode_plain(rest, &mut ids);
        ids
    }

    /// Appends the tokens of a text in which no added token stands.
    fn encode_plain(&self, text: &str, ids: &mut Vec<u32>) {
        for word in self.patterns.word.find_iter(&self.clean(text)) {
            match word.as_str() {
                "<start_of_text>" => ids.push(self.start),
                "<end_of_text>" => ids.push(self.end),
                word => self.encode_word(word.as_bytes(), ids),
            }
        }
    }

    /// A text as it is before it is cut into words.
    pub fn clean(&self, text: &str) -> String {
        self.patterns.clean(text)
    }
}

// %% notebooks/31_tokenizer.ipynb re-encode-c
impl Tokenizer {
    /// The text that tokens stand for, with a space after each word. Start and end are shown as `<|startoftext|>` and
    /// `<|endoftext|>`, bytes that make no character as U+FFFD, and so are numbers that are no token's.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            let added = self.added.iter().find(|(_, tokens)| tokens.contains(&id));
            match (self.bytes.get(id as usize), added) {
                (Some(token), _) => bytes.extend(token),
                (None, Some((name, _))) => bytes.extend(name.as_bytes()),
                (None, None) => bytes.extend("\u{FFFD}".as_bytes()),
            }
            if self.ends.get(id as usize) == Some(&true) || added.is_some() {
                bytes.push(b' ');
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

// %% notebooks/31_tokenizer.ipynb re-encode-d
impl Tokenizer {
    /// The rows that a text encoder's table needs: the largest number of a token, and one.
    pub fn vocabulary_size(&self) -> usize {
        self.added
            .iter()
            .flat_map(|(_, tokens)| tokens)
            .map(|id| *id as usize + 1)
            .fold(self.bytes.len(), usize::max)
    }

    /// Adds a word of `count` new tokens, which follow the others, and gives their numbers. `None` if there is such a word,
    /// or if it is empty.
    pub fn add(&mut self, word: &str, count: usize) -> Option<Vec<u32>> {
        if word.is_empty() || count == 0 || self.added.iter().any(|(known, _)| known == word) {
            return None;
        }
        let first = self.vocabulary_size() as u32;
        let tokens: Vec<u32> = (first..first + count as u32).collect();
        self.added.push((word.to_owned(), tokens.clone()));
        self.added.sort_by_key(|(word, _)| std::cmp::Reverse(word.len()));
        Some(tokens)
    }

    /// How many tokens a prompt has, start and end included: 77, or what the model's `tokenizer_config.json` says.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The token that begins each prompt.
    pub fn start(&self) -> u32 {
        self.start
    }

    /// The token that ends each prompt.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// The token that fills a prompt up after its end.
    pub fn pad(&self) -> u32 {
        self.pad
    }
}

// %% notebooks/31_tokenizer.ipynb re-tokens
use minai::array::Array;

/// A prompt as CLIP reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// Start, the prompt's tokens, the end, and what the model fills up with: in version 1 the end's token again.
    pub ids: Vec<u32>,
    /// If the prompt was too long: a warning that says what of it does not count.
    pub cut: Option<String>,
}

// %% notebooks/31_tokenizer.ipynb re-tokens-b
impl Tokenizer {
    /// The tokens of a prompt, 77 for CLIP (see [`context`](Self::context)). Of a longer one the first 75 count, between
    /// start and end.
    pub fn tokens(&self, prompt: &str) -> Tokens {
        let found = self.encode(prompt);
        let (kept, cut) = found.split_at(found.len().min(self.context - 2));
        let mut ids = vec![self.pad; self.context];
        ids[0] = self.start;
        ids[1..=kept.len()].copy_from_slice(kept);
        ids[kept.len() + 1] = self.end;
        let warning = || {
            let (text, count) = (self.decode(&cut[..cut.len().min(100)]), found.len());
            let more = if cut.len() > 100 { "…" } else { "" };
            format!(
                "the prompt has {count} tokens, of which {} count; shorten it, for this is left out: \"{}{more}\"",
                kept.len(),
                text.trim_end()
            )
        };
        Tokens { ids, cut: (!cut.is_empty()).then(warning) }
    }
}

/// Prompts of one tokenizer in the form that a text encoder takes: (n, 77).
pub fn batch(prompts: &[Tokens]) -> Array<i64> {
    let ids = prompts.iter().flat_map(|tokens| &tokens.ids).map(|&id| i64::from(id));
    Array::new(ids.collect(), &[prompts.len(), prompts.first().map_or(CONTEXT, |tokens| tokens.ids.len())])
}

// %% notebooks/31_tokenizer.ipynb le-words
use std::collections::BTreeMap;

/// Each different word of the texts, as merging begins with it: the signs of its bytes, the last with the mark of a word's end;
/// and how often it occurs.
fn signed_words<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<(Vec<String>, usize)> {
    let (patterns, (signs, _)) = (Patterns::new(), byte_signs());
    let mut counts = BTreeMap::new();
    for text in texts {
        for word in patterns.word.find_iter(&patterns.clean(text)) {
            *counts.entry(word.as_str().to_owned()).or_insert(0) += 1;
        }
    }
    let pieces = |word: String| {
        let mut pieces: Vec<String> = word.bytes().map(|byte| signs[byte as usize].to_string()).collect();
        pieces.last_mut().expect("no word is empty").push_str(WORD_END);
        pieces
    };
    counts.into_iter().map(|(word, count)| (pieces(word), count)).collect()
}

// %% notebooks/31_tokenizer.ipynb le-pair
/// The most frequent pair of neighbours; of equally frequent ones, the first in the alphabet.
fn most_frequent(words: &[(Vec<String>, usize)]) -> Option<(String, String)> {
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (word, count) in words {
        word.windows(2).for_each(|pair| *counts.entry((&pair[0], &pair[1])).or_default() += count);
    }
    let (pair, _) = counts.into_iter().max_by_key(|&(pair, count)| (count, Reverse(pair)))?;
    Some((pair.0.to_owned(), pair.1.to_owned()))
}

/// Makes each such pair one piece, from left to right.
fn merge_pair(word: &mut Vec<String>, (one, two): &(String, String)) {
    let mut at = 0;
    while at + 1 < word.len() {
        if word[at] == *one && word[at + 1] == *two {
            let right = word.remove(at + 1);
            word[at].push_str(&right);
        }
        at += 1;
    }
}

// %% notebooks/31_tokenizer.ipynb le-learn
/// A vocabulary found in these texts by byte-pair encoding (Sennrich et al. 2016), with at most this number of merges:
/// the contents of `vocab.json` and `merges.txt`, which [`Tokenizer::from_texts`] reads, and other programs as well.
pub fn learn_vocabulary<'a>(texts: impl IntoIterator<Item = &'a str>, merges: usize) -> (String, String) {
    let mut words = signed_words(texts);
    let mut found = Vec::new();
    while let Some(pair) = most_frequent(&words).filter(|_| found.len() < merges) {
        words.iter_mut().for_each(|(word, _)| merge_pair(word, &pair));
        found.push(pair);
    }
    let pairs: Vec<(&str, &str)> = found.iter().map(|(one, two)| (&**one, &**two)).collect();
    let names = numbered_names(&pairs).into_iter().zip(0..);
    let ids: serde_json::Map<String, Value> = names.map(|(name, id)| (name, id.into())).collect();
    let lines = found.iter().map(|(one, two)| format!("{one} {two}\n"));
    (Value::Object(ids).to_string(), ["#version: 0.2\n".to_owned()].into_iter().chain(lines).collect())
}
