//! Executing a notebook cell by cell, and judging each.

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};

use super::busy::Watch;
use super::outputs::Outputs;
use super::process::{End, Executed, Kernel, KernelSpec};
use super::progress::Progress;
use super::reported;
use crate::code::{self, SENTINEL};
use crate::directives::Directives;
use crate::notebook::Notebook;
use crate::workspace::Workspace;

/// What became of a notebook's cells.
pub struct Outcome {
    pub cells: usize,
    pub peak_memory: Option<u64>,
    pub failure: Option<Failure>,
}

/// A cell that did not do what it should.
pub struct Failure {
    pub cell: String,
    /// The line in the cell, from 1, and its text.
    pub line: Option<(usize, String)>,
    pub reason: String,
    /// What the kernel had to say.
    pub details: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.line {
            Some((number, text)) => {
                write!(f, "{}, line {number}: {}\n  {number:>4} | {text}", self.cell, self.reason)?;
            }
            None => write!(f, "{}: {}", self.cell, self.reason)?,
        }
        let details = self.details.trim_end();
        if details.is_empty() { Ok(()) } else { write!(f, "\n{details}") }
    }
}

/// Executes the notebook's cells and puts the outputs into it, up to the first failure. Where it is going to be saved, a
/// `watch` sees to it that times in the outputs are right.
pub async fn execute(
    notebook: &mut Notebook,
    spec: &KernelSpec,
    limit: Duration,
    workspace: &Workspace,
    progress: &Progress,
    mut watch: Option<Watch>,
) -> Result<Outcome> {
    let name = notebook.name();
    let cells = planned(notebook)?;
    let folder = notebook.path.parent().context("a notebook lies in a folder")?.to_owned();
    let starting = progress.step(&name, "starting the kernel".into());
    let kernel = Kernel::start(spec, &folder).await.with_context(|| name.clone())?;
    drop(starting);
    let mut runner = Runner { kernel, workspace, limit, done: Vec::new() };
    let hashes = notebook.source_hashes();
    let mut failure = None;
    for (k, cell) in cells.iter().enumerate() {
        let step = progress.step(&name, format!("cell {} of {}  {}", k + 1, cells.len(), cell.label));
        let judged = match &mut watch {
            Some(watch) => {
                watch.run(&cell.label, cell.directives.timed(), async || runner.execute(cell).await).await?
            }
            None => runner.execute(cell).await?,
        };
        drop(step);
        match judged {
            Ok(outputs) => {
                let mut saved = notebook.cell_mut(cell.index);
                saved.set_outputs(outputs);
                saved.set_execution_count(None);
                saved.set_hash(&hashes[&cell.index]);
            }
            Err(found) => {
                failure = Some(found);
                break;
            }
        }
    }
    if failure.is_none()
        && let Some(message) = runner.kernel.late_output().await.panic()
        && let Some(last) = cells.last()
    {
        failure = panicked(last, None, None, message);
    }
    mark_expected_errors(notebook);
    watch.iter().flat_map(Watch::notes).for_each(|note| progress.note(&name, &note));
    Ok(Outcome { cells: cells.len(), peak_memory: runner.kernel.peak_memory, failure })
}

/// Tells JupyterLab which cells may fail: its "Run All" would stop at them.
fn mark_expected_errors(notebook: &mut Notebook) {
    const TAG: &str = "raises-exception";
    let may_fail = |c: &crate::notebook::Cell| {
        c.directives().is_ok_and(|d| d.compile_fail().is_some() || d.should_panic() || !d.eval())
    };
    let cells: Vec<_> =
        notebook.code_cells().filter(may_fail).map(|c| (c.index, c.metadata("tags").clone())).collect();
    for (index, tags) in cells {
        let mut tags = tags.as_array().cloned().unwrap_or_default();
        if !tags.iter().any(|t| t == TAG) {
            tags.push(TAG.into());
            notebook.cell_mut(index).set_metadata("tags", tags.into());
        }
    }
}

/// A cell to execute.
#[derive(Clone)]
pub struct Planned {
    pub index: usize,
    pub label: String,
    pub source: String,
    pub directives: Directives,
}

/// The cells to execute. A slow one is left out of a quick run, and keeps the outputs that it has.
pub fn planned(notebook: &Notebook) -> Result<Vec<Planned>> {
    let full = std::env::var_os("MINAI_FULL").is_some_and(|v| v == "1");
    let mut cells = Vec::new();
    for cell in notebook.code_cells() {
        let directives = cell.directives().with_context(|| notebook.name())?;
        if directives.eval() && (full || !directives.slow()) {
            cells.push(Planned { index: cell.index, label: cell.label(), source: cell.source(), directives });
        }
    }
    Ok(cells)
}

