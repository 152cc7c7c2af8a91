// Owned by notebooks/15_augment.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 7770a04e46fad2d8
//! Answers that are means: over several views of a picture, and over several networks.

use crate::augment::shift;

// %% notebooks/15_augment.ipynb en-views
use minai::array::Array;
use minai::datasets::ImageBatch;
use minai::loader::{DataLoader, Dataset, Plan};
use minai::loss::softmax;
use minai::nn::{Layer, Pass};
use minai::tensor::{Tensor, cat, elements_mut};

/// A way to look at a picture: mirrored or not, and moved.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    /// Whether left becomes right.
    pub mirrored: bool,
    /// By how many pixels it is moved down and to the right.
    pub shift: (isize, isize),
    /// What is put where the picture was moved away.
    pub fill: f32,
}

// %% notebooks/15_augment.ipynb en-view-lists
impl View {
    /// The picture as it is, and its mirror image.
    pub fn mirror() -> Vec<View> {
        [false, true].map(|mirrored| View { mirrored, ..View::default() }).into()
    }

    /// The picture as it is and moved by a pixel up, down, left and right, each also mirrored: ten views.
    pub fn moved(fill: f32) -> Vec<View> {
        let shifts = [(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)];
        shifts
            .into_iter()
            .flat_map(|shift| [false, true].map(|mirrored| View { mirrored, shift, fill }))
            .collect()
    }
}

// %% notebooks/15_augment.ipynb en-view-of
/// Mirrors and moves one picture.
fn change(picture: &mut [f32], size: [usize; 3], view: &View) {
    if view.mirrored {
        picture.chunks_mut(size[2]).for_each(<[f32]>::reverse);
    }
    if view.shift != (0, 0) {
        shift(picture, size, view.shift, view.fill);
    }
}

impl View {
    /// How images (n, c, h, w) look in this view.
    pub fn of(&self, images: &Array) -> Array {
        let (mut x, shape) = (images.clone(), images.shape().to_vec());
        let size = [shape[1], shape[2], shape[3]];
        let pictures = elements_mut(&mut x).chunks_mut(size.iter().product());
        pictures.for_each(|picture| change(picture, size, self));
        x
    }
}

// %% notebooks/15_augment.ipynb en-mean
/// The mean of several arrays of one shape: what an ensemble says.
///
/// # Panics
/// If there is none, or shapes differ.
#[track_caller]
pub fn mean(answers: &[Array]) -> Array {
    let (first, others) = answers.split_first().expect("mean: at least one answer");
    let sum = others.iter().fold(Tensor::from(first.clone()), |sum, other| sum + Tensor::from(other.clone()));
    (sum / answers.len() as f32).data
}

// %% notebooks/15_augment.ipynb en-probabilities
/// The probabilities (n, classes) that a classifier gives to all examples of a loader, as means over the views; and the
/// true classes (n). Interrupted, it gives those that it has; (0, 0) and (0) if there are none.
pub fn probabilities<D: Dataset<Batch = ImageBatch>>(
    model: &dyn Layer,
    loader: &DataLoader<D>,
    views: &[View],
) -> (Array, Array<i64>) {
    let (mut rows, mut classes): (Vec<Tensor>, Vec<i64>) = (Vec::new(), Vec::new());
    for (x, y) in loader.batches(&Plan { base: 0, order: None }, 0) {
        let look = |view: &View| softmax(&model.forward(&view.of(&x).into(), &mut Pass::eval()), -1).data;
        rows.push(mean(&views.iter().map(look).collect::<Vec<_>>()).into());
        classes.extend(y.iter());
    }
    let n = classes.len();
    if rows.is_empty() {
        return (Array::new(Vec::new(), &[0, 0]), Array::new(classes, &[0]));
    }
    (cat(&rows.iter().collect::<Vec<_>>(), 0).data, Array::new(classes, &[n]))
}
