//! The source of Rust's standard library: rust-analyzer reads it, and evcxr asks rust-analyzer for the types of variables.
//!
//! It reads all of it before the first cell has an answer, 13 MB, which takes longer than everything else together. What it
//! has to know are signatures. So it gets a copy without the bodies of functions, and with the first paragraph of each
//! text.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::evcxr::{Rust, clean_cargo};
use super::progress::Progress;
use super::{Dirs, lock};

/// Where it lies below a sysroot.
pub(super) const PLACE: &str = "lib/rustlib/src/rust/library";
/// Of how the copy is made; with another one it is made anew.
const FORM: u32 = 1;
/// rust-analyzer takes these three, and no more without a workspace.
const CRATES: [&str; 3] = ["core", "alloc", "std"];

/// Where it lies, if it is there.
pub fn std_source() -> Option<PathBuf> {
    let output = clean_cargo("rustc").arg("--print=sysroot").output().ok().filter(|o| o.status.success())?;
    let sysroot = String::from_utf8_lossy(&output.stdout);
    let library = Path::new(sysroot.trim()).join(PLACE);
    library.join("std").is_dir().then_some(library)
}

/// Sees to it that the copy is there, and to make it the source. rustup's default profile leaves that out; it is a download
/// of a few megabytes.
pub(super) fn ensure(dirs: &Dirs, progress: &Progress) -> Result<()> {
    if !place(dirs)?.is_dir() && std_source().is_none() {
        let mut task = progress.task("the source of Rust's standard library");
        task.set("`rustup component add rust-src`");
        let output = clean_cargo("rustup").args(["component", "add", "rust-src"]).output();
        if std_source().is_none() {
            let why = match output {
                Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                Err(_) => "This Rust did not come with rustup, which could fetch it.".to_owned(),
            };
            bail!(
                "the source of Rust's standard library is missing, without which the kernel cannot tell the type of a \
                 variable such as `let here = std::env::current_dir()?;`.\n{why}\n`rustup component add rust-src` brings \
                 it, with a network; a Linux distribution's Rust has a package `rust-src`"
            );
        }
    }
    copy(dirs).map(drop)
}

/// The sysroot that the copy is or will be in.
fn place(dirs: &Dirs) -> Result<PathBuf> {
    Ok(dirs.home.join("library").join(format!("{}-{FORM}", Rust::installed()?.release)))
}

/// A sysroot with the copy, which is made if it is not there yet.
pub(super) fn copy(dirs: &Dirs) -> Result<PathBuf> {
    let sysroot = place(dirs)?;
    if sysroot.is_dir() {
        return Ok(sysroot);
    }
    let source = std_source().context("the standard library's source is missing")?;
    let _lock = lock(&dirs.home, || ())?;
    if sysroot.is_dir() {
        return Ok(sysroot);
    }
    let new = sysroot.with_file_name("new");
    let _ = fs::remove_dir_all(&new);
    for name in CRATES {
        copy_folder(&source.join(name).join("src"), &new.join(PLACE).join(name).join("src"))
            .with_context(|| format!("cannot copy the source of `{name}` to {}", new.display()))?;
    }
    fs::rename(&new, &sysroot)?;
    Ok(sysroot)
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path)?;
            // What cannot be read as tokens stays as it is.
            let text = text.parse().map_or(text, |tokens| skeleton(tokens, Place::Code).to_string());
            fs::write(target, text)?;
        }
    }
    Ok(())
}

/// Where tokens stand.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    Code,
    /// Between the delimiters of a macro's definition: patterns, and what they become.
    Rules,
    /// What a macro is given, or its pattern: attributes may be part of what is matched.
    Matched,
}