struct Runner<'a> {
    kernel: Kernel,
    workspace: &'a Workspace,
    limit: Duration,
    /// The cells executed so far, in which a panic's line may lie.
    done: Vec<Planned>,
}

impl Runner<'_> {
    /// The cell's outputs, or what is wrong with it.
    async fn execute(&mut self, cell: &Planned) -> Result<Result<Vec<serde_json::Value>, Failure>> {
        self.done.push(cell.clone());
        if let Some(code) = cell.directives.compile_fail() {
            let executed = self.kernel.execute(&cell.source, self.limit).await;
            return Ok(match compile_failure(cell, &executed, code.as_deref()) {
                Some(failure) => Err(failure),
                None => Ok(executed.outputs.saved(&self.workspace.root, None)),
            });
        }
        if self.kernel.tells_all {
            return Ok(self.execute_plainly(cell).await);
        }
        let (executed, at_end) = self.execute_watched(cell).await;
        let place = self.panic_line(cell, &executed.outputs).await;
        let text = place.as_ref().map(|(cell, line)| format!("line {line} of {}", cell.label));
        Ok(match failure(cell, &executed, at_end, place, self.limit) {
            Some(failure) => Err(failure),
            None => Ok(executed.outputs.saved(&self.workspace.root, text.as_deref())),
        })
    }

    /// Executes the cell with a kernel that reports each failure as one.
    async fn execute_plainly(&mut self, cell: &Planned) -> Result<Vec<serde_json::Value>, Failure> {
        let executed = self.kernel.execute(&cell.source, self.limit).await;
        let outputs = &executed.outputs;
        let failure = match &executed.end {
            End::Error => reported::failure(cell, outputs, &self.done),
            // Judged by what it printed: a panic of which only the text came, or none where there should be one.
            _ => failure(cell, &executed, Some(true), None, self.limit),
        };
        match failure {
            Some(failure) => Err(failure),
            None => Ok(executed.outputs.saved(&self.workspace.root, None)),
        }
    }

    /// Executes the cell, if it has a `?` with the sentinel in it, which tells whether the cell came to its end.
    async fn execute_watched(&mut self, cell: &Planned) -> (Executed, Option<bool>) {
        let Some(watched) = with_sentinel(&cell.source) else {
            let executed = self.kernel.execute(&cell.source, self.limit).await;
            return (executed, None);
        };
        let mut executed = self.kernel.execute(&watched, self.limit).await;
        if executed.end == End::Ok {
            let vars = self.kernel.execute(":vars", self.limit).await;
            let at_end = vars.outputs.result().lines().any(|l| l == format!("{SENTINEL}: ()"));
            return (executed, Some(at_end));
        }
        if executed.end == End::Error && process_end(&executed.outputs).is_none() {
            // It did not compile, so it did not run: once more as it is, for a report whose lines are right.
            let plain = self.kernel.execute(&cell.source, self.limit).await;
            if plain.end != End::Ok {
                executed = plain;
            }
        }
        (executed, Some(false))
    }

    /// The cell and line of a panic: the kernel names the line in the file that it has made of all the cells.
    async fn panic_line(&mut self, cell: &Planned, outputs: &Outputs) -> Option<(Planned, usize)> {
        let place = outputs.panic_place()?;
        let number: usize = place.strip_prefix("src/lib.rs:")?.split(':').next()?.parse().ok()?;
        let folder = self.kernel.execute(":last_compile_dir", self.limit).await.outputs.result();
        let generated = fs::read_to_string(PathBuf::from(folder.trim()).join("src").join("lib.rs")).ok()?;
        let text = generated.lines().nth(number.checked_sub(1)?)?.trim();
        // The cell itself first, then those before it, the latest first: a function may stand in any of them.
        let cells = [cell].into_iter().chain(self.done.iter().rev());
        cells.filter_map(|c| Some((c.clone(), line_with(&c.source, text)?))).next()
    }
}

fn line_with(source: &str, text: &str) -> Option<usize> {
    let found = source.lines().position(|l| !text.is_empty() && l.trim() == text);
    // Statements on one line of a cell are split onto several in the generated file.
    let within = || source.lines().position(|l| text.len() > 3 && l.contains(text));
    found.or_else(within).map(|at| at + 1)
}

