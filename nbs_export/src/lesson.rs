//! What notebooks export: modules, their cells, and tests.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use syn::parse::{Parse, ParseStream};

use crate::code;
use crate::directives::{self, Directive, Directives, Parts};
use crate::names::{self, Defined, Used};
use crate::notebook::{Cell, Notebook};
use crate::workspace::{CRATE, Workspace, lesson_number};

/// All lessons of a workspace, and everything that is wrong with them.
#[derive(Debug, Default)]
pub struct Plan {
    /// The lessons, in the order of their names.
    pub lessons: Vec<Lesson>,
    /// What stands in the way of an export; each names notebook, cell and line.
    pub problems: Vec<String>,
    /// How long a line of an exported file may be, as rustfmt is told.
    pub width: usize,
}

/// One notebook and what it exports.
#[derive(Debug)]
pub struct Lesson {
    /// The number in its name.
    pub number: u32,
    /// Such as `01_foundations`.
    pub name: String,
    /// Such as `notebooks/01_foundations.ipynb`.
    pub place: String,
    /// The notebook itself.
    pub notebook: Notebook,
    /// Its modules, in the order in which they first appear.
    pub modules: Vec<Module>,
    /// Its tests.
    pub tests: Vec<Test>,
}

/// A module of the crate.
#[derive(Debug, Default)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// The cargo feature it needs, if any.
    pub feature: Option<String>,
    /// The lines of its documentation.
    pub docs: Vec<String>,
    /// The cells it is made of.
    pub cells: Vec<Piece>,
}

/// The code of a cell.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The cell's id.
    pub id: String,
    /// Its text without directives.
    pub code: String,
    /// For each line of `code`, the line in the cell (from 0).
    pub lines: Vec<usize>,
    /// What it defines.
    pub defined: Vec<Defined>,
    /// What it uses.
    pub used: Used,
}

/// A cell that becomes a test.
#[derive(Debug)]
pub struct Test {
    /// The name of the function.
    pub name: String,
    /// The cell.
    pub piece: Piece,
    /// Must it panic?
    pub should_panic: bool,
    /// Is it ignored unless asked for?
    pub slow: bool,
    /// Features without which it cannot work.
    pub features: BTreeSet<String>,
}