/// The tokens without the bodies of functions, and without attributes that say nothing of types.
fn skeleton(tokens: TokenStream, place: Place) -> TokenStream {
    let trees: Vec<TokenTree> = tokens.into_iter().collect();
    let mut kept: Vec<TokenTree> = Vec::with_capacity(trees.len());
    let (mut in_signature, mut in_first_paragraph) = (false, true);
    let mut i = 0;
    while let Some(tree) = trees.get(i) {
        i += 1;
        if place != Place::Matched && is_punct(Some(tree), '#') {
            let inner = usize::from(is_punct(trees.get(i), '!'));
            if let Some(TokenTree::Group(attribute)) = trees.get(i + inner)
                && attribute.delimiter() == Delimiter::Bracket
            {
                if attribute_is_wanted(attribute, &mut in_first_paragraph) {
                    kept.extend(trees[i - 1..=i + inner].iter().cloned());
                }
                i += inner + 1;
                continue;
            }
        }
        in_first_paragraph = true;
        match tree {
            TokenTree::Ident(word) if word == "fn" => {
                in_signature =
                    matches!(trees.get(i), Some(TokenTree::Ident(_))) || is_punct(trees.get(i), '$');
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => in_signature = false,
            TokenTree::Group(group) => {
                let is_constant = is_punct(kept.last(), '<') || is_punct(trees.get(i), '>');
                let is_body = in_signature && group.delimiter() == Delimiter::Brace && !is_constant;
                let stream = if is_body {
                    in_signature = false;
                    "loop {}".parse().expect("tokens")
                } else {
                    skeleton(group.stream(), inside(place, &kept))
                };
                kept.push(Group::new(group.delimiter(), stream).into());
                continue;
            }
            _ => {}
        }
        kept.push(tree.clone());
    }
    kept.into_iter().collect()
}

/// Where the tokens of a group stand that comes after these.
fn inside(place: Place, before: &[TokenTree]) -> Place {
    let word = |back: usize| match before.len().checked_sub(back).map(|i| &before[i]) {
        Some(TokenTree::Ident(word)) => word.to_string(),
        _ => String::new(),
    };
    let is_call = |back: usize| before.len() > back && is_punct(before.get(before.len() - back), '!');
    if (is_call(2) && word(3) == "macro_rules") || (word(2) == "macro" && !word(1).is_empty()) {
        return Place::Rules;
    }
    if is_call(1) || is_call(2) {
        return Place::Matched;
    }
    match place {
        Place::Rules if is_punct(before.last(), '>') => Place::Code,
        Place::Rules => Place::Matched,
        _ => place,
    }
}

fn is_punct(tree: Option<&TokenTree>, wanted: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(p)) if p.as_char() == wanted && (wanted != '!' || p.spacing() == Spacing::Alone))
}

/// Says nothing of a type: attributes for people, for linters, for the compiler's back end.
fn attribute_is_wanted(attribute: &Group, in_first_paragraph: &mut bool) -> bool {
    const IDLE: [&str; 14] = [
        "stable",
        "rustc_const_stable",
        "rustc_const_unstable",
        "inline",
        "must_use",
        "track_caller",
        "allow",
        "expect",
        "rustc_diagnostic_item",
        "rustc_on_unimplemented",
        "diagnostic",
        "rustc_inherit_overflow_checks",
        "cold",
        "optimize",
    ];
    let mut tokens = attribute.stream().into_iter();
    let Some(TokenTree::Ident(name)) = tokens.next() else { return true };
    if name != "doc" {
        return !IDLE.contains(&name.to_string().as_str());
    }
    match (tokens.next(), tokens.next(), tokens.next()) {
        (Some(TokenTree::Punct(_)), Some(TokenTree::Literal(text)), None) => {
            *in_first_paragraph &= !text.to_string().trim_matches(['"', ' ']).is_empty();
            *in_first_paragraph
        }
        // `#[doc(hidden)]` and its like.
        (Some(TokenTree::Group(_)), ..) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> String {
        skeleton(text.parse().unwrap(), Place::Code).to_string()
    }

    /// The same tokens, whatever stands between them.
    fn same(text: &str, wanted: &str) {
        assert_eq!(of(text), wanted.parse::<TokenStream>().unwrap().to_string());
    }

    #[test]
    fn bodies_go_and_signatures_stay() {
        same(
            "pub const fn f<T>(x: T) -> Option<T> where T: Copy { Some(x) }",
            "pub const fn f<T>(x: T) -> Option<T> where T: Copy { loop {} }",
        );
        same(
            "trait T { fn a(&self); fn b() { 1; } const C: u8 = { 1 + 1 }; }",
            "trait T { fn a(&self); fn b() { loop {} } const C: u8 = { 1 + 1 }; }",
        );
        same(
            "fn f() -> A<{ N }> { x } struct S { f: fn(u8) -> u8 } struct E {}",
            "fn f() -> A<{ N }> { loop {} } struct S { f: fn(u8) -> u8 } struct E {}",
        );
    }

    #[test]
    fn of_a_text_the_first_paragraph_stays() {
        same(
            "/// One\n/// two.\n///\n/// Three.\n#[inline] #[cfg(x)] struct S;",
            "/// One\n/// two.\n#[cfg(x)] struct S;",
        );
        same("/// One.\nstruct A;\n/// Two.\nstruct B;", "/// One.\nstruct A;\n/// Two.\nstruct B;");
        same("#[doc = include_str!(\"a\")] #[doc(hidden)] struct S;", "#[doc(hidden)] struct S;");
    }

    #[test]
    fn what_macros_match_stays() {
        let rules = "macro_rules! m { (#[$a:meta] $n:ident) => { #[$a] #[inline] fn $n() { 1 } } }";
        same(rules, "macro_rules! m { (#[$a:meta] $n:ident) => { #[$a] fn $n() { loop {} } } }");
        same("m! { #[stable(x)] f }", "m! { #[stable(x)] f }");
    }
}
