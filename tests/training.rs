//! The first steps of three trainings against PyTorch's: the same seed gives the same weights and the same batches, and
//! these the same losses. And models of either are the other's. `golden/make_training.py` makes the references, and says
//! how; `MINAI_GOLDEN` names a folder with others.
//!
//! PyTorch's losses are themselves off from those of the same training in double precision, which the references hold
//! as well. Ours may be off from PyTorch's by 1e-6 of their size and five times that error. `--nocapture` shows how much.

use minai::activation::leaky_relu;
use minai::array::{Array, array};
use minai::callbacks::Metrics;
use minai::conv::{Conv2d, ConvOptions};
use minai::datasets::DataLoaders;
use minai::generator::Generator;
use minai::io::{data::data_folder, mnist::load_mnist};
use minai::kernels::pool::Partial;
use minai::learner::{Callback, Classifier, Flow, Learner, Task, set_rates};
use minai::loader::{DataLoader, Labelled, LoaderOptions, rows};
use minai::loss::cross_entropy;
use minai::nn::{Flatten, Layer, Linear, Mode, Module, Parameter, Parts, Pass, Relu, Sequential};
use minai::norm::BatchNorm2d;
use minai::optim::{AdamW, Sgd};
use minai::optimizer::Optimizer;
use minai::pool::{Pool, avg_pool2d};
use minai::schedule::OneCycle;
use minai::state::{Metadata, load, load_state_dict, save, state_dict};
use minai::tensor::Tensor;
use minai::training::evaluate;
use minai_tests::reference::{Golden, folder, json, tensors};
use minai_tests::relative_error;
use serde_json::Value;
use std::collections::BTreeMap;

/// The references, and what the manifest says of them.
struct References {
    tensors: BTreeMap<String, Golden>,
    manifest: Value,
}

impl References {
    fn load() -> Self {
        let tensors = tensors(&folder().join("training.safetensors"));
        References { tensors, manifest: json(&folder().join("training.json")) }
    }

    fn values(&self, name: &str) -> Vec<f64> {
        self.tensors.get(name).unwrap_or_else(|| panic!("no values {name}")).doubles()
    }

    fn integers(&self, name: &str) -> Vec<i64> {
        match self.tensors.get(name) {
            Some(Golden::Integers(array)) => array.iter().copied().collect(),
            _ => panic!("no integers {name}"),
        }
    }

    fn seed(&self) -> u64 {
        self.manifest["seed"].as_u64().expect("a seed")
    }
}

/// What the manifest says of a model.
struct Options<'a>(&'a Value);

impl Options<'_> {
    fn real(&self, key: &str) -> f64 {
        self.0[key].as_f64().unwrap_or_else(|| panic!("no number {key} in {}", self.0))
    }

    fn whole(&self, key: &str) -> usize {
        self.0[key].as_u64().unwrap_or_else(|| panic!("no whole number {key} in {}", self.0)) as usize
    }

    fn list(&self, key: &str) -> Vec<usize> {
        let list = self.0[key].as_array().unwrap_or_else(|| panic!("no list {key} in {}", self.0));
        list.iter().map(|number| number.as_u64().expect("a whole number") as usize).collect()
    }
}

/// Two convolutions, and a way around them.
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm2d,
    conv2: Conv2d,
    bn2: BatchNorm2d,
    id: Option<Conv2d>,
    stride: usize,
}

impl Block {
    fn new(rng: &mut Generator, c_in: usize, c_out: usize, stride: usize) -> Block {
        let same = ConvOptions { padding: 1, ..ConvOptions::default() };
        Block {
            conv1: Conv2d::without_bias(rng, c_in, c_out, 3, same),
            bn1: BatchNorm2d::new(c_out),
            conv2: Conv2d::without_bias(rng, c_out, c_out, 3, ConvOptions { stride, ..same }),
            bn2: BatchNorm2d::new(c_out),
            id: (c_in != c_out).then(|| Conv2d::new(rng, c_in, c_out, 1, ConvOptions::default())),
            stride,
        }
    }
}

impl Module for Block {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv1", &self.conv1);
        parts.module("bn1", &self.bn1);
        parts.module("conv2", &self.conv2);
        parts.module("bn2", &self.bn2);
        if let Some(id) = &self.id {
            parts.module("id", id);
        }
    }
}

