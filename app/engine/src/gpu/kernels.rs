//! Launching the kernels of `kernels.cu`.

use std::sync::OnceLock;

use candle_core::{CpuStorage, DType, Device, Result, Shape, Storage, Tensor, bail};

/// Fewest threads of a block.
const WARP: usize = 32;
/// Most threads of a block, as in `kernels.cu`.
const MAX_THREADS: usize = 256;

/// The argument of every kernel: pointers, sizes and factors; the same struct as in `kernels.cu`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Args {
    p: [u64; 10],
    n: [i64; 7],
    x: [f32; 10],
}

/// Runs the kernel of a name with a number of blocks.
pub type Run = fn(&'static str, usize, Args);

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

/// Runs a kernel of `kernels.cu`; returns its outputs, of which it writes every element.
///
/// A kernel that changes a tensor in place takes it as its first input; there must be no other reference to
/// that tensor. `outputs` are shapes and types. `inputs` are contiguous tensors of one device, `None` where
/// the kernel has an optional one; `n` are sizes, `x` factors.
pub fn launch<const OUTPUTS: usize, S: Into<Shape>>(
    name: &'static str,
    grid: Grid,
    outputs: [(S, DType); OUTPUTS],
    inputs: &[Option<&Tensor>],
    n: &[usize],
    x: &[f32],
) -> Result<[Tensor; OUTPUTS]> {
    let Some(device) = inputs.iter().flatten().next().map(|x| x.device()) else {
        bail!("{name} has no input");
    };
    let mut args = Args::default();
    for (arg, &n) in args.n.iter_mut().zip(n) {
        *arg = n as i64;
    }
    args.x[..x.len()].copy_from_slice(x);
    let mut results = Vec::with_capacity(OUTPUTS);
    for (shape, dtype) in outputs {
        // SAFETY: the kernel writes every element before anybody reads one.
        results.push(unsafe { Tensor::empty(shape, dtype, device)? });
    }
    let tensors = results.iter().map(Some).chain(inputs.iter().copied());
    for (arg, tensor) in args.p.iter_mut().zip(tensors) {
        *arg = tensor.map_or(Ok(0), address)?;
    }
    let Grid { blocks, width } = grid;
    let threads = width.next_power_of_two().clamp(WARP, MAX_THREADS);
    match device {
        _ if blocks == 0 => {}
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::run(device, name, blocks, threads, args)?,
        #[cfg(test)]
        Device::Cpu => super::tests::on_cpu::run(name, blocks, args),
        #[cfg(not(test))]
        Device::Cpu if let Some(run) = STAND_IN.get() => run(name, blocks, args),
        _ => bail!("{name} does not run with {threads} threads on {device:?}"),
    }
    match results.try_into() {
        Ok(results) => Ok(results),
        Err(_) => unreachable!("as many tensors as outputs"),
    }
}

/// Address of a tensor's first element in the memory of its device.
fn address(tensor: &Tensor) -> Result<u64> {
    if !tensor.is_contiguous() {
        bail!("kernels take contiguous tensors");
    }
    let (storage, layout) = tensor.storage_and_layout();
    let start = match &*storage {
        Storage::Cpu(CpuStorage::F32(x)) => x.as_ptr() as u64,
        Storage::Cpu(CpuStorage::BF16(x)) => x.as_ptr() as u64,
        Storage::Cpu(CpuStorage::U32(x)) => x.as_ptr() as u64,
        Storage::Cuda(x) => address_on_gpu(x)?,
        _ => bail!("kernels take f32, bf16 and u32"),
    };
    Ok(start + (layout.start_offset() * tensor.dtype().size_in_bytes()) as u64)
}

/// Address of the first element of a GPU's storage.
#[cfg(not(feature = "cuda"))]
fn address_on_gpu(_: &candle_core::CudaStorage) -> Result<u64> {
    bail!("built without CUDA")
}

#[cfg(feature = "cuda")]
use cuda::address as address_on_gpu;

#[cfg(feature = "cuda")]
mod cuda {
    use std::collections::HashMap;
    use std::sync::{Mutex, PoisonError};

    use candle_core::cuda::cudarc::driver::{
        CudaFunction, CudaSlice, DevicePtr, DeviceRepr, LaunchConfig, PushKernelArg,
    };
    use candle_core::cuda::{CudaDevice, CudaStorageSlice as S, DeviceId, WrapErr};
    use candle_core::{CudaStorage, Result, bail};

    use super::Args;

    const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

    // SAFETY: it is the struct of `kernels.cu`, field by field, and any bits of it are valid.
    unsafe impl DeviceRepr for Args {}

    /// Launches a kernel of the PTX.
    pub(super) fn run(
        device: &CudaDevice,
        name: &'static str,
        blocks: usize,
        threads: usize,
        args: Args,
    ) -> Result<()> {
        let (kernel, stream) = (kernel(device, name)?, device.cuda_stream());
        let mut launch = stream.launch_builder(&kernel);
        launch.arg(&args);
        let config = LaunchConfig {
            grid_dim: (blocks as u32, 1, 1),
            block_dim: (threads as u32, 1, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the pointers are of live tensors of the sizes that `ops` states for the kernel; all
        // work of a device goes through its one stream, so they are freed after it.
        unsafe { launch.launch(config) }.w()?;
        Ok(())
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

    /// Address of the first element of a GPU's storage.
    pub(super) fn address(storage: &CudaStorage) -> Result<u64> {
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
}
