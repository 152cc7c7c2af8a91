// Owned by notebooks/25_begin_with_a_picture.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 9bc1b5e5d926a10e
//! What notebooks/25_begin_with_a_picture.ipynb claims.

use minai::inpaint::{keep, levels_from, redraw};

#[cfg(feature = "pictures")]
use minai::emoji::{emoji, load_emoji, motif};
#[cfg(feature = "pictures")]
use minai::super_resolution::{Details, Upscale, Upscaler, detail, enlarge, shrink};

// %% notebooks/25_begin_with_a_picture.ipynb test-from
#[test]
fn drawing_from_a_level_begins_there() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let sigmas = [8.0, 4.0, 2.0, 1.0, 0.0];
        assert_eq!(levels_from(&sigmas, 3.0), [2.0, 1.0, 0.0]);
        assert_eq!(levels_from(&sigmas, 2.0), [2.0, 1.0, 0.0]);
        assert_eq!(levels_from(&sigmas, 100.0), sigmas);
        assert_eq!(levels_from(&sigmas, 0.5), [0.0]);
        let (x0, mut asked) = (Tensor::full(&[1, 1, 2, 2], 5.0), vec![]);
        let end = redraw(
            &x0,
            ("euler".parse().expect("a sampler"), levels_from(&sigmas, 2.0)),
            |x, sigma| {
                asked.push((sigma, (x - &x0).data));
                Tensor::full(&[1, 1, 2, 2], 3.0)
            },
            &mut Generator::manual_seed(1),
        );
        assert_eq!(end.data, Tensor::full(&[1, 1, 2, 2], 3.0).data);
        assert_eq!(asked.iter().map(|(sigma, _)| *sigma).collect::<Vec<_>>(), [2.0, 1.0]);
        let noise = Tensor::from(Generator::manual_seed(1).randn(&[1, 1, 2, 2])) * 2.0;
        assert!((Tensor::from(asked[0].1.clone()) - noise).abs().amax(..).item() < 1e-5);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/25_begin_with_a_picture.ipynb test-keep
