// Owned by notebooks/04_backprop.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 1119b16ace460d3d
//! What notebooks/04_backprop.ipynb claims.

use minai::backprop::{Linear, Model, Mse, Relu};

// %% notebooks/04_backprop.ipynb tests-layers
#[test]
fn layers_agree_with_finite_differences() -> Result<(), Box<dyn std::error::Error>> {
    {
        use ndarray::{Array1, Array2};

        let wave = |shape: (usize, usize), phase: f32| {
            Array2::from_shape_fn(shape, |(i, j)| (1.7 * i as f32 + 2.3 * j as f32 + phase).sin())
        };
        let (x, y) = (wave((5, 4), 0.0), wave((5, 2), 1.0));
        let model = |x: &Array2<f32>, w: &Array2<f32>, b: &Array1<f32>| {
            let first = Linear::new(w.clone(), b.clone());
            let second = Linear::new(wave((3, 2), 3.0), Array1::zeros(2));
            let mut model = Model::new(vec![Box::new(first), Box::<Relu>::default(), Box::new(second)]);
            (model.loss(x.clone(), &y), model.backward())
        };
        let (w, b) = (wave((4, 3), 2.0), Array1::from(vec![0.3, -0.2, 0.1]));
        let (_, g_x) = model(&x, &w, &b);
        for i in 0..5 {
            for j in 0..4 {
                let loss_at = |h: f32| {
                    let mut x = x.clone();
                    x[[i, j]] += h;
                    model(&x, &w, &b).0
                };
                let slope = (loss_at(0.005) - loss_at(-0.005)) / 0.01;
                assert!((slope - g_x[[i, j]]).abs() < 1e-3, "{slope} and {}", g_x[[i, j]]);
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/04_backprop.ipynb tests-step
#[test]
fn a_step_makes_the_loss_smaller() -> Result<(), Box<dyn std::error::Error>> {
    {
        use ndarray::{Array1, Array2};

        let x = Array2::from_shape_fn((8, 3), |(i, j)| ((i * 3 + j) as f32).cos());
        let y = Array2::from_shape_fn((8, 1), |(i, _)| x[[i, 0]] * 2.0 - x[[i, 2]]);
        let mut model = Model::new(vec![Box::new(Linear::new(Array2::zeros((3, 1)), Array1::zeros(1)))]);
        let losses: Vec<f32> = (0..200)
            .map(|_| {
                let loss = model.loss(x.clone(), &y);
                model.backward();
                model.step(0.2);
                loss
            })
            .collect();
        assert!(losses.windows(2).all(|pair| pair[1] <= pair[0]) && losses[199] < 1e-3 * losses[0]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/04_backprop.ipynb tests-shapes
#[test]
#[should_panic]
fn mse_refuses_what_would_have_to_be_broadcast() {
    Mse::default().forward(&ndarray::Array2::zeros((4, 1)), &ndarray::Array2::zeros((1, 4)));
}
