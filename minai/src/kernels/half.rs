//! Numbers as files hold them, and numbers kept in 16 bits: read, widened and narrowed on all cores.

use super::memory::{self, filled};
use super::threads::{Parts, for_each, for_each_chunk};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A floating-point type, lowest byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 16 bits: 5 of the exponent, 10 of the fraction.
    F16,
    /// 16 bits: the upper half of an f32.
    Bf16,
    /// 32 bits.
    F32,
    /// 64 bits.
    F64,
}

impl Kind {
    /// Bytes in a number.
    pub fn size(self) -> usize {
        match self {
            Kind::F16 | Kind::Bf16 => 2,
            Kind::F32 => 4,
            Kind::F64 => 8,
        }
    }
}

/// How many numbers a task has: a quarter of a megabyte as f32.
const PART: usize = 1 << 16;
/// How many numbers go through the stack at a time.
const BLOCK: usize = 512;

/// The numbers that these bytes are, as f32, and whether all are finite then. Bytes may begin at any address; such as
/// are too few for a number at the end are left out.
pub fn decode(kind: Kind, bytes: &[u8]) -> (Vec<f32>, bool) {
    let (len, finite) = (bytes.len() / kind.size(), AtomicBool::new(true));
    let decode = |from: usize, block: &mut [f32]| {
        decode_part(kind, &bytes[from * kind.size()..][..block.len() * kind.size()], block);
        if !all_finite(block) {
            finite.store(false, Relaxed);
        }
    };
    let numbers = by_blocks(len, decode);
    (numbers, finite.into_inner())
}

/// Numbers of 16 bits, one `u16` each, as f32.
///
/// # Panics
/// If the type has more bits.
pub fn widen(kind: Kind, bits: &[u16]) -> Vec<f32> {
    assert!(kind.size() == 2, "widen: {kind:?} has no 16 bits");
    by_blocks(bits.len(), |from, block| widen_part(kind, &bits[from..][..block.len()], block))
}

/// `decode(from, block)` gives the numbers from there on.
fn by_blocks(len: usize, decode: impl Fn(usize, &mut [f32]) + Sync) -> Vec<f32> {
    // SAFETY: the parts cover all numbers, and the blocks each part.
    unsafe {
        filled(len, |numbers| {
            for_each_chunk(numbers, PART, |i, part| {
                let mut block = [0.0; BLOCK];
                for (j, to) in part.chunks_mut(BLOCK).enumerate() {
                    let block = &mut block[..to.len()];
                    decode(i * PART + j * BLOCK, block);
                    memory::copy(to, block);
                }
            })
        })
    }
}

/// What comes of numbers that are narrowed.
pub struct Narrowed {
    /// One `u16` for each number: the bits of an f16.
    pub bits: Vec<u16>,
    /// Whether all numbers were finite.
    pub finite: bool,
    /// Whether all finite ones still are.
    pub fits: bool,
}

/// The numbers that these bytes are, each as the nearest f16.
pub fn narrow(kind: Kind, bytes: &[u8]) -> Narrowed {
    let decode = |from: usize, block: &mut [f32]| {
        decode_part(kind, &bytes[from * kind.size()..][..block.len() * kind.size()], block)
    };
    narrow_by(bytes.len() / kind.size(), decode)
}

/// Each number as the nearest f16.
pub fn narrow_f32(numbers: &[f32]) -> Narrowed {
    narrow_by(numbers.len(), |from, block| block.copy_from_slice(&numbers[from..from + block.len()]))
}

/// `decode(from, block)` gives the numbers from there on.
fn narrow_by(len: usize, decode: impl Fn(usize, &mut [f32]) + Sync) -> Narrowed {
    let (finite, fits) = (AtomicBool::new(true), AtomicBool::new(true));
    let mut bits = vec![0_u16; len];
    let parts = Parts::new(&mut bits);
    for_each(len.div_ceil(PART), |i| {
        // SAFETY: parts of different i do not overlap, and `bits` is not used until all are done.
        let part = unsafe { parts.slice(i * PART, PART.min(len - i * PART)) };
        for (j, bits) in part.chunks_mut(BLOCK).enumerate() {
            let mut block = [0.0; BLOCK];
            let block = &mut block[..bits.len()];
            decode(i * PART + j * BLOCK, block);
            bits.reinterpret_cast_mut::<f16>().convert_from_f32_slice(block);
            if !all_finite_16(Kind::F16, bits) {
                let which = if all_finite(block) { &fits } else { &finite };
                which.store(false, Relaxed);
            }
        }
    });
    Narrowed { bits, finite: finite.into_inner(), fits: fits.into_inner() }
}

/// The bits of numbers of 16 bits, and whether all of them are finite.
///
/// # Panics
/// If the type has more bits.
pub fn keep(kind: Kind, bytes: &[u8]) -> (Vec<u16>, bool) {
    assert!(kind.size() == 2, "keep: {kind:?} has no 16 bits");
    let (len, finite) = (bytes.len() / 2, AtomicBool::new(true));
    let mut bits = vec![0_u16; len];
    for_each_chunk(&mut bits, PART, |i, part| {
        copy_16(&bytes[i * PART * 2..][..part.len() * 2], part);
        if !all_finite_16(kind, part) {
            finite.store(false, Relaxed);
        }
    });
    (bits, finite.into_inner())
}

