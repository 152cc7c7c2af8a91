//! From the kernel's messages to the outputs of a notebook.

use std::path::Path;

use jupyter_protocol::{JupyterMessageContent, Stdio};
use serde_json::{Value, json};

use crate::code::SENTINEL;
use crate::notebook::{join_lines, output_failure};

/// The outputs of one cell, in the form in which notebooks hold them.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    list: Vec<Value>,
    /// The displays that may be replaced: id, and place in the list.
    displays: Vec<(String, usize)>,
}

impl Outputs {
    /// Adds what a message holds, if it is an output.
    pub fn add(&mut self, content: JupyterMessageContent) {
        match content {
            JupyterMessageContent::StreamContent(stream) => {
                let name = if matches!(stream.name, Stdio::Stderr) { "stderr" } else { "stdout" };
                self.add_text(name, &stream.text);
            }
            JupyterMessageContent::DisplayData(display) => {
                let id = display.transient.and_then(|transient| transient.display_id);
                self.displays.extend(id.map(|id| (id, self.list.len())));
                self.list.push(json!({
                    "output_type": "display_data",
                    "data": display.data,
                    "metadata": display.metadata,
                }));
            }
            JupyterMessageContent::UpdateDisplayData(update) => {
                let id = update.transient.display_id;
                for (_, at) in self.displays.iter().filter(|(shown, _)| Some(shown) == id.as_ref()) {
                    self.list[*at]["data"] = json!(update.data);
                    self.list[*at]["metadata"] = json!(update.metadata);
                }
            }
            JupyterMessageContent::ExecuteResult(result) => self.list.push(json!({
                "output_type": "execute_result",
                "data": result.data,
                "execution_count": null,
                "metadata": result.metadata,
            })),
            JupyterMessageContent::ErrorOutput(error) => self.list.push(json!({
                "output_type": "error",
                "ename": error.ename,
                "evalue": error.evalue,
                "traceback": error.traceback,
            })),
            JupyterMessageContent::ClearOutput(_) => *self = Outputs::default(),
            _ => {}
        }
    }

    /// Text that follows text of the same stream is one output with it.
    fn add_text(&mut self, name: &str, text: &str) {
        if let Some(last) = self.list.last_mut().filter(|o| o["name"] == name) {
            let joined = join_lines(&last["text"]) + text;
            last["text"] = json!(joined);
        } else {
            self.list.push(json!({ "output_type": "stream", "name": name, "text": text }));
        }
    }

    /// All the text of a stream.
    pub fn text(&self, name: &str) -> String {
        self.list.iter().filter(|o| o["name"] == name).map(|o| join_lines(&o["text"])).collect()
    }

    /// The plain text of the first result, as the kernel sent it.
    pub fn result(&self) -> String {
        let mut results = self.list.iter().filter(|o| o["output_type"] == "execute_result");
        results.next().map(|o| join_lines(&o["data"]["text/plain"])).unwrap_or_default()
    }

    /// Name, message and report of the first error that the kernel reported.
    pub fn error(&self) -> Option<(String, String, String)> {
        let error = self.list.iter().find(|o| o["output_type"] == "error")?;
        let (message, report) = self.errors().next()?;
        Some((error["ename"].as_str().unwrap_or_default().to_owned(), message, report))
    }

