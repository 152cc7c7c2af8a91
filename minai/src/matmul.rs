// Owned by notebooks/02_matmul.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 774498f36b0b619b
//! Matrix multiplication, from three loops to packed tiles in vector registers; broadcasting and `einsum` on the way.

// %% notebooks/02_matmul.ipynb mm-naive
use minai::matrix::Matrix;

/// The sizes `(m, k, n)` of an `(m, k)` matrix times a `(k, n)` matrix.
#[track_caller]
fn sizes(a: &Matrix, b: &Matrix) -> (usize, usize, usize) {
    let ((m, k), (rows, n)) = (a.shape(), b.shape());
    assert!(k == rows, "matmul: a {m}×{k} matrix cannot be multiplied by a {rows}×{n} matrix");
    (m, k, n)
}

// %% notebooks/02_matmul.ipynb mm-naive-b
/// `a` times `b` by three loops: the definition, and what all other versions are tested against.
///
/// Shapes `(m, k)` and `(k, n)` give `(m, n)`.
///
/// # Panics
/// If a row of `a` is not as long as a column of `b`. So do all versions in this module.
#[track_caller]
pub fn matmul_naive(a: &Matrix, b: &Matrix) -> Matrix {
    let (m, k, n) = sizes(a, b);
    let mut c = Matrix::zeros((m, n));
    for i in 0..m {
        for j in 0..n {
            for p in 0..k {
                c[(i, j)] += a[(i, p)] * b[(p, j)];
            }
        }
    }
    c
}

// %% notebooks/02_matmul.ipynb lo-ipj
/// `a` times `b` by three loops, in the order that walks along the rows of all three matrices.
#[track_caller]
pub fn matmul_ipj(a: &Matrix, b: &Matrix) -> Matrix {
    let (m, k, n) = sizes(a, b);
    let (a, b, mut c) = (a.as_slice(), b.as_slice(), vec![0.0; m * n]);
    for i in 0..m {
        for p in 0..k {
            for j in 0..n {
                c[i * n + j] += a[i * k + p] * b[p * n + j];
            }
        }
    }
    Matrix::new(c, (m, n))
}

// %% notebooks/02_matmul.ipynb ro-rows
/// `a` times `b`, row by row: to row i of the result, add `a[(i, p)]` times row p of `b`.
#[track_caller]
pub fn matmul_rows(a: &Matrix, b: &Matrix) -> Matrix {
    let (m, _, n) = sizes(a, b);
    let mut c = vec![0.0; m * n];
    // Without columns there are no rows to go through, but `chunks_exact_mut(0)` would panic.
    for (i, c_row) in c.chunks_exact_mut(n.max(1)).enumerate() {
        for (p, x) in a.row(i).iter().enumerate() {
            for (c, y) in c_row.iter_mut().zip(b.row(p)) {
                *c += x * y;
            }
        }
    }
    Matrix::new(c, (m, n))
}

// %% notebooks/02_matmul.ipynb do-dot
/// The dot product of two slices of equal length, in 16 sums that are added up at the end.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn dot(x: &[f32], y: &[f32]) -> f32 {
    assert!(x.len() == y.len(), "dot: {} numbers and {} numbers", x.len(), y.len());
    let (xs, x_rest) = x.as_chunks::<16>();
    let (ys, y_rest) = y.as_chunks::<16>();
    let mut sums = [0.0; 16];
    for (x, y) in xs.iter().zip(ys) {
        for (sum, (x, y)) in sums.iter_mut().zip(x.iter().zip(y)) {
            *sum += x * y;
        }
    }
    let rest: f32 = x_rest.iter().zip(y_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

// %% notebooks/02_matmul.ipynb do-matmul
/// `a` times `b` as a grid of dot products, on a transposed copy of `b`.
#[track_caller]
pub fn matmul_dot(a: &Matrix, b: &Matrix) -> Matrix {
    let (m, k, n) = sizes(a, b);
    let columns: Vec<f32> = (0..n).flat_map(|j| (0..k).map(move |p| b[(p, j)])).collect();
    let grid = (0..m).flat_map(|i| (0..n).map(move |j| (i, j)));
    Matrix::new(grid.map(|(i, j)| dot(a.row(i), &columns[j * k..][..k])).collect(), (m, n))
}

// %% notebooks/02_matmul.ipynb el-elementwise
/// `f(x, y)` for the numbers of two matrices of one shape, place by place.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn elementwise(a: &Matrix, b: &Matrix, f: impl Fn(f32, f32) -> f32) -> Matrix {
    assert!(a.shape() == b.shape(), "elementwise: shapes {:?} and {:?} differ", a.shape(), b.shape());
    Matrix::new(a.as_slice().iter().zip(b.as_slice()).map(|(&x, &y)| f(x, y)).collect(), a.shape())
}

