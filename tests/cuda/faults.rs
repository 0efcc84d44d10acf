//! GPUs that fail in the middle of their work.

use super::lab;
use super::runs::SMOKE;

/// Else a fault in a kernel would be blamed on whichever came after it, and hidden by a panic of those that clean up.
#[test]
fn a_kernel_that_fails_is_named_where_that_is_asked_for() {
    let mut lab = lab();
    lab.set("STAND_IN_FAULTY", "softmax_backward");
    // Which error it is depends on what comes next.
    let said = lab.smoke(SMOKE).exits(1).says(&[
        "the GPU failed",
        "with FORGETLAB_CUDA_SYNC=1 in the environment, the kernel is named",
    ]);
    assert!(!said.err.contains("panicked"));
    lab.set("FORGETLAB_CUDA_SYNC", "1");
    let said = lab
        .forgetlab(&["resume", "run"])
        .exits(1)
        .says(&["the GPU failed: in `softmax_backward`", "ILLEGAL_ADDRESS"]);
    assert!(!said.err.contains("panicked"));
}

/// Else whoever looks for a fault would get other figures from it, or forget that it is slow.
#[test]
fn waiting_for_every_kernel_changes_no_figure_and_doctor_tells_of_it() {
    let (fast, mut slow) = (lab(), lab());
    slow.set("FORGETLAB_CUDA_SYNC", "1");
    slow.forgetlab(&["doctor"])
        .exits(0)
        .says(&["slow: FORGETLAB_CUDA_SYNC=1 waits for every kernel"]);
    fast.smoke(SMOKE).exits(0);
    slow.smoke(SMOKE).exits(0);
    let [fast, slow] = [fast, slow].map(|lab| forgetlab_tests::Figures::of(&lab.path("run")));
    slow.must_equal(&fast, "every kernel waited for");
}
