//! Which names a cell defines and which it uses.
//!
//! In a notebook every item is visible in every cell below it. In the crate the items live in modules, so the exporter
//! has to find out what a module uses of its siblings, and import that.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Item, Visibility};

/// From where an item can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Its own module only.
    Module,
    /// Anywhere in the crate.
    Crate,
    /// Anywhere.
    Everywhere,
}

/// An item that a cell defines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Defined {
    /// Its name.
    pub name: String,
    /// From where it can be used.
    pub reach: Reach,
    /// Macros with `#[macro_export]` live at the root of the crate, not in their module.
    pub at_root: bool,
    /// The functions of a trait: calling one needs the trait, though its name is not written.
    pub methods: Vec<String>,
}

/// The named items among `items`.
pub fn defined(items: &[Item]) -> Vec<Defined> {
    items.iter().flat_map(defined_by).collect()
}

fn defined_by(item: &Item) -> Vec<Defined> {
    let one = |ident: &syn::Ident, vis: &Visibility| {
        vec![Defined { name: ident.to_string(), reach: reach(vis), at_root: false, methods: vec![] }]
    };
    match item {
        Item::Const(i) => one(&i.ident, &i.vis),
        Item::Enum(i) => one(&i.ident, &i.vis),
        Item::Fn(i) => one(&i.sig.ident, &i.vis),
        Item::Mod(i) => one(&i.ident, &i.vis),
        Item::Static(i) => one(&i.ident, &i.vis),
        Item::Struct(i) => one(&i.ident, &i.vis),
        Item::Type(i) => one(&i.ident, &i.vis),
        Item::Union(i) => one(&i.ident, &i.vis),
        Item::Trait(i) => {
            let methods = i.items.iter().filter_map(|item| match item {
                syn::TraitItem::Fn(f) => Some(f.sig.ident.to_string()),
                _ => None,
            });
            let methods = methods.collect();
            vec![Defined { name: i.ident.to_string(), reach: reach(&i.vis), at_root: false, methods }]
        }
        Item::Macro(i) => {
            let exported = i.attrs.iter().any(|a| a.path().is_ident("macro_export"));
            let reach = if exported { Reach::Everywhere } else { Reach::Module };
            let define =
                |name: &syn::Ident| Defined { name: name.to_string(), reach, at_root: true, methods: vec![] };
            i.ident.iter().map(define).collect()
        }
        Item::Use(i) if reach(&i.vis) > Reach::Module => {
            let define = |name| Defined { name, reach: reach(&i.vis), at_root: false, methods: vec![] };
            imported(&i.tree).into_iter().map(define).collect()
        }
        _ => vec![],
    }
}

fn reach(vis: &Visibility) -> Reach {
    match vis {
        Visibility::Public(_) => Reach::Everywhere,
        Visibility::Restricted(r) if r.path.is_ident("crate") => Reach::Crate,
        _ => Reach::Module,
    }
}

/// The names that a `use` brings in.
fn imported(tree: &syn::UseTree) -> Vec<String> {
    match tree {
        syn::UseTree::Path(p) => imported(&p.tree),
        syn::UseTree::Name(n) => vec![n.ident.to_string()],
        syn::UseTree::Rename(r) => vec![r.rename.to_string()],
        syn::UseTree::Group(g) => g.items.iter().flat_map(imported).collect(),
        syn::UseTree::Glob(_) => vec![],
    }
}

/// What a cell uses.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// Names used without a path before them, that neither an import nor a local variable explains.
    pub bare: BTreeSet<String>,
    /// Names called after a dot or named after `::`, which may be functions of traits.
    pub methods: BTreeSet<String>,
    /// Names that the text itself imports.
    pub imported: BTreeSet<String>,
}

