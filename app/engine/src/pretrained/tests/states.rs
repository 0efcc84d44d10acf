//! Checkpoints in the states in which they are found: what transformers reads is read the same here, and what
//! cannot be is refused by name.

use serde_json::{Value, json};

use super::super::{Export, export};
use super::folder::{tensors, write};
use super::{Path, copy, fixture, fs, open_path, refused, set};

/// Adds to a tied model's weights a copy of its embedding as `lm_head.weight`, with a number changed.
fn add_head(folder: &Path, change: bool) {
    let file = folder.join("model.safetensors");
    let mut all = tensors(folder);
    let is_embedding = |name: &str| name == "model.embed_tokens.weight";
    let mut head = all
        .iter()
        .find(|tensor| is_embedding(&tensor.name))
        .expect("embedding")
        .clone();
    head.name = "lm_head.weight".into();
    if change {
        *head.bytes.last_mut().expect("bytes") ^= 0x40;
    }
    all.push(head);
    write(&file, &all);
}

/// Else another model would be trained, and its head lost for good by an export.
#[test]
fn a_head_of_its_own_is_used_though_the_config_ties_it() {
    let folder = copy("tied");
    let tied = open_path(folder.path()).expect("opens");
    let params = tied.load(&()).expect("loads");
    assert!(tied.config.tied_embeddings && tied.warnings.is_empty());

    add_head(folder.path(), false);
    let copied = open_path(folder.path()).expect("opens");
    assert!(copied.config.tied_embeddings && copied.warnings.is_empty());
    assert_eq!(copied.load(&()).expect("loads"), params);

    fs::copy(
        fixture("tied").join("model.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .expect("copy");
    add_head(folder.path(), true);
    let own = open_path(folder.path()).expect("opens");
    assert!(!own.config.tied_embeddings);
    let [warning] = &own.warnings[..] else {
        panic!("{:?}", own.warnings)
    };
    assert!(warning.contains("tie_word_embeddings") && warning.contains("lm_head.weight"));
    let untied = own.load(&()).expect("loads");
    let (input, output) = (untied.layout.embed_in(), untied.layout.embed_out());
    let last = (input.end - 1, output.end - 1);
    assert_eq!(
        untied.data[input.start..last.0],
        untied.data[output.start..last.1]
    );
    assert_ne!(untied.data[last.0], untied.data[last.1]);

    let dir = folder.path().join("out");
    export(&untied, &Export::of(Some(&own)), &dir).expect("exports");
    let back = open_path(&dir).expect("opens");
    assert_eq!((back.config, back.warnings.len()), (own.config, 0));
    assert_eq!(back.load(&()).expect("loads"), untied);
}

/// transformers ties in both directions.
#[test]
fn a_tied_embedding_may_be_stored_under_either_name() {
    let folder = copy("tied");
    let params = open_path(folder.path())
        .expect("opens")
        .load(&())
        .expect("loads");
    let mut all = tensors(folder.path());
    for tensor in &mut all {
        if tensor.name == "model.embed_tokens.weight" {
            tensor.name = "lm_head.weight".into();
        }
    }
    write(&folder.path().join("model.safetensors"), &all);
    let model = open_path(folder.path()).expect("opens");
    assert_eq!(model.load(&()).expect("loads"), params);
    set(folder.path(), &[("tie_word_embeddings", json!(false))]);
    let untied = open_path(folder.path()).expect("opens");
    refused(untied.load(&()), &["1 missing (model.embed_tokens.weight)"]);
}

/// Conversions of the first LLaMA have a padding token of -1; to refuse them would be to refuse most of them.
#[test]
fn ids_that_no_token_has_stand_for_none_with_a_warning() {
    for (key, value, eos, warnings) in [
        ("pad_token_id", json!(-1), &[2][..], 1),
        ("pad_token_id", json!(320), &[2], 1),
        ("pad_token_id", json!(4294967296_u64), &[2], 1),
        ("bos_token_id", json!(-1), &[2], 1),
        ("eos_token_id", json!([2, -1, 5, 319]), &[2, 5, 319], 1),
        ("eos_token_id", json!(-1), &[], 1),
        ("eos_token_id", json!([]), &[], 0),
    ] {
        let folder = copy("untied");
        set(folder.path(), &[(key, value.clone())]);
        let model = open_path(folder.path()).expect("opens");
        assert_eq!(model.ids.eos, eos, "{key} {value}");
        assert_eq!(model.warnings.len(), warnings, "{key} {value}");
        for warning in &model.warnings {
            assert!(warning.contains(key), "{warning}");
        }
        if key == "pad_token_id" {
            assert_eq!(model.ids.pad, None);
        }
    }
    for (key, value) in [
        ("pad_token_id", json!("2")),
        ("pad_token_id", json!([1, 2])),
        ("bos_token_id", json!(1.5)),
        ("eos_token_id", json!([[2]])),
        ("eos_token_id", json!(true)),
    ] {
        let folder = copy("untied");
        set(folder.path(), &[(key, value)]);
        refused(open_path(folder.path()), &[key, "not the id of a token"]);
    }
}

/// Each key with its value is refused, in words that hold these.
#[track_caller]
fn each_refused(cases: &[(&str, Value, &[&str])]) {
    for (key, value, says) in cases {
        let folder = copy("untied");
        set(
            folder.path(),
            &[("rope_parameters", Value::Null), (key, value.clone())],
        );
        refused(open_path(folder.path()), says);
    }
}

/// A model that cannot be would train to nothing, or take all memory before it is noticed.
#[test]
fn impossible_sizes_and_settings_are_refused_by_name() {
    each_refused(&[
        (
            "num_hidden_layers",
            json!(10_000_000),
            &["`num_hidden_layers` is 10000000, more than"],
        ),
        (
            "num_hidden_layers",
            json!(u64::MAX),
            &["`num_hidden_layers`", "more than"],
        ),
        (
            "num_hidden_layers",
            json!(-1),
            &["`num_hidden_layers` is -1, not a whole number"],
        ),
        (
            "num_hidden_layers",
            json!(2.5),
            &["is 2.5, not a whole number"],
        ),
        (
            "vocab_size",
            json!(1_u64 << 40),
            &["`vocab_size`", "more than"],
        ),
        ("intermediate_size", json!(0), &["`intermediate_size` is 0"]),
        (
            "hidden_size",
            json!(66),
            &["`num_attention_heads` is 4", "width 66"],
        ),
        (
            "max_position_embeddings",
            json!(0),
            &["`max_position_embeddings` is 0"],
        ),
        (
            "rms_norm_eps",
            json!(-1),
            &["`rms_norm_eps` is -1, not a positive number"],
        ),
        ("rms_norm_eps", json!(0), &["`rms_norm_eps` is 0"]),
        ("rms_norm_eps", json!(1e300), &["`rms_norm_eps` is inf"]),
        (
            "rms_norm_eps",
            json!("1e-5"),
            &["`rms_norm_eps` is \"1e-5\", not a number"],
        ),
    ]);
    let folder = copy("untied");
    let widest = json!(1 << 24);
    set(
        folder.path(),
        &[
            ("hidden_size", widest.clone()),
            ("intermediate_size", widest),
        ],
    );
    refused(open_path(folder.path()), &["`hidden_size`", "parameters"]);
}

/// Else a model would be trained at other positions than it was made for.
#[test]
fn scalings_of_rope_that_are_not_built_are_refused_by_name() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
    });
    each_refused(&[
        ("rope_theta", json!(0), &["`rope_theta` is 0"]),
        ("rope_theta", json!(-1e4), &["`rope_theta` is -10000"]),
        (
            "rope_scaling",
            llama3,
            &["high_freq_factor` is 1, not above"],
        ),
        (
            "rope_scaling",
            json!({ "type": "linear", "factor": 2.0 }),
            &["rope_type` is `linear`"],
        ),
        (
            "rope_scaling",
            json!({ "rope_type": "dynamic" }),
            &["rope_type` is `dynamic`"],
        ),
        (
            "rope_scaling",
            json!({ "rope_type": "longrope" }),
            &["rope_type` is `longrope`"],
        ),
        (
            "rope_scaling",
            json!({ "factor": 2.0 }),
            &["factor` is set", "names no scaling"],
        ),
        (
            "rope_scaling",
            json!({ "full_attention": {} }),
            &["rope_scaling.full_attention`"],
        ),
        (
            "rope_scaling",
            json!("yarn"),
            &["`rope_scaling` is \"yarn\", not an object"],
        ),
    ]);
}

