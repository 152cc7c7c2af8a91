//! A notebook as a JSON value: whatever this crate does not know about stays as it is.
//!
//! Typed structs would drop fields that Jupyter, or a reader's extension, has put there. So a [`Notebook`] keeps the
//! parsed JSON and offers views of it. [`Notebook::to_text`] writes the very bytes that Jupyter writes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use crate::directives::Directives;
use crate::files;
use crate::meaning::{self, Meaning};

/// A notebook and the path it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Notebook {
    /// Where it was read from; [`Notebook::save`] writes there.
    pub path: PathBuf,
    /// Everything in the file.
    pub json: Value,
}

impl Notebook {
    /// Reads and checks a notebook file.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let text = String::from_utf8(bytes)
            .map_err(|e| anyhow!("{}: not UTF-8 (byte {})", path.display(), e.utf8_error().valid_up_to()))?;
        Self::parse(path, &text)
    }

    /// Takes the text of a notebook; `path` is for messages and for [`Notebook::save`].
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            bail!("{}: the file is empty: delete it, or get it back from git", path.display());
        }
        let json: Value = serde_json::from_str(&python_json::read(text)).map_err(|e| match conflict(text) {
            Some(line) => anyhow!(
                "{}:{line}: git's conflict marks: `cargo nbs clean --install-hook`, then `git checkout --merge` of this file \
                 merges it cell by cell; `git checkout --ours` or `--theirs` takes one side",
                path.display()
            ),
            None => {
                let (path, line, column) = (path.display(), e.line(), e.column());
                anyhow!("{path}:{line}:{column}: not a notebook, its JSON is broken: {e}")
            }
        })?;
        check_structure(&json)
            .with_context(|| format!("{}: not a notebook this tool can read", path.display()))?;
        Ok(Self { path: path.to_owned(), json })
    }

    /// The file's name without folder and ending: `01_foundations`.
    pub fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The minor version of the format, 0 to 5. Cells have ids from 5 on.
    pub fn minor(&self) -> u64 {
        self.json["nbformat_minor"].as_u64().unwrap_or(0)
    }

    /// Is it a notebook of Rust? One that names no language counts as one; those of other languages are left alone.
    pub fn is_rust(&self) -> bool {
        let metadata = &self.json["metadata"];
        let language = metadata["kernelspec"]["language"]
            .as_str()
            .or_else(|| metadata["language_info"]["name"].as_str());
        language.is_none_or(|l| l.eq_ignore_ascii_case("rust"))
    }

    /// All cells, in order.
    pub fn cells(&self) -> impl Iterator<Item = Cell<'_>> {
        let cells = self.json["cells"].as_array().map_or(&[][..], Vec::as_slice);
        cells.iter().enumerate().map(|(index, json)| Cell { index, json })
    }

    /// The code cells, in order.
    pub fn code_cells(&self) -> impl Iterator<Item = Cell<'_>> {
        self.cells().filter(Cell::is_code)
    }

    /// The cell with this id.
    pub fn cell(&self, id: &str) -> Option<Cell<'_>> {
        self.cells().find(|c| c.id() == Some(id))
    }

    /// Access for changes to the cell at `index` (its place among all cells, as in [`Cell::index`]).
    pub fn cell_mut(&mut self, index: usize) -> CellMut<'_> {
        CellMut { json: &mut self.json["cells"][index] }
    }

    /// Identifies what the outputs of each code cell depend on: what it and all code cells above mean to the compiler,
    /// without comments, layout, and the cuts between cells that only define something. By index among all cells.
    ///
    /// `nbs run` stores it in the cell ([`CellMut::set_hash`]); where it differs, the saved outputs are stale.
    pub fn source_hashes(&self) -> BTreeMap<usize, String> {
        let mut meaning = Meaning::new(self.code_cells().map(|c| c.source()));
        self.code_cells().map(|cell| (cell.index, meaning.add(&cell))).collect()
    }

    /// The code cells, by index, whose outputs were made by the cell's code and that of the code cells above.
    ///
    /// A cell that only defines something has no output of its own: where the next cell that does more is fresh, it was there.
    pub fn fresh(&self) -> BTreeSet<usize> {
        let hashes = self.source_hashes();
        let mut fresh = BTreeSet::new();
        let mut next = false;
        for cell in self.code_cells().collect::<Vec<_>>().into_iter().rev() {
            let own = cell.stored_hash() == hashes.get(&cell.index).map(String::as_str);
            let defines = meaning::only_defines(&cell);
            if own || (defines && next) {
                fresh.insert(cell.index);
            }
            if !defines || own {
                next = own;
            }
        }
        fresh
    }

    /// The notebook in the form in which Jupyter saves it: sorted keys, one space of indent, text split at line ends.
    pub fn to_text(&self) -> String {
        let mut json = self.json.clone();
        split_texts(&mut json);
        sort_keys(&mut json);
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, JupyterFormatter::default());
        json.serialize(&mut serializer).expect("a JSON value can be written to memory");
        out.push(b'\n');
        python_json::write(String::from_utf8(out).expect("JSON is UTF-8"))
    }

    /// Writes the notebook back to where it came from, atomically.
    pub fn save(&self) -> Result<()> {
        self.save_atomic(&self.path)
    }

    /// Writes the notebook to `path`: a reader sees the old file or the new one, never half of it.
    pub fn save_atomic(&self, path: &Path) -> Result<()> {
        files::write_atomic(path, self.to_text().as_bytes())
    }
}

