//! A kernel process, and talking to it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use jupyter_protocol::connection_info::{ConnectionInfo, Transport};
use jupyter_protocol::{
    ExecuteRequest, ExecutionState, JupyterMessage, JupyterMessageContent, KernelInfoRequest, ReplyStatus,
};
use jupyter_zmq_client::{Connection, DealerSendConnection};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::memory;
use super::outputs::Outputs;
use crate::kernel::{Dirs, clean_cargo};

/// How long a kernel may take to answer for the first time: it may have to compile a changed `minai`.
const START: Duration = Duration::from_secs(600);
/// Output on stderr comes by a way of its own and may be late: a cell's output is complete when nothing comes for so long.
const QUIET: Duration = Duration::from_millis(25);

/// How to start a kernel: the contents of a kernel.json.
#[derive(Clone, Debug)]
pub struct KernelSpec {
    argv: Vec<String>,
    env: Vec<(String, String)>,
    /// Where kernels of this kind have a folder named after their process id, if they do.
    folders: Option<PathBuf>,
}

impl KernelSpec {
    /// Reads a kernel.json.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let json: Value =
            serde_json::from_str(&text).with_context(|| format!("{} is not JSON", file.display()))?;
        let words = json["argv"].as_array().into_iter().flatten();
        let argv: Vec<String> = words.filter_map(|w| w.as_str().map(str::to_owned)).collect();
        if argv.is_empty() {
            bail!("{} has no `argv`: it is not a kernelspec", file.display());
        }
        let vars = json["env"].as_object().into_iter().flatten();
        let env = vars.filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
        Ok(Self { argv, env, folders: None })
    }

    /// The course's kernel in this workspace.
    pub fn ours(dirs: &Dirs) -> Result<Self> {
        let mut spec = Self::read(&dirs.kernelspec())?;
        spec.folders = Some(dirs.kernels());
        Ok(spec)
    }

    /// The same with one variable more in its environment.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    fn command(&self, connection_file: &Path) -> Command {
        let fill = |word: &String| word.replace("{connection_file}", &connection_file.to_string_lossy());
        let mut command = clean_cargo(fill(&self.argv[0]));
        command.args(self.argv[1..].iter().map(fill)).envs(self.env.iter().cloned());
        command.into()
    }
}

/// What came of executing some code.
pub struct Executed {
    pub outputs: Outputs,
    pub end: End,
}

/// How an execution ended, as far as the protocol tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Reported as ok, which a panicking cell and a failing `?` are, too.
    Ok,
    /// Reported as an error, such as one of the compiler.
    Error,
    /// There is no kernel any more.
    Died(String),
    TimedOut,
}

enum Incoming {
    Shell(JupyterMessage),
    IoPub(JupyterMessage),
    Unreadable(String),
}

/// A running kernel. When it is dropped, all its processes end and its files go.
pub struct Kernel {
    processes: Processes,
    shell: DealerSendConnection,
    incoming: mpsc::UnboundedReceiver<Incoming>,
    /// Does the kernel report every failure as an error, as ours does and evcxr alone does not?
    pub tells_all: bool,
    /// Bytes, of the process that runs the cells.
    pub peak_memory: Option<u64>,
    // Last: it is removed after the processes have ended.
    folder: tempfile::TempDir,
}

impl Kernel {
    /// Starts a kernel in the folder `cwd` and waits until it answers.
    pub async fn start(spec: &KernelSpec, cwd: &Path) -> Result<Self> {
        // Another process may take a port between our choice and the kernel's start: then we try once more.
        match Self::try_start(spec, cwd).await {
            Err(error) if format!("{error:#}").contains("Address already in use") => {
                Self::try_start(spec, cwd).await
            }
            result => result,
        }
    }

    async fn try_start(spec: &KernelSpec, cwd: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let info = connection_info().await?;
        let connection_file = folder.path().join("connection.json");
        fs::write(&connection_file, serde_json::to_vec(&info)?)?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = spec.command(&connection_file);
        command.current_dir(cwd).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        // Where evcxr compiles, if the kernelspec has no better place: in what goes away with the kernel.
        command.env("EVCXR_TMPDIR", folder.path().join("evcxr"));
        own_group(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start the kernel {}", spec.argv[0]))?;
        let id = child.id().context("the kernel ended at once")?;
        let copy = spec.folders.as_ref().map(|f| f.join(id.to_string()));
        let processes = Processes { id, child, copy };
        let (shell, incoming) = connect(&info).await?;
        let mut kernel = Self {
            processes,
            shell,
            incoming,
            tells_all: spec.folders.is_some() && cfg!(unix),
            peak_memory: None,
            folder,
        };
        timeout(START, kernel.wait_until_ready())
            .await
            .context("the kernel did not start in ten minutes")??;
        Ok(kernel)
    }

    /// Asks for the kernel's name until the answer comes both as a reply and as a broadcast: a broadcast reaches only
    /// those who are subscribed, and nothing else tells that we are.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let (mut replied, mut subscribed) = (false, false);
        while !(replied && subscribed) {
            self.shell.send(KernelInfoRequest {}.into()).await.context("cannot talk to the kernel")?;
            let pause = sleep(Duration::from_millis(300));
            tokio::pin!(pause);
            while !(replied && subscribed) {
                tokio::select! {
                    message = self.incoming.recv() => match message {
                        Some(Incoming::Shell(_)) => replied = true,
                        Some(Incoming::IoPub(_)) => subscribed = true,
                        _ => {}
                    },
                    status = self.processes.child.wait() => bail!("the kernel ended while it started ({})\n{}", describe(status), self.log()),
                    () = &mut pause => break,
                }
            }
        }
        // Answers to questions asked in vain.
        while let Ok(Some(_)) = timeout(QUIET, self.incoming.recv()).await {}
        Ok(())
    }

