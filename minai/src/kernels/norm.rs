//! Layer, group and batch normalisation: (x - mean) / √(var + eps) · weight + bias, and the gradients.
//!
//! Means are computed first and squared deviations from them in a second pass, while the numbers are still in a cache:
//! exact however far the mean is from zero. Floats are summed in blocks, and the blocks in double precision.
//!
//! Images are (n, channels, plane), where a plane is height · width numbers. Group normalisation takes its statistics
//! over some consecutive channels of one image, batch normalisation over one channel of all images: to both, that is a set of
//! planes, one after another or with a constant distance.

use super::math::{by_vectors, exp, keep_first, load, store};
use super::memory::{Blank, filled};
use super::simd::{Level, Simd, Work, dispatch_at, level};
use super::threads::{Parts, for_each, for_each_chunk};

/// The sizes of a batch of images: n images of `channels` planes of `plane` numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Shape {
    pub n: usize,
    pub channels: usize,
    pub plane: usize,
}

impl Shape {
    fn len(&self) -> usize {
        self.n * self.channels * self.plane
    }
}

/// Over what mean and variance are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Each of so many groups of channels of each image (group normalisation): n · groups statistics.
    Groups(usize),
    /// Each channel of all images (batch normalisation): `channels` statistics.
    Batch,
}

/// What follows the normalisation in the same pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Nothing.
    Nothing,
    /// SiLU, z / (1 + e^-z).
    Silu,
}

/// Mean and 1 / √(variance + eps).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Stat {
    pub mean: f32,
    pub rstd: f32,
}

/// A normalisation of images.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Of the images.
    pub shape: Shape,
    /// Over what statistics are taken.
    pub over: Over,
    /// A factor for each channel.
    pub weight: Option<&'a [f32]>,
    /// A number added to each channel.
    pub bias: Option<&'a [f32]>,
    /// What follows.
    pub then: Then,
}

/// Planes that share a statistic.
#[derive(Clone, Copy)]
struct Set {
    /// Where the first begins.
    start: usize,
    count: usize,
    /// From the beginning of one to that of the next.
    distance: usize,
    plane: usize,
    /// The first one's channel, and the step to the next one's: 0 or 1.
    channel: usize,
    step: usize,
}

impl Set {
    /// Where each plane begins, and its channel.
    fn planes(self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).map(move |i| (self.start + i * self.distance, self.channel + i * self.step))
    }

    fn len(self) -> usize {
        self.count * self.plane
    }
}

