//! Prose: Markdown with mathematics to HTML.

use std::borrow::Cow;
use std::sync::LazyLock;

use math_core::{LatexToMathML, MathCoreConfig, MathDisplay};
use pulldown_cmark::{CodeBlockKind, CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd, html};

use crate::api::Names;
use crate::code;

/// Where a link leads on the site: from a link's target, as Jupyter understands it.
pub type Links<'a> = dyn Fn(&str) -> String + 'a;

/// A heading of a page.
#[derive(Clone, Debug, PartialEq)]
pub struct Heading {
    pub level: HeadingLevel,
    pub id: String,
    pub text: String,
}

/// Prose as HTML, and what can be linked to and found in it.
#[derive(Debug, Default)]
pub struct Prose {
    pub html: String,
    pub headings: Vec<Heading>,
    /// The text below each heading, and first that above any: plain.
    pub texts: Vec<String>,
}

/// Renders Markdown. `names` has an address for names of code that have one.
pub fn render(text: &str, links: &Links, names: &Names) -> Prose {
    let options = Options::ENABLE_TABLES | Options::ENABLE_MATH | Options::ENABLE_STRIKETHROUGH;
    let events: Vec<Event> = Parser::new_ext(text, options).collect();
    let mut prose = Prose { texts: vec![String::new()], ..Prose::default() };
    let mut out: Vec<Event> = Vec::with_capacity(events.len());
    let (mut in_link, mut fence) = (0, None);
    for (i, event) in events.iter().enumerate() {
        if let Some(text) = read_aloud(event) {
            prose.texts.last_mut().expect("never empty").push_str(&text);
        } else if matches!(
            event,
            Event::SoftBreak | Event::End(TagEnd::Paragraph | TagEnd::Item | TagEnd::TableCell)
        ) {
            prose.texts.last_mut().expect("never empty").push(' ');
        }
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                let text = plain(&events[i + 1..]);
                let id = anchor(&text);
                out.push(Event::Html(format!("<{level} id=\"{}\">", escape(&id)).into()));
                prose.headings.push(Heading { level: *level, id, text });
                prose.texts.push(String::new());
            }
            Event::End(TagEnd::Heading(level)) => {
                let id = &prose.headings.last().expect("it was begun").id;
                let sign = format!(
                    " <a class=\"anchor\" href=\"#{}\" aria-label=\"Link to this section\">§</a></{level}>\n",
                    escape(id)
                );
                out.push(Event::Html(sign.into()));
            }
            Event::InlineMath(source) => out.push(Event::Html(math(source, MathDisplay::Inline).into())),
            Event::DisplayMath(source) => out.push(Event::Html(math(source, MathDisplay::Block).into())),
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                in_link += 1;
                let dest_url = CowStr::from(links(dest_url));
                out.push(Event::Start(Tag::Link {
                    link_type: *link_type,
                    dest_url,
                    title: title.clone(),
                    id: id.clone(),
                }));
            }
            Event::End(TagEnd::Link) => {
                in_link -= 1;
                out.push(event.clone());
            }
            Event::Start(Tag::Image { link_type, dest_url, title, id }) => {
                let dest_url = CowStr::from(links(dest_url));
                out.push(Event::Start(Tag::Image {
                    link_type: *link_type,
                    dest_url,
                    title: title.clone(),
                    id: id.clone(),
                }));
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(words) => words.split([',', ' ']).next().unwrap_or_default(),
                    CodeBlockKind::Indented => "",
                };
                fence = Some((language.to_owned(), String::new()));
            }
            Event::Text(text) if fence.is_some() => {
                fence.iter_mut().for_each(|(_, code)| code.push_str(text))
            }
            Event::End(TagEnd::CodeBlock) => {
                let (language, source) = fence.take().unwrap_or_default();
                let text = code::highlight(source.trim_end(), &language, names);
                out.push(Event::Html(code::block("code quoted", "", &text).into()));
            }
            Event::Code(name) if in_link == 0 && names.contains_key(&**name) => {
                let address = escape(&names[&**name]);
                out.push(Event::Html(
                    format!("<a href=\"{address}\"><code>{}</code></a>", escape(name)).into(),
                ));
            }
            // A table may be wider than a telephone.
            Event::Start(Tag::Table(_)) => {
                out.push(Event::Html("<div class=\"wide\" tabindex=\"0\">".into()));
                out.push(event.clone());
            }
            Event::End(TagEnd::Table) => {
                out.push(event.clone());
                out.push(Event::Html("</div>\n".into()));
            }
            _ => out.push(event.clone()),
        }
    }
    html::push_html(&mut prose.html, out.into_iter());
    prose
}

