//! `nbs check`, `fmt`, `clean`, `new` and the merge driver.

mod common;

use std::path::Path;
use std::process::Command;

use common::{Fixture, ROWS, TEST, first_lesson, notebook, notebook_json, stamp, to_text};
use nbs_export::notebook::Notebook;
use serde_json::{Value, json};

const NB: &str = "notebooks/01_first.ipynb";

/// A workspace in which `check` has nothing to say.
fn tidy() -> Fixture {
    let fixture = Fixture::lesson();
    fixture.ok(&["export"]);
    stamp(&fixture, NB);
    fixture.ok(&["check"]);
    fixture
}

/// Changes the JSON of the notebook.
fn edit(fixture: &Fixture, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_str(&fixture.read(NB)).unwrap();
    change(&mut json);
    fixture.write(NB, &to_text(&json));
}

#[test]
fn check_lists_every_problem_with_a_diff() {
    let fixture = tidy();
    fixture.replace("minai/src/matrix.rs", ".count()", ".count() + 0");
    edit(&fixture, |nb| {
        nb["cells"][1]["execution_count"] = json!(7);
        nb["cells"][2]["source"][2] = json!("/// Parts of a slice.\n");
        nb["cells"][2]["source"][8] = json!("        if self.0.len() == 0 {\n");
        nb["cells"][4]["outputs"] =
            json!([{ "output_type": "error", "ename": "E0308", "evalue": "mismatched", "traceback": [] }]);
        nb["cells"][5]["outputs"] = json!([{ "output_type": "stream", "name": "stderr", "text": ["\n", "thread 'main' (17) panicked at src/lib.rs:3:5:\n"] }]);
    });
    fixture.write("minai/src/stray.rs", &fixture.read("minai/src/matrix.rs").replace("01_first", "00_gone"));
    let text = fixture.fails(
        &["check"],
        &[
            "minai/src/iter.rs differs from its notebook; `cargo nbs export`",
            "-/// Pieces of a slice.\n+/// Parts of a slice.",
            "minai/src/matrix.rs was edited since it was exported; `cargo nbs update`",
            "+    Chunks(data, width).count() + 0",
            "minai/src/stray.rs was edited",
            "01_first.ipynb is not clean; `cargo nbs clean 01_first`",
            "-   \"execution_count\": 7,",
            "cell `rows`: its saved output is a failure",
            "E0308: mismatched",
            "cell `five`: its saved output is a failure",
            "panicked at src/lib.rs:3:5",
            "outputs are stale",
            "cells `chunks`, `rows`, `five`; `cargo nbs run 01_first`",
            "7 problems found",
        ],
    );
    assert!(!text.contains("setup`"), "{text}");
}

#[test]
fn failures_are_fine_where_they_are_meant() {
    let fixture = Fixture::new();
    let panic = json!([{ "output_type": "stream", "name": "stderr", "text": ["thread 'main' panicked at 'x', a.rs:1\n"] }]);
    let error = json!([{ "output_type": "error", "ename": "Error", "evalue": "borrow of moved value", "traceback": [] }]);
    let cells = [
        ("panics", "//| should_panic\npanic!();"),
        ("moved", "//| compile_fail E0382\nlet v = vec![1];\ndrop(v);\nv.len()"),
        ("broken", "//| compile_fail\nlet = 5"),
        ("never", "//| eval: false\nloop_forever();"),
    ];
    fixture.write(NB, &notebook(&cells));
    edit(&fixture, |nb| {
        nb["cells"][0]["outputs"] = panic.clone();
        nb["cells"][1]["outputs"] = error.clone();
    });
    stamp(&fixture, NB);
    // A cell that is not executed has no hash.
    edit(&fixture, |nb| nb["cells"][3]["metadata"] = json!({}));
    fixture.ok(&["check"]);
    edit(&fixture, |nb| nb["cells"][0]["source"] = json!(["panic!();"]));
    fixture.fails(&["check"], &["cell `panics`: its saved output is a failure"]);
}

#[test]
fn only_cells_below_a_change_are_stale() {
    let fixture = Fixture::new();
    fixture.write(
        NB,
        &notebook(&[("a", "let x = 1;"), ("md-a", "Text."), ("b", "let y = x;"), ("c", "let z = y;")]),
    );
    fixture.fails(&["check"], &["cells `a`, `b`, `c`"]);
    stamp(&fixture, NB);
    fixture.ok(&["check"]);
    fixture.set_cell(NB, "md-a", "Other text.");
    fixture.ok(&["check"]);
    fixture.set_cell(NB, "b", "let y = x + 1;");
    let text = fixture.fails(&["check"], &["cells `b`, `c`"]);
    assert!(!text.contains("`a`"), "{text}");
    fixture.set_cell(NB, "b", "let y = x;");
    fixture.ok(&["check"]);
}

