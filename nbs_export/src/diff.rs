//! Differences as people read them.

use similar::TextDiff;

/// A unified diff. Very long lines (pictures in a notebook) are cut.
pub fn unified(name: &str, old: &str, new: &str) -> String {
    let diff = TextDiff::from_lines(old, new);
    let text =
        diff.unified_diff().context_radius(2).header(&format!("a/{name}"), &format!("b/{name}")).to_string();
    text.lines().map(shorten).collect::<Vec<_>>().join("\n")
}

const LONGEST: usize = 160;

fn shorten(line: &str) -> String {
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}… ({} characters)", &line[..end], line.chars().count()),
        None => line.to_owned(),
    }
}
