//! Times the work that `benches/torch_peer.py` does in PyTorch, under the same names, and prints the same JSON:
//! `cargo run --release -p minai --example bench -- [--only NAME,…] [--threads 2] [--sd] [--compare PYTHON]`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Parser;
use minai::activation::{leaky_relu, silu};
use minai::array::Array;
use minai::attention::scaled_dot_product_attention;
use minai::clip::{ClipConfig, ClipText};
use minai::conv::{Conv2d, ConvOptions, conv2d};
use minai::datasets::DataLoaders;
use minai::generator::Generator;
use minai::kernels::attention::Mask;
use minai::kernels::optim::{Adam, Sgd};
use minai::kernels::pool::Partial;
use minai::kernels::threads::with_threads;
use minai::learner::{Callback, Classifier, Flow, Learner, Task};
use minai::linear::linear;
use minai::loader::{Dataset, Labelled, LoaderOptions};
use minai::loss::{cross_entropy, softmax};
use minai::matmul::{
    matmul_dot, matmul_ipj, matmul_naive, matmul_packed, matmul_rows, matmul_threads, matmul_tiled,
    peak_gflops,
};
use minai::matrix::Matrix;
use minai::meanshift::normal;
use minai::nn::{self, Flatten, Layer, Pass, Relu, Sequential, parameter_count};
use minai::norm::{Running, batch_norm, group_norm, group_norm_silu};
use minai::optim;
use minai::optimizer::Optimizer;
use minai::pool::{Pool, avg_pool2d};
use minai::resnet::resnet;
use minai::rng::WichmannHill;
use minai::tensor::Tensor;
use minai::training::Classes;
use minai::unet::{UNet, UNetConfig};
use minai::vae::{AutoencoderKl, VaeConfig};
use minai::weights::{Keep, initialize};
use serde_json::{Value, json};

/// Times minai's operations and training steps, in milliseconds per call (median).
#[derive(Parser)]
struct Arguments {
    /// Only these, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    only: Vec<String>,
    /// How many threads work
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Run PyTorch too, with this interpreter (it needs torch): both in turn, and the ratio of their times
    #[arg(long, value_name = "PYTHON")]
    compare: Option<String>,
    /// Time the networks of Stable Diffusion v1 at full size, with random weights: 4 GB, or 2 with --half
    #[arg(long)]
    sd: bool,
    /// With --sd: keep the weights in 16 bits
    #[arg(long)]
    half: bool,
    /// How often both programs run in turn
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    if let Some(python) = &arguments.compare {
        return compare(python, &arguments);
    }
    let threads = arguments.threads;
    let mut bench =
        Bench { only: arguments.only, ms: serde_json::Map::new(), values: serde_json::Map::new() };
    let keep = if arguments.half { Keep::Half } else { Keep::Single };
    with_threads(threads, || {
        all(&mut bench);
        if arguments.sd {
            stable_diffusion(&mut bench, keep);
        }
    });
    if bench.ms.is_empty() && bench.values.is_empty() {
        return Err("no work of that name: run without --only to see all names".into());
    }
    let mut result = json!({ "minai": env!("CARGO_PKG_VERSION"), "threads": threads, "ms": bench.ms });
    result.as_object_mut().expect("an object").extend(bench.values);
    if let Some(megabytes) = peak_memory() {
        result["peak_memory_mb"] = json!(megabytes.round());
    }
    println!("{result}");
    Ok(())
}

struct Bench {
    only: Vec<String>,
    ms: serde_json::Map<String, Value>,
    values: serde_json::Map<String, Value>,
}

impl Bench {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }

    /// The median time of a call: after two to warm up, for one and a half seconds or 200 calls, but three at least.
    fn time<R>(&mut self, name: &str, mut work: impl FnMut() -> R) {
        if !self.wants(name) {
            return;
        }
        black_box(work());
        black_box(work());
        let (mut times, start) = (Vec::new(), Instant::now());
        while (start.elapsed() < Duration::from_millis(1500) || times.len() < 3) && times.len() < 200 {
            let start = Instant::now();
            black_box(work());
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        times.sort_by(f64::total_cmp);
        let median = (times[times.len() / 2] * 1e4).round() / 1e4;
        eprintln!("{name} {median}");
        self.ms.insert(name.into(), json!(median));
    }
}

