//! Matrix products: inputs in f32 or bf16, sums and results in f32.

use candle_core::{DType, Device, Layout, Result, Tensor, bail};

/// `y [M, N] = x [M, K] · w [N, K]ᵀ`: a linear layer with weights `[out, in]`.
pub fn matmul_nt(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    product(x, &w.t()?)
}

/// `dx [M, K] = dy [M, N] · w [N, K]`: a linear layer's gradient to its input.
pub fn matmul_nn(dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    product(dy, w)
}

/// `dw [N, K] = dy [M, N]ᵀ · x [M, K]`: a linear layer's gradient to its weights.
pub fn matmul_tn(dy: &Tensor, x: &Tensor) -> Result<Tensor> {
    product(&dy.t()?, x)
}

/// A product of matrices, or of each of a batch of them.
pub fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.device(), a.dtype()) {
        #[cfg(feature = "cuda")]
        (Device::Cuda(_), DType::BF16) => a.apply_op2_no_bwd(b, &cuda::Bf16ToF32),
        // bf16 widened to f32 is the same product, if not as fast.
        (Device::Cpu, DType::BF16) => a.to_dtype(DType::F32)?.matmul(&b.to_dtype(DType::F32)?),
        _ => a.matmul(b),
    }
}

/// How cuBLAS, which thinks in columns, is told of row-major matrices `[.., rows, columns]`.
pub(super) struct Operand {
    /// Whether it is to transpose them.
    pub transposed: bool,
    /// Leading dimension.
    pub leading: usize,
    /// From one matrix of a batch to the next.
    pub distance: usize,
}

impl Operand {
    pub(super) fn new(layout: &Layout) -> Result<Self> {
        let (dims, stride) = (layout.dims(), layout.stride());
        let n = dims.len();
        let (rows, columns) = (dims[n - 2], dims[n - 1]);
        let strides_are = |row: usize, column: usize| {
            (stride[n - 2] == row || rows == 1) && (stride[n - 1] == column || columns == 1)
        };
        let (transposed, leading) = if strides_are(columns, 1) {
            (false, columns)
        } else if strides_are(1, rows) {
            (true, rows)
        } else {
            bail!("matrix products take contiguous or transposed matrices, not {layout:?}");
        };
        // Several dimensions of matrices must be as evenly spaced as one.
        let is_even = |i: usize| dims[i] == 1 || stride[i] == stride[i + 1] * dims[i + 1];
        if !(0..n.saturating_sub(3)).all(is_even) {
            bail!("matrix products take evenly spaced batches, not {layout:?}");
        }
        Ok(Self {
            transposed,
            leading,
            distance: if n > 2 { stride[n - 3] } else { 0 },
        })
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    //! candle rounds the results of bf16 products to bf16; cuBLAS need not.

    use std::ffi::c_void;
    use std::ptr::from_ref;

    use candle_core::cuda::cudarc::cublas::{result, sys};
    use candle_core::cuda::cudarc::driver::{DevicePtr, DevicePtrMut};
    use candle_core::cuda::{CudaStorageSlice as S, WrapErr};
    use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, Result, Shape, bail};

    use super::Operand;

    pub(super) struct Bf16ToF32;

    impl CustomOp2 for Bf16ToF32 {
        fn name(&self) -> &'static str {
            "bf16 matmul to f32"
        }

        fn cpu_fwd(
            &self,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
        ) -> Result<(CpuStorage, Shape)> {
            bail!("on the CPU, bf16 is widened first")
        }

        fn cuda_fwd(
            &self,
            a: &CudaStorage,
            a_layout: &Layout,
            b: &CudaStorage,
            b_layout: &Layout,
        ) -> Result<(CudaStorage, Shape)> {
            let (S::BF16(a_slice), S::BF16(b_slice)) = (&a.slice, &b.slice) else {
                bail!("both matrices must be bf16");
            };
            let mut shape = a_layout.dims().to_vec();
            let d = shape.len();
            let (m, k, n) = (shape[d - 2], shape[d - 1], b_layout.dims()[d - 1]);
            shape[d - 1] = n;
            if b_layout.dims()[..d - 1] != [&a_layout.dims()[..d - 2], &[k]].concat() {
                bail!("{a_layout:?} and {b_layout:?} do not multiply");
            }
            let batch: usize = shape[..d - 2].iter().product();
            let (a_operand, b_operand) = (Operand::new(a_layout)?, Operand::new(b_layout)?);
            let op = |operand: &Operand| match operand.transposed {
                true => sys::cublasOperation_t::CUBLAS_OP_T,
                false => sys::cublasOperation_t::CUBLAS_OP_N,
            };
            let device = a.device.clone();
            // SAFETY: the product writes every number.
            let mut out = unsafe { device.alloc::<f32>(batch * m * n)? };
            let stream = device.cuda_stream();
            let bf16 = |offset: usize| 2 * offset as u64;
            {
                let (a, _reads_a) = a_slice.device_ptr(&stream);
                let (b, _reads_b) = b_slice.device_ptr(&stream);
                let (c, _writes) = out.device_ptr_mut(&stream);
                let (one, zero) = (1f32, 0f32);
                // SAFETY: the layouts are of these slices and were checked to multiply; `out` holds the
                // product. Row-major c = a·b is column-major cᵀ = bᵀ·aᵀ, so b comes first.
                unsafe {
                    result::gemm_strided_batched_ex(
                        *device.cublas_handle().handle(),
                        op(&b_operand),
                        op(&a_operand),
                        n as i32,
                        m as i32,
                        k as i32,
                        from_ref(&one).cast::<c_void>(),
                        (b + bf16(b_layout.start_offset())) as *const c_void,
                        sys::cudaDataType_t::CUDA_R_16BF,
                        b_operand.leading as i32,
                        b_operand.distance as i64,
                        (a + bf16(a_layout.start_offset())) as *const c_void,
                        sys::cudaDataType_t::CUDA_R_16BF,
                        a_operand.leading as i32,
                        a_operand.distance as i64,
                        from_ref(&zero).cast::<c_void>(),
                        c as *mut c_void,
                        sys::cudaDataType_t::CUDA_R_32F,
                        n as i32,
                        (m * n) as i64,
                        batch as i32,
                        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                        sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
                    )
                }
                .w()?;
            }
            let storage = CudaStorage {
                slice: S::F32(out),
                device,
            };
            Ok((storage, shape.into()))
        }
    }
}
