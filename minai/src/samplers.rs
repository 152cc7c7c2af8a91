// Owned by notebooks/16_samplers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash f029fb5b4c11b839
//! Samplers: from noise to an image, step by step, by asking a network again and again what is noise.
//!
//! All of them solve one equation. Where x = x₀ + σ n, and the network's answer is the noise eps in x, the path of x
//! as the noise level σ falls to 0 is dx/dσ = eps (Karras et al. 2022, equation 3; Song et al. 2021, equation 14).
//! They differ in how many earlier answers they make use of for a step, in which levels they visit, in whether they
//! put new noise in on the way, and in the units in which they keep x.

use crate::noise::{NoiseSchedule, karras};

// %% notebooks/16_samplers.ipynb sa-spacing
use minai::tensor::Tensor;

/// Which of the schedule's time steps are visited: `timestep_spacing` of published configurations, or Karras's levels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spacing {
    /// From the last time step to the first in equal steps, both included.
    Linspace,
    /// Counted from the first: 0, k, 2k and so on, and the offset to each, where k is the schedule's steps by the
    /// sampler's, rounded down. A greater offset than there is room for is made smaller.
    Leading {
        /// `steps_offset` of published configurations.
        offset: usize,
    },
    /// Counted back from the last, in steps that are equal but for rounding.
    Trailing,
    /// Between the schedule's levels, spaced as by [`karras`] with rho = 7.
    Karras,
}

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

/// `n` of the times 0 to `all` - 1, the last one first.
fn spaced(all: usize, n: usize, spacing: Spacing) -> Vec<f64> {
    let last = all - 1;
    let leading = |offset: usize| {
        let each = (all / n).max(1);
        let room = last.saturating_sub((n - 1) * each);
        (0..n).rev().map(|i| (i * each + offset.min(room)).min(last) as f64).collect()
    };
    match spacing {
        // A single step begins where there is most noise.
        Spacing::Linspace if n == 1 => vec![last as f64],
        Spacing::Linspace => (0..n).rev().map(|i| i as f64 * last as f64 / (n - 1) as f64).collect(),
        Spacing::Leading { offset } => leading(offset),
        Spacing::Trailing => {
            let back = |i: usize| all as f64 - i as f64 * all as f64 / n as f64;
            (0..n).map(|i| back(i).round_ties_even() - 1.0).collect()
        }
        Spacing::Karras => unreachable!("its levels come first, and its times from them"),
    }
}

// %% notebooks/16_samplers.ipynb sa-grid
/// How x is kept from call to call, and what the network gets to see.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Units {
    /// x = x₀ + σ n, and the network sees it so.
    Plain,
    /// x = x₀ + σ n; the network sees it divided by √(1 + σ²), so that its variance is about 1.
    Exploding,
    /// x = (x₀ + σ n) / √(1 + σ²) = √ᾱ x₀ + √(1 - ᾱ) n, and the network sees it so.
    Preserving,
}

/// Where DDIM and PNDM end.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Last {
    /// At the schedule's weakest noise level: `set_alpha_to_one` is false.
    #[default]
    Weakest,
    /// At no noise.
    Zero,
}

/// What a sampler goes through: for each call of the network the noise level of x and the time that the network is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// One for each call, and one for where it all ends.
    times: Vec<f64>,
    /// As many.
    sigmas: Vec<f64>,
    /// The call with which each step begins. Some samplers need two calls for a step.
    begins: Vec<usize>,
    units: Units,
    initial_scale: f64,
    /// None: the network is told the level.
    schedule: Option<NoiseSchedule>,
}

impl Grid {
    fn new(times: Vec<f64>, sigmas: Vec<f64>, units: Units) -> Self {
        let (begins, initial_scale) = ((0..sigmas.len() - 1).collect(), sigmas[0]);
        Grid { times, sigmas, begins, units, initial_scale, schedule: None }
    }

