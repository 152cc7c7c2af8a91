// Owned by notebooks/20_fewer_steps.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 4c530fbb774dd2e8
//! Which noise levels a sampler visits, and what a network is told at each: the frame around a sampler.

// %% notebooks/20_fewer_steps.ipynb lv-spacing
use minai::noise::{NoiseSchedule, karras};
use minai::tensor::Tensor;

/// Which of a schedule's times are visited: `timestep_spacing` of published configurations, or Karras's levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spacing {
    /// From the last time to the first in equal steps, both included.
    Linspace,
    /// Counted from the first: 0, k, 2k and so on, and the offset to each, where k is the schedule's steps by the
    /// sampler's, rounded down. An offset for which there is no room is made smaller.
    Leading {
        /// `steps_offset` of published configurations.
        offset: usize,
    },
    /// Counted back from the last, in steps that are equal but for rounding.
    Trailing,
    /// Between the schedule's levels, spaced as by [`karras`] with rho = 7.
    Karras,
}

// %% notebooks/20_fewer_steps.ipynb lv-spaced
/// `n` of the times 0 to `all` - 1, the last one first. Karras's come from their levels: see [`visited`].
fn spaced(all: usize, n: usize, spacing: Spacing) -> Vec<f64> {
    let last = all - 1;
    match spacing {
        // A single step begins where there is most noise.
        Spacing::Linspace if n == 1 => vec![last as f64],
        Spacing::Linspace | Spacing::Karras => {
            (0..n).rev().map(|i| i as f64 * last as f64 / (n - 1) as f64).collect()
        }
        Spacing::Leading { offset } => {
            let each = (all / n).max(1);
            let room = last.saturating_sub((n - 1) * each);
            (0..n).rev().map(|i| (i * each + offset.min(room)).min(last) as f64).collect()
        }
        Spacing::Trailing => {
            let back = |i: usize| all as f64 - i as f64 * all as f64 / n as f64;
            (0..n).map(|i| back(i).round_ties_even() - 1.0).collect()
        }
    }
}

// %% notebooks/20_fewer_steps.ipynb lv-visited
/// The times and levels of `steps` steps, the noisiest first.
#[track_caller]
fn visited(schedule: &NoiseSchedule, steps: usize, spacing: Spacing) -> (Vec<f64>, Vec<f64>) {
    let all = schedule.steps();
    assert!(
        0 < steps && steps <= all,
        "a sampler takes from 1 to {all} steps with this schedule, not {steps}"
    );
    if spacing == Spacing::Karras {
        let mut sigmas = karras(steps, schedule.sigma(0.0), schedule.sigma(all as f64), 7.0);
        sigmas.pop();
        return (sigmas.iter().map(|&sigma| schedule.time(sigma)).collect(), sigmas);
    }
    let times = spaced(all, steps, spacing);
    let sigmas = times.iter().map(|&t| schedule.sigma(t)).collect();
    (times, sigmas)
}

// %% notebooks/20_fewer_steps.ipynb lv-levels
/// The noise levels that a sampler visits, and what a network is told at each.
#[derive(Clone, Debug, PartialEq)]
pub struct Levels {
    /// The noisiest first. The last is where it all ends.
    pub sigmas: Vec<f64>,
    /// The time of each level.
    pub times: Vec<f64>,
    /// By what noise of variance 1 is multiplied to begin with.
    pub initial_scale: f64,
    /// None: the network sees x as it is, and is told its level.
    schedule: Option<NoiseSchedule>,
}

// %% notebooks/20_fewer_steps.ipynb lv-levels-b
impl Levels {
    /// The given levels, and a network that sees x₀ + σ n as it is and is told σ itself.
    ///
    /// # Panics
    /// If there are fewer than two, or they don't fall, or the last is negative.
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        let fall = sigmas.len() > 1 && sigmas.windows(2).all(|pair| pair[0] > pair[1]);
        assert!(fall, "a sampler's noise levels fall from step to step, and these don't: {sigmas:?}");
        assert!(sigmas[sigmas.len() - 1] >= 0.0 && sigmas[0].is_finite(), "not noise levels: {sigmas:?}");
        Levels { sigmas: sigmas.to_vec(), times: sigmas.to_vec(), initial_scale: sigmas[0], schedule: None }
    }
}

