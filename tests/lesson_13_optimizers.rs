// Owned by notebooks/13_optimizers.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash c28017e70d815936
//! What notebooks/13_optimizers.ipynb claims.

use minai::optim::{Adam, AdamW, RmsProp, Sgd};
use minai::schedule::{OneCycle, Schedule};

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
            assert_eq!(rule.momentum(), has.then_some(0.9));
            rule.set_lr(0.25);
            rule.set_momentum(0.5);
            assert_eq!((rule.lr(), rule.momentum()), (0.25, has.then_some(0.5)));
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb sc-test
#[test]
fn schedules_begin_turn_and_end_where_they_should() -> Result<(), Box<dyn std::error::Error>> {
    {
        let close = |(lr, momentum): (f64, Option<f64>), expected: f64, other: f64| {
            assert!(
                (lr / expected - 1.0).abs() < 1e-9 && (momentum.unwrap() - other).abs() < 1e-9,
                "{lr} {momentum:?}"
            );
        };
        // 0.3 · 110 - 1 = 32 and 109: whole numbers, so that the turns are steps
        let cycle = Schedule::OneCycle(OneCycle::new(0.5));
        close(cycle.at(0, 110), 0.02, 0.95);
        close(cycle.at(16, 110), 0.26, 0.9);
        close(cycle.at(32, 110), 0.5, 0.85);
        close(cycle.at(109, 110), 2e-6, 0.95);
        close(cycle.at(500, 110), 2e-6, 0.95);
        let cosine = Schedule::Cosine { lr: 0.5, least: 0.1 };
        let rates = [0, 5, 10, 11].map(|step| cosine.at(step, 10));
        for ((lr, momentum), expected) in rates.into_iter().zip([0.5, 0.3, 0.1, 0.1]) {
            assert!((lr - expected).abs() < 1e-12 && momentum.is_none());
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/13_optimizers.ipynb sc-few
#[test]
fn schedules_with_few_steps_are_finite() -> Result<(), Box<dyn std::error::Error>> {
    {
        for warmup in [0.0, 0.1, 0.3, 0.5, 1.0] {
            let cycle = Schedule::OneCycle(OneCycle { warmup, ..OneCycle::new(0.5) });
            for steps in 0..12 {
                for step in 0..=steps {
                    let (lr, momentum) = cycle.at(step, steps);
                    assert!((1.9e-6..=0.5).contains(&lr), "{warmup}, step {step} of {steps}: {lr}");
                    assert!((0.85 - 1e-9..0.95 + 1e-9).contains(&momentum.unwrap()));
                }
            }
        }
        // one step, and the top is behind it: it is made at the highest rate
        assert_eq!(Schedule::OneCycle(OneCycle { warmup: 1.0, ..OneCycle::new(0.5) }).at(0, 1).0, 0.5);
        assert_eq!(Schedule::Cosine { lr: 0.5, least: 0.0 }.at(0, 0).0, 0.5);
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
        learner.checkpoint = None;
        let (mut schedule, mut recorder) = (Schedule::OneCycle(OneCycle::new(0.1)), Recorder::default());
        learner.fit(4, &data, &mut [&mut schedule, &mut recorder]).unwrap();
        let expected = (0..20).map(|step| schedule.at(step, 20));
        let (rates, momenta): (Vec<f32>, Vec<f32>) =
            expected.map(|(lr, momentum)| (lr as f32, momentum.unwrap() as f32)).unzip();
        assert_eq!((recorder.rates, recorder.momenta), (rates, momenta));
    }
    println!("passed");
    Ok(())
}
