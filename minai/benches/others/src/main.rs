//! Times minai, ndarray, gemm and candle on the same work, in turn, and prints the median milliseconds of each:
//! `cargo run --release [-- THREADS]`, in this folder.

use std::hint::black_box;
use std::time::Instant;

use candle_core::{Device, Tensor};
use minai::kernels::conv::{Geometry, conv2d};
use minai::kernels::gemm::{Target, View, gemm as minai_gemm};
use minai::kernels::threads::with_threads;
use minai::matmul::matmul_packed;
use minai::matrix::Matrix;
use ndarray::Array2;

type Work<'a> = (&'a str, Box<dyn FnMut() + 'a>);

fn main() -> candle_core::Result<()> {
    let threads: usize = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("{threads} thread(s), median of 21 rounds in turn, milliseconds");
    with_threads(threads, || {
        for n in [512, 1024, 2048] {
            products(n, threads)?;
        }
        convolution(threads)
    })
}

/// Numbers between -1 and 1.
fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 1009) as f32 / 504.5 - 1.0).collect()
}

/// Runs all in turn, so that what else the machine does meets all alike.
fn compare(title: &str, mut all: Vec<Work>) {
    let mut times = vec![Vec::new(); all.len()];
    for round in 0..22 {
        for ((_, work), times) in all.iter_mut().zip(&mut times) {
            let start = Instant::now();
            work();
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    println!("\n{title}");
    for ((name, _), times) in all.iter().zip(&mut times) {
        times.sort_by(f64::total_cmp);
        println!("  {name:<24}{:>9.3}", times[times.len() / 2]);
    }
}

fn products(n: usize, threads: usize) -> candle_core::Result<()> {
    let (a, b) = (numbers(n * n), numbers(n * n));
    let (mut c, mut d) = (vec![0.0; n * n], vec![0.0; n * n]);
    let (x, y) = (
        Array2::from_shape_vec((n, n), a.clone()).unwrap(),
        Array2::from_shape_vec((n, n), b.clone()).unwrap(),
    );
    let (p, q) = (
        Tensor::from_vec(a.clone(), (n, n), &Device::Cpu)?,
        Tensor::from_vec(b.clone(), (n, n), &Device::Cpu)?,
    );
    let (v, w) = (Matrix::new(a.clone(), (n, n)), Matrix::new(b.clone(), (n, n)));
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let mut all: Vec<Work> = vec![
        ("minai", Box::new(|| minai_gemm((n, n, n), View::rows(&a, n), View::rows(&b, n), Target::overwrite(&mut c, n)))),
        ("gemm", {
            let (a, b, d) = (a.as_ptr(), b.as_ptr(), d.as_mut_ptr());
            let row = n as isize;
            // SAFETY: three matrices of n·n floats, which live as long as this.
            let run = move || unsafe {
                gemm::gemm(
                    n,
                    n,
                    n,
                    d,
                    1,
                    row,
                    false,
                    a,
                    1,
                    row,
                    b,
                    1,
                    row,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                )
            };
            Box::new(run)
        }),
        ("candle", Box::new(|| drop(black_box(p.matmul(&q).unwrap())))),
    ];
    if threads == 1 {
        all.push(("lesson 2, packed", Box::new(|| drop(black_box(matmul_packed(&v, &w))))));
        all.push(("ndarray", Box::new(|| drop(black_box(x.dot(&y))))));
    }
    compare(&format!("matrix product {n}×{n}×{n}"), all);
    Ok(())
}

fn convolution(threads: usize) -> candle_core::Result<()> {
    let (n, c_in, c_out, size) = (1, 64, 384, (64, 64));
    let g = Geometry {
        n,
        c_in,
        size,
        c_out,
        kernel: (3, 3),
        stride: (1, 1),
        padding: (1, 1),
        dilation: (1, 1),
        groups: 1,
    };
    let (x, w) = (numbers(n * c_in * size.0 * size.1), numbers(c_out * c_in * 9));
    let p = Tensor::from_vec(x.clone(), (n, c_in, size.0, size.1), &Device::Cpu)?;
    let q = Tensor::from_vec(w.clone(), (c_out, c_in, 3, 3), &Device::Cpu)?;
    let candle = if threads == 1 { "candle" } else { "candle (its own threads)" };
    let all: Vec<Work> = vec![
        ("minai", Box::new(|| drop(black_box(conv2d(&g, &x, &w, None))))),
        (candle, Box::new(|| drop(black_box(p.conv2d(&q, 1, 1, 1, 1).unwrap())))),
    ];
    compare("convolution 3×3, 64 to 384 channels, 64×64", all);
    Ok(())
}
