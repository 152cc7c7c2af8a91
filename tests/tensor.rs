//! The engine and its operations: gradients against finite differences, the edges against PyTorch's facts, and what the
//! backward pass keeps, frees and copies.

use minai::array::{Array, array};
use minai::kernels::threads::with_threads;
use minai::tensor::{
    Tensor, broadcast_shape, cat, contiguous, from_op, grad_check, map, stack, sum_to, tensor, where_, zip,
};
use ndarray::{SliceInfoElem, s};
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// Numbers around 1, both signs, none near 0 and no two within 0.09, so that no kink is near.
fn numbers(shape: &[usize]) -> Array {
    let len = shape.iter().product();
    let number = |i: usize| {
        let magnitude = 0.2 + 0.1 * ((i * 7 + len) % 17) as f32 + 0.001 * i as f32;
        if i % 3 == 1 { -magnitude } else { magnitude }
    };
    Array::new((0..len).map(number).collect(), shape)
}

fn positive(shape: &[usize]) -> Array {
    map(numbers(shape), f32::abs)
}

fn ints(numbers: &[i64], shape: &[usize]) -> Array<i64> {
    Array::new(numbers.to_vec(), shape)
}

type Op = Box<dyn Fn(&[Tensor]) -> Tensor>;

fn op(f: impl Fn(&[Tensor]) -> Tensor + 'static) -> Op {
    Box::new(f)
}

