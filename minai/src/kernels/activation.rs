//! Activation functions, number by number, and their derivatives.

use super::math::{by_vectors, exp, ln_1p_unit, load, normal_cdf, sigmoid, store, tanh};
use super::memory::{Blank, filled};
use super::simd::{Level, Simd, Work, dispatch_at, level};
use super::threads::for_each_chunk;

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// max(x, 0)
    Relu,
    /// x, or the given slope times x where x < 0
    LeakyRelu(f32),
    /// x σ(x)
    Silu,
    /// x Φ(x), with the distribution function Φ of the normal distribution
    Gelu,
    /// x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2: GELU by an approximation
    GeluTanh,
    /// x σ(1.702 x): GELU by a coarser one
    QuickGelu,
    /// σ(x) = 1 / (1 + e^-x)
    Sigmoid,
    /// The hyperbolic tangent
    Tanh,
    /// ln(1 + eˣ)
    Softplus,
    /// eˣ
    Exp,
}
use Activation::*;

/// Which of its two ends [`backward`] wants to see of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// What went in.
    Input,
    /// What came out.
    Output,
}

impl Activation {
    /// Which end [`backward`] wants.
    pub fn keeps(self) -> Keeps {
        if matches!(self, Relu | Sigmoid | Tanh | Exp) { Keeps::Output } else { Keeps::Input }
    }

    /// The function spelled out, and its derivative.
    pub fn naive(self, x: f64) -> (f64, f64) {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        match self {
            Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
            LeakyRelu(slope) if x <= 0.0 => (x * slope as f64, slope as f64),
            LeakyRelu(_) => (x, 1.0),
            Silu => (x * sigmoid(x), sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x)))),
            QuickGelu => {
                let s = sigmoid(1.702 * x);
                (x * s, s * (1.0 + 1.702 * x * (1.0 - s)))
            }
            Gelu => {
                let (cdf, density) =
                    (normal_cdf_naive(x), (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt());
                (x * cdf, cdf + x * density)
            }
            GeluTanh => {
                let c = std::f64::consts::FRAC_2_PI.sqrt();
                let t = (c * (x + 0.044715 * x.powi(3))).tanh();
                let inner = c * (1.0 + 3.0 * 0.044715 * x * x);
                (x * (1.0 + t) / 2.0, (1.0 + t) / 2.0 + x / 2.0 * (1.0 - t * t) * inner)
            }
            Sigmoid => (sigmoid(x), sigmoid(x) * (1.0 - sigmoid(x))),
            Tanh => (x.tanh(), 1.0 - x.tanh().powi(2)),
            Softplus => (x.max(0.0) + (-x.abs()).exp().ln_1p(), sigmoid(x)),
            Exp => (x.exp(), x.exp()),
        }
    }
}

