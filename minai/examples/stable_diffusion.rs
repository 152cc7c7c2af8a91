//! Stable Diffusion from the command line: the course's own small model of emoji (lesson 36), or a published one.
//!
//! ```sh
//! cargo run --release -p minai --example stable_diffusion -- --prompt "red apple" --guidance 3 --out apple.png
//! cargo run --release -p minai --example stable_diffusion -- --download sd15
//! cargo run --release -p minai --example stable_diffusion -- --model data/sd15 --prompt "a photograph of an astronaut riding a horse" --out horse.png
//! ```

use clap::Parser;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use minai::array::Array;
use minai::clip::ClipConfig;
use minai::generator::Generator;
use minai::inversion::add_word;
use minai::io::data::data_folder;
use minai::io::file::{FileError, make_folder_of};
use minai::io::picture;
use minai::levels::Spacing;
use minai::lora::merge_lora;
use minai::nn::parameter_count;
use minai::sampling::Sampler;
use minai::sd_download::{Published, SD15, fetch_model};
use minai::single_file::open_single_file;
use minai::stable_diffusion::{ImageToImage, Picture, Request, StableDiffusion, check_size};
use minai::tokenizer::Tokenizer;
use minai::unet::{UNet, UNetConfig};
use minai::vae::VaeConfig;
use minai::weights::{Pending, Precision, initialize};
use std::collections::hash_map::RandomState;
use std::error::Error;
use std::hash::{BuildHasher, Hasher};
use std::io::{IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{fs, io};

#[path = "stable_diffusion/parity.rs"]
mod parity;

/// Draws pictures of prompts.
#[derive(Parser)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["prompt", "download", "parity"]).multiple(false)))]
struct Arguments {
    /// The model's folder: model_index.json, text_encoder/, tokenizer/, unet/, vae/, scheduler/. Or a Stable Diffusion 1 in a
    /// single .safetensors file.
    #[arg(long, default_value = "data/emoji-sd")]
    model: PathBuf,
    /// A LoRA to add to the model, FILE or FILE:FACTOR (0.8, say); may be given several times.
    #[arg(long, value_parser = lora)]
    lora: Vec<(PathBuf, f64)>,
    /// A word of textual inversion, FILE or FILE:WORD; may be given several times.
    #[arg(long)]
    embedding: Vec<String>,
    /// What the picture shows.
    #[arg(long, allow_hyphen_values = true)]
    prompt: Option<String>,
    /// What it should not show.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    negative: String,
    /// Steps of the sampler.
    #[arg(long, default_value_t = 70)]
    steps: usize,
    /// How much the prompt counts: 1 is as trained, 7.5 is usual.
    #[arg(long, default_value_t = 7.5)]
    guidance: f64,
    /// Leaves out the last blocks of the text encoder, as diffusers counts them: what web interfaces call 2 is 1 here.
    #[arg(long, default_value_t = 0)]
    clip_skip: usize,
    /// Gives the guided prediction back the spread of the plain one: from 0, not, to 1.
    #[arg(long, default_value_t = 0.0)]
    rescale: f64,
    /// lms, ddim, ddpm, euler, euler_a, heun, dpm_2, dpmpp_2m, dpmpp_2s_a, dpmpp_sde, dpmpp_2m_sde, pndm, deis, unipc or
    /// lcm; or by another name, such as "DPM++ 2M Karras". By default the one that the model's scheduler names.
    #[arg(long)]
    sampler: Option<Sampler>,
    /// Visits noise levels as Karras et al. space them.
    #[arg(long)]
    karras: bool,
    /// DDIM: new noise in each step, from 0 to 1.
    #[arg(long, default_value_t = 0.0)]
    eta: f64,
    /// The noise comes from this number, as from torch.manual_seed; -1: from one drawn at random, which is printed.
    #[arg(long, default_value = "42", value_parser = seed, allow_hyphen_values = true)]
    seed: u64,
    /// Image to image: begin with this PNG, JPEG or WebP.
    #[arg(long)]
    init: Option<PathBuf>,
    /// Image to image: how much of it is given up, from 0 to 1.
    #[arg(long, default_value_t = 0.6, requires = "init")]
    strength: f64,
    /// Width and height in pixels, multiples of 8; by default those of --init, made smaller if it has more than 1.5
    /// times as many pixels each way as the model was trained with, or those of the pictures that it was trained with.
    #[arg(long, value_parser = size)]
    size: Option<(usize, usize)>,
    /// Keeps the weights in half precision: half the memory, slightly other numbers.
    #[arg(long)]
    half: bool,
    /// Saves that many previews on the way, as NAME-1.png and so on.
    #[arg(long, default_value_t = 0)]
    previews: usize,
    /// Where the picture goes: .png, which also keeps how it was made, .jpg or .webp.
    #[arg(long, default_value = "out.png")]
    out: PathBuf,
    /// Makes networks of this size with random weights, to see what time and memory they take: sd15.
    #[arg(long, value_parser = ["sd15"])]
    synthetic: Option<String>,
    /// Fetches published weights: sd15.
    #[arg(long, value_parser = ["sd15"])]
    download: Option<String>,
    /// With --download: does not ask.
    #[arg(long, requires = "download")]
    yes: bool,
    /// With --download: another address that has the same files.
    #[arg(long, requires = "download")]
    address: Option<String>,
    /// Compares with the reference tensors of this folder.
    #[arg(long)]
    parity: Option<PathBuf>,
}

impl Arguments {
    /// The sampler, with what --karras and --eta say of it. `usual` is the model's.
    fn sampler(&self, usual: Option<Sampler>) -> Sampler {
        let sampler = self.sampler.or(usual).unwrap_or(Sampler::Lms(Spacing::Linspace));
        match if self.karras { sampler.spaced(Spacing::Karras) } else { sampler } {
            Sampler::Ddim { spacing, .. } => Sampler::Ddim { spacing, eta: self.eta },
            sampler => sampler,
        }
    }
}

/// FILE or FILE:FACTOR
fn lora(text: &str) -> Result<(PathBuf, f64), String> {
    let factor = text.rsplit_once(':').and_then(|(file, factor)| Some((file, factor.parse::<f64>().ok()?)));
    match factor {
        Some((_, factor)) if !factor.is_finite() => Err(format!("{text:?}: the factor is a finite number")),
        Some((file, factor)) => Ok((file.into(), factor)),
        None => Ok((text.into(), 1.0)),
    }
}

/// A seed, drawn at random for -1.
fn seed(text: &str) -> Result<u64, String> {
    if text != "-1" {
        return text.parse().map_err(|_| "a whole number is wanted, or -1 for one drawn at random".into());
    }
    // What the standard library seeds its hash maps with comes from the system's generator.
    let drawn = RandomState::new().build_hasher().finish() >> 32;
    println!("seed {drawn}");
    Ok(drawn)
}

/// WIDTHxHEIGHT
fn size(text: &str) -> Result<(usize, usize), String> {
    let sides = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.ok_or_else(|| format!("{text:?} is no size; write 512x512, width first"))
}

fn main() -> ExitCode {
    minai::kernels::memory::keep_freed_memory();
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let keep = if arguments.half { Precision::Half } else { Precision::Single };
    if arguments.download.is_some() {
        let folder =
            if arguments.model == Path::new("data/emoji-sd") { "data/sd15".into() } else { arguments.model };
        return download(&SD15, arguments.address.as_deref(), &folder, arguments.yes);
    }
    if let Some(folder) = &arguments.parity {
        return parity::compare(folder, keep);
    }
    // Rather now than after the last step.
    picture::check_name(&arguments.out)?;
    try_out(&arguments.out)?;
    let mut model =
        if arguments.synthetic.is_some() { synthetic(keep)? } else { open(&arguments.model, keep)? };
    if arguments.clip_skip >= model.text_encoder.config.layers {
        return Err(format!(
            "--clip-skip {}: the text encoder has {} blocks",
            arguments.clip_skip, model.text_encoder.config.layers
        )
        .into());
    }
    model.text_encoder.skip = arguments.clip_skip;
    for text in &arguments.embedding {
        let (path, word) = match text.rsplit_once(':') {
            Some((path, word)) if !Path::new(text).exists() => (path, Some(word)),
            _ => (text.as_str(), None),
        };
        println!("{path}: the word {:?}", add_word(&mut model, path, word)?);
    }
    for (path, factor) in &arguments.lora {
        println!("{}: {} layers, factor {factor}", path.display(), merge_lora(&model, path, *factor)?);
    }
    draw(model, &arguments)
}

/// Says what would be fetched and under which licence, asks, and fetches.
fn download(
    model: &Published,
    address: Option<&str>,
    folder: &Path,
    yes: bool,
) -> Result<(), Box<dyn Error>> {
    let address = address.unwrap_or(model.address);
    println!("{}\n  from     {address}\n  to       {}", model.about, folder.display());
    println!("  size     {} in {} files", HumanBytes(model.bytes()), model.files.len());
    println!("  licence  {}: {}", model.licence, model.licence_address);
    println!("The licence says what you may not do with the model; read it first.");
    if !yes {
        print!("Fetch? [y/N] ");
        io::stdout().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !answer.trim().eq_ignore_ascii_case("y") {
            println!("Nothing was fetched.");
            return Ok(());
        }
    }
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{msg:42} {wide_bar} {decimal_bytes}/{decimal_total_bytes} {eta}",
    )?);
    let mut last = usize::MAX;
    fetch_model(address, folder, model, |number, done, all| {
        if number != last {
            bar.set_message(model.files[number].path);
            last = number;
        }
        bar.set_length(all.unwrap_or(done));
        bar.set_position(done);
    })?;
    bar.finish_and_clear();
    println!("{} is complete. Try: --model {0} --prompt \"…\"", folder.display());
    Ok(())
}