#[test]
fn formatting_does_not_make_outputs_stale() {
    let fixture = Fixture::new();
    fixture.write(NB, &notebook(&[("a", "let x  = 1;"), ("b", "let y = x;"), ("c", "let z=y;")]));
    stamp(&fixture, NB);
    fixture.ok(&["fmt"]);
    assert_eq!(fixture.source(NB, "a"), "let x = 1;");
    fixture.ok(&["check"]);
    fixture.set_cell(NB, "b", "let y=x+1;");
    fixture.ok(&["fmt"]);
    let text = fixture.fails(&["check"], &["cells `b`, `c`"]);
    assert!(!text.contains("`a`"), "{text}");
}

#[test]
fn code_is_brought_into_rustfmts_form() {
    let fixture = Fixture::new();
    let cells = [
        ("deps", ":dep rand = \"0.10\"\n:dep x={path=\"../x\"}\n\nuse   std::fmt;"),
        ("shell", "!ls -l  ../data\n!date"),
        ("items", "//| default_exp a\n//| export\n\npub fn f( )->u8{1}\npub struct  S;"),
        ("mixed", "fn g()->u8{f( )}\nlet x=g();\nx"),
        ("text", "let t=r#\"\n  keep\n      this\n\"#;let u=\"a\nb\";\n/* a\n   b */\nt.len()+u.len()"),
        ("test", "//| test t\nfn h(){}\nh( );"),
        ("broken", "//| compile_fail\nlet x = ;"),
        ("comment", "// Nothing but words."),
        ("empty", ""),
    ];
    fixture.write(NB, &notebook(&cells));
    let before = fixture.snapshot();
    let text =
        fixture.fails(&["fmt", "--check"], &["cell `items`", "-pub fn f( )->u8{1}", "+pub fn f() -> u8 {"]);
    assert!(
        !text.contains("cell `shell`") && !text.contains("cell `comment`") && !text.contains("`empty`"),
        "{text}"
    );
    assert_eq!(fixture.snapshot(), before);
    fixture.fails(&["check"], &["cell `mixed` is not in rustfmt's form"]);
    fixture.ok(&["fmt"]);
    assert_eq!(fixture.source(NB, "deps"), ":dep rand = \"0.10\"\n:dep x={path=\"../x\"}\n\nuse std::fmt;");
    assert_eq!(
        fixture.source(NB, "items"),
        "//| default_exp a\n//| export\npub fn f() -> u8 {\n    1\n}\npub struct S;"
    );
    assert_eq!(fixture.source(NB, "mixed"), "fn g() -> u8 {\n    f()\n}\nlet x = g();\nx");
    let expected = "let t = r#\"\n  keep\n      this\n\"#;\nlet u = \"a\nb\";\n/* a\nb */\nt.len() + u.len()";
    assert_eq!(fixture.source(NB, "text"), expected);
    assert_eq!(fixture.source(NB, "test"), "//| test t\nfn h() {}\nh();");
    assert_eq!(fixture.source(NB, "shell"), "!ls -l  ../data\n!date");
    let formatted = fixture.snapshot();
    fixture.ok(&["fmt"]);
    fixture.ok(&["fmt", "--check"]);
    assert_eq!(fixture.snapshot(), formatted);
    // What rustfmt likes in cells it also likes in the files.
    fixture.set_cell(NB, "deps", "use std::fmt;");
    fixture.ok(&["export"]);
    let output = fixture.command("cargo").args(["fmt", "--all", "--check"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    for broken in ["let x = (;", "} fn escape( ) {", "let x = 5 6;"] {
        fixture.set_cell(NB, "mixed", broken);
        fixture.fails(&["fmt"], &["cell `mixed`: rustfmt cannot read it"]);
        assert_eq!(fixture.source(NB, "mixed"), broken);
    }
    fixture.write("rustfmt.toml", "max_width = \"wide\"\n");
    fixture.fails(&["fmt"], &["rustfmt failed"]);
}

/// A notebook as JupyterLab leaves it after a session in which nothing was changed.
fn noisy(cells: &[common::CellText]) -> Value {
    let mut json = notebook_json(cells);
    json["metadata"] = json!({
        "kernelspec": { "display_name": "Rust", "language": "rust", "name": "rust" },
        "language_info": { "name": "Rust", "version": "1.95" },
        "widgets": { "state": {} }, "toc": {}, "vscode": { "x": 1 }
    });
    for (i, cell) in json["cells"].as_array_mut().unwrap().iter_mut().enumerate() {
        cell["metadata"] = json!({
            "ExecuteTime": { "end_time": "now" }, "execution": { "iopub.execute_input": "now" }, "collapsed": true,
            "scrolled": true, "trusted": true, "jupyter": { "outputs_hidden": true }, "tags": []
        });
        if cell["cell_type"] == "code" {
            cell["execution_count"] = json!(i + 40);
        }
    }
    json
}

#[test]
fn a_session_in_jupyterlab_leaves_no_trace() {
    let fixture = Fixture::lesson();
    let clean = fixture.read(NB);
    fixture.write(NB, &to_text(&noisy(&first_lesson())));
    fixture.fails(&["clean", "--check"], &["01_first.ipynb is not clean", "ExecuteTime"]);
    fixture.ok(&["clean"]);
    assert_eq!(fixture.read(NB), clean);
    fixture.ok(&["clean", "--check"]);
}

#[test]
fn outputs_and_what_authors_set_stay() {
    let fixture = Fixture::lesson();
    edit(&fixture, |nb| {
        nb["cells"][1]["metadata"] = json!({ "tags": ["answer"], "jupyter": { "source_hidden": true, "outputs_hidden": true, "y": 1 }, "alt": "A picture", "x": 1 });
        nb["cells"][1]["outputs"] = json!([
            { "output_type": "stream", "name": "stdout", "text": ["a\n"] },
            { "output_type": "stream", "name": "stdout", "text": "b\nc" },
            { "output_type": "stream", "name": "stderr", "text": [] },
            { "output_type": "display_data", "transient": { "display_id": "1" }, "metadata": { "image/png": { "alt": "A plot" } },
              "data": { "image/png": "aGVsbG8=\n", "text/plain": "one\ntwo", "application/json": { "z": [1e-5, 1e16, 0.5], "a": null } } },
            { "output_type": "execute_result", "execution_count": 3, "metadata": {}, "data": { "text/html": ["<b>", "x</b>"] } },
            { "output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\u{1b}[31mred\u{1b}[0m\u{7f}"] }
        ]);
        nb["cells"][4]["source"] = common::lines(&format!("//| hide\n{ROWS}"));
    });
    fixture.ok(&["clean"]);
    let text = fixture.read(NB);
    let json: Value = serde_json::from_str(&text).unwrap();
    let cell = &json["cells"][1];
    assert_eq!(
        cell["metadata"],
        json!({ "tags": ["answer"], "jupyter": { "source_hidden": true }, "alt": "A picture" })
    );
    let outputs = cell["outputs"].as_array().unwrap();
    assert_eq!(outputs[0]["text"], json!(["a\n", "b\n", "c"]));
    assert_eq!(outputs[1], json!({ "name": "stderr", "output_type": "stream", "text": [] }));
    assert_eq!(outputs[2]["data"]["text/plain"], json!(["one\n", "two"]));
    assert_eq!(outputs[2]["data"]["image/png"], "aGVsbG8=\n");
    assert_eq!(outputs[2]["metadata"], json!({ "image/png": { "alt": "A plot" } }));
    assert!(outputs[2].get("transient").is_none());
    assert_eq!(outputs[3]["execution_count"], Value::Null);
    assert_eq!(outputs[3]["data"]["text/html"], json!(["<b>x</b>"]));
    assert!(
        text.contains("1e-05") && text.contains("1e+16") && text.contains("\\u001b[31mred\\u001b[0m\u{7f}")
    );
    assert_eq!(
        json["cells"][4]["metadata"],
        json!({ "jupyter": { "outputs_hidden": true, "source_hidden": true } })
    );
    fixture.ok(&["clean"]);
    assert_eq!(fixture.read(NB), text);
}

/// `jupyter.ipynb` was written by nbformat 5, with everything in it that other writers do differently: where text is
/// split, how floats look, what is escaped, the order of keys.
#[test]
fn a_notebook_that_jupyter_wrote_comes_out_byte_for_byte() {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/jupyter.ipynb"));
    let text = std::fs::read_to_string(path).unwrap();
    let mut notebook = Notebook::load(path).unwrap();
    assert_eq!(notebook.to_text(), text);
    nbs_export::clean::clean(&mut notebook);
    assert_eq!(notebook.to_text(), text);
}

#[test]
fn ids_are_given_where_they_are_missing_wrong_or_twice() {
    let fixture = Fixture::new();
    let cells = [("a", "let x = 1;"), ("a", "let y = 1;"), ("b", "let z = 1;"), ("not an id!", "let w = 1;")];
    fixture.write(NB, &notebook(&cells));
    edit(&fixture, |nb| drop(nb["cells"][2].as_object_mut().unwrap().remove("id")));
    fixture.ok(&["clean"]);
    let json: Value = serde_json::from_str(&fixture.read(NB)).unwrap();
    let ids: Vec<_> = json["cells"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids[0], "a");
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), 4, "{ids:?}");
    assert!(ids[1..].iter().all(|id| id.len() == 8 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{ids:?}");
}

#[test]
fn ten_megabytes_of_output_are_no_problem() {
    let fixture = tidy();
    let line = format!("{}\n", "0123456789".repeat(10));
    edit(&fixture, |nb| {
        nb["cells"][1]["outputs"] = json!([
            { "output_type": "stream", "name": "stdout", "text": vec![line.clone(); 100_000] },
            { "output_type": "display_data", "metadata": {}, "data": { "image/png": "A".repeat(10_000_000) } }
        ]);
    });
    let text = fixture.read(NB);
    assert!(text.len() > 20_000_000);
    for command in ["check", "export", "fmt", "clean", "update"] {
        fixture.ok(&[command]);
    }
    assert!(fixture.read(NB) == text, "the notebook has changed");
    // A diff does not print a picture.
    edit(&fixture, |nb| nb["cells"][1]["outputs"][1]["transient"] = json!({}));
    assert!(fixture.fails(&["check"], &["is not clean"]).len() < 10_000);
}

#[test]
fn a_new_lesson_is_clean_formatted_and_exports() {
    let fixture = Fixture::new();
    fixture.ok(&["new", "03_conv_nets"]);
    fixture.ok(&["clean", "--check"]);
    fixture.ok(&["fmt", "--check"]);
    fixture.ok(&["export"]);
    assert!(fixture.exists("minai/src/conv_nets.rs") && fixture.exists("tests/lesson_03_conv_nets.rs"));
    fixture.fails(&["new", "03_other"], &["notebooks/03_conv_nets.ipynb already has this number"]);
    fixture.fails(&["new", "topic"], &["`topic` is no name for a lesson"]);
}

fn merge(base: &str, ours: &str, theirs: &str) -> (i32, Value, String) {
    let (code, text, message) = merge_texts(base, ours, theirs);
    (code, serde_json::from_str(&text).unwrap(), message)
}

/// What the merge driver writes, as text.
fn merge_texts(base: &str, ours: &str, theirs: &str) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let [b, o, t] = ["base", "ours", "theirs"].map(|n| folder.path().join(n));
    for (path, text) in [(&b, base), (&o, ours), (&t, theirs)] {
        std::fs::write(path, text).unwrap();
    }
    let output =
        Command::new(env!("CARGO_BIN_EXE_nbs")).arg("merge").args([&b, &o, &t]).arg(NB).output().unwrap();
    let text = std::fs::read_to_string(&o).unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().unwrap(), text, message)
}