/// Φ by Simpson's rule, from where it is 0 in double precision.
fn normal_cdf_naive(x: f64) -> f64 {
    let density = |x: f64| (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt();
    let (from, steps) = (-9.0, 2000);
    let h = (x.min(9.0) - from) / steps as f64;
    let weight = |i| {
        if i == 0 || i == steps {
            1.0
        } else if i % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    (0..=steps).map(|i| weight(i) * density(from + i as f64 * h)).sum::<f64>() * h / 3.0
}

/// f(x) of each number of `x`.
pub fn forward(f: Activation, x: &[f32]) -> Vec<f32> {
    // SAFETY: all numbers are written.
    unsafe { filled(x.len(), |y| forward_at(level(), f, x, y)) }
}

fn forward_at(level: Level, f: Activation, x: &[f32], y: &mut [Blank]) {
    assert_eq!(x.len(), y.len(), "{f:?}: input and output");
    for_each_chunk(y, CHUNK, |i, y| dispatch_at(level, Forward { f, x: &x[i * CHUNK..][..y.len()], y }));
}

/// Multiplies the gradient `g` by f'(x), given x or f(x): `kept` is the end that [`Activation::keeps`] names. As in PyTorch,
/// the derivative of relu at 0 is 0.
///
/// # Panics
/// If the lengths differ.
pub fn backward(f: Activation, kept: &[f32], g: &mut [f32]) {
    backward_at(level(), f, kept, g);
}

fn backward_at(level: Level, f: Activation, kept: &[f32], g: &mut [f32]) {
    assert_eq!(kept.len(), g.len(), "{f:?} backward: input and gradient");
    for_each_chunk(g, CHUNK, |i, g| {
        dispatch_at(level, Backward { f, kept: &kept[i * CHUNK..][..g.len()], g })
    });
}

/// What makes a task: less is not worth a thread.
const CHUNK: usize = 1 << 14;

struct Forward<'a> {
    f: Activation,
    x: &'a [f32],
    y: &'a mut [Blank],
}

impl Work for Forward<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, x, y) = (self.x.len(), self.x.as_ptr(), self.y.as_mut_ptr().cast::<f32>());
        macro_rules! map {
            (|$x:ident| $value:expr) => {
                by_vectors!(S, n, |i, k| {
                    let $x = load::<S>(x.add(i), k);
                    store::<S>(y.add(i), k, $value);
                })
            };
        }
        // SAFETY: both have n floats.
        unsafe {
            let (zero, one) = (S::splat(0.0), S::splat(1.0));
            match self.f {
                Relu => map!(|x| S::max(zero, x)),
                LeakyRelu(slope) => {
                    let slope = S::splat(slope);
                    map!(|x| S::select_gt(x, zero, x, S::mul(x, slope)))
                }
                Silu => map!(|x| S::div(x, S::add(one, exp::<S>(S::sub(zero, x))))),
                QuickGelu => map!(|x| S::div(x, S::add(one, exp::<S>(S::mul(S::splat(-1.702), x))))),
                Gelu => map!(|x| S::mul(x, normal_cdf::<S>(x))),
                GeluTanh => map!(|x| S::mul(x, gelu_tanh_factor::<S>(x))),
                Sigmoid => map!(|x| sigmoid::<S>(x)),
                Tanh => map!(|x| tanh::<S>(x)),
                Softplus => map!(|x| {
                    let log = ln_1p_unit::<S>(exp::<S>(S::min(x, S::sub(zero, x))));
                    S::add(S::max(zero, x), log)
                }),
                Exp => map!(|x| exp::<S>(x)),
            }
        }
    }
}

/// (1 + tanh u) / 2 = σ(2u), for GELU's u.
#[inline(always)]
unsafe fn gelu_tanh_factor<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let inner = S::fma(S::splat(0.044_715), S::mul(x, x), S::splat(1.0));
        sigmoid::<S>(S::mul(S::splat(2.0 * SQRT_2_OVER_PI), S::mul(x, inner)))
    }
}

const SQRT_2_OVER_PI: f32 = 0.797_884_6;

struct Backward<'a> {
    f: Activation,
    kept: &'a [f32],
    g: &'a mut [f32],
}

impl Work for Backward<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, kept, g) = (self.kept.len(), self.kept.as_ptr(), self.g.as_mut_ptr());
        macro_rules! map {
            (|$kept:ident, $g:ident| $value:expr) => {
                by_vectors!(S, n, |i, k| {
                    let ($kept, $g) = (load::<S>(kept.add(i), k), load::<S>(g.add(i), k));
                    store::<S>(g.add(i), k, $value);
                })
            };
        }
        // SAFETY: both have n floats.
        unsafe {
            let (zero, one) = (S::splat(0.0), S::splat(1.0));
            match self.f {
                // Not y > 0: where y is NaN, g passes.
                Relu => map!(|y, g| S::select_gt(S::splat(f32::from_bits(1)), y, zero, g)),
                LeakyRelu(slope) => {
                    let slope = S::splat(slope);
                    map!(|x, g| S::select_gt(x, zero, g, S::mul(g, slope)))
                }
                Silu => map!(|x, g| S::mul(g, silu_slope::<S>(x, x))),
                QuickGelu => map!(|x, g| {
                    let u = S::mul(S::splat(1.702), x);
                    S::mul(g, silu_slope::<S>(u, u))
                }),
                Gelu => map!(|x, g| {
                    let density = exp::<S>(S::mul(S::splat(-0.5), S::mul(x, x)));
                    let density = S::mul(S::splat(0.398_942_3), density);
                    S::mul(g, S::fma(x, density, normal_cdf::<S>(x)))
                }),
                GeluTanh => map!(|x, g| {
                    // x σ(2u) has the derivative σ (1 + 2u'x (1 - σ)).
                    let (s, square) = (gelu_tanh_factor::<S>(x), S::mul(x, x));
                    let inner = S::fma(S::splat(3.0 * 0.044_715), square, one);
                    let v = S::mul(S::splat(2.0 * SQRT_2_OVER_PI), S::mul(x, inner));
                    S::mul(g, S::mul(s, S::fma(v, S::sub(one, s), one)))
                }),
                Sigmoid => map!(|y, g| S::mul(g, S::mul(y, S::sub(one, y)))),
                Tanh => map!(|y, g| S::mul(g, S::fnma(y, y, one))),
                Softplus => map!(|x, g| S::mul(g, sigmoid::<S>(x))),
                Exp => map!(|y, g| S::mul(g, y)),
            }
        }
    }
}

