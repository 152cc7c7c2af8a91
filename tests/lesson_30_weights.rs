// Owned by notebooks/30_weights.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash ad467f26a0965bc1
//! What notebooks/30_weights.ipynb claims.

use minai::weights::{Pending, Precision, initialize, load_weights};

// %% notebooks/30_weights.ipynb file-test
#[test]
fn damaged_files_are_refused() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::io::safetensors::TensorFile;
        use minai::state::{Metadata, StateDict, Value, save};
        let path = std::env::temp_dir().join(format!("minai-damaged-{}.safetensors", std::process::id()));
        let numbers = Value::F32(minai::array::array([1.0, 2.0, 3.0]));
        save(&path, &StateDict::from([("a".to_owned(), numbers)]), &Metadata::new()).unwrap();
        let good = std::fs::read(&path).unwrap();
        assert_eq!(TensorFile::open(&path).unwrap().shape("a"), Some(&[3][..]));
        for end in 0..good.len() {
            std::fs::write(&path, &good[..end]).unwrap();
            assert!(TensorFile::open(&path).is_err(), "{end} bytes");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(TensorFile::open(&path).map(drop).unwrap_err().to_string().contains("no such file"));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/30_weights.ipynb load-test
#[test]
fn saved_numbers_are_loaded_in_every_form() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::generator::Generator;
        use minai::nn::Linear;
        use minai::state::{Metadata, save, state_dict};
        let path = std::env::temp_dir().join(format!("minai-load-{}.safetensors", std::process::id()));
        let trained = Linear::new(&mut Generator::manual_seed(4), 30, 20);
        save(&path, &state_dict(&trained), &Metadata::new()).unwrap();
        for (keep, bytes, most) in
            [(Precision::Single, 2480, 0.0), (Precision::Stored, 2480, 0.0), (Precision::Half, 1280, 1e-4)]
        {
            let fresh = Linear::new(&mut Pending, 30, 20);
            let loaded = load_weights(&fresh, &path, keep, &|name| Some(name.to_owned())).unwrap();
            assert_eq!((loaded.tensors, loaded.values, loaded.bytes), (2, 620, bytes));
            let (found, wanted) = (fresh.weight.data(), trained.weight.data());
            assert!(found.iter().zip(wanted.iter()).all(|(x, y)| (x - y).abs() <= most));
            assert_eq!(fresh.bias.unwrap().data(), trained.bias.as_ref().unwrap().data());
        }
        let other = Linear::new(&mut Pending, 30, 21);
        let error =
            load_weights(&other, &path, Precision::Single, &|name| Some(name.to_owned())).unwrap_err();
        assert!(error.what.contains("`weight` has shape [20, 30], the model expects [21, 30]"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }
    println!("passed");
    Ok(())
}

// %% notebooks/30_weights.ipynb init-test
#[test]
fn the_scale_is_pytorchs() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::generator::Generator;
        use minai::nn::Linear;
        use minai::norm::GroupNorm;
        let layer = Linear::new(&mut Pending, 100, 50);
        initialize(&layer, &mut Generator::manual_seed(6), Precision::Single);
        let most = |p: &minai::nn::Parameter| p.data().iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!((0.0999..=0.1).contains(&most(&layer.weight)));
        let same = Linear::new(&mut Generator::manual_seed(6), 100, 50);
        assert_eq!(layer.weight.data(), same.weight.data());
        assert_eq!(layer.bias.unwrap().data(), same.bias.unwrap().data());
        let norm = GroupNorm::new(2, 8);
        norm.weight.update(|weight| weight.fill(3.0));
        norm.bias.update(|bias| bias.fill(3.0));
        initialize(&norm, &mut Generator::manual_seed(6), Precision::Half);
        assert!(norm.weight.data().iter().all(|&x| x == 1.0) && norm.bias.data().iter().all(|&x| x == 0.0));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/30_weights.ipynb config-test
#[test]
fn configs_say_what_is_wrong() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::io::config::Config;
        let config =
            Config::parse("here", r#"{"a": 3, "b": 0.5, "c": [1, 2], "d": null, "e": "x"}"#).unwrap();
        assert_eq!(
            (config.usize("a").unwrap(), config.f64("b").unwrap(), config.usize_or("d", 7).unwrap()),
            (3, 0.5, 7)
        );
        assert_eq!(config.usizes("c").unwrap(), [1, 2]);
        let error = config.usize("e").unwrap_err().to_string();
        assert_eq!(error, "here: `e` is \"x\", where a whole number belongs; correct the file");
        assert!(
            config.texts("f").unwrap_err().what.contains("`f` is missing; a list of texts belongs there")
        );
        assert!(Config::parse("here", "[1]").is_err());
    }
    println!("passed");
    Ok(())
}
