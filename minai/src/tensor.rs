// Owned by notebooks/05_tensor.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 5dd523846ccb0e90
//! Tensors that know their gradient: [`Tensor`], its operations, and [`from_op`] for new ones.

// %% notebooks/05_tensor.ipynb te-types
use minai::array::{Array, Nested, Place, Shape, array};
use ndarray::{ArcArray, Axis, Dimension, IxDyn, SliceInfo, SliceInfoElem};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// An array and, where a gradient is wanted, its place in the graph of operations that led to it.
///
/// A tensor without a node is a constant. Cloning is cheap: the numbers are shared.
///
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
    /// The numbers. A parameter's may be changed in place; nothing is copied unless something else still uses them.
    pub data: Array,
    node: Option<Rc<Node>>,
}

/// From dL/d(output), and which inputs want a gradient: dL/d(each input).
type Backward = Box<dyn FnOnce(Array, &[bool]) -> Vec<Option<Array>>>;

struct Node {
    op: &'static str,
    shape: IxDyn,
    /// 0 for a parameter, else one more than the highest input's.
    height: usize,
    gradient: RefCell<Option<Array>>,
    /// How it came about: nothing for a parameter, and nothing any more after a backward pass.
    history: RefCell<Option<History>>,
}

struct History {
    inputs: Vec<Option<Rc<Node>>>,
    backward: Backward,
}

/// Takes a graph apart step by step: nodes that dropped their inputs one inside the other would overflow the stack.
impl Drop for Node {
    fn drop(&mut self) {
        let mut inputs = self.history.take().map_or(Vec::new(), |history| history.inputs);
        while let Some(input) = inputs.pop() {
            if let Some(node) = input.and_then(Rc::into_inner)
                && let Some(history) = node.history.take()
            {
                inputs.extend(history.inputs);
            }
        }
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

/// A constant: no gradient goes there.
impl From<Array> for Tensor {
    fn from(data: Array) -> Self {
        Tensor { data, node: None }
    }
}

/// A constant of rank 0.
impl From<f32> for Tensor {
    fn from(number: f32) -> Self {
        array(number).into()
    }
}

/// The same tensor: numbers and node are shared.
impl From<&Tensor> for Tensor {
    fn from(tensor: &Tensor) -> Self {
        tensor.clone()
    }
}

impl Tensor {
    /// A tensor whose gradient is wanted: what training changes. The gradient gathers in it, see [`Tensor::grad`].
    ///
    /// Changing `data` in place after the backward pass copies nothing, as long as there is no clone.
    pub fn parameter(data: Array) -> Self {
        let node = Node {
            op: "parameter",
            shape: data.raw_dim(),
            height: 0,
            gradient: RefCell::default(),
            history: RefCell::default(),
        };
        Tensor { data, node: Some(Rc::new(node)) }
    }

    /// A constant of the given shape with all elements equal.
    ///
    /// # Panics
    /// If a size is negative.
    #[track_caller]
    pub fn full(shape: impl Into<Shape>, value: f32) -> Self {
        let shape = shape.into().exact("full");
        Array::new(vec![value; shape.iter().product()], &shape).into()
    }

    /// A constant of zeros.
    ///
    /// # Panics
    /// If a size is negative.
    #[track_caller]
    pub fn zeros(shape: impl Into<Shape>) -> Self {
        Tensor::full(shape.into().exact("zeros"), 0.0)
    }

    /// A constant of ones.
    ///
    /// # Panics
    /// If a size is negative.
    #[track_caller]
    pub fn ones(shape: impl Into<Shape>) -> Self {
        Tensor::full(shape.into().exact("ones"), 1.0)
    }

    /// The size of each axis.
    pub fn shape(&self) -> &[usize] {
        self.data.shape()
    }

    /// The number inside.
    ///
    /// # Panics
    /// If there is not exactly one.
    #[track_caller]
    pub fn item(&self) -> f32 {
        assert!(self.data.len() == 1, "item: one element expected, shape {:?}", self.shape());
        *self.data.first().expect("one element")
    }

    /// The same numbers as a constant: no gradient passes. The memory is shared.
    pub fn detach(&self) -> Tensor {
        self.data.clone().into()
    }

    /// Whether gradients flow into this tensor.
    pub fn requires_grad(&self) -> bool {
        self.node.is_some()
    }

    /// The gradient that has gathered in a parameter; `None` before the first backward pass.
    pub fn grad(&self) -> Option<Array> {
        self.node.as_ref()?.gradient.borrow().clone()
    }

    /// Takes the gradient out of a parameter, which leaves none.
    pub fn take_grad(&self) -> Option<Array> {
        self.node.as_ref()?.gradient.take()
    }

    /// Forgets the gradient, so that the next backward pass begins a new one.
    pub fn zero_grad(&self) {
        self.take_grad();
    }

    /// Replaces the gradient of a parameter, for example by a clipped one.
    ///
    /// # Panics
    /// If this is no parameter, or the shapes differ.
    #[track_caller]
    pub fn set_grad(&self, gradient: Array) {
        let Some(node) = self.node.as_ref().filter(|node| node.height == 0) else {
            panic!("set_grad: only a parameter keeps a gradient")
        };
        assert!(
            gradient.shape() == self.shape(),
            "set_grad: gradient of shape {:?} for a parameter of shape {:?}",
            gradient.shape(),
            self.shape()
        );
        node.gradient.replace(Some(gradient));
    }
}

/// Shows the elements, the shape, and where the tensor comes from.
impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.data.fmt(f)?;
        match &self.node {
            Some(node) => write!(f, ", {}", node.op),
            None => write!(f, ", constant"),
        }
    }
}

// %% notebooks/05_tensor.ipynb te-into-array
fn values(tensor: Tensor) -> Array {
    tensor.data
}

/// The values of a tensor: the graph is left.
impl From<Tensor> for Array {
    fn from(tensor: Tensor) -> Self {
        values(tensor)
    }
}

// %% notebooks/05_tensor.ipynb te-display
use minai::kernels::text;
use std::ops::Index;

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
/// An element's value: `x[(0, -1)]`. An index gives a reference, and only the value exists; to let gradients through,
/// use [`Tensor::slice`], which makes a new tensor.
impl<P> Index<P> for Tensor
where
    P: Place + Copy + fmt::Debug,
{
    type Output = f32;

    #[track_caller]
    fn index(&self, place: P) -> &f32 {
        &self.data[place]
    }
}

// %% notebooks/05_tensor.ipynb te-arrays
use minai::kernels::{elementwise, reduce};

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
    shape.unwrap_or_else(|| panic!("{op}: shapes {x:?} and {y:?} cannot be broadcast"))
}

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

fn zip_strided<T, U>(shape: &[usize], x: &Array<T>, y: &Array<U>, f: impl Fn(T, U) -> f32 + Sync) -> Array
where
    T: Copy + Send + Sync,
    U: Copy + Send + Sync,
{
    let zipped = read_as(shape, x, |x| read_as(shape, y, |y| elementwise::zip(shape, x, y, f)));
    Array::new(zipped, shape)
}

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

