//! Does every link lead somewhere, does no page load anything from elsewhere, could every formula be read, and is no page
//! too heavy?

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// What a page says of itself: its anchors, its links, and what it loads.
#[derive(Default)]
struct Page {
    anchors: BTreeSet<String>,
    links: Vec<String>,
    loads: Vec<String>,
    formulas_that_failed: usize,
}

/// A page with its pictures should open quickly on a telephone.
const HEAVY: u64 = 3_000_000;

/// All that is wrong, a line each.
pub fn check(folder: &Path) -> Result<Vec<String>> {
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("html") => pages.insert(path.clone(), read(&fs::read_to_string(&path)?)),
            Some("css") => pages.insert(path.clone(), read_style(&fs::read_to_string(&path)?)),
            _ => None,
        };
    }
    let mut problems = Vec::new();
    for (path, page) in &pages {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if weight(path, page) > HEAVY {
            problems.push(format!("{name}: {:.1} MB with what it loads", weight(path, page) as f64 / 1e6));
        }
        if page.formulas_that_failed > 0 {
            problems.push(format!("{name}: {} formulas could not be read", page.formulas_that_failed));
        }
        for address in &page.loads {
            if is_elsewhere(address) {
                problems.push(format!("{name}: loads {address} from elsewhere"));
            } else if !address.starts_with("data:") && !target(path, address).0.exists() {
                problems.push(format!("{name}: {address} is not there"));
            }
        }
        for address in page.links.iter().filter(|address| !is_elsewhere(address)) {
            let (file, anchor) = target(path, address);
            let known = pages.get(&file).map(|page| &page.anchors);
            if !file.exists() {
                problems.push(format!("{name}: the link {address} leads nowhere"));
            } else if !anchor.is_empty() && known.is_some_and(|anchors| !anchors.contains(&anchor)) {
                problems.push(format!("{name}: the link {address} names a place that is not there"));
            }
        }
    }
    Ok(problems)
}

fn is_elsewhere(address: &str) -> bool {
    address.starts_with("http:") || address.starts_with("https:") || address.starts_with("//")
}

/// The file and the anchor that an address of a page means.
fn target(page: &Path, address: &str) -> (PathBuf, String) {
    let (file, anchor) = address.split_once('#').unwrap_or((address, ""));
    let file = if file.is_empty() { page.to_owned() } else { page.with_file_name("").join(plain(file)) };
    (file, plain(anchor))
}

/// An address without its escapes.
pub fn plain(address: &str) -> String {
    let address =
        address.replace("&amp;", "&").replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
    let mut bytes = Vec::new();
    let mut rest = address.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).filter(|_| first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match escaped.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => (bytes.push(byte), rest = &after[2..]).0,
            None => (bytes.push(first), rest = after).0,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The bytes of a page with all that it loads.
fn weight(path: &Path, page: &Page) -> u64 {
    let loaded: BTreeSet<PathBuf> = page.loads.iter().map(|address| target(path, address).0).collect();
    loaded.iter().chain([&path.to_owned()]).filter_map(|file| Some(fs::metadata(file).ok()?.len())).sum()
}

/// What a style sheet loads.
fn read_style(css: &str) -> Page {
    let addresses = css.split("url(").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
    Page {
        loads: addresses.map(|address| address.trim_matches(['"', '\'']).into()).collect(),
        ..Page::default()
    }
}

/// Reads the attributes of a page's tags.
fn read(html: &str) -> Page {
    let formulas_that_failed = html.matches("class=\"broken-math\"").count();
    let mut page = Page { formulas_that_failed, ..Page::default() };
    for tag in html.split('<').skip(1) {
        let tag = tag.split_once('>').map_or(tag, |(tag, _)| tag);
        let values = |name: &str| {
            tag.split(&format!(" {name}=\""))
                .skip(1)
                .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
                .collect::<Vec<_>>()
        };
        page.anchors.extend(values("id").iter().map(|id| plain(id)));
        page.loads.extend(values("src"));
        let links = values("href");
        match tag.starts_with("link ") {
            true => page.loads.extend(links),
            false => page.links.extend(links),
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_links_foreign_pictures_and_heavy_pages_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let page = |text: &str| fs::write(folder.path().join("a.html"), text).unwrap();
        page(
            "<h1 id=\"A-?\">A</h1><a href=\"#A-?\">a</a><a href=\"a.html#A-%3F\">b</a><a href=\"https://example.org\">c</a>",
        );
        assert_eq!(check(folder.path()).unwrap(), Vec::<String>::new());
        page(
            "<img alt=\"\" src=\"https://example.org/a.png\"><img src=\"b.png\"><a href=\"c.html\">c</a><a href=\"#D\">d</a>",
        );
        assert_eq!(check(folder.path()).unwrap().len(), 4);
        page("<p><code class=\"broken-math\">x</code></p>");
        assert_eq!(check(folder.path()).unwrap().len(), 1);
        fs::write(folder.path().join("large.png"), vec![0; 3_000_000]).unwrap();
        page("<img alt=\"\" src=\"large.png\">");
        assert_eq!(check(folder.path()).unwrap(), ["a.html: 3.0 MB with what it loads"]);
    }

    #[test]
    fn style_sheets_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.css"), "@font-face { src: url(\"a.woff2\"), url(https://a.b/c) }")
            .unwrap();
        assert_eq!(check(folder.path()).unwrap().len(), 2);
        fs::write(folder.path().join("a.woff2"), "").unwrap();
        assert_eq!(check(folder.path()).unwrap().len(), 1);
    }
}
