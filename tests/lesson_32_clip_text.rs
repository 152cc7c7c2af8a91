// Owned by notebooks/32_clip_text.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 6c45e77f337c9c97
//! What notebooks/32_clip_text.ipynb claims.

use minai::clip::{ClipConfig, ClipLayer};

// %% notebooks/32_clip_text.ipynb cl-layer-test
#[test]
fn a_layer_that_says_nothing_changes_nothing() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::nn::{Layer, Parts, Pass};
    use minai::tensor::Tensor;
    use minai::weights::{Pending, Precision, initialize};
    {
        let config = ClipConfig { width: 8, inner: 16, heads: 2, ..ClipConfig::sd15() };
        let (layer, mut rng) = (ClipLayer::new(&mut Pending, &config), Generator::manual_seed(1));
        initialize(&layer, &mut rng, Precision::Single);
        let x = Tensor::from(rng.randn(&[2, 5, 8]));
        assert!(layer.forward(&x, &mut Pass::eval()).data != x.data);
        for (name, parameter) in Parts::of(&layer).parameters {
            if name.starts_with("self_attn.out_proj") || name.starts_with("mlp.fc2") {
                parameter.update(|numbers| numbers.fill(0.0));
            }
        }
        assert_eq!(layer.forward(&x, &mut Pass::eval()).data, x.data);
    }
    println!("passed");
    Ok(())
}
