//! Operations one by one, lesson 2's steps, and the networks of Stable Diffusion.

use crate::training::Conv;
use crate::{Bench, peak_memory};
use minai::activation::silu;
use minai::array::Array;
use minai::attention::scaled_dot_product_attention;
use minai::clip::{ClipConfig, ClipText};
use minai::conv::conv2d;
use minai::generator::Generator;
use minai::kernels::attention::Mask;
use minai::loss::softmax;
use minai::matmul::{
    matmul_dot, matmul_ipj, matmul_naive, matmul_packed, matmul_rows, matmul_threads, matmul_tiled,
};
use minai::matrix::Matrix;
use minai::nn::{Pass, parameter_count};
use minai::norm::{group_norm, group_norm_silu};
use minai::tensor::Tensor;
use minai::unet::{UNet, UNetConfig};
use minai::vae::{AutoencoderKl, VaeConfig};
use minai::weights::{Pending, Precision, initialize};
use serde_json::json;

pub fn operations(bench: &mut Bench, rng: &mut Generator) {
    for n in [512, 1024, 2048] {
        let (name, shape) = (format!("matmul_{n}"), [n, n]);
        if bench.wants(&name) {
            let (x, y) = (Tensor::from(rng.randn(&shape)), Tensor::from(rng.randn(&shape)));
            bench.time(&name, || x.matmul(&y));
        }
    }
    if bench.wants("matmul_50000x784x10") {
        let (x, y) = (Tensor::from(rng.randn(&[50_000, 784])), Tensor::from(rng.randn(&[784, 10])));
        bench.time("matmul_50000x784x10", || x.matmul(&y));
    }
    bench.time("randn_784x10", || rng.randn(&[784, 10]));
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
            let x = Tensor::from(rng.randn(&[n, c_in, size, size]));
            bench.time(name, || conv2d(&x, &weight, Some(&bias), conv.options));
        }
    }
    if bench.wants("attention_2x8x4096x40") {
        let q = Tensor::from(rng.randn(&[2, 8, 4096, 40]));
        bench.time("attention_2x8x4096x40", || scaled_dot_product_attention(&q, &q, &q, Mask::None));
    }
    let (weight, bias) = (Tensor::ones([320]), Tensor::zeros([320]));
    let x = Tensor::from(rng.randn(&[2, 320, 64, 64]));
    bench.time("groupnorm_silu_2x320x64x64", || group_norm_silu(&x, 32, &weight, &bias, 1e-5));
    bench.time("groupnorm_then_silu_2x320x64x64", || silu(&group_norm(&x, 32, &weight, &bias, 1e-5)));
    if bench.wants("softmax_4096x4096") {
        let x = Tensor::from(rng.randn(&[4096, 4096]));
        bench.time("softmax_4096x4096", || softmax(&x, -1));
    }
}

/// Lesson 2's way, step by step: 256³ where it is slow, 1024³ where it is fast. One core unless the name says two.
pub fn lesson_2(bench: &mut Bench, rng: &mut Generator) {
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
                || Matrix::new(rng.uniform(&[n * n], -0.5, 0.5).iter().copied().collect(), (n, n));
            let (a, b) = (numbers(), numbers());
            bench.time(name, || multiply(&a, &b));
        }
    }
}

/// Stable Diffusion v1 at full size: two embedded prompts, one step of guided sampling for a picture of 512 by 512, and
/// that picture's decoding. All three networks are in memory at once.
pub fn stable_diffusion(bench: &mut Bench, keep: Precision) {
    let (rng, pass) = (&mut Generator::manual_seed(0), &mut Pass::eval());
    let [text, step, decode] = ["sd15_text_b2", "sd15_unet_b2_64x64", "sd15_vae_decode_64x64"];
    if ![text, step, decode].iter().any(|name| bench.wants(name)) {
        return;
    }
    let clip = ClipText::new(&mut Pending, &ClipConfig::sd15());
    let unet = UNet::new(&mut Pending, &UNetConfig::sd15());
    let vae = AutoencoderKl::new(&mut Pending, &VaeConfig::sd15());
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
