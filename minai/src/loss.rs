// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash c0f693eb2c400a54
//! Softmax, its relatives, and loss functions. Means are taken over all elements, or over the rows.

// %% notebooks/06_training.ipynb lo-softmax-op
use minai::array::Array;
use minai::kernels;
use minai::kernels::softmax::Kind;
use minai::tensor::{Tensor, axis_of, contiguous, elements, elements_mut, from_op};

#[track_caller]
fn softmax_op(op: &'static str, kind: Kind, x: &Tensor, axis: isize) -> Tensor {
    let (axis, last) = (axis_of(op, axis, x.shape()), x.shape().len() - 1);
    if axis != last {
        let turned = x.transpose(axis as isize, -1);
        return softmax_op(op, kind, &turned, -1).transpose(axis as isize, -1);
    }
    let cols = x.shape()[last];
    let y = Array::new(kernels::softmax::forward(kind, elements(&contiguous(&x.data)), cols), x.shape());
    let result = y.clone();
    from_op(op, y, &[x], move |mut g, _| {
        kernels::softmax::backward(kind, elements(&result), cols, elements_mut(&mut g));
        vec![Some(g)]
    })
}

// %% notebooks/06_training.ipynb lo-softmax
/// eˣ / Σ eˣ along an axis.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn softmax(x: &Tensor, axis: isize) -> Tensor {
    softmax_op("softmax", Kind::Softmax, x, axis)
}

/// x - ln Σ eˣ along an axis.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn log_softmax(x: &Tensor, axis: isize) -> Tensor {
    softmax_op("log_softmax", Kind::LogSoftmax, x, axis)
}

// %% notebooks/06_training.ipynb lo-targets
/// The targets of rows of `classes` scores, checked.
#[track_caller]
fn checked_targets(op: &str, x: &Tensor, targets: &Array<i64>) -> (usize, Vec<usize>) {
    let (shape, given) = (x.shape(), targets.shape());
    let &[rows, classes] = shape else { panic!("{op}: scores of shape (rows, classes) expected, {shape:?}") };
    assert!(given == [rows], "{op}: targets of shape {given:?} for scores of shape {shape:?}");
    let is_class = |&target: &i64| usize::try_from(target).is_ok_and(|index| index < classes);
    if let Some(target) = targets.iter().find(|target| !is_class(target)) {
        panic!("{op}: target {target} for scores of shape {shape:?}")
    }
    (classes, targets.iter().map(|&target| target as usize).collect())
}

// %% notebooks/06_training.ipynb lo-cross-entropy
/// The mean over the rows of -ln softmax(x) at the target. `x`: (rows, classes), `targets`: (rows), a number.
///
/// # Panics
/// If the shapes are not these, or a target is not a class.
#[track_caller]
pub fn cross_entropy(x: &Tensor, targets: &Array<i64>) -> Tensor {
    use kernels::softmax as kernel;
    let (cols, targets) = checked_targets("cross_entropy", x, targets);
    let (input, mut lse) = (contiguous(&x.data), vec![0.0; targets.len()]);
    let loss = kernel::cross_entropy(elements(&input), cols, &targets, &mut lse);
    from_op("cross_entropy", Array::new(vec![loss], &[]), &[x], move |g, _| {
        let g = elements(&g)[0];
        let dx = kernel::cross_entropy_backward(elements(&input), cols, &targets, &lse, g);
        vec![Some(Array::new(dx, input.shape()))]
    })
}