    /// Executes code and collects its outputs.
    pub async fn execute(&mut self, code: &str, limit: Duration) -> Executed {
        let mut outputs = Outputs::default();
        let request = ExecuteRequest { allow_stdin: false, ..ExecuteRequest::new(code.to_owned()) };
        let request: JupyterMessage = request.into();
        let id = request.header.msg_id.clone();
        if let Err(error) = self.shell.send(request).await {
            return Executed { outputs, end: End::Died(error.to_string()) };
        }
        let end = tokio::select! {
            end = self.collect(&id, &mut outputs) => end,
            () = sleep(limit) => End::TimedOut,
        };
        // Our kernel is done when it says so.
        while !self.tells_all
            && let Ok(Some(message)) = timeout(QUIET, self.incoming.recv()).await
        {
            if let Incoming::IoPub(message) = message {
                outputs.add(message.content);
            }
        }
        self.sample_memory();
        Executed { outputs, end }
    }

    async fn collect(&mut self, id: &str, outputs: &mut Outputs) -> End {
        let (mut reply, mut idle) = (None, false);
        let mut tick = tokio::time::interval(Duration::from_millis(200));
        loop {
            if let Some(end) = reply.clone().filter(|_| idle) {
                return end;
            }
            tokio::select! {
                message = self.incoming.recv() => match message {
                    Some(Incoming::Shell(message)) if answers(&message, id) => {
                        if let JupyterMessageContent::ExecuteReply(content) = message.content {
                            reply = Some(if content.status == ReplyStatus::Ok { End::Ok } else { End::Error });
                        }
                    }
                    Some(Incoming::IoPub(message)) if answers(&message, id) => match message.content {
                        JupyterMessageContent::Status(status) => idle = status.execution_state == ExecutionState::Idle,
                        content => outputs.add(content),
                    },
                    // A line that was late for the cell before: a panic in it must not be lost.
                    Some(Incoming::IoPub(JupyterMessage { content: content @ JupyterMessageContent::StreamContent(_), .. })) => outputs.add(content),
                    Some(Incoming::Unreadable(error)) => return End::Died(error),
                    Some(_) => {}
                    None => return End::Died("the connection to the kernel broke".into()),
                },
                status = self.processes.child.wait() => return End::Died(format!("{}\n{}", describe(status), self.log())),
                _ = tick.tick() => self.sample_memory(),
            }
        }
    }

    /// What comes after the last cell.
    pub async fn late_output(&mut self) -> Outputs {
        let mut outputs = Outputs::default();
        while let Ok(Some(message)) = timeout(10 * QUIET, self.incoming.recv()).await {
            if let Incoming::IoPub(message) = message {
                outputs.add(message.content);
            }
        }
        outputs
    }

    fn sample_memory(&mut self) {
        self.peak_memory = self.peak_memory.max(memory::peak_below(self.processes.id));
    }