    /// The given levels, and a network that sees x as it is and is told the level itself.
    ///
    /// # Panics
    /// If there are fewer than two, or they don't fall, or the last is negative.
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        let fall = sigmas.windows(2).all(|pair| pair[0] > pair[1]);
        assert!(
            sigmas.len() > 1 && fall,
            "a sampler's noise levels fall from step to step, and these don't: {sigmas:?}"
        );
        assert!(sigmas[sigmas.len() - 1] >= 0.0 && sigmas[0].is_finite(), "not noise levels: {sigmas:?}");
        Self::new(sigmas.to_vec(), sigmas.to_vec(), Units::Plain)
    }

    /// The times that `spacing` chooses, then no noise; x in the units of x₀ + σ n.
    ///
    /// # Panics
    /// If `steps` is 0 or more than the schedule has.
    #[track_caller]
    pub fn exploding(schedule: &NoiseSchedule, steps: usize, spacing: Spacing) -> Self {
        let (times, sigmas) = visited(schedule, steps, spacing);
        let mut grid = Self::ending(schedule, times, sigmas, 0.0, Units::Exploding);
        if let Spacing::Leading { .. } = spacing {
            // It begins below the schedule's last level, where x₀ still counts: the deviation of x₀ + σ n.
            grid.initial_scale = grid.initial_scale.hypot(1.0);
        }
        grid
    }

    /// The same with x in the units of √ᾱ x₀ + √(1 - ᾱ) n, and with times rounded to whole steps.
    ///
    /// # Panics
    /// If `steps` is 0 or more than the schedule has.
    #[track_caller]
    pub fn preserving(schedule: &NoiseSchedule, steps: usize, spacing: Spacing, last: Last) -> Self {
        let (times, sigmas) = visited(schedule, steps, spacing);
        Self::whole(schedule, times, (spacing == Spacing::Karras).then_some(sigmas), last)
    }

    /// On whole time steps; the levels are those of the steps, unless they are given.
    fn whole(schedule: &NoiseSchedule, times: Vec<f64>, sigmas: Option<Vec<f64>>, last: Last) -> Self {
        let times: Vec<f64> = times.into_iter().map(f64::round_ties_even).collect();
        let sigmas = sigmas.unwrap_or_else(|| times.iter().map(|&t| schedule.sigma(t)).collect());
        let end = if last == Last::Zero { 0.0 } else { schedule.sigma(0.0) };
        Grid { initial_scale: 1.0, ..Self::ending(schedule, times, sigmas, end, Units::Preserving) }
    }

    fn ending(
        schedule: &NoiseSchedule,
        mut times: Vec<f64>,
        mut sigmas: Vec<f64>,
        end: f64,
        units: Units,
    ) -> Self {
        times.push(0.0);
        sigmas.push(end);
        Grid { schedule: Some(schedule.clone()), ..Self::new(times, sigmas, units) }
    }

    /// With a second call in each step from one level to another, at the level `middle(from, to)`; but not in a step to 0.
    fn with_middle(self, middle: impl Fn(f64, f64) -> f64) -> Self {
        let mut grid = Grid { times: vec![], sigmas: vec![], begins: vec![], ..self };
        for (i, (&time, &sigma)) in self.times.iter().zip(&self.sigmas).enumerate() {
            if i < self.begins.len() {
                grid.begins.push(grid.times.len());
            }
            grid.push(time, sigma);
            if let Some(&next) = self.sigmas.get(i + 1).filter(|&&next| next > 0.0) {
                let between = middle(sigma, next);
                let named = if between == next { self.times[i + 1] } else { grid.time(between) };
                grid.push(named, between);
            }
        }
        grid
    }

    /// What a network is told of a level that the schedule's times do not name.
    fn time(&self, sigma: f64) -> f64 {
        self.schedule.as_ref().map_or(sigma, |schedule| schedule.time(sigma))
    }

    fn push(&mut self, time: f64, sigma: f64) {
        self.times.push(time);
        self.sigmas.push(sigma);
    }

    /// The number of calls of the network.
    pub fn calls(&self) -> usize {
        self.sigmas.len() - 1
    }

    /// The noise level of x before each call, and after the last.
    pub fn sigmas(&self) -> &[f64] {
        &self.sigmas
    }

    /// By what x, as it is kept before call `i`, is multiplied to be x₀ + σ n.
    fn unit(&self, i: usize) -> f64 {
        if self.units == Units::Preserving { self.sigmas[i].hypot(1.0) } else { 1.0 }
    }
}

