// Owned by notebooks/35_pipeline.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash e6d5175d5bc37049
//! Stable Diffusion v1 as a whole: from a prompt to a picture (Rombach et al. 2022, <https://arxiv.org/abs/2112.10752>).

// %% notebooks/35_pipeline.ipynb pi-picture
use minai::array::Array;
use minai::tensor::Tensor;

/// A picture: rows from top to bottom, each pixel three bytes, red, green and blue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Rows.
    pub height: usize,
    /// Pixels in a row.
    pub width: usize,
    /// The bytes: three times `height` times `width`.
    pub rgb: Vec<u8>,
}

// %% notebooks/35_pipeline.ipynb pi-picture-b
impl Picture {
    /// The pictures in a tensor (n, 3, height, width) of values from -1, which becomes 0, to 1, which becomes 255.
    /// Values beyond these are clamped.
    ///
    /// # Panics
    /// If the shape is another.
    #[track_caller]
    pub fn from_tensor(images: &Tensor) -> Vec<Picture> {
        let &[_, 3, height, width] = images.shape() else {
            panic!("Picture::from_tensor: (n, 3, height, width) expected, shape {:?}", images.shape())
        };
        let byte = |x: f32| ((x / 2.0 + 0.5).clamp(0.0, 1.0) * 255.0).round() as u8;
        // Channels last: a pixel's three numbers lie side by side in a picture.
        let pixels = images.permute(&[0, 2, 3, 1]).data;
        let bytes: Vec<u8> = pixels.iter().map(|&x| byte(x)).collect();
        let each = 3 * height * width;
        bytes.chunks(each.max(1)).map(|rgb| Picture { height, width, rgb: rgb.to_vec() }).collect()
    }
}

// %% notebooks/35_pipeline.ipynb pi-picture-c
impl Picture {
    /// The picture as a tensor (1, 3, height, width) from -1 to 1.
    ///
    /// # Panics
    /// If there are not three bytes for each pixel.
    #[track_caller]
    pub fn to_tensor(&self) -> Tensor {
        let numbers = self.rgb.iter().map(|&byte| f32::from(byte) / 127.5 - 1.0).collect();
        let pixels = Tensor::from(Array::new(numbers, &[1, self.height, self.width, 3]));
        pixels.permute(&[0, 3, 1, 2])
    }
}

// %% notebooks/35_pipeline.ipynb gu-rescaled
/// The guided prediction rescaled to the standard deviation of `t`, mixed with the prediction as it was (Lin et al. 2023,
/// equations 15 and 16): strong guidance makes the values large and the picture glaring. `share` is the share of the
/// rescaled one, from 0 to 1; 0.7 is usual.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn rescaled(guided: &Tensor, t: &Tensor, share: f64) -> Tensor {
    // One deviation for each sample of the batch.
    let axes: Vec<isize> = (1..t.shape().len() as isize).collect();
    let factor = t.std_keepdim(&axes[..]) / guided.std_keepdim(&axes[..]);
    guided * (factor * share as f32 + (1.0 - share) as f32)
}

// %% notebooks/35_pipeline.ipynb sl-slerp
/// From `a` to `b` on a circle (spherical interpolation, Shoemake 1985): `part` 0 is `a`, 1 is `b`. Half-way between two
/// noises a straight line would give values with half the variance, which is no noise that the network knows.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn slerp(a: &Tensor, b: &Tensor, part: f64) -> Tensor {
    assert!(a.shape() == b.shape(), "slerp: shapes {:?} and {:?}", a.shape(), b.shape());
    let dot = |x: &Tensor, y: &Tensor| -> f64 {
        x.data.iter().zip(y.data.iter()).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    let angle = (dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()).clamp(-1.0, 1.0).acos();
    if angle.is_nan() || angle.sin() < 1e-4 {
        return a * (1.0 - part) as f32 + b * part as f32; // side by side: the circle is a line
    }
    let weight = |part: f64| ((part * angle).sin() / angle.sin()) as f32;
    a * weight(1.0 - part) + b * weight(part)
}

