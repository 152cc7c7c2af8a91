//! A small workspace in a temporary folder, and the command `nbs` run in it.
#![allow(dead_code)] // Each test file uses its part of this.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

pub struct Fixture {
    folder: TempDir,
}

const ROOT: &str = r#"[workspace]
resolver = "3"
members = ["minai", "tests"]
"#;

const CRATE: &str = r#"[package]
name = "minai"
version = "0.1.0"
edition = "2024"

[features]
default = ["extra"]
extra = []
"#;

const TESTS: &str = r#"[package]
name = "minai-tests"
version = "0.1.0"
edition = "2024"
autotests = false

[lib]
path = "support.rs"

[features]
default = ["extra"]
extra = ["minai/extra"]

[dependencies]
minai = { path = "../minai" }

# nbs:tests begin
# nbs:tests end
"#;

const LIB: &str = "//! The crate.\nextern crate self as minai;\n\n// nbs:modules begin\n// nbs:modules end\n";

impl Fixture {
    /// A workspace without notebooks.
    pub fn new() -> Self {
        // The path must be the one that cargo sees (on macOS the temporary folder is a link).
        let folder = tempfile::tempdir().unwrap();
        let fixture = Self { folder };
        for (path, text) in [
            ("Cargo.toml", ROOT),
            ("minai/Cargo.toml", CRATE),
            ("minai/src/lib.rs", LIB),
            ("tests/Cargo.toml", TESTS),
            ("tests/support.rs", "//! Nothing shared yet.\n"),
        ] {
            fixture.write(path, text);
        }
        fs::create_dir(fixture.path("notebooks")).unwrap();
        fixture
    }

    /// A workspace with the notebook `01_first`, which owns two modules and has a test.
    pub fn lesson() -> Self {
        let fixture = Self::new();
        fixture.write("notebooks/01_first.ipynb", &notebook(&first_lesson()));
        fixture
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().canonicalize().unwrap().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        let path = self.path(path);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    pub fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Replaces text that must occur exactly once.
    pub fn replace(&self, path: &str, old: &str, new: &str) {
        let text = self.read(path);
        assert_eq!(text.matches(old).count(), 1, "`{old}` in {path}:\n{text}");
        self.write(path, &text.replacen(old, new, 1));
    }

    /// Changes a cell of a notebook as Jupyter would.
    pub fn set_cell(&self, path: &str, id: &str, source: &str) {
        let mut notebook: Value = serde_json::from_str(&self.read(path)).unwrap();
        let cells = notebook["cells"].as_array_mut().unwrap();
        let cell = cells.iter_mut().find(|c| c["id"] == id).unwrap();
        cell["source"] = lines(source);
        self.write(path, &to_text(&notebook));
    }

    pub fn source(&self, path: &str, id: &str) -> String {
        let notebook: Value = serde_json::from_str(&self.read(path)).unwrap();
        let cells = notebook["cells"].as_array().unwrap();
        let cell = cells.iter().find(|c| c["id"] == id).unwrap_or_else(|| panic!("no cell {id}"));
        cell["source"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect()
    }

    pub fn nbs(&self, args: &[&str]) -> Outcome {
        let output = self.command(env!("CARGO_BIN_EXE_nbs")).args(args).output().unwrap();
        Outcome::new(output)
    }

    /// Runs `nbs` and expects it to succeed.
    pub fn ok(&self, args: &[&str]) -> String {
        let outcome = self.nbs(args);
        assert_eq!(outcome.code, 0, "nbs {args:?}:\n{}", outcome.text);
        outcome.text
    }

    /// Runs `nbs` and expects it to fail with a message that contains all of `parts`.
    pub fn fails(&self, args: &[&str], parts: &[&str]) -> String {
        let outcome = self.nbs(args);
        assert_eq!(outcome.code, 1, "nbs {args:?}:\n{}", outcome.text);
        for part in parts {
            assert!(outcome.text.contains(part), "no `{part}` in what nbs {args:?} says:\n{}", outcome.text);
        }
        outcome.text
    }

    /// Any program in the workspace, built into the workspace's own target folder.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.path("")).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        command
    }

    pub fn git(&self, args: &[&str]) -> Outcome {
        let identity = ["-c", "user.name=Reader", "-c", "user.email=reader@example.org"];
        Outcome::new(self.command("git").args(identity).args(args).output().unwrap())
    }

    /// Every file outside the target folder with its contents, to show that nothing changed.
    pub fn snapshot(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect(&self.path(""), &mut files);
        files.sort();
        files
    }
}

fn collect(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !["target", ".git"].contains(&name.as_str()) {
            collect(&path, files);
        } else if path.is_file() && name != "Cargo.lock" {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
}

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub text: String,
}

impl Outcome {
    fn new(output: Output) -> Self {
        let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
        Self { code: output.status.code().unwrap_or(-1), text }
    }
}

/// A cell of a test notebook: its id and its text; ids that begin with `md` make Markdown cells.
pub type CellText<'a> = (&'a str, &'a str);

pub const CHUNKS: &str = "//| export\n//| doc Iterators by hand.\n/// Pieces of a slice.\npub struct Chunks<'a>(pub &'a [u8], pub usize);\n\nimpl<'a> Iterator for Chunks<'a> {\n    type Item = &'a [u8];\n    fn next(&mut self) -> Option<Self::Item> {\n        if self.0.is_empty() {\n            return None;\n        }\n        let (head, tail) = self.0.split_at(self.1.min(self.0.len()));\n        self.0 = tail;\n        Some(head)\n    }\n}";
pub const ROWS: &str = "//| export matrix\n/// How many rows of `width` a slice holds.\npub fn rows(data: &[u8], width: usize) -> usize {\n    Chunks(data, width).count()\n}";
pub const TEST: &str = "//| test five_five_none\nlet mut chunks = Chunks(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 5);\nassert_eq!(chunks.next().map(<[u8]>::len), Some(5));\nlet text = \"two\nlines\";\nassert_eq!(text.lines().count(), rows(&[0; 4], 2));\n\"5\".parse::<u8>()?;";

pub fn first_lesson() -> Vec<CellText<'static>> {
    vec![
        ("md-title", "# Iterators"),
        ("setup", "//| default_exp iter\nlet x = 1;"),
        ("chunks", CHUNKS),
        ("md-next", "Rows of pixels: 漢字 and ünïcode."),
        ("rows", ROWS),
        ("five", TEST),
    ]
}

