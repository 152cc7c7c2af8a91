//! The crates that every notebook has from the kernel's start, and what a `:dep` line means beside them.
//!
//! A notebook keeps a `:dep` cell so that it runs on the stock kernel too. The course's kernel has compiled one set of
//! crates and answers such a line by itself, as long as it asks for what is there.

use std::path::{Path, PathBuf};
use std::{fmt, fs};

use semver::{Version, VersionReq};
use toml::{Table, Value};

use super::Dirs;
use crate::workspace::{CRATE, Workspace};

/// What the notebooks depend on instead of `minai` itself: see its `Cargo.toml`.
const WRAPPER: &str = "minai-kernel";

/// The crates of the course, without `minai`: name and specification, as in a manifest.
pub fn course() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("dependencies.toml").lines().filter(|l| !l.starts_with('#'));
    lines.filter_map(|l| l.split_once(" = ")).collect()
}

/// The whole set in this workspace, as lines of a manifest.
pub fn manifest_lines(dirs: &Dirs) -> Vec<String> {
    let path = dirs.root.join("nbs_export").join("kernel");
    let path = Value::String(path.to_string_lossy().into_owned());
    let wrapper = format!("{WRAPPER} = {{ path = {path} }}");
    [wrapper].into_iter().chain(course().into_iter().map(|(name, spec)| format!("{name} = {spec}"))).collect()
}

/// What evcxr is told at its start.
pub fn init_lines(dirs: &Dirs) -> Vec<String> {
    manifest_lines(dirs).into_iter().map(|line| format!(":dep {line}")).collect()
}

/// What to do with a `:dep` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel has that crate, in a version that will do: nothing is to be done.
    Ours,
    /// Another crate: what evcxr is to be told instead, with paths made absolute.
    New(String),
    /// A crate that the kernel has, but not as the line wants it.
    OtherVersion {
        /// What the kernel has.
        ours: String,
        /// What the line asks for.
        theirs: String,
    },
}

/// Judges a line such as `:dep ndarray = "0.17"` of a notebook in `folder`, which may be any folder of the project.
pub fn judge(line: &str, folder: &Path) -> Verdict {
    let line = line.trim();
    let line = line.strip_prefix(":dep").unwrap_or(line).trim();
    let root = Workspace::discover_from(folder).ok().map(|w| w.root);
    let Some((name, theirs)) = parse(line) else {
        return pass_on(&absolute_path(line, folder));
    };
    if [CRATE, WRAPPER].contains(&name.as_str()) {
        return judge_minai(line, &theirs, folder, root.as_deref());
    }
    let found = course().into_iter().find(|(ours, _)| ours.replace('-', "_") == name.replace('-', "_"));
    let Some((ours, spec)) = found.filter(|_| !theirs.contains_key("package")) else {
        return pass_on(&absolute_path(line, folder));
    };
    let resolved = root.and_then(|r| locked(&Dirs::at(&r), ours));
    let has = parse(&format!("{ours} = {spec}")).map(|(_, table)| table).unwrap_or_default();
    if fits(&theirs, &has, resolved.as_ref()) {
        return Verdict::Ours;
    }
    let version = resolved.map_or_else(String::new, |v| format!(" (version {v})"));
    Verdict::OtherVersion { ours: format!("{ours} = {spec}{version}"), theirs: line.to_owned() }
}

fn pass_on(line: &str) -> Verdict {
    Verdict::New(format!(":dep {line}"))
}

