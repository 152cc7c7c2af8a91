//! Errors as a reader of a notebook wants them: by cell and line.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::memory::Memory;
use crate::run::strip_ansi;

/// How many of the compiler's errors are shown.
const MOST_ERRORS: usize = 5;
/// And how many lines of each.
const MOST_LINES: usize = 40;

const RED: &str = "\u{1b}[1;31m";
const BLUE: &str = "\u{1b}[1;34m";
const PLAIN: &str = "\u{1b}[0m";

/// What is reported instead of a result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The kind of error, as a word or two.
    pub name: String,
    pub message: String,
    /// Lines, with colours.
    pub trace: Vec<String>,
}

impl Report {
    /// A report whose trace is name, message and these lines.
    pub fn new(name: &str, message: &str, more: &[String]) -> Self {
        let first = format!("{RED}{name}{PLAIN}: {message}");
        let trace = first.lines().map(str::to_owned).chain(more.iter().cloned()).collect();
        Self { name: name.into(), message: message.into(), trace }
    }

    /// The content of an `error` message and of a reply.
    pub fn content(&self) -> Value {
        json!({ "ename": self.name, "evalue": self.message, "traceback": self.trace })
    }
}

/// A line of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The number in the cell's brackets.
    pub cell: usize,
    /// From 1.
    pub line: usize,
    /// How far the line was moved to the right.
    pub text: String,
}

impl Place {
    fn describe(&self, current: usize) -> String {
        if self.cell == current {
            format!("line {}", self.line)
        } else {
            format!("cell [{}], line {}", self.cell, self.line)
        }
    }
}

/// Finds lines of the file that evcxr makes of all cells in the cells.
pub struct Lines<'a> {
    memory: &'a Memory,
    generated: Vec<&'a str>,
}

impl<'a> Lines<'a> {
    /// For this generated file.
    pub fn new(memory: &'a Memory, generated: &'a str) -> Self {
        Self { memory, generated: generated.lines().collect() }
    }

    /// The place that a line, from 1, of the generated file comes from.
    ///
    /// The same text may stand in several cells: the place counts whose neighbours agree best, and of equal ones the latest.
    pub fn place(&self, line: usize) -> Option<Place> {
        let at = line.checked_sub(1)?;
        let text = self.generated.get(at)?.trim();
        if text.is_empty() {
            return None;
        }
        let mut best: Option<(usize, Place)> = None;
        let mut seen = std::collections::BTreeSet::new();
        for cell in self.memory.cells.iter().rev() {
            // Of cells that ran several times only the last counts.
            if !seen.insert(cell.source.as_str()) {
                continue;
            }
            let lines: Vec<&str> = cell.source.lines().collect();
            for (k, candidate) in lines.iter().enumerate() {
                let candidate = *candidate;
                let same = candidate.trim() == text;
                // evcxr splits lines with several statements, and wraps the last expression to show it.
                let part = (text.len() > 3 && candidate.contains(text))
                    || (candidate.trim().len() > 2 && text.contains(candidate.trim()));
                if !same && !part {
                    continue;
                }
                let score =
                    usize::from(same) + self.common(&lines, k, at, 1) + self.common(&lines, k, at, -1);
                if best.as_ref().is_none_or(|(s, _)| score > *s) {
                    best = Some((score, Place { cell: cell.count, line: k + 1, text: candidate.to_owned() }));
                }
            }
        }
        best.map(|(_, place)| place)
    }

    /// How many lines agree from here on, in one direction.
    fn common(&self, lines: &[&str], mut k: usize, mut at: usize, step: isize) -> usize {
        let mut n = 0;
        loop {
            let (Some(a), Some(b)) = (k.checked_add_signed(step), at.checked_add_signed(step)) else {
                return n;
            };
            let (Some(x), Some(y)) = (lines.get(a), self.generated.get(b)) else { return n };
            if x.trim() != y.trim() {
                return n;
            }
            (k, at, n) = (a, b, n + 1);
        }
    }
}