fn open(folder: &Path, keep: Precision) -> Result<StableDiffusion, Box<dyn Error>> {
    let start = Instant::now();
    if !folder.exists() {
        return Err(not_there(folder).into());
    }
    if folder.join("snapshots").is_dir() {
        let what = "is a hub's cache; name the folder below its `snapshots` that holds model_index.json";
        return Err(format!("{}: {what}", folder.display()).into());
    }
    let model =
        if folder.is_file() { open_file(folder, keep)? } else { StableDiffusion::open(folder, keep)? };
    let left_out: Vec<&String> = model.loaded.iter().flat_map(|loaded| &loaded.left_out).collect();
    if let (Some(first), false) = (left_out.first(), folder.is_file()) {
        println!("{} tensors are not needed and were left out, such as {first}", left_out.len());
    }
    let bytes: usize = model.loaded.iter().map(|loaded| loaded.bytes).sum();
    println!(
        "{}: {} of weights in {:.1} s",
        folder.display(),
        HumanBytes(bytes as u64),
        start.elapsed().as_secs_f64()
    );
    Ok(model)
}

/// What people mean by a model that is not there.
fn not_there(folder: &Path) -> String {
    let text = folder.to_string_lossy();
    let hub = text.split('/').count() == 2 && !text.starts_with(['.', '/']) && !text.starts_with("data/");
    match hub {
        true => format!(
            "{text}: there is no such folder, and models are not fetched by their names on a hub; fetch it first, as with `hf download {text} --local-dir data/model`, and name that folder (or try --download sd15)"
        ),
        false => {
            format!("{text}: there is no such folder or file; --download sd15 fetches the published model")
        }
    }
}