fn copy_16(bytes: &[u8], bits: &mut [u16]) {
    for (bits, bytes) in bits.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *bits = u16::from_le_bytes(*bytes);
    }
}

/// At most [`BLOCK`] numbers.
fn decode_part(kind: Kind, bytes: &[u8], part: &mut [f32]) {
    match kind {
        Kind::F32 => {
            for (number, bytes) in part.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
        Kind::F64 => {
            for (number, bytes) in part.iter_mut().zip(bytes.as_chunks::<8>().0) {
                *number = f64::from_le_bytes(*bytes) as f32;
            }
        }
        Kind::F16 | Kind::Bf16 => {
            let mut bits = [0_u16; BLOCK];
            copy_16(bytes, &mut bits[..part.len()]);
            widen_part(kind, &bits[..part.len()], part);
        }
    }
}

fn widen_part(kind: Kind, bits: &[u16], part: &mut [f32]) {
    match kind {
        // By the processor's own instruction, where it has one.
        Kind::F16 => bits.reinterpret_cast::<f16>().convert_to_f32_slice(part),
        // Not by `bf16::to_f32`: its care for NaN costs the vectors.
        _ => {
            for (number, &bits) in part.iter_mut().zip(bits) {
                *number = f32::from_bits(u32::from(bits) << 16);
            }
        }
    }
}

/// Whether no number is infinite or NaN.
pub fn all_finite(numbers: &[f32]) -> bool {
    let mut all = true;
    for number in numbers {
        all &= number.to_bits() & 0x7FFF_FFFF < 0x7F80_0000;
    }
    all
}

fn all_finite_16(kind: Kind, bits: &[u16]) -> bool {
    let limit = if kind == Kind::F16 { f16::INFINITY.to_bits() } else { bf16::INFINITY.to_bits() };
    let mut all = true;
    for bits in bits {
        all &= bits & 0x7FFF < limit;
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All finite numbers of 16 bits, more than one part of them.
    fn finite_bits(kind: Kind) -> Vec<u16> {
        let limit = if kind == Kind::F16 { 0x7C00 } else { 0x7F80 };
        (0..=u16::MAX).chain(0..100).filter(|bits| bits & 0x7FFF < limit).collect()
    }

    #[test]
    fn halves_are_widened_as_one_by_one() {
        for kind in [Kind::F16, Kind::Bf16] {
            let bits = finite_bits(kind);
            let one = |&bits: &u16| match kind {
                Kind::F16 => f16::from_bits(bits).to_f32(),
                _ => bf16::from_bits(bits).to_f32(),
            };
            let wanted: Vec<u32> = bits.iter().map(one).map(f32::to_bits).collect();
            let same = |numbers: &[f32]| numbers.iter().map(|x| x.to_bits()).eq(wanted.iter().copied());
            assert!(same(&widen(kind, &bits)));
            // At an odd address, with an odd byte at the end.
            let mut bytes = vec![0];
            bytes.extend(bits.iter().flat_map(|bits| bits.to_le_bytes()));
            bytes.push(7);
            let (numbers, finite) = decode(kind, &bytes[1..]);
            assert!(same(&numbers) && finite);
            assert_eq!(keep(kind, &bytes[1..]), (bits, true));
        }
    }

    #[test]
    fn numbers_are_narrowed_as_one_by_one() {
        let mut numbers: Vec<f32> = (0..PART as u32 + 999).map(|i| (i as f32 - 3e4) * 0.731).collect();
        numbers.extend([0.0, -0.0, 1e-7, 65504.0, 65519.9, 3e-8, 2e-8]);
        let wanted: Vec<u16> = numbers.iter().map(|&x| f16::from_f32(x).to_bits()).collect();
        let bytes: Vec<u8> = [9].into_iter().chain(numbers.iter().flat_map(|x| x.to_le_bytes())).collect();
        for narrowed in [narrow(Kind::F32, &bytes[1..]), narrow_f32(&numbers)] {
            assert!(narrowed.finite && narrowed.fits && narrowed.bits == wanted);
        }
    }

    #[test]
    fn what_is_not_finite_is_seen_wherever_it_is() {
        for at in [0, 1, BLOCK, PART - 1, PART, PART + 7] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 65520.0] {
                let mut numbers = vec![1.0_f32; PART + 8];
                numbers[at] = bad;
                let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
                assert_eq!(decode(Kind::F32, &bytes).1, bad == 65520.0);
                let narrowed = narrow(Kind::F32, &bytes);
                assert_eq!((narrowed.finite, narrowed.fits), (bad == 65520.0, bad != 65520.0));
                let halves: Vec<u8> =
                    numbers.iter().flat_map(|&x| bf16::from_f32(x).to_bits().to_le_bytes()).collect();
                assert_eq!(keep(Kind::Bf16, &halves).1, bad == 65520.0);
                assert_eq!(decode(Kind::Bf16, &halves).1, bad == 65520.0);
            }
        }
        let doubles = [1e300_f64, 1.0].map(f64::to_le_bytes).concat();
        assert!(!decode(Kind::F64, &doubles).1, "too large for f32");
    }
}
