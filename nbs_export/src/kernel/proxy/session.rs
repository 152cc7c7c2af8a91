//! Executing cells, one after the other.

use std::cell::{Cell as StdCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::cell::{Alone, Cell, MAGICS};
use super::engine::{Engine, FromEngine};
use super::front::{Channel, Front};
use super::inspect;
use super::link::{FromCells, Link};
use super::memory::Memory;
use super::report::{self, Lines, Report};
use super::scanner::{Piece, Scanner};
use super::wire::Message;
use crate::kernel::dependencies::{self, Conflict, Verdict};
use crate::kernel::shim;
use crate::run::strip_ansi;

/// How much a cell may print before the rest is cut.
const MOST_LINES: usize = 10_000;
const MOST_BYTES: usize = 1 << 20;
/// How long a cell that was asked to stop may take for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the interrupt's file holds, as `minai::io::interrupt` reads and writes it.
const NO_REQUEST: u8 = 0;
const ASKED: u8 = 1;
const SEEN: u8 = 2;
/// How long output on stderr is held back: it may turn out to be the message of a `?`.
const HOLD: Duration = Duration::from_millis(10);
/// How long rich output is held back: it may turn out to be the cell's result.
const HOLD_RICH: Duration = Duration::from_millis(300);

/// What every process begins with: the link, a variable for which rust-analyzer reads the crates, and `evcxr_display`, which
/// evcxr asks a last expression for, for whatever has a `Debug`; a type's own comes first. The trait stands here and not in a
/// crate: the stock kernel, which does not bring it in, would have rustc advise it instead of falling back to `Debug`.
const BEGIN: &str = r#"
trait ShowDebug {
    fn evcxr_display(&self);
}
impl<T: std::fmt::Debug + ?Sized> ShowDebug for T {
    fn evcxr_display(&self) {
        minai::nbs_cell::show::<T>(format_args!("{self:?}"));
    }
}
if let Err(error) = minai::nbs_link::start() { eprintln!("{error}"); };
let nbs_begin = minai::tensor::Tensor::ones(&[1]); drop(nbs_begin);
"#;

/// Wishes of the front end that concern the running cell.
#[derive(Debug)]
pub enum Wish {
    Interrupt,
    /// The answer to a request for input.
    Input(String),
}

/// What other tasks may look at.
#[derive(Clone, Default)]
pub struct Shared {
    /// The kernel's folder.
    pub folder: Rc<PathBuf>,
    pub memory: Rc<RefCell<Memory>>,
    pub engine: Rc<RefCell<Option<Engine>>>,
    /// Does evcxr have time for questions?
    pub free: Rc<StdCell<bool>>,
    pub count: Rc<StdCell<usize>>,
    /// Inputs with their sessions and numbers, and what they showed.
    pub history: Rc<RefCell<Vec<Entry>>>,
}

/// An input with its number, and what it showed.
pub type Entry = (usize, String, Option<String>);

/// What comes from outside.
pub struct Sources {
    pub requests: mpsc::UnboundedReceiver<Message>,
    pub wishes: mpsc::UnboundedReceiver<Wish>,
    pub engine: mpsc::UnboundedReceiver<FromEngine>,
    pub cells: mpsc::Receiver<(u64, FromCells)>,
}

/// The executor.
pub struct Session {
    front: Front,
    shared: Shared,
    sources: Sources,
    queue: VecDeque<Message>,
    folder: PathBuf,
    interrupt_flag: PathBuf,
    link: Option<Link>,
    scanner: Scanner,
    out: Output,
}

/// What became of code that was given to evcxr.
#[derive(Debug, Default)]
struct Outcome {
    ok: bool,
    errors: Vec<Value>,
    result: Option<Value>,
    panic: Option<Value>,
    /// The message of a `?` that ended the code early.
    failed: Option<String>,
    /// The process that ran the code is gone; the reports on its end.
    gone: bool,
    deaths: Vec<Value>,
    interrupts: usize,
    ran: Option<Duration>,
    /// evcxr itself has ended.
    ended: Option<String>,
}

/// What a request comes to.
#[derive(Default)]
struct Finished {
    report: Option<Report>,
    result: Option<Value>,
    /// The kernel cannot go on.
    ended: bool,
}

impl Finished {
    fn failed(report: Report) -> Self {
        Self { report: Some(report), ..Self::default() }
    }
}

/// Where a cell's output goes, and how much there was.
#[derive(Default)]
struct Output {
    hidden: bool,
    lines: usize,
    bytes: usize,
    cut: bool,
    errors: String,
    errors_due: Option<Instant>,
    rich: Map<String, Value>,
    rich_due: Option<Instant>,
    panic: Option<Value>,
    /// The end of the line that is being printed.
    line: String,
}

impl Session {
    /// An executor for this kernel's folder.
    pub fn new(front: Front, shared: Shared, sources: Sources, folder: &Path, interrupt_flag: &Path) -> Self {
        Self {
            front,
            shared,
            sources,
            queue: VecDeque::new(),
            folder: folder.to_owned(),
            interrupt_flag: interrupt_flag.to_owned(),
            link: None,
            scanner: Scanner::default(),
            out: Output::default(),
        }
    }

    /// Executes requests until there are no more.
    pub async fn run(mut self) {
        self.connect().await;
        loop {
            self.shared.free.set(true);
            let Some(request) = self.next_request().await else { return };
            self.shared.free.set(false);
            let lives = self.execute(&request).await;
            if !lives {
                return;
            }
        }
    }

    async fn next_request(&mut self) -> Option<Message> {
        loop {
            if let Some(request) = self.queue.pop_front() {
                return Some(request);
            }
            tokio::select! {
                request = self.sources.requests.recv() => return request,
                Some(event) = self.sources.engine.recv() => {
                    if let FromEngine::Ended(status) = event {
                        eprintln!("evcxr_jupyter has ended ({status})");
                        return None;
                    }
                }
                Some((number, event)) = self.sources.cells.recv() => {
                    // A thread of an earlier cell goes on printing.
                    let mut none = Outcome::default();
                    self.take(number, event, &mut none);
                    self.flush_all();
                }
                // There is nothing to interrupt.
                Some(_) = self.sources.wishes.recv() => {}
            }
        }
    }

    /// Lets the process that runs cells hand over its streams.
    async fn connect(&mut self) {
        let outcome = self.hidden(BEGIN).await;
        if self.link.is_none() {
            // Why, the reader's first cell will show, for it meets the same error.
            let errors: Vec<_> = outcome.errors.iter().map(|e| e["evalue"].to_string()).collect();
            eprintln!("cells run without a link: {}", errors.join("; "));
        }
    }

    /// Gives code to evcxr of which the reader sees nothing.
    async fn hidden(&mut self, code: &str) -> Outcome {
        let visible = std::mem::replace(&mut self.out, Output { hidden: true, ..Output::default() });
        let outcome = self.evaluate(code, None).await;
        self.out = visible;
        outcome
    }

    /// Executes one request, and answers it. False if the kernel cannot go on.
    async fn execute(&mut self, request: &Message) -> bool {
        let front = self.front.clone();
        front.set_parent(request.header.clone());
        front.status("busy", &request.header);
        let silent = request.content["silent"] == true;
        let stored = !silent && request.content["store_history"] != false;
        let source = request.text("code").to_owned();
        if stored {
            self.shared.count.set(self.shared.count.get() + 1);
        }
        let count = self.shared.count.get();
        if !silent {
            front.show("execute_input", json!({ "code": source, "execution_count": count }));
        }
        self.out = Output { hidden: silent, ..Output::default() };
        self.set_interrupt_flag(NO_REQUEST);
        let mut payload = Vec::new();
        let Finished { report, result, ended } = self.cell(&source, count, request, &mut payload).await;
        if let Some(report) = report {
            self.fail(request, &report, count, silent).await;
        } else {
            if let Some(data) = result.as_ref().filter(|_| !silent) {
                let content = json!({ "execution_count": count, "data": data, "metadata": {} });
                front.show("execute_result", content);
            }
            let content = json!({
                "status": "ok", "execution_count": count, "payload": payload, "user_expressions": {},
            });
            front.reply(Channel::Shell, request, "execute_reply", content).await;
        }
        if stored {
            let shown = result.and_then(|d| d["text/plain"].as_str().map(str::to_owned));
            self.shared.history.borrow_mut().push((count, source, shown));
        }
        front.status("idle", &request.header);
        !ended
    }

    async fn fail(&mut self, request: &Message, report: &Report, count: usize, silent: bool) {
        let front = self.front.clone();
        if !silent {
            front.show("error", report.content());
        }
        let mut content = report.content();
        content["status"] = "error".into();
        content["execution_count"] = count.into();
        content["user_expressions"] = json!({});
        content["payload"] = json!([]);
        front.reply(Channel::Shell, request, "execute_reply", content).await;
        if request.content["stop_on_error"] == false {
            return;
        }
        // What was asked for before this failed is not done any more.
        while let Ok(next) = self.sources.requests.try_recv() {
            self.queue.push_back(next);
        }
        for next in std::mem::take(&mut self.queue) {
            front.status("busy", &next.header);
            let content = json!({ "status": "aborted", "execution_count": self.shared.count.get() });
            front.reply(Channel::Shell, &next, "execute_reply", content).await;
            front.status("idle", &next.header);
        }
    }

    /// What a cell comes to.
    async fn cell(
        &mut self,
        source: &str,
        count: usize,
        request: &Message,
        payload: &mut Vec<Value>,
    ) -> Finished {
        let cell = match Cell::read(source) {
            Ok(cell) => cell,
            Err(refused) => {
                let message = format!("line {}: {refused}", refused.line);
                return Finished::failed(Report::new("Error", &message, &[]));
            }
        };
        self.shared.free.set(true);
        for (name, with_source) in &cell.questions {
            let page = inspect::page(&self.shared, name, *with_source).await;
            payload.push(json!({ "source": "page", "data": page, "start": 0 }));
        }
        self.shared.free.set(false);
        if let Some(alone) = cell.alone {
            return Finished { result: self.alone(alone).await, ..Finished::default() };
        }
        let mut code = cell.code.clone();
        match self.dependencies(&cell.dependencies) {
            Ok(lines) => code = lines + &code,
            Err(message) => return Finished::failed(Report::new("Error", &message, &[])),
        }
        if code.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with("//")) {
            return Finished::default();
        }
        self.give_up_outdated(&code, count).await;
        self.shared.memory.borrow_mut().begin(count, source);
        let outcome = self.evaluate(&code, Some(request)).await;
        self.flush_errors();
        if cell.timed
            && let Some(ran) = outcome.ran
        {
            self.print("stdout", &format!("Wall time: {ran:.3?}\n"));
        }
        if let Some(status) = outcome.ended {
            let message = format!("evcxr_jupyter has ended ({status}): restart the kernel");
            return Finished { ended: true, ..Finished::failed(Report::new("KernelError", &message, &[])) };
        }
        let mut report = self.judge(&outcome, count, source);
        if let Some(report) = report.as_mut().filter(|r| r.message.contains("no matching package")) {
            let name =
                cell.dependencies.first().map_or("", |d| d.split(['=', ' ']).next().unwrap_or_default());
            *report = Report::new("Error", &dependencies::how_to_go_online(name), &[]);
        }
        if outcome.gone {
            self.shared.memory.borrow_mut().variables.clear();
            self.connect().await;
        } else if outcome.ok {
            self.shared.memory.borrow_mut().define(count, &code);
            self.look_at_variables(count).await;
        }
        let rich = std::mem::take(&mut self.out.rich);
        let result = if rich.is_empty() { outcome.result } else { Some(Value::Object(rich)) };
        Finished { report, result, ended: false }
    }

    /// The lines that evcxr needs for crates that are not there yet.
    fn dependencies(&self, lines: &[String]) -> Result<String, String> {
        let folder = std::env::current_dir().unwrap_or_default();
        let mut passed = String::new();
        for line in lines {
            match dependencies::judge(line, &folder) {
                Verdict::Ours => {}
                Verdict::New(line) => passed += &(line + "\n"),
                Verdict::OtherVersion { ours, theirs } => {
                    return Err(Conflict { ours: &ours, theirs: &theirs }.to_string());
                }
            }
        }
        Ok(passed)
    }

    async fn alone(&mut self, command: Alone) -> Option<Value> {
        let variables = self.shared.memory.borrow().variables.clone();
        let text = match command {
            Alone::List => MAGICS.to_owned(),
            Alone::Who if variables.is_empty() => "There are no variables.".into(),
            Alone::Whos if variables.is_empty() => "There are no variables.".into(),
            Alone::Who => variables.keys().cloned().collect::<Vec<_>>().join("  "),
            Alone::Whos => {
                let width = variables.keys().map(String::len).max().unwrap_or(0);
                variables.iter().map(|(n, t)| format!("{n:width$}  {t}")).collect::<Vec<_>>().join("\n")
            }
            Alone::Reset => {
                // evcxr forgets the crates too.
                let _ = self.hidden(":clear").await;
                let _ = self.hidden(":load_config --quiet").await;
                self.shared.memory.borrow_mut().reset();
                self.connect().await;
                return None;
            }
        };
        self.print("stdout", &format!("{text}\n"));
        None
    }

    /// Drops variables that a changed type would make meaningless, and says so.
    async fn give_up_outdated(&mut self, code: &str, count: usize) {
        let outdated = self.shared.memory.borrow().outdated(code);
        if outdated.is_empty() {
            return;
        }
        // In two steps: a value that can be copied would survive being dropped.
        let shadow: String = outdated
            .iter()
            .map(|(n, _)| format!("let {n} = String::new(); std::mem::drop({n});\n"))
            .collect();
        if self.hidden(&shadow).await.ok {
            for (name, ty) in outdated {
                self.shared.memory.borrow_mut().lose(&name, count);
                self.print(
                    "stderr",
                    &format!("`{name}` is gone: this cell defines `{ty}` again, and differently.\n"),
                );
            }
        }
    }

    async fn look_at_variables(&mut self, count: usize) {
        let Some(data) = self.hidden(":vars").await.result else {
            // Without variables evcxr says nothing.
            return self.shared.memory.borrow_mut().set_variables(BTreeMap::new(), count);
        };
        let text = data["text/plain"].as_str().unwrap_or_default();
        let pairs = text.lines().filter_map(|l| l.split_once(": "));
        let now = pairs.map(|(n, t)| (n.trim().to_owned(), t.trim().to_owned())).collect();
        self.shared.memory.borrow_mut().set_variables(now, count);
    }

    /// Gives code to evcxr, and takes what comes of it. Hidden code has no request.
    async fn evaluate(&mut self, code: &str, request: Option<&Message>) -> Outcome {
        let mut outcome = Outcome::default();
        let _ = fs::remove_file(self.folder.join(shim::DIAGNOSTICS));
        let engine = self.shared.engine.borrow().clone();
        let Some(engine) = engine else {
            outcome.ended = Some("it was never started".into());
            return outcome;
        };
        let id = match engine.execute(code) {
            Ok(id) => id,
            Err(error) => {
                outcome.ended = Some(format!("{error:#}"));
                return outcome;
            }
        };
        let (mut reply, mut idle) = (None, false);
        let mut started = None;
        let mut kill_at: Option<Instant> = None;
        let mut asked = false;
        let mut completing: Option<Instant> = None;
        loop {
            if let (Some(ok), true) = (reply, idle) {
                outcome.ok = ok;
                break;
            }
            let due = [self.out.errors_due, self.out.rich_due, kill_at, completing];
            let due =
                due.into_iter().flatten().min().unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                biased;
                Some(wish) = self.sources.wishes.recv() => match wish {
                    // The link to the cells is not the reader's to break.
                    Wish::Interrupt if request.is_none() => {}
                    Wish::Interrupt => {
                        outcome.interrupts += 1;
                        kill_at = Some(Instant::now() + if outcome.interrupts > 1 { Duration::ZERO } else { PATIENCE });
                        self.interrupt(started.is_some());
                    }
                    Wish::Input(line) => {
                        asked = false;
                        if let Some(link) = &mut self.link {
                            link.input(&line).await;
                        }
                    }
                },
                Some((number, event)) = self.sources.cells.recv() => match event {
                    FromCells::Command(line) => if let Some(link) = self.link.as_mut().filter(|l| l.number == number) {
                        link.ask(b'r');
                        started = Some(Instant::now());
                        link.input(&line).await;
                    },
                    FromCells::Report(report) if report["flushed"] == true => completing = Some(Instant::now()),
                    FromCells::Report(report) if report["input"] == true => {
                        if let Some(request) = request.filter(|_| !asked && started.is_some()) {
                            asked = true;
                            self.ask_for_input(request, &mut outcome).await;
                        }
                    }
                    event => {
                        let complete = self.take(number, event, &mut outcome);
                        if complete {
                            outcome.ran = started.map(|s| s.elapsed());
                            completing = Some(Instant::now() + Duration::from_secs(1));
                            if let Some(link) = &mut self.link {
                                link.ask(b'f');
                            }
                        }
                    }
                },
                Some(event) = self.sources.engine.recv() => match event {
                    FromEngine::Reply(m) if m.parent_id() == id => reply = Some(m.content["status"] == "ok"),
                    FromEngine::Broadcast(m) if m.parent_id() == id => match m.kind() {
                        "status" => idle = m.content["execution_state"] == "idle",
                        "error" => outcome.errors.push(m.content),
                        "execute_result" => outcome.result = Some(m.content["data"].clone()),
                        // Before the link is there.
                        "stream" if self.link.is_none() => {
                            let (name, text) = (m.text("name").to_owned(), m.text("text").to_owned());
                            self.print(&name, &text);
                        }
                        _ => {}
                    },
                    FromEngine::Ended(status) => {
                        outcome.ended = Some(status);
                        return outcome;
                    }
                    _ => {}
                },
                () = sleep_until(due) => {
                    let now = Instant::now();
                    if self.out.errors_due.is_some_and(|d| d <= now) {
                        self.flush_errors();
                    }
                    if self.out.rich_due.is_some_and(|d| d <= now) {
                        self.flush_rich();
                    }
                    if kill_at.is_some_and(|d| d <= now) {
                        kill_at = None;
                        // Code that has looked is in its last step, however long that takes: only a second press ends it.
                        if outcome.interrupts > 1 || !self.was_seen() {
                            self.kill();
                        }
                    }
                    if completing.is_some_and(|d| d <= now) {
                        completing = None;
                        kill_at = None;
                        self.flush_panic();
                        if let Some(link) = &mut self.link {
                            link.ask(b'i');
                            link.tell_evcxr(&Piece::Complete.for_evcxr().unwrap_or_default());
                        }
                    }
                }
            }
        }
        outcome
    }

    /// Deals with an event from the process. True if the cell has ended.
    fn take(&mut self, number: u64, event: FromCells, outcome: &mut Outcome) -> bool {
        let current = self.link.as_ref().is_some_and(|l| l.number == number);
        match event {
            FromCells::Linked(mut link) => {
                link.ask(b'r');
                self.scanner = Scanner::default();
                self.link = Some(link);
            }
            FromCells::Output(bytes) if current => {
                let mut complete = false;
                for piece in self.scanner.feed(&bytes) {
                    complete |= piece == Piece::Complete;
                    self.piece(piece, outcome);
                }
                return complete;
            }
            FromCells::Errors(bytes) => {
                self.out.errors += &String::from_utf8_lossy(&bytes);
                self.out.errors_due.get_or_insert_with(|| Instant::now() + HOLD);
            }
            FromCells::Report(report) if report["panic"].is_string() => {
                self.flush_panic();
                self.out.panic = Some(report);
            }
            FromCells::Report(report) if report["death"].is_string() => outcome.deaths.push(report),
            FromCells::Gone if current => {
                for piece in self.scanner.finish() {
                    self.piece(piece, outcome);
                }
                outcome.gone = true;
                self.link = None;
            }
            _ => {}
        }
        false
    }

    fn piece(&mut self, piece: Piece, outcome: &mut Outcome) {
        match &piece {
            Piece::Text(text) => {
                self.flush_rich();
                self.flush_errors();
                self.print("stdout", text);
            }
            Piece::Content(mime, data) => {
                if self.out.rich.contains_key(mime) {
                    self.flush_rich();
                }
                let parsed = mime.contains("json").then(|| serde_json::from_str(data).ok()).flatten();
                self.out.rich.insert(mime.clone(), parsed.unwrap_or_else(|| data.as_str().into()));
                self.out.rich_due = Some(Instant::now() + HOLD_RICH);
            }
            Piece::Display(display) => {
                self.flush_rich();
                self.display(display);
            }
            Piece::Panicked => outcome.panic = Some(self.take_panic()),
            Piece::Failed => {
                self.out.errors_due = None;
                outcome.failed = Some(std::mem::take(&mut self.out.errors));
            }
            // evcxr has the reader told.
            Piece::Retyped(_) => {}
            // When all is printed: see `evaluate`.
            Piece::Complete => return,
        }
        if let (Some(line), Some(link)) = (piece.for_evcxr(), &mut self.link) {
            link.tell_evcxr(&line);
        }
    }

    /// The report on the panic that ended the cell.
    fn take_panic(&mut self) -> Value {
        self.out
            .panic
            .take()
            .unwrap_or_else(|| json!({ "panic": "the cell panicked", "place": "", "trace": "" }))
    }

    /// Asks the reader for a line, or says that this front end cannot be asked.
    async fn ask_for_input(&mut self, request: &Message, outcome: &mut Outcome) {
        if request.content["allow_stdin"] == true {
            let prompt = std::mem::take(&mut self.out.line);
            self.front.ask(request, &prompt, false).await;
            return;
        }
        outcome.deaths.push(json!({ "death": "input" }));
        self.kill();
    }

    /// The reader's wish to stop: the flag for code that looks at it, and an end for a compiler.
    fn interrupt(&self, running: bool) {
        self.set_interrupt_flag(ASKED);
        let building = fs::read_to_string(self.folder.join(shim::BUILDING)).ok().and_then(|t| t.parse().ok());
        if let Some(pid) = building.filter(|_| !running) {
            kill(pid);
        }
    }

    /// In place: cells have the file mapped, and would crash where it is shorter, if only for a moment.
    fn set_interrupt_flag(&self, value: u8) {
        use std::io::Write as _;
        let file = fs::File::options().write(true).open(&self.interrupt_flag);
        if let Err(error) = file.and_then(|mut f| f.write_all(&[value])) {
            eprintln!("cells cannot be asked to stop: {error}");
        }
    }

    /// Has code in the cell looked at the flag since the reader's wish?
    fn was_seen(&self) -> bool {
        fs::read(&self.interrupt_flag).is_ok_and(|byte| byte == [SEEN])
    }

    /// Ends the process that runs the cells.
    fn kill(&self) {
        if let Some(link) = &self.link {
            kill(link.pid);
        }
    }

    fn print(&mut self, name: &str, text: &str) {
        if self.out.hidden || text.is_empty() || self.out.cut {
            return;
        }
        self.out.lines += text.matches('\n').count();
        self.out.bytes += text.len();
        if name == "stdout" {
            let line = text.rsplit(['\n', '\r']).next().unwrap_or_default();
            if text.contains('\n') {
                self.out.line.clear();
            }
            self.out.line += line;
        }
        self.front.show("stream", json!({ "name": name, "text": text }));
        if self.out.lines > MOST_LINES || self.out.bytes > MOST_BYTES {
            self.out.cut = true;
            let most = format!(
                "\n… the rest of this cell's output is not shown: it is more than {MOST_LINES} lines or 1 MB\n"
            );
            self.front.show("stream", json!({ "name": "stderr", "text": most }));
        }
    }

    fn flush_errors(&mut self) {
        self.out.errors_due = None;
        let text = std::mem::take(&mut self.out.errors);
        self.print("stderr", &text);
    }

    fn flush_rich(&mut self) {
        self.out.rich_due = None;
        let data = std::mem::take(&mut self.out.rich);
        if !data.is_empty() && !self.out.hidden {
            self.front.show("display_data", json!({ "data": data, "metadata": {}, "transient": {} }));
        }
    }

    /// A panic that did not end the cell is only told.
    fn flush_panic(&mut self) {
        self.flush_errors();
        if let Some(panic) = self.out.panic.take() {
            let generated = self.generated();
            let memory = self.shared.memory.clone();
            let memory = memory.borrow();
            let lines = Lines::new(&memory, &generated);
            let place = place_of(&panic, &lines);
            let thread = panic["thread"].as_str().unwrap_or_default();
            let message = panic["panic"].as_str().unwrap_or_default();
            self.print("stderr", &format!("thread '{thread}' panicked at {place}:\n{message}\n"));
        }
    }

    fn flush_all(&mut self) {
        self.flush_panic();
        self.flush_rich();
    }

    fn display(&mut self, display: &Value) {
        if self.out.hidden {
            return;
        }
        let id = &display["id"];
        let transient = if id.is_string() { json!({ "display_id": id }) } else { json!({}) };
        let metadata = if display["metadata"].is_object() { display["metadata"].clone() } else { json!({}) };
        let content = json!({ "data": display["data"], "metadata": metadata, "transient": transient });
        match display["op"].as_str() {
            Some("update") => self.front.show("update_display_data", content),
            Some("clear") => self.front.show("clear_output", json!({ "wait": display["wait"] == true })),
            _ => self.front.show("display_data", content),
        }
    }

    /// The file that evcxr has made of all cells.
    fn generated(&self) -> String {
        fs::read_to_string(self.folder.join("src").join("lib.rs")).unwrap_or_default()
    }

    /// The error to report, if the cell did not come to its end.
    fn judge(&self, outcome: &Outcome, count: usize, source: &str) -> Option<Report> {
        let memory = self.shared.memory.borrow();
        let generated = self.generated();
        let lines = Lines::new(&memory, &generated);
        if outcome.gone {
            return Some(ended(outcome, &memory, &lines, count));
        }
        if let Some(panic) = &outcome.panic {
            let message = panic["panic"].as_str().unwrap_or_default();
            let mut frames = report::frames(panic["trace"].as_str().unwrap_or_default(), &lines);
            // What the panic itself names comes first: the caller, where a function says that its callers are to blame. The
            // optimizer may have left no frame of it.
            if let Some(place) = cell_line(panic, &lines) {
                let at = frames.iter().position(|p| *p == place).map_or(0, |at| at + 1);
                frames.splice(..at, [place]);
            }
            let place = place_of(panic, &lines);
            let notes = if place.contains(".rs:") { vec![format!("  in {place}")] } else { vec![] };
            return Some(report::with_frames("Panic", message, &frames, count, &notes));
        }
        if let Some(text) = &outcome.failed {
            return Some(failed(text.trim_end(), source));
        }
        if outcome.ok {
            let message = "the cell was asked to stop, and did; all variables are there";
            return (outcome.interrupts > 0).then(|| Report::new("Interrupted", message, &[]));
        }
        if outcome.interrupts > 0 && outcome.ran.is_none() {
            return Some(Report::new(
                "Interrupted",
                "the cell was still being compiled; it did not run",
                &[],
            ));
        }
        Some(self.compile_error(outcome, &memory, count))
    }

    fn compile_error(&self, outcome: &Outcome, memory: &Memory, count: usize) -> Report {
        let file = fs::read(self.folder.join(shim::DIAGNOSTICS)).ok();
        let file: Option<Value> = file.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(file) = file {
            let lines = Lines::new(memory, file["source"].as_str().unwrap_or_default());
            let messages = file["messages"].as_array().cloned().unwrap_or_default();
            if let Some(report) = report::compiler(&messages, &lines, count) {
                return report;
            }
        }
        // evcxr's own words: about a command, a crate, or a variable that cannot be kept.
        let Some(error) = outcome.errors.first() else {
            return Report::new(
                "Error",
                "the cell could not be compiled, and the compiler did not say why",
                &[],
            );
        };
        let mut report = Report::new("Error", error["evalue"].as_str().unwrap_or_default(), &[]);
        let trace = error["traceback"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let trace: Vec<String> = trace.map(str::to_owned).collect();
        if trace.len() > 1 {
            report.trace = trace;
        }
        report
    }
}

