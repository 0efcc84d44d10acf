//! A block's weights, and its operations that depend on the parts of the model.

use crate::ops::linear::Linear;
use crate::ops::matmul::Out;
use crate::ops::norm::Norm;
use crate::ops::rope::{self, Positions, RopeTable};
use crate::ops::{gelu, swiglu};

use super::{Mlp, ModelConfig, PackedModel, Params};

/// The weights of one block.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    config: &'a ModelConfig,
    pub attention_norm: Norm<'a>,
    pub qkv: &'a Linear,
    pub out: &'a Linear,
    pub mlp_norm: Norm<'a>,
    pub up: &'a Linear,
    pub down: &'a Linear,
}

impl<'a> Layer<'a> {
    /// The weights of block `l` of a model.
    pub fn new(model: PackedModel<'a>, l: usize) -> Self {
        let PackedModel { params, packed } = model;
        let config = &params.layout.config;
        let norm = |i: usize| Norm {
            eps: config.norm_eps,
            gains: params
                .layout
                .gains(l)
                .map(|gains| &params.data[gains[i].clone()]),
        };
        let [qkv, out, up, down] = &packed.blocks[l];
        Self {
            config,
            attention_norm: norm(0),
            qkv,
            out,
            mlp_norm: norm(1),
            up,
            down,
        }
    }

    /// Rotates queries and keys in `qkv [M, (N + 2 K) H]`, after QK-norm if the model has it; keeps `1/rms` in
    /// `inv_rms [M, N + K]`.
    pub fn rotate(
        &self,
        qkv: &mut [f32],
        inv_rms: &mut [f32],
        table: &RopeTable,
        positions: Positions,
    ) {
        let heads = self.config.heads();
        if self.config.qk_norm {
            rope::forward(qkv, inv_rms, table, heads, self.config.norm_eps, positions);
        } else {
            rope::rotate(qkv, table, heads, positions, false);
        }
    }

    /// Backward of [`Self::rotate`]: turns the gradient `dqkv` of its output `qkv` into that of its input, in
    /// place.
    pub fn rotate_back(
        &self,
        dqkv: &mut [f32],
        qkv: &[f32],
        inv_rms: &[f32],
        table: &RopeTable,
        seq_len: usize,
    ) {
        let heads = self.config.heads();
        if self.config.qk_norm {
            rope::backward(dqkv, qkv, inv_rms, table, heads, seq_len);
        } else {
            rope::rotate(dqkv, table, heads, Positions::Sequence(seq_len), true);
        }
    }

    /// The MLP's up projection and activation: from its input `x [M, D]` to the input of its down projection,
    /// `activated [M, F]`.
    ///
    /// If a backward follows, keeps what [`Self::activate_back`] needs in `slope [M, 2 F]` (GELU: `[M, F]`).
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
            Mlp::SwiGlu => {
                let gate_up = &mut slope[..m * 2 * f];
                self.up.forward(gate_up, x, Out::Set);
                if backward {
                    swiglu::forward(gate_up, activated, f);
                } else {
                    swiglu::inference(gate_up, activated, f);
                }
            }
        }
    }

    /// Backward of the activation: from the gradient `d` of `activated [M, F]` to that of the up projection's
    /// output, which is left in `d` (GELU) or in `slope` (SwiGLU).
    pub fn activate_back<'b>(&self, d: &'b mut [f32], slope: &'b mut [f32]) -> &'b [f32] {
        let f = self.config.d_ff;
        match self.config.mlp {
            Mlp::Gelu => {
                gelu::backward(d, slope);
                d
            }
            Mlp::SwiGlu => {
                let slope = &mut slope[..2 * d.len()];
                swiglu::backward(slope, d, f);
                slope
            }
        }
    }
}

/// The final norm, before the vocabulary projection.
pub(crate) fn final_norm(params: &Params) -> Norm<'_> {
    let gains = params.layout.final_gains();
    Norm {
        eps: params.layout.config.norm_eps,
        gains: gains.map(|gains| &params.data[gains]),
    }
}
