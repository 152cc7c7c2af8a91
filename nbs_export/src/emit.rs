//! From the plan to the texts of the exported files.

use std::collections::{BTreeMap, BTreeSet};

use crate::exported;
use crate::lesson::{Lesson, Module};
use crate::names::{Defined, Reach, Used, rustfmt_order};
use crate::plan::Plan;
use crate::workspace::CRATE;

/// A file as the notebooks want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The owner, such as `notebooks/01_foundations.ipynb`.
    pub place: String,
    /// The whole text.
    pub text: String,
    /// Traits that it may have to import: a method of theirs is named, but many types have methods of that name. Only
    /// the compiler knows.
    pub guesses: BTreeSet<String>,
}

/// All exported files, by their paths in the workspace. `keep` says of a file's path and a guessed trait whether the
/// file imports it.
pub fn files(plan: &Plan, keep: &dyn Fn(&str, &str) -> bool) -> BTreeMap<String, Wanted> {
    let mut files = BTreeMap::new();
    for lesson in &plan.lessons {
        let mut add = |path: String, (body, guesses): (String, BTreeSet<String>)| {
            let text = exported::with_banner(&lesson.place, &body);
            files.insert(path, Wanted { place: lesson.place.clone(), text, guesses });
        };
        for module in &lesson.modules {
            let path = module_path(&module.name);
            let file = module_body(lesson, module, plan.width, &|name| keep(&path, name));
            add(path, file);
        }
        if !lesson.tests.is_empty() {
            let path = tests_path(&lesson.name);
            let file = tests_body(lesson, plan.width, &|name| keep(&path, name));
            add(path, file);
        }
    }
    files
}

/// The notebook to which an exported file belongs.
pub fn owner<'a>(plan: &'a Plan, path: &str) -> Option<&'a str> {
    let owns =
        |l: &&Lesson| tests_path(&l.name) == path || l.modules.iter().any(|m| module_path(&m.name) == path);
    plan.lessons.iter().find(owns).map(|l| l.place.as_str())
}

/// Where a module's file lies.
pub fn module_path(name: &str) -> String {
    format!("{CRATE}/src/{name}.rs")
}

/// Where a lesson's tests lie.
pub fn tests_path(lesson: &str) -> String {
    format!("tests/{}.rs", test_target(lesson))
}

/// The name of a lesson's tests for `cargo test --test`.
pub fn test_target(lesson: &str) -> String {
    format!("lesson_{lesson}")
}

/// The module of a path from [`module_path()`].
pub fn module_of(path: &str) -> Option<&str> {
    path.strip_prefix(CRATE)?.strip_prefix("/src/")?.strip_suffix(".rs")
}

/// The lesson of a path from [`tests_path`].
pub fn lesson_of_tests(path: &str) -> Option<&str> {
    path.strip_prefix("tests/lesson_")?.strip_suffix(".rs")
}

fn module_body(
    lesson: &Lesson,
    module: &Module,
    width: usize,
    keep: &dyn Fn(&str) -> bool,
) -> (String, BTreeSet<String>) {
    let docs: Vec<_> = module.docs.iter().map(|line| format!("//! {line}").trim_end().to_owned()).collect();
    let used: Vec<&Used> = module.cells.iter().map(|p| &p.used).collect();
    let importer = Importer { module: Some(module), root: "crate", reach: Reach::Crate, width, keep };
    let (imports, guesses) = imports(lesson, importer, &used);
    let cells = module.cells.iter().map(|p| cell(lesson, &p.id, &p.code));
    (body(docs.join("\n"), imports, cells), guesses)
}

fn tests_body(lesson: &Lesson, width: usize, keep: &dyn Fn(&str) -> bool) -> (String, BTreeSet<String>) {
    let docs = format!("//! What {} claims.", lesson.place);
    let used: Vec<&Used> = lesson.tests.iter().map(|t| &t.piece.used).collect();
    let importer = Importer { module: None, root: CRATE, reach: Reach::Everywhere, width, keep };
    let (imports, guesses) = imports(lesson, importer, &used);
    let cells = lesson.tests.iter().map(|t| cell(lesson, &t.piece.id, &exported::wrap_test(t, width)));
    (body(docs, imports, cells), guesses)
}

fn body(docs: String, imports: String, cells: impl Iterator<Item = String>) -> String {
    let parts = [docs, imports].into_iter().filter(|p| !p.is_empty()).chain(cells);
    parts.collect::<Vec<_>>().join("\n\n") + "\n"
}

fn cell(lesson: &Lesson, id: &str, text: &str) -> String {
    format!("{}\n{text}", exported::marker(&lesson.place, id)).trim_end().to_owned()
}

