//! Low-rank adapters on a device; [`crate::model::Lora`] says what they are.
//!
//! A linear layer has two tensors: A `[P r, in]`, and B as the block-diagonal `[out, P r]`. What lies
//! between its blocks is zero and stays so: its gradient is masked.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use crate::model::{Lora, LoraLayout};

use super::download;
use super::matmul::{add_matmul_tn, matmul_nn, matmul_nt, product};

/// Adapters of a model.
#[derive(Clone, Debug)]
pub struct Adapters {
    pub layout: Arc<LoraLayout>,
    /// A and B of each linear layer, f32, which updates change; the same in the precision of the products.
    pub master: Vec<Tensor>,
    pub rounded: Vec<Tensor>,
    /// s where a block of B is, 0 elsewhere; one a linear layer of a block.
    masks: Vec<Tensor>,
}

impl Adapters {
    /// Copies adapters to a device.
    pub fn upload(lora: &Lora, dtype: DType, device: &Device) -> Result<Self> {
        let master = upload(lora, device)?;
        let rounded = master.iter().map(|x| x.to_dtype(dtype));
        let scale = lora.layout.config.scale();
        let ones = vec![1.0; lora.layout.len];
        let masks = (0..4.min(lora.layout.linears.len())).map(|i| {
            let [_, (b, shape)] = lora.layout.tensors(i, &ones, scale);
            Tensor::from_vec(b, &shape, device)
        });
        Ok(Self {
            layout: lora.layout.clone(),
            rounded: rounded.collect::<Result<_>>()?,
            master,
            masks: masks.collect::<Result<_>>()?,
        })
    }

    /// Copies the adapters to the host.
    pub fn download(&self) -> Result<Lora> {
        gather(&self.layout, self.master.iter())
    }

    /// `W + s·B·A` of linear layer `i` of the blocks, from its `w [out, in]`, f32.
    pub fn merge(&self, i: usize, w: &Tensor) -> Result<Tensor> {
        let [a, b] = [&self.master[2 * i], &self.master[2 * i + 1]];
        w + product(&(b * f64::from(self.layout.config.scale()))?, a)?
    }

    /// Adds to the gradients of A and B of linear layer `i`, that of B without its mask, from the layer's
    /// input `x [M, in]` and the gradient `dy [M, out]` of its output, both rounded.
    pub fn backward(
        &self,
        grads: &mut [Option<Tensor>],
        i: usize,
        dy: &Tensor,
        x: &Tensor,
    ) -> Result<()> {
        let [a, b] = [&self.rounded[2 * i], &self.rounded[2 * i + 1]];
        let scale = f64::from(self.layout.config.scale());
        let low = (matmul_nn(dy, b)? * scale)?.to_dtype(dy.dtype())?;
        add_matmul_tn(&mut grads[0], &low, x)?;
        let low = matmul_nt(x, a)?.to_dtype(dy.dtype())?;
        add_matmul_tn(&mut grads[1], dy, &low)
    }

    /// Masks the gradients of every B.
    pub fn finish(&self, grads: &mut [Option<Tensor>]) -> Result<()> {
        for (i, grad) in grads.iter_mut().skip(1).step_by(2).enumerate() {
            if let Some(grad) = grad {
                *grad = (&*grad * &self.masks[i % 4])?;
            }
        }
        Ok(())
    }
}

/// Copies A and B of each linear layer (or gradients, or moments) to a device.
pub fn upload(lora: &Lora, device: &Device) -> Result<Vec<Tensor>> {
    let linears = 0..lora.layout.linears.len();
    let tensors = linears.flat_map(|i| lora.layout.tensors(i, &lora.data, 1.0));
    tensors
        .map(|(numbers, shape)| Tensor::from_vec(numbers, &shape, device))
        .collect()
}

/// Copies what has a tensor for every A and every B to the host.
pub fn gather<'a>(
    layout: &Arc<LoraLayout>,
    tensors: impl Iterator<Item = &'a Tensor>,
) -> Result<Lora> {
    // A lane's buffer on the CPU has them in this order.
    let all = tensors.map(download).collect::<Result<Vec<_>>>()?.concat();
    Ok(layout.gather(&[&all], 1.0))
}
