// Owned by notebooks/20_fewer_steps.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 81ea9f2cd3e6e787
//! All samplers by name, and one function that runs any of them with any network.

use crate::levels::{Call, FinalLevel, Levels, Spacing};
use crate::more_samplers::{deis, dpm_2, dpmpp_2m_sde, dpmpp_2s_ancestral, dpmpp_sde, lcm, pndm, unipc};

// %% notebooks/20_fewer_steps.ipynb sp-enum
use minai::noise::NoiseSchedule;
use minai::samplers::{dpmpp_2m, euler, euler_ancestral, heun, lms};
use minai::tensor::Tensor;
use std::fmt;
use std::str::FromStr;

// %% notebooks/20_fewer_steps.ipynb sp-enum-b
/// A sampler, and which levels it visits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)] // each is the function of its name
pub enum Sampler {
    Euler(Spacing),
    EulerAncestral(Spacing),
    /// [`euler_ancestral`] with this eta, on whole times.
    Ddim {
        spacing: Spacing,
        eta: f64,
    },
    /// [`euler_ancestral`] with eta 1, on whole times.
    Ddpm(Spacing),
    Heun(Spacing),
    Dpm2(Spacing),
    Lms(Spacing),
    Pndm(Spacing),
    Deis(Spacing),
    DpmPp2M(Spacing),
    DpmPp2SAncestral(Spacing),
    DpmPpSde(Spacing),
    DpmPp2MSde(Spacing),
    UniPc(Spacing),
    Lcm,
}

// %% notebooks/20_fewer_steps.ipynb sp-names
/// All samplers by name, with the spacing that is usual for each.
pub const SAMPLERS: [(&str, Sampler); 15] = [
    ("lms", Sampler::Lms(Spacing::Linspace)),
    ("ddim", Sampler::Ddim { spacing: Spacing::Leading { offset: 1 }, eta: 0.0 }),
    ("ddpm", Sampler::Ddpm(Spacing::Leading { offset: 0 })),
    ("euler", Sampler::Euler(Spacing::Linspace)),
    ("euler_a", Sampler::EulerAncestral(Spacing::Linspace)),
    ("heun", Sampler::Heun(Spacing::Linspace)),
    ("dpm_2", Sampler::Dpm2(Spacing::Linspace)),
    ("dpmpp_2m", Sampler::DpmPp2M(Spacing::Linspace)),
    ("dpmpp_2s_a", Sampler::DpmPp2SAncestral(Spacing::Linspace)),
    ("dpmpp_sde", Sampler::DpmPpSde(Spacing::Linspace)),
    ("dpmpp_2m_sde", Sampler::DpmPp2MSde(Spacing::Linspace)),
    ("pndm", Sampler::Pndm(Spacing::Leading { offset: 1 })),
    ("deis", Sampler::Deis(Spacing::Linspace)),
    ("unipc", Sampler::UniPc(Spacing::Linspace)),
    ("lcm", Sampler::Lcm),
];

// %% notebooks/20_fewer_steps.ipynb sp-spacing
/// Where a sampler's spacing is kept.
fn spacing_of(sampler: &mut Sampler) -> Option<&mut Spacing> {
    use Sampler::*;
    match sampler {
        Euler(spacing) | EulerAncestral(spacing) | Heun(spacing) | Dpm2(spacing) | Lms(spacing) => {
            Some(spacing)
        }
        Ddim { spacing, .. } | Ddpm(spacing) | Pndm(spacing) | Deis(spacing) | UniPc(spacing) => {
            Some(spacing)
        }
        DpmPp2M(spacing) | DpmPp2SAncestral(spacing) | DpmPpSde(spacing) | DpmPp2MSde(spacing) => {
            Some(spacing)
        }
        Lcm => None,
    }
}

// %% notebooks/20_fewer_steps.ipynb sp-spacing-b
impl Sampler {
    /// The same with other times. (LCM has its own.)
    pub fn spaced(mut self, spacing: Spacing) -> Self {
        if let Some(place) = spacing_of(&mut self) {
            *place = spacing;
        }
        self
    }

    /// Which times it visits. LCM's are its own.
    pub fn spacing(mut self) -> Option<Spacing> {
        spacing_of(&mut self).copied()
    }
}

// %% notebooks/20_fewer_steps.ipynb sp-name
/// Whether they are the same but for spacing and eta.
fn alike(a: &Sampler, b: &Sampler) -> bool {
    std::mem::discriminant(a) == std::mem::discriminant(b)
}