fn texts(notebook: &Value) -> Vec<(String, String)> {
    let cells = notebook["cells"].as_array().unwrap().iter();
    let text =
        |c: &Value| c["source"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect::<String>();
    cells.map(|c| (c["id"].as_str().unwrap().to_owned(), text(c))).collect()
}

fn ids(notebook: &Value) -> Vec<String> {
    texts(notebook).into_iter().map(|(id, _)| id).collect()
}

const BASE: [common::CellText; 4] = [("a", "1"), ("b", "2\n2\n2"), ("c", "3"), ("d", "4")];

#[test]
fn changes_of_different_cells_merge() {
    let base = notebook(&BASE);
    let ours = notebook(&[("a", "1 + 1"), ("b", "2\n2\n2"), ("new-ours", "x"), ("c", "3"), ("d", "4")]);
    let theirs =
        notebook(&[("b", "2\n2\n2"), ("a", "1"), ("c", "3 + 3"), ("new-theirs", "y"), ("md-z", "z")]);
    let (code, merged, message) = merge(&base, &ours, &theirs);
    assert_eq!(code, 0, "{message}");
    assert_eq!(ids(&merged), ["b", "new-ours", "a", "c", "new-theirs", "md-z"]);
    assert_eq!(texts(&merged)[2].1, "1 + 1");
    assert_eq!(texts(&merged)[3].1, "3 + 3");
}

#[test]
fn one_cell_changed_on_both_sides_merges_by_line_or_holds_both() {
    let base = notebook(&[("b", "first\n\nsecond\n\nthird")]);
    let ours = notebook(&[("b", "first!\n\nsecond\n\nthird")]);
    let (code, merged, message) = merge(&base, &ours, &notebook(&[("b", "first\n\nsecond\n\nthird!")]));
    assert_eq!((code, texts(&merged)[0].1.as_str()), (0, "first!\n\nsecond\n\nthird!"), "{message}");
    let (code, merged, message) =
        merge(&base, &ours, &notebook(&[("b", "first?\n\nsecond\n\nthird"), ("c", "new")]));
    assert_eq!(code, 1);
    assert!(message.contains("01_first.ipynb, cell `b`: both sides changed it"), "{message}");
    let text = "<<<<<<< ours\nfirst!\n=======\nfirst?\n>>>>>>> theirs\n\nsecond\n\nthird";
    assert_eq!(texts(&merged), [("b".to_owned(), text.to_owned()), ("c".to_owned(), "new".to_owned())]);
}

#[test]
fn a_cell_that_one_side_deleted_and_the_other_changed_stays() {
    let base = notebook(&BASE);
    let deleted = notebook(&[("a", "1"), ("c", "3")]);
    let (code, merged, _) = merge(&base, &deleted, &notebook(&BASE));
    assert_eq!((code, ids(&merged)), (0, vec!["a".to_owned(), "c".to_owned()]));
    let changed = notebook(&[("a", "1"), ("b", "two"), ("c", "3"), ("d", "4")]);
    for (ours, theirs) in [(&deleted, &changed), (&changed, &deleted)] {
        let (code, merged, message) = merge(&base, ours, theirs);
        assert_eq!((code, ids(&merged)), (1, vec!["a".to_owned(), "b".to_owned(), "c".to_owned()]));
        assert!(message.contains("cell `b`: one side deleted it"), "{message}");
    }
}

#[test]
fn outputs_and_noise_are_never_in_conflict() {
    let with = |out: &str, count: u64| {
        let mut json = notebook_json(&BASE);
        json["cells"][0]["outputs"] = json!([{ "output_type": "stream", "name": "stdout", "text": [out] }]);
        json["cells"][0]["execution_count"] = json!(count);
        json["metadata"]["toc"] = json!(count);
        to_text(&json)
    };
    let (code, merged, message) = merge(&with("a", 1), &with("b", 2), &with("c", 3));
    assert_eq!(code, 0, "{message}");
    assert_eq!(merged["cells"][0]["outputs"][0]["text"], json!(["b"]));
    let (_, merged, _) = merge(&with("a", 1), &with("a", 2), &with("c", 3));
    assert_eq!(merged["cells"][0]["outputs"][0]["text"], json!(["c"]));
    assert_eq!(merged["nbformat"], 4);
}

#[test]
fn git_merges_notebooks_by_cell_and_refuses_unclean_ones() {
    let fixture = Fixture::lesson();
    // The hook and the driver call `cargo nbs`, which here is the program under test.
    let nbs = env!("CARGO_BIN_EXE_nbs");
    let bin = fixture.path("bin/cargo");
    fixture.write("bin/cargo", &format!("#!/bin/sh\nshift\nexec '{nbs}' \"$@\"\n"));
    Command::new("chmod").arg("+x").arg(&bin).status().unwrap();
    let path = format!("{}:{}", bin.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let git = |args: &[&str]| {
        let mut command = fixture.command("git");
        command
            .args(["-c", "user.name=Reader", "-c", "user.email=reader@example.org"])
            .args(args)
            .env("PATH", &path);
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|t| String::from_utf8_lossy(&t).into_owned()).concat();
        (output.status.success(), text)
    };
    let must = |args: &[&str]| {
        let (ok, text) = git(args);
        assert!(ok, "git {args:?}: {text}");
        text
    };
    must(&["init", "-q", "-b", "main"]);
    fixture.ok(&["clean", "--install-hook"]);
    fixture.ok(&["clean", "--install-hook"]);
    assert_eq!(fixture.read(".gitattributes"), "*.ipynb merge=nbs\n");
    must(&["add", "notebooks", ".gitattributes"]);
    must(&["commit", "-qm", "a lesson"]);

    let clean = fixture.read(NB);
    fixture.write(NB, &to_text(&noisy(&first_lesson())));
    must(&["add", NB]);
    let (ok, text) = git(&["commit", "-qm", "noise"]);
    assert!(!ok && text.contains("01_first.ipynb is not clean as staged"), "{text}");
    fixture.write(NB, &clean);
    must(&["add", NB]);

    must(&["checkout", "-qb", "other"]);
    fixture.set_cell(NB, "rows", &ROWS.replace("How many", "Counts how many"));
    must(&["commit", "-qam", "rows"]);
    must(&["checkout", "-q", "main"]);
    fixture.set_cell(NB, "chunks", &common::CHUNKS.replace("Pieces", "Parts"));
    fixture.set_cell(NB, "five", &TEST.replace("let mut chunks", "let mut chunks: Chunks"));
    must(&["commit", "-qam", "chunks"]);
    must(&["merge", "-q", "-m", "both", "other"]);
    assert!(
        fixture.source(NB, "rows").contains("Counts how many")
            && fixture.source(NB, "chunks").contains("Parts")
    );

    must(&["checkout", "-qb", "third", "HEAD~1"]);
    fixture.set_cell(NB, "rows", &ROWS.replace("How many", "The number of"));
    must(&["commit", "-qam", "rows again"]);
    let (ok, text) = git(&["merge", "-m", "conflict", "main"]);
    assert!(!ok && text.contains("cell `rows`: both sides changed it"), "{text}");
    assert!(fixture.source(NB, "rows").contains("<<<<<<< ours\n"));
    serde_json::from_str::<Value>(&fixture.read(NB)).unwrap();
    fixture.fails(&["check"], &["cell `rows`, line 2: git's conflict marks: keep one version"]);

    // In a clone without the driver, git leaves its marks in the JSON; what the message says mends that.
    must(&["merge", "--abort"]);
    must(&["config", "--remove-section", "merge.nbs"]);
    for branch in ["left", "right"] {
        must(&["checkout", "-q", "-b", branch, "main"]);
        let output = json!([{ "output_type": "stream", "name": "stdout", "text": [branch] }]);
        edit(&fixture, |nb| nb["cells"][5]["outputs"] = output);
        must(&["commit", "-qam", branch]);
    }
    assert!(!git(&["merge", "-q", "-m", "both", "left"]).0);
    fixture.fails(
        &["check"],
        &["git's conflict marks", "`git checkout --merge`", "`cargo nbs clean --install-hook`"],
    );
    fixture.ok(&["clean", "--install-hook"]);
    must(&["checkout", "--merge", NB]);
    let json: Value = serde_json::from_str(&fixture.read(NB)).unwrap();
    assert_eq!(json["cells"][5]["outputs"][0]["text"], json!(["right"]));
}

#[test]
fn a_hook_of_the_readers_own_is_not_replaced() {
    let fixture = Fixture::lesson();
    fixture.git(&["init", "-q"]);
    fixture.write(".git/hooks/pre-commit", "#!/bin/sh\necho mine\n");
    fixture.fails(
        &["clean", "--install-hook"],
        &["a hook of your own", "cargo nbs clean --check --staged || exit 1"],
    );
    assert_eq!(fixture.read(".git/hooks/pre-commit"), "#!/bin/sh\necho mine\n");
}

#[test]
fn help_names_every_command() {
    let fixture = Fixture::new();
    let help = fixture.ok(&["--help"]);
    for command in [
        "export", "check", "update", "run", "test", "build", "fmt", "clean", "new", "kernel", "doctor",
        "lab", "merge",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        fixture.ok(&[command, "--help"]);
    }
}

/// Output as other programs save it: NaN and infinities, which JSON does not have, and half an emoji.
const PYTHONS_JSON: &str = r#"{
 "cells": [
  {
   "cell_type": "code",
   "execution_count": null,
   "id": "plot",
   "metadata": {},
   "outputs": [
    {
     "data": {
      "application/vnd.plotly.v1+json": {
       "y": [
        1.0,
        NaN,
        -Infinity,
        Infinity
       ]
      }
     },
     "metadata": {},
     "output_type": "display_data"
    },
    {
     "name": "stdout",
     "output_type": "stream",
     "text": [
      "NaN \ud83d"
     ]
    }
   ],
   "source": [
    "let x = \"NaN\";"
   ]
  }
 ],
 "metadata": {
  "kernelspec": {
   "display_name": "Rust (minai)",
   "language": "rust",
   "name": "minai"
  },
  "language_info": {
   "codemirror_mode": "rust",
   "file_extension": ".rs",
   "mimetype": "text/rust",
   "name": "Rust",
   "pygment_lexer": "rust",
   "version": ""
  }
 },
 "nbformat": 4,
 "nbformat_minor": 5
}
"#;

