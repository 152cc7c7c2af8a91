//! The samplers: against diffusers' and k-diffusion's trajectories (the files in `golden/`, or those of the same form in
//! the folder that `MINAI_GOLDEN` names; `spacings`, `samplers` and `sde` are always our own), against closed forms, and
//! with arguments that are no good.
//!
//! Differences are relative to a tensor's largest value. `--nocapture` shows the largest of each sampler.

use minai::array::Array;
use minai::denoiser::{ExactDenoiser, noise_in};
use minai::generator::Generator;
use minai::levels::{Call, FinalLevel, Levels, Spacing};
use minai::more_samplers::{deis, dpm_2, dpmpp_2m_sde, dpmpp_2s_ancestral, dpmpp_sde, unipc};
use minai::noise::{NoiseSchedule, karras};
use minai::samplers::{always, down_and_up, dpmpp_2m, euler, euler_ancestral, heun, lms};
use minai::sampling::{SAMPLERS, Sampler};
use minai::tensor::{Tensor, stack};
use minai_tests::reference::{Golden, folder, json, own, tensors};
use minai_tests::relative_error;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;

const TOLERANCE: f64 = 1e-5;

/// A file's tensors, and what the manifest says of the file.
struct References {
    tensors: BTreeMap<String, Golden>,
    options: serde_json::Map<String, Value>,
    seen: BTreeSet<String>,
}

impl References {
    fn open(folder: PathBuf, name: &str, manifest: &str) -> Self {
        let tensors = tensors(&folder.join(name).with_extension("safetensors"));
        let options = json(&folder.join(manifest))["files"][name].as_object().unwrap().clone();
        References { tensors, options, seen: BTreeSet::new() }
    }