// %% notebooks/16_samplers.ipynb sa-sampler
/// A way from noise to an image.
///
/// The network is called once for each index i of [`times`](Self::times):
///
/// ```
/// use minai::generator::Generator;
/// use minai::noise::NoiseSchedule;
/// use minai::samplers::{Lms, Sampler};
/// use minai::tensor::Tensor;
///
/// // The best guess where all images are grey: that everything in x is noise. What a network is told is scaled.
/// let network = |x: &Tensor, t: f64| x * (1.0 + 1.0 / NoiseSchedule::stable_diffusion().sigma(t).powi(2)).sqrt() as f32;
///
/// let mut rng = Generator::manual_seed(42);
/// let mut sampler = Lms::new(&NoiseSchedule::stable_diffusion(), 10);
/// let mut x = Tensor::from(rng.randn(&[1, 4, 8, 8])) * sampler.initial_scale() as f32;
/// for (i, t) in sampler.times().to_vec().into_iter().enumerate() {
///     let eps = network(&sampler.scale_input(i, &x), t);
///     x = sampler.advance(i, &eps, &x, &mut |shape| Tensor::from(rng.randn(shape)));
/// }
/// assert!(x.abs().amax(..).item() < 1e-4);
/// ```
///
/// A sampler may be used again: a call with an index that does not follow the last one forgets what went before.
pub trait Sampler {
    /// Times, levels and units.
    fn grid(&self) -> &Grid;

    /// One step of x₀ + σ n, from the level before call `i` to that before the next.
    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        noise: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor;

    /// What the network is told at each call: the schedule's time, or the level if the sampler was made from levels.
    fn times(&self) -> &[f64] {
        &self.grid().times[..self.grid().calls()]
    }

    /// By what noise of variance 1 is multiplied to begin with.
    fn initial_scale(&self) -> f64 {
        self.grid().initial_scale
    }

    /// `x` as the network wants it at call `i`.
    fn scale_input(&self, i: usize, x: &Tensor) -> Tensor {
        let grid = self.grid();
        if grid.units == Units::Exploding { x / grid.sigmas[i].hypot(1.0) as f32 } else { x.clone() }
    }

    /// `x` after call `i`, in which the network said that `eps` is the noise in it. `noise(shape)` draws noise of
    /// variance 1 for the samplers that put some in.
    ///
    /// # Panics
    /// If there is no call `i`.
    #[track_caller]
    fn advance(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        noise: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        let grid = self.grid();
        assert!(i < grid.calls(), "advance: no call {i}; there are {}", grid.calls());
        let (before, after) = (grid.unit(i) as f32, grid.unit(i + 1) as f32);
        self.integrate(i, eps, &(x * before), noise) / after
    }

    /// The image that `eps` says is behind `x` at call `i`: x₀ = x - σ eps. For previews.
    fn denoised(&self, i: usize, eps: &Tensor, x: &Tensor) -> Tensor {
        let grid = self.grid();
        x * grid.unit(i) as f32 - eps * grid.sigmas[i] as f32
    }

    /// The image `x0` with as much of the given noise as x has at call `i`: where image to image begins. After the last
    /// call that is the level at which the sampler ends.
    fn add_noise(&self, i: usize, x0: &Tensor, noise: &Tensor) -> Tensor {
        let grid = self.grid();
        (x0 + noise * grid.sigmas[i] as f32) / grid.unit(i) as f32
    }

    /// The call with which image to image of this strength begins: 1 is from the start, 0 behind the last call.
    /// Of n steps, n · strength are taken, rounded down.
    ///
    /// # Panics
    /// If the strength is not from 0 to 1.
    #[track_caller]
    fn start(&self, strength: f64) -> usize {
        assert!((0.0..=1.0).contains(&strength), "start: a strength is from 0 to 1, not {strength}");
        let grid = self.grid();
        let steps = grid.begins.len();
        let skipped = steps - (steps as f64 * strength) as usize;
        grid.begins.get(skipped).copied().unwrap_or(grid.calls())
    }
}
/// Runs a sampler: `x` is where it begins (noise times [`Sampler::initial_scale`]), `model(x, t)` the noise that the
/// network finds in x, `noise(shape)` draws new noise. After each call, `callback(i, t, x)` sees x.
pub fn sample(
    sampler: &mut dyn Sampler,
    x: Tensor,
    model: impl FnMut(&Tensor, f64) -> Tensor,
    noise: impl FnMut(&[usize]) -> Tensor,
    callback: impl FnMut(usize, f64, &Tensor),
) -> Tensor {
    sample_from(sampler, 0, x, model, noise, callback)
}

