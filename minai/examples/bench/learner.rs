//! Training with modules and a loader, in a bare loop and through `Learner`.

use crate::Bench;
use minai::conv::{Conv2d, ConvOptions};
use minai::datasets::DataLoaders;
use minai::generator::Generator;
use minai::learner::{Callback, Classifier, Flow, Learner, Task};
use minai::loader::{Dataset, Labelled, LoaderOptions};
use minai::loss::cross_entropy;
use minai::nn::{Flatten, Layer, Linear, Pass, Relu, Sequential};
use minai::optim;
use minai::optimizer::Optimizer;
use minai::resnet::resnet;
use minai::training::Classes;
use serde_json::json;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Examples without end: the same few batches again and again.
struct Repeated {
    data: Labelled,
    len: usize,
}

impl Dataset for Repeated {
    type Batch = Classes;

    fn len(&self) -> usize {
        self.len
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> Classes {
        let indices: Vec<usize> = indices.iter().map(|i| i % self.data.len()).collect();
        self.data.batch(&indices, rng)
    }
}

/// Writes down when batches are done, and stops when there are enough.
#[derive(Default)]
struct Clock {
    times: Vec<Instant>,
}

impl Clock {
    /// The median time from one batch to the next.
    fn median(&self) -> f64 {
        let mut steps: Vec<f64> =
            self.times.windows(2).skip(5).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect();
        steps.sort_by(f64::total_cmp);
        steps[steps.len() / 2]
    }

    fn is_enough(&mut self) -> bool {
        self.times.push(Instant::now());
        let n = self.times.len();
        n > 8 && (n > 1000 || self.times[n - 1] - self.times[0] > Duration::from_millis(1500))
    }
}

impl<T: Task> Callback<T> for Clock {
    fn after_batch(&mut self, _: &mut Learner<T>) -> Flow {
        if self.is_enough() { Flow::Stop } else { Flow::Continue }
    }
}

/// The same training with modules and a loader: in a bare loop (`NAME_bare`), and through `Learner` (`NAME_learner`).
fn with_loader<L: Layer>(
    bench: &mut Bench,
    name: &str,
    batch_size: usize,
    shape: &[usize],
    parts: impl Fn(&mut Generator) -> (L, Optimizer),
) {
    let names = [format!("{name}_bare"), format!("{name}_learner")];
    if !names.iter().any(|name| bench.wants(name)) {
        return;
    }
    let mut rng = Generator::manual_seed(42);
    let rows = 4 * batch_size;
    let x = rng.randn(&[&[rows], shape].concat());
    let data = Labelled::new(x, rng.randint(0, 10, &[rows]));
    let (all, few) = (1_100 * batch_size, Repeated { data: data.clone(), len: batch_size });
    let options = LoaderOptions { batch_size, ..LoaderOptions::default() };
    let loaders = DataLoaders::new(Repeated { data, len: all }, few, options);
    // One after the other, three times: what else goes on in the machine meets both.
    let mut medians = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        let (model, mut optimizer) = parts(&mut rng);
        let (mut clock, mut pass) = (Clock::default(), Pass::train(rng.split()));
        for (x, y) in loaders.train.epoch(&mut rng) {
            let loss = cross_entropy(&model.forward(&x.into(), &mut pass), &y);
            loss.backward();
            optimizer.step();
            optimizer.zero_grad();
            black_box(loss.item());
            if clock.is_enough() {
                break;
            }
        }
        medians[0].push(clock.median());
        let (model, optimizer) = parts(&mut rng);
        let mut clock = Clock::default();
        let mut learner = Learner::new(name, Classifier { model }, optimizer, rng.split());
        learner.fit(1, &loaders, &mut clock).expect("a training that learns");
        medians[1].push(clock.median());
    }
    for (name, mut medians) in names.into_iter().zip(medians) {
        medians.sort_by(f64::total_cmp);
        let median = (medians[1] * 1e4).round() / 1e4;
        eprintln!("{name} {median}");
        bench.ms.insert(name, json!(median));
    }
}

pub fn training_with_loader(bench: &mut Bench) {
    for n in [50, 1024] {
        with_loader(bench, &format!("train_mlp_784_50_10_b{n}"), n, &[784], |rng| {
            let one = Linear::new(rng, 784, 50);
            let model = Sequential::new().add(one).add(Relu).add(Linear::new(rng, 50, 10));
            let optimizer = Optimizer::new(&model, optim::Sgd { lr: 0.1, ..optim::Sgd::default() });
            (model, optimizer)
        });
    }
    with_loader(bench, "train_cnn_1_4_8_16_16_10_b256", 256, &[1, 28, 28], |rng| {
        let options = ConvOptions { stride: 2, padding: 1, ..ConvOptions::default() };
        let mut model = Sequential::new();
        for c in [1, 4, 8, 16, 16].windows(2) {
            model = model.add(Conv2d::new(rng, c[0], c[1], 3, options)).add(Relu);
        }
        let model = model.add(Conv2d::new(rng, 16, 10, 3, options)).add(Flatten);
        let optimizer = Optimizer::new(&model, optim::Sgd { lr: 0.1, ..optim::Sgd::default() });
        (model, optimizer)
    });
    with_loader(bench, "train_resnet_8_256_b256", 256, &[1, 28, 28], |rng| {
        let model = resnet(rng, 1, &[8, 16, 32, 64, 128, 256], 10);
        let optimizer = Optimizer::new(&model, optim::AdamW::default());
        (model, optimizer)
    });
}