impl Norm<'_> {
    fn sets(&self) -> usize {
        match self.over {
            Over::Groups(groups) => self.shape.n * groups,
            Over::Batch => self.shape.channels,
        }
    }

    fn set(&self, i: usize) -> Set {
        let Shape { n, channels, plane } = self.shape;
        match self.over {
            Over::Groups(groups) => {
                let count = channels / groups;
                Set {
                    start: i * count * plane,
                    count,
                    distance: plane,
                    plane,
                    channel: i % groups * count,
                    step: 1,
                }
            }
            Over::Batch => {
                Set { start: i * plane, count: n, distance: channels * plane, plane, channel: i, step: 0 }
            }
        }
    }

    fn weight(&self, channel: usize) -> f32 {
        self.weight.map_or(1.0, |weight| weight[channel])
    }

    fn bias(&self, channel: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[channel])
    }

    /// `f` of the channel of each column, where an image is a row.
    fn for_columns(&self, f: impl Fn(usize) -> f32) -> Vec<f32> {
        let Shape { channels, plane, .. } = self.shape;
        (0..channels).flat_map(|channel| std::iter::repeat_n(f(channel), plane)).collect()
    }

    #[track_caller]
    fn check(&self, x: usize, y: usize) {
        let Norm { shape, over, .. } = self;
        if let Over::Groups(groups) = *over {
            let fits = groups > 0 && shape.channels.is_multiple_of(groups);
            assert!(fits, "group_norm: {} channels in {groups} groups", shape.channels);
        }
        assert_eq!((x, y), (shape.len(), shape.len()), "{over:?}: lengths for {shape:?}");
        for list in [self.weight, self.bias].into_iter().flatten() {
            assert_eq!(list.len(), shape.channels, "{over:?}: weight or bias for {shape:?}");
        }
    }

    /// Whether planes are so small that vectors had better run across channels. (Only over the batch, where that is
    /// simple: an image is a row of a matrix, and each column belongs to one channel.)
    fn is_narrow(&self) -> bool {
        self.over == Over::Batch && self.shape.n > 1 && self.shape.plane < 16
    }

    /// What [`forward`](Norm::forward) computes, spelled out.
    pub fn forward_naive(&self, eps: f32, x: &[f32]) -> Vec<f32> {
        let mut y = vec![0.0; x.len()];
        for set in (0..self.sets()).map(|i| self.set(i)) {
            let numbers = || set.planes().flat_map(|(at, _)| &x[at..at + set.plane]).map(|&x| x as f64);
            let mean = numbers().sum::<f64>() / set.len() as f64;
            let var = numbers().map(|x| (x - mean) * (x - mean)).sum::<f64>() / set.len() as f64;
            for (at, channel) in set.planes() {
                for i in at..at + set.plane {
                    let hat = (x[i] as f64 - mean) / (var + eps as f64).sqrt();
                    let z = hat * self.weight(channel) as f64 + self.bias(channel) as f64;
                    y[i] = if self.then == Then::Silu { z / (1.0 + (-z).exp()) } else { z } as f32;
                }
            }
        }
        y
    }

    /// Normalises `x` by its own statistics. Returns the result, the statistics, one for each set, and the variances (the
    /// mean squared deviations; as running variance, PyTorch keeps n / (n - 1) times that).
    ///
    /// # Panics
    /// If lengths do not fit, or the channels cannot be divided into the groups.
    pub fn forward(&self, eps: f32, x: &[f32]) -> (Vec<f32>, Vec<Stat>, Vec<f32>) {
        let mut found = Default::default();
        // SAFETY: all numbers are written.
        let y = unsafe { filled(x.len(), |y| found = self.forward_at(level(), eps, x, y)) };
        (y, found.0, found.1)
    }

    fn forward_at(&self, level: Level, eps: f32, x: &[f32], y: &mut [Blank]) -> (Vec<Stat>, Vec<f32>) {
        self.check(x.len(), y.len());
        if self.is_narrow() {
            let sums = |columns: &Columns| columns.totals(level, x, None, self.shape);
            let mean: Vec<f64> = sums(&Columns::new(self, &[])).into_iter().map(|[sum, _]| sum).collect();
            let centred: Vec<Stat> = mean.iter().map(|&mean| Stat { mean: mean as f32, rstd: 1.0 }).collect();
            let var = sums(&Columns::new(self, &centred)).into_iter().map(|[_, squares]| squares);
            let (stats, vars): (Vec<Stat>, Vec<f32>) = var
                .zip(&centred)
                .map(|(var, stat)| {
                    (Stat { rstd: (1.0 / (var + eps as f64).sqrt()) as f32, ..*stat }, var as f32)
                })
                .unzip();
            self.apply_at(level, &stats, x, y);
            return (stats, vars);
        }
        let (mut stats, mut vars) = (vec![Stat::default(); self.sets()], vec![0.0; self.sets()]);
        let (out, all_stats, all_vars) = (Parts::new(y), Parts::new(&mut stats), Parts::new(&mut vars));
        for_each(self.sets(), |i| {
            let set = self.set(i);
            let total = |mean| dispatch_at(level, Total { x, set, mean }) / set.len() as f64;
            let mean = total(None) as f32;
            let var = total(Some(mean));
            let stat = Stat { mean, rstd: (1.0 / (var + eps as f64).sqrt()) as f32 };
            // SAFETY: each set is one task's.
            unsafe {
                all_stats.slice(i, 1)[0] = stat;
                all_vars.slice(i, 1)[0] = var as f32;
            }
            dispatch_at(level, Apply { norm: self, x, set, stat, y: out });
        });
        (stats, vars)
    }

    /// Normalises `x` by given statistics, as batch normalisation does outside of training.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn apply(&self, stats: &[Stat], x: &[f32]) -> Vec<f32> {
        // SAFETY: all numbers are written.
        unsafe { filled(x.len(), |y| self.apply_at(level(), stats, x, y)) }
    }

    fn apply_at(&self, level: Level, stats: &[Stat], x: &[f32], y: &mut [Blank]) {
        self.check(x.len(), y.len());
        assert_eq!(stats.len(), self.sets(), "{:?}: statistics for {:?}", self.over, self.shape);
        if self.is_narrow() {
            return Columns::new(self, stats).rows(level, x, y);
        }
        let out = Parts::new(y);
        for_each(self.sets(), |i| {
            dispatch_at(level, Apply { norm: self, x, set: self.set(i), stat: stats[i], y: out });
        });
    }

    /// Replaces the result's gradient `g` by that of `x`; returns those of weight and bias. `given` says whether the
    /// statistics were given ([`Norm::apply`]) rather than taken from `x`, on which they then depend.
    ///
    /// With x̂ = (x - mean) · rstd: dx = rstd (w g - mean(w g) - x̂ mean(w g x̂)), where given statistics leave out
    /// both means; dw = Σ g x̂, db = Σ g.
    ///
    /// # Panics
    /// If lengths do not fit.
    pub fn backward(&self, stats: &[Stat], given: Given, x: &[f32], g: &mut [f32]) -> (Vec<f32>, Vec<f32>) {
        self.backward_at(level(), stats, given, x, g)
    }

    fn backward_at(
        &self,
        level: Level,
        stats: &[Stat],
        given: Given,
        x: &[f32],
        g: &mut [f32],
    ) -> (Vec<f32>, Vec<f32>) {
        self.check(x.len(), g.len());
        assert_eq!(stats.len(), self.sets(), "{:?}: statistics for {:?}", self.over, self.shape);
        if self.is_narrow() {
            let columns = Columns::new(self, stats);
            let sums = columns.totals(level, x, Some(g), self.shape);
            let (n, weight) =
                ((self.shape.n * self.shape.plane) as f64, |channel| self.weight(channel) as f64);
            let factor = |channel| if given == Given::Yes { 0.0 } else { weight(channel) };
            let means =
                sums.iter().enumerate().map(|(c, sum)| sum.map(|mean| (mean * factor(c)) as f32)).collect();
            columns.rows_backward(level, x, g, means);
            return [1, 0].map(|i| sums.iter().map(|sum| (sum[i] * n) as f32).collect()).into();
        }
        let Shape { n, channels, plane } = self.shape;
        // Of each plane: Σ g, and Σ g x̂.
        let mut sums = vec![[0.0_f64; 2]; n * channels];
        let (all_sums, g) = (Parts::new(&mut sums), Parts::new(g));
        for_each(self.sets(), |i| {
            let (set, stat) = (self.set(i), stats[i]);
            let mut means = [0.0; 2];
            for (at, channel) in set.planes() {
                let weight = self.weight(channel);
                let curve = Curve { stat, weight, bias: self.bias(channel), then: self.then };
                // SAFETY: each set, and so each of its planes, is one task's.
                let (g, sums) =
                    unsafe { (&*g.slice(at, plane), &mut all_sums.slice(at / plane.max(1), 1)[0]) };
                *sums = dispatch_at(level, PlaneSums { x: &x[at..at + plane], g, curve });
                (0..2).for_each(|i| means[i] += sums[i] * weight as f64 / set.len() as f64);
            }
            if given == Given::Yes {
                means = [0.0; 2];
            }
            for (at, channel) in set.planes() {
                let curve =
                    Curve { stat, weight: self.weight(channel), bias: self.bias(channel), then: self.then };
                // SAFETY: as above.
                let g = unsafe { g.slice(at, plane) };
                dispatch_at(level, PlaneBackward { x: &x[at..at + plane], g, curve, means });
            }
        });
        let total = |channel: usize, i: usize| {
            (0..n).map(|image| sums[image * channels + channel][i]).sum::<f64>() as f32
        };
        ((0..channels).map(|c| total(c, 1)).collect(), (0..channels).map(|c| total(c, 0)).collect())
    }
}