/// Who imports, and how.
struct Importer<'a> {
    /// A module imports from its siblings only; the tests from all.
    module: Option<&'a Module>,
    /// What the crate is called there.
    root: &'a str,
    /// How visible an item must be.
    reach: Reach,
    /// How long a line may be.
    width: usize,
    /// Is a trait imported of which only a method's name was seen?
    keep: &'a dyn Fn(&str) -> bool,
}

/// The `use` lines for what lives in other modules of the same notebook, and the traits that are guessed at.
fn imports(lesson: &Lesson, importer: Importer, used: &[&Used]) -> (String, BTreeSet<String>) {
    let Importer { module, root, reach, width, keep } = importer;
    let known: BTreeSet<&str> = module
        .into_iter()
        .flat_map(|m| &m.cells)
        .flat_map(|p| p.defined.iter().map(|d| &d.name).chain(&p.used.imported))
        .map(String::as_str)
        .collect();
    let visible = |item: &&Defined| item.reach >= reach && !known.contains(item.name.as_str());
    let named = |item: &Defined| used.iter().any(|u| u.bare.contains(&item.name));
    let by_method = |item: &Defined| used.iter().any(|u| item.methods.iter().any(|m| u.methods.contains(m)));
    let mut guesses = BTreeSet::new();
    // By the feature that the items' module needs.
    let mut blocks: BTreeMap<Option<&str>, Names> = BTreeMap::new();
    let others = lesson.modules.iter().filter(|other| module.is_none_or(|m| m.name != other.name));
    for other in others {
        let feature =
            other.feature.as_deref().filter(|f| module.is_none_or(|m| m.feature.as_deref() != Some(f)));
        for item in other.cells.iter().flat_map(|p| &p.defined).filter(visible) {
            let guessed = !named(item) && by_method(item);
            if guessed {
                guesses.insert(item.name.clone());
            }
            if named(item) || (guessed && keep(&item.name)) {
                let path = (!item.at_root).then_some(other.name.as_str());
                blocks.entry(feature).or_default().entry(path).or_default().insert(&item.name);
            }
        }
    }
    let blocks = blocks.into_iter().map(|(feature, names)| use_block(root, feature, names, width));
    (blocks.collect::<Vec<_>>().join("\n\n"), guesses)
}

/// Names by module (none for the crate's root).
type Names<'a> = BTreeMap<Option<&'a str>, BTreeSet<&'a str>>;

/// `use` lines in the order and form that rustfmt gives them.
fn use_block(root: &str, feature: Option<&str>, modules: Names, width: usize) -> String {
    let mut lines: Vec<(Vec<&str>, String)> = Vec::new();
    for (module, names) in modules {
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_by(|a, b| rustfmt_order(a, b));
        let path = module.map_or(String::new(), |m| format!("{m}::"));
        if module.is_some() && names.len() > 1 {
            lines.push((
                module.into_iter().collect(),
                use_list(&format!("use {root}::{path}"), &names, width),
            ));
        } else {
            let line = |n: &&'_ str| format!("use {root}::{path}{n};");
            lines.extend(names.iter().map(|n| (module.into_iter().chain([*n]).collect(), line(n))));
        }
    }
    lines.sort_by(|a, b| path_order(&a.0, &b.0));
    let above = feature.map_or(String::new(), |f| format!("#[cfg(feature = \"{f}\")]\n"));
    lines.iter().map(|(_, line)| format!("{above}{line}")).collect::<Vec<_>>().join("\n")
}

/// `path{a, b, …};` on one line, or as many names to a line as fit, as rustfmt does it.
fn use_list(path: &str, names: &[&str], width: usize) -> String {
    let joined = format!("{path}{{{}}};", names.join(", "));
    // rustfmt keeps two places free.
    if joined.len() + 2 <= width {
        return joined;
    }
    let mut lines = vec![String::new()];
    for name in names {
        let line = lines.last_mut().expect("there is always one");
        if line.is_empty() {
            *line = format!("    {name},");
        } else if line.len() + name.len() + 2 <= width {
            *line += &format!(" {name},");
        } else {
            lines.push(format!("    {name},"));
        }
    }
    format!("{path}{{\n{}\n}};", lines.join("\n"))
}

fn path_order(a: &[&str], b: &[&str]) -> std::cmp::Ordering {
    let parts = a.iter().zip(b).map(|(a, b)| rustfmt_order(a, b));
    parts.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then).then(a.len().cmp(&b.len()))
}

const MODULES: [&str; 2] = ["// nbs:modules begin", "// nbs:modules end"];
const TESTS: [&str; 2] = ["# nbs:tests begin", "# nbs:tests end"];

