//! With a real kernel: `cargo nbs kernel install --no-user`, then `cargo test -p nbs_export --test kernel -- --ignored`.
//!
//! A small workspace of the tests' own stands in for the course's: a crate `minai` with a counter and little else.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use nbs_export::kernel::{Dirs, Rust, leave_network, search_evcxr};
use serde_json::{Value, json};

const DEPS: &str = ":dep minai-kernel = { path = \"../nbs_export/kernel\" }\n:dep ndarray = \"0.17\"";

const CRATE: &str = "\
extern crate self as minai;
use std::sync::atomic::{AtomicUsize, Ordering};
static COUNT: AtomicUsize = AtomicUsize::new(0);
pub fn count() -> usize { COUNT.fetch_add(1, Ordering::SeqCst) + 1 }
pub fn ramp(n: usize) -> ndarray::Array1<f32> { (0..n).map(|i| i as f32).collect() }
pub fn answer() -> u32 { 42 }
pub mod kernels { pub mod memory { pub fn keep_freed_memory() {} } }
pub mod tensor {
    pub struct Tensor(Vec<usize>);
    impl Tensor {
        pub fn ones(shape: &[usize]) -> Self { Self(shape.to_vec()) }
        pub fn shape(&self) -> &[usize] { &self.0 }
    }
}
";

/// The root of the real workspace, whose kernel is used.
fn project() -> PathBuf {
    fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("..")).unwrap()
}

/// The tests' workspace. Only one test at a time has it: two cores do not carry more kernels.
struct Scratch {
    root: PathBuf,
    _only: MutexGuard<'static, ()>,
}

impl Scratch {
    fn new() -> Self {
        Self::at("kernel")
    }

    fn at(name: &str) -> Self {
        static ONLY: Mutex<()> = Mutex::new(());
        let only = ONLY.lock().unwrap_or_else(|e| e.into_inner());
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(root.join("notebooks"));
        let kernel = project().join("nbs_export").join("kernel");
        let scratch = Self { root, _only: only };
        scratch.write(
            "Cargo.toml",
            "[workspace]\nmembers = [\"minai\"]\nexclude = [\"nbs_export/kernel\", \".minai\"]\n",
        );
        scratch.write(
            "minai/Cargo.toml",
            "[package]\nname = \"minai\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[dependencies]\nndarray = \"0.17\"\n",
        );
        scratch.write("minai/src/lib.rs", CRATE);
        for file in ["Cargo.toml", "src/lib.rs", "src/nbs_cell.rs", "src/nbs_link.rs"] {
            scratch
                .write(&format!("nbs_export/kernel/{file}"), &fs::read_to_string(kernel.join(file)).unwrap());
        }
        // The same crates in the same versions: they need not be compiled twice.
        if !scratch.root.join("Cargo.lock").is_file() {
            fs::copy(project().join("Cargo.lock"), scratch.root.join("Cargo.lock")).unwrap();
        }
        let (from, to) = (project().join(".minai/warm/target"), scratch.root.join(".minai/warm/target"));
        if from.is_dir() && !to.is_dir() {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            assert_done(&Command::new("cp").arg("-a").args([from, to]).output().unwrap());
        }
        scratch.notebook("01_deps", &[]);
        assert_done(&scratch.nbs(&["kernel", "install", "--no-user"]).output().unwrap());
        scratch
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if fs::read_to_string(&path).ok().as_deref() != Some(text) {
            fs::write(path, text).unwrap();
        }
    }

    /// A notebook whose cells come after the one with the dependencies.
    fn notebook(&self, name: &str, cells: &[(&str, &str)]) -> PathBuf {
        let all: Vec<_> = [("deps", DEPS)].into_iter().chain(cells.iter().copied()).collect();
        self.own_notebook(name, &all)
    }

