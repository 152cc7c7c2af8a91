// Owned by notebooks/19_is_it_any_good.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 7b08f98e38f40e0b
//! How good a heap of images is, from their features: Fréchet distance, kernel distance, precision and recall.

// %% notebooks/19_is_it_any_good.ipynb qu-rows
use minai::tensor::{Tensor, contiguous, elements};

/// A matrix as rows.
type Rows = Vec<Vec<f64>>;

/// Two sets of features, (n, d) and (m, d), as rows.
#[track_caller]
fn both(op: &str, a: &Tensor, b: &Tensor, least: usize) -> [Rows; 2] {
    let (s, t) = (a.shape(), b.shape());
    let fits = matches!((s, t), (&[n, d], &[m, e]) if n.min(m) >= least && d == e && d > 0);
    assert!(fits, "{op}: shapes {s:?} and {t:?}; (n, d) and (m, d) expected, n and m at least {least}");
    let row = |row: &[f32]| row.iter().map(|&x| f64::from(x)).collect();
    [a, b].map(|x| elements(&contiguous(&x.data)).chunks(s[1]).map(row).collect())
}

// %% notebooks/19_is_it_any_good.ipynb qu-moments
/// The mean (d) of rows (n, d), and their covariance matrix (d, d), divided by n - 1.
fn moments(x: &[Vec<f64>]) -> (Vec<f64>, Rows) {
    let (n, d) = (x.len() as f64, x[0].len());
    let mean: Vec<f64> = (0..d).map(|j| x.iter().map(|row| row[j]).sum::<f64>() / n).collect();
    let mut covariance = vec![vec![0.0; d]; d];
    for row in x {
        let off: Vec<f64> = row.iter().zip(&mean).map(|(x, mean)| x - mean).collect();
        for (line, x) in covariance.iter_mut().zip(&off) {
            let share = x / (n - 1.0);
            line.iter_mut().zip(&off).for_each(|(sum, y)| *sum += share * y);
        }
    }
    (mean, covariance)
}

// %% notebooks/19_is_it_any_good.ipynb qu-turn
/// Cosine and sine of the angle that makes entry (p, q) of a symmetric matrix 0.
fn angle(a: &[Vec<f64>], p: usize, q: usize) -> (f64, f64) {
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let tangent = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let cosine = tangent.hypot(1.0).recip();
    (cosine, tangent * cosine)
}