// %% notebooks/35_pipeline.ipynb op-parts
use minai::clip::{self, ClipConfig, ClipText};
use minai::io::config::{Config, Supported};
use minai::io::file::FileError;
use minai::levels::FinalLevel;
use minai::nn::Module;
use minai::noise::NoiseSchedule;
use minai::tokenizer::Tokenizer;
use minai::unet::{UNet, UNetConfig};
use minai::vae::{self, AutoencoderKl, VaeConfig};
use minai::weights::{LoadReport, Pending, Precision, load_weights};
use std::path::{Path, PathBuf};

/// Why a part's folder has no weights that are read here: what it has instead.
fn without_weights(folder: &Path, names: &[String]) -> String {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return "there is no such folder; name the folder that holds model_index.json and one folder for each part".into();
    };
    let mut there: Vec<String> =
        entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect();
    let ends = [".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".onnx"];
    there.retain(|name| ends.iter().any(|end| name.ends_with(end)));
    there.sort();
    let other = if there.is_empty() { String::new() } else { format!(" (there is {})", there.join(", ")) };
    let what = format!("has none of {}{other}; ", names.join(", "));
    what + "rename the .safetensors file that you mean, or fetch one of these. (A .bin, .pt or .ckpt file is not read here, since opening one can run any program; Python converts it: safetensors.torch.save_file(torch.load(file, weights_only=True), other))"
}

/// The file of weights in a part's folder: in single precision if it is there, else in half.
fn weights_file(folder: &Path, stem: &str) -> Result<PathBuf, FileError> {
    let kinds = ["", ".fp16", ".bf16"];
    let names = kinds.map(|kind| format!("{stem}{kind}.safetensors"));
    // Of large models there are several files, with an index.
    let indices = kinds.map(|kind| format!("{stem}.safetensors.index{kind}.json"));
    let found = names.iter().chain(&indices).map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| FileError::new(folder, without_weights(folder, &names)))
}

// %% notebooks/35_pipeline.ipynb op-prediction
/// What a U-Net was trained to predict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prediction {
    /// The noise n in x₀ + σ n: `epsilon`.
    Noise,
    /// v = (n - σ x₀) / √(1 + σ²): `v_prediction` (Salimans and Ho 2022, appendix D).
    Velocity,
}

impl Prediction {
    /// The noise in x₀ + σ n, given what the network saw, (x₀ + σ n) / √(1 + σ²), and what it said.
    pub fn noise(self, input: &Tensor, output: Tensor, sigma: f64) -> Tensor {
        match self {
            Prediction::Noise => output,
            // n = α v + σ α input, with α = 1 / √(1 + σ²).
            Prediction::Velocity => (output + input * sigma as f32) / sigma.hypot(1.0) as f32,
        }
    }
}

// %% notebooks/35_pipeline.ipynb op-schedule
/// What a scheduler's configuration may also ask for, and the only value that is known here.
const SUPPORTED: [(&str, Supported); 2] =
    [("trained_betas", Supported::Unset), ("rescale_betas_zero_snr", Supported::Bool(false))];

/// The noise levels of `scheduler/scheduler_config.json`, where DDIM and PNDM end, and what the U-Net predicts.
pub fn open_schedule(path: &Path) -> Result<(NoiseSchedule, FinalLevel, Prediction), FileError> {
    let config = Config::open(path)?;
    config.check(&SUPPORTED, "the noise levels here can't be made by")?;
    let prediction = match config.text_or("prediction_type", "epsilon")?.as_str() {
        "epsilon" => Prediction::Noise,
        "v_prediction" => Prediction::Velocity,
        other => {
            let what =
                format!("is {other:?}; networks that predict \"epsilon\" or \"v_prediction\" are used here");
            return Err(config.error("prediction_type", &what));
        }
    };
    let steps = config.usize("num_train_timesteps")?;
    let (name, start, end) =
        (config.text("beta_schedule")?, config.f64("beta_start")?, config.f64("beta_end")?);
    let schedule = NoiseSchedule::by_name(&name, steps, start, end)
        .map_err(|error| FileError::new(path, error.to_string()))?;
    let last =
        if config.bool_or("set_alpha_to_one", false)? { FinalLevel::Zero } else { FinalLevel::Weakest };
    Ok((schedule, last, prediction))
}

