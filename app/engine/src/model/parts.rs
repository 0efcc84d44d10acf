//! What the blocks of other families have that Llama's have not.
//!
//! Together with [`ModelConfig`](super::ModelConfig) this is the one description of a block: forward and backward
//! follow it, on every device, and no family has code of its own there.

use crate::ops::rope::Rope;

/// What is unlike Llama, each part with a value that leaves it out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parts {
    /// Whether queries, keys and values have biases, `[(N + 2 K) H]` together.
    pub qkv_bias: bool,
    /// Gains of norms of queries and keys, before they are rotated.
    pub qk_gains: QkGains,
    /// Where the norms of the residual stream are.
    pub norms: Norms,
    /// What is added to the weights of every norm to make its gains: 1 where gains of 1 are stored as 0.
    pub gain_offset: f32,
    /// Factor of the scores of attention; `None` for `1/√H`.
    pub attention_scale: Option<f32>,
    /// Factor of the input embedding.
    pub embedding_scale: f32,
    /// Factor of what each half of a block adds to the residual stream.
    pub residual_scale: f32,
    /// Factor of the logits; other than 1 only where norms have gains.
    pub logits_scale: f32,
    /// Blocks whose queries and keys are not rotated.
    pub unrotated: Blocks,
    /// Blocks that attend to the last positions alone.
    pub window: Option<Window>,
}

/// Gains of norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QkGains {
    /// No gains, and no norm unless [`ModelConfig::qk_norm`](super::ModelConfig::qk_norm) says so.
    None,
    /// Each head is normalised; gains `[H]` of all heads of queries, and `[H]` of all heads of keys.
    Head,
    /// All queries of a position are normalised together, with gains `[N H]`, and all keys, with gains `[K H]`.
    Projection,
}

/// Where the norms of the residual stream are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// Before attention and before the MLP.
    Before,
    /// After them: what they add to the residual stream is normalised, their inputs are not.
    After,
    /// Before and after them.
    Around,
}

/// Attention to the last positions alone, in some blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    /// The blocks.
    pub blocks: Blocks,
    /// The positions, its own and those before, that a position attends to.
    pub len: usize,
    /// Settings of RoPE in these blocks, where they differ from those of the others.
    pub rope: Option<Rope>,
}

/// A set of blocks, by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks([u64; Self::MOST / 64]);

/// A vector of a block, in the order of the layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vector {
    /// Gains of the norm before attention `[D]`.
    AttentionNorm,
    /// Gains of the norm before the MLP `[D]`.
    MlpNorm,
    /// Gains of the norm of attention's output `[D]`.
    AttentionPostNorm,
    /// Gains of the norm of the MLP's output `[D]`.
    MlpPostNorm,
    /// Gains of the norm of queries.
    QNorm,
    /// Gains of the norm of keys.
    KNorm,
    /// Biases of queries, keys and values.
    QkvBias,
}

impl Parts {
    /// Llama's, which has nothing that is unlike it.
    pub const LLAMA: Self = Self {
        qkv_bias: false,
        qk_gains: QkGains::None,
        norms: Norms::Before,
        gain_offset: 0.0,
        attention_scale: None,
        embedding_scale: 1.0,
        residual_scale: 1.0,
        logits_scale: 1.0,
        unrotated: Blocks::NONE,
        window: None,
    };
}

impl Blocks {
    /// The most blocks of a model that has sets of them; others may have more.
    pub const MOST: usize = 256;
    /// No block.
    pub const NONE: Self = Self([0; Self::MOST / 64]);

    /// The first 64 blocks, by their bits.
    pub const fn from_bits(bits: u64) -> Self {
        let mut set = Self::NONE;
        set.0[0] = bits;
        set
    }

    /// Whether a block is in the set.
    pub const fn contains(&self, l: usize) -> bool {
        l < Self::MOST && self.0[l / 64] >> (l % 64) & 1 == 1
    }

    /// Number of blocks in the set.
    pub fn count(&self) -> usize {
        self.0.iter().map(|bits| bits.count_ones() as usize).sum()
    }
}

impl FromIterator<usize> for Blocks {
    fn from_iter<I: IntoIterator<Item = usize>>(blocks: I) -> Self {
        let mut set = Self::NONE;
        for l in blocks {
            set.0[l / 64] |= 1 << (l % 64);
        }
        set
    }
}

impl Vector {
    /// Its name in the layout, after `blocks.{l}.`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AttentionNorm => "attention_norm",
            Self::MlpNorm => "mlp_norm",
            Self::AttentionPostNorm => "attention_post_norm",
            Self::MlpPostNorm => "mlp_post_norm",
            Self::QNorm => "q_norm",
            Self::KNorm => "k_norm",
            Self::QkvBias => "qkv_bias",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small models may have more blocks than a set can tell apart.
    #[test]
    fn a_block_beyond_all_sets_is_in_none() {
        let even: Blocks = (0..Blocks::MOST).filter(|l| l % 2 == 0).collect();
        assert!(even.contains(Blocks::MOST - 2) && !even.contains(Blocks::MOST - 1));
        assert!(!even.contains(Blocks::MOST) && !Blocks::NONE.contains(1000));
        assert_eq!(even.count(), Blocks::MOST / 2);
    }
}
