//! What a learner does besides plain training: steps of other kinds, callbacks in every form, and what changes nothing.

use minai::array::Array;
use minai::gradients::grad_norm;
use minai::prelude::*;
use minai::rate_search::RateSearch;
use minai::state::{StateDict, StateError, load_optimizer_state, optimizer_state};
use std::ops::ControlFlow;

type Net = Classifier<Sequential>;

fn data() -> DataLoaders<Labelled> {
    let x = Generator::manual_seed(1).randn(&[90, 4]);
    let y: Vec<i64> = (0..90).map(|i| i64::from(x[[i, 0]] * x[[i, 1]] > 0.0)).collect();
    let data = Labelled::new(x, Array::new(y, &[90]));
    DataLoaders::new(data.clone(), data, LoaderOptions { batch_size: 16, ..LoaderOptions::default() })
}

fn net(rng: &mut Generator) -> Sequential {
    Sequential::new().add(Linear::new(rng, 4, 8)).add(Relu).add(Linear::new(rng, 8, 2))
}

fn learner(seed: u64) -> Learner<Net> {
    let mut rng = Generator::manual_seed(seed);
    let model = net(&mut rng).add(Dropout { p: 0.1 });
    let optimizer = Optimizer::new(&model, AdamW { lr: 0.01, ..AdamW::default() });
    Learner::new("test", Classifier { model }, optimizer, rng)
}

/// p ← p + factor · g for each parameter.
fn walk(optimizer: &Optimizer, factor: f32, gradients: &[Array]) {
    for ((_, p), gradient) in optimizer.parameters().iter().zip(gradients) {
        p.update(|p| p.iter_mut().zip(gradient.iter()).for_each(|(p, g)| *p += factor * g));
    }
}

/// All gradients, taken away, and their norm.
fn take_gradients(optimizer: &Optimizer) -> (Vec<Array>, f32) {
    let parameters = || optimizer.parameters().iter().map(|(_, p)| p);
    let norm = grad_norm(parameters()).expect("gradients");
    let gradients = parameters().map(|p| p.grad().expect("a gradient")).collect();
    optimizer.zero_grad();
    (gradients, norm)
}

const RADIUS: f32 = 0.05;

/// Its step is sharpness-aware minimisation (Foret et al. 2021, <https://arxiv.org/abs/2010.01412>): the gradient is that
/// of the point at which the loss is worst nearby.
struct Sharpness {
    model: Sequential,
}

impl Task for Sharpness {
    type Batch = (Array, Array<i64>);

    fn model(&self) -> &dyn Module {
        &self.model
    }

    fn predict(&self, (x, _): &Self::Batch, pass: &mut Pass) -> Tensor {
        self.model.forward(&x.clone().into(), pass)
    }

    fn loss(&self, predictions: &Tensor, (_, y): &Self::Batch) -> Tensor {
        cross_entropy(predictions, y)
    }

    fn len(&self, (_, y): &Self::Batch) -> usize {
        y.len()
    }

    fn step(step: &mut dyn Step<Self>) -> ControlFlow<()> {
        step.forward()?;
        step.backward()?;
        let (task, optimizer, pass, batch) = step.parts();
        let (gradients, norm) = take_gradients(optimizer);
        walk(optimizer, RADIUS / norm, &gradients);
        task.loss(&task.predict(batch, pass), batch).backward();
        walk(optimizer, -RADIUS / norm, &gradients);
        step.update();
        ControlFlow::Continue(())
    }
}

#[test]
fn a_task_writes_its_own_step() {
    let (loaders, mut rng) = (data(), Generator::manual_seed(2));
    let model = net(&mut rng);
    let optimizer = Optimizer::new(&model, Sgd { lr: 0.1, ..Sgd::default() });
    let (mut learner, mut recorder) =
        (Learner::new("sharp", Sharpness { model }, optimizer, rng), Recorder::new());
    learner.fit(1, &loaders, &mut recorder).unwrap();

    let mut rng = Generator::manual_seed(2);
    let model = net(&mut rng);
    let mut optimizer = Optimizer::new(&model, Sgd { lr: 0.1, ..Sgd::default() });
    let plan = loaders.train.plan(&mut rng);
    let (mut pass, mut losses) = (Pass::train(plan.network()), Vec::new());
    for (x, y) in loaders.train.batches(&plan, 0) {
        let x = Tensor::from(x);
        let loss = cross_entropy(&model.forward(&x, &mut pass), &y);
        loss.backward();
        losses.push(loss.item());
        let (gradients, norm) = take_gradients(&optimizer);
        walk(&optimizer, RADIUS / norm, &gradients);
        cross_entropy(&model.forward(&x, &mut pass), &y).backward();
        walk(&optimizer, -RADIUS / norm, &gradients);
        optimizer.step();
        optimizer.zero_grad();
    }
    assert_eq!(recorder.losses, losses);
    assert_eq!(state_dict(&learner.task.model), state_dict(&model));
    assert_eq!(learner.optimizer.steps(), 6);
}

