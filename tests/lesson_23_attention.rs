// Owned by notebooks/23_attention.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash ad6eed0bbb1c8d7c
//! What notebooks/23_attention.ipynb claims.

use minai::attention::{MultiheadAttention, multi_head, scaled_dot_product_attention};
use minai::corners::{CornerNet, CornerNetConfig, Corners, DIGIT, SIDE, read_corners};

// %% notebooks/23_attention.ipynb at-plain
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

// %% notebooks/23_attention.ipynb at-grad
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

// %% notebooks/23_attention.ipynb at-multi-test
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

// %% notebooks/23_attention.ipynb at-layer-test
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

// %% notebooks/23_attention.ipynb test-order
#[test]
fn attention_does_not_know_the_order() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::nn::{Layer, Pass};
    use minai::tensor::{Tensor, cat};
    {
        let mut rng = Generator::manual_seed(1);
        let layer = MultiheadAttention::new(&mut rng, 8, 2);
        let x = Tensor::from(rng.randn(&[2, 5, 8]));
        let turned = |x: &Tensor| cat(&[&x.slice(ndarray::s![.., 2..]), &x.slice(ndarray::s![.., ..2])], 1);
        let at = |x: &Tensor| layer.forward(x, &mut Pass::eval());
        assert!((at(&turned(&x)) - turned(&at(&x))).abs().amax(..).item() < 1e-6);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/23_attention.ipynb test-canvas
#[test]
fn a_canvas_has_its_digit_in_two_corners() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::datasets::Images;
    use minai::generator::Generator;
    use minai::karras::LogNormal;
    use minai::loader::Dataset;
    use minai::tensor::elements;
    {
        // The 2 by 2 pixels at (y, x) of image i have a grey value that tells i, y and x.
        let grey = |i: usize, y: usize, x: usize| 0.2 * i as f32 + 0.01 * y as f32 + 0.001 * x as f32;
        let pixels = (0..3 * 28 * 28).map(|at| grey(at / 784, at / 28 % 28 / 2, at % 28 / 2)).collect();
        let images = Images::new(Array::new(pixels, &[3, 1, 28, 28]), Array::new(vec![0, 1, 2], &[3]));
        let corners = Corners::new(&images, LogNormal::default());
        let canvases = corners.canvases(&[2, 0]);
        for (canvas, i) in elements(&canvases).chunks(SIDE * SIDE).zip([2, 0]) {
            for (y, x) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x))) {
                let expected = match (y < DIGIT && x < DIGIT, y >= 20 && x >= 20) {
                    (true, _) => 2.0 * grey(i, y + 1, x + 1) - 1.0,
                    (_, true) => 2.0 * grey(i, y - 19, x - 19) - 1.0,
                    _ => -1.0,
                };
                assert!((canvas[y * SIDE + x] - expected).abs() < 1e-6, "canvas {i} at {y}, {x}");
            }
        }
        let batch = corners.batch(&[0, 1], &mut Generator::manual_seed(1));
        assert_eq!((corners.len(), batch.x0.shape(), batch.sigma.len()), (3, &[2, 1, SIDE, SIDE][..], 2));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/23_attention.ipynb test-reach
#[test]
fn only_with_attention_does_a_digit_see_the_other() -> Result<(), Box<dyn std::error::Error>> {
    use minai::diffusion::NoisePredictor;
    use minai::generator::Generator;
    use minai::nn::{Parts, Pass};
    use minai::tensor::Tensor;
    {
        let slope = |heads: Option<usize>| {
            let mut rng = Generator::manual_seed(1);
            let net = CornerNet::new(&mut rng, &CornerNetConfig { channels: 8, heads });
            for (_, parameter) in Parts::of(&net).parameters {
                parameter.set((Tensor::from(rng.randn(&parameter.shape())) * 0.3).data);
            }
            let x = Tensor::parameter(rng.randn(&[1, 1, SIDE, SIDE]));
            let y = net.predict_noise(&x, &Tensor::full(1, 1.0), &mut Pass::eval());
            y.slice(ndarray::s![0, 0, ..DIGIT, ..DIGIT]).sum(..).backward();
            let slope = Tensor::from(x.grad().expect("x was used")).abs();
            assert!(slope.slice(ndarray::s![0, 0, ..DIGIT, ..DIGIT]).amin(..).item() > 0.0);
            slope.slice(ndarray::s![0, 0, 20.., 20..]).amax(..).item()
        };
        assert_eq!(slope(None), 0.0);
        assert!(slope(Some(2)) > 0.0);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/23_attention.ipynb test-start
#[test]
fn with_attention_the_network_begins_as_the_same_without() -> Result<(), Box<dyn std::error::Error>> {
    use minai::diffusion::NoisePredictor;
    use minai::generator::Generator;
    use minai::nn::{Parts, Pass, named_parameters};
    use minai::tensor::Tensor;
    {
        let [with, without] = [Some(2), None].map(|heads| {
            CornerNet::new(&mut Generator::manual_seed(3), &CornerNetConfig { channels: 8, heads })
        });
        for (name, parameter) in named_parameters(&without) {
            let twin =
                named_parameters(&with).into_iter().find(|(other, _)| *other == name).expect("in both").1;
            assert_eq!(parameter.data(), twin.data(), "{name}");
        }
        let x = Tensor::from(Generator::manual_seed(4).randn(&[2, 1, SIDE, SIDE]));
        let at = |net: &CornerNet| net.predict_noise(&x, &Tensor::full(2, 0.5), &mut Pass::eval());
        assert_eq!(at(&with).abs().amax(..).item(), 0.0);
        // With another last layer both say something, and the same.
        for net in [&with, &without] {
            for (name, parameter) in Parts::of(net).parameters {
                if name.starts_with("last") {
                    parameter.set(Generator::manual_seed(5).randn(&parameter.shape()));
                }
            }
        }
        assert!(at(&without).abs().amax(..).item() > 0.1);
        assert_eq!(at(&with).data, at(&without).data);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/23_attention.ipynb test-size
#[test]
#[should_panic]
fn canvases_of_another_size_are_refused() {
    use minai::generator::Generator;
    use minai::judge::Judge;
    use minai::tensor::Tensor;
    {
        read_corners(&Judge::new(&mut Generator::manual_seed(0)), &Tensor::zeros(&[1, 1, 28, 28]));
    }
}
