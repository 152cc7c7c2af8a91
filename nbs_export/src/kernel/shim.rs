//! The `cargo` and `rustup` that evcxr finds: this program, called by those names.
//!
//! evcxr asks cargo for metadata and for a build with every cell. Both have the same answer as long as no dependency is
//! added, and cargo takes most of a cell's time to find that out. So the answers are kept: metadata from the set-up, and
//! the call of rustc from the first build. Whatever is not known goes to the real cargo.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::{env, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::cell_code::{self, Effort};
use crate::notebook::hex16;

/// The kernel's folder; without it this program is no shim.
pub const FOLDER: &str = "NBS_KERNEL";
/// The reader's cargo folder, if there is a name for it.
pub const CARGO_HOME: &str = "NBS_CARGO_HOME";
/// The real programs, and the target to build for.
pub const CARGO: &str = "NBS_REAL_CARGO";
pub const RUSTC: &str = "NBS_REAL_RUSTC";
pub const RUSTUP: &str = "NBS_REAL_RUSTUP";
pub const HOST: &str = "NBS_HOST";

/// Set where cells compute little, and it only matters whether they run: then only those whose speed is looked at are
/// optimised fully.
pub const HASTY: &str = "NBS_HASTY";

/// Where answers are kept for the next kernel.
pub const KEPT: &str = "NBS_KEPT";
/// Stands for the kernel's folder in what is kept.
const PLACEHOLDER: &str = "{kernel}";

/// What the compiler said of the last build that failed, with the file that it was about.
pub const DIAGNOSTICS: &str = "nbs-diagnostics.json";
/// The process that builds at this moment.
pub const BUILDING: &str = "nbs-building";
/// The manifest with the crates of the course and no others: only what belongs to it is worth keeping.
pub const COURSE: &str = "nbs-course.toml";
/// A sysroot for rust-analyzer, in which there is nothing but a short form of the standard library's source.
pub const LIBRARY: &str = "NBS_LIBRARY";
/// How rustc is called for cells.
pub const CALL: &str = "nbs-rustc.json";
/// cargo's metadata for the same dependencies.
pub const METADATA: &str = "nbs-metadata.json";

/// What evcxr finds under these names is this program.
pub const NAMES: [&str; 3] = ["cargo", "rustc", "rustup"];

/// The name by which this program was called, if it is a shim's.
pub fn called_as() -> Option<String> {
    env::var_os(FOLDER)?;
    let name = Path::new(&env::args_os().next()?).file_stem()?.to_str()?.to_owned();
    NAMES.contains(&name.as_str()).then_some(name)
}

/// Does what the shim with this name does.
pub fn main(name: &str) -> ExitCode {
    let args: Vec<OsString> = env::args_os().skip(1).collect();
    let result = match name {
        "rustup" => rustup(&args),
        "rustc" => rustc_shim(&args),
        _ => cargo(&args),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(1)
    })
}

/// A call of rustc, with the manifest's lines that it belongs to.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
pub struct Call {
    pub manifest: Vec<String>,
    pub args: Vec<String>,
}

/// The lines of a manifest in an order that does not depend on evcxr's maps.
pub fn manifest_lines(manifest: &str) -> Vec<String> {
    let mut lines: Vec<_> = manifest.lines().map(|l| l.trim().to_owned()).filter(|l| !l.is_empty()).collect();
    lines.sort();
    lines
}

/// Gives a new kernel what earlier ones have learnt, where that is still right.
pub fn recall(kept: &Path, folder: &Path) {
    let path = folder.to_string_lossy();
    let read = |name: &str| Some(fs::read_to_string(kept.join(name)).ok()?.replace(PLACEHOLDER, &path));
    let Some(text) = read(CALL) else { return };
    let Ok(call) = serde_json::from_str::<Call>(&text) else { return };
    let crates = call.args.iter().filter_map(|a| a.split_once('=')).map(|(_, file)| Path::new(file));
    let mut files = crates.filter(|f| f.starts_with(folder) && f.extension().is_some());
    if !files.all(Path::exists) || fs::write(folder.join(CALL), text).is_err() {
        return;
    }
    if let Some(text) = read(METADATA).filter(|t| has_all_sources(t)) {
        let _ = fs::write(folder.join(METADATA), text);
    }
}

