//! Properties of generated notebooks.

mod common;

use std::collections::BTreeMap;

use common::{Fixture, notebook};
use nbs_export::code;
use nbs_export::emit;
use nbs_export::exported::{Exported, dedent, indent, unwrap_test};
use nbs_export::notebook::Notebook;
use nbs_export::plan::Plan;
use nbs_export::workspace::Workspace;
use nbs_export::{clean, directives};
use proptest::prelude::*;

const NB: &str = "notebooks/01_first.ipynb";

/// Text that may stand in a comment or a string without ending it.
fn words() -> impl Strategy<Value = String> {
    "[a-z 0-9漢é🦀%|/'{}()\t]{0,12}"
}

/// A literal, some of which have several lines.
fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u8>().prop_map(|n| n.to_string()),
        words().prop_map(|w| format!("{w:?}")),
        prop::collection::vec(words(), 1..4).prop_map(|lines| format!("\"{}\"", lines.join("\n    "))),
        prop::collection::vec(words(), 1..4).prop_map(|lines| format!("r#\"\n{}\"#", lines.join("\n\n  \""))),
    ]
}

#[derive(Clone, Debug)]
enum Kind {
    Markdown(String),
    Plain(String),
    Export {
        module: Option<usize>,
        hide: bool,
        doc: Option<String>,
        comment: String,
        value: String,
        pad: usize,
    },
    Test {
        slow: bool,
        comment: String,
        value: String,
    },
}

fn cell() -> impl Strategy<Value = Kind> {
    let export = (
        prop::option::of(0..3usize),
        any::<bool>(),
        prop::option::of(words()),
        words(),
        literal(),
        0..3usize,
    );
    prop_oneof![
        1 => ".{0,20}".prop_map(Kind::Markdown),
        1 => literal().prop_map(Kind::Plain),
        4 => export.prop_map(|(module, hide, doc, comment, value, pad)| {
            Kind::Export { module, hide, doc, comment, value, pad }
        }),
        2 => (any::<bool>(), words(), literal())
            .prop_map(|(slow, comment, value)| Kind::Test { slow, comment, value }),
    ]
}

/// The cell's text; `i` makes names unique.
fn source(i: usize, kind: &Kind) -> String {
    match kind {
        Kind::Markdown(text) => text.clone(),
        Kind::Plain(value) => format!("let v{i} = {value};"),
        Kind::Export { module, hide, doc, comment, value, pad } => {
            let module = module.map_or(String::new(), |m| format!(" module_{m}"));
            let hide = if *hide { "//| hide\n" } else { "" };
            let doc = doc.as_ref().map_or(String::new(), |d| format!("//| doc the {d}\n"));
            let pad = "\n".repeat(*pad);
            format!(
                "//| export{module}\n{hide}{doc}{pad}/// {comment}\npub fn item_{i}() {{\n    let _ = {value};\n}}{pad}"
            )
        }
        Kind::Test { slow, comment, value } => {
            let slow = if *slow { "//| slow\n" } else { "" };
            format!("//| test test_{i}\n{slow}// {comment}\nlet x = {value};\nitem_{i}_of(x);")
        }
    }
}

fn lesson() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(cell(), 0..8).prop_map(|kinds| {
        let first =
            ("first".to_owned(), "//| default_exp main_part\n//| export\npub fn begin() {}".to_owned());
        let name = |i: usize, kind: &Kind| match kind {
            Kind::Markdown(_) => format!("md-{i}"),
            _ => format!("cell-{i}"),
        };
        let rest = kinds.iter().enumerate().map(|(i, kind)| (name(i, kind), source(i, kind)));
        std::iter::once(first).chain(rest).collect()
    })
}

fn plan(cells: &[(String, String)]) -> Plan {
    let cells: Vec<_> = cells.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    let workspace = Workspace { root: "/nowhere".into() };
    let notebook = Notebook::parse(&workspace.root.join(NB), &notebook(&cells)).unwrap();
    Plan::of(&workspace, vec![notebook])
}

fn bodies(plan: &Plan) -> BTreeMap<String, String> {
    emit::files(plan, &|_, _| true).into_iter().map(|(path, wanted)| (path, wanted.text)).collect()
}

fn cases(n: u32) -> ProptestConfig {
    // Failures are printed with their input; nothing is written into the source folder.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(n) }
}

