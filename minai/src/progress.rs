// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 86b97254640bb9c9
//! Training that says how far it is: a bar in a terminal and in a notebook, single lines elsewhere.

use crate::learner::{Callback, Flow, Learner, Task};

// %% notebooks/10_learner.ipynb pr-progress
use indicatif::{ProgressBar, ProgressStyle};
use minai::io::notebook::{Bundle, Handle, display, is_live};
use minai::nn::Mode;
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// Where a training is, and how it goes.
#[derive(Clone, Debug, Default)]
struct Status {
    /// The epoch, from 1, and how many there are.
    epoch: (usize, usize),
    /// The batches done in this epoch, and how many it has.
    batch: (usize, usize),
    /// The steps done, and how many there will be.
    step: (usize, usize),
    loss: f32,
    rate: f32,
    /// In seconds, since the beginning and until the end.
    time: (f64, f64),
    /// What the last epoch gave.
    scores: Vec<(String, f32)>,
}

// %% notebooks/10_learner.ipynb pr-status
/// `loss 0.4321, rate 1.00e-1, 12 s left`
fn words(status: &Status) -> String {
    format!("loss {:.4}, rate {:.2e}, {:.0} s left", status.loss, status.rate, status.time.1)
}

/// The seconds since the start, and those that are left if steps go on as they did.
fn times(start: Instant, done: usize, left: usize) -> (f64, f64) {
    let seconds = start.elapsed().as_secs_f64();
    (seconds, seconds / done as f64 * left as f64)
}

// %% notebooks/10_learner.ipynb pr-status-of
/// After the batch at hand of a training that began at this time with this step.
fn status<T: Task>(learner: &mut Learner<T>, (start, first): (Instant, usize)) -> Status {
    let (step, steps) = learner.step();
    Status {
        epoch: (learner.epoch + 1, learner.epochs),
        batch: (learner.index + 1, learner.batches),
        step: (step + 1, steps),
        loss: learner.loss_value(),
        rate: *learner.optimizer.rule.lr(),
        time: times(start, step + 1 - first, steps - step - 1),
        scores: learner.scores.clone(),
    }
}

// %% notebooks/10_learner.ipynb pr-curve
/// The means of at most 200 pieces of the losses, and how many losses a piece has.
fn smoothed(losses: &[f32]) -> (Vec<f32>, usize) {
    let size = losses.len().div_ceil(200).max(1);
    (losses.chunks(size).map(|piece| piece.iter().sum::<f32>() / piece.len() as f32).collect(), size)
}

// %% notebooks/10_learner.ipynb pr-curve-image
/// The losses over all steps there will be, as an image in HTML.
fn curve(losses: &[f32], steps: usize) -> String {
    let (means, size) = smoothed(losses);
    let (low, high) = means.iter().fold((f32::MAX, 0_f32), |(low, high), &y| (low.min(y), high.max(y)));
    let place = |(i, mean): (usize, &f32)| {
        let (x, y) = ((i * size) as f32 / steps.max(1) as f32, (mean - low) / (high - low).max(1e-9));
        format!("{:.1},{:.1} ", 50.0 + 540.0 * x, 100.0 - 90.0 * y)
    };
    let points: String = means.iter().enumerate().map(place).collect();
    let text =
        |y, value| format!("<text x='4' y='{y}' font-size='12' font-family='sans-serif'>{value:.3}</text>");
    let svg = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' width='600' height='110'><rect width='600' height='110' fill='white'/>\
         <polyline points='{points}' fill='none' stroke='black' stroke-width='1.5'/>{}{}</svg>",
        text(14, high),
        text(104, low)
    );
    let (alt, svg) =
        (format!("the loss, from {high:.3} to {low:.3}"), svg.replace('<', "%3C").replace('>', "%3E"));
    format!("<br><img width=\"600\" alt=\"{alt}\" src=\"data:image/svg+xml;utf8,{svg}\">")
}

// %% notebooks/10_learner.ipynb pr-bundle
/// A bar, with a word of how training ended if it has, and more below it.
fn bar(status: &Status, end: Option<&str>, below: &str) -> Bundle {
    let ((epoch, epochs), (batch, batches), (step, steps)) = (status.epoch, status.batch, status.step);
    let place = format!("epoch {epoch}/{epochs}");
    let report = match end {
        Some(end) => format!("{end} after {:.1} s, loss {:.4}", status.time.0, status.loss),
        None => words(status),
    };
    let named = |(name, score): &(String, f32)| format!("{name} {score:.4}");
    let scores = status.scores.iter().map(named).collect::<Vec<_>>().join(", ");
    let bar = format!("<progress value=\"{step}\" max=\"{steps}\"></progress>");
    Bundle {
        text: format!("{place}, batch {batch} of {batches}: {report}"),
        rich: vec![("text/html", format!("<div>{place} {bar} {report}<br>{scores}{below}</div>"))],
    }
}

