//! Models' settings: JSON objects as published models have them in `config.json`, and errors that name file and key.
//!
//! Python writes, and reads, what is not JSON: `NaN`, `Infinity` and `-Infinity`. Some editors begin a file with a
//! byte-order mark. Both are read here.

use crate::io::file::{self, FileError, unreadable};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The longest configuration that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// A model's settings: a JSON object, as published models have them in `config.json`.
///
/// Each method reads one kind of value. Its error says which file, which key, what is there and what was expected.
#[derive(Clone, Debug)]
pub struct Config {
    path: PathBuf,
    entries: Map<String, Value>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, has more than a megabyte, or is no JSON object.
    pub fn open(path: impl AsRef<Path>) -> Result<Config, FileError> {
        let path = path.as_ref();
        let json = read_text(path).map_err(|what| FileError::new(path, what))?;
        Config::parse(path, &json)
    }

    /// A configuration from its text; errors call it `name`.
    ///
    /// # Errors
    /// When it is no JSON object.
    pub fn parse(name: impl AsRef<Path>, json: &str) -> Result<Config, FileError> {
        let path = name.as_ref();
        let fail = |what: String| FileError::new(path, what);
        let json = marked(json.strip_prefix('\u{FEFF}').unwrap_or(json));
        match serde_json::from_str(&json) {
            Ok(Value::Object(entries)) => Ok(Config { path: path.to_path_buf(), entries }),
            Ok(_) => Err(fail("is JSON, but no object (`{…}`); check that it is the right file".into())),
            Err(error) => Err(fail(format!("is no JSON ({error}); fetch it again"))),
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The keys, in the file's order.
    pub fn keys(&self) -> Vec<&str> {
        self.entries.keys().map(String::as_str).collect()
    }

    /// The settings inside of these under a key, if they are an object.
    pub fn section(&self, key: &str) -> Option<Config> {
        let entries = self.entries.get(key)?.as_object()?.clone();
        Some(Config { path: self.path.clone(), entries })
    }

    /// Whether there is a value for this key that is not `null`.
    pub fn has(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(|value| !value.is_null())
    }

    /// Whether the file says `null` for this key, which is not always the same as saying nothing.
    pub fn is_null(&self, key: &str) -> bool {
        self.entries.get(key).is_some_and(serde_json::Value::is_null)
    }

    /// An error about a key: for values that are of the right type and yet not possible.
    pub fn error(&self, key: &str, what: &str) -> FileError {
        FileError::new(&self.path, format!("`{key}` {what}"))
    }

    /// The value of a key, as `read` understands it.
    fn value<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, FileError> {
        let Some(value) = self.entries.get(key) else {
            return Err(self.error(key, &format!("is missing; {expected} belongs there")));
        };
        read(value).ok_or_else(|| {
            let text: String = shown(value).chars().take(80).collect();
            self.error(key, &format!("is {text}, where {expected} belongs; correct the file"))
        })
    }
}

/// Values that must be there.
impl Config {
    /// A whole number from 0 to 2³¹ - 1; a list in which all are the same counts as that one.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn usize(&self, key: &str) -> Result<usize, FileError> {
        self.value(key, "a whole number", one_or_equal)
    }

    /// A number; infinite or not a number (NaN) if the file says so.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn f64(&self, key: &str) -> Result<f64, FileError> {
        self.value(key, "a number", number)
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn bool(&self, key: &str) -> Result<bool, FileError> {
        self.value(key, "`true` or `false`", Value::as_bool)
    }

    /// A text.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn text(&self, key: &str) -> Result<String, FileError> {
        self.value(key, "a text in quotes", text)
    }

    /// A list of whole numbers.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn usizes(&self, key: &str) -> Result<Vec<usize>, FileError> {
        self.value(key, "a list of whole numbers", |value| value.as_array()?.iter().map(whole).collect())
    }

    /// A list of texts.
    ///
    /// # Errors
    /// When it is missing, or something else.
    pub fn texts(&self, key: &str) -> Result<Vec<String>, FileError> {
        self.value(key, "a list of texts", |value| value.as_array()?.iter().map(text).collect())
    }

    /// Texts by their names.
    ///
    /// # Errors
    /// When they are missing, or something else.
    pub fn text_map(&self, key: &str) -> Result<BTreeMap<String, String>, FileError> {
        let entry = |(name, value): (&String, &Value)| Some((name.clone(), text(value)?));
        self.value(key, "an object of texts", |value| value.as_object()?.iter().map(entry).collect())
    }
}

