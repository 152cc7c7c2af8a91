//! `nbs export`: notebooks to crate and tests, all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::emit::{self, Wanted};
use crate::exported::Exported;
use crate::files::{self, Change};
use crate::plan::Plan;
use crate::workspace::{CRATE, Workspace};
use crate::{cargo, diff, shadow};

/// How a file compares with what the notebooks want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// As it should be.
    Same,
    /// Absent, or older than the notebook.
    Outdated,
    /// Without our banner: somebody else's.
    Foreign,
    /// Edited since it was exported.
    Edited,
}

/// A file that exporting may touch.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its path in the workspace, with `/`.
    pub path: String,
    /// What it holds; `None` if it does not exist.
    pub now: Option<String>,
    /// What it should hold; `None` if it should not exist.
    pub wanted: Option<String>,
    /// How the two compare.
    pub state: State,
}

/// Compares the tree with the plan. With `selected` notebooks (such as `notebooks/01_foundations.ipynb`), only their files.
pub fn compare(workspace: &Workspace, plan: &Plan, selected: &BTreeSet<String>) -> Result<Vec<Entry>> {
    let wanted = emit::files(plan);
    let mut entries = Vec::new();
    for (path, Wanted { place, text }) in &wanted {
        if selected.contains(place) {
            let now = read(&workspace.root.join(path))?;
            let state = state(now.as_deref(), Some(text));
            entries.push(Entry { path: path.clone(), now, wanted: Some(text.clone()), state });
        }
    }
    for path in exported_files(workspace)?.into_iter().filter(|p| !wanted.contains_key(p)) {
        entries.extend(orphan(workspace, plan, selected, path)?);
    }
    entries.extend(lists(workspace, plan, selected)?);
    Ok(entries)
}

/// A file that no notebook exports any more, if its notebook is among the selected or gone.
fn orphan(
    workspace: &Workspace,
    plan: &Plan,
    selected: &BTreeSet<String>,
    path: String,
) -> Result<Option<Entry>> {
    let now = read(&workspace.root.join(&path))?;
    let Some(owner) = now.as_deref().and_then(Exported::parse).map(|e| e.place) else {
        return Ok(None);
    };
    // A notebook that cannot be read still owns its files.
    let gone = plan.lesson(&owner).is_none() && !workspace.root.join(&owner).exists();
    let state = state(now.as_deref(), None);
    Ok((gone || selected.contains(&owner)).then_some(Entry { path, now, wanted: None, state }))
}

fn state(now: Option<&str>, wanted: Option<&str>) -> State {
    let Some(now) = now else {
        return if wanted.is_none() { State::Same } else { State::Outdated };
    };
    if wanted == Some(now) {
        return State::Same;
    }
    let Some(file) = Exported::parse(now) else {
        return State::Foreign;
    };
    let same_body = wanted.and_then(Exported::parse).is_some_and(|w| w.body == file.body);
    match file.is_edited() && !same_body {
        true => State::Edited,
        // A checkout with other line ends is the same text.
        false if same_body && !file.is_edited() => State::Same,
        false => State::Outdated,
    }
}

