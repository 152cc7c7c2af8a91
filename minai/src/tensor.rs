// Owned by notebooks/05_tensor.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash a59a85ca0f23b583
//! Tensors that know their gradient: [`Tensor`], its operations, and [`from_op`] for new ones.

// %% notebooks/05_tensor.ipynb te-types
use minai::array::Array;
use ndarray::{Dimension, IxDyn};
use std::cell::RefCell;
use std::rc::Rc;

/// From dL/d(output), and which inputs want a gradient: dL/d(each input).
type Backward = Box<dyn FnOnce(Array, &[bool]) -> Vec<Option<Array>>>;

struct History {
    inputs: Vec<Option<Rc<Node>>>,
    backward: Backward,
}

struct Node {
    op: &'static str,
    shape: IxDyn,
    /// 0 for a parameter, else one more than the highest input's.
    height: usize,
    gradient: RefCell<Option<Array>>,
    /// How it came about: nothing for a parameter, and nothing any more after a backward pass.
    history: RefCell<Option<History>>,
}

// %% notebooks/05_tensor.ipynb te-drop
/// Drops nodes, and all that only they hold.
fn take_apart(mut inputs: Vec<Option<Rc<Node>>>) {
    while let Some(input) = inputs.pop() {
        if let Some(node) = input.and_then(Rc::into_inner)
            && let Some(history) = node.history.take()
        {
            inputs.extend(history.inputs);
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(history) = self.history.take() {
            take_apart(history.inputs);
        }
    }
}

// %% notebooks/05_tensor.ipynb te-tensor
/// An array and, where a gradient is wanted, its place in the graph of operations that led to it.
///
/// A tensor without a node is a constant. Cloning is cheap: the values are shared.
/// A tensor stays in its thread; its array may leave:
///
/// ```compile_fail,E0277
/// let x = minai::tensor::tensor([1.0]);
/// std::thread::spawn(move || x.item());
/// ```
/// ```
/// let x = minai::tensor::tensor([1.0]).data;
/// std::thread::spawn(move || x[[0]]);
/// ```
#[derive(Clone)]
pub struct Tensor {
    /// The values. A parameter's may be changed in place; nothing is copied unless something else still uses them.
    pub data: Array,
    node: Option<Rc<Node>>,
}

// %% notebooks/05_tensor.ipynb te-constant
use minai::array::{Nested, array};

fn constant(data: Array) -> Tensor {
    Tensor { data, node: None }
}

/// A constant: no gradient goes there.
impl From<Array> for Tensor {
    fn from(data: Array) -> Self {
        constant(data)
    }
}

/// A constant of rank 0.
impl From<f32> for Tensor {
    fn from(number: f32) -> Self {
        constant(array(number))
    }
}

// %% notebooks/05_tensor.ipynb te-float
/// What [`tensor()`] takes: `f32`.
#[diagnostic::on_unimplemented(
    message = "a tensor holds `f32`, not `{Self}`",
    note = "write `1.0` or `1.` instead of `1`; lists of whole numbers are made with `array`"
)]
pub trait Float: Sized {
    /// A constant with these elements.
    fn constant(elements: Array<Self>) -> Tensor;
}

impl Float for f32 {
    fn constant(elements: Array) -> Tensor {
        elements.into()
    }
}

// %% notebooks/05_tensor.ipynb te-new
/// A constant from nested lists of numbers: `tensor([[1.0, 2.0], [3.0, 4.0]])`.
///
/// # Panics
/// If lists at the same depth differ in length.
#[track_caller]
pub fn tensor<N: Nested>(numbers: N) -> Tensor
where
    N::Number: Float,
{
    Float::constant(array(numbers))
}

// %% notebooks/05_tensor.ipynb te-parameter
fn parameter_node(shape: IxDyn) -> Node {
    Node { op: "parameter", shape, height: 0, gradient: RefCell::default(), history: RefCell::default() }
}

impl Tensor {
    /// A tensor whose gradient is wanted: what training changes. The gradient gathers in it, see [`Tensor::grad`].
    ///
    /// Changing `data` in place after the backward pass copies nothing, as long as there is no clone.
    pub fn parameter(data: Array) -> Self {
        let node = parameter_node(data.raw_dim());
        Tensor { data, node: Some(Rc::new(node)) }
    }

    /// Whether gradients flow into this tensor.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }
}

// %% notebooks/05_tensor.ipynb te-grad
fn gradient_of(tensor: &Tensor) -> Option<&RefCell<Option<Array>>> {
    Some(&tensor.node.as_ref()?.gradient)
}

impl Tensor {
    /// The gradient that has gathered in a parameter; `None` before the first backward pass.
    pub fn grad(&self) -> Option<Array> {
        gradient_of(self)?.borrow().clone()
    }

    /// Takes the gradient out of a parameter, which leaves none.
    pub fn take_grad(&self) -> Option<Array> {
        gradient_of(self)?.take()
    }

    /// Forgets the gradient, so that the next backward pass begins a new one.
    pub fn zero_grad(&self) {
        self.take_grad();
    }
}

// %% notebooks/05_tensor.ipynb te-values
fn sizes(tensor: &Tensor) -> &[usize] {
    tensor.data.shape()
}

impl Tensor {
    /// The size of each axis.
    pub fn shape(&self) -> &[usize] {
        sizes(self)
    }

    /// The number inside. Panics if there is not exactly one.
    #[track_caller]
    pub fn item(&self) -> f32 {
        assert!(self.data.len() == 1, "item: one element expected, shape {:?}", self.shape());
        *self.data.first().expect("one element")
    }

    /// The same values as a constant: no gradient passes. The memory is shared.
    pub fn detach(&self) -> Tensor {
        constant(self.data.clone())
    }
}

// %% notebooks/05_tensor.ipynb te-debug
use std::fmt;

/// The name of the operation that a tensor comes from.
fn made_by(tensor: &Tensor) -> &'static str {
    tensor.node.as_ref().map_or("constant", |node| node.op)
}

/// Shows the elements, the shape, and where the tensor comes from.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.data.fmt(f)?;
        write!(f, ", {}", made_by(self))
    }
}

// %% notebooks/05_tensor.ipynb te-arrays
use minai::kernels::elementwise;
use ndarray::ArcArray;

/// The elements in row-major order: the same memory where they lie so already, else a copy.
/// Its `as_slice()` is always `Some`.
pub fn contiguous<T: Copy + Send + Sync>(array: &Array<T>) -> Array<T> {
    if array.is_standard_layout() {
        return array.clone();
    }
    match elementwise::memory_of(array) {
        Some(memory) => {
            Array::new(elementwise::copy(array.shape(), (memory, array.strides())), array.shape())
        }
        None => array.as_standard_layout().into_owned().into_shared().into(), // reversed by a negative step
    }
}

// %% notebooks/05_tensor.ipynb te-elements
/// The elements of an array in row-major order.
///
/// # Panics
/// If they do not lie so: call [`contiguous`] first.
#[track_caller]
pub fn elements<T>(array: &Array<T>) -> &[T] {
    array.as_slice().expect("in row-major order")
}

/// The elements of such an array, to be changed: in place if nobody else uses them, else in a copy.
///
/// # Panics
/// If they do not lie in row-major order.
#[track_caller]
pub fn elements_mut<T: Clone>(array: &mut Array<T>) -> &mut [T] {
    array.as_slice_mut().expect("in row-major order")
}

// %% notebooks/05_tensor.ipynb te-owner
/// The buffer of a row-major array that nobody else uses; else the array back.
fn sole_owner(array: Array) -> Result<Vec<f32>, Array> {
    if !array.is_standard_layout() {
        return Err(array);
    }
    let owned = ArcArray::from(array).try_into_owned_nocopy().map_err(Array::from)?;
    let len = owned.len();
    let (buffer, start) = owned.into_raw_vec_and_offset();
    // Of a slice of something larger, a copy is ours as well.
    Ok(if buffer.len() == len { buffer } else { buffer[start.unwrap_or(0)..][..len].to_vec() })
}

// %% notebooks/05_tensor.ipynb te-map
/// `f` of every element; in place, if nobody else uses the array's memory.
pub fn map(x: Array, f: impl Fn(f32) -> f32 + Sync) -> Array {
    let shape = x.raw_dim();
    let mapped = match sole_owner(x) {
        Ok(mut buffer) => {
            elementwise::map_in_place(&mut buffer, f);
            buffer
        }
        Err(x) => elementwise::map(elements(&contiguous(&x)), f),
    };
    Array::new(mapped, shape.slice())
}

// %% notebooks/05_tensor.ipynb te-broadcast
/// The shape of two arrays broadcast against each other: sizes are compared from the last axis backwards, and must be
/// equal, or one of them 1 or missing.
///
/// # Panics
/// If they are not, with the operation's name and both shapes.
#[track_caller]
pub fn broadcast_shape(op: &str, x: &[usize], y: &[usize]) -> Vec<usize> {
    let rank = x.len().max(y.len());
    let size =
        |shape: &[usize], axis: usize| (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis]);
    let joined = |axis| match (size(x, axis), size(y, axis)) {
        (x, y) if x == y => Some(x),
        (1, size) | (size, 1) => Some(size),
        _ => None,
    };
    let shape: Option<Vec<usize>> = (0..rank).map(joined).collect();
    let Some(shape) = shape else { panic!("{op}: shapes {x:?} and {y:?} cannot be broadcast") };
    shape
}

// %% notebooks/05_tensor.ipynb te-strides
/// An array's strides in a larger shape: 0 along the axes that it is repeated on.
fn broadcast_strides<T>(array: &Array<T>, shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let missing = shape.len() - array.ndim();
    for (axis, (&size, &stride)) in array.shape().iter().zip(array.strides()).enumerate() {
        if size != 1 {
            strides[missing + axis] = stride;
        }
    }
    strides
}