    /// A notebook as a reader begins one.
    fn own_notebook(&self, name: &str, cells: &[(&str, &str)]) -> PathBuf {
        let cells: Vec<Value> = cells
            .iter()
            .map(|(id, source)| {
                json!({ "cell_type": "code", "id": id, "metadata": {}, "source": source, "outputs": [], "execution_count": null })
            })
            .collect();
        let metadata =
            json!({ "kernelspec": { "name": "minai", "display_name": "Rust (minai)", "language": "rust" } });
        let json = json!({ "cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5 });
        self.write(&format!("notebooks/{name}.ipynb"), &json.to_string());
        self.root.join("notebooks").join(name).with_extension("ipynb")
    }

    fn nbs(&self, args: &[&str]) -> Command {
        nbs(&self.root, args)
    }
}

fn nbs(folder: &Path, args: &[&str]) -> Command {
    let ours = project().join(".minai").join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([ours].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nbs"));
    command.args(args).current_dir(folder).env("PATH", path);
    // Cargo itself would compile the tests again if it ran with another folder.
    if let Some(home) = std::env::var_os("NBS_TEST_CARGO_HOME") {
        command.env("CARGO_HOME", home);
    }
    command
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn assert_done(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

/// The outputs that were saved in a cell, as text.
fn saved(notebook: &Path, id: &str) -> String {
    let json: Value = serde_json::from_str(&fs::read_to_string(notebook).unwrap()).unwrap();
    let cell = json["cells"].as_array().unwrap().iter().find(|c| c["id"] == id).unwrap();
    let join = |v: &Value| v.as_array().into_iter().flatten().filter_map(Value::as_str).collect::<String>();
    let outputs = cell["outputs"].as_array().unwrap().iter();
    outputs.map(|o| join(&o["text"]) + &join(&o["data"]["text/plain"]) + &join(&o["traceback"])).collect()
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn a_notebook_runs_and_statics_of_the_crate_exist_once() {
    let scratch = Scratch::new();
    let notebook = scratch.notebook(
        "02_runs",
        &[
            ("one", "use minai::count;\ncount()"),
            ("two", "println!(\"out\");\neprintln!(\"err\");\ncount()"),
            ("shared", "let a: ndarray::Array1<f32> = minai::ramp(5);\na.sum()"),
            ("env", "std::env::var(\"MINAI_DATA\")?"),
            ("panics", "//| should_panic\nlet v = vec![1];\nlet i = v.len();\nv[i]"),
            ("refused", "//| compile_fail E0382\nlet s = String::new();\nlet t = s;\ns.len()"),
            ("skipped", "//| eval: false\nnot Rust"),
            ("slow", "//| slow\npanic!()"),
            ("vars", ":vars"),
        ],
    );
    let mut run = scratch.nbs(&["run", "02_runs"]);
    assert_done(&run.env("MINAI_DATA", "/some/where").env_remove("MINAI_FULL").output().unwrap());
    assert_eq!(saved(&notebook, "one"), "1");
    assert_eq!(
        saved(&notebook, "two").replace("err\n", ""),
        "out\n2",
        "the counter must go on from cell to cell"
    );
    assert_eq!(saved(&notebook, "shared"), "10.0");
    assert_eq!(saved(&notebook, "env"), "\"/some/where\"");
    let panic = saved(&notebook, "panics");
    assert!(panic.contains("Panic") && panic.contains("the len is 1 but the index is 1"), "{panic}");
    assert!(panic.contains("line 4: v[i]"), "{panic}");
    assert!(saved(&notebook, "refused").contains("[E0382]"));
    assert_eq!(saved(&notebook, "skipped") + &saved(&notebook, "slow"), "");
    assert!(saved(&notebook, "vars").contains("a: ") && !saved(&notebook, "vars").contains("nbs_end"));
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn every_kind_of_failure_is_one_and_saves_nothing() {
    let scratch = Scratch::new();
    let cases = [
        ("02_panic", "let v = vec![1];\nlet n = v.len();\nv[n]", "cell `x`, line 3: it panicked"),
        (
            "03_question",
            "let ok = 1;\nlet n: u32 = \"a\".parse()?;\nn",
            "cell `x`, line 2: a `?` met an error",
        ),
        ("04_compiler", "let n: u32 = \"a\";", "cell `x`, line 1: the kernel reports an error"),
        ("05_exit", "std::process::exit(3)", "ended the process that runs the cells"),
        (
            "06_dead",
            "std::process::Command::new(\"kill\").args([\"-9\", &std::os::unix::process::parent_id().to_string()]).status()?;\nstd::thread::sleep(std::time::Duration::from_secs(9));",
            "the kernel died",
        ),
        ("07_endless", "loop {}", "it took longer than 60 s"),
        ("08_calm", "//| should_panic\n1", "should panic (`should_panic`), but did not"),
        ("09_other", "//| compile_fail E0382\nlet n: u32 = \"a\";", "but the error is E0308"),
    ];
    let mut before = Vec::new();
    for (name, cell, _) in &cases {
        let path = scratch.notebook(name, &[("x", *cell)]);
        before.push((fs::read(&path).unwrap(), path));
    }
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    let output = scratch.nbs(&["test", "-j", "2", "--timeout", "60"]).args(&names).output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    for (name, _, message) in &cases {
        let report = text.split(&format!("\n{name}: ")).find(|t| t.contains(message));
        assert!(report.is_some(), "{name}: no `{message}` in\n{text}");
        assert!(text.lines().any(|l| l.starts_with(name) && l.ends_with("FAILED")), "{text}");
    }
    let output = scratch.nbs(&["run", "02_panic"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    for (bytes, path) in before {
        assert_eq!(fs::read(&path).unwrap(), bytes, "{} was changed", path.display());
    }
    assert_nothing_left(&scratch);
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn ctrl_c_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let started = scratch.root.join("started");
    let _ = fs::remove_file(&started);
    let cell = "std::process::Command::new(\"sleep\").arg(\"987\").spawn()?;\nstd::fs::write(\"../started\", \"\")?;\nloop {}";
    let notebook = scratch.notebook("02_endless", &[("x", cell)]);
    let before = fs::read(&notebook).unwrap();
    let mut run = scratch.nbs(&["run", "02_endless"]).spawn().unwrap();
    wait_for(|| started.exists());
    let pid = libc::pid_t::try_from(run.id()).unwrap();
    // SAFETY: the process is our child, and not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGINT) }, 0);
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert_eq!(fs::read(&notebook).unwrap(), before);
    assert_nothing_left(&scratch);
    assert!(processes_with("sleep\0987").is_empty(), "what the cell had started lives on");
}

fn assert_nothing_left(scratch: &Scratch) {
    let kernels = scratch.root.join(".minai").join("kernels");
    let left: Vec<_> = fs::read_dir(&kernels).into_iter().flatten().flatten().map(|e| e.path()).collect();
    assert!(left.is_empty(), "{left:?}");
    wait_for(|| processes_with(&kernels.to_string_lossy()).is_empty());
}

/// Processes whose command line or environment holds this text.
fn processes_with(text: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap().flatten().map(|e| e.path());
    let read = |p: PathBuf| String::from_utf8_lossy(&fs::read(p).unwrap_or_default()).into_owned();
    let lines = all.map(|p| read(p.join("cmdline")) + "\0" + &read(p.join("environ")));
    lines.filter(|l| l.contains(text)).collect()
}

fn wait_for(condition: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(300);
    while !condition() {
        assert!(Instant::now() < limit, "waited five minutes in vain");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn an_edit_of_the_crate_reaches_the_next_kernel() {
    let scratch = Scratch::new();
    let notebook = scratch.notebook("02_edit", &[("x", "minai::answer()")]);
    assert_done(&scratch.nbs(&["run", "02_edit"]).output().unwrap());
    assert_eq!(saved(&notebook, "x"), "42");
    scratch.write("minai/src/lib.rs", &CRATE.replace("{ 42 }", "{ 43 }"));
    assert_done(&scratch.nbs(&["run", "02_edit"]).output().unwrap());
    assert_eq!(saved(&notebook, "x"), "43");
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn a_warm_start_compiles_no_dependency() {
    let scratch = Scratch::new();
    scratch.notebook("02_warm", &[("x", "minai::answer()"), ("wait", "std::fs::read_to_string(\"../go\")?")]);
    scratch.write("go", "");
    assert_done(&scratch.nbs(&["run", "02_warm"]).output().unwrap());
    // What evcxr compiled stands in its folder: keep the kernel alive until it was looked at.
    let cell = "std::fs::write(\"../ready\", std::process::id().to_string())?;\nstd::thread::sleep(std::time::Duration::from_secs(60));";
    scratch.notebook("03_look", &[("use", "minai::answer()"), ("x", cell)]);
    let ready = scratch.root.join("ready");
    let _ = fs::remove_file(&ready);
    let mut run = scratch.nbs(&["run", "03_look"]).spawn().unwrap();
    wait_for(|| ready.exists());
    let kernels = scratch.root.join(".minai").join("kernels");
    let kernel = fs::read_dir(&kernels).unwrap().flatten().next().unwrap().path();
    let copies: Vec<PathBuf> = artifacts(&kernel.join("target"));
    let made: Vec<PathBuf> = artifacts(&scratch.root.join(".minai").join("warm").join("target"));
    let names = |paths: &[PathBuf]| -> Vec<(String, SystemTime)> {
        let name = |p: &PathBuf| p.file_name().unwrap().to_string_lossy().into_owned();
        let mut all: Vec<_> =
            paths.iter().map(|p| (name(p), fs::metadata(p).unwrap().modified().unwrap())).collect();
        all.sort();
        all
    };
    let (copies, made) = (names(&copies), names(&made));
    // SAFETY: the process is our child, and not waited for yet.
    unsafe { libc::kill(libc::pid_t::try_from(run.id()).unwrap(), libc::SIGINT) };
    run.wait().unwrap();
    assert!(made.len() > 4, "{made:?}");
    assert_eq!(copies, made);
}

/// The compiled crates that a cell links.
fn artifacts(target: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(target).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(artifacts(&path));
        } else if path.extension().is_some_and(|e| e == "rlib") {
            found.push(path);
        }
    }
    found
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn the_readers_own_kernelspec_stays_and_the_stock_kernel_runs_too() {
    let scratch = Scratch::new();
    let home = tempfile::tempdir().unwrap();
    let rust = home.path().join("jupyter").join("kernels").join("rust");
    fs::create_dir_all(&rust).unwrap();
    let files = [("kernel.json", "{\"argv\": [\"mine\"]}"), ("version.txt", "0.1.0"), ("own.txt", "notes")];
    for (name, text) in files {
        fs::write(rust.join(name), text).unwrap();
    }
    let unchanged = || {
        let same = files.iter().all(|(name, text)| fs::read_to_string(rust.join(name)).unwrap() == *text);
        same && fs::read_dir(&rust).unwrap().count() == files.len()
    };
    let notebook = scratch.notebook("02_any", &[("x", "use minai::count;\ncount()"), ("y", "count()")]);
    let ours = scratch.nbs(&["run", "02_any"]).env("XDG_DATA_HOME", home.path()).output().unwrap();
    assert_done(&ours);
    assert!(unchanged(), "the kernel has touched another kernelspec");

    let stock = home.path().join("kernel.json");
    let evcxr = search_evcxr(&Dirs::at(&project()), &Rust::installed().unwrap()).program.unwrap();
    let spec = json!({ "argv": [evcxr, "--control_file", "{connection_file}"], "display_name": "Rust" });
    fs::write(&stock, spec.to_string()).unwrap();
    let mut run = scratch.nbs(&["run", "02_any", "--kernel"]);
    assert_done(&run.arg(&stock).env("XDG_DATA_HOME", home.path()).output().unwrap());
    assert_eq!(saved(&notebook, "x") + &saved(&notebook, "y"), "12");
    assert!(!unchanged(), "the stock kernel no longer rewrites its kernelspec: the guard against it can go");
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn everything_works_without_network() {
    let scratch = Scratch::new();
    let alone = "std::net::TcpStream::connect((\"192.0.2.1\", 80)).unwrap_err().kind()";
    let notebook = scratch.notebook("02_offline", &[("use", "minai::ramp(3).sum()"), ("alone", alone)]);
    let mut run = scratch.nbs(&["run", "02_offline"]);
    if without_network(&mut run) {
        assert_done(&run.output().unwrap());
        assert_eq!(saved(&notebook, "use"), "3.0");
        assert_eq!(saved(&notebook, "alone"), "NetworkUnreachable");
    }
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn a_notebook_of_the_readers_own_has_the_crates_of_the_course_without_a_network() {
    let scratch = Scratch::new();
    let cell = "use ndarray::Axis;\nlet sums = minai::ramp(4).into_shape_with_order((2, 2))?.sum_axis(Axis(0));\nsums[1]";
    let known = "serde_json::json!({ \"a\": 1 }).to_string()";
    let notebook = scratch.own_notebook("02_own", &[("first", cell), ("known", known)]);
    let mut run = scratch.nbs(&["run", "02_own"]);
    if without_network(&mut run) {
        assert_done(&run.output().unwrap());
        assert_eq!(saved(&notebook, "first"), "4.0");
        assert!(saved(&notebook, "known").contains("{\\\"a\\\":1}"), "{}", saved(&notebook, "known"));
    }
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn an_odd_path_a_foreign_target_folder_and_no_home_do_not_matter() {
    let scratch = Scratch::at("Öl und Wasser");
    let elsewhere = tempfile::tempdir().unwrap();
    let notebook = scratch.notebook("02_odd", &[("x", "minai::answer()")]);
    let mut run = scratch.nbs(&["run", "02_odd"]);
    run.env("CARGO_TARGET_DIR", elsewhere.path()).env_remove("HOME");
    assert_done(&run.output().unwrap());
    assert_eq!(saved(&notebook, "x"), "42");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0, "the kernel has a folder of its own");
}

#[test]
#[ignore = "needs the kernel: cargo nbs kernel install"]
fn lesson_1_works_without_network() {
    let mut run = nbs(&project(), &["test", "01_foundations"]);
    if without_network(&mut run) {
        assert_done(&run.env_remove("MINAI_FULL").output().unwrap());
    }
}

/// Lets the command run where there is no network but its own loopback. Says no, and loudly, only if that is allowed.
fn without_network(command: &mut Command) -> bool {
    use std::os::unix::process::CommandExt as _;
    let mut probe = Command::new("true");
    // SAFETY: only system calls are made between fork and exec.
    unsafe { probe.pre_exec(leave_network) };
    match probe.status() {
        Ok(status) if status.success() => {
            // SAFETY: as above.
            unsafe { command.pre_exec(leave_network) };
            true
        }
        result => {
            let allowed = std::env::var_os("NBS_ALLOW_NO_NAMESPACE").is_some();
            let reason = format!(
                "no network namespace can be made here ({result:?}), so nothing was tested without network"
            );
            assert!(allowed, "{reason}; NBS_ALLOW_NO_NAMESPACE=1 lets this pass");
            eprintln!("NOT TESTED: {reason}");
            false
        }
    }
}