/// Whether statistics were given, or are those of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Given {
    Yes,
    No,
}

/// What belongs to each column of a matrix of which a row is an image.
struct Columns<'a> {
    norm: &'a Norm<'a>,
    mean: Vec<f32>,
    rstd: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl<'a> Columns<'a> {
    /// Without statistics, mean 0 and deviation 1 are taken.
    fn new(norm: &'a Norm<'a>, stats: &[Stat]) -> Self {
        let stat = |channel: usize| stats.get(channel).copied().unwrap_or(Stat { mean: 0.0, rstd: 1.0 });
        Columns {
            norm,
            mean: norm.for_columns(|channel| stat(channel).mean),
            rstd: norm.for_columns(|channel| stat(channel).rstd),
            weight: norm.for_columns(|channel| norm.weight(channel)),
            bias: norm.for_columns(|channel| norm.bias(channel)),
        }
    }

    /// The means of each channel: of x̂ and of x̂², or, given the gradient of the result, of g and of g x̂.
    fn totals(&self, level: Level, x: &[f32], g: Option<&[f32]>, shape: Shape) -> Vec<[f64; 2]> {
        let (cols, plane) = (self.mean.len(), shape.plane);
        let mut columns = vec![[0.0; 2]; cols];
        for_each_chunk(&mut columns, STRIP, |i, totals| {
            dispatch_at(level, ColumnTotals { columns: self, x, g, first: i * STRIP, totals });
        });
        let n = (shape.n * plane) as f64;
        let mean = |of: &[[f64; 2]]| [0, 1].map(|i| of.iter().map(|sums| sums[i]).sum::<f64>() / n);
        columns.chunks(plane.max(1)).map(mean).collect()
    }

    /// Writes the result to `y`.
    fn rows(&self, level: Level, x: &[f32], y: &mut [Blank]) {
        for_each_chunk(y, self.a_task(), |i, y| {
            let x = &x[i * self.a_task()..][..y.len()];
            dispatch_at(level, ColumnRows { columns: self, x, y });
        });
    }

    /// Turns the gradient of the result into that of x, given the means of w g and of w g x̂.
    fn rows_backward(&self, level: Level, x: &[f32], g: &mut [f32], means: Vec<[f32; 2]>) {
        let means = [0, 1].map(|i| self.norm.for_columns(|channel| means[channel][i]));
        for_each_chunk(g, self.a_task(), |i, g| {
            let x = &x[i * self.a_task()..][..g.len()];
            dispatch_at(level, ColumnRowsBackward { columns: self, x, g, means: &means });
        });
    }

    /// The numbers of a task: whole rows.
    fn a_task(&self) -> usize {
        (8192 / self.mean.len().max(1)).max(1) * self.mean.len()
    }
}

/// So many columns are summed at a time.
const STRIP: usize = 64;

struct ColumnTotals<'a> {
    columns: &'a Columns<'a>,
    x: &'a [f32],
    g: Option<&'a [f32]>,
    first: usize,
    totals: &'a mut [[f64; 2]],
}