/// Lends an array's memory, with the strides that read it in a shape that it is broadcast to.
fn read_as<T, R>(shape: &[usize], array: &Array<T>, read: impl FnOnce(elementwise::Strided<T>) -> R) -> R
where
    T: Copy + Send + Sync,
{
    match elementwise::memory_of(array) {
        Some(memory) => read((memory, &broadcast_strides(array, shape))),
        None => read_as(shape, &contiguous(array), read),
    }
}

// %% notebooks/05_tensor.ipynb te-zip-strided
fn zip_strided<T, U>(shape: &[usize], x: &Array<T>, y: &Array<U>, f: impl Fn(T, U) -> f32 + Sync) -> Array
where
    T: Copy + Send + Sync,
    U: Copy + Send + Sync,
{
    let zipped = read_as(shape, x, |x| read_as(shape, y, |y| elementwise::zip(shape, x, y, f)));
    Array::new(zipped, shape)
}

fn own_if(x: Array, shape: &[usize]) -> Result<Vec<f32>, Array> {
    if x.shape() == shape { sole_owner(x) } else { Err(x) }
}

// %% notebooks/05_tensor.ipynb te-zip
/// `f` of every pair of elements, broadcast; in place, if nobody else uses the memory of one that has the result's shape.
///
/// # Panics
/// If the shapes cannot be broadcast, with the operation's name.
#[track_caller]
pub fn zip(op: &str, x: Array, y: Array, f: impl Fn(f32, f32) -> f32 + Sync) -> Array {
    let shape = broadcast_shape(op, x.shape(), y.shape());
    match own_if(x, &shape) {
        Ok(mut x) => {
            read_as(&shape, &y, |y| elementwise::zip_in_place(&shape, &mut x, y, f));
            Array::new(x, &shape)
        }
        Err(x) => match own_if(y, &shape) {
            Ok(mut y) => {
                read_as(&shape, &x, |x| elementwise::zip_into_right(&shape, x, &mut y, f));
                Array::new(y, &shape)
            }
            Err(y) => zip_strided(&shape, &x, &y, f),
        },
    }
}

// %% notebooks/05_tensor.ipynb te-sum-to
use minai::kernels::reduce;

/// The reverse of broadcasting, for gradients: sums over the axes that were repeated, so that `shape` is left.
///
/// # Panics
/// If `x` is not something that `shape` can be broadcast to.
#[track_caller]
pub fn sum_to(x: Array, shape: &[usize]) -> Array {
    if x.shape() == shape {
        return x;
    }
    let fits = shape.len() <= x.ndim() && broadcast_shape("sum_to", x.shape(), shape) == x.shape();
    assert!(fits, "sum_to: {shape:?} does not broadcast to {:?}", x.shape());
    let missing = x.ndim() - shape.len();
    let is_summed = |axis: usize| axis < missing || shape[axis - missing] == 1;
    let summed: Vec<bool> = (0..x.ndim()).map(is_summed).collect();
    Array::new(read_as(x.shape(), &x, |memory| reduce::sum(x.shape(), memory, &summed)), shape)
}

// %% notebooks/05_tensor.ipynb te-link
/// [`from_op`] for operations that have taken the inputs' data and have only their nodes left.
fn link(
    op: &'static str,
    data: Array,
    inputs: Vec<Option<Rc<Node>>>,
    backward: impl FnOnce(Array, &[bool]) -> Vec<Option<Array>> + 'static,
) -> Tensor {
    let Some(highest) = inputs.iter().flatten().map(|input| input.height).max() else {
        return constant(data);
    };
    let node = Node {
        op,
        shape: data.raw_dim(),
        height: highest + 1,
        gradient: RefCell::default(),
        history: RefCell::new(Some(History { inputs, backward: Box::new(backward) })),
    };
    Tensor { data, node: Some(Rc::new(node)) }
}

// %% notebooks/05_tensor.ipynb te-from-op
/// The result of an operation, with the way back: how a new operation is added, from anywhere.
/// `backward` gets dL/d(output), in row-major order, and which inputs want a gradient, and returns dL/d(each input) or
/// `None`; the backward pass panics where one is missing or has a wrong shape. If no input wants one, it never runs.
///
/// ```
/// use minai::tensor::{Tensor, from_op, map, tensor, zip};
///
/// fn square(x: &Tensor) -> Tensor {
///     let saved = x.data.clone();
///     let squares = map(saved.clone(), |x| x * x);
///     from_op("square", squares, &[x], |g, _| vec![Some(zip("square", g, saved, |g, x| 2.0 * g * x))])
/// }
/// let x = Tensor::parameter(tensor([3.0]).data);
/// square(&x).backward();
/// assert_eq!(x.grad().unwrap()[[0]], 6.0);
/// ```
pub fn from_op(
    op: &'static str,
    data: Array,
    inputs: &[&Tensor],
    backward: impl FnOnce(Array, &[bool]) -> Vec<Option<Array>> + 'static,
) -> Tensor {
    link(op, data, inputs.iter().map(|input| input.node.clone()).collect(), backward)
}

// %% notebooks/05_tensor.ipynb te-backward
use std::collections::BTreeMap;

/// Nodes that have received a gradient, by height and, among equals, by the order in which they came.
#[derive(Default)]
struct Queue {
    nodes: BTreeMap<(usize, usize), Rc<Node>>,
    arrivals: usize,
}

// %% notebooks/05_tensor.ipynb te-receive
/// Adds to a node's gradient; an operation's node joins the queue with its first part.
fn receive(node: Rc<Node>, part: Array, queue: &mut Queue) {
    let before = node.gradient.take();
    let is_first = before.is_none();
    let sum = match before {
        Some(sum) => zip("backward", sum, part, |sum, part| sum + part),
        None => contiguous(&part),
    };
    node.gradient.replace(Some(sum));
    if is_first && node.height > 0 {
        queue.arrivals += 1;
        queue.nodes.insert((node.height, queue.arrivals), node);
    }
}

// %% notebooks/05_tensor.ipynb te-checked
/// Panics unless an operation returned a gradient of the right shape for its `i`-th input.
fn checked(op: &str, i: usize, input: &Node, part: Option<Array>) -> Array {
    let Some(part) = part else { panic!("backward: `{op}` returned no gradient for input {i}") };
    let (given, wanted) = (part.shape(), input.shape.slice());
    let fits = given == wanted;
    assert!(
        fits,
        "backward: `{op}` returned a gradient of shape {given:?} for input {i} of shape {wanted:?}"
    );
    part
}

// %% notebooks/05_tensor.ipynb te-step
/// One step of the backward pass: from a node's complete gradient to its inputs.
fn step_back(node: &Node, queue: &mut Queue) {
    let op = node.op;
    let Some(History { inputs, backward }) = node.history.take() else {
        panic!("backward: this graph was used up by an earlier backward pass, at `{op}`")
    };
    let needs: Vec<bool> = inputs.iter().map(Option::is_some).collect();
    let gradient = node.gradient.take().expect("in the queue because it has one");
    let parts = backward(gradient, &needs);
    let (given, wanted) = (parts.len(), inputs.len());
    assert!(given == wanted, "backward: `{op}` returned {given} gradients for {wanted} inputs");
    for (i, (input, part)) in inputs.into_iter().zip(parts).enumerate() {
        if let Some(input) = input {
            let part = checked(op, i, &input, part);
            receive(input, part, queue);
        }
    }
}

// %% notebooks/05_tensor.ipynb te-pass
/// Whoever could still add to the highest node's gradient would be higher: it is complete.
fn pass_from(node: Rc<Node>, gradient: Array) {
    let mut queue = Queue::default();
    receive(node, gradient, &mut queue);
    while let Some((_, node)) = queue.nodes.pop_last() {
        step_back(&node, &mut queue);
    }
}

impl Tensor {
    /// The backward pass from a given dL/d(this tensor): computes the gradient with respect to every parameter that it
    /// depends on, and adds it to theirs. What the operations kept for this is freed on the way; a second call panics.
    ///
    /// # Panics
    /// If the shapes differ, no parameter leads here, or nothing is left of the graph.
    #[track_caller]
    pub fn backward_from(&self, gradient: Array) {
        let Some(node) = &self.node else { panic!("backward: no parameter leads to this tensor") };
        let (given, shape) = (gradient.shape(), self.shape());
        assert!(given == shape, "backward: gradient of shape {given:?} for a tensor of shape {shape:?}");
        pass_from(node.clone(), gradient);
    }
}

// %% notebooks/05_tensor.ipynb te-loss
fn slope_of_itself(shape: &[usize]) -> Array {
    Array::new(vec![1.0], shape)
}

impl Tensor {
    /// The backward pass from a loss; see [`Tensor::backward_from`].
    ///
    /// # Panics
    /// If there is not exactly one element, no parameter leads here, or nothing is left of the graph.
    #[track_caller]
    pub fn backward(&self) {
        assert!(self.data.len() == 1, "backward: a single number expected, shape {:?}", self.shape());
        self.backward_from(slope_of_itself(self.shape()));
    }
}

// %% notebooks/05_tensor.ipynb te-operators
#[track_caller]
fn add(x: Tensor, y: Tensor) -> Tensor {
    let (x_shape, y_shape) = (x.data.raw_dim(), y.data.raw_dim());
    let sum = zip("add", x.data, y.data, |x, y| x + y);
    link("add", sum, vec![x.node, y.node], move |g, needs| {
        let to_x = needs[0].then(|| sum_to(g.clone(), x_shape.slice()));
        vec![to_x, needs[1].then(|| sum_to(g, y_shape.slice()))]
    })
}

#[track_caller]
fn sub(x: Tensor, y: Tensor) -> Tensor {
    let (x_shape, y_shape) = (x.data.raw_dim(), y.data.raw_dim());
    let difference = zip("sub", x.data, y.data, |x, y| x - y);
    link("sub", difference, vec![x.node, y.node], move |g, needs| {
        let to_x = needs[0].then(|| sum_to(g.clone(), x_shape.slice()));
        vec![to_x, needs[1].then(|| map(sum_to(g, y_shape.slice()), |g| -g))]
    })
}

