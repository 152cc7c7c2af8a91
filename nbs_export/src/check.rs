//! `nbs check`: everything that is out of order.

use anyhow::Result;

use crate::export::{self, Entry, State, count};
use crate::notebook::Notebook;
use crate::plan::Plan;
use crate::workspace::Workspace;
use crate::{clean, diff, fmt};

/// `nbs check`. Prints what it finds; `Ok(false)` if that is anything.
pub fn check(workspace: &Workspace, names: &[String]) -> Result<bool> {
    let plan = Plan::read(workspace)?;
    let mut problems = plan.problems.clone();
    problems.extend(export::missing_features(workspace, &plan)?);
    let selected = export::places(workspace, names)?;
    for entry in export::compare(workspace, &plan, &selected)? {
        problems.extend(file_problem(&entry));
    }
    for path in workspace.select(names)? {
        // One that cannot be read is among the plan's problems.
        if let Ok(notebook) = Notebook::load(&path) {
            problems.extend(notebook_problems(workspace, &notebook)?);
        }
    }
    for problem in &problems {
        say!("{problem}\n");
    }
    match problems.len() {
        0 => say!("All is in order: {} checked.", count(selected.len(), "notebook")),
        n => say!("{} found.", count(n, "problem")),
    }
    Ok(problems.is_empty())
}

fn file_problem(entry: &Entry) -> Option<String> {
    let Entry { path, now, wanted, state } = entry;
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
    let text = export::read(&notebook.path)?.unwrap_or_default();
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
    let is_stale = |cell: &crate::notebook::Cell| {
        let runs = cell.directives().is_ok_and(|d| d.eval()) && !cell.source().trim().is_empty();
        runs && !notebook.is_fresh(cell)
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
