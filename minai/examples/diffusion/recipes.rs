//! What can be trained, and the networks that come of it.

use minai::diffusion::{GuessTheNoise, NoisePredictor, PlainCnn};
use minai::guidance::{ClassUNet, DenoiseClass};
use minai::karras::Preconditioner;
use minai::noise::NoiseSchedule;
use minai::prelude::*;
use minai::small_unet::{SmallUNet, SmallUNetConfig};
use minai::super_resolution::{SIGMA_DATA, Upscale, Upscaler};
use std::error::Error;
use std::path::Path;

/// A network's shape.
pub enum Net {
    /// Lesson 17's: blocks of `patch` by `patch` pixels, `channels` between its `blocks`.
    Plain { patch: usize, channels: usize, blocks: usize },
    /// Lesson 18's, with its default channels.
    Residual,
    /// Lesson 24's, of the same shape.
    Classes,
    /// Lesson 25's.
    Upscaler,
}

/// The pictures that a network learns from.
pub enum Source {
    Mnist,
    Fashion,
    Emoji,
}

/// What fixes a training, but for its seed.
pub struct Recipe {
    pub name: &'static str,
    pub text: &'static str,
    pub net: Net,
    pub source: Source,
    pub steps: usize,
    pub batch: usize,
    pub lr: f64,
}

pub const RECIPES: [Recipe; 5] = [
    Recipe {
        name: "plain",
        text: "lesson 17: a plain CNN, MNIST",
        net: Net::Plain { patch: 2, channels: 64, blocks: 8 },
        source: Source::Mnist,
        steps: 15_620,
        batch: 32,
        lr: 1e-3,
    },
    Recipe {
        name: "unet",
        text: "lesson 18: a small U-Net, MNIST",
        net: Net::Residual,
        source: Source::Mnist,
        steps: 4_686,
        batch: 32,
        lr: 2e-3,
    },
    Recipe {
        name: "digits",
        text: "lesson 24: a U-Net that knows classes, MNIST",
        net: Net::Classes,
        source: Source::Mnist,
        steps: 4_686,
        batch: 64,
        lr: 2e-3,
    },
    Recipe {
        name: "clothes",
        text: "lesson 24: the same, Fashion-MNIST",
        net: Net::Classes,
        source: Source::Fashion,
        steps: 4_686,
        batch: 64,
        lr: 2e-3,
    },
    Recipe {
        name: "upscaler",
        text: "lesson 25: a U-Net that enlarges pictures, emoji",
        net: Net::Upscaler,
        source: Source::Emoji,
        steps: 3_000,
        batch: 32,
        lr: 2e-3,
    },
];

pub fn recipe(name: &str) -> Result<&'static Recipe, String> {
    let known = || RECIPES.each_ref().map(|recipe| recipe.name).join(", ");
    RECIPES
        .iter()
        .find(|recipe| recipe.name == name)
        .ok_or_else(|| format!("no recipe {name:?}: there is {}", known()))
}

/// The number of classes of MNIST and of Fashion-MNIST, and what stands for none of them.
pub const CLASSES: usize = 10;

/// The noise levels of the models that predict the noise.
pub fn schedule() -> NoiseSchedule {
    NoiseSchedule::linear(1000, 1e-4, 0.02)
}

/// A network that predicts the noise.
pub struct Model(Box<dyn NoisePredictor>);

impl Module for Model {
    fn parts(&self, parts: &mut Parts) {
        self.0.parts(parts);
    }
}

impl NoisePredictor for Model {
    fn predict_noise(&self, x: &Tensor, sigma: &Tensor, pass: &mut Pass) -> Tensor {
        self.0.predict_noise(x, sigma, pass)
    }
}

/// What is drawn with.
pub enum Trained {
    Noise(GuessTheNoise<Model>),
    Classes(Box<DenoiseClass>),
    Upscaler(Box<Upscale>),
}

impl Trained {
    fn new(rng: &mut Generator, net: &Net) -> Self {
        match net {
            Net::Classes => Trained::Classes(Box::new(class_task(rng))),
            Net::Upscaler => Trained::Upscaler(Box::new(upscale_task(rng))),
            Net::Plain { .. } | Net::Residual => Trained::Noise(noise_task(rng, net)),
        }
    }