// %% notebooks/35_pipeline.ipynb op-sampler
use minai::levels::Spacing;
use minai::sampling::Sampler;

/// The classes of diffusers, the sampler that each one is, and whether it counts times from the first unless it is told.
const CLASSES: [(&str, &str, bool); 12] = [
    ("DDIMScheduler", "ddim", true),
    ("DDPMScheduler", "ddpm", true),
    ("PNDMScheduler", "pndm", true),
    ("LMSDiscreteScheduler", "lms", false),
    ("EulerDiscreteScheduler", "euler", false),
    ("EulerAncestralDiscreteScheduler", "euler_a", false),
    ("HeunDiscreteScheduler", "heun", false),
    ("KDPM2DiscreteScheduler", "dpm_2", false),
    ("DPMSolverMultistepScheduler", "dpmpp_2m", false),
    ("DEISMultistepScheduler", "deis", false),
    ("UniPCMultistepScheduler", "unipc", false),
    ("LCMScheduler", "lcm", true),
];

// %% notebooks/35_pipeline.ipynb op-sampler-b
/// The sampler of `scheduler/scheduler_config.json`, with its times; `None` for a class that is not known here.
pub fn open_sampler(path: &Path) -> Result<Option<Sampler>, FileError> {
    let config = Config::open(path)?;
    let class = config.text_or("_class_name", "")?;
    let Some((_, name, counts)) = CLASSES.iter().find(|(known, ..)| *known == class) else { return Ok(None) };
    let stochastic = config.text_or("algorithm_type", "")?.starts_with("sde-");
    let name = if stochastic && *name == "dpmpp_2m" { "dpmpp_2m_sde" } else { name };
    let sampler: Sampler = name.parse().expect("a name of the list");
    let usual = if *counts { "leading" } else { "linspace" };
    let spacing = match config.text_or("timestep_spacing", usual)?.as_str() {
        "linspace" => Spacing::Linspace,
        "leading" => Spacing::Leading { offset: config.usize_or("steps_offset", 0)? },
        "trailing" => Spacing::Trailing,
        other => {
            let what = format!("is {other:?}, where linspace, leading or trailing belongs; correct the file");
            return Err(config.error("timestep_spacing", &what));
        }
    };
    let karras = config.bool_or("use_karras_sigmas", false)?;
    Ok(Some(sampler.spaced(if karras { Spacing::Karras } else { spacing })))
}

// %% notebooks/35_pipeline.ipynb op-opens
/// Fills a network from the file `stem` in its folder, under names that `rename` knows, without what programs that train
/// put before them.
fn fill<M: Module>(
    model: M,
    (folder, stem): (&Path, &str),
    precision: Precision,
    rename: &dyn Fn(&str) -> Option<String>,
) -> Result<(M, LoadReport), FileError> {
    let plain = |name: &str| rename(name.trim_start_matches("module.").trim_start_matches("_orig_mod."));
    let loaded = load_weights(&model, weights_file(folder, stem)?, precision, &plain)?;
    Ok((model, loaded))
}

/// The configuration in a part's folder.
fn open_config(folder: &Path) -> Result<Config, FileError> {
    Config::open(folder.join("config.json"))
}

// %% notebooks/35_pipeline.ipynb op-opens-b
/// Opens the folder of a text encoder: `config.json` and `model.safetensors`.
///
/// # Errors
/// If a file is missing or damaged, or the configuration asks for what is not built here, or contradicts the weights.
pub fn open_text_encoder(
    folder: impl AsRef<Path>,
    precision: Precision,
) -> Result<(ClipText, LoadReport), FileError> {
    let folder = folder.as_ref();
    let whole = open_config(folder)?;
    // Some files hold all of CLIP, and their configuration has one for each half.
    let config = ClipConfig::from_config(&whole.section("text_config").unwrap_or(whole))?;
    // Some models do without the last blocks, which their files may still have.
    let beyond = |name: &String| {
        let number =
            name.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        number.is_some_and(|number: usize| number >= config.layers)
    };
    let rename = |name: &str| clip::rename(name).filter(|name| !beyond(name));
    fill(ClipText::new(&mut Pending, &config), (folder, "model"), precision, &rename)
}

