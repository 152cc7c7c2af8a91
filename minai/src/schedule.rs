// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash a36c98e7c247d7bb
//! Learning rates that change from step to step, as PyTorch's schedulers compute them.

// %% notebooks/13_optimizers.ipynb sc-schedules
use minai::learner::{Callback, Flow, Learner, Task};
use minai::nn::Mode;
use std::f64::consts::PI;

/// From `start` to `end` along half a cosine, `part` of the way from 0 to 1.
fn cosine_between(start: f64, end: f64, part: f64) -> f64 {
    end + (start - end) / 2.0 * (1.0 + (PI * part).cos())
}

/// A rate for each step of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Schedule {
    /// From `lr` along half a cosine down to `least` (Loshchilov and Hutter 2016; PyTorch's `CosineAnnealingLR`).
    Cosine {
        /// The first rate.
        lr: f64,
        /// The rate after the last step.
        least: f64,
    },
    /// Up to `lr` and down again, the momentum the other way round (Smith 2018; PyTorch's `OneCycleLR`).
    OneCycle(OneCycle),
}

/// What the one-cycle schedule wants to know; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OneCycle {
    /// The highest rate.
    pub lr: f64,
    /// The share of steps that lead up; 0.3.
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

impl Schedule {
    /// The learning rate, and the momentum if it changes too, of step number `step` (from 0) of `steps`.
    pub fn at(&self, step: usize, steps: usize) -> (f64, Option<f64>) {
        match *self {
            Schedule::Cosine { lr, least } => (cosine_between(lr, least, step as f64 / steps as f64), None),
            Schedule::OneCycle(OneCycle { lr, warmup, start, end, momentum: (low, high) }) => {
                let (step, top, last) = (step as f64, warmup * steps as f64 - 1.0, steps as f64 - 1.0);
                let first = lr / start;
                if step <= top {
                    let part = step / top;
                    (cosine_between(first, lr, part), Some(cosine_between(high, low, part)))
                } else {
                    let part = (step - top) / (last - top);
                    (cosine_between(lr, first / end, part), Some(cosine_between(low, high, part)))
                }
            }
        }
    }
}

/// Sets the optimiser's rate and momentum before each training step.
impl<T: Task> Callback<T> for Schedule {
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        if learner.mode == Mode::Train {
            let (step, steps) = learner.step();
            let (lr, momentum) = self.at(step, steps);
            learner.optimizer.rule.set_lr(lr as f32);
            if let Some(momentum) = momentum {
                learner.optimizer.rule.set_momentum(momentum as f32);
            }
        }
        Flow::Continue
    }
}