// %% notebooks/10_learner.ipynb pr-view
/// Where reports go.
enum View {
    /// An output of the notebook, replaced again and again.
    Notebook(Handle),
    /// A bar for each epoch.
    Terminal(ProgressBar),
    Lines,
}

impl View {
    fn new(status: &Status) -> View {
        if is_live() {
            return View::Notebook(display(&bar(status, None, "")));
        }
        if !stderr().is_terminal() {
            return View::Lines;
        }
        let style = "{prefix} {wide_bar} {pos}/{len}  {msg}";
        let bar = ProgressBar::new(status.batch.1 as u64);
        bar.set_style(ProgressStyle::with_template(style).expect("a template of ours"));
        bar.set_prefix(format!("epoch {}/{}", status.epoch.0, status.epoch.1));
        View::Terminal(bar)
    }
}

// %% notebooks/10_learner.ipynb pr-pause
/// The least time between two reports.
fn pause(view: &View) -> Duration {
    match view {
        View::Notebook(_) => Duration::from_millis(200),
        View::Terminal(_) => Duration::ZERO, // the bar itself sees to that
        View::Lines => Duration::from_secs(5),
    }
}

// %% notebooks/10_learner.ipynb pr-struct
/// Shows the loss, the learning rate and the time left: as a bar in the course's notebooks, and where standard error is a
/// terminal; else as a line every five seconds.
#[derive(Default)]
pub struct Progress {
    chart: bool,
    view: Option<View>,
    start: Option<(Instant, usize)>,
    last: Option<Instant>,
    status: Status,
    losses: Vec<f32>,
}

impl Progress {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// In a notebook, with a curve of the loss below the bar.
    pub fn with_chart() -> Self {
        Progress { chart: true, ..Self::default() }
    }
}

// %% notebooks/10_learner.ipynb pr-show-on
/// Shows the state; if training has ended, how.
fn show(progress: &Progress, end: Option<&str>) {
    let status = &progress.status;
    match &progress.view {
        Some(View::Notebook(handle)) => {
            let below = if progress.chart { curve(&progress.losses, status.step.1) } else { String::new() };
            handle.update(&bar(status, end, &below));
        }
        Some(View::Terminal(bar)) => {
            bar.set_position(status.batch.0 as u64);
            bar.set_message(words(status));
        }
        Some(View::Lines) if end.is_none() => {
            let ((epoch, _), (batch, batches)) = (status.epoch, status.batch);
            println!("epoch {epoch}, batch {batch} of {batches}: {}", words(status));
        }
        Some(View::Lines) | None => {}
    }
}

// %% notebooks/10_learner.ipynb pr-show
/// A batch is done.
fn report(progress: &mut Progress, status: Status) {
    progress.losses.push(status.loss);
    progress.status = status;
    let view = progress.view.get_or_insert_with(|| View::new(&progress.status));
    let (last, now) = (*progress.last.get_or_insert(Instant::now()), Instant::now());
    if now - last >= pause(view) {
        progress.last = Some(now);
        show(progress, None);
    }
    let (done, batches) = progress.status.batch;
    if let (true, Some(View::Terminal(bar))) = (done == batches, &progress.view) {
        bar.finish_and_clear(); // the next epoch gets its own
        progress.view = None;
    }
}

// %% notebooks/10_learner.ipynb pr-end
fn begin(progress: &mut Progress) {
    *progress = Progress { chart: progress.chart, ..Progress::default() };
}

/// The training is over; the notebook keeps how it ended.
fn end(progress: &mut Progress, how: &str, scores: Vec<(String, f32)>) {
    progress.status.scores = scores;
    show(progress, Some(how));
    if let Some(View::Terminal(bar)) = &progress.view {
        bar.abandon();
    }
    begin(progress);
}

// %% notebooks/10_learner.ipynb pr-callback
/// The start of the training, which is now if there was none: the time and the step at hand.
fn started<T: Task>(progress: &mut Progress, learner: &Learner<T>) -> (Instant, usize) {
    *progress.start.get_or_insert_with(|| (Instant::now(), learner.step().0))
}

fn how_it_ended<T: Task>(learner: &Learner<T>) -> &'static str {
    match (learner.diverged, learner.interrupted) {
        (true, _) => "diverged",
        (_, true) => "interrupted",
        _ => "done",
    }
}

// %% notebooks/10_learner.ipynb pr-callback-impl
impl<T: Task> Callback<T> for Progress {
    fn before_fit(&mut self, _: &mut Learner<T>) -> Flow {
        begin(self);
        Flow::Continue
    }
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        started(self, learner);
        Flow::Continue
    }
    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        if learner.mode == Mode::Train {
            let start = started(self, learner);
            report(self, status(learner, start));
        }
        Flow::Continue
    }
    fn after_fit(&mut self, learner: &mut Learner<T>) -> Flow {
        end(self, how_it_ended(learner), learner.scores.clone());
        Flow::Continue
    }
}