impl Work for ColumnTotals<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (cols, width) = (self.columns.mean.len(), self.totals.len());
        let Columns { norm, mean, rstd, weight, bias } = self.columns;
        for rows in (0..norm.shape.n).step_by(64).map(|row| row..norm.shape.n.min(row + 64)) {
            by_vectors!(S, width, |i, k| {
                // SAFETY: i + k ≤ width ≤ STRIP; the strip is inside of each of the lists and rows.
                unsafe {
                    let col = self.first + i;
                    let [mean, rstd, weight, bias] =
                        [mean, rstd, weight, bias].map(|list| load::<S>(list.as_ptr().add(col), k));
                    let mut sums = [S::splat(0.0); 2];
                    for row in rows.clone() {
                        let x = load::<S>(self.x.as_ptr().add(row * cols + col), k);
                        let (hat, g) = match self.g {
                            Some(g) => {
                                let g = load::<S>(g.as_ptr().add(row * cols + col), k);
                                hat_and_gradient::<S>(norm.then, [mean, rstd, weight, bias], x, g)
                            }
                            None => {
                                let hat = S::mul(S::sub(x, mean), rstd);
                                (hat, hat)
                            }
                        };
                        sums = [S::add(sums[0], g), S::fma(g, hat, sums[1])];
                    }
                    let mut lanes = [[0.0; 16]; 2];
                    (0..2).for_each(|j| S::store(lanes[j].as_mut_ptr(), sums[j]));
                    for (lane, total) in self.totals[i..i + k].iter_mut().enumerate() {
                        (0..2).for_each(|j| total[j] += lanes[j][lane] as f64);
                    }
                }
            });
        }
    }
}

struct ColumnRows<'a> {
    columns: &'a Columns<'a>,
    x: &'a [f32],
    y: &'a mut [Blank],
}

impl Work for ColumnRows<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Columns { norm, mean, rstd, weight, bias } = self.columns;
        let cols = mean.len();
        for (x, y) in self.x.chunks(cols).zip(self.y.chunks_mut(cols)) {
            let (x, y) = (x.as_ptr(), y.as_mut_ptr().cast::<f32>());
            by_vectors!(S, cols, |i, k| {
                // SAFETY: the rows and all lists have `cols` floats.
                unsafe {
                    let list = |list: &Vec<f32>| load::<S>(list.as_ptr().add(i), k);
                    let [mean, rstd, weight, bias] = [mean, rstd, weight, bias].map(list);
                    let hat = S::mul(S::sub(load::<S>(x.add(i), k), mean), rstd);
                    let z = S::fma(hat, weight, bias);
                    store::<S>(y.add(i), k, if norm.then == Then::Silu { silu::<S>(z) } else { z });
                }
            });
        }
    }
}

struct ColumnRowsBackward<'a> {
    columns: &'a Columns<'a>,
    x: &'a [f32],
    g: &'a mut [f32],
    means: &'a [Vec<f32>; 2],
}

impl Work for ColumnRowsBackward<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Columns { norm, mean, rstd, weight, bias } = self.columns;
        let (cols, [mean_g, mean_gx]) = (mean.len(), self.means);
        for (x, g) in self.x.chunks(cols).zip(self.g.chunks_mut(cols)) {
            let (x, g) = (x.as_ptr(), g.as_mut_ptr());
            by_vectors!(S, cols, |i, k| {
                // SAFETY: the rows and all lists have `cols` floats.
                unsafe {
                    let list = |list: &Vec<f32>| load::<S>(list.as_ptr().add(i), k);
                    let [mean, rstd, weight, bias] = [mean, rstd, weight, bias].map(list);
                    let (x, at) = (load::<S>(x.add(i), k), g.add(i));
                    let (hat, g) =
                        hat_and_gradient::<S>(norm.then, [mean, rstd, weight, bias], x, load::<S>(at, k));
                    let dx = S::fnma(hat, list(mean_gx), S::sub(S::mul(g, weight), list(mean_g)));
                    store::<S>(at, k, S::mul(dx, rstd));
                }
            });
        }
    }
}

/// x / (1 + e^-x).
#[inline(always)]
unsafe fn silu<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller promises the instruction set.
    unsafe { S::div(x, S::add(S::splat(1.0), exp::<S>(S::sub(S::splat(0.0), x)))) }
}

/// The sum over a set: of the numbers, or of their squared deviations from a mean.
struct Total<'a> {
    x: &'a [f32],
    set: Set,
    mean: Option<f32>,
}

impl Work for Total<'_> {
    type Out = f64;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> f64 {
        let mut total = 0.0;
        for (at, _) in self.set.planes() {
            for block in self.x[at..at + self.set.plane].chunks(BLOCK) {
                // SAFETY: the machine has the set.
                total += unsafe {
                    match self.mean {
                        None => sum::<S>(block),
                        Some(mean) => sum_of_squares::<S>(block, mean),
                    }
                } as f64;
            }
        }
        total
    }
}

/// So many floats are summed as floats, in 16 or more parts.
const BLOCK: usize = 2048;

#[inline(always)]
unsafe fn sum<S: Simd>(x: &[f32]) -> f32 {
    // SAFETY: the caller promises the instruction set; all loads are inside x.
    unsafe {
        let (p, mut sums) = (x.as_ptr(), [S::splat(0.0); 4]);
        let whole = x.len() / (4 * S::LANES) * (4 * S::LANES);
        for i in (0..whole).step_by(4 * S::LANES) {
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum = S::add(*sum, S::load(p.add(i + j * S::LANES)));
            }
        }
        by_vectors!(S, x.len() - whole, |i, k| {
            sums[0] = S::add(sums[0], load::<S>(p.add(whole + i), k));
        });
        S::reduce_add(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])))
    }
}

