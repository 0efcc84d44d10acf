//! Matrix products, with inputs in f32 or bf16, sums and results in f32.

use candle_core::{DType, Device, Result, Tensor};
#[cfg(any(feature = "cuda", test))]
use candle_core::{Layout, bail};

/// A linear layer with weights `[out, in]`: `y [M, N] = x [M, K] · w [N, K]ᵀ`.
pub fn matmul_nt(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    product(x, &w.t()?)
}

/// Gradient of a linear layer's input: `dx [M, K] = dy [M, N] · w [N, K]`.
pub fn matmul_nn(dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    product(dy, w)
}

/// Adds the gradient of a linear layer's weights: `dw [N, K] += dy [M, N]ᵀ · x [M, K]`.
pub fn add_matmul_tn(dw: &mut Option<Tensor>, dy: &Tensor, x: &Tensor) -> Result<()> {
    add_product(dw, &dy.t()?, x)
}

/// The product of two matrices, or of each pair of two batches of matrices.
pub fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    match (a.device(), a.dtype()) {
        #[cfg(feature = "cuda")]
        (Device::Cuda(_), _) => a.apply_op2_no_bwd(b, &cuda::Product),
        // Widened to f32, bf16 inputs give the same product, only slower.
        (Device::Cpu, DType::BF16) => a.to_dtype(DType::F32)?.matmul(&b.to_dtype(DType::F32)?),
        _ => a.matmul(b),
    }
}

/// Adds a product to `sum`, or sets it if it is `None`; in place on a GPU, so that there must be no other
/// reference to the tensor.
pub fn add_product(sum: &mut Option<Tensor>, a: &Tensor, b: &Tensor) -> Result<()> {
    let Some(so_far) = sum else {
        *sum = Some(product(a, b)?);
        return Ok(());
    };
    match a.device() {
        #[cfg(feature = "cuda")]
        Device::Cuda(_) => so_far.inplace_op3(a, b, &cuda::Product)?,
        _ => *so_far = (&*so_far + product(a, b)?)?,
    }
    Ok(())
}

/// A batch of row-major matrices `[.., rows, columns]` as column-major cuBLAS takes them.
#[cfg(any(feature = "cuda", test))]
pub(super) struct Operand {
    /// Whether cuBLAS must transpose the matrices.
    pub transposed: bool,
    /// Leading dimension.
    pub leading: usize,
    /// Elements from one matrix of a batch to the next.
    pub distance: usize,
}

#[cfg(any(feature = "cuda", test))]
impl Operand {
    /// The operand of a tensor's layout; an error if cuBLAS cannot read the layout.
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
        // Batches of several dimensions must be as evenly spaced as one of one dimension.
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
    //! Products through cuBLAS, whose results are f32 and can be added to: candle's own products of bf16 are
    //! rounded to bf16, and never added.

    use std::ffi::c_void;
    use std::ptr::from_ref;