// ---- The work

/// Standard normal numbers.
fn randn(rng: &mut WichmannHill, shape: &[usize]) -> Array {
    Array::new((0..shape.iter().product()).map(|_| normal(rng) as f32).collect(), shape)
}

/// A parameter as PyTorch's layers begin: uniform between ± 1 / √(inputs).
fn uniform(rng: &mut WichmannHill, shape: &[usize], inputs: usize) -> Tensor {
    let bound = 1.0 / (inputs as f64).sqrt();
    let numbers = (0..shape.iter().product()).map(|_| ((rng.uniform() * 2.0 - 1.0) * bound) as f32).collect();
    Tensor::parameter(Array::new(numbers, shape))
}

fn classes(rng: &mut WichmannHill, n: usize) -> Array<i64> {
    Array::new((0..n).map(|_| (rng.uniform() * 10.0) as i64).collect(), &[n])
}

fn all(bench: &mut Bench) {
    if bench.wants("peak_gflops") {
        let peak = peak_gflops();
        eprintln!("peak_gflops {peak:.1} (one core)");
        bench.values.insert("peak_gflops".into(), json!((peak * 10.0).round() / 10.0));
    }
    let rng = &mut WichmannHill::seed(42);
    operations(bench, rng);
    training(bench, rng);
    training_with_loader(bench);
    lesson_2(bench, rng);
}

fn operations(bench: &mut Bench, rng: &mut WichmannHill) {
    for n in [512, 1024, 2048] {
        let (name, shape) = (format!("matmul_{n}"), [n, n]);
        if bench.wants(&name) {
            let (x, y) = (Tensor::from(randn(rng, &shape)), Tensor::from(randn(rng, &shape)));
            bench.time(&name, || x.matmul(&y));
        }
    }
    if bench.wants("matmul_50000x784x10") {
        let (x, y) = (Tensor::from(randn(rng, &[50_000, 784])), Tensor::from(randn(rng, &[784, 10])));
        bench.time("matmul_50000x784x10", || x.matmul(&y));
    }
    bench.time("randn_784x10", || randn(rng, &[784, 10]));
    for (name, c_in, c_out, kernel, size, n, stride) in [
        ("conv3x3_320_64", 320, 320, 3, 64, 1, 1),
        ("conv3x3_64_384_64", 64, 384, 3, 64, 1, 1),
        ("conv3x3_16_28_b64", 16, 16, 3, 28, 64, 1),
        ("conv3x3_64_s2_b64", 64, 128, 3, 16, 64, 2),
        ("conv1x1_640_32", 640, 640, 1, 32, 1, 1),
    ] {
        if bench.wants(name) {
            let conv = Conv::new(rng, c_in, c_out, kernel, stride);
            let (weight, bias) = (conv.weight.detach(), conv.bias.detach()); // no graph
            let x = Tensor::from(randn(rng, &[n, c_in, size, size]));
            bench.time(name, || conv2d(&x, &weight, Some(&bias), conv.options));
        }
    }
    if bench.wants("attention_2x8x4096x40") {
        let q = Tensor::from(randn(rng, &[2, 8, 4096, 40]));
        bench.time("attention_2x8x4096x40", || scaled_dot_product_attention(&q, &q, &q, Mask::None));
    }
    let (weight, bias) = (Tensor::ones(&[320]), Tensor::zeros(&[320]));
    let x = Tensor::from(randn(rng, &[2, 320, 64, 64]));
    bench.time("groupnorm_silu_2x320x64x64", || group_norm_silu(&x, 32, &weight, &bias, 1e-5));
    bench.time("groupnorm_then_silu_2x320x64x64", || silu(&group_norm(&x, 32, &weight, &bias, 1e-5)));
    if bench.wants("softmax_4096x4096") {
        let x = Tensor::from(randn(rng, &[4096, 4096]));
        bench.time("softmax_4096x4096", || softmax(&x, -1));
    }
}

struct Conv {
    weight: Tensor,
    bias: Tensor,
    options: ConvOptions,
}

