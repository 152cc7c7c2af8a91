// Owned by notebooks/11_activations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash b2ba2cb506cd05a8
//! What notebooks/11_activations.ipynb claims.

use minai::hooks::{ActivationStats, Bins, dead_units};

// %% notebooks/11_activations.ipynb st-test
#[test]
fn dead_units_and_histograms_are_counted() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    {
        // Two examples, three units, two places: the second unit always says 0, the third always 7.
        let y = vec![0.0, 0.0, 0.0, 0.0, 7.0, 7.0, 0.0, 0.5, 0.0, 0.0, 7.0, 7.0];
        assert_eq!(dead_units(&Array::new(y, &[2, 3, 2]).into()), 2.0 / 3.0);
        assert_eq!(dead_units(&Array::new(vec![1.0, 2.0, 1.0, 3.0], &[2, 2]).into()), 0.5);
        let bins = Bins { from: -1.0, to: 1.0, count: 4 };
        assert_eq!(
            bins.count(&[-9.0, -1.0, -0.6, -0.5, 0.0, 0.4, 0.5, 1.0, 9.0, f32::INFINITY]),
            [3, 1, 2, 4]
        );
    }
    println!("passed");
    Ok(())
}

// %% notebooks/11_activations.ipynb cb-test
#[test]
fn looking_changes_nothing() -> Result<(), Box<dyn std::error::Error>> {
    use minai::datasets::DataLoaders;
    use minai::generator::Generator;
    use minai::learner::{Callback, Classifier, Learner};
    use minai::loader::{Labelled, LoaderOptions};
    use minai::nn::{Linear, Relu, Sequential, named_parameters};
    use minai::optimizer::{GradientDescent, Optimizer};
    use std::cell::Cell;
    use std::rc::Rc;
    {
        type Small = Classifier<Sequential>;
        let mut rng = Generator::manual_seed(1);
        let set = Rc::new((rng.randn(&[40, 6]), rng.randint(0, 3, &[40])));
        let seen = Rc::new(Cell::new(0));
        let train = |stats: Option<&mut ActivationStats>| {
            let mut rng = Generator::manual_seed(2);
            let model =
                Sequential::new().add(Linear::new(&mut rng, 6, 5)).add(Relu).add(Linear::new(&mut rng, 5, 3));
            let optimizer = Optimizer::new(&model, GradientDescent { lr: 0.1 });
            let options = LoaderOptions { batch_size: 8, ..LoaderOptions::default() };
            let set = || Labelled::new(set.0.clone(), set.1.clone());
            let loaders = DataLoaders::new(set(), set(), options);
            let mut learner: Learner<Small> = Learner::new("looking", Classifier { model }, optimizer, rng);
            let count = seen.clone();

            learner.pass.hook = Some(Box::new(move |_, _, _, _| count.set(count.get() + 1)));
            learner.fit(2, &loaders, stats).expect("no divergence");
            assert!(learner.pass.hook.is_some());
            let weights =
                named_parameters(&learner.task.model).into_iter().map(|(_, parameter)| parameter.data());
            (weights.collect::<Vec<_>>(), seen.replace(0))
        };
        let bins = Bins { from: 0.0, to: 4.0, count: 8 };
        let mut stats = ActivationStats::new(bins, |_, layer| layer.name() == "Relu");
        assert_eq!(train(Some(&mut stats)), train(None));
        let records = stats.records();
        assert_eq!((records.len(), records[0].path.as_str(), records[0].means.len()), (1, "1", 10));
        assert!(records[0].histograms.iter().all(|counts| counts.iter().sum::<i64>() == 8 * 5));
        let mut copy = ActivationStats::new(bins, |_, _| true);
        Callback::<Small>::load_state(&mut copy, &Callback::<Small>::state(&stats));
        assert_eq!(copy.records(), records);
    }
    println!("passed");
    Ok(())
}
