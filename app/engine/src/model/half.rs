//! What is around a half of a block, its attention or its MLP: norms, and the sum with the residual stream.

use crate::ops::linear::Linear;
use crate::ops::matmul::Out;
use crate::ops::norm::{self, Norm};
use crate::ops::scale;

/// The norms around a half of a block, and the linear layer that ends it.
#[derive(Clone, Copy)]
pub(crate) struct Half<'a> {
    /// The norm of its input, if it has one.
    pub before: Option<Norm<'a>>,
    /// The norm of its output, if it has one.
    pub after: Option<Norm<'a>>,
    /// Factor of what it adds to the residual stream.
    pub scale: f32,
    /// Its last linear layer, `[D, in]`.
    pub last: &'a Linear,
}

/// Buffers for what a [`Half`] adds to the residual stream.
pub(crate) struct Added<'a> {
    /// Output of the last layer `[M, D]`.
    pub output: &'a mut [f32],
    /// The same, normalised, before gains; empty without a norm.
    pub normed: &'a mut [f32],
    /// `1/rms [M]`; empty without a norm.
    pub inv_rms: &'a mut [f32],
    /// Output of a norm with gains `[M, D]`.
    pub scaled: &'a mut [f32],
}

impl Half<'_> {
    /// Its input, from the residual stream `h [M, D]`; keeps what a backward needs in `normed` and `inv_rms`.
    pub fn input<'b>(
        &self,
        h: &[f32],
        normed: &'b mut [f32],
        inv_rms: &mut [f32],
        scaled: &'b mut [f32],
        d: usize,
    ) -> &'b [f32] {
        match self.before {
            Some(norm) => norm.forward(h, normed, inv_rms, scaled, d),
            None => {
                normed.copy_from_slice(h);
                normed
            }
        }
    }

    /// Its input again, from what [`Self::input`] kept.
    pub fn input_again<'b>(&self, normed: &'b [f32], scaled: &'b mut [f32]) -> &'b [f32] {
        match self.before {
            Some(norm) => norm.output(normed, scaled),
            None => normed,
        }
    }

    /// Backward of [`Self::input`]: adds to `dh [M, D]` from the gradient `d_input [M, D]`, which is overwritten.
    pub fn input_back(
        &self,
        dh: &mut [f32],
        d_input: &mut [f32],
        normed: &[f32],
        inv_rms: &[f32],
        d_gains: Option<&mut [f32]>,
    ) {
        match self.before {
            Some(norm) => {
                norm.backward(d_input, normed, d_gains);
                norm::backward_add(dh, d_input, normed, inv_rms, self.last.shape()[0]);
            }
            None => scale::add_scaled(dh, d_input, 1.0),
        }
    }

    /// Whether its output is added to the residual stream as it is.
    fn is_plain(&self) -> bool {
        self.after.is_none() && self.scale == 1.0
    }

    /// Adds to the residual stream `h [M, D]` what it makes of the last layer's input `x [M, in]`.
    pub fn add(&self, h: &mut [f32], x: &[f32], buffers: &mut Added) {
        if self.is_plain() {
            return self.last.forward(h, x, Out::Add);
        }
        let d = self.last.shape()[0];
        let Added {
            output,
            normed,
            inv_rms,
            scaled,
        } = buffers;
        let output = &mut output[..h.len()];
        self.last.forward(output, x, Out::Set);
        let added = match self.after {
            Some(norm) => {
                let (normed, inv_rms) = (&mut normed[..h.len()], &mut inv_rms[..h.len() / d]);
                norm.forward(output, normed, inv_rms, scaled, d)
            }
            None => output,
        };
        scale::add_scaled(h, added, self.scale);
    }

    /// The gradient of the last layer's output, from that of the residual stream, `dh [M, D]`: `dh` itself, or
    /// in `d_output`.
    pub fn add_back<'b>(
        &self,
        dh: &'b [f32],
        d_output: &'b mut [f32],
        normed: &[f32],
        inv_rms: &[f32],
        d_gains: Option<&mut [f32]>,
    ) -> &'b [f32] {
        if self.is_plain() {
            return dh;
        }
        let d_output = &mut d_output[..dh.len()];
        scale::scaled(d_output, dh, self.scale);
        if let Some(norm) = self.after {
            let normed = &normed[..dh.len()];
            norm.backward(d_output, normed, d_gains);
            norm::backward_in_place(d_output, normed, inv_rms, self.last.shape()[0]);
        }
        d_output
    }
}