fn own_if(x: Array, shape: &[usize]) -> Result<Vec<f32>, Array> {
    if x.shape() == shape { sole_owner(x) } else { Err(x) }
}

/// The reverse of broadcasting, for gradients: sums over the axes that were repeated, so that `shape` is left.
///
/// # Panics
/// If `x` is not something that `shape` can be broadcast to.
#[track_caller]
pub fn sum_to(x: Array, shape: &[usize]) -> Array {
    if x.shape() == shape {
        return x;
    }
    let missing = x.ndim().checked_sub(shape.len());
    let fits = missing.is_some_and(|missing| {
        broadcast_shape("sum_to", x.shape(), shape) == x.shape() && missing <= x.ndim()
    });
    assert!(fits, "sum_to: {shape:?} does not broadcast to {:?}", x.shape());
    let missing = missing.unwrap_or(0);
    let summed = |axis: usize| axis < missing || shape[axis - missing] == 1;
    let summed: Vec<bool> = (0..x.ndim()).map(summed).collect();
    Array::new(read_as(x.shape(), &x, |memory| reduce::sum(x.shape(), memory, &summed)), shape)
}

// %% notebooks/05_tensor.ipynb te-from-op
/// The result of an operation, with the way back: how a new operation is added, from anywhere.
///
/// `data` is what the operation computed from the data of `inputs`. If none of these wants a gradient, the result is a
/// constant and `backward` is dropped, with all that it holds. Else `backward` runs once, during the backward pass:
///
/// * it is given dL/d(output), in row-major order (`as_slice()` is `Some`) and with the shape of `data`, by value:
///   [`map`] and [`zip`] then work in place if nobody else has it;
/// * and for each input, whether its gradient is needed: do not compute one that is not;
/// * it returns one entry for each input, in order: dL/d(input), of that input's shape, or `None` where not needed.
///
/// It *returns* gradients; adding up those of a tensor that is used more than once is the engine's business. Let the
/// closure take hold of [`Array`]s, which are cheap to clone, and only of those that it will need: they live until then.
///
/// ```
/// use minai::array::Array;
/// use minai::tensor::{Tensor, from_op, map, zip};
///
/// /// ln(1 + e^x), whose slope is the logistic function.
/// fn softplus(x: &Tensor) -> Tensor {
///     let saved = x.data.clone();
///     from_op("softplus", map(saved.clone(), |x| x.exp().ln_1p()), &[x], move |g, _needs| {
///         vec![Some(zip("softplus", g, saved, |g, x| g / (1.0 + (-x).exp())))]
///     })
/// }
///
/// let x = Tensor::parameter(Array::new(vec![0.0, 3.0], &[2]));
/// softplus(&x).sum(..).backward();
/// assert_eq!(x.grad().unwrap()[[0]], 0.5);
/// ```
///
/// # Panics
/// During the backward pass, if it returns another number of gradients, none where one is needed, or one of another shape.
pub fn from_op(
    op: &'static str,
    data: Array,
    inputs: &[&Tensor],
    backward: impl FnOnce(Array, &[bool]) -> Vec<Option<Array>> + 'static,
) -> Tensor {
    if inputs.iter().all(|input| input.node.is_none()) {
        return data.into();
    }
    link(op, data, inputs.iter().map(|input| input.node.clone()).collect(), backward)
}

