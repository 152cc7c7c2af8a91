// Owned by notebooks/04_backprop.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 0a75208212ade63e
//! Layers with a backward step each, written by hand: what the tensor of lesson 5 makes unnecessary.

// %% notebooks/04_backprop.ipynb ly-trait
use ndarray::{Array1, Array2, Axis, Zip};

/// A piece of a network: rows of numbers in, rows of numbers out.
pub trait Layer {
    /// The output for an input of shape (n, inputs); the layer keeps what [`Layer::backward`] will need.
    fn forward(&mut self, x: Array2<f32>) -> Array2<f32>;

    /// From dL/d(output) of the last forward call: dL/d(input). Gradients of the layer's own numbers stay in it.
    fn backward(&mut self, g: Array2<f32>) -> Array2<f32>;

    /// Moves the layer's own numbers, if it has any, against their gradient.
    fn step(&mut self, _learning_rate: f32) {}
}

// %% notebooks/04_backprop.ipynb ly-relu
/// max(x, 0), number by number.
#[derive(Default)]
pub struct Relu {
    x: Array2<f32>,
}

impl Layer for Relu {
    fn forward(&mut self, x: Array2<f32>) -> Array2<f32> {
        self.x = x;
        self.x.mapv(|x| x.max(0.0))
    }

    fn backward(&mut self, g: Array2<f32>) -> Array2<f32> {
        Zip::from(&self.x).and(&g).map_collect(|&x, &g| if x > 0.0 { g } else { 0.0 })
    }
}

// %% notebooks/04_backprop.ipynb ly-linear
/// Y = X W + b, with X of shape (n, inputs) and W of shape (inputs, outputs).
pub struct Linear {
    /// The weights.
    pub w: Array2<f32>,
    /// The biases.
    pub b: Array1<f32>,
    /// The gradient of the weights: zeros before the first backward call.
    pub g_w: Array2<f32>,
    /// The gradient of the biases.
    pub g_b: Array1<f32>,
    x: Array2<f32>,
}

impl Linear {
    /// A layer with these weights and biases.
    pub fn new(w: Array2<f32>, b: Array1<f32>) -> Self {
        let (g_w, g_b) = (Array2::zeros(w.dim()), Array1::zeros(b.dim()));
        Linear { w, b, g_w, g_b, x: Array2::default((0, 0)) }
    }
}

// %% notebooks/04_backprop.ipynb ly-linear-b
impl Layer for Linear {
    fn forward(&mut self, x: Array2<f32>) -> Array2<f32> {
        self.x = x;
        self.x.dot(&self.w) + &self.b
    }

    fn backward(&mut self, g: Array2<f32>) -> Array2<f32> {
        self.g_w = self.x.t().dot(&g);
        self.g_b = g.sum_axis(Axis(0));
        g.dot(&self.w.t())
    }

    fn step(&mut self, learning_rate: f32) {
        self.w.scaled_add(-learning_rate, &self.g_w);
        self.b.scaled_add(-learning_rate, &self.g_b);
    }
}

// %% notebooks/04_backprop.ipynb ly-mse
/// The mean squared error of predictions.
#[derive(Default)]
pub struct Mse {
    error: Array2<f32>,
}

impl Mse {
    /// The mean of (output - y)²; both of the same shape.
    ///
    /// # Panics
    /// If the shapes differ, or nothing is in them.
    #[track_caller]
    pub fn forward(&mut self, output: &Array2<f32>, y: &Array2<f32>) -> f32 {
        assert!(output.dim() == y.dim(), "mse: shapes {:?} and {:?}", output.dim(), y.dim());
        self.error = output - y;
        self.error.mapv(|error| error * error).mean().expect("mse: of at least one number")
    }

    /// dL/d(output) of the last forward call.
    pub fn backward(&self) -> Array2<f32> {
        &self.error * (2.0 / self.error.len() as f32)
    }
}

// %% notebooks/04_backprop.ipynb ly-model
/// Layers one after the other, and a loss.
pub struct Model {
    /// From the input to the output.
    pub layers: Vec<Box<dyn Layer>>,
    loss: Mse,
}

// %% notebooks/04_backprop.ipynb ly-model-b
impl Model {
    /// A network of these layers.
    pub fn new(layers: Vec<Box<dyn Layer>>) -> Self {
        Model { layers, loss: Mse::default() }
    }

    /// The output for rows of input.
    pub fn predict(&mut self, x: Array2<f32>) -> Array2<f32> {
        self.layers.iter_mut().fold(x, |x, layer| layer.forward(x))
    }

    /// The loss; the layers are then ready for [`Model::backward`].
    pub fn loss(&mut self, x: Array2<f32>, y: &Array2<f32>) -> f32 {
        let output = self.predict(x);
        self.loss.forward(&output, y)
    }

    /// Leaves in each layer its gradient; returns that of the input.
    pub fn backward(&mut self) -> Array2<f32> {
        self.layers.iter_mut().rev().fold(self.loss.backward(), |g, layer| layer.backward(g))
    }

    /// Moves all numbers against their gradients.
    pub fn step(&mut self, learning_rate: f32) {
        self.layers.iter_mut().for_each(|layer| layer.step(learning_rate));
    }
}
