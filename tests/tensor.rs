//! The engine and its operations: gradients against finite differences, the edges against PyTorch's facts, and what the
//! backward pass keeps, frees and copies.

// In `s!`, 1..-1 ends before the last.
#![allow(clippy::reversed_empty_ranges)]

use minai::array::{Array, array};
use minai::kernels::threads::with_threads;
use minai::tensor::{
    Tensor, broadcast_shape, cat, contiguous, from_op, grad_check, map, stack, sum_to, tensor, where_, zip,
};
use minai_tests::complaint;
use ndarray::{SliceInfoElem, s};
use std::cell::Cell;
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
        (
            "matmul, sliced",
            op(|x| x[0].slice(s![.., 1..;2]).matmul(&x[1].slice(s![..2, ..]))),
            vec![n(&[3, 5]), n(&[4, 2])],
        ),
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
        (
            "powi 0 to 3",
            op(|x| x[0].powi(0) + x[0].powi(1) * 3.0 + x[0].powi(2) + x[0].powi(3)),
            vec![n(&[5])],
        ),
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
        (
            "reshape, of a view",
            op(|x| x[0].permute(&[0, 2, 3, 1]).reshape(&[2, -1, 2])),
            vec![n(&[2, 4, 3, 5])],
        ),
        ("permute", op(|x| x[0].permute(&[2, 0, -2]).powi(2)), vec![n(&[2, 3, 4])]),
        ("transpose", op(|x| x[0].transpose(0, -1) * &x[1]), vec![n(&[2, 1, 4]), n(&[4, 1, 2])]),
        ("squeeze, unsqueeze", op(|x| x[0].unsqueeze(1) * x[1].squeeze(-2)), vec![n(&[2, 3]), n(&[4, 1, 3])]),
        ("expand", op(|x| x[0].expand(&[2, 4, -1]) * &x[1]), vec![n(&[4, 1]), n(&[2, 4, 1])]),
        ("expand, repeating", op(|x| x[0].expand(&[2, 4, 3]) * &x[1]), vec![n(&[4, 1]), n(&[2, 4, 3])]),
        ("cat", op(|x| cat(&[&x[0], &x[1], &x[0]], 1).powi(2)), vec![n(&[2, 3, 2]), n(&[2, 1, 2])]),
        (
            "cat, slice",
            op(|x| cat(&[&x[0], &x[1]], 1).slice(s![.., 1..-1, ..;2])),
            vec![n(&[2, 3, 6]), n(&[2, 2, 6])],
        ),
        ("stack", op(|x| stack(&[&x[0], &x[1]], -1).powi(2)), vec![n(&[2, 3]), n(&[2, 3])]),
        ("slice", op(|x| x[0].slice(s![1, ..;2]) * x[0].slice(s![0, 1..4])), vec![n(&[2, 5])]),
        ("slice, fewer axes", op(|x| x[0].slice(s![-1])), vec![n(&[2, 5])]),
        ("slice, backwards", op(|x| x[0].slice(s![..;-1]) * &x[0]), vec![n(&[5])]),
        (
            "index_select",
            op(|x| x[0].index_select(1, &ints(&[2, 0, 2, 2], &[4])).powi(2)),
            vec![n(&[2, 3, 2])],
        ),
        ("gather", op(|x| x[0].gather(1, &ints(&[2, 0, 0, 1], &[2, 2])).powi(2)), vec![n(&[2, 3])]),
        ("gather, axis 0", op(|x| x[0].gather(0, &ints(&[1, 0, 1, 1, 0, 1], &[3, 2]))), vec![n(&[2, 3])]),
        ("masked_fill", op(move |x| x[0].masked_fill(&mask_1, 7.0).powi(2)), vec![n(&[2, 3])]),
        ("masked_fill, broadcast", op(move |x| x[0].masked_fill(&mask_2, 7.0)), vec![n(&[2, 3])]),
        (
            "where",
            op(move |x| where_(&mask, &x[0], &x[1]) * where_(&mask_row, &x[1], &x[0])),
            vec![n(&[2, 3]), n(&[3])],
        ),
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