// %% notebooks/05_tensor.ipynb te-mul
#[track_caller]
fn mul(x: Tensor, y: Tensor) -> Tensor {
    let (x_shape, y_shape) = (x.data.raw_dim(), y.data.raw_dim());
    let kept_y = x.node.is_some().then(|| y.data.clone());
    let kept_x = y.node.is_some().then(|| x.data.clone());
    let product = zip("mul", x.data, y.data, |x, y| x * y);
    link("mul", product, vec![x.node, y.node], move |g, _| {
        let to_x = kept_y.map(|y| sum_to(zip("mul", g.clone(), y, |g, y| g * y), x_shape.slice()));
        vec![to_x, kept_x.map(|x| sum_to(zip("mul", g, x, |g, x| g * x), y_shape.slice()))]
    })
}

// %% notebooks/05_tensor.ipynb te-div
#[track_caller]
fn div(x: Tensor, y: Tensor) -> Tensor {
    let (x_shape, divisor) = (x.data.raw_dim(), y.data.clone());
    let quotient = zip("div", x.data, y.data, |x, y| x / y);
    let kept = y.node.is_some().then(|| quotient.clone());
    link("div", quotient, vec![x.node, y.node], move |g, needs| {
        let g = zip("div", g, divisor.clone(), |g, y| g / y);
        let to_x = needs[0].then(|| sum_to(g.clone(), x_shape.slice()));
        let to_y = kept.map(|quotient| zip("div", g, quotient, |g, q| -g * q));
        vec![to_x, to_y.map(|g| sum_to(g, divisor.shape()))]
    })
}

// %% notebooks/05_tensor.ipynb te-scalars
/// An operation with a number that has the slope `scale` everywhere.
fn with_number(op: &'static str, x: Tensor, f: impl Fn(f32) -> f32 + Sync, scale: f32) -> Tensor {
    link(op, map(x.data, f), vec![x.node], move |g, _| {
        vec![Some(if scale == 1.0 { g } else { map(g, |g| g * scale) })]
    })
}

fn number_div(number: f32, x: Tensor) -> Tensor {
    let divisor = x.data.clone();
    let quotient = map(x.data, |x| number / x);
    let kept = quotient.clone();
    link("div", quotient, vec![x.node], move |g, _| {
        vec![Some(zip("div", zip("div", g, kept, |g, q| -g * q), divisor, |g, x| g / x))]
    })
}

// %% notebooks/05_tensor.ipynb te-neg
use std::ops::Neg;

fn negative(x: Tensor) -> Tensor {
    with_number("neg", x, |x| -x, -1.0)
}

impl Neg for Tensor {
    type Output = Tensor;

    fn neg(self) -> Tensor {
        negative(self)
    }
}

impl Neg for &Tensor {
    type Output = Tensor;

    fn neg(self) -> Tensor {
        negative(self.clone())
    }
}

// %% notebooks/05_tensor.ipynb te-operator
mod operator {
    /// An operator for pairs of types that both become what the function takes.
    macro_rules! operator {
        ($trait:ident, $method:ident, $f:expr; $($x:ty, $y:ty);*) => {
            $(impl $trait<$y> for $x {
                type Output = Tensor;

                #[track_caller]
                fn $method(self, y: $y) -> Tensor {
                    $f(self.into(), y.into())
                }
            })*
        };
    }

    pub(super) use operator;
}

/// The same tensor: values and node are shared.
impl From<&Tensor> for Tensor {
    fn from(tensor: &Tensor) -> Self {
        tensor.clone()
    }
}

// %% notebooks/05_tensor.ipynb te-operators-tensors
mod operators {
    use super::operator::operator;
    use super::{Tensor, add, div, mul, sub};
    use std::ops::{Add, Div, Mul, Sub};

    macro_rules! of_tensors {
        ($trait:ident, $method:ident) => {
            operator!($trait, $method, $method;
                Tensor, Tensor; &Tensor, Tensor; Tensor, &Tensor; &Tensor, &Tensor);
        };
    }

    of_tensors!(Add, add);
    of_tensors!(Sub, sub);
    of_tensors!(Mul, mul);
    of_tensors!(Div, div);
}

// %% notebooks/05_tensor.ipynb te-operators-numbers
mod operators_with_numbers {
    use super::operator::operator;
    use super::{Tensor, number_div, with_number};
    use std::ops::{Add, Div, Mul, Sub};

    operator!(Add, add, |x, n: f32| with_number("add", x, |x| x + n, 1.0); Tensor, f32; &Tensor, f32);
    operator!(Add, add, |n: f32, x| with_number("add", x, |x| n + x, 1.0); f32, Tensor; f32, &Tensor);
    operator!(Sub, sub, |x, n: f32| with_number("sub", x, |x| x - n, 1.0); Tensor, f32; &Tensor, f32);
    operator!(Sub, sub, |n: f32, x| with_number("sub", x, |x| n - x, -1.0); f32, Tensor; f32, &Tensor);
    operator!(Mul, mul, |x, n: f32| with_number("mul", x, |x| x * n, n); Tensor, f32; &Tensor, f32);
    operator!(Mul, mul, |n: f32, x| with_number("mul", x, |x| n * x, n); f32, Tensor; f32, &Tensor);
    operator!(Div, div, |x, n: f32| with_number("div", x, |x| x / n, 1.0 / n); Tensor, f32; &Tensor, f32);
    operator!(Div, div, number_div; f32, Tensor; f32, &Tensor);
}

// %% notebooks/05_tensor.ipynb te-multiply
use minai::kernels::gemm;

/// A matrix as the kernel reads it, with its strides from row to row and from column to column.
fn matrix_view<'a>((memory, strides): elementwise::Strided<'a>) -> gemm::View<'a> {
    let [.., row, column] = strides else { panic!("a matrix expected, {} strides", strides.len()) };
    gemm::View::strided(memory, (*row as usize, *column as usize))
}

/// The product of two matrices, (m, k) and (k, n).
fn multiply(x: &Array, y: &Array) -> Array {
    let sizes @ (m, n, _) = (x.shape()[0], y.shape()[1], x.shape()[1]);
    let product = read_as(x.shape(), x, |x| {
        read_as(y.shape(), y, |y| gemm::product(sizes, matrix_view(x), matrix_view(y)))
    });
    Array::new(product, &[m, n])
}

/// A view with the last two axes exchanged.
fn transposed(x: &Array) -> Array {
    let (mut x, rank) = (x.clone(), x.ndim());
    x.swap_axes(rank - 2, rank - 1);
    x
}

// %% notebooks/05_tensor.ipynb te-product
/// The product of two matrices, (m, k) and (k, n). [`Tensor::matmul`] takes vectors and batches, too.
#[track_caller]
fn matmul(x: &Tensor, y: &Tensor) -> Tensor {
    let fits = matches!((x.shape(), y.shape()), ([_, x], [y, _]) if x == y);
    assert!(fits, "matmul: shapes {:?} and {:?} do not fit", x.shape(), y.shape());
    let kept_y = x.requires_grad().then(|| y.data.clone());
    let kept_x = y.requires_grad().then(|| x.data.clone());
    from_op("matmul", multiply(&x.data, &y.data), &[x, y], move |g, _| {
        let to_x = kept_y.map(|y| multiply(&g, &transposed(&y)));
        vec![to_x, kept_x.map(|x| multiply(&transposed(&x), &g))]
    })
}

// %% notebooks/05_tensor.ipynb te-elementwise
/// `f` of each element; `backward` makes the input's gradient from the output's gradient and the *input*.
fn op_from_input(
    op: &'static str,
    x: &Tensor,
    f: impl Fn(f32) -> f32 + Sync,
    backward: impl Fn(f32, f32) -> f32 + Sync + 'static,
) -> Tensor {
    let saved = x.data.clone();
    from_op(op, map(x.data.clone(), f), &[x], move |g, _| vec![Some(zip(op, g, saved, backward))])
}

// %% notebooks/05_tensor.ipynb te-elementwise-output
/// `f` of each element; `backward` makes the input's gradient from the output's gradient and the *output*.
fn op_from_output(
    op: &'static str,
    x: &Tensor,
    f: impl Fn(f32) -> f32 + Sync,
    backward: impl Fn(f32, f32) -> f32 + Sync + 'static,
) -> Tensor {
    let y = map(x.data.clone(), f);
    let saved = y.clone();
    from_op(op, y, &[x], move |g, _| vec![Some(zip(op, g, saved, backward))])
}

// %% notebooks/05_tensor.ipynb te-functions
fn positive_part(x: f32) -> f32 {
    if x < 0.0 { 0.0 } else { x } // NaN stays
}

impl Tensor {
    /// The larger of x and 0, with slope 0 at 0.
    pub fn relu(&self) -> Tensor {
        op_from_output("relu", self, positive_part, |g, y| if y <= 0.0 { 0.0 } else { g })
    }

    /// eˣ.
    pub fn exp(&self) -> Tensor {
        op_from_output("exp", self, elementwise::exp, |g, y| g * y)
    }

    /// x to a whole power.
    pub fn powi(&self, n: i32) -> Tensor {
        match n {
            0 => op_from_input("powi", self, |_| 1.0, |_, _| 0.0),
            2 => op_from_input("powi", self, |x| x * x, |g, x| g * 2.0 * x),
            _ => op_from_input("powi", self, |x| x.powi(n), move |g, x| g * n as f32 * x.powi(n - 1)),
        }
    }
}

// %% notebooks/05_tensor.ipynb te-axes
/// The axes of a reduction: `..` for all, one as `1` or `-1`, several as `[0, 2]`.
pub struct Axes(Option<Vec<isize>>);

