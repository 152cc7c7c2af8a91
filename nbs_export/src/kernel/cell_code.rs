//! What rustc is given for a cell: evcxr's text, read for how long it may compute.
//!
//! Most of a cell's time is LLVM's, for code that runs once. So a cell is optimised fully only if it can reach a loop over
//! elements: its own, or one in the notebook's functions. All others, and those that only define something, are compiled
//! without; what they call in the library was compiled long ago.

use std::collections::{HashMap, HashSet};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use sha2::{Digest as _, Sha256};
use syn::visit::{self, Visit};
use syn::{Item, ItemImpl, Type};

use crate::notebook::hex16;

/// How a cell is compiled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Effort {
    /// As the kernel's profile says, always: its speed is looked at.
    Measured,
    /// As the kernel's profile says: there are loops.
    Full,
    /// Without optimisation.
    Little,
}

/// How much optimisation is worth its time. What cannot be read gets all of it.
pub(super) fn effort(source: &str) -> Effort {
    let Ok(file) = syn::parse_file(source) else { return Effort::Full };
    let parts = parts(&file.items);
    let reached: Vec<&Part> = reached(&parts).collect();
    match () {
        () if reached.iter().any(|part| part.measures) => Effort::Measured,
        () if reached.iter().any(|part| part.is_long) => Effort::Full,
        () => Effort::Little,
    }
}

/// An item of the crate that a cell becomes.
struct Part {
    /// It is used where of each of these groups one name is mentioned; where there is no group, always.
    needs: Vec<Vec<String>>,
    /// All names in it.
    mentions: HashSet<String>,
    /// May it compute for long?
    is_long: bool,
    /// Is its speed looked at?
    measures: bool,
}

/// The parts that evcxr's entry can reach by name.
fn reached(parts: &[Part]) -> impl Iterator<Item = &Part> {
    let mut groups: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
    for (i, part) in parts.iter().enumerate() {
        for (k, names) in part.needs.iter().enumerate() {
            names.iter().for_each(|name| groups.entry(name).or_default().push((i, k)));
        }
    }
    let mut missing: Vec<HashSet<usize>> = parts.iter().map(|p| (0..p.needs.len()).collect()).collect();
    let mut next: Vec<usize> = (0..parts.len()).filter(|i| missing[*i].is_empty()).collect();
    let mut seen: HashSet<&str> = HashSet::new();
    while let Some(part) = next.pop() {
        for word in parts[part].mentions.iter().map(String::as_str).filter(|w| seen.insert(w)) {
            for (i, k) in groups.get(word).into_iter().flatten() {
                if missing[*i].remove(k) && missing[*i].is_empty() {
                    next.push(*i);
                }
            }
        }
    }
    parts.iter().zip(missing).filter(|(_, missing)| missing.is_empty()).map(|(part, _)| part)
}

fn parts(items: &[Item]) -> Vec<Part> {
    let local: HashSet<String> = items.iter().filter_map(name).collect();
    let mut parts = Vec::new();
    for item in items {
        match item {
            // Imports name what is elsewhere; evcxr's own module uses nothing of the reader's.
            Item::Use(_) | Item::Mod(_) => {}
            Item::Impl(item) if item.trait_.is_none() => parts.extend(methods(item, &local)),
            item => {
                let mut look = Look { chains_count: !is_entry(item), ..Look::default() };
                look.visit_item(item);
                // The first time a function's name is there is its definition.
                let own = matches!(item, Item::Fn(_)).then(|| name(item)).flatten();
                parts.push(Part::new(needs(item, &local), item, look, own.map(|name| (name, 1))));
            }
        }
    }
    parts
}

/// The functions of an `impl` without a trait, each of which is used where it is called by its name.
fn methods(item: &ItemImpl, local: &HashSet<String>) -> Vec<Part> {
    let [of_type, _] = names(item).map(|n| n.filter(|n| local.contains(n)));
    let part = |function: &syn::ImplItem| {
        let mut look = Look { chains_count: true, ..Look::default() };
        look.visit_impl_item(function);
        let mut needs: Vec<Vec<String>> = of_type.iter().map(|name| vec![name.clone()]).collect();
        let syn::ImplItem::Fn(f) = function else { return Part::new(needs, function, look, None) };
        needs.push(called(&f.sig.ident).to_vec());
        Part::new(needs, function, look, Some((format!("Self::{}", f.sig.ident), 0)))
    };
    item.items.iter().map(part).collect()
}

