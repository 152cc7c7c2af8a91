//! `nbs update`: from exported files back into cells.

mod common;

use common::{CHUNKS, Fixture, ROWS, notebook};

const NB: &str = "notebooks/01_first.ipynb";
const ITER: &str = "minai/src/iter.rs";
const MATRIX: &str = "minai/src/matrix.rs";
const LESSON: &str = "tests/lesson_01_first.rs";

/// A file without the line that holds its hash.
fn without_hash(text: &str) -> String {
    text.lines().filter(|l| !l.starts_with("// nbs:hash ")).map(|l| format!("{l}\n")).collect()
}

fn exported() -> Fixture {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    fixture
}

/// The command must refuse, naming `parts`, and change nothing.
fn refuses(fixture: &Fixture, parts: &[&str]) {
    let before = fixture.snapshot();
    fixture.fails(&["update"], parts);
    fixture.fails(&["update", "--dry-run"], parts);
    assert_eq!(fixture.snapshot(), before);
}

#[test]
fn export_edit_update_export_gives_the_same_bytes() {
    let fixture = exported();
    fixture.replace(
        ITER,
        "/// Pieces of a slice.",
        "/// Pieces of a slice, the last one maybe shorter.\n// 漢字",
    );
    fixture.replace(MATRIX, ".count()\n", ".count()\n        + 0 // \"\n");
    fixture.replace(
        LESSON,
        "    let text = \"two\nlines\";",
        "    let text = \"two\n  lines\n    \";\n\n    // Two.",
    );
    fixture.replace(
        LESSON,
        "assert_eq!(text.lines().count(), rows",
        "assert_eq!(text.lines().count() - 1, rows",
    );
    let edited = [ITER, MATRIX, LESSON].map(|p| without_hash(&fixture.read(p)));
    let dry = fixture.ok(&["update", "--dry-run"]);
    assert!(
        dry.contains("3 cells would change") && dry.contains("cell `chunks`") && dry.contains("+// 漢字"),
        "{dry}"
    );
    assert_eq!(fixture.source(NB, "chunks"), CHUNKS);
    fixture.ok(&["update"]);
    let updated = fixture.snapshot();
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
    assert_eq!(fixture.snapshot(), updated);
    assert_eq!([ITER, MATRIX, LESSON].map(|p| without_hash(&fixture.read(p))), edited);
    // The directives are where they were, and the text between them and the code too.
    let chunks = fixture.source(NB, "chunks");
    assert!(
        chunks.starts_with("//| export\n//| doc Iterators by hand.\n/// Pieces of a slice, the last"),
        "{chunks}"
    );
    let test = fixture.source(NB, "five");
    assert!(
        test.starts_with("//| test five_five_none\nlet mut") && test.ends_with("\n\"5\".parse::<u8>()?;"),
        "{test}"
    );
    assert!(test.contains("\nlet text = \"two\n  lines\n    \";\n\n// Two.\n"), "{test}");
    assert!(fixture.ok(&["update"]).contains("Nothing to update"));
}

#[test]
fn other_cells_and_their_outputs_stay_byte_for_byte() {
    let fixture = exported();
    let before = fixture.read(NB);
    fixture.replace(MATRIX, "(data, width).count()", "(data, width.max(1)).count()");
    fixture.ok(&["update"]);
    assert_eq!(fixture.read(NB), before.replace("(data, width).count()", "(data, width.max(1)).count()"));
}

#[test]
fn outputs_of_a_changed_cell_and_of_those_below_are_stale() {
    let fixture = exported();
    common::stamp(&fixture, NB);
    fixture.ok(&["check"]);
    fixture.replace(MATRIX, "(data, width).count()", "(data, width.max(1)).count()");
    fixture.ok(&["update"]);
    fixture.fails(&["check"], &["outputs are stale", "cells `rows`, `five`", "cargo nbs run 01_first"]);
}

#[test]
fn a_mark_that_is_gone_unknown_twice_or_moved_is_refused() {
    let mark = "// %% notebooks/01_first.ipynb rows\n";
    let fixture = exported();
    fixture.replace(MATRIX, mark, "");
    refuses(&fixture, &["the mark of cell `rows` is gone", "put it back"]);

    let fixture = exported();
    fixture.replace(MATRIX, mark, "// %% notebooks/01_first.ipynb other\n");
    refuses(&fixture, &["exports no cell `other`", "the mark of cell `rows` is gone", "matrix.rs:"]);

    let fixture = exported();
    fixture.write(MATRIX, &(fixture.read(MATRIX) + "\n" + mark + "fn more() {}\n"));
    refuses(&fixture, &["a second mark of cell `rows`"]);

    let fixture = exported();
    fixture.replace(MATRIX, mark, "// %% notebooks/02_other.ipynb rows\n");
    refuses(&fixture, &["the mark names notebooks/02_other.ipynb"]);

    let fixture = Fixture::new();
    let cells = [("a", "//| export m\npub fn a() {}"), ("b", "//| export m\npub fn b() {}")];
    fixture.write(NB, &notebook(&cells));
    fixture.ok(&["export"]);
    let text = fixture.read("minai/src/m.rs").replace("ipynb a", "ipynb c").replace("ipynb b", "ipynb a");
    fixture.write("minai/src/m.rs", &text.replace("ipynb c", "ipynb b"));
    refuses(&fixture, &["another order"]);
}

