//! The transcendental functions of neural networks, a vector at a time, for use inside of other kernels' loops.
//!
//! Each is a polynomial on a short interval and a way to get there. The coefficients are least-maximum fits (Lawson's
//! iteration on Chebyshev nodes); a test measures each function against the same one in double precision.
use super::simd::Simd;

/// Loops over `len` floats vector by vector: the body runs with the index of the first float and how many there are
/// from there, `LANES` but for the last. Load and store with [`load`] and [`store`].
macro_rules! by_vectors {
    ($set:ident, $len:expr, |$i:ident, $n:ident| $body:block) => {{
        let len: usize = $len;
        let whole = len - len % $set::LANES;
        let mut $i = 0;
        while $i < whole {
            let $n = $set::LANES;
            $body
            $i += $set::LANES;
        }
        if $i < len {
            let $n = len - $i;
            $body
        }
    }};
}
pub(super) use by_vectors;

/// The same by whole vectors where there is one, of which the last overlaps the one before: for bodies that may write a
/// result twice.
macro_rules! by_overlapping {
    ($set:ident, $len:expr, |$i:ident, $n:ident| $body:expr) => {{
        let len: usize = $len;
        let $n = len.min($set::LANES);
        let mut $i = 0;
        while $i + $n < len {
            $body;
            $i += $n;
        }
        if len > 0 {
            $i = len - $n;
            $body;
        }
    }};
}
pub(super) use by_overlapping;

/// The first `n <= LANES` floats at `p`, then zeros.
///
/// # Safety
/// As for [`Simd::load`], with `n` floats.
#[inline(always)]
pub unsafe fn load<S: Simd>(p: *const f32, n: usize) -> S::V {
    // SAFETY: the caller promises n floats.
    unsafe { if n == S::LANES { S::load(p) } else { S::load_part(p, n) } }
}

/// Stores the first `n <= LANES` floats at `p`.
///
/// # Safety
/// As for [`Simd::store`], with `n` floats.
#[inline(always)]
pub unsafe fn store<S: Simd>(p: *mut f32, n: usize, v: S::V) {
    // SAFETY: the caller promises n floats.
    unsafe { if n == S::LANES { S::store(p, v) } else { S::store_part(p, n, v) } }
}

/// The first `n <= LANES` floats of `v`, then zeros.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn keep_first<S: Simd>(v: S::V, n: usize) -> S::V {
    if n == S::LANES {
        return v;
    }
    let mut floats = [0.0; 16];
    // SAFETY: no set has more than 16 lanes.
    unsafe {
        S::store_part(floats.as_mut_ptr(), n, v);
        S::load(floats.as_ptr())
    }
}

/// c₀ + c₁x + c₂x² + …
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn polynomial<S: Simd, const TERMS: usize>(x: S::V, c: [f32; TERMS]) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let mut sum = S::splat(c[TERMS - 1]);
        for i in (0..TERMS - 1).rev() {
            sum = S::fma(sum, x, S::splat(c[i]));
        }
        sum
    }
}

/// |x|.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn abs<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe { S::max(S::sub(S::splat(0.0), x), x) }
}

/// e^r = 1 + r + r² (c₀ + c₁r + …) for |r| ≤ ln 2 / 2.
pub(super) const EXP_TERMS: [f32; 5] = [0.5, 0.166_665_2, 0.041_666_206, 0.008_368_882, 0.001_395_047_8];
/// tanh x = x + x³ (c₀ + c₁x² + …) for |x| ≤ 0.55.
pub(super) const TANH_TERMS: [f32; 4] = [-0.333_329_6, 0.133_209_42, -0.052_684_143, 0.016_458_76];

/// e^x, within 2 ulp; underflow goes through subnormals to 0, overflow to infinity.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        // Outside of these limits the result is infinity or 0 anyway, and n stays in scale2's range. NaN passes.
        let x = S::min(S::splat(100.0), S::max(S::splat(-110.0), x));
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        // r = x - n ln 2, with ln 2 in two parts of which the first has so few bits that n times it is exact.
        let r = S::fnma(n, S::splat(0.693_359_4), x);
        let r = S::fnma(n, S::splat(-2.121_944_4e-4), r);
        let q = polynomial::<S, 5>(r, EXP_TERMS);
        let tail = S::fma(S::mul(r, r), q, r);
        S::scale2(S::add(S::splat(1.0), tail), n)
    }
}