/// [`from_op`] for operations that have taken the inputs' data and have only their nodes left.
fn link(
    op: &'static str,
    data: Array,
    inputs: Vec<Option<Rc<Node>>>,
    backward: impl FnOnce(Array, &[bool]) -> Vec<Option<Array>> + 'static,
) -> Tensor {
    let Some(highest) = inputs.iter().flatten().map(|input| input.height).max() else {
        return data.into();
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

// %% notebooks/05_tensor.ipynb te-backward
/// Nodes that have received a gradient, by height and, among equals, by the order in which they came.
#[derive(Default)]
struct Queue {
    nodes: BTreeMap<(usize, usize), Rc<Node>>,
    arrivals: usize,
}

impl Node {
    /// Adds to the gradient; an operation's node joins the queue with its first part.
    fn receive(self: Rc<Self>, part: Array, queue: &mut Queue) {
        let before = self.gradient.take();
        let is_first = before.is_none();
        let sum = match before {
            Some(sum) => zip("backward", sum, part, |sum, part| sum + part),
            None => contiguous(&part),
        };
        self.gradient.replace(Some(sum));
        if is_first && self.height > 0 {
            queue.arrivals += 1;
            queue.nodes.insert((self.height, queue.arrivals), self);
        }
    }

    /// One step of the backward pass: from this node's complete gradient to its inputs.
    fn step(&self, queue: &mut Queue) {
        let Some(History { inputs, backward }) = self.history.take() else {
            panic!("backward: this graph was used up by an earlier backward pass, at `{}`", self.op)
        };
        let needs: Vec<bool> = inputs.iter().map(Option::is_some).collect();
        let gradient = self.gradient.take().expect("in the queue because it has one");
        let parts = backward(gradient, &needs);
        assert!(
            parts.len() == inputs.len(),
            "backward: `{}` returned {} gradients for {} inputs",
            self.op,
            parts.len(),
            inputs.len()
        );
        for (i, (input, part)) in inputs.into_iter().zip(parts).enumerate() {
            let Some(input) = input else { continue };
            let part =
                part.unwrap_or_else(|| panic!("backward: `{}` returned no gradient for input {i}", self.op));
            assert!(
                part.shape() == input.shape.slice(),
                "backward: `{}` returned a gradient of shape {:?} for input {i} of shape {:?}",
                self.op,
                part.shape(),
                input.shape.slice()
            );
            input.receive(part, queue);
        }
    }
}

impl Tensor {
    /// Computes the gradient of this number with respect to every parameter that it depends on, and adds it to theirs.
    ///
    /// What the operations kept for this is freed on the way; a second call panics.
    ///
    /// # Panics
    /// If there is not exactly one element (see [`Tensor::backward_from`]), no parameter, or nothing left of the graph.
    #[track_caller]
    pub fn backward(&self) {
        assert!(self.data.len() == 1, "backward: a single number expected, shape {:?}", self.shape());
        self.backward_from(Array::new(vec![1.0], self.shape()));
    }

    /// The backward pass from a given dL/d(this tensor).
    ///
    /// # Panics
    /// As [`Tensor::backward`], but for the number of elements; and if the shapes differ.
    #[track_caller]
    pub fn backward_from(&self, gradient: Array) {
        let Some(node) = &self.node else { panic!("backward: no parameter leads to this tensor") };
        assert!(
            gradient.shape() == self.shape(),
            "backward: gradient of shape {:?} for a tensor of shape {:?}",
            gradient.shape(),
            self.shape()
        );
        let mut queue = Queue::default();
        node.clone().receive(gradient, &mut queue);
        // Whoever could still add to the highest node's gradient would be higher: it is complete.
        while let Some((_, node)) = queue.nodes.pop_last() {
            node.step(&mut queue);
        }
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

#[track_caller]
fn mul(x: Tensor, y: Tensor) -> Tensor {
    let (x_shape, y_shape) = (x.data.raw_dim(), y.data.raw_dim());
    // Each factor is the other one's slope, and is kept only if that one wants a gradient.
    let (kept_y, kept_x) =
        (x.node.is_some().then(|| y.data.clone()), y.node.is_some().then(|| x.data.clone()));
    let product = zip("mul", x.data, y.data, |x, y| x * y);
    link("mul", product, vec![x.node, y.node], move |g, _| {
        let to_x = kept_y.map(|y| sum_to(zip("mul", g.clone(), y, |g, y| g * y), x_shape.slice()));
        vec![to_x, kept_x.map(|x| sum_to(zip("mul", g, x, |g, x| g * x), y_shape.slice()))]
    })
}

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

mod operators {
    use super::{Array, Tensor, add, div, mul, number_div, sub, with_number};
    use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

    macro_rules! operator {
        ($trait:ident, $method:ident, $tensors:expr, $right:expr, $left:expr) => {
            operator!(@ $trait, $method, Tensor, Tensor, $tensors);
            operator!(@ $trait, $method, Tensor, f32, $right);
            operator!(@ $trait, $method, f32, Tensor, $left);
        };
        (@ $trait:ident, $method:ident, f32, Tensor, $f:expr) => {
            operator!(@one $trait, $method, f32, Tensor, $f);
            operator!(@one $trait, $method, f32, &Tensor, $f);
        };
        (@ $trait:ident, $method:ident, Tensor, f32, $f:expr) => {
            operator!(@one $trait, $method, Tensor, f32, $f);
            operator!(@one $trait, $method, &Tensor, f32, $f);
        };
        (@ $trait:ident, $method:ident, Tensor, Tensor, $f:expr) => {
            operator!(@one $trait, $method, Tensor, Tensor, $f);
            operator!(@one $trait, $method, &Tensor, Tensor, $f);
            operator!(@one $trait, $method, Tensor, &Tensor, $f);
            operator!(@one $trait, $method, &Tensor, &Tensor, $f);
        };
        (@one $trait:ident, $method:ident, $x:ty, $y:ty, $f:expr) => {
            impl $trait<$y> for $x {
                type Output = Tensor;

                #[track_caller]
                fn $method(self, y: $y) -> Tensor {
                    $f(self.into(), y.into())
                }
            }
        };
    }

    operator!(
        Add,
        add,
        add,
        |x: Tensor, n: f32| with_number("add", x, |x| x + n, 1.0),
        |n: f32, x: Tensor| with_number("add", x, |x| n + x, 1.0)
    );
    operator!(
        Sub,
        sub,
        sub,
        |x: Tensor, n: f32| with_number("sub", x, |x| x - n, 1.0),
        |n: f32, x: Tensor| with_number("sub", x, |x| n - x, -1.0)
    );
    operator!(Mul, mul, mul, |x: Tensor, n: f32| with_number("mul", x, |x| x * n, n), |n: f32, x: Tensor| {
        with_number("mul", x, |x| n * x, n)
    });
    operator!(Div, div, div, |x: Tensor, n: f32| with_number("div", x, |x| x / n, 1.0 / n), number_div);

    /// Takes a tensor out of its variable, so that the operation can work in its memory.
    #[track_caller]
    fn taken(op: &str, x: &mut Tensor) -> Tensor {
        let is_parameter = x.node.as_ref().is_some_and(|node| node.height == 0);
        assert!(
            !is_parameter,
            "{op}: a parameter is changed through its `data`; for a new tensor write `x + y`"
        );
        std::mem::replace(x, Tensor::from(Array::new(vec![], &[0])))
    }

    macro_rules! assignment {
        ($trait:ident, $method:ident, $operator:ident, $function:ident) => {
            /// A new tensor in the old one's variable.
            ///
            /// # Panics
            /// If it is a parameter, or the shapes cannot be broadcast.
            impl<T> $trait<T> for Tensor
            where
                Tensor: $operator<T, Output = Tensor>,
            {
                #[track_caller]
                fn $method(&mut self, other: T) {
                    *self = $operator::$function(taken(stringify!($method), self), other);
                }
            }
        };
    }

    assignment!(AddAssign, add_assign, Add, add);
    assignment!(SubAssign, sub_assign, Sub, sub);
    assignment!(MulAssign, mul_assign, Mul, mul);
    assignment!(DivAssign, div_assign, Div, div);

    impl Neg for Tensor {
        type Output = Tensor;

        fn neg(self) -> Tensor {
            with_number("neg", self, |x| -x, -1.0)
        }
    }

    impl Neg for &Tensor {
        type Output = Tensor;

        fn neg(self) -> Tensor {
            -self.clone()
        }
    }
}

// %% notebooks/05_tensor.ipynb te-views
/// An axis counted from the front, or from the back if negative, as a position.
#[track_caller]
fn axis_of(op: &str, axis: isize, shape: &[usize], rank: usize) -> usize {
    let position = if axis < 0 { axis + rank as isize } else { axis };
    assert!((0..rank as isize).contains(&position), "{op}: no axis {axis} in shape {shape:?}");
    position as usize
}

fn permuted(array: &Array, axes: &[usize]) -> Array {
    ArcArray::from(array.clone()).permuted_axes(axes).into()
}

/// Other shapes for the same numbers.
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

    /// The axes in another order: axis `i` of the result is axis `axes[i]`. Nothing is copied.
    ///
    /// # Panics
    /// If `axes` does not name each axis once.
    #[track_caller]
    pub fn permute(&self, axes: &[isize]) -> Tensor {
        let (shape, rank) = (self.shape(), self.shape().len());
        let order: Vec<usize> = axes.iter().map(|&axis| axis_of("permute", axis, shape, rank)).collect();
        let mut back = vec![rank; rank];
        order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
        let is_order = order.len() == rank && !back.contains(&rank);
        assert!(is_order, "permute: {axes:?} is no order of the axes of shape {shape:?}");
        from_op("permute", permuted(&self.data, &order), &[self], move |g, _| vec![Some(permuted(&g, &back))])
    }

    /// Two axes exchanged. Nothing is copied.
    ///
    /// # Panics
    /// If there are no such axes.
    #[track_caller]
    pub fn transpose(&self, one: isize, other: isize) -> Tensor {
        let rank = self.shape().len();
        let [one, other] = [one, other].map(|axis| axis_of("transpose", axis, self.shape(), rank));
        let mut order: Vec<isize> = (0..rank as isize).collect();
        order.swap(one, other);
        self.permute(&order)
    }

    /// A matrix with rows and columns exchanged. Nothing is copied.
    ///
    /// # Panics
    /// If this is no matrix.
    #[track_caller]
    pub fn t(&self) -> Tensor {
        assert!(self.shape().len() == 2, "t: a matrix expected, shape {:?}", self.shape());
        self.transpose(0, 1)
    }

    /// A new axis of size 1, at this position in the result.
    ///
    /// # Panics
    /// If the result has no such position.
    #[track_caller]
    pub fn unsqueeze(&self, axis: isize) -> Tensor {
        let axis = axis_of("unsqueeze", axis, self.shape(), self.shape().len() + 1);
        let data = ArcArray::from(self.data.clone()).insert_axis(Axis(axis)).into();
        from_op("unsqueeze", data, &[self], move |g, _| {
            vec![Some(ArcArray::from(g).remove_axis(Axis(axis)).into())]
        })
    }

    /// Without an axis of size 1.
    ///
    /// # Panics
    /// If the axis is not of size 1.
    #[track_caller]
    pub fn squeeze(&self, axis: isize) -> Tensor {
        let position = axis_of("squeeze", axis, self.shape(), self.shape().len());
        assert!(self.shape()[position] == 1, "squeeze: axis {axis} of shape {:?} is not 1", self.shape());
        let data = ArcArray::from(self.data.clone()).remove_axis(Axis(position)).into();
        from_op("squeeze", data, &[self], move |g, _| {
            vec![Some(ArcArray::from(g).insert_axis(Axis(position)).into())]
        })
    }

    /// Repeats axes of size 1, and adds axes in front: what broadcasting does by itself. -1 leaves a size as it is.
    /// The result is a copy.
    ///
    /// # Panics
    /// If another size than 1 would have to change.
    #[track_caller]
    pub fn expand(&self, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let shape = shape.sizes();
        let before = self.data.raw_dim();
        let missing = shape.len().wrapping_sub(before.ndim());
        let size = |axis: usize| before.slice().get(axis.wrapping_sub(missing)).copied();
        let wanted = shape.iter().enumerate().map(|(axis, &wanted)| match wanted {
            -1 => size(axis),
            wanted => usize::try_from(wanted)
                .ok()
                .filter(|&wanted| size(axis).is_none_or(|n| n == 1 || n == wanted)),
        });
        let wanted: Option<Vec<usize>> = wanted.collect();
        let Some(wanted) = wanted.filter(|_| shape.len() >= before.ndim()) else {
            panic!("expand: shape {:?} cannot become {shape:?}", self.shape())
        };
        from_op("expand", expanded(&self.data, &wanted), &[self], move |g, _| {
            vec![Some(sum_to(g, before.slice()))]
        })
    }
}

fn expanded(array: &Array, shape: &[usize]) -> Array {
    Array::new(read_as(shape, array, |memory| elementwise::copy(shape, memory)), shape)
}

// %% notebooks/05_tensor.ipynb te-matmul
use minai::kernels::gemm;

/// Matrix products of the last two axes, for all places of the axes before them, which are broadcast.
fn matmul_arrays(x: &Array, y: &Array) -> Array {
    let (x_batch, x_matrix) = x.shape().split_at(x.ndim() - 2);
    let (y_batch, y_matrix) = y.shape().split_at(y.ndim() - 2);
    let (m, k, n) = (x_matrix[0], x_matrix[1], y_matrix[1]);
    let batch = broadcast_shape("matmul", x_batch, y_batch);
    let (x_shape, y_shape) = ([&batch, x_matrix].concat(), [&batch, y_matrix].concat());
    let multiply = |(x, x_strides): elementwise::Strided, (y, y_strides): elementwise::Strided| {
        let starts = matrix_starts(&batch, x_strides, y_strides);
        let view = |data, strides| gemm::View::strided(data, matrix_steps(strides));
        gemm::gemm_batched(&starts, (m, n, k), view(x, x_strides), view(y, y_strides))
    };
    let product = read_as(&x_shape, x, |x| read_as(&y_shape, y, |y| multiply(x, y)));
    Array::new(product, &[&batch[..], &[m, n]].concat())
}

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

/// From row to row, and from column to column.
fn matrix_steps(strides: &[isize]) -> (usize, usize) {
    let rank = strides.len();
    (strides[rank - 2] as usize, strides[rank - 1] as usize)
}

/// A view with the last two axes exchanged.
fn transposed(x: &Array) -> Array {
    let mut x = x.clone();
    let rank = x.ndim();
    x.swap_axes(rank - 2, rank - 1);
    x
}

impl Tensor {
    /// The matrix product of the last two axes: (…, m, k) with (…, k, n) is (…, m, n). The axes before them are broadcast.
    /// A vector on the left is a row, one on the right is a column, and the axis added for that is taken out again.
    ///
    /// # Panics
    /// If the shapes do not fit, or one is a single number.
    #[track_caller]
    pub fn matmul(&self, other: &Tensor) -> Tensor {
        let (x, y) = (self.shape(), other.shape());
        let inner = (x.last(), if y.len() == 1 { y.last() } else { y.iter().rev().nth(1) });
        let fits = matches!(inner, (Some(x), Some(y)) if x == y);
        assert!(fits, "matmul: shapes {x:?} and {y:?} do not fit");
        match (x.len(), y.len()) {
            (1, 1) => self.unsqueeze(0).matmul(&other.unsqueeze(1)).reshape(()),
            (1, _) => self.unsqueeze(0).matmul(other).squeeze(-2),
            (_, 1) => self.matmul(&other.unsqueeze(1)).squeeze(-1),
            // One matrix on the right for all: a single product of one tall matrix.
            (rank, 2) if rank > 2 => {
                // Not -1: of an array without elements it stands for nothing.
                let tall = self.reshape((x[..rank - 1].iter().product::<usize>(), x[rank - 1]));
                tall.matmul(other).reshape([&x[..rank - 1], &y[1..]].concat())
            }
            _ => batched_matmul(self, other),
        }
    }
}

#[track_caller]
fn batched_matmul(x: &Tensor, y: &Tensor) -> Tensor {
    broadcast_shape("matmul", &x.shape()[..x.shape().len() - 2], &y.shape()[..y.shape().len() - 2]);
    let (x_shape, y_shape) = (x.data.raw_dim(), y.data.raw_dim());
    let (kept_y, kept_x) =
        (x.requires_grad().then(|| y.data.clone()), y.requires_grad().then(|| x.data.clone()));
    from_op("matmul", matmul_arrays(&x.data, &y.data), &[x, y], move |g, _| {
        let to_x = kept_y.map(|y| sum_to(matmul_arrays(&g, &transposed(&y)), x_shape.slice()));
        let to_y = kept_x.map(|x| sum_to(matmul_arrays(&transposed(&x), &g), y_shape.slice()));
        vec![to_x, to_y]
    })
}

// %% notebooks/05_tensor.ipynb te-reductions
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

impl<const N: usize> From<[isize; N]> for Axes {
    fn from(axes: [isize; N]) -> Self {
        Axes(Some(axes.to_vec()))
    }
}

impl From<&[isize]> for Axes {
    fn from(axes: &[isize]) -> Self {
        Axes(Some(axes.to_vec()))
    }
}

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

impl Reduction {
    #[track_caller]
    fn new(op: &str, shape: &[usize], axes: impl Into<Axes>) -> Self {
        let mut reduced = vec![false; shape.len()];
        match axes.into().0 {
            None => reduced.fill(true),
            // A single number may be summed over its "last" axis, as in PyTorch.
            Some(axes) if shape.is_empty() => {
                assert!(axes.iter().all(|axis| [0, -1].contains(axis)), "{op}: no axes {axes:?} in shape []")
            }
            Some(axes) => axes.iter().for_each(|&axis| reduced[axis_of(op, axis, shape, shape.len())] = true),
        }
        let pick = |from: fn(usize, bool) -> Option<usize>| {
            shape
                .iter()
                .zip(&reduced)
                .filter_map(|(&size, &reduced)| from(size, reduced))
                .collect::<Vec<usize>>()
        };
        let ones = pick(|size, reduced| Some(if reduced { 1 } else { size }));
        let kept = pick(|size, reduced| (!reduced).then_some(size));
        let count = pick(|size, reduced| reduced.then_some(size)).iter().product();
        Reduction { reduced, ones, kept, count }
    }

    fn sum(&self, x: &Array) -> Array {
        self.apply(x, reduce::sum)
    }

    /// The reduced array, with sizes of 1.
    fn apply(
        &self,
        x: &Array,
        kernel: impl Fn(&[usize], elementwise::Strided, &[bool]) -> Vec<f32>,
    ) -> Array {
        Array::new(read_as(x.shape(), x, |memory| kernel(x.shape(), memory, &self.reduced)), &self.ones)
    }
}

impl Reduction {
    /// A reduced tensor without its sizes of 1.
    fn drop_axes(&self, x: Tensor) -> Tensor {
        x.reshape(&self.kept)
    }
}

fn sum_over(x: &Tensor, over: &Reduction) -> Tensor {
    let shape = x.data.raw_dim();
    from_op("sum", over.sum(&x.data), &[x], move |g, _| vec![Some(expanded(&g, shape.slice()))])
}

fn mean_over(x: &Tensor, over: &Reduction) -> Tensor {
    let (shape, count) = (x.data.raw_dim(), over.count as f32);
    from_op("mean", map(over.sum(&x.data), |sum| sum / count), &[x], move |g, _| {
        vec![Some(expanded(&map(g, |g| g / count), shape.slice()))]
    })
}

/// The squared distances from the mean, summed and divided by the count less 1; and the distances.
/// A single element has no spread to speak of: 0 / 0.
fn spread(x: &Tensor, over: &Reduction) -> (Array, Array) {
    let count = over.count as f32;
    let mean = map(over.sum(&x.data), |sum| sum / count);
    let centred = zip("var", x.data.clone(), mean, |x, mean| x - mean);
    let squares = map(centred.clone(), |x| x * x);
    (map(over.sum(&squares), |sum| sum / (count - 1.0).max(0.0)), centred)
}

fn var_over(x: &Tensor, over: &Reduction) -> Tensor {
    let (var, centred) = spread(x, over);
    let scale = 2.0 / (over.count as f32 - 1.0).max(0.0);
    from_op("var", var, &[x], move |g, _| vec![Some(zip("var", centred, g, |x, g| g * scale * x))])
}

fn std_over(x: &Tensor, over: &Reduction) -> Tensor {
    let (var, centred) = spread(x, over);
    let (std, scale) = (map(var, f32::sqrt), 1.0 / (over.count as f32 - 1.0).max(0.0));
    from_op("std", std.clone(), &[x], move |g, _| {
        // Where all elements are equal there is no slope, up on both sides: 0 is passed on, as PyTorch does.
        let slope = zip("std", g, std, |g, std| if std == 0.0 { 0.0 } else { g * scale / std });
        vec![Some(zip("std", centred, slope, |x, slope| slope * x))]
    })
}

/// The gradient goes to the extreme elements, in equal parts.
#[track_caller]
fn extreme_over(
    op: &'static str,
    x: &Tensor,
    over: Reduction,
    kernel: fn(&[usize], elementwise::Strided, &[bool]) -> Vec<f32>,
) -> Tensor {
    assert!(over.count > 0, "{op}: no elements to choose from in shape {:?}", x.shape());
    let (kept, extreme) = (x.data.clone(), over.apply(&x.data, kernel));
    from_op(op, extreme.clone(), &[x], move |g, _| {
        let hits = zip(op, kept, extreme, |x, extreme| if x == extreme { 1.0 } else { 0.0 });
        let share = zip(op, g, over.sum(&hits), |g, hits| g / hits);
        vec![Some(zip(op, hits, share, |hit, share| hit * share))]
    })
}

/// Reductions: over all axes (`..`), over one (`1`, or `-1` for the last), or over several (`[0, 2]`).
/// With `_keepdim` the reduced axes stay, with size 1, so that the result broadcasts against the tensor.
///
/// All panic if the tensor has no such axis.
impl Tensor {
    /// The sum. Of no elements it is 0.
    #[track_caller]
    pub fn sum(&self, axes: impl Into<Axes>) -> Tensor {
        let over = Reduction::new("sum", self.shape(), axes);
        over.drop_axes(sum_over(self, &over))
    }

    /// The sum; reduced axes stay.
    #[track_caller]
    pub fn sum_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        sum_over(self, &Reduction::new("sum", self.shape(), axes))
    }

    /// The mean. Of no elements it is NaN.
    #[track_caller]
    pub fn mean(&self, axes: impl Into<Axes>) -> Tensor {
        let over = Reduction::new("mean", self.shape(), axes);
        over.drop_axes(mean_over(self, &over))
    }

    /// The mean; reduced axes stay.
    #[track_caller]
    pub fn mean_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        mean_over(self, &Reduction::new("mean", self.shape(), axes))
    }

    /// The variance: squared distances from the mean, summed and divided by one less than their number.
    #[track_caller]
    pub fn var(&self, axes: impl Into<Axes>) -> Tensor {
        let over = Reduction::new("var", self.shape(), axes);
        over.drop_axes(var_over(self, &over))
    }

    /// The variance as [`Tensor::var`]; reduced axes stay.
    #[track_caller]
    pub fn var_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        var_over(self, &Reduction::new("var", self.shape(), axes))
    }

    /// The standard deviation: the root of [`Tensor::var`].
    #[track_caller]
    pub fn std(&self, axes: impl Into<Axes>) -> Tensor {
        let over = Reduction::new("std", self.shape(), axes);
        over.drop_axes(std_over(self, &over))
    }

    /// The standard deviation; reduced axes stay.
    #[track_caller]
    pub fn std_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        std_over(self, &Reduction::new("std", self.shape(), axes))
    }

    /// The largest element, NaN if one is. Equals share the gradient. Panics if there are no elements.
    #[track_caller]
    pub fn amax(&self, axes: impl Into<Axes>) -> Tensor {
        let over = Reduction::new("amax", self.shape(), axes);
        let kept = over.kept.clone();
        extreme_over("amax", self, over, reduce::max).reshape(&kept)
    }

    /// The largest element; reduced axes stay.
    #[track_caller]
    pub fn amax_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        extreme_over("amax", self, Reduction::new("amax", self.shape(), axes), reduce::max)
    }

    /// The smallest element, NaN if one is. Equals share the gradient. Panics if there are no elements.
    #[track_caller]
    pub fn amin(&self, axes: impl Into<Axes>) -> Tensor {
        let over = Reduction::new("amin", self.shape(), axes);
        let kept = over.kept.clone();
        extreme_over("amin", self, over, reduce::min).reshape(&kept)
    }

    /// The smallest element; reduced axes stay.
    #[track_caller]
    pub fn amin_keepdim(&self, axes: impl Into<Axes>) -> Tensor {
        extreme_over("amin", self, Reduction::new("amin", self.shape(), axes), reduce::min)
    }

    /// Positions of the largest elements along an axis: the first of equals; NaN counts as largest.
    #[track_caller]
    pub fn argmax(&self, axis: isize) -> Array<i64> {
        let axis = axis_of("argmax", axis, self.shape(), self.shape().len());
        let mut shape = self.shape().to_vec();
        let n = shape.remove(axis);
        assert!(n > 0, "argmax: no elements to choose from in shape {:?}", self.shape());
        let mut last: Vec<usize> = (0..=shape.len()).filter(|&other| other != axis).collect();
        last.push(axis);
        Array::new(reduce::argmax_rows(elements(&contiguous(&permuted(&self.data, &last))), n), &shape)
    }
}

