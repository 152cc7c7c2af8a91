//! The five sockets that Jupyter talks to.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use zeromq::{
    PubSocket, RepSocket, RouterRecvHalf, RouterSendHalf, RouterSocket, Socket as _, SocketRecv as _,
    SocketSend as _, ZmqMessage,
};

use super::wire::{Codec, Connection, Message};

/// Where a request came from, and so where its reply goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Shell,
    Control,
}

/// The ends that send. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    pub codec: Codec,
    shell: RouterSendHalf,
    control: RouterSendHalf,
    stdin: RouterSendHalf,
    iopub: mpsc::UnboundedSender<ZmqMessage>,
    /// The request that is being worked on: what is shown belongs to it.
    parent: Rc<RefCell<Value>>,
}

/// The ends that receive.
pub struct Incoming {
    pub shell: RouterRecvHalf,
    pub control: RouterRecvHalf,
    pub stdin: RouterRecvHalf,
}

impl Front {
    /// Binds all sockets. Heartbeats are answered from now on.
    pub async fn bind(connection: &Connection) -> Result<(Self, Incoming)> {
        let router = async |port| -> Result<(RouterSendHalf, RouterRecvHalf)> {
            let mut socket = RouterSocket::new();
            socket.bind(&connection.endpoint(port)).await.with_context(|| format!("port {port}"))?;
            Ok(socket.split())
        };
        let (shell, shell_in) = router(connection.shell_port).await?;
        let (control, control_in) = router(connection.control_port).await?;
        let (stdin, stdin_in) = router(connection.stdin_port).await?;
        let mut heartbeat = RepSocket::new();
        heartbeat.bind(&connection.endpoint(connection.hb_port)).await?;
        tokio::task::spawn_local(async move {
            while let Ok(beat) = heartbeat.recv().await {
                let _ = heartbeat.send(beat).await;
            }
        });
        let mut publisher = PubSocket::new();
        publisher.bind(&connection.endpoint(connection.iopub_port)).await?;
        let (iopub, mut queue) = mpsc::unbounded_channel();
        tokio::task::spawn_local(async move {
            while let Some(message) = queue.recv().await {
                let _ = publisher.send(message).await;
            }
        });
        let codec = Codec::new(&connection.key);
        let parent = Rc::new(RefCell::new(Value::Null));
        let front = Self { codec, shell, control, stdin, iopub, parent };
        Ok((front, Incoming { shell: shell_in, control: control_in, stdin: stdin_in }))
    }

    /// The header of the request that is being executed.
    pub fn parent(&self) -> Value {
        self.parent.borrow().clone()
    }

    /// From now on what is shown belongs to this request.
    pub fn set_parent(&self, header: Value) {
        *self.parent.borrow_mut() = header;
    }

    /// Broadcasts something about a request.
    pub fn publish(&self, kind: &str, parent: &Value, content: Value) {
        let mut message = self.codec.message(kind, parent.clone(), content);
        message.identities = vec![topic(kind, &message.content)];
        let _ = self.iopub.send(self.codec.encode(&message));
    }

    /// Broadcasts something about the request that is being executed.
    pub fn show(&self, kind: &str, content: Value) {
        self.publish(kind, &self.parent(), content);
    }

    /// Says whether the kernel works on a request.
    pub fn status(&self, state: &str, parent: &Value) {
        self.publish("status", parent, json!({ "execution_state": state }));
    }

    /// Answers a request.
    pub async fn reply(&self, channel: Channel, request: &Message, kind: &str, content: Value) {
        let mut message = self.codec.message(kind, request.header.clone(), content);
        message.identities.clone_from(&request.identities);
        let frames = self.codec.encode(&message);
        let mut socket = if channel == Channel::Shell { self.shell.clone() } else { self.control.clone() };
        let _ = socket.send(frames).await;
    }

    /// Asks the front end that sent this request for a line of input.
    pub async fn ask(&self, request: &Message, prompt: &str, password: bool) {
        let content = json!({ "prompt": prompt, "password": password });
        let mut message = self.codec.message("input_request", request.header.clone(), content);
        message.identities.clone_from(&request.identities);
        let _ = self.stdin.clone().send(self.codec.encode(&message)).await;
    }
}

/// What subscribers may filter by.
fn topic(kind: &str, content: &Value) -> Vec<u8> {
    match (kind, content["name"].as_str()) {
        ("stream", Some(name)) => format!("stream.{name}").into_bytes(),
        _ => kind.as_bytes().to_vec(),
    }
}

/// The next message that can be read; nothing when the socket is gone.
pub async fn next(socket: &mut RouterRecvHalf, codec: &Codec) -> Option<Message> {
    loop {
        let frames = socket.recv().await.ok()?;
        match codec.decode(frames) {
            Ok(message) => return Some(message),
            Err(error) => eprintln!("a request was ignored: {error:#}"),
        }
    }
}
