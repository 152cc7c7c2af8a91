// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash f19350aa4d85d51a
//! Networks: parameters in handles, modules that name them, layers, and what a forward pass carries along.

use crate::generator::Generator;
use crate::linear::linear;

// %% notebooks/06_training.ipynb nn-parameter
use minai::array::Array;
use minai::tensor::Tensor;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Makes a parameter's numbers when they are wanted: from a file, or from a shorter type.
pub type Source = Rc<dyn Fn() -> Array>;

/// What a parameter holds.
enum Store {
    Own(Tensor),
    Lent(Vec<usize>, Source),
}

/// Numbers that training changes, in a handle: a clone is the same parameter, not a copy of it.
#[derive(Clone)]
pub struct Parameter(Rc<RefCell<Store>>);

impl Parameter {
    /// A parameter that begins with these numbers.
    pub fn new(data: Array) -> Self {
        Parameter(Rc::new(RefCell::new(Store::Own(Tensor::parameter(data)))))
    }

    /// A parameter of this shape whose numbers `source` makes at each use, until something wants to change them.
    pub fn lent(shape: &[usize], source: Source) -> Self {
        Parameter(Rc::new(RefCell::new(Store::Lent(shape.to_vec(), source))))
    }

    /// The same parameter with numbers that `source` makes, of the shape that the parameter has; it is not asked yet.
    pub fn lend(&self, source: Source) {
        let shape = self.shape();
        *self.0.borrow_mut() = Store::Lent(shape, source);
    }

    /// The parameter as a tensor: gradients flow into it. Numbers that were lent become its own.
    pub fn tensor(&self) -> Tensor {
        self.own(|tensor| tensor.clone())
    }

    /// The numbers as they are now; the memory is shared until one of the two changes.
    pub fn data(&self) -> Array {
        match &*self.0.borrow() {
            Store::Own(tensor) => tensor.data.clone(),
            Store::Lent(_, source) => source(),
        }
    }

    /// The size of each axis.
    pub fn shape(&self) -> Vec<usize> {
        match &*self.0.borrow() {
            Store::Own(tensor) => tensor.shape().to_vec(),
            Store::Lent(shape, _) => shape.clone(),
        }
    }

    /// Replaces the numbers.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn set(&self, data: Array) {
        let (now, new) = (self.shape(), data.shape());
        assert!(now == new, "Parameter::set: shape {new:?} for a parameter of shape {now:?}");
        let mut store = self.0.borrow_mut();
        match &mut *store {
            Store::Own(tensor) => tensor.data = data,
            Store::Lent(..) => *store = Store::Own(Tensor::parameter(data)),
        }
    }

    /// Changes the numbers in place: nothing is copied, unless something else still holds them.
    pub fn update(&self, change: impl FnOnce(&mut [f32])) {
        self.own(|tensor| change(tensor.data.as_slice_mut().expect("parameters lie in row-major order")));
    }

    /// The gradient that the backward pass left; `None` before the first one.
    pub fn grad(&self) -> Option<Array> {
        match &*self.0.borrow() {
            Store::Own(tensor) => tensor.grad(),
            Store::Lent(..) => None,
        }
    }

    /// Replaces the gradient, for example by a clipped one.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn set_grad(&self, gradient: Array) {
        self.own(|tensor| tensor.set_grad(gradient));
    }

    /// Forgets the gradient.
    pub fn zero_grad(&self) {
        if let Store::Own(tensor) = &*self.0.borrow() {
            tensor.zero_grad();
        }
    }

    /// Whether the two are one parameter.
    pub fn is(&self, other: &Parameter) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Does something with the parameter's own numbers; such as were lent are read now.
    fn own<T>(&self, work: impl FnOnce(&mut Tensor) -> T) -> T {
        let mut store = self.0.borrow_mut();
        if let Store::Lent(_, source) = &*store {
            *store = Store::Own(Tensor::parameter(source()));
        }
        match &mut *store {
            Store::Own(tensor) => work(tensor),
            Store::Lent(..) => unreachable!("read above"),
        }
    }
}

impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &*self.0.borrow() {
            Store::Own(tensor) => f.debug_tuple("Parameter").field(tensor).finish(),
            Store::Lent(shape, _) => write!(f, "Parameter(lent, shape {shape:?})"),
        }
    }
}

// %% notebooks/06_training.ipynb nn-buffer
/// What a module keeps besides its parameters and saves with them, such as running statistics. A handle as well.
#[derive(Clone, Debug)]
pub struct Buffer<T = f32>(Rc<RefCell<Array<T>>>);

