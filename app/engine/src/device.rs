//! Devices by name, and whether they can be used.

use crate::ops::Precision;

/// The device, threads and precision that an engine is asked to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Number of CPU threads.
    pub threads: usize,
    /// Format of the matrix products' inputs.
    pub precision: Precision,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The name is not that of a device.
    #[error("`{0}` is not a device; write cpu, cuda or cuda:N")]
    Unknown(String),
    /// The program was built without support for GPUs.
    #[error(
        "this forgetlab was built without CUDA, so `{0}` cannot be used; build it with `cargo build \
         --release --features cuda`, or use --device cpu"
    )]
    NotBuilt(String),
    /// The machine has no such device, or it does not work.
    #[error(
        "`{device}` cannot be used: {reason}; `forgetlab doctor` tells more, --device cpu does \
         without"
    )]
    Missing {
        /// Device asked for.
        device: String,
        /// What the driver said.
        reason: String,
    },
}

/// A GPU that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Name, as the driver gives it.
    pub name: String,
    /// Total memory, bytes.
    pub memory: u64,
    /// Free memory, bytes.
    pub free: u64,
    /// Version of the driver, where the system tells.
    pub driver: Option<String>,
    /// Newest version of CUDA that the driver is made for, e.g. `13.0`.
    pub cuda: String,
    /// Version of cuBLAS, e.g. `13.0.0`.
    pub cublas: String,
}

/// Share of a GPU's free memory that can be planned with: the pool rounds sizes up, and frees leave gaps.
const PLANNED: f64 = 0.92;
/// Bytes that products and other libraries take when they are first used.
const LIBRARIES: f64 = (1_u64 << 30) as f64;

impl Gpu {
    /// Bytes of the free memory that can be planned with.
    pub fn plannable(&self) -> f64 {
        (PLANNED * self.free as f64 - LIBRARIES).max(0.0)
    }
}

impl Hardware {
    /// The CPU with that many threads, in f32.
    pub fn cpu(threads: usize) -> Self {
        Self {
            device: "cpu".into(),
            threads,
            precision: Precision::F32,
        }
    }

    /// Opens the GPU; `None` for the CPU.
    #[cfg(feature = "cuda")]
    pub(super) fn open_gpu(&self) -> Result<Option<candle_core::Device>, DeviceError> {
        let Some(n) = ordinal(&self.device)? else {
            return Ok(None);
        };
        cuda::open(n)
            .map(Some)
            .map_err(|reason| DeviceError::Missing {
                device: self.device.clone(),
                reason,
            })
    }
}

/// The number in a GPU's name; `None` for the CPU.
fn ordinal(device: &str) -> Result<Option<usize>, DeviceError> {
    let unknown = || DeviceError::Unknown(device.to_owned());
    match device.split_once(':') {
        None if device == "cpu" => Ok(None),
        None if device == "cuda" => Ok(Some(0)),
        Some(("cuda", n)) => n.parse().map(Some).map_err(|_| unknown()),
        _ => Err(unknown()),
    }
}

/// Checks that a device can be used; describes it if it is a GPU.
///
/// # Errors
/// [`DeviceError`] says what is missing and what to do.
pub fn check_device(device: &str) -> Result<Option<Gpu>, DeviceError> {
    let Some(n) = ordinal(device)? else {
        return Ok(None);
    };
    probe_cuda(n).map(Some).map_err(|error| match error {
        None => DeviceError::NotBuilt(device.to_owned()),
        Some(reason) => DeviceError::Missing {
            device: device.to_owned(),
            reason,
        },
    })
}

/// Describes GPU `n`, or says why it cannot be used: `None` if built without CUDA, else the driver's reason.
#[cfg(not(feature = "cuda"))]
pub fn probe_cuda(_: usize) -> Result<Gpu, Option<String>> {
    Err(None)
}

/// Describes GPU `n`, or says why it cannot be used: `None` if built without CUDA, else the driver's reason.
#[cfg(feature = "cuda")]
pub fn probe_cuda(n: usize) -> Result<Gpu, Option<String>> {
    cuda::probe(n).map_err(Some)
}

/// Has the driver give back the memory of a GPU that it keeps for later and nobody uses.
#[cfg(gpu)]
pub(super) fn trim(device: &candle_core::Device) {
    match device {
        #[cfg(feature = "cuda")]
        // What is not given back is found missing by whoever wants it.
        candle_core::Device::Cuda(device) => drop(cuda::trim(device)),
        _ => {}
    }
}

/// Does work on a GPU that leaves everything as it was where it fails. Where the memory is full, the driver gives back
/// what it keeps in pieces of the wrong size, and the work is tried once more.
#[cfg(gpu)]
pub(super) fn twice<T>(
    device: &candle_core::Device,
    mut work: impl FnMut() -> candle_core::Result<T>,
) -> candle_core::Result<T> {
    match work() {
        Err(error) if is_full(&error) => {
            trim(device);
            work()
        }
        done => done,
    }
}

