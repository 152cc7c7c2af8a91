//! The U-Net of `train_unet_16_128_b32`: diffusers' `UNet2DModel` with four levels of 16 to 128 channels and attention on
//! all levels but the finest, under diffusers' names.

use minai::activation::silu;
use minai::array::Array;
use minai::attention::scaled_dot_product_attention;
use minai::conv::{Conv2d, ConvOptions};
use minai::generator::Generator;
use minai::kernels::attention::Mask;
use minai::nn::{Layer, Linear, Module, Parts, Pass, named_parameters, parameter_count};
use minai::norm::{GroupNorm, group_norm_silu};
use minai::pool::upsample_nearest;
use minai::state::{Value, load, load_state_dict};
use minai::tensor::{Tensor, cat};
use minai::time_embedding::time_features;
use std::path::Path;
use std::process::Command;

/// Channels of each level.
const LEVELS: [usize; 4] = [16, 32, 64, 128];
/// Residual blocks of a level on the way down; on the way up there is one more.
const LAYERS: usize = 2;
const GROUPS: usize = 8;
/// Channels of an attention head.
const HEAD: usize = 8;
/// Width of the time's embedding.
const TIME: usize = 64;

const SAME: ConvOptions = ConvOptions { stride: 1, padding: 1, dilation: 1, groups: 1 };
const HALVED: ConvOptions = ConvOptions { stride: 2, ..SAME };
const POINT: ConvOptions = ConvOptions { padding: 0, ..SAME };

fn norm_silu(norm: &GroupNorm, x: &Tensor, pass: &Pass) -> Tensor {
    group_norm_silu(x, norm.groups, &pass.get(&norm.weight), &pass.get(&norm.bias), norm.eps)
}

struct Residual {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl Residual {
    fn new(rng: &mut Generator, c_in: usize, c_out: usize) -> Self {
        Residual {
            norm1: GroupNorm::new(GROUPS, c_in),
            conv1: Conv2d::new(rng, c_in, c_out, 3, SAME),
            time_emb_proj: Linear::new(rng, TIME, c_out),
            norm2: GroupNorm::new(GROUPS, c_out),
            conv2: Conv2d::new(rng, c_out, c_out, 3, SAME),
            conv_shortcut: (c_in != c_out).then(|| Conv2d::new(rng, c_in, c_out, 1, POINT)),
        }
    }

    /// x (n, c_in, h, w) and silu of the time's embedding (n, TIME): (n, c_out, h, w).
    fn forward(&self, x: &Tensor, time: &Tensor, pass: &mut Pass) -> Tensor {
        let y = self.conv1.forward(&norm_silu(&self.norm1, x, pass), pass);
        let y = y + self.time_emb_proj.forward(time, pass).unsqueeze(-1).unsqueeze(-1);
        let y = self.conv2.forward(&norm_silu(&self.norm2, &y, pass), pass);
        match &self.conv_shortcut {
            Some(shortcut) => y + shortcut.forward(x, pass),
            None => y + x,
        }
    }
}

impl Module for Residual {
    fn parts(&self, parts: &mut Parts) {
        parts.module("norm1", &self.norm1);
        parts.module("conv1", &self.conv1);
        parts.module("time_emb_proj", &self.time_emb_proj);
        parts.module("norm2", &self.norm2);
        parts.module("conv2", &self.conv2);
        if let Some(shortcut) = &self.conv_shortcut {
            parts.module("conv_shortcut", shortcut);
        }
    }
}

/// Self-attention of an image's pixels.
struct Attention {
    group_norm: GroupNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
}

impl Attention {
    fn new(rng: &mut Generator, channels: usize) -> Self {
        Attention {
            group_norm: GroupNorm::new(GROUPS, channels),
            to_q: Linear::new(rng, channels, channels),
            to_k: Linear::new(rng, channels, channels),
            to_v: Linear::new(rng, channels, channels),
            to_out: Linear::new(rng, channels, channels),
        }
    }
}

impl Module for Attention {
    fn parts(&self, parts: &mut Parts) {
        parts.module("group_norm", &self.group_norm);
        parts.module("to_q", &self.to_q);
        parts.module("to_k", &self.to_k);
        parts.module("to_v", &self.to_v);
        parts.module("to_out.0", &self.to_out);
    }
}

impl Layer for Attention {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let [n, c, h, w] = [0, 1, 2, 3].map(|axis| x.shape()[axis] as isize);
        let head = HEAD as isize;
        // (n, c, h, w) to (n, h·w, c)
        let y = self.group_norm.forward(x, pass).reshape([n, c, h * w]).transpose(1, 2);
        // (n, h·w, c) to (n, heads, h·w, HEAD)
        let split = |x: Tensor| x.reshape([n, h * w, c / head, head]).transpose(1, 2);
        let q = split(self.to_q.forward(&y, pass));
        let k = split(self.to_k.forward(&y, pass));
        let v = split(self.to_v.forward(&y, pass));
        let y = scaled_dot_product_attention(&q, &k, &v, Mask::None);
        let y = self.to_out.forward(&y.transpose(1, 2).reshape([n, h * w, c]), pass);
        y.transpose(1, 2).reshape([n, c, h, w]) + x
    }
}

