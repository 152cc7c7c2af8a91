//! `nbs fmt`: the code of cells in rustfmt's form.
//!
//! A cell holds items, statements, or both, and may begin with lines that only the kernel understands. rustfmt formats
//! files, so items become a file as they are, and statements become the body of a function, which is also what they are
//! in an exported test. All cells of a notebook go through one call.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::directives::{self, Directives, Parts};
use crate::notebook::{Cell, Notebook};
use crate::workspace::Workspace;
use crate::{code, diff, exported};

/// What rustfmt makes of a notebook.
#[derive(Debug, Default)]
pub struct Formatted {
    /// Cells that change: place among all cells, label, and new text.
    pub changed: Vec<(usize, String, String)>,
    /// Cells that rustfmt cannot read.
    pub problems: Vec<String>,
}

/// A cell on its way through rustfmt.
struct Job {
    index: usize,
    label: String,
    source: String,
    parts: Parts,
    /// Lines for the kernel, which stay as they are.
    commands: String,
    is_block: bool,
    may_fail: bool,
    text: String,
}

/// Formats the code cells of a notebook, in memory.
pub fn format(workspace: &Workspace, notebook: &Notebook) -> Result<Formatted> {
    // A directive in a wrong place is reported elsewhere.
    let jobs: Vec<Job> = notebook.code_cells().filter_map(|c| Some(job(&c, c.directives().ok()?))).collect();
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let files: Vec<String> = (0..jobs.len()).map(|i| format!("cell{i}.rs")).collect();
    for (job, file) in jobs.iter().zip(&files) {
        std::fs::write(folder.path().join(file), &job.text).context("cannot write a temporary file")?;
    }
    let paths: Vec<_> = files.iter().map(|f| folder.path().join(f)).collect();
    let mut messages = String::new();
    // A command line has a limited length.
    for some in paths.chunks(200) {
        messages += &rustfmt(workspace, some)?;
        messages += "\n\n";
    }
    let mut formatted = Formatted::default();
    for (job, file) in jobs.iter().zip(&files) {
        if let Some(message) = message_about(&messages, file) {
            if !job.may_fail {
                formatted.problems.push(format!("{}: rustfmt cannot read it:\n{message}", job.label));
            }
            continue;
        }
        let text =
            std::fs::read_to_string(folder.path().join(file)).context("cannot read a temporary file")?;
        let source = job.result(&text);
        if source != job.source {
            formatted.changed.push((job.index, job.label.clone(), source));
        }
    }
    Ok(formatted)
}

fn job(cell: &Cell, marks: Directives) -> Job {
    let source = cell.source();
    let parts = directives::split(&source);
    let head = code::commands_end(&parts.code);
    let last_command = parts.code.lines().take(head).enumerate().filter(|(_, l)| code::is_command(l)).last();
    let commands_end = last_command.map_or(0, |(i, _)| i + 1);
    let commands: String = parts.code.lines().take(commands_end).map(|l| format!("{l}\n")).collect();
    let rust = parts.code.lines().skip(commands_end).collect::<Vec<_>>().join("\n");
    // Text with unbalanced braces could break out of the function; as it is, rustfmt says what is wrong with it.
    let is_balanced = rust.parse::<proc_macro2::TokenStream>().is_ok();
    let is_block = is_balanced && (marks.test().is_some() || syn::parse_file(&rust).is_err());
    let text = if is_block { format!("fn main() {{\n{}\n}}\n", exported::indent(&rust)) } else { rust };
    let may_fail = marks.compile_fail().is_some();
    Job { index: cell.index, label: cell.label(), source, parts, commands, is_block, may_fail, text }
}

impl Job {
    /// The cell's new text, from what rustfmt has made of its file.
    fn result(&self, text: &str) -> String {
        let body = text.strip_prefix("fn main() {").and_then(|t| t.trim_end().strip_suffix('}'));
        let rust = match (self.is_block, body) {
            (true, Some(body)) => exported::dedent(body.trim_matches('\n')),
            (true, None) => return self.source.clone(),
            (false, _) => text.to_owned(),
        };
        let gap = if !self.commands.is_empty() && self.text_follows_gap() { "\n" } else { "" };
        self.parts.join(format!("{}{gap}{}", self.commands, rust.trim_end()).trim_end())
    }

    /// A blank line below the kernel's lines is the author's choice.
    fn text_follows_gap(&self) -> bool {
        let after = self.parts.code.lines().nth(self.commands.lines().count());
        after.is_some_and(|l| l.trim().is_empty())
    }
}

/// Formats files in place and returns what rustfmt has to complain about.
fn rustfmt(workspace: &Workspace, files: &[PathBuf]) -> Result<String> {
    let mut command = Command::new("rustfmt");
    // From the workspace's folder, where a pinned toolchain has effect.
    command.current_dir(&workspace.root).args(["--edition", "2024", "--color", "never"]);
    let configs = ["rustfmt.toml", ".rustfmt.toml"].map(|name| workspace.root.join(name));
    if let Some(config) = configs.iter().find(|path| path.is_file()) {
        command.arg("--config-path").arg(config);
    }
    let output = command
        .args(files)
        .stdin(Stdio::null())
        .output()
        .context("cannot start rustfmt; `rustup component add rustfmt` installs it")?;
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    let about_a_file = files.iter().any(|f| messages.contains(&*f.to_string_lossy()));
    if !output.status.success() && !about_a_file {
        bail!("rustfmt failed:\n{}", messages.trim_end());
    }
    Ok(messages)
}

/// The complaint about one file.
fn message_about(messages: &str, file: &str) -> Option<String> {
    let about = |part: &&str| part.contains(&format!("{file}:"));
    let message = messages.split("\n\n").find(about)?;
    Some(message.lines().map(|l| format!("    {l}")).collect::<Vec<_>>().join("\n"))
}

/// `nbs fmt`. `Ok(false)` if `check` found something to do, or a cell cannot be read.
pub fn fmt(workspace: &Workspace, names: &[String], check: bool) -> Result<bool> {
    let (notebooks, mut fine) = workspace.readable(names)?;
    for mut notebook in notebooks {
        let place = workspace.relative(&notebook.path);
        let formatted = format(workspace, &notebook)?;
        for problem in &formatted.problems {
            eprintln!("{place}, {problem}");
            fine = false;
        }
        let fresh = notebook.fresh();
        for (index, label, source) in &formatted.changed {
            if check {
                let old = notebook.cells().nth(*index).map(|c| c.source()).unwrap_or_default();
                say!(
                    "{}",
                    diff::unified(&format!("{place}, {label}"), &(old + "\n"), &(source.clone() + "\n"))
                );
                fine = false;
            } else {
                notebook.cell_mut(*index).set_source(source);
                say!("formatted {place}, {label}");
            }
        }
        if !check && !formatted.changed.is_empty() {
            // The code does what it did, so outputs that belonged to it still do.
            let hashes = notebook.source_hashes();
            for index in fresh {
                notebook.cell_mut(index).set_hash(&hashes[&index]);
            }
            notebook.save()?;
        }
    }
    Ok(fine)
}
