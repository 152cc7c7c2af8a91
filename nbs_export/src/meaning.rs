//! What a cell means to the compiler: its text without what changes no output.
//!
//! A saved output stays true when a comment below it is put into better words, when rustfmt breaks a line elsewhere, or
//! when a long cell of definitions is cut in two. The hash that says whether outputs are stale must not change with these,
//! or every mended word would ask for an hour of runs.

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use quote::ToTokens as _;
use sha2::{Digest as _, Sha256};
use syn::{Block, Item, Stmt};

use crate::code;
use crate::notebook::{Cell, hex16};

/// The running hash of a notebook's code cells from the first one on.
///
/// It does not see comments, layout, the directives that only sort cells into files, where one cell of definitions ends
/// and the next begins, or whether methods stand in one `impl` block or in two.
pub(crate) struct Meaning {
    sha: Sha256,
    /// The head of the `impl` block that the last definition belonged to.
    open: Option<String>,
    /// Documentation counts where a cell asks for it (`?name`).
    with_docs: bool,
}

impl Meaning {
    pub(crate) fn new(cells: impl Iterator<Item = String>) -> Self {
        let asks = |source: String| source.lines().any(|l| l.trim_start().starts_with('?'));
        Self { sha: Sha256::new(), open: None, with_docs: cells.into_iter().any(asks) }
    }

    /// Takes the next code cell, and gives the hash of all cells so far.
    pub(crate) fn add(&mut self, cell: &Cell) -> String {
        let source = cell.source();
        let marks = cell.directives().unwrap_or_default();
        match statements(&source, self.with_docs) {
            // The error that such a cell shows may quote its text and the numbers of its lines.
            Some(statements) if !marks.should_panic() && marks.compile_fail().is_none() => {
                for line in source.lines().take(code::commands_end(&source)).filter(|l| code::is_command(l)) {
                    self.put(&format!("\n{}", line.trim()));
                }
                let ends_a_run = !statements.iter().all(|s| matches!(s, Stmt::Item(_)));
                statements.into_iter().for_each(|s| self.statement(s));
                if ends_a_run {
                    self.put("\n---");
                }
            }
            _ => self.put(&format!("\n{}\n---", source.trim_end())),
        }
        if !marks.eval() || marks.slow() {
            self.put("\n//| not always run");
        }
        hex16(&self.sha.clone().finalize())
    }

    fn put(&mut self, text: &str) {
        self.open = None;
        self.sha.update(text);
    }

    fn statement(&mut self, statement: Stmt) {
        let Stmt::Item(mut item) = statement else {
            return self.put(&format!("\n{}", statement.to_token_stream()));
        };
        let Item::Impl(block) = &mut item else {
            return self.put(&format!("\n{}", item.to_token_stream()));
        };
        let inside = std::mem::take(&mut block.items);
        let head = block.to_token_stream().to_string();
        if self.open.as_ref() != Some(&head) {
            self.put(&format!("\n{head}"));
            self.open = Some(head);
        }
        for one in inside {
            self.sha.update(format!("\n{}", one.to_token_stream()));
        }
    }
}

/// The statements of a cell, or `None` if its text is not only Rust (`%timeit`, `?name`, half a line).
fn statements(source: &str, with_docs: bool) -> Option<Vec<Stmt>> {
    let tokens: TokenStream = code::blank_commands(source).parse().ok()?;
    let tokens = if with_docs { tokens } else { without_docs(tokens) };
    syn::parse::Parser::parse2(Block::parse_within, tokens).ok()
}

/// Does the cell hold nothing but definitions? Such a cell prints nothing.
pub(crate) fn only_defines(cell: &Cell) -> bool {
    let defines = |statements: Vec<Stmt>| statements.iter().all(|s| matches!(s, Stmt::Item(_)));
    cell.directives().is_ok_and(|d| d.compile_fail().is_none() && !d.should_panic())
        && cell.outputs().is_empty()
        && statements(&cell.source(), false).is_some_and(defines)
}

