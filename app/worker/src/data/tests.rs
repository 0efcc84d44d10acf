//! The model and the data inside the program.

use std::path::{Path, PathBuf};

use forgetlab_engine::model::ModelConfig;
use forgetlab_engine::pretrained::builtin::{self, DATA, TEXT_TOKENIZER, TEXTS};
use forgetlab_engine::pretrained::{Export, Hub, Pretrained, export, open};
use forgetlab_study::experiment::{ChatSettings, TokenSetSettings};

use super::*;

/// A hub that must not be asked.
fn no_hub() -> Hub {
    Hub {
        endpoint: "http://127.0.0.1:9".into(),
        cache: "/nonexistent".into(),
        token: None,
        offline: true,
    }
}

fn tiny() -> Pretrained {
    open("builtin:tiny-llama", &no_hub(), &()).expect("opens")
}

/// A run without a download is repeatable only if its model is the same every time.
#[test]
fn the_tiny_model_is_whole_and_always_the_same() {
    let model = tiny();
    assert_eq!(
        model.config,
        ModelConfig::llama(64, 2, [4, 2, 16], 128, 512)
    );
    let params = model.load(&()).expect("loads");
    assert_eq!(params, tiny().load(&()).expect("loads"));
    let tokenizer = Tokenizer::of(&model).expect("opens");
    let by_name = Tokenizer::open(Path::new("builtin:tiny-llama")).expect("opens");
    assert_eq!(tokenizer.hash(), by_name.hash());
    assert_eq!(tokenizer.vocab_size(), model.config.vocab_size);
    let special = tokenizer.special_tokens();
    assert_eq!((special.bos, special.pad), (model.ids.bos, model.ids.pad));
    assert_eq!(tokenizer.stop_tokens(), model.ids.eos);
    assert_eq!(tokenizer.token_name(1).as_deref(), Some("<|im_start|>"));
    let text = "Write a gate.\n  ¿Ω?";
    let ids = tokenizer.encode(text).expect("encodes");
    assert_eq!(tokenizer.decode(&ids).expect("decodes"), text);
    let chat = Chat::new(&tokenizer, &ChatSettings::default()).expect("template");
    let turns = [Message::new("user", "Hi"), Message::new("assistant", "Oh")];
    assert_eq!(
        chat.render(&turns, false).expect("renders"),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nOh<|im_end|>\n"
    );
}

/// Else what a short run made could not be looked at elsewhere.
#[test]
fn the_tiny_model_is_exported_with_its_tokenizer() {
    let (model, to) = (tiny(), tempfile::tempdir().expect("folder"));
    let params = model.load(&()).expect("loads");
    let dir = to.path().join("out");
    export(&params, &Export::of(Some(&model)), &dir).expect("exports");
    let back = open(dir.to_str().expect("UTF-8"), &no_hub(), &()).expect("opens");
    assert_eq!((back.config, &back.ids), (model.config, &model.ids));
    assert_eq!(back.load(&()).expect("loads"), params);
    let hash = |model| Tokenizer::of(model).expect("opens").hash().to_owned();
    assert_eq!(hash(&back), hash(&model));
}

/// A preset on the built-in data must have something to train on, and something else to evaluate on.
#[test]
fn the_data_make_rows_of_64_tokens_for_both_sides() {
    let tokenizer = Tokenizer::of(&tiny()).expect("opens");
    let settings = TokenSetSettings {
        seq_len: 64,
        held_out: 0.15,
        ..TokenSetSettings::default()
    };
    let mut hashes = Vec::new();
    for (name, targets) in [(DATA[0], 40 * 60), (DATA[1], 40 * 20)] {
        let paths = [PathBuf::from(name)];
        let set = TokenSet::from_files(&paths, &Fields::default(), &tokenizer, &settings);
        let set = set.expect("rows");
        let found = (set.train.len(), set.held_out.len(), set.train.targets());
        assert!(
            found.0 >= 40 && found.1 >= 8 && found.2 >= targets,
            "{name}: {found:?}"
        );
        assert_eq!(set.counts.duplicates, 0, "{name}");
        hashes.push(set.provenance.sources[0].blake3.clone());
    }
    assert_ne!(hashes[0], hashes[1]);
    let questions = read_questions(Path::new(DATA[2])).expect("questions");
    // Who always says the same letter scores chance.
    for answer in 0..4 {
        let count = questions.iter().filter(|q| q.answer == answer).count();
        assert_eq!(count, 6);
    }
    assert!(questions.iter().all(|q| q.choices.len() == 4));
}

/// Else a study's smallest preset would have too little text, or ask for an id that its markers do not have.
#[test]
fn the_texts_for_small_models_are_whole_and_their_tokenizer_fits_them() {
    let tokenizer = Tokenizer::open(Path::new(TEXT_TOKENIZER)).expect("opens");
    assert_eq!(tokenizer.vocab_size(), 1024);
    for (id, name) in ["data0", "data1", "data2", "data3", "endoftext"]
        .iter()
        .enumerate()
    {
        let found = tokenizer.token_id(&format!("<|{name}|>")).expect(name);
        assert_eq!(found as usize, id);
    }
    let mut bytes = 0;
    for name in TEXTS {
        let documents = read(Path::new(name), &Fields::default()).expect(name);
        let texts: Vec<_> = documents.into_iter().map(|found| found.content).collect();
        assert!(texts.len() >= 150, "{name}: {}", texts.len());
        let mut tokens = 0;
        for (i, content) in texts.iter().enumerate() {
            let Content::Text(text) = content else {
                panic!("{name}: no text")
            };
            assert!(!texts[..i].contains(content), "{name} has twice: {text}");
            let ids = tokenizer.encode(text).expect("encodes");
            assert!(ids.iter().all(|&id| id > 4), "{name} holds a marker");
            assert_eq!(&tokenizer.decode(&ids).expect("decodes"), text);
            (bytes, tokens) = (bytes + text.len(), tokens + ids.len());
        }
        // A thousand rows of 64, short of the ends.
        assert!(tokens >= 60_000, "{name}: {tokens} tokens");
    }
    assert!(bytes < 1 << 20, "the program grows by {bytes} bytes");
}

/// A wrong name must not be looked for on the hub, nor the data be taken for a model.
#[test]
fn other_names_are_told_what_is_built_in() {
    for name in ["builtin:english", "builtin:text", "builtin:"] {
        let error = read(Path::new(name), &Fields::default()).unwrap_err();
        let error = error.to_string();
        for text in DATA.iter().chain(&TEXTS).chain(&[name]) {
            assert!(error.contains(text), "{text} in {error}");
        }
        assert!(builtin::is_builtin(Path::new(name)));
    }
    for name in ["builtin:big-llama", DATA[0]] {
        let error = open(name, &no_hub(), &()).unwrap_err().to_string();
        for text in [name, "not a model", "builtin:tiny-llama"] {
            assert!(error.contains(text), "{text} in {error}");
        }
    }
}