/// A view of one cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell<'a> {
    /// Its place among all cells of the notebook, from 0.
    pub index: usize,
    json: &'a Value,
}

impl<'a> Cell<'a> {
    /// The cell as JSON.
    pub fn json(&self) -> &'a Value {
        self.json
    }

    /// The id that nbformat 4.5 gives every cell.
    pub fn id(&self) -> Option<&'a str> {
        self.json["id"].as_str()
    }

    /// How messages call the cell: by id, or by number (from 1) where it has none.
    pub fn label(&self) -> String {
        self.id().map_or_else(|| format!("cell number {}", self.index + 1), |id| format!("cell `{id}`"))
    }

    /// Is it a code cell?
    pub fn is_code(&self) -> bool {
        self.json["cell_type"] == "code"
    }

    /// Is it a Markdown cell?
    pub fn is_markdown(&self) -> bool {
        self.json["cell_type"] == "markdown"
    }

    /// The text of the cell, with `\n` line ends.
    pub fn source(&self) -> String {
        join_lines(&self.json["source"]).replace("\r\n", "\n")
    }

    /// The `//|` lines at the top of the cell.
    pub fn directives(&self) -> Result<Directives> {
        Directives::parse(&self.source())
            .map_err(|e| anyhow!("{}, line {}: {}", self.label(), e.line, e.message))
    }

    /// The saved outputs.
    pub fn outputs(&self) -> &'a [Value] {
        self.json["outputs"].as_array().map_or(&[], Vec::as_slice)
    }

    /// A field of the cell's metadata (`Null` if absent).
    pub fn metadata(&self, key: &str) -> &'a Value {
        &self.json["metadata"][key]
    }

    /// The hash that `nbs run` stored with the outputs.
    pub fn stored_hash(&self) -> Option<&'a str> {
        self.metadata("nbs")["hash"].as_str()
    }

    /// What went wrong when the saved outputs were made, if anything did: an error output, or a panic on stderr.
    pub fn failure(&self) -> Option<String> {
        self.outputs().iter().find_map(output_failure)
    }
}

/// What an output says of a failure: an error of the compiler or kernel, or a panic (which is only text on stderr).
pub fn output_failure(output: &Value) -> Option<String> {
    match output["output_type"].as_str()? {
        "error" => {
            let (name, value) =
                (output["ename"].as_str().unwrap_or("error"), output["evalue"].as_str().unwrap_or(""));
            Some(format!("{name}: {value}").trim_end_matches([':', ' ']).to_owned())
        }
        "stream" if output["name"] == "stderr" => {
            let text = join_lines(&output["text"]);
            // "thread 'main' panicked at src/lib.rs:3:5:", with a thread id in newer releases of Rust.
            text.lines().find(|l| l.starts_with("thread '") && l.contains(" panicked at ")).map(str::to_owned)
        }
        _ => None,
    }
}