// %% notebooks/35_pipeline.ipynb op-open-networks
/// The file of weights of U-Net and autoencoder.
const WEIGHTS: &str = "diffusion_pytorch_model";

/// Opens the folder of a U-Net: `config.json` and `diffusion_pytorch_model.safetensors`.
///
/// # Errors
/// As [`open_text_encoder`].
pub fn open_unet(folder: impl AsRef<Path>, precision: Precision) -> Result<(UNet, LoadReport), FileError> {
    let folder = folder.as_ref();
    let config = UNetConfig::from_config(&open_config(folder)?)?;
    fill(UNet::new(&mut Pending, &config), (folder, WEIGHTS), precision, &|name| Some(name.to_owned()))
}

/// Opens the folder of an autoencoder: `config.json` and `diffusion_pytorch_model.safetensors`.
///
/// # Errors
/// As [`open_text_encoder`].
pub fn open_vae(
    folder: impl AsRef<Path>,
    precision: Precision,
) -> Result<(AutoencoderKl, LoadReport), FileError> {
    let folder = folder.as_ref();
    let config = VaeConfig::from_config(&open_config(folder)?)?;
    fill(AutoencoderKl::new(&mut Pending, &config), (folder, WEIGHTS), precision, &vae::rename)
}

// %% notebooks/35_pipeline.ipynb op-type
/// The five parts of a Stable Diffusion v1.
pub struct StableDiffusion {
    /// Text to token ids.
    pub tokenizer: Tokenizer,
    /// Token ids to embeddings.
    pub text_encoder: ClipText,
    /// Noisy latents, time and embeddings to the noise in the latents.
    pub unet: UNet,
    /// Pictures to latents, and back.
    pub vae: AutoencoderKl,
    /// The noise levels of its training.
    pub schedule: NoiseSchedule,
    /// How DDIM and PNDM end with it.
    pub last: FinalLevel,
    /// The sampler that its scheduler's configuration names.
    pub sampler: Option<Sampler>,
    /// What the U-Net was trained to predict.
    pub prediction: Prediction,
    /// Height and width of the pictures that it was trained with, in pixels.
    pub size: (usize, usize),
    /// What loading took: text encoder, U-Net, autoencoder.
    pub loaded: Vec<LoadReport>,
}

impl std::fmt::Debug for StableDiffusion {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let (text, unet, vae) = (&self.text_encoder.config, self.unet.config(), &self.vae.config);
        let mut fields = f.debug_struct("StableDiffusion");
        fields.field("text_encoder", text).field("unet", unet).field("vae", vae).finish_non_exhaustive()
    }
}

// %% notebooks/35_pipeline.ipynb op-fit
/// Whether a U-Net draws from a prompt alone, by its channels: others are shown more than noisy latents.
///
/// # Errors
/// If not: what the model is instead.
pub fn check_channels(unet: &UNetConfig) -> Result<(), String> {
    let what = match (unet.in_channels, unet.out_channels) {
        (9, 4) => "an inpainting model (9 channels)",
        (8, 4) => "a model that changes pictures by instruction (8 channels)",
        (5 | 7, 4) => "a model that is shown a depth map or a small picture",
        _ => return Ok(()),
    };
    Err(format!("is {what}; only models that draw from a prompt alone (4 channels) are drawn with"))
}

/// Whether the parts are of one model.
fn check_parts(
    folder: &Path,
    tokenizer: &Tokenizer,
    text: &ClipText,
    unet: &UNet,
    vae: &AutoencoderKl,
) -> Result<(), FileError> {
    let (sizes, latents) = (unet.config(), vae.config.latent_channels);
    check_channels(sizes).map_err(|what| FileError::new(folder, what))?;
    let pairs = [
        (
            "width of text_encoder and cross_attention_dim of unet",
            text.config.width,
            sizes.cross_attention_dim,
        ),
        ("latent_channels of vae and in_channels of unet", latents, sizes.in_channels),
        ("latent_channels of vae and out_channels of unet", latents, sizes.out_channels),
    ];
    if let Some((what, one, other)) = pairs.into_iter().find(|(_, one, other)| one != other) {
        let what = format!("{what}: {one} and {other}; these folders are of different models");
        return Err(FileError::new(folder, what));
    }
    let (all, positions) = (text.config.vocabulary, text.config.positions);
    if all < tokenizer.vocabulary_size() || positions < tokenizer.context() {
        let what = format!(
            "text_encoder has {all} tokens and {positions} positions; the tokenizer makes {} tokens and {} positions of a text",
            tokenizer.vocabulary_size(),
            tokenizer.context()
        );
        return Err(FileError::new(folder, what));
    }
    Ok(())
}