fn assert_same(what: &str, got: &Array, expected: &[f32]) {
    let got = contiguous(got);
    let got = got.as_slice().unwrap();
    let near = |a: f32, b: f32| a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-6 * b.abs();
    let same = got.len() == expected.len() && got.iter().zip(expected).all(|(&a, &b)| near(a, b));
    assert!(same, "{what}: {got:?}, expected {expected:?}");
}

const NAN: f32 = f32::NAN;
const INF: f32 = f32::INFINITY;

/// What PyTorch 2.15 says to −∞, −2, −0, 0, 2, ∞ and NaN: results and gradients of their sum.
#[test]
fn functions_of_nan_infinities_and_zeros_are_pytorchs() {
    const E: [f32; 7] = [-INF, -2.0, -0.0, 0.0, 2.0, INF, NAN];
    let sqrt2 = 2.0_f32.sqrt();
    type Case = (&'static str, fn(&Tensor) -> Tensor, [f32; 7], [f32; 7]);
    let cases: [Case; 13] = [
        ("relu", |x| x.relu(), [0.0, 0.0, -0.0, 0.0, 2.0, INF, NAN], [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        ("abs", |x| x.abs(), [INF, 2.0, 0.0, 0.0, 2.0, INF, NAN], [-1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 0.0]),
        (
            "exp",
            |x| x.exp(),
            [0.0, 0.135_335_28, 1.0, 1.0, 7.389_056, INF, NAN],
            [0.0, 0.135_335_28, 1.0, 1.0, 7.389_056, INF, NAN],
        ),
        (
            "log",
            |x| x.log(),
            [NAN, NAN, -INF, -INF, 2.0_f32.ln(), INF, NAN],
            [-0.0, -0.5, -INF, INF, 0.5, 0.0, NAN],
        ),
        (
            "sqrt",
            |x| x.sqrt(),
            [NAN, NAN, -0.0, 0.0, sqrt2, INF, NAN],
            [NAN, NAN, -INF, INF, 0.5 / sqrt2, 0.0, NAN],
        ),
        (
            "tanh",
            |x| x.tanh(),
            [-1.0, -0.964_027_6, -0.0, 0.0, 0.964_027_6, 1.0, NAN],
            [0.0, 0.070_650_816, 1.0, 1.0, 0.070_650_816, 0.0, NAN],
        ),
        (
            "sigmoid",
            |x| x.sigmoid(),
            [0.0, 0.119_202_92, 0.5, 0.5, 0.880_797, 1.0, NAN],
            [0.0, 0.104_993_59, 0.25, 0.25, 0.104_993_59, 0.0, NAN],
        ),
        (
            "clamp",
            |x| x.clamp(-1.0, 2.0),
            [-1.0, -1.0, -0.0, 0.0, 2.0, 2.0, NAN],
            [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0],
        ),
        (
            "powi 2",
            |x| x.powi(2),
            [INF, 4.0, 0.0, 0.0, 4.0, INF, NAN],
            [-INF, -4.0, -0.0, 0.0, 4.0, INF, NAN],
        ),
        (
            "powi -1",
            |x| x.powi(-1),
            [-0.0, -0.5, -INF, INF, 0.5, 0.0, NAN],
            [-0.0, -0.25, -INF, -INF, -0.25, -0.0, NAN],
        ),
        ("powf 0", |x| x.powf(0.0), [1.0; 7], [0.0; 7]),
        ("powi 0", |x| x.powi(0), [1.0; 7], [0.0; 7]),
        (
            "1 / x",
            |x| 1.0 / x,
            [-0.0, -0.5, -INF, INF, 0.5, 0.0, NAN],
            [-0.0, -0.25, -INF, -INF, -0.25, -0.0, NAN],
        ),
    ];
    for (name, f, results, gradients) in cases {
        let x = Tensor::parameter(array(E));
        let y = f(&x);
        y.sum(..).backward();
        assert_same(name, &y.data, &results);
        let gradient = x.grad().unwrap();
        // 1 - tanh² and the like lose digits for small results.
        let close = gradient
            .iter()
            .zip(gradients)
            .all(|(a, b)| a.is_nan() && b.is_nan() || *a == b || (a - b).abs() < 2e-7 * b.abs().max(1.0));
        assert!(close, "{name}: gradient {gradient:?}, expected {gradients:?}");
    }
}

#[test]
fn choices_among_equals_and_nan_are_pytorchs() {
    let gradients = |f: fn(&Tensor, &Tensor) -> Tensor, x: &[f32], y: &[f32]| {
        let [x, y] = [x, y].map(|x| Tensor::parameter(array(x.to_vec())));
        let z = f(&x, &y);
        z.backward_from(map(z.data.clone(), |_| 1.0));
        (z.data.clone(), x.grad().unwrap(), y.grad().unwrap())
    };
    let (z, x, y) = gradients(|x, y| x.maximum(y), &[1.0, 2.0, NAN, 1.0, INF], &[1.0, 1.0, 1.0, NAN, INF]);
    assert_same("maximum", &z, &[1.0, 2.0, NAN, NAN, INF]);
    assert_same("maximum, left", &x, &[0.5, 1.0, 1.0, 1.0, 0.5]);
    assert_same("maximum, right", &y, &[0.5, 0.0, 1.0, 1.0, 0.5]);
    let (z, x, y) = gradients(|x, y| x.minimum(y), &[1.0, 2.0, NAN, 1.0], &[1.0, 1.0, 1.0, NAN]);
    assert_same("minimum", &z, &[1.0, 1.0, NAN, NAN]);
    assert_same("minimum, left", &x, &[0.5, 0.0, 1.0, 1.0]);
    assert_same("minimum, right", &y, &[0.5, 1.0, 1.0, 1.0]);
    let (z, x, y) = gradients(|x, y| x / y, &[1.0, 0.0, -1.0, INF], &[0.0, 0.0, 0.0, INF]);
    assert_same("div", &z, &[INF, NAN, -INF, NAN]);
    assert_same("div, left", &x, &[INF, INF, INF, 0.0]);
    assert_same("div, right", &y, &[-INF, NAN, INF, NAN]);

    type Case = (&'static str, fn(&Tensor) -> Tensor, Vec<f32>, f32, Vec<f32>);
    let cases: [Case; 8] = [
        ("amax", |x| x.amax(..), vec![1.0, 3.0, 3.0, 2.0], 3.0, vec![0.0, 0.5, 0.5, 0.0]),
        ("amax, NaN", |x| x.amax(..), vec![1.0, NAN, 3.0], NAN, vec![NAN; 3]),
        ("amin, ∞", |x| x.amin(..), vec![INF, INF], INF, vec![0.5, 0.5]),
        ("std of equals", |x| x.std(..), vec![2.0; 3], 0.0, vec![0.0; 3]),
        ("std of one", |x| x.std(..), vec![2.0], NAN, vec![NAN]),
        ("var of one", |x| x.var(..), vec![2.0], NAN, vec![NAN]),
        ("sum of ∞ and -∞", |x| x.sum(..), vec![INF, -INF], NAN, vec![1.0; 2]),
        ("sum of ∞", |x| x.sum(..), vec![INF, 1.0], INF, vec![1.0; 2]),
    ];
    for (name, f, x, result, gradient) in cases {
        let x = Tensor::parameter(array(x));
        let y = f(&x);
        y.backward();
        assert_same(name, &y.data, &[result]);
        assert_same(name, &x.grad().unwrap(), &gradient);
    }
    assert_eq!(tensor([1.0, 3.0, 3.0]).argmax(0)[[]], 1);
    assert_eq!(tensor([1.0, NAN, 3.0, NAN]).argmax(-1)[[]], 1);
    assert_eq!(contiguous(&tensor([[1.0, 5.0], [3.0, 4.0]]).argmax(0)), ints(&[1, 0], &[2]));

    let x = Tensor::parameter(array([1.0, NAN]));
    x.masked_fill(&array([false, true]), 0.0).sum(..).backward();
    assert_same("masked_fill hides NaN", &x.grad().unwrap(), &[1.0, 0.0]);
    let x = Tensor::parameter(array([1.0, 2.0]));
    let y = where_(&array([true, false]), &x, &(&x / 0.0));
    y.backward_from(array([1.0, 0.0]));
    assert_same("where", &y.data, &[1.0, INF]);
    assert_same("where", &x.grad().unwrap(), &[NAN, NAN]); // 0 times the infinite slope of x / 0, in PyTorch too
}

#[test]
fn empty_tensors_have_sums_means_and_gradients() {
    let x = Tensor::parameter(Array::new(vec![], &[0, 3]));
    let row = Tensor::parameter(Array::new(vec![1.0; 3], &[1, 3]));
    let y = &x * 2.0 + &row;
    assert_eq!(y.shape(), [0, 3]);
    assert_eq!(y.sum(..).item(), 0.0);
    y.exp().relu().t().sum(..).backward();
    assert_eq!(x.grad().unwrap().shape(), [0, 3]);
    assert_same("no rows", &row.grad().unwrap(), &[0.0; 3]);
    let empty = Tensor::zeros(&[3, 0]);
    assert_same("sum", &empty.sum(1).data, &[0.0; 3]);
    assert_same("mean", &empty.mean(1).data, &[NAN; 3]);
    assert_same("mean", &empty.mean(..).data, &[NAN]);
    assert_same("var", &empty.var(..).data, &[NAN]);
    assert_eq!(empty.sum(0).shape(), [0]);
    assert_eq!(empty.t().amax(1).shape(), [0]);
    assert_eq!(empty.reshape(&[0, 5]).shape(), [0, 5]);
    assert_eq!(cat(&[&empty, &Tensor::ones(&[3, 2])], 1).shape(), [3, 2]);
    assert_eq!(Tensor::ones(&[3]).slice(s![1..1]).shape(), [0]);
    let (x, y) =
        (Tensor::parameter(Array::new(vec![], &[2, 0])), Tensor::parameter(Array::new(vec![], &[0, 3])));
    let product = x.matmul(&y);
    assert_same("matmul over nothing", &product.data, &[0.0; 6]);
    product.sum(..).backward();
    assert_eq!((x.grad().unwrap().shape(), y.grad().unwrap().shape()), (&[2, 0][..], &[0, 3][..]));
    assert_eq!(Tensor::ones(&[0, 2]).matmul(&Tensor::ones(&[2, 3])).shape(), [0, 3]);
    assert_same("matmul of ∞ and 0", &tensor([[0.0, 1.0]]).matmul(&tensor([[INF], [1.0]])).data, &[NAN]);
}

#[test]
fn a_single_number_is_a_tensor_of_rank_0() {
    let x = Tensor::parameter(array(3.0));
    let y = (&x * &x).sum(..).mean(-1).amax(0).reshape((1, 1)).reshape(());
    assert_eq!((y.shape(), y.item()), (&[][..], 9.0));
    y.backward();
    assert_eq!(x.grad().unwrap(), array(6.0));
    assert_eq!((tensor([1.0, 2.0]) + &x).shape(), [2]);
    assert_eq!(x.expand(&[2, 2]).sum(..).item(), 12.0);
    assert_eq!(x.unsqueeze(0).squeeze(-1).permute(&[]).item(), 3.0);
}

#[test]
fn views_compute_as_their_copies_do() {
    let (big, other) = (numbers(&[6, 4, 10]), numbers(&[5, 2, 3]));
    type View = fn(&Tensor) -> Tensor;
    let views: [View; 4] = [
        |x| x.slice(s![..;2, 1..3, 5..]).permute(&[2, 1, 0]),
        |x| x.slice(s![1..4, ..;2, ..;2]).transpose(0, 2),
        |x| x.slice(s![..3, 2.., 1..6]).permute(&[-1, 1, 0]),
        |x| x.slice(s![..3;-1, ..;-3, ..;-2]).transpose(0, -1),
    ];
    type Function = fn(&Tensor, &Tensor) -> Tensor;
    let functions: [Function; 14] = [
        |x, y| x + y,
        |x, y| y / (x * x + 1.0),
        |x, y| x.sum_keepdim([0, 2]) * y,
        |x, _| x.sum(1),
        |x, _| x.sum(0),
        |x, _| x.amax_keepdim(-1),
        |x, _| x.var(..),
        |x, _| x.reshape(&[-1, 2]),
        |x, y| x.matmul(&y.transpose(1, 2)),
        |x, y| cat(&[x, y], 1),
        |x, _| x.index_select(2, &ints(&[2, 0], &[2])),
        |x, _| x.gather(0, &ints(&[4, 1, 0, 3, 2, 2], &[1, 2, 3])),
        |x, y| where_(&Array::new(vec![true, false, true], &[3]), x, y),
        |x, _| x.unsqueeze(1).expand(&[5, 3, 2, 3]).tanh(),
    ];
    for (v, view) in views.iter().enumerate() {
        for (f, function) in functions.iter().enumerate() {
            let x = Tensor::parameter(big.clone());
            let viewed = view(&x);
            assert!(!viewed.data.is_standard_layout());
            let y = function(&viewed, &other.clone().into());
            y.backward_from(numbers(y.shape()));
            let x_copy = Tensor::parameter(contiguous(&viewed.data));
            let y_copy = function(&x_copy, &other.clone().into());
            y_copy.backward_from(numbers(y.shape()));
            assert_eq!(y.data, y_copy.data, "view {v}, function {f}");
            let x_again = Tensor::parameter(big.clone());
            view(&x_again).backward_from(x_copy.grad().unwrap());
            assert_eq!(x.grad(), x_again.grad(), "view {v}, function {f}");
        }
    }
}

#[test]
fn mistakes_are_answered_with_operation_and_shapes() {
    let (x, y) = (Tensor::ones(&[2, 3]), Tensor::ones(&[4, 5]));
    type Case = (&'static [&'static str], Box<dyn Fn()>);
    let case = |f: fn(&Tensor, &Tensor), parts: &'static [&'static str]| -> Case {
        let (x, y) = (x.clone(), y.clone());
        (parts, Box::new(move || f(&x, &y)))
    };
    let cases: Vec<Case> = vec![
        case(|x, y| drop(x + y), &["add", "[2, 3]", "[4, 5]"]),
        case(|x, y| drop(x - y), &["sub", "[2, 3]", "[4, 5]"]),
        case(|x, y| drop(x * y), &["mul", "[2, 3]", "[4, 5]"]),
        case(|x, y| drop(x / y), &["div", "[2, 3]", "[4, 5]"]),
        case(|x, y| drop(x.maximum(y)), &["maximum", "[2, 3]", "[4, 5]"]),
        case(|x, y| drop(x.minimum(y)), &["minimum", "[2, 3]", "[4, 5]"]),
        case(|x, y| drop(x.matmul(y)), &["matmul", "[2, 3]", "[4, 5]"]),
        case(|x, _| drop(x.matmul(&tensor(1.0))), &["matmul", "[2, 3]", "[]"]),
        case(|x, _| drop(x.matmul(&Tensor::ones(&[2]))), &["matmul", "[2, 3]", "[2]"]),
        case(
            |_, _| drop(Tensor::ones(&[2, 3, 4]).matmul(&Tensor::ones(&[5, 4, 2]))),
            &["matmul", "[2]", "[5]"],
        ),
        case(|x, _| drop(x.reshape(&[4, 2])), &["reshape", "[2, 3]", "[4, 2]"]),
        case(|x, _| drop(x.permute(&[0, 0])), &["permute", "[2, 3]", "[0, 0]"]),
        case(|x, _| drop(x.permute(&[0])), &["permute", "[2, 3]", "[0]"]),
        case(|x, _| drop(x.transpose(0, 2)), &["transpose", "[2, 3]", "axis 2"]),
        case(|_, _| drop(Tensor::ones(&[2]).t()), &["t:", "[2]"]),
        case(|x, _| drop(x.unsqueeze(4)), &["unsqueeze", "[2, 3]", "axis 4"]),
        case(|x, _| drop(x.squeeze(1)), &["squeeze", "[2, 3]", "axis 1"]),
        case(|x, _| drop(x.expand(&[4, 3])), &["expand", "[2, 3]", "[4, 3]"]),
        case(|x, _| drop(x.expand(&[3])), &["expand", "[2, 3]", "[3]"]),
        case(|x, _| drop(x.expand(&[-1, 2, 3])), &["expand", "[2, 3]", "[-1, 2, 3]"]),
        case(|x, _| drop(x.sum(2)), &["sum", "[2, 3]", "axis 2"]),
        case(|x, _| drop(x.mean([0, -3])), &["mean", "[2, 3]", "axis -3"]),
        case(|_, _| drop(Tensor::ones(&[3, 0]).amax(1)), &["amax", "[3, 0]"]),
        case(|_, _| drop(Tensor::ones(&[3, 0]).argmax(1)), &["argmax", "[3, 0]"]),
        case(|x, _| drop(x.slice(s![.., 1..5])), &["slice", "[2, 3]"]),
        case(|x, _| drop(x.slice(s![2])), &["slice", "[2, 3]"]),
        case(|x, _| drop(x.slice(s![0, 0, 0])), &["slice", "[2, 3]"]),
        case(|x, _| drop(x.index_select(0, &ints(&[2], &[1]))), &["index_select", "[2, 3]", "index 2"]),
        case(|x, _| drop(x.index_select(0, &ints(&[-1], &[1]))), &["index_select", "[2, 3]", "index -1"]),
        case(|x, _| drop(x.gather(0, &ints(&[2], &[1, 1]))), &["gather", "[2, 3]", "index 2"]),
        case(|x, _| drop(x.gather(0, &ints(&[0], &[1]))), &["gather", "[2, 3]", "[1]"]),
        case(|x, _| drop(x.masked_fill(&array([true, false]), 0.0)), &["masked_fill", "[2, 3]", "[2]"]),
        case(|x, y| drop(where_(&array([true]), x, y)), &["where", "[2, 3]", "[4, 5]"]),
        case(|x, y| drop(cat(&[x, y], 0)), &["cat", "[2, 3]", "[4, 5]"]),
        case(|x, y| drop(stack(&[x, y], 0)), &["[1, 2, 3]", "[1, 4, 5]"]),
        case(
            |x, _| {
                x.item();
            },
            &["item", "[2, 3]"],
        ),
        case(|x, _| x.backward(), &["backward", "[2, 3]"]),
        case(|_, _| tensor(1.0).backward(), &["backward", "no parameter"]),
        case(
            |x, _| Tensor::parameter(x.data.clone()).backward_from(array(1.0)),
            &["backward", "[]", "[2, 3]"],
        ),
        case(|x, _| x.set_grad(x.data.clone()), &["set_grad"]),
        case(
            |x, y| Tensor::parameter(x.data.clone()).set_grad(y.data.clone()),
            &["set_grad", "[2, 3]", "[4, 5]"],
        ),
        case(|x, _| drop(sum_to(x.data.clone(), &[2])), &["sum_to", "[2, 3]", "[2]"]),
    ];
    for (parts, f) in cases {
        let text = complaint(f);
        assert!(parts.iter().all(|part| text.contains(part)), "{text:?} lacks one of {parts:?}");
    }
}

#[test]
fn what_an_operation_returns_is_checked() {
    let x = Tensor::parameter(array([1.0, 2.0]));
    let with = |gradients: Vec<Option<Array>>| {
        from_op("strange", array(1.0), &[&x, &tensor(1.0)], |_, _| gradients).backward();
    };
    assert_eq!(complaint(|| with(vec![])), "backward: `strange` returned 0 gradients for 2 inputs");
    assert_eq!(complaint(|| with(vec![None, None])), "backward: `strange` returned no gradient for input 0");
    let text = complaint(|| with(vec![Some(array(1.0)), None]));
    assert_eq!(text, "backward: `strange` returned a gradient of shape [] for input 0 of shape [2]");
    with(vec![Some(array([1.0, 1.0])), None]);
    assert_eq!(x.grad().unwrap(), array([1.0, 1.0]));
}

#[test]
fn gradients_gather_until_they_are_forgotten() {
    let x = Tensor::parameter(array([1.0, 2.0]));
    assert!(x.grad().is_none());
    for round in 1..=3 {
        (&x * &x).sum(..).backward();
        assert_eq!(x.grad().unwrap(), array([2.0 * round as f32, 4.0 * round as f32]));
    }
    let before = x.grad().unwrap();
    (&x * 1.0).sum(..).backward();
    assert_eq!(before, array([6.0, 12.0]), "a gradient that was handed out does not change");
    x.zero_grad();
    assert!(x.grad().is_none());
    x.set_grad(array([1.0, 1.0]));
    assert_eq!((x.take_grad(), x.take_grad()), (Some(array([1.0, 1.0])), None));
}

#[test]
fn a_graph_serves_one_backward_pass() {
    let x = Tensor::parameter(array(2.0));
    let y = &x * &x;
    let z = &y + 1.0;
    z.backward();
    assert!(complaint(|| z.backward()).contains("used up"));
    assert!(complaint(|| (&y * 2.0).backward()).contains("used up"));
}

#[test]
fn a_diamond_waits_for_all_its_parts() {
    // y is used by a short and by a long way: its gradient must be complete before it goes on.
    let x = Tensor::parameter(array(3.0));
    let calls = Rc::new(Cell::new(0));
    let counted = calls.clone();
    let y = from_op("twice", map(x.data.clone(), |x| 2.0 * x), &[&x], move |g, _| {
        counted.set(counted.get() + 1);
        vec![Some(map(g, |g| 2.0 * g))]
    });
    let long = (0..10).fold(y.clone(), |long, _| long * 1.0 + &y);
    (&y + long).sum(..).backward();
    assert_eq!((x.grad().unwrap(), calls.get()), (array(24.0), 1));
}

#[test]
fn a_chain_of_a_million_operations_needs_no_deep_stack() {
    let n = if cfg!(miri) { 1_000 } else { 1_000_000 };
    let x = Tensor::parameter(array(0.0));
    let chain = || (0..n).fold(x.clone(), |y, _| y + 1.0);
    let y = chain();
    y.backward();
    assert_eq!(x.grad().unwrap(), array(1.0));
    assert_eq!(y.item(), n as f32);
    drop(y);
    drop(chain()); // without a backward pass
    let doubled = (0..n.min(100_000)).fold(x.clone(), |y, _| &y * 0.5 + &y * 0.5);
    drop(doubled);
}

#[test]
fn the_backward_pass_frees_as_it_goes() {
    struct Guard(Rc<Cell<usize>>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    // Each step sees that what all later ones had kept is gone by the time that it runs.
    let freed = Rc::new(Cell::new(0));
    let x = Tensor::parameter(array(1.0));
    let y = (0..50).rev().fold(x.clone(), |y, freed_before| {
        let (guard, freed) = (Guard(freed.clone()), freed.clone());
        from_op("watched", y.data.clone(), &[&y], move |g, _| {
            assert_eq!(freed.get(), freed_before);
            drop(guard);
            vec![Some(g)]
        })
    });
    y.backward();
    assert_eq!(freed.get(), 50);
    assert!(x.grad().is_some() && y.requires_grad());
}

#[test]
fn evaluation_builds_no_graph_and_keeps_nothing() {
    let dropped = Rc::new(());
    let kept = dropped.clone();
    let x = Tensor::parameter(array([1.0, 2.0]));
    let y = from_op("watched", x.data.clone(), &[&x.detach()], move |_, _| {
        drop(kept);
        unreachable!()
    });
    assert_eq!(Rc::strong_count(&dropped), 1, "dropped at once");
    assert!(!y.requires_grad() && y.graph().is_empty());
    for (name, f, inputs) in operations() {
        let inputs: Vec<Tensor> = inputs.into_iter().map(Tensor::from).collect();
        assert!(!f(&inputs).requires_grad(), "{name}");
    }
}

#[test]
fn a_step_after_the_backward_pass_changes_parameters_in_place() {
    let mut parameters = [(&[4, 3][..]), &[3], &[3, 2], &[2]].map(|shape| Tensor::parameter(numbers(shape)));
    let (x, target) = (Tensor::from(numbers(&[5, 4])), Tensor::from(numbers(&[5, 2])));
    let loss = |p: &[Tensor; 4]| {
        let hidden = (x.matmul(&p[0]) + &p[1]).relu();
        (hidden.matmul(&p[2]) + &p[3] - &target).powi(2).mean(..)
    };
    let addresses = parameters.each_ref().map(|parameter| parameter.data.as_ptr());
    let mut losses = vec![];
    for _ in 0..50 {
        let loss = loss(&parameters); // alive while the parameters change
        loss.backward();
        for parameter in &mut parameters {
            let gradient = parameter.take_grad().unwrap();
            let numbers = parameter.data.as_slice_mut().unwrap();
            numbers.iter_mut().zip(gradient.iter()).for_each(|(x, g)| *x -= 0.02 * g);
        }
        losses.push(loss.item());
    }
    assert_eq!(parameters.each_ref().map(|parameter| parameter.data.as_ptr()), addresses, "no copy was made");
    assert!(losses[49] < 0.5 * losses[0], "{losses:?}");
    // With a graph still waiting, the numbers that it needs are left alone: then a copy is made.
    let waiting = loss(&parameters);
    parameters[2].data.as_slice_mut().unwrap()[0] += 1.0;
    assert_ne!(parameters[2].data.as_ptr(), addresses[2]);
    waiting.backward();
}

#[test]
fn a_sole_owner_works_in_place() {
    let x = Tensor::from(numbers(&[10]));
    let address = (&x * 2.0).data.as_ptr();
    assert_ne!(address, x.data.as_ptr());
    let y = &x * 2.0;
    let address = y.data.as_ptr();
    let z = -((1.0 - (y + &x) / 3.0) * &x);
    assert_eq!(z.data.as_ptr(), address);
    let shared = z.clone();
    let sum = z + 1.0;
    assert_ne!(sum.data.as_ptr(), shared.data.as_ptr());
    assert_eq!(sum.data, map(shared.data, |x| x + 1.0));
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let small = |x: f32| (x * 50.0).sin();
    let (x, w) = (map(numbers(&[300, 700]), small), map(numbers(&[700, 90]), small));
    let run = || {
        let (x, w) = (Tensor::parameter(x.clone()), Tensor::parameter(w.clone()));
        let y = (x.matmul(&w) / 100.0).tanh();
        let z = &y - y.mean_keepdim(0)
            + x.std_keepdim(1) * w.t().slice(s![.., ..300]).t() / 1e3
            + x.amax_keepdim(1);
        let loss = (z.exp() / 10.0).powi(2).mean(..)
            + x.t().sum(1).sum(..)
            + w.permute(&[1, 0]).reshape(&[-1]).sum(..);
        loss.backward();
        (loss.data.clone(), x.grad().unwrap(), w.grad().unwrap())
    };
    let expected = with_threads(1, run);
    assert!(expected.0[[]].is_finite());
    for threads in [2, 5] {
        assert!(with_threads(threads, run) == expected, "{threads} threads");
    }
}

#[test]
fn arrays_can_go_to_other_threads() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<Array>();
    is_send_and_sync::<Array<i64>>();
}

#[test]
fn a_graph_lists_inputs_before_what_is_made_of_them() {
    let (x, w) = (Tensor::ones(&[5, 3]), Tensor::parameter(numbers(&[3, 2])));
    let b = Tensor::parameter(numbers(&[2]));
    let y = x.matmul(&w) + &b;
    let loss = (&y * &y).sum(..);
    let graph = loss.graph();
    let text: Vec<String> =
        graph.iter().map(|node| format!("{} {:?} {:?}", node.op, node.shape, node.inputs)).collect();
    assert_eq!(text.len(), 6);
    assert_eq!(
        text[2..],
        [
            format!("matmul [5, 2] [None, Some({})]", if graph[0].shape == [3, 2] { 0 } else { 1 }),
            format!("add [5, 2] [Some(2), Some({})]", if graph[0].shape == [2] { 0 } else { 1 }),
            "mul [5, 2] [Some(3), Some(3)]".into(),
            "sum [] [Some(4)]".into(),
        ]
    );
}

#[test]
fn arrays_broadcast_and_sum_back() {
    assert_eq!(broadcast_shape("test", &[2, 1, 4], &[3, 1]), [2, 3, 4]);
    assert_eq!(broadcast_shape("test", &[], &[0, 1]), [0, 1]);
    assert_eq!(
        zip("test", array([1.0, 2.0]), array([[10.0], [20.0]]), |x, y| x + y),
        array([[11.0, 12.0], [21.0, 22.0]])
    );
    assert_eq!(sum_to(array([[1.0, 2.0], [3.0, 4.0]]), &[2, 1]), array([[3.0], [7.0]]));
    assert_eq!(sum_to(array([[1.0, 2.0], [3.0, 4.0]]), &[]), array(10.0));
    let part: [SliceInfoElem; 1] = [(..).into()];
    assert_eq!(tensor([1.0]).slice(part).item(), 1.0);
}
