//! The samplers: against diffusers' and k-diffusion's trajectories (the files in `golden/`, or those of the same form in
//! the folder that `MINAI_GOLDEN` names), against closed forms, and with arguments that are no good.
//!
//! Differences are relative to a tensor's largest value. `--nocapture` shows the largest of each sampler.

use minai::array::Array;
use minai::denoiser::noise_in;
use minai::noise::{NoiseSchedule, karras};
use minai::samplers::{
    Dpm2, DpmPp2M, DpmPp2SAncestral, Euler, EulerAncestral, Heun, Last, Lms, NAMES, Options, Sampler,
    Spacing, by_name, sample,
};
use minai::tensor::{Tensor, stack};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

const TOLERANCE: f64 = 1e-5;

fn read(name: &str) -> Vec<u8> {
    let own = || concat!(env!("CARGO_MANIFEST_DIR"), "/golden").into();
    let path = std::env::var_os("MINAI_GOLDEN").map_or_else(own, PathBuf::from).join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A file's tensors as f64, and what the manifest says of the file.
struct Golden {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f64>)>,
    options: serde_json::Map<String, Value>,
    seen: BTreeSet<String>,
}

impl Golden {
    fn open(name: &str) -> Self {
        let bytes = read(&format!("{name}.safetensors"));
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors.tensors().into_iter().map(|(name, view)| {
            let data = view.data();
            let numbers = match view.dtype() {
                Dtype::F32 => data.as_chunks().0.iter().map(|&b| f64::from(f32::from_le_bytes(b))).collect(),
                Dtype::F64 => data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b)).collect(),
                other => panic!("{name}: {other:?}"),
            };
            (name, (view.shape().to_vec(), numbers))
        });
        let manifest: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
        let options = manifest["files"][name].as_object().unwrap().clone();
        Golden { tensors: tensors.collect(), options, seen: BTreeSet::new() }
    }

    fn numbers(&mut self, name: &str) -> &(Vec<usize>, Vec<f64>) {
        self.seen.insert(name.to_owned());
        self.tensors.get(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn tensor(&mut self, name: &str) -> Tensor {
        let (shape, numbers) = self.numbers(name);
        Array::new(numbers.iter().map(|&x| x as f32).collect(), shape).into()
    }

    /// One after the other, along the first axis.
    fn rows(&mut self, name: &str) -> Vec<Tensor> {
        let all = self.tensor(name);
        (0..all.shape()[0] as isize)
            .map(|i| all.slice(ndarray::s![i, ..]).reshape(&sizes(&all.shape()[1..])))
            .collect()
    }

    fn compare(&mut self, name: &str, shape: &[usize], found: &[f64]) -> f64 {
        let (expected_shape, expected) = self.numbers(name);
        assert_eq!(shape, expected_shape, "{name}");
        let largest = expected.iter().fold(0.0, |largest: f64, x| largest.max(x.abs()));
        let each = found.iter().zip(expected).map(|(x, y)| (x - y).abs());
        // NaN is the largest difference of all.
        let worst = each.fold(0.0, |worst: f64, x| if x > worst || x.is_nan() { x } else { worst });
        let error = if worst == 0.0 { 0.0 } else { worst / largest };
        assert!(error <= TOLERANCE, "{name}: off by {error:.1e} of the largest value");
        error
    }

    fn compare_tensor(&mut self, name: &str, found: &Tensor) -> f64 {
        let numbers: Vec<f64> = found.data.iter().map(|&x| f64::from(x)).collect();
        self.compare(name, found.shape(), &numbers)
    }

    fn nothing_left(&self) {
        let unseen: Vec<_> = self.tensors.keys().filter(|name| !self.seen.contains(*name)).collect();
        assert!(unseen.is_empty(), "nothing was compared with {unseen:?}");
    }
}

fn sizes(shape: &[usize]) -> Vec<isize> {
    shape.iter().map(|&size| size as isize).collect()
}

/// The sampler that a published configuration describes. `case` is its name, perhaps with an option behind it.
fn configured(case: &str, config: &Value) -> Box<dyn Sampler> {
    let real = |key: &str| config[key].as_f64().unwrap_or_else(|| panic!("{case}: no number {key}"));
    let whole =
        |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("{case}: no integer {key}")) as usize;
    let (kind, steps) = (config["beta_schedule"].as_str().unwrap(), whole("num_train_timesteps"));
    let schedule = NoiseSchedule::by_name(kind, steps, real("beta_start"), real("beta_end")).unwrap();
    assert_eq!(config["prediction_type"], "epsilon", "{case}");
    let spacing = match config["timestep_spacing"].as_str().unwrap() {
        _ if config["use_karras_sigmas"] == true => Spacing::Karras,
        "linspace" => Spacing::Linspace,
        "leading" => Spacing::Leading { offset: whole("steps_offset") },
        "trailing" => Spacing::Trailing,
        other => panic!("{case}: {other}"),
    };
    let last = if config["set_alpha_to_one"] == true { Last::Zero } else { Last::Weakest };
    let eta = config["eta"].as_f64().unwrap_or(0.0);
    let name = NAMES.iter().filter(|name| case.starts_with(*name)).max_by_key(|name| name.len()).unwrap();
    by_name(name, &schedule, whole("steps"), Options { spacing: Some(spacing), last, eta }).unwrap()
}

