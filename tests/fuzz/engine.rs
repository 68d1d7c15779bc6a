//! A small mutational fuzzer for the stable toolchain: seeds are cut, spliced, repeated and sprinkled with words of the
//! format, and what makes the target answer in a new way becomes a seed itself.
//!
//! Targets stand beside this file and are compiled into the module that they try, so that nothing is public for them alone.
//! `cargo test --lib fuzz` runs each for a moment. `HUB_FUZZ_RUNS=1000000` runs longer, `HUB_FUZZ_SEED` elsewhere. What was
//! found is printed as a byte string: it belongs to the seeds of its target.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Inputs a target is tried with where nobody says more.
const RUNS: u64 = 3000;
/// Longer inputs are cut.
const LONGEST: usize = 4096;
/// More seeds than this are not kept.
const MOST_SEEDS: usize = 4000;
/// No answer to so short an input may take as much of a processor.
const SLOW: Duration = Duration::from_secs(2);

/// What this thread has used of its processor: on a busy host the time on the wall says nothing.
fn used() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Numbers that look random and are the same for the same seed (Vigna's xorshift64*).
pub struct Dice(u64);

impl Dice {
    /// Starts from a number.
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// A number below `limit`; 0 where that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16;
        if limit == 0 { 0 } else { (number % limit as u64) as usize }
    }

    /// One of these.
    pub fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// Tries a target with what comes of `seeds` and the `words` of its format.
///
/// The target panics where something is wrong, and returns how it answered, coarsely: of two inputs that it answers alike
/// one is kept.
pub fn fuzz<A: Hash>(name: &str, seeds: &[&[u8]], words: &[&[u8]], target: impl Fn(&[u8]) -> A) {
    let number = |name: &str, usual| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual);
    let (runs, seed) = (number("HUB_FUZZ_RUNS", RUNS), number("HUB_FUZZ_SEED", 1));
    let mut dice = Dice::new(seed);
    let mut kept: Vec<Vec<u8>> = seeds.iter().map(|seed| seed.to_vec()).collect();
    let mut answers = HashSet::new();
    let mut attempt = |input: &[u8]| -> bool {
        let before = used();
        let answer = catch_unwind(AssertUnwindSafe(|| target(input)));
        let took = used().saturating_sub(before);
        assert!(took < SLOW, "{name}: {took:?} for b\"{}\"", input.escape_ascii());
        let Ok(answer) = answer else { panic!("{name}: b\"{}\"", input.escape_ascii()) };
        let mut hash = DefaultHasher::new();
        answer.hash(&mut hash);
        answers.insert(hash.finish())
    };
    for seed in seeds {
        attempt(seed);
    }
    for _ in 0..runs {
        let input = mutated(&kept, words, &mut dice);
        if attempt(&input) && kept.len() < MOST_SEEDS {
            kept.push(input);
        }
    }
    eprintln!("{name}: {runs} inputs, {} answers", answers.len());
}

fn mutated(seeds: &[Vec<u8>], words: &[&[u8]], dice: &mut Dice) -> Vec<u8> {
    let mut input = dice.one(seeds).clone();
    for _ in 0..=dice.below(6) {
        let at = dice.below(input.len() + 1);
        let end = at + dice.below((input.len() - at).min(64) + 1);
        match dice.below(9) {
            0 if at < input.len() => input[at] ^= 1 << dice.below(8),
            1 if at < input.len() => input[at] = dice.below(256) as u8,
            2 => {
                input.drain(at..end);
            }
            3 => {
                let part = input[at..end].to_vec();
                let most = if dice.below(20) == 0 { 60 } else { 3 };
                let times = 1 + dice.below(most);
                input.splice(at..at, part.repeat(times));
            }
            4 => {
                let other = dice.one(seeds);
                let from = dice.below(other.len() + 1);
                let until = from + dice.below(other.len() - from + 1);
                input.splice(at..end, other[from..until].iter().copied());
            }
            5 => input.truncate(at),
            6 => input.insert(at, *dice.one(b"\0\n\r\t \"'\\/[]{}:,=%\x7f\x80\xc3\xe2\xff")),
            _ if !words.is_empty() => {
                let word = *dice.one(words);
                let until = if dice.below(2) == 0 { at } else { end };
                input.splice(at..until, word.iter().copied());
            }
            _ => {}
        }
        input.truncate(LONGEST);
    }
    input
}
