//! What the kernels' tests share.

use super::memory::Blank;
use super::threads::with_threads;

/// What `f` writes to `len` places. They hold NaN before, so that a place which is left out is noticed.
pub fn written_by(len: usize, f: impl FnOnce(&mut [Blank])) -> Vec<f32> {
    let mut places = vec![Blank::new(f32::NAN); len];
    f(&mut places);
    // SAFETY: each held a float from the beginning, and kernels write floats only.
    places.into_iter().map(|place| unsafe { place.assume_init() }).collect()
}

/// `n` numbers from `-scale` to `scale`, the same ones each time.
pub fn numbers(n: usize, scale: f32) -> Vec<f32> {
    let mut state = n as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale
    };
    (0..n).map(|_| next()).collect()
}

/// # Panics
/// If two lists differ by more than `tolerance` of the largest number expected.
#[track_caller]
pub fn assert_close(name: &str, found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(
            error <= tolerance * largest,
            "{name}, number {i}: {found} for {expected} (largest {largest})"
        );
    }
}

/// # Panics
/// If `f` does not give the same bits on 1, 2 and 5 threads.
#[track_caller]
pub fn same_bits(f: impl Fn() -> Vec<f32>) {
    let bits = |n| with_threads(n, &f).into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let alone = bits(1);
    assert!(alone == bits(2) && alone == bits(5), "the number of threads changes the result");
}
