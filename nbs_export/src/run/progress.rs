//! What the user sees while notebooks run: a line that changes on a terminal, a line for each cell elsewhere.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::cells::Failure;

/// Shows the progress of all notebooks of a run.
#[derive(Clone)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

impl Progress {
    pub fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars }
    }

    /// Says that something begins; the step ends when it is dropped.
    pub fn step(&self, notebook: &str, what: String) -> Step {
        let bar = self.bars.as_ref().map(|bars| {
            let style =
                ProgressStyle::with_template("{spinner} {msg}  {elapsed}").expect("the template is right");
            let bar = bars.add(ProgressBar::new_spinner().with_style(style));
            bar.set_message(format!("{notebook}: {what}"));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Step { bar, start: Instant::now(), text: format!("{notebook}: {what}") }
    }

    /// The last word on a notebook; what failed is told now, for the others may take long.
    pub fn notebook_done(&self, notebook: &str, failure: Option<&Failure>, seconds: f64) {
        match failure {
            None => self.print(&format!("{notebook}: passed  {seconds:.1} s")),
            Some(failure) => self.print(&format!("{notebook}: FAILED  {seconds:.1} s\n{failure}\n")),
        }
    }

    /// Something that the user should know, though all went well.
    pub fn note(&self, notebook: &str, note: &str) {
        self.print(&format!("{notebook}: note: {note}"));
    }

    fn print(&self, line: &str) {
        match &self.bars {
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }
}

/// Something that goes on, such as a cell.
pub struct Step {
    bar: Option<ProgressBar>,
    start: Instant,
    text: String,
}

impl Drop for Step {
    fn drop(&mut self) {
        match &self.bar {
            Some(bar) => bar.finish_and_clear(),
            None => eprintln!("{}  {:.1} s", self.text, self.start.elapsed().as_secs_f64()),
        }
    }
}
