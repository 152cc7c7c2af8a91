//! The operations and optimisers against PyTorch's results and gradients: the files in `golden/`, or those of the same
//! form in the folder that `MINAI_GOLDEN` names. Shapes and options come from the files.
//!
//! Differences are relative to a tensor's largest value. `--nocapture` shows the largest of each case.

use minai::activation::{gelu, gelu_tanh, leaky_relu, quick_gelu, silu, softplus};
use minai::array::Array;
use minai::attention::scaled_dot_product_attention;
use minai::conv::{ConvOptions, conv_transpose2d, conv2d};
use minai::embedding::embedding;
use minai::generator::Generator;
use minai::kernels::attention::Mask;
use minai::kernels::pool::Partial;
use minai::loss::{
    binary_cross_entropy_with_logits, cross_entropy, log_softmax, logsumexp, mse_loss, softmax,
};
use minai::norm::{Running, batch_norm, batch_norm_eval, group_norm, layer_norm};
use minai::optim::{Adam, AdamW, RmsProp, Sgd};
use minai::optimizer::Rule;
use minai::pool::{Pool, avg_pool2d, max_pool2d, upsample_nearest};
use minai::schedule::{Cosine, OneCycle, Schedule};
use minai::tensor::{Tensor, cat};
use minai_tests::difference;
use minai_tests::reference::{Golden, folder, json, tensors};
use ndarray::s;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// As far as a result may be off.
const TOLERANCE: f32 = 1e-5;

/// The tensors of a file, and what the manifest says of them.
fn load(name: &str) -> (BTreeMap<String, Golden>, serde_json::Map<String, Value>) {
    let tensors = tensors(&folder().join(name).with_extension("safetensors"));
    let manifest = json(&folder().join("manifest.json"));
    (tensors, manifest["files"][name].as_object().unwrap().clone())
}

/// A case of `ops.safetensors`.
struct Case<'a> {
    name: &'a str,
    options: &'a Value,
    all: &'a BTreeMap<String, Golden>,
    /// The names of the tensors that were asked for.
    seen: BTreeSet<String>,
    /// The largest difference so far.
    worst: f32,
}