impl Layer for Block {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let y = pass.call("conv1", &self.conv1, x);
        let y = leaky_relu(&pass.call("bn1", &self.bn1, &y), 0.1);
        let y = pass.call("conv2", &self.conv2, &y);
        let y = pass.call("bn2", &self.bn2, &y);
        let ceil = Pool { partial: Partial::Keep, ..Pool::default() };
        let x = if self.stride == 2 { avg_pool2d(x, 2, ceil) } else { x.clone() };
        let x = match &self.id {
            Some(id) => pass.call("id", id, &x),
            None => x,
        };
        leaky_relu(&(&y + &x), 0.1)
    }
}

/// A model's kind and sizes are what the manifest says.
fn model(options: &Options, rng: &mut Generator) -> Sequential {
    let mut model = Sequential::new();
    if options.0.get("sizes").is_some() {
        for (i, pair) in options.list("sizes").windows(2).enumerate() {
            model = if i > 0 { model.add(Relu) } else { model };
            model = model.add(Linear::new(rng, pair[0], pair[1]));
        }
    } else if options.0.get("channels").is_some() {
        let halved = ConvOptions { stride: 2, padding: 1, ..ConvOptions::default() };
        for (i, pair) in options.list("channels").windows(2).enumerate() {
            model = if i > 0 { model.add(Relu) } else { model };
            model = model.add(Conv2d::new(rng, pair[0], pair[1], 3, halved));
        }
        model = model.add(Flatten);
    } else {
        let (mut size, mut features) = (28_usize, 0);
        for block in options.0["blocks"].as_array().expect("blocks") {
            let [c_in, c_out, stride] = [0, 1, 2].map(|i| block[i].as_u64().expect("a number") as usize);
            model = model.add(Block::new(rng, c_in, c_out, stride));
            size = size.div_ceil(stride);
            features = c_out * size * size;
        }
        model = model.add(Flatten).add(Linear::new(rng, features, options.whole("classes")));
    }
    model
}

fn optimizer(options: &Options, model: &dyn Module) -> Optimizer {
    match options.0["optimizer"].as_str() {
        Some("sgd") => {
            let (lr, momentum) = (options.real("lr") as f32, options.real("momentum") as f32);
            Optimizer::new(model, Sgd { lr, momentum, ..Sgd::default() })
        }
        Some("adam") => {
            let lr = options.real("lr") as f32;
            Optimizer::new(model, AdamW { lr, weight_decay: 0.0, ..AdamW::default() })
        }
        Some("adamw") => {
            let weight_decay = options.real("weight_decay") as f32;
            Optimizer::new(model, AdamW { weight_decay, ..AdamW::default() })
        }
        unknown => panic!("no such optimiser: {unknown:?}"),
    }
}

/// Sets rate and momentum of the next step, if they change.
fn schedule(options: &Options, optimizer: &mut Optimizer, step: usize) {
    if options.0.get("max_lr").is_some() {
        let (lr, momentum) = OneCycle::new(options.real("max_lr")).at(step, options.whole("steps"));
        set_rates(&mut *optimizer.rule, (lr as f32, Some(momentum as f32)));
    }
}

/// The sample of MNIST: training and validation images as this model takes them.
fn data(options: &Options) -> [Labelled; 2] {
    let path = data_folder().expect("the course's data").join("mnist_sample.pkl.gz");
    let (train, valid, _) = load_mnist(&path).unwrap();
    let shape: &[isize] = if options.0.get("sizes").is_some() { &[-1, 784] } else { &[-1, 1, 28, 28] };
    [train, valid].map(|(x, y)| {
        let (x, y) = (Array::from(x.into_shared().into_dyn()), Array::from(y.into_shared().into_dyn()));
        Labelled::new(x.reshape(shape), y)
    })
}

/// A number that changes when any weight, or the place of any, changes by a bit.
fn checksum(weights: &Array) -> i64 {
    let weighted = |(i, x): (usize, &f32)| (i as u64 + 1).wrapping_mul(x.to_bits().into());
    weights.iter().enumerate().map(weighted).fold(0, u64::wrapping_add) as i64
}

