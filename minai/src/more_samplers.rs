// Owned by notebooks/20_fewer_steps.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 4c7167dd2add0d4f
//! More samplers: those that lesson 16 leaves out. Each is a function of x = x₀ + σ n, the noise levels to visit, and
//! `eps(x, σ)`, as in `samplers`; those that put new noise in also get `noise(shape)`, which draws it with variance 1.

// %% notebooks/20_fewer_steps.ipynb mo-dpm2
use minai::samplers::{ahead, down_and_up, euler_step, steps, towards, weighted_sum, with_noise};
use minai::tensor::Tensor;

/// DPM-Solver-2 as k-diffusion has it (Karras et al. 2022, algorithm 2, without its noise; Lu et al. 2022a have it over
/// λ): a call in the middle of the step, and the whole step with its answer. Two calls a step, but for one to level 0.
pub fn dpm_2<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    for (from, to) in steps(sigmas) {
        let mut d = eps(&x, from)?;
        if to > 0.0 {
            let middle = (from * to).sqrt();
            d = eps(&euler_step(&x, &d, from, middle), middle)?;
        }
        x = euler_step(&x, &d, from, to);
    }
    Ok(x)
}

// %% notebooks/20_fewer_steps.ipynb mo-pndm-b
/// Adams and Bashforth's weights for equal steps, by the number of answers.
const EQUAL_STEPS: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

// %% notebooks/20_fewer_steps.ipynb mo-pndm
/// PNDM without its Runge-Kutta steps (Liu et al. 2022, equation 12), as it is published with Stable Diffusion: Euler's
/// step with a mix of the last four answers, whose weights are those for equal steps. Where there are several steps, the
/// first is Heun's, and so there is one call more than there are steps.
pub fn pndm<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let mut e = Vec::new(); // the latest first
    for (i, (from, to)) in steps(sigmas).enumerate() {
        e.insert(0, eps(&x, from)?);
        e.truncate(4);
        let d = if i == 0 && sigmas.len() > 2 {
            let there = euler_step(&x, &e[0], from, to);
            (&e[0] + eps(&there, to)?) / 2.0
        } else {
            weighted_sum(EQUAL_STEPS[e.len() - 1], &e)
        };
        x = euler_step(&x, &d, from, to);
    }
    Ok(x)
}

// %% notebooks/20_fewer_steps.ipynb mo-deis-b
/// The area from one level to another below the line over ln σ that is 1 at level b and 0 at level c.
fn under_line(b: f64, c: f64, from: f64, to: f64) -> f64 {
    let integral = |rho: f64| rho * ((rho / c).ln() - 1.0) / (b / c).ln();
    integral(to) - integral(from)
}

// %% notebooks/20_fewer_steps.ipynb mo-deis
/// DEIS of second order (Zhang and Chen 2022, equations 14 and 15, with polynomials in ln σ): a line over ln σ through the
/// last two answers, and the area below it up to the next level. One call a step.
pub fn deis<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let mut before = None;
    for (from, to) in steps(sigmas) {
        let e = eps(&x, from)?;
        x = match &before {
            Some((c, e1)) if to > 0.0 => {
                let weights = [(from, *c), (*c, from)].map(|(b, c)| under_line(b, c, from, to));
                x + &e * weights[0] as f32 + e1 * weights[1] as f32
            }
            _ => euler_step(&x, &e, from, to),
        };
        before = Some((from, e));
    }
    Ok(x)
}

// %% notebooks/20_fewer_steps.ipynb mo-unic
/// The image towards which UniPC's corrected step goes that ended at level `sigma`, where image `m` was found. The
/// weights ρ solve its equation 6 for what was `seen` at one or two levels before.
fn corrected(m: &Tensor, sigma: f64, seen: &[(f64, Tensor)]) -> Tensor {
    let (s0, m0) = &seen[0];
    let Some((s1, m1)) = seen.get(1) else {
        return (m0 + m) / 2.0;
    };
    let h = (s0 / sigma).ln();
    let r1 = (s0 / s1).ln() / h; // where the image before lies, if this step of λ goes from 0 to 1: below 0
    let b = (-h).exp_m1();
    let phi_2 = b / -h - 1.0;
    let phi_3 = phi_2 / -h - 0.5;
    let (b1, b2) = (phi_2 / b, 2.0 * phi_3 / b); // ρ₁ + ρ₂ = b₁, r₁ ρ₁ + ρ₂ = b₂
    let rho_1 = (b1 - b2) / (1.0 - r1);
    m0 + (m1 - m0) * (rho_1 / r1) as f32 + (m - m0) * (b1 - rho_1) as f32
}