/// The cell with the sentinel before its first line of Rust; nothing for a cell without a `?` that could end it early.
fn with_sentinel(source: &str) -> Option<String> {
    let lines: Vec<&str> = source.lines().collect();
    let attributes = lines[code::commands_end(source)..].iter().take_while(|l| l.starts_with("#!["));
    let at = code::commands_end(source) + attributes.count();
    if question_marks(source).is_empty() || is_only_items(&lines[at..].join("\n")) {
        return None;
    }
    let sentinel = format!("let {SENTINEL}: () = ();");
    Some([&lines[..at], &[sentinel.as_str()], &lines[at..]].concat().join("\n"))
}

/// Functions, types and the like: nothing that runs.
fn is_only_items(rust: &str) -> bool {
    syn::parse_file(rust).is_ok_and(|file| !file.items.iter().any(|i| matches!(i, syn::Item::Macro(_))))
}

/// What is wrong with a cell that should run.
fn failure(
    cell: &Planned,
    executed: &Executed,
    at_end: Option<bool>,
    place: Option<(Planned, usize)>,
    limit: Duration,
) -> Option<Failure> {
    let outputs = &executed.outputs;
    let fail = |line: Option<usize>, reason: &str, details: String| {
        Some(Failure {
            cell: cell.label.clone(),
            line: line.map(|n| (n, cell.source.lines().nth(n - 1).unwrap_or_default().to_owned())),
            reason: reason.to_owned(),
            details,
        })
    };
    let first = Some(first_line(&cell.source));
    match &executed.end {
        End::Died(how) => return fail(first, "the kernel died", how.clone()),
        End::TimedOut => {
            let reason = format!("it took longer than {} s (see --timeout)", limit.as_secs());
            return fail(first, &reason, outputs.text("stderr"));
        }
        End::Error => {
            if let Some(how) = process_end(outputs) {
                return fail(
                    first,
                    "it ended the process that runs the cells",
                    how + "\n" + &outputs.text("stderr"),
                );
            }
            let reports: Vec<_> = outputs.errors().map(|(_, report)| report).collect();
            let line = reports.iter().find_map(|r| reported_line(r));
            return fail(line, "the kernel reports an error", reports.join("\n"));
        }
        End::Ok => {}
    }
    let should_panic = cell.directives.should_panic();
    match outputs.panic() {
        Some(_) if should_panic => None,
        None if should_panic => fail(first, "it should panic (`should_panic`), but did not", String::new()),
        Some(message) => panicked(cell, at_end, place, message),
        None if at_end == Some(false) => {
            let lines = question_marks(&cell.source);
            let reason = match lines.as_slice() {
                [] => "it ended early".to_owned(),
                [_] => "a `?` met an error".to_owned(),
                several => format!("a `?` met an error, on one of the lines {several:?}"),
            };
            fail(lines.first().copied(), &reason, outputs.text("stderr"))
        }
        None => None,
    }
}

fn panicked(
    cell: &Planned,
    at_end: Option<bool>,
    place: Option<(Planned, usize)>,
    message: String,
) -> Option<Failure> {
    let reason = if at_end == Some(true) {
        "a panic was reported, though the cell went on (if that is meant, mark it `//| should_panic`)"
    } else {
        "it panicked"
    };
    let in_this = place.as_ref().is_none_or(|(other, _)| other.index == cell.index);
    let line =
        place.as_ref().map(|(other, n)| (*n, other.source.lines().nth(n - 1).unwrap_or_default().to_owned()));
    let label = match &place {
        Some((other, _)) if !in_this => format!("{} (called from {})", other.label, cell.label),
        _ => cell.label.clone(),
    };
    Some(Failure { cell: label, line, reason: reason.into(), details: message })
}

/// What is wrong with a cell that should not compile.
fn compile_failure(cell: &Planned, executed: &Executed, code: Option<&str>) -> Option<Failure> {
    let wanted = code.map_or("an error".to_owned(), |c| format!("error {c}"));
    let fail = |found: String| {
        Some(Failure {
            cell: cell.label.clone(),
            line: None,
            reason: format!("it should fail to compile with {wanted} (`compile_fail`), {found}"),
            details: executed.outputs.errors().map(|(_, report)| report).collect::<Vec<_>>().join("\n"),
        })
    };
    match &executed.end {
        End::Ok => return fail("but it compiled".into()),
        End::Died(how) => return fail(format!("but the kernel died: {how}")),
        End::TimedOut => return fail("but it took too long".into()),
        End::Error => {}
    }
    if process_end(&executed.outputs).is_some() {
        return fail("but it compiled, and ended the process that runs the cells".into());
    }
    let code = code?;
    let found: Vec<String> =
        executed.outputs.errors().filter_map(|(_, report)| error_code(&report)).collect();
    if !found.is_empty() && found.iter().all(|c| c == code) {
        return None;
    }
    let found = if found.is_empty() { "one without a code".to_owned() } else { found.join(", ") };
    fail(format!("but the error is {found}"))
}