#[test]
fn outputs_that_only_python_can_read_stop_nothing_and_stay() {
    let fixture = tidy();
    let other = "notebooks/64_nan.ipynb";
    fixture.write(other, PYTHONS_JSON);
    for command in ["export", "update", "fmt", "clean", "build"] {
        fixture.ok(&[command]);
        assert_eq!(fixture.read(other), PYTHONS_JSON, "{command}");
    }
    // Its outputs have not been made by `nbs run`.
    fixture.fails(&["check"], &["notebooks/64_nan.ipynb: the outputs are stale", "1 problem found"]);
    fixture.replace(other, "let x = \\\"NaN\\\";", "let x=1;");
    fixture.ok(&["fmt"]);
    assert_eq!(fixture.read(other), PYTHONS_JSON.replace("\\\"NaN\\\"", "1"));
    // In the text of a cell there is no use for it.
    fixture.replace(other, "let x = 1;", "let x = \\\"\\ud83d\\\";");
    fixture.fails(&["check"], &["64_nan.ipynb, cell `plot`, line 1: half of a character"]);
    let (code, merged, message) =
        merge_texts(PYTHONS_JSON, PYTHONS_JSON, &PYTHONS_JSON.replace("let x", "let y"));
    assert_eq!((code, merged), (0, PYTHONS_JSON.replace("let x", "let y")), "{message}");
}