// %% notebooks/02_matmul.ipynb el-norm
/// The Frobenius norm: the root of the sum of all squares.
pub fn frobenius(a: &Matrix) -> f64 {
    a.as_slice().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

/// How far `a` is from `b`: the Frobenius norm of their difference, divided by that of `b`; 0 if they are equal.
///
/// # Panics
/// If the shapes differ.
#[track_caller]
pub fn relative_error(a: &Matrix, b: &Matrix) -> f64 {
    match frobenius(&elementwise(a, b, |x, y| x - y)) {
        0.0 => 0.0, // two matrices of zeros differ by nothing, not by 0 / 0
        difference => difference / frobenius(b),
    }
}

// %% notebooks/02_matmul.ipynb br-shape
/// The size of axis `axis` of `rank`, for a shape that is aligned with others at the right: 1 if it is missing.
fn size_at(shape: &[usize], axis: usize, rank: usize) -> usize {
    (axis + shape.len()).checked_sub(rank).map_or(1, |axis| shape[axis])
}

/// The shape that arrays of shapes `a` and `b` have together by the rules of broadcasting.
///
/// Aligned at the right, two sizes must be equal, or one of them 1 or missing.
///
/// # Panics
/// If the shapes do not fit.
#[track_caller]
pub fn broadcast_shape(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let mut shape = Vec::with_capacity(rank);
    for axis in 0..rank {
        match (size_at(a, axis, rank), size_at(b, axis, rank)) {
            (x, y) if x == y || y == 1 => shape.push(x),
            (1, y) => shape.push(y),
            (x, y) => panic!("broadcast: shapes {a:?} and {b:?} do not fit, {x} against {y}"),
        }
    }
    shape
}

// %% notebooks/02_matmul.ipynb br-own
use minai::array::Array;

/// The strides of a row-major array of the given shape when it is seen with shape `to`: 0 where it is repeated.
fn broadcast_strides(shape: &[usize], to: &[usize]) -> Vec<usize> {
    let (mut strides, missing) = (vec![0; to.len()], to.len() - shape.len());
    let mut stride = 1;
    for axis in (0..shape.len()).rev() {
        if shape[axis] == to[missing + axis] {
            strides[missing + axis] = stride;
        }
        stride *= shape[axis];
    }
    strides
}

/// The positions of all elements, in row-major order.
fn positions(shape: &[usize], strides: &[usize]) -> Vec<usize> {
    shape.iter().zip(strides).fold(vec![0], |starts, (&size, stride)| {
        starts.iter().flat_map(|start| (0..size).map(move |i| start + i * stride)).collect()
    })
}

// %% notebooks/02_matmul.ipynb br-own-b
/// `f(x, y)` for all elements of two arrays, whose shapes are broadcast.
///
/// # Panics
/// If the shapes do not fit; see [`broadcast_shape`].
#[track_caller]
pub fn broadcast(a: &Array, b: &Array, f: impl Fn(f32, f32) -> f32) -> Array {
    let shape = broadcast_shape(a.shape(), b.shape());
    let elements = [a, b].map(|array| array.iter().copied().collect::<Vec<f32>>());
    let [at_a, at_b] = [a, b].map(|array| positions(&shape, &broadcast_strides(array.shape(), &shape)));
    Array::new(at_a.iter().zip(&at_b).map(|(&i, &j)| f(elements[0][i], elements[1][j])).collect(), &shape)
}

// %% notebooks/02_matmul.ipynb br-matmul
use ndarray::Axis;

/// `a` times `b`, `(m, k)` by `(k, n)`, by broadcasting: each row of `a`, as a column, times `b`, summed over `k`.
///
/// # Panics
/// If `a` or `b` is not of rank 2, or a row of `a` is not as long as a column of `b`.
#[track_caller]
pub fn matmul_broadcast(a: &Array, b: &Array) -> Array {
    let (&[m, k], &[rows, n]) = (a.shape(), b.shape()) else {
        panic!("matmul: rank 2 wanted, not shapes {:?} and {:?}", a.shape(), b.shape())
    };
    assert!(k == rows, "matmul: a {m}×{k} array cannot be multiplied by a {rows}×{n} array");
    let row = |i| (&a.index_axis(Axis(0), i).insert_axis(Axis(1)) * &**b).sum_axis(Axis(0));
    Array::new((0..m).flat_map(row).collect(), &[m, n])
}

// %% notebooks/02_matmul.ipynb ei-letters
/// The letters of both operands and of the result.
#[track_caller]
fn letters(equation: &str) -> [Vec<char>; 3] {
    let Some((inputs, result)) = equation.split_once("->") else {
        panic!("einsum: {equation:?} has no \"->\"")
    };
    let Some((a, b)) = inputs.split_once(',') else {
        panic!("einsum: {equation:?} has no comma between two operands")
    };
    let letters = [a, b, result].map(|part| part.chars().filter(|&c| c != ' ').collect::<Vec<char>>());
    for &letter in letters.iter().flatten() {
        assert!(letter.is_ascii_alphabetic(), "einsum: {letter:?} in {equation:?} is no letter");
    }
    for (i, letter) in letters[2].iter().enumerate() {
        let known = letters[0].contains(letter) || letters[1].contains(letter);
        assert!(known, "einsum: {letter:?} in the result of {equation:?} is in no operand");
        assert!(
            !letters[2][..i].contains(letter),
            "einsum: {letter:?} is twice in the result of {equation:?}"
        );
    }
    letters
}

// %% notebooks/02_matmul.ipynb ei-loops
/// One loop of an einsum: how often, and how far a step goes in a, in b and in the result.
struct Loop {
    size: usize,
    steps: [usize; 3],
}

/// The step that `letter` takes in a row-major array of this shape: 0 if it does not occur.
fn step(letter: char, letters: &[char], shape: &[usize]) -> usize {
    let strides = (0..shape.len()).filter(|&axis| letters[axis] == letter);
    strides.map(|axis| shape[axis + 1..].iter().product::<usize>()).sum()
}

/// Goes through all loops, from the first inwards, and adds the products to `c`.
fn add_products(loops: &[Loop], a: &[f32], b: &[f32], c: &mut [f32], [i, j, k]: [usize; 3]) {
    match loops {
        [] => c[k] += a[i] * b[j],
        [Loop { size, steps: [x, y, z] }] => {
            (0..*size).for_each(|t| c[k + t * z] += a[i + t * x] * b[j + t * y])
        }
        [Loop { size, steps: [x, y, z] }, inner @ ..] => {
            (0..*size).for_each(|t| add_products(inner, a, b, c, [i + t * x, j + t * y, k + t * z]));
        }
    }
}

// %% notebooks/02_matmul.ipynb ei-einsum
/// The size of each letter in order of first occurrence.
#[track_caller]
fn letter_sizes(equation: &str, operands: [(&[char], &[usize]); 2]) -> Vec<(char, usize)> {
    let mut sizes: Vec<(char, usize)> = Vec::new();
    for (letters, shape) in operands {
        let (want, have) = (letters.len(), shape.len());
        assert!(want == have, "einsum: {equation:?} wants rank {want}, not shape {shape:?} of rank {have}");
        for (&letter, &size) in letters.iter().zip(shape) {
            match sizes.iter().find(|(known, _)| *known == letter) {
                Some(&(_, known)) => {
                    assert!(
                        known == size,
                        "einsum: {letter:?} in {equation:?} is {known} and, in shape {shape:?}, {size}"
                    )
                }
                None => sizes.push((letter, size)),
            }
        }
    }
    sizes
}

// %% notebooks/02_matmul.ipynb ei-einsum-b
/// Products of two arrays, summed over the letters that the result does not have: `einsum("ik,kj->ij", &a, &b)`.
///
/// A letter that an operand has twice walks along its diagonal. Blanks do not matter.
///
/// # Panics
/// If the equation is not of the form `letters,letters->letters`, a letter of the result is in no operand or occurs
/// there twice, an operand does not have as many axes as letters, or a letter has two sizes.
#[track_caller]
pub fn einsum(equation: &str, a: &Array, b: &Array) -> Array {
    let [of_a, of_b, of_c] = letters(equation);
    let sizes = letter_sizes(equation, [(&of_a, a.shape()), (&of_b, b.shape())]);
    let size_of =
        |letter: &char| sizes.iter().find(|(known, _)| known == letter).map_or(1, |&(_, size)| size);
    let shape: Vec<usize> = of_c.iter().map(size_of).collect();
    let in_all =
        |letter| [(&of_a, a.shape()), (&of_b, b.shape()), (&of_c, &shape)].map(|(l, s)| step(letter, l, s));
    let mut loops: Vec<Loop> =
        sizes.iter().map(|&(letter, size)| Loop { size, steps: in_all(letter) }).collect();
    loops.sort_by_key(|l| std::cmp::Reverse(l.steps.iter().sum::<usize>()));
    let [x, y] = [a, b].map(|array| array.iter().copied().collect::<Vec<f32>>());
    let mut c = vec![0.0; shape.iter().product()];
    add_products(&loops, &x, &y, &mut c, [0; 3]);
    Array::new(c, &shape)
}

// %% notebooks/02_matmul.ipynb ti-tiled
/// The side of a tile of B: 128 × 128 numbers are 64 KB, which fits into any L2 cache.
const TILE: usize = 128;

/// `a` times `b` in tiles: a tile of `b` of 128 × 128 is used for all rows of `a` while it is in the cache.
#[track_caller]
pub fn matmul_tiled(a: &Matrix, b: &Matrix) -> Matrix {
    let (m, k, n) = sizes(a, b);
    let mut c = vec![0.0; m * n];
    for p0 in (0..k).step_by(TILE) {
        for j0 in (0..n).step_by(TILE) {
            let (depth, columns) = (p0..k.min(p0 + TILE), j0..n.min(j0 + TILE));
            for (c_row, a_row) in c.chunks_exact_mut(n).zip(a.as_slice().chunks_exact(k)) {
                let (c_part, b_rows) = (&mut c_row[columns.clone()], b.as_slice()[p0 * n..].chunks_exact(n));
                for (x, b_row) in a_row[depth.clone()].iter().zip(b_rows) {
                    for (c, y) in c_part.iter_mut().zip(&b_row[columns.clone()]) {
                        *c += x * y;
                    }
                }
            }
        }
    }
    Matrix::new(c, (m, n))
}

// %% notebooks/02_matmul.ipynb mk-kernel
use minai::kernels::simd::{Level, Simd, Work, dispatch, dispatch_at, level};

/// The rows of a tile of the result.
const ROWS: usize = 6;

// %% notebooks/02_matmul.ipynb mk-kernel-b
/// Adds the product of a panel of A and a panel of B to a tile of the result: `ROWS` rows of `N` registers.
///
/// In each step, `a` has `ROWS` numbers and `b` has `N * S::LANES`. Row i of the tile begins at `c[i * stride]`.
///
/// # Safety
/// The machine must have the instructions of `S`.
#[inline(always)]
unsafe fn micro_kernel<S: Simd, const N: usize>(a: &[f32], b: &[f32], c: &mut [f32], stride: usize) {
    // SAFETY: the caller vouches for the instructions; every load and store goes to a slice of S::LANES numbers.
    unsafe {
        let zero = S::splat(0.0);
        let mut sums = [[zero; N]; ROWS];
        for (a, b) in a.as_chunks::<ROWS>().0.iter().zip(b.chunks_exact(N * S::LANES)) {
            let mut row = [zero; N];
            for (register, numbers) in row.iter_mut().zip(b.chunks_exact(S::LANES)) {
                *register = S::load(numbers.as_ptr());
            }
            for i in 0..ROWS {
                let x = S::splat(a[i]);
                for j in 0..N {
                    sums[i][j] = S::fma(x, row[j], sums[i][j]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            let c_row = &mut c[i * stride..][..N * S::LANES];
            for (numbers, &sum) in c_row.chunks_exact_mut(S::LANES).zip(sums) {
                S::store(numbers.as_mut_ptr(), S::add(S::load(numbers.as_ptr()), sum));
            }
        }
    }
}

// %% notebooks/02_matmul.ipynb pk-pack
/// Copies `depth` columns of up to `ROWS` rows, which begin `k` apart in `a`, into a panel, column by column.
///
/// Rows that are missing repeat the first; their results are thrown away.
#[inline(always)]
fn pack_a(a: &[f32], k: usize, rows: usize, depth: usize, panel: &mut [f32]) {
    let rows: [&[f32]; ROWS] = std::array::from_fn(|i| &a[if i < rows { i * k } else { 0 }..][..depth]);
    for (p, column) in panel.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        for (number, row) in column.iter_mut().zip(rows) {
            *number = row[p]; // not `rows.map(…)`: that would be a call for each column, and cost a tenth of all time
        }
    }
}

// %% notebooks/02_matmul.ipynb pk-pack-b
/// Copies `depth` rows of `columns` numbers, which begin `n` apart in `b`, into panels `width` columns wide.
///
/// Columns that are missing in the last panel are zero.
#[inline(always)]
fn pack_b(b: &[f32], n: usize, columns: usize, depth: usize, width: usize, panels: &mut [f32]) {
    for (p, row) in b.chunks(n).take(depth).enumerate() {
        for (panel, part) in panels.chunks_exact_mut(width * depth).zip(row[..columns].chunks(width)) {
            let (to, missing) = panel[p * width..][..width].split_at_mut(part.len());
            to.copy_from_slice(part);
            missing.fill(0.0);
        }
    }
}

// %% notebooks/02_matmul.ipynb pk-blocks
/// Rows of a block of B, and numbers in a row of a panel of A: such a panel fits into L1.
const DEPTH: usize = 256;
/// Columns of a block of B: with `DEPTH` rows, 1 MB, it fits into L2.
const WIDTH: usize = 1024;

/// A multiplication to be done: `c += a b`, all row-major, with sizes `(m, k, n)`, none of them 0.
struct Product<'a> {
    a: &'a [f32],
    b: &'a [f32],
    c: &'a mut [f32],
    sizes: (usize, usize, usize),
}

/// Zeros that begin at a cache line, somewhere in the first 16 of `buffer`.
fn at_cache_line(buffer: &mut [f32]) -> &mut [f32] {
    let skip = buffer.as_ptr().align_offset(64);
    &mut buffer[skip..]
}

// %% notebooks/02_matmul.ipynb pk-blocks-b
/// Does the multiplication with tiles of `ROWS` rows and `N` registers.
///
/// # Safety
/// The machine must have the instructions of `S`.
#[inline(always)]
unsafe fn multiply_blocks<S: Simd, const N: usize>(product: Product) {
    let Product { a, b, c, sizes: (m, k, n) } = product;
    let width = N * S::LANES;
    let mut a_buffer = vec![0.0; ROWS * DEPTH.min(k) + 16];
    let mut b_buffer = vec![0.0; WIDTH.min(n).next_multiple_of(width) * DEPTH.min(k) + 16];
    let (a_buffer, b_panels) = (at_cache_line(&mut a_buffer), at_cache_line(&mut b_buffer));
    for p in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - p);
        for j0 in (0..n).step_by(WIDTH) {
            let columns = WIDTH.min(n - j0);
            pack_b(&b[p * n + j0..], n, columns, depth, width, b_panels);
            for i in (0..m).step_by(ROWS) {
                let a_panel = &mut a_buffer[..ROWS * depth];
                pack_a(&a[i * k + p..], k, m - i, depth, a_panel);
                for (j, b_panel) in
                    (j0..j0 + columns).step_by(width).zip(b_panels.chunks_exact(width * depth))
                {
                    // SAFETY: the caller vouches for the instructions.
                    unsafe { add_tile::<S, N>(a_panel, b_panel, &mut c[i * n + j..], (m - i, n - j), n) };
                }
            }
        }
    }
}

