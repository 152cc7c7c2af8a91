//! Drawing with a trained model.

use crate::recipes::{CLASSES, Trained, Usual, open, pair, schedule};
use minai::diffusion::{draw, even_levels};
use minai::guidance::{DenoiseClass, Guidance};
use minai::inpaint::{keep, redraw};
use minai::io::picture;
use minai::noise::karras;
use minai::prelude::*;
use minai::sampling::Sampler;
use minai::state::Value;
use minai::super_resolution::Upscale;
use minai::tensor::{contiguous, elements};
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What is to be drawn. What is not given has the model's own value.
#[derive(clap::Args)]
pub struct Wanted {
    /// What `train` saved.
    #[arg(long)]
    model: PathBuf,
    /// Which class to draw, from 0 to 9, `all` for each in turn, or `none`. Only for models that know classes, such as
    /// `digits`.
    #[arg(long)]
    class: Option<String>,
    /// How many pictures: 64, or 1 of models that enlarge.
    #[arg(long)]
    n: Option<usize>,
    /// A picture to begin with. `upscaler` enlarges it four times; models that know classes redraw it, and want white
    /// strokes on black.
    #[arg(long)]
    init: Option<PathBuf>,
    /// How much of the way from noise to picture is walked, from 0 to 1: 1 leaves nothing of --init where there is no mask.
    #[arg(long, requires = "init")]
    strength: Option<f64>,
    /// A picture as large as --init: what is black in it stays, what is white is drawn anew.
    #[arg(long, requires = "init")]
    mask: Option<PathBuf>,
    /// How far to go beyond what the class changes: 1 is not at all.
    #[arg(long)]
    guidance: Option<f64>,
    /// The lowest and the highest noise level with guidance: `0.2,10`; `0,1000` for all.
    #[arg(long, value_name = "LOW,HIGH", value_parser = pair)]
    guidance_range: Option<(f64, f64)>,
    /// The sampler, by any of its names: heun, dpmpp_2m, "Euler a" ...
    #[arg(long)]
    sampler: Option<String>,
    /// Steps from noise to picture, 1 to 1000.
    #[arg(long)]
    steps: Option<usize>,
    /// For models that predict the noise, `plain` and `unet`. 0: always the same picture from the same noise (DDIM); 1: new
    /// noise in each step (DDPM), which is usual.
    #[arg(long)]
    eta: Option<f64>,
    /// The noise comes from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The picture's file: .png, or .svg for a grid of digits; or .safetensors, for `images` (n, c, h, w) from -1 to 1 and,
    /// of models that know classes, `labels` (n).
    #[arg(long)]
    out: PathBuf,
}

/// An option that only some models have.
struct Special {
    name: &'static str,
    given: bool,
    models: &'static [&'static str],
}

fn check(wanted: &Wanted, trained: &Trained) -> Result<(), String> {
    let Wanted { class, n, init, strength, mask, guidance, guidance_range, sampler, steps, eta, .. } = wanted;
    if *n == Some(0) || !(1..=1000).contains(&steps.unwrap_or(1)) {
        return Err("--n is at least 1, --steps 1 to 1000".into());
    }
    let share = |value: &Option<f64>| (0.0..=1.0).contains(&value.unwrap_or(0.0));
    if !guidance.unwrap_or(1.0).is_finite() || !share(eta) || !share(strength) {
        return Err("--guidance is a finite number, --eta and --strength are from 0 to 1".into());
    }
    const WITH_CLASSES: &[&str] = &["digits", "clothes"];
    const NOISE: &[&str] = &["plain", "unet"];
    const BEGUN: &[&str] = &["digits", "clothes", "upscaler"];
    let model = match trained {
        Trained::Noise(_) => "plain",
        Trained::Classes(_) => "digits",
        Trained::Upscaler(_) => "upscaler",
    };
    let special = |name, given, models| Special { name, given, models };
    let options = [
        special("class", class.is_some(), WITH_CLASSES),
        special("guidance", guidance.is_some(), WITH_CLASSES),
        special("guidance-range", guidance_range.is_some(), WITH_CLASSES),
        special("strength", strength.is_some(), WITH_CLASSES),
        special("mask", mask.is_some(), WITH_CLASSES),
        special("init", init.is_some(), BEGUN),
        special("sampler", sampler.is_some(), BEGUN),
        special("eta", eta.is_some(), NOISE),
    ];
    match options.iter().find(|option| option.given && !option.models.contains(&model)) {
        Some(Special { name, models, .. }) => {
            Err(format!("--{name} is for the models {}", models.join(", ")))
        }
        None if model == "upscaler" && init.is_none() => Err("--init names the picture to enlarge".into()),
        None => Ok(()),
    }
}

