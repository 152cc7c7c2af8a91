// Owned by notebooks/19_is_it_any_good.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 871c3fc6a257af4d
//! A small classifier of images; the 128 features of each are what heaps of images are compared by.

// %% notebooks/19_is_it_any_good.ipynb jd-judge
use minai::conv::{Conv2d, ConvOptions};
use minai::nn::{Init, Layer, Linear, Module, Parts, Pass};
use minai::tensor::Tensor;

/// A classifier of images of one channel, 28 by 28 pixels from -1 to 1, in ten classes. Its last layer reads 128
/// features, see [`features`](Self::features).
#[derive(Debug)]
pub struct Judge {
    convs: Vec<Conv2d>,
    last: Linear,
}

impl Judge {
    /// A judge that has learned nothing yet.
    pub fn new(init: &mut dyn Init) -> Self {
        let halve = ConvOptions { stride: 2, padding: 1, ..ConvOptions::default() };
        let sizes = [(1, 16), (16, 32), (32, 64), (64, 128)]; // 28 → 14 → 7 → 4 → 2 pixels
        let convs = sizes.map(|(c_in, c_out)| Conv2d::new(init, c_in, c_out, 3, halve)).into();
        Judge { convs, last: Linear::new(init, 128, 10) }
    }
}

// %% notebooks/19_is_it_any_good.ipynb jd-parts
impl Module for Judge {
    fn parts(&self, parts: &mut Parts) {
        self.convs.iter().enumerate().for_each(|(i, conv)| parts.module(&format!("convs.{i}"), conv));
        parts.module("last", &self.last);
    }
}

// %% notebooks/19_is_it_any_good.ipynb jd-features
impl Judge {
    /// What the judge sees in images (n, 1, 28, 28): (n, 128), none below 0.
    ///
    /// # Panics
    /// If the images have another shape.
    #[track_caller]
    pub fn features(&self, images: &Tensor, pass: &mut Pass) -> Tensor {
        let shape = images.shape();
        assert!(matches!(shape, [_, 1, 28, 28]), "Judge: images of shape {shape:?}, (n, 1, 28, 28) expected");
        let mut x = images.clone();
        for (i, conv) in self.convs.iter().enumerate() {
            x = pass.call(&format!("convs.{i}"), conv, &x).relu();
        }
        x.mean([2, 3]) // from (n, 128, 2, 2)
    }
}

// %% notebooks/19_is_it_any_good.ipynb jd-scores
impl Judge {
    /// How much speaks for each of the ten classes: images (n, 1, 28, 28) to scores (n, 10).
    ///
    /// # Panics
    /// If the images have another shape.
    #[track_caller]
    pub fn scores(&self, images: &Tensor, pass: &mut Pass) -> Tensor {
        let features = self.features(images, pass);
        pass.call("last", &self.last, &features)
    }
}

/// As a layer it gives the scores, so that `Classifier` trains it.
impl Layer for Judge {
    fn forward(&self, x: &Tensor, pass: &mut Pass) -> Tensor {
        self.scores(x, pass)
    }
}
