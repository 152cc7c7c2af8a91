// Owned by notebooks/14_resnet.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 9986e49d67e22968
//! What notebooks/14_resnet.ipynb claims.

use minai::resnet::{ResBlock, resnet};
use minai::summary::summary;

// %% notebooks/14_resnet.ipynb test-identity
#[test]
fn a_block_that_changes_nothing_is_its_shortcut() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::nn::{Layer, Pass};
    use minai::tensor::Tensor;
    {
        let mut rng = Generator::manual_seed(1);
        let block = ResBlock::new(&mut rng, 3, 3, 1);
        block.second.norm.weight.update(|weight| weight.fill(0.0));
        let x = Tensor::from(rng.rand(&[2, 3, 5, 5])); // positive, so that the activation does not change it
        for mut pass in [Pass::eval(), Pass::train(Generator::manual_seed(0))] {
            assert_eq!(block.forward(&x, &mut pass).data, x.data);
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/14_resnet.ipynb test-grad
#[test]
fn a_blocks_gradient_agrees_with_finite_differences() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::nn::{Layer, Pass};
    use minai::tensor::{Tensor, grad_check};
    {
        let mut rng = Generator::manual_seed(2);
        let block = ResBlock::new(&mut rng, 2, 3, 2);
        let x = rng.randn(&[3, 2, 5, 5]);
        let train = |x: &Tensor| block.forward(x, &mut Pass::train(Generator::manual_seed(0)));
        assert_eq!(train(&x.clone().into()).shape(), [3, 3, 3, 3]);
        assert!(grad_check(|x| train(&x[0]), &[x]) < 1e-2);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/14_resnet.ipynb test-summary
#[test]
fn a_summary_agrees_with_a_count_by_hand() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let model = resnet(&mut Generator::manual_seed(1), 1, &[4, 6], 10);
        let all = summary(&model, &Tensor::ones(&[5, 1, 2, 1])); // 2 pixels, then 1
        let (first, second) = ((4 * 9 + 4 * 4 * 9 + 4) * 2, 6 * 4 * 9 * 2 + 6 * 6 * 9 + 6 * 4);
        let counts: Vec<usize> = all.levels(1).rows.iter().map(|row| row.multiplications).collect();
        assert_eq!(counts, [first, second, 0, 60, 0]);
        assert_eq!(all.total(), (minai::nn::parameter_count(&model), first + second + 60));
        assert_eq!(all.rows.last().map(|row| row.layer), Some("BatchNorm2d"));
        assert_eq!(all.inside("1").rows.last().unwrap().output, [5, 6, 1, 1]);
        assert_eq!(all.inside("1").total().1, second);
    }
    println!("passed");
    Ok(())
}
