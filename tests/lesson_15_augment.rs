// Owned by notebooks/15_augment.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash d3938d6752b4fb36
//! What notebooks/15_augment.ipynb claims.

use minai::augment::{Augmented, RandomCopy, RandomCrop, RandomErase, RandomFlip, Transform, shift};
use minai::dropout::{Dropout, Dropout2d};
use minai::ensemble::{View, probabilities};

// %% notebooks/15_augment.ipynb test-changes
#[test]
fn changes_move_mirror_and_copy_pixels() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    {
        let (picture, shape): (Vec<f32>, _) = ((1..=24).map(|i| i as f32).collect(), [2, 3, 4]);
        let mut moved = picture.clone();
        shift(&mut moved, shape, (1, -2), 0.0);
        assert_eq!(moved[..12], [0.0, 0.0, 0.0, 0.0, 3.0, 4.0, 0.0, 0.0, 7.0, 8.0, 0.0, 0.0]);
        assert_eq!(moved[12..], [0.0, 0.0, 0.0, 0.0, 15.0, 16.0, 0.0, 0.0, 19.0, 20.0, 0.0, 0.0]);
        let (mut rng, mut seen) = (Generator::manual_seed(5), std::collections::BTreeSet::new());
        for _ in 0..200 {
            let mut flipped = picture.clone();
            RandomFlip.apply(&mut flipped, shape, &mut rng);
            assert!(flipped == picture || flipped[..4] == [4.0, 3.0, 2.0, 1.0] && flipped[23] == 21.0);
            let mut cropped = picture.clone();
            RandomCrop { padding: 1, fill: 0.0 }.apply(&mut cropped, shape, &mut rng);
            seen.insert((flipped[0] as i32, cropped[5] as i32));
        }
        assert_eq!(seen.len(), 18, "both directions, and nine places");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/15_augment.ipynb test-rectangles
#[test]
fn copies_and_noise_stay_within_their_bounds() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    {
        let (picture, shape): (Vec<f32>, _) = ((1..=24).map(|i| i as f32).collect(), [2, 3, 4]);
        let (mut rng, copy) = (Generator::manual_seed(5), RandomCopy { most: 2, share: 0.5 });
        let erase = RandomErase { most: 2, share: 0.5, range: (-1.0, 0.5) };
        for _ in 0..200 {
            let mut copied = picture.clone();
            copy.apply(&mut copied, shape, &mut rng);
            let from_itself = copied[..12].iter().all(|pixel| picture[..12].contains(pixel));
            assert!(from_itself, "each channel copies from itself");
            let mut erased = picture.clone();
            erase.apply(&mut erased, shape, &mut rng);
            let changed: Vec<f32> =
                erased.iter().zip(&picture).filter(|(a, b)| a != b).map(|(a, _)| *a).collect();
            assert!(changed.len() <= 2 * 2 * 2 && changed.iter().all(|pixel| (-1.0..=0.5).contains(pixel)));
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/15_augment.ipynb test-workers
#[test]
fn augmented_batches_do_not_depend_on_workers() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::datasets::{ImageBatch, Images};
    use minai::generator::Generator;
    use minai::loader::{DataLoader, LoaderOptions};
    {
        let pixels = Generator::manual_seed(1).randn(&[50, 1, 6, 6]);
        let images = Images::new(pixels, Array::new((0..50).collect(), &[50]));
        let epoch = |workers: usize| -> Vec<ImageBatch> {
            let changed = Augmented::new(images.clone())
                .then(RandomCrop { padding: 2, fill: 0.0 })
                .then(RandomFlip)
                .then(RandomErase { most: 2, share: 0.3, range: (-1.0, 1.0) })
                .then(RandomCopy { most: 2, share: 0.3 });
            let options = LoaderOptions { batch_size: 8, workers, ..LoaderOptions::default() };
            DataLoader::new(changed, options).epoch(&mut Generator::manual_seed(7)).collect()
        };
        let alone = epoch(0);
        assert!(alone == epoch(1) && alone == epoch(3));
        let changed = alone[0].0.clone();
        let as_they_are = images.select(&alone[0].1.iter().map(|&i| i as usize).collect::<Vec<_>>()).images;
        assert!(changed != as_they_are, "something was changed");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/15_augment.ipynb test-dropout
#[test]
fn dropout_keeps_the_mean_and_drops_whole_channels() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::nn::{Layer, Pass};
    use minai::tensor::{Tensor, elements};
    {
        let x = Tensor::ones(&[20, 50, 4, 4]);
        let mut pass = Pass::train(Generator::manual_seed(3));
        for p in [0.0, 0.2, 0.75] {
            let y = Dropout { p }.forward(&x, &mut pass);
            let dropped = y.data.iter().filter(|&&y| y == 0.0).count() as f64 / 16_000.0;
            assert!((dropped - p).abs() < 0.02, "{dropped} dropped, not {p}");
            assert!((y.mean(..).item() - 1.0).abs() < 0.05);
            let y = Dropout2d { p }.forward(&x, &mut pass);
            let mut channels = elements(&y.data).chunks(16);
            assert!(channels.all(|channel| channel.iter().all(|&number| number == channel[0])));
            assert!((y.mean(..).item() - 1.0).abs() < 0.2);
            assert_eq!(Dropout { p }.forward(&x, &mut Pass::eval()).data, x.data);
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/15_augment.ipynb test-views
#[test]
fn views_mirror_move_and_are_averaged() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::datasets::Images;
    use minai::generator::Generator;
    use minai::loader::{DataLoader, LoaderOptions, Order};
    use minai::loss::softmax;
    use minai::nn::{Flatten, Layer, Linear, Pass, Sequential};
    use minai::tensor::Tensor;
    {
        let x = Array::new((1..=4).map(|i| i as f32).collect(), &[1, 1, 2, 2]);
        let look = |view: View| view.of(&x).iter().copied().collect::<Vec<_>>();
        assert_eq!(look(View { mirrored: true, ..View::default() }), [2.0, 1.0, 4.0, 3.0]);
        assert_eq!(look(View { mirrored: true, shift: (0, 1), fill: 9.0 }), [9.0, 2.0, 9.0, 4.0]);
        assert_eq!(View::moved(0.0).len(), 10);
        let mut rng = Generator::manual_seed(4);
        let images = Images::new(rng.randn(&[7, 1, 2, 2]), Array::new((0..7).collect(), &[7]));
        let model = Sequential::new().add(Flatten).add(Linear::new(&mut rng, 4, 3));
        let options = LoaderOptions { batch_size: 3, order: Order::Fixed, ..LoaderOptions::default() };
        let (answers, classes) =
            probabilities(&model, &DataLoader::new(images.clone(), options), &View::mirror());
        let say = |x: Array| softmax(&model.forward(&Tensor::from(x), &mut Pass::eval()), -1);
        let by_hand = (say(images.images.clone()) + say(View::mirror()[1].of(&images.images))) / 2.0;
        assert_eq!((answers.shape(), classes), (&[7, 3][..], images.labels));
        assert!(answers.iter().zip(by_hand.data.iter()).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    println!("passed");
    Ok(())
}