impl Case<'_> {
    fn get(&mut self, name: &str) -> &Golden {
        let name = format!("{}/{name}", self.name);
        self.seen.insert(name.clone());
        self.all.get(&name).unwrap_or_else(|| panic!("{name} is not there"))
    }

    fn floats(&mut self, name: &str) -> Array {
        let Golden::Floats(array) = self.get(name) else { panic!("{}/{name}: floats expected", self.name) };
        array.clone()
    }

    fn integers(&mut self, name: &str) -> Array<i64> {
        let Golden::Integers(array) = self.get(name) else {
            panic!("{}/{name}: integers expected", self.name)
        };
        array.clone()
    }

    fn option(&self, name: &str) -> &Value {
        self.options.get(name).unwrap_or_else(|| panic!("{}: no option {name}", self.name))
    }

    fn whole(&self, name: &str) -> usize {
        let number = self.option(name).as_u64();
        number.unwrap_or_else(|| panic!("{}: {name} is no whole number", self.name)) as usize
    }

    fn real(&self, name: &str) -> f32 {
        self.option(name).as_f64().unwrap_or_else(|| panic!("{}: {name} is no number", self.name)) as f32
    }

    fn axis(&self) -> isize {
        self.option("dim").as_i64().expect("an axis") as isize
    }

    fn compare(&mut self, name: &str, found: &Array) {
        let expected = self.floats(name);
        let error = difference(found, &expected);
        assert!(error <= TOLERANCE, "{}/{name}: off by {error:.1e} of the largest value", self.name);
        self.worst = self.worst.max(error);
    }

    /// Computes `f` of the named inputs, and compares result and gradients.
    fn check(&mut self, inputs: &[&str], f: impl FnOnce(&Self, &[Tensor]) -> Tensor) {
        let parameters: Vec<Tensor> =
            inputs.iter().map(|name| Tensor::parameter(self.floats(&format!("in.{name}")))).collect();
        let y = f(self, &parameters);
        self.compare("out", &y.data);
        y.backward_from(self.floats("cot"));
        for (name, parameter) in inputs.iter().zip(&parameters) {
            let gradient = parameter.grad().unwrap_or_else(|| panic!("{}: no gradient of {name}", self.name));
            self.compare(&format!("grad.{name}"), &gradient);
        }
    }

    fn conv_options(&self) -> ConvOptions {
        let or = |name, default| if self.options.get(name).is_some() { self.whole(name) } else { default };
        ConvOptions {
            stride: self.whole("stride"),
            padding: self.whole("padding"),
            dilation: or("dilation", 1),
            groups: or("groups", 1),
        }
    }

    fn run(&mut self) {
        let op = self.option("op").as_str().expect("an operation's name").to_owned();
        match op.as_str() {
            "conv2d" => {
                self.check(&["x", "w", "b"], |case, x| conv2d(&x[0], &x[1], Some(&x[2]), case.conv_options()))
            }
            "conv_transpose2d" => self.check(&["x", "w", "b"], |case, x| {
                conv_transpose2d(&x[0], &x[1], Some(&x[2]), case.conv_options())
            }),
            "group_norm" => self.check(&["x", "w", "b"], |case, x| {
                group_norm(&x[0], case.whole("groups"), &x[1], &x[2], case.real("eps"))
            }),
            "layer_norm" => {
                self.check(&["x", "w", "b"], |case, x| layer_norm(&x[0], &x[1], &x[2], case.real("eps")))
            }
            "batch_norm" if self.option("training") == true => self.check(&["x", "w", "b"], |case, x| {
                let mut running =
                    Running { momentum: case.real("momentum"), ..Running::new(x[1].data.len()) };
                batch_norm(&x[0], &x[1], &x[2], &mut running, case.real("eps"))
            }),
            "batch_norm" => {
                let running = Running { mean: self.floats("mean"), var: self.floats("var"), momentum: 0.0 };
                self.check(&["x", "w", "b"], |case, x| {
                    batch_norm_eval(&x[0], &x[1], &x[2], &running, case.real("eps"))
                });
            }
            "running statistics after one training step from mean 0, var 1; unbiased variance" => {
                let x = Tensor::from(self.floats("in.x"));
                let channels = x.shape()[1];
                let mut running = Running { momentum: self.real("momentum"), ..Running::new(channels) };
                let (weight, bias) = (Tensor::ones(&[channels]), Tensor::zeros(&[channels]));
                batch_norm(&x, &weight, &bias, &mut running, 1e-5);
                self.compare("mean", &running.mean);
                self.compare("var", &running.var);
            }
            "relu" => self.check(&["x"], |_, x| x[0].relu()),
            "gelu" => self.check(&["x"], |_, x| gelu(&x[0])),
            "gelu_tanh" => self.check(&["x"], |_, x| gelu_tanh(&x[0])),
            "quick_gelu" => self.check(&["x"], |_, x| quick_gelu(&x[0])),
            "silu" => self.check(&["x"], |_, x| silu(&x[0])),
            "sigmoid" => self.check(&["x"], |_, x| x[0].sigmoid()),
            "tanh" => self.check(&["x"], |_, x| x[0].tanh()),
            "softplus" => self.check(&["x"], |_, x| softplus(&x[0])),
            "exp" => self.check(&["x"], |_, x| x[0].exp()),
            "leaky_relu" => self.check(&["x"], |case, x| leaky_relu(&x[0], case.real("slope"))),
            "softmax" => self.check(&["x"], |case, x| softmax(&x[0], case.axis())),
            "log_softmax" => self.check(&["x"], |case, x| log_softmax(&x[0], case.axis())),
            "logsumexp" => self.check(&["x"], |case, x| logsumexp(&x[0], case.axis())),
            "cross_entropy" => {
                assert_eq!(self.option("reduction"), "mean");
                let targets = self.integers("target");
                self.check(&["x"], |_, x| cross_entropy(&x[0], &targets));
            }
            "mse_loss" => self.check(&["x", "y"], |_, x| mse_loss(&x[0], &x[1])),
            "binary_cross_entropy_with_logits" => self.check(&["x"], |case, x| {
                let targets = Tensor::full(x[0].shape(), case.real("target"));
                binary_cross_entropy_with_logits(&x[0], &targets)
            }),
            "matmul" => self.check(&["a", "b"], |_, x| x[0].matmul(&x[1])),
            "a*b+c" => self.check(&["a", "b", "c"], |_, x| &x[0] * &x[1] + &x[2]),
            "attention" => self.check(&["q", "k", "v"], |case, x| {
                let causal = case.options.get("causal").is_some_and(|causal| causal == true);
                let mask = if causal { Mask::Causal } else { Mask::None };
                scaled_dot_product_attention(&x[0], &x[1], &x[2], mask)
            }),
            "avg_pool2d" => self.check(&["x"], |case, x| {
                let partial = if case.option("ceil") == true { Partial::Keep } else { Partial::Skip };
                avg_pool2d(&x[0], case.whole("kernel"), Pool { partial, ..Pool::default() })
            }),
            "max_pool2d" => self.check(&["x"], |case, x| {
                let (stride, padding) = (Some(case.whole("stride")), case.whole("padding"));
                max_pool2d(&x[0], case.whole("kernel"), Pool { stride, padding, ..Pool::default() })
            }),
            "upsample_nearest" => self.check(&["x"], |case, x| upsample_nearest(&x[0], case.whole("scale"))),
            "embedding" => {
                let indices = self.integers("idx");
                self.check(&["w"], |_, x| embedding(&indices, &x[0]));
            }
            "permute(0,2,3,1).reshape(n,-1,2)" => self.check(&["x"], |_, x| {
                x[0].permute(&[0, 2, 3, 1]).reshape(&[x[0].shape()[0] as isize, -1, 2])
            }),
            "cat(dim=1)[:,1:-1,::2]" => {
                // To the last but one: clippy takes -1 for a mistake.
                let last = -1;
                self.check(&["x", "y"], |_, x| cat(&[&x[0], &x[1]], 1).slice(s![.., 1..last, ..;2]));
            }
            "var+mean+std over (1,2), unbiased" => {
                self.check(&["x"], |_, x| x[0].var([1, 2]) + x[0].mean([1, 2]) + x[0].std([1, 2]));
            }
            unknown => panic!("{}: no such operation: {unknown}", self.name),
        }
    }
}

