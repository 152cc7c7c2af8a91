// Owned by notebooks/12_init.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash e116c925af4f7fc6
//! First weights: by formula (Xavier, Kaiming), or measured and corrected (LSUV).

// %% notebooks/12_init.ipynb in-functions
use minai::generator::Generator;
use minai::nn::{Layer, Module, Parameter, Parts, Pass, named_parameters};
use minai::tensor::Tensor;

/// Whose size weights are to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fan {
    /// That of activations, on the way forwards.
    In,
    /// That of gradients, on the way back.
    Out,
}

// %% notebooks/12_init.ipynb in-functions-b
/// How many inputs an output has, and how many outputs an input reaches, by a weight of shape (outputs, inputs, …).
///
/// # Panics
/// If the shape has fewer than two axes.
#[track_caller]
pub fn fans(shape: &[usize]) -> (usize, usize) {
    assert!(shape.len() >= 2, "fans: a weight (outputs, inputs, …) expected, shape {shape:?}");
    let places: usize = shape[2..].iter().product();
    (shape[1] * places, shape[0] * places)
}

/// What a leaky relu with this slope below 0 takes of the size, put back: √(2 / (1 + slope²)). Relu has the slope 0.
pub fn leaky_gain(slope: f64) -> f64 {
    (2.0 / (1.0 + slope * slope)).sqrt()
}

// %% notebooks/12_init.ipynb in-set
/// The standard deviation of Xavier's weights.
#[track_caller]
fn xavier(weight: &Parameter, gain: f64) -> f64 {
    let (inputs, outputs) = fans(&weight.shape());
    gain * (2.0 / (inputs + outputs) as f64).sqrt()
}

/// The standard deviation of Kaiming's weights.
#[track_caller]
fn kaiming(weight: &Parameter, fan: Fan, slope: f64) -> f64 {
    let (inputs, outputs) = fans(&weight.shape());
    let n = if fan == Fan::In { inputs } else { outputs };
    leaky_gain(slope) / (n as f64).sqrt()
}

// %% notebooks/12_init.ipynb in-set-b
/// Normal weights for layers without relu (Glorot and Bengio 2010): variance `gain`² · 2 / (fan-in + fan-out).
#[track_caller]
pub fn xavier_normal(rng: &mut Generator, weight: &Parameter, gain: f64) {
    weight.set(rng.normal(&weight.shape(), 0.0, xavier(weight, gain)));
}

/// As [`xavier_normal`], but uniformly distributed.
#[track_caller]
pub fn xavier_uniform(rng: &mut Generator, weight: &Parameter, gain: f64) {
    let bound = 3f64.sqrt() * xavier(weight, gain);
    weight.set(rng.uniform(&weight.shape(), -bound, bound));
}

/// Normal weights for layers that a (leaky) relu follows (He et al. 2015): variance 2 / ((1 + slope²) · fan).
#[track_caller]
pub fn kaiming_normal(rng: &mut Generator, weight: &Parameter, fan: Fan, slope: f64) {
    weight.set(rng.normal(&weight.shape(), 0.0, kaiming(weight, fan, slope)));
}

/// As [`kaiming_normal`], but uniformly distributed.
#[track_caller]
pub fn kaiming_uniform(rng: &mut Generator, weight: &Parameter, fan: Fan, slope: f64) {
    let bound = 3f64.sqrt() * kaiming(weight, fan, slope);
    weight.set(rng.uniform(&weight.shape(), -bound, bound));
}

// %% notebooks/12_init.ipynb in-all
/// [`kaiming_normal`] for the weights of all layers inside a module (parameters with at least two axes), 0 for biases.
pub fn kaiming_all(rng: &mut Generator, model: &dyn Module, slope: f64) {
    for (name, parameter) in named_parameters(model) {
        if parameter.shape().len() >= 2 {
            kaiming_normal(rng, &parameter, Fan::In, slope);
        } else if name == "bias" || name.ends_with(".bias") {
            parameter.update(|bias| bias.fill(0.0));
        }
    }
}

// %% notebooks/12_init.ipynb ls-adjust
use std::cell::RefCell;
use std::rc::Rc;

/// What came out of a layer before [`lsuv`] corrected it.
#[derive(Clone, Debug, PartialEq)]
pub struct Before {
    /// The layer's path.
    pub path: String,
    /// The mean of its outputs.
    pub mean: f32,
    /// Their standard deviation.
    pub std: f32,
}

// %% notebooks/12_init.ipynb ls-adjust-b
/// The layer's own weight of two or more axes, and its bias.
fn weight_and_bias(layer: &dyn Module) -> Option<(Parameter, Option<Parameter>)> {
    let find = |name: &str| {
        Parts::of(layer).parameters.into_iter().find(|(path, _)| path == name).map(|found| found.1)
    };
    let weight = find("weight").filter(|weight| weight.shape().len() >= 2)?;
    Some((weight, find("bias")))
}

/// Changes a linear layer such that `y`, its output, would have had the mean 0 and the standard deviation 1.
fn standardise(path: &str, (weight, bias): (Parameter, Option<Parameter>), y: &Tensor) -> Before {
    let (mean, std) = (y.mean(..).item(), y.std(..).item());
    assert!(
        std > 0.0 && std.is_finite(),
        "lsuv: the outputs of layer {path} have the standard deviation {std}"
    );
    weight.update(|weight| weight.iter_mut().for_each(|w| *w /= std));
    if let Some(bias) = bias {
        bias.update(|bias| bias.iter_mut().for_each(|b| *b = (*b - mean) / std));
    }
    Before { path: path.to_owned(), mean, std }
}

// %% notebooks/12_init.ipynb ls-lsuv
/// Layer-sequential unit variance (Mishkin and Matas 2015): corrects weights and biases of the layers inside `model`,
/// one after the other, until the batch `x` comes out of each with mean 0 and standard deviation 1. A layer without
/// a bias keeps its mean. Returns what came out of each layer when its turn came.
///
/// # Panics
/// If a layer's outputs are all the same, or not finite.
pub fn lsuv(model: &dyn Layer, x: &Tensor) -> Vec<Before> {
    let corrected = Rc::new(RefCell::new(Vec::new()));
    loop {
        let turn = corrected.borrow().len();
        let (list, mut seen) = (corrected.clone(), 0);
        let mut pass = Pass::eval();
        pass.hook = Some(Box::new(move |path, layer, _, y| {
            let Some(parts) = weight_and_bias(layer) else { return };
            if seen == turn {
                list.borrow_mut().push(standardise(path, parts, y));
            }
            seen += 1;
        }));
        model.forward(x, &mut pass);
        if corrected.borrow().len() == turn {
            return corrected.take();
        }
    }
}