impl Plan {
    /// Reads all notebooks of a workspace.
    pub fn read(workspace: &Workspace) -> Result<Self> {
        let mut plan = Self::default();
        let mut notebooks = Vec::new();
        for path in workspace.notebook_paths()? {
            match Notebook::load(&path) {
                Ok(notebook) => notebooks.push(notebook),
                Err(error) => plan.problems.push(format!("{error:#}")),
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
            let mut reader = Reader::new(workspace.relative(&notebook.path), &mut self.problems);
            self.lessons.extend(reader.read(notebook));
        }
        self.check_owners();
        self.check_paths();
        self.find_test_features();
    }

    /// The lesson with this place, such as `notebooks/01_foundations.ipynb`.
    pub fn lesson(&self, place: &str) -> Option<&Lesson> {
        self.lessons.iter().find(|l| l.place == place)
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
            .map(|(name, places)| {
                let places = places.join(" and ");
                format!("module `{name}` is claimed by {places}: a module has one owner, so rename one")
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
                        problems.push(format!(
                            "{}, {}, line {}: {problem}",
                            lesson.place,
                            cell.label(),
                            line + 1
                        ));
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
        if owner.number > lesson.number {
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

impl Lesson {
    /// The module that a cell is exported to.
    fn module_of(&self, cell: &Cell) -> Option<&Module> {
        let id = cell.id()?;
        self.modules.iter().find(|m| m.cells.iter().any(|p| p.id == id))
    }

    /// The exported code of the cell with this id.
    pub fn piece(&self, id: &str) -> Option<&Piece> {
        let cells = self.modules.iter().flat_map(|m| &m.cells);
        cells.chain(self.tests.iter().map(|t| &t.piece)).find(|p| p.id == id)
    }
}

/// Reads one notebook, noting everything that is wrong.
struct Reader<'a> {
    place: String,
    problems: &'a mut Vec<String>,
}

/// A cell with its directives.
type Marked = (usize, String, Directives, Parts);

impl<'a> Reader<'a> {
    fn new(place: String, problems: &'a mut Vec<String>) -> Self {
        Self { place, problems }
    }

    fn problem(&mut self, what: impl AsRef<str>) {
        self.problems.push(format!("{}, {}", self.place, what.as_ref()));
    }

    fn read(&mut self, notebook: Notebook) -> Option<Lesson> {
        let cells = self.marked_cells(&notebook);
        let exports = cells.iter().any(|(_, _, d, _)| !d.all.is_empty());
        let name = notebook.name();
        let Some(number) = lesson_number(&name) else {
            if exports {
                let problem =
                    "its name is not of the form NN_topic.ipynb, so its directives mean nothing: rename it";
                self.problems.push(format!("{}: {problem}", self.place));
            }
            return None;
        };
        if exports && !self.check_ids(&notebook) {
            return None;
        }
        let modules = self.modules(&cells);
        let tests = self.tests(&cells);
        Some(Lesson { number, name, place: self.place.clone(), notebook, modules, tests })
    }

    fn marked_cells(&mut self, notebook: &Notebook) -> Vec<Marked> {
        let mut cells = Vec::new();
        for cell in notebook.code_cells() {
            match cell.directives() {
                Ok(d) => {
                    let parts = directives::split(&cell.source());
                    cells.push((cell.index, cell.id().unwrap_or_default().to_owned(), d, parts));
                }
                Err(error) => self.problem(format!("{error:#}")),
            }
        }
        cells
    }

    /// Exported files and code cells find each other by cell ids.
    fn check_ids(&mut self, notebook: &Notebook) -> bool {
        let name = notebook.name();
        let mut seen = BTreeMap::new();
        for cell in notebook.cells() {
            let Some(id) = cell.id().filter(|_| notebook.minor() >= 5) else {
                let minor = notebook.minor();
                self.problems.push(format!(
                    "{}: cell number {} has no id (nbformat 4.{minor}): `cargo nbs clean {name}` gives it one",
                    self.place,
                    cell.index + 1
                ));
                return false;
            };
            if let Some(first) = seen.insert(id, cell.index + 1) {
                self.problems.push(format!(
                    "{}: cells number {first} and {} have the same id `{id}`: `cargo nbs clean {name}` gives the second a new one",
                    self.place,
                    cell.index + 1
                ));
                return false;
            }
        }
        true
    }

    fn modules(&mut self, cells: &[Marked]) -> Vec<Module> {
        let default = self.default_module(cells);
        let mut modules: Vec<Module> = Vec::new();
        for (_, id, directives, parts) in cells {
            let Some(name) = directives.export() else {
                continue;
            };
            self.check_export(id, directives);
            let Some(name) = name.or_else(|| default.clone()) else {
                let line = directives.line_of(|d| matches!(d, Directive::Export(_)));
                self.problem(format!(
                    "cell `{id}`, line {line}: `//| export` names no module, and no cell has `//| default_exp NAME`"
                ));
                continue;
            };
            let piece = self.exported_piece(id, parts);
            match modules.iter_mut().find(|m| m.name == name) {
                Some(module) => module.cells.push(piece),
                None => modules.push(Module { name, cells: vec![piece], ..Module::default() }),
            }
        }
        self.describe(cells, default.as_deref(), &mut modules);
        self.check_unique_names(&modules);
        modules
    }

    fn default_module(&mut self, cells: &[Marked]) -> Option<String> {
        let mut found: Option<String> = None;
        for (_, id, directives, _) in cells {
            for (line, directive) in &directives.all {
                let Directive::DefaultExp(name) = directive else {
                    continue;
                };
                if let Some(first) = &found {
                    let problem =
                        format!("cell `{id}`, line {line}: a second `default_exp`; the first is `{first}`");
                    self.problem(problem);
                } else {
                    found = Some(name.clone());
                }
            }
        }
        found
    }

    fn check_export(&mut self, id: &str, directives: &Directives) {
        let clash = if directives.test().is_some() {
            "is both exported and a test"
        } else if directives.compile_fail().is_some() || directives.should_panic() {
            "is exported although it must fail"
        } else {
            return;
        };
        self.problem(format!("cell `{id}` {clash}: make two cells of it"));
    }

    /// `doc` and `feature` lines, which may stand in any cell.
    fn describe(&mut self, cells: &[Marked], default: Option<&str>, modules: &mut [Module]) {
        for (_, id, directives, _) in cells {
            let own = directives.export().flatten();
            let default = own.as_deref().or(default);
            for (line, directive) in &directives.all {
                let (name, what) = match directive {
                    Directive::Doc(text) => {
                        let first = text.split_whitespace().next().unwrap_or_default();
                        let is_name = modules.iter().any(|m| m.name == first);
                        let name = if is_name { Some(first) } else { default };
                        let text = if is_name { text[first.len()..].trim_start() } else { text };
                        (name, Ok(text))
                    }
                    Directive::Feature(feature, name) => (name.as_deref().or(default), Err(feature)),
                    _ => continue,
                };
                match modules.iter_mut().find(|m| Some(m.name.as_str()) == name) {
                    Some(module) => match what {
                        Ok(doc) => module.docs.push(doc.to_owned()),
                        Err(feature) => module.feature = Some(feature.clone()),
                    },
                    None => self.problem(format!(
                        "cell `{id}`, line {line}: no cell of this notebook is exported to the module that this line is about"
                    )),
                }
            }
        }
    }

    /// In a notebook all names share one space; the second definition of one replaces the first.
    fn check_unique_names(&mut self, modules: &[Module]) {
        let mut seen: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
        for module in modules {
            for piece in &module.cells {
                for item in piece.defined.iter().filter(|d| d.reach > names::Reach::Module) {
                    match seen.insert(&item.name, (&module.name, &piece.id)) {
                        Some((other, first)) if other != module.name => self.problem(format!(
                            "cell `{}` defines `{}` in module `{}`, and cell `{first}` in module `{other}`: in the \
                             notebook the second replaces the first, so rename one",
                            piece.id, item.name, module.name
                        )),
                        _ => {}
                    }
                }
            }
        }
    }

    fn exported_piece(&mut self, id: &str, parts: &Parts) -> Piece {
        let items = match syn::parse_str::<Items>(&parts.code) {
            Ok(items) => items.0,
            Err(error) => {
                self.syntax_error(
                    id,
                    parts,
                    &error,
                    "exported code must consist of items (fn, struct, impl, use, …)",
                );
                vec![]
            }
        };
        self.check_lines(id, parts);
        piece(id, parts, names::defined(&items))
    }

    fn syntax_error(&mut self, id: &str, parts: &Parts, error: &syn::Error, rule: &str) {
        let row = error.span().start().line.saturating_sub(1).min(parts.lines.len().saturating_sub(1));
        let line = parts.lines.get(row).map_or(1, |l| l + 1);
        let text = parts.code.lines().nth(row).unwrap_or_default();
        self.problem(format!("cell `{id}`, line {line}: {rule}: {error}\n    {line} | {text}"));
    }

    /// Lines that would be taken for the exporter's own, or that only the kernel understands.
    fn check_lines(&mut self, id: &str, parts: &Parts) {
        let commands = code::commands_end(&parts.code);
        for (i, text) in parts.code.lines().enumerate() {
            let line = parts.lines[i] + 1;
            if text.trim_start().starts_with(crate::exported::MARKER) {
                self.problem(format!(
                    "cell `{id}`, line {line}: `{text}` looks like the exporter's own mark: word it otherwise"
                ));
            } else if i < commands && code::is_command(text) {
                self.problem(format!(
                    "cell `{id}`, line {line}: `{text}` is for the kernel and no Rust: move it to a cell that is not exported"
                ));
            }
        }
    }

    fn tests(&mut self, cells: &[Marked]) -> Vec<Test> {
        let mut tests: Vec<Test> = Vec::new();
        for (_, id, directives, parts) in cells {
            let Some(name) = directives.test() else {
                continue;
            };
            let line = directives.line_of(|d| matches!(d, Directive::Test(_)));
            if let Some(first) = tests.iter().find(|t| t.name == name) {
                let first = &first.piece.id;
                self.problem(format!(
                    "cell `{id}`, line {line}: cell `{first}` already has the test `{name}`"
                ));
            }
            if directives.compile_fail().is_some() || !directives.eval() {
                self.problem(format!(
                    "cell `{id}`, line {line}: a cell that is not executed cannot be a test"
                ));
            }
            let piece = self.test_piece(id, parts, directives.should_panic());
            let (should_panic, slow) = (directives.should_panic(), directives.slow());
            tests.push(Test { name, piece, should_panic, slow, features: BTreeSet::new() });
        }
        tests
    }

    fn test_piece(&mut self, id: &str, parts: &Parts, should_panic: bool) -> Piece {
        match syn::parse::Parser::parse_str(syn::Block::parse_within, &parts.code) {
            Ok(stmts) if !should_panic && ends_with_value(&stmts) => {
                let line = parts.lines.last().map_or(1, |l| l + 1);
                self.problem(format!(
                    "cell `{id}`, line {line}: a test ends with a statement: put a `;` after its last expression"
                ));
            }
            Ok(_) => {}
            Err(error) => {
                self.syntax_error(id, parts, &error, "a test must be Rust that can stand in a function")
            }
        }
        self.check_lines(id, parts);
        piece(id, parts, vec![])
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

fn piece(id: &str, parts: &Parts, defined: Vec<Defined>) -> Piece {
    let (code, lines) = (parts.code.clone(), parts.lines.clone());
    Piece { id: id.to_owned(), used: names::used(&code), code, lines, defined }
}

fn ends_with_value(stmts: &[syn::Stmt]) -> bool {
    use syn::{Expr, Stmt};
    match stmts.last() {
        Some(Stmt::Expr(e, None)) => !matches!(
            e,
            Expr::Block(_)
                | Expr::ForLoop(_)
                | Expr::If(_)
                | Expr::Loop(_)
                | Expr::Match(_)
                | Expr::Unsafe(_)
                | Expr::While(_)
        ),
        Some(Stmt::Macro(m)) => {
            m.semi_token.is_none() && !matches!(m.mac.delimiter, syn::MacroDelimiter::Brace(_))
        }
        _ => false,
    }
}

/// Items without the inner attributes that only the top of a file may have.
struct Items(Vec<syn::Item>);

impl Parse for Items {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut items = Vec::new();
        while !input.is_empty() {
            if input.peek(syn::Token![#]) && input.peek2(syn::Token![!]) {
                let hint =
                    "`//!` and `#![…]` belong to the top of a file; for documentation use `//| doc TEXT`";
                return Err(input.error(hint));
            }
            items.push(input.parse()?);
        }
        Ok(Self(items))
    }
}