/// Finds what a cell's text uses. Macros' arguments count too, so tokens are looked at, not only the syntax tree.
pub fn used(code: &str) -> Used {
    let Ok(tokens) = code.parse::<TokenStream>() else {
        return Used::default();
    };
    let mut seen = Seen::default();
    seen.walk(&tokens.into_iter().collect::<Vec<_>>());
    let local = Locals::of(code);
    let is_free = |name: &&String| {
        let called = seen.called.contains(*name);
        let explained = local.imported.contains(*name) || seen.declared.contains(*name);
        !explained && (called || !local.bound.contains(*name))
    };
    let bare = seen.bare.iter().filter(is_free).cloned().collect();
    Used { bare, methods: seen.methods, imported: local.imported }
}

#[derive(Default)]
struct Seen {
    bare: BTreeSet<String>,
    called: BTreeSet<String>,
    declared: BTreeSet<String>,
    methods: BTreeSet<String>,
}

/// Words after which a name is defined, not used.
const DECLARING: [&str; 8] = ["const", "enum", "fn", "mod", "static", "struct", "trait", "type"];

impl Seen {
    fn walk(&mut self, tokens: &[TokenTree]) {
        for (i, token) in tokens.iter().enumerate() {
            match token {
                // `{a, b}` after `::` is part of a `use`.
                TokenTree::Group(_) if follows_path(tokens, i) => {}
                TokenTree::Group(g) => self.walk(&g.stream().into_iter().collect::<Vec<_>>()),
                TokenTree::Ident(ident) => self.name(&ident.to_string(), tokens, i),
                _ => {}
            }
        }
    }

    fn name(&mut self, name: &str, tokens: &[TokenTree], i: usize) {
        let after_dot = is_punct(tokens, i.wrapping_sub(1), '.') && !is_punct(tokens, i.wrapping_sub(2), '.');
        let path_follows = is_punct(tokens, i + 1, ':') && is_punct(tokens, i + 2, ':');
        let call =
            matches!(tokens.get(i + 1), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis);
        if after_dot || follows_path(tokens, i) {
            // `x.shape` is a field; `x.shape()`, `x.sum::<f32>()` and `map(X::shape)` may be functions of a trait.
            if !after_dot || call || path_follows {
                self.methods.insert(name.to_owned());
            }
            return;
        }
        let before = i.checked_sub(1).and_then(|k| tokens.get(k)).map(ToString::to_string);
        if before.is_some_and(|word| DECLARING.contains(&word.as_str())) {
            self.declared.insert(name.to_owned());
        }
        let is_field = is_punct(tokens, i + 1, ':') && !path_follows;
        if is_field && name.starts_with(|c: char| c.is_lowercase()) {
            return;
        }
        if call || path_follows || is_punct(tokens, i + 1, '!') {
            self.called.insert(name.to_owned());
        }
        self.bare.insert(name.to_owned());
    }
}

fn is_punct(tokens: &[TokenTree], i: usize, c: char) -> bool {
    matches!(tokens.get(i), Some(TokenTree::Punct(p)) if p.as_char() == c)
}

fn follows_path(tokens: &[TokenTree], i: usize) -> bool {
    is_punct(tokens, i.wrapping_sub(1), ':') && is_punct(tokens, i.wrapping_sub(2), ':')
}

/// Local variables, and names that the text itself imports.
#[derive(Default)]
struct Locals {
    bound: BTreeSet<String>,
    imported: BTreeSet<String>,
}

impl Locals {
    fn of(code: &str) -> Self {
        let mut locals = Self::default();
        if let Ok(file) = syn::parse_file(code) {
            locals.visit_file(&file);
        } else if let Ok(stmts) = syn::parse::Parser::parse_str(syn::Block::parse_within, code) {
            stmts.iter().for_each(|s| locals.visit_stmt(s));
        }
        locals
    }
}

impl<'ast> Visit<'ast> for Locals {
    fn visit_pat_ident(&mut self, pat: &'ast syn::PatIdent) {
        // `None` or `MAX` in a pattern are constants, not variables.
        let name = pat.ident.to_string();
        if !name.starts_with(|c: char| c.is_uppercase()) {
            self.bound.insert(name);
        }
        visit::visit_pat_ident(self, pat);
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.imported.extend(imported(&item.tree));
    }
}

