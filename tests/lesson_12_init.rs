// Owned by notebooks/12_init.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 712d1b1d06cd6799
//! What notebooks/12_init.ipynb claims.

use minai::activation::{
    Approximate, Gelu, GeneralRelu, LeakyRelu, Sigmoid, Silu, Tanh, gelu, gelu_tanh, leaky_relu, quick_gelu,
    silu, softplus,
};
use minai::init::{Fan, kaiming_normal, kaiming_uniform, lsuv, xavier_normal, xavier_uniform};
use minai::norm::{
    BatchNorm2d, Running, batch_norm, batch_norm_eval, group_norm, group_norm_silu, layer_norm,
};

// %% notebooks/12_init.ipynb in-test
#[test]
fn first_weights_are_pytorchs() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::nn::Parameter;
    {
        let found = |fill: fn(&mut Generator, &Parameter)| {
            let weight = Parameter::new(Array::new(vec![0.0; 48], &[4, 3, 2, 2]));
            fill(&mut Generator::manual_seed(42), &weight);
            let data: Vec<f32> = weight.data().iter().copied().collect();
            [data[0], data[1], data[2], data[47]]
        };
        let close = |a: [f32; 4], b: [f32; 4]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6);
        let xn = found(|rng, w| xavier_normal(rng, w, 1.0));
        assert!(close(xn, [0.5149897, 0.3974934, 0.2407268, -0.1304005]), "{xn:?}");
        let xu = found(|rng, w| xavier_uniform(rng, w, 5.0 / 3.0));
        assert!(close(xu, [0.5898543, 0.640365, -0.1807451, 0.1380446]), "{xu:?}");
        let kn = found(|rng, w| kaiming_normal(rng, w, Fan::In, 0.0));
        assert!(close(kn, [0.7866599, 0.6071812, 0.3677163, -0.19919]), "{kn:?}");
        let ku = found(|rng, w| kaiming_uniform(rng, w, Fan::Out, 0.1));
        assert!(close(ku, [0.4658588, 0.5057515, -0.14275, 0.1090257]), "{ku:?}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/12_init.ipynb ls-test
#[test]
fn lsuv_gives_every_layer_mean_0_and_spread_1() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::nn::{Layer, Linear, Pass, Relu, Sequential};
    use minai::tensor::Tensor;
    {
        let mut rng = Generator::manual_seed(1);
        let inner =
            Sequential::new().add(Linear::new(&mut rng, 30, 20)).add(Relu).add(Linear::new(&mut rng, 20, 7));
        let net = Sequential::new().add(Linear::new(&mut rng, 50, 30)).add(Relu).add(inner);
        let x = Tensor::from(rng.normal(&[64, 50], 3.0, 10.0));
        let paths: Vec<String> = lsuv(&net, &x).into_iter().map(|before| before.path).collect();
        assert_eq!(paths, ["0", "2.0", "2.2"]);
        for before in lsuv(&net, &x) {
            assert!(before.mean.abs() < 1e-4 && (before.std - 1.0).abs() < 1e-4, "{before:?}");
        }
        let bare = Sequential::new().add(Linear::without_bias(&mut rng, 50, 9));
        lsuv(&bare, &x);
        let y = bare.forward(&x, &mut Pass::eval());
        assert!((y.std(..).item() - 1.0).abs() < 1e-4 && y.mean(..).item().abs() > 1e-4);
    }
    println!("passed");
    Ok(())
}

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

