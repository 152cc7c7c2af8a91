//! Asking cargo whether the crate compiles, and telling the answer in terms of notebooks.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::count;
use crate::exported::{Exported, lines_above_test};
use crate::plan::Plan;
use crate::workspace::{CRATE, TESTS, Workspace};

/// What cargo said.
#[derive(Debug, Default)]
pub struct Report {
    /// Errors, each with notebook, cell and line.
    pub errors: Vec<Message>,
    /// Warnings, likewise.
    pub warnings: Vec<Message>,
    /// Names that a file's `use` lines bring in for nothing: the file's path in the workspace, and the name.
    pub unused: BTreeSet<(String, String)>,
}

/// An error or a warning.
#[derive(Debug)]
pub struct Message {
    /// The path, in the workspace, of the file that it is about.
    pub file: Option<String>,
    /// The compiler's text, with places in notebooks.
    pub text: String,
}

/// Runs `cargo check` on the crate and the lessons' tests in `root`, and maps what it finds to cells.
///
/// For a trial copy of the workspace, `trial` is the folder for what cargo builds; else it is the workspace's own.
pub fn check(root: &Path, trial: Option<&Path>, plan: &Plan) -> Result<Report> {
    let mut command = cargo(root);
    command.args(["check", "-p", CRATE, "-p", TESTS, "--lib", "--tests", "--message-format=json"]);
    if let Some(target) = trial {
        command.env("CARGO_TARGET_DIR", target).args(apart(root));
    }
    // A first build takes a while: whoever sits at a terminal sees cargo's progress.
    let watched = std::io::stderr().is_terminal();
    if watched {
        command.stderr(Stdio::inherit());
    } else {
        command.arg("--quiet");
    }
    let output = command.output().context("cannot start cargo")?;
    let report = report(root, &String::from_utf8_lossy(&output.stdout), plan);
    if !output.status.success() && report.errors.is_empty() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("cargo check failed in {}:\n{}", root.display(), text.trim_end());
    }
    Ok(report)
}

/// Settings that keep a trial's results apart from the workspace's.
///
/// Cargo tells packages of a workspace apart by their paths in it, so it would take what was compiled from the copy for
/// fresh results of the original, and the other way round. Profile settings of a package count too; this one has no
/// effect on checking. The dependencies, which take long, are shared.
fn apart(root: &Path) -> Vec<String> {
    let digest = Sha256::digest(root.as_os_str().as_encoded_bytes());
    let units = 1000 + u32::from(digest[0]);
    [CRATE, TESTS]
        .iter()
        .flat_map(|p| ["--config".to_owned(), format!("profile.dev.package.{p}.codegen-units={units}")])
        .collect()
}

/// `nbs build`.
pub fn build(workspace: &Workspace) -> Result<bool> {
    let plan = Plan::read(workspace)?;
    let report = check(&workspace.root, None, &plan)?;
    for message in report.warnings.iter().chain(&report.errors) {
        eprintln!("{}\n", message.text);
    }
    let (errors, warnings) = (report.errors.len(), report.warnings.len());
    say!("{CRATE} and the lessons' tests: {}, {}", count(errors, "error"), count(warnings, "warning"));
    Ok(report.errors.is_empty())
}

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    command
}

/// Runs the program that makes the site, which is a crate of its own. `Ok(false)` if it finds something wrong.
pub fn site(workspace: &Workspace, options: &[String]) -> Result<bool> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let done = Command::new(cargo)
        .args(["run", "--package", "nbs-site", "--"])
        .args(options)
        .current_dir(&workspace.root)
        .status()
        .context("cargo could not be started")?;
    Ok(done.success())
}

/// The folder in which cargo builds the workspace.
pub fn target_dir(workspace: &Workspace) -> Result<PathBuf> {
    let output = cargo(&workspace.root)
        .args(["metadata", "--no-deps", "--format-version=1", "--offline"])
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("cargo cannot read the workspace {}:\n{}", workspace.root.display(), text.trim_end());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let target = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(target))
}

fn report(root: &Path, messages: &str, plan: &Plan) -> Report {
    let mut report = Report::default();
    let mut seen = BTreeSet::new();
    let messages: Vec<Value> = messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for message in messages.iter().filter(|m| m["reason"] == "compiler-message") {
        let diagnostic = &message["message"];
        let file = file_of(diagnostic);
        let rendered = diagnostic["rendered"].as_str().unwrap_or_default().trim_end();
        // The library and its tests repeat each other, and summaries ("aborting due to 2 errors") name no place.
        let is_error = diagnostic["level"] == "error";
        let is_summary = file.is_none() && rendered.starts_with("error: aborting due to");
        if is_summary || !(file.is_some() || is_error) || !seen.insert(rendered) {
            continue;
        }
        let text = || Message { file: file.clone(), text: rewrite(root, rendered, plan) };
        match diagnostic["level"].as_str() {
            Some("error" | "error: internal compiler error") => report.errors.push(text()),
            Some("warning") => report.warnings.push(text()),
            _ => {}
        }
    }
    report.unused = unused_imports(&messages);
    report
}

/// The file of a diagnostic's main place.
fn file_of(diagnostic: &Value) -> Option<String> {
    let spans = diagnostic["spans"].as_array()?;
    let main = spans.iter().find(|s| s["is_primary"] == true).or(spans.first())?;
    Some(main["file_name"].as_str()?.replace('\\', "/"))
}

