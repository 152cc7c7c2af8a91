//! `nbs update`: edits made in exported files go back into their cells.
//!
//! A file's hash tells whether the file was edited, and whether the notebook still exports what the file held at first.
//! Only if the notebook stayed as it was are edits taken over: otherwise both sides changed, and nobody but the author
//! can know what is meant. What goes back is proved by exporting again: the result must be the edited file.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::emit;
use crate::export;
use crate::exported::{Exported, Section, unwrap_test};
use crate::files::{self, Change};
use crate::lesson::Lesson;
use crate::notebook::Notebook;
use crate::plan::Plan;
use crate::workspace::{CRATE, Workspace};
use crate::{count, diff, directives};

/// The new text of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Edit {
    place: String,
    id: String,
    old: String,
    new: String,
}

/// An edited file, and what the notebook exports to it at present.
struct Edited {
    path: String,
    file: Exported,
    current: Exported,
}

/// `nbs update`.
pub fn update(workspace: &Workspace, dry_run: bool) -> Result<()> {
    let plan = Plan::read(workspace)?;
    let done = update_good(workspace, &plan, dry_run);
    if plan.problems.is_empty() {
        return done;
    }
    let problems: Vec<String> = plan.problems.iter().map(ToString::to_string).collect();
    let problems = format!("notebooks with problems were left alone:\n\n{}", problems.join("\n"));
    match done {
        Ok(()) => bail!(problems),
        Err(error) => bail!("{error:#}\n\n{problems}"),
    }
}

/// Brings back what was edited in files of notebooks without problems.
fn update_good(workspace: &Workspace, plan: &Plan, dry_run: bool) -> Result<()> {
    let mut refusals = Vec::new();
    let edited = edited_files(workspace, plan, &mut refusals)?;
    let edits: Vec<Edit> = edited.iter().flat_map(|e| e.edits(plan, &mut refusals)).collect();
    refuse(&refusals)?;
    if edited.is_empty() {
        say!("Nothing to update: no exported file was edited.");
        return Ok(());
    }
    let notebooks = apply(plan, &edits);
    let changes = prove(workspace, plan, &notebooks, &edited)?;
    for edit in &edits {
        let name = format!("{}, cell `{}`", edit.place, edit.id);
        say!("{}", diff::unified(&name, &(edit.old.clone() + "\n"), &(edit.new.clone() + "\n")));
    }
    if dry_run {
        say!("{} would change.", count(edits.len(), "cell"));
        return Ok(());
    }
    files::write_all(&changes)?;
    say!(
        "{} changed. Their outputs are stale now: `cargo nbs run` makes new ones.",
        count(edits.len(), "cell")
    );
    Ok(())
}

fn refuse(refusals: &[String]) -> Result<()> {
    if refusals.is_empty() { Ok(()) } else { bail!("nothing is changed:\n\n{}", refusals.join("\n\n")) }
}

fn edited_files(workspace: &Workspace, plan: &Plan, refusals: &mut Vec<String>) -> Result<Vec<Edited>> {
    let bad = plan.bad();
    let mut edited = Vec::new();
    for (path, file) in export::exported_files(workspace)? {
        if !file.is_edited() || bad.contains(&file.place) {
            continue;
        }
        let Some(current) = as_it_was(plan, &path, &file) else {
            refusals.push(format!("{path} was edited, but {} no longer exports it", file.place));
            continue;
        };
        let edit = Edited { path, file, current };
        if edit.file.body != edit.current.body && edit.current.stored_hash != edit.file.stored_hash {
            refusals.push(edit.both_sides_changed());
        } else {
            edited.push(edit);
        }
    }
    Ok(edited)
}

