// Owned by notebooks/23_attention.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash b217b1a4b2ec78cb
//! Scaled dot product attention.

// %% notebooks/23_attention.ipynb at-shape
use minai::array::Array;
use minai::kernels;

/// Sizes for the kernel, and the shape of the result.
#[track_caller]
fn attention_shape(q: &[usize], k: &[usize], v: &[usize]) -> (kernels::attention::Shape, Vec<usize>) {
    let complain =
        || -> ! { panic!("scaled_dot_product_attention: shapes {q:?}, {k:?} and {v:?} do not fit") };
    let ([before @ .., queries, width], [of_k @ .., keys, k_width], [of_v @ .., v_keys, value_width]) =
        (q, k, v)
    else {
        complain()
    };
    if before != of_k || before != of_v || width != k_width || keys != v_keys {
        complain()
    }
    let shape = kernels::attention::Shape {
        heads: before.iter().product(),
        queries: *queries,
        keys: *keys,
        width: *width,
        value_width: *value_width,
    };
    (shape, [before, &[*queries, *value_width]].concat())
}

// %% notebooks/23_attention.ipynb at-sdpa
use minai::kernels::attention::Mask;
use minai::tensor::{Tensor, contiguous, elements, from_op};

/// softmax(q kᵀ / √width) v, with the queries q (…, queries, width), the keys k (…, keys, width) and the values v
/// (…, keys, value width); the axes before are the same in all three. With [`Mask::Causal`], query i sees keys 0 to i.
/// Vaswani et al. 2017, equation 1.
///
/// # Panics
/// If the shapes are not these.
#[track_caller]
pub fn scaled_dot_product_attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask) -> Tensor {
    let (shape, result) = attention_shape(q.shape(), k.shape(), v.shape());
    let scale = 1.0 / (shape.width as f32).sqrt();
    let saved = [q, k, v].map(|x| contiguous(&x.data));
    let [a, b, c] = saved.each_ref().map(elements);
    let (out, lse) = kernels::attention::forward(shape, mask, scale, a, b, c);
    let out = Array::new(out, &result);
    from_op("scaled_dot_product_attention", out.clone(), &[q, k, v], move |g, needs| {
        let inputs = saved.each_ref().map(elements);
        let gradients =
            kernels::attention::backward(shape, mask, scale, inputs, elements(&out), &lse, elements(&g));
        let each = gradients.into_iter().zip(&saved).zip(needs);
        each.map(|((gradient, x), need)| need.then(|| Array::new(gradient, x.shape()))).collect()
    })
}

// %% notebooks/23_attention.ipynb at-multi
/// (n, length, width) to (n, heads, length, width / heads).
#[track_caller]
fn split_heads(x: &Tensor, heads: usize) -> Tensor {
    let &[n, length, width] = x.shape() else {
        panic!("multi_head: (n, length, width) expected, shape {:?}", x.shape())
    };
    assert!(heads > 0 && width.is_multiple_of(heads), "multi_head: {heads} heads for shape {:?}", x.shape());
    x.reshape((n, length, heads, width / heads)).transpose(1, 2)
}

/// [`scaled_dot_product_attention`] in `heads` parts of the width, each on its own: from queries (n, queries, width), keys
/// and values (n, keys, width) to (n, queries, width). Vaswani et al. 2017, section 3.2.2.
///
/// # Panics
/// If the shapes are not these, or `heads` does not divide the width.
#[track_caller]
pub fn multi_head(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize, mask: Mask) -> Tensor {
    let [q, k, v] = [split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)];
    let y = scaled_dot_product_attention(&q, &k, &v, mask);
    let [n, heads, queries, width] = [0, 1, 2, 3].map(|axis| y.shape()[axis]);
    y.transpose(1, 2).reshape((n, queries, heads * width))
}

// %% notebooks/23_attention.ipynb at-layer
use minai::nn::{Init, Layer, Linear, Module, Parameter, Parts, Pass};

