// Owned by notebooks/16_samplers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash be55f8a3e5f96dde
//! What notebooks/16_samplers.ipynb claims.

use minai::denoiser::ExactDenoiser;
use minai::noise::{NoiseSchedule, karras};
use minai::samplers::{always, dpmpp_2m, euler, euler_ancestral, heun, lms};

// %% notebooks/16_samplers.ipynb test-noise
#[test]
fn a_schedule_and_its_inverse() -> Result<(), Box<dyn std::error::Error>> {
    {
        let schedule = NoiseSchedule::stable_diffusion();
        assert_eq!(schedule.steps(), 1000);
        assert!(
            (schedule.sigma(999.0) - 14.6146).abs() < 1e-3 && (schedule.sigma(0.0) - 0.0292).abs() < 1e-4
        );
        for t in (0..999).step_by(7) {
            let t = f64::from(t);
            assert!((schedule.time(schedule.sigma(t)) - t).abs() < 1e-6, "{t}");
            assert!((schedule.time(schedule.sigma(t + 0.5)) - t - 0.5).abs() < 0.05, "{t}");
            let between = (schedule.sigma(t) + schedule.sigma(t + 1.0)) / 2.0;
            assert!((schedule.sigma(t + 0.5) / between - 1.0).abs() < 1e-12, "{t}");
        }
        // Beyond the ends it goes no further.
        assert_eq!([schedule.sigma(-3.0), schedule.sigma(2000.0)], [0.0, 999.0].map(|t| schedule.sigma(t)));
        assert_eq!([schedule.time(1e-9), schedule.time(0.0), schedule.time(99.0)], [0.0, 0.0, 999.0]);
        let cosine = NoiseSchedule::cosine(50);
        let (u, v) = (0.5_f64 + 0.008, 0.008_f64);
        let half = ((u / 1.008 * std::f64::consts::FRAC_PI_2).cos()
            / (v / 1.008 * std::f64::consts::FRAC_PI_2).cos())
        .powi(2);
        assert!((cosine.alphas_cumprod[24] - half).abs() < 1e-6, "the first is left out: it is 1");
        assert!(
            NoiseSchedule::by_name("linear", 1000, 1e-4, 0.02) == Ok(NoiseSchedule::linear(1000, 1e-4, 0.02))
        );
        for (name, steps, start, end) in [
            ("sigmoid", 9, 0.1, 0.2),
            ("linear", 1, 0.1, 0.2),
            ("linear", 9, 0.0, 0.2),
            ("linear", 9, 0.1, f64::NAN),
        ] {
            assert!(NoiseSchedule::by_name(name, steps, start, end).is_err(), "{name} {steps} {start} {end}");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/16_samplers.ipynb test-denoiser
#[test]
fn the_denoiser_is_bayes_rule() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let mut rng = Generator::manual_seed(7);
        let (images, x) = (rng.randn(&[9, 2, 3]), Tensor::from(rng.randn(&[4, 2, 3])));
        let denoiser = ExactDenoiser::new(&images);
        let at = |array: &minai::array::Array, i: usize| -> Vec<f64> {
            array.iter().skip(i * 6).take(6).map(|&x| f64::from(x)).collect()
        };
        let squared = |b: usize, i: usize| -> f64 {
            at(&x.data, b).iter().zip(at(&images, i)).map(|(x, y)| (x - y).powi(2)).sum()
        };
        for sigma in [0.05, 0.7, 20.0] {
            let found = denoiser.denoise(&x, sigma);
            assert_eq!(found.shape(), x.shape());
            for b in 0..4 {
                let least = (0..9).map(|i| squared(b, i)).fold(f64::MAX, f64::min);
                let weights = [0, 1, 2, 3, 4, 5, 6, 7, 8]
                    .map(|i| ((least - squared(b, i)) / (2.0 * sigma * sigma)).exp());
                for (pixel, found) in at(&found.data, b).into_iter().enumerate() {
                    let mean = (0..9).map(|i| weights[i] * at(&images, i)[pixel]).sum::<f64>()
                        / weights.iter().sum::<f64>();
                    assert!(
                        (mean - found).abs() < 1e-4,
                        "level {sigma}, row {b}, pixel {pixel}: {found}, not {mean}"
                    );
                }
                let (nearest, distance) = denoiser.nearest(&x)[b];
                assert!(
                    (squared(b, nearest) - least).abs() < 1e-6
                        && (f64::from(distance) - least.sqrt()).abs() < 1e-5
                );
            }
        }
        let some = denoiser.subset(&[8, 2]);
        assert_eq!(some.image(0).data, denoiser.image(8).data);
        assert_eq!(some.denoise(&x, 1e-3).data.shape(), [4, 2, 3]);
        let only = ExactDenoiser::new(&images.reshape(&[9, 6])).subset(&[3]);
        assert_eq!(
            only.denoise(&x.reshape(&[4, 6]), 5.0).data.iter().skip(6).take(6).copied().collect::<Vec<_>>(),
            only.image(0).data.iter().copied().collect::<Vec<_>>()
        );
    }
    println!("passed");
    Ok(())
}

// %% notebooks/16_samplers.ipynb test-ddim
#[test]
fn ddim_and_ddpm_are_their_papers_formulas() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let schedule = NoiseSchedule::stable_diffusion();
        let mut rng = Generator::manual_seed(3);
        let [x, eps, n] = [(); 3].map(|()| Tensor::from(rng.randn(&[2, 5])));
        let scaled = |x: &Tensor, by: f64| x * by as f32;
        // One step from time t to time u, in the papers' units: x = √ᾱ x₀ + √(1 - ᾱ) n.
        let ours = |t: usize, u: usize, eta: f64| {
            let [from, to] = [t, u].map(|t| schedule.sigma(t as f64));
            let x = scaled(&x, from.hypot(1.0));
            let Ok(x) = euler_ancestral(x, &[from, to], eta, always(|_, _| eps.clone()), |_| n.clone());
            scaled(&x, 1.0 / to.hypot(1.0))
        };
        for t in (150..1000).step_by(100) {
            let (a, b) = (schedule.alphas_cumprod[t], schedule.alphas_cumprod[t - 100]);
            let x0 = scaled(&(&x - scaled(&eps, (1.0 - a).sqrt())), 1.0 / a.sqrt());
            for eta in [0.0, 0.3, 1.0] {
                let deviation = eta * ((1.0 - b) / (1.0 - a) * (1.0 - a / b)).sqrt();
                let direction = scaled(&eps, (1.0 - b - deviation * deviation).sqrt());
                let expected = scaled(&x0, b.sqrt()) + direction + scaled(&n, deviation);
                let off = (ours(t, t - 100, eta) - expected).abs().amax(..).item();
                assert!(off < 1e-5, "ddim, eta {eta}, time {t}: off by {off}");
            }
            let step = a / b;
            let mean = scaled(&x0, b.sqrt() * (1.0 - step) / (1.0 - a))
                + scaled(&x, step.sqrt() * (1.0 - b) / (1.0 - a));
            let expected = mean + scaled(&n, ((1.0 - b) / (1.0 - a) * (1.0 - step)).sqrt());
            let off = (ours(t, t - 100, 1.0) - expected).abs().amax(..).item();
            assert!(off < 1e-5, "ddpm, time {t}: off by {off}");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/16_samplers.ipynb test-samplers
#[test]
fn samplers_follow_the_truth_and_say_what_is_wrong() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let mut rng = Generator::manual_seed(1);
        let [x0, noise] = [(); 2].map(|()| Tensor::from(rng.randn(&[2, 3])));
        // To be told the noise that is really there leads to the picture, from wherever one begins, and to wherever one goes.
        let truth = || always(|_, _| noise.clone());
        for n in [1, 2, 3, 20, 100] {
            let sigmas = karras(n, 0.03, 15.0, 7.0);
            for sigmas in [&sigmas[..], &sigmas[n / 2..], &sigmas[..n], &sigmas[n..]] {
                let level = |sigma: f64| &x0 + &noise * sigma as f32;
                let start = || level(sigmas[0]);
                let ends = [
                    euler(start(), sigmas, truth()),
                    heun(start(), sigmas, truth()),
                    lms(start(), sigmas, truth()),
                    dpmpp_2m(start(), sigmas, truth()),
                    euler_ancestral(start(), sigmas, 0.0, truth(), |_| panic!("no new noise")),
                ];
                for (i, Ok(end)) in ends.into_iter().enumerate() {
                    let off = (end - level(sigmas[sigmas.len() - 1])).abs().amax(..).item();
                    assert!(off < 1e-4, "sampler {i}, {n} steps, from {}: off by {off}", sigmas[0]);
                }
            }
        }
        // An error of the network ends the run at once.
        let mut calls = 0;
        let stopped = lms(x0.clone(), &[3.0, 2.0, 1.0, 0.0], |_, sigma| {
            calls += 1;
            if sigma < 3.0 { Err("stop") } else { Ok(noise.clone()) }
        });
        assert!(stopped.is_err_and(|error| error == "stop") && calls == 2);
    }
    println!("passed");
    Ok(())
}