/// Adds a tile to the result: straight where it fits, else, where only `(rows, columns)` are left, by a detour.
///
/// # Safety
/// The machine must have the instructions of `S`.
#[inline(always)]
unsafe fn add_tile<S: Simd, const N: usize>(
    a: &[f32],
    b: &[f32],
    c: &mut [f32],
    left: (usize, usize),
    stride: usize,
) {
    let ((rows, columns), width) = (left, N * S::LANES);
    // SAFETY: the caller vouches for the instructions.
    unsafe {
        if rows >= ROWS && columns >= width {
            return micro_kernel::<S, N>(a, b, c, stride);
        }
        let mut tile = [0.0; ROWS * 4 * 16]; // 4 registers of 16 numbers are the most that there are
        micro_kernel::<S, N>(a, b, &mut tile, width);
        for (c_row, sums) in c.chunks_mut(stride).zip(tile.chunks(width)).take(rows.min(ROWS)) {
            c_row.iter_mut().zip(sums).take(columns).for_each(|(c, sum)| *c += sum);
        }
    }
}

// %% notebooks/02_matmul.ipynb pk-blocks-c-b
impl Work for Product<'_> {
    type Out = ();

    /// Chooses how many registers wide the tiles are: fewer if the result has only a few columns.
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        // SAFETY: `dispatch` calls this with instructions that the machine has.
        unsafe {
            match self.sizes.2.div_ceil(S::LANES) {
                1 => multiply_blocks::<S, 1>(self),
                3.. if S::MANY_REGISTERS => multiply_blocks::<S, 4>(self),
                _ => multiply_blocks::<S, 2>(self),
            }
        }
    }
}