/// CLIP's vocabulary, as the course brings it along.
fn vocabulary() -> Result<Tokenizer, Box<dyn Error>> {
    let data = data_folder().ok_or(
        "CLIP's vocabulary is in the course's folder data, which is not here or above: run this from there",
    )?;
    Ok(Tokenizer::open(data.join("tiny-sd/tokenizer"))?)
}

fn open_file(path: &Path, keep: Precision) -> Result<StableDiffusion, Box<dyn Error>> {
    let ending = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    if ["ckpt", "pt", "pth", "bin"].contains(&ending.as_str()) {
        return Err(format!(
            "{}: a file of PyTorch's own form, which can run any program when it is opened, and is not read here; convert it in Python: safetensors.torch.save_file(torch.load(\"…\", weights_only=True)[\"state_dict\"], \"….safetensors\")",
            path.display()
        )
        .into());
    }
    Ok(open_single_file(path, vocabulary()?, keep)?)
}

/// The full size with random weights: the pictures are noise, but time and memory are those of the real ones.
fn synthetic(keep: Precision) -> Result<StableDiffusion, Box<dyn Error>> {
    let start = Instant::now();
    let tokenizer = vocabulary()?;
    let model = StableDiffusion::from_configs(
        tokenizer,
        &ClipConfig::sd15(),
        &UNetConfig::sd15(),
        &VaeConfig::sd15(),
    );
    let mut rng = Generator::manual_seed(0);
    initialize(&model.unet, &mut rng, keep);
    initialize(&model.vae, &mut rng, keep);
    initialize(&model.text_encoder, &mut rng, keep);
    let millions = |count: usize| count as f64 / 1e6;
    println!(
        "random weights in {:.1} s: U-Net {:.1}, autoencoder {:.1}, text encoder {:.1} million",
        start.elapsed().as_secs_f64(),
        millions(parameter_count(&model.unet)),
        millions(parameter_count(&model.vae)),
        millions(parameter_count(&model.text_encoder))
    );
    Ok(model)
}

