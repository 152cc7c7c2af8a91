// Owned by notebooks/16_samplers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash a7394ae542d6f423
//! The exact denoiser of a data set: what a network that is trained to remove noise would say if it learned perfectly.

// %% notebooks/16_samplers.ipynb de-exact
use minai::array::Array;
use minai::loss::softmax;
use minai::tensor::{Tensor, elements};

/// Images (n, …) as rows of pixels (n, pixels).
fn rows(images: &Tensor) -> Tensor {
    images.reshape((images.shape()[0], -1))
}

/// All images of a data set, and for any noisy image what it must have been, on average.
///
/// If x = xᵢ + σ n, with each xᵢ as likely as any other and n normal, then by Bayes' rule xᵢ has the probability
/// softmaxᵢ(-|x - xᵢ|² / 2σ²), and the best guess is D(x, σ) = Σᵢ softmaxᵢ xᵢ (Karras et al. 2022, equation 57).
#[derive(Clone, Debug)]
pub struct ExactDenoiser {
    /// (n, pixels)
    images: Tensor,
    /// -|xᵢ|² / 2: (n,)
    half_squares: Tensor,
    /// One image's.
    shape: Vec<usize>,
}

// %% notebooks/16_samplers.ipynb de-exact-b
impl ExactDenoiser {
    /// `images`: (n, …), of any shape.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn new(images: &Array) -> Self {
        let shape = images.shape();
        assert!(shape.len() > 1 && !images.is_empty(), "ExactDenoiser: no images in shape {shape:?}");
        let flat = rows(&Tensor::from(images.clone()));
        let half_squares = (&flat * &flat).sum(1) * -0.5;
        ExactDenoiser { images: flat, half_squares, shape: shape[1..].to_vec() }
    }

    /// Rows of pixels as images.
    fn like(&self, rows: &Tensor) -> Tensor {
        rows.reshape([&rows.shape()[..1], &self.shape].concat())
    }
}

// %% notebooks/16_samplers.ipynb de-denoise
/// 1 / σ², for a level that is one.
#[track_caller]
fn precision(sigma: f64) -> f32 {
    assert!(sigma > 0.0, "denoise: the noise level is {sigma}, and must be above 0");
    (sigma * sigma).recip() as f32
}

// %% notebooks/16_samplers.ipynb de-denoise-c
impl ExactDenoiser {
    /// What each of the noisy images x (b, …) was, on average, at noise level `sigma`: (b, …).
    ///
    /// # Panics
    /// If the shapes do not fit, or `sigma` is not above 0.
    #[track_caller]
    pub fn denoise(&self, x: &Tensor, sigma: f64) -> Tensor {
        self.like(&self.probabilities(x, sigma).matmul(&self.images))
    }

    /// How likely it is that each of the n images became each noisy one: (b, n).
    ///
    /// # Panics
    /// As [`denoise`](Self::denoise).
    #[track_caller]
    pub fn probabilities(&self, x: &Tensor, sigma: f64) -> Tensor {
        softmax(&self.scores(x, sigma), -1)
    }

    /// -|x - xᵢ|² / 2σ², but for |x|² / 2σ², which is the same for all images: (b, n).
    #[track_caller]
    fn scores(&self, x: &Tensor, sigma: f64) -> Tensor {
        (self.products(x) + &self.half_squares) * precision(sigma)
    }

    /// x · xᵢ: (b, n).
    #[track_caller]
    fn products(&self, x: &Tensor) -> Tensor {
        let fits = x.shape().len() > 1 && x.shape()[1..] == self.shape[..];
        assert!(fits, "denoise: x has shape {:?}, and each image {:?}", x.shape(), self.shape);
        rows(x).matmul(&self.images.t())
    }
}

// %% notebooks/16_samplers.ipynb de-pick
/// Numbers as an array.
fn numbers(indices: &[usize]) -> Array<i64> {
    Array::new(indices.iter().map(|&i| i as i64).collect(), &[indices.len()])
}

impl ExactDenoiser {
    /// The number of images.
    pub fn images(&self) -> usize {
        self.images.shape()[0]
    }

    /// Image `i`, in its own shape.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn image(&self, i: usize) -> Tensor {
        self.like(&self.images.index_select(0, &numbers(&[i]))).squeeze(0)
    }
}

