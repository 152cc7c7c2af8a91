// Owned by notebooks/12_init.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash fe27f324e13633aa
//! Layer, group and batch normalisation.

// %% notebooks/12_init.ipynb no-layer
use minai::array::Array;
use minai::kernels;
use minai::kernels::norm::{Given, Norm, Over, Stat, Then};
use minai::tensor::{Tensor, contiguous, elements, elements_mut, from_op};

/// Normalises over the last axes, those of `weight` and `bias`. `eps` is added to the variance.
///
/// # Panics
/// If the last axes of `x` are not those of `weight` and `bias`.
#[track_caller]
pub fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f32) -> Tensor {
    let (shape, wanted) = (x.shape().to_vec(), weight.shape().to_vec());
    let fits = shape.ends_with(&wanted) && !wanted.is_empty() && bias.shape() == wanted;
    assert!(fits, "layer_norm: weight {wanted:?} and bias {:?} for shape {shape:?}", bias.shape());
    let [input, w, b] = [x, weight, bias].map(|tensor| contiguous(&tensor.data));
    let (y, stats) = kernels::norm::layer_norm(eps, elements(&w), elements(&b), elements(&input));
    from_op("layer_norm", Array::new(y, &shape), &[x, weight, bias], move |mut g, needs| {
        let sums =
            kernels::norm::layer_norm_backward(elements(&w), &stats, elements(&input), elements_mut(&mut g));
        let [dw, db] = <[_; 2]>::from(sums).map(|sum| Array::new(sum, &wanted));
        vec![needs[0].then_some(g), needs[1].then_some(dw), needs[2].then_some(db)]
    })
}

// %% notebooks/12_init.ipynb no-image
/// (n, channels, the product of the rest) of a shape, if weight and bias have one value for each channel.
#[track_caller]
fn image_shape(op: &str, x: &Tensor, weight: &Tensor, bias: &Tensor) -> kernels::norm::Shape {
    let shape = x.shape();
    let fits = shape.len() >= 2 && weight.shape() == [shape[1]] && bias.shape() == [shape[1]];
    let (weight, bias) = (weight.shape(), bias.shape());
    assert!(fits, "{op}: weight {weight:?} and bias {bias:?} for shape {shape:?}, (n, channels, …)");
    kernels::norm::Shape { n: shape[0], channels: shape[1], plane: shape[2..].iter().product() }
}

// %% notebooks/12_init.ipynb no-image-b
/// The operation of all norms of images, and the variances, if it is not given the statistics.
#[track_caller]
fn normalise(
    op: &'static str,
    (x, weight, bias): (&Tensor, &Tensor, &Tensor),
    (over, then): (Over, Then),
    eps: f32,
    given: Option<Vec<Stat>>,
) -> (Tensor, Vec<Stat>, Vec<f32>) {
    let shape = image_shape(op, x, weight, bias);
    let [input, w, b] = [x, weight, bias].map(|tensor| contiguous(&tensor.data));
    let norm = Norm { shape, over, weight: Some(elements(&w)), bias: Some(elements(&b)), then };
    let from_x = if given.is_some() { Given::Yes } else { Given::No };
    let (y, stats, variances) = match given {
        Some(stats) => (norm.apply(&stats, elements(&input)), stats, Vec::new()),
        None => norm.forward(eps, elements(&input)),
    };
    let used = stats.clone();
    let y = from_op(op, Array::new(y, x.shape()), &[x, weight, bias], move |mut g, needs| {
        let norm = Norm { shape, over, weight: Some(elements(&w)), bias: Some(elements(&b)), then };
        let (dw, db) = norm.backward(&used, from_x, elements(&input), elements_mut(&mut g));
        let list = |sum: Vec<f32>| Array::new(sum, w.shape());
        vec![needs[0].then_some(g), needs[1].then(|| list(dw)), needs[2].then(|| list(db))]
    });
    (y, stats, variances)
}

// %% notebooks/12_init.ipynb no-group
/// Normalises over `groups` groups of channels of each image. `x`: (n, channels, …), weight and bias: (channels).
///
/// # Panics
/// If weight or bias do not fit, or the channels cannot be divided into the groups.
#[track_caller]
pub fn group_norm(x: &Tensor, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32) -> Tensor {
    check_groups("group_norm", x, groups);
    normalise("group_norm", (x, weight, bias), (Over::Groups(groups), Then::Nothing), eps, None).0
}

/// [`group_norm`], then silu, in one pass over the memory.
///
/// # Panics
/// As [`group_norm`].
#[track_caller]
pub fn group_norm_silu(x: &Tensor, groups: usize, weight: &Tensor, bias: &Tensor, eps: f32) -> Tensor {
    check_groups("group_norm_silu", x, groups);
    normalise("group_norm_silu", (x, weight, bias), (Over::Groups(groups), Then::Silu), eps, None).0
}

