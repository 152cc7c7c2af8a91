// Owned by notebooks/18_unet.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash eedd0150d23245fa
//! How a network is told the time step or the noise level: as waves, and then through two linear layers.

// %% notebooks/18_unet.ipynb un-time
use minai::array::Array;
use minai::tensor::Tensor;

/// Cosines and sines of a time, fast waves to slow ones: (n, width), for n times. The i-th of `half` waves has the
/// frequency 10000^(-i / (half - shift)) (Vaswani et al. 2017; Ho et al. 2020).
pub fn time_features(t: &[f32], width: usize, flip_sin_to_cos: bool, freq_shift: f64) -> Tensor {
    let half = width / 2;
    // Rounded to f32 where diffusers rounds: at t = 1000 a last bit of the frequency is 6e-5 of the angle.
    let frequency = |i: usize| {
        let exponent = -(10000_f64.ln() as f32) * i as f32 / (half as f32 - freq_shift as f32);
        f64::from(exponent).exp() as f32
    };
    let mut features = vec![0.0; t.len() * width];
    for (t, row) in t.iter().zip(features.chunks_mut(width.max(1))) {
        for i in 0..half {
            let angle = f64::from(t * frequency(i));
            let (sin, cos) = if flip_sin_to_cos { (half + i, i) } else { (i, half + i) };
            (row[sin], row[cos]) = (angle.sin() as f32, angle.cos() as f32);
        }
    }
    Array::new(features, &[t.len(), width]).into()
}

// %% notebooks/18_unet.ipynb te-embedding
use minai::activation::silu;
use minai::nn::{Init, Layer, Linear, Module, Parts, Pass};

/// Two linear layers with a silu between them: from the waves to what the residual blocks are told.
#[derive(Debug)]
pub struct TimeEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

impl TimeEmbedding {
    /// From `waves` values, see [`time_features`], to a vector of this `width`.
    pub fn new(init: &mut dyn Init, waves: usize, width: usize) -> Self {
        TimeEmbedding { linear_1: Linear::new(init, waves, width), linear_2: Linear::new(init, width, width) }
    }
}

// %% notebooks/18_unet.ipynb te-forward
impl Module for TimeEmbedding {
    fn parts(&self, parts: &mut Parts) {
        parts.module("linear_1", &self.linear_1);
        parts.module("linear_2", &self.linear_2);
    }
}

impl Layer for TimeEmbedding {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let x = silu(&pass.call("linear_1", &self.linear_1, x));
        pass.call("linear_2", &self.linear_2, &x)
    }
}
