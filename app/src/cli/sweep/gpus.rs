//! GPUs for the workers of a sweep: one each.

use std::{env, fs};

use super::super::devices::{VISIBLE, listed};
use super::super::warn;

/// What a worker's process is told of the GPUs: the one that is its own, of those that this process may use. `None`
/// where there is nothing to tell.
pub fn of_worker(slot: usize, workers: usize, device: &str) -> Option<String> {
    (device == "cuda" && workers > 1).then(|| own(slot, env::var(VISIBLE).ok().as_deref()))
}

fn own(slot: usize, visible: Option<&str>) -> String {
    match listed(visible)[..] {
        [] => slot.to_string(),
        ref listed => listed[slot % listed.len()].to_owned(),
    }
}

/// As many workers as have a GPU of their own; on the CPU all.
pub fn fitting(workers: usize, device: &str) -> usize {
    let visible = env::var(VISIBLE).ok();
    let there = fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    let fit = most(device, visible.as_deref(), there).map_or(workers, |most| workers.min(most));
    if fit < workers {
        warn(format_args!(
            "note: {fit} at a time, not {workers}: each needs a GPU of its own"
        ));
    }
    fit
}

/// How many GPUs there are for workers; `None` where none is needed, or it is not known.
fn most(device: &str, visible: Option<&str>, there: usize) -> Option<usize> {
    match (device, listed(visible).len()) {
        ("cpu", _) => None,
        ("cuda", 0) => Some(there).filter(|&there| there > 0),
        ("cuda", listed) => Some(listed),
        _ => Some(1),
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
        assert_eq!(most("cpu", Some("3,5"), 8), None);
        assert_eq!(most("cuda", Some("3,5"), 8), Some(2));
        assert_eq!(most("cuda", None, 8), Some(8));
        assert_eq!(most("cuda", None, 0), None);
        assert_eq!(most("cuda:1", None, 8), Some(1));
        assert_eq!(of_worker(1, 2, "cpu"), None);
        assert_eq!(of_worker(0, 1, "cuda"), None);
    }
}