/// A residual block, and attention on the levels that have it.
struct Stage {
    resnet: Residual,
    attention: Option<Attention>,
}

impl Stage {
    fn new(rng: &mut Generator, c_in: usize, c_out: usize, attends: bool) -> Self {
        let resnet = Residual::new(rng, c_in, c_out);
        Stage { resnet, attention: attends.then(|| Attention::new(rng, c_out)) }
    }

    fn forward(&self, x: &Tensor, time: &Tensor, pass: &mut Pass) -> Tensor {
        let y = self.resnet.forward(x, time, pass);
        self.attention.as_ref().map_or(y.clone(), |attention| attention.forward(&y, pass))
    }
}

/// The stages of a level, and the convolution that leads to the next one.
struct Level {
    stages: Vec<Stage>,
    /// `downsamplers` or `upsamplers`.
    name: &'static str,
    to_next: Option<Conv2d>,
}

impl Module for Level {
    fn parts(&self, parts: &mut Parts) {
        for (i, stage) in self.stages.iter().enumerate() {
            parts.module(&format!("resnets.{i}"), &stage.resnet);
            if let Some(attention) = &stage.attention {
                parts.module(&format!("attentions.{i}"), attention);
            }
        }
        if let Some(conv) = &self.to_next {
            parts.module(&format!("{}.0.conv", self.name), conv);
        }
    }
}

