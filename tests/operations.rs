//! The operations of lesson 5b against PyTorch's results and gradients: `golden/operations.safetensors`, or the file of
//! that name in the folder that `MINAI_GOLDEN` names. Then finite differences, edges, mistakes, shapes, and printing.

use minai::array::{Array, array};
use minai::generator::Generator;
use minai::ops::{Interpolation, TensorOps, arange, einsum, linspace};
use minai::tensor::{Tensor, contiguous, elements, grad_check, map, tensor};
use minai_tests::complaint;
use minai_tests::reference::{Golden, folder, tensors};
use std::collections::BTreeSet;

/// What an operation gives: tensors, and perhaps positions.
struct Given(Vec<Tensor>, Option<Array<i64>>);

impl From<Tensor> for Given {
    fn from(result: Tensor) -> Self {
        Given(vec![result], None)
    }
}

impl From<Vec<Tensor>> for Given {
    fn from(results: Vec<Tensor>) -> Self {
        Given(results, None)
    }
}

impl From<(Tensor, Array<i64>)> for Given {
    fn from((result, positions): (Tensor, Array<i64>)) -> Self {
        Given(vec![result], Some(positions))
    }
}

impl From<Array<i64>> for Given {
    fn from(positions: Array<i64>) -> Self {
        Given(vec![], Some(positions))
    }
}

type Op = fn(&[Tensor]) -> Given;

/// The cases of `make_operations.py`, with the same options.
const CASES: [(&str, Op); 31] = [
    ("flatten", |x| x[0].flatten(1, -1).into()),
    ("unflatten", |x| x[0].unflatten(-3, (3, ())).into()),
    ("repeat", |x| x[0].repeat([2, 1, 3]).into()),
    ("flip", |x| x[0].flip(&[0, -1]).into()),
    ("roll", |x| x[0].roll(-2, 1).into()),
    ("narrow", |x| x[0].narrow(-1, 1, 3).into()),
    ("chunk", |x| x[0].chunk(3, -1).into()),
    ("split", |x| x[0].split(3, 1).into()),
    ("unbind", |x| x[0].unbind(1).into()),
    ("pad", |x| x[0].pad((1, 2, 0, 3), 0.5).into()),
    ("nearest", |x| x[0].interpolate((8, 3), Interpolation::Nearest).into()),
    ("bilinear", |x| x[0].interpolate((3, 12), Interpolation::Bilinear).into()),
    ("max", |x| x[0].max(1).into()),
    ("min", |x| x[0].min(0).into()),
    ("argmin", |x| x[0].argmin(-1).into()),
    ("sort", |x| x[0].sort(1).into()),
    ("topk", |x| x[0].topk(3, 1).into()),
    ("tril", |x| x[0].tril(1).into()),
    ("triu", |x| x[0].triu(-1).into()),
    ("norm", |x| x[0].norm([0, 2]).into()),
    ("cumsum", |x| x[0].cumsum(1).into()),
    ("prod", |x| x[0].prod(1).into()),
    ("sin", |x| x[0].sin().into()),
    ("cos", |x| x[0].cos().into()),
    ("pow", |x| x[0].pow(&x[1]).into()),
    ("einsum, batch", |x| einsum("bik,bkj->bij", &[&x[0], &x[1]]).into()),
    ("einsum, sum", |x| einsum("ijk->kj", &[&x[0]]).into()),
    ("einsum, diagonal", |x| einsum("bii, i -> b", &[&x[0], &x[1]]).into()),
    ("einsum, three", |x| einsum("ijk,jk,l->il", &[&x[0], &x[1], &x[2]]).into()),
    ("arange", |_| arange(1.0, 2.0, 0.3).into()),
    ("linspace", |_| linspace(-1.0, 2.0, 7).into()),
];

fn assert_near(what: &str, found: &Array, expected: &Array) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let largest = expected.iter().fold(1e-6_f32, |largest, x| largest.max(x.abs()));
    let error = found.iter().zip(expected.iter()).fold(0.0_f32, |error, (x, y)| error.max((x - y).abs()));
    assert!(error <= 1e-5 * largest, "{what}: off by {error} of {largest}");
}

