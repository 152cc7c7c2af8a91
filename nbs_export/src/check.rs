//! `nbs check`: everything that is out of order.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::export::{self, Entry, State};
use crate::notebook::{Cell, Notebook};
use crate::plan::Plan;
use crate::workspace::Workspace;
use crate::{clean, code, count, diff, directives, files, fmt, names};

/// `nbs check`. Prints what it finds; `Ok(false)` if that is anything.
pub fn check(workspace: &Workspace, names: &[String]) -> Result<bool> {
    let plan = Plan::read(workspace)?;
    let mut problems: Vec<String> = plan
        .problems
        .iter()
        .chain(&export::missing_features(workspace, &plan)?)
        .map(ToString::to_string)
        .collect();
    let selected = workspace.places(names)?;
    for entry in export::compare(workspace, &plan, &selected, &export::as_on_disk(workspace)?)? {
        problems.extend(file_problem(&entry));
    }
    let mut long = Vec::new();
    for path in workspace.select(names)? {
        // One that cannot be read is among the plan's problems.
        if let Ok(notebook) = Notebook::load(&path) {
            problems.extend(notebook_problems(workspace, &notebook)?);
            long.extend(
                Some(long_cells(&notebook)).filter(|cells| !cells.is_empty()).map(|c| (notebook.name(), c)),
            );
        }
    }
    for problem in &problems {
        say!("{problem}\n");
    }
    if !long.is_empty() {
        say!(
            "{} have more than {LONG} lines, which is more than one sees at a time:",
            count(long.iter().map(|(_, cells)| cells.len()).sum(), "cell")
        );
        long.iter().for_each(|(notebook, cells)| say!("  {notebook}: {}", cells.join(", ")));
    }
    match problems.len() {
        0 => say!("All is in order: {} checked.", count(selected.len(), "notebook")),
        n => say!("{} found.", count(n, "problem")),
    }
    Ok(problems.is_empty())
}

fn file_problem(entry: &Entry) -> Option<String> {
    let Entry { path, now, wanted, state, .. } = entry;
    let (now, wanted) = (now.as_deref(), wanted.as_deref());
    let diff = || diff::unified(path, now.unwrap_or(""), wanted.unwrap_or(""));
    match state {
        State::Same => None,
        State::Outdated if wanted.is_none() => {
            Some(format!("{path}: no notebook exports it any more; `cargo nbs export` removes it"))
        }
        State::Outdated if now.is_none() => Some(format!("{path} is missing; `cargo nbs export` writes it")),
        State::Outdated => {
            Some(format!("{path} differs from its notebook; `cargo nbs export` writes it:\n{}", diff()))
        }
        State::Edited => Some(format!(
            "{path} was edited since it was exported; `cargo nbs update` brings the edits into the notebook:\n{}",
            diff::unified(path, wanted.unwrap_or(""), now.unwrap_or(""))
        )),
        State::Foreign => Some(format!(
            "{path} was not written by `nbs export`, but a notebook claims the module: move it away or rename the module"
        )),
    }
}

fn notebook_problems(workspace: &Workspace, notebook: &Notebook) -> Result<Vec<String>> {
    let place = workspace.relative(&notebook.path);
    let name = notebook.name();
    let mut problems = Vec::new();
    let text = files::read(&notebook.path)?.unwrap_or_default();
    if let Some(difference) = clean::difference(&place, &text, notebook) {
        problems.push(format!("{place} is not clean; `cargo nbs clean {name}` makes it so:\n{difference}"));
    }
    let formatted = fmt::format(workspace, notebook)?;
    problems.extend(formatted.problems.iter().map(|p| format!("{place}, {p}")));
    for (index, label, source) in &formatted.changed {
        let old = notebook.cells().nth(*index).map(|c| c.source()).unwrap_or_default();
        let name = format!("{place}, {label}");
        problems.push(format!(
            "{name} is not in rustfmt's form; `cargo nbs fmt` brings it there:\n{}",
            diff::unified(&name, &(old + "\n"), &(source.clone() + "\n"))
        ));
    }
    problems.extend(failures(&place, notebook));
    problems.extend(undefined_in_checks(&place, notebook));
    problems.extend(stale(&place, notebook));
    Ok(problems)
}