/// The weights, the generator that comes out of making them, and the data.
fn begin(golden: &References, name: &str) -> (Sequential, Generator, [Labelled; 2]) {
    let options = Options(&golden.manifest["models"][name]);
    let mut rng = Generator::manual_seed(golden.seed());
    let model = model(&options, &mut rng);
    let mut expected = 0;
    for (key, value) in state_dict(&model) {
        if let minai::state::Value::F32(weights) = value {
            let bits = golden.integers(&format!("{name}/bits.{key}"));
            assert_eq!(bits, [checksum(&weights)], "{name}: the first {key} is not PyTorch's");
            expected += 1;
        }
    }
    let all = golden.tensors.keys().filter(|key| key.starts_with(&format!("{name}/bits."))).count();
    assert_eq!(expected, all, "{name}: as many arrays as PyTorch's");
    (model, rng, data(&options))
}

/// Trains, and returns the losses and what the model then says to some validation images.
fn train(golden: &References, name: &str) -> (Vec<f32>, Tensor) {
    let options = Options(&golden.manifest["models"][name]);
    let (model, mut rng, [train, valid]) = begin(golden, name);
    let batch_size = options.whole("batch");
    let loader = DataLoader::new(train, LoaderOptions { batch_size, ..LoaderOptions::default() });
    let plan = loader.plan(&mut rng);
    let order: Vec<i64> = loader.indices(&plan).concat().into_iter().map(|i| i as i64).collect();
    let expected = golden.integers(&format!("{name}/order"));
    assert_eq!(&order[..expected.len()], expected, "{name}: the order is not PyTorch's");

    let (mut optimizer, mut pass, mut losses) = (optimizer(&options, &model), Pass::train(rng), vec![]);
    for (step, (x, y)) in loader.batches(&plan, 0).take(options.whole("steps")).enumerate() {
        schedule(&options, &mut optimizer, step);
        let (lr, beta1) = (golden.values(&format!("{name}/lr")), golden.values(&format!("{name}/beta1")));
        let now = (*optimizer.rule.lr(), optimizer.rule.momentum().copied());
        assert_eq!(now, (lr[step] as f32, Some(beta1[step] as f32)), "{name}, step {step}");
        let loss = cross_entropy(&model.forward(&x.into(), &mut pass), &y);
        loss.backward();
        optimizer.step();
        optimizer.zero_grad();
        losses.push(loss.item());
    }
    (losses, scores(golden, &model, &valid))
}

/// What a model says to the first validation images.
fn scores(golden: &References, model: &dyn Layer, valid: &Labelled) -> Tensor {
    let images = golden.manifest["images"].as_u64().expect("how many images") as usize;
    let images = rows(&valid.x, &(0..images).collect::<Vec<_>>());
    model.forward(&images.into(), &mut Pass::eval())
}

/// The largest difference, divided by the largest value expected.
fn difference(found: &Tensor, expected: &[f64]) -> f64 {
    relative_error(found.data.iter().map(|&x| f64::from(x)), expected)
}

/// Training through the learner stops after as many steps.
struct FirstSteps<'a> {
    options: Options<'a>,
    losses: Vec<f32>,
}

impl<T: Task> Callback<T> for FirstSteps<'_> {
    fn before_batch(&mut self, learner: &mut Learner<T>) -> Flow {
        if learner.mode == Mode::Train && self.losses.len() == self.options.whole("steps") {
            return Flow::Stop;
        }
        schedule(&self.options, &mut learner.optimizer, self.losses.len());
        Flow::Continue
    }

    fn after_loss(&mut self, learner: &mut Learner<T>) -> Flow {
        self.losses.push(learner.loss_value());
        Flow::Continue
    }
}

/// The same losses, from a learner.
fn learn(golden: &References, name: &str) -> Vec<f32> {
    let options = Options(&golden.manifest["models"][name]);
    let (model, rng, [train, valid]) = begin(golden, name);
    let batch_size = options.whole("batch");
    let loaders = DataLoaders::new(train, valid, LoaderOptions { batch_size, ..LoaderOptions::default() });
    let optimizer = optimizer(&options, &model);
    let mut learner = Learner::new(name, Classifier { model }, optimizer, rng);
    let mut steps = FirstSteps { options, losses: vec![] };
    learner.fit(1, &loaders, &mut steps).unwrap();
    steps.losses
}

