// Owned by notebooks/16_samplers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash f575f12f8000a300
//! Noise schedules: how strong the noise is at each time step of a training, and which levels to visit when sampling.

// %% notebooks/16_samplers.ipynb no-schedule
/// A training's noise levels, the weakest first.
///
/// At time step t a training mixes an image x₀ with noise n of variance 1 as √ᾱₜ x₀ + √(1 - ᾱₜ) n (Ho et al. 2020,
/// equation 4). Divided by √ᾱₜ that is x₀ + σₜ n: the *noise level* σₜ = √((1 - ᾱₜ) / ᾱₜ) says the same in one number.
#[derive(Clone, Debug, PartialEq)]
pub struct NoiseSchedule {
    /// ᾱₜ for t = 0, 1, …: the share of the image in the variance of the mix.
    pub alphas_cumprod: Vec<f64>,
}

// %% notebooks/16_samplers.ipynb no-schedule-b
impl NoiseSchedule {
    /// From the share βₜ of new noise in the variance at each time step: ᾱₜ = (1 - β₀)(1 - β₁)…(1 - βₜ).
    ///
    /// # Panics
    /// If there are fewer than two, or one is not between 0 and 1.
    #[track_caller]
    pub fn from_betas(betas: impl IntoIterator<Item = f64>) -> Self {
        let mut product = 1.0;
        let alphas_cumprod: Vec<f64> = betas
            .into_iter()
            .map(|beta| {
                assert!(
                    beta > 0.0 && beta < 1.0,
                    "a noise schedule: beta is {beta}, and must be between 0 and 1"
                );
                // Rounded where PyTorch rounds: so the levels are those that published networks were trained with.
                product *= f64::from(1.0 - beta as f32);
                f64::from(product as f32)
            })
            .collect();
        assert!(alphas_cumprod.len() > 1, "a noise schedule has at least two steps");
        NoiseSchedule { alphas_cumprod }
    }
}

// %% notebooks/16_samplers.ipynb no-kinds
/// `steps` numbers from `start` to `end`, both included.
fn linspace(start: f64, end: f64, steps: usize) -> impl Iterator<Item = f64> {
    (0..steps).map(move |i| start + (end - start) * i as f64 / (steps.max(2) - 1) as f64)
}

impl NoiseSchedule {
    /// Betas in equal steps from `start` to `end` (Ho et al. 2020 have 1,000 from 0.0001 to 0.02).
    ///
    /// # Panics
    /// As for [`from_betas`](Self::from_betas).
    #[track_caller]
    pub fn linear(steps: usize, start: f64, end: f64) -> Self {
        Self::from_betas(linspace(start, end, steps))
    }

    /// Betas whose square roots grow in equal steps.
    ///
    /// # Panics
    /// As for [`from_betas`](Self::from_betas).
    #[track_caller]
    pub fn scaled_linear(steps: usize, start: f64, end: f64) -> Self {
        Self::from_betas(linspace(start.sqrt(), end.sqrt(), steps).map(|root| root * root))
    }
}

// %% notebooks/16_samplers.ipynb no-kinds-b
impl NoiseSchedule {
    /// ᾱ falls like a squared cosine (Nichol and Dhariwal 2021, equation 17); no beta is above 0.999.
    ///
    /// # Panics
    /// If there are fewer than two steps.
    #[track_caller]
    pub fn cosine(steps: usize) -> Self {
        let alpha = |t: usize| {
            ((t as f64 / steps as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2).cos().powi(2)
        };
        Self::from_betas((0..steps).map(|t| (1.0 - alpha(t + 1) / alpha(t)).min(0.999)))
    }

    /// That of Stable Diffusion v1 and v2: scaled-linear, 1,000 steps from 0.00085 to 0.012.
    pub fn stable_diffusion() -> Self {
        Self::scaled_linear(1000, 0.00085, 0.012)
    }
}

// %% notebooks/16_samplers.ipynb no-name
use std::fmt;

/// Why there is no such noise schedule.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ScheduleError {
    /// None has this name.
    Unknown(String),
    /// This many steps are too few or too many.
    Steps(usize),
    /// Betas do not go from this one to that one.
    Betas(f64, f64),
}