/// Whether a GPU had no memory for something.
#[cfg(gpu)]
pub(super) fn is_full(error: &candle_core::Error) -> bool {
    let text = error.to_string();
    text.contains("OUT_OF_MEMORY") || text.contains("ALLOC_FAILED")
}

#[cfg(feature = "cuda")]
pub(super) use cuda::PTX;

#[cfg(feature = "cuda")]
mod cuda {
    //! GPUs through CUDA. Errors are reasons in words: many machines have no GPU or no driver.

    use std::collections::BTreeMap;
    use std::panic::catch_unwind;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use candle_core::Device;
    use candle_core::cuda::cudarc::cublas::result::CublasError;
    use candle_core::cuda::cudarc::cublas::sys::cublasGetVersion_v2;
    use candle_core::cuda::cudarc::driver::{DriverError, result, sys};
    use candle_core::cuda::{CudaDevice, kernels};

    use super::Gpu;

    /// The kernels of `gpu/kernels.cu`, compiled.
    pub(crate) const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));

    /// Compute capability that the kernels need, for products of bf16.
    const CAPABILITY: (i32, i32) = (8, 0);

    /// What this process knows of a GPU.
    #[derive(Default)]
    struct Known {
        /// Stays open to the end of the process: a GPU that failed refuses even to be closed.
        open: Option<CudaDevice>,
        /// Whether it is known to take the kernels.
        checked: bool,
    }

    /// By the numbers of the GPUs.
    fn known() -> MutexGuard<'static, BTreeMap<usize, Known>> {
        static KNOWN: Mutex<BTreeMap<usize, Known>> = Mutex::new(BTreeMap::new());
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens GPU `n`, or says why it cannot be used. It is opened once.
    pub(super) fn open(n: usize) -> Result<Device, String> {
        let device = connect(n)?;
        known().entry(n).or_default().open = Some(device.clone());
        Ok(Device::Cuda(device))
    }

    /// GPU `n`, as it is open already, or opened.
    fn connect(n: usize) -> Result<CudaDevice, String> {
        if let Some(open) = known().get(&n).and_then(|known| known.open.clone()) {
            return Ok(open);
        }
        // cudarc panics where one of CUDA's libraries is missing.
        let opened = catch_unwind(|| {
            let device = CudaDevice::new_with_stream(n)?;
            // Slower without it, on a GPU or a driver that cannot.
            let _ = keep_memory(&device, n);
            // SAFETY: all work of a device goes through its one stream, in which it is ordered, frees included.
            unsafe { device.disable_event_tracking() };
            Ok(device)
        });
        let device = match opened {
            Ok(opened) => {
                opened.map_err(|error: candle_core::Error| in_words(&error.to_string()))?
            }
            Err(_) => return Err("CUDA's libraries cannot be loaded".into()),
        };
        let mut known = known();
        let known = known.entry(n).or_default();
        if !known.checked {
            check(&device)?;
            known.checked = true;
        }
        Ok(device)
    }

    /// Checks that a GPU and its driver take the kernels: ours, and candle's, which are compiled apart.
    fn check(device: &CudaDevice) -> Result<(), String> {
        let context = device.cuda_stream().context().clone();
        let words = |error: DriverError| in_words(&error.to_string());
        let (major, minor) = context.compute_capability().map_err(words)?;
        if (major, minor) < CAPABILITY {
            return Err(format!(
                "{} has compute capability {major}.{minor}, and 8.0 or more is needed (A100, RTX 30 and newer)",
                context.name().map_err(words)?
            ));
        }
        for ptx in [PTX, kernels::AFFINE.ptx()] {
            context.load_module(ptx.into()).map_err(words)?;
        }
        Ok(())
    }

    /// Lets the driver's pool keep what is freed: else every wait for the GPU may hand it back to the system, and the
    /// next step asks for it again.
    fn keep_memory(device: &CudaDevice, n: usize) -> Result<(), DriverError> {
        device.cuda_stream().context().bind_to_thread()?;
        let mut bytes = u64::MAX;
        let threshold = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the attribute is a `cuuint64_t`, and the pool is the device's own.
        unsafe {
            let pool = result::device::get_default_mem_pool(result::device::get(n as i32)?)?;
            result::mem_pool::set_attribute(pool, threshold, (&raw mut bytes).cast())
        }
    }

    /// Has the driver's pool give back what is not in use, once all that was freed before is free.
    pub(super) fn trim(device: &CudaDevice) -> Result<(), DriverError> {
        let (stream, ordinal) = (
            device.cuda_stream(),
            device.cuda_stream().context().ordinal(),
        );
        stream.synchronize()?;
        // SAFETY: the pool is the device's own.
        unsafe {
            let pool = result::device::get_default_mem_pool(result::device::get(ordinal as i32)?)?;
            result::mem_pool::trim_to(pool, 0)
        }
    }

    /// Describes GPU `n`, or says why it cannot be used.
    pub(super) fn probe(n: usize) -> Result<Gpu, String> {
        let device = connect(n)?;
        let context = device.cuda_stream().context().clone();
        let cublas = cublas(&device).map_err(|error| in_words(&error.to_string()))?;
        let facts = || {
            let (free, memory) = context.mem_get_info()?;
            Ok(Gpu {
                name: context.name()?,
                memory: memory as u64,
                free: free as u64,
                driver: driver(),
                cuda: cuda()?,
                cublas: cublas.clone(),
            })
        };
        facts().map_err(|error: DriverError| in_words(&error.to_string()))
    }

    /// Newest version of CUDA that the driver is made for: 13.0 for 13000.
    fn cuda() -> Result<String, DriverError> {
        let mut version = 0;
        // SAFETY: the pointer is to a number.
        unsafe { sys::cuDriverGetVersion(&raw mut version).result()? };
        Ok(format!("{}.{}", version / 1000, version % 1000 / 10))
    }

    /// Version of cuBLAS: 13.0.2 for 130002.
    fn cublas(device: &CudaDevice) -> Result<String, CublasError> {
        let mut version = 0;
        // SAFETY: the handle is the device's, the pointer is to a number.
        unsafe {
            cublasGetVersion_v2(*device.cublas_handle().handle(), &raw mut version).result()?
        };
        let (major, minor, patch) = (version / 10_000, version / 100 % 100, version % 100);
        Ok(format!("{major}.{minor}.{patch}"))
    }

    /// Version of the driver: `580.65.06` in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun …`.
    fn driver() -> Option<String> {
        let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
        let is_version =
            |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
        text.split_whitespace().find(is_version).map(str::to_owned)
    }

    /// A known error of CUDA's in words, any other as its first line.
    fn in_words(error: &str) -> String {
        let known = [
            ("NO_DEVICE", "there is no NVIDIA GPU, or no driver for it"),
            ("INVALID_DEVICE", "there is no GPU of that number"),
            ("OUT_OF_MEMORY", "the GPU's memory is full"),
            (
                "INSUFFICIENT_DRIVER",
                "the NVIDIA driver is older than this build's CUDA",
            ),
            (
                "SYSTEM_DRIVER_MISMATCH",
                "the NVIDIA driver was updated; restart the machine",
            ),
            (
                "ARCH_MISMATCH",
                "this GPU is too old for cuBLAS; compute capability 8.0 or more is needed (A100, RTX 30 and newer)",
            ),
            (
                "UNSUPPORTED_PTX_VERSION",
                "the NVIDIA driver is older than the CUDA toolkit that this forgetlab was built with; update the driver, \
                 or build with a toolkit of the CUDA that `nvidia-smi` names",
            ),
            (
                "NO_BINARY_FOR_GPU",
                "this forgetlab was built for newer GPUs; build it with CUDA_COMPUTE_CAP=80",
            ),
            (
                "INVALID_PTX",
                "this forgetlab was built for newer GPUs; build it with CUDA_COMPUTE_CAP=80",
            ),
            (
                "JIT_COMPILER_NOT_FOUND",
                "the driver's compiler (libnvidia-ptxjitcompiler) is missing; install the whole NVIDIA driver",
            ),
            (
                "CUBLAS_STATUS_NOT_INITIALIZED",
                "cuBLAS (libcublas) cannot be loaded or started; CUDA_LIB_DIR can name the folder that it is in",
            ),
            (
                "CURAND_STATUS_NOT_INITIALIZED",
                "cuRAND (libcurand) cannot be loaded or started; CUDA_LIB_DIR can name the folder that it is in",
            ),
        ];
        // The first line is the cause; a backtrace may follow.
        let line = error.lines().next().unwrap_or_default();
        match known.iter().find(|(code, _)| line.contains(code)) {
            Some((_, words)) => (*words).into(),
            None => line.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plan up to the last byte fails minutes into a run, when one more arm begins.
    #[test]
    fn a_plan_leaves_room_for_what_cannot_be_predicted() {
        let gpu = |free: f64| Gpu {
            name: "NVIDIA H100 80GB HBM3".into(),
            memory: 85_520_809_984,
            free: free as u64,
            driver: None,
            cuda: "13.0".into(),
            cublas: "13.0.0".into(),
        };
        let gib = 1024.0_f64.powi(3);
        assert_eq!(gpu(75.0 * gib).plannable(), 68.0 * gib);
        assert_eq!(gpu(0.5 * gib).plannable(), 0.0);
    }

    #[test]
    fn devices_are_told_apart() {
        assert_eq!(check_device("cpu").unwrap(), None);
        for wrong in ["gpu", "cuda:x", "cuda:"] {
            assert!(matches!(check_device(wrong), Err(DeviceError::Unknown(_))));
        }
        #[cfg(not(feature = "cuda"))]
        assert!(matches!(
            check_device("cuda:1"),
            Err(DeviceError::NotBuilt(_))
        ));
    }
}