    use candle_core::cuda::cudarc::cublas::{result, sys};
    use candle_core::cuda::cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut};
    use candle_core::cuda::{CudaDevice, CudaStorageSlice as S, WrapErr};
    use candle_core::{
        CpuStorage, CudaStorage, CustomOp2, InplaceOp3, Layout, Result, Shape, bail,
    };

    use super::Operand;

    /// A product in f32 of matrices that are both f32 or both bf16.
    pub(super) struct Product;

    /// An operand's memory, and where its elements are in it.
    #[derive(Clone, Copy)]
    struct Source<'a> {
        storage: &'a CudaStorage,
        layout: &'a Layout,
    }

    /// The product's memory from an element on.
    struct Destination<'a> {
        slice: &'a mut CudaSlice<f32>,
        offset: usize,
    }

    impl CustomOp2 for Product {
        fn name(&self) -> &'static str {
            "matmul to f32"
        }

        fn cpu_fwd(
            &self,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
        ) -> Result<(CpuStorage, Shape)> {
            bail!("on the CPU, candle's own product is taken")
        }

        fn cuda_fwd(
            &self,
            a: &CudaStorage,
            a_layout: &Layout,
            b: &CudaStorage,
            b_layout: &Layout,
        ) -> Result<(CudaStorage, Shape)> {
            let shape = product_shape(a_layout, b_layout)?;
            let device = a.device.clone();
            // SAFETY: the product writes every element.
            let mut slice = unsafe { device.alloc::<f32>(shape.iter().product())? };
            let out = Destination {
                slice: &mut slice,
                offset: 0,
            };
            write(&device, source(a, a_layout), source(b, b_layout), out, 0.0)?;
            let storage = CudaStorage {
                slice: S::F32(slice),
                device,
            };
            Ok((storage, shape.into()))
        }
    }

    impl InplaceOp3 for Product {
        fn name(&self) -> &'static str {
            "matmul added to f32"
        }

        fn cpu_fwd(
            &self,
            _: &mut CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
            _: &CpuStorage,
            _: &Layout,
        ) -> Result<()> {
            bail!("on the CPU, candle's own product is taken")
        }

        fn cuda_fwd(
            &self,
            sum: &mut CudaStorage,
            sum_layout: &Layout,
            a: &CudaStorage,
            a_layout: &Layout,
            b: &CudaStorage,
            b_layout: &Layout,
        ) -> Result<()> {
            let shape = product_shape(a_layout, b_layout)?;
            if !sum_layout.is_contiguous() || sum_layout.dims() != shape {
                bail!("a product {shape:?} cannot be added to {sum_layout:?}");
            }
            let S::F32(slice) = &mut sum.slice else {
                bail!("products are added to f32");
            };
            let out = Destination {
                slice,
                offset: sum_layout.start_offset(),
            };
            write(
                &a.device,
                source(a, a_layout),
                source(b, b_layout),
                out,
                1.0,
            )
        }
    }

    /// Products of one call of cuBLAS, some of whose kernels fail from 65 536 on.
    const MOST_PRODUCTS: usize = 1 << 15;

    fn source<'a>(storage: &'a CudaStorage, layout: &'a Layout) -> Source<'a> {
        Source { storage, layout }
    }

    /// Shape of a product; an error if the factors do not multiply.
    fn product_shape(a: &Layout, b: &Layout) -> Result<Vec<usize>> {
        let (mut shape, d) = (a.dims().to_vec(), a.dims().len());
        if b.dims()[..d - 1] != [&shape[..d - 2], &shape[d - 1..]].concat() {
            bail!("{a:?} and {b:?} do not multiply");
        }
        shape[d - 1] = b.dims()[d - 1];
        Ok(shape)
    }

    /// Writes `a · b + keep · out` to `out`.
    fn write(device: &CudaDevice, a: Source, b: Source, out: Destination, keep: f32) -> Result<()> {
        let shape = product_shape(a.layout, b.layout)?;
        let d = shape.len();
        let (m, k, n) = (shape[d - 2], a.layout.dims()[d - 1], shape[d - 1]);
        let batch: usize = shape[..d - 2].iter().product();
        let (a_operand, b_operand) = (Operand::new(a.layout)?, Operand::new(b.layout)?);
        let op = |operand: &Operand| {
            if operand.transposed {
                sys::cublasOperation_t::CUBLAS_OP_T
            } else {
                sys::cublasOperation_t::CUBLAS_OP_N
            }
        };
        let stream = device.cuda_stream();
        let (a_start, b_start) = (a.layout.start_offset(), b.layout.start_offset());
        let (a, b, kind, bytes, _reads) = match (&a.storage.slice, &b.storage.slice) {
            (S::BF16(a), S::BF16(b)) => {
                let ((a, reads_a), (b, reads_b)) = (a.device_ptr(&stream), b.device_ptr(&stream));
                let (a, b) = (a + 2 * a_start as u64, b + 2 * b_start as u64);
                (
                    a,
                    b,
                    sys::cudaDataType_t::CUDA_R_16BF,
                    2,
                    (reads_a, reads_b),
                )
            }
            (S::F32(a), S::F32(b)) => {
                let ((a, reads_a), (b, reads_b)) = (a.device_ptr(&stream), b.device_ptr(&stream));
                let (a, b) = (a + 4 * a_start as u64, b + 4 * b_start as u64);
                (a, b, sys::cudaDataType_t::CUDA_R_32F, 4, (reads_a, reads_b))
            }
            _ => bail!("both matrices must be f32, or both bf16"),
        };
        let (c, _writes) = out.slice.device_ptr_mut(&stream);
        let one = 1f32;
        for first in (0..batch).step_by(MOST_PRODUCTS) {
            let at =
                |start: u64, distance: usize, bytes: u64| start + bytes * (first * distance) as u64;
            // SAFETY: the layouts are of these slices and were checked to multiply; `out` holds the product
            // from its offset on. Row-major c = a·b is column-major cᵀ = bᵀ·aᵀ, so b comes first.
            unsafe {
                result::gemm_strided_batched_ex(
                    *device.cublas_handle().handle(),
                    op(&b_operand),
                    op(&a_operand),
                    n as i32,
                    m as i32,
                    k as i32,
                    from_ref(&one).cast::<c_void>(),
                    at(b, b_operand.distance, bytes) as *const c_void,
                    kind,
                    b_operand.leading as i32,
                    b_operand.distance as i64,
                    at(a, a_operand.distance, bytes) as *const c_void,
                    kind,
                    a_operand.leading as i32,
                    a_operand.distance as i64,
                    from_ref(&keep).cast::<c_void>(),
                    at(c + 4 * out.offset as u64, m * n, 4) as *mut c_void,
                    sys::cudaDataType_t::CUDA_R_32F,
                    n as i32,
                    (m * n) as i64,
                    MOST_PRODUCTS.min(batch - first) as i32,
                    sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                    sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
                )
            }
            .w()?;
        }
        Ok(())
    }
}
