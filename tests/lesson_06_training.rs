// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash e09a7727e8e68cda
//! What notebooks/06_training.ipynb claims.

use minai::linear::linear;
use minai::loader::{DataLoader, Dataset, Labelled, Last, LoaderOptions, Order};
use minai::loss::{
    binary_cross_entropy_with_logits, cross_entropy, log_softmax, logsumexp, mse_loss, nll_loss, softmax,
};
use minai::nn::{
    Flatten, Layer, Linear, Module, Parameter, Pass, Relu, Sequential, named_parameters, parameter_count,
};
use minai::optimizer::{GradientDescent, Optimizer};
use minai::state::{
    Metadata, StateDict, Value, load, load_optimizer_state, load_state_dict, optimizer_state, save,
    state_dict,
};
use minai::training::fit;

// %% notebooks/06_training.ipynb nn-test
#[test]
fn modules_name_their_parts_once() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::generator::Generator;
        use minai::tensor::Tensor;

        let rng = &mut Generator::manual_seed(1);
        let inner = Sequential::new().add(Linear::new(rng, 3, 3)).add(Relu);
        let model = Sequential::new().add(Linear::without_bias(rng, 4, 3)).add(inner).add(Flatten);
        let names: Vec<String> = named_parameters(&model).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["0.weight", "1.0.weight", "1.0.bias"]);
        assert_eq!((parameter_count(&model), model.name()), (12 + 9 + 3, "Sequential"));

        let shared = Linear::new(rng, 2, 2);
        let again = Linear { weight: shared.weight.clone(), bias: None };
        assert_eq!(named_parameters(&Sequential::new().add(shared).add(again)).len(), 2);

        let seen = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let (mut pass, list) = (Pass::eval(), seen.clone());
        pass.hook = Some(Box::new(move |path, layer, inputs, y| {
            list.borrow_mut().push(format!(
                "{path} {} {:?} {:?}",
                layer.name(),
                inputs[0].shape(),
                y.shape()
            ));
        }));
        let x = Tensor::from(Array::new(vec![1.0; 8], &[2, 4]));
        assert!(!pass.call("net", &model, &x).requires_grad());
        let expected = [
            "net.0 Linear [2, 4] [2, 3]",
            "net.1.0 Linear [2, 3] [2, 3]",
            "net.1.1 Relu [2, 3] [2, 3]",
            "net.1 Sequential [2, 3] [2, 3]",
            "net.2 Flatten [2, 3] [2, 3]",
            "net Sequential [2, 4] [2, 3]",
        ];
        assert_eq!(*seen.borrow(), expected);

        seen.borrow_mut().clear();
        let both = pass.scope("sum", &Relu, &[&x, &x], |pass| pass.call("first", &Relu, &x) + &x);
        assert_eq!(both.shape(), [2, 4]);
        assert_eq!(*seen.borrow(), ["sum.first Relu [2, 4] [2, 4]", "sum Relu [2, 4] [2, 4]"]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb nn-print-test
#[test]
fn modules_print_as_in_pytorch() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::generator::Generator;
        let rng = &mut Generator::manual_seed(1);
        let inner = Sequential::new().add(Linear::without_bias(rng, 50, 20)).add(Flatten);
        let model = Sequential::new().add(Linear::new(rng, 784, 50)).add(Relu).add(inner).add(Relu);
        let expected = "Sequential(
  (0): Linear(in_features=784, out_features=50, bias=True)
  (1): Relu()
  (2): Sequential(
    (0): Linear(in_features=50, out_features=20, bias=False)
    (1): Flatten()
  )
  (3): Relu()
)";
        assert_eq!(model.to_string(), expected);
        assert_eq!(format!("{model:?}"), expected);
        assert_eq!((&model as &dyn Module).to_string(), expected);
        assert_eq!(Sequential::new().to_string(), "Sequential()");
        let one = Linear::new(rng, 3, 2);
        assert_eq!(one.to_string(), "Linear(in_features=3, out_features=2, bias=True)");
        assert_eq!(format!("{one:?}"), "Linear { weight: Parameter([2, 3]), bias: Some(Parameter([2])) }");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb op-test