// %% notebooks/05_tensor.ipynb te-functions
/// An operation on each element: the result, and from a gradient and what was saved the gradient of the input.
fn elementwise_op(
    op: &'static str,
    x: &Tensor,
    y: Array,
    saved: Array,
    backward: impl Fn(f32, f32) -> f32 + Sync + 'static,
) -> Tensor {
    from_op(op, y, &[x], move |g, _| vec![Some(zip(op, g, saved, backward))])
}

/// Functions of each element.
impl Tensor {
    /// eˣ.
    pub fn exp(&self) -> Tensor {
        let y = map(self.data.clone(), elementwise::exp);
        elementwise_op("exp", self, y.clone(), y, |g, y| g * y)
    }

    /// The natural logarithm.
    pub fn log(&self) -> Tensor {
        elementwise_op("log", self, map(self.data.clone(), f32::ln), self.data.clone(), |g, x| g / x)
    }

    /// The square root.
    pub fn sqrt(&self) -> Tensor {
        let y = map(self.data.clone(), f32::sqrt);
        elementwise_op("sqrt", self, y.clone(), y, |g, y| g / (2.0 * y))
    }

    /// x to a whole power.
    pub fn powi(&self, n: i32) -> Tensor {
        match n {
            0 => elementwise_op("powi", self, map(self.data.clone(), |_| 1.0), self.data.clone(), |_, _| 0.0),
            2 => {
                elementwise_op("powi", self, map(self.data.clone(), |x| x * x), self.data.clone(), |g, x| {
                    g * 2.0 * x
                })
            }
            _ => elementwise_op(
                "powi",
                self,
                map(self.data.clone(), |x| x.powi(n)),
                self.data.clone(),
                move |g, x| g * n as f32 * x.powi(n - 1),
            ),
        }
    }

