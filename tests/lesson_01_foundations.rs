// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 683a4ddb8e13b57f
//! What notebooks/01_foundations.ipynb claims.

use minai::array::{Array, array};
use minai::iter::chunks;
use minai::matrix::Matrix;
use minai::rng::{ForkAware, WichmannHill};

#[cfg(feature = "nb")]
use minai::nb::{Timing, seconds, table, thousands, timeit};

// %% notebooks/01_foundations.ipynb fk-any-threads
#[test]
fn streams_do_not_depend_on_the_number_of_threads() -> Result<(), Box<dyn std::error::Error>> {
    {
        let noise = |threads: usize| {
            let mut rng = WichmannHill::seed(42);
            let mut pieces: Vec<(WichmannHill, Vec<f64>)> =
                (0..12).map(|_| (rng.split(), vec![0.0; 100])).collect();
            std::thread::scope(|scope| {
                for share in pieces.chunks_mut(12_usize.div_ceil(threads)) {
                    scope.spawn(|| share.iter_mut().for_each(|(stream, numbers)| stream.fill(numbers)));
                }
            });
            pieces.into_iter().flat_map(|(_, numbers)| numbers).collect::<Vec<f64>>()
        };
        let single = noise(1);
        assert!([2, 5, 12].iter().all(|&threads| noise(threads) == single));
        let mut sorted = single.clone();
        sorted.sort_by(f64::total_cmp);
        assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]), "two streams drew the same number");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb it-chunks-test
