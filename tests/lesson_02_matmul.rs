// Owned by notebooks/02_matmul.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 45e70410f0e199fe
//! What notebooks/02_matmul.ipynb claims.

use minai::matmul::{
    broadcast, broadcast_shape, dot, einsum, elementwise, frobenius, launch_kernel, matmul_broadcast,
    matmul_dot, matmul_ipj, matmul_naive, matmul_packed, matmul_packed_at, matmul_rows, matmul_threads,
    matmul_tiled, peak_gflops, relative_error,
};

// %% notebooks/02_matmul.ipynb el-test
#[test]
fn dot_products_norms_and_elementwise_operations() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::matrix::Matrix;
        use minai::rng::WichmannHill;
        assert_eq!(dot(&[1., 2., 3.], &[4., 5., 6.]), 32.0);
        let mut rng = WichmannHill::seed(1);
        for length in [0, 1, 15, 16, 17, 100, 1000] {
            let x: Vec<f32> = (0..length).map(|_| rng.uniform() as f32).collect();
            let exact: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
            assert!((f64::from(dot(&x, &x)) - exact).abs() <= 1e-6 * exact, "{length} numbers");
            let norm = frobenius(&Matrix::new(x, (1, length)));
            assert!((norm * norm - exact).abs() <= 1e-12 * exact);
        }
        let (a, b) = (Matrix::new(vec![1., 5.], (2, 1)), Matrix::new(vec![4., 1.], (2, 1)));
        assert_eq!(elementwise(&a, &b, |x, y| x - y).as_slice(), [-3., 4.]);
        assert_eq!(relative_error(&a, &b), 5.0 / 17_f64.sqrt());
        assert_eq!(relative_error(&Matrix::zeros((2, 2)), &Matrix::zeros((2, 2))), 0.0);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/02_matmul.ipynb el-test-shapes
#[test]
#[should_panic]
fn elementwise_refuses_other_shapes() {
    use minai::matrix::Matrix;
    elementwise(&Matrix::zeros((2, 3)), &Matrix::zeros((3, 2)), |x, y| x + y);
}

// %% notebooks/02_matmul.ipynb br-test
#[test]
fn broadcasting_agrees_with_ndarray() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::{Array, array};
        let number =
            |shape: &[usize]| Array::new((0..shape.iter().product()).map(|i| i as f32).collect(), shape);
        let pairs: [(&[usize], &[usize]); 8] = [
            (&[3], &[]),
            (&[3, 4], &[4]),
            (&[3, 1], &[1, 4]),
            (&[2, 3, 4], &[3, 1]),
            (&[5, 1, 3, 1], &[2, 1, 7]),
            (&[1], &[6]),
            (&[0, 3], &[1, 3]),
            (&[1, 3], &[0, 1]),
        ];
        for (a, b) in pairs {
            let (a, b) = (number(a), number(b));
            let (ours, theirs) = (broadcast(&a, &b, |x, y| x - 2.0 * y), &*a - 2.0 * &*b);
            assert_eq!(
                (ours.shape(), broadcast_shape(b.shape(), a.shape())),
                (theirs.shape(), theirs.shape().to_vec())
            );
            assert!(ours.iter().eq(theirs.iter()));
        }
        let m = array([[1.0, 2.0], [3.0, 4.0]]);
        let mut turned = m.clone();
        turned.swap_axes(0, 1); // not in row-major order any more
        assert_eq!(
            broadcast(&turned, &array([10.0, 20.0]), |x, y| x + y),
            array([[11.0, 23.0], [12.0, 24.0]])
        );
    }
    println!("passed");
    Ok(())
}

// %% notebooks/02_matmul.ipynb br-test-shapes
#[test]
#[should_panic]
fn broadcasting_refuses_shapes_that_do_not_fit() {
    broadcast_shape(&[2, 3], &[2]);
}