#[test]
fn a_notebook_of_another_language_is_left_alone() {
    let fixture = tidy();
    let python = "notebooks/05_python.ipynb";
    let mut json =
        notebook_json(&[("a", "#| default_exp x\n#| export\ndef f(): pass"), ("a", "%matplotlib inline")]);
    let kernel = json!({ "display_name": "Python 3", "language": "python", "name": "python3" });
    let info = json!({ "name": "python" });
    for metadata in [
        json!({ "kernelspec": kernel }),
        json!({ "language_info": info }),
        json!({ "kernelspec": kernel, "language_info": info }),
    ] {
        json["metadata"] = metadata;
        json["cells"][0]["execution_count"] = json!(7);
        fixture.write(python, &to_text(&json));
        for command in ["export", "check", "update", "fmt", "clean", "build"] {
            let text = fixture.ok(&[command]);
            assert!(!text.contains("05_python"), "{text}");
        }
        for command in ["export", "check", "fmt", "clean", "run", "test"] {
            for name in ["05_python", python] {
                fixture.fails(
                    &[command, name],
                    &["notebooks/05_python.ipynb is a notebook of another language"],
                );
            }
        }
        assert_eq!(fixture.read(python), to_text(&json));
    }
    // One without a language is a lesson.
    json["metadata"] = json!({});
    fixture.write(python, &to_text(&json));
    fixture.fails(&["export"], &["`#| default_exp x` should read `//| default_exp x`"]);
}

