// Owned by notebooks/06_training.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 89c6a5ab0fc5389e
//! Networks: parameters in handles, modules that name them, layers, and what a forward pass carries along.

use crate::linear::linear;

// %% notebooks/06_training.ipynb nn-parameter
use minai::array::Array;
use minai::tensor::Tensor;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;

/// Computes a parameter's values when they are needed: from a file, or from half precision.
pub type Source = Rc<dyn Fn() -> Array>;

/// What a parameter holds: a tensor, or a shape and a way to get the values.
enum Store {
    Ready(Tensor),
    Lazy(Vec<usize>, Source),
}

/// Weights that training changes, in a handle: a clone is the same parameter, not a copy of it.
#[derive(Clone)]
pub struct Parameter(Rc<RefCell<Store>>);

// %% notebooks/06_training.ipynb nn-store
/// The shape only: models are printed, and have millions of values. For these see [`data`](Parameter::data).
impl fmt::Debug for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &*self.0.borrow() {
            Store::Ready(tensor) => write!(f, "Parameter({:?})", tensor.shape()),
            Store::Lazy(shape, _) => write!(f, "Parameter({shape:?}, lazy)"),
        }
    }
}

// %% notebooks/06_training.ipynb nn-parameter-make
fn parameter(store: Store) -> Parameter {
    Parameter(Rc::new(RefCell::new(store)))
}

impl Parameter {
    /// A parameter with these initial values.
    pub fn new(data: Array) -> Self {
        parameter(Store::Ready(Tensor::parameter(data)))
    }

    /// A parameter of this shape whose values `source` computes at each use, until something changes them.
    pub fn lazy(shape: &[usize], source: Source) -> Self {
        parameter(Store::Lazy(shape.to_vec(), source))
    }
}

// %% notebooks/06_training.ipynb nn-parameter-shape
fn shape_of(store: &Store) -> Vec<usize> {
    match store {
        Store::Ready(tensor) => tensor.shape().to_vec(),
        Store::Lazy(shape, _) => shape.clone(),
    }
}

impl Parameter {
    /// The size of each axis.
    pub fn shape(&self) -> Vec<usize> {
        shape_of(&self.0.borrow())
    }

    /// Gives up the values: from now on `source` computes them, in the parameter's shape.
    pub fn make_lazy(&self, source: Source) {
        let shape = self.shape();
        *self.0.borrow_mut() = Store::Lazy(shape, source);
    }

    /// Whether the two are one parameter.
    pub fn is(&self, other: &Parameter) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

// %% notebooks/06_training.ipynb nn-with-tensor
/// Runs `work` on the parameter's tensor, loading lazy values first.
fn with_tensor<T>(parameter: &Parameter, work: impl FnOnce(&mut Tensor) -> T) -> T {
    let mut store = parameter.0.borrow_mut();
    if let Store::Lazy(_, source) = &*store {
        *store = Store::Ready(Tensor::parameter(source()));
    }
    match &mut *store {
        Store::Ready(tensor) => work(tensor),
        Store::Lazy(..) => unreachable!("loaded above"),
    }
}

// %% notebooks/06_training.ipynb nn-parameter-values
impl Parameter {
    /// The parameter as a tensor: gradients flow into it. Lazy values are loaded, and kept.
    pub fn tensor(&self) -> Tensor {
        with_tensor(self, |tensor| tensor.clone())
    }

    /// The values as they are now; the memory is shared until one of the two changes.
    pub fn data(&self) -> Array {
        match &*self.0.borrow() {
            Store::Ready(tensor) => tensor.data.clone(),
            Store::Lazy(_, source) => source(),
        }
    }

    /// Changes the values in place: nothing is copied, unless something else still holds them.
    pub fn update(&self, change: impl FnOnce(&mut [f32])) {
        with_tensor(self, |tensor| {
            change(tensor.data.as_slice_mut().expect("parameters lie in row-major order"));
        });
    }
}

// %% notebooks/06_training.ipynb nn-parameter-set
#[track_caller]
fn check_shape(parameter: &Parameter, new: &[usize]) {
    let now = parameter.shape();
    assert!(now == new, "Parameter::set: shape {new:?} for a parameter of shape {now:?}");
}

impl Parameter {
    /// Replaces the values.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn set(&self, data: Array) {
        check_shape(self, data.shape());
        let mut store = self.0.borrow_mut();
        match &mut *store {
            Store::Ready(tensor) => tensor.data = data,
            Store::Lazy(..) => *store = Store::Ready(Tensor::parameter(data)),
        }
    }
}

