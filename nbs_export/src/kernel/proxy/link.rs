//! The kernel's end of the link to the process that runs the cells; the other end is `nbs_export/kernel/src/nbs_link.rs`.
//!
//! The process hands over its standard streams: what evcxr has for it and wants from it passes through here.

use std::fs::File;
use std::io::{self, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::Value;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Interest};
use tokio::net::unix::pipe;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// evcxr's mark that a `?` has ended a cell.
const FAILED: &str = "EVCXR_ERROR_OCCURRED";

/// What comes from the process.
#[derive(Debug)]
pub enum FromCells {
    /// A process has handed over its streams.
    Linked(Link),
    Output(Vec<u8>),
    Errors(Vec<u8>),
    /// A line that evcxr sends to the process.
    Command(String),
    /// A report: a panic, a death, a wish for input, the answer to `flush`.
    Report(Value),
    /// The process has ended, and all that it had written was delivered.
    Gone,
}

/// Where events go, with the number of the process that they come from.
pub type Sender = mpsc::Sender<(u64, FromCells)>;

/// Waits for the processes that evcxr starts, one after the other.
pub struct Listener {
    path: PathBuf,
}

impl Listener {
    /// Listens at the path, and sends what comes.
    pub fn new(path: &Path, events: Sender) -> Result<Self> {
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        tokio::task::spawn_local(async move {
            let mut number = 0;
            while let Ok((stream, _)) = listener.accept().await {
                number += 1;
                let events = events.clone();
                tokio::task::spawn_local(async move {
                    if let Err(error) = Link::serve(stream, number, events).await {
                        eprintln!("the link to the cells: {error:#}");
                    }
                });
            }
        });
        Ok(Self { path: path.to_owned() })
    }

    /// Where the process finds us.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What we hold of a process: its number, and the ways to it and to evcxr.
#[derive(Debug)]
pub struct Link {
    pub number: u64,
    pub pid: u32,
    asks: File,
    /// The process's standard input.
    input: pipe::Sender,
    /// What evcxr takes for the process's standard output.
    evcxr: File,
}

impl Link {
    async fn serve(stream: UnixStream, number: u64, events: Sender) -> Result<()> {
        let (hello, fds) = receive(&stream).await?;
        let [commands, evcxr, input, output, errors] =
            <[OwnedFd; 5]>::try_from(fds).map_err(|f| anyhow::anyhow!("{} streams instead of 5", f.len()))?;
        let pid = hello["pid"].as_u64().and_then(|p| u32::try_from(p).ok()).context("no process id")?;
        let reports = Source::new(OwnedFd::from(stream.into_std()?))?;
        let asks = File::from(reports.0.get_ref().try_clone()?);
        let input = pipe::Sender::from_owned_fd(input)?;
        let (output, errors) = (Source::new(output)?, Source::new(errors)?);
        let link = Self { number, pid, asks, input, evcxr: File::from(evcxr) };
        let _ = events.send((number, FromCells::Linked(link))).await;
        tokio::task::spawn_local(lines(pipe::Receiver::from_owned_fd(commands)?, number, events.clone()));
        let mut unfinished = Vec::new();
        // Until the process is gone. A pipe's end would not tell: whatever the process has started holds it open too.
        let mut gone = false;
        while !gone {
            tokio::select! {
                () = output.ready() => {}
                () = errors.ready() => {}
                () = reports.ready() => {}
            }
            // What was written before something that is read here is read after it, and so missed by none of the three.
            let (mut out, _) = output.read();
            let (mut err, _) = errors.read();
            let (bytes, end) = reports.read();
            gone = end;
            unfinished.extend(bytes);
            let mut answers = Vec::new();
            while let Some(at) = unfinished.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = unfinished.drain(..=at).collect();
                let report: Value = serde_json::from_slice(&line).unwrap_or(Value::Null);
                if report["flushed"] == true {
                    answers.push(report);
                } else {
                    let _ = events.send((number, FromCells::Report(report))).await;
                }
            }
            if gone || !answers.is_empty() {
                out.extend(output.read().0);
                err.extend(errors.read().0);
            }
            let (out, err) = (FromCells::Output(out), FromCells::Errors(err));
            // The message of a `?` comes before the mark that it has ended the cell.
            let ordered = if out.holds(FAILED) { [err, out] } else { [out, err] };
            for event in ordered.into_iter().filter(|e| !e.holds_nothing()) {
                let _ = events.send((number, event)).await;
            }
            for report in answers {
                let _ = events.send((number, FromCells::Report(report))).await;
            }
        }
        let _ = events.send((number, FromCells::Gone)).await;
        Ok(())
    }

    /// Asks the process for something: see its side.
    pub fn ask(&mut self, byte: u8) {
        let _ = self.asks.write_all(&[byte]);
    }

    /// Writes to the process's standard input.
    pub async fn input(&mut self, line: &str) {
        let _ = self.input.write_all(format!("{line}\n").as_bytes()).await;
    }

    /// Lets evcxr read a line of the process's.
    pub fn tell_evcxr(&mut self, line: &str) {
        let _ = self.evcxr.write_all(format!("{line}\n").as_bytes());
    }
}

impl FromCells {
    fn holds(&self, text: &str) -> bool {
        matches!(self, Self::Output(bytes) if bytes.windows(text.len()).any(|w| w == text.as_bytes()))
    }

    fn holds_nothing(&self) -> bool {
        matches!(self, Self::Output(bytes) | Self::Errors(bytes) if bytes.is_empty())
    }
}

/// A descriptor that is read when there is something, and never waited for.
struct Source(AsyncFd<OwnedFd>);

impl Source {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&fd)?;
        rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK)?;
        // SAFETY: the descriptor is owned, and stays open until the registration is dropped with it.
        Ok(Self(unsafe { AsyncFd::register(fd)? }))
    }

    async fn ready(&self) {
        if let Ok(mut guard) = self.0.readable().await {
            guard.clear_ready();
        }
    }

    /// All that there is now, and whether this was the end.
    fn read(&self) -> (Vec<u8>, bool) {
        let (mut all, mut bytes) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match rustix::io::read(self.0.get_ref(), &mut bytes[..]) {
                Ok(0) => return (all, true),
                Ok(n) => all.extend_from_slice(&bytes[..n]),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return (all, false),
                Err(_) => return (all, true),
            }
        }
    }
}

/// Forwards the lines that evcxr sends to the process.
async fn lines(commands: pipe::Receiver, number: u64, events: Sender) {
    let mut lines = BufReader::new(commands).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if events.send((number, FromCells::Command(line))).await.is_err() {
            return;
        }
    }
}

/// The first message, which carries descriptors.
async fn receive(stream: &UnixStream) -> Result<(Value, Vec<OwnedFd>)> {
    let mut bytes = [0; 256];
    let (n, fds) = stream
        .async_io(Interest::READABLE, || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut rights = RecvAncillaryBuffer::new(&mut space);
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let message = recvmsg(stream.as_fd(), &mut parts, &mut rights, RecvFlags::CMSG_CLOEXEC)?;
            let mut fds = Vec::new();
            for part in rights.drain() {
                if let RecvAncillaryMessage::ScmRights(all) = part {
                    fds.extend(all);
                }
            }
            io::Result::Ok((message.bytes, fds))
        })
        .await?;
    if n == 0 {
        bail!("nothing came");
    }
    Ok((serde_json::from_slice(bytes[..n].trim_ascii_end()).context("no greeting")?, fds))
}
