// Owned by notebooks/12_init.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 7a5d0250935452b1
//! Activation functions as free functions; `relu`, `tanh`, `sigmoid` and `exp` are methods of [`Tensor`].

// %% notebooks/12_init.ipynb ac-functions
use minai::array::Array;
use minai::kernels;
use minai::kernels::activation::Activation;
use minai::tensor::{Tensor, contiguous, elements, elements_mut, from_op};

/// All activations here want to see their input again on the way back.
fn activate(op: &'static str, f: Activation, x: &Tensor) -> Tensor {
    let input = contiguous(&x.data);
    let y = Array::new(kernels::activation::forward(f, elements(&input)), x.shape());
    from_op(op, y, &[x], move |mut g, _| {
        kernels::activation::backward(f, elements(&input), elements_mut(&mut g));
        vec![Some(g)]
    })
}

// %% notebooks/12_init.ipynb ac-functions-b
/// x where it is positive, else `slope` times x (Maas et al. 2013).
pub fn leaky_relu(x: &Tensor, slope: f32) -> Tensor {
    activate("leaky_relu", Activation::LeakyRelu(slope), x)
}

/// x σ(x), also called swish (Elfwing et al. 2017).
pub fn silu(x: &Tensor) -> Tensor {
    activate("silu", Activation::Silu, x)
}

/// x Φ(x), with the distribution function Φ of the standard normal distribution (Hendrycks and Gimpel 2016).
pub fn gelu(x: &Tensor) -> Tensor {
    activate("gelu", Activation::Gelu, x)
}

// %% notebooks/12_init.ipynb ac-functions-b-b
/// GELU's approximation by a hyperbolic tangent (Hendrycks and Gimpel 2016).
pub fn gelu_tanh(x: &Tensor) -> Tensor {
    activate("gelu_tanh", Activation::GeluTanh, x)
}

/// x σ(1.702 x): GELU's coarser approximation, which CLIP uses.
pub fn quick_gelu(x: &Tensor) -> Tensor {
    activate("quick_gelu", Activation::QuickGelu, x)
}

/// ln(1 + eˣ), a smooth relu (Dugas et al. 2001).
pub fn softplus(x: &Tensor) -> Tensor {
    activate("softplus", Activation::Softplus, x)
}

// %% notebooks/12_init.ipynb ac-layers
use minai::nn::{Layer, Module, Parts, Pass};

/// [`leaky_relu`] as a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LeakyRelu {
    /// The slope below 0.
    pub slope: f32,
}

impl Module for LeakyRelu {
    fn parts(&self, _: &mut Parts) {}

    fn describe(&self) -> String {
        format!("negative_slope={}", self.slope)
    }
}

impl Layer for LeakyRelu {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        leaky_relu(x, self.slope)
    }
}

// %% notebooks/12_init.ipynb ac-general
/// A leaky relu moved down: `leaky_relu(x, leak) - shift`, so that its outputs can have the mean 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GeneralRelu {
    /// The slope below 0.
    pub leak: f32,
    /// What is subtracted from all outputs.
    pub shift: f32,
}

impl Module for GeneralRelu {
    fn parts(&self, _: &mut Parts) {}

    fn describe(&self) -> String {
        format!("leak={}, shift={}", self.leak, self.shift)
    }
}

impl Layer for GeneralRelu {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        leaky_relu(x, self.leak) - self.shift
    }
}

// %% notebooks/12_init.ipynb ac-silu
/// [`silu`] as a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silu;

impl Module for Silu {
    fn parts(&self, _: &mut Parts) {}
}

impl Layer for Silu {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        silu(x)
    }
}

// %% notebooks/12_init.ipynb ac-gelu
/// How [`Gelu`] computes Φ, the distribution function of the standard normal distribution: PyTorch's option `approximate`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Approximate {
    /// Exactly, as [`gelu`].
    #[default]
    None,
    /// By a hyperbolic tangent, as [`gelu_tanh`].
    Tanh,
}

/// [`gelu`] as a layer; `Gelu::default()` is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gelu {
    /// The form.
    pub approximate: Approximate,
}

// %% notebooks/12_init.ipynb ac-gelu-b
impl Module for Gelu {
    fn parts(&self, _: &mut Parts) {}

    fn describe(&self) -> String {
        match self.approximate {
            Approximate::None => "approximate='none'".into(),
            Approximate::Tanh => "approximate='tanh'".into(),
        }
    }
}

impl Layer for Gelu {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        match self.approximate {
            Approximate::None => gelu(x),
            Approximate::Tanh => gelu_tanh(x),
        }
    }
}

// %% notebooks/12_init.ipynb ac-sigmoid
/// 1 / (1 + e⁻ˣ) as a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sigmoid;

impl Module for Sigmoid {
    fn parts(&self, _: &mut Parts) {}
}

impl Layer for Sigmoid {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        x.sigmoid()
    }
}

// %% notebooks/12_init.ipynb ac-tanh
/// The hyperbolic tangent as a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tanh;

impl Module for Tanh {
    fn parts(&self, _: &mut Parts) {}
}

impl Layer for Tanh {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        x.tanh()
    }
}