#[test]
fn what_an_exercises_check_uses_is_defined_in_a_visible_cell() {
    let fixture = Fixture::new();
    let cells = [
        ("setup", "//| hide\nuse std::path::Path;\n\nlet hidden = 1;"),
        ("shown", "let (rows, mut more) = (1, 2);\nfn seen() {}"),
        ("answer", "//| hide\nlet rows_of_answer = 3;"),
        (
            "mine",
            "fn sum() -> i32 {\n    todo!()\n}\n\n// When it is written, take the slashes away:\n// check_sum(sum, &rows, |x| x + more, Path::new(\"a\"), Some(Box::new(seen)), std::mem::take);\n// check_sum(\n//     sum, &rows_of_answer,\n// );\n// check that rows_of_answer and hidden are fine",
        ),
        ("check", "fn check_later() {}"),
    ];
    fixture.write(NB, &notebook(&cells));
    fixture.ok(&["clean"]);
    stamp(&fixture, NB);
    let text = fixture
        .fails(&["check"], &["cell `mine`, line 6: this check uses `check_sum`, which no visible cell"]);
    assert!(
        text.contains("cell `mine`, line 7: this check uses `check_sum`, `rows_of_answer`, which"),
        "{text}"
    );
    assert!(text.contains("2 problems found"), "{text}");
    fixture.set_cell(
        NB,
        "shown",
        "let (rows, mut more) = (1, 2);\nfn seen() {}\nfn check_sum() {}\nlet rows_of_answer = 3;",
    );
    stamp(&fixture, NB);
    fixture.ok(&["check"]);
    // Below the check is too late.
    fixture.set_cell(NB, "shown", "let (rows, mut more) = (1, 2);\nfn seen() {}\nfn check_sum() {}");
    fixture.set_cell(NB, "check", "let rows_of_answer = 3;");
    stamp(&fixture, NB);
    fixture.fails(&["check"], &["line 7: this check uses `rows_of_answer`, which"]);
}

