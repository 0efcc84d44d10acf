//! Stands in for CUDA's libraries, so that a CUDA build runs where no GPU is, and checks every call of it.
//!
//! One library under the names of all: `libcuda.so.1`, `libcublas.so.13`, `libcurand.so.10` and so on. The engine's
//! kernels run as C, block by block; candle's are a few lines of C each; products of matrices are `gemm`'s. Wrong
//! calls fail as on a GPU, and a line on standard error says what was wrong: a kernel, its argument, the address.
//!
//! Variables of the environment set it: the crate's README has them.
//!
//! It proves nothing of speed, nor of what runs at the same time on a GPU.

#![cfg(unix)]

mod blas;
mod card;
mod driver;
mod fault;
mod kernels;
mod launch;
mod memory;
mod page;
mod random;
mod report;
#[cfg(test)]
mod tests;
