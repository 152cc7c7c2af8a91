// Owned by notebooks/15_augment.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 3a357c73dce605e6
//! Pictures that are changed at random before a network learns from them.

// %% notebooks/15_augment.ipynb au-transform
use minai::array::Array;
use minai::datasets::{ImageBatch, Images};
use minai::generator::Generator;
use minai::loader::Dataset;
use minai::tensor::elements_mut;

/// A random change of one picture.
pub trait Transform: Send + Sync + 'static {
    /// Changes the pixels of a picture of shape (channels, height, width), row after row.
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Generator);
}

/// A whole number from 0 to `n` - 1.
fn below(rng: &mut Generator, n: usize) -> usize {
    rng.randint(0, n as i64, &[1])[[0]] as usize
}

// %% notebooks/15_augment.ipynb au-flip
/// Mirrors every other picture, on average: left becomes right.
#[derive(Clone, Copy, Debug)]
pub struct RandomFlip;

impl Transform for RandomFlip {
    fn apply(&self, pixels: &mut [f32], [_, _, w]: [usize; 3], rng: &mut Generator) {
        if below(rng, 2) == 1 {
            pixels.chunks_mut(w).for_each(<[f32]>::reverse);
        }
    }
}

// %% notebooks/15_augment.ipynb au-crop
/// A picture moved `down` and to the `right`, by negative numbers up and to the left. What moves out is lost, what is
/// free is filled.
pub fn shift(pixels: &mut [f32], [_, h, w]: [usize; 3], (down, right): (isize, isize), fill: f32) {
    for plane in pixels.chunks_mut(h * w) {
        let before = plane.to_vec();
        for (i, row) in plane.chunks_mut(w).enumerate() {
            for (j, pixel) in row.iter_mut().enumerate() {
                let from = (i.checked_add_signed(-down), j.checked_add_signed(-right));
                *pixel = match from {
                    (Some(y), Some(x)) if y < h && x < w => before[y * w + x],
                    _ => fill,
                };
            }
        }
    }
}

// %% notebooks/15_augment.ipynb au-random-crop
/// Adds a border of `padding` pixels and cuts a picture of the old size out of it, anywhere: a shift by that many
/// pixels at most.
#[derive(Clone, Copy, Debug)]
pub struct RandomCrop {
    /// How wide the border is.
    pub padding: usize,
    /// What it is filled with: the background's colour.
    pub fill: f32,
}

impl Transform for RandomCrop {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Generator) {
        let [down, right] = [0; 2].map(|_| below(rng, 2 * self.padding + 1) as isize - self.padding as isize);
        shift(pixels, shape, (down, right), self.fill);
    }
}

// %% notebooks/15_augment.ipynb au-dataset
/// Images that are changed at random each time they are dealt out.
pub struct Augmented {
    /// As they are.
    pub images: Images,
    /// What is done with each, in order.
    pub transforms: Vec<Box<dyn Transform>>,
}

impl Augmented {
    /// No change yet.
    pub fn new(images: Images) -> Self {
        Augmented { images, transforms: Vec::new() }
    }

    /// One change more: `Augmented::new(images).then(RandomCrop { padding: 1, fill: 0.0 }).then(RandomFlip)`.
    pub fn then(mut self, transform: impl Transform) -> Self {
        self.transforms.push(Box::new(transform));
        self
    }
}

// %% notebooks/15_augment.ipynb au-batch
impl Dataset for Augmented {
    type Batch = ImageBatch;

    fn len(&self) -> usize {
        self.images.len()
    }

    fn batch(&self, indices: &[usize], rng: &mut Generator) -> ImageBatch {
        let (mut x, y): (Array, _) = self.images.batch(indices, rng);
        let shape = <[usize; 3]>::try_from(&x.shape()[1..]).expect("images have three axes");
        for picture in elements_mut(&mut x).chunks_mut(shape.iter().product()) {
            self.transforms.iter().for_each(|transform| transform.apply(picture, shape, rng));
        }
        (x, y)
    }
}

// %% notebooks/15_augment.ipynb au-erase
/// Some rectangles at random places: their rows and columns, each a share of the picture's.
fn rectangles(
    most: usize,
    share: f32,
    [_, h, w]: [usize; 3],
    rng: &mut Generator,
) -> Vec<[std::ops::Range<usize>; 2]> {
    let [rows, columns] = [h, w].map(|size| ((size as f32 * share) as usize).clamp(1, size));
    let mut place = |size: usize, length: usize| {
        let start = below(rng, size - length + 1);
        start..start + length
    };
    let count = place(most + 1, 1).start;
    (0..count).map(|_| [place(h, rows), place(w, columns)]).collect()
}

// %% notebooks/15_augment.ipynb au-erase-noise
/// Puts normal noise over some rectangles.
#[derive(Clone, Copy, Debug)]
pub struct RandomErase {
    /// From none up to so many rectangles.
    pub most: usize,
    /// The height and width of each, as shares of the picture's.
    pub share: f32,
    /// The least and the greatest pixel: the noise stays between them.
    pub range: (f32, f32),
}

// %% notebooks/15_augment.ipynb au-erase-apply
impl Transform for RandomErase {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Generator) {
        let [_, h, w] = shape;
        for [rows, columns] in rectangles(self.most, self.share, shape, rng) {
            for plane in pixels.chunks_mut(h * w) {
                let noise = rng.randn(&[rows.len(), columns.len()]);
                for ((i, j), noise) in
                    rows.clone().flat_map(|i| columns.clone().map(move |j| (i, j))).zip(noise.iter())
                {
                    plane[i * w + j] = noise.clamp(self.range.0, self.range.1);
                }
            }
        }
    }
}

// %% notebooks/15_augment.ipynb au-copy
/// Copies some rectangles of the picture to other places in it.
#[derive(Clone, Copy, Debug)]
pub struct RandomCopy {
    /// From none up to so many rectangles.
    pub most: usize,
    /// The height and width of each, as shares of the picture's.
    pub share: f32,
}

// %% notebooks/15_augment.ipynb au-copy-apply
impl Transform for RandomCopy {
    fn apply(&self, pixels: &mut [f32], shape: [usize; 3], rng: &mut Generator) {
        let [_, h, w] = shape;
        for [rows, columns] in rectangles(self.most, self.share, shape, rng) {
            let (top, left) = (below(rng, h - rows.len() + 1), below(rng, w - columns.len() + 1));
            for plane in pixels.chunks_mut(h * w) {
                let before = plane.to_vec(); // the two rectangles may overlap
                for (k, i) in rows.clone().enumerate() {
                    let from = &before[(top + k) * w + left..][..columns.len()];
                    plane[i * w..][columns.clone()].copy_from_slice(from);
                }
            }
        }
    }
}