fn compare(name: &str) {
    let golden = References::load();
    let (losses, scores) = train(&golden, name);
    let (expected, exact) =
        (golden.values(&format!("{name}/losses")), golden.values(&format!("{name}/losses64")));
    assert!(!losses.is_empty() && losses.len() == expected.len() && losses.len() == exact.len(), "{name}");
    let (mut peers, mut worst) = (0.0_f64, 0.0_f64);
    for (step, (&loss, (torch, exact))) in losses.iter().zip(expected.into_iter().zip(exact)).enumerate() {
        peers = peers.max((torch - exact).abs() / exact);
        let error = (f64::from(loss) - torch).abs() / torch;
        assert!(
            error <= 1e-6 + 5.0 * peers,
            "{name}, step {step}: loss {loss}, not {torch}: off by {error:.1e}"
        );
        worst = worst.max(error);
    }
    let off = difference(&scores, &golden.values(&format!("{name}/scores")));
    println!("{name}: losses {worst:.1e} (PyTorch's own error {peers:.1e}), scores {off:.1e}");
    assert!(off <= 1e-5, "{name}: the scores afterwards are off by {off:.1e} of the largest");
    assert_eq!(learn(&golden, name), losses, "{name}: a learner takes the same steps, to the last bit");
}

#[test]
fn a_perceptron_trains_as_in_pytorch() {
    compare("mlp");
}

#[test]
fn a_convolutional_network_trains_as_in_pytorch() {
    compare("cnn");
}

#[test]
fn a_residual_network_trains_as_in_pytorch() {
    compare("resnet");
}

/// A model that calls no layer through its pass.
struct Hidden(Linear);

impl Module for Hidden {
    fn parts(&self, parts: &mut Parts) {
        parts.module("0", &self.0);
    }
}

impl Layer for Hidden {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        self.0.forward(x, pass)
    }
}

/// What the report on a training says in which one weight of `linear` is NaN.
fn report<L: Layer>(model: L, linear: &Parameter) -> String {
    linear.update(|weight| weight[0] = f32::NAN);
    let data = Labelled::new(Array::new(vec![1.0; 16], &[8, 2]), Array::new(vec![0; 8], &[8]));
    let loaders = DataLoaders::new(data.clone(), data, LoaderOptions::default());
    let optimizer = Optimizer::new(&model, AdamW::default());
    let mut learner = Learner::new("spoilt", Classifier { model }, optimizer, Generator::manual_seed(3));
    learner.fit(1, &loaders, ()).unwrap_err().to_string()
}

#[test]
fn a_divergence_that_no_hook_saw_is_not_blamed_on_the_loss() {
    let linear = || Linear::new(&mut Generator::manual_seed(3), 2, 3);
    let hidden = Hidden(linear());
    let weight = hidden.0.weight.clone();
    let text = report(hidden, &weight);
    assert!(text.contains("no layer was seen") && !text.contains("are finite"), "{text}");
    let seen = linear();
    let weight = seen.weight.clone();
    let text = report(Sequential::new().add(seen), &weight);
    assert!(text.contains("the first non-finite output came from layer `0` (Linear)"), "{text}");
}

#[test]
fn a_schedule_is_for_one_training_only() {
    let mut rng = Generator::manual_seed(3);
    let model = Sequential::new().add(Linear::new(&mut rng, 2, 3));
    let data = Labelled::new(rng.randn(&[8, 2]), Array::new((0..8).map(|i| i % 3).collect(), &[8]));
    let loaders =
        DataLoaders::new(data.clone(), data, LoaderOptions { batch_size: 4, ..LoaderOptions::default() });
    let optimizer = Optimizer::new(&model, AdamW { lr: 0.125, ..AdamW::default() });
    let mut learner = Learner::new("twice", Classifier { model }, optimizer, rng);
    let means = |learner: &mut Learner<_>| learner.validate(&loaders.valid, &Metrics::new())[0].1;
    let before = means(&mut learner);
    learner.fit(2, &loaders, OneCycle::new(0.02)).unwrap();
    let rule = &mut learner.optimizer.rule;
    assert_eq!((*rule.lr(), rule.momentum().copied()), (0.125, Some(0.9)));
    // The cycle's last rate, 8e-8, would change nothing more.
    let between = means(&mut learner);
    learner.fit(2, &loaders, ()).unwrap();
    let after = means(&mut learner);
    assert!(between < before - 0.001 && after < between - 0.1, "loss {before}, {between}, {after}");
}

