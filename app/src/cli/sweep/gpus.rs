//! GPUs for the workers of a sweep: one each.

use std::env;

/// The variable by which CUDA is told which GPUs there are.
pub const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// What a worker's process is told of the GPUs: the one that is its own, of those that this process may use. `None`
/// where there is nothing to tell.
pub fn of_worker(slot: usize, workers: usize, device: &str) -> Option<String> {
    (device == "cuda" && workers > 1).then(|| own(slot, env::var(VISIBLE).ok().as_deref()))
}

fn own(slot: usize, visible: Option<&str>) -> String {
    let listed: Vec<&str> = visible
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|gpu| !gpu.is_empty())
        .collect();
    match listed.is_empty() {
        true => slot.to_string(),
        false => listed[slot % listed.len()].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workers on one GPU would each take its memory.
    #[test]
    fn each_worker_has_a_gpu_of_its_own() {
        assert_eq!((own(0, None), own(1, None)), ("0".into(), "1".into()));
        assert_eq!(
            (own(0, Some("3, 5")), own(1, Some("3, 5"))),
            ("3".into(), "5".into())
        );
        assert_eq!(own(2, Some("3,5")), "3");
        assert_eq!(of_worker(1, 2, "cpu"), None);
        assert_eq!(of_worker(0, 1, "cuda"), None);
    }
}