pub struct UNet2D {
    conv_in: Conv2d,
    time: [Linear; 2],
    down: Vec<Level>,
    mid: (Residual, Attention, Residual),
    up: Vec<Level>,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl UNet2D {
    pub fn new(rng: &mut Generator) -> Self {
        let (first, last) = (LEVELS[0], LEVELS[3]);
        let conv_in = Conv2d::new(rng, 1, first, 3, SAME);
        let time = [Linear::new(rng, first, TIME), Linear::new(rng, TIME, TIME)];
        let (mut down, mut c) = (Vec::new(), first);
        // What the way up takes over, from the finest to the coarsest.
        let mut skips = vec![first];
        for (i, width) in LEVELS.into_iter().enumerate() {
            let mut stages = Vec::new();
            for _ in 0..LAYERS {
                stages.push(Stage::new(rng, c, width, i > 0));
                (c, skips) = (width, [skips, vec![width]].concat());
            }
            let to_next = (i < 3).then(|| Conv2d::new(rng, width, width, 3, HALVED));
            skips.extend(to_next.as_ref().map(|_| width));
            down.push(Level { stages, name: "downsamplers", to_next });
        }
        let mid = (Residual::new(rng, last, last), Attention::new(rng, last), Residual::new(rng, last, last));
        let mut up = Vec::new();
        for (i, width) in LEVELS.into_iter().enumerate().rev() {
            let mut stages = Vec::new();
            for _ in 0..=LAYERS {
                let skip = skips.pop().expect("as many as there are blocks on the way up");
                stages.push(Stage::new(rng, c + skip, width, i > 0));
                c = width;
            }
            let to_next = (i > 0).then(|| Conv2d::new(rng, width, width, 3, SAME));
            up.push(Level { stages, name: "upsamplers", to_next });
        }
        let (norm_out, conv_out) = (GroupNorm::new(GROUPS, first), Conv2d::new(rng, first, 1, 3, SAME));
        UNet2D { conv_in, time, down, mid, up, norm_out, conv_out }
    }

    /// x (n, 1, h, w) and n times: (n, 1, h, w).
    pub fn forward(&self, x: &Tensor, t: &[f32], pass: &mut Pass) -> Tensor {
        let time = self.time[0].forward(&time_features(t, LEVELS[0], true, 0.0), pass);
        let time = silu(&self.time[1].forward(&silu(&time), pass));
        let mut x = self.conv_in.forward(x, pass);
        let mut skips = vec![x.clone()];
        for level in &self.down {
            for stage in &level.stages {
                x = stage.forward(&x, &time, pass);
                skips.push(x.clone());
            }
            if let Some(conv) = &level.to_next {
                x = conv.forward(&x, pass);
                skips.push(x.clone());
            }
        }
        x = self.mid.0.forward(&x, &time, pass);
        x = self.mid.1.forward(&x, pass);
        x = self.mid.2.forward(&x, &time, pass);
        for level in &self.up {
            for stage in &level.stages {
                let skip = skips.pop().expect("as many as there are blocks on the way up");
                x = stage.forward(&cat(&[&x, &skip], 1), &time, pass);
            }
            if let Some(conv) = &level.to_next {
                x = conv.forward(&upsample_nearest(&x, 2), pass);
            }
        }
        self.conv_out.forward(&norm_silu(&self.norm_out, &x, pass), pass)
    }
}

impl Module for UNet2D {
    fn parts(&self, parts: &mut Parts) {
        parts.module("conv_in", &self.conv_in);
        for (i, linear) in self.time.iter().enumerate() {
            parts.module(&format!("time_embedding.linear_{}", i + 1), linear);
        }
        for (i, level) in self.down.iter().enumerate() {
            parts.module(&format!("down_blocks.{i}"), level);
        }
        parts.module("mid_block.resnets.0", &self.mid.0);
        parts.module("mid_block.attentions.0", &self.mid.1);
        parts.module("mid_block.resnets.1", &self.mid.2);
        for (i, level) in self.up.iter().enumerate() {
            parts.module(&format!("up_blocks.{i}"), level);
        }
        parts.module("conv_norm_out", &self.norm_out);
        parts.module("conv_out", &self.conv_out);
    }
}

/// Has the peer save its U-Net's weights, an input and the output, and compares ours with it.
pub fn check(python: &str, peer: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let file = std::env::temp_dir().join(format!("minai-bench-unet-{}.safetensors", std::process::id()));
    let status = Command::new(python).arg(peer).arg("--save-unet").arg(&file).status()?;
    if !status.success() {
        return Err(format!("{} failed: {status}; it needs torch and diffusers", peer.display()).into());
    }
    let loaded = load(&file);
    std::fs::remove_file(&file)?;
    let (mut state, _) = loaded?;
    let mut floats = |name: &str| match state.remove(name) {
        Some(Value::F32(array)) => Ok(array),
        _ => Err(format!("the peer saved no floats named {name}")),
    };
    let (x, t, expected): (Array, Array, Array) = (floats("x")?, floats("t")?, floats("y")?);
    let model = UNet2D::new(&mut Generator::manual_seed(0));
    let theirs: usize = state.values().map(|value| value.shape().iter().product::<usize>()).sum();
    println!("parameters: {} here, {theirs} in diffusers", parameter_count(&model));
    load_state_dict(&model, &state)?;
    let times: Vec<f32> = t.iter().copied().collect();
    let y = model.forward(&x.into(), &times, &mut Pass::eval());
    let largest = expected.iter().fold(0.0_f32, |largest, y| largest.max(y.abs()));
    let difference = y.data.iter().zip(expected.iter()).fold(0.0_f32, |most, (y, z)| most.max((y - z).abs()));
    println!("largest difference: {:.1e} of the largest output", difference / largest);
    match named_parameters(&model).len() == state.len() && difference <= 1e-5 * largest {
        true => Ok(()),
        false => Err("the two networks differ".into()),
    }
}