// %% notebooks/02_matmul.ipynb ei-test
#[test]
fn einsum_agrees_with_loops_by_hand() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::{Array, array};
        use minai::rng::WichmannHill;
        let mut rng = WichmannHill::seed(3);
        let mut random = |shape: &[usize]| {
            Array::new(
                (0..shape.iter().product()).map(|_| (rng.uniform() * 9.0).floor() as f32).collect(),
                shape,
            )
        };
        let (a, b) = (random(&[4, 2, 3]), random(&[4, 3, 5]));
        let (each, batch) = (einsum("bij,bjk->bijk", &a, &b), einsum("bij,bjk->bik", &a, &b));
        let turned = einsum("bij, bjk -> kb", &a, &b);
        assert_eq!(
            (each.shape(), batch.shape(), turned.shape()),
            (&[4, 2, 3, 5][..], &[4, 2, 5][..], &[5, 4][..])
        );
        for (n, i, k) in (0..4).flat_map(|n| (0..2).flat_map(move |i| (0..5).map(move |k| (n, i, k)))) {
            let products: Vec<f32> = (0..3).map(|j| a[[n, i, j]] * b[[n, j, k]]).collect();
            (0..3).for_each(|j| assert_eq!(each[[n, i, j, k]], products[j]));
            assert_eq!(batch[[n, i, k]], products.iter().sum::<f32>());
            assert_eq!(turned[[k, n]], (0..2).map(|i| batch[[n, i, k]]).sum::<f32>());
        }
        let square = random(&[3, 3]);
        let ones = Array::new(vec![1.0; 3], &[3]);
        assert_eq!(einsum("ii,i->", &square, &ones)[[]], (0..3).map(|i| square[[i, i]]).sum::<f32>());
        assert_eq!(
            einsum("i,j->ij", &array([1.0, 2.0]), &array([3.0, 4.0])),
            array([[3.0, 4.0], [6.0, 8.0]])
        );
        assert_eq!(
            einsum("ik,kj->ij", &Array::new(vec![], &[2, 0]), &Array::new(vec![], &[0, 3])),
            array([[0.0; 3]; 2])
        );
        let mut across = square.clone();
        across.swap_axes(0, 1);
        assert_eq!(einsum("ij,jk->ik", &across, &square), einsum("ji,jk->ik", &square, &square));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/02_matmul.ipynb ei-test-bad
#[test]
fn einsum_says_what_is_wrong_with_an_equation() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        let (a, b) = (Array::new(vec![0.0; 6], &[2, 3]), Array::new(vec![0.0; 12], &[3, 4]));
        let complaints = [
            ("ik,kj", "has no \"->\""),
            ("ik->i", "no comma"),
            ("i1,kj->ij", "'1' in \"i1,kj->ij\" is no letter"),
            ("ik,kj,jl->il", "',' in \"ik,kj,jl->il\" is no letter"),
            ("ik,kj->iz", "'z' in the result"),
            ("ik,kj->ii", "twice"),
            ("ikl,kj->ij", "wants rank 3, not shape [2, 3]"),
            ("ij,ij->", "'i' in \"ij,ij->\" is 2 and, in shape [3, 4], 3"),
            ("ij,kk->", "'k' in \"ij,kk->\" is 3 and, in shape [3, 4], 4"),
        ];
        std::panic::set_hook(Box::new(|_| {})); // the panics are wanted: no word of them
        for (equation, part) in complaints {
            let caught = std::panic::catch_unwind(|| einsum(equation, &a, &b)).map(|c| format!("{c:?}"));
            let words = caught.expect_err(equation).downcast::<String>().expect("a message");
            assert!(words.starts_with("einsum: ") && words.contains(part), "{equation}: {words}");
        }
        drop(std::panic::take_hook());
    }
    println!("passed");
    Ok(())
}