impl Conv {
    fn new(rng: &mut WichmannHill, c_in: usize, c_out: usize, kernel: usize, stride: usize) -> Self {
        let inputs = c_in * kernel * kernel;
        let weight = uniform(rng, &[c_out, c_in, kernel, kernel], inputs);
        let options = ConvOptions { stride, padding: kernel / 2, ..ConvOptions::default() };
        Conv { weight, bias: uniform(rng, &[c_out], inputs), options }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        conv2d(x, &self.weight, Some(&self.bias), self.options)
    }

    fn without_bias(&self, x: &Tensor) -> Tensor {
        conv2d(x, &self.weight, None, self.options)
    }
}

struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    fn new(rng: &mut WichmannHill, inputs: usize, outputs: usize) -> Self {
        Linear { weight: uniform(rng, &[outputs, inputs], inputs), bias: uniform(rng, &[outputs], inputs) }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        linear(x, &self.weight, Some(&self.bias))
    }
}

struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running: Running,
}

impl BatchNorm {
    fn new(channels: usize) -> Self {
        let parameter = |value| Tensor::parameter(Tensor::full(&[channels], value).data);
        BatchNorm { weight: parameter(1.0), bias: parameter(0.0), running: Running::new(channels) }
    }

    fn forward(&mut self, x: &Tensor) -> Tensor {
        batch_norm(x, &self.weight, &self.bias, &mut self.running, 1e-5)
    }
}

/// leaky(norm(conv(leaky(norm(conv(x))))) + identity(pool(x)))
struct Residual {
    convs: [Conv; 2],
    norms: [BatchNorm; 2],
    identity: Option<Conv>,
    stride: usize,
}

impl Residual {
    fn new(rng: &mut WichmannHill, c_in: usize, c_out: usize, stride: usize) -> Self {
        Residual {
            convs: [Conv::new(rng, c_in, c_out, 3, 1), Conv::new(rng, c_out, c_out, 3, stride)],
            norms: [BatchNorm::new(c_out), BatchNorm::new(c_out)],
            identity: (c_in != c_out).then(|| Conv::new(rng, c_in, c_out, 1, 1)),
            stride,
        }
    }

    fn forward(&mut self, x: &Tensor) -> Tensor {
        let a = leaky_relu(&self.norms[0].forward(&self.convs[0].without_bias(x)), 0.1);
        let b = self.norms[1].forward(&self.convs[1].without_bias(&a));
        let pool = Pool { partial: Partial::Keep, ..Pool::default() };
        let shortcut = if self.stride == 1 { x.clone() } else { avg_pool2d(x, 2, pool) };
        let shortcut =
            self.identity.as_ref().map_or_else(|| shortcut.clone(), |conv| conv.forward(&shortcut));
        leaky_relu(&(b + shortcut), 0.1)
    }

    fn parameters(&mut self) -> Vec<&mut Tensor> {
        let mut all = Vec::new();
        for (conv, norm) in self.convs.iter_mut().zip(&mut self.norms) {
            all.extend([&mut conv.weight, &mut norm.weight, &mut norm.bias]);
        }
        all.extend(self.identity.iter_mut().flat_map(|conv| [&mut conv.weight, &mut conv.bias]));
        all
    }
}

/// p ← p - lr · gradient, for each parameter.
fn sgd(parameters: Vec<&mut Tensor>, lr: f32) {
    for p in parameters {
        let gradient = p.take_grad().expect("a gradient");
        let (data, gradient) =
            (p.data.as_slice_mut().expect("contiguous"), gradient.as_slice().expect("contiguous"));
        Sgd { lr, momentum: 0.0, weight_decay: 0.0 }.step(data, gradient, &mut []);
    }
}

