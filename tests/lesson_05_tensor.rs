// Owned by notebooks/05_tensor.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash aab62d9e15c2a206
//! What notebooks/05_tensor.ipynb claims.

use minai::tensor::{Tensor, cat, grad_check, stack, tensor, where_};

// %% notebooks/05_tensor.ipynb op-test
#[test]
fn gradients_of_arithmetic() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;

        let [x, y] = [[1.0, 2.0], [3.0, 4.0]].map(|row| Tensor::parameter(array(row)));
        ((&x * &y - &x / &y) * 2.0 + 1.0 / &x).backward_from(array([1.0, 1.0]));
        let expected_x =
            [1.0_f32, 2.0].iter().zip([3.0, 4.0]).map(|(x, y)| 2.0 * (y - 1.0 / y) - 1.0 / (x * x));
        let expected_y = [1.0_f32, 2.0].iter().zip([3.0, 4.0]).map(|(x, y)| 2.0 * (x + x / (y * y)));
        assert!(x.grad().unwrap().iter().zip(expected_x).all(|(a, b)| (a - b).abs() < 1e-6));
        assert!(y.grad().unwrap().iter().zip(expected_y).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05_tensor.ipynb op-test-row
#[test]
fn a_repeated_row_gets_the_sum_of_its_gradients() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;

        let row = Tensor::parameter(array([1.0, 2.0, 3.0]));
        let column = Tensor::parameter(array([[10.0], [20.0]]));
        (&row * &column).backward_from(array([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]));
        assert_eq!(row.grad().unwrap(), array([50.0, 50.0, 50.0]));
        assert_eq!(column.grad().unwrap(), array([[6.0], [12.0]]));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05_tensor.ipynb op-test-shapes
#[test]
#[should_panic]
fn shapes_that_do_not_fit_are_named() {
    let _ = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]) + tensor([1.0, 2.0, 3.0, 4.0]);
}

// %% notebooks/05_tensor.ipynb te-assign-test
#[test]
fn a_failed_assignment_leaves_its_variable_alone() -> Result<(), Box<dyn std::error::Error>> {
    {
        use std::panic::{AssertUnwindSafe, catch_unwind};

        let mut x = tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {})); // the panic is meant, and need not be printed
        let failed = catch_unwind(AssertUnwindSafe(|| x += &Tensor::ones(4)));
        std::panic::set_hook(hook);
        assert!(failed.is_err() && x.shape() == [2, 3] && x[(1, 2)] == 6.0);
        x -= Tensor::ones(3);
        x *= 2.0;
        assert_eq!(x[(1, 2)], 10.0);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05_tensor.ipynb ml-test
#[test]
fn training_changes_parameters_in_place() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;

        let (x, y) = (tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0]]), tensor([[1.0], [2.0], [4.0]]));
        let mut w = Tensor::parameter(array([[0.0], [0.0]]));
        let address = w.data.as_ptr();
        let mut last = f32::INFINITY;
        for _ in 0..20 {
            let loss = (x.matmul(&w) - &y).powi(2).mean(..);
            loss.backward();
            let slopes = w.take_grad().unwrap();
            w.data.iter_mut().zip(slopes.iter()).for_each(|(w, slope)| *w -= 0.01 * slope);
            assert!(loss.item() < last);
            last = loss.item();
        }
        assert_eq!(w.data.as_ptr(), address);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05_tensor.ipynb gc-test
#[test]
fn operations_agree_with_finite_differences() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;

        let x = array([[0.5, -0.3, 0.8], [0.2, 0.9, -0.6]]);
        let y = array([1.5, 0.7, 1.1]);
        let both = [x.clone(), y];
        assert!(grad_check(|x| &x[0] * &x[1] + &x[0] / &x[1] - &x[1], &both) < 1e-3);
        assert!(grad_check(|x| x[0].maximum(&(1.0 - &x[1])).exp(), &both) < 1e-3);
        assert!(grad_check(|x| x[0].matmul(&x[1]).sigmoid(), &both) < 1e-3);
        assert!(grad_check(|x| x[0].var(1) + x[0].mean(-1) + x[0].amax(1), &[x]) < 1e-3);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05_tensor.ipynb se-test
#[test]
fn parts_and_wholes() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;
        use ndarray::s;

        let (x, y) = (tensor([[1.0, 2.0], [3.0, 4.0]]), tensor([[5.0, 6.0], [7.0, 8.0]]));
        assert_eq!(cat(&[&x, &y], 1).data, array([[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]));
        assert_eq!((x.slice((.., 1..)).shape(), x.slice(-1).shape()), (&[2, 1][..], &[2][..]));
        assert_eq!(x.slice(s![-1, ..;2]).shape(), [1]);
        assert_eq!(stack(&[&x, &y], 0).shape(), [2, 2, 2]);
        assert_eq!(x.gather(1, &array([[1_i64], [0]])).data, array([[2.0], [3.0]]));
        assert_eq!(where_(&array([true, false]), &x, &y).data, array([[1.0, 6.0], [3.0, 8.0]]));
        assert_eq!(
            x.masked_fill(&array([[true, false], [false, true]]), 0.0).data,
            array([[0.0, 2.0], [3.0, 0.0]])
        );
    }
    println!("passed");
    Ok(())
}
