// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash de6e957cd76da373
//! The usual rules of optimisers: SGD with momentum, RMSProp, Adam, AdamW. All are PyTorch's, step by step.

// %% notebooks/13_optimizers.ipynb op-sgd
use minai::kernels;
use minai::optimizer::Rule;

/// Stochastic gradient descent with momentum (Polyak 1964), as `torch.optim.SGD`:
/// g ← g + weight_decay · p, v ← momentum · v + g, p ← p - lr · v.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate; 1e-3 by default.
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

// %% notebooks/13_optimizers.ipynb op-sgd-rule
impl Rule for Sgd {
    fn memory(&self) -> &'static [&'static str] {
        &["momentum_buffer"]
    }

    fn update(&self, _: u32, p: &mut [f32], g: &[f32], memory: &mut [Vec<f32>]) {
        kernels::optim::sgd(p, g, &mut memory[0], [self.lr, self.momentum, self.weight_decay]);
    }

    fn lr(&mut self) -> &mut f32 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f32> {
        Some(&mut self.momentum)
    }
}

// %% notebooks/13_optimizers.ipynb op-rmsprop
/// RMSProp (Hinton 2012), as `torch.optim.RMSprop`: v ← alpha · v + (1 - alpha) g², p ← p - lr · g / (√v + eps).
#[derive(Clone, Copy, Debug, PartialEq)]
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

// %% notebooks/13_optimizers.ipynb op-rmsprop-rule
impl Rule for RmsProp {
    fn memory(&self) -> &'static [&'static str] {
        &["square_avg"]
    }

    fn update(&self, _: u32, p: &mut [f32], g: &[f32], memory: &mut [Vec<f32>]) {
        kernels::optim::rms_prop(p, g, &mut memory[0], [self.lr, self.alpha, self.eps]);
    }

    fn lr(&mut self) -> &mut f32 {
        &mut self.lr
    }
}

// %% notebooks/13_optimizers.ipynb op-adam
use minai::kernels::optim::Decay;

/// Adam (Kingma and Ba 2014), as `torch.optim.Adam`. In step t: g ← g + weight_decay · p,
/// m ← beta1 · m + (1 - beta1) g, v ← beta2 · v + (1 - beta2) g²,
/// p ← p - lr · m̂ / (√v̂ + eps) with m̂ = m / (1 - beta1ᵗ) and v̂ = v / (1 - beta2ᵗ).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// The learning rate; 1e-3 by default.
    pub lr: f32,
    /// How slowly the mean gradient changes; 0.9 by default. Schedules of the momentum change it.
    pub beta1: f32,
    /// How slowly the mean square changes; 0.999 by default.
    pub beta2: f32,
    /// Keeps the quotient finite; 1e-8 by default.
    pub eps: f32,
    /// How much of the parameter is added to its gradient; 0 by default. Rather use [`AdamW`].
    pub weight_decay: f32,
}

impl Default for Adam {
    fn default() -> Self {
        Adam { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

// %% notebooks/13_optimizers.ipynb op-adam-rule
impl Rule for Adam {
    fn memory(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn update(&self, step: u32, p: &mut [f32], g: &[f32], memory: &mut [Vec<f32>]) {
        let [m, v] = memory else { unreachable!("two lists, as `memory` says") };
        let (betas, decay) = ([self.beta1, self.beta2], Decay::Gradient(self.weight_decay));
        kernels::optim::adam(step, p, g, [m, v], [self.lr, self.eps], betas, decay);
    }

    fn lr(&mut self) -> &mut f32 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f32> {
        Some(&mut self.beta1)
    }
}

// %% notebooks/13_optimizers.ipynb op-adamw
/// Adam with weight decay apart from the gradient (Loshchilov and Hutter 2017), as `torch.optim.AdamW`:
/// first p ← p (1 - lr · weight_decay), then a step of [`Adam`] with the gradient as it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// The learning rate; 1e-3 by default.
    pub lr: f32,
    /// How slowly the mean gradient changes; 0.9 by default. Schedules of the momentum change it.
    pub beta1: f32,
    /// How slowly the mean square changes; 0.999 by default.
    pub beta2: f32,
    /// Keeps the quotient finite; 1e-8 by default.
    pub eps: f32,
    /// How fast parameters shrink, times the learning rate; 0.01 by default.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 }
    }
}

// %% notebooks/13_optimizers.ipynb op-adamw-rule
impl Rule for AdamW {
    fn memory(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn update(&self, step: u32, p: &mut [f32], g: &[f32], memory: &mut [Vec<f32>]) {
        let [m, v] = memory else { unreachable!("two lists, as `memory` says") };
        let (betas, decay) = ([self.beta1, self.beta2], Decay::Parameters(self.weight_decay));
        kernels::optim::adam(step, p, g, [m, v], [self.lr, self.eps], betas, decay);
    }

    fn lr(&mut self) -> &mut f32 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f32> {
        Some(&mut self.beta1)
    }
}
