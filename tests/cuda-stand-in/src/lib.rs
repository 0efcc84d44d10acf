//! Stands in for CUDA's libraries, so that a CUDA build runs where no GPU is, and checks every call of it.
//!
//! One library under the names of all: `libcuda.so.1`, `libcublas.so.13`, `libcurand.so.10` and so on. The engine's
//! kernels run as C, block by block; candle's are a few lines of C each; products of matrices are `gemm`'s. Wrong
//! calls fail as on a GPU, and a line on standard error says what was wrong: a kernel, its argument, the address.
//!
//! Set by variables of the environment:
//! - `STAND_IN_MEMORY`: bytes that the card says it has (8 GiB);
//! - `STAND_IN_GIVES`: bytes after which nothing more can be allocated (all of them);
//! - `STAND_IN_COUNT_ONLY=1`: nothing is computed and memory is only addresses: sizes that no machine has here;
//! - `STAND_IN_REPORT`: a folder where each process keeps a file of what it asked for, `PID.json`.
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