// %% notebooks/06_training.ipynb lo-lse
/// ln Σ eˣ along an axis, which is taken out of the shape.
///
/// # Panics
/// If there is no such axis.
#[track_caller]
pub fn logsumexp(x: &Tensor, axis: isize) -> Tensor {
    let (axis, rank) = (axis_of("logsumexp", axis, x.shape()), x.shape().len());
    if axis + 1 != rank {
        let order: Vec<isize> = (0..rank).filter(|&i| i != axis).chain([axis]).map(|i| i as isize).collect();
        return logsumexp(&x.permute(&order), -1);
    }
    let (shape, cols) = (x.data.shape().to_vec(), x.shape()[axis]);
    let input = contiguous(&x.data);
    let mut lse = vec![f32::NEG_INFINITY; shape[..axis].iter().product()]; // of no numbers: ln 0
    kernels::softmax::logsumexp(elements(&input), cols, &mut lse);
    let result = Array::new(lse, &shape[..axis]);
    let lse = result.clone();
    from_op("logsumexp", result, &[x], move |g, _| {
        let dx = kernels::softmax::logsumexp_backward(elements(&input), cols, elements(&lse), elements(&g));
        vec![Some(Array::new(dx, &shape))]
    })
}

// %% notebooks/06_training.ipynb lo-nll
/// The mean over the rows of -x at the target, for logarithms of probabilities `x` (rows, classes).
///
/// # Panics
/// If the shapes are not (rows, classes) and (rows), or a target is not a class.
#[track_caller]
pub fn nll_loss(x: &Tensor, targets: &Array<i64>) -> Tensor {
    let (cols, targets) = checked_targets("nll_loss", x, targets);
    let places: Vec<usize> = targets.iter().enumerate().map(|(row, target)| row * cols + target).collect();
    let (input, shape) = (contiguous(&x.data), x.shape().to_vec());
    let sum: f64 = places.iter().map(|&place| -f64::from(elements(&input)[place])).sum();
    let loss = (sum / places.len() as f64) as f32;
    from_op("nll_loss", Array::new(vec![loss], &[]), &[x], move |g, _| {
        let mut dx = vec![0.0; shape.iter().product()];
        places.iter().for_each(|&place| dx[place] = -elements(&g)[0] / places.len() as f32);
        vec![Some(Array::new(dx, &shape))]
    })
}

// %% notebooks/06_training.ipynb lo-means
#[track_caller]
fn assert_same_shape(op: &str, x: &Tensor, y: &Tensor) {
    assert!(x.shape() == y.shape(), "{op}: shapes {:?} and {:?} differ", x.shape(), y.shape());
}

/// The mean of (x - y)², a number.
///
/// # Panics
/// If the shapes differ: nothing is broadcast.
#[track_caller]
pub fn mse_loss(x: &Tensor, y: &Tensor) -> Tensor {
    assert_same_shape("mse_loss", x, y);
    let (a, b) = (contiguous(&x.data), contiguous(&y.data));
    let loss = kernels::softmax::mse(elements(&a), elements(&b));
    from_op("mse_loss", Array::new(vec![loss], &[]), &[x, y], move |g, needs| {
        let (a, b, shape) = (elements(&a), elements(&b), a.shape());
        let gradient = |x, y| Array::new(kernels::softmax::mse_backward(x, y, elements(&g)[0]), shape);
        vec![needs[0].then(|| gradient(a, b)), needs[1].then(|| gradient(b, a))]
    })
}

// %% notebooks/06_training.ipynb lo-binary
/// The mean of -t ln σ(x) - (1 - t) ln(1 - σ(x)) for scores x and targets t from 0 to 1, a number.
///
/// # Panics
/// If the shapes differ: nothing is broadcast.
#[track_caller]
pub fn binary_cross_entropy_with_logits(x: &Tensor, targets: &Tensor) -> Tensor {
    use kernels::softmax as kernel;
    const NAME: &str = "binary_cross_entropy_with_logits";
    assert_same_shape(NAME, x, targets);
    let (a, t) = (contiguous(&x.data), contiguous(&targets.data));
    let loss = kernel::bce_with_logits(elements(&a), elements(&t));
    from_op(NAME, Array::new(vec![loss], &[]), &[x, targets], move |g, needs| {
        let (g, n) = (elements(&g)[0], a.len() as f32);
        let to_x = || kernel::bce_with_logits_backward(elements(&a), elements(&t), g);
        let to_t = || elements(&a).iter().map(|x| -x * g / n).collect();
        let gradient = |values| Array::new(values, a.shape());
        vec![needs[0].then(|| gradient(to_x())), needs[1].then(|| gradient(to_t()))]
    })
}
