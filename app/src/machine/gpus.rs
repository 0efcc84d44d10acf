//! GPUs, through the library of NVIDIA's driver, which is loaded where there is one.

use forgetlab_tui::lab::{Gpu, GpuProcess, Room};
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

/// Where figures of GPUs come from.
pub trait Gpus: Send {
    /// The GPUs as they are now, in order; why there are none, in one line.
    fn read(&self) -> Result<Vec<Gpu>, String>;
}

/// The driver's library; why it cannot be used, where it cannot.
pub struct Driver(Result<Nvml, String>);

impl Driver {
    /// Loads the library.
    pub fn load() -> Self {
        Self(Nvml::init().map_err(|error| in_words(&error)))
    }
}

impl Gpus for Driver {
    fn read(&self) -> Result<Vec<Gpu>, String> {
        let nvml = self.0.as_ref().map_err(String::clone)?;
        let count = nvml.device_count().map_err(|error| in_words(&error))?;
        if count == 0 {
            return Err("the NVIDIA driver sees no GPU".into());
        }
        let gpus = (0..count).map(|index| match nvml.device_by_index(index) {
            Ok(device) => gpu(index, &device),
            // The others can be read all the same.
            Err(error) => Gpu {
                index,
                name: in_words(&error),
                ..Gpu::default()
            },
        });
        Ok(gpus.collect())
    }
}

fn gpu(index: u32, device: &Device) -> Gpu {
    let watts = |milliwatts: Result<u32, NvmlError>| milliwatts.ok().map(|mw| f64::from(mw) / 1e3);
    let memory = device.memory_info().ok().map(|memory| Room {
        used: memory.used.min(memory.total),
        total: memory.total,
    });
    let processes = device.running_compute_processes().unwrap_or_default();
    Gpu {
        index,
        name: device.name().unwrap_or_else(|error| in_words(&error)),
        used: device
            .utilization_rates()
            .ok()
            .map(|rates| f64::from(rates.gpu) / 100.0),
        memory,
        power: watts(device.power_usage()),
        power_limit: watts(device.enforced_power_limit()),
        temperature: device.temperature(TemperatureSensor::Gpu).ok(),
        clock: device.clock_info(Clock::SM).ok(),
        memory_clock: device.clock_info(Clock::Memory).ok(),
        processes: processes
            .iter()
            .map(|process| GpuProcess {
                pid: process.pid,
                memory: match process.used_gpu_memory {
                    UsedGpuMemory::Used(bytes) => Some(bytes),
                    UsedGpuMemory::Unavailable => None,
                },
                ..GpuProcess::default()
            })
            .collect(),
    }
}

/// An error of the driver in one line.
fn in_words(error: &NvmlError) -> String {
    match error {
        NvmlError::LibloadingError(_) => {
            "there is no NVIDIA driver here: libnvidia-ml.so.1 cannot be loaded".into()
        }
        NvmlError::DriverNotLoaded => "the NVIDIA driver does not run".into(),
        error => error.to_string().replace('\n', " "),
    }
}
