//! Buffers of one thread: the activations that a forward keeps for its backward, and scratch.

use crate::ops::{attention, matmul};

use super::{Mlp, ModelConfig, Norms, QkGains, Ropes};

/// What a forward keeps for its backward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: there is no backward.
    #[default]
    Nothing,
    /// Each block's input; the backward computes the block again.
    Inputs,
    /// All activations of each block that the backward needs.
    Blocks,
}

/// Activations and scratch of one thread; the buffers grow on use and are reused.
pub struct Activations {
    pub(super) config: ModelConfig,
    /// What the last forward kept.
    pub(super) kept: Keep,
    pub(super) ropes: Ropes,
    /// One for each block where blocks are kept, else one for all blocks.
    pub(super) blocks: Vec<Block>,
    /// Input of each block `[M, D]`, where inputs are kept.
    pub(super) inputs: Vec<Vec<f32>>,
    /// Residual stream `[M, D]`; in the backward, its gradient.
    pub(super) residual: Vec<f32>,
    /// Final hidden states `[M, D]`; between blocks, scratch for what they add to the residual stream.
    pub(super) hidden: Vec<f32>,
    /// Final hidden states before the norm's gains `[M, D]`, if it has them.
    pub(super) hidden_normed: Vec<f32>,
    /// `1/rms [M]` of the final norm.
    pub(super) hidden_inv_rms: Vec<f32>,
    /// Output of a norm with gains `[M, D]`, if norms have them.
    pub(super) scaled: Vec<f32>,
    /// Gradient of the final hidden states `[M, D]`; then, of what a half of a block adds to the residual stream.
    pub(super) d_hidden: Vec<f32>,
    /// Gradient of the output of a norm `[M, D]`, or of attention `[M, N H]`.
    pub(super) d_normed: Vec<f32>,
    /// Gradient of queries, keys and values `[M, (N + 2 K) H]`.
    pub(super) d_qkv: Vec<f32>,
    /// Gradient of the input of the down projection `[M, F]`.
    pub(super) d_mlp: Vec<f32>,
    pub(super) attention: attention::Scratch,
}

/// Activations of one block.
#[derive(Default)]
pub(super) struct Block {
    /// Normalised input of attention `[M, D]`, before gains; without a norm, its input.
    pub normed: Vec<f32>,
    /// `1/rms [M]` of the norm before attention.
    pub inv_rms: Vec<f32>,
    /// Queries, keys and values `[M, (N + 2 K) H]`, with queries and keys rotated, after QK-norm if the model
    /// has it.
    pub qkv: Vec<f32>,
    /// `1/rms [M, N + K]` of QK-norm; `[M, 2]` where all queries are normalised together.
    pub qk_inv_rms: Vec<f32>,
    /// Normalised queries and keys `[M, (N + K) H]`, before gains, where they have gains.
    pub qk_normed: Vec<f32>,
    /// Log-sum-exp of attention's scores `[M, N]`.
    pub lse: Vec<f32>,
    /// Output of attention `[M, N H]`.
    pub attended: Vec<f32>,
    /// Normalised output of attention `[M, D]`, before gains, where it has a norm.
    pub post_normed: Vec<f32>,
    /// `1/rms [M]` of the norm after attention.
    pub post_inv_rms: Vec<f32>,
    /// Normalised input of the MLP `[M, D]`, before gains; without a norm, its input.
    pub mlp_normed: Vec<f32>,
    /// `1/rms [M]` of the norm before the MLP.
    pub mlp_inv_rms: Vec<f32>,
    /// Input of the down projection `[M, F]`.
    pub activated: Vec<f32>,
    /// Derivatives of the activation: of GELU `[M, F]`, of SwiGLU and GeGLU `[M, 2 F]`.
    pub slope: Vec<f32>,
    /// Normalised output of the MLP `[M, D]`, before gains, where it has a norm.
    pub mlp_post_normed: Vec<f32>,
    /// `1/rms [M]` of the norm after the MLP.
    pub mlp_post_inv_rms: Vec<f32>,
}

impl Activations {
    /// Empty buffers for models of these sizes and parts.
    pub fn new(config: ModelConfig) -> Self {
        Self {
            config,
            kept: Keep::Nothing,
            ropes: Ropes::new(0, &config),
            blocks: Vec::new(),
            inputs: Vec::new(),
            residual: Vec::new(),
            hidden: Vec::new(),
            hidden_normed: Vec::new(),
            hidden_inv_rms: Vec::new(),
            scaled: Vec::new(),
            d_hidden: Vec::new(),
            d_normed: Vec::new(),
            d_qkv: Vec::new(),
            d_mlp: Vec::new(),
            attention: attention::Scratch::default(),
        }
    }

