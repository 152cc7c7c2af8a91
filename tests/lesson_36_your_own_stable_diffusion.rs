// Owned by notebooks/36_your_own_stable_diffusion.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 347ca7042dc24356
//! What notebooks/36_your_own_stable_diffusion.ipynb claims.

use minai::layout::{save_index, save_text_encoder, save_tokenizer, save_unet, save_vae};

#[cfg(feature = "pictures")]
use minai::text_to_image::{
    Captioned, Contrast, NoisyCaptioned, balanced, load_pictures, small_tables, split_held_back,
};

// %% notebooks/36_your_own_stable_diffusion.ipynb test-folder
#[cfg(feature = "pictures")]
#[test]
fn a_folder_of_pictures_is_read_or_refused() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::io::picture;
    {
        let folder = std::env::temp_dir().join(format!("minai-pictures-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let red = Array::new([250, 10, 20].repeat(80 * 100), &[80, 100, 3]);
        let wrong = |what: &str| {
            let error = load_pictures(&folder).expect_err(what).to_string();
            assert!(error.contains(what), "{error}");
        };
        for i in 0..50 {
            if i == 49 {
                wrong("has 49 pictures");
            }
            picture::write(folder.join(format!("{i:02}.png")), &red, &[])?;
            std::fs::write(folder.join(format!("{i:02}.txt")), format!("red picture {i}\n"))?;
        }
        let pictures = load_pictures(&folder)?;
        assert_eq!(
            (pictures.images.shape(), pictures.captions[7].as_str()),
            (&[50, 3, 64, 64][..], "red picture 7")
        );
        let values: Vec<u8> = [0, 1, 2].map(|c| pictures.images[[3, c, 30, 30]]).into();
        assert_eq!(values, [250, 10, 20]);
        std::fs::write(folder.join("08.txt"), " \n")?;
        wrong("empty caption");
        std::fs::remove_file(folder.join("08.txt"))?;
        wrong("08.txt");
        std::fs::write(folder.join("captions.tsv"), "08.png no tab\n")?;
        wrong("line 1");
        std::fs::write(folder.join("captions.tsv"), "08.png\ta red picture\n".repeat(60))?;
        assert_eq!(load_pictures(&folder)?.captions[59], "a red picture");
        std::fs::write(folder.join("08.png"), "no picture")?;
        wrong("08.png");
        std::fs::remove_dir_all(&folder)?;
    }
    println!("passed");
    Ok(())
}

// %% notebooks/36_your_own_stable_diffusion.ipynb test-split
#[cfg(feature = "pictures")]
#[test]
fn captions_that_are_held_back_are_in_neither_order() -> Result<(), Box<dyn std::error::Error>> {
    {
        let pictures = minai::emoji::emoji()?;
        let (train, held) = split_held_back(&pictures)?;
        assert_eq!((train.len() + held.len(), held.len()), (3781, 62));
        let order = balanced(&pictures.captions, &train);
        assert!(train.iter().all(|i| order.contains(i)) && held.iter().all(|i| !order.contains(i)));
        let times = |caption: &str| {
            let i = pictures.captions.iter().position(|known| known == caption).expect(caption);
            order.iter().filter(|&&j| j == i).count()
        };
        assert_eq!((times("red apple"), times("man farmer"), times("man farmer, dark skin")), (4, 2, 2));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/36_your_own_stable_diffusion.ipynb test-velocity
#[cfg(feature = "pictures")]
#[test]
fn the_velocity_gives_back_noise_and_latents() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::karras::LogNormal;
    use minai::loader::Dataset;
    use minai::noise::NoiseSchedule;
    use minai::stable_diffusion::Prediction;
    use minai::tensor::Tensor;
    {
        let mut rng = Generator::manual_seed(1);
        let latents = rng.randn(&[3, 4, 2, 2]);
        let data = Captioned {
            latents: latents.clone(),
            tokens: Array::new(vec![5; 12], &[3, 4]),
            indices: vec![2, 0, 1, 1],
        };
        let schedule = NoiseSchedule::stable_diffusion();
        let noisy = NoisyCaptioned {
            data,
            schedule: schedule.clone(),
            levels: LogNormal { mean: 0.0, std: 1.0 },
            dropout: 0.5,
            empty: vec![7; 4],
        };
        let batch = noisy.batch(&[0, 1, 2, 3, 3, 3, 3, 3], &mut rng);
        for (row, at) in [2, 0, 1, 1, 1, 1, 1, 1].into_iter().enumerate() {
            let one = |x: &Array| Tensor::from(minai::loader::rows(x, &[row]));
            let sigma = schedule.sigma(f64::from(batch.times[row]));
            let (x, v) = (one(&batch.x), one(&batch.velocity));
            let noise = Prediction::Velocity.noise(&x, v, sigma);
            let x0 = &x * sigma.hypot(1.0) as f32 - noise * sigma as f32;
            let off = (x0 - Tensor::from(minai::loader::rows(&latents, &[at]))).abs().amax(..).item();
            assert!(off < 1e-4 * sigma.max(1.0) as f32, "level {sigma}: off by {off}");
            let tokens = minai::loader::rows(&batch.tokens, &[row]);
            assert!(tokens.iter().all(|&id| id == 5) || tokens.iter().all(|&id| id == 7));
        }
        let dropped = batch.tokens.iter().filter(|&&id| id == 7).count();
        assert!(dropped > 0 && dropped < 32, "{dropped} of 32 tokens are those of the empty prompt");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/36_your_own_stable_diffusion.ipynb test-layout
#[test]
fn a_written_folder_opens_with_the_same_weights() -> Result<(), Box<dyn std::error::Error>> {
    use minai::clip::{ClipConfig, ClipText};
    use minai::generator::Generator;
    use minai::nn::Pass;
    use minai::stable_diffusion::{Prediction, StableDiffusion};
    use minai::tokenizer::{Tokenizer, learn_vocabulary};
    use minai::unet::{BlockKind, UNet, UNetConfig};
    use minai::vae::{AutoencoderKl, VaeConfig};
    use minai::weights::Precision;
    {
        let folder = std::env::temp_dir().join(format!("minai-layout-{}", std::process::id()));
        let mut rng = Generator::manual_seed(3);
        let (vocabulary, merges) = learn_vocabulary(["a red apple"], 20);
        save_tokenizer(&folder.join("tokenizer"), &vocabulary, &merges, 16)?;
        let tokenizer = Tokenizer::open(folder.join("tokenizer"))?;
        let sizes = (tokenizer.vocabulary_size(), tokenizer.context());
        let config = ClipConfig {
            vocabulary: sizes.0,
            positions: sizes.1,
            width: 8,
            inner: 16,
            layers: 1,
            heads: 2,
            ..ClipConfig::sd15()
        };
        save_text_encoder(&folder.join("text_encoder"), &ClipText::new(&mut rng, &config), &tokenizer)?;
        let config = VaeConfig {
            channels: vec![8, 8],
            layers: 1,
            groups: 4,
            scaling_factor: 0.5,
            ..VaeConfig::sd15()
        };
        save_vae(&folder.join("vae"), &AutoencoderKl::new(&mut rng, &config))?;
        let config = UNetConfig {
            block_out_channels: vec![8, 16],
            down_blocks: vec![BlockKind::Plain, BlockKind::CrossAttention],
            up_blocks: vec![BlockKind::CrossAttention, BlockKind::Plain],
            layers_per_block: vec![1, 1],
            heads: vec![2, 4],
            cross_attention_dim: 8,
            norm_num_groups: 4,
            ..UNetConfig::sd15()
        };
        let unet = UNet::new(&mut rng, &config);
        save_unet(&folder.join("unet"), &unet, 8)?;
        save_index(&folder)?;
        let model = StableDiffusion::open(&folder, Precision::Single)?;
        assert_eq!(
            (model.tokenizer.context(), model.size, model.prediction),
            (16, (16, 16), Prediction::Velocity)
        );
        assert_eq!((model.unet.config(), model.vae.scaling_factor()), (&config, 0.5));
        let (x, context) = (rng.randn(&[1, 4, 8, 8]).into(), rng.randn(&[1, 3, 8]).into());
        let [ours, read] =
            [&unet, &model.unet].map(|unet| unet.forward(&x, &[500.0], &context, &mut Pass::eval()));
        let off = (&ours - read).abs().amax(..).item() / ours.abs().amax(..).item();
        assert!(off < 5e-3, "off by {off}");
        std::fs::remove_dir_all(&folder)?;
    }
    println!("passed");
    Ok(())
}

// %% notebooks/36_your_own_stable_diffusion.ipynb test-learns
#[cfg(feature = "pictures")]
#[test]
fn a_small_model_learns_which_caption_goes_with_which_latents() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::clip::{ClipConfig, ClipText};
    use minai::generator::Generator;
    use minai::learner::Task;
    use minai::loader::Dataset;
    use minai::nn::Pass;
    use minai::optim::AdamW;
    use minai::optimizer::Optimizer;
    {
        let mut rng = Generator::manual_seed(1);
        let config = ClipConfig {
            vocabulary: 10,
            positions: 3,
            width: 16,
            inner: 32,
            layers: 1,
            heads: 2,
            ..ClipConfig::sd15()
        };
        let text = ClipText::new(&mut rng, &config);
        small_tables(&text, &mut rng);
        let task = Contrast::new(&mut rng, text, 9);
        let tokens = Array::new((0..8).flat_map(|i| [8, i, 9]).collect(), &[8, 3]);
        let data = Captioned { latents: rng.randn(&[8, 4, 16, 16]), tokens, indices: (0..8).collect() };
        let batch = data.batch(&[0, 1, 2, 3, 4, 5, 6, 7], &mut rng);
        let mut optimizer = Optimizer::new(&task, AdamW { lr: 3e-3, ..AdamW::default() });
        for step in 0..80 {
            let loss =
                task.loss(&task.predict(&batch, &mut Pass::train(Generator::manual_seed(step))), &batch);
            loss.backward();
            optimizer.step();
            optimizer.zero_grad();
        }
        let found = task.predict(&batch, &mut Pass::eval()).argmax(1);
        assert_eq!(found.iter().copied().collect::<Vec<i64>>(), (0..8).collect::<Vec<i64>>());
    }
    println!("passed");
    Ok(())
}