/// The point (x, y), turned.
fn turn((c, s): (f64, f64), x: &mut f64, y: &mut f64) {
    (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
}

/// Turns each pair of entries of rows p < q.
fn turn_rows(by: (f64, f64), a: &mut [Vec<f64>], p: usize, q: usize) {
    let (above, below) = a.split_at_mut(q);
    above[p].iter_mut().zip(&mut below[0]).for_each(|(x, y)| turn(by, x, y));
}

// %% notebooks/19_is_it_any_good.ipynb qu-turn-both
/// The same for columns p < q.
fn turn_columns(by: (f64, f64), a: &mut [Vec<f64>], p: usize, q: usize) {
    for row in a {
        let (left, right) = row.split_at_mut(q);
        turn(by, &mut left[p], &mut right[0]);
    }
}

/// Which share of the sum of all squares stands to the right of the diagonal.
fn off_diagonal(a: &[Vec<f64>]) -> f64 {
    let squares = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>();
    let all: f64 = a.iter().map(|row| squares(row)).sum();
    a.iter().enumerate().map(|(i, row)| squares(&row[i + 1..])).sum::<f64>() / all
}

// %% notebooks/19_is_it_any_good.ipynb qu-eigen
/// The eigenvalues of a symmetric matrix, and its eigenvectors as rows (Jacobi 1846).
fn eigen(mut a: Rows) -> (Vec<f64>, Rows) {
    let n = a.len();
    let mut vectors: Rows = (0..n).map(|i| (0..n).map(|j| f64::from(i == j)).collect()).collect();
    let mut sweeps = 0;
    while off_diagonal(&a) > 1e-30 && sweeps < 50 {
        sweeps += 1; // about eight will do
        for (p, q) in (0..n).flat_map(|p| (p + 1..n).map(move |q| (p, q))) {
            if a[p][q] != 0.0 {
                let by = angle(&a, p, q);
                turn_rows(by, &mut a, p, q);
                turn_columns(by, &mut a, p, q);
                turn_rows(by, &mut vectors, p, q);
            }
        }
    }
    ((0..n).map(|i| a[i][i]).collect(), vectors)
}

// %% notebooks/19_is_it_any_good.ipynb qu-sum
/// The sum of f(xᵢ, yᵢ). It adds up eight sums side by side, so that the compiler can use vector registers.
fn sum_of(x: &[f64], y: &[f64], f: impl Fn(f64, f64) -> f64) -> f64 {
    let mut sums = [0.0; 8];
    let ((eights_x, x), (eights_y, y)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in eights_x.iter().zip(eights_y) {
        (0..8).for_each(|i| sums[i] += f(x[i], y[i]));
    }
    sums.iter().sum::<f64>() + x.iter().zip(y).map(|(&x, &y)| f(x, y)).sum::<f64>()
}

/// The products of all rows of x (n, d) with all rows of y (m, d): (n, m).
fn products(x: &[Vec<f64>], y: &[Vec<f64>]) -> Rows {
    x.iter().map(|x| y.iter().map(|y| sum_of(x, y, |x, y| x * y)).collect()).collect()
}

// %% notebooks/19_is_it_any_good.ipynb qu-root
/// The trace of the square root of c1 c2, for two covariance matrices: the eigenvalues of c1 c2 are those of the
/// symmetric matrix R c2 Rᵀ, where Rᵀ R = c1.
fn trace_of_root(c1: &Rows, c2: &Rows) -> f64 {
    let root = |value: &f64| value.max(0.0).sqrt(); // rounding makes some zeros negative
    let (values, mut r) = eigen(c1.clone());
    for (value, row) in values.iter().zip(&mut r) {
        row.iter_mut().for_each(|x| *x *= root(value));
    }
    let (values, _) = eigen(products(&products(&r, c2), &r));
    values.iter().map(root).sum()
}

// %% notebooks/19_is_it_any_good.ipynb qu-frechet
/// The Fréchet distance of two sets of features, (n, d) and (m, d), each taken for a normal distribution: with means μ
/// and covariances C, |μ₁ - μ₂|² + tr(C₁ + C₂ - 2 √(C₁ C₂)). With the features of an Inception network it is called
/// FID (Heusel et al. 2017). It is 0 for equal means and covariances, and falls as n and m grow.
///
/// # Panics
/// If the shapes do not fit, or a set has fewer than two rows.
#[track_caller]
pub fn frechet_distance(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = both("frechet_distance", a, b, 2);
    let ((mean_1, c1), (mean_2, c2)) = (moments(&a), moments(&b));
    let means = sum_of(&mean_1, &mean_2, |x, y| (x - y).powi(2));
    let traces: f64 = (0..c1.len()).map(|i| c1[i][i] + c2[i][i]).sum();
    means + traces - 2.0 * trace_of_root(&c1, &c2)
}

// %% notebooks/19_is_it_any_good.ipynb qu-kernel
/// How alike two rows of d features are: (x·y / d + 1)³.
fn kernel(x: &[f64], y: &[f64]) -> f64 {
    (sum_of(x, y, |x, y| x * y) / x.len() as f64 + 1.0).powi(3)
}

/// The mean over all pairs of two different rows.
fn alike_within(x: &[Vec<f64>]) -> f64 {
    let with_earlier = |i: usize| x[..i].iter().map(|other| kernel(&x[i], other)).sum::<f64>();
    let pairs = x.len() * (x.len() - 1) / 2;
    (0..x.len()).map(with_earlier).sum::<f64>() / pairs as f64
}

// %% notebooks/19_is_it_any_good.ipynb qu-kid
/// The kernel distance of two sets of features, (n, d) and (m, d): the squared maximum mean discrepancy with the kernel
/// (x·y / d + 1)³, estimated without bias (Bińkowski et al. 2018, who call it KID with the features of Inception).
/// For two draws from one distribution it is 0 on average, so it can be below 0.
///
/// # Panics
/// If the shapes do not fit, or a set has fewer than two rows.
#[track_caller]
pub fn kernel_distance(a: &Tensor, b: &Tensor) -> f64 {
    let [a, b] = both("kernel_distance", a, b, 2);
    let across: f64 = a.iter().map(|x| b.iter().map(|y| kernel(x, y)).sum::<f64>()).sum();
    alike_within(&a) + alike_within(&b) - 2.0 * across / (a.len() * b.len()) as f64
}

// %% notebooks/19_is_it_any_good.ipynb qu-radii
/// The squared distance of two rows.
fn far(x: &[f64], y: &[f64]) -> f64 {
    sum_of(x, y, |x, y| (x - y).powi(2))
}

/// For each row, the squared distance to the k-th nearest of the others.
fn radii(x: &[Vec<f64>], k: usize) -> Vec<f64> {
    let radius = |i: usize| {
        let mut others: Vec<f64> = (0..x.len()).filter(|&j| j != i).map(|j| far(&x[i], &x[j])).collect();
        *others.select_nth_unstable_by(k - 1, f64::total_cmp).1
    };
    (0..x.len()).map(radius).collect()
}

/// The share of the points that lie in a ball around one of the centres.
fn covered(points: &[Vec<f64>], centres: &[Vec<f64>], radii: &[f64]) -> f64 {
    let inside = |x: &[f64]| centres.iter().zip(radii).any(|(centre, &radius)| far(x, centre) <= radius);
    points.iter().filter(|x| inside(x)).count() as f64 / points.len() as f64
}

// %% notebooks/19_is_it_any_good.ipynb qu-pr
/// Precision, the share of `fake` (m, d) that lies among `real` (n, d), and recall, the share of `real` that lies among
/// `fake`. Among a set is who is as near to one of its rows as that row's k-th nearest neighbour in the set
/// (Kynkäänniemi et al. 2019, who take k = 3).
///
/// # Panics
/// If the shapes do not fit, `k` is 0, or a set has no `k` + 1 rows.
#[track_caller]
pub fn precision_recall(real: &Tensor, fake: &Tensor, k: usize) -> (f64, f64) {
    assert!(k > 0, "precision_recall: k is 0, and must be at least 1");
    let [real, fake] = both("precision_recall", real, fake, k.saturating_add(1));
    let precision = covered(&fake, &real, &radii(&real, k));
    (precision, covered(&real, &fake, &radii(&fake, k)))
}
