//! The crate's documentation beside the lessons: links from names in lessons to it, and from it back to the lessons.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nbs_export::notebook::Notebook;
use nbs_export::workspace::Workspace;

use crate::markdown::escape;

/// The address of each name that can be written alone.
pub type Names = BTreeMap<String, String>;

/// The public names of the crate.
#[derive(Clone, Debug, Default)]
pub struct Api {
    /// From `tensor::Tensor` to its page.
    paths: BTreeMap<String, String>,
    /// What `use minai::prelude::*;` brings.
    prelude: Vec<Import>,
}

/// A name that a `use` line brings, and the path that it stands for, without the crate.
#[derive(Clone, Debug, PartialEq)]
struct Import {
    name: String,
    path: String,
}

/// Has cargo write the documentation, and gives the folder.
pub fn document(workspace: &Workspace, target: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["doc", "--quiet", "--package", "minai", "--no-deps", "--target-dir"]);
    let done = command.arg(target).current_dir(&workspace.root).status();
    if !done.context("cargo doc could not be started")?.success() {
        bail!("cargo doc failed");
    }
    Ok(target.join("doc"))
}

impl Api {
    /// Reads the names off the files that rustdoc has written in `folder`, which becomes `api` on the site.
    pub fn read(folder: &Path, prelude: &str) -> Result<Self> {
        let mut paths = BTreeMap::new();
        find(&folder.join("minai"), "", &mut paths)?;
        Ok(Api { paths, prelude: imports(prelude, &["crate"]) })
    }

    /// The names that mean something of the crate in a notebook: what it imports, and what it exports itself.
    pub fn names(&self, notebook: &Notebook) -> Names {
        let mut found = Vec::new();
        let cells: Vec<_> = notebook.code_cells().collect();
        let default = cells.iter().find_map(|cell| cell.directives().ok()?.default_exp()).unwrap_or_default();
        for cell in cells {
            for import in imports(&cell.source(), &["minai"]) {
                match import.path.as_str() {
                    "prelude::*" => found.extend(self.prelude.iter().cloned()),
                    _ => found.push(import),
                }
            }
            if let Some(module) = cell.directives().ok().and_then(|marks| marks.export()) {
                let module = module.unwrap_or_else(|| default.clone());
                found.extend(
                    public(&cell.source()).map(|name| Import { path: format!("{module}::{name}"), name }),
                );
            }
        }
        let address = |import: Import| Some((import.name, self.paths.get(&import.path)?.clone()));
        found.into_iter().filter_map(address).collect()
    }

    /// The page of a module.
    pub fn module(&self, module: &str) -> Option<&str> {
        self.paths.get(module).map(String::as_str)
    }
}

/// Finds the pages of all items below a folder of the documentation.
fn find(folder: &Path, module: &str, paths: &mut BTreeMap<String, String>) -> Result<()> {
    let within = |name: &str| if module.is_empty() { name.into() } else { format!("{module}::{name}") };
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let address = |file: &str| {
            format!(
                "api/minai/{}{file}",
                module.replace("::", "/") + if module.is_empty() { "" } else { "/" }
            )
        };
        if path.is_dir() {
            paths.insert(within(&file), address(&format!("{file}/index.html")));
            find(&path, &within(&file), paths)?;
        } else if let Some((kind, name)) = file.strip_suffix(".html").and_then(|file| file.split_once('.'))
            && ["fn", "struct", "enum", "trait", "type", "constant", "macro"].contains(&kind)
        {
            paths.insert(within(name), address(&file));
        }
    }
    Ok(())
}

/// What the `use` lines of a text bring from one of these crates.
fn imports(source: &str, crates: &[&str]) -> Vec<Import> {
    let mut found = Vec::new();
    let lines =
        source.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    for statement in lines.split("use ").skip(1) {
        let Some((tree, _)) = statement.split_once(';') else { continue };
        for name in crates {
            if let Some(rest) = tree.trim().strip_prefix(name).and_then(|rest| rest.strip_prefix("::")) {
                expand("", rest, &mut found);
            }
        }
    }
    found
}

/// Follows a tree as in `use a::{b, c::d as e};` to its names.
fn expand(before: &str, tree: &str, found: &mut Vec<Import>) {
    let tree = tree.trim();
    let path = |last: &str| if before.is_empty() { last.to_owned() } else { format!("{before}::{last}") };
    if let Some(inside) = tree.strip_prefix('{').and_then(|tree| tree.strip_suffix('}')) {
        let mut depth = 0;
        let branches = inside.split(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            c == ',' && depth == 0
        });
        return branches
            .filter(|branch| !branch.trim().is_empty())
            .for_each(|branch| expand(before, branch, found));
    }
    match tree.split_once("::") {
        Some((first, rest)) => expand(&path(first), rest, found),
        None => {
            let (last, name) = tree.split_once(" as ").unwrap_or((tree, tree));
            found.push(Import { name: name.trim().into(), path: path(last.trim()) });
        }
    }
}