#[test]
fn chunks_deals_out_everything_in_order() -> Result<(), Box<dyn std::error::Error>> {
    {
        let words = || "to be or not to be that is the question".split(' ');
        for size in 1..12 {
            let pieces: Vec<Vec<&str>> = chunks(words(), size).collect();
            assert_eq!(pieces.len(), 10_usize.div_ceil(size));
            assert!(pieces.iter().rev().skip(1).all(|piece| piece.len() == size));
            assert_eq!(pieces.concat(), words().collect::<Vec<_>>());
        }
        assert_eq!(chunks(Vec::<u8>::new(), 3).next(), None);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ma-test
#[test]
fn matrix_indexes_row_after_row() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut m = Matrix::new((0..6).map(|i| i as f32).collect(), (2, 3));
        for i in 0..2 {
            for j in 0..3 {
                assert_eq!(m[(i, j)], (i * 3 + j) as f32);
            }
        }
        m[(1, 2)] = 9.0;
        assert_eq!((m.row(0), m.row(1)), (&[0., 1., 2.][..], &[3., 4., 9.][..]));
        assert_eq!(Matrix::zeros((2, 3)).as_slice(), [0.0; 6]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ma-test-range
#[test]
#[should_panic]
fn matrix_refuses_an_index_in_the_wrong_row() {
    println!("{}", Matrix::zeros((28, 28))[(20, 30)]);
}

// %% notebooks/01_foundations.ipynb ma-test-elements
#[test]
#[should_panic]
fn matrix_refuses_too_few_elements() {
    Matrix::new(vec![0.0; 5], (2, 3));
}

// %% notebooks/01_foundations.ipynb ar-test
#[test]
fn array_from_nested_lists() -> Result<(), Box<dyn std::error::Error>> {
    {
        let a = array([[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], [[0; 4]; 3]]);
        assert_eq!((a.ndim(), a.shape(), a.dtype()), (3, &[2, 3, 4][..], "i32"));
        assert_eq!((a[[0, 2, 1]], a[[1, 0, 0]]), (10, 0));
        assert_eq!(array(vec![vec![1.0, 2.0], vec![3.0, 4.0]]), array([[1.0, 2.0], [3.0, 4.0]]));
        assert_eq!((array(5_u8).shape(), array(5_u8)[[]]), (&[][..], 5));
        assert_eq!(array(Vec::<f32>::new()).shape(), [0]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ar-test-reshape
#[test]
fn reshape_finds_the_missing_size() -> Result<(), Box<dyn std::error::Error>> {
    {
        let a = Array::new((0..24).collect(), &[24]);
        for (shape, expected) in [([-1, 4], [6, 4]), ([3, -1], [3, 8]), ([-1, 24], [1, 24]), ([4, 6], [4, 6])]
        {
            let reshaped = a.reshape(&shape);
            assert_eq!(reshaped.shape(), expected);
            assert!(reshaped.iter().eq(a.iter()));
        }
        assert_eq!(array(Vec::<i32>::new()).reshape(&[0, 7]).shape(), [0, 7]);
        let (rows, columns) = (6_usize, -1_isize);
        assert_eq!(a.reshape((rows, columns)).shape(), [6, 4]);
        assert_eq!((a.reshape((2, (), 3)).shape(), a.reshape(-1).shape()), (&[2, 4, 3][..], &[24][..]));
        assert_eq!(a.reshape(a.reshape([2, 12]).shape()), a.reshape(vec![2, 12]));
        assert!(Array::new(vec![3], &[1]).reshape(()).shape().is_empty());
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ar-test-refuse
#[test]
#[should_panic]
fn reshape_refuses_a_size_that_does_not_divide() {
    Array::new(vec![0; 24], &[24]).reshape(&[5, -1]);
}

// %% notebooks/01_foundations.ipynb ar-test-refuse-two
#[test]
#[should_panic]
fn reshape_refuses_two_unknown_sizes() {
    Array::new(vec![0; 24], &[24]).reshape(&[-1, -1]);
}

// %% notebooks/01_foundations.ipynb ar-test-refuse-negative
#[test]
#[should_panic]
fn reshape_refuses_other_negative_sizes() {
    Array::new(vec![0; 24], &[24]).reshape(&[-2, -12]);
}

// %% notebooks/01_foundations.ipynb ar-test-order
#[test]
fn reshape_reads_a_transposed_array_in_its_own_order() -> Result<(), Box<dyn std::error::Error>> {
    {
        let a = array([[1, 2, 3], [4, 5, 6]]);
        let mut transposed = a.clone();
        transposed.swap_axes(0, 1);
        assert!(transposed.reshape(&[-1]).iter().eq(&[1, 4, 2, 5, 3, 6]));
        assert!(a.iter().eq(&[1, 2, 3, 4, 5, 6]));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ar-test-index
#[test]
fn elements_by_place() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut a = array([[1, 2, 3], [4, 5, 6]]);
        let (row, column) = (1_usize, -1_i64);
        assert_eq!((a[[1, 2]], a[(1, 2)], a[(row, column)], a[(-2, -3)]), (6, 6, 6, 1));
        a[(0, -1)] = 7;
        assert_eq!((a[[0, 2]], array([8, 9])[(1,)], array(5)[[]]), (7, 9, 5));
        assert_eq!(a.to_string(), "array([[1, 2, 7],\n       [4, 5, 6]])");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ar-test-outside
#[test]
#[should_panic]
fn an_index_outside_is_named_with_the_shape() {
    let _ = array([[1, 2, 3], [4, 5, 6]])[(0, -4)];
}

// %% notebooks/01_foundations.ipynb rn-wh-test
#[test]
fn wichmann_hill_gives_the_numbers_of_the_course() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut rng = WichmannHill::seed(457428938475);
        assert_eq!(rng.state(), (4976, 20238, 499));
        for expected in [0.7645251082582081, 0.7920889799553945, 0.06912886811267205, 0.9559050644103264] {
            assert_eq!(rng.uniform(), expected);
        }
        let (mut one, mut all) = (WichmannHill::seed(42), WichmannHill::seed(42));
        let mut numbers = [0.0; 1000];
        all.fill(&mut numbers);
        assert!(numbers.iter().all(|&number| number == one.uniform() && (0.0..1.0).contains(&number)));
        assert_eq!(one, all);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb rn-quality-test
#[test]
fn wichmann_hill_is_uniform_and_uncorrelated() -> Result<(), Box<dyn std::error::Error>> {
    {
        let (mut odd_bars, mut odd_pairs) = (0, 0);
        for seed in 0..100 {
            let mut rng = WichmannHill::seed(seed * 1_000_003);
            let draws: Vec<f64> = (0..10_000).map(|_| rng.uniform()).collect();
            let mut counts = [0.0; 10];
            draws.iter().for_each(|draw| counts[(draw * 10.0) as usize] += 1.0);
            let chi_square: f64 = counts.iter().map(|count: &f64| (count - 1000.0).powi(2) / 1000.0).sum();
            let covariance: f64 = draws.windows(2).map(|pair| (pair[0] - 0.5) * (pair[1] - 0.5)).sum();
            odd_bars += usize::from(!(2.7..19.02).contains(&chi_square));
            odd_pairs += usize::from((covariance / 10_000.0 * 12.0).abs() > 0.0196);
        }
        // 5 of 100 are expected; more than 14 has a probability of about 1 in 7,000.
        assert!(odd_bars <= 14 && odd_pairs <= 14, "{odd_bars} and {odd_pairs} of 100");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb rn-core-test
#[test]
fn wichmann_hill_serves_rand() -> Result<(), Box<dyn std::error::Error>> {
    {
        use rand_core::{Rng, SeedableRng};
        let (mut bits, mut draws) = (WichmannHill::seed(7), WichmannHill::seed_from_u64(7));
        let top = |draw: f64| (draw * 2_f64.powi(32)).floor() as u64;
        assert_eq!(u64::from(bits.next_u32()), top(draws.uniform()));
        assert_eq!(bits.next_u64(), top(draws.uniform()) << 32 | top(draws.uniform()));
        let mut bytes = [0; 6];
        bits.fill_bytes(&mut bytes);
        assert_eq!(bytes[..4], (top(draws.uniform()) as u32).to_le_bytes());
        let mut dice = [0; 6];
        (0..6_000).for_each(|_| dice[rand::RngExt::random_range(&mut bits, 0..6)] += 1);
        assert!(dice.iter().all(|count| (850..1150).contains(count)), "{dice:?}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb fk-jump-test
#[test]
fn split_jumps_as_far_as_stepping_would() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut rng = WichmannHill::seed(457428938475);
        let (before, first) = (rng.state(), rng.split());
        assert_eq!(first.state(), before);
        // Each part repeats after (prime - 1) steps, so 2³² steps are as good as their remainder.
        let walk = |state: u32, factor: u64, prime: u64| {
            (0..(1_u64 << 32) % (prime - 1)).fold(u64::from(state), |x, _| x * factor % prime) as u32
        };
        let (x, y, z) = before;
        assert_eq!(rng.state(), (walk(x, 171, 30269), walk(y, 172, 30307), walk(z, 170, 30323)));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb fk-test
#[test]
fn a_wrapped_generator_notices_the_fork() -> Result<(), Box<dyn std::error::Error>> {
    #[cfg(unix)]
    {
        unsafe extern "C" {
            fn fork() -> i32;
            fn waitpid(process: i32, status: *mut i32, options: i32) -> i32;
            fn _exit(status: i32) -> !;
        }
        let mut plain = WichmannHill::seed(457428938475);
        let mut aware = ForkAware::new(WichmannHill::seed(457428938475));
        for _ in 0..3 {
            assert_eq!(plain.uniform(), aware.get().uniform());
        }
        // SAFETY: the child only computes, and leaves by _exit.
        let child = unsafe { fork() };
        let is_fourth = [plain.uniform(), aware.get().uniform()].map(|draw| draw == 0.9559050644103264);
        if child == 0 {
            unsafe { _exit(i32::from(is_fourth != [true, false])) }
        }
        let mut status = -1;
        assert_eq!((unsafe { waitpid(child, &mut status, 0) }, status), (child, 0), "the child");
        assert_eq!(is_fourth, [true, true], "the parent");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ti-test
#[cfg(feature = "nb")]
#[test]
fn timings_are_written_as_ipython_writes_them() -> Result<(), Box<dyn std::error::Error>> {
    {
        let timing = Timing { mean: 2.6149e-5, deviation: 3.1e-7, runs: 7, loops: 5000 };
        let report = "26.1 µs ± 310 ns per loop (mean ± std. dev. of 7 runs, 5,000 loops each)";
        assert_eq!(timing.to_string(), report);
        assert_eq!([1.5, 0.0234, 9.87e-9].map(seconds), ["1.50 s", "23.4 ms", "9.87 ns"]);
        assert_eq!(
            [7, 999, 1000, 12345, 1234567].map(thousands),
            ["7", "999", "1,000", "12,345", "1,234,567"]
        );
        let slept = timeit(|| std::thread::sleep(std::time::Duration::from_millis(30)));
        assert!(slept.mean >= 0.03 && slept.loops <= 5 && slept.runs == 7, "{slept}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ti-rich-test
#[cfg(feature = "nb")]
#[test]
fn tables_are_shown_as_text_in_columns() -> Result<(), Box<dyn std::error::Error>> {
    {
        let rows = [vec!["a".to_string(), "1 < 2".to_string()], vec!["long".to_string(), "&".to_string()]];
        let text = table(["x", "y"], &rows).to_string();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, ["x     y", "a     1 < 2", "long  &"]);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ck-mnist
#[test]
fn mnist_is_what_the_lesson_says() -> Result<(), Box<dyn std::error::Error>> {
    use minai::io::mnist::{find_mnist, load_mnist};

    {
        let path = find_mnist()?;
        let full = path.ends_with("mnist.pkl.gz");
        let ((x_train, y_train), (x_valid, y_valid), (x_test, y_test)) = load_mnist(&path)?;
        let [train, others] = if full { [50_000, 10_000] } else { [6_000, 1_000] };
        assert_eq!(
            [x_train.dim(), x_valid.dim(), x_test.dim()],
            [(train, 784), (others, 784), (others, 784)]
        );
        assert_eq!([y_train.len(), y_valid.len(), y_test.len()], [train, others, others]);
        assert_eq!(y_train.as_slice().unwrap()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        assert_eq!((y_train.iter().min(), y_train.iter().max()), (Some(&0), Some(&9)));

        let first: Vec<f32> = x_train.row(0).to_vec();
        let fives: Vec<Vec<f32>> = chunks(first[200..210].iter().copied(), 5).collect();
        assert_eq!(fives, [[0., 0., 0., 0.19140625, 0.9296875], [0.98828125; 5]]);
        let m = Matrix::new(first, (28, 28));
        let imgs = Array::new(x_train.into_raw_vec_and_offset().0, &[train, 784]).reshape(&[-1, 28, 28]);
        assert_eq!((m[(20, 15)], imgs[[0, 20, 15]]), (0.98828125, 0.98828125));
        assert_eq!((imgs.shape(), imgs.dtype()), (&[train, 28, 28][..], "f32"));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/01_foundations.ipynb ck-weights
#[test]
fn weights_of_784_by_10_come_in_chunks_of_ten() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut rng = WichmannHill::seed(457428938475);
        let rows: Vec<Vec<f64>> = chunks((0..7840).map(|_| rng.uniform()), 10).collect();
        let weights = array(rows);
        assert_eq!((weights.shape(), weights.dtype()), (&[784, 10][..], "f64"));
        assert_eq!((weights[[0, 0]], weights[[0, 2]]), (0.7645251082582081, 0.06912886811267205));
    }
    println!("passed");
    Ok(())
}
