//! Times that a cell prints are worth something only where nothing else kept the machine busy.
//!
//! While a cell runs, the processors' busy time is compared with that of our own processes, and the rest is other work.
//! A cell marked `//| timed` that other work disturbed runs again.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::cells::Failure;

/// Which share of the processors' time other work may take.
const TENTH: f64 = 0.1;
/// How often a cell is tried.
const TRIES: usize = 5;
/// Less than this is what the system's counters cannot tell, and a machine's small change.
const GRAIN: Duration = Duration::from_millis(50);

/// Measures, for each cell of a notebook, how busy the machine was with other work.
pub struct Watch {
    measure: Box<dyn Fn() -> Option<Usage>>,
    pause: Duration,
    /// Cells that are not marked, with the share that other work had.
    disturbed: Vec<(String, f64)>,
    /// Marked cells during which nothing could be measured.
    unknown: Vec<String>,
}

impl Watch {
    /// Measures if times matter, that is, if outputs are saved.
    pub fn new(saves: bool) -> Option<Self> {
        saves.then(|| Self::with(Usage::now, Duration::from_secs(3)))
    }

    fn with(measure: impl Fn() -> Option<Usage> + 'static, pause: Duration) -> Self {
        Self { measure: Box::new(measure), pause, disturbed: vec![], unknown: vec![] }
    }

    /// Runs a cell, and again if it is `timed` and was disturbed. It fails where that does not end.
    pub async fn run<T>(
        &mut self,
        label: &str,
        timed: bool,
        mut run: impl AsyncFnMut() -> Result<Result<T, Failure>>,
    ) -> Result<Result<T, Failure>> {
        let mut shares = Vec::new();
        loop {
            let before = (self.measure)();
            let outcome = run().await?;
            let share = before.zip((self.measure)()).map(|(before, after)| before.others_until(&after));
            match share {
                _ if outcome.is_err() => return Ok(outcome),
                None if timed => self.unknown.push(label.to_owned()),
                Some(share) if share > TENTH && timed => {
                    shares.push(percent(share));
                    if shares.len() == TRIES {
                        return Ok(Err(failure(label, &shares)));
                    }
                    tokio::time::sleep(self.pause).await;
                    continue;
                }
                Some(share) if share > TENTH => self.disturbed.push((label.to_owned(), share)),
                _ => {}
            }
            return Ok(outcome);
        }
    }

    /// What there is to say when the notebook is done.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some((label, most)) = self.disturbed.iter().max_by(|a, b| a.1.total_cmp(&b.1)) {
            notes.push(format!(
                "other work disturbed {} (most of all {label}: it took {} of the processors' time): if their outputs hold \\
                 times, mark them `//| timed`",
                crate::count(self.disturbed.len(), "cell"),
                percent(*most)
            ));
        }
        if !self.unknown.is_empty() {
            notes.push(format!(
                "this system does not tell how busy it is, so the times in {} may be wrong: run nothing else meanwhile",
                self.unknown.join(", ")
            ));
        }
        notes
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn failure(label: &str, shares: &[String]) -> Failure {
    Failure {
        cell: label.to_owned(),
        line: None,
        reason: format!(
            "its times (`timed`) were disturbed {TRIES} times: other work took {} of the processors' time. Nothing is saved; \\
             run it again when the machine is idle",
            shares.join(", ")
        ),
        details: String::new(),
    }
}

/// What the processors have done up to a moment.
#[derive(Clone, Copy, Debug)]
struct Usage {
    time: Instant,
    processors: u32,
    /// Time that they were busy, taken together, or that another virtual machine had them.
    busy: Duration,
    /// Time that they were busy for this process and those below it.
    own: Duration,
}

impl Usage {
    /// The share of the processors' time, between two moments, that went to other work.
    fn others_until(&self, after: &Self) -> f64 {
        let busy = after.busy.saturating_sub(self.busy);
        let others = busy.saturating_sub(after.own.saturating_sub(self.own));
        let all = after.time.duration_since(self.time) * self.processors;
        if others <= GRAIN { 0.0 } else { others.as_secs_f64() / all.as_secs_f64().max(1e-9) }
    }

    #[cfg(target_os = "linux")]
    fn now() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let (processors, busy) = busy_ticks(&stat)?;
        let own = own_ticks(std::process::id());
        Some(Self { time: Instant::now(), processors, busy: duration(busy)?, own: duration(own)? })
    }

    /// Elsewhere nothing is known.
    #[cfg(not(target_os = "linux"))]
    fn now() -> Option<Self> {
        None
    }
}

/// How many processors there are, and for how many ticks they were busy; nothing where the system counts none.
#[cfg(target_os = "linux")]
fn busy_ticks(stat: &str) -> Option<(u32, u64)> {
    let mut busy = 0;
    let mut processors = 0;
    for line in stat.lines().filter(|l| l.starts_with("cpu") && !l.starts_with("cpu ")) {
        let ticks: Vec<u64> = line.split_whitespace().skip(1).map_while(|n| n.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal (guest time is part of user time)
        let [user, nice, system, _, _, irq, softirq, steal] = *ticks.first_chunk()?;
        busy += user + nice + system + irq + softirq + steal;
        processors += 1;
    }
    (busy > 0).then_some((processors, busy))
}

/// The ticks of a process and of all below it; what has ended counts for its parent, which has waited for it.
#[cfg(target_os = "linux")]
fn own_ticks(root: u32) -> u64 {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes: Vec<(u32, u32, u64)> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let (parent, ticks) =
                parent_and_ticks(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?;
            Some((id, parent, ticks))
        })
        .collect();
    let mut ticks = 0;
    let mut waiting = vec![root];
    while let Some(id) = waiting.pop() {
        ticks += processes.iter().find(|p| p.0 == id).map_or(0, |p| p.2);
        waiting.extend(processes.iter().filter(|p| p.1 == id).map(|p| p.0));
    }
    ticks
}

