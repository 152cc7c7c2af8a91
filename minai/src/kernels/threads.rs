//! Loops on all cores: [`for_each`] runs independent tasks on a small pool of threads, the calling one among them.
//!
//! Neural networks on a CPU are long sequences of short loops, many of which take some ten microseconds. So a worker
//! that has nothing to do looks out for the next loop for a moment before it goes to sleep, and the caller never waits
//! for a sleeping one: it starts on the tasks itself and is through when none is left. A loop inside a task, or one
//! started while another thread's loop runs, is done by its caller alone.
//!
//! Which thread does a task is left to chance. A kernel whose tasks do not depend on that (each writes its own part of
//! the output, and how the work is cut up depends on shapes only) gives the same bits for any number of threads.

use std::any::Any;
use std::cell::Cell;
use std::hint::spin_loop;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Condvar, Mutex, OnceLock, TryLockError};

/// How many threads may work on a loop started by this thread: what [`with_threads`] says or, outside of it, the
/// environment variable `MINAI_THREADS` or, without that, the number of cores.
pub fn threads() -> usize {
    static DEFAULT: OnceLock<usize> = OnceLock::new();
    LIMIT.get().unwrap_or_else(|| {
        *DEFAULT.get_or_init(|| {
            let named = std::env::var("MINAI_THREADS").ok().and_then(|text| text.parse().ok());
            let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
            named.unwrap_or_else(cores).clamp(1, MOST_THREADS)
        })
    })
}

/// Runs `f` with another number of threads for the loops that it starts, 1 to 256. More than there are cores is slower,
/// and gives the same results.
pub fn with_threads<R>(n: usize, f: impl FnOnce() -> R) -> R {
    struct Restore(Option<usize>);
    impl Drop for Restore {
        fn drop(&mut self) {
            LIMIT.set(self.0);
        }
    }
    let _restore = Restore(LIMIT.replace(Some(n.clamp(1, MOST_THREADS))));
    f()
}

/// Calls `task(i)` once for each `i` in `0..tasks`, in any order, on up to [`threads`] threads.
///
/// # Panics
/// If a task does, after all others that had begun are finished.
pub fn for_each(tasks: usize, task: impl Fn(usize) + Sync) {
    let helpers = threads().min(tasks).saturating_sub(1);
    let alone = || (0..tasks).for_each(&task);
    if helpers == 0 {
        return alone();
    }
    let _gate = match POOL.gate.try_lock() {
        Ok(gate) => gate,
        // A task of an earlier loop panicked, and that loop had cleaned up before its panic went on.
        Err(TryLockError::Poisoned(gate)) => gate.into_inner(),
        // Another loop is running, perhaps the one that we are a task of.
        Err(TryLockError::WouldBlock) => return alone(),
    };
    POOL.run(helpers, tasks, &task);
}

/// Calls `task(i, part)` for each part of `chunk` elements (the last may be shorter) of a slice, as [`for_each`] does.
pub fn for_each_chunk<T: Send>(data: &mut [T], chunk: usize, task: impl Fn(usize, &mut [T]) + Sync) {
    let (len, parts) = (data.len(), Parts::new(data));
    for_each(len.div_ceil(chunk.max(1)), |i| {
        let start = i * chunk;
        // SAFETY: parts of different i do not overlap, for_each gives out each i once, and `data` stays borrowed.
        task(i, unsafe { parts.slice(start, chunk.min(len - start)) });
    });
}

/// A mutable slice of which tasks take parts that do not overlap, in whatever pattern. The slice stays borrowed as long
/// as the parts are in use.
pub struct Parts<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

impl<T> Clone for Parts<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Parts<'_, T> {}

