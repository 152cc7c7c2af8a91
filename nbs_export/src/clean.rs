//! `nbs clean`: takes out of notebooks what changes without meaning.
//!
//! Execution counts, timings and the state of somebody's editor go; text, outputs, tags and what authors set stay.
//! What stays has one form, so a notebook that JupyterLab saved and that is then cleaned shows no difference when nothing
//! changed.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::notebook::{Notebook, hex16, join_lines, split_lines};
use crate::workspace::Workspace;
use crate::{diff, files};

/// Metadata of a cell that an author sets; everything else is an editor's.
const CELL_METADATA: [&str; 9] =
    ["alt", "deletable", "editable", "format", "jupyter", "name", "nbs", "slideshow", "tags"];
/// Metadata of the notebook that is about the notebook.
const NOTEBOOK_METADATA: [&str; 4] = ["authors", "kernelspec", "language_info", "title"];

/// Cleans a notebook in memory. Cleaning twice is cleaning once.
pub fn clean(notebook: &mut Notebook) {
    let is_rust = notebook.is_rust();
    let hidden: Vec<bool> = notebook.cells().map(|c| c.directives().is_ok_and(|d| d.hide())).collect();
    clean_notebook_metadata(&mut notebook.json, is_rust);
    give_ids(notebook);
    let cells = notebook.json["cells"].as_array_mut().into_iter().flatten();
    for (cell, hidden) in cells.zip(hidden) {
        let source = join_lines(&cell["source"]).replace("\r\n", "\n");
        cell["source"] = split_lines(&source);
        clean_cell_metadata(cell, hidden);
        if cell["cell_type"] == "code" {
            cell["execution_count"] = Value::Null;
            let outputs = cell["outputs"].take();
            cell["outputs"] = clean_outputs(outputs);
        } else if let Some(cell) = cell.as_object_mut() {
            // Left behind where a cell changed its type.
            cell.shift_remove("outputs");
            cell.shift_remove("execution_count");
        }
    }
}

fn clean_notebook_metadata(json: &mut Value, is_rust: bool) {
    let metadata = object(&mut json["metadata"]);
    metadata.retain(|key, _| NOTEBOOK_METADATA.contains(&key.as_str()));
    if is_rust {
        // Whether a reader ran it on our kernel or on the stock one makes no difference to the notebook.
        let (kernelspec, language_info) = rust_kernel();
        metadata.insert("kernelspec".to_owned(), kernelspec);
        metadata.insert("language_info".to_owned(), language_info);
    } else if let Some(info) = metadata.get_mut("language_info").and_then(Value::as_object_mut) {
        info.shift_remove("version");
    }
}

/// What a notebook says about its kernel, as JupyterLab writes it.
pub fn rust_kernel() -> (Value, Value) {
    (
        json!({ "display_name": "Rust (minai)", "language": "rust", "name": "minai" }),
        json!({
            "codemirror_mode": "rust", "file_extension": ".rs", "mimetype": "text/rust", "name": "Rust",
            "pygment_lexer": "rust", "version": ""
        }),
    )
}

/// Every cell gets an id of its own (nbformat 4.5). They depend on the contents only, so cleaning is repeatable.
fn give_ids(notebook: &mut Notebook) {
    if notebook.minor() < 5 {
        notebook.json["nbformat_minor"] = json!(5);
    }
    let mut seen = BTreeSet::new();
    let mut given: BTreeSet<String> = notebook.cells().filter_map(|c| c.id().map(str::to_owned)).collect();
    let sources: Vec<String> = notebook.cells().map(|c| c.source()).collect();
    for (index, source) in sources.iter().enumerate() {
        let cell = &mut notebook.json["cells"][index];
        let id = cell["id"].as_str().unwrap_or_default().to_owned();
        if is_valid_id(&id) && seen.insert(id) {
            continue;
        }
        let mut attempt = 0u32;
        let id = loop {
            let id = hex16(&Sha256::digest(format!("{index} {attempt} {source}")))[..8].to_owned();
            if given.insert(id.clone()) {
                break id;
            }
            attempt += 1;
        };
        seen.insert(id.clone());
        cell["id"] = json!(id);
    }
}

