//! `nbs export`: notebooks to crate and tests, all or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, bail};

use crate::cargo::{Message, Report};
use crate::emit::{self, Wanted};
use crate::exported::Exported;
use crate::files::{self, Change};
use crate::lesson::Problem;
use crate::plan::Plan;
use crate::workspace::{CRATE, Workspace};
use crate::{cargo, count, diff, shadow};

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
    /// The notebook that it belongs to; `None` for the lists of modules and tests.
    pub place: Option<String>,
    /// What it holds; `None` if it does not exist.
    pub now: Option<String>,
    /// What it should hold; `None` if it should not exist.
    pub wanted: Option<String>,
    /// How the two compare.
    pub state: State,
}

/// Compares the tree with the plan. With `selected` notebooks (such as `notebooks/01_foundations.ipynb`), only their
/// files; notebooks with problems keep what they have exported. `keep` is that of [`emit::files`].
pub fn compare(
    workspace: &Workspace,
    plan: &Plan,
    selected: &BTreeSet<String>,
    keep: &dyn Fn(&str, &str) -> bool,
) -> Result<Vec<Entry>> {
    let selected = &(selected - &plan.bad());
    let wanted = emit::files(plan, keep);
    let mut entries = Vec::new();
    for (path, Wanted { place, text, .. }) in &wanted {
        if selected.contains(place) {
            let now = files::read(&workspace.root.join(path))?;
            let state = state(now.as_deref(), Some(text));
            let (path, wanted) = (path.clone(), Some(text.clone()));
            entries.push(Entry { path, place: Some(place.clone()), now, wanted, state });
        }
    }
    let exported = exported_files(workspace)?;
    for (path, file) in exported.iter().filter(|(p, _)| !wanted.contains_key(*p)) {
        entries.extend(orphan(workspace, plan, selected, path, file)?);
    }
    // What is not exported now stays as it is, whatever its notebook says.
    let stays = |f: &Exported| !selected.contains(&f.place) && workspace.root.join(&f.place).exists();
    let kept = exported.iter().filter(|(_, file)| stays(file)).map(|(path, _)| path.as_str());
    entries.extend(lists(workspace, plan, selected, &kept.collect())?);
    Ok(entries)
}

/// Which of the guessed traits each file imports at present; all of them where there is no such file.
pub fn as_on_disk(workspace: &Workspace) -> Result<impl Fn(&str, &str) -> bool + use<>> {
    let files = exported_files(workspace)?;
    Ok(move |path: &str, name: &str| files.get(path).is_none_or(|file| file.imports(name)))
}

/// A file that no notebook exports any more, if its notebook is among the selected or gone.
fn orphan(
    workspace: &Workspace,
    plan: &Plan,
    selected: &BTreeSet<String>,
    path: &str,
    file: &Exported,
) -> Result<Option<Entry>> {
    let owner = &file.place;
    // A notebook that cannot be read still owns its files.
    let gone = plan.lesson(owner).is_none() && !workspace.root.join(owner).exists();
    if !gone && !selected.contains(owner) {
        return Ok(None);
    }
    let now = files::read(&workspace.root.join(path))?;
    let state = state(now.as_deref(), None);
    Ok(Some(Entry { path: path.to_owned(), place: Some(owner.clone()), now, wanted: None, state }))
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

/// All files in the crate and the tests that carry our banner, by their paths in the workspace.
pub fn exported_files(workspace: &Workspace) -> Result<BTreeMap<String, Exported>> {
    let mut files = BTreeMap::new();
    for dir in [workspace.src_dir(), workspace.tests_dir()] {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
            let is_rust = path.extension().is_some_and(|e| e == "rs") && path.is_file();
            let text = if is_rust { files::read(&path)? } else { None };
            if let Some(file) = text.and_then(|t| Exported::parse(&t)) {
                files.insert(workspace.relative(&path), file);
            }
        }
    }
    Ok(files)
}