    /// x to any power.
    pub fn powf(&self, p: f32) -> Tensor {
        elementwise_op("powf", self, map(self.data.clone(), |x| x.powf(p)), self.data.clone(), move |g, x| {
            if p == 0.0 { 0.0 } else { g * p * x.powf(p - 1.0) }
        })
    }

    /// |x|, with slope 0 at 0.
    pub fn abs(&self) -> Tensor {
        elementwise_op("abs", self, map(self.data.clone(), f32::abs), self.data.clone(), |g, x| {
            if x > 0.0 {
                g
            } else if x < 0.0 {
                -g
            } else {
                0.0
            }
        })
    }

    /// The larger of x and 0, with slope 0 at 0.
    pub fn relu(&self) -> Tensor {
        let y = map(self.data.clone(), |x| if x < 0.0 { 0.0 } else { x });
        elementwise_op("relu", self, y.clone(), y, |g, y| if y <= 0.0 { 0.0 } else { g })
    }

    /// The hyperbolic tangent.
    pub fn tanh(&self) -> Tensor {
        let y = map(self.data.clone(), elementwise::tanh);
        elementwise_op("tanh", self, y.clone(), y, |g, y| g * (1.0 - y * y))
    }

    /// 1 / (1 + e⁻ˣ).
    pub fn sigmoid(&self) -> Tensor {
        let y = map(self.data.clone(), elementwise::sigmoid);
        elementwise_op("sigmoid", self, y.clone(), y, |g, y| g * y * (1.0 - y))
    }