/// A cell to change.
#[derive(Debug)]
pub struct CellMut<'a> {
    json: &'a mut Value,
}

impl CellMut<'_> {
    /// The cell as JSON.
    pub fn json(&mut self) -> &mut Value {
        self.json
    }

    /// Replaces the text.
    pub fn set_source(&mut self, source: &str) {
        self.json["source"] = split_lines(source);
    }

    /// Replaces the outputs.
    pub fn set_outputs(&mut self, outputs: Vec<Value>) {
        self.json["outputs"] = Value::Array(outputs);
    }

    /// Sets the number in the brackets left of the cell.
    pub fn set_execution_count(&mut self, count: Option<u64>) {
        self.json["execution_count"] = json!(count);
    }

    /// Sets a field of the metadata; `Null` removes it.
    pub fn set_metadata(&mut self, key: &str, value: Value) {
        if !self.json["metadata"].is_object() {
            self.json["metadata"] = json!({});
        }
        let map = self.json["metadata"].as_object_mut().expect("made above");
        match value {
            Value::Null => drop(map.remove(key)),
            value => drop(map.insert(key.to_owned(), value)),
        }
    }

    /// Records that the outputs belong to this [`Notebook::source_hashes`]. Only `nbs run` may do so, and
    /// `nbs fmt`, which changes only the form of the code, not what it does.
    pub fn set_hash(&mut self, hash: &str) {
        self.set_metadata("nbs", json!({ "hash": hash }));
    }
}

/// The first 16 hexadecimal digits of a digest.
pub(crate) fn hex16(digest: &[u8]) -> String {
    digest[..8].iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02x}");
        s
    })
}

/// Text that a notebook holds as one string or as a list of lines.
pub fn join_lines(text: &Value) -> String {
    match text {
        Value::String(s) => s.clone(),
        Value::Array(lines) => lines.iter().filter_map(Value::as_str).collect(),
        _ => String::new(),
    }
}

/// Text as the list of lines that Jupyter saves: each with its line end.
pub fn split_lines(text: &str) -> Value {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = line_end(rest);
        lines.push(json!(rest[..end]));
        rest = &rest[end..];
    }
    Value::Array(lines)
}

/// The length of the first line, line end included, by the rules of Python's `splitlines` (which makes the file's form).
fn line_end(text: &str) -> usize {
    const ENDS: [char; 9] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}'];
    match text.find(|c| ENDS.contains(&c) || c == '\u{2029}') {
        None => text.len(),
        Some(at) if text[at..].starts_with("\r\n") => at + 2,
        Some(at) => at + text[at..].chars().next().map_or(0, char::len_utf8),
    }
}

/// Brings every text to the form in which Jupyter saves it.
fn split_texts(notebook: &mut Value) {
    let Some(cells) = notebook["cells"].as_array_mut() else {
        return;
    };
    for cell in cells {
        let joined = join_lines(&cell["source"]);
        cell["source"] = split_lines(&joined);
        if let Some(attachments) = cell.get_mut("attachments").and_then(Value::as_object_mut) {
            attachments.values_mut().for_each(split_bundle);
        }
        for output in cell.get_mut("outputs").and_then(Value::as_array_mut).into_iter().flatten() {
            match output["output_type"].as_str() {
                Some("stream") => output["text"] = split_lines(&join_lines(&output["text"])),
                Some("display_data" | "execute_result") => split_bundle(&mut output["data"]),
                _ => {}
            }
        }
    }
}

/// Splits the text formats among a picture's or a value's representations, and joins the others.
fn split_bundle(bundle: &mut Value) {
    for (mime, data) in bundle.as_object_mut().into_iter().flatten() {
        let is_json =
            mime == "application/json" || (mime.starts_with("application/") && mime.ends_with("+json"));
        let is_text = data.is_string() || data.as_array().is_some_and(|a| a.iter().all(Value::is_string));
        if is_json || !is_text {
            continue;
        }
        let text = join_lines(data);
        let splits =
            mime.starts_with("text/") || ["application/javascript", "image/svg+xml"].contains(&mime.as_str());
        *data = if splits { split_lines(&text) } else { json!(text) };
    }
}