/// The text of a heading whose events begin here.
fn plain(events: &[Event]) -> String {
    let inside = events.iter().take_while(|event| !matches!(event, Event::End(TagEnd::Heading(_))));
    inside
        .filter_map(|event| match event {
            Event::Text(text) | Event::Code(text) | Event::InlineMath(text) => Some(&**text),
            _ => None,
        })
        .collect()
}

/// Text as the search shows it: a formula without what LaTeX needs.
fn read_aloud<'a>(event: &'a Event) -> Option<Cow<'a, str>> {
    match event {
        Event::Text(text) | Event::Code(text) => Some(Cow::Borrowed(text)),
        Event::InlineMath(formula) => {
            let mut text = formula.replace("\\operatorname", "").replace("\\text", "").replace("\\frac", "");
            for space in ["\\,", "\\;", "\\!", "\\ ", "\\left", "\\right", "\\quad", "\\qquad"] {
                text = text.replace(space, " ");
            }
            Some(Cow::Owned(text.replace(['\\', '{', '}'], "")))
        }
        _ => None,
    }
}

/// A heading's anchor, as Jupyter makes it.
pub fn anchor(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join("-")
}

static LATEX: LazyLock<LatexToMathML> =
    LazyLock::new(|| LatexToMathML::new(MathCoreConfig::default()).expect("no macros, so none is wrong"));

/// LaTeX as MathML, which browsers show without a script.
fn math(source: &str, display: MathDisplay) -> String {
    let Ok(result) = LATEX.convert_with_local_state(source, display) else {
        return format!("<code class=\"broken-math\">{}</code>", escape(source));
    };
    let html = result.mathml;
    match display {
        MathDisplay::Block => format!("<div class=\"math\" tabindex=\"0\">{html}</div>"),
        // Long ones must not be wider than a telephone.
        MathDisplay::Inline if source.len() > 40 => {
            format!("<span class=\"math\" tabindex=\"0\">{html}</span>")
        }
        MathDisplay::Inline => html,
    }
}

/// Text inside HTML, also in an attribute's quotes.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(text: &str) -> String {
        render(
            text,
            &|to: &str| to.replace(".ipynb", ".html"),
            &Names::from([("relu".into(), "api/relu.html".into())]),
        )
        .html
    }

    #[test]
    fn links_lead_to_pages_and_names_to_documentation() {
        let found = html("See [lesson 2](02_matmul.ipynb#Tiles) and `relu`, [`relu`](x.html).");
        assert!(found.contains("href=\"02_matmul.html#Tiles\""), "{found}");
        assert!(found.contains("<a href=\"api/relu.html\"><code>relu</code></a>"), "{found}");
        assert!(found.contains("<a href=\"x.html\"><code>relu</code></a>"), "{found}");
    }

    #[test]
    fn mathematics_becomes_mathml_and_headings_can_be_linked_to() {
        let found = html("## What is $x$?\n\n$$x_0 + \\sigma n$$");
        assert!(found.contains("id=\"What-is-x?\"") && found.matches("<math").count() == 2, "{found}");
        assert!(!found.contains("broken-math"), "{found}");
        assert!(html("$\\nosuchcommand{x}$").contains("broken-math"));
    }

    #[test]
    fn text_below_a_heading_can_be_found() {
        let prose = render("one\n\n# Two\n\nthree `four`", &|to: &str| to.to_owned(), &Names::new());
        assert_eq!(prose.headings[0].text, "Two");
        assert!(prose.texts[1].contains("three four"), "{:?}", prose.texts);
    }
}