fn training(bench: &mut Bench, rng: &mut WichmannHill) {
    for n in [50, 1024] {
        let (mut one, mut two) = (Linear::new(rng, 784, 50), Linear::new(rng, 50, 10));
        let (x, targets) = (Tensor::from(randn(rng, &[n, 784])), classes(rng, n));
        bench.time(&format!("train_mlp_784_50_10_b{n}"), || {
            let loss = cross_entropy(&two.forward(&one.forward(&x).relu()), &targets);
            loss.backward();
            sgd(vec![&mut one.weight, &mut one.bias, &mut two.weight, &mut two.bias], 0.1);
            loss.item()
        });
    }
    let mut convs =
        [1, 4, 8, 16, 16, 10].windows(2).map(|c| Conv::new(rng, c[0], c[1], 3, 2)).collect::<Vec<_>>();
    let (x, targets) = (Tensor::from(randn(rng, &[256, 1, 28, 28])), classes(rng, 256));
    bench.time("train_cnn_1_4_8_16_16_10_b256", || {
        let (last, others) = convs.split_last().expect("five");
        let hidden = others.iter().fold(x.clone(), |x, conv| conv.forward(&x).relu());
        let loss = cross_entropy(&last.forward(&hidden).reshape(&[256, -1]), &targets);
        loss.backward();
        sgd(convs.iter_mut().flat_map(|conv| [&mut conv.weight, &mut conv.bias]).collect(), 0.1);
        loss.item()
    });
    let mut blocks: Vec<Residual> = [1, 8, 16, 32, 64, 128, 256]
        .windows(2)
        .map(|c| Residual::new(rng, c[0], c[1], if c[0] == 1 { 1 } else { 2 }))
        .collect();
    let (mut head, mut norm) = (uniform(rng, &[10, 256], 256), BatchNorm::new(10));
    let adam = Adam { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let (mut means, mut t) = (Vec::new(), 0);
    bench.time("train_resnet_8_256_b256", || {
        let hidden = blocks.iter_mut().fold(x.clone(), |x, block| block.forward(&x));
        let logits = norm.forward(&linear(&hidden.reshape(&[256, -1]), &head, None));
        let loss = cross_entropy(&logits, &targets);
        loss.backward();
        let mut parameters: Vec<&mut Tensor> = blocks.iter_mut().flat_map(Residual::parameters).collect();
        parameters.extend([&mut head, &mut norm.weight, &mut norm.bias]);
        means.resize_with(parameters.len(), || (Vec::new(), Vec::new()));
        t += 1;
        for (p, (m, v)) in parameters.into_iter().zip(&mut means) {
            let gradient = p.take_grad().expect("a gradient");
            m.resize(gradient.len(), 0.0);
            v.resize(gradient.len(), 0.0);
            adam.step(
                t,
                p.data.as_slice_mut().expect("contiguous"),
                gradient.as_slice().expect("contiguous"),
                m,
                v,
            );
        }
        loss.item()
    });
}

/// Examples without end: the same few batches again and again.
struct Repeated {
    data: Labelled,
    len: usize,
}

impl Dataset for Repeated {
    type Batch = Classes;

    fn len(&self) -> usize {
        self.len
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> Classes {
        let indices: Vec<usize> = indices.iter().map(|i| i % self.data.len()).collect();
        self.data.batch(&indices, rng)
    }
}

/// Writes down when batches are done, and stops when there are enough.
#[derive(Default)]
struct Clock {
    times: Vec<Instant>,
}

impl Clock {
    /// The median time from one batch to the next.
    fn median(&self) -> f64 {
        let mut steps: Vec<f64> =
            self.times.windows(2).skip(5).map(|pair| (pair[1] - pair[0]).as_secs_f64() * 1e3).collect();
        steps.sort_by(f64::total_cmp);
        steps[steps.len() / 2]
    }

    fn is_enough(&mut self) -> bool {
        self.times.push(Instant::now());
        let n = self.times.len();
        n > 8 && (n > 1000 || self.times[n - 1] - self.times[0] > Duration::from_millis(1500))
    }
}

impl<T: Task> Callback<T> for Clock {
    fn after_batch(&mut self, _: &mut Learner<T>) -> Flow {
        if self.is_enough() { Flow::Stop } else { Flow::Continue }
    }
}

/// The same training with modules and a loader: in a bare loop (`NAME_bare`), and through `Learner` (`NAME_learner`).
fn with_loader<L: Layer>(
    bench: &mut Bench,
    name: &str,
    batch_size: usize,
    shape: &[usize],
    parts: impl Fn(&mut Generator) -> (L, Optimizer),
) {
    let names = [format!("{name}_bare"), format!("{name}_learner")];
    if !names.iter().any(|name| bench.wants(name)) {
        return;
    }
    let mut rng = Generator::manual_seed(42);
    let rows = 4 * batch_size;
    let x = rng.randn(&[&[rows], shape].concat());
    let data = Labelled::new(x, rng.randint(0, 10, &[rows]));
    let (all, few) = (1_100 * batch_size, Repeated { data: data.clone(), len: batch_size });
    let options = LoaderOptions { batch_size, ..LoaderOptions::default() };
    let loaders = DataLoaders::new(Repeated { data, len: all }, few, options);
    // One after the other, three times: what else goes on in the machine meets both.
    let mut medians = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        let (model, mut optimizer) = parts(&mut rng);
        let (mut clock, mut pass) = (Clock::default(), Pass::train(rng.split()));
        for (x, y) in loaders.train.epoch(&mut rng) {
            let loss = cross_entropy(&model.forward(&x.into(), &mut pass), &y);
            loss.backward();
            optimizer.step();
            optimizer.zero_grad();
            black_box(loss.item());
            if clock.is_enough() {
                break;
            }
        }
        medians[0].push(clock.median());
        let (model, optimizer) = parts(&mut rng);
        let mut clock = Clock::default();
        let mut learner = Learner::new(name, Classifier { model }, optimizer, rng.split());
        learner.fit(1, &loaders, &mut [&mut clock]).expect("a training that learns");
        medians[1].push(clock.median());
    }
    for (name, mut medians) in names.into_iter().zip(medians) {
        medians.sort_by(f64::total_cmp);
        let median = (medians[1] * 1e4).round() / 1e4;
        eprintln!("{name} {median}");
        bench.ms.insert(name, json!(median));
    }
}

fn training_with_loader(bench: &mut Bench) {
    for n in [50, 1024] {
        with_loader(bench, &format!("train_mlp_784_50_10_b{n}"), n, &[784], |rng| {
            let one = nn::Linear::new(rng, 784, 50);
            let model = Sequential::new().add(one).add(Relu).add(nn::Linear::new(rng, 50, 10));
            let optimizer = Optimizer::new(&model, optim::Sgd { lr: 0.1, ..optim::Sgd::default() });
            (model, optimizer)
        });
    }
    with_loader(bench, "train_cnn_1_4_8_16_16_10_b256", 256, &[1, 28, 28], |rng| {
        let options = ConvOptions { stride: 2, padding: 1, ..ConvOptions::default() };
        let mut model = Sequential::new();
        for c in [1, 4, 8, 16, 16].windows(2) {
            model = model.add(Conv2d::new(rng, c[0], c[1], 3, options)).add(Relu);
        }
        let model = model.add(Conv2d::new(rng, 16, 10, 3, options)).add(Flatten);
        let optimizer = Optimizer::new(&model, optim::Sgd { lr: 0.1, ..optim::Sgd::default() });
        (model, optimizer)
    });
    with_loader(bench, "train_resnet_8_256_b256", 256, &[1, 28, 28], |rng| {
        let model = resnet(rng, 1, &[8, 16, 32, 64, 128, 256], 10);
        let optimizer = Optimizer::new(&model, optim::AdamW::default());
        (model, optimizer)
    });
}

/// Lesson 2's way, step by step: 256³ where it is slow, 1024³ where it is fast. One core unless the name says two.
fn lesson_2(bench: &mut Bench, rng: &mut WichmannHill) {
    type Multiply = fn(&Matrix, &Matrix) -> Matrix;
    let steps: [(&str, usize, Multiply); 8] = [
        ("lesson2_naive_256", 256, matmul_naive),
        ("lesson2_loop_order_256", 256, matmul_ipj),
        ("lesson2_rows_256", 256, matmul_rows),
        ("lesson2_dot_256", 256, matmul_dot),
        ("lesson2_tiled_256", 256, matmul_tiled),
        ("lesson2_tiled_1024", 1024, matmul_tiled),
        ("lesson2_packed_1024", 1024, matmul_packed),
        ("lesson2_two_threads_1024", 1024, |a, b| matmul_threads(a, b, 2)),
    ];
    for (name, n, multiply) in steps {
        if bench.wants(name) {
            let mut numbers =
                || Matrix::new((0..n * n).map(|_| rng.uniform() as f32 - 0.5).collect(), (n, n));
            let (a, b) = (numbers(), numbers());
            bench.time(name, || multiply(&a, &b));
        }
    }
}

/// Stable Diffusion v1 at full size: two embedded prompts, one step of guided sampling for a picture of 512 by 512, and
/// that picture's decoding. All three networks are in memory at once.
fn stable_diffusion(bench: &mut Bench, keep: Keep) {
    let (rng, pass) = (&mut Generator::manual_seed(0), &mut Pass::eval());
    let [text, step, decode] = ["sd15_text_b2", "sd15_unet_b2_64x64", "sd15_vae_decode_64x64"];
    if ![text, step, decode].iter().any(|name| bench.wants(name)) {
        return;
    }
    let clip = ClipText::new(&ClipConfig::sd15());
    let unet = UNet::new(&UNetConfig::sd15());
    let vae = AutoencoderKl::new(&VaeConfig::sd15());
    initialize(&clip, rng, keep);
    initialize(&unet, rng, keep);
    initialize(&vae, rng, keep);
    let parameters = parameter_count(&clip) + parameter_count(&unet) + parameter_count(&vae);
    bench.values.insert("sd_params".into(), json!(parameters));
    bench.values.insert("sd_weights_mb".into(), json!(peak_memory().map(f64::round)));
    let tokens = Array::new((0..154).map(|i| i * 317 % 49_000).collect(), &[2, 77]);
    bench.time(text, || clip.forward(&tokens, pass));
    let (x, context) = (rng.randn(&[2, 4, 64, 64]).into(), rng.randn(&[2, 77, 768]).into());
    bench.time(step, || unet.forward(&x, &[500.0], &context, pass));
    let latents = rng.randn(&[1, 4, 64, 64]).into();
    bench.time(decode, || vae.decode(&latents, pass));
}

// ---- The comparison

/// The most memory that this process has used so far, in megabytes, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / 1024.0)
}

