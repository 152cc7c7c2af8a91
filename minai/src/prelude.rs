//! The names that every training program needs: `use minai::prelude::*;`. Written by hand.
//!
//! What you define yourself under one of these names takes precedence. Each name lives in the module that its line says;
//! look there for its relatives.
//!
//! ```
//! use minai::prelude::*;
//!
//! let mut rng = Generator::manual_seed(42);
//! let model = Sequential::new().add(Linear::new(&mut rng, 2, 8)).add(Relu).add(Linear::new(&mut rng, 8, 2));
//! let data = Labelled::new(array([[0., 0.], [0., 1.], [1., 0.], [1., 1.]]), array([0, 1, 1, 0]));
//! let loaders = DataLoaders::new(data.clone(), data, LoaderOptions::default());
//! let optimizer = Optimizer::new(&model, AdamW { lr: 0.1, ..AdamW::default() });
//! let mut learner = Learner::new("exclusive or", Classifier { model }, optimizer, rng);
//! learner.fit(100, &loaders, ())?;
//! assert_eq!(evaluate(&learner.task.model, &loaders.valid).accuracy, 1.0);
//! # Ok::<(), FitError>(())
//! ```

pub use crate::array::{Array, array};
pub use crate::generator::Generator;
pub use crate::ops::{Interpolation, TensorOps, einsum};
pub use crate::tensor::{Tensor, cat, stack, tensor, where_};

// Networks.
pub use crate::activation::{Approximate, Gelu, GeneralRelu, LeakyRelu, Sigmoid, Silu, Tanh};
pub use crate::attention::MultiheadAttention;
pub use crate::conv::{Conv2d, ConvOptions};
pub use crate::dropout::{Dropout, Dropout2d};
pub use crate::embedding::Embedding;
pub use crate::kernels::attention::Mask;
pub use crate::loss::{binary_cross_entropy_with_logits, cross_entropy, mse_loss, softmax};
pub use crate::nn::{Flatten, Init, Layer, Linear, Mode, Module, Parameter, Parts, Pass, Relu, Sequential};
pub use crate::norm::{BatchNorm2d, GroupNorm, LayerNorm};
pub use crate::pool::{AvgPool2d, MaxPool2d, Upsample};
pub use crate::state::{Metadata, load, load_state_dict, save, state_dict};
pub use crate::summary::summary;

// Data.
pub use crate::datasets::{DataLoaders, Images, fashion_mnist, mnist};
pub use crate::loader::{DataLoader, Dataset, Labelled, Last, LoaderOptions, Order};

// Training.
pub use crate::callbacks::{Metrics, RateFinder, Recorder, SingleBatch};
pub use crate::checkpoint::Checkpoint;
pub use crate::ema::Ema;
pub use crate::gradients::{Accumulate, ClipNorm, clip_grad_norm};
pub use crate::hooks::ActivationStats;
pub use crate::learner::{Callback, Classifier, Event, FitError, Flow, Learner, Step, Task};
pub use crate::optim::{Adam, AdamW, RmsProp, Sgd};
pub use crate::optimizer::{Optimizer, Rule};
#[cfg(feature = "progress")]
pub use crate::progress::Progress;
pub use crate::schedule::{Cosine, OneCycle, Schedule};
pub use crate::training::{accuracy, evaluate};

// Looking.
#[cfg(feature = "nb")]
pub use crate::nb::{display, table, timeit};
#[cfg(feature = "plot")]
pub use crate::plot::{Axes, Figure, Look, axes, bar, hist, imshow, line, plot, scatter, show_images};