/// From a process's `stat`: its parent, and its ticks with those of the children that it has waited for.
#[cfg(target_os = "linux")]
fn parent_and_ticks(stat: &str) -> Option<(u32, u64)> {
    // The name, in brackets, may hold anything; state and parent follow it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
    Some((fields.get(1)?.parse().ok()?, ticks))
}

#[cfg(target_os = "linux")]
fn duration(ticks: u64) -> Option<Duration> {
    // SAFETY: sysconf only asks the system for a number.
    let a_second = u32::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|&n| n > 0)?;
    Some(Duration::from_secs(ticks) / a_second)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    /// A watch on a machine with two processors where a second passes between two looks, and the n-th cell is disturbed
    /// for the n-th of these numbers of milliseconds.
    fn watch(disturbances: &'static [u64]) -> Watch {
        let start = Instant::now();
        let looks = Cell::new(0_u64);
        let measure = move || {
            let look = looks.replace(looks.get() + 1);
            let others: u64 = disturbances.iter().take(look.div_ceil(2) as usize).sum();
            Some(Usage {
                time: start + Duration::from_secs(look),
                processors: 2,
                busy: Duration::from_millis(900 * look + others),
                own: Duration::from_millis(900 * look),
            })
        };
        Watch::with(measure, Duration::ZERO)
    }

    fn fail() -> Failure {
        Failure { cell: "x".into(), line: None, reason: "it panicked".into(), details: String::new() }
    }

    /// Runs a cell; how often it ran, and what became of it.
    fn run(watch: &mut Watch, timed: bool, outcome: Result<(), ()>) -> (u32, Result<(), String>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let times = Rc::new(Cell::new(0));
        let cell = async || {
            times.set(times.get() + 1);
            Ok(outcome.map_err(|()| fail()))
        };
        let found = runtime.block_on(watch.run("cell `x`", timed, cell)).unwrap();
        (times.get(), found.map_err(|f| f.to_string()))
    }

    #[test]
    fn a_timed_cell_runs_until_nothing_disturbs_it() {
        // A tenth of two processors' second is 200 ms.
        let mut watch = watch(&[1000, 201, 199, 1900, 0]);
        assert_eq!(run(&mut watch, true, Ok(())), (3, Ok(())));
        assert_eq!(run(&mut watch, false, Ok(())), (1, Ok(())));
        assert_eq!(run(&mut watch, true, Ok(())), (1, Ok(())));
        let notes = watch.notes().join("\n");
        assert!(notes.contains("disturbed 1 cell (most of all cell `x`: it took 95 %"), "{notes}");
    }

    #[test]
    fn a_machine_that_is_never_idle_is_a_failure() {
        let (times, outcome) = run(&mut watch(&[500; 9]), true, Ok(()));
        let message = outcome.unwrap_err();
        assert_eq!(times, 5);
        assert!(message.contains("cell `x`: its times (`timed`) were disturbed 5 times"), "{message}");
        assert!(message.contains("25 %, 25 %") && message.contains("Nothing is saved"), "{message}");
    }

    #[test]
    fn a_cell_that_fails_is_not_tried_again() {
        let (times, outcome) = run(&mut watch(&[900; 9]), true, Err(()));
        assert_eq!((times, outcome), (1, Err("x: it panicked".to_owned())));
    }

    #[test]
    fn where_nothing_can_be_measured_a_note_says_so() {
        let mut watch = Watch::with(|| None, Duration::ZERO);
        assert_eq!(run(&mut watch, false, Ok(())), (1, Ok(())));
        assert!(watch.notes().is_empty());
        assert_eq!(run(&mut watch, true, Ok(())), (1, Ok(())));
        assert!(watch.notes().join("").contains("the times in cell `x` may be wrong"));
        assert!(Watch::new(false).is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_systems_tables_are_read() {
        let stat =
            "cpu  1 1 1 1 1 1 1 1 0 0\ncpu0 10 2 3 400 50 6 7 8 9 1\ncpu1 1 0 0 900 0 0 0 0 0 0\nintr 5\n";
        assert_eq!(busy_ticks(stat), Some((2, 37)));
        assert_eq!(busy_ticks("cpu0 0 0 0 0 0 0 0 0 0 0\n"), None);
        let line = "42 (a) name (x) S 7 42 42 0 -1 4194304 100 0 0 0 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(parent_and_ticks(line), Some((7, 100)));
    }

    /// Own work is told from that of others: here a child that has ended, and one that goes on.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_work_of_children_is_our_own() {
        let spin = |seconds: &str| {
            let script =
                format!("end=$(($(date +%s) + {seconds})); while [ $(date +%s) -lt $end ]; do :; done");
            std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap()
        };
        let before = own_ticks(std::process::id());
        spin("1").wait().unwrap();
        let after_one = own_ticks(std::process::id());
        assert!(after_one > before);
        let mut child = spin("600");
        while own_ticks(child.id()) == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(own_ticks(std::process::id()) > after_one);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