/// What rustc calls an unused import, each time that it compiled the file: the library is compiled with its tests and
/// without them.
fn unused_imports(messages: &[Value]) -> BTreeSet<(String, String)> {
    let mut found: BTreeMap<(&str, String, &str), usize> = BTreeMap::new();
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for message in messages {
        let target = message["target"]["src_path"].as_str().unwrap_or_default();
        let diagnostic = &message["message"];
        if message["reason"] == "compiler-artifact" {
            *times.entry(target).or_default() += 1;
        } else if diagnostic["code"]["code"] == "unused_imports" {
            let file = file_of(diagnostic).unwrap_or_default();
            for name in diagnostic["spans"].as_array().into_iter().flatten().filter_map(name_in) {
                *found.entry((target, file.clone(), name)).or_default() += 1;
            }
        }
    }
    // Where warnings are errors, nothing comes of the compilation.
    let always = found.into_iter().filter(|((target, ..), n)| times.get(target).is_none_or(|all| n >= all));
    always.map(|((_, file, name), _)| (file, name.to_owned())).collect()
}

/// The name that a place in a `use` line is about: `Draw` for `crate::rng::Draw`.
fn name_in(span: &Value) -> Option<&str> {
    let line = &span["text"].as_array()?.first()?;
    let text = line["text"].as_str()?;
    let column = |key: &str| usize::try_from(line[key].as_u64()?).ok()?.checked_sub(1);
    // Columns count characters, and `use` lines of the exporter are ASCII.
    text.get(column("highlight_start")?..column("highlight_end")?)?.rsplit("::").next()
}

/// Replaces the places in rustc's text by places in notebooks, and line numbers in files by line numbers in cells.
fn rewrite(root: &Path, rendered: &str, plan: &Plan) -> String {
    let mut places: Option<Places> = None;
    let lines = rendered.lines().map(|line| {
        if let Some((arrow, file, row, column)) = parse_arrow(line) {
            let text = std::fs::read_to_string(root.join(file)).unwrap_or_default();
            places = Places::new(&text, plan);
            return match places.as_ref().map(|p| (p.owner().to_owned(), p.find(row))) {
                Some((_, Some(place))) => {
                    let column = column.saturating_sub(place.shift).max(1);
                    let (notebook, id, line) = (&place.notebook, &place.id, place.line);
                    format!("{arrow}{notebook}, cell `{id}`, line {line}:{column} ({file}:{row})")
                }
                Some((owner, None)) => {
                    format!("{arrow}{file}:{row}:{column} (above the first cell of {owner})")
                }
                None => line.to_owned(),
            };
        }
        places.as_ref().and_then(|p| renumber(line, p)).unwrap_or_else(|| line.to_owned())
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Takes apart `  --> minai/src/iter.rs:12:5` (or `:::` for further places).
fn parse_arrow(line: &str) -> Option<(&str, &str, usize, usize)> {
    let start = line.find("--> ").or_else(|| line.find("::: "))? + 4;
    if !line[..start - 4].trim().is_empty() {
        return None;
    }
    let mut parts = line[start..].rsplitn(3, ':');
    let column = parts.next()?.parse().ok()?;
    let row = parts.next()?.parse().ok()?;
    Some((&line[..start], parts.next()?, row, column))
}

/// The number before the bar of a quoted source line becomes that of the cell.
fn renumber(line: &str, places: &Places) -> Option<String> {
    let digits = line.trim_start().find(|c: char| !c.is_ascii_digit())?;
    let start = line.len() - line.trim_start().len();
    let number = &line[start..start + digits];
    let after = &line[start + digits..];
    if !after.trim_start().starts_with(['|', '+', '-', '~']) {
        return None;
    }
    let place = places.find(number.parse().ok()?)?;
    let width = start + digits;
    Some(format!("{:>width$}{after}", place.line))
}

/// A place in a notebook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Such as `notebooks/01_foundations.ipynb`.
    pub notebook: String,
    /// The cell's id.
    pub id: String,
    /// The line in the cell, from 1.
    pub line: usize,
    /// How many columns further left the text stands in the cell.
    pub shift: usize,
}

/// Finds the cells behind the lines of an exported file.
pub struct Places<'a> {
    file: Exported,
    plan: &'a Plan,
}

impl<'a> Places<'a> {
    /// For the text of an exported file; `None` for any other file.
    pub fn new(text: &str, plan: &'a Plan) -> Option<Self> {
        Some(Self { file: Exported::parse(text)?, plan })
    }

    /// The notebook that owns the file.
    pub fn owner(&self) -> &str {
        &self.file.place
    }

    /// The place behind a line of the file (from 1); `None` in the header, which belongs to no cell.
    pub fn find(&self, line: usize) -> Option<Place> {
        let section = self.file.sections.iter().rev().find(|s| s.line <= line)?;
        let lesson = self.plan.lesson(&section.place);
        let piece = lesson.and_then(|l| l.piece(&section.id));
        let is_test = lesson.is_some_and(|l| l.tests.iter().any(|t| t.piece.id == section.id));
        let above = if is_test { lines_above_test(&section.text).unwrap_or(0) } else { 0 };
        let row = line.saturating_sub(section.text_line + above);
        Some(Place {
            notebook: section.place.clone(),
            id: section.id.clone(),
            line: 1 + piece.map_or(row, |p| line_in_cell(&p.lines, row)),
            shift: if is_test { 4 } else { 0 },
        })
    }
}

/// Where a row of a cell's code stands in the cell; rows that an edit has added lie beyond its end.
fn line_in_cell(lines: &[usize], row: usize) -> usize {
    match (lines.get(row), lines.last()) {
        (Some(line), _) => *line,
        (None, Some(last)) => last + row + 1 - lines.len(),
        (None, None) => row,
    }
}
