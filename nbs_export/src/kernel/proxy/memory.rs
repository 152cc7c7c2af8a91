//! What the cells so far have defined: for messages, documentation and completion.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;

/// A cell that was executed.
#[derive(Clone, Debug)]
pub struct Executed {
    /// The number in its brackets.
    pub count: usize,
    /// What the reader typed.
    pub source: String,
}

/// Something that a cell defines.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The number in the cell's brackets.
    pub cell: usize,
    pub is_type: bool,
    /// Its text, with attributes and documentation.
    pub source: String,
    /// The line in its cell, from 1.
    pub line: usize,
}

/// All cells, and what is defined.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub cells: Vec<Executed>,
    pub items: BTreeMap<String, Item>,
    /// Variables that there are now, with their types.
    pub variables: BTreeMap<String, String>,
    /// Variables that there were, with the cell that lost them.
    pub lost: BTreeMap<String, usize>,
}

impl Memory {
    /// Takes in a cell that is going to be executed.
    pub fn begin(&mut self, count: usize, source: &str) {
        self.cells.push(Executed { count, source: source.to_owned() });
    }

    /// Takes in what a cell that compiled has defined.
    pub fn define(&mut self, count: usize, code: &str) {
        for (name, item) in items(code) {
            self.items.insert(name, Item { cell: count, ..item });
        }
    }

    /// Takes in which variables there are after a cell.
    pub fn set_variables(&mut self, now: BTreeMap<String, String>, cell: usize) {
        for name in self.variables.keys() {
            if !now.contains_key(name) {
                self.lost.insert(name.clone(), cell);
            }
        }
        self.lost.retain(|name, _| !now.contains_key(name));
        self.variables = now;
    }

    /// Takes in that a variable was given up, in this cell.
    pub fn lose(&mut self, name: &str, cell: usize) {
        self.variables.remove(name);
        self.lost.insert(name.to_owned(), cell);
    }

    /// Forgets everything but the cells.
    pub fn reset(&mut self) {
        *self = Self { cells: std::mem::take(&mut self.cells), ..Self::default() };
    }

    /// The variables that cannot outlive this cell: it defines a type again, differently, that theirs depends on. Read as
    /// the new type, their memory would mean something else.
    pub fn outdated(&self, code: &str) -> Vec<(String, String)> {
        let changed = |(name, new): &(String, Item)| {
            self.items
                .get(name)
                .is_some_and(|old| (old.is_type || new.is_type) && words(&old.source) != words(&new.source))
        };
        let mut types: BTreeSet<String> =
            items(code).into_iter().filter(changed).map(|(name, _)| name).collect();
        if types.is_empty() {
            return Vec::new();
        }
        loop {
            let depends = |(name, item): &(&String, &Item)| {
                item.is_type
                    && !types.contains(*name)
                    && names(&item.source).iter().any(|n| types.contains(n))
            };
            let more: Vec<String> = self.items.iter().filter(depends).map(|(name, _)| name.clone()).collect();
            if more.is_empty() {
                break;
            }
            types.extend(more);
        }
        let of = |ty: &String| names(ty).into_iter().find(|n| types.contains(n));
        self.variables.iter().filter_map(|(name, ty)| Some((name.clone(), of(ty)?))).collect()
    }

    /// The latest cell with this number.
    pub fn cell(&self, count: usize) -> Option<&Executed> {
        self.cells.iter().rev().find(|c| c.count == count)
    }

    /// The first line of a cell that mentions a name, from 1.
    pub fn mention(&self, count: usize, name: &str) -> Option<(usize, &str)> {
        let lines = self.cell(count)?.source.lines().enumerate();
        lines.filter(|(_, l)| names(l).contains(name)).map(|(k, l)| (k + 1, l.trim())).next()
    }
}

/// The items among the statements of a cell; methods as `Type::method`.
pub fn items(code: &str) -> Vec<(String, Item)> {
    // Lines that are not Rust have an effect in evcxr only.
    let lines: Vec<&str> =
        code.lines().map(|l| if l.trim_start().starts_with([':', '!', '%', '?']) { "" } else { l }).collect();
    let text = format!("{{\n{}\n}}", lines.join("\n"));
    let Ok(block) = syn::parse_str::<syn::Block>(&text) else { return Vec::new() };
    let mut found = Vec::new();
    for statement in &block.stmts {
        if let syn::Stmt::Item(item) = statement {
            add(item, &text, &mut found);
        }
    }
    found
}

