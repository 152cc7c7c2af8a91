// Owned by notebooks/01_foundations.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 459d0f25b38b64e0
//! Random numbers from a state that you can see: the Wichmann-Hill generator, split into streams, and safe from `fork`.

// %% notebooks/01_foundations.ipynb rn-wh
/// The Wichmann-Hill generator: three multiplicative generators, summed (Algorithm AS 183, Applied Statistics 31, 1982).
///
/// Its period is 6.95·10¹². It is not fit for secrets. It is not `Clone`: two generators with one state
/// would give the same "random" numbers. [`split`](Self::split) makes independent ones.
#[derive(Debug, PartialEq, Eq)]
pub struct WichmannHill {
    x: u32,
    y: u32,
    z: u32,
}

impl WichmannHill {
    /// A generator from a seed. Seeds that differ by a multiple of 30268·30306·30322 give the same numbers.
    pub fn seed(seed: u64) -> Self {
        let (rest, x) = (seed / 30268, seed % 30268);
        let (rest, y) = (rest / 30306, rest % 30306);
        let z = rest % 30322;
        WichmannHill { x: x as u32 + 1, y: y as u32 + 1, z: z as u32 + 1 }
    }
}

// %% notebooks/01_foundations.ipynb rn-wh-draw
impl WichmannHill {
    /// The state: x from 1 to 30268, y from 1 to 30306, z from 1 to 30322.
    pub fn state(&self) -> (u32, u32, u32) {
        (self.x, self.y, self.z)
    }

    /// A number in [0, 1).
    #[inline]
    pub fn uniform(&mut self) -> f64 {
        self.x = self.x * 171 % 30269;
        self.y = self.y * 172 % 30307;
        self.z = self.z * 170 % 30323;
        let sum = self.x as f64 / 30269.0 + self.y as f64 / 30307.0 + self.z as f64 / 30323.0;
        // The sum is below 3, so cutting its whole part off through an integer is exact, and much faster than `%`.
        sum - sum as i32 as f64
    }

    /// Fills `numbers` with what that many calls of [`uniform`](Self::uniform) would return.
    pub fn fill(&mut self, numbers: &mut [f64]) {
        numbers.fill_with(|| self.uniform());
    }
}

// %% notebooks/01_foundations.ipynb rn-core
use rand_core::{Infallible, Rng, SeedableRng, TryRng};

const TWO_TO_THE_32: f64 = 4_294_967_296.0;

/// 32 bits are the leading ones of one draw; 64 bits are two draws, the first on top.
impl TryRng for WichmannHill {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok((self.uniform() * TWO_TO_THE_32) as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let [high, low] = [self.next_u32(), self.next_u32()];
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        rand_core::utils::fill_bytes_via_next_word(bytes, || self.try_next_u32())
    }
}

// %% notebooks/01_foundations.ipynb rn-core-seed
/// The seed's eight bytes are the number that [`WichmannHill::seed`] takes, lowest byte first.
impl SeedableRng for WichmannHill {
    type Seed = [u8; 8];

    fn from_seed(seed: [u8; 8]) -> Self {
        WichmannHill::seed(u64::from_le_bytes(seed))
    }

    fn seed_from_u64(seed: u64) -> Self {
        WichmannHill::seed(seed)
    }
}

// %% notebooks/01_foundations.ipynb fk-split
/// `factor` to the power of 2³², modulo `modulus` (below 2¹⁶, so that no product overflows).
const fn squared_32_times(factor: u32, modulus: u32) -> u32 {
    let (mut power, mut squarings) = (factor, 0);
    while squarings < 32 {
        power = power * power % modulus;
        squarings += 1;
    }
    power
}

impl WichmannHill {
    /// A generator for the next 2³² draws; this one goes on after them.
    ///
    /// The streams of up to 1,618 calls do not overlap, as long as none draws more than 2³² numbers.
    /// Split one generator for all workers: what the parts of a split are split into would overlap.
    pub fn split(&mut self) -> WichmannHill {
        let stream = WichmannHill { x: self.x, y: self.y, z: self.z };
        self.x = self.x * squared_32_times(171, 30269) % 30269;
        self.y = self.y * squared_32_times(172, 30307) % 30307;
        self.z = self.z * squared_32_times(170, 30323) % 30323;
        stream
    }
}

// %% notebooks/01_foundations.ipynb fk-aware
/// A generator that notices when its process was forked, and then seeds itself anew in the child.
///
/// The child's seed is made from the generator's next 64 bits and the number of the process.
#[derive(Debug)]
pub struct ForkAware<R> {
    rng: R,
    process: u32,
}

impl<R: Rng + SeedableRng> ForkAware<R> {
    /// Wraps a generator made in this process.
    pub fn new(rng: R) -> Self {
        ForkAware { rng, process: std::process::id() }
    }

    /// The generator inside, seeded anew if this is another process than before.
    pub fn get(&mut self) -> &mut R {
        let process = std::process::id();
        if process != self.process {
            let spread = u64::from(process).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            *self = ForkAware { rng: R::seed_from_u64(self.rng.next_u64() ^ spread), process };
        }
        &mut self.rng
    }
}

// %% notebooks/01_foundations.ipynb fk-aware-rng
impl<R: Rng + SeedableRng> TryRng for ForkAware<R> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.get().try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.get().try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.get().try_fill_bytes(bytes)
    }
}