// %% notebooks/35_pipeline.ipynb op-whole
impl StableDiffusion {
    /// Opens a folder in diffusers' layout: `model_index.json`, and the folders `tokenizer`, `text_encoder`, `unet`,
    /// `vae` and `scheduler`. A safety checker is not used.
    ///
    /// # Errors
    /// If a file is missing or damaged, a configuration asks for what is not built here, or the parts do not fit each
    /// other. The error names the file, and what to do.
    pub fn open(folder: impl AsRef<Path>, precision: Precision) -> Result<Self, FileError> {
        let folder = folder.as_ref();
        let index = Config::open(folder.join("model_index.json"))?;
        let class = index.text("_class_name")?;
        if !class.starts_with("StableDiffusion") || class.contains("XL") || class.contains('3') {
            let what = format!("is {class:?}; a StableDiffusionPipeline, version 1 or 2, is expected");
            return Err(index.error("_class_name", &what));
        }
        let scheduler = folder.join("scheduler").join("scheduler_config.json");
        let ((schedule, last, prediction), sampler) = (open_schedule(&scheduler)?, open_sampler(&scheduler)?);
        let tokenizer = Tokenizer::open(folder.join("tokenizer"))?;
        let (text_encoder, text_loaded) = open_text_encoder(folder.join("text_encoder"), precision)?;
        let (unet, unet_loaded) = open_unet(folder.join("unet"), precision)?;
        let (vae, vae_loaded) = open_vae(folder.join("vae"), precision)?;
        check_parts(folder, &tokenizer, &text_encoder, &unet, &vae)?;
        let latents =
            Config::open(folder.join("unet").join("config.json"))?.usize("sample_size").unwrap_or(64);
        let side = latents * vae.config.factor();
        let loaded = vec![text_loaded, unet_loaded, vae_loaded];
        let size = (side, side);
        Ok(StableDiffusion {
            tokenizer,
            text_encoder,
            unet,
            vae,
            schedule,
            last,
            sampler,
            prediction,
            size,
            loaded,
        })
    }
}

// %% notebooks/35_pipeline.ipynb op-configs
impl StableDiffusion {
    /// The networks of these configurations, [`Pending`]: load or initialize them. The schedule is v1's.
    pub fn from_configs(tokenizer: Tokenizer, text: &ClipConfig, unet: &UNetConfig, vae: &VaeConfig) -> Self {
        StableDiffusion {
            tokenizer,
            text_encoder: ClipText::new(&mut Pending, text),
            unet: UNet::new(&mut Pending, unet),
            vae: AutoencoderKl::new(&mut Pending, vae),
            schedule: NoiseSchedule::stable_diffusion(),
            last: FinalLevel::Weakest,
            sampler: None,
            prediction: Prediction::Noise,
            size: (512, 512),
            loaded: Vec::new(),
        }
    }
}

// %% notebooks/35_pipeline.ipynb em-impl
use minai::sampling::SamplerError;

/// Why a picture can't be drawn. Its text says what to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no prompt at all.
    NoPrompt,
    /// No picture has these sides.
    Size {
        /// In pixels.
        height: usize,
        /// In pixels.
        width: usize,
        /// What both must be multiples of.
        factor: usize,
    },
    /// This guidance is not finite.
    Guidance(f64),
    /// This share is not from 0 to 1.
    Rescale(f64),
    /// This strength is not from 0 to 1.
    Strength(f64),
    /// The sampler can't do this.
    Sampler(SamplerError),
    /// The values of this call of the network are not finite.
    NotFinite(usize),
}