impl From<std::ops::RangeFull> for Axes {
    fn from(_: std::ops::RangeFull) -> Self {
        Axes(None)
    }
}

impl From<isize> for Axes {
    fn from(axis: isize) -> Self {
        Axes(Some(vec![axis]))
    }
}

// %% notebooks/05_tensor.ipynb te-axis
/// The position of an axis that is counted from the front, or from the back if negative.
///
/// # Panics
/// If there is no such axis, with the operation's name and the shape.
#[track_caller]
pub fn axis_of(op: &str, axis: isize, shape: &[usize]) -> usize {
    let rank = shape.len() as isize;
    assert!((-rank..rank).contains(&axis), "{op}: no axis {axis} in shape {shape:?}");
    axis.rem_euclid(rank) as usize
}

// %% notebooks/05_tensor.ipynb te-reductions
/// What a reduction does to a shape.
struct Reduction {
    reduced: Vec<bool>,
    /// The shape with each reduced size 1.
    ones: Vec<usize>,
    /// The shape without the reduced axes.
    kept: Vec<usize>,
    /// How many elements go into one.
    count: usize,
}

impl From<&[isize]> for Axes {
    fn from(axes: &[isize]) -> Self {
        Axes(Some(axes.to_vec()))
    }
}

impl<const N: usize> From<[isize; N]> for Axes {
    fn from(axes: [isize; N]) -> Self {
        Axes(Some(axes.to_vec()))
    }
}

// %% notebooks/05_tensor.ipynb te-reduction
#[track_caller]
fn reduction(op: &str, shape: &[usize], axes: impl Into<Axes>) -> Reduction {
    let mut reduced = vec![false; shape.len()];
    match axes.into().0 {
        None => reduced.fill(true),
        // A single number may be summed over its "last" axis, as in PyTorch.
        Some(axes) if shape.is_empty() => {
            assert!(axes.iter().all(|axis| [0, -1].contains(axis)), "{op}: no axes {axes:?} in shape []")
        }
        Some(axes) => axes.iter().for_each(|&axis| reduced[axis_of(op, axis, shape)] = true),
    }
    let sizes = || shape.iter().copied().zip(reduced.iter().copied());
    let ones = sizes().map(|(size, reduced)| if reduced { 1 } else { size }).collect();
    let kept = sizes().filter(|&(_, reduced)| !reduced).map(|(size, _)| size).collect();
    let count = sizes().filter(|&(_, reduced)| reduced).map(|(size, _)| size).product();
    Reduction { reduced, ones, kept, count }
}

// %% notebooks/05_tensor.ipynb te-sum-over
/// A kernel that reduces axes, as [`reduce::sum`].
type Kernel = fn(&[usize], elementwise::Strided, &[bool]) -> Vec<f32>;

/// The reduced array, with sizes of 1.
fn reduce_array(x: &Array, over: &Reduction, kernel: Kernel) -> Array {
    Array::new(read_as(x.shape(), x, |memory| kernel(x.shape(), memory, &over.reduced)), &over.ones)
}

/// A copy of an array in a shape that it is broadcast to.
fn expanded(array: &Array, shape: &[usize]) -> Array {
    Array::new(read_as(shape, array, |memory| elementwise::copy(shape, memory)), shape)
}

// %% notebooks/05_tensor.ipynb te-sum-op
/// The sum, divided by `divisor`, in the given shape: one of the reduction's two.
fn sum_over(op: &'static str, x: &Tensor, over: &Reduction, shape: &[usize], divisor: f32) -> Tensor {
    let (before, ones) = (x.data.raw_dim(), over.ones.clone());
    let divided = move |x: Array| if divisor == 1.0 { x } else { map(x, |x| x / divisor) };
    let y = divided(reduce_array(&x.data, over, reduce::sum)).reshape(shape);
    from_op(op, y, &[x], move |g, _| vec![Some(expanded(&divided(g.reshape(&ones)), before.slice()))])
}

// %% notebooks/05_tensor.ipynb te-sum
fn sum_of(x: &Tensor, over: &Reduction, shape: &[usize]) -> Tensor {
    sum_over("sum", x, over, shape, 1.0)
}

fn mean_of(x: &Tensor, over: &Reduction, shape: &[usize]) -> Tensor {
    sum_over("mean", x, over, shape, over.count as f32)
}

impl Tensor {
    /// The sum over all axes (`..`), one (`1`, or `-1` for the last), or several (`[0, 2]`). Of no elements it is 0.
    #[track_caller]
    pub fn sum(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("sum", self.shape(), axes);
        sum_of(self, &over, &over.kept)
    }

    /// The mean over axes, as [`Tensor::sum`]. Of no elements it is NaN.
    #[track_caller]
    pub fn mean(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("mean", self.shape(), axes);
        mean_of(self, &over, &over.kept)
    }
}

// %% notebooks/05_tensor.ipynb te-weighted
/// Different for each element, so that no two errors cancel.
fn check_weight(i: usize) -> f32 {
    0.5 + (i * 37 % 64) as f32 / 64.0
}

/// The weighted sum of the elements of `f(inputs)`, with element `i` of input `which` moved by `distance`.
fn weighted_sum(
    f: &impl Fn(&[Tensor]) -> Tensor,
    inputs: &[Tensor],
    (which, i): (usize, usize),
    distance: f32,
) -> f64 {
    let mut moved: Vec<Tensor> = inputs.iter().map(Tensor::detach).collect();
    elements_mut(&mut moved[which].data)[i] += distance;
    let weighted = |(i, &y): (usize, &f32)| f64::from(y) * f64::from(check_weight(i));
    f(&moved).data.iter().enumerate().map(weighted).sum()
}

// %% notebooks/05_tensor.ipynb te-grad-check
/// The largest difference between the gradients of `f` and finite differences, divided by the largest gradient. The
/// latter are slopes of the polynomial of degree 4 through five points. Expect less than 1e-3 for smooth `f` with inputs
/// and outputs around 1, and much more where the slope jumps.
///
/// # Panics
/// If no output depends on an input, or `f` does not always give the same shape.
#[track_caller]
pub fn grad_check(f: impl Fn(&[Tensor]) -> Tensor, inputs: &[Array]) -> f32 {
    let parameters: Vec<Tensor> = inputs.iter().map(|input| Tensor::parameter(contiguous(input))).collect();
    let output = f(&parameters);
    output.backward_from(Array::new((0..output.data.len()).map(check_weight).collect(), output.shape()));
    let (mut worst, mut largest, h) = (0.0_f64, 0.0_f64, 0.01);
    for (which, parameter) in parameters.iter().enumerate() {
        let Some(gradient) = parameter.grad() else { panic!("grad_check: input {which} has no gradient") };
        for (i, &gradient) in elements(&gradient).iter().enumerate() {
            let at = |distance| weighted_sum(&f, &parameters, (which, i), distance);
            let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * f64::from(h));
            worst = worst.max((slope - f64::from(gradient)).abs());
            largest = largest.max(slope.abs());
        }
    }
    (worst / largest.max(1e-6)) as f32
}

// %% notebooks/05_tensor.ipynb te-graph-node
/// A step on the way to a tensor, as [`Tensor::graph`] lists it.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphNode {
    /// The operation, or `parameter`.
    pub op: &'static str,
    /// The shape of its result.
    pub shape: Vec<usize>,
    /// Positions in the list of those inputs that want a gradient, and `None` for each constant.
    pub inputs: Vec<Option<usize>>,
}

// %% notebooks/05_tensor.ipynb te-graph-nodes
/// All nodes that lead to this one, the lower ones first.
fn nodes_below(top: Option<Rc<Node>>) -> Vec<Rc<Node>> {
    let (mut found, mut next) = (Vec::from_iter(top), 0);
    while let Some(node) = found.get(next).cloned() {
        let history = node.history.borrow();
        for input in history.iter().flat_map(|history| history.inputs.iter().flatten()) {
            if !found.iter().any(|known| Rc::ptr_eq(known, input)) {
                found.push(input.clone());
            }
        }
        next += 1;
    }
    found.reverse();
    found.sort_by_key(|node| node.height);
    found
}

// %% notebooks/05_tensor.ipynb te-graph
fn describe(node: &Node, all: &[Rc<Node>]) -> GraphNode {
    let position = |input: &Rc<Node>| all.iter().position(|node| Rc::ptr_eq(node, input));
    let history = node.history.borrow();
    let inputs = history.iter().flat_map(|history| &history.inputs);
    GraphNode {
        op: node.op,
        shape: node.shape.slice().to_vec(),
        inputs: inputs.map(|input| input.as_ref().and_then(position)).collect(),
    }
}

impl Tensor {
    /// All that the gradient of this tensor will pass through: inputs before what is made of them, this tensor last.
    pub fn graph(&self) -> Vec<GraphNode> {
        let found = nodes_below(self.node.clone());
        found.iter().map(|node| describe(node, &found)).collect()
    }
}

// %% notebooks/05_tensor.ipynb te-display
use minai::kernels::text;

/// What a printed tensor says of its node.
fn origin(tensor: &Tensor) -> Option<String> {
    let node = tensor.node.as_ref()?;
    Some(if node.height == 0 { "requires_grad=True".into() } else { format!("grad_fn=<{}>", node.op) })
}

/// As PyTorch prints it; `{:.2}` asks for two digits after the point. Of more than 1000 elements the middle is left
/// out, and the shape given.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (digits, notes) = (f.precision().unwrap_or(4), Vec::from_iter(origin(self)));
        f.write_str(&text::write("tensor(", self.shape(), |place| self.data[place], digits, &notes))
    }
}

// %% notebooks/05_tensor.ipynb te-index
use minai::array::Place;
use std::ops::Index;

#[track_caller]
fn element<P: Place + Copy + fmt::Debug>(tensor: &Tensor, place: P) -> &f32 {
    &tensor.data[place]
}