#[test]
fn every_reference_is_compared() {
    let golden = References::load();
    let models = golden.manifest["models"].as_object().expect("models");
    assert_eq!(models.keys().collect::<Vec<_>>(), ["mlp", "cnn", "resnet"]);
    let known = |name: &String| models.keys().any(|model| name.starts_with(&format!("{model}/")));
    assert!(golden.tensors.keys().all(known));
}

#[test]
fn a_model_from_pytorch_says_the_same_here() {
    let golden = References::load();
    let options = Options(&golden.manifest["models"]["resnet"]);
    let (state, metadata) = load(folder().join("pytorch.safetensors")).unwrap();
    assert_eq!(metadata["format"], "pt");
    let model = model(&options, &mut Generator::manual_seed(0));
    load_state_dict(&model, &state).unwrap();
    let [_, valid] = data(&options);
    let off = difference(&scores(&golden, &model, &valid), &golden.values("resnet/scores"));
    println!("scores {off:.1e}");
    assert!(off <= 5e-6, "off by {off:.1e} of the largest score");
    assert_eq!(state_dict(&model), state, "and the state is what it was");
}

#[test]
fn a_model_trained_here_says_the_same_in_pytorch() {
    let golden = References::load();
    let options = Options(&golden.manifest["models"]["resnet"]);
    let path = folder().join("trained.safetensors");
    let (state, metadata) = load(&path).unwrap();
    // PyTorch has read the file that we would write now.
    let folder_now = tempfile::tempdir().unwrap();
    let now = folder_now.path().join("now.safetensors");
    save(&now, &state, &metadata).unwrap();
    assert!(std::fs::read(&now).unwrap() == std::fs::read(&path).unwrap(), "another file than the one saved");
    let model = model(&options, &mut Generator::manual_seed(0));
    load_state_dict(&model, &state).unwrap();
    let [_, valid] = data(&options);
    let (answers, _) = load(folder().join("answers.safetensors")).unwrap();
    let minai::state::Value::F32(answers) = &answers["scores"] else { panic!("scores are floats") };
    let answers: Vec<f64> = answers.iter().map(|&score| score.into()).collect();
    let off = difference(&scores(&golden, &model, &valid), &answers);
    println!("scores {off:.1e}");
    assert!(off <= 5e-6, "off by {off:.1e} of the largest score");
}

/// Makes `trained.safetensors`, for which PyTorch then makes `answers.safetensors`.
#[test]
#[ignore = "writes a reference"]
fn train_a_model_for_pytorch() {
    let golden = References::load();
    let options = Options(&golden.manifest["models"]["resnet"]);
    let mut rng = Generator::manual_seed(golden.seed());
    let (model, [train, valid]) = (model(&options, &mut rng), data(&options));
    let loaders = DataLoaders::new(train, valid, LoaderOptions::default());
    let optimizer = Optimizer::new(&model, AdamW::default());
    let mut learner = Learner::new("trained", Classifier { model }, optimizer, rng);
    learner.fit(2, &loaders, OneCycle::new(0.01)).unwrap();
    let score = evaluate(&learner.task.model, &loaders.valid);
    println!("{score:?}");
    assert!(score.accuracy > 0.95, "{score:?}");
    let metadata = Metadata::from([("format".to_owned(), "pt".to_owned())]);
    save(folder().join("trained.safetensors"), &state_dict(&learner.task.model), &metadata).unwrap();
}

#[test]
#[should_panic(expected = "inputs [3, 2], targets [2]")]
fn labelled_data_has_as_many_targets_as_inputs() {
    let inputs = array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]);
    Labelled::new(inputs, array([0, 1]));
}