/// 2^x for x ≤ 127, with a relative error below 3e-7: as few instructions as that takes. 2^-∞ is 0.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn exp2_fast<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let (n, f) = S::split(x);
        let c = [1.0, 0.693_151_3, 0.240_164_45, 0.055_799_916, 0.009_017_028, 0.001_867_131];
        S::scale2(polynomial::<S, 6>(f, c), n)
    }
}

/// tanh x, within 3 ulp.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let (size, one) = (abs::<S>(x), S::splat(1.0));
        // Far from 0: 1 - 2 / (e^2|x| + 1), with x's sign. Near 0 that loses digits: x + x³ p(x²).
        let e = exp::<S>(S::add(size, size));
        let far = S::sub(one, S::div(S::splat(2.0), S::add(e, one)));
        let far = S::select_gt(S::splat(0.0), x, S::sub(S::splat(0.0), far), far);
        let square = S::mul(x, x);
        let p = polynomial::<S, 4>(square, TANH_TERMS);
        let near = S::fma(S::mul(x, square), p, x);
        S::select_gt(size, S::splat(0.55), far, near)
    }
}

/// The logistic function 1 / (1 + e^-x), within 3 ulp where it is not subnormal.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
    }
}

/// The complementary error function of z ≥ 0, relative error below 1e-6 where that of e^-z² allows it.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
unsafe fn erfc_positive<S: Simd>(z: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        // e^z² erfc z is smooth in t = 1 / (1 + 0.4 z), which takes all z ≥ 0 to a short interval.
        let one = S::splat(1.0);
        let t = S::div(one, S::fma(S::splat(0.4), z, one));
        let c = [
            0.225_705_56,
            0.224_978_3,
            0.214_700_53,
            0.130_700_13,
            0.269_113_06,
            -0.278_863_6,
            0.540_818_06,
            -0.493_849_22,
            0.195_903_02,
            -0.029_205_818,
        ];
        let scaled = S::mul(t, polynomial::<S, 10>(t, c));
        S::mul(scaled, exp::<S>(S::sub(S::splat(0.0), S::mul(z, z))))
    }
}

/// The error function, within 1e-7 and near 0 within 3 ulp.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn erf<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let size = abs::<S>(x);
        let far = S::sub(S::splat(1.0), erfc_positive::<S>(size));
        let far = S::select_gt(S::splat(0.0), x, S::sub(S::splat(0.0), far), far);
        let c = [
            std::f32::consts::FRAC_2_SQRT_PI,
            -0.376_126_26,
            0.112_836,
            -0.026_854_444,
            0.005_189_535_5,
            -8.020_842e-4,
            7.889_123e-5,
        ];
        let near = S::mul(x, polynomial::<S, 7>(S::mul(x, x), c));
        S::select_gt(size, S::splat(1.0), far, near)
    }
}

/// Φ(x), the probability that a standard normal number is less than x: (1 + erf(x / √2)) / 2, without the cancellation
/// for negative x.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn normal_cdf<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let z = S::mul(abs::<S>(x), S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let tail = S::mul(S::splat(0.5), erfc_positive::<S>(z));
        S::select_gt(S::splat(0.0), x, tail, S::sub(S::splat(1.0), tail))
    }
}