// %% notebooks/06_training.ipynb nn-parameter-grad
fn gradient_of(store: &Store) -> Option<Array> {
    if let Store::Ready(tensor) = store { tensor.grad() } else { None }
}

impl Parameter {
    /// The gradient that the backward pass left; `None` before the first one.
    pub fn grad(&self) -> Option<Array> {
        gradient_of(&self.0.borrow())
    }

    /// Replaces the gradient, for example by a clipped one. Panics if the shapes differ.
    #[track_caller]
    pub fn set_grad(&self, gradient: Array) {
        with_tensor(self, |tensor| tensor.set_grad(gradient));
    }

    /// Forgets the gradient.
    pub fn zero_grad(&self) {
        if let Store::Ready(tensor) = &*self.0.borrow() {
            tensor.zero_grad();
        }
    }
}

// %% notebooks/06_training.ipynb nn-buffer
/// What a module keeps besides its parameters and saves with them, such as running statistics. A handle as well.
#[derive(Clone, Debug)]
pub struct Buffer<T = f32>(Rc<RefCell<Array<T>>>);

impl<T: Clone> Buffer<T> {
    /// A buffer with these initial values.
    pub fn new(data: Array<T>) -> Self {
        Buffer(Rc::new(RefCell::new(data)))
    }

    /// The values as they are now.
    pub fn get(&self) -> Array<T> {
        self.0.borrow().clone()
    }
}

// %% notebooks/06_training.ipynb nn-buffer-set
#[track_caller]
fn check_buffer(now: &[usize], new: &[usize]) {
    assert!(now == new, "Buffer::set: shape {new:?} for a buffer of shape {now:?}");
}

impl<T: Clone> Buffer<T> {
    /// Replaces the values.
    ///
    /// # Panics
    /// If the shapes differ.
    #[track_caller]
    pub fn set(&self, data: Array<T>) {
        let mut now = self.0.borrow_mut();
        check_buffer(now.shape(), data.shape());
        *now = data;
    }
}

// %% notebooks/06_training.ipynb nn-any-buffer
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

// %% notebooks/06_training.ipynb nn-inside
/// A module inside others, as it is printed: `(0): Linear(in_features=784, …)`.
#[derive(Debug)]
struct Inside {
    depth: usize,
    name: String,
    kind: &'static str,
    options: String,
}

/// `Linear` of `minai::nn::Linear`.
fn last_word(path: &'static str) -> &'static str {
    let path = path.split('<').next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path)
}

// %% notebooks/06_training.ipynb nn-parts
/// The parts of a module and of all modules inside it, with their full names: `0.weight`.
#[derive(Debug, Default)]
pub struct Parts {
    /// Where we are: empty, or names with a point after each.
    path: String,
    /// The parameters, in order.
    pub parameters: Vec<(String, Parameter)>,
    /// The buffers, in order.
    pub buffers: Vec<(String, AnyBuffer)>,
    /// The modules, in order, to be printed.
    modules: Vec<Inside>,
    /// How many modules we are inside of.
    depth: usize,
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

    /// Its options, as they are printed in the parentheses after the name: `in_features=784, out_features=50`.
    fn describe(&self) -> String {
        String::new()
    }
}

// %% notebooks/06_training.ipynb nn-parts-of
fn inside(depth: usize, name: &str, module: &dyn Module) -> Inside {
    Inside { depth, name: name.to_owned(), kind: module.name(), options: module.describe() }
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
}

// %% notebooks/06_training.ipynb nn-parts-module
impl Parts {
    /// Adds all parts of a module inside the module at hand.
    pub fn module(&mut self, name: &str, module: &dyn Module) {
        self.modules.push(inside(self.depth, name, module));
        let length = self.path.len();
        self.path.extend([name, "."]);
        self.depth += 1;
        module.parts(self);
        self.depth -= 1;
        self.path.truncate(length);
    }
}

// %% notebooks/06_training.ipynb nn-named
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

