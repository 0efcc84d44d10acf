//! Families near Llama: read, written, read again; and what is like them but not built.

use serde_json::json;

use crate::model::{Blocks, ModelConfig, Norms, Parts, QkGains, Window};
use crate::ops::rope::Rope;

use super::super::config::read;
use super::super::{Export, Family, export};
use super::{CONFIG, Value, copy_of, family, fs, open_path, refused, set};

/// Every fixture, and the family that it is of.
const FAMILIES: [(&str, Family); 8] = [
    ("mistral", Family::Mistral),
    ("mistral_window", Family::Mistral),
    ("qwen2", Family::Qwen2),
    ("qwen3", Family::Qwen3),
    ("smollm3", Family::SmolLm3),
    ("granite", Family::Granite),
    ("olmo2", Family::Olmo2),
    ("gemma3", Family::Gemma3),
];

/// The window of seven positions that fixtures have in some blocks.
fn window(blocks: u64, base: Option<f64>) -> Option<Window> {
    let rope = base.map(|base| Rope {
        base,
        scaling: None,
    });
    Some(Window {
        blocks: Blocks::from_bits(blocks),
        len: 7,
        rope,
    })
}

/// The parts of each fixture, by hand from its `config.json`.
fn parts(name: &str) -> Parts {
    let plain = Parts::LLAMA;
    match name {
        "mistral" => plain,
        "mistral_window" => Parts {
            window: window(0b111, None),
            ..plain
        },
        "qwen2" => Parts {
            qkv_bias: true,
            ..plain
        },
        "qwen3" => Parts {
            qk_gains: QkGains::Head,
            ..plain
        },
        "smollm3" => Parts {
            unrotated: Blocks::from_bits(0b010),
            ..plain
        },
        "granite" => Parts {
            attention_scale: Some(0.3),
            embedding_scale: 3.0,
            residual_scale: 0.4,
            logits_scale: 0.5,
            ..plain
        },
        "olmo2" => Parts {
            norms: Norms::After,
            qk_gains: QkGains::Projection,
            ..plain
        },
        "gemma3" => Parts {
            qk_gains: QkGains::Head,
            norms: Norms::Around,
            gain_offset: 1.0,
            attention_scale: Some(10f64.powf(-0.5) as f32),
            embedding_scale: 24f32.sqrt(),
            window: window(0b101, Some(10_000.0)),
            ..plain
        },
        other => panic!("{other}"),
    }
}

/// Else a model would be trained as another than it is, or come back as another than it was.
#[test]
fn each_is_read_as_what_it_is_and_written_so_that_it_is_read_again() {
    let to = tempfile::tempdir().expect("folder");
    for (name, of) in FAMILIES {
        let source = open_path(&family(name)).expect(name);
        assert_eq!(source.family, Some(of));
        assert_eq!(source.config.parts, parts(name), "{name}");
        let mut params = source.load(&()).expect(name);
        // As training leaves them: not the numbers of the source.
        params.data.iter_mut().for_each(|x| *x *= 1.01);
        for (kind, given) in [("with", Some(&source)), ("alone", None)] {
            let dir = to.path().join(format!("{name}-{kind}"));
            export(&params, &Export::of(given), &dir).expect(name);
            let back = open_path(&dir).expect(name);
            assert_eq!(back.config, source.config, "{name} {kind}");
            if given.is_some() {
                assert_eq!(back.family, Some(of));
                assert_eq!(back.ids, source.ids);
            }
            assert!(back.load(&()).expect(name).data == params.data, "{name}");
        }
    }
}

