//! What the README's table says of each lesson, and the parts of the course.

use std::collections::BTreeMap;

/// A row of the README's table of lessons.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// What the reader builds, in Markdown.
    pub builds: String,
    /// The modules, in Markdown.
    pub exports: String,
    pub time: String,
    pub memory: String,
}

/// The rows by notebook.
pub fn rows(readme: &str) -> BTreeMap<String, Row> {
    let lines = readme.lines().filter(|line| line.starts_with("| [") && line.contains("](notebooks/"));
    lines.filter_map(row).collect()
}

fn row(line: &str) -> Option<(String, Row)> {
    let cells: Vec<&str> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
    let &[name, builds, exports, time, memory] = cells.as_slice() else { return None };
    let (_, rest) = name.split_once("](notebooks/")?;
    let (name, _) = rest.split_once(".ipynb)")?;
    let [builds, exports, time, memory] = [builds, exports, time, memory].map(str::to_owned);
    Some((name.to_owned(), Row { builds, exports, time, memory }))
}

/// The README without its beginning and its list of lessons, which the first page has.
pub fn without_lessons(readme: &str) -> String {
    let sections = readme.split("\n## ").skip(1).filter(|section| !section.starts_with("Lessons\n"));
    sections.fold(String::from("# Set up and use\n"), |text, section| text + "\n## " + section)
}

/// The part of the course to which a lesson belongs.
pub fn part(name: &str) -> &'static str {
    match name.get(..2).and_then(|number| number.parse().ok()).unwrap_or(0) {
        0_u8 => "The destination",
        1..=6 => "From nothing to a trained network",
        7..=15 => "Networks that see",
        16..=29 => "Diffusion, trained here",
        30..=39 => "Stable Diffusion",
        _ => "Appendix",
    }
}

/// Attributions of what pictures show, for the foot of a page.
pub fn attributions(text: &str) -> Vec<&'static str> {
    const MNIST: &str = "MNIST: © Yann LeCun and Corinna Cortes, <a href=\"https://creativecommons.org/licenses/by-sa/3.0/\">CC BY-SA 3.0</a>";
    const FASHION: &str = "Fashion-MNIST: © 2017 Zalando SE, MIT";
    const TWEMOJI: &str = "Twemoji: © Twitter, Inc. and other contributors, <a href=\"https://creativecommons.org/licenses/by/4.0/\">CC BY 4.0</a>";
    let fashion = text.contains("Fashion") || text.contains("fashion");
    let mnist = text.replace("Fashion-MNIST", "").contains("MNIST") || text.contains("mnist()");
    [(mnist, MNIST), (fashion, FASHION), (text.contains("emoji"), TWEMOJI)]
        .into_iter()
        .filter_map(|(shown, text)| shown.then_some(text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read() {
        let line =
            "| [08_convolutions](notebooks/08_convolutions.ipynb) | kernels | `conv` | 2 min | 360 MB |";
        let found = rows(line);
        let row = &found["08_convolutions"];
        assert_eq!(
            (row.exports.as_str(), row.time.as_str(), row.memory.as_str()),
            ("`conv`", "2 min", "360 MB")
        );
    }

    #[test]
    fn the_list_of_lessons_stands_on_the_first_page() {
        let readme = "# minai\n\nintro\n\n## Start\n\na\n\n## Lessons\n\nb\n\n### More\n\n## Use\n\nc\n";
        assert_eq!(without_lessons(readme), "# Set up and use\n\n## Start\n\na\n\n## Use\n\nc\n");
    }

    #[test]
    fn pictures_of_clothes_are_not_pictures_of_digits() {
        assert_eq!(attributions("Fashion-MNIST").len(), 1);
        assert_eq!(attributions("MNIST and Fashion-MNIST").len(), 2);
        assert_eq!(attributions("nothing").len(), 0);
    }
}