// %% notebooks/20_fewer_steps.ipynb lv-kinds
/// Where a sampler ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum FinalLevel {
    /// At the schedule's weakest noise level: `set_alpha_to_one` is false.
    #[default]
    Weakest,
    /// At no noise.
    Zero,
}

// %% notebooks/20_fewer_steps.ipynb lv-kinds-b
/// Levels that end as told: with their times, and the weight of the first noise.
fn ending(
    schedule: &NoiseSchedule,
    (mut times, mut sigmas): (Vec<f64>, Vec<f64>),
    last: FinalLevel,
    initial_scale: f64,
) -> Levels {
    times.push(0.0);
    sigmas.push(if last == FinalLevel::Zero { 0.0 } else { schedule.sigma(0.0) });
    Levels { sigmas, times, initial_scale, schedule: Some(schedule.clone()) }
}

/// Rounded to whole times. The levels are those of the times, unless they are Karras's.
fn whole(schedule: &NoiseSchedule, times: Vec<f64>, sigmas: Option<Vec<f64>>) -> (Vec<f64>, Vec<f64>) {
    let times: Vec<f64> = times.into_iter().map(f64::round_ties_even).collect();
    let sigmas = sigmas.unwrap_or_else(|| times.iter().map(|&t| schedule.sigma(t)).collect());
    (times, sigmas)
}

// %% notebooks/20_fewer_steps.ipynb lv-make
/// The deviation of x₀ + σ n at the first level, where x₀ has variance 1.
fn deviation(sigmas: &[f64]) -> f64 {
    sigmas[0].hypot(1.0)
}

/// What published samplers visit. All of these panic if `steps` is 0 or more than the schedule has.
impl Levels {
    /// The times that `spacing` chooses, whole or not, and then no noise: as diffusers' Euler, Heun and LMS.
    #[track_caller]
    pub fn exploding(schedule: &NoiseSchedule, steps: usize, spacing: Spacing) -> Self {
        let at = visited(schedule, steps, spacing);
        let leading = matches!(spacing, Spacing::Leading { .. });
        let scale = if leading { deviation(&at.1) } else { at.1[0] };
        ending(schedule, at, FinalLevel::Zero, scale)
    }

    /// Whole times, and noise with the variance that x₀ + σ n has: as diffusers' DDIM, DDPM and PNDM.
    #[track_caller]
    pub fn preserving(schedule: &NoiseSchedule, steps: usize, spacing: Spacing, last: FinalLevel) -> Self {
        let (times, sigmas) = visited(schedule, steps, spacing);
        let at = whole(schedule, times, (spacing == Spacing::Karras).then_some(sigmas));
        let scale = deviation(&at.1);
        ending(schedule, at, last, scale)
    }
}

// %% notebooks/20_fewer_steps.ipynb lv-solver
/// `steps` + 1 times without the last, which is where a solver ends. With as many steps as the schedule has, all times.
#[track_caller]
fn counting_the_end(schedule: &NoiseSchedule, steps: usize, spacing: Spacing) -> Vec<f64> {
    let (mut times, _) = visited(schedule, steps, spacing);
    if let Spacing::Linspace | Spacing::Leading { .. } = spacing {
        times = spaced(schedule.steps(), (steps + 1).min(schedule.steps()), spacing);
        times.truncate(steps);
    }
    times
}

impl Levels {
    /// As [`preserving`](Self::preserving), but time 0, where it ends, is counted as one of the times: as diffusers'
    /// DPM-Solvers, UniPC and DEIS.
    #[track_caller]
    pub fn solver(schedule: &NoiseSchedule, steps: usize, spacing: Spacing, last: FinalLevel) -> Self {
        let karras = (spacing == Spacing::Karras).then(|| visited(schedule, steps, spacing).1);
        let at = whole(schedule, counting_the_end(schedule, steps, spacing), karras);
        let scale = deviation(&at.1);
        ending(schedule, at, last, scale)
    }
}

