//! Strategies that fail, lie or hang: each ends its own arm with one clear message.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use forgetlab_plugin_host::{
    Capabilities, InstanceOptions, OnLate, Plugin, ReplayBatch, StepMetrics, StrategyError,
    breadcrumb::{self, Breadcrumbs},
};
use forgetlab_study::experiment::Objective;

use crate::{
    lab::{Lab, ROWS, SEQ_LEN, STEPS, check, instance, options, phase},
    libraries::{altered_template, hostile},
};

/// The first batch of the second phase.
fn batch(mode: &str, lab: &mut Lab) -> Result<Option<ReplayBatch>, StrategyError> {
    let mut instance = instance(&hostile(), &format!(r#"{{"mode": "{mode}"}}"#), lab)?;
    instance.phase_started(&phase(1), lab)?;
    instance.next_batch(STEPS, lab)
}

fn error(mode: &str) -> StrategyError {
    batch(mode, &mut Lab::default()).expect_err(mode)
}

/// Else a bug in a plugin would end the whole run, or show itself as a wrong curve.
#[test]
fn every_bad_batch_is_refused_and_the_message_says_what_and_where() {
    let expected = [
        (
            "ids",
            "token 1 of row 1 is token id 16; the vocabulary has 16",
        ),
        ("padding-ids", "token 5 of row 0 is token id 4294967295"),
        (
            "zero-length",
            "row 1 has length 0; it must be from 1 to the padded length 6",
        ),
        ("long-length", "row 1 has length 7"),
        (
            "nan-weight",
            "token 1 of row 0 has weight NaN; weights must be finite",
        ),
        ("negative-weight", "token 1 of row 0 has weight -1"),
        (
            "padding-weight",
            "token 5 of row 0 is padding and has weight 1",
        ),
        ("many-rows", "a batch of 5 rows; at most 4 are accepted"),
        ("long-rows", "rows of 7 tokens; at most 6 are accepted"),
        ("no-rows", "to replay nothing, answer \"nothing\""),
        ("nan-coeff", "the coefficient is NaN"),
        (
            "undeclared-teacher",
            "kept snapshots, which the plugin does not declare",
        ),
        ("cancel", "nobody is stopping the run"),
        ("retry", "it asked to be called again 17 times in a row"),
    ];
    for (mode, text) in expected {
        let error = error(mode);
        assert!(
            matches!(error, StrategyError::Misbehaved { .. }),
            "{mode}: {error:?}"
        );
        let error = error.to_string();
        assert!(
            error.starts_with("strategy `hostile` misbehaved in next_batch: "),
            "{error}"
        );
        assert!(error.contains(text), "{mode}: {error}");
    }
}

/// Else a researcher would learn that a strategy failed, but not why.
#[test]
fn failures_and_panics_come_with_the_plugins_own_words() {
    let expected = [
        ("fail", "told to fail"),
        ("panic", "told to panic in next_batch"),
        ("panic", "tests/hostile/src/lib.rs:"),
        ("lengths-differ", "has 24 tokens, not 18"),
        ("bad-prompt", "row 0 has token id 16; the vocabulary has 16"),
        ("unsupported", "not supported by this version of the lab"),
    ];
    for (mode, text) in expected {
        let error = error(mode);
        assert!(
            matches!(error, StrategyError::Failed { .. }),
            "{mode}: {error:?}"
        );
        assert!(error.to_string().contains(text), "{mode}: {error}");
    }
    let error = error("huge-text").to_string();
    assert!(error.len() < 5000 && !error.contains('\u{1b}'), "{error}");
}

/// Else a failure outside `next_batch` would go unseen until it spoiled something.
#[test]
fn every_other_callback_may_fail_too() {
    let plugin = hostile();
    let mut lab = Lab::default();
    for mode in ["panic-create", "fail-create"] {
        let error = instance(&plugin, &format!(r#"{{"mode": "{mode}"}}"#), &mut lab).err();
        let error = error.expect(mode).to_string();
        assert!(
            error.contains("failed in create: ") && error.contains("told to"),
            "{error}"
        );
    }
    let error = batch("panic-phase", &mut lab)
        .expect_err("panics")
        .to_string();
    assert!(error.contains("failed in phase_started"), "{error}");

    let mut observer = instance(&plugin, r#"{"mode": "panic-observe"}"#, &mut lab).expect("made");
    observer.phase_started(&phase(1), &mut lab).expect("starts");
    let error = observer
        .observe(&StepMetrics::default(), &mut lab)
        .expect_err("panics");
    assert!(error.to_string().contains("failed in observe"), "{error}");
    // What a panic left behind is not used again.
    let error = observer.next_batch(STEPS, &mut lab).expect_err("poisoned");
    assert!(
        error.to_string().contains("an earlier call panicked"),
        "{error}"
    );

    let mut saver = instance(&plugin, r#"{"mode": "panic-save"}"#, &mut lab).expect("made");
    let error = saver.save().expect_err("panics").to_string();
    assert!(error.contains("failed in save"), "{error}");
}

/// Else a strategy that gives a call up because the run is being stopped would be called a failure.
#[test]
fn giving_up_when_the_run_stops_is_no_failure() {
    let mut lab = Lab {
        stopping: true,
        ..Lab::default()
    };
    for mode in ["cancel", "retry"] {
        let error = batch(mode, &mut lab).expect_err(mode);
        assert!(
            matches!(error, StrategyError::Cancelled { .. }),
            "{mode}: {error:?}"
        );
    }
}

/// Else a good strategy's own choices would be lost on the way.
#[test]
fn a_good_batch_arrives_whole() {
    let batch = batch("own-objectives", &mut Lab::default())
        .expect("works")
        .expect("a batch");
    assert_eq!((batch.rows, batch.seq_len), (ROWS, SEQ_LEN));
    assert_eq!(batch.tokens, [1, 4, 5, 6, 7, 8].repeat(ROWS));
    assert_eq!(batch.weights, [0.0, 1.0, 1.0, 1.0, 1.0, 1.0].repeat(ROWS));
    assert_eq!(batch.row_objectives, Some(vec![Some(Objective::Ntp); ROWS]));
}

/// Else a run would start that cannot go on.
#[test]
fn a_missing_capability_fails_at_the_start() {
    let lacking = InstanceOptions {
        offered: Capabilities::GENERATION,
        ..options()
    };
    let error = hostile().instantiate(&Default::default(), lacking, &mut Lab::default());
    let error = error.err().expect("refused").to_string();
    assert_eq!(
        error,
        "strategy `hostile` needs the true old data, which this run does not offer"
    );
}

/// Else a hanging run would not say which plugin hangs it, and a killed one not which to skip.
#[test]
fn a_late_call_is_reported_and_the_breadcrumb_names_it_meanwhile() {
    let dir = tempfile::tempdir().expect("folder");
    let path = dir.path().join("plugin-call");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (sink, crumbs) = (Arc::clone(&seen), path.clone());
    let on_late: OnLate = Arc::new(move |late| {
        sink.lock()
            .expect("lock")
            .push((late, breadcrumb::read(&crumbs)));
    });
    let options = InstanceOptions {
        breadcrumb: Some(Breadcrumbs::open(&path).expect("open")),
        deadline: Some((Duration::from_millis(50), on_late)),
        ..options()
    };
    let plugin = hostile();
    let settings = serde_json::json!({"mode": "slow"});
    let settings = plugin
        .resolve_settings(settings.as_object().expect("object"))
        .expect("valid");
    let mut lab = Lab::default();
    let mut instance = plugin
        .instantiate(&settings, options, &mut lab)
        .expect("made");
    instance.phase_started(&phase(1), &mut lab).expect("starts");
    instance
        .next_batch(STEPS, &mut lab)
        .expect("slow, but it works");
    let seen = seen.lock().expect("lock");
    let (late, crumb) = &seen[0];
    assert_eq!(
        (late.strategy.as_str(), late.call),
        ("hostile", "next_batch")
    );
    let crumb = crumb.as_ref().expect("a breadcrumb while the call runs");
    assert_eq!(
        (crumb.plugin.as_str(), crumb.arm.as_str()),
        ("hostile", "test:kl:1")
    );
    assert_eq!(crumb.call, "next_batch");
    assert_eq!(
        breadcrumb::read(&path),
        None,
        "nothing is under way any more"
    );
}

/// The first batch of the second phase of the template in C with its text changed, and its state after that.
fn altered(
    from: &str,
    to: &str,
) -> (
    Result<Option<ReplayBatch>, StrategyError>,
    Result<Vec<u8>, StrategyError>,
) {
    let dir = tempfile::tempdir().expect("folder");
    let file = altered_template(dir.path(), &[(from, to)], "");
    let plugin = Plugin::load(&file).expect("loads");
    let mut lab = Lab::default();
    let mut instance = instance(&plugin, "{}", &mut lab).expect("made");
    instance.phase_started(&phase(1), &mut lab).expect("starts");
    (instance.next_batch(STEPS, &mut lab), instance.save())
}

/// Else a slip in one strategy would end the process in the call of another, and nobody be named.
#[test]
fn writing_past_a_buffer_is_the_strategys_own_failure() {
    let past = "it wrote past the end of a buffer";
    for (what, code) in [
        ("tokens", "batch->tokens[batch->tokens_capacity] = 1;"),
        ("weights", "batch->weights[batch->tokens_capacity] = 1;"),
        ("lengths", "batch->lengths[batch->rows_capacity] = 1;"),
        (
            "objectives",
            "batch->row_objectives[batch->rows_capacity] = 1;",
        ),
        (
            "message",
            "memset(message->text, 'x', message->capacity + 1);",
        ),
    ] {
        let counts = "self->drawn++;";
        let (batch, _) = altered(counts, &format!("{counts} {code}"));
        let error = batch.expect_err(what).to_string();
        assert!(
            error.contains("in next_batch") && error.contains(past),
            "{what}: {error}"
        );
    }
    let small = "if (capacity < *needed) return FL_RETRY;";
    let (_, saved) = altered(
        small,
        &format!("{small}\n    memset(buffer, 7, capacity + 4096);"),
    );
    let error = saved.expect_err("save").to_string();
    assert!(
        error.contains("misbehaved in save") && error.contains(past),
        "{error}"
    );
}

/// Else a strategy could take all memory when it is saved, at the end of a run's every interval.
#[test]
fn a_state_beyond_all_measure_is_refused_before_it_is_made() {
    let (size, huge) = ("sizeof self->drawn;", "FL_MAX_STATE + 1;");
    let (_, saved) = altered(&format!("*needed = {size}"), &format!("*needed = {huge}"));
    let error = saved.expect_err("too large").to_string();
    assert!(error.contains("at most 536870912 are kept"), "{error}");
}

/// Else a strategy that draws without end would keep a run that is to stop.
#[test]
fn a_call_that_asks_without_end_hears_that_the_run_stops() {
    let mut lab = Lab {
        stopping: true,
        ..Lab::default()
    };
    let error = batch("draws-without-end", &mut lab).expect_err("stops");
    assert!(
        matches!(error, StrategyError::Cancelled { .. }),
        "{error:?}"
    );
}

/// Else a strategy that reads memory it was lent for a call would work by luck, until it does not.
#[test]
fn what_was_lent_for_a_call_and_is_read_after_it_is_found_by_the_check() {
    let dir = tempfile::tempdir().expect("folder");
    let changes = [
        (
            "typedef struct {",
            "static const fl_phase *kept;\ntypedef struct {",
        ),
        (
            "(void)instance, (void)host, (void)phase, (void)message;",
            "(void)instance, (void)host, (void)message;\n    kept = phase;",
        ),
        (".rows = step->rows}", ".rows = kept->replay_rows}"),
    ];
    let file = altered_template(dir.path(), &changes, "");
    let plugin = Plugin::load(&file).expect("loads");
    let error = check(&plugin, "{}").expect_err("found").to_string();
    assert!(error.contains("rows are asked for; at most"), "{error}");
}