impl<T: Clone> Buffer<T> {
    /// A buffer that begins with these numbers.
    pub fn new(data: Array<T>) -> Self {
        Buffer(Rc::new(RefCell::new(data)))
    }

    /// The numbers as they are now.
    pub fn get(&self) -> Array<T> {
        self.0.borrow().clone()
    }

    /// Replaces the numbers.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn set(&self, data: Array<T>) {
        let mut now = self.0.borrow_mut();
        assert!(
            now.shape() == data.shape(),
            "Buffer::set: shape {:?} for a buffer of shape {:?}",
            data.shape(),
            now.shape()
        );
        *now = data;
    }
}

/// A buffer of one of the types that state dicts hold.
#[derive(Clone, Debug)]
pub enum AnyBuffer {
    /// Of 32-bit floating-point numbers.
    F32(Buffer),
    /// Of 64-bit integers: counts.
    I64(Buffer<i64>),
}

impl From<&Buffer> for AnyBuffer {
    fn from(buffer: &Buffer) -> Self {
        AnyBuffer::F32(buffer.clone())
    }
}

impl From<&Buffer<i64>> for AnyBuffer {
    fn from(buffer: &Buffer<i64>) -> Self {
        AnyBuffer::I64(buffer.clone())
    }
}

// %% notebooks/06_training.ipynb nn-module
/// Something that has parameters, and names for them.
pub trait Module {
    /// Names the parameters, buffers and modules inside, in order. PyTorch's names make models exchangeable.
    fn parts(&self, parts: &mut Parts);

    /// What kind of module this is, for reports: its type's name.
    fn name(&self) -> &'static str {
        last_word(std::any::type_name::<Self>())
    }
}

/// `Linear` of `minai::nn::Linear`.
fn last_word(path: &'static str) -> &'static str {
    let path = path.split('<').next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path)
}

/// The parts of a module and of all modules inside it, with their full names: `0.weight`.
#[derive(Default)]
pub struct Parts {
    /// Where we are: empty, or names with a point behind each.
    path: String,
    /// The parameters, in order.
    pub parameters: Vec<(String, Parameter)>,
    /// The buffers, in order.
    pub buffers: Vec<(String, AnyBuffer)>,
}

impl Parts {
    /// Collects them.
    pub fn of(module: &dyn Module) -> Self {
        let mut parts = Parts::default();
        module.parts(&mut parts);
        parts
    }

    /// Adds a parameter of the module at hand.
    pub fn parameter(&mut self, name: &str, parameter: &Parameter) {
        self.parameters.push((format!("{}{name}", self.path), parameter.clone()));
    }

    /// Adds a buffer of the module at hand.
    pub fn buffer(&mut self, name: &str, buffer: impl Into<AnyBuffer>) {
        self.buffers.push((format!("{}{name}", self.path), buffer.into()));
    }

    /// Adds all parts of a module inside the module at hand.
    pub fn module(&mut self, name: &str, module: &dyn Module) {
        let length = self.path.len();
        self.path.extend([name, "."]);
        module.parts(self);
        self.path.truncate(length);
    }
}

/// The names and parameters of a module, in order. One that appears twice (two layers share it) is named once.
pub fn named_parameters(module: &dyn Module) -> Vec<(String, Parameter)> {
    let mut named: Vec<(String, Parameter)> = Vec::new();
    for (name, parameter) in Parts::of(module).parameters {
        if !named.iter().any(|(_, known)| known.is(&parameter)) {
            named.push((name, parameter));
        }
    }
    named
}

/// How many numbers a module's parameters have.
pub fn parameter_count(module: &dyn Module) -> usize {
    named_parameters(module).iter().map(|(_, parameter)| parameter.shape().iter().product::<usize>()).sum()
}

// %% notebooks/06_training.ipynb nn-pass
/// What a network is used for. Some layers (dropout, batch norm) do different things in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Learning: the graph is recorded, so that gradients can flow back.
    Train,
    /// Use: parameters count as constants, no graph is built.
    Eval,
}

/// Called behind each layer with its path (`0`, `body.2`), the layer, its input and its output.
pub type Hook = Box<dyn FnMut(&str, &dyn Layer, &Tensor, &Tensor)>;

/// What one way through a network carries along. Layers keep no mode and no random state of their own.
pub struct Pass {
    /// Training or use.
    pub mode: Mode,
    /// For layers that draw random numbers.
    pub rng: Generator,
    /// Sees what comes out of each layer.
    pub hook: Option<Hook>,
    path: String,
}

impl Pass {
    /// A pass that is to be learned from.
    pub fn train(rng: Generator) -> Self {
        Pass { mode: Mode::Train, rng, hook: None, path: String::new() }
    }