// %% notebooks/35_pipeline.ipynb em-error
impl std::fmt::Display for RequestError {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::NoPrompt => write!(f, "no prompt: give at least one, which may be empty"),
            Self::Size { height, width, factor } => {
                let near = |side: usize| ((side.min(LONGEST) + factor / 2) / factor * factor).max(*factor);
                write!(
                    f,
                    "{width}x{height} pixels: both sides must be multiples of {factor}, and at most {LONGEST}; "
                )?;
                write!(f, "{}x{} would do", near(*width), near(*height))
            }
            Self::Guidance(scale) => write!(f, "guidance {scale}: a finite number is wanted"),
            Self::Rescale(share) => write!(f, "rescale {share}: a share from 0 to 1 is wanted"),
            Self::Strength(strength) => write!(f, "a strength is from 0 to 1, not {strength}"),
            Self::Sampler(error) => error.fmt(f),
            Self::NotFinite(call) => write!(
                f,
                "call {call} of the network gave values that are not finite; use less guidance, or weights in single precision"
            ),
        }
    }
}

impl std::error::Error for RequestError {}

/// The longest side of a picture, in pixels.
const LONGEST: usize = 8192;

// %% notebooks/35_pipeline.ipynb em-size
/// Whether a picture can have this size: each side a multiple of `factor`, the pixels of a latent, and at most 8192.
///
/// # Errors
/// If not; the error's text names a size that would do.
pub fn check_size(height: usize, width: usize, factor: usize) -> Result<(), RequestError> {
    let fits = |side: usize| (factor..=LONGEST).contains(&side) && side.is_multiple_of(factor);
    match fits(height) && fits(width) {
        true => Ok(()),
        false => Err(RequestError::Size { height, width, factor }),
    }
}

// %% notebooks/35_pipeline.ipynb em-tokens
use minai::nn::Pass;

impl StableDiffusion {
    /// The token ids of the texts (n, 77; fewer where the tokenizer's settings say so), and for each text that was too long a warning that says what was cut off.
    pub fn tokens(&self, texts: &[&str]) -> (Array<i64>, Vec<String>) {
        let each: Vec<_> = texts.iter().map(|text| self.tokenizer.tokens(text)).collect();
        let ids: Vec<i64> =
            each.iter().flat_map(|tokens| tokens.ids.iter().map(|&id| i64::from(id))).collect();
        let shape = [texts.len(), self.tokenizer.context()];
        (Array::new(ids, &shape), each.into_iter().filter_map(|tokens| tokens.cut).collect())
    }

    /// The embeddings of the texts (n, 77, width): what the U-Net is told.
    pub fn embed(&self, texts: &[&str]) -> Tensor {
        self.text_encoder.forward(&self.tokens(texts).0, &mut Pass::eval())
    }
}

// %% notebooks/35_pipeline.ipynb em-predict
use minai::guidance::guided;
use minai::tensor::cat;
use ndarray::s;

impl StableDiffusion {
    /// The noise in `latents` (n, 4, h, w) at time `t` with guidance: `context` (2n, 77, width) holds the embeddings of the
    /// n negative prompts, which may be empty, and after them those of the n prompts. A scale of at most 1 is no guidance,
    /// as in diffusers: the network is asked once, for the prompts, and `context` may be theirs alone.
    ///
    /// # Panics
    /// If the shapes do not fit.
    #[track_caller]
    pub fn predict(&self, latents: &Tensor, t: f64, context: &Tensor, scale: f64, rescale: f64) -> Tensor {
        self.noise_at(latents, (t, self.schedule.sigma(t)), context, (scale, rescale))
    }

    /// [`predict`](Self::predict) where a sampler's level σ is not quite that of the time.
    #[track_caller]
    fn noise_at(
        &self,
        latents: &Tensor,
        (t, sigma): (f64, f64),
        context: &Tensor,
        (scale, rescale): (f64, f64),
    ) -> Tensor {
        let n = latents.shape()[0];
        let ask =
            |x: &Tensor, context: &Tensor| self.unet.forward(x, &[t as f32], context, &mut Pass::eval());
        let output = if scale <= 1.0 {
            ask(latents, &context.slice(s![context.shape()[0] - n.., .., ..]))
        } else {
            // One pass through the network for both: its weights are read once.
            let both = ask(&cat(&[latents, latents], 0), context);
            let (u, t) = (both.slice(s![..n, .., .., ..]), both.slice(s![n.., .., .., ..]));
            let output = guided(&u, &t, scale);
            if rescale > 0.0 { rescaled(&output, &t, rescale) } else { output }
        };
        self.prediction.noise(latents, output, sigma)
    }
}

