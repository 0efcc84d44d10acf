//! A random order of any number of things that takes no memory and no time to make.

use forgetlab_engine::Random;

/// Times each thing may change places. Few would leave the order of few things visible in the result.
const ROUNDS: usize = 64;

/// A random permutation of `0..len`, computed where it is asked: the swap-or-not shuffle of Hoang, Morris and Rogaway
/// (CRYPTO 2012).
///
/// In every round each index has a partner, `shift − index` modulo `len`, and the two change places or do not, which a
/// hash of the larger one decides.
#[derive(Clone, Debug)]
pub(super) struct Permutation {
    len: u64,
    /// Shift and key of every round.
    rounds: [(u64, u64); ROUNDS],
}

impl Permutation {
    /// The permutation of `0..len` that a random sequence decides; `len` must not be 0.
    pub(super) fn new(random: &mut Random, len: u64) -> Self {
        let rounds = [(); ROUNDS].map(|()| (random.below(len), random.bits()));
        Self { len, rounds }
    }

    /// What stands at a place below `len`.
    pub(super) fn at(&self, place: u64) -> u64 {
        let mut index = place;
        for (shift, key) in self.rounds {
            let partner = match shift >= index {
                true => shift - index,
                false => shift + (self.len - index),
            };
            if mixed(index.max(partner) ^ key) & 1 == 1 {
                index = partner;
            }
        }
        index
    }
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of the word.
fn mixed(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use forgetlab_engine::Stream;

    use super::*;

    fn order(seed: u64, len: u64) -> Vec<u64> {
        let permutation = Permutation::new(&mut Stream::new(seed, "test").at(0), len);
        (0..len).map(|place| permutation.at(place)).collect()
    }

    /// Rows that come twice in an epoch, or never, would make another dataset of the file.
    #[test]
    fn everything_comes_exactly_once() {
        for len in [1, 2, 3, 4, 5, 7, 8, 64, 100, 1023, 10_007] {
            let mut order = order(len, len);
            order.sort_unstable();
            assert!(order.iter().copied().eq(0..len), "{len}");
        }
    }

    /// A held-out set that favours some rows, or neighbours, would not stand for the text.
    #[test]
    fn every_order_is_as_likely_as_every_other() {
        let mut orders = std::collections::BTreeMap::<Vec<u64>, i64>::new();
        for seed in 0..24_000 {
            *orders.entry(order(seed, 4)).or_default() += 1;
        }
        assert_eq!(orders.len(), 24);
        let chi = |counts: &mut dyn Iterator<Item = i64>, expected: i64| -> f64 {
            let squares = counts.map(|count| ((count - expected) * (count - expected)) as f64);
            squares.sum::<f64>() / expected as f64
        };
        // 23 degrees of freedom: above 49.7 in one of a thousand.
        let found = chi(&mut orders.into_values(), 1000);
        assert!(found < 49.7, "{found}");
        // Where each of 50 things stands, and what stands behind it: 2499 degrees of freedom, above 2721 in one of a
        // thousand.
        let mut places = vec![0; 2500];
        let mut behind = vec![0; 2500];
        for seed in 0..5000 {
            let order = order(seed, 50);
            for (place, &index) in order.iter().enumerate() {
                places[place * 50 + index as usize] += 1;
            }
            for pair in order.windows(2) {
                behind[(pair[0] * 50 + pair[1]) as usize] += 1;
            }
        }
        let found = chi(&mut places.into_iter(), 100);
        assert!(found < 2721.0, "{found}");
        // Nothing stands behind itself: 49 pairs in 5000 orders, of 50 · 49.
        let pairs = behind.into_iter().enumerate();
        let found = chi(
            &mut pairs.filter(|(i, _)| i / 50 != i % 50).map(|(_, n)| n),
            100,
        );
        assert!(found < 2670.0, "{found}");
    }
}
