//! What all notebooks together export, and the rules that hold between them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::lesson::{self, Lesson, Module, Problem};
use crate::notebook::Notebook;
use crate::workspace::{CRATE, Workspace};
use crate::{code, names};

/// All lessons of a workspace, and everything that is wrong with them.
#[derive(Debug, Default)]
pub struct Plan {
    /// The lessons, in the order of their names.
    pub lessons: Vec<Lesson>,
    /// What stands in the way of an export; each names notebook, cell and line.
    pub problems: Vec<Problem>,
    /// How long a line of an exported file may be, as rustfmt is told.
    pub width: usize,
}

impl Plan {
    /// Reads all notebooks of a workspace.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let mut plan = Self::default();
        let mut notebooks = Vec::new();
        for path in workspace.notebook_paths()? {
            match Notebook::load(&path) {
                Ok(notebook) => notebooks.push(notebook),
                Err(error) => {
                    let place = workspace.relative(&path);
                    plan.problems.push(Problem { places: vec![place], text: format!("{error:#}") });
                }
            }
        }
        plan.add(workspace, notebooks);
        Ok(plan)
    }

    /// The plan of notebooks that are already in memory.
    pub fn of(workspace: &Workspace, notebooks: Vec<Notebook>) -> Self {
        let mut plan = Self::default();
        plan.add(workspace, notebooks);
        plan
    }

    fn add(&mut self, workspace: &Workspace, notebooks: Vec<Notebook>) {
        self.width = line_width(workspace);
        for notebook in notebooks {
            let place = workspace.relative(&notebook.path);
            self.lessons.extend(lesson::read(place, notebook, &mut self.problems));
        }
        self.check_owners();
        self.check_paths();
        self.find_test_features();
    }

    /// The lesson with this place, such as `notebooks/01_foundations.ipynb`.
    pub fn lesson(&self, place: &str) -> Option<&Lesson> {
        self.lessons.iter().find(|l| l.place == place)
    }

    /// The places of the notebooks that have problems.
    pub fn bad(&self) -> BTreeSet<String> {
        self.problems.iter().flat_map(|p| p.places.iter().cloned()).collect()
    }

    /// Every module with its lesson.
    pub fn modules(&self) -> impl Iterator<Item = (&Lesson, &Module)> {
        self.lessons.iter().flat_map(|l| l.modules.iter().map(move |m| (l, m)))
    }

    fn check_owners(&mut self) {
        let mut owners: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (lesson, module) in self.modules() {
            owners.entry(&module.name).or_default().push(&lesson.place);
        }
        let twice = owners.iter().filter(|(_, places)| places.len() > 1);
        let problems: Vec<_> = twice
            .map(|(name, places)| Problem {
                places: places.iter().map(|&p| p.to_owned()).collect(),
                text: format!(
                    "module `{name}` is claimed by {}: a module has one owner, so rename one",
                    places.join(" and ")
                ),
            })
            .collect();
        self.problems.extend(problems);
    }

    /// What `minai::NAME` leads to: the module itself, or the module of a macro that lives at the crate's root.
    fn target(&self, name: &str) -> Option<(&Lesson, &Module)> {
        let has_macro =
            |m: &Module| m.cells.iter().flat_map(|p| &p.defined).any(|d| d.at_root && d.name == name);
        self.modules().find(|(_, m)| m.name == name || has_macro(m))
    }

    /// No cell names a module of its own notebook, and exported ones none of a later lesson.
    fn check_paths(&mut self) {
        let mut problems = Vec::new();
        for lesson in &self.lessons {
            for cell in lesson.notebook.code_cells() {
                let text = code::blank_commands(&cell.source());
                let module = lesson.module_of(&cell);
                for (line, name) in names::crate_paths(&text, CRATE) {
                    if let Some(problem) = self.check_path(lesson, module, &text, &name) {
                        let (place, label, line) = (&lesson.place, cell.label(), line + 1);
                        let text = format!("{place}, {label}, line {line}: {problem}");
                        problems.push(Problem { places: vec![place.clone()], text });
                    }
                }
            }
        }
        self.problems.extend(problems);
    }

    fn check_path(&self, lesson: &Lesson, module: Option<&Module>, text: &str, name: &str) -> Option<String> {
        if module.is_some() && ["*", "prelude"].contains(&name) {
            return Some(format!(
                "exported code names the modules it uses; `{CRATE}::{name}` would hide them"
            ));
        }
        let (owner, target) = self.target(name)?;
        if owner.place == lesson.place {
            return Some(format!(
                "`{CRATE}::{name}` belongs to this notebook: the cell would silently use the crate's copy instead of \
                 what the cells above define. Use the name alone; the exporter adds the import where one is needed"
            ));
        }
        let module = module?;
        // What a lesson draws stands in a module of its own, which is there with the appendix's feature `plot` only.
        let is_aside = target.feature.is_some() && target.feature == module.feature;
        if owner.number > lesson.number && !is_aside {
            return Some(format!(
                "module `{}` uses `{CRATE}::{name}` of the later lesson {}; a module may use only what came before it",
                module.name, owner.name
            ));
        }
        let feature = target.feature.as_ref().filter(|f| module.feature.as_ref() != Some(*f))?;
        let gated = text.contains(&format!("feature = \"{feature}\""));
        (!gated).then(|| {
            format!(
                "`{CRATE}::{name}` is only there with the feature `{feature}`, and module `{}` is always there",
                module.name
            )
        })
    }

    /// A test of what needs a feature needs the feature too.
    fn find_test_features(&mut self) {
        let features: BTreeMap<String, String> =
            self.modules().filter_map(|(_, m)| Some((m.name.clone(), m.feature.clone()?))).collect();
        for lesson in &mut self.lessons {
            let mut own: BTreeMap<String, String> = BTreeMap::new();
            for module in &lesson.modules {
                let Some(feature) = &module.feature else {
                    continue;
                };
                let names = module.cells.iter().flat_map(|p| &p.defined).map(|d| d.name.clone());
                own.extend(names.map(|n| (n, feature.clone())));
            }
            for test in &mut lesson.tests {
                let by_name = test.piece.used.bare.iter().filter_map(|n| own.get(n));
                let paths = names::crate_paths(&test.piece.code, CRATE);
                let by_path = paths.iter().filter_map(|(_, n)| features.get(n));
                test.features = by_name.chain(by_path).cloned().collect();
            }
        }
    }
}

/// The `max_width` of the workspace's rustfmt.toml.
fn line_width(workspace: &Workspace) -> usize {
    let files = ["rustfmt.toml", ".rustfmt.toml"].map(|name| workspace.root.join(name));
    let text = files.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let value =
        |line: &str| line.split_once('=').filter(|(key, _)| key.trim() == "max_width")?.1.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(100)
}