/// As [`sample`], but begins with call `start`, for image to image: `x` comes from [`Sampler::add_noise`].
pub fn sample_from(
    sampler: &mut dyn Sampler,
    start: usize,
    mut x: Tensor,
    mut model: impl FnMut(&Tensor, f64) -> Tensor,
    mut noise: impl FnMut(&[usize]) -> Tensor,
    mut callback: impl FnMut(usize, f64, &Tensor),
) -> Tensor {
    for i in start..sampler.times().len() {
        let t = sampler.times()[i];
        let eps = model(&sampler.scale_input(i, &x), t);
        x = sampler.advance(i, &eps, &x, &mut noise);
        callback(i, t, &x);
    }
    x
}

// %% notebooks/16_samplers.ipynb sa-euler
/// Euler's step along dx/dσ = eps.
fn euler(x: &Tensor, eps: &Tensor, from: f64, to: f64) -> Tensor {
    x + eps * (to - from) as f32
}

/// Euler's method: from each level along the tangent to the next (Karras et al. 2022, algorithm 1 without its
/// correction). One call a step.
pub struct Euler {
    grid: Grid,
}

impl Euler {
    /// `steps` steps over the whole schedule; panics if they are none, or more than the schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::on(Grid::exploding(schedule, steps, Spacing::Linspace))
    }

    /// Through the given levels: see [`Grid::from_sigmas`].
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        Self::on(Grid::from_sigmas(sigmas))
    }

    /// On any grid.
    pub fn on(grid: Grid) -> Self {
        Euler { grid }
    }
}

impl Sampler for Euler {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        _: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        euler(x, eps, self.grid.sigmas[i], self.grid.sigmas[i + 1])
    }
}

// %% notebooks/16_samplers.ipynb sa-heun
/// What earlier calls of the same run left behind, the latest first.
struct History<T> {
    next: usize,
    kept: Vec<T>,
}

impl<T> Default for History<T> {
    fn default() -> Self {
        History { next: 0, kept: vec![] }
    }
}

impl<T> History<T> {
    /// For call `i`: emptied, unless the last one was `i - 1`.
    fn at(&mut self, i: usize) -> &mut Vec<T> {
        if i != self.next {
            self.kept.clear();
        }
        self.next = i + 1;
        &mut self.kept
    }

    /// With one more, and no more than `most`.
    fn push(&mut self, i: usize, value: T, most: usize) -> &[T] {
        let kept = self.at(i);
        kept.insert(0, value);
        kept.truncate(most);
        kept
    }
}

/// Heun's method (Karras et al. 2022, algorithm 1): a step of Euler's, a second call where it leads, and the same step
/// again with the mean of both answers. Two calls a step, but for the last.
pub struct Heun {
    grid: Grid,
    /// x at the step's beginning, and the first answer.
    first: History<(Tensor, Tensor)>,
}

impl Heun {
    /// `steps` steps over the whole schedule; panics if they are none, or more than the schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::on(Grid::exploding(schedule, steps, Spacing::Linspace))
    }

    /// Through the given levels: see [`Grid::from_sigmas`].
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        Self::on(Grid::from_sigmas(sigmas))
    }

    /// On any grid of steps.
    pub fn on(grid: Grid) -> Self {
        Heun { grid: grid.with_middle(|_, to| to), first: History::default() }
    }
}

impl Sampler for Heun {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        _: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        let (sigmas, first) = (&self.grid.sigmas, self.first.at(i));
        match first.pop() {
            None => {
                first.push((x.clone(), eps.clone()));
                euler(x, eps, sigmas[i], sigmas[i + 1])
            }
            Some((start, before)) => euler(&start, &((before + eps) / 2.0), sigmas[i - 1], sigmas[i]),
        }
    }
}

