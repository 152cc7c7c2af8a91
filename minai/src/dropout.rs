// Owned by notebooks/15_augment.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash fcea8055c2f50048
//! Layers that leave out some of their input while the network learns.

// %% notebooks/15_augment.ipynb dr-dropout
use minai::generator::Generator;
use minai::nn::{Layer, Mode, Module, Parts, Pass};
use minai::tensor::Tensor;

/// x with some numbers replaced by 0 and the others divided by the share that stays. One draw decides for all numbers
/// at which `shape` has a 1.
fn drop_some(x: &Tensor, p: f64, shape: &[usize], rng: &mut Generator) -> Tensor {
    let stays = Tensor::from(rng.bernoulli(shape, 1.0 - p));
    x * &(stays / (1.0 - p) as f32)
}

// %% notebooks/15_augment.ipynb dr-layer
/// In training, replaces each number by 0 with probability `p` and divides the others by 1 - p (Srivastava et al. 2014,
/// <https://jmlr.org/papers/v15/srivastava14a.html>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The probability of a number to be left out: from 0 to less than 1.
    pub p: f64,
}

impl Module for Dropout {
    fn parts(&self, _: &mut Parts) {}

    fn describe(&self) -> String {
        format!("p={}", self.p)
    }
}

impl Layer for Dropout {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        match pass.mode {
            Mode::Train => drop_some(x, self.p, x.shape(), &mut pass.rng),
            Mode::Eval => x.clone(),
        }
    }
}

// %% notebooks/15_augment.ipynb dr-2d
/// In training, replaces whole channels of (n, c, …) by 0 with probability `p` and divides the others by 1 - p (Tompson
/// et al. 2014, <https://arxiv.org/abs/1411.4280>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout2d {
    /// The probability of a channel to be left out: from 0 to less than 1.
    pub p: f64,
}

impl Module for Dropout2d {
    fn parts(&self, _: &mut Parts) {}

    fn describe(&self) -> String {
        format!("p={}", self.p)
    }
}

// %% notebooks/15_augment.ipynb dr-2d-layer
impl Layer for Dropout2d {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let mut shape = x.shape().to_vec();
        shape.iter_mut().skip(2).for_each(|size| *size = 1);
        match pass.mode {
            Mode::Train => drop_some(x, self.p, &shape, &mut pass.rng),
            Mode::Eval => x.clone(),
        }
    }
}
