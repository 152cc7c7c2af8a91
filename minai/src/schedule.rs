// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash d9094769c358ed34
//! Learning rates that change from step to step, as PyTorch's schedulers compute them.

// %% notebooks/13_optimizers.ipynb sc-schedules
use std::f64::consts::PI;

/// A rate for each step of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// From `lr` along half a cosine down to `least`, which would be the rate after the last step (Loshchilov and
    /// Hutter 2016; PyTorch's `CosineAnnealingLR`).
    Cosine {
        /// The first rate.
        lr: f64,
        /// The rate that it falls to.
        least: f64,
    },
    /// Up to a highest rate and down again, the momentum the other way round (Smith 2018; PyTorch's `OneCycleLR`).
    OneCycle(OneCycle),
}

/// What the one-cycle schedule wants to know; the defaults of [`new`](Self::new) are PyTorch's.
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

    /// How far up, then how far down the step is: two numbers from 0 to 1. The top is at a step that may be a fraction.
    fn parts(&self, step: usize, steps: usize) -> (f64, f64) {
        let last = steps.saturating_sub(1) as f64;
        let (step, top) = ((step as f64).min(last), self.warmup * steps as f64 - 1.0);
        // With few steps there may be no way up (top ≤ 0) or no way down (top = last): nothing to divide by.
        let share = |part: f64, of: f64| if of > 0.0 { part / of } else { 0.0 };
        if step <= top && top > 0.0 { (share(step, top), 0.0) } else { (1.0, share(step - top, last - top)) }
    }
}

/// From `start` to `end` along half a cosine, `part` of the way from 0 to 1.
fn cosine_between(start: f64, end: f64, part: f64) -> f64 {
    end + (start - end) / 2.0 * (1.0 + (PI * part).cos())
}

impl Schedule {
    /// The learning rate, and the momentum if it changes too, of step number `step` (from 0) of `steps`. Behind the
    /// last step they stay as they are.
    pub fn at(&self, step: usize, steps: usize) -> (f64, Option<f64>) {
        match *self {
            Schedule::Cosine { lr, least } => {
                let part = step.min(steps) as f64 / steps.max(1) as f64;
                (cosine_between(lr, least, part), None)
            }
            Schedule::OneCycle(cycle) => {
                let (up, down) = cycle.parts(step, steps);
                let (lr, first, (low, high)) = (cycle.lr, cycle.lr / cycle.start, cycle.momentum);
                if up < 1.0 {
                    (cosine_between(first, lr, up), Some(cosine_between(high, low, up)))
                } else {
                    let last = first / cycle.end;
                    (cosine_between(lr, last, down), Some(cosine_between(low, high, down)))
                }
            }
        }
    }
}

// %% notebooks/13_optimizers.ipynb sc-callback
use minai::learner::{Callback, Flow, Learner, Task, set_rates};
use minai::nn::Mode;

/// Sets the optimiser's rate and momentum before each training step.
impl<T: Task> Callback<T> for Schedule {
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        if learner.mode == Mode::Train {
            let (step, steps) = learner.step();
            let (lr, momentum) = self.at(step, steps);
            set_rates(&mut *learner.optimizer.rule, (lr as f32, momentum.map(|momentum| momentum as f32)));
        }
        Flow::Continue
    }
}