// %% notebooks/16_samplers.ipynb sa-dpm2
/// DPM-Solver-2 as k-diffusion has it: a call in the middle of the step, where "middle" is that of the logarithms, and
/// the whole step with its answer (Lu et al. 2022a; Karras et al. 2022, algorithm 2). Two calls a step, but for the last.
pub struct Dpm2 {
    grid: Grid,
    /// x at the step's beginning.
    start: History<Tensor>,
}

impl Dpm2 {
    /// `steps` steps over the whole schedule; panics if they are none, or more than the schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::on(Grid::exploding(schedule, steps, Spacing::Linspace))
    }

    /// Through the given levels: see [`Grid::from_sigmas`].
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        Self::on(Grid::from_sigmas(sigmas))
    }

    /// On any grid of steps.
    pub fn on(grid: Grid) -> Self {
        Dpm2 { grid: grid.with_middle(|from, to| (from * to).sqrt()), start: History::default() }
    }
}

impl Sampler for Dpm2 {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        _: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        let (sigmas, start) = (&self.grid.sigmas, self.start.at(i));
        match start.pop() {
            None => {
                start.push(x.clone());
                euler(x, eps, sigmas[i], sigmas[i + 1])
            }
            Some(start) => euler(&start, eps, sigmas[i - 1], sigmas[i + 1]),
        }
    }
}

// %% notebooks/16_samplers.ipynb sa-lms
/// A linear multistep method (Adams and Bashforth): a curve of degree three through the last four answers, and the area
/// below it up to the next level. One call a step.
pub struct Lms {
    grid: Grid,
    answers: History<Tensor>,
}

impl Lms {
    /// `steps` steps over the whole schedule; panics if they are none, or more than the schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::on(Grid::exploding(schedule, steps, Spacing::Linspace))
    }

    /// Through the given levels: see [`Grid::from_sigmas`].
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        Self::on(Grid::from_sigmas(sigmas))
    }

    /// On any grid.
    pub fn on(grid: Grid) -> Self {
        Lms { grid, answers: History::default() }
    }
}

impl Sampler for Lms {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        _: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        let answers = self.answers.push(i, eps.clone(), 4);
        let weights = lms_weights(&self.grid.sigmas, i, answers.len());
        x + weighted_sum(&weights, answers)
    }
}

/// How much each of the last `order` answers, the latest first, counts in the step from level `i` to the next: the
/// integral of the polynomial that is 1 at its level and 0 at those of the others.
pub fn lms_weights(sigmas: &[f64], i: usize, order: usize) -> Vec<f64> {
    let (middle, half) = ((sigmas[i] + sigmas[i + 1]) / 2.0, (sigmas[i + 1] - sigmas[i]) / 2.0);
    let weight = |j: usize| {
        let others = || (0..order).filter(move |&k| k != j);
        let polynomial = |sigma: f64| -> f64 {
            others().map(|k| (sigma - sigmas[i - k]) / (sigmas[i - j] - sigmas[i - k])).product()
        };
        // Gauss: two points are enough for the exact integral of a cubic.
        let apart = half / 3_f64.sqrt();
        half * (polynomial(middle - apart) + polynomial(middle + apart))
    };
    (0..order).map(weight).collect()
}

fn weighted_sum(weights: &[f64], tensors: &[Tensor]) -> Tensor {
    let mut terms = weights.iter().zip(tensors).map(|(&weight, tensor)| tensor * weight as f32);
    let first = terms.next().expect("at least one");
    terms.fold(first, |sum, term| sum + term)
}

// %% notebooks/16_samplers.ipynb sa-2m
/// Towards the image `x0`: of what is left to it, the share that the noise level falls. The same step as Euler's, but
/// exact for an x0 that stays what it is.
fn towards(x: &Tensor, x0: &Tensor, from: f64, to: f64) -> Tensor {
    x * (to / from) as f32 + x0 * (1.0 - to / from) as f32
}

/// DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): steps towards the image, which is drawn on in a straight line
/// through the last two guesses, over -ln σ. One call a step. The last one goes to the last guess itself.
pub struct DpmPp2M {
    grid: Grid,
    images: History<Tensor>,
}

