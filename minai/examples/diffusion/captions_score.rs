//! Whether pictures are of what their captions ask for, by the true pictures of all captions.

use crate::captions::split;
use minai::emoji::Emoji;
use minai::prelude::*;
use minai::stable_diffusion::{Request, StableDiffusion};
use minai::tensor::elements;
use minai::text_to_image::latents_of;
use minai::weights::Precision;
use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

/// How a model of emoji is scored.
#[derive(clap::Args)]
pub struct Exam {
    /// The model's folder.
    #[arg(long)]
    model: PathBuf,
    /// How much more the caption counts than none.
    #[arg(long, default_value_t = 3.0)]
    guidance: f64,
    /// By which sampler.
    #[arg(long, default_value = "DPM++ 2M Karras")]
    sampler: String,
    /// Steps of the sampler.
    #[arg(long, default_value_t = 18)]
    steps: usize,
    /// Pictures of each caption.
    #[arg(long, default_value_t = 4)]
    seeds: u64,
}

const TONES: [&str; 5] = ["light skin", "medium-light skin", "medium skin", "medium-dark skin", "dark skin"];

/// The tone of skin in a caption that has one only.
fn tone(caption: &str) -> Option<usize> {
    let (_, tone) = caption.rsplit_once(", ")?;
    TONES.iter().position(|known| *known == tone)
}

/// Red, green and blue of the pixels of a picture (3, 64, 64).
fn colours(picture: &[u8]) -> impl Iterator<Item = [u8; 3]> {
    let n = picture.len() / 3;
    (0..n).map(move |i| [picture[i], picture[n + i], picture[2 * n + i]])
}

/// The five colours of skin and that of no tone: the commonest one in the picture of a raised hand.
fn palette(emoji: &Emoji) -> Result<Vec<[u8; 3]>, String> {
    let names = TONES.map(|tone| format!("raised hand, {tone}"));
    let names = names.iter().map(String::as_str).chain(["raised hand"]);
    let colour = |name: &str| {
        let i =
            emoji.captions.iter().position(|caption| caption == name).ok_or(format!("no emoji {name:?}"))?;
        let mut counts = std::collections::HashMap::new();
        let inked = colours(picture(emoji, i)).filter(|colour| *colour.iter().min().expect("three") < 250);
        inked.for_each(|colour| *counts.entry(colour).or_insert(0) += 1);
        Ok(counts.into_iter().max_by_key(|&(colour, count)| (count, colour)).expect("it has ink").0)
    };
    names.map(colour).collect()
}

fn picture(emoji: &Emoji, i: usize) -> &[u8] {
    let each = 3 * 64 * 64;
    &elements(&emoji.images)[i * each..][..each]
}

/// Means of 4 by 4 pixels: (n, 3 · 16 · 16)
fn coarse(x: &Tensor) -> Tensor {
    x.reshape((x.shape()[0], 3, 16, 4, 16, 4)).mean([3, 5]).reshape((x.shape()[0], -1))
}

/// How many pictures other than number `asked`, and not equal to it byte for byte, are nearer to `row`.
fn rank(emoji: &Emoji, all: &Tensor, row: &[f32], asked: usize) -> usize {
    let rows = elements(&all.data);
    let far = |i: usize| -> f32 {
        let other = &rows[i * row.len()..][..row.len()];
        row.iter().zip(other).map(|(x, y)| (x - y).powi(2)).sum()
    };
    let limit = far(asked);
    let same = |i: usize| picture(emoji, i) == picture(emoji, asked);
    (0..emoji.captions.len()).filter(|&i| far(i) < limit && !same(i)).count()
}