#[inline(always)]
unsafe fn sum_of_squares<S: Simd>(x: &[f32], mean: f32) -> f32 {
    // SAFETY: the caller promises the instruction set; all loads are inside x.
    unsafe {
        let (p, mean, mut sums) = (x.as_ptr(), S::splat(mean), [S::splat(0.0); 4]);
        let whole = x.len() / (4 * S::LANES) * (4 * S::LANES);
        for i in (0..whole).step_by(4 * S::LANES) {
            for (j, sum) in sums.iter_mut().enumerate() {
                let d = S::sub(S::load(p.add(i + j * S::LANES)), mean);
                *sum = S::fma(d, d, *sum);
            }
        }
        by_vectors!(S, x.len() - whole, |i, k| {
            let d = keep_first::<S>(S::sub(load::<S>(p.add(whole + i), k), mean), k);
            sums[0] = S::fma(d, d, sums[0]);
        });
        S::reduce_add(S::add(S::add(sums[0], sums[1]), S::add(sums[2], sums[3])))
    }
}

struct Apply<'a> {
    norm: &'a Norm<'a>,
    x: &'a [f32],
    set: Set,
    stat: Stat,
    y: Parts<'a, Blank>,
}

impl Work for Apply<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for (at, channel) in self.set.planes() {
            let n = self.set.plane;
            let x = self.x[at..at + n].as_ptr();
            // SAFETY: both have n floats; the planes of a set are one task's.
            unsafe {
                let y = self.y.slice(at, n).as_mut_ptr().cast::<f32>();
                let (mean, scale) =
                    (S::splat(self.stat.mean), S::splat(self.stat.rstd * self.norm.weight(channel)));
                let bias = S::splat(self.norm.bias(channel));
                match self.norm.then {
                    Then::Nothing => by_vectors!(S, n, |i, k| {
                        let z = S::fma(S::sub(load::<S>(x.add(i), k), mean), scale, bias);
                        store::<S>(y.add(i), k, z);
                    }),
                    Then::Silu => by_vectors!(S, n, |i, k| {
                        let z = S::fma(S::sub(load::<S>(x.add(i), k), mean), scale, bias);
                        store::<S>(y.add(i), k, silu::<S>(z));
                    }),
                }
            }
        }
    }
}

/// What is computed for each number of a plane.
#[derive(Clone, Copy)]
struct Curve {
    stat: Stat,
    weight: f32,
    bias: f32,
    then: Then,
}

impl Curve {
    #[inline(always)]
    unsafe fn hat_and_gradient<S: Simd>(self, x: S::V, g: S::V) -> (S::V, S::V) {
        // SAFETY: the caller promises the instruction set.
        unsafe {
            let list = [self.stat.mean, self.stat.rstd, self.weight, self.bias];
            hat_and_gradient::<S>(self.then, list.map(|number| S::splat(number)), x, g)
        }
    }
}

/// x̂, and the gradient at z = w x̂ + b, given the gradient `g` of what follows.
#[inline(always)]
unsafe fn hat_and_gradient<S: Simd>(
    then: Then,
    [mean, rstd, weight, bias]: [S::V; 4],
    x: S::V,
    g: S::V,
) -> (S::V, S::V) {
    // SAFETY: the caller promises the instruction set.
    unsafe {
        let hat = S::mul(S::sub(x, mean), rstd);
        if then == Then::Nothing {
            return (hat, g);
        }
        // σ(z) (1 + z (1 - σ(z)))
        let (one, z) = (S::splat(1.0), S::fma(hat, weight, bias));
        let sigmoid = S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), z))));
        let slope = S::mul(sigmoid, S::fma(z, S::sub(one, sigmoid), one));
        (hat, S::mul(g, slope))
    }
}

/// Σ g and Σ g x̂ of a plane.
struct PlaneSums<'a> {
    x: &'a [f32],
    g: &'a [f32],
    curve: Curve,
}

impl Work for PlaneSums<'_> {
    type Out = [f64; 2];

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> [f64; 2] {
        let mut totals = [0.0; 2];
        for (x, g) in self.x.chunks(BLOCK).zip(self.g.chunks(BLOCK)) {
            let (n, x, g) = (x.len(), x.as_ptr(), g.as_ptr());
            // SAFETY: both have n floats. Beyond them g is loaded as zeros, and so all terms are.
            unsafe {
                let mut sums = [S::splat(0.0); 2];
                by_vectors!(S, n, |i, k| {
                    let (hat, g) =
                        self.curve.hat_and_gradient::<S>(load::<S>(x.add(i), k), load::<S>(g.add(i), k));
                    sums = [S::add(sums[0], g), S::fma(g, hat, sums[1])];
                });
                (0..2).for_each(|i| totals[i] += S::reduce_add(sums[i]) as f64);
            }
        }
        totals
    }
}

/// `g` becomes the gradient of x, given the means of w g and of w g x̂.
struct PlaneBackward<'a> {
    x: &'a [f32],
    g: &'a mut [f32],
    curve: Curve,
    means: [f64; 2],
}

impl Work for PlaneBackward<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (x, g) = (self.x.as_ptr(), self.g.as_mut_ptr());
        // SAFETY: both have the same length.
        unsafe {
            let [mean_g, mean_gx] = self.means.map(|mean| S::splat(mean as f32));
            let (weight, rstd) = (S::splat(self.curve.weight), S::splat(self.curve.stat.rstd));
            by_vectors!(S, self.x.len(), |i, k| {
                let (hat, gi) =
                    self.curve.hat_and_gradient::<S>(load::<S>(x.add(i), k), load::<S>(g.add(i), k));
                let dx = S::fnma(hat, mean_gx, S::sub(S::mul(gi, weight), mean_g));
                store::<S>(g.add(i), k, S::mul(dx, rstd));
            });
        }
    }
}