/// How `lib.rs` lists a module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed<'a> {
    /// The lesson that builds it, if that is known.
    pub lesson: Option<&'a str>,
    /// The feature that it needs.
    pub feature: Option<&'a str>,
}

/// `lib.rs` with this list of modules, lesson by lesson.
pub fn with_modules(lib: &str, modules: &BTreeMap<&str, Listed<'_>>) -> String {
    let mut lessons: BTreeMap<Option<&str>, String> = BTreeMap::new();
    // Within a lesson in rustfmt's order, which is that of the bytes.
    for (name, Listed { lesson, feature }) in modules {
        let lines = lessons.entry(*lesson).or_default();
        if let Some(feature) = feature {
            *lines += &format!("#[cfg(feature = \"{feature}\")]\n");
        }
        *lines += &format!("pub mod {name};\n");
    }
    let lesson = |(name, lines): (Option<&str>, String)| match name {
        Some(name) => format!("{LESSON}{name}\n{lines}"),
        None => lines,
    };
    with_block(lib, MODULES, &lessons.into_iter().map(lesson).collect::<Vec<_>>().join("\n"))
}

/// Before the name of a lesson in the list.
const LESSON: &str = "// ";

/// The modules that the list of `lib.rs` has.
pub fn listed_modules(lib: &str) -> BTreeMap<&str, Listed<'_>> {
    let mut modules = BTreeMap::new();
    let (mut lesson, mut feature) = (None, None);
    for line in lib.lines().skip_while(|l| *l != MODULES[0]).skip(1).take_while(|l| *l != MODULES[1]) {
        if let Some(name) = line.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';')) {
            modules.insert(name, Listed { lesson, feature: feature.take() });
        }
        lesson = line.strip_prefix(LESSON).or(lesson);
        feature = line.strip_prefix("#[cfg(feature = \"").and_then(|l| l.strip_suffix("\")]"));
    }
    modules
}

/// `tests/Cargo.toml` with an entry for each of these lessons.
pub fn with_tests(manifest: &str, lessons: &BTreeSet<&str>) -> String {
    let entry = |lesson: &&str| {
        let name = test_target(lesson);
        format!("[[test]]\nname = \"{name}\"\npath = \"{name}.rs\"\n")
    };
    with_block(manifest, TESTS, &lessons.iter().map(entry).collect::<Vec<_>>().join("\n"))
}

/// Replaces what stands between two lines; where they are missing, they go to the end.
fn with_block(text: &str, [begin, end]: [&str; 2], block: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let whole = format!("{begin}\n{block}{end}\n");
    let found = text.find(begin).and_then(|from| Some((from, from + text[from..].find(end)?)));
    match found {
        Some((from, to)) => {
            let after = text[to + end.len()..].trim_start_matches('\n');
            let gap = if text[to + end.len()..].starts_with("\n\n") { "\n" } else { "" };
            format!("{}{whole}{gap}{after}", &text[..from])
        }
        None => format!("{}\n\n{whole}", text.trim_end()),
    }
}

/// Does a manifest declare this feature?
pub fn has_feature(manifest: &str, feature: &str) -> bool {
    let mut in_features = false;
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            in_features = line == "[features]";
        }
        let key = line.split('=').next().unwrap_or_default().trim().trim_matches('"');
        in_features && key == feature && line.contains('=')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_replaced_in_place_and_appended_where_there_is_none() {
        let listed = |lesson, feature| Listed { lesson, feature };
        let modules = BTreeMap::from([
            ("rng", listed(Some("01_foundations"), None)),
            ("array", listed(Some("01_foundations"), None)),
            ("plot", listed(Some("90_plot"), Some("plot"))),
        ]);
        let first = with_modules("//! Head.\n", &modules);
        assert_eq!(
            first,
            "//! Head.\n\n// nbs:modules begin\n// 01_foundations\npub mod array;\npub mod rng;\n\n\
             // 90_plot\n#[cfg(feature = \"plot\")]\npub mod plot;\n// nbs:modules end\n"
        );
        assert_eq!(with_modules(&first, &modules), first);
        assert_eq!(listed_modules(&first), modules);
        let longer = first.clone() + "\npub mod prelude;\n";
        assert_eq!(with_modules(&longer, &modules), longer);
        assert_eq!(with_modules(&longer, &BTreeMap::new()).matches("pub mod").count(), 1);
    }

    #[test]
    fn features_are_looked_up_in_their_table_only() {
        let manifest = "[package]\nplot = 1\n[features]\ndefault = [\"nb\"]\n\"nb\" = []\n[dependencies]\nureq = \"3\"\n";
        assert!(has_feature(manifest, "nb"));
        assert!(!has_feature(manifest, "plot") && !has_feature(manifest, "ureq"));
    }
}
