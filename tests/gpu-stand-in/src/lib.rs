//! Runs the GPU's kernels on the CPU for tests, compiled as C by the system's compiler.
//!
//! In debug builds only: release builds have the GPU's engine only with CUDA.

#![cfg(debug_assertions)]

#[path = "../../../app/engine/src/gpu/tests/on_cpu.rs"]
mod on_cpu;

use forgetlab_engine::gpu::set_stand_in;

/// The C file that includes the kernels.
const SOURCE: &str = "../../app/engine/src/gpu/tests/on_cpu.c";

/// Makes kernels on tensors in the machine's memory run from now on.
pub fn install() {
    set_stand_in(on_cpu::run);
}