/// Layer normalisation over the last axis: each row of `x`, of as many numbers as `weight` and `bias` have.
/// Returns the result, and the rows' statistics.
///
/// # Panics
/// If lengths do not fit.
pub fn layer_norm(eps: f32, weight: &[f32], bias: &[f32], x: &[f32]) -> (Vec<f32>, Vec<Stat>) {
    let mut stats = Vec::new();
    // SAFETY: all numbers are written.
    let y = unsafe { filled(x.len(), |y| stats = layer_norm_at(level(), eps, weight, bias, x, y)) };
    (y, stats)
}

fn layer_norm_at(
    level: Level,
    eps: f32,
    weight: &[f32],
    bias: &[f32],
    x: &[f32],
    y: &mut [Blank],
) -> Vec<Stat> {
    let cols = weight.len();
    assert_eq!((bias.len(), y.len()), (cols, x.len()), "layer_norm: lengths of bias and result");
    assert!(
        x.is_empty() || (cols > 0 && x.len().is_multiple_of(cols)),
        "layer_norm: {} in rows of {cols}",
        x.len()
    );
    let rows = x.len() / cols.max(1);
    let mut stats = vec![Stat::default(); rows];
    let step = (8192 / cols.max(1)).max(1);
    let (all_stats, y) = (Parts::new(&mut stats), Parts::new(y));
    for_each(rows.div_ceil(step), |task| {
        let (first, count) = (task * step, step.min(rows - task * step));
        let part = first * cols..(first + count) * cols;
        // SAFETY: the rows are one task's.
        let (stats, y) = unsafe { (all_stats.slice(first, count), y.slice(part.start, part.len())) };
        dispatch_at(level, LayerNorm { eps, weight, bias, x: &x[part], y, stats });
    });
    stats
}

struct LayerNorm<'a> {
    eps: f32,
    weight: &'a [f32],
    bias: &'a [f32],
    x: &'a [f32],
    y: &'a mut [Blank],
    stats: &'a mut [Stat],
}

impl Work for LayerNorm<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, weight, bias) = (self.weight.len(), self.weight.as_ptr(), self.bias.as_ptr());
        for ((x, y), stat) in self.x.chunks(n).zip(self.y.chunks_mut(n)).zip(self.stats) {
            // SAFETY: the rows, the weight and the bias have n floats.
            unsafe {
                let mean = (x.chunks(BLOCK).map(|x| sum::<S>(x) as f64).sum::<f64>() / n as f64) as f32;
                let squares = x.chunks(BLOCK).map(|x| sum_of_squares::<S>(x, mean) as f64).sum::<f64>();
                let rstd = (1.0 / (squares / n as f64 + self.eps as f64).sqrt()) as f32;
                *stat = Stat { mean, rstd };
                let (x, y) = (x.as_ptr(), y.as_mut_ptr().cast::<f32>());
                let (mean, rstd) = (S::splat(mean), S::splat(rstd));
                by_vectors!(S, n, |i, k| {
                    let hat = S::mul(S::sub(load::<S>(x.add(i), k), mean), rstd);
                    store::<S>(
                        y.add(i),
                        k,
                        S::fma(hat, load::<S>(weight.add(i), k), load::<S>(bias.add(i), k)),
                    );
                });
            }
        }
    }
}

/// Replaces the result's gradient `g` by that of `x`; returns those of weight and bias. The formulas are those of
/// [`Norm::backward`], with a weight for each number of a row.
///
/// # Panics
/// If lengths do not fit.
pub fn layer_norm_backward(weight: &[f32], stats: &[Stat], x: &[f32], g: &mut [f32]) -> (Vec<f32>, Vec<f32>) {
    layer_norm_backward_at(level(), weight, stats, x, g)
}

fn layer_norm_backward_at(
    level: Level,
    weight: &[f32],
    stats: &[Stat],
    x: &[f32],
    g: &mut [f32],
) -> (Vec<f32>, Vec<f32>) {
    let (cols, rows) = (weight.len(), stats.len());
    assert_eq!((x.len(), g.len()), (rows * cols, rows * cols), "layer_norm backward: {rows} rows of {cols}");
    // Each part of the rows has sums of its own for weight and bias.
    let parts = (rows * cols / 8192).clamp(1, 16).min(rows.max(1));
    let step = rows.div_ceil(parts);
    let mut sums = vec![0.0; parts * 2 * cols];
    let (all_sums, g) = (Parts::new(&mut sums), Parts::new(g));
    for_each(parts, |part| {
        let first = (part * step).min(rows);
        let count = step.min(rows - first);
        let range = first * cols..(first + count) * cols;
        // SAFETY: rows and sums are one task's.
        let (g, sums) =
            unsafe { (g.slice(range.start, range.len()), all_sums.slice(part * 2 * cols, 2 * cols)) };
        let (dw, db) = sums.split_at_mut(cols);
        dispatch_at(
            level,
            LayerNormBackward { weight, stats: &stats[first..first + count], x: &x[range], g, dw, db },
        );
    });
    let total = |at: usize| (0..parts).map(|part| sums[part * 2 * cols + at] as f64).sum::<f64>() as f32;
    ((0..cols).map(total).collect(), (cols..2 * cols).map(total).collect())
}