/// The module list of `lib.rs` and the test list of `tests/Cargo.toml`; what `kept` files need stays in them.
fn lists(
    workspace: &Workspace,
    plan: &Plan,
    selected: &BTreeSet<String>,
    kept: &BTreeSet<&str>,
) -> Result<Vec<Entry>> {
    let lib = format!("{CRATE}/src/lib.rs");
    let manifest = "tests/Cargo.toml".to_owned();
    let read =
        |path: &str| files::read(&workspace.root.join(path))?.with_context(|| format!("{path} is missing"));
    let (lib_text, manifest_text) = (read(&lib)?, read(&manifest)?);
    // A notebook that is not exported now counts only with what it has exported before.
    let counts = |place: &str, path: &str| {
        selected.contains(place) || (workspace.root.join(path).exists() && !kept.contains(path))
    };
    let lib_lines = lib_text.replace("\r\n", "\n");
    let listed = emit::listed_modules(&lib_lines);
    let all = plan.modules().map(|(lesson, m)| {
        (m.name.as_str(), emit::Listed { lesson: Some(&lesson.name), feature: m.feature.as_deref() })
    });
    let in_plan: BTreeMap<&str, emit::Listed<'_>> = all.collect();
    let as_now = |name: &str| listed.get(name).or(in_plan.get(name)).copied().unwrap_or_default();
    let kept_modules = kept.iter().filter_map(|path| emit::module_of(path));
    let mut modules: BTreeMap<&str, emit::Listed<'_>> = kept_modules.map(|n| (n, as_now(n))).collect();
    let exported = plan.modules().filter(|(lesson, m)| counts(&lesson.place, &emit::module_path(&m.name)));
    modules.extend(exported.map(|(_, m)| (m.name.as_str(), in_plan[m.name.as_str()])));
    let mut tests: BTreeSet<&str> = kept.iter().filter_map(|path| emit::lesson_of_tests(path)).collect();
    let exported = plan.lessons.iter().filter(|l| !l.tests.is_empty());
    tests.extend(exported.filter(|l| counts(&l.place, &emit::tests_path(&l.name))).map(|l| l.name.as_str()));
    let entry = |path: String, now: String, wanted: String| {
        let state = if wanted == now.replace("\r\n", "\n") { State::Same } else { State::Outdated };
        Entry { path, place: None, now: Some(now), wanted: Some(wanted), state }
    };
    let wanted = (emit::with_modules(&lib_text, &modules), emit::with_tests(&manifest_text, &tests));
    Ok(vec![entry(lib, lib_text.clone(), wanted.0), entry(manifest, manifest_text, wanted.1)])
}

/// Features that notebooks name and manifests lack: the code would silently not be there.
pub fn missing_features(workspace: &Workspace, plan: &Plan) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    let mut require = |folder: &str, feature: &str, place: &str, who: String| -> Result<()> {
        let path = workspace.root.join(folder).join("Cargo.toml");
        let manifest = files::read(&path)?.unwrap_or_default();
        if !emit::has_feature(&manifest, feature) {
            let example =
                if folder == "tests" { format!("[\"{CRATE}/{feature}\"]") } else { "[]".to_owned() };
            let text = format!(
                "{place}, {who} needs `{feature} = {example}` under [features] in {folder}/Cargo.toml"
            );
            problems.push(Problem { places: vec![place.to_owned()], text });
        }
        Ok(())
    };
    for (lesson, module) in plan.modules() {
        if let Some(feature) = &module.feature {
            require(CRATE, feature, &lesson.place, format!("module `{}`:", module.name))?;
        }
    }
    for lesson in &plan.lessons {
        let features: BTreeSet<_> = lesson.tests.iter().flat_map(|t| &t.features).collect();
        for feature in features {
            require("tests", feature, &lesson.place, "its tests:".to_owned())?;
        }
    }
    Ok(problems)
}