/// The tone of skin that a picture has where picture number `asked` shows skin: 5 is none of the five; `None` where there
/// is too little skin to say.
fn tone_of(emoji: &Emoji, palette: &[[u8; 3]], drawn: &[f32], asked: usize, tone: usize) -> Option<usize> {
    let near =
        |colour: [u8; 3]| (0..3).map(|c| colour[c].abs_diff(palette[tone][c]) as u32).sum::<u32>() < 24;
    let skin: Vec<usize> = colours(picture(emoji, asked))
        .enumerate()
        .filter(|(_, colour)| near(*colour))
        .map(|(i, _)| i)
        .collect();
    if skin.len() < 25 {
        return None;
    }
    let n = drawn.len() / 3;
    let mean = |c: usize| {
        let sum: f32 = skin.iter().map(|&i| (drawn[c * n + i].clamp(-1.0, 1.0) + 1.0) * 127.5).sum();
        sum / skin.len() as f32
    };
    let mean = [0, 1, 2].map(mean);
    let far = |colour: &[u8; 3]| -> f32 { (0..3).map(|c| (mean[c] - f32::from(colour[c])).powi(2)).sum() };
    (0..6).min_by(|&a, &b| far(&palette[a]).total_cmp(&far(&palette[b])))
}

pub fn exam(exam: &Exam) -> Result<(), Box<dyn Error>> {
    let (emoji, train, held) = split(None)?;
    let model = StableDiffusion::open(&exam.model, Precision::Single)?;
    let palette = palette(&emoji)?;
    let all: Vec<usize> = (0..emoji.captions.len()).collect();
    let pixels = coarse(&emoji.pixels(&all));
    let latents = Tensor::from(latents_of(&model.vae, &emoji)) * model.vae.scaling_factor();
    let latents = latents.reshape((all.len(), -1));
    let once =
        |&i: &usize| emoji.captions.iter().filter(|caption| **caption == emoji.captions[i]).count() == 1;
    let toned: Vec<usize> =
        train.iter().copied().filter(|&i| tone(&emoji.captions[i]).is_some()).filter(once).collect();
    let others: Vec<usize> =
        train.iter().copied().filter(|&i| !emoji.captions[i].contains(" skin")).collect();
    let some =
        |from: &[usize], n: usize| from.iter().copied().step_by(from.len() / n).take(n).collect::<Vec<_>>();
    let sets =
        [("held back", held), ("people, seen", some(&toned, 62)), ("others, seen", some(&others, 124))];

    for (name, asked) in sets {
        let (mut counts, mut tones, mut judged, start) = ([0; 4], 0, 0, Instant::now());
        for seed in 0..exam.seeds {
            for asked in asked.chunks(62) {
                let request = Request {
                    prompts: asked.iter().map(|&i| emoji.captions[i].clone()).collect(),
                    steps: exam.steps,
                    guidance: exam.guidance,
                    sampler: exam.sampler.parse()?,
                    seed,
                    size: (64, 64),
                    ..Request::default()
                };
                let drawn = model.generate(&request, |_| ControlFlow::Continue(()))?;
                let pictures = model.vae.decode(&(&drawn / model.vae.scaling_factor()), &mut Pass::eval());
                let (means, drawn) = (coarse(&pictures), drawn.reshape((asked.len(), -1)));
                for (k, &i) in asked.iter().enumerate() {
                    let row =
                        |x: &Tensor| elements(&x.data).chunks(x.shape()[1]).nth(k).expect("a row").to_vec();
                    let ranks =
                        [rank(&emoji, &pixels, &row(&means), i), rank(&emoji, &latents, &row(&drawn), i)];
                    for (space, rank) in ranks.into_iter().enumerate() {
                        counts[2 * space] += usize::from(rank == 0);
                        counts[2 * space + 1] += usize::from(rank < 5);
                    }
                    let Some(tone) = tone(&emoji.captions[i]) else { continue };
                    let each = 3 * 64 * 64;
                    let picture = &elements(&pictures.data)[k * each..][..each];
                    if let Some(found) = tone_of(&emoji, &palette, picture, i, tone) {
                        judged += 1;
                        tones += usize::from(found == tone);
                    }
                }
            }
        }
        let n = (asked.len() as u64 * exam.seeds) as f64;
        let [p1, p5, l1, l5] = counts.map(|count| count as f64 / n);
        print!("{name:13} nearest picture {p1:.2}, among five {p5:.2}; by latents {l1:.2}, {l5:.2}");
        if judged > 0 {
            print!("; tone right {:.2}", tones as f64 / f64::from(judged));
        }
        println!("; {:.2} s a picture", start.elapsed().as_secs_f64() / n);
    }
    Ok(())
}
