// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 4a95e5e1fa107c74
//! What happens to gradients between the backward pass and the step: clipping, and sums over batches.

// %% notebooks/13_optimizers.ipynb st-clip
use minai::learner::{Callback, Flow, Learner, Task};
use minai::nn::Parameter;
use minai::tensor::{elements, elements_mut};

/// The root of the sum of the squares of all gradients; `None` if there is no gradient.
pub fn grad_norm<'a>(parameters: impl IntoIterator<Item = &'a Parameter>) -> Option<f32> {
    let squares = |parameter: &Parameter| -> Option<f64> {
        let gradient = parameter.grad()?;
        Some(gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum())
    };
    let each: Vec<f64> = parameters.into_iter().filter_map(squares).collect();
    (!each.is_empty()).then(|| each.iter().sum::<f64>().sqrt() as f32)
}

/// Multiplies a gradient by a factor.
fn scale(parameter: &Parameter, factor: f32) {
    if let Some(mut gradient) = parameter.grad() {
        parameter.zero_grad(); // so that the values are ours alone, and are changed in place
        elements_mut(&mut gradient).iter_mut().for_each(|g| *g *= factor);
        parameter.set_grad(gradient);
    }
}

// %% notebooks/13_optimizers.ipynb st-clip-norm
/// Scales all gradients of an optimiser so that their norm is at most `limit`, and returns the norm that they had, as
/// `torch.nn.utils.clip_grad_norm_`; `None` if there is no gradient. If the norm is NaN, so are all gradients afterwards:
/// the fault must not go unseen.
pub fn clip_grad_norm(optimizer: &Optimizer, limit: f32) -> Option<f32> {
    let parameters = || optimizer.parameters().iter().map(|(_, parameter)| parameter);
    let norm = grad_norm(parameters())?;
    if norm > limit || norm.is_nan() {
        parameters().for_each(|parameter| scale(parameter, limit / (norm + 1e-6)));
    }
    Some(norm)
}

// %% notebooks/13_optimizers.ipynb st-clip-struct
/// Clips the norm of all gradients before each step (Pascanu, Mikolov and Bengio 2012).
#[derive(Clone, Debug)]
pub struct ClipNorm {
    /// The highest norm.
    pub limit: f32,
    /// The norm before each step, as it was.
    pub norms: Vec<f32>,
}

impl ClipNorm {
    /// Gradients of at most this norm.
    pub fn new(limit: f32) -> Self {
        ClipNorm { limit, norms: Vec::new() }
    }
}

// %% notebooks/13_optimizers.ipynb st-clip-callback
use minai::array::Array;
use minai::optimizer::Optimizer;
use minai::state::{StateDict, Value};

fn list(list: &[f32]) -> Value {
    Value::F32(Array::new(list.to_vec(), &[list.len()]))
}

impl<T: Task> Callback<T> for ClipNorm {
    fn after_backward(&mut self, learner: &mut Learner<T>) -> Flow {
        self.norms.extend(clip_grad_norm(&learner.optimizer, self.limit));
        Flow::Continue
    }

    fn state(&self) -> StateDict {
        StateDict::from([("norms".to_owned(), list(&self.norms))])
    }

    fn load_state(&mut self, state: &StateDict) {
        if let Some(Value::F32(norms)) = state.get("norms") {
            self.norms = elements(norms).to_vec();
        }
    }
}

// %% notebooks/13_optimizers.ipynb st-accumulate
/// Lets the optimiser make a step only after so many batches, or at the end of an epoch, with the gradient of one batch of
/// all their examples. (Batch norm still sees the small ones.) `after_batch` comes after each batch.
#[derive(Clone, Debug)]
pub struct Accumulate {
    /// How many batches make a step.
    pub batches: usize,
    /// For each parameter, its gradients times the batches' examples.
    sums: Vec<Option<Array>>,
    /// The batches and the examples in the sums.
    counts: (usize, usize),
}

