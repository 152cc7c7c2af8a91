// Owned by notebooks/05c_generator.ipynb: change a cell and run `cargo nbs export`, or change this file and run `cargo nbs update`.
// nbs:hash 62f48b153b6d0b9e
//! Random numbers that PyTorch gives too: the Mersenne Twister, and what is made from its bits.

// %% notebooks/05c_generator.ipynb ge-twist
/// How many words of 32 bits the state has.
const WORDS: usize = 624;

/// Makes the next 624 words from the last ones.
fn twist(words: &mut [u32; WORDS]) {
    let mix = |this: u32, next: u32| {
        let y = this & 0x8000_0000 | next & 0x7FFF_FFFF;
        (y >> 1) ^ ((y & 1) * 0x9908_B0DF)
    };
    for k in 0..227 {
        words[k] = words[k + 397] ^ mix(words[k], words[k + 1]);
    }
    for k in 227..623 {
        words[k] = words[k - 227] ^ mix(words[k], words[k + 1]); // 397 further on is new already
    }
    words[623] = words[396] ^ mix(words[623], words[0]);
}

// %% notebooks/05c_generator.ipynb ge-temper
/// Stirs a word of the state into one to hand out.
fn temper(mut word: u32) -> u32 {
    word ^= word >> 11;
    word ^= word << 7 & 0x9D2C_5680;
    word ^= word << 15 & 0xEFC6_0000;
    word ^ word >> 18
}

// %% notebooks/05c_generator.ipynb ge-state
use std::fmt;

/// PyTorch's generator on a CPU, MT19937: after the same calls it gives the same numbers, normal ones to the last digits.
///
/// It is not fit for secrets. It is not `Clone`: two generators with one state would give the same "random" numbers.
/// [`split`](Self::split) makes an independent one, [`state`](Self::state) stores one for later.
#[derive(PartialEq)]
pub struct Generator {
    seed: u64,
    words: [u32; WORDS],
    /// How many of the words are used up; 0 only before the first twist.
    used: usize,
    /// The second of two normal numbers, if only one was asked for.
    spare: Option<f64>,
}

// %% notebooks/05c_generator.ipynb ge-seed
fn words_from_seed(seed: u32) -> [u32; WORDS] {
    let mut words = [seed; WORDS];
    for k in 1..WORDS {
        let last = words[k - 1];
        words[k] = (last ^ last >> 30).wrapping_mul(1_812_433_253).wrapping_add(k as u32);
    }
    words
}

impl Generator {
    /// A generator from a seed, of which only the low 32 bits count: as `torch.manual_seed`.
    pub fn manual_seed(seed: u64) -> Self {
        Generator { seed, words: words_from_seed(seed as u32), used: 0, spare: None }
    }
}

/// Shows the seed and how many of the words are used up, not the words.
impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Generator { seed, used, .. } = self;
        f.debug_struct("Generator").field("seed", seed).field("used", used).finish_non_exhaustive()
    }
}

// %% notebooks/05c_generator.ipynb ge-word
/// Makes new words if all are used up.
#[inline]
fn refill(rng: &mut Generator) {
    if rng.used.is_multiple_of(WORDS) {
        twist(&mut rng.words);
        rng.used = 0;
    }
}

impl Generator {
    /// The next 32 bits.
    #[inline]
    fn word(&mut self) -> u32 {
        refill(self);
        self.used += 1;
        temper(self.words[self.used - 1])
    }

    /// The next 64 bits, the higher ones first.
    fn two_words(&mut self) -> u64 {
        let [high, low] = [self.word(), self.word()];
        u64::from(high) << 32 | u64::from(low)
    }
}

// %% notebooks/05c_generator.ipynb ge-rand
use minai::array::Array;
use minai::kernels::random;

/// A word's 24 low bits, as a number in [0, 1).
fn unit(word: u32) -> f32 {
    // By way of i32: every machine has an instruction for that.
    (word & 0xFF_FFFF) as i32 as f32 / 16_777_216.0
}