/// Else a model would be trained as something it is not.
#[test]
fn parts_that_are_not_built_are_refused_by_name() {
    each_refused(&[
        (
            "sliding_window",
            json!(4096),
            &["`sliding_window`", "window"],
        ),
        (
            "tie_word_embeddings",
            json!("yes"),
            &["`tie_word_embeddings`", "true or false"],
        ),
        (
            "num_local_experts",
            json!(8),
            &["`num_local_experts`", "experts"],
        ),
        (
            "residual_multiplier",
            json!(0.22),
            &["`residual_multiplier` is not 1"],
        ),
        (
            "final_logit_softcapping",
            json!(30.0),
            &["`final_logit_softcapping`"],
        ),
        ("use_qk_norm", json!(true), &["`use_qk_norm`"]),
    ]);
}

/// Keys that change nothing are in many configurations.
#[test]
fn parts_that_are_not_in_use_are_no_obstacle() {
    let folder = copy("untied");
    set(
        folder.path(),
        &[
            ("use_sliding_window", json!(false)),
            ("sliding_window", json!(4096)),
            ("hidden_act", json!("swish")),
            ("embedding_multiplier", json!(1)),
            ("num_local_experts", json!(0)),
            ("qk_norm", json!(false)),
            ("attention_dropout", json!(0.1)),
            ("pretraining_tp", json!(2)),
        ],
    );
    let model = open_path(folder.path()).expect("opens");
    let [warning] = &model.warnings[..] else {
        panic!("{:?}", model.warnings)
    };
    assert!(warning.contains("`attention_dropout` is 0.1"));
}

/// As in transformers: the length that a model was first made for is, unless told, the length it has.
#[test]
fn the_first_length_of_a_scaled_rope_may_be_left_out() {
    let folder = copy("untied");
    let scaling = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    });
    set(
        folder.path(),
        &[
            ("rope_scaling", scaling),
            ("max_position_embeddings", json!(512)),
        ],
    );
    let model = open_path(folder.path()).expect("opens");
    let scaling = model.config.rope.scaling.expect("scaled");
    assert_eq!(scaling.original_max_positions, 512.0);
}

/// The model is there; only its format is not read.
#[test]
fn weights_of_other_formats_are_named_with_what_to_do() {
    let folder = copy("untied");
    let path = folder.path();
    fs::rename(
        path.join("model.safetensors"),
        path.join("pytorch_model.bin"),
    )
    .expect("rename");
    let model = open_path(path).expect("opens");
    let says = [
        "is without model.safetensors",
        "pytorch_model.bin",
        "save_pretrained",
    ];
    refused(model.load(&()), &says);
    refused(model.storage(), &says);

    let adapter = tempfile::tempdir().expect("folder");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::write(adapter.path().join(file), "{}").expect("write");
    }
    let says = [
        "is without config.json",
        "adapter of PEFT",
        "merge_and_unload",
    ];
    refused(open_path(adapter.path()), &says);
}
