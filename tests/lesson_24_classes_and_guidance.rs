// Owned by notebooks/24_classes_and_guidance.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 3aeb080541304927
//! What notebooks/24_classes_and_guidance.ipynb claims.

use minai::embedding::{Embedding, embedding};
use minai::guidance::{ClassImages, ClassUNet, DenoiseClass, Guidance, guided};

// %% notebooks/24_classes_and_guidance.ipynb em-grad
#[test]
fn rows_pass_their_slopes_back() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::{Array, array};
    use minai::tensor::grad_check;
    {
        let table = Array::new((0..6).map(|i| i as f32 / 3.0).collect(), &[3, 2]);
        assert!(grad_check(|x| embedding(&array([[2_i64, 0], [2, 2]]), &x[0]), &[table]) < 1e-3);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/24_classes_and_guidance.ipynb em-layer-test
#[test]
fn an_embedding_learns_the_rows_it_uses() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::array;
    use minai::generator::Generator;
    use minai::nn::{Pass, named_parameters};
    {
        let table = Embedding::new(&mut Generator::manual_seed(1), 4, 3);
        assert_eq!(table.weight.data(), Generator::manual_seed(1).randn(&[4, 3]));
        let mut pass = Pass::train(Generator::manual_seed(0));
        let y = table.forward(&array([[2_i64, 0], [2, 2]]), &mut pass);
        assert_eq!((y.shape(), y.data[[0, 1, 2]]), (&[2, 2, 3][..], table.weight.data()[[0, 2]]));
        y.sum(..).backward();
        let gradient = table.weight.grad().expect("after the backward pass");
        assert_eq!([0, 1, 2, 3].map(|row| gradient[[row, 0]]), [1.0, 0.0, 3.0, 0.0]);
        assert_eq!(named_parameters(&table)[0].0, "weight");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/24_classes_and_guidance.ipynb test-guided
#[test]
fn guidance_goes_from_one_prediction_through_the_other() -> Result<(), Box<dyn std::error::Error>> {
    use minai::tensor::tensor;
    {
        let (u, t) = (tensor([1.0, 2.0, 0.0]), tensor([3.0, 2.0, -1.0]));
        assert_eq!(guided(&u, &t, 0.0).data, u.data);
        assert_eq!(guided(&u, &t, 1.0).data, t.data);
        assert_eq!(guided(&u, &t, 3.0).data, tensor([7.0, 2.0, -3.0]).data);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/24_classes_and_guidance.ipynb test-dropout
#[test]
fn classes_are_left_out_as_often_as_asked() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::karras::{ImagesAtLevels, LogNormal};
    use minai::loader::Dataset;
    {
        let images = Array::new((0..40).map(|i| i as f32).collect(), &[10, 1, 2, 2]);
        let images = ImagesAtLevels { images, levels: LogNormal::default() };
        let labels = Array::new((0..10).collect(), &[10]);
        let of = |dropout: f64| {
            let data = ClassImages { images: images.clone(), labels: labels.clone(), dropout, none: 10 };
            let indices: Vec<usize> = (0..1000).map(|i| i % 10).collect();
            let (batch, told) = data.batch(&indices, &mut Generator::manual_seed(1));
            assert_eq!((data.len(), batch.x.shape()), (10, &[1000, 1, 2, 2][..]));
            let wrong = told.iter().enumerate().filter(|(i, class)| **class != (i % 10) as i64);
            assert!(wrong.clone().all(|(_, class)| *class == 10));
            wrong.count()
        };
        assert_eq!((of(0.0), of(1.0)), (0, 1000));
        assert!((70..130).contains(&of(0.1)), "{}", of(0.1));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/24_classes_and_guidance.ipynb test-told
#[test]
fn each_image_gets_its_own_class_and_outside_the_range_there_is_no_guidance()
-> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::karras::Preconditioner;
    use minai::nn::Parts;
    use minai::small_unet::SmallUNetConfig;
    use minai::tensor::{Tensor, cat};
    {
        let mut rng = Generator::manual_seed(1);
        let config = SmallUNetConfig { channels: vec![8, 16], ..SmallUNetConfig::default() };
        let model = ClassUNet::new(&mut rng, &config, 3);
        for (_, parameter) in Parts::of(&model).parameters {
            parameter.set((Tensor::from(rng.randn(&parameter.shape())) * 0.3).data);
        }
        assert_eq!(model.none(), 3);
        let task = DenoiseClass { model, preconditioner: Preconditioner { sigma_data: 0.5 } };
        let x = Tensor::from(rng.randn(&[1, 1, 8, 8]));
        let at =
            |class: i64, guidance: &Guidance| task.denoise(&x, 0.7, &Array::new(vec![class], &[1]), guidance);
        let plain = Guidance { scale: 1.0, ..Guidance::default() };
        let both = task.denoise(&cat(&[&x, &x], 0), 0.7, &Array::new(vec![0, 2], &[2]), &plain);
        assert!((both - cat(&[&at(0, &plain), &at(2, &plain)], 0)).abs().amax(..).item() < 1e-4);
        assert!((at(0, &plain) - at(2, &plain)).abs().amax(..).item() > 1e-3);
        let far = |range| at(0, &Guidance { scale: 3.0, range, ..Guidance::default() });
        assert_eq!(far((1.0, 2.0)).data, at(0, &plain).data);
        assert!((far((0.5, 2.0)) - at(0, &plain)).abs().amax(..).item() > 1e-3);
        // Away from the class itself there is nowhere to go.
        let same = Guidance { scale: 3.0, negative: Some(0), ..Guidance::default() };
        assert!((at(0, &same) - at(0, &plain)).abs().amax(..).item() < 1e-4);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/24_classes_and_guidance.ipynb test-class
#[test]
#[should_panic]
fn a_class_that_does_not_exist_is_refused() {
    use minai::generator::Generator;
    use minai::nn::Pass;
    use minai::small_unet::SmallUNetConfig;
    use minai::tensor::Tensor;
    {
        let config = SmallUNetConfig { channels: vec![8], ..SmallUNetConfig::default() };
        let model = ClassUNet::new(&mut Generator::manual_seed(1), &config, 3);
        model.forward(
            &Tensor::zeros(&[1, 1, 4, 4]),
            &Tensor::full(1, 1.0),
            &minai::array::array([4_i64]),
            &mut Pass::eval(),
        );
    }
}