#[test]
fn what_is_kept_has_its_own_noise_at_each_level_and_is_exact_at_the_end()
-> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::generator::Generator;
    use minai::tensor::Tensor;
    {
        let mut rng = Generator::manual_seed(3);
        let known = Tensor::from(rng.randn(&[2, 1, 3, 4]));
        let mask = Tensor::from(Array::new((0..12).map(|i| f32::from(i % 3 == 0)).collect(), &[1, 1, 3, 4]));
        for name in ["euler", "heun", "dpmpp_2m"] {
            let sigmas = [10.0, 3.0, 1.0, 0.1, 0.0];
            let mut noises: Vec<Tensor> = vec![];
            let end = redraw(
                &known,
                (name.parse().expect("a sampler"), &sigmas),
                |x, sigma| {
                    noises.push((x - &known) * &mask / sigma as f32);
                    keep(&(x * 0.3).tanh(), &known, &mask)
                },
                &mut Generator::manual_seed(4),
            );
            assert!(((&end - &known) * &mask).abs().amax(..).item() < 1e-5, "{name}");
            assert!(((&end - &known) * (1.0 - &mask)).abs().amax(..).item() > 0.1, "{name}");
            for noise in &noises {
                assert!((noise - &noises[0]).abs().amax(..).item() < 1e-3, "{name}");
            }
        }
        let halfway = keep(
            &Tensor::full(&[1, 1, 1, 2], 1.0),
            &Tensor::full(&[1, 1, 1, 2], 3.0),
            &Tensor::full(&[1, 1, 1, 1], 0.5),
        );
        assert_eq!(halfway.data, Tensor::full(&[1, 1, 1, 2], 2.0).data);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/25_begin_with_a_picture.ipynb test-emoji
#[cfg(feature = "pictures")]
#[test]
fn emoji_are_cut_from_the_sheet_and_variants_stay_together() -> Result<(), Box<dyn std::error::Error>> {
    use std::collections::HashSet;
    {
        let emoji = emoji().expect("the course's emoji");
        assert_eq!((emoji.images.shape(), emoji.captions.len()), (&[3781, 3, 64, 64][..], 3781));
        assert_eq!(emoji.captions[0], "grinning face");
        // The corners are white, and the middle of a smiley is yellow.
        let face = emoji.pixels(&[0]);
        assert_eq!([face.data[[0, 0, 0, 0]], face.data[[0, 2, 63, 63]]], [1.0, 1.0]);
        assert!(face.data[[0, 0, 10, 32]] > 0.5 && face.data[[0, 2, 10, 32]] < 0.0);
        assert_eq!(motif("woman running, dark skin"), motif("man running"));
        assert_ne!(motif("woman running"), motif("woman walking"));
        let (train, held_back) = emoji.split();
        assert_eq!(train.len() + held_back.len(), 3781);
        let motifs =
            |of: &[usize]| -> HashSet<String> { of.iter().map(|&i| motif(&emoji.captions[i])).collect() };
        assert!(motifs(&train).is_disjoint(&motifs(&held_back)));
        assert!((200..600).contains(&held_back.len()), "{}", held_back.len());
    }
    println!("passed");
    Ok(())
}

// %% notebooks/25_begin_with_a_picture.ipynb test-bad
#[cfg(feature = "pictures")]
#[test]
fn a_damaged_table_or_sheet_is_named() -> Result<(), Box<dyn std::error::Error>> {
    use minai::array::Array;
    use minai::io::picture;
    use std::fs;
    {
        let folder = std::env::temp_dir().join(format!("minai-emoji-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder for the test");
        let error = |what: &str| {
            let error = load_emoji(&folder).expect_err(what).to_string();
            assert!(error.contains(what), "{error}");
        };
        error("captions.tsv");
        fs::write(
            folder.join("captions.tsv"),
            "index\tcodepoints\tcaption\n0\t1F600\tface\n1\t1F603\tface\n",
        )
        .expect("a table");
        error("emoji-64.png");
        picture::write(folder.join("emoji-64.png"), &Array::new(vec![9; 64 * 64 * 3], &[64, 64, 3]), &[])
            .expect("a sheet");
        error("has no place for 2 pictures");
        fs::write(folder.join("captions.tsv"), "index\tcodepoints\tcaption\n0 1F600 face\n")
            .expect("a table");
        error("no caption");
        fs::write(folder.join("captions.tsv"), "index\tcodepoints\tcaption\n0\t1F600\tface\n")
            .expect("a table");
        assert_eq!(load_emoji(&folder).expect("one picture").pixels(&[0]).shape(), [1, 3, 64, 64]);
        fs::remove_dir_all(&folder).expect("the test's own folder");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/25_begin_with_a_picture.ipynb test-upscale
#[cfg(feature = "pictures")]
#[test]
fn a_drawn_picture_shrinks_to_the_small_one() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::karras::Preconditioner;
    use minai::nn::Parts;
    use minai::noise::karras;
    use minai::tensor::Tensor;
    {
        let mut rng = Generator::manual_seed(1);
        let x = Tensor::from(rng.randn(&[2, 3, 16, 16]));
        assert!((enlarge(&shrink(&x)) + detail(&x) - &x).abs().amax(..).item() < 1e-6);
        assert!(shrink(&detail(&x)).abs().amax(..).item() < 1e-6);
        let model = Upscaler::new(&mut rng, &[8, 16]);
        for (_, parameter) in Parts::of(&model).parameters {
            parameter.set((Tensor::from(rng.randn(&parameter.shape())) * 0.2).data);
        }
        let task = Upscale { model, preconditioner: Preconditioner { sigma_data: 0.2 } };
        let small = Tensor::from(rng.randn(&[2, 3, 4, 4])) * 0.1;
        let sigmas = karras(4, 0.01, 1.0, 7.0);
        let walk_down = ("dpmpp_2m".parse().expect("a sampler"), &sigmas[..]);
        let large = task.draw(&small, walk_down, &mut rng);
        assert_eq!(large.shape(), [2, 3, 16, 16]);
        assert!(detail(&large).abs().amax(..).item() > 1e-2);
        assert!(large.abs().amax(..).item() < 1.0, "nothing is cut off");
        assert!((shrink(&large) - &small).abs().amax(..).item() < 1e-4);
        // The small picture matters, and not only for its blocks.
        let x = Tensor::from(rng.randn(&[2, 3, 16, 16]));
        let other = task.denoise(&x, 0.5, &-&small) - task.denoise(&x, 0.5, &small);
        assert!(other.abs().amax(..).item() > 1e-3);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/25_begin_with_a_picture.ipynb test-batch
#[cfg(feature = "pictures")]
#[test]
fn details_come_with_the_small_picture_that_they_belong_to() -> Result<(), Box<dyn std::error::Error>> {
    use minai::generator::Generator;
    use minai::loader::Dataset;
    use minai::tensor::Tensor;
    {
        let emoji = emoji().expect("the course's emoji");
        let data = Details { emoji: emoji.clone(), indices: vec![7, 100, 2000] };
        let (batch, small) = data.batch(&[2, 0], &mut Generator::manual_seed(1));
        assert_eq!((data.len(), batch.sigma.shape(), small.shape()), (3, &[2][..], &[2, 3, 16, 16][..]));
        let big = emoji.pixels(&[2000, 7]);
        assert!((Tensor::from(batch.x0.clone()) - detail(&big)).abs().amax(..).item() < 1e-6);
        assert!((enlarge(&small.into()) + Tensor::from(batch.x0) - big).abs().amax(..).item() < 1e-5);
    }
    println!("passed");
    Ok(())
}
