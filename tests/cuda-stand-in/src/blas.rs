//! Products of matrices, as cuBLAS makes them.

use std::ffi::c_void;

use gemm::Parallelism;
use half::bf16;

use crate::card::{Card, Code, Failure, Outcome, call};

/// `CUDA_R_32F` and `CUDA_R_16BF` of `library_types.h`.
const F32: i32 = 0;
const BF16: i32 = 14;
/// `CUBLAS_COMPUTE_32F` of `cublas_api.h`.
const COMPUTE_F32: i32 = 68;
/// `CUBLAS_STATUS_INVALID_VALUE` and `CUBLAS_STATUS_EXECUTION_FAILED`.
const INVALID_VALUE: i32 = 7;
const EXECUTION_FAILED: i32 = 13;

/// Matrices in the card's memory, one behind the other, column by column.
struct Matrices {
    /// For messages.
    name: &'static str,
    address: usize,
    bf16: bool,
    rows: usize,
    columns: usize,
    /// Elements from a column to the next, and from a matrix to the next.
    leading: usize,
    distance: usize,
}

impl Matrices {
    fn bytes_each(&self) -> usize {
        if self.bf16 { 2 } else { 4 }
    }

    /// Elements from the first to the last of one matrix.
    fn extent(&self) -> usize {
        match self.rows == 0 || self.columns == 0 {
            true => 0,
            false => self.leading * (self.columns - 1) + self.rows,
        }
    }

    /// Bytes from the first to the last of all.
    fn bytes(&self, batch: usize) -> usize {
        match (self.extent(), batch) {
            (0, _) | (_, 0) => 0,
            (extent, batch) => (self.distance * (batch - 1) + extent) * self.bytes_each(),
        }
    }

    fn check(&self, card: &Card, batch: usize) -> Outcome {
        let name = self.name;
        if self.leading < self.rows.max(1) {
            let words = format!("{name} has {} rows, {} apart", self.rows, self.leading);
            return Err(Failure(Code::InvalidValue, words));
        }
        match self.bytes(batch) {
            0 => Ok(()),
            bytes => card.must_have(name, self.address, bytes),
        }
    }

    /// Matrix `i` in f32.
    ///
    /// # Safety
    /// It was checked.
    unsafe fn read(&self, i: usize) -> Vec<f32> {
        let (start, len) = (i * self.distance, self.extent());
        // SAFETY: so many elements are allocated there. Their addresses may be odd.
        unsafe {
            if self.bf16 {
                let from = (self.address as *const bf16).add(start);
                (0..len)
                    .map(|j| from.add(j).read_unaligned().to_f32())
                    .collect()
            } else {
                let from = (self.address as *const f32).add(start);
                (0..len).map(|j| from.add(j).read_unaligned()).collect()
            }
        }
    }

    /// Writes matrix `i`, what is between its columns excepted.
    ///
    /// # Safety
    /// It was checked.
    unsafe fn write(&self, i: usize, values: &[f32]) {
        for column in 0..self.columns {
            for row in 0..self.rows {
                let j = column * self.leading + row;
                let at = i * self.distance + j;
                // SAFETY: it is allocated.
                unsafe {
                    if self.bf16 {
                        let to = (self.address as *mut bf16).add(at);
                        to.write_unaligned(bf16::from_f32(values[j]));
                    } else {
                        (self.address as *mut f32)
                            .add(at)
                            .write_unaligned(values[j]);
                    }
                }
            }
        }
    }
}

/// `c = alpha · op(a) · op(b) + beta · c`, for each of `batch` matrices.
struct Product {
    a: Matrices,
    b: Matrices,
    c: Matrices,
    transposed: [bool; 2],
    inner: usize,
    alpha: f32,
    beta: f32,
    batch: usize,
}

impl Product {
    fn run(&self, card: &mut Card) -> Outcome {
        let (m, n, k) = (self.c.rows, self.c.columns, self.inner);
        for matrices in [&self.a, &self.b, &self.c] {
            matrices.check(card, self.batch)?;
        }
        let range = |x: &Matrices| x.address..x.address + x.bytes(self.batch);
        let c = range(&self.c);
        for x in [&self.a, &self.b] {
            let x = range(x);
            if x.start < c.end && c.start < x.end {
                let words = format!("C at {:#x} lies over what it is computed from", c.start);
                return Err(Failure(Code::InvalidValue, words));
            }
        }
        let products = &mut card.report.products;
        products.calls += 1;
        products.operations += 2 * (m * n * k * self.batch) as u64;
        let read = if self.beta == 0.0 { 1 } else { 2 };
        let bytes = (m * k * self.a.bytes_each() + k * n * self.b.bytes_each())
            + read * m * n * self.c.bytes_each();
        products.bytes += (bytes * self.batch) as u64;
        if card.memory.backed {
            for i in 0..self.batch {
                // SAFETY: all three were checked.
                unsafe { self.one(i) };
            }
        }
        Ok(())
    }

