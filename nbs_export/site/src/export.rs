//! The whole site.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result};
use nbs_export::notebook::Notebook;
use nbs_export::workspace::Workspace;

use crate::api::{self, Api, Names};
use crate::course::{self, Row};
use crate::frame::{Entry, Frame};
use crate::lesson::{self, Lesson};
use crate::markdown::{self, escape};
use crate::picture;
use crate::search::Index;

/// Files beside the pages, by their path.
#[derive(Debug, Default)]
pub struct Files {
    pub all: BTreeMap<String, Vec<u8>>,
}

impl Files {
    /// Puts a picture among them, and gives its path.
    pub fn add(&mut self, name: &str, bytes: Vec<u8>) -> String {
        let path = format!("pictures/{name}");
        self.all.insert(path.clone(), bytes);
        path
    }
}

/// Everything that the site is made of.
pub struct Site {
    notebooks: Vec<Notebook>,
    setup: String,
    glossary: String,
    rows: BTreeMap<String, Row>,
    images: Vec<(String, Vec<u8>)>,
    /// The documentation, if there is one.
    api: Option<Api>,
    /// The folder into which rustdoc has written it.
    documentation: Option<PathBuf>,
    repository: String,
}

impl Site {
    /// `documentation` is the folder into which rustdoc has written.
    pub fn new(workspace: &Workspace, documentation: Option<PathBuf>) -> Result<Self> {
        let root = &workspace.root;
        let read = |path: &str| fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
        let readme = read("README.md")?;
        let mut images = Vec::new();
        for entry in fs::read_dir(root.join("notebooks/images"))? {
            let path = entry?.path();
            if path.extension().is_some_and(|ending| ending == "png" || ending == "svg") {
                images.push((
                    path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                    fs::read(&path)?,
                ));
            }
        }
        let notebooks = workspace
            .notebook_paths()?
            .iter()
            .map(|path| Notebook::load(path))
            .collect::<Result<Vec<_>>>()?;
        Ok(Site {
            notebooks: notebooks.into_iter().filter(Notebook::is_rust).collect(),
            rows: course::rows(&readme),
            glossary: read("notebooks/GLOSSARY.md")?,
            images,
            api: documentation
                .as_deref()
                .map(|folder| Api::read(folder, &read("minai/src/prelude.rs")?))
                .transpose()?,
            documentation,
            repository: format!("{}/blob/main/", env!("CARGO_PKG_REPOSITORY")),
            setup: course::without_lessons(&readme),
        })
    }

    /// Where a link in a notebook or in the README leads on the site.
    fn link(&self, to: &str) -> String {
        let (file, anchor) =
            to.split_once('#').map_or((to, String::new()), |(file, anchor)| (file, format!("#{anchor}")));
        let inside = file.trim_start_matches("../").trim_start_matches("notebooks/");
        if to.contains("://") || to.starts_with('#') || to.starts_with("mailto:") {
            return to.to_owned();
        }
        match inside {
            "README.md" => format!("setup.html{anchor}"),
            "GLOSSARY.md" => format!("glossary.html{anchor}"),
            page if page.ends_with(".ipynb") => format!("{}.html{anchor}", page.trim_end_matches(".ipynb")),
            image if image.starts_with("images/") => image.to_owned(),
            other => {
                let at_root = file.starts_with("../") || !file.starts_with("peers/");
                format!("{}{}{other}{anchor}", self.repository, if at_root { "" } else { "notebooks/" })
            }
        }
    }

