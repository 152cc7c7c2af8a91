// Owned by notebooks/25_begin_with_a_picture.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 40b772f9ec685ac8
//! Drawing that begins with a picture: from the middle of the levels, or with a part that is to stay.

// %% notebooks/25_begin_with_a_picture.ipynb in-redraw
use minai::generator::Generator;
use minai::karras::walk;
use minai::sampling::Sampler;
use minai::tensor::Tensor;

/// Those of the falling levels that are at most `sigma`.
pub fn levels_from(sigmas: &[f64], sigma: f64) -> &[f64] {
    &sigmas[sigmas.partition_point(|&level| level > sigma)..]
}

// %% notebooks/25_begin_with_a_picture.ipynb in-redraw-b
/// The image x0 (n, c, h, w) with noise of the first of the levels `sigmas`, and from there down to the last, which is 0;
/// `denoise` says what x at a level σ is taken for (Meng et al. 2022, SDEdit).
///
/// # Panics
/// If there are no levels, or they don't fall.
#[track_caller]
pub fn redraw(
    x0: &Tensor,
    (sampler, sigmas): (Sampler, &[f64]),
    denoise: impl FnMut(&Tensor, f64) -> Tensor,
    rng: &mut Generator,
) -> Tensor {
    let level = *sigmas.first().expect("redraw: there are no levels");
    let start = x0 + Tensor::from(rng.randn(x0.shape())) * level as f32;
    walk(start, (sampler, sigmas), denoise, rng)
}

// %% notebooks/25_begin_with_a_picture.ipynb in-keep
/// `guess`, but where the mask is 1 it is `known`; between 0 and 1 it is some of both.
///
/// The three have the shape (n, c, h, w), where n and c may be 1. Wrapped around a denoiser this is inpainting: with any
/// sampler, what is known keeps its noise until the last step and is exact at the end.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn keep(guess: &Tensor, known: &Tensor, mask: &Tensor) -> Tensor {
    guess + (known - guess) * mask
}
