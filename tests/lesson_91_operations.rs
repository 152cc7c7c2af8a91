// Owned by notebooks/91_operations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 7e1a72e6a4fe68eb
//! What notebooks/91_operations.ipynb claims.

use minai::attention::scaled_dot_product_attention;
use minai::embedding::embedding;

// %% notebooks/91_operations.ipynb at-grad
#[test]
fn attention_passes_its_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::kernels::attention::Mask;
    use minai::tensor::grad_check;
    {
        let wave = |shape: &[usize], speed: f32| {
            Array::new((0..shape.iter().product()).map(|i: usize| (i as f32 * speed).sin()).collect(), shape)
        };
        let inputs = [wave(&[2, 4, 3], 1.3), wave(&[2, 5, 3], 0.7), wave(&[2, 5, 2], 2.1)];
        for mask in [Mask::None, Mask::Causal] {
            let error = grad_check(|x| scaled_dot_product_attention(&x[0], &x[1], &x[2], mask), &inputs);
            println!("{mask:?}: {error:.1e}");
            assert!(error < 1e-3, "{mask:?}: {error}");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/91_operations.ipynb at-plain
#[test]
fn attention_is_softmax_between_two_products() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::kernels::attention::Mask;
    use minai::loss::softmax;
    use minai::tensor::Tensor;
    {
        let wave = |shape: &[usize], speed: f32| {
            Tensor::from(Array::new(
                (0..shape.iter().product()).map(|i: usize| (i as f32 * speed).sin()).collect(),
                shape,
            ))
        };
        let (q, k, v) = (wave(&[3, 70, 8], 1.3), wave(&[3, 90, 8], 0.7), wave(&[3, 90, 5], 2.1));
        let fused = scaled_dot_product_attention(&q, &k, &v, Mask::None);
        let plain = softmax(&(q.matmul(&k.transpose(-1, -2)) / 8_f32.sqrt()), -1).matmul(&v);
        assert!((fused - plain).abs().amax(..).item() < 1e-6);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/91_operations.ipynb em-grad
#[test]
fn rows_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::{Array, array};
    use minai::tensor::grad_check;
    {
        let table = Array::new((0..6).map(|i| i as f32 / 3.0).collect(), &[3, 2]);
        assert!(grad_check(|x| embedding(&array([[2_i64, 0], [2, 2]]), &x[0]), &[table]) < 1e-3);
    }
    println!("passed");
    Ok(())
}