/// Where a panic happened: a line of a cell, or a place in a library.
fn place_of(panic: &Value, lines: &Lines<'_>) -> String {
    match cell_line(panic, lines) {
        Some(found) => format!("line {} of cell [{}]", found.line, found.cell),
        None => short_path(panic["place"].as_str().unwrap_or_default()),
    }
}

/// The line of a cell that a panic names itself.
fn cell_line(panic: &Value, lines: &Lines<'_>) -> Option<report::Place> {
    let place = panic["place"].as_str()?.strip_prefix("src/lib.rs:")?;
    lines.place(place.split(':').next()?.parse().ok()?)
}

/// A path without the folders that only this machine has.
fn short_path(place: &str) -> String {
    let parts: Vec<&str> = place.split('/').collect();
    let at = parts.iter().rposition(|p| *p == "src" || *p == "library");
    parts[at.unwrap_or(1).saturating_sub(1)..].join("/")
}

/// A `?` that met an error.
fn failed(text: &str, source: &str) -> Report {
    let lines = crate::run::question_marks(source);
    let message = if text.is_empty() { "a `?` met an error" } else { text };
    let (place, shown) = match lines.as_slice() {
        [] => (String::new(), String::new()),
        [line] => {
            let text = source.lines().nth(line - 1).unwrap_or_default();
            (format!("line {line}"), format!("  at line {line}: {}", text.trim()))
        }
        several => {
            let all: Vec<String> = several.iter().map(usize::to_string).collect();
            let place = format!("one of the lines {}", all.join(", "));
            (place.clone(), format!("  at a `?` in {place}"))
        }
    };
    let kept = "What this cell defined is not kept; the variables of earlier cells are.".to_owned();
    let more: Vec<String> = [shown, kept].into_iter().filter(|l| !l.is_empty()).collect();
    let mut report = Report::new("Error", message, &more);
    if !place.is_empty() {
        report.message = format!("{message} ({place})");
    }
    report
}

