//! What is around a half of a block, its attention or its MLP: norms, and the sum with the residual stream.

use candle_core::{DType, Result, Tensor};

use super::matmul::{add_product, matmul_nn, matmul_nt};
use super::ops::{Norm, Normed, Passing, Residual, round};

/// The norms around a half of a block, and the linear layer that ends it.
#[derive(Clone, Copy)]
pub struct Half<'a> {
    /// The norm of its input, if it has one.
    pub before: Option<Norm<'a>>,
    /// The norm of its output, if it has one, times the factor of what it adds to the residual stream.
    pub after: Option<Norm<'a>>,
    /// Factor of what it adds to the residual stream.
    pub scale: f32,
    /// Its last linear layer, `[D, in]`, rounded.
    pub last: &'a Tensor,
}

/// What a backward needs of the input of a [`Half`].
pub enum Input {
    /// It was normalised.
    Normed(Normed),
    /// It is the residual stream `[M, D]`, rounded.
    Plain(Tensor),
}

/// A linear layer, and the gradient of its output.
pub struct Linear<'a> {
    /// The gradient `[M, out]`, rounded.
    pub dy: &'a Tensor,
    /// Weights `[out, in]`, rounded.
    pub w: &'a Tensor,
}

impl Half<'_> {
    /// Its input `[M, D]`, rounded, from the residual stream `h [M, D]`; and what a backward needs of it, if it `keeps`
    /// that. Without that, the input is of use until the residual stream changes.
    pub fn input(&self, h: &Tensor, keeps: bool) -> Result<(Tensor, Option<Input>)> {
        if let Some(norm) = self.before {
            let (x, normed) = norm.run(h, None, keeps)?;
            return Ok((x, normed.map(Input::Normed)));
        }
        let x = match self.last.dtype() {
            DType::F32 if keeps => h.copy()?,
            dtype => round(h, dtype)?,
        };
        Ok((x.clone(), keeps.then_some(Input::Plain(x))))
    }

    /// Backward of [`Self::input`], which the linear layer `first` takes: adds the gradient of the input to `residual`;
    /// also returns the input.
    pub fn input_back(
        &self,
        residual: Residual,
        first: &Linear,
        input: &Input,
        d_gain: Option<&mut Option<Tensor>>,
    ) -> Result<(Residual, Tensor)> {
        match (self.before, input) {
            (Some(norm), Input::Normed(normed)) => {
                let dy = &matmul_nn(first.dy, first.w)?;
                normed.backward(residual, Passing { dy, norm, d_gain })
            }
            (None, Input::Plain(x)) => {
                let dh = residual.dh;
                add_product(&dh, first.dy, first.w, 1.0)?;
                let rounded = round(&dh, x.dtype())?;
                Ok((Residual { dh, rounded }, x.clone()))
            }
            _ => candle_core::bail!("the forward kept another input"),
        }
    }

    /// Adds to the residual stream `h [M, D]`, in place, what it makes of the last layer's input `x [M, in]`, rounded;
    /// returns what a backward needs, if there is a norm and it `keeps` that.
    pub fn add(&self, h: &Tensor, x: &Tensor, keeps: bool) -> Result<Option<Normed>> {
        let Some(norm) = self.after else {
            add_product(h, x, &self.last.t()?, self.scale)?;
            return Ok(None);
        };
        norm.add(h, &matmul_nt(x, self.last)?, keeps)
    }

    /// The gradient of the last layer's output `[M, D]`, rounded, from that of the residual stream; and a factor that
    /// it is still to be multiplied by.
    pub fn add_back(
        &self,
        residual: &Residual,
        normed: Option<&Normed>,
        d_gain: Option<&mut Option<Tensor>>,
    ) -> Result<(Tensor, f32)> {
        match (self.after, normed) {
            (Some(norm), Some(normed)) => {
                let dy = &residual.dh;
                let d_output = normed.backward_alone(Passing { dy, norm, d_gain })?;
                Ok((d_output, 1.0))
            }
            (None, None) => Ok((residual.rounded.clone(), self.scale)),
            _ => candle_core::bail!("the forward kept another output"),
        }
    }
}
