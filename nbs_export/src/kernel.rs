//! The course's kernel, "Rust (minai)": evcxr with settings of its own, kept in the folder `.minai` of the workspace.
//!
//! A kernel is started through `nbs kernel start`, which brings the compiled dependencies (`.minai/warm`) up to date and
//! gives each kernel a copy of them. That is what makes a start quick however large `minai` has become: evcxr alone
//! compiles `minai` anew in each kernel, and two kernels cannot share one folder.

mod cell_code;
pub mod dependencies;
mod evcxr;
mod library;
mod progress;
mod prove;
#[cfg(unix)]
mod proxy;
mod shim;
mod start;
mod warm;

use std::path::{Path, PathBuf};
use std::{env, fs, io, thread};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::files::write_atomic;
use crate::workspace::Workspace;

pub use evcxr::{Rust, Search, VERSION, clean_cargo, find as find_evcxr, search as search_evcxr};
pub use library::std_source;
pub use progress::{Progress, Task};
#[cfg(target_os = "linux")]
pub use prove::leave_network;
pub use prove::{ProveArgs, prove};
pub use shim::{HASTY, called_as, main as shim_main};
pub use start::{StartArgs, remove_dead, start};
pub use warm::{is_ready, linker};

/// The kernelspec's name: its folder's name, and what `nbs run` asks for.
pub const NAME: &str = "minai";

/// Options of `nbs kernel install`.
#[derive(Args, Clone, Debug, Default)]
pub struct InstallArgs {
    /// Keep to the project's folder: write no kernelspec into your Jupyter folder.
    #[arg(long)]
    pub no_user: bool,
}

/// Gets evcxr_jupyter, writes the kernelspec, compiles once what notebooks depend on, and tries it all out.
pub fn install(args: InstallArgs) -> Result<()> {
    let dirs = Dirs::new(&Workspace::discover()?);
    let progress = Progress::new();
    let evcxr = set_up(&dirs, &progress)?;
    println!("kernel:     {}", evcxr.display());
    println!("kernelspec: {}", dirs.kernelspec().display());
    if !args.no_user {
        let folder = user_kernels()?.join(NAME);
        write_kernelspec(&dirs, &folder)?;
        println!("            {}", folder.join("kernel.json").display());
    }
    println!("The kernel \"Rust (minai)\" is ready, and works without network from now on.");
    Ok(())
}

/// Does the set-up that is missing, and brings the compiled dependencies up to date; quick if there is nothing to do.
pub fn ensure(workspace: &Workspace) -> Result<Dirs> {
    let dirs = Dirs::new(workspace);
    set_up_in(&dirs, &Progress::new())?;
    Ok(dirs)
}

/// As [`ensure`], where other set-up goes on at the same time.
pub fn set_up_in(dirs: &Dirs, progress: &Progress) -> Result<()> {
    prepare(dirs, progress)?;
    match warm::build(dirs, warm::For::User(progress)) {
        Ok(()) => prove::once(dirs, progress),
        // Code of `minai` that does not compile is shown by the first cell that needs it.
        Err(error) => {
            progress.say(&format!("{error:#}"));
            Ok(())
        }
    }
}

fn set_up(dirs: &Dirs, progress: &Progress) -> Result<PathBuf> {
    let evcxr = prepare(dirs, progress)?;
    warm::build(dirs, warm::For::User(progress))?;
    prove::once(dirs, progress)?;
    Ok(evcxr)
}

/// The program and the settings. If the program has to be compiled, the notebooks' dependencies are compiled meanwhile:
/// towards its end that leaves a core idle.
fn prepare(dirs: &Dirs, progress: &Progress) -> Result<PathBuf> {
    dirs.check()?;
    configure(dirs)?;
    library::ensure(dirs, progress)?;
    if let Some(evcxr) = find_evcxr(dirs) {
        return Ok(evcxr);
    }
    thread::scope(|threads| {
        // Should it fail, it is said by whoever builds again.
        threads.spawn(|| drop(warm::build(dirs, warm::For::User(progress))));
        evcxr::get(dirs, progress)
    })
}

/// Where the kernel's files are.
#[derive(Clone, Debug)]
pub struct Dirs {
    /// The workspace.
    pub root: PathBuf,
    /// Everything of the kernel's: `.minai` in the workspace, ignored by git.
    pub home: PathBuf,
}

