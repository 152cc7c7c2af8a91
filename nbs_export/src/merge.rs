//! `nbs merge`: git's merge driver for notebooks.
//!
//! Two versions of a notebook are merged cell by cell, and cells find each other by id. So two people may work on
//! different cells without ever seeing JSON in conflict. Where both changed one cell, its text holds both versions
//! between git's usual marks, in a notebook that still opens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use crate::clean;
use crate::notebook::{Cell, Notebook, join_lines, split_lines};

/// Merges; the result goes to `ours`, as git expects. `Ok(false)` if cells are in conflict.
pub fn run(base: &Path, ours: &Path, theirs: &Path, name: &str) -> Result<bool> {
    let load = |path: &Path| Notebook::load(path).with_context(|| format!("merging {name}"));
    // Git gives an empty file where both sides added the notebook.
    let is_empty = std::fs::metadata(base).is_ok_and(|m| m.len() == 0);
    let empty = || Notebook { path: base.to_owned(), json: serde_json::json!({ "cells": [] }) };
    let mut versions = [if is_empty { empty() } else { load(base)? }, load(ours)?, load(theirs)?];
    let mut conflicts = restore_ids(&mut versions);
    versions.iter_mut().skip(usize::from(is_empty)).for_each(clean::clean);
    let [base, ours, theirs] = &versions;
    let (merged, more) = merge(base, ours, theirs);
    conflicts.extend(more);
    merged.save_atomic(&ours.path)?;
    for conflict in &conflicts {
        eprintln!("{name}, {conflict}");
    }
    Ok(conflicts.is_empty())
}

/// Some programs drop the ids of cells when they save a notebook, or give all cells new ones. Such a version gets the
/// ids of another back, by the cells' text and place. What cannot be matched is told.
fn restore_ids(versions: &mut [Notebook; 3]) -> Vec<String> {
    const NAMES: [&str; 3] = ["the common ancestor", "ours", "theirs"];
    let has_all = |n: &Notebook| n.cells().next().is_some() && n.cells().all(|c| c.id().is_some());
    let Some(known) = versions.iter().position(has_all) else {
        return vec![];
    };
    let mut messages = Vec::new();
    for i in (0..3).filter(|&i| i != known) {
        let (reference, version) = (&versions[known], &versions[i]);
        let is_known = |id: &str| reference.cell(id).is_some();
        if version.cells().next().is_none() || version.cells().any(|c| c.id().is_some_and(is_known)) {
            continue;
        }
        let (ids, unsure) = match_cells(reference, version);
        if unsure > 0 {
            messages.push(format!(
                "{} lost the ids of its cells; they were found again by text and place, except for {unsure} of {}, which \
                 may stand twice or apart from their old version now: compare the result with both sides",
                NAMES[i],
                ids.len()
            ));
        }
        versions[i].json["nbformat_minor"] = 5.into();
        for (index, id) in ids.into_iter().enumerate() {
            // One that is new gets an id from `clean`.
            let id = id.map_or_else(|| "".into(), Value::from);
            versions[i].cell_mut(index).json()["id"] = id;
        }
    }
    messages
}

/// For each cell of `other` the id of the cell of `reference` that it comes from, and for how many that is unsure:
/// cells with equal texts belong together, and of those between them the ones at the same place, if there are as many
/// on each side.
fn match_cells(reference: &Notebook, other: &Notebook) -> (Vec<Option<String>>, usize) {
    let key = |c: Cell| (c.is_code(), c.source().trim_end().to_owned());
    let old: Vec<_> = reference.cells().map(key).collect();
    let new: Vec<_> = other.cells().map(key).collect();
    let old_ids = self::ids(reference);
    let mut ids = vec![None; new.len()];
    let (mut equal, mut unsure) = (0, 0);
    for op in similar::capture_diff_slices(similar::Algorithm::Myers, &old, &new) {
        let (from, to) = (op.old_range(), op.new_range());
        let kinds = |cells: &[(bool, String)]| cells.iter().map(|c| c.0).collect::<Vec<_>>();
        if from.len() == to.len() && kinds(&old[from.clone()]) == kinds(&new[to.clone()]) {
            equal += if op.tag() == similar::DiffTag::Equal { to.len() } else { 0 };
            from.zip(to).for_each(|(f, t)| ids[t] = Some(old_ids[f].clone()));
        } else if !from.is_empty() {
            unsure += to.len();
        }
    }
    // Another notebook altogether has a first and a last cell, too.
    if 2 * equal < new.len() {
        return (vec![None; new.len()], new.len());
    }
    (ids, unsure)
}

/// The merged notebook, and a line for each cell in conflict.
pub fn merge(base: &Notebook, ours: &Notebook, theirs: &Notebook) -> (Notebook, Vec<String>) {
    let mut conflicts = Vec::new();
    let [b, o, t] = [base, ours, theirs].map(by_id);
    let mut cells = Vec::new();
    for id in order(base, ours, theirs) {
        let merged = match (b.get(&id), o.get(&id), t.get(&id)) {
            (None, Some(ours), None) => Some((*ours).clone()),
            (None, None, Some(theirs)) => Some((*theirs).clone()),
            (base, Some(ours), Some(theirs)) => {
                Some(merge_cell(&id, base.copied().unwrap_or(&Value::Null), ours, theirs, &mut conflicts))
            }
            // One side deleted the cell: it stays only if the other changed it.
            (Some(base), Some(kept), None) | (Some(base), None, Some(kept))
                if base["source"] != kept["source"] =>
            {
                conflicts.push(format!("cell `{id}`: one side deleted it, the other changed it; it stays"));
                Some((*kept).clone())
            }
            _ => None,
        };
        cells.extend(merged);
    }
    let mut json = merge_objects(&base.json, &ours.json, &theirs.json);
    json["cells"] = Value::Array(cells);
    (Notebook { path: ours.path.clone(), json }, conflicts)
}