/// Any path to `minai` or its wrapper stands for this project's, unless it leads to another one: a notebook that is moved to
/// another folder keeps a path that no longer leads anywhere.
fn judge_minai(line: &str, theirs: &Table, folder: &Path, root: Option<&Path>) -> Verdict {
    let root = root.map(|r| fs::canonicalize(r).unwrap_or_else(|_| r.to_owned())).unwrap_or_default();
    let other = |theirs: &str| Verdict::OtherVersion {
        ours: format!("{CRATE} of {}", root.display()),
        theirs: theirs.to_owned(),
    };
    if let Some(path) = theirs.get("path").and_then(Value::as_str) {
        return match fs::canonicalize(folder.join(path)) {
            Ok(real) if real.join("Cargo.toml").is_file() && !real.starts_with(&root) => other(line),
            _ => Verdict::Ours,
        };
    }
    let ours = Version::parse(env!("CARGO_PKG_VERSION")).ok();
    let wanted = theirs.get("version").and_then(Value::as_str).and_then(|v| VersionReq::parse(v).ok());
    match (wanted, ours) {
        (Some(wanted), Some(ours)) if wanted.matches(&ours) && !theirs.contains_key("git") => Verdict::Ours,
        _ => other(line),
    }
}

/// Name and specification of `name`, `name = "1"` or `name = { … }`; a version alone becomes a table with it.
fn parse(line: &str) -> Option<(String, Table)> {
    let Some((name, spec)) = line.split_once('=') else {
        let name = line.trim();
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_');
        return is_name.then(|| (name.to_owned(), Table::from_iter([version("*")])));
    };
    let mut table: Table = toml::from_str(&format!("spec = {spec}")).ok()?;
    let spec = match table.remove("spec")? {
        Value::String(text) => Table::from_iter([version(&text)]),
        Value::Table(table) => table,
        _ => return None,
    };
    Some((name.trim().to_owned(), spec))
}

fn version(text: &str) -> (String, Value) {
    ("version".to_owned(), Value::String(text.to_owned()))
}

/// Does what we have serve for what is asked? `resolved` is the version that was chosen for ours.
fn fits(theirs: &Table, ours: &Table, resolved: Option<&Version>) -> bool {
    let text = |table: &Table, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
    if ["git", "path", "registry"].iter().any(|key| theirs.contains_key(*key)) {
        return false;
    }
    let wanted = text(theirs, "version").unwrap_or_else(|| "*".to_owned());
    let Ok(wanted) = VersionReq::parse(&wanted) else {
        return false;
    };
    // Before anything was compiled, the lowest version that ours allows stands for it.
    let lowest = || {
        let text = text(ours, "version").unwrap_or_default();
        (0..3).find_map(|zeros| Version::parse(&(text.clone() + &".0".repeat(zeros))).ok())
    };
    let version_fits = resolved.cloned().or_else(lowest).is_some_and(|version| wanted.matches(&version));
    let features = |table: &Table| -> Vec<String> {
        let all = table.get("features").and_then(Value::as_array).into_iter().flatten();
        all.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let default = |table: &Table| table.get("default-features").and_then(Value::as_bool) != Some(false);
    let has = features(ours);
    let features_fit =
        features(theirs).iter().all(|f| has.contains(f)) && (default(ours) || !default(theirs));
    version_fits && features_fit
}

/// The version of a crate that the kernel has compiled.
fn locked(dirs: &Dirs, name: &str) -> Option<Version> {
    let lock: Table = toml::from_str(&fs::read_to_string(dirs.warm().join("Cargo.lock")).ok()?).ok()?;
    let packages = lock.get("package")?.as_array()?;
    // Other crates may depend on another version of it; ours is the newest that fits.
    let wanted = parse(&format!("{name} = {}", course().iter().find(|(n, _)| *n == name)?.1))?.1;
    let wanted = VersionReq::parse(wanted.get("version")?.as_str()?).ok()?;
    let versions = packages.iter().filter(|p| p.get("name").and_then(Value::as_str) == Some(name));
    versions
        .filter_map(|p| Version::parse(p.get("version")?.as_str()?).ok())
        .filter(|v| wanted.matches(v))
        .max()
}

/// evcxr looks for paths from the folder in which it was started; a notebook means them from its own.
fn absolute_path(line: &str, folder: &Path) -> String {
    let Some((before, rest)) = line.split_once("path = \"") else {
        let local = line.starts_with(['.', '/']);
        return if local { full(folder, line) } else { line.to_owned() };
    };
    let Some((path, after)) = rest.split_once('"') else {
        return line.to_owned();
    };
    let full = full(folder, path).replace('\\', "\\\\").replace('"', "\\\"");
    format!("{before}path = \"{full}\"{after}")
}

fn full(folder: &Path, path: &str) -> String {
    let full: PathBuf = folder.join(path);
    fs::canonicalize(&full).unwrap_or(full).to_string_lossy().into_owned()
}

/// What the reader is told where a `:dep` line asks for another version or other features than ours.
pub struct Conflict<'a> {
    /// What the kernel has.
    pub ours: &'a str,
    /// What the line asks for.
    pub theirs: &'a str,
}

