//! Memory for results: not cleared first, and in large pages where the system has them.

use std::mem::MaybeUninit;

/// A float of a result that is still to be written, and must not be read before.
pub type Blank = MaybeUninit<f32>;

/// A vector of `len` elements which `fill` writes.
///
/// Memory that the system has just handed out costs a page fault for every page touched, and for a result of some
/// megabytes that takes longer than computing it. So large results ask for large pages (Linux; elsewhere nothing happens).
/// See also [`keep_freed_memory`].
///
/// # Safety
/// `fill` must write every element.
pub unsafe fn filled<T>(len: usize, fill: impl FnOnce(&mut [MaybeUninit<T>])) -> Vec<T> {
    let mut out = Vec::with_capacity(len);
    advise_huge(&mut out);
    fill(&mut out.spare_capacity_mut()[..len]);
    // SAFETY: written, as the caller promises.
    unsafe { out.set_len(len) };
    out
}

/// Writes `x` to each place.
pub(super) fn fill<T: Copy>(to: &mut [MaybeUninit<T>], x: T) -> &mut [T] {
    to.iter_mut().for_each(|to| _ = to.write(x));
    // SAFETY: just written.
    unsafe { written(to) }
}

/// Writes copies of the elements.
///
/// # Panics
/// If the lengths differ.
pub(super) fn copy<'a, T: Copy>(to: &'a mut [MaybeUninit<T>], from: &[T]) -> &'a mut [T] {
    assert_eq!(to.len(), from.len(), "copy: places and elements");
    to.iter_mut().zip(from).for_each(|(to, from)| _ = to.write(*from));
    // SAFETY: just written.
    unsafe { written(to) }
}

/// Places as the elements that were written there.
///
/// # Safety
/// Every element has been written.
pub(super) unsafe fn written<T>(x: &mut [MaybeUninit<T>]) -> &mut [T] {
    // SAFETY: the same layout, and all are elements, as the caller promises.
    unsafe { &mut *(std::ptr::from_mut(x) as *mut [T]) }
}

/// Elements as places to write to.
///
/// # Safety
/// Nothing but elements is written there.
pub(super) unsafe fn blank<T>(x: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: the same layout, and all stay elements, as the caller promises.
    unsafe { &mut *(std::ptr::from_mut(x) as *mut [MaybeUninit<T>]) }
}

/// Tells the allocator to keep freed memory for the next result instead of giving it back to the system, which clears
/// every page before it hands it out again (glibc; elsewhere nothing happens).
///
/// This changes the whole process, so it is left to programs: call it once at the start of one that trains or samples.
/// Up to half a gigabyte then stays with the process; [`give_back`] returns it. Where one of glibc's own environment
/// variables `MALLOC_TRIM_THRESHOLD_` and `MALLOC_MMAP_THRESHOLD_` is set, nothing is changed.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        use std::env::var_os;
        if var_os("MALLOC_TRIM_THRESHOLD_").is_none() && var_os("MALLOC_MMAP_THRESHOLD_").is_none() {
            // SAFETY: mallopt may be called at any time; these values only say when memory goes back to the system.
            unsafe {
                libc::mallopt(libc::M_TRIM_THRESHOLD, 512 << 20);
                libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20); // the most that glibc takes
            }
        }
    }
}

/// Gives freed memory back to the system: worth it between two pieces of work whose results differ in size, where what the
/// first has left would only lie beside what the second takes (glibc; elsewhere nothing happens).
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    // SAFETY: malloc_trim may be called at any time; it touches only what is free.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// From here on large pages pay: 4 MB.
const LARGE: usize = 4 << 20;

/// Asks for large pages for a vector that is large and not yet written to.
fn advise_huge<T>(out: &mut Vec<T>) {
    #[cfg(all(target_os = "linux", not(miri)))]
    if out.capacity() * size_of::<T>() >= LARGE {
        const PAGE: usize = 4096;
        let (start, len) = (out.as_mut_ptr().cast::<u8>(), out.capacity() * size_of::<T>());
        let skip = start.align_offset(PAGE);
        // SAFETY: whole pages inside of our own memory. The advice changes no contents; that it fails is no harm.
        unsafe { libc::madvise(start.add(skip).cast(), (len - skip) / PAGE * PAGE, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (out, LARGE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_results_hold_what_was_written() {
        for len in [0, 1, 1000, LARGE / 4 + 3] {
            // SAFETY: all floats are written.
            let floats =
                unsafe { filled(len, |floats| (0..len).for_each(|i| _ = floats[i].write(i as f32))) };
            assert_eq!(floats.len(), len);
            assert!(floats.iter().enumerate().all(|(i, &x)| x == i as f32));
        }
    }

    #[test]
    fn places_are_filled_and_copied_to() {
        let mut places = [MaybeUninit::uninit(); 5];
        copy(&mut places[..3], &[1, 2, 3])[1] += 5;
        fill(&mut places[3..], 4);
        // SAFETY: all five have been written.
        assert_eq!(unsafe { written(&mut places) }, [1, 7, 3, 4, 4]);
    }
}