// SAFETY: all access is through `slice` and `at`, whose callers promise that parts do not overlap.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    /// Of this slice.
    pub fn new(data: &'a mut [T]) -> Self {
        Parts { start: data.as_mut_ptr(), len: data.len(), borrow: PhantomData }
    }

    /// Elements `start..start + len`.
    ///
    /// # Safety
    /// No two parts that are in use at the same time overlap.
    ///
    /// # Panics
    /// If the slice does not have these elements.
    #[inline]
    pub unsafe fn slice(self, start: usize, len: usize) -> &'a mut [T] {
        // SAFETY: `at` checks that the elements are there; the caller promises that nobody else uses them.
        unsafe { std::slice::from_raw_parts_mut(self.at(start, len), len) }
    }

    /// A pointer to element `start`, which may be used for `len` elements: for parts that are not in one piece, such as
    /// a tile of a matrix. As with [`Parts::slice`], whoever uses it must see to it that nobody else uses these elements.
    ///
    /// # Panics
    /// If the slice does not have these elements.
    #[inline]
    pub fn at(self, start: usize, len: usize) -> *mut T {
        let fits = start <= self.len && len <= self.len - start;
        assert!(fits, "part {start}+{len} of a slice of {}", self.len);
        // SAFETY: inside the slice.
        unsafe { self.start.add(start) }
    }
}

const MOST_THREADS: usize = 256;
/// How often an idle worker looks for a loop before it sleeps: some 50 microseconds.
const LOOKS: usize = if cfg!(miri) { 10 } else { 2_000 };

thread_local!(static LIMIT: Cell<Option<usize>> = const { Cell::new(None) });

static POOL: Pool = Pool {
    gate: Mutex::new(()),
    state: AtomicU64::new(0),
    job: AtomicPtr::new(std::ptr::null_mut()),
    left: AtomicUsize::new(0),
    workers: AtomicUsize::new(0),
    asleep: AtomicUsize::new(0),
    bed: Mutex::new(()),
    bell: Condvar::new(),
};

struct Pool {
    /// Held while a loop runs: there is one at a time.
    gate: Mutex<()>,
    /// The number of the loop, how many more workers may join, and how many have: all in one word, so that joining is
    /// one compare-and-swap that fails once the loop was closed.
    state: AtomicU64,
    /// The loop. Valid for a worker that has joined, until it has left.
    job: AtomicPtr<Job<'static>>,
    /// How many workers have left the loop that they had joined.
    left: AtomicUsize,
    workers: AtomicUsize,
    asleep: AtomicUsize,
    bed: Mutex<()>,
    bell: Condvar,
}

struct Job<'a> {
    task: &'a (dyn Fn(usize) + Sync),
    tasks: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    fn work(&self) {
        let run = || {
            loop {
                match self.next.fetch_add(1, Relaxed) {
                    i if i < self.tasks => (self.task)(i),
                    _ => return,
                }
            }
        };
        if let Err(payload) = catch_unwind(AssertUnwindSafe(run)) {
            self.next.store(self.tasks, Relaxed); // nobody begins another task
            self.panic.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).get_or_insert(payload);
        }
    }
}

/// The parts of `Pool::state`: loop number, places left, workers that joined.
const fn state(number: u64, places: u64, joined: u64) -> u64 {
    number << 32 | places << 16 | joined
}
const fn number(state: u64) -> u64 {
    state >> 32
}
const fn places(state: u64) -> u64 {
    state >> 16 & 0xffff
}
const fn joined(state: u64) -> u64 {
    state & 0xffff
}

impl Pool {
    /// Only with `gate` locked.
    fn run(&'static self, helpers: usize, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.hire(helpers);
        let job = Job { task, tasks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        // Only the lifetime changes. A worker reads the job between joining and leaving, and we wait for that below.
        self.job.store((&raw const job).cast_mut().cast(), Relaxed);
        self.left.store(0, Relaxed);
        let this = number(self.state.load(Relaxed)).wrapping_add(1) & 0xffff_ffff;
        self.state.store(state(this, helpers as u64, 0), SeqCst);
        if self.asleep.load(SeqCst) > 0 {
            drop(self.bed.lock());
            self.bell.notify_all();
        }
        job.work();
        // Close the loop: whoever has not joined by now cannot any more. Then wait for those that have.
        let joined = joined(self.state.fetch_and(!(0xffff << 16), AcqRel)) as usize;
        let mut looks = 0;
        while self.left.load(Acquire) < joined {
            looks += 1;
            if looks < LOOKS { spin_loop() } else { std::thread::yield_now() }
        }
        if let Some(payload) = job.panic.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            resume_unwind(payload);
        }
    }