struct LayerNormBackward<'a> {
    weight: &'a [f32],
    stats: &'a [Stat],
    x: &'a [f32],
    g: &'a mut [f32],
    dw: &'a mut [f32],
    db: &'a mut [f32],
}

impl Work for LayerNormBackward<'_> {
    type Out = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (n, weight) = (self.weight.len(), self.weight.as_ptr());
        let (dw, db) = (self.dw.as_mut_ptr(), self.db.as_mut_ptr());
        for ((x, g), stat) in self.x.chunks(n.max(1)).zip(self.g.chunks_mut(n.max(1))).zip(self.stats) {
            // SAFETY: the rows, the weight and both sums have n floats. Beyond them g is loaded as zeros.
            unsafe {
                let (x, g) = (x.as_ptr(), g.as_mut_ptr());
                let (mean, rstd) = (S::splat(stat.mean), S::splat(stat.rstd));
                let (mut sum_g, mut sum_gx) = (S::splat(0.0), S::splat(0.0));
                by_vectors!(S, n, |i, k| {
                    let (gi, hat) =
                        (load::<S>(g.add(i), k), S::mul(S::sub(load::<S>(x.add(i), k), mean), rstd));
                    store::<S>(dw.add(i), k, S::fma(gi, hat, load::<S>(dw.add(i), k)));
                    store::<S>(db.add(i), k, S::add(gi, load::<S>(db.add(i), k)));
                    let gw = S::mul(gi, load::<S>(weight.add(i), k));
                    sum_g = S::add(sum_g, gw);
                    sum_gx = S::fma(gw, hat, sum_gx);
                });
                let mean_g = S::splat(S::reduce_add(sum_g) / n as f32);
                let mean_gx = S::splat(S::reduce_add(sum_gx) / n as f32);
                by_vectors!(S, n, |i, k| {
                    let hat = S::mul(S::sub(load::<S>(x.add(i), k), mean), rstd);
                    let gw = S::mul(load::<S>(g.add(i), k), load::<S>(weight.add(i), k));
                    store::<S>(g.add(i), k, S::mul(rstd, S::fnma(hat, mean_gx, S::sub(gw, mean_g))));
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::checks::{assert_close, numbers, same_bits, written_by};
    use crate::kernels::simd::levels;

    const SHAPES: [(usize, usize, usize, usize); 9] = [
        (1, 1, 1, 1),
        (3, 6, 99, 2),
        (2, 4, 5, 4),
        (5, 3, 1, 3),
        (40, 17, 1, 1),
        (7, 8, 4, 2),
        (2, 32, 64, 8),
        (1, 2, 5000, 1),
        (0, 4, 9, 2),
    ];

    /// dx, dw and db spelled out in double precision.
    fn backward_naive(norm: &Norm, eps: f32, x: &[f32], g: &[f32], given: Option<&[Stat]>) -> [Vec<f32>; 3] {
        let channels = norm.shape.channels;
        let (mut dx, mut dw, mut db) = (vec![0.0; x.len()], vec![0.0; channels], vec![0.0; channels]);
        for i in 0..norm.sets() {
            let set = norm.set(i);
            let at: Vec<(usize, usize)> =
                set.planes().flat_map(|(at, c)| (at..at + set.plane).map(move |i| (i, c))).collect();
            let n = at.len() as f64;
            let mut mean = at.iter().map(|&(i, _)| x[i] as f64).sum::<f64>() / n;
            let var = at.iter().map(|&(i, _)| (x[i] as f64 - mean).powi(2)).sum::<f64>() / n;
            let mut rstd = 1.0 / (var + eps as f64).sqrt();
            if let Some(stats) = given {
                (mean, rstd) = (stats[i].mean as f64, stats[i].rstd as f64);
            }
            let each: Vec<(usize, usize, f64, f64)> = at
                .iter()
                .map(|&(i, c)| {
                    let hat = (x[i] as f64 - mean) * rstd;
                    let z = hat * norm.weight(c) as f64 + norm.bias(c) as f64;
                    let sigmoid = 1.0 / (1.0 + (-z).exp());
                    let slope = sigmoid * (1.0 + z * (1.0 - sigmoid));
                    (i, c, hat, g[i] as f64 * if norm.then == Then::Silu { slope } else { 1.0 })
                })
                .collect();
            let factor = if given.is_some() { 0.0 } else { 1.0 / n };
            let mean_g = each.iter().map(|&(_, c, _, g)| g * norm.weight(c) as f64).sum::<f64>() * factor;
            let mean_gx =
                each.iter().map(|&(_, c, hat, g)| g * hat * norm.weight(c) as f64).sum::<f64>() * factor;
            for (i, c, hat, g) in each {
                dx[i] = (rstd * (g * norm.weight(c) as f64 - mean_g - hat * mean_gx)) as f32;
                dw[c] += (g * hat) as f32;
                db[c] += g as f32;
            }
        }
        [dx, dw, db]
    }

    #[test]
    fn images_and_gradients_are_the_naive_ones() {
        for (n, channels, plane, groups) in SHAPES {
            let shape = Shape { n, channels, plane };
            let x: Vec<f32> = numbers(shape.len(), 3.0).iter().map(|x| x + 1.0).collect();
            // Not the same numbers as x: the gradient of a multiple of x̂ is 0.
            let g = numbers(x.len() + 1, 1.0).split_off(1);
            let (weight, bias) = (numbers(channels, 2.0), numbers(channels + 1, 1.0));
            let affine = (Some(&weight[..]), Some(&bias[1..]));
            for over in [Over::Groups(groups), Over::Batch] {
                for (then, (weight, bias)) in
                    [(Then::Nothing, affine), (Then::Silu, affine), (Then::Nothing, (None, None))]
                {
                    let norm = Norm { shape, over, weight, bias, then };
                    let expected = norm.forward_naive(1e-5, &x);
                    let expected_gradients = backward_naive(&norm, 1e-5, &x, &g, None);
                    for level in levels() {
                        let name = format!("{level:?} {norm:?}");
                        let mut stats = Vec::new();
                        let y = written_by(x.len(), |y| stats = norm.forward_at(level, 1e-5, &x, y).0);
                        assert_close(&name, &y, &expected, 3e-6);
                        let again = written_by(x.len(), |y| norm.apply_at(level, &stats, &x, y));
                        assert_close(&name, &again, &y, 1e-6);
                        let mut dx = g.clone();
                        let (dw, db) = norm.backward_at(level, &stats, Given::No, &x, &mut dx);
                        for (found, expected) in [dx, dw, db].iter().zip(&expected_gradients) {
                            assert_close(&name, found, expected, 1e-5);
                        }
                        let mut dx = g.clone();
                        let (dw, db) = norm.backward_at(level, &stats, Given::Yes, &x, &mut dx);
                        let expected = backward_naive(&norm, 1e-5, &x, &g, Some(&stats));
                        for (found, expected) in [dx, dw, db].iter().zip(&expected) {
                            assert_close(&name, found, expected, 1e-5);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_and_gradients_are_the_naive_ones() {
        // A row is an image of one channel, but for the weight: that is checked through x · weight and g · weight.
        for (rows, cols) in [(1, 1), (3, 16), (5, 31), (300, 70), (2, 3000), (0, 3)] {
            let (x, g) = (numbers(rows * cols, 3.0), numbers(rows * cols + 1, 1.0).split_off(1));
            let (weight, bias) = (numbers(cols, 2.0), numbers(cols + 1, 1.0));
            let times =
                |x: &[f32]| x.iter().enumerate().map(|(i, x)| x * weight[i % cols]).collect::<Vec<_>>();
            let shape = Shape { n: rows, channels: 1, plane: cols };
            let norm = Norm { shape, over: Over::Groups(1), weight: None, bias: None, then: Then::Nothing };
            let hat = norm.forward_naive(1e-5, &x);
            let expected: Vec<f32> =
                times(&hat).iter().enumerate().map(|(i, y)| y + bias[1 + i % cols]).collect();
            let [expected_dx, ..] = backward_naive(&norm, 1e-5, &x, &times(&g), None);
            let column = |f: &dyn Fn(usize) -> f32, col| {
                (0..rows).map(|row| f(row * cols + col) as f64).sum::<f64>() as f32
            };
            let expected_dw: Vec<f32> = (0..cols).map(|col| column(&|i| g[i] * hat[i], col)).collect();
            let expected_db: Vec<f32> = (0..cols).map(|col| column(&|i| g[i], col)).collect();
            for level in levels() {
                let (mut stats, mut dx) = (Vec::new(), g.clone());
                let y = written_by(x.len(), |y| {
                    stats = layer_norm_at(level, 1e-5, &weight, &bias[1..], &x, y);
                });
                let (dw, db) = layer_norm_backward_at(level, &weight, &stats, &x, &mut dx);
                let name = format!("{level:?} {rows}x{cols}");
                for (found, expected) in
                    [(y, &expected), (dx, &expected_dx), (dw, &expected_dw), (db, &expected_db)]
                {
                    assert_close(&name, &found, expected, 1e-5);
                }
            }
        }
    }

    #[test]
    fn a_mean_far_from_zero_costs_no_digits() {
        let x: Vec<f32> = numbers(5000, 1.0).iter().map(|x| x + 10_000.0).collect();
        let shape = Shape { n: 1, channels: 1, plane: 5000 };
        let norm = Norm { shape, over: Over::Groups(1), weight: None, bias: None, then: Then::Nothing };
        let (y, ..) = norm.forward(1e-5, &x);
        // The mean itself is rounded by up to 5e-4 there.
        assert_close("far", &y, &norm.forward_naive(1e-5, &x), 1e-3);
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, weight) = (numbers(6 * 8 * 100, 2.0), numbers(8, 1.0));
        for over in [Over::Groups(4), Over::Batch] {
            let shape = Shape { n: 6, channels: 8, plane: 100 };
            let norm = Norm { shape, over, weight: Some(&weight), bias: Some(&weight), then: Then::Silu };
            same_bits(|| {
                let ((y, stats, vars), mut g) = (norm.forward(1e-5, &x), x.clone());
                let (dw, db) = norm.backward(&stats, Given::No, &x, &mut g);
                [y, g, dw, db, vars].concat()
            });
        }
        let weight = numbers(40, 1.0);
        same_bits(|| {
            let ((y, stats), mut g) = (layer_norm(1e-5, &weight, &weight, &x), x.clone());
            let (dw, db) = layer_norm_backward(&weight, &stats, &x, &mut g);
            [y, g, dw, db].concat()
        });
    }
}
