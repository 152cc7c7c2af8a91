//! What the user sees during set-up: what is being done, how far it is, and how long it will still take.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Where there is no terminal, a line is printed so often.
const LINE_EVERY: Duration = Duration::from_secs(15);

/// Shows what goes on, of several tasks at a time.
#[derive(Clone, Debug)]
pub struct Progress {
    bars: Option<MultiProgress>,
}

impl Progress {
    /// On a terminal a line for each task, which changes; elsewhere now and then a new line.
    pub fn new() -> Self {
        Self { bars: std::io::stderr().is_terminal().then(MultiProgress::new) }
    }

    /// A line that stays.
    pub fn say(&self, line: &str) {
        match &self.bars {
            Some(bars) => drop(bars.println(line)),
            None => eprintln!("{line}"),
        }
    }

    /// Something that takes a while. It ends when it is dropped.
    pub fn task(&self, name: &str) -> Task {
        let bar = self.bars.as_ref().map(|bars| {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}").expect("the template is right");
            let bar = bars.add(ProgressBar::new_spinner().with_style(style));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Task { bar, name: name.to_owned(), start: Instant::now(), printed: Instant::now() }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

/// Something that goes on.
pub struct Task {
    bar: Option<ProgressBar>,
    name: String,
    start: Instant,
    printed: Instant,
}

impl Task {
    /// Says how far it is.
    pub fn set(&mut self, state: &str) {
        let line = format!("{}: {state} ({})", self.name, clock(self.start.elapsed()));
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None if self.printed.elapsed() >= LINE_EVERY => {
                eprintln!("{line}");
                self.printed = Instant::now();
            }
            None => {}
        }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn clock(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

/// What is known of a build before it begins.
#[derive(Clone, Debug)]
pub struct Estimate {
    /// How many crates are compiled.
    pub crates: usize,
    /// Crates, and after how many seconds their turn came on two idle cores: the last ones take much longer than the first.
    pub milestones: &'static [(&'static str, u32)],
    /// The seconds of the whole on two idle cores.
    pub seconds: u32,
}

impl Estimate {
    /// Nothing is known, or nothing compiled.
    pub const NONE: Self = Self { crates: 0, milestones: &[], seconds: 0 };
}

/// How far a build is.
struct Build<'a> {
    estimate: &'a Estimate,
    compiled: usize,
    /// Seconds in the table, and the time when they were reached here.
    reached: Option<(u32, Duration)>,
    start: Instant,
}

impl Build<'_> {
    fn see(&mut self, name: &str) {
        self.compiled += 1;
        if let Some((_, seconds)) = self.estimate.milestones.iter().find(|(milestone, _)| *milestone == name)
        {
            self.reached = Some((*seconds, self.start.elapsed()));
        }
    }

    fn state(&self) -> String {
        if self.estimate.seconds == 0 {
            return "…".into();
        }
        let total = self.estimate.crates.max(self.compiled);
        let left = time_left(self.estimate, self.reached, self.start.elapsed());
        format!("{} of {total} crates, {left}", self.compiled)
    }
}

/// From how long the way so far has taken here and on the machine of the table.
fn time_left(estimate: &Estimate, reached: Option<(u32, Duration)>, now: Duration) -> String {
    let Some((seconds, then)) = reached.filter(|(seconds, _)| *seconds > 0) else {
        return format!("{} on two idle cores", words(estimate.seconds.into()));
    };
    let speed = then.as_secs_f64() / f64::from(seconds);
    let next = estimate.milestones.iter().map(|(_, s)| *s).find(|s| *s > seconds).unwrap_or(estimate.seconds);
    let left = |from: u32| f64::from(estimate.seconds.saturating_sub(from)) * speed;
    // While the next one has not come, at least what lies after it is left.
    let left = (left(seconds) - (now - then).as_secs_f64()).max(left(next));
    format!("{} left", words(left))
}

fn words(seconds: f64) -> String {
    match (seconds / 60.0).round() as u64 {
        0 => "less than a minute".into(),
        1 => "about a minute".into(),
        minutes => format!("about {minutes} minutes"),
    }
}

/// Runs cargo to its end and shows how far it is. Gives what cargo said, if it fails or takes longer than `limit`.
pub fn run_cargo(
    mut command: Command,
    task: Option<&mut Task>,
    estimate: &Estimate,
    limit: Option<Duration>,
) -> Result<Result<(), String>> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut cargo = command.spawn().context("cannot start cargo: is Rust installed (https://rustup.rs)?")?;
    let stderr = BufReader::new(cargo.stderr.take().context("cargo has no stderr")?);
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        stderr.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
    });
    let mut build = Build { estimate, compiled: 0, reached: None, start: Instant::now() };
    let (mut messages, mut task) = (String::new(), task);
    let mut read = |build: &mut Build<'_>, wait: Duration| {
        let mut line = lines.recv_timeout(wait).ok();
        while let Some(text) = line {
            match text.trim_start().strip_prefix("Compiling ") {
                Some(what) => build.see(what.split(' ').next().unwrap_or_default()),
                None => messages += &(text + "\n"),
            }
            line = lines.try_recv().ok();
        }
    };
    let status = loop {
        read(&mut build, Duration::from_millis(20));
        if let Some(status) = cargo.try_wait()? {
            break status;
        }
        if let Some(task) = &mut task {
            task.set(&build.state());
        }
        if limit.is_some_and(|limit| build.start.elapsed() > limit) {
            // Its compilers end with what they are at: nobody waits for them.
            cargo.kill()?;
            cargo.wait()?;
            return Ok(Err("it took too long; `cargo nbs kernel install` takes its time".into()));
        }
    };
    let _ = reader.join();
    read(&mut build, Duration::ZERO);
    Ok(if status.success() { Ok(()) } else { Err(messages) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Estimate =
        Estimate { crates: 4, milestones: &[("first", 10), ("long", 40), ("last", 90)], seconds: 100 };

    #[test]
    fn the_time_left_follows_this_machines_pace() {
        let left = |reached: Option<(u32, u64)>, now: u64| {
            time_left(&TABLE, reached.map(|(s, t)| (s, Duration::from_secs(t))), Duration::from_secs(now))
        };
        assert_eq!(left(None, 5), "about 2 minutes on two idle cores");
        // Ten times as slow as the table: 40 s took 400, so that 600 are left.
        assert_eq!(left(Some((40, 400)), 400), "about 10 minutes left");
        assert_eq!(left(Some((40, 400)), 640), "about 6 minutes left");
        // The long one takes longer than it should: what comes after the next milestone is still left.
        assert_eq!(left(Some((40, 400)), 5000), "about 2 minutes left");
        assert_eq!(left(Some((90, 90)), 99), "less than a minute left");
    }

    #[cfg(unix)]
    #[test]
    fn what_cargo_says_is_counted_or_kept() {
        let script = "echo '   Compiling first v1.0.0' >&2; echo 'error: no' >&2; exit 101";
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        assert_eq!(run_cargo(command, None, &TABLE, None).unwrap(), Err("error: no\n".to_owned()));
        let mut build = Build { estimate: &TABLE, compiled: 0, reached: None, start: Instant::now() };
        ["other", "first"].into_iter().for_each(|name| build.see(name));
        assert!(build.state().starts_with("2 of 4 crates, ") && build.reached.unwrap().0 == 10);
    }

    #[cfg(unix)]
    #[test]
    fn a_build_that_takes_too_long_is_ended() {
        let mut command = Command::new("sleep");
        command.arg("600");
        let result = run_cargo(command, None, &TABLE, Some(Duration::from_millis(50))).unwrap();
        assert!(result.unwrap_err().contains("too long"));
    }
}