// %% notebooks/02_matmul.ipynb pk-matmul
/// Adds `a` times `b` to `c`, all row-major, with sizes `(m, k, n)`.
fn add_product(level: Level, a: &[f32], b: &[f32], c: &mut [f32], sizes: (usize, usize, usize)) {
    if !(c.is_empty() || a.is_empty()) {
        dispatch_at(level, Product { a, b, c, sizes });
    }
}

/// [`matmul_packed`] with a given instruction set, for tests and comparisons.
///
/// # Panics
/// If the machine does not have it, or a row of `a` is not as long as a column of `b`.
#[track_caller]
pub fn matmul_packed_at(level: Level, a: &Matrix, b: &Matrix) -> Matrix {
    let (m, k, n) = sizes(a, b);
    let mut c = vec![0.0; m * n];
    add_product(level, a.as_slice(), b.as_slice(), &mut c, (m, k, n));
    Matrix::new(c, (m, n))
}

/// `a` times `b` from packed panels, with tiles in vector registers: one thread, and near the limit of its core.
#[track_caller]
pub fn matmul_packed(a: &Matrix, b: &Matrix) -> Matrix {
    matmul_packed_at(level(), a, b)
}

// %% notebooks/02_matmul.ipynb pe-peak
use std::hint::black_box;
use std::time::Instant;

