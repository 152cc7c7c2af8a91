//! `nbs export` and `nbs build`.

mod common;

use common::{Fixture, ROWS, TEST, first_lesson, notebook, notebook_json, to_text};
use serde_json::json;

const NB: &str = "notebooks/01_first.ipynb";
const ITER: &str = "minai/src/iter.rs";
const MATRIX: &str = "minai/src/matrix.rs";
const LESSON: &str = "tests/lesson_01_first.rs";

#[test]
fn a_notebook_becomes_modules_and_tests_that_compile_and_pass() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    let iter = fixture.read(ITER);
    assert!(iter.starts_with("// Owned by notebooks/01_first.ipynb: "), "{iter}");
    assert!(
        iter.contains("\n//! Iterators by hand.\n\n// %% notebooks/01_first.ipynb chunks\n/// Pieces"),
        "{iter}"
    );
    assert!(!iter.contains("//|"), "{iter}");
    let matrix = fixture.read(MATRIX);
    assert!(
        matrix.contains("\nuse crate::iter::Chunks;\n\n// %% notebooks/01_first.ipynb rows\n"),
        "{matrix}"
    );
    assert!(
        fixture
            .read("minai/src/lib.rs")
            .contains("begin\n// 01_first\npub mod iter;\npub mod matrix;\n// nbs:modules end\n")
    );
    let tests = fixture.read(LESSON);
    assert!(tests.contains("use minai::iter::Chunks;\nuse minai::matrix::rows;\n"), "{tests}");
    assert!(tests.contains("let text = \"two\nlines\";"), "text in strings must not be shifted:\n{tests}");
    assert!(
        fixture
            .read("tests/Cargo.toml")
            .contains("name = \"lesson_01_first\"\npath = \"lesson_01_first.rs\"\n")
    );
    let output = fixture
        .command("cargo")
        .args(["test", "-q", "--offline", "--test", "lesson_01_first"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let output = fixture.command("cargo").args(["fmt", "--all", "--check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn exporting_again_changes_nothing_and_is_the_same_everywhere() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    let before = fixture.snapshot();
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
    assert_eq!(fixture.snapshot(), before);
    let other = Fixture::lesson();
    other.ok(&["export", "1"]);
    for path in [ITER, MATRIX, LESSON, "minai/src/lib.rs", "tests/Cargo.toml"] {
        assert_eq!(fixture.read(path), other.read(path), "{path}");
    }
}

#[test]
fn code_that_does_not_compile_is_shown_with_its_cell_and_changes_nothing() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    fixture.set_cell(NB, "rows", &ROWS.replace("count()", "count() + 1u8"));
    let before = fixture.snapshot();
    let text = fixture.fails(
        &["export"],
        &["E0308", "notebooks/01_first.ipynb, cell `rows`, line 4:35 (minai/src/matrix.rs:", "count() + 1u8"],
    );
    assert!(
        text.lines().any(|l| l.starts_with("4 |") && l.ends_with("+ 1u8")),
        "the quoted line has the cell's number:\n{text}"
    );
    assert_eq!(fixture.snapshot(), before);
}

#[test]
fn an_error_in_a_test_is_shown_with_its_cell() {
    let fixture = Fixture::lesson();
    fixture.set_cell(NB, "five", &TEST.replace("\"5\".parse::<u8>()?", "let n: u8 = \"5\""));
    fixture.fails(&["export"], &["cell `five`, line 7:13 (tests/lesson_01_first.rs:", "E0308"]);
}

#[test]
fn build_names_the_cell_of_an_edited_file() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    assert!(fixture.ok(&["build"]).contains("0 errors, 0 warnings"));
    fixture.replace(ITER, "return None;", "return 5;");
    fixture.fails(&["build"], &["notebooks/01_first.ipynb, cell `chunks`, line 10:20", "1 error"]);
}

#[test]
fn a_file_of_somebody_else_is_not_overwritten() {
    let fixture = Fixture::lesson();
    fixture.write(MATRIX, "//! Mine.\n");
    let before = fixture.snapshot();
    fixture.fails(&["export"], &["minai/src/matrix.rs was not written by `nbs export`"]);
    fixture.fails(&["export", "--force"], &["minai/src/matrix.rs was not written by `nbs export`"]);
    assert_eq!(fixture.snapshot(), before);
}

#[test]
fn an_edited_file_is_not_overwritten_unless_forced() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    let original = fixture.read(MATRIX);
    fixture.replace(MATRIX, ".count()", ".count() + 0");
    let before = fixture.snapshot();
    fixture.fails(
        &["export"],
        &["minai/src/matrix.rs was edited", "nbs update", "+    Chunks(data, width).count() + 0"],
    );
    assert_eq!(fixture.snapshot(), before);
    fixture.ok(&["export", "--force"]);
    assert_eq!(fixture.read(MATRIX), original);
}

#[test]
fn files_that_no_notebook_exports_any_more_are_removed() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    fixture.set_cell(NB, "rows", &ROWS.replace("export matrix", "export table"));
    fixture.fails(
        &["check"],
        &["minai/src/matrix.rs: no notebook exports it any more", "minai/src/table.rs is missing"],
    );
    fixture.ok(&["export"]);
    assert!(!fixture.exists(MATRIX) && fixture.exists("minai/src/table.rs"));
    assert!(!fixture.read("minai/src/lib.rs").contains("matrix"));
}

