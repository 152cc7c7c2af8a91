// Owned by notebooks/03_meanshift.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 1aa7ae9efbc1e422
//! What notebooks/03_meanshift.ipynb claims.

use minai::meanshift::{
    gaussian, group, mean_shift, normal, scatter_around, step_by_batch, step_by_loop, triangular,
};

// %% notebooks/03_meanshift.ipynb ms-test
#[test]
fn mean_shift_finds_the_six_centres() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::rng::WichmannHill;
        for seed in [1, 8, 42] {
            let mut rng = WichmannHill::seed(seed);
            let centres = Array::new((0..12).map(|_| 70.0 * rng.uniform() as f32 - 35.0).collect(), &[6, 2]);
            let points = scatter_around(&centres, 250, 2.25, &mut rng);
            let kernels: [fn(f32) -> f32; 2] = [|d| gaussian(d, 2.5), |d| triangular(d, 8.0)];
            for kernel in kernels {
                let path = mean_shift(&points, kernel, 0.01, 50);
                assert!(path.len() < 15, "at rest after {} steps", path.len() - 1);
                let (found, groups) = group(&path[path.len() - 1], 1.0);
                assert_eq!((found.shape(), groups.len()), (&[6, 2][..], 1500));
                // The points are in the order of their centres; a few may have been scattered into another group.
                for (centre, block) in groups.chunks(250).enumerate() {
                    let away = |g: usize| {
                        let offset = |axis| (found[[g, axis]] - centres[[centre, axis]]).powi(2);
                        (offset(0) + offset(1)).sqrt()
                    };
                    let g = (0..6).min_by(|&g, &h| away(g).total_cmp(&away(h))).expect("six groups");
                    assert!(
                        away(g) < 0.6,
                        "seed {seed}: centre {centre} is {} from the nearest group",
                        away(g)
                    );
                    assert!(
                        block.iter().filter(|&&group| group == g).count() >= 244,
                        "seed {seed}: centre {centre}"
                    );
                }
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/03_meanshift.ipynb ba-test
#[test]
fn batches_of_any_size_do_what_the_loop_does() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::rng::WichmannHill;
        let mut rng = WichmannHill::seed(6);
        let points =
            scatter_around(&Array::new(vec![0.0, 1.0, 2.0, 9.0, 8.0, 7.0], &[2, 3]), 40, 1.5, &mut rng);
        assert_eq!(points.shape(), [80, 3]);
        let kernels: [fn(f32) -> f32; 2] = [|d| gaussian(d, 2.0), |d| triangular(d, 4.0)];
        for kernel in kernels {
            let expected = step_by_loop(&points, kernel);
            for batch in [1, 7, 79, 80, 1000] {
                let step = step_by_batch(&points, batch, kernel);
                assert_eq!(step.shape(), [80, 3]);
                assert!(
                    step.iter().zip(expected.iter()).all(|(x, y)| (x - y).abs() < 1e-5),
                    "batches of {batch}"
                );
            }
        }
        // By hand: two points at distance 1, a triangle of bandwidth 2. Each counts itself 2/4 and the other 1/4.
        let pair = Array::new(vec![0.0, 1.0], &[2, 1]);
        let step = step_by_loop(&pair, |d| triangular(d, 2.0));
        assert!((step[[0, 0]] - 1.0 / 3.0).abs() < 1e-6 && (step[[1, 0]] - 2.0 / 3.0).abs() < 1e-6);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/03_meanshift.ipynb id-test
#[test]
fn kernels_have_area_one_and_normal_numbers_are_normal() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::rng::WichmannHill;
        let kernels: [fn(f32) -> f32; 2] = [|d| gaussian(d, 2.5), |d| triangular(d, 8.0)];
        for kernel in kernels {
            let area: f64 = (0..20_000).map(|i| f64::from(kernel(0.001 * (i as f32 + 0.5))) * 0.001).sum();
            assert!((2.0 * area - 1.0).abs() < 1e-3, "twice {area}");
        }
        assert_eq!((triangular(8.0, 8.0), triangular(9.0, 8.0)), (0.0, 0.0));
        let mut rng = WichmannHill::seed(42);
        let draws: Vec<f64> = (0..100_000).map(|_| normal(&mut rng)).collect();
        let mean = draws.iter().sum::<f64>() / 1e5;
        let deviation = (draws.iter().map(|draw| (draw - mean).powi(2)).sum::<f64>() / 1e5).sqrt();
        let within_one = draws.iter().filter(|draw| draw.abs() < 1.0).count() as f64 / 1e5;
        assert!(mean.abs() < 0.01 && (deviation - 1.0).abs() < 0.01 && (within_one - 0.6827).abs() < 0.005);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/03_meanshift.ipynb id-test-rank
#[test]
#[should_panic]
fn mean_shift_wants_points_of_rank_two() {
    step_by_batch(&minai::array::array([1.0_f32, 2.0]), 8, |d| gaussian(d, 1.0));
}
