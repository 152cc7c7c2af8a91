//! Asking cargo whether the crate compiles, and telling the answer in terms of notebooks.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::exported::Places;
use crate::plan::Plan;
use crate::workspace::{CRATE, TESTS, Workspace};

/// What cargo said.
#[derive(Debug, Default)]
pub struct Report {
    /// Errors, each with notebook, cell and line.
    pub errors: Vec<String>,
    /// Warnings, likewise.
    pub warnings: Vec<String>,
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

fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    command
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
    for line in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let diagnostic = &message["message"];
        let has_place = diagnostic["spans"].as_array().is_some_and(|s| !s.is_empty());
        let rendered = diagnostic["rendered"].as_str().unwrap_or_default().trim_end();
        // The library and its tests repeat each other, and summaries ("aborting due to 2 errors") name no place.
        let is_error = diagnostic["level"] == "error";
        if message["reason"] != "compiler-message"
            || !(has_place || is_error)
            || !seen.insert(rendered.to_owned())
        {
            continue;
        }
        if !has_place && rendered.starts_with("error: aborting due to") {
            continue;
        }
        match diagnostic["level"].as_str() {
            Some("error" | "error: internal compiler error") => {
                report.errors.push(rewrite(root, rendered, plan))
            }
            Some("warning") => report.warnings.push(rewrite(root, rendered, plan)),
            _ => {}
        }
    }
    report
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