#[test]
fn two_notebooks_cannot_own_one_module() {
    let fixture = Fixture::lesson();
    fixture.write("notebooks/02_second.ipynb", &notebook(&[("a", "//| export iter\npub fn f() {}")]));
    let before = fixture.snapshot();
    for command in ["export", "check"] {
        let both = "module `iter` is claimed by notebooks/01_first.ipynb and notebooks/02_second.ipynb";
        fixture.fails(&[command], &[both]);
    }
    assert_eq!(fixture.snapshot(), before);
}

#[test]
fn merged_split_and_moved_cells() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    // Merged in Jupyter: the second cell's directives end up below code.
    let mut cells = first_lesson();
    let merged = format!("{}\n\n{ROWS}", cells[2].1);
    cells[2].1 = &merged;
    cells.remove(4);
    fixture.write(NB, &notebook(&cells));
    let before = fixture.snapshot();
    fixture.fails(
        &["export"],
        &["notebooks/01_first.ipynb, cell `chunks`, line 18: `//| export matrix` stands below code"],
    );
    assert_eq!(fixture.snapshot(), before);

    // Split: the second half has no directive, and the crate would no longer compile.
    let mut cells = first_lesson();
    let (head, tail) = cells[2].1.split_once("\n\n").unwrap();
    cells[2].1 = head;
    cells.insert(3, ("tail", tail));
    fixture.write(NB, &notebook(&cells));
    fixture.fails(&["export"], &["cell `rows`", "E0599"]);
    let exported = format!("//| export\n{tail}");
    cells[3].1 = &exported;
    fixture.write(NB, &notebook(&cells));
    fixture.ok(&["export"]);
    assert!(fixture.read(ITER).contains("// %% notebooks/01_first.ipynb tail\nimpl<'a> Iterator"));

    // Moved: the file follows the notebook's order.
    cells.swap(2, 3);
    fixture.write(NB, &notebook(&cells));
    fixture.ok(&["export"]);
    let iter = fixture.read(ITER);
    assert!(iter.find("ipynb tail").unwrap() < iter.find("ipynb chunks").unwrap());
}

#[test]
fn a_module_uses_only_earlier_lessons_and_no_cell_its_own_notebook() {
    let fixture = Fixture::lesson();
    fixture.write(
        "notebooks/02_second.ipynb",
        &notebook(&[
            ("late", "//| export late\nuse minai::matrix::rows;\n/// Uses the first lesson.\npub fn late() -> usize {\n    rows(&[], 1)\n}"),
            ("self", "{\n    use minai::{iter, late::late};\n    late();\n}"),
        ]),
    );
    let own = "notebooks/02_second.ipynb, cell `self`, line 2: `minai::late` belongs to this notebook";
    fixture.fails(&["export"], &[own, "silently"]);
    fixture.set_cell("notebooks/02_second.ipynb", "self", "late();");
    fixture.ok(&["export"]);
    fixture.set_cell(NB, "rows", &ROWS.replace("/// How", "use minai::late::late;\n/// How"));
    for command in ["export", "check"] {
        let later = "cell `rows`, line 2: module `matrix` uses `minai::late` of the later lesson 02_second";
        fixture.fails(&[command], &[later]);
    }
    // Cells that are not exported may look ahead.
    fixture.set_cell(NB, "rows", ROWS);
    fixture.set_cell(NB, "setup", "//| default_exp iter\nuse minai::late::late;");
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
}

/// Charts stand beside what they show: with the feature of a later module, and only then, a module may use it.
#[test]
fn a_module_behind_a_feature_uses_a_later_one_behind_the_same() {
    let fixture = Fixture::lesson();
    let late = "//| export late\n//| feature extra\n/// Two.\npub fn late() -> usize {\n    2\n}";
    fixture.write("notebooks/02_second.ipynb", &notebook(&[("late", late)]));
    let chart = "//| export chart\n//| feature extra\nuse minai::late::late;\n/// Two.\npub fn chart() -> usize {\n    late()\n}";
    fixture.write("notebooks/01b_more.ipynb", &notebook(&[("chart", chart)]));
    fixture.ok(&["export"]);
    let always = chart.replace("//| feature extra\n", "");
    fixture.write("notebooks/01b_more.ipynb", &notebook(&[("chart", &always)]));
    fixture.fails(&["export"], &["module `chart` uses `minai::late` of the later lesson 02_second"]);
}

