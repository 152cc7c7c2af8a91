//! The course's kernel, "Rust (minai)": evcxr with settings of its own, kept in the folder `.minai` of the workspace.
//!
//! A kernel is started through `nbs kernel start`, which brings the compiled dependencies (`.minai/warm`) up to date and
//! gives each kernel a copy of them. That is what makes a start quick however large `minai` has become: evcxr alone
//! compiles `minai` anew in each kernel, and two kernels cannot share one folder.

mod evcxr;
#[cfg(unix)]
mod proxy;
mod shim;
mod start;
mod warm;

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use crate::files::write_atomic;
use crate::workspace::Workspace;

pub use evcxr::{VERSION, clean_cargo, find as find_evcxr};
pub use shim::{called_as, main as shim_main};
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

/// Gets evcxr_jupyter, writes the kernelspec, and compiles once what the notebooks depend on.
pub fn install(args: InstallArgs) -> Result<()> {
    let dirs = Dirs::new(&Workspace::discover()?);
    let evcxr = evcxr::get(&dirs)?;
    println!("kernel:     {}", evcxr.display());
    configure(&dirs)?;
    println!("kernelspec: {}", dirs.kernelspec().display());
    if !args.no_user {
        let folder = user_kernels()?.join(NAME);
        write_kernelspec(&dirs, &folder)?;
        println!("            {}", folder.join("kernel.json").display());
    }
    println!("compiling what the notebooks depend on (once, some minutes) …");
    warm::build(&dirs, warm::For::User)?;
    println!("The kernel \"Rust (minai)\" is ready, and works without network from now on.");
    Ok(())
}

/// Does the set-up that is missing, and brings the compiled dependencies up to date; quick if there is nothing to do.
pub fn ensure(workspace: &Workspace) -> Result<Dirs> {
    let dirs = Dirs::new(workspace);
    evcxr::get(&dirs)?;
    configure(&dirs)?;
    if !warm::is_ready(&dirs) {
        println!("compiling what the notebooks depend on (once, some minutes) …");
    }
    // Code of `minai` that does not compile is shown by the first cell that needs it.
    if let Err(error) = warm::build(&dirs, warm::For::User) {
        eprintln!("{error:#}");
    }
    Ok(dirs)
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
            return env::temp_dir().join("minai-kernels");
        }
        kernels
    }
}

/// Writes the settings and the kernelspec of the workspace.
fn configure(dirs: &Dirs) -> Result<()> {
    let config = dirs.config();
    write_if_changed(&config.join("evcxr.toml"), include_bytes!("kernel/evcxr.toml"))?;
    write_if_changed(&config.join("init.evcxr"), include_bytes!("kernel/init.evcxr"))?;
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
    let text = serde_json::to_string_pretty(&kernelspec(dirs))?;
    write_if_changed(&folder.join("kernel.json"), format!("{text}\n").as_bytes())
}

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
        // A `0` here (usual in CI) makes evcxr's cache take `minai` for a crate that never changes.
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

/// Finds a program on the PATH.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let name = format!("{program}{}", env::consts::EXE_SUFFIX);
    env::split_paths(&env::var_os("PATH")?).map(|p| p.join(&name)).find(|p| p.is_file())
}