/// ln(1 + u) for u from 0 to 1, within 3 ulp.
///
/// # Safety
/// The machine must have the instruction set.
#[inline(always)]
pub unsafe fn ln_1p_unit<S: Simd>(u: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        // 2 artanh(u / (2 + u)), whose argument is at most 1/3.
        let s = S::div(u, S::add(S::splat(2.0), u));
        let square = S::mul(s, s);
        let p = polynomial::<S, 4>(square, [0.333_332_07, 0.200_108_5, 0.139_995_7, 0.140_122_3]);
        let half = S::fma(S::mul(s, square), p, s);
        S::add(half, half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::{Work, dispatch_at, levels};

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Function {
        Exp,
        Exp2Fast,
        Tanh,
        Sigmoid,
        Erf,
        NormalCdf,
        Ln1p,
    }
    use Function::*;

    struct Map<'a>(Function, &'a [f32]);

    impl Work for Map<'_> {
        type Out = Vec<f32>;

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> Vec<f32> {
            let (x, mut y) = (self.1, vec![0.0; self.1.len()]);
            // SAFETY: i + n is at most the length of both.
            unsafe {
                by_vectors!(S, x.len(), |i, n| {
                    let v = load::<S>(x.as_ptr().add(i), n);
                    let v = match self.0 {
                        Exp => exp::<S>(v),
                        Exp2Fast => exp2_fast::<S>(v),
                        Tanh => tanh::<S>(v),
                        Sigmoid => sigmoid::<S>(v),
                        Erf => erf::<S>(v),
                        NormalCdf => normal_cdf::<S>(v),
                        Ln1p => ln_1p_unit::<S>(v),
                    };
                    store::<S>(y.as_mut_ptr().add(i), n, v);
                });
            }
            y
        }
    }

    /// erf in double precision: its Taylor series, which for |x| < 4 loses fewer digits than a float has too many.
    fn erf_f64(x: f64) -> f64 {
        if x.abs() >= 4.0 {
            return x.signum() * (1.0 - erfc_f64(x.abs()));
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= -x * x / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    }

    /// erfc for z ≥ 1 by its continued fraction.
    fn erfc_f64(z: f64) -> f64 {
        let tail = (1..400).rev().fold(z, |tail, n| z + n as f64 / 2.0 / tail);
        (-z * z).exp() / tail / std::f64::consts::PI.sqrt()
    }

    fn oracle(f: Function, x: f64) -> f64 {
        match f {
            Exp => x.exp(),
            Exp2Fast => x.exp2(),
            Tanh => x.tanh(),
            Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Erf => erf_f64(x),
            NormalCdf if x < -1.5 => erfc_f64(-x / 2f64.sqrt()) / 2.0,
            NormalCdf => (1.0 + erf_f64(x / 2f64.sqrt())) / 2.0,
            Ln1p => x.ln_1p(),
        }
    }

    #[test]
    fn functions_are_as_exact_as_they_say() {
        let steps = if cfg!(miri) { 50 } else { 200_003 };
        // Relative error in units of 2^-23: one ulp is from half of that to all of it.
        let table = [
            (Exp, -87.3, 88.7, 1.5),
            (Exp2Fast, -125.0, 127.0, 2.5),
            (Tanh, -10.0, 10.0, 2.5),
            (Sigmoid, -87.0, 87.0, 2.5),
            (Erf, -6.0, 6.0, 2.0),
            (NormalCdf, -5.0, 9.0, 16.0),
            (NormalCdf, -13.0, 9.0, 200.0),
            (Ln1p, 0.0, 1.0, 2.0),
        ];
        for level in levels() {
            for (f, from, to, ulps) in table {
                let x: Vec<f32> = (0..steps)
                    .map(|i| from + (to - from) * i as f32 / (steps - 1) as f32)
                    .chain([1e-3, 1e-10, 1e-30].into_iter().filter(|x| (from..to).contains(x)))
                    .collect();
                let (mut worst, mut at) = (0.0, 0.0);
                for (&x, y) in x.iter().zip(dispatch_at(level, Map(f, &x))) {
                    let exact = oracle(f, x as f64);
                    let error = (y as f64 - exact).abs() / exact.abs().max(1e-300) * 2f64.powi(23);
                    if error > worst {
                        (worst, at) = (error, x);
                    }
                }
                println!("{level:?} {f:?}: {worst:.2} units of 2^-23 at {at}");
                assert!(worst <= ulps, "{level:?} {f:?}: {worst} units at {at}");
            }
        }
    }

    #[test]
    fn limits_are_those_of_std() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = [inf, -inf, 0.0, 104.0, 88.8, -104.5, -100.0, -95.0, -1e30, 1e30];
        for level in levels() {
            for (x, y) in x.iter().zip(dispatch_at(level, Map(Exp, &x))) {
                let exact = x.exp();
                let close = (y - exact).abs() <= exact * 1e-6 + 1.5e-45;
                assert!(y == exact || close, "{level:?}: exp({x}) = {y}, not {exact}");
            }
            for f in [Exp, Exp2Fast, Tanh, Sigmoid, Erf, NormalCdf, Ln1p] {
                assert!(dispatch_at(level, Map(f, &[nan; 3])).iter().all(|y| y.is_nan()), "{level:?} {f:?}");
            }
            assert_eq!(dispatch_at(level, Map(Tanh, &[inf, -inf])), [1.0, -1.0]);
            assert_eq!(dispatch_at(level, Map(Sigmoid, &[inf, -inf])), [1.0, 0.0]);
            assert_eq!(dispatch_at(level, Map(Erf, &[inf, -inf])), [1.0, -1.0]);
            assert_eq!(dispatch_at(level, Map(NormalCdf, &[inf, -inf])), [1.0, 0.0]);
            let powers = dispatch_at(level, Map(Exp2Fast, &[-inf, 0.0, -2.0, 3.0]));
            assert_eq!(powers[..3], [0.0, 1.0, 0.25], "{level:?}");
            assert!((powers[3] - 8.0).abs() < 2e-6, "{level:?}: {}", powers[3]);
        }
    }
}