/// The message of evcxr's error for a runtime process that has ended, by `exit` or a signal.
fn process_end(outputs: &Outputs) -> Option<String> {
    let mut errors = outputs.errors().map(|(message, _)| message);
    errors.find(|m| m.contains("Subprocess terminated") || m.contains("Subprocess didn't start"))
}

/// The code in a report that begins `[E0382] Error: …`.
fn error_code(report: &str) -> Option<String> {
    let (_, rest) = report.split_once("[E")?;
    let digits = rest.split_once(']')?.0;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| format!("E{digits}"))
}

/// The first line of the cell that a report shows: ` 3 │ let b = a;`.
fn reported_line(report: &str) -> Option<usize> {
    let shown = report.lines().filter_map(|l| l.split_once('│'));
    shown.filter_map(|(number, _)| number.trim().parse().ok()).next()
}

/// The first line of Rust, or of anything if there is none; from 1.
fn first_line(source: &str) -> usize {
    let rust = code::commands_end(source) + 1;
    if rust <= source.lines().count() { rust } else { 1 }
}

/// The lines with a `?` operator, from 1.
pub(crate) fn question_marks(source: &str) -> Vec<usize> {
    fn walk(tokens: TokenStream, lines: &mut Vec<usize>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => walk(group.stream(), lines),
                TokenTree::Punct(p) if p.as_char() == '?' => lines.push(p.span().start().line),
                _ => {}
            }
        }
    }
    let mut lines = Vec::new();
    if let Ok(tokens) = code::blank_commands(source).parse() {
        walk(tokens, &mut lines);
    }
    lines.dedup();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use jupyter_protocol::{ErrorOutput, JupyterMessageContent, StreamContent};

    fn planned(source: &str) -> Planned {
        Planned {
            index: 3,
            label: "cell `x`".into(),
            source: source.into(),
            directives: Directives::parse(source).unwrap(),
        }
    }

    fn executed(end: End, messages: Vec<JupyterMessageContent>) -> Executed {
        let mut outputs = Outputs::default();
        messages.into_iter().for_each(|m| outputs.add(m));
        Executed { outputs, end }
    }

    fn judge(source: &str, executed: &Executed, at_end: impl Into<Option<bool>>) -> Option<String> {
        let found = failure(&planned(source), executed, at_end.into(), None, Duration::from_secs(5));
        found.map(|f| f.to_string())
    }

    fn panic() -> Executed {
        let text = "thread '<unnamed>' (1) panicked at src/lib.rs:9:1:\nboom\n";
        executed(End::Ok, vec![StreamContent::stderr(text).into()])
    }

    fn compile_error(code: &str) -> Executed {
        let error = ErrorOutput {
            ename: "Error".into(),
            evalue: "some message".into(),
            traceback: vec![
                format!("[{code}] Error: some message"),
                "   ╭─[ command_4:1:1 ]".into(),
                " 2 │ f()".into(),
            ],
        };
        executed(End::Error, vec![error.into()])
    }

    #[test]
    fn what_is_reported_as_ok_is_looked_at() {
        let ok = || executed(End::Ok, vec![StreamContent::stderr("careful\n").into()]);
        assert_eq!(judge("1 + 1", &ok(), true), None);
        let early = judge("let n = 1;\nf()?;", &ok(), false).unwrap();
        assert_eq!(early, "cell `x`, line 2: a `?` met an error\n     2 | f()?;\ncareful");
        let several = judge("f()?;\ng()?;", &ok(), false).unwrap();
        assert!(several.contains("on one of the lines [1, 2]"), "{several}");
        let panicked = judge("f()", &panic(), false).unwrap();
        assert_eq!(panicked, "cell `x`: it panicked\nboom");
        assert_eq!(judge("f()", &panic(), None), Some(panicked));
        assert!(judge("f()", &panic(), true).unwrap().contains("though the cell went on"));
    }

    #[test]
    fn a_cell_that_should_panic_must() {
        assert_eq!(judge("//| should_panic\nf()", &panic(), false), None);
        let calm = judge("//| should_panic\nf()", &executed(End::Ok, vec![]), true).unwrap();
        assert!(calm.contains("should panic") && calm.contains("   2 | f()"), "{calm}");
        let broken = judge("//| should_panic\nf()", &compile_error("E0425"), false);
        assert!(broken.unwrap().contains("reports an error"));
    }

    #[test]
    fn ends_of_all_kinds_are_failures() {
        let died = judge("f()", &executed(End::Died("signal: 9".into()), vec![]), false).unwrap();
        assert!(died.contains("the kernel died") && died.contains("signal: 9"));
        let slow = judge("f()", &executed(End::TimedOut, vec![]), false).unwrap();
        assert!(slow.contains("longer than 5 s") && slow.contains("1 | f()"), "{slow}");
        let error = judge("let a = 1;\nf()", &compile_error("E0425"), false).unwrap();
        assert!(
            error.starts_with("cell `x`, line 2: the kernel reports an error\n     2 | f()\n[E0425]"),
            "{error}"
        );
        let text = "Subprocess terminated with status: exit status: 3";
        let exit = ErrorOutput { ename: "Error".into(), evalue: text.into(), traceback: vec![text.into()] };
        let exit = judge("f()", &executed(End::Error, vec![exit.into()]), false).unwrap();
        assert!(exit.contains("ended the process") && exit.contains("exit status: 3"));
    }

    #[test]
    fn compile_fail_wants_its_very_error() {
        let cell = planned("//| compile_fail E0382\nlet b = a;");
        let judge = |e: &Executed| compile_failure(&cell, e, Some("E0382")).map(|f| f.reason);
        assert_eq!(judge(&compile_error("E0382")), None);
        assert!(judge(&compile_error("E0308")).unwrap().ends_with("but the error is E0308"));
        assert!(judge(&compile_error("warning")).unwrap().ends_with("but the error is one without a code"));
        assert!(judge(&executed(End::Ok, vec![])).unwrap().ends_with("but it compiled"));
    }

    #[test]
    fn the_sentinel_stands_before_the_first_rust() {
        assert_eq!(
            with_sentinel("//| export\n// words\n:dep a = \"1\"\n#![allow(x)]\nlet a = f()?;\na").unwrap(),
            "//| export\n// words\n:dep a = \"1\"\n#![allow(x)]\nlet nbs_end: () = ();\nlet a = f()?;\na"
        );
        for without in ["", ":vars\n", "let a = 1;\na", "fn f() -> Option<()> {\n    g()?;\n    None\n}"] {
            assert_eq!(with_sentinel(without), None, "{without}");
        }
        assert!(with_sentinel("println!(\"{}\", f()?);").is_some());
    }

    #[test]
    fn a_panics_line_is_found_in_its_cell() {
        let source = "let a = 1;\nfor i in 0..3 {\n    assert!(i < 2);\n}\nf(a); g(a);";
        assert_eq!(line_with(source, "assert!(i < 2);"), Some(3));
        assert_eq!(line_with(source, "g(a);"), Some(5));
        assert_eq!(line_with(source, "}"), Some(4));
        assert_eq!(line_with(source, "elsewhere();"), None);
        assert_eq!(line_with(source, ""), None);
    }

    #[test]
    fn cells_that_may_fail_are_marked_once() {
        let cell = |source: &str, tags: serde_json::Value| {
            serde_json::json!({
                "cell_type": "code", "metadata": tags, "source": source, "outputs": [],
            })
        };
        let mut notebook = Notebook {
            path: "x.ipynb".into(),
            json: serde_json::json!({ "cells": [
                cell("1", serde_json::json!({})),
                cell("//| compile_fail E0382\n1", serde_json::json!({ "tags": ["mine"] })),
                cell("//| eval: false\n1", serde_json::json!({})),
            ]}),
        };
        mark_expected_errors(&mut notebook);
        mark_expected_errors(&mut notebook);
        let tags: Vec<_> = notebook.cells().map(|c| c.metadata("tags").to_string()).collect();
        assert_eq!(tags, ["null", "[\"mine\",\"raises-exception\"]", "[\"raises-exception\"]"]);
    }

    #[test]
    fn question_marks_are_operators() {
        assert_eq!(question_marks("// ?\nlet a = f()?;\nlet s = \"?\";\nif x { g()?.h()?; }"), [2, 4]);
    }
}
