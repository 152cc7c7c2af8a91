//! Code with colours and links.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::LazyLock;

use syntect::easy::ScopeRegionIterator;
use syntect::parsing::{ParseState, Scope, ScopeStack, SyntaxReference, SyntaxSet};
use syntect::util::LinesWithEndings;

use crate::api::Names;
use crate::markdown::escape;

static SYNTAXES: LazyLock<SyntaxSet> = LazyLock::new(SyntaxSet::load_defaults_newlines);

/// What has a colour, by the beginning of its scope, and the class that the style sheet knows.
static KINDS: LazyLock<Vec<(Scope, &str)>> = LazyLock::new(|| {
    let kinds = [
        ("comment", "c"),
        ("string", "s"),
        ("constant", "n"),
        ("keyword", "k"),
        ("storage", "k"),
        ("entity.name", "f"),
        ("support", "f"),
    ];
    kinds.map(|(scope, class)| (Scope::new(scope).expect("a scope's name"), class)).into()
});

/// Code as HTML, whose colours the style sheet chooses; names that have an address become links.
pub fn highlight(source: &str, language: &str, names: &Names) -> String {
    let syntax = SYNTAXES.find_syntax_by_token(language);
    syntax
        .and_then(|syntax| parts(source, syntax))
        .map_or_else(|| escape(source), |parts| html(&parts, names))
}

/// Code, to which the site's script adds a button that copies it. A cell's may have a label; code in prose is `quoted`.
pub fn block(kind: &str, label: &str, highlighted: &str) -> String {
    let label = if label.is_empty() { String::new() } else { format!("<p class=\"label\">{label}</p>") };
    format!("<div class=\"{kind}\">{label}<pre tabindex=\"0\"><code>{highlighted}</code></pre></div>\n")
}

/// The text in pieces of one colour each.
fn parts(source: &str, syntax: &SyntaxReference) -> Option<Vec<(&'static str, String)>> {
    let (mut state, mut stack) = (ParseState::new(syntax), ScopeStack::new());
    let mut parts: Vec<(&str, String)> = Vec::new();
    let source = format!("{source}\n");
    for line in LinesWithEndings::from(&source) {
        let ops = state.parse_line(line, &SYNTAXES).ok()?;
        for (text, op) in ScopeRegionIterator::new(&ops, line) {
            stack.apply(op).ok()?;
            let class =
                if text.trim().is_empty() { parts.last().map_or("", |last| last.0) } else { class(&stack) };
            match parts.last_mut() {
                Some((last, all)) if *last == class => all.push_str(text),
                _ => parts.push((class, text.to_owned())),
            }
        }
    }
    // The line's end that the parser wanted.
    if let Some((_, last)) = parts.last_mut() {
        last.truncate(last.trim_end().len());
    }
    Some(parts)
}

/// The class of what stands in these scopes: the outermost counts, so that a comment is a comment throughout.
fn class(stack: &ScopeStack) -> &'static str {
    let kind =
        |scope: &Scope| KINDS.iter().find(|(kind, _)| kind.is_prefix_of(*scope)).map(|(_, class)| *class);
    stack.scopes.iter().find_map(kind).unwrap_or("")
}

fn html(parts: &[(&str, String)], names: &Names) -> String {
    let whole: String = parts.iter().map(|(_, text)| text.as_str()).collect();
    let (mut html, mut at, mut seen) = (String::new(), 0, BTreeSet::new());
    for (class, text) in parts {
        let inside = match *class {
            "c" | "s" | "n" => escape(text),
            _ => linked(&whole, at..at + text.len(), names, &mut seen),
        };
        at += text.len();
        html += &if class.is_empty() { inside } else { format!("<i class={class}>{inside}</i>") };
    }
    html
}

/// A part of the code in which names lead to their documentation, each where it first occurs.
fn linked<'a>(whole: &'a str, part: Range<usize>, names: &Names, seen: &mut BTreeSet<&'a str>) -> String {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let (mut html, mut at) = (String::new(), part.start);
    while let Some(first) = whole[at..part.end].chars().next() {
        let length = whole[at..part.end].find(|c| is_name(c) != is_name(first)).unwrap_or(part.end - at);
        let piece = &whole[at..at + length];
        let address = names
            .get(piece)
            .filter(|_| is_use(&whole[..at], piece, &whole[at + length..]) && seen.insert(piece));
        html += &match address {
            Some(address) => format!("<a href=\"{}\">{}</a>", escape(address), escape(piece)),
            None => escape(piece),
        };
        at += length;
    }
    html
}

/// Does this name stand for an item? Methods, fields and variables may have the name of a function of the crate.
fn is_use(before: &str, name: &str, after: &str) -> bool {
    let is_method = before.ends_with('.') && !before.ends_with("..");
    let is_type = name.starts_with(char::is_uppercase);
    let is_called = after.starts_with(['(', '!']) || after.starts_with("::<");
    // `use minai::plot::plot;` names a module first.
    let is_module = after.starts_with("::") && !is_called;
    let is_imported =
        before.rsplit([';', '\n']).next().is_some_and(|line| line.trim_start().starts_with("use "));
    !is_method && (is_type || is_called || is_imported && !is_module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_and_comments_are_marked() {
        let html = highlight("let a = \"<b>\"; // c", "rust", &Names::new());
        assert!(html.contains("&lt;b&gt;") && html.contains("<i class=c>// c"), "{html}");
        let mut text = html.replace("</i>", "");
        for (_, class) in KINDS.iter() {
            text = text.replace(&format!("<i class={class}>"), "");
        }
        assert_eq!(text, escape("let a = \"<b>\"; // c"));
    }

    #[test]
    fn other_languages_have_their_own_colours_or_none() {
        assert_eq!(highlight("a # b", "sh", &Names::new()), "a <i class=c># b</i>");
        assert_eq!(highlight("a < # b", "no such language", &Names::new()), "a &lt; # b");
    }

    #[test]
    fn names_lead_to_their_documentation_where_they_stand_for_the_item() {
        let names = Names::from([("relu".into(), "r.html".into()), ("Tensor".into(), "T.html".into())]);
        let links = |code: &str| highlight(code, "rust", &names).matches("<a href=").count();
        assert_eq!(links("use minai::a::{Tensor, relu};"), 2);
        assert_eq!(links("use minai::relu::Relu;"), 0);
        assert_eq!(links("let relu = relu(&Tensor::ones(&[1]));"), 2);
        assert_eq!(links("x.relu() // relu(x)"), 0);
    }
}
