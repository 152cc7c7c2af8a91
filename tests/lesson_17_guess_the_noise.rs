// Owned by notebooks/17_guess_the_noise.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash e21902995e8bf666
//! What notebooks/17_guess_the_noise.ipynb claims.

use minai::diffusion::{
    GuessTheNoise, NoisyImages, PlainCnn, add_noise, even_levels, pixel_shuffle, pixel_unshuffle,
};

// %% notebooks/17_guess_the_noise.ipynb test-mix
#[test]
fn noise_is_mixed_in_at_the_level_that_is_told() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::loader::Dataset;
    use minai::noise::NoiseSchedule;
    use minai::tensor::{Tensor, elements};
    {
        let schedule = NoiseSchedule::linear(1000, 1e-4, 0.02);
        let data = NoisyImages { images: Array::new(vec![0.5; 3 * 784], &[3, 1, 28, 28]), schedule };
        let batch = data.batch(&[2, 0, 1, 1], &mut Generator::manual_seed(1));
        assert_eq!((data.len(), batch.x.shape(), batch.sigma.shape()), (3, &[4, 1, 28, 28][..], &[4][..]));
        for (i, &sigma) in elements(&batch.sigma).iter().enumerate() {
            let row = |x: &Array| elements(x)[784 * i..784 * (i + 1)].to_vec();
            for (x, noise) in row(&batch.x).into_iter().zip(row(&batch.noise)) {
                assert!((x * sigma.hypot(1.0) - (0.5 + sigma * noise)).abs() < 1e-3 * sigma.max(1.0));
            }
        }
        let noise = Tensor::from(batch.noise);
        assert!(noise.mean(..).item().abs() < 0.1 && (noise.var(..).item() - 1.0).abs() < 0.1);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/17_guess_the_noise.ipynb test-steps
#[test]
fn every_step_of_the_schedule_is_drawn_and_no_other_level() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::loader::Dataset;
    use minai::noise::NoiseSchedule;
    use minai::tensor::elements;
    {
        let schedule = NoiseSchedule::linear(4, 0.1, 0.4);
        let levels: Vec<f32> = (0..4).map(|t| schedule.sigma(f64::from(t)) as f32).collect();
        let data =
            NoisyImages { images: Array::new(vec![0.0; 4], &[1, 1, 2, 2]), schedule: schedule.clone() };
        let batch = data.batch(&[0; 400], &mut Generator::manual_seed(1));
        let drawn = |level: f32| elements(&batch.sigma).iter().filter(|&&sigma| sigma == level).count();
        let counts: Vec<usize> = levels.iter().map(|&level| drawn(level)).collect();
        assert!(counts.iter().sum::<usize>() == 400 && counts.iter().all(|&n| n > 70), "{counts:?}");
        let all: Vec<f64> =
            [3.0, 2.0, 1.0, 0.0].map(|t| schedule.sigma(t)).into_iter().chain([0.0]).collect();
        assert_eq!(even_levels(&schedule, 4), all);
        assert_eq!(even_levels(&schedule, 2), [schedule.sigma(3.0), schedule.sigma(1.0), 0.0]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/17_guess_the_noise.ipynb test-shuffle
#[test]
fn pixels_are_shuffled_as_pytorch_does_and_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::tensor::{Tensor, elements};
    {
        let x = Tensor::from(minai::array::Array::new((0..32).map(|i| i as f32).collect(), &[2, 1, 4, 4]));
        let y = pixel_unshuffle(&x, 2);
        assert_eq!(y.shape(), [2, 4, 2, 2]);
        let channels = [[0., 2., 8., 10.], [1., 3., 9., 11.], [4., 6., 12., 14.], [5., 7., 13., 15.]];
        assert_eq!(elements(&minai::tensor::contiguous(&y.data))[..16], channels.concat());
        let back = pixel_shuffle(&y, 2);
        assert_eq!((back.shape(), (back.clone() - &x).abs().amax(..).item()), (x.shape(), 0.0));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/17_guess_the_noise.ipynb test-learns
#[test]
fn a_small_network_learns_to_predict_noise() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::learner::Task;
    use minai::loader::Dataset;
    use minai::nn::Pass;
    use minai::noise::NoiseSchedule;
    use minai::optim::AdamW;
    use minai::optimizer::Optimizer;
    {
        let mut rng = Generator::manual_seed(1);
        let data = NoisyImages {
            images: rng.randn(&[8, 1, 8, 8]),
            schedule: NoiseSchedule::linear(1000, 1e-4, 0.02),
        };
        let task = GuessTheNoise { model: PlainCnn::new(&mut rng, 2, 8, 2) };
        let mut optimizer = Optimizer::new(&task.model, AdamW { lr: 1e-2, ..AdamW::default() });
        let batch = data.batch(&[0, 1, 2, 3, 4, 5, 6, 7], &mut rng);
        let mut losses = vec![];
        for _ in 0..60 {
            let loss = task.loss(&task.predict(&batch, &mut Pass::train(Generator::manual_seed(0))), &batch);
            losses.push(loss.item());
            loss.backward();
            optimizer.step();
            optimizer.zero_grad();
        }
        assert!(losses[59] < 0.7 * losses[0], "from {} to {}", losses[0], losses[59]);
        assert_eq!(task.len(&batch), 8);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/17_guess_the_noise.ipynb test-shapes
#[test]
#[should_panic]
fn images_and_noise_of_different_shapes_are_refused() {
    use minai::noise::NoiseSchedule;
    use minai::tensor::Tensor;
    {
        let schedule = NoiseSchedule::linear(10, 1e-4, 0.02);
        add_noise(&schedule, &Tensor::zeros((2, 1, 4, 4)).data, Tensor::zeros((2, 1, 4, 5)).data, &[0, 1]);
    }
}
