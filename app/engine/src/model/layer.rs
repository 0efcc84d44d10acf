//! A block's weights, and its operations that depend on the parts of the model.

use crate::ops::attention;
use crate::ops::glu::{self, Gate};
use crate::ops::linear::Linear;
use crate::ops::matmul::Out;
use crate::ops::norm::Norm;
use crate::ops::qk_norm::{self, QkNorm};
use crate::ops::rope::{self, Positions};
use crate::ops::{gelu, scale};

use super::half::Half;
use super::ropes::Ropes;
use super::{Mlp, ModelConfig, Norms, PackedModel, Vector};

/// The weights of one block.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    config: &'a ModelConfig,
    /// Number of the block.
    l: usize,
    pub attention: Half<'a>,
    pub qkv: &'a Linear,
    qkv_bias: Option<&'a [f32]>,
    /// Norms of queries and keys with gains.
    qk_norm: Option<QkNorm<'a>>,
    pub mlp: Half<'a>,
    pub up: &'a Linear,
}

/// What [`Layer::rotate`] keeps of the norms of queries and keys.
pub(crate) struct QkKept<'a> {
    /// Normalised queries and keys before gains `[M, (N + K) H]`; empty without gains.
    pub normed: &'a mut [f32],
    /// `1/rms` of each group of them.
    pub inv_rms: &'a mut [f32],
}

impl<'a> Layer<'a> {
    /// The weights of block `l` of a model.
    pub fn new(model: PackedModel<'a>, l: usize) -> Self {
        let layout = &model.params.layout;
        let config = &layout.config;
        let parts = &config.parts;
        let norm = |is_there: bool, vector| {
            is_there.then(|| Norm {
                eps: config.norm_eps,
                gains: model.gains(l, vector),
            })
        };
        let (before, after) = (parts.norms != Norms::After, parts.norms != Norms::Before);
        let [qkv, out, up, down] = &model.packed.blocks[l];
        let half = |before, after, last| Half {
            before,
            after,
            scale: parts.residual_scale,
            last,
        };
        let qk_gains = model
            .gains(l, Vector::QNorm)
            .zip(model.gains(l, Vector::KNorm));
        let bias = layout.vector(l, Vector::QkvBias);
        Self {
            config,
            l,
            attention: half(
                norm(before, Vector::AttentionNorm),
                norm(after, Vector::AttentionPostNorm),
                out,
            ),
            qkv,
            qkv_bias: bias.map(|range| &model.params.data[range]),
            qk_norm: qk_gains.map(|(q, k)| QkNorm {
                q,
                k,
                widths: [config.q_width(), config.kv_width(), config.qkv_width()],
                eps: config.norm_eps,
            }),
            mlp: half(
                norm(before, Vector::MlpNorm),
                norm(after, Vector::MlpPostNorm),
                down,
            ),
            up,
        }
    }

    /// Sizes of its attention over `rows` sequences of `seq_len` positions.
    pub fn shape(&self, rows: usize, seq_len: usize) -> attention::Shape {
        self.config.attention(self.l, rows, seq_len)
    }

    /// Queries, keys and values `qkv [M, (N + 2 K) H]` of `x [M, D]`.
    pub fn project(&self, qkv: &mut [f32], x: &[f32]) {
        self.qkv.forward(qkv, x, Out::Set);
        if let Some(bias) = self.qkv_bias {
            scale::add_bias(qkv, bias);
        }
    }

    /// Normalises queries and keys in `qkv [M, (N + 2 K) H]` if the model does, and rotates them if the block does.
    pub fn rotate(&self, qkv: &mut [f32], kept: QkKept, ropes: &Ropes, positions: Positions) {
        let (config, heads) = (self.config, self.config.heads());
        let table = ropes.of(config, self.l);
        match (self.qk_norm, table) {
            (None, Some(table)) if config.qk_norm => {
                rope::forward(qkv, kept.inv_rms, table, heads, config.norm_eps, positions);
                return;
            }
            (None, None) if config.qk_norm => unreachable!("norms without gains come with RoPE"),
            (Some(norm), _) => qk_norm::forward(qkv, kept.normed, kept.inv_rms, norm),
            (None, _) => {}
        }
        if let Some(table) = table {
            rope::rotate(qkv, table, heads, positions, false);
        }
    }

    /// Backward of [`Self::rotate`] but for norms with gains: turns the gradient `dqkv` of its output `qkv` into that
    /// of its input, in place.
    pub fn rotate_back(
        &self,
        dqkv: &mut [f32],
        qkv: &[f32],
        inv_rms: &[f32],
        ropes: &Ropes,
        seq_len: usize,
    ) {
        let heads = self.config.heads();
        let Some(table) = ropes.of(self.config, self.l) else {
            return;
        };
        if self.config.qk_norm && self.qk_norm.is_none() {
            rope::backward(dqkv, qkv, inv_rms, table, heads, seq_len);
        } else {
            rope::rotate(dqkv, table, heads, Positions::Sequence(seq_len), true);
        }
    }

    /// The rest of the backward of [`Self::rotate`]: of norms with gains, on the gradient `dqkv`, in place; adds the
    /// gradients of the gains, queries' first, to `d_gains` where they are trained.
    pub fn qk_norm_back(
        &self,
        dqkv: &mut [f32],
        normed: &[f32],
        inv_rms: &[f32],
        d_gains: Option<&mut [f32]>,
    ) {
        if let Some(norm) = self.qk_norm {
            qk_norm::backward(dqkv, normed, inv_rms, norm, d_gains);
        }
    }

    /// The MLP's up projection and activation: from its input `x [M, D]` to the input of its down projection,
    /// `activated [M, F]`.
    ///
    /// If a backward follows, keeps what [`Self::activate_back`] needs in `slope [M, 2 F]` (alone, GELU: `[M, F]`).
    pub fn activate(&self, x: &[f32], activated: &mut [f32], slope: &mut [f32], backward: bool) {
        let (m, f) = (x.len() / self.config.d_model, self.config.d_ff);
        match self.config.mlp {
            Mlp::Gelu => {
                self.up.forward(activated, x, Out::Set);
                if backward {
                    gelu::forward(activated, &mut slope[..m * f]);
                } else {
                    gelu::inference(activated);
                }
            }
            Mlp::SwiGlu | Mlp::GeGlu => {
                let gate_up = &mut slope[..m * 2 * f];
                self.up.forward(gate_up, x, Out::Set);
                let gate = match self.config.mlp {
                    Mlp::GeGlu => Gate::Gelu,
                    _ => Gate::Silu,
                };
                if backward {
                    glu::forward(gate_up, activated, f, gate);
                } else {
                    glu::inference(gate_up, activated, f, gate);
                }
            }
        }
    }

    /// Backward of the activation: from the gradient `d` of `activated [M, F]` to that of the up projection's
    /// output, which is left in `d` (GELU) or in `slope` (SwiGLU, GeGLU).
    pub fn activate_back<'b>(&self, d: &'b mut [f32], slope: &'b mut [f32]) -> &'b [f32] {
        let f = self.config.d_ff;
        match self.config.mlp {
            Mlp::Gelu => {
                gelu::backward(d, slope);
                d
            }
            Mlp::SwiGlu | Mlp::GeGlu => {
                let slope = &mut slope[..2 * d.len()];
                glu::backward(slope, d, f);
                slope
            }
        }
    }
}

/// The final norm, before the vocabulary projection.
pub(crate) fn final_norm(model: PackedModel<'_>) -> Norm<'_> {
    Norm {
        eps: model.params.layout.config.norm_eps,
        gains: model.final_gains(),
    }
}
