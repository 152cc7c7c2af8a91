// Owned by notebooks/12_init.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 7722b4d437169847
//! What notebooks/12_init.ipynb claims.

use minai::activation::{gelu, gelu_tanh, leaky_relu, quick_gelu, silu, softplus};
use minai::norm::{Running, batch_norm, batch_norm_eval, group_norm, group_norm_silu, layer_norm};

// %% notebooks/12_init.ipynb ac-grad
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

// %% notebooks/12_init.ipynb no-grad
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

// %% notebooks/12_init.ipynb no-running
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