#[test]
fn text_above_the_first_cell_belongs_nowhere() {
    let fixture = exported();
    fixture.replace(MATRIX, "use crate::iter::Chunks;\n", "use crate::iter::Chunks;\nuse std::fmt;\n");
    refuses(&fixture, &["the text above the first mark changed", "+use std::fmt;"]);
    let fixture = exported();
    fixture.replace(ITER, "//! Iterators by hand.", "//! Iterators by foot.");
    refuses(&fixture, &["-//! Iterators by hand.", "`//| doc`"]);
}

#[test]
fn an_edit_may_need_another_import_of_a_sibling() {
    let fixture = Fixture::new();
    let cells = [
        ("a", "//| export a\npub fn one() -> u8 {\n    1\n}\n\npub fn two() -> u8 {\n    2\n}"),
        ("b", "//| export b\npub fn three() -> u8 {\n    one() + 2\n}"),
    ];
    fixture.write(NB, &notebook(&cells));
    fixture.ok(&["export"]);
    fixture.replace("minai/src/b.rs", "use crate::a::one;", "use crate::a::two;\nuse crate::a::one;");
    fixture.replace("minai/src/b.rs", "one() + 2", "one() + two()");
    fixture.ok(&["update"]);
    assert!(fixture.source(NB, "b").contains("one() + two()"));
    assert!(fixture.read("minai/src/b.rs").contains("use crate::a::{one, two};\n"));
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
}

#[test]
fn when_both_sides_changed_nothing_does() {
    let fixture = exported();
    fixture.replace(MATRIX, ".count()", ".count() + 0");
    fixture.set_cell(NB, "rows", &ROWS.replace("width: usize", "wide: usize"));
    refuses(&fixture, &["both the file and notebooks/01_first.ipynb changed", "`rows`", "--force"]);
    // The same change on both sides is none.
    fixture.set_cell(NB, "rows", &ROWS.replace(".count()", ".count() + 0"));
    fixture.ok(&["update"]);
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
}

#[test]
fn a_change_of_another_module_is_no_conflict() {
    let fixture = exported();
    fixture.replace(MATRIX, ".count()", ".count() + 0");
    fixture.set_cell(NB, "chunks", &CHUNKS.replace("Pieces", "Parts"));
    fixture.ok(&["update"]);
    assert!(fixture.source(NB, "rows").contains(".count() + 0"));
    assert!(fixture.source(NB, "chunks").contains("Parts"));
    fixture.ok(&["export"]);
    assert!(fixture.read(ITER).contains("Parts"));
}

#[test]
fn only_the_inside_of_a_test_goes_back() {
    let fixture = exported();
    fixture.replace(LESSON, "#[test]\nfn five_five_none", "#[test]\nfn six_six_none");
    refuses(&fixture, &["this edit of cell `five` cannot go back", "+fn five_five_none"]);
    let fixture = exported();
    fixture.replace(LESSON, "    Ok(())\n}", "}");
    refuses(&fixture, &["the function around the test of cell `five` lost its exported form"]);
    let fixture = exported();
    fixture.write(LESSON, &(fixture.read(LESSON) + "\nfn more() {}\n"));
    refuses(&fixture, &["cell `five`"]);
}

#[test]
fn text_that_cannot_be_exported_again_does_not_go_back() {
    let fixture = exported();
    fixture.replace(MATRIX, "pub fn rows(", "pub fn rows((");
    refuses(&fixture, &["cell `rows`, line 3: exported code must consist of items"]);
    let fixture = exported();
    fixture.replace(MATRIX, "/// How many", "//| export iter\n/// How many");
    refuses(&fixture, &[]);
    let fixture = exported();
    fixture.replace(MATRIX, "/// How many", "use minai::iter::Chunks as C;\n/// How many");
    refuses(&fixture, &["`minai::iter` belongs to this notebook"]);
}

#[test]
fn a_module_that_the_notebook_dropped_is_not_forgotten() {
    let fixture = exported();
    fixture.replace(MATRIX, ".count()", ".count() + 0");
    fixture.set_cell(NB, "rows", &ROWS.replace("//| export matrix\n", ""));
    refuses(&fixture, &["minai/src/matrix.rs was edited, but notebooks/01_first.ipynb no longer exports it"]);
}

#[test]
fn a_notebook_that_cannot_be_written_leaves_everything_as_it_was() {
    let fixture = exported();
    fixture.replace(MATRIX, ".count()", ".count() + 0");
    let real = fixture.path("elsewhere.ipynb");
    std::fs::rename(fixture.path(NB), &real).unwrap();
    // A folder in the place of the notebook cannot be read, far less replaced.
    std::fs::create_dir(fixture.path(NB)).unwrap();
    refuses(&fixture, &["01_first.ipynb"]);
}

#[test]
fn comments_between_directives_survive_an_update() {
    let fixture = Fixture::new();
    let cell = "// A word.\n//| export m\n\n// Another.\n//| hide\npub fn a() -> u8 {\n    1\n}\n";
    fixture.write(NB, &notebook(&[("a", cell)]));
    fixture.ok(&["export"]);
    assert!(fixture.read("minai/src/m.rs").contains("ipynb a\n// A word.\n\n// Another.\npub fn a()"));
    fixture.replace("minai/src/m.rs", "    1\n", "    2\n");
    fixture.ok(&["update"]);
    let source = fixture.source(NB, "a");
    assert_eq!(source, "//| export m\n//| hide\n// A word.\n\n// Another.\npub fn a() -> u8 {\n    2\n}");
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
}