/// σ(u) (1 + v (1 - σ(u))).
#[inline(always)]
unsafe fn silu_slope<S: Simd>(u: S::V, v: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let (one, s) = (S::splat(1.0), sigmoid::<S>(u));
        S::mul(s, S::fma(v, S::sub(one, s), one))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::checks::{assert_close, numbers, same_bits, written_by};
    use crate::kernels::simd::levels;

    const ALL: [Activation; 11] = [
        Relu,
        LeakyRelu(0.1),
        LeakyRelu(-0.5),
        Silu,
        Gelu,
        GeluTanh,
        QuickGelu,
        Sigmoid,
        Tanh,
        Softplus,
        Exp,
    ];

    fn both(level: Level, f: Activation, x: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (y, mut dx) = (written_by(x.len(), |y| forward_at(level, f, x, y)), g.to_vec());
        backward_at(level, f, if f.keeps() == Keeps::Input { x } else { &y }, &mut dx);
        (y, dx)
    }

    #[test]
    fn values_and_gradients_are_the_naive_ones() {
        for n in [0, 1, 7, 16, 33, if cfg!(miri) { 50 } else { 20_000 }] {
            for scale in [1.0, 12.0] {
                let (x, g) = (numbers(n, scale), numbers(n + 1, 1.0).split_off(1));
                for f in ALL {
                    let naive = |i: usize| f.naive(x[i] as f64);
                    let values: Vec<f32> = (0..n).map(|i| naive(i).0 as f32).collect();
                    let slopes = (0..n).map(|i| (naive(i).1 * g[i] as f64) as f32);
                    let slopes: Vec<f32> = slopes.chain([1.0]).collect();
                    for level in levels() {
                        let (y, mut dx) = both(level, f, &x, &g);
                        // Of 1 at least, that is: for y near 1, 1 - y has few digits.
                        dx.push(1.0);
                        assert_close(&format!("{level:?} {f:?} {n}"), &y, &values, 1e-6);
                        assert_close(&format!("{level:?} {f:?} {n} backward"), &dx, &slopes, 2e-6);
                    }
                }
            }
        }
    }

    #[test]
    fn limits_are_pytorchs() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        // What PyTorch 2.15 gives at ∞, -∞ and NaN (but that its gelu makes NaN of ∞), and the derivatives at 0 and NaN.
        let expected = [
            (Relu, [inf, 0.0]),
            (LeakyRelu(0.1), [inf, -inf]),
            (Silu, [inf, nan]),
            (Gelu, [inf, nan]),
            (Sigmoid, [1.0, 0.0]),
            (Tanh, [1.0, -1.0]),
            (Softplus, [inf, 0.0]),
            (Exp, [inf, 0.0]),
        ];
        for level in levels() {
            for (f, [above, below]) in expected {
                let (y, _) = both(level, f, &[inf, -inf, nan], &[1.0; 3]);
                let same = |a: f32, b: f32| a == b || a.is_nan() && b.is_nan();
                assert!(same(y[0], above) && same(y[1], below) && y[2].is_nan(), "{level:?} {f:?}: {y:?}");
            }
            let (_, dx) = both(level, Relu, &[0.0, -0.0, nan, 1e-40], &[3.0; 4]);
            assert_eq!(dx, [0.0, 0.0, 3.0, 3.0], "{level:?}");
            let (_, dx) = both(level, LeakyRelu(0.5), &[0.0, nan, -1.0, 1.0], &[3.0; 4]);
            assert_eq!(dx, [1.5, 1.5, 1.5, 3.0], "{level:?}");
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let x = numbers(100_001, 4.0);
        same_bits(|| {
            let (y, mut g) = (forward(Gelu, &x), x.clone());
            backward(Gelu, &x, &mut g);
            [y, g].concat()
        });
    }
}
