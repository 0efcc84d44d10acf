//! GPUs whose memory is full.

use forgetlab_tests::{Figures, Lab, Table, events_say};

use super::runs::SMOKE;
use super::{Asked, lab};

/// A run whose card gives no more than that many bytes, of the gigabytes that it says it has.
fn with_bytes(bytes: u64) -> Lab {
    let mut lab = lab();
    lab.set("STAND_IN_GIVES", &bytes.to_string());
    lab
}

/// The most that a run took of its card.
fn peak(lab: &Lab) -> u64 {
    Asked::of(lab).sum("/peak")
}

/// Else whoever shares a GPU would lose a night's run to a neighbour, or get other figures from it.
#[test]
fn an_arm_that_no_longer_fits_waits_its_turn_and_no_figure_changes() {
    let (all, one) = (lab(), lab());
    all.smoke(SMOKE).exits(0);
    let alone = ["--set", "training.concurrent_arms=1"];
    one.smoke(&[SMOKE, &alone].concat()).exits(0);
    let whole = Figures::of(&all.path("run"));
    let (most, least) = (peak(&all), peak(&one));
    assert!(least < most, "{least} and {most} bytes");
    let mut lowered = 0;
    for share in [0.0, 0.3, 0.6, 0.9] {
        let lab = with_bytes(least + ((most - least) as f64 * share) as u64);
        lab.smoke(SMOKE).exits(0).says(&[
            "the GPU's memory is full",
            "from now on the run has",
            "at a time, as training.concurrent_arms=",
        ]);
        let run = lab.path("run");
        let waited = events_say(&run, "it waits until another arm is over");
        lowered += u32::from(waited);
        assert!(!waited || events_say(&run, "\"arm_waits\""));
        Figures::of(&run).must_equal(&whole, &format!("{share} of the memory"));
    }
    assert!(lowered > 0, "no arm ever waited");
}

/// Else memory that is free, but in pieces of the wrong size, would cost an arm its turn.
#[test]
fn what_the_pool_keeps_is_given_back_before_anything_is_given_up() {
    let whole = lab();
    whole.smoke(SMOKE).exits(0);
    assert_eq!(Asked::of(&whole).sum("/trims"), 0);
    let all = Asked::of(&whole).sum("/allocations/calls");
    let figures = Figures::of(&whole.path("run"));
    for share in [0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95] {
        let mut lab = lab();
        let after = (all as f64 * share) as u64;
        lab.set("STAND_IN_WHOLE_FOR", &after.to_string());
        let told = lab.smoke(SMOKE).exits(0).says(&["finished"]);
        assert!(!told.out.contains("memory is full"), "{}", told.out);
        assert_eq!(Asked::of(&lab).sum("/trims"), 1);
        Figures::of(&lab.path("run")).must_equal(&figures, &format!("in pieces after {after}"));
    }
}

/// Else one arm that is too large would end all others, or nobody would know what to set.
#[test]
fn an_arm_that_does_not_even_fit_alone_fails_in_words_and_the_others_go_on() {
    let args = [&["--arms", "none,none+batch=512"][..], SMOKE].concat();
    let fits = lab();
    fits.smoke(&[&["--arms", "none"][..], SMOKE].concat())
        .exits(0);
    let lab = with_bytes(peak(&fits));
    lab.smoke(&args).exits(3).says(&[
        "the GPU's memory is full; end what else uses it",
        "training.micro_batch",
        "training.recompute=true",
        "precision=bf16",
    ]);
    let summary = Table::read(&lab.path("run/summary.csv"));
    let mut statuses: Vec<_> = summary.values("status");
    statuses.dedup();
    assert_eq!(statuses, ["finished", "failed"]);
}

/// Else a full GPU would end a run in a number, after hours, and what was learned until then be lost.
#[test]
fn a_run_that_cannot_even_begin_says_so_and_goes_on_where_there_is_more() {
    let mut lab = with_bytes(60_000);
    lab.smoke(SMOKE)
        .exits(1)
        .says(&["the GPU's memory is full"]);
    lab.set("STAND_IN_GIVES", "1000000000");
    lab.forgetlab(&["resume", "run"]).exits(0);
}

/// Else the system would kill a run at its first checkpoint: a GPU may have more memory than its machine.
#[test]
fn a_checkpoint_that_the_machine_has_no_memory_for_is_told_before_the_run() {
    let mut lab = lab();
    lab.set("STAND_IN_MEMORY", "100000000000000");
    let dry = [SMOKE, &["--dry-run", "--json"]].concat();
    // `--out` is no part of a dry run.
    let told = lab.smoke(&dry).exits(0);
    let told: serde_json::Value = serde_json::from_str(&told.out).expect("JSON");
    let bytes = |key: &str| told[key].as_f64().expect("a number of bytes");
    assert!(bytes("host_memory_bytes") < bytes("host_memory_to_resume_bytes"));
    let large = ["--set", "model.d_model=8192", "--set", "model.n_layers=9"];
    lab.smoke(&[SMOKE, &large].concat()).exits(2).says(&[
        "this run on a GPU needs about",
        "GiB of the machine's memory while it saves a checkpoint",
        "model.lora_rank",
    ]);
}
