//! Low-rank adapters on a device, as [`crate::model::Lora`] in the machine's memory.
//!
//! A linear layer has two tensors: A `[P r, in]`, and B as the block-diagonal `[out, P r]`. The elements
//! outside the blocks stay zero, because their gradients are masked.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use crate::model::{BlockLinear, Lora, LoraLayout};

use super::matmul::{add_matmul_tn, add_product, product, scaled_product};
use super::ops::multiply;
use super::tensor::download;

/// Adapters of a model.
#[derive(Clone, Debug)]
pub struct Adapters {
    pub layout: Arc<LoraLayout>,
    /// A and B of each linear layer, f32, which updates change.
    pub master: Vec<Tensor>,
    /// The same in the precision of matrix products.
    pub rounded: Vec<Tensor>,
    /// For each linear layer of a block: s within the blocks of B, 0 outside.
    masks: Vec<Tensor>,
}

impl Adapters {
    /// Copies adapters to a device.
    pub fn upload(lora: &Lora, dtype: DType, device: &Device) -> Result<Self> {
        let master = upload(lora, device)?;
        let rounded = master.iter().map(|x| x.to_dtype(dtype));
        let scale = lora.layout.config.scale();
        let ones = vec![1.0; lora.layout.len];
        let masks = (0..BlockLinear::COUNT.min(lora.layout.linears.len())).map(|i| {
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
        let merged = w.copy()?;
        add_product(&merged, b, a, self.layout.config.scale())?;
        Ok(merged)
    }

    /// Adds to the gradients of A and B of linear layer `i` of the blocks, from the layer's input `x [M, in]` and
    /// the gradient `factor · dy [M, out]` of its output, both rounded. [`Self::mask`] must follow.
    pub fn backward(
        &self,
        grads: &mut [Option<Tensor>],
        i: usize,
        (dy, factor): (&Tensor, f32),
        x: &Tensor,
    ) -> Result<()> {
        let [a, b] = [&self.rounded[2 * i], &self.rounded[2 * i + 1]];
        let scale = factor * self.layout.config.scale();
        let low = scaled_product(dy, b, scale, dy.dtype())?;
        add_matmul_tn(&mut grads[0], &low, x, 1.0)?;
        let low = product(x, &a.t()?, dy.dtype())?;
        add_matmul_tn(&mut grads[1], dy, &low, factor)
    }

    /// Multiplies the gradient of every B by its mask.
    pub fn mask(&self, grads: &mut [Option<Tensor>]) -> Result<()> {
        for (i, grad) in grads.iter_mut().skip(1).step_by(2).enumerate() {
            if let Some(grad) = grad {
                multiply(grad, &self.masks[i % BlockLinear::COUNT])?;
            }
        }
        Ok(())
    }
}

/// Copies adapters (or their moments) to a device: A and B of each linear layer.
pub fn upload(lora: &Lora, device: &Device) -> Result<Vec<Tensor>> {
    let linears = 0..lora.layout.linears.len();
    let tensors = linears.flat_map(|i| lora.layout.tensors(i, &lora.data, 1.0));
    tensors
        .map(|(numbers, shape)| Tensor::from_vec(numbers, &shape, device))
        .collect()
}

/// Copies adapters (or their gradients or moments) to the host, from A and B of each linear layer.
pub fn gather<'a>(
    layout: &Arc<LoraLayout>,
    tensors: impl Iterator<Item = &'a Tensor>,
) -> Result<Lora> {
    // In the order in which the CPU accumulates gradients.
    let data = tensors.map(download).collect::<Result<Vec<_>>>()?.concat();
    Ok(layout.gather(&[&data], 1.0))
}