/// Two networks with an optimiser each; each learns from half of the loss.
struct Two {
    both: Sequential,
    second: Optimizer,
}

impl Task for Two {
    type Batch = (Array, Array<i64>);

    fn model(&self) -> &dyn Module {
        &self.both
    }

    fn predict(&self, (x, _): &Self::Batch, pass: &mut Pass) -> Tensor {
        self.both.forward(&x.clone().into(), pass)
    }

    fn loss(&self, predictions: &Tensor, (_, y): &Self::Batch) -> Tensor {
        cross_entropy(predictions, y)
    }

    fn len(&self, (_, y): &Self::Batch) -> usize {
        y.len()
    }

    fn step(step: &mut dyn Step<Self>) -> ControlFlow<()> {
        step.forward()?;
        step.backward()?;
        let (task, ..) = step.parts();
        task.second.step();
        task.second.zero_grad();
        step.update();
        ControlFlow::Continue(())
    }

    fn state(&self) -> StateDict {
        optimizer_state(&self.second)
    }

    fn load_state(&mut self, state: &StateDict) -> Result<(), StateError> {
        load_optimizer_state(&mut self.second, state)
    }
}

fn two() -> Learner<Two> {
    let mut rng = Generator::manual_seed(2);
    let (first, last) = (Linear::new(&mut rng, 4, 8), Linear::new(&mut rng, 8, 2));
    let optimizer = Optimizer::new(&first, Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() });
    let second = Optimizer::new(&last, AdamW { lr: 0.1, ..AdamW::default() });
    let both = Sequential::new().add(first).add(Relu).add(last);
    Learner::new("two", Two { both, second }, optimizer, rng)
}

struct StopAt(usize);

impl<T: Task> Callback<T> for StopAt {
    fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        if learner.step().0 == self.0 { Flow::Stop } else { Flow::Continue }
    }
}

#[test]
fn a_second_optimiser_is_in_the_checkpoint() {
    let (loaders, folder) = (data(), tempfile::tempdir().unwrap());
    let path = folder.path().join("two.safetensors");
    let (mut whole, mut first, mut second) = (two(), two(), two());
    whole.fit(2, &loaders, ()).unwrap();
    assert_eq!((whole.optimizer.steps(), whole.task.second.steps()), (12, 12));
    first.checkpoint = Some(Checkpoint { path: path.clone(), every: Some(1) });
    first.fit(2, &loaders, StopAt(8)).unwrap();
    second.resume(&path).unwrap();
    second.fit(2, &loaders, ()).unwrap();
    assert_eq!(state_dict(&second.task.both), state_dict(&whole.task.both));
    assert_eq!(second.task.state(), whole.task.state());
}

/// Every kind of callback that remembers something, in a training that is resumed in the middle of a step.
#[test]
fn callbacks_survive_a_checkpoint() {
    let (loaders, folder) = (data(), tempfile::tempdir().unwrap());
    let path = folder.path().join("callbacks.safetensors");
    let callbacks = || (Accumulate::new(4), ClipNorm::new(0.1), Ema::new(0.9), Recorder::new());
    let (mut whole, mut all) = (learner(1), callbacks());
    whole.fit(3, &loaders, &mut all).unwrap();
    assert_eq!((whole.optimizer.steps(), all.1.norms.len(), all.3.losses.len()), (6, 6, 18));
    for stop in [1, 2, 4, 8, 13] {
        let (mut first, mut second, mut rest) = (learner(1), learner(2), callbacks());
        first.checkpoint = Some(Checkpoint { path: path.clone(), every: Some(1) });
        let (accumulate, clip, ema, recorder) = callbacks();
        first.fit(3, &loaders, (accumulate, clip, ema, recorder, StopAt(stop))).unwrap();
        second.resume(&path).unwrap();
        second.fit(3, &loaders, &mut rest).unwrap();
        assert_eq!(state_dict(&second.task.model), state_dict(&whole.task.model), "{stop}");
        assert_eq!(Callback::<Net>::state(&rest), Callback::<Net>::state(&all), "{stop}");
    }
}