/// An element's value: `x[(0, -1)]`. An index gives a reference, and only the value exists; to let gradients through,
/// use [`Tensor::slice`], which makes a new tensor.
impl<P> Index<P> for Tensor
where
    P: Place + Copy + fmt::Debug,
{
    type Output = f32;

    #[track_caller]
    fn index(&self, place: P) -> &f32 {
        element(self, place)
    }
}

// %% notebooks/05_tensor.ipynb te-into-array
use minai::array::Shape;

fn values(tensor: Tensor) -> Array {
    tensor.data
}

/// The values of a tensor: the graph is left.
impl From<Tensor> for Array {
    fn from(tensor: Tensor) -> Self {
        values(tensor)
    }
}

// %% notebooks/05_tensor.ipynb te-full
fn filled(shape: &[usize], value: f32) -> Tensor {
    Array::new(vec![value; shape.iter().product()], shape).into()
}

impl Tensor {
    /// A constant of the given shape with all elements equal. Panics if a size is negative.
    #[track_caller]
    pub fn full(shape: impl Into<Shape>, value: f32) -> Self {
        filled(&shape.into().exact("full"), value)
    }

    /// A constant of zeros. Panics if a size is negative.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        filled(&shape.into().exact("zeros"), 0.0)
    }

    /// A constant of ones. Panics if a size is negative.
    #[track_caller]
    pub fn ones(shape: impl Into<Shape>) -> Self {
        filled(&shape.into().exact("ones"), 1.0)
    }
}

// %% notebooks/05_tensor.ipynb te-set-grad
fn is_parameter(tensor: &Tensor) -> bool {
    tensor.node.as_ref().is_some_and(|node| node.height == 0)
}

impl Tensor {
    /// Replaces the gradient of a parameter, for example by a clipped one.
    ///
    /// # Panics
    /// If this is no parameter, or the shapes differ.
    #[track_caller]
    pub fn set_grad(&self, gradient: Array) {
        assert!(is_parameter(self), "set_grad: only a parameter keeps a gradient");
        let (given, shape) = (gradient.shape(), self.shape());
        assert!(given == shape, "set_grad: gradient of shape {given:?} for a parameter of shape {shape:?}");
        gradient_of(self).expect("a parameter has a node").replace(Some(gradient));
    }
}

// %% notebooks/05_tensor.ipynb te-operand
mod operand {
    use super::{Array, Tensor, broadcast_shape, is_parameter};

    /// What stands at the right of `+=`, by its shape.
    pub trait Operand {
        fn shape_of(&self) -> &[usize];
    }

    /// Takes a tensor out of its variable, so that the operation can work in its memory; whatever could make that
    /// fail does so before.
    #[track_caller]
    pub(super) fn taken(op: &str, x: &mut Tensor, other: &impl Operand) -> Tensor {
        let refused = is_parameter(x);
        assert!(!refused, "{op}: a parameter is changed through its `data`; for a new tensor write `x + y`");
        broadcast_shape(op, x.shape(), other.shape_of());
        std::mem::replace(x, Tensor::from(Array::new(vec![], &[0])))
    }
}

// %% notebooks/05_tensor.ipynb te-operands
mod operands {
    use super::Tensor;
    use super::operand::Operand;

    impl Operand for f32 {
        fn shape_of(&self) -> &[usize] {
            &[]
        }
    }

    impl Operand for Tensor {
        fn shape_of(&self) -> &[usize] {
            self.shape()
        }
    }

    impl Operand for &Tensor {
        fn shape_of(&self) -> &[usize] {
            self.shape()
        }
    }
}

// %% notebooks/05_tensor.ipynb te-assign
mod assignments {
    use super::Tensor;
    use super::operand::{Operand, taken};
    use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Sub, SubAssign};
    macro_rules! assignment {
        ($trait:ident $method:ident, $operator:ident $function:ident) => {
            /// A new tensor in the old one's variable. A parameter, or a shape that does not fit, panics and changes nothing.
            impl<T: Operand> $trait<T> for Tensor
            where
                Tensor: $operator<T, Output = Tensor>,
            {
                #[track_caller]
                fn $method(&mut self, other: T) {
                    *self = $operator::$function(taken(stringify!($method), self, &other), other);
                }
            }
        };
    }

    assignment!(AddAssign add_assign, Add add);
    assignment!(SubAssign sub_assign, Sub sub);
    assignment!(MulAssign mul_assign, Mul mul);
    assignment!(DivAssign div_assign, Div div);
}

// %% notebooks/05_tensor.ipynb te-views
fn permuted(array: &Array, axes: &[usize]) -> Array {
    ArcArray::from(array.clone()).permuted_axes(axes).into()
}

/// Other shapes for the same elements.
impl Tensor {
    /// The same elements, in row-major order, in another shape, given as a list or tuple of integers; at most one size
    /// may be -1 (or `()` in a tuple), and is what fits.
    /// Copies only what does not lie in that order.
    ///
    /// # Panics
    /// If the shape does not hold as many elements.
    #[track_caller]
    pub fn reshape(&self, shape: impl Into<Shape>) -> Tensor {
        let before = self.data.raw_dim();
        let reshaped = contiguous(&self.data).reshape(shape);
        from_op("reshape", reshaped, &[self], move |g, _| vec![Some(g.reshape(before.slice()))])
    }
}

// %% notebooks/05_tensor.ipynb te-permute
/// The order that undoes an order of axes, which must name each axis once.
fn inverse_order(order: &[usize], rank: usize) -> Option<Vec<usize>> {
    let mut back = vec![rank; rank];
    order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    (order.len() == rank && !back.contains(&rank)).then_some(back)
}

impl Tensor {
    /// The axes in another order: axis `i` of the result is axis `axes[i]`. Nothing is copied.
    ///
    /// # Panics
    /// If `axes` does not name each axis once.
    #[track_caller]
    pub fn permute(&self, axes: &[isize]) -> Tensor {
        let shape = self.shape();
        let order: Vec<usize> = axes.iter().map(|&axis| axis_of("permute", axis, shape)).collect();
        let Some(back) = inverse_order(&order, shape.len()) else {
            panic!("permute: {axes:?} is no order of the axes of shape {shape:?}")
        };
        from_op("permute", permuted(&self.data, &order), &[self], move |g, _| vec![Some(permuted(&g, &back))])
    }
}

// %% notebooks/05_tensor.ipynb te-transpose
#[track_caller]
fn exchange(x: &Tensor, one: isize, other: isize) -> Tensor {
    let [one, other] = [one, other].map(|axis| axis_of("transpose", axis, x.shape()));
    let mut order: Vec<isize> = (0..x.shape().len() as isize).collect();
    order.swap(one, other);
    x.permute(&order)
}

impl Tensor {
    /// Two axes exchanged. Nothing is copied. Panics if there are no such axes.
    #[track_caller]
    pub fn transpose(&self, one: isize, other: isize) -> Tensor {
        exchange(self, one, other)
    }

    /// A matrix with rows and columns exchanged. Nothing is copied. Panics if this is no matrix.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        assert!(self.shape().len() == 2, "t: a matrix expected, shape {:?}", self.shape());
        exchange(self, 0, 1)
    }
}

// %% notebooks/05_tensor.ipynb te-unsqueeze
use ndarray::Axis;

fn with_axis(array: Array, axis: usize) -> Array {
    ArcArray::from(array).insert_axis(Axis(axis)).into()
}

fn without_axis(array: Array, axis: usize) -> Array {
    ArcArray::from(array).remove_axis(Axis(axis)).into()
}

impl Tensor {
    /// A new axis of size 1, at this position in the result. Panics if the result has no such position.
    #[track_caller]
    pub fn unsqueeze(&self, axis: isize) -> Tensor {
        let rank = self.shape().len() as isize + 1;
        assert!((-rank..rank).contains(&axis), "unsqueeze: no axis {axis} in shape {:?}", self.shape());
        let axis = axis.rem_euclid(rank) as usize;
        let data = with_axis(self.data.clone(), axis);
        from_op("unsqueeze", data, &[self], move |g, _| vec![Some(without_axis(g, axis))])
    }
}

// %% notebooks/05_tensor.ipynb te-squeeze
fn dropped(x: &Tensor, axis: usize) -> Tensor {
    let data = without_axis(x.data.clone(), axis);
    from_op("squeeze", data, &[x], move |g, _| vec![Some(with_axis(g, axis))])
}

impl Tensor {
    /// Without an axis of size 1.
    ///
    /// # Panics
    /// If the axis is not of size 1.
    #[track_caller]
    pub fn squeeze(&self, axis: isize) -> Tensor {
        let position = axis_of("squeeze", axis, self.shape());
        assert!(self.shape()[position] == 1, "squeeze: axis {axis} of shape {:?} is not 1", self.shape());
        dropped(self, position)
    }
}

// %% notebooks/05_tensor.ipynb te-expand
/// What -1 in a wanted shape stands for, if all other sizes are the same or were 1.
fn expanded_shape(shape: &[usize], wanted: &[isize]) -> Option<Vec<usize>> {
    let missing = wanted.len().checked_sub(shape.len())?;
    let size = |axis: usize| axis.checked_sub(missing).map(|axis| shape[axis]);
    let fit = |(axis, &wanted): (usize, &isize)| match (size(axis), usize::try_from(wanted).ok()) {
        (Some(before), Some(wanted)) => (before == 1 || before == wanted).then_some(wanted),
        (Some(before), None) => (wanted == -1).then_some(before),
        (None, wanted) => wanted,
    };
    wanted.iter().enumerate().map(fit).collect()
}

// %% notebooks/05_tensor.ipynb te-expand-op
fn repeated(x: &Tensor, shape: &[usize]) -> Tensor {
    let before = x.data.raw_dim();
    from_op("expand", expanded(&x.data, shape), &[x], move |g, _| vec![Some(sum_to(g, before.slice()))])
}