// %% notebooks/35_pipeline.ipynb em-decode
use minai::generator::Generator;

impl StableDiffusion {
    /// Pictures of latents (n, 4, h, w): eight times as high and wide.
    pub fn decode(&self, latents: &Tensor) -> Vec<Picture> {
        minai::kernels::memory::give_back(); // what the U-Net's steps have left is too small for a decoder
        let one = |i: usize| {
            let latent = latents.slice(s![i..=i, .., .., ..]) / self.vae.scaling_factor();
            Picture::from_tensor(&self.vae.decode(&latent, &mut Pass::eval())).remove(0)
        };
        (0..latents.shape()[0]).map(one).collect() // one after the other: a large picture takes much memory
    }

    /// The latents (1, 4, height / 8, width / 8) of a picture: drawn from what the encoder says.
    ///
    /// # Errors
    /// If a side is not a multiple of 8.
    pub fn encode(&self, picture: &Picture, rng: &mut Generator) -> Result<Tensor, RequestError> {
        check_size(picture.height, picture.width, self.vae.config.factor())?;
        Ok(self.vae.encode(&picture.to_tensor(), &mut Pass::eval()).sample(rng) * self.vae.scaling_factor())
    }
}

// %% notebooks/35_pipeline.ipynb ge-image-start
/// Where image to image begins.
#[derive(Clone, Debug)]
pub struct ImageToImage {
    /// The picture.
    pub picture: Picture,
    /// How much noise is put on it: from 0, it stays, to 1, nothing of it is left.
    pub strength: f64,
}

// %% notebooks/35_pipeline.ipynb ge-request
use minai::levels::{Call, Levels};
use std::ops::ControlFlow;

/// What is to be drawn, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// One picture for each prompt, each from noise of its own.
    pub prompts: Vec<String>,
    /// What the pictures should not show.
    pub negative: String,
    /// Steps of the sampler.
    pub steps: usize,
    /// The scale of [`guided`]; at most 1: no guidance, and half the time.
    pub guidance: f64,
    /// The share of [`rescaled`].
    pub rescale: f64,
    /// Which sampler, and which noise levels it visits: `"DPM++ 2M Karras".parse()?`, say.
    pub sampler: Sampler,
    /// The noise comes from here, as from `torch.manual_seed`.
    pub seed: u64,
    /// Height and width in pixels, multiples of 8.
    pub size: (usize, usize),
    /// Image to image: begin with this picture and noise, instead of noise only. It gives the size.
    pub start: Option<ImageToImage>,
}

// %% notebooks/35_pipeline.ipynb ge-start
impl Default for Request {
    /// No prompt, 50 steps of LMS, guidance 7.5, seed 42, 512 by 512 pixels.
    fn default() -> Self {
        Request {
            prompts: vec![String::new()],
            negative: String::new(),
            steps: 50,
            guidance: 7.5,
            rescale: 0.0,
            sampler: Sampler::Lms(Spacing::Linspace),
            seed: 42,
            size: (512, 512),
            start: None,
        }
    }
}

// %% notebooks/35_pipeline.ipynb ge-check
impl From<SamplerError> for RequestError {
    fn from(error: SamplerError) -> Self {
        RequestError::Sampler(error)
    }
}

/// Refuses what can't be drawn.
fn check_request(request: &Request) -> Result<(), RequestError> {
    let Request { prompts, guidance, rescale, .. } = request;
    match &request.start {
        _ if prompts.is_empty() => Err(RequestError::NoPrompt),
        _ if !guidance.is_finite() => Err(RequestError::Guidance(*guidance)),
        _ if !(0.0..=1.0).contains(rescale) => Err(RequestError::Rescale(*rescale)),
        Some(ImageToImage { strength, .. }) if !(0.0..=1.0).contains(strength) => {
            Err(RequestError::Strength(*strength))
        }
        _ => Ok(()),
    }
}

