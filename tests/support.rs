//! What several test files share.

pub mod files;
pub mod reference;

use minai::array::Array;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The text of the panic that `f` ends in. Panics where there is none.
#[track_caller]
pub fn complaint(f: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).expect_err("should have panicked");
    let text =
        payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref::<&str>().copied());
    text.expect("a panic with a text").to_owned()
}

/// The largest difference, as a part of the largest expected value. A NaN is the largest difference of all.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn relative_error(
    found: impl IntoIterator<Item = f64, IntoIter: ExactSizeIterator>,
    expected: &[f64],
) -> f64 {
    let found = found.into_iter();
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let each = found.zip(expected).map(|(x, y)| (x - y).abs());
    let worst =
        each.fold(0.0, |worst: f64, error| if error > worst || error.is_nan() { error } else { worst });
    if worst == 0.0 { 0.0 } else { worst / largest }
}

/// [`relative_error`] of two arrays.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn difference(found: &Array, expected: &Array) -> f32 {
    assert_eq!(found.shape(), expected.shape());
    let expected: Vec<f64> = expected.iter().map(|&x| x.into()).collect();
    relative_error(found.iter().map(|&x| x.into()), &expected) as f32
}
