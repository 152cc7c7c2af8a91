//! Memory for results: not cleared first, and in large pages where the system has them.

/// A vector of `len` floats which `fill` writes.
///
/// Memory that the system has just handed out costs a page fault for every page touched, and for a result of some
/// megabytes that takes longer than computing it. So large results ask for large pages (Linux; elsewhere nothing happens).
///
/// # Safety
/// `fill` must write every float, and read none that it has not written.
pub unsafe fn filled(len: usize, fill: impl FnOnce(&mut [f32])) -> Vec<f32> {
    let mut floats = Vec::with_capacity(len);
    advise_huge(&mut floats);
    // SAFETY: the capacity is there, and any bits make a float; the caller promises that none is read before it is
    // written, and that all are.
    unsafe {
        fill(std::slice::from_raw_parts_mut(floats.as_mut_ptr(), len));
        floats.set_len(len);
    }
    floats
}

/// Results from this size on, 64 KB, make sure that freed memory is kept.
const KEPT: usize = 64 << 10;

/// Tells the allocator, once, to keep freed memory for the next result instead of giving it back to the system, which
/// clears every page before it hands it out again (glibc; elsewhere nothing happens). Setting one of glibc's own
/// environment variables, `MALLOC_TRIM_THRESHOLD_` or `MALLOC_MMAP_THRESHOLD_`, leaves the decision to you.
fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        use std::env::var_os;
        static ONCE: std::sync::Once = std::sync::Once::new();
        unsafe extern "C" {
            fn mallopt(parameter: i32, value: i32) -> i32;
        }
        const M_TRIM_THRESHOLD: i32 = -1;
        const M_MMAP_THRESHOLD: i32 = -3;
        ONCE.call_once(|| {
            if var_os("MALLOC_TRIM_THRESHOLD_").is_none() && var_os("MALLOC_MMAP_THRESHOLD_").is_none() {
                // SAFETY: mallopt may be called at any time; these values only say when memory goes back to the system.
                unsafe {
                    mallopt(M_TRIM_THRESHOLD, 512 << 20);
                    mallopt(M_MMAP_THRESHOLD, 32 << 20); // the most that glibc takes
                }
            }
        });
    }
}

/// Gives freed memory back to the system: worth it between two pieces of work whose results differ in size, where what the
/// first has left would only lie beside what the second takes (glibc; elsewhere nothing happens).
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        unsafe extern "C" {
            fn malloc_trim(pad: usize) -> i32;
        }
        // SAFETY: malloc_trim may be called at any time; it touches only what is free.
        unsafe { malloc_trim(0) };
    }
}

/// From here on large pages pay: 4 MB.
const LARGE: usize = 4 << 20;

/// Asks for large pages for a vector that is large and not yet written to.
pub(super) fn advise_huge<T>(floats: &mut Vec<T>) {
    if floats.capacity() * size_of::<T>() >= KEPT {
        keep_freed_memory();
    }
    #[cfg(all(target_os = "linux", not(miri)))]
    if floats.capacity() * size_of::<T>() >= LARGE {
        unsafe extern "C" {
            fn madvise(start: *mut std::ffi::c_void, len: usize, advice: i32) -> i32;
        }
        const MADV_HUGEPAGE: i32 = 14;
        const PAGE: usize = 4096;
        let (start, len) = (floats.as_mut_ptr().cast::<u8>(), floats.capacity() * size_of::<T>());
        let skip = start.align_offset(PAGE);
        // SAFETY: whole pages inside of our own memory. The advice changes no contents; that it fails is no harm.
        unsafe { madvise(start.add(skip).cast(), (len - skip) / PAGE * PAGE, MADV_HUGEPAGE) };
    }
    #[cfg(not(all(target_os = "linux", not(miri))))]
    let _ = (floats, LARGE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_results_hold_what_was_written() {
        for len in [0, 1, 1000, LARGE / 4 + 3] {
            // SAFETY: all floats are written.
            let floats = unsafe { filled(len, |floats| (0..len).for_each(|i| floats[i] = i as f32)) };
            assert_eq!(floats.len(), len);
            assert!(floats.iter().enumerate().all(|(i, &x)| x == i as f32));
        }
    }
}