/// Saved outputs with an error or a panic, in cells that are not meant to fail.
fn failures(place: &str, notebook: &Notebook) -> Vec<String> {
    let failed = notebook.code_cells().filter_map(|cell| {
        let marks = cell.directives().unwrap_or_default();
        let meant = marks.should_panic() || marks.compile_fail().is_some();
        let what = cell.failure().filter(|_| !meant)?;
        let name = notebook.name();
        Some(format!("{place}, {}: its saved output is a failure; `cargo nbs run {name}` after mending it:\n    {what}", cell.label()))
    });
    failed.collect()
}

/// Outputs that were not made from the text as it is now.
fn stale(place: &str, notebook: &Notebook) -> Option<String> {
    let fresh = notebook.fresh();
    let is_stale = |cell: &Cell| {
        let runs = cell.directives().is_ok_and(|d| d.eval()) && !cell.source().trim().is_empty();
        runs && !fresh.contains(&cell.index)
    };
    let cells: Vec<_> =
        notebook.code_cells().filter(is_stale).map(|c| c.id().unwrap_or("?").to_owned()).collect();
    let all = match cells.as_slice() {
        [] => return None,
        [first, .., last] if cells.len() > 8 => {
            format!("{} from `{first}` to `{last}`", count(cells.len(), "cell"))
        }
        some => format!("{} `{}`", if some.len() == 1 { "cell" } else { "cells" }, some.join("`, `")),
    };
    let name = notebook.name();
    Some(format!(
        "{place}: the outputs are stale (a cell or one above it changed since they were made): {all}; `cargo nbs run {name}` makes new ones"
    ))
}

/// How many lines of code a cell may have before `check` mentions it.
const LONG: usize = 25;

/// The long cells of a notebook, each with its lines.
fn long_cells(notebook: &Notebook) -> Vec<String> {
    let lines = |cell: &Cell| directives::split(&cell.source()).lines.len();
    let long = notebook.code_cells().filter(|cell| lines(cell) > LONG);
    long.map(|cell| format!("{} {}", cell.label().trim_start_matches("cell "), lines(&cell))).collect()
}

/// Names in exercises' checks that the reader would not find: `// check_sum(sum, &rows);` stands below the reader's code,
/// who takes the slashes away, and needs `rows` from a visible cell.
fn undefined_in_checks(place: &str, notebook: &Notebook) -> Vec<String> {
    let mut problems = Vec::new();
    let mut known = BTreeSet::new();
    let mut any_type = false;
    for cell in notebook.code_cells() {
        let marks = cell.directives().unwrap_or_default();
        let source = code::blank_commands(&cell.source());
        let hidden = marks.hide() || cell.metadata("jupyter")["source_hidden"] == true;
        // `use` lines may well be folded away.
        let names = if hidden { names::imports(&source) } else { names::introduced(&source) };
        if marks.eval() && marks.compile_fail().is_none() {
            known.extend(names);
            any_type |= source.lines().any(|l| l.starts_with("use ") && l.contains("::*"));
        }
        for (line, text) in commented_checks(&source) {
            let is_known = |name: &str| {
                known.contains(name)
                    || STANDARD.contains(&name)
                    || (any_type && name.starts_with(char::is_uppercase))
            };
            let missing: Vec<_> = names::free(&text).into_iter().filter(|name| !is_known(name)).collect();
            if !missing.is_empty() {
                problems.push(format!(
                    "{place}, {}, line {line}: this check uses `{}`, which no visible cell defines above it: a reader who \
                     takes the slashes away gets an error",
                    cell.label(),
                    missing.join("`, `")
                ));
            }
        }
    }
    problems
}

/// Names that need no definition.
const STANDARD: [&str; 12] =
    ["Box", "Default", "Err", "None", "Ok", "Option", "Result", "Some", "String", "Vec", "drop", "usize"];

/// The comments at a line's start that call a function `check…`: each with the line (from 1) and its Rust.
fn commented_checks(source: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = source.lines().collect();
    let comment = |i: usize| {
        lines.get(i).and_then(|l| l.strip_prefix("//")).filter(|l| !l.starts_with(['/', '|', '!']))
    };
    let mut checks = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let starts = comment(i).is_some_and(|l| l.trim_start().starts_with("check"));
        // The shortest run of comment lines that is a call.
        let ends = (i + 1..=lines.len()).take_while(|&end| comment(end - 1).is_some());
        let texts = ends.map(|end| (end, (i..end).filter_map(comment).collect::<Vec<_>>().join("\n")));
        let found =
            texts.filter(|_| starts).find(|(_, text)| !names::free(text).is_empty() && text.contains('('));
        match found {
            Some((end, text)) => {
                checks.push((i + 1, text));
                i = end;
            }
            None => i += 1,
        }
    }
    checks
}
