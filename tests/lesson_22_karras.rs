// Owned by notebooks/22_karras.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash a590a38bcc1f60b8
//! What notebooks/22_karras.ipynb claims.

use minai::karras::{ImagesAtLevels, LogNormal, Preconditioner};

// %% notebooks/22_karras.ipynb test-variance
#[test]
fn input_and_target_have_variance_1_where_the_data_have_that_of_sigma_data()
-> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let preconditioner = Preconditioner { sigma_data: 0.5 };
        let mut rng = Generator::manual_seed(1);
        let x0 = Tensor::from(rng.randn(&[1, 1, 100, 200])) * 0.5;
        let noise = Tensor::from(rng.randn(&[1, 1, 100, 200]));
        for sigma in [0.01f32, 0.3, 1.0, 40.0] {
            let (x, levels) = (&x0 + &noise * sigma, Array::new(vec![sigma], &[1]));
            let (input, target) =
                (preconditioner.input(&x, &levels), preconditioner.target(&x, &x0, &levels));
            for y in [input, target] {
                assert!((y.std(..).item() - 1.0).abs() < 0.03, "level {sigma}: {}", y.std(..).item());
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/22_karras.ipynb test-back
#[test]
fn a_perfect_answer_gives_the_image_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let preconditioner = Preconditioner { sigma_data: 0.7 };
        let mut rng = Generator::manual_seed(2);
        let [x0, noise] = [(); 2].map(|()| Tensor::from(rng.randn(&[3, 1, 4, 4])));
        for sigma in [0.02, 1.0, 30.0] {
            let x = &x0 + &noise * sigma as f32;
            let target = preconditioner.target(&x, &x0, &Array::new(vec![sigma as f32; 3], &[3]));
            let mut told = None;
            let found = preconditioner.denoise(&x, sigma, |input, levels| {
                told = Some((input.clone(), levels.clone()));
                target.clone()
            });
            let off = (found - &x0).abs().amax(..).item();
            assert!(off < 1e-4 * sigma.max(1.0) as f32, "level {sigma}: off by {off}");
            let (input, levels) = told.expect("the network was asked");
            assert!(
                (input / preconditioner.c_in(sigma) as f32 - &x).abs().amax(..).item()
                    < 1e-3 * sigma as f32 + 1e-5
            );
            assert_eq!(levels.data, Array::new(vec![sigma as f32; 3], &[3]));
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/22_karras.ipynb test-levels
#[test]
fn levels_are_drawn_from_the_distribution_and_noise_is_mixed_in() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::loader::Dataset;
    use minai::tensor::{Tensor, elements};
    {
        let levels = LogNormal { mean: -0.4, std: 0.8 };
        let data = ImagesAtLevels { images: Array::new(vec![0.25; 2 * 400], &[2, 1, 20, 20]), levels };
        let batch = data.batch(&[0; 500], &mut Generator::manual_seed(1));
        let logs = Tensor::from(batch.sigma.clone()).log();
        assert!((logs.mean(..).item() + 0.4).abs() < 0.1 && (logs.std(..).item() - 0.8).abs() < 0.1);
        let noise = Tensor::from(batch.x.clone()) - Tensor::from(batch.x0.clone());
        for (image, sigma) in elements(&noise.data).chunks(400).zip(elements(&batch.sigma)) {
            let rms = (image.iter().map(|x| x * x).sum::<f32>() / 400.0).sqrt();
            assert!((rms / sigma - 1.0).abs() < 0.2, "{rms} at level {sigma}");
        }
    }
    println!("passed");
    Ok(())
}
