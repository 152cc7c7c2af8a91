// Owned by notebooks/08_convolutions.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 97103444a86a06da
//! What notebooks/08_convolutions.ipynb claims.

use minai::conv::{ConvOptions, conv_transpose2d, conv2d};

// %% notebooks/08_convolutions.ipynb co-grad
#[test]
fn convolutions_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::tensor::grad_check;
    {
        let wave = |shape: &[usize], speed: f32| {
            Array::new((0..shape.iter().product()).map(|i: usize| (i as f32 * speed).sin()).collect(), shape)
        };
        let x = wave(&[2, 4, 6, 5], 1.3);
        for (stride, padding, dilation, groups) in [(1, 0, 1, 1), (2, 1, 1, 2), (1, 2, 2, 4), (3, 1, 1, 1)] {
            let options = ConvOptions { stride, padding, dilation, groups };
            let inputs = [x.clone(), wave(&[4, 4 / groups, 3, 2], 0.7), wave(&[4], 2.1)];
            let error = grad_check(|x| conv2d(&x[0], &x[1], Some(&x[2]), options), &inputs);
            let back = grad_check(|x| conv_transpose2d(&x[0], &x[1], Some(&x[2]), options), &inputs);
            println!("{options:?}: {error:.1e} and {back:.1e}");
            assert!(error < 1e-3 && back < 1e-3, "{options:?}: {error}, {back}");
        }
    }
    println!("passed");
    Ok(())
}