fn is_valid_id(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn clean_cell_metadata(cell: &mut Value, hidden: bool) {
    let metadata = object(&mut cell["metadata"]);
    metadata.retain(|key, _| CELL_METADATA.contains(&key.as_str()));
    let mut jupyter = Map::new();
    if hidden {
        jupyter.insert("outputs_hidden".to_owned(), json!(true));
    }
    if hidden || metadata.get("jupyter").is_some_and(|j| j["source_hidden"] == true) {
        jupyter.insert("source_hidden".to_owned(), json!(true));
    }
    metadata.insert("jupyter".to_owned(), Value::Object(jupyter));
    // What says nothing is left out, as JupyterLab does.
    metadata.retain(|_, value| match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        value => !value.is_null(),
    });
}

fn clean_outputs(outputs: Value) -> Value {
    let Value::Array(outputs) = outputs else {
        return json!([]);
    };
    let mut cleaned: Vec<Value> = Vec::new();
    for mut output in outputs {
        let fields = object(&mut output);
        fields.shift_remove("transient");
        if fields.contains_key("execution_count") {
            fields.insert("execution_count".to_owned(), Value::Null);
        }
        if matches!(output["output_type"].as_str(), Some("display_data" | "execute_result")) {
            object(&mut output["metadata"]);
        }
        // JupyterLab joins pieces of one stream that follow each other; so the pieces do not depend on timing.
        match cleaned.last_mut() {
            Some(last) if output["output_type"] == "stream" && same_stream(last, &output) => {
                last["text"] = split_lines(&(join_lines(&last["text"]) + &join_lines(&output["text"])));
            }
            _ => cleaned.push(output),
        }
    }
    Value::Array(cleaned)
}

fn same_stream(a: &Value, b: &Value) -> bool {
    a["output_type"] == b["output_type"] && a["name"] == b["name"]
}

/// The object in `value`, which becomes one if it is none.
fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("made one above")
}

/// The difference between a notebook's text and its clean form, if there is one.
pub fn difference(name: &str, text: &str, notebook: &Notebook) -> Option<String> {
    let mut cleaned = notebook.clone();
    clean(&mut cleaned);
    // A checkout may have made the line ends longer.
    let (old, new) = (text.replace("\r\n", "\n"), cleaned.to_text());
    (old != new).then(|| diff::unified(name, &old, &new))
}

/// What `nbs clean` shall do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Change nothing, only tell.
    pub check: bool,
    /// Look at what is staged in git, not at the files.
    pub staged: bool,
}

/// `nbs clean`. `Ok(false)` if a check found an unclean notebook.
pub fn run(workspace: &Workspace, names: &[String], options: Options) -> Result<bool> {
    if options.staged {
        return check_staged(workspace);
    }
    let (notebooks, mut fine) = workspace.readable(names)?;
    for mut notebook in notebooks {
        let place = workspace.relative(&notebook.path);
        let text = files::read(&notebook.path)?.unwrap_or_default();
        let Some(difference) = difference(&place, &text, &notebook) else {
            continue;
        };
        if options.check {
            say!("{place} is not clean: `cargo nbs clean` makes it so\n{difference}");
            fine = false;
        } else {
            clean(&mut notebook);
            notebook.save()?;
            say!("cleaned {place}");
        }
    }
    Ok(fine)
}

/// What a commit would record decides, not what lies in the folder.
fn check_staged(workspace: &Workspace) -> Result<bool> {
    let list =
        git(workspace, &["diff", "--cached", "--name-only", "-z", "--diff-filter=ACMR", "--", "*.ipynb"])?;
    let mut fine = true;
    for path in list.split('\0').filter(|p| !p.is_empty()) {
        let text = git(workspace, &["show", &format!(":{path}")])?;
        let notebook = match Notebook::parse(&workspace.root.join(path), &text) {
            Ok(notebook) => notebook,
            Err(error) => {
                say!("{error:#}");
                fine = false;
                continue;
            }
        };
        if !notebook.is_rust() {
            continue;
        }
        if let Some(difference) = difference(path, &text, &notebook) {
            say!("{path} is not clean as staged:\n{difference}");
            fine = false;
        }
    }
    if !fine {
        say!("Run `cargo nbs clean`, then `git add` the notebooks again.");
    }
    Ok(fine)
}

pub(crate) fn git(workspace: &Workspace, args: &[&str]) -> Result<String> {
    let output =
        Command::new("git").args(args).current_dir(&workspace.root).output().context("cannot start git")?;
    if !output.status.success() {
        bail!("git {} failed: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim_end());
    }
    String::from_utf8(output.stdout).with_context(|| format!("git {} printed no UTF-8", args.join(" ")))
}