    fn get(&mut self, name: &str) -> &Golden {
        self.seen.insert(name.to_owned());
        self.tensors.get(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn values(&mut self, name: &str) -> Vec<f64> {
        self.get(name).doubles()
    }

    fn tensor(&mut self, name: &str) -> Tensor {
        let golden = self.get(name);
        Array::new(golden.doubles().into_iter().map(|x| x as f32).collect(), golden.shape()).into()
    }

    /// One after the other, along the first axis.
    fn rows(&mut self, name: &str) -> Vec<Tensor> {
        let all = self.tensor(name);
        (0..all.shape()[0] as isize)
            .map(|i| all.slice(ndarray::s![i, ..]).reshape(&sizes(&all.shape()[1..])))
            .collect()
    }

    fn compare(&mut self, name: &str, shape: &[usize], found: &[f64]) -> f64 {
        let golden = self.get(name);
        assert_eq!(shape, golden.shape(), "{name}");
        let error = relative_error(found.iter().copied(), &golden.doubles());
        assert!(error <= TOLERANCE, "{name}: off by {error:.1e} of the largest value");
        error
    }

    fn compare_tensor(&mut self, name: &str, found: &Tensor) -> f64 {
        let values: Vec<f64> = found.data.iter().map(|&x| f64::from(x)).collect();
        self.compare(name, found.shape(), &values)
    }

    fn nothing_left(&self) {
        let unseen: Vec<_> = self.tensors.keys().filter(|name| !self.seen.contains(*name)).collect();
        assert!(unseen.is_empty(), "nothing was compared with {unseen:?}");
    }
}

fn sizes(shape: &[usize]) -> Vec<isize> {
    shape.iter().map(|&size| size as isize).collect()
}

/// The sampler that a published configuration describes, and its levels. `case` is its name, perhaps with an option
/// after it.
fn configured(case: &str, config: &Value) -> (Sampler, Levels) {
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
    let last = if config["set_alpha_to_one"] == true { FinalLevel::Zero } else { FinalLevel::Weakest };
    let fits = |(name, _): &&(&str, Sampler)| case.starts_with(name);
    let (_, sampler) = SAMPLERS.iter().filter(fits).max_by_key(|(name, _)| name.len()).unwrap();
    let sampler = match sampler.spaced(spacing) {
        Sampler::Ddim { spacing, .. } => {
            Sampler::Ddim { spacing, eta: config["eta"].as_f64().unwrap_or(0.0) }
        }
        sampler => sampler,
    };
    (sampler, sampler.levels(&schedule, whole("steps"), last).unwrap())
}

/// The network of `schedulers.safetensors`.
fn wavy(x: &Tensor, t: f64) -> Tensor {
    let shift = 0.1 * (t / 100.0).cos() as f32;
    Array::new(x.data.iter().map(|x| 0.7 * (3.0 * x).sin() + shift).collect(), x.shape()).into()
}

#[test]
fn trajectories_are_diffusers() {
    follow(References::open(folder(), "schedulers", "manifest.json"));
}

/// With other noise schedules, spacings and ends than Stable Diffusion's.
#[test]
fn configurations_are_diffusers() {
    follow(References::open(own(), "spacings", "spacings.json"));
}

/// UniPC, DEIS, DPM++ 2M SDE and LCM, which no other file has.
#[test]
fn newer_trajectories_are_diffusers() {
    follow(References::open(own(), "samplers", "samplers.json"));
}

fn follow(mut golden: References) {
    let x0 = golden.tensor("x0");
    let noises = golden.rows("noises");
    for (case, config) in golden.options.clone() {
        let (sampler, levels) = configured(&case, &config);
        let mut noises = noises.iter();
        let draw = |shape: &[usize]| {
            let noise = noises.next().expect("as many noises as diffusers draws");
            assert_eq!(noise.shape(), shape);
            noise.clone()
        };
        // What diffusers keeps: the network's input, or x₀ + σ n, according to the first of them.
        let exploding = matches!(
            sampler,
            Sampler::Euler(_) | Sampler::EulerAncestral(_) | Sampler::Heun(_) | Sampler::Lms(_)
        );
        let start = &x0 * levels.initial_scale as f32;
        let (mut states, mut times, mut sigmas) = (vec![], vec![], vec![]);
        let network = |call: &Call| {
            states.push(if exploding { call.x.clone() } else { call.input.clone() });
            times.push(call.time);
            sigmas.push(call.sigma);
            Ok::<_, Infallible>(wavy(&call.input, call.time))
        };
        let Ok(end) = sampler.run(start, &levels, network, draw);
        assert_eq!(times.len(), sampler.calls(&levels), "{case}");
        states.push(end);
        sigmas.push(levels.sigmas[levels.sigmas.len() - 1]);
        let all = stack(&states.iter().collect::<Vec<_>>(), 0);
        let mut worst = golden.compare_tensor(&format!("{case}.traj"), &all);
        worst = golden.compare(&format!("{case}.timesteps"), &[times.len()], &times).max(worst);
        let name = format!("{case}.sigmas");
        if golden.tensors.contains_key(&name) {
            worst = golden.compare(&name, &[sigmas.len()], &sigmas).max(worst);
        }
        println!("{case:20} {worst:.1e}");
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

    /// The noise in x₀ + σ n.
    fn eps(&self, x: &Tensor, sigma: f64) -> Tensor {
        noise_in(x, &self.denoise(x, sigma), sigma)
    }
}

type Eps<'a> = &'a mut dyn FnMut(&Tensor, f64) -> Result<Tensor, Infallible>;
type Noise<'a> = &'a mut dyn FnMut(&[usize]) -> Tensor;
/// Any sampler as a function of x, levels, eps and noise.
type Function = fn(Tensor, &[f64], Eps, Noise) -> Result<Tensor, Infallible>;

#[test]
fn results_are_k_diffusions() {
    compare_ends(
        References::open(folder(), "karras", "manifest.json"),
        &[
            ("euler", |x, sigmas, eps, _| euler(x, sigmas, eps)),
            ("heun", |x, sigmas, eps, _| heun(x, sigmas, eps)),
            ("lms", |x, sigmas, eps, _| lms(x, sigmas, eps)),
            ("dpm_2", |x, sigmas, eps, _| dpm_2(x, sigmas, eps)),
            ("dpmpp_2m", |x, sigmas, eps, _| dpmpp_2m(x, sigmas, eps)),
            ("euler_a", |x, sigmas, eps, noise| euler_ancestral(x, sigmas, 1.0, eps, noise)),
            ("dpmpp_2s_a", |x, sigmas, eps, noise| dpmpp_2s_ancestral(x, sigmas, eps, noise)),
        ],
    );
}

#[test]
fn results_with_new_noise_are_k_diffusions() {
    compare_ends(
        References::open(own(), "sde", "samplers.json"),
        &[
            ("dpmpp_sde", |x, sigmas, eps, noise| dpmpp_sde(x, sigmas, eps, noise)),
            ("dpmpp_2m_sde", |x, sigmas, eps, noise| dpmpp_2m_sde(x, sigmas, eps, noise)),
        ],
    );
}

fn compare_ends(mut golden: References, functions: &[(&str, Function)]) {
    let real = |key: &str| golden.options[key].as_f64().unwrap();
    let (rho, min, max) = (real("rho"), real("sigma_min"), real("sigma_max"));
    let width = golden.get("mu").shape()[1];
    let mu = golden.values("mu").chunks(width).map(<[f64]>::to_vec).collect();
    let mixture = Mixture { mu, variance: golden.values("s2"), share: golden.values("pi") };
    let x = golden.tensor("x");
    let sigmas = karras(golden.values("sigmas").len() - 1, min, max, rho);
    println!("sigmas           {:.1e}", golden.compare("sigmas", &[sigmas.len()], &sigmas));
    let at_1 = mixture.denoise(&(&x / max as f32), 1.0);
    println!("denoised_at_1    {:.1e}", golden.compare_tensor("denoised_at_1", &at_1));
    for (name, function) in functions {
        let noises = format!("{name}.noises");
        let noises = if golden.tensors.contains_key(&noises) { golden.rows(&noises) } else { vec![] };
        let mut noises = noises.into_iter();
        let mut draw = |_: &[usize]| noises.next().expect("noises for this sampler");
        let mut eps = always(|x, sigma| mixture.eps(x, sigma));
        let Ok(end) = function(x.clone(), &sigmas, &mut eps, &mut draw);
        println!("{name:16} {:.1e}", golden.compare_tensor(name, &end));
    }
    golden.nothing_left();
}

/// The mean and the variance of some numbers.
fn moments(numbers: impl Iterator<Item = f32>) -> (f64, f64) {
    let numbers: Vec<f64> = numbers.map(f64::from).collect();
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    (mean, numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n)
}

/// Data of mean 0.3 and deviation 0.4: the noise in x₀ + σ n.
fn gaussian(x: &Tensor, sigma: f64) -> Tensor {
    (x - 0.3) * (sigma / (0.16 + sigma * sigma)) as f32
}

/// What the equation leads to from x at level `from` to level `to`, for the same data.
fn gaussian_solution(x: f64, from: f64, to: f64) -> f64 {
    0.3 + (x - 0.3) * (to.hypot(0.4) / from.hypot(0.4))
}

/// How far from the solution a sampler ends, in the units of the data.
fn gaussian_error(sampler: Sampler, levels: &Levels) -> f64 {
    let start = Tensor::full(&[1, 1], -1.7) * levels.initial_scale as f32;
    let none = |_: &[usize]| -> Tensor { panic!("no new noise") };
    let network = |call: &Call| Ok::<_, Infallible>(gaussian(&call.x, call.sigma));
    let Ok(end) = sampler.run(start.clone(), levels, network, none);
    let (from, to) = (levels.sigmas[0], levels.sigmas[levels.sigmas.len() - 1]);
    // The result has the scale of the network's input.
    let exact = gaussian_solution(f64::from(start.item()), from, to) / to.hypot(1.0);
    (f64::from(end.item()) - exact).abs()
}

#[test]
fn more_steps_come_closer_to_the_solution() {
    let schedule = NoiseSchedule::stable_diffusion();
    let error = |name: &str, steps: usize| {
        let sampler: Sampler = name.parse().unwrap();
        gaussian_error(sampler, &sampler.levels(&schedule, steps, FinalLevel::Weakest).unwrap())
    };
    // Of first order: twice the steps, half the error.
    for name in ["euler karras", "ddim"] {
        let ratio = error(name, 50) / error(name, 100);
        println!("{name:10} {ratio:.2}");
        assert!((1.7..2.4).contains(&ratio), "{name}: {ratio}");
    }
    // The others come closer than Euler in as many calls.
    let others = [
        ("heun", 25),
        ("dpm_2", 25),
        ("lms", 50),
        ("dpmpp_2m", 50),
        ("pndm", 50),
        ("deis", 50),
        ("unipc", 50),
    ];
    for (name, steps) in others {
        let (first, second) = (error("ddim", 50), error(name, steps));
        println!("{name:10} {second:.1e}, where DDIM is {first:.1e} off");
        assert!(second < 0.9 * first, "{name}: {second}, and ddim {first}");
    }
}

/// From a level to another, without the step to 0, in which all methods are of first order.
#[test]
fn errors_are_of_the_order_that_they_should_be() {
    let methods: [(&str, f64, Function); 7] = [
        ("euler", 2.0, |x, sigmas, eps, _| euler(x, sigmas, eps)),
        ("heun", 4.0, |x, sigmas, eps, _| heun(x, sigmas, eps)),
        ("dpm_2", 4.0, |x, sigmas, eps, _| dpm_2(x, sigmas, eps)),
        ("dpmpp_2m", 4.0, |x, sigmas, eps, _| dpmpp_2m(x, sigmas, eps)),
        ("deis", 4.0, |x, sigmas, eps, _| deis(x, sigmas, eps)),
        ("unipc", 8.0, |x, sigmas, eps, _| unipc(x, sigmas, eps)),
        ("lms", 4.0, |x, sigmas, eps, _| lms(x, sigmas, eps)),
    ];
    for (name, expected, method) in methods {
        let error = |steps: usize| {
            let mut sigmas = karras(steps + 1, 0.1, 10.0, 3.0);
            sigmas.pop();
            let mut none = |_: &[usize]| -> Tensor { panic!("no new noise") };
            let start = Tensor::full(&[1, 1], 25.0);
            let Ok(end) = method(start, &sigmas, &mut always(gaussian), &mut none);
            (f64::from(end.item()) - gaussian_solution(25.0, 10.0, 0.1)).abs()
        };
        let ratios = [32, 64].map(|steps| error(steps) / error(2 * steps));
        println!("{name:10} {ratios:.2?}");
        // Multistep methods begin with a step of lower order, and so come to theirs slowly, or from above.
        let most = if matches!(name, "lms" | "dpmpp_2m" | "deis" | "unipc") { 20.0 } else { 1.25 * expected };
        assert!(ratios.iter().all(|ratio| (0.8 * expected..most).contains(ratio)), "{name}: {ratios:?}");
    }
}

/// All samplers make what they are to make: a mixture of two Gaussians has its mean, its variance, and its shares.
#[test]
fn samples_are_distributed_as_the_data() {
    let schedule = NoiseSchedule::stable_diffusion();
    let mixture =
        Mixture { mu: vec![vec![-1.0], vec![0.8]], variance: vec![0.04, 0.01], share: vec![0.3, 0.7] };
    let (mean, second) = (0.7 * 0.8 - 0.3, 0.3 * (1.0 + 0.04) + 0.7 * (0.64 + 0.01));
    // LCM is for distilled networks: see below.
    for (name, sampler) in SAMPLERS.into_iter().filter(|(name, _)| *name != "lcm") {
        let sampler = match sampler {
            Sampler::Ddim { spacing, .. } => Sampler::Ddim { spacing, eta: 0.7 },
            sampler => sampler,
        };
        let levels = sampler.levels(&schedule, 100, FinalLevel::Weakest).unwrap();
        let mut rng = Generator::manual_seed(9);
        let start = Tensor::from(rng.randn(&[4000, 1])) * levels.initial_scale as f32;
        let network = |call: &Call| Ok::<_, Infallible>(mixture.eps(&call.x, call.sigma));
        let Ok(end) = sampler.run(start, &levels, network, |shape| rng.randn(shape).into());
        let (found, variance) = moments(end.data.iter().copied());
        let left = end.data.iter().filter(|&&x| x < 0.0).count() as f64 / 4000.0;
        println!("{name:10} mean {found:.3}, variance {variance:.3}, left {left:.3}");
        assert!((found - mean).abs() < 0.05, "{name}: mean {found}, not {mean}");
        assert!((variance - (second - mean * mean)).abs() < 0.05, "{name}: variance {variance}");
        assert!((left - 0.3).abs() < 0.035, "{name}: share {left}");
    }
}

#[test]
fn all_samplers_lead_to_images_of_the_data() {
    let schedule = NoiseSchedule::stable_diffusion();
    let mut rng = Generator::manual_seed(4);
    let images = rng.rand(&[40, 2, 3, 5]);
    let denoiser =
        ExactDenoiser::new(&Array::new(images.iter().map(|x| 2.0 * x - 1.0).collect(), images.shape()));
    for (name, sampler) in SAMPLERS {
        let levels = sampler.levels(&schedule, 30, FinalLevel::Weakest).unwrap();
        let start = Tensor::from(rng.randn(&[6, 2, 3, 5])) * levels.initial_scale as f32;
        let allowed = |row: usize, image: usize| image % 6 == row;
        let mut calls = 0;
        let network = |call: &Call| {
            calls += 1;
            Ok::<_, Infallible>(denoiser.eps_among(&call.x, call.sigma, allowed))
        };
        let Ok(end) = sampler.run(start, &levels, network, |shape| rng.randn(shape).into());
        assert_eq!(calls, sampler.calls(&levels));
        for (row, (image, distance)) in denoiser.nearest(&end).into_iter().enumerate() {
            assert_eq!(image % 6, row, "{name}");
            // DDIM, PNDM and DEIS end at the schedule's weakest level.
            assert!(distance < 0.3, "{name}: {distance}");
        }
    }
}

/// A consistent network says at any level where the exact path ends. With it, LCM draws what the data are, in any number
/// of steps.
#[test]
fn lcm_needs_few_steps_with_a_distilled_network() {
    let (mean, deviation) = (0.3, 0.4);
    let end = |x: &Tensor, sigma: f64| (x - mean) * (deviation / sigma.hypot(deviation)) as f32 + mean;
    for steps in [1, 2, 4, 50] {
        let levels =
            Sampler::Lcm.levels(&NoiseSchedule::stable_diffusion(), steps, FinalLevel::Zero).unwrap();
        let mut rng = Generator::manual_seed(6);
        let start = Tensor::from(rng.randn(&[4000, 1])) * levels.initial_scale as f32;
        let mut calls = 0;
        let network = |call: &Call| {
            calls += 1;
            Ok::<_, Infallible>(noise_in(&call.x, &end(&call.x, call.sigma), call.sigma))
        };
        let Ok(x) = Sampler::Lcm.run(start, &levels, network, |shape| rng.randn(shape).into());
        let (found, variance) = moments(x.data.iter().copied());
        assert_eq!(calls, steps);
        assert!((found - f64::from(mean)).abs() < 0.03, "{steps} steps: mean {found}");
        assert!((variance.sqrt() - deviation).abs() < 0.03, "{steps} steps: deviation {}", variance.sqrt());
    }
}

/// A network's error ends the run, after as many calls as it wants.
#[test]
fn a_run_ends_when_the_network_says_so() {
    let schedule = NoiseSchedule::stable_diffusion();
    let start = Tensor::from(Generator::manual_seed(2).randn(&[1, 4]));
    for (name, sampler) in SAMPLERS {
        let levels = sampler.levels(&schedule, 9, FinalLevel::Weakest).unwrap();
        for last in 0..sampler.calls(&levels) {
            let mut rng = Generator::manual_seed(3);
            let mut seen = vec![];
            let network = |call: &Call| {
                seen.push(call.number);
                if call.number == last { Err(call.x.clone()) } else { Ok(wavy(&call.input, call.time)) }
            };
            let ended = sampler.run(start.clone(), &levels, network, |shape| rng.randn(shape).into());
            assert_eq!(seen, (0..=last).collect::<Vec<_>>(), "{name}");
            let x = ended.expect_err("it did not end");
            assert!(last > 0 || x.data == start.data, "{name}: the first call is for the start");
        }
    }
}

#[test]
fn what_is_no_good_is_refused() {
    let schedule = NoiseSchedule::stable_diffusion();
    let message = |f: &dyn Fn()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).expect_err("a panic");
        panic
            .downcast::<String>()
            .map_or_else(|panic| panic.downcast::<&str>().unwrap().to_string(), |text| *text)
    };
    let x = Tensor::zeros(&[1, 1]);
    let go = |sigmas: &[f64]| drop(euler(x.clone(), sigmas, always(|x, _| x.clone())));
    let cases: [(&str, &dyn Fn()); 16] = [
        ("from 1 to 1000 steps", &|| drop(Levels::exploding(&schedule, 0, Spacing::Linspace))),
        ("not 1001", &|| {
            drop(Levels::preserving(&schedule, 1001, Spacing::Trailing, FinalLevel::Zero));
        }),
        ("not 1001", &|| drop(Levels::solver(&schedule, 1001, Spacing::Linspace, FinalLevel::Zero))),
        ("not 1001", &|| drop(Levels::exploding(&schedule, 1001, Spacing::Karras))),
        ("from 1 to 50 steps", &|| drop(Levels::distilled(&schedule, 51))),
        ("eta is from 0 to 1", &|| _ = down_and_up(2.0, 1.0, -0.1)),
        ("eta is from 0 to 1", &|| _ = down_and_up(2.0, 1.0, f64::NAN)),
        ("fall from step to step", &|| drop(Levels::from_sigmas(&[1.0, 2.0, 0.0]))),
        ("fall from step to step", &|| drop(Levels::from_sigmas(&[1.0]))),
        ("fall from step to step", &|| drop(Levels::from_sigmas(&[f64::NAN, 0.0]))),
        ("not noise levels", &|| drop(Levels::from_sigmas(&[1.0, -1.0]))),
        ("fall from step to step", &|| go(&[1.0, 2.0, 0.0])),
        ("fall from step to step", &|| go(&[1.0, f64::NAN])),
        ("not noise levels", &|| go(&[1.0, -1.0])),
        ("a strength is from 0 to 1", &|| {
            drop(Levels::exploding(&schedule, 10, Spacing::Linspace).last_part(1.01));
        }),
        ("above 0", &|| {
            drop(ExactDenoiser::new(&Array::new(vec![1.0], &[1, 1])).denoise(&Tensor::zeros(&[1, 1]), 0.0))
        }),
    ];
    std::panic::set_hook(Box::new(|_| ()));
    let messages: Vec<_> = cases.iter().map(|(_, f)| message(f)).collect();
    let _ = std::panic::take_hook();
    for ((part, _), message) in cases.iter().zip(messages) {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}