/// The class of each picture; [`CLASSES`] stands for none.
fn classes(wanted: &Wanted, n: usize) -> Result<Vec<i64>, String> {
    let usual = if wanted.init.is_some() { "none" } else { "all" };
    match wanted.class.as_deref().unwrap_or(usual) {
        "all" => Ok((0..n).map(|i| (i % CLASSES) as i64).collect()),
        "none" => Ok(vec![CLASSES as i64; n]),
        text => match text.parse() {
            Ok(class) if (0..CLASSES as i64).contains(&class) => Ok(vec![class; n]),
            _ => Err(format!("--class {text}: classes are 0 to {}, `all` or `none`", CLASSES - 1)),
        },
    }
}

/// A picture (h, w, 3) as a tensor (1, 3, h, w) from -1 to 1.
fn tensor_of(picture: &Array<u8>) -> Tensor {
    let values = picture.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
    Tensor::from(Array::new(values, picture.shape())).permute(&[2, 0, 1]).unsqueeze(0)
}

/// What drawing begins with: images (1, 1, 28, 28).
struct Beginning {
    /// From -1 to 1.
    image: Tensor,
    /// 1 where it stays.
    mask: Option<Tensor>,
}

fn beginning(wanted: &Wanted) -> Result<Option<Beginning>, Box<dyn Error>> {
    let Some(path) = &wanted.init else { return Ok(None) };
    let grey = |picture: &Array<u8>| tensor_of(&picture::fill(picture, (28, 28))).mean_keepdim([1]);
    let init = picture::read(path)?;
    let mut mask = None;
    if let Some(path) = &wanted.mask {
        let picture = picture::read(path)?;
        let size = |picture: &Array<u8>| format!("{}x{}", picture.shape()[1], picture.shape()[0]);
        if picture.shape() != init.shape() {
            let (is, wanted) = (size(&picture), size(&init));
            return Err(format!("{}: has {is} pixels, and --init has {wanted}", path.display()).into());
        }
        mask = Some((1.0 - grey(&picture)) / 2.0);
    }
    Ok(Some(Beginning { image: grey(&init), mask }))
}

/// How many pictures are drawn at a time: more need more memory, and take as long.
const AT_A_TIME: usize = 100;

/// Draws with a model that knows classes.
fn draw_classes(
    task: &DenoiseClass,
    wanted: &Wanted,
    mut usual: Usual,
    labels: &[i64],
) -> Result<Tensor, Box<dyn Error>> {
    let begin = beginning(wanted)?;
    if begin.is_some() {
        // What is there already keeps the variety, and the class has to reach what is added at every level.
        usual.range = Guidance::default().range;
    }
    if wanted.mask.is_some() {
        // Beside a part that stays, new noise in each step lets the rest fit it better (lesson 25).
        (usual.steps, usual.sampler) = (40, "euler_ancestral".into());
    }
    let steps = wanted.steps.unwrap_or(usual.steps);
    let sampler: Sampler = wanted.sampler.as_ref().unwrap_or(&usual.sampler).parse()?;
    let strength = wanted.strength.unwrap_or(if wanted.mask.is_some() { 1.0 } else { 0.5 });
    let from = if begin.is_some() { ((1.0 - strength) * steps as f64).round() as usize } else { 0 };
    let sigmas = &karras(steps, 0.02, 40.0, 7.0)[from..];
    let guidance = Guidance {
        scale: if labels[0] == CLASSES as i64 { 1.0 } else { wanted.guidance.unwrap_or(usual.guidance) },
        range: wanted.guidance_range.unwrap_or(usual.range),
        ..Guidance::default()
    };
    let mut rng = Generator::manual_seed(wanted.seed);
    let mut draw = |labels: &[i64]| {
        let classes = Array::new(labels.to_vec(), &[labels.len()]);
        let nothing = Tensor::zeros([labels.len(), 1, 28, 28]);
        let start = begin.as_ref().map_or(nothing.clone(), |begin| &nothing + &begin.image);
        let image = |x: &Tensor, sigma: f64| {
            let guess = task.denoise(x, sigma, &classes, &guidance);
            match &begin {
                Some(Beginning { image, mask: Some(mask) }) => keep(&guess, image, mask),
                _ => guess,
            }
        };
        redraw(&start, (sampler, sigmas), image, &mut rng)
    };
    if sigmas.len() < 2 {
        return Err("--strength leaves no step to take; more --steps or more strength does".into());
    }
    let parts: Vec<Tensor> = labels.chunks(AT_A_TIME).map(&mut draw).collect();
    Ok(cat(&parts.iter().collect::<Vec<_>>(), 0))
}

/// The largest side of a picture that is enlarged.
const LARGEST: usize = 512;

