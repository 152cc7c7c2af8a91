//! The form of exported files: banner, hash, header, and the cells' text below their marks.

use sha2::{Digest, Sha256};

use crate::code;
use crate::directives::MARKER;
use crate::notebook::hex16;

const OWNED: &str = "// Owned by ";
const HASH: &str = "// nbs:hash ";

/// The line above an exported cell.
pub fn marker(place: &str, id: &str) -> String {
    format!("// %% {place} {id}")
}

/// The file with this body: first who owns it, then a hash that tells whether somebody edited it.
pub fn with_banner(place: &str, body: &str) -> String {
    format!(
        "{OWNED}{place}: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.\n\
         {HASH}{}\n{body}",
        hash(body)
    )
}

fn hash(body: &str) -> String {
    hex16(&Sha256::digest(body))
}

/// An exported file, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// The notebook that owns it, such as `notebooks/01_foundations.ipynb`.
    pub place: String,
    /// The hash in its banner.
    pub stored_hash: String,
    /// Everything below the banner.
    pub body: String,
    /// The part of the body above the first mark.
    pub header: String,
    /// The cells.
    pub sections: Vec<Section>,
}

/// An exported cell in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The notebook that its mark names.
    pub place: String,
    /// The cell's id.
    pub id: String,
    /// The line of the file (from 1) on which the mark stands.
    pub line: usize,
    /// The text below the mark, without blank lines around it.
    pub text: String,
    /// The line of the file (from 1) on which the text begins.
    pub text_line: usize,
}

impl Exported {
    /// Takes a file apart; `None` if it lacks the banner, and so is not ours.
    pub fn parse(text: &str) -> Option<Self> {
        // A checkout on Windows may have made the line ends longer.
        let text = text.replace("\r\n", "\n");
        let (banner, rest) = text.split_once('\n')?;
        let place = banner.strip_prefix(OWNED)?.split(": ").next()?;
        let (hash_line, body) = rest.split_once('\n')?;
        let stored_hash = hash_line.strip_prefix(HASH)?.trim();
        let (header, sections) = split_sections(body);
        Some(Self {
            place: place.to_owned(),
            stored_hash: stored_hash.to_owned(),
            body: body.to_owned(),
            header,
            sections,
        })
    }

    /// Does a `use` line above the first cell name this?
    pub fn imports(&self, name: &str) -> bool {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let lines = self.header.lines().filter(|l| !l.starts_with("//"));
        lines.flat_map(|l| l.split(|c| !is_word(c))).any(|word| word == name)
    }

    /// Did anybody change the file after it was exported?
    pub fn is_edited(&self) -> bool {
        hash(&self.body) != self.stored_hash
    }
}

/// Two lines of banner stand above the body.
const BANNER_LINES: usize = 2;

fn split_sections(body: &str) -> (String, Vec<Section>) {
    let mut header = String::new();
    let mut sections: Vec<Section> = Vec::new();
    for (i, line) in body.lines().enumerate() {
        let line_number = i + 1 + BANNER_LINES;
        if let Some((place, id)) = parse_marker(line) {
            let (text, text_line) = (String::new(), line_number + 1);
            sections.push(Section { place, id, line: line_number, text, text_line });
            continue;
        }
        match sections.last_mut() {
            // Blank lines above the text are not part of it.
            Some(section) if section.text.is_empty() && line.trim().is_empty() => section.text_line += 1,
            Some(section) => {
                section.text += line;
                section.text.push('\n');
            }
            None => {
                header += line;
                header.push('\n');
            }
        }
    }
    for section in &mut sections {
        section.text.truncate(section.text.trim_end().len());
    }
    (header.trim().to_owned(), sections)
}

fn parse_marker(line: &str) -> Option<(String, String)> {
    if !line.starts_with(MARKER) {
        return None;
    }
    let (place, id) = line.trim_end().strip_prefix("// %% ")?.rsplit_once(' ')?;
    Some((place.to_owned(), id.to_owned()))
}

/// Shifts text to the right by one level, except where a line begins inside a string.
pub fn indent(text: &str) -> String {
    let fixed = code::lines_inside_literals(text);
    map_lines(text, |i, line| match line {
        "" => String::new(),
        _ if fixed.contains(&i) => line.to_owned(),
        _ => format!("    {line}"),
    })
}

/// Undoes [`indent`].
pub fn dedent(text: &str) -> String {
    let fixed = code::lines_inside_literals(text);
    map_lines(text, |i, line| match line.strip_prefix("    ") {
        Some(shorter) if !fixed.contains(&i) => shorter.to_owned(),
        _ => line.to_owned(),
    })
}

fn map_lines(text: &str, f: impl Fn(usize, &str) -> String) -> String {
    text.lines().enumerate().map(|(i, line)| f(i, line)).collect::<Vec<_>>().join("\n")
}

const TEST_OK: &str = "    Ok(())";

/// A test function around a cell's text.
pub fn wrap_test(test: &crate::lesson::Test, width: usize) -> String {
    let mut text = String::new();
    for feature in &test.features {
        text += &format!("#[cfg(feature = \"{feature}\")]\n");
    }
    text += "#[test]\n";
    if test.should_panic {
        text += "#[should_panic]\n";
    }
    if test.slow {
        text += "#[ignore = \"slow\"]\n";
    }
    let body = indent(&test.piece.code);
    let gap = if body.is_empty() { "" } else { "\n" };
    let name = &test.name;
    // Written out, so that a cell may import a `Result` of its own.
    let returns = "-> Result<(), Box<dyn std::error::Error>> {";
    text += &match test.should_panic {
        true => format!("fn {name}() {{\n{body}{gap}}}"),
        false => {
            let fits = format!("fn {name}() {returns}").len() <= width;
            let space = if fits { ' ' } else { '\n' };
            format!("fn {name}(){space}{returns}\n{body}{gap}{TEST_OK}\n}}")
        }
    };
    text
}

/// How many lines of [`wrap_test`] stand above the cell's text.
pub fn lines_above_test(text: &str) -> Option<usize> {
    text.lines().position(|l| l.starts_with("fn ") && l.ends_with('{')).map(|i| i + 1)
}

/// Takes the cell's text out of its test function; `None` if the function no longer has the exported form.
pub fn unwrap_test(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines_above_test(text)?;
    let (last, body) = lines.get(start..)?.split_last()?;
    if *last != "}" {
        return None;
    }
    let returns = lines[start - 1].contains("->");
    let body = match body.split_last() {
        Some((&TEST_OK, rest)) if returns => rest,
        _ if returns => return None,
        _ => body,
    };
    Some(dedent(&body.join("\n")))
}
