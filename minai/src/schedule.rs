// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 2e7fecbf98935db8
//! Learning rates that change from step to step, as PyTorch's schedulers compute them.

// %% notebooks/13_optimizers.ipynb sc-schedules
use std::f64::consts::PI;

/// From `start` to `end` along half a cosine, `part` of the way from 0 to 1.
fn cosine_between(start: f64, end: f64, part: f64) -> f64 {
    end + (start - end) / 2.0 * (1.0 + (PI * part).cos())
}

/// From `lr` along half a cosine down to `least`, which would be the rate after the last step (Loshchilov and
/// Hutter 2016; PyTorch's `CosineAnnealingLR`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// The first rate.
    pub lr: f64,
    /// The rate that it falls to.
    pub least: f64,
}

impl Cosine {
    /// The learning rate of step number `step` (from 0) of `steps`. After the last step it stays as it is.
    pub fn at(&self, step: usize, steps: usize) -> f64 {
        cosine_between(self.lr, self.least, step.min(steps) as f64 / steps.max(1) as f64)
    }
}

// %% notebooks/13_optimizers.ipynb sc-one-cycle
/// Up to a highest rate and down again, the momentum the other way round (Smith 2018; PyTorch's `OneCycleLR`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    /// The highest rate.
    pub lr: f64,
    /// The share of steps that lead up, from 0 to 1; 0.3.
    pub warmup: f64,
    /// How many times lower the first rate is; 25.
    pub start: f64,
    /// How many times lower than the first rate the last one is; 10,000.
    pub end: f64,
    /// The momentum at the highest rate, and at the first and last; 0.85 and 0.95.
    pub momentum: (f64, f64),
}

impl OneCycle {
    /// With PyTorch's defaults.
    pub fn new(lr: f64) -> Self {
        OneCycle { lr, warmup: 0.3, start: 25.0, end: 1e4, momentum: (0.85, 0.95) }
    }
}

// %% notebooks/13_optimizers.ipynb sc-one-cycle-at
/// How far up, then how far down the step is, each from 0 to 1. The top is at a step that may be a fraction.
fn up_and_down(cycle: &OneCycle, step: usize, steps: usize) -> (f64, f64) {
    let last = steps.saturating_sub(1) as f64;
    let (step, top) = ((step as f64).min(last), cycle.warmup * steps as f64 - 1.0);
    // With few steps there may be no way up (top ≤ 0) or no way down (top = last): nothing to divide by.
    let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
    if step <= top && top > 0.0 { (share(step, top), 0.0) } else { (1.0, share(step - top, last - top)) }
}

impl OneCycle {
    /// The learning rate and the momentum of step number `step` (from 0) of `steps`. After the last step they stay as
    /// they are.
    pub fn at(&self, step: usize, steps: usize) -> (f64, f64) {
        let (up, down) = up_and_down(self, step, steps);
        let (first, (low, high)) = (self.lr / self.start, self.momentum);
        if up < 1.0 {
            (cosine_between(first, self.lr, up), cosine_between(high, low, up))
        } else {
            (cosine_between(self.lr, first / self.end, down), cosine_between(low, high, down))
        }
    }
}

// %% notebooks/13_optimizers.ipynb sc-closure
/// A schedule from a closure, or from one of the others.
pub struct Schedule(Rates);

/// The learning rate of a step of so many, and the momentum if it changes too.
type Rates = Box<dyn Fn(usize, usize) -> (f64, Option<f64>)>;

impl Schedule {
    /// The learning rate of each step (from 0) of so many: `Schedule::new(|step, steps| …)`.
    pub fn new(lr: impl Fn(usize, usize) -> f64 + 'static) -> Self {
        Schedule(Box::new(move |step, steps| (lr(step, steps), None)))
    }

    /// The learning rate, and the momentum if it changes too, of step number `step` (from 0) of `steps`.
    pub fn at(&self, step: usize, steps: usize) -> (f64, Option<f64>) {
        (self.0)(step, steps)
    }
}

// %% notebooks/13_optimizers.ipynb sc-closure-from
impl std::fmt::Debug for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let at = |step| (self.0)(step, 100).0;
        write!(f, "Schedule {{ of 100 steps, the first: {}, the last: {} }}", at(0), at(99))
    }
}

impl From<Cosine> for Schedule {
    fn from(cosine: Cosine) -> Self {
        Schedule::new(move |step, steps| cosine.at(step, steps))
    }
}

/// Rate and momentum, which always changes.
fn both((lr, momentum): (f64, f64)) -> (f64, Option<f64>) {
    (lr, Some(momentum))
}

impl From<OneCycle> for Schedule {
    fn from(cycle: OneCycle) -> Self {
        Schedule(Box::new(move |step, steps| both(cycle.at(step, steps))))
    }
}

// %% notebooks/13_optimizers.ipynb sc-callback
use minai::learner::{Callback, Flow, Learner, Task, set_rates};
use minai::nn::Mode;

/// Sets the optimiser's rate and momentum before a training step.
fn drive<T: Task>(learner: &mut Learner<T>, rates: impl FnOnce(usize, usize) -> (f64, Option<f64>)) -> Flow {
    if learner.mode == Mode::Train {
        let (step, steps) = learner.step();
        let (lr, momentum) = rates(step, steps);
        set_rates(&mut *learner.optimizer.rule, (lr as f32, momentum.map(|momentum| momentum as f32)));
    }
    Flow::Continue
}

// %% notebooks/13_optimizers.ipynb sc-callback-impls
impl<T: Task> Callback<T> for Cosine {
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        drive(learner, |step, steps| (self.at(step, steps), None))
    }
}

impl<T: Task> Callback<T> for OneCycle {
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        drive(learner, |step, steps| both(self.at(step, steps)))
    }
}

impl<T: Task> Callback<T> for Schedule {
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        drive(learner, |step, steps| self.at(step, steps))
    }
}