/// Writes down when it is asked.
#[derive(Default)]
struct Log(Vec<&'static str>);

impl<T: Task> Callback<T> for Log {
    fn before_fit(&mut self, _: &mut Learner<T>) -> Flow {
        self.0.push("fit");
        Flow::Continue
    }
    fn after_epoch(&mut self, _: &mut Learner<T>) -> Flow {
        self.0.push("epoch");
        Flow::Continue
    }
}

#[test]
fn callbacks_come_in_every_form() {
    let loaders = data();
    let heard = |log: &mut Log| std::mem::take(&mut log.0).len();
    let [mut a, mut b, mut c] = [0; 3].map(|_| Log::default());
    let (mut learner, mut recorder) = (learner(1), Recorder::new());
    learner.fit(1, &loaders, ()).unwrap();
    learner.fit(1, &loaders, &mut a).unwrap();
    learner.fit(1, &loaders, (&mut b,)).unwrap();
    assert_eq!([&mut a, &mut b, &mut c].map(heard), [2, 2, 0]);
    learner.fit(1, &loaders, (&mut a, OneCycle::new(0.01), (&mut b, &mut recorder), Some(&mut c))).unwrap();
    assert_eq!(([&mut a, &mut b, &mut c].map(heard), recorder.losses.len()), ([2, 2, 2], 6));
    let none: Option<&mut Log> = None;
    learner.fit(1, &loaders, (none, [&mut a, &mut b])).unwrap();
    let mut list: Vec<&mut dyn Callback<Net>> = vec![&mut c, &mut recorder];
    learner.fit(1, &loaders, list.as_mut_slice()).unwrap();
    assert_eq!(([&mut a, &mut b, &mut c].map(heard), recorder.losses.len()), ([2, 2, 2], 12));
    // Where several disagree, the answer that changes most counts, wherever it stands.
    learner.fit(3, &loaders, ((StopAt(2), &mut a), &mut b)).unwrap();
    assert_eq!((learner.index, heard(&mut a), heard(&mut b)), (2, 1, 1));
}

#[test]
fn a_rate_search_changes_nothing() {
    let (loaders, folder) = (data(), tempfile::tempdir().unwrap());
    let state = |learner: &Learner<Net>| {
        let (model, optimizer) = (state_dict(&learner.task.model), optimizer_state(&learner.optimizer));
        (model, optimizer, learner.rng.state(), learner.pass.rng.state())
    };
    let mut learner = learner(1);
    learner.fit(1, &loaders, ()).unwrap();
    let (before, path) = (state(&learner), folder.path().join("none.safetensors"));
    learner.checkpoint = Some(Checkpoint::new(&path));
    let RateSearch { rate, .. } = learner.find_rate(&loaders).unwrap();
    assert!(state(&learner) == before && learner.checkpoint.is_some() && !path.exists());
    let rate = rate.expect("a rate");
    assert!((1e-4..0.5).contains(&rate), "{rate}");
    assert_eq!(*learner.optimizer.rule.lr(), 0.01);
}

#[test]
fn predictions_and_means_are_those_of_the_data_set() {
    let loaders = data();
    let mut learner = learner(1);
    let metrics = Metrics::new().add("accuracy", |scores, (_, y)| accuracy(scores, y));
    // The training loader shuffles; the predictions are in the data set's order all the same.
    let (scores, classes): (_, Array<i64>) = learner.predict(&loaders.train);
    let whole = loaders.train.dataset.x.clone().into();
    let expected = learner.task.model.forward(&whole, &mut Pass::eval());
    assert!(!scores.requires_grad() && classes == loaders.train.dataset.y);
    assert_eq!(scores.shape(), [90, 2]);
    assert!(scores.data.iter().zip(expected.data.iter()).all(|(a, b)| (a - b).abs() < 1e-6));
    let means = learner.validate(&loaders.train, &metrics);
    let evaluated = evaluate(&learner.task.model, &loaders.valid);
    assert_eq!(means.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["loss", "accuracy"]);
    assert!((means[0].1 - evaluated.loss).abs() < 1e-6 && (means[1].1 - evaluated.accuracy).abs() < 1e-6);
    assert!(means[0].1 > 0.1 && metrics.rows.is_empty());
    let empty = DataLoader::new(
        Labelled::new(Array::new(vec![], &[0, 4]), Array::new(Vec::<i64>::new(), &[0])),
        LoaderOptions::default(),
    );
    assert_eq!(learner.predict(&empty).0.shape(), [0]);
    assert!(learner.validate(&empty, &metrics)[0].1.is_nan());
}