    /// The errors that the kernel reported: message and report.
    pub fn errors(&self) -> impl Iterator<Item = (String, String)> {
        let errors = self.list.iter().filter(|o| o["output_type"] == "error");
        errors.map(|o| {
            let lines = o["traceback"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let report = lines.collect::<Vec<_>>().join("\n");
            (strip_ansi(o["evalue"].as_str().unwrap_or_default()), strip_ansi(&report))
        })
    }

    /// The message of the first panic. It is only text on stderr: the protocol calls such a cell ok.
    pub fn panic(&self) -> Option<String> {
        let streams = self.list.iter().filter(|o| o["name"] == "stderr");
        let text: String =
            streams.filter(|o| output_failure(o).is_some()).map(|o| join_lines(&o["text"])).collect();
        let mut lines = text.lines().skip_while(|l| !is_panic(l));
        let first = lines.next()?;
        let message: Vec<_> =
            lines.take_while(|l| !l.starts_with("stack backtrace:") && !is_panic(l)).collect();
        Some(if message.is_empty() { first.to_owned() } else { message.join("\n") })
    }

    /// Where the first panic happened, as Rust says it: `src/lib.rs:12:5`.
    pub fn panic_place(&self) -> Option<String> {
        let text = self.text("stderr");
        let line = text.lines().find(|l| is_panic(l))?;
        Some(line.rsplit_once(" panicked at ")?.1.trim_end_matches(':').to_owned())
    }

    /// The outputs as they are saved: what differs from run to run, or from machine to machine, is taken out of the
    /// reports of panics and compile errors.
    pub fn saved(mut self, root: &Path, panic_place: Option<&str>) -> Vec<Value> {
        for output in &mut self.list {
            hide_sentinel(output);
            if output["name"] == "stderr" {
                let text = tidy_panics(&join_lines(&output["text"]), root, panic_place);
                output["text"] = json!(text);
            }
            for line in output.get_mut("traceback").and_then(Value::as_array_mut).into_iter().flatten() {
                let text = without_folders(line.as_str().unwrap_or_default(), root);
                *line = json!(without_repeated_colours(&without_cell_number(&text)));
            }
        }
        self.list.retain(|o| o["output_type"] != "stream" || !join_lines(&o["text"]).is_empty());
        self.list
    }
}

fn is_panic(line: &str) -> bool {
    line.starts_with("thread '") && line.contains(" panicked at ")
}

/// Leaves of a panic's report the line that says what it is, and the message.
fn tidy_panics(text: &str, root: &Path, place: Option<&str>) -> String {
    let mut tidy: Vec<String> = Vec::new();
    let mut in_backtrace = false;
    for line in text.lines() {
        if is_panic(line) {
            // Rust begins its report with an empty line.
            tidy.pop_if(|l| l.is_empty());
            tidy.push(without_folders(&panic_line(line, place), root));
            continue;
        }
        in_backtrace |= line == "stack backtrace:";
        let ends_backtrace = in_backtrace && !line.starts_with("  ") && line != "stack backtrace:";
        if !in_backtrace {
            tidy.push(line.to_owned());
        } else if ends_backtrace {
            in_backtrace = false;
            if !line.starts_with("note: ") {
                tidy.push(line.to_owned());
            }
        }
    }
    tidy.into_iter().map(|l| l + "\n").collect()
}

/// `thread '<unnamed>' (4711) panicked at src/lib.rs:9:1:` without the number, and with the place in the cell.
fn panic_line(line: &str, place: Option<&str>) -> String {
    let Some((thread, at)) = line.rsplit_once(" panicked at ") else { return line.to_owned() };
    let thread = match thread.rsplit_once(" (") {
        Some((name, id)) if id.trim_end_matches(')').bytes().all(|b| b.is_ascii_digit()) => name,
        _ => thread,
    };
    let place = place.filter(|_| at.starts_with("src/lib.rs:")).map_or(at.to_owned(), |p| format!("{p}:"));
    format!("{thread} panicked at {place}")
}

/// Paths below the workspace and in cargo's folder of sources, without what is different on each machine.
fn without_folders(line: &str, root: &Path) -> String {
    let line = line.replace(&format!("{}{}", root.display(), std::path::MAIN_SEPARATOR), "");
    if let Some((before, after)) = line.split_once("/lib/rustlib/src/rust/") {
        // What stands before the path, an escape included, has no slash.
        let start = before.find('/').unwrap_or(before.len());
        return format!("{}{after}", &before[..start]);
    }
    let Some((before, after)) = line.split_once("/registry/src/") else { return line };
    let start = before.rfind([' ', '[', '"', '(']).map_or(0, |at| at + 1);
    let rest = after.split_once('/').map_or("", |(_, rest)| rest);
    format!("{}{rest}", &before[..start])
}

/// `[ command_14:1:1 ]` in the kernel's report of an error counts all that was ever executed; it says nothing.
fn without_cell_number(line: &str) -> String {
    let Some((before, after)) = line.split_once("command_") else { return line.to_owned() };
    let rest = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
    format!("{before}cell{rest}")
}

/// The kernel colours its reports letter by letter: of a colour that goes on, only the first setting stays.
fn without_repeated_colours(line: &str) -> String {
    const RESET: &str = "\u{1b}[0m";
    let mut short = String::new();
    let (mut shown, mut wanted) = ("", "");
    let mut rest = line;
    while !rest.is_empty() {
        let (plain, escape, after) = next_escape(rest);
        if !plain.is_empty() && shown != wanted {
            short += if wanted.is_empty() || !shown.is_empty() { RESET } else { "" };
            short += wanted;
            shown = wanted;
        }
        short += plain;
        if !escape.is_empty() {
            wanted = if escape == RESET { "" } else { escape };
        }
        rest = after;
    }
    if !shown.is_empty() {
        short += RESET;
    }
    short
}

/// The text before the next colour setting, the setting itself, and the rest.
fn next_escape(text: &str) -> (&str, &str, &str) {
    let Some(start) = text.find("\u{1b}[") else { return (text, "", "") };
    let end =
        text[start + 2..].find(|c: char| c.is_ascii_alphabetic()).map_or(text.len(), |at| start + at + 3);
    (&text[..start], &text[start..end], &text[end..])
}

/// What `nbs run` adds to a cell (see [`SENTINEL`]) must not show up in the answer to `:vars`.
fn hide_sentinel(output: &mut Value) {
    let data = output.get_mut("data").and_then(Value::as_object_mut);
    for text in data.into_iter().flat_map(|d| d.values_mut()) {
        if let Some(old) = text.as_str().filter(|t| t.contains(SENTINEL)) {
            let row = format!("<tr><td>{SENTINEL}</td><td>()</td><tr>");
            *text = json!(old.replace(&row, "").replace(&format!("{SENTINEL}: ()\n"), ""));
        }
    }
}

/// Text without colours.
pub fn strip_ansi(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (before, _, after) = next_escape(rest);
        plain += before;
        rest = after;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use jupyter_protocol::{
        DisplayData, ErrorOutput, ExecuteResult, ExecutionCount, Media, MediaType, StreamContent, Transient,
        UpdateDisplayData,
    };

    const PANIC: &str = "\n\
        thread '<unnamed>' (14022) panicked at src/lib.rs:22:1:\n\
        boom\n\
        stack backtrace:\n\
        \u{20}  0: __rustc::rust_begin_unwind\n\
        \u{20}            at /rustc/59807616e/library/std/src/panicking.rs:689:5\n\
        note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.\n";

    fn outputs(messages: impl IntoIterator<Item = JupyterMessageContent>) -> Outputs {
        let mut outputs = Outputs::default();
        messages.into_iter().for_each(|m| outputs.add(m));
        outputs
    }

    #[test]
    fn lines_of_a_stream_are_one_output() {
        let out = outputs([
            StreamContent::stdout("a\n").into(),
            StreamContent::stdout("b\n").into(),
            StreamContent::stderr("c\n").into(),
            StreamContent::stdout("d\n").into(),
        ]);
        let stream = |name, text| json!({ "output_type": "stream", "name": name, "text": text });
        let expected = [stream("stdout", "a\nb\n"), stream("stderr", "c\n"), stream("stdout", "d\n")];
        assert_eq!(out.saved(Path::new("/w"), None), expected);
    }

    #[test]
    fn a_display_is_saved_as_it_was_last() {
        let plain = |text: &str| Media::new(vec![MediaType::Plain(text.into())]);
        let display = |text, id: &str| {
            let transient = Some(Transient { display_id: Some(id.into()) });
            JupyterMessageContent::from(DisplayData { transient, ..DisplayData::new(plain(text)) })
        };
        let update = |text, id| JupyterMessageContent::from(UpdateDisplayData::new(plain(text), id));
        let out = outputs([
            display("1 %", "a"),
            StreamContent::stdout("b\n").into(),
            display("2 %", "c"),
            update("50 %", "a"),
            update("100 %", "a"),
            update("of another cell", "d"),
        ]);
        let saved = out.saved(Path::new("/w"), None);
        let texts = [&saved[0], &saved[2]].map(|output| output["data"]["text/plain"].clone());
        assert_eq!((texts, saved.len()), ([json!("100 %"), json!("2 %")], 3));
    }

    #[test]
    fn results_keep_their_types() {
        let media = Media::new(vec![MediaType::Plain("x".into()), MediaType::Png("AAAA".into())]);
        let out = outputs([ExecuteResult::new(ExecutionCount::new(3), media).into()]);
        let expected = json!({
            "output_type": "execute_result",
            "data": { "text/plain": "x", "image/png": "AAAA" },
            "execution_count": null,
            "metadata": {},
        });
        assert_eq!(out.saved(Path::new("/w"), None), [expected]);
    }

    #[test]
    fn a_panic_is_found_and_its_report_made_the_same_everywhere() {
        let out = outputs(PANIC.split_inclusive('\n').map(|l| StreamContent::stderr(l).into()));
        assert_eq!(out.panic().as_deref(), Some("boom"));
        assert_eq!(out.panic_place().as_deref(), Some("src/lib.rs:22:1"));
        let saved = out.saved(Path::new("/w"), Some("line 2 of cell `x`"));
        assert_eq!(saved[0]["text"], "thread '<unnamed>' panicked at line 2 of cell `x`:\nboom\n");
    }

    #[test]
    fn output_before_and_after_a_panic_stays() {
        let text = format!("before\n{PANIC}after\n");
        let tidy = tidy_panics(&text, Path::new("/w"), None);
        assert_eq!(tidy, "before\nthread '<unnamed>' panicked at src/lib.rs:22:1:\nboom\nafter\n");
    }

    #[test]
    fn text_that_only_mentions_a_panic_is_none() {
        assert_eq!(outputs([StreamContent::stderr("it never panicked at all\n").into()]).panic(), None);
        assert_eq!(outputs([StreamContent::stdout("thread 'x' panicked at y:\n").into()]).panic(), None);
    }

    #[test]
    fn paths_lose_what_is_this_machines() {
        let root = Path::new("/home/me/minai");
        assert_eq!(
            without_folders("at /home/me/minai/minai/src/rng.rs:3:1:", root),
            "at minai/src/rng.rs:3:1:"
        );
        let line = "\u{1b}[94m--> \u{1b}[0m/home/me/.rustup/toolchains/stable/lib/rustlib/src/rust/library/core/src/option.rs:600:10";
        assert_eq!(without_folders(line, root), "\u{1b}[94m--> \u{1b}[0mlibrary/core/src/option.rs:600:10");
        let line = "at /home/me/.cargo/registry/src/index-1f/ndarray-0.17.2/src/lib.rs:3:1:";
        assert_eq!(without_folders(line, root), "at ndarray-0.17.2/src/lib.rs:3:1:");
    }

    #[test]
    fn a_colour_is_set_once() {
        let line =
            "\u{1b}[31m[E1]\u{1b}[0m \u{1b}[38;5;9ml\u{1b}[0m\u{1b}[38;5;9me\u{1b}[0m\u{1b}[33mx\u{1b}[0m";
        let short = "\u{1b}[31m[E1]\u{1b}[0m \u{1b}[38;5;9mle\u{1b}[0m\u{1b}[33mx\u{1b}[0m";
        assert_eq!(without_repeated_colours(line), short);
        assert_eq!(without_repeated_colours(short), short);
        assert_eq!(strip_ansi(short), "[E1] lex");
        assert_eq!(without_repeated_colours("plain"), "plain");
        assert_eq!(without_cell_number("   ╭─[ command_14:1:1 ]"), "   ╭─[ cell ]");
    }

    #[test]
    fn errors_lose_their_colours_for_reading_only() {
        let error = ErrorOutput {
            ename: "Error".into(),
            evalue: "mismatched types".into(),
            traceback: vec!["\u{1b}[31m[E0308] Error:\u{1b}[0m mismatched types".into()],
        };
        let out = outputs([error.into()]);
        let found: Vec<_> = out.errors().collect();
        assert_eq!(found, [("mismatched types".to_owned(), "[E0308] Error: mismatched types".to_owned())]);
        assert!(out.saved(Path::new("/w"), None)[0]["traceback"][0].as_str().unwrap().starts_with('\u{1b}'));
    }
}
