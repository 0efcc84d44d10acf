//! The tokenizer in the metadata of a GGUF file.
//!
//! GGUF names a byte-level BPE by its tokens, merges and the name of a pre-tokenizer, whose rules
//! stand in llama.cpp alone. From these the equivalent `tokenizer.json` is rebuilt, for the kinds
//! whose rules are known to be the same.

use std::path::Path;

use forgetlab_engine::pretrained::{Gguf, GgufMetadata, GgufValue as Value, PretrainedError};
use forgetlab_plugin_host::SpecialTokens;
use serde_json::{Map, json};

use super::{Parts, TokenizerError};
use crate::data::source::regular;

/// Kinds of tokens, as llama.cpp numbers them.
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// How Llama 3 cuts text before merging, as do OLMo 2 and SmolLM3.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How Qwen 2 and 3 do: each digit by itself.
const QWEN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a kind of byte-level BPE does to text before it merges.
struct Kind {
    normalizer: serde_json::Value,
    pre_tokenizer: serde_json::Value,
    /// Llama 3 takes words that are tokens as they are, and adds BOS where nothing is said of it.
    llama3: bool,
}

pub(super) fn open(path: &Path) -> Result<Parts, TokenizerError> {
    regular(path).map_err(|source| TokenizerError::Io {
        path: path.into(),
        source,
    })?;
    let metadata = Gguf::metadata(path).map_err(|error| match error {
        PretrainedError::Read { path, source } => TokenizerError::Io { path, source },
        PretrainedError::Format { why, .. } => malformed(path, format!("not a GGUF file: {why}")),
        error => malformed(path, error.to_string()),
    })?;
    parts(path, &metadata)
}

pub(super) fn parts(path: &Path, metadata: &GgufMetadata) -> Result<Parts, TokenizerError> {
    let metadata = Metadata { path, metadata };
    let model = metadata.text("tokenizer.ggml.model")?;
    if model.as_deref() != Some("gpt2") {
        return Err(malformed(
            path,
            format!(
                "tokenizer.ggml.model is {}; only byte-level BPE (`gpt2`) is read from GGUF, name \
                 a folder with this model's tokenizer.json instead",
                model.map_or("missing".into(), |m| format!("`{m}`")),
            ),
        ));
    }
    let pre = metadata.text("tokenizer.ggml.pre")?.unwrap_or_default();
    let Kind {
        normalizer,
        pre_tokenizer,
        llama3,
    } = kind(path, &pre)?;
    let tokens = metadata.texts("tokenizer.ggml.tokens")?;
    let merges = metadata.texts("tokenizer.ggml.merges")?;
    let types = metadata.integers("tokenizer.ggml.token_type")?;
    let added: Vec<_> = tokens
        .iter()
        .zip(&types)
        .enumerate()
        .filter(|(_, (_, kind))| [CONTROL, USER_DEFINED].contains(kind))
        .map(|(id, (token, kind))| {
            json!({
                "id": id, "content": token, "special": *kind == CONTROL,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let vocab: Map<_, _> = tokens
        .iter()
        .enumerate()
        .map(|(id, token)| (token.to_string(), json!(id)))
        .collect();
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": added,
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "decoder": byte_level(false),
        "model": {
            "type": "BPE", "vocab": vocab, "merges": merges, "ignore_merges": llama3,
            "fuse_unk": false, "byte_fallback": false,
        },
    })
    .to_string();
    let inner = tokenizers::Tokenizer::from_bytes(&tokenizer)
        .map_err(|e| malformed(path, format!("its metadata make no tokenizer: {e}")))?;
    let special = SpecialTokens {
        bos: metadata.id("tokenizer.ggml.bos_token_id", tokens.len())?,
        eos: metadata.id("tokenizer.ggml.eos_token_id", tokens.len())?,
        pad: metadata.id("tokenizer.ggml.padding_token_id", tokens.len())?,
    };
    // End of turn, where it is not EOS.
    let turn = metadata.id("tokenizer.ggml.eot_token_id", tokens.len())?;
    let mut stop: Vec<u32> = special.eos.into_iter().chain(turn).collect();
    stop.dedup();
    let adds_bos = metadata.flag("tokenizer.ggml.add_bos_token")?;
    let template = metadata.text("tokenizer.chat_template")?;
    Ok(Parts {
        inner,
        json: tokenizer.into_bytes(),
        name: path.display().to_string(),
        special,
        stop,
        adds_bos: adds_bos.unwrap_or(llama3),
        template,
        model_vocab_size: None,
        tool_template: None,
        named: Vec::new(),
    })
}

/// The kind that llama.cpp names `tokenizer.ggml.pre`.
fn kind(path: &Path, name: &str) -> Result<Kind, TokenizerError> {
    let of = |pre_tokenizer| Kind {
        normalizer: json!(null),
        pre_tokenizer,
        llama3: false,
    };
    match name {
        "gpt-2" => Ok(of(byte_level(true))),
        // Granite's are `refact`.
        "smollm" | "starcoder" | "refact" | "command-r" => Ok(of(sequence([
            json!({"type": "Digits", "individual_digits": true}),
            byte_level(true),
        ]))),
        "llama-bpe" | "llama3" | "llama-v3" => Ok(Kind {
            llama3: true,
            ..of(split(LLAMA3))
        }),
        // OLMo 2's, and SmolLM3's.
        "dbrx" | "smaug-bpe" => Ok(of(split(LLAMA3))),
        // llama.cpp leaves out that it is normalised.
        "qwen2" => Ok(Kind {
            normalizer: json!({"type": "NFC"}),
            ..of(split(QWEN))
        }),
        other => Err(malformed(
            path,
            format!(
                "tokenizer.ggml.pre is `{other}`; gpt-2, smollm, refact, llama-bpe, smaug-bpe, dbrx and qwen2 are \
                 read from GGUF, name a folder with this model's tokenizer.json instead"
            ),
        )),
    }
}

/// Words as an expression cuts them, in bytes.
fn split(words: &str) -> serde_json::Value {
    let regex = json!({"Regex": words});
    sequence([
        json!({"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": false}),
        byte_level(false),
    ])
}

fn byte_level(use_regex: bool) -> serde_json::Value {
    json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false,
        "use_regex": use_regex,
    })
}