#[test]
fn operations_and_gradients_are_pytorchs() {
    let (all, manifest) = load("ops");
    let mut seen = BTreeSet::new();
    assert!(!manifest.is_empty());
    for (name, options) in &manifest {
        let mut case = Case { name, options, all: &all, seen: BTreeSet::new(), worst: 0.0 };
        case.run();
        println!("{name:20} {:.1e}", case.worst);
        seen.extend(case.seen);
    }
    let unseen: Vec<_> = all.keys().filter(|name| !seen.contains(*name)).collect();
    assert!(unseen.is_empty(), "nothing was compared with {unseen:?}");
}

#[test]
fn optimisers_take_pytorchs_steps() {
    let (all, manifest) = load("optim");
    let floats = |name: &str| match all.get(name) {
        Some(Golden::Floats(array)) => array.as_slice().unwrap().to_vec(),
        _ => panic!("optim: no floats {name}"),
    };
    let (start, gradients) = (floats("p0"), floats("grads"));
    assert!(!manifest.is_empty());
    for (name, options) in &manifest {
        if all.contains_key(&format!("{name}.lr")) {
            continue; // learning rates, not steps: see the next test
        }
        let real =
            |key: &str| options[key].as_f64().unwrap_or_else(|| panic!("{name}: no number {key}")) as f32;
        let off = |keys: &[&str]| {
            let is_off = |key: &&str| options[key] == false || options[key].as_f64() == Some(0.0);
            assert!(keys.iter().all(is_off), "{name}: one of {keys:?} is on, and none is built");
        };
        let (expected, n) = (floats(name), start.len());
        let rule: Box<dyn Rule> = {
            match name.as_str() {
                "sgd" | "momentum" | "sgd_wd" => {
                    off(&["dampening", "nesterov", "maximize"]);
                    let (lr, momentum, weight_decay) = (real("lr"), real("momentum"), real("weight_decay"));
                    Box::new(Sgd { lr, momentum, weight_decay })
                }
                "rmsprop" => {
                    off(&["momentum", "centered", "weight_decay", "maximize"]);
                    Box::new(RmsProp { lr: real("lr"), alpha: real("alpha"), eps: real("eps") })
                }
                "adam" | "adamw" => {
                    off(&["amsgrad", "maximize"]);
                    let [beta1, beta2] = [0, 1].map(|i| options["betas"][i].as_f64().unwrap() as f32);
                    let (lr, eps, weight_decay) = (real("lr"), real("eps"), real("weight_decay"));
                    assert!(weight_decay == 0.0 || options["decoupled_weight_decay"] == true, "{name}");
                    match name.as_str() {
                        "adam" => Box::new(Adam { lr, beta1, beta2, eps, weight_decay }),
                        _ => Box::new(AdamW { lr, beta1, beta2, eps, weight_decay }),
                    }
                }
                unknown => panic!("no such optimiser: {unknown}"),
            }
        };
        let (mut p, mut memory) = (start.clone(), vec![vec![0.0; n]; rule.memory().len()]);
        let mut worst = 0.0_f32;
        for (t, g) in gradients.chunks(n).enumerate() {
            rule.update(t as u32 + 1, &mut p, g, &mut memory);
            let list = |floats: &[f32]| Array::new(floats.to_vec(), &[n]);
            let error = difference(&list(&p), &list(&expected[t * n..(t + 1) * n]));
            assert!(error <= TOLERANCE, "{name}, step {t}: off by {error:.1e} of the largest value");
            worst = worst.max(error);
        }
        println!("{name:20} {worst:.1e}");
    }
}