#[test]
fn features_gate_modules_and_their_tests() {
    let fixture = Fixture::new();
    let cells = [
        ("plain", "//| default_exp plain\n//| export\n/// One.\npub fn one() -> u8 {\n    1\n}"),
        (
            "gated",
            "//| export gated\n//| feature extra gated\n/// Two.\npub fn two() -> u8 {\n    one() + 1\n}",
        ),
        ("test", "//| test two_is_two\nassert_eq!(two(), 2 * one());"),
        ("slow", "//| test slow_one\n//| slow\nassert_eq!(one(), 1);"),
        ("panics", "//| test it_panics\n//| should_panic\nassert_eq!(one(), 2);"),
    ];
    fixture.write(NB, &notebook(&cells));
    fixture.ok(&["export"]);
    assert!(
        fixture
            .read("minai/src/lib.rs")
            .contains("#[cfg(feature = \"extra\")]\npub mod gated;\npub mod plain;\n")
    );
    let tests = fixture.read(LESSON);
    assert!(tests.contains("#[cfg(feature = \"extra\")]\nuse minai::gated::two;"), "{tests}");
    assert!(tests.contains("#[cfg(feature = \"extra\")]\n#[test]\nfn two_is_two() ->"), "{tests}");
    assert!(tests.contains("#[test]\n#[ignore = \"slow\"]\nfn slow_one() ->"), "{tests}");
    assert!(
        tests.contains("#[test]\n#[should_panic]\nfn it_panics() {\n    assert_eq!(one(), 2);\n}"),
        "{tests}"
    );
    for (features, passed) in [("--all-features", "2 passed"), ("--no-default-features", "1 passed")] {
        let args = ["test", "-q", "--offline", "-p", "minai-tests", features];
        let output = fixture.command("cargo").args(args).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        // Default features of a path dependency stay on, so only the test itself goes away.
        assert!(text.contains(passed), "{features}: {text}{}", String::from_utf8_lossy(&output.stderr));
    }
    fixture.set_cell(
        NB,
        "gated",
        "//| export gated\n//| feature other gated\npub fn two() -> u8 {\n    2\n}",
    );
    fixture.fails(&["export"], &["module `gated`: needs `other = []` under [features] in minai/Cargo.toml"]);
    fixture.set_cell(
        NB,
        "gated",
        "//| export gated\n//| feature extra gated\npub fn two() -> u8 {\n    2\n}",
    );
    fixture.write("notebooks/02_b.ipynb", &notebook(&[("b", "//| export b\npub use minai::gated::two;")]));
    fixture.fails(
        &["export"],
        &["`minai::gated` is only there with the feature `extra`, and module `b` is always there"],
    );
}

