//! Launching the kernels of `kernels.cu`.

use std::ffi::c_void;
use std::ptr::from_ref;
use std::sync::OnceLock;

use candle_core::{Device, Result, bail};

use super::arguments::Kernel;

/// Threads that move together, and fewest of a block.
pub const WARP: usize = 32;
/// Most threads of a block, as in `kernels.cu`.
pub const MAX_THREADS: usize = 256;

/// Runs the kernel of a name with a number of blocks on the struct that it takes.
pub type Run = unsafe fn(&'static str, usize, *const c_void);

/// Runs kernels on tensors in the machine's memory, if a test has set it.
static STAND_IN: OnceLock<Run> = OnceLock::new();

/// Sets what runs the kernels on tensors in the machine's memory from now on, in tests without a GPU.
pub fn set_stand_in(run: Run) {
    // Every test sets it, to the same function.
    let _ = STAND_IN.set(run);
}

/// The blocks of a launch.
#[derive(Clone, Copy)]
pub struct Grid {
    /// Number of blocks, in most kernels one for each row.
    pub blocks: usize,
    /// Number of elements that the threads of a block divide among themselves.
    pub width: usize,
}

/// Runs a kernel of `kernels.cu`, whose tensors are all on `device`; it writes every element of its outputs.
///
/// What a kernel takes is a struct with a field for each argument. Numbers, rounded numbers and ids differ in type, and
/// so do inputs and outputs, before and after the address is taken:
///
/// ```
/// use forgetlab_engine::gpu::{EmbedForward, Fresh, In, Rounded};
///
/// fn embed<'a>(h: &'a Fresh<f32>, table: In<'a, Rounded>, tokens: In<'a, u32>) -> EmbedForward<'a> {
///     EmbedForward { h: h.out(), table: table, tokens: tokens, d: 8, bf16: 0, scale: 1.0 }
/// }
/// ```
///
/// Two inputs of different elements in the wrong order do not compile (of the same, the fields' names tell them
/// apart):
///
/// ```compile_fail,E0308
/// use forgetlab_engine::gpu::{EmbedForward, Fresh, In, Rounded};
///
/// fn embed<'a>(h: &'a Fresh<f32>, table: In<'a, Rounded>, tokens: In<'a, u32>) -> EmbedForward<'a> {
///     EmbedForward { h: h.out(), table: tokens, tokens: table, d: 8, bf16: 0, scale: 1.0 }
/// }
/// ```
///
/// Nor do an output and an input:
///
/// ```compile_fail,E0308
/// use forgetlab_engine::gpu::{EmbedForward, Fresh, In, Rounded};
///
/// fn embed<'a>(h: &'a Fresh<f32>, table: In<'a, Rounded>, tokens: In<'a, u32>) -> EmbedForward<'a> {
///     EmbedForward { h: table, table: h.out(), tokens: tokens, d: 8, bf16: 0, scale: 1.0 }
/// }
/// ```
pub fn launch<K: Kernel>(device: &Device, grid: Grid, args: &K) -> Result<()> {
    let Grid { blocks, width } = grid;
    let threads = width.clamp(WARP, MAX_THREADS).next_power_of_two();
    let _pointer = from_ref(args).cast::<c_void>();
    match device {
        _ if blocks == 0 => Ok(()),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::run(device, blocks, threads, args),
        #[cfg(test)]
        Device::Cpu => {
            // SAFETY: it is the struct that this kernel takes.
            unsafe { super::tests::on_cpu::run(K::NAME, blocks, _pointer) };
            Ok(())
        }
        #[cfg(not(test))]
        Device::Cpu if let Some(run) = STAND_IN.get() => {
            // SAFETY: it is the struct that this kernel takes.
            unsafe { run(K::NAME, blocks, _pointer) };
            Ok(())
        }
        _ => bail!(
            "{} does not run with {threads} threads on {device:?}",
            K::NAME
        ),
    }
}

#[cfg(feature = "cuda")]
pub(super) use cuda::named;

#[cfg(feature = "cuda")]
mod cuda {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use candle_core::cuda::cudarc::driver::{CudaFunction, LaunchConfig, PushKernelArg};
    use candle_core::cuda::{CudaDevice, DeviceId, WrapErr};
    use candle_core::{Error, Result};

    use super::Kernel;
    use crate::device::PTX;

    /// Launches a kernel of the PTX.
    pub(super) fn run<K: Kernel>(
        device: &CudaDevice,
        blocks: usize,
        threads: usize,
        args: &K,
    ) -> Result<()> {
        let (kernel, stream) = (kernel(device, K::NAME)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(args);
        let config = LaunchConfig {
            grid_dim: (blocks as u32, 1, 1),
            block_dim: (threads as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        named(device, K::NAME, || {
            // SAFETY: the struct is the kernel's, and its pointers are of live tensors; all work of a device
            // goes through its one stream, so they are freed after it.
            unsafe { launch.launch(config) }.map(drop).w()
        })
    }

    /// Has the GPU do some work; with `FORGETLAB_CUDA_SYNC=1` waits for it, so that an error can name it.
    pub(crate) fn named(
        device: &CudaDevice,
        name: &str,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        static SYNC: LazyLock<bool> =
            LazyLock::new(|| std::env::var_os("FORGETLAB_CUDA_SYNC").is_some_and(|v| v == "1"));
        if !*SYNC {
            return work();
        }
        let wait = || device.cuda_stream().synchronize().w();
        wait().map_err(|error| Error::msg(format!("before `{name}`: {error}")))?;
        let done = work().and_then(|()| wait());
        done.map_err(|error| Error::msg(format!("in `{name}`: {error}")))
    }

    /// A kernel of the PTX, looked up once for each device.
    fn kernel(device: &CudaDevice, name: &'static str) -> Result<CudaFunction> {
        static KERNELS: Mutex<Option<HashMap<(DeviceId, &str), CudaFunction>>> = Mutex::new(None);
        let mut kernels = KERNELS.lock().unwrap_or_else(PoisonError::into_inner);
        let kernels = kernels.get_or_insert_default();
        if let Some(kernel) = kernels.get(&(device.id(), name)) {
            return Ok(kernel.clone());
        }
        let kernel = device.get_or_load_custom_func(name, "forgetlab", PTX)?;
        let kernel = kernel.into_cuda_function();
        kernels.insert((device.id(), name), kernel.clone());
        Ok(kernel)
    }
}