/// Are the crates' sources still where they were? rust-analyzer would silently know nothing of those that are not.
fn has_all_sources(metadata: &str) -> bool {
    let Ok(json) = serde_json::from_str::<Value>(metadata) else { return false };
    let packages = json["packages"].as_array().into_iter().flatten();
    let mut manifests =
        packages.filter(|p| !p["source"].is_null()).filter_map(|p| p["manifest_path"].as_str());
    manifests.all(|m| Path::new(m).is_file())
}

/// Does a manifest have the crates of the course and no others?
fn is_course(folder: &Path, lines: &[String]) -> bool {
    fs::read_to_string(folder.join(COURSE)).is_ok_and(|course| manifest_lines(&course) == lines)
}

/// Keeps an answer for this kernel and, if it is a general one, for later ones.
fn keep(folder: &Path, name: &str, text: &str, general: bool) -> Result<()> {
    fs::write(folder.join(name), text)?;
    if general && let Some(kept) = env::var_os(KEPT).map(PathBuf::from) {
        let general = text.replace(&*folder.to_string_lossy(), PLACEHOLDER);
        fs::create_dir_all(&kept)?;
        crate::files::write_atomic(&kept.join(name), general.as_bytes())?;
    }
    Ok(())
}

fn rustup(args: &[OsString]) -> Result<ExitCode> {
    if args.len() == 2 && args[0] == "which" {
        if args[1] == "cargo" {
            println!(
                "{}",
                env::current_exe()?.with_file_name(format!("cargo{}", env::consts::EXE_SUFFIX)).display()
            );
            return Ok(ExitCode::SUCCESS);
        }
        if args[1] == "rustc" {
            println!("{}", env::var(RUSTC)?);
            return Ok(ExitCode::SUCCESS);
        }
    }
    // rust-analyzer would have the standard library's source downloaded.
    if args.first().is_some_and(|a| a == "component") {
        return Ok(ExitCode::from(1));
    }
    let Some(real) = env::var_os(RUSTUP) else { return Ok(ExitCode::from(1)) };
    through(self::real(real).args(args))
}

/// A command in the reader's own environment.
fn real(program: OsString) -> Command {
    let mut command = Command::new(program);
    match env::var_os(CARGO_HOME) {
        Some(home) => command.env("CARGO_HOME", home),
        None => command.env_remove("CARGO_HOME"),
    };
    command
}

/// rust-analyzer asks where the standard library's source is, and reads it all before anything else happens. evcxr's very
/// first cell, which has no crates, needs none of it.
fn rustc_shim(args: &[OsString]) -> Result<ExitCode> {
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap_or_default());
    let is_sysroot = args.len() == 2 && args[0] == "--print" && args[1] == "sysroot";
    if is_sysroot && env::current_dir().is_ok_and(|d| d == folder) {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
        if !manifest.lines().any(is_dependency) {
            println!("{}", folder.join("no-library").display());
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(library) = env::var_os(LIBRARY) {
            println!("{}", library.display());
            return Ok(ExitCode::SUCCESS);
        }
    }
    through(Command::new(env::var_os(RUSTC).context("no rustc is named")?).args(args))
}

fn through(command: &mut Command) -> Result<ExitCode> {
    let status =
        command.status().with_context(|| format!("cannot start {}", command.get_program().display()))?;
    Ok(code(status))
}

fn code(status: std::process::ExitStatus) -> ExitCode {
    ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1))
}

fn cargo(args: &[OsString]) -> Result<ExitCode> {
    let mut real = real(env::var_os(CARGO).context("no cargo is named")?);
    real.args(args);
    let folder = PathBuf::from(env::var_os(FOLDER).unwrap_or_default());
    // As a workspace, the standard library has parts that no cell names and that take long to read; without this answer
    // rust-analyzer takes only its three main crates.
    let of_library = |p: PathBuf| p.ancestors().any(|a| a.ends_with(super::library::PLACE));
    if args.iter().any(|a| a == "metadata") && manifest_path(args).is_some_and(of_library) {
        return Ok(ExitCode::from(1));
    }
    // Only evcxr's own calls are ours to answer, not what a cell starts.
    let here = env::current_dir().is_ok_and(|d| d == folder)
        || manifest_path(args).is_some_and(|p| p.starts_with(&folder));
    if !here {
        return through(&mut real);
    }
    if args.iter().any(|a| a == "--print") {
        return remembered(args, &folder, real);
    }
    let what = args.iter().filter_map(|a| a.to_str()).find(|a| !a.starts_with('-')).unwrap_or_default();
    match what {
        "metadata" => metadata(args, &folder, real),
        "build" => build(&folder, real, false),
        "check" => build(&folder, real, true),
        _ => through(&mut real),
    }
}

