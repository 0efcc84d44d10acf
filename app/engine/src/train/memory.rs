//! Memory of the machine and of this process, where the system tells (Linux).

/// Bytes the system can give without swapping.
pub fn available_memory() -> Option<f64> {
    entry("/proc/meminfo", "MemAvailable:")
}

/// Most bytes this process has held at a time.
pub fn peak_memory() -> Option<f64> {
    entry("/proc/self/status", "VmHWM:")
}

/// An entry in KiB of one of the kernel's tables, in bytes.
fn entry(table: &str, name: &str) -> Option<f64> {
    let text = std::fs::read_to_string(table).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(1024.0 * kib)
}
