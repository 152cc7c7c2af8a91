// Owned by notebooks/07_datasets.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 7c0fcf79f13d50d4
//! What notebooks/07_datasets.ipynb claims.

use minai::datasets::{DataLoaders, Images, OFFICIAL_SPLIT, fashion_mnist};

#[cfg(feature = "download")]
use minai::fashion_download::fetch_fashion;

// %% notebooks/07_datasets.ipynb fd-try
#[cfg(feature = "download")]
#[test]
fn a_login_page_never_becomes_a_data_file() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    let hotel = TcpListener::bind("127.0.0.1:0")?;
    let address = format!("http://{}", hotel.local_addr()?);
    std::thread::spawn(move || {
        for mut guest in hotel.incoming().flatten() {
            let question = BufReader::new(&guest).lines().map_while(Result::ok);
            question.take_while(|line| !line.is_empty()).for_each(drop);
            let _ = guest.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\nPlease log in.");
        }
    });
    let folder = std::env::temp_dir().join(format!("minai-lesson-7-{}", std::process::id()));
    let error = fetch_fashion(&address, &folder, &OFFICIAL_SPLIT).unwrap_err();
    println!("{:?}\n{} files in the folder", error.fault, std::fs::read_dir(&folder)?.count());
    assert!(error.to_string().contains("8d4fb7e6c68d591d4c3dfef9ec88bf0d belongs in the official split"));
    assert_eq!(std::fs::read_dir(&folder)?.count(), 0);
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

// %% notebooks/07_datasets.ipynb no-test
#[test]
fn only_the_training_set_says_mean_and_deviation() -> Result<(), Box<dyn std::error::Error>> {
    {
        let fashion = fashion_mnist()?;
        let ((mean, std), before) = (fashion.train.mean_std(), fashion.test.clone());
        let normal = fashion.normalized();
        let (zero, one) = normal.train.mean_std();
        assert!(zero.abs() < 1e-5 && (one - 1.0).abs() < 1e-5, "mean {zero}, deviation {one}");
        assert_eq!(normal.test, before.normalized(mean, std));
        let (near_zero, near_one) = normal.test.mean_std();
        println!("{}: test images have mean {near_zero:.4}, deviation {near_one:.4}", normal.split.name);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/07_datasets.ipynb dl-test
#[test]
fn an_epoch_has_every_image_once_with_its_label() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::generator::Generator;
        use minai::loader::LoaderOptions;
        let images = fashion_mnist()?.test;
        let key = |pixels: &[f32]| pixels.iter().map(|pixel| pixel.to_bits()).collect::<Vec<u32>>();
        let mut all: Vec<_> = images.iter().map(|(label, pixels)| (label, key(pixels))).collect();
        all.sort();
        let options = LoaderOptions { batch_size: 48, workers: 2, ..LoaderOptions::default() };
        let loaders = DataLoaders::new(images.clone(), images.clone(), options);
        let mut dealt = Vec::new();
        for (x, y) in loaders.train.epoch(&mut Generator::manual_seed(42)) {
            dealt.extend(Images::new(x, y).iter().map(|(label, pixels)| (label, key(pixels))));
        }
        assert_ne!(dealt[0], (images.labels[[0]], key(images.iter().next().unwrap().1)), "shuffled");
        dealt.sort();
        assert_eq!(dealt, all);
        let in_order: Vec<i64> = loaders
            .valid
            .epoch(&mut Generator::manual_seed(42))
            .flat_map(|(_, y)| y.iter().copied().collect::<Vec<_>>())
            .collect();
        assert_eq!(in_order, images.labels.as_slice().unwrap());
    }
    println!("passed");
    Ok(())
}