/// Whether a picture can be written there. Its folder is made if there is none.
fn try_out(path: &Path) -> Result<(), Box<dyn Error>> {
    make_folder_of(path)?;
    // Under a name that nobody else has: a file of the picture's name stays until the picture is there.
    let probe = path.with_extension(format!("{}.part", std::process::id()));
    let written = fs::File::create_new(&probe).and_then(|_| fs::remove_file(&probe));
    Ok(written.map_err(|error| format!("{}: {error}; choose another place with --out", path.display()))?)
}

/// What other programs understand in a prompt, and this one reads as words.
fn warn_of_syntax(what: &str, text: &str) {
    if text.contains("<lora:") {
        eprintln!(
            "the {what} has <lora:…>, which is read as words here; give the file with --lora FILE:FACTOR"
        );
    }
    let weighted = |part: &str| {
        let inside = part.split(')').next().unwrap_or("");
        inside.rsplit_once(':').is_some_and(|(_, weight)| weight.trim().parse::<f64>().is_ok())
    };
    if text.split('(').skip(1).any(weighted) {
        eprintln!(
            "the {what} has a weight in brackets, (word:1.3), which is read as words here, brackets and all"
        );
    }
}

fn draw(mut model: StableDiffusion, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let prompt = arguments.prompt.clone().unwrap_or_default();
    for (what, text) in [("prompt", &prompt), ("negative prompt", &arguments.negative)] {
        if let Some(warning) = model.tokens(&[text]).1.first() {
            eprintln!("{}", warning.replacen("the prompt", &format!("the {what}"), 1));
        }
        warn_of_syntax(what, text);
    }
    if arguments.init.is_some() && (arguments.steps as f64 * arguments.strength) < 1.0 {
        eprintln!(
            "--strength {} of {} steps is less than one step: the picture stays as it is, but for the way through the autoencoder",
            arguments.strength, arguments.steps
        );
    }
    // As many as 768x768 has, for a model that was trained with 512x512.
    let most = model.size.0 * model.size.1 * 9 / 4;
    let start = match &arguments.init {
        Some(path) => Some(ImageToImage {
            picture: read_picture(path, arguments.size, most)?,
            strength: arguments.strength,
        }),
        None => None,
    };
    let (width, height) = match &start {
        Some(start) => (start.picture.width, start.picture.height),
        None => arguments.size.unwrap_or((model.size.1, model.size.0)),
    };
    let request = Request {
        prompts: vec![prompt],
        negative: arguments.negative.clone(),
        steps: arguments.steps,
        guidance: arguments.guidance,
        rescale: arguments.rescale,
        sampler: arguments.sampler(model.sampler),
        seed: arguments.seed,
        size: (height, width),
        start,
    };
    let about = describe(arguments, request.sampler, (width, height));
    let mut meter = Meter::new();
    let mut previews = 0;
    let mut trouble = None;
    let latents = model.generate(&request, |step| {
        meter.step(step.call, step.calls);
        // The way is cut into one part more than there are previews: the end is the picture itself.
        let due = ((arguments.previews + 1) * (step.call + 1) / step.calls).min(arguments.previews);
        if due > previews {
            previews = due;
            let path = preview_path(&arguments.out, due);
            if let Err(error) = write_picture(&path, &model.decode(&step.guess)[0], &about) {
                trouble = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    meter.finish();
    if let Some(error) = trouble {
        return Err(error.into());
    }
    // The U-Net has done its work: the decoder can have its memory.
    model.unet = UNet::new(&mut Pending, &model.unet.config().clone());
    let start = Instant::now();
    let picture = model.decode(&latents).remove(0);
    println!("decoded in {:.1} s", start.elapsed().as_secs_f64());
    write_picture(&arguments.out, &picture, &about)?;
    println!("{}: {width}x{height} pixels", arguments.out.display());
    if let Some(bytes) = peak_memory() {
        println!("peak memory: {}", HumanBytes(bytes));
    }
    Ok(())
}

/// Time per step and time left: a bar in a terminal, else a line now and then.
struct Meter {
    bar: Option<ProgressBar>,
    start: Instant,
    last_line: Instant,
    steps: u32,
}

impl Meter {
    fn new() -> Self {
        let template = "{wide_bar} {pos}/{len}  {msg}";
        let bar = io::stderr().is_terminal().then(|| {
            ProgressBar::new(0).with_style(ProgressStyle::with_template(template).expect("a template"))
        });
        Meter { bar, start: Instant::now(), last_line: Instant::now(), steps: 0 }
    }

    fn step(&mut self, call: usize, calls: usize) {
        self.steps += 1;
        let each = self.start.elapsed() / self.steps;
        let left = each * (calls - call - 1) as u32;
        let text = format!("{:.2} s a step, {} left", each.as_secs_f64(), HumanDuration(left));
        match &self.bar {
            Some(bar) => {
                bar.set_length(calls as u64);
                bar.set_message(text);
                bar.set_position(call as u64 + 1);
            }
            None if self.last_line.elapsed() > Duration::from_secs(5) || call + 1 == calls => {
                println!("step {} of {calls}: {text}", call + 1);
                self.last_line = Instant::now();
            }
            None => {}
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.steps > 0 {
            let all = self.start.elapsed().as_secs_f64();
            println!(
                "{} calls of the network in {all:.1} s, {:.2} s each",
                self.steps,
                all / f64::from(self.steps)
            );
        }
    }
}

/// A picture file, upright, in this size; by default in its own, or smaller, with at most so many pixels: a photo of 12
/// million would take hours.
fn read_picture(path: &Path, size: Option<(usize, usize)>, most: usize) -> Result<Picture, Box<dyn Error>> {
    let photo = picture::read(path)?;
    let (height, width) = (photo.shape()[0], photo.shape()[1]);
    let (to_height, to_width) = match size {
        Some((width, height)) => (height, width),
        None => picture::size_within((height, width), most, 8),
    };
    check_size(to_height, to_width, 8)?;
    if size.is_none() && height * width > most {
        println!(
            "{}: {width}x{height} pixels would take very long; {to_width}x{to_height} it is, or what --size says",
            path.display()
        );
    }
    let same = (height, width) == (to_height, to_width);
    let photo = if same { photo } else { picture::fill(&photo, (to_height, to_width)) };
    Ok(Picture { height: to_height, width: to_width, rgb: photo.iter().copied().collect() })
}

/// The parameters as text, to be kept with the picture.
fn describe(arguments: &Arguments, sampler: Sampler, (width, height): (usize, usize)) -> String {
    let model = match &arguments.synthetic {
        Some(name) => format!("{name} with random weights"),
        None => arguments.model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let mut text = format!(
        "{}\nNegative prompt: {}\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {width}x{height}, Model: {model}, Weights: {}",
        arguments.prompt.as_deref().unwrap_or_default(),
        arguments.negative,
        arguments.steps,
        sampler,
        arguments.guidance,
        arguments.seed,
        if arguments.half { "half" } else { "single" },
    );
    if arguments.rescale > 0.0 {
        text += &format!(", CFG rescale: {}", arguments.rescale);
    }
    if arguments.eta > 0.0 {
        text += &format!(", Eta: {}", arguments.eta);
    }
    if let Some(init) = &arguments.init {
        let name = init.file_name().unwrap_or_default().to_string_lossy();
        text += &format!(", Denoising strength: {}, Init image: {name}", arguments.strength);
    }
    text
}

/// NAME-1.png for NAME.png.
fn preview_path(out: &Path, number: usize) -> PathBuf {
    let stem = out.file_stem().unwrap_or_default().to_string_lossy();
    out.with_file_name(format!("{stem}-{number}.png"))
}

/// Writes the picture, and the text if the format has a place for it.
fn write_picture(path: &Path, picture: &Picture, text: &str) -> Result<(), FileError> {
    let pixels = Array::new(picture.rgb.clone(), &[picture.height, picture.width, 3]);
    picture::write(path, &pixels, &[("parameters", text), ("Software", "minai")])
}

/// The most memory that this process ever had, in bytes; only Linux tells.
fn peak_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}
