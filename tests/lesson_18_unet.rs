// Owned by notebooks/18_unet.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 2c4d75ebd112794c
//! What notebooks/18_unet.ipynb claims.

use minai::small_unet::{SmallUNet, SmallUNetConfig};
use minai::time_embedding::time_features;

// %% notebooks/18_unet.ipynb time-test
#[test]
fn the_same_distance_is_as_alike_everywhere() -> Result<(), Box<dyn std::error::Error>> {
    {
        let rows = time_features(&[10.0, 30.0, 500.0, 520.0], 64, true, 0.0);
        let product =
            |i: usize, j: usize| -> f32 { (0..64).map(|k| rows.data[[i, k]] * rows.data[[j, k]]).sum() };
        assert!((product(0, 1) - product(2, 3)).abs() < 1e-3);
        let other = time_features(&[10.0], 64, false, 0.0);
        assert_eq!(other.data[[0, 0]], rows.data[[0, 32]]); // sines first
    }
    println!("passed");
    Ok(())
}

// %% notebooks/18_unet.ipynb test-quiet
#[test]
fn a_new_network_says_that_there_is_no_noise() -> Result<(), Box<dyn std::error::Error>> {
    use minai::diffusion::NoisePredictor;
    use minai::generator::Generator;
    use minai::nn::Pass;
    use minai::tensor::Tensor;
    {
        let mut rng = Generator::manual_seed(1);
        let config = SmallUNetConfig { in_channels: 2, out_channels: 3, channels: vec![8, 16], skips: true };
        let unet = SmallUNet::new(&mut rng, &config);
        let x: Tensor = rng.randn(&[2, 2, 8, 6]).into();
        let y = unet.predict_noise(&x, &Tensor::full(2, 1.0), &mut Pass::eval());
        assert_eq!((y.shape(), y.abs().amax(..).item()), (&[2, 3, 8, 6][..], 0.0));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/18_unet.ipynb test-told
#[test]
fn each_image_is_told_its_own_level_and_skips_can_be_cut() -> Result<(), Box<dyn std::error::Error>> {
    use minai::diffusion::NoisePredictor;
    use minai::generator::Generator;
    use minai::nn::{Parts, Pass};
    use minai::tensor::{Tensor, cat};
    {
        let config = SmallUNetConfig { channels: vec![8, 16], ..SmallUNetConfig::default() };
        let make = |config: &SmallUNetConfig| {
            let mut rng = Generator::manual_seed(1);
            let unet = SmallUNet::new(&mut rng, config);
            for (_, parameter) in Parts::of(&unet).parameters {
                parameter.set(rng.randn(&parameter.shape()));
            }
            unet
        };
        let (unet, cut) = (make(&config), make(&SmallUNetConfig { skips: false, ..config.clone() }));
        let x: Tensor = Generator::manual_seed(2).randn(&[1, 1, 8, 8]).into();
        let at =
            |unet: &SmallUNet, level: f32| unet.predict_noise(&x, &Tensor::full(1, level), &mut Pass::eval());
        let (one, other) = (at(&unet, 0.5), at(&unet, 3.0));
        let levels = cat(&[&Tensor::full(1, 0.5), &Tensor::full(1, 3.0)], 0);
        let both = unet.predict_noise(&cat(&[&x, &x], 0), &levels, &mut Pass::eval());
        let off = (both - cat(&[&one, &other], 0)).abs().amax(..).item();
        assert!(
            off < 1e-3 * one.abs().amax(..).item(),
            "a batch of two differs from one after the other by {off}"
        );
        for changed in [other, at(&cut, 0.5)] {
            assert!((changed - &one).abs().amax(..).item() > 1e-2 * one.abs().amax(..).item());
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/18_unet.ipynb test-size
#[test]
#[should_panic]
fn images_that_cannot_be_halved_are_refused() {
    use minai::diffusion::NoisePredictor;
    use minai::generator::Generator;
    use minai::nn::Pass;
    use minai::tensor::Tensor;
    {
        let unet = SmallUNet::new(&mut Generator::manual_seed(1), &SmallUNetConfig::default());
        unet.predict_noise(&Tensor::zeros(&[1, 1, 28, 30]), &Tensor::full(1, 1.0), &mut Pass::eval());
    }
}