#[test]
fn a_step_changes_parameters_in_place() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;
        use minai::generator::Generator;

        let model = Linear { weight: Parameter::new(array([[1.0, 2.0]])), bias: None };
        let place = model.weight.data().as_slice().unwrap().as_ptr();
        let mut optimizer = Optimizer::new(&model, GradientDescent { lr: 0.5 });
        optimizer.step(); // there is no gradient yet: nothing changes
        assert_eq!(model.weight.data(), array([[1.0, 2.0]]));
        let x = minai::tensor::tensor([[3.0, 4.0]]);
        model.forward(&x, &mut Pass::train(Generator::manual_seed(0))).sum(..).backward();
        optimizer.step();
        assert_eq!(model.weight.data(), array([[-0.5, 0.0]]));
        assert_eq!(model.weight.data().as_slice().unwrap().as_ptr(), place);
        optimizer.zero_grad();
        assert!(model.weight.grad().is_none());
        assert_eq!(optimizer.steps(), 2);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb ld-test
#[test]
fn loaders_deal_every_example_once() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::generator::Generator;

        let data = Labelled::new(
            Array::new((0..46).map(|i| i as f32).collect(), &[23, 2]),
            Array::new((0..23).collect(), &[23]),
        );
        let deal = |options: LoaderOptions, first: usize| {
            let loader = DataLoader::new(data.clone(), options);
            let plan = loader.plan(&mut Generator::manual_seed(3));
            let batches = loader.batches(&plan, first);
            assert_eq!(batches.len(), loader.len() - first);
            batches.map(|(x, y)| (x, y.iter().copied().collect::<Vec<i64>>())).collect::<Vec<_>>()
        };
        let options = LoaderOptions { batch_size: 5, workers: 0, ..LoaderOptions::default() };
        let whole = deal(options, 0);
        for workers in 0..4 {
            assert_eq!(deal(LoaderOptions { workers, ..options }, 0), whole);
            assert_eq!(deal(LoaderOptions { workers, ..options }, 2), whole[2..]);
        }
        let mut seen: Vec<i64> = whole.iter().flat_map(|(_, y)| y.clone()).collect();
        assert_ne!(seen, (0..23).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..23).collect::<Vec<_>>());
        assert!(
            whole.iter().all(|(x, y)| y.iter().enumerate().all(|(i, &y)| x[[i, 1]] == (2 * y + 1) as f32))
        );

        let fixed = LoaderOptions { order: Order::Fixed, last: Last::Drop, ..options };
        assert_eq!(
            deal(fixed, 0).iter().flat_map(|(_, y)| y.clone()).collect::<Vec<_>>(),
            (0..20).collect::<Vec<_>>()
        );
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb ld-labelled-test
#[test]
fn labelled_data_comes_from_arrays_of_any_kind() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;
        use minai::generator::Generator;
        use minai::tensor::tensor;

        let expected = Labelled::new(array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), array([0_i64, 2, 1]));
        let turned = ndarray::array![[1.0_f32, 3.0, 5.0], [2.0, 4.0, 6.0]].reversed_axes(); // in column-major order
        for data in [
            Labelled::new(tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), array([0_u8, 2, 1])),
            Labelled::new(turned, ndarray::array![0_usize, 2, 1]),
            Labelled::new(expected.x.clone(), array([0, 2, 1])),
        ] {
            assert_eq!((&data.x, &data.y), (&expected.x, &expected.y));
            let (x, y) = data.batch(&[2, 0], &mut Generator::manual_seed(0));
            assert_eq!((x, y), (array([[5.0, 6.0], [1.0, 2.0]]), array([1, 0])));
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb ld-panic
#[test]
fn a_workers_panic_reaches_the_caller() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::generator::Generator;
        struct Broken;

        impl Dataset for Broken {
            type Batch = ();

            fn len(&self) -> usize {
                100
            }

            fn batch(&self, indices: &[usize], _: &mut Generator) {
                if indices.contains(&50) {
                    std::panic::resume_unwind(Box::new("example 50 is broken")); // a panic that prints nothing
                }
            }
        }

        let options =
            LoaderOptions { batch_size: 10, order: Order::Fixed, workers: 2, ..LoaderOptions::default() };
        let loader = DataLoader::new(Broken, options);
        let all = || loader.epoch(&mut Generator::manual_seed(0)).count();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(all)).expect_err("a panic");
        assert!(panic.downcast_ref::<&str>().is_some_and(|text| text.contains("example 50")));
        assert!(loader.epoch(&mut Generator::manual_seed(0)).next().is_some()); // leaving early is no panic
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb fi-test
#[test]
fn fit_learns_to_tell_two_clouds_apart() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::generator::Generator;

        let rng = &mut Generator::manual_seed(7);
        let (mut x, y) =
            (rng.normal(&[400, 2], 0.0, 0.5), Array::new((0..400).map(|i| i % 2).collect(), &[400]));
        for (i, mut row) in x.outer_iter_mut().enumerate() {
            row += if i % 2 == 0 { 1.0 } else { -1.0 };
        }
        let loader = |workers| {
            let options = LoaderOptions { batch_size: 20, workers, ..LoaderOptions::default() };
            DataLoader::new(Labelled::new(x.clone(), y.clone()), options)
        };
        let train = |workers| {
            let rng = &mut Generator::manual_seed(42);
            let model = Sequential::new().add(Linear::new(rng, 2, 8)).add(Relu).add(Linear::new(rng, 8, 2));
            let mut optimizer = Optimizer::new(&model, GradientDescent { lr: 0.5 });
            fit(3, &model, &mut optimizer, (&loader(workers), &loader(0)), rng)
        };
        let scores = train(1);
        assert!(scores[2].accuracy > 0.97, "{scores:?}");
        assert!(scores[2].loss < scores[0].loss);
        assert_eq!(scores, train(3)); // to the bit
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb sm-test
#[test]
fn states_load_whole_or_not_at_all() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::generator::Generator;
        let rng = &mut Generator::manual_seed(5);
        let model =
            Sequential::new().add(Linear::new(rng, 3, 4)).add(Relu).add(Linear::without_bias(rng, 4, 2));
        let state = state_dict(&model);
        assert_eq!(state.keys().collect::<Vec<_>>(), ["0.bias", "0.weight", "2.weight"]);
        let other =
            Sequential::new().add(Linear::new(rng, 3, 4)).add(Relu).add(Linear::without_bias(rng, 4, 2));
        let before = state_dict(&other);
        assert_ne!(before, state);

        let mut wrong = state.clone();
        let moved = wrong.remove("2.weight").unwrap();
        wrong.insert("3.weight".into(), moved);
        let error = load_state_dict(&other, &wrong).unwrap_err().to_string();
        assert!(
            error.contains("`2.weight` is missing") && error.contains("`3.weight` is not in the model"),
            "{error}"
        );
        assert_eq!(state_dict(&other), before);
        load_state_dict(&other, &state).unwrap();
        assert_eq!(state_dict(&other), state);

        let mut optimizer = Optimizer::new(&model, GradientDescent { lr: 0.1 });
        optimizer.step();
        let saved = optimizer_state(&optimizer);
        let mut fresh = Optimizer::new(&other, GradientDescent { lr: 0.1 });
        load_optimizer_state(&mut fresh, &saved).unwrap();
        assert_eq!(fresh.steps(), 1);
        assert!(load_optimizer_state(&mut fresh, &state).is_err());
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb lo-grad
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

