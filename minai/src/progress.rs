// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 63507ef5ac1152e8
//! Training that says how far it is: a bar in a terminal, single lines elsewhere.

use crate::learner::{Callback, Flow, Learner, Task};

// %% notebooks/10_learner.ipynb pr-progress
use indicatif::{ProgressBar, ProgressStyle};
use minai::nn::Mode;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// How often a line is printed where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);

/// Shows the loss, the learning rate and the time left: as a bar if standard error is a terminal, else as a line
/// every five seconds (a notebook shows only whole lines).
#[derive(Default)]
pub struct Progress {
    bar: Option<ProgressBar>,
    start: Option<(Instant, usize)>,
    last: Option<Instant>,
}

impl Progress {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<T: Task> Callback<T> for Progress {
    fn before_epoch(&mut self, learner: &mut Learner<T>) -> Flow {
        let now = Instant::now();
        self.start.get_or_insert((now, learner.step().0));
        self.last = Some(now);
        if stderr().is_terminal() {
            let style = "{prefix} {wide_bar} {pos}/{len}  {msg}";
            let bar = ProgressBar::new(learner.batches as u64);
            bar.set_style(ProgressStyle::with_template(style).expect("a template of ours"));
            bar.set_prefix(format!("epoch {}/{}", learner.epoch + 1, learner.epochs));
            self.bar = Some(bar);
        }
        Flow::Continue
    }

    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        let (Mode::Train, Some((start, first))) = (learner.mode, self.start) else { return Flow::Continue };
        let due = self.last.is_none_or(|last| last.elapsed() >= EVERY);
        if self.bar.is_none() && !due {
            return Flow::Continue;
        }
        let (step, steps) = learner.step();
        let left = start.elapsed().as_secs_f64() / (step + 1 - first) as f64 * (steps - step - 1) as f64;
        let (loss, lr) = (learner.loss_value(), learner.optimizer.rule.lr());
        let report = format!("loss {loss:.4}, rate {lr:.2e}, {left:.0} s left");
        match &self.bar {
            Some(bar) => {
                bar.set_position(learner.index as u64 + 1);
                bar.set_message(report);
            }
            None => {
                let (epoch, batch) = (learner.epoch + 1, learner.index + 1);
                println!("epoch {epoch}, batch {batch} of {}: {report}", learner.batches);
                self.last = Some(Instant::now());
            }
        }
        if learner.index + 1 == learner.batches
            && let Some(bar) = self.bar.take()
        {
            bar.finish_and_clear();
        }
        Flow::Continue
    }

    fn after_fit(&mut self, _: &mut Learner<T>) -> Flow {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
        self.start = None;
        Flow::Continue
    }
}
