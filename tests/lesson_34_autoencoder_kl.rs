// Owned by notebooks/34_autoencoder_kl.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 3ee230b88d607b87
//! What notebooks/34_autoencoder_kl.ipynb claims.

use minai::vae::{Posterior, VaeAttention, VaeConfig, VaeDownsample, VaeUpsample};

// %% notebooks/34_autoencoder_kl.ipynb test-pad
#[test]
fn blocks_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::blocks::{Norms, ResnetBlock};
    use minai::generator::Generator;
    use minai::nn::{Layer, Pass};
    use minai::tensor::grad_check;
    {
        let wave = Array::new((0..48).map(|i: usize| (i as f32 * 1.7).sin()).collect(), &[1, 2, 4, 6]);
        let (config, mut rng) = (VaeConfig { groups: 1, ..VaeConfig::sd15() }, Generator::manual_seed(1));
        let layers: [Box<dyn Layer>; 4] = [
            Box::new(ResnetBlock::new(&mut rng, (2, 4), Norms { groups: 1, eps: 1e-6 }, None)),
            Box::new(VaeAttention::new(&mut rng, &config, 2)),
            Box::new(VaeDownsample::new(&mut rng, 2)),
            Box::new(VaeUpsample::new(&mut rng, 2)),
        ];
        for layer in layers {
            let error = grad_check(|x| layer.forward(&x[0], &mut Pass::eval()), &[wave.clone()]);
            println!("{}: {error:.0e}", layer.name());
            assert!(error < 1e-2, "{}: {error}", layer.name());
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/34_autoencoder_kl.ipynb test-kl
#[test]
fn a_draw_passes_gradients_to_mean_and_variance() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::tensor::{Tensor, grad_check};
    {
        let numbers = |from: f32| Array::new((0..8).map(|i| from + 0.3 * i as f32).collect(), &[2, 1, 2, 2]);
        let posterior = |x: &[Tensor]| Posterior { mean: x[0].clone(), log_variance: x[1].clone() };
        let inputs = [numbers(-1.0), numbers(-2.0)];
        let draw = grad_check(|x| posterior(x).sample(&mut Generator::manual_seed(1)), &inputs);
        let kl = grad_check(|x| posterior(x).kl(), &inputs);
        assert!(draw < 1e-3 && kl < 1e-3, "{draw} {kl}");
        let zeros =
            Posterior { mean: Tensor::zeros(&[3, 1, 2, 2]), log_variance: Tensor::zeros(&[3, 1, 2, 2]) };
        assert_eq!(zeros.kl().data, Tensor::zeros(&[3]).data);
    }
    println!("passed");
    Ok(())
}
