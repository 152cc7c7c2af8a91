//! The kernel in front of evcxr: a proxy of the Jupyter protocol.
//!
//! Jupyter talks to this process, and this process to an unchanged evcxr_jupyter and to the process that runs the cells.
//! [`front`] has Jupyter's sockets, [`engine`] evcxr's, [`link`] the streams of the cells; [`session`] executes requests
//! one after the other. [`cell`] reads what a reader types, [`scanner`] what cells print; [`report`] words the errors.

mod cell;
mod engine;
mod front;
mod inspect;
mod lex;
mod link;
mod memory;
mod report;
mod scanner;
mod session;
pub mod wire;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

use engine::Engine;
use front::{Channel, Front, Incoming};
use link::Listener;
use session::{Session, Shared, Sources, Wish};
use wire::{Connection, Message};

/// What a kernel needs to begin with.
pub struct Setup {
    /// Jupyter's connection file.
    pub connection_file: PathBuf,
    /// The kernel's own folder.
    pub folder: PathBuf,
    /// How evcxr is started; called once the sockets are bound, for it may take a while.
    pub evcxr: Box<dyn FnOnce() -> Result<Command> + Send>,
}

/// Is the kernel until Jupyter ends it.
pub fn serve(setup: Setup) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = LocalSet::new().block_on(&runtime, run(setup));
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

async fn run(setup: Setup) -> Result<()> {
    let connection = Connection::read(&setup.connection_file)?;
    let (front, incoming) =
        Front::bind(&connection).await.context("cannot listen on the ports of this kernel")?;
    front.status("starting", &Value::Null);
    let shared = Shared { folder: setup.folder.clone().into(), ..Shared::default() };
    let (requests_in, mut requests) = mpsc::unbounded_channel();
    let requests_again = requests_in.clone();
    let (wishes_in, wishes) = mpsc::unbounded_channel();
    let (engine_in, engine) = mpsc::unbounded_channel();
    let (cells_in, cells) = mpsc::channel(64);
    let Incoming { shell, control, stdin } = incoming;
    spawn_local(answer_shell(front.clone(), shell, shared.clone(), requests_in));
    spawn_local(take_input(front.clone(), stdin, wishes_in.clone()));
    let shutdown = answer_control(front.clone(), control, wishes_in);
    let (place, _guard) = place(&setup.folder)?;
    let listener = Listener::new(&place.join("link"), cells_in)?;
    let flag = place.join("interrupt");
    std::fs::write(&flag, [0])?;
    let session = async {
        let start = setup.evcxr;
        let starting = tokio::task::spawn_blocking(start);
        let mut command = told(&front, starting, &mut requests, &requests_again).await??;
        command
            .env("MINAI_KERNEL_SOCKET", listener.path())
            .env("MINAI_DISPLAY", "1")
            .env("MINAI_INTERRUPT", &flag);
        let evcxr = Engine::start(command, &setup.folder, engine_in).await?;
        *shared.engine.borrow_mut() = Some(evcxr);
        let sources = Sources { requests, wishes, engine, cells };
        Session::new(front.clone(), shared.clone(), sources, &setup.folder, &flag).run().await;
        anyhow::Ok(())
    };
    tokio::select! {
        result = session => result,
        () = shutdown => Ok(()),
        () = ended() => Ok(()),
    }
}

/// Waits for the set-up, which compiles `minai` where that has changed, and says so in the cell that waits for it.
async fn told<T>(
    front: &Front,
    starting: tokio::task::JoinHandle<T>,
    requests: &mut mpsc::UnboundedReceiver<Message>,
    again: &mpsc::UnboundedSender<Message>,
) -> Result<T> {
    tokio::pin!(starting);
    let mut waiting = Vec::new();
    let tell = tokio::time::sleep(PATIENCE);
    tokio::pin!(tell);
    let (mut is_late, mut is_told) = (false, false);
    let result = loop {
        tokio::select! {
            result = &mut starting => break result,
            () = &mut tell, if !is_late => is_late = true,
            Some(request) = requests.recv() => waiting.push(request),
        }
        if let Some(first) = waiting.first().filter(|_| is_late && !is_told) {
            is_told = true;
            front.set_parent(first.header.clone());
            front.show(
                "stream",
                json!({ "name": "stderr", "text": "the kernel is being prepared (if minai has changed, it is compiled first) …\n" }),
            );
        }
    };
    waiting.into_iter().for_each(|request| drop(again.send(request)));
    result.context("the set-up failed")
}