/// Values that may be missing, or `null`.
impl Config {
    /// [`usize`](Config::usize), or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn usize_or(&self, key: &str, default: usize) -> Result<usize, FileError> {
        if self.has(key) { self.usize(key) } else { Ok(default) }
    }

    /// A size of a network: a whole number from 1 to `most`, or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn size_or(&self, key: &str, default: usize, most: usize) -> Result<usize, FileError> {
        match self.usize_or(key, default)? {
            size if (1..=most).contains(&size) => Ok(size),
            size => {
                Err(self.error(key, &format!("is {size}, where 1 to {most} is possible; correct the file")))
            }
        }
    }

    /// [`f64`](Config::f64), or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn f64_or(&self, key: &str, default: f64) -> Result<f64, FileError> {
        if self.has(key) { self.f64(key) } else { Ok(default) }
    }

    /// [`bool`](Config::bool), or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool, FileError> {
        if self.has(key) { self.bool(key) } else { Ok(default) }
    }

    /// [`text`](Config::text), or `default` if there is none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn text_or(&self, key: &str, default: &str) -> Result<String, FileError> {
        if self.has(key) { self.text(key) } else { Ok(default.to_owned()) }
    }

    /// [`usizes`](Config::usizes), or `default` if there are none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn usizes_or(&self, key: &str, default: &[usize]) -> Result<Vec<usize>, FileError> {
        if self.has(key) { self.usizes(key) } else { Ok(default.to_vec()) }
    }

    /// [`texts`](Config::texts), or `default` if there are none.
    ///
    /// # Errors
    /// When it is something else.
    pub fn texts_or(&self, key: &str, default: &[&str]) -> Result<Vec<String>, FileError> {
        match self.has(key) {
            true => self.texts(key),
            false => Ok(default.iter().map(|text| text.to_string()).collect()),
        }
    }
}

/// The only value of a key that a network supports. No entry, or `null`, means the same.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Supported {
    /// This truth value.
    Bool(bool),
    /// This number.
    Number(f64),
    /// This text.
    Text(&'static str),
    /// No value at all.
    Unset,
}

impl Config {
    /// Refuses a file that asks for more than a network does. `remedy` ends the error's text: "`key` is VALUE, which …".
    ///
    /// # Errors
    /// When a key has another value than the supported one.
    pub fn check(&self, supported: &[(&str, Supported)], remedy: &str) -> Result<(), FileError> {
        for &(key, only) in supported {
            let fits = match only {
                Supported::Bool(only) => self.bool_or(key, only)? == only,
                Supported::Number(only) => self.f64_or(key, only)? == only,
                // "swish" is what some files call silu.
                Supported::Text(only) => self.text_or(key, only)?.replace("swish", "silu") == only,
                Supported::Unset => !self.has(key),
            };
            if !fits {
                let said = self.text(key).unwrap_or_else(|_| shown(&self.entries[key]));
                let said: String = said.chars().take(80).collect();
                return Err(self.error(key, &format!("is {said}, which {remedy}")));
            }
        }
        Ok(())
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let (file, len) = file::open(path)?;
    if len > LIMIT {
        return Err(format!("has {len} bytes, which is no config's size; check that it is the right file"));
    }
    let mut json = String::new();
    file.take(LIMIT).read_to_string(&mut json).map_err(unreadable)?;
    Ok(json)
}

/// Stands around Python's words once they are texts. No file has a use for it (it is Unicode's first private character).
const MARK: char = '\u{E000}';

/// What Python writes for numbers that JSON does not have. The longer word comes first.
const WORDS: [(&str, f64); 3] =
    [("-Infinity", f64::NEG_INFINITY), ("Infinity", f64::INFINITY), ("NaN", f64::NAN)];

/// Python's words, outside texts, as marked texts: what is left is JSON.
fn marked(json: &str) -> String {
    let (mut out, mut rest, mut quoted) = (String::with_capacity(json.len()), json, false);
    while let Some(c) = rest.chars().next() {
        if !quoted && let Some(word) = word_at(rest) {
            out.extend(['"', MARK]);
            out.push_str(word);
            out.extend([MARK, '"']);
            rest = &rest[word.len()..];
            continue;
        }
        // A backslash takes the next character with it: a quote after it does not end the text.
        let len = match c {
            '\\' if quoted => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            _ => c.len_utf8(),
        };
        quoted ^= c == '"';
        out.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    out
}

/// The word that a text begins with, unless it is used as a key.
fn word_at(text: &str) -> Option<&'static str> {
    let (word, _) = WORDS.iter().find(|(word, _)| text.starts_with(word))?;
    (!text[word.len()..].trim_start().starts_with(':')).then_some(word)
}

/// A value as the file has it.
fn shown(value: &Value) -> String {
    value.to_string().replace(&format!("\"{MARK}"), "").replace(&format!("{MARK}\""), "")
}

/// A whole number, or a list in which all are this one.
fn one_or_equal(value: &Value) -> Option<usize> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let first = whole(list.first()?)?;
    list.iter().all(|value| whole(value) == Some(first)).then_some(first)
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().filter(|&number| number < 1 << 31).map(|number| number as usize)
}

