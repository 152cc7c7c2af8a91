// Owned by notebooks/35b_files.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 39ab2beb063a6434
//! What notebooks/35b_files.ipynb claims.

use minai::inversion::add_word;
use minai::lora::merge_lora;
use minai::single_file::{unet_name, vae_name};

// %% notebooks/35b_files.ipynb sf-test
#[test]
fn names_of_the_first_code_are_found_in_folders() -> Result<(), Box<dyn std::error::Error>> {
    {
        let unet = |name: &str| unet_name(&format!("model.diffusion_model.{name}"), 2);
        for (old, new) in [
            ("input_blocks.0.0.weight", "conv_in.weight"),
            ("input_blocks.1.0.in_layers.0.weight", "down_blocks.0.resnets.0.norm1.weight"),
            ("input_blocks.2.1.proj_in.bias", "down_blocks.0.attentions.1.proj_in.bias"),
            ("input_blocks.3.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"),
            ("input_blocks.11.0.skip_connection.weight", "down_blocks.3.resnets.1.conv_shortcut.weight"),
            ("middle_block.2.out_layers.3.bias", "mid_block.resnets.1.conv2.bias"),
            ("output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
            ("output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
            (
                "output_blocks.11.1.transformer_blocks.0.attn2.to_k.weight",
                "up_blocks.3.attentions.2.transformer_blocks.0.attn2.to_k.weight",
            ),
            ("out.2.weight", "conv_out.weight"),
        ] {
            assert_eq!(unet(old).as_deref(), Some(new));
        }
        let vae = |name: &str| vae_name(&format!("first_stage_model.{name}"), 4);
        for (old, new) in [
            (
                "encoder.down.1.block.0.nin_shortcut.weight",
                "encoder.down_blocks.1.resnets.0.conv_shortcut.weight",
            ),
            ("encoder.down.0.downsample.conv.weight", "encoder.down_blocks.0.downsamplers.0.conv.weight"),
            ("decoder.up.3.upsample.conv.bias", "decoder.up_blocks.0.upsamplers.0.conv.bias"),
            ("decoder.mid.attn_1.proj_out.weight", "decoder.mid_block.attentions.0.to_out.0.weight"),
            ("post_quant_conv.bias", "post_quant_conv.bias"),
        ] {
            assert_eq!(vae(old).as_deref(), Some(new));
        }
        assert_eq!((unet_name("model_ema.decay", 2), vae_name("betas", 4)), (None, None));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/35b_files.ipynb lo-test
#[test]
fn a_lora_for_another_model_changes_nothing() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::nn::named_parameters;
    use minai::stable_diffusion::StableDiffusion;
    use minai::state::{Value, save};
    use minai::tensor::Tensor;
    use minai::weights::Precision;
    {
        let model = StableDiffusion::open(
            minai::io::data::data_folder().unwrap().join("emoji-sd"),
            Precision::Single,
        )?;
        let sum = || -> f64 {
            let all = named_parameters(&model.unet)
                .into_iter()
                .map(|(_, p)| p.data().iter().map(|x| f64::from(x.abs())).sum::<f64>());
            all.sum()
        };
        let (before, path) =
            (sum(), std::env::temp_dir().join(format!("minai-lora-{}.safetensors", std::process::id())));
        let refused = |tensors: &[(&str, &[usize])], why: &str| {
            let values = |shape: &[usize]| Value::F32(Array::new(vec![1.0; shape.iter().product()], shape));
            let state = tensors.iter().map(|(name, shape)| (name.to_string(), values(shape))).collect();
            save(&path, &state, &Default::default()).unwrap();
            let error = merge_lora(&model, &path, 1.0).expect_err(why).to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(sum(), before);
        };
        let good = "unet.mid_block.attentions.0.proj_in";
        let [a, b] = ["lora_A", "lora_B"].map(|end| format!("{good}.{end}.weight"));
        refused(&[(&a, &[2, 88])], "lacks one of its two matrices");
        refused(&[(&a, &[2, 88]), (&b, &[320, 2])], "for a weight of shape [88, 88, 1, 1]");
        refused(
            &[(&a, &[2, 88]), (&b, &[88, 2]), ("unet.nothing.lora_A.weight", &[1, 1])],
            "does not have, such as `unet.nothing`",
        );
        refused(&[("lora_unet_x.hada_w1_a", &[1])], "is a LoHa");
        // And a good one does, there and back.
        let state = [(a, vec![2, 88]), (b, vec![88, 2])]
            .map(|(name, shape)| (name, Value::F32(Array::new(vec![0.5; shape.iter().product()], &shape))));
        save(&path, &state.into(), &Default::default())?;
        assert_eq!(merge_lora(&model, &path, 1.0)?, 1);
        let weight = named_parameters(&model.unet)
            .into_iter()
            .find(|(name, _)| name == "mid_block.attentions.0.proj_in.weight");
        let changed = Tensor::from(weight.unwrap().1.data());
        merge_lora(&model, &path, -1.0)?;
        let weight = named_parameters(&model.unet)
            .into_iter()
            .find(|(name, _)| name == "mid_block.attentions.0.proj_in.weight");
        let apart = changed - Tensor::from(weight.unwrap().1.data());
        assert!((apart.mean(..).item() - 0.5).abs() < 1e-5, "B A has 0.5 everywhere");
        std::fs::remove_file(&path)?;
    }
    println!("passed");
    Ok(())
}

// %% notebooks/35b_files.ipynb ti-test
#[test]
fn a_new_word_of_two_vectors_stands_where_it_is_written() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::stable_diffusion::StableDiffusion;
    use minai::state::{Value, save};
    use minai::weights::Precision;
    {
        let open = || {
            StableDiffusion::open(minai::io::data::data_folder().unwrap().join("emoji-sd"), Precision::Single)
                .unwrap()
        };
        let (mut model, path) =
            (open(), std::env::temp_dir().join(format!("minai-word-{}.safetensors", std::process::id())));
        let (width, old) = (model.text_encoder.config.width, model.tokenizer.vocabulary_size() as u32);
        let write = |tensors: &[(&str, &[usize])]| {
            let values = |shape: &[usize]| Value::F32(Array::new(vec![0.1; shape.iter().product()], shape));
            let state = tensors.iter().map(|(name, shape)| (name.to_string(), values(shape))).collect();
            save(&path, &state, &Default::default()).unwrap();
        };
        let before = model.embed(&["red apple"]);
        write(&[("emb_params", &[2, width])]);
        assert_eq!(add_word(&mut model, &path, Some("my-word"))?, "my-word");
        let apple = model.tokenizer.encode("apple")[0];
        assert_eq!(model.tokenizer.encode("my-word apple"), [old, old + 1, apple]);
        assert_eq!(model.embed(&["red apple"]).data, before.data, "all other words are as they were");
        assert_ne!(model.embed(&["my-word apple"]).data, before.data);
        assert!(add_word(&mut model, &path, Some("my-word")).unwrap_err().to_string().contains("already"));
        write(&[("<big>", &[768])]);
        assert!(add_word(&mut model, &path, None).unwrap_err().to_string().contains("another model"));
        write(&[("a", &[width]), ("b", &[width])]);
        assert!(add_word(&mut model, &path, None).unwrap_err().to_string().contains("has 2 tensors"));
        write(&[("<one>", &[width])]);
        assert_eq!(add_word(&mut model, &path, None)?, "<one>");
        std::fs::remove_file(&path)?;
    }
    println!("passed");
    Ok(())
}
