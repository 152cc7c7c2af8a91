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
}

/// All exported files, by their paths in the workspace.
pub fn files(plan: &Plan) -> BTreeMap<String, Wanted> {
    let mut files = BTreeMap::new();
    for lesson in &plan.lessons {
        let mut add = |path, body: String| {
            let text = exported::with_banner(&lesson.place, &body);
            files.insert(path, Wanted { place: lesson.place.clone(), text });
        };
        for module in &lesson.modules {
            add(module_path(&module.name), module_body(lesson, module, plan.width));
        }
        if !lesson.tests.is_empty() {
            add(tests_path(&lesson.name), tests_body(lesson, plan.width));
        }
    }
    files
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

fn module_body(lesson: &Lesson, module: &Module, width: usize) -> String {
    let docs: Vec<_> = module.docs.iter().map(|line| format!("//! {line}").trim_end().to_owned()).collect();
    let used: Vec<&Used> = module.cells.iter().map(|p| &p.used).collect();
    let imports =
        imports(lesson, Importer { module: Some(module), root: "crate", reach: Reach::Crate, width }, &used);
    let cells = module.cells.iter().map(|p| cell(lesson, &p.id, &p.code));
    body(docs.join("\n"), imports, cells)
}

fn tests_body(lesson: &Lesson, width: usize) -> String {
    let docs = format!("//! What {} claims.", lesson.place);
    let used: Vec<&Used> = lesson.tests.iter().map(|t| &t.piece.used).collect();
    let imports =
        imports(lesson, Importer { module: None, root: CRATE, reach: Reach::Everywhere, width }, &used);
    let cells = lesson.tests.iter().map(|t| cell(lesson, &t.piece.id, &exported::wrap_test(t, width)));
    body(docs, imports, cells)
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
}

/// The `use` lines for what lives in other modules of the same notebook.
fn imports(lesson: &Lesson, importer: Importer, used: &[&Used]) -> String {
    let Importer { module, root, reach, width } = importer;
    let known: BTreeSet<&str> = module
        .into_iter()
        .flat_map(|m| &m.cells)
        .flat_map(|p| p.defined.iter().map(|d| &d.name).chain(&p.used.imported))
        .map(String::as_str)
        .collect();
    let visible = |item: &&Defined| item.reach >= reach && !known.contains(item.name.as_str());
    let named = |item: &Defined| used.iter().any(|u| u.bare.contains(&item.name));
    let by_method = |item: &Defined| used.iter().any(|u| item.methods.iter().any(|m| u.methods.contains(m)));
    let mut blocks: BTreeMap<Attribute, Names> = BTreeMap::new();
    let others = lesson.modules.iter().filter(|other| module.is_none_or(|m| m.name != other.name));
    for other in others {
        let feature =
            other.feature.as_deref().filter(|f| module.is_none_or(|m| m.feature.as_deref() != Some(f)));
        for item in other.cells.iter().flat_map(|p| &p.defined).filter(visible) {
            if named(item) || by_method(item) {
                let attribute = Attribute { guessed: !named(item), feature };
                let path = (!item.at_root).then_some(other.name.as_str());
                blocks.entry(attribute).or_default().entry(path).or_default().insert(&item.name);
            }
        }
    }
    let blocks = blocks.into_iter().map(|(attribute, names)| use_block(root, attribute, names, width));
    blocks.collect::<Vec<_>>().join("\n\n")
}

/// What stands above a `use`.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Attribute<'a> {
    /// A trait of which only a method's name was seen, which may be another's method.
    guessed: bool,
    /// The items' module is only there with this feature.
    feature: Option<&'a str>,
}

/// Names by module (none for the crate's root).
type Names<'a> = BTreeMap<Option<&'a str>, BTreeSet<&'a str>>;

/// `use` lines in the order and form that rustfmt gives them.
fn use_block(root: &str, attribute: Attribute, modules: Names, width: usize) -> String {
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
    let mut above = attribute.feature.map_or(String::new(), |f| format!("#[cfg(feature = \"{f}\")]\n"));
    if attribute.guessed {
        above += "#[allow(unused_imports)]\n";
    }
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

/// `lib.rs` with this list of modules and their features.
pub fn with_modules(lib: &str, modules: &BTreeMap<&str, Option<&str>>) -> String {
    // rustfmt sorts modules by their bytes, unlike imports.
    let lines = modules.iter().map(|(name, feature)| match feature {
        Some(feature) => format!("#[cfg(feature = \"{feature}\")]\npub mod {name};\n"),
        None => format!("pub mod {name};\n"),
    });
    with_block(lib, MODULES, &lines.collect::<String>())
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
        let modules = BTreeMap::from([("rng", None), ("plot", Some("plot"))]);
        let first = with_modules("//! Head.\n", &modules);
        assert_eq!(
            first,
            "//! Head.\n\n// nbs:modules begin\n#[cfg(feature = \"plot\")]\npub mod plot;\npub mod rng;\n// nbs:modules end\n"
        );
        assert_eq!(with_modules(&first, &modules), first);
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