/// What the notebook exports to a file at present, with those guessed traits with which the file was written: its hash
/// tells. Should none fit, because the notebook changed, then with those that the file imports now.
fn as_it_was(plan: &Plan, path: &str, file: &Exported) -> Option<Exported> {
    let written = |keep: &dyn Fn(&str) -> bool| {
        let wanted = emit::files(plan, &|p, name| p == path && keep(name)).remove(path)?;
        Some((Exported::parse(&wanted.text)?, wanted.guesses))
    };
    let (with_these, guesses) = written(&|name| file.imports(name))?;
    if with_these.stored_hash == file.stored_hash {
        return Some(with_these);
    }
    let guesses: Vec<String> = guesses.into_iter().take(8).collect();
    let choices = (0..1u32 << guesses.len()).filter_map(|bits| {
        written(&|name| guesses.iter().position(|g| g == name).is_some_and(|i| bits >> i & 1 == 1))
    });
    let fitting = choices.map(|(exported, _)| exported).find(|e| e.stored_hash == file.stored_hash);
    fitting.or(Some(with_these))
}

impl Edited {
    fn both_sides_changed(&self) -> String {
        let texts = |file: &Exported| -> BTreeMap<String, String> {
            file.sections.iter().map(|s| (s.id.clone(), s.text.clone())).collect()
        };
        let (here, there) = (texts(&self.file), texts(&self.current));
        let ids: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
        let differs = |id: &&String| here.get(*id) != there.get(*id);
        let differing: Vec<_> = ids.into_iter().filter(differs).map(|id| format!("`{id}`")).collect();
        format!(
            "{}: both the file and {} changed since the last export; they differ in: {}.\n\
             Bring one side's change over to the other by hand, or drop the file's with `cargo nbs export --force`",
            self.path,
            self.file.place,
            if differing.is_empty() {
                "the text above the first cell".to_owned()
            } else {
                differing.join(", ")
            }
        )
    }

    /// The cells' new texts. What cannot go back is noted.
    fn edits(&self, plan: &Plan, refusals: &mut Vec<String>) -> Vec<Edit> {
        let before = refusals.len();
        self.check_marks(refusals);
        self.check_header(plan, refusals);
        if refusals.len() > before {
            return vec![];
        }
        let pairs = self.file.sections.iter().zip(&self.current.sections);
        pairs
            .filter(|(new, old)| new.text != old.text)
            .filter_map(|(new, _)| self.edit(plan, new, refusals))
            .collect()
    }

    /// Each cell of the notebook must have its mark, once, and in the notebook's order.
    fn check_marks(&self, refusals: &mut Vec<String>) {
        let path = &self.path;
        let before = refusals.len();
        let ids: Vec<&str> = self.file.sections.iter().map(|s| s.id.as_str()).collect();
        let known: Vec<&str> = self.current.sections.iter().map(|s| s.id.as_str()).collect();
        for (i, section) in self.file.sections.iter().enumerate() {
            let Section { id, line, place, .. } = section;
            if *place != self.file.place {
                refusals.push(format!(
                    "{path}:{line}: the mark names {place}, but the file belongs to {}",
                    self.file.place
                ));
            } else if ids[..i].contains(&id.as_str()) {
                refusals.push(format!(
                    "{path}:{line}: a second mark of cell `{id}`: text can go back to one place only"
                ));
            } else if !known.contains(&id.as_str()) {
                refusals.push(format!(
                    "{path}:{line}: the notebook exports no cell `{id}` to this file: make new cells in the notebook"
                ));
            }
        }
        for id in known.iter().filter(|id| !ids.contains(id)) {
            refusals.push(format!(
                "{path}: the mark of cell `{id}` is gone (`// %% {} {id}`): put it back above the cell's text",
                self.file.place
            ));
        }
        if refusals.len() == before && ids != known {
            refusals.push(format!(
                "{path}: the cells stand in another order now: move cells in the notebook instead"
            ));
        }
    }