impl Part {
    fn new(needs: Vec<Vec<String>>, code: &impl ToTokens, look: Look, own: Option<(String, usize)>) -> Self {
        let mut mentions = HashMap::new();
        words(code.to_token_stream(), &mut |word| *mentions.entry(word.to_owned()).or_insert(0) += 1);
        // A function that calls itself is a loop too.
        let calls_itself = own.is_some_and(|(name, times)| mentions.get(&name) > Some(&times));
        let measures = LONG.iter().any(|word| mentions.contains_key(*word));
        let is_long = look.is_long || calls_itself;
        Self { needs, mentions: mentions.into_keys().collect(), is_long, measures }
    }
}

/// Words of code whose speed is looked at, or that is there for speed.
const LONG: [&str; 5] = ["timeit", "Instant", "black_box", "target_feature", "arch"];

fn needs(item: &Item, local: &HashSet<String>) -> Vec<Vec<String>> {
    match item {
        item if is_entry(item) => Vec::new(),
        Item::Trait(item) => vec![vec![item.ident.to_string()]],
        // What is of the notebook must be there: the type by its name, the trait by its own or by a call. What a type has of
        // a trait from elsewhere, the library may call.
        Item::Impl(item) => {
            let calls = item.items.iter().filter_map(|i| match i {
                syn::ImplItem::Fn(f) => Some(called(&f.sig.ident)),
                _ => None,
            });
            let calls: Vec<String> = calls.flatten().collect();
            let [own, of_trait] = names(item).map(|n| n.filter(|n| local.contains(n)));
            let of_trait = of_trait.map(|n| calls.into_iter().chain([n]).collect());
            own.map(|n| vec![n]).into_iter().chain(of_trait).collect()
        }
        item => name(item).into_iter().map(|n| vec![n]).collect(),
    }
}

/// What evcxr calls.
fn is_entry(item: &Item) -> bool {
    matches!(item, Item::Fn(f) if f.sig.abi.is_some() && f.sig.ident.to_string().starts_with("run_user_code"))
}