/// All files in the crate and the tests that carry our banner.
pub fn exported_files(workspace: &Workspace) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for dir in [workspace.src_dir(), workspace.tests_dir()] {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
            let is_rust = path.extension().is_some_and(|e| e == "rs") && path.is_file();
            if is_rust && read(&path)?.is_some_and(|t| Exported::parse(&t).is_some()) {
                paths.push(workspace.relative(&path));
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// The module list of `lib.rs` and the test list of `tests/Cargo.toml`.
fn lists(workspace: &Workspace, plan: &Plan, selected: &BTreeSet<String>) -> Result<Vec<Entry>> {
    // A notebook that is not exported now counts only with what it has exported before.
    let counts = |place: &str, path: &str| selected.contains(place) || workspace.root.join(path).exists();
    let modules: BTreeMap<&str, Option<&str>> = plan
        .modules()
        .filter(|(lesson, module)| counts(&lesson.place, &emit::module_path(&module.name)))
        .map(|(_, module)| (module.name.as_str(), module.feature.as_deref()))
        .collect();
    let tests: BTreeSet<&str> = plan
        .lessons
        .iter()
        .filter(|l| !l.tests.is_empty() && counts(&l.place, &emit::tests_path(&l.name)))
        .map(|l| l.name.as_str())
        .collect();
    let list = |path: String, edit: &dyn Fn(&str) -> String| -> Result<Entry> {
        let now = read(&workspace.root.join(&path))?.with_context(|| format!("{path} is missing"))?;
        let wanted = edit(&now);
        let state = if wanted == now.replace("\r\n", "\n") { State::Same } else { State::Outdated };
        Ok(Entry { path, now: Some(now), wanted: Some(wanted), state })
    };
    let lib = list(format!("{CRATE}/src/lib.rs"), &|text| emit::with_modules(text, &modules))?;
    let manifest = list("tests/Cargo.toml".to_owned(), &|text| emit::with_tests(text, &tests))?;
    Ok(vec![lib, manifest])
}

/// Features that notebooks name and manifests lack: the code would silently not be there.
pub fn missing_features(workspace: &Workspace, plan: &Plan) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut require = |folder: &str, feature: &str, who: String| -> Result<()> {
        let path = workspace.root.join(folder).join("Cargo.toml");
        let manifest = read(&path)?.unwrap_or_default();
        if !emit::has_feature(&manifest, feature) {
            let example =
                if folder == "tests" { format!("[\"{CRATE}/{feature}\"]") } else { "[]".to_owned() };
            problems
                .push(format!("{who} needs `{feature} = {example}` under [features] in {folder}/Cargo.toml"));
        }
        Ok(())
    };
    for (lesson, module) in plan.modules() {
        if let Some(feature) = &module.feature {
            require(CRATE, feature, format!("{}, module `{}`:", lesson.place, module.name))?;
        }
    }
    for lesson in &plan.lessons {
        let features: BTreeSet<_> = lesson.tests.iter().flat_map(|t| &t.features).collect();
        for feature in features {
            require("tests", feature, format!("{}, its tests:", lesson.place))?;
        }
    }
    Ok(problems)
}

/// The places of the notebooks that a command line names.
pub fn places(workspace: &Workspace, names: &[String]) -> Result<BTreeSet<String>> {
    Ok(workspace.select(names)?.iter().map(|p| workspace.relative(p)).collect())
}

/// `nbs export`.
pub fn export(workspace: &Workspace, names: &[String], force: bool) -> Result<()> {
    let plan = Plan::read(workspace)?;
    let mut problems = plan.problems.clone();
    problems.extend(missing_features(workspace, &plan)?);
    if !problems.is_empty() {
        bail!(
            "nothing is exported, because of {}:\n\n{}",
            count(problems.len(), "problem"),
            problems.join("\n")
        );
    }
    let entries = compare(workspace, &plan, &places(workspace, names)?)?;
    refuse_overwriting(&entries, force)?;
    let changed: Vec<&Entry> = entries.iter().filter(|e| e.state != State::Same).collect();
    if changed.is_empty() {
        say!("Nothing to export: crate and tests are as the notebooks say.");
        return Ok(());
    }
    let changes: Vec<Change> = changed
        .iter()
        .map(|e| Change { path: workspace.root.join(&e.path), text: e.wanted.clone() })
        .collect();
    try_compile(workspace, &plan, &changes)?;
    files::write_all(&changes)?;
    for entry in changed {
        say!("{} {}", if entry.wanted.is_some() { "wrote  " } else { "removed" }, entry.path);
    }
    Ok(())
}

fn refuse_overwriting(entries: &[Entry], force: bool) -> Result<()> {
    let mut reasons = Vec::new();
    for entry in entries {
        match entry.state {
            State::Foreign => reasons.push(format!(
                "{} was not written by `nbs export`: move it away, or give the notebook's module another name",
                entry.path
            )),
            State::Edited if !force => reasons.push(format!(
                "{} was edited since it was exported. `cargo nbs update` brings the edits into the notebook; \
                 `cargo nbs export --force` drops them:\n{}",
                entry.path,
                diff::unified(&entry.path, entry.wanted.as_deref().unwrap_or(""), entry.now.as_deref().unwrap_or(""))
            )),
            _ => {}
        }
    }
    if reasons.is_empty() { Ok(()) } else { bail!("nothing is exported:\n\n{}", reasons.join("\n")) }
}

/// A crate that does not compile could no longer be loaded by the notebook that is to repair it.
pub fn try_compile(workspace: &Workspace, plan: &Plan, changes: &[Change]) -> Result<()> {
    let target = cargo::target_dir(workspace)?;
    let trial = shadow::make(workspace, &target, changes)?;
    let report = cargo::check(&trial, Some(&target), plan)?;
    report.warnings.iter().for_each(|warning| eprintln!("{warning}\n"));
    if report.errors.is_empty() {
        return Ok(());
    }
    bail!(
        "nothing is exported, because the result does not compile:\n\n{}\n\n{}, and no file has changed",
        report.errors.join("\n\n"),
        count(report.errors.len(), "error")
    )
}

/// `nbs build`.
pub fn build(workspace: &Workspace) -> Result<bool> {
    let plan = Plan::read(workspace)?;
    let report = cargo::check(&workspace.root, None, &plan)?;
    for message in report.warnings.iter().chain(&report.errors) {
        eprintln!("{message}\n");
    }
    let (errors, warnings) = (report.errors.len(), report.warnings.len());
    say!("{CRATE} and the lessons' tests: {}, {}", count(errors, "error"), count(warnings, "warning"));
    Ok(report.errors.is_empty())
}

/// `1 error`, `2 errors`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A file's text; `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}