impl Dirs {
    /// The places in this workspace.
    pub fn new(workspace: &Workspace) -> Self {
        Self::at(&workspace.root)
    }

    /// The places in the workspace with this root.
    pub fn at(root: &Path) -> Self {
        let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        let home = root.join(".minai");
        Self { root, home }
    }

    /// Programs: evcxr_jupyter, and the copy of `nbs` that starts kernels.
    pub fn bin(&self, name: &str) -> PathBuf {
        let name = format!("{name}{}", env::consts::EXE_SUFFIX);
        self.home.join("bin").join(name)
    }

    /// A data folder for Jupyter (to be named in `JUPYTER_PATH`) with our kernelspec.
    pub fn jupyter(&self) -> PathBuf {
        self.home.join("jupyter")
    }

    /// Our kernelspec.
    pub fn kernelspec(&self) -> PathBuf {
        self.jupyter().join("kernels").join(NAME).join("kernel.json")
    }

    fn config(&self) -> PathBuf {
        self.home.join("evcxr")
    }

    fn warm(&self) -> PathBuf {
        self.home.join("warm")
    }

    /// Where running kernels have their copies. evcxr cannot load a cell from a path with a space in it.
    pub(crate) fn kernels(&self) -> PathBuf {
        let kernels = self.home.join("kernels");
        if kernels.to_string_lossy().contains(char::is_whitespace) {
            return env::temp_dir().join(format!("minai-kernels{}", user_suffix()));
        }
        kernels
    }

    /// Says what to do where the project's folder can't be written to.
    fn check(&self) -> Result<()> {
        let try_it = || {
            fs::create_dir_all(&self.home)?;
            tempfile::tempfile_in(&self.home)
        };
        try_it().map(drop).with_context(|| {
            format!(
                "cannot write to {}, where the notebooks' kernel keeps what it compiles: \
                 work in a clone of your own, on a disk that you may write to",
                self.home.display()
            )
        })
    }
}

/// The folder for temporary files is everybody's on Unix, and the user's own elsewhere.
#[cfg(unix)]
fn user_suffix() -> String {
    // SAFETY: a plain question to the system.
    format!("-{}", unsafe { libc::geteuid() })
}

#[cfg(not(unix))]
fn user_suffix() -> String {
    String::new()
}

/// Writes the settings and the kernelspec of the workspace.
fn configure(dirs: &Dirs) -> Result<()> {
    let config = dirs.config();
    write_if_changed(&config.join("evcxr.toml"), include_bytes!("kernel/evcxr.toml"))?;
    let init: String = dependencies::init_lines(dirs).iter().map(|line| format!("{line}\n")).collect();
    write_if_changed(&config.join("init.evcxr"), init.as_bytes())?;
    copy_program(dirs)?;
    write_kernelspec(dirs, &dirs.jupyter().join("kernels").join(NAME))
}

/// Kernels are started by a copy of this program: the original goes away with `cargo clean`.
fn copy_program(dirs: &Dirs) -> Result<()> {
    let this = env::current_exe().context("cannot tell where this program lies")?;
    let copy = dirs.bin("nbs");
    if this == copy {
        return Ok(());
    }
    let bytes = fs::read(&this).with_context(|| format!("cannot read {}", this.display()))?;
    write_if_changed(&copy, &bytes)?;
    let rights = fs::metadata(&this)?.permissions();
    fs::set_permissions(&copy, rights).with_context(|| format!("cannot make {} executable", copy.display()))
}

fn write_kernelspec(dirs: &Dirs, folder: &Path) -> Result<()> {
    for (name, bytes) in LOGOS {
        write_if_changed(&folder.join(name), bytes)?;
    }
    let text = serde_json::to_string_pretty(&kernelspec(dirs))?;
    write_if_changed(&folder.join("kernel.json"), format!("{text}\n").as_bytes())
}

/// What JupyterLab shows in its launcher.
const LOGOS: [(&str, &[u8]); 3] = [
    ("logo-svg.svg", include_bytes!("kernel/logo-svg.svg")),
    ("logo-32x32.png", include_bytes!("kernel/logo-32x32.png")),
    ("logo-64x64.png", include_bytes!("kernel/logo-64x64.png")),
];