/// A notebook as Jupyter saves it.
pub fn notebook(cells: &[CellText]) -> String {
    to_text(&notebook_json(cells))
}

pub fn notebook_json(cells: &[CellText]) -> Value {
    let cells = cells.iter().map(|(id, source)| match id.starts_with("md") {
        true => json!({ "cell_type": "markdown", "id": id, "metadata": {}, "source": lines(source) }),
        false => json!({
            "cell_type": "code", "execution_count": null, "id": id, "metadata": {}, "outputs": [], "source": lines(source)
        }),
    });
    json!({
        "cells": cells.collect::<Vec<_>>(),
        "metadata": {
            "kernelspec": { "display_name": "Rust (minai)", "language": "rust", "name": "minai" },
            "language_info": {
                "codemirror_mode": "rust", "file_extension": ".rs", "mimetype": "text/rust", "name": "Rust",
                "pygment_lexer": "rust", "version": ""
            }
        },
        "nbformat": 4,
        "nbformat_minor": 5
    })
}

pub fn lines(source: &str) -> Value {
    source.split_inclusive('\n').collect()
}

/// Text of the form that Jupyter writes, made without the code under test.
pub fn to_text(json: &Value) -> String {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    let mut sorted = json.clone();
    sorted.sort_all_objects();
    serde::Serialize::serialize(&sorted, &mut serializer).unwrap();
    String::from_utf8(out).unwrap() + "\n"
}

/// Marks all outputs as made from the present text, as `nbs run` does.
pub fn stamp(fixture: &Fixture, path: &str) {
    let mut notebook = nbs_export::notebook::Notebook::load(&fixture.path(path)).unwrap();
    for (index, hash) in notebook.source_hashes() {
        notebook.cell_mut(index).set_hash(&hash);
    }
    notebook.save().unwrap();
}