impl DpmPp2M {
    /// `steps` steps over the whole schedule, on whole time steps, in the units of √ᾱ x₀ + √(1 - ᾱ) n; panics if they
    /// are none, or more than the schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::spaced(schedule, steps, Spacing::Linspace)
    }

    /// As [`new`](Self::new), with times of your choice.
    #[track_caller]
    pub fn spaced(schedule: &NoiseSchedule, steps: usize, spacing: Spacing) -> Self {
        let mut grid = Grid::preserving(schedule, steps, spacing, Last::Zero);
        if let Spacing::Linspace | Spacing::Leading { .. } = spacing {
            // It counts time 0, where it ends, as one of the times.
            let mut times = spaced(schedule.steps(), steps + 1, spacing);
            times.pop();
            grid = Grid::whole(schedule, times, None, Last::Zero);
        }
        Self::on(grid)
    }

    /// Through the given levels: see [`Grid::from_sigmas`].
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        Self::on(Grid::from_sigmas(sigmas))
    }

    /// On any grid.
    pub fn on(grid: Grid) -> Self {
        DpmPp2M { grid, images: History::default() }
    }
}

impl Sampler for DpmPp2M {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        _: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        let sigmas = &self.grid.sigmas;
        let (from, to) = (sigmas[i], sigmas[i + 1]);
        let images = self.images.push(i, x - eps * from as f32, 2);
        let image = match images {
            [now, before] if to > 0.0 => {
                // Steps of -ln σ: this one, and the one before.
                let (h, h_before) = ((from / to).ln(), (sigmas[i - 1] / from).ln());
                let ahead = if h_before > 0.0 { h / (2.0 * h_before) } else { 0.0 };
                now * (1.0 + ahead) as f32 - before * ahead as f32
            }
            _ => images[0].clone(),
        };
        towards(x, &image, from, to)
    }
}

// %% notebooks/16_samplers.ipynb sa-anc
/// Euler's step down to less than `to`, and noise that makes up for it. The sum of the two variances is that of `to`;
/// `eta` is how much of the noise that may be put in is (Song et al. 2021, equation 16).
fn ancestral(
    x: &Tensor,
    eps: &Tensor,
    (from, to): (f64, f64),
    eta: f64,
    noise: &mut dyn FnMut(&[usize]) -> Tensor,
) -> Tensor {
    let (down, up) = down_and_up(from, to, eta);
    with_noise(euler(x, eps, from, down), up, noise)
}

/// The level to step down to, and that of the noise to be added: down² + up² = to².
fn down_and_up(from: f64, to: f64, eta: f64) -> (f64, f64) {
    let up = eta * to * (1.0 - (to / from).powi(2)).max(0.0).sqrt();
    ((to * to - up * up).max(0.0).sqrt(), up)
}

/// `x + up · noise`; none is drawn if there is none to be added.
fn with_noise(x: Tensor, up: f64, noise: &mut dyn FnMut(&[usize]) -> Tensor) -> Tensor {
    if up > 0.0 {
        let fresh = noise(x.shape());
        x + fresh * up as f32
    } else {
        x
    }
}

/// Euler's steps, each further down than the next level, and new noise to come up to it.
pub struct EulerAncestral {
    grid: Grid,
}

impl EulerAncestral {
    /// `steps` steps over the whole schedule; panics if they are none, or more than the schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::on(Grid::exploding(schedule, steps, Spacing::Linspace))
    }

    /// Through the given levels: see [`Grid::from_sigmas`].
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        Self::on(Grid::from_sigmas(sigmas))
    }

    /// On any grid.
    pub fn on(grid: Grid) -> Self {
        EulerAncestral { grid }
    }
}

impl Sampler for EulerAncestral {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        noise: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        ancestral(x, eps, (self.grid.sigmas[i], self.grid.sigmas[i + 1]), 1.0, noise)
    }
}

// %% notebooks/16_samplers.ipynb sa-ddim
/// DDIM (Song et al. 2021, equation 12): with `eta` 0 Euler's method, with 1 Euler ancestral, in the units in which the
/// variance of x stays 1, and on whole time steps.
pub struct Ddim {
    grid: Grid,
    eta: f64,
}

