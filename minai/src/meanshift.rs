// Owned by notebooks/03_meanshift.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 31927908a3b37dc1
//! Mean shift: clusters found by moving every point to the weighted mean of its surroundings.

// %% notebooks/03_meanshift.ipynb da-normal
use minai::array::Array;
use minai::rng::WichmannHill;

/// A normal number, of mean 0 and standard deviation 1, from two uniform ones (Box and Muller, 1958).
pub fn normal(rng: &mut WichmannHill) -> f64 {
    // A uniform number can be 0, whose logarithm is infinite; 1 - u lies in (0, 1].
    let radius = (-2.0 * (1.0 - rng.uniform()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.uniform()).cos()
}

/// `count` points around each of some centres, each coordinate normal with the given standard deviation.
///
/// Centres of shape `(k, d)` give points of shape `(k * count, d)`: first those of the first centre, and so on.
///
/// # Panics
/// If `centres` is not of rank 2.
#[track_caller]
pub fn scatter_around(centres: &Array, count: usize, deviation: f32, rng: &mut WichmannHill) -> Array {
    assert!(centres.ndim() == 2, "scatter_around: rank 2 wanted, not shape {:?}", centres.shape());
    let (k, d) = (centres.shape()[0], centres.shape()[1]);
    let places = (0..k * count).flat_map(|point| (0..d).map(move |axis| [point / count, axis]));
    let points = places.map(|place| centres[place] + deviation * normal(rng) as f32).collect();
    Array::new(points, &[k * count, d])
}

// %% notebooks/03_meanshift.ipynb id-kernels
/// The Gaussian kernel: the density at distance `d` of a normal distribution whose deviation is the bandwidth.
pub fn gaussian(d: f32, bandwidth: f32) -> f32 {
    (-0.5 * (d / bandwidth).powi(2)).exp() / (bandwidth * std::f32::consts::TAU.sqrt())
}

/// The triangular kernel: falls in a straight line, and is 0 from the bandwidth on.
pub fn triangular(d: f32, bandwidth: f32) -> f32 {
    (bandwidth - d).max(0.0) / (bandwidth * bandwidth)
}

// %% notebooks/03_meanshift.ipynb on-step
use ndarray::{ArrayD, ArrayViewD, Axis};

/// One step of mean shift for one point `x`, shape `(d,)`: the weighted mean of all points, shape `(n, d)`.
fn shifted(x: ArrayViewD<f32>, points: &Array, kernel: &impl Fn(f32) -> f32) -> ArrayD<f32> {
    let offsets = &**points - &x; // (n, d) - (d,)
    let distances = offsets.mapv_into(|o| o * o).sum_axis(Axis(1)).mapv_into(f32::sqrt); // (n,)
    let weights = distances.mapv_into(kernel); // (n,)
    let total = weights.sum();
    (&**points * &weights.insert_axis(Axis(1))).sum_axis(Axis(0)) / total // (n, d) * (n, 1), summed: (d,)
}

/// One step of mean shift, point by point: each moves to the mean of all, weighted by `kernel(distance)`.
///
/// Points of shape `(n, d)` give points of the same shape, all computed from the old ones.
///
/// # Panics
/// If `points` is not of rank 2.
#[track_caller]
pub fn step_by_loop(points: &Array, kernel: impl Fn(f32) -> f32) -> Array {
    assert!(points.ndim() == 2, "step_by_loop: rank 2 wanted, not shape {:?}", points.shape());
    let rows = points.axis_iter(Axis(0)).flat_map(|x| shifted(x, points, &kernel));
    Array::new(rows.collect(), points.shape())
}

// %% notebooks/03_meanshift.ipynb ba-step
use ndarray::Ix2;

/// One step of mean shift for a batch of points, `(b, d)`: the weighted means of all points, `(n, d)`.
fn batch_shifted(batch: ArrayViewD<f32>, points: &Array, kernel: &impl Fn(f32) -> f32) -> ArrayD<f32> {
    let offsets = &batch.insert_axis(Axis(1)) - &points.view().insert_axis(Axis(0)); // (b, 1, d) - (1, n, d)
    let distances = offsets.mapv_into(|o| o * o).sum_axis(Axis(2)).mapv_into(f32::sqrt); // (b, n)
    let weights = distances.mapv_into(kernel).into_dimensionality::<Ix2>().expect("rank 2"); // (b, n)
    let points = points.view().into_dimensionality::<Ix2>().expect("rank 2");
    (weights.dot(&points) / weights.sum_axis(Axis(1)).insert_axis(Axis(1))).into_dyn() // (b, d) / (b, 1)
}

/// One step of mean shift in batches of so many points: what [`step_by_loop`] does, with fewer and larger operations.
///
/// # Panics
/// If `points` is not of rank 2, or a batch has no points.
#[track_caller]
pub fn step_by_batch(points: &Array, batch: usize, kernel: impl Fn(f32) -> f32) -> Array {
    assert!(points.ndim() == 2, "step_by_batch: rank 2 wanted, not shape {:?}", points.shape());
    assert!(batch > 0, "step_by_batch: at least one point in a batch, please");
    let batches = points.axis_chunks_iter(Axis(0), batch);
    let rows = batches.flat_map(|some| batch_shifted(some, points, &kernel));
    Array::new(rows.collect(), points.shape())
}

// %% notebooks/03_meanshift.ipynb ms-all
use minai::io::interrupt;

/// The points of each step of mean shift, from the first on, until none moves by `tolerance` along any axis.
///
/// At most `steps` steps are made, fewer when somebody interrupts the program. Shapes are those of `points`, `(n, d)`.
///
/// # Panics
/// If `points` is not of rank 2.
#[track_caller]
pub fn mean_shift(points: &Array, kernel: impl Fn(f32) -> f32, tolerance: f32, steps: usize) -> Vec<Array> {
    let mut path = vec![points.clone()];
    for _ in 0..steps {
        let before = &path[path.len() - 1];
        let after = step_by_batch(before, 8, &kernel);
        let still = before.iter().zip(after.iter()).all(|(x, y)| (x - y).abs() < tolerance);
        path.push(after);
        if still || interrupt::requested() {
            break;
        }
    }
    path
}

// %% notebooks/03_meanshift.ipynb ms-groups
/// Groups of points that lie within `radius` of the group's first point, with the place of each group.
///
/// Points of shape `(n, d)` give the means of the groups, `(groups, d)`, and for each point the number of its group.
///
/// # Panics
/// If `points` is not of rank 2.
#[track_caller]
pub fn group(points: &Array, radius: f32) -> (Array, Vec<usize>) {
    assert!(points.ndim() == 2, "group: rank 2 wanted, not shape {:?}", points.shape());
    let (mut groups, mut means): (Vec<Option<usize>>, Vec<f32>) = (vec![None; points.shape()[0]], Vec::new());
    let mut count = 0;
    while let Some(first) = groups.iter().position(Option::is_none) {
        let offsets = &**points - &points.index_axis(Axis(0), first);
        let squares = offsets.mapv_into(|o| o * o).sum_axis(Axis(1));
        // The first point itself always belongs, even where its numbers are NaN and near nothing.
        let near = |i: usize| i == first || squares[i] < radius * radius;
        let members: Vec<usize> = (0..groups.len()).filter(|&i| groups[i].is_none() && near(i)).collect();
        let mean = points.select(Axis(0), &members).mean_axis(Axis(0)).expect("at least one point");
        means.extend(mean);
        members.iter().for_each(|&i| groups[i] = Some(count));
        count += 1;
    }
    (Array::new(means, &[count, points.shape()[1]]), groups.into_iter().flatten().collect())
}
