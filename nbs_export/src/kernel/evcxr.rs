//! Finding and installing evcxr_jupyter: compiled once for a user, whatever the number of clones.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::progress::{Estimate, Progress, run_cargo};
use super::{Dirs, lock};

/// The version that everything here was measured with.
pub const VERSION: &str = "0.22.0";
/// The oldest Rust that compiles it.
const OLDEST_RUST: (u32, u32) = (1, 95);

/// What is to be known of the Rust compiler on the PATH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rust {
    /// Such as `1.95.0`.
    pub release: String,
    /// Such as `x86_64-unknown-linux-gnu`.
    pub host: String,
}

impl Rust {
    /// Asks the compiler on the PATH; once, for it takes a while to start.
    pub fn installed() -> Result<Self> {
        static KNOWN: OnceLock<Rust> = OnceLock::new();
        if let Some(rust) = KNOWN.get() {
            return Ok(rust.clone());
        }
        let rust = Self::ask()?;
        Ok(KNOWN.get_or_init(|| rust).clone())
    }

    fn ask() -> Result<Self> {
        let output = clean_cargo("rustc").arg("-vV").output();
        let output = output.context("cannot start rustc: install Rust from https://rustup.rs")?;
        if !output.status.success() {
            bail!("`rustc -vV` failed:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
        }
        Self::parse(&String::from_utf8_lossy(&output.stdout)).context("`rustc -vV` names no release and host")
    }

    /// Reads the output of `rustc -vV`.
    fn parse(text: &str) -> Option<Self> {
        let find = |label: &str| text.lines().find_map(|l| l.strip_prefix(label)).map(str::to_owned);
        Some(Self { release: find("release: ")?, host: find("host: ")? })
    }

    fn numbers(&self) -> Option<(u32, u32)> {
        let mut parts = self.release.split(['.', '-']);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// Says no, and what to do, to a Rust that is too old for the kernel.
    pub fn check(&self) -> Result<()> {
        let (major, minor) = OLDEST_RUST;
        if self.numbers().is_some_and(|numbers| numbers < OLDEST_RUST) {
            bail!(
                "the notebooks' kernel needs Rust {major}.{minor} or later, and this is {}: \
                 `rustup update stable` brings a new one",
                self.release
            );
        }
        Ok(())
    }

    /// Patch releases share a program; a new minor release gets its own, like everything that cargo has compiled.
    fn same(&self, other: &Self) -> bool {
        self.host == other.host && self.numbers() == other.numbers()
    }
}

/// What was found in looking for the program.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// The program, in the right version and built with the present Rust.
    pub program: Option<PathBuf>,
    /// Programs in the right version that another Rust has built, and which.
    pub others: Vec<(PathBuf, String)>,
}

/// The program, if it is there in the right version: in the user's cache, in the project's folder or on the PATH.
pub fn find(dirs: &Dirs) -> Option<PathBuf> {
    search(dirs, &Rust::installed().ok()?).program
}

/// Looks in all places.
pub fn search(dirs: &Dirs, rust: &Rust) -> Search {
    let path = env::var_os("PATH").unwrap_or_default();
    let name = format!("evcxr_jupyter{}", env::consts::EXE_SUFFIX);
    let ours = [home(dirs, rust).join("bin"), dirs.home.join("bin")];
    search_in(ours.into_iter().chain(env::split_paths(&path)).map(|p| p.join(&name)), rust)
}

fn search_in(places: impl Iterator<Item = PathBuf>, rust: &Rust) -> Search {
    let mut found = Search::default();
    for place in places.filter(|p| p.is_file()) {
        match built_with(&place) {
            Some(built) if built.same(rust) => {
                found.program = Some(place);
                break;
            }
            Some(built) => found.others.push((place, format!("{} for {}", built.release, built.host))),
            None => {}
        }
    }
    found
}

/// The Rust that has built this program; nothing if it is of another version, or nobody knows.
///
/// evcxr_jupyter tells nothing of itself, but cargo has written it down beside the folder it installed into.
fn built_with(program: &Path) -> Option<Rust> {
    let record = program.ancestors().nth(2)?.join(".crates2.json");
    let json: Value = serde_json::from_slice(&fs::read(record).ok()?).ok()?;
    let wanted = format!("evcxr_jupyter {VERSION} ");
    let (_, install) =
        json["installs"].as_object()?.iter().find(|(package, _)| package.starts_with(&wanted))?;
    Rust::parse(install["rustc"].as_str()?)
}

/// Where the user's programs are, one folder for each version and compiler.
fn home(dirs: &Dirs, rust: &Rust) -> PathBuf {
    let (major, minor) = rust.numbers().unwrap_or_default();
    cache(dirs).join(format!("evcxr_jupyter-{VERSION}-rust-{major}.{minor}-{}", rust.host))
}

/// The course's folder in the user's cache, or the project's where there is none to write to.
fn cache(dirs: &Dirs) -> PathBuf {
    let usable =
        |folder: &PathBuf| fs::create_dir_all(folder).is_ok() && tempfile::tempfile_in(folder).is_ok();
    dirs::cache_dir().map(|c| c.join("minai")).filter(usable).unwrap_or_else(|| dirs.home.clone())
}

/// Finds the program, or compiles it.
pub fn get(dirs: &Dirs, progress: &Progress) -> Result<PathBuf> {
    let rust = Rust::installed()?;
    rust.check()?;
    let found = search(dirs, &rust);
    if let Some(program) = found.program {
        return Ok(program);
    }
    for (program, built) in &found.others {
        progress.say(&format!(
            "{} was built with Rust {built}; now it is {}, so it is built again.",
            program.display(),
            rust.release
        ));
    }
    // One at a time: who comes second waits, and finds the program.
    let cache = cache(dirs);
    let _lock = lock(&cache, || progress.say("Another set-up is compiling the kernel; waiting for it …"))?;
    if let Some(program) = search(dirs, &rust).program {
        return Ok(program);
    }
    install(&cache, &home(dirs, &rust), progress)?;
    search(dirs, &rust).program.context("cargo reported success, but evcxr_jupyter is not where it should be")
}

fn install(cache: &Path, home: &Path, progress: &Progress) -> Result<()> {
    progress.say(&format!("Compiling the kernel, evcxr_jupyter {VERSION}, into {} (once).", home.display()));
    let name = home.file_name().unwrap_or_default().to_string_lossy();
    // The target folder stays until cargo succeeds, so that a retry goes on from there.
    let build = cache.join(format!("build-{name}"));
    let new = cache.join(format!("new-{name}"));
    let _ = fs::remove_dir_all(&new);
    let mut command = clean_cargo("cargo");
    // Without `--locked` it does not compile: newer releases of its dependencies have changed.
    command.args(["install", "--locked", "evcxr_jupyter", "--version", VERSION]);
    command.arg("--root").arg(&new).args(levels()).env("CARGO_TARGET_DIR", &build);
    if let Err(messages) = run_cargo(command, Some(&mut progress.task("the kernel")), &ESTIMATE, None)? {
        bail!(
            "evcxr_jupyter does not compile:\n{messages}\nIt needs network and a C compiler; \
             `cargo nbs kernel install` again goes on where it stopped"
        );
    }
    let _ = fs::remove_dir_all(home);
    fs::rename(&new, home).with_context(|| format!("cannot move the kernel to {}", home.display()))?;
    let _ = fs::remove_dir_all(&build);
    Ok(())
}

/// Less optimisation where nothing waits for it: compiling takes about a third less of the processor's time. With level 1
/// for all crates the kernel would start 3 s later.
fn levels() -> Vec<String> {
    // What evcxr never calls, and what it calls on a key press; the rest is what cells wait for.
    let unused = ["ra_ap_ide_assists", "ra_ap_ide_diagnostics", "ra_ap_ide_ssr"].map(|name| (name, 0));
    let rare =
        ["ra_ap_ide", "ra_ap_ide_completion", "ra_ap_ide_db", "zeromq", "evcxr_jupyter", "tokio", "chrono"];
    let packages = unused.into_iter().chain(rare.map(|name| (name, 1)));
    let levels = packages.map(|(name, level)| format!("profile.release.package.{name}.opt-level={level}"));
    ["profile.release.lto=\"off\"".to_owned()]
        .into_iter()
        .chain(levels)
        .flat_map(|setting| ["--config".to_owned(), setting])
        .collect()
}

/// From `cargo install --timings`, for two idle cores.
const ESTIMATE: Estimate = Estimate {
    crates: 273,
    milestones: &[
        ("ra_ap_syntax", 38),
        ("ra_ap_hir_expand", 73),
        ("ra_ap_hir_def", 95),
        ("ra_ap_hir_ty", 112),
        ("ra_ap_ide_db", 158),
        ("ra_ap_ide_assists", 207),
        ("ra_ap_ide", 218),
        ("evcxr", 240),
        ("evcxr_jupyter", 249),
    ],
    seconds: 256,
};

/// A command without what `cargo run` has put into this process's environment for `nbs` itself.
///
/// Some build scripts (ring's, for one) ask to run again when these variables change, and would each time.
pub fn clean_cargo(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if is_cargos_own(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
}

fn is_cargos_own(name: &str) -> bool {
    let prefixes =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_PROFILE_", "CARGO_BUILD_", "CARGO_TARGET_"];
    let names = [
        "CARGO",
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_INCREMENTAL",
        "OUT_DIR",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ];
    names.contains(&name) || prefixes.iter().any(|p| name.starts_with(p))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(release: &str) -> Rust {
        Rust { release: release.into(), host: "x86_64-unknown-linux-gnu".into() }
    }

    /// A program as `cargo install` leaves it.
    fn install(folder: &Path, version: &str, release: &str) -> PathBuf {
        let program = folder.join("bin").join(format!("evcxr_jupyter{}", env::consts::EXE_SUFFIX));
        fs::create_dir_all(program.parent().unwrap()).unwrap();
        fs::write(&program, "").unwrap();
        let rustc = format!("rustc {release} (x)\nhost: x86_64-unknown-linux-gnu\nrelease: {release}\n");
        let package = format!("evcxr_jupyter {version} (registry+x)");
        let record = serde_json::json!({ "installs": { package: { "rustc": rustc } } });
        fs::write(folder.join(".crates2.json"), record.to_string()).unwrap();
        program
    }

    #[test]
    fn version_and_compiler_are_read_from_cargos_record() {
        let root = tempfile::tempdir().unwrap();
        let dirs = Dirs::at(root.path());
        let ours = |search: Search| search.program;
        let place = dirs.home.join("bin").join(format!("evcxr_jupyter{}", env::consts::EXE_SUFFIX));
        let found = |release| search_in([place.clone()].into_iter(), &rust(release));
        let program = install(&dirs.home, "0.2.0", "1.95.0");
        assert_eq!(ours(found("1.95.0")), None, "an old version");
        install(&dirs.home, VERSION, "1.95.0");
        assert_eq!(built_with(&program), Some(rust("1.95.0")));
        assert!(ours(found("1.95.0")).is_some() && ours(found("1.95.7")).is_some());
        let newer = found("1.250.0");
        assert_eq!(newer.program, None);
        assert!(newer.others.contains(&(program, "1.95.0 for x86_64-unknown-linux-gnu".into())));
        fs::remove_file(dirs.home.join(".crates2.json")).unwrap();
        assert_eq!(ours(found("1.95.0")), None, "no record");
    }

    #[test]
    fn an_old_rust_is_refused_with_what_to_do() {
        for good in ["1.95.0", "1.96.0-nightly", "1.100.1", "2.0.0"] {
            rust(good).check().unwrap();
        }
        let error = rust("1.89.0").check().unwrap_err().to_string();
        assert!(
            error.contains("1.95") && error.contains("1.89.0") && error.contains("rustup update"),
            "{error}"
        );
    }

    #[test]
    fn cargos_own_variables_are_told_from_the_users() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "CARGO", "CARGO_TARGET_DIR", "RUSTFLAGS"] {
            assert!(is_cargos_own(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_HTTP_PROXY",
            "CARGO_NET_OFFLINE",
            "PATH",
            "MINAI_FULL",
            "CARGO_REGISTRIES_X",
        ] {
            assert!(!is_cargos_own(name), "{name}");
        }
    }
}
