// Owned by notebooks/21_schedules.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 692669c8f5d6ad08
//! What notebooks/21_schedules.ipynb claims.

use minai::schedules::{density, shifted};

// %% notebooks/21_schedules.ipynb test-shift
#[test]
fn a_factor_moves_a_schedule_along_the_logarithm() -> Result<(), Box<dyn std::error::Error>> {
    use minai::noise::NoiseSchedule;
    {
        let cosine = NoiseSchedule::cosine(1000);
        for factor in [0.25, 1.0, 2.0] {
            let moved = shifted(&cosine, factor);
            for t in [0.0, 10.0, 500.0, 999.0] {
                let ratio = moved.sigma(t) / cosine.sigma(t);
                assert!((ratio / factor - 1.0).abs() < 1e-6, "factor {factor}, t {t}: {ratio}");
            }
        }
        // The variance stays 1 for pictures of variance 1: the picture's share and the noise's make 1.
        assert!(shifted(&cosine, 2.0).alphas_cumprod.iter().all(|alpha| (0.0..1.0).contains(alpha)));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/21_schedules.ipynb test-density
#[test]
fn a_density_counts_each_step_once_and_moves_with_the_schedule() -> Result<(), Box<dyn std::error::Error>> {
    use minai::noise::NoiseSchedule;
    {
        let linear = NoiseSchedule::linear(1000, 1e-4, 0.02);
        let width = (1e4_f64).ln() / 50.0;
        let sum = |values: &[f64]| width * values.iter().sum::<f64>();
        let all = density(&linear, (0.05, 500.0), 50);
        let below = (0..1000).filter(|&t| linear.sigma(f64::from(t)) < 0.05).count() as f64 / 1000.0;
        assert!((sum(&all) + below - 1.0).abs() < 1e-9, "{}", sum(&all) + below);
        // One bin further, if every level is higher by the width of a bin (but for levels at the bins' edges).
        let moved = density(&shifted(&linear, width.exp()), (0.05, 500.0), 50);
        let off: f64 = all[..49].iter().zip(&moved[1..]).map(|(a, b)| (a - b).abs()).sum();
        assert!(off * width < 0.01, "{off}");
        // Levels in equal steps of the logarithm have the same density everywhere.
        let sigma = |t: u32| 0.01 * 1.01_f64.powi(t as i32);
        let even =
            NoiseSchedule { alphas_cumprod: (0..900).map(|t| 1.0 / (1.0 + sigma(t).powi(2))).collect() };
        let flat = density(&even, (sigma(100), sigma(800)), 7);
        assert!(flat.iter().all(|d| (d / flat[0] - 1.0).abs() < 0.03), "{flat:?}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/21_schedules.ipynb test-bad
#[test]
#[should_panic]
fn a_schedule_cannot_be_moved_by_nothing() {
    use minai::noise::NoiseSchedule;
    {
        shifted(&NoiseSchedule::cosine(10), 0.0);
    }
}
