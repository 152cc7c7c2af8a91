// Owned by notebooks/09_autoencoder.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash f2afbc7851186f7a
//! Pooling and upsampling of images (n, channels, height, width).

// %% notebooks/09_autoencoder.ipynb po-pool
use minai::array::Array;
use minai::kernels;
use minai::kernels::pool::{Partial, Window};
use minai::tensor::{Tensor, contiguous, elements, from_op};

/// How a pooling window moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// Steps between windows; `None` is as many as the window is wide.
    pub stride: Option<usize>,
    /// Rows and columns added on each side: at most half of the window.
    pub padding: usize,
    /// Whether windows count that reach over the end: PyTorch's `ceil_mode`.
    pub partial: Partial,
}

// %% notebooks/09_autoencoder.ipynb po-window
/// The window, and the shape of x as planes of (h, w) and of the result.
#[track_caller]
fn pooled(op: &str, x: &Tensor, kernel: usize, options: Pool) -> (Window, (usize, usize), Vec<usize>) {
    let [before @ .., h, w] = x.shape() else { panic!("{op}: images expected, shape {:?}", x.shape()) };
    let Pool { stride, padding, partial } = options;
    let window = Window { kernel, stride: stride.unwrap_or(kernel), padding, partial };
    (window, (*h, *w), [before, &[window.results(*h), window.results(*w)]].concat())
}

// %% notebooks/09_autoencoder.ipynb po-avg
/// The mean of each window of `kernel` rows and columns. `x`: (…, h, w). Padding counts, as zeros; what a window sees
/// beyond the padding does not.
///
/// # Panics
/// If `x` has fewer than two axes, or the window does not fit.
#[track_caller]
pub fn avg_pool2d(x: &Tensor, kernel: usize, options: Pool) -> Tensor {
    let (window, size, shape) = pooled("avg_pool2d", x, kernel, options);
    let y = kernels::pool::avg_pool2d(window, elements(&contiguous(&x.data)), size);
    let before = x.shape().to_vec();
    from_op("avg_pool2d", Array::new(y, &shape), &[x], move |g, _| {
        vec![Some(Array::new(kernels::pool::avg_pool2d_backward(window, elements(&g), size), &before))]
    })
}

// %% notebooks/09_autoencoder.ipynb po-max
/// The largest value of each window of `kernel` rows and columns. `x`: (…, h, w). Padding never wins.
///
/// # Panics
/// If `x` has fewer than two axes, or the window does not fit.
#[track_caller]
pub fn max_pool2d(x: &Tensor, kernel: usize, options: Pool) -> Tensor {
    let (window, size, shape) = pooled("max_pool2d", x, kernel, options);
    let (y, places) = kernels::pool::max_pool2d(window, elements(&contiguous(&x.data)), size);
    let before = x.shape().to_vec();
    from_op("max_pool2d", Array::new(y, &shape), &[x], move |g, _| {
        vec![Some(Array::new(
            kernels::pool::max_pool2d_backward(window, elements(&g), &places, size),
            &before,
        ))]
    })
}

// %% notebooks/09_autoencoder.ipynb po-upsample
/// Each value becomes a square of `scale` rows and columns. `x`: (…, h, w).
///
/// # Panics
/// If `x` has fewer than two axes, or `scale` is 0.
#[track_caller]
pub fn upsample_nearest(x: &Tensor, scale: usize) -> Tensor {
    let [before @ .., h, w] = x.shape() else {
        panic!("upsample_nearest: images expected, shape {:?}", x.shape())
    };
    let (size, shape) = ((*h, *w), [before, &[h * scale, w * scale]].concat());
    let y = kernels::pool::upsample_nearest(scale, elements(&contiguous(&x.data)), size);
    let before = x.shape().to_vec();
    from_op("upsample_nearest", Array::new(y, &shape), &[x], move |g, _| {
        vec![Some(Array::new(kernels::pool::upsample_nearest_backward(scale, elements(&g), size), &before))]
    })
}

// %% notebooks/09_autoencoder.ipynb la-layers
use minai::nn::{Layer, Module, Parts, Pass};

fn describe_window(kernel: usize, Pool { stride, padding, .. }: Pool) -> String {
    format!("kernel_size={kernel}, stride={}, padding={padding}", stride.unwrap_or(kernel))
}

// %% notebooks/09_autoencoder.ipynb la-avg
/// [`avg_pool2d`] as a layer.
#[derive(Clone, Copy, Debug)]
pub struct AvgPool2d {
    /// Rows and columns of the window.
    pub kernel: usize,
    /// How it moves.
    pub options: Pool,
}

impl Module for AvgPool2d {
    fn parts(&self, _: &mut Parts) {}

    fn describe(&self) -> String {
        describe_window(self.kernel, self.options)
    }
}

impl Layer for AvgPool2d {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        avg_pool2d(x, self.kernel, self.options)
    }
}

// %% notebooks/09_autoencoder.ipynb la-max
/// [`max_pool2d`] as a layer.
#[derive(Clone, Copy, Debug)]
pub struct MaxPool2d {
    /// Rows and columns of the window.
    pub kernel: usize,
    /// How it moves.
    pub options: Pool,
}

impl Module for MaxPool2d {
    fn parts(&self, _: &mut Parts) {}

    fn describe(&self) -> String {
        describe_window(self.kernel, self.options)
    }
}

impl Layer for MaxPool2d {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        max_pool2d(x, self.kernel, self.options)
    }
}

// %% notebooks/09_autoencoder.ipynb la-upsample
/// [`upsample_nearest`] as a layer.
#[derive(Clone, Copy, Debug)]
pub struct Upsample {
    /// Rows and columns that each value becomes.
    pub scale: usize,
}

impl Module for Upsample {
    fn parts(&self, _: &mut Parts) {}

    fn describe(&self) -> String {
        format!("scale_factor={}", self.scale)
    }
}

impl Layer for Upsample {
    fn forward(&self, x: &Tensor, _: &mut Pass) -> Tensor {
        upsample_nearest(x, self.scale)
    }
}