// %% notebooks/02_matmul.ipynb all-test
#[test]
fn every_version_agrees_with_three_loops() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::Array;
        use minai::matrix::Matrix;
        use minai::rng::WichmannHill;
        let array = |m: &Matrix| Array::new(m.as_slice().to_vec(), &[m.shape().0, m.shape().1]);
        let matrix = |a: Array| Matrix::new(a.iter().copied().collect(), (a.shape()[0], a.shape()[1]));
        let mut rng = WichmannHill::seed(2);
        let mut random = |rows, columns| {
            Matrix::new((0..rows * columns).map(|_| rng.uniform() as f32 - 0.5).collect(), (rows, columns))
        };
        let shapes = [
            (1, 1, 1),
            (1, 7, 1),
            (3, 1, 5),
            (5, 784, 10),
            (6, 16, 64),
            (7, 17, 65),
            (13, 255, 31),
            (12, 257, 128),
            (66, 64, 33),
            (5, 3, 1030),
            (70, 513, 16),
            (2, 0, 3),
            (0, 4, 3),
            (4, 3, 0),
            (0, 0, 0),
        ];
        for (m, k, n) in shapes {
            let (a, b) = (random(m, k), random(k, n));
            let expected = matmul_naive(&a, &b);
            let versions = [
                ("ipj", matmul_ipj(&a, &b)),
                ("rows", matmul_rows(&a, &b)),
                ("dot", matmul_dot(&a, &b)),
                ("broadcast", matrix(matmul_broadcast(&array(&a), &array(&b)))),
                ("einsum", matrix(einsum("ik,kj->ij", &array(&a), &array(&b)))),
                ("tiled", matmul_tiled(&a, &b)),
                ("packed", matmul_packed(&a, &b)),
                ("threads", matmul_threads(&a, &b, 3)),
                ("kernel", launch_kernel((m, n), |i, j| (0..k).map(|p| a[(i, p)] * b[(p, j)]).sum())),
            ];
            for (name, c) in versions {
                assert_eq!(c.shape(), (m, n), "{name} of {m}×{k} by {k}×{n}");
                let error = relative_error(&c, &expected);
                assert!(error < 1e-6, "{name} of {m}×{k} by {k}×{n}: error {error:.1e}");
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/02_matmul.ipynb all-test-levels
#[test]
fn the_micro_kernel_is_right_at_every_level() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::kernels::simd::levels;
        use minai::matrix::Matrix;
        use minai::rng::WichmannHill;
        let mut rng = WichmannHill::seed(5);
        for (m, k, n) in [(6, 5, 64), (13, 300, 70), (7, 257, 17), (20, 9, 3), (6, 4, 16), (3, 2, 1030)] {
            let mut random = |length| (0..length).map(|_| rng.uniform() as f32 - 0.5).collect::<Vec<f32>>();
            let (a, b) = (Matrix::new(random(m * k), (m, k)), Matrix::new(random(k * n), (k, n)));
            let expected = matmul_naive(&a, &b);
            for level in levels() {
                let error = relative_error(&matmul_packed_at(level, &a, &b), &expected);
                assert!(error < 1e-6, "{level:?}, {m}×{k} by {k}×{n}: error {error:.1e}");
            }
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/02_matmul.ipynb all-test-threads
#[test]
fn any_number_of_threads_gives_the_same_bits() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::matrix::Matrix;
        use minai::rng::WichmannHill;
        let mut rng = WichmannHill::seed(4);
        let a = Matrix::new((0..101 * 300).map(|_| rng.uniform() as f32).collect(), (101, 300));
        let b = Matrix::new((0..300 * 70).map(|_| rng.uniform() as f32).collect(), (300, 70));
        let one = matmul_packed(&a, &b);
        for threads in [1, 2, 5, 16, 200] {
            assert!(matmul_threads(&a, &b, threads) == one, "{threads} threads");
        }
    }
    println!("passed");
    Ok(())
}

// %% notebooks/02_matmul.ipynb all-test-shapes
#[test]
#[should_panic]
fn multiplication_names_both_shapes() {
    use minai::matrix::Matrix;
    matmul_packed(&Matrix::zeros((2, 3)), &Matrix::zeros((2, 3)));
}

// %% notebooks/02_matmul.ipynb all-test-peak
#[test]
fn nothing_is_faster_than_the_peak() -> Result<(), Box<dyn std::error::Error>> {
    {
        let peak = peak_gflops();
        assert!(peak.is_finite() && peak > 0.5, "{peak} GFLOP/s");
    }
    println!("passed");
    Ok(())
}