#[track_caller]
fn check_groups(op: &str, x: &Tensor, groups: usize) {
    let channels = x.shape().get(1);
    let fits = groups > 0 && channels.is_some_and(|channels| channels.is_multiple_of(groups));
    assert!(fits, "{op}: {groups} groups of the channels of shape {:?}", x.shape());
}

// %% notebooks/12_init.ipynb no-batch-norm
/// What batch normalization keeps for use after training, one value for each channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The mean.
    pub mean: Array,
    /// The variance, unbiased.
    pub var: Array,
    /// How much of each batch's statistics goes in.
    pub momentum: f32,
}

impl Running {
    /// Mean 0, variance 1, momentum 0.1: where PyTorch begins.
    pub fn new(channels: usize) -> Self {
        let all = |value| Array::new(vec![value; channels], &[channels]);
        Running { mean: all(0.0), var: all(1.0), momentum: 0.1 }
    }
}

// %% notebooks/12_init.ipynb no-batch-norm-b
/// Normalises each channel by the batch's statistics, as in training, and brings the running ones up to date.
/// `x`: (n, channels, …), weight and bias: (channels).
///
/// # Panics
/// If weight, bias or running statistics do not fit, or a channel has fewer than two values.
#[track_caller]
pub fn batch_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, running: &mut Running, eps: f32) -> Tensor {
    check_running("batch_norm", x, running);
    let numbers = x.data.len() as f32 / x.shape()[1] as f32;
    assert!(
        numbers > 1.0,
        "batch_norm: more than one number for each channel expected, shape {:?}",
        x.shape()
    );
    let (y, stats, variances) =
        normalise("batch_norm", (x, weight, bias), (Over::Batch, Then::Nothing), eps, None);
    let (m, unbiased) = (running.momentum, numbers / (numbers - 1.0));
    for (mean, stat) in elements_mut(&mut running.mean).iter_mut().zip(&stats) {
        *mean += m * (stat.mean - *mean);
    }
    for (var, variance) in elements_mut(&mut running.var).iter_mut().zip(variances) {
        *var += m * (variance * unbiased - *var);
    }
    y
}

/// Normalises each channel by the running statistics, as after training.
///
/// # Panics
/// If weight, bias or running statistics do not fit.
#[track_caller]
pub fn batch_norm_eval(x: &Tensor, weight: &Tensor, bias: &Tensor, running: &Running, eps: f32) -> Tensor {
    check_running("batch_norm_eval", x, running);
    let stat = |(&mean, &var): (&f32, &f32)| Stat { mean, rstd: 1.0 / (var + eps).sqrt() };
    let stats = running.mean.iter().zip(running.var.iter()).map(stat).collect();
    normalise("batch_norm_eval", (x, weight, bias), (Over::Batch, Then::Nothing), eps, Some(stats)).0
}

#[track_caller]
fn check_running(op: &str, x: &Tensor, running: &Running) {
    let (shape, mean, var) = (x.shape(), running.mean.shape(), running.var.shape());
    let fits = shape.len() >= 2 && mean == [shape[1]] && var == mean;
    assert!(fits, "{op}: running mean {mean:?} and variance {var:?} for shape {shape:?}, (n, channels, …)");
}

// %% notebooks/12_init.ipynb no-layers
use minai::nn::{Buffer, Layer, Mode, Module, Parameter, Parts, Pass};
use std::fmt;

/// The weight 1 and the bias 0, with which a norm begins.
fn ones_and_zeros(shape: &[usize]) -> (Parameter, Parameter) {
    let [one, zero] =
        [1.0, 0.0].map(|value| Parameter::new(Array::new(vec![value; shape.iter().product()], shape)));
    (one, zero)
}

/// [`layer_norm`] with a weight and a bias of its own.
#[derive(Debug)]
pub struct LayerNorm {
    /// The shape of the last axes.
    pub weight: Parameter,
    /// The same shape.
    pub bias: Parameter,
    /// Added to the variance; 1e-5 at first.
    pub eps: f32,
}

// %% notebooks/12_init.ipynb no-layers-b
impl LayerNorm {
    /// For inputs whose last axes have this shape.
    pub fn new(shape: &[usize]) -> Self {
        let (weight, bias) = ones_and_zeros(shape);
        LayerNorm { weight, bias, eps: 1e-5 }
    }
}

// %% notebooks/12_init.ipynb no-layer-module
/// Names the weight and the bias of a norm.
fn name_both(parts: &mut Parts, weight: &Parameter, bias: &Parameter) {
    parts.parameter("weight", weight);
    parts.parameter("bias", bias);
}

impl Module for LayerNorm {
    fn parts(&self, parts: &mut Parts) {
        name_both(parts, &self.weight, &self.bias);
    }