fn add(item: &syn::Item, text: &str, found: &mut Vec<(String, Item)>) {
    let mut push = |name: String, is_type: bool, span: proc_macro2::Span| {
        let range = span.byte_range();
        let source = text.get(range).unwrap_or_default().to_owned();
        // The block's brace has a line of its own.
        found.push((name, Item { cell: 0, is_type, source, line: span.start().line - 1 }));
    };
    match item {
        syn::Item::Struct(i) => push(i.ident.to_string(), true, i.span()),
        syn::Item::Enum(i) => push(i.ident.to_string(), true, i.span()),
        syn::Item::Union(i) => push(i.ident.to_string(), true, i.span()),
        syn::Item::Type(i) => push(i.ident.to_string(), true, i.span()),
        syn::Item::Trait(i) => push(i.ident.to_string(), true, i.span()),
        syn::Item::Fn(i) => push(i.sig.ident.to_string(), false, i.span()),
        syn::Item::Const(i) => push(i.ident.to_string(), false, i.span()),
        syn::Item::Static(i) => push(i.ident.to_string(), false, i.span()),
        syn::Item::Mod(i) => push(i.ident.to_string(), false, i.span()),
        syn::Item::Macro(i) => {
            if let Some(name) = &i.ident {
                push(name.to_string(), false, i.span());
            }
        }
        syn::Item::Impl(i) => {
            let syn::Type::Path(path) = &*i.self_ty else { return };
            let Some(owner) = path.path.segments.last().map(|s| s.ident.to_string()) else { return };
            for part in &i.items {
                if let syn::ImplItem::Fn(f) = part {
                    push(format!("{owner}::{}", f.sig.ident), false, f.span());
                }
            }
        }
        _ => {}
    }
}

/// The tokens of a text, so that blanks and comments do not matter.
fn words(source: &str) -> String {
    // Documentation is no part of a type's meaning.
    let code: Vec<&str> = source.lines().filter(|l| !l.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    code.parse::<TokenStream>().map_or(code, |tokens| tokens.to_string())
}

/// The names in a text.
fn names(source: &str) -> BTreeSet<String> {
    fn walk(tokens: TokenStream, found: &mut BTreeSet<String>) {
        for token in tokens {
            match token {
                TokenTree::Ident(name) => drop(found.insert(name.to_string())),
                TokenTree::Group(group) => walk(group.stream(), found),
                _ => {}
            }
        }
    }
    let mut found = BTreeSet::new();
    if let Ok(tokens) = source.parse() {
        walk(tokens, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(code: &str, variables: &[(&str, &str)]) -> Memory {
        let mut memory = Memory::default();
        memory.begin(1, code);
        memory.define(1, code);
        let variables = variables.iter().map(|(n, t)| ((*n).to_owned(), (*t).to_owned())).collect();
        memory.set_variables(variables, 1);
        memory
    }

    #[test]
    fn items_are_found_among_statements() {
        let code = ":dep x\nlet a = 1;\n/// Twice.\nfn f(x: i32) -> i32 {\n    2 * x\n}\nstruct P;\nimpl P { fn g(&self) {} }\na";
        let found = items(code);
        let names: Vec<_> = found.iter().map(|(n, i)| (n.as_str(), i.line)).collect();
        assert_eq!(names, [("f", 3), ("P", 7), ("P::g", 8)]);
        assert!(found[0].1.source.starts_with("/// Twice.\nfn f(x: i32)"), "{}", found[0].1.source);
        assert!(items("let a = ;").is_empty());
    }

    #[test]
    fn a_changed_type_outdates_all_that_hold_it() {
        let code = "struct P { a: i32 }\nstruct W { p: Vec<P> }\nstruct Other;";
        let memory = with(code, &[("p", "P"), ("ws", "Vec<Box<W>>"), ("o", "Other"), ("n", "i32")]);
        let all = |names: &[(&str, &str)]| -> Vec<(String, String)> {
            names.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect()
        };
        assert_eq!(memory.outdated("struct P { a: i32, b: i32 }"), all(&[("p", "P"), ("ws", "W")]));
        assert_eq!(memory.outdated("// the same\nstruct P {\n    a: i32\n}"), all(&[]));
        assert_eq!(memory.outdated("fn f() {}"), all(&[]));
    }

    #[test]
    fn what_was_lost_is_known() {
        let mut memory = with("let x = f();", &[("x", "T"), ("y", "T")]);
        memory.begin(2, "// one\nlet z = x + 1.0;");
        memory.set_variables([("y".to_owned(), "T".to_owned())].into(), 2);
        assert_eq!(memory.lost.get("x"), Some(&2));
        assert_eq!(memory.mention(2, "x"), Some((2, "let z = x + 1.0;")));
        memory.set_variables([("x".to_owned(), "T".to_owned())].into(), 3);
        assert_eq!(memory.lost.get("x"), None);
    }
}