// %% notebooks/35_pipeline.ipynb ge-step
/// What can be seen after a call of the network.
#[derive(Clone, Debug)]
pub struct Step {
    /// The number of calls before it.
    pub call: usize,
    /// How many there will be.
    pub calls: usize,
    /// The time that the network was told.
    pub t: f64,
    /// The latents that it was asked about: x₀ + σ n.
    pub latents: Tensor,
    /// What the network thinks that they will become, to be decoded for a preview.
    pub guess: Tensor,
}

// %% notebooks/35_pipeline.ipynb ge-step-b
/// Why a run ended before its last step.
enum Ended {
    /// `see` said so. The latents at that moment.
    Stopped(Tensor),
    Failed(RequestError),
}

/// Refuses noise that is none.
fn check_finite(noise: &Tensor, call: usize) -> Result<(), Ended> {
    if noise.data.iter().all(|number| number.is_finite()) {
        return Ok(());
    }
    Err(Ended::Failed(RequestError::NotFinite(call)))
}

// %% notebooks/35_pipeline.ipynb ge-begin
/// Latents, and the levels that are still to be visited.
type Begun = Result<(Levels, Tensor), RequestError>;

impl StableDiffusion {
    /// The levels to visit, and the latents at the first of them: noise, or a noisy picture.
    fn begin(&self, request: &Request, rng: &mut Generator) -> Begun {
        let (n, factor) = (request.prompts.len(), self.vae.config.factor());
        let levels = request.sampler.levels(&self.schedule, request.steps, self.last)?;
        let Some(start) = &request.start else {
            let (height, width) = request.size;
            check_size(height, width, factor)?;
            let shape = [n, self.unet.config().in_channels, height / factor, width / factor];
            let noise = Tensor::from(rng.randn(&shape));
            return Ok((levels.clone(), noise * levels.initial_scale as f32));
        };
        let latents = self.encode(&start.picture, rng)?;
        let latents = cat(&vec![&latents; n], 0);
        let noise = Tensor::from(rng.randn(latents.shape()));
        let levels = levels.last_part(start.strength);
        // With no step to take there is no noise to take away either.
        let x = if levels.sigmas.len() == 1 { latents } else { levels.add_noise(&latents, &noise) };
        Ok((levels, x))
    }
}

// %% notebooks/35_pipeline.ipynb ge-generate
impl StableDiffusion {
    /// Draws latents (n, 4, h, w), to be given to [`decode`](Self::decode). `see` is called after each call of the
    /// network, and may break off: then the latents are those of that moment.
    ///
    /// # Errors
    /// If the request cannot be met, or a prediction is not finite; the error says why, and what to do.
    pub fn generate(
        &self,
        request: &Request,
        mut see: impl FnMut(&Step) -> ControlFlow<()>,
    ) -> Result<Tensor, RequestError> {
        check_request(request)?;
        let mut rng = Generator::manual_seed(request.seed);
        let (levels, x) = self.begin(request, &mut rng)?;
        let calls = request.sampler.calls(&levels);
        if calls == 0 {
            return Ok(x);
        }
        let negative = request.prompts.iter().map(|_| request.negative.as_str());
        let negative = negative.filter(|_| request.guidance > 1.0);
        let texts: Vec<&str> = negative.chain(request.prompts.iter().map(String::as_str)).collect();
        let context = self.embed(&texts);
        let network = |call: &Call| {
            let (level, scales) = ((call.time, call.sigma), (request.guidance, request.rescale));
            let noise = self.noise_at(&call.input, level, &context, scales);
            check_finite(&noise, call.number)?;
            let (latents, guess) = (call.x.clone(), &call.x - &noise * call.sigma as f32);
            match see(&Step { call: call.number, calls, t: call.time, latents, guess }) {
                ControlFlow::Continue(()) => Ok(noise),
                ControlFlow::Break(()) => Err(Ended::Stopped(call.x.clone())),
            }
        };
        match request.sampler.run(x, &levels, network, |shape| rng.randn(shape).into()) {
            Ok(latents) | Err(Ended::Stopped(latents)) => Ok(latents),
            Err(Ended::Failed(error)) => Err(error),
        }
    }
}