#[test]
fn long_cells_are_counted_and_listed() {
    let fixture = Fixture::new();
    let of = |n: usize| (0..n).map(|i| format!("let x{i} = {i};")).collect::<Vec<_>>().join("\n");
    let (fits, long, longer) = (format!("//| hide\n//| slow\n{}", of(25)), of(26), of(40));
    fixture.write(NB, &notebook(&[("fits", &fits), ("long", &long), ("longer", &longer)]));
    fixture.ok(&["clean"]);
    stamp(&fixture, NB);
    let text = fixture.ok(&["check"]);
    let list = "2 cells have more than 25 lines, which is more than one sees at a time:\n  01_first: `long` 26, `longer` 40\n";
    assert!(text.contains(list) && text.contains("All is in order"), "{text}");
    fixture.set_cell(NB, "longer", "let x = 1;");
    fixture.set_cell(NB, "long", "let x = 1;");
    stamp(&fixture, NB);
    assert!(!fixture.ok(&["check"]).contains("more than 25"));
}

/// The notebook as a program saves it that knows no ids, or (with a prefix) gives every cell a new one.
fn without_ids(text: &str, prefix: Option<&str>) -> String {
    let mut json: Value = serde_json::from_str(text).unwrap();
    json["nbformat_minor"] = json!(if prefix.is_some() { 5 } else { 2 });
    for (i, cell) in json["cells"].as_array_mut().unwrap().iter_mut().enumerate() {
        match prefix {
            Some(prefix) => cell["id"] = json!(format!("{prefix}{i}")),
            None => drop(cell.as_object_mut().unwrap().remove("id")),
        }
    }
    to_text(&json)
}

