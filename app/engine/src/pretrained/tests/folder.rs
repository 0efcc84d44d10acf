//! Hugging Face folders.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::json;

use crate::ops::rope::{Rope, RopeScaling};

use super::super::{Export, export};
use super::{ModelConfig, Path, Value, copy, fixture, fs, open_path, refused, set};

/// The sizes and parts of a fixture, as in its `config.json`.
fn sizes(kind: &str) -> ModelConfig {
    let tied = kind == "tied";
    let scaling = RopeScaling {
        factor: 32.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_positions: 64.0,
    };
    ModelConfig {
        tied_embeddings: tied,
        rope: Rope {
            base: if tied { 500_000.0 } else { 10_000.0 },
            scaling: tied.then_some(scaling),
        },
        ..ModelConfig::llama(64, 3, [4, 2, 16], 160, 320)
    }
}

/// Else every figure measured on the model would be another model's.
#[test]
fn old_and_new_keys_are_read_and_every_number_is_in_its_place() {
    for kind in ["tied", "untied"] {
        let model = open_path(&fixture(kind)).expect("opens");
        assert_eq!(model.config, sizes(kind));
        assert_eq!((model.ids.bos, &model.ids.eos[..]), (Some(1), &[2][..]));
        assert_eq!((model.ids.pad, model.max_positions), (Some(0), Some(4096)));
        let params = model.load(&()).expect("loads");
        // Straight from the file, its rows put together by hand.
        let bytes = fs::read(fixture(kind).join("model.safetensors")).expect("file");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let raw = |name: &str| -> Vec<f32> {
            let tensor = file.tensor(&format!("{name}.weight")).expect("tensor");
            let numbers = tensor.data().as_chunks().0.iter();
            numbers.map(|&b| f32::from_le_bytes(b)).collect()
        };
        let layer = |name: &str| raw(&format!("model.layers.2.{name}"));
        for (name, expected) in [
            ("embed_in", raw("model.embed_tokens")),
            ("final_norm", raw("model.norm")),
            (
                "blocks.2.qkv",
                [
                    layer("self_attn.q_proj"),
                    layer("self_attn.k_proj"),
                    layer("self_attn.v_proj"),
                ]
                .concat(),
            ),
            ("blocks.2.out", layer("self_attn.o_proj")),
            (
                "blocks.2.gate_up",
                [layer("mlp.gate_proj"), layer("mlp.up_proj")].concat(),
            ),
            ("blocks.2.down", layer("mlp.down_proj")),
            ("blocks.2.attention_norm", layer("input_layernorm")),
            ("blocks.2.mlp_norm", layer("post_attention_layernorm")),
        ] {
            let mut tensors = params.tensors();
            let (_, _, loaded) = tensors.find(|(n, ..)| *n == name).expect(name);
            assert_eq!(loaded, expected, "{kind} {name}");
        }
        if kind == "untied" {
            assert_eq!(&params.data[params.layout.embed_out()], raw("lm_head"));
        }
    }
}

