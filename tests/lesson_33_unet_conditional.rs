// Owned by notebooks/33_unet_conditional.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 292283a9dc926ae6
//! What notebooks/33_unet_conditional.ipynb claims.

use minai::unet::{UNet, UNetConfig, geglu, image_to_sequence, sequence_to_image};

// %% notebooks/33_unet_conditional.ipynb geglu-test
#[test]
fn geglu_multiplies_by_a_gate() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array as List;
        use minai::generator::Generator as Draws;
        use minai::tensor::Tensor as Numbers;
        let x = Draws::manual_seed(1).randn(&[3, 10]);
        let y = geglu(&x.clone().into());
        assert_eq!(y.shape(), [3, 5]);
        let gate: Numbers = List::new(vec![x[[1, 7]]], &[1]).into();
        assert_eq!(y.data[[1, 2]], x[[1, 2]] * minai::activation::gelu(&gate).item());
    }
    println!("passed");
    Ok(())
}

// %% notebooks/33_unet_conditional.ipynb bl-sequence-test
#[test]
fn an_image_is_a_sequence_of_places() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::generator::Generator as Draws;
        use minai::tensor::Tensor as Values;
        let x: Values = Draws::manual_seed(2).randn(&[2, 3, 4, 5]).into();
        let sequence = image_to_sequence(&x);
        assert_eq!(sequence.shape(), [2, 20, 3]);
        assert_eq!(sequence.data[[1, 7, 2]], x.data[[1, 2, 1, 2]]);
        assert_eq!(sequence_to_image(&sequence, (4, 5)).data, x.data);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/33_unet_conditional.ipynb reference-test
#[test]
fn equals_the_reference() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array as List;
        use minai::io::config::Config as Settings;
        use minai::nn::Pass as Way;
        use minai::weights::{Pending as Empty, Precision as Kept, load_weights as fill};
        let folder = std::path::Path::new("../data/tiny-sd/unet");
        let net = UNet::new(
            &mut Empty,
            &UNetConfig::from_config(&Settings::open(folder.join("config.json")).unwrap()).unwrap(),
        );
        fill(&net, folder.join("diffusion_pytorch_model.safetensors"), Kept::Single, &|name| {
            Some(name.to_string())
        })
        .unwrap();
        let (parts, _) = minai::state::load("../tests/golden/sd_parts.safetensors").unwrap();
        let floats = |name: &str| match &parts[name] {
            minai::state::Value::F32(array) => array.clone(),
            other => List::new(vec![0.0; other.shape().iter().product()], other.shape()),
        };
        let minai::state::Value::I64(t) = &parts["t"] else { panic!("whole numbers") };
        let t: Vec<f32> = t.iter().map(|&t| t as f32).collect();
        let y = net.forward(&floats("x").into(), &t, &floats("text_embeddings").into(), &mut Way::eval());
        let wanted = floats("noise_pred");
        let apart = y.data.iter().zip(wanted.iter()).fold(0.0_f32, |most, (x, y)| most.max((x - y).abs()));
        assert!(apart < 1e-5 * wanted.iter().fold(0.0_f32, |most, x| most.max(x.abs())), "{apart}");
    }
    println!("passed");
    Ok(())
}