/// Fills a list with numbers in [0, 1).
fn fill(rng: &mut Generator, mut numbers: &mut [f32]) {
    while !numbers.is_empty() {
        refill(rng);
        let words = &rng.words[rng.used..];
        let (now, later) = numbers.split_at_mut(words.len().min(numbers.len()));
        for (number, &word) in now.iter_mut().zip(words) {
            *number = unit(temper(word));
        }
        rng.used += now.len();
        numbers = later;
    }
}

// %% notebooks/05c_generator.ipynb ge-uniform
fn uniform_list(rng: &mut Generator, count: usize) -> Vec<f32> {
    let mut numbers = vec![0.0; count];
    fill(rng, &mut numbers);
    numbers
}

impl Generator {
    /// Numbers in [0, 1), all equally likely: as `torch.rand`.
    pub fn rand(&mut self, shape: &[usize]) -> Array {
        Array::new(uniform_list(self, shape.iter().product()), shape)
    }

    /// Numbers in [from, to), all equally likely: as `torch.Tensor.uniform_`.
    pub fn uniform(&mut self, shape: &[usize], from: f64, to: f64) -> Array {
        let mut numbers = uniform_list(self, shape.iter().product());
        random::scale(&mut numbers, from as f32, to as f32);
        Array::new(numbers, shape)
    }
}