/// Every operation, with the shapes that matter.
fn operations() -> Vec<(&'static str, Op, Vec<Array>)> {
    let n = numbers;
    let mask = Array::new(vec![true, false, false, true, false, true], &[2, 3]);
    let mask_row = Array::new(vec![true, false, true], &[3]);
    let (mask_1, mask_2) = (mask.clone(), mask_row.clone());
    vec![
        ("add", op(|x| &x[0] + &x[1]), vec![n(&[2, 3]), n(&[2, 3])]),
        ("add, broadcast both ways", op(|x| &x[0] + &x[1]), vec![n(&[2, 1, 3]), n(&[4, 1])]),
        ("add, of a number", op(|x| &x[0] + &x[1]), vec![n(&[]), n(&[2, 2])]),
        ("sub", op(|x| &x[0] - &x[1]), vec![n(&[3]), n(&[2, 3])]),
        ("mul", op(|x| &x[0] * &x[1]), vec![n(&[2, 3]), n(&[2, 3])]),
        ("mul, broadcast", op(|x| &x[0] * &x[1]), vec![n(&[2, 1, 4]), n(&[3, 1])]),
        ("div", op(|x| &x[0] / &x[1]), vec![n(&[2, 3]), positive(&[2, 3])]),
        ("div, broadcast", op(|x| &x[0] / &x[1]), vec![n(&[2, 3]), positive(&[3])]),
        ("div, broadcast up", op(|x| &x[0] / &x[1]), vec![n(&[1]), positive(&[2, 3])]),
        ("with numbers", op(|x| 2.0 - (3.0 * &x[0] + 1.0) / 4.0 - 0.5), vec![n(&[5])]),
        ("number / x", op(|x| 1.5 / &x[0]), vec![positive(&[5])]),
        ("number + x, number * x, x - number", op(|x| (1.5 + &x[0]) * 2.0 - 1.0), vec![n(&[2, 2])]),
        ("neg", op(|x| -&x[0]), vec![n(&[3])]),
        ("a number used twice", op(|x| &x[0] * &x[0] + &x[0]), vec![n(&[4])]),
        ("x * x.T", op(|x| &x[0] * x[0].t()), vec![n(&[3, 3])]),
        ("matmul", op(|x| x[0].matmul(&x[1])), vec![n(&[3, 4]), n(&[4, 2])]),
        ("matmul, vectors", op(|x| x[0].matmul(&x[1])), vec![n(&[4]), n(&[4])]),
        ("matmul, row", op(|x| x[0].matmul(&x[1])), vec![n(&[4]), n(&[4, 2])]),
        ("matmul, row, batch", op(|x| x[0].matmul(&x[1])), vec![n(&[4]), n(&[3, 4, 2])]),
        ("matmul, column", op(|x| x[0].matmul(&x[1])), vec![n(&[3, 4]), n(&[4])]),
        ("matmul, batch", op(|x| x[0].matmul(&x[1])), vec![n(&[2, 3, 4]), n(&[2, 4, 2])]),
        ("matmul, tall", op(|x| x[0].matmul(&x[1])), vec![n(&[2, 3, 4]), n(&[4, 2])]),
        ("matmul, broadcast", op(|x| x[0].matmul(&x[1])), vec![n(&[2, 1, 3, 4]), n(&[5, 4, 2])]),
        ("matmul, wide", op(|x| x[0].matmul(&x[1])), vec![n(&[3, 4]), n(&[2, 4, 2])]),
        ("matmul, transposed", op(|x| x[0].t().matmul(&x[1].t())), vec![n(&[4, 3]), n(&[2, 4])]),
        ("matmul, sliced", op(|x| x[0].slice(s![.., 1..;2]).matmul(&x[1].slice(s![..2, ..]))), vec![n(&[3, 5]), n(&[4, 2])]),
        ("matmul with itself", op(|x| x[0].matmul(&x[0])), vec![n(&[3, 3])]),
        ("sum", op(|x| x[0].sum(..)), vec![n(&[2, 3])]),
        ("sum, axis", op(|x| x[0].sum(1)), vec![n(&[2, 3, 2])]),
        ("sum, axes", op(|x| x[0].sum([0, -1])), vec![n(&[2, 3, 2])]),
        ("sum, keepdim", op(|x| &x[0] / x[0].powi(2).sum_keepdim(-1)), vec![n(&[2, 3])]),
        ("sum of no axes", op(|x| x[0].sum([])), vec![n(&[2, 3])]),
        ("mean", op(|x| x[0].mean(..)), vec![n(&[2, 3])]),
        ("mean, keepdim", op(|x| &x[0] - x[0].mean_keepdim([0, 2])), vec![n(&[2, 3, 2])]),
        ("var", op(|x| x[0].var(..)), vec![n(&[7])]),
        ("var, axes", op(|x| x[0].var([0, 2])), vec![n(&[2, 3, 4])]),
        ("var, keepdim", op(|x| &x[0] / (x[0].var_keepdim(1) + 0.1)), vec![n(&[2, 5])]),
        ("std", op(|x| x[0].std([0])), vec![n(&[5, 2])]),
        ("std, keepdim", op(|x| &x[0] * x[0].std_keepdim(-1)), vec![n(&[2, 5])]),
        ("amax", op(|x| x[0].amax(..)), vec![n(&[2, 3])]),
        ("amax, axis", op(|x| x[0].amax(0)), vec![n(&[4, 3])]),
        ("amax, keepdim", op(|x| &x[0] - x[0].amax_keepdim(1)), vec![n(&[2, 4])]),
        ("amin", op(|x| x[0].amin([0, 1])), vec![n(&[2, 3, 2])]),
        ("amin, keepdim", op(|x| &x[0] * x[0].amin_keepdim(1)), vec![n(&[2, 4])]),
        ("exp", op(|x| x[0].exp()), vec![n(&[2, 3])]),
        ("log", op(|x| x[0].log()), vec![positive(&[2, 3])]),
        ("sqrt", op(|x| x[0].sqrt()), vec![positive(&[2, 3])]),
        ("powi 0 to 3", op(|x| x[0].powi(0) + x[0].powi(1) * 3.0 + x[0].powi(2) + x[0].powi(3)), vec![n(&[5])]),
        ("powi -2", op(|x| x[0].powi(-2)), vec![map(positive(&[5]), |x| x + 0.5)]),
        ("powf", op(|x| x[0].powf(1.5) + x[0].powf(-0.5)), vec![map(positive(&[5]), |x| x + 0.5)]),
        ("abs", op(|x| x[0].abs()), vec![n(&[2, 3])]),
        ("relu", op(|x| x[0].relu()), vec![n(&[2, 3])]),
        ("tanh", op(|x| x[0].tanh()), vec![n(&[2, 3])]),
        ("sigmoid", op(|x| x[0].sigmoid()), vec![n(&[2, 3])]),
        ("clamp", op(|x| x[0].clamp(-0.55, 1.05)), vec![n(&[3, 5])]),
        ("maximum", op(|x| x[0].maximum(&x[1])), vec![n(&[2, 5]), map(n(&[5]), |x| x + 0.05)]),
        ("minimum", op(|x| x[0].minimum(&x[1])), vec![n(&[5]), map(n(&[2, 5]), |x| x + 0.05)]),
        ("reshape", op(|x| x[0].reshape(&[3, -1]).powi(2)), vec![n(&[2, 6])]),
        ("reshape, of a view", op(|x| x[0].permute(&[0, 2, 3, 1]).reshape(&[2, -1, 2])), vec![n(&[2, 4, 3, 5])]),
        ("permute", op(|x| x[0].permute(&[2, 0, -2]).powi(2)), vec![n(&[2, 3, 4])]),
        ("transpose", op(|x| x[0].transpose(0, -1) * &x[1]), vec![n(&[2, 1, 4]), n(&[4, 1, 2])]),
        ("squeeze, unsqueeze", op(|x| x[0].unsqueeze(1) * x[1].squeeze(-2)), vec![n(&[2, 3]), n(&[4, 1, 3])]),
        ("expand", op(|x| x[0].expand(&[2, 4, -1]) * &x[1]), vec![n(&[4, 1]), n(&[2, 4, 1])]),
        ("expand, repeating", op(|x| x[0].expand(&[2, 4, 3]) * &x[1]), vec![n(&[4, 1]), n(&[2, 4, 3])]),
        ("cat", op(|x| cat(&[&x[0], &x[1], &x[0]], 1).powi(2)), vec![n(&[2, 3, 2]), n(&[2, 1, 2])]),
        ("cat, slice", op(|x| cat(&[&x[0], &x[1]], 1).slice(s![.., 1..-1, ..;2])), vec![n(&[2, 3, 6]), n(&[2, 2, 6])]),
        ("stack", op(|x| stack(&[&x[0], &x[1]], -1).powi(2)), vec![n(&[2, 3]), n(&[2, 3])]),
        ("slice", op(|x| x[0].slice(s![1, ..;2]) * x[0].slice(s![0, 1..4])), vec![n(&[2, 5])]),
        ("slice, fewer axes", op(|x| x[0].slice(s![-1])), vec![n(&[2, 5])]),
        ("slice, backwards", op(|x| x[0].slice(s![..;-1]) * &x[0]), vec![n(&[5])]),
        ("index_select", op(|x| x[0].index_select(1, &ints(&[2, 0, 2, 2], &[4])).powi(2)), vec![n(&[2, 3, 2])]),
        ("gather", op(|x| x[0].gather(1, &ints(&[2, 0, 0, 1], &[2, 2])).powi(2)), vec![n(&[2, 3])]),
        ("gather, axis 0", op(|x| x[0].gather(0, &ints(&[1, 0, 1, 1, 0, 1], &[3, 2]))), vec![n(&[2, 3])]),
        ("masked_fill", op(move |x| x[0].masked_fill(&mask_1, 7.0).powi(2)), vec![n(&[2, 3])]),
        ("masked_fill, broadcast", op(move |x| x[0].masked_fill(&mask_2, 7.0)), vec![n(&[2, 3])]),
        ("where", op(move |x| where_(&mask, &x[0], &x[1]) * where_(&mask_row, &x[1], &x[0])), vec![n(&[2, 3]), n(&[3])]),
    ]
}