/// Llama 3.2 names several ends of a turn, some of them in `generation_config.json` alone.
#[test]
fn keys_that_may_be_left_out_or_be_lists_are_understood() {
    let folder = copy("untied");
    let path = folder.path();
    set(
        path,
        &[
            ("head_dim", Value::Null),
            ("num_key_value_heads", json!(4)),
            ("rope_parameters", Value::Null),
            ("rope_scaling", json!({ "type": "default" })),
            ("eos_token_id", json!([2, 5])),
            ("bos_token_id", Value::Null),
        ],
    );
    let generation = path.join("generation_config.json");
    fs::write(generation, r#"{"eos_token_id": [5, 7]}"#).expect("write");
    let model = open_path(path).expect("opens");
    assert_eq!((model.config.head_dim, model.config.n_kv_heads), (16, 4));
    assert_eq!(model.config.rope.base, 10_000.0);
    assert_eq!((model.ids.bos, &model.ids.eos[..]), (None, &[2, 5, 7][..]));
}

/// Else a model would be trained as something it is not.
#[test]
fn what_is_not_built_here_is_refused_by_name() {
    let llama3 = json!({ "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0 });
    for (key, value, says) in [
        ("model_type", json!("phi3"), &["architecture `phi3`"][..]),
        (
            "architectures",
            json!(["LlamaForSequenceClassification"]),
            &["`LlamaForSequence"],
        ),
        (
            "attention_bias",
            json!(true),
            &["`attention_bias`", "biases"],
        ),
        ("mlp_bias", json!(true), &["`mlp_bias`"]),
        ("hidden_act", json!("gelu"), &["`hidden_act`", "silu"]),
        ("hidden_size", Value::Null, &["`hidden_size` is missing"]),
        (
            "hidden_size",
            json!("wide"),
            &[
                "config.json",
                "`hidden_size` is \"wide\", not a whole number",
            ],
        ),
        ("num_hidden_layers", json!(0), &["`num_hidden_layers` is 0"]),
        ("num_key_value_heads", json!(3), &["does not divide the 4"]),
        ("head_dim", json!(15), &["`head_dim` is 15, which is odd"]),
        ("quantization_config", json!({}), &["`quantization_config`"]),
        (
            "rope_parameters",
            json!({ "rope_type": "yarn" }),
            &["rope_type` is `yarn`"],
        ),
        ("rope_parameters", llama3, &["high_freq_factor` is missing"]),
        (
            "partial_rotary_factor",
            json!(0.5),
            &["`partial_rotary_factor`"],
        ),
    ] {
        let folder = copy("untied");
        set(folder.path(), &[(key, value)]);
        refused(open_path(folder.path()), says);
    }
    let empty = tempfile::tempdir().expect("folder");
    refused(open_path(empty.path()), &["cannot read", "config.json"]);
    refused(open_path(&empty.path().join("nowhere")), &["is not there"]);
}

/// A tensor of a safetensors file.
#[derive(Clone)]
pub(super) struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

pub(super) fn tensors(folder: &Path) -> Vec<Stored> {
    let bytes = fs::read(folder.join("model.safetensors")).expect("file");
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    file.iter()
        .map(|(name, view)| Stored {
            name: name.to_owned(),
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: view.data().to_vec(),
        })
        .collect()
}

pub(super) fn write(file: &Path, tensors: &[Stored]) {
    let views = tensors.iter().map(|tensor| {
        let shape = tensor.shape.clone();
        let view = TensorView::new(tensor.dtype, shape, &tensor.bytes).expect("view");
        (tensor.name.as_str(), view)
    });
    safetensors::serialize_to_file(views, None, file).expect("write");
}

/// Half-precision checkpoints are what the hub holds.
#[test]
fn halves_are_read_as_the_numbers_they_are() {
    let folder = copy("untied");
    let file = folder.path().join("model.safetensors");
    let bf16 = |b: &[u8; 4]| half::bf16::from_f32(f32::from_le_bytes(*b)).to_le_bytes();
    let f16 = |b: &[u8; 4]| half::f16::from_f32(f32::from_le_bytes(*b)).to_le_bytes();
    let model = open_path(folder.path()).expect("opens");
    let f32s = model.load(&()).expect("f32").data;
    let whole = tensors(folder.path());
    for dtype in [Dtype::BF16, Dtype::F16] {
        let halves = whole.iter().map(|tensor| {
            let numbers = tensor.bytes.as_chunks().0.iter();
            Stored {
                dtype,
                bytes: match dtype {
                    Dtype::BF16 => numbers.flat_map(bf16).collect(),
                    _ => numbers.flat_map(f16).collect(),
                },
                ..tensor.clone()
            }
        });
        write(&file, &halves.collect::<Vec<_>>());
        let model = open_path(folder.path()).expect("opens");
        let storage = model.storage().expect("storage");
        assert_eq!(storage.dtypes, [(dtype.to_string(), whole.len())].into());
        assert_eq!(storage.bytes, fs::metadata(&file).expect("file").len());
        let expected = f32s.iter().map(|&x| match dtype {
            Dtype::BF16 => half::bf16::from_f32(x).to_f32(),
            _ => half::f16::from_f32(x).to_f32(),
        });
        assert_eq!(
            model.load(&()).expect("loads").data,
            expected.collect::<Vec<_>>()
        );
    }
    let mut unsupported = whole;
    let first = &mut unsupported[0];
    first.dtype = Dtype::F8_E4M3;
    first.bytes.truncate(first.bytes.len() / 4);
    write(&file, &unsupported);
    let model = open_path(folder.path()).expect("opens");
    let name = &unsupported[0].name;
    refused(model.load(&()), &["F32, F16 or BF16", name, "F8_E4M3"]);
}

/// Else a broken download would be trained, or blamed on the program.
#[test]
fn weights_that_are_not_whole_are_told_from_those_of_another_model() {
    let folder = copy("tied");
    let file = folder.path().join("model.safetensors");
    let whole = fs::read(&file).expect("file");
    let load = || open_path(folder.path()).expect("opens").load(&());
    for (bytes, says) in [
        (&whole[..whole.len() - 1], "fetch it again"),
        (&whole[..whole.len() / 2], "fetch it again"),
        (&whole[..100], "announce a header"),
        (&whole[..7], "it has 7 bytes"),
        (&b"PK\x03\x04 a zip archive"[..], "announce a header"),
        (
            &b"version https://git-lfs.github.com/spec/v1\n"[..],
            "git lfs pull",
        ),
        (&b"\x02\0\0\0\0\0\0\0ab"[..], "its header cannot be read"),
    ] {
        fs::write(&file, bytes).expect("write");
        refused(load(), &["is not a whole safetensors file", says]);
    }
    fs::remove_file(&file).expect("remove");
    refused(load(), &["is without model.safetensors"]);

    fs::write(&file, &whole).expect("write");
    let right = tensors(folder.path());
    let mut wrong = right.clone();
    wrong.retain(|tensor| !tensor.name.contains("layers.1.mlp.up"));
    wrong.push(Stored {
        name: "model.layers.0.self_attn.q_proj.bias".into(),
        ..right[0].clone()
    });
    let norm = wrong
        .iter_mut()
        .find(|tensor| tensor.name == "model.norm.weight");
    norm.expect("norm").shape = vec![1, 64];
    write(&file, &wrong);
    refused(
        load(),
        &[
            "1 missing (model.layers.1.mlp.up_proj.weight)",
            "1 unexpected (model.layers.0.self_attn.q_proj.bias)",
            "1 of another shape (model.norm.weight [1, 64] for [64])",
        ],
    );
    // Tensors that older versions stored beside the weights are ignored.
    let mut older = right;
    older.push(Stored {
        name: "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
        dtype: Dtype::F32,
        shape: vec![1],
        bytes: vec![0; 4],
    });
    write(&file, &older);
    load().expect("loads");
}

/// A model of several files is useless without one of them, and it should be known which.
#[test]
fn a_missing_shard_is_named() {
    let folder = copy("tied");
    let whole = open_path(folder.path()).expect("opens");
    let params = whole.load(&()).expect("loads");
    let to = folder.path().join("shards");
    let options = Export {
        shard_bytes: 100_000,
        ..Export::of(Some(&whole))
    };
    export(&params, &options, &to).expect("exports");
    let sharded = open_path(&to).expect("opens");
    assert_eq!(sharded.load(&()).expect("loads"), params);
    let shard = fs::read_dir(&to)
        .expect("folder")
        .map(|f| f.expect("file").file_name().into_string().expect("UTF-8"))
        .find(|name| name.contains("-00003-of-"))
        .expect("third");
    fs::remove_file(to.join(&shard)).expect("remove");
    let says = [
        "index.json",
        "not all of its",
        &shard,
        "fetch what is missing",
    ];
    refused(sharded.load(&()), &says);
    let index = r#"{"weight_map": {"a": "../../etc/passwd"}}"#;
    fs::write(to.join("model.safetensors.index.json"), index).expect("write");
    refused(sharded.load(&()), &["index.json", "../../etc/passwd"]);
}