/// The compiler's errors in rustc's own words, with cells and lines of cells. Nothing if none is about a cell.
pub fn compiler(messages: &[Value], lines: &Lines<'_>, current: usize) -> Option<Report> {
    let mut shown: Vec<(String, Vec<String>)> = Vec::new();
    for message in messages.iter().filter(|m| m["level"] == "error") {
        let spans = message["spans"].as_array().into_iter().flatten();
        let in_cell = |span: &Value| {
            let span = local(span)?;
            lines.place(usize::try_from(span["line_start"].as_u64()?).ok()?)
        };
        let Some(place) = spans.filter(|s| s["is_primary"] == true).find_map(in_cell) else { continue };
        let text = rendered(message["rendered"].as_str().unwrap_or_default(), lines, &place, current);
        let heading = heading(message);
        if !shown.iter().any(|(h, t)| *h == heading && *t == text) {
            shown.push((heading, text));
        }
    }
    let (first, _) = shown.first()?;
    let mut report = Report { name: "Error".into(), message: first.clone(), trace: Vec::new() };
    let more = shown.len().saturating_sub(MOST_ERRORS);
    for (k, (_, text)) in shown.iter().take(MOST_ERRORS).enumerate() {
        if k > 0 {
            report.trace.push(String::new());
        }
        report.trace.extend(text.iter().cloned());
    }
    if more > 0 {
        let s = if more == 1 { "" } else { "s" };
        report
            .trace
            .push(format!("\n… and {more} more error{s}: mend the first ones and run the cell again"));
    }
    for (heading, _) in &shown {
        if let Some(hint) = moved(heading, lines.memory) {
            report.trace.push(String::new());
            report.trace.push(format!("{BLUE}help{PLAIN}: {hint}"));
            break;
        }
    }
    Some(report)
}

/// A span in the generated file: the place itself, or that of the macro's call.
fn local(span: &Value) -> Option<&Value> {
    if span["file_name"].as_str().is_some_and(|f| f == "src/lib.rs") {
        return Some(span);
    }
    span.get("expansion").filter(|e| e.is_object()).and_then(|e| local(&e["span"]))
}

fn heading(message: &Value) -> String {
    let text = message["message"].as_str().unwrap_or_default();
    match message["code"]["code"].as_str() {
        Some(code) => format!("[{code}] {text}"),
        None => text.to_owned(),
    }
}

/// rustc's text with the numbers of the cell's lines in its margin.
fn rendered(text: &str, lines: &Lines<'_>, place: &Place, current: usize) -> Vec<String> {
    let mut out = Vec::new();
    // Whether the lines shown are those of cells, or of a library.
    let mut ours = true;
    for line in text.trim_end().lines() {
        let line = &without_generated(line, lines, current);
        let plain = strip_ansi(line);
        let trimmed = plain.trim_start();
        // What follows is about the cell again, until an arrow says otherwise.
        ours |= trimmed.starts_with("help:") || trimmed.starts_with("note:");
        if let Some(rest) = trimmed.strip_prefix("--> ").or_else(|| trimmed.strip_prefix("::: ")) {
            ours = rest.starts_with("src/lib.rs:");
            let number = rest.strip_prefix("src/lib.rs:").and_then(|r| r.split(':').next()?.parse().ok());
            if let Some(found) = number.and_then(|n| lines.place(n)) {
                let column = rest.rsplit(':').next().unwrap_or_default();
                let indent = " ".repeat(plain.len() - trimmed.len());
                out.push(format!("{indent}{BLUE}-->{PLAIN} {}, column {column}", found.describe(current)));
                continue;
            }
        }
        let digits = trimmed.len() - trimmed.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let margin = trimmed[digits..].trim_start().starts_with(['|', '+', '-', '~']);
        if digits > 0
            && margin
            && ours
            && let Some(found) = trimmed[..digits].parse().ok().and_then(|n: usize| lines.place(n))
        {
            let width = plain.len() - trimmed.len() + digits;
            out.push(format!("{BLUE}{:>width$}{PLAIN}{}", found.line, &trimmed[digits..]));
            continue;
        }
        out.push(colour(line));
    }
    if out.len() > MOST_LINES {
        let more = out.len() - MOST_LINES;
        out.truncate(MOST_LINES);
        out.push(format!("… {more} more lines"));
    }
    if place.cell != current
        && let Some((name, item)) = lines.memory.items.iter().find(|(_, i)| {
            i.cell == place.cell && (i.line..i.line + i.source.lines().count()).contains(&place.line)
        })
    {
        let what = if item.is_type { "the type" } else { "" };
        let what = format!("{what} `{name}`");
        out.push(format!(
            "{BLUE}note{PLAIN}: this is {} of cell [{}], which no longer fits what this cell defines: run that cell again, mended",
            what.trim(),
            place.cell
        ));
    }
    out
}