#[test]
fn a_side_that_lost_its_cell_ids_is_matched_by_place_and_text() {
    let base = notebook(&BASE);
    let ours = notebook(&[("a", "1 + 1"), ("b", "2\n2\n2"), ("c", "3"), ("d", "4")]);
    // A cell changed, one is new, one is gone.
    let theirs = notebook(&[("a", "1"), ("b", "2\n2\n2"), ("c", "3 + 3"), ("d", "4"), ("md-new", "words")]);
    for prefix in [None, Some("cell-")] {
        let (code, merged, message) = merge(&base, &ours, &without_ids(&theirs, prefix));
        assert_eq!(code, 0, "{message}");
        let texts = texts(&merged);
        assert_eq!(
            texts.iter().map(|t| t.1.as_str()).collect::<Vec<_>>(),
            ["1 + 1", "2\n2\n2", "3 + 3", "4", "words"]
        );
        assert_eq!(ids(&merged)[..4], ["a", "b", "c", "d"]);
        // The other way round.
        let (code, merged, message) = merge(&base, &without_ids(&theirs, prefix), &ours);
        assert_eq!(code, 0, "{message}");
        assert_eq!(ids(&merged)[..4], ["a", "b", "c", "d"]);
        assert_eq!(self::texts(&merged)[0].1, "1 + 1");
    }
    // Both sides got ids that the ancestor did not have.
    let (code, merged, message) = merge(&without_ids(&base, None), &ours, &theirs);
    assert_eq!((code, ids(&merged).len()), (0, 5), "{message}");
}

#[test]
fn cells_that_cannot_be_matched_are_told() {
    let base = notebook(&BASE);
    let ours = notebook(&[("a", "1 + 1"), ("b", "2\n2\n2"), ("c", "3"), ("d", "4")]);
    // The last cell became two, both different.
    let theirs = without_ids(
        &notebook(&[("x", "1"), ("y", "2\n2\n2"), ("z", "3"), ("u", "six"), ("v", "seven")]),
        None,
    );
    let (code, _, message) = merge(&base, &ours, &theirs);
    assert_eq!(code, 1);
    assert!(message.contains("01_first.ipynb, theirs lost the ids of its cells"), "{message}");
    assert!(message.contains("except for 2 of 5"), "{message}");
    // Another notebook altogether.
    let theirs = without_ids(&notebook(&[("x", "x"), ("y", "y"), ("z", "z"), ("u", "4")]), None);
    let (code, merged, message) = merge(&base, &ours, &theirs);
    assert_eq!(code, 1);
    assert!(message.contains("except for 4 of 4"), "{message}");
    assert!(texts(&merged).iter().any(|(_, text)| text == "1 + 1"));
}
