// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 659469e7485c8afe
//! What notebooks/13_optimizers.ipynb claims.

use minai::ema::Ema;
use minai::gradients::{Accumulate, clip_grad_norm};
use minai::optim::{Adam, AdamW, RmsProp, Sgd};
use minai::schedule::{Cosine, OneCycle, Schedule};

// %% notebooks/13_optimizers.ipynb op-test
#[test]
fn rules_take_the_steps_of_their_formulas() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::optimizer::Rule;

        let (lr, decay) = (0.05_f32, 0.3_f32);
        let rules: [Box<dyn Rule>; 4] = [
            Box::new(Sgd { lr, momentum: 0.9, weight_decay: decay }),
            Box::new(RmsProp { lr, ..RmsProp::default() }),
            Box::new(Adam { lr, weight_decay: decay, ..Adam::default() }),
            Box::new(AdamW { lr, weight_decay: decay, ..AdamW::default() }),
        ];
        for (which, rule) in rules.iter().enumerate() {
            let start = [1.0_f32, -2.0, 0.5];
            let (mut p, mut memory) = (start, vec![vec![0.0; 3]; rule.memory().len()]);
            let (mut q, mut m, mut v) = (start.map(f64::from), [0.0_f64; 3], [0.0_f64; 3]);
            let (lr, decay) = (f64::from(lr), f64::from(decay));
            for step in 1..=10 {
                let g = [0, 1, 2].map(|i| ((step * 3 + i) as f32).sin() * 10_f32.powi(i as i32 - 1));
                rule.update(step, &mut p, &g, &mut memory);
                for i in 0..3 {
                    let l2 = f64::from(g[i]) + decay * q[i];
                    let g = if which == 0 || which == 2 { l2 } else { f64::from(g[i]) };
                    let [beta1, beta2] = [[0.9, 0.0], [0.0, 0.99], [0.9, 0.999], [0.9, 0.999]][which];
                    m[i] = beta1 * m[i] + if which < 2 { g } else { (1.0 - beta1) * g };
                    v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                    let share = |beta: f64| 1.0 - beta.powi(step as i32);
                    q[i] -= lr
                        * match which {
                            0 => m[i],
                            1 => g / v[i].sqrt(),
                            2 => m[i] / share(beta1) / (v[i] / share(beta2)).sqrt(),
                            _ => m[i] / share(beta1) / (v[i] / share(beta2)).sqrt() + decay * q[i],
                        };
                    assert!((f64::from(p[i]) - q[i]).abs() < 2e-5, "{which}, step {step}: {p:?}, not {q:?}");
                }
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb op-schedulable
#[test]
fn schedules_can_change_rate_and_momentum() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::optimizer::{GradientDescent, Rule};

        let rules: [Box<dyn Rule>; 5] = [
            Box::new(GradientDescent { lr: 1.0 }),
            Box::new(Sgd { momentum: 0.9, ..Sgd::default() }),
            Box::new(RmsProp::default()),
            Box::new(Adam::default()),
            Box::new(AdamW::default()),
        ];
        for (mut rule, has) in rules.into_iter().zip([false, true, false, true, true]) {
            assert_eq!(rule.momentum().copied(), has.then_some(0.9));
            *rule.lr() = 0.25;
            if let Some(momentum) = rule.momentum() {
                *momentum = 0.5;
            }
            assert_eq!((*rule.lr(), rule.momentum().copied()), (0.25, has.then_some(0.5)));
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb sc-test
#[test]
fn schedules_begin_turn_and_end_where_they_should() -> Result<(), Box<dyn std::error::Error>> {
    {
        let close = |(lr, momentum): (f64, f64), expected: f64, other: f64| {
            assert!(
                (lr / expected - 1.0).abs() < 1e-9 && (momentum - other).abs() < 1e-9,
                "{lr} {momentum:?}"
            );
        };
        // 0.3 · 110 - 1 = 32 and 109: whole numbers, so that the turns are steps
        let cycle = OneCycle::new(0.5);
        close(cycle.at(0, 110), 0.02, 0.95);
        close(cycle.at(16, 110), 0.26, 0.9);
        close(cycle.at(32, 110), 0.5, 0.85);
        close(cycle.at(109, 110), 2e-6, 0.95);
        close(cycle.at(500, 110), 2e-6, 0.95);
        let cosine = Cosine { lr: 0.5, least: 0.1 };
        for (step, expected) in [(0, 0.5), (5, 0.3), (10, 0.1), (11, 0.1)] {
            assert!((cosine.at(step, 10) - expected).abs() < 1e-12);
            let same = Schedule::new(move |step, steps| cosine.at(step, steps));
            assert_eq!(same.at(step, 10), (cosine.at(step, 10), None));
            assert_eq!(same.at(step, 10), Schedule::from(cosine).at(step, 10));
        }
        let (lr, momentum) = cycle.at(16, 110);
        assert_eq!(Schedule::from(cycle).at(16, 110), (lr, Some(momentum)));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb sc-few
#[test]
fn schedules_with_few_steps_are_finite() -> Result<(), Box<dyn std::error::Error>> {
    {
        for warmup in [0.0, 0.1, 0.3, 0.5, 1.0] {
            let cycle = OneCycle { warmup, ..OneCycle::new(0.5) };
            for steps in 0..12 {
                for step in 0..=steps {
                    let (lr, momentum) = cycle.at(step, steps);
                    assert!((1.9e-6..=0.5).contains(&lr), "{warmup}, step {step} of {steps}: {lr}");
                    assert!((0.85 - 1e-9..0.95 + 1e-9).contains(&momentum));
                }
            }
        }
        // one step, and the top is behind it: it is made at the highest rate
        assert_eq!(OneCycle { warmup: 1.0, ..OneCycle::new(0.5) }.at(0, 1).0, 0.5);
        assert_eq!(Cosine { lr: 0.5, least: 0.0 }.at(0, 0), 0.5);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb re-test
#[test]
fn a_schedule_drives_the_optimiser_of_a_learner() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::callbacks::Recorder;
        use minai::datasets::DataLoaders;
        use minai::generator::Generator;
        use minai::learner::{Classifier, Learner};
        use minai::loader::{Labelled, LoaderOptions};
        use minai::nn::{Linear, Sequential};
        use minai::optimizer::Optimizer;

        let mut rng = Generator::manual_seed(1);
        let set = Labelled::new(rng.randn(&[50, 3]), Array::new((0..50).map(|i| i % 2).collect(), &[50]));
        let options = LoaderOptions { batch_size: 10, ..LoaderOptions::default() };
        let data = DataLoaders::new(set.clone(), set, options);
        let model = Sequential::new().add(Linear::new(&mut rng, 3, 2));
        let optimizer = Optimizer::new(&model, AdamW::default());
        let mut learner = Learner::new("scheduled", Classifier { model }, optimizer, rng);
        let (schedule, mut recorder) = (OneCycle::new(0.1), Recorder::new());
        learner.fit(4, &data, (schedule, &mut recorder)).unwrap();
        let expected = (0..20).map(|step| schedule.at(step, 20));
        let (rates, momenta): (Vec<f32>, Vec<f32>) =
            expected.map(|(lr, momentum)| (lr as f32, momentum as f32)).unzip();
        assert_eq!((recorder.rates, recorder.momenta), (rates, momenta));

        let mut recorder = Recorder::new();
        learner
            .fit(1, &data, (Schedule::new(|step, steps| step as f64 / steps as f64), &mut recorder))
            .unwrap();
        assert_eq!(recorder.rates, [0.0, 0.2, 0.4, 0.6, 0.8]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb st-test
#[test]
fn accumulated_batches_step_like_a_large_one() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::callbacks::Recorder;
        use minai::datasets::DataLoaders;
        use minai::generator::Generator;
        use minai::learner::{Classifier, Learner};
        use minai::loader::{Labelled, LoaderOptions, Order};
        use minai::nn::{Linear, Relu, Sequential, named_parameters};
        use minai::optimizer::Optimizer;

        let mut rng = Generator::manual_seed(1);
        let set = Labelled::new(rng.randn(&[90, 3]), Array::new((0..90).map(|i| i % 2).collect(), &[90]));
        let train = |batch_size: usize, batches: usize| {
            let mut rng = Generator::manual_seed(2);
            let model =
                Sequential::new().add(Linear::new(&mut rng, 3, 8)).add(Relu).add(Linear::new(&mut rng, 8, 2));
            let optimizer = Optimizer::new(&model, Sgd { lr: 0.5, momentum: 0.9, ..Sgd::default() });
            let options = LoaderOptions { batch_size, order: Order::Fixed, ..LoaderOptions::default() };
            let data = DataLoaders::new(set.clone(), set.clone(), options);
            let mut learner = Learner::new("accumulated", Classifier { model }, optimizer, rng);
            let mut recorder = Recorder::new();
            learner.fit(3, &data, (Accumulate::new(batches), &mut recorder)).unwrap();
            assert!(learner.optimizer.parameters().iter().all(|(_, p)| p.grad().is_none()));
            let weights = named_parameters(&learner.task.model);
            let weights: Vec<f32> =
                weights.iter().flat_map(|(_, p)| p.data().iter().copied().collect::<Vec<_>>()).collect();
            (weights, learner.optimizer.steps(), recorder.losses.len())
        };
        // 64 and 26 examples, the latter as 16 and 10
        let ((large, large_steps, few), (small, small_steps, many)) = (train(64, 1), train(16, 4));
        assert_eq!((large_steps, few, small_steps, many), (6, 6, 6, 18));
        let off = large.iter().zip(&small).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 1e-5, "{off:e}");
        assert_ne!(large, train(16, 2).0);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb st-clip-test
#[test]
fn clipped_gradients_have_the_norm_asked_for() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;
        use minai::generator::Generator;
        use minai::nn::Linear;
        use minai::optimizer::Optimizer;

        let model = Linear::new(&mut Generator::manual_seed(1), 2, 1);
        let optimizer = Optimizer::new(&model, Sgd::default());
        assert_eq!(clip_grad_norm(&optimizer, 1.0), None);
        let gradients = || optimizer.parameters().iter().map(|(_, p)| p.grad().unwrap()).collect::<Vec<_>>();
        for (limit, factor) in [(7.5, 1.0), (6.5, 1.0), (3.25, 0.5), (0.65, 0.1)] {
            model.weight.set_grad(array([[3.0, 4.0]]));
            model.bias.as_ref().unwrap().set_grad(array([4.153312]));
            let norm = clip_grad_norm(&optimizer, limit).unwrap();
            assert!((norm - 6.5).abs() < 1e-5, "{norm}");
            let (weight, bias) = (&gradients()[0], &gradients()[1]);
            let off =
                [weight[[0, 0]] - 3.0 * factor, weight[[0, 1]] - 4.0 * factor, bias[[0]] - 4.153312 * factor];
            assert!(off.iter().all(|off| off.abs() < 1e-5), "{limit}: {weight:?} {bias:?}");
        }
        model.weight.set_grad(array([[3.0, f32::NAN]]));
        model.bias.as_ref().unwrap().set_grad(array([4.0]));
        assert!(clip_grad_norm(&optimizer, 1.0).unwrap().is_nan());
        assert!(gradients().iter().all(|gradient| gradient.iter().all(|g| g.is_nan())));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb st-ema-test
#[test]
fn averages_are_those_of_the_formula_and_survive_a_checkpoint() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::callbacks::Metrics;
        use minai::checkpoint::Checkpoint;
        use minai::datasets::DataLoaders;
        use minai::generator::Generator;
        use minai::learner::{Callback, Classifier, Flow, Learner, Task};
        use minai::loader::{Labelled, LoaderOptions};
        use minai::nn::{Linear, Mode, Sequential};
        use minai::norm::BatchNorm2d;
        use minai::optimizer::Optimizer;
        use minai::state::{Value, state_dict};

        /// Follows a weight and its mean in double precision; stops after so many steps.
        struct Follow {
            mean: Option<f64>,
            until: u32,
        }

        impl<T: Task> Callback<T> for Follow {
            fn after_batch(&mut self, learner: &mut Learner<T>) -> Flow {
                let (steps, weight) = (learner.optimizer.steps(), learner.optimizer.parameters()[0].1.data());
                if learner.mode == Mode::Train {
                    let (t, weight) = (f64::from(steps - 1), f64::from(*weight.first().unwrap()));
                    let decay = if t == 0.0 { 0.0 } else { ((1.0 + t) / (10.0 + t)).min(0.5) };
                    self.mean = Some(self.mean.map_or(weight, |mean| decay * mean + (1.0 - decay) * weight));
                }
                if learner.mode == Mode::Train && steps == self.until { Flow::Stop } else { Flow::Continue }
            }
        }

        let mut rng = Generator::manual_seed(1);
        let set =
            Labelled::new(rng.randn(&[50, 3, 2, 2]), Array::new((0..50).map(|i| i % 2).collect(), &[50]));
        let options = LoaderOptions { batch_size: 10, ..LoaderOptions::default() };
        let data = DataLoaders::new(set.clone(), set, options);
        let learner = |seed| {
            let mut rng = Generator::manual_seed(seed);
            let model = Sequential::new()
                .add(BatchNorm2d::new(3))
                .add(minai::nn::Flatten)
                .add(Linear::new(&mut rng, 12, 2));
            let optimizer = Optimizer::new(&model, Sgd { lr: 0.1, ..Sgd::default() });
            Learner::new("averaged", Classifier { model }, optimizer, rng)
        };
        let (mut whole, mut ema, mut follow) = (learner(2), Ema::new(0.5), Follow { mean: None, until: 0 });
        let mut metrics = Metrics::new();
        whole.fit(4, &data, (&mut ema, &mut follow, &mut metrics)).unwrap();
        let (own, averaged) = (state_dict(&whole.task.model), ema.state_dict(&whole.task.model));
        assert_eq!(state_dict(&whole.task.model), own, "swapped, and back");
        assert_ne!(own["2.weight"], averaged["2.weight"]);
        assert_eq!(own["0.running_mean"], averaged["0.running_mean"]);
        let Value::F32(weight) = &averaged["0.weight"] else { panic!("floats") };
        assert!((f64::from(weight[[0]]) - follow.mean.unwrap()).abs() < 1e-6);
        // The learner has validated with the averages.
        let loss = |learner: &mut Learner<_>| learner.validate(&data.valid, &Metrics::new())[0].1;
        let with_own = loss(&mut whole);
        ema.swap(&whole.task.model);
        assert_eq!(loss(&mut whole), metrics.rows[3].valid[0]);
        assert_ne!(loss(&mut whole), with_own);

        let path = std::env::temp_dir().join(format!("minai-ema-{}.safetensors", std::process::id()));
        for until in [3, 7, 10] {
            let (mut first, mut second) = (learner(2), learner(3));
            first.checkpoint = Some(Checkpoint { path: path.clone(), every: Some(1) });
            first.fit(4, &data, (Ema::new(0.5), Follow { mean: None, until })).unwrap();
            second.resume(&path).unwrap();
            let mut ema = Ema::new(0.5);
            second.fit(4, &data, (&mut ema, Follow { mean: None, until: 0 })).unwrap();
            assert_eq!(state_dict(&second.task.model), own);
            assert_eq!(ema.state_dict(&second.task.model), averaged, "{until}");
        }
        std::fs::remove_file(&path).unwrap();
    }
    println!("passed");
    Ok(())
}
