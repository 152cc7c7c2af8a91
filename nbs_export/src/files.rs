//! Writing files so that nothing is ever lost or half-written.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

/// A file's text; `None` if there is no such file.
pub fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Replaces the file at `path` in one step: a crash or a full disk leaves the old one.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let path = real(path);
    let staged = stage(&path, bytes)?;
    staged.persist(&path).map_err(|e| e.error).with_context(|| cannot_write(&path))?;
    Ok(())
}

/// A link stays a link: what it points to is replaced.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// One file of a set that changes together.
#[derive(Clone, Debug)]
pub struct Change {
    /// Which file.
    pub path: PathBuf,
    /// What it will hold; `None` deletes it.
    pub text: Option<String>,
}

/// Makes all the changes or, if one cannot be made, none.
///
/// Everything is written to temporary files first, so that a full disk or a read-only folder is found before the first
/// file changes. Should a rename fail after that, the files that have changed get their old contents back.
pub fn write_all(changes: &[Change]) -> Result<()> {
    let mut staged = Vec::new();
    for Change { path, text } in changes {
        let path = &real(path);
        let old = match fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e).with_context(|| cannot_write(path)),
        };
        let new = text.as_ref().map(|t| stage(path, t.as_bytes())).transpose()?;
        staged.push((path.clone(), old, new));
    }
    let mut done: Vec<(PathBuf, Option<Vec<u8>>)> = Vec::new();
    for (path, old, new) in staged {
        let result = match new {
            Some(file) => file.persist(&path).map(drop).map_err(|e| e.error),
            None => fs::remove_file(&path),
        };
        if let Err(error) = result {
            for (path, old) in done.into_iter().rev() {
                restore(&path, old)
                    .with_context(|| format!("and {} could not be restored", path.display()))?;
            }
            return Err(error).with_context(|| cannot_write(&path));
        }
        done.push((path, old));
    }
    Ok(())
}

fn restore(path: &Path, old: Option<Vec<u8>>) -> Result<()> {
    match old {
        Some(bytes) => write_atomic(path, &bytes),
        None => fs::remove_file(path).map_err(Into::into),
    }
}

fn stage(path: &Path, bytes: &[u8]) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let try_stage = || -> io::Result<NamedTempFile> {
        let mut file = tempfile::Builder::new().prefix(".nbs-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        set_permissions(&file, path)?;
        Ok(file)
    };
    try_stage().with_context(|| cannot_write(path))
}

/// A temporary file is private; the new file gets the rights of the old one, or those of any new file.
fn set_permissions(file: &NamedTempFile, path: &Path) -> io::Result<()> {
    if let Ok(old) = fs::metadata(path) {
        return file.as_file().set_permissions(old.permissions());
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {} (is there room on the disk, and may you write to its folder?)", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: PathBuf, text: &str) -> Change {
        Change { path, text: Some(text.to_owned()) }
    }

    /// The files of a folder and their texts.
    fn contents(folder: &Path) -> Vec<(PathBuf, String)> {
        let paths = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file());
        let mut files: Vec<_> = paths.map(|p| (p.clone(), fs::read_to_string(&p).unwrap())).collect();
        files.sort();
        files
    }

    #[test]
    fn changes_happen_together_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["changed", "deleted", "file"] {
            fs::write(at(name), "old").unwrap();
        }
        fs::create_dir_all(at("folder/full")).unwrap();
        let before = contents(folder.path());
        let good = [
            change(at("changed"), "new"),
            Change { path: at("deleted"), text: None },
            change(at("made"), "new"),
        ];
        // Neither can be done, not even by root: the first is found while staging, the second while renaming.
        for bad in [at("file/below"), at("folder")] {
            let changes = [&good[..], &[change(bad.clone(), "new")]].concat();
            let error = format!("{:#}", write_all(&changes).unwrap_err());
            assert!(error.contains(&bad.display().to_string()), "{error}");
            assert_eq!(contents(folder.path()), before);
        }
        write_all(&good).unwrap();
        let after = [("changed", "new"), ("file", "old"), ("made", "new")];
        assert_eq!(contents(folder.path()), after.map(|(name, text)| (at(name), text.to_owned())));
    }

    #[cfg(unix)]
    #[test]
    fn links_and_rights_survive() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        write_atomic(&link, b"new").unwrap();
        write_all(&[change(link.clone(), "newer")]).unwrap();
        assert!(link.is_symlink());
        assert_eq!(fs::read_to_string(&real).unwrap(), "newer");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
    }
}