// %% notebooks/16_samplers.ipynb de-pick-b
impl ExactDenoiser {
    /// The denoiser of some of the images.
    ///
    /// # Panics
    /// If there are none, or one is not there.
    #[track_caller]
    pub fn subset(&self, indices: &[usize]) -> Self {
        assert!(!indices.is_empty(), "subset: no images");
        let indices = numbers(indices);
        let half_squares = self.half_squares.index_select(0, &indices);
        ExactDenoiser {
            images: self.images.index_select(0, &indices),
            half_squares,
            shape: self.shape.clone(),
        }
    }
}

// %% notebooks/16_samplers.ipynb de-nearest
/// The length of each row.
fn lengths(rows: &Tensor) -> Tensor {
    (rows * rows).sum(1).sqrt()
}

impl ExactDenoiser {
    /// For each of x (b, …), which image is nearest, and how far away: the square root of the sum of squared
    /// differences.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn nearest(&self, x: &Tensor) -> Vec<(usize, f32)> {
        let best = (self.products(x) + &self.half_squares).argmax(1);
        let distances = lengths(&(rows(x) - self.images.index_select(0, &best)));
        best.iter().zip(elements(&distances.data)).map(|(&i, &distance)| (i as usize, distance)).collect()
    }
}

// %% notebooks/16_samplers.ipynb de-model
/// The noise eps in x = x₀ + σ eps, if x₀ is `denoised`.
pub fn noise_in(x: &Tensor, denoised: &Tensor, sigma: f64) -> Tensor {
    (x - denoised) / sigma as f32
}

impl ExactDenoiser {
    /// The noise in x = x₀ + σ n (b, …), as a sampler asks for it.
    ///
    /// # Panics
    /// As [`denoise`](Self::denoise).
    #[track_caller]
    pub fn eps(&self, x: &Tensor, sigma: f64) -> Tensor {
        noise_in(x, &self.denoise(x, sigma), sigma)
    }
}

// %% notebooks/16_samplers.ipynb de-among
/// Which of the n images each row can't have been.
#[track_caller]
fn refused(rows: usize, n: usize, allowed: impl Fn(usize, usize) -> bool) -> Array<bool> {
    let refused: Vec<bool> = (0..rows * n).map(|at| !allowed(at / n, at % n)).collect();
    let none = refused.chunks(n).position(|row| row.iter().all(|&refused| refused));
    assert!(none.is_none(), "denoise_among: row {} may be none of the images", none.unwrap_or(0));
    Array::new(refused, &[rows, n])
}

/// Each row of x for itself: some of one class, say, and some of another.
impl ExactDenoiser {
    /// As [`denoise`](Self::denoise), where row `b` of x can only have been image `i` if `allowed(b, i)`.
    ///
    /// # Panics
    /// As [`denoise`](Self::denoise), and if a row is allowed no image.
    #[track_caller]
    pub fn denoise_among(&self, x: &Tensor, sigma: f64, allowed: impl Fn(usize, usize) -> bool) -> Tensor {
        self.like(&self.probabilities_among(x, sigma, allowed).matmul(&self.images))
    }

    /// As [`probabilities`](Self::probabilities), where row `b` of x can only have been image `i` if `allowed(b, i)`.
    ///
    /// # Panics
    /// As [`denoise_among`](Self::denoise_among).
    #[track_caller]
    pub fn probabilities_among(
        &self,
        x: &Tensor,
        sigma: f64,
        allowed: impl Fn(usize, usize) -> bool,
    ) -> Tensor {
        let refused = refused(x.shape()[0], self.images(), allowed);
        softmax(&self.scores(x, sigma).masked_fill(&refused, f32::NEG_INFINITY), -1)
    }

    /// As [`eps`](Self::eps), where row `b` of x can only have been image `i` if `allowed(b, i)`.
    ///
    /// # Panics
    /// As [`denoise_among`](Self::denoise_among).
    #[track_caller]
    pub fn eps_among(&self, x: &Tensor, sigma: f64, allowed: impl Fn(usize, usize) -> bool) -> Tensor {
        noise_in(x, &self.denoise_among(x, sigma, allowed), sigma)
    }
}
