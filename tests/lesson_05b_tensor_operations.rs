// Owned by notebooks/05b_tensor_operations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash bec556358e24f92b
//! What notebooks/05b_tensor_operations.ipynb claims.

use minai::ops::{
    arange, argsort, chunk, einsum, flatten, flip, max, min, pad, prod, repeat, roll, split, topk, unbind,
    unflatten,
};

// %% notebooks/05b_tensor_operations.ipynb test-shapes
#[test]
fn shapes_and_parts() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;
        use minai::tensor::{Tensor, tensor};

        let x = arange(0.0, 6.0, 1.0).reshape((2, 3));
        assert_eq!(flip(&x, &[0, 1]).data, array([[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]]));
        assert_eq!(roll(&x, -1, 1).data, array([[1.0, 2.0, 0.0], [4.0, 5.0, 3.0]]));
        assert_eq!(repeat(&x, (2, 1, 2)).shape(), [2, 2, 6]);
        assert_eq!(pad(&x, (1, 2), 7.0).slice(0).data, array([7.0, 0.0, 1.0, 2.0, 7.0, 7.0]));
        assert_eq!(unflatten(&flatten(&x, 0, -1), 0, (3, ())).shape(), [3, 2]);
        let sizes = |parts: Vec<Tensor>| parts.iter().map(|part| part.shape()[0]).collect::<Vec<_>>();
        assert_eq!(sizes(chunk(&Tensor::zeros(10), 4, 0)), [3, 3, 3, 1]);
        assert_eq!(sizes(chunk(&Tensor::zeros(6), 4, 0)), [2, 2, 2]);
        assert_eq!(sizes(split(&Tensor::zeros(5), 2, -1)), [2, 2, 1]);
        assert_eq!(sizes(split(&Tensor::zeros(5), [1, 4], 0)), [1, 4]);
        assert_eq!(unbind(&tensor([1.0, 2.0]), 0)[1].item(), 2.0);
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05b_tensor_operations.ipynb test-order
#[test]
fn orders_and_places() -> Result<(), Box<dyn std::error::Error>> {
    {
        use minai::array::array;
        use minai::tensor::{Tensor, tensor};

        let x = tensor([[2.0, f32::NAN, 1.0], [3.0, 3.0, 0.0]]);
        assert_eq!(max(&x, 1).1, array([1_i64, 0]));
        assert_eq!(argsort(&x, 1), array([[2_i64, 0, 1], [2, 0, 1]]));
        assert_eq!(topk(&x, 2, 1).1, array([[1_i64, 0], [0, 1]]));
        assert_eq!(min(&x, 0).0[0], 2.0);
        assert_eq!(prod(&tensor([2.0, 0.0, 4.0]), 0).item(), 0.0);
        assert_eq!(prod(&Tensor::zeros((2, 0)), 1).data, array([1.0, 1.0]));
    }
    println!("passed");
    Ok(())
}

// %% notebooks/05b_tensor_operations.ipynb test-einsum
#[test]
#[should_panic]
fn einsum_refuses_two_sizes_of_a_letter() {
    use minai::tensor::Tensor;

    einsum("ij,jk->ik", &[&Tensor::ones((2, 3)), &Tensor::ones((4, 2))]);
}
