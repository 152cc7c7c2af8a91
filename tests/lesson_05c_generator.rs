// Owned by notebooks/05c_generator.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 870d8dc687aa8257
//! What notebooks/05c_generator.ipynb claims.

use minai::generator::Generator;

// %% notebooks/05c_generator.ipynb ge-test
#[test]
fn the_seed_42_gives_pytorchs_numbers() -> Result<(), Box<dyn std::error::Error>> {
    {
        let seeded = || Generator::manual_seed(42);
        let close = |found: &[f32], expected: &[f32]| {
            assert!(
                found.iter().zip(expected).all(|(x, y)| (x - y).abs() < 2e-6),
                "{found:?}, not {expected:?}"
            );
        };
        assert_eq!(
            seeded().rand(&[4]).as_slice(),
            Some(&[0.88226926, 0.91500396, 0.38286376, 0.95930564][..])
        );
        // Of 50 · 784 weights between ±1/28, as those of Linear(784, 50).
        let weights = seeded().uniform(&[50, 784], -1.0 / 28.0, 1.0 / 28.0);
        let first = [0.02730495, 0.02964314, -0.008366874, 0.032807548];
        assert_eq!(weights.as_slice().unwrap()[..4], first);
        let normal = seeded().randn(&[784, 10]);
        let numbers = normal.as_slice().unwrap();
        close(&numbers[..4], &[1.9269153, 1.4872841, 0.9007172, -2.105521]);
        close(&numbers[7836..], &[-0.6900221, 0.04702331, 0.5487117, -1.9950601]);
        // Not a multiple of 16, and fewer than 16: then the second of a pair is left for the next call.
        close(&seeded().randn(&[21]).as_slice().unwrap()[19..], &[-0.6215954, -0.59200054]);
        let mut rng = seeded();
        let five = [0.33669037, 0.1288094, 0.23446237, 0.23033303, -1.1228564];
        close(rng.randn(&[5]).as_slice().unwrap(), &five);
        close(rng.randn(&[3]).as_slice().unwrap(), &[-0.18632829, 2.2082014, -0.63799703]);
        close(seeded().normal(&[2], 1.5, 0.02).as_slice().unwrap(), &[1.5067338, 1.5025762]);
        assert_eq!(seeded().randint(0, 10, &[8]).as_slice(), Some(&[2, 7, 6, 4, 6, 5, 0, 4][..]));
        let wide = [441_507_790_259, 395_924_837_646, 458_615_280_711];
        assert_eq!(seeded().randint(0, 1 << 40, &[3]).as_slice(), Some(&wide[..]));
        assert_eq!(seeded().randperm(10), [2, 6, 1, 8, 4, 5, 0, 9, 3, 7]);
        assert_eq!(seeded().random64(), 6_909_045_637_428_952_499);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05c_generator.ipynb ge-mask-test
#[test]
fn masks_and_ranges_keep_their_promises() -> Result<(), Box<dyn std::error::Error>> {
    {
        let mut rng = Generator::manual_seed(1);
        for p in [0.0, 0.3, 1.0] {
            let mask = rng.bernoulli(&[100, 100], p);
            assert!(mask.iter().all(|&m| m == 0.0 || m == 1.0));
            // The standard deviation of the count is at most 50.
            assert!((mask.sum() - 1e4 * p as f32).abs() <= if p == 0.3 { 200.0 } else { 0.0 });
        }
        let numbers = rng.uniform(&[10_000], -2.0, 3.0);
        assert!(numbers.iter().all(|x| (-2.0..3.0).contains(x)) && (numbers.sum() / 1e4 - 0.5).abs() < 0.06);
        let whole = rng.randint(i64::MIN, i64::MAX, &[1000]);
        assert!(whole.iter().filter(|&&x| x < 0).count().abs_diff(500) < 65);
        assert_eq!(
            (rng.rand(&[0, 3]).shape(), rng.randn(&[0]).len(), rng.randperm(0).len()),
            (&[0, 3][..], 0, 0)
        );
        let mut order = rng.randperm(1000);
        order.sort();
        assert!(order.into_iter().eq(0..1000));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05c_generator.ipynb ge-split-test
#[test]
fn split_generators_differ_and_serve_rand() -> Result<(), Box<dyn std::error::Error>> {
    {
        use rand_core::{Rng, SeedableRng};
        let mut rng = Generator::manual_seed(7);
        let [mut a, mut b] = [rng.split(), rng.split()];
        let mut again = Generator::manual_seed(7);
        assert!(again.split() == a && again.split() == b && again == rng);
        let [x, y, z] = [&mut a, &mut b, &mut rng].map(|rng| rng.randn(&[100, 100]));
        for (x, y) in [(&x, &y), (&y, &z), (&z, &x)] {
            let correlation = x.iter().zip(y.iter()).map(|(x, y)| x * y).sum::<f32>() / 1e4;
            assert!(correlation.abs() < 0.04, "{correlation}"); // its standard deviation is 0.01
        }
        let mut standard = Generator::seed_from_u64(5489);
        assert_eq!((0..10_000).map(|_| standard.next_u32()).last(), Some(4_123_659_995));
        let mut dice = [0; 6];
        (0..6_000).for_each(|_| dice[rand::RngExt::random_range(&mut rng, 0..6)] += 1);
        assert!(dice.iter().all(|count| (850..1150).contains(count)), "{dice:?}");
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05c_generator.ipynb ge-bytes-test
#[test]
fn a_stored_generator_goes_on_where_it_stood() -> Result<(), Box<dyn std::error::Error>> {
    {
        for normals in [0, 5, 16, 1001] {
            let mut rng = Generator::manual_seed(42);
            rng.randn(&[normals]);
            let mut again = Generator::from_state(&rng.state()).unwrap();
            assert!(
                again == rng && again.randn(&[7]) == rng.randn(&[7]) && again.random64() == rng.random64()
            );
        }
        let mut state = Generator::manual_seed(42).state();
        assert!(Generator::from_state(&state[1..]).is_err());
        for at in [8, 12, 16, 30, 5_040] {
            state[at] ^= 0x80;
            let error = Generator::from_state(&state).unwrap_err().to_string();
            assert!(error.contains("no state of a generator"), "{error}");
            state[at] ^= 0x80;
        }
        assert_eq!(Generator::from_state(&state).unwrap().rand(&[1])[0], 0.88226926);
        assert!(Generator::from_state(&[0; 5_056]).is_err());
    }
    println!("passed");
    Ok(())
}
