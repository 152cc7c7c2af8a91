//! What the course's kernel reports of a cell: it calls every failure an error, and names cell and line.

use super::cells::{Failure, Planned};
use super::outputs::Outputs;

/// The failure that the kernel reports, if that is not what the cell should do.
pub fn failure(cell: &Planned, outputs: &Outputs, done: &[Planned]) -> Option<Failure> {
    let (name, message, report) = outputs.error()?;
    if name == "Panic" && cell.directives.should_panic() {
        return None;
    }
    let reason = match name.as_str() {
        "Panic" => "it panicked",
        "Error" if report.contains("What this cell defined is not kept") => "a `?` met an error",
        "Error" => "the kernel reports an error",
        "KernelError" => "the kernel died",
        "Interrupted" => "it was interrupted",
        "NoInput" => "it reads from standard input, which nobody can answer here",
        _ => "it ended the process that runs the cells",
    };
    let (number, line) = place(&message).or_else(|| place(&report)).unwrap_or_default();
    let other = number.and_then(|n| done.get(n.checked_sub(1)?)).filter(|c| c.index != cell.index);
    let label = match other {
        Some(other) => format!("{} (called from {})", other.label, cell.label),
        None => cell.label.clone(),
    };
    let text = |n: usize| other.unwrap_or(cell).source.lines().nth(n - 1).unwrap_or_default().to_owned();
    let line = line.filter(|&n| n > 0).map(|n| (n, text(n)));
    Some(Failure {
        cell: label,
        line,
        reason: reason.into(),
        details: report + "\n" + &outputs.text("stderr"),
    })
}

/// Number and line in `cell [3], line 7`, or only the line, wherever it stands first.
fn place(text: &str) -> Option<(Option<usize>, Option<usize>)> {
    let (before, after) = text.split_once("line ")?;
    let line = digits(after);
    let cell = before.strip_suffix(", ").and_then(|b| b.strip_suffix(']')).and_then(|b| b.rsplit_once('['));
    line.map(|line| (cell.and_then(|(_, n)| n.parse().ok()), Some(line)))
}

fn digits(text: &str) -> Option<usize> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(place("boom (line 3)"), Some((None, Some(3))));
        assert_eq!(place("boom (cell [12], line 3)"), Some((Some(12), Some(3))));
        assert_eq!(place("--> line 2, column 5"), Some((None, Some(2))));
        assert_eq!(place("no place"), None);
    }
}
