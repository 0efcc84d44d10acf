//! The built-in strategies: what they replay, and that they go on from a saved state.

use forgetlab_plugin_host::{DryRunError, ReplayBatch, WhichModel};

use crate::{
    lab::{Lab, ROWS, SEQ_LEN, STEPS, check, instance, phase},
    libraries::{built_in, hostile},
};

const BUILT_IN: [&str; 4] = ["none", "true-data", "self-generated", "bos-prompted"];

/// Else a resumed run would not equal an uninterrupted one.
#[test]
fn built_in_strategies_pass_the_check_every_plugin_can_be_put_to() {
    for name in BUILT_IN {
        let result = check(&built_in(name), "{}");
        assert!(result.is_ok(), "{name}: {result:?}");
    }
}

/// Else an author would not learn that the state is incomplete until a resumed run differs.
#[test]
fn the_check_notices_a_state_that_is_not_saved() {
    let error = check(&hostile(), r#"{"mode": "forgets-state"}"#).expect_err("must be noticed");
    assert!(matches!(error, DryRunError::NotResumable { .. }), "{error}");
}

/// Else the first phase, which has nothing to replay, would fail.
#[test]
fn nothing_is_replayed_in_the_first_phase() {
    for name in BUILT_IN {
        let mut lab = Lab::default();
        let mut instance = instance(&built_in(name), "{}", &mut lab).expect("made");
        instance.phase_started(&phase(0), &mut lab).expect("starts");
        assert_eq!(instance.next_batch(0, &mut lab), Ok(None), "{name}");
    }
}

fn batches(name: &str, settings: &str, lab: &mut Lab) -> Vec<ReplayBatch> {
    let mut instance = instance(&built_in(name), settings, lab).expect("made");
    instance.phase_started(&phase(1), lab).expect("starts");
    (0..STEPS)
        .map(|i| {
            instance
                .next_batch(STEPS + i, lab)
                .expect("works")
                .expect("a batch")
        })
        .collect()
}

/// Else the replay would be another method than the paper's (arXiv 2605.26097).
#[test]
fn self_generated_samples_the_reference_freely_from_all_markers_in_equal_shares() {
    let mut lab = Lab::default();
    let batches = batches("self-generated", r#"{"buffer_batches": 16}"#, &mut lab);
    for batch in &batches {
        let markers: Vec<u32> = batch.tokens.chunks(SEQ_LEN).map(|row| row[1]).collect();
        assert_eq!(markers, [4, 5, 4, 5]);
        assert_eq!(batch.lengths, [SEQ_LEN as u32; ROWS]);
    }
    // 20 steps: one buffer of 16 batches, then only the 4 that are left.
    let rows: Vec<usize> = lab
        .generated
        .iter()
        .map(|request| request.prompts.len())
        .collect();
    assert_eq!(rows, [16 * ROWS, 4 * ROWS]);
    let request = &lab.generated[0];
    assert_eq!(request.model, WhichModel::Reference);
    assert_eq!((request.temperature, request.length), (1.0, SEQ_LEN));
    assert_eq!((request.top_k, request.top_p), (None, None));
    assert!(request.stop_tokens.is_empty());
}

/// Else `bos-prompted` would use knowledge of the old tasks that it must not have.
#[test]
fn bos_prompted_prompts_with_bos_alone_or_what_the_setting_says() {
    for (settings, prompt) in [
        ("{}", vec![1]),
        (r#"{"prompt": 7}"#, vec![7]),
        (r#"{"prompt": "ab"}"#, vec![1, 2]),
        (r#"{"prompt": [3, 0]}"#, vec![3, 0]),
    ] {
        let mut lab = Lab::default();
        batches("bos-prompted", settings, &mut lab);
        assert!(
            lab.generated
                .iter()
                .flat_map(|r| &r.prompts)
                .all(|p| *p == prompt),
            "{settings}"
        );
    }
}

/// Else the samples of an older reference would be replayed in a new phase.
#[test]
fn a_new_phase_begins_with_an_empty_buffer() {
    for name in ["self-generated", "bos-prompted"] {
        let mut lab = Lab::default();
        let mut instance = instance(&built_in(name), "{}", &mut lab).expect("made");
        for index in [1, 2] {
            let phase = phase(index);
            instance.phase_started(&phase, &mut lab).expect("starts");
            instance
                .next_batch(phase.first_step, &mut lab)
                .expect("works");
            assert_eq!(lab.generated.len(), index, "{name}");
        }
    }
}

fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("written");
    format!(r#"{{"prompts": {path:?}, "buffer_batches": 2}}"#)
}

/// Else a file of prompts would be used in part, or a resumed run would begin it anew.
#[test]
fn prompts_of_a_file_are_used_in_turn_and_the_place_is_saved() {
    let dir = tempfile::tempdir().expect("folder");
    let txt = file(&dir, "a.txt", "ab\n\ncde\nf\n");
    let json = "{\"prompt\": \"ab\"}\n{\"prompt\": \"cde\"}\n{\"prompt\": \"f\"}\n";
    let jsonl = file(&dir, "a.jsonl", json);
    for settings in [&txt, &jsonl] {
        let mut lab = Lab::default();
        batches("self-generated", settings, &mut lab);
        let prompts = lab.generated.iter().flat_map(|request| &request.prompts);
        let expected = [vec![1, 2], vec![3, 4, 5], vec![6]];
        for (i, prompt) in prompts.enumerate() {
            assert_eq!(*prompt, expected[i % 3], "{i}");
        }
        check(&built_in("self-generated"), settings).expect("goes on from its saved state");
    }

    let plugin = built_in("self-generated");
    let mut lab = Lab::default();
    let mut saved = instance(&plugin, &txt, &mut lab).expect("made");
    saved.phase_started(&phase(1), &mut lab).expect("starts");
    let state = saved.save().expect("saved");
    file(&dir, "a.txt", "other\n");
    let mut other = instance(&plugin, &txt, &mut lab).expect("made");
    let error = other
        .load(&state, Some(&phase(1)), &mut lab)
        .expect_err("another file");
    assert!(error.to_string().contains("was changed"), "{error}");
}

/// Else a researcher would hunt for a slip in a file of prompts.
#[test]
fn a_bad_file_of_prompts_is_named_with_its_line() {
    let dir = tempfile::tempdir().expect("folder");
    let plugin = built_in("self-generated");
    let missing = r#"{"prompts": "/no/such/file.txt"}"#.to_owned();
    for (settings, what) in [
        (missing, "cannot read /no/such/file.txt"),
        (file(&dir, "b.csv", "ab"), "neither a .txt nor a .jsonl"),
        (file(&dir, "empty.txt", "\n \n"), "holds no prompt"),
        (
            file(&dir, "c.jsonl", "{\"prompt\": \"a\"}\n{}"),
            "line 2: there is no text",
        ),
        (file(&dir, "d.jsonl", "{"), "line 1: no JSON"),
    ] {
        let error = instance(&plugin, &settings, &mut Lab::default()).map(|_| ());
        let error = error.expect_err("refused").to_string();
        assert!(error.contains(what), "{error}");
    }
    let mut lab = Lab::default();
    let settings = file(&dir, "long.txt", "ab\nabcdef\n");
    let mut long = instance(&plugin, &settings, &mut lab).expect("made");
    let error = long
        .phase_started(&phase(1), &mut lab)
        .expect_err("refused");
    let what = "line 2: the prompt has 6 tokens, a whole row has 6";
    assert!(error.to_string().contains(what), "{error}");
}