// %% notebooks/12_init.ipynb ac-layer-test
#[test]
fn activations_are_layers_too() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::nn::{Layer, Pass};
    use minai::tensor::Tensor;
    {
        let x = Tensor::from(Array::new((0..21).map(|i| (i as f32 - 10.0) / 2.5).collect(), &[3, 7]));
        let layers: [(&dyn Layer, Tensor); 7] = [
            (&LeakyRelu { slope: 0.2 }, leaky_relu(&x, 0.2)),
            (&GeneralRelu { leak: 0.1, shift: 0.4 }, leaky_relu(&x, 0.1) - 0.4),
            (&Silu, silu(&x)),
            (&Gelu::default(), gelu(&x)),
            (&Gelu { approximate: Approximate::Tanh }, gelu_tanh(&x)),
            (&Sigmoid, x.sigmoid()),
            (&Tanh, x.tanh()),
        ];
        for (layer, expected) in &layers {
            assert_eq!(layer.forward(&x, &mut Pass::eval()).data, expected.data, "{}", layer.name());
        }
        assert!(layers[3].1.data != layers[4].1.data);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/12_init.ipynb no-compare
#[test]
fn fast_norms_are_those_by_hand() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        fn standard(x: &Tensor, axes: &[isize], eps: f32) -> Tensor {
            let centred = x - x.mean_keepdim(axes);
            let variance = centred.powi(2).mean_keepdim(axes);
            centred / (variance + eps).sqrt()
        }
        let by_hand = |x: &Tensor, axes: &[isize], grouped: &[isize], p: [&Tensor; 2]| {
            let shape: Vec<isize> = x.shape().iter().map(|&size| size as isize).collect();
            let normal = standard(&x.reshape(grouped), axes, 1e-5).reshape(&shape);
            normal * p[0].reshape(&[1, -1, 1, 1]) + p[1].reshape(&[1, -1, 1, 1])
        };
        let run = |f: &dyn Fn(&Tensor, [&Tensor; 2]) -> Tensor| {
            let mut rng = Generator::manual_seed(3);
            let [x, w, b] = [vec![5, 6, 7, 4], vec![6], vec![6]]
                .map(|shape| Tensor::parameter(rng.normal(&shape, 2.0, 3.0)));
            let y = f(&x, [&w, &b]);
            y.backward_from(rng.randn(y.shape()));
            [y.data, x.grad().unwrap(), w.grad().unwrap(), b.grad().unwrap()]
        };
        let compare = |name: &str, fast: [Array; 4], slow: [Array; 4]| {
            for (fast, slow) in fast.iter().zip(&slow) {
                let largest = slow.iter().fold(0f32, |m, v| m.max(v.abs()));
                let difference =
                    fast.iter().zip(slow.iter()).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
                println!("{name} {:?}: {difference:.1e}", slow.shape());
                assert!(difference < 2e-5, "{name}: {difference}");
            }
        };
        let fast = run(&|x, [w, b]| batch_norm(x, w, b, &mut Running::new(6), 1e-5));
        compare("batch norm", fast, run(&|x, p| by_hand(x, &[0, 2, 3], &[5, 6, 7, 4], p)));
        let fast = run(&|x, [w, b]| group_norm(x, 3, w, b, 1e-5));
        compare("group norm", fast, run(&|x, p| by_hand(x, &[-1], &[5, 3, -1], p)));
        let last = |x: &Tensor| x.permute(&[0, 2, 3, 1]); // the channels at the end: weight and bias are theirs
        let fast = run(&|x, [w, b]| layer_norm(&last(x), w, b, 1e-5));
        compare("layer norm", fast, run(&|x, [w, b]| standard(&last(x), &[-1], 1e-5) * w + b));
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

// %% notebooks/12_init.ipynb ru-test
#[test]
fn batch_norm_layer_is_pytorchs() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::nn::{Layer, Parts, Pass};
    use minai::tensor::Tensor;
    {
        let close = |a: &Array, b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-6);
        let layer = BatchNorm2d::new(2);
        let x = Tensor::from(Array::new((0..16).map(|i| (i as f32).sin()).collect(), &[2, 2, 2, 2]));
        let mut pass = Pass::train(Generator::manual_seed(0));
        layer.forward(&x, &mut pass);
        let y = layer.forward(&(&x * 2.0 + 1.0), &mut pass);
        assert!(close(&y.data, &[-0.3252099, 0.9262451, 1.0271182]), "{y:?}");
        assert!(close(&layer.running_mean.get(), &[0.1634141, 0.1067546]), "{:?}", layer.running());
        assert!(close(&layer.running_var.get(), &[1.0631824, 1.0806394]), "{:?}", layer.running());
        let z = layer.forward(&x, &mut Pass::eval());
        assert!(close(&z.data, &[-0.1584833, 0.6575976, 0.7233775]) && !z.requires_grad(), "{z:?}");
        let parts = Parts::of(&layer);
        let names: Vec<&str> = parts.buffers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["running_mean", "running_var", "num_batches_tracked"]);
        assert_eq!(layer.num_batches_tracked.get(), Array::new(vec![2], &[]));
    }
    println!("passed");
    Ok(())
}