    /// Writes all files, and gives the number of pages. What was in the folder goes.
    pub fn write(&self, out: &Path) -> Result<usize> {
        if out.exists() {
            fs::remove_dir_all(out).with_context(|| format!("{} could not be replaced", out.display()))?;
        }
        let link = |to: &str| self.link(to);
        let (mut index, mut pages) = (Index::default(), BTreeMap::new());
        let (lessons, files): (Vec<Lesson>, Vec<Files>) = self.lessons().into_iter().unzip();
        let lessons: Vec<(&Notebook, Lesson)> = self.notebooks.iter().zip(lessons).collect();
        let entries: Vec<Entry> = lessons
            .iter()
            .map(|(notebook, lesson)| {
                let (name, title) = (notebook.name(), lesson.title.clone());
                let row = self.rows.get(&name).cloned().unwrap_or_default();
                Entry { title: if title.is_empty() { name.clone() } else { title }, name, row }
            })
            .collect();
        let every = course::attributions("MNIST Fashion emoji");
        let about = "Learn deep learning from nothing up to Stable Diffusion, in Rust, in notebooks that you run, change and look at.";
        let frame = Frame {
            title: "minai: deep learning from nothing, in Rust",
            description: about,
            entries: &entries,
            lesson: None,
            sections: &[],
            attributions: &every,
            with_api: self.api.is_some(),
            is_front: false,
        };
        for ((notebook, lesson), entry) in lessons.iter().zip(&entries) {
            let attributions =
                course::attributions(&notebook.cells().map(|cell| cell.source()).collect::<String>());
            let description: String = lesson.summary.trim().chars().take(160).collect();
            let title = format!("{} · minai", entry.title);
            let (title, description) = (title.as_str(), description.as_str());
            let (attributions, sections) = (attributions.as_slice(), lesson.headings.as_slice());
            let frame =
                Frame { title, description, lesson: Some(&entry.name), attributions, sections, ..frame };
            pages.insert(
                format!("{}.html", entry.name),
                frame.page(&(facts(entry) + &self.sized(&lesson.html))),
            );
            index.add(&entry.name, &entry.title, &lesson.passages);
        }
        for (name, title, text) in
            [("glossary", "Glossary", &self.glossary), ("setup", "Set up and use", &self.setup)]
        {
            let prose = markdown::render(text, &link, &Names::new());
            let titles = prose.headings.iter().map(|heading| (heading.id.clone(), heading.text.clone()));
            let passages: Vec<_> = titles
                .zip(prose.texts.iter().skip(1))
                .map(|((id, heading), text)| (id, heading, text.clone()))
                .collect();
            index.add(name, title, &passages);
            let full = format!("{title} · minai");
            let frame = Frame { title: &full, description: title, ..frame };
            pages.insert(format!("{name}.html"), frame.page(&self.sized(&prose.html)));
        }
        pages.insert("index.html".into(), Frame { is_front: true, ..frame }.page(&front(&entries, &link)));

        fs::create_dir_all(out.join("pictures"))?;
        fs::create_dir_all(out.join("images"))?;
        pages.iter().try_for_each(|(name, page)| fs::write(out.join(name), page))?;
        files
            .iter()
            .flat_map(|files| &files.all)
            .try_for_each(|(path, bytes)| fs::write(out.join(path), bytes))?;
        self.images.iter().try_for_each(|(name, bytes)| fs::write(out.join("images").join(name), bytes))?;
        fs::write(out.join("search-index.js"), index.script())?;
        fs::write(out.join("style.css"), include_str!("../assets/style.css"))?;
        fs::write(out.join("site.js"), include_str!("../assets/site.js"))?;
        fs::write(out.join("math.woff2"), include_bytes!("../assets/math.woff2"))?;
        fs::write(out.join("icon.svg"), include_str!("../../src/kernel/logo-svg.svg"))?;
        if let Some(documentation) = &self.documentation {
            let api = out.join("api");
            fs::rename(documentation, &api).context("the documentation could not be put beside the pages")?;
            api::link_back(&api, &self.modules(&entries), &self.repository)?;
        }
        Ok(pages.len())
    }

    /// A page whose tags say how large the pictures of `notebooks/images` are.
    fn sized(&self, html: &str) -> String {
        self.images.iter().fold(html.to_owned(), |html, (name, bytes)| {
            let tag = format!("<img src=\"images/{name}\"");
            html.replace(&tag, &format!("{tag}{}", picture::missing_size("", bytes)))
        })
    }

    /// All lessons with their pictures, by as many threads as there are cores: colours of code take time.
    fn lessons(&self) -> Vec<(Lesson, Files)> {
        let api = self.api.clone().unwrap_or_default();
        let render = |notebook: &Notebook| {
            let mut files = Files::default();
            let lesson = lesson::render(notebook, &|to: &str| self.link(to), &api, &mut files);
            (lesson, files)
        };
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let (notebooks, render) = (&self.notebooks, &render);
        thread::scope(|scope| {
            let part =
                |first| move || notebooks.iter().skip(first).step_by(threads).map(render).collect::<Vec<_>>();
            let workers: Vec<_> = (0..threads).map(|first| scope.spawn(part(first))).collect();
            let parts = workers.into_iter().map(|worker| worker.join().expect("a page without a panic"));
            let mut parts: Vec<_> = parts.map(Vec::into_iter).collect();
            (0..notebooks.len()).filter_map(|at| parts[at % threads].next()).collect()
        })
    }