fn sort_keys(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(sort_keys),
        Value::Object(map) => {
            map.values_mut().for_each(sort_keys);
            map.sort_keys();
        }
        _ => {}
    }
}

/// serde_json's pretty form with one space of indent, and floats as Python prints them.
#[derive(Default)]
struct JupyterFormatter {
    depth: usize,
    has_value: bool,
}

impl JupyterFormatter {
    fn new_line<W: ?Sized + io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(b" "))
    }

    fn open<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.has_value = false;
        writer.write_all(bracket)
    }

    fn close<W: ?Sized + io::Write>(&mut self, writer: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if self.has_value {
            self.new_line(writer)?;
        }
        self.has_value = true;
        writer.write_all(bracket)
    }

    fn separate<W: ?Sized + io::Write>(&self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(b",")?;
        }
        self.new_line(writer)
    }
}

impl serde_json::ser::Formatter for JupyterFormatter {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(python_float(value).as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open(writer, b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.close(writer, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_value = true;
        Ok(())
    }
}

/// The shortest digits that read back as the same number, with an exponent where Python has one: 1e-05, 1e+16.
fn python_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("`{:e}` always writes an exponent");
    let exponent: i32 = exponent.parse().expect("`{:e}` writes a whole exponent");
    if (-4..16).contains(&exponent) || value == 0.0 {
        return format!("{value:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// The line (from 1) at which git's marks of conflict begin, if there are any.
pub fn conflict(text: &str) -> Option<usize> {
    let begin = text.lines().position(|l| l.starts_with("<<<<<<< "))?;
    text.lines().skip(begin).any(|l| l.starts_with(">>>>>>> ")).then_some(begin + 1)
}

/// What Python writes as JSON and reads again, though JSON knows no such thing: NaN, infinities, halves of characters.
///
/// While a notebook is in memory, they stand in strings that no text has, since they begin with a code point that
/// Unicode keeps free of characters.
mod python_json {
    use std::borrow::Cow;

    /// Begins a string that stands for a number.
    const NUMBER: char = '\u{fdd0}';
    /// Stands before the four digits of half a character.
    pub(super) const HALF: char = '\u{fdd1}';
    const NUMBERS: [&str; 3] = ["NaN", "-Infinity", "Infinity"];

    /// JSON, of what may be Python's JSON.
    pub fn read(text: &str) -> Cow<'_, str> {
        if !NUMBERS.iter().any(|n| text.contains(n)) && !text.contains("\\ud") && !text.contains("\\uD") {
            return Cow::Borrowed(text);
        }
        let mut json = String::with_capacity(text.len());
        let mut rest = text;
        let mut in_string = false;
        while let Some(c) = rest.chars().next() {
            let number = NUMBERS.iter().find(|n| !in_string && rest.starts_with(**n));
            let taken = match (number, c) {
                (Some(number), _) => {
                    json += &format!("\"{NUMBER}{number}\"");
                    number.len()
                }
                (None, '\\') if in_string => escape(rest, &mut json),
                (None, _) => {
                    in_string ^= c == '"';
                    json.push(c);
                    c.len_utf8()
                }
            };
            rest = &rest[taken..];
        }
        Cow::Owned(json)
    }

    /// Copies an escape, or puts in what stands for half a character; returns how long it is in the text.
    fn escape(text: &str, json: &mut String) -> usize {
        let unit = |text: &str| u16::from_str_radix(text.strip_prefix("\\u")?.get(..4)?, 16).ok();
        let length = match (unit(text), text.get(6..).and_then(unit)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(half @ 0xd800..=0xdfff), _) => {
                *json += &format!("{HALF}{half:04x}");
                return 6;
            }
            _ => 1 + text[1..].chars().next().map_or(0, char::len_utf8),
        };
        *json += &text[..length];
        length
    }

    /// Undoes [`read`].
    pub fn write(json: String) -> String {
        if !json.contains([NUMBER, HALF]) {
            return json;
        }
        let json = NUMBERS.iter().fold(json, |json, n| json.replace(&format!("\"{NUMBER}{n}\""), n));
        let mut parts = json.split(HALF);
        let mut text = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let digits = part.get(..4).and_then(|d| u16::from_str_radix(d, 16).ok());
            let is_half = digits.is_some_and(|d| (0xd800..=0xdfff).contains(&d));
            text += if is_half { "\\u" } else { "\u{fdd1}" };
            text += part;
        }
        text
    }
}

/// The line (from 1) of the first half of a character, which no text can hold.
pub fn half_character(text: &str) -> Option<usize> {
    text.lines().position(|l| l.contains(python_json::HALF)).map(|i| i + 1)
}

fn check_structure(json: &Value) -> Result<()> {
    let top = json.as_object().context("the file does not hold a JSON object")?;
    match top.get("nbformat").and_then(Value::as_u64) {
        Some(4) => {}
        Some(old @ 1..=3) => {
            bail!("it is in format {old}: open it in Jupyter once and save it, which makes it format 4")
        }
        Some(new) => bail!("it is in format {new}, and only format 4 is known"),
        None => bail!("`nbformat` is missing"),
    }
    let cells = top.get("cells").and_then(Value::as_array).context("`cells` is missing")?;
    for (i, cell) in cells.iter().enumerate() {
        check_cell(cell).with_context(|| format!("cell number {}", i + 1))?;
    }
    Ok(())
}

fn check_cell(cell: &Value) -> Result<()> {
    let cell: &Map<String, Value> = cell.as_object().context("is not a JSON object")?;
    let kind = cell.get("cell_type").and_then(Value::as_str).context("has no `cell_type`")?;
    if !["code", "markdown", "raw"].contains(&kind) {
        bail!("has the unknown cell type `{kind}`");
    }
    let source = cell.get("source").context("has no `source`")?;
    if !source.is_string() && !source.as_array().is_some_and(|a| a.iter().all(Value::is_string)) {
        bail!("has a `source` that is neither a string nor a list of strings");
    }
    if cell.get("id").is_some_and(|id| !id.is_string()) {
        bail!("has an `id` that is not a string");
    }
    if cell.get("metadata").is_some_and(|m| !m.is_object()) {
        bail!("has `metadata` that is not an object");
    }
    match cell.get("outputs") {
        Some(Value::Array(outputs)) if outputs.iter().all(Value::is_object) => Ok(()),
        Some(_) => bail!("has `outputs` that are not a list of objects"),
        None if kind == "code" => bail!("has no `outputs`"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        let cases = [
            (0.1, "0.1"),
            (1e-5, "1e-05"),
            (1e16, "1e+16"),
            (1e15, "1000000000000000.0"),
            (-2.5e-7, "-2.5e-07"),
            (1e300, "1e+300"),
            (0.0001, "0.0001"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
        ];
        for (value, text) in cases {
            assert_eq!(python_float(value), text);
        }
    }

    #[test]
    fn what_python_alone_reads_comes_out_as_it_went_in() {
        let cases = [
            r#"[NaN, -Infinity, Infinity, {"NaN": "NaN, -Infinity"}]"#,
            r#""cut \ud83d""#,
            r#""\udca9 \ud83d\ud83d\udca9 \\ud83d \" \ud83d""#,
            r#""漢\u00e9\n""#,
        ];
        for text in cases {
            let json = python_json::read(text);
            assert!(serde_json::from_str::<Value>(&json).is_ok(), "{json}");
            assert_eq!(python_json::write(json.into_owned()), text);
        }
        // Nothing else becomes readable.
        for broken in ["[NaNa]", "[nan]", "[--Infinity]", "\"\\ud8\"", "[+Infinity]"] {
            assert!(serde_json::from_str::<Value>(&python_json::read(broken)).is_err(), "{broken}");
        }
    }

    #[test]
    fn text_splits_where_python_splits_it() {
        let split = split_lines("a\nb\r\nc\rd\u{2028}e\u{85}f");
        assert_eq!(split, json!(["a\n", "b\r\n", "c\r", "d\u{2028}", "e\u{85}", "f"]));
        assert_eq!(split_lines(""), json!([]));
    }
}
