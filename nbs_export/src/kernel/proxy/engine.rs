//! evcxr_jupyter itself, which the proxy talks to as a front end would.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::process::Child;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use zeromq::{DealerSocket, Socket as _, SocketRecv as _, SocketSend as _, SubSocket, ZmqMessage};

use super::wire::{Codec, Connection, Message};

/// What comes from evcxr while it executes something.
#[derive(Debug)]
pub enum FromEngine {
    Reply(Message),
    Broadcast(Message),
    /// The process has ended, with this status.
    Ended(String),
}

type Waiting = Rc<RefCell<HashMap<String, oneshot::Sender<Message>>>>;

/// A running evcxr. Cheap to clone.
#[derive(Clone)]
pub struct Engine {
    codec: Codec,
    shell: mpsc::UnboundedSender<ZmqMessage>,
    waiting: Waiting,
}

impl Engine {
    /// Starts evcxr with this command, and sends what comes to `events`.
    pub async fn start(
        command: std::process::Command,
        folder: &Path,
        events: mpsc::UnboundedSender<FromEngine>,
    ) -> Result<Self> {
        let connection = Connection::local()?;
        let file = folder.join("connection.json");
        std::fs::write(&file, serde_json::to_vec(&connection)?)?;
        let mut command = tokio::process::Command::from(command);
        command
            .arg("--control_file")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true);
        #[cfg(target_os = "linux")]
        // SAFETY: prctl is a plain system call, and so may be used between fork and exec.
        unsafe {
            // Should this process itself be killed, evcxr goes too.
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().context("cannot start evcxr_jupyter")?;
        let codec = Codec::new(&connection.key);
        let mut iopub = SubSocket::new();
        connect(&mut iopub, &connection.endpoint(connection.iopub_port), &mut child).await?;
        iopub.subscribe("").await?;
        let mut shell = DealerSocket::new();
        connect(&mut shell, &connection.endpoint(connection.shell_port), &mut child).await?;
        let (mut requests, mut replies) = shell.split();
        let (shell, mut queue) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            while let Some(request) = queue.recv().await {
                if requests.send(request).await.is_err() {
                    return;
                }
            }
        });
        let waiting = Waiting::default();
        let (reader, asked, broadcasts) = (codec.clone(), waiting.clone(), events.clone());
        tokio::task::spawn_local({
            let events = events.clone();
            async move {
                while let Ok(frames) = replies.recv().await {
                    let Ok(message) = reader.decode(frames) else { continue };
                    let waits = asked.borrow_mut().remove(message.parent_id());
                    match waits {
                        Some(asker) => drop(asker.send(message)),
                        None => drop(events.send(FromEngine::Reply(message))),
                    }
                }
            }
        });
        let reader = codec.clone();
        tokio::task::spawn_local(async move {
            while let Ok(frames) = iopub.recv().await {
                // The first frames are the topic: evcxr sends none.
                if let Ok(message) = reader.decode(frames) {
                    let _ = broadcasts.send(FromEngine::Broadcast(message));
                }
            }
        });
        tokio::task::spawn_local(async move {
            let status = child.wait().await.map_or_else(|e| e.to_string(), |s| s.to_string());
            let _ = events.send(FromEngine::Ended(status));
        });
        Ok(Self { codec, shell, waiting })
    }

    /// Asks evcxr to execute something. Gives the request's id, which answers carry.
    pub fn execute(&self, code: &str) -> Result<String> {
        let content = json!({
            "code": code, "silent": false, "store_history": false, "user_expressions": {}, "allow_stdin": false,
            "stop_on_error": false,
        });
        let request = self.codec.message("execute_request", Value::Null, content);
        self.shell.send(self.codec.encode(&request)).ok().context("evcxr_jupyter does not listen")?;
        Ok(request.id().to_owned())
    }

    /// Asks something else, and waits for the answer's content.
    pub async fn ask(&self, kind: &str, content: Value) -> Result<Value> {
        let request = self.codec.message(kind, Value::Null, content);
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(request.id().to_owned(), sender);
        self.shell.send(self.codec.encode(&request)).ok().context("evcxr_jupyter does not listen")?;
        Ok(receiver.await.context("evcxr_jupyter did not answer")?.content)
    }
}

/// Connects as soon as the other side listens.
async fn connect<S: zeromq::Socket>(socket: &mut S, endpoint: &str, child: &mut Child) -> Result<()> {
    for _ in 0..600 {
        if socket.connect(endpoint).await.is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("evcxr_jupyter ended while it started ({status})");
        }
        sleep(Duration::from_millis(50)).await;
    }
    bail!("evcxr_jupyter does not listen")
}