impl fmt::Display for Conflict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "This kernel has a crate of that name already, and a program can't have both.\n  \
             the kernel has: {}\n  this cell asks: {}\nLeave the line out, or write it as the kernel has it. \
             For the other one, use the stock kernel (\"Rust\").",
            self.ours, self.theirs
        )
    }
}

/// What the reader is told, after cargo's own words, where a crate can't be had.
///
/// Without a network cargo only says that it found no crate of that name, whether there is none or it was never downloaded.
pub fn how_to_go_online(name: &str) -> String {
    format!(
        "The crate `{name}` is not on this machine: this kernel works without a network, with the crates of the course.\n\
         To download it, write `:offline 0` above the `:dep` line, in the same cell, and run that once with a network. \
         After that the line alone will do. If it still isn't found, look for its name on crates.io."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace whose kernel has compiled ndarray 0.17.2.
    fn workspace() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for folder in ["notebooks", "own/deep", "nbs_export/kernel", ".minai/warm"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        for manifest in ["Cargo.toml", "nbs_export/kernel/Cargo.toml"] {
            fs::write(root.path().join(manifest), "").unwrap();
        }
        let lock =
            ["0.16.9", "0.17.2"].map(|v| format!("[[package]]\nname = \"ndarray\"\nversion = \"{v}\"\n"));
        fs::write(root.path().join(".minai/warm/Cargo.lock"), lock.concat()).unwrap();
        root
    }

    #[test]
    fn the_course_has_each_crate_once_and_in_the_form_of_a_dep_line() {
        let names: Vec<_> = course().iter().map(|(name, _)| *name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        let lines = include_str!("dependencies.toml").lines().filter(|l| !l.starts_with('#')).count();
        assert_eq!(names.len(), lines);
        for (name, spec) in course() {
            let (parsed, table) = parse(&format!("{name} = {spec}")).unwrap();
            assert!(parsed == name && table.contains_key("version"), "{name}");
        }
    }

    /// Other features would have `minai` compiled twice, other versions even used twice.
    #[test]
    fn the_course_asks_for_what_the_crate_asks_for() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let table =
            |file: &str| -> Table { toml::from_str(&fs::read_to_string(root.join(file)).unwrap()).unwrap() };
        let shared = table("Cargo.toml")["workspace"]["dependencies"].as_table().unwrap().clone();
        let manifest = table("minai/Cargo.toml");
        for (name, spec) in course() {
            let of = |section: &str| manifest[section].get(name).cloned();
            let theirs = of("dependencies").or_else(|| of("dev-dependencies")).expect(name);
            let inherits = theirs.get("workspace").is_some();
            let mut theirs = match if inherits { shared[name].clone() } else { theirs } {
                Value::String(text) => Table::from_iter([version(&text)]),
                other => other.as_table().unwrap().clone(),
            };
            theirs.remove("optional");
            assert_eq!(parse(&format!("{name} = {spec}")).unwrap().1, theirs, "{name}");
        }
    }

    #[test]
    fn what_the_kernel_has_needs_nothing() {
        let root = workspace();
        let folders = ["notebooks", "own/deep"].map(|f| root.path().join(f));
        let lines = [
            ":dep ndarray = \"0.17\"",
            ":dep ndarray = \"0.17.1\"",
            ":dep ndarray",
            "ndarray = { version = \"0.17\" }",
            ":dep flate2 = { version = \"1.1\", default-features = false, features = [\"zlib-rs\"] }",
            ":dep serde_pickle = \"1\"",
            ":dep minai-kernel = { path = \"../nbs_export/kernel\" }",
            ":dep minai = { path = \"../gone/minai\" }",
            ":dep minai = \"0.1\"",
        ];
        for line in lines {
            for folder in &folders {
                assert_eq!(judge(line, folder), Verdict::Ours, "{line}");
            }
        }
    }

    #[test]
    fn other_versions_and_features_are_told_with_both() {
        let root = workspace();
        let folder = root.path().join("notebooks");
        for line in [
            "ndarray = \"0.15\"",
            "ndarray = \"0.17.9\"",
            "ndarray = { version = \"0.17\", features = [\"rayon\"] }",
            "ndarray = { git = \"https://example.org/ndarray\" }",
            "plotters = \"0.3.7\"",
            "minai = \"7\"",
        ] {
            let Verdict::OtherVersion { ours, theirs } = judge(&format!(":dep {line}"), &folder) else {
                panic!("{line}");
            };
            assert_eq!(theirs, line);
            let text = Conflict { ours: &ours, theirs: &theirs }.to_string();
            assert!(text.contains(&ours) && text.contains(line), "{text}");
            assert!(!line.contains("ndarray") || ours == "ndarray = \"0.17\" (version 0.17.2)", "{ours}");
        }
    }

    #[test]
    fn another_minai_is_not_ours() {
        let (root, other) = (workspace(), workspace());
        let path = other.path().join("nbs_export/kernel");
        let line = format!("minai-kernel = {{ path = \"{}\" }}", path.display());
        let verdict = judge(&line, &root.path().join("notebooks"));
        assert!(matches!(verdict, Verdict::OtherVersion { theirs, .. } if theirs == line));
    }

    #[test]
    fn other_crates_are_passed_on_with_full_paths() {
        let root = workspace();
        let folder = root.path().join("notebooks");
        let own = fs::canonicalize(root.path().join("own")).unwrap();
        let cases = [
            ("rayon = \"1\"".to_owned(), "rayon = \"1\"".to_owned()),
            ("rayon".to_owned(), "rayon".to_owned()),
            (
                "nd = { package = \"ndarray\", version = \"0.15\" }".to_owned(),
                "nd = { package = \"ndarray\", version = \"0.15\" }".to_owned(),
            ),
            ("own = { path = \"../own\" }".to_owned(), format!("own = {{ path = \"{}\" }}", own.display())),
            ("../own".to_owned(), own.display().to_string()),
            ("broken = {".to_owned(), "broken = {".to_owned()),
        ];
        for (line, expected) in cases {
            assert_eq!(judge(&format!(":dep {line}"), &folder), Verdict::New(format!(":dep {expected}")));
        }
        assert!(how_to_go_online("rayon").contains("`rayon`"));
    }

    #[test]
    fn paths_in_the_set_survive_odd_names() {
        let root = tempfile::tempdir().unwrap();
        let odd = root.path().join("ö \"quoted\" folder");
        fs::create_dir_all(&odd).unwrap();
        let dirs = Dirs::at(&odd);
        let text = manifest_lines(&dirs).join("\n");
        let table: Table = toml::from_str(&text).unwrap();
        let path = table[WRAPPER]["path"].as_str().unwrap();
        assert_eq!(Path::new(path), dirs.root.join("nbs_export").join("kernel"));
        assert!(init_lines(&dirs)[1].starts_with(":dep base64 = "));
    }
}