// %% notebooks/05c_generator.ipynb ge-normal
/// A number in [0, 1) from 53 bits, as many as a double's significand holds.
fn unit_of_64(bits: u64) -> f64 {
    (bits & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
}

/// One normal number in double precision.
fn one_normal(rng: &mut Generator) -> f64 {
    if let Some(spare) = rng.spare.take() {
        return spare;
    }
    let [u1, u2] = [rng.two_words(), rng.two_words()].map(unit_of_64);
    let (radius, angle) = ((-2.0 * (-u2).ln_1p()).sqrt(), std::f64::consts::TAU * u1);
    rng.spare = Some(radius * angle.sin());
    radius * angle.cos()
}

// %% notebooks/05c_generator.ipynb ge-normals
/// At least 16 normal numbers; the last 16 again, if the blocks leave a rest.
fn fill_normal(rng: &mut Generator, numbers: &mut [f32], mean: f32, std: f32) {
    let (len, rest) = (numbers.len(), numbers.len() % 16);
    fill(rng, numbers);
    random::box_muller(&mut numbers[..len - rest], mean, std);
    if rest > 0 {
        let last = &mut numbers[len - 16..];
        fill(rng, last);
        random::box_muller(last, mean, std);
    }
}

impl Generator {
    /// Normal numbers with this mean and standard deviation: as `torch.Tensor.normal_`, within 1e-6 of the largest.
    pub fn normal(&mut self, shape: &[usize], mean: f64, std: f64) -> Array {
        let mut numbers = vec![0.0; shape.iter().product()];
        match numbers.len() {
            0..16 => numbers.fill_with(|| (one_normal(self) * std + mean) as f32),
            _ => fill_normal(self, &mut numbers, mean as f32, std as f32),
        }
        Array::new(numbers, shape)
    }
}

// %% notebooks/05c_generator.ipynb ge-randn
use minai::ops::Random;

fn standard_normal(rng: &mut Generator, shape: &[usize]) -> Array {
    rng.normal(shape, 0.0, 1.0)
}

impl Generator {
    /// Normal numbers with mean 0 and standard deviation 1: as `torch.randn`, within 1e-6 of the largest.
    pub fn randn(&mut self, shape: &[usize]) -> Array {
        standard_normal(self, shape)
    }
}

/// `Tensor::randn(&mut rng, (2, 3))` takes its elements here.
impl Random for Generator {
    fn rand(&mut self, shape: &[usize]) -> Array {
        Generator::rand(self, shape)
    }

    fn randn(&mut self, shape: &[usize]) -> Array {
        standard_normal(self, shape)
    }
}

// %% notebooks/05c_generator.ipynb ge-whole
/// From where on PyTorch takes 64 bits for a whole number.
const WIDE: u64 = 1 << 28;

impl Generator {
    /// Whole numbers in [low, high), all equally likely: as `torch.randint`.
    ///
    /// # Panics
    /// If `low` is not below `high`.
    #[track_caller]
    pub fn randint(&mut self, low: i64, high: i64, shape: &[usize]) -> Array<i64> {
        assert!(low < high, "randint: there is no whole number from {low} to below {high}");
        let range = high.wrapping_sub(low) as u64;
        let mut draw = || {
            let bits = if range < WIDE { u64::from(self.word()) } else { self.two_words() };
            low.wrapping_add((bits % range) as i64)
        };
        Array::new((0..shape.iter().product()).map(|_| draw()).collect(), shape)
    }
}

// %% notebooks/05c_generator.ipynb ge-randperm
fn shuffled(rng: &mut Generator, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in 0..n.saturating_sub(1) {
        order.swap(i, i + rng.word() as usize % (n - i));
    }
    order
}

impl Generator {
    /// The numbers from 0 to below `n` in random order: as `torch.randperm`, for `n` below 200 million.
    pub fn randperm(&mut self, n: usize) -> Vec<usize> {
        shuffled(self, n)
    }

    /// A whole number in [0, 2⁶³): as `torch.empty((), dtype=torch.int64).random_()`, from which PyTorch's data loaders
    /// draw the seed of each epoch.
    pub fn random64(&mut self) -> u64 {
        self.two_words() & i64::MAX as u64
    }
}

// %% notebooks/05c_generator.ipynb ge-bernoulli
fn mask(rng: &mut Generator, count: usize, p: f64) -> Vec<f32> {
    uniform_list(rng, count).into_iter().map(|u| if f64::from(u) < p { 1.0 } else { 0.0 }).collect()
}

impl Generator {
    /// A mask: 1 with probability `p` (in steps of 2⁻²⁴), else 0. PyTorch draws its masks in other ways, different on
    /// different machines; these are not the same.
    ///
    /// # Panics
    /// If `p` is not from 0 to 1.
    #[track_caller]
    pub fn bernoulli(&mut self, shape: &[usize], p: f64) -> Array {
        assert!((0.0..=1.0).contains(&p), "bernoulli: {p} is no probability");
        Array::new(mask(self, shape.iter().product(), p), shape)
    }
}

// %% notebooks/05c_generator.ipynb ge-split
/// The k-th number of SplitMix64, begun at `start`.
fn splitmix64(start: u64, k: u64) -> u64 {
    let mut z = start.wrapping_add((k + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ z >> 31
}

impl Generator {
    /// A generator that is independent of this one's further numbers, from two of its words.
    pub fn split(&mut self) -> Generator {
        let seed = self.two_words();
        let words = std::array::from_fn(|k| (splitmix64(seed, k as u64) >> 32) as u32);
        Generator { seed, words, used: 0, spare: None }
    }
}

// %% notebooks/05c_generator.ipynb ge-rand-core
use rand_core::{Infallible, SeedableRng, TryRng};

fn from_number(seed: u64) -> Generator {
    Generator::manual_seed(seed)
}

/// The seed's eight bytes are the number that [`Generator::manual_seed`] takes, lowest byte first.
impl SeedableRng for Generator {
    type Seed = [u8; 8];

    fn from_seed(seed: [u8; 8]) -> Self {
        from_number(u64::from_le_bytes(seed))
    }

    fn seed_from_u64(seed: u64) -> Self {
        from_number(seed)
    }
}

// %% notebooks/05c_generator.ipynb ge-try-rng
fn fill_bytes(rng: &mut Generator, bytes: &mut [u8]) -> Result<(), Infallible> {
    rand_core::utils::fill_bytes_via_next_word(bytes, || rng.try_next_u32())
}

impl TryRng for Generator {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(self.word())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.two_words())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        fill_bytes(self, bytes)
    }
}

// %% notebooks/05c_generator.ipynb ge-bytes
/// How many bytes a state has.
const STATE_BYTES: usize = 5_056;

/// What PyTorch calls `left`, a count that includes the word that calls for the next twist.
fn words_left(rng: &Generator) -> u32 {
    if rng.used == 0 { 1 } else { (WORDS + 1 - rng.used) as u32 }
}

impl Generator {
    /// The exact state: the same 5,056 bytes as those of `torch.get_rng_state()`.
    pub fn state(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(STATE_BYTES);
        bytes.extend(self.seed.to_le_bytes());
        bytes.extend([words_left(self), 1].map(u32::to_le_bytes).concat()); // 1: has been seeded
        bytes.extend((self.used as u64).to_le_bytes());
        bytes.extend(self.words.iter().flat_map(|&word| u64::from(word).to_le_bytes()));
        bytes.extend([0; 8]);
        bytes.extend(self.spare.unwrap_or(0.0).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(u32::from(self.spare.is_some()).to_le_bytes());
        bytes.resize(STATE_BYTES, 0);
        bytes
    }
}

// %% notebooks/05c_generator.ipynb ge-invalid
use std::error;

/// Bytes that are no state of a generator: says why.
#[derive(Debug)]
pub struct InvalidState(&'static str);

impl fmt::Display for InvalidState {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let advice = "take what Generator::state or torch.get_rng_state gave";
        write!(f, "these bytes are no state of a generator: {}; {advice}", self.0)
    }
}

impl error::Error for InvalidState {}

// %% notebooks/05c_generator.ipynb ge-from-words
fn eight_bytes(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// The words of a state, each stored in eight bytes.
fn stored_words(bytes: &[u8]) -> Result<[u32; WORDS], InvalidState> {
    let mut words = [0; WORDS];
    for (k, word) in words.iter_mut().enumerate() {
        let stored = eight_bytes(bytes, 24 + 8 * k);
        *word = stored.try_into().map_err(|_| InvalidState("a word has more than 32 bits"))?;
    }
    if words.iter().all(|&word| word == 0) {
        return Err(InvalidState("all words are 0, and would stay so"));
    }
    Ok(words)
}

// %% notebooks/05c_generator.ipynb ge-from-state
fn stored_spare(bytes: &[u8]) -> Result<Option<f64>, InvalidState> {
    match eight_bytes(bytes, 5_040) as u32 {
        0 => Ok(None),
        1 => Ok(Some(f64::from_bits(eight_bytes(bytes, 5_024)))),
        _ => Err(InvalidState("a flag is neither 0 nor 1")),
    }
}

// %% notebooks/05c_generator.ipynb ge-stored
fn stored(bytes: &[u8]) -> Result<Generator, InvalidState> {
    if bytes.len() != STATE_BYTES {
        return Err(InvalidState("there must be 5,056 of them"));
    }
    let (seed, words) = (eight_bytes(bytes, 0), stored_words(bytes)?);
    let used = usize::try_from(eight_bytes(bytes, 16)).ok().filter(|&used| used <= WORDS);
    let used = used.ok_or(InvalidState("more words are used than there are"))?;
    let rng = Generator { seed, words, used, spare: stored_spare(bytes)? };
    match (eight_bytes(bytes, 8) as u32, eight_bytes(bytes, 12) as u32) {
        (left, 1) if left == words_left(&rng) => Ok(rng),
        _ => Err(InvalidState("words left and words used do not fit")),
    }
}

// %% notebooks/05c_generator.ipynb ge-restore
impl Generator {
    /// The generator whose [`state`](Self::state), or whose `torch.get_rng_state()`, this is.
    ///
    /// # Errors
    /// If the bytes are not a state.
    pub fn from_state(bytes: &[u8]) -> Result<Generator, InvalidState> {
        stored(bytes)
    }
}
