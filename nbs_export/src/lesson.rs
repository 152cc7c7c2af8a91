//! What a notebook exports: modules, their cells, and tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use syn::parse::{Parse, ParseStream};

use crate::code;
use crate::directives::{self, Directive, Directives, Parts};
use crate::names::{self, Defined, Used};
use crate::notebook::{Cell, Notebook, conflict, half_character};
use crate::workspace::{Number, lesson_number};

/// Something that is wrong with notebooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The notebooks, such as `notebooks/01_foundations.ipynb`.
    pub places: Vec<String>,
    /// What is wrong, where, and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// One notebook and what it exports.
#[derive(Debug)]
pub struct Lesson {
    /// The number in its name.
    pub number: Number,
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

impl Lesson {
    /// The module that a cell is exported to.
    pub(crate) fn module_of(&self, cell: &Cell) -> Option<&Module> {
        let id = cell.id()?;
        self.modules.iter().find(|m| m.cells.iter().any(|p| p.id == id))
    }

    /// The exported code of the cell with this id.
    pub fn piece(&self, id: &str) -> Option<&Piece> {
        let cells = self.modules.iter().flat_map(|m| &m.cells);
        cells.chain(self.tests.iter().map(|t| &t.piece)).find(|p| p.id == id)
    }
}

/// Reads one notebook, noting everything that is wrong. There is no lesson if its cells cannot be told apart, or if the
/// file's name has no number.
pub(crate) fn read(place: String, notebook: Notebook, problems: &mut Vec<Problem>) -> Option<Lesson> {
    Reader { place, problems }.read(notebook)
}

struct Reader<'a> {
    place: String,
    problems: &'a mut Vec<Problem>,
}

/// A cell with its directives.
struct Marked {
    id: String,
    directives: Directives,
    parts: Parts,
}

impl Reader<'_> {
    /// Notes a problem of a cell.
    fn problem(&mut self, what: impl AsRef<str>) {
        self.note(format!("{}, {}", self.place, what.as_ref()));
    }

    fn note(&mut self, text: String) {
        self.problems.push(Problem { places: vec![self.place.clone()], text });
    }

    fn read(&mut self, notebook: Notebook) -> Option<Lesson> {
        self.check_text(&notebook);
        let cells = self.marked_cells(&notebook);
        let exports = cells.iter().any(|c| !c.directives.all.is_empty());
        let name = notebook.name();
        let Some(number) = lesson_number(&name) else {
            if exports {
                let problem = "its name is not of the form NN_topic.ipynb, so its directives mean nothing: rename it, or move it to another folder";
                self.note(format!("{}: {problem}", self.place));
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

    /// What no cell should hold, whatever it is.
    fn check_text(&mut self, notebook: &Notebook) {
        for cell in notebook.cells() {
            let (label, text) = (cell.label(), cell.source());
            if let Some(line) = conflict(&text) {
                self.problem(format!(
                    "{label}, line {line}: git's conflict marks: keep one version, delete the other"
                ));
            }
            if let Some(line) = half_character(&text) {
                self.problem(format!(
                    "{label}, line {line}: half of a character (such as a cut emoji): type it again"
                ));
            }
        }
    }

    fn marked_cells(&mut self, notebook: &Notebook) -> Vec<Marked> {
        let mut cells = Vec::new();
        for cell in notebook.code_cells() {
            match cell.directives() {
                Ok(directives) => {
                    let id = cell.id().unwrap_or_default().to_owned();
                    cells.push(Marked { id, directives, parts: directives::split(&cell.source()) });
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
                self.note(format!(
                    "{}: cell number {} has no id (nbformat 4.{minor}): `cargo nbs clean {name}` gives it one",
                    self.place,
                    cell.index + 1
                ));
                return false;
            };
            if let Some(first) = seen.insert(id, cell.index + 1) {
                self.note(format!(
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
        for Marked { id, directives, parts } in cells {
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
        for Marked { id, directives, .. } in cells {
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
        for Marked { id, directives, .. } in cells {
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
            if text.trim_start().starts_with(directives::MARKER) {
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
        for Marked { id, directives, parts } in cells {
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