/// The manifest that a call is about.
fn manifest(args: &[OsString]) -> Option<String> {
    fs::read_to_string(manifest_path(args).unwrap_or_else(|| "Cargo.toml".into())).ok()
}

fn manifest_path(args: &[OsString]) -> Option<PathBuf> {
    let at = args.iter().position(|a| a == "--manifest-path")?;
    args.get(at + 1).map(PathBuf::from)
}

fn metadata(args: &[OsString], folder: &Path, mut real: Command) -> Result<ExitCode> {
    if args.iter().any(|a| a == "--no-deps") {
        return through(&mut real);
    }
    let manifest = manifest(args).unwrap_or_default();
    let call = known(folder);
    // evcxr looks at each new dependency alone, and only wants to know that there is one.
    let dependency =
        manifest.lines().map(str::trim).skip_while(|l| *l != "[dependencies]").nth(1).unwrap_or_default();
    let is_known = |call: &Call| call.manifest.iter().any(|l| l == dependency);
    if manifest.contains("evcxr_dummy_validate_dep") && call.as_ref().is_some_and(is_known) {
        println!("{{}}");
        return Ok(ExitCode::SUCCESS);
    }
    if call.is_some_and(|c| c.manifest == manifest_lines(&manifest))
        && let Ok(text) = fs::read(folder.join(METADATA))
    {
        std::io::stdout().write_all(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_whole = manifest.contains("name = \"ctx\"") && manifest.lines().any(is_dependency);
    // What other systems need was never downloaded.
    if !args.iter().any(|a| a == "--filter-platform")
        && let Some(host) = env::var_os(HOST)
    {
        real.arg("--filter-platform").arg(host);
    }
    if !is_whole {
        return through(&mut real);
    }
    let output = real.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = pruned(&text).unwrap_or(text);
    std::io::stdout().write_all(text.as_bytes())?;
    if output.status.success() {
        keep(folder, METADATA, &text, is_course(folder, &manifest_lines(&manifest)))?;
    }
    Ok(code(output.status))
}

/// What cargo prints about the compiler: the same each time.
fn remembered(args: &[OsString], folder: &Path, mut real: Command) -> Result<ExitCode> {
    let mut sha = Sha256::new();
    args.iter().for_each(|a| sha.update(a.as_encoded_bytes()));
    sha.update(env::var(RUSTC).unwrap_or_default());
    let name = format!("nbs-print-{}", hex16(&sha.finalize()));
    let kept = env::var_os(KEPT).map(PathBuf::from).unwrap_or_else(|| folder.to_owned());
    if let Ok(text) = fs::read(kept.join(&name)) {
        std::io::stdout().write_all(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let output = real.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    std::io::stdout().write_all(&output.stdout)?;
    if output.status.success() {
        keep(folder, &name, &String::from_utf8_lossy(&output.stdout), true)?;
    }
    Ok(code(output.status))
}

/// Metadata without the crates that no cell names: large ones that only crates of crates use, and all that run at compile
/// time. rust-analyzer reads every source of every crate; two thirds of them are these.
fn pruned(metadata: &str) -> Option<String> {
    const LARGE: u64 = 300_000;
    let mut json: Value = serde_json::from_str(metadata).ok()?;
    let root = json["resolve"]["root"].as_str()?.to_owned();
    let nodes = json["resolve"]["nodes"].as_array()?;
    let of = |id: &str| -> Vec<String> {
        let node = nodes.iter().find(|n| n["id"] == id);
        let list = node.and_then(|n| n["dependencies"].as_array()).into_iter().flatten();
        list.filter_map(|d| d.as_str().map(str::to_owned)).collect()
    };
    let direct = of(&root);
    let is_local = |p: &Value| p["source"].is_null();
    let compile_time = |p: &Value| {
        let kinds = |t: &Value| t["kind"].as_array().is_some_and(|k| k.iter().any(|k| k == "proc-macro"));
        p["targets"].as_array().is_some_and(|t| t.iter().any(kinds))
    };
    let dropped: Vec<String> = json["packages"]
        .as_array()?
        .iter()
        .filter(|p| {
            let id = p["id"].as_str().unwrap_or_default();
            let wanted = is_local(p) || direct.iter().any(|d| d == id);
            let source = p["manifest_path"].as_str().and_then(|m| Path::new(m).parent());
            !wanted && (compile_time(p) || source.is_some_and(|s| source_size(s) > LARGE))
        })
        .filter_map(|p| p["id"].as_str().map(str::to_owned))
        .collect();
    let is_dropped = |v: &Value| dropped.iter().any(|d| v == d.as_str());
    json["packages"].as_array_mut()?.retain(|p| !is_dropped(&p["id"]));
    let nodes = json["resolve"]["nodes"].as_array_mut()?;
    nodes.retain(|n| !is_dropped(&n["id"]));
    for node in nodes {
        node["dependencies"].as_array_mut()?.retain(|d| !is_dropped(d));
        node["deps"].as_array_mut()?.retain(|d| !is_dropped(&d["pkg"]));
    }
    Some(json.to_string())
}

/// Bytes of Rust below a folder.
fn source_size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |e: fs::DirEntry| match e.file_type() {
        Ok(kind) if kind.is_dir() => source_size(&e.path()),
        Ok(_) if e.path().extension().is_some_and(|x| x == "rs") => e.metadata().map_or(0, |m| m.len()),
        _ => 0,
    };
    entries.map(size).sum()
}

fn known(folder: &Path) -> Option<Call> {
    serde_json::from_slice(&fs::read(folder.join(CALL)).ok()?).ok()
}

fn build(folder: &Path, mut real: Command, only_check: bool) -> Result<ExitCode> {
    let manifest = manifest_lines(&fs::read_to_string("Cargo.toml").unwrap_or_default());
    let call = known(folder);
    if let Some(call) = call.as_ref().filter(|c| c.manifest == manifest) {
        return rustc(folder, &call.args, only_check);
    }
    let without = manifest.iter().skip_while(|l| *l != "[dependencies]").count();
    if let Some(call) = call.as_ref().filter(|_| without <= 1 && !manifest.iter().any(|l| is_dependency(l))) {
        return rustc(folder, &without_crates(&call.args), only_check);
    }
    if only_check {
        return through(&mut real);
    }
    // Cargo says how it calls rustc: next time we can.
    real.arg("--verbose").stderr(Stdio::piped());
    let mut child = real.spawn().context("cannot start cargo")?;
    fs::write(folder.join(BUILDING), child.id().to_string())?;
    let stderr = BufReader::new(child.stderr.take().context("cargo has no stderr")?);
    let mut found = None;
    for line in stderr.lines() {
        let line = line?;
        match running(&line, "ctx") {
            Some(args) => found = Some(args),
            None => eprintln!("{line}"),
        }
    }
    let status = child.wait()?;
    let _ = fs::remove_file(folder.join(BUILDING));
    if status.success()
        && manifest.iter().any(|l| is_dependency(l))
        && let Some(args) = found
    {
        let general = is_course(folder, &manifest);
        keep(folder, CALL, &serde_json::to_string(&Call { manifest, args })?, general)?;
    }
    Ok(code(status))
}

/// A line such as `name = "1"` that is none of the package's or profile's own.
fn is_dependency(line: &str) -> bool {
    const OWN: [&str; 14] = [
        "name",
        "version",
        "edition",
        "crate-type",
        "path",
        "opt-level",
        "debug",
        "strip",
        "rpath",
        "lto",
        "debug-assertions",
        "codegen-units",
        "panic",
        "incremental",
    ];
    line.split_once('=').is_some_and(|(key, _)| !OWN.contains(&key.trim()) && key.trim() != "overflow-checks")
}

fn without_crates(args: &[String]) -> Vec<String> {
    let mut kept = Vec::new();
    let mut all = args.iter();
    while let Some(arg) = all.next() {
        match arg.as_str() {
            "--extern" | "-L" => drop(all.next()),
            _ => kept.push(arg.clone()),
        }
    }
    kept
}

/// The arguments in cargo's line about a call of rustc for a crate.
pub fn running(line: &str, name: &str) -> Option<Vec<String>> {
    let call = line.trim().strip_prefix("Running `")?.strip_suffix('`')?;
    let words = split(call);
    let at = words.iter().position(|w| w == "--crate-name")?;
    (words.get(at + 1).map(String::as_str) == Some(name)).then(|| words[at..].to_vec())
}

/// Splits a line as a shell does.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut some) = (String::new(), false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                some = true;
                word.extend(chars.by_ref().take_while(|c| *c != '\''));
            }
            '"' => {
                some = true;
                while let Some(c) = chars.next().filter(|c| *c != '"') {
                    word.extend(if c == '\\' { chars.next() } else { Some(c) });
                }
            }
            '\\' => {
                some = true;
                word.extend(chars.next());
            }
            c if c.is_whitespace() => {
                if some {
                    words.push(std::mem::take(&mut word));
                }
                some = false;
            }
            c => {
                some = true;
                word.push(c);
            }
        }
    }
    if some {
        words.push(word);
    }
    words
}

