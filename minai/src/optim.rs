// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 2120cc2c9c89d0d3
//! The usual rules of optimisers: SGD with momentum, RMSProp, Adam, AdamW. All are PyTorch's, step by step.

// %% notebooks/13_optimizers.ipynb op-sgd
use minai::kernels;
use minai::optimizer::Rule;

/// Stochastic gradient descent with momentum: g ← g + weight_decay · p, v ← momentum · v + g, p ← p - lr · v.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// The learning rate.
    pub lr: f32,
    /// How much of the last step goes into this one; 0 by default.
    pub momentum: f32,
    /// How much of the parameter is added to its gradient; 0 by default.
    pub weight_decay: f32,
}

impl Default for Sgd {
    fn default() -> Self {
        Sgd { lr: 1e-3, momentum: 0.0, weight_decay: 0.0 }
    }
}

impl Rule for Sgd {
    fn memory(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn update(&self, _: u32, p: &mut [f32], g: &[f32], memory: &mut [Vec<f32>]) {
        let Sgd { lr, momentum, weight_decay } = *self;
        kernels::optim::Sgd { lr, momentum, weight_decay }.step(p, g, &mut memory[0]);
    }

    fn lr(&self) -> f32 {
        self.lr
    }

    fn set_lr(&mut self, lr: f32) {
        self.lr = lr;
    }

    fn momentum(&self) -> Option<f32> {
        Some(self.momentum)
    }

    fn set_momentum(&mut self, momentum: f32) {
        self.momentum = momentum;
    }
}

// %% notebooks/13_optimizers.ipynb op-rmsprop
/// RMSProp (Hinton 2012): v ← alpha · v + (1 - alpha) g², p ← p - lr · g / (√v + eps).
#[derive(Clone, Copy, Debug)]
pub struct RmsProp {
    /// The learning rate; 0.01 by default.
    pub lr: f32,
    /// How slowly the mean of squares changes; 0.99 by default.
    pub alpha: f32,
    /// Keeps the quotient finite; 1e-8 by default.
    pub eps: f32,
}

impl Default for RmsProp {
    fn default() -> Self {
        RmsProp { lr: 0.01, alpha: 0.99, eps: 1e-8 }
    }
}

impl Rule for RmsProp {
    fn memory(&self) -> &'static [&'static str] {
        &["square_avg"]
    }

    fn update(&self, _: u32, p: &mut [f32], g: &[f32], memory: &mut [Vec<f32>]) {
        let RmsProp { lr, alpha, eps } = *self;
        kernels::optim::RmsProp { lr, alpha, eps }.step(p, g, &mut memory[0]);
    }

    fn lr(&self) -> f32 {
        self.lr
    }

    fn set_lr(&mut self, lr: f32) {
        self.lr = lr;
    }
}

// %% notebooks/13_optimizers.ipynb op-adam
/// Adam with weight decay apart from the gradient (Kingma and Ba 2014; Loshchilov and Hutter 2017). In step t:
/// p ← p (1 - lr · weight_decay), m ← beta1 · m + (1 - beta1) g, v ← beta2 · v + (1 - beta2) g²,
/// p ← p - lr · m̂ / (√v̂ + eps) with m̂ = m / (1 - beta1ᵗ) and v̂ = v / (1 - beta2ᵗ).
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// The learning rate; 1e-3 by default.
    pub lr: f32,
    /// How slowly the mean gradient changes; 0.9 by default.
    pub beta1: f32,
    /// How slowly the mean square changes; 0.999 by default.
    pub beta2: f32,
    /// Keeps the quotient finite; 1e-8 by default.
    pub eps: f32,
    /// How fast parameters shrink, times the learning rate; 0.01 by default. With 0 this is plain Adam.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

impl Rule for AdamW {
    fn memory(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn update(&self, step: u32, p: &mut [f32], g: &[f32], memory: &mut [Vec<f32>]) {
        let AdamW { lr, beta1, beta2, eps, weight_decay } = *self;
        let [m, v] = memory else { unreachable!("two lists, as `memory` says") };
        kernels::optim::Adam { lr, beta1, beta2, eps, weight_decay }.step(step, p, g, m, v);
    }

    fn lr(&self) -> f32 {
        self.lr
    }

    fn set_lr(&mut self, lr: f32) {
        self.lr = lr;
    }

    fn momentum(&self) -> Option<f32> {
        Some(self.beta1)
    }

    fn set_momentum(&mut self, momentum: f32) {
        self.beta1 = momentum;
    }
}