    /// # Safety
    /// The matrices were checked.
    unsafe fn one(&self, i: usize) {
        // SAFETY: as the caller promises.
        let (a, b, mut c) = unsafe { (self.a.read(i), self.b.read(i), self.c.read(i)) };
        let strides = |x: &Matrices, transposed: bool| match transposed {
            false => (x.leading as isize, 1),
            true => (1, x.leading as isize),
        };
        let (a_columns, a_rows) = strides(&self.a, self.transposed[0]);
        let (b_columns, b_rows) = strides(&self.b, self.transposed[1]);
        // SAFETY: the three are as large as their sizes and distances say.
        unsafe {
            gemm::gemm(
                self.c.rows,
                self.c.columns,
                self.inner,
                c.as_mut_ptr(),
                self.c.leading as isize,
                1,
                self.beta != 0.0,
                a.as_ptr(),
                a_columns,
                a_rows,
                b.as_ptr(),
                b_columns,
                b_rows,
                self.beta,
                self.alpha,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
        // SAFETY: as the caller promises.
        unsafe { self.c.write(i, &c) };
    }
}

fn status(code: Code) -> i32 {
    match code {
        Code::Success => 0,
        Code::InvalidValue => INVALID_VALUE,
        _ => EXECUTION_FAILED,
    }
}

/// A size that cuBLAS takes as a signed number.
fn size(what: &str, n: i64) -> Outcome<usize> {
    usize::try_from(n)
        .map_err(|_| Failure(Code::InvalidValue, format!("{what} is {n}, below nothing")))
}

/// Whether elements of a type are bf16.
fn is_bf16(kind: i32) -> Outcome<bool> {
    match kind {
        F32 => Ok(false),
        BF16 => Ok(true),
        _ => Err(Failure(
            Code::InvalidValue,
            format!("elements of type {kind}"),
        )),
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasCreate_v2(handle: *mut usize) -> i32 {
    status(call("cublasCreate", |card| {
        // SAFETY: the caller gives a place for it.
        unsafe { *handle = card.handle() };
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasDestroy_v2(handle: usize) -> i32 {
    status(call("cublasDestroy", |card| {
        card.must_know("handle", handle)?;
        card.handles.remove(&handle);
        Ok(())
    }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cublasSetStream_v2(handle: usize, stream: usize) -> i32 {
    status(call("cublasSetStream", |card| {
        card.must_know("handle", handle)?;
        card.must_know("stream", stream)
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetVersion_v2(_: usize, version: *mut i32) -> i32 {
    // SAFETY: the caller gives a place for it.
    unsafe { *version = 130_000 };
    0
}

#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)]
pub unsafe extern "C" fn cublasGemmStridedBatchedEx(
    handle: usize,
    transpose_a: i32,
    transpose_b: i32,
    m: i32,
    n: i32,
    k: i32,
    alpha: *const c_void,
    a: usize,
    a_type: i32,
    a_leading: i32,
    a_distance: i64,
    b: usize,
    b_type: i32,
    b_leading: i32,
    b_distance: i64,
    beta: *const c_void,
    c: usize,
    c_type: i32,
    c_leading: i32,
    c_distance: i64,
    batch: i32,
    compute: i32,
    _: i32,
) -> i32 {
    status(call("cublasGemmStridedBatchedEx", |card| {
        card.must_know("handle", handle)?;
        let [m, n, k] = [
            size("m", m.into())?,
            size("n", n.into())?,
            size("k", k.into())?,
        ];
        let transposed = [transpose_a != 0, transpose_b != 0];
        let matrices = |name, address, kind, shape: [usize; 2], leading: i32, distance| {
            Ok(Matrices {
                name,
                address,
                bf16: is_bf16(kind)?,
                rows: shape[0],
                columns: shape[1],
                leading: size("the leading dimension", leading.into())?,
                distance: size("the stride", distance)?,
            })
        };
        let turned = |shape: [usize; 2], turn: bool| match turn {
            true => [shape[1], shape[0]],
            false => shape,
        };
        let (a_shape, b_shape) = (turned([m, k], transposed[0]), turned([k, n], transposed[1]));
        if compute != COMPUTE_F32 {
            let words = format!("computes in type {compute}, not in f32");
            return Err(Failure(Code::InvalidValue, words));
        }
        let product = Product {
            a: matrices("A", a, a_type, a_shape, a_leading, a_distance)?,
            b: matrices("B", b, b_type, b_shape, b_leading, b_distance)?,
            c: matrices("C", c, c_type, [m, n], c_leading, c_distance)?,
            transposed,
            inner: k,
            // SAFETY: both are of the type that is computed in, in the machine's memory.
            alpha: unsafe { *alpha.cast() },
            // SAFETY: as above.
            beta: unsafe { *beta.cast() },
            batch: size("the number of matrices", batch.into())?,
        };
        product.run(card)
    }))
}