// %% notebooks/06_training.ipynb lo-halves
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

// %% notebooks/06_training.ipynb li-grad
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

// %% notebooks/06_training.ipynb sd-round-test
#[test]
fn what_was_saved_is_loaded() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::{Array, array};
        let path = std::env::temp_dir().join(format!("minai-round-{}.safetensors", std::process::id()));
        let numbers = Array::new((0..24).map(|i| i as f32 / 7.0).collect(), &[2, 3, 4]);
        let turned =
            Array::from(ndarray::ArcArray::from(numbers.clone()).permuted_axes(ndarray::IxDyn(&[2, 0, 1])));
        let state = StateDict::from([
            ("ü \"quoted\" \\ name".to_owned(), Value::F32(numbers)),
            ("turned".to_owned(), Value::F32(turned)),
            ("scalar".to_owned(), Value::I64(array(i64::MIN))),
            ("empty".to_owned(), Value::F32(Array::new(vec![], &[0, 5]))),
            ("bytes".to_owned(), Value::U8(Array::new((0..=255).collect(), &[256]))),
            ("odd".to_owned(), Value::F32(Array::new(vec![-0.0, f32::INFINITY, 1e-45], &[3]))),
        ]);
        let texts = [("format", "pt"), ("a \"b\"\n", "{\u{1}: ü}"), ("", "")];
        let metadata: Metadata =
            texts.iter().map(|(key, text)| (key.to_string(), text.to_string())).collect();
        for (state, metadata) in
            [(&state, &metadata), (&state, &Metadata::new()), (&StateDict::new(), &metadata)]
        {
            save(&path, state, metadata).unwrap();
            assert_eq!(load(&path).unwrap(), (state.clone(), metadata.clone()));
            let bytes = std::fs::read(&path).unwrap();
            assert!(bytes[0].is_multiple_of(8), "aligned");
            save(&path, state, metadata).unwrap();
            assert_eq!(bytes, std::fs::read(&path).unwrap());
        }
        save(&path, &StateDict::from([("nan".to_owned(), Value::F32(array(f32::NAN)))]), &metadata).unwrap();
        assert!(matches!(&load(&path).unwrap().0["nan"], Value::F32(x) if x.sum().is_nan()));
        std::fs::remove_file(&path).unwrap();
    }
    println!("passed");
    Ok(())
}

