// Owned by notebooks/16_samplers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 4cb4166a27666236
//! Samplers: from noise to an image, step by step, by asking a network again and again what is noise.
//!
//! All of them solve one equation. Where x = x₀ + σ n, and the network's answer is the noise eps in x, the path of x
//! as the noise level σ falls to 0 is dx/dσ = eps(x, σ) (Y. Song et al. 2021, equation 13; Karras et al. 2022,
//! equation 3). A sampler is a function of x, the levels to visit and `eps`. If `eps` fails, the run ends with its error.

// %% notebooks/16_samplers.ipynb sa-steps
use minai::tensor::Tensor;
use std::convert::Infallible;

/// The steps that a sampler takes: from each noise level to the next.
///
/// # Panics
/// If the levels rise, or are no levels.
#[track_caller]
pub fn steps(sigmas: &[f64]) -> impl Iterator<Item = (f64, f64)> {
    let fall = sigmas.windows(2).all(|pair| pair[0] >= pair[1]);
    assert!(fall, "a sampler's noise levels fall from step to step, and these don't: {sigmas:?}");
    let good = sigmas.iter().all(|&sigma| sigma >= 0.0 && sigma.is_finite());
    assert!(good, "not noise levels: {sigmas:?}");
    sigmas.windows(2).map(|pair| (pair[0], pair[1]))
}

/// An `eps` that always has an answer, in the form that samplers want. `let Ok(x) = euler(x, &sigmas, always(eps));`
/// then needs no `else`.
pub fn always(
    mut eps: impl FnMut(&Tensor, f64) -> Tensor,
) -> impl FnMut(&Tensor, f64) -> Result<Tensor, Infallible> {
    move |x, sigma| Ok(eps(x, sigma))
}

// %% notebooks/16_samplers.ipynb sa-euler
/// Euler's step along dx/dσ = d.
pub fn euler_step(x: &Tensor, d: &Tensor, from: f64, to: f64) -> Tensor {
    x + d * (to - from) as f32
}

/// Euler's method: from each level along the tangent to the next. One call a step.
pub fn euler<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    for (from, to) in steps(sigmas) {
        let d = eps(&x, from)?;
        x = euler_step(&x, &d, from, to);
    }
    Ok(x)
}

// %% notebooks/16_samplers.ipynb sa-heun
/// Heun's method (Karras et al. 2022, algorithm 1): a step of Euler's, a second call where it leads, and the same step
/// again with the mean of both answers. Two calls a step, but for one to level 0.
pub fn heun<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    for (from, to) in steps(sigmas) {
        let mut d = eps(&x, from)?;
        if to > 0.0 {
            let there = euler_step(&x, &d, from, to);
            d = (d + eps(&there, to)?) / 2.0;
        }
        x = euler_step(&x, &d, from, to);
    }
    Ok(x)
}

// %% notebooks/16_samplers.ipynb sa-lms-weights
/// How much each of the last `order` answers, the latest first, counts in the step from level `i` to the next: the
/// integral of the polynomial that is 1 at its level and 0 at those of the others. `order` is at most 4.
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

// %% notebooks/16_samplers.ipynb sa-lms
/// A linear multistep method (Adams and Bashforth): a curve of degree three through the last four answers, and the area
/// below it up to the next level. One call a step.
pub fn lms<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let mut d = Vec::new(); // the latest first
    for (i, (from, _)) in steps(sigmas).enumerate() {
        d.insert(0, eps(&x, from)?);
        d.truncate(4);
        x += weighted_sum(&lms_weights(sigmas, i, d.len()), &d);
    }
    Ok(x)
}

/// w₀ t₀ + w₁ t₁ + …
///
/// # Panics
/// If there are no tensors.
pub fn weighted_sum(weights: &[f64], tensors: &[Tensor]) -> Tensor {
    let terms = weights.iter().zip(tensors).map(|(&weight, tensor)| tensor * weight as f32);
    terms.reduce(|sum, term| sum + term).expect("weighted_sum: no tensors")
}

// %% notebooks/16_samplers.ipynb sa-2m
/// Moves x towards the image x₀ by the fraction by which the noise level drops. The same step as Euler's, written so that
/// it is seen to be exact for an x₀ that stays what it is.
pub fn towards(x: &Tensor, x0: &Tensor, from: f64, to: f64) -> Tensor {
    x * (to / from) as f32 + x0 * (1.0 - to / from) as f32
}

/// Where the line through the last two images, now and one step of λ = -ln σ before, is half of the next step ahead:
/// the D of DPM-Solver++(2M), with r = (step before) / (next step).
pub fn ahead(now: &Tensor, before: &Tensor, r: f64) -> Tensor {
    now * (1.0 + 0.5 / r) as f32 - before * (0.5 / r) as f32
}

// %% notebooks/16_samplers.ipynb sa-2m-run
/// DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2): steps towards the image, which is drawn on in a straight line
/// through the last two guesses, over λ = -ln σ. One call a step. A step to level 0 goes to the last guess itself.
pub fn dpmpp_2m<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let mut before = None;
    for (from, to) in steps(sigmas) {
        let x0 = &x - eps(&x, from)? * from as f32;
        let h = (from / to).ln(); // the step of λ
        let d = match &before {
            Some((x1, h1)) if to > 0.0 => ahead(&x0, x1, h1 / h),
            _ => x0.clone(),
        };
        x = towards(&x, &d, from, to);
        before = Some((x0, h));
    }
    Ok(x)
}

// %% notebooks/16_samplers.ipynb sa-anc
/// The level to step down to, and that of the new noise, on the way from one level to another: down² + up² = to².
/// `eta` is the share of the noise that may be new, from 0 to 1 (J. Song et al. 2021, equation 16).
///
/// # Panics
/// If `eta` is not from 0 to 1.
#[track_caller]
pub fn down_and_up(from: f64, to: f64, eta: f64) -> (f64, f64) {
    assert!((0.0..=1.0).contains(&eta), "eta is from 0 to 1, not {eta}");
    let up = eta * to * (1.0 - (to / from).powi(2)).max(0.0).sqrt();
    ((to * to - up * up).max(0.0).sqrt(), up)
}

/// x + `up` times new noise; none is drawn if there is none to be added.
pub fn with_noise(x: Tensor, up: f64, mut noise: impl FnMut(&[usize]) -> Tensor) -> Tensor {
    if up == 0.0 {
        return x;
    }
    let fresh = noise(x.shape());
    x + fresh * up as f32
}

// %% notebooks/16_samplers.ipynb sa-anc-run
/// Euler's steps, each further down than the next level, and new noise to come up to it. `noise(shape)` draws it, of
/// variance 1.
///
/// With `eta` 0 that is Euler's method and DDIM, with 1 DDPM (Ho et al. 2020, algorithm 2, with the smaller of its two
/// variances), and in between DDIM with its eta (J. Song et al. 2021, equation 12).
pub fn euler_ancestral<E>(
    mut x: Tensor,
    sigmas: &[f64],
    eta: f64,
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
    mut noise: impl FnMut(&[usize]) -> Tensor,
) -> Result<Tensor, E> {
    for (from, to) in steps(sigmas) {
        let (down, up) = down_and_up(from, to, eta);
        let d = eps(&x, from)?;
        x = with_noise(euler_step(&x, &d, from, down), up, &mut noise);
    }
    Ok(x)
}
