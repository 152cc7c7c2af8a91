//! Small questions about the Rust text of a cell.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// A variable that `nbs run` puts first into each cell with a `?`: the kernel keeps a cell's new variables only if the cell came
/// to its end, and nothing else tells that a `?` did not return early (its error is text on stderr, like any other).
/// Other cells go without: the first variable costs seconds, and each cell after it a little.
pub const SENTINEL: &str = "nbs_end";

/// The lines (from 0) that begin inside a string literal, so that their leading space is content.
///
/// Text that is not Rust has none.
pub fn lines_inside_literals(source: &str) -> BTreeSet<usize> {
    let mut lines = BTreeSet::new();
    // Line numbers, and what a line begins inside of, are the same when the kernel's own commands are blanked.
    if let Ok(tokens) = blank_commands(source).parse::<TokenStream>() {
        collect_literal_lines(tokens, &mut lines);
    }
    lines
}

fn collect_literal_lines(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    for token in tokens {
        match token {
            TokenTree::Group(group) if group.delimiter() != Delimiter::None => {
                collect_literal_lines(group.stream(), lines);
            }
            TokenTree::Literal(literal) => {
                let span = literal.span();
                // Doc comments arrive as literals too, but there the space at the line's start is only layout.
                let is_comment = span.source_text().is_some_and(|t| t.starts_with('/'));
                if !is_comment {
                    lines.extend(span.start().line..span.end().line);
                }
            }
            _ => {}
        }
    }
}

/// The text with the lines that only the kernel understands (`:dep …`, `!ls`) made blank.
///
/// The kernel takes such lines only before the first line of Rust.
pub fn blank_commands(source: &str) -> String {
    let end = commands_end(source);
    let blanked =
        source.lines().enumerate().map(|(i, line)| if i < end && is_command(line) { "" } else { line });
    blanked.collect::<Vec<_>>().join("\n")
}

/// How many lines stand before the first line of Rust, comments and the kernel's commands included.
pub fn commands_end(source: &str) -> usize {
    let is_head = |l: &&str| is_command(l) || l.starts_with("//") || l.trim().is_empty();
    source.lines().take_while(is_head).count()
}

/// Is this a line for the kernel, such as `:dep rand = "0.10"` or `!ls -l`?
pub fn is_command(line: &str) -> bool {
    line.starts_with('!') || line.trim_start_matches(' ').starts_with(':')
}