/// `nbs export`.
pub fn export(workspace: &Workspace, names: &[String], force: bool) -> Result<()> {
    let mut plan = Plan::read(workspace)?;
    let missing = missing_features(workspace, &plan)?;
    plan.problems.extend(missing);
    let chosen = workspace.places(names)?;
    let on_disk = as_on_disk(workspace)?;
    let entries = compare(workspace, &plan, &chosen, &on_disk)?;
    refuse_overwriting(&entries, force)?;
    if entries.iter().all(|e| e.state == State::Same) {
        let result = finish(&plan, &chosen);
        if result.is_ok() {
            say!("Nothing to export: crate and tests are as the notebooks say.");
        }
        return result;
    }
    let changing: BTreeSet<String> =
        entries.into_iter().filter(|e| e.state != State::Same).filter_map(|e| e.place).collect();
    let mut unused = BTreeSet::new();
    let written = loop {
        // Where a notebook changed, the compiler is asked again which traits its files need.
        let keep = |path: &str, name: &str| match emit::owner(&plan, path) {
            Some(owner) if changing.contains(owner) => !unused.contains(&(path.to_owned(), name.to_owned())),
            _ => on_disk(path, name),
        };
        let guesses = emit::files(&plan, &keep);
        let mut entries = compare(workspace, &plan, &chosen, &keep)?;
        entries.retain(|e| e.state != State::Same);
        let to_change = |e: &Entry| Change { path: workspace.root.join(&e.path), text: e.wanted.clone() };
        let changes: Vec<Change> = entries.iter().map(to_change).collect();
        if changes.is_empty() {
            break entries;
        }
        let report = try_compile(workspace, &plan, &changes)?;
        let is_guess =
            |(path, name): &&(String, String)| guesses.get(path).is_some_and(|w| w.guesses.contains(name));
        let before = unused.len();
        unused.extend(report.unused.iter().filter(is_guess).cloned());
        if unused.len() > before {
            continue;
        }
        if report.errors.is_empty() {
            report.warnings.iter().for_each(|warning| eprintln!("{}\n", warning.text));
            files::write_all(&changes)?;
            break entries;
        }
        // The others may do without the notebooks that the errors are in.
        let owners: Option<BTreeSet<String>> = report.errors.iter().map(|e| owner_of(&plan, e)).collect();
        let guilty = owners.filter(|o| o.is_subset(&changing) && !o.is_subset(&plan.bad()));
        let guilty = guilty.unwrap_or_else(|| changing.clone());
        let text = report.errors.into_iter().map(|e| e.text).collect::<Vec<_>>().join("\n\n");
        plan.problems.push(Problem { places: guilty.into_iter().collect(), text });
        if changing.is_subset(&plan.bad()) {
            break Vec::new();
        }
    };
    for entry in written {
        say!("{} {}", if entry.wanted.is_some() { "wrote  " } else { "removed" }, entry.path);
    }
    finish(&plan, &chosen)
}

/// Says what could not be exported.
fn finish(plan: &Plan, chosen: &BTreeSet<String>) -> Result<()> {
    let concerns = |p: &&Problem| p.places.is_empty() || p.places.iter().any(|p| chosen.contains(p));
    let problems: Vec<&str> = plan.problems.iter().filter(concerns).map(|p| p.text.as_str()).collect();
    if problems.is_empty() {
        return Ok(());
    }
    let left_out: Vec<String> = (chosen & &plan.bad()).into_iter().collect();
    let left_out = if left_out.is_empty() { "nothing".to_owned() } else { left_out.join(", ") + " not" };
    let (number, list) = (count(problems.len(), "problem"), problems.join("\n\n"));
    bail!("{left_out} exported, because of {number}:\n\n{list}")
}

/// The notebook that an error is in.
fn owner_of(plan: &Plan, error: &Message) -> Option<String> {
    emit::owner(plan, error.file.as_deref()?).map(str::to_owned)
}

/// A crate that does not compile could no longer be loaded by the notebook that is to repair it.
fn try_compile(workspace: &Workspace, plan: &Plan, changes: &[Change]) -> Result<Report> {
    let target = cargo::target_dir(workspace)?;
    let trial = shadow::make(workspace, &target, changes)?;
    cargo::check(&trial, Some(&target), plan)
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