impl Accumulate {
    /// A step for each that many batches.
    ///
    /// # Panics
    /// If it is 0.
    #[track_caller]
    pub fn new(batches: usize) -> Self {
        assert!(batches > 0, "Accumulate: a step for every 0 batches");
        Accumulate { batches, sums: Vec::new(), counts: (0, 0) }
    }
}

// %% notebooks/13_optimizers.ipynb st-accumulate-add
/// Takes the gradients of a batch of `n` examples away, into the sums.
fn take_gradients(accumulate: &mut Accumulate, optimizer: &Optimizer, n: usize) {
    accumulate.sums.resize(optimizer.parameters().len(), None);
    for ((_, parameter), sum) in optimizer.parameters().iter().zip(&mut accumulate.sums) {
        scale(parameter, n as f32);
        match (sum, parameter.grad()) {
            (Some(sum), Some(gradient)) => {
                elements_mut(sum).iter_mut().zip(elements(&gradient)).for_each(|(sum, g)| *sum += g);
            }
            (sum @ None, gradient) => *sum = gradient,
            (Some(_), None) => {}
        }
        parameter.zero_grad();
    }
    accumulate.counts = (accumulate.counts.0 + 1, accumulate.counts.1 + n);
}

// %% notebooks/13_optimizers.ipynb st-accumulate-state
fn sums_state(accumulate: &Accumulate) -> StateDict {
    let (batches, examples) = accumulate.counts;
    let counts = Value::I64(Array::new(vec![batches as i64, examples as i64], &[2]));
    let sums = accumulate.sums.iter().enumerate();
    let sums = sums.filter_map(|(i, sum)| Some((format!("{i}"), Value::F32(sum.clone()?))));
    sums.chain([("counts".to_owned(), counts)]).collect()
}

fn load_sums(accumulate: &mut Accumulate, state: &StateDict) {
    let Some(Value::I64(counts)) = state.get("counts") else { return };
    accumulate.counts = (counts[[0]] as usize, counts[[1]] as usize);
    accumulate.sums.clear();
    for (name, value) in state {
        if let (Ok(i), Value::F32(sum)) = (name.parse::<usize>(), value) {
            let len = accumulate.sums.len().max(i + 1);
            accumulate.sums.resize(len, None);
            accumulate.sums[i] = Some(sum.clone());
        }
    }
}

// %% notebooks/13_optimizers.ipynb st-accumulate-callback
/// Gives the parameters the mean gradients over all examples, and begins anew.
fn give_back(accumulate: &mut Accumulate, optimizer: &Optimizer) {
    let n = accumulate.counts.1 as f32;
    for ((_, parameter), sum) in optimizer.parameters().iter().zip(accumulate.sums.drain(..)) {
        if let Some(sum) = sum {
            parameter.set_grad(sum);
            scale(parameter, 1.0 / n);
        }
    }
    accumulate.counts = (0, 0);
}

/// What happens to the gradients of the batch at hand.
fn accumulated<T: Task>(accumulate: &mut Accumulate, learner: &mut Learner<T>) -> Flow {
    let n = learner.batch.as_ref().map_or(0, |batch| learner.task.len(batch));
    take_gradients(accumulate, &learner.optimizer, n);
    if accumulate.counts.0 < accumulate.batches && learner.index + 1 < learner.batches {
        return Flow::SkipStep;
    }
    give_back(accumulate, &learner.optimizer);
    Flow::Continue
}

// %% notebooks/13_optimizers.ipynb st-accumulate-impl
/// Forgets what an interrupted training left.
fn forget(accumulate: &mut Accumulate) {
    *accumulate = Accumulate::new(accumulate.batches);
}

impl<T: Task> Callback<T> for Accumulate {
    fn before_fit(&mut self, _: &mut Learner<T>) -> Flow {
        forget(self);
        Flow::Continue
    }

    fn after_backward(&mut self, learner: &mut Learner<T>) -> Flow {
        accumulated(self, learner)
    }

    fn state(&self) -> StateDict {
        sums_state(self)
    }

    fn load_state(&mut self, state: &StateDict) {
        load_sums(self, state);
    }
}