/// Models are written by old and new versions of transformers, and by people: what is left out means what it means
/// there.
#[test]
fn keys_of_other_versions_mean_the_same() {
    let gemma = copy_of(&family("gemma3"));
    let expected = open_path(gemma.path()).expect("opens").config;
    let old = [
        ("rope_parameters", Value::Null),
        ("rope_theta", json!(1_000_000.0)),
        ("rope_local_base_freq", json!(10_000.0)),
    ];
    set(gemma.path(), &old);
    assert_eq!(open_path(gemma.path()).expect("opens").config, expected);
    set(
        gemma.path(),
        &[
            ("layer_types", Value::Null),
            ("sliding_window_pattern", json!(2)),
        ],
    );
    assert_eq!(open_path(gemma.path()).expect("opens").config, expected);

    let smol = copy_of(&family("smollm3"));
    let left_out = [
        ("no_rope_layers", Value::Null),
        ("no_rope_layer_interval", json!(3)),
        ("layer_types", Value::Null),
    ];
    set(smol.path(), &left_out);
    let unrotated = open_path(smol.path())
        .expect("opens")
        .config
        .parts
        .unrotated;
    assert_eq!(unrotated, Blocks::from_bits(0b100));

    // Qwen's first blocks attend to everything.
    let qwen = copy_of(&family("qwen2"));
    let windowed = [
        ("use_sliding_window", json!(true)),
        ("sliding_window", json!(7)),
        ("max_window_layers", json!(1)),
        ("layer_types", Value::Null),
    ];
    set(qwen.path(), &windowed);
    let parts = open_path(qwen.path()).expect("opens").config.parts;
    assert_eq!(parts.window, window(0b110, None));

    // A Mistral that says nothing has a window.
    let mistral = copy_of(&family("mistral"));
    let path = mistral.path().join("config.json");
    let text = fs::read_to_string(&path).expect("config");
    fs::write(&path, text.replace("  \"sliding_window\": null,\n", "")).expect("write");
    let parts = open_path(mistral.path()).expect("opens").config.parts;
    assert_eq!(parts.window.map(|w| w.len), Some(4096));
}

/// What a `config.json` of eight blocks says with these keys, whatever its tensors are.
fn described(name: &str, keys: &[(&str, Value)]) -> ModelConfig {
    let folder = copy_of(&family(name));
    set(
        folder.path(),
        &[
            ("num_hidden_layers", json!(8)),
            ("layer_types", Value::Null),
        ],
    );
    set(folder.path(), keys);
    read(&folder.path().join(CONFIG)).expect(name).model
}

/// Published checkpoints leave out what is usual in their family: it must be what transformers takes then.
#[test]
fn what_a_family_leaves_out_is_what_is_usual_there() {
    let none = Value::Null;
    let gone = |key| (key, none.clone());
    let gemma = described(
        "gemma3",
        &[
            gone("query_pre_attn_scalar"),
            gone("head_dim"),
            gone("rope_parameters"),
        ],
    );
    let window = gemma.parts.window.expect("a window");
    assert_eq!(window.blocks, Blocks::from_bits(0b1101_1111));
    assert_eq!(window.rope.map(|rope| rope.base), Some(10_000.0));
    assert_eq!((gemma.head_dim, gemma.rope.base), (256, 1e6));
    assert_eq!(gemma.parts.attention_scale, Some(1.0 / 16.0));
    // A base of the blocks with a window alone may be left out of transformers 5's form, too.
    let forms = json!({"sliding_attention": {"rope_type": "default"}, "full_attention": {"rope_theta": 5e5}});
    let gemma = described("gemma3", &[("rope_parameters", forms)]);
    let local = gemma.parts.window.and_then(|window| window.rope);
    assert_eq!(
        (local.map(|rope| rope.base), gemma.rope.base),
        (Some(10_000.0), 5e5)
    );

    let smol = described(
        "smollm3",
        &[gone("no_rope_layers"), gone("no_rope_layer_interval")],
    );
    assert_eq!(smol.parts.unrotated, Blocks::from_bits(0b1000_1000));
    let qwen = described("qwen3", &[gone("head_dim")]);
    assert_eq!((qwen.head_dim, qwen.parts.window), (128, None));
    for name in ["qwen2", "qwen3"] {
        let keys = [
            ("use_sliding_window", json!(true)),
            ("max_window_layers", json!(3)),
            gone("sliding_window"),
        ];
        let window = described(name, &keys).parts.window.expect("a window");
        assert_eq!(
            (window.blocks, window.len),
            (Blocks::from_bits(0b1111_1000), 4096)
        );
        // From block 28 on, if it is not said.
        let all = described(
            name,
            &[
                ("use_sliding_window", json!(true)),
                gone("max_window_layers"),
            ],
        );
        assert_eq!(all.parts.window, None);
    }
    // What these say of it is looked at by nobody.
    let qwen = described("qwen2", &[("attention_bias", json!(true))]);
    assert!(qwen.parts.qkv_bias);
    let kinds = json!(vec!["full_attention"; 8]);
    let mistral = described("mistral_window", &[("layer_types", kinds)]);
    assert_eq!(mistral.parts.window.expect("a window").blocks.count(), 8);
}

