//! Training steps on one batch: loss, backward pass and optimiser, by hand except for the U-Net.

use crate::Bench;
use crate::unet::UNet2D;
use minai::activation::leaky_relu;
use minai::conv::{ConvOptions, conv2d};
use minai::generator::Generator;
use minai::kernels::optim::{Decay, adam, sgd as sgd_step};
use minai::kernels::pool::Partial;
use minai::linear::linear;
use minai::loss::{cross_entropy, mse_loss};
use minai::nn::Pass;
use minai::norm::{Running, batch_norm};
use minai::optim;
use minai::optimizer::Optimizer;
use minai::pool::{Pool, avg_pool2d};
use minai::tensor::Tensor;

/// A parameter as PyTorch's layers begin: uniform between ± 1 / √(inputs).
fn uniform(rng: &mut Generator, shape: &[usize], inputs: usize) -> Tensor {
    let bound = 1.0 / (inputs as f64).sqrt();
    Tensor::parameter(rng.uniform(shape, -bound, bound))
}

pub struct Conv {
    pub weight: Tensor,
    pub bias: Tensor,
    pub options: ConvOptions,
}

impl Conv {
    pub fn new(rng: &mut Generator, c_in: usize, c_out: usize, kernel: usize, stride: usize) -> Self {
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
    fn new(rng: &mut Generator, inputs: usize, outputs: usize) -> Self {
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
        let parameter = |value| Tensor::parameter(Tensor::full([channels], value).data);
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
    fn new(rng: &mut Generator, c_in: usize, c_out: usize, stride: usize) -> Self {
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
        sgd_step(data, gradient, &mut [], [lr, 0.0, 0.0]);
    }
}

pub fn training(bench: &mut Bench, rng: &mut Generator) {
    for n in [50, 1024] {
        let (mut one, mut two) = (Linear::new(rng, 784, 50), Linear::new(rng, 50, 10));
        let (x, targets) = (Tensor::from(rng.randn(&[n, 784])), rng.randint(0, 10, &[n]));
        bench.time(&format!("train_mlp_784_50_10_b{n}"), || {
            let loss = cross_entropy(&two.forward(&one.forward(&x).relu()), &targets);
            loss.backward();
            sgd(vec![&mut one.weight, &mut one.bias, &mut two.weight, &mut two.bias], 0.1);
            loss.item()
        });
    }
    let mut convs =
        [1, 4, 8, 16, 16, 10].windows(2).map(|c| Conv::new(rng, c[0], c[1], 3, 2)).collect::<Vec<_>>();
    let (x, targets) = (Tensor::from(rng.randn(&[256, 1, 28, 28])), rng.randint(0, 10, &[256]));
    bench.time("train_cnn_1_4_8_16_16_10_b256", || {
        let (last, others) = convs.split_last().expect("five");
        let hidden = others.iter().fold(x.clone(), |x, conv| conv.forward(&x).relu());
        let loss = cross_entropy(&last.forward(&hidden).reshape([256, -1]), &targets);
        loss.backward();
        sgd(convs.iter_mut().flat_map(|conv| [&mut conv.weight, &mut conv.bias]).collect(), 0.1);
        loss.item()
    });
    let mut blocks: Vec<Residual> = [1, 8, 16, 32, 64, 128, 256]
        .windows(2)
        .map(|c| Residual::new(rng, c[0], c[1], if c[0] == 1 { 1 } else { 2 }))
        .collect();
    let (mut head, mut norm) = (uniform(rng, &[10, 256], 256), BatchNorm::new(10));
    let (mut means, mut t) = (Vec::new(), 0);
    bench.time("train_resnet_8_256_b256", || {
        let hidden = blocks.iter_mut().fold(x.clone(), |x, block| block.forward(&x));
        let logits = norm.forward(&linear(&hidden.reshape([256, -1]), &head, None));
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
            let (data, gradient) =
                (p.data.as_slice_mut().expect("contiguous"), gradient.as_slice().expect("contiguous"));
            adam(t, data, gradient, [m, v], [1e-3, 1e-8], [0.9, 0.999], Decay::Parameters(0.01));
        }
        loss.item()
    });
}

/// The U-Net's rows, with modules and an optimiser.
pub fn unet(bench: &mut Bench, rng: &mut Generator) {
    let [train, infer] = ["train_unet_16_128_b32", "infer_unet_16_128_b32"];
    if !bench.wants(train) && !bench.wants(infer) {
        return;
    }
    let model = UNet2D::new(rng);
    let [x, target] = [0, 1].map(|_| Tensor::from(rng.randn(&[32, 1, 32, 32])));
    let t: Vec<f32> = rng.randint(0, 1000, &[32]).iter().map(|&t| t as f32).collect();
    let rule = optim::AdamW { lr: 1e-3, weight_decay: 0.01, ..optim::AdamW::default() };
    let (mut optimizer, mut pass) = (Optimizer::new(&model, rule), Pass::train(rng.split()));
    bench.time(train, || {
        let loss = mse_loss(&model.forward(&x, &t, &mut pass), &target);
        loss.backward();
        optimizer.step();
        optimizer.zero_grad();
        loss.item()
    });
    bench.time(infer, || model.forward(&x, &t, &mut Pass::eval()));
}
