//! Number formats of tensors, and copies between the device and the host.

use candle_core::{DType, Device, Result, Tensor};

use crate::ops::Precision;

/// The format of tensors that go into matrix products.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::Bf16 => DType::BF16,
    }
}

/// Whether tensors are bf16, 1 or 0, as kernels take it.
pub fn is_bf16(dtype: DType) -> usize {
    usize::from(dtype == DType::BF16)
}

/// Copies ids or row numbers `[M]` to a device.
pub fn upload_ids(ids: &[u32], device: &Device) -> Result<Tensor> {
    Tensor::from_slice(ids, ids.len(), device)
}

/// Copies a tensor's elements to the host.
pub fn download(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}