fn kernelspec(dirs: &Dirs) -> Value {
    let mut spec: Value =
        serde_json::from_str(include_str!("kernel/kernel.json")).expect("our template is JSON");
    let fill = |text: &str| match text {
        "{nbs}" => dirs.bin("nbs").to_string_lossy().into_owned(),
        "{root}" => dirs.root.to_string_lossy().into_owned(),
        other => other.to_owned(),
    };
    for word in spec["argv"].as_array_mut().into_iter().flatten() {
        *word = json!(fill(word.as_str().unwrap_or_default()));
    }
    for (name, value) in settings(dirs) {
        spec["env"][name] = json!(value);
    }
    spec
}

/// The environment of the kernel, and of every build for it: cargo compiles anew what was built with other settings.
fn settings(dirs: &Dirs) -> Vec<(&'static str, String)> {
    let path = |p: PathBuf| p.to_string_lossy().into_owned();
    vec![
        ("EVCXR_CONFIG_DIR", path(dirs.config())),
        // At its start evcxr brings the kernelspec `rust` up to date that it finds in the first data folder of Jupyter:
        // a folder without one keeps it from touching the reader's.
        ("JUPYTER_PATH", path(dirs.home.join("guard"))),
        // A `0` here (usual in CI) has cells compiled from scratch.
        ("CARGO_INCREMENTAL", "1".into()),
        // Cells as fast as a release build.
        ("CARGO_PROFILE_DEV_OPT_LEVEL", "3".into()),
        ("CARGO_PROFILE_DEV_DEBUG_ASSERTIONS", "false".into()),
        ("CARGO_PROFILE_DEV_OVERFLOW_CHECKS", "false".into()),
    ]
}

/// The folder in which Jupyter looks for the user's kernelspecs.
fn user_kernels() -> Result<PathBuf> {
    let data = match env::var_os("JUPYTER_DATA_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => {
            jupyter_zmq_client::dirs::user_data_dir().context("cannot tell where your Jupyter folder is")?
        }
    };
    Ok(data.join("kernels"))
}

fn write_if_changed(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    write_atomic(path, bytes)
}

/// Waits until no other process holds the folder's lock; `waiting` is called if that is not at once. It ends with the
/// returned file.
fn lock(folder: &Path, waiting: impl FnOnce()) -> Result<fs::File> {
    let path = folder.join("lock");
    let lock = || {
        let file = fs::File::create(&path)?;
        if file.try_lock().is_err() {
            waiting();
            file.lock()?;
        }
        io::Result::Ok(file)
    };
    lock().with_context(|| format!("cannot lock {}", path.display()))
}

/// Finds a program on the PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let name = format!("{program}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?).map(|p| p.join(&name)).find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_written_and_name_this_workspace() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("größer als zuvor");
        fs::create_dir_all(&root).unwrap();
        let dirs = Dirs::at(&root);
        dirs.check().unwrap();
        configure(&dirs).unwrap();
        let spec: Value = serde_json::from_slice(&fs::read(dirs.kernelspec()).unwrap()).unwrap();
        assert_eq!(spec["display_name"], "Rust (minai)");
        let words: Vec<&str> = spec["argv"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(words[0], dirs.bin("nbs").to_str().unwrap());
        assert!(words.contains(&dirs.root.to_str().unwrap()), "{words:?}");
        let init = fs::read_to_string(dirs.config().join("init.evcxr")).unwrap();
        assert!(init.lines().all(|l| l.starts_with(":dep ")) && init.contains("größer als zuvor"), "{init}");
        for (name, _) in LOGOS {
            assert!(dirs.kernelspec().with_file_name(name).is_file(), "{name}");
        }
        let kernels = dirs.kernels();
        assert!(!kernels.to_string_lossy().contains(' '));
        assert!(kernels.to_string_lossy().ends_with(&user_suffix()), "a folder for each user");
    }

    #[test]
    fn a_clone_that_cannot_be_written_to_is_refused_with_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        // Not even root can make a folder in a file.
        let error = format!("{:#}", Dirs::at(&file).check().unwrap_err());
        assert!(error.contains(".minai") && error.contains("a clone of your own"), "{error}");
    }

    #[test]
    fn a_lock_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path(), || panic!("nobody has it")).unwrap();
        let (sender, said) = std::sync::mpsc::channel();
        thread::scope(|threads| {
            let second = threads.spawn(|| lock(folder.path(), || sender.send(()).unwrap()).map(drop));
            said.recv().unwrap();
            assert!(!second.is_finished());
            drop(first);
            second.join().unwrap().unwrap();
        });
    }
}
