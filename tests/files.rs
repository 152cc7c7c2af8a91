//! Small files for tests, made in memory.

use flate2::{Compression, write::GzEncoder};
use std::io::Write;

/// What the pickle of [`mnist_pickle`] holds.
#[derive(Clone, Copy, Debug)]
pub struct Digits {
    /// Number of training images.
    pub train: u16,
    /// Number of validation images.
    pub valid: u16,
    /// Number of test images.
    pub test: u16,
    /// How many labels are missing in each split.
    pub labels_short: u16,
    /// A wrong label at the beginning of train.
    pub first_label: Option<i64>,
    /// A wrong pixel at the end of test.
    pub last_pixel: Option<f32>,
}

impl Default for Digits {
    fn default() -> Self {
        Self { train: 5, valid: 3, test: 2, labels_short: 0, first_label: None, last_pixel: None }
    }
}

/// A pickle with the same instructions as `mnist.pkl.gz`; image i has the pixels (i + j) mod 256 / 256, and label i mod 10.
pub fn mnist_pickle(digits: &Digits) -> Vec<u8> {
    let mut pickle = b"\x80\x02".to_vec();
    let mut memo = 8;
    for (k, n) in [digits.train, digits.valid, digits.test].into_iter().enumerate() {
        let pixels = (0..u32::from(n)).flat_map(|i| (0..784).map(move |j| ((i + j) % 256) as f32 / 256.0));
        let mut pixels: Vec<u8> = pixels.flat_map(f32::to_le_bytes).collect();
        if let (2, Some(wrong)) = (k, digits.last_pixel) {
            let at = pixels.len() - 4;
            pixels[at..].copy_from_slice(&wrong.to_le_bytes());
        }
        let labels = n - digits.labels_short;
        let mut y: Vec<u8> = (0..labels).flat_map(|i| i64::from(i % 10).to_le_bytes()).collect();
        if let (0, Some(wrong)) = (k, digits.first_label) {
            y[..8].copy_from_slice(&wrong.to_le_bytes());
        }
        push_array(&mut pickle, k, 0, &mut memo, &[int(n), int(784), vec![0x86]].concat(), &pixels);
        push_array(&mut pickle, k, 1, &mut memo, &[int(labels), vec![0x85]].concat(), &y);
        pickle.extend([0x86, b'q', memo]);
        memo += 1;
    }
    pickle.extend([0x87, b'.']);
    pickle
}

fn int(n: u16) -> Vec<u8> {
    if n < 256 { vec![b'K', n as u8] } else { [&b"M"[..], &n.to_le_bytes()].concat() }
}

/// One numpy array, as Python 2 pickled it: names and element types in full the first time, from the memo later.
fn push_array(pickle: &mut Vec<u8>, split: usize, array: usize, memo: &mut u8, shape: &[u8], bytes: &[u8]) {
    let first = split == 0;
    if first && array == 0 {
        pickle.extend(b"cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02");
    } else {
        pickle.extend(b"h\x01h\x02");
    }
    pickle.extend(b"K\0\x85U\x01b\x87Rq");
    pickle.push(match (first, array) {
        (true, 0) => 3,
        (true, _) => 6,
        _ => {
            *memo += 1;
            *memo - 1
        }
    });
    pickle.extend(b"(K\x01");
    pickle.extend(shape);
    match (first, array) {
        (true, 0) => pickle.extend(b"cnumpy\ndtype\nq\x04U\x02f4K\0K\x01\x87Rq\x05(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"),
        (true, _) => pickle.extend(b"h\x04U\x02i8K\0K\x01\x87Rq\x07(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"),
        (false, 0) => pickle.extend(b"h\x05"),
        (false, _) => pickle.extend(b"h\x07"),
    }
    pickle.extend(b"\x89T");
    pickle.extend((bytes.len() as u32).to_le_bytes());
    pickle.extend(bytes);
    pickle.extend(b"tb");
}

/// An IDX file of bytes with these sizes in its header.
pub fn idx_file(sizes: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, sizes.len() as u8];
    file.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    file.extend(elements);
    file
}

/// The bytes as one gzip member.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::fast());
    packer.write_all(bytes).expect("writing to memory does not fail");
    packer.finish().expect("writing to memory does not fail")
}

/// A small generator for tests (SplitMix64): the same seed gives the same damage.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator for this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}