/// Requires that a fixture with these keys is refused with all of these texts.
#[track_caller]
fn refused_with(name: &str, keys: &[(&str, Value)], says: &[&str]) {
    let folder = copy_of(&family(name));
    set(folder.path(), keys);
    refused(open_path(folder.path()), says);
}

/// Else who takes a model near these ones would not learn what would work.
#[test]
fn other_architectures_are_refused_with_what_would_do() {
    let loaded =
        "these can be loaded: llama, mistral, qwen2, qwen3, smollm3, granite, olmo2, gemma3_text";
    let none = ("architectures", Value::Null);
    let vision = ("vision_config", json!({ "layers": 2 }));
    let kind = |kind: &str| ("model_type", json!(kind));
    let moe = [kind("qwen3_moe"), none.clone()];
    let says = ["`qwen3_moe`", "a mixture of experts", loaded];
    refused_with("qwen3", &moe, &says);
    let says = ["`gemma3`", "images", "text model alone", loaded];
    refused_with("gemma3", &[kind("gemma3"), none.clone(), vision], &says);
    let says = ["`gemma2`", "soft-capping", loaded];
    refused_with("gemma3", &[kind("gemma2"), none.clone()], &says);
    let says = ["architecture `phi3`; these", loaded];
    refused_with("mistral", &[kind("phi3"), none], &says);
}

/// Else a model would be trained as something it is not.
#[test]
fn what_is_near_them_and_not_built_is_refused_by_name() {
    let yarn = json!({ "rope_type": "yarn", "factor": 4.0 });
    let linear = json!({ "full_attention": { "rope_type": "linear", "factor": 8.0 } });
    let kinds = |kind: &str| json!(vec![kind; 3]);
    for (name, key, value, says) in [
        (
            "gemma3",
            "final_logit_softcapping",
            json!(30.0),
            "capped logits",
        ),
        (
            "gemma3",
            "attn_logit_softcapping",
            json!(50.0),
            "capped logits",
        ),
        (
            "gemma3",
            "hidden_activation",
            json!("gelu"),
            "gelu_pytorch_tanh",
        ),
        ("gemma3", "rope_parameters", linear, "`linear`"),
        (
            "gemma3",
            "use_bidirectional_attention",
            json!(true),
            "follows",
        ),
        ("qwen2", "rope_parameters", yarn, "rope_type` is `yarn`"),
        (
            "qwen2",
            "num_key_value_heads",
            Value::Null,
            "heads` is missing",
        ),
        ("qwen3", "attention_bias", json!(true), "biases"),
        (
            "qwen3",
            "layer_types",
            kinds("linear_attention"),
            "`linear_attention`",
        ),
        (
            "qwen3",
            "layer_types",
            kinds("sliding_attention"),
            "no window is set",
        ),
        (
            "qwen3",
            "layer_types",
            json!(["full_attention"]),
            "1 entries for 3 blocks",
        ),
        ("smollm3", "no_rope_layers", json!([1, 0]), "no list of 3"),
        (
            "granite",
            "residual_multiplier",
            json!(0.0),
            "0, not a positive",
        ),
        (
            "olmo2",
            "sliding_window",
            json!(128),
            "not built for this family",
        ),
        (
            "olmo2",
            "embedding_multiplier",
            json!(12.0),
            "not built for this family",
        ),
    ] {
        refused_with(name, &[(key, value)], &["config.json", says]);
    }
}

/// Else one would wonder at tensors of strange names and shapes.
#[test]
fn quantised_weights_are_refused_by_their_method() {
    for method in ["fp8", "gptq", "awq"] {
        let keys = [("quantization_config", json!({ "quant_method": method }))];
        let says = [method, "take the checkpoint that is not quantised"];
        refused_with("qwen2", &keys, &says);
    }
}

/// A checkpoint without one of its biases, or with norms it should not have, is not the model.
#[test]
fn tensors_of_another_family_are_named() {
    let folder = copy_of(&family("qwen2"));
    let keys = [
        ("model_type", json!("llama")),
        ("architectures", json!(["LlamaForCausalLM"])),
        ("layer_types", Value::Null),
    ];
    set(folder.path(), &keys);
    let model = open_path(folder.path()).expect("opens");
    refused(model.load(&()), &["9 unexpected", "self_attn.k_proj.bias"]);
    let keys = [
        ("model_type", json!("qwen3")),
        ("architectures", Value::Null),
    ];
    set(folder.path(), &keys);
    let model = open_path(folder.path()).expect("opens");
    refused(model.load(&()), &["6 missing", "self_attn.k_norm.weight"]);
}