/// This many rounds of 12 independent fused multiply-adds on whole registers; returns their number in single numbers.
struct Chains(usize);

impl Work for Chains {
    type Out = usize;

    #[inline(always)]
    unsafe fn run<S: Simd>(self) -> usize {
        // SAFETY: no memory is touched; `dispatch` calls this with instructions that the machine has.
        unsafe {
            let (x, y) = (S::splat(black_box(0.999)), S::splat(black_box(0.001)));
            let mut sums = [S::splat(1.0); 12];
            for _ in 0..self.0 {
                for sum in &mut sums {
                    *sum = S::fma(*sum, x, y);
                }
            }
            // Without a use of the sums, the compiler would leave out the loop.
            black_box(sums.iter().fold(x, |total, &sum| S::add(total, sum)));
        }
        12 * S::LANES * self.0
    }
}

// %% notebooks/02_matmul.ipynb pe-peak-b
/// What one core of this machine can do at most, measured: billions of floating-point operations in a second.
///
/// An FMA counts as two. This takes about a hundredth of a second; where other programs run too, ask more than once.
pub fn peak_gflops() -> f64 {
    let once = |_| {
        let start = Instant::now();
        2.0 * dispatch(Chains(100_000)) as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..5).map(once).fold(0.0, f64::max)
}

