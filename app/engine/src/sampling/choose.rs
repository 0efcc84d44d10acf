//! Choice of the next token from its logits.

use crate::ops::simd::{LANES, exp, fold, maximum, multiversion};
use crate::random::Random;

use super::Sampling;

impl Sampling {
    /// Chooses a token from its logits `[V]`, which are overwritten, as is `scratch`.
    pub(crate) fn choose(
        &self,
        logits: &mut [f32],
        random: &mut Random,
        scratch: &mut Vec<f32>,
    ) -> u32 {
        if self.temperature <= 0.0 {
            return argmax(logits);
        }
        if self.top_k.is_some() || self.top_p.is_some() {
            self.truncate(logits, scratch);
        }
        let u = random.uniform();
        draw(logits, 1.0 / self.temperature, u)
    }

    /// Sets the logits of the tokens that top-k and top-p leave out to −∞.
    fn truncate(&self, logits: &mut [f32], scratch: &mut Vec<f32>) {
        // Keys that sort the largest logit first, and the lowest id among equals.
        let key = |(i, x): (usize, &f32)| u64::from(!ascending(*x)) << 32 | i as u64;
        let mut keys: Vec<u64> = logits.iter().enumerate().map(key).collect();
        let mut kept = self
            .top_k
            .map_or(keys.len(), |k| (k.max(1) as usize).min(keys.len()));
        if kept < keys.len() {
            keys.select_nth_unstable(kept);
        }
        keys[..kept].sort_unstable();
        let order: Vec<u32> = keys.into_iter().map(|key| key as u32).collect();
        if let Some(top_p) = self.top_p {
            let largest = logits[order[0] as usize];
            scratch.clear();
            let weight = |&i: &u32| ((logits[i as usize] - largest) / self.temperature).exp();
            scratch.extend(order[..kept].iter().map(weight));
            let enough = top_p * scratch.iter().sum::<f32>();
            let mut sum = 0.0;
            let reached = scratch.iter().position(|p| {
                sum += p;
                sum >= enough
            });
            kept = reached.map_or(kept, |i| i + 1);
        }
        for &i in &order[kept..] {
            logits[i as usize] = f32::NEG_INFINITY;
        }
    }
}

/// Bits that sort as the floats do ([`f32::total_cmp`]).
fn ascending(x: f32) -> u32 {
    let bits = x.to_bits();
    bits ^ if bits >> 31 == 0 { 1 << 31 } else { u32::MAX }
}

/// The first of the largest logits.
fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = i;
        }
    }
    best as u32
}

/// Logits whose probabilities are summed together when a token is drawn.
const GROUP: usize = 16 * LANES;

multiversion! {
    /// Inverts the cumulative distribution at `u` in `[0, 1)`; a token of probability 0 is never drawn.
    fn draw(logits: &mut [f32], inv_temperature: f32, u: f32) -> u32 {
        let max = maximum(logits);
        let mut total = 0.0;
        for group in logits.chunks_mut(GROUP) {
            for x in group.iter_mut() {
                // `exp` stops at e^-87, but a truncated token must have probability 0.
                let z = (*x - max) * inv_temperature;
                *x = if z < -80.0 { 0.0 } else { exp(z) };
            }
            total += sum(group);
        }
        // Whole groups are skipped by their sums; within the group where the sum passes `u`, token by token.
        let mut left = u * total;
        let mut last = 0;
        for (g, group) in logits.chunks(GROUP).enumerate() {
            let sum = sum(group);
            if left >= sum {
                left -= sum;
                continue;
            }
            for (i, &p) in group.iter().enumerate() {
                if p > 0.0 {
                    last = g * GROUP + i;
                    if left < p {
                        return last as u32;
                    }
                    left -= p;
                }
            }
            // Rounding: the group's last token with any probability.
            return last as u32;
        }
        // Rounding: the last token with any probability.
        logits.iter().rposition(|&p| p > 0.0).unwrap_or(last) as u32
    }
}

/// `Σ x` in a fixed order.
#[inline(always)]
fn sum(x: &[f32]) -> f32 {
    let (body, tail) = x.as_chunks::<LANES>();
    let mut acc = [0f32; LANES];
    for x in body {
        for l in 0..LANES {
            acc[l] += x[l];
        }
    }
    tail.iter().fold(fold(acc), |sum, x| sum + x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    #[test]
    fn top_k_and_top_p_leave_the_rest_out() {
        let logits: Vec<f32> = vec![0.0, 3.0, 1.0, 2.9, -5.0, 0.5];
        let mut random = Stream::new(0, "t").at(0);
        let mut chosen = |sampling: Sampling| {
            let mut tokens = std::collections::BTreeSet::new();
            for _ in 0..2000 {
                tokens.insert(sampling.choose(&mut logits.clone(), &mut random, &mut Vec::new()));
            }
            tokens.into_iter().collect::<Vec<_>>()
        };
        assert_eq!(
            chosen(Sampling {
                top_k: Some(2),
                ..Sampling::default()
            }),
            [1, 3]
        );
        assert_eq!(
            chosen(Sampling {
                top_p: Some(0.5),
                ..Sampling::default()
            }),
            [1, 3]
        );
        assert_eq!(
            chosen(Sampling {
                top_p: Some(0.1),
                ..Sampling::default()
            }),
            [1]
        );
        assert_eq!(
            chosen(Sampling {
                top_k: Some(1),
                ..Sampling::default()
            }),
            [1]
        );
        assert_eq!(chosen(Sampling::greedy()), [1]);
        assert_eq!(
            chosen(Sampling {
                temperature: 4.0,
                ..Sampling::default()
            })
            .len(),
            6
        );
    }

    #[test]
    fn the_largest_u_still_draws_a_token_with_probability() {
        let mut logits = vec![f32::NEG_INFINITY; 40];
        logits[17] = 0.0;
        logits[18] = 0.0;
        assert_eq!(draw(&mut logits, 1.0, 0.999_999_94), 18);
    }
}
