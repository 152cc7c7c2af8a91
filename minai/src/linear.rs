// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash f4b9ebb9e74d780e
//! A linear layer as one operation: y = x Wᵀ + b.

// %% notebooks/06_training.ipynb li-product
use minai::array::Array;
use minai::kernels::gemm::{Target, View, gemm, product};
use minai::tensor::{Tensor, contiguous, elements, from_op, sum_to};

/// x Wᵀ for `x` (rows, inputs) and `w` (outputs, inputs), added to what stands in y at first: the bias, in each row.
fn product_plus(x: &[f32], w: &[f32], bias: Vec<f32>, (rows, inputs): (usize, usize)) -> Vec<f32> {
    let (mut y, outputs) = (bias.repeat(rows), bias.len());
    let (x, w) = (View::rows(x, inputs), View::columns(w, inputs));
    gemm((rows, outputs, inputs), x, w, Target::add(&mut y, outputs));
    y
}

// %% notebooks/06_training.ipynb li-check
#[track_caller]
fn check_shapes(x: &[usize], weight: &[usize], bias: Option<&[usize]>) -> [usize; 2] {
    let &[outputs, inputs] = weight else {
        panic!("linear: weight of shape {weight:?}, (outputs, inputs) expected")
    };
    assert!(x.last() == Some(&inputs), "linear: weight {weight:?} for x of shape {x:?}");
    let bias_fits = bias.is_none_or(|bias| bias == [outputs]);
    assert!(bias_fits, "linear: bias of shape {bias:?} for {outputs} outputs");
    [outputs, inputs]
}

// %% notebooks/06_training.ipynb li-linear
/// x Wᵀ + bias for `x` (…, inputs), `weight` (outputs, inputs) and `bias` (outputs): the result is (…, outputs).
/// Panics if the shapes do not fit.
#[track_caller]
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let [outputs, inputs] = check_shapes(x.shape(), weight.shape(), bias.map(Tensor::shape));
    let outer = &x.shape()[..x.shape().len() - 1];
    let rows: usize = outer.iter().product();
    let (a, w) = (contiguous(&x.data), contiguous(&weight.data));
    let bias_row = bias.map_or(vec![0.0; outputs], |bias| bias.data.iter().copied().collect());
    let y = product_plus(elements(&a), elements(&w), bias_row, (rows, inputs));
    let parents: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    from_op("linear", Array::new(y, &[outer, &[outputs]].concat()), &parents, move |g, needs| {
        let (a_rows, w_rows) = (View::rows(elements(&a), inputs), View::rows(elements(&w), inputs));
        let (g_rows, g_columns) = (View::rows(elements(&g), outputs), View::columns(elements(&g), outputs));
        let dx = needs[0].then(|| Array::new(product((rows, inputs, outputs), g_rows, w_rows), a.shape()));
        let dw = needs[1].then(|| product((outputs, inputs, rows), g_columns, a_rows));
        let mut gradients = vec![dx, dw.map(|dw| Array::new(dw, &[outputs, inputs]))];
        gradients.extend(needs.get(2).map(|need| need.then(|| sum_to(g.clone(), &[outputs]))));
        gradients
    })
}
