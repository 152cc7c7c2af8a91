// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 3a8f6b24f9fe7468
//! What training does with a gradient: a [`Rule`] for one parameter, and the [`Optimizer`] that applies it to all.

use crate::nn::{Module, Parameter, named_parameters};

// %% notebooks/06_training.ipynb op-rule
use minai::tensor::{contiguous, elements};

/// How a parameter is updated from its gradient. One rule serves all parameters; what it has to remember from step to
/// step is kept for it.
pub trait Rule: std::fmt::Debug {
    /// What is remembered for each number, zero at first: PyTorch's names, such as `momentum_buffer`.
    fn memory(&self) -> &'static [&'static str] {
        &[]
    }

    /// Step number `step`, from 1 on: changes `p` by its gradient `g`. `memory` has a list for each name.
    fn update(&self, step: u32, p: &mut [f32], g: &[f32], memory: &mut [Vec<f32>]);

    /// The learning rate, to read or to change.
    fn lr(&mut self) -> &mut f32;

    /// The momentum (Adam's beta1), to read or to change, if the rule has one.
    fn momentum(&mut self) -> Option<&mut f32> {
        None
    }
}

// %% notebooks/06_training.ipynb op-descent
/// Plain gradient descent: p ← p - lr · g.
#[derive(Clone, Copy, Debug)]
pub struct GradientDescent {
    /// The learning rate.
    pub lr: f32,
}

impl Rule for GradientDescent {
    fn update(&self, _: u32, p: &mut [f32], g: &[f32], _: &mut [Vec<f32>]) {
        for (p, g) in p.iter_mut().zip(g) {
            *p -= self.lr * g;
        }
    }

    fn lr(&mut self) -> &mut f32 {
        &mut self.lr
    }
}

// %% notebooks/06_training.ipynb op-optimizer
/// A rule, and the parameters it changes.
pub struct Optimizer {
    parameters: Vec<(String, Parameter)>,
    /// What happens to each of them.
    pub rule: Box<dyn Rule>,
    /// For each parameter, what the rule remembers.
    memory: Vec<Vec<Vec<f32>>>,
    steps: u32,
}

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (rule, parameters, steps) = (&self.rule, self.parameters.len(), self.steps);
        write!(f, "Optimizer {{ rule: {rule:?}, parameters: {parameters}, steps: {steps} }}")
    }
}

// %% notebooks/06_training.ipynb op-optimizer-new
impl Optimizer {
    /// For all parameters of a module.
    pub fn new(module: &dyn Module, rule: impl Rule + 'static) -> Self {
        Self::boxed(module, Box::new(rule))
    }

    fn boxed(module: &dyn Module, rule: Box<dyn Rule>) -> Self {
        let parameters = named_parameters(module);
        let zeros = |(_, p): &(String, Parameter)| {
            vec![vec![0.0; p.shape().iter().product()]; rule.memory().len()] // counted without reading the values
        };
        let memory = parameters.iter().map(zeros).collect();
        Optimizer { parameters, rule, memory, steps: 0 }
    }
}

// %% notebooks/06_training.ipynb op-optimizer-step
impl Optimizer {
    /// Changes each parameter that has a gradient, in place. The gradients stay: see [`zero_grad`](Self::zero_grad).
    pub fn step(&mut self) {
        self.steps += 1;
        for ((_, parameter), memory) in self.parameters.iter().zip(&mut self.memory) {
            if let Some(gradient) = parameter.grad() {
                let gradient = contiguous(&gradient);
                parameter.update(|p| self.rule.update(self.steps, p, elements(&gradient), memory));
            }
        }
    }

    /// Forgets all gradients, so that the next backward pass begins new ones.
    pub fn zero_grad(&self) {
        self.parameters.iter().for_each(|(_, parameter)| parameter.zero_grad());
    }
}

// %% notebooks/06_training.ipynb op-optimizer-memory
impl Optimizer {
    /// The names and the parameters.
    pub fn parameters(&self) -> &[(String, Parameter)] {
        &self.parameters
    }

    /// How many steps were taken.
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// What the rule remembers: a name such as `0.weight/momentum_buffer`, and a number for each of the parameter's.
    pub fn memory(&self) -> Vec<(String, &[f32])> {
        let mut memory = Vec::new();
        for ((name, _), lists) in self.parameters.iter().zip(&self.memory) {
            for (what, list) in self.rule.memory().iter().zip(lists) {
                memory.push((format!("{name}/{what}"), list.as_slice()));
            }
        }
        memory
    }
}

// %% notebooks/06_training.ipynb op-optimizer-restore
impl Optimizer {
    /// Takes back the number of steps and what [`memory`](Self::memory) gave.
    ///
    /// # Panics
    /// If a list has another length.
    #[track_caller]
    pub fn restore(&mut self, steps: u32, mut list: impl FnMut(&str) -> Vec<f32>) {
        self.steps = steps;
        for ((name, _), lists) in self.parameters.iter().zip(&mut self.memory) {
            for (what, memory) in self.rule.memory().iter().zip(lists) {
                memory.copy_from_slice(&list(&format!("{name}/{what}")));
            }
        }
    }
}
