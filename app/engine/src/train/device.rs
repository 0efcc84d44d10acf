//! Devices a run can ask for.

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Not a device's name.
    #[error("`{0}` is not a device; write cpu, cuda or cuda:N")]
    Unknown(String),
    /// The program cannot use GPUs at all.
    #[error(
        "this forgetlab was built without CUDA, so `{0}` cannot be used; this version trains on the \
         CPU only: use --device cpu"
    )]
    NotBuilt(String),
    /// The program could, the machine cannot.
    #[error("`{device}` cannot be used: {reason}; `forgetlab doctor` tells more")]
    Missing {
        /// Device asked for.
        device: String,
        /// What the driver said.
        reason: String,
    },
    /// The device works, the engine has no kernels for it.
    #[error("`{0}` works, but this version trains on the CPU only; use --device cpu")]
    NoEngine(String),
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

/// Checks that a run can train on a device.
///
/// # Errors
/// [`DeviceError`] says what is missing and what to do.
pub fn check_device(device: &str) -> Result<(), DeviceError> {
    match ordinal(device)? {
        None => Ok(()),
        Some(n) => Err(match probe_cuda(n) {
            Ok(()) => DeviceError::NoEngine(device.to_owned()),
            Err(None) => DeviceError::NotBuilt(device.to_owned()),
            Err(Some(reason)) => DeviceError::Missing {
                device: device.to_owned(),
                reason,
            },
        }),
    }
}

/// Whether GPU `n` can be opened; `Err(None)`: built without CUDA, else what the driver said.
#[cfg(not(feature = "cuda"))]
pub fn probe_cuda(_: usize) -> Result<(), Option<String>> {
    Err(None)
}

/// Whether GPU `n` can be opened; `Err(None)`: built without CUDA, else what the driver said.
#[cfg(feature = "cuda")]
pub fn probe_cuda(n: usize) -> Result<(), Option<String>> {
    let opened = std::panic::catch_unwind(|| candle_core::Device::new_cuda(n));
    match opened {
        Ok(Ok(_)) => Ok(()),
        // The first line is the cause; a backtrace may follow.
        Ok(Err(error)) => Err(Some(
            error.to_string().lines().next().unwrap_or_default().into(),
        )),
        Err(_) => Err(Some("the CUDA driver's libraries cannot be loaded".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_told_apart() {
        assert!(check_device("cpu").is_ok());
        assert!(matches!(check_device("gpu"), Err(DeviceError::Unknown(_))));
        assert!(matches!(
            check_device("cuda:x"),
            Err(DeviceError::Unknown(_))
        ));
        assert!(check_device("cuda").is_err());
    }
}
