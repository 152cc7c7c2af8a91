//! One step of an optimiser, in place: what changes parameters, and remembers something for the next step.

use super::math::{by_vectors, load, store};
use super::simd::{Level, Simd, Work, dispatch_at, level};
use super::threads::{Parts, for_each};

/// A step of stochastic gradient descent, as `torch.optim.SGD`: g ← g + weight_decay · p, v ← momentum · v + g,
/// p ← p - lr · v. The velocity `v` begins as zeros; without momentum it may be empty.
///
/// # Panics
/// If lengths differ.
pub fn sgd(p: &mut [f32], g: &[f32], v: &mut [f32], [lr, momentum, weight_decay]: [f32; 3]) {
    if momentum == 0.0 {
        update_at(level(), Rule::Plain, [lr, weight_decay, 0.0, 0.0, 0.0], p, g, [&mut [], &mut []]);
    } else {
        update_at(level(), Rule::Momentum, [lr, weight_decay, momentum, 0.0, 0.0], p, g, [v, &mut []]);
    }
}

/// A step of RMSProp, as `torch.optim.RMSprop`: v ← alpha · v + (1 - alpha) g², p ← p - lr · g / (√v + eps). The mean of
/// squares `v` begins as zeros.
///
/// # Panics
/// If lengths differ.
pub fn rms_prop(p: &mut [f32], g: &[f32], v: &mut [f32], [lr, alpha, eps]: [f32; 3]) {
    update_at(level(), Rule::RmsProp, [lr, alpha, 1.0 - alpha, eps, 0.0], p, g, [v, &mut []]);
}

/// What weight decay acts on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decay {
    /// As an L2 penalty: g ← g + weight_decay · p (`torch.optim.Adam`).
    Gradient(f32),
    /// Apart from the gradient: p ← p (1 - lr · weight_decay) (Loshchilov and Hutter 2017, `torch.optim.AdamW`).
    Parameters(f32),
}

/// A step of Adam (Kingma and Ba 2014) after the weight decay: m ← beta1 · m + (1 - beta1) g,
/// v ← beta2 · v + (1 - beta2) g², p ← p - lr · m̂ / (√v̂ + eps), where m̂ = m / (1 - beta1ᵗ) and v̂ = v / (1 - beta2ᵗ) in
/// step t = 1, 2, …. The means `m` and `v` begin as zeros.
///
/// # Panics
/// If lengths differ, or `t` is 0.
pub fn adam(
    t: u32,
    p: &mut [f32],
    g: &[f32],
    means: [&mut [f32]; 2],
    [lr, eps]: [f32; 2],
    [beta1, beta2]: [f32; 2],
    decay: Decay,
) {
    assert!(t > 0, "adam: the first step is number 1");
    // p - lr m̂ / (√v̂ + eps) = p - rate · m / (√v · root + eps)
    let correction = |beta: f32| 1.0 - (beta as f64).powi(t as i32);
    let rate = lr as f64 / correction(beta1);
    let root = 1.0 / correction(beta2).sqrt();
    let (l2, keep) = match decay {
        Decay::Gradient(weight_decay) => (weight_decay, 1.0),
        Decay::Parameters(weight_decay) => (0.0, 1.0 - lr * weight_decay),
    };
    update_at(level(), Rule::Adam { l2, keep }, [rate as f32, root as f32, beta1, beta2, eps], p, g, means);
}

#[derive(Clone, Copy, Debug)]
enum Rule {
    Plain,
    Momentum,
    RmsProp,
    Adam { l2: f32, keep: f32 },
}

