// Owned by notebooks/35_pipeline.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash ad9efebed50f0df5
//! What notebooks/35_pipeline.ipynb claims.

use minai::stable_diffusion::{ImageToImage, Picture, Request, StableDiffusion, Step, rescaled, slerp};

// %% notebooks/35_pipeline.ipynb pi-test
#[test]
fn pictures_go_to_tensors_and_back() -> Result<(), Box<dyn std::error::Error>> {
    {
        let rgb: Vec<u8> = (0..5 * 3 * 3).map(|i| (i * 17 % 256) as u8).collect();
        let picture = Picture { height: 5, width: 3, rgb };
        let tensor = picture.to_tensor();
        assert_eq!(tensor.shape(), [1, 3, 5, 3]);
        assert_eq!(Picture::from_tensor(&tensor), [picture]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/35_pipeline.ipynb gu-test
#[test]
fn guidance_by_its_definition() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::guidance::guided;
        use minai::tensor::tensor;
        let (u, t) = (tensor([[1.0, 2.0], [0.0, 4.0]]), tensor([[3.0, 2.0], [8.0, 0.0]]));
        assert_eq!(guided(&u, &t, 0.0).data, u.data);
        assert_eq!(guided(&u, &t, 1.0).data, t.data);
        assert_eq!(guided(&u, &t, 7.5).data, tensor([[16.0, 2.0], [60.0, -26.0]]).data);
        let strong = guided(&u, &t, 7.5);
        // Each sample of the batch has a deviation of its own.
        let equal = rescaled(&strong, &t, 1.0);
        for row in 0..2 {
            let [ours, theirs] =
                [&equal, &t].map(|x| x.index_select(0, &minai::array::array([row])).std(..).item());
            assert!((ours - theirs).abs() < 1e-5, "{ours} {theirs}");
        }
        assert_eq!(rescaled(&strong, &t, 0.0).data, strong.data);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/35_pipeline.ipynb sl-test
#[test]
fn slerp_keeps_to_the_circle() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::tensor::tensor;
        let (a, b) = (tensor([1.0, 0.0]), tensor([0.0, 1.0]));
        let third = slerp(&a, &b, 1.0 / 3.0);
        let angle = std::f32::consts::FRAC_PI_6;
        assert!((third.data[[0]] - angle.cos()).abs() < 1e-6 && (third.data[[1]] - angle.sin()).abs() < 1e-6);
        assert_eq!(slerp(&a, &b, 0.0).data, a.data);
        // Where there is no circle, a straight line: the same direction, and zeros.
        assert_eq!(slerp(&a, &(&a * 3.0), 0.5).data, (&a * 2.0).data);
        assert_eq!(slerp(&(&a * 0.0), &b, 0.25).data, (&b * 0.25).data);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/35_pipeline.ipynb ge-test
#[test]
fn drawing_is_repeatable_and_stops_when_told() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::io::data::data_folder;
        use minai::weights::Precision;
        use std::ops::ControlFlow;
        let folder = data_folder().unwrap().join("tiny-sd");
        let model = StableDiffusion::open(folder, Precision::Single).unwrap();
        let one = Request { prompts: vec!["a cat".into()], steps: 4, size: (64, 96), ..Default::default() };
        let draw = |request: &Request| model.generate(request, |_| ControlFlow::Continue(())).unwrap();
        let first = draw(&one);
        assert_eq!(first.shape(), [1, 4, 8, 12]);
        assert_eq!(first.data, draw(&one).data, "the same seed, the same picture");
        assert_ne!(first.data, draw(&Request { seed: 43, ..one.clone() }).data);
        assert_ne!(first.data, draw(&Request { negative: "a dog".into(), ..one.clone() }).data);
        // Without guidance the negative prompt does not count.
        let plain = Request { guidance: 1.0, ..one.clone() };
        let apart = draw(&plain) - draw(&Request { negative: "a dog".into(), ..plain });
        assert!(apart.abs().amax(..).item() < 1e-4);
        // Two prompts: the first begins with the same noise as it would alone.
        let two = draw(&Request { prompts: vec!["a cat".into(), "a horse".into()], ..one.clone() });
        assert_eq!(two.shape(), [2, 4, 8, 12]);
        let mut seen = Vec::new();
        let stop = |step: &Step| {
            seen.push((step.call, step.latents.data.clone()));
            if step.call == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let stopped = model.generate(&one, stop).unwrap();
        assert_eq!(seen.iter().map(|(call, _)| *call).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(stopped.data, seen[1].1, "the latents of that moment");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/35_pipeline.ipynb ge-image-test
#[test]
fn image_to_image_keeps_what_it_is_told_to() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::generator::Generator;
        use minai::io::data::data_folder;
        use minai::weights::Precision;
        use std::ops::ControlFlow;
        let model = StableDiffusion::open(data_folder().unwrap().join("tiny-sd"), Precision::Single).unwrap();
        let rgb = (0..64 * 48 * 3).map(|i| (i / 48 % 256) as u8).collect();
        let picture = Picture { height: 64, width: 48, rgb };
        let latents = model.encode(&picture, &mut Generator::manual_seed(42)).unwrap();
        let apart = |strength: f64| {
            let start = Some(ImageToImage { picture: picture.clone(), strength });
            let request = Request { prompts: vec!["a cat".into()], steps: 10, start, ..Default::default() };
            let mut calls = 0;
            let drawn = model
                .generate(&request, |_| {
                    calls += 1;
                    ControlFlow::Continue(())
                })
                .unwrap();
            ((drawn - &latents).abs().mean(..).item(), calls)
        };
        assert_eq!(apart(0.0), (0.0, 0));
        let (little, much) = (apart(0.3), apart(0.9));
        assert_eq!((little.1, much.1), (3, 9));
        assert!(little.0 < much.0, "{little:?} {much:?}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/35_pipeline.ipynb ge-refuse-test
#[test]
fn requests_that_cannot_be_met() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::io::data::data_folder;
        use minai::weights::Precision;
        use std::ops::ControlFlow;
        let model = StableDiffusion::open(data_folder().unwrap().join("tiny-sd"), Precision::Single).unwrap();
        let refused = |request: Request, why: &str| {
            let error = model.generate(&request, |_| ControlFlow::Continue(())).err().unwrap();
            assert!(error.to_string().contains(why), "{error}");
        };
        let good = || Request { steps: 2, size: (64, 64), ..Default::default() };
        refused(Request { prompts: vec![], ..good() }, "no prompt");
        refused(Request { size: (64, 100), ..good() }, "104x64");
        refused(Request { size: (0, 64), ..good() }, "64x8 would do");
        refused(Request { size: (usize::MAX - 7, 64), ..good() }, "at most 8192");
        refused(Request { steps: 0, ..good() }, "0 steps");
        let karras = "DDIM Karras".parse().unwrap();
        refused(Request { sampler: karras, ..good() }, "Karras");
        let magic = "magic".parse::<minai::sampling::Sampler>();
        assert!(magic.unwrap_err().to_string().contains("no sampler \"magic\""));
        refused(Request { guidance: f64::NAN, ..good() }, "guidance NaN");
        refused(Request { guidance: 1e39, ..good() }, "not finite"); // beyond what 32 bits can say
        let picture = Picture { height: 8, width: 9, rgb: vec![0; 216] };
        refused(
            Request { start: Some(ImageToImage { picture: picture.clone(), strength: 0.5 }), ..good() },
            "9x8",
        );
        refused(Request { start: Some(ImageToImage { picture, strength: f64::NAN }), ..good() }, "strength");
    }
    println!("passed");
    Ok(())
}
