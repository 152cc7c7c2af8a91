// Owned by notebooks/32_clip_text.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash e0df6ef5b94d6db7
//! Scaled dot product attention.

// %% notebooks/32_clip_text.ipynb at-sdpa
use minai::array::Array;
use minai::kernels;
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
    let kept = out.clone();
    from_op("scaled_dot_product_attention", out, &[q, k, v], move |g, needs| {
        let inputs = saved.each_ref().map(elements);
        let gradients =
            kernels::attention::backward(shape, mask, scale, inputs, elements(&kept), &lse, elements(&g));
        let each = gradients.into_iter().zip(&saved).zip(needs);
        each.map(|((gradient, x), need)| need.then(|| Array::new(gradient, x.shape()))).collect()
    })
}

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