#[test]
fn schedules_are_pytorchs() {
    let (all, manifest) = load("optim");
    let mut seen = 0;
    for (name, options) in &manifest {
        let rates = |what: &str| match all.get(&format!("{name}.{what}")) {
            Some(Golden::Doubles(rates)) => Some(rates.iter().copied().collect::<Vec<_>>()),
            _ => None,
        };
        let Some(rate) = rates("lr") else { continue };
        let beta1 = rates("beta1").unwrap_or_else(|| panic!("{name}: rates without beta1"));
        let real = |key: &str| options[key].as_f64().unwrap_or_else(|| panic!("{name}: no number {key}"));
        let (schedule, steps) = if options.get("T_max").is_some() {
            (Schedule::from(Cosine { lr: real("lr"), least: real("eta_min") }), real("T_max"))
        } else {
            assert_eq!(options["anneal"], "cos", "{name}");
            let momentum = (real("base_momentum"), real("max_momentum"));
            let (warmup, start, end) = (real("pct_start"), real("div_factor"), real("final_div_factor"));
            let cycle = OneCycle { lr: real("max_lr"), warmup, start, end, momentum };
            (Schedule::from(cycle), real("total_steps"))
        };
        assert!(!rate.is_empty() && rate.len() == beta1.len(), "{name}");
        let (mut worst, largest) = (0.0_f64, rate.iter().copied().fold(0.0, f64::max));
        for (step, (&lr, &beta1_then)) in rate.iter().zip(&beta1).enumerate() {
            let (found, momentum) = schedule.at(step, steps as usize);
            // A schedule that leaves the momentum alone leaves it as it was at first.
            let off = (momentum.unwrap_or(beta1[0]) - beta1_then).abs();
            let error = off.max((found - lr).abs() / largest);
            assert!(error <= 1e-12, "{name}, step {step}: off by {error:.1e}");
            worst = worst.max(error);
        }
        println!("{name:20} {worst:.1e}");
        seen += 1;
    }
    assert!(seen > 0, "no schedule was compared");
}

/// A call such as `randint(0,1000,(20,))`: its name and the numbers in it.
fn call(text: &str) -> (&str, Vec<usize>) {
    let (name, arguments) = text.split_once('(').unwrap_or_else(|| panic!("no call: {text}"));
    let numbers = arguments.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    (name, numbers.map(|digits| digits.parse().expect("a number")).collect())
}

#[test]
fn the_generator_draws_pytorchs_numbers() {
    let (mut all, manifest) = load("torch_rng");
    let mut rng = Generator::manual_seed(manifest["seed"].as_u64().expect("a seed"));
    for text in manifest["order"].as_array().expect("calls in order") {
        let (name, numbers) = call(text.as_str().expect("a call"));
        // Two results of one name are told apart by their shapes.
        let sizes: Vec<_> = numbers.iter().map(usize::to_string).collect();
        let long = format!("{name}_{}", sizes.join("x"));
        let expected = all.remove(name).or_else(|| all.remove(&long));
        match (name, expected.unwrap_or_else(|| panic!("neither {name} nor {long} is there"))) {
            ("rand", Golden::Floats(expected)) => assert_eq!(rng.rand(&numbers), expected),
            ("randn", Golden::Floats(expected)) => {
                let error = difference(&rng.randn(&numbers), &expected);
                println!("{text} {error:.1e}");
                assert!(error <= 1e-6, "{text}: off by {error:.1e} of the largest value");
            }
            ("randint", Golden::Integers(expected)) => {
                let [low, high] = [0, 1].map(|i| numbers[i] as i64);
                assert_eq!(rng.randint(low, high, &numbers[2..]), expected);
            }
            ("randperm", Golden::Integers(expected)) => {
                let order: Vec<i64> = rng.randperm(numbers[0]).into_iter().map(|i| i as i64).collect();
                assert_eq!(order, expected.as_slice().unwrap());
            }
            _ => panic!("no such draw: {text}"),
        }
    }
    assert!(all.is_empty(), "nothing was compared with {:?}", all.keys());
}
