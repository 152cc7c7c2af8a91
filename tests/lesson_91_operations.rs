// Owned by notebooks/91_operations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash eec913ed86bf104c
//! What notebooks/91_operations.ipynb claims.

use minai::activation::{gelu, gelu_tanh, leaky_relu, quick_gelu, silu, softplus};
use minai::attention::scaled_dot_product_attention;
use minai::conv::{ConvOptions, conv_transpose2d, conv2d};
use minai::embedding::embedding;
use minai::linear::linear;
use minai::loss::{
    binary_cross_entropy_with_logits, cross_entropy, log_softmax, logsumexp, mse_loss, nll_loss, softmax,
};
use minai::norm::{Running, batch_norm, batch_norm_eval, group_norm, group_norm_silu, layer_norm};
use minai::pool::{Pool, avg_pool2d, max_pool2d, upsample_nearest};

// %% notebooks/91_operations.ipynb ac-grad
#[test]
fn activations_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::tensor::{Tensor, grad_check};
    {
        let functions: [(&str, fn(&Tensor) -> Tensor); 6] = [
            ("leaky_relu", |x| leaky_relu(x, 0.1)),
            ("silu", silu),
            ("gelu", gelu),
            ("gelu_tanh", gelu_tanh),
            ("quick_gelu", quick_gelu),
            ("softplus", softplus),
        ];
        for (name, f) in functions {
            let x = Array::new((0..20).map(|i| (i as f32 - 9.3) / 3.0).collect(), &[4, 5]);
            let error = grad_check(|x| f(&x[0]), &[x]);
            println!("{name}: {error:.1e}");
            assert!(error < 1e-3, "{name}: {error}");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/91_operations.ipynb lo-grad
#[test]
fn losses_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::{Array, array};
    use minai::tensor::{Tensor, grad_check};
    {
        let wave = |n: usize, speed: f32| (0..n).map(|i| (i as f32 * speed).sin()).collect::<Vec<f32>>();
        let x = Array::new(wave(12, 1.3), &[2, 3, 2]);
        let functions: [(&str, fn(&[Tensor]) -> Tensor); 5] = [
            ("softmax", |x| softmax(&x[0], -1)),
            ("softmax over axis 1", |x| softmax(&x[0], 1)),
            ("log_softmax", |x| log_softmax(&x[0], 0)),
            ("logsumexp", |x| logsumexp(&x[0], -1)),
            ("logsumexp over axis 0", |x| logsumexp(&x[0], 0)),
        ];
        for (name, f) in functions {
            let error = grad_check(f, &[x.clone()]);
            assert!(error < 1e-3, "{name}: {error}");
        }
        let (rows, targets) = (Array::new(wave(12, 2.1), &[4, 3]), array([2_i64, 0, 1, 1]));
        assert!(grad_check(|x| cross_entropy(&x[0], &targets), &[rows.clone()]) < 1e-3);
        assert!(grad_check(|x| nll_loss(&x[0], &targets), &[rows.clone()]) < 1e-3);
        let pair = [rows, Array::new(wave(12, 0.7), &[4, 3])];
        assert!(grad_check(|x| mse_loss(&x[0], &x[1]), &pair) < 1e-3);
        assert!(grad_check(|x| binary_cross_entropy_with_logits(&x[0], &x[1]), &pair) < 1e-3);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/91_operations.ipynb lo-halves
#[test]
fn cross_entropy_is_log_softmax_and_nll() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::{Array, array};
    use minai::tensor::Tensor;
    {
        let x = Tensor::from(Array::new((0..15).map(|i| (i * 7 % 11) as f32).collect(), &[5, 3]));
        let targets = array([0_i64, 1, 2, 1, 0]);
        let (whole, halves) =
            (cross_entropy(&x, &targets).item(), nll_loss(&log_softmax(&x, -1), &targets).item());
        assert!((whole - halves).abs() < 1e-5, "{whole} and {halves}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/91_operations.ipynb no-grad
#[test]
fn norms_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::tensor::grad_check;
    {
        let wave = |shape: &[usize], speed: f32| {
            Array::new((0..shape.iter().product()).map(|i: usize| (i as f32 * speed).sin()).collect(), shape)
        };
        let images = [wave(&[2, 4, 3], 1.3), wave(&[4], 2.0), wave(&[4], 0.9)];
        assert!(grad_check(|x| group_norm(&x[0], 2, &x[1], &x[2], 1e-3), &images) < 1e-3);
        assert!(grad_check(|x| group_norm_silu(&x[0], 2, &x[1], &x[2], 1e-3), &images) < 1e-3);
        assert!(grad_check(|x| batch_norm(&x[0], &x[1], &x[2], &mut Running::new(4), 1e-3), &images) < 1e-3);
        assert!(grad_check(|x| batch_norm_eval(&x[0], &x[1], &x[2], &Running::new(4), 1e-3), &images) < 1e-3);
        let rows = [wave(&[3, 5], 1.3), wave(&[5], 2.0), wave(&[5], 0.9)];
        assert!(grad_check(|x| layer_norm(&x[0], &x[1], &x[2], 1e-3), &rows) < 1e-3);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/91_operations.ipynb no-running
#[test]
fn running_statistics_come_close_to_those_of_the_data() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::tensor::Tensor;
    {
        let x = Tensor::from(Array::new((0..40).map(|i| 3.0 + 2.0 * (i as f32).sin()).collect(), &[20, 2]));
        let (one, zero, mut running) = (Tensor::ones(&[2]), Tensor::zeros(&[2]), Running::new(2));
        for _ in 0..200 {
            batch_norm(&x, &one, &zero, &mut running, 1e-5);
        }
        for channel in 0..2 {
            assert!((running.mean[[channel]] - x.mean(0).data[[channel]]).abs() < 1e-4);
            assert!((running.var[[channel]] - x.var(0).data[[channel]]).abs() < 1e-4);
        }
    }
    println!("passed");
    Ok(())
}

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

// %% notebooks/91_operations.ipynb po-grad
#[test]
fn pools_and_rows_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::{Array, array};
    use minai::kernels::pool::Partial;
    use minai::tensor::{Tensor, grad_check};
    {
        // Far enough from one another that no maximum changes while grad_check tries out.
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
        let table = Array::new((0..6).map(|i| i as f32 / 3.0).collect(), &[3, 2]);
        assert!(grad_check(|x| embedding(&array([[2_i64, 0], [2, 2]]), &x[0]), &[table]) < 1e-3);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/91_operations.ipynb co-grad
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

// %% notebooks/91_operations.ipynb li-grad
#[test]
fn linear_is_a_product_and_a_sum() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::rng::WichmannHill;
        use minai::tensor::{Tensor, grad_check};

        let mut rng = WichmannHill::seed(9);
        for shape in [&[5][..], &[3, 5], &[2, 3, 5], &[0, 5]] {
            let mut draw = |shape: &[usize]| {
                let count = shape.iter().product();
                Array::new((0..count).map(|_| rng.uniform() as f32 - 0.5).collect(), shape)
            };
            let arrays = [draw(shape), draw(&[4, 5]), draw(&[4])];
            let [x, w, b] = arrays.each_ref().map(|array| Tensor::from(array.clone()));
            let (fused, plain) = (linear(&x, &w, Some(&b)), x.matmul(&w.t()) + &b);
            assert_eq!(fused.shape(), plain.shape());
            assert!(fused.data.iter().zip(plain.data.iter()).all(|(y, want)| (y - want).abs() < 1e-6));
            assert!(grad_check(|t| linear(&t[0], &t[1], Some(&t[2])).tanh().sum(..), &arrays) < 1e-2);
            assert!(grad_check(|t| linear(&t[0], &t[1], None).tanh().sum(..), &arrays[..2]) < 1e-2);
        }
    }
    println!("passed");
    Ok(())
}