fn sequence(of: [serde_json::Value; 2]) -> serde_json::Value {
    json!({"type": "Sequence", "pretokenizers": of})
}

fn malformed(path: &Path, problem: String) -> TokenizerError {
    TokenizerError::Malformed {
        path: path.into(),
        problem,
    }
}

struct Metadata<'a> {
    path: &'a Path,
    metadata: &'a GgufMetadata,
}

impl<'a> Metadata<'a> {
    fn get<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, TokenizerError> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        let problem = || malformed(self.path, format!("{key} is not {wanted}"));
        convert(value).ok_or_else(problem).map(Some)
    }

    fn text(&self, key: &str) -> Result<Option<String>, TokenizerError> {
        self.get(key, "a text", |v| v.to_string().ok().cloned())
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, TokenizerError> {
        self.get(key, "true or false", |v| v.to_bool().ok())
    }

    fn list<T>(
        &self,
        key: &str,
        wanted: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Vec<T>, TokenizerError> {
        self.get(key, wanted, |v| {
            v.to_vec().ok()?.iter().map(&convert).collect()
        })?
        .ok_or_else(|| malformed(self.path, format!("{key} is missing")))
    }

    fn texts(&self, key: &str) -> Result<Vec<&'a str>, TokenizerError> {
        self.list(key, "a list of texts", |v| {
            v.to_string().ok().map(String::as_str)
        })
    }

    fn integers(&self, key: &str) -> Result<Vec<i64>, TokenizerError> {
        self.list(key, "a list of integers", integer)
    }

    /// Id of a token, which must be below `bound`.
    fn id(&self, key: &str, bound: usize) -> Result<Option<u32>, TokenizerError> {
        self.get(key, "the id of one of its tokens", |v| {
            u32::try_from(integer(v)?)
                .ok()
                .filter(|&id| (id as usize) < bound)
        })
    }
}

fn integer(value: &Value) -> Option<i64> {
    match *value {
        Value::U8(v) => Some(v.into()),
        Value::I8(v) => Some(v.into()),
        Value::U16(v) => Some(v.into()),
        Value::I16(v) => Some(v.into()),
        Value::U32(v) => Some(v.into()),
        Value::I32(v) => Some(v.into()),
        Value::U64(v) => v.try_into().ok(),
        Value::I64(v) => Some(v),
        _ => None,
    }
}