fn number(value: &Value) -> Option<f64> {
    let word = |text: &str| WORDS.iter().find(|(word, _)| text.trim_matches(MARK) == *word).map(|(_, x)| *x);
    match value {
        Value::String(text) if text.starts_with(MARK) => word(text),
        other => other.as_f64(),
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.starts_with(MARK)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_numbers_and_a_byte_order_mark_are_read() {
        let json =
            "\u{FEFF}{\"a\": -Infinity, \"b\": [NaN, 1], \"c\": \"NaN, \\\"Infinity\", \"d\":Infinity}";
        let config = Config::parse("c.json", json).unwrap();
        assert_eq!(config.f64("a").unwrap(), f64::NEG_INFINITY);
        assert_eq!(config.f64("d").unwrap(), f64::INFINITY);
        assert_eq!(config.text("c").unwrap(), "NaN, \"Infinity");
        let error = config.usizes("b").unwrap_err();
        assert_eq!(error.what, "`b` is [NaN,1], where a list of whole numbers belongs; correct the file");
        let error = config.text("a").unwrap_err();
        assert_eq!(error.what, "`a` is -Infinity, where a text in quotes belongs; correct the file");
        let nan = Config::parse("c.json", "{\"x\": NaN}").unwrap();
        assert!(nan.f64("x").unwrap().is_nan());
    }

    #[test]
    fn other_words_are_no_json() {
        for json in [
            "{\"a\": nan}",
            "{\"a\": +Infinity}",
            "{\"a\": NaNNaN}",
            "{\"a\": Infinity1}",
            "{NaN: 1}",
            "{\"\\",
        ] {
            match Config::parse("c.json", json) {
                Err(error) => assert!(error.what.starts_with("is no JSON"), "{error}"),
                Ok(config) => panic!("{json} is read as {config:?}"),
            }
        }
    }

    #[test]
    fn what_a_network_does_not_support_is_refused() {
        let supported = [
            ("act", Supported::Text("silu")),
            ("flip", Supported::Bool(true)),
            ("kernel", Supported::Number(3.0)),
            ("extra", Supported::Unset),
        ];
        let check = |json: &str| Config::parse("c.json", json).unwrap().check(&supported, "it does not do");
        for json in [
            "{}",
            "{\"act\": \"swish\"}",
            "{\"act\": null, \"extra\": null}",
            "{\"act\": \"silu\", \"flip\": true, \"kernel\": 3}",
        ] {
            assert_eq!(check(json), Ok(()));
        }
        for (json, what) in [
            ("{\"act\": \"gelu\"}", "`act` is gelu, which it does not do"),
            ("{\"flip\": false}", "`flip` is false, which it does not do"),
            ("{\"kernel\": NaN}", "`kernel` is NaN, which it does not do"),
            ("{\"extra\": [1]}", "`extra` is [1], which it does not do"),
            ("{\"act\": 1}", "`act` is 1, where a text in quotes belongs; correct the file"),
        ] {
            assert_eq!(check(json).unwrap_err().what, what);
        }
    }
}