proptest! {
    #![proptest_config(cases(200))]

    #[test]
    fn exported_text_leads_back_to_the_same_cells(cells in lesson()) {
        let plan = plan(&cells);
        prop_assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        let mut found = BTreeMap::new();
        for (path, text) in bodies(&plan) {
            let file = Exported::parse(&text).unwrap();
            prop_assert!(!file.is_edited());
            for section in file.sections {
                let code = if path.starts_with("tests/") { unwrap_test(&section.text).unwrap() } else { section.text };
                found.insert(section.id, code);
            }
        }
        for (id, text) in &cells {
            let parts = directives::split(text);
            match found.get(id) {
                // Code comes back as it was, and with its directives gives a cell that exports the same.
                Some(code) => prop_assert_eq!(code.trim_end(), parts.code.trim_end()),
                None => prop_assert!(!text.starts_with("//| export") && !text.starts_with("//| test")),
            }
        }
        let again: Vec<_> = cells
            .iter()
            .map(|(id, text)| (id.clone(), found.get(id).map_or(text.clone(), |c| directives::split(text).join(c))))
            .collect();
        prop_assert_eq!(bodies(&self::plan(&again)), bodies(&plan));
    }

    #[test]
    fn indenting_has_an_inverse(value in literal(), other in literal(), comment in words()) {
        let text = format!("// {comment}\nfn f() {{\n    let a = {value};\n\n        let b = {other};\n}}");
        prop_assert_eq!(dedent(&indent(&text)), text.clone());
        // The contents of strings are not shifted.
        let literals = |t: &str| {
            let tokens: proc_macro2::TokenStream = t.parse().unwrap();
            tokens.to_string()
        };
        prop_assert_eq!(literals(&indent(&text)), literals(&text));
    }

    #[test]
    fn cleaning_twice_is_cleaning_once(cells in lesson(), minor in 0..6u64, counts in any::<u16>()) {
        let cells: Vec<_> = cells.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        let mut json = common::notebook_json(&cells);
        json["nbformat_minor"] = minor.into();
        for (i, cell) in json["cells"].as_array_mut().unwrap().iter_mut().enumerate() {
            if minor < 5 {
                cell.as_object_mut().unwrap().remove("id");
            }
            if counts >> (i % 16) & 1 == 1 {
                cell["metadata"]["collapsed"] = true.into();
                cell["execution_count"] = i.into();
            }
        }
        let mut notebook = Notebook::parse(NB.as_ref(), &common::to_text(&json)).unwrap();
        let sources: Vec<_> = notebook.cells().map(|c| c.source()).collect();
        clean::clean(&mut notebook);
        let once = notebook.to_text();
        prop_assert_eq!(sources, notebook.cells().map(|c| c.source()).collect::<Vec<_>>());
        let mut again = Notebook::parse(NB.as_ref(), &once).unwrap();
        prop_assert!(clean::difference("x", &once, &again).is_none());
        clean::clean(&mut again);
        prop_assert_eq!(again.to_text(), once);
    }

    /// Whatever stands in a cell, nothing panics.
    #[test]
    fn any_text_is_read_without_a_panic(texts in prop::collection::vec("(//\\| (export|test|doc|feature) ?[a-z]{0,3}\n)?[ -~\n\"'éA\u{2028}]{0,40}", 0..4)) {
        let cells: Vec<_> = texts.into_iter().enumerate().map(|(i, t)| (format!("c{i}"), t)).collect();
        let plan = plan(&cells);
        for (_, text) in &cells {
            code::lines_inside_literals(text);
            let text = text.trim_end();
            prop_assert_eq!(dedent(&indent(text)), text.lines().collect::<Vec<_>>().join("\n"));
        }
        if plan.problems.is_empty() {
            for text in bodies(&plan).values() {
                prop_assert!(!Exported::parse(text).unwrap().is_edited());
            }
        }
    }
}

proptest! {
    // Each of these starts rustfmt several times.
    #![proptest_config(cases(12))]

    #[test]
    fn formatted_cells_give_formatted_files(cells in lesson()) {
        let fixture = Fixture::new();
        let cells: Vec<_> = cells.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        fixture.write(NB, &notebook(&cells));
        fixture.ok(&["fmt"]);
        fixture.ok(&["fmt", "--check"]);
        let workspace = Workspace { root: fixture.path("") };
        let plan = Plan::read(&workspace).unwrap();
        prop_assert!(plan.problems.is_empty(), "{:?}", plan.problems);
        for (path, text) in bodies(&plan) {
            fixture.write(&path, &text);
            let output = fixture.command("rustfmt").args(["--edition", "2024", "--check", &path]).output().unwrap();
            prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
}