    /// Each x moved into `min..=max`; the gradient passes where x lies strictly between them. NaN stays.
    pub fn clamp(&self, min: f32, max: f32) -> Tensor {
        // The upper bound last: it wins if they cross.
        let clamped = move |x: f32| {
            let x = if x < min { min } else { x };
            if x > max { max } else { x }
        };
        elementwise_op("clamp", self, map(self.data.clone(), clamped), self.data.clone(), move |g, x| {
            if x > min && x < max { g } else { 0.0 }
        })
    }

    /// The larger of each pair, broadcast. Equals share the gradient; NaN wins.
    ///
    /// # Panics
    /// If the shapes cannot be broadcast.
    #[track_caller]
    pub fn maximum(&self, other: &Tensor) -> Tensor {
        let larger = |x: f32, y: f32| if x > y || x.is_nan() { x } else { y };
        choice(
            "maximum",
            self,
            other,
            zip("maximum", self.data.clone(), other.data.clone(), larger),
            |x, y| x > y,
        )
    }

    /// The smaller of each pair, broadcast. Equals share the gradient; NaN wins.
    ///
    /// # Panics
    /// If the shapes cannot be broadcast.
    #[track_caller]
    pub fn minimum(&self, other: &Tensor) -> Tensor {
        let smaller = |x: f32, y: f32| if x < y || x.is_nan() { x } else { y };
        choice(
            "minimum",
            self,
            other,
            zip("minimum", self.data.clone(), other.data.clone(), smaller),
            |x, y| x < y,
        )
    }
}