#[test]
fn results_and_gradients_are_pytorchs() {
    let golden = tensors(&folder().join("operations.safetensors"));
    let mut left: BTreeSet<&String> = golden.keys().collect();
    for (case, f) in CASES {
        let name = |part: &str, i: usize| format!("{case}/{part}.{i}");
        let floats = |name: &str| match golden.get(name) {
            Some(Golden::Floats(array)) => array.clone(),
            _ => panic!("{name}: floats expected"),
        };
        let inputs: Vec<Tensor> = (0..)
            .map_while(|i| {
                golden.contains_key(&name("in", i)).then(|| Tensor::parameter(floats(&name("in", i))))
            })
            .collect();
        let Given(results, positions) = f(&inputs);
        for (i, result) in results.iter().enumerate() {
            assert_near(&name("out", i), &result.data, &floats(&name("out", i)));
        }
        if let Some(positions) = positions {
            let Some(Golden::Integers(expected)) = golden.get(&name("out", results.len())) else {
                panic!("{case}: positions expected")
            };
            assert_eq!(contiguous(&positions), *expected, "{case}");
        }
        if let Some(Golden::Floats(cot)) = golden.get(&format!("{case}/cot")) {
            results[0].backward_from(cot.clone());
            for (i, input) in inputs.iter().enumerate() {
                assert_near(&name("grad", i), &input.grad().expect("a gradient"), &floats(&name("grad", i)));
            }
        }
        left.retain(|name| name.split_once('/').expect("a case").0 != case);
    }
    assert!(left.is_empty(), "cases that are not computed: {left:?}");
}

/// Numbers around 1, both signs, none near 0, and no two equal.
fn numbers(shape: &[usize]) -> Array {
    let number = |i: usize| {
        let size = 0.2 + 0.1 * ((i * 7) % 17) as f32 + 0.003 * i as f32;
        if i % 3 == 1 { -size } else { size }
    };
    Array::new((0..shape.iter().product()).map(number).collect(), shape)
}