    /// Above the first cell only imports of siblings may change, which the exporter writes by itself.
    fn check_header(&self, plan: &Plan, refusals: &mut Vec<String>) {
        let lesson = plan.lesson(&self.file.place);
        let is_import = |line: &&str| {
            let path =
                line.strip_prefix("use crate::").or_else(|| line.strip_prefix(&format!("use {CRATE}::")));
            let module = path.and_then(|p| p.split([':', ';', '{']).next());
            let own = |name: &str| lesson.is_some_and(|l| l.modules.iter().any(|m| m.name == name));
            module.is_some_and(own)
        };
        let rest = |header: &str| {
            header
                .lines()
                .map(str::trim_end)
                .filter(|l| !l.is_empty() && !is_import(l))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let (new, old) = (rest(&self.file.header), rest(&self.current.header));
        if new != old {
            refusals.push(format!(
                "{}: the text above the first mark changed, and belongs to no cell. Documentation is written with \
                 `//| doc` lines in the notebook, imports and code in a cell:\n{}",
                self.path,
                diff::unified(&self.path, &(old.join("\n") + "\n"), &(new.join("\n") + "\n"))
            ));
        }
    }

    fn edit(&self, plan: &Plan, section: &Section, refusals: &mut Vec<String>) -> Option<Edit> {
        let lesson = plan.lesson(&section.place)?;
        let code = if is_test(lesson, &section.id) {
            let Some(code) = unwrap_test(&section.text) else {
                refusals.push(format!(
                    "{}:{}: the function around the test of cell `{}` lost its exported form (first line, `Ok(())`, \
                     closing brace): restore it and change only what is inside",
                    self.path, section.text_line, section.id
                ));
                return None;
            };
            code
        } else {
            section.text.clone()
        };
        let old = lesson.notebook.cell(&section.id)?.source();
        let new = directives::split(&old).join(&code);
        Some(Edit { place: section.place.clone(), id: section.id.clone(), old, new })
    }
}

fn is_test(lesson: &Lesson, id: &str) -> bool {
    lesson.tests.iter().any(|t| t.piece.id == id)
}

/// The notebooks, with the edited ones changed.
fn apply(plan: &Plan, edits: &[Edit]) -> Vec<Notebook> {
    let mut notebooks = Vec::new();
    for lesson in &plan.lessons {
        let mut notebook = lesson.notebook.clone();
        for edit in edits.iter().filter(|e| e.place == lesson.place) {
            let index = notebook.cell(&edit.id).map(|c| c.index);
            if let Some(index) = index {
                notebook.cell_mut(index).set_source(&edit.new);
            }
        }
        notebooks.push(notebook);
    }
    notebooks
}

/// Exports the changed notebooks in memory; what differs from the edited files has no way back.
fn prove(
    workspace: &Workspace,
    old: &Plan,
    notebooks: &[Notebook],
    edited: &[Edited],
) -> Result<Vec<Change>> {
    let plan = Plan::of(workspace, notebooks.to_vec());
    let is_edited = |place: &String| edited.iter().any(|e| e.file.place == *place);
    let problems = plan.problems.iter().filter(|p| p.places.iter().any(is_edited));
    refuse(&problems.map(ToString::to_string).collect::<Vec<_>>())?;
    let imports = |path: &str, name: &str| edited.iter().any(|e| e.path == path && e.file.imports(name));
    let wanted = emit::files(&plan, &imports);
    let mut refusals = Vec::new();
    let mut changes = Vec::new();
    for Edited { path, file, .. } in edited {
        let Some(result) = wanted.get(path) else {
            continue;
        };
        let new = Exported::parse(&result.text).map(|e| e.sections).unwrap_or_default();
        for (have, get) in file.sections.iter().zip(&new).filter(|(a, b)| a.text != b.text) {
            refusals.push(format!(
                "{path}:{}: this edit of cell `{}` cannot go back: exporting the cell again would give\n{}",
                have.line,
                have.id,
                diff::unified(path, &(have.text.clone() + "\n"), &(get.text.clone() + "\n"))
            ));
        }
        // With the new hash, the file counts as exported again.
        changes.push(Change { path: workspace.root.join(path), text: Some(result.text.clone()) });
    }
    refuse(&refusals)?;
    for (lesson, notebook) in old.lessons.iter().zip(notebooks) {
        if lesson.notebook != *notebook {
            changes.push(Change { path: notebook.path.clone(), text: Some(notebook.to_text()) });
        }
    }
    Ok(changes)
}
