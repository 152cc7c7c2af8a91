//! Where things are: the workspace, its notebooks, the crate and the tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::notebook::Notebook;

/// The name of the crate that the notebooks build.
pub const CRATE: &str = "minai";
/// The name of the package that holds the exported tests.
pub const TESTS: &str = "minai-tests";

/// A workspace: a folder with a `Cargo.toml` beside a folder `notebooks`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Its folder.
    pub root: PathBuf,
}

impl Workspace {
    /// Finds the workspace of the current folder, walking up.
    pub fn discover() -> Result<Self> {
        Self::discover_from(&std::env::current_dir().context("cannot tell the current folder")?)
    }

    /// Finds the workspace that `folder` lies in.
    pub fn discover_from(folder: &Path) -> Result<Self> {
        let is_root = |p: &&Path| p.join("Cargo.toml").is_file() && p.join("notebooks").is_dir();
        let root = folder.ancestors().find(is_root).with_context(|| {
            format!(
                "no workspace here: neither {} nor a folder above it holds a Cargo.toml beside a folder `notebooks`",
                folder.display()
            )
        })?;
        Ok(Self { root: root.to_owned() })
    }

    /// The folder of the notebooks.
    pub fn notebooks_dir(&self) -> PathBuf {
        self.root.join("notebooks")
    }

    /// The folder of the crate's exported sources.
    pub fn src_dir(&self) -> PathBuf {
        self.root.join(CRATE).join("src")
    }

    /// The folder of the tests' package.
    pub fn tests_dir(&self) -> PathBuf {
        self.root.join("tests")
    }

    /// A path relative to the workspace, with `/`, as messages and exported files show it.
    pub fn relative(&self, path: &Path) -> String {
        let path = path.strip_prefix(&self.root).unwrap_or(path);
        path.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/")
    }

    /// All notebooks, in the order of their names, except those of other languages than Rust.
    pub fn notebook_paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = self.all_notebook_paths()?;
        // One that cannot be read may be a lesson: whoever reads it says what is wrong.
        paths.retain(|path| Notebook::load(path).map_or(true, |notebook| notebook.is_rust()));
        Ok(paths)
    }

    /// The notebooks named on the command line that can be read; why the others cannot is printed. Were they all?
    pub fn readable(&self, names: &[String]) -> Result<(Vec<Notebook>, bool)> {
        let (mut notebooks, mut all) = (Vec::new(), true);
        for path in self.select(names)? {
            match Notebook::load(&path) {
                Ok(notebook) => notebooks.push(notebook),
                Err(error) => {
                    eprintln!("{error:#}");
                    all = false;
                }
            }
        }
        Ok((notebooks, all))
    }

    fn all_notebook_paths(&self) -> Result<Vec<PathBuf>> {
        let dir = self.notebooks_dir();
        let entries = std::fs::read_dir(&dir).with_context(|| format!("cannot read {}", dir.display()))?;
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
            let hidden = path.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
            if path.extension().is_some_and(|e| e == "ipynb") && !hidden {
                paths.push(path);
            }
        }
        paths.sort();
        Ok(paths)
    }

    /// The notebooks that a user names on the command line; all of them if none is named.
    ///
    /// `01_foundations`, `01_foundations.ipynb`, `notebooks/01_foundations.ipynb`, `01` and `1` all mean the same.
    pub fn select(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let all = self.notebook_paths()?;
        if names.is_empty() {
            return Ok(all);
        }
        let mut chosen = Vec::new();
        for name in names {
            let path = self.find(name, &all)?;
            if !chosen.contains(&path) {
                chosen.push(path);
            }
        }
        Ok(chosen)
    }

    /// The places of the notebooks that a user names, such as `notebooks/01_foundations.ipynb`.
    pub fn places(&self, names: &[String]) -> Result<BTreeSet<String>> {
        Ok(self.select(names)?.iter().map(|p| self.relative(p)).collect())
    }

    fn find(&self, name: &str, all: &[PathBuf]) -> Result<PathBuf> {
        let stem = |p: &Path| p.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let wanted = name.trim_end_matches(".ipynb").rsplit(['/', '\\']).next().unwrap_or(name);
        if let Some(path) = all.iter().find(|p| stem(p) == wanted) {
            return Ok(path.clone());
        }
        let number = Number::parse(wanted);
        let has_number = |p: &&PathBuf| number.is_some() && lesson_number(&stem(p)) == number;
        if let [path] = all.iter().filter(has_number).collect::<Vec<_>>().as_slice() {
            return Ok((*path).clone());
        }
        if let Some(path) = self.all_notebook_paths()?.iter().find(|p| stem(p) == wanted) {
            bail!(
                "{} is a notebook of another language than Rust, which `nbs` leaves alone",
                self.relative(path)
            );
        }
        let known: Vec<_> = all.iter().map(|p| stem(p)).collect();
        bail!("no notebook `{name}` in {}; there are: {}", self.notebooks_dir().display(), known.join(", "))
    }
}

/// The number of a lesson, or of its appendix. They are in the order in which a reader meets them: 5, 5b, 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    /// The lesson's number.
    pub lesson: u32,
    /// An appendix's letter.
    pub appendix: Option<char>,
}

impl Number {
    /// From `5`, `05` or `05b`.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
        let mut letters = text[digits.len()..].chars();
        let appendix = letters.next();
        let is_number = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
        let lesson = digits.parse().ok().filter(|_| is_number && letters.next().is_none())?;
        Some(Self { lesson, appendix })
    }
}

/// The number of a lesson: 1 for `01_foundations`, 5b for its appendix `05b_tensor_operations`, nothing for a name of
/// another form.
pub fn lesson_number(name: &str) -> Option<Number> {
    let (number, topic) = name.split_once('_')?;
    let is_long = number.bytes().filter(u8::is_ascii_digit).count() == 2;
    let word =
        !topic.is_empty() && topic.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    Number::parse(number).filter(|_| is_long && word)
}