#[test]
fn gradients_agree_with_finite_differences() {
    type Case = (&'static str, fn(&[Tensor]) -> Tensor, &'static [&'static [usize]]);
    let cases: [Case; 27] = [
        ("flatten", |x| x[0].flatten(0, 1).powi(2), &[&[2, 3, 2]]),
        ("unflatten", |x| x[0].unflatten(1, (2, -1)).powi(2), &[&[2, 6]]),
        ("repeat", |x| x[0].repeat((3, 1, 2)).powi(2) * &x[1], &[&[2, 2], &[3, 2, 4]]),
        ("flip", |x| x[0].flip(&[1]) * &x[0], &[&[2, 3]]),
        ("roll", |x| x[0].roll(2, -1) * &x[0], &[&[2, 3]]),
        (
            "chunk",
            |x| {
                let c = x[0].chunk(2, 1);
                &c[0] * &c[1]
            },
            &[&[3, 4]],
        ),
        (
            "split",
            |x| {
                let c = x[0].split(2, 0);
                c[0].sum(0) * &c[2]
            },
            &[&[5, 2]],
        ),
        (
            "unbind",
            |x| {
                let c = x[0].unbind(1);
                &c[0] * &c[2]
            },
            &[&[2, 3]],
        ),
        ("pad", |x| x[0].pad((1, 0, 2, 1), 3.0).powi(2), &[&[2, 2, 3]]),
        ("nearest", |x| x[0].interpolate((3, 4), Interpolation::Nearest).powi(2), &[&[1, 2, 3]]),
        ("bilinear", |x| x[0].interpolate((5, 2), Interpolation::Bilinear).powi(2), &[&[2, 3, 4]]),
        ("max", |x| x[0].max(1).0.powi(2), &[&[3, 4]]),
        ("min", |x| x[0].min(-2).0.powi(2), &[&[3, 4]]),
        ("sort", |x| x[0].sort(0).0 * &x[1], &[&[4, 2], &[4, 2]]),
        ("topk", |x| x[0].topk(2, 1).0 * &x[1], &[&[3, 4], &[3, 2]]),
        ("tril", |x| x[0].tril(0).powi(2), &[&[2, 3, 3]]),
        ("triu", |x| x[0].triu(1).powi(2), &[&[3, 4]]),
        ("norm", |x| x[0].norm(1), &[&[2, 3]]),
        ("norm of all", |x| x[0].norm(..), &[&[2, 3]]),
        ("cumsum", |x| x[0].cumsum(1).powi(2), &[&[2, 3, 2]]),
        ("prod", |x| x[0].prod(0), &[&[3, 2]]),
        ("sin", |x| x[0].sin(), &[&[5]]),
        ("cos", |x| x[0].cos(), &[&[5]]),
        ("pow", |x| x[0].pow(2) + x[0].abs().pow(0.5), &[&[5]]),
        ("pow of tensors", |x| (x[0].abs() + 0.5).pow(&x[1]), &[&[2, 3], &[3]]),
        ("einsum", |x| einsum("ij,kj->ik", &[&x[0], &x[1]]), &[&[2, 3], &[4, 3]]),
        ("einsum, diagonal", |x| einsum("ii,jk->ik", &[&x[0], &x[1]]), &[&[3, 3], &[2, 2]]),
    ];
    for (name, f, shapes) in cases {
        let inputs: Vec<Array> = shapes.iter().map(|shape| numbers(shape)).collect();
        let difference = grad_check(f, &inputs);
        assert!(difference < 1e-3, "{name}: off by {difference} of the largest gradient");
    }
}

#[test]
fn edges_are_pytorchs() {
    let nothing = |shape: &[usize]| Tensor::zeros(shape);
    let product = nothing(&[2, 3, 0]).matmul(&nothing(&[0, 4]));
    assert_eq!(product.data, Tensor::zeros((2, 3, 4)).data);
    let none = nothing(&[0, 1, 2, 2]).interpolate((4, 4), Interpolation::Nearest);
    assert_eq!(none.shape(), [0, 1, 4, 4]);
    let x = Tensor::parameter(array([0.0, 0.0]));
    x.norm(..).backward();
    assert_eq!(x.grad(), Some(array([0.0, 0.0])), "no slope where the norm is 0");
    assert_eq!(tensor([f32::NAN, 1.0, -1.0]).sort(0).1, array([2_i64, 1, 0]));
    assert_eq!(tensor([1.0, f32::NAN]).argmin(0), array(1_i64));
    assert_eq!(tensor(2.0).flatten(0, -1).shape(), [1]);
    assert_eq!(tensor([-8.0, 4.0]).pow(3).to_vec(), [-512.0, 64.0]);
    let (x, p) = (Tensor::parameter(array([0.0, 2.0])), Tensor::parameter(array([2.0, 0.0])));
    x.pow(&p).sum(..).backward();
    assert_eq!((x.grad(), p.grad()), (Some(array([0.0, 0.0])), Some(array([0.0, 2.0_f32.ln()]))));
    assert_eq!(Tensor::arange(0.0, 0.0, 1.0).shape(), [0]);
    assert_eq!(Tensor::arange(3.0, 0.0, -1.5).to_vec(), [3.0, 1.5]);
    assert_eq!(
        (Tensor::linspace(5.0, 9.0, 1).to_vec(), Tensor::eye(2).to_vec()),
        (vec![5.0], vec![1.0, 0.0, 0.0, 1.0])
    );
    assert_eq!(Tensor::zeros((0, 3)).split(2, 0).len(), 1);
    assert_eq!(Tensor::zeros((0, 3)).sort(0).0.shape(), [0, 3]);
    assert_eq!(Tensor::zeros((2, 0)).cumsum(1).shape(), [2, 0]);
    let x = tensor([[1.0, 5.0], [3.0, f32::NAN]]);
    assert_eq!(x.lt(&tensor([2.0, 6.0])), array([[true, true], [false, false]]));
    assert_eq!(
        (x.eq(&x), x.ne(&x)),
        (array([[true, true], [true, false]]), array([[false, false], [false, true]]))
    );
    assert_eq!(
        (x.le(3.0), x.gt(3.0)),
        (array([[true, false], [true, false]]), array([[false, true], [false, false]]))
    );
}

#[test]
fn a_generators_numbers_come_as_tensors() {
    let [mut one, mut other] = [7, 7].map(Generator::manual_seed);
    let rows = 3_usize;
    assert_eq!(Tensor::randn(&mut one, (rows, 5)).data, other.randn(&[3, 5]));
    assert_eq!(Tensor::rand(&mut one, [4]).data, other.rand(&[4]));
    assert_eq!(tensor([1.0]).ones_like().data, array([1.0]));
}

#[test]
fn mistakes_are_answered_with_operation_and_shapes() {
    type Case = (&'static [&'static str], fn(&Tensor));
    let cases: [Case; 28] = [
        (&["flatten", "[2, 3]", "axis 2"], |x| drop(x.flatten(0, 2))),
        (&["flatten", "[2, 3]", "1 to 0"], |x| drop(x.flatten(1, 0))),
        (&["unflatten", "[2, 3]", "[2, -1]"], |x| drop(x.unflatten(1, (2, ())))),
        (&["repeat", "[2, 3]", "[2]"], |x| drop(x.repeat(2))),
        (&["flip", "[2, 3]", "axis -3"], |x| drop(x.flip(&[-3]))),
        (&["roll", "[2, 3]", "axis 2"], |x| drop(x.roll(1, 2))),
        (&["narrow", "[2, 3]", "2..4", "axis 1"], |x| drop(x.narrow(1, 2, 2))),
        (&["split", "[2, 3]", "size 0"], |x| drop(x.split(0, 1))),
        (&["split", "[2, 3]", "sizes [1, 1]"], |x| drop(x.split([1, 1], 1))),
        (&["chunk", "[2, 3]", "0 parts"], |x| drop(x.chunk(0, 1))),
        (&["pad", "[2, 3]", "[1]"], |x| drop(x.pad(1, 0.0))),
        (&["pad", "[-1, 1]"], |x| drop(x.pad((-1, 1), 0.0))),
        (&["interpolate", "[3]"], |x| drop(x.slice(0).interpolate((2, 2), Interpolation::Nearest))),
        (&["max", "[2, 3]", "axis 2"], |x| drop(x.max(2))),
        (&["argmin", "[2, 0]"], |x| drop(x.slice((.., ..0)).argmin(1))),
        (&["topk", "[2, 3]", "4 elements"], |x| drop(x.topk(4, 1))),
        (&["tril", "[3]"], |x| drop(x.slice(0).tril(0))),
        (&["cumsum", "[2, 3]", "axis 2"], |x| drop(x.cumsum(2))),
        (&["prod", "[2, 3]", "axis 2"], |x| drop(x.prod(2))),
        (&["pow", "[2, 3]", "[2]"], |x| drop(x.pow(&tensor([1.0, 2.0])))),
        (&["lt", "[2, 3]", "[2]"], |x| drop(x.lt(&tensor([1.0, 2.0])))),
        (&["einsum", "[2, 3]", "two sizes"], |x| drop(einsum("ii->i", &[x]))),
        (&["einsum", "[2, 3]", "as many"], |x| drop(einsum("ij,jk->ik", &[x]))),
        (&["arange", "0 to 1"], |_| drop(arange(0.0, 1.0, -1.0))),
        (&["zeros", "[2, -1]"], |_| drop(Tensor::zeros((2, -1)))),
        (&["index", "(0, 3)", "[2, 3]"], |x| drop(Tensor::from(x[(0, 3)]))),
        (&["add", "[2, 3]", "[2]"], |x| {
            let mut sum = x.clone();
            sum += tensor([1.0, 2.0]);
        }),
        (&["add_assign", "parameter"], |x| {
            let mut parameter = Tensor::parameter(x.data.clone());
            parameter += 1.0;
        }),
    ];
    for (parts, f) in cases {
        let text = complaint(|| f(&Tensor::ones((2, 3))));
        assert!(parts.iter().all(|part| text.contains(part)), "{text:?} lacks one of {parts:?}");
    }
}

#[test]
fn shapes_and_parts_are_written_in_many_ways() {
    let x = arange(0.0, 24.0, 1.0);
    let (n, list) = (2_usize, vec![2_usize, 3, 4]);
    let expected = x.reshape(&[2, 3, 4]).data;
    for y in [
        x.reshape((n, -1, 4)),
        x.reshape((n, (), 4_i64)),
        x.reshape(&list),
        x.reshape(list.clone()),
        x.reshape(&list[..]),
    ] {
        assert_eq!(y.data, expected);
    }
    let x = x.reshape((n, 3, 4));
    assert_eq!(x.slice((.., 1..3)).shape(), [2, 2, 4]);
    assert_eq!(x.slice((0, ..=1, -1)).to_vec(), [3.0, 7.0]);
    assert_eq!((x.slice(1..n).shape(), x.slice(-1).shape()), (&[1, 3, 4][..], &[3, 4][..]));
    assert_eq!((x[(1, 2, -1)], x[[1, 2, 3]], tensor([5.0])[0]), (23.0, 23.0, 5.0));
    let parameter = Tensor::parameter(x.data.clone());
    let mut y = &parameter * 2.0;
    y += &parameter;
    y -= 1.0;
    y *= &x;
    y /= 2.0;
    y.sum(..).backward();
    assert_eq!(parameter.grad(), Some(map(x.data.clone(), |x| 1.5 * x)));
    let mut sum = tensor([1.0, 2.0]);
    let memory = elements(&sum.data).as_ptr();
    sum += 1.0;
    assert_eq!((elements(&sum.data).as_ptr(), sum.to_vec()), (memory, vec![2.0, 3.0]), "in place");
}

/// Texts by PyTorch 2.15. Where the middle is left out we add the size, and we align `nan` and `-inf` with the rest.
#[test]
fn tensors_are_printed_as_pytorch_does() {
    let shown = |x: &Tensor, text: &str| assert_eq!(x.to_string(), text);
    shown(&tensor([1.0, 2.0, -3.0]), "tensor([ 1.,  2., -3.])");
    shown(
        &tensor([[1.5, -2.25], [1000.0, 3.0]]),
        "tensor([[   1.5000,   -2.2500],\n        [1000.0000,    3.0000]])",
    );
    shown(&tensor([1e-5, 1.0]), "tensor([1.0000e-05, 1.0000e+00])");
    shown(&tensor([1e9, 1.0]), "tensor([1.0000e+09, 1.0000e+00])");
    shown(
        &tensor([f32::NAN, 1.0, f32::INFINITY, -f32::INFINITY, 2.5]),
        "tensor([   nan, 1.0000,    inf,   -inf, 2.5000])",
    );
    shown(&tensor([5e-5, 0.0]), "tensor([5.0000e-05, 0.0000e+00])");
    shown(&tensor(3.5), "tensor(3.5000)");
    shown(&Tensor::zeros(0), "tensor([])");
    shown(&Tensor::zeros((0, 3)), "tensor([], size=(0, 3))");
    shown(
        &(arange(0.0, 14.0, 1.0) / 3.0).slice(..11),
        "tensor([0.0000, 0.3333, 0.6667, 1.0000, 1.3333, 1.6667, 2.0000, 2.3333, 2.6667,\n        3.0000, 3.3333])",
    );
    shown(
        &arange(0.0, 12.0, 1.0).reshape((2, 2, 3)),
        "tensor([[[ 0.,  1.,  2.],\n         [ 3.,  4.,  5.]],\n\n        [[ 6.,  7.,  8.],\n         [ 9., 10., 11.]]])",
    );
    shown(&arange(0.0, 1001.0, 1.0), "tensor([   0.,    1.,    2.,  ...,  998.,  999., 1000.], size=(1001))");
    shown(
        &(arange(0.0, 1200.0, 1.0).reshape((30, 40)) / 7.0),
        "tensor([[0.0000e+00, 1.4286e-01, 2.8571e-01,  ..., 5.2857e+00, 5.4286e+00,
         5.5714e+00],
        [5.7143e+00, 5.8571e+00, 6.0000e+00,  ..., 1.1000e+01, 1.1143e+01,
         1.1286e+01],
        [1.1429e+01, 1.1571e+01, 1.1714e+01,  ..., 1.6714e+01, 1.6857e+01,
         1.7000e+01],
        ...,
        [1.5429e+02, 1.5443e+02, 1.5457e+02,  ..., 1.5957e+02, 1.5971e+02,
         1.5986e+02],
        [1.6000e+02, 1.6014e+02, 1.6029e+02,  ..., 1.6529e+02, 1.6543e+02,
         1.6557e+02],
        [1.6571e+02, 1.6586e+02, 1.6600e+02,  ..., 1.7100e+02, 1.7114e+02,
         1.7129e+02]], size=(30, 40))",
    );
    let x = Tensor::parameter(array([0.1, 0.2]));
    shown(&x, "tensor([0.1000, 0.2000], requires_grad=True)");
    shown(&(&x * 2.0), "tensor([0.2000, 0.4000], grad_fn=<mul>)");
    assert_eq!(format!("{:.1}", x.detach()), "tensor([0.1, 0.2])");
    assert_eq!(array([[true], [false]]).to_string(), "array([[ true],\n       [false]])");
    assert_eq!(array([1_i64, 20, -300]).to_string(), "array([   1,   20, -300])");
}