/// A cell whose process has ended.
fn ended(outcome: &Outcome, memory: &Memory, lines: &Lines<'_>, count: usize) -> Report {
    let last =
        |key: &str| outcome.deaths.iter().rev().find_map(|d| d[key].as_str()).unwrap_or_default().to_owned();
    let status = outcome.errors.iter().find_map(|e| {
        let text = strip_ansi(e["evalue"].as_str()?);
        Some(text.split_once("status: ")?.1.trim().to_owned())
    });
    let status = status.unwrap_or_default();
    let (name, message) = match last("death").as_str() {
        _ if outcome.interrupts > 0 => {
            ("Interrupted", "the cell did not stop in time, so its process was ended".to_owned())
        }
        "exit" => ("Exit", format!("the cell ended its process ({status})")),
        "stack overflow" => ("StackOverflow", "the cell used up the stack: a recursion without end?".into()),
        "abort" => ("Abort", format!("the cell's process was aborted ({status})")),
        "segmentation fault" => ("SegmentationFault", format!("a wrong access to memory ({status})")),
        "input" => (
            "NoInput",
            "the cell waits for a line of input, and this front end cannot be asked for one".into(),
        ),
        "" if status.contains("SIGKILL") => {
            ("Killed", "the cell's process was killed: out of memory?".into())
        }
        _ => ("Died", format!("the cell's process has ended ({status})")),
    };
    let frames = report::frames(&last("trace"), lines);
    let lost: Vec<&str> = memory.variables.keys().map(String::as_str).collect();
    let note = if lost.is_empty() {
        "No variables were lost; functions and types stay.".to_owned()
    } else {
        format!("Lost are the variables {}. Functions and types stay.", lost.join(", "))
    };
    report::with_frames(name, &message, &frames, count, &[note])
}

fn kill(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}
