//! Matrix products, with inputs in f32 or bf16, and sums in f32.

#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::{
    CpuStorage, DType, Device, InplaceOp2, InplaceOp3, Layout, Result, Tensor, bail,
};
use half::bf16;

#[cfg(feature = "cuda")]
use super::kernels::named;
#[cfg(feature = "cuda")]
use super::pointers::address_on_gpu;

/// A linear layer with weights `[out, in]`: `y [M, N] = x [M, K] · w [N, K]ᵀ`, f32.
pub fn matmul_nt(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    product(x, &w.t()?, DType::F32)
}

/// Gradient of a linear layer's input: `dx [M, K] = dy [M, N] · w [N, K]`, f32.
pub fn matmul_nn(dy: &Tensor, w: &Tensor) -> Result<Tensor> {
    product(dy, w, DType::F32)
}

/// Adds the gradient of a linear layer's weights: `dw [N, K] += scale · dy [M, N]ᵀ · x [M, K]`.
pub fn add_matmul_tn(dw: &mut Option<Tensor>, dy: &Tensor, x: &Tensor, scale: f32) -> Result<()> {
    match dw {
        Some(dw) => add_product(dw, &dy.t()?, x, scale),
        None => {
            *dw = Some(scaled_product(&dy.t()?, x, scale, DType::F32)?);
            Ok(())
        }
    }
}

/// The product of two matrices, or of each pair of two batches of matrices, rounded to a type.
pub fn product(a: &Tensor, b: &Tensor, dtype: DType) -> Result<Tensor> {
    scaled_product(a, b, 1.0, dtype)
}

/// [`product`], times a factor.
pub fn scaled_product(a: &Tensor, b: &Tensor, scale: f32, dtype: DType) -> Result<Tensor> {
    let shape = product_shape(a.dims(), b.dims())?;
    // SAFETY: the product writes every element.
    let out = unsafe { Tensor::empty(shape, dtype, a.device())? };
    write(&out, a, b, Product { scale, keep: 0.0 })?;
    Ok(out)
}

/// Writes a product in place to a tensor, or to a part of one whose matrices are contiguous.
pub fn put_product(out: &Tensor, a: &Tensor, b: &Tensor) -> Result<()> {
    let product = Product {
        scale: 1.0,
        keep: 0.0,
    };
    write(out, a, b, product)
}

/// Adds a product times a factor in place to a tensor, or to a part of one whose matrices are contiguous.
pub fn add_product(sum: &Tensor, a: &Tensor, b: &Tensor, scale: f32) -> Result<()> {
    write(sum, a, b, Product { scale, keep: 1.0 })
}

/// `out = scale · a · b + keep · out`, of f32 or bf16, whose sums are f32.
#[derive(Clone, Copy)]
struct Product {
    scale: f32,
    keep: f32,
}

fn write(out: &Tensor, a: &Tensor, b: &Tensor, how: Product) -> Result<()> {
    let shape = product_shape(a.dims(), b.dims())?;
    if out.dims() != shape {
        bail!("a product {shape:?} is not of the shape {:?}", out.dims());
    }
    if shape.contains(&0) {
        return Ok(());
    }
    match out.device() {
        Device::Cuda(_) => out.inplace_op3(a, b, &how),
        _ => {
            // Widened to f32, bf16 inputs give the same product, only slower.
            let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
            out.inplace_op2(&a.matmul(&b)?, &how)
        }
    }
}

/// Shape of a product; an error if the factors do not multiply.
fn product_shape(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let (mut shape, d) = (a.to_vec(), a.len());
    if b.len() != d || d < 2 || b[..d - 1] != [&shape[..d - 2], &shape[d - 1..]].concat() {
        bail!("{a:?} and {b:?} do not multiply");
    }
    shape[d - 1] = b[d - 1];
    Ok(shape)
}

impl InplaceOp2 for Product {
    fn name(&self) -> &'static str {
        "write a product"
    }

    fn cpu_fwd(
        &self,
        out: &mut CpuStorage,
        out_layout: &Layout,
        product: &CpuStorage,
        product_layout: &Layout,
    ) -> Result<()> {
        let (CpuStorage::F32(product), Some((from, to))) =
            (product, product_layout.contiguous_offsets())
        else {
            bail!("a contiguous product in f32");
        };
        let (operand, dims) = (Operand::destination(out_layout)?, out_layout.dims());
        let each = dims[dims.len() - 2..].iter().product();
        let new = |old: f32, x: f32| {
            let kept = if self.keep == 0.0 {
                0.0
            } else {
                self.keep * old
            };
            kept + self.scale * x
        };
        for (i, product) in product[from..to].chunks_exact(each).enumerate() {
            let start = out_layout.start_offset() + i * operand.distance;
            match out {
                CpuStorage::F32(out) => {
                    let out = out[start..start + each].iter_mut();
                    out.zip(product).for_each(|(y, &x)| *y = new(*y, x));
                }
                CpuStorage::BF16(out) => {
                    let out = out[start..start + each].iter_mut();
                    let rounded = |y: bf16, x| bf16::from_f32(new(y.to_f32(), x));
                    out.zip(product).for_each(|(y, &x)| *y = rounded(*y, x));
                }
                _ => bail!("products are f32 or bf16"),
            }
        }
        Ok(())
    }
}