    /// A pass for the result only.
    pub fn eval() -> Self {
        Pass { mode: Mode::Eval, ..Pass::train(Generator::manual_seed(0)) }
    }

    /// A parameter as this pass needs it: in [`Mode::Eval`] a constant.
    pub fn get(&self, parameter: &Parameter) -> Tensor {
        match self.mode {
            Mode::Train => parameter.tensor(),
            Mode::Eval => parameter.data().into(),
        }
    }

    /// Sends `x` through a layer inside the one at hand, which calls it `name`; then the hook has its turn.
    #[track_caller]
    pub fn call(&mut self, name: &str, layer: &dyn Layer, x: &Tensor) -> Tensor {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        let y = layer.forward(x, self);
        if let Some(mut hook) = self.hook.take() {
            hook(&self.path, layer, x, &y);
            self.hook = Some(hook);
        }
        self.path.truncate(length);
        y
    }
}

/// A module that makes one tensor of one tensor.
pub trait Layer: Module {
    /// The output for the input `x`.
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor;
}

// %% notebooks/06_training.ipynb nn-linear
/// y = x Wᵀ + b, for x (…, inputs).
pub struct Linear {
    /// (outputs, inputs)
    pub weight: Parameter,
    /// (outputs), or none.
    pub bias: Option<Parameter>,
}

/// PyTorch's first weights: uniform within ± 1 / √fan_in, where fan_in is the number of inputs of one output.
pub fn initial_weight(rng: &mut Generator, shape: &[usize]) -> Parameter {
    let fan_in: usize = shape[1..].iter().product();
    // PyTorch arrives there by Kaiming's formula with a = √5; the same steps give the same last bit.
    let gain = (2.0 / (1.0 + 5f64.sqrt().powi(2))).sqrt();
    let bound = 3f64.sqrt() * (gain / (fan_in as f64).sqrt());
    Parameter::new(rng.uniform(shape, -bound, bound))
}

/// PyTorch's first biases, uniform in the same range.
pub fn initial_bias(rng: &mut Generator, outputs: usize, fan_in: usize) -> Parameter {
    let bound = 1.0 / (fan_in as f64).sqrt();
    Parameter::new(rng.uniform(&[outputs], -bound, bound))
}

impl Linear {
    /// With PyTorch's first weights and biases.
    pub fn new(rng: &mut Generator, inputs: usize, outputs: usize) -> Self {
        let weight = initial_weight(rng, &[outputs, inputs]);
        Linear { weight, bias: Some(initial_bias(rng, outputs, inputs)) }
    }

    /// y = x Wᵀ
    pub fn without_bias(rng: &mut Generator, inputs: usize, outputs: usize) -> Self {
        Linear { weight: initial_weight(rng, &[outputs, inputs]), bias: None }
    }
}

impl Module for Linear {
    fn parts(&self, parts: &mut Parts) {
        parts.parameter("weight", &self.weight);
        if let Some(bias) = &self.bias {
            parts.parameter("bias", bias);
        }
    }
}

impl Layer for Linear {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| pass.get(bias));
        linear(x, &pass.get(&self.weight), bias.as_ref())
    }
}

// %% notebooks/06_training.ipynb nn-relu
/// max(x, 0)
pub struct Relu;

impl Module for Relu {
    fn parts(&self, _: &mut Parts) {}
}

impl Layer for Relu {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        x.relu()
    }
}

/// (n, …) becomes (n, the product of the rest).
pub struct Flatten;

impl Module for Flatten {
    fn parts(&self, _: &mut Parts) {}
}

impl Layer for Flatten {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        x.reshape(&[x.shape()[0] as isize, -1])
    }
}

// %% notebooks/06_training.ipynb nn-sequential
/// Layers in a row: each one's output is the next one's input. Its parts are named by number.
#[derive(Default)]
pub struct Sequential {
    /// The layers, the first one first.
    pub layers: Vec<Box<dyn Layer>>,
}

impl Sequential {
    /// No layer yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with one layer more: `Sequential::new().add(Linear::new(rng, 784, 50)).add(Relu)`.
    #[expect(clippy::should_implement_trait, reason = "PyTorch's users look for a word, not for `+`")]
    pub fn add(mut self, layer: impl Layer + 'static) -> Self {
        self.layers.push(Box::new(layer));
        self
    }
}

impl Module for Sequential {
    fn parts(&self, parts: &mut Parts) {
        for (i, layer) in self.layers.iter().enumerate() {
            parts.module(&i.to_string(), layer.as_ref());
        }
    }
}

impl Layer for Sequential {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let mut x = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = pass.call(&i.to_string(), layer.as_ref(), &x);
        }
        x
    }
}