impl Sampler {
    /// Its name, without the spacing.
    pub fn name(self) -> &'static str {
        SAMPLERS.into_iter().find(|(_, other)| alike(other, &self)).expect("all are in the list").0
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())?;
        if self.spacing() == Some(Spacing::Karras) { f.write_str(" karras") } else { Ok(()) }
    }
}

// %% notebooks/20_fewer_steps.ipynb sp-error
/// Why a sampler can't be had.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SamplerError {
    /// There is none of this name.
    Unknown(String),
    /// This sampler takes from 1 to so many steps.
    Steps(Sampler, usize, usize),
    /// DDIM's eta is not from 0 to 1.
    Eta(f64),
    /// This sampler visits whole times.
    Karras(Sampler),
}

// %% notebooks/20_fewer_steps.ipynb sp-error-text
/// The names of all samplers, for people.
fn known() -> String {
    SAMPLERS.map(|(name, _)| name).join(", ")
}

// %% notebooks/20_fewer_steps.ipynb sp-error-text-b
impl fmt::Display for SamplerError {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(
                    f,
                    "there is no sampler {name:?}; there are {}, and most also with \" karras\" added",
                    known()
                )
            }
            Self::Steps(sampler, most, steps) => {
                write!(f, "{steps} steps: {sampler} takes from 1 to {most} with this noise schedule")
            }
            Self::Eta(eta) => write!(f, "eta is from 0 to 1, not {eta}"),
            Self::Karras(sampler) => {
                write!(f, "{} visits whole times, and can't have Karras's noise levels", sampler.name())
            }
        }
    }
}

impl std::error::Error for SamplerError {}