/// One of each pair: nothing goes to what the other beats, half to either of equals, all to what no comparison decides.
fn choice(op: &'static str, x: &Tensor, y: &Tensor, chosen: Array, beats: fn(f32, f32) -> bool) -> Tensor {
    let (x_data, y_data) = (x.data.clone(), y.data.clone());
    from_op(op, chosen, &[x, y], move |g, needs| {
        let part_of = |mine: &Array, other: &Array| {
            let part = |mine, other| {
                if beats(other, mine) {
                    0.0
                } else if mine == other {
                    0.5
                } else {
                    1.0
                }
            };
            let part = zip(op, mine.clone(), other.clone(), part);
            sum_to(zip(op, part, g.clone(), |part, g| part * g), mine.shape())
        };
        vec![needs[0].then(|| part_of(&x_data, &y_data)), needs[1].then(|| part_of(&y_data, &x_data))]
    })
}

// %% notebooks/05_tensor.ipynb te-part
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

impl Part for Vec<SliceInfoElem> {
    fn axes(self) -> Vec<SliceInfoElem> {
        self
    }
}

impl Part for &[SliceInfoElem] {
    fn axes(self) -> Vec<SliceInfoElem> {
        self.to_vec()
    }
}

impl<const N: usize> Part for [SliceInfoElem; N] {
    fn axes(self) -> Vec<SliceInfoElem> {
        self.to_vec()
    }
}

// %% notebooks/05_tensor.ipynb te-parts
mod parts {
    use super::{Part, SliceInfoElem};
    use std::ops::RangeFull;

    macro_rules! parts {
        ($($part:ty),* ; $($name:ident)*) => {
            $(impl Part for $part {
                fn axes(self) -> Vec<SliceInfoElem> {
                    vec![self.into()]
                }
            })*

            impl<$($name: Into<SliceInfoElem>),*> Part for ($($name,)*) {
                #[allow(non_snake_case)] // a variable has the name of its type
                fn axes(self) -> Vec<SliceInfoElem> {
                    let ($($name,)*) = self;
                    vec![$($name.into()),*]
                }
            }
        };
    }

    parts!(usize, isize, i32, RangeFull; A);
    parts!(; A B);
    parts!(; A B C);
    parts!(; A B C D);
    parts!(; A B C D E);
    parts!(; A B C D E F);
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

// %% notebooks/05_tensor.ipynb te-select
/// Parts of tensors, and tensors from parts.
impl Tensor {
    /// A part: a tuple that holds, for each axis, an integer, which takes the axis away, or a range. Negative integers
    /// count from the end; axes not mentioned are taken whole. Steps are written with ndarray's `s!`. Nothing is copied.
    ///
    /// ```
    /// use minai::tensor::tensor;
    /// use ndarray::s;
    ///
    /// let x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    /// assert_eq!(x.slice((.., 1..)).shape(), [2, 2]);
    /// assert_eq!(x.slice(-1).shape(), [3]);
    /// assert_eq!(x.slice(s![-1, ..;2]).shape(), [2]);
    /// ```
    ///
    /// # Panics
    /// If it leads out of the shape.
    #[track_caller]
    pub fn slice(&self, part: impl Part) -> Tensor {
        let (shape, mut part) = (self.data.raw_dim(), part.axes());
        let named = part.iter().filter(|elem| !elem.is_new_axis()).count();
        part.extend((named..shape.ndim()).map(|_| SliceInfoElem::from(..)));
        let axes = part.iter().filter(|elem| !elem.is_new_axis()).zip(shape.slice());
        let inside =
            named <= shape.ndim() && axes.into_iter().all(|(elem, &size)| is_inside(elem, size as isize));
        assert!(inside, "slice: {part:?} leads out of shape {:?}", self.shape());
        let data = ArcArray::from(self.data.clone()).slice_move(&part[..]).into();
        from_op("slice", data, &[self], move |g, _| {
            let mut whole = ndarray::ArrayD::zeros(shape);
            whole.slice_mut(&part[..]).assign(&g);
            vec![Some(whole.into_shared().into())]
        })
    }

    /// Picks along an axis: `out[.., i, ..] = x[.., indices[i], ..]`.
    ///
    /// # Panics
    /// If an index is not that of an element, or the list of indices not of rank 1.
    #[track_caller]
    pub fn index_select(&self, axis: isize, indices: &Array<i64>) -> Tensor {
        let axis = axis_of("index_select", axis, self.shape(), self.shape().len());
        assert!(indices.ndim() == 1, "index_select: a list of indices expected, shape {:?}", indices.shape());
        let (before, mut shape) = (self.data.raw_dim(), self.shape().to_vec());
        let (n, inner) = (shape[axis], shape[axis + 1..].iter().product::<usize>());
        let indices = checked_indices("index_select", indices, n, &shape);
        shape[axis] = indices.len();
        let picked = elementwise::index_select(elements(&contiguous(&self.data)), n, inner, &indices);
        from_op("index_select", Array::new(picked, &shape), &[self], move |g, _| {
            vec![Some(Array::new(elementwise::index_add(elements(&g), n, inner, &indices), before.slice()))]
        })
    }

    /// Picks single elements along an axis: for axis 1, `out[i, j, k] = x[i, index[i, j, k], k]`.
    ///
    /// # Panics
    /// If an index is not that of an element, the ranks differ, or `index` is larger along another axis.
    #[track_caller]
    pub fn gather(&self, axis: isize, index: &Array<i64>) -> Tensor {
        let axis = axis_of("gather", axis, self.shape(), self.shape().len());
        let (shape, wanted) = (self.data.raw_dim(), index.shape());
        let fits =
            wanted.len() == shape.ndim() && (0..wanted.len()).all(|i| i == axis || wanted[i] <= shape[i]);
        assert!(fits, "gather: an index of shape {wanted:?} along axis {axis} of shape {:?}", self.shape());
        let mut indices = checked_indices("gather", index, shape[axis], self.shape()).into_iter();
        // Where each element comes from, in row-major order.
        let place = |at: IxDyn| {
            let index = indices.next().expect("as many as places");
            (0..at.ndim()).fold(0, |sum, i| sum * shape[i] + if i == axis { index } else { at[i] })
        };
        let places: Vec<usize> = ndarray::indices(wanted).into_iter().map(place).collect();
        let all = contiguous(&self.data);
        let picked = Array::new(places.iter().map(|&place| elements(&all)[place]).collect(), wanted);
        from_op("gather", picked, &[self], move |g, _| {
            let mut whole = vec![0.0; shape.size()];
            places.iter().zip(elements(&g)).for_each(|(&place, g)| whole[place] += g);
            vec![Some(Array::new(whole, shape.slice()))]
        })
    }

