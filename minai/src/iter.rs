// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 64bfa7fb71f01e26
//! Cutting what comes one by one into pieces of equal length.

// %% notebooks/01_foundations.ipynb it-chunks
/// Iterator over pieces of `size` items of another iterator, made by [`chunks`].
#[derive(Clone, Debug)]
pub struct Chunks<I> {
    items: I,
    size: usize,
}

impl<I: Iterator> Iterator for Chunks<I> {
    type Item = Vec<I::Item>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece: Vec<I::Item> = self.items.by_ref().take(self.size).collect();
        (!piece.is_empty()).then_some(piece)
    }
}

// %% notebooks/01_foundations.ipynb it-chunks-fn
/// Cuts `items` into pieces of `size`; the last piece holds what is left and may be shorter.
///
/// Only one piece is in memory at a time.
///
/// # Panics
/// If `size` is zero.
#[track_caller]
pub fn chunks<I: IntoIterator>(items: I, size: usize) -> Chunks<I::IntoIter> {
    assert!(size > 0, "chunks: pieces of size 0 would never use up the items");
    Chunks { items: items.into_iter(), size }
}
