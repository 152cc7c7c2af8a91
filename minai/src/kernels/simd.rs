//! One text for every instruction set: [`Simd`] names the few vector operations that kernels need, and [`dispatch`]
//! runs a piece of [`Work`] compiled for the best set that this machine has.
//!
//! A kernel is generic over [`Simd`] and marked `#[inline(always)]`, so that it is compiled anew inside a function with
//! `#[target_feature]`: vectors then live in registers, and the same lines become AVX-512, AVX2 or NEON instructions.

use std::sync::OnceLock;

/// What a vector of floats can do. `LANES` floats are treated at once.
///
/// # Safety
/// All functions may be called only where the machine has the instruction set: inside [`Work::run`], that is.
/// Those that take a pointer read or write `LANES` floats there (or the given number); it need not be aligned.
#[allow(missing_docs, clippy::missing_safety_doc)]
pub trait Simd: Copy + 'static {
    /// `LANES` floats.
    type V: Copy;
    /// How many floats a vector holds.
    const LANES: usize;
    /// Whether there are 32 vector registers, rather than 16.
    const MANY_REGISTERS: bool;

    /// Asks for the cache line at an address, which need not be valid, to be fetched.
    unsafe fn prefetch(p: *const f32);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The first `n < LANES` floats, then zeros. No other float is touched.
    unsafe fn load_part(p: *const f32, n: usize) -> Self::V;
    /// Stores the first `n < LANES` floats only.
    unsafe fn store_part(p: *mut f32, n: usize, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once where the machine can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`.
    unsafe fn fnma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger. If `b` is NaN so is the result; if only `a` is, the result may be either.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller. If `b` is NaN so is the result; if only `a` is, the result may be either.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sqrt(a: Self::V) -> Self::V;
    /// The nearest whole number, ties to even, for |a| < 2²³.
    unsafe fn round(a: Self::V) -> Self::V;
    /// `a * 2^n` for whole `n` between -252 and 252, with overflow to infinity and underflow through subnormals.
    unsafe fn scale2(a: Self::V, n: Self::V) -> Self::V;
    /// For `a` up to 252, the way to 2^a: some n with ⌊n⌋ = ⌊a⌋, for [`Simd::scale2`], and the fraction a - ⌊a⌋ from 0 to 1.
    /// From -250 downwards, -∞ included, n may stay at -250 and the fraction at 0.
    #[inline(always)]
    unsafe fn split(a: Self::V) -> (Self::V, Self::V) {
        // SAFETY: the caller promises the instruction set.
        unsafe {
            let a = Self::max(Self::splat(-250.0), a);
            let n = Self::round(Self::sub(a, Self::splat(0.5)));
            (n, Self::sub(a, n))
        }
    }
    /// Lane by lane: `yes` where `a > b`, else (so where one is NaN) `no`.
    unsafe fn select_gt(a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// Sum of all lanes.
    unsafe fn reduce_add(a: Self::V) -> f32;
    /// The largest lane. If one is NaN the result may be any.
    unsafe fn reduce_max(a: Self::V) -> f32;
}

/// Something to be compiled once for each instruction set.
pub trait Work {
    /// What it returns.
    type Out;
    /// Does the work. Mark the implementation `#[inline(always)]`, and all generic functions that it calls.
    ///
    /// # Safety
    /// The machine must have the instruction set `S`.
    unsafe fn run<S: Simd>(self) -> Self::Out;
}

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Plain Rust: what the compiler makes of it for any machine of the target.
    Portable,
    /// NEON, which every 64-bit ARM has.
    Neon,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512F, with VL and DQ.
    Avx512,
}

/// The instruction sets that this machine has, the best last. Under Miri only the portable one is used.
pub fn levels() -> Vec<Level> {
    let all = [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512];
    all.into_iter().filter(|&level| has(level)).collect()
}

#[inline]
fn has(level: Level) -> bool {
    match level {
        Level::Portable => true,
        _ if cfg!(miri) => false,
        Level::Neon => cfg!(target_arch = "aarch64"),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => {
            let ours = is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512dq");
            ours && is_x86_feature_detected!("avx512f") && has(Level::Avx2)
        }
        #[cfg(not(target_arch = "x86_64"))]
        Level::Avx2 | Level::Avx512 => false,
    }
}