    /// The elements, but `value` where the mask, broadcast, is true.
    ///
    /// # Panics
    /// If the mask does not broadcast to the tensor's shape.
    #[track_caller]
    pub fn masked_fill(&self, mask: &Array<bool>, value: f32) -> Tensor {
        let shape = self.data.raw_dim();
        let joined = broadcast_shape("masked_fill", shape.slice(), mask.shape());
        assert!(
            joined == shape.slice(),
            "masked_fill: a mask of shape {:?} for shape {joined:?}",
            mask.shape()
        );
        let filled = zip_strided(&joined, &self.data, mask, |x, hidden| if hidden { value } else { x });
        let mask = mask.clone();
        from_op("masked_fill", filled, &[self], move |g, _| {
            vec![Some(zip_strided(shape.slice(), &g, &mask, |g, hidden| if hidden { 0.0 } else { g }))]
        })
    }
}

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

#[track_caller]
fn checked_indices(op: &str, indices: &Array<i64>, n: usize, shape: &[usize]) -> Vec<usize> {
    let check = |&index: &i64| match usize::try_from(index) {
        Ok(index) if index < n => index,
        _ => panic!("{op}: index {index} on an axis of {n} elements, shape {shape:?}"),
    };
    indices.iter().map(check).collect()
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
    let chosen = zip("where", mask.clone(), x.data.clone(), |mask, x| if mask == 1.0 { x } else { 0.0 });
    let others = zip("where", mask.clone(), y.data.clone(), |mask, y| if mask == 1.0 { 0.0 } else { y });
    let (x_shape, y_shape) = (x.data.raw_dim(), y.data.raw_dim());
    from_op("where", zip("where", chosen, others, |x, y| x + y), &[x, y], move |g, needs| {
        let to_x = || zip("where", mask.clone(), g.clone(), |mask, g| if mask == 1.0 { g } else { 0.0 });
        let to_y = || zip("where", mask.clone(), g.clone(), |mask, g| if mask == 1.0 { 0.0 } else { g });
        vec![
            needs[0].then(|| sum_to(to_x(), x_shape.slice())),
            needs[1].then(|| sum_to(to_y(), y_shape.slice())),
        ]
    })
}

/// Tensors one after the other along an axis that they have.
///
/// # Panics
/// If there are none, or their other sizes differ.
#[track_caller]
pub fn cat(tensors: &[&Tensor], axis: isize) -> Tensor {
    let first = tensors.first().expect("cat: at least one tensor").shape();
    let position = axis_of("cat", axis, first, first.len());
    for other in tensors {
        let others =
            |shape: &[usize]| [&shape[..position], &shape[(position + 1).min(shape.len())..]].concat();
        let fits = other.shape().len() == first.len() && others(other.shape()) == others(first);
        assert!(fits, "cat: shapes {first:?} and {:?} along axis {axis}", other.shape());
    }
    let lengths: Vec<usize> = tensors.iter().map(|tensor| tensor.shape()[position]).collect();
    let mut shape = first.to_vec();
    shape[position] = lengths.iter().sum();
    let (outer, inner): (usize, usize) =
        (first[..position].iter().product(), first[position + 1..].iter().product());
    let arrays: Vec<Array> = tensors.iter().map(|tensor| contiguous(&tensor.data)).collect();
    let mut joined = Vec::with_capacity(shape.iter().product());
    for place in 0..outer {
        for (array, length) in arrays.iter().zip(&lengths) {
            joined.extend_from_slice(&elements(array)[place * length * inner..][..length * inner]);
        }
    }
    from_op("cat", Array::new(joined, &shape), tensors, move |g, _| {
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

/// Tensors of one shape side by side along a new axis.
///
/// # Panics
/// If there are none, or the shapes differ.
#[track_caller]
pub fn stack(tensors: &[&Tensor], axis: isize) -> Tensor {
    let parts: Vec<Tensor> = tensors.iter().map(|tensor| tensor.unsqueeze(axis)).collect();
    cat(&parts.iter().collect::<Vec<_>>(), axis)
}

// %% notebooks/05_tensor.ipynb te-graph
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

impl Tensor {
    /// All that the gradient of this tensor will pass through: inputs before what is made of them, this tensor last.
    pub fn graph(&self) -> Vec<GraphNode> {
        let mut found: Vec<Rc<Node>> = self.node.iter().cloned().collect();
        let mut next = 0;
        while let Some(node) = found.get(next).cloned() {
            for input in node.history.borrow().iter().flat_map(|history| history.inputs.iter().flatten()) {
                if !found.iter().any(|known| Rc::ptr_eq(known, input)) {
                    found.push(input.clone());
                }
            }
            next += 1;
        }
        found.reverse();
        found.sort_by_key(|node| node.height);
        let position = |input: &Rc<Node>| found.iter().position(|node| Rc::ptr_eq(node, input));
        let describe = |node: &Rc<Node>| GraphNode {
            op: node.op,
            shape: node.shape.slice().to_vec(),
            inputs: match &*node.history.borrow() {
                Some(history) => {
                    history.inputs.iter().map(|input| input.as_ref().and_then(position)).collect()
                }
                None => Vec::new(),
            },
        };
        found.iter().map(describe).collect()
    }
}

// %% notebooks/05_tensor.ipynb te-grad-check
/// The largest difference between the gradients of `f` and those found by trying out, divided by the largest gradient.
///
/// Every element of every input is moved a little both ways; the slope is that of the polynomial of degree 4 through
/// five such points. The outputs of `f` are weighted with different numbers, so that no two errors cancel.
/// Expect less than 1e-3 for smooth `f` with inputs and outputs around 1, and much more at a kink.
///
/// # Panics
/// If no output depends on an input, or `f` does not always give the same shape.
#[track_caller]
pub fn grad_check(f: impl Fn(&[Tensor]) -> Tensor, inputs: &[Array]) -> f32 {
    let parameters: Vec<Tensor> = inputs.iter().map(|input| Tensor::parameter(contiguous(input))).collect();
    let output = f(&parameters);
    let weight = |i: usize| 0.5 + (i * 37 % 64) as f32 / 64.0;
    output.backward_from(Array::new((0..output.data.len()).map(weight).collect(), output.shape()));
    let weighted = |inputs: &[Tensor]| -> f64 {
        let output = f(inputs).data;
        output.iter().enumerate().map(|(i, &y)| f64::from(y) * f64::from(weight(i))).sum()
    };
    let (mut worst, mut largest) = (0.0_f64, 0.0_f64);
    let mut moved: Vec<Tensor> = parameters.iter().map(Tensor::detach).collect();
    for (which, parameter) in parameters.iter().enumerate() {
        let gradient =
            parameter.grad().unwrap_or_else(|| panic!("grad_check: input {which} has no gradient"));
        for (i, &gradient) in elements(&gradient).iter().enumerate() {
            let mut at = |distance: f32| {
                let mut numbers = elements(&parameter.data).to_vec();
                numbers[i] += distance;
                moved[which] = Array::new(numbers, parameter.shape()).into();
                weighted(&moved)
            };
            let h = 0.01;
            let slope = (8.0 * (at(h) - at(-h)) - (at(2.0 * h) - at(-2.0 * h))) / (12.0 * f64::from(h));
            worst = worst.max((slope - f64::from(gradient)).abs());
            largest = largest.max(slope.abs());
        }
        moved[which] = parameter.detach();
    }
    (worst / largest.max(1e-6)) as f32
}
