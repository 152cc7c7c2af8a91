// Owned by notebooks/08_convolutions.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 199b08baefc6ab31
//! What notebooks/08_convolutions.ipynb claims.

use minai::conv::{Conv2d, ConvOptions, conv_transpose2d, conv2d};

// %% notebooks/08_convolutions.ipynb co-shapes
#[test]
#[should_panic]
fn weights_for_other_channels_are_refused() {
    use minai::tensor::Tensor;
    conv2d(&Tensor::zeros(&[1, 3, 8, 8]), &Tensor::zeros(&[4, 2, 3, 3]), None, ConvOptions::default());
}

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

// %% notebooks/08_convolutions.ipynb co-test
#[test]
fn fast_convolution_is_the_sum_of_products() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    {
        let mut rng = Generator::manual_seed(1);
        for (stride, padding, dilation, groups) in [(1, 0, 1, 1), (2, 1, 1, 1), (1, 2, 2, 2), (3, 1, 1, 2)] {
            let (x, w, b) = (rng.randn(&[2, 4, 9, 7]), rng.randn(&[6, 4 / groups, 3, 2]), rng.randn(&[6]));
            let options = ConvOptions { stride, padding, dilation, groups };
            let y = conv2d(&x.clone().into(), &w.clone().into(), Some(&b.clone().into()), options).data;
            let size = |n: usize, k: usize| (n + 2 * padding - dilation * (k - 1) - 1) / stride + 1;
            let (oh, ow) = (size(9, 3), size(7, 2));
            assert_eq!(y.shape(), [2, 6, oh, ow], "{options:?}");
            let place = |at: usize| (at / (6 * oh * ow), at / (oh * ow) % 6, at / ow % oh, at % ow);
            for (n, o, i, j) in (0..y.len()).map(place) {
                let mut sum = f64::from(b[[o]]);
                for (c, p, q) in (0..4 / groups * 6).map(|at| (at / 6, at / 2 % 3, at % 2)) {
                    let (row, column) = (stride * i + dilation * p, stride * j + dilation * q);
                    if (padding..9 + padding).contains(&row) && (padding..7 + padding).contains(&column) {
                        let channel = o / (6 / groups) * (4 / groups) + c;
                        sum += f64::from(w[[o, c, p, q]] * x[[n, channel, row - padding, column - padding]]);
                    }
                }
                assert!((sum - f64::from(y[[n, o, i, j]])).abs() < 1e-4, "{options:?} at {n} {o} {i} {j}");
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/08_convolutions.ipynb la-test
#[test]
fn a_layer_begins_with_the_weights_of_pytorch() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::nn::{Layer, Pass, named_parameters};
    use minai::tensor::Tensor;
    {
        // torch 2.15: torch.manual_seed(42); c = nn.Conv2d(3, 4, 3)
        let rng = &mut Generator::manual_seed(42);
        let layer = Conv2d::new(rng, 3, 4, 3, ConvOptions::default());
        let parameters = named_parameters(&layer);
        assert_eq!(parameters.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["weight", "bias"]);
        let weight = layer.weight.data();
        assert_eq!((weight.shape(), weight[[0, 0, 0, 0]]), (&[4, 3, 3, 3][..], 0.147_135_51));
        assert_eq!((weight[[0, 0, 0, 2]], weight[[3, 2, 2, 2]]), (-0.045_085_76, -0.105_975_08));
        let bias = parameters[1].1.data();
        assert_eq!((bias.shape(), bias[[0]], bias[[3]]), (&[4][..], -0.168_434_65, 0.036_349_002));

        let halves =
            Conv2d::without_bias(rng, 4, 6, 3, ConvOptions { stride: 2, padding: 1, dilation: 1, groups: 2 });
        assert_eq!(halves.weight.shape(), [6, 2, 3, 3]);
        assert_eq!(halves.forward(&Tensor::zeros(&[5, 4, 7, 8]), &mut Pass::eval()).shape(), [5, 6, 4, 4]);
    }
    println!("passed");
    Ok(())
}