/// How long a start takes where nothing is to be compiled, at most.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the socket is: in the kernel's folder, which is removed even if this process is killed, or where that has too long
/// a path, in a temporary folder that its guard removes.
fn place(folder: &Path) -> Result<(PathBuf, Option<tempfile::TempDir>)> {
    // A path for a socket may have about a hundred bytes.
    const LONGEST: usize = 90;
    if folder.as_os_str().len() <= LONGEST {
        return Ok((folder.to_owned(), None));
    }
    let guard =
        tempfile::Builder::new().prefix("minai-").tempdir().context("cannot make a temporary folder")?;
    Ok((guard.path().to_owned(), Some(guard)))
}

/// Waits for a signal that this process should end.
async fn ended() {
    use tokio::signal::unix::{SignalKind, signal};
    // Jupyter interrupts by a message. Ctrl-C in its terminal reaches this process too, and is not meant for it.
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    loop {
        tokio::select! {
            _ = term.recv() => return,
            _ = int.recv() => {}
        }
    }
}

/// Answers what needs no execution at once, and passes on what does.
async fn answer_shell(
    front: Front,
    mut socket: zeromq::RouterRecvHalf,
    shared: Shared,
    requests: mpsc::UnboundedSender<Message>,
) {
    while let Some(request) = front::next(&mut socket, &front.codec.clone()).await {
        if request.kind() == "execute_request" {
            let _ = requests.send(request);
            continue;
        }
        let (front, shared) = (front.clone(), shared.clone());
        // Documentation may take a moment: other questions do not wait for it.
        spawn_local(async move {
            front.status("busy", &request.header);
            answer(&front, Channel::Shell, &shared, &request).await;
            front.status("idle", &request.header);
        });
    }
}

async fn answer(front: &Front, channel: Channel, shared: &Shared, request: &Message) {
    let content = match request.kind() {
        "kernel_info_request" => kernel_info(),
        "is_complete_request" => inspect::is_complete(request.text("code")),
        "complete_request" => inspect::complete(shared, &request.content).await,
        "inspect_request" => inspect::inspect(shared, &request.content).await,
        "history_request" => history(shared, &request.content),
        "comm_info_request" => json!({ "status": "ok", "comms": {} }),
        "connect_request" => json!({ "status": "ok" }),
        "comm_open" => {
            // There are no targets: the front end is told that nobody listens.
            let content = json!({ "comm_id": request.content["comm_id"], "data": {} });
            return front.publish("comm_close", &request.header, content);
        }
        "comm_msg" | "comm_close" => return,
        other => {
            eprintln!("a request of an unknown kind: {other}");
            return;
        }
    };
    let kind = request.kind().replace("_request", "_reply");
    front.reply(channel, request, &kind, content).await;
}

/// Answers on the control channel; returns when the kernel is to end.
async fn answer_control(
    front: Front,
    mut socket: zeromq::RouterRecvHalf,
    wishes: mpsc::UnboundedSender<Wish>,
) {
    while let Some(request) = front::next(&mut socket, &front.codec.clone()).await {
        front.status("busy", &request.header);
        match request.kind() {
            "interrupt_request" => {
                let _ = wishes.send(Wish::Interrupt);
                front.reply(Channel::Control, &request, "interrupt_reply", json!({ "status": "ok" })).await;
            }
            "shutdown_request" => {
                let content = json!({ "status": "ok", "restart": request.content["restart"] == true });
                front.publish("shutdown_reply", &request.header, content.clone());
                front.reply(Channel::Control, &request, "shutdown_reply", content).await;
                front.status("idle", &request.header);
                // The answer is on its way when the sockets close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                return;
            }
            _ => answer(&front, Channel::Control, &Shared::default(), &request).await,
        }
        front.status("idle", &request.header);
    }
    std::future::pending().await
}

async fn take_input(front: Front, mut socket: zeromq::RouterRecvHalf, wishes: mpsc::UnboundedSender<Wish>) {
    while let Some(reply) = front::next(&mut socket, &front.codec.clone()).await {
        if reply.kind() == "input_reply" {
            let _ = wishes.send(Wish::Input(reply.text("value").to_owned()));
        }
    }
}