/// Runs this program and PyTorch's in turn, and prints for each name the median of the ratios and their range.
fn compare(python: &str, arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let peer = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/torch_peer.py");
    let ours = std::env::current_exe()?;
    let mut ratios: BTreeMap<String, Vec<[f64; 2]>> = BTreeMap::new();
    for round in 1..=arguments.rounds.max(1) {
        eprintln!("round {round} of {}", arguments.rounds.max(1));
        let mut command = Command::new(&ours);
        command.args(arguments.half.then_some("--half"));
        let minai = times(&mut command, arguments)?;
        let torch = times(Command::new(python).arg(&peer), arguments)?;
        for (name, minai) in minai {
            if let Some(torch) = torch.get(&name) {
                ratios.entry(name).or_default().push([minai, *torch]);
            }
        }
    }
    println!("{:<34} {:>10} {:>10} {:>7}   range", "median ms, minai / PyTorch", "minai", "PyTorch", "ratio");
    for (name, pairs) in &ratios {
        let sorted = |f: fn(&[f64; 2]) -> f64| {
            let mut values: Vec<f64> = pairs.iter().map(f).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let [ours, theirs, ratio] =
            [sorted(|pair| pair[0]), sorted(|pair| pair[1]), sorted(|pair| pair[0] / pair[1])];
        let middle = pairs.len() / 2;
        let (least, most) = (ratio[0], ratio[ratio.len() - 1]);
        println!(
            "{name:<34} {:>10.3} {:>10.3} {:>7.2}   {least:.2} to {most:.2}",
            ours[middle], theirs[middle], ratio[middle]
        );
    }
    Ok(())
}

/// The milliseconds in the JSON object that a program prints last.
fn times(
    command: &mut Command,
    arguments: &Arguments,
) -> Result<BTreeMap<String, f64>, Box<dyn std::error::Error>> {
    command.args(["--threads", &arguments.threads.to_string()]);
    if !arguments.only.is_empty() {
        command.args(["--only", &arguments.only.join(",")]);
    }
    if arguments.sd {
        command.arg("--sd");
    }
    let output = command.stderr(std::process::Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().filter(|_| output.status.success());
    let result: Value =
        serde_json::from_str(last.ok_or_else(|| format!("{command:?} failed: {}", output.status))?)?;
    let ms = result["ms"].as_object().ok_or("no times in its output")?;
    Ok(ms.iter().filter_map(|(name, ms)| Some((name.clone(), ms.as_f64()?))).collect())
}
