//! Buffers of one thread: what a forward keeps for its backward, and scratch.

use crate::ops::attention;
use crate::ops::rope::RopeTable;

use super::ModelConfig;

/// Working memory for up to a number of positions (`M = B T`).
pub struct Activations {
    pub(super) config: ModelConfig,
    capacity: usize,
    pub(super) rope: RopeTable,
    pub(super) blocks: Vec<Block>,
    /// Residual stream `[M, D]`; in the backward, its gradient.
    pub(super) residual: Vec<f32>,
    /// Final hidden states `[M, D]` and their `1/rms`.
    pub(super) hidden: Vec<f32>,
    pub(super) hidden_inv_rms: Vec<f32>,
    /// Gradient of the final hidden states `[M, D]`.
    pub d_hidden: Vec<f32>,
    pub(super) d_normed: Vec<f32>,
    pub(super) d_qkv: Vec<f32>,
    pub(super) d_mlp: Vec<f32>,
    pub(super) attention: attention::Scratch,
}

/// What one block keeps.
#[derive(Default)]
pub(super) struct Block {
    /// Input of attention `[M, D]`, normalised; `1/rms [M]`.
    pub normed: Vec<f32>,
    pub inv_rms: Vec<f32>,
    /// `[M, 3 D]`, with `q` and `k` normalised and rotated; their `1/rms [M, 2 N]`.
    pub qkv: Vec<f32>,
    pub qk_inv_rms: Vec<f32>,
    /// Log-sum-exp `[M, N]` and output `[M, D]` of attention.
    pub lse: Vec<f32>,
    pub attended: Vec<f32>,
    /// Input of the MLP `[M, D]`, normalised; `1/rms [M]`.
    pub mlp_normed: Vec<f32>,
    pub mlp_inv_rms: Vec<f32>,
    /// `gelu` and its derivative `[M, F]`.
    pub gelu: Vec<f32>,
    pub slope: Vec<f32>,
}

impl Activations {
    /// Empty buffers for a model; they grow on use.
    pub fn new(config: ModelConfig) -> Self {
        Self {
            config,
            capacity: 0,
            rope: RopeTable::new(0, config.head_dim, ModelConfig::ROPE_BASE),
            blocks: (0..config.n_layers).map(|_| Block::default()).collect(),
            residual: Vec::new(),
            hidden: Vec::new(),
            hidden_inv_rms: Vec::new(),
            d_hidden: Vec::new(),
            d_normed: Vec::new(),
            d_qkv: Vec::new(),
            d_mlp: Vec::new(),
            attention: attention::Scratch::default(),
        }
    }

    /// Makes room for `rows` sequences of `seq_len`.
    pub(super) fn reserve(&mut self, rows: usize, seq_len: usize) {
        if self.rope.seq_len() < seq_len {
            self.rope = RopeTable::new(seq_len, self.config.head_dim, ModelConfig::ROPE_BASE);
        }
        let m = rows * seq_len;
        if m <= self.capacity {
            return;
        }
        self.capacity = m;
        let (d, f, n) = (
            self.config.d_model,
            self.config.d_ff(),
            self.config.n_heads(),
        );
        for block in &mut self.blocks {
            block.normed.resize(m * d, 0.0);
            block.inv_rms.resize(m, 0.0);
            block.qkv.resize(m * 3 * d, 0.0);
            block.qk_inv_rms.resize(m * 2 * n, 0.0);
            block.lse.resize(m * n, 0.0);
            block.attended.resize(m * d, 0.0);
            block.mlp_normed.resize(m * d, 0.0);
            block.mlp_inv_rms.resize(m, 0.0);
            block.gelu.resize(m * f, 0.0);
            block.slope.resize(m * f, 0.0);
        }
        self.residual.resize(m * d, 0.0);
        self.hidden.resize(m * d, 0.0);
        self.hidden_inv_rms.resize(m, 0.0);
        self.d_hidden.resize(m * d, 0.0);
        self.d_normed.resize(m * d, 0.0);
        self.d_qkv.resize(m * 3 * d, 0.0);
        self.d_mlp.resize(m * f, 0.0);
    }

    /// Final hidden states of the last forward over `positions` positions, `[M, D]`.
    pub fn hidden(&self, positions: usize) -> &[f32] {
        &self.hidden[..positions * self.config.d_model]
    }

    /// The hidden states beside the buffer for their gradient, `[M, D]` each.
    pub fn hidden_and_gradient(&mut self, positions: usize) -> (&[f32], &mut [f32]) {
        let len = positions * self.config.d_model;
        (&self.hidden[..len], &mut self.d_hidden[..len])
    }
}