/// What a cell's text makes known to the cells below it: its items, imports and variables.
pub fn introduced(code: &str) -> BTreeSet<String> {
    let mut locals = Locals::default();
    let mut names = imports(code);
    for stmt in statements(code) {
        match stmt {
            syn::Stmt::Local(local) => locals.visit_pat(&local.pat),
            syn::Stmt::Item(item) => names.extend(defined_by(&item).into_iter().map(|d| d.name)),
            _ => {}
        }
    }
    names.extend(locals.bound);
    names
}

/// The names that a cell's `use` lines bring in.
pub fn imports(code: &str) -> BTreeSet<String> {
    let names = statements(code).into_iter().filter_map(|stmt| match stmt {
        syn::Stmt::Item(Item::Use(item)) => Some(imported(&item.tree)),
        _ => None,
    });
    names.flatten().collect()
}

fn statements(code: &str) -> Vec<syn::Stmt> {
    syn::parse::Parser::parse_str(syn::Block::parse_within, code).unwrap_or_default()
}

/// The names that statements use and do not bind: variables, functions and types, but no modules or macros. Nothing if
/// the text is no Rust.
pub fn free(code: &str) -> BTreeSet<String> {
    let mut free = Free::default();
    statements(code).iter().for_each(|stmt| free.visit_stmt(stmt));
    &free.used - &free.locals.bound
}

#[derive(Default)]
struct Free {
    used: BTreeSet<String>,
    locals: Locals,
}

impl<'ast> Visit<'ast> for Free {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let first = path.segments.first().map(|s| s.ident.to_string()).unwrap_or_default();
        // `std::fs::read`: where a module comes from is another question.
        if path.segments.len() == 1 || first.starts_with(char::is_uppercase) {
            self.used.insert(first);
        }
        visit::visit_path(self, path);
    }

    fn visit_pat_ident(&mut self, pat: &'ast syn::PatIdent) {
        self.locals.visit_pat_ident(pat);
        visit::visit_pat_ident(self, pat);
    }

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        let list = syn::punctuated::Punctuated::<syn::Expr, syn::Token![,]>::parse_terminated;
        for argument in mac.parse_body_with(list).unwrap_or_default() {
            // Its own visitor: the arguments do not live as long as the macro.
            let mut inner = Free::default();
            inner.visit_expr(&argument);
            self.used.extend(&inner.used - &inner.locals.bound);
        }
    }
}

/// The paths into the crate, `minai::NAME` or `crate::NAME`: each with the line (from 0) and the name, `*` for a glob.
pub fn crate_paths(code: &str, crate_name: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    if let Ok(tokens) = code.parse::<TokenStream>() {
        find_crate_paths(&tokens.into_iter().collect::<Vec<_>>(), crate_name, &mut paths);
    }
    paths
}

fn find_crate_paths(tokens: &[TokenTree], crate_name: &str, paths: &mut Vec<(usize, String)>) {
    for (i, token) in tokens.iter().enumerate() {
        let root = match token {
            TokenTree::Group(g) => {
                find_crate_paths(&g.stream().into_iter().collect::<Vec<_>>(), crate_name, paths);
                continue;
            }
            TokenTree::Ident(ident) if *ident == crate_name => !is_punct(tokens, i.wrapping_sub(1), '.'),
            // `$crate` in a macro is the way to write it.
            TokenTree::Ident(ident) => *ident == "crate" && !is_punct(tokens, i.wrapping_sub(1), '$'),
            _ => false,
        };
        let line = |t: &TokenTree| t.span().start().line.saturating_sub(1);
        if !root || !is_punct(tokens, i + 1, ':') || !is_punct(tokens, i + 2, ':') {
            continue;
        }
        match tokens.get(i + 3) {
            Some(TokenTree::Ident(name)) => paths.push((line(token), name.to_string())),
            Some(TokenTree::Punct(p)) if p.as_char() == '*' => paths.push((line(token), "*".to_owned())),
            Some(TokenTree::Group(group)) => {
                let inner: Vec<_> = group.stream().into_iter().collect();
                let firsts =
                    inner.iter().enumerate().filter(|(k, _)| *k == 0 || is_punct(&inner, k - 1, ','));
                paths.extend(firsts.map(|(_, t)| (line(t), t.to_string())));
            }
            _ => {}
        }
    }
}