/// The tokens without documentation: `///`, `//!` and `#[doc = "…"]` arrive alike, as `#`, perhaps `!`, and `[doc …]`.
fn without_docs(tokens: TokenStream) -> TokenStream {
    let is_doc = |token: &TokenTree| {
        matches!(token, TokenTree::Group(g) if g.delimiter() == Delimiter::Bracket
        && matches!(g.stream().into_iter().next(), Some(TokenTree::Ident(name)) if name == "doc"))
    };
    let is = |token: &TokenTree, c: char| matches!(token, TokenTree::Punct(p) if p.as_char() == c);
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in tokens {
        if is_doc(&token) && kept.last().is_some_and(|t| is(t, '#') || is(t, '!')) {
            if kept.last().is_some_and(|t| is(t, '!')) {
                kept.pop();
            }
            kept.pop();
            continue;
        }
        kept.push(match token {
            TokenTree::Group(g) => Group::new(g.delimiter(), without_docs(g.stream())).into(),
            other => other,
        });
    }
    kept.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::json;

    use crate::notebook::Notebook;

    fn notebook(cells: &[&str]) -> Notebook {
        let cell =
            |source: &&str| json!({ "cell_type": "code", "metadata": {}, "outputs": [], "source": source });
        let cells: Vec<_> = cells.iter().map(cell).collect();
        let json = json!({ "cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4 });
        Notebook::parse(Path::new("a.ipynb"), &json.to_string()).unwrap()
    }

    /// The hash of the last cell.
    fn hash(cells: &[&str]) -> String {
        notebook(cells).source_hashes().pop_last().unwrap().1
    }

    const TYPE: &str = "/// A point.\nstruct P { x: f32 }\nimpl P {\n    fn x(&self) -> f32 { self.x }\n    fn y(&self) {}\n}";

    #[test]
    fn what_changes_no_output_changes_no_hash() {
        let before = hash(&[TYPE, "P { x: 1.0 }.x()"]);
        let same: [&[&str]; 4] = [
            &[&TYPE.replace("A point", "One value"), "// why\nP { x: 1.0 }\n    .x() // this"],
            &["//| export p\nstruct P {\n    x: f32\n}", &TYPE[33..], "P { x: 1.0 }.x()"],
            &[
                "struct P { x: f32 }\nimpl P { fn x(&self) -> f32 { self.x } }",
                "impl P { fn y(&self) {} }",
                "P { x: 1.0 }.x()",
            ],
            &[&format!("{TYPE}\nP {{ x: 1.0 }}.x()")],
        ];
        for cells in same {
            assert_eq!(hash(cells), before, "{cells:?}");
        }
        let other: [&[&str]; 5] = [
            &[&TYPE.replace("self.x", "-self.x"), "P { x: 1.0 }.x()"],
            &[TYPE, "P { x: 1.5 }.x()"],
            &[TYPE, "P { x: 1.0 };", "P { x: 1.0 }.x()"],
            &["let a = 1;", TYPE, "P { x: 1.0 }.x()"],
            &[":dep ndarray = \"0.17\"", TYPE, "P { x: 1.0 }.x()"],
        ];
        for cells in other {
            assert_ne!(hash(cells), before, "{cells:?}");
        }
    }

    #[test]
    fn text_that_a_cell_shows_counts() {
        assert_ne!(hash(&["/// One.\nstruct P;", "?P"]), hash(&["/// Two.\nstruct P;", "?P"]));
        assert_ne!(hash(&["//| should_panic\npanic!()"]), hash(&["//| should_panic\n// why\npanic!()"]));
        assert_ne!(hash(&["%timeit f(1)"]), hash(&["%timeit f(2)"]));
        assert_ne!(hash(&["f(1)", "g()"]), hash(&["f(1); g()"]));
    }

    #[test]
    fn half_of_a_cell_of_definitions_is_as_fresh_as_what_follows() {
        let mut whole = notebook(&[TYPE, "P { x: 1.0 }.x()"]);
        let hashes = whole.source_hashes();
        hashes.iter().for_each(|(i, hash)| whole.cell_mut(*i).set_hash(hash));
        let mut cut = notebook(&["struct P { x: f32 }", &TYPE[33..], "P { x: 1.0 }.x()", "1 + 2"]);
        cut.cell_mut(1).set_hash(&hashes[&0]);
        cut.cell_mut(2).set_hash(&hashes[&1]);
        assert_eq!(cut.fresh(), BTreeSet::from([0, 1, 2]));
        cut.cell_mut(1).set_source("impl P { fn x(&self) -> f32 { 2.0 } fn y(&self) {} }");
        assert_eq!(cut.fresh(), BTreeSet::new());
    }
}