/// The network of `schedulers.safetensors`.
fn wavy(x: &Tensor, t: f64) -> Tensor {
    let shift = 0.1 * (t / 100.0).cos() as f32;
    Array::new(x.data.iter().map(|x| 0.7 * (3.0 * x).sin() + shift).collect(), x.shape()).into()
}

#[test]
fn trajectories_are_diffusers() {
    let mut golden = Golden::open("schedulers");
    let x0 = golden.tensor("x0");
    let noises = golden.rows("noises");
    for (case, config) in golden.options.clone() {
        let mut sampler = configured(&case, &config);
        let mut noises = noises.iter();
        let start = &x0 * sampler.initial_scale() as f32;
        let mut states = vec![start.clone()];
        let mut draw = |shape: &[usize]| {
            let noise = noises.next().expect("as many noises as diffusers draws");
            assert_eq!(noise.shape(), shape);
            noise.clone()
        };
        sample(&mut *sampler, start, wavy, &mut draw, |_, _, x| states.push(x.clone()));
        let all = stack(&states.iter().collect::<Vec<_>>(), 0);
        let mut worst = golden.compare_tensor(&format!("{case}.traj"), &all);
        let (times, sigmas) = (sampler.times(), sampler.grid().sigmas());
        worst = golden.compare(&format!("{case}.timesteps"), &[times.len()], times).max(worst);
        let levels = format!("{case}.sigmas");
        if golden.tensors.contains_key(&levels) {
            worst = golden.compare(&levels, &[sigmas.len()], sigmas).max(worst);
        }
        println!("{case:16} {worst:.1e}");
    }
    golden.nothing_left();
}

/// The posterior mean of a mixture of isotropic Gaussians.
struct Mixture {
    mu: Vec<Vec<f64>>,
    variance: Vec<f64>,
    share: Vec<f64>,
}

impl Mixture {
    fn denoise(&self, x: &Tensor, sigma: f64) -> Tensor {
        let width = x.shape()[1];
        let rows: Vec<f64> = x.data.iter().map(|&x| f64::from(x)).collect();
        let out = rows.chunks(width).flat_map(|x| {
            let v: Vec<f64> = self.variance.iter().map(|s2| s2 + sigma * sigma).collect();
            let score = |k: usize| {
                let distance: f64 = x.iter().zip(&self.mu[k]).map(|(x, mu)| (x - mu).powi(2)).sum();
                self.share[k].ln() - 0.5 * distance / v[k] - 0.5 * width as f64 * v[k].ln()
            };
            let scores: Vec<f64> = (0..v.len()).map(score).collect();
            let top = scores.iter().copied().fold(f64::MIN, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mean = |j: usize| {
                let each = (0..v.len()).map(|k| {
                    let posterior = (self.variance[k] * x[j] + sigma * sigma * self.mu[k][j]) / v[k];
                    weights[k] / total * posterior
                });
                each.sum::<f64>() as f32
            };
            (0..width).map(mean).collect::<Vec<_>>()
        });
        Array::new(out.collect(), x.shape()).into()
    }

    /// As a network that is told the level.
    fn network(&self) -> impl FnMut(&Tensor, f64) -> Tensor {
        |x, sigma| noise_in(x, &self.denoise(x, sigma), sigma)
    }
}

#[test]
fn results_are_k_diffusions() {
    let mut golden = Golden::open("karras");
    let real = |key: &str| golden.options[key].as_f64().unwrap();
    let (rho, min, max) = (real("rho"), real("sigma_min"), real("sigma_max"));
    let (shape, mu) = golden.numbers("mu").clone();
    let mu = mu.chunks(shape[1]).map(<[f64]>::to_vec).collect();
    let mixture =
        Mixture { mu, variance: golden.numbers("s2").1.clone(), share: golden.numbers("pi").1.clone() };
    let x = golden.tensor("x");
    let sigmas = golden.numbers("sigmas").1.clone();
    let sigmas = karras(sigmas.len() - 1, min, max, rho);
    println!("sigmas           {:.1e}", golden.compare("sigmas", &[sigmas.len()], &sigmas));
    let at_1 = mixture.denoise(&(&x / max as f32), 1.0);
    println!("denoised_at_1    {:.1e}", golden.compare_tensor("denoised_at_1", &at_1));
    let samplers: [(&str, Box<dyn Sampler>); 7] = [
        ("euler", Box::new(Euler::from_sigmas(&sigmas))),
        ("heun", Box::new(Heun::from_sigmas(&sigmas))),
        ("lms", Box::new(Lms::from_sigmas(&sigmas))),
        ("dpm_2", Box::new(Dpm2::from_sigmas(&sigmas))),
        ("dpmpp_2m", Box::new(DpmPp2M::from_sigmas(&sigmas))),
        ("euler_a", Box::new(EulerAncestral::from_sigmas(&sigmas))),
        ("dpmpp_2s_a", Box::new(DpmPp2SAncestral::from_sigmas(&sigmas))),
    ];
    for (name, mut sampler) in samplers {
        let noises = format!("{name}.noises");
        let noises = if golden.tensors.contains_key(&noises) { golden.rows(&noises) } else { vec![] };
        let mut noises = noises.into_iter();
        let draw = |_: &[usize]| noises.next().expect("noises for this sampler");
        let end = sample(&mut *sampler, x.clone(), mixture.network(), draw, |_, _, _| ());
        println!("{name:16} {:.1e}", golden.compare_tensor(name, &end));
    }
    golden.nothing_left();
}
