// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 2fc32c487a0ac722
//! Which learning rate is right: [`Learner::find_rate`], and the figure that it draws.

use crate::callbacks::RateFinder;
use crate::learner::{FitError, Learner, Task};

// %% notebooks/10_learner.ipynb cb-find-rate
use minai::plot::{Axes, Figure, Scale, axes, line, plot};

/// The most batches from the first rate to the last.
fn most_batches(finder: &RateFinder) -> usize {
    ((finder.last / finder.first).ln() / finder.factor.ln()) as usize + 2
}

/// The loss at rising learning rates. In a notebook it is shown as the figure.
#[derive(Debug)]
pub struct RateSearch {
    /// A rate to begin with: a tenth of the one at which the loss was lowest. `None` if no loss was finite.
    pub rate: Option<f32>,
    /// The losses over the rates.
    pub figure: Figure,
}

impl RateSearch {
    /// Shows the figure; evcxr calls it when a cell ends with a `RateSearch`.
    pub fn evcxr_display(&self) {
        self.figure.evcxr_display();
    }
}

// %% notebooks/10_learner.ipynb cb-find-rate-learner
use minai::generator::Generator;
use minai::state::{load_optimizer_state, load_state_dict, optimizer_state, state_dict};

/// Does something to a learner, and takes back what that changes in model, optimiser, task and random numbers.
fn undone<T: Task, R>(learner: &mut Learner<T>, work: impl FnOnce(&mut Learner<T>) -> R) -> R {
    let (model, optimizer) = (state_dict(learner.task.model()), optimizer_state(&learner.optimizer));
    let (task, checkpoint) = (learner.task.state(), learner.checkpoint.take());
    let generators = [learner.rng.state(), learner.pass.rng.state()];
    let result = work(learner);
    load_state_dict(learner.task.model(), &model).expect("the model that it was taken from");
    load_optimizer_state(&mut learner.optimizer, &optimizer).expect("the optimiser that it was taken from");
    learner.task.load_state(&task).expect("the task that it was taken from");
    let [rng, pass] = generators.map(|state| Generator::from_state(&state).expect("a generator's state"));
    (learner.rng, learner.pass.rng, learner.checkpoint) = (rng, pass, checkpoint);
    result
}

// %% notebooks/10_learner.ipynb cb-search
use minai::datasets::DataLoaders;
use minai::loader::Dataset;

fn search(finder: &RateFinder) -> RateSearch {
    let rate = finder.suggestion();
    let title = match rate {
        Some(rate) => format!("The loss while the rate rises; try {rate:.1e}"),
        None => "The loss is not finite at any rate".to_owned(),
    };
    let frame = Axes { x_scale: Scale::Log, ..axes("learning rate", "loss") };
    RateSearch { rate, figure: plot(&title, frame, [line("", &finder.rates, &finder.losses)]) }
}

// %% notebooks/10_learner.ipynb cb-search-learner
impl<T: Task> Learner<T> {
    /// Trains with higher and higher learning rates until the loss explodes, and draws the losses over the rates; see
    /// [`RateFinder`]. Afterwards everything is as it was. An interrupt ends it early.
    ///
    /// # Errors
    /// As for [`fit`](Self::fit).
    pub fn find_rate<D, E>(&mut self, loaders: &DataLoaders<D, E>) -> Result<RateSearch, FitError>
    where
        D: Dataset<Batch = T::Batch>,
        E: Dataset<Batch = T::Batch>,
    {
        let mut finder = RateFinder::default();
        let epochs = most_batches(&finder).div_ceil(loaders.train.len().max(1));
        undone(self, |learner| learner.fit(epochs, loaders, &mut finder))?;
        Ok(search(&finder))
    }
}