/// Attention of several heads with its projections: PyTorch's `nn.MultiheadAttention` with `batch_first=True`. As a
/// [`Layer`] it is self-attention without a mask.
#[derive(Debug)]
pub struct MultiheadAttention {
    /// The number of heads.
    pub heads: usize,
    /// (3 · width, width): the rows for queries, then for keys, then for values.
    pub in_proj_weight: Parameter,
    /// (3 · width)
    pub in_proj_bias: Parameter,
    /// From the heads, side by side, to the result.
    pub out_proj: Linear,
}

// %% notebooks/23_attention.ipynb at-layer-parts
use std::fmt;

impl Module for MultiheadAttention {
    fn parts(&self, parts: &mut Parts) {
        parts.parameter("in_proj_weight", &self.in_proj_weight);
        parts.parameter("in_proj_bias", &self.in_proj_bias);
        parts.module("out_proj", &self.out_proj);
    }

    fn describe(&self) -> String {
        format!("embed_dim={}, num_heads={}", self.in_proj_weight.shape()[1], self.heads)
    }
}

impl fmt::Display for MultiheadAttention {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/23_attention.ipynb at-layer-new
/// A bias that begins with 0.
fn zero_bias(init: &mut dyn Init, size: usize) -> Parameter {
    init.parameter(&[size], &|_| Array::new(vec![0.0; size], &[size]))
}

impl MultiheadAttention {
    /// For vectors of this width, with PyTorch's initial weights if `init` is a generator.
    ///
    /// # Panics
    /// If `heads` does not divide `width`.
    #[track_caller]
    pub fn new(init: &mut dyn Init, width: usize, heads: usize) -> Self {
        let divides = heads > 0 && width.is_multiple_of(heads);
        assert!(divides, "MultiheadAttention: {heads} heads for vectors of width {width}");
        let mut out_proj = Linear::new(init, width, width);
        let (shape, bound) = ([3 * width, width], 3f64.sqrt() * (2.0 / (4 * width) as f64).sqrt());
        let in_proj_weight = init.parameter(&shape, &|rng| rng.uniform(&shape, -bound, bound));
        let in_proj_bias = zero_bias(init, 3 * width);
        out_proj.bias = Some(zero_bias(init, width));
        MultiheadAttention { heads, in_proj_weight, in_proj_bias, out_proj }
    }
}

// %% notebooks/23_attention.ipynb at-project
use minai::linear::linear;
use ndarray::s;

/// x Wᵀ + b with one of the three parts of the weight (3 · width, width) and the bias (3 · width): `i` is 0, 1 or 2.
#[track_caller]
fn project_by(x: &Tensor, weight: &Tensor, bias: &Tensor, i: usize) -> Tensor {
    let width = weight.shape()[1];
    let (from, to) = (i * width, (i + 1) * width);
    linear(x, &weight.slice(s![from..to, ..]), Some(&bias.slice(s![from..to])))
}

// %% notebooks/23_attention.ipynb at-layer-attend
impl MultiheadAttention {
    /// From `q` (n, queries, width), and `k` and `v` (n, keys, width), to (n, queries, width).
    ///
    /// # Panics
    /// If the shapes are not these.
    #[track_caller]
    pub fn attend(&self, q: &Tensor, k: &Tensor, v: &Tensor, mask: Mask, pass: &mut Pass) -> Tensor {
        let (weight, bias) = (pass.get(&self.in_proj_weight), pass.get(&self.in_proj_bias));
        let [q, k, v] = [(q, 0), (k, 1), (v, 2)].map(|(x, i)| project_by(x, &weight, &bias, i));
        let seen = multi_head(&q, &k, &v, self.heads, mask);
        pass.call("out_proj", &self.out_proj, &seen)
    }
}

impl Layer for MultiheadAttention {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        self.attend(x, x, x, Mask::None, pass)
    }
}