fn kernel_info() -> Value {
    json!({
        "status": "ok",
        "protocol_version": wire::PROTOCOL,
        "implementation": "minai",
        "implementation_version": env!("CARGO_PKG_VERSION"),
        "language_info": {
            "name": "rust", "version": "", "mimetype": "text/rust", "file_extension": ".rs",
            "pygments_lexer": "rust", "codemirror_mode": "rust",
        },
        "banner": concat!("Rust (minai) ", env!("CARGO_PKG_VERSION"), ", in front of evcxr_jupyter ", "0.22.0"),
        "debugger": false,
        "help_links": [
            { "text": "Rust's standard library", "url": "https://doc.rust-lang.org/std/" },
            { "text": "minai", "url": "https://docs.rs/minai" },
        ],
    })
}

/// Inputs of this session: all (`range`), the last ones (`tail`), or those that match a pattern (`search`).
fn history(shared: &Shared, content: &Value) -> Value {
    let all = shared.history.borrow();
    let number = |key: &str| content[key].as_i64();
    let with_output = content["output"] == true;
    let wanted: Vec<_> = match content["hist_access_type"].as_str() {
        Some("range") => {
            let start = number("start").unwrap_or(0).max(0);
            let stop = number("stop").unwrap_or(i64::MAX);
            all.iter().filter(|(n, ..)| (start..stop).contains(&i64::try_from(*n).unwrap_or(0))).collect()
        }
        Some("search") => {
            let pattern = content["pattern"].as_str().unwrap_or("*");
            let mut found: Vec<_> = all.iter().filter(|(_, code, _)| glob(pattern, code)).collect();
            if content["unique"] == true {
                let mut seen = std::collections::BTreeSet::new();
                found.reverse();
                found.retain(|(_, code, _)| seen.insert(code.clone()));
                found.reverse();
            }
            last(found, number("n"))
        }
        _ => last(all.iter().collect(), number("n")),
    };
    let entry = |(n, code, shown): &session::Entry| match with_output {
        true => json!([1, n, [code, shown]]),
        false => json!([1, n, code]),
    };
    let entries: Vec<Value> = wanted.into_iter().map(entry).collect();
    json!({ "status": "ok", "history": entries })
}

fn last<T>(mut all: Vec<T>, n: Option<i64>) -> Vec<T> {
    let n = n.and_then(|n| usize::try_from(n).ok()).unwrap_or(all.len());
    all.split_off(all.len().saturating_sub(n))
}

/// Does the text match a pattern with `*` and `?`?
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let mut possible = vec![true];
    possible.resize(text.len() + 1, false);
    for p in pattern {
        let mut next = vec![false; text.len() + 1];
        for k in 0..=text.len() {
            next[k] = match p {
                '*' => possible[k] || (k > 0 && next[k - 1]),
                _ => k > 0 && possible[k - 1] && (p == '?' || p == text[k - 1]),
            };
        }
        possible = next;
    }
    possible[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        assert!(glob("*", "") && glob("let*", "let a") && glob("*a?c*", "xabcx") && glob("abc", "abc"));
        assert!(!glob("", "a") && !glob("a", "ab") && !glob("?", ""));
    }

    #[test]
    fn history_is_given_in_all_three_ways() {
        let shared = Shared::default();
        let entries = [(1, "let a = 1;"), (2, "a"), (3, "a")];
        *shared.history.borrow_mut() =
            entries.map(|(n, c)| (n, c.to_owned(), (c == "a").then(|| "1".into()))).to_vec();
        let ask = |content: Value| history(&shared, &content)["history"].clone();
        assert_eq!(ask(json!({"hist_access_type": "tail", "n": 1})), json!([[1, 3, "a"]]));
        assert_eq!(
            ask(json!({"hist_access_type": "range", "start": 1, "stop": 2})),
            json!([[1, 1, "let a = 1;"]])
        );
        let search = json!({"hist_access_type": "search", "pattern": "a", "unique": true, "output": true});
        assert_eq!(ask(search), json!([[1, 3, ["a", "1"]]]));
    }
}