/// The instruction set that [`dispatch`] uses: the machine's best, or what the environment variable `MINAI_SIMD` names
/// (`portable`, `neon`, `avx2` or `avx512`) if the machine has that.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| {
        let levels = levels();
        let wanted = std::env::var("MINAI_SIMD").ok();
        let named =
            levels.iter().find(|level| wanted.as_deref() == Some(&*format!("{level:?}").to_lowercase()));
        *named.or(levels.last()).expect("Portable is always there")
    })
}

/// Runs `work` with the best instruction set of this machine.
pub fn dispatch<W: Work>(work: W) -> W::Out {
    // SAFETY: `level` is one that the machine has.
    unsafe { run_at(level(), work) }
}

/// Runs `work` with a given instruction set: for tests and comparisons.
///
/// # Panics
/// If the machine does not have it.
pub fn dispatch_at<W: Work>(level: Level, work: W) -> W::Out {
    assert!(
        level == self::level() || levels().contains(&level),
        "dispatch_at: this machine has no {level:?}, only {:?}",
        levels()
    );
    // SAFETY: just checked.
    unsafe { run_at(level, work) }
}

/// # Safety
/// The machine must have the level.
unsafe fn run_at<W: Work>(level: Level, work: W) -> W::Out {
    // SAFETY: what the caller promises is what each of them asks for.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => x86::run_avx512(work),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => x86::run_avx2(work),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => work.run::<neon::Neon>(),
            _ => work.run::<Portable>(),
        }
    }
}

