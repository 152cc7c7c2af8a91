// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 9ae794694b9ed4ed
//! A linear layer as one operation: y = x Wᵀ + b.

// %% notebooks/06_training.ipynb li-linear
use minai::array::Array;
use minai::kernels::gemm::{Target, View, gemm, product};
use minai::tensor::{Tensor, contiguous, elements, from_op, sum_to};

/// x Wᵀ + bias for `x` (…, inputs), `weight` (outputs, inputs) and `bias` (outputs): the result is (…, outputs).
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    let (shape, &[outputs, inputs]) = (x.shape(), weight.shape()) else {
        panic!("linear: weight of shape {:?}, (outputs, inputs) expected", weight.shape())
    };
    assert!(shape.last() == Some(&inputs), "linear: weight {:?} for x of shape {shape:?}", weight.shape());
    let bias_fits = bias.is_none_or(|bias| bias.shape() == [outputs]);
    assert!(bias_fits, "linear: bias of shape {:?} for {outputs} outputs", bias.map(Tensor::shape));
    let rows: usize = shape[..shape.len() - 1].iter().product();
    let (a, w) = (contiguous(&x.data), contiguous(&weight.data));
    // The product is added to what stands in y: the bias, in each row.
    let bias_row = bias.map_or(vec![0.0; outputs], |bias| bias.data.iter().copied().collect());
    let mut y = bias_row.repeat(rows);
    let sizes = (rows, outputs, inputs);
    let (a_rows, w_columns) = (View::rows(elements(&a), inputs), View::columns(elements(&w), inputs));
    gemm(sizes, a_rows, w_columns, Target::add(&mut y, outputs));
    let y = Array::new(y, &[&shape[..shape.len() - 1], &[outputs]].concat());
    let parents: Vec<&Tensor> = [x, weight].into_iter().chain(bias).collect();
    from_op("linear", y, &parents, move |g, needs| {
        let (rows_of_g, mut gradients) = (elements(&g), vec![None, None]);
        if needs[0] {
            let (g, w) = (View::rows(rows_of_g, outputs), View::rows(elements(&w), inputs));
            let dx = product((rows, inputs, outputs), g, w);
            gradients[0] = Some(Array::new(dx, a.shape()));
        }
        if needs[1] {
            let (g, a) = (View::columns(rows_of_g, outputs), View::rows(elements(&a), inputs));
            let dw = product((outputs, inputs, rows), g, a);
            gradients[1] = Some(Array::new(dw, &[outputs, inputs]));
        }
        gradients.extend(needs.get(2).map(|need| need.then(|| sum_to(g, &[outputs]))));
        gradients
    })
}
