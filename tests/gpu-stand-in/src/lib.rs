//! Lets tests run the GPU's kernels on the CPU, compiled as C by the system's compiler. Debug builds only: others
//! have the GPU's engine with CUDA alone.

#![cfg(debug_assertions)]

#[path = "../../../app/engine/src/gpu/tests/on_cpu.rs"]
mod on_cpu;

use forgetlab_engine::gpu::{Args, set_stand_in};

/// Where the kernels are wrapped for the C compiler.
const SOURCE: &str = "../../app/engine/src/gpu/tests/on_cpu.c";

/// Has kernels on tensors in the machine's memory run from now on.
pub fn install() {
    set_stand_in(on_cpu::run);
}
