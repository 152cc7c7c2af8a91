//! What all pages have around their content.

use pulldown_cmark::HeadingLevel;

use crate::course::{Row, part};
use crate::markdown::{Heading, escape};

/// A lesson in the list of all.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The notebook's name, which is the page's without ending.
    pub name: String,
    pub title: String,
    pub row: Row,
}

/// A page with its head, the list of lessons, and its foot.
#[derive(Clone, Copy)]
pub struct Frame<'a> {
    pub title: &'a str,
    pub description: &'a str,
    pub entries: &'a [Entry],
    /// The name of the page's lesson, if it is one.
    pub lesson: Option<&'a str>,
    /// The lesson's headings.
    pub sections: &'a [Heading],
    pub attributions: &'a [&'static str],
    pub with_api: bool,
    /// The first page, which has a list of lessons of its own.
    pub is_front: bool,
}

impl Frame<'_> {
    pub fn page(&self, content: &str) -> String {
        let (title, description) = (escape(self.title), escape(self.description));
        let api = if self.with_api { "<a href=\"api/minai/index.html\">Crate</a>" } else { "" };
        let mut attributions: String =
            self.attributions.iter().map(|text| format!("<p>{text}</p>\n")).collect();
        if content.contains("<math") {
            attributions += "<p>Formulas: a part of TeX Gyre Pagella Math, by B. Jackowski, P. Strzelczyk and P. Pianowski, \
                <a href=\"https://tug.org/fonts/licenses/GUST-FONT-LICENSE.txt\">GUST Font License</a></p>\n";
        }
        format!(
            r##"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="description" content="{description}">
<title>{title}</title>
<link rel="icon" href="icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="style.css">
<script src="site.js" defer></script>
</head>
<body>
<a class="skip" href="#content">To the content</a>
<header>
<a class="home" href="index.html">minai</a>
<nav aria-label="Site"><a href="setup.html">Set up</a><a href="glossary.html">Glossary</a>{api}</nav>
<form id="search" role="search" action="index.html"><label for="query" class="unseen">Search the course</label><input id="query" name="q" type="search" placeholder="Search" autocomplete="off"></form>
<button id="theme" type="button" aria-label="Light or dark" hidden>◐</button>
</header>
<div id="found" role="region" aria-label="What was found" aria-live="polite" hidden></div>
<div class="columns{front}">
<details class="lessons" {open}><summary>Lessons</summary>
<nav aria-label="Lessons">
{list}</nav>
</details>
<main id="content">
{content}
{around}</main>
</div>
<footer>
<p>minai, by the minai authors. Code: MIT or Apache 2.0.</p>
{attributions}</footer>
</body>
</html>
"##,
            open = "open",
            front = if self.is_front { " front" } else { "" },
            list = self.list(),
            around = self.around(),
        )
    }

    /// All lessons, by the parts of the course.
    fn list(&self) -> String {
        let mut list = String::new();
        let mut last = "";
        for Entry { name, title, .. } in self.entries {
            if part(name) != last {
                list +=
                    &format!("{}<p>{}</p>\n<ul>\n", if last.is_empty() { "" } else { "</ul>\n" }, part(name));
                last = part(name);
            }
            let here = if self.lesson == Some(name) { " aria-current=\"page\"" } else { "" };
            let sections = if here.is_empty() { String::new() } else { self.sections() };
            list += &format!("<li><a href=\"{name}.html\"{here}>{}</a>{sections}</li>\n", escape(title));
        }
        list + "</ul>\n"
    }

    /// The lesson's own contents.
    fn sections(&self) -> String {
        let sections = self.sections.iter().filter(|heading| heading.level == HeadingLevel::H2);
        let links: String = sections
            .map(|Heading { id, text, .. }| {
                format!("<li><a href=\"#{}\">{}</a></li>\n", escape(id), escape(text))
            })
            .collect();
        if links.is_empty() { links } else { format!("\n<ul class=\"sections\">\n{links}</ul>") }
    }

    /// The lessons before and after.
    fn around(&self) -> String {
        let Some(at) = self.entries.iter().position(|entry| Some(&*entry.name) == self.lesson) else {
            return String::new();
        };
        let link = |entry: Option<&Entry>, rel: &str, text: &str| match entry {
            Some(Entry { name, title, .. }) => {
                format!("<a rel=\"{rel}\" href=\"{name}.html\"><span>{text}</span> {}</a>", escape(title))
            }
            None => "<span></span>".into(),
        };
        let before = at.checked_sub(1).and_then(|at| self.entries.get(at));
        format!(
            "<nav class=\"around\" aria-label=\"Neighbours\">{}{}</nav>\n",
            link(before, "prev", "Before"),
            link(self.entries.get(at + 1), "next", "Next")
        )
    }
}
