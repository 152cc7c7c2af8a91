// Owned by notebooks/10_learner.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash df838177a155b541
//! What notebooks/10_learner.ipynb claims.

use minai::callbacks::{Metrics, Recorder};
use minai::checkpoint::Checkpoint;
use minai::learner::{Callback, Classifier, Flow, Learner, Task};

// %% notebooks/10_learner.ipynb di-test
#[test]
fn divergence_names_batch_and_layer() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::datasets::DataLoaders;
        use minai::generator::Generator;
        use minai::loader::{Labelled, LoaderOptions, Order};
        use minai::nn::{Linear, Relu, Sequential};
        use minai::optimizer::{GradientDescent, Optimizer};

        let rng = &mut Generator::manual_seed(1);
        let mut x = rng.randn(&[64, 4]);
        let fit = |x: &Array, spoil: bool| {
            let rng = &mut Generator::manual_seed(2);
            let second = Linear::new(rng, 8, 8);
            if spoil {
                second.weight.update(|weights| weights[3] = f32::INFINITY);
            }
            let model = Sequential::new()
                .add(Linear::new(rng, 4, 8))
                .add(Relu)
                .add(second)
                .add(Linear::new(rng, 8, 2));
            let optimizer = Optimizer::new(&model, GradientDescent { lr: 0.1 });
            let y = Array::new((0..64).map(|i| i % 2).collect(), &[64]);
            let data = Labelled::new(x.clone(), y);
            let options = LoaderOptions { batch_size: 16, order: Order::Fixed, ..LoaderOptions::default() };
            let loaders = DataLoaders::new(data.clone(), data, options);
            Learner::new("test", Classifier { model }, optimizer, rng.split()).fit(2, &loaders, ())
        };
        fit(&x, false).unwrap();
        let text = fit(&x, true).unwrap_err().to_string();
        assert!(text.contains("epoch 1, batch 1,") && text.contains("layer `2` (Linear)"), "{text}");
        x[[40, 0]] = f32::NAN;
        let text = fit(&x, false).unwrap_err().to_string();
        assert!(text.contains("epoch 1, batch 3,") && text.contains("layer `0` (Linear)"), "{text}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/10_learner.ipynb ck-test
#[test]
fn an_interrupted_training_goes_on_to_the_same_bits() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::datasets::DataLoaders;
        use minai::generator::Generator;
        use minai::loader::{Labelled, LoaderOptions};
        use minai::nn::{Linear, Relu, Sequential};
        use minai::optimizer::{GradientDescent, Optimizer};
        use minai::state::state_dict;

        struct StopAt(usize);

        impl<T: Task> Callback<T> for StopAt {
            fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
                if learner.step().0 == self.0 { Flow::Stop } else { Flow::Continue }
            }
        }

        let x = Generator::manual_seed(1).randn(&[70, 4]);
        let data = Labelled::new(x, Array::new((0..70).map(|i| i % 3).collect(), &[70]));
        let loaders =
            DataLoaders::new(data.clone(), data, LoaderOptions { batch_size: 16, ..Default::default() });
        let learner = |seed| {
            let mut rng = Generator::manual_seed(seed);
            let model =
                Sequential::new().add(Linear::new(&mut rng, 4, 8)).add(Relu).add(Linear::new(&mut rng, 8, 3));
            let optimizer = Optimizer::new(&model, GradientDescent { lr: 0.1 });
            Learner::new("test", Classifier { model }, optimizer, rng)
        };
        let recorder = || {
            let bias =
                |learner: &Learner<Classifier<Sequential>>| learner.optimizer.parameters()[1].1.data().sum();
            Recorder::new().add("bias", bias)
        };
        let (mut whole, mut rows, mut losses) = (learner(1), Metrics::new(), recorder());
        whole.fit(3, &loaders, (&mut rows, &mut losses)).unwrap();
        assert_eq!(losses.values["bias"].len(), 15);
        let path = std::env::temp_dir().join(format!("minai-checkpoint-{}.safetensors", std::process::id()));
        for (every, stop) in [(Some(1), 2), (Some(2), 3), (None, 6), (Some(3), 8), (None, 14)] {
            let (mut first, mut second) = (learner(1), learner(2));
            first.checkpoint = Some(Checkpoint { path: path.clone(), every });
            first.fit(3, &loaders, (Metrics::new(), recorder(), StopAt(stop))).unwrap();
            second.resume(&path).unwrap();
            let (mut some_rows, mut some_losses) = (Metrics::new(), recorder());
            second.fit(3, &loaders, (&mut some_rows, &mut some_losses)).unwrap();
            assert_eq!(state_dict(second.task.model()), state_dict(whole.task.model()), "{every:?} {stop}");
            assert_eq!((&some_rows.rows, &some_losses), (&rows.rows, &losses), "{every:?} {stop}");
        }
        // Whoever starts anew over an unfinished training does not lose it.
        let (mut first, mut anew, mut last) = (learner(1), learner(5), learner(2));
        first.checkpoint = Some(Checkpoint::new(&path));
        first.fit(3, &loaders, StopAt(6)).unwrap();
        anew.checkpoint = Some(Checkpoint::new(&path));
        anew.fit(3, &loaders, ()).unwrap();
        let unfinished = path.with_extension("unfinished.safetensors");
        last.resume(&unfinished).unwrap();
        last.fit(3, &loaders, ()).unwrap();
        assert_eq!(state_dict(last.task.model()), state_dict(whole.task.model()));
        std::fs::remove_file(&unfinished).unwrap();

        let mut other = learner(3);
        other.resume(&path).unwrap();
        let error = other.fit(4, &loaders, ()).unwrap_err().to_string();
        assert!(error.contains("3 epochs with 5 batches each, this one has 4 and 5"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
    println!("passed");
    Ok(())
}