impl InplaceOp3 for Product {
    fn name(&self) -> &'static str {
        "a product in place"
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

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        out: &mut CudaStorage,
        out_layout: &Layout,
        a: &CudaStorage,
        a_layout: &Layout,
        b: &CudaStorage,
        b_layout: &Layout,
    ) -> Result<()> {
        let [out, a, b] = [(&*out, out_layout), (a, a_layout), (b, b_layout)]
            .map(|(storage, layout)| cuda::Matrices { storage, layout });
        cuda::write(out, a, b, *self)
    }
}

/// A batch of row-major matrices `[.., rows, columns]` as column-major cuBLAS takes them.
pub(super) struct Operand {
    /// Whether cuBLAS must transpose the matrices.
    pub transposed: bool,
    /// Leading dimension.
    #[cfg_attr(
        not(any(feature = "cuda", test)),
        expect(dead_code, reason = "cuBLAS alone takes it")
    )]
    pub leading: usize,
    /// Elements from one matrix of a batch to the next.
    pub distance: usize,
}

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

    /// The operand of a product's layout, which is never transposed.
    fn destination(layout: &Layout) -> Result<Self> {
        let operand = Self::new(layout)?;
        if operand.transposed {
            bail!("products are written row by row, not to {layout:?}");
        }
        Ok(operand)
    }
}

#[cfg(feature = "cuda")]
mod cuda {
    //! Products through cuBLAS, whose results can be of another type than the factors and be added to: candle's own
    //! products of bf16 are rounded to bf16, and never added.

    use std::ffi::c_void;
    use std::ptr::from_ref;

    use candle_core::backend::BackendStorage;
    use candle_core::cuda::WrapErr;
    use candle_core::cuda::cudarc::cublas::{result, sys};
    use candle_core::{CudaStorage, DType, Layout, Result, bail};

    use super::{Operand, Product, address_on_gpu, named};

    /// Matrices in a GPU's memory.
    #[derive(Clone, Copy)]
    pub(super) struct Matrices<'a> {
        pub(super) storage: &'a CudaStorage,
        pub(super) layout: &'a Layout,
    }

    impl Matrices<'_> {
        /// Address of the `i`th matrix of a batch, as `distance` elements lie between two.
        fn address(self, i: usize, distance: usize) -> Result<u64> {
            let at = self.layout.start_offset() + i * distance;
            let bytes = at * self.storage.dtype().size_in_bytes();
            Ok(address_on_gpu(self.storage)? + bytes as u64)
        }

        /// cuBLAS's name of the elements' type.
        fn kind(self) -> Result<sys::cudaDataType_t> {
            match self.storage.dtype() {
                DType::F32 => Ok(sys::cudaDataType_t::CUDA_R_32F),
                DType::BF16 => Ok(sys::cudaDataType_t::CUDA_R_16BF),
                other => bail!("products are of f32 or bf16, not of {other:?}"),
            }
        }
    }

    /// Products of one call of cuBLAS, some of whose kernels fail from 65 536 on.
    const MOST_PRODUCTS: usize = 1 << 15;

    /// Writes `scale · a · b + keep · out` to `out`, whose shape is the product's.
    pub(super) fn write(out: Matrices, a: Matrices, b: Matrices, how: Product) -> Result<()> {
        let (dims, d) = (out.layout.dims(), out.layout.dims().len());
        let (m, k, n) = (dims[d - 2], a.layout.dims()[d - 1], dims[d - 1]);
        let batch: usize = dims[..d - 2].iter().product();
        let to = Operand::destination(out.layout)?;
        let (a_operand, b_operand) = (Operand::new(a.layout)?, Operand::new(b.layout)?);
        let op = |operand: &Operand| {
            if operand.transposed {
                sys::cublasOperation_t::CUBLAS_OP_T
            } else {
                sys::cublasOperation_t::CUBLAS_OP_N
            }
        };
        let handle = out.storage.device.cublas_handle();
        if a.storage.dtype() != b.storage.dtype() {
            bail!("both matrices must be f32, or both bf16");
        }
        for first in (0..batch).step_by(MOST_PRODUCTS) {
            let at = |x: Matrices, operand: &Operand| x.address(first, operand.distance);
            let multiply = || {
                // SAFETY: the layouts are of these tensors and multiply; `out` has the product's shape. Row-major
                // c = a·b is column-major cᵀ = bᵀ·aᵀ, so b comes first. All work of a device goes through its one
                // stream, so that nothing is freed before.
                unsafe {
                    result::gemm_strided_batched_ex(
                        *handle.handle(),
                        op(&b_operand),
                        op(&a_operand),
                        n as i32,
                        m as i32,
                        k as i32,
                        from_ref(&how.scale).cast::<c_void>(),
                        at(b, &b_operand)? as *const c_void,
                        b.kind()?,
                        b_operand.leading as i32,
                        b_operand.distance as i64,
                        at(a, &a_operand)? as *const c_void,
                        a.kind()?,
                        a_operand.leading as i32,
                        a_operand.distance as i64,
                        from_ref(&how.keep).cast::<c_void>(),
                        at(out, &to)? as *mut c_void,
                        out.kind()?,
                        n as i32,
                        to.distance as i64,
                        MOST_PRODUCTS.min(batch - first) as i32,
                        sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                        sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
                    )
                }
                .w()
            };
            named(&out.storage.device, "a product of matrices", multiply)?;
        }
        Ok(())
    }
}
