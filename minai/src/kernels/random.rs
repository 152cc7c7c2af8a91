//! From numbers in [0, 1) to those of other distributions, many at a time.

use super::simd::{Level, Simd, Work, dispatch_at, level};
use std::f32::consts::{FRAC_2_PI, LN_2, SQRT_2};

/// Turns numbers in [0, 1) to numbers in [from, to): u (to - from) + from, rounded once.
pub fn scale(numbers: &mut [f32], from: f32, to: f32) {
    dispatch_at(level(), Scale { numbers, from, width: to - from });
}

struct Scale<'a> {
    numbers: &'a mut [f32],
    from: f32,
    width: f32,
}

impl Work for Scale<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for u in self.numbers.iter_mut() {
            *u = u.mul_add(self.width, self.from); // exact everywhere; one instruction where the machine has it
        }
    }
}

/// Turns numbers in [0, 1) to normal ones, with given mean and standard deviation, in blocks of 16: the first eight are
/// radii, the last eight angles (Box and Muller 1958). The logarithm is within 2 ulp, sine and cosine are within 1.2e-7 of
/// those of the angle 2πu, rounded to a float as in PyTorch.
///
/// # Panics
/// If there are numbers left behind the last block.
pub fn box_muller(numbers: &mut [f32], mean: f32, std: f32) {
    box_muller_at(level(), numbers, mean, std);
}

fn box_muller_at(level: Level, numbers: &mut [f32], mean: f32, std: f32) {
    let (blocks, []) = numbers.as_chunks_mut() else {
        panic!("box_muller: {} numbers are no blocks of 16", numbers.len());
    };
    dispatch_at(level, BoxMuller { blocks, mean, std });
}

struct BoxMuller<'a> {
    blocks: &'a mut [[f32; 16]],
    mean: f32,
    std: f32,
}

impl Work for BoxMuller<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for block in self.blocks {
            let (radii, angles) = block.split_at_mut(8);
            // Plain arithmetic on each, without branches: the compiler makes vectors of it.
            for i in 0..8 {
                let radius = (-2.0 * ln(1.0 - radii[i])).sqrt() * self.std;
                let (sin, cos) = sin_cos(std::f32::consts::TAU * angles[i]);
                radii[i] = radius * cos + self.mean;
                angles[i] = radius * sin + self.mean;
            }
        }
    }
}

/// ln x of a positive number that is not subnormal.
#[inline(always)]
fn ln(x: f32) -> f32 {
    // x = m 2^n with m from √½ to √2: whatever is above √½'s bits is n.
    let n = (x.to_bits().wrapping_sub((SQRT_2 / 2.0).to_bits()) as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((n << 23) as u32));
    // ln m = 2 artanh s = 2 (s + s³/3 + s⁵/5 + …), and |s| < 0.172.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let tail = z * (2.0 / 3.0 + z * (2.0 / 5.0 + z * (2.0 / 7.0 + z * (2.0 / 9.0))));
    n as f32 * LN_2 + (2.0 * s + s * tail)
}

/// Sine and cosine of an angle from 0 to 2π.
#[inline(always)]
fn sin_cos(angle: f32) -> (f32, f32) {
    // The nearest multiple of π/2: adding 1.5 · 2²³ leaves no bit for a fraction, and the number in the low bits.
    let shifted = angle * FRAC_2_PI + 12_582_912.0;
    let (quadrant, n) = (shifted.to_bits(), shifted - 12_582_912.0);
    // π/2 in three parts, of which the first two have so few bits that n times them is exact.
    let r = ((angle - n * 1.570_312_5) - n * 4.837_513e-4) - n * 7.549_79e-8;
    let z = r * r;
    // Taylor's series: for |r| ≤ π/4 the next term would be below 3e-9 and 3e-8.
    let sin = r + r * z * (-1.0 / 6.0 + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362_880.0))));
    let cos = 1.0 - z * 0.5 + z * z * (1.0 / 24.0 + z * (-1.0 / 720.0 + z * (1.0 / 40_320.0)));
    let (sin, cos) = if quadrant & 1 == 0 { (sin, cos) } else { (cos, sin) };
    // Bit 1 of the quadrant, moved up to the sign.
    let negative = |quadrant: u32| (quadrant & 2) << 30;
    let flip = |x: f32, sign: u32| f32::from_bits(x.to_bits() ^ sign);
    (flip(sin, negative(quadrant)), flip(cos, negative(quadrant.wrapping_add(1))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::levels;

    fn unit(bits: u32) -> f32 {
        bits as f32 / 16_777_216.0
    }

    /// Numbers of 24 bits, evenly chosen, the extremes included.
    fn units() -> Vec<f32> {
        let last = (1_u32 << 24) - 1;
        let by = if cfg!(miri) { 1_000_003 } else { 251 };
        (0..last).step_by(by).chain([1, 2, 3, 1 << 22, 1 << 23, 3 << 22, last - 1, last]).map(unit).collect()
    }

    #[test]
    fn functions_are_those_of_std() {
        for u in units() {
            let x = 1.0 - u;
            let exact = (x as f64).ln();
            assert!((ln(x) as f64 - exact).abs() <= 2.4e-7 * exact.abs(), "ln {x} = {}, not {exact}", ln(x));
            let angle = std::f32::consts::TAU * u;
            let ((sin, cos), exact) = (sin_cos(angle), (angle as f64).sin_cos());
            assert!((sin as f64 - exact.0).abs() <= 1.2e-7, "sin {angle} = {sin}, not {}", exact.0);
            assert!((cos as f64 - exact.1).abs() <= 1.2e-7, "cos {angle} = {cos}, not {}", exact.1);
        }
    }

    #[test]
    fn normal_numbers_are_those_of_the_formula() {
        let units = units();
        let (mean, std) = (0.25, 3.0);
        // Every unit once as a radius and once as an angle.
        let blocks: Vec<f32> = units
            .as_chunks::<8>()
            .0
            .iter()
            .zip(units.as_chunks::<8>().0.iter().rev())
            .flat_map(|(radii, angles)| [*radii, *angles].concat())
            .collect();
        for level in levels() {
            let mut found = blocks.clone();
            box_muller_at(level, &mut found, mean, std);
            for (units, found) in blocks.as_chunks::<16>().0.iter().zip(found.as_chunks::<16>().0) {
                for i in 0..8 {
                    let radius = (-2.0 * (1.0 - units[i] as f64).ln()).sqrt();
                    let (sin, cos) = ((std::f32::consts::TAU * units[i + 8]) as f64).sin_cos();
                    for (found, exact) in [(found[i], radius * cos), (found[i + 8], radius * sin)] {
                        let exact = exact * std as f64 + mean as f64;
                        assert!((found as f64 - exact).abs() < 6e-6, "{level:?}: {found}, not {exact}");
                    }
                }
            }
        }
    }

    #[test]
    fn scaling_rounds_once() {
        let mut numbers = units();
        scale(&mut numbers, -0.035_714_287, 0.035_714_287);
        for (u, found) in units().into_iter().zip(numbers) {
            // The product of two floats is exact as f64; rounding the sum to f64 and then to f32 is off once in 2^29.
            let exact = u as f64 * (2.0 * 0.035_714_287_f32) as f64 - 0.035_714_287_f32 as f64;
            assert_eq!(found, exact as f32);
        }
    }

    #[test]
    #[should_panic(expected = "17 numbers are no blocks of 16")]
    fn half_blocks_are_refused() {
        box_muller(&mut [0.5; 17], 0.0, 1.0);
    }
}
