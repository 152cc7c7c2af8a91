// Owned by notebooks/32_clip_text.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 6e24c3656e32dc9d
//! What notebooks/32_clip_text.ipynb claims.

use minai::attention::{MultiheadAttention, multi_head, scaled_dot_product_attention};
use minai::clip::{ClipConfig, ClipLayer};

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

// %% notebooks/32_clip_text.ipynb at-multi-test
#[test]
fn heads_attend_on_their_own() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::kernels::attention::Mask;
    use minai::tensor::{Tensor, cat};
    {
        let wave = |shape: &[usize], speed: f32| {
            let values = (0..shape.iter().product()).map(|i: usize| (i as f32 * speed).sin());
            Tensor::from(Array::new(values.collect(), shape))
        };
        let (q, k, v) = (wave(&[2, 5, 6], 1.3), wave(&[2, 7, 6], 0.7), wave(&[2, 7, 6], 2.1));
        let whole = multi_head(&q, &k, &v, 3, Mask::None);
        assert_eq!(whole.shape(), [2, 5, 6]);
        let head = |i: usize| {
            let part = |x: &Tensor| x.slice(ndarray::s![.., .., 2 * i..2 * i + 2]);
            scaled_dot_product_attention(&part(&q), &part(&k), &part(&v), Mask::None)
        };
        let heads = cat(&[&head(0), &head(1), &head(2)], -1);
        assert!((whole - heads).abs().amax(..).item() < 1e-6);
        let one = multi_head(&q, &q, &q, 1, Mask::Causal);
        assert_eq!(one.data, scaled_dot_product_attention(&q, &q, &q, Mask::Causal).data);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/32_clip_text.ipynb at-layer-test
#[test]
fn the_layer_is_projections_heads_and_a_projection() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::kernels::attention::Mask;
    use minai::loss::softmax;
    use minai::nn::{Layer, Pass, named_parameters};
    use minai::tensor::{Tensor, cat, grad_check};
    {
        let mut rng = Generator::manual_seed(7);
        let layer = MultiheadAttention::new(&mut rng, 6, 3);
        layer.in_proj_bias.set(rng.randn(&[18])); // 0 would hide a mistake
        layer.out_proj.bias.as_ref().expect("a bias").set(rng.randn(&[6]));
        let names: Vec<String> = named_parameters(&layer).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias"]);
        let inputs = [[2, 4, 6], [2, 5, 6], [2, 5, 6]].map(|shape| Tensor::from(rng.randn(&shape)));
        let [q, k, v] = &inputs;
        let found = layer.attend(q, k, v, Mask::None, &mut Pass::eval());

        // The same by plain products, example by example and head by head.
        let rows = |x: &Array, from: usize, to: usize| Tensor::from(x.clone()).slice(ndarray::s![from..to]);
        let (weight, bias) = (layer.in_proj_weight.data(), layer.in_proj_bias.data());
        let part = |x: &Tensor, i: usize, n: usize, head: usize| {
            let (from, to) = (6 * i + 2 * head, 6 * i + 2 * head + 2);
            x.slice(ndarray::s![n]).matmul(&rows(&weight, from, to).t()) + rows(&bias, from, to)
        };
        let head = |n: usize, head: usize| {
            let scores = part(q, 0, n, head).matmul(&part(k, 1, n, head).t()) / 2_f32.sqrt();
            softmax(&scores, -1).matmul(&part(v, 2, n, head))
        };
        let example = |n: usize| cat(&[&head(n, 0), &head(n, 1), &head(n, 2)], -1).unsqueeze(0);
        let joined = cat(&[&example(0), &example(1)], 0);
        let plain = layer.out_proj.forward(&joined, &mut Pass::eval());
        assert!((&found - plain).abs().amax(..).item() < 1e-5);

        let x = q.data.clone();
        let own = layer.attend(q, q, q, Mask::None, &mut Pass::eval());
        assert_eq!(layer.forward(q, &mut Pass::eval()).data, own.data);
        assert!(grad_check(|x| layer.forward(&x[0], &mut Pass::eval()), &[x]) < 1e-2);
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
    use minai::weights::{Pending, Precision, initialize};
    {
        let config = ClipConfig { width: 8, inner: 16, heads: 2, ..ClipConfig::sd15() };
        let (layer, mut rng) = (ClipLayer::new(&mut Pending, &config), Generator::manual_seed(1));
        initialize(&layer, &mut rng, Precision::Single);
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