impl Tensor {
    /// Repeats axes of size 1, and adds axes in front: what broadcasting does by itself. -1 leaves a size as it is.
    /// The result is a copy.
    ///
    /// # Panics
    /// If another size than 1 would have to change.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let Some(wanted) = expanded_shape(self.shape(), shape.sizes()) else {
            panic!("expand: shape {:?} cannot become {shape:?}", self.shape())
        };
        repeated(self, &wanted)
    }
}

// %% notebooks/05_tensor.ipynb te-batch-starts
/// Where each pair of matrices begins, in row-major order of the batch.
fn matrix_starts(batch: &[usize], x_strides: &[isize], y_strides: &[isize]) -> Vec<(usize, usize)> {
    let mut starts = vec![(0, 0)];
    for (axis, &size) in batch.iter().enumerate() {
        let (x_step, y_step) = (x_strides[axis] as usize, y_strides[axis] as usize);
        let along = |&(x, y): &(usize, usize)| (0..size).map(move |i| (x + i * x_step, y + i * y_step));
        starts = starts.iter().flat_map(along).collect();
    }
    starts
}

// %% notebooks/05_tensor.ipynb te-multiply-batches
/// Matrix products of the last two axes, for all places of the axes before them, which are broadcast.
fn multiply_batches(x: &Array, y: &Array) -> Array {
    let (x_batch, x_matrix) = x.shape().split_at(x.ndim() - 2);
    let (y_batch, y_matrix) = y.shape().split_at(y.ndim() - 2);
    let (m, k, n) = (x_matrix[0], x_matrix[1], y_matrix[1]);
    let batch = broadcast_shape("matmul", x_batch, y_batch);
    let (x_shape, y_shape) = ([&batch, x_matrix].concat(), [&batch, y_matrix].concat());
    let multiply = |x: elementwise::Strided, y: elementwise::Strided| {
        let starts = matrix_starts(&batch, x.1, y.1);
        gemm::gemm_batched(&starts, (m, n, k), matrix_view(x), matrix_view(y))
    };
    let product = read_as(&x_shape, x, |x| read_as(&y_shape, y, |y| multiply(x, y)));
    Array::new(product, &[&batch[..], &[m, n]].concat())
}

// %% notebooks/05_tensor.ipynb te-batched
#[track_caller]
fn batched_matmul(x: &Tensor, y: &Tensor) -> Tensor {
    broadcast_shape("matmul", &x.shape()[..x.shape().len() - 2], &y.shape()[..y.shape().len() - 2]);
    let (x_shape, y_shape) = (x.data.raw_dim(), y.data.raw_dim());
    let kept_y = x.requires_grad().then(|| y.data.clone());
    let kept_x = y.requires_grad().then(|| x.data.clone());
    from_op("matmul", multiply_batches(&x.data, &y.data), &[x, y], move |g, _| {
        let to_x = kept_y.map(|y| sum_to(multiply_batches(&g, &transposed(&y)), x_shape.slice()));
        let to_y = kept_x.map(|x| sum_to(multiply_batches(&transposed(&x), &g), y_shape.slice()));
        vec![to_x, to_y]
    })
}

// %% notebooks/05_tensor.ipynb te-tall
/// One matrix on the right for all: a single product of one tall matrix.
#[track_caller]
fn tall_matmul(x: &Tensor, y: &Tensor) -> Tensor {
    let (&columns, outer) = x.shape().split_last().expect("axes");
    // Not -1: of an array without elements it stands for nothing.
    let tall = x.reshape((outer.iter().product::<usize>(), columns));
    matmul(&tall, y).reshape([outer, &y.shape()[1..]].concat())
}

// %% notebooks/05_tensor.ipynb te-matmul
/// The sizes that a product sums over.
fn inner_sizes(x: &[usize], y: &[usize]) -> Option<(usize, usize)> {
    Some((*x.last()?, if y.len() == 1 { y[0] } else { *y.iter().nth_back(1)? }))
}

impl Tensor {
    /// The matrix product of the last two axes: (…, m, k) with (…, k, n) is (…, m, n). The axes before them are
    /// broadcast. A vector on the left is a row, one on the right a column, and the axis added for that is dropped.
    /// Panics if the shapes do not fit, or one is a single number.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        let (x, y) = (self.shape(), other.shape());
        let fits = inner_sizes(x, y).is_some_and(|(x, y)| x == y);
        assert!(fits, "matmul: shapes {x:?} and {y:?} do not fit");
        match (x.len(), y.len()) {
            (1, 1) => matmul(&self.unsqueeze(0), &other.unsqueeze(1)).reshape(()),
            (1, _) => self.unsqueeze(0).matmul(other).squeeze(-2),
            (_, 1) => self.matmul(&other.unsqueeze(1)).squeeze(-1),
            (2, 2) => matmul(self, other),
            (_, 2) => tall_matmul(self, other),
            _ => batched_matmul(self, other),
        }
    }
}

// %% notebooks/05_tensor.ipynb te-keepdim
fn ones_of(over: &Reduction) -> &[usize] {
    &over.ones
}

impl Tensor {
    /// The sum; reduced axes stay.
    #[track_caller]
    pub fn sum_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("sum", self.shape(), axes);
        sum_of(self, &over, ones_of(&over))
    }

    /// The mean; reduced axes stay.
    #[track_caller]
    pub fn mean_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("mean", self.shape(), axes);
        mean_of(self, &over, ones_of(&over))
    }
}

// %% notebooks/05_tensor.ipynb te-variance
/// The squared distances from the mean, summed and divided by the count less 1; and the distances.
/// The variance of a single element is undefined: 0 / 0.
fn variance(x: &Tensor, over: &Reduction) -> (Array, Array) {
    let count = over.count as f32;
    let mean = map(reduce_array(&x.data, over, reduce::sum), |sum| sum / count);
    let centred = zip("var", x.data.clone(), mean, |x, mean| x - mean);
    let squares = map(centred.clone(), |x| x * x);
    (map(reduce_array(&squares, over, reduce::sum), |sum| sum / (count - 1.0).max(0.0)), centred)
}

// %% notebooks/05_tensor.ipynb te-var
fn var_of(x: &Tensor, over: &Reduction, shape: &[usize]) -> Tensor {
    let ((var, centred), ones) = (variance(x, over), over.ones.clone());
    let scale = 2.0 / (over.count as f32 - 1.0).max(0.0);
    from_op("var", var.reshape(shape), &[x], move |g, _| {
        vec![Some(zip("var", centred, g.reshape(&ones), |x, g| g * scale * x))]
    })
}

impl Tensor {
    /// The variance: squared distances from the mean, summed and divided by one less than their number.
    #[track_caller]
    pub fn var(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("var", self.shape(), axes);
        var_of(self, &over, &over.kept)
    }

    /// The variance as [`Tensor::var`]; reduced axes stay.
    #[track_caller]
    pub fn var_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("var", self.shape(), axes);
        var_of(self, &over, &over.ones)
    }
}

// %% notebooks/05_tensor.ipynb te-std
fn std_of(x: &Tensor, over: &Reduction, shape: &[usize]) -> Tensor {
    let ((var, centred), ones) = (variance(x, over), over.ones.clone());
    let (std, scale) = (map(var, f32::sqrt), 1.0 / (over.count as f32 - 1.0).max(0.0));
    from_op("std", std.reshape(shape), &[x], move |g, _| {
        let slope = zip("std", g.reshape(&ones), std, |g, s| if s == 0.0 { 0.0 } else { g * scale / s });
        vec![Some(zip("std", centred, slope, |x, slope| slope * x))]
    })
}

impl Tensor {
    /// The standard deviation: the root of [`Tensor::var`].
    #[track_caller]
    pub fn std(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("std", self.shape(), axes);
        std_of(self, &over, &over.kept)
    }

    /// The standard deviation; reduced axes stay.
    #[track_caller]
    pub fn std_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("std", self.shape(), axes);
        std_of(self, &over, &over.ones)
    }
}

// %% notebooks/05_tensor.ipynb te-extreme
/// The gradient goes to the extreme elements, in equal parts.
#[track_caller]
fn extreme_of(op: &'static str, x: &Tensor, over: Reduction, shape: &[usize], kernel: Kernel) -> Tensor {
    assert!(over.count > 0, "{op}: no elements to choose from in shape {:?}", x.shape());
    let (saved, extreme) = (x.data.clone(), reduce_array(&x.data, &over, kernel));
    from_op(op, extreme.reshape(shape), &[x], move |g, _| {
        let hits = zip(op, saved, extreme, |x, extreme| if x == extreme { 1.0 } else { 0.0 });
        let count = reduce_array(&hits, &over, reduce::sum);
        let part = zip(op, g.reshape(&over.ones), count, |g, hits| g / hits);
        vec![Some(zip(op, hits, part, |hit, part| hit * part))]
    })
}

// %% notebooks/05_tensor.ipynb te-amax
#[track_caller]
fn largest_of(x: &Tensor, over: Reduction, shape: &[usize]) -> Tensor {
    extreme_of("amax", x, over, shape, reduce::max)
}

impl Tensor {
    /// The largest element, NaN if one is. Equals share the gradient. Panics if there are no elements.
    #[track_caller]
    pub fn amax(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("amax", self.shape(), axes);
        let kept = over.kept.clone();
        largest_of(self, over, &kept)
    }

    /// The largest element; reduced axes stay.
    #[track_caller]
    pub fn amax_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("amax", self.shape(), axes);
        let ones = over.ones.clone();
        largest_of(self, over, &ones)
    }
}

// %% notebooks/05_tensor.ipynb te-amin
#[track_caller]
fn smallest_of(x: &Tensor, over: Reduction, shape: &[usize]) -> Tensor {
    extreme_of("amin", x, over, shape, reduce::min)
}

impl Tensor {
    /// The smallest element, NaN if one is. Equals share the gradient. Panics if there are no elements.
    #[track_caller]
    pub fn amin(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("amin", self.shape(), axes);
        let kept = over.kept.clone();
        smallest_of(self, over, &kept)
    }