    fn model(&self) -> &dyn Module {
        match self {
            Trained::Noise(task) => &task.model,
            Trained::Classes(task) => &task.model,
            Trained::Upscaler(task) => &task.model,
        }
    }
}

/// A task whose network predicts the noise.
pub fn noise_task(rng: &mut Generator, net: &Net) -> GuessTheNoise<Model> {
    let model: Box<dyn NoisePredictor> = match *net {
        Net::Plain { patch, channels, blocks } => Box::new(PlainCnn::new(rng, patch, channels, blocks)),
        Net::Residual => Box::new(SmallUNet::new(rng, &SmallUNetConfig::default())),
        Net::Classes | Net::Upscaler => unreachable!("they have tasks of their own"),
    };
    GuessTheNoise { model: Model(model) }
}

pub fn class_task(rng: &mut Generator) -> DenoiseClass {
    let model = ClassUNet::new(rng, &SmallUNetConfig::default(), CLASSES);
    DenoiseClass { model, preconditioner: Preconditioner { sigma_data: 0.5 } }
}

pub fn upscale_task(rng: &mut Generator) -> Upscale {
    let model = Upscaler::new(rng, &[32, 48, 64]);
    Upscale { model, preconditioner: Preconditioner { sigma_data: SIGMA_DATA } }
}

/// How a model that knows classes draws where the command does not say.
pub struct Usual {
    pub sampler: String,
    pub steps: usize,
    pub guidance: f64,
    /// The lowest and the highest noise level with guidance.
    pub range: (f64, f64),
}

impl Usual {
    /// What drawings by this recipe score best with. At higher levels guidance costs variety, and at lower ones it changes
    /// next to nothing.
    pub fn by(recipe: &Recipe) -> Self {
        let range = if let Source::Fashion = recipe.source { (0.3, 4.0) } else { (0.3, 8.0) };
        Usual { sampler: "dpmpp_2m".into(), steps: 18, guidance: 2.0, range }
    }

    /// As it stands in a model's metadata.
    pub fn facts(&self) -> [(&'static str, String); 4] {
        let (low, high) = self.range;
        [
            ("sampler", self.sampler.clone()),
            ("sampler's steps", self.steps.to_string()),
            ("guidance", self.guidance.to_string()),
            ("guidance range", format!("{low},{high}")),
        ]
    }

    fn of(recipe: &Recipe, metadata: &Metadata) -> Result<Self, String> {
        let usual = Usual::by(recipe);
        let steps = fact(metadata, "sampler's steps", usual.steps, |text| text.parse().ok())?;
        let guidance = fact(metadata, "guidance", usual.guidance, |text| text.parse().ok())?;
        let range = fact(metadata, "guidance range", usual.range, |text| pair(text).ok())?;
        let sampler = metadata.get("sampler").cloned().unwrap_or(usual.sampler);
        Ok(Usual { sampler, steps, guidance, range })
    }
}

/// What the metadata say of `name`, or else `usual`.
fn fact<T>(metadata: &Metadata, name: &str, usual: T, read: impl Fn(&str) -> Option<T>) -> Result<T, String> {
    match metadata.get(name) {
        None => Ok(usual),
        Some(text) => {
            read(text).ok_or_else(|| format!("its metadata say {name}: {text:?}, which can't be read"))
        }
    }
}

/// Two noise levels, the lower first.
pub fn pair(text: &str) -> Result<(f64, f64), String> {
    let numbers: Option<Vec<f64>> = text.split(',').map(|part| part.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[low, high]) if 0.0 <= low && low < high => Ok((low, high)),
        _ => Err("two noise levels are wanted, the lower first, such as 0.2,10".into()),
    }
}

/// The network in a file that `train` saved.
pub fn open(path: &Path) -> Result<(&'static Recipe, Trained, Usual), Box<dyn Error>> {
    let (state, metadata) = load(path)?;
    let name = metadata.get("recipe").ok_or_else(|| {
        format!("{}: no model of this command, since its metadata name no recipe", path.display())
    })?;
    let recipe = recipe(name).map_err(|error| format!("{}: {error}", path.display()))?;
    let trained = Trained::new(&mut Generator::manual_seed(0), &recipe.net);
    load_state_dict(trained.model(), &state).map_err(|error| format!("{}: {error}", path.display()))?;
    let usual = Usual::of(recipe, &metadata).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok((recipe, trained, usual))
}
