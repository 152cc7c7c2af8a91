//! Working memory that a thread keeps from one kernel to the next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// A line of the cache. A vector that is loaded from two lines takes twice as long, so panels begin at a line.
#[derive(Clone, Copy)]
#[repr(align(64))]
#[allow(dead_code)] // read through a cast
struct Line([f32; 16]);

thread_local!(static SHELF: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) });

/// Buffers larger than this are given back to the system rather than kept: 64 MB.
const LINES_KEPT: usize = 1 << 20;

/// A buffer of `len` floats, at the beginning of a cache line, with whatever an earlier kernel left in it. It goes back
/// on this thread's shelf when dropped.
pub fn scratch(len: usize) -> Scratch {
    let lines = len.div_ceil(16);
    let kept = SHELF.with_borrow_mut(|shelf| {
        // The smallest that is large enough, or else the largest, which is then replaced.
        let fitness =
            |buffer: &Vec<Line>| if buffer.len() >= lines { buffer.len() } else { usize::MAX - buffer.len() };
        let best = (0..shelf.len()).min_by_key(|&i| fitness(&shelf[i]))?;
        Some(shelf.swap_remove(best))
    });
    // Not `resize`, which would copy what nobody needs.
    let buffer = kept.filter(|buffer| buffer.len() >= lines).unwrap_or_else(|| vec![Line([0.0; 16]); lines]);
    Scratch { buffer, len }
}

/// See [`scratch`].
pub struct Scratch {
    buffer: Vec<Line>,
    len: usize,
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: a line is 16 floats and nothing else, and `len` floats fit into the lines.
        unsafe { std::slice::from_raw_parts(self.buffer.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.buffer.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if !buffer.is_empty() && buffer.len() <= LINES_KEPT {
            // At a thread's end the shelf may be gone already: then the buffer goes too.
            let _ = SHELF.try_with(|shelf| shelf.borrow_mut().push(buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_and_begins_at_a_line() {
        let first = scratch(100).as_ptr();
        let (mut small, large) = (scratch(60), scratch(1000));
        assert_eq!(small.as_ptr(), first);
        assert_eq!((small.len(), large.len(), large.as_ptr() as usize % 64), (60, 1000, 0));
        small.fill(1.0);
        assert_eq!(scratch(0).len(), 0);
    }
}