    /// The last lines of what the kernel itself has printed.
    fn log(&self) -> String {
        let text = fs::read(self.folder.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

fn answers(message: &JupyterMessage, id: &str) -> bool {
    message.parent_header.as_ref().is_some_and(|p| p.msg_id == id)
}

fn describe(status: std::io::Result<std::process::ExitStatus>) -> String {
    status.map_or_else(|e| e.to_string(), |s| s.to_string())
}

async fn connection_info() -> Result<ConnectionInfo> {
    let ip = std::net::Ipv4Addr::LOCALHOST;
    let ports =
        jupyter_zmq_client::peek_ports(ip.into(), 5).await.context("no free ports on this machine")?;
    Ok(ConnectionInfo {
        transport: Transport::TCP,
        ip: ip.to_string(),
        shell_port: ports[0],
        iopub_port: ports[1],
        stdin_port: ports[2],
        control_port: ports[3],
        hb_port: ports[4],
        key: Uuid::new_v4().to_string(),
        signature_scheme: "hmac-sha256".into(),
        kernel_name: None,
    })
}

/// Connects, and lets two tasks read whatever comes: reading can then be waited for together with other things.
async fn connect(info: &ConnectionInfo) -> Result<(DealerSendConnection, mpsc::UnboundedReceiver<Incoming>)> {
    let session = Uuid::new_v4().to_string();
    let iopub = jupyter_zmq_client::create_client_iopub_connection(info, "", &session).await?;
    let identity = jupyter_zmq_client::peer_identity_for_session(&session)?;
    let shell =
        jupyter_zmq_client::create_client_shell_connection_with_identity(info, &session, identity).await?;
    let (shell_send, shell_read) = shell.split();
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::task::spawn_local(forward(shell_read, sender.clone(), Incoming::Shell));
    tokio::task::spawn_local(forward(iopub, sender, Incoming::IoPub));
    Ok((shell_send, receiver))
}

async fn forward<S: zeromq::SocketRecv>(
    mut connection: Connection<S>,
    sender: mpsc::UnboundedSender<Incoming>,
    wrap: fn(JupyterMessage) -> Incoming,
) {
    loop {
        let message = match connection.read().await {
            Ok(message) => wrap(message),
            Err(error) => Incoming::Unreadable(error.to_string()),
        };
        let broken = matches!(message, Incoming::Unreadable(_));
        if sender.send(message).is_err() || broken {
            return;
        }
    }
}

/// The kernel and everything it has started, which is a process group of its own.
struct Processes {
    id: u32,
    child: Child,
    /// The kernel's own copy of the compiled dependencies.
    copy: Option<PathBuf>,
}

impl Drop for Processes {
    fn drop(&mut self) {
        end_group(self.id);
        let _ = self.child.start_kill();
        // Until they are gone they may write to the folders that are removed next.
        let limit = Instant::now() + Duration::from_secs(5);
        while Instant::now() < limit {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended && !group_exists(self.id) {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        if let Some(copy) = &self.copy {
            let _ = fs::remove_dir_all(copy);
        }
    }
}

#[cfg(unix)]
fn own_group(command: &mut Command) {
    // Ctrl-C on the terminal then reaches `nbs` only, which ends the kernel in its own way.
    command.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: prctl is a plain system call, and so may be used between fork and exec.
    unsafe {
        // Should `nbs` itself be killed, the kernel goes too.
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

#[cfg(not(unix))]
fn own_group(command: &mut Command) {
    command.kill_on_drop(true);
}

#[cfg(unix)]
fn end_group(id: u32) {
    if let Ok(id) = libc::pid_t::try_from(id) {
        // SAFETY: the group is our own child's: its id cannot be another's before we have waited for the child.
        unsafe { libc::killpg(id, libc::SIGKILL) };
    }
}

#[cfg(unix)]
fn group_exists(id: u32) -> bool {
    // SAFETY: signal 0 only asks whether the group is there.
    libc::pid_t::try_from(id).is_ok_and(|id| unsafe { libc::killpg(id, 0) } == 0)
}

/// Without process groups: the kernel's runtime process ends by itself when its standard input closes.
#[cfg(not(unix))]
fn end_group(_id: u32) {}

#[cfg(not(unix))]
fn group_exists(_id: u32) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernelspec_needs_an_argv() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kernel.json");
        fs::write(&file, r#"{"argv": ["k", "-f", "{connection_file}"], "env": {"A": "1"}}"#).unwrap();
        let spec = KernelSpec::read(&file).unwrap();
        assert_eq!(spec.argv, ["k", "-f", "{connection_file}"]);
        assert_eq!(spec.env, [("A".to_owned(), "1".to_owned())]);
        fs::write(&file, "{}").unwrap();
        assert!(KernelSpec::read(&file).unwrap_err().to_string().contains("no `argv`"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn dropping_ends_children_and_grandchildren() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("id");
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 600 & echo $! > id; wait"]).current_dir(folder.path());
            own_group(&mut command);
            let child = command.spawn().unwrap();
            let processes = Processes { id: child.id().unwrap(), child, copy: None };
            let grandchild = loop {
                let text = fs::read_to_string(&file).unwrap_or_default();
                if let Some(id) = text.strip_suffix('\n') {
                    break id.to_owned();
                }
                sleep(Duration::from_millis(10)).await;
            };
            let stat = format!("/proc/{grandchild}/stat");
            assert!(Path::new(&stat).exists());
            drop(processes);
            // Gone, or waiting for its new parent to notice.
            let state = fs::read_to_string(&stat).unwrap_or_default();
            assert!(state.is_empty() || state.contains(") Z "), "{state}");
        });
    }
}