// %% notebooks/20_fewer_steps.ipynb mo-unipc
/// UniPC of second order (Zhao et al. 2023, algorithms 5 and 6, with B(h) = e^h - 1): the step of DPM-Solver++(2M), which
/// is done again with the image that is found at its end. One call a step.
pub fn unipc<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
) -> Result<Tensor, E> {
    let mut seen: Vec<(f64, Tensor)> = Vec::new(); // levels and images, the latest first
    let mut start = x.clone(); // where the last step began
    for (from, to) in steps(sigmas) {
        let m = &x - eps(&x, from)? * from as f32;
        if let Some((s0, _)) = seen.first() {
            x = towards(&start, &corrected(&m, from, &seen), *s0, from);
        }
        seen.insert(0, (from, m));
        let d = match &seen[..] {
            [(_, m0), (s1, m1), ..] if to > 0.0 => ahead(m0, m1, (s1 / from).ln() / (from / to).ln()),
            _ => seen[0].1.clone(),
        };
        seen.truncate(2);
        start = x;
        x = towards(&start, &d, from, to);
    }
    Ok(x)
}

// %% notebooks/20_fewer_steps.ipynb mo-2s
/// DPM-Solver++(2S), ancestral, as k-diffusion has it (Lu et al. 2022b, algorithm 1): a call in the middle of the step,
/// over λ, and the whole step towards the image found there, further down than the next level; then new noise. Two calls
/// a step, but for one to level 0.
pub fn dpmpp_2s_ancestral<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
    mut noise: impl FnMut(&[usize]) -> Tensor,
) -> Result<Tensor, E> {
    for (from, to) in steps(sigmas) {
        let (down, up) = down_and_up(from, to, 1.0);
        let mut x0 = &x - eps(&x, from)? * from as f32;
        if to > 0.0 {
            let s = (from * down).sqrt();
            let u = towards(&x, &x0, from, s);
            x0 = &u - eps(&u, s)? * s as f32;
        }
        x = with_noise(towards(&x, &x0, from, down), up, &mut noise);
    }
    Ok(x)
}

// %% notebooks/20_fewer_steps.ipynb mo-2m-sde
/// SDE-DPM-Solver++(2M) (Lu et al. 2022b, equation 18 and algorithm 2): as DPM-Solver++(2M), but further down than the
/// next level, and then new noise. One call a step.
pub fn dpmpp_2m_sde<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
    mut noise: impl FnMut(&[usize]) -> Tensor,
) -> Result<Tensor, E> {
    let mut before = None;
    for (from, to) in steps(sigmas) {
        let (down, up) = down_and_up(from, to, 1.0);
        let x0 = &x - eps(&x, from)? * from as f32;
        let h = (from / to).ln();
        let d = match &before {
            Some((x1, h1)) if to > 0.0 => ahead(&x0, x1, h1 / h),
            _ => x0.clone(),
        };
        x = with_noise(towards(&x, &d, from, down), up, &mut noise);
        before = Some((x0, h));
    }
    Ok(x)
}

// %% notebooks/20_fewer_steps.ipynb mo-sde
/// DPM-Solver++(S) for the stochastic equation, as k-diffusion has it: DPM-Solver++(2S), where the half step gets new
/// noise as well, from the same Brownian motion as the whole. Two calls a step, but for one to level 0.
pub fn dpmpp_sde<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
    mut noise: impl FnMut(&[usize]) -> Tensor,
) -> Result<Tensor, E> {
    for (from, to) in steps(sigmas) {
        let (down, up) = down_and_up(from, to, 1.0);
        let x0 = &x - eps(&x, from)? * from as f32;
        x = if to > 0.0 {
            let s = (from * to).sqrt();
            let (down_s, up_s) = down_and_up(from, s, 1.0);
            let first = noise(x.shape());
            let u = towards(&x, &x0, from, down_s) + &first * up_s as f32;
            let x0 = &u - eps(&u, s)? * s as f32;
            let [a, b] = [from - s, s - to].map(|part| (part / (from - to)).sqrt() as f32);
            let whole = first * a + noise(x.shape()) * b;
            towards(&x, &x0, from, down) + whole * up as f32
        } else {
            x0
        };
    }
    Ok(x)
}

// %% notebooks/20_fewer_steps.ipynb mo-lcm
/// Multistep consistency sampling (Song et al. 2023, algorithm 1; Luo et al. 2023, algorithm 3), for networks that were
/// distilled for it: all the way to the image, and up to the next level with new noise. One call a step.
///
/// The published boundary conditions, c_skip and c_out, differ from 0 and 1 by less than 1e-5 at the times in use.
pub fn lcm<E>(
    mut x: Tensor,
    sigmas: &[f64],
    mut eps: impl FnMut(&Tensor, f64) -> Result<Tensor, E>,
    mut noise: impl FnMut(&[usize]) -> Tensor,
) -> Result<Tensor, E> {
    for (from, to) in steps(sigmas) {
        let x0 = &x - eps(&x, from)? * from as f32;
        x = with_noise(x0, to, &mut noise);
    }
    Ok(x)
}
