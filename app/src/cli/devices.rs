//! Devices by one name each, whatever a process was told of the GPUs.

use std::env;
use std::fs;

use forgetlab_study::run::RunDir;

/// The variable by which CUDA is told which GPUs there are.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// The GPUs that the variable names.
pub fn listed(visible: Option<&str>) -> Vec<&str> {
    let all = visible.unwrap_or_default().split(',').map(str::trim);
    all.filter(|gpu| !gpu.is_empty()).collect()
}

/// The device that a process with this value of the variable means.
fn meant(device: &str, visible: Option<&str>) -> String {
    let number = match device.split_once(':') {
        None if device == "cuda" => Some(0),
        Some(("cuda", number)) => number.parse::<usize>().ok(),
        _ => None,
    };
    match number {
        Some(number) => match listed(visible).get(number) {
            Some(listed) => format!("cuda:{listed}"),
            None => format!("cuda:{number}"),
        },
        None => device.to_owned(),
    }
}

/// The device that this process means.
pub fn own(device: &str) -> String {
    meant(device, env::var(VISIBLE).ok().as_deref())
}

/// The device that a live run works on; `None` where its configuration cannot be read.
pub fn of_run(run: &RunDir) -> Option<String> {
    let device = run.read_config().ok()?.device;
    let pid = run.live().flatten();
    let visible = pid.and_then(|pid| variable(pid, VISIBLE));
    Some(meant(&device, visible.as_deref()))
}

/// A variable of another process of this user, where the system tells.
fn variable(pid: u32, name: &str) -> Option<String> {
    let all = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut all = all.split(|&byte| byte == 0);
    all.find_map(|variable| {
        let value = str::from_utf8(variable).ok()?.strip_prefix(name)?;
        Some(value.strip_prefix('=')?.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs that share one GPU would take each other's memory; runs on two would wait for nothing.
    #[test]
    fn a_gpu_has_one_name() {
        let meant = |device| super::meant(device, Some("3, 5"));
        assert_eq!(
            (meant("cuda"), meant("cuda:0")),
            ("cuda:3".into(), "cuda:3".into())
        );
        assert_eq!(meant("cuda:1"), "cuda:5");
        assert_eq!(super::meant("cuda", None), "cuda:0");
        assert_eq!(
            (meant("cpu"), super::meant("cuda:7", Some(""))),
            ("cpu".into(), "cuda:7".into())
        );
    }

    /// Cargo tells its tests of their package.
    #[test]
    fn a_variable_of_a_process_is_read() {
        let own = variable(std::process::id(), "CARGO_PKG_NAME");
        assert_eq!(own, env::var("CARGO_PKG_NAME").ok());
    }
}