/// The number of a module's parameters.
pub fn parameter_count(module: &dyn Module) -> usize {
    named_parameters(module).iter().map(|(_, parameter)| parameter.shape().iter().product::<usize>()).sum()
}

// %% notebooks/06_training.ipynb nn-print
/// Prints `kind(options)`; with modules inside, these stand between the parentheses, one a line.
fn print_module(f: &mut fmt::Formatter, indent: usize, names: (&str, &str), all: &[Inside]) -> fmt::Result {
    let (kind, options) = names;
    let Some(first) = all.first() else { return write!(f, "{kind}({options})") };
    writeln!(f, "{kind}(")?;
    if !options.is_empty() {
        writeln!(f, "{:indent$}  {options}", "")?;
    }
    // Each module, and those inside it: they follow, and lie deeper.
    for group in all.chunk_by(|_, next| next.depth > first.depth) {
        let module = &group[0];
        write!(f, "{:indent$}  ({}): ", "", module.name)?;
        print_module(f, indent + 2, (module.kind, module.options.as_str()), &group[1..])?;
        writeln!(f)?;
    }
    write!(f, "{:indent$})", "")
}

impl fmt::Display for dyn Module + '_ {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        print_module(f, 0, (self.name(), self.describe().as_str()), &Parts::of(self).modules)
    }
}

// %% notebooks/06_training.ipynb nn-pass
use minai::generator::Generator;

/// What a network is used for. Some layers (dropout, batch norm) do different things in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Learning: the graph is recorded, so that gradients can flow back.
    Train,
    /// Use: parameters count as constants, no graph is built.
    Eval,
}

/// Called after each layer with its path (`0`, `body.2`), the layer, its inputs and its output.
pub type Hook = Box<dyn FnMut(&str, &dyn Module, &[&Tensor], &Tensor)>;

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

// %% notebooks/06_training.ipynb nn-pass-get
fn new_pass(mode: Mode, rng: Generator) -> Pass {
    Pass { mode, rng, hook: None, path: String::new() }
}

impl Pass {
    /// A pass for training; layers draw from `rng`.
    pub fn train(rng: Generator) -> Self {
        new_pass(Mode::Train, rng)
    }

    /// A pass for the result only.
    pub fn eval() -> Self {
        new_pass(Mode::Eval, Generator::manual_seed(0))
    }

    /// A parameter as this pass needs it: in [`Mode::Eval`] a constant.
    pub fn get(&self, parameter: &Parameter) -> Tensor {
        match self.mode {
            Mode::Train => parameter.tensor(),
            Mode::Eval => parameter.data().into(),
        }
    }
}

// %% notebooks/06_training.ipynb nn-scope
/// Makes `path` longer by a name. The length that it had before is the way back.
fn enter(path: &mut String, name: &str) -> usize {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(name);
    length
}

// %% notebooks/06_training.ipynb nn-scope-run
fn call_hook(pass: &mut Pass, module: &dyn Module, inputs: &[&Tensor], y: &Tensor) {
    if let Some(mut hook) = pass.hook.take() {
        hook(&pass.path, module, inputs, y);
        pass.hook = Some(hook);
    }
}

impl Pass {
    /// Computes the output of `module`, which is called `name` in the module that holds it, by `run`; then the hook sees
    /// it. For modules that are no [`Layer`], such as attention between two sequences.
    #[track_caller]
    pub fn scope<F>(&mut self, name: &str, module: &dyn Module, inputs: &[&Tensor], run: F) -> Tensor
    where
        F: FnOnce(&mut Pass) -> Tensor,
    {
        let outside = enter(&mut self.path, name);
        let y = run(self);
        call_hook(self, module, inputs, &y);
        self.path.truncate(outside);
        y
    }
}

// %% notebooks/06_training.ipynb nn-layer
/// A module with one input and one output.
pub trait Layer: Module {
    /// The output for the input `x`.
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor;
}

impl fmt::Debug for dyn Layer + '_ {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

impl Pass {
    /// Sends `x` through `layer`: see [`scope`](Pass::scope).
    #[track_caller]
    pub fn call(&mut self, name: &str, layer: &dyn Layer, x: &Tensor) -> Tensor {
        self.scope(name, layer, &[x], |pass| layer.forward(x, pass))
    }
}