    /// The smallest element; reduced axes stay.
    #[track_caller]
    pub fn amin_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        let over = reduction("amin", self.shape(), axes);
        let ones = over.ones.clone();
        smallest_of(self, over, &ones)
    }
}

// %% notebooks/05_tensor.ipynb te-argmax
/// All axes in order, with this one moved to the end.
fn axis_last(axis: usize, rank: usize) -> Vec<usize> {
    (0..rank).filter(|&other| other != axis).chain([axis]).collect()
}

impl Tensor {
    /// Positions of the largest elements along an axis: the first of equals; NaN counts as largest.
    /// Panics if there is no such axis, or it is empty.
    #[track_caller]
    pub fn argmax(&self, axis: isize) -> Array<i64> {
        let axis = axis_of("argmax", axis, self.shape());
        let mut shape = self.shape().to_vec();
        let n = shape.remove(axis);
        assert!(n > 0, "argmax: no elements to choose from in shape {:?}", self.shape());
        let rows = contiguous(&permuted(&self.data, &axis_last(axis, shape.len() + 1)));
        Array::new(reduce::argmax_rows(elements(&rows), n), &shape)
    }
}

// %% notebooks/05_tensor.ipynb te-roots
fn natural_log(x: &Tensor) -> Tensor {
    op_from_input("log", x, f32::ln, |g, x| g / x)
}

impl Tensor {
    /// The natural logarithm.
    pub fn log(&self) -> Tensor {
        natural_log(self)
    }

    /// The square root.
    pub fn sqrt(&self) -> Tensor {
        op_from_output("sqrt", self, f32::sqrt, |g, y| g / (2.0 * y))
    }

    /// x to any power.
    pub fn powf(&self, p: f32) -> Tensor {
        let backward = move |g: f32, x: f32| if p == 0.0 { 0.0 } else { g * p * x.powf(p - 1.0) };
        op_from_input("powf", self, |x| x.powf(p), backward)
    }
}

// %% notebooks/05_tensor.ipynb te-curves
/// -1, 0 or 1; 0 for NaN.
fn sign(x: f32) -> f32 {
    f32::from(i8::from(x > 0.0) - i8::from(x < 0.0))
}

impl Tensor {
    /// |x|, with slope 0 at 0.
    pub fn abs(&self) -> Tensor {
        op_from_input("abs", self, f32::abs, |g, x| if sign(x) == 0.0 { 0.0 } else { g * sign(x) })
    }

    /// The hyperbolic tangent.
    pub fn tanh(&self) -> Tensor {
        op_from_output("tanh", self, elementwise::tanh, |g, y| g * (1.0 - y * y))
    }

    /// 1 / (1 + e⁻ˣ).
    pub fn sigmoid(&self) -> Tensor {
        op_from_output("sigmoid", self, elementwise::sigmoid, |g, y| g * y * (1.0 - y))
    }
}

// %% notebooks/05_tensor.ipynb te-clamp
/// The upper bound last: it wins if they cross. NaN stays.
fn clamped(x: f32, min: f32, max: f32) -> f32 {
    let x = if x < min { min } else { x };
    if x > max { max } else { x }
}

impl Tensor {
    /// Each x moved into `min..=max`; the gradient passes where x lies strictly between them. NaN stays.
    pub fn clamp(&self, min: f32, max: f32) -> Tensor {
        let passes = move |g: f32, x: f32| if x > min && x < max { g } else { 0.0 };
        op_from_input("clamp", self, move |x| clamped(x, min, max), passes)
    }
}

// %% notebooks/05_tensor.ipynb te-choice
/// Which part of the gradient goes to `mine`: nothing if the other beats it, half to equals, else all.
fn part_of_choice(mine: f32, other: f32, beats: fn(f32, f32) -> bool) -> f32 {
    match beats(other, mine) {
        true => 0.0,
        false if mine == other => 0.5,
        false => 1.0, // also where NaN leaves it undecided
    }
}

// %% notebooks/05_tensor.ipynb te-choice-op
/// One of each pair: that which beats the other, and NaN always.
#[track_caller]
fn choice(op: &'static str, x: &Tensor, y: &Tensor, beats: fn(f32, f32) -> bool) -> Tensor {
    let (a, b) = (x.data.clone(), y.data.clone());
    let chosen = zip(op, a.clone(), b.clone(), |x, y| if beats(x, y) || x.is_nan() { x } else { y });
    from_op(op, chosen, &[x, y], move |g, needs| {
        let part = |mine: &Array, other: &Array| {
            let part = zip(op, mine.clone(), other.clone(), |mine, other| part_of_choice(mine, other, beats));
            sum_to(zip(op, part, g.clone(), |part, g| part * g), mine.shape())
        };
        vec![needs[0].then(|| part(&a, &b)), needs[1].then(|| part(&b, &a))]
    })
}

// %% notebooks/05_tensor.ipynb te-maximum
fn is_larger(x: f32, y: f32) -> bool {
    x > y
}

/// Both panic if the shapes cannot be broadcast.
impl Tensor {
    /// The larger of each pair, broadcast. Equals share the gradient; NaN wins.
    #[track_caller]
    pub fn maximum(&self, other: &Tensor) -> Tensor {
        choice("maximum", self, other, is_larger)
    }

    /// The smaller of each pair, broadcast. Equals share the gradient; NaN wins.
    #[track_caller]
    pub fn minimum(&self, other: &Tensor) -> Tensor {
        choice("minimum", self, other, |x, y| is_larger(y, x))
    }
}

// %% notebooks/05_tensor.ipynb te-part
use ndarray::{SliceInfo, SliceInfoElem};

/// What [`Tensor::slice`] takes: an integer or a range, a tuple of these, or what ndarray's `s!` makes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no part of a tensor",
    note = "write `x.slice((.., 1..3, 0))`: a tuple of ranges and integers, one for each axis"
)]
pub trait Part {
    /// What is taken of each axis.
    fn axes(self) -> Vec<SliceInfoElem>;
}

impl<T: AsRef<[SliceInfoElem]>, D: Dimension, E: Dimension> Part for SliceInfo<T, D, E> {
    fn axes(self) -> Vec<SliceInfoElem> {
        self.as_ref().to_vec()
    }
}

// %% notebooks/05_tensor.ipynb te-part-lists
fn listed(part: &[SliceInfoElem]) -> Vec<SliceInfoElem> {
    part.to_vec()
}

impl Part for Vec<SliceInfoElem> {
    fn axes(self) -> Vec<SliceInfoElem> {
        self
    }
}

impl Part for &[SliceInfoElem] {
    fn axes(self) -> Vec<SliceInfoElem> {
        listed(self)
    }
}

impl<const N: usize> Part for [SliceInfoElem; N] {
    fn axes(self) -> Vec<SliceInfoElem> {
        listed(&self)
    }
}

// %% notebooks/05_tensor.ipynb te-parts
mod parts {
    use super::{Part, SliceInfoElem};

    macro_rules! tuple {
        ($($name:ident)*) => {
            impl<$($name: Into<SliceInfoElem>),*> Part for ($($name,)*) {
                #[allow(non_snake_case)] // a variable has the name of its type
                fn axes(self) -> Vec<SliceInfoElem> {
                    let ($($name,)*) = self;
                    vec![$($name.into()),*]
                }
            }
        };
    }

    tuple!(A);
    tuple!(A B);
    tuple!(A B C);
    tuple!(A B C D);
    tuple!(A B C D E);
    tuple!(A B C D E F);
}

// %% notebooks/05_tensor.ipynb te-part-single
mod single_parts {
    use super::{Part, SliceInfoElem};
    use std::ops::RangeFull;

    macro_rules! single {
        ($($part:ty),*) => {
            $(impl Part for $part {
                fn axes(self) -> Vec<SliceInfoElem> {
                    vec![self.into()]
                }
            })*
        };
    }

    single!(usize, isize, i32, RangeFull);
}

// %% notebooks/05_tensor.ipynb te-part-ranges
mod ranges {
    use super::{Part, SliceInfoElem};
    use std::ops::{Range, RangeFrom, RangeInclusive, RangeTo, RangeToInclusive};

    macro_rules! ranges {
        ($($range:ident),*) => {
            $(impl<T> Part for $range<T>
            where
                $range<T>: Into<SliceInfoElem>,
            {
                fn axes(self) -> Vec<SliceInfoElem> {
                    vec![self.into()]
                }
            })*
        };
    }

    ranges!(Range, RangeFrom, RangeInclusive, RangeTo, RangeToInclusive);
}

// %% notebooks/05_tensor.ipynb te-inside
fn is_inside(elem: &SliceInfoElem, size: isize) -> bool {
    let position = |index: isize| if index < 0 { index + size } else { index };
    match *elem {
        SliceInfoElem::Index(index) => (0..size).contains(&position(index)),
        SliceInfoElem::Slice { start, end, .. } => {
            [start, end.unwrap_or(size)].iter().all(|&bound| (0..=size).contains(&position(bound)))
        }
        SliceInfoElem::NewAxis => true,
    }
}

/// Adds the axes that a part does not mention; says whether it stays inside the shape.
fn complete(part: &mut Vec<SliceInfoElem>, shape: &[usize]) -> bool {
    let named = part.iter().filter(|elem| !elem.is_new_axis()).count();
    part.extend((named..shape.len()).map(|_| SliceInfoElem::from(..)));
    let mut axes = part.iter().filter(|elem| !elem.is_new_axis()).zip(shape);
    named <= shape.len() && axes.all(|(elem, &size)| is_inside(elem, size as isize))
}

