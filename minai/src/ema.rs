// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 4d16796b734919b1
//! A moving average of a model's parameters, which is often better than the parameters themselves.

// %% notebooks/13_optimizers.ipynb st-ema
use minai::array::Array;
use minai::nn::{Module, Parameter, named_parameters};
use minai::state::{StateDict, Value, state_dict};
use minai::tensor::elements_mut;
use std::collections::BTreeMap;

/// An exponential moving average of all parameters, updated after each step. The learner validates with it; afterwards,
/// [`swap`](Ema::swap) puts it into the model. Buffers, such as batch norm's statistics, stay the model's.
#[derive(Clone, Debug)]
pub struct Ema {
    /// The highest decay: how much of the average stays in a step.
    pub decay: f64,
    /// The averages, by the names of the parameters.
    averages: BTreeMap<String, Array>,
    /// The updates so far.
    updates: u64,
    /// The optimiser's steps when the last update was made.
    steps: u32,
    is_swapped: bool,
}

// %% notebooks/13_optimizers.ipynb st-ema-new
impl Ema {
    /// An average with this decay, such as 0.999: about the last 1,000 steps count.
    pub fn new(decay: f64) -> Self {
        Ema { decay, averages: BTreeMap::new(), updates: 0, steps: 0, is_swapped: false }
    }
}

// %% notebooks/13_optimizers.ipynb st-ema-update
/// The decay of update number `update`, from 0: in the first, the average becomes the parameters.
fn decay_of(ema: &Ema, update: u64) -> f64 {
    let t = update as f64;
    if update == 0 { 0.0 } else { ema.decay.min((1.0 + t) / (10.0 + t)) }
}

/// Moves the averages towards the parameters: average ← average + (1 - decay) (parameter - average).
fn update(ema: &mut Ema, model: &dyn Module) {
    let share = (1.0 - decay_of(ema, ema.updates)) as f32;
    for (name, parameter) in named_parameters(model) {
        let data = parameter.data();
        let average = ema.averages.entry(name).or_insert_with(|| data.clone());
        for (average, p) in elements_mut(average).iter_mut().zip(data.iter()) {
            *average += share * (p - *average);
        }
    }
    ema.updates += 1;
}

// %% notebooks/13_optimizers.ipynb st-ema-swap
/// The parameter gets the values of the average, and the average those of the parameter.
fn exchange(average: &mut Array, parameter: &Parameter) {
    let data = parameter.data();
    parameter.set(std::mem::replace(average, data));
}

// %% notebooks/13_optimizers.ipynb st-ema-exchange
impl Ema {
    /// Exchanges the model's parameters and the averages; a second call takes that back. Nothing happens before the first
    /// step.
    ///
    /// # Panics
    /// If the model is another one.
    #[track_caller]
    pub fn swap(&mut self, model: &dyn Module) {
        if self.updates == 0 {
            return;
        }
        for (name, parameter) in named_parameters(model) {
            let average = self.averages.get_mut(&name);
            let average =
                average.unwrap_or_else(|| panic!("Ema::swap: no average of the parameter `{name}`"));
            exchange(average, &parameter);
        }
        self.is_swapped = !self.is_swapped;
    }
}

// %% notebooks/13_optimizers.ipynb st-ema-saved
impl Ema {
    /// The model's state with the averages in place of the parameters: what one saves.
    pub fn state_dict(&mut self, model: &dyn Module) -> StateDict {
        self.swap(model);
        let state = state_dict(model);
        self.swap(model);
        state
    }
}

// %% notebooks/13_optimizers.ipynb st-ema-state
fn ema_state(ema: &Ema) -> StateDict {
    let average =
        |(name, average): (&String, &Array)| (format!("averages/{name}"), Value::F32(average.clone()));
    let counts = Value::I64(Array::new(vec![ema.updates as i64, i64::from(ema.steps)], &[2]));
    ema.averages.iter().map(average).chain([("counts".to_owned(), counts)]).collect()
}

fn load_ema(ema: &mut Ema, state: &StateDict) {
    ema.averages.clear();
    for (name, value) in state {
        match (name.strip_prefix("averages/"), value) {
            (Some(name), Value::F32(average)) => drop(ema.averages.insert(name.to_owned(), average.clone())),
            (None, Value::I64(counts)) => (ema.updates, ema.steps) = (counts[[0]] as u64, counts[[1]] as u32),
            _ => {}
        }
    }
}

// %% notebooks/13_optimizers.ipynb st-ema-callback
use minai::learner::{Callback, Flow, Learner, Task};
use minai::nn::Mode;

/// The model has the averages if `wanted`, else its own parameters.
fn show<T: Task>(ema: &mut Ema, learner: &Learner<T>, wanted: bool) -> Flow {
    if ema.is_swapped != wanted {
        ema.swap(learner.task.model());
    }
    Flow::Continue
}

/// Batches without a step of the optimiser don't count.
fn update_after_step<T: Task>(ema: &mut Ema, learner: &Learner<T>) -> Flow {
    if learner.optimizer.steps() != ema.steps {
        ema.steps = learner.optimizer.steps();
        update(ema, learner.task.model());
    }
    Flow::Continue
}

// %% notebooks/13_optimizers.ipynb st-ema-impl
impl<T: Task> Callback<T> for Ema {
    fn before_fit(&mut self, learner: &mut Learner<T>) -> Flow {
        self.steps = learner.optimizer.steps();
        Flow::Continue
    }
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        show(self, learner, learner.mode == Mode::Eval)
    }
    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        update_after_step(self, learner)
    }
    fn after_epoch(&mut self, learner: &mut Learner<T>) -> Flow {
        show(self, learner, false)
    }
    fn after_fit(&mut self, learner: &mut Learner<T>) -> Flow {
        show(self, learner, false)
    }
    fn state(&self) -> StateDict {
        ema_state(self)
    }
    fn load_state(&mut self, state: &StateDict) {
        load_ema(self, state);
    }
}