// %% notebooks/16_samplers.ipynb no-name-b
impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "no beta_schedule {name:?}: linear, scaled_linear and squaredcos_cap_v2 are known")
            }
            Self::Steps(steps) => write!(f, "a noise schedule of {steps} steps; 1000 are usual"),
            Self::Betas(start, end) => {
                write!(f, "betas go from a number above 0 up to one below 1, not from {start} to {end}")
            }
        }
    }
}

impl std::error::Error for ScheduleError {}

// %% notebooks/16_samplers.ipynb no-by-name
impl NoiseSchedule {
    /// By the `beta_schedule` of a published `scheduler_config.json`; its other fields are `num_train_timesteps`,
    /// `beta_start` and `beta_end`.
    ///
    /// # Errors
    /// If the name is unknown, or the other values are no schedule.
    pub fn by_name(name: &str, steps: usize, start: f64, end: f64) -> Result<Self, ScheduleError> {
        if !(2..=1_000_000).contains(&steps) {
            return Err(ScheduleError::Steps(steps));
        }
        if !(start > 0.0 && start <= end && end < 1.0) {
            return Err(ScheduleError::Betas(start, end));
        }
        match name {
            "linear" => Ok(Self::linear(steps, start, end)),
            "scaled_linear" => Ok(Self::scaled_linear(steps, start, end)),
            "squaredcos_cap_v2" => Ok(Self::cosine(steps)),
            _ => Err(ScheduleError::Unknown(name.to_owned())),
        }
    }
}

// %% notebooks/16_samplers.ipynb no-level
/// σ at a whole time step.
fn level(schedule: &NoiseSchedule, t: usize) -> f64 {
    let alpha = schedule.alphas_cumprod[t];
    ((1.0 - alpha) / alpha).sqrt()
}

impl NoiseSchedule {
    /// The number of time steps.
    pub fn steps(&self) -> usize {
        self.alphas_cumprod.len()
    }

    /// The noise level σ at time t: at whole steps √((1 - ᾱ) / ᾱ), on a straight line in between, and beyond the ends
    /// what it is there.
    pub fn sigma(&self, t: f64) -> f64 {
        let t = t.clamp(0.0, (self.steps() - 1) as f64);
        let (low, part) = (t as usize, t.fract());
        let sigma = level(self, low);
        if part == 0.0 { sigma } else { sigma + part * (level(self, low + 1) - sigma) }
    }
}

// %% notebooks/16_samplers.ipynb no-level-b
impl NoiseSchedule {
    /// The time at which the noise level is `sigma`, from 0 to the last step: the inverse of [`sigma`](Self::sigma).
    ///
    /// In between two steps it is the *logarithm* of the level that lies on a straight line, as networks have been told
    /// ever since k-diffusion. So `time(sigma(t))` is t at whole steps, and may be a few hundredths off elsewhere.
    pub fn time(&self, sigma: f64) -> f64 {
        let last = self.steps() - 1;
        // The first step that is noisier.
        let high = (1..last).find(|&t| level(self, t) > sigma).unwrap_or(last);
        let (a, b) = (level(self, high - 1).ln(), level(self, high).ln());
        (high - 1) as f64 + ((sigma.max(1e-10).ln() - a) / (b - a)).clamp(0.0, 1.0)
    }
}

// %% notebooks/16_samplers.ipynb no-karras
/// `n` noise levels from `max` down to `min`, and then 0: many small ones and few large ones, the more so the greater
/// `rho` is; 7 is usual (Karras et al. 2022, equation 5).
///
/// # Panics
/// If `n` is 0, or not 0 < `min` ≤ `max`.
#[track_caller]
pub fn karras(n: usize, min: f64, max: f64, rho: f64) -> Vec<f64> {
    assert!(
        n > 0 && min > 0.0 && min <= max && rho > 0.0,
        "karras: {n} levels from {max} to {min}, rho {rho}"
    );
    let root = |sigma: f64| sigma.powf(1.0 / rho);
    linspace(root(max), root(min), n).map(|x| x.powf(rho)).chain([0.0]).collect()
}