/// Enlarges a picture, `n` times from different noise: (n, 3, 4 h, 4 w).
fn enlarge(task: &Upscale, init: &Path, wanted: &Wanted, n: usize) -> Result<Tensor, Box<dyn Error>> {
    let picture = picture::read(init)?;
    let [h, w] = [picture.shape()[0] / 2 * 2, picture.shape()[1] / 2 * 2]; // the U-Net's levels want even sides
    if h == 0 || w == 0 || h.max(w) > LARGEST {
        let what = format!(
            "has {}x{} pixels; 2 to {LARGEST} on each side are enlarged",
            picture.shape()[1],
            picture.shape()[0]
        );
        return Err(format!("{}: {what}", init.display()).into());
    }
    let sampler: Sampler = wanted.sampler.as_deref().unwrap_or("dpmpp_2m").parse()?;
    let sigmas = karras(wanted.steps.unwrap_or(18), 0.01, 10.0, 7.0);
    let small = tensor_of(&picture).slice(ndarray::s![.., .., ..h, ..w]);
    let mut rng = Generator::manual_seed(wanted.seed);
    let drawn: Vec<Tensor> = (0..n).map(|_| task.draw(&small, (sampler, &sigmas), &mut rng)).collect();
    Ok(cat(&drawn.iter().collect::<Vec<_>>(), 0))
}

/// Pictures (n, 3, h, w), from -1 to 1, side by side in a file.
fn save_side_by_side(path: &Path, images: &Tensor) -> Result<(), Box<dyn Error>> {
    let (n, h, w) = (images.shape()[0], images.shape()[2], images.shape()[3]);
    let row = images.permute(&[2, 0, 3, 1]).reshape((h, n * w, 3));
    let row = contiguous(&row.data);
    let bytes = elements(&row).iter().map(|value| ((value + 1.0) * 127.5).round() as u8);
    Ok(picture::write(path, &Array::new(bytes.collect(), &[h, n * w, 3]), &[])?)
}

/// Whether the file can be written, as far as that can be told before there is anything to write.
fn check_out(wanted: &Wanted, trained: &Trained) -> Result<(), Box<dyn Error>> {
    let folder = wanted.out.parent().filter(|folder| !folder.as_os_str().is_empty());
    if folder.is_some_and(|folder| !folder.is_dir()) {
        return Err(format!("--out {}: there is no such folder", wanted.out.display()).into());
    }
    if let (Trained::Upscaler(_), false) = (trained, is_safetensors(&wanted.out)) {
        picture::check_name(&wanted.out)?;
    }
    Ok(())
}

fn is_safetensors(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "safetensors")
}

pub fn sample(wanted: &Wanted) -> Result<(), Box<dyn Error>> {
    let (recipe, trained, usual) = open(&wanted.model)?;
    check(wanted, &trained)?;
    let n = wanted.n.unwrap_or(if let Trained::Upscaler(_) = trained { 1 } else { 64 });
    let labels = classes(wanted, n)?;
    check_out(wanted, &trained)?;
    let start = Instant::now();
    let images = match &trained {
        Trained::Noise(task) => {
            let levels = even_levels(&schedule(), wanted.steps.unwrap_or(100));
            let mut rng = Generator::manual_seed(wanted.seed);
            draw(&task.model, &[n, 1, 28, 28], &levels, wanted.eta.unwrap_or(1.0), &mut rng)
        }
        Trained::Classes(task) => draw_classes(task, wanted, usual, &labels)?,
        Trained::Upscaler(task) => enlarge(task, wanted.init.as_deref().expect("checked above"), wanted, n)?,
    };
    println!("{n} picture{} in {:.1} s", if n == 1 { "" } else { "s" }, start.elapsed().as_secs_f64());
    if is_safetensors(&wanted.out) {
        let mut state: BTreeMap<String, Value> = [("images".to_owned(), Value::F32(images.data))].into();
        if let Trained::Classes(_) = trained {
            state.insert("labels".to_owned(), Value::I64(Array::new(labels, &[n])));
        }
        return Ok(save(&wanted.out, &state, &Metadata::default())?);
    }
    if let Trained::Upscaler(_) = trained {
        return save_side_by_side(&wanted.out, &images);
    }
    let pictures = elements(&images.data).chunks(784).map(|pixels| ("", pixels.to_vec()));
    let columns = Some(n.min(if n.is_multiple_of(10) { 10 } else { 16 }));
    let look = Look { columns, range: Some((-1.0, 1.0)), ..Look::default() };
    let title = format!("Drawn by the model {}", recipe.name);
    Ok(show_images(&title, pictures, (28, 28), look).save(&wanted.out)?)
}
