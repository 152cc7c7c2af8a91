// Owned by notebooks/20_fewer_steps.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 033afedce6564660
//! What notebooks/20_fewer_steps.ipynb claims.

use minai::levels::{Call, FinalLevel, Spacing};
use minai::sampling::{SAMPLERS, Sampler};

// %% notebooks/20_fewer_steps.ipynb test-sampling
#[test]
fn all_samplers_begin_anywhere_and_say_what_is_wrong() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::noise::NoiseSchedule;
    use minai::tensor::Tensor;
    use std::convert::Infallible;
    {
        let schedule = NoiseSchedule::stable_diffusion();
        let mut rng = Generator::manual_seed(1);
        let [x0, noise] = [(); 2].map(|()| Tensor::from(rng.randn(&[2, 3])));
        for (name, sampler) in SAMPLERS {
            for steps in [1, 2, 3, 20, 999, 1000] {
                let levels = match sampler.levels(&schedule, steps, FinalLevel::Weakest) {
                    Ok(levels) => levels,
                    Err(error) => {
                        assert!(sampler == Sampler::Lcm && steps > 50, "{error}");
                        continue;
                    }
                };
                assert_eq!(levels.last_part(1.0), levels, "{name}");
                assert_eq!(sampler.calls(&levels.last_part(0.0)), 0, "{name}");
                // To be told the noise that is really there leads to the picture, from wherever one begins.
                for strength in [0.0, 0.3, 0.5, 1.0] {
                    let levels = levels.last_part(strength);
                    let mut calls = 0;
                    let truth = |call: &Call| {
                        assert_eq!(call.number, calls, "{name}");
                        calls += 1;
                        Ok::<_, Infallible>(noise.clone())
                    };
                    let x = levels.add_noise(&x0, &noise);
                    let Ok(end) = sampler.run(x, &levels, truth, |_| noise.clone());
                    assert_eq!(calls, sampler.calls(&levels), "{name}, {steps} steps, strength {strength}");
                    assert!(end.data.iter().all(|x| x.is_finite()), "{name}, {steps} steps");
                    // New noise is other noise: of it, as much is left as of what was put in last.
                    if !["ddpm", "euler_a", "dpmpp_2s_a", "dpmpp_sde", "dpmpp_2m_sde", "lcm"].contains(&name)
                    {
                        let last = levels.sigmas[levels.sigmas.len() - 1];
                        let expected = levels.input(&(&x0 + &noise * last as f32), last);
                        let off = (&end - expected).abs().amax(..).item();
                        assert!(off < 1e-4, "{name}, {steps} steps, strength {strength}: off by {off}");
                    }
                }
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/20_fewer_steps.ipynb test-names
#[test]
fn samplers_by_the_names_that_people_type() -> Result<(), Box<dyn std::error::Error>> {
    use minai::noise::NoiseSchedule;
    {
        for (name, sampler) in SAMPLERS {
            assert_eq!((name.parse(), sampler.name()), (Ok(sampler), name));
            let karras = sampler.spaced(Spacing::Karras);
            assert_eq!(karras.to_string().parse(), Ok(karras));
        }
        let karras = Spacing::Karras;
        for (name, sampler) in [
            ("Euler a", Sampler::EulerAncestral(Spacing::Linspace)),
            ("k_euler_ancestral", Sampler::EulerAncestral(Spacing::Linspace)),
            ("k_lms", Sampler::Lms(Spacing::Linspace)),
            ("LMS Karras", Sampler::Lms(karras)),
            ("DPM2", Sampler::Dpm2(Spacing::Linspace)),
            ("k_dpm_2", Sampler::Dpm2(Spacing::Linspace)),
            ("DPM++ 2M Karras", Sampler::DpmPp2M(karras)),
            ("dpmpp_2m_karras", Sampler::DpmPp2M(karras)),
            ("DPM++ 2S a", Sampler::DpmPp2SAncestral(Spacing::Linspace)),
            ("DPM++ SDE Karras", Sampler::DpmPpSde(karras)),
            (" DPM++ 2M SDE Karras ", Sampler::DpmPp2MSde(karras)),
            ("PLMS", Sampler::Pndm(Spacing::Leading { offset: 1 })),
            ("UniPC", Sampler::UniPc(Spacing::Linspace)),
            ("LCM", Sampler::Lcm),
        ] {
            assert_eq!(name.parse(), Ok(sampler), "{name}");
        }
        let schedule = NoiseSchedule::stable_diffusion();
        let refused = |sampler: Sampler, steps: usize| {
            sampler.levels(&schedule, steps, FinalLevel::Weakest).unwrap_err().to_string()
        };
        let unknown = "lsm".parse::<Sampler>().unwrap_err().to_string();
        assert!(unknown.contains("no sampler \"lsm\"") && unknown.contains("lms, "), "{unknown}");
        let lcm = "LCM Karras".parse::<Sampler>().unwrap_err().to_string();
        assert!(lcm.contains("lcm visits whole times"), "{lcm}");
        assert!("".parse::<Sampler>().is_err() && "karras".parse::<Sampler>().is_err());
        let lms = Sampler::Lms(Spacing::Linspace);
        assert!(refused(lms, 0).contains("0 steps: lms takes from 1 to 1000"));
        assert!(refused(lms, 1001).contains("1001 steps"));
        assert!(refused(Sampler::Lcm, 51).contains("from 1 to 50"));
        for eta in [-0.1, 1.5, f64::NAN] {
            let ddim = Sampler::Ddim { spacing: Spacing::Trailing, eta };
            assert!(refused(ddim, 10).contains("eta is from 0 to 1"));
        }
        for name in ["DDIM Karras", "DDPM Karras", "PNDM Karras"] {
            assert!(refused(name.parse().unwrap(), 10).contains("whole times"), "{name}");
        }
    }
    println!("passed");
    Ok(())
}