// %% notebooks/02_matmul.ipynb th-threads
use std::thread;

/// `a` times `b` by [`matmul_packed`]'s kernel, the rows dealt out to so many threads (at least 1).
///
/// The result is the same, to the last bit, for any number of threads.
///
/// # Panics
/// If there are no threads, or a row of `a` is not as long as a column of `b`.
#[track_caller]
pub fn matmul_threads(a: &Matrix, b: &Matrix, threads: usize) -> Matrix {
    assert!(threads > 0, "matmul_threads: at least one thread, please");
    let (m, k, n) = sizes(a, b);
    let mut c = vec![0.0; m * n];
    let rows = m.div_ceil(threads).next_multiple_of(ROWS); // whole tiles for all but the last
    thread::scope(|scope| {
        let parts = a.as_slice().chunks((rows * k).max(1)).zip(c.chunks_mut((rows * n).max(1)));
        for (a, c) in parts {
            scope.spawn(move || add_product(level(), a, b.as_slice(), c, (a.len() / k, k, n)));
        }
    });
    Matrix::new(c, (m, n))
}

// %% notebooks/02_matmul.ipynb gp-launch
/// Calls `kernel(i, j)` for every place of a grid `(rows, columns)`, on all cores, and returns what it returned.
///
/// This is how a GPU is programmed: one small function, many independent calls, in no particular order.
pub fn launch_kernel((rows, columns): (usize, usize), kernel: impl Fn(usize, usize) -> f32 + Sync) -> Matrix {
    let mut cells = vec![0.0; rows * columns];
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get());
    let each = cells.len().div_ceil(cores).max(1);
    let kernel = &kernel;
    thread::scope(|scope| {
        for (core, part) in cells.chunks_mut(each).enumerate() {
            scope.spawn(move || {
                for (cell, place) in part.iter_mut().zip(core * each..) {
                    *cell = kernel(place / columns, place % columns);
                }
            });
        }
    });
    Matrix::new(cells, (rows, columns))
}
