//! Compares every part with what PyTorch computed.

use minai::array::Array;
use minai::guidance::guided;
use minai::levels::{Levels, Spacing};
use minai::nn::Pass;
use minai::samplers::lms;
use minai::stable_diffusion::{open_schedule, open_text_encoder, open_unet, open_vae};
use minai::state::{StateDict, Value, load};
use minai::tensor::{Tensor, cat, elements};
use minai::weights::Precision;
use ndarray::s;
use std::error::Error;
use std::path::Path;

/// Arrays of one file.
struct Reference(StateDict);

impl Reference {
    fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Reference(load(path)?.0))
    }

    fn tensor(&self, name: &str) -> Result<Tensor, String> {
        match self.0.get(name) {
            Some(Value::F32(array)) => Ok(array.clone().into()),
            _ => Err(format!("the reference has no floating-point numbers called `{name}`")),
        }
    }

    fn integers(&self, name: &str) -> Result<Array<i64>, String> {
        match self.0.get(name) {
            Some(Value::I64(array)) => Ok(array.clone()),
            _ => Err(format!("the reference has no integers called `{name}`")),
        }
    }
}

/// The largest difference, as a share of the largest reference value.
fn error(ours: &Tensor, theirs: &Tensor) -> Result<f64, String> {
    if ours.shape() != theirs.shape() {
        return Err(format!("shape {:?}, and {:?} in the reference", ours.shape(), theirs.shape()));
    }
    let largest = theirs.data.iter().fold(0_f32, |largest, x| largest.max(x.abs()));
    let pairs = ours.data.iter().zip(theirs.data.iter());
    // `max` would pass over a NaN.
    let difference =
        pairs.map(|(a, b)| (a - b).abs()).fold(0_f32, |largest, x| if x <= largest { largest } else { x });
    Ok(f64::from(difference) / f64::from(largest))
}

/// Prints the largest error of every part; fails if one is above 1e-4.
pub fn compare(folder: &Path, keep: Precision) -> Result<(), Box<dyn Error>> {
    let model = folder.join("tiny-sd");
    let (text_encoder, _) = open_text_encoder(model.join("text_encoder"), keep)?;
    let (unet, _) = open_unet(model.join("unet"), keep)?;
    let (vae, _) = open_vae(model.join("vae"), keep)?;
    let (schedule, _, _) = open_schedule(&model.join("scheduler").join("scheduler_config.json"))?;
    let mut pass = Pass::eval();
    let mut rows = Vec::new();

    let parts = Reference::open(&folder.join("sd_parts.safetensors"))?;
    let tokens = parts.integers("tokens")?;
    let embeddings = parts.tensor("text_embeddings")?;
    rows.push(("text embeddings", error(&text_encoder.forward(&tokens, &mut pass), &embeddings)?));
    let t: Vec<f32> = elements(&parts.integers("t")?).iter().map(|&t| t as f32).collect();
    let noise = unet.forward(&parts.tensor("x")?, &t, &embeddings, &mut pass);
    rows.push(("noise prediction", error(&noise, &parts.tensor("noise_pred")?)?));
    let posterior = vae.encode(&parts.tensor("image")?, &mut pass);
    rows.push(("latent mean", error(&posterior.mean, &parts.tensor("enc_mean")?)?));
    rows.push(("latent log variance", error(&posterior.log_variance, &parts.tensor("enc_logvar")?)?));
    rows.push((
        "decoded image",
        error(&vae.decode(&parts.tensor("z")?, &mut pass), &parts.tensor("decoded")?)?,
    ));

    let pipeline = Reference::open(&folder.join("sd_pipeline.safetensors"))?;
    let (context, trajectory) = (pipeline.tensor("context")?, pipeline.tensor("trajectory")?);
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(folder.join("manifest.json"))?)?;
    let scale =
        manifest["files"]["sd_pipeline"]["guidance"].as_f64().ok_or("the manifest has no guidance")?;
    let levels = Levels::exploding(&schedule, trajectory.shape()[0] - 1, Spacing::Linspace);
    let state = |i: usize| trajectory.slice(s![i, .., .., .., ..]);
    let (mut worst, mut calls) = (0_f64, 0);
    let mut see = |x: &Tensor| -> Result<(), String> {
        worst = worst.max(error(x, &state(calls))?);
        calls += 1;
        Ok(())
    };
    let last = lms(state(0), &levels.sigmas, |x, sigma| {
        see(x)?;
        let (input, time) = (levels.input(&cat(&[x, x], 0), sigma), levels.time(sigma) as f32);
        let both = unet.forward(&input, &[time], &context, &mut Pass::eval());
        Ok::<_, String>(guided(&both.slice(s![..1, .., .., ..]), &both.slice(s![1.., .., .., ..]), scale))
    })?;
    see(&last)?;
    rows.push(("guided loop, every latent", worst));
    let image = vae.decode(&(last / vae.scaling_factor()), &mut pass);
    let image = (image / 2.0 + 0.5).clamp(0.0, 1.0);
    rows.push(("guided loop, image", error(&image, &pipeline.tensor("image")?)?));

    let times = &levels.times[..levels.times.len() - 1];
    println!("LMS asks at {} times from {:.0} to {:.0}", times.len(), times[0], times[times.len() - 1]);
    for (name, error) in &rows {
        println!("{name:28} {error:.1e}");
    }
    let limit = if keep == Precision::Single { 1e-4 } else { f64::INFINITY };
    // Written so that NaN fails too.
    match rows.iter().all(|(_, error)| *error <= limit) {
        true => Ok(()),
        false => Err(format!("at least one error is above {limit:.0e}").into()),
    }
}
