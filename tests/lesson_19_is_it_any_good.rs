// Owned by notebooks/19_is_it_any_good.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 21c75f57dbfce27c
//! What notebooks/19_is_it_any_good.ipynb claims.

use minai::judge::Judge;
use minai::quality::{frechet_distance, kernel_distance, precision_recall};

// %% notebooks/19_is_it_any_good.ipynb test-golden
#[test]
fn both_distances_are_those_of_the_reference() -> Result<(), Box<dyn std::error::Error>> {
    use minai::io::safetensors::TensorFile;
    use minai::tensor::Tensor;
    {
        let own = || minai::io::data::data_folder().expect("the course's folder").join("../tests/golden");
        let folder = std::env::var_os("MINAI_GOLDEN").map_or_else(own, std::path::PathBuf::from);
        let file = TensorFile::open(folder.join("fid.safetensors")).unwrap();
        let [f1, f2] = ["f1", "f2"].map(|name| Tensor::from(file.f32(name).unwrap()));
        for (name, found) in [("fid", frechet_distance(&f1, &f2)), ("kid", kernel_distance(&f1, &f2))] {
            let bytes = file.bytes(name).unwrap();
            let expected = f64::from_le_bytes(bytes.try_into().expect("one f64"));
            assert!((found / expected - 1.0).abs() < 1e-5, "{name} is {found}, and should be {expected}");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/19_is_it_any_good.ipynb test-frechet
#[test]
fn a_moved_and_stretched_cloud_is_as_far_as_the_formula_says() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let x = Tensor::from(Generator::manual_seed(1).randn(&[40, 60])); // fewer rows than features
        let variance: f32 = x.var(0).sum(..).item();
        let close =
            |found: f64, expected: f32| (found - f64::from(expected)).abs() < 1e-4 * f64::from(expected);
        assert!(frechet_distance(&x, &x).abs() < 1e-9);
        assert!(close(frechet_distance(&x, &(&x + 0.5)), 60.0 * 0.25));
        assert!(close(frechet_distance(&x, &(&x * 3.0 - x.mean_keepdim(0) * 2.0)), 4.0 * variance));
        let zeros = Tensor::zeros((5, 60));
        let alone = variance + x.mean(0).powi(2).sum(..).item();
        assert!(close(frechet_distance(&x, &zeros), alone) && close(frechet_distance(&zeros, &x), alone));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/19_is_it_any_good.ipynb test-small
#[test]
fn kernel_distance_and_precision_by_hand() -> Result<(), Box<dyn std::error::Error>> {
    use minai::tensor::tensor;
    {
        // Within: 1 and 27; across: the mean of 1, 1, 8 and 27.
        assert_eq!(
            kernel_distance(&tensor([[0.0], [1.0]]), &tensor([[1.0], [2.0]])),
            1.0 + 27.0 - 2.0 * 9.25
        );
        let (real, fake) = (tensor([[0.0], [1.0], [2.0]]), tensor([[1.5], [5.0], [2.0]]));
        // Circles of radius 1 around the real ones; of 0.5, 3 and 0.5 around the others.
        assert_eq!(precision_recall(&real, &fake, 1), (2.0 / 3.0, 2.0 / 3.0));
        assert_eq!(precision_recall(&real, &real, 2), (1.0, 1.0));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/19_is_it_any_good.ipynb test-judge
#[test]
fn the_judge_that_comes_with_the_course_reads_digits() -> Result<(), Box<dyn std::error::Error>> {
    use minai::datasets::mnist;
    use minai::generator::Generator;
    use minai::io::data::data_folder;
    use minai::loader::Labelled;
    use minai::loader::{DataLoader, LoaderOptions, Order};
    use minai::nn::{Pass, parameter_count};
    use minai::state::{load, load_state_dict};
    use minai::tensor::Tensor;
    use minai::training::evaluate;
    {
        let judge = Judge::new(&mut Generator::manual_seed(0));
        let path = data_folder().expect("the course's folder").join("models/judge.safetensors");
        assert!(path.metadata().unwrap().len() <= 250_000);
        load_state_dict(&judge, &load(path).unwrap().0).unwrap();
        assert_eq!(parameter_count(&judge), 98_442);
        let valid = mnist().unwrap().valid;
        let x = Tensor::from(valid.images.clone()) * 2.0 - 1.0;
        let features = judge.features(&x.slice(ndarray::s![0..3, .., .., ..]), &mut Pass::eval());
        assert_eq!((features.shape(), features.amin(..).item() >= 0.0), (&[3, 128][..], true));
        let options = LoaderOptions { batch_size: 500, order: Order::Fixed, ..LoaderOptions::default() };
        let score = evaluate(&judge, &DataLoader::new(Labelled::new(x, valid.labels), options));
        assert!(score.accuracy > 0.98, "{score:?}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/19_is_it_any_good.ipynb test-shapes
#[test]
#[should_panic]
fn heaps_with_different_features_are_refused() {
    use minai::tensor::Tensor;
    {
        frechet_distance(&Tensor::zeros((5, 3)), &Tensor::zeros((5, 4)));
    }
}

// %% notebooks/19_is_it_any_good.ipynb test-image
#[test]
#[should_panic]
fn images_of_another_size_are_refused() {
    use minai::generator::Generator;
    use minai::nn::Pass;
    use minai::tensor::Tensor;
    {
        let judge = Judge::new(&mut Generator::manual_seed(1));
        judge.features(&Tensor::zeros((1, 1, 32, 32)), &mut Pass::eval());
    }
}