// %% notebooks/06_training.ipynb nn-init
/// Where the parameters of a new layer come from. A [`Generator`] draws their initial values.
pub trait Init {
    /// A parameter of this shape. `draw` says how a generator makes its initial values.
    fn parameter(&mut self, shape: &[usize], draw: &dyn Fn(&mut Generator) -> Array) -> Parameter;
}

impl Init for Generator {
    fn parameter(&mut self, _: &[usize], draw: &dyn Fn(&mut Generator) -> Array) -> Parameter {
        Parameter::new(draw(self))
    }
}

// %% notebooks/06_training.ipynb nn-initial
/// PyTorch's initial weights: uniform within ± 1 / √fan_in, where fan_in is the number of inputs of one output.
pub fn initial_weight(init: &mut dyn Init, shape: &[usize]) -> Parameter {
    let fan_in: usize = shape[1..].iter().product();
    // PyTorch arrives there by Kaiming's formula with a = √5; the same steps give the same last bit.
    let gain = (2.0 / (1.0 + 5f64.sqrt().powi(2))).sqrt();
    let bound = 3f64.sqrt() * (gain / (fan_in as f64).sqrt());
    init.parameter(shape, &|rng| rng.uniform(shape, -bound, bound))
}

/// PyTorch's initial biases, uniform in the same range.
pub fn initial_bias(init: &mut dyn Init, outputs: usize, fan_in: usize) -> Parameter {
    let bound = 1.0 / (fan_in as f64).sqrt();
    init.parameter(&[outputs], &|rng| rng.uniform(&[outputs], -bound, bound))
}

// %% notebooks/06_training.ipynb nn-linear
/// y = x Wᵀ + b, for x (…, inputs).
#[derive(Debug)]
pub struct Linear {
    /// (outputs, inputs)
    pub weight: Parameter,
    /// (outputs), or none.
    pub bias: Option<Parameter>,
}

impl Linear {
    /// With PyTorch's initial weights and biases, if `init` is a generator.
    pub fn new(init: &mut dyn Init, inputs: usize, outputs: usize) -> Self {
        let layer = Self::without_bias(init, inputs, outputs);
        Linear { bias: Some(initial_bias(init, outputs, inputs)), ..layer }
    }

    /// y = x Wᵀ
    pub fn without_bias(init: &mut dyn Init, inputs: usize, outputs: usize) -> Self {
        Linear { weight: initial_weight(init, &[outputs, inputs]), bias: None }
    }
}

// %% notebooks/06_training.ipynb nn-linear-module
/// Whether there is a bias, as PyTorch prints it.
fn describe_bias(bias: &Option<Parameter>) -> &'static str {
    if bias.is_some() { "bias=True" } else { "bias=False" }
}

impl Module for Linear {
    fn parts(&self, parts: &mut Parts) {
        parts.parameter("weight", &self.weight);
        if let Some(bias) = &self.bias {
            parts.parameter("bias", bias);
        }
    }

    fn describe(&self) -> String {
        let shape = self.weight.shape();
        format!("in_features={}, out_features={}, {}", shape[1], shape[0], describe_bias(&self.bias))
    }
}

// %% notebooks/06_training.ipynb nn-linear-layer
impl Layer for Linear {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        let bias = self.bias.as_ref().map(|bias| pass.get(bias));
        linear(x, &pass.get(&self.weight), bias.as_ref())
    }
}

impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/06_training.ipynb nn-relu
/// max(x, 0)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relu;

impl Module for Relu {
    fn parts(&self, _: &mut Parts) {}
}

impl Layer for Relu {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        x.relu()
    }
}

// %% notebooks/06_training.ipynb nn-flatten
/// (n, …) becomes (n, the product of the rest).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flatten;

impl Module for Flatten {
    fn parts(&self, _: &mut Parts) {}
}

impl Layer for Flatten {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        x.reshape((x.shape()[0], -1))
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

// %% notebooks/06_training.ipynb nn-sequential-layer
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

// %% notebooks/06_training.ipynb nn-sequential-print
impl fmt::Display for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

impl fmt::Debug for Sequential {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}", self as &dyn Module)
    }
}

// %% notebooks/06_training.ipynb nn-pass-debug
impl fmt::Debug for Pass {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.debug_struct("Pass").field("mode", &self.mode).field("path", &self.path).finish_non_exhaustive()
    }
}