// %% notebooks/05_tensor.ipynb te-slice
fn part_of(x: &Tensor, part: Vec<SliceInfoElem>) -> Tensor {
    let shape = x.data.raw_dim();
    let data = ArcArray::from(x.data.clone()).slice_move(&part[..]).into();
    from_op("slice", data, &[x], move |g, _| {
        let mut whole = ndarray::ArrayD::zeros(shape);
        whole.slice_mut(&part[..]).assign(&g);
        vec![Some(whole.into_shared().into())]
    })
}

impl Tensor {
    /// A part: a tuple that holds, for each axis, an integer, which takes the axis away, or a range. Negative integers
    /// count from the end; axes not mentioned are taken whole. Steps are written with ndarray's `s!`. Nothing is copied.
    /// Panics if it leads out of the shape.
    #[track_caller]
    pub fn slice(&self, part: impl Part) -> Tensor {
        let mut part = part.axes();
        let inside = complete(&mut part, self.shape());
        assert!(inside, "slice: {part:?} leads out of shape {:?}", self.shape());
        part_of(self, part)
    }
}

// %% notebooks/05_tensor.ipynb te-select
#[track_caller]
fn checked_indices(op: &str, indices: &Array<i64>, n: usize, shape: &[usize]) -> Vec<usize> {
    let is_index = |&index: &i64| usize::try_from(index).is_ok_and(|index| index < n);
    if let Some(index) = indices.iter().find(|&index| !is_index(index)) {
        panic!("{op}: index {index} on an axis of {n} elements, shape {shape:?}")
    }
    indices.iter().map(|&index| index as usize).collect()
}

fn select(x: &Tensor, axis: usize, indices: Vec<usize>) -> Tensor {
    let (before, mut shape) = (x.data.raw_dim(), x.shape().to_vec());
    let (n, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
    shape[axis] = indices.len();
    let picked = elementwise::index_select(elements(&contiguous(&x.data)), n, inner, &indices);
    from_op("index_select", Array::new(picked, &shape), &[x], move |g, _| {
        vec![Some(Array::new(elementwise::index_add(elements(&g), n, inner, &indices), before.slice()))]
    })
}

// %% notebooks/05_tensor.ipynb te-index-select
#[track_caller]
fn checked_list(op: &str, x: &Tensor, axis: usize, indices: &Array<i64>) -> Vec<usize> {
    assert!(indices.ndim() == 1, "{op}: a list of indices expected, shape {:?}", indices.shape());
    checked_indices(op, indices, x.shape()[axis], x.shape())
}

impl Tensor {
    /// Picks along an axis: `out[.., i, ..] = x[.., indices[i], ..]`.
    ///
    /// # Panics
    /// If an index is not that of an element, or the list of indices not of rank 1.
    #[track_caller]
    pub fn index_select(&self, axis: isize, indices: &Array<i64>) -> Tensor {
        let axis = axis_of("index_select", axis, self.shape());
        select(self, axis, checked_list("index_select", self, axis, indices))
    }
}

// %% notebooks/05_tensor.ipynb te-gather-places
/// Where each picked element comes from, in row-major order.
fn gather_places(shape: &[usize], axis: usize, wanted: &[usize], indices: Vec<usize>) -> Vec<usize> {
    let mut indices = indices.into_iter();
    let place = |at: IxDyn| {
        let index = indices.next().expect("as many as places");
        (0..at.ndim()).fold(0, |sum, i| sum * shape[i] + if i == axis { index } else { at[i] })
    };
    ndarray::indices(wanted).into_iter().map(place).collect()
}

// %% notebooks/05_tensor.ipynb te-picked
/// The elements at these places, in a new shape.
fn picked(x: &Tensor, places: Vec<usize>, shape: &[usize]) -> Tensor {
    let (all, before) = (contiguous(&x.data), x.data.raw_dim());
    let picked = Array::new(places.iter().map(|&place| elements(&all)[place]).collect(), shape);
    from_op("gather", picked, &[x], move |g, _| {
        let mut whole = vec![0.0; before.size()];
        places.iter().zip(elements(&g)).for_each(|(&place, g)| whole[place] += g);
        vec![Some(Array::new(whole, before.slice()))]
    })
}

// %% notebooks/05_tensor.ipynb te-gather
fn can_gather(shape: &[usize], axis: usize, wanted: &[usize]) -> bool {
    wanted.len() == shape.len() && (0..wanted.len()).all(|i| i == axis || wanted[i] <= shape[i])
}

impl Tensor {
    /// Picks single elements along an axis: for axis 1, `out[i, j, k] = x[i, index[i, j, k], k]`.
    ///
    /// # Panics
    /// If an index is not that of an element, the ranks differ, or `index` is larger along another axis.
    #[track_caller]
    pub fn gather(&self, axis: isize, index: &Array<i64>) -> Tensor {
        let (axis, shape, wanted) = (axis_of("gather", axis, self.shape()), self.shape(), index.shape());
        let fits = can_gather(shape, axis, wanted);
        assert!(fits, "gather: an index of shape {wanted:?} along axis {axis} of shape {shape:?}");
        let indices = checked_indices("gather", index, shape[axis], shape);
        picked(self, gather_places(shape, axis, wanted, indices), wanted)
    }
}

// %% notebooks/05_tensor.ipynb te-masked-fill
/// `value` where the mask is true; the shape is that of `x`.
fn masked(x: &Array, mask: &Array<bool>, value: f32) -> Array {
    zip_strided(x.shape(), x, mask, |x, hidden| if hidden { value } else { x })
}

impl Tensor {
    /// The elements, but `value` where the mask, broadcast, is true.
    ///
    /// # Panics
    /// If the mask does not broadcast to the tensor's shape.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Array<bool>, value: f32) -> Tensor {
        let joined = broadcast_shape("masked_fill", self.shape(), mask.shape());
        let fits = joined == self.shape();
        assert!(fits, "masked_fill: a mask of shape {:?} for shape {:?}", mask.shape(), self.shape());
        let (filled, mask) = (masked(&self.data, mask, value), mask.clone());
        from_op("masked_fill", filled, &[self], move |g, _| vec![Some(masked(&g, &mask, 0.0))])
    }
}

// %% notebooks/05_tensor.ipynb te-where
fn keep_where(mask: &Array, x: &Array, kept: f32) -> Array {
    zip("where", mask.clone(), x.clone(), |mask, x| if mask == kept { x } else { 0.0 })
}

/// `x` where the mask is true, `y` elsewhere; all three are broadcast.
///
/// # Panics
/// If the shapes cannot be broadcast.
#[track_caller]
pub fn where_(mask: &Array<bool>, x: &Tensor, y: &Tensor) -> Tensor {
    let shape = broadcast_shape("where", &broadcast_shape("where", x.shape(), y.shape()), mask.shape());
    let ones = Array::new(vec![1.0], &[1]);
    let mask = zip_strided(&shape, &ones, mask, |_, mask: bool| f32::from(u8::from(mask)));
    let (chosen, others) = (keep_where(&mask, &x.data, 1.0), keep_where(&mask, &y.data, 0.0));
    let (x_shape, y_shape) = (x.data.raw_dim(), y.data.raw_dim());
    from_op("where", zip("where", chosen, others, |x, y| x + y), &[x, y], move |g, needs| {
        let to_x = needs[0].then(|| sum_to(keep_where(&mask, &g, 1.0), x_shape.slice()));
        vec![to_x, needs[1].then(|| sum_to(keep_where(&mask, &g, 0.0), y_shape.slice()))]
    })
}

// %% notebooks/05_tensor.ipynb te-cat-shape
/// The shape of tensors one after the other along an axis.
#[track_caller]
fn joined_shape(tensors: &[&Tensor], position: usize) -> Vec<usize> {
    let mut joined = tensors[0].shape().to_vec();
    for next in &tensors[1..] {
        let (first, next) = (tensors[0].shape(), next.shape());
        let same = |axis: usize| axis == position || first[axis] == next[axis];
        let fits = next.len() == first.len() && (0..first.len()).all(same);
        assert!(fits, "cat: shapes {first:?} and {next:?} along axis {position}");
        joined[position] += next[position];
    }
    joined
}

// %% notebooks/05_tensor.ipynb te-joined
/// The elements of arrays one after the other along an axis, for each place of the axes before it.
fn joined(arrays: &[Array], position: usize) -> Vec<f32> {
    let outer = arrays[0].shape()[..position].iter().product::<usize>();
    let mut joined = Vec::with_capacity(arrays.iter().map(|array| array.len()).sum());
    for place in 0..outer {
        for array in arrays {
            let length = array.len() / outer;
            joined.extend_from_slice(&elements(array)[place * length..][..length]);
        }
    }
    joined
}

// %% notebooks/05_tensor.ipynb te-cat
/// Tensors one after the other along an axis that they have.
///
/// # Panics
/// If there are none, or their other sizes differ.
#[track_caller]
pub fn cat(tensors: &[&Tensor], axis: isize) -> Tensor {
    let first = tensors.first().expect("cat: at least one tensor").shape();
    let position = axis_of("cat", axis, first);
    let shape = joined_shape(tensors, position);
    let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.shape()[position]).collect();
    let arrays: Vec<Array> = tensors.iter().map(|tensor| contiguous(&tensor.data)).collect();
    from_op("cat", Array::new(joined(&arrays, position), &shape), tensors, move |g, _| {
        let mut start = 0;
        let part = |&length: &usize| {
            let mut part = g.clone();
            part.slice_axis_inplace(Axis(position), (start..start + length).into());
            start += length;
            Some(part)
        };
        lengths.iter().map(part).collect()
    })
}

// %% notebooks/05_tensor.ipynb te-stack
/// Tensors of one shape side by side along a new axis.
///
/// # Panics
/// If there are none, or the shapes differ.
#[track_caller]
pub fn stack(tensors: &[&Tensor], axis: isize) -> Tensor {
    let parts: Vec<Tensor> = tensors.iter().map(|tensor| tensor.unsqueeze(axis)).collect();
    cat(&parts.iter().collect::<Vec<_>>(), axis)
}
