//! Random numbers from named, counter-based streams.
//!
//! Every purpose (initial weights, a phase's new data, a row of generated text) draws from a
//! stream of its own, keyed by the seed and the purpose's name, and any sequence of a stream can be
//! reached directly. Results therefore depend neither on threads nor on the order of arms.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// A named random stream: independent sequences, each reached by its number.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u8; 32],
}

impl Stream {
    /// The stream of `seed` for `purpose`.
    pub fn new(seed: u64, purpose: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("forgetlab random stream v1");
        hasher.update(&seed.to_le_bytes());
        hasher.update(purpose.as_bytes());
        Self {
            key: *hasher.finalize().as_bytes(),
        }
    }

    /// The beginning of sequence number `index`.
    pub fn at(&self, index: u64) -> Random {
        let mut rng = ChaCha8Rng::from_seed(self.key);
        rng.set_stream(index);
        Random { rng, spare: None }
    }
}

/// One sequence of random numbers.
#[derive(Clone, Debug)]
pub struct Random {
    rng: ChaCha8Rng,
    /// The second of the last pair of normal numbers.
    spare: Option<f32>,
}

impl Random {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻²⁴.
    pub fn uniform(&mut self) -> f32 {
        (self.rng.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in `0..bound`, without bias; `bound` must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Lemire's method: reject the few values that would be drawn once too often.
        let threshold = bound.wrapping_neg() % bound;
        loop {
            let wide = self.rng.next_u64() as u128 * bound as u128;
            if wide as u64 >= threshold {
                return (wide >> 64) as u64;
            }
        }
    }

    /// The same sequence after so many of its [`normal`](Self::normal) numbers; `count` must be even, and nothing may
    /// have been drawn yet.
    pub(crate) fn after_normals(mut self, count: usize) -> Self {
        debug_assert!(count.is_multiple_of(2) && self.rng.get_word_pos() == 0);
        // A pair takes two numbers of two words each.
        self.rng.set_word_pos(2 * count as u128);
        self
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&mut self) -> f32 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let u = 1.0 - (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        let v = (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64);
        let (sin, cos) = (std::f64::consts::TAU * v).sin_cos();
        let radius = (-2.0 * u.ln()).sqrt();
        self.spare = Some((radius * sin) as f32);
        (radius * cos) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_seed_purpose_and_index_and_repeat() {
        let first = |seed, purpose, index| Stream::new(seed, purpose).at(index).bits();
        assert_eq!(first(1, "a", 0), first(1, "a", 0));
        assert_ne!(first(1, "a", 0), first(2, "a", 0));
        assert_ne!(first(1, "a", 0), first(1, "b", 0));
        assert_ne!(first(1, "a", 0), first(1, "a", 1));
    }

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut random = Stream::new(0, "test").at(0);
        let xs: Vec<f64> = (0..100_000).map(|_| random.normal() as f64).collect();
        let mean = xs.iter().sum::<f64>() / xs.len() as f64;
        let var = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / xs.len() as f64;
        assert!(
            mean.abs() < 0.02 && (var - 1.0).abs() < 0.03,
            "{mean} {var}"
        );
    }

    #[test]
    fn below_reaches_every_value_evenly() {
        let mut random = Stream::new(0, "test").at(0);
        let mut counts = [0; 7];
        for _ in 0..70_000 {
            counts[random.below(7) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&c| (c - 10_000_i32).abs() < 500),
            "{counts:?}"
        );
    }
}