#[test]
fn traits_and_macros_of_siblings_are_imported() {
    let fixture = Fixture::new();
    let cells = [
        ("draw", "//| export draw\n/// Draws.\npub trait Draw {\n    /// One.\n    fn draw(&self) -> u8;\n}"),
        (
            "mac",
            "//| export mac\n/// Twice.\n#[macro_export]\nmacro_rules! twice {\n    ($e:expr) => {\n        $e * 2\n    };\n}",
        ),
        (
            "ten",
            "//| export ten\n/// Ten.\npub struct Ten;\n\nimpl Draw for Ten {\n    fn draw(&self) -> u8 {\n        10\n    }\n}",
        ),
        ("use", "//| export user\n/// Twenty.\npub fn twenty() -> u8 {\n    twice!(Ten.draw())\n}"),
        ("test", "//| test draws\nassert_eq!(twenty(), twice!(Ten.draw()));"),
    ];
    fixture.write(NB, &notebook(&cells));
    fixture.ok(&["export"]);
    let user = fixture.read("minai/src/user.rs");
    assert!(user.contains("use crate::draw::Draw;\nuse crate::ten::Ten;\nuse crate::twice;\n\n"), "{user}");
    assert!(fixture.ok(&["build"]).contains("0 errors, 0 warnings"));
    let output = fixture.command("cargo").args(["fmt", "--all", "--check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn long_lines_are_broken_where_rustfmt_breaks_them() {
    for width in [60, 100, 110] {
        let fixture = Fixture::new();
        fixture.write("rustfmt.toml", &format!("max_width = {width}\nuse_small_heuristics = \"Max\"\n"));
        let items: Vec<_> = (0..12).map(|i| format!("item_number_{i}")).collect();
        let define = |n: &String| format!("/// Does nothing.\npub fn {n}() {{}}\n");
        let all = "//| default_exp all\n//| export\n".to_owned()
            + &items.iter().map(define).collect::<Vec<_>>().join("\n");
        let mut cells = vec![("all".to_owned(), all)];
        for n in 1..12 {
            let calls = items[..n].iter().map(|n| format!("{n}();\n")).collect::<String>();
            let name = "long_name_".repeat(n);
            cells.push((format!("test-{n}"), format!("//| test {name}\n{calls}")));
            cells
                .push((format!("user-{n}"), format!("//| export user_{n}\npub fn user_{n}() {{\n{calls}}}")));
        }
        // Imports that end at each of the last places of a line: `use crate::names_0::{a0, bbb…};`.
        for short in 0..5 {
            let long = "b".repeat(width - "use crate::names_0::{a0, };".len() - short);
            cells.push((format!("names-{short}"), format!("//| export names_{short}\n/// Nothing.\npub fn a{short}() {{}}\n/// Nothing.\npub fn {long}() {{}}")));
            cells.push((
                format!("uses-{short}"),
                format!("//| export uses_{short}\npub fn uses_{short}() {{\na{short}();\n{long}();\n}}"),
            ));
        }
        let cells: Vec<_> = cells.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        fixture.write(NB, &notebook(&cells));
        fixture.ok(&["fmt"]);
        fixture.ok(&["export"]);
        let output = fixture.command("cargo").args(["fmt", "--all", "--check"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        fixture.replace("tests/lesson_01_first.rs", "fn long_name_() ->", "fn other_name() ->");
        fixture.fails(&["update"], &["this edit of cell"]);
    }
}

#[test]
fn documentation_goes_to_the_module_of_its_cell() {
    let fixture = Fixture::new();
    let cells = [
        ("first", "//| default_exp main\n//| doc Of the default module."),
        ("a", "//| export a\n//| doc Of a.\npub fn a() {}"),
        ("b", "//| export b\n//| doc a More of a.\n//| feature extra\npub fn b() {}"),
        ("m", "//| export\npub fn m() {}"),
    ];
    fixture.write(NB, &notebook(&cells).replace("default_exp main", "default_exp mainly"));
    fixture.ok(&["export"]);
    assert!(fixture.read("minai/src/a.rs").contains("//! Of a.\n//! More of a.\n"));
    assert!(fixture.read("minai/src/mainly.rs").contains("//! Of the default module.\n"));
    assert!(!fixture.read("minai/src/b.rs").contains("//!"));
    assert!(fixture.read("minai/src/lib.rs").contains("#[cfg(feature = \"extra\")]\npub mod b;\n"));
}

#[test]
fn the_order_of_imports_is_rustfmts() {
    let fixture = Fixture::new();
    let names = [
        "zeros",
        "Array",
        "MAX",
        "conv10",
        "conv2",
        "A",
        "B2",
        "ones_like",
        "Zip",
        "LIMIT",
        "_x",
        "RNG",
        "Rng",
        "Abc1",
        "Abc10",
        "Abc2",
    ];
    let define = |n: &&str| match n.chars().next().unwrap() {
        c if c.is_uppercase() => format!("pub struct {n};\n"),
        _ => format!("pub struct S{n};\n\npub fn {n}() {{}}\n"),
    };
    let definitions =
        "//| export all\n".to_owned() + &names.iter().map(define).collect::<Vec<_>>().join("\n");
    let uses = names.iter().map(|n| format!("use_it!({n});")).collect::<Vec<_>>().join("\n");
    let half = names[..4].iter().map(|n| format!("    use_it!({n});")).collect::<Vec<_>>().join("\n");
    let test = format!(
        "//| test all_names\nmacro_rules! use_it {{\n    ($n:ident) => {{\n        let _ = $n;\n    }};\n}}\n{uses}"
    );
    let user = format!(
        "//| export user\nmacro_rules! use_it {{\n    ($n:ident) => {{\n        let _ = $n;\n    }};\n}}\n\npub fn user() {{\n{half}\n}}"
    );
    fixture.write(NB, &notebook(&[("all", &definitions), ("user", &user), ("test", &test)]));
    fixture.ok(&["export"]);
    let output = fixture.command("cargo").args(["fmt", "--all", "--check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn wrong_cells_are_refused_with_their_places() {
    let cases: &[(&[common::CellText], &str)] = &[
        (&[("a", "//| export\nfn f() {}")], "cell `a`, line 1: `//| export` names no module"),
        (&[("a", "//| exprot x\nfn f() {}")], "cell `a`, line 1: unknown directive `//| exprot x`"),
        (&[("a", "//| export x\nlet y = 1;")], "cell `a`, line 2: exported code must consist of items"),
        (&[("a", "//| export x\n\nfn f( {}")], "cell `a`, line 3: "),
        (
            &[("a", "//| export x\n:dep rand = \"1\"\nfn f() {}")],
            "cell `a`, line 2: `:dep rand = \"1\"` is for the kernel",
        ),
        (&[("a", "//| export x\n//! Docs.\nfn f() {}")], "cell `a`, line 2: "),
        (&[("a", "//| export fn\nfn f() {}")], "`fn` is no good name"),
        (&[("a", "//| export lib\nfn f() {}")], "`lib` cannot be the name"),
        (&[("a", "//| default_exp std")], "`std` cannot be the name of an exported module"),
        (&[("a", "//| default_exp core")], "`core` cannot be the name of an exported module"),
        (&[("a", "//| default_exp self")], "`self` cannot be the name of an exported module"),
        (
            &[("a", "<<<<<<< ours\nf();\n=======\ng();\n>>>>>>> theirs")],
            "cell `a`, line 1: git's conflict marks",
        ),
        (
            &[("a", "//| export x\n// %% notebooks/01_first.ipynb b\nfn f() {}")],
            "looks like the exporter's own mark",
        ),
        (&[("a", "//| test t\n1 + 1")], "cell `a`, line 2: a test ends with a statement"),
        (
            &[("a", "//| test t\n"), ("b", "//| test t\n")],
            "cell `b`, line 1: cell `a` already has the test `t`",
        ),
        (&[("a", "//| test t\n//| compile_fail E0382\nx();")], "cannot be a test"),
        (&[("a", "//| export x\n//| test t\nfn f() {}")], "is both exported and a test"),
        (
            &[("a", "//| default_exp x"), ("b", "//| default_exp y")],
            "cell `b`, line 1: a second `default_exp`",
        ),
        (&[("a", "//| export x\npub fn f() {}"), ("b", "//| export y\npub fn f() {}")], "rename one"),
        (
            &[("a", "//| export x\nfn f() {}"), ("a", "fn g() {}")],
            "cells number 1 and 2 have the same id `a`",
        ),
        (&[("a", "//| eval: true\nf();")], "should read `//| eval: false`"),
        (&[("a", "//| doc hello\nf();")], "cell `a`, line 1: no cell of this notebook is exported"),
    ];
    let fixture = Fixture::new();
    for (cells, message) in cases {
        fixture.write(NB, &notebook(cells));
        let before = fixture.snapshot();
        fixture.fails(&["export"], &[message, NB]);
        assert_eq!(fixture.snapshot(), before);
    }
}

#[test]
fn a_directive_inside_a_string_is_text() {
    let fixture = Fixture::new();
    let cell = "//| export x\n/// A cell.\npub const CELL: &str = \"\n//| export y\n\";";
    fixture.write(NB, &notebook(&[("a", cell)]));
    fixture.ok(&["export"]);
    assert!(fixture.read("minai/src/x.rs").contains("\n//| export y\n"));
}

#[test]
fn broken_json_is_named_with_its_place_and_nothing_changes() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    let text = fixture.read(NB);
    let broken = [
        (&text[..text.len() / 4], "its JSON is broken"),
        ("", "the file is empty"),
        ("[]", "does not hold a JSON object"),
        ("{\"nbformat\": 3, \"worksheets\": []}", "format 3"),
        ("{\"nbformat\": 4}", "`cells` is missing"),
        ("{\"nbformat\": 4, \"cells\": [{\"cell_type\": \"code\"}]}", "cell number 1: has no `source`"),
    ];
    for (text, message) in broken {
        fixture.write(NB, text);
        let before = fixture.snapshot();
        for command in ["export", "check", "update"] {
            fixture.fails(&[command], &[message, "01_first.ipynb"]);
        }
        assert_eq!(fixture.snapshot(), before);
    }
    // A folder, or bytes that are no text, instead of a notebook.
    std::fs::write(fixture.path(NB), b"{\xff}").unwrap();
    fixture.fails(&["export"], &["01_first.ipynb: not UTF-8 (byte 1)"]);
}

#[test]
fn formats_without_cell_ids_are_sent_to_clean() {
    for minor in 0..5 {
        let fixture = Fixture::new();
        let mut json = notebook_json(&first_lesson());
        json["nbformat_minor"] = json!(minor);
        for cell in json["cells"].as_array_mut().unwrap() {
            cell.as_object_mut().unwrap().remove("id");
        }
        fixture.write(NB, &to_text(&json));
        let no_id = format!("cell number 1 has no id (nbformat 4.{minor}): `cargo nbs clean 01_first`");
        fixture.fails(&["export"], &[&no_id]);
        fixture.fails(&["check"], &[&no_id, "is not clean"]);
        fixture.ok(&["clean"]);
        let cleaned = fixture.read(NB);
        assert!(cleaned.contains("\"nbformat_minor\": 5"));
        fixture.ok(&["export"]);
        fixture.ok(&["clean"]);
        assert_eq!(fixture.read(NB), cleaned);
    }
}

#[test]
fn empty_notebooks_export_nothing() {
    let fixture = Fixture::new();
    fixture.write(NB, &notebook(&[]));
    let before = fixture.snapshot();
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
    fixture.ok(&["check"]);
    fixture.ok(&["fmt"]);
    fixture.ok(&["update"]);
    assert_eq!(fixture.snapshot(), before);
}

#[test]
fn windows_line_ends_make_no_difference() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    let text = fixture.read(ITER);
    // A checkout with autocrlf, in the notebook's JSON and in the exported files.
    for path in [NB, ITER, MATRIX, LESSON, "minai/src/lib.rs", "tests/Cargo.toml"] {
        fixture.write(path, &fixture.read(path).replace('\n', "\r\n"));
    }
    let before = fixture.snapshot();
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
    assert_eq!(fixture.snapshot(), before);
    // Line ends inside the cells, as an editor on Windows may leave them.
    let mut json = notebook_json(&first_lesson());
    for cell in json["cells"].as_array_mut().unwrap() {
        let source = common::lines(
            &cell["source"]
                .as_array()
                .unwrap()
                .iter()
                .map(|l| l.as_str().unwrap())
                .collect::<String>()
                .replace('\n', "\r\n"),
        );
        cell["source"] = source;
    }
    fixture.write(NB, &to_text(&json));
    fixture.write(ITER, &text);
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
    assert_eq!(fixture.read(ITER), text);
}

#[test]
fn text_of_all_languages_survives() {
    let fixture = Fixture::new();
    let cell = "//| default_exp text\n//| export\n//| doc Grüße, 世界 👋🏽, \u{2028}end.\n/// Ω ≠ ω: «naïve» 🦀.\npub const HELLO: &str = \"héllo 世界 👩‍👩‍👧 \\u{7f}\u{2028}\";";
    fixture.write(NB, &notebook(&[("ünicode-is-no-id", "let x = 1;"), ("a", cell)]));
    fixture.ok(&["clean"]);
    fixture.ok(&["export"]);
    let text = fixture.read("minai/src/text.rs");
    assert!(
        text.contains("/// Ω ≠ ω: «naïve» 🦀.\npub const HELLO: &str = \"héllo 世界 👩‍👩‍👧 \\u{7f}\u{2028}\";\n"),
        "{text}"
    );
    let before = fixture.snapshot();
    fixture.replace("minai/src/text.rs", "héllo", "hüllo 🦀");
    fixture.ok(&["update"]);
    fixture.replace("minai/src/text.rs", "hüllo 🦀", "héllo");
    fixture.ok(&["update"]);
    assert_eq!(fixture.snapshot(), before);
}

#[test]
fn a_folder_that_cannot_be_written_leaves_everything_as_it_was() {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    fixture.set_cell(NB, "rows", &ROWS.replace("export matrix", "export table"));
    fixture.set_cell(NB, "chunks", &common::CHUNKS.replace("by hand", "made by hand"));
    // The name of the new module's file is taken by a folder, so the last rename fails: even root cannot do it.
    std::fs::create_dir_all(fixture.path("minai/src/table.rs/in_the_way")).unwrap();
    let before = fixture.snapshot();
    fixture.fails(&["export"], &["minai/src/table.rs"]);
    assert_eq!(fixture.snapshot(), before);
    std::fs::remove_dir_all(fixture.path("minai/src/table.rs")).unwrap();
    fixture.ok(&["export"]);
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_leaves_everything_as_it_was() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    fixture.set_cell(NB, "chunks", &common::CHUNKS.replace("by hand", "made by hand"));
    let before = fixture.snapshot();
    let src = fixture.path("minai/src");
    let lock = |mode| std::fs::set_permissions(&src, std::fs::Permissions::from_mode(mode)).unwrap();
    lock(0o555);
    // Root may write all the same; then the export must simply succeed.
    let may_write = tempfile::tempfile_in(&src).is_ok();
    let outcome = fixture.nbs(&["export"]);
    lock(0o755);
    if may_write {
        assert_eq!(outcome.code, 0, "{}", outcome.text);
    } else {
        assert!(outcome.code == 1 && outcome.text.contains("cannot write"), "{}", outcome.text);
        assert_eq!(fixture.snapshot(), before);
    }
}

#[test]
fn one_notebook_is_exported_without_the_others() {
    let fixture = Fixture::lesson();
    fixture
        .write("notebooks/02_second.ipynb", &notebook(&[("b", "//| export b\n/// Two.\npub fn two() {}")]));
    fixture.ok(&["export", "02_second"]);
    assert!(fixture.exists("minai/src/b.rs") && !fixture.exists(ITER));
    assert!(!fixture.read("minai/src/lib.rs").contains("pub mod iter"));
    fixture.ok(&["export", "notebooks/01_first.ipynb"]);
    let lib = fixture.read("minai/src/lib.rs");
    assert!(
        lib.contains("// 01_first\npub mod iter;\npub mod matrix;\n\n// 02_second\npub mod b;\n"),
        "{lib}"
    );
    fixture.fails(&["export", "3"], &["no notebook `3`", "01_first, 02_second"]);
}

#[test]
fn a_notebook_outside_the_naming_scheme_is_scratch_paper() {
    let fixture = Fixture::lesson();
    fixture.write("notebooks/Untitled.ipynb", &notebook(&[("a", "let x = 1;")]));
    fixture.ok(&["export"]);
    fixture.write("notebooks/Untitled.ipynb", &notebook(&[("a", "//| export x\nfn f() {}")]));
    fixture.fails(&["export"], &["notebooks/Untitled.ipynb: its name is not of the form NN_topic.ipynb"]);
}

#[test]
fn the_workspace_is_found_from_below_and_missed_with_an_explanation() {
    let fixture = Fixture::lesson();
    let output = fixture
        .command(env!("CARGO_BIN_EXE_nbs"))
        .arg("export")
        .current_dir(fixture.path("minai/src"))
        .output();
    assert!(output.unwrap().status.success());
    assert!(fixture.exists(ITER));
    let elsewhere = tempfile::tempdir().unwrap();
    let output =
        fixture.command(env!("CARGO_BIN_EXE_nbs")).arg("export").current_dir(&elsewhere).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("no workspace here"));
}

/// A lesson with a trait whose method `len` standard types have too.
fn lesson_with_len() -> [common::CellText<'static>; 5] {
    [
        (
            "trait",
            "//| export kind\n/// What has a length.\npub trait Long {\n    /// How long.\n    fn len(&self) -> usize;\n    /// How wide.\n    fn wide(&self) -> usize {\n        1\n    }\n}",
        ),
        (
            "road",
            "//| export road\n/// Kilometres.\npub struct Road(pub usize);\n\nimpl Long for Road {\n    fn len(&self) -> usize {\n        self.0\n    }\n}",
        ),
        (
            "list",
            "//| export list\n/// Of a list.\npub fn of_list(list: &[u8]) -> usize {\n    list.len()\n}",
        ),
        (
            "trip",
            "//| export trip\n/// Of a trip.\npub fn of_trip(road: &Road, stops: &[u8]) -> usize {\n    road.len() + stops.len()\n}",
        ),
        ("test", "//| test lengths\nassert_eq!(of_list(&[1]) + of_trip(&Road(2), &[]) + [7].len(), 4);"),
    ]
}

#[test]
fn only_traits_that_the_compiler_needs_are_imported() {
    let fixture = Fixture::new();
    // The crate has parts that are written by hand.
    fixture.write("minai/src/kernels/mod.rs", "//! By hand.\n");
    fixture.write(NB, &notebook(&lesson_with_len()));
    let text = fixture.ok(&["export"]);
    assert!(!text.contains("warning"), "{text}");
    let list = |path: &str| {
        let text = fixture.read(path);
        text.lines()
            .filter(|l| l.starts_with(['u', '#']) && l.contains("use "))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(list("minai/src/road.rs"), "use crate::kind::Long;");
    assert_eq!(list("minai/src/list.rs"), "");
    assert_eq!(list("minai/src/trip.rs"), "use crate::kind::Long;\nuse crate::road::Road;");
    assert_eq!(list(LESSON), "use minai::list::of_list;\nuse minai::road::Road;\nuse minai::trip::of_trip;");
    for path in ["minai/src/road.rs", "minai/src/list.rs", "minai/src/trip.rs", LESSON] {
        assert!(!fixture.read(path).contains("allow("), "{path}");
    }
    common::stamp(&fixture, NB);
    fixture.ok(&["fmt", "--check"]);
    fixture.ok(&["check"]);
    let before = fixture.snapshot();
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
    assert_eq!(fixture.snapshot(), before);
    // Another notebook's export leaves these as they are.
    fixture.write(
        "notebooks/02_second.ipynb",
        &notebook(&[("a", "//| export other\n/// One.\npub fn one() {}")]),
    );
    assert!(!fixture.ok(&["export"]).contains("trip.rs"));

    // What is needed changes with the cells.
    fixture.set_cell(NB, "list", &lesson_with_len()[2].1.replace("list.len()", "list.len() + Road(2).len()"));
    fixture.set_cell(NB, "trip", &lesson_with_len()[3].1.replace("road.len()", "road.0"));
    fixture.ok(&["export"]);
    assert_eq!(list("minai/src/list.rs"), "use crate::kind::Long;\nuse crate::road::Road;");
    assert_eq!(list("minai/src/trip.rs"), "use crate::road::Road;");
}

#[test]
fn a_trait_that_was_left_out_comes_back_with_an_edit_of_the_file() {
    let fixture = Fixture::new();
    fixture.write(NB, &notebook(&lesson_with_len()));
    fixture.ok(&["export"]);
    let file = "minai/src/list.rs";
    fixture.replace(file, "list.len()", "list.len() + Road(1).len()");
    fixture.replace(file, "\n// %%", "\nuse crate::kind::Long;\nuse crate::road::Road;\n\n// %%");
    fixture.ok(&["update"]);
    assert!(fixture.source(NB, "list").contains("Road(1).len()"));
    assert!(fixture.ok(&["export"]).contains("Nothing to export"));
    fixture.ok(&["build"]);
}

#[test]
fn warnings_that_forbid_everything_do_not_stop_an_export() {
    let fixture = Fixture::new();
    fixture.replace("minai/src/lib.rs", "extern crate", "#![deny(warnings)]\nextern crate");
    fixture.write(NB, &notebook(&lesson_with_len()));
    fixture.ok(&["export"]);
    assert!(!fixture.read("minai/src/list.rs").contains("use "));
}

#[test]
fn one_bad_notebook_never_stops_the_others() {
    let second = "notebooks/02_second.ipynb";
    let cell = |text: &str| notebook(&[("a", text)]);
    let good = cell("//| export other\n/// Two.\npub fn two() -> u8 {\n    2\n}");
    let old = first_lesson();
    let bad_syntax = format!("{}\nlet x = 1;", old[2].1);
    let bad_code = old[2].1.replace("return None;", "return 5;");
    let with = |text: &str| {
        let mut cells = first_lesson().iter().map(|(id, t)| (*id, t.to_string())).collect::<Vec<_>>();
        cells[2].1 = text.to_owned();
        let cells: Vec<_> = cells.iter().map(|(id, t)| (*id, t.as_str())).collect();
        notebook(&cells)
    };
    let (bad_syntax, bad_code) = (with(&bad_syntax), with(&bad_code));
    let cases = [
        ("{", "its JSON is broken"),
        ("", "the file is empty"),
        ("<<<<<<< ours\n{}\n=======\n[]\n>>>>>>> theirs\n", "01_first.ipynb:1: git's conflict marks"),
        (bad_syntax.as_str(), "exported code must consist of items"),
        (bad_code.as_str(), "E0308"),
    ];
    for (bad, message) in cases {
        let fixture = Fixture::lesson();
        fixture.ok(&["export"]);
        let first = [ITER, MATRIX, LESSON].map(|path| fixture.read(path));
        fixture.write(NB, bad);
        fixture.write(second, &good);
        let text =
            fixture.fails(&["export"], &[message, "notebooks/01_first.ipynb not exported, because of"]);
        assert!(text.contains("wrote   minai/src/other.rs"), "{text}");
        assert_eq!([ITER, MATRIX, LESSON].map(|path| fixture.read(path)), first);
        let lib = fixture.read("minai/src/lib.rs");
        assert!(lib.contains("pub mod iter;\npub mod matrix;\n\n// 02_second\npub mod other;\n"), "{lib}");
        assert!(fixture.read("tests/Cargo.toml").contains("lesson_01_first"));
        fixture.ok(&["build"]);
        // By itself the good one has no problem at all.
        fixture.set_cell(second, "a", "//| export other\n/// A two.\npub fn two() -> u8 {\n    2 \n}");
        fixture.ok(&["export", "2"]);
        // The other commands do what they can, too.
        let rustfmts = fixture.nbs(&["fmt"]);
        let cleaned = fixture.nbs(&["clean"]);
        assert!(fixture.source(second, "a").ends_with("    2\n}"), "{}", rustfmts.text);
        let unreadable = !bad.contains("nbformat");
        for outcome in [rustfmts, cleaned].iter().filter(|_| unreadable) {
            assert!(outcome.code == 1 && outcome.text.contains(message), "{}", outcome.text);
        }
        fixture.ok(&["export", "2"]);
        fixture.replace("minai/src/other.rs", "A two.", "The two.");
        let updated = fixture.nbs(&["update"]);
        assert!(updated.text.contains("1 cell changed"), "{}", updated.text);
        assert!(fixture.source(second, "a").contains("The two."));
        // What does not compile is no problem here.
        if message != "E0308" {
            assert!(updated.code == 1 && updated.text.contains(message), "{}", updated.text);
        }
    }
}

#[test]
fn features_of_a_bad_notebooks_modules_stay() {
    let fixture = Fixture::lesson();
    let gated = "//| export gated\n//| feature extra\n/// Two.\npub fn two() -> u8 {\n    2\n}";
    fixture.write("notebooks/02_second.ipynb", &notebook(&[("a", gated)]));
    fixture.ok(&["export"]);
    fixture.write("notebooks/02_second.ipynb", "{");
    fixture.set_cell(NB, "rows", &ROWS.replace("How many", "Counts how many"));
    fixture.fails(&["export"], &["wrote   minai/src/matrix.rs"]);
    assert!(fixture.read("minai/src/lib.rs").contains("#[cfg(feature = \"extra\")]\npub mod gated;\n"));
    // Nor does a module go that a notebook would give another name, could it be exported.
    let renamed = gated.replace("export gated", "export other").replace("{\n    2", "{\n    2.0");
    fixture.write("notebooks/02_second.ipynb", &notebook(&[("a", &renamed)]));
    fixture.set_cell(NB, "rows", &ROWS.replace("How many", "The number of"));
    fixture.fails(&["export"], &["wrote   minai/src/matrix.rs", "E0308", "02_second.ipynb not exported"]);
    assert!(fixture.read("minai/src/lib.rs").contains("#[cfg(feature = \"extra\")]\npub mod gated;\n"));
}

#[test]
fn an_appendix_counts_as_its_lesson() {
    let fixture = Fixture::lesson();
    let one = |module: &str, uses: &str| {
        format!("//| export {module}\n{uses}/// One.\npub fn {module}() -> u8 {{\n    1\n}}")
    };
    let write = |name: &str, text: &str| {
        fixture.write(&format!("notebooks/{name}.ipynb"), &notebook(&[("a", text)]));
    };
    write("01b_more", &one("more", "use minai::matrix::rows;\n"));
    write("01c_most", &one("most", "use minai::more::more;\n"));
    write("02_next", &one("next_lesson", "use minai::most::most;\n"));
    fixture.ok(&["export"]);
    assert!(fixture.exists("tests/lesson_01_first.rs") && fixture.exists("minai/src/most.rs"));
    let later = |user: &str, module: &str, of: &str, name: &str| {
        let before = fixture.read(&format!("notebooks/{user}.ipynb"));
        write(user, &one(module, &format!("use minai::{of}::{of};\n")));
        let message = format!("module `{module}` uses `minai::{of}` of the later lesson {name}");
        fixture.fails(&["export"], &[&message]);
        fixture.write(&format!("notebooks/{user}.ipynb"), &before);
    };
    later("01_first", "main_part", "more", "01b_more");
    later("01b_more", "more", "most", "01c_most");
    later("01c_most", "most", "next_lesson", "02_next");
    // By number, an appendix is named with its letter.
    assert!(fixture.ok(&["export", "1b"]).contains("Nothing to export"));
    fixture.fails(&["export", "1d"], &["no notebook `1d`", "01b_more"]);
    fixture.ok(&["new", "02b_to_the_limit"]);
    fixture.ok(&["export", "02b"]);
    assert!(fixture.exists("minai/src/to_the_limit.rs"));
    fixture.fails(&["new", "02b_other"], &["notebooks/02b_to_the_limit.ipynb already has this number"]);
    fixture.fails(&["new", "02bc_other"], &["no name for a lesson"]);
}

#[test]
fn a_directive_of_another_form_is_shown_the_right_one() {
    let fixture = Fixture::new();
    // As other tools write them, and as one writes them by mistake.
    let cases = [
        ("#| export\npub fn f() {}", "cell `a`, line 1: `#| export` should read `//| export`"),
        ("// Words.\n// | export x\npub fn f() {}", "line 2: `// | export x` should read `//| export x`"),
        ("//export\npub fn f() {}", "line 1: `//export` should read `//| export`"),
        ("#export x", "`#export x` should read `//| export x`"),
        ("// default_exp x", "`// default_exp x` should read `//| default_exp x`"),
        ("#| default_exp x", "`#| default_exp x` should read `//| default_exp x`"),
        ("//|export x\n# hide\nfn f() {}", "line 2: `# hide` should read `//| hide`"),
    ];
    for (source, message) in cases {
        fixture.write(NB, &notebook(&[("a", source)]));
        for command in ["export", "check"] {
            fixture.fails(&[command], &[message]);
        }
    }
    // Words are words, and Rust is Rust.
    let fine = [
        "// export the picture\nlet x = 1;",
        "// test that it works\n#[derive(Clone)]\nstruct S;",
        "//slow and steady\nlet x = 1;",
        "// a | b | c\nlet x = 1;",
        "#![allow(dead_code)]\nfn f() {}",
        "let x = 1;\n//export",
    ];
    for source in fine {
        fixture.write(NB, &notebook(&[("a", source)]));
        fixture.ok(&["export"]);
    }
}

/// Modules of this crate know only modules below them.
#[test]
fn no_modules_need_each_other() {
    const MODULES: [&str; 18] = [
        "cargo",
        "check",
        "clean",
        "code",
        "diff",
        "directives",
        "emit",
        "export",
        "exported",
        "files",
        "fmt",
        "lesson",
        "merge",
        "names",
        "notebook",
        "plan",
        "shadow",
        "workspace",
    ];
    let uses = |module: &str| -> Vec<String> {
        let path = format!("{}/src/{module}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let paths = nbs_export::names::crate_paths(&text, "nbs_export");
        paths.into_iter().map(|(_, name)| name).filter(|name| name != module).collect()
    };
    let mut left: Vec<&str> = MODULES.to_vec();
    while !left.is_empty() {
        let lowest = left.iter().position(|m| !uses(m).iter().any(|u| left.contains(&u.as_str())));
        left.remove(lowest.unwrap_or_else(|| panic!("{left:?} hang together in a circle")));
    }
}