/// The order in which rustfmt (edition 2024) puts names: `_` first, capitals before small letters, numbers by value.
pub fn rustfmt_order(a: &str, b: &str) -> std::cmp::Ordering {
    version_key(a).cmp(&version_key(b))
}

/// Characters and numbers one by one, so that `conv2d` sorts before `conv10d`, and `conv_transpose2d` before both.
fn version_key(name: &str) -> Vec<(char, u64)> {
    let mut key = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()).max(first.len_utf8());
        key.push(match first {
            '0'..='9' => ('0', rest[..end].parse().unwrap_or(u64::MAX)),
            '_' => (' ', 0),
            _ => (first, 0),
        });
        rest = &rest[if first.is_ascii_digit() { end } else { first.len_utf8() }..];
    }
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare(code: &str) -> Vec<String> {
        used(code).bare.into_iter().collect()
    }

    #[test]
    fn names_in_macros_count_but_fields_methods_and_paths_do_not() {
        let names = bare("assert_eq!(Chunks::new(x.seed, rng::draw()), Seed { seed: 1 });");
        assert_eq!(names, ["Chunks", "Seed", "assert_eq", "rng", "x"]);
    }

    #[test]
    fn a_local_variable_hides_an_item_unless_it_is_called() {
        assert!(!bare("fn f(seed: u64) -> u64 { seed + 1 }").contains(&"seed".to_owned()));
        assert!(bare("let seed = seed(3);").contains(&"seed".to_owned()));
        assert!(bare("items.map(seed)").contains(&"seed".to_owned()));
    }

    #[test]
    fn names_that_the_text_imports_are_explained() {
        assert_eq!(
            bare("use std::io::{Read, Write as W};\nfn f(r: impl Read, w: W) {}"),
            ["fn", "impl", "std", "use"]
        );
    }

    #[test]
    fn names_are_in_the_order_of_rustfmt() {
        let mut names = ["conv10d", "conv2d", "Conv", "conv_transpose2d", "_x", "conv"];
        names.sort_by(|a, b| rustfmt_order(a, b));
        assert_eq!(names, ["_x", "Conv", "conv", "conv_transpose2d", "conv2d", "conv10d"]);
    }

    #[test]
    fn ranges_are_not_fields() {
        assert!(bare("let r = 0..limit;").contains(&"limit".to_owned()));
    }

    #[test]
    fn paths_into_the_crate_are_found_in_every_form() {
        let code = "use minai::iter::Chunks;\nuse minai::{data, rng::Rng};\nfn f() { crate::nb::x(); minai::timeit!(1) }";
        let found = crate_paths(code, "minai");
        let expected = [(0, "iter"), (1, "data"), (1, "rng"), (2, "nb"), (2, "timeit")];
        assert_eq!(found, expected.map(|(l, n)| (l, n.to_owned())));
        assert!(crate_paths("macro_rules! m { () => { $crate::nb::x() } }", "minai").is_empty());
    }

    #[test]
    fn statements_use_what_they_do_not_bind() {
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(" ");
        let code = "check(|x| x + offset, &some, Kind::Flat, vec![row, 1], std::fs::read(path), a.b.c(d));";
        assert_eq!(list(free(code)), "Kind a check d offset path row some");
        assert_eq!(list(free("no Rust at all.")), "");
        let code = "use a::{b, c as d};\nlet (e, mut f) = g;\nfn h(i: u8) {}\nenum J { K }";
        assert_eq!(list(introduced(code)), "J b d e f h");
    }

    #[test]
    fn traits_know_their_functions_and_macros_live_at_the_root() {
        let file = syn::parse_file(
            "pub trait Draw { fn draw(&self); }\n#[macro_export]\nmacro_rules! timeit { () => {} }\nfn hidden() {}",
        );
        let found = defined(&file.unwrap().items);
        assert_eq!(found[0].methods, ["draw"]);
        assert!(found[1].at_root && found[1].reach == Reach::Everywhere);
        assert_eq!(found[2].reach, Reach::Module);
    }
}
