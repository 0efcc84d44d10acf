//! Tensors as kernels take them: addresses that know what lies there, and whether it is read or written.

use std::marker::PhantomData;

use candle_core::{CpuStorage, DType, Device, Result, Shape, Storage, Tensor, bail};
use half::bf16;

/// Numbers in the engine's precision: f32, or bf16 where the kernel is told so.
#[derive(Clone, Copy, Debug)]
pub enum Rounded {}

/// Address of elements that a kernel reads.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct In<'a, T>(u64, PhantomData<&'a T>);

/// Address of elements that a kernel writes.
#[repr(transparent)]
#[derive(Debug)]
pub struct Out<'a, T>(u64, PhantomData<&'a mut T>);

impl<T> In<'_, T> {
    /// What a kernel takes for an input that is not there.
    pub const NULL: Self = Self(0, PhantomData);
}

impl<T> Out<'_, T> {
    /// What a kernel takes for an output that nobody wants.
    pub const NULL: Self = Self(0, PhantomData);
}

/// A contiguous f32 tensor, to read.
///
/// # Errors
/// When it is another kind of tensor.
pub fn f32s(x: &Tensor) -> Result<In<'_, f32>> {
    Ok(In(address(x, DType::F32)?, PhantomData))
}

/// A contiguous tensor in the engine's precision, to read.
///
/// # Errors
/// When it is another kind of tensor.
pub fn rounded(x: &Tensor, dtype: DType) -> Result<In<'_, Rounded>> {
    Ok(In(address(x, dtype)?, PhantomData))
}

/// Contiguous ids or row numbers, to read.
///
/// # Errors
/// When it is another kind of tensor.
pub fn ids(x: &Tensor) -> Result<In<'_, u32>> {
    Ok(In(address(x, DType::U32)?, PhantomData))
}

/// A tensor to read, or none.
///
/// # Errors
/// When it is another kind of tensor.
pub fn optional<'a, T>(
    x: Option<&'a Tensor>,
    pointer: impl Fn(&'a Tensor) -> Result<In<'a, T>>,
) -> Result<In<'a, T>> {
    x.map_or(Ok(In::NULL), pointer)
}

/// A contiguous f32 tensor that a kernel changes in place.
///
/// # Errors
/// When it is another kind of tensor.
pub fn change_f32s(x: &Tensor) -> Result<Out<'_, f32>> {
    Ok(Out(address(x, DType::F32)?, PhantomData))
}

/// A contiguous tensor in the engine's precision that a kernel changes in place.
///
/// # Errors
/// When it is another kind of tensor.
pub fn change_rounded(x: &Tensor, dtype: DType) -> Result<Out<'_, Rounded>> {
    Ok(Out(address(x, dtype)?, PhantomData))
}

/// Contiguous ids that a kernel changes in place.
///
/// # Errors
/// When it is another kind of tensor.
pub fn change_ids(x: &Tensor) -> Result<Out<'_, u32>> {
    Ok(Out(address(x, DType::U32)?, PhantomData))
}

/// A new tensor of which a kernel is to write every element; nobody can read it before.
pub struct Fresh<T> {
    tensor: Tensor,
    address: u64,
    elements: PhantomData<T>,
}

impl<T> Fresh<T> {
    fn new(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        // SAFETY: the tensor is handed out by `written` alone.
        let tensor = unsafe { Tensor::empty(shape, dtype, device)? };
        Ok(Self {
            address: address(&tensor, dtype)?,
            tensor,
            elements: PhantomData,
        })
    }

    /// The tensor, to write.
    pub fn out(&self) -> Out<'_, T> {
        Out(self.address, PhantomData)
    }

    /// The tensor from row `first` of its first dimension on, to write.
    pub fn out_from(&self, first: usize) -> Out<'_, T> {
        let row = self.tensor.dims().iter().skip(1).product::<usize>();
        let bytes = first * row * self.tensor.dtype().size_in_bytes();
        Out(self.address + bytes as u64, PhantomData)
    }

    /// The tensor, after the launch that writes it.
    pub fn written(self) -> Tensor {
        self.tensor
    }
}

impl Fresh<f32> {
    /// A tensor of f32.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn f32s(shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        Self::new(shape, DType::F32, device)
    }
}

impl Fresh<bf16> {
    /// A tensor of bf16.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn bf16s(shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        Self::new(shape, DType::BF16, device)
    }
}

impl Fresh<u32> {
    /// A tensor of ids.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn ids(shape: impl Into<Shape>, device: &Device) -> Result<Self> {
        Self::new(shape, DType::U32, device)
    }
}

impl Fresh<Rounded> {
    /// A tensor in the engine's precision.
    ///
    /// # Errors
    /// When the device has no memory for it.
    pub fn rounded(shape: impl Into<Shape>, dtype: DType, device: &Device) -> Result<Self> {
        Self::new(shape, dtype, device)
    }
}

/// Address of a tensor's first element in the memory of its device.
fn address(tensor: &Tensor, dtype: DType) -> Result<u64> {
    if !tensor.is_contiguous() {
        bail!("kernels take contiguous tensors");
    }
    if tensor.dtype() != dtype {
        bail!("a kernel takes {dtype:?}, not {:?}", tensor.dtype());
    }
    let (storage, layout) = tensor.storage_and_layout();
    let start = match &*storage {
        Storage::Cpu(CpuStorage::F32(x)) => x.as_ptr() as u64,
        Storage::Cpu(CpuStorage::BF16(x)) => x.as_ptr() as u64,
        Storage::Cpu(CpuStorage::U32(x)) => x.as_ptr() as u64,
        Storage::Cuda(x) => address_on_gpu(x)?,
        _ => bail!("kernels take f32, bf16 and u32"),
    };
    Ok(start + (layout.start_offset() * dtype.size_in_bytes()) as u64)
}

/// Address of the first element of a GPU's storage.
#[cfg(not(feature = "cuda"))]
fn address_on_gpu(_: &candle_core::CudaStorage) -> Result<u64> {
    bail!("built without CUDA")
}

/// Address of the first element of a GPU's storage.
#[cfg(feature = "cuda")]
pub(super) fn address_on_gpu(storage: &candle_core::CudaStorage) -> Result<u64> {
    use candle_core::cuda::CudaStorageSlice as S;
    use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr};

    fn of<T>(slice: &CudaSlice<T>) -> u64 {
        slice.device_ptr(slice.stream()).0
    }
    Ok(match &storage.slice {
        S::F32(x) => of(x),
        S::BF16(x) => of(x),
        S::U32(x) => of(x),
        _ => bail!("kernels take f32, bf16 and u32"),
    })
}
