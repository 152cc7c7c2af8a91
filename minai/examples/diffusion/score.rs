//! Numbers for a heap of drawings, by lesson 19's measures.

use minai::denoiser::ExactDenoiser;
use minai::judge::Judge;
use minai::loader::rows;
use minai::prelude::*;
use minai::quality::{frechet_distance, precision_recall};
use minai::state::Value;
use std::error::Error;
use std::path::PathBuf;

/// What is to be scored.
#[derive(clap::Args)]
pub struct Heap {
    /// What `sample --class all --out FILE.safetensors` wrote: `images` and `labels`.
    images: PathBuf,
    /// What the drawings should look like.
    #[arg(long, value_enum, default_value = "digits")]
    data: Data,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Data {
    /// MNIST.
    Digits,
    /// Fashion-MNIST.
    Clothes,
}

/// Pictures (n, 1, 28, 28) from -1 to 1 with their classes.
struct Pictures {
    images: Tensor,
    labels: Array<i64>,
}

impl Pictures {
    fn of(set: &Images) -> Self {
        Pictures { images: Tensor::from(set.images.clone()) * 2.0 - 1.0, labels: set.labels.clone() }
    }

    /// Of each class as many as are in `labels`.
    fn like(&self, labels: &Array<i64>) -> Result<Self, String> {
        let mut left: Vec<Vec<usize>> = vec![vec![]; 10];
        (0..self.labels.len()).rev().for_each(|i| left[self.labels[[i].as_slice()] as usize].push(i));
        let chosen: Option<Vec<usize>> = labels.iter().map(|&label| left[label as usize].pop()).collect();
        let chosen = chosen
            .ok_or("there are not as many real pictures of a class: MINAI_FULL=1 uses the full data")?;
        Ok(Pictures {
            images: Tensor::from(rows(&self.images.data, &chosen)),
            labels: rows(&self.labels, &chosen),
        })
    }

    fn features(&self, judge: &Judge) -> Tensor {
        judge.features(&self.images, &mut Pass::eval())
    }

    /// The share that the judge reads as the class that it should be.
    fn read_right(&self, judge: &Judge) -> f64 {
        let read = judge.scores(&self.images, &mut Pass::eval()).argmax(1);
        let right = read.iter().zip(self.labels.iter()).filter(|(read, label)| read == label);
        right.count() as f64 / self.labels.len() as f64
    }
}

fn drawings(heap: &Heap) -> Result<Pictures, Box<dyn Error>> {
    let file = heap.images.display();
    let (mut state, _) = load(&heap.images)?;
    let (Some(Value::F32(images)), Some(Value::I64(labels))) =
        (state.remove("images"), state.remove("labels"))
    else {
        return Err(format!("{file}: has no `images` with `labels`: draw with `sample --out {file}`").into());
    };
    if images.shape() != [labels.len(), 1, 28, 28] || labels.iter().any(|label| !(0..10).contains(label)) {
        return Err(format!("{file}: wanted are images (n, 1, 28, 28) of the classes 0 to 9").into());
    }
    if labels.len() < 130 {
        return Err(format!("{file}: at least 130 images are needed, as many as there are features").into());
    }
    Ok(Pictures { images: images.into(), labels })
}

/// The median, and the least, of the distances to the nearest of `known`.
fn nearest(known: &ExactDenoiser, pictures: &Pictures) -> (f32, f32) {
    let all: Vec<usize> = (0..pictures.labels.len()).collect();
    let of = |some: &[usize]| known.nearest(&rows(&pictures.images.data, some).into());
    let mut distances: Vec<f32> = all.chunks(200).flat_map(of).map(|(_, distance)| distance).collect();
    distances.sort_by(f32::total_cmp);
    (distances[distances.len() / 2], distances[0])
}

pub fn score(heap: &Heap) -> Result<(), Box<dyn Error>> {
    let drawn = drawings(heap)?;
    let (train, valid, file) = match heap.data {
        Data::Digits => {
            let data = mnist()?;
            (data.train, data.valid, "models/judge.safetensors")
        }
        Data::Clothes => {
            let data = fashion_mnist()?;
            (data.train, data.test, "models/judge-clothes.safetensors")
        }
    };
    let folder = minai::io::data::data_folder().ok_or("the course's folder data is not here or above")?;
    let judge = Judge::new(&mut Generator::manual_seed(0));
    load_state_dict(&judge, &load(folder.join(file))?.0)?;

    let known = Pictures::of(&train);
    let (seen, unseen) = (known.like(&drawn.labels)?, Pictures::of(&valid).like(&drawn.labels)?);
    let known = ExactDenoiser::new(&known.images.data);
    let reference = unseen.features(&judge);
    let right =
        |pictures: &Pictures| format!("read as their class {:5.1} %", 100.0 * pictures.read_right(&judge));
    let copies = |pictures: &Pictures| {
        let (median, least) = nearest(&known, pictures);
        format!("nearest training picture: median {median:.2}, least {least:.2}")
    };
    let against = |pictures: &Pictures| {
        let features = pictures.features(&judge);
        let (precision, recall) = precision_recall(&reference, &features, 3);
        let fid = frechet_distance(&features, &reference);
        (fid, format!("FID {fid:.2}, precision {precision:.2}, recall {recall:.2}"))
    };
    println!(
        "{} pictures; FID, precision and recall are against as many real ones that no training has seen",
        drawn.labels.len()
    );
    let (fid, text) = against(&drawn);
    println!("drawn:                 {}, {text}, {}", right(&drawn), copies(&drawn));
    let (floor, text) = against(&seen);
    println!("real, from training:   {}, {text}", right(&seen));
    println!("real, not seen:        {}, {}", right(&unseen), copies(&unseen));
    println!("FID of the drawings is {:.2} times that of real pictures", fid / floor);
    Ok(())
}