/// Four floats in plain Rust.
#[derive(Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn zip(a: [f32; 4], b: [f32; 4], f: impl Fn(f32, f32) -> f32) -> [f32; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// 2^n for whole n from -126 to 127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;
    const MANY_REGISTERS: bool = cfg!(target_arch = "aarch64");

    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        // SAFETY: the caller promises 4 floats; no alignment is assumed beyond a float's.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        // SAFETY: as above.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> [f32; 4] {
        let mut v = [0.0; 4];
        // SAFETY: n < 4 floats can be read at p.
        unsafe { p.copy_to_nonoverlapping(v.as_mut_ptr(), n) };
        v
    }
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, n: usize, v: [f32; 4]) {
        // SAFETY: n < 4 floats can be written at p.
        unsafe { p.copy_from_nonoverlapping(v.as_ptr(), n) };
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| a / b)
    }
    // Not `mul_add`: without the instruction that is a slow call.
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        zip(zip(a, b, |a, b| a * b), c, |ab, c| ab + c)
    }
    #[inline(always)]
    unsafe fn fnma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        zip(zip(a, b, |a, b| a * b), c, |ab, c| c - ab)
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn sqrt(a: [f32; 4]) -> [f32; 4] {
        a.map(f32::sqrt)
    }
    #[inline(always)]
    unsafe fn round(a: [f32; 4]) -> [f32; 4] {
        // Adding 1.5 * 2^23 leaves no bit for a fraction.
        a.map(|a| (a + 12_582_912.0) - 12_582_912.0)
    }
    #[inline(always)]
    unsafe fn scale2(a: [f32; 4], n: [f32; 4]) -> [f32; 4] {
        zip(a, n, |a, n| {
            let half = (n as i32) >> 1;
            a * power_of_two(half) * power_of_two(n as i32 - half)
        })
    }
    #[inline(always)]
    unsafe fn select_gt(a: [f32; 4], b: [f32; 4], yes: [f32; 4], no: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| if a[i] > b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    unsafe fn reduce_add(a: [f32; 4]) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    unsafe fn reduce_max(a: [f32; 4]) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! SAFETY, for the whole module: each function needs the instruction set of its type, which the contract of
    //! [`Simd`] asks of the caller, and touches only the floats that the contract names.
    use super::{Simd, Work};
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx2,fma")]
    pub unsafe fn run_avx512<W: Work>(work: W) -> W::Out {
        unsafe { work.run::<Avx512>() }
    }

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn run_avx2<W: Work>(work: W) -> W::Out {
        unsafe { work.run::<Avx2>() }
    }

    /// Sixteen floats.
    #[derive(Clone, Copy)]
    pub struct Avx512;

    #[inline(always)]
    fn first16(n: usize) -> u16 {
        ((1_u32 << n) - 1) as u16
    }

    impl Simd for Avx512 {
        type V = __m512;
        const LANES: usize = 16;
        const MANY_REGISTERS: bool = true;

        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m512 {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m512 {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m512) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn load_part(p: *const f32, n: usize) -> __m512 {
            unsafe { _mm512_maskz_loadu_ps(first16(n), p) }
        }
        #[inline(always)]
        unsafe fn store_part(p: *mut f32, n: usize, v: __m512) {
            unsafe { _mm512_mask_storeu_ps(p, first16(n), v) }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 {
            unsafe { _mm512_fnmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: __m512, b: __m512) -> __m512 {
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sqrt(a: __m512) -> __m512 {
            unsafe { _mm512_sqrt_ps(a) }
        }
        #[inline(always)]
        unsafe fn round(a: __m512) -> __m512 {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        unsafe fn scale2(a: __m512, n: __m512) -> __m512 {
            unsafe { _mm512_scalef_ps(a, n) }
        }
        // Two instructions do what takes four elsewhere: scalef rounds n down itself.
        #[inline(always)]
        unsafe fn split(a: __m512) -> (__m512, __m512) {
            unsafe { (a, _mm512_reduce_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a)) }
        }
        #[inline(always)]
        unsafe fn select_gt(a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b), no, yes) }
        }
        #[inline(always)]
        unsafe fn reduce_add(a: __m512) -> f32 {
            unsafe { _mm512_reduce_add_ps(a) }
        }
        #[inline(always)]
        unsafe fn reduce_max(a: __m512) -> f32 {
            unsafe { _mm512_reduce_max_ps(a) }
        }
    }

    /// Eight floats.
    #[derive(Clone, Copy)]
    pub struct Avx2;

    /// All bits set in the first `n` lanes.
    #[inline(always)]
    unsafe fn first8(n: usize) -> __m256i {
        const MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast()) }
    }

    /// 2^n for whole n from -126 to 127.
    #[inline(always)]
    unsafe fn power_of_two(n: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127)))) }
    }

    impl Simd for Avx2 {
        type V = __m256;
        const LANES: usize = 8;
        const MANY_REGISTERS: bool = false;

        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> __m256 {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> __m256 {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: __m256) {
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn load_part(p: *const f32, n: usize) -> __m256 {
            unsafe { _mm256_maskload_ps(p, first8(n)) }
        }
        #[inline(always)]
        unsafe fn store_part(p: *mut f32, n: usize, v: __m256) {
            unsafe { _mm256_maskstore_ps(p, first8(n), v) }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 {
            unsafe { _mm256_fnmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: __m256, b: __m256) -> __m256 {
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sqrt(a: __m256) -> __m256 {
            unsafe { _mm256_sqrt_ps(a) }
        }
        #[inline(always)]
        unsafe fn round(a: __m256) -> __m256 {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        unsafe fn scale2(a: __m256, n: __m256) -> __m256 {
            // In two steps: 2^n itself may be too large, or too small, for a float.
            unsafe {
                let n = _mm256_cvtps_epi32(n);
                let half = _mm256_srai_epi32::<1>(n);
                let first = _mm256_mul_ps(a, power_of_two(half));
                _mm256_mul_ps(first, power_of_two(_mm256_sub_epi32(n, half)))
            }
        }
        #[inline(always)]
        unsafe fn select_gt(a: __m256, b: __m256, yes: __m256, no: __m256) -> __m256 {
            unsafe { _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) }
        }
        #[inline(always)]
        unsafe fn reduce_add(a: __m256) -> f32 {
            unsafe {
                let four = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
            }
        }
        #[inline(always)]
        unsafe fn reduce_max(a: __m256) -> f32 {
            unsafe {
                let four = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
                _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
pub use neon::Neon;

#[cfg(target_arch = "aarch64")]
mod neon {
    //! SAFETY, for the whole module: every 64-bit ARM that Rust's std supports has NEON; each function touches only the
    //! floats that the contract of [`Simd`] names.
    use super::Simd;
    use std::arch::aarch64::*;

    /// Four floats.
    #[derive(Clone, Copy)]
    pub struct Neon;

    /// 2^n for whole n from -126 to 127.
    #[inline(always)]
    unsafe fn power_of_two(n: int32x4_t) -> float32x4_t {
        unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))) }
    }

    impl Simd for Neon {
        type V = float32x4_t;
        const LANES: usize = 4;
        const MANY_REGISTERS: bool = true;

        #[inline(always)]
        unsafe fn prefetch(_: *const f32) {}
        #[inline(always)]
        unsafe fn splat(x: f32) -> float32x4_t {
            unsafe { vdupq_n_f32(x) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> float32x4_t {
            unsafe { vld1q_f32(p) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: float32x4_t) {
            unsafe { vst1q_f32(p, v) }
        }
        #[inline(always)]
        unsafe fn load_part(p: *const f32, n: usize) -> float32x4_t {
            let mut four = [0.0; 4];
            unsafe {
                p.copy_to_nonoverlapping(four.as_mut_ptr(), n);
                vld1q_f32(four.as_ptr())
            }
        }
        #[inline(always)]
        unsafe fn store_part(p: *mut f32, n: usize, v: float32x4_t) {
            let mut four = [0.0; 4];
            unsafe {
                vst1q_f32(four.as_mut_ptr(), v);
                p.copy_from_nonoverlapping(four.as_ptr(), n);
            }
        }
        #[inline(always)]
        unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vaddq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vsubq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vmulq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vdivq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmaq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn fnma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
            unsafe { vfmsq_f32(c, a, b) }
        }
        #[inline(always)]
        unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vmaxq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
            unsafe { vminq_f32(a, b) }
        }
        #[inline(always)]
        unsafe fn sqrt(a: float32x4_t) -> float32x4_t {
            unsafe { vsqrtq_f32(a) }
        }
        #[inline(always)]
        unsafe fn round(a: float32x4_t) -> float32x4_t {
            unsafe { vrndnq_f32(a) }
        }
        #[inline(always)]
        unsafe fn scale2(a: float32x4_t, n: float32x4_t) -> float32x4_t {
            unsafe {
                let n = vcvtq_s32_f32(n);
                let half = vshrq_n_s32::<1>(n);
                vmulq_f32(vmulq_f32(a, power_of_two(half)), power_of_two(vsubq_s32(n, half)))
            }
        }
        #[inline(always)]
        unsafe fn select_gt(
            a: float32x4_t,
            b: float32x4_t,
            yes: float32x4_t,
            no: float32x4_t,
        ) -> float32x4_t {
            unsafe { vbslq_f32(vcgtq_f32(a, b), yes, no) }
        }
        #[inline(always)]
        unsafe fn reduce_add(a: float32x4_t) -> f32 {
            unsafe { vaddvq_f32(a) }
        }
        #[inline(always)]
        unsafe fn reduce_max(a: float32x4_t) -> f32 {
            unsafe { vmaxvq_f32(a) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs every operation on the first lanes of three lists, and returns all results.
    struct All<'a>(&'a [f32; 16], &'a [f32; 16], &'a [f32; 16]);

    impl Work for All<'_> {
        type Out = Vec<f32>;

        #[inline(always)]
        unsafe fn run<S: Simd>(self) -> Vec<f32> {
            let mut all = Vec::new();
            // SAFETY: 16 floats are there, no set has more lanes.
            unsafe {
                let [a, b, c] = [self.0, self.1, self.2].map(|list| S::load(list.as_ptr()));
                let results = [
                    S::add(a, b),
                    S::sub(a, b),
                    S::mul(a, b),
                    S::div(a, b),
                    S::fma(a, b, c),
                    S::fnma(a, b, c),
                    S::max(a, b),
                    S::min(a, b),
                    S::sqrt(a),
                    S::round(b),
                    S::scale2(a, c),
                    S::select_gt(a, b, c, a),
                    S::splat(2.5),
                    S::load_part(self.0.as_ptr(), S::LANES - 1),
                ];
                for result in results {
                    let mut lanes = [7.0; 16];
                    S::store(lanes.as_mut_ptr(), result);
                    all.extend_from_slice(&lanes[..4]);
                    let mut part = [7.0; 16];
                    S::store_part(part.as_mut_ptr(), 3, result);
                    assert_eq!((&part[..3], part[3]), (&lanes[..3], 7.0));
                    let sum: f32 = lanes[..S::LANES].iter().sum();
                    assert!((S::reduce_add(result) - sum).abs() <= 1e-5 * sum.abs().max(1.0));
                    assert_eq!(
                        S::reduce_max(result),
                        lanes[..S::LANES].iter().copied().fold(f32::MIN, f32::max)
                    );
                }
            }
            all.truncate(all.len() - 1); // the last lane of load_part is 0 only where LANES is 4
            all
        }
    }

    #[test]
    fn every_level_computes_the_same() {
        let a: [f32; 16] = std::array::from_fn(|i| 0.3 + i as f32 * 1.7);
        let b: [f32; 16] = std::array::from_fn(|i| 9.5 - i as f32 * 2.0);
        let c: [f32; 16] = std::array::from_fn(|i| i as f32 - 3.0);
        let portable = dispatch_at(Level::Portable, All(&a, &b, &c));
        for level in levels() {
            for (x, y) in dispatch_at(level, All(&a, &b, &c)).iter().zip(&portable) {
                assert!((x - y).abs() <= 1e-6 * y.abs(), "{level:?}: {x} for {y}");
            }
        }
    }

    #[test]
    fn splitting_gives_the_power_of_two_and_nan_is_not_lost() {
        struct Split(f32);
        impl Work for Split {
            type Out = [f32; 4];
            #[inline(always)]
            unsafe fn run<S: Simd>(self) -> [f32; 4] {
                unsafe {
                    let (n, fraction) = S::split(S::splat(self.0));
                    let power = S::scale2(S::splat(1.0), n);
                    let limited = S::min(S::splat(9.0), S::max(S::splat(0.0), S::splat(self.0)));
                    let mut lanes = [[0.0; 16]; 3];
                    for (lanes, v) in lanes.iter_mut().zip([fraction, power, limited]) {
                        S::store(lanes.as_mut_ptr(), v);
                    }
                    [lanes[0][0], lanes[1][0], lanes[2][0], self.0 - self.0.floor()]
                }
            }
        }
        for level in levels() {
            for a in [0.0, 0.25, -0.25, 7.75, -7.75, -126.0, 100.5] {
                let [fraction, power, _, expected] = dispatch_at(level, Split(a));
                let product = (fraction.exp2() * power / a.exp2() - 1.0).abs();
                assert!(
                    product < 1e-6 && (0.0..=1.0).contains(&fraction),
                    "{level:?}, {a}: {fraction}, {expected}"
                );
            }
            let [fraction, power, ..] = dispatch_at(level, Split(f32::NEG_INFINITY));
            assert_eq!((fraction, power), (0.0, 0.0), "{level:?}");
            let [fraction, _, limited, _] = dispatch_at(level, Split(f32::NAN));
            assert!(fraction.is_nan() && limited.is_nan(), "{level:?}");
        }
    }

    #[test]
    fn scaling_goes_through_subnormals_and_to_infinity() {
        struct Scale(f32, f32);
        impl Work for Scale {
            type Out = f32;
            #[inline(always)]
            unsafe fn run<S: Simd>(self) -> f32 {
                unsafe { S::reduce_max(S::scale2(S::splat(self.0), S::splat(self.1))) }
            }
        }
        for level in levels() {
            assert_eq!(dispatch_at(level, Scale(1.5, -140.0)), 1.5 * 2f32.powi(-100) * 2f32.powi(-40));
            assert_eq!(dispatch_at(level, Scale(1.0, 128.0)), f32::INFINITY);
            assert_eq!(dispatch_at(level, Scale(1.0, -160.0)), 0.0);
        }
    }
}
