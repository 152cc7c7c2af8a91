// Owned by notebooks/32_clip_text.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash b69fe42191026ff8
//! What notebooks/32_clip_text.ipynb claims.

use minai::attention::scaled_dot_product_attention;
use minai::clip::{ClipConfig, ClipLayer};
use minai::embedding::embedding;

// %% notebooks/32_clip_text.ipynb em-grad
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

// %% notebooks/32_clip_text.ipynb at-plain
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

// %% notebooks/32_clip_text.ipynb at-grad
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

// %% notebooks/32_clip_text.ipynb cl-layer-test
#[test]
fn a_layer_that_says_nothing_changes_nothing() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::nn::{Layer, Parts, Pass};
    use minai::tensor::Tensor;
    use minai::weights::{Keep, initialize};
    {
        let config = ClipConfig { width: 8, inner: 16, heads: 2, ..ClipConfig::sd15() };
        let (layer, mut rng) = (ClipLayer::new(&config), Generator::manual_seed(1));
        initialize(&layer, &mut rng, Keep::Single);
        let x = Tensor::from(rng.randn(&[2, 5, 8]));
        assert!(layer.forward(&x, &mut Pass::eval()).data != x.data);
        for (name, parameter) in Parts::of(&layer).parameters {
            if name.starts_with("self_attn.out_proj") || name.starts_with("mlp.fc2") {
                parameter.update(|numbers| numbers.fill(0.0));
            }
        }
        assert_eq!(layer.forward(&x, &mut Pass::eval()).data, x.data);
    }
    println!("passed");
    Ok(())
}