    fn hire(&'static self, helpers: usize) {
        while self.workers.load(Relaxed) < helpers {
            let worker = std::thread::Builder::new().name("minai worker".into());
            if worker.spawn(move || self.worker()).is_err() {
                return; // the system gives us no more threads: fewer will do
            }
            self.workers.fetch_add(1, Relaxed);
        }
    }

    fn worker(&self) {
        let mut done = 0;
        loop {
            let now = self.next_state(done);
            done = number(now);
            if places(now) == 0 {
                continue; // full, or closed already
            }
            let joining = state(done, places(now) - 1, joined(now) + 1);
            if self.state.compare_exchange(now, joining, AcqRel, Relaxed).is_err() {
                done = done.wrapping_sub(1) & 0xffff_ffff; // another worker was quicker: look again
                continue;
            }
            // SAFETY: we have joined, so the loop's owner waits until we have left.
            unsafe { &*self.job.load(Relaxed) }.work();
            self.left.fetch_add(1, Release);
        }
    }

    /// The state, as soon as it is of another loop than number `done`.
    fn next_state(&self, done: u64) -> u64 {
        for _ in 0..LOOKS {
            let now = self.state.load(Acquire);
            if number(now) != done {
                return now;
            }
            spin_loop();
        }
        let mut bed = self.bed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Counted before the last look: either we see the new loop, or its owner sees that we sleep and rings.
        self.asleep.fetch_add(1, SeqCst);
        while number(self.state.load(SeqCst)) == done {
            bed = self.bell.wait(bed).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        self.asleep.fetch_sub(1, SeqCst);
        self.state.load(Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_with_any_number_of_threads() {
        for n in [1, 2, 5, 9] {
            with_threads(n, || {
                for tasks in [0, 1, 2, 7, 100] {
                    let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                    for_each(tasks, |i| {
                        counts[i].fetch_add(1, Relaxed);
                    });
                    assert!(
                        counts.iter().all(|count| count.load(Relaxed) == 1),
                        "{tasks} tasks, {n} threads"
                    );
                }
            });
        }
    }

    #[test]
    fn chunks_cover_the_slice() {
        let mut data = vec![0; 1003];
        with_threads(4, || {
            for_each_chunk(&mut data, 100, |i, part| {
                for (j, x) in part.iter_mut().enumerate() {
                    *x = i * 100 + j;
                }
            })
        });
        assert!(data.iter().enumerate().all(|(i, &x)| i == x));
    }

    #[test]
    fn loops_in_loops_and_from_many_threads_finish() {
        let total = AtomicUsize::new(0);
        let rounds = if cfg!(miri) { 3 } else { 300 };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        with_threads(3, || {
                            for_each(5, |_| {
                                for_each(4, |_| {
                                    total.fetch_add(1, Relaxed);
                                })
                            })
                        });
                    }
                });
            }
        });
        assert_eq!(total.into_inner(), 3 * rounds * 20);
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_the_pool_lives_on() {
        with_threads(3, || {
            let payload = catch_unwind(|| for_each(50, |i| assert_ne!(i, 33, "task 33"))).unwrap_err();
            assert!(payload.downcast_ref::<String>().unwrap().contains("task 33"));
            let sum = AtomicUsize::new(0);
            for_each(10, |i| {
                sum.fetch_add(i, Relaxed);
            });
            assert_eq!(sum.into_inner(), 45);
        });
    }

    #[test]
    fn with_threads_is_undone_at_its_end() {
        let before = threads();
        with_threads(before + 3, || assert_eq!(threads(), before + 3));
        assert_eq!(threads(), before);
    }
}