// %% notebooks/06_training.ipynb sd-once-test
#[test]
fn a_reader_never_sees_half_a_file() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use std::sync::atomic::{AtomicBool, Ordering};
        let folder = std::env::temp_dir().join(format!("minai-once-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("model.safetensors");
        let state = |x: f32| {
            StateDict::from([("x".to_owned(), Value::F32(Array::new(vec![x; 10_000], &[100, 100])))])
        };
        let write = |x: f32| save(&path, &state(x), &Metadata::new());
        write(0.0).unwrap();
        let done = AtomicBool::new(false);
        let seen = std::thread::scope(|threads| {
            let reader = threads.spawn(|| {
                let mut seen = Vec::new();
                while !done.load(Ordering::Relaxed) || seen.is_empty() {
                    let (found, _) = load(&path).unwrap();
                    let Value::F32(x) = &found["x"] else { panic!("{found:?}") };
                    assert_eq!(found, state(x[[0, 0]]));
                    seen.push(x[[0, 0]]);
                }
                seen
            });
            (1..20).for_each(|x| write(x as f32).unwrap());
            done.store(true, Ordering::Relaxed);
            reader.join().unwrap()
        });
        assert!(seen.is_sorted(), "{seen:?}");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        // What cannot be written leaves what was there: here a folder stands where the new file would go.
        std::fs::create_dir(folder.join("model.safetensors.part")).unwrap();
        let error = write(99.0).unwrap_err().to_string();
        assert!(error.contains("model.safetensors") && error.contains("check the folder"), "{error}");
        assert_eq!(load(&path).unwrap().0, state(19.0));
        let error = save(folder.join("no/such/folder"), &state(1.0), &Metadata::new()).unwrap_err();
        assert!(error.to_string().contains("check the folder"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
    println!("passed");
    Ok(())
}
