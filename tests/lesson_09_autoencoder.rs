// Owned by notebooks/09_autoencoder.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash d719ac5b06f4dd6b
//! What notebooks/09_autoencoder.ipynb claims.

use minai::pool::{Pool, avg_pool2d, max_pool2d, upsample_nearest};

// %% notebooks/09_autoencoder.ipynb po-grad
#[test]
fn pools_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::kernels::pool::Partial;
    use minai::tensor::{Tensor, grad_check};
    {
        // Far enough from one another that no maximum changes within the finite differences.
        let image = Array::new((0..40).map(|i| (i * 17 % 41) as f32 / 8.0).collect(), &[2, 1, 5, 4]);
        let keep = Pool { stride: Some(2), padding: 1, partial: Partial::Keep };
        let functions: [(&str, &dyn Fn(&[Tensor]) -> Tensor); 4] = [
            ("avg_pool2d", &|x| avg_pool2d(&x[0], 2, Pool::default())),
            ("avg_pool2d with padding", &|x| avg_pool2d(&x[0], 3, keep)),
            ("max_pool2d", &|x| max_pool2d(&x[0], 3, keep)),
            ("upsample_nearest", &|x| upsample_nearest(&x[0], 3)),
        ];
        for (name, f) in functions {
            let error = grad_check(f, &[image.clone()]);
            assert!(error < 1e-3, "{name}: {error}");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/09_autoencoder.ipynb po-test
#[test]
fn upsampling_undoes_pooling_of_squares() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::tensor::Tensor;
    {
        let x = Tensor::from(Array::new((0..36).map(|i| i as f32).collect(), &[1, 2, 3, 6]));
        let large = upsample_nearest(&x, 3);
        assert_eq!((large.shape(), large.data[[0, 1, 8, 17]]), (&[1, 2, 9, 18][..], 35.0));
        for pooled in [avg_pool2d(&large, 3, Pool::default()), max_pool2d(&large, 3, Pool::default())] {
            let worst =
                pooled.data.iter().zip(x.data.iter()).fold(0.0_f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < 1e-4, "off by {worst}");
        }
    }
    println!("passed");
    Ok(())
}