    fn describe(&self) -> String {
        format!("{:?}, eps={:e}", self.weight.shape(), self.eps)
    }
}

// %% notebooks/12_init.ipynb no-layer-module-b
impl Layer for LayerNorm {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        layer_norm(x, &pass.get(&self.weight), &pass.get(&self.bias), self.eps)
    }
}

impl fmt::Display for LayerNorm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/12_init.ipynb no-group-layer
/// [`group_norm`] with a weight and a bias of its own, for inputs (n, channels, …).
#[derive(Debug)]
pub struct GroupNorm {
    /// Into how many groups the channels are divided.
    pub groups: usize,
    /// (channels)
    pub weight: Parameter,
    /// (channels)
    pub bias: Parameter,
    /// Added to the variance; 1e-5 at first.
    pub eps: f32,
}

impl GroupNorm {
    /// `groups` groups over `channels` channels in total.
    pub fn new(groups: usize, channels: usize) -> Self {
        let (weight, bias) = ones_and_zeros(&[channels]);
        GroupNorm { groups, weight, bias, eps: 1e-5 }
    }
}

// %% notebooks/12_init.ipynb no-group-layer-b
impl Module for GroupNorm {
    fn parts(&self, parts: &mut Parts) {
        name_both(parts, &self.weight, &self.bias);
    }

    fn describe(&self) -> String {
        format!("{}, {}, eps={:e}", self.groups, self.weight.shape()[0], self.eps)
    }
}

impl Layer for GroupNorm {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        group_norm(x, self.groups, &pass.get(&self.weight), &pass.get(&self.bias), self.eps)
    }
}

impl fmt::Display for GroupNorm {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/12_init.ipynb no-batch-layer
/// Batch normalization with a weight, a bias and running statistics of its own, for inputs (n, channels, …): in
/// training [`batch_norm`], else [`batch_norm_eval`]. PyTorch has a type for each rank; here one serves all.
#[derive(Debug)]
pub struct BatchNorm2d {
    /// (channels)
    pub weight: Parameter,
    /// (channels)
    pub bias: Parameter,
    /// The running mean: (channels).
    pub running_mean: Buffer,
    /// The running variance, unbiased: (channels).
    pub running_var: Buffer,
    /// How many batches went in, as an array of shape ().
    pub num_batches_tracked: Buffer<i64>,
    /// How much of each batch's statistics goes in; 0.1 at first.
    pub momentum: f32,
    /// Added to the variance; 1e-5 at first.
    pub eps: f32,
}

// %% notebooks/12_init.ipynb no-batch-layer-b
impl Module for BatchNorm2d {
    fn parts(&self, parts: &mut Parts) {
        name_both(parts, &self.weight, &self.bias);
        parts.buffer("running_mean", &self.running_mean);
        parts.buffer("running_var", &self.running_var);
        parts.buffer("num_batches_tracked", &self.num_batches_tracked);
    }

    fn describe(&self) -> String {
        format!("{}, eps={:e}, momentum={}", self.weight.shape()[0], self.eps, self.momentum)
    }
}

impl fmt::Display for BatchNorm2d {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/12_init.ipynb no-batch-forward
/// Keeps the running statistics after a batch of training.
fn keep_running(layer: &BatchNorm2d, running: Running) {
    layer.running_mean.set(running.mean);
    layer.running_var.set(running.var);
    let tracked = elements(&layer.num_batches_tracked.get())[0] + 1;
    layer.num_batches_tracked.set(Array::new(vec![tracked], &[]));
}

impl BatchNorm2d {
    /// For inputs with this number of channels.
    pub fn new(channels: usize) -> Self {
        let (weight, bias) = ones_and_zeros(&[channels]);
        let Running { mean, var, momentum } = Running::new(channels);
        let (running_mean, running_var) = (Buffer::new(mean), Buffer::new(var));
        let num_batches_tracked = Buffer::new(Array::new(vec![0], &[]));
        BatchNorm2d { weight, bias, running_mean, running_var, num_batches_tracked, momentum, eps: 1e-5 }
    }

    /// The running statistics as they are now.
    pub fn running(&self) -> Running {
        Running { mean: self.running_mean.get(), var: self.running_var.get(), momentum: self.momentum }
    }
}

// %% notebooks/12_init.ipynb no-batch-forward-b
impl Layer for BatchNorm2d {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let (weight, bias, mut running) = (pass.get(&self.weight), pass.get(&self.bias), self.running());
        if pass.mode == Mode::Eval {
            return batch_norm_eval(x, &weight, &bias, &running, self.eps);
        }
        let y = batch_norm(x, &weight, &bias, &mut running, self.eps);
        keep_running(self, running);
        y
    }
}
