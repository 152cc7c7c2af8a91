//! Working memory that a thread keeps from one kernel to the next.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local!(static SHELF: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) });

/// Buffers larger than this are given back to the system rather than kept: 64 MB.
const KEPT: usize = 16 << 20;

/// A buffer of `len` floats with whatever an earlier kernel left in it. It goes back on this thread's shelf when dropped.
pub fn scratch(len: usize) -> Scratch {
    let kept = SHELF.with_borrow_mut(|shelf| {
        // The smallest that is large enough, or else the largest, which is then replaced.
        let fitness =
            |buffer: &Vec<f32>| if buffer.len() >= len { buffer.len() } else { usize::MAX - buffer.len() };
        let best = (0..shelf.len()).min_by_key(|&i| fitness(&shelf[i]))?;
        Some(shelf.swap_remove(best))
    });
    // Not `resize`, which would copy what nobody needs.
    let buffer = kept.filter(|buffer| buffer.len() >= len).unwrap_or_else(|| vec![0.0; len]);
    Scratch { buffer, len }
}

/// See [`scratch`].
pub struct Scratch {
    buffer: Vec<f32>,
    len: usize,
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.buffer[..self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[..self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.len() <= KEPT {
            // At a thread's end the shelf may be gone already: then the buffer goes too.
            let _ = SHELF.try_with(|shelf| shelf.borrow_mut().push(buffer));
        }
    }
}
