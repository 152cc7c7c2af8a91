//! Rust with colours.

use std::sync::LazyLock;

use syntect::easy::ScopeRegionIterator;
use syntect::parsing::{ParseState, Scope, ScopeStack, SyntaxSet};
use syntect::util::LinesWithEndings;

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

/// Rust as HTML, whose colours the style sheet chooses.
pub fn highlight(source: &str) -> String {
    parts(source).map_or_else(|| escape(source), |parts| html(&parts))
}

/// The text in pieces of one colour each.
fn parts(source: &str) -> Option<Vec<(&str, String)>> {
    let rust = SYNTAXES.find_syntax_by_extension("rs")?;
    let (mut state, mut stack) = (ParseState::new(rust), ScopeStack::new());
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
    Some(parts)
}

/// The class of what stands in these scopes: the outermost counts, so that a comment is a comment throughout.
fn class(stack: &ScopeStack) -> &'static str {
    let kind =
        |scope: &Scope| KINDS.iter().find(|(kind, _)| kind.is_prefix_of(*scope)).map(|(_, class)| *class);
    stack.scopes.iter().find_map(kind).unwrap_or("")
}

fn html(parts: &[(&str, String)]) -> String {
    let html: String = parts
        .iter()
        .map(|(class, text)| match *class {
            "" => escape(text),
            class => format!("<i class={class}>{}</i>", escape(text)),
        })
        .collect();
    html.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_and_comments_are_marked() {
        let html = highlight("let a = \"<b>\"; // c");
        assert!(html.contains("&lt;b&gt;") && html.contains("<i class=c>// c"), "{html}");
        let mut text = html.replace("</i>", "");
        for (_, class) in KINDS.iter() {
            text = text.replace(&format!("<i class={class}>"), "");
        }
        assert_eq!(text, escape("let a = \"<b>\"; // c"));
    }
}