fn name(item: &Item) -> Option<String> {
    let name = match item {
        Item::Fn(item) => &item.sig.ident,
        Item::Struct(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Const(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(name.to_string())
}

/// What a call of a function of an `impl` has in it.
fn called(name: &syn::Ident) -> [String; 2] {
    [format!(".{name}"), format!("::{name}")]
}

/// The names of an `impl`'s type and trait.
fn names(item: &ItemImpl) -> [Option<String>; 2] {
    let last = |path: &syn::Path| path.segments.last().map(|s| s.ident.to_string());
    let mut own = item.self_ty.as_ref();
    while let Type::Reference(inner) = own {
        own = &inner.elem;
    }
    let of_type = match own {
        Type::Path(path) => last(&path.path),
        _ => None,
    };
    [of_type, item.trait_.as_ref().and_then(|(_, path, _)| last(path))]
}

/// Looks for loops over elements: those that index, add up, or hold another loop. A loop that only calls, such as one over
/// the steps of a training, is as quick as what it calls.
#[derive(Default)]
struct Look {
    loops: usize,
    is_long: bool,
    /// Do chains of iterators that end in one value count? In a cell's own lines they run once.
    chains_count: bool,
}

impl Look {
    fn inside(&mut self, walk: impl FnOnce(&mut Self)) {
        self.is_long |= self.loops > 0;
        self.loops += 1;
        walk(self);
        self.loops -= 1;
    }
}

impl<'a> Visit<'a> for Look {
    fn visit_expr_for_loop(&mut self, it: &'a syn::ExprForLoop) {
        self.inside(|look| visit::visit_expr_for_loop(look, it));
    }

    fn visit_expr_while(&mut self, it: &'a syn::ExprWhile) {
        self.inside(|look| visit::visit_expr_while(look, it));
    }

    fn visit_expr_loop(&mut self, it: &'a syn::ExprLoop) {
        self.inside(|look| visit::visit_expr_loop(look, it));
    }

    fn visit_expr_index(&mut self, it: &'a syn::ExprIndex) {
        self.is_long |= self.loops > 0 && !matches!(*it.index, syn::Expr::Lit(_));
        visit::visit_expr_index(self, it);
    }

    fn visit_expr_binary(&mut self, it: &'a syn::ExprBinary) {
        use syn::BinOp::{AddAssign, MulAssign, SubAssign};
        self.is_long |= self.loops > 0 && matches!(it.op, AddAssign(_) | SubAssign(_) | MulAssign(_));
        visit::visit_expr_binary(self, it);
    }

    fn visit_expr_method_call(&mut self, it: &'a syn::ExprMethodCall) {
        const TO_ONE_VALUE: [&str; 6] = ["sum", "product", "fold", "for_each", "max_by", "min_by"];
        self.is_long |= self.chains_count && TO_ONE_VALUE.iter().any(|name| it.method == name);
        visit::visit_expr_method_call(self, it);
    }

    fn visit_macro(&mut self, it: &'a syn::Macro) {
        words(it.tokens.clone(), &mut |word| self.is_long |= matches!(word, "for" | "while" | "loop"));
    }
}

/// All that could be a name, also as `.method`, `::function` and `Type::function`; in a string too, for `"{N}"` names a
/// constant.
fn words(tokens: TokenStream, found: &mut dyn FnMut(&str)) {
    let (mut last, mut between) = (String::new(), String::new());
    for tree in tokens {
        match tree {
            TokenTree::Group(group) if is_doc(&group) => {}
            TokenTree::Group(group) => words(group.stream(), found),
            TokenTree::Ident(word) => {
                let word = word.to_string();
                found(&word);
                if between == "." || between == "::" {
                    found(&format!("{between}{word}"));
                    found(&format!("{last}{between}{word}"));
                }
                (last, between) = (word, String::new());
            }
            TokenTree::Literal(text) => {
                let text = text.to_string();
                text.split('{').skip(1).filter_map(|t| t.split(['}', ':']).next()).for_each(&mut *found);
            }
            TokenTree::Punct(p) => between.push(p.as_char()),
        }
    }
}

fn is_doc(group: &proc_macro2::Group) -> bool {
    matches!(group.stream().into_iter().next(), Some(TokenTree::Ident(first)) if first == "doc")
}

/// evcxr's module that holds variables, with the same type and less that is compiled for each type of a variable. It has as
/// many lines as evcxr's, so that all below it stays in its place.
pub(super) fn with_thin_store(source: &str) -> Option<String> {
    let start = source.find(STORE_BEGINS)? + STORE_BEGINS.len();
    let end = start + source[start..].find(STORE_ENDS)?;
    let theirs = &source[start..end];
    // Of what only cells with `.await` use, ours has nothing.
    if source[end..].contains(".lazy_arc(") || source[end..].contains(".merge(") {
        return None;
    }
    if hex16(&Sha256::digest(theirs)) != STORE_HASH {
        return None;
    }
    let (own, lines) = (include_str!("store.rs"), |text: &str| text.bytes().filter(|b| *b == b'\n').count());
    let padding = "\n".repeat(lines(theirs).checked_sub(lines(own))?);
    Some([&source[..start], own, &padding, &source[end..]].concat())
}

/// evcxr shows a last expression as its type wishes and, if that does not compile, by its `Debug`. But the reason may have
/// nothing to do with showing: a variable that the expression moves is only found missing when variables are kept. Then the
/// second attempt should be as good as the first, and here it is made so. No line moves.
pub(super) fn with_own_display(source: &str) -> Option<String> {
    let (before, after) = source.split_once(BY_DEBUG)?;
    let (items, entry) = before.rsplit_once(ENTRY).filter(|_| before.contains("trait ShowDebug"))?;
    Some(
        [
            items,
            "macro_rules! nbs_show { ($e:expr) => { $e.evcxr_display() } } ",
            ENTRY,
            entry,
            "nbs_show!((&(\n",
            after,
        ]
        .concat(),
    )
}

/// Three parentheses are open after it.
const BY_DEBUG: &str = "evcxr_send_text_plain(&format!(\"{:?}\",&(\n";
const ENTRY: &str = "#[unsafe(no_mangle)]\npub extern \"C\" fn run_user_code";

const STORE_BEGINS: &str = "mod evcxr_internal_runtime {\n";
const STORE_ENDS: &str = "}\n#[unsafe(no_mangle)]\npub extern \"C\" fn run_user_code";
/// Of the module in evcxr 0.22.0.
const STORE_HASH: &str = "2111ce0ccd9e67b0";
#[cfg(test)]
mod tests {
    use super::*;

    /// What evcxr makes of a cell.
    fn cell(items: &str, own: &str) -> String {
        format!(
            "{items}\n#[unsafe(no_mangle)]\npub extern \"C\" fn run_user_code_1() {{ (|| {{ {own} }})(); }}"
        )
    }

    #[test]
    fn a_second_attempt_shows_as_the_first() {
        let own = "evcxr_send_text_plain(&format!(\"{:?}\",&(\nplot(x)\n)));";
        let source = cell("trait ShowDebug {}", own);
        let ours = with_own_display(&source).unwrap();
        assert!(ours.contains("nbs_show!((&(\nplot(x)\n)));") && !ours.contains("send_text"), "{ours}");
        assert_eq!(ours.lines().count(), source.lines().count());
        syn::parse_file(&ours).unwrap();
        assert_eq!(with_own_display(&cell("trait ShowDebug {}", "x.evcxr_display();")), None);
        assert_eq!(with_own_display(&cell("", own)), None, "a kernel without our way to show");
    }

    #[track_caller]
    fn is(wanted: Effort, items: &str, own: &str) {
        assert_eq!(effort(&cell(items, own)), wanted);
    }

    #[test]
    fn loops_over_elements_are_worth_it() {
        for own in [
            "for i in 0..9 { s += a[i]; }",
            "for row in &a { for x in row { f(x); } }",
            "while i < 9 { i += 1; }",
            "vec![for x in a { f(x) }]",
        ] {
            is(Effort::Full, "", own);
        }
        for own in ["println!(\"{}\", timeit(|| f(3)));", "let start = std::time::Instant::now();"] {
            is(Effort::Measured, "", own);
        }
        for own in ["", "let y = model.forward(&x);", "for x in a { println!(\"{x}\"); }", "plot(|x| x * x)"]
        {
            is(Effort::Little, "", own);
        }
    }

    #[test]
    fn what_is_called_counts() {
        let items = "fn dot(a: &[f32], b: &[f32]) -> f32 { a.iter().zip(b).map(|(x, y)| x * y).sum() }
            fn short() -> f32 { 1.0 } fn through() -> f32 { dot(&[1.0], &[2.0]) }
            fn fib(n: u32) -> u32 { if n < 2 { n } else { fib(n - 1) + fib(n - 2) } }
            const N: f32 = through();";
        for own in ["dot(&a, &b)", "let f = through;", "fib(20)", "println!(\"{N}\")"] {
            is(Effort::Full, items, own);
        }
        for own in ["short()", "println!(\"dot\")", "println!(\"N\")", ""] {
            is(Effort::Little, items, own);
        }
    }

    #[test]
    fn of_a_type_what_is_called_counts() {
        let items = "struct Matrix { data: Vec<f32> }
            impl Matrix { fn new() -> Self { short() } fn sum(&self) -> f32 { let mut s = 0.0; for x in &self.data { s += x; } s }
                fn twice(&self) -> f32 { 2.0 * self.sum() } }
            trait Total { fn total(&self) -> f32; } impl Total for Vec<f32> { fn total(&self) -> f32 { self.iter().sum() } }";
        for own in [
            "let m = Matrix::new(); m.twice()",
            "m.sum() + Matrix::default()",
            "fn f(x: impl Total) {}",
            "v.total()",
        ] {
            is(Effort::Full, items, own);
        }
        for own in ["let m = store.take::<Matrix>();", "let sum = Matrix::new();"] {
            is(Effort::Little, items, own);
        }
        // An operator is not called by name.
        let operator = "struct Matrix; impl Mul for Matrix { fn mul(self) { loop { loop {} } } }";
        is(Effort::Full, operator, "let m: Matrix = a * b;");
        is(Effort::Little, operator, "1 + 2");
    }

    #[test]
    fn what_cannot_be_read_is_optimised() {
        assert_eq!(effort("fn f( {"), Effort::Full);
    }

    #[test]
    fn only_the_module_that_is_known_is_replaced() {
        assert_eq!(
            with_thin_store(&format!("{STORE_BEGINS}pub struct VariableStore;\n{STORE_ENDS}_1() {{}}")),
            None
        );
        assert_eq!(with_thin_store("fn f() {}"), None);
    }
}