/// Names such as `{closure@src/lib.rs:345:20: 345:27}` with the cell's line. Lines that only name a place stay.
fn without_generated(line: &str, lines: &Lines<'_>, current: usize) -> String {
    const MARK: &str = "@src/lib.rs:";
    let Some((before, after)) = line.split_once(MARK) else { return line.to_owned() };
    let end = after.find(|c: char| !c.is_ascii_digit() && c != ':' && c != ' ').unwrap_or(after.len());
    let number = after.split(':').next().and_then(|n| n.parse().ok());
    let place = number.and_then(|n| lines.place(n)).map_or("cell".to_owned(), |p| p.describe(current));
    format!("{before}@{place}{}", without_generated(&after[end..], lines, current))
}

/// The colours of rustc, where its text came without any.
fn colour(line: &str) -> String {
    if line.contains('\u{1b}') {
        return line.to_owned();
    }
    match line.split_once(':') {
        Some((word, rest)) if word.starts_with("error") => format!("{RED}{word}{PLAIN}:{rest}"),
        _ => line.to_owned(),
    }
}

/// Where a variable went that is no longer there.
fn moved(heading: &str, memory: &Memory) -> Option<String> {
    let (_, rest) = heading.strip_prefix("[E0425] ")?.split_once('`')?;
    let name = rest.split('`').next()?;
    let cell = *memory.lost.get(name)?;
    let Some((line, text)) = memory.mention(cell, name) else {
        return Some(format!("`{name}` was there before cell [{cell}], which ended without it"));
    };
    Some(format!(
        "`{name}` was moved in cell [{cell}], line {line}: `{text}`.\n      What takes a value keeps it: write `&{name}` or `{name}.clone()` there, and run the cell that makes `{name}` again"
    ))
}

/// The lines of cells in a trace, from the inside out. A trace has an offset and a cell's library on each line.
pub fn frames(trace: &str, lines: &Lines<'_>) -> Vec<Place> {
    let mut found = Vec::new();
    for (offset, library) in trace.lines().filter_map(|l| l.split_once(' ')) {
        let Ok(offset) = offset.parse() else { continue };
        let numbers = source_lines(library, offset).unwrap_or_default();
        found.extend(numbers.into_iter().filter_map(|n| lines.place(n)));
    }
    found.dedup();
    found
}

/// The lines of `src/lib.rs` at an offset in a library, functions that were inlined there included.
fn source_lines(library: &str, offset: u64) -> Option<Vec<usize>> {
    let loader = addr2line::Loader::new(library).ok()?;
    let mut frames = loader.find_frames(offset).ok()?;
    let mut lines = Vec::new();
    while let Ok(Some(frame)) = frames.next() {
        let Some(place) = frame.location else { continue };
        // Not that of a crate: cells lie in the kernel's own folder, beside their libraries.
        let folder = std::path::Path::new(library).ancestors().nth(2)?;
        let in_cell =
            place.file.is_some_and(|f| f == "src/lib.rs" || std::path::Path::new(f).starts_with(folder));
        if let Some(line) = place.line.filter(|_| in_cell) {
            lines.push(line as usize);
        }
    }
    Some(lines)
}