/// Did the last attempt fail because a value can't be shown?
fn lacks_display(folder: &Path) -> bool {
    let report =
        fs::read(folder.join(DIAGNOSTICS)).ok().and_then(|t| serde_json::from_slice::<Value>(&t).ok());
    let is_method = |m: &Value| {
        m["code"]["code"] == "E0599" && m["message"].as_str().is_some_and(|m| m.contains("`evcxr_display`"))
    };
    report.is_none_or(|r| r["messages"].as_array().into_iter().flatten().any(is_method))
}

/// Compiles the cells as cargo would, and answers as cargo does.
fn rustc(folder: &Path, args: &[String], only_check: bool) -> Result<ExitCode> {
    let source = fs::read_to_string("src/lib.rs").unwrap_or_default();
    let output_folder = folder.join("cells");
    // In its own folder, so that evcxr's stays as evcxr wrote it.
    fs::create_dir_all(output_folder.join("src"))?;
    let text = cell_code::with_own_display(&source).filter(|_| !lacks_display(folder));
    let text = text.unwrap_or_else(|| source.clone());
    let text = cell_code::with_thin_store(&text).unwrap_or(text);
    fs::write(output_folder.join("src/lib.rs"), &text)?;
    let effort = cell_code::effort(&source);
    let mut command = Command::new(env::var_os(RUSTC).context("no rustc is named")?);
    command.current_dir(&output_folder);
    let mut all = args.iter();
    while let Some(arg) = all.next() {
        match arg.as_str() {
            "--out-dir" | "--emit" => drop(all.next()),
            "-C" => {
                let value = all.next().map_or("", String::as_str);
                let ours = ["incremental=", "extra-filename=", "debuginfo=", "strip="];
                if !ours.iter().any(|p| value.starts_with(p)) {
                    command.arg("-C").arg(value);
                }
            }
            arg if arg.starts_with("--emit=") || arg.starts_with("--out-dir=") => {}
            arg => drop(command.arg(arg)),
        }
    }
    // Lines for backtraces, which the profile would leave out.
    command.args(["-C", "debuginfo=line-tables-only"]);
    // What is kept from cell to cell is only good for the same level.
    let kept = match (effort, env::var_os(HASTY)) {
        (Effort::Measured, _) | (Effort::Full, None) => "incremental",
        (Effort::Full, Some(_)) => {
            command.args(["-C", "opt-level=1", "-C", "lto=off"]);
            "incremental-hasty"
        }
        (Effort::Little, _) => {
            command.args(["-C", "opt-level=0", "-C", "lto=off"]);
            "incremental-little"
        }
    };
    command.arg(format!("-Cincremental={}", folder.join(kept).display()));
    command
        .arg(if only_check { "--emit=metadata" } else { "--emit=link" })
        .arg("--out-dir")
        .arg(&output_folder);
    let mut child =
        command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().context("cannot start rustc")?;
    fs::write(folder.join(BUILDING), child.id().to_string())?;
    let stderr = BufReader::new(child.stderr.take().context("rustc has no stderr")?);
    let mut messages = Vec::new();
    let mut stdout = std::io::stdout().lock();
    for line in stderr.lines() {
        let line = line?;
        match serde_json::from_str::<Value>(&line) {
            Ok(message) if message["message"].is_string() => {
                writeln!(stdout, "{}", json!({ "reason": "compiler-message", "message": message }))?;
                messages.push(message);
            }
            Ok(_) => {}
            Err(_) => eprintln!("{line}"),
        }
    }
    let status = child.wait()?;
    let _ = fs::remove_file(folder.join(BUILDING));
    let report = json!({ "source": source, "messages": messages });
    fs::write(folder.join(DIAGNOSTICS), serde_json::to_vec(&report)?)?;
    if status.success() && !only_check {
        let (prefix, suffix) = (env::consts::DLL_PREFIX, env::consts::DLL_SUFFIX);
        let library = output_folder.join(format!("{prefix}ctx{suffix}"));
        let artifact =
            json!({ "reason": "compiler-artifact", "target": { "name": "ctx" }, "filenames": [library] });
        writeln!(stdout, "{artifact}")?;
    }
    Ok(code(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_rustc_is_read_from_cargos_line() {
        let line = "     Running `CARGO=/c 'A B=x y' /bin/rustc --crate-name ctx --edition=2024 src/lib.rs --check-cfg 'cfg(feature, values(\"a\"))' -L \"dependency=/t b/deps\"`";
        let args = running(line, "ctx").unwrap();
        let expected = [
            "--crate-name",
            "ctx",
            "--edition=2024",
            "src/lib.rs",
            "--check-cfg",
            "cfg(feature, values(\"a\"))",
            "-L",
            "dependency=/t b/deps",
        ];
        assert_eq!(args, expected);
        assert_eq!(running(line, "other"), None);
        assert_eq!(running("   Compiling ctx v1.0.0", "ctx"), None);
    }

    #[test]
    fn a_manifest_is_the_same_in_any_order() {
        assert_eq!(
            manifest_lines("[dependencies]\na = \"1\"\n\n  b = \"2\"\n"),
            manifest_lines("[dependencies]\nb = \"2\"\na = \"1\"")
        );
    }

    #[test]
    fn what_was_learnt_is_used_only_where_it_still_holds() {
        let root = tempfile::tempdir().unwrap();
        let (kept, folder, source) =
            (root.path().join("kept"), root.path().join("1"), root.path().join("Cargo.toml"));
        for place in [&kept, &folder] {
            fs::create_dir_all(place).unwrap();
        }
        let call = json!({ "manifest": [], "args": ["--extern", "a={kernel}/liba.rlib"] });
        let metadata = json!({ "packages": [{ "source": "registry", "manifest_path": source }] });
        fs::write(kept.join(CALL), call.to_string()).unwrap();
        fs::write(kept.join(METADATA), metadata.to_string()).unwrap();
        recall(&kept, &folder);
        assert!(known(&folder).is_none(), "the crate is not there");
        fs::write(folder.join("liba.rlib"), "").unwrap();
        recall(&kept, &folder);
        let args = known(&folder).unwrap().args;
        assert_eq!(args[1], format!("a={}/liba.rlib", folder.display()));
        assert!(!folder.join(METADATA).exists(), "a source is not there");
        fs::write(&source, "").unwrap();
        recall(&kept, &folder);
        assert!(folder.join(METADATA).exists());
    }

    #[test]
    fn only_the_crates_of_the_course_are_general() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(COURSE), "[dependencies]\nb = \"1\"\na = \"2\"\n").unwrap();
        assert!(is_course(folder.path(), &manifest_lines("[dependencies]\na = \"2\"\nb = \"1\"")));
        assert!(!is_course(
            folder.path(),
            &manifest_lines("[dependencies]\na = \"2\"\nb = \"1\"\nc = \"3\"")
        ));
    }

    #[test]
    fn what_belongs_to_no_dependency_is_kept() {
        let args = ["--extern", "a=b", "-L", "dependency=x", "-C", "opt-level=3"].map(str::to_owned);
        assert_eq!(without_crates(&args), ["-C", "opt-level=3"]);
        let own = "[profile.dev]\nopt-level = 3\npanic = 'unwind'\noverflow-checks = true\nname = \"ctx\"";
        assert!(!own.lines().any(is_dependency));
        assert!(is_dependency("rand = \"0.10\""));
    }
}