// %% notebooks/20_fewer_steps.ipynb sp-parse
/// A name without what people write differently: `k_euler_ancestral` and "Euler a" are "eulera", "DPM++ 2M" is "dpmpp2m".
fn plain(name: &str) -> String {
    let name = name.trim().to_lowercase();
    let name = name.strip_prefix("k_").unwrap_or(&name).replace('+', "p").replace("ancestral", "a");
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

impl FromStr for Sampler {
    type Err = SamplerError;

    /// By any of the names that people type: "Euler a", `k_lms`, "DPM++ 2M Karras", PLMS for PNDM …
    fn from_str(name: &str) -> Result<Self, SamplerError> {
        let all = plain(name);
        let short = all.strip_suffix("karras").unwrap_or(&all);
        let short = if short == "plms" { "pndm" } else { short };
        let found = SAMPLERS.into_iter().find(|(known, _)| plain(known) == short);
        let (_, sampler) = found.ok_or_else(|| SamplerError::Unknown(name.to_owned()))?;
        match (all.ends_with("karras"), sampler.spacing()) {
            (true, Some(_)) => Ok(sampler.spaced(Spacing::Karras)),
            (true, None) => Err(SamplerError::Karras(sampler)),
            (false, _) => Ok(sampler),
        }
    }
}

// %% notebooks/20_fewer_steps.ipynb sp-levels
/// Whether a sampler can take so many steps of a schedule.
fn check(sampler: Sampler, steps: usize, all: usize) -> Result<(), SamplerError> {
    let most = if sampler == Sampler::Lcm { all.min(50) } else { all };
    match sampler {
        _ if !(1..=most).contains(&steps) => Err(SamplerError::Steps(sampler, most, steps)),
        Sampler::Ddim { eta, .. } if !(0.0..=1.0).contains(&eta) => Err(SamplerError::Eta(eta)),
        Sampler::Ddim { spacing, .. } | Sampler::Ddpm(spacing) | Sampler::Pndm(spacing)
            if spacing == Spacing::Karras =>
        {
            Err(SamplerError::Karras(sampler))
        }
        _ => Ok(()),
    }
}

// %% notebooks/20_fewer_steps.ipynb sp-visits
/// LCM's spacing is its own, and so it has none.
const NONE: Spacing = Spacing::Trailing;

// %% notebooks/20_fewer_steps.ipynb sp-visits-b
impl Sampler {
    /// What it visits in `steps` steps of a schedule. `last` is where DDIM and PNDM end.
    ///
    /// # Errors
    /// If `steps` is 0 or too many, or if eta or the spacing don't fit.
    pub fn levels(
        self,
        schedule: &NoiseSchedule,
        steps: usize,
        last: FinalLevel,
    ) -> Result<Levels, SamplerError> {
        use Sampler::*;
        check(self, steps, schedule.steps())?;
        let spacing = self.spacing().unwrap_or(NONE);
        Ok(match self {
            Ddim { .. } | Pndm(_) => Levels::preserving(schedule, steps, spacing, last),
            Ddpm(_) => Levels::preserving(schedule, steps, spacing, FinalLevel::Zero),
            DpmPp2M(_) | DpmPp2MSde(_) | UniPc(_) => {
                Levels::solver(schedule, steps, spacing, FinalLevel::Zero)
            }
            Deis(_) => Levels::solver(schedule, steps, spacing, FinalLevel::Weakest),
            Lcm => Levels::distilled(schedule, steps),
            _ => Levels::exploding(schedule, steps, spacing),
        })
    }
}

// %% notebooks/20_fewer_steps.ipynb sp-calls
/// How many of the steps end at a level above 0.
fn above_zero(levels: &Levels) -> usize {
    levels.sigmas[1..].iter().filter(|&&sigma| sigma > 0.0).count()
}

impl Sampler {
    /// The number of calls of the network.
    pub fn calls(self, levels: &Levels) -> usize {
        use Sampler::*;
        let steps = levels.sigmas.len() - 1;
        match self {
            Heun(_) | Dpm2(_) | DpmPp2SAncestral(_) | DpmPpSde(_) => steps + above_zero(levels),
            Pndm(_) if steps > 1 => steps + 1,
            _ => steps,
        }
    }
}

// %% notebooks/20_fewer_steps.ipynb sp-run
/// x₀ + σ n at the last level as the network would see it: what published programs return.
fn result(levels: &Levels, x: Tensor) -> Tensor {
    levels.input(&x, levels.sigmas[levels.sigmas.len() - 1])
}

// %% notebooks/20_fewer_steps.ipynb sp-run-b
impl Sampler {
    /// Runs it from x₀ + σ n at the first of `levels` (for pure noise: noise of variance 1 times their `initial_scale`).
    /// `network` finds the noise in `call.input`; `noise(shape)` draws new noise of variance 1, where the sampler wants
    /// some. What is returned is scaled as the network's input is.
    ///
    /// ```
    /// use minai::generator::Generator;
    /// use minai::levels::{Call, FinalLevel};
    /// use minai::noise::NoiseSchedule;
    /// use minai::sampling::{Sampler, SamplerError};
    /// use minai::tensor::Tensor;
    ///
    /// let sampler: Sampler = "DPM++ 2M Karras".parse()?;
    /// let levels = sampler.levels(&NoiseSchedule::stable_diffusion(), 10, FinalLevel::Zero)?;
    /// // The best guess where all images are grey: that everything in x is noise.
    /// let network = |call: &Call| Ok::<_, SamplerError>(&call.x / call.sigma as f32);
    ///
    /// let mut rng = Generator::manual_seed(42);
    /// let x = Tensor::from(rng.randn(&[1, 4, 8, 8])) * levels.initial_scale as f32;
    /// let x = sampler.run(x, &levels, network, |shape| rng.randn(shape).into())?;
    /// assert!(x.abs().amax(..).item() < 1e-4);
    /// # Ok::<(), SamplerError>(())
    /// ```
    ///
    /// # Errors
    /// The network's. A callback that wants to stop lets it return one, and takes `call.x` along.
    pub fn run<E>(
        self,
        x: Tensor,
        levels: &Levels,
        network: impl FnMut(&Call) -> Result<Tensor, E>,
        noise: impl FnMut(&[usize]) -> Tensor,
    ) -> Result<Tensor, E> {
        use Sampler::*;
        let (s, eps) = (&levels.sigmas[..], levels.eps(network));
        let x = match self {
            Euler(_) => euler(x, s, eps)?,
            Heun(_) => heun(x, s, eps)?,
            Dpm2(_) => dpm_2(x, s, eps)?,
            Lms(_) => lms(x, s, eps)?,
            Pndm(_) => pndm(x, s, eps)?,
            Deis(_) => deis(x, s, eps)?,
            DpmPp2M(_) => dpmpp_2m(x, s, eps)?,
            UniPc(_) => unipc(x, s, eps)?,
            EulerAncestral(_) | Ddpm(_) => euler_ancestral(x, s, 1.0, eps, noise)?,
            Ddim { eta, .. } => euler_ancestral(x, s, eta, eps, noise)?,
            DpmPp2SAncestral(_) => dpmpp_2s_ancestral(x, s, eps, noise)?,
            DpmPpSde(_) => dpmpp_sde(x, s, eps, noise)?,
            DpmPp2MSde(_) => dpmpp_2m_sde(x, s, eps, noise)?,
            Lcm => lcm(x, s, eps, noise)?,
        };
        Ok(result(levels, x))
    }
}
