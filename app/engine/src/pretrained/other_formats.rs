//! Weights in formats that are not read here: what they are, and what to do.

use super::hugging_face::{INDEX, SINGLE};

/// A kind of files, told by their names.
struct Kind {
    is: fn(&str) -> bool,
    what: &'static str,
    then: &'static str,
}

const CONVERT: &str = "load it with transformers and save it again as safetensors \
                       (`AutoModelForCausalLM.from_pretrained(OLD).save_pretrained(NEW)`)";

/// Kinds in the order in which they are looked for.
const KINDS: [Kind; 9] = [
    Kind {
        is: |name| name.starts_with("adapter_model.") || name == "adapter_config.json",
        what: "an adapter of PEFT, not a whole model",
        then: "merge it into its base model with PEFT (`merge_and_unload`, then `save_pretrained`)",
    },
    Kind {
        is: |name| name.starts_with("model-") && name.ends_with(".safetensors"),
        what: "shards without their model.safetensors.index.json",
        then: "fetch the index as well",
    },
    Kind {
        is: |name| {
            let is_weights = [".safetensors", ".safetensors.index.json"];
            is_weights.iter().any(|end| name.ends_with(end)) && ![SINGLE, INDEX].contains(&name)
        },
        what: "not named as transformers names it",
        then: "take the model.safetensors of the model's Hugging Face version, with its config.json",
    },
    Kind {
        is: |name| name.starts_with("consolidated.") || name == "params.json",
        what: "in Meta's own format",
        then: "take the model's Hugging Face version, or convert it with transformers' \
               convert_llama_weights_to_hf.py",
    },
    Kind {
        is: |name| {
            let is_pickle = [".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"];
            let of_training = ["optimizer", "scheduler", "training_args", "rng_state"];
            is_pickle.iter().any(|end| name.ends_with(end))
                && !of_training.iter().any(|start| name.starts_with(start))
        },
        what: "in PyTorch's pickle format, which can run code and is not read",
        then: CONVERT,
    },
    Kind {
        is: |name| name.ends_with(".gguf"),
        what: "a GGUF file",
        then: "name the file itself",
    },
    Kind {
        is: |name| name.ends_with(".onnx") || name.ends_with(".onnx_data"),
        what: "in ONNX, which is not read",
        then: "take the checkpoint that it was made from",
    },
    Kind {
        is: |name| name.ends_with(".msgpack"),
        what: "in Flax's format, which is not read",
        then: CONVERT,
    },
    Kind {
        is: |name| name.ends_with(".h5") || name.ends_with(".tflite"),
        what: "in TensorFlow's format, which is not read",
        then: CONVERT,
    },
];

/// What weights files of these names are in a format that is not read; empty where there are none.
pub(super) fn found<'a>(names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let of_kind = |kind: &Kind| {
        let mut names: Vec<&str> = names.clone().into_iter().filter(|n| (kind.is)(n)).collect();
        names.sort_unstable();
        let (first, more) = (*names.first()?, names.len() - 1);
        let more = match more {
            0 => String::new(),
            n => format!(" (and {n} more)"),
        };
        Some(format!(
            "; it holds {first}{more}, {}: {}",
            kind.what, kind.then
        ))
    };
    KINDS.iter().find_map(of_kind).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    /// Else somebody with a good model of another kind would be told that it is not there.
    #[test]
    fn each_kind_is_named_with_what_to_do() {
        for (names, says) in [
            (
                &["pytorch_model.bin"][..],
                &["pytorch_model.bin", "pickle", "save_pretrained"][..],
            ),
            (
                &[
                    "pytorch_model-00001-of-00002.bin",
                    "pytorch_model-00002-of-00002.bin",
                ],
                &["(and 1 more)", "pickle"],
            ),
            (
                &["consolidated.00.pth", "params.json"],
                &["Meta", "convert_llama"],
            ),
            (
                &["consolidated.safetensors"],
                &["not named as transformers"],
            ),
            (&["x.pth", "optimizer.pt"], &["x.pth,", "pickle"]),
            (&["model.onnx"], &["ONNX"]),
            (&["flax_model.msgpack"], &["Flax"]),
            (&["tf_model.h5"], &["TensorFlow"]),
            (&["a.Q4_0.gguf"], &["GGUF", "name the file itself"]),
            (
                &["adapter_model.safetensors", "adapter_config.json"],
                &["adapter of PEFT", "merge_and_unload"],
            ),
            (
                &["model-00001-of-00002.safetensors"],
                &["without their model.safetensors.index.json"],
            ),
        ] {
            let found = super::found(names.iter().copied());
            for part in says {
                assert!(found.contains(part), "{part:?} is not in {found:?}");
            }
        }
        for names in [
            &[][..],
            &["model.safetensors.index.json", "model.safetensors"],
            &["config.json", "training_args.bin", "optimizer.pt"],
        ] {
            assert_eq!(super::found(names.iter().copied()), "");
        }
    }
}
