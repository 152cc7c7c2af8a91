//! A lesson's page.

use nbs_export::notebook::{Cell, Notebook};

use crate::api::{Api, Names};
use crate::code;
use crate::export::Files;
use crate::markdown::{self, Heading, Links, escape};
use crate::output;

/// A lesson as HTML, without what all pages have around.
#[derive(Debug, Default)]
pub struct Lesson {
    pub title: String,
    pub html: String,
    pub headings: Vec<Heading>,
    /// What can be found: an anchor, a heading, and the text below it.
    pub passages: Vec<(String, String, String)>,
    /// The first paragraph, for the contents.
    pub summary: String,
}

pub fn render(notebook: &Notebook, links: &Links, api: &Api, files: &mut Files) -> Lesson {
    let names = &api.names(notebook);
    let mut lesson = Lesson::default();
    let mut place = (String::new(), String::new());
    let module =
        notebook.code_cells().find_map(|cell| cell.directives().ok()?.default_exp()).unwrap_or_default();
    for cell in notebook.cells() {
        let id = cell.id().map(escape).unwrap_or_default();
        if cell.is_code() {
            lesson.html += &code_cell(&cell, (&id, &module), (api, names), files);
            continue;
        }
        let prose = markdown::render(&cell.source(), links, names);
        lesson.html += &format!("<div id=\"cell-{id}\">\n{}</div>\n", prose.html);
        let mut texts = prose.texts.into_iter();
        let first = texts.next().unwrap_or_default();
        if place.1.is_empty() {
            place.1 = notebook.name()
        }
        lesson.passages.push((place.0.clone(), place.1.clone(), first));
        for (heading, text) in prose.headings.into_iter().zip(texts) {
            if lesson.title.is_empty() {
                lesson.title = heading.text.clone();
                lesson.summary = text.clone();
            }
            place = (heading.id.clone(), heading.text.clone());
            lesson.passages.push((place.0.clone(), place.1.clone(), text));
            lesson.headings.push(heading);
        }
    }
    lesson.passages.retain(|(_, _, text)| !text.trim().is_empty());
    lesson
}

/// What a cell is, said above its code in place of its directives.
fn labels(cell: &Cell, default: &str) -> Vec<String> {
    let marks = cell.directives().unwrap_or_default();
    let mut labels = Vec::new();
    if let Some(test) = marks.test() {
        labels.push(format!("test {}", test.replace('_', " ")));
    } else if let Some(module) = marks.export() {
        labels.push(format!("becomes part of minai::{}", module.as_deref().unwrap_or(default)));
    }
    if marks.should_panic() {
        labels.push("must panic".into());
    }
    if let Some(code) = marks.compile_fail() {
        labels.push(format!("must not compile{}", code.map(|code| format!(": {code}")).unwrap_or_default()));
    }
    labels
}

fn code_cell(
    cell: &Cell,
    (id, module): (&str, &str),
    (api, names): (&Api, &Names),
    files: &mut Files,
) -> String {
    let source = cell.source();
    let text: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//|")).collect();
    let text = text.join("\n");
    let outputs = output::render(cell.outputs(), files);
    if text.trim().is_empty() && outputs.is_empty() {
        return String::new();
    }
    let labels = labels(cell, module);
    let label: Vec<String> = labels.iter().map(|label| linked(label, api)).collect();
    let code = code::block("code", &label.join(", "), &code::highlight(text.trim(), "rust", names));
    let folded = cell.metadata("jupyter")["source_hidden"] == true;
    let hidden = cell.metadata("jupyter")["outputs_hidden"] == true;
    let body = match (folded, hidden) {
        (true, true) => fold(&summary(cell, &labels, &text), &(code + &outputs)),
        (true, false) => fold(&summary(cell, &labels, &text), &code) + &outputs,
        (false, true) => code + &fold("Output", &outputs),
        (false, false) => code + &outputs,
    };
    format!("<div class=\"cell\" id=\"cell-{id}\">\n{body}</div>\n")
}

/// A label as HTML: a module leads to its documentation.
fn linked(label: &str, api: &Api) -> String {
    let module =
        label.split_once("minai::").and_then(|(before, module)| Some((before, module, api.module(module)?)));
    match module {
        Some((before, module, address)) => {
            format!("{}<a href=\"{}\">minai::{}</a>", escape(before), escape(address), escape(module))
        }
        None => escape(label),
    }
}

/// What stands on a folded cell.
fn summary(cell: &Cell, labels: &[String], text: &str) -> String {
    let defines = text.lines().find_map(|line| {
        let begins = ["fn ", "pub fn ", "struct ", "pub struct ", "macro_rules! "];
        let rest = begins.iter().find_map(|begin| line.strip_prefix(begin))?;
        Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>())
    });
    match (labels, defines) {
        ([label, ..], _) => label[..1].to_uppercase() + &label[1..],
        _ if text.lines().any(|line| line.trim_start().starts_with(":dep")) => {
            "What another Rust kernel needs to run this notebook".into()
        }
        _ if cell.id().is_some_and(|id| id.contains("answer")) => "An answer".into(),
        (_, Some(name)) => format!("Code: {name}"),
        _ => "Code".into(),
    }
}

fn fold(summary: &str, inside: &str) -> String {
    format!("<details><summary>{}</summary>\n{inside}</details>\n", escape(summary))
}