/// The public items that a cell defines.
fn public(source: &str) -> impl Iterator<Item = String> {
    source.lines().filter_map(|line| {
        let begins = ["pub fn ", "pub struct ", "pub enum ", "pub trait ", "pub type ", "pub const "];
        let rest = begins.iter().find_map(|begin| line.strip_prefix(begin))?;
        Some(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect())
    })
}

/// Puts links to the lessons into the documentation: `lessons` has each module's notebook and title.
pub fn link_back(
    folder: &Path,
    lessons: &BTreeMap<String, (String, String)>,
    repository: &str,
) -> Result<()> {
    for (module, (notebook, title)) in lessons {
        let path = folder.join(format!("minai/{module}/index.html"));
        let Ok(html) = fs::read_to_string(&path) else { continue };
        let line = format!(
            "<p class=\"lesson\">Built line by line in <a href=\"../../../{notebook}.html\">{}</a>.</p>",
            escape(title)
        );
        let place = "<details class=\"toggle top-doc\"";
        fs::write(&path, html.replacen(place, &format!("{line}{place}"), 1))?;
    }
    let front = folder.join("minai/index.html");
    let html = fs::read_to_string(&front)?;
    fs::write(&front, to_pages(&html, &format!("{repository}notebooks/"), "../../"))?;
    for entry in fs::read_dir(folder.join("src/minai"))? {
        let path = entry?.path();
        if path.is_file() {
            fs::write(&path, to_cells(&fs::read_to_string(&path)?))?;
        }
    }
    Ok(())
}

/// Links to notebooks on the repository's host become links to the lessons' pages.
fn to_pages(html: &str, from: &str, to: &str) -> String {
    let mark = format!("href=\"{from}");
    let mut parts = html.split(&mark);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| match part.split_once(".ipynb") {
        Some((name, rest)) if !name.contains('"') => format!("{out}href=\"{to}{name}.html{rest}"),
        _ => format!("{out}{mark}{part}"),
    })
}

/// The comments that name the cell of what follows become links to it.
fn to_cells(html: &str) -> String {
    const MARK: &str = "// %% notebooks/";
    let mut parts = html.split(MARK);
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| {
        let end = part.find(['<', '\n']).unwrap_or(part.len());
        match part[..end].split_once(".ipynb ") {
            Some((name, id)) => {
                let place =
                    format!("<a style=\"text-decoration: underline\" href=\"../../../{name}.html#cell-{id}\">notebooks/{name}.ipynb {id}</a>");
                format!("{out}// %% {place}{}", &part[end..])
            }
            None => format!("{out}{MARK}{part}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(name: &str, path: &str) -> Import {
        Import { name: name.into(), path: path.into() }
    }

    #[test]
    fn use_lines_are_followed_to_their_names() {
        let text = "// use minai::no::No;\nuse minai::tensor::{Tensor, ops::{add as plus, mul}};\nuse std::fs;\nuse minai::prelude::*;";
        let expected = [
            import("Tensor", "tensor::Tensor"),
            import("plus", "tensor::ops::add"),
            import("mul", "tensor::ops::mul"),
            import("*", "prelude::*"),
        ];
        assert_eq!(imports(text, &["minai"]), expected);
    }

    #[test]
    fn names_are_those_of_the_documentation_that_a_notebook_uses_or_exports() {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("minai/tensor");
        fs::create_dir_all(&module).unwrap();
        for file in ["struct.Tensor.html", "fn.cat.html", "fn.stack.html", "index.html"] {
            fs::write(module.join(file), "").unwrap();
        }
        let api = Api::read(folder.path(), "pub use crate::tensor::stack;").unwrap();
        assert_eq!(api.module("tensor"), Some("api/minai/tensor/index.html"));
        let names = |cell: &str| {
            let json = serde_json::json!({ "cells": [{ "cell_type": "code", "id": "a", "metadata": {}, "outputs": [],
                "execution_count": null, "source": cell }], "metadata": {}, "nbformat": 4, "nbformat_minor": 5 });
            api.names(&Notebook::parse(Path::new("01_a.ipynb"), &json.to_string()).unwrap())
        };
        assert_eq!(names("use minai::tensor::Tensor;")["Tensor"], "api/minai/tensor/struct.Tensor.html");
        assert_eq!(names("use minai::prelude::*;").into_keys().collect::<Vec<_>>(), ["stack"]);
        assert_eq!(
            names("//| export tensor\npub fn cat() {}\nfn stack() {}").into_keys().collect::<Vec<_>>(),
            ["cat"]
        );
    }

    #[test]
    fn the_documentation_leads_back_to_lessons_and_cells() {
        let html = "<a href=\"https://h/blob/main/notebooks/05_tensor.ipynb\">5</a>";
        assert_eq!(
            to_pages(html, "https://h/blob/main/notebooks/", "../../"),
            "<a href=\"../../05_tensor.html\">5</a>"
        );
        let html = "<span>// %% notebooks/05_tensor.ipynb t-new\n</span>x";
        let link = "<a style=\"text-decoration: underline\" href=\"../../../05_tensor.html#cell-t-new\">notebooks/05_tensor.ipynb t-new</a>";
        assert_eq!(to_cells(html), format!("<span>// %% {link}\n</span>x"));
    }
}
