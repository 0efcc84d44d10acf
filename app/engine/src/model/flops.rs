//! FLOPs of a model's work, two a multiplication with its addition.
//!
//! These are model FLOPs: products of matrices and of attention that the work asks for, each counted once.
//! Padding, activations computed again for a backward, norms, activation functions, the optimizer and lookups
//! of embeddings do not count. The vocabulary projection counts at positions that are scored (whose next token
//! has a loss, or is sampled), as no other position needs it.

use super::ModelConfig;

/// Multiplications of one row, by what a backward does with them.
struct Products {
    /// With weights.
    weights: f64,
    /// Of queries with keys, and of probabilities with values.
    attention: f64,
}

impl ModelConfig {
    /// FLOPs of the forward of a row of `tokens` tokens T, `scored` of them S scored:
    /// `2 T W + 2 S V D + 2 L N H T (T + 1)`.
    ///
    /// W are the weights of the blocks' matrices. The last term is causal attention: the token at position t,
    /// from 1, attends to t tokens, or, in a window of w, to the last w of them.
    pub fn forward_flops(&self, tokens: usize, scored: usize) -> f64 {
        let products = self.products(tokens, scored);
        2.0 * (products.weights + products.attention)
    }

    /// FLOPs of forward and backward of a row: three forwards, since a backward needs two products (for the
    /// gradients of both factors) for each of the forward's.
    ///
    /// With `adapters` weights in adapters A in all, `4 T W + 4 S V D + 6 L N H T (T + 1) + 4 T A`: no gradient of
    /// a frozen matrix is needed, and adapters take part in the forward merged into the matrices, so that their
    /// own products are those of the backward.
    pub fn training_flops(&self, tokens: usize, scored: usize, adapters: Option<usize>) -> f64 {
        let Products { weights, attention } = self.products(tokens, scored);
        let products = match adapters {
            None => 3.0 * weights + 3.0 * attention,
            Some(adapters) => {
                2.0 * weights + 3.0 * attention + 2.0 * tokens as f64 * adapters as f64
            }
        };
        2.0 * products
    }

    /// FLOPs of writing a row of `tokens` tokens, of which the first `prompt` are given: with a KV cache, the
    /// forward of all but the last token, every written one scored.
    pub fn generation_flops(&self, prompt: usize, tokens: usize) -> f64 {
        match tokens.saturating_sub(prompt) {
            0 => 0.0,
            written => self.forward_flops(tokens - 1, written),
        }
    }

    fn products(&self, tokens: usize, scored: usize) -> Products {
        let (d, q) = (self.d_model, self.q_width());
        let block = d * (self.qkv_width() + q + self.up_width() + self.d_ff);
        let blocks = (self.n_layers * block) as f64 * tokens as f64;
        let head = (self.vocab_size * d) as f64 * scored as f64;
        // Twice the pairs of tokens of which one attends to the other, in all blocks.
        let pairs = |attended: usize| attended as f64 * (2 * tokens + 1 - attended) as f64;
        let windowed = |l: usize| pairs(self.window(l).map_or(tokens, |window| window.min(tokens)));
        let pairs: f64 = (0..self.n_layers).map(windowed).sum();
        Products {
            weights: blocks + head,
            attention: q as f64 * pairs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Blocks, Layout, LoraConfig, LoraLayout, Window};

    /// Else what arms paid would be compared by wrong figures.
    #[test]
    fn flops_of_a_tiny_model_are_those_counted_by_hand() {
        // D = 8, L = 2, N = 2, K = 1, H = 4, F = 6, V = 10. A block: qkv 8 x 16, out 8 x 8, gate and up 8 x 12,
        // down 6 x 8, in all 336 weights.
        let llama = ModelConfig::llama(8, 2, [2, 1, 4], 6, 10);
        // Three tokens through two blocks; two of them scored.
        let (weights, head) = (3 * 2 * 336, 2 * 10 * 8);
        // Two blocks, two heads of 4, queries with keys and probabilities with values; 1 + 2 + 3 pairs.
        let attention = 2 * 2 * 4 * 2 * 6;
        let forward = 2 * (weights + head + attention);
        assert_eq!(llama.forward_flops(3, 2), f64::from(forward));
        assert_eq!(
            llama.training_flops(3, 2, None),
            f64::from(3 * forward),
            "a backward costs two forwards"
        );
        // Rank 1: q 8 + 8, k and v 8 + 4 each, out 8 + 8, gate and up 8 + 6 each, down 6 + 8; two blocks.
        let config = LoraConfig {
            rank: 1,
            alpha: 2.0,
        };
        let adapters = LoraLayout::new(config, &Layout::new(llama)).len;
        assert_eq!(adapters, 2 * (16 + 12 + 12 + 16 + 14 + 14 + 14));
        let expected = 2 * (2 * (weights + head) + 3 * attention + 2 * 3 * adapters as i32);
        assert_eq!(
            llama.training_flops(3, 2, Some(adapters)),
            f64::from(expected)
        );

        // The second block attends to two tokens: 1 + 2 + 2 pairs in place of 1 + 2 + 3.
        let mut windowed = llama;
        windowed.parts.window = Some(Window {
            blocks: Blocks::from_bits(0b10),
            len: 2,
            rope: None,
        });
        let fewer = forward - 2 * 2 * 2 * 4;
        assert_eq!(windowed.forward_flops(3, 2), f64::from(fewer));

        // D = 4, L = 1, N = 2, H = 2, F = 16: qkv 4 x 12, out 4 x 4, up 4 x 16, down 16 x 4.
        let mini = ModelConfig::mini(4, 1, 2, 5);
        let forward = 2 * (2 * (48 + 16 + 64 + 64) + 5 * 4 + 2 * 2 * 2 * 3);
        assert_eq!(mini.forward_flops(2, 1), f64::from(forward));
        assert_eq!(mini.forward_flops(0, 0), 0.0);
        // One token given, two written: two pass through the model, and both are followed by a sampled one.
        let written = 2 * (2 * (48 + 16 + 64 + 64) + 2 * 5 * 4 + 2 * 2 * 2 * 3);
        assert_eq!(mini.generation_flops(1, 3), f64::from(written));
        assert_eq!(mini.generation_flops(3, 3), 0.0, "nothing was written");
    }
}
