// Owned by notebooks/21_schedules.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 093e625b75eb5938
//! Noise schedules as densities over the logarithm of the noise level, and moved along this axis.

// %% notebooks/21_schedules.ipynb sc-shifted
use minai::noise::NoiseSchedule;

/// A schedule with `factor` times the noise level at each time step: in ln σ it is moved by ln `factor` (Hoogeboom et al.
/// 2023, equation 4, with log SNR = -2 ln σ).
///
/// # Panics
/// If the factor is not above 0.
#[track_caller]
pub fn shifted(schedule: &NoiseSchedule, factor: f64) -> NoiseSchedule {
    assert!(factor > 0.0, "shifted: a factor above 0 expected, not {factor}");
    let alpha = |t: usize| 1.0 / (1.0 + (factor * schedule.sigma(t as f64)).powi(2));
    NoiseSchedule { alphas_cumprod: (0..schedule.steps()).map(alpha).collect() }
}

// %% notebooks/21_schedules.ipynb sc-density
/// How densely a schedule's time steps lie over ln σ: for each of `bins` equal parts of the range from ln `low` to
/// ln `high`, the share of steps in it divided by its width. The sum times the width is the share of steps in the range.
///
/// # Panics
/// If there are no bins, or not 0 < `low` < `high`.
#[track_caller]
pub fn density(schedule: &NoiseSchedule, (low, high): (f64, f64), bins: usize) -> Vec<f64> {
    assert!(bins > 0 && 0.0 < low && low < high, "density: {bins} bins from {low} to {high}");
    let width = (high / low).ln() / bins as f64;
    let mut counts = vec![0.0; bins];
    for t in 0..schedule.steps() {
        let bin = (schedule.sigma(t as f64) / low).ln() / width;
        if (0.0..bins as f64).contains(&bin) {
            counts[bin as usize] += 1.0 / (schedule.steps() as f64 * width);
        }
    }
    counts
}