/// Cuts all lists the same way, and updates the parts.
fn update_at(level: Level, rule: Rule, numbers: [f32; 5], p: &mut [f32], g: &[f32], state: [&mut [f32]; 2]) {
    let used = match rule {
        Rule::Plain => 0,
        Rule::Momentum | Rule::RmsProp => 1,
        Rule::Adam { .. } => 2,
    };
    assert_eq!(p.len(), g.len(), "optimiser: parameters and gradient");
    let n = p.len();
    for state in &state[..used] {
        assert_eq!(state.len(), n, "optimiser: parameters and state");
    }
    let (p, state) = (Parts::new(p), state.map(Parts::new));
    for_each(n.div_ceil(CHUNK), |i| {
        let (start, len) = (i * CHUNK, CHUNK.min(n - i * CHUNK));
        // SAFETY: the parts are one task's. A state that is not used has no elements.
        let (p, state) = unsafe {
            let part = |i: usize| if i < used { state[i].slice(start, len) } else { state[i].slice(0, 0) };
            (p.slice(start, len), [part(0), part(1)])
        };
        dispatch_at(level, Update { rule, numbers, p, g: &g[start..start + len], state });
    });
}

const CHUNK: usize = 1 << 14;

struct Update<'a> {
    rule: Rule,
    numbers: [f32; 5],
    p: &'a mut [f32],
    g: &'a [f32],
    state: [&'a mut [f32]; 2],
}

