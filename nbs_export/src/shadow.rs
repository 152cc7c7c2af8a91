//! A copy of the workspace in which a change can be tried before it is made.
//!
//! The copy lies in the target folder and stays there, so that cargo has to compile only what has changed. It is made of
//! links to the real files, except for those that the change touches.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::files::Change;
use crate::notebook::hex16;
use crate::workspace::Workspace;

/// What compiling does not need; links to them would only slow cargo down.
const SKIPPED: [&str; 6] = [".git", ".minai", ".venv", "node_modules", "notebooks", "target"];

/// Makes (or refreshes) the copy, with the changes applied, and returns its folder.
pub fn make(workspace: &Workspace, target: &Path, changes: &[Change]) -> Result<PathBuf> {
    // Workspaces may share a target folder.
    let key = hex16(&Sha256::digest(workspace.root.as_os_str().as_encoded_bytes()));
    let shadow = target.join("nbs").join(key);
    let mut changed: BTreeMap<PathBuf, Option<String>> = BTreeMap::new();
    for change in changes {
        let path = change.path.strip_prefix(&workspace.root).unwrap_or(&change.path);
        changed.insert(path.to_owned(), change.text.clone());
    }
    // Cargo may rewrite the lock file, and must not do so through a link.
    if let Ok(lock) = fs::read_to_string(workspace.root.join("Cargo.lock")) {
        changed.entry("Cargo.lock".into()).or_insert(Some(lock));
    }
    let mirror = Mirror { root: &workspace.root, shadow: &shadow, target, changed: &changed };
    mirror
        .folder(Path::new(""))
        .with_context(|| format!("cannot prepare a trial build in {}", shadow.display()))?;
    Ok(shadow)
}

struct Mirror<'a> {
    root: &'a Path,
    shadow: &'a Path,
    target: &'a Path,
    changed: &'a BTreeMap<PathBuf, Option<String>>,
}

impl Mirror<'_> {
    fn folder(&self, relative: &Path) -> Result<()> {
        let here = self.shadow.join(relative);
        if here.is_symlink() {
            remove(&here)?;
        }
        fs::create_dir_all(&here)?;
        let mut names: BTreeSet<_> = BTreeSet::new();
        for entry in fs::read_dir(self.root.join(relative))? {
            let entry = entry?;
            let skipped = relative == Path::new("") && SKIPPED.iter().any(|s| entry.file_name() == *s);
            if !skipped && entry.path() != self.target {
                names.insert(entry.file_name());
            }
        }
        let here_only = self.changed.keys().filter(|p| p.parent() == Some(relative));
        names.extend(here_only.filter_map(|p| Some(p.file_name()?.to_owned())));
        for entry in fs::read_dir(&here)? {
            let entry = entry?;
            if !names.contains(&entry.file_name()) {
                remove(&entry.path())?;
            }
        }
        names.iter().try_for_each(|name| self.entry(&relative.join(name)))
    }

    fn entry(&self, relative: &Path) -> Result<()> {
        let here = self.shadow.join(relative);
        if let Some(text) = self.changed.get(relative) {
            return match text {
                Some(text) => write_if_changed(&here, text),
                None => remove(&here),
            };
        }
        if self.changed.keys().any(|p| p.starts_with(relative)) {
            return self.folder(relative);
        }
        link(&self.root.join(relative), &here)
    }
}

/// Cargo looks at times, so a file that stays the same is not touched.
fn write_if_changed(path: &Path, text: &str) -> Result<()> {
    if path.is_symlink() || path.is_dir() {
        remove(path)?;
    }
    if fs::read_to_string(path).ok().as_deref() != Some(text) {
        fs::write(path, text)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path)?,
        Ok(_) => fs::remove_file(path)?,
        Err(_) => {}
    }
    Ok(())
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> Result<()> {
    if fs::read_link(to).ok().as_deref() == Some(from) {
        return Ok(());
    }
    remove(to)?;
    Ok(std::os::unix::fs::symlink(from, to)?)
}

/// Elsewhere links need rights that few have: copy what is newer.
#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        return fs::read_dir(from)?.try_for_each(|e| {
            let e = e?;
            link(&e.path(), &to.join(e.file_name()))
        });
    }
    let time = |p: &Path| fs::metadata(p).and_then(|m| m.modified()).ok();
    if time(from) != time(to) {
        fs::copy(from, to)?;
    }
    Ok(())
}
