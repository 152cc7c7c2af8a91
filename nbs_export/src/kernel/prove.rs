//! The proof that the set-up works without a network, before anybody is told so.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::task::LocalSet;

use super::{Dirs, Progress, find_evcxr, warm, write_if_changed};
use crate::run::process::{End, Kernel, KernelSpec};
use crate::workspace::Workspace;

/// Options of `nbs kernel prove`.
#[derive(Args, Clone, Debug)]
pub struct ProveArgs {}

/// A cell as a reader's first one may be, and what it gives. Nothing but the standard library tells the variable's type.
const CELL: &str = "use minai::tensor::Tensor;\nlet place = std::env::temp_dir();\nprintln!(\"{:?}\", Tensor::ones(&[2, 3]).shape())";
const ANSWER: &str = "[2, 3]";

/// Runs the proof, unless the same set-up has passed it.
pub(super) fn once(dirs: &Dirs, progress: &Progress) -> Result<()> {
    let record = dirs.warm().join("proved");
    let now = what_is_proved(dirs)?;
    if fs::read_to_string(&record).is_ok_and(|then| then == now) {
        return Ok(());
    }
    let mut task = progress.task("trying the kernel without network");
    task.set("about ten seconds");
    let mut command = Command::new(dirs.bin("nbs"));
    command.args(["kernel", "prove"]).current_dir(&dirs.root).stdin(Stdio::null());
    // Nothing listens there: whoever asks for the network is refused at once.
    let closed = "http://127.0.0.1:1";
    for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "CARGO_HTTP_PROXY"] {
        command.env(name, closed);
    }
    command.env("CARGO_NET_OFFLINE", "true").env_remove("no_proxy").env_remove("NO_PROXY");
    cut_off(&mut command);
    let output = command.output().context("cannot start the kernel's starter")?;
    if !output.status.success() {
        bail!(
            "the kernel is set up, but does not work without network:\n{}\n\
             Run `cargo nbs kernel install` again with a network; `cargo nbs doctor` says what else may be missing",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    write_if_changed(&record, now.as_bytes())
}

/// What may change between two set-ups, and would have to be proved again.
fn what_is_proved(dirs: &Dirs) -> Result<String> {
    let evcxr = find_evcxr(dirs).context("evcxr_jupyter is missing")?;
    Ok(format!("{}\n{}", evcxr.display(), warm::describe(dirs)?))
}

/// Starts a kernel and runs one cell that uses `minai`.
pub fn prove(_args: ProveArgs) -> Result<()> {
    let workspace = Workspace::discover()?;
    let spec = KernelSpec::ours(&Dirs::new(&workspace))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    let executed = runtime.block_on(local.run_until(async {
        let mut kernel = Kernel::start(&spec, &workspace.notebooks_dir()).await?;
        anyhow::Ok(kernel.execute(CELL, Duration::from_secs(300)).await)
    }))?;
    let outputs = executed.outputs;
    if executed.end != End::Ok || !outputs.text("stdout").contains(ANSWER) {
        let errors: Vec<_> = outputs.errors().map(|(_, report)| report).collect();
        bail!(
            "a first cell gave no answer: {:?}\n{}{}",
            executed.end,
            outputs.text("stderr"),
            errors.join("\n")
        );
    }
    Ok(())
}

/// Takes the network from a command, where the system lets us.
#[cfg(target_os = "linux")]
fn cut_off(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    let mut probe = Command::new("true");
    // SAFETY: only system calls are made between fork and exec.
    unsafe { probe.pre_exec(leave_network) };
    if probe.status().is_ok_and(|status| status.success()) {
        // SAFETY: as above.
        unsafe { command.pre_exec(leave_network) };
    }
}

#[cfg(not(target_os = "linux"))]
fn cut_off(_: &mut Command) {}

/// Moves this process to where there is no network but its own loopback.
#[cfg(target_os = "linux")]
pub fn leave_network() -> std::io::Result<()> {
    let check = |result: i32| if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: plain system calls; the request is a valid `ifreq` for as long as it is used.
    unsafe {
        let user = if libc::geteuid() == 0 { 0 } else { libc::CLONE_NEWUSER };
        check(libc::unshare(libc::CLONE_NEWNET | user))?;
        // The new loopback is down, and kernels are talked to through it.
        let socket = check(libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0))?;
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as libc::c_char;
        request.ifr_name[1] = b'o' as libc::c_char;
        request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
        check(libc::ioctl(socket, libc::SIOCSIFFLAGS, &request))?;
        libc::close(socket);
    }
    Ok(())
}