fn by_id(notebook: &Notebook) -> BTreeMap<String, &Value> {
    notebook.cells().filter_map(|c| Some((c.id()?.to_owned(), c.json()))).collect()
}

fn ids(notebook: &Notebook) -> Vec<String> {
    notebook.cells().filter_map(|c| c.id().map(str::to_owned)).collect()
}

/// The order of all cells of both sides: that of the side which moved cells, with the other's new cells put in.
fn order(base: &Notebook, ours: &Notebook, theirs: &Notebook) -> Vec<String> {
    let (base, ours, theirs) = (ids(base), ids(ours), ids(theirs));
    let common: BTreeSet<&String> =
        ours.iter().filter(|id| theirs.contains(id) && base.contains(id)).collect();
    let sequence = |ids: &[String]| ids.iter().filter(|id| common.contains(id)).cloned().collect::<Vec<_>>();
    let ours_moved = sequence(&ours) != sequence(&base);
    let (mut order, other) = if ours_moved { (ours, theirs) } else { (theirs, ours) };
    // Ours come first where both sides added cells at one place, whichever side gave the order.
    let mut previous: Option<&String> = None;
    for id in &other {
        if !order.contains(id) {
            let at = previous.and_then(|p| order.iter().position(|o| o == p)).map_or(0, |i| i + 1);
            order.insert(at, id.clone());
        }
        previous = Some(id);
    }
    order
}

fn merge_cell(id: &str, base: &Value, ours: &Value, theirs: &Value, conflicts: &mut Vec<String>) -> Value {
    if ours == theirs || theirs == base {
        return ours.clone();
    }
    if ours == base {
        return theirs.clone();
    }
    let mut merged = merge_objects(base, ours, theirs);
    let texts = [base, ours, theirs].map(|cell| join_lines(&cell["source"]));
    let [b, o, t] = &texts;
    if o == t || b == t || b == o {
        // The outputs belong to the text that won.
        let winner = if b == o && o != t { theirs } else { ours };
        for key in ["source", "outputs"] {
            merged[key] = winner[key].clone();
        }
    } else {
        let (text, clean) = merge_texts(&texts);
        if !clean {
            conflicts.push(format!("cell `{id}`: both sides changed it; it holds both versions now"));
        }
        merged["source"] = split_lines(&text);
        merged["outputs"] = ours["outputs"].clone();
    }
    if merged["outputs"].is_null() {
        merged.as_object_mut().map(|cell| cell.shift_remove("outputs"));
    }
    merged
}

/// Merges lines as git does, by git itself; without it, both versions stand between marks.
fn merge_texts([base, ours, theirs]: &[String; 3]) -> (String, bool) {
    git_merge_file(base, ours, theirs).unwrap_or_else(|| {
        let end = |text: &str| {
            if text.is_empty() { String::new() } else { format!("{}\n", text.trim_end()) }
        };
        (format!("<<<<<<< ours\n{}=======\n{}>>>>>>> theirs", end(ours), end(theirs)), false)
    })
}

fn git_merge_file(base: &str, ours: &str, theirs: &str) -> Option<(String, bool)> {
    let folder = tempfile::tempdir().ok()?;
    for (name, text) in [("base", base), ("ours", ours), ("theirs", theirs)] {
        std::fs::write(folder.path().join(name), format!("{text}\n")).ok()?;
    }
    let labels = ["-L", "ours", "-L", "base", "-L", "theirs"];
    let output = Command::new("git")
        .current_dir(folder.path())
        .args(["merge-file", "-p"])
        .args(labels)
        .args(["ours", "base", "theirs"])
        .output()
        .ok()?;
    // The status counts conflicts; 128 and above stand for failure.
    let conflicts = output.status.code().filter(|code| (0..128).contains(code))?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some((text.trim_end_matches('\n').to_owned(), conflicts == 0))
}

/// Merges fields; where both sides changed one, ours wins.
fn merge_objects(base: &Value, ours: &Value, theirs: &Value) -> Value {
    let (Value::Object(o), Value::Object(t)) = (ours, theirs) else {
        return if ours == base { theirs.clone() } else { ours.clone() };
    };
    let mut merged = Map::new();
    for key in o.keys().chain(t.keys().filter(|k| !o.contains_key(*k))) {
        let (b, o, t) = (&base[key.as_str()], &ours[key.as_str()], &theirs[key.as_str()]);
        let value = if o.is_object() && t.is_object() {
            merge_objects(b, o, t)
        } else if o == b {
            t.clone()
        } else {
            o.clone()
        };
        // `Null` stands both for an absent field and for an empty one such as an execution count.
        if !value.is_null() || (ours.get(key).is_some() && theirs.get(key).is_some()) {
            merged.insert(key.clone(), value);
        }
    }
    Value::Object(merged)
}
