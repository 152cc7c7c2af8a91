//! Reads the course's MNIST file, and says how long that took: `cargo run --release --example load_mnist [FILE]`.

use std::path::PathBuf;
use std::time::Instant;

use minai::io::data::DataError;
use minai::io::mnist::{find_mnist, load_mnist};

fn main() -> Result<(), DataError> {
    let path = std::env::args_os().nth(1).map_or_else(find_mnist, |path| Ok(PathBuf::from(path)))?;
    let start = Instant::now();
    let ((x_train, _), (x_valid, _), (x_test, _)) = load_mnist(&path)?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{seconds:.4} s for {} + {} + {} images", x_train.nrows(), x_valid.nrows(), x_test.nrows());
    Ok(())
}