    /// Grows the buffers to `m` positions in sequences of `seq_len`.
    pub(super) fn reserve(&mut self, m: usize, seq_len: usize, keep: Keep) {
        if self.ropes.seq_len() < seq_len {
            self.ropes = Ropes::new(seq_len, &self.config);
        }
        self.kept = keep;
        let d = self.config.d_model;
        let (blocks, inputs) = counts(&self.config, keep);
        if self.blocks.len() < blocks {
            self.blocks.resize_with(blocks, Block::default);
        }
        for block in &mut self.blocks[..blocks] {
            let widths = block_widths(&self.config, keep);
            for (buffer, width) in block.buffers().into_iter().zip(widths) {
                grow(buffer, m * width);
            }
        }
        if self.inputs.len() < inputs {
            self.inputs.resize_with(inputs, Vec::new);
        }
        for input in &mut self.inputs[..inputs] {
            grow(input, m * d);
        }
        let buffers = [
            &mut self.residual,
            &mut self.hidden,
            &mut self.hidden_normed,
            &mut self.hidden_inv_rms,
            &mut self.scaled,
            &mut self.d_hidden,
            &mut self.d_normed,
            &mut self.d_qkv,
            &mut self.d_mlp,
        ];
        for (buffer, width) in buffers.into_iter().zip(shared_widths(&self.config, keep)) {
            grow(buffer, m * width);
        }
    }

    /// Number of floats in the buffers of a forward over `m` positions in sequences of `seq_len`, and of the
    /// backward that `keep` is for.
    pub fn len(config: &ModelConfig, m: usize, seq_len: usize, keep: Keep) -> usize {
        let (blocks, inputs) = counts(config, keep);
        let block: usize = block_widths(config, keep).iter().sum();
        let shared: usize = shared_widths(config, keep).iter().sum();
        let scratch = match keep {
            Keep::Nothing => 0,
            // The products for the gradients of the MLP's weights have the widest factors.
            _ => matmul::scratch_len(m, config.up_width(), config.d_ff),
        };
        m * (blocks * block + inputs * config.d_model + shared)
            + attention::Scratch::len(seq_len, config.head_dim, keep != Keep::Nothing)
            + scratch
    }

    /// Final hidden states `[M, D]` of the last forward, over `positions` positions.
    pub fn hidden(&self, positions: usize) -> &[f32] {
        &self.hidden[..positions * self.config.d_model]
    }

    /// Swaps the final hidden states with another buffer, to keep them while another model runs.
    pub fn swap_hidden(&mut self, other: &mut Vec<f32>) {
        std::mem::swap(&mut self.hidden, other);
    }

    /// Final hidden states, and the buffer for their gradient, `[M, D]` each.
    pub fn hidden_and_gradient(&mut self, positions: usize) -> (&[f32], &mut [f32]) {
        let len = positions * self.config.d_model;
        (&self.hidden[..len], &mut self.d_hidden[..len])
    }
}

impl Block {
    fn buffers(&mut self) -> [&mut Vec<f32>; WIDTHS] {
        [
            &mut self.normed,
            &mut self.inv_rms,
            &mut self.qkv,
            &mut self.qk_inv_rms,
            &mut self.qk_normed,
            &mut self.lse,
            &mut self.attended,
            &mut self.post_normed,
            &mut self.post_inv_rms,
            &mut self.mlp_normed,
            &mut self.mlp_inv_rms,
            &mut self.activated,
            &mut self.slope,
            &mut self.mlp_post_normed,
            &mut self.mlp_post_inv_rms,
        ]
    }
}

/// Number of a block's buffers.
const WIDTHS: usize = 15;

/// Number of [`Block`]s and of blocks' inputs that are in memory together.
fn counts(config: &ModelConfig, keep: Keep) -> (usize, usize) {
    match keep {
        Keep::Nothing => (1, 0),
        Keep::Inputs => (1, config.n_layers),
        Keep::Blocks => (config.n_layers, 0),
    }
}

/// Number of floats of a position in each of [`Block::buffers`].
fn block_widths(config: &ModelConfig, keep: Keep) -> [usize; WIDTHS] {
    let (d, f, n) = (config.d_model, config.d_ff, config.n_heads);
    let slope = match config.mlp {
        Mlp::Gelu if keep == Keep::Nothing => 0,
        // Gate and up are computed here, before they are multiplied.
        Mlp::Gelu | Mlp::SwiGlu | Mlp::GeGlu => config.up_width(),
    };
    let (qkv, attended) = (config.qkv_width(), config.q_width());
    let qk_normed = match config.parts.qk_gains {
        QkGains::None => 0,
        QkGains::Head | QkGains::Projection => attended + config.kv_width(),
    };
    let [post, post_rms] = match config.parts.norms {
        Norms::Before => [0, 0],
        Norms::After | Norms::Around => [d, 1],
    };
    let qk_inv_rms = config.qk_norms();
    [
        d, 1, qkv, qk_inv_rms, qk_normed, n, attended, post, post_rms, d, 1, f, slope, post,
        post_rms,
    ]
}

/// Number of floats of a position in each of the buffers from `residual` to `d_mlp`.
fn shared_widths(config: &ModelConfig, keep: Keep) -> [usize; 9] {
    let (d, f) = (config.d_model, config.d_ff);
    let scaled = if config.norm_gains { d } else { 0 };
    let forward = [d, d, scaled, 1, scaled];
    let backward = match keep {
        Keep::Nothing => [0; 4],
        _ => [d, d.max(config.q_width()), config.qkv_width(), f],
    };
    std::array::from_fn(|i| if i < 5 { forward[i] } else { backward[i - 5] })
}

fn grow(buffer: &mut Vec<f32>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0.0);
    }
}