#[test]
fn gradients_agree_with_finite_differences() {
    for (name, f, inputs) in operations() {
        let difference = grad_check(f, &inputs);
        assert!(difference < 1e-3, "{name}: off by {difference} of the largest gradient");
    }
}

#[test]
fn inputs_that_want_no_gradient_get_none_and_change_nothing() {
    for (name, f, inputs) in operations().into_iter().filter(|(_, _, inputs)| inputs.len() > 1) {
        let all: Vec<Tensor> = inputs.iter().cloned().map(Tensor::parameter).collect();
        let y = f(&all);
        y.backward_from(map(y.data.clone(), |_| 0.5));
        for alone in 0..inputs.len() {
            let wanted = |i: usize| if i == alone { all[i].data.clone() } else { Array::new(vec![], &[0]) };
            let some: Vec<Tensor> = (0..inputs.len())
                .map(|i| if i == alone { Tensor::parameter(wanted(i)) } else { inputs[i].clone().into() })
                .collect();
            let y = f(&some);
            y.backward_from(map(y.data.clone(), |_| 0.5));
            assert_eq!(some[alone].grad(), all[alone].grad(), "{name}, input {alone}");
            assert!((0..inputs.len()).all(|i| i == alone || some[i].grad().is_none()));
        }
    }
}
