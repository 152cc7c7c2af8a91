//! The engine's kernels one by one, for work on one of them: `cargo bench -p minai [-- FILTER] [--threads]`.
//! What PyTorch does in the same time is told by `cargo run --release -p minai --example bench -- --compare PYTHON`.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use minai::kernels::attention::{self, Mask, Shape};
use minai::kernels::conv::{Geometry, conv2d, conv2d_grad_input, conv2d_grad_weight};
use minai::kernels::elementwise;
use minai::kernels::gemm::{Target, View, gemm};
use minai::kernels::softmax::{self, Kind};

fn main() {
    divan::main();
}

/// Numbers between -1 and 1.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

/// C = A·B; items are multiplications.
#[divan::bench(args = [(64, 64, 64), (512, 512, 512), (1024, 1024, 1024), (50, 50, 784), (50_000, 10, 784)])]
fn matmul(bencher: Bencher, (m, n, k): (usize, usize, usize)) {
    let (a, b, mut c) = (numbers(m * k), numbers(k * n), vec![0.0; m * n]);
    bencher.counter(ItemsCount::new(m * n * k)).bench_local(|| {
        gemm((m, n, k), View::rows(&a, k), View::rows(&b, n), Target::overwrite(black_box(&mut c), n))
    });
}

/// Images, channels in, channels out, size, stride.
const CONVOLUTIONS: [[usize; 5]; 4] =
    [[1, 320, 320, 64, 1], [64, 16, 16, 28, 1], [64, 64, 128, 16, 2], [256, 128, 256, 2, 1]];

fn geometry([n, c_in, c_out, size, stride]: [usize; 5]) -> Geometry {
    Geometry {
        n,
        c_in,
        size: (size, size),
        c_out,
        kernel: (3, 3),
        stride: (stride, stride),
        padding: (1, 1),
        dilation: (1, 1),
        groups: 1,
    }
}

fn operands(g: &Geometry) -> [Vec<f32>; 3] {
    let (oh, ow) = g.out_size();
    let x = g.n * g.c_in * g.size.0 * g.size.1;
    [numbers(x), numbers(g.c_out * g.c_in * 9), numbers(g.n * g.c_out * oh * ow)]
}

#[divan::bench(args = CONVOLUTIONS)]
fn convolution(bencher: Bencher, sizes: [usize; 5]) {
    let g = geometry(sizes);
    let [x, w, _] = operands(&g);
    bencher.bench_local(|| conv2d(&g, &x, &w, None));
}

#[divan::bench(args = CONVOLUTIONS)]
fn convolution_grad_input(bencher: Bencher, sizes: [usize; 5]) {
    let g = geometry(sizes);
    let [_, w, dy] = operands(&g);
    bencher.bench_local(|| conv2d_grad_input(&g, &dy, &w));
}

#[divan::bench(args = CONVOLUTIONS)]
fn convolution_grad_weight(bencher: Bencher, sizes: [usize; 5]) {
    let g = geometry(sizes);
    let [x, _, dy] = operands(&g);
    bencher.bench_local(|| conv2d_grad_weight(&g, &x, &dy));
}

/// Heads, queries and keys, width.
#[divan::bench(args = [(16, 1024, 40), (8, 77, 64)])]
fn attention(bencher: Bencher, (heads, len, width): (usize, usize, usize)) {
    let shape = Shape { heads, queries: len, keys: len, width, value_width: width };
    let q = numbers(heads * len * width);
    bencher.bench_local(|| attention::forward(shape, Mask::None, 1.0 / (width as f32).sqrt(), &q, &q, &q));
}

/// Rows and columns; bytes are those read.
#[divan::bench(args = [(4096, 4096), (50, 10)])]
fn softmax_rows(bencher: Bencher, (rows, columns): (usize, usize)) {
    let x = numbers(rows * columns);
    bencher.counter(BytesCount::of_slice(&x)).bench_local(|| softmax::forward(Kind::Softmax, &x, columns));
}

/// max(x, 0), element by element; bytes are those read.
#[divan::bench(args = [1_000, 1_000_000, 16_000_000])]
fn relu(bencher: Bencher, len: usize) {
    let x = numbers(len);
    bencher.counter(BytesCount::of_slice(&x)).bench_local(|| elementwise::map(&x, |x: f32| x.max(0.0)));
}