impl Work for Update<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, p, g) = (self.p.len(), self.p.as_mut_ptr(), self.g.as_ptr());
        let [m, v] = self.state.map(|state| state.as_mut_ptr());
        // SAFETY: all lists that the rule uses have n floats.
        unsafe {
            let [a, b, c, d, e] = self.numbers.map(|x| S::splat(x));
            match self.rule {
                Rule::Plain => by_vectors!(S, n, |i, k| {
                    let pi = load::<S>(p.add(i), k);
                    let gi = S::fma(b, pi, load::<S>(g.add(i), k));
                    store::<S>(p.add(i), k, S::fnma(a, gi, pi));
                }),
                Rule::Momentum => by_vectors!(S, n, |i, k| {
                    let pi = load::<S>(p.add(i), k);
                    let gi = S::fma(b, pi, load::<S>(g.add(i), k));
                    let velocity = S::fma(c, load::<S>(m.add(i), k), gi);
                    store::<S>(m.add(i), k, velocity);
                    store::<S>(p.add(i), k, S::fnma(a, velocity, pi));
                }),
                Rule::RmsProp => by_vectors!(S, n, |i, k| {
                    let gi = load::<S>(g.add(i), k);
                    let square = S::fma(S::mul(c, gi), gi, S::mul(b, load::<S>(m.add(i), k)));
                    store::<S>(m.add(i), k, square);
                    let change = S::div(gi, S::add(S::sqrt(square), d));
                    store::<S>(p.add(i), k, S::fnma(a, change, load::<S>(p.add(i), k)));
                }),
                Rule::Adam { l2, keep } => {
                    let [l2, keep] = [l2, keep].map(|x| S::splat(x));
                    let [rest1, rest2] = [self.numbers[2], self.numbers[3]].map(|beta| S::splat(1.0 - beta));
                    by_vectors!(S, n, |i, k| {
                        let pi = load::<S>(p.add(i), k);
                        let gi = S::fma(l2, pi, load::<S>(g.add(i), k));
                        let mean = S::fma(rest1, gi, S::mul(c, load::<S>(m.add(i), k)));
                        let square = S::fma(S::mul(rest2, gi), gi, S::mul(d, load::<S>(v.add(i), k)));
                        store::<S>(m.add(i), k, mean);
                        store::<S>(v.add(i), k, square);
                        let change = S::div(mean, S::fma(S::sqrt(square), b, e));
                        store::<S>(p.add(i), k, S::fnma(a, change, S::mul(pi, keep)));
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::checks::{assert_close, numbers, same_bits};
    use crate::kernels::simd::levels;

    const RATES: [f32; 2] = [0.01, 1e-8];
    const BETAS: [f32; 2] = [0.9, 0.99];

    /// Adam as its text says, in double precision.
    fn adam_naive(decay: Decay, steps: u32, p: &mut [f64], g: &[f32]) {
        let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
        let ([lr, eps], [b1, b2]) = (RATES.map(f64::from), BETAS.map(f64::from));
        for t in 1..=steps as i32 {
            for i in 0..p.len() {
                let mut g = g[i] as f64 * t as f64;
                match decay {
                    Decay::Gradient(decay) => g += f64::from(decay) * p[i],
                    Decay::Parameters(decay) => p[i] *= 1.0 - lr * f64::from(decay),
                }
                m[i] = b1 * m[i] + (1.0 - b1) * g;
                v[i] = b2 * v[i] + (1.0 - b2) * g * g;
                let (m_hat, v_hat): (f64, f64) = (m[i] / (1.0 - b1.powi(t)), v[i] / (1.0 - b2.powi(t)));
                p[i] -= lr * m_hat / (v_hat.sqrt() + eps);
            }
        }
    }

    #[test]
    fn adam_is_the_naive_one() {
        for decay in [Decay::Gradient(0.1), Decay::Parameters(0.1), Decay::Gradient(0.0)] {
            for n in [1, 5, 16, 40, 20_000] {
                let (start, g) = (numbers(n, 1.0), numbers(n + 1, 1.0).split_off(1));
                let mut p = start.clone();
                let [mut m, mut v] = [vec![0.0; n], vec![0.0; n]];
                for t in 1..=5 {
                    let g: Vec<f32> = g.iter().map(|g| g * t as f32).collect();
                    adam(t, &mut p, &g, [&mut m, &mut v], RATES, BETAS, decay);
                }
                let mut expected: Vec<f64> = start.iter().map(|&p| p as f64).collect();
                adam_naive(decay, 5, &mut expected, &g);
                assert_close("adam", &p, &expected.iter().map(|&p| p as f32).collect::<Vec<_>>(), 1e-6);
            }
        }
    }

    #[test]
    fn every_level_takes_the_same_step() {
        let (start, g) = (numbers(37, 1.0), numbers(38, 1.0).split_off(1));
        let rules = [
            (Rule::Plain, [0.1, 0.01, 0.0, 0.0, 0.0]),
            (Rule::Momentum, [0.1, 0.01, 0.9, 0.0, 0.0]),
            (Rule::RmsProp, [0.1, 0.9, 0.1, 1e-8, 0.0]),
        ];
        for (rule, numbers @ [lr, second, third, eps, _]) in rules {
            let mut expected = (start.clone(), vec![0.0; 37]);
            for i in (0..37).cycle().take(2 * 37) {
                let (p, v) = (&mut expected.0[i], &mut expected.1[i]);
                match rule {
                    Rule::RmsProp => {
                        *v = second * *v + third * g[i] * g[i];
                        *p -= lr * g[i] / (v.sqrt() + eps);
                    }
                    _ => {
                        *v = third * *v + g[i] + second * *p;
                        *p -= lr * *v;
                    }
                }
            }
            for level in levels() {
                let (mut p, mut v) = (start.clone(), vec![0.0; 37]);
                for _ in 0..2 {
                    update_at(level, rule, numbers, &mut p, &g, [&mut v, &mut []]);
                }
                assert_close(&format!("{level:?} {rule:?}"), &p, &expected.0, 1e-6);
            }
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (start, g) = (numbers(50_000, 1.0), numbers(50_001, 1.0).split_off(1));
        same_bits(|| {
            let [mut p, mut m, mut v] = [start.clone(), vec![0.0; 50_000], vec![0.0; 50_000]];
            adam(1, &mut p, &g, [&mut m, &mut v], RATES, BETAS, Decay::Parameters(0.1));
            sgd(&mut p, &g, &mut m, [0.1, 0.9, 0.0]);
            sgd(&mut p, &g, &mut [], [0.1, 0.0, 0.1]);
            [p, m, v].concat()
        });
    }
}
