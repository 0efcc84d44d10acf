//! What a run is computed on: device, threads, precision.

use crate::ops::Precision;

/// What a run asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    /// `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// CPU threads of the engine.
    pub threads: usize,
    /// Format of the matrix products' inputs.
    pub precision: Precision,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not a device's name.
    #[error("`{0}` is not a device; write cpu, cuda or cuda:N")]
    Unknown(String),
    /// The program cannot use GPUs at all.
    #[error(
        "this forgetlab was built without CUDA, so `{0}` cannot be used; build it with `cargo build \
         --release --features cuda`, or use --device cpu"
    )]
    NotBuilt(String),
    /// The program could, the machine cannot.
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
    /// Its name, as the driver has it.
    pub name: String,
    /// Its memory, bytes.
    pub memory: u64,
    /// Memory that nobody uses, bytes.
    pub free: u64,
    /// Version of its driver, where the system tells.
    pub driver: Option<String>,
}

impl Hardware {
    /// The CPU, in f32.
    pub fn cpu(threads: usize) -> Self {
        Self {
            device: "cpu".into(),
            threads,
            precision: Precision::F32,
        }
    }

    /// The GPU it names; `None` for the CPU.
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

/// Number of a GPU by its name; `None` for the CPU.
fn ordinal(device: &str) -> Result<Option<usize>, DeviceError> {
    let unknown = || DeviceError::Unknown(device.to_owned());
    match device.split_once(':') {
        None if device == "cpu" => Ok(None),
        None if device == "cuda" => Ok(Some(0)),
        Some(("cuda", n)) => n.parse().map(Some).map_err(|_| unknown()),
        _ => Err(unknown()),
    }
}

/// Checks that a device is there; tells of it if it is a GPU.
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

/// Opens GPU `n`; `Err(None)`: built without CUDA, else what the driver said.
#[cfg(not(feature = "cuda"))]
pub fn probe_cuda(_: usize) -> Result<Gpu, Option<String>> {
    Err(None)
}

/// Opens GPU `n`; `Err(None)`: built without CUDA, else what the driver said.
#[cfg(feature = "cuda")]
pub fn probe_cuda(n: usize) -> Result<Gpu, Option<String>> {
    cuda::probe(n).map_err(Some)
}

#[cfg(feature = "cuda")]
mod cuda {
    //! Reasons are in words: a machine without GPU or driver is the ordinary case.

    use std::panic::catch_unwind;

    use candle_core::Device;
    use candle_core::cuda::cudarc::driver::DriverError;

    use crate::device::Gpu;

    pub(super) fn open(n: usize) -> Result<Device, String> {
        caught(|| Device::new_cuda(n).map_err(|error| error.to_string()))
    }

    pub(super) fn probe(n: usize) -> Result<Gpu, String> {
        let device = open(n)?;
        let device = device.as_cuda_device().map_err(|error| error.to_string())?;
        let context = device.cuda_stream().context().clone();
        let facts = || {
            let (free, memory) = context.mem_get_info()?;
            Ok(Gpu {
                name: context.name()?,
                memory: memory as u64,
                free: free as u64,
                driver: driver(),
            })
        };
        facts().map_err(|error: DriverError| in_words(&error.to_string()))
    }

    /// `580.65.06` out of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun …`.
    fn driver() -> Option<String> {
        let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
        let is_version =
            |word: &&str| word.contains('.') && word.starts_with(|c: char| c.is_ascii_digit());
        text.split_whitespace().find(is_version).map(str::to_owned)
    }

    /// cudarc panics where a library of CUDA's is missing.
    fn caught<T>(
        call: impl FnOnce() -> Result<T, String> + std::panic::UnwindSafe,
    ) -> Result<T, String> {
        match catch_unwind(call) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(in_words(&error)),
            Err(_) => Err("CUDA's libraries cannot be loaded".into()),
        }
    }

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