    /// The notebook and the title of the lesson that builds each module.
    fn modules(&self, entries: &[Entry]) -> BTreeMap<String, (String, String)> {
        let mut modules = BTreeMap::new();
        for (notebook, entry) in self.notebooks.iter().zip(entries) {
            let marks: Vec<_> = notebook.code_cells().filter_map(|cell| cell.directives().ok()).collect();
            let default = marks.iter().find_map(|marks| marks.default_exp());
            for module in marks.iter().filter_map(|marks| marks.export()?.or(default.clone())) {
                modules.insert(module, (entry.name.clone(), format!("lesson {}", entry.title)));
            }
        }
        modules
    }
}

/// What a lesson costs, and where to run it.
fn facts(entry: &Entry) -> String {
    let (name, row) = (&entry.name, &entry.row);
    let repository = env!("CARGO_PKG_REPOSITORY");
    let path = repository.trim_start_matches("https://github.com/");
    let mut facts: Vec<String> = [("Time", &row.time), ("Memory", &row.memory)]
        .iter()
        .filter(|(_, text)| !text.is_empty())
        .map(|(what, text)| format!("{what}: {}", escape(text)))
        .collect();
    facts.push(format!("<a href=\"{repository}/blob/main/notebooks/{name}.ipynb\">Notebook</a>"));
    facts.push(format!(
        "Run it: <a href=\"setup.html\">on your machine</a>, in \
         <a href=\"https://codespaces.new/{path}?quickstart=1\">Codespaces</a>, on \
         <a href=\"https://mybinder.org/v2/gh/{path}/main?urlpath=lab/tree/notebooks/{name}.ipynb\">Binder</a>"
    ));
    format!("<p class=\"facts\">{}</p>\n", facts.join(" · "))
}

/// A text that begins with a capital letter.
fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or(String::new(), |first| first.to_uppercase().chain(rest).collect())
}

/// The first page: what the course is, what its models draw, and all lessons.
fn front(entries: &[Entry], link: &markdown::Links) -> String {
    let mut html = String::from(
        "<h1>Deep learning from nothing up to Stable Diffusion, in Rust</h1>\n\
         <p class=\"lead\">A course in notebooks that you run, change and look at. You begin with a handwritten digit, build \
         tensors, gradients, networks and samplers yourself, and train diffusion models on your laptop. With each lesson a \
         real crate grows, <code>minai</code>, which also opens the published weights of Stable Diffusion.</p>\n\
         <a class=\"strip\" href=\"36_your_own_stable_diffusion.html\"><img src=\"images/strip.png\" width=\"1000\" height=\"312\" \
         alt=\"Three rows of drawn pictures: the digits from 0 to 9; ten kinds of clothes, from shirt to boot; and ten \
         emoji of people and hands.\"></a>\n\
         <p class=\"note\">Drawn by networks that the course trains on two cores: digits and clothes in twenty minutes each, emoji \
         in an hour and a half, from names that the network has never seen together.</p>\n\
         <p class=\"begin\"><a class=\"button\" href=\"01_foundations.html\">Begin with lesson 1</a> \
         <a href=\"00_stable_diffusion.html\">See where it leads</a> <a href=\"setup.html\">Set it up</a></p>\n",
    );
    let parts: Vec<&str> = entries.iter().map(|entry| course::part(&entry.name)).collect();
    let mut seen = BTreeSet::new();
    for part in parts.iter().filter(|part| seen.insert(**part)) {
        html += &format!("<h2 id=\"{}\">{part}</h2>\n<ul class=\"contents\">\n", markdown::anchor(part));
        for entry in entries.iter().filter(|entry| course::part(&entry.name) == *part) {
            let builds = markdown::render(&capital(&entry.row.builds), link, &Names::new()).html;
            let (name, title) = (&entry.name, escape(&entry.title));
            let cost: Vec<&str> =
                [&*entry.row.time, &*entry.row.memory].into_iter().filter(|text| !text.is_empty()).collect();
            html += &format!(
                "<li><a href=\"{name}.html\">{title}</a> <small>{}</small>{builds}</li>\n",
                escape(&cost.join(", "))
            );
        }
        html += "</ul>\n";
    }
    html
}

/// The bytes of all files in a folder, but for those in the folders named.
pub fn size(folder: &Path, without: &[&str]) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        bytes += match entry.file_type()?.is_dir() {
            true if without.iter().any(|other| name == *other) => 0,
            true => size(&entry.path(), &[])?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}