// %% notebooks/20_fewer_steps.ipynb lv-distilled
/// Time `i` of `steps`, from the `known` times for which a network was distilled, about equally spaced.
fn distilled_time(all: usize, known: usize, steps: usize, i: usize) -> f64 {
    ((known - i * known / steps) * (all / known) - 1) as f64
}

impl Levels {
    /// Some of the 50 times for which latent consistency models are distilled, then no noise: as diffusers' LCM.
    ///
    /// # Panics
    /// If `steps` is 0 or more than 50, or more than the schedule has.
    #[track_caller]
    pub fn distilled(schedule: &NoiseSchedule, steps: usize) -> Self {
        let (all, known) = (schedule.steps(), schedule.steps().min(50));
        assert!(
            (1..=known).contains(&steps),
            "a distilled network takes from 1 to {known} steps, not {steps}"
        );
        let times = (0..steps).map(|i| distilled_time(all, known, steps, i)).collect();
        let at = whole(schedule, times, None);
        let scale = deviation(&at.1);
        ending(schedule, at, FinalLevel::Zero, scale)
    }
}

// %% notebooks/20_fewer_steps.ipynb lv-call
/// One call of a network by a sampler.
#[derive(Clone, Debug)]
pub struct Call {
    /// The number of calls before it.
    pub number: usize,
    /// x₀ + σ n
    pub x: Tensor,
    /// σ
    pub sigma: f64,
    /// x as the network wants it.
    pub input: Tensor,
    /// What the network is told.
    pub time: f64,
}

// %% notebooks/20_fewer_steps.ipynb lv-call-b
impl Levels {
    /// x₀ + σ n as the network wants it: with variance 1, if it has a schedule.
    pub fn input(&self, x: &Tensor, sigma: f64) -> Tensor {
        if self.schedule.is_some() { x / sigma.hypot(1.0) as f32 } else { x.clone() }
    }

    /// What the network is told at a level: the time that goes with it, or what the schedule says of levels in between.
    pub fn time(&self, sigma: f64) -> f64 {
        match (self.sigmas.iter().position(|&level| level == sigma), &self.schedule) {
            (Some(i), _) => self.times[i],
            (None, Some(schedule)) => schedule.time(sigma),
            (None, None) => sigma,
        }
    }
}

// %% notebooks/20_fewer_steps.ipynb lv-eps
/// How samplers ask a network.
fn call(levels: &Levels, number: usize, x: &Tensor, sigma: f64) -> Call {
    Call { number, x: x.clone(), sigma, input: levels.input(x, sigma), time: levels.time(sigma) }
}

impl Levels {
    /// A network as samplers want it: `network` finds the noise in `call.input`, knowing `call.time`.
    pub fn eps<E>(
        &self,
        mut network: impl FnMut(&Call) -> Result<Tensor, E>,
    ) -> impl FnMut(&Tensor, f64) -> Result<Tensor, E> {
        let mut numbers = 0..;
        move |x: &Tensor, sigma: f64| network(&call(self, numbers.next().expect("endless"), x, sigma))
    }
}

// %% notebooks/20_fewer_steps.ipynb lv-strength
/// How many of `steps` steps are left out at this strength.
#[track_caller]
fn left_out(steps: usize, strength: f64) -> usize {
    assert!((0.0..=1.0).contains(&strength), "a strength is from 0 to 1, not {strength}");
    steps - (steps as f64 * strength) as usize
}

impl Levels {
    /// The last levels, for image to image of this strength: with 1 all of them, with 0 only where it ends. Of n steps,
    /// n · strength are left, rounded down.
    ///
    /// # Panics
    /// If the strength is not from 0 to 1.
    #[track_caller]
    pub fn last_part(&self, strength: f64) -> Self {
        let first = left_out(self.sigmas.len() - 1, strength);
        let (sigmas, times) = (self.sigmas[first..].to_vec(), self.times[first..].to_vec());
        Levels { sigmas, times, ..self.clone() }
    }

    /// The image x₀ with as much of the given noise as the first level has: where image to image begins.
    pub fn add_noise(&self, x0: &Tensor, noise: &Tensor) -> Tensor {
        x0 + noise * self.sigmas[0] as f32
    }
}