impl Ddim {
    /// `steps` steps over the whole schedule, down to its weakest level; `eta` from 0 to 1 says how much new noise is
    /// put in at each.
    ///
    /// # Panics
    /// If `steps` is 0 or more than the schedule has, or `eta` is not from 0 to 1.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize, eta: f64) -> Self {
        Self::on(Grid::preserving(schedule, steps, Spacing::Leading { offset: 1 }, Last::Weakest), eta)
    }

    /// On any grid.
    ///
    /// # Panics
    /// If `eta` is not from 0 to 1.
    #[track_caller]
    pub fn on(grid: Grid, eta: f64) -> Self {
        assert!((0.0..=1.0).contains(&eta), "Ddim: eta is from 0 to 1, not {eta}");
        Ddim { grid, eta }
    }
}

impl Sampler for Ddim {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        noise: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        ancestral(x, eps, (self.grid.sigmas[i], self.grid.sigmas[i + 1]), self.eta, noise)
    }
}

/// DDPM, the first of them (Ho et al. 2020, algorithm 2, with the smaller of its two variances): each step draws from
/// what x may have been one step earlier. That is Euler ancestral in other units.
pub struct Ddpm {
    grid: Grid,
}

impl Ddpm {
    /// `steps` steps over the whole schedule; panics if they are none, or more than the schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::on(Grid::preserving(schedule, steps, Spacing::Leading { offset: 0 }, Last::Zero))
    }

    /// On any grid.
    pub fn on(grid: Grid) -> Self {
        Ddpm { grid }
    }
}

impl Sampler for Ddpm {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        noise: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        ancestral(x, eps, (self.grid.sigmas[i], self.grid.sigmas[i + 1]), 1.0, noise)
    }
}

// %% notebooks/16_samplers.ipynb sa-pndm
/// PNDM without its Runge-Kutta steps (Liu et al. 2022, equation 12), as it is published with Stable Diffusion: DDIM's
/// step with a mix of the last four answers, whose weights are those for equal steps. The first step is done twice, as
/// Heun's, so there is one call more than there are steps.
pub struct Pndm {
    grid: Grid,
    answers: History<Tensor>,
    /// x before the first step.
    start: Option<Tensor>,
}

impl Pndm {
    /// `steps` steps over the whole schedule, down to its weakest level; panics if they are none, or more than the
    /// schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::on(Grid::preserving(schedule, steps, Spacing::Leading { offset: 1 }, Last::Weakest))
    }

    /// On any grid of steps.
    pub fn on(mut grid: Grid) -> Self {
        if grid.begins.len() > 1 {
            grid.times.insert(1, grid.times[1]);
            grid.sigmas.insert(1, grid.sigmas[1]);
            grid.begins[1..].iter_mut().for_each(|call| *call += 1);
        }
        Pndm { grid, answers: History::default(), start: None }
    }
}

impl Sampler for Pndm {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        _: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        let sigmas = &self.grid.sigmas;
        if i == 0 {
            self.start = Some(x.clone());
        } else if let Some(start) = self.start.take().filter(|_| i == 1) {
            let mean = (&self.answers.at(i)[0] + eps) / 2.0;
            return euler(&start, &mean, sigmas[0], sigmas[1]);
        }
        let answers = self.answers.push(i, eps.clone(), 4);
        let weights: &[f64] = match answers.len() {
            1 => &[1.0],
            2 => &[3.0 / 2.0, -1.0 / 2.0],
            3 => &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
            _ => &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
        };
        euler(x, &weighted_sum(weights, answers), sigmas[i], sigmas[i + 1])
    }
}

// %% notebooks/16_samplers.ipynb sa-2s
/// DPM-Solver++(2S), ancestral, as k-diffusion has it (Lu et al. 2022b, algorithm 1): a call in the middle of the step,
/// and the whole step towards the image found there, further down than the next level; then new noise. Two calls a
/// step, but for the last.
pub struct DpmPp2SAncestral {
    grid: Grid,
    /// x at the step's beginning.
    start: History<Tensor>,
}

impl DpmPp2SAncestral {
    /// `steps` steps over the whole schedule; panics if they are none, or more than the schedule has.
    #[track_caller]
    pub fn new(schedule: &NoiseSchedule, steps: usize) -> Self {
        Self::on(Grid::exploding(schedule, steps, Spacing::Linspace))
    }

