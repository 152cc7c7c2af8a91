//! Messages of the Jupyter protocol, as they travel through ZeroMQ.
//!
//! They are kept as JSON: what the proxy does not know, it passes on. The form of the frames and the signature are those
//! of <https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol>.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;
use zeromq::ZmqMessage;

/// What separates the addresses from the message.
const DELIMITER: &[u8] = b"<IDS|MSG>";

/// The version of the protocol that we speak.
pub const PROTOCOL: &str = "5.4";

/// Ports and key: the contents of a connection file.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Connection {
    #[serde(default = "tcp")]
    pub transport: String,
    pub ip: String,
    pub shell_port: u16,
    pub iopub_port: u16,
    pub stdin_port: u16,
    pub control_port: u16,
    pub hb_port: u16,
    pub key: String,
    #[serde(default = "scheme")]
    pub signature_scheme: String,
}

fn tcp() -> String {
    "tcp".into()
}

fn scheme() -> String {
    "hmac-sha256".into()
}

impl Connection {
    /// Reads the file that Jupyter has written.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        let connection: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not a connection file", file.display()))?;
        if !connection.key.is_empty() && connection.signature_scheme != scheme() {
            bail!("the signature scheme {} is not supported", connection.signature_scheme);
        }
        Ok(connection)
    }

    /// Free ports on this machine. They are free when they are chosen; whoever binds them should do so at once.
    pub fn local() -> Result<Self> {
        let listeners: Vec<_> = (0..5)
            .map(|_| std::net::TcpListener::bind(("127.0.0.1", 0)))
            .collect::<std::io::Result<_>>()
            .context("no free ports on this machine")?;
        let ports: Vec<u16> = listeners.iter().map(|l| Ok(l.local_addr()?.port())).collect::<Result<_>>()?;
        Ok(Self {
            transport: tcp(),
            ip: "127.0.0.1".into(),
            shell_port: ports[0],
            iopub_port: ports[1],
            stdin_port: ports[2],
            control_port: ports[3],
            hb_port: ports[4],
            key: Uuid::new_v4().to_string(),
            signature_scheme: scheme(),
        })
    }

    /// The address of a port.
    pub fn endpoint(&self, port: u16) -> String {
        match self.transport.as_str() {
            "ipc" => format!("ipc://{}-{port}", self.ip),
            _ => format!("{}://{}:{port}", self.transport, self.ip),
        }
    }
}

/// A message, with the addresses that its answer must carry.
#[derive(Clone, Debug)]
pub struct Message {
    pub identities: Vec<Vec<u8>>,
    pub header: Value,
    pub parent: Value,
    pub metadata: Value,
    pub content: Value,
    pub buffers: Vec<Vec<u8>>,
}

impl Message {
    /// The kind of message, such as `execute_request`.
    pub fn kind(&self) -> &str {
        self.header["msg_type"].as_str().unwrap_or_default()
    }

    /// The message's own id.
    pub fn id(&self) -> &str {
        self.header["msg_id"].as_str().unwrap_or_default()
    }

    /// The id of the message that this one answers.
    pub fn parent_id(&self) -> &str {
        self.parent["msg_id"].as_str().unwrap_or_default()
    }

    /// The text of a field of the content; empty if it is missing.
    pub fn text(&self, field: &str) -> &str {
        self.content[field].as_str().unwrap_or_default()
    }
}

/// Signs, writes, checks and reads messages.
#[derive(Clone)]
pub struct Codec {
    key: Option<hmac::Key>,
    session: String,
}

impl Codec {
    /// For one connection file; an empty key means no signatures.
    pub fn new(key: &str) -> Self {
        let key = (!key.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()));
        Self { key, session: Uuid::new_v4().to_string() }
    }

    /// A new message. `parent` is the header of the message that it answers, or null.
    pub fn message(&self, kind: &str, parent: Value, content: Value) -> Message {
        let header = json!({
            "msg_id": Uuid::new_v4().to_string(),
            "msg_type": kind,
            "session": self.session,
            "username": "kernel",
            "date": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true),
            "version": PROTOCOL,
        });
        let parent = if parent.is_null() { json!({}) } else { parent };
        Message { identities: vec![], header, parent, metadata: json!({}), content, buffers: vec![] }
    }

    /// The frames of a message.
    pub fn encode(&self, message: &Message) -> ZmqMessage {
        let parts =
            [&message.header, &message.parent, &message.metadata, &message.content].map(Value::to_string);
        let mut frames: Vec<Vec<u8>> = message.identities.clone();
        frames.push(DELIMITER.to_vec());
        frames.push(self.sign(parts.iter().map(String::as_bytes)).into_bytes());
        frames.extend(parts.into_iter().map(String::into_bytes));
        frames.extend(message.buffers.iter().cloned());
        let mut all = ZmqMessage::from(frames.remove(0));
        frames.into_iter().for_each(|f| all.push_back(f.into()));
        all
    }

    /// Reads the frames of a message, and checks its signature.
    pub fn decode(&self, frames: ZmqMessage) -> Result<Message> {
        let frames: Vec<Vec<u8>> = frames.into_vec().into_iter().map(|f| f.to_vec()).collect();
        let at = frames.iter().position(|f| f == DELIMITER).context("a message without delimiter")?;
        let (identities, rest) = frames.split_at(at);
        let [_, signature, header, parent, metadata, content, buffers @ ..] = rest else {
            bail!("a message with {} parts instead of 6", rest.len());
        };
        let parts = [header, parent, metadata, content];
        if self.key.is_some() && self.sign(parts.iter().map(|p| p.as_slice())).as_bytes() != signature {
            bail!("a message whose signature is wrong");
        }
        let read = |bytes: &Vec<u8>| serde_json::from_slice(bytes).context("a message that is not JSON");
        Ok(Message {
            identities: identities.to_vec(),
            header: read(header)?,
            parent: read(parent)?,
            metadata: read(metadata)?,
            content: read(content)?,
            buffers: buffers.to_vec(),
        })
    }

    fn sign<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> String {
        let Some(key) = &self.key else { return String::new() };
        let mut context = hmac::Context::with_key(key);
        parts.for_each(|p| context.update(p));
        context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_wire_and_a_forged_one_does_not() {
        let codec = Codec::new("secret");
        let mut message = codec.message("status", json!({"msg_id": "p"}), json!({"execution_state": "busy"}));
        message.identities = vec![b"who".to_vec()];
        message.buffers = vec![vec![1, 2]];
        let back = codec.decode(codec.encode(&message)).unwrap();
        assert_eq!((back.kind(), back.parent_id(), back.text("execution_state")), ("status", "p", "busy"));
        assert_eq!((back.identities, back.buffers), (message.identities.clone(), message.buffers.clone()));
        let error = Codec::new("other").decode(codec.encode(&message)).unwrap_err();
        assert!(error.to_string().contains("signature"));
    }

    #[test]
    fn without_a_key_nothing_is_signed() {
        let codec = Codec::new("");
        let frames = codec.encode(&codec.message("x", Value::Null, json!({}))).into_vec();
        assert_eq!(frames[1].len(), 0);
    }
}