/// A panic, a failed `?` or a death, with the frames in cells.
pub fn with_frames(name: &str, message: &str, frames: &[Place], current: usize, notes: &[String]) -> Report {
    let mut more = Vec::new();
    for place in frames {
        let mut text = place.describe(current);
        let _ = write!(text, ": {}", place.text.trim());
        more.push(format!("{BLUE}  at{PLAIN} {text}"));
    }
    more.extend(notes.iter().cloned());
    let place = frames.first().map(|p| p.describe(current));
    let message_with_place = place.map_or_else(|| message.to_owned(), |p| format!("{message} ({p})"));
    let mut report = Report::new(name, message, &more);
    report.message = message_with_place;
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(cells: &[&str]) -> Memory {
        let mut memory = Memory::default();
        for (k, source) in cells.iter().enumerate() {
            memory.begin(k + 1, source);
            memory.define(k + 1, source);
        }
        memory
    }

    #[test]
    fn a_line_is_found_by_its_neighbours() {
        let memory = memory(&["fn a() {\n    x();\n}", "fn b() {\n    x();\n}\nlet y = 2;"]);
        let generated = "use z;\nfn b() {\n    x();\n}\nfn a() {\n    x();\n}\nfn run() {\nlet y = 2;\n";
        let lines = Lines::new(&memory, generated);
        let at = |n| lines.place(n).map(|p| (p.cell, p.line));
        assert_eq!(at(3), Some((2, 2)));
        assert_eq!(at(6), Some((1, 2)));
        assert_eq!(at(9), Some((2, 4)));
        assert_eq!((at(1), at(99)), (None, None));
    }

    fn error(line: usize, code: &str, text: &str, rendered: &str) -> Value {
        json!({
            "level": "error", "message": text, "code": {"code": code}, "rendered": rendered,
            "spans": [{"file_name": "src/lib.rs", "line_start": line, "is_primary": true}],
        })
    }

    #[test]
    fn the_compilers_text_gets_the_cells_lines() {
        let memory = memory(&["let n: u32 =\n    \"a\";"]);
        let generated = format!("{}let n: u32 =\n    \"a\";\n", "x\n".repeat(172));
        let lines = Lines::new(&memory, &generated);
        let text = "error[E0308]: mismatched types\n   --> src/lib.rs:174:5\n    |\n174 |     \"a\";\n    |     ^^^ expected `u32`\n";
        let one = error(174, "E0308", "mismatched types", text);
        let generated_only = error(1, "E0599", "evcxr", "error: evcxr\n");
        let report = compiler(&[one.clone(), one, generated_only], &lines, 1).unwrap();
        assert_eq!(report.message, "[E0308] mismatched types");
        let plain: Vec<String> = report.trace.iter().map(|l| strip_ansi(l)).collect();
        let expected = [
            "error[E0308]: mismatched types",
            "   --> line 2, column 5",
            "    |",
            "  2 |     \"a\";",
            "    |     ^^^ expected `u32`",
        ];
        assert_eq!(plain, expected);
        assert_eq!(compiler(&[error(1, "E1", "x", "x")], &lines, 1), None);
    }

    #[test]
    fn a_librarys_lines_keep_their_numbers() {
        let memory = memory(&["spawn(move || x);"]);
        let lines = Lines::new(&memory, "x\nspawn(move || x);\n");
        let text = "error: m\n --> src/lib.rs:2:7\n  |\n2 | spawn(move || x);\nnote: within `{closure@src/lib.rs:2:7: 2:14}`\n --> /rust/library/std/src/thread.rs:2:8\n  |\n2 | pub fn spawn";
        let report = compiler(&[error(2, "E0277", "m", text)], &lines, 1).unwrap();
        let plain: Vec<String> = report.trace.iter().map(|l| strip_ansi(l)).collect();
        assert_eq!(plain[3], "1 | spawn(move || x);");
        assert_eq!(plain[4], "note: within `{closure@line 1}`");
        assert_eq!(plain[7], "2 | pub fn spawn");
    }

    #[test]
    fn a_moved_variable_is_explained() {
        let mut memory = memory(&["let x = f();", "let z = x + 1.0;", "x"]);
        memory.lost.insert("x".into(), 2);
        let lines = Lines::new(&memory, "x\n");
        let report =
            compiler(&[error(1, "E0425", "cannot find value `x` in this scope", "error: x")], &lines, 3)
                .unwrap();
        let text = strip_ansi(&report.trace.join("\n"));
        assert!(text.contains("`x` was moved in cell [2], line 1: `let z = x + 1.0;`"), "{text}");
        assert!(text.contains("x.clone()"));
    }

    #[test]
    fn an_older_cells_item_is_named() {
        let memory = memory(&["fn twice() -> i32 {\n    2 * once()\n}", "fn once() -> f32 { 1.0 }"]);
        let generated = "fn once() -> f32 { 1.0 }\nfn twice() -> i32 {\n    2 * once()\n}\n";
        let lines = Lines::new(&memory, generated);
        let report =
            compiler(&[error(3, "E0308", "mismatched types", "error: m\n --> src/lib.rs:3:9")], &lines, 2)
                .unwrap();
        let text = strip_ansi(&report.trace.join("\n"));
        assert!(text.contains("cell [1], line 2") && text.contains("`twice` of cell [1]"), "{text}");
    }
}