    /// Through the given levels: see [`Grid::from_sigmas`].
    #[track_caller]
    pub fn from_sigmas(sigmas: &[f64]) -> Self {
        Self::on(Grid::from_sigmas(sigmas))
    }

    /// On any grid of steps.
    pub fn on(grid: Grid) -> Self {
        let middle = |from: f64, to: f64| (from * down_and_up(from, to, 1.0).0).sqrt();
        DpmPp2SAncestral { grid: grid.with_middle(middle), start: History::default() }
    }
}

impl Sampler for DpmPp2SAncestral {
    fn grid(&self) -> &Grid {
        &self.grid
    }

    fn integrate(
        &mut self,
        i: usize,
        eps: &Tensor,
        x: &Tensor,
        noise: &mut dyn FnMut(&[usize]) -> Tensor,
    ) -> Tensor {
        let (sigmas, start) = (&self.grid.sigmas, self.start.at(i));
        let image = x - eps * sigmas[i] as f32;
        match start.pop() {
            None => {
                start.push(x.clone());
                towards(x, &image, sigmas[i], sigmas[i + 1])
            }
            Some(start) => {
                let (down, up) = down_and_up(sigmas[i - 1], sigmas[i + 1], 1.0);
                with_noise(towards(&start, &image, sigmas[i - 1], down), up, noise)
            }
        }
    }
}

// %% notebooks/16_samplers.ipynb sa-names
/// What a sampler made by name may be told; the default is what the published Stable Diffusion v1 is used with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Options {
    /// None: what is usual for the sampler. DDIM and PNDM lead with an offset of 1, DDPM with one of 0.
    pub spacing: Option<Spacing>,
    /// DDIM and PNDM: whether the last step goes all the way to no noise (`set_alpha_to_one`), or to the schedule's
    /// weakest level.
    pub last: Last,
    /// DDIM: how much new noise is put in at each step, from 0 to 1.
    pub eta: f64,
}

/// The names that [`by_name`] knows.
pub const NAMES: [&str; 10] =
    ["lms", "ddim", "ddpm", "euler", "euler_a", "heun", "dpmpp_2m", "pndm", "dpm_2", "dpmpp_2s_a"];

/// The sampler of this name: one of [`NAMES`].
///
/// # Errors
/// If there is none, if `steps` is 0 or more than the schedule has, or if the options do not fit.
pub fn by_name(
    name: &str,
    schedule: &NoiseSchedule,
    steps: usize,
    options: Options,
) -> Result<Box<dyn Sampler>, String> {
    let Options { spacing, last, eta } = options;
    let all = schedule.steps();
    if !NAMES.contains(&name) {
        return Err(format!("there is no sampler {name:?}; there are {}", NAMES.join(", ")));
    }
    if !(1..=all).contains(&steps) {
        return Err(format!("{steps} steps: a sampler takes from 1 to {all} with this noise schedule"));
    }
    if !(0.0..=1.0).contains(&eta) {
        return Err(format!("eta is from 0 to 1, not {eta}"));
    }
    if matches!(name, "ddim" | "ddpm" | "pndm") && spacing == Some(Spacing::Karras) {
        return Err(format!("{name} visits whole time steps, and cannot have Karras's noise levels"));
    }
    let exploding = || Grid::exploding(schedule, steps, spacing.unwrap_or(Spacing::Linspace));
    let preserving = |offset, last| {
        Grid::preserving(schedule, steps, spacing.unwrap_or(Spacing::Leading { offset }), last)
    };
    Ok(match name {
        "lms" => Box::new(Lms::on(exploding())),
        "ddim" => Box::new(Ddim::on(preserving(1, last), eta)),
        "ddpm" => Box::new(Ddpm::on(preserving(0, Last::Zero))),
        "euler" => Box::new(Euler::on(exploding())),
        "euler_a" => Box::new(EulerAncestral::on(exploding())),
        "heun" => Box::new(Heun::on(exploding())),
        "dpm_2" => Box::new(Dpm2::on(exploding())),
        "dpmpp_2s_a" => Box::new(DpmPp2SAncestral::on(exploding())),
        "pndm" => Box::new(Pndm::on(preserving(1, last))),
        _ => Box::new(DpmPp2M::spaced(schedule, steps, spacing.unwrap_or(Spacing::Linspace))),
    })
}
