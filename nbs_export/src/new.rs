//! `nbs new`: the skeleton of a lesson.

use anyhow::{Result, bail};
use serde_json::json;

use crate::clean;
use crate::notebook::{Notebook, split_lines};
use crate::workspace::{Workspace, lesson_number};

/// Writes `notebooks/NN_topic.ipynb`.
pub fn new(workspace: &Workspace, name: &str) -> Result<()> {
    let name = name.trim_end_matches(".ipynb");
    let Some(number) = lesson_number(name) else {
        bail!(
            "`{name}` is no name for a lesson: two digits (and a letter for an appendix), `_`, then lowercase letters, \
             digits and `_`, as in 02_matmul or 02b_to_the_limit"
        );
    };
    for path in workspace.notebook_paths()? {
        let other = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if lesson_number(&other) == Some(number) {
            bail!("{} already has this number", workspace.relative(&path));
        }
    }
    let path = workspace.notebooks_dir().join(format!("{name}.ipynb"));
    let topic = name.split_once('_').map_or(name, |(_, topic)| topic);
    let mut notebook =
        Notebook { path, json: json!({ "cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5 }) };
    let cells = skeleton(topic).into_iter().map(|(kind, id, text)| {
        let source = split_lines(&text);
        match kind {
            "code" => {
                // The kernel has the crates already: a reader need not see their lines.
                let folded = if id == DEPENDENCIES { json!({ "jupyter": { "source_hidden": true } }) } else { json!({}) };
                json!({ "cell_type": kind, "id": id, "metadata": folded, "source": source, "outputs": [], "execution_count": null })
            }
            _ => json!({ "cell_type": kind, "id": id, "metadata": {}, "source": source }),
        }
    });
    notebook.json["cells"] = cells.collect();
    clean::clean(&mut notebook);
    notebook.save()?;
    say!(
        "{}: fill in what stands in angle brackets, then `cargo nbs export`",
        workspace.relative(&notebook.path)
    );
    Ok(())
}

const DEPENDENCIES: &str = "dependencies";

/// The parts that every lesson has.
fn skeleton(topic: &str) -> Vec<(&'static str, &'static str, String)> {
    let title = topic.replace('_', " ");
    let markdown = |id, text: &str| ("markdown", id, text.to_owned());
    vec![
        ("markdown", "title", format!("# Building <{title}>\n\n<A picture of the result.>")),
        markdown(
            "overview",
            "| needs | quick | full | exports |\n| --- | --- | --- | --- |\n| lesson <NN> | <minutes, memory> | <minutes, memory> | `<module>` |",
        ),
        markdown(
            "ledger",
            "**What you may use by now:** <the standard library, and what the lessons before have built>.",
        ),
        (
            "code",
            DEPENDENCIES,
            format!("//| default_exp {topic}\n:dep minai-kernel = {{ path = \"../nbs_export/kernel\" }}"),
        ),
        markdown(
            "step-1",
            "## <The first question>\n\n<What you want to know, and the plainest code that answers it.>",
        ),
        (
            "code",
            "step-1-code",
            format!(
                "//| export\n//| doc <What the module `{topic}` is for.>\n/// <What it gives, its units, when it fails.>\npub fn answer() -> u64 {{\n    42\n}}"
            ),
        ),
        ("code", "step-1-test", "//| test the_answer_is_known\nassert_eq!(answer(), 42);".to_owned()),
        markdown(
            "summary",
            "## What you have built\n\n<In three sentences; and what it cost in time and memory.>",
        ),
        markdown(
            "exercises",
            "## Exercises\n\n1. <An easy one.>\n2. <One that takes an hour.>\n3. <An open one.>\n\n<details><summary>Answers</summary>\n\n<Folded away.>\n\n</details>",
        ),
        markdown("read-on", "## Where to read on\n\n<Papers, books, code.>"),
    ]
}
